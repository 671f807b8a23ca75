/* The guest's configuration, as the guest reads it. */
#include "test.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "../../../guest/config.c"

static struct config c;
static int line;

static int parse(const char *text)
{
	return config_parse(&c, strdup(text), strlen(text), &line);
}

static int teardown(void **state)
{
	(void)state;
	config_free(&c);
	return 0;
}

static void test_all_keys(void **state)
{
	(void)state;
	assert_int_equal(parse("arcvmm 1\n"
			       "console hvc0\n"
			       "hostname h\n"
			       "root label=x%20y\n"
			       "root-type ext4\n"
			       "root-flags noatime\n"
			       "root-readonly\n"
			       "root-overlay\n"
			       "mount tmpfs%20x%2520%20/y\n"
			       "module a b c\n"
			       "module b\n"
			       "load a\n"
			       "env A=b%0Ac\n"
			       "cwd /\n"
			       "user 1:2\n"
			       "limit 7 5 18446744073709551615\n"
			       "limit 0 1 2\n"
			       "limit 7 6 8\n"
			       "arg a%20b%FF%25\n"
			       "arg \n"
			       "serve\n"
			       "status\n"
			       "agent 1023\n"),
			 0);
	assert_string_equal(c.console, "hvc0");
	assert_string_equal(c.hostname, "h");
	assert_string_equal(c.root, "label=x y");
	assert_string_equal(c.root_type, "ext4");
	assert_string_equal(c.root_flags, "noatime");
	assert_true(c.root_readonly && c.root_overlay && c.serve && c.status);
	assert_string_equal(c.mounts[0], "tmpfs x%20 /y"); /* words, later */
	assert_int_equal(c.module_count, 2);
	assert_string_equal(c.modules[0].name, "a");
	assert_string_equal(c.modules[0].deps, "b c");
	assert_string_equal(c.modules[1].deps, "");
	assert_string_equal(c.loads[0], "a");
	assert_null(c.loads[1]);
	assert_string_equal(c.env[0], "A=b\nc");
	assert_string_equal(c.argv[0], "a b\377%");
	assert_string_equal(c.argv[1], "");
	assert_null(c.argv[2]);
	assert_int_equal(c.agent_port, 1023);
	assert_int_equal(c.limits.n, 2);
	assert_int_equal(c.limits.v[0].resource, 7);
	assert_int_equal(c.limits.v[0].value.rlim_cur, 6);
	assert_int_equal(c.limits.v[0].value.rlim_max, 8);
	assert_int_equal(c.limits.v[1].value.rlim_max, 2);
}

static void test_many_words(void **state)
{
	char *text = malloc(100000), *p = text;

	(void)state;
	p += sprintf(p, "arcvmm 1\n");
	for (int i = 0; i < 5000; i++)
		p += sprintf(p, "arg %d\n", i);
	assert_int_equal(config_parse(&c, text, (size_t)(p - text), &line), 0);
	for (int i = 0; i < 5000; i++)
		assert_int_equal(atoi(c.argv[i]), i);
	assert_null(c.argv[5000]);
}

static void test_bad(void **state)
{
	static const struct {
		const char *text;
		int ret, line;
	} bad[] = {
		{ "", -EINVAL, 1 },
		{ "arcvmm 2\n", -EPROTO, 1 },
		{ "arcvmm\n", -EPROTO, 1 },
		{ "something else\n", -EINVAL, 1 },
		{ "arcvmm 1", -EINVAL, 1 },
		{ "arcvmm 1\narg a", -EINVAL, 2 }, /* cut short */
		{ "arcvmm 1\ncwd /\nfuture x\n", -EINVAL, 3 },
		{ "arcvmm 1\narg %\n", -EINVAL, 2 },
		{ "arcvmm 1\narg %4\n", -EINVAL, 2 },
		{ "arcvmm 1\narg %zz\n", -EINVAL, 2 },
		{ "arcvmm 1\narg %00\n", -EINVAL, 2 },
		{ "arcvmm 1\nagent x\n", -EINVAL, 2 },
		{ "arcvmm 1\nagent\n", -EINVAL, 2 },
		{ "arcvmm 1\nagent 99999999999\n", -EINVAL, 2 },
		{ "arcvmm 1\nlimit 7 1\n", -EINVAL, 2 },
		{ "arcvmm 1\nlimit 7 1 -2\n", -EINVAL, 2 },
		{ "arcvmm 1\nlimit 16 1 2\n", -EINVAL, 2 },
		{ "arcvmm 1\nlimit 7 1 99999999999999999999\n", -EINVAL, 2 },
		{ "arcvmm 1\nlimit 7 1 2 3\n", -EINVAL, 2 },
		{ "arcvmm 1\nmodule ../x\n", -EINVAL, 2 },
		{ "arcvmm 1\nmodule\n", -EINVAL, 2 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		assert_int_equal(parse(bad[i].text), bad[i].ret);
		assert_int_equal(line, bad[i].line);
		config_free(&c);
	}
	/* A 0 byte inside. */
	{
		char *text = malloc(12);

		memcpy(text, "arcvmm 1\n\0x", 12);
		assert_int_equal(config_parse(&c, text, 11, &line), -EINVAL);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_all_keys, teardown),
		cmocka_unit_test_teardown(test_many_words, teardown),
		cmocka_unit_test_teardown(test_bad, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
