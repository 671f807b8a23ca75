/* One case: the state before one instruction, and the state after it. */
#ifndef ARC_ORACLE_CASE_H
#define ARC_ORACLE_CASE_H

#include <stdbool.h>
#include <stdint.h>

#define CODE_MAX  15
#define PATCH_MAX 64

struct patch {
	uint32_t la; /* inside one or two pages of layout.h */
	uint8_t len; /* 0: none */
	uint8_t bytes[PATCH_MAX];
};

struct regs {
	uint64_t gpr[16], rip, rflags, fs_base, gs_base;
	uint16_t ds, es, fs, gs;
	uint8_t fx[512] __attribute__((aligned(64)));
};

struct ocase {
	struct regs in;
	uint8_t code[32]; /* room for operands of what is too long */
	uint8_t len; /* bytes in code[], at most CODE_MAX */
	/*
	 * An instruction of registers alone that runs before it (free runs):
	 * flags in every form the engine keeps them, faults inside a block.
	 */
	uint8_t pre[16];
	uint8_t pre_len;
	uint8_t compat; /* code segment: 0 64-bit, 1 32-bit, 2 16-bit */
	/* Run to an INT3 behind it instead of stepping (TF clear). */
	bool free_run;
	struct patch patch[2];
};

struct outcome {
	struct regs out;
	uint8_t vector; /* what stopped it: 1 is the step itself */
	uint32_t error;
	uint64_t cr2; /* of vector 14 */
	bool lost; /* it ran somewhere else: not comparable */
};

#endif
