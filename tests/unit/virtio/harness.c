#include "virtio/harness.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bug.h"
#include "base/clock.h"
#include "base/util.h"

#define ALL_FEATURES (~0ull)

uint32_t harness_reg(struct harness *h, unsigned off)
{
	uint32_t v;

	loop_lock(h->loop);
	v = (uint32_t)virtio_mmio_read(h->mmio, off, 4);
	loop_unlock(h->loop);
	return v;
}

void harness_set_reg(struct harness *h, unsigned off, uint32_t val)
{
	loop_lock(h->loop);
	virtio_mmio_write(h->mmio, off, 4, val);
	loop_unlock(h->loop);
}

static void set_addr(struct harness *h, unsigned off, gpa_t at)
{
	harness_set_reg(h, off, (uint32_t)at.v);
	harness_set_reg(h, off + 4, (uint32_t)(at.v >> 32));
}

int harness_open(struct harness *h, const char *type, const char *options,
		 const void *host, const struct log *log, struct err *e)
{
	const struct virtio_dev_type *t = virtio_dev_type_by_name(type);

	bug_on(!t);
	return harness_open_type(h, t, options, host, log, e);
}

int harness_open_type(struct harness *h, const struct virtio_dev_type *t,
		      const char *options, const void *host,
		      const struct log *log, struct err *e)
{
	struct virtio_env env = { .log = log, .host = host };
	int rc;

	memset(h, 0, sizeof(*h));
	h->bump = 0x1000;
	rc = gmem_create(&h->mem);
	if (!rc)
		rc = gmem_add_ram(h->mem, gpa(0), HARNESS_RAM, e);
	if (!rc)
		rc = gmem_add_ram(h->mem, gpa(HARNESS_SEAM), HARNESS_RAM, e);
	if (!rc)
		rc = gmem_add_ram(h->mem, gpa(HARNESS_HIGH), HARNESS_RAM, e);
	if (!rc)
		rc = loop_create(&h->loop, log);
	if (rc)
		return rc;
	env.mem = h->mem;
	env.loop = h->loop;
	rc = virtio_dev_create(t, &env, options, &h->dev, e);
	if (!rc)
		rc = virtio_mmio_create(h->dev, &h->mmio);
	return rc;
}

static void set_flag(void *ctx)
{
	*(bool *)ctx = true;
}

bool harness_quiesce(struct harness *h)
{
	uint64_t end = clock_ns() + 10 * NSEC_PER_SEC;
	bool quiet = false;

	loop_lock(h->loop);
	virtio_dev_quiesce(h->dev, set_flag, &quiet);
	loop_unlock(h->loop);
	while (!quiet && clock_ns() < end)
		loop_turn(h->loop, 100);
	return quiet;
}

void harness_close(struct harness *h)
{
	if (h->dev && h->dev->run != VIRTIO_QUIET)
		bug_on(!harness_quiesce(h));
	virtio_mmio_destroy(h->mmio);
	virtio_dev_destroy(h->dev);
	loop_destroy(h->loop);
	gmem_destroy(h->mem);
	for (unsigned q = 0; q < HARNESS_QUEUES; q++) {
		free(h->q[q].chain_len);
		free(h->q[q].next);
	}
	memset(h, 0, sizeof(*h));
}

/* ---- set-up ---- */

uint8_t harness_negotiate(struct harness *h, uint64_t want)
{
	uint64_t offered = 0;

	harness_set_reg(h, REG_STATUS, VIRTIO_S_ACKNOWLEDGE);
	harness_set_reg(h, REG_STATUS, VIRTIO_S_ACKNOWLEDGE | VIRTIO_S_DRIVER);
	for (unsigned sel = 0; sel < 2; sel++) {
		harness_set_reg(h, REG_DEVICE_FEATURES_SEL, sel);
		offered |= (uint64_t)harness_reg(h, REG_DEVICE_FEATURES)
			   << 32 * sel;
	}
	h->features = want == ALL_FEATURES ? offered : offered & want;
	for (unsigned sel = 0; sel < 2; sel++) {
		harness_set_reg(h, REG_DRIVER_FEATURES_SEL, sel);
		harness_set_reg(h, REG_DRIVER_FEATURES,
				(uint32_t)(h->features >> 32 * sel));
	}
	harness_set_reg(h, REG_STATUS,
			VIRTIO_S_ACKNOWLEDGE | VIRTIO_S_DRIVER |
				VIRTIO_S_FEATURES_OK);
	return (uint8_t)harness_reg(h, REG_STATUS);
}

