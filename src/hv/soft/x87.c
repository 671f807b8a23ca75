/*
 * x87: D8..DF and FWAIT.
 *
 * Theory of operation
 * -------------------
 * Arithmetic runs in native thunks on a copy of the guest's image with the
 * guest's own control word. x87 exceptions are delivered late: hardware sets
 * FSW.ES and the *next* waiting instruction raises #MF. So the native run never
 * traps, ES comes back in the saved image, and this file raises #MF before the
 * next waiting instruction. What is saved and restored in memory formats, and
 * the control instructions, are C: the formats depend on the guest's mode.
 *
 * Order (SDM vol. 3, 6.9 and vol. 1, 8.6): encoding (#UD), CR0.EM/TS (#NM),
 * pending exception (#MF), memory operand. The copy is committed after the
 * store to memory succeeded. A store that an unmasked invalid operation,
 * overflow or underflow suppresses is not made.
 *
 * FIP and FDP are the offsets of the last non-control instruction and of its
 * memory operand; FCS and FDS read as 0 (CPUID.7.EBX[13]); FOP is the opcode.
 *
 * CR0.NE = 0 asks for an external interrupt through FERR#, which no platform
 * with an APIC has; #MF is raised then too.
 */
#include "base/bytes.h"
#include "hv/soft/sse.h"

/* ---- which encodings exist ---- */

/* Register forms: per opcode a bit for each of modrm c0..ff. */
static const uint64_t reg_forms[8] = {
	/* D8 */ ~0ull,
	/* D9: not d1-d7, e2 e3 e6 e7 ef */
	0xffff7f33ff01ffffull,
	/* DA: fcmov c0-df, e9 */ 0x00000200ffffffffull,
	/* DB: fcmovn c0-df, e0-e4, e8-f7 */ 0x00ffff1fffffffffull,
	/* DC */ ~0ull,
	/* DD: c0-ef */ 0x0000ffffffffffffull,
	/* DE: not d8, da-df */ 0xffffffff02ffffffull,
	/* DF: c0-df, e0, e8-f7 */ 0x00ffff01ffffffffull,
};

/* Memory forms: bytes of the operand by opcode and digit; negative: a store.
 * 0: no such instruction, 1: an environment or image (by operand size). */
static const int8_t mem_forms[8][8] = {
	/* D8 */ { 4, 4, 4, 4, 4, 4, 4, 4 },
	/* D9 */ { 4, 0, -4, -4, 1, 2, 1, -2 },
	/* DA */ { 4, 4, 4, 4, 4, 4, 4, 4 },
	/* DB */ { 4, -4, -4, -4, 0, 10, 0, -10 },
	/* DC */ { 8, 8, 8, 8, 8, 8, 8, 8 },
	/* DD */ { 8, -8, -8, -8, 1, 0, 1, -2 },
	/* DE */ { 2, 2, 2, 2, 2, 2, 2, 2 },
	/* DF */ { 2, -2, -2, -2, 10, 8, -10, -8 },
};

bool soft_x87_form(const struct insn *i, int *size)
{
	*size = 0;
	if (!(i->flags & INSN_MEM))
		return reg_forms[i->opcode & 7] >> (i->modrm & 63) & 1;
	*size = mem_forms[i->opcode & 7][i->modrm >> 3 & 7];
	return *size;
}

/* ---- environments and images ---- */

/* The full tag word: valid, zero, special, empty by physical register. */
static uint16_t full_tags(const struct fx_image *fx)
{
	unsigned tags = 0;

	for (unsigned r = 0; r < 8; r++) {
		const uint8_t *st = fx->st[(r - fx_top(fx)) & 7];
		unsigned exp = get_le16(st + 8) & 0x7fff, tag;
		uint64_t mant = get_le64(st);

		if (!(fx->ftw >> r & 1))
			tag = 3;
		else if (exp == 0)
			tag = mant ? 2 : 1;
		else
			tag = exp != 0x7fff && mant >> 63 ? 0 : 2;
		tags |= tag << 2 * r;
	}
	return (uint16_t)tags;
}

static uint8_t abridged_tags(uint16_t full)
{
	unsigned t = 0;

	for (unsigned r = 0; r < 8; r++)
		t |= ((full >> 2 * r & 3) != 3) << r;
	return (uint8_t)t;
}

static bool env_real_format(const struct soft_cpu *cpu)
{
	return !soft_protected(cpu);
}

