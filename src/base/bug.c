#include "base/bug.h"

#include <stdio.h>
#include <stdlib.h>

void bug_at(const char *file, int line, const char *cond)
{
	fprintf(stderr, "arcvmm: bug: %s:%d: %s\n", file, line, cond);
	abort();
}
