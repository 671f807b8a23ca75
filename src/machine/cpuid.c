/*
 * The CPU a guest sees: what the engine can give, less what this VMM does not
 * carry, plus the topology (one socket, one thread per core, APIC ID = index).
 *
 * Left out, and why:
 *   VMX, SVM     a nested guest's state is in no snapshot
 *   AMX          its 8 KiB of registers do not fit the state struct
 *   PMU          counters are not virtualised alike by any two engines, and
 *                probing them costs exits
 *   MONITOR      a waiting vCPU would burn its host CPU
 *   SGX, PT, RDT host facilities that need more than CPUID
 *   KVM's async page faults and halt polling: their MSRs are not in the state
 *
 * BOARD_CPU_BASE further cuts down to x86-64-v2 without XSAVE, so that the
 * bits are the same under every engine and host (of one vendor).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "machine/board_impl.h"

#define BIT(n) (1u << (n))

enum {
	KVM_CLOCKSOURCE = 0,
	KVM_NOP_IO_DELAY = 1,
	KVM_CLOCKSOURCE2 = 3,
	KVM_STEAL_TIME = 5,
	KVM_PV_EOI = 6,
	KVM_PV_UNHALT = 7,
	KVM_PV_TLB_FLUSH = 9,
	KVM_PV_SEND_IPI = 11,
	KVM_PV_SCHED_YIELD = 13,
	KVM_CLOCKSOURCE_STABLE = 24,
};

#define LEAF_SIGNATURE 0x40000000u
#define LEAF_FEATURES  0x40000001u
#define LEAF_TIMING    0x40000010u
#define APIC_BUS_KHZ   1000000 /* what KVM's LAPIC timer counts */

/* A word of feature bits: which leaf and register, what is left out always, and
 * what BOARD_CPU_BASE keeps. */
struct mask {
	uint32_t leaf, subleaf;
	unsigned reg; /* 0 EAX .. 3 EDX */
	uint32_t never, base;
};

/* clang-format off */
static const struct mask masks[] = {
	{ 1, 0, 2,
	  BIT(2)  /* DTES64 */ | BIT(3) /* MONITOR */ | BIT(4) /* DS-CPL */ |
	  BIT(5)  /* VMX */ | BIT(6) /* SMX */ | BIT(7) /* EST */ |
	  BIT(8)  /* TM2 */ | BIT(15) /* PDCM */,
	  BIT(0)  /* SSE3 */ | BIT(9) /* SSSE3 */ | BIT(13) /* CX16 */ |
	  BIT(17) /* PCID */ | BIT(19) /* SSE4.1 */ | BIT(20) /* SSE4.2 */ |
	  BIT(21) /* x2APIC */ | BIT(23) /* POPCNT */ |
	  BIT(24) /* TSC deadline */ | BIT(31) /* hypervisor */ },
	{ 1, 0, 3,
	  BIT(21) /* DS */ | BIT(22) /* ACPI */ |
	  BIT(29) /* TM */ | BIT(31) /* PBE */,
	  ~(BIT(18) /* PSN */ | BIT(21) | BIT(22) | BIT(29) | BIT(31)) },
	{ 6, 0, 0, ~BIT(2) /* ARAT is all */, BIT(2) },
	{ 6, 0, 1, ~0u, 0 },
	{ 6, 0, 2, ~0u, 0 },
	{ 7, 0, 0, 0, 0 }, /* number of subleaves */
	{ 7, 0, 1,
	  BIT(2) /* SGX */ | BIT(12) /* RDT-M */ | BIT(15) /* RDT-A */ |
	  BIT(25) /* PT */,
	  BIT(0) /* FSGSBASE */ | BIT(7) /* SMEP */ | BIT(9) /* ERMS */ |
	  BIT(20) /* SMAP */ },
	{ 7, 0, 2, BIT(5) /* WAITPKG */ | BIT(30) /* SGX_LC */, 0 },
	{ 7, 0, 3,
	  BIT(22) | BIT(24) | BIT(25) /* AMX */ | BIT(19) /* arch LBR */, 0 },
	{ 7, 1, 0, BIT(21) /* AMX-FP16 */, 0 },
	{ 0xd, 0, 0, BIT(17) | BIT(18) /* AMX state */, 0 },
	{ 0x80000001, 0, 2,
	  BIT(2) /* SVM */ | BIT(10) /* IBS */ | BIT(12) /* SKINIT */ |
	  BIT(15) /* LWP */ | BIT(23) | BIT(24) | BIT(28) /* PMU */ |
	  BIT(29) /* MWAITX */,
	  BIT(0) /* LAHF */ | BIT(1) /* CmpLegacy */ |
	  BIT(8) /* 3DNow prefetch */ },
	{ 0x80000001, 0, 3, 0,
	  ~(BIT(22) /* MMXEXT */ | BIT(25) /* FFXSR */ |
	    BIT(30) | BIT(31) /* 3DNow */) },
	{ 0x80000007, 0, 3, ~BIT(8) /* invariant TSC is all */, BIT(8) },
	{ 0x80000008, 0, 1, 0, 0 },
	{ LEAF_FEATURES, 0, 0,
	  ~(BIT(KVM_CLOCKSOURCE) | BIT(KVM_NOP_IO_DELAY) |
	    BIT(KVM_CLOCKSOURCE2) | BIT(KVM_STEAL_TIME) | BIT(KVM_PV_EOI) |
	    BIT(KVM_PV_UNHALT) | BIT(KVM_PV_TLB_FLUSH) | BIT(KVM_PV_SEND_IPI) |
	    BIT(KVM_PV_SCHED_YIELD) | BIT(KVM_CLOCKSOURCE_STABLE)),
	  BIT(KVM_CLOCKSOURCE) | BIT(KVM_NOP_IO_DELAY) |
	  BIT(KVM_CLOCKSOURCE2) | BIT(KVM_CLOCKSOURCE_STABLE) },
};

