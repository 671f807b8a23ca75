/*
 * A connection's life and its socket. The states and waits are in core.h; this
 * file makes the moves between them.
 *
 * A function that may end the connection says so: after conn_reset(),
 * conn_drop() and a false conn_flush() the struct may be gone.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bug.h"
#include "base/clock.h"
#include "virtio/vsock/core.h"

#define CREDIT_RETRY_NS	 (10 * NSEC_PER_MSEC)
#define CREDIT_RETRY_MAX 8 /* doublings: 2.56 s */

static void on_socket(struct loop_watch *w, uint32_t events);

/*
 * The window of a new connection. What the host will not take is kept in our
 * memory, so many connections get less each: 10,000 of them can make us hold
 * 256 MiB at the very most.
 */
static uint32_t buf_alloc(const struct vsock *v)
{
	uint32_t most = v->config.buf_alloc;

	if (v->nconn >= 1024)
		return min_of(most, 16384u);
	return v->nconn >= 256 ? min_of(most, 65536u) : most;
}

struct vconn *conn_new(struct vsock *v, const struct vsock_key *k,
		       bool from_host)
{
	struct vconn *c;

	if (v->nconn >= v->config.max_connections) {
		v->n.limit++;
		return NULL;
	}
	c = calloc(1, sizeof(*c));
	if (!c) {
		v->n.no_memory++;
		return NULL;
	}
	c->v = v;
	c->key = *k;
	c->fd = -1;
	c->from_host = from_host;
	c->state = from_host ? VC_REQUEST : VC_ACCEPT;
	c->wait = VW_HANDSHAKE;
	c->seq_out_tail = &c->seq_out;
	list_init(&c->all);
	list_init(&c->ctl_node);
	list_init(&c->ready_node);
	list_init(&c->deadline.node);
	credit_init(&c->credit, buf_alloc(v), v->config.first_count);
	v->nconn++;
	list_append(&v->all, &c->all);
	table_add(v, c);
	return c;
}

static void conn_close_fd(struct vconn *c)
{
	watch_close(&c->watch);
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	c->want_out = false;
	obuf_free(&c->out);
	seq_free(c);
}

void conn_free(struct vconn *c)
{
	struct vsock *v = c->v;

	bug_on(c->end || v->tx_conn == c);
	if (c->twin)
		c->twin->twin = NULL;
	conn_close_fd(c);
	table_remove(v, c);
	deadline_clear(&c->deadline);
	list_remove(&c->ctl_node);
	list_remove(&c->ready_node);
	list_remove(&c->all);
	v->nconn--;
	free(c);
}

/*
 * Room for the whole window (and a message must fit): what the kernel takes,
 * neither we nor the host's process have to copy, keep, and be woken for.
 */
static void set_room(int fd, uint32_t bytes)
{
	int size = (int)bytes;

	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
}

int conn_set_fd(struct vconn *c, int fd)
{
	int flags = fcntl(fd, F_GETFL);
	uint32_t room = c->credit.buf_alloc;
	int one = 1;

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) {
		int rc = -errno;

		close(fd);
		return rc;
	}
	if (c->v->config.socket_buf && c->key.type == VSOCK_STREAM)
		room = c->v->config.socket_buf;
	set_room(fd, room);
	/* To tell an empty message from EOF. */
	if (c->key.type == VSOCK_SEQPACKET)
		setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &one, sizeof(one));
	c->fd = fd;
	/* Edge-triggered and for life: reading goes on to EAGAIN (I4). */
	return watch_open(&c->watch, c->v->loop, fd,
			  EPOLLIN | EPOLLRDHUP | EPOLLET, on_socket);
}

int conn_set_pair(struct vconn *c)
{
	int fd[2];
	int rc = vsock_socketpair(c->key.type, fd);

	if (rc)
		return rc;
	rc = conn_set_fd(c, fd[0]);
	if (rc) {
		close(fd[1]);
		return rc;
	}
	set_room(fd[1], c->v->config.buf_alloc);
	return fd[1];
}

static void conn_want_out(struct vconn *c, bool on)
{
	if (c->want_out == on)
		return;
	c->want_out = on;
	if (on)
		c->v->n.stall_socket++;
	/* Re-evaluates the level, so nothing between EAGAIN and here is lost.
	 */
	watch_modify(&c->watch,
		     EPOLLIN | EPOLLRDHUP | EPOLLET | (on ? EPOLLOUT : 0));
}

void conn_wait(struct vconn *c, enum vconn_wait wait)
{
	if (c->wait == wait)
		return;
	if (c->wait == VW_READY)
		list_remove(&c->ready_node);
	c->wait = wait;
	if (wait == VW_READY) {
		c->deficit = 0;
		list_append(&c->v->ready, &c->ready_node);
		vsock_wake(c->v);
	}
}

void conn_owe(struct vconn *c, unsigned ctl)
{
	c->ctl |= (uint8_t)ctl;
	if (list_empty(&c->ctl_node))
		list_append(&c->v->ctl, &c->ctl_node);
	vsock_wake(c->v);
}

