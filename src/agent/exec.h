/*
 * A command in the guest, from the host, on a loop.
 *
 *     agent_exec_start() -> started() -> output()... -> ended() -> _destroy()
 *
 * The connection may be any stream socket that reaches an agent: from
 * vsock_connect(), from a hybrid AF_UNIX socket, one half of a socketpair.
 * Memory is constant whatever the command writes: when output() does not take
 * everything, the connection is not read until agent_exec_resume().
 */
#ifndef ARC_AGENT_EXEC_H
#define ARC_AGENT_EXEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/limit.h"

struct err;
struct loop;
struct agent_exec;

struct agent_exec_config {
	const char *const *argv; /* NULL-terminated, at least one */
	const char *const *env; /* "NAME=value", NULL-terminated; or NULL */
	bool clean_env; /* no PATH, HOME, ... but what env says */
	const char *cwd; /* NULL: "/" */
	const char *user; /* "name", "uid", "user:group"; NULL: root */
	const struct agent_limit *limits;
	size_t limit_count; /* at most AGENT_LIMITS_MAX */
	uint64_t timeout_ns; /* SIGTERM after that, then SIGKILL; 0: never */
	bool input; /* standard input will come; else /dev/null */
	bool tty; /* a terminal of its own */
	uint16_t rows, columns; /* of that */
	bool detach; /* ended() once it runs; it goes on alone */
	uint64_t patience_ns; /* for the agent's first word; 0: 10 s */
};

struct agent_exit {
	int code; /* as a shell says it: 128 + signal, 126, 127, 125 */
	int signal; /* 0: it exited by itself */
	bool timed_out;
	bool shutdown; /* it ended because the guest did */
	/* In the guest: fork to reaping, EXEC to EXIT; 0: it does not say. */
	uint64_t command_ns, agent_ns;
};

/* All on the loop. */
struct agent_exec_ops {
	/* The command was executed. May be NULL. */
	void (*started)(void *ctx, uint32_t pid);
	/*
	 * @stream (1 or 2) said something: how much of it was taken. Less than
	 * @len: nothing more comes before agent_exec_resume().
	 */
	size_t (*output)(void *ctx, int stream, const void *data, size_t len);
	/* agent_exec_input() will take @room bytes. May be NULL. */
	void (*input_room)(void *ctx, size_t room);
	/*
	 * The end, exactly once and last. @ret 0: @exit is the command's. Else
	 * -errno and the sentence @why: it could not be run (exit->code 126,
	 * 127 or 125) or the connection broke (125). The exec may be destroyed
	 * in here.
	 */
	void (*ended)(void *ctx, int ret, const struct agent_exit *exit,
		      const char *why);
};

/*
 * Takes @fd over, also on failure. 0; -E2BIG when the words are too many; other
 * -errno with a sentence.
 */
int agent_exec_start(struct agent_exec **out, struct loop *l, int fd,
		     const struct agent_exec_config *c,
		     const struct agent_exec_ops *ops, void *ctx,
		     struct err *e);
/* Before the end it hangs up: the command gets SIGHUP. NULL-safe. */
void agent_exec_destroy(struct agent_exec *x);

/* How much was taken; 0 when the window is closed or the end is near. */
size_t agent_exec_input(struct agent_exec *x, const void *data, size_t len);
size_t agent_exec_input_room(const struct agent_exec *x);
void agent_exec_input_end(struct agent_exec *x);
void agent_exec_signal(struct agent_exec *x, int number);
void agent_exec_resize(struct agent_exec *x, uint16_t rows, uint16_t columns);
/* output() may be called again; it is called from here. */
void agent_exec_resume(struct agent_exec *x);

/*
 * All of that in one blocking call, for a caller with descriptors: input from
 * @in (-1: none), output to @out and @err (which may be the same; both stay the
 * caller's and blocking). Messages on @control (-1: none), a pipe or socket
 * others write to, become signals and sizes. Takes @fd over. 0 and @exit; or
 * -errno, a sentence, and @exit->code 125 to 127.
 */
struct agent_control {
	uint8_t kind; /* AGENT_CONTROL_* */
	uint8_t zero;
	uint16_t a, b;
};
enum {
	AGENT_CONTROL_SIGNAL = 1, /* a: number */
	AGENT_CONTROL_RESIZE = 2, /* a: rows, b: columns */
	AGENT_CONTROL_HANGUP = 3, /* end it now: -ECANCELED */
};
int agent_exec_run(int fd, const struct agent_exec_config *c, int in, int out,
		   int err, int control, struct agent_exit *exit,
		   struct err *e);

#endif
