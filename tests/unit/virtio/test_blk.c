/* The block device and its disks, with io_uring and with threads. */
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "backend/disk_impl.h"
#include "base/bytes.h"
#include "base/util.h"
#include "snap/snap.h"
#include "virtio/harness.h"

enum { T_IN, T_OUT, T_FLUSH = 4, T_GET_ID = 8, T_DISCARD = 11, T_ZERO = 13 };
enum { S_OK, S_IOERR, S_UNSUPP };

#define F_RO	  (1ull << 5)
#define F_FLUSH	  (1ull << 9)
#define F_WCE	  (1ull << 11)
#define F_MQ	  (1ull << 12)
#define F_DISCARD (1ull << 13)
#define F_ZEROES  (1ull << 14)

#define DISK_BYTES (4u << 20)

static char image[] = "/tmp/arcvmm-blk-XXXXXX";
/* Ways to do the same. */
static const char *const ways[] = { "aio=io_uring", "aio=threads",
				    "aio=io_uring,cache=unsafe",
				    "aio=io_uring,cache=none",
				    "aio=threads,cache=none" };

static int make_image(void **state)
{
	int fd = mkstemp(image);

	(void)state;
	if (fd < 0 || ftruncate(fd, DISK_BYTES) < 0)
		return -1;
	for (unsigned i = 0; i < DISK_BYTES / 512; i++) {
		uint32_t sector[128];

		for (unsigned j = 0; j < 128; j++)
			sector[j] = i;
		if (pwrite(fd, sector, 512, i * 512L) != 512)
			return -1;
	}
	close(fd);
	return 0;
}

static int remove_image(void **state)
{
	(void)state;
	return unlink(image);
}

static int open_way(struct harness *h, const char *way, struct err *e)
{
	char options[200];

	snprintf(options, sizeof(options), "%s,%s", image, way);
	return harness_open(h, "blk", options, NULL, NULL, e);
}

static void refused(const char *options, const char *says)
{
	struct err e = { 0 };
	struct harness h;

	assert_true(harness_open(&h, "blk", options, NULL, NULL, &e) < 0);
	harness_close(&h);
	if (!strstr(e.text, says))
		fail_msg("\"%s\": said \"%s\", not \"%s\"", options, e.text,
			 says);
}

/* False when this host cannot do @way, with the reason printed. */
static bool start_way(struct harness *h, const char *way, uint64_t without)
{
	struct err e = { 0 };

	int rc = open_way(h, way, &e);

	if (rc < 0) {
		if (rc != -ENOSYS && rc != -EPERM && rc != -EINVAL)
			fail_msg("%s: %s", way, e.text);
		printf("SKIP: %s: %s\n", way, e.text);
		harness_close(h);
		return false;
	}
	harness_start(h, without);
	return true;
}

struct req {
	gpa_t header, data, status;
	uint32_t len;
	bool in;
};

static struct req prepare(struct harness *h, uint32_t type, uint64_t sector,
			  uint32_t len)
{
	struct req r = {
		.header = harness_alloc(h, 16),
		.data = len ? harness_alloc(h, len + 4096) : gpa(0),
		.status = harness_alloc(h, 1),
		.len = len,
		.in = type == T_IN || type == T_GET_ID,
	};
	uint8_t *p = harness_ptr(h, r.header, 16);

	r.data.v = align_up(r.data.v, 4096);
	put_le32(p, type);
	put_le32(p + 4, 0);
	put_le64(p + 8, sector);
	*(uint8_t *)harness_ptr(h, r.status, 1) = 0xee;
	return r;
}

static int post(struct harness *h, unsigned q, const struct req *r)
{
	struct harness_buf b[3] = { { r->header, 16, false } };
	unsigned n = 1;

	if (r->len)
		b[n++] = (struct harness_buf){ r->data, r->len, r->in };
	b[n++] = (struct harness_buf){ r->status, 1, true };
	return harness_post(h, q, b, n);
}

