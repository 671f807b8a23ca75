/*
 * The case generator.
 *
 * Theory of operation: choose an opcode, put prefixes before and ModRM, SIB,
 * displacement and immediate behind it, all at random; then choose where a
 * memory operand shall be (in a page, across two, read-only, absent, not
 * canonical) and set the base register so that it is there. Registers that
 * have another role (RSP, string pointers, counts) get values fit for it, the
 * rest are drawn from values at which arithmetic has its corners. Memory holds
 * the run's pattern, with such values laid over the operands.
 */
#include "gen.h"

#include <stddef.h>
#include <string.h>

#include "enc.h"
#include "layout.h"
#include "values.h"

/* ---- encoding ---- */

struct writer {
	uint8_t *p;
	unsigned n;
};

static void put(struct writer *w, unsigned b)
{
	if (w->n < CODE_MAX)
		w->p[w->n++] = (uint8_t)b;
}

static void put_prefixes(struct rng *r, struct writer *w, unsigned map,
			 unsigned compat)
{
	static const uint8_t seg[] = { 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65 };
	uint8_t p[8];
	unsigned n = 0;

	if (chance(r, map ? 30 : 15))
		p[n++] = 0x66;
	if (chance(r, map ? 20 : 7))
		p[n++] = 0xf3;
	else if (chance(r, map ? 20 : 7))
		p[n++] = 0xf2;
	if (chance(r, 6))
		p[n++] = 0xf0;
	if (chance(r, 8))
		p[n++] = 0x67;
	/* 16-bit addresses reach the data by these only. */
	if (chance(r, (n && p[n - 1] == 0x67) == (compat == 1) && compat ? 70
									 : 12))
		p[n++] = seg[chance(r, 60) ? 4 + below(r, 2) : below(r, 6)];
	if (chance(r, 1))
		p[n++] = chance(r, 50) ? 0x66 : 0x3e;
	while (n) {
		unsigned i = below(r, n);

		put(w, p[i]);
		p[i] = p[--n];
	}
	if (chance(r, 1) && chance(r, 30))
		while (w->n < 12 + below(r, 4))
			put(w, 0x2e);
	if (!compat && chance(r, 45))
		put(w, 0x40 | below(r, 16));
}

static unsigned gen_opcode(struct rng *r, unsigned *map)
{
	static const uint8_t transfer[] = { 0x70, 0x74, 0x7f, 0xe0, 0xe1,
					    0xe2, 0xe3, 0xe8, 0xe9, 0xeb,
					    0xc2, 0xc3, 0xca, 0xcb, 0xcf,
					    0x9a, 0xea, 0xff, 0x9d, 0xcd };
	static const uint8_t string[] = { 0xa4, 0xa5, 0xa6, 0xa7, 0xaa, 0xab,
					  0xac, 0xad, 0xae, 0xaf, 0x6c, 0x6e };
	/* SSE-rich rows of 0F. */
	static const uint8_t sse[] = { 0x10, 0x20, 0x50, 0x60, 0x70,
				       0xd0, 0xe0, 0xf0, 0xc0 };

	*map = 0;
	switch (below(r, 20)) {
	case 0:
		return transfer[below(r, sizeof(transfer))];
	case 1:
		return string[below(r, sizeof(string))];
	case 2:
	case 3:
		return 0xd8 + below(r, 8);
	case 4:
	case 5:
	case 6:
		*map = 1;
		return below(r, 256);
	case 7:
	case 8:
		*map = 1;
		return sse[below(r, sizeof(sse))] + below(r, 16);
	case 9:
		*map = 2;
		return chance(r, 90) ? below(r, 0x42) : below(r, 256);
	case 10:
		*map = 3;
		return chance(r, 90) ? below(r, 0x64) : below(r, 256);
	case 11:
		*map = 2;
		return 0xf0 + below(r, 2);
	default:
		return below(r, 256);
	}
}

static bool is_prefix(unsigned op, bool compat)
{
	return (!compat && (op & 0xf0) == 0x40) || op == 0x66 || op == 0x67 ||
	       op == 0xf0 || op == 0xf2 || op == 0xf3 || op == 0x26 ||
	       op == 0x2e || op == 0x36 || op == 0x3e || op == 0x64 ||
	       op == 0x65 || op == 0x0f;
}

