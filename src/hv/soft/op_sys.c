/*
 * Handlers that hand over to the system part (soft_*() of cpu.h), and those few
 * system instructions that are done here. Most end their block: `finish` goes
 * back to the run loop, which looks at everything anew.
 */
#include <sched.h>

#include "bus/bus.h"
#include "hv/soft/ops.h"
#include "hv/soft/soft.h"

#define ALL(f)             \
	{                  \
		f, f, f, f \
	}
#define SET(n, ...) const struct soft_opset soft_set_##n = { __VA_ARGS__ }

static inline void finish(struct soft_cpu *cpu, struct insn *i)
{
	cpu->budget -= i[1].off;
	soft_leave(cpu, cpu->next_rip);
}

/* Ends the block; a shadow from before it ends with it. */
#define SYS_END(name, call)      \
	SOFT_OP(name)            \
	{                        \
		soft_at(cpu, i); \
		cpu->shadow = 0; \
		call;            \
		finish(cpu, i);  \
	}
/* Does not. */
#define SYS(name, call)          \
	SOFT_OP(name)            \
	{                        \
		soft_at(cpu, i); \
		call;            \
		NEXT;            \
	}

static void need_cpl0(struct soft_cpu *cpu)
{
	if (cpu->cpl)
		soft_fault(cpu, X86_GP, 0);
}

/* ---- interrupts, flags ---- */

static inline bool may_if(const struct soft_cpu *cpu)
{
	return !(cpu->rflags & FL_VM) && cpu->cpl <= (cpu->rflags >> 12 & 3);
}

/* Something waits that IF just let in: the block must end here. */
static inline bool window(struct soft_cpu *cpu)
{
	return cpu->rflags & FL_IF &&
	       (cpu->irq_wait ||
		__atomic_load_n(&cpu->events, __ATOMIC_RELAXED));
}

/* Go back to the run loop after @i, which is not the block's last. */
static inline void leave_after(struct soft_cpu *cpu, struct insn *i)
{
	cpu->budget -= i + 1 - cpu->block->insn;
	soft_leave(cpu, cpu->gpr[SOFT_RIP] + i->off + i->len);
	if (!(cpu->mode & MODE_64))
		cpu->rip = (uint32_t)cpu->rip;
}

SOFT_OP(cli)
{
	if (likely(may_if(cpu))) {
		cpu->rflags &= ~(uint64_t)FL_IF;
	} else {
		soft_at(cpu, i);
		soft_cli(cpu);
	}
	NEXT;
}
SOFT_OP(sti)
{
	if (likely(may_if(cpu))) {
		if (!(cpu->rflags & FL_IF)) {
			cpu->rflags |= FL_IF;
			cpu->shadow = 1;
		}
	} else {
		soft_at(cpu, i);
		soft_sti(cpu);
	}
	if (unlikely(window(cpu)))
		leave_after(cpu, i);
	else
		NEXT;
}
SOFT_OP(pushf_64)
{
	uint64_t sp = cpu->gpr[X86_RSP] - 8;

	soft_st64(cpu, i, sp,
		  (cpu->rflags & ~(uint64_t)(FL_VM | FL_RF)) | fl_get(cpu));
	cpu->gpr[X86_RSP] = sp;
	NEXT;
}
static void pushf_any(struct soft_cpu *cpu, struct insn *i)
{
	uint64_t v, sp = cpu->gpr[X86_RSP] - i->osize;
	uint64_t mask = cpu->mode & MODE_64		 ? ~0ull
			: cpu->seg[X86_SS].attr & SEG_DB ? 0xffffffff
							 : 0xffff;

	soft_at(cpu, i);
	v = soft_pushf_value(cpu, i->osize);
	soft_write(cpu, soft_seg_la(cpu, X86_SS, sp & mask, i->osize, true),
		   i->osize, v, SOFT_DATA);
	soft_put_reg(cpu, X86_RSP, mask == 0xffff ? 2 : 8,
		     mask == 0xffffffff ? sp & mask : sp);
}
SOFT_OP(pushf_gen)
{
	pushf_any(cpu, i);
	NEXT;
}
/* What POPF may change without anyone else having to know. */
#define POPF_PLAIN (FL_ARITH | FL_DF | FL_IF | FL_ID | FL_AC)
static void popf_any(struct soft_cpu *cpu, struct insn *i)
{
	uint64_t v, sp = cpu->gpr[X86_RSP];
	uint64_t mask = cpu->mode & MODE_64		 ? ~0ull
			: cpu->seg[X86_SS].attr & SEG_DB ? 0xffffffff
							 : 0xffff;

	soft_at(cpu, i);
	v = soft_read(cpu, soft_seg_la(cpu, X86_SS, sp & mask, i->osize, false),
		      i->osize, SOFT_DATA);
	soft_popf(cpu, v, i->osize);
	sp += i->osize;
	soft_put_reg(cpu, X86_RSP, mask == 0xffff ? 2 : 8,
		     mask == 0xffffffff ? sp & mask : sp);
}
SOFT_OP(popf_64)
{
	uint64_t sp = cpu->gpr[X86_RSP], v = soft_ld64(cpu, i, sp);

	if (likely(cpu->cpl == 0 &&
		   !((v ^ cpu->rflags) &
		     ~(uint64_t)(FL_ARITH | FL_DF | FL_IF | FL_ID | 2)))) {
		cpu->rflags = (v & ~(uint64_t)FL_ARITH) | 2;
		fl_put(cpu, v);
		cpu->gpr[X86_RSP] = sp + 8;
	} else {
		popf_any(cpu, i);
		soft_mode_changed(cpu);
		leave_after(cpu, i);
		return;
	}
	if (unlikely(window(cpu)))
		leave_after(cpu, i);
	else
		NEXT;
}
SOFT_OP(popf_gen)
{
	popf_any(cpu, i);
	soft_mode_changed(cpu);
	leave_after(cpu, i);
}

