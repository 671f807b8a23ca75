/* Run a case on both sides and say where they differ. */
#ifndef ARC_ORACLE_JUDGE_H
#define ARC_ORACLE_JUDGE_H

#include <stdio.h>

#include "case.h"

enum verdict {
	SAME,
	DIFFERENT,
	TOLERATED, /* differs where hardware may: see judge.c */
	HIDDEN, /* the engine does not show this feature: #UD, as it must */
	LOST, /* the host ran somewhere else */
	EXCLUDED, /* see case_excluded() */
};

struct judgement {
	enum verdict verdict;
	struct outcome host, soft;
	char text[512]; /* DIFFERENT: what, in words */
};

/* Fills memory with the pattern. Both halves are initialised. */
void judge_init(void);
void judge_case(const struct ocase *c, struct judgement *j);
/* As small a case as still differs the way @as says, in place. */
void judge_minimise(struct ocase *c, const struct judgement *as);

#endif
