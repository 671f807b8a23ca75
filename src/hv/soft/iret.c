/*
 * IRET, and what it shares with RET: returning to a code segment.
 *
 * SDM vol. 2A "IRET", vol. 2B "RET"; vol. 3, 6.14.3.
 *
 * In 64-bit mode IRET always pops SS:RSP; elsewhere only when privilege drops.
 * Not offered: returns to VM86 mode (#GP(0)) and to another task (NT set: #TS
 * with the back link's selector, #GP(0) in long mode).
 */
#include "hv/soft/desc.h"

void desc_fetch_return(struct soft_cpu *cpu, uint16_t sel, struct soft_desc *d)
{
	unsigned rpl = sel & 3;

	if (sel_null(sel))
		soft_fault(cpu, X86_GP, 0);
	desc_fetch(cpu, sel, X86_GP, 0, d);
	if (!desc_is_code(d) || rpl < cpu->cpl ||
	    (desc_conforming(d) ? desc_dpl(d) > rpl : desc_dpl(d) != rpl))
		soft_fault(cpu, X86_GP, sel_error(sel, 0));
	desc_check_code_size(cpu, d, 0);
	if (!desc_present(d))
		soft_fault(cpu, X86_NP, sel_error(sel, 0));
}

/* A return to less privilege takes away segments that it may not have. */
static void drop_segments(struct soft_cpu *cpu)
{
	static const uint8_t data[] = { X86_ES, X86_DS, X86_FS, X86_GS };

	for (unsigned k = 0; k < array_size(data); k++) {
		struct soft_seg *s = &cpu->seg[data[k]];
		unsigned conforming_code = SEG_CODE | SEG_EXPDOWN;

		if (s->attr & X86_SEG_UNUSABLE ||
		    (s->attr & conforming_code) == conforming_code)
			continue;
		if (SEG_DPL(s->attr) < cpu->cpl)
			*s = seg_null(0, 0);
	}
}

/* The SS of a return; null is fine for 64-bit code that is not user's. */
static void return_ss(struct soft_cpu *cpu, const struct soft_desc *cs,
		      uint16_t sel, struct soft_seg *out)
{
	unsigned rpl = cs->sel & 3;
	struct soft_desc d;

	if (sel_null(sel)) {
		if (!soft_long_mode(cpu) || !desc_long(cs) || rpl == 3 ||
		    (sel & 3u) != rpl)
			soft_fault(cpu, X86_GP, 0);
		*out = seg_null(sel, rpl);
		return;
	}
	desc_fetch_ss(cpu, sel, rpl, X86_GP, 0, &d);
	desc_set_accessed(cpu, &d);
	*out = desc_to_seg(&d, sel);
}

void return_outer(struct soft_cpu *cpu, struct soft_desc *cs, uint64_t off,
		  uint16_t ss, uint64_t sp, unsigned drop)
{
	unsigned rpl = cs->sel & 3;
	bool outer = rpl != cpu->cpl;
	struct soft_stack st;
	struct soft_seg seg;

	return_ss(cpu, cs, ss, &seg);
	desc_check_target(cpu, cs, off, 0);
	desc_set_accessed(cpu, cs);

	stack_new(cpu, &st, &seg, sp, soft_long_mode(cpu) && desc_long(cs), rpl,
		  0);
	st.sp = (st.sp + drop) & st.mask;
	cpu->seg[X86_SS] = seg;
	stack_store_sp(cpu, &st);
	desc_load_cs(cpu, cs, rpl, off);
	if (outer)
		drop_segments(cpu);
}

/* The flags IRET may change at the privilege it runs at. */
static void iret_flags(struct soft_cpu *cpu, uint64_t val, unsigned osize,
		       unsigned cpl)
{
	uint64_t may = FL_ARITH | FL_TF | FL_DF | FL_NT, old;

	old = soft_get_flags(cpu);
	if (osize != 2)
		may |= FL_RF | FL_AC | FL_ID;
	if (cpl <= (old >> 12 & 3))
		may |= FL_IF;
	if (cpl == 0)
		may |= FL_IOPL | (osize != 2 ? FL_VIF | FL_VIP : 0);
	soft_set_flags(cpu, (old & ~may) | (val & may));
	if (~old & val & may & FL_IF)
		soft_irq_window(cpu);
}

