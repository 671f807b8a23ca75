/*
 * What a console said, kept for `logs`: the last one to two CONSOLE_LOG_MAX in
 * two files, so that a guest cannot fill the host's memory.
 */
#ifndef CLI_CONSOLELOG_H
#define CLI_CONSOLELOG_H

#include <stddef.h>

#include "cli/registry.h"

#define CONSOLE_LOG_MAX (1u << 20)

struct console_log {
	const struct instance *instance; /* NULL: nothing is kept */
	int in; /* what the console writes to comes out here */
	int file;
	size_t size;
};

/* A pipe whose write end (*@out) the console gets. */
int console_log_open(struct console_log *l, const struct instance *i, int *out);
/* Take what there is; false at the end. */
bool console_log_pump(struct console_log *l);
void console_log_close(struct console_log *l);

/* Copy the log of @i to stdout; with @follow until the VM ends. */
int console_log_print(const struct instance *i, bool follow);
/* The last lines of the log, to stderr. */
void console_log_tail(const struct instance *i, unsigned lines);

#endif
