/*
 * The hybrid socket, as Firecracker speaks it.
 *
 * Host to guest: a client of <path> says "CONNECT <port>\n" and hears
 * "OK <n>\n" once the guest has accepted, n being the port on the host's side;
 * on any failure the socket is closed without a word. From there on the
 * client's socket is the connection's. Its line may come in pieces, is at most
 * 32 bytes long, and nothing after the newline is read with it: that is data
 * already. Verb in any case, blanks around words as one likes, more words are
 * ignored, and a port may begin with '+'.
 *
 * Guest to host: a connection to port P is one to the socket <path>_P.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "virtio/vsock/core.h"

#define LINE_MAX_BYTES	32
#define CLIENTS_MAX	256 /* that have not said CONNECT yet */
#define ACCEPT_RETRY_NS (100 * NSEC_PER_MSEC)

struct uds {
	struct vsock *v;
	int fd;
	struct loop_watch watch;
	struct list clients;
	unsigned nclients;
	bool paused; /* CLIENTS_MAX reached */
	struct deadline retry;
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
};

struct uds_client {
	struct list node;
	struct uds *u;
	int fd;
	struct loop_watch watch;
	struct deadline deadline;
	unsigned len;
	char line[LINE_MAX_BYTES];
};

static void uds_accept(struct uds *u);

/* The descriptor stays open when it has moved on to a connection. */
static void client_free(struct uds_client *k, bool keep_fd)
{
	struct uds *u = k->u;

	watch_close(&k->watch);
	deadline_clear(&k->deadline);
	list_remove(&k->node);
	if (!keep_fd)
		close(k->fd);
	free(k);
	u->nclients--;
}

static void said_ok(struct vconn *c)
{
	char line[32];
	int n = snprintf(line, sizeof(line), "OK %u\n", c->key.host_port);

	/* A fresh socket has room for it. */
	if (send(c->fd, line, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT) != n) {
		c->v->n.host_gone++;
		conn_reset(c, -EPIPE);
	}
}

static void said_nothing(struct vconn *c, int rc)
{
	(void)c;
	(void)rc;
}

static const struct vconn_end client_end = {
	.open = said_ok,
	.failed = said_nothing,
};

/* True and the port for "CONNECT <port>" in any accepted spelling. */
static bool parse_line(const char *s, unsigned len, uint32_t *port)
{
	static const char verb[] = "connect";
	const char *end = s + len;
	uint64_t n = 0;
	const char *digits;

	while (s < end && isspace((unsigned char)*s))
		s++;
	if ((size_t)(end - s) < strlen(verb) ||
	    strncasecmp(s, verb, strlen(verb)) != 0)
		return false;
	s += strlen(verb);
	if (s == end || !isspace((unsigned char)*s))
		return false;
	while (s < end && isspace((unsigned char)*s))
		s++;
	if (s < end && *s == '+')
		s++;
	for (digits = s; s < end && isdigit((unsigned char)*s); s++) {
		n = n * 10 + (uint64_t)(*s - '0');
		if (n > UINT32_MAX)
			return false;
	}
	if (s == digits || (s < end && !isspace((unsigned char)*s)))
		return false;
	*port = (uint32_t)n;
	return true;
}

static void client_command(struct uds_client *k)
{
	struct vsock *v = k->u->v;
	struct vconn *c;
	uint32_t port;
	int fd = k->fd;

	if (!parse_line(k->line, k->len, &port) ||
	    conn_request(v, port, VSOCK_STREAM,
			 vsock_now(v) + v->config.boot_ns, &client_end, NULL,
			 &c)) {
		client_free(k, false);
		return;
	}
	client_free(k, true);
	if (conn_set_fd(c, fd))
		conn_reset(c, -ENOMEM);
}

