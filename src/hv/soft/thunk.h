/*
 * Native thunks: a guest SSE, MMX or x87 instruction is run by the host CPU on
 * the guest's registers, so results are the host's bit for bit.
 *
 * A thunk is a few host instructions around one guest instruction whose
 * operands were renamed: register operands are loaded from the places the
 * arguments name, a memory operand becomes [rsi]. So the number of different
 * thunks is bounded by opcodes x immediates (some 30,000), whatever the guest
 * does; each is made once per VM and found by index, not by search.
 *
 * The code lives in a memfd mapped twice, writable and executable, never both
 * in one mapping.
 */
#ifndef ARC_HV_SOFT_THUNK_H
#define ARC_HV_SOFT_THUNK_H

#include <stdbool.h>
#include <stdint.h>

struct err;
struct thunk_pool;

/* The layout is known to the generated code. */
struct thunk_args {
	void *reg; /* +0  bytes of the ModRM.reg register */
	void *rm; /* +8  bytes of the ModRM.rm register, or the memory operand */
	uint64_t rax, rcx, rdx; /* +16 +24 +32: reg GPR, rm GPR, third */
	uint64_t flags; /* +40 RFLAGS out (and in, for FCMOVcc) */
	uint32_t mxcsr; /* +48 the guest's, in and out */
	uint32_t host_mxcsr; /* +52 for the thunk itself */
	void *xmm0; /* +56 the implicit operand */
	uint32_t host_fcw; /* +64 for the thunk itself */
};
typedef void thunk_fn(struct thunk_args *a);

/* 0; -ENOMEM, -EPERM when the host forbids executable memory. */
int thunk_pool_create(struct thunk_pool **out, struct err *e);
void thunk_pool_destroy(struct thunk_pool *p); /* NULL-safe; no thunk running */

/* Operand kinds. */
enum sse_kind {
	SSE_NONE,
	SSE_XMM,
	SSE_MM,
	SSE_GPR, /* 32 bits, or 64 with REX.W */
	SSE_DIGIT, /* ModRM.reg extends the opcode */
};

enum {
	SSE_ALIGN = 1 << 0, /* memory operand: #GP unless 16-aligned */
	SSE_IMM = 1 << 1, /* an immediate byte */
	SSE_FP = 1 << 2, /* obeys and sets MXCSR, may raise #XM */
	SSE_TO_RM = 1 << 3, /* the destination is ModRM.rm */
	SSE_NO_DST = 1 << 4, /* flags (or RCX, XMM0) only */
	SSE_MEM_ONLY = 1 << 5,
	SSE_REG_ONLY = 1 << 6,
	SSE_EFLAGS = 1 << 7, /* writes OF SF ZF AF PF CF */
	SSE_XMM0_IN = 1 << 8,
	SSE_XMM0_OUT = 1 << 9,
	SSE_REXW = 1 << 10, /* REX.W matters */
	SSE_MEM_NO_MMX = 1 << 11, /* no switch to MMX with a memory operand */
	SSE_STRING = 1 << 12, /* PCMPxSTRx: RAX, RDX in, maybe RCX out */
	SSE_ECX_OUT = 1 << 13,
	SSE_IMM3 = 1 << 14, /* only the low 3 bits of the immediate count */
	SSE_UNMASKED_UE = 1 << 15, /* can raise underflow */
};

/* What CPUID bit brings an instruction. */
enum sse_feature {
	SSE_ABSENT, /* no such instruction: #UD */
	SSE_F_MMX,
	SSE_F_SSE,
	SSE_F_SSE2,
	SSE_F_SSE3,
	SSE_F_SSSE3,
	SSE_F_SSE41,
	SSE_F_SSE42,
	SSE_F_AES,
	SSE_F_PCLMUL,
	SSE_F_COUNT,
};

struct sse_op {
	uint8_t reg, rm; /* enum sse_kind */
	uint8_t mem; /* bytes of a memory operand; 0: 4, or 8 with REX.W */
	uint8_t feature; /* enum sse_feature */
	uint16_t flags;
	uint8_t digits; /* SSE_DIGIT: bit n = /n exists */
};

/* Opcode maps and mandatory prefixes as indices. */
enum { SSE_MAP_0F, SSE_MAP_0F38, SSE_MAP_0F3A, SSE_MAPS };
enum { SSE_PFX_NONE, SSE_PFX_66, SSE_PFX_F3, SSE_PFX_F2, SSE_PFXS };

extern const struct sse_op sse_ops[SSE_MAPS][SSE_PFXS][256];

/* One SSE or MMX instruction, as far as its thunk depends on it. */
struct sse_code {
	uint8_t map, pfx, opcode;
	bool mem; /* memory operand rather than register */
	bool w; /* REX.W */
	uint8_t digit; /* ModRM.reg, where the op has SSE_DIGIT */
	uint8_t imm;
};

/* CPUID.1:ECX: the bits of the features above that this host has. */
uint32_t thunk_cpuid_1c(void);

/* Features the host lacks are absent for every guest. */
bool thunk_has(const struct thunk_pool *p, enum sse_feature f);

/*
 * The thunk for @c, made if need be; NULL when there is no such instruction (or
 * the host has not the feature): #UD. Any thread.
 */
thunk_fn *thunk_sse(struct thunk_pool *p, const struct sse_code *c);

/*
 * The lean form, for most instructions: @reg and @rm are the bytes of the
 * operands (a GPR's are its eight bytes), MXCSR is the host thread's. Returns
 * RFLAGS for an instruction that sets them. NULL when there is no such
 * instruction or it has no lean form (MMX, strings, XMM0 operands).
 */
typedef uint64_t thunk_lean_fn(void *reg, void *rm);
thunk_lean_fn *thunk_sse_lean(struct thunk_pool *p, const struct sse_code *c);
/*
 * Lean x87: works on the host's x87 registers. @flags are RFLAGS for FCMOVcc;
 * the value is RFLAGS after FCOMI and the like.
 */
typedef uint64_t thunk_lean_x87_fn(uint64_t flags, void *mem);
thunk_lean_x87_fn *thunk_x87_lean(struct thunk_pool *p, uint8_t opcode,
				  uint8_t modrm);

/*
 * The thunk for x87 opcode @opcode (D8..DF) with @modrm. args.reg is a struct
 * fx_image that the instruction works on; its XMM registers are not changed. A
 * memory operand is at args.rm. Every encoding asked for must exist.
 */
thunk_fn *thunk_x87(struct thunk_pool *p, uint8_t opcode, uint8_t modrm);

#endif
