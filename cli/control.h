/*
 * Orders to the process of a running VM, on the socket "ctl" of its directory:
 * a client sends one word and a newline, gets an answer, and the connection
 * ends.
 *
 *	stop        ask the guest to power off
 *	kill        end the run
 *	pause, resume
 *	stats       the library's counters, JSON
 *	agent       answered when the guest's agent is up
 * The answer is "ok", or what was asked for, or "error: ...".
 */
#ifndef CLI_CONTROL_H
#define CLI_CONTROL_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>

#include "arcvmm/arcvmm.h"
#include "cli/registry.h"

/* Those that wait for the agent keep their places: room for others beside. */
#define CONTROL_CLIENTS 64
/* "Not yet": the order is given again by control_retry(). */
#define CONTROL_LATER ((char *)-1)

struct control {
	int listener;
	struct {
		int fd;
		char word[32];
		size_t len;
		bool later;
	} clients[CONTROL_CLIENTS];
	/* The answer to @word, malloc'd; NULL: "ok"; CONTROL_LATER. */
	char *(*order)(void *ctx, const char *word);
	void *ctx;
};

/* ---- in the VM's process ---- */

int control_open(struct control *c, const struct instance *i,
		 char *(*order)(void *ctx, const char *word), void *ctx);
void control_close(struct control *c);
/* Fill @p (room for 1 + CONTROL_CLIENTS); the number of entries. */
unsigned control_poll(struct control *c, struct pollfd *p);
/* After poll(), with the same entries. */
void control_run(struct control *c, const struct pollfd *p, unsigned n);
/* Things have changed: give the orders that were put off again. */
void control_retry(struct control *c);

/* ---- in a client ---- */

/*
 * The answer, malloc'd; or NULL with a sentence, when it is an error or none
 * comes within @wait_ms (-ETIMEDOUT).
 */
#define CONTROL_WAIT_MS 60000
char *control_ask(const struct instance *i, const char *word, int wait_ms,
		  struct arcvmm_error *e);

#endif