static void halt(struct soft_cpu *cpu)
{
	need_cpl0(cpu);
	cpu->mp_state = HV_X86_HALTED;
	cpu->shadow = 0; /* STI's covered this instruction */
}
SYS_END(hlt, halt(cpu))
SYS_END(int3, soft_software_int(cpu, SOFT_INT3, X86_BP))
SYS_END(intn, soft_software_int(cpu, SOFT_INTN, (uint8_t)i->imm))
SYS_END(icebp, soft_software_int(cpu, SOFT_ICEBP, X86_DB))
SOFT_OP(into)
{
	if (fl_of(cpu)) {
		soft_at(cpu, i);
		soft_software_int(cpu, SOFT_INT3, X86_OF);
	}
	NEXT;
}

/* ---- far transfers ---- */

SYS_END(iret, soft_iret(cpu, i->osize))
SYS_END(syscall, soft_syscall(cpu))
SYS_END(sysret, soft_sysret(cpu, i->osize))
SYS_END(sysenter, soft_sysenter(cpu))
SYS_END(sysexit, soft_sysexit(cpu, i->osize))
SYS_END(retf, soft_far_ret(cpu, i->osize, (uint16_t)i->imm))
/* The selector of a far pointer in the instruction is in disp. */
SYS_END(jmpf, soft_far_jmp(cpu, (uint16_t)i->disp, i->imm, i->osize))
SYS_END(callf, soft_far_call(cpu, (uint16_t)i->disp, i->imm, i->osize))

static uint64_t far_pointer(struct soft_cpu *cpu, struct insn *i, uint16_t *sel)
{
	uint64_t la = soft_ea(cpu, i, i->osize + 2u, false), off;

	off = soft_read(cpu, la, i->osize, SOFT_DATA);
	*sel = (uint16_t)soft_read(cpu, la + i->osize, 2, SOFT_DATA);
	return off;
}
static void jmpf_m(struct soft_cpu *cpu, struct insn *i)
{
	uint16_t sel;
	uint64_t off = far_pointer(cpu, i, &sel);

	soft_far_jmp(cpu, sel, off, i->osize);
}
static void callf_m(struct soft_cpu *cpu, struct insn *i)
{
	uint16_t sel;
	uint64_t off = far_pointer(cpu, i, &sel);

	soft_far_call(cpu, sel, off, i->osize);
}
SYS_END(jmpf_e, jmpf_m(cpu, i))
SYS_END(callf_e, callf_m(cpu, i))

/* ---- segment registers ---- */

/* REX.R has no meaning here; CS and what is no register are #UD. */
static enum x86_seg target_seg(struct soft_cpu *cpu, const struct insn *i)
{
	unsigned seg = i->reg & 7;