static uint8_t status(struct harness *h, const struct req *r)
{
	return *(uint8_t *)harness_ptr(h, r->status, 1);
}

static uint8_t run(struct harness *h, unsigned q, struct req *r)
{
	struct harness_used u;

	assert_true(post(h, q, r) >= 0);
	harness_kick(h, q);
	assert_true(harness_wait_used(h, q, &u, 5000));
	assert_int_equal(u.len, (r->in ? r->len : 0) + 1);
	return status(h, r);
}

static uint8_t simple(struct harness *h, uint32_t type, uint64_t sector,
		      uint32_t len)
{
	uint64_t bump = h->bump;
	struct req r = prepare(h, type, sector, len);
	uint8_t s;

	if (r.len)
		memset(harness_ptr(h, r.data, len), 0x5a, len);
	s = run(h, 0, &r);
	h->bump = bump;
	return s;
}

static void read_and_write(void **state)
{
	(void)state;
	for (unsigned w = 0; w < array_size(ways); w++) {
		struct harness h;
		struct req r;
		uint32_t *data;

		if (!start_way(&h, ways[w], 0))
			continue;
		r = prepare(&h, T_IN, 40, 8192);
		assert_int_equal(run(&h, 0, &r), S_OK);
		data = harness_ptr(&h, r.data, 8192);
		for (unsigned i = 0; i < 2048; i++)
			assert_int_equal(data[i], 40 + i / 128);
		r = prepare(&h, T_OUT, 1000, 4096);
		data = harness_ptr(&h, r.data, 4096);
		for (unsigned i = 0; i < 1024; i++)
			data[i] = 0xabcd0000 + i + w;
		assert_int_equal(run(&h, 0, &r), S_OK);
		assert_int_equal(simple(&h, T_FLUSH, 0, 0), S_OK);
		r = prepare(&h, T_IN, 1000, 4096);
		assert_int_equal(run(&h, 0, &r), S_OK);
		assert_memory_equal(harness_ptr(&h, r.data, 4096), data, 4096);
		harness_close(&h);
	}
}

/* Forget the image's pages, but for its first @keep bytes. */
static void cool(off_t keep)
{
	int fd = open(image, O_RDWR | O_CLOEXEC);
	char byte;

	assert_int_equal(fsync(fd), 0);
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM); /* no reading ahead */
	for (off_t at = 0; at < keep; at += 4096)
		assert_int_equal(pread(fd, &byte, 1, at), 1);
	close(fd);
}

/* What the page cache holds is taken from there, the rest is read. */
static void partly_cached(void **state)
{
	(void)state;
	for (unsigned w = 0; w < array_size(ways); w++) {
		struct harness h;

		if (!start_way(&h, ways[w], 0))
			continue;
		for (unsigned keep = 0; keep <= 65536; keep += 16384) {
			uint64_t bump = h.bump;
			struct req r = prepare(&h, T_IN, 0, 65536);
			uint32_t *data = harness_ptr(&h, r.data, 65536);

			cool(keep);
			assert_int_equal(run(&h, 0, &r), S_OK);
			for (unsigned i = 0; i < 16384; i++)
				assert_int_equal(data[i], i / 128);
			h.bump = bump;
			/* And what was not tried after a miss. */
			for (unsigned i = 0; i < 20; i++)
				assert_int_equal(simple(&h, T_IN, 8 * i, 4096),
						 S_OK);
		}
		harness_close(&h);
	}
}

