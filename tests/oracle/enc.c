#include "enc.h"

#include <string.h>

/* Immediates, per opcode. */
enum {
	I0, /* none */
	IB, /* 1 byte */
	IZ, /* 2 or 4 by operand size */
	IV, /* 2, 4 or 8 */
	IW, /* 2 */
	IE, /* ENTER: 3 */
	IA, /* moffs: address size */
	IP, /* far pointer: 2 + operand size */
	IJ, /* near displacement: as IZ, but always 4 in 64-bit code */
};

static bool has_modrm(unsigned map, unsigned op)
{
	if (map >= 2)
		return true;
	if (map == 1)
		return !((op >= 0x05 && op <= 0x09) || op == 0x0b ||
			 op == 0x0e || (op >= 0x30 && op <= 0x37) ||
			 op == 0x77 || (op >= 0x80 && op <= 0x8f) ||
			 (op >= 0xa0 && op <= 0xa2) ||
			 (op >= 0xa8 && op <= 0xaa) ||
			 (op >= 0xc8 && op <= 0xcf) || op == 0x04 ||
			 op == 0x0a || op == 0x0c);
	if (op < 0x40)
		return (op & 7) < 4;
	return op == 0x62 || op == 0x63 || op == 0x69 || op == 0x6b ||
	       (op >= 0x80 && op <= 0x8f) || op == 0xc0 || op == 0xc1 ||
	       (op >= 0xc4 && op <= 0xc7) || (op >= 0xd0 && op <= 0xd3) ||
	       (op >= 0xd8 && op <= 0xdf) || op == 0xf6 || op == 0xf7 ||
	       op == 0xfe || op == 0xff;
}

static unsigned imm_kind(unsigned map, unsigned op, unsigned modrm)
{
	if (map == 3)
		return IB;
	if (map == 2)
		return I0;
	if (map == 1) {
		if (op >= 0x80 && op <= 0x8f)
			return IJ;
		if ((op >= 0x70 && op <= 0x73) || op == 0xa4 || op == 0xac ||
		    op == 0xba || op == 0xc2 || (op >= 0xc4 && op <= 0xc6) ||
		    op == 0x0f)
			return IB;
		return I0;
	}
	if (op < 0x40)
		return (op & 7) == 4 ? IB : (op & 7) == 5 ? IZ : I0;
	switch (op) {
	case 0x6a:
	case 0x6b:
	case 0x70 ... 0x7f:
	case 0x80:
	case 0x82:
	case 0x83:
	case 0xa8:
	case 0xb0 ... 0xb7:
	case 0xc0:
	case 0xc1:
	case 0xc6:
	case 0xcd:
	case 0xd4:
	case 0xd5:
	case 0xe0 ... 0xe7:
	case 0xeb:
		return IB;
	case 0x68:
	case 0x69:
	case 0x81:
	case 0xa9:
	case 0xc7:
		return IZ;
	case 0xe8:
	case 0xe9:
		return IJ;
	case 0xb8 ... 0xbf:
		return IV;
	case 0xc2:
	case 0xca:
		return IW;
	case 0xc8:
		return IE;
	case 0xa0 ... 0xa3:
		return IA;
	case 0x9a:
	case 0xea:
		return IP;
	case 0xf6:
		return (modrm >> 3 & 7) < 2 ? IB : I0;
	case 0xf7:
		return (modrm >> 3 & 7) < 2 ? IZ : I0;
	default:
		return I0;
	}
}

static unsigned imm_length(unsigned kind, const struct enc *e, bool compat)
{
	switch (kind) {
	case IB:
		return 1;
	case IZ:
		return e->osize == 2 ? 2 : 4;
	case IV:
		return e->osize;
	case IW:
		return 2;
	case IE:
		return 3;
	case IA:
		return e->asize;
	case IP:
		return 2 + e->osize;
	case IJ:
		return !compat ? 4 : e->osize == 2 ? 2 : 4;
	default:
		return 0;
	}
}

