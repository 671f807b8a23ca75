/* The split virtqueue on its own: no device, no transport. */
#include "test.h"

#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "virtio/iov.h"
#include "virtio/queue.h"

enum { NEXT = 1, WRITE = 2, INDIRECT = 4 };
#define SIZE  8u
#define DESC  0x1000u
#define AVAIL 0x2000u
#define USED  0x3000u
#define TABLE 0x4000u
#define BUF   0x8000u
#define RAM   0x10000u /* then a second region, which touches; then nothing */

struct desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};

struct fix {
	struct gmem *mem;
	struct virtqueue vq;
	struct desc *d, *table;
	uint16_t *a, *u;
	struct iovec iov[VQ_IOV_MAX];
	struct vq_chain c;
};

static void *at(struct fix *f, uint64_t addr)
{
	return gmem_ptr(f->mem, gpa(addr), 1, false);
}

static struct fix *open_fix(bool event_idx)
{
	static struct fix f;
	struct vq_config c = {
		.size = SIZE,
		.desc = gpa(DESC),
		.avail = gpa(AVAIL),
		.used = gpa(USED),
		.event_idx = event_idx,
		.indirect = true,
	};

	memset(&f, 0, sizeof(f));
	assert_int_equal(gmem_create(&f.mem), 0);
	assert_int_equal(gmem_add_ram(f.mem, gpa(0), RAM, NULL), 0);
	assert_int_equal(gmem_add_ram(f.mem, gpa(RAM), RAM, NULL), 0);
	f.d = at(&f, DESC);
	f.table = at(&f, TABLE);
	f.a = at(&f, AVAIL);
	f.u = at(&f, USED);
	vq_init(&f.vq);
	assert_int_equal(vq_enable(&f.vq, f.mem, &c, NULL), 0);
	return &f;
}

static void close_fix(struct fix *f)
{
	f->vq.in_flight = 0;
	vq_disable(&f->vq);
	gmem_destroy(f->mem);
}

static void avail(struct fix *f, uint16_t head)
{
	f->a[2 + f->a[1] % SIZE] = head;
	f->a[1]++;
}

static int pop(struct fix *f)
{
	return vq_pop(&f->vq, &f->c, f->iov, VQ_IOV_MAX);
}

static void enable_checks(void **state)
{
	struct fix *f = open_fix(true);
	const struct vq_config good = f->vq.config;
	const char *why = NULL;
	struct vq_config c;

	(void)state;
	vq_disable(&f->vq);
	assert_false(vq_enabled(&f->vq));
	assert_int_equal(pop(f), 0);
#define REFUSED(field, value)                                         \
	do {                                                          \
		c = good;                                             \
		c.field = value;                                      \
		assert_int_equal(vq_enable(&f->vq, f->mem, &c, &why), \
				 -EINVAL);                            \
		assert_non_null(why);                                 \
		assert_false(vq_enabled(&f->vq));                     \
	} while (0)
	REFUSED(size, 0);
	REFUSED(size, 3);
	REFUSED(size, 2048);
	REFUSED(desc, gpa(DESC + 8));
	REFUSED(avail, gpa(AVAIL + 1));
	REFUSED(used, gpa(USED + 2));
	REFUSED(desc, gpa(2 * RAM));
	REFUSED(desc, gpa(2 * RAM - 16));
	REFUSED(desc, gpa(RAM - 16)); /* over the seam of two regions */
	REFUSED(avail, gpa(~0ull - 1));
	REFUSED(used, gpa(1ull << 60));
	assert_int_equal(vq_enable(&f->vq, f->mem, &good, &why), 0);
	close_fix(f);
}

static void pop_and_push(void **state)
{
	struct fix *f = open_fix(false);
	uint32_t *elem = (void *)&f->u[2];

	(void)state;
	assert_int_equal(pop(f), 0);
	f->d[3] = (struct desc){ BUF, 10, NEXT, 5 };
	f->d[5] = (struct desc){ BUF + 100, 20, NEXT | WRITE, 1 };
	f->d[1] = (struct desc){ BUF + 200, 30, WRITE, 7 };
	avail(f, 3);
	assert_int_equal(pop(f), 1);
	assert_int_equal(f->c.head, 3);
	assert_int_equal(f->c.nread, 1);
	assert_int_equal(f->c.nwrite, 2);
	assert_int_equal(f->c.read_len, 10);
	assert_int_equal(f->c.write_len, 50);
	assert_ptr_equal(vq_chain_writable(&f->c)->iov_base, at(f, BUF + 100));
	assert_int_equal(f->vq.in_flight, 1);
	/* Back it goes, and comes again the same. */
	vq_unpop(&f->vq, &f->c);
	assert_int_equal(pop(f), 1);
	assert_int_equal(f->c.head, 3);
	vq_push(&f->vq, &f->c, 42);
	assert_int_equal(f->u[1], 0); /* nothing to see before publish */
	assert_true(vq_publish(&f->vq));
	assert_int_equal(f->u[1], 1);
	assert_int_equal(elem[0], 3);
	assert_int_equal(elem[1], 42);
	assert_false(vq_publish(&f->vq)); /* nothing new */
	close_fix(f);
}

