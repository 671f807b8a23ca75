/* What the guest test programs share: counted checks. */
#ifndef ARC_GUEST_CHECK_H
#define ARC_GUEST_CHECK_H

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static unsigned check_passed, check_failed;

/* One result, with what was seen. */
__attribute__((format(printf, 3, 4))) static inline void
check(int good, const char *name, const char *fmt, ...)
{
	va_list ap;

	if (good)
		check_passed++;
	else
		check_failed++;
	printf("  %s %s: ", good ? "ok    " : "FAILED", name);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	fflush(stdout);
}

static inline int check_end(const char *program)
{
	printf("%s: %u passed, %u failed\n", program, check_passed,
	       check_failed);
	fflush(stdout);
	return check_failed || !check_passed;
}

static inline void must(int good, const char *what)
{
	if (good)
		return;
	perror(what);
	exit(2);
}

#endif