static void gen_code(struct rng *r, struct ocase *c,
		     const struct gen_only *only)
{
	struct writer w = { c->code, 0 };
	unsigned map, op;

	do
		op = gen_opcode(r, &map);
	while (map == 0 && is_prefix(op, c->compat));
	if (only->map >= 0)
		map = (unsigned)only->map;
	if (only->op >= 0)
		op = (unsigned)only->op;
	put_prefixes(r, &w, map, c->compat);
	if (map)
		put(&w, 0x0f);
	if (map == 2)
		put(&w, 0x38);
	if (map == 3)
		put(&w, 0x3a);
	put(&w, op);
	/* ModRM, SIB and immediates: whatever enc_parse() finds it needs. */
	put(&w, chance(r, 45) ? 0xc0 | below(r, 64) : below(r, 192));
	while (w.n < CODE_MAX)
		put(&w, chance(r, 20) ? 0 : (unsigned)rnd(r) & 0xff);
}

static bool addresses_by(const struct enc *e, unsigned reg)
{
	unsigned b = (e->rex & 1) << 3, x = (e->rex & 2) << 2;

	if (!ENC_MEM(e))
		return false;
	return reg == (ENC_RM(e) | b) || reg == ((e->sib & 7) | b) ||
	       reg == ((e->sib >> 3 & 7) | x);
}

/*
 * The instruction before: it changes flags and one register that the one under
 * test neither counts nor addresses by, and leaves no flag undefined but AF
 * after a logical operation, which every CPU clears.
 */
static void gen_pre(struct rng *r, struct ocase *c, const struct enc *e)
{
	static const uint8_t op[] = { 0x00, 0x01, 0x08, 0x09, 0x10, 0x11, 0x18,
				      0x19, 0x20, 0x21, 0x28, 0x29, 0x30, 0x31,
				      0x38, 0x39, 0x80, 0x81, 0x83, 0x84, 0x85,
				      0x88, 0x89, 0xc0, 0xc1, 0xd0, 0xd1, 0xf5,
				      0xf6, 0xf7, 0xf8, 0xf9, 0xfe, 0xff, 0x86,
				      0x87, 0xc6, 0xc7 };
	static const uint8_t dest[] = { 0, 2, 8, 9, 10, 11, 12, 13, 14, 15 };
	struct ocase p = *c;
	struct enc pe;
	unsigned rm, reg, n, o, digits;

	for (int tries = 0; tries < 8; tries++) {
		n = 0;
		o = op[below(r, sizeof(op))];
		rm = dest[below(r, c->compat ? 2 : 10)];
		reg = dest[below(r, c->compat ? 2 : 10)];
		if (addresses_by(e, rm) || addresses_by(e, reg))
			continue;
		if (chance(r, 25))
			p.code[n++] = 0x66;
		if (!c->compat)
			p.code[n++] = (uint8_t)(0x40 | rm >> 3 | reg >> 3 << 2 |
						below(r, 2) << 3);
		p.code[n++] = (uint8_t)o;
		digits = o == 0xf6 || o == 0xf7	  ? 2 + below(r, 2)
			 : o == 0xfe || o == 0xff ? below(r, 2)
			 : o >= 0xc6 && o <= 0xc7 ? 0
			 : o >= 0x80 && o != 0x84 && o != 0x85 && o != 0x86 &&
					 o != 0x87 && o != 0x88 && o != 0x89
				 ? below(r, 8)
				 : reg & 7;
		p.code[n++] = (uint8_t)(0xc0 | digits << 3 | (rm & 7));
		for (unsigned k = n; k < 16; k++)
			p.code[k] =
				(uint8_t)(chance(r, 30) ? value(r) : rnd(r));
		enc_parse(&pe, p.code, CODE_MAX, c->compat);
		if (!pe.ok ||
		    enc_undefined_flags(&pe, &p) &
			    (o >= 0xc0 && o <= 0xd1 ? ~0ull : ~0x10ull))
			continue;
		memcpy(c->pre, p.code, pe.len);
		c->pre_len = pe.len;
		return;
	}
}

/* ---- state ---- */

static uint64_t get_disp(const struct ocase *c, const struct enc *e)
{
	int64_t d = 0;

	memcpy(&d, c->code + e->disp_at, e->disp_len);
	if (e->disp_len == 1)
		return (uint64_t)(int8_t)d;
	if (e->disp_len == 2)
		return (uint64_t)(int16_t)d;
	return (uint64_t)(int32_t)d;
}

static void set_disp32(struct ocase *c, const struct enc *e, uint64_t v)
{
	memcpy(c->code + e->disp_at, &v, 4);
}

