#include "test.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/err.h"
#include "snap/snap.h"

#define TAG_A SNAP_TAG('A', ' ', ' ', ' ')
#define TAG_B SNAP_TAG('B', ' ', ' ', ' ')

static void sample(struct snap_writer *w)
{
	snap_begin(w);
	snap_record(w, TAG_A, 3, 1, 0);
	snap_u8(w, 0x11);
	snap_u16(w, 0x2233);
	snap_u32(w, 0x44556677);
	snap_u64(w, 0x8899aabbccddeeffull);
	snap_blob(w, "blob", 4);
	snap_record(w, TAG_B, 0, 7, SNAP_CRITICAL);
	assert_int_equal(snap_finish(w), 0);
}

static void crc_known_answer(void **state)
{
	(void)state;
	/* RFC 3720, B.4 */
	assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283);
	assert_int_equal(crc32c(crc32c(0, "1234", 4), "56789", 5), 0xe3069283);
}

static void round_trip(void **state)
{
	struct snap_writer w;
	struct snap_reader r;
	struct snap_body b;
	size_t len, pos = 0;

	(void)state;
	sample(&w);
	assert_int_equal(snap_open(&r, w.buf, w.len, NULL), 0);
	assert_int_equal(snap_find(&r, TAG_A, 3, &b), 0);
	assert_int_equal(b.version, 1);
	assert_int_equal(snap_get_u8(&b), 0x11);
	assert_int_equal(snap_get_u16(&b), 0x2233);
	assert_int_equal(snap_get_u32(&b), 0x44556677);
	assert_true(snap_get_u64(&b) == 0x8899aabbccddeeffull);
	assert_memory_equal(snap_get_blob(&b, &len), "blob", 4);
	assert_int_equal(len, 4);
	assert_false(b.short_read);
	/* Past the end: zeros, and it says so. */
	assert_int_equal(snap_get_u32(&b), 0);
	assert_true(b.short_read);
	assert_null(snap_get_blob(&b, &len));
	assert_int_equal(snap_find(&r, TAG_A, 4, &b), -ENOENT);
	assert_true(snap_next(&r, &pos, &b) && b.tag == TAG_A);
	assert_true(snap_next(&r, &pos, &b) && b.tag == TAG_B);
	assert_int_equal(b.flags, SNAP_CRITICAL);
	assert_false(snap_next(&r, &pos, &b));
	free(w.buf);
}

static void every_damage_is_found(void **state)
{
	struct snap_writer w;
	struct snap_reader r;
	struct err e;

	(void)state;
	sample(&w);
	for (size_t len = 0; len < w.len; len++) {
		uint8_t *cut = malloc(len + 1); /* ASan sees any overread */

		memcpy(cut, w.buf, len);
		e.code = 0;
		assert_true(snap_open(&r, cut, len, &e) < 0);
		assert_true(e.code < 0 && *e.text);
		free(cut);
	}
	for (size_t bit = 0; bit < (w.len - 8) * 8; bit++) {
		size_t at = bit / 8;
		int rc;

		if (at >= 12 && at < 16)
			continue; /* header flags: reserved, not checked */
		w.buf[at] ^= 1 << bit % 8;
		rc = snap_open(&r, w.buf, w.len, NULL);
		/* The only bytes without a checksum are padding. */
		if (!rc) {
			struct snap_body b;
			size_t pos = 0;

			while (snap_next(&r, &pos, &b))
				assert_false(w.buf + at >= b.p - 32 &&
					     w.buf + at < b.end);
		}
		w.buf[at] ^= 1 << bit % 8;
	}
	free(w.buf);
}

static void oversized_body_is_refused(void **state)
{
	struct snap_writer w;
	char *big = calloc(1, SNAP_BODY_MAX + 1);

	(void)state;
	snap_begin(&w);
	snap_record(&w, TAG_A, 0, 1, 0);
	snap_bytes(&w, big, SNAP_BODY_MAX + 1);
	assert_int_equal(snap_finish(&w), -EFBIG);
	assert_null(w.buf);
	free(big);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(crc_known_answer),
		cmocka_unit_test(round_trip),
		cmocka_unit_test(every_damage_is_found),
		cmocka_unit_test(oversized_body_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
