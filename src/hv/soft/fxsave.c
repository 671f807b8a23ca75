/*
 * FXSAVE, FXRSTOR, LDMXCSR, STMXCSR, CLFLUSH: group 15 with memory.
 *
 * SDM vol. 2A "FXSAVE", vol. 1, 10.5. The vCPU's image has the 64-bit layout
 * with REX.W; the plain form has 32-bit pointers and selectors, which this CPU
 * model always saves as 0 (CPUID.7.EBX[13]). Outside 64-bit mode XMM8-15 are
 * neither saved nor loaded.
 */
#include "hv/soft/sse.h"

static void fxsave(struct soft_cpu *cpu, const struct insn *i)
{
	struct fx_image img;
	unsigned len = cpu->mode & MODE_64 ? 416 : 288;
	uint64_t la;

	if (cpu->cr0 & (CR0_EM | CR0_TS))
		soft_fault0(cpu, X86_NM);
	la = soft_ea(cpu, i, 512, true);
	if (la & 15)
		soft_fault(cpu, X86_GP, 0);
	soft_x87_unload(cpu);
	soft_mxcsr_sync(cpu);
	img = *soft_fx(cpu);
	img.reserved = 0;
	img.mxcsr_mask = MXCSR_VALID;
	if (!(i->flags & INSN_REXW)) {
		img.fip = (uint32_t)img.fip;
		img.fdp = (uint32_t)img.fdp;
	}
	soft_probe_write(cpu, la, 512, SOFT_DATA);
	soft_write_bytes(cpu, la, &img, len, SOFT_DATA);
}

static void fxrstor(struct soft_cpu *cpu, const struct insn *i)
{
	struct fx_image *fx = soft_fx(cpu), img;
	uint64_t la;

	if (cpu->cr0 & (CR0_EM | CR0_TS))
		soft_fault0(cpu, X86_NM);
	la = soft_ea(cpu, i, 512, false);
	if (la & 15)
		soft_fault(cpu, X86_GP, 0);
	soft_read_bytes(cpu, la, &img, 512, SOFT_DATA);
	if (img.mxcsr & ~(uint32_t)MXCSR_VALID)
		soft_fault(cpu, X86_GP, 0);

	if (!(i->flags & INSN_REXW)) {
		img.fip = (uint32_t)img.fip;
		img.fdp = (uint32_t)img.fdp;
	}
	fx_sanitize(&img);
	soft_x87_unload(cpu);
	soft_mxcsr_sync(cpu);
	memcpy(fx, &img, offsetof(struct fx_image, xmm));
	memcpy(fx->xmm, img.xmm, cpu->mode & MODE_64 ? 256 : 128);
	soft_fp_changed(cpu);
}

void soft_group15_mem(struct soft_cpu *cpu, struct insn *i)
{
	struct fx_image *fx = soft_fx(cpu);
	uint32_t v;

	if (i->pfx) /* CLFLUSHOPT, CLWB, RDSEED ...: not offered */
		soft_fault0(cpu, X86_UD);
	switch (i->modrm >> 3 & 7) {
	case 0:
		fxsave(cpu, i);
		break;
	case 1:
		fxrstor(cpu, i);
		break;
	case 2: /* LDMXCSR */
		sse_check(cpu);
		v = (uint32_t)soft_read(cpu, soft_ea(cpu, i, 4, false), 4,
					SOFT_DATA);
		if (v & ~(uint32_t)MXCSR_VALID)
			soft_fault(cpu, X86_GP, 0);
		soft_mxcsr_sync(cpu);
		fx->mxcsr = v;
		soft_fp_changed(cpu);
		break;
	case 3: /* STMXCSR */
		sse_check(cpu);
		soft_mxcsr_sync(cpu);
		soft_write(cpu, soft_ea(cpu, i, 4, true), 4, fx->mxcsr,
			   SOFT_DATA);
		break;
	case 7: /* CLFLUSH: faults as a load of one byte does */
		soft_read(cpu, soft_ea(cpu, i, 1, false), 1, SOFT_DATA);
		break;
	default: /* XSAVE, XRSTOR, XSAVEOPT: hidden */
		soft_fault0(cpu, X86_UD);
	}
}
