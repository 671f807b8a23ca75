/*
 * A 32-bit program: what a 64-bit kernel and CPU do for those there still are.
 *
 * Segments with a base (TLS entries of the GDT, an LDT), limits that hold, old
 * instructions (BCD, PUSHA, BOUND, INTO), x87, SSE2, 64-bit arithmetic out of
 * 32-bit parts, signals of both kinds, system calls by INT 80 and by SYSENTER,
 * threads, fork and exec, and a walk into 64-bit code and back.
 *
 * Lines that begin with "value" hold what was computed: they must be the same
 * on any CPU.
 */
#include <asm/ldt.h>
#include <elf.h>
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

static uint32_t hash(const void *p, size_t n)
{
	const uint8_t *b = p;
	uint32_t h = 2166136261u;

	while (n--)
		h = (h ^ *b++) * 16777619u;
	return h;
}

/* ---- faults, caught ---- */

static sigjmp_buf back;
static volatile int caught, code;
static void *volatile where;

static void on_fault(int sig, siginfo_t *info, void *context)
{
	(void)context;
	caught = sig;
	code = info->si_code;
	where = info->si_addr;
	siglongjmp(back, 1);
}

/* The signal that @insn raises, 0: none. */
#define FAULT(...)                                    \
	(caught = 0, sigsetjmp(back, 1) ? caught : ({ \
		 __VA_ARGS__;                         \
		 0;                                   \
	 }))

static void faults(void)
{
	static const int sigs[] = { SIGSEGV, SIGFPE, SIGILL, SIGTRAP, SIGBUS };
	struct sigaction sa = { .sa_sigaction = on_fault,
				.sa_flags = SA_SIGINFO | SA_ONSTACK };
	stack_t alt = { .ss_sp = malloc(65536), .ss_size = 65536 };
	int32_t bounds[2] = { 1, 5 };
	int sig;

	must(!sigaltstack(&alt, NULL), "sigaltstack");
	for (unsigned i = 0; i < 5; i++)
		sigaction(sigs[i], &sa, NULL);
	sig = FAULT(*(volatile int *)0x1234 = 1);
	check(sig == SIGSEGV && where == (void *)0x1234 && code == SEGV_MAPERR,
	      "a page fault", "signal %d at %p", sig, where);
	sig = FAULT(__asm__ volatile("idivl %0"
				     :
				     : "r"(0), "a"(1), "d"(0)
				     : "cc"));
	check(sig == SIGFPE && code == FPE_INTDIV, "a division by zero",
	      "signal %d code %d", sig, code);
	sig = FAULT(__asm__ volatile("ud2"));
	check(sig == SIGILL, "ud2", "signal %d", sig);
	sig = FAULT(__asm__ volatile("int3"));
	check(sig == SIGTRAP, "int3", "signal %d", sig);
	sig = FAULT(__asm__ volatile("movb $0x7f, %%al\n\taddb $1, %%al\n\tinto"
				     :
				     :
				     : "eax", "cc"));
	check(sig == SIGSEGV, "into", "signal %d", sig);
	sig = FAULT(__asm__ volatile("bound %0, %1" : : "r"(6), "m"(bounds)));
	check(sig == SIGSEGV, "bound, outside", "signal %d", sig);
	sig = FAULT(__asm__ volatile("bound %0, %1" : : "r"(5), "m"(bounds)));
	check(!sig, "bound, inside", "signal %d", sig);
	sig = FAULT(__asm__ volatile("cli"));
	check(sig == SIGSEGV, "cli", "signal %d", sig);
	sig = FAULT(__asm__ volatile("int $0x41"));
	check(sig == SIGSEGV, "int $0x41", "signal %d", sig);
	sig = FAULT(__asm__ volatile("mov %0, %%ds" : : "r"(0x1234)));
	check(sig == SIGSEGV, "a selector of nothing", "signal %d", sig);
}

/* A handler of the old kind returns by sigreturn, not rt_sigreturn. */
static volatile int old_handler;
static void on_usr1(int sig)
{
	old_handler = sig;
}

struct old_sigaction {
	void (*handler)(int);
	unsigned long mask, flags;
	void (*restorer)(void);
};

