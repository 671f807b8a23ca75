/*
 * Near branches and the stack. In 64-bit mode with the usual operand size these
 * are short; everything else (other modes, odd operand sizes) goes through
 * general versions that mask RIP and RSP and check limits.
 */
#include "hv/soft/block.h"
#include "hv/soft/ops.h"

/* ---- general stack access ---- */

static uint64_t sp_mask(const struct soft_cpu *cpu)
{
	if (cpu->mode & MODE_64)
		return ~0ull;
	return cpu->seg[X86_SS].attr & SEG_DB ? 0xffffffff : 0xffff;
}

static void set_sp(struct soft_cpu *cpu, uint64_t sp)
{
	uint64_t mask = sp_mask(cpu);

	if (mask == 0xffff)
		*(soft_u16u *)&cpu->gpr[X86_RSP] = (uint16_t)sp;
	else
		cpu->gpr[X86_RSP] = sp & mask;
}

/* Store below RSP; the caller then moves RSP by set_sp(). */
static uint64_t push_at(struct soft_cpu *cpu, uint64_t sp, unsigned size,
			uint64_t v)
{
	uint64_t mask = sp_mask(cpu);

	sp = (sp - size) & mask;
	soft_write(cpu, soft_seg_la(cpu, X86_SS, sp, size, true), size, v,
		   SOFT_DATA);
	return sp;
}

static uint64_t pop_at(struct soft_cpu *cpu, uint64_t sp, unsigned size)
{
	return soft_read(
		cpu, soft_seg_la(cpu, X86_SS, sp & sp_mask(cpu), size, false),
		size, SOFT_DATA);
}

static void push(struct soft_cpu *cpu, struct insn *i, uint64_t v)
{
	soft_at(cpu, i);
	set_sp(cpu, push_at(cpu, cpu->gpr[X86_RSP], i->osize, v));
}

/* ---- PUSH, POP ---- */

SOFT_OP(push_64)
{
	uint64_t sp = cpu->gpr[X86_RSP] - 8;

	soft_st64(cpu, i, sp, cpu->gpr[i->rm]);
	cpu->gpr[X86_RSP] = sp;
	NEXT;
}
SOFT_OP(push_gen)
{
	push(cpu, i, cpu->gpr[i->rm]);
	NEXT;
}
SOFT_OP(pop_64)
{
	uint64_t sp = cpu->gpr[X86_RSP], v = soft_ld64(cpu, i, sp);

	cpu->gpr[X86_RSP] = sp + 8;
	cpu->gpr[i->rm] = v;
	NEXT;
}
SOFT_OP(pop_gen)
{
	uint64_t v;

	soft_at(cpu, i);
	v = pop_at(cpu, cpu->gpr[X86_RSP], i->osize);
	set_sp(cpu, cpu->gpr[X86_RSP] + i->osize);
	soft_put_reg(cpu, i->rm, i->osize, v);
	NEXT;
}
SOFT_OP(push_i_64)
{
	uint64_t sp = cpu->gpr[X86_RSP] - 8;

	soft_st64(cpu, i, sp, i->imm);
	cpu->gpr[X86_RSP] = sp;
	NEXT;
}
SOFT_OP(push_i_gen)
{
	push(cpu, i, i->imm);
	NEXT;
}
SOFT_OP(push_m_64)
{
	uint64_t v = soft_ld64(cpu, i, soft_ea_fast(cpu, i, 8));
	uint64_t sp = cpu->gpr[X86_RSP] - 8;

	soft_st64(cpu, i, sp, v);
	cpu->gpr[X86_RSP] = sp;
	NEXT;
}
SOFT_OP(push_m_gen)
{
	soft_at(cpu, i);
	push(cpu, i,
	     soft_read(cpu, soft_ea(cpu, i, i->osize, false), i->osize,
		       SOFT_DATA));
	NEXT;
}
/* POP m: the address is computed with RSP already moved. */
static void pop_m(struct soft_cpu *cpu, struct insn *i)
{
	uint64_t old = cpu->gpr[X86_RSP], v, la;

	soft_at(cpu, i);
	v = pop_at(cpu, old, i->osize);
	if (i->base == X86_RSP) {
		/* The address may fault: put RSP back before it can. */
		i->disp += i->osize;
		la = soft_lea(cpu, i);
		i->disp -= i->osize;
		la = soft_seg_la(cpu, i->seg, la, i->osize, true);
	} else {
		la = soft_ea(cpu, i, i->osize, true);
	}
	soft_write(cpu, la, i->osize, v, SOFT_DATA);
	set_sp(cpu, old + i->osize);
}
SOFT_OP(pop_m_gen)
{
	pop_m(cpu, i);
	NEXT;
}