/* FNSTENV's 14 or 28 bytes (SDM vol. 1, 8.1.10). */
static unsigned put_env(const struct soft_cpu *cpu, const struct fx_image *fx,
			bool wide, uint8_t *b)
{
	uint32_t fip = (uint32_t)fx->fip, fdp = (uint32_t)fx->fdp;
	uint32_t w[7] = { fx->fcw, fx->fsw, full_tags(fx), fip, 0, fdp, 0 };

	if (env_real_format(cpu)) {
		w[4] = (fip >> 16) << 12 | fx->fop;
		w[6] = (fdp >> 16) << 12;
		if (wide) {
			w[3] = 0xffff0000u | (fip & 0xffff);
			w[5] = 0xffff0000u | (fdp & 0xffff);
		}
	} else if (wide) {
		w[4] = (uint32_t)fx->fop << 16;
	}
	for (unsigned k = 0; k < 7; k++) {
		if (!wide)
			put_le16(b + 2 * k, (uint16_t)w[k]);
		else
			put_le32(b + 4 * k,
				 k < 3 || (k == 6 && !env_real_format(cpu))
					 ? w[k] | 0xffff0000u
					 : w[k]);
	}
	return wide ? 28 : 14;
}

static void get_env(const struct soft_cpu *cpu, struct fx_image *fx, bool wide,
		    const uint8_t *b)
{
	uint32_t w[7];
	unsigned top;

	for (unsigned k = 0; k < 7; k++)
		w[k] = wide ? get_le32(b + 4 * k) : get_le16(b + 2 * k);
	fx->fcw = (uint16_t)w[0];
	/* TOP moves: the physical registers stay where they are. */
	top = w[1] >> 11 & 7;
	fx_set_top(fx, top);
	fx->fsw = (uint16_t)w[1];
	fx->ftw = abridged_tags((uint16_t)w[2]);
	if (env_real_format(cpu)) {
		fx->fip = (w[3] & 0xffff) | (w[4] >> 12) << 16;
		fx->fdp = (w[5] & 0xffff) | (w[6] >> 12) << 16;
		fx->fop = (uint16_t)w[4];
	} else {
		fx->fip = w[3];
		fx->fdp = w[5];
		fx->fop = wide ? (uint16_t)(w[4] >> 16) : 0;
	}
	fx_sanitize(fx);
}

static void fninit(struct fx_image *fx)
{
	fx_set_top(fx, 0);
	fx->fcw = 0x37f;
	fx->fsw = 0;
	fx->ftw = 0;
	fx->fop = 0;
	fx->fip = fx->fdp = 0;
}

static void fnstenv(struct soft_cpu *cpu, const struct insn *i)
{
	struct fx_image *fx = soft_fx(cpu);
	uint8_t b[28];
	unsigned n = put_env(cpu, fx, i->osize != 2, b);

	soft_write_bytes(cpu, soft_ea(cpu, i, n, true), b, n, SOFT_DATA);
	fx->fcw |= 0x3f;
	fx_fix_es(fx);
}

static void fldenv(struct soft_cpu *cpu, const struct insn *i)
{
	unsigned n = i->osize != 2 ? 28 : 14;
	uint8_t b[28];

	soft_read_bytes(cpu, soft_ea(cpu, i, n, false), b, n, SOFT_DATA);
	get_env(cpu, soft_fx(cpu), i->osize != 2, b);
}

static void fnsave(struct soft_cpu *cpu, const struct insn *i)
{
	struct fx_image *fx = soft_fx(cpu);
	uint8_t b[108];
	unsigned n = put_env(cpu, fx, i->osize != 2, b);

	for (unsigned k = 0; k < 8; k++, n += 10)
		memcpy(b + n, fx->st[k], 10);
	soft_write_bytes(cpu, soft_ea(cpu, i, n, true), b, n, SOFT_DATA);
	fninit(fx);
}

static void frstor(struct soft_cpu *cpu, const struct insn *i)
{
	struct fx_image *fx = soft_fx(cpu);
	unsigned env = i->osize != 2 ? 28 : 14;
	uint8_t b[108];

	soft_read_bytes(cpu, soft_ea(cpu, i, env + 80, false), b, env + 80,
			SOFT_DATA);
	get_env(cpu, fx, i->osize != 2, b);
	for (unsigned k = 0; k < 8; k++)
		memcpy(fx->st[k], b + env + 10 * k, 10);
}

/* ---- control instructions; false: not one of them ---- */

static bool control_reg(struct soft_cpu *cpu, const struct insn *i)
{
	struct fx_image *fx = soft_fx(cpu);

	if (i->opcode == 0xdb && i->modrm == 0xe2) { /* FNCLEX */
		fx->fsw &= 0x7f00;
		return true;
	}
	if (i->opcode == 0xdb && i->modrm == 0xe3) {
		fninit(fx);
		return true;
	}
	/* FENI, FDISI, FSETPM: of the 8087 and 80287, nothing since. */
	if (i->opcode == 0xdb && i->modrm >= 0xe0 && i->modrm <= 0xe4)
		return true;
	if (i->opcode == 0xdf && i->modrm == 0xe0) { /* FNSTSW AX */
		memcpy(&cpu->gpr[X86_RAX], &fx->fsw, 2);
		return true;
	}
	return false;
}

