/* What every test program includes: cmocka with its prerequisites. */
#ifndef ARC_TESTS_TEST_H
#define ARC_TESTS_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

/* A skipped case is counted and says why. */
#define skip_because(...)                       \
	do {                                    \
		printf("SKIP: %s: ", __func__); \
		printf(__VA_ARGS__);            \
		printf("\n");                   \
		fflush(stdout);                 \
		skip();                         \
	} while (0)

#endif
