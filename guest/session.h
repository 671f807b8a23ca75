/* What a session knows of its request; shared by the parts of the agent. */
#ifndef ARC_GUEST_SESSION_H
#define ARC_GUEST_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/frame.h"
#include "rlimits.h"

struct session {
	int fd; /* the connection */
	struct frame_in in;
	struct frame_out out;
	/* Of the ATTR frames. */
	char **argv, **env; /* NULL-terminated, or NULL */
	size_t argc, envc;
	size_t attr_bytes;
	char *cwd, *user, *path;
	struct limits limits;
	uint64_t timeout_ns; /* 0: none */
	uint32_t flags;
	uint64_t asked_ns; /* when the request came, CLOCK_MONOTONIC */
	bool tty;
	uint16_t rows, columns;
};

/* The last frame: an error. @code is an errno. */
void session_error(struct session *s, int code, int status, const char *text);

/* Each serves its request to the end. */
void session_exec(struct session *s);
void session_stats(struct session *s);
void session_power(struct session *s, const struct frame *f);
void session_time(struct session *s, const struct frame *f);
void session_log(struct session *s, const struct frame *f);

#endif
