/*
 * The engine's side: run one case on the software CPU, at CPL 3 in long mode,
 * with the pages of layout.h at the same linear addresses.
 */
#ifndef ARC_ORACLE_SOFT_H
#define ARC_ORACLE_SOFT_H

#include <stdbool.h>

#include "case.h"

struct err;

/* Once per process. 0 or -errno with a sentence. */
int soft_half_init(struct err *e);
/* The guest's pages[i]. */
uint8_t *soft_half_page(unsigned i);
/* Bytes of a code page were changed behind the engine's back. */
void soft_half_code_changed(unsigned page, unsigned off, unsigned len);
void soft_half_run(const struct ocase *c, struct outcome *o);

#endif
