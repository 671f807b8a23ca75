/*
 * RDMSR and WRMSR.
 *
 * SDM vol. 4; for kvm-clock Documentation/virt/kvm/x86/msr.rst of Linux. What
 * is not listed here does not exist: #GP(0). A value with reserved bits set is
 * #GP(0) as well.
 *
 * The MTRRs and PAT are kept and read back; all RAM is write-back and nothing
 * else depends on them.
 */
#include "base/clock.h"
#include "hv/soft/clock.h"
#include "hv/soft/cpu.h"
#include "hv/soft/cpuid.h"
#include "irq/x86/kvmclock.h"
#include "irq/x86/lapic.h"

enum {
	MSR_TSC = 0x10,
	MSR_PLATFORM_ID = 0x17,
	MSR_APIC_BASE = 0x1b,
	MSR_FEATURE_CONTROL = 0x3a,
	MSR_TSC_ADJUST = 0x3b,
	MSR_UCODE_REV = 0x8b,
	MSR_MTRRCAP = 0xfe,
	MSR_SYSENTER_CS = 0x174,
	MSR_SYSENTER_ESP = 0x175,
	MSR_SYSENTER_EIP = 0x176,
	MSR_MCG_CAP = 0x179,
	MSR_MCG_STATUS = 0x17a,
	MSR_MISC_ENABLE = 0x1a0,
	MSR_DEBUGCTL = 0x1d9,
	MSR_MTRR_PHYS = 0x200,
	MSR_PAT = 0x277,
	MSR_MTRR_DEF_TYPE = 0x2ff,
	MSR_TSC_DEADLINE = 0x6e0,
	MSR_X2APIC = 0x800,
	MSR_X2APIC_END = 0x900,
};
enum {
	MSR_EFER = (int)0xc0000080,
	MSR_STAR = (int)0xc0000081,
	MSR_LSTAR = (int)0xc0000082,
	MSR_CSTAR = (int)0xc0000083,
	MSR_SFMASK = (int)0xc0000084,
	MSR_FS_BASE = (int)0xc0000100,
	MSR_GS_BASE = (int)0xc0000101,
	MSR_KERNEL_GS_BASE = (int)0xc0000102,
	MSR_TSC_AUX = (int)0xc0000103,
};

/* 8 variable ranges, fixed ranges, write combining. */
#define MTRRCAP_VALUE 0x508
/* A revision that no erratum check of a guest minds. */
#define UCODE_REVISION 0x10000000ull

static void gp(struct soft_cpu *cpu) __attribute__((noreturn));
static void gp(struct soft_cpu *cpu)
{
	soft_fault(cpu, X86_GP, 0);
}

/* Where an MTRR is kept; -1: not an MTRR. */
static int mtrr_slot(uint32_t msr)
{
	if (msr >= MSR_MTRR_PHYS && msr < MSR_MTRR_PHYS + 16)
		return (msr & 1 ? HV_MSR_MTRR_PHYSMASK_0
				: HV_MSR_MTRR_PHYSBASE_0) +
		       (int)(msr - MSR_MTRR_PHYS) / 2;
	switch (msr) {
	case 0x250:
		return HV_MSR_MTRR_FIX64K;
	case 0x258:
		return HV_MSR_MTRR_FIX16K_0;
	case 0x259:
		return HV_MSR_MTRR_FIX16K_1;
	case MSR_MTRR_DEF_TYPE:
		return HV_MSR_MTRR_DEF_TYPE;
	}
	if (msr >= 0x268 && msr <= 0x26f)
		return HV_MSR_MTRR_FIX4K_0 + (int)(msr - 0x268);
	return -1;
}

/* Memory types: UC WC WT WP WB, and UC- in the PAT. */
static bool types_valid(uint64_t v, uint32_t allowed)
{
	for (unsigned k = 0; k < 8; k++)
		if (v >> 8 * k & 0xe0 || !(allowed >> (v >> 8 * k & 31) & 1))
			return false;
	return true;
}

