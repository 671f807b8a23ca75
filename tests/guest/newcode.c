/*
 * Code that changes: newcode [ROUNDS]
 *
 * Of itself, a few bytes ahead; through another mapping of the same page;
 * across a page end; by mprotect, munmap and fork; and by one thread while
 * others run it: an immediate replaced in one store, and whole instructions
 * replaced as the kernel does it, with INT3 first and the cores serialised
 * by membarrier(). What runs must be the code that is there: the old or the new
 * while a change is under way, the new once its writer has said so and the
 * reader has serialised (SDM vol. 3, 8.1.3).
 */
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "check.h"

#define PAGE	    4096
#define MAX_THREADS 8

/* linux/membarrier.h, which musl's folder does not have */
#define SYNC_CORE	   (1 << 5)
#define REGISTER_SYNC_CORE (1 << 6)

static unsigned rounds = 20;

static void serialize(void)
{
	uint32_t a = 0, b, c = 0, d;

	__asm__ volatile("cpuid"
			 : "+a"(a), "=b"(b), "+c"(c), "=d"(d)
			 :
			 : "memory");
}

static void *map(size_t size, int prot, int fd)
{
	void *p =
		mmap(NULL, size, prot,
		     fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED, fd, 0);

	must(p != MAP_FAILED, "mmap");
	return p;
}

/* mov $value, %eax; ret, with the value at a multiple of four. */
#define VALUE_AT 4
static void put_function(uint8_t *at, uint32_t value)
{
	static const uint8_t code[] = {
		0x90, 0x90, 0x90, 0xb8, 0, 0, 0, 0, 0xc3
	};

	memcpy(at, code, sizeof(code));
	memcpy(at + VALUE_AT, &value, 4);
}

static uint32_t call(const void *at)
{
	uint32_t v;

	__asm__ volatile("call *%1" : "=a"(v) : "r"(at) : "memory", "cc");
	return v;
}

static void report(const char *name, uint64_t n, uint64_t bad)
{
	check(!bad, name, "%llu changes, %llu times the wrong code",
	      (unsigned long long)n, (unsigned long long)bad);
}

/* ---- one thread ---- */

static void by_store(void)
{
	uint8_t *p = map(PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, -1);
	uint64_t bad = 0, n = rounds * 2000;

	put_function(p, 0);
	for (uint64_t i = 0; i < n; i++) {
		uint32_t v = (uint32_t)(i * 0x9e3779b1);

		memcpy(p + VALUE_AT, &v, 4);
		bad += call(p) != v;
	}
	report("a function rewritten before each call", n, bad);
	munmap(p, PAGE);
}

/* mov %esi, N(%rip): into the immediate of the very next instruction. */
static void next_instruction(void)
{
	static const uint8_t code[] = {
		0x89, 0x35, 1, 0, 0, 0, /* mov %esi, the immediate */
		0xb8, 0,    0, 0, 0, /* mov $0, %eax */
		0xc3,
	};
	uint8_t *p = map(2 * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, -1);
	uint64_t bad = 0, n = rounds * 500;
	/* within a page, and with the instruction across its end */
	const unsigned at[] = { 64, PAGE - 9, PAGE - 6, PAGE - 3 };

	for (unsigned k = 0; k < 4; k++) {
		memcpy(p + at[k], code, sizeof(code));
		for (uint64_t i = 0; i < n; i++) {
			uint32_t v = (uint32_t)(i * 0x85ebca6b + k), got;

			__asm__ volatile("call *%1"
					 : "=a"(got)
					 : "r"(p + at[k]), "S"(v)
					 : "memory", "cc");
			bad += got != v;
		}
	}
	report("the next instruction rewritten", 4 * n, bad);
	munmap(p, 2 * PAGE);
}

/* A loop that turns its own INC into DEC and back, half way. */
static void own_loop(void)
{
	static const uint8_t code[] = {
		0x31, 0xc0, /*		xor %eax, %eax */
		0xff, 0xc0, /* 2:	inc %eax, or c8: dec */
		0x83, 0xf9, 50, /*	cmp $50, %ecx */
		0x75, 7, /*		jne over */
		0xc6, 0x05, 0xf3, 0xff, 0xff, 0xff, 0xc8, /* movb $c8, 3 */
		0xe2, 0xf0, /* over:	loop 2 */
		0xc6, 0x05, 0xea, 0xff, 0xff, 0xff, 0xc0, /* movb $c0, 3 */
		0xc3,
	};
	uint8_t *p = map(PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, -1);
	uint64_t bad = 0, n = rounds * 100;

	memcpy(p, code, sizeof(code));
	for (uint64_t i = 0; i < n; i++) {
		uint64_t count = 100;
		uint32_t got;

		__asm__ volatile("call *%2"
				 : "=a"(got), "+c"(count)
				 : "r"(p)
				 : "memory", "cc");
		/* 51 up (100 .. 50), 49 down */
		bad += got != 2;
	}
	report("a loop that changes its own body", 2 * n, bad);
	munmap(p, PAGE);
}

