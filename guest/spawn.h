/* Starts a program: the command of the boot, or one the agent was asked for. */
#ifndef ARC_GUEST_SPAWN_H
#define ARC_GUEST_SPAWN_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct limits;

#define SPAWN_DEFAULT_PATH \
	"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

struct spawn {
	char *const *argv; /* NULL-terminated, at least one */
	char *const *env; /* "NAME=value", NULL-terminated; or NULL */
	bool clean_env; /* only env: no PATH, HOME, ... of ours */
	const char *cwd; /* NULL: "/" */
	const char *user; /* NULL: root */
	const struct limits *limits; /* or NULL */
	int in, out, err; /* become 0, 1, 2 */
	bool tty; /* @in is a terminal, to be the controlling one */
};

/* What went wrong before the program ran. */
struct spawn_error {
	int code; /* errno */
	int exit; /* what a shell would exit with: 126, 127, or 125 */
	char text[200];
};

/*
 * Returns once the program was executed: its pid (leader of a session and
 * process group of its own), or -1 and @error.
 */
pid_t spawn(const struct spawn *s, struct spawn_error *error);

/* The exit status a shell reports: the code, or 128 + the signal. */
int spawn_shell_status(int wait_status);

#endif
