/* Integer instructions: arithmetic, logic, shifts, moves, bits. */
#include "hv/soft/ops.h"

#define SOFT_CAT2_(a, b)    a##b
#define SOFT_CAT2(a, b)	    SOFT_CAT2_(a, b)
#define SOFT_CAT3_(a, b, c) a##b##c
#define SOFT_CAT3(a, b, c)  SOFT_CAT3_(a, b, c)
#define SOFT_EACH_CC(x)                                                       \
	x(0) x(1) x(2) x(3) x(4) x(5) x(6) x(7) x(8) x(9) x(a) x(b) x(c) x(d) \
		x(e) x(f)

#define BITS 8
#include "hv/soft/op_sized.inc"
#define BITS 16
#include "hv/soft/op_sized.inc"
#define BITS 32
#include "hv/soft/op_sized.inc"
#define BITS 64
#include "hv/soft/op_sized.inc"

/* ---- operations with sizes of their own ---- */

/* XCHG with the accumulator: 90+r; 90 itself is NOP without REX.B. */
#define XCHG_ACC(bits)                                              \
	SOFT_OP(xchg_acc_##bits)                                    \
	{                                                           \
		uint##bits##_t a = (uint##bits##_t)cpu->gpr[0],     \
			       b = (uint##bits##_t)cpu->gpr[i->rm]; \
                                                                    \
		put_##bits(cpu, 0, b);                              \
		put_##bits(cpu, i->rm, a);                          \
		NEXT;                                               \
	}
XCHG_ACC(16)
XCHG_ACC(32)
XCHG_ACC(64)

SOFT_OP(bswap_16) /* undefined; processors clear the register's low half */
{
	*(soft_u16u *)&cpu->gpr[i->rm] = 0;
	NEXT;
}
SOFT_OP(bswap_32)
{
	cpu->gpr[i->rm] = __builtin_bswap32((uint32_t)cpu->gpr[i->rm]);
	NEXT;
}
SOFT_OP(bswap_64)
{
	cpu->gpr[i->rm] = __builtin_bswap64(cpu->gpr[i->rm]);
	NEXT;
}

/* CBW CWDE CDQE, CWD CDQ CQO: by the operand size. */
SOFT_OP(cbw_16)
{
	put_16(cpu, 0, (uint16_t)(int8_t)cpu->gpr[0]);
	NEXT;
}
SOFT_OP(cbw_32)
{
	put_32(cpu, 0, (uint32_t)(int16_t)cpu->gpr[0]);
	NEXT;
}
SOFT_OP(cbw_64)
{
	cpu->gpr[0] = (uint64_t)(int32_t)cpu->gpr[0];
	NEXT;
}
SOFT_OP(cwd_16)
{
	put_16(cpu, X86_RDX, (uint16_t)((int16_t)cpu->gpr[0] >> 15));
	NEXT;
}
SOFT_OP(cwd_32)
{
	put_32(cpu, X86_RDX, (uint32_t)((int32_t)cpu->gpr[0] >> 31));
	NEXT;
}
SOFT_OP(cwd_64)
{
	cpu->gpr[X86_RDX] = (uint64_t)((int64_t)cpu->gpr[0] >> 63);
	NEXT;
}

/* MOVSXD: 32 bits to the operand size. */
SOFT_OP(movsxd_r16)
{
	put_16(cpu, i->reg, (uint16_t)cpu->gpr[i->rm]);
	NEXT;
}
SOFT_OP(movsxd_m16)
{
	put_16(cpu, i->reg, soft_ld16(cpu, i, soft_ea_fast(cpu, i, 2)));
	NEXT;
}
SOFT_OP(movsxd_r32)
{
	put_32(cpu, i->reg, (uint32_t)cpu->gpr[i->rm]);
	NEXT;
}
SOFT_OP(movsxd_m32)
{
	put_32(cpu, i->reg, soft_ld32(cpu, i, soft_ea_fast(cpu, i, 4)));
	NEXT;
}
SOFT_OP(movsxd_r64)
{
	cpu->gpr[i->reg] = (uint64_t)(int32_t)cpu->gpr[i->rm];
	NEXT;
}
SOFT_OP(movsxd_m64)
{
	cpu->gpr[i->reg] =
		(uint64_t)(int32_t)soft_ld32(cpu, i, soft_ea_fast(cpu, i, 4));
	NEXT;
}

/* SETcc. */
#define SETCC(cc)                                                     \
	SOFT_OP(setcc_r_##cc)                                         \
	{                                                             \
		*soft_reg8(cpu, i->rm) = fl_cond(cpu, 0x##cc);        \
		NEXT;                                                 \
	}                                                             \
	SOFT_OP(setcc_m_##cc)                                         \
	{                                                             \
		soft_st8(cpu, i, soft_ea_fast(cpu, i, 1 | SOFT_EA_W), \
			 fl_cond(cpu, 0x##cc));                       \
		NEXT;                                                 \
	}
SOFT_EACH_CC(SETCC)

/* MOVNTI. */
SOFT_OP(movnti_32)
{
	soft_st32(cpu, i, soft_ea_fast(cpu, i, 4 | SOFT_EA_W),
		  (uint32_t)cpu->gpr[i->reg]);
	NEXT;
}
SOFT_OP(movnti_64)
{
	soft_st64(cpu, i, soft_ea_fast(cpu, i, 8 | SOFT_EA_W),
		  cpu->gpr[i->reg]);
	NEXT;
}

/* CRC32 (Castagnoli, reflected): bitwise where the host has no SSE4.2. */
static uint32_t crc32_bytes(uint32_t crc, uint64_t v, unsigned size)
{
	for (unsigned n = 0; n < size; n++) {
		crc ^= (uint8_t)(v >> 8 * n);
		for (unsigned k = 0; k < 8; k++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
	}
	return crc;
}
#define CRC32(bits, get_r)                                                     \
	SOFT_OP(crc32_r##bits)                                                 \
	{                                                                      \
		cpu->gpr[i->reg] = crc32_bytes((uint32_t)cpu->gpr[i->reg],     \
					       get_r, bits / 8);               \
		NEXT;                                                          \
	}                                                                      \
	SOFT_OP(crc32_m##bits)                                                 \
	{                                                                      \
		uint64_t v =                                                   \
			soft_ld##bits(cpu, i, soft_ea_fast(cpu, i, bits / 8)); \
                                                                               \
		cpu->gpr[i->reg] =                                             \
			crc32_bytes((uint32_t)cpu->gpr[i->reg], v, bits / 8);  \
		NEXT;                                                          \
	}
CRC32(8, *soft_reg8(cpu, i->rm))
CRC32(16, cpu->gpr[i->rm])
CRC32(32, cpu->gpr[i->rm])
CRC32(64, cpu->gpr[i->rm])

/* CMPXCHG8B, CMPXCHG16B. */
static void cmpxchg8b(struct soft_cpu *cpu, struct insn *i)
{
	uint64_t la = soft_ea_fast(cpu, i, 8 | SOFT_EA_W), seen;
	uint64_t want = (uint32_t)cpu->gpr[X86_RAX] | cpu->gpr[X86_RDX] << 32;
	uint64_t put = (uint32_t)cpu->gpr[X86_RBX] | cpu->gpr[X86_RCX] << 32;
	uint64_t *p = soft_wptr_lock(cpu, i, la, 8);

	if (soft_atomic_ok(p, 8)) {
		seen = __sync_val_compare_and_swap(p, want, put);
	} else {
		soft_rmw_begin(cpu, i, la, 8, true);
		seen = soft_rmw_load(cpu);
		soft_rmw_store(cpu, seen == want ? put : seen);
	}
	fl_set_zf(cpu, seen == want);
	if (seen != want) {
		cpu->gpr[X86_RAX] = (uint32_t)seen;
		cpu->gpr[X86_RDX] = seen >> 32;
	}
}

static bool cas16(void *p, uint64_t want[2], const uint64_t put[2])
{
#ifdef __x86_64__
	bool ok;

	__asm__ volatile("lock cmpxchg16b %1\n\tsete %0"
			 : "=q"(ok), "+m"(*(unsigned __int128 *)p),
			   "+a"(want[0]), "+d"(want[1])
			 : "b"(put[0]), "c"(put[1])
			 : "cc", "memory");
	return ok;
#else
	unsigned __int128 w = (unsigned __int128)want[1] << 64 | want[0];
	unsigned __int128 n = (unsigned __int128)put[1] << 64 | put[0];
	bool ok = __atomic_compare_exchange_n((unsigned __int128 *)p, &w, n,
					      false, __ATOMIC_SEQ_CST,
					      __ATOMIC_SEQ_CST);

	want[0] = (uint64_t)w;
	want[1] = (uint64_t)(w >> 64);
	return ok;
#endif
}

static void cmpxchg16b(struct soft_cpu *cpu, struct insn *i)
{
	uint64_t la = soft_ea_fast(cpu, i, 16 | SOFT_EA_W);
	uint64_t want[2] = { cpu->gpr[X86_RAX], cpu->gpr[X86_RDX] };
	uint64_t put[2] = { cpu->gpr[X86_RBX], cpu->gpr[X86_RCX] };
	void *p;
	bool ok;

	if (la & 15) {
		soft_at(cpu, i);
		soft_fault(cpu, X86_GP, 0);
	}
	p = soft_wptr_lock(cpu, i, la, 16);
	if (p) {
		ok = cas16(p, want, put);
	} else {
		uint64_t lo, hi;

		soft_at(cpu, i);
		soft_probe_write(cpu, la, 16, SOFT_DATA);
		soft_rmw_begin(cpu, i, la, 8, true);
		lo = soft_rmw_load(cpu);
		hi = soft_read(cpu, la + 8, 8, SOFT_DATA);
		ok = lo == want[0] && hi == want[1];
		if (ok)
			soft_write(cpu, la + 8, 8, put[1], SOFT_DATA);
		soft_rmw_store(cpu, ok ? put[0] : lo);
		want[0] = lo;
		want[1] = hi;
	}
	fl_set_zf(cpu, ok);
	if (!ok) {
		cpu->gpr[X86_RAX] = want[0];
		cpu->gpr[X86_RDX] = want[1];
	}
}
SOFT_OP(cmpxchg8b_op)
{
	cmpxchg8b(cpu, i);
	NEXT;
}
SOFT_OP(cmpxchg16b_op)
{
	cmpxchg16b(cpu, i);
	NEXT;
}

/* ---- flags and decimal ---- */

SOFT_OP(clc)
{
	fl_set_cf(cpu, false);
	NEXT;
}
SOFT_OP(stc)
{
	fl_set_cf(cpu, true);
	NEXT;
}
SOFT_OP(cmc)
{
	fl_set_cf(cpu, !fl_cf(cpu));
	NEXT;
}
SOFT_OP(cld)
{
	cpu->rflags &= ~(uint64_t)FL_DF;
	NEXT;
}
SOFT_OP(std)
{
	cpu->rflags |= FL_DF;
	NEXT;
}
SOFT_OP(sahf)
{
	uint8_t ah = (uint8_t)(cpu->gpr[0] >> 8);

	fl_put(cpu, (fl_get(cpu) & FL_OF) |
			    (ah & (FL_SF | FL_ZF | FL_AF | FL_PF | FL_CF)));
	NEXT;
}
SOFT_OP(lahf)
{
	*soft_reg8(cpu, 1) = (uint8_t)((fl_get(cpu) & 0xff) | 2);
	NEXT;
}
SOFT_OP(salc)
{
	*soft_reg8(cpu, 0) = fl_cf(cpu) ? 0xff : 0;
	NEXT;
}
SOFT_OP(daa)
{
	uint8_t al = (uint8_t)cpu->gpr[0], old = al;
	bool cf = fl_cf(cpu), af = fl_af(cpu);
	bool low = (al & 15) > 9 || af, high = old > 0x99 || cf;

	if (low)
		al += 6;
	if (high)
		al += 0x60;
	*soft_reg8(cpu, 0) = al;
	logic_8(cpu, al);
	cpu->fl_ap = low ? FL_AF : 0;
	fl_set_co(cpu, high, false);
	NEXT;
}
SOFT_OP(das)
{
	uint8_t al = (uint8_t)cpu->gpr[0], old = al;
	bool cf = fl_cf(cpu), af = fl_af(cpu);
	bool low = (al & 15) > 9 || af, high = old > 0x99 || cf;
	bool borrow = low && old < 6;

	if (low)
		al -= 6;
	if (high)
		al -= 0x60;
	*soft_reg8(cpu, 0) = al;
	logic_8(cpu, al);
	cpu->fl_ap = low ? FL_AF : 0;
	fl_set_co(cpu, high || (borrow && !high), false);
	NEXT;
}
SOFT_OP(aaa)
{
	uint16_t ax = (uint16_t)cpu->gpr[0];
	bool adj = (ax & 15) > 9 || fl_af(cpu);

	if (adj)
		ax += 0x106;
	ax &= 0xff0f;
	put_16(cpu, 0, ax);
	logic_8(cpu, (uint8_t)ax);
	cpu->fl_ap = adj ? FL_AF : 0;
	fl_set_co(cpu, adj, false);
	NEXT;
}
SOFT_OP(aas)
{
	uint16_t ax = (uint16_t)cpu->gpr[0];
	bool adj = (ax & 15) > 9 || fl_af(cpu);

	if (adj)
		ax -= 0x106;
	ax &= 0xff0f;
	put_16(cpu, 0, ax);
	logic_8(cpu, (uint8_t)ax);
	cpu->fl_ap = adj ? FL_AF : 0;
	fl_set_co(cpu, adj, false);
	NEXT;
}
SOFT_OP(aam)
{
	uint8_t al = (uint8_t)cpu->gpr[0], n = (uint8_t)i->imm;

	if (!n) {
		soft_at(cpu, i);
		soft_fault0(cpu, X86_DE);
	}
	put_16(cpu, 0, (uint16_t)(al / n << 8 | al % n));
	logic_8(cpu, al % n);
	NEXT;
}
SOFT_OP(aad)
{
	uint16_t ax = (uint16_t)cpu->gpr[0];
	uint8_t al = (uint8_t)(ax + (ax >> 8) * (uint8_t)i->imm);

	put_16(cpu, 0, al);
	logic_8(cpu, al);
	NEXT;
}

SOFT_OP(nop)
{
	NEXT;
}
/* There is no cache to flush, but it faults as a load does. */
SOFT_OP(clflush)
{
	(void)soft_ld8(cpu, i, soft_ea_fast(cpu, i, 1));
	NEXT;
}
/* LFENCE, SFENCE: stores and loads are in order anyway. MFENCE is not free. */
SOFT_OP(fence)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	NEXT;
}
SOFT_OP(ud)
{
	soft_at(cpu, i);
	soft_fault0(cpu, X86_UD);
}

/* ---- the sets ---- */

#define FOUR(f)                               \
	{                                     \
		f##_8, f##_16, f##_32, f##_64 \
	}
#define THREE(f)                             \
	{                                    \
		NULL, f##_16, f##_32, f##_64 \
	}
#define SET(n, ...) const struct soft_opset soft_set_##n = { __VA_ARGS__ }

#define ALU_SETS(op)                                          \
	SET(op##_eg, .r = FOUR(op##_rr), .m = FOUR(op##_mr),  \
	    .l = FOUR(op##_lr));                              \
	SET(op##_ge, .r = FOUR(op##_rr), .m = FOUR(op##_rm)); \
	SET(op##_ei, .r = FOUR(op##_ri), .m = FOUR(op##_mi), .l = FOUR(op##_li))
ALU_SETS(add);
ALU_SETS(or);
ALU_SETS(adc);
ALU_SETS(sbb);
ALU_SETS(and);
ALU_SETS(sub);
ALU_SETS(xor);
SET(cmp_eg, .r = FOUR(cmp_rr), .m = FOUR(cmp_mr));
SET(cmp_ge, .r = FOUR(cmp_rr), .m = FOUR(cmp_rm));
SET(cmp_ei, .r = FOUR(cmp_ri), .m = FOUR(cmp_mi));
SET(test_eg, .r = FOUR(test_rr), .m = FOUR(test_mr));
SET(test_ei, .r = FOUR(test_ri), .m = FOUR(test_mi));
#define UNARY_SET(op) \
	SET(op, .r = FOUR(op##_r), .m = FOUR(op##_m), .l = FOUR(op##_l))
UNARY_SET(inc);
UNARY_SET(dec);
UNARY_SET(neg);
UNARY_SET(not );
#define SHIFT_SETS(op)                                       \
	SET(op##_i, .r = FOUR(op##_ri), .m = FOUR(op##_mi)); \
	SET(op##_c, .r = FOUR(op##_rc), .m = FOUR(op##_mc))
SHIFT_SETS(rol);
SHIFT_SETS(ror);
SHIFT_SETS(rcl);
SHIFT_SETS(rcr);
SHIFT_SETS(shl);
SHIFT_SETS(shr);
SHIFT_SETS(sar);
SET(mov_eg, .r = FOUR(mov_rr), .m = FOUR(mov_mr));
SET(mov_ge, .r = FOUR(mov_rr), .m = FOUR(mov_rm));
SET(mov_ei, .r = FOUR(mov_ri), .m = FOUR(mov_mi));
SET(mov_acc_m, .m = FOUR(mov_acc_m));
SET(mov_m_acc, .m = FOUR(mov_m_acc));
SET(xchg, .r = FOUR(xchg_rr), .m = FOUR(xchg_mr), .l = FOUR(xchg_mr));
SET(xadd, .r = FOUR(xadd_rr), .m = FOUR(xadd_mr), .l = FOUR(xadd_lr));
SET(cmpxchg, .r = FOUR(cmpxchg_rr), .m = FOUR(cmpxchg_mr),
    .l = FOUR(cmpxchg_lr));
SET(mul, .r = FOUR(mul_r), .m = FOUR(mul_m));
SET(imul1, .r = FOUR(imul1_r), .m = FOUR(imul1_m));
SET(div, .r = FOUR(div_r), .m = FOUR(div_m));
SET(idiv, .r = FOUR(idiv_r), .m = FOUR(idiv_m));
SET(imul, .r = THREE(imul_rr), .m = THREE(imul_rm));
SET(imul_i, .r = THREE(imul_rri), .m = THREE(imul_rmi));
SET(movzx8, .r = THREE(movzx8_r), .m = THREE(movzx8_m));
SET(movzx16, .r = THREE(movzx16_r), .m = THREE(movzx16_m));
SET(movsx8, .r = THREE(movsx8_r), .m = THREE(movsx8_m));
SET(movsx16, .r = THREE(movsx16_r), .m = THREE(movsx16_m));
SET(movsxd, .r = { NULL, movsxd_r16, movsxd_r32, movsxd_r64 },
    .m = { NULL, movsxd_m16, movsxd_m32, movsxd_m64 });
SET(lea, .m = THREE(lea));
SET(bt, .r = THREE(bt_rr), .m = THREE(bt_mr));
SET(bt_i, .r = THREE(bt_ri), .m = THREE(bt_mi));
#define BIT_SETS(op)                                          \
	SET(op, .r = THREE(op##_rr), .m = THREE(op##_mr),     \
	    .l = THREE(op##_lr));                             \
	SET(op##_i, .r = THREE(op##_ri), .m = THREE(op##_mi), \
	    .l = THREE(op##_li))
BIT_SETS(bts);
BIT_SETS(btr);
BIT_SETS(btc);
SET(shld_i, .r = THREE(shld_ri), .m = THREE(shld_mi));
SET(shld_c, .r = THREE(shld_rc), .m = THREE(shld_mc));
SET(shrd_i, .r = THREE(shrd_ri), .m = THREE(shrd_mi));
SET(shrd_c, .r = THREE(shrd_rc), .m = THREE(shrd_mc));
SET(bsf, .r = THREE(bsf_r), .m = THREE(bsf_m));
SET(bsr, .r = THREE(bsr_r), .m = THREE(bsr_m));
SET(popcnt, .r = THREE(popcnt_r), .m = THREE(popcnt_m));
#define CMOV_SET(cc)                                         \
	SET(cmov_##cc,                                       \
	    .r = { NULL, cmov_r_##cc##_16, cmov_r_##cc##_32, \
		   cmov_r_##cc##_64 },                       \
	    .m = { NULL, cmov_m_##cc##_16, cmov_m_##cc##_32, \
		   cmov_m_##cc##_64 });
SOFT_EACH_CC(CMOV_SET)
#define SETCC_SET(cc) \
	SET(setcc_##cc, .r = { setcc_r_##cc }, .m = { setcc_m_##cc });
SOFT_EACH_CC(SETCC_SET)
SET(xchg_acc, .r = THREE(xchg_acc));
SET(bswap, .r = THREE(bswap));
SET(cbw, .r = THREE(cbw));
SET(cwd, .r = THREE(cwd));
SET(movnti, .m = { NULL, movnti_32, movnti_32, movnti_64 });
SET(crc32, .r = { crc32_r8, crc32_r16, crc32_r32, crc32_r64 },
    .m = { crc32_m8, crc32_m16, crc32_m32, crc32_m64 });
SET(cmpxchg8b, .m = { NULL, cmpxchg8b_op, cmpxchg8b_op, cmpxchg16b_op },
    .l = { NULL, cmpxchg8b_op, cmpxchg8b_op, cmpxchg16b_op });
#define ALL(f)             \
	{                  \
		f, f, f, f \
	}
#define SIMPLE(op) SET(op, .r = ALL(op))
SIMPLE(clc);
SIMPLE(stc);
SIMPLE(cmc);
SIMPLE(cld);
SIMPLE(std);
SIMPLE(sahf);
SIMPLE(lahf);
SIMPLE(salc);
SIMPLE(daa);
SIMPLE(das);
SIMPLE(aaa);
SIMPLE(aas);
SIMPLE(aam);
SIMPLE(aad);
SET(clflush, .m = ALL(clflush));
SET(nop, .r = ALL(nop), .m = ALL(nop));
SET(fence, .r = ALL(fence), .m = ALL(fence));
SET(ud, .r = ALL(ud), .m = ALL(ud), .l = ALL(ud));