static void client_ready(struct loop_watch *w, uint32_t events)
{
	struct uds_client *k = container_of(w, struct uds_client, watch);
	struct uds *u = k->u;

	(void)events;
	for (;;) {
		size_t room = LINE_MAX_BYTES - k->len;
		char *at = k->line + k->len, *nl;
		ssize_t r = recv(k->fd, at, room, MSG_PEEK | MSG_DONTWAIT);

		if (r < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (r <= 0)
			break;
		/* Not a byte beyond the newline. */
		nl = memchr(at, '\n', (size_t)r);
		if (nl)
			r = nl + 1 - at;
		r = recv(k->fd, at, (size_t)r, MSG_DONTWAIT);
		if (r <= 0)
			break;
		k->len += (unsigned)r;
		if (nl) {
			client_command(k);
			goto out;
		}
		if (k->len == LINE_MAX_BYTES)
			break;
	}
	client_free(k, false);
out:
	if (u->paused)
		uds_accept(u);
}

static void client_silent(struct deadline *d)
{
	struct uds_client *k = container_of(d, struct uds_client, deadline);
	struct uds *u = k->u;

	u->v->n.timed_out++;
	client_free(k, false);
	if (u->paused)
		uds_accept(u);
}

static void client_new(struct uds *u, int fd)
{
	struct uds_client *k = calloc(1, sizeof(*k));
	struct vsock *v = u->v;

	if (!k) {
		close(fd);
		return;
	}
	k->u = u;
	k->fd = fd;
	list_init(&k->deadline.node);
	list_append(&u->clients, &k->node);
	u->nclients++;
	if (watch_open(&k->watch, v->loop, fd, EPOLLIN | EPOLLRDHUP | EPOLLET,
		       client_ready)) {
		client_free(k, false);
		return;
	}
	deadline_set(v, &k->deadline, DL_CLIENT,
		     vsock_now(v) + v->config.client_ns, client_silent);
}

static void accept_again(struct deadline *d)
{
	uds_accept(container_of(d, struct uds, retry));
}

/* Edge-triggered: until EAGAIN, or until a client makes room. */
static void uds_accept(struct uds *u)
{
	struct vsock *v = u->v;

	u->paused = false;
	for (;;) {
		int fd;

		if (u->nclients >= CLIENTS_MAX) {
			u->paused = true;
			return;
		}
		fd = accept4(u->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd >= 0) {
			client_new(u, fd);
		} else if (errno == EAGAIN) {
			return;
		} else if (errno != EINTR && errno != ECONNABORTED) {
			/* Out of descriptors or memory: nothing announces
			 * that there are some again. */
			v->n.no_memory++;
			deadline_set(v, &u->retry, DL_ACCEPT,
				     vsock_now(v) + ACCEPT_RETRY_NS,
				     accept_again);
			return;
		}
	}
}

static void uds_ready(struct loop_watch *w, uint32_t events)
{
	(void)events;
	uds_accept(container_of(w, struct uds, watch));
}

/* A socket nobody serves any more may be replaced; anything else not. */
static int clear_stale(const struct sockaddr_un *sun, struct err *e)
{
	struct stat st;
	int fd, rc = 0;

	if (lstat(sun->sun_path, &st) < 0)
		return 0;
	if (!S_ISSOCK(st.st_mode))
		return err_set(e, -EEXIST,
			       "vsock: %s exists and is not a socket; choose "
			       "another path",
			       sun->sun_path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_set(e, -errno, "vsock: socket: %s", strerror(errno));
	if (connect(fd, (const void *)sun, sizeof(*sun)) == 0 ||
	    errno != ECONNREFUSED)
		rc = err_set(e, -EADDRINUSE,
			     "vsock: %s is in use by another process",
			     sun->sun_path);
	else
		unlink(sun->sun_path);
	close(fd);
	return rc;
}

int uds_create(struct vsock *v, struct err *e)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	const char *path = v->config.uds_path;
	struct uds *u;
	int rc;

	/* Room for "_4294967295" behind it. */
	if (!*path || strlen(path) + 11 >= sizeof(sun.sun_path))
		return err_set(e, -ENAMETOOLONG,
			       "vsock: the socket path must have 1 to %zu "
			       "characters: %s",
			       sizeof(sun.sun_path) - 12, path);
	memcpy(sun.sun_path, path, strlen(path));
	rc = clear_stale(&sun, e);
	if (rc)
		return rc;
	u = calloc(1, sizeof(*u));
	if (!u)
		return err_set(e, -ENOMEM, "vsock: out of memory");
	u->v = v;
	memcpy(u->path, path, strlen(path));
	list_init(&u->clients);
	list_init(&u->retry.node);
	u->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (u->fd < 0 || bind(u->fd, (void *)&sun, sizeof(sun)) < 0) {
		rc = err_set(e, -errno, "vsock: cannot bind %s: %s", path,
			     strerror(errno));
		goto fail;
	}
	if (listen(u->fd, SOMAXCONN) < 0 ||
	    watch_open(&u->watch, v->loop, u->fd, EPOLLIN | EPOLLET,
		       uds_ready)) {
		rc = err_set(e, -EIO, "vsock: cannot listen on %s", path);
		unlink(path);
		goto fail;
	}
	v->uds = u;
	v->config.uds_path = u->path;
	return 0;
fail:
	if (u->fd >= 0)
		close(u->fd);
	free(u);
	return rc;
}

void uds_destroy(struct vsock *v)
{
	struct uds *u = v->uds;

	if (!u)
		return;
	v->uds = NULL;
	v->config.uds_path = NULL;
	while (!list_empty(&u->clients))
		client_free(
			container_of(u->clients.next, struct uds_client, node),
			false);
	deadline_clear(&u->retry);
	watch_close(&u->watch);
	close(u->fd);
	unlink(u->path);
	free(u);
}

int uds_dial(struct vsock *v, uint32_t port, unsigned type)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int kind = type == VSOCK_SEQPACKET ? SOCK_SEQPACKET : SOCK_STREAM;
	int fd = socket(AF_UNIX, kind | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -errno;
	/* (uds_create() saw to it that this fits.) */
	if (snprintf(sun.sun_path, sizeof(sun.sun_path), "%s_%u", v->uds->path,
		     port) >= (int)sizeof(sun.sun_path)) {
		close(fd);
		return -ENAMETOOLONG;
	}
	/* Never waits: a full backlog is EAGAIN, and that is a refusal. */
	if (connect(fd, (void *)&sun, sizeof(sun)) < 0) {
		int rc = -errno;

		close(fd);
		return rc;
	}
	return fd;
}