	if (seg == X86_CS || seg >= X86_SEG_COUNT)
		soft_fault0(cpu, X86_UD);
	return (enum x86_seg)seg;
}
static void load_seg(struct soft_cpu *cpu, struct insn *i, uint16_t sel)
{
	enum x86_seg seg = target_seg(cpu, i);

	soft_load_seg(cpu, seg, sel);
	if (seg == X86_SS)
		cpu->shadow = 2;
}
static void load_seg_m(struct soft_cpu *cpu, struct insn *i)
{
	target_seg(cpu, i); /* before the operand is read */
	load_seg(cpu, i,
		 (uint16_t)soft_read(cpu, soft_ea(cpu, i, 2, false), 2,
				     SOFT_DATA));
}
SYS_END(mov_to_seg_r, load_seg(cpu, i, (uint16_t)cpu->gpr[i->rm]))
SYS_END(mov_to_seg_m, load_seg_m(cpu, i))
static void from_seg(struct soft_cpu *cpu, struct insn *i)
{
	unsigned seg = i->reg & 7; /* REX.R has no meaning here */

	if (seg >= X86_SEG_COUNT)
		soft_fault0(cpu, X86_UD);
	if (i->flags & INSN_MEM)
		soft_write(cpu, soft_ea(cpu, i, 2, true), 2,
			   cpu->seg[seg].selector, SOFT_DATA);
	else
		soft_put_reg(cpu, i->rm, i->osize, cpu->seg[seg].selector);
}
SYS(mov_from_seg, from_seg(cpu, i))

static uint64_t stack_mask(const struct soft_cpu *cpu)
{
	return cpu->mode & MODE_64		? ~0ull
	       : cpu->seg[X86_SS].attr & SEG_DB ? 0xffffffff
						: 0xffff;
}
static void move_sp(struct soft_cpu *cpu, int by)
{
	uint64_t mask = stack_mask(cpu), sp = cpu->gpr[X86_RSP] + (uint64_t)by;

	if (mask == 0xffff)
		soft_put_reg(cpu, X86_RSP, 2, sp);
	else
		cpu->gpr[X86_RSP] = sp & mask;
}
static void push_seg_any(struct soft_cpu *cpu, struct insn *i)
{
	uint64_t sp = (cpu->gpr[X86_RSP] - i->osize) & stack_mask(cpu);

	soft_write(cpu, soft_seg_la(cpu, X86_SS, sp, i->osize, true), i->osize,
		   cpu->seg[i->reg].selector, SOFT_DATA);
	move_sp(cpu, -(int)i->osize);
}
static void pop_seg_any(struct soft_cpu *cpu, struct insn *i)
{
	uint64_t sp = cpu->gpr[X86_RSP] & stack_mask(cpu);
	uint64_t v =
		soft_read(cpu, soft_seg_la(cpu, X86_SS, sp, i->osize, false),
			  i->osize, SOFT_DATA);

	load_seg(cpu, i, (uint16_t)v);
	move_sp(cpu, i->osize);
}
SYS(push_seg, push_seg_any(cpu, i))
SYS_END(pop_seg, pop_seg_any(cpu, i))

/* LES, LDS, LSS, LFS, LGS: the segment is in imm. */
static void lseg_any(struct soft_cpu *cpu, struct insn *i)
{
	uint16_t sel;
	uint64_t off = far_pointer(cpu, i, &sel);

	soft_load_seg(cpu, (enum x86_seg)i->imm, sel);
	if (i->imm == X86_SS)
		cpu->shadow = 2;
	soft_put_reg(cpu, i->reg, i->osize, off);
}
SYS_END(lseg, lseg_any(cpu, i))

static void arpl_any(struct soft_cpu *cpu, struct insn *i)
{
	uint16_t d, s = (uint16_t)cpu->gpr[i->reg];
	uint64_t la = 0;
	bool low;

	if (!soft_protected(cpu))
		soft_fault0(cpu, X86_UD);
	if (i->flags & INSN_MEM) {
		la = soft_ea(cpu, i, 2, false);
		d = (uint16_t)soft_read(cpu, la, 2, SOFT_DATA);
	} else {
		d = (uint16_t)cpu->gpr[i->rm];
	}
	low = (d & 3) < (s & 3);
	if (low) {
		d = (uint16_t)((d & ~3) | (s & 3));
		if (i->flags & INSN_MEM)
			soft_write(cpu, soft_ea(cpu, i, 2, true), 2, d,
				   SOFT_DATA);
		else
			soft_put_reg(cpu, i->rm, 2, d);
	}
	fl_set_zf(cpu, low);
}
SYS(arpl, arpl_any(cpu, i))

