/*
 * A guest that does anything, in any order: registers of the mmio transport,
 * rings and descriptors in memory, kicks, resets; against the core, the queue
 * and two real devices (rng, and the console with three ports). The input is a
 * program of byte codes.
 *
 * What must hold is checked by the core's own bug_on()s (nothing in flight when
 * quiet), by the sanitizers, and here: whatever happened, a reset completes and
 * the device then works.
 */
#include <stdlib.h>
#include <string.h>

#include "backend/stream.h"
#include "base/bug.h"
#include "base/bytes.h"
#include "base/util.h"
#include "virtio/console.h"
#include "virtio/harness.h"

#define MEMORY 0x10000u /* what programs write to */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct host {
	size_t room, give;
	struct stream *stream;
};

struct guest {
	struct harness h;
	struct host host[3];
	unsigned data_queue; /* that works as soon as the device is started */
	bool give; /* it is for input */
};

struct input {
	const uint8_t *p, *end;
};

static uint8_t u8(struct input *in)
{
	return in->p < in->end ? *in->p++ : 0;
}

static uint16_t u16(struct input *in)
{
	return (uint16_t)(u8(in) | u8(in) << 8);
}

static uint32_t u32(struct input *in)
{
	return u16(in) | (uint32_t)u16(in) << 16;
}

static size_t host_write(void *ctx, const struct iovec *iov, int n)
{
	struct host *h = ctx;
	size_t took = 0;

	for (int i = 0; i < n; i++) {
		size_t step = min_of(iov[i].iov_len, h->room);

		h->room -= step;
		took += step;
	}
	return took;
}

static size_t host_read(void *ctx, const struct iovec *iov, int n)
{
	struct host *h = ctx;
	size_t step = min_of(iov[0].iov_len, h->give);

	(void)n;
	memset(iov[0].iov_base, 'i', step);
	h->give -= step;
	return step;
}

static void open_console(struct guest *g)
{
	const struct virtio_dev_type *t = virtio_dev_type_by_name("console");
	struct virtio_console_port ports[2] = {
		{ .name = "one" }, { .name = "two", .console = true }
	};
	struct virtio_console_host ch = { .ports = ports, .nports = 2 };
	struct virtio_env env = { .host = &ch };

	bug_on(harness_open(&g->h, "console", "off", NULL, NULL, NULL));
	virtio_mmio_destroy(g->h.mmio);
	virtio_dev_destroy(g->h.dev);
	for (unsigned i = 0; i < 3; i++) {
		const struct stream_host sh = { host_write, host_read,
						&g->host[i] };

		bug_on(stream_open_host(&g->host[i].stream, g->h.loop, &sh,
					NULL));
	}
	ch.console = g->host[0].stream;
	ports[0].stream = g->host[1].stream;
	ports[1].stream = g->host[2].stream;
	env.mem = g->h.mem;
	env.loop = g->h.loop;
	bug_on(virtio_dev_create(t, &env, "cols=80,rows=25", &g->h.dev, NULL));
	bug_on(virtio_mmio_create(g->h.dev, &g->h.mmio));
	g->data_queue = 1;
}

static struct guest *guests(void)
{
	static struct guest *g;

	if (!g) {
		g = calloc(2, sizeof(*g));
		bug_on(!g);
		bug_on(harness_open(&g[0].h, "rng", "", NULL, NULL, NULL));
		open_console(&g[1]);
	}
	return g;
}

/* A place that is likely to matter: a ring's, or anywhere. */
static uint64_t place(struct guest *g, struct input *in)
{
	const struct harness_queue *q = &g->h.q[u8(in) % 8];
	uint8_t what = u8(in);

	switch (q->size ? what % 5 : 4) {
	case 0:
		return q->desc.v + what / 5 % q->size * 16u;
	case 1:
		return q->avail.v + what / 5 % (q->size + 3u) * 2u;
	case 2:
		return q->used.v + what / 5 * 2u;
	case 3:
		return HARNESS_SEAM - 8 + what / 5;
	}
	return u16(in);
}

static uint64_t address(struct input *in)
{
	switch (u8(in) % 6) {
	case 0:
		return HARNESS_SEAM - u16(in);
	case 1:
		return HARNESS_HIGH + u16(in);
	case 2:
		return 2 * HARNESS_RAM - u16(in);
	case 3:
		return ~0ull - u16(in);
	case 4:
		return (uint64_t)u32(in) << 32 | u32(in);
	}
	return u16(in);
}

