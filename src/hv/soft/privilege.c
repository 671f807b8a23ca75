/*
 * What IOPL decides: CLI, STI, PUSHF, POPF, and the I/O permission bitmap.
 *
 * SDM vol. 2 "CLI", "STI", "PUSHF", "POPF"; vol. 1, 18.5 (I/O). VME and PVI
 * are not offered, so VM86 mode needs IOPL 3 and VIF is never used.
 */
#include "hv/soft/desc.h"

static unsigned iopl(const struct soft_cpu *cpu)
{
	return cpu->rflags >> 12 & 3;
}

/* May CPL (3 in VM86 mode) change IF? */
static bool io_privilege(const struct soft_cpu *cpu)
{
	return !(cpu->cr0 & CR0_PE) || cpu->cpl <= iopl(cpu);
}

static void vm86_check(struct soft_cpu *cpu)
{
	if (cpu->rflags & FL_VM && iopl(cpu) != 3)
		soft_fault(cpu, X86_GP, 0);
}

uint64_t soft_pushf_value(struct soft_cpu *cpu, unsigned osize)
{
	vm86_check(cpu);
	(void)osize; /* the push cuts it */
	return soft_get_flags(cpu) & ~(uint64_t)(FL_VM | FL_RF);
}

void soft_popf(struct soft_cpu *cpu, uint64_t val, unsigned osize)
{
	uint64_t old = soft_get_flags(cpu), new;
	uint64_t may = FL_ARITH | FL_TF | FL_DF | FL_NT;

	vm86_check(cpu);
	if (osize != 2)
		may |= FL_AC | FL_ID;
	if (io_privilege(cpu))
		may |= FL_IF;
	if (!(cpu->cr0 & CR0_PE) || cpu->cpl == 0)
		may |= FL_IOPL;
	new = (old & ~may) | (val & may);
	new &= ~(uint64_t)FL_RF;
	soft_set_flags(cpu, new);
	if (~old & new &FL_IF)
		soft_irq_window(cpu);
	if ((old ^ new) & (FL_TF | FL_AC))
		soft_mode_changed(cpu);
}

void soft_cli(struct soft_cpu *cpu)
{
	vm86_check(cpu);
	if (!io_privilege(cpu))
		soft_fault(cpu, X86_GP, 0);
	cpu->rflags &= ~(uint64_t)FL_IF;
}

void soft_sti(struct soft_cpu *cpu)
{
	vm86_check(cpu);
	if (!io_privilege(cpu))
		soft_fault(cpu, X86_GP, 0);
	if (cpu->rflags & FL_IF)
		return;
	cpu->rflags |= FL_IF;
	cpu->shadow |= 1;
	soft_irq_window(cpu);
}

void soft_io_check(struct soft_cpu *cpu, unsigned port, unsigned size)
{
	unsigned map, at;
	uint64_t bits, base = cpu->tr.base;

	if (!(cpu->cr0 & CR0_PE) ||
	    (!(cpu->rflags & FL_VM) && cpu->cpl <= iopl(cpu)))
		return;
	/* A 32-bit (or 64-bit) TSS that has a bitmap, two bytes of it at once. */
	if (cpu->tr.attr & X86_SEG_UNUSABLE || !(cpu->tr.attr & 8) ||
	    cpu->tr.limit < 103)
		soft_fault(cpu, X86_GP, 0);
	map = (unsigned)soft_read(cpu, base + 102, 2, SOFT_SYSTEM);
	at = map + port / 8;
	if (at + 1 > cpu->tr.limit)
		soft_fault(cpu, X86_GP, 0);
	bits = soft_read(cpu, base + at, 2, SOFT_SYSTEM) >> (port & 7);
	if (bits & ((1u << size) - 1))
		soft_fault(cpu, X86_GP, 0);
}
