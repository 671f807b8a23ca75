/*
 * Lean handlers of SSE and x87 instructions.
 *
 * When an instruction runs for the first time it gets one of these handlers, if
 * it has a lean form. A lean handler calls a
 * lean thunk with pointers: to the guest's registers, and straight to guest
 * memory when the TLB has the page, the operand is in one page and aligned if it
 * must be. In any other case (a miss, MMIO, CR0.TS, an unusual MXCSR, x87 state
 * not in the host) it goes the general way, which does all checks.
 *
 * In a memory form insn.rm is the operand's size and insn.osize the alignment
 * mask; the general way uses neither there.
 */
#include "hv/soft/op.h"
#include "hv/soft/sse.h"

enum form { RR, RG, LOAD, STORE }; /* rm: XMM, GPR, memory read, written */

/* Guest memory for reading, or NULL. */
static inline __attribute__((always_inline)) void *
read_ptr(struct soft_cpu *cpu, uint64_t la, unsigned size)
{
	struct soft_tlb *t = &cpu->tlb[(la >> 12) & (SOFT_TLB_SIZE - 1)];
	uint64_t tag = ((la + size - 1) & SOFT_PAGE_MASK) | cpu->tlb_ctx;

	return likely(tag == t->rtag) ? (void *)(la + t->addend) : NULL;
}

static inline __attribute__((always_inline)) void *
mem_ptr(struct soft_cpu *cpu, struct insn *i, bool write)
{
	uint64_t la = soft_ea_fast(cpu, i, i->rm | (write ? SOFT_EA_W : 0u));

	if (unlikely(la & i->osize))
		return NULL;
	return write ? soft_wptr(cpu, la, i->rm) : read_ptr(cpu, la, i->rm);
}

/* The general way. */
static void sse_slow(struct soft_cpu *cpu, struct insn *i)
{
	soft_at(cpu, i);
	soft_sse_exec(cpu, i);
}

static inline __attribute__((always_inline)) bool
sse_lean(struct soft_cpu *cpu, struct insn *i, bool gpr_reg, enum form form,
	 bool flags, bool fp)
{
	thunk_lean_fn *fn = (thunk_lean_fn *)(uintptr_t)i->aux;
	struct fx_image *fx = (struct fx_image *)cpu->fx;
	void *reg, *rm = NULL;
	uint64_t f;

	if (unlikely(!(fp ? cpu->sse_fp : cpu->sse_ok)))
		return false;
	reg = gpr_reg ? (void *)&cpu->gpr[i->reg] : fx->xmm[i->reg];
	switch (form) {
	case RR:
		rm = fx->xmm[i->rm];
		break;
	case RG:
		rm = &cpu->gpr[i->rm];
		break;
	case LOAD:
	case STORE:
		rm = mem_ptr(cpu, i, form == STORE);
		if (unlikely(!rm))
			return false;
	}
	f = fn(reg, rm);
	if (flags)
		fl_put(cpu, f);
	return true;
}

#define SSE_H(name, gpr_reg, form, flags, fp)                              \
	SOFT_OP(name)                                                      \
	{                                                                  \
		if (unlikely(!sse_lean(cpu, i, gpr_reg, form, flags, fp))) \
			sse_slow(cpu, i);                                  \
		NEXT;                                                      \
	}
