/*
 * Out of memory at each allocation, one after the other: making a device fails
 * with nothing left behind (the sanitizers count), and running one loses no
 * request and does not crash.
 *
 * Linked with --wrap=malloc,calloc,realloc (tools/mk/check.mk).
 */
#include "test.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/util.h"
#include "virtio/harness.h"

/* Allocations until one fails; negative: none does. */
static long countdown = -1;
static bool failed;

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);

static bool fails(void)
{
	if (countdown < 0 || countdown-- > 0)
		return false;
	failed = true;
	countdown = -1; /* one only: who falls back shall succeed */
	return true;
}

void *__wrap_malloc(size_t n)
{
	return fails() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
	return fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
	return fails() ? NULL : __real_realloc(p, n);
}

static char image[] = "/tmp/arcvmm-oom-XXXXXX";

static const struct {
	const char *type, *options;
} devices[] = {
	{ "rng", "rate=1M" },
	{ "console", "file:/dev/null" },
	{ "console", "pty" },
	{ "blk", "%s,queues=2" },
	{ "blk", "%s,aio=threads,serial=abc" },
};

static int open_device(struct harness *h, unsigned i, struct err *e)
{
	char options[200];

	if (strstr(devices[i].options, "%s"))
		snprintf(options, sizeof(options), "%s%s", image,
			 devices[i].options + 2);
	else
		snprintf(options, sizeof(options), "%s", devices[i].options);
	return harness_open(h, devices[i].type, options, NULL, NULL, e);
}

static void making(void **state)
{
	(void)state;
	for (unsigned i = 0; i < array_size(devices); i++) {
		unsigned refusals = 0;

		for (long n = 0;; n++) {
			struct err e = { 0 };
			struct harness h;
			int rc;

			failed = false;
			countdown = n;
			rc = open_device(&h, i, &e);
			countdown = -1;
			harness_close(&h);
			if (!failed)
				break;
			/* (io_uring may do without, by threads.) */
			if (rc)
				refusals++;
		}
		assert_true(refusals > 2);
	}
}

/* Start, use, reset, end: with the n-th allocation in all that failing. */
static bool life(unsigned i, long n)
{
	struct err e = { 0 };
	struct harness_used u;
	struct harness_buf b[3];
	struct harness h;
	uint8_t *p;

	assert_int_equal(open_device(&h, i, &e), 0);
	harness_negotiate(&h, ~0ull);
	for (unsigned q = 0; q < 4; q++)
		harness_queue(&h, q, 0);
	failed = false;
	countdown = n;
	harness_driver_ok(&h);
	b[0] = (struct harness_buf){ harness_alloc(&h, 16), 16, false };
	b[1] = (struct harness_buf){ harness_alloc(&h, 8192), 8192, true };
	b[2] = (struct harness_buf){ harness_alloc(&h, 1), 1, true };
	p = harness_ptr(&h, b[0].at, 16);
	memset(p, 0, 16);
	if (!strcmp(devices[i].type, "blk"))
		harness_post(&h, 0, b, 3);
	else if (!strcmp(devices[i].type, "rng"))
		harness_post(&h, 0, b + 1, 1);
	else
		harness_post(&h, 1, b, 1);
	for (unsigned q = 0; q < 2; q++)
		harness_force_kick(&h, q);
	if (!harness_wait_used(&h, !strcmp(devices[i].type, "console"), &u,
			       100))
		/* Then it has said so. */
		assert_true(harness_reg(&h, REG_STATUS) & VIRTIO_S_NEEDS_RESET);
	assert_true(harness_reset(&h));
	countdown = -1;
	harness_close(&h);
	return failed;
}

static void living(void **state)
{
	(void)state;
	for (unsigned i = 0; i < array_size(devices); i++)
		for (long n = 0; life(i, n); n++)
			assert_in_range(n, 0, 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(making),
		cmocka_unit_test(living),
	};
	int fd = mkstemp(image), rc;

	if (fd < 0 || ftruncate(fd, 65536) < 0)
		return 1;
	rc = cmocka_run_group_tests(tests, NULL, NULL);
	close(fd);
	unlink(image);
	return rc;
}