/* 16-bit addresses reach the data only from a segment's base. */
static void place_16(struct rng *r, struct ocase *c, const struct enc *e,
		     uint64_t ea)
{
	static const uint8_t first[8] = { 3, 3, 5, 5, 6, 7, 5, 3 };
	static const uint8_t second[8] = { 6, 7, 6, 7, 0xff, 0xff, 0xff, 0xff };
	unsigned rm = ENC_RM(e);
	uint64_t *g = c->in.gpr;
	uint16_t off;

	if (e->seg != 0x64 && e->seg != 0x65)
		return;
	*(e->seg == 0x64 ? &c->in.fs_base : &c->in.gs_base) = DATA_LA;
	off = (uint16_t)(ea - DATA_LA);
	if (ENC_MOD(e) == 0 && rm == 6) {
		memcpy(c->code + e->disp_at, &off, 2);
		return;
	}
	off = (uint16_t)(off - get_disp(c, e));
	if (second[rm] != 0xff)
		off = (uint16_t)(off - g[second[rm]]);
	g[first[rm]] = (rnd(r) & 0xffff0000) | off;
}

/* Set registers or the displacement so that the operand is at @ea. */
static void place_operand(struct rng *r, struct ocase *c, struct enc *e,
			  uint64_t ea)
{
	unsigned rm = ENC_RM(e), mod = ENC_MOD(e), base, index;
	uint64_t *g = c->in.gpr, off = get_disp(c, e);

	if (e->asize == 2) {
		place_16(r, c, e, ea);
		return;
	}
	if (rm != 4) {
		base = rm | (e->rex & 1) << 3;
		if (mod == 0 && rm == 5) {
			if (!c->compat)
				ea -= c->in.rip + c->pre_len + e->len;
			set_disp32(c, e, ea);
		} else {
			g[base] = ea - off;
		}
		goto cut;
	}
	base = (e->sib & 7) | (e->rex & 1) << 3;
	index = (e->sib >> 3 & 7) | (e->rex >> 1 & 1) << 3;
	if (index != 4) {
		if (index == 4u || chance(r, 50))
			g[index] = below(r, 64);
		off += g[index] << (e->sib >> 6);
	}
	if ((e->sib & 7) == 5 && mod == 0) {
		if (index == 4)
			set_disp32(c, e, ea);
		else
			g[index] = (ea - get_disp(c, e)) >> (e->sib >> 6);
		goto cut;
	}
	if (base == index && index != 4)
		g[base] = (ea - get_disp(c, e)) / ((1u << (e->sib >> 6)) + 1);
	else
		g[base] = ea - off;
cut:
	/* The upper half does not count then: let it be anything. */
	if (e->asize == 4 && !c->compat && chance(r, 50)) {
		base = rm == 4 ? e->sib & 7 : rm;
		g[base | (e->rex & 1) << 3] ^= rnd(r) << 32;
	}
}

static uint64_t seg_base(const struct ocase *c, const struct enc *e)
{
	return e->seg == 0x64	? c->in.fs_base
	       : e->seg == 0x65 ? c->in.gs_base
				: 0;
}

static uint64_t stack_place(struct rng *r, bool compat)
{
	switch (below(r, 16)) {
	case 0:
		return STACK_LA + PAGE + below(r, 64);
	case 1:
		return STACK_LA + 3 * PAGE - below(r, 64);
	case 2:
		return STACK_LA + 2 * PAGE + below(r, 32) - 16;
	case 3:
		return landing(r, compat);
	case 4:
		return STACK_LA + PAGE + 512 + below(r, 3000);
	default:
		return STACK_LA + PAGE + 512 + 8 * below(r, 700);
	}
}

static void patch_at(struct patch *p, uint64_t la, unsigned len)
{
	p->la = (uint32_t)la;
	p->len = la == p->la ? (uint8_t)len : 0;
}

static void gen_string(struct rng *r, struct ocase *c, const struct enc *e)
{
	uint64_t *g = c->in.gpr;

	g[6] = landing(r, c->compat) - seg_base(c, e);
	g[7] = landing(r, c->compat);
	if (chance(r, 30)) /* room to move the other way, and overlaps */
		g[7] = g[6] + below(r, 40) - 20;
	if (e->asize == 4 && !c->compat && chance(r, 50)) {
		g[6] ^= rnd(r) << 32;
		g[7] ^= rnd(r) << 32;
	}
	if (e->f2 || e->f3) {
		g[1] = chance(r, 85) ? below(r, 24) : below(r, 2000);
		if (e->asize == 4 && !c->compat)
			g[1] |= rnd(r) << 32;
	}
	patch_at(&c->patch[0], g[6] + seg_base(c, e), 24);
	patch_at(&c->patch[1], g[7], 24);
	if (chance(r, 60)) /* equal for a while */
		memcpy(c->patch[1].bytes, c->patch[0].bytes, 8 + below(r, 16));
	if (chance(r, 30))
		memset(c->patch[1].bytes, (int)g[0] & 0xff, 20);
}