static void old_signals(void)
{
	struct old_sigaction sa = { .handler = on_usr1 };
	unsigned before = 0x12345678, after;

	must(!syscall(SYS_sigaction, SIGUSR1, &sa, NULL), "sigaction");
	__asm__ volatile("int $0x80"
			 : "=a"(after)
			 : "a"(SYS_kill), "b"(getpid()), "c"(SIGUSR1),
			   "S"(before)
			 : "memory");
	check(old_handler == SIGUSR1 && !after, "sigaction, sigreturn",
	      "signal %d", old_handler);
}

/* ---- segments ---- */

static void tls_segment(void)
{
	static uint32_t block[4] = { 0x11111111, 0x22222222, 3, 4 };
	struct user_desc d = {
		.entry_number = -1u,
		.base_addr = (uintptr_t)block,
		.limit = sizeof(block) - 1,
		.seg_32bit = 1,
		.useable = 1,
	};
	uint32_t v = 0, old;
	volatile uint32_t last = 0;
	int sig;

	must(!syscall(SYS_set_thread_area, &d), "set_thread_area");
	__asm__ volatile("mov %%fs, %0\n\tmov %2, %%fs\n\tmovl %%fs:4, %1"
			 : "=&r"(old), "=r"(v)
			 : "r"(d.entry_number * 8 + 3));
	check(v == 0x22222222, "FS with the base of a TLS entry", "%x", v);
	sched_yield();
	getppid();
	__asm__ volatile("movl %%fs:0, %0" : "=r"(v));
	check(v == 0x11111111, "FS after system calls", "%x", v);
	sig = FAULT(__asm__ volatile("movl %%fs:16, %0" : "=r"(v)));
	check(sig == SIGSEGV, "beyond its limit", "signal %d", sig);
	sig = FAULT(__asm__ volatile("movl %%fs:13, %0" : "=r"(v)));
	check(sig == SIGSEGV, "across its limit", "signal %d", sig);
	sig = FAULT(__asm__ volatile("movl %%fs:12, %0" : "=r"(v)); last = v);
	check(!sig && last == 4, "at its limit", "signal %d", sig);
	__asm__ volatile("mov %0, %%fs" : : "r"(old));
}

static void ldt_segment(void)
{
	static uint32_t block[1024];
	struct user_desc d = {
		.entry_number = 3,
		.base_addr = (uintptr_t)block,
		.limit = 0xfff,
		.seg_32bit = 1,
		.contents = MODIFY_LDT_CONTENTS_DATA,
	};
	uint32_t v = 0, limit = 0, rights = 0;
	uint16_t sel = 3 * 8 + 7;
	bool zf;
	int sig;

	if (syscall(SYS_modify_ldt, 1, &d, sizeof(d))) {
		check(errno == ENOSYS, "the kernel has no LDTs", "%d", errno);
		return;
	}
	block[5] = 0x55;
	__asm__ volatile("push %%es\n\tmov %1, %%es\n\tmovl %%es:20, %0\n\t"
			 "movl $0x77, %%es:24\n\tpop %%es"
			 : "=r"(v)
			 : "r"((uint32_t)sel)
			 : "memory");
	check(v == 0x55 && block[6] == 0x77, "ES of the LDT", "%x, %x", v,
	      block[6]);
	__asm__ volatile("lsl %2, %1" : "=@ccz"(zf), "=r"(limit) : "r"(sel));
	check(zf && limit == 0xfff, "LSL", "%x", limit);
	__asm__ volatile("lar %2, %1" : "=@ccz"(zf), "=r"(rights) : "r"(sel));
	check(zf && (rights & 0xf000) == 0xf000, "LAR", "%x", rights);
	d.read_exec_only = 1;
	must(!syscall(SYS_modify_ldt, 1, &d, sizeof(d)), "modify_ldt");
	sig = FAULT(__asm__ volatile(
		"push %%es\n\tmov %0, %%es\n\tmovl $0x77, %%es:24\n\tpop %%es"
		:
		: "r"((uint32_t)sel)
		: "memory"));
	check(sig == SIGSEGV, "a write to a read-only segment", "signal %d",
	      sig);
	__asm__ volatile("mov %0, %%es" : : "r"(0x2b));
}

/* ---- arithmetic ---- */

static void bcd(void)
{
	uint32_t h = 0;

	for (uint32_t a = 0; a < 0x10000; a += 7) {
		uint32_t v = a, f;

#define STEP(insn, carry)                                                 \
	__asm__ volatile("addb %%ah, %%al\n\t" insn "\n\tpushf\n\tpop %1" \
			 : "+a"(v), "=r"(f)                               \
			 :                                                \
			 : "cc");                                         \
	h = h * 31 + (v & 0xffff) + ((f & carry) << 17)
		STEP("daa", 1);
		STEP("das", 1);
		STEP("aaa", 1);
		STEP("aas", 1);
		STEP("aam", 0); /* these leave CF undefined */
		STEP("aad", 0);
	}
	printf("value bcd %08x\n", h);
}

