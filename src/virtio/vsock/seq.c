/*
 * SOCK_SEQPACKET: messages, not bytes. The host's end is a SOCK_SEQPACKET
 * socket, where one send is one message.
 *
 * Guest to host, the fragments of a message are put together until EOM, then
 * sent; whole messages wait on a list when the socket is full. The window
 * bounds their bytes. Empty messages cost no credit, so their number is bounded
 * too.
 *
 * Host to guest, a message is read at once (a socket would cut it otherwise):
 * straight into guest buffers when it fits what the guest can take now, else
 * into memory, from where it goes in fragments.
 *
 * AF_UNIX has no MSG_EOR. Where both ends are ours (hairpin) each message ends
 * in a byte of flags that the guest does not see.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "virtio/iov.h"
#include "virtio/vsock/core.h"

static struct seq_msg *msg_new(uint32_t room)
{
	struct seq_msg *m = malloc(sizeof(*m) + room);

	if (m)
		*m = (struct seq_msg){ .room = room };
	return m;
}

void seq_free(struct vconn *c)
{
	while (c->seq_out) {
		struct seq_msg *m = c->seq_out;

		c->seq_out = m->next;
		free(m);
	}
	c->seq_out_tail = &c->seq_out;
	c->seq_count = 0;
	free(c->seq_part);
	free(c->seq_in);
	c->seq_part = c->seq_in = NULL;
}

/* ---- guest to host ---- */

/* 0, -EAGAIN, or another -errno: the host is gone. */
static int seq_send(struct vconn *c, struct iovec *iov, unsigned n,
		    uint8_t flags)
{
	struct msghdr m = { .msg_iov = iov, .msg_iovlen = n };

	if (c->trailer)
		iov[m.msg_iovlen++] = (struct iovec){ &flags, 1 };
	c->v->n.g2h_writes++;
	if (sendmsg(c->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		return errno == EINTR ? -EAGAIN : -errno;
	return 0;
}

bool seq_flush(struct vconn *c)
{
	struct seq_msg *m;

	while ((m = c->seq_out)) {
		struct iovec iov[2] = { { m->data, m->len } };
		int rc = seq_send(c, iov, 1, m->flags);

		if (rc)
			return rc == -EAGAIN;
		c->seq_out = m->next;
		if (!c->seq_out)
			c->seq_out_tail = &c->seq_out;
		c->seq_count--;
		conn_forwarded(c, m->len);
		free(m);
	}
	return true;
}

/* Append to the message being put together. */
static bool seq_append(struct vconn *c, const struct pkt_hdr *h,
		       const struct iovec *iov, unsigned n)
{
	struct seq_msg *m = c->seq_part;
	uint32_t len = m ? m->len : 0;

	if (!m || m->room - len < h->len) {
		uint32_t room = h->flags & SEQ_F_EOM
					? len + h->len
					: max_of(2 * len, len + h->len);

		m = realloc(m, sizeof(*m) + room);
		if (!m)
			return false;
		m->next = NULL;
		m->off = 0;
		m->len = len;
		m->room = room;
		c->seq_part = m;
	}
	iov_read(iov, n, 0, m->data + len, h->len);
	m->len += h->len;
	m->flags = (uint8_t)h->flags & (SEQ_F_EOM | SEQ_F_EOR);
	return true;
}

bool seq_from_guest(struct vconn *c, const struct pkt_hdr *h,
		    const struct iovec *iov, unsigned n)
{
	struct vsock *v = c->v;

	c->credit.rx_cnt += h->len;
	if (h->flags & SEQ_F_EOM && !c->seq_part && !c->seq_out &&
	    n < IOV_MAX) {
		/* A whole message, nothing before it: from guest memory. */
		unsigned k = iov_slice(v->scratch, iov, n, 0, h->len);
		int rc = seq_send(c, v->scratch, k,
				  (uint8_t)h->flags & (SEQ_F_EOM | SEQ_F_EOR));

		if (!rc) {
			conn_forwarded(c, h->len);
			return true;
		}
		if (rc != -EAGAIN) {
			v->n.host_gone++;
			conn_reset(c, -EPIPE);
			return false;
		}
	}
	if (!(h->flags & SEQ_F_EOM) && !h->len)
		return true;
	if (!seq_append(c, h, iov, n)) {
		v->n.no_memory++;
		conn_reset(c, -ENOMEM);
		return false;
	}
	conn_forwarded(c, 0); /* less is free now (I6) */
	if (!(h->flags & SEQ_F_EOM))
		return true;
	if (c->seq_count >= VSOCK_SEQ_MESSAGES) {
		v->n.overflow++;
		conn_reset(c, -ENOBUFS);
		return false;
	}
	v->n.g2h_buffered += c->seq_part->len;
	*c->seq_out_tail = c->seq_part;
	c->seq_out_tail = &c->seq_part->next;
	c->seq_count++;
	c->seq_part = NULL;
	return conn_flush(c);
}

/* ---- host to guest ---- */

/* A message in memory: as much of it as the guest can take. */
static enum rx_result seq_send_staged(struct vconn *c)
{
	struct vsock *v = c->v;
	struct seq_msg *m = c->seq_in;

	do {
		uint32_t free = credit_free(&c->credit);
		uint32_t left = m->len - m->off;
		uint32_t want = min_of(left, free);
		unsigned packets = credit_packets_free(&c->credit);
		unsigned slots, iovs;
		uint64_t room;

		if (!packets || (left && !free))
			return rx_starved(c);
		slots = rx_gather(v, want ? want : 1, packets, &iovs, &room);
		if (!slots)
			return RX_STALL;
		iov_write(v->iov, iovs, 0, m->data + m->off,
			  min_of((uint64_t)left, room));
		for (unsigned i = 0; i < slots; i++) {
			uint32_t n =
				min_of(m->len - m->off, v->rx_slot[i].room);

			m->off += n;
			rx_commit(c, i, n, m->off == m->len ? m->flags : 0);
			c->deficit -= min_of(c->deficit, n);
		}
	} while (m->off < m->len && c->deficit);
	if (m->off == m->len) {
		c->seq_in = NULL;
		free(m);
	}
	return RX_MORE;
}

/*
 * recvmsg gave 0: EOF, or an empty message? Only a message has a sender, which
 * SO_PASSCRED (conn_set_fd()) makes the kernel tell.
 */
static bool seq_is_eof(const struct vconn *c)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(struct ucred))];
	} control;
	struct msghdr m = { .msg_control = control.space,
			    .msg_controllen = sizeof(control.space) };

	return recvmsg(c->fd, &m, MSG_PEEK | MSG_DONTWAIT) == 0 &&
	       !CMSG_FIRSTHDR(&m);
}

