/*
 * MOV CRn, CLTS, LMSW, MOV DRn.
 *
 * SDM vol. 3, 2.5 (control registers), 4.1.2 (paging modes and what may change
 * them), 9.8.5 (entering long mode), 17.2 (debug registers); vol. 2B "MOV".
 *
 * A value is checked whole, then stored, then its consequences happen: paging
 * mode, TLB, LMA.
 */
#include "hv/soft/cpuid.h"
#include "hv/soft/desc.h"
#include "irq/x86/lapic.h"

static void gp(struct soft_cpu *cpu) __attribute__((noreturn));
static void gp(struct soft_cpu *cpu)
{
	soft_fault(cpu, X86_GP, 0);
}

/* Paging with PDPTE registers: PAE outside long mode. */
static bool uses_pdptes(uint64_t cr0, uint64_t cr4, uint64_t efer)
{
	return cr0 & CR0_PG && cr4 & CR4_PAE && !(efer & EFER_LMA);
}

static void write_cr0(struct soft_cpu *cpu, uint64_t v)
{
	uint64_t old = cpu->cr0, efer = cpu->efer, changed;

	if (v >> 32)
		gp(cpu);
	v &= CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_NE | CR0_WP | CR0_AM |
	     CR0_NW | CR0_CD | CR0_PG;
	v |= CR0_ET;
	if ((v & (CR0_PG | CR0_PE)) == CR0_PG ||
	    (v & (CR0_NW | CR0_CD)) == CR0_NW)
		gp(cpu);
	changed = v ^ old;
	if (changed & CR0_PG && v & CR0_PG && efer & EFER_LME) {
		/* into long mode */
		if (!(cpu->cr4 & CR4_PAE) || cpu->seg[X86_CS].attr & SEG_L ||
		    (cpu->tr.attr & SEG_TYPE) == DESC_TSS16_BUSY)
			gp(cpu);
		efer |= EFER_LMA;
	} else if (changed & CR0_PG && !(v & CR0_PG)) {
		if (cpu->mode & MODE_64 || cpu->cr4 & CR4_PCIDE)
			gp(cpu);
		efer &= ~(uint64_t)EFER_LMA;
	}
	if (changed & (CR0_PG | CR0_CD | CR0_NW) &&
	    uses_pdptes(v, cpu->cr4, efer) && !soft_pdpte_check(cpu, cpu->cr3))
		gp(cpu);

	cpu->cr0 = v;
	cpu->efer = efer;
	if (changed & (CR0_PG | CR0_PE | CR0_WP | CR0_CD | CR0_NW)) {
		soft_paging_changed(cpu);
		soft_tlb_flush_all(cpu);
	}
	soft_fp_changed(cpu);
	soft_mode_changed(cpu);
}

static void write_cr3(struct soft_cpu *cpu, uint64_t v)
{
	bool keep = false;

	if (soft_long_mode(cpu)) {
		if (cpu->cr4 & CR4_PCIDE) {
			keep = v >> 63;
			v &= ~(1ull << 63);
		}
		if (v >> soft_phys_bits(cpu))
			gp(cpu);
	} else {
		v = (uint32_t)v;
		if (uses_pdptes(cpu->cr0, cpu->cr4, cpu->efer) &&
		    !soft_pdpte_check(cpu, v))
			gp(cpu);
	}
	cpu->cr3 = v;
	soft_paging_changed(cpu);
	if (!keep)
		soft_tlb_flush_nonglobal(cpu);
}

static void write_cr4(struct soft_cpu *cpu, uint64_t v)
{
	uint64_t changed = v ^ cpu->cr4;
	enum { PAGING = CR4_PAE | CR4_PSE | CR4_PGE | CR4_SMEP | CR4_SMAP };

	if (v & ~soft_cr4_allowed(cpu))
		gp(cpu);
	if (soft_long_mode(cpu) && !(v & CR4_PAE))
		gp(cpu);
	if (changed & v & CR4_PCIDE &&
	    (!soft_long_mode(cpu) || cpu->cr3 & 0xfff))
		gp(cpu);
	if (changed & PAGING && uses_pdptes(cpu->cr0, v, cpu->efer) &&
	    !soft_pdpte_check(cpu, cpu->cr3))
		gp(cpu);
	cpu->cr4 = v;
	if (changed & (PAGING | CR4_PCIDE)) {
		soft_paging_changed(cpu);
		soft_tlb_flush_all(cpu);
	}
	soft_fp_changed(cpu);
	soft_mode_changed(cpu);
}

