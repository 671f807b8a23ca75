/*
 * SSE and MMX instructions: the part around the native thunk (thunk.h).
 *
 * Theory of operation
 * -------------------
 * In the order in which the processor looks (SDM vol. 2A, 2.4 and 2.5): the
 * encoding and CR0.EM, CR4.OSFXSR (#UD), CR0.TS (#NM), a pending x87 exception
 * for instructions that use MMX registers (#MF), the memory operand (#SS, #GP,
 * alignment #GP, #PF), unmasked SIMD exceptions (#XM). Only then is the result
 * written: memory first, because it can fault, registers last.
 *
 * That is the general way. An instruction that has a lean thunk is run by a
 * handler of op_fpu.c, which comes here whenever its fast way is not open.
 *
 * MMX registers are the mantissas of the x87 registers by physical number. The
 * image orders x87 registers from TOP, so MMn is at st[(n - TOP) & 7] before
 * the instruction, and the switch to MMX (TOP = 0, all tags valid) happens
 * after everything that can fault.
 *
 * SIMD exceptions. The thunk runs with all of them masked. When the guest masks
 * them too, which is nearly always, its MXCSR goes in and out as it is. When it
 * does not, the flags start from zero, and those that came up decide
 * (SDM vol. 1, 11.5.3): if a pre-computation exception (invalid, denormal,
 * divide by zero) is unmasked, only pre-computation flags are set; else all
 * are; and with any unmasked one the instruction faults and changes nothing
 * but the flags. Two things differ with underflow unmasked: flush-to-zero does
 * not apply, and a tiny result that is exact counts too, which the masked run
 * does not flag; it is seen in the result. (Not reproduced: whether an unmasked
 * overflow sets the precision flag too; it always does here.)
 */
#include <errno.h>
#include <stdlib.h>

#include "base/bug.h"
#include "hv/soft/sse.h"

static inline unsigned map_index(const struct insn *i)
{
	return (i->map - 1u) & 3;
}

static inline unsigned pfx_index(const struct insn *i)
{
	return i->pfx == 0x66	? SSE_PFX_66
	       : i->pfx == 0xf3 ? SSE_PFX_F3
	       : i->pfx == 0xf2 ? SSE_PFX_F2
				: SSE_PFX_NONE;
}

static void *operand(struct soft_cpu *cpu, unsigned kind, unsigned n)
{
	struct fx_image *fx = soft_fx(cpu);

	if (kind == SSE_XMM)
		return fx->xmm[n & 15];
	return fx->st[(n - fx_top(fx)) & 7];
}

struct sse_code soft_sse_code(const struct insn *i)
{
	return (struct sse_code){
		.map = (uint8_t)map_index(i),
		.pfx = (uint8_t)pfx_index(i),
		.opcode = i->opcode,
		.mem = i->flags & INSN_MEM,
		.w = i->flags & INSN_REXW,
		.digit = i->modrm >> 3 & 7,
		.imm = (uint8_t)i->imm,
	};
}

static unsigned mem_size(const struct sse_op *op, const struct insn *i)
{
	if (op->mem)
		return op->mem;
	return i->flags & INSN_REXW ? 8 : 4;
}

/* Is there a denormal among the results? */
static bool tiny_result(const struct insn *i, const uint8_t *r)
{
	bool dbl = i->pfx == 0x66 || i->pfx == 0xf2, any = false;
	bool packed = i->pfx == 0 || i->pfx == 0x66;
	unsigned n;

	if (i->map == 1 && i->opcode == 0x5a) {
		dbl = false;
	} else if (i->map == 3) {
		dbl = i->opcode == 0x41;
	} else if (i->pfx == 0xf2 && (i->opcode == 0x7c || i->opcode == 0x7d ||
				      i->opcode == 0xd0)) {
		dbl = false;
		packed = true;
	}
	n = packed ? 16 : dbl ? 8 : 4;
	for (unsigned at = 0; at < n; at += dbl ? 8 : 4) {
		if (dbl) {
			uint64_t v;

			memcpy(&v, r + at, 8);
			any |= !(v >> 52 & 0x7ff) && v << 12;
		} else {
			uint32_t v;

			memcpy(&v, r + at, 4);
			any |= !(v >> 23 & 0xff) && v << 9;
		}
	}
	return any;
}

/*
 * Run @fn for a guest that has some SIMD exception unmasked. All operands are
 * restored before #XM (or #UD without CR4.OSXMMEXCPT) is raised.
 */
