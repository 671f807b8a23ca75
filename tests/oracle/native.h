/*
 * The host's side: run one case on this CPU.
 */
#ifndef ARC_ORACLE_NATIVE_H
#define ARC_ORACLE_NATIVE_H

#include "case.h"

/* Map the pages, install handlers. Once per process. 0 or -errno. */
int native_init(void);

/* A writable view of pages[i]; the instruction sees it at pages[i].la. */
uint8_t *native_page(unsigned i);

/* Memory must be as the case wants it. The code is in memory already. */
void native_run(const struct ocase *c, struct outcome *o);

#endif