static void by_alias(void)
{
	int fd = memfd_create("code", 0);
	uint64_t bad = 0, n = rounds * 1000;
	uint8_t *w, *x[3];

	must(fd >= 0 && !ftruncate(fd, PAGE), "memfd");
	w = map(PAGE, PROT_READ | PROT_WRITE, fd);
	for (int k = 0; k < 3; k++)
		x[k] = map(PAGE, PROT_READ | PROT_EXEC, fd);
	put_function(w + 128, 0);
	for (uint64_t i = 0; i < n; i++) {
		uint32_t v = (uint32_t)(i * 0xc2b2ae35);

		memcpy(w + 128 + VALUE_AT, &v, 4);
		serialize();
		bad += call(x[i % 3] + 128) != v;
	}
	/* by the kernel's hand */
	for (uint64_t i = 0; i < n / 10; i++) {
		uint32_t v = (uint32_t)(i * 0x27d4eb2f);

		must(pwrite(fd, &v, 4, 128 + VALUE_AT) == 4, "pwrite");
		bad += call(x[i % 3] + 128) != v;
	}
	report("through another mapping, and by pwrite()", n + n / 10, bad);
	for (int k = 0; k < 3; k++)
		munmap(x[k], PAGE);
	munmap(w, PAGE);
	close(fd);
}

