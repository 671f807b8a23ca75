/*
 * Guest to host: draining the tx queue.
 *
 * A header is copied out once, checked, and the copy used. Payload of a stream
 * goes from guest memory to the socket; consecutive packets of one connection
 * are one system call. What the socket will not take is copied to c->out so
 * that the queue goes on for the others.
 *
 * A packet that breaks the rules costs its sender the connection and nobody
 * else anything. Never is a RST answered.
 */
#include <errno.h>
#include <limits.h>
#include <sys/socket.h>

#include "base/bug.h"
#include "virtio/iov.h"
#include "virtio/vsock/core.h"

static void tx_publish(struct vsock *v)
{
	if (vq_publish(v->tx)) {
		v->n.interrupts++;
		v->port->interrupt(v->port, VSOCK_Q_TX);
	}
}

/* Send the payloads that wait in v->iov. Their connection may be gone then. */
static void tx_flush(struct vsock *v)
{
	struct vconn *c = v->tx_conn;
	uint32_t bytes = v->tx_bytes;
	struct msghdr m = { .msg_iov = v->iov };
	ssize_t r;
	int rc = 0;

	if (!c)
		return;
	m.msg_iovlen = min_of(v->tx_iovs, (unsigned)IOV_MAX);
	r = sendmsg(c->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
	v->n.g2h_writes++;
	if (r < 0) {
		rc = errno == EAGAIN || errno == EINTR ? 0 : -EPIPE;
		r = 0;
	}
	if (!rc && (uint32_t)r < bytes) {
		rc = obuf_put(&c->out, v->iov, v->tx_iovs, (uint64_t)r,
			      bytes - (uint32_t)r, c->credit.buf_alloc);
		v->n.g2h_buffered += bytes - (uint32_t)r;
	}
	for (unsigned i = 0; i < v->tx_n; i++)
		vq_push(v->tx, &v->tx_slot[i].chain, 0);
	v->tx_conn = NULL;
	v->tx_n = v->tx_iovs = v->tx_bytes = 0;
	conn_forwarded(c, (uint32_t)r);
	if (rc == -EPIPE)
		v->n.host_gone++;
	else if (rc)
		v->n.no_memory++;
	if (rc)
		conn_reset(c, rc);
	else if (c->out.len)
		conn_flush(c); /* asks for EPOLLOUT */
}

static void key_of(const struct pkt_hdr *h, struct vsock_key *k)
{
	*k = (struct vsock_key){
		.guest_cid = h->src_cid,
		.host_cid = h->dst_cid,
		.guest_port = h->src_port,
		.host_port = h->dst_port,
		.type = h->type,
	};
}

static void refuse(struct vsock *v, const struct pkt_hdr *h, uint64_t *counter)
{
	struct vsock_key k;

	++*counter;
	if (h->op == OP_RST)
		return;
	key_of(h, &k);
	rst_queue(v, &k);
}

/* The guest broke a rule on @c, which ends; what it sent before counts. */
static void punish(struct vconn *c, uint64_t *counter, int rc)
{
	++*counter;
	tx_flush(c->v);
	if (c->state != VC_RESET)
		conn_reset(c, rc);
}

static void on_request(struct vsock *v, const struct pkt_hdr *h,
		       const struct vsock_key *k)
{
	struct vconn *c;

	if (!vsock_type_allowed(v, h->type)) {
		refuse(v, h, &v->n.bad_type);
		return;
	}
	c = conn_new(v, k, false);
	if (!c) {
		refuse(v, h, &v->n.refused);
		return;
	}
	if (!credit_heard(&c->credit, h->buf_alloc, h->fwd_cnt))
		punish(c, &v->n.bad_credit, -EPROTO);
	else
		host_open(c);
}

static void on_handshake(struct vconn *c, const struct pkt_hdr *h)
{
	struct vsock *v = c->v;

	if (h->op == OP_RST) {
		if (c->from_host && !c->request_sent)
			return; /* it answers something older */
		v->n.rst_received++;
		v->n.refused++;
		conn_drop(c, -ECONNREFUSED);
		return;
	}
	if (h->op == OP_RESPONSE && c->request_sent) {
		conn_opened(c);
		return;
	}
	if (!c->from_host &&
	    (h->op == OP_CREDIT_UPDATE || h->op == OP_CREDIT_REQUEST))
		return; /* the RESPONSE will say it */
	punish(c, &v->n.bad_state, -ECONNRESET);
}

/* Data. True: the chain is in the batch, and pushed by tx_flush(). */
static bool on_data(struct vconn *c, const struct pkt_hdr *h,
		    const struct iovec *iov, unsigned n)
{
	struct vsock *v = c->v;

	if (c->guest_shut & SHUT_F_SEND || c->wr_shut) {
		punish(c, &v->n.bad_state, -EPROTO);
		return false;
	}
	if (credit_overflows(&c->credit, h->len)) {
		punish(c, &v->n.overflow, -ENOBUFS);
		return false;
	}
	v->n.g2h_packets++;
	if (c->key.type == VSOCK_SEQPACKET) {
		seq_from_guest(c, h, iov, n);
		return false;
	}
	if (!h->len)
		return false;
	c->credit.rx_cnt += h->len;
	if (c->out.len) {
		/* Behind what waits already: order. */
		v->n.g2h_buffered += h->len;
		if (obuf_put(&c->out, iov, n, 0, h->len, c->credit.buf_alloc))
			punish(c, &v->n.no_memory, -ENOMEM);
		else
			conn_forwarded(c, 0); /* less is free now (I6) */
		return false;
	}
	v->tx_conn = c;
	v->tx_bytes += h->len;
	return true;
}

static void on_open(struct vconn *c, const struct pkt_hdr *h)
{
	struct vsock *v = c->v;

	switch (h->op) {
	case OP_CREDIT_UPDATE:
		return; /* heard */
	case OP_CREDIT_REQUEST:
		conn_owe(c, CTL_UPDATE);
		return;
	case OP_SHUTDOWN:
		c->guest_shut |= h->flags & SHUT_F_BOTH;
		conn_shut_step(c);
		return;
	case OP_RST:
		v->n.rst_received++;
		conn_drop(c, -ECONNRESET);
		return;
	default:
		punish(c, &v->n.bad_state, -EPROTO);
	}
}

/*
 * A packet of the guest, its payload of @n pieces. True: the chain has joined
 * the batch.
 */
static bool on_packet(struct vsock *v, const struct pkt_hdr *h,
		      const struct iovec *iov, unsigned n, uint64_t payload)
{
	struct vsock_key k;
	struct vconn *c;

	if (h->src_cid != v->config.guest_cid) {
		v->n.bad_source++;
		return false;
	}
	if (h->dst_cid != VSOCK_CID_HOST) {
		refuse(v, h, &v->n.bad_destination);
		return false;
	}
	if (h->type != VSOCK_STREAM && h->type != VSOCK_SEQPACKET) {
		refuse(v, h, &v->n.bad_type);
		return false;
	}
	key_of(h, &k);
	if (v->tx_conn && (h->op != OP_RW || !key_equal(&k, &v->tx_conn->key)))
		tx_flush(v);
	c = v->tx_conn ? v->tx_conn : table_find(v, &k);
	if (!c) {
		if (h->op == OP_INVALID || h->op >= OP_COUNT)
			refuse(v, h, &v->n.bad_op);
		else if (h->op != OP_REQUEST)
			refuse(v, h, &v->n.unknown_connection);
		else
			on_request(v, h, &k);
		return false;
	}
	if (c->state == VC_RESET) {
		if (h->op == OP_RST) {
			v->n.rst_received++;
			conn_free(c); /* both had the same thought */
		}
		return false;
	}
	if (h->op == OP_INVALID || h->op >= OP_COUNT) {
		punish(c, &v->n.bad_op, -EPROTO);
		return false;
	}
	if (h->op == OP_RW && (h->len > PKT_PAYLOAD_MAX || h->len > payload)) {
		punish(c, &v->n.bad_length, -EPROTO);
		return false;
	}
	if (h->op != OP_RST &&
	    !credit_heard(&c->credit, h->buf_alloc, h->fwd_cnt)) {
		punish(c, &v->n.bad_credit, -EPROTO);
		return false;
	}
	if (c->state != VC_OPEN) {
		on_handshake(c, h);
		return false;
	}
	conn_credit_step(c);
	if (h->op == OP_RW)
		return on_data(c, h, iov, n);
	on_open(c, h);
	return false;
}

/* One chain, its pieces at @iov. */
static void on_chain(struct vsock *v, const struct vq_chain *chain,
		     struct iovec *iov)
{
	uint8_t raw[PKT_HDR_LEN];
	uint64_t payload;
	struct pkt_hdr h;
	unsigned n;

	if (chain->read_len < PKT_HDR_LEN) {
		v->n.bad_chain++;
		vq_push(v->tx, chain, 0);
		return;
	}
	iov_read(iov, chain->nread, 0, raw, sizeof(raw));
	pkt_get(&h, raw);
	payload = chain->read_len - PKT_HDR_LEN;
	n = iov_slice(iov, iov, chain->nread, PKT_HDR_LEN,
		      min_of((uint64_t)h.len, payload));
	if (!on_packet(v, &h, iov, n, payload)) {
		vq_push(v->tx, chain, 0);
		return;
	}
	/* It joins the batch, which may have been flushed since the pop. */
	memmove(v->iov + v->tx_iovs, iov, n * sizeof(*iov));
	v->tx_iovs += n;
	v->tx_slot[v->tx_n++].chain = *chain;
	if (v->tx_n == VSOCK_BATCH || v->tx_bytes >= VSOCK_QUANTUM ||
	    v->tx_iovs >= VSOCK_BATCH_IOV)
		tx_flush(v);
}

bool tx_run(struct vsock *v)
{
	uint64_t bytes = 0;
	unsigned packets = 0;

	if (!v->kicked[VSOCK_Q_TX])
		return true;
	vq_kicks_off(v->tx);
	while (!v->broken) {
		struct vq_chain chain;
		int r = 0;

		v->tx_stalled = v->rst_count == VSOCK_RST_RING;
		if (!v->tx_stalled)
			r = vq_pop(v->tx, &chain, v->iov + v->tx_iovs,
				   (unsigned)array_size(v->iov) - v->tx_iovs);
		if (r == 1 || r == -EBADMSG) {
			if (r == 1) {
				bytes += chain.read_len;
				on_chain(v, &chain, v->iov + v->tx_iovs);
			} else {
				v->n.bad_chain++;
				vq_push(v->tx, &chain, 0);
			}
			if (bytes < VSOCK_TURN_BYTES &&
			    ++packets < VSOCK_TURN_PACKETS)
				continue;
			r = 1;
			v->n.stall_budget++;
		}
		tx_flush(v);
		tx_publish(v);
		if (r == 1)
			return false;
		if (r == -EPROTO) {
			vsock_break(v, v->tx->broken);
		} else if (v->tx_stalled) {
			v->n.stall_rst++;
			return true; /* rx_run() makes room */
		} else if (r == 0) {
			/* I2: ask for a kick, fence, look again. */
			if (!vq_kicks_on(v->tx)) {
				v->kicked[VSOCK_Q_TX] = false;
				return true;
			}
			vq_kicks_off(v->tx);
		}
	}
	return true;
}
