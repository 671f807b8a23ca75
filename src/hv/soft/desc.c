/*
 * Descriptors and stacks (desc.h).
 *
 * Theory of operation
 * -------------------
 * Reading a descriptor is an implicit supervisor access. Whoever loads one
 * into a register checks it in the order the SDM gives for the instruction,
 * sets the accessed bit (which may fault on a read-only or absent page), and
 * only then changes registers.
 *
 * A push happens in two steps: stack_reserve() checks the limit or canonical
 * form and the writability of all bytes, then stack_push() stores. So a fault
 * leaves memory and registers as they were.
 */
#include "hv/soft/desc.h"

bool desc_read(struct soft_cpu *cpu, uint16_t sel, struct soft_desc *d)
{
	unsigned index = sel & 0xfff8u;
	uint64_t base = cpu->gdt.base;
	uint32_t limit = cpu->gdt.limit;

	if (sel & 4) {
		if (cpu->ldt.attr & X86_SEG_UNUSABLE ||
		    !(cpu->ldt.attr & SEG_P))
			return false;
		base = cpu->ldt.base;
		limit = cpu->ldt.limit;
	}
	if (index + 7 > limit)
		return false;
	d->la = base + index;
	if (!soft_long_mode(cpu))
		d->la = (uint32_t)d->la;
	d->sel = sel;
	d->hi = 0;
	d->lo = soft_read(cpu, d->la, 8, SOFT_SYSTEM);
	return true;
}

void desc_fetch(struct soft_cpu *cpu, uint16_t sel, unsigned vec, unsigned ext,
		struct soft_desc *d)
{
	if (!desc_read(cpu, sel, d))
		soft_fault(cpu, vec, sel_error(sel, ext));
}

void desc_fetch_high(struct soft_cpu *cpu, struct soft_desc *d)
{
	unsigned index = d->sel & 0xfff8u;
	uint32_t limit = d->sel & 4 ? cpu->ldt.limit : cpu->gdt.limit;

	if (index + 15 > limit)
		soft_fault(cpu, X86_GP, sel_error(d->sel, 0));
	d->hi = soft_read(cpu, d->la + 8, 8, SOFT_SYSTEM);
	if (d->hi >> 40 & 31)
		soft_fault(cpu, X86_GP, sel_error(d->sel, 0));
}

void desc_set_accessed(struct soft_cpu *cpu, struct soft_desc *d)
{
	if (!desc_is_segment(d) || d->lo >> 40 & 1)
		return;
	d->lo |= 1ull << 40;
	soft_write(cpu, d->la + 5, 1, d->lo >> 40 & 0xff, SOFT_SYSTEM);
}

struct soft_seg desc_to_seg(const struct soft_desc *d, uint16_t sel)
{
	return (struct soft_seg){
		.base = desc_base(d),
		.limit = desc_limit(d),
		.selector = sel,
		.attr = (uint16_t)((d->lo >> 40 & 0xff) | (d->lo >> 52 & 0xf)
								  << 12),
	};
}

struct soft_seg seg_null(uint16_t sel, unsigned dpl)
{
	return (struct soft_seg){
		.selector = sel,
		.attr = (uint16_t)(X86_SEG_UNUSABLE | dpl << 5),
	};
}

void desc_check_code_size(struct soft_cpu *cpu, const struct soft_desc *d,
			  unsigned ext)
{
	if (soft_long_mode(cpu) && desc_long(d) && desc_big(d))
		soft_fault(cpu, X86_GP, sel_error(d->sel, ext));
}

void desc_check_target(struct soft_cpu *cpu, const struct soft_desc *d,
		       uint64_t off, unsigned ext)
{
	if (soft_long_mode(cpu) && desc_long(d)) {
		if (!soft_canonical(off))
			soft_fault(cpu, X86_GP, ext);
	} else if (off > desc_limit(d)) {
		soft_fault(cpu, X86_GP, ext);
	}
}

void desc_load_cs(struct soft_cpu *cpu, const struct soft_desc *d, unsigned cpl,
		  uint64_t off)
{
	cpu->seg[X86_CS] = desc_to_seg(d, (uint16_t)((d->sel & ~3u) | cpl));
	cpu->cpl = (uint8_t)cpl;
	cpu->next_rip = off;
}

void desc_fetch_ss(struct soft_cpu *cpu, uint16_t sel, unsigned dpl,
		   unsigned vec, unsigned ext, struct soft_desc *d)
{
	if (sel_null(sel))
		soft_fault(cpu, vec, ext);
	desc_fetch(cpu, sel, vec, ext, d);
	if ((sel & 3u) != dpl || !desc_is_writable_data(d) ||
	    desc_dpl(d) != dpl)
		soft_fault(cpu, vec, sel_error(sel, ext));
	if (!desc_present(d))
		soft_fault(cpu, X86_SS_FAULT, sel_error(sel, ext));
}

