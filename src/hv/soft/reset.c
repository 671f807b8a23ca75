/*
 * RESET, INIT and SIPI: SDM vol. 3, table 9-1 and 8.4.
 *
 * INIT keeps x87 and SSE state, MSRs other than EFER, CR0.CD and NW. The LAPIC
 * and mp_state are the caller's.
 */
#include <string.h>

#include "hv/soft/cpuid.h"
#include "hv/soft/desc.h"
#include "hv/soft/fx.h"

static void reset_segments(struct soft_cpu *cpu)
{
	struct soft_seg data = { .limit = 0xffff, .attr = 0x93 };

	for (unsigned s = 0; s < X86_SEG_COUNT; s++)
		cpu->seg[s] = data;
	cpu->seg[X86_CS] = (struct soft_seg){
		.base = 0xffff0000,
		.limit = 0xffff,
		.selector = 0xf000,
		.attr = 0x9b,
	};
	cpu->ldt = (struct soft_seg){ .limit = 0xffff, .attr = 0x82 };
	cpu->tr = (struct soft_seg){ .limit = 0xffff, .attr = 0x8b };
	cpu->gdt = cpu->idt = (struct hv_x86_table){ .limit = 0xffff };
	cpu->cpl = 0;
}

static void reset_msrs(struct soft_cpu *cpu)
{
	memset(cpu->msr, 0, sizeof(cpu->msr));
	cpu->msr[HV_MSR_PAT] = 0x0007040600070406;
	cpu->msr[HV_MSR_MISC_ENABLE] = 1; /* fast strings */
}

static void reset_fpu(struct soft_cpu *cpu)
{
	struct fx_image *fx = (struct fx_image *)cpu->fx;

	memset(fx, 0, sizeof(*fx));
	fx->fcw = FCW_RESET;
	fx->ftw = 0xff;
	fx->mxcsr = MXCSR_RESET;
	fx->mxcsr_mask = MXCSR_VALID;
}

void soft_reset(struct soft_cpu *cpu, bool init)
{
	uint64_t cache = cpu->cr0 & (CR0_CD | CR0_NW);
	const struct hv_x86_cpuid *l1 = soft_cpuid_leaf(cpu, 1, 0);

	memset(cpu->gpr, 0, sizeof(cpu->gpr));
	cpu->gpr[X86_RDX] = l1 ? l1->eax : 0;
	soft_set_flags(cpu, 2);
	cpu->rip = cpu->next_rip = 0xfff0;
	reset_segments(cpu);
	cpu->cr0 = CR0_ET | (init ? cache : CR0_CD | CR0_NW);
	cpu->cr2 = cpu->cr3 = cpu->cr4 = cpu->efer = 0;
	memset(cpu->dr, 0, sizeof(cpu->dr));
	cpu->dr6 = 0xffff0ff0;
	cpu->dr7 = 0x400;
	cpu->shadow = 0;
	cpu->nmi_masked = false;
	cpu->shutdown = false;
	cpu->fault.kind = cpu->delivering.kind = cpu->inject.kind =
		SOFT_NO_EVENT;
	if (!init) {
		cpu->xcr0 = 1;
		reset_msrs(cpu);
		reset_fpu(cpu);
	}
	soft_fp_changed(cpu);
	soft_paging_changed(cpu);
	soft_tlb_flush_all(cpu);
	soft_mode_changed(cpu);
}

void soft_sipi(struct soft_cpu *cpu, unsigned vector)
{
	cpu->seg[X86_CS].selector = (uint16_t)((vector & 0xff) << 8);
	cpu->seg[X86_CS].base = (vector & 0xffull) << 12;
	cpu->rip = cpu->next_rip = 0;
	soft_mode_changed(cpu);
}
