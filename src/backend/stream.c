/*
 * Theory of operation
 *
 * A stream is an input descriptor and an output descriptor (stream_end.c), or
 * the host program's functions.
 *
 * Regular files cannot be watched by epoll and need not be: they are always
 * ready, so wanted input from one is a deferred call on the loop.
 *
 * Kinds whose other side comes and goes (pty, unix) have `present`. A pty's
 * master cannot tell when its terminal side is opened, so inotify watches the
 * device node for opens and closes; our own open of it keeps its settings and
 * keeps the master from hanging up. A socket's client is present from accept()
 * to its end.
 *
 * The ring holds what the other side has not taken. With a peer it only fills
 * up, then writes are short; without one, new bytes push out the oldest.
 */
#include "backend/stream_impl.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>
#include <fcntl.h>

#include "base/bug.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/util.h"

static ssize_t put_out(struct stream *s, const struct iovec *iov, unsigned n)
{
	size_t took;

	if (!s->is_host)
		return end_writev(&s->out, iov, n);
	took = s->host.write(s->host.ctx, iov, (int)n);
	return took ? (ssize_t)took : -EAGAIN;
}

/* ---- the ring ---- */

static size_t total(const struct iovec *iov, unsigned n)
{
	size_t len = 0;

	for (unsigned i = 0; i < n; i++)
		len += iov[i].iov_len;
	return len;
}

/* Up to STREAM_IOV_BATCH pieces of @src from byte @off on. */
static unsigned window(struct iovec *dst, const struct iovec *src, unsigned n,
		       size_t off)
{
	unsigned k = 0;

	for (unsigned i = 0; i < n && k < STREAM_IOV_BATCH; i++) {
		if (off >= src[i].iov_len) {
			off -= src[i].iov_len;
			continue;
		}
		dst[k].iov_base = (char *)src[i].iov_base + off;
		dst[k++].iov_len = src[i].iov_len - off;
		off = 0;
	}
	return k;
}

/* @len bytes to the end of the ring; the oldest give way when it is full. */
static void ring_put(struct stream *s, const uint8_t *p, size_t len)
{
	if (len > STREAM_BACKLOG) {
		p += len - STREAM_BACKLOG;
		len = STREAM_BACKLOG;
	}
	while (len) {
		size_t at = (s->ring_start + s->ring_len) % STREAM_BACKLOG;
		size_t step = min_of(len, STREAM_BACKLOG - at);
		size_t lost;

		memcpy(s->ring + at, p, step);
		p += step;
		len -= step;
		s->ring_len += step;
		if (s->ring_len <= STREAM_BACKLOG)
			continue;
		lost = s->ring_len - STREAM_BACKLOG;
		s->ring_start = (s->ring_start + lost) % STREAM_BACKLOG;
		s->ring_len = STREAM_BACKLOG;
	}
}

/* Bytes of @iov from @off on: those taken, all or (@keep) what has room. */
static size_t ring_add(struct stream *s, const struct iovec *iov, unsigned n,
		       size_t off, bool keep)
{
	size_t left = total(iov, n) - off;
	size_t done = 0;

	if (!s->ring)
		s->ring = malloc(STREAM_BACKLOG);
	if (!s->ring) /* without memory: wait, or forget */
		return keep ? 0 : left;
	if (keep)
		left = min_of(left, STREAM_BACKLOG - s->ring_len);
	while (done < left) {
		struct iovec part[1];
		size_t step;

		for (unsigned i = 0;; i++) { /* the piece that holds @off */
			if (off < iov[i].iov_len) {
				window(part, iov + i, 1, off);
				break;
			}
			off -= iov[i].iov_len;
		}
		step = min_of(part->iov_len, left - done);
		ring_put(s, part->iov_base, step);
		done += step;
		off += step;
	}
	return done;
}

/* True when the ring is empty. */
static bool ring_flush(struct stream *s)
{
	while (s->ring_len) {
		struct iovec iov = {
			.iov_base = s->ring + s->ring_start,
			.iov_len = min_of(s->ring_len,
					  STREAM_BACKLOG - s->ring_start),
		};
		ssize_t n = put_out(s, &iov, 1);

		/* What a client did not take is for the next. */
		if (n == -EAGAIN || (n < 0 && s->path))
			return false;
		if (n < 0)
			break; /* the next write sees the error too */
		s->ring_start = (s->ring_start + (size_t)n) % STREAM_BACKLOG;
		s->ring_len -= (size_t)n;
	}
	free(s->ring);
	s->ring = NULL;
	s->ring_start = s->ring_len = 0;
	return true;
}

/* ---- events ---- */

static void update_watches(struct stream *s);

static void in_event(struct loop_watch *w, uint32_t events)
{
	struct stream *s = container_of(w, struct stream, in.watch);

	(void)events;
	s->events->readable(s->ctx);
}

static void again_event(struct loop_defer *d)
{
	struct stream *s = container_of(d, struct stream, again);

	if (s->want_input)
		s->events->readable(s->ctx);
	update_watches(s);
}

