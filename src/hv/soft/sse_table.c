/*
 * The SSE and MMX opcode maps: every instruction of MMX, SSE .. SSE4.2, AES
 * and PCLMULQDQ that thunks run, as the SDM's appendix A (vol. 2D) lists them.
 *
 * Not here, because they need no thunk or none of these registers: PREFETCHh,
 * the fences, LDMXCSR/STMXCSR, FXSAVE/FXRSTOR, EMMS, MASKMOVQ/MASKMOVDQU
 * (fpu.c, sse.c), MOVNTI, CRC32, POPCNT, MOVBE (interpreter).
 *
 * A register operand of a legacy SSE instruction that is 16 bytes in memory
 * must be aligned; the exceptions (MOVUPS and friends, PCMPxSTRx) have no
 * SSE_ALIGN.
 */
#include "hv/soft/thunk.h"

/* clang-format off */
#define N  SSE_PFX_NONE
#define P6 SSE_PFX_66
#define F3 SSE_PFX_F3
#define F2 SSE_PFX_F2
#define X  SSE_XMM
#define M  SSE_MM
#define G  SSE_GPR
#define D  SSE_DIGIT
#define O_ SSE_NONE

#define ROW(map, pfx, op, r, m, bytes, feat, fl) \
	[SSE_MAP_##map][pfx][op] = { .reg = r, .rm = m, .mem = bytes, \
				     .feature = SSE_F_##feat, .flags = fl }
#define GROUP(pfx, op, m, feat, mask) \
	[SSE_MAP_0F][pfx][op] = { .reg = D, .rm = m, .feature = SSE_F_##feat, \
		.flags = SSE_IMM | SSE_REG_ONLY | SSE_TO_RM, .digits = mask }

/* xmm, xmm/m128 with 66 */
#define X16(map, op, feat, fl) ROW(map, P6, op, X, X, 16, feat, SSE_ALIGN | (fl))
/* mm, mm/m64 and xmm, xmm/m128 */
#define MMX2(op, mfeat) \
	ROW(0F, N, op, M, M, 8, mfeat, 0), X16(0F, op, SSE2, 0)
#define MMX3(op) \
	ROW(0F38, N, op, M, M, 8, SSSE3, 0), X16(0F38, op, SSSE3, 0)
/* ps, pd */
#define PSPD(op, fl) \
	ROW(0F, N, op, X, X, 16, SSE, SSE_ALIGN | (fl)), \
	ROW(0F, P6, op, X, X, 16, SSE2, SSE_ALIGN | (fl))
/* ps, pd, ss, sd */
#define ARITH(op, fl) \
	PSPD(op, SSE_FP | (fl)), \
	ROW(0F, F3, op, X, X, 4, SSE, SSE_FP | (fl)), \
	ROW(0F, F2, op, X, X, 8, SSE2, SSE_FP | (fl))

const struct sse_op sse_ops[SSE_MAPS][SSE_PFXS][256] = {
	/* moves */
	ROW(0F, N,  0x10, X, X, 16, SSE, 0),
	ROW(0F, P6, 0x10, X, X, 16, SSE2, 0),
	ROW(0F, F3, 0x10, X, X, 4, SSE, 0),
	ROW(0F, F2, 0x10, X, X, 8, SSE2, 0),
	ROW(0F, N,  0x11, X, X, 16, SSE, SSE_TO_RM),
	ROW(0F, P6, 0x11, X, X, 16, SSE2, SSE_TO_RM),
	ROW(0F, F3, 0x11, X, X, 4, SSE, SSE_TO_RM),
	ROW(0F, F2, 0x11, X, X, 8, SSE2, SSE_TO_RM),
	ROW(0F, N,  0x12, X, X, 8, SSE, 0), /* MOVLPS, MOVHLPS */
	ROW(0F, P6, 0x12, X, X, 8, SSE2, SSE_MEM_ONLY),
	ROW(0F, F3, 0x12, X, X, 16, SSE3, SSE_ALIGN), /* MOVSLDUP */
	ROW(0F, F2, 0x12, X, X, 8, SSE3, 0), /* MOVDDUP */
	ROW(0F, N,  0x13, X, X, 8, SSE, SSE_MEM_ONLY | SSE_TO_RM),
	ROW(0F, P6, 0x13, X, X, 8, SSE2, SSE_MEM_ONLY | SSE_TO_RM),
	PSPD(0x14, 0), /* UNPCKL */
	PSPD(0x15, 0), /* UNPCKH */
	ROW(0F, N,  0x16, X, X, 8, SSE, 0), /* MOVHPS, MOVLHPS */
	ROW(0F, P6, 0x16, X, X, 8, SSE2, SSE_MEM_ONLY),
	ROW(0F, F3, 0x16, X, X, 16, SSE3, SSE_ALIGN), /* MOVSHDUP */
	ROW(0F, N,  0x17, X, X, 8, SSE, SSE_MEM_ONLY | SSE_TO_RM),
	ROW(0F, P6, 0x17, X, X, 8, SSE2, SSE_MEM_ONLY | SSE_TO_RM),
	PSPD(0x28, 0), /* MOVAPS, MOVAPD */
	PSPD(0x29, SSE_TO_RM),
	ROW(0F, N,  0x2b, X, X, 16, SSE, SSE_ALIGN | SSE_MEM_ONLY | SSE_TO_RM),
	ROW(0F, P6, 0x2b, X, X, 16, SSE2, SSE_ALIGN | SSE_MEM_ONLY | SSE_TO_RM),
	ROW(0F, N,  0x50, G, X, 0, SSE, SSE_REG_ONLY), /* MOVMSKPS */
	ROW(0F, P6, 0x50, G, X, 0, SSE2, SSE_REG_ONLY),
	ROW(0F, N,  0x6e, M, G, 0, MMX, SSE_REXW), /* MOVD, MOVQ */
	ROW(0F, P6, 0x6e, X, G, 0, SSE2, SSE_REXW),
	ROW(0F, N,  0x7e, M, G, 0, MMX, SSE_REXW | SSE_TO_RM),
	ROW(0F, P6, 0x7e, X, G, 0, SSE2, SSE_REXW | SSE_TO_RM),
	ROW(0F, F3, 0x7e, X, X, 8, SSE2, 0), /* MOVQ */
	ROW(0F, P6, 0xd6, X, X, 8, SSE2, SSE_TO_RM),
	ROW(0F, F3, 0xd6, X, M, 0, SSE2, SSE_REG_ONLY), /* MOVQ2DQ */
	ROW(0F, F2, 0xd6, M, X, 0, SSE2, SSE_REG_ONLY), /* MOVDQ2Q */
	ROW(0F, N,  0x6f, M, M, 8, MMX, 0),
	ROW(0F, P6, 0x6f, X, X, 16, SSE2, SSE_ALIGN),
	ROW(0F, F3, 0x6f, X, X, 16, SSE2, 0),
	ROW(0F, N,  0x7f, M, M, 8, MMX, SSE_TO_RM),
	ROW(0F, P6, 0x7f, X, X, 16, SSE2, SSE_ALIGN | SSE_TO_RM),
	ROW(0F, F3, 0x7f, X, X, 16, SSE2, SSE_TO_RM),
	ROW(0F, N,  0xd7, G, M, 0, SSE, SSE_REG_ONLY), /* PMOVMSKB */
	ROW(0F, P6, 0xd7, G, X, 0, SSE2, SSE_REG_ONLY),
	ROW(0F, N,  0xe7, M, M, 8, SSE, SSE_MEM_ONLY | SSE_TO_RM), /* MOVNTQ */
	ROW(0F, P6, 0xe7, X, X, 16, SSE2, SSE_ALIGN | SSE_MEM_ONLY | SSE_TO_RM),
	ROW(0F, F2, 0xf0, X, X, 16, SSE3, SSE_MEM_ONLY), /* LDDQU */
	ROW(0F38, P6, 0x2a, X, X, 16, SSE41, SSE_ALIGN | SSE_MEM_ONLY),

	/* conversions */
	ROW(0F, N,  0x2a, X, M, 8, SSE, SSE_FP | SSE_MEM_NO_MMX), /* CVTPI2PS */
	ROW(0F, P6, 0x2a, X, M, 8, SSE2, SSE_FP | SSE_MEM_NO_MMX),
	ROW(0F, F3, 0x2a, X, G, 0, SSE, SSE_FP | SSE_REXW), /* CVTSI2SS */
	ROW(0F, F2, 0x2a, X, G, 0, SSE2, SSE_FP | SSE_REXW),
	ROW(0F, N,  0x2c, M, X, 8, SSE, SSE_FP), /* CVTTPS2PI */
	ROW(0F, P6, 0x2c, M, X, 16, SSE2, SSE_FP | SSE_ALIGN),
	ROW(0F, F3, 0x2c, G, X, 4, SSE, SSE_FP | SSE_REXW),
	ROW(0F, F2, 0x2c, G, X, 8, SSE2, SSE_FP | SSE_REXW),
	ROW(0F, N,  0x2d, M, X, 8, SSE, SSE_FP), /* CVTPS2PI */
	ROW(0F, P6, 0x2d, M, X, 16, SSE2, SSE_FP | SSE_ALIGN),
	ROW(0F, F3, 0x2d, G, X, 4, SSE, SSE_FP | SSE_REXW),
	ROW(0F, F2, 0x2d, G, X, 8, SSE2, SSE_FP | SSE_REXW),
	ROW(0F, N,  0x5a, X, X, 8, SSE2, SSE_FP), /* CVTPS2PD */
	ROW(0F, P6, 0x5a, X, X, 16, SSE2, SSE_FP | SSE_ALIGN | SSE_UNMASKED_UE),
	ROW(0F, F3, 0x5a, X, X, 4, SSE2, SSE_FP),
	ROW(0F, F2, 0x5a, X, X, 8, SSE2, SSE_FP | SSE_UNMASKED_UE),
	ROW(0F, N,  0x5b, X, X, 16, SSE2, SSE_FP | SSE_ALIGN), /* CVTDQ2PS */
	ROW(0F, P6, 0x5b, X, X, 16, SSE2, SSE_FP | SSE_ALIGN),
	ROW(0F, F3, 0x5b, X, X, 16, SSE2, SSE_FP | SSE_ALIGN),
	ROW(0F, P6, 0xe6, X, X, 16, SSE2, SSE_FP | SSE_ALIGN), /* CVTTPD2DQ */
	ROW(0F, F3, 0xe6, X, X, 8, SSE2, SSE_FP), /* CVTDQ2PD */
	ROW(0F, F2, 0xe6, X, X, 16, SSE2, SSE_FP | SSE_ALIGN), /* CVTPD2DQ */

	/* floating point */
	ROW(0F, N,  0x2e, X, X, 4, SSE, SSE_FP | SSE_NO_DST | SSE_EFLAGS),
	ROW(0F, P6, 0x2e, X, X, 8, SSE2, SSE_FP | SSE_NO_DST | SSE_EFLAGS),
	ROW(0F, N,  0x2f, X, X, 4, SSE, SSE_FP | SSE_NO_DST | SSE_EFLAGS),
	ROW(0F, P6, 0x2f, X, X, 8, SSE2, SSE_FP | SSE_NO_DST | SSE_EFLAGS),
	ARITH(0x51, 0), /* SQRT */
	ROW(0F, N,  0x52, X, X, 16, SSE, SSE_FP | SSE_ALIGN), /* RSQRT */
	ROW(0F, F3, 0x52, X, X, 4, SSE, SSE_FP),
	ROW(0F, N,  0x53, X, X, 16, SSE, SSE_FP | SSE_ALIGN), /* RCP */
	ROW(0F, F3, 0x53, X, X, 4, SSE, SSE_FP),
	PSPD(0x54, 0), PSPD(0x55, 0), PSPD(0x56, 0), PSPD(0x57, 0),
	ARITH(0x58, SSE_UNMASKED_UE), ARITH(0x59, SSE_UNMASKED_UE),
	ARITH(0x5c, SSE_UNMASKED_UE), ARITH(0x5d, 0),
	ARITH(0x5e, SSE_UNMASKED_UE), ARITH(0x5f, 0),
	ROW(0F, P6, 0x7c, X, X, 16, SSE3, SSE_FP | SSE_ALIGN | SSE_UNMASKED_UE),
	ROW(0F, F2, 0x7c, X, X, 16, SSE3, SSE_FP | SSE_ALIGN | SSE_UNMASKED_UE),
	ROW(0F, P6, 0x7d, X, X, 16, SSE3, SSE_FP | SSE_ALIGN | SSE_UNMASKED_UE),
	ROW(0F, F2, 0x7d, X, X, 16, SSE3, SSE_FP | SSE_ALIGN | SSE_UNMASKED_UE),
	ROW(0F, P6, 0xd0, X, X, 16, SSE3, SSE_FP | SSE_ALIGN | SSE_UNMASKED_UE),
	ROW(0F, F2, 0xd0, X, X, 16, SSE3, SSE_FP | SSE_ALIGN | SSE_UNMASKED_UE),
	ARITH(0xc2, SSE_IMM | SSE_IMM3), /* CMP */
	PSPD(0xc6, SSE_IMM), /* SHUF */
	X16(0F3A, 0x08, SSE41, SSE_FP | SSE_IMM), /* ROUND */
	X16(0F3A, 0x09, SSE41, SSE_FP | SSE_IMM),
	ROW(0F3A, P6, 0x0a, X, X, 4, SSE41, SSE_FP | SSE_IMM),
	ROW(0F3A, P6, 0x0b, X, X, 8, SSE41, SSE_FP | SSE_IMM),
	X16(0F3A, 0x40, SSE41, SSE_FP | SSE_IMM | SSE_UNMASKED_UE), /* DPPS */
	X16(0F3A, 0x41, SSE41, SSE_FP | SSE_IMM | SSE_UNMASKED_UE),

	/* integers */
	ROW(0F, N, 0x60, M, M, 4, MMX, 0), X16(0F, 0x60, SSE2, 0),
	ROW(0F, N, 0x61, M, M, 4, MMX, 0), X16(0F, 0x61, SSE2, 0),
	ROW(0F, N, 0x62, M, M, 4, MMX, 0), X16(0F, 0x62, SSE2, 0),
	MMX2(0x63, MMX), MMX2(0x64, MMX), MMX2(0x65, MMX), MMX2(0x66, MMX),
	MMX2(0x67, MMX), MMX2(0x68, MMX), MMX2(0x69, MMX), MMX2(0x6a, MMX),
	MMX2(0x6b, MMX), X16(0F, 0x6c, SSE2, 0), X16(0F, 0x6d, SSE2, 0),
	ROW(0F, N, 0x70, M, M, 8, SSE, SSE_IMM),
	X16(0F, 0x70, SSE2, SSE_IMM),
	ROW(0F, F3, 0x70, X, X, 16, SSE2, SSE_ALIGN | SSE_IMM),
	ROW(0F, F2, 0x70, X, X, 16, SSE2, SSE_ALIGN | SSE_IMM),
	GROUP(N, 0x71, M, MMX, 0x54), GROUP(P6, 0x71, X, SSE2, 0x54),
	GROUP(N, 0x72, M, MMX, 0x54), GROUP(P6, 0x72, X, SSE2, 0x54),
	GROUP(N, 0x73, M, MMX, 0x44), GROUP(P6, 0x73, X, SSE2, 0xcc),
	MMX2(0x74, MMX), MMX2(0x75, MMX), MMX2(0x76, MMX),
	ROW(0F, N,  0xc4, M, G, 2, SSE, SSE_IMM), /* PINSRW */
	ROW(0F, P6, 0xc4, X, G, 2, SSE2, SSE_IMM),
	ROW(0F, N,  0xc5, G, M, 0, SSE, SSE_IMM | SSE_REG_ONLY), /* PEXTRW */
	ROW(0F, P6, 0xc5, G, X, 0, SSE2, SSE_IMM | SSE_REG_ONLY),
	MMX2(0xd1, MMX), MMX2(0xd2, MMX), MMX2(0xd3, MMX), MMX2(0xd4, SSE2),
	MMX2(0xd5, MMX), MMX2(0xd8, MMX), MMX2(0xd9, MMX), MMX2(0xda, SSE),
	MMX2(0xdb, MMX), MMX2(0xdc, MMX), MMX2(0xdd, MMX), MMX2(0xde, SSE),
	MMX2(0xdf, MMX), MMX2(0xe0, SSE), MMX2(0xe1, MMX), MMX2(0xe2, MMX),
	MMX2(0xe3, SSE), MMX2(0xe4, SSE), MMX2(0xe5, MMX), MMX2(0xe8, MMX),
	MMX2(0xe9, MMX), MMX2(0xea, SSE), MMX2(0xeb, MMX), MMX2(0xec, MMX),
	MMX2(0xed, MMX), MMX2(0xee, SSE), MMX2(0xef, MMX), MMX2(0xf1, MMX),
	MMX2(0xf2, MMX), MMX2(0xf3, MMX), MMX2(0xf4, SSE2), MMX2(0xf5, MMX),
	MMX2(0xf6, SSE), MMX2(0xf8, MMX), MMX2(0xf9, MMX), MMX2(0xfa, MMX),
	MMX2(0xfb, SSE2), MMX2(0xfc, MMX), MMX2(0xfd, MMX), MMX2(0xfe, MMX),

	/* SSSE3 */
	MMX3(0x00), MMX3(0x01), MMX3(0x02), MMX3(0x03), MMX3(0x04), MMX3(0x05),
	MMX3(0x06), MMX3(0x07), MMX3(0x08), MMX3(0x09), MMX3(0x0a), MMX3(0x0b),
	MMX3(0x1c), MMX3(0x1d), MMX3(0x1e),
	ROW(0F3A, N, 0x0f, M, M, 8, SSSE3, SSE_IMM), /* PALIGNR */
	X16(0F3A, 0x0f, SSSE3, SSE_IMM),

	/* SSE4.1 */
	X16(0F38, 0x10, SSE41, SSE_XMM0_IN), X16(0F38, 0x14, SSE41, SSE_XMM0_IN),
	X16(0F38, 0x15, SSE41, SSE_XMM0_IN),
	X16(0F38, 0x17, SSE41, SSE_NO_DST | SSE_EFLAGS), /* PTEST */
	ROW(0F38, P6, 0x20, X, X, 8, SSE41, 0), ROW(0F38, P6, 0x21, X, X, 4, SSE41, 0),
	ROW(0F38, P6, 0x22, X, X, 2, SSE41, 0), ROW(0F38, P6, 0x23, X, X, 8, SSE41, 0),
	ROW(0F38, P6, 0x24, X, X, 4, SSE41, 0), ROW(0F38, P6, 0x25, X, X, 8, SSE41, 0),
	X16(0F38, 0x28, SSE41, 0), X16(0F38, 0x29, SSE41, 0), X16(0F38, 0x2b, SSE41, 0),
	ROW(0F38, P6, 0x30, X, X, 8, SSE41, 0), ROW(0F38, P6, 0x31, X, X, 4, SSE41, 0),
	ROW(0F38, P6, 0x32, X, X, 2, SSE41, 0), ROW(0F38, P6, 0x33, X, X, 8, SSE41, 0),
	ROW(0F38, P6, 0x34, X, X, 4, SSE41, 0), ROW(0F38, P6, 0x35, X, X, 8, SSE41, 0),
	X16(0F38, 0x37, SSE42, 0), /* PCMPGTQ */
	X16(0F38, 0x38, SSE41, 0), X16(0F38, 0x39, SSE41, 0), X16(0F38, 0x3a, SSE41, 0),
	X16(0F38, 0x3b, SSE41, 0), X16(0F38, 0x3c, SSE41, 0), X16(0F38, 0x3d, SSE41, 0),
	X16(0F38, 0x3e, SSE41, 0), X16(0F38, 0x3f, SSE41, 0), X16(0F38, 0x40, SSE41, 0),
	X16(0F38, 0x41, SSE41, 0),
	X16(0F3A, 0x0c, SSE41, SSE_IMM), X16(0F3A, 0x0d, SSE41, SSE_IMM),
	X16(0F3A, 0x0e, SSE41, SSE_IMM), X16(0F3A, 0x42, SSE41, SSE_IMM),
	ROW(0F3A, P6, 0x14, X, G, 1, SSE41, SSE_IMM | SSE_TO_RM), /* PEXTRB */
	ROW(0F3A, P6, 0x15, X, G, 2, SSE41, SSE_IMM | SSE_TO_RM),
	ROW(0F3A, P6, 0x16, X, G, 0, SSE41, SSE_IMM | SSE_TO_RM | SSE_REXW),
	ROW(0F3A, P6, 0x17, X, G, 4, SSE41, SSE_IMM | SSE_TO_RM),
	ROW(0F3A, P6, 0x20, X, G, 1, SSE41, SSE_IMM), /* PINSRB */
	ROW(0F3A, P6, 0x21, X, X, 4, SSE41, SSE_IMM), /* INSERTPS */
	ROW(0F3A, P6, 0x22, X, G, 0, SSE41, SSE_IMM | SSE_REXW),

	/* SSE4.2 strings; no alignment */
	ROW(0F3A, P6, 0x60, X, X, 16, SSE42, SSE_IMM | SSE_STRING | SSE_REXW |
	    SSE_NO_DST | SSE_EFLAGS | SSE_XMM0_OUT), /* PCMPESTRM */
	ROW(0F3A, P6, 0x61, X, X, 16, SSE42, SSE_IMM | SSE_STRING | SSE_REXW |
	    SSE_NO_DST | SSE_EFLAGS | SSE_ECX_OUT), /* PCMPESTRI */
	ROW(0F3A, P6, 0x62, X, X, 16, SSE42, SSE_IMM | SSE_STRING | SSE_REXW |
	    SSE_NO_DST | SSE_EFLAGS | SSE_XMM0_OUT), /* PCMPISTRM */
	ROW(0F3A, P6, 0x63, X, X, 16, SSE42, SSE_IMM | SSE_STRING | SSE_REXW |
	    SSE_NO_DST | SSE_EFLAGS | SSE_ECX_OUT), /* PCMPISTRI */

	/* AES, PCLMULQDQ */
	X16(0F38, 0xdb, AES, 0), X16(0F38, 0xdc, AES, 0), X16(0F38, 0xdd, AES, 0),
	X16(0F38, 0xde, AES, 0), X16(0F38, 0xdf, AES, 0),
	X16(0F3A, 0xdf, AES, SSE_IMM), X16(0F3A, 0x44, PCLMUL, SSE_IMM),
};
/* clang-format on */