/* With and without MXCSR. */
#define SSE_H2(name, gpr_reg, form, flags)       \
	SSE_H(name, gpr_reg, form, flags, false) \
	SSE_H(name##_fp, gpr_reg, form, flags, true)

SSE_H2(x_x, false, RR, false)
SSE_H2(x_g, false, RG, false)
SSE_H2(x_load, false, LOAD, false)
SSE_H2(x_store, false, STORE, false)
SSE_H2(g_x, true, RR, false)
SSE_H2(g_load, true, LOAD, false)
SSE_H2(f_x, false, RR, true)
SSE_H2(f_load, false, LOAD, true)

#define PICK(name) (op->flags & SSE_FP ? name##_fp : name)

bool soft_sse_specialise(struct soft_cpu *cpu, struct insn *i)
{
	struct sse_code c = soft_sse_code(i);
	const struct sse_op *op = &sse_ops[c.map][c.pfx][c.opcode];
	bool flags = op->flags & SSE_EFLAGS, gpr = op->reg == SSE_GPR;
	thunk_lean_fn *fn = NULL;

	if (op->feature)
		fn = thunk_sse_lean(cpu->sse->pool, &c);
	if (!fn)
		return false;
	i->aux = (void *)(uintptr_t)fn;
	if (c.mem) {
		i->rm = op->mem ? op->mem : c.w ? 8 : 4;
		i->osize = op->flags & SSE_ALIGN ? 15 : 0;
		i->fn = op->flags & SSE_TO_RM ? PICK(x_store)
			: flags		      ? PICK(f_load)
			: gpr		      ? PICK(g_load)
					      : PICK(x_load);
	} else {
		i->fn = op->rm == SSE_GPR ? PICK(x_g)
			: flags		  ? PICK(f_x)
			: gpr		  ? PICK(g_x)
					  : PICK(x_x);
	}
	return true;
}

/* ---- x87 ---- */

static void x87_slow(struct soft_cpu *cpu, struct insn *i)
{
	soft_at(cpu, i);
	soft_x87_exec(cpu, i);
}

/* FIP and FOP of a non-control instruction; FDP with a memory operand. */
static inline __attribute__((always_inline)) void
x87_pointers(struct soft_cpu *cpu, const struct insn *i, bool mem)
{
	struct fx_image *fx = (struct fx_image *)cpu->fx;

	fx->fip = cpu->gpr[SOFT_RIP] + i->off;
	fx->fop = (uint16_t)((i->opcode & 7) << 8 | i->modrm);
	if (mem)
		fx->fdp = soft_lea(cpu, i);
}

static inline __attribute__((always_inline)) uint64_t
x87_call(struct insn *i, uint64_t flags, void *mem)
{
	return ((thunk_lean_x87_fn *)(uintptr_t)i->aux)(flags, mem);
}

SOFT_OP(x87_reg)
{
	if (likely(cpu->x87_live)) {
		x87_call(i, 0, NULL);
		x87_pointers(cpu, i, false);
	} else {
		x87_slow(cpu, i);
	}
	NEXT;
}
SOFT_OP(x87_cmov)
{
	if (likely(cpu->x87_live)) {
		x87_call(i, fl_get(cpu), NULL);
		x87_pointers(cpu, i, false);
	} else {
		x87_slow(cpu, i);
	}
	NEXT;
}
SOFT_OP(x87_comi)
{
	if (likely(cpu->x87_live)) {
		fl_put(cpu, x87_call(i, 0, NULL));
		x87_pointers(cpu, i, false);
	} else {
		x87_slow(cpu, i);
	}
	NEXT;
}

static inline __attribute__((always_inline)) bool
x87_mem(struct soft_cpu *cpu, struct insn *i, bool write, bool control)
{
	void *p;

	if (unlikely(!cpu->x87_live))
		return false;
	p = mem_ptr(cpu, i, write);
	if (unlikely(!p))
		return false;
	x87_call(i, 0, p);
	if (!control)
		x87_pointers(cpu, i, true);
	return true;
}
SOFT_OP(x87_load)
{
	if (unlikely(!x87_mem(cpu, i, false, false)))
		x87_slow(cpu, i);
	NEXT;
}
SOFT_OP(x87_store)
{
	if (unlikely(!x87_mem(cpu, i, true, false)))
		x87_slow(cpu, i);
	NEXT;
}
/* FNSTCW, FNSTSW to memory */
SOFT_OP(x87_store_control)
{
	if (unlikely(!x87_mem(cpu, i, true, true)))
		x87_slow(cpu, i);
	NEXT;
}
SOFT_OP(x87_fnstsw_ax)
{
	uint16_t fsw;

	if (likely(cpu->x87_live)) {
		__asm__ volatile("fnstsw %0" : "=a"(fsw));
		*(soft_u16u *)&cpu->gpr[X86_RAX] = fsw;
	} else {
		x87_slow(cpu, i);
	}
	NEXT;
}
static __attribute__((noinline)) void load_fcw(uint16_t v)
{
	__asm__ volatile("fldcw %0" : : "m"(v));
}
/* FLDCW: a value that unmasks something ends the stay in the host. */
static inline __attribute__((always_inline)) bool
x87_fldcw_lean(struct soft_cpu *cpu, struct insn *i)
{
	void *p;
	uint32_t v;

	if (unlikely(!cpu->x87_live))
		return false;
	p = mem_ptr(cpu, i, false);
	if (unlikely(!p))
		return false;
	v = racy_ld16(p);
	if (unlikely((v & 0x3f) != 0x3f))
		return false;
	load_fcw((uint16_t)v); /* the value that was checked */
	return true;
}
SOFT_OP(x87_fldcw)
{
	if (unlikely(!x87_fldcw_lean(cpu, i)))
		x87_slow(cpu, i);
	NEXT;
}

static soft_handler *control_handler(const struct insn *i)
{
	unsigned digit = i->modrm >> 3 & 7;

	if (!(i->flags & INSN_MEM))
		return i->opcode == 0xdf && i->modrm == 0xe0 ? x87_fnstsw_ax
							     : NULL;
	if (i->opcode == 0xd9 && digit == 5)
		return x87_fldcw;
	if ((i->opcode == 0xd9 || i->opcode == 0xdd) && digit == 7)
		return x87_store_control;
	return NULL;
}

bool soft_x87_specialise(struct soft_cpu *cpu, struct insn *i)
{
	bool mem = i->flags & INSN_MEM, control;
	soft_handler *fn = control_handler(i);
	int size;

	if (i->opcode == 0x9b || !soft_x87_form(i, &size))
		return false;
	/* DB E0-E4; FLDENV, FNSTENV, FRSTOR, FNSAVE: the general way */
	control =
		mem ? size == 1
		    : i->opcode == 0xdb && i->modrm >= 0xe0 && i->modrm < 0xe8;
	if (!fn && control)
		return false;
	if (!fn && mem)
		fn = size < 0 ? x87_store : x87_load;
	else if (!fn && (i->opcode == 0xda || i->opcode == 0xdb) &&
		 i->modrm < 0xe0)
		fn = x87_cmov;
	else if (!fn && (i->opcode == 0xdb || i->opcode == 0xdf) &&
		 i->modrm >= 0xe8)
		fn = x87_comi;
	else if (!fn)
		fn = x87_reg;
	if (mem) {
		i->rm = (uint8_t)(size < 0 ? -size : size);
		i->osize = 0;
	}
	i->aux = (void *)(uintptr_t)thunk_x87_lean(cpu->sse->pool, i->opcode,
						   i->modrm);
	i->fn = fn;
	return true;
}