/* There is room, or nobody to wait for. */
static void tell_writable(struct stream *s)
{
	if (!s->want_output)
		return;
	s->want_output = false;
	if (s->events && s->events->writable)
		s->events->writable(s->ctx);
	update_watches(s);
}

static void set_present(struct stream *s, bool present)
{
	if (s->present == present)
		return;
	s->present = present;
	if (s->events && s->events->peer)
		s->events->peer(s->ctx, present);
	if (!present)
		tell_writable(s); /* into the backlog */
	else
		ring_flush(s);
	update_watches(s);
}

static bool is_listener(const struct stream *s)
{
	return s->path && s->terminal_fd < 0;
}

/* The other side of @s is gone. */
static void hang_up(struct stream *s)
{
	end_close(&s->out);
	if (is_listener(s))
		end_close(&s->in);
	set_present(s, false);
	update_watches(s); /* the listener takes the next */
}

static void out_event(struct loop_watch *w, uint32_t events)
{
	struct stream *s = container_of(w, struct stream, out.watch);

	if (events & (EPOLLHUP | EPOLLERR)) {
		/* What it sent before it left is read to its end first. */
		if (is_listener(s) && s->in.fd >= 0 && s->want_input)
			end_close(&s->out);
		else
			hang_up(s);
		return;
	}
	ring_flush(s);
	if (s->ring_len <= STREAM_BACKLOG / 2)
		tell_writable(s);
	update_watches(s);
}

static void watch_end(struct stream *s, struct end *end, bool keep,
		      uint32_t events,
		      void (*fn)(struct loop_watch *w, uint32_t events))
{
	int rc = 0;

	if (end->fd < 0 || !keep)
		watch_close(&end->watch);
	else if (!end->watch.loop)
		rc = watch_open(&end->watch, s->loop, end->fd, events, fn);
	else if (end->armed != events)
		rc = watch_modify(&end->watch, events);
	end->armed = events;
	if (rc < 0)
		log_error(s->log, "console stream: cannot be watched: %s",
			  strerror(-rc));
}

/* The terminal side was opened or closed by somebody. */
static void opens_event(struct loop_watch *w, uint32_t events)
{
	struct stream *s = container_of(w, struct stream, aux);
	union {
		struct inotify_event ev;
		char bytes[4096];
	} buf;
	ssize_t n;

	(void)events;
	n = read(s->aux_fd, &buf, sizeof(buf));
	for (ssize_t at = 0; at + (ssize_t)sizeof(buf.ev) <= n;) {
		const struct inotify_event *ev = (void *)(buf.bytes + at);

		if (ev->mask & IN_OPEN)
			s->opens++;
		else if (ev->mask & IN_CLOSE && s->opens)
			s->opens--;
		at += (ssize_t)(sizeof(*ev) + ev->len);
	}
	set_present(s, s->opens > 0);
}

#define ACCEPT_RETRY_NS (100 * NSEC_PER_MSEC)

static void accept_again(struct loop_timer *t)
{
	update_watches(container_of(t, struct stream, retry));
}