static void pending_check(struct soft_cpu *cpu)
{
	if (soft_fx(cpu)->fsw & FSW_ES)
		soft_fault0(cpu, X86_MF);
}

static bool control_mem(struct soft_cpu *cpu, const struct insn *i)
{
	struct fx_image *fx = soft_fx(cpu);
	unsigned digit = i->modrm >> 3 & 7;
	uint64_t la;

	if (i->opcode == 0xd9 && digit == 4) {
		pending_check(cpu);
		fldenv(cpu, i);
	} else if (i->opcode == 0xd9 && digit == 5) { /* FLDCW */
		pending_check(cpu);
		la = soft_ea(cpu, i, 2, false);
		fx->fcw = (uint16_t)soft_read(cpu, la, 2, SOFT_DATA);
		fx_sanitize(fx);
	} else if (i->opcode == 0xd9 && digit == 6) {
		fnstenv(cpu, i);
	} else if (i->opcode == 0xd9 && digit == 7) { /* FNSTCW */
		la = soft_ea(cpu, i, 2, true);
		soft_write(cpu, la, 2, fx->fcw, SOFT_DATA);
	} else if (i->opcode == 0xdd && digit == 4) {
		pending_check(cpu);
		frstor(cpu, i);
	} else if (i->opcode == 0xdd && digit == 6) {
		fnsave(cpu, i);
	} else if (i->opcode == 0xdd && digit == 7) { /* FNSTSW m16 */
		la = soft_ea(cpu, i, 2, true);
		soft_write(cpu, la, 2, fx->fsw, SOFT_DATA);
	} else {
		return false;
	}
	return true;
}

/* ---- the rest, natively ---- */

static void arith(struct soft_cpu *cpu, struct insn *i, int size)
{
	struct soft_sse *s = cpu->sse;
	struct fx_image *fx = soft_fx(cpu), *w = &s->work;
	struct thunk_args *a = &s->args;
	thunk_fn *fn = thunk_x87(s->pool, i->opcode, i->modrm);
	bool mem = i->flags & INSN_MEM;
	unsigned bytes = (unsigned)(size < 0 ? -size : size), suppressed;
	uint64_t la = 0;

	if (mem) {
		la = soft_ea(cpu, i, bytes, size < 0);
		if (size > 0)
			soft_read_bytes(cpu, la, s->mem, bytes, SOFT_DATA);
		else /* faults even when an exception will suppress it */
			soft_probe_write(cpu, la, bytes, SOFT_DATA);
	}
	memcpy(w, fx, offsetof(struct fx_image, xmm));
	w->mxcsr = MXCSR_RESET;
	a->reg = w;
	a->rm = s->mem;
	a->flags = soft_get_flags(cpu) & FL_ARITH;
	fn(a);

	suppressed = w->fsw & ~w->fcw & (FSW_IE | FSW_OE | FSW_UE);
	if (size < 0 && !suppressed)
		soft_write_bytes(cpu, la, s->mem, bytes, SOFT_DATA);
	fx->fcw = w->fcw;
	fx->fsw = w->fsw;
	fx->ftw = w->ftw;
	memcpy(fx->st, w->st, sizeof(fx->st));
	fx->fop = (uint16_t)((i->opcode & 7) << 8 | i->modrm);
	fx->fip = cpu->rip;
	if (mem)
		fx->fdp = soft_lea(cpu, i);
	/* FCOMI, FUCOMI and their popping forms */
	if (!mem && (i->opcode == 0xdb || i->opcode == 0xdf) &&
	    i->modrm >= 0xe8)
		soft_set_flags(cpu,
			       (soft_get_flags(cpu) & ~(uint64_t)FL_ARITH) |
				       (a->flags & FL_ARITH));
}

/* (Registers that are in the host have no exception pending.) */
static void fwait(struct soft_cpu *cpu)
{
	if ((cpu->cr0 & (CR0_MP | CR0_TS)) == (CR0_MP | CR0_TS))
		soft_fault0(cpu, X86_NM);
	pending_check(cpu);
}

void soft_x87_exec(struct soft_cpu *cpu, struct insn *i)
{
	bool mem = i->flags & INSN_MEM;
	int size = 0;

	if (i->opcode == 0x9b) {
		fwait(cpu);
		return;
	}
	if (!soft_x87_form(i, &size))
		soft_fault0(cpu, X86_UD);
	if (cpu->cr0 & (CR0_EM | CR0_TS))
		soft_fault0(cpu, X86_NM);
	soft_x87_unload(cpu);
	if (mem ? control_mem(cpu, i) : control_reg(cpu, i))
		return;
	pending_check(cpu);
	arith(cpu, i, size);
	soft_x87_load(cpu);
}