static bool mtrr_valid(struct soft_cpu *cpu, uint32_t msr, uint64_t v)
{
	uint64_t phys = (1ull << soft_phys_bits(cpu)) - 1;
	enum { TYPES = 0x73 };

	if (msr == MSR_MTRR_DEF_TYPE)
		return !(v & ~0xcffull) && (v & 0xff) < 7 &&
		       TYPES >> (v & 7) & 1;
	if (msr >= 0x250)
		return types_valid(v, TYPES);
	if (msr & 1)
		return !(v & ~(phys & ~0x7ffull));
	return !(v & ~(phys & ~0xf00ull)) && (v & 0xff) < 7 &&
	       TYPES >> (v & 7) & 1;
}

/* Plain registers: kept, read back. -1: none of them. */
static int plain_slot(uint32_t msr)
{
	switch (msr) {
	case MSR_SYSENTER_CS:
		return HV_MSR_SYSENTER_CS;
	case MSR_SYSENTER_ESP:
		return HV_MSR_SYSENTER_ESP;
	case MSR_SYSENTER_EIP:
		return HV_MSR_SYSENTER_EIP;
	case MSR_PAT:
		return HV_MSR_PAT;
	case MSR_MISC_ENABLE:
		return HV_MSR_MISC_ENABLE;
	case MSR_TSC_ADJUST:
		return HV_MSR_TSC_ADJUST;
	case (uint32_t)MSR_STAR:
		return HV_MSR_STAR;
	case (uint32_t)MSR_LSTAR:
		return HV_MSR_LSTAR;
	case (uint32_t)MSR_CSTAR:
		return HV_MSR_CSTAR;
	case (uint32_t)MSR_SFMASK:
		return HV_MSR_SFMASK;
	case (uint32_t)MSR_KERNEL_GS_BASE:
		return HV_MSR_KERNEL_GS_BASE;
	case (uint32_t)MSR_TSC_AUX:
		return HV_MSR_TSC_AUX;
	case MSR_KVM_WALL_CLOCK:
	case MSR_KVM_WALL_CLOCK_OLD:
		return HV_MSR_KVM_WALL_CLOCK;
	case MSR_KVM_SYSTEM_TIME:
	case MSR_KVM_SYSTEM_TIME_OLD:
		return HV_MSR_KVM_SYSTEM_TIME;
	}
	return mtrr_slot(msr);
}

uint64_t soft_rdmsr(struct soft_cpu *cpu, uint32_t msr)
{
	int slot = plain_slot(msr);
	uint64_t v;

	if (cpu->cpl)
		gp(cpu);
	if (slot >= 0)
		return cpu->msr[slot];
	if (msr == MSR_TSC_DEADLINE ||
	    (msr >= MSR_X2APIC && msr < MSR_X2APIC_END)) {
		if (!lapic_msr_read(cpu->lapic, msr, &v))
			gp(cpu);
		return v;
	}
	switch (msr) {
	case MSR_TSC:
		return soft_tsc(cpu);
	case MSR_APIC_BASE:
		return lapic_base(cpu->lapic);
	case MSR_FEATURE_CONTROL:
		return 1; /* locked, nothing enabled */
	case MSR_UCODE_REV:
		return UCODE_REVISION << 32;
	case MSR_MTRRCAP:
		return MTRRCAP_VALUE;
	case MSR_PLATFORM_ID:
	case MSR_MCG_CAP: /* no banks */
	case MSR_MCG_STATUS:
	case MSR_DEBUGCTL:
		return 0;
	case (uint32_t)MSR_EFER:
		return cpu->efer;
	case (uint32_t)MSR_FS_BASE:
		return cpu->seg[X86_FS].base;
	case (uint32_t)MSR_GS_BASE:
		return cpu->seg[X86_GS].base;
	}
	gp(cpu);
}

static void write_efer(struct soft_cpu *cpu, uint64_t v)
{
	uint64_t may = EFER_SCE | EFER_LME | EFER_NXE;

	if (v & ~(may | EFER_LMA))
		gp(cpu);
	if (cpu->cr0 & CR0_PG && (v ^ cpu->efer) & EFER_LME)
		gp(cpu);
	cpu->efer = (v & may) | (cpu->efer & EFER_LMA);
	soft_paging_changed(cpu);
	soft_tlb_flush_all(cpu);
	soft_mode_changed(cpu);
}

