/*
 * Requests of any content and framing to the block device, by io_uring and by
 * threads. The image is small and its size must not change; each chain that the
 * device takes comes back with a status it may have, and the device then still
 * reads.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bug.h"
#include "base/bytes.h"
#include "base/util.h"
#include "virtio/harness.h"

#define IMAGE 65536u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

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

struct disk_guest {
	struct harness h;
	int fd;
};

static struct disk_guest *guests(void)
{
	static const char *const ways[] = { "aio=auto", "aio=threads",
					    "aio=auto,cache=unsafe" };
	static struct disk_guest *g;

	if (g)
		return g;
	g = calloc(array_size(ways), sizeof(*g));
	bug_on(!g);
	for (unsigned i = 0; i < array_size(ways); i++) {
		char options[100];

		g[i].fd = memfd_create("image", 0);
		bug_on(g[i].fd < 0 || ftruncate(g[i].fd, IMAGE) < 0);
		snprintf(options, sizeof(options),
			 "/proc/self/fd/%d,%s,queues=2", g[i].fd, ways[i]);
		bug_on(harness_open(&g[i].h, "blk", options, NULL, NULL, NULL));
	}
	return g;
}

/* A chain whose pieces are cut as the input says, header first. */
static void request(struct harness *h, struct input *in)
{
	static const uint32_t types[] = { 0, 1, 4, 8, 11, 13, 14, 99 };
	unsigned q = u8(in) & 1, n = 0, cuts = u8(in);
	uint32_t len = u8(in) & 1 ? u16(in) % 40000 : u8(in) * 512u % 20480;
	uint32_t type = types[u8(in) % 8];
	gpa_t head = harness_alloc(h, 16), data = harness_alloc(h, len + 16),
	      end = harness_alloc(h, 1);
	bool write = cuts & 0x40 ? u8(in) & 1 : type == 0 || type == 8;
	uint8_t *p = harness_ptr(h, head, 16);
	struct harness_buf b[8];

	if (!p || !data.v || !end.v)
		return;
	put_le32(p, type);
	put_le64(p + 8, u8(in) & 1 ? u16(in) % 140 : (uint64_t)u16(in) << 48);
	for (unsigned i = 0; i < 64 && in->p < in->end && i < len; i++)
		*(uint8_t *)harness_ptr(h, gpa(data.v + i), 1) = u8(in);
	b[n++] = (struct harness_buf){ head, 16, false };
	if (cuts & 1) { /* the header in two */
		b[0].len = u8(in) % 17;
		b[n++] = (struct harness_buf){ gpa(head.v + b[0].len),
					       16 - b[0].len, false };
	}
	if (len) {
		uint32_t first = cuts & 2 ? u16(in) % (len + 1) : len;

		b[n++] = (struct harness_buf){ data, first, write };
		if (first < len)
			b[n++] = (struct harness_buf){ gpa(data.v + first),
						       len - first, write };
	}
	if (!(cuts & 4) || u8(in) & 3)
		b[n++] = (struct harness_buf){ end, 1, true };
	if (cuts & 8)
		harness_post_indirect(h, q, b, n);
	else
		harness_post(h, q, b, n);
	if (cuts & 16)
		harness_kick(h, q);
}

static void finish(struct harness *h)
{
	struct harness_used u;

	for (unsigned q = 0; q < 2; q++) {
		harness_force_kick(h, q);
		while (h->q[q].used_seen != h->q[q].avail_idx &&
		       !(harness_reg(h, REG_STATUS) & VIRTIO_S_NEEDS_RESET))
			bug_on(!harness_wait_used(h, q, &u, 5000) &&
			       !(harness_reg(h, REG_STATUS) &
				 VIRTIO_S_NEEDS_RESET));
	}
}

static void prove(struct harness *h)
{
	struct harness_buf b[3];

	bug_on(!harness_reset(h));
	h->bump = 0x1000;
	harness_start(h, 0);
	b[0] = (struct harness_buf){ harness_alloc(h, 16), 16, false };
	b[1] = (struct harness_buf){ harness_alloc(h, 512), 512, true };
	b[2] = (struct harness_buf){ harness_alloc(h, 1), 1, true };
	memset(harness_ptr(h, b[0].at, 16), 0, 16);
	bug_on(harness_do(h, 0, b, 3) != 513);
	bug_on(*(uint8_t *)harness_ptr(h, b[2].at, 1));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, data + size };
	struct disk_guest *g = &guests()[u8(&in) % 3];
	struct harness *h = &g->h;
	struct stat st;

	bug_on(!harness_reset(h));
	h->bump = 0x1000;
	harness_start(h, (uint64_t)u8(&in) << 9); /* FLUSH .. WRITE_ZEROES */
	for (unsigned n = 0; in.p < in.end && n < 200; n++) {
		switch (u8(&in) % 8) {
		case 0:
			loop_turn(h->loop, 0);
			break;
		case 1:
			if (u8(&in) & 3)
				break;
			bug_on(!harness_quiesce(h));
			virtio_dev_resume(h->dev);
			break;
		case 2:
			loop_lock(h->loop);
			virtio_mmio_write(h->mmio, REG_CONFIG + u8(&in) % 64, 1,
					  u8(&in));
			loop_unlock(h->loop);
			break;
		default:
			request(h, &in);
		}
	}
	finish(h);
	prove(h);
	bug_on(fstat(g->fd, &st) < 0 || st.st_size != IMAGE);
	return 0;
}
