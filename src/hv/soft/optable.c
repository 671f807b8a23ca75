/*
 * The opcode map, row by row as the manuals print it.
 *
 * E: the ModRM.rm operand, G: ModRM.reg, M: memory only, Z: register in the
 * opcode, I: immediate, J: branch offset, O: offset without ModRM, S: segment
 * register; b, w, z, v, y: sizes as SZ_* of decode.h. A row that is not there
 * is #UD.
 */
#include "hv/soft/decode.h"
#include "hv/soft/ops.h"

/* clang-format off */

#define R(n, s, sz, im, at, ...) \
	{ .name = n, .set = &soft_set_##s, .size = sz, .imm = im, .attr = at, __VA_ARGS__ }
#define MRM	RA_MODRM
#define GRP(n, g)	{ .name = n, .sub = g, .attr = RA_MODRM | RA_GROUP }

/* The six rows every ALU operation has. */
#define ALU_ROWS(base, n, s) \
	[base + 0] = R(n " Eb,Gb", s##_eg, SZ_B, IM_NONE, MRM), \
	[base + 1] = R(n " Ev,Gv", s##_eg, SZ_V, IM_NONE, MRM), \
	[base + 2] = R(n " Gb,Eb", s##_ge, SZ_B, IM_NONE, MRM | RA_SWAP), \
	[base + 3] = R(n " Gv,Ev", s##_ge, SZ_V, IM_NONE, MRM | RA_SWAP), \
	[base + 4] = R(n " AL,Ib", s##_ei, SZ_B, IM_B, RA_ACC), \
	[base + 5] = R(n " eAX,Iz", s##_ei, SZ_V, IM_Z, RA_ACC)

#define EIGHT(base, row) \
	[base + 0] = row, [base + 1] = row, [base + 2] = row, [base + 3] = row, \
	[base + 4] = row, [base + 5] = row, [base + 6] = row, [base + 7] = row

#define GROUP1(sz, im) { \
	R("add E,I", add_ei, sz, im, 0), R("or E,I", or_ei, sz, im, 0), \
	R("adc E,I", adc_ei, sz, im, 0), R("sbb E,I", sbb_ei, sz, im, 0), \
	R("and E,I", and_ei, sz, im, 0), R("sub E,I", sub_ei, sz, im, 0), \
	R("xor E,I", xor_ei, sz, im, 0), R("cmp E,I", cmp_ei, sz, im, 0) }
static const struct soft_row group1_b[8] = GROUP1(SZ_B, IM_B);
static const struct soft_row group1_z[8] = GROUP1(SZ_V, IM_Z);
static const struct soft_row group1_v[8] = GROUP1(SZ_V, IM_B);
static const struct soft_row group1_82[8] = GROUP1(SZ_B, IM_B);

#define GROUP2(k, sz, im) { \
	R("rol E", rol_##k, sz, im, 0), R("ror E", ror_##k, sz, im, 0), \
	R("rcl E", rcl_##k, sz, im, 0), R("rcr E", rcr_##k, sz, im, 0), \
	R("shl E", shl_##k, sz, im, 0), R("shr E", shr_##k, sz, im, 0), \
	R("shl E", shl_##k, sz, im, 0), R("sar E", sar_##k, sz, im, 0) }
static const struct soft_row group2_bi[8] = GROUP2(i, SZ_B, IM_UB);
static const struct soft_row group2_vi[8] = GROUP2(i, SZ_V, IM_UB);
static const struct soft_row group2_b1[8] = GROUP2(i, SZ_B, IM_ONE);
static const struct soft_row group2_v1[8] = GROUP2(i, SZ_V, IM_ONE);
static const struct soft_row group2_bc[8] = GROUP2(c, SZ_B, IM_NONE);
static const struct soft_row group2_vc[8] = GROUP2(c, SZ_V, IM_NONE);

#define GROUP3(sz, im) { \
	R("test E,I", test_ei, sz, im, 0), R("test E,I", test_ei, sz, im, 0), \
	R("not E", not, sz, IM_NONE, 0), R("neg E", neg, sz, IM_NONE, 0), \
	R("mul E", mul, sz, IM_NONE, 0), R("imul E", imul1, sz, IM_NONE, 0), \
	R("div E", div, sz, IM_NONE, 0), R("idiv E", idiv, sz, IM_NONE, 0) }
static const struct soft_row group3_b[8] = GROUP3(SZ_B, IM_B);
static const struct soft_row group3_v[8] = GROUP3(SZ_V, IM_Z);

static const struct soft_row group4[8] = {
	R("inc Eb", inc, SZ_B, IM_NONE, 0),
	R("dec Eb", dec, SZ_B, IM_NONE, 0),
};
static const struct soft_row group5[8] = {
	R("inc Ev", inc, SZ_V, IM_NONE, 0),
	R("dec Ev", dec, SZ_V, IM_NONE, 0),
	R("call Ev", call_e, SZ_N, IM_NONE, RA_END),
	R("call Mp", callf_e, SZ_V, IM_NONE, RA_END),
	R("jmp Ev", jmp_e, SZ_N, IM_NONE, RA_END),
	R("jmp Mp", jmpf_e, SZ_V, IM_NONE, RA_END),
	R("push Ev", push_e, SZ_S, IM_NONE, 0),
};
static const struct soft_row group1a[8] = {
	R("pop Ev", pop_e, SZ_S, IM_NONE, 0),
};
static const struct soft_row group11_b[8] = {
	R("mov Eb,Ib", mov_ei, SZ_B, IM_B, 0),
};
static const struct soft_row group11_v[8] = {
	R("mov Ev,Iz", mov_ei, SZ_V, IM_Z, 0),
};
static const struct soft_row movsxd[1] = {
	R("movsxd Gv,Ed", movsxd, SZ_V, IM_NONE, MRM),
};

/* 0F 00 and 0F 01: the system part looks at ModRM itself. */
static const struct soft_row group8[8] = {
	[4] = R("bt Ev,Ib", bt_i, SZ_V, IM_UB, 0),
	[5] = R("bts Ev,Ib", bts_i, SZ_V, IM_UB, 0),
	[6] = R("btr Ev,Ib", btr_i, SZ_V, IM_UB, 0),
	[7] = R("btc Ev,Ib", btc_i, SZ_V, IM_UB, 0),
};
static const struct soft_row group9[8] = {
	[1] = R("cmpxchg8b Mq", cmpxchg8b, SZ_Y, IM_NONE, 0),
};
static const struct soft_row popcnt[4] = {
	[2] = R("popcnt Gv,Ev", popcnt, SZ_V, IM_NONE, MRM),
};
static const struct soft_row movnti[4] = {
	[0] = R("movnti My,Gy", movnti, SZ_Y, IM_NONE, MRM),
};
static const struct soft_row invpcid[4] = {
	[1] = R("invpcid Gy,Mdq", invpcid, SZ_N, IM_NONE, MRM | RA_END),
};
static const struct soft_row crc32_b[4] = {
	[3] = R("crc32 Gd,Eb", crc32, SZ_B, IM_NONE, MRM | RA_REGV),
};
static const struct soft_row crc32_v[4] = {
	[3] = R("crc32 Gd,Ev", crc32, SZ_V, IM_NONE, MRM),
};

#define SSE	R("sse", sse, SZ_Y, IM_NONE, MRM)
#define SSE_IB	R("sse Ib", sse, SZ_Y, IM_UB, MRM)
#define NOP_E	R("nop Ev", nop, SZ_V, IM_NONE, MRM)
#define X87	R("x87", x87, SZ_V, IM_NONE, MRM)

#define JCC(base, k, im, at) \
	[base + 0x##k] = R("jcc J", jcc_##k, SZ_N, im, RA_END | RA_REL)
#define ALLCC(x, base, im, at) \
	x(base, 0, im, at), x(base, 1, im, at), x(base, 2, im, at), \
	x(base, 3, im, at), x(base, 4, im, at), x(base, 5, im, at), \
	x(base, 6, im, at), x(base, 7, im, at), x(base, 8, im, at), \
	x(base, 9, im, at), x(base, a, im, at), x(base, b, im, at), \
	x(base, c, im, at), x(base, d, im, at), x(base, e, im, at), \
	x(base, f, im, at)
#define CMOV(base, k, im, at) \
	[base + 0x##k] = R("cmovcc Gv,Ev", cmov_##k, SZ_V, IM_NONE, MRM)
#define SETCC(base, k, im, at) \
	[base + 0x##k] = R("setcc Eb", setcc_##k, SZ_B, IM_NONE, MRM)

#define PUSH_SEG(op, n, s, at) \
	[op] = R(n, push_seg, SZ_S, IM_NONE, RA_ARGREG | RA_STACK | at, .arg = s)
#define POP_SEG(op, n, s, at) \
	[op] = R(n, pop_seg, SZ_S, IM_NONE, RA_ARGREG | RA_STACK | RA_END | at, .arg = s)
#define LSEG(op, n, s, at) \
	[op] = R(n, lseg, SZ_V, IM_ARG, MRM | RA_END | at, .arg = s)

const struct soft_row soft_rows[4][256] = {
[0] = {
	ALU_ROWS(0x00, "add", add),
	PUSH_SEG(0x06, "push es", X86_ES, RA_NO64),
	POP_SEG(0x07, "pop es", X86_ES, RA_NO64),
	ALU_ROWS(0x08, "or", or),
	PUSH_SEG(0x0e, "push cs", X86_CS, RA_NO64),
	ALU_ROWS(0x10, "adc", adc),
	PUSH_SEG(0x16, "push ss", X86_SS, RA_NO64),
	POP_SEG(0x17, "pop ss", X86_SS, RA_NO64),
	ALU_ROWS(0x18, "sbb", sbb),
	PUSH_SEG(0x1e, "push ds", X86_DS, RA_NO64),
	POP_SEG(0x1f, "pop ds", X86_DS, RA_NO64),
	ALU_ROWS(0x20, "and", and),
	[0x27] = R("daa", daa, SZ_B, IM_NONE, RA_NO64),
	ALU_ROWS(0x28, "sub", sub),
	[0x2f] = R("das", das, SZ_B, IM_NONE, RA_NO64),
	ALU_ROWS(0x30, "xor", xor),
	[0x37] = R("aaa", aaa, SZ_B, IM_NONE, RA_NO64),
	ALU_ROWS(0x38, "cmp", cmp),
	[0x3f] = R("aas", aas, SZ_B, IM_NONE, RA_NO64),
	/* 40..4F are REX in 64-bit mode and do not come here. */
	EIGHT(0x40, R("inc Zv", inc, SZ_V, IM_NONE, RA_OPREG)),
	EIGHT(0x48, R("dec Zv", dec, SZ_V, IM_NONE, RA_OPREG)),
	EIGHT(0x50, R("push Zv", push, SZ_S, IM_NONE, RA_OPREG | RA_STACK)),
	EIGHT(0x58, R("pop Zv", pop, SZ_S, IM_NONE, RA_OPREG | RA_STACK)),
	[0x60] = R("pusha", pusha, SZ_V, IM_NONE, RA_NO64 | RA_STACK),
	[0x61] = R("popa", popa, SZ_V, IM_NONE, RA_NO64 | RA_STACK),
	[0x62] = R("bound Gv,Ma", bound, SZ_V, IM_NONE, MRM | RA_NO64),
	[0x63] = { .name = "arpl Ew,Gw", .set = &soft_set_arpl, .size = SZ_W,
		   .attr = MRM | RA_ALT64, .sub = movsxd },
	[0x68] = R("push Iz", push_i, SZ_S, IM_Z, RA_STACK),
	[0x69] = R("imul Gv,Ev,Iz", imul_i, SZ_V, IM_Z, MRM),
	[0x6a] = R("push Ib", push_i, SZ_S, IM_B, RA_STACK),
	[0x6b] = R("imul Gv,Ev,Ib", imul_i, SZ_V, IM_B, MRM),
	[0x6c] = R("ins Yb,DX", ins, SZ_B, IM_NONE, 0),
	[0x6d] = R("ins Yz,DX", ins, SZ_Z, IM_NONE, 0),
	[0x6e] = R("outs DX,Xb", outs, SZ_B, IM_NONE, 0),
	[0x6f] = R("outs DX,Xz", outs, SZ_Z, IM_NONE, 0),
	ALLCC(JCC, 0x70, IM_B, 0),
	[0x80] = GRP("group 1 Eb,Ib", group1_b),
	[0x81] = GRP("group 1 Ev,Iz", group1_z),
	[0x82] = { .name = "group 1 Eb,Ib", .sub = group1_82,
		   .attr = MRM | RA_GROUP | RA_NO64 },
	[0x83] = GRP("group 1 Ev,Ib", group1_v),
	[0x84] = R("test Eb,Gb", test_eg, SZ_B, IM_NONE, MRM),
	[0x85] = R("test Ev,Gv", test_eg, SZ_V, IM_NONE, MRM),
	[0x86] = R("xchg Eb,Gb", xchg, SZ_B, IM_NONE, MRM),
	[0x87] = R("xchg Ev,Gv", xchg, SZ_V, IM_NONE, MRM),
	[0x88] = R("mov Eb,Gb", mov_eg, SZ_B, IM_NONE, MRM),
	[0x89] = R("mov Ev,Gv", mov_eg, SZ_V, IM_NONE, MRM),
	[0x8a] = R("mov Gb,Eb", mov_ge, SZ_B, IM_NONE, MRM | RA_SWAP),
	[0x8b] = R("mov Gv,Ev", mov_ge, SZ_V, IM_NONE, MRM | RA_SWAP),
	[0x8c] = R("mov Ev,Sw", mov_from_seg, SZ_V, IM_NONE, MRM),
	[0x8d] = R("lea Gv,M", lea, SZ_V, IM_NONE, MRM),
	[0x8e] = R("mov Sw,Ew", mov_to_seg, SZ_W, IM_NONE, MRM | RA_END),
	[0x8f] = GRP("group 1A", group1a),
	EIGHT(0x90, R("xchg Zv,eAX", xchg_acc, SZ_V, IM_NONE, RA_OPREG)),
	[0x98] = R("cbw", cbw, SZ_V, IM_NONE, 0),
	[0x99] = R("cwd", cwd, SZ_V, IM_NONE, 0),
	[0x9a] = R("call Ap", callf, SZ_Z, IM_FAR, RA_NO64 | RA_END),
	[0x9b] = R("fwait", x87, SZ_Y, IM_NONE, 0),
	[0x9c] = R("pushf", pushf, SZ_S, IM_NONE, RA_STACK),
	[0x9d] = R("popf", popf, SZ_S, IM_NONE, RA_STACK),
	[0x9e] = R("sahf", sahf, SZ_B, IM_NONE, 0),
	[0x9f] = R("lahf", lahf, SZ_B, IM_NONE, 0),
	[0xa0] = R("mov AL,Ob", mov_acc_m, SZ_B, IM_O, 0),
	[0xa1] = R("mov rAX,Ov", mov_acc_m, SZ_V, IM_O, 0),
	[0xa2] = R("mov Ob,AL", mov_m_acc, SZ_B, IM_O, 0),
	[0xa3] = R("mov Ov,rAX", mov_m_acc, SZ_V, IM_O, 0),
	[0xa4] = R("movs Yb,Xb", movs, SZ_B, IM_NONE, 0),
	[0xa5] = R("movs Yv,Xv", movs, SZ_V, IM_NONE, 0),
	[0xa6] = R("cmps Xb,Yb", cmps, SZ_B, IM_NONE, 0),
	[0xa7] = R("cmps Xv,Yv", cmps, SZ_V, IM_NONE, 0),
	[0xa8] = R("test AL,Ib", test_ei, SZ_B, IM_B, RA_ACC),
	[0xa9] = R("test eAX,Iz", test_ei, SZ_V, IM_Z, RA_ACC),
	[0xaa] = R("stos Yb,AL", stos, SZ_B, IM_NONE, 0),
	[0xab] = R("stos Yv,eAX", stos, SZ_V, IM_NONE, 0),
	[0xac] = R("lods AL,Xb", lods, SZ_B, IM_NONE, 0),
	[0xad] = R("lods eAX,Xv", lods, SZ_V, IM_NONE, 0),
	[0xae] = R("scas AL,Yb", scas, SZ_B, IM_NONE, 0),
	[0xaf] = R("scas eAX,Yv", scas, SZ_V, IM_NONE, 0),
	EIGHT(0xb0, R("mov Zb,Ib", mov_ei, SZ_B, IM_B, RA_OPREG)),
	EIGHT(0xb8, R("mov Zv,Iv", mov_ei, SZ_V, IM_V, RA_OPREG)),
	[0xc0] = GRP("group 2 Eb,Ib", group2_bi),
	[0xc1] = GRP("group 2 Ev,Ib", group2_vi),
	[0xc2] = R("ret Iw", ret_i, SZ_N, IM_W, RA_END | RA_STACK),
	[0xc3] = R("ret", ret, SZ_N, IM_NONE, RA_END | RA_STACK),
	LSEG(0xc4, "les Gz,Mp", X86_ES, RA_NO64),
	LSEG(0xc5, "lds Gz,Mp", X86_DS, RA_NO64),
	[0xc6] = GRP("group 11 Eb,Ib", group11_b),
	[0xc7] = GRP("group 11 Ev,Iz", group11_v),
	[0xc8] = R("enter Iw,Ib", enter, SZ_S, IM_ENTER, RA_STACK),
	[0xc9] = R("leave", leave, SZ_S, IM_NONE, RA_STACK),
	[0xca] = R("retf Iw", retf, SZ_V, IM_W, RA_END | RA_STACK),
	[0xcb] = R("retf", retf, SZ_V, IM_NONE, RA_END | RA_STACK),
	[0xcc] = R("int3", int3, SZ_B, IM_NONE, RA_END),
	[0xcd] = R("int Ib", intn, SZ_B, IM_UB, RA_END),
	[0xce] = R("into", into, SZ_B, IM_NONE, RA_NO64),
	[0xcf] = R("iret", iret, SZ_V, IM_NONE, RA_END | RA_STACK),
	[0xd0] = GRP("group 2 Eb,1", group2_b1),
	[0xd1] = GRP("group 2 Ev,1", group2_v1),
	[0xd2] = GRP("group 2 Eb,CL", group2_bc),
	[0xd3] = GRP("group 2 Ev,CL", group2_vc),
	[0xd4] = R("aam Ib", aam, SZ_B, IM_UB, RA_NO64),
	[0xd5] = R("aad Ib", aad, SZ_B, IM_UB, RA_NO64),
	[0xd6] = R("salc", salc, SZ_B, IM_NONE, RA_NO64),
	[0xd7] = R("xlat", xlat, SZ_B, IM_NONE, 0),
	EIGHT(0xd8, X87),
	[0xe0] = R("loopne Jb", loopne, SZ_N, IM_B, RA_END),
	[0xe1] = R("loope Jb", loope, SZ_N, IM_B, RA_END),
	[0xe2] = R("loop Jb", loop, SZ_N, IM_B, RA_END),
	[0xe3] = R("jcxz Jb", jcxz, SZ_N, IM_B, RA_END),
	[0xe4] = R("in AL,Ib", in_i, SZ_B, IM_UB, RA_END),
	[0xe5] = R("in eAX,Ib", in_i, SZ_Z, IM_UB, RA_END),
	[0xe6] = R("out Ib,AL", out_i, SZ_B, IM_UB, RA_END),
	[0xe7] = R("out Ib,eAX", out_i, SZ_Z, IM_UB, RA_END),
	[0xe8] = R("call Jz", call, SZ_N, IM_Z, RA_END | RA_REL | RA_STACK),
	[0xe9] = R("jmp Jz", jmp, SZ_N, IM_Z, RA_END | RA_REL),
	[0xea] = R("jmp Ap", jmpf, SZ_Z, IM_FAR, RA_NO64 | RA_END),
	[0xeb] = R("jmp Jb", jmp, SZ_N, IM_B, RA_END | RA_REL),
	[0xec] = R("in AL,DX", in_d, SZ_B, IM_NONE, RA_END),
	[0xed] = R("in eAX,DX", in_d, SZ_Z, IM_NONE, RA_END),
	[0xee] = R("out DX,AL", out_d, SZ_B, IM_NONE, RA_END),
	[0xef] = R("out DX,eAX", out_d, SZ_Z, IM_NONE, RA_END),
	[0xf1] = R("int1", icebp, SZ_B, IM_NONE, RA_END),
	[0xf4] = R("hlt", hlt, SZ_B, IM_NONE, RA_END),
	[0xf5] = R("cmc", cmc, SZ_B, IM_NONE, 0),
	[0xf6] = GRP("group 3 Eb", group3_b),
	[0xf7] = GRP("group 3 Ev", group3_v),
	[0xf8] = R("clc", clc, SZ_B, IM_NONE, 0),
	[0xf9] = R("stc", stc, SZ_B, IM_NONE, 0),
	[0xfa] = R("cli", cli, SZ_B, IM_NONE, 0),
	[0xfb] = R("sti", sti, SZ_B, IM_NONE, 0),
	[0xfc] = R("cld", cld, SZ_B, IM_NONE, 0),
	[0xfd] = R("std", std, SZ_B, IM_NONE, 0),
	[0xfe] = GRP("group 4", group4),
	[0xff] = GRP("group 5", group5),
},

[1] = { /* 0F */
	[0x00] = R("group 6", grp6, SZ_V, IM_NONE, MRM | RA_END),
	[0x01] = R("group 7", grp7, SZ_V, IM_NONE, MRM | RA_END),
	[0x02] = R("lar Gv,Ew", lar, SZ_V, IM_NONE, MRM),
	[0x03] = R("lsl Gv,Ew", lsl, SZ_V, IM_NONE, MRM),
	[0x05] = R("syscall", syscall, SZ_Y, IM_NONE, RA_END),
	[0x06] = R("clts", clts, SZ_Y, IM_NONE, RA_END),
	[0x07] = R("sysret", sysret, SZ_Y, IM_NONE, RA_END),
	[0x08] = R("invd", invd, SZ_Y, IM_NONE, RA_END),
	[0x09] = R("wbinvd", wbinvd, SZ_Y, IM_NONE, RA_END),
	[0x0b] = R("ud2", ud, SZ_Y, IM_NONE, 0),
	[0x0d] = R("prefetchw M", nop, SZ_V, IM_NONE, MRM),
	EIGHT(0x10, SSE),
	EIGHT(0x18, NOP_E),
	[0x20] = R("mov Ry,Cy", mov_from_cr, SZ_N, IM_NONE, MRM | RA_REG),
	[0x21] = R("mov Ry,Dy", mov_from_dr, SZ_N, IM_NONE, MRM | RA_REG),
	[0x22] = R("mov Cy,Ry", mov_to_cr, SZ_N, IM_NONE, MRM | RA_REG | RA_END),
	[0x23] = R("mov Dy,Ry", mov_to_dr, SZ_N, IM_NONE, MRM | RA_REG | RA_END),
	EIGHT(0x28, SSE),
	[0x30] = R("wrmsr", wrmsr, SZ_Y, IM_NONE, RA_END),
	[0x31] = R("rdtsc", rdtsc, SZ_Y, IM_NONE, 0),
	[0x32] = R("rdmsr", rdmsr, SZ_Y, IM_NONE, RA_END),
	[0x33] = R("rdpmc", rdpmc, SZ_Y, IM_NONE, 0),
	[0x34] = R("sysenter", sysenter, SZ_Y, IM_NONE, RA_END),
	[0x35] = R("sysexit", sysexit, SZ_Y, IM_NONE, RA_END),
	ALLCC(CMOV, 0x40, 0, 0),
	EIGHT(0x50, SSE),
	EIGHT(0x58, SSE),
	EIGHT(0x60, SSE),
	EIGHT(0x68, SSE),
	[0x70] = SSE_IB, [0x71] = SSE_IB, [0x72] = SSE_IB, [0x73] = SSE_IB,
	[0x74] = SSE, [0x75] = SSE, [0x76] = SSE,
	[0x77] = R("emms", sse, SZ_Y, IM_NONE, 0),
	EIGHT(0x78, SSE),
	ALLCC(JCC, 0x80, IM_Z, 0),
	ALLCC(SETCC, 0x90, 0, 0),
	PUSH_SEG(0xa0, "push fs", X86_FS, 0),
	POP_SEG(0xa1, "pop fs", X86_FS, 0),
	[0xa2] = R("cpuid", cpuid, SZ_Y, IM_NONE, RA_END),
	[0xa3] = R("bt Ev,Gv", bt, SZ_V, IM_NONE, MRM),
	[0xa4] = R("shld Ev,Gv,Ib", shld_i, SZ_V, IM_UB, MRM),
	[0xa5] = R("shld Ev,Gv,CL", shld_c, SZ_V, IM_NONE, MRM),
	PUSH_SEG(0xa8, "push gs", X86_GS, 0),
	POP_SEG(0xa9, "pop gs", X86_GS, 0),
	[0xab] = R("bts Ev,Gv", bts, SZ_V, IM_NONE, MRM),
	[0xac] = R("shrd Ev,Gv,Ib", shrd_i, SZ_V, IM_UB, MRM),
	[0xad] = R("shrd Ev,Gv,CL", shrd_c, SZ_V, IM_NONE, MRM),
	/* AE: by prefix, mod and reg, in the decoder. */
	[0xae] = R("group 15", sse, SZ_Y, IM_NONE, MRM),
	[0xaf] = R("imul Gv,Ev", imul, SZ_V, IM_NONE, MRM),
	[0xb0] = R("cmpxchg Eb,Gb", cmpxchg, SZ_B, IM_NONE, MRM),
	[0xb1] = R("cmpxchg Ev,Gv", cmpxchg, SZ_V, IM_NONE, MRM),
	LSEG(0xb2, "lss Gv,Mp", X86_SS, 0),
	[0xb3] = R("btr Ev,Gv", btr, SZ_V, IM_NONE, MRM),
	LSEG(0xb4, "lfs Gv,Mp", X86_FS, 0),
	LSEG(0xb5, "lgs Gv,Mp", X86_GS, 0),
	[0xb6] = R("movzx Gv,Eb", movzx8, SZ_V, IM_NONE, MRM | RA_RM8),
	[0xb7] = R("movzx Gv,Ew", movzx16, SZ_V, IM_NONE, MRM),
	[0xb8] = { .name = "popcnt", .sub = popcnt, .attr = MRM | RA_PFX },
	[0xb9] = R("ud1", ud, SZ_V, IM_NONE, MRM),
	[0xba] = GRP("group 8 Ev,Ib", group8),
	[0xbb] = R("btc Ev,Gv", btc, SZ_V, IM_NONE, MRM),
	[0xbc] = R("bsf Gv,Ev", bsf, SZ_V, IM_NONE, MRM),
	[0xbd] = R("bsr Gv,Ev", bsr, SZ_V, IM_NONE, MRM),
	[0xbe] = R("movsx Gv,Eb", movsx8, SZ_V, IM_NONE, MRM | RA_RM8),
	[0xbf] = R("movsx Gv,Ew", movsx16, SZ_V, IM_NONE, MRM),
	[0xc0] = R("xadd Eb,Gb", xadd, SZ_B, IM_NONE, MRM),
	[0xc1] = R("xadd Ev,Gv", xadd, SZ_V, IM_NONE, MRM),
	[0xc2] = SSE_IB,
	[0xc3] = { .name = "movnti", .sub = movnti, .attr = MRM | RA_PFX },
	[0xc4] = SSE_IB, [0xc5] = SSE_IB, [0xc6] = SSE_IB,
	[0xc7] = GRP("group 9", group9),
	EIGHT(0xc8, R("bswap Zv", bswap, SZ_V, IM_NONE, RA_OPREG)),
	EIGHT(0xd0, SSE), EIGHT(0xd8, SSE),
	EIGHT(0xe0, SSE), EIGHT(0xe8, SSE),
	EIGHT(0xf0, SSE),
	[0xf8] = SSE, [0xf9] = SSE, [0xfa] = SSE, [0xfb] = SSE, [0xfc] = SSE,
	[0xfd] = SSE, [0xfe] = SSE,
	[0xff] = R("ud0", ud, SZ_V, IM_NONE, MRM),
},

[2] = { /* 0F 38 */
	EIGHT(0x00, SSE), EIGHT(0x08, SSE), EIGHT(0x10, SSE), EIGHT(0x18, SSE),
	EIGHT(0x20, SSE), EIGHT(0x28, SSE), EIGHT(0x30, SSE), EIGHT(0x38, SSE),
	EIGHT(0x40, SSE),
	[0x82] = { .name = "invpcid", .sub = invpcid, .attr = MRM | RA_PFX },
	EIGHT(0xd8, SSE),
	[0xf0] = { .name = "crc32", .sub = crc32_b, .attr = MRM | RA_PFX },
	[0xf1] = { .name = "crc32", .sub = crc32_v, .attr = MRM | RA_PFX },
},

[3] = { /* 0F 3A */
	EIGHT(0x08, SSE_IB), EIGHT(0x10, SSE_IB), EIGHT(0x20, SSE_IB),
	EIGHT(0x40, SSE_IB), EIGHT(0x60, SSE_IB), EIGHT(0xd8, SSE_IB),
},
};