static uint64_t mul_by_parts(uint64_t a, uint64_t b)
{
	uint64_t r = 0;

	for (int i = 0; i < 64; i++)
		if (b >> i & 1)
			r += a << i;
	return r;
}

static void wide_math(void)
{
	uint64_t x = 0x123456789abcdef, bad = 0;

	for (unsigned i = 0; i < 20000; i++) {
		uint64_t y, q, r;

		x = x * 6364136223846793005u + 1442695040888963407u;
		y = (x >> 17 | 1) >> (x & 31);
		q = x / y;
		r = x % y;
		bad += mul_by_parts(q, y) + r != x || r >= y;
		bad += (uint64_t)((int64_t)x >> (x & 63)) !=
		       ~(~x >> (x & 63)) * (x >> 63) +
			       (x >> (x & 63)) * !(x >> 63);
		bad += (uint64_t)(double)(x >> 11) != x >> 11;
	}
	check(!bad, "64-bit products, quotients, shifts, conversions",
	      "%llu wrong", (unsigned long long)bad);
}

static void pusha(void)
{
	uint32_t in[8] = { 1, 2, 3, 4, 5, 6, 7, 8 }, out[8];

	__asm__ volatile("pusha\n\t"
			 "mov %%esp, %%ebp\n\t" /* kept by the first PUSHA */
			 "mov %0, %%esi\n\tmov %1, %%edi\n\t"
			 "push %%ebp\n\tpush %%edi\n\t"
			 "movl (%%esi), %%eax\n\tmovl 4(%%esi), %%ecx\n\t"
			 "movl 8(%%esi), %%edx\n\tmovl 12(%%esi), %%ebx\n\t"
			 "pusha\n\tmov 32(%%esp), %%edi\n\t"
			 "mov %%esp, %%esi\n\tmov $8, %%ecx\n\tcld\n\t"
			 "rep movsl\n\tpopa\n\tpop %%edi\n\tpop %%esp\n\tpopa"
			 :
			 : "S"(in), "D"(out)
			 : "memory", "cc");
	/* EDI, ESI, EBP, ESP, EBX, EDX, ECX, EAX */
	check(out[7] == 1 && out[6] == 2 && out[5] == 3 && out[4] == 4,
	      "pusha, popa", "%u %u %u %u", out[7], out[6], out[5], out[4]);
}

static void floats(void)
{
	unsigned char all[64][16] = { { 0 } };
	float v[4] = { 1, 2, 3, 4 }, w[4] = { 0.1f, 0.2f, 0.3f, 0.4f };
	long double sum = 0;
	uint16_t cw;

	for (int i = 0; i < 64; i++) {
		long double x = (i - 31) * 0.37L, y;

		switch (i & 7) {
		case 0:
			__asm__("fsin" : "=t"(y) : "0"(x));
			break;
		case 1:
			__asm__("fcos" : "=t"(y) : "0"(x));
			break;
		case 2:
			__asm__("fld1\n\tfpatan" : "=t"(y) : "0"(x));
			break;
		case 3:
			__asm__("fsqrt" : "=t"(y) : "0"(fabsl(x)));
			break;
		case 4:
			__asm__("fld1\n\tfxch\n\tfyl2x"
				: "=t"(y)
				: "0"(fabsl(x) + 1));
			break;
		case 5:
			__asm__("f2xm1" : "=t"(y) : "0"(x / 64));
			break;
		case 6:
			__asm__("frndint" : "=t"(y) : "0"(x));
			break;
		default:
			y = x / 3 * 1e4000L;
		}
		sum += y;
		memcpy(all[i], &y, 10);
	}
	memcpy(all[0], &sum, 10);
	printf("value x87 %08x\n", hash(all, sizeof(all)));
	__asm__("fnstcw %0" : "=m"(cw));
	check(cw == 0x37f, "the x87 control word", "%x", cw);
	for (int i = 0; i < 1000; i++)
		__asm__("movups %0, %%xmm0\n\tmovups %1, %%xmm1\n\t"
			"mulps %%xmm1, %%xmm0\n\taddps %%xmm1, %%xmm0\n\t"
			"sqrtps %%xmm0, %%xmm0\n\tmovups %%xmm0, %0"
			: "+m"(v)
			: "m"(w)
			: "xmm0", "xmm1");
	printf("value sse %08x\n", hash(v, sizeof(v)));
}

