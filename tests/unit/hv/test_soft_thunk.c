/*
 * Native thunks against the same instruction as the assembler writes it: the
 * opcode table names the right instruction, operands and results travel, MXCSR
 * goes in and out, memory and register forms agree.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/util.h"
#include "hv/soft/fx.h"
#include "hv/soft/thunk.h"

typedef struct {
	uint8_t b[16];
} __attribute__((aligned(16))) v16;

static uint64_t seed = 0x9e3779b97f4a7c15;

static uint64_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

/* Values where floating point is special: as float and as double. */
static const uint32_t special_f[] = {
	0,	    0x80000000, 1,	    0x807fffff, 0x00800000, 0x3f800000,
	0xbf800000, 0x7f7fffff, 0x7f800000, 0xff800000, 0x7fc00001, 0x7f800001,
	0x4f000000, 0x4effffff, 0x5f000000, 0x3f000000, 0x3fc00000, 0x00000100,
};
static const uint64_t special_d[] = {
	0,
	1ull << 63,
	1,
	0x800fffffffffffff,
	0x0010000000000000,
	0x3ff0000000000000,
	0xbff8000000000000,
	0x7fefffffffffffff,
	0x7ff0000000000000,
	0xfff0000000000000,
	0x7ff8000000000001,
	0x7ff0000000000001,
	0x41e0000000000000,
	0x43e0000000000000,
	0x3690000000000000,
	0x47efffffe0000000,
	0x47f0000000000000,
};

static void random_operand(v16 *v)
{
	unsigned how = rnd() % 4;

	for (unsigned k = 0; k < 4; k++) {
		uint32_t f = how == 0 ? special_f[rnd() % array_size(special_f)]
				      : (uint32_t)rnd();

		memcpy(v->b + 4 * k, &f, 4);
	}
	for (unsigned k = 0; how == 1 && k < 2; k++)
		memcpy(v->b + 8 * k, &special_d[rnd() % array_size(special_d)],
		       8);
	/* small lengths and indices for shifts and shuffles */
	for (unsigned k = 0; how == 2 && k < 16; k++)
		v->b[k] &= k % 8 ? 0 : 0x3f;
}

/* @d is both operand and result; @s the other operand. */
typedef void native_fn(v16 *d, const v16 *s, uint32_t *mxcsr);

#define NATIVE(id, text)                                               \
	static void id(v16 *d, const v16 *s, uint32_t *mxcsr)          \
	{                                                              \
		uint32_t host;                                         \
		__asm__ volatile("stmxcsr %2\n\tldmxcsr %1\n\t"        \
				 "movdqa (%3), %%xmm5\n\t"             \
				 "movdqa (%4), %%xmm6\n\t" text "\n\t" \
				 "movdqa %%xmm5, (%3)\n\t"             \
				 "stmxcsr %1\n\tldmxcsr %2"            \
				 : "+m"(*d), "+m"(*mxcsr), "=m"(host)  \
				 : "r"(d), "r"(s), "m"(*s)             \
				 : "xmm5", "xmm6", "memory");          \
	}