static void accept_event(struct loop_watch *w, uint32_t events)
{
	struct stream *s = container_of(w, struct stream, aux);
	int fd = accept4(s->aux_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	(void)events;
	if (fd < 0) {
		/* Out of descriptors: it would stay readable. */
		if (errno != EAGAIN && errno != ECONNABORTED) {
			watch_close(&s->aux);
			timer_set(&s->retry, s->loop,
				  clock_ns() + ACCEPT_RETRY_NS, accept_again);
		}
		return;
	}
	s->in = (struct end){ .fd = fd, .how = HOW_SOCKET };
	s->out = (struct end){ .fd = fcntl(fd, F_DUPFD_CLOEXEC, 3),
			       .how = HOW_SOCKET };
	if (s->out.fd < 0) {
		log_warn(s->log, "%s: client turned away: %s", s->path,
			 strerror(errno));
		end_close(&s->in);
		return;
	}
	watch_close(&s->aux); /* one at a time: others wait in the backlog */
	set_present(s, true);
}

static void update_watches(struct stream *s)
{
	bool in = s->want_input && s->in.fd >= 0;
	bool out = s->present && (s->want_output || s->ring_len);

	if (!s->events || s->is_host)
		return;
	if (s->in.regular && in)
		loop_defer(s->loop, &s->again);
	else if (!s->in.regular)
		watch_end(s, &s->in, in, EPOLLIN, in_event);
	/* A socket's is kept, to hear of its end; files are always ready. */
	if (!s->out.regular)
		watch_end(s, &s->out, out || s->out.how == HOW_SOCKET,
			  out ? EPOLLOUT : 0, out_event);
	if (is_listener(s) && s->out.fd < 0 && s->in.fd < 0 && !s->aux.loop)
		watch_open(&s->aux, s->loop, s->aux_fd, EPOLLIN, accept_event);
}

/* ---- reading and writing ---- */

size_t stream_readv(struct stream *s, const struct iovec *iov, unsigned n)
{
	ssize_t got;

	if (!total(iov, n)) /* would look like the end */
		return 0;
	if (s->is_host)
		return s->host.read ? s->host.read(s->host.ctx, iov, (int)n)
				    : 0;
	if (s->in.fd < 0)
		return 0;
	got = end_readv(&s->in, iov, n);
	if (got > 0)
		return (size_t)got;
	if (got == -EAGAIN)
		return 0;
	/* The end of input is not that of output. */
	end_close(&s->in);
	if (is_listener(s) && s->out.fd < 0)
		hang_up(s);
	return 0;
}

/* Straight to the other side: bytes taken. */
static size_t write_through(struct stream *s, const struct iovec *iov,
			    unsigned n, size_t len)
{
	struct iovec part[STREAM_IOV_BATCH];
	size_t done = 0;

	while (done < len) {
		unsigned k = window(part, iov, n, done);
		ssize_t put = put_out(s, part, k);

		if (put == -EAGAIN)
			break;
		if (put < 0) {
			log_warn(s->log, "console stream: output ends: %s",
				 strerror((int)-put));
			hang_up(s);
			break;
		}
		done += (size_t)put;
	}
	return done;
}

size_t stream_writev(struct stream *s, const struct iovec *iov, unsigned n)
{
	size_t len = total(iov, n), done = 0;

	s->want_output = false;
	if (s->present && (s->out.fd >= 0 || s->is_host) && ring_flush(s))
		done = write_through(s, iov, n, len);
	if (s->path && (!s->present || s->out.fd < 0))
		done += ring_add(s, iov, n, done, false); /* for the next */
	else if (s->out.fd < 0 && !s->is_host)
		done = len; /* nobody, for good */
	else if (done < len)
		done += ring_add(s, iov, n, done, true);
	s->want_output = done < len;
	update_watches(s);
	return done;
}

void stream_want_input(struct stream *s, bool want)
{
	if (s->want_input == want)
		return;
	s->want_input = want;
	/* What the host has may have been announced while nobody wanted it. */
	if (s->is_host && want && s->events)
		loop_defer(s->loop, &s->again);
	else
		update_watches(s);
}

bool stream_present(const struct stream *s)
{
	return s->present;
}

const char *stream_path(const struct stream *s)
{
	return s->path;
}

bool stream_terminal_size(const struct stream *s, unsigned *cols,
			  unsigned *rows)
{
	struct winsize ws;

	if (s->terminal_fd >= 0 || s->in.fd < 0 ||
	    ioctl(s->in.fd, TIOCGWINSZ, &ws) < 0 || !ws.ws_col || !ws.ws_row)
		return false;
	*cols = ws.ws_col;
	*rows = ws.ws_row;
	return true;
}

/* ---- life ---- */

static void ready_event(struct loop_post *p);

struct stream *stream_new(struct loop *l, const struct log *log)
{
	struct stream *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->loop = l;
	s->log = log;
	s->in.fd = s->out.fd = s->aux_fd = s->terminal_fd = -1;
	s->present = true;
	s->again.fn = again_event;
	s->ready.fn = ready_event;
	return s;
}

void stream_free(struct stream *s)
{
	end_close(&s->in);
	end_close(&s->out);
	loop_defer_cancel(&s->again);
	watch_close(&s->aux);
	timer_cancel(&s->retry);
	if (s->aux_fd >= 0)
		close(s->aux_fd);
	if (s->terminal_fd >= 0)
		close(s->terminal_fd);
	if (s->unlink_path)
		unlink(s->path);
	free(s->path);
	free(s->ring);
	free(s);
}

/* The last words of a guest, to a reader that is slow but reads. */
static void linger(struct stream *s)
{
	while (!ring_flush(s)) {
		struct pollfd p = { .fd = s->out.fd, .events = POLLOUT };

		if (s->is_host || poll(&p, 1, STREAM_LINGER_MS) <= 0 ||
		    !(p.revents & POLLOUT) || p.revents & (POLLERR | POLLHUP))
			break;
	}
}

void stream_close(struct stream *s)
{
	if (!s)
		return;
	s->closed = true;
	s->events = NULL;
	loop_defer_cancel(&s->again);
	if (s->present)
		linger(s);
	/* A post under way holds the struct: ready_event() frees it. */
	if (!__atomic_load_n(&s->ready.queued, __ATOMIC_ACQUIRE))
		stream_free(s);
}

static void ready_event(struct loop_post *p)
{
	struct stream *s = container_of(p, struct stream, ready);

	if (s->closed) {
		stream_free(s);
		return;
	}
	ring_flush(s);
	if (s->ring_len <= STREAM_BACKLOG / 2)
		tell_writable(s);
	if (s->want_input && s->events)
		s->events->readable(s->ctx);
}

void stream_host_ready(struct stream *s)
{
	loop_post(s->loop, &s->ready);
}

void stream_start(struct stream *s, const struct stream_events *events,
		  void *ctx)
{
	s->events = events;
	s->ctx = ctx;
	update_watches(s);
	if (s->terminal_fd >= 0 && s->aux_fd >= 0)
		watch_open(&s->aux, s->loop, s->aux_fd, EPOLLIN, opens_event);
}
