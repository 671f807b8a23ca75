/*
 * Far JMP, CALL and RET: through segments and call gates.
 *
 * SDM vol. 2A "CALL", "JMP", vol. 2B "RET"; vol. 3, 5.8. The order of checks
 * and the error codes are those of the operation sections. Task gates and TSS
 * descriptors: a task switch is not offered, #GP(selector) instead.
 */
#include "hv/soft/desc.h"

/* Real mode and VM86: CS is its base. */
static void real_load_cs(struct soft_cpu *cpu, uint16_t sel, uint64_t off)
{
	if (off > cpu->seg[X86_CS].limit)
		soft_fault(cpu, X86_GP, 0);
	cpu->seg[X86_CS].selector = sel;
	cpu->seg[X86_CS].base = (uint32_t)sel << 4;
	cpu->next_rip = off;
}

static uint64_t cut(uint64_t off, unsigned osize)
{
	return osize == 2 ? off & 0xffff : osize == 4 ? off & 0xffffffff : off;
}

/* A direct transfer to code segment @d by JMP or CALL. */
static void check_direct(struct soft_cpu *cpu, const struct soft_desc *d)
{
	uint16_t sel = d->sel;

	desc_check_code_size(cpu, d, 0);
	if (desc_conforming(d)
		    ? desc_dpl(d) > cpu->cpl
		    : (sel & 3u) > cpu->cpl || desc_dpl(d) != cpu->cpl)
		soft_fault(cpu, X86_GP, sel_error(sel, 0));
	if (!desc_present(d))
		soft_fault(cpu, X86_NP, sel_error(sel, 0));
}

/*
 * @g is a system descriptor met by JMP or CALL: a usable call gate, or a fault.
 * *@d becomes the code segment it names, checked but for privilege.
 */
static void check_gate(struct soft_cpu *cpu, struct soft_desc *g,
		       struct soft_desc *d)
{
	uint16_t sel = g->sel, code;
	unsigned type = desc_type(g);
	bool lm = soft_long_mode(cpu);

	if (type != DESC_CALL && (lm || type != DESC_CALL16))
		soft_fault(cpu, X86_GP, sel_error(sel, 0));
	if (desc_dpl(g) < cpu->cpl || desc_dpl(g) < (sel & 3u))
		soft_fault(cpu, X86_GP, sel_error(sel, 0));
	if (!desc_present(g))
		soft_fault(cpu, X86_NP, sel_error(sel, 0));
	if (lm)
		desc_fetch_high(cpu, g);
	code = desc_gate_sel(g);
	if (sel_null(code))
		soft_fault(cpu, X86_GP, 0);
	desc_fetch(cpu, code, X86_GP, 0, d);
	if (!desc_is_code(d) || desc_dpl(d) > cpu->cpl ||
	    (lm && (!desc_long(d) || desc_big(d))))
		soft_fault(cpu, X86_GP, sel_error(code, 0));
	if (!desc_present(d))
		soft_fault(cpu, X86_NP, sel_error(code, 0));
}

static uint64_t gate_off(const struct soft_desc *g)
{
	return cut(desc_gate_off(g), desc_type(g) == DESC_CALL16 ? 2 : 8);
}

void soft_far_jmp(struct soft_cpu *cpu, uint16_t sel, uint64_t off,
		  unsigned osize)
{
	struct soft_desc d, code;

	off = cut(off, osize);
	if (!soft_protected(cpu)) {
		real_load_cs(cpu, sel, off);
		soft_mode_changed(cpu);
		return;
	}
	if (sel_null(sel))
		soft_fault(cpu, X86_GP, 0);
	desc_fetch(cpu, sel, X86_GP, 0, &d);
	if (desc_is_segment(&d)) {
		if (!desc_is_code(&d))
			soft_fault(cpu, X86_GP, sel_error(sel, 0));
		check_direct(cpu, &d);
		code = d;
	} else {
		check_gate(cpu, &d, &code);
		if (!desc_conforming(&code) && desc_dpl(&code) != cpu->cpl)
			soft_fault(cpu, X86_GP, sel_error(code.sel, 0));
		off = gate_off(&d);
	}
	desc_check_target(cpu, &code, off, 0);
	desc_set_accessed(cpu, &code);
	desc_load_cs(cpu, &code, cpu->cpl, off);
	soft_mode_changed(cpu);
}

/* Push the return address and enter @d at the same privilege. */
static void call_same(struct soft_cpu *cpu, struct soft_desc *d, uint64_t off,
		      unsigned size)
{
	struct soft_stack st;

	stack_current(cpu, &st, 0);
	stack_reserve(cpu, &st, 2 * size);
	desc_check_target(cpu, d, off, 0);
	desc_set_accessed(cpu, d);
	stack_push(cpu, &st, size, cpu->seg[X86_CS].selector);
	stack_push(cpu, &st, size, cpu->next_rip);
	stack_store_sp(cpu, &st);
	desc_load_cs(cpu, d, cpu->cpl, off);
}

/* Through a gate to more privilege: a new stack with the old one's address,
 * the parameters the gate counts, and the return address. */