/* Prefixes and REX; the index of the opcode. */
static unsigned parse_prefixes(struct enc *e, const uint8_t *c, unsigned n,
			       bool compat)
{
	unsigned i;

	for (i = 0; i < n; i++) {
		uint8_t b = c[i];

		if (!compat && (b & 0xf0) == 0x40) {
			e->rex = b;
			e->any_rex = true;
			continue;
		}
		switch (b) {
		case 0x66:
			e->p66 = true;
			break;
		case 0x67:
			e->p67 = true;
			break;
		case 0xf0:
			e->lock = true;
			break;
		case 0xf2:
			e->f2 = true;
			e->f3 = false;
			break;
		case 0xf3:
			e->f3 = true;
			e->f2 = false;
			break;
		case 0x26:
		case 0x2e:
		case 0x36:
		case 0x3e:
			/* no prefix in 64-bit code, not even the last one */
			if (compat)
				e->seg = b;
			break;
		case 0x64:
		case 0x65:
			e->seg = b;
			break;
		default:
			return i;
		}
		e->rex = 0; /* a prefix after it takes it out of force */
	}
	return i;
}

static unsigned disp_length(const struct enc *e, const uint8_t *c, bool compat)
{
	unsigned mod = e->modrm >> 6, rm = e->modrm & 7;

	(void)c;
	if (mod == 3)
		return 0;
	if (compat && e->asize == 2)
		return mod == 1 ? 1 : mod == 2 || rm == 6 ? 2 : 0;
	if (mod == 1)
		return 1;
	if (mod == 2)
		return 4;
	if (rm == 5 || (rm == 4 && (e->sib & 7) == 5))
		return 4;
	return 0;
}

void enc_parse(struct enc *e, const uint8_t *c, unsigned n, unsigned compat)
{
	unsigned i;

	memset(e, 0, sizeof(*e));
	i = parse_prefixes(e, c, n, compat);
	e->rexw = e->rex & 8;
	e->osize = e->rexw ? 8 : e->p66 == (compat != 2) ? 2 : 4;
	e->asize = !compat ? (e->p67 ? 4 : 8) : e->p67 == (compat == 1) ? 2 : 4;
	if (i >= n)
		return;
	if (c[i] == 0x0f) {
		if (++i >= n)
			return;
		e->map = 1;
		if (c[i] == 0x38 || c[i] == 0x3a) {
			e->map = c[i] == 0x38 ? 2 : 3;
			if (++i >= n)
				return;
		}
	}
	e->op = c[i++];
	e->has_modrm = has_modrm(e->map, e->op);
	if (e->has_modrm) {
		if (i >= n)
			return;
		e->modrm_at = (uint8_t)i;
		e->modrm = c[i++];
		/* MOV CRn, DRn, TRn: mod is not looked at. */
		if (e->map == 1 && e->op >= 0x20 && e->op <= 0x27)
			e->modrm |= 0xc0;
		if (ENC_MOD(e) != 3 && ENC_RM(e) == 4 &&
		    !(compat && e->asize == 2)) {
			if (i >= n)
				return;
			e->sib = c[i++];
		}
		e->disp_at = (uint8_t)i;
		e->disp_len = (uint8_t)disp_length(e, c, compat);
		i += e->disp_len;
	}
	e->imm_at = (uint8_t)i;
	e->imm_len = (uint8_t)imm_length(imm_kind(e->map, e->op, e->modrm), e,
					 compat);
	i += e->imm_len;
	e->len = (uint8_t)i;
	e->ok = i <= n && i <= 15;
}

bool enc_is_string(const struct enc *e)
{
	return e->map == 0 && ((e->op >= 0x6c && e->op <= 0x6f) ||
			       (e->op >= 0xa4 && e->op <= 0xa7) ||
			       (e->op >= 0xaa && e->op <= 0xaf));
}

bool enc_is_far(const struct enc *e)
{
	return e->map == 0 &&
	       (e->op == 0x9a || e->op == 0xea || e->op == 0xca ||
		e->op == 0xcb || e->op == 0xcf ||
		(e->op == 0xff && (ENC_REG(e) == 3 || ENC_REG(e) == 5)));
}

