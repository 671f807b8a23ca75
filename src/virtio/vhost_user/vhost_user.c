/*
 * Theory of operation
 *
 * A listening socket, and at most one session: a message is a 12-byte header, a
 * body and up to 8 descriptors; it is read whole before anything is done. The
 * front end is another process of the same user, but it is parsed as strictly
 * as a guest: every size and index is checked, and a message that makes no
 * sense ends the session.
 *
 * Rings are described by the front end's own virtual addresses, translated by
 * the memory table to guest addresses, for the queue code knows only those.
 *
 * The device runs while every queue has its addresses, a kick descriptor and is
 * enabled, and memory is there. Whatever takes one of these away (GET_VRING_BASE
 * above all) stops it first; a new memory table stops it, re-resolves the rings
 * and starts it again. When a ring's base is not where we left it, the driver is
 * a new one.
 */
#include "virtio/vhost_user/vhost_user.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/log.h"
#include "base/unix_socket.h"
#include "base/util.h"
#include "loop/loop.h"
#include "mem/gmem.h"
#include "virtio/virtio.h"

enum request {
	GET_FEATURES = 1,
	SET_FEATURES = 2,
	SET_OWNER = 3,
	RESET_OWNER = 4,
	SET_MEM_TABLE = 5,
	SET_VRING_NUM = 8,
	SET_VRING_ADDR = 9,
	SET_VRING_BASE = 10,
	GET_VRING_BASE = 11,
	SET_VRING_KICK = 12,
	SET_VRING_CALL = 13,
	SET_VRING_ERR = 14,
	GET_PROTOCOL_FEATURES = 15,
	SET_PROTOCOL_FEATURES = 16,
	GET_QUEUE_NUM = 17,
	SET_VRING_ENABLE = 18,
	GET_CONFIG = 24,
	SET_CONFIG = 25,
	RESET_DEVICE = 34,
};

#define F_PROTOCOL_FEATURES (1ull << 30)

#define P_MQ	       (1ull << 0)
#define P_REPLY_ACK    (1ull << 3)
#define P_CONFIG       (1ull << 9)
#define P_RESET_DEVICE (1ull << 13)
#define P_ALL	       (P_MQ | P_REPLY_ACK | P_CONFIG | P_RESET_DEVICE)

#define HDR_LEN	      12u
#define BODY_MAX      1024u
#define FDS_MAX	      8
#define FLAG_VERSION  1u
#define FLAG_REPLY    (1u << 2)
#define FLAG_WANT_ACK (1u << 3)
#define INDEX_MASK    0xffu /* in the u64 of SET_VRING_KICK, _CALL, _ERR */
#define NO_FD	      (1u << 8)
#define CONFIG_MAX    256u

struct mapping {
	uint64_t gpa, size, uva;
	void *map;
	size_t map_len;
};

struct vring {
	struct vhost_user *u;
	unsigned index;
	uint32_t num;
	uint64_t desc, avail, used; /* the front end's addresses */
	bool addr_set, enabled;
	uint16_t base; /* the next entry to pop, while stopped */
	uint16_t left; /* where we stopped */
	int kick, call, err;
	struct loop_watch watch;
};

struct vhost_user {
	struct vhost_user_config c;
	char *path;
	int listen_fd, fd; /* fd -1: no session */
	struct loop_watch listen_watch, watch;
	struct gmem *mem;
	struct mapping map[FDS_MAX];
	unsigned nmaps;
	uint64_t features, protocol;
	bool running, started; /* now; ever in this session */
	struct vring ring[VHOST_USER_QUEUES];
	struct virtqueue vq[VHOST_USER_QUEUES];

	/* The message being read. */
	uint8_t buf[HDR_LEN + BODY_MAX];
	size_t got;
	int fds[FDS_MAX];
	unsigned nfds;
};

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* ---- running the device ---- */

static bool to_gpa(const struct vhost_user *u, uint64_t uva, gpa_t *out)
{
	for (unsigned i = 0; i < u->nmaps; i++) {
		const struct mapping *m = &u->map[i];

		if (uva >= m->uva && uva - m->uva < m->size) {
			*out = gpa(m->gpa + (uva - m->uva));
			return true;
		}
	}
	return false;
}

