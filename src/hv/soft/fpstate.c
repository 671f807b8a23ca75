/*
 * Where the guest's floating-point state is: in its image, or in the host's
 * registers.
 *
 * Theory of operation
 * -------------------
 * Loading and saving MXCSR or the x87 registers costs more than most
 * instructions that use them, so while a vCPU runs they stay in the host's,
 * where the lean thunks (thunk.h) find them:
 *
 * MXCSR. Between soft_fp_enter() and soft_fp_leave() the host thread's MXCSR has
 * the default control bits. If the guest's has too (cpu->sse_fp), floating-point
 * thunks run with it in place, and the exception flags collect there until
 * soft_mxcsr_sync() adds them to the image. With any other guest MXCSR the slow
 * way is taken. So nothing that runs inside soft_run() may use floating point
 * (the flags would be the guest's); neither bus nor interrupt code does.
 *
 * x87. soft_x87_load() moves the registers into the host's and sets x87_live,
 * provided that the guest masks all x87 exceptions: then no host instruction
 * can trap. soft_x87_unload() moves them back before anyone looks at the image
 * (MMX, FXSAVE, environments, the end of the run) and leaves the host's
 * registers empty. FIP, FDP and FOP are in the image always.
 */
#include "hv/soft/sse.h"

static uint32_t read_mxcsr(void)
{
	uint32_t v;

	__asm__ volatile("stmxcsr %0" : "=m"(v));
	return v;
}

static void write_mxcsr(uint32_t v)
{
	__asm__ volatile("ldmxcsr %0" : : "m"(v));
}

void soft_mxcsr_sync(struct soft_cpu *cpu)
{
	if (!cpu->sse->in_run)
		return;
	soft_fx(cpu)->mxcsr |= read_mxcsr() & MXCSR_FLAGS;
	write_mxcsr(MXCSR_RESET);
}

void soft_x87_load(struct soft_cpu *cpu)
{
	struct fx_image *fx = soft_fx(cpu), *w = &cpu->sse->work;

	if (cpu->x87_live || !cpu->sse->in_run || (fx->fcw & 0x3f) != 0x3f ||
	    fx->fsw & FSW_ES || cpu->cr0 & (CR0_EM | CR0_TS))
		return;
	memcpy(w, fx, offsetof(struct fx_image, xmm));
	w->mxcsr = read_mxcsr(); /* FXRSTOR loads it too */
	__asm__ volatile("fxrstor64 %0"
			 :
			 : "m"(*w)
			 : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5",
			   "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11",
			   "xmm12", "xmm13", "xmm14", "xmm15");
	cpu->x87_live = true;
}

void soft_x87_unload(struct soft_cpu *cpu)
{
	struct fx_image *fx = soft_fx(cpu), *w = &cpu->sse->work;

	if (!cpu->x87_live)
		return;
	__asm__ volatile("fxsave64 %0\n\tfninit\n\tfldcw %1"
			 : "=m"(*w)
			 : "m"(cpu->sse->host_fcw));
	fx->fcw = w->fcw;
	fx->fsw = w->fsw;
	fx->ftw = w->ftw;
	memcpy(fx->st, w->st, sizeof(fx->st));
	cpu->x87_live = false;
}

void soft_fp_changed(struct soft_cpu *cpu)
{
	bool x87 = !(cpu->cr0 & (CR0_EM | CR0_TS));

	if (!cpu->sse)
		return;
	if (!x87)
		soft_x87_unload(cpu);
	cpu->sse_ok = cpu->sse->in_run && x87 && cpu->cr4 & CR4_OSFXSR;
	cpu->sse_fp = cpu->sse_ok && (soft_fx(cpu)->mxcsr &
				      ~(uint32_t)MXCSR_FLAGS) == MXCSR_RESET;
}

void soft_fp_enter(struct soft_cpu *cpu)
{
	cpu->sse->host_mxcsr = read_mxcsr();
	__asm__ volatile("fnstcw %0" : "=m"(cpu->sse->host_fcw));
	write_mxcsr(MXCSR_RESET);
	cpu->sse->in_run = true;
	soft_fp_changed(cpu);
}

void soft_fp_leave(struct soft_cpu *cpu)
{
	soft_x87_unload(cpu);
	soft_mxcsr_sync(cpu);
	write_mxcsr(cpu->sse->host_mxcsr);
	cpu->sse->in_run = false;
	soft_fp_changed(cpu);
}