bool enc_is_transfer(const struct enc *e, bool compat)
{
	if (e->map == 1)
		return (e->op >= 0x80 && e->op <= 0x8f) || e->op == 0x0b ||
		       e->op == 0xb9 || e->op == 0xff;
	if (e->map)
		return false;
	switch (e->op) {
	case 0x70 ... 0x7f:
	case 0xc2:
	case 0xc3:
	case 0xca ... 0xcf:
	case 0xe0 ... 0xe3:
	case 0xe8 ... 0xeb:
	case 0xf1:
	case 0x9d: /* POPF: TF */
		return true;
	case 0x9a:
		return compat;
	case 0xff:
		return ENC_REG(e) >= 2 && ENC_REG(e) <= 5;
	default:
		return false;
	}
}

bool enc_shadows(const struct enc *e)
{
	return (e->map == 0 &&
		(e->op == 0x17 || (e->op == 0x8e && ENC_REG(e) == 2))) ||
	       (e->map == 1 && e->op == 0xb2);
}

static const char *excluded_0f(const struct enc *e, bool compat)
{
	unsigned reg = ENC_REG(e);
	bool mem = ENC_MEM(e);

	switch (e->op) {
	case 0x80 ... 0x8f:
		return e->p66 && !compat ? "vendors differ: 66 on Jcc" : NULL;
	case 0x0d:
		return mem ? NULL : "vendors differ: PREFETCH of a register";
	case 0xb2:
	case 0xb4:
	case 0xb5:
		return e->rexw ? "vendors differ: 64-bit far pointer" : NULL;
	case 0x05:
	case 0x07:
	case 0x34:
	case 0x35:
		return "enters the kernel";
	case 0x00:
		return reg < 2 ? "UMIP" : NULL;
	case 0x01:
		if (mem)
			return reg < 2 || reg == 4 ? "UMIP" : NULL;
		if (reg == 4)
			return "UMIP";
		/* SWAPGS is the only one that is compared. */
		return e->modrm == 0xf8 ? NULL : "system extension";
	case 0x09:
	case 0x0e:
	case 0x0f:
		return "3DNow, WBNOINVD";
	case 0x31:
	case 0x33:
	case 0xa2:
		return "result is no function of the state";
	case 0x37:
		return "GETSEC";
	case 0xbc:
	case 0xbd:
		return e->f3 ? "TZCNT, LZCNT" : NULL;
	case 0x78:
	case 0x79:
		return "SSE4a, VMREAD";
	case 0xc7:
		if (!mem && reg >= 6)
			return "RDRAND, RDSEED, RDPID";
		if (mem && reg != 1)
			return "XSAVEC, XSAVES, VMX";
		return NULL;
	case 0xae:
		if (!mem && e->f3 && reg < 4)
			return NULL; /* RDFSBASE ... */
		if (mem && reg >= 4 && reg != 7)
			return "XSAVE, CLWB";
		if (e->f2 || e->f3 || e->p66)
			return "system extension";
		return NULL;
	case 0x1e:
	case 0x1c:
	case 0x1a:
	case 0x1b:
		return e->f3 || e->f2 || e->p66 ? "CET, MPX" : NULL;
	case 0x20 ... 0x23:
		return e->lock ? "vendors differ: LOCK MOV CR0 is CR8" : NULL;
	case 0x24 ... 0x27:
	case 0x36:
		return "test registers";
	default:
		return NULL;
	}
}

const char *enc_excluded(const struct enc *e, bool compat)
{
	if (e->map == 1)
		return excluded_0f(e, compat);
	if (e->map)
		return NULL;
	/* AMD takes 66 into account on near branches in 64-bit code. */
	if (!compat && e->p66 && !e->rexw &&
	    (e->op == 0xe8 || e->op == 0xe9 || e->op == 0xc2 || e->op == 0xc3 ||
	     e->op == 0xeb || (e->op & 0xf0) == 0x70 ||
	     (e->op >= 0xe0 && e->op <= 0xe3) ||
	     (e->op == 0xff && (ENC_REG(e) == 2 || ENC_REG(e) == 4))))
		return "vendors differ: 66 on a near branch";
	if ((e->op == 0xe0 || e->op == 0xe1) && (e->f2 || e->f3))
		return "vendors differ: REP with LOOPcc";
	if (e->op == 0xff && e->rexw && (ENC_REG(e) == 3 || ENC_REG(e) == 5))
		return "vendors differ: 64-bit far pointer";
	if (!compat && e->op == 0x63 && e->p66 && !e->rexw)
		return "vendors differ: 16-bit MOVSXD";
	if (e->op == 0xf1)
		return "INT1 looks like a step";
	if (e->op == 0xc7 && e->modrm == 0xf8)
		return "XBEGIN";
	if (e->op == 0xc6 && e->modrm == 0xf8)
		return "XABORT";
	if (e->op == 0x8f && ENC_REG(e))
		return "XOP";
	if (!compat && (e->op == 0xc4 || e->op == 0xc5 || e->op == 0x62))
		return "VEX, EVEX";
	if (compat && ENC_MOD(e) == 3 &&
	    (e->op == 0xc4 || e->op == 0xc5 || e->op == 0x62))
		return "VEX, EVEX";
	return NULL;
}