static void check_cr(struct soft_cpu *cpu, unsigned n)
{
	if (n == 1 || (n > 4 && n != 8))
		soft_fault0(cpu, X86_UD);
	if (cpu->cpl)
		gp(cpu);
}

uint64_t soft_mov_from_cr(struct soft_cpu *cpu, unsigned n)
{
	check_cr(cpu, n);
	switch (n) {
	case 0:
		return cpu->cr0;
	case 2:
		return cpu->cr2;
	case 3:
		return cpu->cr3;
	case 4:
		return cpu->cr4;
	}
	return lapic_cr8(cpu->lapic);
}

void soft_mov_to_cr(struct soft_cpu *cpu, unsigned n, uint64_t val)
{
	check_cr(cpu, n);
	if (!(cpu->mode & MODE_64))
		val = (uint32_t)val;
	switch (n) {
	case 0:
		write_cr0(cpu, val);
		break;
	case 2:
		cpu->cr2 = val;
		break;
	case 3:
		write_cr3(cpu, val);
		break;
	case 4:
		write_cr4(cpu, val);
		break;
	case 8:
		if (val > 15)
			gp(cpu);
		lapic_set_cr8(cpu->lapic, (unsigned)val);
		soft_irq_window(cpu);
		break;
	}
}

void soft_clts(struct soft_cpu *cpu)
{
	if (cpu->cpl)
		gp(cpu);
	cpu->cr0 &= ~(uint64_t)CR0_TS;
	soft_fp_changed(cpu);
}

void soft_lmsw(struct soft_cpu *cpu, uint16_t val)
{
	uint64_t may = CR0_PE | CR0_MP | CR0_EM | CR0_TS, v;

	if (cpu->cpl)
		gp(cpu);
	v = (cpu->cr0 & ~may) | (val & may);
	v |= cpu->cr0 & CR0_PE; /* it can be set, not cleared */
	write_cr0(cpu, v);
}

/* ---- debug registers ---- */

#define DR6_FIXED 0xffff0ff0ull
#define DR6_MAY	  0xe00full
#define DR7_FIXED 0x400ull
#define DR7_MAY	  0xffff23ffull
#define DR7_GD	  (1ull << 13)
#define DR6_BD	  (1ull << 13)

/* DR4 and DR5 are DR6 and DR7, unless CR4.DE. */
static unsigned check_dr(struct soft_cpu *cpu, unsigned n)
{
	if (n > 7 || ((n == 4 || n == 5) && cpu->cr4 & CR4_DE))
		soft_fault0(cpu, X86_UD);
	if (cpu->cpl)
		gp(cpu);
	if (cpu->dr7 & DR7_GD) {
		cpu->dr6 |= DR6_BD;
		soft_fault0(cpu, X86_DB);
	}
	return n == 4 || n == 5 ? n + 2 : n;
}

uint64_t soft_mov_from_dr(struct soft_cpu *cpu, unsigned n)
{
	n = check_dr(cpu, n);
	return n < 4 ? cpu->dr[n] : n == 6 ? cpu->dr6 : cpu->dr7;
}

void soft_mov_to_dr(struct soft_cpu *cpu, unsigned n, uint64_t val)
{
	n = check_dr(cpu, n);
	if (!(cpu->mode & MODE_64))
		val = (uint32_t)val;
	if (n >= 6 && val >> 32)
		gp(cpu);
	if (n < 4)
		cpu->dr[n] = val;
	else if (n == 6)
		cpu->dr6 = (val & DR6_MAY) | DR6_FIXED;
	else
		cpu->dr7 = (val & DR7_MAY) | DR7_FIXED;
	soft_mode_changed(cpu);
}
