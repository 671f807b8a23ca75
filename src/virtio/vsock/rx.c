/*
 * Host to guest: filling the rx queue.
 *
 * Control packets go first (they are few, bounded by the connections, and
 * unblock both sides), then data by deficit round robin: each ready connection
 * may send a quantum per round, so one bulk stream delays another's byte by at
 * most 64 KiB.
 *
 * A read takes as many guest buffers as the connection may fill, leaves the
 * first 44 bytes of each for the header, and reads the socket into all of them
 * at once; then the headers are written, what was not needed is un-popped, and
 * the used index moves once. How many buffers: twice what the last read
 * filled, so that a ping-pong does not parse a ring's worth for one byte.
 */
#include <errno.h>
#include <limits.h>
#include <sys/socket.h>

#include "base/bug.h"
#include "virtio/iov.h"
#include "virtio/vsock/core.h"

#define READ_MIN 7464u /* two of Linux's buffers */

static void rx_publish(struct vsock *v)
{
	if (vq_publish(v->rx)) {
		v->n.interrupts++;
		v->port->interrupt(v->port, VSOCK_Q_RX);
	}
}

/*
 * The next usable chain into @s, its payload pieces at @iov (room for @max) and
 * *@n of them. False when there is none: rx empty, or too many pieces.
 */
static bool rx_pop(struct vsock *v, struct rx_slot *s, struct iovec *iov,
		   unsigned max, unsigned *n, bool first, bool payload)
{
	for (int tries = 0; tries < VSOCK_BATCH; tries++) {
		int r = vq_pop(v->rx, &s->chain, iov, max);
		struct iovec *w = iov;

		if (r == -EBADMSG ||
		    (r > 0 && (s->chain.nread ||
			       s->chain.write_len < PKT_HDR_LEN + payload))) {
			/* Not a place for a packet. */
			if (!first) {
				vq_unpop(v->rx, &s->chain);
				return false;
			}
			v->n.bad_chain++;
			vq_push(v->rx, &s->chain, 0);
			continue;
		}
		if (r == -EPROTO)
			vsock_break(v, v->rx->broken);
		if (r <= 0)
			return false;
		s->room = (uint32_t)min_of(s->chain.write_len - PKT_HDR_LEN,
					   (uint64_t)PKT_PAYLOAD_MAX);
		if (w->iov_len >= PKT_HDR_LEN) {
			s->head = (struct iovec){ w->iov_base, PKT_HDR_LEN };
		} else if (!first) {
			/* A header in pieces is kept in v->scratch: alone. */
			vq_unpop(v->rx, &s->chain);
			return false;
		} else {
			s->head.iov_base = NULL;
			v->scratch_n = iov_slice(v->scratch, w, s->chain.nwrite,
						 0, PKT_HDR_LEN);
		}
		*n = iov_slice(w, w, s->chain.nwrite, PKT_HDR_LEN, s->room);
		if (*n > IOV_MAX - VSOCK_BATCH_IOV) {
			/* More than one system call takes: use the start. */
			*n = IOV_MAX - VSOCK_BATCH_IOV;
			s->room = (uint32_t)iov_size(w, *n);
		}
		return true;
	}
	return false;
}

unsigned rx_gather(struct vsock *v, uint32_t bytes, unsigned packets,
		   unsigned *iovs, uint64_t *room)
{
	unsigned n = 0;

	*iovs = 0;
	*room = 0;
	packets = min_of(packets, (unsigned)VSOCK_BATCH);
	while (n < packets && (!n || *room < bytes) &&
	       *iovs < VSOCK_BATCH_IOV) {
		struct rx_slot *s = &v->rx_slot[n];
		unsigned k;

		if (!rx_pop(v, s, v->iov + *iovs,
			    (unsigned)array_size(v->iov) - *iovs, &k, !n,
			    bytes))
			break;
		if (*room + s->room > bytes) {
			s->room = (uint32_t)(bytes - *room);
			k = iov_slice(v->iov + *iovs, v->iov + *iovs, k, 0,
				      s->room);
		}
		*iovs += k;
		*room += s->room;
		n++;
		if (!s->head.iov_base)
			break;
	}
	return n;
}

void rx_return(struct vsock *v, unsigned from, unsigned n)
{
	while (n > from)
		vq_unpop(v->rx, &v->rx_slot[--n].chain);
}

