/*
 * Descriptors and stacks: what segment.c, far.c, iret.c and exception.c share.
 *
 * SDM vol. 3, 3.4.5 (segment descriptors), 5.8.3 (gates), 7.2 (TSS).
 */
#ifndef ARC_HV_SOFT_DESC_H
#define ARC_HV_SOFT_DESC_H

#include "base/util.h"
#include "hv/soft/cpu.h"

/* System descriptor and gate types. */
enum {
	DESC_TSS16 = 1,
	DESC_LDT = 2,
	DESC_TSS16_BUSY = 3,
	DESC_CALL16 = 4,
	DESC_TASK = 5,
	DESC_INT16 = 6,
	DESC_TRAP16 = 7,
	DESC_TSS = 9,
	DESC_TSS_BUSY = 11,
	DESC_CALL = 12,
	DESC_INT = 14,
	DESC_TRAP = 15,
};

struct soft_desc {
	uint64_t lo; /* the first eight bytes */
	uint64_t hi; /* the next eight, of a system descriptor in long mode */
	uint64_t la; /* where it is */
	uint16_t sel;
};

static inline unsigned desc_type(const struct soft_desc *d)
{
	return d->lo >> 40 & 15;
}

static inline bool desc_is_segment(const struct soft_desc *d)
{
	return d->lo >> 44 & 1;
}

static inline unsigned desc_dpl(const struct soft_desc *d)
{
	return d->lo >> 45 & 3;
}

static inline bool desc_present(const struct soft_desc *d)
{
	return d->lo >> 47 & 1;
}

static inline bool desc_long(const struct soft_desc *d)
{
	return d->lo >> 53 & 1;
}

static inline bool desc_big(const struct soft_desc *d)
{
	return d->lo >> 54 & 1;
}

static inline bool desc_is_code(const struct soft_desc *d)
{
	return desc_is_segment(d) && (desc_type(d) & SEG_CODE);
}

static inline bool desc_conforming(const struct soft_desc *d)
{
	return desc_type(d) & SEG_EXPDOWN;
}

static inline bool desc_is_writable_data(const struct soft_desc *d)
{
	return desc_is_segment(d) && (desc_type(d) & (8 | 2)) == 2;
}

static inline uint32_t desc_limit(const struct soft_desc *d)
{
	uint32_t l = (uint32_t)((d->lo & 0xffff) | (d->lo >> 32 & 0xf0000));

	return d->lo >> 55 & 1 ? l << 12 | 0xfff : l;
}

static inline uint64_t desc_base(const struct soft_desc *d)
{
	return (d->lo >> 16 & 0xffffff) | (d->lo >> 56) << 24 |
	       (d->hi & 0xffffffff) << 32;
}

static inline uint16_t desc_gate_sel(const struct soft_desc *d)
{
	return (uint16_t)(d->lo >> 16);
}

static inline uint64_t desc_gate_off(const struct soft_desc *d)
{
	return (d->lo & 0xffff) | (d->lo >> 48) << 16 |
	       (d->hi & 0xffffffff) << 32;
}

/* An error code: the selector's index and TI, and EXT. */
static inline uint32_t sel_error(uint16_t sel, unsigned ext)
{
	return (sel & 0xfffcu) | ext;
}

static inline bool sel_null(uint16_t sel)
{
	return !(sel & 0xfffc);
}

/*
 * Read the descriptor of @sel, eight bytes. Outside its table: false. May #PF.
 */
bool desc_read(struct soft_cpu *cpu, uint16_t sel, struct soft_desc *d);
/* The same, or #@vec with the selector's error code and @ext. */
void desc_fetch(struct soft_cpu *cpu, uint16_t sel, unsigned vec, unsigned ext,
		struct soft_desc *d);
/* In long mode: the second half of a system descriptor, or #GP(sel). */
void desc_fetch_high(struct soft_cpu *cpu, struct soft_desc *d);
/* Set the accessed bit in memory and in @d. May #PF. */
void desc_set_accessed(struct soft_cpu *cpu, struct soft_desc *d);

/* What a segment register holds after loading @d; @sel with the RPL to keep. */
struct soft_seg desc_to_seg(const struct soft_desc *d, uint16_t sel);
struct soft_seg seg_null(uint16_t sel, unsigned dpl);

/*
 * A code segment for JMP, CALL, RET, IRET or an event: #GP(err) when L and D
 * contradict or @off is outside it (the latter with error 0 | @ext).
 */
void desc_check_code_size(struct soft_cpu *cpu, const struct soft_desc *d,
			  unsigned ext);
void desc_check_target(struct soft_cpu *cpu, const struct soft_desc *d,
		       uint64_t off, unsigned ext);

/* Load CS with @d at @cpl and continue at @off. Nothing can fault. */
void desc_load_cs(struct soft_cpu *cpu, const struct soft_desc *d, unsigned cpl,
		  uint64_t off);

/* The code segment of a RET or IRET: all checks but the target. */
void desc_fetch_return(struct soft_cpu *cpu, uint16_t sel, struct soft_desc *d);
/*
 * Finish a return to @cs (its RPL is the new privilege) that also popped SS and
 * RSP: checks SS and the target, loads all, adds @drop to the new RSP.
 */
void return_outer(struct soft_cpu *cpu, struct soft_desc *cs, uint64_t off,
		  uint16_t ss, uint64_t sp, unsigned drop);

/* SS for a stack of privilege @dpl: #@vec(sel) or #SS(sel), as TSS or RET. */
void desc_fetch_ss(struct soft_cpu *cpu, uint16_t sel, unsigned dpl,
		   unsigned vec, unsigned ext, struct soft_desc *d);

/* RSP in the TSS for a switch to @dpl, and SS except in long mode. */
struct soft_tss_stack {
	uint64_t sp;
	uint16_t ss;
};
struct soft_tss_stack tss_stack(struct soft_cpu *cpu, unsigned dpl,
				unsigned ext);
uint64_t tss_ist(struct soft_cpu *cpu, unsigned ist, unsigned ext);

/*
 * A stack being pushed to or popped from before SS:RSP are changed. A push is
 * reserved first, which does all that can fault.
 */
struct soft_stack {
	uint64_t base, sp, mask;
	struct soft_seg ss;
	bool flat; /* 64-bit: canonical check instead of a limit */
	enum soft_access how;
	uint32_t error; /* of #SS */
};

void stack_current(struct soft_cpu *cpu, struct soft_stack *st, unsigned ext);
/* A new stack for privilege @cpl; @flat in long mode. */
void stack_new(struct soft_cpu *cpu, struct soft_stack *st,
	       const struct soft_seg *ss, uint64_t sp, bool flat, unsigned cpl,
	       uint32_t error);
void stack_reserve(struct soft_cpu *cpu, const struct soft_stack *st,
		   unsigned bytes);
void stack_push(struct soft_cpu *cpu, struct soft_stack *st, unsigned size,
		uint64_t val);
uint64_t stack_pop(struct soft_cpu *cpu, struct soft_stack *st, unsigned size);
/* RSP from a stack: only the bits its size has change. */
void stack_store_sp(struct soft_cpu *cpu, const struct soft_stack *st);

/* LMSW (control.c). */
void soft_lmsw(struct soft_cpu *cpu, uint16_t val);

/* Something may be deliverable now: have the run loop look at the LAPIC. (When
 * only IF forbade it before, irq_wait says so already.) */
static inline void soft_irq_window(struct soft_cpu *cpu)
{
	cpu->irq_wait = true;
}

#endif
