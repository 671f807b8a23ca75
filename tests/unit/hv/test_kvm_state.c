/*
 * The whole architectural state: what is set is what is got; a program moved
 * to another VM in the middle of its work finishes as if it had stayed.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/thread.h"
#include "hv/hvkit.h"
#include "test.h"

static uint64_t rnd(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

static void set_all_cpuid(struct hvkit *k)
{
	struct hv_x86_cpuid leaf[HV_X86_CPUID_MAX];
	int n = hv_supported_cpuid(k->ops, leaf, HV_X86_CPUID_MAX);

	assert_true(n > 0);
	for (unsigned i = 0; i < k->ncpus; i++)
		assert_int_equal(
			hv_vcpu_set_cpuid(k->cpu[i], leaf, (unsigned)n), 0);
}

GUEST(nothing, GUEST_END);

/* What runs by itself or follows from other fields. */
static void forget(struct hv_x86_vcpu_state *s)
{
	s->tsc = 0;
	memset(s->lapic + 0x390, 0, 4); /* current count */
	memset(s->lapic + 0xa0, 0, 4); /* processor priority */
}

static void round_trip(void **state)
{
	struct hv_x86_vcpu_state *s = aligned_alloc(64, sizeof(*s));
	struct hv_x86_vcpu_state *t = aligned_alloc(64, sizeof(*t));
	uint64_t seed = 12345;
	struct hvkit k;

	(void)state;
	assert_true(s && t);
	hvkit_open_or_skip(&k, 1, NULL);
	set_all_cpuid(&k);
	hvkit_load(&k, 0, nothing, nothing_end, 0);
	for (int i = 0; i < 200; i++) {
		assert_int_equal(hv_vcpu_get_state(k.cpu[0], s), 0);
		for (int r = 0; r < 16; r++)
			s->gpr[r] = rnd(&seed);
		s->rip = rnd(&seed) >> 17;
		s->rflags = (rnd(&seed) & 0xdd5) | 2;
		s->cr2 = rnd(&seed);
		s->cr8 = rnd(&seed) & 15;
		s->lapic[0x80] = (uint8_t)(s->cr8 << 4); /* the same TPR */
		s->seg[X86_FS].base = rnd(&seed) >> 17;
		s->seg[X86_GS].base = rnd(&seed) >> 17;
		for (int d = 0; d < 4; d++)
			s->dr[d] = rnd(&seed) >> 17;
		s->msr[HV_MSR_STAR] = rnd(&seed);
		s->msr[HV_MSR_LSTAR] = rnd(&seed) >> 17;
		s->msr[HV_MSR_SFMASK] = rnd(&seed) & 0xffffffff;
		s->msr[HV_MSR_KERNEL_GS_BASE] = rnd(&seed) >> 17;
		s->msr[HV_MSR_SYSENTER_EIP] = rnd(&seed) >> 33;
		s->msr[HV_MSR_PAT] = 0x0007040600070406;
		for (int x = 32; x < 416; x++)
			s->xsave[x] = (uint8_t)rnd(&seed);
		for (int x = 0; x < 8; x++) /* 80-bit registers, 6 reserved */
			memset(s->xsave + 32 + 16 * x + 10, 0, 6);
		s->xsave[0] = 0x7f; /* FCW */
		s->xsave[1] = 3;
		memset(s->xsave + 24, 0, 4);
		s->xsave[25] = 0x1f; /* MXCSR 1f80 */
		s->xsave[24] = 0x80;
		if (s->xsave_size > 512)
			s->xsave[512] |= 3;
		s->shadow = (uint8_t)(i % 3);
		s->nmi_masked = i & 1;
		s->interrupt_injected = i % 5 == 0;
		s->interrupt_vector = i % 5 ? 0 : (uint8_t)(0x20 + i);
		s->exception_injected = i % 7 == 0 && i % 5;
		s->exception_vector = s->exception_injected ? 13 : 0;
		s->exception_has_error = s->exception_injected;
		s->exception_error = s->exception_injected ? 0x18 : 0;
		s->mp_state = i % 4 == 3 ? HV_X86_HALTED : HV_X86_RUNNABLE;
		assert_int_equal(hv_vcpu_set_state(k.cpu[0], s), 0);
		assert_int_equal(hv_vcpu_get_state(k.cpu[0], t), 0);
		forget(s);
		forget(t);
		/* Piece by piece, so that a difference has a name. */
		assert_memory_equal(s->gpr, t->gpr, sizeof(s->gpr));
		assert_true(s->rip == t->rip);
		assert_true(s->rflags == t->rflags);
		assert_memory_equal(s->seg, t->seg, sizeof(s->seg));
		assert_true(s->cr0 == t->cr0 && s->cr2 == t->cr2 &&
			    s->cr3 == t->cr3 && s->cr4 == t->cr4);
		assert_int_equal(s->cr8, t->cr8);
		assert_true(s->efer == t->efer);
		assert_true(s->xcr0 == t->xcr0);
		assert_memory_equal(s->dr, t->dr, sizeof(s->dr));
		for (int m = 0; m < HV_MSR_COUNT; m++)
			if (s->msr[m] != t->msr[m])
				fail_msg("MSR %x: set %llx, got %llx",
					 hv_x86_msr_number(m),
					 (unsigned long long)s->msr[m],
					 (unsigned long long)t->msr[m]);
		for (int x = 0; x < 416; x++)
			if (s->xsave[x] != t->xsave[x] && !(x >= 6 && x < 24) &&
			    !(x >= 28 && x < 32))
				fail_msg("FXSAVE byte %d: set %02x, got %02x",
					 x, s->xsave[x], t->xsave[x]);
		for (int x = 0; x < 1024; x++)
			if (s->lapic[x] != t->lapic[x])
				fail_msg("LAPIC byte %x: set %02x, got %02x", x,
					 s->lapic[x], t->lapic[x]);
		/* AMD has one bit for both kinds. */
		assert_int_equal(!!s->shadow, !!t->shadow);
		assert_int_equal(s->nmi_masked, t->nmi_masked);
		assert_int_equal(s->interrupt_injected, t->interrupt_injected);
		assert_int_equal(s->exception_injected, t->exception_injected);
		if (s->exception_injected) {
			assert_int_equal(s->exception_vector,
					 t->exception_vector);
			assert_int_equal(s->exception_error,
					 t->exception_error);
		}
		assert_int_equal(s->mp_state, t->mp_state);
	}
	s->mp_state = 77;
	assert_int_not_equal(hv_vcpu_set_state(k.cpu[0], s), 0);
	free(s);
	free(t);
	hvkit_close(&k);
}