static void pusha(struct soft_cpu *cpu, struct insn *i)
{
	uint64_t sp = cpu->gpr[X86_RSP];

	soft_at(cpu, i);
	/* All eight or none: PUSHA faults before it changes anything. */
	for (unsigned n = 1; n <= 8; n++)
		soft_probe_write(cpu,
				 soft_seg_la(cpu, X86_SS,
					     (sp - n * i->osize) & sp_mask(cpu),
					     i->osize, true),
				 i->osize, SOFT_DATA);
	for (unsigned r = 0; r < 8; r++)
		sp = push_at(cpu, sp, i->osize, cpu->gpr[r]);
	set_sp(cpu, sp);
}
SOFT_OP(pusha_op)
{
	pusha(cpu, i);
	NEXT;
}
static void popa(struct soft_cpu *cpu, struct insn *i)
{
	uint64_t sp = cpu->gpr[X86_RSP], v[8];

	soft_at(cpu, i);
	for (unsigned n = 0; n < 8; n++)
		v[n] = pop_at(cpu, sp + n * i->osize, i->osize);
	for (unsigned n = 0; n < 8; n++)
		if (7 - n != X86_RSP)
			soft_put_reg(cpu, 7 - n, i->osize, v[n]);
	set_sp(cpu, sp + 8 * i->osize);
}
SOFT_OP(popa_op)
{
	popa(cpu, i);
	NEXT;
}

static void enter(struct soft_cpu *cpu, struct insn *i)
{
	uint64_t sp = cpu->gpr[X86_RSP], bp = cpu->gpr[X86_RBP], frame;
	unsigned size = i->osize, level = i->imm >> 16 & 31;

	soft_at(cpu, i);
	sp = push_at(cpu, sp, size, bp);
	frame = sp;
	for (unsigned n = 1; n < level; n++) {
		bp -= size;
		sp = push_at(cpu, sp, size, pop_at(cpu, bp, size));
	}
	if (level)
		sp = push_at(cpu, sp, size, frame);
	sp -= i->imm & 0xffff;
	/* A write to the final top must be possible. */
	soft_probe_write(cpu,
			 soft_seg_la(cpu, X86_SS, sp & sp_mask(cpu), 1, true),
			 1, SOFT_DATA);
	soft_put_reg(cpu, X86_RBP, size, frame);
	set_sp(cpu, sp);
}
SOFT_OP(enter_op)
{
	enter(cpu, i);
	NEXT;
}
SOFT_OP(leave_64)
{
	uint64_t bp = cpu->gpr[X86_RBP], v = soft_ld64(cpu, i, bp);

	cpu->gpr[X86_RBP] = v;
	cpu->gpr[X86_RSP] = bp + 8;
	NEXT;
}
SOFT_OP(leave_gen)
{
	uint64_t bp = cpu->gpr[X86_RBP] & sp_mask(cpu), v;

	soft_at(cpu, i);
	v = pop_at(cpu, bp, i->osize);
	set_sp(cpu, bp + i->osize);
	soft_put_reg(cpu, X86_RBP, i->osize, v);
	NEXT;
}

