#include "test.h"

#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/opt.h"

static const char *const cache_names[] = { "none", "writeback", "unsafe",
					   NULL };

struct cfg {
	char *path, *serial;
	bool ro;
	uint64_t size, queues;
	int cache;
};

static const struct opt_desc table[] = {
	OPT_STR(struct cfg, path, "path", "FILE", "image or device"),
	OPT_STR(struct cfg, serial, "serial", "TEXT", "what get-id returns"),
	OPT_BOOL(struct cfg, ro, "readonly", "refuse writes"),
	OPT_SIZE(struct cfg, size, "size", 512, 1ull << 40, "limit"),
	OPT_UINT(struct cfg, queues, "queues", 1, 16, "request queues"),
	OPT_ENUM(struct cfg, cache, "cache", "MODE", cache_names, "host cache"),
	{ 0 },
};

static void accepts(const char *text, struct cfg *c)
{
	struct err e = { 0 };

	*c = (struct cfg){ .queues = 1 };
	if (opt_parse(table, c, text, &e))
		fail_msg("%s: %s", text, e.text);
}

/* Refused with a sentence that has @words in it. */
static void refuses(const char *text, const char *words)
{
	struct cfg c = { 0 };
	struct err e = { 0 };

	assert_true(opt_parse(table, &c, text, &e) < 0);
	if (!strstr(e.text, words))
		fail_msg("'%s' said '%s', not '%s'", text, e.text, words);
	opt_free(table, &c);
}

static void good_options(void **state)
{
	struct cfg c;

	(void)state;
	accepts("disk.img,readonly,queues=4,cache=unsafe,size=1.5K", &c);
	assert_string_equal(c.path, "disk.img");
	assert_true(c.ro);
	assert_int_equal(c.queues, 4);
	assert_int_equal(c.cache, 2);
	assert_int_equal(c.size, 1536);
	opt_free(table, &c);
	accepts("/odd/a=b,,c", &c);
	assert_string_equal(c.path, "/odd/a=b,c");
	opt_free(table, &c);
	accepts("path=x,serial=a=b,readonly=off", &c);
	assert_string_equal(c.serial, "a=b");
	assert_false(c.ro);
	opt_free(table, &c);
	accepts("", &c);
	accepts(NULL, &c);
	accepts("readonly", &c);
	assert_true(c.ro && !c.path);
	accepts("size=2GiB", &c);
	assert_true(c.size == 2ull << 30);
}

static void bad_options(void **state)
{
	(void)state;
	refuses("x,redonly", "did you mean readonly?");
	refuses("x,cache=writebak", "did you mean writeback?");
	refuses("x,cache=nnoe", "did you mean none?");
	refuses("x,cache=zzz", "none, writeback, unsafe");
	refuses("x,zzzzzz=1", "unknown option 'zzzzzz'");
	refuses("x,path=y", "given twice");
	refuses("x,queues=0", "not within 1 to 16");
	refuses("x,queues=4x", "not a number");
	refuses("x,queues=-1", "not a number");
	refuses("x,queues", "needs a value");
	refuses("x,size=1", "not within 512 to 1T");
	refuses("x,size=inf", "not a size");
	refuses("x,size=4Q", "not a size");
	refuses("x,size=0x10", "not a size");
	refuses("x,size=", "not a size");
	refuses("x,readonly=maybe", "neither on nor off");
	refuses("x,,,y", "unknown option");
}

static void help_names_every_key(void **state)
{
	char buf[1024];

	(void)state;
	assert_true(opt_help(table, buf, sizeof(buf)) < (int)sizeof(buf));
	for (const struct opt_desc *d = table; d->key; d++)
		assert_non_null(strstr(buf, d->key));
	assert_non_null(strstr(buf, "cache=none|writeback|unsafe"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(good_options),
		cmocka_unit_test(bad_options),
		cmocka_unit_test(help_names_every_key),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
