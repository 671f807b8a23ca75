/*
 * What vCPUs of the software engine do to each other: change code, send
 * interrupts, write while the dirty log is read, stop and go on. Made for
 * ThreadSanitizer (`make SAN=thread unit-threads`), but the results must be
 * right in any build.
 */
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/thread.h"
#include "hv/hvkit.h"
#include "test.h"

/* Each CPU goes to its own part: RBX is the LAPIC, R15 the CPU's number. */
#define BY_CPU                         \
	"mov $0xfee00000, %ebx\n"      \
	"mov 0x20(%rbx), %r15d\n"      \
	"shr $24, %r15d\n"             \
	"lea 0f(%rip), %rax\n"         \
	"movslq (%rax,%r15,4), %rcx\n" \
	"add %rcx, %rax\n"             \
	"jmp *%rax\n"

struct runner {
	struct hvkit *k;
	unsigned cpu;
	struct thread t;
	atomic_bool *stop; /* NULL: one run */
	atomic_uint stops;
	bool bad;
};

static void run_cpu(void *arg)
{
	struct runner *r = arg;
	struct hv_x86_vcpu_state *s = aligned_alloc(64, sizeof(*s));
	struct hv_exit exit;
	sigset_t set;

	/* For hold_up(): threads of ours take no signals. */
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGUSR2);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	do {
		r->bad |= hv_vcpu_run(r->k->cpu[r->cpu], &exit) ||
			  exit.reason != HV_EXIT_KICKED;
		/* State out and in, as a pause and a snapshot do. */
		r->bad |= hv_vcpu_get_state(r->k->cpu[r->cpu], s) ||
			  hv_vcpu_set_state(r->k->cpu[r->cpu], s);
		r->stops++;
	} while (!r->bad && r->stop && !*r->stop);
	free(s);
}

static void start(struct runner *r, struct hvkit *k, unsigned ncpus,
		  atomic_bool *stop)
{
	for (unsigned n = 0; n < ncpus; n++) {
		r[n] = (struct runner){ .k = k, .cpu = n, .stop = stop };
		assert_int_equal(thread_start(&r[n].t, "vcpu", run_cpu, &r[n]),
				 0);
	}
}

static void join(struct runner *r, unsigned ncpus)
{
	for (unsigned n = 0; n < ncpus; n++) {
		thread_join(&r[n].t);
		assert_false(r[n].bad);
	}
}

static void open_kit(struct hvkit *k, unsigned ncpus, const uint8_t *code,
		     const uint8_t *end)
{
	hvkit_open_or_skip(k, ncpus, NULL);
	for (unsigned n = 0; n < ncpus; n++)
		hvkit_load(k, n, code, end, 0);
	alarm(60);
}

static void close_kit(struct hvkit *k)
{
	alarm(0);
	hvkit_close(k);
}

static void wait_for(struct hvkit *k, uint64_t at, uint64_t value)
{
	while (hvkit_get64(k, at) != value)
		usleep(100);
}

/*
 * CPU 0 rewrites a function (and writes beside it, so that it has the page in
 * its TLB), CPU 1 calls it: what it returns is what was written last. CPU 2
 * patches a function of its own, which the others hear of all the time.
 */
GUEST(patch_code, BY_CPU "0: .long 1f - 0b, 2f - 0b, 7f - 0b\n"
			 "1: mov $0x102000, %esi\n"
			 "movb $0xb8, (%rsi)\n" /* mov $imm, %eax; ret */
			 "movb $0xc3, 5(%rsi)\n"
			 "xor %ecx, %ecx\n"
			 "3: inc %ecx\n"
			 "mov %ecx, 0x800(%rsi)\n"
			 "mov %ecx, 1(%rsi)\n"
			 "mov %ecx, 0x840(%rsi)\n"
			 "mov %ecx, 0x100000\n"
			 "4: pause\n"
			 "cmp %ecx, 0x100040\n"
			 "jne 4b\n"
			 "cmp $3000, %ecx\n"
			 "jne 3b\n" GUEST_END "2: xor %ebp, %ebp\n"
			 "5: pause\n"
			 "cmp %ebp, 0x100000\n"
			 "je 5b\n"
			 "xor %eax, %eax\n"
			 "cpuid\n"
			 "mov 0x100000, %ebp\n"
			 "mov $0x102000, %esi\n"
			 "call *%rsi\n"
			 "cmp %ebp, %eax\n"
			 "je 6f\n"
			 "incl 0x100080\n"
			 "6: mov %ebp, 0x100040\n"
			 "jmp 5b\n"
			 "7: mov $0x103000, %esi\n"
			 "movb $0xc3, 1(%rsi)\n"
			 "8: movb $0x90, (%rsi)\n"
			 "call *%rsi\n"
			 "jmp 8b\n");