static uint16_t selector(struct rng *r)
{
	static const uint16_t sel[] = { 0x33, 0x33,   0x23, 0x2b, 0x2b,
					0x2b, 0,      0x10, 0x1b, 0x18,
					0x30, 0xfff8, 0x2a, 0x07 };

	return sel[below(r, 14)];
}

/* Selectors for what loads or looks at segments. */
static void gen_selectors(struct rng *r, struct ocase *c, const struct enc *e)
{
	unsigned rm = ENC_RM(e) | (e->rex & 1) << 3;
	uint16_t sel = selector(r);

	if (e->map == 0 && (e->op == 0x07 || e->op == 0x17 || e->op == 0x1f))
		memcpy(c->patch[1].bytes, &sel, 2);
	if (e->map == 1 && (e->op == 0xa1 || e->op == 0xa9))
		memcpy(c->patch[1].bytes, &sel, 2);
	if ((e->map == 0 && e->op == 0x8e) || (e->map == 1 && e->op <= 3)) {
		if (ENC_MEM(e))
			memcpy(c->patch[0].bytes, &sel, 2);
		else if (rm != 4)
			c->in.gpr[rm] = (c->in.gpr[rm] & ~0xffffull) | sel;
	}
	if (ENC_MEM(e) && ((e->map == 0 && (e->op == 0xc4 || e->op == 0xc5)) ||
			   (e->map == 1 && e->op >= 0xb2 && e->op <= 0xb5)))
		memcpy(c->patch[0].bytes + e->osize, &sel, 2);
}

/* What RET, RETF, IRET, POP find. */
static void gen_frame(struct rng *r, struct ocase *c)
{
	uint64_t q[5];
	unsigned width = c->compat ? 4 : chance(r, 60) ? 8 : 4;
	uint8_t *b = c->patch[1].bytes;

	q[0] = CODE_LA + below(r, 2 * PAGE);
	q[1] = selector(r);
	q[2] = 0x202 | (rnd(r) & 0x244dd7);
	q[3] = stack_place(r, c->compat);
	q[4] = selector(r);
	if (chance(r, 10))
		q[0] = value(r);
	for (unsigned i = 0; i < 5; i++)
		memcpy(b + i * width, &q[i], width);
	patch_at(&c->patch[1], c->in.gpr[4], 40);
}

static void gen_div(struct rng *r, struct ocase *c)
{
	uint64_t *g = c->in.gpr;

	if (chance(r, 50))
		g[2] = (g[0] & 0x80000000) && chance(r, 50) ? ~0ull : 0;
	if (chance(r, 30))
		g[0] &= 0xffff;
}

static void gen_state(struct rng *r, struct ocase *c)
{
	static const uint64_t bases[] = { 0, 0, DATA_LA, 0x1000, 0x7ff };
	struct regs *g = &c->in;

	for (int i = 0; i < 16; i++)
		g->gpr[i] = value(r);
	g->gpr[4] = stack_place(r, c->compat);
	g->gpr[5] = chance(r, 70) ? stack_place(r, c->compat) : value(r);
	g->rflags = 2 | 0x200 | (rnd(r) & 0x8d5);
	if (chance(r, 20))
		g->rflags |= 0x400;
	g->fs_base = bases[below(r, 5)];
	g->gs_base = bases[below(r, 5)];
	if (!c->compat && chance(r, 10))
		g->gs_base = 0ull - below(r, 4096);
	g->ds = g->es = 0x2b;
	if (c->compat || chance(r, 10))
		g->fs = g->gs = 0x2b;
	if (chance(r, 3))
		g->ds = 0;
	if (chance(r, 3))
		g->es = 0;
	if (chance(r, 5))
		g->fs = 0;
	gen_fx(r, g->fx);
	for (int i = 0; i < 2; i++) {
		c->patch[i].len = 0;
		fill_lane(r, c->patch[i].bytes, PATCH_MAX);
	}
	if (chance(r, 8)) {
		g->rip = CODE_LA + 2 * PAGE - below(r, 17);
	} else if (chance(r, 10)) {
		g->rip = CODE_LA + PAGE - below(r, 16);
	} else {
		g->rip = CODE_LA + below(r, 2 * PAGE - 64);
	}
	if (c->compat)
		for (int i = 0; i < 16; i++)
			g->gpr[i] = i < 8 ? (uint32_t)g->gpr[i] : 0;
}