void harness_queue(struct harness *h, unsigned q, uint16_t size)
{
	struct harness_queue *hq = &h->q[q];
	uint64_t ad, av, us;

	harness_set_reg(h, REG_QUEUE_SEL, q);
	if (!size)
		size = (uint16_t)harness_reg(h, REG_QUEUE_NUM_MAX);
	if (!size)
		return;
	ad = harness_alloc(h, 16u * size).v;
	av = harness_alloc(h, 6u + 2u * size).v;
	us = harness_alloc(h, 6u + 8u * size).v;
	free(hq->chain_len);
	free(hq->next);
	*hq = (struct harness_queue){
		.size = size,
		.desc = gpa(ad),
		.avail = gpa(av),
		.used = gpa(us),
		.d = harness_ptr(h, gpa(ad), 16u * size),
		.a = harness_ptr(h, gpa(av), 6u + 2u * size),
		.u = harness_ptr(h, gpa(us), 6u + 8u * size),
		.free = size,
		.chain_len = calloc(size, sizeof(uint16_t)),
		.next = calloc(size, sizeof(uint16_t)),
	};
	for (unsigned i = 0; i < size; i++)
		hq->next[i] = (uint16_t)(i + 1);
	memset(hq->a, 0, 6u + 2u * size);
	memset(hq->u, 0, 6u + 8u * size);
	harness_set_reg(h, REG_QUEUE_NUM, size);
	set_addr(h, REG_QUEUE_DESC, hq->desc);
	set_addr(h, REG_QUEUE_DRIVER, hq->avail);
	set_addr(h, REG_QUEUE_DEVICE, hq->used);
	harness_set_reg(h, REG_QUEUE_READY, 1);
}

void harness_driver_ok(struct harness *h)
{
	harness_set_reg(h, REG_STATUS,
			harness_reg(h, REG_STATUS) | VIRTIO_S_DRIVER_OK);
}

void harness_start(struct harness *h, uint64_t without)
{
	harness_negotiate(h, ALL_FEATURES & ~without);
	for (unsigned q = 0; q < HARNESS_QUEUES; q++)
		harness_queue(h, q, 0);
	harness_driver_ok(h);
}

bool harness_reset(struct harness *h)
{
	uint64_t end = clock_ns() + 10 * NSEC_PER_SEC;

	harness_set_reg(h, REG_STATUS, 0);
	while (harness_reg(h, REG_STATUS)) {
		if (clock_ns() > end)
			return false;
		loop_turn(h->loop, 100);
	}
	return true;
}

gpa_t harness_alloc(struct harness *h, uint64_t len)
{
	uint64_t at = align_up(h->bump, 16);

	if (len > HARNESS_SEAM || at + len > HARNESS_SEAM)
		return gpa(0);
	h->bump = at + len;
	return gpa(at);
}

void *harness_ptr(struct harness *h, gpa_t at, uint64_t len)
{
	return gmem_ptr(h->mem, at, len, false);
}

/* ---- posting ---- */

void harness_avail(struct harness *h, unsigned q, uint16_t head)
{
	struct harness_queue *hq = &h->q[q];

	hq->a[2 + (hq->avail_idx & (hq->size - 1))] = head;
	hq->avail_idx++;
	__atomic_store_n(&hq->a[1], hq->avail_idx, __ATOMIC_RELEASE);
}

static struct harness_desc desc_of(const struct harness_buf *b)
{
	return (struct harness_desc){
		.addr = b->at.v,
		.len = b->len,
		.flags = b->write ? DESC_WRITE : 0,
	};
}

static uint16_t take_desc(struct harness_queue *hq)
{
	uint16_t at = hq->free_head;

	hq->free_head = hq->next[at];
	hq->free--;
	return at;
}

int harness_post(struct harness *h, unsigned q, const struct harness_buf *bufs,
		 unsigned n)
{
	struct harness_queue *hq = &h->q[q];
	uint16_t head = hq->free_head;

	if (!n || n > hq->free)
		return -1;
	for (unsigned i = 0; i < n; i++) {
		uint16_t at = take_desc(hq);

		hq->d[at] = desc_of(&bufs[i]);
		if (i + 1 < n) {
			hq->d[at].flags |= DESC_NEXT;
			hq->d[at].next = hq->free_head;
		}
	}
	hq->chain_len[head] = (uint16_t)n;
	harness_avail(h, q, head);
	return head;
}

