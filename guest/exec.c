/*
 * A command of a session.
 *
 * Theory of operation
 *
 * One poll() loop over the connection, the command's standard input, output
 * and error (or its terminal) and its pidfd. Memory is constant:
 *   - output is read only while the queue to the host is short, so a host that
 *     does not read stops the command, not us;
 *   - input is kept in a ring of AGENT_STDIN_WINDOW bytes, and the host may not
 *     have more than that on the way; we acknowledge what the command took. So
 *     the connection is always read, and a signal or a new window size gets
 *     through to a command that reads nothing.
 * The command has ended when its process has and the output it left in the
 * pipes is sent; what its orphans write later is not waited for.
 *
 * If the host goes away, the command's session gets SIGHUP and, after a while,
 * SIGKILL.
 *
 * When the guest ends, its process 1 sends SIGTERM to everybody, to the command
 * as well as to us. We stay to tell the host how the command took it, and end it
 * by force before process 1 does the same to us.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "agent/frame.h"
#include "base/bytes.h"
#include "session.h"
#include "spawn.h"
#include "util.h"

#define QUEUE_LOW AGENT_CHUNK /* read more output below this */
#define GRACE_NS  2000000000ull /* from SIGTERM or SIGHUP to SIGKILL */
/* After process 1's SIGTERM; it has 2 s for all of us (KILL_MS, init.c). */
#define SHUTDOWN_NS 1500000000ull
#define PIDFD_OPEN  434

struct exec {
	struct session *s;
	pid_t pid;
	int in; /* where standard input goes, or -1 */
	int out, err; /* where output comes from, or -1 */
	int pidfd;
	int term; /* a signalfd: SIGTERM to us */
	uint8_t ring[AGENT_STDIN_WINDOW];
	size_t ring_at, ring_len;
	uint32_t unacked; /* taken by the command, not yet told */
	bool in_eof; /* the host has sent all */
	bool gone; /* the host has */
	bool broken; /* it does not keep to the protocol */
	bool dead; /* the command is */
	int status;
	bool timed_out;
	bool shutdown; /* we were told to end */
	uint64_t forked, reaped; /* CLOCK_MONOTONIC ns */
	uint64_t deadline; /* CLOCK_MONOTONIC ns of the next step, 0: none */
	uint8_t chunk[AGENT_CHUNK];
};

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void set_size(int fd, uint16_t rows, uint16_t columns)
{
	struct winsize w = { .ws_row = rows, .ws_col = columns };

	ioctl(fd, TIOCSWINSZ, &w);
}

/* ---- starting ---- */

/* Pairs of descriptors: ours, and the command's. */
struct stdio {
	int ours[3], its[3];
};

static int open_tty(struct session *s, struct stdio *io)
{
	int unlock = 0, number, fd;
	char path[32];

	fd = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return -errno;
	io->ours[0] = fd;
	if (ioctl(fd, TIOCSPTLCK, &unlock) < 0 ||
	    ioctl(fd, TIOCGPTN, &number) < 0)
		return -errno;
	set_size(fd, s->rows, s->columns);
	snprintf(path, sizeof(path), "/dev/pts/%d", number);
	fd = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	io->its[0] = io->its[1] = io->its[2] = fd;
	io->ours[1] = dup(io->ours[0]);
	return io->ours[1] < 0 ? -errno : 0;
}

static int open_pipes(struct session *s, struct stdio *io)
{
	int p[2];

	bool detach = s->flags & AGENT_FLAG_DETACH;

	if (s->flags & AGENT_FLAG_STDIN && !detach) {
		if (pipe2(p, O_CLOEXEC) < 0)
			return -errno;
		io->its[0] = p[0];
		io->ours[0] = p[1];
		fcntl(p[1], F_SETFL, O_NONBLOCK);
	} else {
		io->its[0] = open("/dev/null", O_RDWR | O_CLOEXEC);
		if (io->its[0] < 0)
			return -errno;
	}
	for (int i = 1; i < 3; i++) {
		if (detach) {
			io->its[i] = open("/dev/null", O_RDWR | O_CLOEXEC);
			if (io->its[i] < 0)
				return -errno;
			continue;
		}
		if (pipe2(p, O_CLOEXEC) < 0)
			return -errno;
		io->ours[i] = p[0];
		io->its[i] = p[1];
		fcntl(p[0], F_SETFL, O_NONBLOCK);
	}
	return 0;
}