static bool ring_enable(struct vhost_user *u, unsigned q)
{
	struct vring *r = &u->ring[q];
	struct vq_config c = {
		.size = (uint16_t)r->num,
		.event_idx = u->features & VIRTIO_F_EVENT_IDX,
		.indirect = u->features & VIRTIO_F_INDIRECT_DESC,
		.avail_start = r->base,
	};
	const char *why = "its addresses are not in the memory table";
	uint16_t *used;

	vq_init(&u->vq[q]);
	if (to_gpa(u, r->desc, &c.desc) && to_gpa(u, r->avail, &c.avail) &&
	    to_gpa(u, r->used, &c.used)) {
		/* The front end keeps no used index: the ring has it. */
		used = gmem_ptr(u->mem, c.used, 4, true);
		if (used)
			c.used_start = get_le16(used + 1);
		if (used && !vq_enable(&u->vq[q], u->mem, &c, &why))
			return true;
	}
	log_warn(u->c.log, "vhost-user: queue %u: %s", q, why);
	return false;
}

static void device_stop(struct vhost_user *u)
{
	if (!u->running)
		return;
	u->running = false;
	u->c.stop(u->c.ctx);
	for (unsigned q = 0; q < u->c.nqueues; q++) {
		struct vring *r = &u->ring[q];

		r->base = r->left = u->vq[q].next_avail;
		vq_disable(&u->vq[q]);
	}
}

static void device_start(struct vhost_user *u)
{
	bool fresh = false;

	if (u->running || !u->nmaps)
		return;
	for (unsigned q = 0; q < u->c.nqueues; q++) {
		struct vring *r = &u->ring[q];

		if (!r->num || !r->addr_set || r->kick < 0 || !r->enabled)
			return;
		fresh |= r->base != r->left || !u->started;
	}
	for (unsigned q = 0; q < u->c.nqueues; q++) {
		if (ring_enable(u, q))
			continue;
		while (q--)
			vq_disable(&u->vq[q]);
		return;
	}
	u->running = u->started = true;
	u->c.start(u->c.ctx, u->vq, u->features, fresh);
}

static void on_kick(struct loop_watch *w, uint32_t events)
{
	struct vring *r = container_of(w, struct vring, watch);
	struct vhost_user *u = r->u;
	uint64_t n;

	(void)events;
	/* I1: drain, then look. */
	if (read(r->kick, &n, sizeof(n)) != sizeof(n)) {
		if (errno != EAGAIN) /* no eventfd, or its end */
			watch_close(&r->watch);
		return;
	}
	if (u->running)
		u->c.kick(u->c.ctx, r->index);
}

void vhost_user_interrupt(struct vhost_user *u, unsigned q)
{
	uint64_t one = 1;

	/* Full means that it is signalled already. */
	if (u->ring[q].call >= 0 &&
	    write(u->ring[q].call, &one, sizeof(one)) < 0 && errno != EAGAIN)
		log_warn(u->c.log, "vhost-user: call: %s", strerror(errno));
}

void vhost_user_fail(struct vhost_user *u, const char *why)
{
	uint64_t one = 1;

	log_warn(u->c.log, "vhost-user: the guest's driver misbehaves: %s",
		 why);
	for (unsigned q = 0; q < u->c.nqueues; q++)
		if (u->ring[q].err >= 0 &&
		    write(u->ring[q].err, &one, sizeof(one)) < 0)
			return;
}

/* ---- state that goes with a session ---- */

static void unmap_all(struct vhost_user *u)
{
	gmem_destroy(u->mem);
	u->mem = NULL;
	while (u->nmaps) {
		struct mapping *m = &u->map[--u->nmaps];

		munmap(m->map, m->map_len);
	}
}

static void ring_reset(struct vring *r)
{
	watch_close(&r->watch);
	close_fd(&r->kick);
	close_fd(&r->call);
	close_fd(&r->err);
	r->num = 0;
	r->addr_set = r->enabled = false;
	r->base = r->left = 0;
}

static void drop_fds(struct vhost_user *u)
{
	while (u->nfds)
		close(u->fds[--u->nfds]);
}

static void session_end(struct vhost_user *u)
{
	device_stop(u);
	for (unsigned q = 0; q < VHOST_USER_QUEUES; q++)
		ring_reset(&u->ring[q]);
	unmap_all(u);
	drop_fds(u);
	watch_close(&u->watch);
	close_fd(&u->fd);
	u->features = u->protocol = 0;
	u->got = 0;
	u->started = false;
	u->c.lost(u->c.ctx);
}