/* cache=none with memory the kernel would refuse for direct I/O. */
static void unaligned_memory(void **state)
{
	(void)state;
	for (unsigned w = 0; w < array_size(ways); w++) {
		struct harness h;
		struct req r;

		if (!start_way(&h, ways[w], 0))
			continue;
		r = prepare(&h, T_IN, 80, 4096);
		r.data.v += 1;
		assert_int_equal(run(&h, 0, &r), S_OK);
		assert_int_equal(get_le32(harness_ptr(&h, r.data, 4)), 80);
		r = prepare(&h, T_OUT, 88, 4096);
		r.data.v += 3;
		memset(harness_ptr(&h, r.data, 4096), 0x11, 4096);
		assert_int_equal(run(&h, 0, &r), S_OK);
		r = prepare(&h, T_IN, 88, 4096);
		assert_int_equal(run(&h, 0, &r), S_OK);
		assert_int_equal(get_le32(harness_ptr(&h, r.data, 4)),
				 0x11111111);
		harness_close(&h);
	}
}

static void any_framing(void **state)
{
	struct harness_buf b[44];
	struct harness h;
	struct req r;
	uint8_t *data;

	(void)state;
	if (!start_way(&h, "aio=auto", 0))
		return;
	/* The header in 16 pieces, data in 13, the status with the last. */
	r = prepare(&h, T_IN, 7, 1024);
	for (unsigned i = 0; i < 16; i++)
		b[i] = (struct harness_buf){ gpa(r.header.v + i), 1, false };
	for (unsigned i = 0; i < 13; i++)
		b[16 + i] = (struct harness_buf){ gpa(r.data.v + 79 * i), 79,
						  true };
	b[28].len = 1025 - 12 * 79;
	assert_int_equal(harness_do(&h, 0, b, 29), 1025);
	data = harness_ptr(&h, r.data, 1025);
	assert_int_equal(get_le32(data), 7);
	assert_int_equal(get_le32(data + 1020), 8);
	assert_int_equal(data[1024], S_OK);
	/* The data over the seam of two memory regions. */
	r = prepare(&h, T_IN, 7, 1024);
	r.data = gpa(HARNESS_SEAM - 100);
	assert_int_equal(run(&h, 0, &r), S_OK);
	assert_int_equal(get_le32(harness_ptr(&h, r.data, 4)), 7);
	assert_int_equal(get_le32(harness_ptr(&h, gpa(HARNESS_SEAM + 920), 4)),
			 8);
	/* And indirect. */
	r = prepare(&h, T_IN, 9, 512);
	b[0] = (struct harness_buf){ r.header, 16, false };
	b[1] = (struct harness_buf){ gpa(HARNESS_HIGH), 512, true };
	b[2] = (struct harness_buf){ r.status, 1, true };
	assert_true(harness_post_indirect(&h, 0, b, 3) >= 0);
	harness_kick(&h, 0);
	assert_true(harness_wait_used(&h, 0, &(struct harness_used){ 0 }, 999));
	assert_int_equal(get_le32(harness_ptr(&h, gpa(HARNESS_HIGH), 4)), 9);
	harness_close(&h);
}

static void refusals(void **state)
{
	uint64_t sectors = DISK_BYTES / 512;
	struct harness h;
	struct err e = { 0 };
	char options[100];

	(void)state;
	if (!start_way(&h, "aio=auto", 0))
		return;
	assert_int_equal(simple(&h, T_IN, sectors, 512), S_IOERR);
	assert_int_equal(simple(&h, T_IN, sectors - 1, 1024), S_IOERR);
	assert_int_equal(simple(&h, T_IN, ~0ull, 512), S_IOERR);
	assert_int_equal(simple(&h, T_OUT, ~0ull / 512 + 1, 512), S_IOERR);
	assert_int_equal(simple(&h, T_IN, 0, 511), S_IOERR);
	assert_int_equal(simple(&h, T_IN, sectors - 1, 512), S_OK);
	assert_int_equal(simple(&h, T_IN, 0, 0), S_OK);
	assert_int_equal(simple(&h, 99, 0, 512), S_UNSUPP);
	assert_int_equal(simple(&h, 14, 0, 16), S_UNSUPP);
	harness_close(&h);
	snprintf(options, sizeof(options), "%s,readonly", image);
	assert_int_equal(harness_open(&h, "blk", options, NULL, NULL, &e), 0);
	harness_start(&h, 0);
	assert_true(h.features & F_RO);
	assert_false(h.features & (F_DISCARD | F_ZEROES));
	assert_int_equal(simple(&h, T_OUT, 0, 512), S_IOERR);
	assert_int_equal(simple(&h, T_IN, 3, 512), S_OK);
	assert_int_equal(simple(&h, T_DISCARD, 0, 16), S_UNSUPP);
	assert_int_equal(simple(&h, T_FLUSH, 0, 0), S_OK);
	harness_close(&h);
}

