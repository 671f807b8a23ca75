#include "vguest.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "base/err.h"
#include "base/util.h"

/* Guest memory: rings, then rx buffers, tx slots, event buffers. */
#define RING_AREA 0x10000
#define RX_AREA	  0x100000
#define RX_STRIDE 0x12000
#define TX_AREA	  0x800000
#define TX_STRIDE 0x11000
#define EV_AREA	  0x60000
#define RAM	  (16u << 20)

static void die(const char *what)
{
	fprintf(stderr, "vguest: %s\n", what);
	abort();
}

static uint64_t now(void *ctx)
{
	return ((struct vguest *)ctx)->now;
}

static void on_irq(struct vsock_port *p, unsigned q)
{
	container_of(p, struct vguest, port)->irqs[q]++;
}

static void on_fail(struct vsock_port *p, const char *why)
{
	container_of(p, struct vguest, port)->failed = why;
}

static uint64_t rx_addr(uint32_t i)
{
	return RX_AREA + (uint64_t)i * RX_STRIDE;
}

static void rx_give(struct vguest *g, uint32_t i)
{
	struct ring_buf b[64];
	uint64_t at = rx_addr(i);
	unsigned n = g->rx_pieces;

	for (unsigned k = 0; k < n; k++) {
		/* Odd pieces of one byte, and the rest at the end. */
		uint32_t len = k + 1 < n ? 1 : g->rx_buf - (n - 1);

		b[k] = (struct ring_buf){ at, len, true };
		at += len;
	}
	if (!ring_add(&g->ring[0], b, n, (void *)(uintptr_t)(i + 1)))
		die("rx ring full");
}

static void ev_give(struct vguest *g, uint32_t i)
{
	struct ring_buf b = { EV_AREA + i * 8, 8, true };

	ring_add(&g->ring[2], &b, 1, (void *)(uintptr_t)(i + 1));
}

static bool event_queue;

static void queues(struct vguest *g, const struct vg_opts *o)
{
	static const uint16_t size[] = { VG_RX_RING, VG_TX_RING,
					 VG_EVENT_RING };

	for (unsigned q = 0; q < 3; q++) {
		uint16_t n = size[q];

		if (q == 0 && g->rx_pieces > 1)
			n = 1024;
		if (q == 0 && o && o->rx_ring)
			n = o->rx_ring;
		if (q == 0 && !o)
			n = g->ring[0].size;
		ring_init(&g->ring[q], g->mem, RING_AREA * (q + 1), n,
			  o ? !o->no_event_idx : g->ring[q].event_idx);
		vq_init(&g->vq[q]);
		if (vq_enable(&g->vq[q], g->mem, &g->ring[q].config, NULL))
			die("vq_enable");
	}
	g->tx_nfree = VG_TX_SLOTS;
	for (uint32_t i = 0; i < VG_TX_SLOTS; i++)
		g->tx_free[i] = i;
	g->rx_spare = 0;
	for (uint32_t i = 0; i < VG_RX_RING; i++)
		if (g->ring[0].nfree >= g->rx_pieces)
			rx_give(g, i);
	for (uint32_t i = 0; i < VG_EVENT_RING; i++)
		ev_give(g, i);
	for (unsigned q = 0; q < 3; q++) {
		ring_publish(&g->ring[q]);
		ring_irq_on(&g->ring[q]);
	}
}

static uint64_t features;

void vg_start(struct vguest *g)
{
	loop_lock(g->loop);
	vsock_start(g->v, &g->port, &g->vq[0], &g->vq[1],
		    event_queue ? &g->vq[2] : NULL, features);
	loop_unlock(g->loop);
}

void vg_open(struct vguest *g, const struct vg_opts *o)
{
	struct vg_opts none = { 0 };
	struct vsock_config c;
	struct err e = { 0 };

	if (!o)
		o = &none;
	if (!g->rx_buf)
		g->rx_buf = VG_RX_BUF;
	if (!g->rx_pieces)
		g->rx_pieces = 1;
	g->now = 1000000000;
	g->port = (struct vsock_port){ on_irq, on_fail };
	if (gmem_create(&g->mem) || gmem_add_ram(g->mem, gpa(0), RAM, &e) ||
	    loop_create(&g->loop, NULL))
		die(e.text);
	c = o->config;
	c.guest_cid = VG_CID;
	if (!o->real_clock) {
		c.now = now;
		c.now_ctx = g;
	}
	if (vsock_create(&g->v, g->loop, &c, &e))
		die(e.text);
	event_queue = !o->no_event_queue;
	features = o->features ? o->features : VSOCK_FEATURES;
	queues(g, o);
	vg_start(g);
}

void vg_stop(struct vguest *g)
{
	loop_lock(g->loop);
	vsock_stop(g->v);
	loop_unlock(g->loop);
	for (unsigned q = 0; q < 3; q++) {
		vq_disable(&g->vq[q]);
		ring_fini(&g->ring[q]);
	}
	queues(g, NULL);
}

void vg_close(struct vguest *g)
{
	loop_lock(g->loop);
	vsock_stop(g->v);
	loop_unlock(g->loop);
	vsock_destroy(g->v);
	for (unsigned q = 0; q < 3; q++)
		ring_fini(&g->ring[q]);
	loop_destroy(g->loop);
	gmem_destroy(g->mem);
}