static void close_its(struct stdio *io)
{
	for (int i = 0; i < 3; i++) {
		for (int j = i + 1; j < 3; j++)
			if (io->its[j] == io->its[i])
				io->its[j] = -1;
		close_fd(&io->its[i]);
	}
}

/* The command runs; or the host has been told why not. */
static bool start(struct exec *x)
{
	struct session *s = x->s;
	struct stdio io = { { -1, -1, -1 }, { -1, -1, -1 } };
	struct spawn sp = {
		.argv = s->argv,
		.env = s->env,
		.clean_env = s->flags & AGENT_FLAG_CLEAN_ENV,
		.cwd = s->cwd,
		.user = s->user,
		.limits = &s->limits,
		.tty = s->tty,
	};
	struct spawn_error why;
	uint8_t pid[4];
	int ret;

	if (!s->argv) {
		session_error(s, EINVAL, 125, "no command given");
		return false;
	}
	ret = s->tty ? open_tty(s, &io) : open_pipes(s, &io);
	if (ret < 0) {
		snprintf(why.text, sizeof(why.text), "%s: %s",
			 s->tty ? "terminal" : "pipe", strerror(-ret));
		session_error(s, ret, 125, why.text);
		goto fail;
	}
	sp.in = io.its[0];
	sp.out = io.its[1];
	sp.err = io.its[2];
	x->forked = now_ns();
	x->pid = spawn(&sp, &why);
	if (x->pid < 0) {
		session_error(s, why.code, why.exit, why.text);
		goto fail;
	}
	close_its(&io);
	x->in = io.ours[0];
	x->out = io.ours[1];
	x->err = io.ours[2];
	x->pidfd = (int)syscall(PIDFD_OPEN, x->pid, 0);
	put_le32(pid, (uint32_t)x->pid);
	frame_put(&s->out, AGENT_STARTED, pid, sizeof(pid), NULL, 0);
	return true;
fail:
	close_its(&io);
	for (int i = 0; i < 3; i++)
		close_fd(&io.ours[i]);
	return false;
}

/* ---- standard input ---- */

static void take_input(struct exec *x, const struct frame *f)
{
	if (!f->len)
		x->in_eof = true;
	if (x->in_eof || x->in < 0) {
		x->unacked += f->len; /* nobody reads it: it is taken */
		return;
	}
	if (f->len > sizeof(x->ring) - x->ring_len) {
		x->broken = true; /* more than it was allowed to send */
		return;
	}
	for (size_t done = 0; done < f->len;) {
		size_t to = (x->ring_at + x->ring_len) % sizeof(x->ring);
		size_t n = sizeof(x->ring) - to;

		if (n > f->len - done)
			n = f->len - done;
		memcpy(x->ring + to, f->data + done, n);
		x->ring_len += n;
		done += n;
	}
}

static void feed_command(struct exec *x)
{
	while (x->ring_len && x->in >= 0) {
		size_t n = sizeof(x->ring) - x->ring_at;
		ssize_t w;

		if (n > x->ring_len)
			n = x->ring_len;
		w = write(x->in, x->ring + x->ring_at, n);
		if (w < 0 && errno == EINTR)
			continue;
		if (w < 0 && errno == EAGAIN)
			break;
		if (w < 0) { /* it closed its end: all is taken */
			close_fd(&x->in);
			w = (ssize_t)x->ring_len;
		}
		x->ring_at = (x->ring_at + (size_t)w) % sizeof(x->ring);
		x->ring_len -= (size_t)w;
		x->unacked += (uint32_t)w;
	}
	if (x->in < 0 && x->ring_len) {
		x->unacked += (uint32_t)x->ring_len;
		x->ring_len = 0;
	}
	if (x->in_eof && !x->ring_len && x->in >= 0) {
		if (x->s->tty) {
			/* A terminal has no end: say what a person would. */
			struct termios t;

			if (!tcgetattr(x->in, &t) && (t.c_lflag & ICANON))
				write(x->in, &t.c_cc[VEOF], 1);
		}
		close_fd(&x->in);
	}
}

/* ---- frames of the host ---- */

static void hang_up(struct exec *x)
{
	if (x->gone)
		return;
	x->gone = true;
	if (x->dead) /* its number may be another's */
		return;
	kill(-x->pid, SIGHUP);
	kill(-x->pid, SIGCONT);
	x->deadline = now_ns() + GRACE_NS;
}