/* Requests that cannot be answered put the device to NEEDS_RESET. */
static void malformed(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		struct harness_buf b[2];
		struct harness h;
		struct req r;

		if (!start_way(&h, "aio=auto", 0))
			return;
		r = prepare(&h, T_FLUSH, 0, 0);
		b[0] = (struct harness_buf){ r.header, i == 0 ? 15 : 16,
					     i == 1 };
		b[1] = (struct harness_buf){ r.status, i == 3 ? 0 : 1, i != 2 };
		harness_post(&h, 0, b, 2);
		harness_kick(&h, 0);
		harness_settle(&h);
		assert_true(harness_reg(&h, REG_STATUS) & VIRTIO_S_NEEDS_RESET);
		assert_true(harness_reset(&h));
		h.bump = 0x1000;
		harness_start(&h, 0);
		assert_int_equal(simple(&h, T_IN, 0, 512), S_OK);
		harness_close(&h);
	}
}

static void get_id(void **state)
{
	struct harness h;
	struct req r;

	(void)state;
	refused("x,serial=21-characters-is-more", "at most 20");
	if (!start_way(&h, "serial=twenty-characters-ok", 0))
		return;
	r = prepare(&h, T_GET_ID, 0, 20);
	assert_int_equal(run(&h, 0, &r), S_OK);
	assert_memory_equal(harness_ptr(&h, r.data, 20), "twenty-characters-ok",
			    20);
	harness_close(&h);
	assert_true(start_way(&h, "serial=abc", 0));
	r = prepare(&h, T_GET_ID, 0, 20);
	assert_int_equal(run(&h, 0, &r), S_OK);
	assert_string_equal(harness_ptr(&h, r.data, 20), "abc");
	r = prepare(&h, T_GET_ID, 0, 2);
	assert_int_equal(run(&h, 0, &r), S_OK);
	assert_memory_equal(harness_ptr(&h, r.data, 2), "ab", 2);
	harness_close(&h);
}

static uint8_t ranges(struct harness *h, uint32_t type, unsigned n,
		      uint64_t sector, uint32_t sectors, uint32_t flags)
{
	uint64_t bump = h->bump;
	struct req r = prepare(h, type, 0, 16 * n);
	uint8_t s;

	for (unsigned i = 0; i < n; i++) {
		uint8_t *p = harness_ptr(h, gpa(r.data.v + 16 * i), 16);

		put_le64(p, sector + 2 * i * sectors);
		put_le32(p + 8, sectors);
		put_le32(p + 12, flags);
	}
	s = run(h, 0, &r);
	h->bump = bump;
	return s;
}

static uint32_t first_word(struct harness *h, uint64_t sector)
{
	uint64_t bump = h->bump;
	struct req r = prepare(h, T_IN, sector, 512);

	assert_int_equal(run(h, 0, &r), S_OK);
	h->bump = bump;
	return get_le32(harness_ptr(h, r.data, 4));
}

