#include "test.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "base/err.h"
#include "base/util.h"
#include "mem/gmem.h"

#define HIGH GiB(4)

/* 64 KiB at 0, 64 KiB directly above it, 64 KiB at 4 GiB. */
static struct gmem *three_regions(void)
{
	struct gmem *m;

	assert_int_equal(gmem_create(&m), 0);
	assert_int_equal(gmem_add_ram(m, gpa(HIGH), KiB(64), NULL), 0);
	assert_int_equal(gmem_add_ram(m, gpa(0), KiB(64), NULL), 0);
	assert_int_equal(gmem_add_ram(m, gpa(KiB(64)), KiB(64), NULL), 0);
	return m;
}

static void regions_are_sorted(void **state)
{
	struct gmem *m = three_regions();

	(void)state;
	assert_int_equal(gmem_region(m, 0)->base.v, 0);
	assert_int_equal(gmem_region(m, 1)->base.v, KiB(64));
	assert_true(gmem_region(m, 2)->base.v == HIGH);
	assert_null(gmem_region(m, 3));
	assert_int_equal(gmem_ram_size(m), KiB(192));
	gmem_destroy(m);
	gmem_destroy(NULL);
}

static void bad_regions_are_refused(void **state)
{
	struct gmem *m = three_regions();
	struct err e = { 0 };

	(void)state;
	assert_int_equal(gmem_add_ram(m, gpa(0), KiB(4), &e), -EEXIST);
	assert_non_null(strstr(e.text, "overlaps"));
	assert_int_equal(gmem_add_ram(m, gpa(HIGH - 4096), KiB(8), &e),
			 -EEXIST);
	assert_int_equal(gmem_add_ram(m, gpa(MiB(1)), 0, &e), -EINVAL);
	assert_int_equal(gmem_add_ram(m, gpa(MiB(1)), 100, &e), -EINVAL);
	assert_int_equal(gmem_add_ram(m, gpa(MiB(1) + 1), 4096, &e), -EINVAL);
	assert_int_equal(gmem_add_ram(m, gpa(-4096ull), KiB(8), &e), -EINVAL);
	assert_null(gmem_region(m, 3));
	gmem_destroy(m);
}

static void copies_cross_regions(void **state)
{
	struct gmem *m = three_regions();
	char in[256], out[256];

	(void)state;
	for (unsigned i = 0; i < sizeof(in); i++)
		in[i] = (char)i;
	assert_int_equal(gmem_write(m, gpa(KiB(64) - 100), in, 256), 0);
	assert_int_equal(gmem_read(m, gpa(KiB(64) - 100), out, 256), 0);
	assert_memory_equal(in, out, 256);
	/* Not contiguous on the host: no pointer, two pieces. */
	assert_null(gmem_ptr(m, gpa(KiB(64) - 100), 256, true));
	assert_non_null(gmem_ptr(m, gpa(KiB(64) - 100), 100, true));
	assert_null(gmem_ptr(m, gpa(0), 0, false));
	gmem_destroy(m);
}

static void outside_is_refused_whole(void **state)
{
	struct gmem *m = three_regions();
	char buf[256], before[100];
	struct iovec iov[4];

	(void)state;
	memset(buf, 0xee, sizeof(buf));
	gmem_read(m, gpa(KiB(128) - 100), before, 100);
	assert_int_equal(gmem_write(m, gpa(KiB(128) - 100), buf, 256), -EFAULT);
	assert_int_equal(gmem_read(m, gpa(KiB(128) - 100), buf, 100), 0);
	assert_memory_equal(before, buf, 100); /* nothing was written */
	assert_int_equal(gmem_read(m, gpa(KiB(128)), buf, 1), -EFAULT);
	assert_int_equal(gmem_read(m, gpa(HIGH - 1), buf, 1), -EFAULT);
	assert_int_equal(gmem_read(m, gpa(~0ull), buf, 2), -EFAULT);
	assert_int_equal(gmem_iov(m, gpa(0), SIZE_MAX, false, iov, 4), -EFAULT);
	assert_int_equal(gmem_iov(m, gpa(KiB(64) - 1), 2, false, iov, 1),
			 -E2BIG);
	assert_int_equal(gmem_read(m, gpa(0), buf, 0), 0);
	gmem_destroy(m);
}

