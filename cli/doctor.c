/* arcvmm doctor: what this host can do, and what to do about the rest. */
#include <stdio.h>

#include "cli/cli.h"

static void print_finding(void *ctx, enum arcvmm_finding_kind kind,
			  const char *subject, const char *text,
			  const char *advice)
{
	static const char *const marks[] = {
		[ARCVMM_FINDING_OK] = "ok     ",
		[ARCVMM_FINDING_NOTE] = "note   ",
		[ARCVMM_FINDING_PROBLEM] = "problem",
	};

	(void)ctx;
	printf("%s  %-12s %s\n", marks[kind], subject, text);
	if (advice)
		printf("%23s-> %s\n", "", advice);
}

static int run_doctor(int argc, char **argv)
{
	int problems;

	if (argc > 1)
		return complain("doctor: unexpected '%s'", argv[1]);
	problems = arcvmm_doctor(print_finding, NULL);
	return problems ? 1 : 0;
}

const struct verb verb_doctor = {
	.name = "doctor",
	.args = "",
	.summary = "look at this host and say what to do (exit status 1: "
		   "something will not work)",
	.run = run_doctor,
};
