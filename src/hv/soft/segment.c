/*
 * Loading segment registers, LDTR and TR; LAR, LSL, VERR, VERW.
 *
 * SDM vol. 2 "MOV", "LDS/LES/...", "LLDT", "LTR", "LAR", "LSL", "VERR"; vol. 3,
 * 5.6 to 5.9. In real mode a load sets selector and base and keeps the limit
 * (SDM vol. 3, 20.1.4; "unreal mode" depends on it).
 */
#include "hv/soft/desc.h"

static void load_real(struct soft_cpu *cpu, enum x86_seg seg, uint16_t sel)
{
	struct soft_seg *s = &cpu->seg[seg];

	s->selector = sel;
	s->base = (uint32_t)sel << 4;
	if (cpu->rflags & FL_VM) {
		s->limit = 0xffff;
		s->attr = 0xf3;
	} else {
		s->attr = (uint16_t)((s->attr & 0xf000) | 0x93);
	}
}

static void load_ss(struct soft_cpu *cpu, uint16_t sel)
{
	unsigned rpl = sel & 3;
	struct soft_desc d;

	if (sel_null(sel)) {
		if (!(cpu->mode & MODE_64) || cpu->cpl == 3 || rpl != cpu->cpl)
			soft_fault(cpu, X86_GP, 0);
		cpu->seg[X86_SS] = seg_null(sel, cpu->cpl);
		return;
	}
	desc_fetch_ss(cpu, sel, cpu->cpl, X86_GP, 0, &d);
	desc_set_accessed(cpu, &d);
	cpu->seg[X86_SS] = desc_to_seg(&d, sel);
}

static void load_data(struct soft_cpu *cpu, enum x86_seg seg, uint16_t sel)
{
	unsigned rpl = sel & 3;
	struct soft_desc d;

	if (sel_null(sel)) {
		cpu->seg[seg] = seg_null(sel, 0);
		return;
	}
	desc_fetch(cpu, sel, X86_GP, 0, &d);
	/* data, or readable code */
	if (!desc_is_segment(&d) || (desc_type(&d) & (8 | 2)) == 8)
		soft_fault(cpu, X86_GP, sel_error(sel, 0));
	if (!(desc_is_code(&d) && desc_conforming(&d)) &&
	    (rpl > desc_dpl(&d) || cpu->cpl > desc_dpl(&d)))
		soft_fault(cpu, X86_GP, sel_error(sel, 0));
	if (!desc_present(&d))
		soft_fault(cpu, X86_NP, sel_error(sel, 0));
	desc_set_accessed(cpu, &d);
	cpu->seg[seg] = desc_to_seg(&d, sel);
}

void soft_load_seg(struct soft_cpu *cpu, enum x86_seg seg, uint16_t sel)
{
	if (!soft_protected(cpu))
		load_real(cpu, seg, sel);
	else if (seg == X86_SS)
		load_ss(cpu, sel);
	else
		load_data(cpu, seg, sel);
	soft_mode_changed(cpu);
}

/* LLDT and LTR look in the GDT only. */
static void fetch_system(struct soft_cpu *cpu, uint16_t sel,
			 struct soft_desc *d)
{
	if (sel & 4)
		soft_fault(cpu, X86_GP, sel_error(sel, 0));
	desc_fetch(cpu, sel, X86_GP, 0, d);
}

void soft_lldt(struct soft_cpu *cpu, uint16_t sel)
{
	struct soft_desc d;

	if (sel_null(sel)) {
		cpu->ldt = seg_null(sel, 0);
		return;
	}
	fetch_system(cpu, sel, &d);
	if (desc_is_segment(&d) || desc_type(&d) != DESC_LDT)
		soft_fault(cpu, X86_GP, sel_error(sel, 0));
	if (!desc_present(&d))
		soft_fault(cpu, X86_NP, sel_error(sel, 0));
	if (soft_long_mode(cpu)) {
		desc_fetch_high(cpu, &d);
		if (!soft_canonical(desc_base(&d)))
			soft_fault(cpu, X86_GP, sel_error(sel, 0));
	}
	cpu->ldt = desc_to_seg(&d, sel);
}

void soft_ltr(struct soft_cpu *cpu, uint16_t sel)
{
	struct soft_desc d;
	unsigned type;

	if (sel_null(sel))
		soft_fault(cpu, X86_GP, 0);
	fetch_system(cpu, sel, &d);
	type = desc_type(&d);
	if (desc_is_segment(&d) ||
	    (type != DESC_TSS && !(type == DESC_TSS16 && !soft_long_mode(cpu))))
		soft_fault(cpu, X86_GP, sel_error(sel, 0));
	if (!desc_present(&d))
		soft_fault(cpu, X86_NP, sel_error(sel, 0));
	if (soft_long_mode(cpu)) {
		desc_fetch_high(cpu, &d);
		if (!soft_canonical(desc_base(&d)))
			soft_fault(cpu, X86_GP, sel_error(sel, 0));
	}
	d.lo |= 2ull << 40; /* busy */
	soft_write(cpu, d.la + 5, 1, d.lo >> 40 & 0xff, SOFT_SYSTEM);
	cpu->tr = desc_to_seg(&d, sel);
}

/* The part LAR, LSL, VERR, VERW share: may CPL and RPL see the descriptor? */
static bool visible(struct soft_cpu *cpu, uint16_t sel, struct soft_desc *d)
{
	if (sel_null(sel) || !desc_read(cpu, sel, d))
		return false;
	if (desc_is_code(d) && desc_conforming(d))
		return true;
	return cpu->cpl <= desc_dpl(d) && (sel & 3u) <= desc_dpl(d);
}

bool soft_lar(struct soft_cpu *cpu, uint16_t sel, uint32_t *out)
{
	/* LDT, TSS, busy TSS, call gate; in legacy mode the 16-bit ones too */
	uint32_t types = soft_long_mode(cpu) ? 0x1a04 : 0x1a3e;
	struct soft_desc d;

	if (!visible(cpu, sel, &d) ||
	    (!desc_is_segment(&d) && !(types >> desc_type(&d) & 1)))
		return false;
	*out = (uint32_t)(d.lo >> 32) & 0x00ffff00;
	return true;
}

bool soft_lsl(struct soft_cpu *cpu, uint16_t sel, uint32_t *out)
{
	uint32_t types = soft_long_mode(cpu) ? 0x0a04 : 0x0a0e;
	struct soft_desc d;

	if (!visible(cpu, sel, &d) ||
	    (!desc_is_segment(&d) && !(types >> desc_type(&d) & 1)))
		return false;
	*out = desc_limit(&d);
	return true;
}

bool soft_verr(struct soft_cpu *cpu, uint16_t sel, bool write)
{
	struct soft_desc d;

	if (!visible(cpu, sel, &d) || !desc_is_segment(&d))
		return false;
	if (write)
		return desc_is_writable_data(&d);
	return !desc_is_code(&d) || (desc_type(&d) & 2);
}
