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
};

static inline struct fx_image *soft_fx(struct soft_cpu *cpu)
{
	return (struct fx_image *)cpu->fx;
}

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

/* MMX instructions: #UD, #NM, #MF. */
static inline void mmx_check(struct soft_cpu *cpu)
{
	if (cpu->cr0 & CR0_EM)
		soft_fault0(cpu, X86_UD);
	if (cpu->cr0 & CR0_TS)
		soft_fault0(cpu, X86_NM);
	if (soft_fx(cpu)->fsw & FSW_ES)
		soft_fault0(cpu, X86_MF);
}

/* FXSAVE, FXRSTOR, LDMXCSR, STMXCSR (0F AE with memory): fxsave.c. */
void soft_group15_mem(struct soft_cpu *cpu, struct insn *i);

/* Instructions of sse.c's maps without a thunk, or #UD. */
void soft_sse_special(struct soft_cpu *cpu, struct insn *i);

#endif
