/*
 * agent_exec_run(): an exec between three descriptors, on a loop of its own.
 *
 * The descriptors are the caller's and stay blocking, so each write is made
 * only after poll() said there is room, and no longer than what a pipe that
 * has room always takes. Files, which epoll refuses, are always ready.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/exec.h"
#include "agent/proto.h"
#include "base/err.h"
#include "base/util.h"
#include "loop/loop.h"

#define PIPE_ATOMIC 4096

struct pump;

struct sink {
	struct pump *pump;
	struct loop_watch watch;
	int fd;
	bool is_file, dead;
};

struct pump {
	struct loop *loop;
	struct agent_exec *exec;
	struct loop_watch in, control;
	int in_fd, control_fd;
	bool in_file; /* always readable */
	bool in_armed;
	struct sink out[2];
	bool done;
	int lost; /* -errno of a write that failed, a closed pipe's aside */
	int ret;
	struct agent_exit exit;
	struct err *err;
	uint8_t buf[AGENT_STDIN_WINDOW];
};

/* ---- output ---- */

static bool ready(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };

	return poll(&p, 1, 0) > 0;
}

static void sink_ready(struct loop_watch *w, uint32_t events)
{
	struct sink *s = container_of(w, struct sink, watch);
	struct pump *p = s->pump;

	(void)events;
	watch_close(w);
	agent_exec_resume(p->exec);
}

static size_t pump_output(void *ctx, int stream, const void *data, size_t len)
{
	struct pump *p = ctx;
	struct sink *s = &p->out[stream - 1];
	size_t at = 0;

	while (at < len && !s->dead) {
		size_t n = s->is_file ? len - at
				      : min_of(len - at, (size_t)PIPE_ATOMIC);
		ssize_t w;

		if (!s->is_file && !ready(s->fd)) {
			if (!watch_open(&s->watch, p->loop, s->fd, EPOLLOUT,
					sink_ready))
				return at;
			/* Not to be waited for: then it blocks. */
		}
		w = write(s->fd, (const char *)data + at, n);
		if (w < 0 && errno == EINTR)
			continue;
		if (w < 0 && errno == EAGAIN)
			continue;
		if (w < 0) {
			/* Whoever read it is gone; the command shall know. */
			s->dead = true;
			if (errno != EPIPE)
				p->lost = -errno;
			agent_exec_signal(p->exec, SIGPIPE);
			break;
		}
		at += (size_t)w;
	}
	return len;
}

/* ---- input ---- */

static void read_input(struct pump *p)
{
	size_t room;

	while ((room = agent_exec_input_room(p->exec))) {
		ssize_t n =
			read(p->in_fd, p->buf, min_of(room, sizeof(p->buf)));

		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			return;
		if (n <= 0) {
			watch_close(&p->in);
			agent_exec_input_end(p->exec);
			return;
		}
		agent_exec_input(p->exec, p->buf, (size_t)n);
		if (!p->in_file) /* the next read might block */
			break;
	}
	/* No room: level-triggered readiness must not spin. */
	if (!p->in_file && !agent_exec_input_room(p->exec) && p->in_armed) {
		p->in_armed = false;
		watch_modify(&p->in, 0);
	}
}

static void input_ready(struct loop_watch *w, uint32_t events)
{
	struct pump *p = container_of(w, struct pump, in);

	(void)events;
	if (p->in_armed)
		read_input(p);
	else /* a hang-up is told even when not asked for */
		watch_close(w);
}

static void pump_room(void *ctx, size_t room)
{
	struct pump *p = ctx;

	(void)room;
	if (p->in_file) {
		read_input(p);
	} else if (!p->in_armed && p->in_fd >= 0) {
		p->in_armed = true;
		if (!p->in.loop)
			watch_open(&p->in, p->loop, p->in_fd, EPOLLIN,
				   input_ready);
		else
			watch_modify(&p->in, EPOLLIN);
	}
}

/* ---- the rest ---- */

static void pump_ended(void *ctx, int ret, const struct agent_exit *exit,
		       const char *why)
{
	struct pump *p = ctx;

	p->done = true;
	p->ret = ret;
	p->exit = *exit;
	if (ret < 0) {
		err_set(p->err, ret, "%s", why);
	} else if (p->lost) {
		p->exit.code = 125;
		p->ret = err_set(p->err, p->lost,
				 "the command's output was lost: %s",
				 strerror(-p->lost));
	}
}

static void control_ready(struct loop_watch *w, uint32_t events)
{
	struct pump *p = container_of(w, struct pump, control);
	struct agent_control c;
	ssize_t n = read(p->control_fd, &c, sizeof(c));

	(void)events;
	if (n != sizeof(c)) {
		if (n >= 0 || (errno != EAGAIN && errno != EINTR))
			watch_close(w);
		return;
	}
	switch (c.kind) {
	case AGENT_CONTROL_SIGNAL:
		agent_exec_signal(p->exec, c.a);
		break;
	case AGENT_CONTROL_RESIZE:
		agent_exec_resize(p->exec, c.a, c.b);
		break;
	case AGENT_CONTROL_HANGUP:
		p->done = true;
		p->ret = err_set(p->err, -ECANCELED, "interrupted");
		break;
	}
}

static const struct agent_exec_ops pump_ops = {
	.output = pump_output,
	.input_room = pump_room,
	.ended = pump_ended,
};

static bool is_file(int fd)
{
	struct stat st;

	return !fstat(fd, &st) && S_ISREG(st.st_mode);
}

static int run(struct pump *p, int fd, const struct agent_exec_config *c)
{
	struct agent_exec_config conf = *c;
	int ret;

	conf.input = p->in_fd >= 0;
	ret = agent_exec_start(&p->exec, p->loop, fd, &conf, &pump_ops, p,
			       p->err);
	if (ret < 0)
		return ret;
	if (p->control_fd >= 0)
		watch_open(&p->control, p->loop, p->control_fd, EPOLLIN,
			   control_ready);
	if (p->in_fd >= 0) {
		p->in_armed = true;
		p->in_file = watch_open(&p->in, p->loop, p->in_fd, EPOLLIN,
					input_ready) == -EPERM;
		if (p->in_file)
			read_input(p);
	}
	while (!p->done)
		loop_turn(p->loop, -1);
	watch_close(&p->in);
	watch_close(&p->control);
	watch_close(&p->out[0].watch);
	watch_close(&p->out[1].watch);
	agent_exec_destroy(p->exec);
	return p->ret;
}

int agent_exec_run(int fd, const struct agent_exec_config *c, int in, int out,
		   int err, int control, struct agent_exit *exit, struct err *e)
{
	struct pump p = {
		.in_fd = in, .control_fd = control, .err = e, .exit.code = 125
	};
	int ret = loop_create(&p.loop, NULL);

	if (ret < 0) {
		close(fd);
		*exit = p.exit;
		return err_set(e, ret, "event loop: %s", strerror(-ret));
	}
	p.out[0] = (struct sink){
		.pump = &p, .fd = out, .is_file = is_file(out), .dead = out < 0
	};
	p.out[1] = (struct sink){
		.pump = &p, .fd = err, .is_file = is_file(err), .dead = err < 0
	};
	ret = run(&p, fd, c);
	loop_destroy(p.loop);
	*exit = p.exit;
	return ret;
}
