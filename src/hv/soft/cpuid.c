/*
 * CPUID: the CPU model of the software engine.
 *
 * SDM vol. 2A "CPUID"; Documentation/virt/kvm/x86/cpuid.rst of Linux for
 * 0x40000000.
 *
 * x86-64-v2 (SSE4.2, POPCNT, CX16, LAHF) with what a kernel uses to be fast and
 * safe: PCID, PGE, 1 GiB pages, NX, SMEP, SMAP, UMIP, FSGSBASE, INVPCID, fast
 * REP MOVS/STOS, x2APIC, TSC deadline, ARAT, invariant TSC, RDTSCP. With these,
 * kvm-clock and the frequencies in 0x40000010 Linux needs no PIT and no HPET.
 * AVX, XSAVE, MONITOR, VME, performance counters and machine check banks are
 * not there.
 *
 * Signature: an Intel family 6 model that executes in order. That is what an
 * interpreter is: it speculates nothing, and operating systems that keep lists
 * of processors with side channels rightly switch their countermeasures off.
 */
#include <errno.h>
#include <string.h>

#include "hv/soft/clock.h"
#include "hv/soft/cpu.h"
#include "hv/soft/cpuid.h"
#include "hv/soft/thunk.h"
#include "irq/x86/irqchip.h"

#define BIT(n) (1u << (n))

/* Family 6, model 0x1c, stepping 10. */
#define SIGNATURE 0x000106cau

enum {
	/* SSE3 to SSE4.2, AES and PCLMULQDQ: what the host has of them. */
	L1C = BIT(13) /* CX16 */ | BIT(17) /* PCID */ | BIT(21) /* x2APIC */ |
	      BIT(23) /* POPCNT */ | BIT(24) /* TSC deadline */,
	L1D = BIT(0) /* FPU */ | BIT(2) /* DE */ | BIT(3) /* PSE */ |
	      BIT(4) /* TSC */ | BIT(5) /* MSR */ | BIT(6) /* PAE */ |
	      BIT(7) /* MCE */ | BIT(8) /* CX8 */ | BIT(9) /* APIC */ |
	      BIT(11) /* SEP */ | BIT(12) /* MTRR */ | BIT(13) /* PGE */ |
	      BIT(14) /* MCA */ | BIT(15) /* CMOV */ | BIT(16) /* PAT */ |
	      BIT(17) /* PSE-36 */ | BIT(19) /* CLFLUSH */ | BIT(23) /* MMX */ |
	      BIT(24) /* FXSR */ | BIT(25) /* SSE */ | BIT(26) /* SSE2 */ |
	      BIT(27) /* self snoop */,
	L7B = BIT(0) /* FSGSBASE */ | BIT(1) /* TSC_ADJUST */ |
	      BIT(7) /* SMEP */ | BIT(9) /* ERMS */ | BIT(10) /* INVPCID */ |
	      BIT(13) /* FCS and FDS are 0 */ | BIT(20) /* SMAP */,
	L7C = BIT(2) /* UMIP */,
	L7D = BIT(4) /* fast short REP MOV */,
	E1C = BIT(0) /* LAHF */ | BIT(8) /* PREFETCHW */,
	E1D = BIT(11) /* SYSCALL */ | BIT(20) /* NX */ | BIT(26) /* 1 GiB */ |
	      BIT(27) /* RDTSCP */ | BIT(29) /* long mode */,
	/* kvm-clock (old and new MSRs), no I/O delay, stable clock */
	KVM_FEATURES = BIT(0) | BIT(1) | BIT(3) | BIT(24),
};

#define CACHE(type, level, ways, sets, threads)                        \
	.eax = (type) | (level) << 5 | 1u << 8 | (threads - 1u) << 14, \
	.ebx = ((ways)-1u) << 22 | 63, .ecx = (sets)-1u

/* clang-format off */
static const struct hv_x86_cpuid model[] = {
	{ 0, .eax = 0xd, .ebx = 0x756e6547, .edx = 0x49656e69, .ecx = 0x6c65746e },
	{ 1, .eax = SIGNATURE, .ebx = 8 << 8 | 1 << 16, .ecx = L1C | BIT(31),
	  .edx = L1D },
	{ 2, .eax = 0x00ff01 }, /* "see leaf 4" */
	{ .leaf = 3 },
	{ 4, 0, 1, CACHE(1, 1, 8, 64, 1) }, /* L1D 32 KiB */
	{ 4, 1, 1, CACHE(2, 1, 8, 64, 1) }, /* L1I 32 KiB */
	{ 4, 2, 1, CACHE(3, 2, 16, 1024, 1) }, /* L2 1 MiB */
	{ 4, 3, 1, .eax = 0 },
	{ .leaf = 5 },
	{ 6, .eax = BIT(2) /* ARAT */ },
	{ 7, 0, 1, .ebx = L7B, .ecx = L7C, .edx = L7D },
	{ .leaf = 8 }, { .leaf = 9 }, { .leaf = 0xa },
	{ 0xb, 0, 1, .ebx = 1, .ecx = 0x100 },
	{ 0xb, 1, 1, .ebx = 1, .ecx = 0x201 },
	{ 0xb, 2, 1, .ecx = 2 },
	{ .leaf = 0xc },
	{ 0xd, 0, 1, .eax = 0 },
	{ 0xd, 1, 1, .eax = 0 },
	{ 0x40000000, .eax = 0x40000010, .ebx = 0x4b4d564b, .ecx = 0x564b4d56,
	  .edx = 0x4d },
	{ 0x40000001, .eax = KVM_FEATURES },
	{ .leaf = 0x40000010 }, /* TSC and bus kHz: soft_cpuid() */
	{ 0x80000000, .eax = 0x80000008 },
	{ 0x80000001, .ecx = E1C, .edx = E1D },
	/* "arcvmm software CPU" */
	{ 0x80000002, .eax = 0x76637261, .ebx = 0x73206d6d, .ecx = 0x7774666f,
	  .edx = 0x20657261 },
	{ 0x80000003, .eax = 0x00555043 },
	{ .leaf = 0x80000004 },
	{ .leaf = 0x80000005 },
	{ 0x80000006, .ecx = 1024 << 16 | 8 << 12 | 64 },
	{ 0x80000007, .edx = BIT(8) /* invariant TSC */ },
	{ 0x80000008, .eax = 48 << 8 | SOFT_PHYS_BITS },
};
/* clang-format on */

