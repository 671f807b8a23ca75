/*
 * The host's side as library calls: connect and listen.
 *
 * A connect is posted to the loop (a lock-free list and an eventfd) and waits
 * in the connection table until the guest is up and answers. The caller's end
 * is one of a socketpair made when the RESPONSE is there, so waiting costs no
 * descriptor.
 *
 * A listener is a SOCK_SEQPACKET pair over which accepted descriptors travel:
 * accept is a recvmsg, and the descriptor can be polled.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bug.h"
#include "base/clock.h"
#include "base/err.h"
#include "virtio/vsock/core.h"

#define CONNECT_FOREVER_NS (60 * NSEC_PER_SEC)

/* ---- connect ---- */

static void connect_open(struct vconn *c)
{
	struct vsock_connect *r = c->end_ctx;
	int fd = conn_set_pair(c);

	if (fd < 0)
		conn_reset(c, fd);
	r->done(r, fd);
}

static void connect_failed(struct vconn *c, int rc)
{
	struct vsock_connect *r = c->end_ctx;

	r->done(r, rc);
}

static const struct vconn_end connect_end = {
	.open = connect_open,
	.failed = connect_failed,
};

static void connect_posted(struct loop_post *p)
{
	struct vsock_connect *r = container_of(p, struct vsock_connect, post);
	struct vsock *v = r->v;
	struct vconn *c;
	int rc = -ENODEV;

	if (!v->dying)
		rc = conn_request(v, r->port, r->type,
				  vsock_now(v) + r->timeout_ns, &connect_end, r,
				  &c);
	if (rc)
		r->done(r, rc);
}

void vsock_connect_start(struct vsock *v, struct vsock_connect *r)
{
	r->v = v;
	r->post = (struct loop_post){ .fn = connect_posted };
	loop_post(v->loop, &r->post);
}

struct connect_wait {
	struct vsock_connect r;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool done;
	int fd;
};

static void connect_done(struct vsock_connect *r, int fd)
{
	struct connect_wait *w = container_of(r, struct connect_wait, r);

	pthread_mutex_lock(&w->lock);
	w->fd = fd;
	w->done = true;
	pthread_cond_signal(&w->cond);
	pthread_mutex_unlock(&w->lock);
}

static int connect_error(struct err *e, int rc, uint32_t port)
{
	switch (rc) {
	case -ECONNREFUSED:
		return err_set(e, rc,
			       "vsock port %u: nobody listens there in the "
			       "guest",
			       port);
	case -ETIMEDOUT:
		return err_set(e, rc,
			       "vsock port %u: no answer from the guest in "
			       "time; it may not have loaded its vsock driver",
			       port);
	case -ENODEV:
		return err_set(e, rc, "vsock port %u: the VM is gone", port);
	case -EPROTONOSUPPORT:
		return err_set(e, rc,
			       "vsock port %u: the guest's driver does not "
			       "support this socket type",
			       port);
	default:
		return err_set(e, rc, "vsock port %u: %s", port, strerror(-rc));
	}
}

int vsock_connect(struct vsock *v, uint32_t port, enum vsock_type type,
		  int timeout_ms, struct err *e)
{
	struct connect_wait w = {
		.r = { .port = port,
		       .type = type,
		       .timeout_ns = timeout_ms < 0 ? CONNECT_FOREVER_NS
						    : (uint64_t)timeout_ms *
							      NSEC_PER_MSEC,
		       .done = connect_done },
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.cond = PTHREAD_COND_INITIALIZER,
	};

	bug_on(loop_owned(v->loop));
	vsock_connect_start(v, &w.r);
	pthread_mutex_lock(&w.lock);
	while (!w.done)
		pthread_cond_wait(&w.cond, &w.lock);
	pthread_mutex_unlock(&w.lock);
	pthread_mutex_destroy(&w.lock);
	pthread_cond_destroy(&w.cond);
	return w.fd < 0 ? connect_error(e, w.fd, port) : w.fd;
}

/* ---- listen ---- */

struct vsock_listener {
	struct list node;
	struct vsock *v; /* NULL: it is gone */
	uint32_t port;
	enum vsock_type type;
	unsigned backlog;
	unsigned pending; /* atomic: sent, not yet accepted */
	int fd[2]; /* the core's, the caller's */
};

static struct vsock_listener *listener_find(struct vsock *v, uint32_t port,
					    unsigned type)
{
	for (struct list *it = v->listeners.next; it != &v->listeners;
	     it = it->next) {
		struct vsock_listener *l =
			container_of(it, struct vsock_listener, node);

		if (l->port == port && l->type == type)
			return l;
	}
	return NULL;
}