static void take_signal(struct exec *x, uint32_t number)
{
	pid_t group = 0;

	if (number < 1 || number > 64 || x->dead)
		return;
	/* A terminal's signals go to what is in the foreground there. */
	if (x->s->tty && (number == SIGINT || number == SIGQUIT ||
			  number == SIGTSTP || number == SIGWINCH))
		group = tcgetpgrp(x->out);
	kill(group > 0 ? -group : -x->pid, (int)number);
}

static void take_frame(struct exec *x, const struct frame *f)
{
	switch (f->type) {
	case AGENT_STDIN:
		take_input(x, f);
		break;
	case AGENT_SIGNAL:
		if (f->len >= 4)
			take_signal(x, get_le32(f->data));
		break;
	case AGENT_RESIZE:
		if (f->len >= 4 && x->s->tty && x->out >= 0)
			set_size(x->out, get_le16(f->data),
				 get_le16(f->data + 2));
		break;
	}
}

static void take_frames(struct exec *x)
{
	struct frame f;
	int ret;

	while ((ret = frame_in_next(&x->s->in, &f)) > 0)
		take_frame(x, &f);
	if (ret < 0 || x->broken)
		hang_up(x);
}

static void read_host(struct exec *x)
{
	long n = frame_in_fill(&x->s->in, x->s->fd);

	if (n == -EAGAIN)
		return;
	if (n <= 0)
		hang_up(x);
	else
		take_frames(x);
}

/* ---- output ---- */

/* False when there is nothing to read now. */
static bool read_output(struct exec *x, int *fd, uint8_t type)
{
	ssize_t n;

	if (*fd < 0)
		return false;
	n = read(*fd, x->chunk, sizeof(x->chunk));
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n <= 0) { /* a terminal ends with EIO */
		close_fd(fd);
		return false;
	}
	if (!x->gone)
		frame_put(&x->s->out, type, NULL, 0, x->chunk, (size_t)n);
	return true;
}

static void say_acks(struct exec *x)
{
	uint8_t n[4];

	/* Often enough that the host never waits with half a window. */
	if (!x->unacked || x->gone ||
	    (x->unacked < AGENT_STDIN_WINDOW / 4 && x->ring_len))
		return;
	put_le32(n, x->unacked);
	x->unacked = 0;
	frame_put(&x->s->out, AGENT_STDIN_ACK, n, sizeof(n), NULL, 0);
}

static void send_host(struct exec *x)
{
	if (x->gone)
		frame_out_free(&x->s->out);
	else if (frame_out_flush(&x->s->out, x->s->fd) < 0)
		hang_up(x);
}

/* ---- the end ---- */

static void check_time(struct exec *x)
{
	if (!x->deadline || now_ns() < x->deadline)
		return;
	if (x->gone || x->timed_out || x->shutdown) {
		kill(-x->pid, SIGKILL);
		kill(x->pid, SIGKILL);
		x->deadline = 0;
		return;
	}
	x->timed_out = true;
	kill(-x->pid, SIGTERM);
	kill(-x->pid, SIGCONT);
	x->deadline = now_ns() + GRACE_NS;
}

static void take_term(struct exec *x)
{
	struct signalfd_siginfo si;
	uint64_t end = now_ns() + SHUTDOWN_NS;

	if (read(x->term, &si, sizeof(si)) != sizeof(si))
		return;
	if (si.ssi_pid != 1 && !x->dead) /* it was for us alone */
		kill(-x->pid, SIGTERM);
	x->shutdown = true;
	if (!x->deadline || end < x->deadline)
		x->deadline = end;
}

static void check_dead(struct exec *x)
{
	if (!x->dead && waitpid(x->pid, &x->status, WNOHANG) == x->pid) {
		x->dead = true;
		x->reaped = now_ns();
		if (!x->shutdown)
			x->deadline = 0;
	}
}

static void say_exit(struct exec *x)
{
	uint8_t e[AGENT_EXIT_TIMES_LEN];

	put_le32(e, (uint32_t)spawn_shell_status(x->status));
	put_le32(e + 4,
		 WIFSIGNALED(x->status) ? (uint32_t)WTERMSIG(x->status) : 0);
	put_le32(e + 8, (x->timed_out ? AGENT_EXIT_TIMEOUT : 0) |
				(x->shutdown ? AGENT_EXIT_SHUTDOWN : 0));
	put_le64(e + 12, x->reaped - x->forked);
	put_le64(e + 20, now_ns() - x->s->asked_ns);
	frame_put(&x->s->out, AGENT_EXIT, e, sizeof(e), NULL, 0);
}

