/*
 * The one program arcvmm puts into a guest. What it does depends on how it is
 * started; see docs/agent.md.
 */
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "version")) {
		printf("arcvmm-guest %s\n", ARCVMM_VERSION);
		return 0;
	}
	fprintf(stderr, "arcvmm-guest: this runs inside an arcvmm guest, as "
			"its first process\n");
	return 2;
}
