/*
 * Decoding, one pass, no backtracking: prefixes, REX, map, row, ModRM and SIB,
 * immediate. The row gives everything else.
 */
#include <string.h>

#include "hv/soft/decode.h"
#include "hv/soft/ops.h"

/* The bytes that can be seen; running out of them is not an error yet. */
struct window {
	const uint8_t *p;
	unsigned at, avail;
	bool more; /* something was beyond the end */
};

static inline unsigned byte(struct window *w)
{
	if (unlikely(w->at >= w->avail)) {
		w->more = true;
		w->at++;
		return 0;
	}
	return w->p[w->at++];
}

static inline uint64_t bytes(struct window *w, unsigned n)
{
	uint64_t v = 0;

	if (unlikely(w->at + n > w->avail)) {
		w->more = true;
		w->at += n;
		return 0;
	}
	memcpy(&v, w->p + w->at, n);
	w->at += n;
	return v;
}

static inline int64_t sbytes(struct window *w, unsigned n)
{
	unsigned up = 64 - 8 * n;

	return (int64_t)(bytes(w, n) << up) >> up;
}

struct prefixes {
	bool osize, asize, lock;
	uint8_t rep; /* 0, 0xf2, 0xf3: the last one */
	int8_t seg; /* -1: none */
	uint8_t rex;
};

static unsigned prefixes(struct window *w, struct prefixes *x, bool mode64)
{
	for (;;) {
		unsigned b = byte(w);

		if (w->more || w->at > 15)
			return 0;
		switch (b) {
		case 0x26:
		case 0x2e:
		case 0x36:
		case 0x3e:
			if (!mode64)
				x->seg = (int8_t)(b >> 3 & 3);
			break;
		case 0x64:
		case 0x65:
			x->seg = (int8_t)(b - 0x64 + X86_FS);
			break;
		case 0x66:
			x->osize = true;
			break;
		case 0x67:
			x->asize = true;
			break;
		case 0xf0:
			x->lock = true;
			break;
		case 0xf2:
		case 0xf3:
			x->rep = (uint8_t)b;
			break;
		default:
			if (mode64 && (b & 0xf0) == 0x40) {
				/* REX counts only right before the opcode. */
				x->rex = (uint8_t)b;
				continue;
			}
			return b;
		}
		x->rex = 0;
	}
}

/* ModRM memory forms with 16-bit addressing: base, index. */
static const uint8_t modrm16[8][2] = {
	{ X86_RBX, X86_RSI },	{ X86_RBX, X86_RDI },	{ X86_RBP, X86_RSI },
	{ X86_RBP, X86_RDI },	{ X86_RSI, SOFT_ZERO }, { X86_RDI, SOFT_ZERO },
	{ X86_RBP, SOFT_ZERO }, { X86_RBX, SOFT_ZERO },
};

/* True when the address is relative to RIP. */
static bool memory(struct insn *i, struct window *w, const struct prefixes *x,
		   bool mode64)
{
	unsigned mod = i->modrm >> 6, rm = i->modrm & 7;
	unsigned seg = X86_DS;
	bool rip = false;

	i->index = SOFT_ZERO;
	i->scale = 0;
	if (i->asize == 2) {
		i->base = modrm16[rm][0];
		i->index = modrm16[rm][1];
		if (mod == 0 && rm == 6) {
			i->base = SOFT_ZERO;
			i->disp = sbytes(w, 2);
		} else if (mod) {
			i->disp = sbytes(w, mod);
		}
		if (i->base == X86_RBP)
			seg = X86_SS;
	} else {
		if (rm == 4) {
			unsigned sib = byte(w);

			i->base = (uint8_t)((sib & 7) | (x->rex & 1) << 3);
			i->index =
				(uint8_t)((sib >> 3 & 7) | (x->rex & 2) << 2);
			i->scale = (uint8_t)(sib >> 6);
			if (i->index == X86_RSP) {
				i->index = SOFT_ZERO;
				i->scale = 0;
			}
			if ((sib & 7) == 5 && mod == 0) {
				i->base = SOFT_ZERO;
				i->disp = sbytes(w, 4);
			}
		} else if (rm == 5 && mod == 0) {
			i->base = mode64 ? SOFT_RIP : SOFT_ZERO;
			rip = mode64;
			i->disp = sbytes(w, 4);
		} else {
			i->base = (uint8_t)(rm | (x->rex & 1) << 3);
		}
		if (mod == 1)
			i->disp = sbytes(w, 1);
		else if (mod == 2)
			i->disp = sbytes(w, 4);
		if (i->base == X86_RSP || i->base == X86_RBP)
			seg = X86_SS;
	}
	i->seg = (uint8_t)(x->seg >= 0 ? (unsigned)x->seg : seg);
	return rip;
}