static int wait_ms(const struct exec *x)
{
	uint64_t now;

	if (x->pidfd < 0 && !x->dead) /* an old kernel: look now and then */
		return 20;
	if (!x->deadline)
		return -1;
	now = now_ns();
	return now >= x->deadline ? 0
				  : (int)((x->deadline - now) / 1000000) + 1;
}

static void turn(struct exec *x)
{
	struct session *s = x->s;
	bool room = frame_out_pending(&s->out) < QUEUE_LOW;
	struct pollfd p[] = {
		{ .fd = x->gone ? -1 : s->fd,
		  .events =
			  (short)(POLLIN |
				  (frame_out_pending(&s->out) ? POLLOUT : 0)) },
		{ .fd = x->ring_len ? x->in : -1, .events = POLLOUT },
		{ .fd = room ? x->out : -1, .events = POLLIN },
		{ .fd = room ? x->err : -1, .events = POLLIN },
		{ .fd = x->dead ? -1 : x->pidfd, .events = POLLIN },
		{ .fd = x->term, .events = POLLIN },
	};

	poll(p, sizeof(p) / sizeof(*p), wait_ms(x));
	if (p[0].revents & (POLLIN | POLLHUP | POLLERR))
		read_host(x);
	feed_command(x);
	if (p[2].revents)
		read_output(x, &x->out, AGENT_STDOUT);
	if (p[3].revents)
		read_output(x, &x->err, AGENT_STDERR);
	if (p[5].revents)
		take_term(x);
	say_acks(x);
	send_host(x);
	check_dead(x);
	check_time(x);
}

/*
 * A terminal hands on what was written to it a moment later, and is not at its
 * end before its last user closed it.
 */
static bool late_output(struct exec *x)
{
	struct pollfd p = { .fd = x->out, .events = POLLIN };

	return x->s->tty && x->out >= 0 && poll(&p, 1, 50) > 0;
}

/* After the end: what is left in the pipes, at the host's pace. */
static void drain(struct exec *x)
{
	struct session *s = x->s;
	/* Orphans may write for ever; a pipe or terminal holds no more. */
	size_t budget = 2u << 20;

	while (!x->gone && budget) {
		struct pollfd p[] = {
			{ .fd = s->fd, .events = POLLIN | POLLOUT },
			{ .fd = x->term, .events = POLLIN },
		};

		if (frame_out_pending(&s->out) < QUEUE_LOW) {
			bool more = read_output(x, &x->out, AGENT_STDOUT);

			more |= read_output(x, &x->err, AGENT_STDERR);
			if (!more && !late_output(x))
				return;
			budget -= sizeof(x->chunk);
		}
		send_host(x);
		if (!frame_out_pending(&s->out))
			continue;
		poll(p, 2, wait_ms(x));
		if (p[0].revents & (POLLIN | POLLHUP | POLLERR))
			read_host(x);
		if (p[1].revents)
			take_term(x);
		if (x->shutdown && x->deadline && now_ns() >= x->deadline)
			x->gone = true; /* it does not read, we must go */
	}
}

void session_exec(struct session *s)
{
	struct exec *x = calloc(1, sizeof(*x));
	sigset_t term, before;

	if (!x) {
		session_error(s, ENOMEM, 125, "out of memory");
		return;
	}
	*x = (struct exec){
		.s = s, .in = -1, .out = -1, .err = -1, .pidfd = -1
	};
	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	sigprocmask(SIG_BLOCK, &term, &before);
	x->term = signalfd(-1, &term, SFD_CLOEXEC | SFD_NONBLOCK);
	if (start(x)) {
		if (s->flags & AGENT_FLAG_DETACH) {
			frame_out_send(&s->out, s->fd);
			goto out;
		}
		fcntl(s->fd, F_SETFL, O_NONBLOCK);
		if (s->timeout_ns)
			x->deadline = now_ns() + s->timeout_ns;
		take_frames(x); /* some may already be here */
		while (!x->dead)
			turn(x);
		drain(x);
		if (!x->gone) {
			say_exit(x);
			fcntl(s->fd, F_SETFL, 0);
			frame_out_send(&s->out, s->fd);
		}
	}
out:
	close_fd(&x->in);
	close_fd(&x->out);
	close_fd(&x->err);
	close_fd(&x->pidfd);
	close_fd(&x->term);
	sigprocmask(SIG_SETMASK, &before, NULL);
	free(x);
}