static void rx_header(struct vsock *v, unsigned i, const struct pkt_hdr *h)
{
	struct rx_slot *s = &v->rx_slot[i];
	uint8_t raw[PKT_HDR_LEN];

	pkt_put(raw, h);
	if (s->head.iov_base)
		memcpy(s->head.iov_base, raw, sizeof(raw));
	else
		iov_write(v->scratch, v->scratch_n, 0, raw, sizeof(raw));
	vq_push(v->rx, &s->chain, PKT_HDR_LEN + h->len);
}

static void conn_header(const struct vconn *c, struct pkt_hdr *h)
{
	*h = (struct pkt_hdr){
		.src_cid = c->key.host_cid,
		.dst_cid = c->key.guest_cid,
		.src_port = c->key.host_port,
		.dst_port = c->key.guest_port,
		.type = c->key.type,
		.buf_alloc = c->credit.buf_alloc,
		.fwd_cnt = c->credit.fwd_cnt,
	};
}

void rx_commit(struct vconn *c, unsigned i, uint32_t len, uint32_t flags)
{
	struct vsock *v = c->v;
	struct pkt_hdr h;

	conn_header(c, &h);
	h.op = OP_RW;
	h.len = len;
	h.flags = flags;
	rx_header(v, i, &h);
	c->credit.told = c->credit.fwd_cnt;
	c->ctl &= (uint8_t)~CTL_UPDATE;
	credit_sent(&c->credit, len);
	c->h2g_bytes += len;
	v->n.h2g_bytes += len;
	v->n.h2g_packets++;
}

/* ---- control packets ---- */

void rst_queue(struct vsock *v, const struct vsock_key *k)
{
	bug_on(v->rst_count == VSOCK_RST_RING);
	v->rst[(v->rst_head + v->rst_count++) % VSOCK_RST_RING].key = *k;
	vsock_wake(v);
}

/* One chain for a control packet, in slot 0. */
static bool control_slot(struct vsock *v)
{
	unsigned iovs;
	uint64_t room;

	return rx_gather(v, 0, 1, &iovs, &room) == 1;
}

static void send_rst(struct vsock *v)
{
	const struct vsock_key *k = &v->rst[v->rst_head].key;
	struct pkt_hdr h = {
		.src_cid = k->host_cid,
		.dst_cid = k->guest_cid,
		.src_port = k->host_port,
		.dst_port = k->guest_port,
		.type = k->type,
		.op = OP_RST,
	};

	rx_header(v, 0, &h);
	v->rst_head = (v->rst_head + 1) % VSOCK_RST_RING;
	v->rst_count--;
	v->n.rst_sent++;
	v->n.control_sent++;
}

/* The most urgent packet @c owes, in slot 0. @c may be gone afterwards. */
static void send_control(struct vconn *c)
{
	static const uint16_t ops[] = { OP_RST,		  OP_REQUEST,
					OP_RESPONSE,	  OP_SHUTDOWN,
					OP_CREDIT_UPDATE, OP_CREDIT_REQUEST };
	unsigned bit = (unsigned)__builtin_ctz(c->ctl);
	struct vsock *v = c->v;
	struct pkt_hdr h;

	conn_header(c, &h);
	h.op = ops[bit];
	if (h.op == OP_SHUTDOWN)
		h.flags = c->shut;
	c->ctl &= (uint8_t) ~(1u << bit);
	rx_header(v, 0, &h);
	v->n.control_sent++;
	c->credit.told = c->credit.fwd_cnt;
	c->ctl &= (uint8_t)~CTL_UPDATE;
	switch (h.op) {
	case OP_RST:
		v->n.rst_sent++;
		conn_free(c);
		return;
	case OP_REQUEST:
		c->request_sent = true;
		deadline_set(v, &c->deadline, DL_HANDSHAKE,
			     min_of(c->deadline.at,
				    vsock_now(v) + v->config.handshake_ns),
			     c->deadline.fn);
		break;
	case OP_RESPONSE:
		conn_wait(c, VW_READY); /* the host may have spoken already */
		break;
	case OP_CREDIT_UPDATE:
		v->n.updates_sent++;
		break;
	case OP_CREDIT_REQUEST:
		v->n.requests_sent++;
		break;
	default:
		break;
	}
	if (c->ctl)
		list_append(&v->ctl, &c->ctl_node);
}

