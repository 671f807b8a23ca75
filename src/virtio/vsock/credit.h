/*
 * Theory of operation
 *
 * Each side of a connection promises a receive buffer (buf_alloc) and says how
 * many bytes it has passed on so far (fwd_cnt); every packet carries both. All
 * counts are u32 and wrap; differences are what means something.
 *
 * Ours, for what the guest sends:
 *   rx_cnt    bytes taken off the tx queue
 *   fwd_cnt   of these, bytes the host socket took
 *   told      fwd_cnt as the guest knows it
 *   rx_cnt - fwd_cnt <= buf_alloc, or the guest overflowed our buffer.
 *   The guest sees buf_alloc - (rx_cnt - told) bytes free. When that gets low
 *   and told is old news, an update is due (I6).
 *
 * The guest's, for what we send:
 *   tx_cnt    bytes put on the rx queue
 *   peer_fwd  of these, bytes the guest says its reader took
 *   free = peer_alloc - (tx_cnt - peer_fwd), which may be negative: a peer may
 *   shrink its buffer.
 *   A fwd_cnt ahead of tx_cnt is a lie. One that is behind the last is old: two
 *   CPUs of a guest can pass each other between taking the count and queueing
 *   the packet.
 *
 * Packets count as well as bytes: since 6.12.92 Linux drops a connection when
 * (queued packets + 1) x 576 exceeds its buffer, so 456 one-byte packets end
 * it with 255 KiB of credit left. We keep the packets in flight below that,
 * and they retire as peer_fwd passes their last byte. They are kept in runs of
 * limit/16, so the record is of constant size; a run retires as a whole.
 */
#ifndef ARC_VIRTIO_VSOCK_CREDIT_H
#define ARC_VIRTIO_VSOCK_CREDIT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/util.h"

/* A peer may claim any buffer; more than this changes nothing for us. */
#define CREDIT_ALLOC_MAX 0x40000000u
/* What a queued packet costs the guest beyond its bytes (576), and a bit. */
#define CREDIT_PACKET_COST 640u
#define CREDIT_PACKETS_MAX 65536u
#define CREDIT_RUNS	   20 /* > 16 + 1 */

struct credit {
	uint32_t buf_alloc, rx_cnt, fwd_cnt, told;
	uint32_t peer_alloc, peer_fwd, tx_cnt;
	uint32_t packets; /* in flight to the guest */
	uint8_t run_head, runs;
	struct {
		uint32_t end; /* tx_cnt after its last packet */
		uint32_t packets;
	} run[CREDIT_RUNS];
};

static inline void credit_init(struct credit *c, uint32_t buf_alloc,
			       uint32_t first)
{
	*c = (struct credit){
		.buf_alloc = buf_alloc,
		.rx_cnt = first,
		.fwd_cnt = first,
		.told = first,
		.peer_fwd = first,
		.tx_cnt = first,
	};
}

/* Bytes the guest can take now. */
static inline uint32_t credit_free(const struct credit *c)
{
	int64_t n = (int64_t)c->peer_alloc -
		    (int64_t)(uint32_t)(c->tx_cnt - c->peer_fwd);

	return n > 0 ? (uint32_t)n : 0;
}

static inline uint32_t credit_packet_limit(const struct credit *c)
{
	uint32_t n = c->peer_alloc / CREDIT_PACKET_COST;

	return n < 1 ? 1 : n > CREDIT_PACKETS_MAX ? CREDIT_PACKETS_MAX : n;
}

/* Packets the guest can take now. */
static inline uint32_t credit_packets_free(const struct credit *c)
{
	uint32_t limit = credit_packet_limit(c);

	return c->packets < limit ? limit - c->packets : 0;
}

/* A packet of @n > 0 bytes went out. */
static inline void credit_sent(struct credit *c, uint32_t n)
{
	uint32_t grain = credit_packet_limit(c) / 16 + 1;
	unsigned i = (c->run_head + c->runs + CREDIT_RUNS - 1u) % CREDIT_RUNS;

	c->tx_cnt += n;
	c->packets++;
	if (!c->runs || (c->run[i].packets >= grain && c->runs < CREDIT_RUNS)) {
		i = (i + 1) % CREDIT_RUNS;
		c->run[i].packets = 0;
		c->runs++;
	}
	c->run[i].packets++;
	c->run[i].end = c->tx_cnt;
}

/*
 * A packet's buf_alloc and fwd_cnt. False when it claims bytes we never sent.
 */
static inline bool credit_heard(struct credit *c, uint32_t alloc, uint32_t fwd)
{
	int32_t in_flight = (int32_t)(c->tx_cnt - fwd);

	if (in_flight < 0)
		return false;
	c->peer_alloc = min_of(alloc, CREDIT_ALLOC_MAX);
	if ((int32_t)(fwd - c->peer_fwd) < 0)
		return true; /* old news */
	c->peer_fwd = fwd;
	/* (Equal counts too: empty messages move no count.) */
	while (c->runs && (int32_t)(fwd - c->run[c->run_head].end) >= 0) {
		c->packets -= c->run[c->run_head].packets;
		c->run_head = (c->run_head + 1) % CREDIT_RUNS;
		c->runs--;
	}
	return true;
}

/* Would @n more bytes from the guest overflow our buffer? */
static inline bool credit_overflows(const struct credit *c, uint32_t n)
{
	return (uint64_t)(uint32_t)(c->rx_cnt - c->fwd_cnt) + n > c->buf_alloc;
}

/*
 * Is it time to tell the guest of fwd_cnt? Linux sends no more than the smaller
 * of the two buffers, so free space is counted by that: due when it is down to
 * max(64 KiB, half), or to half where the window is too small for that.
 */
static inline bool credit_update_due(const struct credit *c)
{
	uint32_t win = c->buf_alloc, used, low;

	if (c->told == c->fwd_cnt)
		return false;
	if (c->peer_alloc && c->peer_alloc < win)
		win = c->peer_alloc;
	used = c->rx_cnt - c->told;
	low = win / 2;
	if (win > 65536u && low < 65536u)
		low = 65536u;
	return used >= win || win - used <= low;
}

#endif