int soft_supported_cpuid(struct hv_x86_cpuid *leaves, unsigned max)
{
	unsigned n = sizeof(model) / sizeof(model[0]);

	if (n > max)
		return -E2BIG;
	memcpy(leaves, model, sizeof(model));
	for (unsigned k = 0; k < n; k++)
		if (leaves[k].leaf == 1)
			leaves[k].ecx |= thunk_cpuid_1c();
	return (int)n;
}

const struct hv_x86_cpuid *soft_cpuid_leaf(const struct soft_cpu *cpu,
					   uint32_t leaf, uint32_t subleaf)
{
	for (unsigned k = 0; k < cpu->ncpuid; k++) {
		const struct hv_x86_cpuid *c = &cpu->cpuid[k];

		if (c->leaf == leaf &&
		    (!c->subleaf_matters || c->subleaf == subleaf))
			return c;
	}
	return NULL;
}

unsigned soft_phys_bits(const struct soft_cpu *cpu)
{
	const struct hv_x86_cpuid *c = soft_cpuid_leaf(cpu, 0x80000008, 0);
	unsigned bits = c ? c->eax & 0xff : 36;

	return bits < 32 ? 32 : bits > 52 ? 52 : bits;
}

uint64_t soft_cr4_allowed(const struct soft_cpu *cpu)
{
	const struct hv_x86_cpuid *l1 = soft_cpuid_leaf(cpu, 1, 0);
	const struct hv_x86_cpuid *l7 = soft_cpuid_leaf(cpu, 7, 0);
	uint64_t may = CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_MCE |
		       CR4_PGE | CR4_PCE | CR4_OSFXSR | CR4_OSXMMEXC;

	if (l1 && l1->ecx & BIT(17))
		may |= CR4_PCIDE;
	if (!l7)
		return may;
	if (l7->ebx & BIT(0))
		may |= CR4_FSGSBASE;
	if (l7->ebx & BIT(7))
		may |= CR4_SMEP;
	if (l7->ebx & BIT(20))
		may |= CR4_SMAP;
	if (l7->ecx & BIT(2))
		may |= CR4_UMIP;
	return may;
}

/*
 * What is out of range answers as the highest basic leaf does (Intel's way). A
 * few fields depend on the vCPU: its APIC ID, and the frequencies.
 */
void soft_cpuid(struct soft_cpu *cpu)
{
	uint32_t leaf = (uint32_t)cpu->gpr[X86_RAX];
	uint32_t sub = (uint32_t)cpu->gpr[X86_RCX];
	uint32_t id = cpu->hv.index;
	const struct hv_x86_cpuid *c = soft_cpuid_leaf(cpu, leaf, sub), *top;
	struct hv_x86_cpuid r;

	memset(&r, 0, sizeof(r));
	if (c) {
		r = *c;
	} else {
		top = soft_cpuid_leaf(cpu, leaf & 0xffff0000, 0);
		if ((!top || leaf > top->eax) && leaf >> 16 != 0x4000) {
			top = soft_cpuid_leaf(cpu, 0, 0);
			c = top ? soft_cpuid_leaf(cpu, top->eax, sub) : NULL;
			if (c)
				r = *c;
		}
	}
	switch (leaf) {
	case 0x40000010:
		if (c && !r.eax) {
			r.eax = (uint32_t)soft_vm_clock(cpu->vm)->tsc_khz;
			r.ebx = IRQCHIP_BUS_KHZ;
		}
		break;
	case 1:
		r.ebx = (r.ebx & 0x00ffffff) | id << 24;
		break;
	case 0xb:
		r.edx = id;
		r.ecx = (r.ecx & ~0xffu) | (sub & 0xff);
		break;
	}
	cpu->gpr[X86_RAX] = r.eax;
	cpu->gpr[X86_RBX] = r.ebx;
	cpu->gpr[X86_RCX] = r.ecx;
	cpu->gpr[X86_RDX] = r.edx;
}
