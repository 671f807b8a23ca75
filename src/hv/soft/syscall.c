/*
 * SYSCALL, SYSRET, SYSENTER, SYSEXIT, SWAPGS.
 *
 * SDM vol. 2B. As on Intel's processors SYSCALL and SYSRET exist in 64-bit mode
 * only. Segments get fixed contents, no descriptor is read.
 */
#include "hv/soft/desc.h"

static struct soft_seg flat_code(unsigned sel, unsigned dpl, bool is64)
{
	return (struct soft_seg){
		.limit = 0xffffffff,
		.selector = (uint16_t)sel,
		.attr = (uint16_t)(0x9b | dpl << 5 | SEG_G |
				   (is64 ? SEG_L : SEG_DB)),
	};
}

static struct soft_seg flat_stack(unsigned sel, unsigned dpl)
{
	return (struct soft_seg){
		.limit = 0xffffffff,
		.selector = (uint16_t)sel,
		.attr = (uint16_t)(0x93 | dpl << 5 | SEG_G | SEG_DB),
	};
}

static void enter(struct soft_cpu *cpu, unsigned cs, unsigned ss, unsigned dpl,
		  bool is64)
{
	cpu->seg[X86_CS] = flat_code(cs, dpl, is64);
	cpu->seg[X86_SS] = flat_stack(ss, dpl);
	cpu->cpl = (uint8_t)dpl;
	soft_mode_changed(cpu);
}

void soft_syscall(struct soft_cpu *cpu)
{
	unsigned cs = cpu->msr[HV_MSR_STAR] >> 32 & 0xfffc;
	uint64_t flags = soft_get_flags(cpu);

	if (!(cpu->efer & EFER_SCE) || !(cpu->mode & MODE_64))
		soft_fault0(cpu, X86_UD);
	cpu->gpr[X86_RCX] = cpu->next_rip;
	cpu->gpr[X86_R11] = flags & ~(uint64_t)FL_RF;
	soft_set_flags(cpu,
		       flags & ~(uint64_t)FL_RF & ~cpu->msr[HV_MSR_SFMASK]);
	cpu->next_rip = cpu->msr[HV_MSR_LSTAR];
	enter(cpu, cs, cs + 8, 0, true);
}

void soft_sysret(struct soft_cpu *cpu, unsigned osize)
{
	unsigned sel = cpu->msr[HV_MSR_STAR] >> 48;
	uint64_t flags = cpu->gpr[X86_R11] & 0x3c7fd7;
	uint64_t rip = cpu->gpr[X86_RCX], old = cpu->rflags;

	if (!(cpu->efer & EFER_SCE) || !(cpu->mode & MODE_64))
		soft_fault0(cpu, X86_UD);
	if (cpu->cpl)
		soft_fault(cpu, X86_GP, 0);
	if (osize == 8) {
		if (!soft_canonical(rip))
			soft_fault(cpu, X86_GP, 0);
		cpu->next_rip = rip;
	} else {
		cpu->next_rip = (uint32_t)rip;
	}
	soft_set_flags(cpu, flags);
	if (~old & flags & FL_IF)
		soft_irq_window(cpu);
	enter(cpu, ((osize == 8 ? sel + 16 : sel) & 0xffff) | 3,
	      ((sel + 8) & 0xffff) | 3, 3, osize == 8);
}

void soft_sysenter(struct soft_cpu *cpu)
{
	unsigned cs = cpu->msr[HV_MSR_SYSENTER_CS] & 0xfffc;
	bool lm = soft_long_mode(cpu);
	uint64_t rip = cpu->msr[HV_MSR_SYSENTER_EIP];
	uint64_t rsp = cpu->msr[HV_MSR_SYSENTER_ESP];

	if (!(cpu->cr0 & CR0_PE) || !cs)
		soft_fault(cpu, X86_GP, 0);
	soft_set_flags(cpu, soft_get_flags(cpu) &
				    ~(uint64_t)(FL_VM | FL_IF | FL_RF));
	cpu->next_rip = lm ? rip : (uint32_t)rip;
	cpu->gpr[X86_RSP] = lm ? rsp : (uint32_t)rsp;
	enter(cpu, cs, cs + 8, 0, lm);
}

void soft_sysexit(struct soft_cpu *cpu, unsigned osize)
{
	unsigned cs = cpu->msr[HV_MSR_SYSENTER_CS] & 0xfffc;
	uint64_t rip = cpu->gpr[X86_RDX], rsp = cpu->gpr[X86_RCX];
	unsigned at = osize == 8 ? 32 : 16;

	if (!(cpu->cr0 & CR0_PE) || !cs || cpu->cpl)
		soft_fault(cpu, X86_GP, 0);
	if (osize == 8) {
		if (!soft_canonical(rip) || !soft_canonical(rsp))
			soft_fault(cpu, X86_GP, 0);
	} else {
		rip = (uint32_t)rip;
		rsp = (uint32_t)rsp;
	}
	cpu->next_rip = rip;
	cpu->gpr[X86_RSP] = rsp;
	enter(cpu, ((cs + at) & 0xffff) | 3, ((cs + at + 8) & 0xffff) | 3, 3,
	      osize == 8);
}

void soft_swapgs(struct soft_cpu *cpu)
{
	uint64_t base = cpu->seg[X86_GS].base;

	if (!(cpu->mode & MODE_64))
		soft_fault0(cpu, X86_UD);
	if (cpu->cpl)
		soft_fault(cpu, X86_GP, 0);
	cpu->seg[X86_GS].base = cpu->msr[HV_MSR_KERNEL_GS_BASE];
	cpu->msr[HV_MSR_KERNEL_GS_BASE] = base;
	soft_mode_changed(cpu);
}