static void post(struct guest *g, struct input *in)
{
	struct harness_buf b[16];
	unsigned q = u8(in) % 8, n = u8(in) % 16 + 1;

	for (unsigned i = 0; i < n; i++) {
		b[i].at = gpa(address(in));
		b[i].len = u8(in) & 1 ? u32(in) : u8(in);
		b[i].write = u8(in) & 1;
	}
	if (!g->h.q[q].size)
		return;
	if (u8(in) & 1)
		harness_post_indirect(&g->h, q, b, n);
	else
		harness_post(&g->h, q, b, n);
	harness_kick(&g->h, q);
}

static void control(struct guest *g, struct input *in)
{
	gpa_t at = harness_alloc(&g->h, 8);
	struct harness_buf b = { at, 8, false };
	uint8_t *p = harness_ptr(&g->h, at, 8);

	if (!p || !g->h.q[3].size)
		return;
	put_le32(p, u8(in) % 4);
	put_le16(p + 4, u8(in) % 9);
	put_le16(p + 6, u8(in) % 2);
	harness_post(&g->h, 3, &b, 1);
	harness_kick(&g->h, 3);
}

static void quiet_and_on(struct guest *g)
{
	bug_on(!harness_quiesce(&g->h));
	virtio_dev_resume(g->h.dev);
}

static void drain(struct guest *g)
{
	struct harness_used u;

	for (unsigned q = 0; q < 8; q++)
		for (unsigned n = 0; g->h.q[q].size && n < 64; n++)
			if (!harness_used(&g->h, q, &u))
				break;
}

static void step(struct guest *g, struct input *in)
{
	uint64_t at;
	unsigned n;

	switch (u8(in) % 14) {
	case 0:
		at = u8(in) * 4u;
		harness_set_reg(&g->h, (unsigned)at, u32(in));
		break;
	case 1: /* odd sizes and places, the config space */
		at = u16(in) % VIRTIO_MMIO_SIZE;
		n = 1u << u8(in) % 4;
		if (at + n > VIRTIO_MMIO_SIZE)
			break;
		loop_lock(g->h.loop);
		virtio_mmio_read(g->h.mmio, at, n);
		virtio_mmio_write(g->h.mmio, at, n, u32(in));
		loop_unlock(g->h.loop);
		break;
	case 2:
		at = place(g, in);
		for (n = u8(in) % 32; n && in->p < in->end; n--) {
			uint8_t byte = u8(in);

			gmem_write(g->h.mem, gpa(at++), &byte, 1);
		}
		break;
	case 3:
		harness_force_kick(&g->h, u8(in) % 9);
		break;
	case 4:
		loop_turn(g->h.loop, 0);
		break;
	case 5:
		harness_start(&g->h, u8(in) & 1 ? (uint64_t)u32(in) << 8 : 0);
		break;
	case 6:
	case 7:
		post(g, in);
		break;
	case 8:
		n = u8(in) % 8;
		if (g->h.q[n].size)
			harness_avail(&g->h, n, u16(in));
		break;
	case 9:
		quiet_and_on(g);
		break;
	case 10:
		bug_on(!harness_reset(&g->h));
		break;
	case 11:
		n = u8(in) % 3;
		g->host[n].room = u16(in);
		g->host[n].give = u16(in);
		if (g->host[n].stream)
			stream_host_ready(g->host[n].stream);
		break;
	case 12:
		control(g, in);
		break;
	case 13:
		drain(g);
		if (!g->host[0].stream)
			break;
		loop_lock(g->h.loop);
		virtio_console_resize(g->h.dev, u8(in) % 4, u8(in), u8(in));
		loop_unlock(g->h.loop);
		break;
	}
}

/* After all that: an honest driver gets honest service. */
static void prove(struct guest *g)
{
	struct harness_buf b = { .len = 16, .write = !g->data_queue };

	for (unsigned i = 0; i < 3; i++)
		g->host[i].room = ~0u;
	bug_on(!harness_reset(&g->h));
	memset(harness_ptr(&g->h, gpa(0), MEMORY), 0, MEMORY);
	g->h.bump = 0x1000;
	harness_start(&g->h, 0);
	bug_on(harness_reg(&g->h, REG_STATUS) != 15);
	b.at = harness_alloc(&g->h, 16);
	bug_on(harness_do(&g->h, g->data_queue, &b, 1) < 0);
	for (unsigned i = 0; i < 3; i++)
		g->host[i].give = 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, data + size };
	struct guest *g = &guests()[u8(&in) & 1];

	bug_on(!harness_reset(&g->h));
	g->h.bump = 0x1000;
	if (u8(&in) & 3)
		harness_start(&g->h, u8(&in) & 1 ? VIRTIO_F_EVENT_IDX : 0);
	for (unsigned n = 0; in.p < in.end && n < 1000; n++)
		step(g, &in);
	harness_settle(&g->h);
	prove(g);
	return 0;
}