/* ---- the kernel, processes, modes ---- */

static void system_calls(void)
{
	uint32_t vsyscall = getauxval(AT_SYSINFO), a, b;

	__asm__ volatile("int $0x80" : "=a"(a) : "0"(SYS_getpid));
	check((pid_t)a == getpid(), "int $0x80", "%u", a);
	if (!vsyscall)
		return;
	__asm__ volatile("call *%1"
			 : "=a"(b)
			 : "r"(vsyscall), "0"(SYS_getpid)
			 : "memory");
	check(a == b, "the vDSO's fast system call", "%u", b);
}

static __thread int mine = 5;
static int sum;

static void *thread(void *p)
{
	for (int i = 0; i < 10000; i++) {
		mine += (int)(intptr_t)p;
		__atomic_fetch_add(&sum, 1, __ATOMIC_RELAXED);
	}
	return (void *)(intptr_t)mine;
}

static void threads(void)
{
	pthread_t t[4];
	bool good = true;

	for (intptr_t i = 0; i < 4; i++)
		must(!pthread_create(&t[i], NULL, thread, (void *)i),
		     "pthread_create");
	for (intptr_t i = 0; i < 4; i++) {
		void *v;

		pthread_join(t[i], &v);
		good &= (intptr_t)v == 5 + 10000 * i;
	}
	check(good && sum == 40000 && mine == 5, "threads and their TLS (GS)",
	      "sum %d", sum);
}

static void processes(const char *self)
{
	int fd[2], status;
	char buf[64] = "";
	pid_t pid;

	must(!pipe(fd), "pipe");
	pid = fork();
	if (!pid) {
		dup2(fd[1], 1);
		execl(self, self, "child", NULL);
		_exit(1);
	}
	close(fd[1]);
	must(read(fd[0], buf, sizeof(buf) - 1) >= 0, "read");
	waitpid(pid, &status, 0);
	check(WEXITSTATUS(status) == 42 && !strcmp(buf, "from the child\n"),
	      "fork, exec, pipe, wait", "status %x", (unsigned)status);
	pid = fork();
	if (!pid) {
		signal(SIGSEGV, SIG_DFL);
		__asm__ volatile("movl $0, 4" : : : "memory");
		_exit(0);
	}
	waitpid(pid, &status, 0);
	check(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV,
	      "a child that dies", "status %x", (unsigned)status);
}

/* Into 64-bit code by a far jump, and back. */
static void long_mode(void)
{
	uint32_t low = 0, high = 0;
	uint16_t cs;

	__asm__ volatile("mov %%cs, %0" : "=r"(cs));
	check(cs == 0x23, "32-bit code", "CS %x", cs);
	__asm__ volatile(
		"ljmp $0x33, $1f\n"
		"1:\n\t"
		".byte 0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8\n\t" /* mov rax */
		".byte 0x49, 0x89, 0xc2\n\t" /* mov %rax, %r10 */
		".byte 0x4d, 0x01, 0xd2\n\t" /* add %r10, %r10 */
		".byte 0x4c, 0x89, 0xd2\n\t" /* mov %r10, %rdx */
		".byte 0x48, 0xc1, 0xea, 0x20\n\t" /* shr $32, %rdx */
		"push $0x23\n\t" /* 8 bytes each, here */
		"push $2f\n\t"
		".byte 0x48, 0xcb\n" /* retfq */
		"2:\n\t"
		"mov %%edx, %1\n\tmov %%eax, %0"
		: "=&S"(low), "=&D"(high)
		:
		: "eax", "edx", "memory", "cc");
	check(low == 0x04030201 && high == 0x100e0c0a, "64-bit code and back",
	      "%x %x", high, low);
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "child")) {
		puts("from the child");
		return 42;
	}
	printf("ia32: %u-bit pointers\n", 8 * (unsigned)sizeof(void *));
	faults();
	old_signals();
	tls_segment();
	ldt_segment();
	bcd();
	wide_math();
	pusha();
	floats();
	system_calls();
	threads();
	processes("/proc/self/exe");
	long_mode();
	return check_end("ia32");
}