static void code_changes(void **state)
{
	struct runner r[3];
	struct hvkit k;

	(void)state;
	open_kit(&k, 3, patch_code, patch_code_end);
	start(r, &k, 3, NULL);
	join(r, 3);
	assert_int_equal((uint32_t)hvkit_get64(&k, 0x100040), 3000);
	assert_int_equal((uint32_t)hvkit_get64(&k, 0x100080), 0);
	close_kit(&k);
}

/* Two CPUs wake each other from HLT by turns. */
GUEST(ipi_code, BY_CPU "0: .long 1f - 0b, 2f - 0b\n"
		       "1: mov $0x01000000, %ebp\n" /* the other's APIC ID */
		       "jmp 3f\n"
		       "2: xor %ebp, %ebp\n"
		       "3: movl $0x1ff, 0xf0(%rbx)\n"
		       "lock incl 0x100040\n" /* both are ready */
		       "4: pause\n"
		       "cmpl $2, 0x100040\n"
		       "jne 4b\n"
		       "xor %ecx, %ecx\n"
		       "test %r15d, %r15d\n"
		       "jnz 6f\n"
		       "5: cmp $2000, %ecx\n"
		       "je 8f\n"
		       "inc %ecx\n"
		       "mov %ebp, 0x310(%rbx)\n"
		       "movl $0x4041, 0x300(%rbx)\n"
		       "6: cli\n"
		       "cmp 0x100000(,%r15,4), %ecx\n"
		       "jb 7f\n"
		       "test %r15d, %r15d\n"
		       "jnz 10f\n"
		       "cmp 0x100000, %ecx\n"
		       "je 7f\n"
		       "10: sti\n"
		       "hlt\n"
		       "jmp 6b\n"
		       "7: sti\n"
		       "test %r15d, %r15d\n"
		       "jz 5b\n"
		       "inc %ecx\n"
		       "mov %ebp, 0x310(%rbx)\n"
		       "movl $0x4041, 0x300(%rbx)\n"
		       "jmp 6b\n"
		       "8:" GUEST_END "ipi_irq: incl 0x100000(,%r15,4)\n"
		       "movl $0, 0xb0(%rbx)\n"
		       "iretq\n");
extern const uint8_t ipi_irq[];

static void ipis(void **state)
{
	struct runner r[2];
	struct hvkit k;

	(void)state;
	open_kit(&k, 2, ipi_code, ipi_code_end);
	hvkit_gate(&k, 0x41, HVKIT_CODE + (uint64_t)(ipi_irq - ipi_code));
	start(r, &k, 2, NULL);
	join(r, 2);
	assert_int_equal((uint32_t)hvkit_get64(&k, 0x100000), 2000);
	close_kit(&k);
}

/*
 * A copy kept up to date by the dirty log alone, while CPUs write by all ways
 * there are, are stopped and go on: in the end it is what memory is.
 */
GUEST(write_code, BY_CPU "0: .long 1f - 0b, 1f - 0b, 1f - 0b\n"
			 "1: mov %r15d, %ebp\n"
			 "shl $18, %ebp\n"
			 "add $0x200000, %ebp\n" /* 256 KiB of its own */
			 "xor %r8d, %r8d\n"
			 "2: inc %r8d\n"
			 "mov %r8d, %esi\n"
			 "and $15, %esi\n"
			 "shl $12, %esi\n"
			 "incl (%rbp,%rsi)\n"
			 "lock incl 0x1f0000(%rsi)\n" /* shared */
			 "mov %r8, 0xffd(%rbp,%rsi)\n" /* crosses a page */
			 "movq %r8, %xmm0\n"
			 "movups %xmm0, 0x20000(%rbp,%rsi)\n"
			 "lea 0x20100(%rbp,%rsi), %rdi\n"
			 "mov %r8, %rax\n"
			 "mov $20, %ecx\n"
			 "rep stosq\n"
			 "push %rax\n"
			 "pop %rax\n"
			 "jmp 2b\n");

enum { FROM = 0x1f0000, SPAN = 0x400000 - FROM };

static void copy_dirty(struct hvkit *k, uint8_t *copy)
{
	unsigned long map[HVKIT_RAM / 4096 / 64];

	assert_int_equal(hv_dirty_fetch(k->vm, 0, map, sizeof(map)), 0);
	for (uint64_t at = FROM; at < FROM + SPAN; at += 4096)
		if (map[at / 4096 / 64] >> (at / 4096 % 64) & 1)
			assert_int_equal(gmem_read(k->mem, gpa(at),
						   copy + (at - FROM), 4096),
					 0);
}

