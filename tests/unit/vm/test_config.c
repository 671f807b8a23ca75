/* Configuration keys: the vocabulary, and what is refused. */
#include "test.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "arcvmm/arcvmm.h"

static void refuses(const char *key, const char *value, int code,
		    const char *words)
{
	struct arcvmm_config *c = arcvmm_config_new();
	struct arcvmm_error e = { 0 };

	assert_int_equal(arcvmm_config_set(c, key, value, &e), code);
	assert_int_equal(e.code, code);
	if (!strstr(e.text, words))
		fail_msg("%s=%s said: %s", key, value, e.text);
	arcvmm_config_free(c);
}

static void takes(const char *key, const char *value)
{
	struct arcvmm_config *c = arcvmm_config_new();
	struct arcvmm_error e = { 0 };

	if (arcvmm_config_set(c, key, value, &e))
		fail_msg("%s=%s: %s", key, value, e.text);
	assert_int_equal(e.code, 0);
	assert_string_equal(e.text, "");
	arcvmm_config_free(c);
}

static void keys_are_described(void **state)
{
	const struct arcvmm_key *k;
	unsigned n = 0;

	(void)state;
	for (; (k = arcvmm_config_key(n)); n++) {
		assert_non_null(k->name);
		assert_true(*k->help && k->group && *k->group);
		if (!k->arg) { /* a switch */
			takes(k->name, "on");
			takes(k->name, "off");
			refuses(k->name, "maybe", -EINVAL, k->name);
		}
	}
	assert_true(n > 20);
}

static void values(void **state)
{
	(void)state;
	takes("mem", "1.5G");
	takes("mem", "16M");
	takes("cpus", "255");
	takes("engine", "soft");
	takes("cpu-model", "base");
	takes("console", "unix:/tmp/x");
	takes("env", "A=");
	refuses("mem", "15M", -ERANGE, "16M");
	refuses("mem", "-1", -EINVAL, "not a size");
	refuses("mem", "", -EINVAL, "not a size");
	refuses("cpus", "256", -ERANGE, "1 to 255");
	refuses("cpus", "0", -ERANGE, "1 to 255");
	refuses("cpus", "99999999999999999999", -EINVAL, "not a number");
	refuses("engine", "sotf", -EINVAL, "did you mean soft");
	refuses("console", "file:", -EINVAL, "file:PATH");
	refuses("env", "=x", -EINVAL, "NAME=VALUE");
	refuses("kernell", "x", -ENOENT, "did you mean 'kernel'");
	refuses("", "x", -ENOENT, "unknown");
}

static void commands(void **state)
{
	const char *good[] = { "echo", "a b", "", NULL };
	const char *none[] = { NULL }, *empty[] = { "", NULL };
	struct arcvmm_config *c = arcvmm_config_new();

	(void)state;
	assert_int_equal(arcvmm_config_command(c, good), 0);
	assert_int_equal(arcvmm_config_command(c, none), -EINVAL);
	assert_int_equal(arcvmm_config_command(c, empty), -EINVAL);
	assert_int_equal(arcvmm_config_command(c, NULL), 0);
	arcvmm_config_free(c);
	arcvmm_config_free(NULL);
}

static void words_of_the_command_line(void **state)
{
	const char *word, *why;
	unsigned n = 0;

	(void)state;
	for (; (word = arcvmm_cmdline_word(n, &why)); n++)
		assert_true(*word && why && *why);
	assert_true(n > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keys_are_described),
		cmocka_unit_test(values),
		cmocka_unit_test(commands),
		cmocka_unit_test(words_of_the_command_line),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
