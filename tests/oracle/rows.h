/*
 * Coverage of the engine's own opcode tables: every row of optable.c after its
 * groups, every row of sse_table.c, every x87 form, every form of groups 6, 7
 * and 15.
 *
 * A row is covered when an instruction of it came to its end: as on the host;
 * or by #UD, when it is a form that does not exist, as on the host; or in the
 * privileged tables, for what CPL 3 may not do or has nothing to compare with.
 */
#ifndef ARC_ORACLE_ROWS_H
#define ARC_ORACLE_ROWS_H

#include <stdbool.h>
#include <stdint.h>

#include "case.h"

#define ROWS_MAX 4096

enum {
	ROW_RUN = 1, /* the engine ran it, to its end or a fault of its own */
	ROW_DONE = 2, /* it came to its end, as on the host */
	ROW_UD = 4, /* #UD: with no end anywhere, there is no such form */
};

struct rows {
	uint8_t mark[ROWS_MAX];
	const char *by[ROWS_MAX]; /* privileged case that ends it, or NULL */
};

void rows_init(void); /* once per process */
/* The row of the instruction in code[], or -1; its length. */
int rows_find(const uint8_t *code, unsigned avail, unsigned mode,
	      unsigned *len);
void rows_mark(struct rows *r, const struct ocase *c, uint8_t bits);
/* The next row from @n on that nothing ended yet, and its opcode; -1: none. */
int rows_left(const struct rows *r, int n, int *map, int *op);
/* One line, and which privileged cases are in it; how many are left out. */
unsigned rows_report(const struct rows *r, bool list);

#endif