static void call_inner(struct soft_cpu *cpu, const struct soft_desc *gate,
		       struct soft_desc *d, uint64_t off, unsigned size)
{
	unsigned cpl = desc_dpl(d), count = gate->lo >> 32 & 31;
	bool lm = soft_long_mode(cpu);
	struct soft_tss_stack t = tss_stack(cpu, cpl, 0);
	struct soft_stack st, old;
	struct soft_desc ssd;
	struct soft_seg ss;
	uint64_t param[31];

	if (lm) {
		count = 0;
		ss = seg_null((uint16_t)cpl, cpl);
		stack_new(cpu, &st, &ss, t.sp, true, cpl, 0);
	} else {
		desc_fetch_ss(cpu, t.ss, cpl, X86_TS, 0, &ssd);
		desc_set_accessed(cpu, &ssd);
		ss = desc_to_seg(&ssd, t.ss);
		stack_new(cpu, &st, &ss, t.sp, false, cpl, sel_error(t.ss, 0));
	}
	stack_reserve(cpu, &st, (4 + count) * size);
	desc_check_target(cpu, d, off, 0);
	stack_current(cpu, &old, 0);
	for (unsigned k = 0; k < count; k++)
		param[k] = stack_pop(cpu, &old, size);
	desc_set_accessed(cpu, d);

	stack_push(cpu, &st, size, cpu->seg[X86_SS].selector);
	stack_push(cpu, &st, size, cpu->gpr[X86_RSP]);
	for (unsigned k = count; k--;)
		stack_push(cpu, &st, size, param[k]);
	stack_push(cpu, &st, size, cpu->seg[X86_CS].selector);
	stack_push(cpu, &st, size, cpu->next_rip);
	cpu->seg[X86_SS] = ss;
	stack_store_sp(cpu, &st);
	desc_load_cs(cpu, d, cpl, off);
}

static void call_real(struct soft_cpu *cpu, uint16_t sel, uint64_t off,
		      unsigned osize)
{
	struct soft_stack st;

	stack_current(cpu, &st, 0);
	stack_reserve(cpu, &st, 2 * osize);
	if (off > cpu->seg[X86_CS].limit)
		soft_fault(cpu, X86_GP, 0);
	stack_push(cpu, &st, osize, cpu->seg[X86_CS].selector);
	stack_push(cpu, &st, osize, cpu->next_rip);
	stack_store_sp(cpu, &st);
	real_load_cs(cpu, sel, off);
}

void soft_far_call(struct soft_cpu *cpu, uint16_t sel, uint64_t off,
		   unsigned osize)
{
	struct soft_desc d, code;
	unsigned size;

	off = cut(off, osize);
	if (!soft_protected(cpu)) {
		call_real(cpu, sel, off, osize);
		soft_mode_changed(cpu);
		return;
	}
	if (sel_null(sel))
		soft_fault(cpu, X86_GP, 0);
	desc_fetch(cpu, sel, X86_GP, 0, &d);
	if (desc_is_segment(&d)) {
		if (!desc_is_code(&d))
			soft_fault(cpu, X86_GP, sel_error(sel, 0));
		check_direct(cpu, &d);
		call_same(cpu, &d, off, osize);
	} else {
		check_gate(cpu, &d, &code);
		size = soft_long_mode(cpu)	      ? 8
		       : desc_type(&d) == DESC_CALL16 ? 2
						      : 4;
		if (!desc_conforming(&code) && desc_dpl(&code) < cpu->cpl)
			call_inner(cpu, &d, &code, gate_off(&d), size);
		else
			call_same(cpu, &code, gate_off(&d), size);
	}
	soft_mode_changed(cpu);
}

static void ret_real(struct soft_cpu *cpu, unsigned osize, unsigned drop)
{
	struct soft_stack st;
	uint64_t off;
	uint16_t sel;

	stack_current(cpu, &st, 0);
	off = stack_pop(cpu, &st, osize);
	sel = (uint16_t)stack_pop(cpu, &st, osize);
	st.sp = (st.sp + drop) & st.mask;
	real_load_cs(cpu, sel, off);
	stack_store_sp(cpu, &st);
}

void soft_far_ret(struct soft_cpu *cpu, unsigned osize, unsigned drop)
{
	struct soft_stack st;
	struct soft_desc d;
	uint64_t off;
	uint16_t sel;

	if (!soft_protected(cpu)) {
		ret_real(cpu, osize, drop);
		soft_mode_changed(cpu);
		return;
	}
	stack_current(cpu, &st, 0);
	off = stack_pop(cpu, &st, osize);
	sel = (uint16_t)stack_pop(cpu, &st, osize);
	st.sp = (st.sp + drop) & st.mask;
	desc_fetch_return(cpu, sel, &d);
	if ((sel & 3u) == cpu->cpl) {
		desc_check_target(cpu, &d, off, 0);
		desc_set_accessed(cpu, &d);
		stack_store_sp(cpu, &st);
		desc_load_cs(cpu, &d, cpu->cpl, off);
	} else {
		uint64_t sp = stack_pop(cpu, &st, osize);
		uint16_t ss = (uint16_t)stack_pop(cpu, &st, osize);

		return_outer(cpu, &d, off, ss, sp, drop);
	}
	soft_mode_changed(cpu);
}