/* A buffer that lies across two regions becomes two pieces. */
static void cross_region(void **state)
{
	struct fix *f = open_fix(false);

	(void)state;
	f->d[0] = (struct desc){ RAM - 5, 12, WRITE, 0 };
	avail(f, 0);
	assert_int_equal(pop(f), 1);
	assert_int_equal(f->c.nwrite, 2);
	assert_int_equal(f->iov[0].iov_len, 5);
	assert_int_equal(f->iov[1].iov_len, 7);
	assert_ptr_equal(f->iov[1].iov_base, at(f, RAM));
	close_fix(f);
}

/* One case of a chain that must be refused, with the queue going on. */
static void bad(const struct desc *d, unsigned n, const struct desc *t,
		unsigned nt, const char *why)
{
	struct fix *f = open_fix(false);

	for (unsigned i = 0; i < n; i++)
		f->d[i] = d[i];
	for (unsigned i = 0; i < nt; i++)
		f->table[i] = t[i];
	f->d[7] = (struct desc){ BUF, 1, 0, 0 };
	avail(f, 0);
	avail(f, 7);
	assert_int_equal(pop(f), -EBADMSG);
	assert_string_equal(f->vq.bad, why);
	assert_int_equal(f->c.nread + f->c.nwrite, 0);
	vq_push(&f->vq, &f->c, 0);
	assert_int_equal(pop(f), 1);
	assert_int_equal(f->c.head, 7);
	close_fix(f);
}

#define BAD(why, ...)                                     \
	do {                                              \
		const struct desc d_[] = { __VA_ARGS__ }; \
		bad(d_, array_size(d_), NULL, 0, why);    \
	} while (0)
#define BAD_TABLE(why, len, ...)                                    \
	do {                                                        \
		const struct desc t_[] = { __VA_ARGS__ };           \
		const struct desc d_ = { TABLE, len, INDIRECT, 0 }; \
		bad(&d_, 1, t_, array_size(t_), why);               \
	} while (0)

/* clang-format off */
static void bad_chains(void **state)
{
	(void)state;
	BAD("a loop, or too many descriptors",
	    { BUF, 1, NEXT, 1 }, { BUF, 1, NEXT, 0 });
	BAD("a loop, or too many descriptors", { BUF, 1, NEXT, 0 });
	BAD("a descriptor out of range", { BUF, 1, NEXT, SIZE });
	BAD("a descriptor out of range", { BUF, 1, NEXT, 0xffff });
	BAD("a buffer outside of memory", { 2 * RAM, 1, 0, 0 });
	BAD("a buffer outside of memory", { 2 * RAM - 1, 2, 0, 0 });
	BAD("a buffer outside of memory", { ~0ull, 2, 0, 0 });
	BAD("a buffer outside of memory", { BUF, ~0u, WRITE, 0 });
	BAD("readable after writable descriptors",
	    { BUF, 1, NEXT | WRITE, 1 }, { BUF, 1, 0, 0 });
	BAD("a descriptor after an indirect table",
	    { TABLE, 16, INDIRECT | NEXT, 1 }, { BUF, 1, 0, 0 });
	BAD("an indirect table of odd length", { TABLE, 0, INDIRECT, 0 });
	BAD("an indirect table of odd length", { TABLE, 24, INDIRECT, 0 });
	BAD("an indirect table outside of memory",
	    { 2 * RAM - 16, 32, INDIRECT, 0 });
	BAD("an indirect table outside of memory",
	    { TABLE, 0xfffffff0u, INDIRECT, 0 });
	BAD_TABLE("an indirect table in an indirect table", 16,
		  { TABLE, 16, INDIRECT, 0 });
	BAD_TABLE("a loop, or too many descriptors", 32,
		  { BUF, 1, NEXT, 1 }, { BUF, 1, NEXT, 0 });
	BAD_TABLE("a descriptor out of range", 32,
		  { BUF, 1, NEXT, 2 }, { BUF, 1, 0, 0 });
}
/* clang-format on */

