/* arcvmm run, in two files: run_options.c reads the words, run.c does it. */
#ifndef CLI_RUN_H
#define CLI_RUN_H

#include <stdbool.h>
#include <stdint.h>

#include "cli/cli.h"

struct run_options {
	struct arcvmm_config *cfg;
	const char *timeline; /* file, or NULL */
	const char *name;
	uint64_t timeout_ns; /* 0: none */
	enum arcvmm_log_level log_level;
	bool detach, tty, input;
	char *const *argv; /* the command, NULL: none */
	/* What the words say about where the command runs. */
	bool console_given; /* --console: on the console */
	bool console_stdio;
	bool no_agent; /* --no-vsock, --no-init */
	const char *vsock_uds; /* --vsock-uds, or NULL */
	/* Of the command, for the agent (the library has them too). */
	const char *env[256], *cwd, *user;
	unsigned nenv;
	struct limits limits;
};

/* 0, or a status with a message said. Strings are argv's. */
int run_parse(struct run_options *o, int argc, char **argv);
void run_help(void);

#endif
