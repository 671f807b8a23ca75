/*
 * Interrupts: pins, messages, eventfds, as the LAPIC sees them (any KVM), and
 * as a program sees them (a KVM fit for kernels).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/thread.h"
#include "hv/hvkit.h"
#include "test.h"

#define VECTOR 0x41

/* Enable the LAPIC, route pin 5 to VECTOR at CPU 0, edge. */
GUEST(setup_code, "mov $0xfee00000, %ebx\n"
		  "movl $0x1ff, 0xf0(%rbx)\n"
		  "mov $0xfec00000, %ebx\n"
		  "movl $0x1b, (%rbx)\n"
		  "movl $0, 0x10(%rbx)\n"
		  "movl $0x1a, (%rbx)\n"
		  "movl $0x41, 0x10(%rbx)\n" GUEST_END);

static bool requested(struct hvkit *k, unsigned vector)
{
	struct hv_x86_vcpu_state *s = aligned_alloc(64, sizeof(*s));
	uint32_t irr;

	assert_int_equal(hv_vcpu_get_state(k->cpu[0], s), 0);
	memcpy(&irr, s->lapic + 0x200 + vector / 32 * 0x10, 4);
	free(s);
	return irr >> vector % 32 & 1;
}

/* A kick and nothing else: KVM looks at what has arrived. */
static void settle(struct hvkit *k)
{
	hv_vcpu_kick(k->cpu[0]);
	assert_int_equal(hvkit_run_any(k, 0), HV_EXIT_KICKED);
}

static void arrive(void **state)
{
	struct hvkit k;
	uint64_t one = 1;
	int fd;

	(void)state;
	hvkit_open_or_skip(&k, 1, NULL);
	hvkit_load(&k, 0, setup_code, setup_code_end, 0);
	hvkit_run(&k, 0);
	assert_false(requested(&k, VECTOR));
	assert_int_equal(hv_irq_line(k.vm, 5, true), 0);
	assert_int_equal(hv_irq_line(k.vm, 5, false), 0);
	settle(&k);
	assert_true(requested(&k, VECTOR));
	/* Message: fixed, to APIC 0, vector 0x52. */
	assert_false(requested(&k, 0x52));
	assert_int_equal(hv_msi(k.vm, 0xfee00000, 0x52), 0);
	settle(&k);
	assert_true(requested(&k, 0x52));
	if (!(k.vm->caps & HV_CAP_IRQFD)) {
		assert_int_equal(hv_irqfd(k.vm, 5, 0, true), -ENOTSUP);
		hvkit_close(&k);
		return;
	}
	hvkit_close(&k);

	/* The same pin by eventfd. */
	hvkit_open_or_skip(&k, 1, NULL);
	hvkit_load(&k, 0, setup_code, setup_code_end, 0);
	hvkit_run(&k, 0);
	fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	assert_int_equal(hv_irqfd(k.vm, 5, fd, true), 0);
	assert_int_equal(write(fd, &one, 8), 8);
	for (int i = 0; i < 1000 && !requested(&k, VECTOR); i++) {
		usleep(1000);
		settle(&k);
	}
	assert_true(requested(&k, VECTOR));
	assert_int_equal(hv_irqfd(k.vm, 5, fd, false), 0);
	close(fd);
	hvkit_close(&k);
}

/* Counts interrupts, sleeping in between; ends after 100. */
GUEST(count_code, "mov $0xfee00000, %ebx\n"
		  "movl $0x1ff, 0xf0(%rbx)\n"
		  "mov $0xfec00000, %esi\n"
		  "movl $0x1b, (%rsi)\n"
		  "movl $0, 0x10(%rsi)\n"
		  "movl $0x1a, (%rsi)\n"
		  "movl $0x41, 0x10(%rsi)\n"
		  "xor %r8d, %r8d\n"
		  "1: cli\n"
		  "cmp $100, %r8d\n"
		  "je 8f\n"
		  "mov %r8, 0x100000\n"
		  "sti\n"
		  "hlt\n"
		  "jmp 1b\n 8:\n" GUEST_END "count_irq: incl %r8d\n"
		  "movl $0, 0xb0(%rbx)\n"
		  "iretq\n");