static void long_chain(void **state)
{
	static const uint32_t len = RAM / 2;
	struct fix *f = open_fix(false);
	struct desc *t;
	unsigned n = 1024;

	(void)state;
	/* More than the ring has, as Linux makes them in tables. */
	t = at(f, TABLE);
	for (unsigned i = 0; i < n; i++)
		t[i] = (struct desc){ BUF, len, i + 1 < n ? NEXT : 0,
				      (uint16_t)(i + 1) };
	f->d[0] = (struct desc){ TABLE, 16 * n, INDIRECT, 0 };
	avail(f, 0);
	assert_int_equal(pop(f), 1);
	assert_int_equal(f->c.nread, n);
	assert_int_equal(f->c.read_len, (uint64_t)n * len);
	close_fix(f);
}

static void indirect_good(void **state)
{
	struct fix *f = open_fix(false);

	(void)state;
	/* Ordinary descriptors, then a table, the WRITE flag of which is
	 * ignored, as is a pointless empty buffer. */
	f->d[0] = (struct desc){ BUF, 8, NEXT, 4 };
	f->d[4] = (struct desc){ TABLE, 48, INDIRECT | WRITE, 9 };
	f->table[0] = (struct desc){ BUF + 8, 8, NEXT, 2 };
	f->table[2] = (struct desc){ ~0ull, 0, NEXT, 1 };
	f->table[1] = (struct desc){ BUF + 16, 8, WRITE, 0 };
	avail(f, 0);
	assert_int_equal(pop(f), 1);
	assert_int_equal(f->c.nread, 2);
	assert_int_equal(f->c.nwrite, 1);
	close_fix(f);
	f = open_fix(false);
	f->vq.config.indirect = false;
	f->d[0] = (struct desc){ TABLE, 16, INDIRECT, 0 };
	avail(f, 0);
	assert_int_equal(pop(f), -EBADMSG);
	close_fix(f);
}

static void little_room(void **state)
{
	struct fix *f = open_fix(false);

	(void)state;
	f->d[0] = (struct desc){ BUF, 1, NEXT, 1 };
	f->d[1] = (struct desc){ BUF, 1, NEXT, 2 };
	f->d[2] = (struct desc){ BUF, 1, 0, 0 };
	avail(f, 0);
	assert_int_equal(vq_pop(&f->vq, &f->c, f->iov, 2), -ENOBUFS);
	assert_int_equal(f->vq.in_flight, 0);
	assert_int_equal(vq_pop(&f->vq, &f->c, f->iov, 3), 1);
	vq_push(&f->vq, &f->c, 0);
	/* Where no call could do, it is the chain that is wrong. */
	f->vq.iov_limit = 2;
	avail(f, 0);
	assert_int_equal(vq_pop(&f->vq, &f->c, f->iov, 3), -EBADMSG);
	assert_string_equal(f->vq.bad, "too many pieces");
	close_fix(f);
}

static void broken_rings(void **state)
{
	struct fix *f = open_fix(true);

	(void)state;
	f->a[1] = SIZE + 1; /* the index jumped */
	assert_int_equal(vq_pending(&f->vq), 0);
	assert_int_equal(pop(f), -EPROTO);
	assert_non_null(f->vq.broken);
	f->a[1] = 0; /* sticky */
	assert_int_equal(pop(f), -EPROTO);
	assert_false(vq_kicks_on(&f->vq));
	close_fix(f);

	f = open_fix(true);
	avail(f, SIZE);
	assert_int_equal(pop(f), -EPROTO);
	close_fix(f);

	/* The same head for ever: no more in flight than entries. */
	f = open_fix(true);
	f->d[0] = (struct desc){ BUF, 1, 0, 0 };
	for (unsigned i = 0; i < SIZE; i++) {
		avail(f, 0);
		assert_int_equal(pop(f), 1);
	}
	avail(f, 0);
	assert_int_equal(pop(f), -EPROTO);
	close_fix(f);

	/* kicks_on sees a jump too: work, so that pop is called. */
	f = open_fix(true);
	f->a[1] = 0x8000;
	assert_true(vq_kicks_on(&f->vq));
	assert_int_equal(pop(f), -EPROTO);
	close_fix(f);
}