static void run_unmasked(struct soft_cpu *cpu, const struct insn *i,
			 const struct sse_op *op, thunk_fn *fn)
{
	enum { PRE = FSW_IE | FSW_DE | FSW_ZE };
	struct thunk_args *a = &cpu->sse->args;
	struct fx_image *fx = soft_fx(cpu);
	uint32_t mxcsr = fx->mxcsr, mask = mxcsr >> MXCSR_MASK_SHIFT, raised;
	bool to_reg = op->reg == SSE_XMM || op->reg == SSE_MM;
	uint8_t before[16];

	if (to_reg)
		memcpy(before, a->reg, op->reg == SSE_MM ? 8 : 16);
	a->mxcsr = (mxcsr & ~(uint32_t)MXCSR_FLAGS) | MXCSR_MASKS;
	if (!(mask & FSW_UE))
		a->mxcsr &= ~(uint32_t)MXCSR_FZ;
	fn(a);
	raised = a->mxcsr & MXCSR_FLAGS;
	if (!(mask & FSW_UE) && (op->flags & SSE_UNMASKED_UE) && to_reg &&
	    tiny_result(i, a->reg))
		raised |= FSW_UE;
	if (raised & PRE & ~mask)
		raised &= PRE;
	fx->mxcsr = mxcsr | raised;
	if (raised & ~mask & MXCSR_FLAGS) {
		if (to_reg)
			memcpy(a->reg, before, op->reg == SSE_MM ? 8 : 16);
		soft_fault0(cpu, cpu->cr4 & CR4_OSXMMEXC ? X86_XM : X86_UD);
	}
}

static void run(struct soft_cpu *cpu, const struct insn *i,
		const struct sse_op *op, thunk_fn *fn)
{
	struct thunk_args *a = &cpu->sse->args;
	struct fx_image *fx = soft_fx(cpu);

	if (!(op->flags & SSE_FP)) {
		fn(a);
	} else if ((fx->mxcsr & MXCSR_MASKS) == MXCSR_MASKS) {
		a->mxcsr = fx->mxcsr;
		fn(a);
		fx->mxcsr = a->mxcsr;
	} else {
		run_unmasked(cpu, i, op, fn);
	}
}

/* x87 to MMX; @written: the MMX register that got a value, or -1. */
static void enter_mmx(struct fx_image *fx, int written)
{
	fx_set_top(fx, 0);
	fx->ftw = 0xff;
	if (written >= 0)
		memset(fx->st[written & 7] + 8, 0xff, 2);
}

static void put_gpr(struct soft_cpu *cpu, const struct insn *i, unsigned reg,
		    uint64_t v)
{
	cpu->gpr[reg & 15] = i->flags & INSN_REXW ? v : (uint32_t)v;
}

/* GPR results, RFLAGS, and the switch to MMX: nothing here can fault. */
static void commit(struct soft_cpu *cpu, const struct insn *i,
		   const struct sse_op *op, bool mem)
{
	const struct thunk_args *a = &cpu->sse->args;
	bool to_rm = op->flags & SSE_TO_RM;

	if (op->reg == SSE_GPR)
		put_gpr(cpu, i, i->reg, a->rax);
	else if (op->rm == SSE_GPR && to_rm && !mem)
		put_gpr(cpu, i, i->rm, a->rcx);
	if (op->flags & SSE_ECX_OUT)
		cpu->gpr[X86_RCX] = (uint32_t)a->rcx;
	if (op->flags & SSE_EFLAGS)
		soft_set_flags(cpu,
			       (soft_get_flags(cpu) & ~(uint64_t)FL_ARITH) |
				       (a->flags & FL_ARITH));
	if (op->reg == SSE_MM)
		enter_mmx(soft_fx(cpu), !to_rm			   ? i->reg
					: op->rm == SSE_MM && !mem ? i->rm
								   : -1);
	else if (op->rm == SSE_MM && !(mem && op->flags & SSE_MEM_NO_MMX))
		enter_mmx(soft_fx(cpu), to_rm && !mem ? i->rm : -1);
}