/* ---- messages ---- */

struct message {
	uint32_t request, flags, size;
	const uint8_t *body;
	uint8_t *reply; /* BODY_MAX bytes */
	uint32_t reply_len; /* 0: no reply of its own */
};

/* The descriptor that came along, or -1: the caller's. */
static int take_fd(struct vhost_user *u)
{
	int fd;

	if (!u->nfds)
		return -1;
	fd = u->fds[0];
	memmove(u->fds, u->fds + 1, --u->nfds * sizeof(fd));
	return fd;
}

static int set_mem_table(struct vhost_user *u, const struct message *m)
{
	uint32_t n;

	if (m->size < 8)
		return -EINVAL;
	n = get_le32(m->body);
	if (n > FDS_MAX || m->size < 8 + 32 * n || u->nfds != n)
		return -EINVAL;
	device_stop(u);
	unmap_all(u);
	if (gmem_create(&u->mem))
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++) {
		const uint8_t *b = m->body + 8 + 32 * i;
		struct mapping *p = &u->map[u->nmaps];
		uint64_t off = get_le64(b + 24);
		struct gmem_region r = { .fd = -1 };
		struct err e = { 0 };
		struct stat st;
		int fd = take_fd(u), rc;

		*p = (struct mapping){ .gpa = get_le64(b),
				       .size = get_le64(b + 8),
				       .uva = get_le64(b + 16) };
		if (!p->size || p->size > UINT64_MAX - off ||
		    p->size > UINT64_MAX - p->uva || fstat(fd, &st) < 0 ||
		    (uint64_t)st.st_size < off + p->size) {
			close(fd);
			return -EINVAL;
		}
		p->map_len = (size_t)(p->size + off);
		p->map = mmap(NULL, p->map_len, PROT_READ | PROT_WRITE,
			      MAP_SHARED | MAP_NORESERVE, fd, 0);
		close(fd);
		if (p->map == MAP_FAILED)
			return -errno;
		u->nmaps++;
		r.base = gpa(p->gpa);
		r.size = p->size;
		r.host = (char *)p->map + off;
		rc = gmem_add_mapping(u->mem, &r, &e);
		if (rc) {
			log_warn(u->c.log, "vhost-user: %s", e.text);
			return rc;
		}
	}
	return 0;
}

/* The ring a message is about; NULL for a bad index or size. */
static struct vring *ring_of(struct vhost_user *u, const struct message *m,
			     uint32_t need)
{
	uint32_t q;

	if (m->size < need)
		return NULL;
	q = get_le32(m->body);
	return q < u->c.nqueues ? &u->ring[q] : NULL;
}

static int set_ring_fd(struct vhost_user *u, const struct message *m)
{
	uint64_t v = m->size >= 8 ? get_le64(m->body) : UINT64_MAX;
	unsigned q = v & INDEX_MASK;
	int fd = v & NO_FD ? -1 : take_fd(u);
	struct vring *r;

	if (v > (INDEX_MASK | NO_FD) || q >= u->c.nqueues ||
	    (!(v & NO_FD) && fd < 0)) {
		close_fd(&fd);
		return -EINVAL;
	}
	r = &u->ring[q];
	switch (m->request) {
	case SET_VRING_CALL:
		close_fd(&r->call);
		r->call = fd;
		return 0;
	case SET_VRING_ERR:
		close_fd(&r->err);
		r->err = fd;
		return 0;
	default:
		break;
	}
	watch_close(&r->watch);
	close_fd(&r->kick);
	r->kick = fd;
	if (fd < 0)
		return 0; /* polling is not for us */
	return watch_open(&r->watch, u->c.loop, fd, EPOLLIN, on_kick);
}

static int get_config(struct vhost_user *u, struct message *m)
{
	uint32_t off, len;

	if (m->size < 12)
		return -EINVAL;
	off = get_le32(m->body);
	len = get_le32(m->body + 4);
	if (len > CONFIG_MAX || m->size < 12 + len)
		return -EINVAL;
	memcpy(m->reply, m->body, 12);
	memset(m->reply + 12, 0, len);
	if (range_fits(off, len, u->c.config_size))
		memcpy(m->reply + 12, (const char *)u->c.config + off, len);
	m->reply_len = 12 + len;
	return 0;
}