/* Indices run free over 16 bits. */
static void wrap(void **state)
{
	struct fix *f = open_fix(true);
	uint16_t *used_event = &f->a[2 + SIZE];

	(void)state;
	f->d[2] = (struct desc){ BUF, 1, 0, 0 };
	for (unsigned i = 0; i < 3 * 65536 + 5; i++) {
		*used_event = (uint16_t)i;
		avail(f, 2);
		if (pop(f) != 1)
			fail_msg("pop %u", i);
		vq_push(&f->vq, &f->c, i);
		if (!vq_publish(&f->vq) || f->u[1] != (uint16_t)(i + 1))
			fail_msg("publish %u", i);
	}
	assert_int_equal(f->vq.stats.signals, 3 * 65536 + 5);
	close_fix(f);
}

static void event_index(void **state)
{
	struct fix *f = open_fix(true);
	uint16_t *used_event = &f->a[2 + SIZE];
	uint16_t *avail_event = &f->u[2 + 4 * SIZE];

	(void)state;
	f->d[0] = (struct desc){ BUF, 1, 0, 0 };
	/* An interrupt when entry 2 is used, whatever else is in the batch. */
	*used_event = 2;
	for (unsigned i = 0; i < 2; i++) {
		avail(f, 0);
		assert_int_equal(pop(f), 1);
		vq_push(&f->vq, &f->c, 0);
		assert_false(vq_publish(&f->vq));
	}
	for (unsigned i = 0; i < 3; i++) {
		avail(f, 0);
		assert_int_equal(pop(f), 1);
		vq_push(&f->vq, &f->c, 0);
	}
	assert_true(vq_publish(&f->vq)); /* 3, 4, 5: stepped over it */
	/* Asking for kicks: at the entry we have not seen. */
	assert_int_equal(*avail_event, 0);
	assert_false(vq_kicks_on(&f->vq));
	assert_int_equal(*avail_event, 5);
	avail(f, 0);
	assert_true(vq_kicks_on(&f->vq));
	assert_int_equal(vq_pending(&f->vq), 1);
	vq_kicks_off(&f->vq);
	assert_int_equal(f->u[0], 0); /* flags stay 0 with EVENT_IDX */
	close_fix(f);
}

static void flags(void **state)
{
	struct fix *f = open_fix(false);

	(void)state;
	f->d[0] = (struct desc){ BUF, 1, 0, 0 };
	vq_kicks_off(&f->vq);
	assert_int_equal(f->u[0], 1);
	assert_false(vq_kicks_on(&f->vq));
	assert_int_equal(f->u[0], 0);
	f->a[0] = 1; /* no interrupts, please */
	avail(f, 0);
	assert_int_equal(pop(f), 1);
	vq_push(&f->vq, &f->c, 0);
	assert_false(vq_publish(&f->vq));
	assert_int_equal(f->u[1], 1);
	close_fix(f);
}

static void iovs(void **state)
{
	char a[] = "abc", b[] = "defgh", buf[16] = "";
	struct iovec iov[] = { { a, 3 }, { NULL, 0 }, { b, 5 } }, out[3];

	(void)state;
	assert_int_equal(iov_size(iov, 3), 8);
	assert_int_equal(iov_read(iov, 3, 2, buf, 3), 3);
	assert_memory_equal(buf, "cde", 3);
	assert_int_equal(iov_read(iov, 3, 6, buf, 16), 2);
	assert_int_equal(iov_read(iov, 3, 8, buf, 16), 0);
	assert_int_equal(iov_write(iov, 3, 1, "XYZ", 3), 3);
	assert_string_equal(a, "aXY");
	assert_string_equal(b, "Zefgh");
	assert_int_equal(iov_slice(out, iov, 3, 2, 3), 2);
	assert_ptr_equal(out[0].iov_base, a + 2);
	assert_int_equal(out[0].iov_len, 1);
	assert_int_equal(out[1].iov_len, 2);
	assert_int_equal(iov_slice(iov, iov, 3, 3, 100), 1);
	assert_ptr_equal(iov[0].iov_base, b);
	assert_int_equal(iov_slice(iov, iov, 1, 9, 1), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(enable_checks),
		cmocka_unit_test(pop_and_push),
		cmocka_unit_test(cross_region),
		cmocka_unit_test(bad_chains),
		cmocka_unit_test(long_chain),
		cmocka_unit_test(indirect_good),
		cmocka_unit_test(little_room),
		cmocka_unit_test(broken_rings),
		cmocka_unit_test(wrap),
		cmocka_unit_test(event_index),
		cmocka_unit_test(flags),
		cmocka_unit_test(iovs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