static void by_mappings(void)
{
	uint64_t bad = 0, n = rounds * 50;
	uint8_t *p = map(PAGE, PROT_READ | PROT_WRITE, -1), *q;

	for (uint64_t i = 0; i < n; i++) {
		must(!mprotect(p, PAGE, PROT_READ | PROT_WRITE), "mprotect");
		put_function(p, (uint32_t)i);
		must(!mprotect(p, PAGE, PROT_READ | PROT_EXEC), "mprotect");
		bad += call(p) != (uint32_t)i;
	}
	report("by mprotect", n, bad);
	bad = 0;
	for (uint64_t i = 0; i < n; i++) {
		must(!munmap(p, PAGE), "munmap");
		q = mmap(p, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		must(q == p, "mmap");
		put_function(p, (uint32_t)i);
		bad += call(p) != (uint32_t)i;
	}
	report("another page at the same address", n, bad);
	bad = 0;
	n = rounds;
	put_function(p, 7);
	for (uint64_t i = 0; i < n; i++) {
		int status;
		pid_t pid = fork();

		if (!pid) {
			uint32_t v = 77;

			if (call(p) != 7)
				_exit(1);
			memcpy(p + VALUE_AT, &v, 4);
			_exit(call(p) != 77);
		}
		must(waitpid(pid, &status, 0) == pid, "fork");
		bad += status || call(p) != 7;
	}
	report("a child's own copy after fork", n, bad);
	munmap(p, PAGE);
}

/* ---- several threads ---- */

static struct {
	uint8_t *code, *alias;
	uint32_t said; /* the value that is there for sure */
	uint32_t writing; /* the highest that may be */
	bool end;
	uint64_t bad, calls;
} shared;

static void *executor(void *arg)
{
	bool careful = arg; /* asks what is said, and serialises */
	uint64_t bad = 0;
	uint32_t last = 0;

	while (!__atomic_load_n(&shared.end, __ATOMIC_ACQUIRE)) {
		uint32_t low = 0, v, high;

		if (careful) {
			low = __atomic_load_n(&shared.said, __ATOMIC_ACQUIRE);
			serialize();
		}
		v = call(shared.code);
		high = __atomic_load_n(&shared.writing, __ATOMIC_ACQUIRE);
		if (v < low || v > high || v < last)
			bad++;
		last = v;
		__atomic_fetch_add(&shared.calls, 1, __ATOMIC_RELAXED);
	}
	__atomic_fetch_add(&shared.bad, bad, __ATOMIC_RELAXED);
	return NULL;
}

/* Until the executors went on: a change that nobody runs proves nothing. */
static void wait_for_calls(void)
{
	static const struct timespec moment = { 0, 1000 };
	uint64_t before = __atomic_load_n(&shared.calls, __ATOMIC_RELAXED);
	unsigned n = 0;

	while (__atomic_load_n(&shared.calls, __ATOMIC_RELAXED) < before + 4)
		if (++n % 1024 == 0)
			nanosleep(&moment, NULL);
}

static void immediates(unsigned threads, unsigned at, bool through_alias)
{
	pthread_t t[MAX_THREADS];
	int fd = memfd_create("code", 0);
	uint64_t n = rounds * 500;
	uint8_t *both;
	char name[80];

	must(fd >= 0 && !ftruncate(fd, 2 * PAGE), "memfd");
	both = map(2 * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, fd);
	memset(&shared, 0, sizeof(shared));
	shared.code = both + at;
	shared.alias =
		through_alias
			? (uint8_t *)map(2 * PAGE, PROT_READ | PROT_WRITE, fd) +
				  at
			: shared.code;
	put_function(shared.alias, 0);
	for (unsigned i = 0; i < threads; i++)
		must(!pthread_create(&t[i], NULL, executor,
				     (void *)(uintptr_t)(i & 1)),
		     "pthread_create");
	for (uint32_t v = 1; v <= n; v++) {
		__atomic_store_n(&shared.writing, v, __ATOMIC_RELEASE);
		__atomic_store_n((uint32_t *)(void *)(shared.alias + VALUE_AT),
				 v, __ATOMIC_RELEASE);
		__atomic_store_n(&shared.said, v, __ATOMIC_RELEASE);
		if (v % 16 == 0)
			wait_for_calls();
	}
	__atomic_store_n(&shared.end, true, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < threads; i++)
		pthread_join(t[i], NULL);
	snprintf(name, sizeof(name), "an immediate%s%s, %u threads call",
		 through_alias ? " through an alias" : "",
		 at > PAGE / 2 ? ", across a page" : "", threads);
	check(!shared.bad && shared.calls, name,
	      "%llu changes, %llu calls, %llu times the wrong code",
	      (unsigned long long)n, (unsigned long long)shared.calls,
	      (unsigned long long)shared.bad);
	munmap(both, 2 * PAGE);
	if (through_alias)
		munmap(shared.alias - at, 2 * PAGE);
	close(fd);
}

/* What the function at shared.code may return; INT3 takes another turn. */
static void trapped(int sig, siginfo_t *info, void *context)
{
	ucontext_t *u = context;

	(void)sig;
	(void)info;
	if (u->uc_mcontext.gregs[REG_RIP] - 1 != (greg_t)(uintptr_t)shared.code)
		abort();
	u->uc_mcontext.gregs[REG_RIP]--;
}

static void *patched(void *arg)
{
	uint64_t bad = 0;

	(void)arg;
	while (!__atomic_load_n(&shared.end, __ATOMIC_ACQUIRE)) {
		uint32_t v = call(shared.code);

		bad += v != 0x11111111 && v != 0x22;
		__atomic_fetch_add(&shared.calls, 1, __ATOMIC_RELAXED);
	}
	__atomic_fetch_add(&shared.bad, bad, __ATOMIC_RELAXED);
	return NULL;
}

static bool sync_cores(void)
{
	return !syscall(SYS_membarrier, SYNC_CORE, 0, 0);
}

/* As text_poke_bp() of Linux does it. */
static void poke(const uint8_t *to)
{
	__atomic_store_n(shared.alias, 0xcc, __ATOMIC_RELEASE);
	must(sync_cores(), "membarrier");
	memcpy(shared.alias + 1, to + 1, 5);
	must(sync_cores(), "membarrier");
	__atomic_store_n(shared.alias, to[0], __ATOMIC_RELEASE);
	must(sync_cores(), "membarrier");
}

static void instructions(unsigned threads)
{
	/* mov $0x11111111, %eax; ret  and  push $0x22; pop %rax; ret */
	static const uint8_t code[2][6] = {
		{ 0xb8, 0x11, 0x11, 0x11, 0x11, 0xc3 },
		{ 0x6a, 0x22, 0x58, 0xc3, 0xcc, 0xcc },
	};
	struct sigaction sa = { .sa_sigaction = trapped,
				.sa_flags = SA_SIGINFO };
	pthread_t t[MAX_THREADS];
	int fd = memfd_create("code", 0);
	uint64_t n = rounds * 20;

	must(!syscall(SYS_membarrier, REGISTER_SYNC_CORE, 0, 0), "membarrier");
	must(fd >= 0 && !ftruncate(fd, PAGE), "memfd");
	memset(&shared, 0, sizeof(shared));
	shared.code = map(PAGE, PROT_READ | PROT_EXEC, fd);
	shared.alias = map(PAGE, PROT_READ | PROT_WRITE, fd);
	memcpy(shared.alias, code[0], 6);
	sigaction(SIGTRAP, &sa, NULL);
	for (unsigned i = 0; i < threads; i++)
		must(!pthread_create(&t[i], NULL, patched, NULL),
		     "pthread_create");
	for (uint64_t i = 0; i < n; i++) {
		poke(code[(i + 1) & 1]);
		wait_for_calls();
	}
	__atomic_store_n(&shared.end, true, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < threads; i++)
		pthread_join(t[i], NULL);
	check(!shared.bad && shared.calls,
	      "whole instructions by INT3 and membarrier()",
	      "%llu changes, %llu calls, %llu times the wrong code",
	      (unsigned long long)n, (unsigned long long)shared.calls,
	      (unsigned long long)shared.bad);
	munmap(shared.code, PAGE);
	munmap(shared.alias, PAGE);
	close(fd);
}

int main(int argc, char **argv)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned threads = cpus < 3		? 2
			   : cpus > MAX_THREADS ? MAX_THREADS
						: (unsigned)cpus - 1;

	if (argc > 1)
		rounds = (unsigned)atoi(argv[1]);
	printf("newcode: %ld CPUs, %u rounds\n", cpus, rounds);
	by_store();
	next_instruction();
	own_loop();
	by_alias();
	by_mappings();
	immediates(threads, 64, false);
	immediates(threads, 64, true);
	/* the immediate ends the first page: the RET is in the second */
	immediates(threads, PAGE - 8, true);
	instructions(threads);
	return check_end("newcode");
}