extern const uint8_t count_irq[];

/* By eventfd, or without one where the engine has none. */
static bool edge(struct hvkit *k, int fd)
{
	uint64_t one = 1;

	if (k->vm->caps & HV_CAP_IRQFD)
		return write(fd, &one, 8) == 8;
	return !hv_irq_line(k->vm, 5, true) && !hv_irq_line(k->vm, 5, false);
}

static void ring_100(void *arg)
{
	struct hvkit *k = arg;
	bool irqfd = k->vm->caps & HV_CAP_IRQFD;
	int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	uint64_t until = clock_ns() + 20 * NSEC_PER_SEC;

	if (irqfd && hv_irqfd(k->vm, 5, fd, true))
		return;
	/* One at a time: edges that meet become one. */
	for (uint64_t i = 0; i < 100; i++) {
		for (;;) {
			uint64_t n = 0;

			if (gmem_read(k->mem, gpa(0x100000), &n, 8) ||
			    clock_ns() > until)
				return;
			if (n == i && i > 0)
				break;
			if (i == 0 && n == 0 &&
			    __atomic_load_n(&k->outs, __ATOMIC_ACQUIRE) == 0) {
				usleep(20000); /* past the set-up */
				break;
			}
		}
		if (!edge(k, fd))
			return;
	}
	usleep(100);
	if (irqfd)
		hv_irqfd(k->vm, 5, fd, false);
	close(fd);
}

static void delivered(void **state)
{
	struct hv_counters n;
	struct thread t = { 0 };
	struct hvkit k;

	(void)state;
	hvkit_need_fit();
	hvkit_open_or_skip(&k, 1, NULL);
	hvkit_load(&k, 0, count_code, count_code_end, 0);
	hvkit_gate(&k, VECTOR, HVKIT_CODE + (uint64_t)(count_irq - count_code));
	assert_int_equal(thread_start(&t, "ring", ring_100, &k), 0);
	hvkit_run(&k, 0);
	thread_join(&t);
	hv_vcpu_counters(k.cpu[0], &n);
	assert_true(n.halts >= 90);
	assert_true(n.irqs >= 100);
	hvkit_close(&k);
}

/* The LAPIC timer in TSC-deadline mode. */
GUEST(deadline_code, "mov $0xfee00000, %ebx\n"
		     "movl $0x1ff, 0xf0(%rbx)\n"
		     "movl $0x40041, 0x320(%rbx)\n"
		     "xor %r8d, %r8d\n"
		     "1: cli\n"
		     "cmp $20, %r8d\n"
		     "je 8f\n"
		     "rdtsc\n"
		     "shl $32, %rdx\n"
		     "or %rdx, %rax\n"
		     "add $200000, %rax\n"
		     "mov %rax, %rdx\n"
		     "shr $32, %rdx\n"
		     "mov $0x6e0, %ecx\n"
		     "wrmsr\n"
		     "sti\n"
		     "hlt\n"
		     "jmp 1b\n 8:\n" GUEST_END "deadline_irq: incl %r8d\n"
		     "movl $0, 0xb0(%rbx)\n"
		     "iretq\n");
extern const uint8_t deadline_irq[];

static void deadline(void **state)
{
	struct hv_x86_cpuid leaf[HV_X86_CPUID_MAX];
	struct hvkit k;
	int n;

	(void)state;
	hvkit_need_fit();
	hvkit_open_or_skip(&k, 1, NULL);
	n = hv_supported_cpuid(k.ops, leaf, HV_X86_CPUID_MAX);
	assert_true(n > 0);
	assert_int_equal(hv_vcpu_set_cpuid(k.cpu[0], leaf, (unsigned)n), 0);
	assert_int_equal(hv_supported_cpuid(k.ops, leaf, 3), -E2BIG);
	hvkit_load(&k, 0, deadline_code, deadline_code_end, 0);
	hvkit_gate(&k, VECTOR,
		   HVKIT_CODE + (uint64_t)(deadline_irq - deadline_code));
	hvkit_run(&k, 0);
	hvkit_close(&k);
}

