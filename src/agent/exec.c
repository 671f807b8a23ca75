#include "agent/exec.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "agent/frame.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/util.h"
#include "loop/loop.h"

#define PATIENCE (10 * NSEC_PER_SEC)

struct agent_exec {
	struct loop *loop;
	int fd;
	const struct agent_exec_ops *ops;
	void *ctx;
	bool detach;
	struct frame_in in;
	struct frame_out out;
	struct loop_watch watch;
	struct loop_timer timer; /* until the agent has said something */
	uint32_t events; /* what the watch waits for */
	bool deaf; /* the watch is closed: a hang-up while paused */
	bool hello, ended, busy;
	bool paused; /* rest is what output() did not take */
	struct frame rest;
	size_t window; /* of standard input */
	bool input, input_ended;
};

static void finish(struct agent_exec *x, int ret, const struct agent_exit *exit,
		   const char *why)
{
	const struct agent_exec_ops *ops = x->ops;

	if (x->ended)
		return;
	x->ended = true;
	watch_close(&x->watch);
	timer_cancel(&x->timer);
	close(x->fd);
	x->fd = -1;
	ops->ended(x->ctx, ret, exit, why);
}

static void broken(struct agent_exec *x, int ret, const char *why)
{
	finish(x, ret, &(struct agent_exit){ .code = 125 }, why);
}

/* ---- frames of the guest ---- */

static void got_error(struct agent_exec *x, const struct frame *f)
{
	struct agent_exit exit = { 0 };
	char why[512];
	int code = frame_get_error(f, &exit.code, why, sizeof(why));

	finish(x, -code, &exit, why);
}

static void got_exit(struct agent_exec *x, const struct frame *f)
{
	struct agent_exit exit;
	uint32_t code, sig;

	if (f->len < AGENT_EXIT_LEN) {
		broken(x, -EPROTO, "the agent broke the protocol");
		return;
	}
	code = get_le32(f->data);
	sig = get_le32(f->data + 4);
	exit = (struct agent_exit){
		.code = code <= 255 ? (int)code : 255,
		.signal = sig <= 64 ? (int)sig : 0,
		.timed_out = get_le32(f->data + 8) & AGENT_EXIT_TIMEOUT,
		.shutdown = get_le32(f->data + 8) & AGENT_EXIT_SHUTDOWN,
	};
	if (f->len >= AGENT_EXIT_TIMES_LEN) {
		exit.command_ns = get_le64(f->data + 12);
		exit.agent_ns = get_le64(f->data + 20);
	}
	finish(x, 0, &exit, "");
}

static void got_ack(struct agent_exec *x, const struct frame *f)
{
	uint32_t n = f->len >= 4 ? get_le32(f->data) : 0;

	if (n > AGENT_STDIN_WINDOW - x->window) {
		broken(x, -EPROTO, "the agent broke the protocol");
		return;
	}
	x->window += n;
	if (x->ops->input_room && x->window && !x->input_ended)
		x->ops->input_room(x->ctx, x->window);
}

static void got_hello(struct agent_exec *x, const struct frame *f)
{
	int ret = frame_check_hello(f);

	if (x->hello || ret == -EPROTO) {
		broken(x, -EPROTO, "what answers is not an agent");
		return;
	}
	/* One of another version says so in its error, which follows. */
	x->hello = true;
	timer_cancel(&x->timer);
}

static void got_started(struct agent_exec *x, const struct frame *f)
{
	if (x->ops->started)
		x->ops->started(x->ctx, f->len >= 4 ? get_le32(f->data) : 0);
	if (x->detach && !x->ended)
		finish(x, 0, &(struct agent_exit){ 0 }, "");
}

static void got_output(struct agent_exec *x, const struct frame *f)
{
	size_t n;

	if (!f->len)
		return;
	n = x->ops->output(x->ctx, f->type == AGENT_STDOUT ? 1 : 2, f->data,
			   f->len);
	if (n >= f->len || x->ended)
		return;
	x->rest = *f;
	x->rest.data += n;
	x->rest.len -= (uint32_t)n;
	x->paused = true;
}

static void take_frame(struct agent_exec *x, const struct frame *f)
{
	if (!x->hello && f->type != AGENT_HELLO) {
		broken(x, -EPROTO, "what answers is not an agent");
		return;
	}
	switch (f->type) {
	case AGENT_HELLO:
		got_hello(x, f);
		break;
	case AGENT_ERROR:
		got_error(x, f);
		break;
	case AGENT_STARTED:
		got_started(x, f);
		break;
	case AGENT_STDOUT:
	case AGENT_STDERR:
		got_output(x, f);
		break;
	case AGENT_STDIN_ACK:
		got_ack(x, f);
		break;
	case AGENT_EXIT:
		got_exit(x, f);
		break;
	default:
		broken(x, -EPROTO, "the agent broke the protocol");
	}
}

/* ---- the connection ---- */