void conn_fail(struct vconn *c, int rc)
{
	const struct vconn_end *end = c->end;

	c->end = NULL;
	if (end)
		end->failed(c, rc);
}

static void handshake_over(struct deadline *d)
{
	struct vconn *c = container_of(d, struct vconn, deadline);

	c->v->n.timed_out++;
	conn_reset(c, -ETIMEDOUT);
}

static uint32_t next_port(struct vsock *v)
{
	uint32_t port = v->next_host_port++;

	/* 2^30 .. 2^31 - 1, as Firecracker numbers them. */
	if (v->next_host_port == 0x80000000u)
		v->next_host_port = VSOCK_HOST_PORT;
	return port;
}

int conn_request(struct vsock *v, uint32_t port, unsigned type,
		 uint64_t deadline, const struct vconn_end *end, void *ctx,
		 struct vconn **out)
{
	struct vsock_key k = {
		.guest_cid = v->config.guest_cid,
		.host_cid = VSOCK_CID_HOST,
		.guest_port = port,
		.type = (uint16_t)type,
	};
	struct vconn *c;

	if (v->nconn >= v->config.max_connections) {
		v->n.limit++;
		return -EMFILE;
	}
	do
		k.host_port = next_port(v);
	while (table_find(v, &k));
	c = conn_new(v, &k, true);
	if (!c)
		return -ENOMEM;
	c->end = end;
	c->end_ctx = ctx;
	deadline_set(v, &c->deadline, DL_CALLER, deadline, handshake_over);
	conn_owe(c, CTL_REQUEST);
	*out = c;
	return 0;
}

void conn_opened(struct vconn *c)
{
	const struct vconn_end *end = c->end;
	struct vsock *v = c->v;

	deadline_clear(&c->deadline);
	c->state = VC_OPEN;
	c->end = NULL;
	if (c->from_host) {
		v->n.opened_host++;
		conn_wait(c, VW_READY);
	} else {
		v->n.opened_guest++;
		conn_owe(c, CTL_RESPONSE); /* then VW_READY */
	}
	if (end)
		end->open(c);
}

void conn_reset(struct vconn *c, int rc)
{
	bool known = c->request_sent || !c->from_host;

	conn_fail(c, rc);
	if (c->state == VC_ORPHAN || !known) {
		conn_free(c);
		return;
	}
	conn_close_fd(c);
	deadline_clear(&c->deadline);
	conn_wait(c, VW_CLOSED);
	c->state = VC_RESET;
	c->ctl = 0;
	conn_owe(c, CTL_RST);
}

void conn_drop(struct vconn *c, int rc)
{
	conn_fail(c, rc);
	c->v->n.closed++;
	if (c->fd < 0 || c->hup || conn_out_empty(c)) {
		conn_free(c);
		return;
	}
	/* The host has not taken all yet: no tail is lost. */
	deadline_clear(&c->deadline);
	conn_wait(c, VW_CLOSED);
	list_remove(&c->ctl_node);
	c->ctl = 0;
	table_remove(c->v, c);
	c->state = VC_ORPHAN;
}

/* ---- guest to host ---- */

bool conn_out_empty(const struct vconn *c)
{
	return !c->out.len && !c->seq_out;
}

void conn_forwarded(struct vconn *c, uint32_t n)
{
	c->credit.fwd_cnt += n;
	c->g2h_bytes += n;
	c->v->n.g2h_bytes += n;
	if (c->state == VC_OPEN && credit_update_due(&c->credit))
		conn_owe(c, CTL_UPDATE); /* I6 */
}