int harness_post_indirect(struct harness *h, unsigned q,
			  const struct harness_buf *bufs, unsigned n)
{
	struct harness_queue *hq = &h->q[q];
	gpa_t table = harness_alloc(h, 16ull * n);
	struct harness_desc *d = harness_ptr(h, table, 16ull * n);
	uint16_t head;

	if (!d || !hq->free)
		return -1;
	for (unsigned i = 0; i < n; i++) {
		d[i] = desc_of(&bufs[i]);
		if (i + 1 < n) {
			d[i].flags |= DESC_NEXT;
			d[i].next = (uint16_t)(i + 1);
		}
	}
	head = take_desc(hq);
	hq->chain_len[head] = 1;
	hq->d[head] = (struct harness_desc){ .addr = table.v,
					     .len = 16 * n,
					     .flags = DESC_INDIRECT };
	harness_avail(h, q, head);
	return head;
}

void harness_force_kick(struct harness *h, unsigned q)
{
	h->q[q].kicks++;
	harness_set_reg(h, REG_QUEUE_NOTIFY, q);
}

bool harness_kick(struct harness *h, unsigned q)
{
	struct harness_queue *hq = &h->q[q];
	uint16_t now = hq->avail_idx, old = hq->kick_seen;
	bool wanted;

	hq->kick_seen = now;
	/* As virtqueue_kick_prepare() does; it pairs with vq_kicks_on(). */
	__sync_synchronize();
	if (h->features & VIRTIO_F_EVENT_IDX)
		wanted = (uint16_t)(now - hq->u[2 + 4 * hq->size] - 1) <
			 (uint16_t)(now - old);
	else
		wanted = !(hq->u[0] & 1);
	if (!wanted)
		return false;
	harness_force_kick(h, q);
	return true;
}

/* ---- used entries ---- */

static void free_chain(struct harness_queue *hq, uint16_t head)
{
	unsigned n = hq->chain_len[head];
	uint16_t at = head;

	/* next[] still links what was taken together. */
	for (unsigned i = 0; i < n; i++) {
		uint16_t next = hq->next[at];

		hq->next[at] = hq->free_head;
		hq->free_head = at;
		hq->free++;
		at = next;
	}
	hq->chain_len[head] = 0;
}

bool harness_used(struct harness *h, unsigned q, struct harness_used *out)
{
	struct harness_queue *hq = &h->q[q];
	uint16_t idx = __atomic_load_n(&hq->u[1], __ATOMIC_ACQUIRE);
	uint32_t *e;

	if (idx == hq->used_seen)
		return false;
	e = (void *)&hq->u[2 + 4 * (hq->used_seen & (hq->size - 1))];
	*out = (struct harness_used){ .id = e[0], .len = e[1] };
	hq->used_seen++;
	/* Ask for an interrupt for the next one. */
	__atomic_store_n(&hq->a[2 + hq->size], hq->used_seen, __ATOMIC_RELAXED);
	if (out->id < hq->size)
		free_chain(hq, (uint16_t)out->id);
	return true;
}

bool harness_wait_used(struct harness *h, unsigned q, struct harness_used *out,
		       int ms)
{
	uint64_t end = clock_ns() + (uint64_t)ms * NSEC_PER_MSEC;

	while (!harness_used(h, q, out)) {
		if (clock_ns() > end)
			return false;
		loop_turn(h->loop, 10);
	}
	return true;
}

void harness_settle(struct harness *h)
{
	for (unsigned idle = 0; idle < 2;)
		idle = loop_turn(h->loop, 0) > 0 ? 0 : idle + 1;
}

uint64_t harness_irqs(struct harness *h)
{
	uint64_t n = 0;

	if (read(virtio_mmio_irq_fd(h->mmio), &n, sizeof(n)) < 0)
		n = 0;
	h->interrupts += n;
	return n;
}

int64_t harness_do(struct harness *h, unsigned q,
		   const struct harness_buf *bufs, unsigned n)
{
	struct harness_used u;
	int head = harness_post(h, q, bufs, n);

	if (head < 0)
		return -1;
	harness_kick(h, q);
	if (!harness_wait_used(h, q, &u, 5000) || u.id != (uint32_t)head)
		return -1;
	return u.len;
}
