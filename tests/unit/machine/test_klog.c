/* The kernel log out of guest memory: whole, wrapped, and full of lies. */
#include "test.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "klog_guest.h"
#include "machine/klog.h"
#include "mem/gmem.h"

struct fixture {
	struct gmem *m;
	uint8_t *mem;
	char lines[64][160];
	unsigned n;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	*state = f;
	if (gmem_create(&f->m) ||
	    gmem_add_ram(f->m, gpa(0), KLOG_GUEST_SIZE, NULL))
		return -1;
	f->mem = gmem_ptr(f->m, gpa(0), KLOG_GUEST_SIZE, true);
	klog_guest_init(f->mem);
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	gmem_destroy(f->m);
	free(f);
	return 0;
}

static void line(void *ctx, const char *text)
{
	struct fixture *f = ctx;

	assert_true(f->n < 64);
	for (const char *p = text; *p; p++)
		assert_in_range(*p, ' ', 126);
	snprintf(f->lines[f->n++], sizeof(f->lines[0]), "%s", text);
}

static unsigned read_log(struct fixture *f, unsigned max)
{
	unsigned n;

	f->n = 0;
	n = klog_read(f->m, max, line, f);
	assert_int_equal(n, f->n);
	return n;
}

static void plain(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(read_log(f, 10), 0);
	klog_guest_printk(f->mem, 1234567000, "hello");
	klog_guest_printk(f->mem, 2000000000, "");
	klog_guest_printk(f->mem, 3000000000, "two\nlines\x1b[2J");
	assert_int_equal(read_log(f, 10), 3);
	assert_string_equal(f->lines[0], "[    1.234567] hello");
	assert_string_equal(f->lines[1], "[    2.000000] ");
	assert_string_equal(f->lines[2], "[    3.000000] two?lines?[2J");
	assert_int_equal(read_log(f, 1), 1);
	assert_string_equal(f->lines[0], "[    3.000000] two?lines?[2J");
}

/* Both rings go round many times; what is left is the newest. */
static void wrapped(void **state)
{
	struct fixture *f = *state;
	char text[64], want[96];

	for (unsigned i = 0; i < 1000; i++) {
		snprintf(text, sizeof(text), "message %u %.*s", i,
			 (int)(i % 17), "xxxxxxxxxxxxxxxxxxx");
		klog_guest_printk(f->mem, i * 1000000000ull, text);
		read_log(f, 8);
		assert_true(f->n >= 1);
		snprintf(want, sizeof(want), "[%5u.000000] %s", i, text);
		assert_string_equal(f->lines[f->n - 1], want);
	}
	assert_int_equal(read_log(f, 60), 16);
}

static void lies(void **state)
{
	struct fixture *f = *state;
	static const uint64_t evil[] = { 0,
					 1,
					 UINT64_MAX,
					 1ull << 63,
					 0x8000,
					 KLOG_GUEST_SIZE - 1,
					 1ull << 47,
					 0xffff888000000fff,
					 0xffffff0000,
					 31 };
	uint8_t *keep = malloc(KLOG_GUEST_SIZE);

	for (int i = 0; i < 20; i++)
		klog_guest_printk(f->mem, 1, "some text");
	memcpy(keep, f->mem, KLOG_GUEST_SIZE);
	/* Each word that steers the reader, and each evil value for it. */
	for (unsigned at = KLOG_PRB; at < KLOG_TEXT; at += 8)
		for (unsigned v = 0; v < sizeof(evil) / sizeof(evil[0]); v++) {
			put_le64(f->mem + at, evil[v]);
			assert_true(read_log(f, 60) <= 60);
			memcpy(f->mem + at, keep + at, 8);
		}
	for (unsigned at = KLOG_PGD; at < KLOG_PGD + 0x4000; at += 8)
		for (unsigned v = 0; v < sizeof(evil) / sizeof(evil[0]); v++) {
			if (!get_le64(keep + at))
				continue;
			put_le64(f->mem + at, evil[v]);
			read_log(f, 60);
			memcpy(f->mem + at, keep + at, 8);
		}
	/* And the text of the offsets. */
	for (unsigned at = KLOG_INFO; at < KLOG_INFO + 1000; at++)
		for (const char *c = "9=\n-"; *c; c++) {
			f->mem[at] = (uint8_t)*c;
			read_log(f, 60);
			f->mem[at] = keep[at];
		}
	assert_int_equal(read_log(f, 60), 16);
	memset(f->mem + KLOG_INFO, 0, 4096);
	assert_int_equal(read_log(f, 60), 0);
	free(keep);
}

#define T(x) cmocka_unit_test_setup_teardown(x, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = { T(plain), T(wrapped), T(lies) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