static void discard_and_zero(void **state)
{
	(void)state;
	for (unsigned w = 0; w < array_size(ways); w++) {
		uint64_t at = 2048 + 512 * w;
		struct harness h;

		if (!start_way(&h, ways[w], 0))
			continue;
		assert_true(h.features & F_ZEROES);
		assert_int_equal(ranges(&h, T_ZERO, 1, at, 8, 0), S_OK);
		assert_int_equal(first_word(&h, at), 0);
		assert_int_equal(first_word(&h, at + 7), 0);
		assert_int_equal(first_word(&h, at + 8), at + 8);
		assert_int_equal(ranges(&h, T_ZERO, 4, at + 16, 8, 1), S_OK);
		assert_int_equal(first_word(&h, at + 16), 0);
		assert_int_equal(first_word(&h, at + 24), at + 24);
		assert_int_equal(first_word(&h, at + 64), 0);
		assert_int_equal(first_word(&h, at + 72), at + 72);
		assert_int_equal(ranges(&h, T_ZERO, 16, 3, 0, 0), S_OK);
		if (h.features & F_DISCARD) {
			assert_int_equal(
				ranges(&h, T_DISCARD, 2, at + 128, 8, 0), S_OK);
			assert_int_equal(first_word(&h, at + 128), 0);
		}
		/* Nonsense. */
		assert_int_equal(ranges(&h, T_ZERO, 17, 0, 1, 0), S_IOERR);
		assert_int_equal(ranges(&h, T_ZERO, 1, 8000, 2000, 0), S_IOERR);
		assert_int_equal(ranges(&h, T_ZERO, 1, ~0ull, 2, 0), S_IOERR);
		assert_int_equal(ranges(&h, T_ZERO, 1, 0, 1, 2), S_UNSUPP);
		assert_int_equal(ranges(&h, T_DISCARD, 1, 0, 1, 1), S_UNSUPP);
		assert_int_equal(simple(&h, T_ZERO, 0, 15), S_IOERR);
		assert_int_equal(simple(&h, T_ZERO, 0, 0), S_IOERR);
		harness_close(&h);
	}
}

static atomic_uint syncs;

/* In place of the C library's, to see what aio=threads asks for. */
int fdatasync(int fd)
{
	syncs++;
	return (int)syscall(SYS_fdatasync, fd);
}

/* WRITE_ZEROES of one range: the syncs that it took. */
static unsigned syncs_of_zeroes(struct harness *h)
{
	struct req r = prepare(h, T_ZERO, 0, 16);
	uint8_t *p = harness_ptr(h, r.data, 16);
	unsigned before = syncs;

	put_le64(p, 4000);
	put_le32(p + 8, 8);
	put_le32(p + 12, 0);
	assert_int_equal(run(h, 0, &r), S_OK);
	assert_int_equal(first_word(h, 4000), 0);
	return syncs - before;
}

static void write_through(void **state)
{
	struct harness h;

	(void)state;
	/* No FLUSH: writes must be on the medium by themselves. */
	if (!start_way(&h, "aio=auto", F_FLUSH | F_WCE))
		return;
	assert_int_equal(virtio_mmio_read(h.mmio, REG_CONFIG + 32, 1), 0);
	assert_int_equal(simple(&h, T_OUT, 4000, 4096), S_OK);
	assert_int_equal(first_word(&h, 4000), 0x5a5a5a5a);
	harness_close(&h);
	/* The driver switches. */
	assert_true(start_way(&h, "aio=auto", 0));
	assert_int_equal(virtio_mmio_read(h.mmio, REG_CONFIG + 32, 1), 1);
	virtio_mmio_write(h.mmio, REG_CONFIG + 32, 1, 0);
	assert_int_equal(virtio_mmio_read(h.mmio, REG_CONFIG + 32, 1), 0);
	assert_int_equal(simple(&h, T_OUT, 4000, 4096), S_OK);
	virtio_mmio_write(h.mmio, REG_CONFIG, 4, 0); /* capacity: no */
	assert_int_equal(virtio_mmio_read(h.mmio, REG_CONFIG, 4),
			 DISK_BYTES / 512);
	harness_close(&h);
	/* Zeroes are writes. */
	assert_true(start_way(&h, "aio=threads", 0));
	assert_int_equal(syncs_of_zeroes(&h), 0);
	virtio_mmio_write(h.mmio, REG_CONFIG + 32, 1, 0);
	assert_int_equal(syncs_of_zeroes(&h), 1);
	harness_close(&h);
}