/*
 * SMP: the boot CPU starts the other by INIT and SIPI; that comes up in real
 * mode at 0x9000, says so in memory, and the two play ping-pong 1000 times.
 */
GUEST(boot_code, "mov $0xfee00000, %ebx\n"
		 "movl $0x1ff, 0xf0(%rbx)\n"
		 "movl $0x01000000, 0x310(%rbx)\n"
		 "movl $0x4500, 0x300(%rbx)\n" /* INIT */
		 "mov $100000, %ecx\n"
		 "1: pause\n"
		 "loop 1b\n"
		 "movl $0x01000000, 0x310(%rbx)\n"
		 "movl $0x4609, 0x300(%rbx)\n" /* SIPI, page 9 */
		 "2: pause\n"
		 "cmpl $0xabcd, 0x9800\n"
		 "jne 2b\n"
		 "mov $1000, %ecx\n"
		 "movl $1, 0x9804\n"
		 "3: pause\n"
		 "cmpl $2, 0x9804\n"
		 "jne 3b\n"
		 "movl $1, 0x9804\n"
		 "loop 3b\n" GUEST_END);
GUEST(ap_code, ".code16\n"
	       "mov %cs, %ax\n"
	       "mov %ax, %ds\n"
	       "movl $0xabcd, 0x800\n"
	       "1: pause\n"
	       "cmpl $1, 0x804\n"
	       "jne 1b\n"
	       "movl $2, 0x804\n"
	       "jmp 1b\n"
	       ".code64\n");

struct ap {
	struct hvkit *k;
	enum hv_exit_reason reason;
};

static void run_ap(void *arg)
{
	struct ap *a = arg;
	struct hv_exit exit;

	a->reason =
		hv_vcpu_run(a->k->cpu[1], &exit) ? HV_EXIT_ERROR : exit.reason;
}

static void smp(void **state)
{
	struct thread t = { 0 };
	struct hvkit k;
	struct ap ap = { .k = &k };

	(void)state;
	hvkit_need_fit();
	hvkit_open_or_skip(&k, 2, NULL);
	hvkit_put(&k, 0x9000, ap_code, ap_code_end);
	hvkit_load(&k, 0, boot_code, boot_code_end, 0);
	assert_int_equal(thread_start(&t, "ap", run_ap, &ap), 0);
	hvkit_run(&k, 0); /* the end kicks both */
	thread_join(&t);
	assert_int_equal(ap.reason, HV_EXIT_KICKED);
	hvkit_close(&k);
}

/* A CPU that waits for its start can be kicked. */
static void kick_waiting(void **state)
{
	struct hv_x86_vcpu_state *s;
	struct thread t = { 0 };
	struct hvkit k;
	struct ap ap = { .k = &k };

	(void)state;
	hvkit_open_or_skip(&k, 2, NULL);
	for (int i = 0; i < 20; i++) {
		ap.reason = HV_EXIT_ERROR;
		assert_int_equal(thread_start(&t, "ap", run_ap, &ap), 0);
		usleep(i * 300);
		hv_vcpu_kick(k.cpu[1]);
		thread_join(&t);
		assert_int_equal(ap.reason, HV_EXIT_KICKED);
	}
	s = aligned_alloc(64, sizeof(*s));
	assert_int_equal(hv_vcpu_get_state(k.cpu[1], s), 0);
	assert_int_equal(s->mp_state, HV_X86_UNINITIALIZED);
	free(s);
	hvkit_close(&k);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(arrive),	cmocka_unit_test(delivered),
		cmocka_unit_test(deadline),	cmocka_unit_test(smp),
		cmocka_unit_test(kick_waiting),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