static bool stream_flush(struct vconn *c)
{
	while (c->out.len) {
		struct iovec iov[2];
		struct msghdr m = { .msg_iov = iov };
		ssize_t r;

		m.msg_iovlen = obuf_iov(&c->out, iov);
		r = sendmsg(c->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
		c->v->n.g2h_writes++;
		if (r < 0)
			return errno == EAGAIN || errno == EINTR;
		obuf_drop(&c->out, (uint32_t)r);
		conn_forwarded(c, (uint32_t)r);
	}
	return true;
}

bool conn_flush(struct vconn *c)
{
	bool ok =
		c->key.type == VSOCK_SEQPACKET ? seq_flush(c) : stream_flush(c);

	if (!ok) {
		c->v->n.host_gone++;
		conn_reset(c, -EPIPE);
		return false;
	}
	if (!conn_out_empty(c)) {
		conn_want_out(c, true);
		return true;
	}
	conn_want_out(c, false);
	if (c->state == VC_ORPHAN) {
		conn_free(c);
		return false;
	}
	if (c->state == VC_OPEN && c->guest_shut) {
		conn_shut_step(c);
		return false; /* perhaps */
	}
	return true;
}

void conn_shut_step(struct vconn *c)
{
	if (c->guest_shut & SHUT_F_RCV && !c->eof) {
		/* The guest reads no more: the host's writers learn it. */
		conn_wait(c, VW_CLOSED);
		shutdown(c->fd, SHUT_RD);
		if (c->twin)
			conn_host_deaf(c->twin);
	}
	if (!conn_out_empty(c))
		return;
	if (c->guest_shut & SHUT_F_SEND && !c->wr_shut) {
		c->wr_shut = true;
		shutdown(c->fd, SHUT_WR);
	}
	if (c->guest_shut == SHUT_F_BOTH) {
		c->v->n.closed++;
		conn_reset(c, 0); /* or the guest would linger for 8 s */
	}
}

/* ---- host to guest ---- */

static void shutdown_over(struct deadline *d)
{
	struct vconn *c = container_of(d, struct vconn, deadline);

	c->v->n.timed_out++;
	conn_reset(c, -ETIMEDOUT);
}

static void owe_shutdown(struct vconn *c, unsigned flags)
{
	struct vsock *v = c->v;

	if ((c->shut & flags) == flags)
		return;
	c->shut |= (uint8_t)flags;
	if (c->shut == SHUT_F_BOTH)
		deadline_set(v, &c->deadline, DL_SHUTDOWN,
			     vsock_now(v) + v->config.shutdown_ns,
			     shutdown_over);
	conn_owe(c, CTL_SHUTDOWN);
}

/*
 * A Unix socket does not announce that its peer shut down reading (a write says
 * EPIPE, and then RST does); between the two ends of a hairpin we know.
 */
void conn_host_deaf(struct vconn *c)
{
	if (c->state == VC_OPEN)
		owe_shutdown(c, SHUT_F_RCV);
}

void conn_host_eof(struct vconn *c)
{
	c->eof = true;
	conn_wait(c, VW_CLOSED);
	/* A half-close, unless the other half is gone as well. */
	owe_shutdown(c, c->hup ? SHUT_F_BOTH : SHUT_F_SEND);
}

static void credit_retry(struct deadline *d);

/*
 * The guest has room for bytes, but not for packets. Of bytes it tells us when
 * it has more. Of packets it may not: an old kernel whose reader took every one
 * of 400 bytes finds that nothing worth an update; so we ask again, ever more
 * slowly.
 */
static void ask_later(struct vconn *c)
{
	if (c->deadline.kind == DL_NONE)
		deadline_set(c->v, &c->deadline, DL_CREDIT,
			     vsock_now(c->v) + (CREDIT_RETRY_NS << c->retries),
			     credit_retry);
}

static void credit_retry(struct deadline *d)
{
	struct vconn *c = container_of(d, struct vconn, deadline);

	if (c->wait != VW_CREDIT)
		return;
	if (c->retries < CREDIT_RETRY_MAX)
		c->retries++;
	conn_owe(c, CTL_CREDIT_REQUEST);
	ask_later(c);
}

enum rx_result rx_starved(struct vconn *c)
{
	struct vsock *v = c->v;

	conn_wait(c, VW_CREDIT);
	if (!c->credit_asked) {
		c->credit_asked = true;
		conn_owe(c, CTL_CREDIT_REQUEST);
	}
	if (!credit_free(&c->credit)) {
		v->n.stall_credit++;
	} else {
		v->n.stall_packets++;
		ask_later(c);
	}
	return RX_WAIT;
}

void conn_credit_step(struct vconn *c)
{
	if (credit_update_due(&c->credit))
		conn_owe(c, CTL_UPDATE); /* the guest's window may be smaller */
	if (c->wait != VW_CREDIT || !credit_free(&c->credit))
		return;
	if (!credit_packets_free(&c->credit)) {
		ask_later(c); /* they had run out together */
		return;
	}
	c->credit_asked = false;
	c->retries = 0;
	c->ctl &= (uint8_t)~CTL_CREDIT_REQUEST;
	if (c->deadline.kind == DL_CREDIT)
		deadline_clear(&c->deadline);
	conn_wait(c, VW_READY); /* I5 */
}

/* ---- the socket's events ---- */

static void on_socket(struct loop_watch *w, uint32_t events)
{
	struct vconn *c = container_of(w, struct vconn, watch);

	c->v->n.socket_events++;
	if (events & (EPOLLHUP | EPOLLERR))
		c->hup = true;
	switch ((enum vconn_state)c->state) {
	case VC_REQUEST:
		/* A client of the hybrid socket that left before its OK. */
		if (c->hup) {
			c->v->n.host_gone++;
			conn_reset(c, -ECONNABORTED);
		}
		return;
	case VC_ORPHAN:
		if (c->hup)
			conn_free(c);
		else if (events & EPOLLOUT)
			conn_flush(c);
		return;
	case VC_OPEN:
		break;
	default:
		return;
	}
	if (c->wait == VW_SOCKET)
		conn_wait(c, VW_READY); /* I5 */
	else if (c->wait == VW_CLOSED && c->hup)
		owe_shutdown(c, SHUT_F_BOTH);
	if (events & (EPOLLOUT | EPOLLHUP) && c->want_out)
		conn_flush(c);
}