/* Many at once on several queues, in a random order, checked against a model. */
static void multi_queue_random(void **state)
{
	(void)state;
	for (unsigned w = 0; w < array_size(ways); w++) {
		uint32_t model[DISK_BYTES / 4096] = { 0 };
		struct req slot[4][8];
		uint32_t want[4][8] = { { 0 } };
		int head[4][8];
		char options[200];
		struct harness h;
		struct err e = { 0 };
		unsigned seed = 7 + w, done = 0, busy = 0;

		snprintf(options, sizeof(options),
			 "%s,%s,queues=4,queue-size=64", image, ways[w]);
		if (harness_open(&h, "blk", options, NULL, NULL, &e)) {
			harness_close(&h);
			continue;
		}
		harness_start(&h, 0);
		assert_true(h.features & F_MQ);
		for (unsigned q = 0; q < 4; q++)
			for (unsigned i = 0; i < 8; i++) {
				slot[q][i] = prepare(&h, T_IN, 0, 4096);
				head[q][i] = -1;
			}
		while (done < 3000 || busy) {
			struct harness_used u;

			for (unsigned q = 0; q < 4; q++) {
				unsigned i = (unsigned)rand_r(&seed) % 8;
				struct req *r = &slot[q][i];
				/* Queues own blocks: no two race for one. */
				uint32_t block =
					((unsigned)rand_r(&seed) % 32 * 8 + i) *
						4 +
					q;
				uint8_t *p;

				if (head[q][i] >= 0 || done >= 3000)
					continue;
				r->in = model[block] && rand_r(&seed) & 1;
				if (!r->in)
					model[block] =
						(uint32_t)rand_r(&seed) | 1;
				want[q][i] = model[block];
				p = harness_ptr(&h, r->header, 16);
				put_le32(p, r->in ? T_IN : T_OUT);
				put_le64(p + 8, block * 8);
				put_le32(harness_ptr(&h, r->data, 4),
					 r->in ? 0 : model[block]);
				head[q][i] = post(&h, q, r);
				assert_true(head[q][i] >= 0);
				harness_kick(&h, q);
				done++;
				busy++;
			}
			loop_turn(h.loop, busy ? 10 : 0);
			for (unsigned q = 0; q < 4; q++)
				while (harness_used(&h, q, &u)) {
					unsigned i = 0;

					while (head[q][i] != (int)u.id)
						i++;
					assert_int_equal(
						status(&h, &slot[q][i]), S_OK);
					assert_int_equal(
						get_le32(harness_ptr(
							&h, slot[q][i].data,
							4)),
						want[q][i]);
					head[q][i] = -1;
					busy--;
				}
		}
		harness_close(&h);
	}
}

/* Quiet and reset with requests under way; then another life. */
static void reset_in_flight(void **state)
{
	(void)state;
	for (unsigned w = 0; w < array_size(ways); w++) {
		struct harness h;

		if (!start_way(&h, ways[w], 0))
			continue;
		for (unsigned round = 0; round < 20; round++) {
			for (unsigned i = 0; i < 8; i++) {
				struct req r =
					prepare(&h, T_OUT, 4096 + 8 * i, 4096);

				post(&h, 0, &r);
			}
			harness_force_kick(&h, 0);
			if (round % 2)
				loop_turn(h.loop, 0);
			if (round % 3 == 2) {
				assert_true(harness_quiesce(&h));
				virtio_dev_resume(h.dev);
				harness_settle(&h);
			}
			assert_true(harness_reset(&h));
			h.bump = 0x1000;
			harness_start(&h, 0);
			assert_int_equal(simple(&h, T_IN, 0, 512), S_OK);
		}
		harness_close(&h);
	}
}