static void dirty_while_running(void **state)
{
	uint8_t *copy = calloc(2, SPAN), *now = copy + SPAN;
	struct hv_counters n[3] = { 0 }, before;
	atomic_bool stop = false;
	struct runner r[3];
	struct hvkit k;

	(void)state;
	assert_non_null(copy);
	open_kit(&k, 3, write_code, write_code_end);
	assert_int_equal(hv_dirty_log(k.vm, 0, true), 0);
	start(r, &k, 3, &stop);
	for (unsigned i = 0; i < 300; i++) {
		unsigned c = i % 3;

		copy_dirty(&k, copy);
		before = n[c];
		hv_vcpu_counters(k.cpu[c], &n[c]);
		assert_true(n[c].instructions >= before.instructions);
		if (i % 8 == 0)
			hv_vcpu_kick(k.cpu[c]);
		usleep(200);
	}
	stop = true;
	for (unsigned c = 0; c < 3; c++)
		hv_vcpu_kick(k.cpu[c]);
	join(r, 3);
	for (unsigned c = 0; c < 3; c++)
		assert_true(r[c].stops > 1 && n[c].instructions > 0);
	copy_dirty(&k, copy);
	assert_int_equal(gmem_read(k.mem, gpa(FROM), now, SPAN), 0);
	assert_memory_equal(copy, now, SPAN);
	close_kit(&k);
	free(copy);
}

/* ---- threads held up where they are, as a busy host does ---- */

static atomic_int held[NSIG], hold[NSIG];

static void hold_thread(int sig)
{
	held[sig] = 1;
	while (hold[sig])
		usleep(100);
}

/* The thread of @r does nothing until let_go(@sig). */
static void hold_up(struct runner *r, int sig)
{
	struct sigaction act = { .sa_handler = hold_thread };

	held[sig] = 0;
	hold[sig] = 1;
	sigaction(sig, &act, NULL);
	pthread_kill(r->t.id, sig);
	while (!held[sig])
		usleep(100);
}

static void let_go(int sig)
{
	hold[sig] = 0;
}

/*
 * CPU 0 has the page of a function in its TLB, writable, and is held up; 1 and
 * 2 want to run the function. CPU 1 also has page 0x180000 writable.
 */
GUEST(held_code, BY_CPU "0: .long 1f - 0b, 2f - 0b, 3f - 0b\n"
			"1: movl $1, 0x102800\n"
			"movl $1, 0x100000\n"
			"4: pause\n"
			"jmp 4b\n"
			"2: movl $1, 0x180000\n"
			"movl $1, 0x100008\n"
			"3: pause\n"
			"cmpl $0, 0x100100(,%r15,8)\n"
			"je 3b\n"
			"mov $0x102000, %esi\n"
			"jmp *%rsi\n");
/* The function: one store, then nothing. */
GUEST(held_function, "movl $2, 0x180000(,%r15,8)\n"
		     "movl $1, 0x100018(,%r15,8)\n"
		     "1: pause\n"
		     "jmp 1b\n");

static void held_open(struct hvkit *k, struct runner *r, atomic_bool *stop)
{
	open_kit(k, 3, held_code, held_code_end);
	hvkit_put(k, 0x102000, held_function, held_function_end);
	assert_int_equal(hv_dirty_log(k->vm, 0, true), 0);
	start(r, k, 3, stop);
	wait_for(k, 0x100000, 1);
	wait_for(k, 0x100008, 1);
	hold_up(&r[0], SIGUSR1);
}

static void held_close(struct hvkit *k, struct runner *r, atomic_bool *stop)
{
	*stop = true;
	for (unsigned c = 0; c < 3; c++)
		hv_vcpu_kick(k->cpu[c]);
	join(r, 3);
	close_kit(k);
}

/*
 * Nobody runs what a CPU may be about to overwrite unseen: not the first who
 * comes to the page, and not the second, who finds it marked by the first.
 */
static void writer_held(void **state)
{
	atomic_bool stop = false;
	struct runner r[3];
	struct hvkit k;

	(void)state;
	held_open(&k, r, &stop);
	hvkit_set64(&k, 0x100108, 1);
	usleep(50000);
	hvkit_set64(&k, 0x100110, 1);
	usleep(50000);
	assert_int_equal(hvkit_get64(&k, 0x100020), 0);
	assert_int_equal(hvkit_get64(&k, 0x100028), 0);
	let_go(SIGUSR1);
	wait_for(&k, 0x100020, 1);
	wait_for(&k, 0x100028, 1);
	held_close(&k, r, &stop);
}