/* Registers and memory for what the code turned out to be. */
static void fit_state(struct rng *r, struct ocase *c, struct enc *e)
{
	uint64_t ea, *g = c->in.gpr;

	if (e->map == 0 && (e->op == 0xf6 || e->op == 0xf7) && ENC_REG(e) >= 6)
		gen_div(r, c);
	if (enc_is_string(e)) {
		gen_string(r, c, e);
	} else if (e->map == 0 && e->op >= 0xa0 && e->op <= 0xa3) {
		ea = landing(r, c->compat) - seg_base(c, e);
		memcpy(c->code + e->imm_at, &ea, e->imm_len);
	} else if (e->map == 0 && e->op == 0xd7) {
		g[3] = landing(r, c->compat) - (g[0] & 0xff) - seg_base(c, e);
	} else if (e->map == 1 && e->op == 0xf7) {
		g[7] = landing(r, c->compat) - seg_base(c, e);
	}
	if (!enc_is_string(e))
		gen_frame(r, c);
	if (ENC_MEM(e)) {
		ea = landing(r, c->compat);
		if (e->asize == 2)
			place_operand(r, c, e, ea);
		else
			place_operand(r, c, e, ea - seg_base(c, e));
		patch_at(&c->patch[0], ea, 32);
		/* CMPXCHG and its wide forms: equal now and then. */
		if (chance(r, 30)) {
			memcpy(c->patch[0].bytes, &g[0], 8);
			if (e->op == 0xc7 && e->map == 1)
				memcpy(c->patch[0].bytes + (e->rexw ? 8 : 4),
				       &g[2], 8);
		}
		/* Bit offsets that stay near. */
		if (e->map == 1 && (e->op & 0xe7) == 0xa3 && chance(r, 80)) {
			unsigned reg = ENC_REG(e) | (e->rex & 4) << 1;
			unsigned b = e->modrm & 7;

			if (reg != b && reg != 4 && reg != (e->sib & 7u))
				g[reg] = (uint64_t)(int64_t)((int)below(r,
									2048) -
							     1024);
		}
		if (chance(r, 70))
			gen_selectors(r, c, e);
		/* Far pointers and branch targets in memory. */
		if (e->map == 0 && e->op == 0xff && ENC_REG(e) >= 2)
			memcpy(c->patch[0].bytes, c->patch[1].bytes, 16);
	}
	if (!ENC_MEM(e) && chance(r, 70))
		gen_selectors(r, c, e);
	if (c->compat)
		for (int i = 0; i < 8; i++)
			g[i] = (uint32_t)g[i];
}

const char *case_excluded(const struct ocase *c)
{
	struct enc e;

	enc_parse(&e, c->code, CODE_MAX, c->compat);
	if (e.map == 0 && e.op == 0xcd && c->code[e.imm_at] == 0x80)
		return "enters the kernel";
	return enc_excluded(&e, c->compat);
}

void gen_case(struct ocase *c, uint64_t seed, uint64_t number,
	      const struct gen_only *only)
{
	struct rng r;
	struct enc e;

	rng_seed(&r, seed, number);
	memset(c, 0, offsetof(struct ocase, patch));
	c->compat = only->compat >= 0 ? (uint8_t)only->compat
		    : chance(&r, 68)  ? 0
				      : (uint8_t)(1 + chance(&r, 30));
	gen_state(&r, c);
	for (int tries = 0;; tries++) {
		gen_code(&r, c, only);
		enc_parse(&e, c->code, CODE_MAX, c->compat);
		if ((e.ok || e.len > 15) && !enc_excluded(&e, c->compat))
			break;
		if (tries == 200) { /* nothing of this opcode can be run */
			memset(c->code, 0x90, CODE_MAX);
			enc_parse(&e, c->code, CODE_MAX, c->compat);
			break;
		}
	}
	c->pre_len = 0;
	c->free_run = !enc_is_transfer(&e, c->compat) &&
		      (enc_shadows(&e) || chance(&r, 96));
	if (c->free_run && e.ok && !enc_shadows(&e) && chance(&r, 25))
		gen_pre(&r, c, &e);
	fit_state(&r, c, &e);
	c->len = e.len > 15 ? 15 : e.len;
	if (case_excluded(c)) /* by its immediate */
		c->code[e.imm_at] ^= 1;
}