static void on_events(struct loop_watch *w, uint32_t events);

static void rearm(struct agent_exec *x)
{
	uint32_t want = (x->paused ? 0 : EPOLLIN) |
			(frame_out_pending(&x->out) ? EPOLLOUT : 0);

	if (x->ended || (x->deaf && x->paused))
		return;
	if (x->deaf) {
		x->deaf = false;
		x->events = want;
		if (watch_open(&x->watch, x->loop, x->fd, want, on_events) < 0)
			broken(x, -ENOMEM, "out of memory");
	} else if (want != x->events) {
		x->events = want;
		watch_modify(&x->watch, want);
	}
}

static void flush(struct agent_exec *x)
{
	int ret;

	if (x->ended)
		return;
	ret = frame_out_flush(&x->out, x->fd);
	/* A connection that is gone tells so on its reading side, after what
	 * it still has for us. */
	if (ret < 0)
		frame_out_free(&x->out);
}

static void take_frames(struct agent_exec *x)
{
	struct frame f;
	int ret = 0;

	while (!x->ended && !x->paused && (ret = frame_in_next(&x->in, &f)) > 0)
		take_frame(x, &f);
	if (ret < 0 && !x->ended)
		broken(x, -EPROTO, "the agent broke the protocol");
}

static void read_guest(struct agent_exec *x)
{
	long n = frame_in_fill(&x->in, x->fd);

	if (n == -EAGAIN)
		return;
	if (n <= 0) {
		broken(x, n ? (int)n : -EPIPE,
		       x->hello ? "the connection to the agent broke"
				: "nobody answers: the guest has no agent, or "
				  "it is not up yet");
		return;
	}
	take_frames(x);
}

/*
 * ended() may destroy the exec, so what comes after a step must know. The flag
 * is on the stack of whoever is outermost.
 */
static void enter(struct agent_exec *x, void (*step)(struct agent_exec *x))
{
	bool outer = !x->busy;

	x->busy = true;
	step(x);
	if (!outer)
		return;
	x->busy = false;
	if (x->fd == -1 && !x->loop) { /* destroyed meanwhile */
		frame_in_free(&x->in);
		frame_out_free(&x->out);
		free(x);
		return;
	}
	flush(x);
	rearm(x);
}

static void on_events(struct loop_watch *w, uint32_t events)
{
	struct agent_exec *x = container_of(w, struct agent_exec, watch);

	if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR))) {
		enter(x, flush);
	} else if (!x->paused) {
		enter(x, read_guest);
	} else {
		/* Told even when not asked for; read when resumed. */
		watch_close(w);
		x->deaf = true;
	}
}

static void silent(struct agent_exec *x)
{
	broken(x, -ETIMEDOUT, "the agent does not answer");
}

static void on_timer(struct loop_timer *t)
{
	enter(container_of(t, struct agent_exec, timer), silent);
}

/* ---- the request ---- */

static int put_word(struct agent_exec *x, uint16_t tag, const char *word,
		    size_t *total)
{
	size_t n = strlen(word);

	*total += n + 2 + sizeof(char *);
	if (*total > AGENT_ATTR_MAX)
		return -E2BIG;
	return frame_put_attr(&x->out, tag, word, n);
}

static int put_request(struct agent_exec *x, const struct agent_exec_config *c)
{
	uint32_t flags = (c->input ? AGENT_FLAG_STDIN : 0) |
			 (c->clean_env ? AGENT_FLAG_CLEAN_ENV : 0) |
			 (c->detach ? AGENT_FLAG_DETACH : 0);
	struct frame_out *o = &x->out;
	size_t total = 0;
	uint8_t b[20];
	int ret = frame_put_hello(o, "arcvmm " ARCVMM_VERSION);

	for (const char *const *a = c->argv; !ret && *a; a++)
		ret = put_word(x, AGENT_ATTR_ARG, *a, &total);
	for (const char *const *v = c->env; !ret && v && *v; v++)
		ret = put_word(x, AGENT_ATTR_ENV, *v, &total);
	if (!ret && c->cwd)
		ret = put_word(x, AGENT_ATTR_CWD, c->cwd, &total);
	if (!ret && c->user)
		ret = put_word(x, AGENT_ATTR_USER, c->user, &total);
	for (size_t i = 0; !ret && i < c->limit_count; i++) {
		put_le32(b, (uint32_t)c->limits[i].resource);
		put_le64(b + 4, c->limits[i].soft);
		put_le64(b + 12, c->limits[i].hard);
		ret = frame_put_attr(o, AGENT_ATTR_LIMIT, b, 20);
	}
	if (!ret && c->timeout_ns) {
		put_le64(b, c->timeout_ns);
		ret = frame_put_attr(o, AGENT_ATTR_TIMEOUT, b, 8);
	}
	if (!ret && c->tty) {
		put_le16(b, c->rows);
		put_le16(b + 2, c->columns);
		ret = frame_put_attr(o, AGENT_ATTR_TTY, b, 4);
	}
	put_le32(b, flags);
	if (!ret)
		ret = frame_put_attr(o, AGENT_ATTR_FLAGS, b, 4);
	return ret ? ret : frame_put(o, AGENT_EXEC, NULL, 0, NULL, 0);
}