static void vm_round_trip(void **state)
{
	struct hv_x86_vm_state s, t;
	struct hvkit k;

	(void)state;
	hvkit_open_or_skip(&k, 1, NULL);
	assert_int_equal(hv_vm_get_state(k.vm, &s), 0);
	for (unsigned i = 0; i < HV_GSI_COUNT; i++)
		s.ioapic_redir[i] = 0x10000 | (0x30 + i) | (uint64_t)i << 56;
	s.ioapic_id = 3;
	s.ioapic_select = 0x12;
	s.kvmclock_ns = 5000000000ull;
	assert_int_equal(hv_vm_set_state(k.vm, &s), 0);
	assert_int_equal(hv_vm_get_state(k.vm, &t), 0);
	assert_memory_equal(s.ioapic_redir, t.ioapic_redir,
			    sizeof(s.ioapic_redir));
	assert_int_equal(s.ioapic_id, t.ioapic_id);
	assert_int_equal(s.ioapic_select, t.ioapic_select);
	assert_true(t.kvmclock_ns >= s.kvmclock_ns);
	assert_true(t.kvmclock_ns < s.kvmclock_ns + 1000000000ull);
	hvkit_close(&k);
}

/*
 * A checksum over integer, SSE and memory operations; each round depends on all
 * rounds before, so a bit lost in a move shows in the result.
 */
GUEST(work_code, "mov $0x9e3779b97f4a7c15, %rax\n"
		 "xor %ebx, %ebx\n"
		 "movq %rax, %xmm5\n"
		 "pxor %xmm6, %xmm6\n"
		 "fninit\n"
		 "fld1\n"
		 "1: mov 0x100010, %rcx\n" /* rounds left */
		 "test %rcx, %rcx\n"
		 "jz 8f\n"
		 "dec %rcx\n"
		 "mov %rcx, 0x100010\n"
		 "imul $0x5851f42d, %rax, %rax\n"
		 "adc %rbx, %rax\n"
		 "rol $13, %rax\n"
		 "movq %rax, %xmm7\n"
		 "paddq %xmm7, %xmm6\n"
		 "pxor %xmm5, %xmm6\n"
		 "movq %xmm6, %rbx\n"
		 "fld1\n"
		 "faddp\n"
		 "add %rbx, %rax\n" /* flags that must survive, too */
		 "pushfq\n"
		 "pop %rdx\n"
		 "and $0xd5, %edx\n"
		 "add %rdx, %rbx\n"
		 "jmp 1b\n"
		 "8: mov %rax, 0x100000\n"
		 "mov %rbx, 0x100008\n"
		 "fistpll 0x100018\n" GUEST_END);