/* Byte register number -> offset in gpr[]: AH..BH without REX. */
static inline uint8_t reg8(unsigned r, bool rex)
{
	return (uint8_t)(!rex && r >= 4 && r < 8 ? (r - 4) * 8 + 1 : r * 8);
}

static unsigned operand_size(const struct soft_row *row,
			     const struct prefixes *x, unsigned mode)
{
	unsigned v = mode & (MODE_64 | MODE_32) ? 4 : 2;

	if (x->osize)
		v ^= 6;
	switch (row->size) {
	case SZ_B:
		return 1;
	case SZ_W:
		return 2;
	case SZ_Z:
		return v;
	case SZ_Y:
		return x->rex & 8 ? 8 : 4;
	case SZ_S:
		if (mode & MODE_64)
			return x->osize && !(x->rex & 8) ? 2 : 8;
		return v;
	case SZ_N:
		return mode & MODE_64 ? 8 : v;
	default:
		return x->rex & 8 ? 8 : v;
	}
}

static void immediate(struct insn *i, struct window *w,
		      const struct soft_row *row)
{
	switch (row->imm) {
	case IM_NONE:
		break;
	case IM_B:
		i->imm = (uint64_t)sbytes(w, 1);
		break;
	case IM_UB:
		i->imm = byte(w);
		break;
	case IM_W:
		i->imm = bytes(w, 2);
		break;
	case IM_Z:
		i->imm = (uint64_t)sbytes(w, i->osize == 2 ? 2 : 4);
		break;
	case IM_V:
		i->imm = bytes(w, i->osize);
		break;
	case IM_O:
		i->disp = (int64_t)bytes(w, i->asize);
		i->flags |= INSN_MEM;
		break;
	case IM_FAR:
		i->imm = bytes(w, i->osize);
		i->disp = (int64_t)bytes(w, 2);
		break;
	case IM_ENTER:
		i->imm = bytes(w, 2);
		i->imm |= (uint64_t)byte(w) << 16;
		break;
	case IM_ONE:
		i->imm = 1;
		break;
	case IM_ARG:
		i->imm = row->arg;
		break;
	}
}

/* 0F AE. */
static const struct soft_opset *group15(const struct insn *i, unsigned mode)
{
	unsigned n = i->modrm >> 3 & 7;

	if (i->flags & INSN_MEM) {
		if (i->pfx)
			return NULL;
		return n <= 3	? &soft_set_sse
		       : n == 7 ? &soft_set_clflush
				: NULL;
	}
	if (i->pfx == 0xf3)
		return n <= 3 && mode & MODE_64 ? &soft_set_fsgsbase : NULL;
	return !i->pfx && n >= 5 ? &soft_set_fence : NULL;
}