static int make_request(struct agent_exec *x, const struct agent_exec_config *c,
			struct err *e)
{
	int ret = 0;

	if (c->limit_count > AGENT_LIMITS_MAX)
		return err_set(e, -E2BIG, "the command has more than %d limits",
			       AGENT_LIMITS_MAX);
	for (size_t i = 0; !ret && i < c->limit_count; i++)
		ret = agent_limit_check(&c->limits[i], e);
	if (ret)
		return ret;
	ret = c->argv && c->argv[0] ? put_request(x, c) : -EINVAL;
	if (ret == -E2BIG || ret == -EMSGSIZE)
		return err_set(e, -E2BIG, "the command's words are too long");
	return ret ? err_set(e, ret, "the command: %s", strerror(-ret)) : 0;
}

int agent_exec_start(struct agent_exec **out, struct loop *l, int fd,
		     const struct agent_exec_config *c,
		     const struct agent_exec_ops *ops, void *ctx, struct err *e)
{
	struct agent_exec *x = calloc(1, sizeof(*x));
	int ret;

	if (!x) {
		close(fd);
		return err_set(e, -ENOMEM, "out of memory");
	}
	*x = (struct agent_exec){ .loop = l,
				  .fd = fd,
				  .ops = ops,
				  .ctx = ctx,
				  .detach = c->detach,
				  .input = c->input,
				  .window = AGENT_STDIN_WINDOW };
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	ret = make_request(x, c, e);
	if (!ret) {
		x->events = EPOLLIN | EPOLLOUT;
		ret = watch_open(&x->watch, l, fd, x->events, on_events);
		if (!ret)
			ret = timer_set(&x->timer, l,
					clock_ns() + (c->patience_ns
							      ? c->patience_ns
							      : PATIENCE),
					on_timer);
		if (ret < 0)
			err_set(e, ret, "the connection to the agent: %s",
				strerror(-ret));
	}
	if (ret < 0) {
		agent_exec_destroy(x);
		return ret;
	}
	*out = x;
	return 0;
}

void agent_exec_destroy(struct agent_exec *x)
{
	if (!x)
		return;
	x->ended = true;
	watch_close(&x->watch);
	timer_cancel(&x->timer);
	if (x->fd >= 0)
		close(x->fd);
	x->fd = -1;
	x->loop = NULL;
	if (x->busy) /* in a callback: enter() frees it */
		return;
	frame_in_free(&x->in);
	frame_out_free(&x->out);
	free(x);
}

/* ---- what the caller does ---- */

size_t agent_exec_input_room(const struct agent_exec *x)
{
	return x->ended || x->input_ended || !x->input ? 0 : x->window;
}

static void queued(struct agent_exec *x)
{
	if (!x->busy && !x->ended) {
		flush(x);
		rearm(x);
	}
}

size_t agent_exec_input(struct agent_exec *x, const void *data, size_t len)
{
	len = min_of(len, agent_exec_input_room(x));
	if (!len || frame_put(&x->out, AGENT_STDIN, NULL, 0, data, len) < 0)
		return 0;
	x->window -= len;
	queued(x);
	return len;
}

void agent_exec_input_end(struct agent_exec *x)
{
	if (x->ended || x->input_ended || !x->input)
		return;
	x->input_ended = true;
	frame_put(&x->out, AGENT_STDIN, NULL, 0, NULL, 0);
	queued(x);
}

/* Orders are small, but a guest that reads nothing must not make us grow. */
static bool may_queue(const struct agent_exec *x)
{
	return !x->ended && frame_out_pending(&x->out) <
				    AGENT_ATTR_MAX + 4 * AGENT_STDIN_WINDOW;
}

void agent_exec_signal(struct agent_exec *x, int number)
{
	uint8_t b[4];

	put_le32(b, (uint32_t)number);
	if (may_queue(x))
		frame_put(&x->out, AGENT_SIGNAL, b, sizeof(b), NULL, 0);
	queued(x);
}

void agent_exec_resize(struct agent_exec *x, uint16_t rows, uint16_t columns)
{
	uint8_t b[4];

	put_le16(b, rows);
	put_le16(b + 2, columns);
	if (may_queue(x))
		frame_put(&x->out, AGENT_RESIZE, b, sizeof(b), NULL, 0);
	queued(x);
}

static void resume(struct agent_exec *x)
{
	struct frame f = x->rest;

	x->paused = false;
	got_output(x, &f);
	take_frames(x);
}

void agent_exec_resume(struct agent_exec *x)
{
	if (x->paused && !x->ended)
		enter(x, resume);
}
