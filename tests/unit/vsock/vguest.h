/*
 * A guest driver for vsock over plain memory, all on the test's thread: what is
 * sent is posted and kicked, what came is read from the used ring, the worker
 * runs in vg_settle(). The test says what the guest says; vg_conn helpers keep
 * honest credit.
 */
#ifndef TEST_VSOCK_VGUEST_H
#define TEST_VSOCK_VGUEST_H

#include "ring.h"

#include "virtio/vsock/packet.h"
#include "virtio/vsock/vsock.h"

#define VG_CID	      7
#define VG_RX_BUF     3776
#define VG_RX_RING    64
#define VG_TX_RING    256
#define VG_TX_SLOT    (44 + 65536)
#define VG_TX_SLOTS   32
#define VG_EVENT_RING 8

struct vg_pkt {
	struct pkt_hdr h;
	uint32_t used_len;
	uint8_t data[65536];
};

struct vguest {
	struct gmem *mem;
	struct loop *loop;
	struct vsock *v;
	struct vsock_port port;
	struct virtqueue vq[3];
	struct ring ring[3];
	uint64_t now;
	unsigned irqs[3];
	const char *failed; /* the device asked for a reset */
	/* Knobs. */
	uint32_t rx_buf; /* size of a buffer, VG_RX_BUF */
	unsigned rx_pieces; /* descriptors it is split into, 1 */
	unsigned tx_pieces; /* the same for tx: 0 is header + payload */
	bool no_refill; /* rx buffers taken are not given back */
	unsigned rx_spare; /* cookies waiting for vg_refill() */
	uint32_t spare[VG_RX_RING];
	uint32_t tx_free[VG_TX_SLOTS], tx_nfree;
};

struct vg_opts {
	struct vsock_config config; /* guest_cid filled in */
	bool no_event_idx, no_event_queue, real_clock;
	uint64_t features; /* VSOCK_FEATURES */
	uint16_t rx_ring; /* VG_RX_RING */
};

void vg_open(struct vguest *g, const struct vg_opts *o);
void vg_start(struct vguest *g); /* DRIVER_OK; done by vg_open() */
void vg_stop(struct vguest *g); /* device reset, queues forgotten */
void vg_close(struct vguest *g);

/* Run the worker until nothing is left to do. */
void vg_settle(struct vguest *g);
void vg_advance(struct vguest *g, uint64_t ns);

/* Post a packet: raw header and payload. False: no room in the tx ring. */
bool vg_post(struct vguest *g, const struct pkt_hdr *h, const void *data,
	     uint32_t len);
/* ... and kick, and settle. */
void vg_send(struct vguest *g, const struct pkt_hdr *h, const void *data,
	     uint32_t len);
/* Post an arbitrary chain on queue @q. */
bool vg_chain(struct vguest *g, unsigned q, const struct ring_buf *b,
	      unsigned n);
void vg_kick(struct vguest *g, unsigned q);
/* Take back used tx chains. */
void vg_reap(struct vguest *g);

/* The next packet from the device; false when there is none. */
bool vg_recv(struct vguest *g, struct vg_pkt *p);
/* Give rx buffers back that no_refill kept. */
void vg_refill(struct vguest *g, unsigned n);

/* Events taken from the event queue; buffers are given back if @refill. */
unsigned vg_events(struct vguest *g, bool refill);

/* Header from the guest for the connection (guest port, host port). */
struct pkt_hdr vg_hdr(uint32_t guest_port, uint32_t host_port, uint16_t op);
/* The same as an answer to @p. */
struct pkt_hdr vg_reply(const struct pkt_hdr *p, uint16_t op);

#endif