int vsock_listen(struct vsock *v, uint32_t port, enum vsock_type type,
		 unsigned backlog, struct vsock_listener **out, struct err *e)
{
	struct vsock_listener *l = calloc(1, sizeof(*l));
	int rc;

	if (!l)
		return err_set(e, -ENOMEM, "vsock: out of memory");
	l->v = v;
	l->port = port;
	l->type = type;
	l->backlog = backlog ? backlog : 1;
	rc = vsock_socketpair(VSOCK_SEQPACKET, l->fd);
	if (rc) {
		free(l);
		return err_set(e, rc, "vsock: socketpair: %s", strerror(-rc));
	}
	loop_lock(v->loop);
	if (v->dying)
		rc = err_set(e, -ENODEV, "vsock: the VM is gone");
	else if (listener_find(v, port, type))
		rc = err_set(e, -EADDRINUSE,
			     "vsock port %u: already listened on", port);
	else
		list_append(&v->listeners, &l->node);
	loop_unlock(v->loop);
	if (rc) {
		close(l->fd[0]);
		close(l->fd[1]);
		free(l);
		return rc;
	}
	*out = l;
	return 0;
}

int vsock_listener_fd(const struct vsock_listener *l)
{
	return l->fd[1];
}

union control {
	struct cmsghdr align;
	char space[CMSG_SPACE(sizeof(int))];
};

int vsock_accept(struct vsock_listener *l, uint32_t *guest_port, bool nonblock)
{
	union control u = { 0 };
	uint32_t port = 0;
	struct iovec iov = { &port, sizeof(port) };
	struct msghdr m = { .msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = u.space,
			    .msg_controllen = sizeof(u.space) };
	struct cmsghdr *cm;
	ssize_t r;
	int fd;

	do
		r = recvmsg(l->fd[1], &m,
			    MSG_CMSG_CLOEXEC | (nonblock ? MSG_DONTWAIT : 0));
	while (r < 0 && errno == EINTR);
	if (r < 0)
		return -errno;
	if (r == 0)
		return -ESHUTDOWN;
	__atomic_fetch_sub(&l->pending, 1, __ATOMIC_ACQ_REL);
	cm = CMSG_FIRSTHDR(&m);
	if (!cm || cm->cmsg_type != SCM_RIGHTS)
		return -EMFILE; /* no slot for it: the kernel dropped it */
	memcpy(&fd, CMSG_DATA(cm), sizeof(fd));
	if (guest_port)
		*guest_port = port;
	return fd;
}

void vsock_listener_close(struct vsock_listener *l)
{
	struct vsock *v;

	if (!l)
		return;
	v = l->v;
	if (v) {
		loop_lock(v->loop);
		list_remove(&l->node);
		close(l->fd[0]);
		loop_unlock(v->loop);
	}
	close(l->fd[1]);
	free(l);
}

/* 0 when @c got its other end to the listener. */
static int listener_offer(struct vsock_listener *l, struct vconn *c)
{
	union control u = { 0 };
	struct iovec iov = { &c->key.guest_port, sizeof(uint32_t) };
	struct msghdr m = { .msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = u.space,
			    .msg_controllen = sizeof(u.space) };
	struct cmsghdr *cm = CMSG_FIRSTHDR(&m);
	int fd, rc = 0;

	if (__atomic_load_n(&l->pending, __ATOMIC_ACQUIRE) >= l->backlog)
		return -ECONNREFUSED;
	fd = conn_set_pair(c);
	if (fd < 0)
		return fd;
	cm->cmsg_level = SOL_SOCKET;
	cm->cmsg_type = SCM_RIGHTS;
	cm->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(cm), &fd, sizeof(int));
	__atomic_fetch_add(&l->pending, 1, __ATOMIC_ACQ_REL);
	if (sendmsg(l->fd[0], &m, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
		rc = -errno; /* EAGAIN is a full backlog as well */
		__atomic_fetch_sub(&l->pending, 1, __ATOMIC_ACQ_REL);
	}
	close(fd);
	return rc;
}

/* ---- a connection of the guest's ---- */

void host_open(struct vconn *c)
{
	struct vsock *v = c->v;
	struct vsock_listener *l =
		listener_find(v, c->key.host_port, c->key.type);
	int rc = -ECONNREFUSED;

	if (l) {
		rc = listener_offer(l, c);
	} else if (v->uds) {
		int fd = uds_dial(v, c->key.host_port, c->key.type);

		rc = fd < 0 ? fd : conn_set_fd(c, fd);
	}
	if (!l && rc && v->config.hairpin) {
		rc = hairpin_open(c);
		if (!rc)
			return; /* answered when the other end is */
	}
	if (rc) {
		v->n.refused++;
		conn_reset(c, rc);
	} else {
		conn_opened(c);
	}
}

void host_fini(struct vsock *v)
{
	list_for_each_safe (it, &v->listeners) {
		struct vsock_listener *l =
			container_of(it, struct vsock_listener, node);

		list_remove(it);
		l->v = NULL;
		close(l->fd[0]);
	}
}
