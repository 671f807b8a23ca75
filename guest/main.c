/*
 * The one program arcvmm puts into a guest. As its first process it is init;
 * see docs/agent.md.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent.h"
#include "init.h"

int main(int argc, char **argv)
{
	if (getpid() == 1)
		init_run();
	if (argc > 1 && !strcmp(argv[1], "version")) {
		printf("arcvmm-guest %s\n", ARCVMM_VERSION);
		return 0;
	}
	if (argc > 1 && !strcmp(argv[1], "session")) {
		agent_session(3); /* for tests: one half of a socketpair */
		return 0;
	}
	fprintf(stderr, "arcvmm-guest: this runs inside an arcvmm guest, as "
			"its first process\n");
	return 2;
}
