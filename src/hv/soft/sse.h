/*
 * What sse.c, x87.c and fxsave.c share: access to the vCPU's FXSAVE image and
 * the checks before its use.
 */
#ifndef ARC_HV_SOFT_SSE_H
#define ARC_HV_SOFT_SSE_H

#include "hv/soft/cpu.h"
#include "hv/soft/fx.h"
#include "hv/soft/thunk.h"

struct soft_sse {
	struct thunk_pool *pool;
	struct fx_image work; /* x87 thunks run here and are then committed */
	struct thunk_args args;
	uint8_t mem[16] __attribute__((aligned(16)));
	bool in_run; /* between soft_fp_enter() and soft_fp_leave() */
	uint32_t host_mxcsr; /* put back by soft_fp_leave() */
	uint16_t host_fcw;
};

static inline struct fx_image *soft_fx(struct soft_cpu *cpu)
{
	return (struct fx_image *)cpu->fx;
}

/* fpstate.c */
/* The guest's x87 registers are in the image after this (unload), or in the
 * host's if that is possible now (load). */
void soft_x87_unload(struct soft_cpu *cpu);
void soft_x87_load(struct soft_cpu *cpu);
/* Add the flags that lean thunks left in the host's MXCSR to the guest's. */
void soft_mxcsr_sync(struct soft_cpu *cpu);

/* sse.c: what @i's thunk depends on. */
struct sse_code soft_sse_code(const struct insn *i);
/* x87.c: false when the encoding does not exist; *@size: bytes of the memory
 * operand, negative when it is written, 1 for an environment or image. */
bool soft_x87_form(const struct insn *i, int *size);

/* XMM instructions: #UD, #NM (SDM vol. 3, 14.1 and table 2-22). */
static inline void sse_check(struct soft_cpu *cpu)
{
	if (__builtin_expect((cpu->cr0 & (CR0_EM | CR0_TS)) ||
				     !(cpu->cr4 & CR4_OSFXSR),
			     0))
		soft_fault0(cpu, (cpu->cr0 & CR0_EM) || !(cpu->cr4 & CR4_OSFXSR)
					 ? X86_UD
					 : X86_NM);
}

/* MMX instructions: #UD, #NM, #MF. The x87 registers are in the image then. */
static inline void mmx_check(struct soft_cpu *cpu)
{
	if (cpu->cr0 & CR0_EM)
		soft_fault0(cpu, X86_UD);
	if (cpu->cr0 & CR0_TS)
		soft_fault0(cpu, X86_NM);
	soft_x87_unload(cpu);
	if (soft_fx(cpu)->fsw & FSW_ES)
		soft_fault0(cpu, X86_MF);
}

/* FXSAVE, FXRSTOR, LDMXCSR, STMXCSR (0F AE with memory): fxsave.c. */
void soft_group15_mem(struct soft_cpu *cpu, struct insn *i);

/* Instructions of sse.c's maps without a thunk, or #UD. */
void soft_sse_special(struct soft_cpu *cpu, struct insn *i);

#endif
