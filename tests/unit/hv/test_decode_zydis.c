/*
 * The decoder against Zydis: random bytes, biased to prefixes and escapes, in
 * all three modes. Where both decode, length, operand size, address and
 * immediate must agree; where only one does, the reason must be known.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <Zydis/Zydis.h>

#include "hv/soft/decode.h"
#include "test.h"

#define CASES 1000000

static uint64_t rnd(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s * 0x2545f4914f6cdd1dull;
}

static void random_code(uint64_t *seed, uint8_t buf[16])
{
	static const uint8_t prefix[] = { 0x66, 0x67, 0xf2, 0xf3, 0xf0,
					  0x48, 0x41, 0x45, 0x4c, 0x64,
					  0x65, 0x2e, 0x36, 0x26, 0x3e };
	unsigned n = 0;
	uint64_t r = rnd(seed);

	for (unsigned k = 0; k < 16; k += 8) {
		uint64_t v = rnd(seed);

		memcpy(buf + k, &v, 8);
	}
	for (unsigned k = (unsigned)(r & 3); k > 1 && n < 3; k--)
		buf[n++] = prefix[(r >> 8 * k) % array_size(prefix)];
	if (r >> 40 & 1) {
		buf[n++] = 0x0f;
		if (!(r >> 41 & 7))
			buf[n++] = r >> 44 & 1 ? 0x38 : 0x3a;
	}
}

/* Extensions that the CPU model hides: #UD here, an instruction there. */
static bool hidden(const ZydisDecodedInstruction *z)
{
	switch (z->meta.isa_ext) {
	case ZYDIS_ISA_EXT_BASE:
	case ZYDIS_ISA_EXT_LONGMODE:
	case ZYDIS_ISA_EXT_SSE:
	case ZYDIS_ISA_EXT_SSE2:
	case ZYDIS_ISA_EXT_SSE3:
	case ZYDIS_ISA_EXT_SSSE3:
	case ZYDIS_ISA_EXT_SSE4:
	case ZYDIS_ISA_EXT_MMX:
	case ZYDIS_ISA_EXT_X87:
	case ZYDIS_ISA_EXT_RDTSCP:
	case ZYDIS_ISA_EXT_INVPCID:
	case ZYDIS_ISA_EXT_RDWRFSGS:
	case ZYDIS_ISA_EXT_SMAP:
	case ZYDIS_ISA_EXT_CLFSH:
	case ZYDIS_ISA_EXT_AES:
	case ZYDIS_ISA_EXT_PCLMULQDQ:
		break;
	default:
		return true;
	}
	/* RDRAND, RDSEED and others count as base. */
	switch (z->mnemonic) {
	case ZYDIS_MNEMONIC_UD0:
	case ZYDIS_MNEMONIC_UD1:
	case ZYDIS_MNEMONIC_UD2:
	case ZYDIS_MNEMONIC_RSM:
	case ZYDIS_MNEMONIC_PCONFIG:
	case ZYDIS_MNEMONIC_GETSEC:
		return true;
	default:
		return false;
	}
}

/* Rows whose validity the executing part decides, by ModRM and prefix. */
static bool decided_later(const struct insn *i)
{
	return i->fn == soft_h_ud || i->map >= 2 ||
	       (i->map == 1 && (i->opcode < 2 || i->opcode >= 0x10)) ||
	       (i->map == 0 &&
		((i->opcode & 0xf8) == 0xd8 || (i->opcode & 0xfd) == 0x8c));
}

static unsigned mismatches;

static void complain(const char *what, const uint8_t *buf, unsigned mode,
		     const struct insn *i, const ZydisDecodedInstruction *z)
{
	char hex[64] = "";

	for (unsigned k = 0; k < 15; k++)
		sprintf(hex + 3 * k, "%02x ", buf[k]);
	if (mismatches++ < 20)
		print_message(
			"%s: mode %u: %s: we: len %u osize %u; Zydis: "
			"len %u %s ext %d width %u\n",
			what, mode, hex, i->len, i->osize, z ? z->length : 0,
			z ? ZydisMnemonicGetString(z->mnemonic) : "-",
			z ? (int)z->meta.isa_ext : 0, z ? z->operand_width : 0);
}

static unsigned reg_number(ZydisRegister r)
{
	ZyanI8 id = ZydisRegisterGetId(r);

	if (r == ZYDIS_REGISTER_NONE)
		return SOFT_ZERO;
	if (r == ZYDIS_REGISTER_RIP || r == ZYDIS_REGISTER_EIP)
		return SOFT_RIP;
	return (unsigned)id & 15;
}

