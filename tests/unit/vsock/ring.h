/*
 * The driver's side of a split virtqueue over plain guest memory, for tests and
 * benchmarks. Memory order is that of a real driver: it may run on a thread of
 * its own.
 */
#ifndef TEST_VSOCK_RING_H
#define TEST_VSOCK_RING_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "mem/gmem.h"
#include "virtio/queue.h"

struct ring_desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};

struct ring_buf {
	uint64_t addr;
	uint32_t len;
	bool write;
};

struct ring {
	uint16_t size;
	bool event_idx;
	struct vq_config config;
	struct ring_desc *desc;
	uint16_t *avail; /* flags, idx, ring[size], used_event */
	uint8_t *used; /* flags, idx, {id, len}[size], avail_event */
	uint16_t free_head, nfree, avail_idx, kicked_idx, last_used;
	void **cookie;
	uint16_t *chain_len;
};

static inline uint64_t ring_bytes(uint16_t size)
{
	return 16u * size + 4096 + 8u * size + 4096;
}

/* Lay out a ring at @base (page-aligned). */
static inline void ring_init(struct ring *r, const struct gmem *m,
			     uint64_t base, uint16_t size, bool event_idx)
{
	uint64_t avail = base + 16u * size;
	uint64_t used = (avail + 6 + 2u * size + 3) & ~3ull;

	*r = (struct ring){ .size = size, .event_idx = event_idx };
	r->config = (struct vq_config){
		.size = size,
		.desc = gpa(base),
		.avail = gpa(avail),
		.used = gpa(used),
		.event_idx = event_idx,
		.indirect = true,
	};
	r->desc = gmem_ptr(m, gpa(base), 16u * size, true);
	r->avail = gmem_ptr(m, gpa(avail), 6 + 2u * size, true);
	r->used = gmem_ptr(m, gpa(used), 6 + 8u * size, true);
	memset(r->desc, 0, 16u * size);
	memset(r->avail, 0, 6 + 2u * size);
	memset(r->used, 0, 6 + 8u * size);
	for (uint16_t i = 0; i < size; i++)
		r->desc[i].next = (uint16_t)(i + 1);
	r->nfree = size;
	r->cookie = calloc(size, sizeof(*r->cookie));
	r->chain_len = calloc(size, sizeof(*r->chain_len));
}

static inline void ring_fini(struct ring *r)
{
	free(r->cookie);
	free(r->chain_len);
}

/* False when there is no room. Visible after ring_publish(). */
static inline bool ring_add(struct ring *r, const struct ring_buf *b,
			    unsigned n, void *cookie)
{
	uint16_t head = r->free_head, i = head, last = head;

	if (r->nfree < n || !n)
		return false;
	for (unsigned k = 0; k < n; k++) {
		r->desc[i].addr = b[k].addr;
		r->desc[i].len = b[k].len;
		r->desc[i].flags =
			(uint16_t)((k + 1 < n ? 1 : 0) | (b[k].write ? 2 : 0));
		last = i;
		i = r->desc[i].next;
	}
	(void)last;
	r->free_head = i;
	r->nfree = (uint16_t)(r->nfree - n);
	r->cookie[head] = cookie;
	r->chain_len[head] = (uint16_t)n;
	r->avail[2 + (r->avail_idx & (r->size - 1))] = head;
	r->avail_idx++;
	return true;
}

/* Make added chains available; true when the device wants a kick. */
static inline bool ring_publish(struct ring *r)
{
	uint16_t old = r->kicked_idx, now = r->avail_idx, event;

	__atomic_store_n(&r->avail[1], now, __ATOMIC_RELEASE);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	r->kicked_idx = now;
	if (old == now)
		return false;
	if (!r->event_idx)
		return !(
			__atomic_load_n((uint16_t *)r->used, __ATOMIC_RELAXED) &
			1);
	event = __atomic_load_n((uint16_t *)(r->used + 4 + 8 * r->size),
				__ATOMIC_RELAXED);
	return (uint16_t)(now - event - 1) < (uint16_t)(now - old);
}

/* The next used chain: its cookie, or NULL when there is none. */
static inline void *ring_get(struct ring *r, uint32_t *len)
{
	uint16_t idx =
		__atomic_load_n((uint16_t *)(r->used + 2), __ATOMIC_ACQUIRE);
	uint32_t id;
	uint8_t *e;
	uint16_t i;

	if (idx == r->last_used)
		return NULL;
	e = r->used + 4 + 8 * (r->last_used & (r->size - 1));
	memcpy(&id, e, 4);
	memcpy(len, e + 4, 4);
	r->last_used++;
	/* Give the descriptors back. */
	i = (uint16_t)id;
	for (unsigned k = 1; k < r->chain_len[id]; k++)
		i = r->desc[i].next;
	r->desc[i].next = r->free_head;
	r->free_head = (uint16_t)id;
	r->nfree = (uint16_t)(r->nfree + r->chain_len[id]);
	return r->cookie[id];
}

/* Ask for an interrupt; true when there is something already. */
static inline bool ring_irq_on(struct ring *r)
{
	__atomic_store_n(&r->avail[2 + r->size], r->last_used,
			 __ATOMIC_RELAXED);
	__atomic_store_n(&r->avail[0], 0, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return __atomic_load_n((uint16_t *)(r->used + 2), __ATOMIC_RELAXED) !=
	       r->last_used;
}

/* No interrupts (with event_idx: far behind). */
static inline void ring_irq_off(struct ring *r)
{
	if (r->event_idx)
		__atomic_store_n(&r->avail[2 + r->size],
				 (uint16_t)(r->last_used - 1),
				 __ATOMIC_RELAXED);
	else
		__atomic_store_n(&r->avail[0], 1, __ATOMIC_RELAXED);
}

#endif