/* Leaves a guest gets nothing of, always or as BOARD_CPU_BASE. */
static const struct {
	uint32_t first, last;
	bool always;
} dropped[] = {
	{ 5, 5, true },           /* MONITOR */
	{ 9, 0xa, true },         /* DCA, PMU */
	{ 0xd, 0xd, false },      /* XSAVE */
	{ 0xf, 0x10, true },      /* RDT */
	{ 0x12, 0x12, true },     /* SGX */
	{ 0x14, 0x14, true },     /* PT */
	{ 0x17, 0x1c, true },
	{ 0x1d, 0x1e, true },     /* AMX */
	{ 0x1f, 0x1f, true },     /* topology again: leaf 0xb has it */
	{ 0x23, 0x24, false },
	{ 0x8000000a, 0x8000000a, true }, /* SVM */
	{ 0x8000001a, 0x8000001c, true },
	{ 0x8000001f, 0x80000026, false },
	{ 0x40000002, 0x4000ffff, true }, /* ours are made below */
};
/* clang-format on */

static uint32_t *reg_of(struct hv_x86_cpuid *l, unsigned reg)
{
	uint32_t *regs[4] = { &l->eax, &l->ebx, &l->ecx, &l->edx };

	return regs[reg & 3];
}

static bool is_dropped(uint32_t leaf, enum board_cpu cpu)
{
	for (unsigned i = 0; i < array_size(dropped); i++)
		if (leaf >= dropped[i].first && leaf <= dropped[i].last &&
		    (dropped[i].always || cpu == BOARD_CPU_BASE))
			return true;
	return false;
}

static void apply_masks(struct hv_x86_cpuid *l, enum board_cpu cpu)
{
	for (unsigned i = 0; i < array_size(masks); i++) {
		const struct mask *m = &masks[i];

		if (m->leaf != l->leaf || m->subleaf != l->subleaf)
			continue;
		*reg_of(l, m->reg) &= ~m->never;
		if (cpu == BOARD_CPU_BASE)
			*reg_of(l, m->reg) &= m->base;
	}
}

static unsigned log2_up(unsigned n)
{
	unsigned bits = 0;

	while (1u << bits < n)
		bits++;
	return bits;
}

/* Who shares a cache: EAX bits 25-14 of leaves 4 and 0x8000001d. */
static uint32_t cache_sharing(uint32_t eax, unsigned ncpus)
{
	unsigned level = eax >> 5 & 7;
	unsigned sharing = level >= 3 ? (1u << log2_up(ncpus)) - 1 : 0;

	return (eax & ~(0xfffu << 14)) | (sharing & 0xfff) << 14;
}