unsigned soft_decode(struct insn *i, const uint8_t *p, unsigned avail,
		     unsigned mode, const struct soft_row **out)
{
	struct window w = { .p = p, .avail = avail < 15 ? avail : 15 };
	struct prefixes x = { .seg = -1 };
	bool mode64 = mode & MODE_64, rip = false;
	const struct soft_opset *set;
	const struct soft_row *row;
	unsigned map = 0, op, size;
	uint16_t off = i->off;
	soft_handler *fn;

	memset(i, 0, sizeof(*i));
	i->off = off;
	*out = NULL;
	op = prefixes(&w, &x, mode64);
	if (op == 0x0f) {
		map = 1;
		op = byte(&w);
		if (op == 0x38 || op == 0x3a) {
			map = op == 0x38 ? 2 : 3;
			op = byte(&w);
		}
	}
	if (w.more)
		goto more;
	row = &soft_rows[map][op];
	if (row->attr & RA_ALT64 && mode64)
		row = row->sub;
	i->map = (uint8_t)map;
	i->opcode = (uint8_t)op;
	i->asize = (uint8_t)(mode64			    ? (x.asize ? 4 : 8)
			     : !(mode & MODE_32) != x.asize ? 2
							    : 4);
	i->base = i->index = SOFT_ZERO;
	i->seg = (uint8_t)(row->attr & RA_STACK ? X86_SS
			   : x.seg >= 0		? (unsigned)x.seg
						: X86_DS);
	i->flags =
		(uint8_t)((x.lock ? INSN_LOCK : 0) |
			  (x.rep == 0xf3 ? INSN_REP : 0) |
			  (x.rep == 0xf2 ? INSN_REPNE : 0) |
			  (x.osize ? INSN_OSIZE : 0) | (x.rex ? INSN_REX : 0) |
			  (x.rex & 8 ? INSN_REXW : 0) |
			  (mode64 && i->asize == 8 ? 0 : INSN_SLOW_EA));
	i->pfx = x.rep ? x.rep : x.osize ? 0x66 : 0;

	if (row->attr & RA_MODRM) {
		i->modrm = (uint8_t)byte(&w);
		i->reg = (uint8_t)((i->modrm >> 3 & 7) | (x.rex & 4) << 1);
		if (i->modrm >= 0xc0 || row->attr & RA_REG) {
			i->rm = (uint8_t)((i->modrm & 7) | (x.rex & 1) << 3);
		} else {
			i->flags |= INSN_MEM;
			rip = memory(i, &w, &x, mode64);
		}
		if (row->attr & RA_GROUP && !(row->attr & RA_NO64 && mode64))
			row = &row->sub[i->modrm >> 3 & 7];
		else if (row->attr & RA_PFX)
			row = &row->sub[x.rep == 0xf2 ? 3
					: x.rep	      ? 2
					: x.osize     ? 1
						      : 0];
	} else if (row->attr & RA_OPREG) {
		i->rm = (uint8_t)((op & 7) | (x.rex & 1) << 3);
	}
	if (row->attr & RA_ARGREG)
		i->reg = row->arg;
	i->osize = (uint8_t)operand_size(row, &x, mode);
	immediate(i, &w, row);
	if (w.more)
		goto more;
	i->len = (uint8_t)w.at;
	if (rip)
		i->disp += i->off + i->len;

	set = row->set;
	if (map == 1 && op == 0xae)
		set = group15(i, mode);
	if (!set || row->attr & (mode64 ? RA_NO64 : RA_ONLY64))
		goto ud;
	size = i->osize == 1 ? 0 : i->osize == 2 ? 1 : i->osize == 4 ? 2 : 3;
	if (i->flags & INSN_MEM)
		fn = x.lock ? set->l[size] : set->m[size];
	else
		fn = x.lock ? NULL : set->r[size];
	if (!fn)
		goto ud;
	if (!(i->flags & INSN_MEM)) {
		if (row->size == SZ_B || row->attr & RA_RM8)
			i->rm = reg8(i->rm, x.rex);
		if (row->size == SZ_B && row->attr & RA_MODRM &&
		    !(row->attr & RA_REGV))
			i->reg = reg8(i->reg, x.rex);
		if (row->attr & RA_SWAP) {
			uint8_t t = i->reg;

			i->reg = i->rm;
			i->rm = t;
		}
		/* 90 is NOP: XCHG EAX,EAX would clear the upper half. */
		if (map == 0 && op == 0x90 && i->rm == 0)
			fn = x.rep == 0xf3 ? soft_set_pause.r[size]
					   : soft_set_nop.r[size];
	} else if (row->size == SZ_B && row->attr & RA_MODRM &&
		   !(row->attr & RA_REGV)) {
		i->reg = reg8(i->reg, x.rex);
	}
	i->fn = fn;
	*out = row;
	return i->len;
ud:
	i->len = (uint8_t)w.at;
	i->fn = soft_h_ud;
	return i->len;
more:
	/* Beyond the 15th byte nothing helps. */
	if (w.at > 15 && avail >= 15) {
		i->len = 15;
		i->fn = soft_h_too_long;
		return 15;
	}
	return SOFT_NEED_MORE;
}