static void reply_u64(struct message *m, uint64_t v)
{
	put_le64(m->reply, v);
	m->reply_len = 8;
}

static uint64_t offered(const struct vhost_user *u)
{
	return u->c.features | VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC |
	       VIRTIO_F_EVENT_IDX | F_PROTOCOL_FEATURES;
}

static int ring_message(struct vhost_user *u, struct message *m)
{
	bool addr = m->request == SET_VRING_ADDR;
	struct vring *r = ring_of(u, m, addr ? 40 : 8);
	uint32_t v;

	if (!r)
		return -EINVAL;
	v = get_le32(m->body + 4);
	switch (m->request) {
	case SET_VRING_NUM:
		if (!v || v > VQ_SIZE_MAX || (v & (v - 1)))
			return -EINVAL;
		device_stop(u);
		r->num = v;
		return 0;
	case SET_VRING_ADDR:
		device_stop(u);
		r->desc = get_le64(m->body + 8);
		r->used = get_le64(m->body + 16);
		r->avail = get_le64(m->body + 24);
		r->addr_set = true;
		return 0;
	case SET_VRING_BASE:
		device_stop(u);
		r->base = (uint16_t)v;
		return 0;
	case SET_VRING_ENABLE:
		if (!v)
			device_stop(u);
		r->enabled = v;
		return 0;
	default: /* GET_VRING_BASE stops the ring */
		device_stop(u);
		watch_close(&r->watch);
		close_fd(&r->kick);
		put_le32(m->reply, r->index);
		put_le32(m->reply + 4, r->base);
		m->reply_len = 8;
		return 0;
	}
}

static int on_message(struct vhost_user *u, struct message *m)
{
	uint64_t v = m->size >= 8 ? get_le64(m->body) : 0;

	switch (m->request) {
	case GET_FEATURES:
		reply_u64(m, offered(u));
		return 0;
	case SET_FEATURES:
		if (v & ~offered(u))
			return -EINVAL;
		device_stop(u);
		u->features = v;
		/* Without the bit there is no SET_VRING_ENABLE. */
		for (unsigned q = 0; q < u->c.nqueues; q++)
			if (!(v & F_PROTOCOL_FEATURES))
				u->ring[q].enabled = true;
		return 0;
	case GET_PROTOCOL_FEATURES:
		reply_u64(m, P_ALL);
		return 0;
	case SET_PROTOCOL_FEATURES:
		if (v & ~P_ALL)
			return -EINVAL;
		u->protocol = v;
		return 0;
	case GET_QUEUE_NUM:
		reply_u64(m, u->c.nqueues);
		return 0;
	case SET_OWNER:
		return 0;
	case RESET_OWNER:
	case RESET_DEVICE:
		device_stop(u);
		for (unsigned q = 0; q < u->c.nqueues; q++)
			ring_reset(&u->ring[q]);
		return 0;
	case SET_MEM_TABLE:
		return set_mem_table(u, m);
	case SET_VRING_KICK:
		device_stop(u);
		return set_ring_fd(u, m);
	case SET_VRING_CALL:
	case SET_VRING_ERR:
		return set_ring_fd(u, m);
	case SET_VRING_NUM:
	case SET_VRING_ADDR:
	case SET_VRING_BASE:
	case GET_VRING_BASE:
	case SET_VRING_ENABLE:
		return ring_message(u, m);
	case GET_CONFIG:
		return get_config(u, m);
	case SET_CONFIG:
		return -EPERM; /* read-only */
	default:
		return -EOPNOTSUPP;
	}
}

static bool send_reply(struct vhost_user *u, const struct message *m,
		       const uint8_t *body, uint32_t len)
{
	uint8_t out[HDR_LEN + BODY_MAX];

	put_le32(out, m->request);
	put_le32(out + 4, FLAG_VERSION | FLAG_REPLY);
	put_le32(out + 8, len);
	memcpy(out + HDR_LEN, body, len);
	/* The front end waits for it, so there is room. */
	return send(u->fd, out, HDR_LEN + len, MSG_NOSIGNAL | MSG_DONTWAIT) ==
	       (ssize_t)(HDR_LEN + len);
}

