/* The user's words win. */
#include "test.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "machine/board.h"
#include "machine/cmdline.h"

static char *build(const char *user, const char *extra, bool bare, bool quiet)
{
	struct cmdline_config c = { user, extra, bare, quiet, 2047 };
	struct err e = { 0 };
	char *s;

	assert_int_equal(cmdline_build(&s, &c, &e), 0);
	return s;
}

static bool has(const char *line, const char *word)
{
	size_t n = strlen(word);

	for (const char *p = line; (p = strstr(p, word)); p += n)
		if ((p == line || p[-1] == ' ') && (!p[n] || p[n] == ' '))
			return true;
	return false;
}

static void defaults(void **state)
{
	char *s = build(NULL, NULL, false, true);

	(void)state;
	print_message("%s\n", s);
	for (unsigned i = 0; board_default_word(i); i++) {
		assert_true(has(s, board_default_word(i)->word));
		assert_true(strlen(board_default_word(i)->why) > 20);
	}
	free(s);
	s = build(NULL, NULL, true, false);
	assert_string_equal(s, "");
	free(s);
}

static void user_wins(void **state)
{
	static const struct {
		const char *user, *gone;
	} t[] = {
		{ "console=ttyS0", "console=hvc0" },
		{ "panic=5", "panic=-1" },
		{ "cryptomgr.notests=0", "cryptomgr.notests" },
		{ "clocksource=tsc", "tsc=reliable" },
		{ "tsc=unstable", "tsc=reliable" },
		{ "8250.nr_uarts=4", "8250.nr_uarts=1" },
		{ "loglevel=8", "quiet" },
		{ "debug", "quiet" },
		{ "reboot=panic_cold", "reboot=panic_warm" },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
		char *s = build(t[i].user, NULL, false, true);

		assert_false(has(s, t[i].gone));
		free(s);
	}
}

static void user_is_kept(void **state)
{
	/* Words that only look alike displace nothing. */
	char *s = build("panic_on_warn=1 consoleblank=0 reboot=k debugfs=off "
			"x=\"a  b\" -- panic=7 console=tty",
			NULL, false, true);

	(void)state;
	assert_true(has(s, "panic=-1"));
	assert_true(has(s, "console=hvc0"));
	assert_true(has(s, "reboot=panic_warm"));
	assert_true(has(s, "quiet"));
	assert_non_null(strstr(s, "reboot=k debugfs=off x=\"a  b\" -- panic=7 "
				  "console=tty"));
	assert_true(strstr(s, "panic=-1") < strstr(s, "panic_on_warn"));
	free(s);
}

static void extra_words(void **state)
{
	char *s = build("root=/dev/vdb ro", "root=/dev/vda rw init=/x", false,
			false);

	(void)state;
	assert_false(has(s, "root=/dev/vda"));
	assert_true(has(s, "rw"));
	assert_true(has(s, "init=/x"));
	assert_true(has(s, "root=/dev/vdb"));
	free(s);
}

static void too_long(void **state)
{
	char user[2100];
	struct cmdline_config c = { .user = user, .max = 2047 };
	struct err e = { 0 };
	char *s = NULL;

	(void)state;
	memset(user, 'x', sizeof(user));
	user[2047] = 0;
	assert_int_equal(cmdline_build(&s, &c, &e), -E2BIG);
	print_message("%s\n", e.text);
	assert_non_null(strstr(e.text, "2047"));
	assert_null(s);
	c.no_defaults = true;
	assert_int_equal(cmdline_build(&s, &c, &e), 0);
	assert_int_equal(strlen(s), 2047);
	free(s);
	user[2047] = 'x';
	user[2048] = 0;
	assert_int_equal(cmdline_build(&s, &c, &e), -E2BIG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults),	cmocka_unit_test(user_wins),
		cmocka_unit_test(user_is_kept), cmocka_unit_test(extra_words),
		cmocka_unit_test(too_long),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