static void bound_any(struct soft_cpu *cpu, struct insn *i)
{
	uint64_t la = soft_ea(cpu, i, 2u * i->osize, false);
	unsigned up = 64 - 8 * i->osize;
	int64_t lo, hi, v;

	lo = (int64_t)(soft_read(cpu, la, i->osize, SOFT_DATA) << up) >> up;
	hi = (int64_t)(soft_read(cpu, la + i->osize, i->osize, SOFT_DATA)
		       << up) >>
	     up;
	v = (int64_t)(cpu->gpr[i->reg] << up) >> up;
	if (v < lo || v > hi)
		soft_fault0(cpu, X86_BR);
}
SYS(bound, bound_any(cpu, i))

/* LAR, LSL. */
static void lar_lsl(struct soft_cpu *cpu, struct insn *i, bool lsl)
{
	uint16_t sel;
	uint32_t v = 0;
	bool ok;

	if (!soft_protected(cpu))
		soft_fault0(cpu, X86_UD);
	if (i->flags & INSN_MEM)
		sel = (uint16_t)soft_read(cpu, soft_ea(cpu, i, 2, false), 2,
					  SOFT_DATA);
	else
		sel = (uint16_t)cpu->gpr[i->rm];
	ok = lsl ? soft_lsl(cpu, sel, &v) : soft_lar(cpu, sel, &v);
	if (ok)
		soft_put_reg(cpu, i->reg, i->osize, v);
	fl_set_zf(cpu, ok);
}
SYS(lar, lar_lsl(cpu, i, false))
SYS(lsl, lar_lsl(cpu, i, true))

static void xlat_any(struct soft_cpu *cpu, struct insn *i)
{
	uint64_t off = cpu->gpr[X86_RBX] + (uint8_t)cpu->gpr[X86_RAX];

	off &= i->asize == 8 ? ~0ull : i->asize == 4 ? 0xffffffff : 0xffff;
	*soft_reg8(cpu, 0) = (uint8_t)soft_read(
		cpu, soft_seg_la(cpu, i->seg, off, 1, false), 1, SOFT_DATA);
}
SYS(xlat, xlat_any(cpu, i))

/* ---- control and model-specific registers ---- */

SYS_END(grp6, soft_group6(cpu, i))
SYS_END(grp7, soft_group7(cpu, i))
SYS_END(invpcid, soft_invpcid(cpu, i))
SYS_END(clts, soft_clts(cpu))
SYS(fsgsbase, soft_fsgsbase(cpu, i))
SYS(rdtsc, soft_rdtsc(cpu))
SYS(rdpmc, soft_rdpmc(cpu))
SYS_END(cpuid, soft_cpuid(cpu))
/* Caches are the host's business. */
SYS_END(invd, need_cpl0(cpu))
SYS_END(wbinvd, need_cpl0(cpu))

static void rdmsr_any(struct soft_cpu *cpu)
{
	uint64_t v = soft_rdmsr(cpu, (uint32_t)cpu->gpr[X86_RCX]);

	cpu->gpr[X86_RAX] = (uint32_t)v;
	cpu->gpr[X86_RDX] = v >> 32;
}
static void wrmsr_any(struct soft_cpu *cpu)
{
	uint32_t msr = (uint32_t)cpu->gpr[X86_RCX];

	soft_wrmsr(cpu, msr,
		   cpu->gpr[X86_RDX] << 32 | (uint32_t)cpu->gpr[X86_RAX]);
	/* EOI, TPR, self-IPI: something may be deliverable now. */
	if (msr >> 8 == 8)
		cpu->irq_wait = true;
}
SYS_END(rdmsr, rdmsr_any(cpu))
SYS_END(wrmsr, wrmsr_any(cpu))

static void mov_from_cr_any(struct soft_cpu *cpu, struct insn *i)
{
	soft_put_reg(cpu, i->rm, cpu->mode & MODE_64 ? 8 : 4,
		     soft_mov_from_cr(cpu, i->reg));
}
static void mov_to_cr_any(struct soft_cpu *cpu, struct insn *i)
{
	uint64_t v = cpu->gpr[i->rm];

	soft_mov_to_cr(cpu, i->reg, cpu->mode & MODE_64 ? v : (uint32_t)v);
}
static void mov_from_dr_any(struct soft_cpu *cpu, struct insn *i)
{
	soft_put_reg(cpu, i->rm, cpu->mode & MODE_64 ? 8 : 4,
		     soft_mov_from_dr(cpu, i->reg));
}
static void mov_to_dr_any(struct soft_cpu *cpu, struct insn *i)
{
	uint64_t v = cpu->gpr[i->rm];

	soft_mov_to_dr(cpu, i->reg, cpu->mode & MODE_64 ? v : (uint32_t)v);
}
SYS(mov_from_cr, mov_from_cr_any(cpu, i))
SYS_END(mov_to_cr, mov_to_cr_any(cpu, i))
SYS(mov_from_dr, mov_from_dr_any(cpu, i))
SYS_END(mov_to_dr, mov_to_dr_any(cpu, i))