/* A whole message is in u->buf. False ends the session. */
static bool message_done(struct vhost_user *u)
{
	uint8_t reply[BODY_MAX];
	struct message m = {
		.request = get_le32(u->buf),
		.flags = get_le32(u->buf + 4),
		.size = get_le32(u->buf + 8),
		.body = u->buf + HDR_LEN,
		.reply = reply,
	};
	bool ack = u->protocol & P_REPLY_ACK && m.flags & FLAG_WANT_ACK;
	int rc = on_message(u, &m);

	drop_fds(u);
	if (rc)
		log_warn(u->c.log, "vhost-user: request %u: %s", m.request,
			 strerror(-rc));
	if (!rc)
		device_start(u);
	if (m.reply_len)
		return send_reply(u, &m, m.reply, m.reply_len);
	if (ack) {
		put_le64(reply, rc ? 1 : 0);
		return send_reply(u, &m, reply, 8);
	}
	/* What the front end cannot learn, it must not rely on. */
	return !rc;
}

static bool read_some(struct vhost_user *u, size_t want)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int) * FDS_MAX)];
	} control;
	struct iovec iov = { u->buf + u->got, want - u->got };
	struct msghdr h = { .msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = control.space,
			    .msg_controllen = sizeof(control.space) };
	ssize_t r = recvmsg(u->fd, &h, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	if (r < 0)
		return errno == EAGAIN || errno == EINTR;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&h); r && c;
	     c = CMSG_NXTHDR(&h, c)) {
		size_t n;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (u->nfds < FDS_MAX)
				u->fds[u->nfds++] = fd;
			else
				close(fd);
		}
	}
	u->got += (size_t)r;
	return r > 0;
}

static void on_session(struct loop_watch *w, uint32_t events)
{
	struct vhost_user *u = container_of(w, struct vhost_user, watch);
	size_t want = HDR_LEN;

	(void)events;
	if (u->got >= HDR_LEN)
		want += get_le32(u->buf + 8);
	if (!read_some(u, want))
		goto end;
	if (u->got < HDR_LEN)
		return;
	want = get_le32(u->buf + 8);
	if (want > BODY_MAX || (get_le32(u->buf + 4) &
				(FLAG_VERSION | FLAG_REPLY)) != FLAG_VERSION)
		goto end;
	if (u->got < HDR_LEN + want)
		return; /* level-triggered: we are called again */
	u->got = 0;
	if (message_done(u))
		return;
end:
	session_end(u);
}

static void on_listen(struct loop_watch *w, uint32_t events)
{
	struct vhost_user *u = container_of(w, struct vhost_user, listen_watch);
	int fd =
		accept4(u->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	(void)events;
	if (fd < 0)
		return;
	if (u->fd >= 0 ||
	    watch_open(&u->watch, u->c.loop, fd, EPOLLIN, on_session)) {
		close(fd); /* one at a time */
		return;
	}
	u->fd = fd;
}

/* ---- life ---- */

int vhost_user_create(struct vhost_user **out,
		      const struct vhost_user_config *c, struct err *e)
{
	struct vhost_user *u = calloc(1, sizeof(*u));
	int rc;

	if (!u)
		return err_set(e, -ENOMEM, "vhost-user: out of memory");
	u->c = *c;
	u->fd = -1;
	for (unsigned q = 0; q < VHOST_USER_QUEUES; q++) {
		u->ring[q] = (struct vring){
			.u = u, .index = q, .kick = -1, .call = -1, .err = -1
		};
		vq_init(&u->vq[q]);
	}
	u->listen_fd = unix_listen(c->path, 1, e);
	if (u->listen_fd < 0) {
		rc = err_prefix(e, u->listen_fd, "vhost-user");
		goto fail;
	}
	u->path = strdup(c->path);
	rc = u->path ? watch_open(&u->listen_watch, c->loop, u->listen_fd,
				  EPOLLIN, on_listen)
		     : -ENOMEM;
	if (rc) {
		err_set(e, rc, "vhost-user: %s", strerror(-rc));
		unlink(c->path);
		goto fail;
	}
	*out = u;
	return 0;
fail:
	close_fd(&u->listen_fd);
	free(u->path);
	free(u);
	return rc;
}

void vhost_user_destroy(struct vhost_user *u)
{
	if (!u)
		return;
	loop_lock(u->c.loop);
	session_end(u);
	watch_close(&u->listen_watch);
	close_fd(&u->listen_fd);
	loop_unlock(u->c.loop);
	unlink(u->path);
	free(u->path);
	free(u);
}
