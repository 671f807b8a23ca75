/* Cases from a grammar over the encodings; a function of (seed, number). */
#ifndef ARC_ORACLE_GEN_H
#define ARC_ORACLE_GEN_H

#include "case.h"

struct gen_only {
	int map, op; /* -1: any */
	int compat; /* -1: all; else as in struct ocase */
};

void gen_case(struct ocase *c, uint64_t seed, uint64_t number,
	      const struct gen_only *only);

/* The case must not or cannot be run here: why, or NULL. */
const char *case_excluded(const struct ocase *c);

#endif