/* ---- branches, 64-bit mode ---- */

#define FROM(i) (cpu->gpr[SOFT_RIP] + (i)->off + (i)->len)

SOFT_OP(jmp_near)
{
	soft_chain(cpu, i, i, FROM(i) + i->imm);
}
SOFT_OP(jmp_far_page)
{
	soft_chain_far(cpu, i, i, FROM(i) + i->imm);
}

/* A branch to nowhere faults as the branch, before it has done anything. */
static __attribute__((noinline, cold, noreturn)) void
bad_target(struct soft_cpu *cpu, struct insn *i)
{
	soft_at(cpu, i);
	soft_fault(cpu, X86_GP, 0);
}
#define CHECK_TARGET(to)                           \
	do {                                       \
		if (unlikely(!soft_canonical(to))) \
			bad_target(cpu, i);        \
	} while (0)

#define JCC(cc)                                                   \
	SOFT_OP(jcc_near_##cc)                                    \
	{                                                         \
		uint64_t next = FROM(i);                          \
                                                                  \
		if (fl_cond(cpu, 0x##cc))                         \
			soft_chain(cpu, i, i, next + i->imm);     \
		else                                              \
			soft_chain(cpu, i, i + 1, next);          \
	}                                                         \
	SOFT_OP(jcc_far_##cc)                                     \
	{                                                         \
		uint64_t next = FROM(i);                          \
                                                                  \
		if (fl_cond(cpu, 0x##cc))                         \
			soft_chain_far(cpu, i, i, next + i->imm); \
		else                                              \
			soft_chain_far(cpu, i, i + 1, next);      \
	}                                                         \
	SOFT_OP(jcc_gen_##cc)                                     \
	{                                                         \
		if (fl_cond(cpu, 0x##cc))                         \
			near_branch(cpu, i, FROM(i) + i->imm);    \
		else                                              \
			no_branch(cpu, i);                        \
	}
#define SOFT_EACH_CC(x)                                                       \
	x(0) x(1) x(2) x(3) x(4) x(5) x(6) x(7) x(8) x(9) x(a) x(b) x(c) x(d) \
		x(e) x(f)

/* Cut a target to the operand size and check the code segment's limit. */
static uint64_t branch_target(struct soft_cpu *cpu, struct insn *i, uint64_t to)
{
	if (cpu->mode & MODE_64) {
		CHECK_TARGET(to);
		return to;
	}
	to &= i->osize == 2 ? 0xffff : 0xffffffff;
	if (to > cpu->seg[X86_CS].limit) {
		soft_at(cpu, i);
		soft_fault(cpu, X86_GP, 0);
	}
	return to;
}

static inline void near_branch(struct soft_cpu *cpu, struct insn *i,
			       uint64_t to)
{
	soft_jump(cpu, i, branch_target(cpu, i, to));
}

/* The operand size cuts a target, not the way on. */
static inline void no_branch(struct soft_cpu *cpu, struct insn *i)
{
	soft_jump(cpu, i, cpu->mode & MODE_64 ? FROM(i) : (uint32_t)FROM(i));
}

SOFT_EACH_CC(JCC)

SOFT_OP(jmp_gen)
{
	near_branch(cpu, i, FROM(i) + i->imm);
}
SOFT_OP(jmp_e_r64)
{
	uint64_t to = cpu->gpr[i->rm];

	CHECK_TARGET(to);
	soft_jump(cpu, i, to);
}
SOFT_OP(jmp_e_m64)
{
	uint64_t to = soft_ld64(cpu, i, soft_ea_fast(cpu, i, 8));

	CHECK_TARGET(to);
	soft_jump(cpu, i, to);
}
SOFT_OP(jmp_e_r_gen)
{
	near_branch(cpu, i, cpu->gpr[i->rm]);
}
static uint64_t load_m(struct soft_cpu *cpu, struct insn *i)
{
	soft_at(cpu, i);
	return soft_read(cpu, soft_ea(cpu, i, i->osize, false), i->osize,
			 SOFT_DATA);
}
SOFT_OP(jmp_e_m_gen)
{
	near_branch(cpu, i, load_m(cpu, i));
}

SOFT_OP(call_near)
{
	uint64_t next = FROM(i), sp = cpu->gpr[X86_RSP] - 8;

	soft_st64(cpu, i, sp, next);
	cpu->gpr[X86_RSP] = sp;
	soft_chain(cpu, i, i, next + i->imm);
}
SOFT_OP(call_far_page)
{
	uint64_t next = FROM(i), sp = cpu->gpr[X86_RSP] - 8;

	soft_st64(cpu, i, sp, next);
	cpu->gpr[X86_RSP] = sp;
	soft_chain_far(cpu, i, i, next + i->imm);
}
SOFT_OP(call_e_r64)
{
	uint64_t to = cpu->gpr[i->rm], sp = cpu->gpr[X86_RSP] - 8;

	CHECK_TARGET(to);
	soft_st64(cpu, i, sp, FROM(i));
	cpu->gpr[X86_RSP] = sp;
	soft_jump(cpu, i, to);
}
SOFT_OP(call_e_m64)
{
	uint64_t to = soft_ld64(cpu, i, soft_ea_fast(cpu, i, 8));
	uint64_t sp = cpu->gpr[X86_RSP] - 8;

	CHECK_TARGET(to);
	soft_st64(cpu, i, sp, FROM(i));
	cpu->gpr[X86_RSP] = sp;
	soft_jump(cpu, i, to);
}
static uint64_t call_gen_push(struct soft_cpu *cpu, struct insn *i, uint64_t to)
{
	soft_at(cpu, i);
	to = branch_target(cpu, i, to);
	set_sp(cpu, push_at(cpu, cpu->gpr[X86_RSP], i->osize, cpu->next_rip));
	return to;
}
SOFT_OP(call_gen)
{
	soft_jump(cpu, i, call_gen_push(cpu, i, FROM(i) + i->imm));
}
SOFT_OP(call_e_r_gen)
{
	soft_jump(cpu, i, call_gen_push(cpu, i, cpu->gpr[i->rm]));
}
SOFT_OP(call_e_m_gen)
{
	soft_jump(cpu, i, call_gen_push(cpu, i, load_m(cpu, i)));
}

SOFT_OP(ret_64)
{
	uint64_t sp = cpu->gpr[X86_RSP], to = soft_ld64(cpu, i, sp);

	CHECK_TARGET(to);
	cpu->gpr[X86_RSP] = sp + 8;
	soft_jump(cpu, i, to);
}
SOFT_OP(ret_i_64)
{
	uint64_t sp = cpu->gpr[X86_RSP], to = soft_ld64(cpu, i, sp);

	CHECK_TARGET(to);
	cpu->gpr[X86_RSP] = sp + 8 + (uint16_t)i->imm;
	soft_jump(cpu, i, to);
}
static uint64_t ret_pop(struct soft_cpu *cpu, struct insn *i, unsigned drop)
{
	uint64_t to;

	soft_at(cpu, i);
	to = branch_target(cpu, i, pop_at(cpu, cpu->gpr[X86_RSP], i->osize));
	set_sp(cpu, cpu->gpr[X86_RSP] + i->osize + drop);
	return to;
}
SOFT_OP(ret_gen)
{
	soft_jump(cpu, i, ret_pop(cpu, i, 0));
}
SOFT_OP(ret_i_gen)
{
	soft_jump(cpu, i, ret_pop(cpu, i, (uint16_t)i->imm));
}

/* LOOP, LOOPE, LOOPNE, JCXZ: the counter has the address size. */
static inline uint64_t count_mask(const struct insn *i)
{
	return i->asize == 8 ? ~0ull : i->asize == 4 ? 0xffffffff : 0xffff;
}
static uint64_t loop_target(struct soft_cpu *cpu, struct insn *i, bool zf_is,
			    bool zf)
{
	uint64_t mask = count_mask(i), n = (cpu->gpr[X86_RCX] - 1) & mask;
	uint64_t to = cpu->mode & MODE_64 ? FROM(i) : (uint32_t)FROM(i);

	if (n && (!zf_is || fl_zf(cpu) == zf))
		to = branch_target(cpu, i, to + i->imm);
	soft_put_reg(cpu, X86_RCX, i->asize, n);
	return to;
}
SOFT_OP(loop_op)
{
	soft_jump(cpu, i, loop_target(cpu, i, false, false));
}
SOFT_OP(loope_op)
{
	soft_jump(cpu, i, loop_target(cpu, i, true, true));
}
SOFT_OP(loopne_op)
{
	soft_jump(cpu, i, loop_target(cpu, i, true, false));
}
SOFT_OP(jcxz_op)
{
	if (!(cpu->gpr[X86_RCX] & count_mask(i)))
		near_branch(cpu, i, FROM(i) + i->imm);
	else
		no_branch(cpu, i);
}

#define ALL(f)             \
	{                  \
		f, f, f, f \
	}
#define SET(n, ...) const struct soft_opset soft_set_##n = { __VA_ARGS__ }

/*
 * Index 3 (8 bytes) is the 64-bit mode form. Branches by offset have their
 * in-page form in r and the form that leaves the page in m; the decoder
 * chooses.
 */
#define JCC_SET(cc)                                                   \
	SET(jcc_##cc,                                                 \
	    .r = { NULL, jcc_gen_##cc, jcc_gen_##cc, jcc_near_##cc }, \
	    .m = { NULL, jcc_gen_##cc, jcc_gen_##cc, jcc_far_##cc });
SOFT_EACH_CC(JCC_SET)
SET(jmp, .r = { NULL, jmp_gen, jmp_gen, jmp_near },
    .m = { NULL, jmp_gen, jmp_gen, jmp_far_page });
SET(call, .r = { NULL, call_gen, call_gen, call_near },
    .m = { NULL, call_gen, call_gen, call_far_page });
SET(jmp_e, .r = { NULL, jmp_e_r_gen, jmp_e_r_gen, jmp_e_r64 },
    .m = { NULL, jmp_e_m_gen, jmp_e_m_gen, jmp_e_m64 });
SET(call_e, .r = { NULL, call_e_r_gen, call_e_r_gen, call_e_r64 },
    .m = { NULL, call_e_m_gen, call_e_m_gen, call_e_m64 });
SET(ret, .r = { NULL, ret_gen, ret_gen, ret_64 });
SET(ret_i, .r = { NULL, ret_i_gen, ret_i_gen, ret_i_64 });
SET(push, .r = { NULL, push_gen, push_gen, push_64 });
SET(pop, .r = { NULL, pop_gen, pop_gen, pop_64 });
SET(push_i, .r = { NULL, push_i_gen, push_i_gen, push_i_64 });
SET(push_e, .r = { NULL, push_gen, push_gen, push_64 },
    .m = { NULL, push_m_gen, push_m_gen, push_m_64 });
SET(pop_e, .r = { NULL, pop_gen, pop_gen, pop_64 }, .m = ALL(pop_m_gen));
SET(pusha, .r = ALL(pusha_op));
SET(popa, .r = ALL(popa_op));
SET(enter, .r = ALL(enter_op));
SET(leave, .r = { NULL, leave_gen, leave_gen, leave_64 });
SET(loop, .r = ALL(loop_op));
SET(loope, .r = ALL(loope_op));
SET(loopne, .r = ALL(loopne_op));
SET(jcxz, .r = ALL(jcxz_op));