static void iret_real(struct soft_cpu *cpu, unsigned osize)
{
	uint64_t off, flags, may = FL_ARITH | FL_TF | FL_DF | FL_NT | FL_IF,
			     old = soft_get_flags(cpu);
	struct soft_stack st;
	uint16_t sel;

	if (cpu->rflags & FL_VM) {
		if ((old & FL_IOPL) != FL_IOPL)
			soft_fault(cpu, X86_GP, 0);
	} else {
		may |= FL_IOPL;
	}
	if (osize == 4)
		may |= FL_RF | FL_AC | FL_ID;
	stack_current(cpu, &st, 0);
	off = stack_pop(cpu, &st, osize);
	sel = (uint16_t)stack_pop(cpu, &st, osize);
	flags = stack_pop(cpu, &st, osize);
	if (off > cpu->seg[X86_CS].limit)
		soft_fault(cpu, X86_GP, 0);
	cpu->seg[X86_CS].selector = sel;
	cpu->seg[X86_CS].base = (uint32_t)sel << 4;
	cpu->next_rip = off;
	stack_store_sp(cpu, &st);
	soft_set_flags(cpu, (old & ~may) | (flags & may));
	if (~old & flags & FL_IF)
		soft_irq_window(cpu);
}

/* NT: the task that called this one would be resumed. */
static void refuse_nested_task(struct soft_cpu *cpu)
{
	uint16_t link = 0;

	if (soft_long_mode(cpu))
		soft_fault(cpu, X86_GP, 0);
	if (!(cpu->tr.attr & X86_SEG_UNUSABLE) && cpu->tr.limit >= 1)
		link = (uint16_t)soft_read(cpu, cpu->tr.base, 2, SOFT_SYSTEM);
	soft_fault(cpu, X86_TS, sel_error(link, 0));
}

static void iret_protected(struct soft_cpu *cpu, unsigned osize)
{
	unsigned cpl = cpu->cpl;
	struct soft_stack st;
	struct soft_desc d;
	uint64_t off, flags, sp;
	uint16_t sel, ss;

	if (cpu->rflags & FL_NT)
		refuse_nested_task(cpu);
	stack_current(cpu, &st, 0);
	off = stack_pop(cpu, &st, osize);
	sel = (uint16_t)stack_pop(cpu, &st, osize);
	flags = stack_pop(cpu, &st, osize);
	if (flags & FL_VM && osize == 4 && !soft_long_mode(cpu) && !cpl)
		soft_fault(cpu, X86_GP, 0);
	if (cpu->mode & MODE_64) {
		sp = stack_pop(cpu, &st, osize);
		ss = (uint16_t)stack_pop(cpu, &st, osize);
		desc_fetch_return(cpu, sel, &d);
		return_outer(cpu, &d, off, ss, sp, 0);
	} else {
		desc_fetch_return(cpu, sel, &d);
		if ((sel & 3u) == cpl) {
			desc_check_target(cpu, &d, off, 0);
			desc_set_accessed(cpu, &d);
			stack_store_sp(cpu, &st);
			desc_load_cs(cpu, &d, cpl, off);
		} else {
			sp = stack_pop(cpu, &st, osize);
			ss = (uint16_t)stack_pop(cpu, &st, osize);
			return_outer(cpu, &d, off, ss, sp, 0);
		}
	}
	iret_flags(cpu, flags, osize, cpl);
}

void soft_iret(struct soft_cpu *cpu, unsigned osize)
{
	/* NMIs are open again even when the IRET faults. */
	if (cpu->nmi_masked) {
		cpu->nmi_masked = false;
		soft_irq_window(cpu);
	}
	if (soft_protected(cpu))
		iret_protected(cpu, osize);
	else
		iret_real(cpu, osize);
	soft_mode_changed(cpu);
}
