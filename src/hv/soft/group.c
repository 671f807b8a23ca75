/*
 * Groups 6 and 7 (0F 00, 0F 01) and their relatives: descriptor table
 * registers, SMSW/LMSW, INVLPG, INVPCID, CLAC/STAC, FSGSBASE, RDTSC(P), RDPMC,
 * hypercalls.
 *
 * SDM vol. 2, at each instruction; UMIP: vol. 3, 2.5.
 */
#include <string.h>

#include "base/bytes.h"
#include "hv/soft/desc.h"

static void gp(struct soft_cpu *cpu) __attribute__((noreturn));
static void gp(struct soft_cpu *cpu)
{
	soft_fault(cpu, X86_GP, 0);
}

static void privileged(struct soft_cpu *cpu)
{
	if (cpu->cpl)
		gp(cpu);
}

static void umip(struct soft_cpu *cpu)
{
	if (cpu->cpl && cpu->cr4 & CR4_UMIP)
		gp(cpu);
}

/* SLDT, STR, SMSW: 16 bits to memory, the operand size to a register. */
static void store16(struct soft_cpu *cpu, const struct insn *i, uint64_t v)
{
	if (i->flags & INSN_MEM)
		soft_write(cpu, soft_ea(cpu, i, 2, true), 2, v & 0xffff,
			   SOFT_DATA);
	else if (i->osize == 2)
		memcpy(&cpu->gpr[i->rm], &v, 2);
	else
		cpu->gpr[i->rm] = i->osize == 4 ? (uint32_t)v : v;
}

static uint16_t load16(struct soft_cpu *cpu, const struct insn *i)
{
	if (i->flags & INSN_MEM)
		return (uint16_t)soft_read(cpu, soft_ea(cpu, i, 2, false), 2,
					   SOFT_DATA);
	return (uint16_t)cpu->gpr[i->rm];
}

void soft_group6(struct soft_cpu *cpu, struct insn *i)
{
	unsigned digit = i->modrm >> 3 & 7;
	uint64_t flags;
	bool ok;

	if (!soft_protected(cpu) || digit > 5)
		soft_fault0(cpu, X86_UD);
	switch (digit) {
	case 0:
		umip(cpu);
		store16(cpu, i, cpu->ldt.selector);
		break;
	case 1:
		umip(cpu);
		store16(cpu, i, cpu->tr.selector);
		break;
	case 2:
		privileged(cpu);
		soft_lldt(cpu, load16(cpu, i));
		break;
	case 3:
		privileged(cpu);
		soft_ltr(cpu, load16(cpu, i));
		break;
	default: /* VERR, VERW */
		ok = soft_verr(cpu, load16(cpu, i), digit == 5);
		flags = soft_get_flags(cpu) & ~(uint64_t)FL_ZF;
		soft_set_flags(cpu, flags | (ok ? FL_ZF : 0));
	}
}

static void store_table(struct soft_cpu *cpu, const struct insn *i,
			const struct hv_x86_table *t)
{
	unsigned n = cpu->mode & MODE_64 ? 10 : 6;
	uint8_t b[10];

	umip(cpu);
	put_le16(b, t->limit);
	put_le64(b + 2, t->base);
	soft_write_bytes(cpu, soft_ea(cpu, i, n, true), b, n, SOFT_DATA);
}

static void load_table(struct soft_cpu *cpu, const struct insn *i,
		       struct hv_x86_table *t)
{
	unsigned n = cpu->mode & MODE_64 ? 10 : 6;
	uint8_t b[10] = { 0 };
	uint64_t base;

	privileged(cpu);
	soft_read_bytes(cpu, soft_ea(cpu, i, n, false), b, n, SOFT_DATA);
	base = get_le64(b + 2);
	if (n == 6 && i->osize == 2)
		base &= 0xffffff;
	if (!soft_canonical(base))
		gp(cpu);
	t->limit = get_le16(b);
	t->base = base;
}

/* KVM's hypercalls: none is offered, and the guest is told so. */
static void hypercall(struct soft_cpu *cpu)
{
	enum { KVM_ENOSYS = 1000, KVM_EPERM = 1 };

	cpu->gpr[X86_RAX] = (uint64_t)(cpu->cpl ? -KVM_EPERM : -KVM_ENOSYS);
	if (!(cpu->mode & MODE_64))
		cpu->gpr[X86_RAX] = (uint32_t)cpu->gpr[X86_RAX];
}

static void set_ac(struct soft_cpu *cpu, bool on)
{
	if (cpu->cpl)
		soft_fault0(cpu, X86_UD);
	if (on)
		cpu->rflags |= FL_AC;
	else
		cpu->rflags &= ~(uint64_t)FL_AC;
	soft_mode_changed(cpu);
}

static void rdtscp(struct soft_cpu *cpu)
{
	soft_rdtsc(cpu);
	cpu->gpr[X86_RCX] = (uint32_t)cpu->msr[HV_MSR_TSC_AUX];
}

