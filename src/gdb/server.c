/*
 * The GDB server: socket, client, stopping and going on.
 *
 * Theory of operation
 * -------------------
 * One client at a time; a second connection waits in the backlog. The machine
 * is in one of two states, and g->stopped says which. It goes from running to
 * stopped when a client connects, on Ctrl-C, and when a vCPU reports a debug
 * exit: the vCPU's thread leaves the exit in exits[] and posts; on our loop we
 * stop the others and report. It runs again on c, s, vCont, and when the client
 * goes.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bug.h"
#include "base/err.h"
#include "base/log.h"
#include "base/unix_socket.h"
#include "base/util.h"
#include "gdb/server.h"

int gdb_stop(struct gdb *g)
{
	int rc = g->over ? -ESRCH : g->ops->stop(g->target);

	if (rc == 0)
		g->stopped = true;
	return rc;
}

int gdb_resume(struct gdb *g, const bool *run)
{
	int rc = gdb_break_apply(g);

	if (rc < 0)
		return rc;
	g->stopped = false;
	rc = g->ops->resume(g->target, run);
	if (rc < 0)
		g->stopped = true;
	return rc;
}

static void resume_all(struct gdb *g)
{
	bool run[GDB_MAX_CPUS];

	memset(g->stepping, 0, sizeof(g->stepping));
	for (unsigned i = 0; i < g->ncpus; i++)
		run[i] = true;
	gdb_resume(g, run);
}

static void flush_out(struct gdb *g)
{
	struct rsp *r = &g->rsp;

	while (g->fd >= 0 && r->out_at < r->out_len) {
		ssize_t n =
			send(g->fd, r->out + r->out_at, r->out_len - r->out_at,
			     MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			break;
		r->out_at += (size_t)n;
	}
	if (r->out_at == r->out_len)
		r->out_at = r->out_len = 0;
	if (g->fd >= 0 && g->want_out != (r->out_len > 0)) {
		g->want_out = r->out_len > 0;
		watch_modify(&g->watch, EPOLLIN | (g->want_out ? EPOLLOUT : 0));
	}
}

static void accept_again(struct gdb *g);

void gdb_drop_client(struct gdb *g)
{
	if (g->fd < 0)
		return;
	flush_out(g);
	watch_close(&g->watch);
	close(g->fd);
	g->fd = -1;
	if (!g->over && (g->stopped || gdb_stop(g) == 0)) {
		gdb_break_remove_all(g);
		resume_all(g);
	}
	log_info(g->log, "gdb: the client has gone");
	accept_again(g);
}

static void on_client(struct loop_watch *w, uint32_t events)
{
	struct gdb *g = container_of(w, struct gdb, watch);
	char buf[4096];
	ssize_t n = 0;

	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
		n = recv(g->fd, buf, sizeof(buf), MSG_DONTWAIT);
		if (n > 0) {
			rsp_feed(&g->rsp, buf, (size_t)n);
		} else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
			gdb_drop_client(g);
			return;
		}
	}
	flush_out(g);
	if (g->rsp.overflow)
		gdb_drop_client(g);
}

static void on_packet(struct rsp *r, char *data, size_t len)
{
	struct gdb *g = container_of(r, struct gdb, rsp);

	if (g->fd >= 0)
		gdb_command(g, data, len);
}

static void on_interrupt(struct rsp *r)
{
	struct gdb *g = container_of(r, struct gdb, rsp);

	if (g->fd >= 0)
		gdb_interrupt(g);
}

static void on_connect(struct loop_watch *w, uint32_t events)
{
	struct gdb *g = container_of(w, struct gdb, listen_watch);
	int one = 1, fd;

	(void)events;
	fd = accept4(g->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0)
		return;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	rsp_init(&g->rsp, on_packet, on_interrupt);
	g->cpu_g = g->cpu_c = 0;
	g->want_out = false;
	if (gdb_stop(g) < 0 ||
	    watch_open(&g->watch, g->loop, fd, EPOLLIN, on_client) < 0) {
		if (g->stopped)
			resume_all(g);
		close(fd);
		return;
	}
	g->fd = fd;
	/* The next one waits in the backlog. */
	watch_close(&g->listen_watch);
	log_info(g->log, "gdb: a client has come, the machine is stopped");
}

static void accept_again(struct gdb *g)
{
	if (watch_open(&g->listen_watch, g->loop, g->listen_fd, EPOLLIN,
		       on_connect) < 0)
		log_warn(g->log, "gdb: no further client can come");
}

/* A vCPU or the run had something to say. */
static void on_post(struct loop_post *p)
{
	struct gdb *g = container_of(p, struct gdb, post);
	bool pending, over;
	int status;

	pthread_mutex_lock(&g->lock);
	pending = g->pending;
	over = g->run_over;
	status = g->run_status;
	pthread_mutex_unlock(&g->lock);
	if (over && !g->over) {
		g->over = true;
		if (g->fd >= 0)
			rsp_text(&g->rsp, "W%02x", status & 0xff);
	} else if (pending && !g->stopped && gdb_stop(g) == 0) {
		gdb_report_stop(g);
	}
	flush_out(g);
}