void soft_sse_exec(struct soft_cpu *cpu, struct insn *i)
{
	const struct sse_op *op;
	struct sse_code c;
	struct thunk_args *a = &cpu->sse->args;
	bool mem = i->flags & INSN_MEM;
	thunk_fn *fn;
	unsigned size = 0;
	uint64_t la = 0;

	c = soft_sse_code(i);
	op = &sse_ops[c.map][c.pfx][c.opcode];
	fn = op->feature ? thunk_sse(cpu->sse->pool, &c) : NULL;
	if (!fn) {
		soft_sse_special(cpu, i);
		return;
	}
	if (op->reg == SSE_XMM || op->rm == SSE_XMM)
		sse_check(cpu);
	if (op->reg == SSE_MM ||
	    (op->rm == SSE_MM && !(mem && op->flags & SSE_MEM_NO_MMX)))
		mmx_check(cpu);

	if (mem) {
		bool write = op->flags & SSE_TO_RM;

		size = mem_size(op, i);
		la = soft_ea(cpu, i, size, write);
		if (op->flags & SSE_ALIGN && la & 15)
			soft_fault(cpu, X86_GP, 0);
		a->rm = cpu->sse->mem;
		if (!write)
			soft_read_bytes(cpu, la, a->rm, size, SOFT_DATA);
	} else if (op->rm == SSE_GPR) {
		a->rcx = cpu->gpr[i->rm & 15];
	} else {
		a->rm = operand(cpu, op->rm, i->rm);
	}
	if (op->reg == SSE_XMM || op->reg == SSE_MM)
		a->reg = operand(cpu, op->reg, i->reg);
	if (op->flags & (SSE_XMM0_IN | SSE_XMM0_OUT))
		a->xmm0 = soft_fx(cpu)->xmm[0];
	if (op->flags & SSE_STRING) {
		a->rax = cpu->gpr[X86_RAX];
		a->rcx = cpu->gpr[X86_RCX];
		a->rdx = cpu->gpr[X86_RDX];
	}

	run(cpu, i, op, fn);
	if (mem && op->flags & SSE_TO_RM)
		soft_write_bytes(cpu, la, cpu->sse->mem, size, SOFT_DATA);
	commit(cpu, i, op, mem);
}

/*
 * MASKMOVQ, MASKMOVDQU: the bytes of the first operand whose mask byte has its
 * top bit set go to DS:[RDI] (any segment override applies). All of them are
 * probed before one is written.
 */
static void mask_move(struct soft_cpu *cpu, const struct insn *i, bool mmx)
{
	unsigned kind = mmx ? SSE_MM : SSE_XMM, n = mmx ? 8 : 16;
	const uint8_t *src, *mask;
	unsigned first = n, last = 0;
	uint64_t off = cpu->gpr[X86_RDI], la;

	if (mmx)
		mmx_check(cpu);
	else
		sse_check(cpu);
	src = operand(cpu, kind, i->reg);
	mask = operand(cpu, kind, i->rm);
	for (unsigned b = 0; b < n; b++) {
		if (!(mask[b] & 0x80))
			continue;
		first = first == n ? b : first;
		last = b;
	}
	if (i->asize == 4)
		off = (uint32_t)off;
	else if (i->asize == 2)
		off = (uint16_t)off;
	la = soft_seg_la(cpu, i->seg, off, n, true);
	if (first < n)
		soft_probe_write(cpu, la + first, last - first + 1, SOFT_DATA);
	for (unsigned b = first; b < n; b++)
		if (mask[b] & 0x80)
			soft_write(cpu, la + b, 1, src[b], SOFT_DATA);
	if (mmx)
		enter_mmx(soft_fx(cpu), -1);
}

void soft_sse_special(struct soft_cpu *cpu, struct insn *i)
{
	bool mem = i->flags & INSN_MEM;

	if (i->map != 1)
		soft_fault0(cpu, X86_UD);
	if (i->opcode == 0xae && mem) {
		soft_group15_mem(cpu, i);
	} else if (i->opcode == 0x77 && !i->pfx) { /* EMMS */
		mmx_check(cpu);
		fx_set_top(soft_fx(cpu), 0);
		soft_fx(cpu)->ftw = 0;
	} else if (i->opcode == 0xf7 && !mem && (!i->pfx || i->pfx == 0x66)) {
		mask_move(cpu, i, !i->pfx);
	} else if (i->opcode == 0xc3 && mem && !i->pfx) { /* MOVNTI */
		unsigned size = i->flags & INSN_REXW ? 8 : 4;

		soft_write(cpu, soft_ea(cpu, i, size, true), size,
			   cpu->gpr[i->reg & 15], SOFT_DATA);
	} else {
		soft_fault0(cpu, X86_UD);
	}
}

int soft_sse_init(struct soft_cpu *cpu)
{
	struct soft_sse *s = aligned_alloc(64, sizeof(*s));
	int rc;

	bug_on(cpu->sse);
	if (!s)
		return -ENOMEM;
	memset(s, 0, sizeof(*s));
	s->host_mxcsr = MXCSR_RESET;
	s->host_fcw = 0x37f;
	rc = thunk_pool_create(&s->pool, NULL);
	if (rc < 0) {
		free(s);
		return rc;
	}
	s->work.mxcsr = MXCSR_RESET;
	cpu->sse = s;
	return 0;
}

void soft_sse_fini(struct soft_cpu *cpu)
{
	if (!cpu->sse)
		return;
	thunk_pool_destroy(cpu->sse->pool);
	free(cpu->sse);
	cpu->sse = NULL;
}
