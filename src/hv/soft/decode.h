/*
 * The decoder: bytes -> struct insn, by the opcode map of optable.c.
 */
#ifndef ARC_HV_SOFT_DECODE_H
#define ARC_HV_SOFT_DECODE_H

#include "hv/soft/op.h"

/* soft_row.size: how the operand size follows from prefixes and mode. */
enum {
	SZ_V, /* 16, 32, 64: by 66 and REX.W */
	SZ_B, /* 8 */
	SZ_W, /* 16 */
	SZ_Z, /* 16, 32: REX.W does not matter */
	SZ_Y, /* 32, 64: 66 does not matter */
	SZ_S, /* stack: 64 in 64-bit mode (16 by 66), else as V */
	SZ_N, /* near branch: 64 in 64-bit mode whatever, else as V */
};

/* soft_row.imm */
enum {
	IM_NONE,
	IM_B, /* byte, sign-extended */
	IM_UB, /* byte, zero-extended */
	IM_W, /* 16 bits, zero-extended */
	IM_Z, /* 16 or 32 bits, sign-extended */
	IM_V, /* 16, 32, 64 bits */
	IM_O, /* an offset of the address size: to disp, as memory operand */
	IM_FAR, /* offset to imm, selector to disp */
	IM_ENTER, /* 16 bits, and a byte at bit 16 */
	IM_ONE, /* none: the constant 1 */
	IM_ARG, /* none: row.arg */
};

/* soft_row.attr */
enum {
	RA_MODRM = 1 << 0,
	RA_OPREG = 1 << 1, /* rm is in the opcode's low bits */
	RA_ACC = 1 << 2, /* rm is the accumulator */
	RA_SWAP = 1 << 3, /* in register form, reg and rm change places */
	RA_RM8 = 1 << 4, /* rm is a byte register though the size is not 8 */
	RA_REGV = 1 << 5, /* reg is not one though the size is 8 */
	RA_END = 1 << 6, /* ends its block */
	RA_REL = 1 << 7, /* near branch by offset: see op_flow.c's sets */
	RA_NO64 = 1 << 8, /* #UD in 64-bit mode */
	RA_ONLY64 = 1 << 9, /* #UD elsewhere */
	RA_GROUP = 1 << 10, /* sub[ModRM.reg] */
	RA_PFX = 1 << 11, /* sub[none, 66, F3, F2] */
	RA_ALT64 = 1 << 12, /* sub[0] in 64-bit mode */
	RA_REG = 1 << 13, /* ModRM names registers whatever mod says */
	RA_STACK = 1 << 14, /* no operand but the stack */
	RA_ARGREG = 1 << 15, /* reg is row.arg */
};

struct soft_row {
	const char *name; /* mnemonic and operands as the manuals write them */
	const struct soft_opset *set; /* NULL: #UD */
	const struct soft_row *sub;
	uint16_t attr;
	uint8_t size, imm, arg;
};

/* Maps: one byte, 0F, 0F 38, 0F 3A. */
extern const struct soft_row soft_rows[4][256];

#define SOFT_NEED_MORE 0

/*
 * Decode the instruction at @p, of which @avail bytes (at most 15 count) can be
 * seen, for MODE_* @mode into @i, whose .off is set. The length, or
 * SOFT_NEED_MORE when it reaches beyond @avail. What is no instruction decodes
 * to a handler that raises #UD (or #GP(0), when it is longer than 15 bytes).
 * *row is the map's row, after groups; NULL for those.
 */
unsigned soft_decode(struct insn *i, const uint8_t *p, unsigned avail,
		     unsigned mode, const struct soft_row **row);

/* Special handlers (special.c part of block.c): */
extern soft_handler soft_h_ud, soft_h_too_long;

#endif