/* 0F38 and 0F3A opcodes of x86-64-v2, by mandatory prefix. */
static bool v2_0f38(unsigned op, const struct enc *e)
{
	if (op <= 0x0b || (op >= 0x1c && op <= 0x1e))
		return true; /* SSSE3 */
	if (op == 0xf0 || op == 0xf1)
		return e->f2; /* CRC32; else MOVBE */
	return e->p66 &&
	       (op == 0x10 || op == 0x14 || op == 0x15 || op == 0x17 ||
		(op >= 0x20 && op <= 0x25) || (op >= 0x28 && op <= 0x2b) ||
		(op >= 0x30 && op <= 0x41) || op == 0x82);
}

static bool v2_0f3a(unsigned op, const struct enc *e)
{
	if (op == 0x0f)
		return true;
	return e->p66 &&
	       ((op >= 0x08 && op <= 0x0e) || (op >= 0x14 && op <= 0x17) ||
		(op >= 0x20 && op <= 0x22) || (op >= 0x40 && op <= 0x42) ||
		(op >= 0x60 && op <= 0x63));
}

bool enc_hidden(const struct enc *e, bool compat)
{
	(void)compat;
	if (e->map == 2)
		return !v2_0f38(e->op, e);
	if (e->map == 3)
		return !v2_0f3a(e->op, e);
	if (e->map == 1 && e->op == 0x2b && (e->f2 || e->f3))
		return true; /* MOVNTSD, MOVNTSS: SSE4a */
	if (e->map == 1 && e->op == 0x0d)
		return true; /* PREFETCHW */
	return false;
}

static uint64_t value_of(const struct ocase *c, unsigned reg)
{
	return c->in.gpr[reg];
}

#define CF (1u << 0)
#define PF (1u << 2)
#define AF (1u << 4)
#define ZF (1u << 6)
#define SF (1u << 7)
#define OF (1u << 11)

static unsigned opbits(const struct enc *e)
{
	return e->map == 0 && !(e->op & 1) ? 8 : e->osize * 8u;
}

/* The count of a shift or rotate, as the CPU masks it. */
static unsigned shift_count(const struct enc *e, const struct ocase *c)
{
	unsigned n;

	if (e->map == 1)
		n = e->op & 1 ? (unsigned)value_of(c, 1) : c->code[e->imm_at];
	else if (e->op < 0xd0)
		n = c->code[e->imm_at];
	else if (e->op < 0xd2)
		n = 1;
	else
		n = (unsigned)value_of(c, 1);
	return n & (e->osize == 8 && opbits(e) == 64 ? 63 : 31);
}

static uint64_t undefined_shift(const struct enc *e, const struct ocase *c)
{
	unsigned n = shift_count(e, c), reg = ENC_REG(e), bits = opbits(e);
	uint64_t u = 0;

	if (!n)
		return 0;
	if (n != 1)
		u |= OF;
	if (reg >= 4) {
		u |= AF;
		if (reg != 7 && n >= bits)
			u |= CF;
	}
	return u;
}

static uint64_t undefined_0f(const struct enc *e, const struct ocase *c)
{
	unsigned n;

	switch (e->op) {
	case 0xa3:
	case 0xab:
	case 0xb3:
	case 0xbb:
	case 0xba:
		return OF | SF | AF | PF;
	case 0xbc:
	case 0xbd:
		return CF | OF | SF | AF | PF;
	case 0xaf:
		return SF | ZF | AF | PF;
	case 0xa4:
	case 0xa5:
	case 0xac:
	case 0xad:
		n = shift_count(e, c);
		if (!n)
			return 0;
		if (n > e->osize * 8u)
			return CF | PF | AF | ZF | SF | OF;
		return AF | (n != 1 ? OF : 0);
	default:
		return 0;
	}
}