/* #TS(TR) when the TSS is too short. */
static uint64_t tss_field(struct soft_cpu *cpu, unsigned off, unsigned size,
			  unsigned ext)
{
	uint64_t la = cpu->tr.base + off;

	if (cpu->tr.attr & X86_SEG_UNUSABLE || off + size - 1 > cpu->tr.limit)
		soft_fault(cpu, X86_TS, sel_error(cpu->tr.selector, ext));
	if (!soft_long_mode(cpu))
		la = (uint32_t)la;
	return soft_read(cpu, la, size, SOFT_SYSTEM);
}

struct soft_tss_stack tss_stack(struct soft_cpu *cpu, unsigned dpl,
				unsigned ext)
{
	struct soft_tss_stack s = { .ss = (uint16_t)dpl };

	if (soft_long_mode(cpu)) {
		s.sp = tss_field(cpu, 4 + 8 * dpl, 8, ext);
	} else if (cpu->tr.attr & 8) { /* 32-bit */
		s.ss = (uint16_t)tss_field(cpu, 8 + 8 * dpl, 2, ext);
		s.sp = tss_field(cpu, 4 + 8 * dpl, 4, ext);
	} else {
		s.ss = (uint16_t)tss_field(cpu, 4 + 4 * dpl, 2, ext);
		s.sp = tss_field(cpu, 2 + 4 * dpl, 2, ext);
	}
	return s;
}

uint64_t tss_ist(struct soft_cpu *cpu, unsigned ist, unsigned ext)
{
	return tss_field(cpu, 28 + 8 * ist, 8, ext);
}

/* ---- stacks ---- */

static enum soft_access stack_access(const struct soft_cpu *cpu, unsigned cpl)
{
	if (cpl == cpu->cpl)
		return SOFT_DATA;
	return cpl == 3 ? SOFT_USER : SOFT_SYSTEM;
}

void stack_new(struct soft_cpu *cpu, struct soft_stack *st,
	       const struct soft_seg *ss, uint64_t sp, bool flat, unsigned cpl,
	       uint32_t error)
{
	st->ss = *ss;
	st->flat = flat;
	st->base = flat ? 0 : ss->base;
	st->mask = flat ? ~0ull : ss->attr & SEG_DB ? 0xffffffff : 0xffff;
	st->sp = sp & st->mask;
	st->how = stack_access(cpu, cpl);
	st->error = error;
}

void stack_current(struct soft_cpu *cpu, struct soft_stack *st, unsigned ext)
{
	stack_new(cpu, st, &cpu->seg[X86_SS], cpu->gpr[X86_RSP],
		  cpu->mode & MODE_64, cpu->cpl, ext);
}

/* The linear address of [off, off + bytes) on the stack, or #SS. */
static uint64_t stack_la(struct soft_cpu *cpu, const struct soft_stack *st,
			 uint64_t off, unsigned bytes)
{
	uint64_t last = off + bytes - 1;
	uint32_t top = st->ss.attr & SEG_DB ? 0xffffffff : 0xffff;

	if (st->flat) {
		if (!soft_canonical(off) || !soft_canonical(last))
			soft_fault(cpu, X86_SS_FAULT, st->error);
		return off;
	}
	if (st->ss.attr & SEG_EXPDOWN && st->ss.attr & SEG_S
		    ? off <= st->ss.limit || last > top
		    : last > st->ss.limit)
		soft_fault(cpu, X86_SS_FAULT, st->error);
	off += st->base;
	return soft_long_mode(cpu) && cpu->mode & MODE_64 ? off : (uint32_t)off;
}

void stack_reserve(struct soft_cpu *cpu, const struct soft_stack *st,
		   unsigned bytes)
{
	uint64_t la = stack_la(cpu, st, (st->sp - bytes) & st->mask, bytes);
	unsigned top = st->flat ? 8 : 4;

	/* The first push is the one at the top: its fault comes first. */
	if (top < bytes)
		soft_probe_write(cpu, la + bytes - top, top, st->how);
	soft_probe_write(cpu, la, bytes, st->how);
}

void stack_push(struct soft_cpu *cpu, struct soft_stack *st, unsigned size,
		uint64_t val)
{
	st->sp = (st->sp - size) & st->mask;
	soft_write(cpu, stack_la(cpu, st, st->sp, size), size, val, st->how);
}

uint64_t stack_pop(struct soft_cpu *cpu, struct soft_stack *st, unsigned size)
{
	uint64_t v =
		soft_read(cpu, stack_la(cpu, st, st->sp, size), size, st->how);

	st->sp = (st->sp + size) & st->mask;
	return v;
}

void stack_store_sp(struct soft_cpu *cpu, const struct soft_stack *st)
{
	uint64_t *rsp = &cpu->gpr[X86_RSP];

	if (st->mask == 0xffff)
		*rsp = (*rsp & ~0xffffull) | st->sp;
	else
		*rsp = st->sp;
}
