/*
 * What a CPU does in a second: the same static program is run natively and in
 * guests, and prints "name value unit" lines. Each figure is the best of three
 * runs of a quarter of a second, so that a busy host disturbs little.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SLICE_NS 250000000ull
#define ROUNDS	 3

static uint64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* Each does a batch of work and returns how many units that was. */

/* Six instructions a turn, dependent on each other. */
static double integer(void)
{
	uint64_t a = 1, n = 2000000;

	__asm__ volatile("1: imul $3, %0, %0\n\tadd $7, %0\n\trol $5, %0\n\t"
			 "xor %1, %0\n\tdec %1\n\tjnz 1b"
			 : "+r"(a), "+r"(n)
			 :
			 : "cc");
	return 6 * 2000000.0;
}

static double branches(void)
{
	static volatile uint32_t sink;
	uint32_t x = 12345, odd = 0;

	for (int i = 0; i < 500000; i++) {
		x = x * 1664525 + 1013904223;
		if (x & 0x10000)
			odd++;
		else
			odd ^= x;
	}
	sink = odd;
	return 500000;
}

static char from[1 << 20], to[1 << 20];

static double copy(void)
{
	memcpy(to, from, sizeof(to));
	__asm__ volatile("" : : "r"(to) : "memory"); /* it is looked at */
	return (double)sizeof(to) / (1 << 20);
}

static double chase(void)
{
	static void *ring[4096];
	void **p = ring;

	if (!ring[0])
		for (unsigned i = 0; i < 4096; i++)
			ring[i] = &ring[(i * 1021 + 7) % 4096];
	for (int i = 0; i < 100000; i++)
		p = *p;
	__asm__ volatile("" : : "r"(p));
	return 100000;
}

static double syscalls(void)
{
	for (int i = 0; i < 1000; i++)
		syscall(SYS_getppid);
	return 1000;
}

static double faults(void)
{
	const size_t pages = 1024;
	char *p = mmap(NULL, pages << 12, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		exit(1);
	madvise(p, pages << 12, MADV_NOHUGEPAGE);
	for (size_t i = 0; i < pages; i++)
		p[i << 12] = 1;
	munmap(p, pages << 12);
	return (double)pages;
}

static const char *self;

static double fork_exec(void)
{
	pid_t pid = fork();

	if (!pid) {
		execl(self, self, "nothing", NULL);
		_exit(1);
	}
	waitpid(pid, NULL, 0);
	return 1;
}

static double pipes(void)
{
	static int a[2], b[2];
	char c = 0;

	if (!a[1]) {
		if (pipe(a) || pipe(b))
			exit(1);
		if (!fork()) {
			close(a[1]); /* so that our end is its end */
			while (read(a[0], &c, 1) == 1)
				if (write(b[1], &c, 1) != 1)
					break;
			_exit(0);
		}
	}
	for (int i = 0; i < 100; i++)
		if (write(a[1], &c, 1) != 1 || read(b[0], &c, 1) != 1)
			exit(1);
	return 100;
}

static void measure(const char *name, double (*batch)(void), double scale,
		    const char *unit)
{
	double best = 0;

	batch(); /* first touch is not what is measured */
	for (int r = 0; r < ROUNDS; r++) {
		uint64_t start = now(), end;
		double units = 0, rate;

		do {
			units += batch();
			end = now();
		} while (end - start < SLICE_NS);
		rate = units * 1e9 / (double)(end - start) / scale;
		if (rate > best)
			best = rate;
	}
	printf("%s %.3f %s\n", name, best, unit);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "nothing"))
		return 0;
	self = argv[0];
	measure("integer", integer, 1e6, "M-instructions/s");
	measure("branches", branches, 1e6, "M-turns/s");
	measure("memcpy", copy, 1024, "GiB/s");
	measure("pointer-chase", chase, 1e6, "M-loads/s");
	measure("syscall", syscalls, 1e6, "M/s");
	measure("page-fault", faults, 1e6, "M/s");
	measure("pipe-round-trip", pipes, 1e3, "K/s");
	measure("fork+exec", fork_exec, 1, "1/s");
	return 0;
}
