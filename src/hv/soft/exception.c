/*
 * Delivering exceptions and interrupts.
 *
 * SDM vol. 3, 6.10 to 6.14 (tables and gates), 6.15 (double fault), 20.1.4
 * (real mode); vol. 2A "INT n" for the order of checks.
 *
 * Theory of operation
 * -------------------
 * soft_event_deliver() first does everything that can fault, with the EXT bit
 * in error codes of events that software did not ask for; the bytes of the
 * frame are probed before the first is written; then registers change. A
 * fault on the way leaves the guest as it was, and the run loop asks
 * soft_event_combine() what to deliver instead.
 *
 * Task gates: a task switch is not offered; #GP with the gate's error code.
 */
#include "hv/soft/desc.h"

enum {
	CONTRIBUTORY = 1 << X86_DE | 1 << X86_TS | 1 << X86_NP |
		       1 << X86_SS_FAULT | 1 << X86_GP
};

bool soft_event_combine(const struct soft_event *first,
			const struct soft_event *second, struct soft_event *out)
{
	bool first_exc = first->kind == SOFT_FAULT || first->kind == SOFT_TRAP;
	bool contributory, page;

	*out = *second;
	if (!first_exc || second->vector > 31)
		return true;
	contributory = CONTRIBUTORY >> second->vector & 1;
	page = second->vector == X86_PF;
	if (first->vector == X86_DF)
		return !contributory && !page;
	if (first->vector == X86_PF ? !contributory && !page
	    : first->vector < 32 && CONTRIBUTORY >> first->vector & 1
		    ? !contributory
		    : true)
		return true;
	*out = (struct soft_event){
		.kind = SOFT_FAULT,
		.vector = X86_DF,
		.has_error = true,
	};
	return true;
}

/* The flags a frame keeps: RF is set for faults (SDM vol. 3, 17.3.1.1). */
static uint64_t frame_flags(struct soft_cpu *cpu, const struct soft_event *ev)
{
	uint64_t f = soft_get_flags(cpu);
	/* (General detect, the other #DB fault, has none of these bits.) */
	bool code_breakpoint = ev->vector == X86_DB && ev->dr6 & 15;

	if (ev->kind == SOFT_FAULT && !code_breakpoint)
		f |= FL_RF;
	return f;
}

static void deliver_real(struct soft_cpu *cpu, const struct soft_event *ev)
{
	uint32_t at = ev->vector * 4u, target;
	uint64_t flags = soft_get_flags(cpu);
	struct soft_stack st;

	if (at + 3 > cpu->idt.limit)
		soft_fault(cpu, X86_GP, at);
	target = (uint32_t)soft_read(cpu, (uint32_t)(cpu->idt.base + at), 4,
				     SOFT_SYSTEM);
	stack_current(cpu, &st, 0);
	stack_reserve(cpu, &st, 6);
	stack_push(cpu, &st, 2, flags & 0xffff);
	stack_push(cpu, &st, 2, cpu->seg[X86_CS].selector);
	stack_push(cpu, &st, 2, cpu->rip & 0xffff);
	stack_store_sp(cpu, &st);
	soft_set_flags(cpu, flags & ~(uint64_t)(FL_IF | FL_TF | FL_AC | FL_RF));
	cpu->seg[X86_CS].selector = (uint16_t)(target >> 16);
	cpu->seg[X86_CS].base = target >> 16 << 4;
	cpu->rip = target & 0xffff;
}

/* What the gate decides. */
struct entry {
	struct soft_desc cs;
	uint64_t off;
	unsigned ext;
	unsigned cpl; /* afterwards */
	unsigned size; /* of one pushed item */
	unsigned ist;
	bool interrupt_gate;
};

/* The gate of @ev's vector, checked as far as itself goes. */
static void read_gate(struct soft_cpu *cpu, const struct soft_event *ev,
		      struct soft_desc *g, struct entry *en)
{
	bool lm = soft_long_mode(cpu), software;
	unsigned at = ev->vector * (lm ? 16u : 8u), type;
	uint32_t error;

	software = ev->kind == SOFT_INTN || ev->kind == SOFT_INT3;
	en->ext = !software;
	error = ev->vector * 8u + 2 + en->ext;
	if (at + (lm ? 15 : 7) > cpu->idt.limit)
		soft_fault(cpu, X86_GP, error);
	g->la = cpu->idt.base + at;
	if (!lm)
		g->la = (uint32_t)g->la;
	g->lo = soft_read(cpu, g->la, 8, SOFT_SYSTEM);
	g->hi = lm ? soft_read(cpu, g->la + 8, 8, SOFT_SYSTEM) : 0;
	type = desc_type(g);
	if (desc_is_segment(g) ||
	    (type != DESC_INT && type != DESC_TRAP &&
	     (lm || (type != DESC_INT16 && type != DESC_TRAP16))))
		soft_fault(cpu, X86_GP, error);
	if (software && desc_dpl(g) < cpu->cpl)
		soft_fault(cpu, X86_GP, error);
	if (!desc_present(g))
		soft_fault(cpu, X86_NP, error);
	en->off = desc_gate_off(g);
	if (type < 8)
		en->off &= 0xffff;
	en->size = lm ? 8 : type < 8 ? 2 : 4;
	en->ist = lm ? g->lo >> 32 & 7 : 0;
	en->interrupt_gate = !(type & 1);
}

