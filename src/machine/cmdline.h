/* The kernel command line: the board's words, the VM's, the user's. */
#ifndef ARC_MACHINE_CMDLINE_H
#define ARC_MACHINE_CMDLINE_H

#include <stdbool.h>
#include <stddef.h>

struct err;

struct cmdline_config {
	const char *user; /* NULL: none */
	const char *extra; /* of other parts of the VM; NULL: none */
	bool no_defaults;
	bool quiet;
	size_t max; /* bytes without the final NUL */
};

/* 0 and a malloced string, or -E2BIG, -ENOMEM with a sentence. */
int cmdline_build(char **out, const struct cmdline_config *c, struct err *e);

#endif