static void set_topology(struct hv_x86_cpuid *l, unsigned ncpus, unsigned index)
{
	unsigned bits = log2_up(ncpus);

	switch (l->leaf) {
	case 1:
		l->ebx = (l->ebx & 0xffff) | min_of(ncpus, 255u) << 16 |
			 index << 24;
		l->edx &= ~BIT(28);
		l->edx |= ncpus > 1 ? BIT(28) : 0; /* HTT */
		break;
	case 4:
		if (!(l->eax & 0x1f))
			break;
		l->eax = cache_sharing(l->eax, ncpus) & ~(0x3fu << 26);
		l->eax |= (min_of(1u << bits, 64u) - 1) << 26;
		break;
	case 0x80000001:
		l->ecx &= ~BIT(1);
		l->ecx |= ncpus > 1 ? BIT(1) : 0; /* CmpLegacy */
		break;
	case 0x80000008:
		l->ecx = bits << 12 | (min_of(ncpus, 256u) - 1);
		break;
	case 0x8000001d:
		if (l->eax & 0x1f)
			l->eax = cache_sharing(l->eax, ncpus);
		break;
	case 0x8000001e:
		l->eax = index;
		l->ebx = index & 0xff; /* core ID, one thread */
		l->ecx = 0;
		break;
	}
}

struct table {
	struct hv_x86_cpuid *leaves;
	unsigned n, max;
	bool overflow;
};

static void add(struct table *t, const struct hv_x86_cpuid *l)
{
	if (t->n < t->max)
		t->leaves[t->n++] = *l;
	else
		t->overflow = true;
}

/* Leaf 0xb: one thread per core, then all cores. */
static void add_topology(struct table *t, unsigned ncpus, unsigned index)
{
	const struct hv_x86_cpuid l[3] = {
		{ 0xb, 0, 1, 0, 1, 0 | 1 << 8, index },
		{ 0xb, 1, 1, log2_up(ncpus), ncpus, 1 | 2 << 8, index },
		{ 0xb, 2, 1, 0, 0, 2, index },
	};

	for (unsigned i = 0; i < array_size(l); i++)
		add(t, &l[i]);
}

/* KVM's signature, which is what Linux looks for to find kvm-clock. */
static void add_hypervisor(struct table *t, const struct board *b,
			   const struct hv_x86_cpuid *features)
{
	const struct hv_x86_cpuid signature = {
		.leaf = LEAF_SIGNATURE,
		.eax = LEAF_TIMING,
		.ebx = 0x4b4d564b, /* KVMK */
		.ecx = 0x564b4d56, /* VMKV */
		.edx = 0x4d, /* M */
	};
	const struct hv_x86_cpuid timing = {
		.leaf = LEAF_TIMING,
		.eax = (uint32_t)b->tsc_khz,
		.ebx = APIC_BUS_KHZ,
	};

	add(t, &signature);
	add(t, features);
	if (b->tsc_khz)
		add(t, &timing);
}

/* Ask the engine once. */
static int fetch(struct board *b, const struct hv_ops *ops)
{
	struct hv_x86_cpuid *l;
	int n;

	if (b->vm)
		b->tsc_khz = b->vm->tsc_khz;
	if (b->host_cpuid)
		return 0;
	l = calloc(HV_X86_CPUID_MAX, sizeof(*l));
	if (!l)
		return -ENOMEM;
	n = hv_supported_cpuid(ops, l, HV_X86_CPUID_MAX);
	if (n < 0) {
		free(l);
		return n;
	}
	b->host_cpuid = l;
	b->nhost_cpuid = (unsigned)n;
	return 0;
}

int board_cpuid(struct board *b, const struct hv_ops *ops, enum board_cpu cpu,
		unsigned index, struct hv_x86_cpuid *leaves, unsigned max)
{
	struct hv_x86_cpuid features = { .leaf = LEAF_FEATURES };
	struct table t = { leaves, 0, max, false };
	unsigned ncpus = b->config.ncpus;
	int r = fetch(b, ops);

	if (r < 0)
		return r;
	for (unsigned i = 0; i < b->nhost_cpuid; i++) {
		struct hv_x86_cpuid l = b->host_cpuid[i];

		if (l.leaf == 0xb || l.leaf == LEAF_SIGNATURE ||
		    is_dropped(l.leaf, cpu) ||
		    (cpu == BOARD_CPU_BASE && l.leaf == 7 && l.subleaf))
			continue;
		apply_masks(&l, cpu);
		set_topology(&l, ncpus, index);
		if (l.leaf == 0)
			l.eax = cpu == BOARD_CPU_BASE ? 0xb
						      : max_of(l.eax, 0xbu);
		if (l.leaf == LEAF_FEATURES) {
			features = l;
			features.edx = 0; /* hints: none holds everywhere */
			continue;
		}
		add(&t, &l);
	}
	add_topology(&t, ncpus, index);
	add_hypervisor(&t, b, &features);
	return t.overflow ? -E2BIG : (int)t.n;
}