static void write_tsc(struct soft_cpu *cpu, uint64_t delta)
{
	cpu->tsc_offset += delta;
	cpu->msr[HV_MSR_TSC_ADJUST] += delta;
	lapic_tsc_changed(cpu->lapic);
	soft_clock_publish(cpu);
}

/* What the register @msr of plain_slot() accepts. */
static bool plain_valid(struct soft_cpu *cpu, uint32_t msr, uint64_t v)
{
	switch (msr) {
	case MSR_SYSENTER_ESP:
	case MSR_SYSENTER_EIP:
	case (uint32_t)MSR_LSTAR:
	case (uint32_t)MSR_CSTAR:
	case (uint32_t)MSR_KERNEL_GS_BASE:
		return soft_canonical(v);
	case (uint32_t)MSR_SFMASK:
	case (uint32_t)MSR_TSC_AUX:
	case MSR_SYSENTER_CS:
		return !(v >> 32);
	case MSR_PAT:
		return types_valid(v, 0xf3);
	case MSR_KVM_WALL_CLOCK:
	case MSR_KVM_WALL_CLOCK_OLD:
	case MSR_KVM_SYSTEM_TIME:
	case MSR_KVM_SYSTEM_TIME_OLD:
		return kvmclock_msr_valid(msr, v);
	}
	return mtrr_slot(msr) < 0 || mtrr_valid(cpu, msr, v);
}

static void write_plain(struct soft_cpu *cpu, uint32_t msr, int slot,
			uint64_t v)
{
	if (!plain_valid(cpu, msr, v))
		gp(cpu);
	if (msr == MSR_TSC_ADJUST) {
		write_tsc(cpu, v - cpu->msr[HV_MSR_TSC_ADJUST]);
		return;
	}
	cpu->msr[slot] = v;
	if (slot == HV_MSR_KVM_SYSTEM_TIME)
		soft_clock_publish(cpu);
	else if (slot == HV_MSR_KVM_WALL_CLOCK)
		soft_clock_wall(cpu, v);
}

static void write_base(struct soft_cpu *cpu, enum x86_seg seg, uint64_t v)
{
	if (!soft_canonical(v))
		gp(cpu);
	cpu->seg[seg].base = v;
	soft_mode_changed(cpu);
}

void soft_wrmsr(struct soft_cpu *cpu, uint32_t msr, uint64_t v)
{
	int slot = plain_slot(msr);

	if (cpu->cpl)
		gp(cpu);
	if (slot >= 0) {
		write_plain(cpu, msr, slot, v);
		return;
	}
	if (msr == MSR_TSC_DEADLINE ||
	    (msr >= MSR_X2APIC && msr < MSR_X2APIC_END)) {
		if (!lapic_msr_write(cpu->lapic, msr, v))
			gp(cpu);
		return;
	}
	switch (msr) {
	case MSR_TSC:
		write_tsc(cpu, v - soft_tsc(cpu));
		return;
	case MSR_APIC_BASE:
		if (!lapic_set_base(cpu->lapic, v))
			gp(cpu);
		cpu->apic_base = lapic_base(cpu->lapic);
		return;
	case MSR_UCODE_REV:
		return; /* asks for the revision to be loaded */
	case MSR_MCG_STATUS:
		if (v)
			gp(cpu);
		return;
	case MSR_DEBUGCTL: /* LBR and BTF: accepted, without effect */
		if (v & ~3ull)
			gp(cpu);
		return;
	case (uint32_t)MSR_EFER:
		write_efer(cpu, v);
		return;
	case (uint32_t)MSR_FS_BASE:
		write_base(cpu, X86_FS, v);
		return;
	case (uint32_t)MSR_GS_BASE:
		write_base(cpu, X86_GS, v);
		return;
	}
	gp(cpu);
}