void gdb_debug_exit(struct gdb *g, unsigned cpu, const struct hv_exit *exit)
{
	if (cpu >= g->ncpus)
		return;
	pthread_mutex_lock(&g->lock);
	g->has_exit[cpu] = true;
	g->exits[cpu] = *exit;
	g->pending = true;
	pthread_mutex_unlock(&g->lock);
	loop_post(g->loop, &g->post);
}

void gdb_run_ended(struct gdb *g, int status)
{
	if (!g)
		return;
	pthread_mutex_lock(&g->lock);
	g->run_over = true;
	g->run_status = status;
	pthread_mutex_unlock(&g->lock);
	loop_post(g->loop, &g->post);
}

unsigned gdb_port(const struct gdb *g)
{
	return g->port;
}

/* ---- the address ---- */

static int listen_unix(struct gdb *g, const char *path, struct err *e)
{
	g->listen_fd = unix_listen(path, 1, e);
	if (g->listen_fd < 0)
		return err_prefix(e, g->listen_fd, "gdb");
	g->unlink_path = strdup(path);
	return 0;
}

static int listen_tcp(struct gdb *g, const char *where, struct err *e)
{
	struct sockaddr_in a = { .sin_family = AF_INET };
	socklen_t len = sizeof(a);
	const char *port = strrchr(where, ':');
	char host[64] = "127.0.0.1", *end;
	unsigned long n;
	int one = 1;

	if (port) {
		if ((size_t)(port - where) >= sizeof(host))
			return err_set(e, -EINVAL, "gdb: %s is no address",
				       where);
		memcpy(host, where, (size_t)(port - where));
		host[port - where] = 0;
		port++;
	} else {
		port = where;
	}
	n = strtoul(port, &end, 10);
	if (!*port || *end || n > 65535 ||
	    inet_pton(AF_INET, host, &a.sin_addr) != 1)
		return err_set(e, -EINVAL,
			       "gdb: %s is not PORT or ADDRESS:PORT", where);
	a.sin_port = htons((uint16_t)n);
	g->listen_fd =
		socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (g->listen_fd < 0)
		return err_set(e, -errno, "gdb: no socket: %s",
			       strerror(errno));
	setsockopt(g->listen_fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(g->listen_fd, (struct sockaddr *)&a, sizeof(a)) < 0 ||
	    listen(g->listen_fd, 1) < 0 ||
	    getsockname(g->listen_fd, (struct sockaddr *)&a, &len) < 0)
		return err_set(e, -errno, "gdb: cannot listen at %s: %s", where,
			       strerror(errno));
	g->port = ntohs(a.sin_port);
	return 0;
}

static int open_listener(struct gdb *g, const char *where, struct err *e)
{
	if (!strncmp(where, "unix:", 5))
		return listen_unix(g, where + 5, e);
	if (!strncmp(where, "tcp:", 4))
		return listen_tcp(g, where + 4, e);
	return err_set(e, -EINVAL,
		       "gdb: %s is not tcp:PORT, tcp:ADDRESS:PORT or "
		       "unix:PATH",
		       where);
}

int gdb_create(struct gdb **out, const char *where,
	       const struct gdb_target_ops *ops, void *target,
	       const struct log *log, struct err *e)
{
	struct gdb *g = calloc(1, sizeof(*g));
	int rc = -ENOMEM;

	if (!g)
		return err_set(e, rc, "out of memory");
	g->listen_fd = g->fd = -1;
	g->ops = ops;
	g->target = target;
	g->log = log;
	g->post.fn = on_post;
	pthread_mutex_init(&g->lock, NULL);
	g->ncpus = min_of(ops->cpus(target), (unsigned)GDB_MAX_CPUS);
	g->scratch = malloc(4 * RSP_PACKET_MAX);
	g->state = aligned_alloc(64, sizeof(*g->state));
	if (!g->scratch || !g->state) {
		err_set(e, rc, "out of memory");
		goto fail;
	}
	rc = open_listener(g, where, e);
	if (rc < 0)
		goto fail;
	rc = loop_create(&g->loop, log);
	if (rc < 0) {
		err_set(e, rc, "gdb: no event loop");
		goto fail;
	}
	loop_lock(g->loop);
	accept_again(g);
	loop_unlock(g->loop);
	rc = loop_start_thread(g->loop, "arcvmm-gdb");
	if (rc < 0) {
		err_set(e, rc, "gdb: no thread");
		goto fail;
	}
	*out = g;
	return 0;
fail:
	gdb_destroy(g);
	return rc;
}

void gdb_destroy(struct gdb *g)
{
	if (!g)
		return;
	if (g->loop) {
		loop_stop_thread(g->loop);
		watch_close(&g->watch);
		watch_close(&g->listen_watch);
		loop_destroy(g->loop);
	}
	if (g->fd >= 0)
		close(g->fd);
	if (g->listen_fd >= 0)
		close(g->listen_fd);
	if (g->unlink_path)
		unlink(g->unlink_path);
	pthread_mutex_destroy(&g->lock);
	free(g->unlink_path);
	free(g->scratch);
	free(g->state);
	free(g);
}
