/* SHA-256 against the examples of FIPS 180-4, in pieces of every size. */
#include "test.h"

#include <stdlib.h>
#include <string.h>

#include "base/sha256.h"
#include "base/util.h"

static void expect(const char *text, size_t times, size_t step,
		   const char *want)
{
	size_t len = strlen(text);
	uint8_t sum[SHA256_SIZE];
	char hex[2 * SHA256_SIZE + 1];
	struct sha256 s;

	sha256_init(&s);
	for (size_t i = 0; i < times; i++)
		for (size_t at = 0; at < len; at += step)
			sha256_add(&s, text + at, min_of(step, len - at));
	sha256_end(&s, sum);
	sha256_hex(sum, hex);
	assert_string_equal(hex, want);
}

static void examples(void **state)
{
	(void)state;
	expect("", 1, 1,
	       "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b85"
	       "5");
	for (size_t step = 1; step < 70; step++) {
		expect("abc", 1, step,
		       "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff6"
		       "1"
		       "f20015ad");
		expect("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnop"
		       "q",
		       1, step,
		       "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd"
		       "4"
		       "19db06c1");
	}
	expect("aaaaaaaaaa", 100000, 10,
	       "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd"
	       "0");
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(examples) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