/* ---- ports ---- */

static void do_in(struct soft_cpu *cpu, unsigned port, unsigned size)
{
	soft_io_check(cpu, port, size);
	soft_count(&cpu->counters.pio, 1);
	soft_put_reg(cpu, 0, size, soft_bus_read(cpu, BUS_PIO, port, size));
}
static void do_out(struct soft_cpu *cpu, unsigned port, unsigned size)
{
	soft_io_check(cpu, port, size);
	soft_count(&cpu->counters.pio, 1);
	soft_bus_write(cpu, BUS_PIO, port, size, cpu->gpr[0]);
}
SYS_END(in_i, do_in(cpu, (uint8_t)i->imm, i->osize))
SYS_END(out_i, do_out(cpu, (uint8_t)i->imm, i->osize))
SYS_END(in_d, do_in(cpu, (uint16_t)cpu->gpr[X86_RDX], i->osize))
SYS_END(out_d, do_out(cpu, (uint16_t)cpu->gpr[X86_RDX], i->osize))

/*
 * PAUSE. A vCPU that spins may keep from the host's CPU the one it waits for:
 * give it away now and then.
 */
SOFT_OP(pause)
{
	if (unlikely(cpu->vm->ncpus > 1 && !(++cpu->pauses & 63)))
		sched_yield();
	NEXT;
}
SET(pause, .r = ALL(pause));

/* ---- SSE, x87 ---- */

/* The first time: see op_fpu.c. */
SOFT_OP(sse)
{
	if (soft_sse_specialise(cpu, i)) {
		SOFT_GO(cpu, i);
	} else {
		soft_at(cpu, i);
		soft_sse_exec(cpu, i);
		NEXT;
	}
}
SOFT_OP(x87)
{
	if (soft_x87_specialise(cpu, i)) {
		SOFT_GO(cpu, i);
	} else {
		soft_at(cpu, i);
		soft_x87_exec(cpu, i);
		NEXT;
	}
}

#define SIMPLE(op)  SET(op, .r = ALL(op))
#define RM_SAME(op) SET(op, .r = ALL(op), .m = ALL(op))
SIMPLE(cli);
SIMPLE(sti);
SET(pushf, .r = { NULL, pushf_gen, pushf_gen, pushf_64 });
SET(popf, .r = { NULL, popf_gen, popf_gen, popf_64 });
SIMPLE(hlt);
SIMPLE(int3);
SIMPLE(intn);
SIMPLE(icebp);
SIMPLE(into);
SIMPLE(iret);
SIMPLE(syscall);
SIMPLE(sysret);
SIMPLE(sysenter);
SIMPLE(sysexit);
SIMPLE(retf);
SIMPLE(jmpf);
SIMPLE(callf);
SET(jmpf_e, .m = ALL(jmpf_e));
SET(callf_e, .m = ALL(callf_e));
SET(mov_to_seg, .r = ALL(mov_to_seg_r), .m = ALL(mov_to_seg_m));
RM_SAME(mov_from_seg);
SIMPLE(push_seg);
SIMPLE(pop_seg);
SET(lseg, .m = ALL(lseg));
RM_SAME(arpl);
SET(bound, .m = ALL(bound));
RM_SAME(lar);
RM_SAME(lsl);
SIMPLE(xlat);
RM_SAME(grp6);
RM_SAME(grp7);
SET(invpcid, .m = ALL(invpcid));
SIMPLE(clts);
SET(fsgsbase, .r = ALL(fsgsbase));
SIMPLE(rdtsc);
SIMPLE(rdpmc);
SIMPLE(cpuid);
SIMPLE(invd);
SIMPLE(wbinvd);
SIMPLE(rdmsr);
SIMPLE(wrmsr);
RM_SAME(mov_from_cr);
RM_SAME(mov_to_cr);
RM_SAME(mov_from_dr);
RM_SAME(mov_to_dr);
SIMPLE(in_i);
SIMPLE(out_i);
SIMPLE(in_d);
SIMPLE(out_d);
RM_SAME(sse);
RM_SAME(x87);
