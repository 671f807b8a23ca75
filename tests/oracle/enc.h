/*
 * The oracle's own idea of x86 encodings: enough to write an instruction of any
 * opcode with a well-formed length, and to say of one what is undefined in it.
 * Not the engine's decoder, which is under test.
 */
#ifndef ARC_ORACLE_ENC_H
#define ARC_ORACLE_ENC_H

#include <stdbool.h>
#include <stdint.h>

#include "case.h"

struct enc {
	bool ok; /* parsed to its end within the bytes given */
	bool p66, p67, f2, f3, lock, rexw, any_rex;
	uint8_t rex; /* the REX byte in force, 0: none */
	int seg; /* last segment prefix byte, 0: none */
	uint8_t map; /* 0, 1 (0F), 2 (0F38), 3 (0F3A) */
	uint8_t op;
	bool has_modrm;
	uint8_t modrm, sib;
	uint8_t modrm_at; /* index in the code */
	uint8_t disp_at, disp_len, imm_at, imm_len;
	uint8_t len;
	uint8_t osize, asize; /* bytes; osize without byte forms */
};

#define ENC_MOD(e) ((e)->modrm >> 6)
#define ENC_REG(e) ((e)->modrm >> 3 & 7)
#define ENC_RM(e)  ((e)->modrm & 7)
#define ENC_MEM(e) ((e)->has_modrm && ENC_MOD(e) != 3)

/* Parse @n bytes; @compat as in struct ocase, here and below. */
void enc_parse(struct enc *e, const uint8_t *code, unsigned n, unsigned compat);

/* It may go elsewhere than to the next instruction (or stay). */
bool enc_is_transfer(const struct enc *e, bool compat);
/* Far JMP, CALL, RET; IRET. */
bool enc_is_far(const struct enc *e);
/* MOVS, CMPS, STOS, LODS, SCAS, INS, OUTS. */
bool enc_is_string(const struct enc *e);
/* Loads SS: the trap after it is put off. */
bool enc_shadows(const struct enc *e);

/*
 * Why this cannot be compared on this host, or NULL: it would enter the host's
 * kernel, the kernel emulates it, vendors differ, or its result is no function
 * of the state (RDTSC).
 */
const char *enc_excluded(const struct enc *e, bool compat);
/* Belongs to a feature that the engine does not show: its #UD is right. */
bool enc_hidden(const struct enc *e, bool compat);

/* The linear address of its ModRM operand. */
uint64_t enc_address(const struct enc *e, const struct ocase *c);
/* Touches several words: which of them faults first is the CPU's choice. */
bool enc_many_words(const struct enc *e);

/* Flags that are undefined after it. */
uint64_t enc_undefined_flags(const struct enc *e, const struct ocase *c);
/* Its destination is undefined too (SHLD by more than its size). */
bool enc_undefined_result(const struct enc *e, const struct ocase *c);

#endif