uint64_t enc_undefined_flags(const struct enc *e, const struct ocase *c)
{
	unsigned reg = ENC_REG(e);

	if (e->map == 1)
		return undefined_0f(e, c);
	if (e->map)
		return 0;
	switch (e->op) {
	case 0x08 ... 0x0d:
	case 0x20 ... 0x25:
	case 0x30 ... 0x35:
	case 0x84:
	case 0x85:
	case 0xa8:
	case 0xa9:
		return AF;
	case 0x80 ... 0x83:
		return reg == 1 || reg == 4 || reg == 6 ? AF : 0;
	case 0xc0:
	case 0xc1:
	case 0xd0 ... 0xd3:
		return undefined_shift(e, c);
	case 0xf6:
	case 0xf7:
		if (reg < 2)
			return AF;
		if (reg == 4 || reg == 5)
			return SF | ZF | AF | PF;
		return reg >= 6 ? CF | OF | SF | ZF | AF | PF : 0;
	case 0x69:
	case 0x6b:
		return SF | ZF | AF | PF;
	case 0x27:
	case 0x2f:
		return OF;
	case 0x37:
	case 0x3f:
		return OF | SF | ZF | PF;
	case 0xd4:
	case 0xd5:
		return OF | AF | CF;
	default:
		return 0;
	}
}

uint64_t enc_address(const struct enc *e, const struct ocase *c)
{
	unsigned rm = ENC_RM(e), mod = ENC_MOD(e), rexb = (e->rex & 1) << 3;
	const uint64_t *g = c->in.gpr;
	int64_t d = 0;
	uint64_t a;

	memcpy(&d, c->code + e->disp_at, e->disp_len);
	if (e->disp_len)
		d = (int64_t)((uint64_t)d << (64 - 8 * e->disp_len)) >>
		    (64 - 8 * e->disp_len);
	a = (uint64_t)d;
	if (e->asize == 2) {
		static const uint8_t first[8] = { 3, 3, 5, 5, 6, 7, 5, 3 };

		if (mod || rm != 6)
			a += g[first[rm]];
		if (rm < 4)
			a += g[6 + (rm & 1)];
		a = (uint16_t)a;
	} else if (rm != 4) {
		if (mod || rm != 5)
			a += g[rm | rexb];
		else if (!c->compat)
			a += c->in.rip + c->pre_len + e->len;
	} else {
		unsigned index = (e->sib >> 3 & 7) | (e->rex >> 1 & 1) << 3;

		if (index != 4)
			a += g[index] << (e->sib >> 6);
		if (mod || (e->sib & 7) != 5)
			a += g[(e->sib & 7) | rexb];
	}
	if (e->asize == 4)
		a = (uint32_t)a;
	a += e->seg == 0x64   ? c->in.fs_base
	     : e->seg == 0x65 ? c->in.gs_base
			      : 0;
	return c->compat ? (uint32_t)a : a;
}

bool enc_many_words(const struct enc *e)
{
	unsigned reg = ENC_REG(e);

	if (e->map == 1)
		return (e->op == 0xae && reg < 2) || e->op == 0xb2 ||
		       e->op == 0xb4 || e->op == 0xb5;
	if (e->map)
		return false;
	switch (e->op) {
	case 0xdb:
		return reg == 5 || reg == 7;
	case 0xdf:
		return reg == 4 || reg == 6;
	case 0x62:
	case 0xc4:
	case 0xc5:
	case 0x60:
	case 0x61:
	case 0x9a:
	case 0xc8:
	case 0xca:
	case 0xcb:
	case 0xcf:
		return true;
	case 0xd9:
		return reg == 4 || reg == 6;
	case 0xdd:
		return reg == 4 || reg == 6;
	case 0xff:
		return reg == 3 || reg == 5;
	default:
		return false;
	}
}

bool enc_undefined_result(const struct enc *e, const struct ocase *c)
{
	return e->map == 1 &&
	       (e->op == 0xa4 || e->op == 0xa5 || e->op == 0xac ||
		e->op == 0xad) &&
	       shift_count(e, c) > e->osize * 8u;
}