static void read_code(struct soft_cpu *cpu, uint16_t sel, struct entry *en)
{
	struct soft_desc *d = &en->cs;

	if (sel_null(sel))
		soft_fault(cpu, X86_GP, en->ext);
	desc_fetch(cpu, sel, X86_GP, en->ext, d);
	if (!desc_is_code(d) || desc_dpl(d) > cpu->cpl)
		soft_fault(cpu, X86_GP, sel_error(sel, en->ext));
	if (soft_long_mode(cpu) && (!desc_long(d) || desc_big(d)))
		soft_fault(cpu, X86_GP, sel_error(sel, en->ext));
	if (!desc_present(d))
		soft_fault(cpu, X86_NP, sel_error(sel, en->ext));
	en->cpl = desc_conforming(d) ? cpu->cpl : desc_dpl(d);
}

/* The stack the frame goes to; *@ss is what SS becomes. */
static void choose_stack(struct soft_cpu *cpu, const struct entry *en,
			 struct soft_stack *st, struct soft_seg *ss)
{
	bool inner = en->cpl < cpu->cpl;
	struct soft_tss_stack t;
	struct soft_desc d;
	uint64_t sp;

	*ss = cpu->seg[X86_SS];
	if (soft_long_mode(cpu)) {
		if (en->ist)
			sp = tss_ist(cpu, en->ist, en->ext);
		else if (inner)
			sp = tss_stack(cpu, en->cpl, en->ext).sp;
		else
			sp = cpu->gpr[X86_RSP];
		if (inner)
			*ss = seg_null((uint16_t)en->cpl, en->cpl);
		stack_new(cpu, st, ss, sp & ~15ull, true, en->cpl, en->ext);
	} else if (inner) {
		t = tss_stack(cpu, en->cpl, en->ext);
		desc_fetch_ss(cpu, t.ss, en->cpl, X86_TS, en->ext, &d);
		desc_set_accessed(cpu, &d);
		*ss = desc_to_seg(&d, t.ss);
		stack_new(cpu, st, ss, t.sp, false, en->cpl,
			  sel_error(t.ss, en->ext));
	} else {
		stack_current(cpu, st, en->ext);
	}
}

static void deliver_protected(struct soft_cpu *cpu, const struct soft_event *ev)
{
	uint64_t flags = frame_flags(cpu, ev);
	struct soft_desc gate;
	struct soft_stack st;
	struct entry en;
	struct soft_seg ss;
	bool with_stack;
	unsigned items;

	read_gate(cpu, ev, &gate, &en);
	read_code(cpu, desc_gate_sel(&gate), &en);
	with_stack = soft_long_mode(cpu) || en.cpl < cpu->cpl;
	choose_stack(cpu, &en, &st, &ss);
	desc_set_accessed(cpu, &en.cs);
	items = 3 + 2 * with_stack + ev->has_error;
	stack_reserve(cpu, &st, items * en.size);
	desc_check_target(cpu, &en.cs, en.off, en.ext);

	if (with_stack) {
		stack_push(cpu, &st, en.size, cpu->seg[X86_SS].selector);
		stack_push(cpu, &st, en.size, cpu->gpr[X86_RSP]);
	}
	stack_push(cpu, &st, en.size, flags);
	stack_push(cpu, &st, en.size, cpu->seg[X86_CS].selector);
	stack_push(cpu, &st, en.size, cpu->rip);
	if (ev->has_error)
		stack_push(cpu, &st, en.size, ev->error);

	cpu->seg[X86_SS] = ss;
	stack_store_sp(cpu, &st);
	desc_load_cs(cpu, &en.cs, en.cpl, en.off);
	cpu->rip = en.off;
	flags &= ~(uint64_t)(FL_TF | FL_NT | FL_RF | FL_VM);
	if (en.interrupt_gate)
		flags &= ~(uint64_t)FL_IF;
	soft_set_flags(cpu, flags);
}

void soft_event_deliver(struct soft_cpu *cpu, const struct soft_event *ev)
{
	if (ev->kind == SOFT_FAULT && ev->vector == X86_PF)
		cpu->cr2 = ev->cr2;
	if (soft_protected(cpu))
		deliver_protected(cpu, ev);
	else
		deliver_real(cpu, ev);

	if (ev->vector == X86_DB &&
	    (ev->kind == SOFT_FAULT || ev->kind == SOFT_TRAP)) {
		cpu->dr6 = (cpu->dr6 & ~15ull) | ev->dr6;
		cpu->dr7 &= ~(1ull << 13); /* GD */
	}
	if (ev->kind == SOFT_NMI)
		cpu->nmi_masked = true;
	cpu->shadow = 0;
	cpu->mp_state = HV_X86_RUNNABLE;
	soft_mode_changed(cpu);
}