static void readonly_mapping(void **state)
{
	static char page[4096] __attribute__((aligned(4096)));
	struct gmem_region r = {
		.base = gpa(MiB(1)),
		.size = sizeof(page),
		.host = page,
		.fd = -1,
		.flags = GMEM_READONLY,
	};
	struct gmem *m = three_regions();
	char c;

	(void)state;
	page[5] = 42;
	assert_int_equal(gmem_add_mapping(m, &r, NULL), 0);
	assert_int_equal(gmem_read(m, gpa(MiB(1) + 5), &c, 1), 0);
	assert_int_equal(c, 42);
	assert_int_equal(gmem_write(m, gpa(MiB(1) + 5), &c, 1), -EFAULT);
	assert_int_equal(gmem_fill(m, gpa(MiB(1)), 0, 1), -EFAULT);
	assert_null(gmem_ptr(m, gpa(MiB(1)), 1, true));
	assert_int_equal(gmem_ram_size(m), KiB(192));
	gmem_destroy(m);
}

static void two_at_once(void **state)
{
	struct gmem *a = three_regions(), *b = three_regions();
	int x = 1, y = 2, got;

	(void)state;
	gmem_write(a, gpa(HIGH), &x, sizeof(x));
	gmem_write(b, gpa(HIGH), &y, sizeof(y));
	gmem_read(a, gpa(HIGH), &got, sizeof(got));
	assert_int_equal(got, 1);
	gmem_destroy(a);
	gmem_read(b, gpa(HIGH), &got, sizeof(got));
	assert_int_equal(got, 2);
	gmem_destroy(b);
}

struct seen {
	unsigned calls;
	uint64_t at;
	size_t len;
};

static void note_writer(void *ctx, gpa_t at, size_t len)
{
	struct seen *s = ctx;

	s->calls++;
	s->at = at.v;
	s->len = len;
}

static void writers_are_announced(void **state)
{
	struct gmem *m = three_regions();
	struct seen s = { 0 };
	struct iovec iov[2];
	char b[8] = { 0 };

	(void)state;
	gmem_set_writer(m, note_writer, &s);
	assert_int_equal(gmem_read(m, gpa(0), b, 8), 0);
	assert_non_null(gmem_ptr(m, gpa(0), 8, false));
	assert_int_equal(s.calls, 0);
	assert_int_equal(gmem_iov(m, gpa(KiB(64) - 4), 8, true, iov, 2), 2);
	assert_int_equal(s.calls, 1);
	assert_true(s.at == KiB(64) - 4 && s.len == 8);
	assert_int_equal(gmem_write(m, gpa(16), b, 8), 0);
	assert_true(s.calls == 2 && s.at == 16);
	assert_int_equal(gmem_write(m, gpa(KiB(128) - 4), b, 8), -EFAULT);
	assert_int_equal(s.calls, 2);
	gmem_destroy(m);
}

/* Another process that maps the descriptors sees what the guest has. */
static void shared(void **state)
{
	const uint64_t size = 1 << 16;
	const char text[] = "seen";
	struct gmem *m;

	(void)state;
	assert_int_equal(gmem_create(&m), 0);
	gmem_share(m);
	assert_int_equal(gmem_add_ram(m, gpa(0), size, NULL), 0);
	assert_int_equal(gmem_add_ram(m, gpa(1ull << 32), size, NULL), 0);
	for (unsigned i = 0; i < 2; i++) {
		const struct gmem_region *r = gmem_region(m, i);
		char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED,
			       r->fd, (off_t)r->fd_offset);

		assert_ptr_not_equal(p, MAP_FAILED);
		assert_int_equal(gmem_write(m, r->base, text, sizeof(text)), 0);
		assert_string_equal(p, text);
		memset(p, 0, size);
		assert_int_equal(*(char *)gmem_ptr(m, r->base, 1, false), 0);
		munmap(p, size);
	}
	gmem_destroy(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shared),
		cmocka_unit_test(regions_are_sorted),
		cmocka_unit_test(bad_regions_are_refused),
		cmocka_unit_test(copies_cross_regions),
		cmocka_unit_test(outside_is_refused_whole),
		cmocka_unit_test(readonly_mapping),
		cmocka_unit_test(two_at_once),
		cmocka_unit_test(writers_are_announced),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