void vg_settle(struct vguest *g)
{
	const char *why;

	for (int i = 0; loop_turn(g->loop, 0) > 0; i++)
		if (i > 100000)
			die("the worker does not come to rest");
	why = vsock_check(g->v);
	if (why)
		die(why);
}

void vg_advance(struct vguest *g, uint64_t ns)
{
	g->now += ns;
	loop_lock(g->loop);
	vsock_expire(g->v);
	loop_unlock(g->loop);
	vg_settle(g);
}

void vg_kick(struct vguest *g, unsigned q)
{
	if (!ring_publish(&g->ring[q]))
		return;
	loop_lock(g->loop);
	vsock_notify(g->v, q);
	loop_unlock(g->loop);
}

void vg_reap(struct vguest *g)
{
	uint32_t len;
	void *c;

	while ((c = ring_get(&g->ring[1], &len)))
		if ((uintptr_t)c <= VG_TX_SLOTS)
			g->tx_free[g->tx_nfree++] = (uint32_t)(uintptr_t)c - 1;
}

bool vg_post(struct vguest *g, const struct pkt_hdr *h, const void *data,
	     uint32_t len)
{
	struct ring_buf b[64];
	uint8_t raw[PKT_HDR_LEN];
	uint32_t slot, left = PKT_HDR_LEN + len;
	unsigned n = 0;
	uint64_t at;

	vg_reap(g);
	if (!g->tx_nfree || g->ring[1].nfree < 64)
		return false;
	slot = g->tx_free[--g->tx_nfree];
	at = TX_AREA + (uint64_t)slot * TX_STRIDE;
	pkt_put(raw, h);
	gmem_write(g->mem, gpa(at), raw, sizeof(raw));
	if (len)
		gmem_write(g->mem, gpa(at + sizeof(raw)), data, len);
	if (!g->tx_pieces) {
		b[n++] = (struct ring_buf){ at, PKT_HDR_LEN, false };
		if (len)
			b[n++] = (struct ring_buf){ at + PKT_HDR_LEN, len,
						    false };
	} else {
		while (left) {
			uint32_t step = n + 1 < g->tx_pieces ? 1 : left;

			b[n++] = (struct ring_buf){ at, step, false };
			at += step;
			left -= step;
		}
	}
	return ring_add(&g->ring[1], b, n, (void *)(uintptr_t)(slot + 1));
}

void vg_send(struct vguest *g, const struct pkt_hdr *h, const void *data,
	     uint32_t len)
{
	if (!vg_post(g, h, data, len)) {
		vg_settle(g);
		if (!vg_post(g, h, data, len))
			die("tx ring full");
	}
	vg_kick(g, 1);
	vg_settle(g);
}

bool vg_chain(struct vguest *g, unsigned q, const struct ring_buf *b,
	      unsigned n)
{
	return ring_add(&g->ring[q], b, n, (void *)(uintptr_t)1000);
}

void vg_refill(struct vguest *g, unsigned n)
{
	while (n-- && g->rx_spare)
		rx_give(g, g->spare[--g->rx_spare]);
	vg_kick(g, 0);
}

bool vg_recv(struct vguest *g, struct vg_pkt *p)
{
	uint8_t raw[PKT_HDR_LEN];
	uint32_t len, i;
	void *c = ring_get(&g->ring[0], &len);

	if (!c) {
		if (!ring_irq_on(&g->ring[0]))
			return false;
		return vg_recv(g, p);
	}
	i = (uint32_t)(uintptr_t)c - 1;
	if (len < PKT_HDR_LEN || len > g->rx_buf)
		die("a packet that does not fit its buffer");
	gmem_read(g->mem, gpa(rx_addr(i)), raw, sizeof(raw));
	pkt_get(&p->h, raw);
	p->used_len = len;
	if (p->h.len != len - PKT_HDR_LEN)
		die("header and used length disagree");
	if (p->h.len)
		gmem_read(g->mem, gpa(rx_addr(i) + PKT_HDR_LEN), p->data,
			  p->h.len);
	if (g->no_refill) {
		g->spare[g->rx_spare++] = i;
	} else {
		rx_give(g, i);
		vg_kick(g, 0);
	}
	return true;
}

unsigned vg_events(struct vguest *g, bool refill)
{
	unsigned n = 0;
	uint32_t len;
	void *c;

	while ((c = ring_get(&g->ring[2], &len))) {
		if (len != 4)
			die("event of odd length");
		n++;
		if (refill)
			ev_give(g, (uint32_t)(uintptr_t)c - 1);
	}
	ring_irq_on(&g->ring[2]);
	vg_kick(g, 2);
	return n;
}

struct pkt_hdr vg_hdr(uint32_t guest_port, uint32_t host_port, uint16_t op)
{
	return (struct pkt_hdr){
		.src_cid = VG_CID,
		.dst_cid = VSOCK_CID_HOST,
		.src_port = guest_port,
		.dst_port = host_port,
		.type = VSOCK_STREAM,
		.op = op,
		.buf_alloc = 262144,
	};
}

struct pkt_hdr vg_reply(const struct pkt_hdr *p, uint16_t op)
{
	struct pkt_hdr h = vg_hdr(p->dst_port, p->src_port, op);

	h.type = p->type;
	return h;
}