static void group7_reg(struct soft_cpu *cpu, struct insn *i)
{
	switch (i->modrm) {
	case 0xc1: /* VMCALL */
	case 0xd9: /* VMMCALL: KVM accepts either */
		hypercall(cpu);
		return;
	case 0xca:
		set_ac(cpu, false);
		return;
	case 0xcb:
		set_ac(cpu, true);
		return;
	case 0xf8:
		soft_swapgs(cpu);
		return;
	case 0xf9:
		rdtscp(cpu);
		return;
	}
	switch (i->modrm >> 3 & 7) {
	case 4:
		umip(cpu);
		store16(cpu, i, cpu->cr0);
		return;
	case 6:
		privileged(cpu); /* before the operand is read */
		soft_lmsw(cpu, load16(cpu, i));
		return;
	}
	/* MONITOR, MWAIT, XGETBV, VMX, SVM, SGX, PKU ...: hidden */
	soft_fault0(cpu, X86_UD);
}

static void group7_mem(struct soft_cpu *cpu, struct insn *i)
{
	switch (i->modrm >> 3 & 7) {
	case 0:
		store_table(cpu, i, &cpu->gdt);
		break;
	case 1:
		store_table(cpu, i, &cpu->idt);
		break;
	case 2:
		load_table(cpu, i, &cpu->gdt);
		break;
	case 3:
		load_table(cpu, i, &cpu->idt);
		break;
	case 4:
		umip(cpu);
		store16(cpu, i, cpu->cr0);
		break;
	case 6:
		privileged(cpu); /* before the operand is read */
		soft_lmsw(cpu, load16(cpu, i));
		break;
	case 7: { /* INVLPG: no limit or canonical fault, it just does nothing */
		uint64_t la = soft_lea(cpu, i) + cpu->ea_base[i->seg];

		privileged(cpu);
		if (!(cpu->mode & MODE_64))
			la = (uint32_t)la;
		if (soft_canonical(la))
			soft_tlb_flush_page(cpu, la);
		break;
	}
	default:
		soft_fault0(cpu, X86_UD);
	}
}

void soft_group7(struct soft_cpu *cpu, struct insn *i)
{
	if (i->flags & INSN_MEM)
		group7_mem(cpu, i);
	else
		group7_reg(cpu, i);
}

void soft_invpcid(struct soft_cpu *cpu, struct insn *i)
{
	uint64_t type = cpu->gpr[i->reg], la;
	uint8_t b[16];
	unsigned pcid;

	if (!(i->flags & INSN_MEM) || i->pfx != 0x66 || cpu->rflags & FL_VM)
		soft_fault0(cpu, X86_UD);
	privileged(cpu);
	if (!(cpu->mode & MODE_64))
		type = (uint32_t)type;
	soft_read_bytes(cpu, soft_ea(cpu, i, 16, false), b, 16, SOFT_DATA);
	la = get_le64(b + 8);
	pcid = get_le16(b) & 0xfff;
	if (type > 3)
		gp(cpu);
	if (type < 2) {
		if (get_le64(b) >> 12 || (pcid && !(cpu->cr4 & CR4_PCIDE)) ||
		    (type == 0 && !soft_canonical(la)))
			gp(cpu);
	}
	switch (type) {
	case 0:
		soft_tlb_flush_page_pcid(cpu, la, pcid);
		break;
	case 1:
		soft_tlb_flush_pcid(cpu, pcid);
		break;
	case 2:
		soft_tlb_flush_all(cpu);
		break;
	case 3:
		soft_tlb_flush_all_nonglobal(cpu);
		break;
	}
}

/* RDFSBASE, RDGSBASE, WRFSBASE, WRGSBASE: F3 0F AE /0../3. */
void soft_fsgsbase(struct soft_cpu *cpu, struct insn *i)
{
	unsigned digit = i->modrm >> 3 & 7;
	struct soft_seg *s = &cpu->seg[digit & 1 ? X86_GS : X86_FS];
	uint64_t v;

	if (digit > 3 || i->flags & INSN_MEM || i->pfx != 0xf3 ||
	    !(cpu->mode & MODE_64) || !(cpu->cr4 & CR4_FSGSBASE))
		soft_fault0(cpu, X86_UD);
	if (digit < 2) {
		cpu->gpr[i->rm] = i->osize == 8 ? s->base : (uint32_t)s->base;
		return;
	}
	v = i->osize == 8 ? cpu->gpr[i->rm] : (uint32_t)cpu->gpr[i->rm];
	if (!soft_canonical(v))
		gp(cpu);
	s->base = v;
	soft_mode_changed(cpu);
}

void soft_rdtsc(struct soft_cpu *cpu)
{
	uint64_t t;

	if (cpu->cpl && cpu->cr4 & CR4_TSD && cpu->cr0 & CR0_PE)
		gp(cpu);
	t = soft_tsc(cpu);
	cpu->gpr[X86_RAX] = (uint32_t)t;
	cpu->gpr[X86_RDX] = t >> 32;
}

/* There are no counters, so no index is valid. */
void soft_rdpmc(struct soft_cpu *cpu)
{
	gp(cpu);
}