static void *turn_once(void *arg)
{
	struct harness *h = arg;

	loop_turn(h->loop, 0);
	return NULL;
}

/* The thread that submitted is gone: its requests still come to an end. */
static void thread_exits(void **state)
{
	(void)state;
	for (unsigned w = 0; w < array_size(ways); w++) {
		struct harness h;

		if (!start_way(&h, ways[w], 0))
			continue;
		for (unsigned round = 0; round < 20; round++) {
			struct harness_used u;
			pthread_t thread;
			struct req r[8];

			h.bump = align_up(h.bump, 4096);
			for (unsigned i = 0; i < 8; i++) {
				r[i] = prepare(&h, i % 2 ? T_OUT : T_FLUSH,
					       4096 + 8 * i, i % 2 ? 4096 : 0);
				post(&h, 0, &r[i]);
			}
			harness_force_kick(&h, 0);
			pthread_create(&thread, NULL, turn_once, &h);
			pthread_join(thread, NULL);
			for (unsigned i = 0; i < 8; i++)
				assert_true(harness_wait_used(&h, 0, &u, 5000));
			for (unsigned i = 0; i < 8; i++)
				assert_int_equal(status(&h, &r[i]), S_OK);
			h.bump = h.bump > HARNESS_RAM / 2 ? 0x8000 : h.bump;
		}
		harness_close(&h);
	}
}

/* What a short transfer leaves to be done. */
static void short_transfer(void **state)
{
	char a[512], b[1024], c[512];
	struct iovec iov[] = { { a, 512 }, { b, 1024 }, { c, 512 } };
	struct disk d = { .buffered_fd = 5 };
	struct disk_request r = { .op = DISK_READ,
				  .offset = 4096,
				  .len = 2048,
				  .iov = iov,
				  .niov = 3,
				  .disk = &d };

	(void)state;
	assert_false(disk_advance(&r, -EINTR));
	assert_int_equal(r.len, 2048);
	assert_false(disk_advance(&r, 512));
	assert_int_equal(r.niov, 2);
	assert_ptr_equal(r.iov[0].iov_base, b);
	assert_false(disk_advance(&r, 1000));
	assert_ptr_equal(r.iov[0].iov_base, b + 1000);
	assert_int_equal(r.iov[0].iov_len, 24);
	assert_int_equal(r.offset, 4096 + 1512);
	assert_int_equal(r.len, 536);
	assert_true(r.buffered); /* direct I/O cannot do such a rest */
	assert_true(disk_advance(&r, 536));
	assert_int_equal(r.result, 0);
	assert_int_equal(r.niov, 0);
	r.len = 10;
	assert_true(disk_advance(&r, 0));
	assert_int_equal(r.result, -EIO);
	assert_true(disk_advance(&r, -ENOSPC));
	assert_int_equal(r.result, -ENOSPC);
}

/* The file is cut while in use: an I/O error, no endless loop. */
static void short_file(void **state)
{
	char path[] = "/tmp/arcvmm-short-XXXXXX", options[100];
	int fd = mkstemp(path);

	(void)state;
	for (unsigned t = 0; t < 2; t++) {
		struct err e = { 0 };
		struct harness h;

		assert_int_equal(ftruncate(fd, 65536), 0);
		snprintf(options, sizeof(options), "%s,aio=%s", path,
			 t ? "threads" : "auto");
		assert_int_equal(
			harness_open(&h, "blk", options, NULL, NULL, &e), 0);
		harness_start(&h, 0);
		assert_int_equal(ftruncate(fd, 10000), 0);
		assert_int_equal(simple(&h, T_IN, 0, 16384), S_IOERR);
		assert_int_equal(simple(&h, T_IN, 64, 512), S_IOERR);
		assert_int_equal(simple(&h, T_IN, 0, 4096), S_OK);
		harness_close(&h);
	}
	close(fd);
	unlink(path);
}