static enum rx_result seq_read_failed(struct vconn *c, int err)
{
	if (err == EINTR)
		return RX_MORE;
	if (err == EAGAIN) {
		conn_wait(c, VW_SOCKET); /* I4 */
	} else {
		c->v->n.host_gone++;
		conn_reset(c, -err);
	}
	return RX_WAIT;
}

static enum rx_result seq_stage(struct vconn *c, uint32_t len)
{
	struct seq_msg *m = msg_new(len);
	ssize_t r;

	if (!m) {
		c->v->n.no_memory++;
		conn_reset(c, -ENOMEM);
		return RX_WAIT;
	}
	r = recv(c->fd, m->data, len, MSG_DONTWAIT);
	c->v->n.h2g_reads++;
	if (r < 0) {
		free(m);
		return seq_read_failed(c, errno);
	}
	m->len = (uint32_t)r;
	m->flags = SEQ_F_EOM;
	if (c->trailer && m->len)
		m->flags = m->data[--m->len];
	c->seq_in = m;
	return seq_send_staged(c);
}

enum rx_result seq_to_guest(struct vconn *c)
{
	struct vsock *v = c->v;
	struct msghdr m = { .msg_iov = v->iov };
	unsigned packets = credit_packets_free(&c->credit);
	unsigned slots, used = 0, iovs;
	uint32_t left;
	uint64_t room;
	ssize_t r;

	if (c->seq_in)
		return seq_send_staged(c);
	r = recv(c->fd, NULL, 0, MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT);
	if (r < 0)
		return seq_read_failed(c, errno);
	if (r == 0 && seq_is_eof(c)) {
		conn_host_eof(c);
		return RX_WAIT;
	}
	if ((uint64_t)r > (uint64_t)c->credit.peer_alloc + c->trailer) {
		/* It can never get there. */
		v->n.overflow++;
		conn_reset(c, -EMSGSIZE);
		return RX_WAIT;
	}
	if (!packets)
		return rx_starved(c);
	if (c->trailer || r > credit_free(&c->credit))
		return seq_stage(c, (uint32_t)r);
	slots = rx_gather(v, r ? (uint32_t)r : 1, packets, &iovs, &room);
	if (!slots)
		return RX_STALL;
	if (room < (uint64_t)r) {
		rx_return(v, 0, slots);
		return seq_stage(c, (uint32_t)r);
	}
	m.msg_iovlen = iovs;
	r = recvmsg(c->fd, &m, MSG_DONTWAIT);
	v->n.h2g_reads++;
	if (r < 0) {
		int err = errno;

		rx_return(v, 0, slots);
		return seq_read_failed(c, err);
	}
	left = (uint32_t)r;
	do {
		uint32_t n = min_of(left, v->rx_slot[used].room);

		left -= n;
		rx_commit(c, used++, n, left ? 0 : SEQ_F_EOM);
	} while (left);
	rx_return(v, used, slots);
	c->deficit -= min_of(c->deficit, (uint32_t)r);
	return RX_MORE;
}
