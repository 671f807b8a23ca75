/*
 * Coverage of the engine's own opcode tables: every row of optable.c after its
 * groups, every row of sse_table.c, every x87 form.
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
	ROW_UD = 4, /* #UD: with nothing else, there is no such form */
};

struct rows {
	uint8_t mark[ROWS_MAX];
};

void rows_init(void); /* once per process */
void rows_mark(struct rows *r, const struct ocase *c, uint8_t bits);
void rows_report(const struct rows *r);

#endif