struct mover {
	struct hvkit *k;
	struct thread t;
	useconds_t delay;
};

static void kick_later(void *arg)
{
	struct mover *m = arg;

	usleep(m->delay);
	hv_vcpu_kick(m->k->cpu[0]);
}

static void move(struct hvkit *from, struct hvkit *to)
{
	struct hv_x86_vcpu_state *s = aligned_alloc(64, sizeof(*s));
	uint8_t *page = malloc(HVKIT_RAM);

	assert_true(s && page);
	assert_int_equal(hv_vcpu_get_state(from->cpu[0], s), 0);
	assert_int_equal(hv_vcpu_set_state(to->cpu[0], s), 0);
	assert_int_equal(gmem_read(from->mem, gpa(0), page, HVKIT_RAM), 0);
	assert_int_equal(gmem_write(to->mem, gpa(0), page, HVKIT_RAM), 0);
	free(s);
	free(page);
}

static const uint64_t result_at[3] = { 0x100000, 0x100008, 0x100018 };

static void work(struct hvkit *k, unsigned flags, uint64_t rounds)
{
	hvkit_load(k, 0, work_code, work_code_end, flags);
	hvkit_set64(k, 0x100010, rounds);
}

/*
 * Run the work in VMs of the given engines in turn, moving on after each slice,
 * and compare with the result of the first engine alone.
 */
static void relay(const struct hv_ops *const *ops, unsigned n, unsigned flags,
		  uint64_t rounds)
{
	struct hvkit k[2];
	uint64_t want[3];
	unsigned moves = 0, at = 0;

	assert_true(hvkit_open_engine(&k[0], ops[0], 1, NULL));
	work(&k[0], flags, rounds);
	hvkit_run(&k[0], 0);
	for (unsigned i = 0; i < 3; i++)
		want[i] = hvkit_get64(&k[0], result_at[i]);
	assert_true(want[2] == rounds + 1);
	hvkit_close(&k[0]);

	for (unsigned i = 0; i < n; i++)
		assert_true(hvkit_open_engine(&k[i], ops[i], 1, NULL));
	work(&k[0], flags, rounds);
	for (;;) {
		struct mover m = { .k = &k[at], .delay = 500 };

		assert_int_equal(thread_start(&m.t, "kick", kick_later, &m), 0);
		assert_int_equal(hvkit_run_any(&k[at], 0), HV_EXIT_KICKED);
		thread_join(&m.t);
		if (k[at].ended)
			break;
		move(&k[at], &k[(at + 1) % n]);
		at = (at + 1) % n;
		moves++;
	}
	print_message("%u moves\n", moves);
	assert_true(moves > 0);
	for (unsigned i = 0; i < 3; i++)
		assert_true(hvkit_get64(&k[at], result_at[i]) == want[i]);
	for (unsigned i = 0; i < n; i++)
		hvkit_close(&k[i]);
}

#define ROUNDS 2000000

/* To another VM of the same engine. */
static void moved(void **state)
{
	const struct hv_ops *ops[2];
	struct hvkit k;

	(void)state;
	hvkit_open_or_skip(&k, 1, NULL);
	ops[0] = ops[1] = k.ops;
	hvkit_close(&k);
	relay(ops, 2, HVKIT_USER, ROUNDS);
	/* A paravirtual KVM cannot interpret SSE at CPL 0. */
	if (hvkit_fit())
		relay(ops, 2, 0, ROUNDS);
}

/* From KVM to the software CPU and back, many times. */
static void between_engines(void **state)
{
	const struct hv_ops *const there[2] = { &hv_kvm_ops, &hv_soft_ops };
	const struct hv_ops *const back[2] = { &hv_soft_ops, &hv_kvm_ops };
	struct hv_info info;

	(void)state;
	if (hv_probe(&hv_kvm_ops, &info, NULL) ||
	    hv_probe(&hv_soft_ops, &info, NULL))
		skip_because("needs both engines");
	relay(there, 2, HVKIT_USER, ROUNDS);
	relay(back, 2, HVKIT_USER, ROUNDS);
	if (!hv_kvm_fitness(NULL)) {
		relay(there, 2, 0, ROUNDS);
		relay(back, 2, 0, ROUNDS);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trip),
		cmocka_unit_test(vm_round_trip),
		cmocka_unit_test(moved),
		cmocka_unit_test(between_engines),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
