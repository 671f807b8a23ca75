/*
 * A command in a guest, run by a thread of its own, so that the main thread
 * stays with signals, the terminal and the VM.
 */
#ifndef CLI_SESSION_H
#define CLI_SESSION_H

#include <pthread.h>
#include <stdbool.h>

#include "arcvmm/arcvmm.h"

struct session {
	/* The caller's, before the start. */
	struct arcvmm_exec exec;
	/* A connection to the agent, or -errno with a sentence. */
	int (*connect)(void *ctx, struct arcvmm_error *e);
	void *ctx;
	int in; /* -1: no input */
	bool tty; /* of ours: raw while it runs */

	/* The result, after session_join(). */
	int rc; /* 0: exit is the command's; else error says why */
	_Atomic uint64_t
		connected_ns; /* when the agent was reached; 0: it was not */
	struct arcvmm_exit exit;
	struct arcvmm_error error;

	/* The session's. */
	pthread_t thread;
	bool started;
	int control[2];
	int done; /* eventfd */
};

/* 0, or a status with a message said. */
int session_start(struct session *s);
/* Readable when the command has ended. */
int session_fd(const struct session *s);
void session_signal(struct session *s, int number);
void session_resize(struct session *s);
/* Wait for the end; @hangup: cause it. */
void session_join(struct session *s, bool hangup);

#endif
