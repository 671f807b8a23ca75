/* Every packing: round trip, cut off at many places, damaged, too big. */
#include "test.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "kernel_files.h"

#define SIZE (100 * 1024 + 7)

static uint8_t *sample(void)
{
	uint8_t *p = malloc(SIZE);
	uint32_t x = 1;

	assert_non_null(p);
	for (size_t i = 0; i < SIZE; i++) {
		x = x * 1664525 + 1013904223;
		p[i] = i % 4096 < 1024 ? (uint8_t)(x >> 24) : (uint8_t)(i >> 8);
	}
	return p;
}

static void round_trips(void **state)
{
	uint8_t *p = sample(), *q = malloc(SIZE + 100);

	(void)state;
	for (unsigned f = 1; f < UNPACK_COUNT; f++) {
		struct blob b = make_packed(f, p, SIZE);
		struct err e = { 0 };
		size_t out = 0;
		uint8_t *t = malloc(b.len + 4);

		assert_int_equal(unpack_detect(b.p, b.len), f);
		assert_int_equal(unpack(f, b.p, b.len, q, SIZE + 100, &out, &e),
				 0);
		assert_int_equal(out, SIZE);
		assert_memory_equal(p, q, SIZE);
		/* Room for exactly as much, and bytes behind it as in a
		 * kernel image. */
		memcpy(t, b.p, b.len);
		memcpy(t + b.len, "\x07\x90\x01\x00", 4);
		memset(q, 0, SIZE);
		assert_int_equal(unpack(f, t, b.len + 4, q, SIZE, &out, &e), 0);
		assert_int_equal(out, SIZE);
		assert_memory_equal(p, q, SIZE);
		free(t);
		free(b.p);
	}
	free(p);
	free(q);
}

static void too_big(void **state)
{
	uint8_t *p = sample(), *q = malloc(SIZE);

	(void)state;
	for (unsigned f = 1; f < UNPACK_COUNT; f++) {
		struct blob b = make_packed(f, p, SIZE);
		struct err e = { 0 };
		size_t out = 0;

		assert_int_equal(unpack(f, b.p, b.len, q, SIZE - 1, &out, &e),
				 -EFBIG);
		assert_non_null(strstr(e.text, "more than"));
		assert_int_equal(unpack(f, b.p, b.len, q, 0, &out, &e), -EFBIG);
		free(b.p);
	}
	free(p);
	free(q);
}

static void cut_off(void **state)
{
	uint8_t *p = sample(), *q = malloc(SIZE);

	(void)state;
	for (unsigned f = 1; f < UNPACK_COUNT; f++) {
		struct blob b = make_packed(f, p, SIZE);

		for (size_t n = 0; n < b.len - 1; n += 1 + n / 3) {
			uint8_t *cut = malloc(n ?: 1); /* to the byte */
			struct err e = { 0 };
			size_t out = 0;
			int r;

			memcpy(cut, b.p, n);
			r = unpack(f, cut, n, q, SIZE, &out, &e);
			/* LZ4's old format has no end mark: less comes out. */
			if (f == UNPACK_LZ4_LEGACY && r == 0)
				assert_true(out < SIZE);
			else
				assert_true(r < 0);
			free(cut);
		}
		free(b.p);
	}
	free(p);
	free(q);
}

static void damaged(void **state)
{
	uint8_t *p = sample(), *q = malloc(SIZE);

	(void)state;
	for (unsigned f = 1; f < UNPACK_COUNT; f++) {
		struct blob b = make_packed(f, p, SIZE);

		for (size_t at = 0; at < b.len; at += 331) {
			struct err e = { 0 };
			size_t out = 0;

			b.p[at] ^= 0x55;
			if (unpack(f, b.p, b.len, q, SIZE, &out, &e) == 0)
				assert_true(out <= SIZE);
			else
				assert_true(e.text[0]);
			b.p[at] ^= 0x55;
		}
		free(b.p);
	}
	free(p);
	free(q);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trips),
		cmocka_unit_test(too_big),
		cmocka_unit_test(cut_off),
		cmocka_unit_test(damaged),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