/* xmm, xmm */
#define X(name, map, pfx, op) NATIVE(n_##name, #name " %%xmm6, %%xmm5")
/* xmm, xmm, imm */
#define I(name, map, pfx, op)                              \
	NATIVE(i0_##name, #name " $0, %%xmm6, %%xmm5")     \
	NATIVE(i5_##name, #name " $5, %%xmm6, %%xmm5")     \
	NATIVE(i27_##name, #name " $0x1b, %%xmm6, %%xmm5") \
	NATIVE(i255_##name, #name " $0xff, %%xmm6, %%xmm5")

/* clang-format off */
#define OPS(X) \
	X(unpcklps, 0F, NONE, 0x14) X(unpcklpd, 0F, 66, 0x14) \
	X(unpckhps, 0F, NONE, 0x15) X(unpckhpd, 0F, 66, 0x15) \
	X(movsldup, 0F, F3, 0x12) X(movshdup, 0F, F3, 0x16) \
	X(movaps, 0F, NONE, 0x28) X(movdqa, 0F, 66, 0x6f) \
	X(sqrtps, 0F, NONE, 0x51) X(sqrtpd, 0F, 66, 0x51) \
	X(sqrtss, 0F, F3, 0x51) X(sqrtsd, 0F, F2, 0x51) \
	X(rsqrtps, 0F, NONE, 0x52) X(rsqrtss, 0F, F3, 0x52) \
	X(rcpps, 0F, NONE, 0x53) X(rcpss, 0F, F3, 0x53) \
	X(andps, 0F, NONE, 0x54) X(andnpd, 0F, 66, 0x55) \
	X(orps, 0F, NONE, 0x56) X(xorpd, 0F, 66, 0x57) \
	X(addps, 0F, NONE, 0x58) X(addpd, 0F, 66, 0x58) \
	X(addss, 0F, F3, 0x58) X(addsd, 0F, F2, 0x58) \
	X(mulps, 0F, NONE, 0x59) X(mulpd, 0F, 66, 0x59) \
	X(mulss, 0F, F3, 0x59) X(mulsd, 0F, F2, 0x59) \
	X(cvtps2pd, 0F, NONE, 0x5a) X(cvtpd2ps, 0F, 66, 0x5a) \
	X(cvtss2sd, 0F, F3, 0x5a) X(cvtsd2ss, 0F, F2, 0x5a) \
	X(cvtdq2ps, 0F, NONE, 0x5b) X(cvtps2dq, 0F, 66, 0x5b) \
	X(cvttps2dq, 0F, F3, 0x5b) \
	X(subps, 0F, NONE, 0x5c) X(subpd, 0F, 66, 0x5c) \
	X(subss, 0F, F3, 0x5c) X(subsd, 0F, F2, 0x5c) \
	X(minps, 0F, NONE, 0x5d) X(minsd, 0F, F2, 0x5d) \
	X(divps, 0F, NONE, 0x5e) X(divpd, 0F, 66, 0x5e) \
	X(divss, 0F, F3, 0x5e) X(divsd, 0F, F2, 0x5e) \
	X(maxpd, 0F, 66, 0x5f) X(maxss, 0F, F3, 0x5f) \
	X(punpcklbw, 0F, 66, 0x60) X(punpcklwd, 0F, 66, 0x61) \
	X(punpckldq, 0F, 66, 0x62) X(packsswb, 0F, 66, 0x63) \
	X(pcmpgtb, 0F, 66, 0x64) X(pcmpgtw, 0F, 66, 0x65) \
	X(pcmpgtd, 0F, 66, 0x66) X(packuswb, 0F, 66, 0x67) \
	X(punpckhbw, 0F, 66, 0x68) X(punpckhwd, 0F, 66, 0x69) \
	X(punpckhdq, 0F, 66, 0x6a) X(packssdw, 0F, 66, 0x6b) \
	X(punpcklqdq, 0F, 66, 0x6c) X(punpckhqdq, 0F, 66, 0x6d) \
	X(pcmpeqb, 0F, 66, 0x74) X(pcmpeqw, 0F, 66, 0x75) \
	X(pcmpeqd, 0F, 66, 0x76) X(haddpd, 0F, 66, 0x7c) \
	X(haddps, 0F, F2, 0x7c) X(hsubpd, 0F, 66, 0x7d) \
	X(hsubps, 0F, F2, 0x7d) X(addsubpd, 0F, 66, 0xd0) \
	X(addsubps, 0F, F2, 0xd0) \
	X(psrlw, 0F, 66, 0xd1) X(psrld, 0F, 66, 0xd2) X(psrlq, 0F, 66, 0xd3) \
	X(paddq, 0F, 66, 0xd4) X(pmullw, 0F, 66, 0xd5) \
	X(psubusb, 0F, 66, 0xd8) X(psubusw, 0F, 66, 0xd9) \
	X(pminub, 0F, 66, 0xda) X(pand, 0F, 66, 0xdb) \
	X(paddusb, 0F, 66, 0xdc) X(paddusw, 0F, 66, 0xdd) \
	X(pmaxub, 0F, 66, 0xde) X(pandn, 0F, 66, 0xdf) \
	X(pavgb, 0F, 66, 0xe0) X(psraw, 0F, 66, 0xe1) X(psrad, 0F, 66, 0xe2) \
	X(pavgw, 0F, 66, 0xe3) X(pmulhuw, 0F, 66, 0xe4) \
	X(pmulhw, 0F, 66, 0xe5) X(cvttpd2dq, 0F, 66, 0xe6) \
	X(cvtdq2pd, 0F, F3, 0xe6) X(cvtpd2dq, 0F, F2, 0xe6) \
	X(psubsb, 0F, 66, 0xe8) X(psubsw, 0F, 66, 0xe9) \
	X(pminsw, 0F, 66, 0xea) X(por, 0F, 66, 0xeb) \
	X(paddsb, 0F, 66, 0xec) X(paddsw, 0F, 66, 0xed) \
	X(pmaxsw, 0F, 66, 0xee) X(pxor, 0F, 66, 0xef) \
	X(psllw, 0F, 66, 0xf1) X(pslld, 0F, 66, 0xf2) X(psllq, 0F, 66, 0xf3) \
	X(pmuludq, 0F, 66, 0xf4) X(pmaddwd, 0F, 66, 0xf5) \
	X(psadbw, 0F, 66, 0xf6) X(psubb, 0F, 66, 0xf8) \
	X(psubw, 0F, 66, 0xf9) X(psubd, 0F, 66, 0xfa) \
	X(psubq, 0F, 66, 0xfb) X(paddb, 0F, 66, 0xfc) \
	X(paddw, 0F, 66, 0xfd) X(paddd, 0F, 66, 0xfe) \
	X(pshufb, 0F38, 66, 0x00) X(phaddw, 0F38, 66, 0x01) \
	X(phaddd, 0F38, 66, 0x02) X(phaddsw, 0F38, 66, 0x03) \
	X(pmaddubsw, 0F38, 66, 0x04) X(phsubw, 0F38, 66, 0x05) \
	X(phsubd, 0F38, 66, 0x06) X(phsubsw, 0F38, 66, 0x07) \
	X(psignb, 0F38, 66, 0x08) X(psignw, 0F38, 66, 0x09) \
	X(psignd, 0F38, 66, 0x0a) X(pmulhrsw, 0F38, 66, 0x0b) \
	X(pabsb, 0F38, 66, 0x1c) X(pabsw, 0F38, 66, 0x1d) \
	X(pabsd, 0F38, 66, 0x1e) \
	X(pmovsxbw, 0F38, 66, 0x20) X(pmovsxbd, 0F38, 66, 0x21) \
	X(pmovsxbq, 0F38, 66, 0x22) X(pmovsxwd, 0F38, 66, 0x23) \
	X(pmovsxwq, 0F38, 66, 0x24) X(pmovsxdq, 0F38, 66, 0x25) \
	X(pmuldq, 0F38, 66, 0x28) X(pcmpeqq, 0F38, 66, 0x29) \
	X(packusdw, 0F38, 66, 0x2b) \
	X(pmovzxbw, 0F38, 66, 0x30) X(pmovzxbd, 0F38, 66, 0x31) \
	X(pmovzxbq, 0F38, 66, 0x32) X(pmovzxwd, 0F38, 66, 0x33) \
	X(pmovzxwq, 0F38, 66, 0x34) X(pmovzxdq, 0F38, 66, 0x35) \
	X(pcmpgtq, 0F38, 66, 0x37) X(pminsb, 0F38, 66, 0x38) \
	X(pminsd, 0F38, 66, 0x39) X(pminuw, 0F38, 66, 0x3a) \
	X(pminud, 0F38, 66, 0x3b) X(pmaxsb, 0F38, 66, 0x3c) \
	X(pmaxsd, 0F38, 66, 0x3d) X(pmaxuw, 0F38, 66, 0x3e) \
	X(pmaxud, 0F38, 66, 0x3f) X(pmulld, 0F38, 66, 0x40) \
	X(phminposuw, 0F38, 66, 0x41)
/* Register and memory forms differ on purpose. */
#define REG_OPS(X) \
	X(movss, 0F, F3, 0x10) X(movsd, 0F, F2, 0x10) \
	X(movhlps, 0F, NONE, 0x12) X(movlhps, 0F, NONE, 0x16) \
	X(movq, 0F, F3, 0x7e) X(movddup, 0F, F2, 0x12)
#define CRYPTO_OPS(X) \
	X(aesimc, 0F38, 66, 0xdb) X(aesenc, 0F38, 66, 0xdc) \
	X(aesenclast, 0F38, 66, 0xdd) X(aesdec, 0F38, 66, 0xde) \
	X(aesdeclast, 0F38, 66, 0xdf)
#define IMM_OPS(I) \
	I(pshufd, 0F, 66, 0x70) I(pshufhw, 0F, F3, 0x70) \
	I(pshuflw, 0F, F2, 0x70) I(shufps, 0F, NONE, 0xc6) \
	I(shufpd, 0F, 66, 0xc6) I(roundps, 0F3A, 66, 0x08) \
	I(roundpd, 0F3A, 66, 0x09) I(roundss, 0F3A, 66, 0x0a) \
	I(roundsd, 0F3A, 66, 0x0b) I(blendps, 0F3A, 66, 0x0c) \
	I(blendpd, 0F3A, 66, 0x0d) I(pblendw, 0F3A, 66, 0x0e) \
	I(palignr, 0F3A, 66, 0x0f) I(insertps, 0F3A, 66, 0x21) \
	I(dpps, 0F3A, 66, 0x40) I(dppd, 0F3A, 66, 0x41) \
	I(mpsadbw, 0F3A, 66, 0x42)
#define CMP_OPS(I) \
	I(cmpps, 0F, NONE, 0xc2) I(cmppd, 0F, 66, 0xc2) \
	I(cmpss, 0F, F3, 0xc2) I(cmpsd, 0F, F2, 0xc2)
/* clang-format on */

OPS(X)
REG_OPS(X)
CRYPTO_OPS(X)
IMM_OPS(I)
#undef I
#define I(name, map, pfx, op)                          \
	NATIVE(i0_##name, #name " $0, %%xmm6, %%xmm5") \
	NATIVE(i5_##name, #name " $5, %%xmm6, %%xmm5")
CMP_OPS(I)

struct row {
	const char *name;
	uint8_t map, pfx, opcode, imm;
	native_fn *fn;
};
#define ROW(name, map, pfx, op) \
	{ #name, SSE_MAP_##map, SSE_PFX_##pfx, op, 0, n_##name },
#define ROW_IMM(name, map, pfx, op)                                          \
	{ #name, SSE_MAP_##map, SSE_PFX_##pfx, op, 0, i0_##name },           \
		{ #name, SSE_MAP_##map, SSE_PFX_##pfx, op, 5, i5_##name },   \
		{ #name, SSE_MAP_##map, SSE_PFX_##pfx, op, 27, i27_##name }, \
		{ #name, SSE_MAP_##map, SSE_PFX_##pfx, op, 255, i255_##name },
#define ROW_CMP(name, map, pfx, op)                                \
	{ #name, SSE_MAP_##map, SSE_PFX_##pfx, op, 0, i0_##name }, \
		{ #name, SSE_MAP_##map, SSE_PFX_##pfx, op, 5, i5_##name },

static const struct row both[] = { OPS(ROW) IMM_OPS(ROW_IMM) CMP_OPS(ROW_CMP) };
static const struct row reg_only[] = { REG_OPS(ROW) };
static const struct row crypto[] = { CRYPTO_OPS(ROW) };

static struct thunk_pool *pool;

static int setup(void **state)
{
	(void)state;
	return thunk_pool_create(&pool, NULL);
}

static int teardown(void **state)
{
	(void)state;
	thunk_pool_destroy(pool);
	return 0;
}

static void check_row(const struct row *r, bool mem)
{
	struct sse_code c = { .map = r->map,
			      .pfx = r->pfx,
			      .opcode = r->opcode,
			      .imm = r->imm,
			      .mem = mem };
	thunk_fn *fn = thunk_sse(pool, &c);
	thunk_lean_fn *lean = thunk_sse_lean(pool, &c);

	assert_non_null(fn);
	assert_true(fn == thunk_sse(pool, &c));
	for (unsigned n = 0; n < 400; n++) {
		/* every rounding mode, FZ and DAZ; all masked, random flags */
		uint32_t mxcsr = 0x1f80 | (rnd() & 0xe07f), want = mxcsr, host;
		v16 d, s, nat, before;
		struct thunk_args a = { .reg = &d, .rm = &s, .mxcsr = mxcsr };

		random_operand(&d);
		random_operand(&s);
		nat = before = d;
		r->fn(&nat, &s, &want);
		fn(&a);
		if (lean) { /* the same with MXCSR in place */
			v16 l = before;

			__asm__ volatile("stmxcsr %0" : "=m"(host));
			__asm__ volatile("ldmxcsr %0" : : "m"(mxcsr));
			lean(&l, &s);
			__asm__ volatile("stmxcsr %0" : "=m"(mxcsr));
			__asm__ volatile("ldmxcsr %0" : : "m"(host));
			assert_memory_equal(&l, &nat, 16);
			assert_int_equal(mxcsr, want);
		}
		if (memcmp(&d, &nat, 16) ||
		    (sse_ops[r->map][r->pfx][r->opcode].flags & SSE_FP &&
		     a.mxcsr != want))
			fail_msg("%s imm %u mem %d differs", r->name, r->imm,
				 mem);
		__asm__ volatile("stmxcsr %0" : "=m"(host));
		assert_int_equal(host & 0xffc0, 0x1f80);
	}
}

static void vector_ops(void **state)
{
	(void)state;
	for (unsigned k = 0; k < array_size(both); k++) {
		check_row(&both[k], false);
		/* INSERTPS, and loads, mean something else with memory */
		if (strcmp(both[k].name, "insertps"))
			check_row(&both[k], true);
	}
	for (unsigned k = 0; k < array_size(reg_only); k++)
		check_row(&reg_only[k], false);
}

static void crypto_ops(void **state)
{
	(void)state;
	if (!thunk_has(pool, SSE_F_AES)) {
		print_message("SKIP: crypto_ops: the host has no AES\n");
		skip();
	}
	for (unsigned k = 0; k < array_size(crypto); k++) {
		check_row(&crypto[k], false);
		check_row(&crypto[k], true);
	}
}

/* GPR operands and REX.W. */
static void gpr_ops(void **state)
{
	struct sse_code c = {
		.map = SSE_MAP_0F, .pfx = SSE_PFX_F2, .opcode = 0x2a, .w = true
	};
	v16 d = { { 0 } };
	double f;
	struct thunk_args a = { .reg = &d, .mxcsr = 0x1f80 };

	(void)state;
	a.rcx = (uint64_t)-5; /* CVTSI2SD xmm, r64 */
	thunk_sse(pool, &c)(&a);
	memcpy(&f, &d, 8);
	assert_true(f == -5.0);
	c.w = false; /* r32 */
	a.rcx = 0xfffffffe;
	thunk_sse(pool, &c)(&a);
	memcpy(&f, &d, 8);
	assert_true(f == -2.0);
	c.opcode = 0x2c; /* CVTTSD2SI r64, xmm */
	c.w = true;
	f = 123456789012.75;
	memcpy(&d, &f, 8);
	a.rm = &d;
	thunk_sse(pool, &c)(&a);
	assert_int_equal(a.rax, 123456789012);
	c = (struct sse_code){ .map = SSE_MAP_0F3A,
			       .pfx = SSE_PFX_66,
			       .opcode = 0x16,
			       .w = true,
			       .imm = 1 };
	a.reg = &d; /* PEXTRQ r64, xmm, 1 */
	memset(d.b + 8, 0xa5, 8);
	thunk_sse(pool, &c)(&a);
	assert_true(a.rcx == 0xa5a5a5a5a5a5a5a5);
	c = (struct sse_code){ .map = SSE_MAP_0F,
			       .pfx = SSE_PFX_66,
			       .opcode = 0xd7 }; /* PMOVMSKB */
	a.rm = &d;
	memset(d.b, 0x7f, 8);
	thunk_sse(pool, &c)(&a);
	assert_int_equal(a.rax, 0xff00);
}

static void flag_ops(void **state)
{
	struct sse_code c = { .map = SSE_MAP_0F, .opcode = 0x2e };
	float x = 1, y = 2;
	v16 d = { { 0 } }, s = { { 0 } };
	struct thunk_args a = { .reg = &d, .rm = &s, .mxcsr = 0x1f80 };

	(void)state;
	memcpy(&d, &x, 4);
	memcpy(&s, &y, 4);
	thunk_sse(pool, &c)(&a); /* UCOMISS 1, 2: below */
	assert_int_equal(a.flags & 0x45, 0x01);
	thunk_sse(pool, &c)(
		&(struct thunk_args){ .reg = &s, .rm = &d, .mxcsr = 0x1f80 });
	a.rm = &d;
	thunk_sse(pool, &c)(&a); /* equal */
	assert_int_equal(a.flags & 0x45, 0x40);
}

static void strings(void **state)
{
	/* PCMPISTRI, equal any, unsigned bytes */
	struct sse_code c = {
		.map = SSE_MAP_0F3A, .pfx = SSE_PFX_66, .opcode = 0x63, .imm = 0
	};
	v16 set = { "xy" }, text = { "abcdyx" };
	struct thunk_args a = { .reg = &set, .rm = &text };

	(void)state;
	thunk_sse(pool, &c)(&a);
	assert_int_equal((uint32_t)a.rcx, 4);
	assert_true(a.flags & 1);
	c.opcode = 0x61; /* PCMPESTRI with lengths */
	a.rax = 2;
	a.rdx = 4;
	thunk_sse(pool, &c)(&a);
	assert_int_equal((uint32_t)a.rcx, 16);
	assert_false(a.flags & 1);
}

/* What is not there has no thunk. */
static void absent(void **state)
{
	struct sse_code c = { .map = SSE_MAP_0F,
			      .pfx = SSE_PFX_F2,
			      .opcode = 0x52 };

	(void)state;
	assert_null(thunk_sse(pool, &c)); /* RSQRTSD */
	c.pfx = SSE_PFX_NONE;
	c.opcode = 0x13;
	assert_null(thunk_sse(pool, &c)); /* MOVLPS reg, reg */
	c.opcode = 0x71;
	c.digit = 3;
	assert_null(thunk_sse(pool, &c));
	c.digit = 2;
	assert_non_null(thunk_sse(pool, &c));
	c.opcode = 0xd7;
	c.mem = true;
	assert_null(thunk_sse(pool, &c)); /* PMOVMSKB r, m */
}

static void run_x87(struct fx_image *fx, uint8_t op, uint8_t modrm, void *mem,
		    uint64_t *flags)
{
	struct thunk_args a = { .reg = fx, .rm = mem };

	if (flags)
		a.flags = *flags;
	thunk_x87(pool, op, modrm)(&a);
	if (flags)
		*flags = a.flags;
}

static void x87(void **state)
{
	struct fx_image fx = { .fcw = 0x37f, .mxcsr = 0x1f80 };
	double two = 2, out = 0;
	long double want, got;
	uint64_t flags = 0;
	uint16_t host_fcw;

	(void)state;
	run_x87(&fx, 0xd9, 0xe8, NULL, NULL); /* FLD1 */
	run_x87(&fx, 0xdd, 0x00, &two, NULL); /* FLD m64 */
	assert_int_equal(fx_top(&fx), 6);
	run_x87(&fx, 0xdb, 0xf1, NULL, &flags); /* FCOMI st1: 2 > 1 */
	assert_int_equal(flags & 0x45, 0);
	run_x87(&fx, 0xde, 0xf9, NULL, NULL); /* FDIVP: 1/2 */
	run_x87(&fx, 0xd9, 0xfa, NULL, NULL); /* FSQRT */
	__asm__("fsqrt" : "=t"(want) : "0"(0.5L));
	memcpy(&got, fx.st[0], 10);
	assert_memory_equal(&got, &want, 10);
	run_x87(&fx, 0xdd, 0x18, &out, NULL); /* FSTP m64 */
	assert_int_equal(fx.ftw, 0);
	assert_true(out > 0.7071 && out < 0.7072);
	/* An unmasked exception stays pending in the image and nowhere else. */
	fx.fcw = 0x37b; /* zero divide */
	run_x87(&fx, 0xd9, 0xe8, NULL, NULL);
	run_x87(&fx, 0xd9, 0xee, NULL, NULL); /* FLDZ */
	run_x87(&fx, 0xde, 0xf9, NULL, NULL); /* FDIVP */
	assert_true(fx.fsw & FSW_ES);
	assert_true(fx.fsw & FSW_ZE);
	__asm__ volatile("fwait; fnstcw %0" : "=m"(host_fcw));
	assert_int_equal(host_fcw, 0x37f);
}

/* All thunks there can be fit (thunk.c counts on it). */
static void capacity(void **state)
{
	unsigned made = 0;

	(void)state;
	for (unsigned row = 0; row < SSE_MAPS * SSE_PFXS * 256; row++) {
		const struct sse_op *op =
			&sse_ops[row / 1024][row / 256 % 4][row % 256];
		unsigned imms = op->flags & SSE_IMM ? 256 : 1;

		for (unsigned k = 0; op->feature && k < imms * 32; k++) {
			struct sse_code c = {
				.map = (uint8_t)(row / 1024),
				.pfx = row / 256 % 4,
				.opcode = (uint8_t)row,
				.mem = k & 1,
				.w = k & 2,
				.digit = k >> 2 & 7,
				.imm = (uint8_t)(k >> 5),
			};

			made += thunk_sse(pool, &c) != NULL;
			thunk_sse_lean(pool, &c);
		}
	}
	for (unsigned k = 0; k < 8 * 256; k++)
		made += thunk_x87(pool, (uint8_t)(0xd8 + k / 256),
				  (uint8_t)k) &&
			thunk_x87_lean(pool, (uint8_t)(0xd8 + k / 256),
				       (uint8_t)k);
	assert_true(made > 10000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(vector_ops, setup, teardown),
		cmocka_unit_test_setup_teardown(crypto_ops, setup, teardown),
		cmocka_unit_test_setup_teardown(gpr_ops, setup, teardown),
		cmocka_unit_test_setup_teardown(flag_ops, setup, teardown),
		cmocka_unit_test_setup_teardown(strings, setup, teardown),
		cmocka_unit_test_setup_teardown(absent, setup, teardown),
		cmocka_unit_test_setup_teardown(x87, setup, teardown),
		cmocka_unit_test_setup_teardown(capacity, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