static void compare_address(const struct insn *i,
			    const ZydisDecodedInstruction *z,
			    const ZydisDecodedOperand *ops, const uint8_t *buf,
			    unsigned mode)
{
	const ZydisDecodedOperand *m = NULL;
	int64_t disp;

	for (unsigned k = 0; k < z->operand_count; k++)
		if (ops[k].type == ZYDIS_OPERAND_TYPE_MEMORY &&
		    ops[k].visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT) {
			m = &ops[k];
			break;
		}
	if (!m || z->mnemonic == ZYDIS_MNEMONIC_NOP ||
	    (i->map == 0 && (i->opcode >= 0xa4 && i->opcode <= 0xaf)) ||
	    (i->map == 0 && i->opcode >= 0x6c && i->opcode <= 0x6f) ||
	    i->opcode == 0xd7)
		return;
	/* Zydis 4.0.0 overlooks that SIB base 5 without displacement means
	 * "none" under REX.B too, when the address size is 32 (objdump agrees
	 * with us). */
	if (mode == MODE_64 && i->asize == 4 && i->base == SOFT_ZERO &&
	    m->mem.base == ZYDIS_REGISTER_R13D)
		return;
	disp = m->mem.disp.value;
	if (i->base == SOFT_RIP)
		disp += i->off + i->len;
	if (!(i->flags & INSN_MEM) || i->asize * 8 != z->address_width)
		complain("memory", buf, mode, i, z);
	/* Zydis writes [x*1] where the SIB has an index alone. */
	if (reg_number(m->mem.base) != i->base ||
	    reg_number(m->mem.index) != i->index ||
	    (i->index != SOFT_ZERO && i->scale != 0 &&
	     m->mem.scale != 1u << i->scale))
		complain("base or index", buf, mode, i, z);
	if (i->asize == 8
		    ? disp != i->disp
		    : (uint32_t)disp << (i->asize == 2 ? 16 : 0) !=
			      (uint32_t)i->disp << (i->asize == 2 ? 16 : 0))
		complain("displacement", buf, mode, i, z);
	if (m->type == ZYDIS_OPERAND_TYPE_MEMORY &&
	    z->mnemonic != ZYDIS_MNEMONIC_LEA &&
	    !(z->attributes & ZYDIS_ATTRIB_HAS_NOTRACK) && /* CET: 3E */
	    reg_number(m->mem.segment) != i->seg)
		complain("segment", buf, mode, i, z);
}

static void compare_immediate(const struct insn *i,
			      const ZydisDecodedInstruction *z,
			      const uint8_t *buf, unsigned mode,
			      const struct soft_row *row)
{
	uint64_t mask = i->osize == 8 ? ~0ull : (1ull << 8 * i->osize) - 1;

	if (!z->raw.imm[0].size || row->imm == IM_FAR || row->imm == IM_ENTER ||
	    row->imm == IM_ONE || row->imm == IM_O)
		return;
	if (z->raw.imm[0].size == 8)
		mask = 0xff;
	if ((z->raw.imm[0].value.u & mask) != (i->imm & mask))
		complain("immediate", buf, mode, i, z);
}

static void one(const ZydisDecoder *d, const uint8_t *buf, unsigned mode)
{
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	ZydisDecodedInstruction z;
	const struct soft_row *row;
	struct insn i = { .off = 0x123 };
	bool ok;
	unsigned len;

	ok = ZYAN_SUCCESS(ZydisDecoderDecodeFull(d, buf, 15, &z, ops));
	len = soft_decode(&i, buf, 15, mode, &row);
	assert_in_range(len, 1, 15);
	if (!row) {
		if (ok && i.fn == soft_h_ud && !hidden(&z))
			complain("#UD here alone", buf, mode, &i, &z);
		return;
	}
	if (!ok) {
		if (!decided_later(&i))
			complain("#UD there alone", buf, mode, &i, NULL);
		return;
	}
	if (decided_later(&i) && hidden(&z))
		return;
	if (len != z.length)
		complain("length", buf, mode, &i, &z);
	if (row->size == SZ_V && !(row->attr & RA_PFX) &&
	    z.operand_width != i.osize * 8u &&
	    z.mnemonic != ZYDIS_MNEMONIC_NOP && !(i.map == 1 && i.opcode < 4) &&
	    i.opcode != 0x8c && i.opcode != 0x63)
		complain("operand size", buf, mode, &i, &z);
	compare_immediate(&i, &z, buf, mode, row);
	compare_address(&i, &z, ops, buf, mode);
	/* Fewer bytes: it must ask for more, never read beyond. */
	for (unsigned n = 1; n < len; n++)
		assert_int_equal(soft_decode(&i, buf, n, mode, &row),
				 SOFT_NEED_MORE);
}

static void agree(unsigned mode, ZydisMachineMode zm, ZydisStackWidth zs)
{
	uint64_t seed = 0x9e3779b97f4a7c15 + mode;
	ZydisDecoder d;
	uint8_t buf[16];

	assert_true(ZYAN_SUCCESS(ZydisDecoderInit(&d, zm, zs)));
	mismatches = 0;
	for (unsigned n = 0; n < CASES; n++) {
		random_code(&seed, buf);
		one(&d, buf, mode);
	}
	assert_int_equal(mismatches, 0);
}

static void long_mode(void **state)
{
	(void)state;
	agree(MODE_64, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
}

static void protected_mode(void **state)
{
	(void)state;
	agree(MODE_32, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
}

static void sixteen_bits(void **state)
{
	(void)state;
	agree(0, ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(long_mode),
		cmocka_unit_test(protected_mode),
		cmocka_unit_test(sixteen_bits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