/* False when there is no descriptor for what is owed. */
static bool control_run(struct vsock *v)
{
	while (v->rst_count || !list_empty(&v->ctl)) {
		struct vconn *c = NULL;

		if (!v->rst_count) {
			c = container_of(v->ctl.next, struct vconn, ctl_node);
			if (!c->ctl) { /* a data packet carried it */
				list_remove(&c->ctl_node);
				continue;
			}
			if (c->ctl & CTL_REQUEST &&
			    !vsock_type_allowed(v, c->key.type)) {
				conn_reset(c, -EPROTONOSUPPORT);
				continue;
			}
		}
		if (!control_slot(v))
			return false;
		if (!c) {
			send_rst(v);
		} else {
			list_remove(&c->ctl_node);
			send_control(c);
		}
	}
	return true;
}

/* ---- data ---- */

static enum rx_result stream_to_guest(struct vconn *c)
{
	struct vsock *v = c->v;
	uint32_t free = credit_free(&c->credit);
	unsigned packets = credit_packets_free(&c->credit);
	struct msghdr m = { .msg_iov = v->iov };
	uint32_t want, left;
	unsigned slots, used, iovs;
	uint64_t room;
	ssize_t r;

	if (!free || !packets)
		return rx_starved(c);
	want = max_of(2 * c->read_hint, READ_MIN);
	want = min_of(want, c->deficit);
	slots = rx_gather(v, min_of(free, want), packets, &iovs, &room);
	if (!slots)
		return RX_STALL;
	m.msg_iovlen = iovs;
	r = recvmsg(c->fd, &m, MSG_DONTWAIT);
	v->n.h2g_reads++;
	if (r <= 0) {
		int err = r ? errno : 0;

		rx_return(v, 0, slots);
		if (err == EAGAIN) {
			conn_wait(c, VW_SOCKET); /* I4 */
		} else if (err == EINTR) {
			return RX_MORE;
		} else if (err) {
			v->n.host_gone++;
			conn_reset(c, -err);
		} else {
			conn_host_eof(c);
		}
		return RX_WAIT;
	}
	c->read_hint = (uint32_t)r;
	c->deficit -= (uint32_t)r;
	left = (uint32_t)r;
	for (used = 0; left; used++) {
		uint32_t n = min_of(left, v->rx_slot[used].room);

		rx_commit(c, used, n, 0);
		left -= n;
	}
	rx_return(v, used, slots);
	return RX_MORE;
}

/* One connection's round. */
static enum rx_result data_run(struct vconn *c)
{
	enum rx_result r = RX_MORE;
	struct vsock *v = c->v;

	c->deficit += VSOCK_QUANTUM;
	for (int i = 0; i < VSOCK_ROUND_READS && r == RX_MORE && c->deficit;
	     i++) {
		r = c->key.type == VSOCK_SEQPACKET ? seq_to_guest(c)
						   : stream_to_guest(c);
		rx_publish(v);
	}
	return r;
}

bool rx_run(struct vsock *v)
{
	uint64_t bytes = v->n.h2g_bytes, packets = v->n.h2g_packets;

	if (v->kicked[VSOCK_Q_RX]) {
		v->kicked[VSOCK_Q_RX] = false;
		v->rx_stalled = false;
	}
	if (v->rx_stalled || v->rx_held)
		return true;
	vq_kicks_off(v->rx);
	for (int rounds = 0; !v->broken; rounds++) {
		bool dry = !control_run(v);
		struct vconn *c = NULL;

		if (!dry && list_empty(&v->ready)) {
			rx_publish(v);
			return true;
		}
		if (!dry) {
			struct list *node = v->ready.next;
			enum rx_result r;

			c = container_of(node, struct vconn, ready_node);
			list_remove(node);
			list_append(&v->ready, node);
			r = data_run(c);
			dry = r == RX_STALL;
			if (r == RX_STALL) { /* it keeps its turn */
				c->deficit = 0;
				list_remove(node);
				list_push(&v->ready, node);
			}
		}
		rx_publish(v);
		if (v->broken)
			break;
		if (dry) {
			/* I2: ask for a kick, fence, look again. */
			if (!vq_kicks_on(v->rx)) {
				v->rx_stalled = true;
				v->n.stall_descriptors++;
				return true;
			}
			vq_kicks_off(v->rx);
		}
		if (v->n.h2g_bytes - bytes >= VSOCK_TURN_BYTES ||
		    v->n.h2g_packets - packets >= VSOCK_TURN_PACKETS ||
		    rounds == VSOCK_TURN_PACKETS) {
			v->n.stall_budget++;
			return false;
		}
	}
	return true;
}