struct fetch {
	struct hvkit *k;
	unsigned long map[HVKIT_RAM / 4096 / 64];
	int rc;
	bool done; /* atomic */
};

static void fetch(void *arg)
{
	struct fetch *f = arg;

	f->rc = hv_dirty_fetch(f->k->vm, 0, f->map, sizeof(f->map));
}

/*
 * CPU 1 waits for CPU 0 when the log is read; its first store after the wait is
 * in the next reading.
 */
static void log_read_in_wait(void **state)
{
	struct thread t = { 0 };
	atomic_bool stop = false;
	struct runner r[3];
	struct fetch f;
	struct hvkit k;

	(void)state;
	held_open(&k, r, &stop);
	f.k = &k;
	hvkit_set64(&k, 0x100108, 1);
	usleep(50000);
	hold_up(&r[1], SIGUSR2); /* in its wait */
	assert_int_equal(thread_start(&t, "fetch", fetch, &f), 0);
	usleep(50000);
	let_go(SIGUSR1);
	thread_join(&t);
	assert_int_equal(f.rc, 0);
	assert_int_equal((uint32_t)hvkit_get64(&k, 0x180008), 0);
	let_go(SIGUSR2);
	wait_for(&k, 0x100020, 1);
	fetch(&f);
	assert_true(f.map[0x180 / 64] >> (0x180 % 64) & 1);
	held_close(&k, r, &stop);
}

/*
 * CPU 0 is in a device with a locked access, CPU 1 waits to make a split one:
 * that keeps nobody from reading the log.
 */
GUEST(split_code, BY_CPU "0: .long 1f - 0b, 2f - 0b\n"
			 "1: mov $0xd0000000, %esi\n"
			 "lock incl (%rsi)\n"
			 "jmp 3f\n"
			 "2: pause\n"
			 "cmpl $0, 0x100000\n"
			 "je 2b\n"
			 "lock incl 0x180ffe\n"
			 "movl $1, 0x100008\n"
			 "3: pause\n"
			 "jmp 3b\n");

static atomic_int in_device, let_out;

static uint64_t slow_read(void *dev, uint64_t off, unsigned len)
{
	(void)dev;
	(void)off;
	(void)len;
	in_device = 1;
	while (!let_out)
		usleep(100);
	return 0;
}

static void add_slow(struct hvkit *k)
{
	static const struct bus_ops ops = { .read = slow_read };
	struct err e;

	assert_int_equal(
		bus_add(k->bus, BUS_MMIO, 0xd0000000, 4096, &ops, k, NULL, &e),
		0);
}

static void fetch_and_tell(void *arg)
{
	struct fetch *f = arg;

	fetch(f);
	__atomic_store_n(&f->done, true, __ATOMIC_RELEASE);
}

static void log_read_in_split(void **state)
{
	struct thread t = { 0 };
	atomic_bool stop = false;
	struct fetch f = { 0 };
	struct runner r[2];
	struct hvkit k;
	bool done;

	(void)state;
	in_device = let_out = 0;
	hvkit_open_or_skip(&k, 2, add_slow);
	for (unsigned n = 0; n < 2; n++)
		hvkit_load(&k, n, split_code, split_code_end, 0);
	alarm(60);
	assert_int_equal(hv_dirty_log(k.vm, 0, true), 0);
	start(r, &k, 2, &stop);
	while (!in_device)
		usleep(100);
	hvkit_set64(&k, 0x100000, 1);
	usleep(50000);
	f.k = &k;
	assert_int_equal(thread_start(&t, "fetch", fetch_and_tell, &f), 0);
	for (int i = 0; i < 2000; i++) {
		done = __atomic_load_n(&f.done, __ATOMIC_ACQUIRE);
		if (done)
			break;
		usleep(1000);
	}
	let_out = 1;
	thread_join(&t);
	assert_true(done);
	wait_for(&k, 0x100008, 1);
	fetch(&f);
	assert_true(f.map[0x180 / 64] >> (0x180 % 64) & 1);
	assert_true(f.map[0x181 / 64] >> (0x181 % 64) & 1);
	stop = true;
	for (unsigned c = 0; c < 2; c++)
		hv_vcpu_kick(k.cpu[c]);
	join(r, 2);
	close_kit(&k);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(code_changes),
		cmocka_unit_test(ipis),
		cmocka_unit_test(dirty_while_running),
		cmocka_unit_test(writer_held),
		cmocka_unit_test(log_read_in_wait),
		cmocka_unit_test(log_read_in_split),
	};

	setenv("ARCVMM_TEST_ENGINE", "soft", 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
