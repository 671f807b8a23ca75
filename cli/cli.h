/* What the files of the CLI share. */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arcvmm/arcvmm.h"

/* Exit statuses of arcvmm itself; a command's own status passes unchanged. */
enum {
	EXIT_REBOOT = 120, /* the guest asked for a reset */
	EXIT_PANIC = 121, /* the guest kernel panicked */
	EXIT_CRASH = 122, /* triple fault, or the engine could not go on */
	EXIT_TIMEOUT = 124, /* --timeout */
	EXIT_USAGE = 125, /* arcvmm could not do it: the message says why */
};

/* A verb of the command line. @run gets argv from the verb on. */
struct verb {
	const char *name;
	const char *args; /* "[OPTION]... [-- CMD ARG...]" */
	const char *summary; /* one line */
	int (*run)(int argc, char **argv);
	void (*help)(void); /* what follows usage and summary; may be NULL */
};
extern const struct verb *const verbs[]; /* NULL-terminated */

extern const struct verb verb_run, verb_exec, verb_cp, verb_ps, verb_logs,
	verb_stop, verb_kill, verb_pause, verb_resume, verb_stats, verb_doctor,
	verb_vhost_user_vsock, verb_completion, verb_version, verb_help;

/* "arcvmm: TEXT" to stderr; returns EXIT_USAGE. */
int complain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* A positive number of seconds; 0, or a status with a message said. */
int parse_seconds(const char *what, const char *text, uint64_t *ns);

/* How long a guest asked to stop may take before it is stopped. */
#define STOP_GRACE_NS 10000000000ull

/* Resource limits of a command, from --limit. */
struct limits {
	struct arcvmm_limit v[ARCVMM_LIMITS_MAX];
	size_t n;
};
/* Of one resource given twice, the last. 0, or a status with a message said. */
int limits_add(struct limits *l, const char *text);

/*
 * From here on the signals that ask for an end, or tell of the terminal, are
 * read from the descriptor returned. SIGPIPE is ignored.
 */
int signals_open(void);

/* As many descriptors as we may have: every vsock connection is two. */
void descriptors_raise(void);

/* The usage of one verb, to stdout. */
void print_help(const struct verb *v);

/*
 * A connection to the agent of a running VM, which may take @wait_ms to be up;
 * -errno with a message said.
 */
struct instance;
#define AGENT_WAIT_MS 300000
int agent_of(const struct instance *i, int wait_ms);

/* Nanoseconds on the clock of the library's milestones. */
uint64_t now_ns(void);
/* When this process began, on the same clock (as near as can be told). */
uint64_t process_start_ns(void);

#endif