static void bad_disks(void **state)
{
	char path[] = "/tmp/arcvmm-bad-XXXXXX", options[200];
	struct err e = { 0 };
	struct harness h, h2;
	int fd = mkstemp(path);

	(void)state;
	refused("", "needs an image file");
	refused("/nonexistent/disk.img", "No such file");
	refused("/tmp", "is a directory");
	refused("/dev/null", "neither a file nor a block device");
	refused(path, "is empty");
	snprintf(options, sizeof(options), "%s,queue-size=100", path);
	refused(options, "power of two");
	assert_int_equal(ftruncate(fd, 1000), 0);
	refused(path, "not whole 512-byte sectors");
	assert_int_equal(ftruncate(fd, 65536), 0);
	snprintf(options, sizeof(options), "%s,serail=x", path);
	refused(options, "serial");
	snprintf(options, sizeof(options), "%s,cache=nonne", path);
	refused(options, "none");
	/* Given twice. */
	assert_int_equal(harness_open(&h, "blk", path, NULL, NULL, &e), 0);
	refused(path, "in use");
	snprintf(options, sizeof(options), "%s,readonly", path);
	refused(options, "in use by another disk that writes it");
	harness_close(&h);
	/* Two readers are fine. */
	assert_int_equal(harness_open(&h, "blk", options, NULL, NULL, &e), 0);
	assert_int_equal(harness_open(&h2, "blk", options, NULL, NULL, &e), 0);
	harness_close(&h);
	harness_close(&h2);
	if (geteuid()) {
		fchmod(fd, 0400);
		refused(path, "readonly");
	}
	close(fd);
	unlink(path);
}

static void snapshot(void **state)
{
	struct snap_writer w;
	struct snap_reader r;
	struct err e = { 0 };
	struct harness h;

	(void)state;
	if (!start_way(&h, "aio=auto", 0))
		return;
	virtio_mmio_write(h.mmio, REG_CONFIG + 32, 1, 0);
	assert_true(harness_quiesce(&h));
	snap_begin(&w);
	virtio_dev_save(h.dev, &w, 0);
	assert_int_equal(snap_finish(&w), 0);
	harness_close(&h);
	assert_int_equal(snap_open(&r, w.buf, w.len, &e), 0);
	assert_int_equal(open_way(&h, "aio=auto", &e), 0);
	assert_int_equal(virtio_dev_restore(h.dev, &r, 0, &e), 0);
	assert_int_equal(virtio_mmio_read(h.mmio, REG_CONFIG + 32, 1), 0);
	virtio_dev_resume(h.dev);
	harness_close(&h);
	/* Another disk in its place. */
	assert_int_equal(truncate(image, DISK_BYTES + 4096), 0);
	assert_int_equal(open_way(&h, "aio=auto", &e), 0);
	assert_int_equal(virtio_dev_restore(h.dev, &r, 0, &e), -EINVAL);
	assert_non_null(strstr(e.text, "bytes when the snapshot"));
	harness_close(&h);
	assert_int_equal(truncate(image, DISK_BYTES), 0);
	free(w.buf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(read_and_write),
		cmocka_unit_test(partly_cached),
		cmocka_unit_test(unaligned_memory),
		cmocka_unit_test(any_framing),
		cmocka_unit_test(refusals),
		cmocka_unit_test(malformed),
		cmocka_unit_test(get_id),
		cmocka_unit_test(discard_and_zero),
		cmocka_unit_test(write_through),
		cmocka_unit_test(multi_queue_random),
		cmocka_unit_test(reset_in_flight),
		cmocka_unit_test(thread_exits),
		cmocka_unit_test(short_transfer),
		cmocka_unit_test(short_file),
		cmocka_unit_test(bad_disks),
		cmocka_unit_test(snapshot),
	};

	return cmocka_run_group_tests(tests, make_image, remove_image);
}
