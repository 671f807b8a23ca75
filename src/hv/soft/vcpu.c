/* A vCPU of the software engine: creation, state in and out, debugging. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <x86intrin.h>

#include "base/err.h"
#include "hv/soft/cpuid.h"
#include "hv/soft/fx.h"
#include "hv/soft/vcpu.h"

int soft_vcpu_create(struct hv_vm *hv, unsigned index, struct hv_vcpu **out,
		     struct err *e)
{
	struct soft_vm *vm = (struct soft_vm *)hv;
	struct soft_cpu *cpu;
	void *mem;

	if (index >= vm->ncpus || vm->cpu[index])
		return err_set(e, -EINVAL, "there is no vCPU %u to create",
			       index);
	if (!vm->irqchip)
		return err_set(e, -EINVAL, "vCPUs come after the irqchip");
	if (posix_memalign(&mem, 64, sizeof(*cpu)))
		return err_set(e, -ENOMEM, "no memory for vCPU %u", index);
	cpu = memset(mem, 0, sizeof(*cpu));
	cpu->hv.vm = hv;
	cpu->hv.index = index;
	cpu->vm = vm;
	cpu->lapic = irqchip_lapic(vm->irqchip, index);
	cpu->tsc_offset = 0 - vm->clock.tsc0;
	if (soft_mmu_init(cpu) || soft_code_init(cpu) || soft_sse_init(cpu)) {
		soft_vcpu_free(cpu);
		return err_set(e, -ENOMEM, "no memory for vCPU %u", index);
	}
	cpu->apic_base = lapic_base(cpu->lapic);
	soft_reset(cpu, false);
	cpu->mp_state = index ? HV_X86_UNINITIALIZED : HV_X86_RUNNABLE;
	cpu->irq_wait = true;
	__atomic_store_n(&vm->cpu[index], cpu, __ATOMIC_RELEASE);
	*out = &cpu->hv;
	return 0;
}

void soft_vcpu_free(struct soft_cpu *cpu)
{
	soft_sse_fini(cpu);
	soft_code_fini(cpu);
	soft_mmu_fini(cpu);
	free(cpu);
}

/*
 * A device's thread that just took the pointer from vm->cpu[] may still notify
 * or send to it, so the memory lives as long as the VM.
 */
void soft_vcpu_destroy(struct hv_vcpu *v)
{
	struct soft_cpu *cpu = soft_cpu_of(v);

	if (!cpu)
		return;
	__atomic_store_n(&cpu->vm->cpu[v->index], NULL, __ATOMIC_RELEASE);
	cpu->grave_next = cpu->vm->grave;
	cpu->vm->grave = cpu;
}

int soft_vcpu_set_cpuid(struct hv_vcpu *v, const struct hv_x86_cpuid *leaves,
			unsigned n)
{
	struct soft_cpu *cpu = soft_cpu_of(v);

	if (n > HV_X86_CPUID_MAX)
		return -E2BIG;
	memcpy(cpu->cpuid, leaves, n * sizeof(*leaves));
	cpu->ncpuid = n;
	soft_paging_changed(cpu);
	return 0;
}

int soft_vcpu_get_state(struct hv_vcpu *v, struct hv_x86_vcpu_state *s)
{
	struct soft_cpu *cpu = soft_cpu_of(v);
	const struct soft_event *ev = &cpu->inject;

	memset(s, 0, sizeof(*s));
	memcpy(s->gpr, cpu->gpr, sizeof(s->gpr));
	s->rip = cpu->rip;
	s->rflags = soft_get_flags(cpu);
	memcpy(s->seg, cpu->seg, sizeof(s->seg));
	s->tr = cpu->tr;
	s->ldt = cpu->ldt;
	s->gdt = cpu->gdt;
	s->idt = cpu->idt;
	s->cr0 = cpu->cr0;
	s->cr2 = cpu->cr2;
	s->cr3 = cpu->cr3;
	s->cr4 = cpu->cr4;
	s->cr8 = lapic_cr8(cpu->lapic);
	s->efer = cpu->efer;
	s->apic_base = lapic_base(cpu->lapic);
	memcpy(s->dr, cpu->dr, sizeof(s->dr));
	s->dr6 = cpu->dr6;
	s->dr7 = cpu->dr7;
	s->xcr0 = cpu->xcr0;
	s->tsc = soft_tsc(cpu);
	memcpy(s->msr, cpu->msr, sizeof(s->msr));
	switch (ev->kind) {
	case SOFT_FAULT:
	case SOFT_TRAP:
		s->exception_injected = 1;
		s->exception_vector = ev->vector;
		s->exception_has_error = ev->has_error;
		s->exception_error = ev->error;
		if (ev->vector == X86_PF)
			s->cr2 = ev->cr2;
		break;
	case SOFT_EXTERNAL:
		s->interrupt_injected = 1;
		s->interrupt_vector = ev->vector;
		break;
	case SOFT_NMI:
		s->nmi_injected = 1;
		break;
	default: /* INT n: not executed yet, RIP is at it */
		break;
	}
	s->nmi_pending = !!(lapic_events(cpu->lapic) & LAPIC_EV_NMI);
	s->nmi_masked = cpu->nmi_masked;
	s->shadow = cpu->shadow;
	s->mp_state = cpu->mp_state;
	s->xsave_size = sizeof(cpu->fx);
	memcpy(s->xsave, cpu->fx, sizeof(cpu->fx));
	lapic_get_state(cpu->lapic, s->lapic, &s->msr[HV_MSR_TSC_DEADLINE]);
	return 0;
}

static void set_events(struct soft_cpu *cpu, const struct hv_x86_vcpu_state *s)
{
	struct soft_event *ev = &cpu->inject;

	*ev = (struct soft_event){ .kind = SOFT_NO_EVENT };
	if (s->exception_injected) {
		ev->kind = SOFT_FAULT;
		ev->vector = s->exception_vector;
		ev->has_error = s->exception_has_error;
		ev->error = s->exception_error;
		ev->cr2 = s->cr2;
	} else if (s->nmi_injected) {
		ev->kind = SOFT_NMI;
		ev->vector = 2;
	} else if (s->interrupt_injected && !s->interrupt_soft) {
		ev->kind = SOFT_EXTERNAL;
		ev->vector = s->interrupt_vector;
	} /* a software interrupt: the instruction is executed again */
	cpu->delivering.kind = SOFT_NO_EVENT;
	cpu->nmi_masked = s->nmi_masked;
	cpu->shadow = s->shadow;
	if (s->nmi_pending)
		lapic_post_event(cpu->lapic, LAPIC_EV_NMI);
}

int soft_vcpu_set_state(struct hv_vcpu *v, const struct hv_x86_vcpu_state *s)
{
	struct soft_cpu *cpu = soft_cpu_of(v);

	if (s->mp_state > HV_X86_UNINITIALIZED)
		return -EINVAL;
	memcpy(cpu->gpr, s->gpr, sizeof(s->gpr));
	cpu->gpr[SOFT_ZERO] = 0;
	cpu->rip = cpu->next_rip = s->rip;
	soft_set_flags(cpu, s->rflags);
	memcpy(cpu->seg, s->seg, sizeof(s->seg));
	cpu->tr = s->tr;
	cpu->ldt = s->ldt;
	cpu->gdt = s->gdt;
	cpu->idt = s->idt;
	cpu->cr0 = s->cr0;
	cpu->cr2 = s->cr2;
	cpu->cr3 = s->cr3;
	cpu->cr4 = s->cr4;
	cpu->efer = s->efer;
	/* CPL is SS.DPL, as VMX has it; real mode and VM86 have no DPL. */
	cpu->cpl = !(s->cr0 & CR0_PE)  ? 0
		   : s->rflags & FL_VM ? 3
				       : SEG_DPL(s->seg[X86_SS].attr);
	memcpy(cpu->dr, s->dr, sizeof(s->dr));
	cpu->dr6 = s->dr6;
	cpu->dr7 = s->dr7;
	cpu->xcr0 = s->xcr0;
	memcpy(cpu->msr, s->msr, sizeof(s->msr));
	memcpy(cpu->fx, s->xsave, sizeof(cpu->fx));
	fx_sanitize((struct fx_image *)cpu->fx);
	cpu->tsc_offset = s->tsc - __rdtsc();
	cpu->mp_state = s->mp_state;
	cpu->shutdown = false;
	lapic_set_base(cpu->lapic, s->apic_base);
	cpu->apic_base = lapic_base(cpu->lapic);
	lapic_set_state(cpu->lapic, s->lapic, s->msr[HV_MSR_TSC_DEADLINE]);
	lapic_set_cr8(cpu->lapic, (unsigned)s->cr8 & 15);
	set_events(cpu, s);
	cpu->irq_wait = true;
	/* Memory may have been changed with it. */
	soft_code_flush(cpu);
	soft_paging_changed(cpu);
	soft_tlb_flush_all(cpu);
	soft_mode_changed(cpu);
	soft_clock_publish(cpu);
	return 0;
}

int soft_vcpu_set_debug(struct hv_vcpu *v, const struct hv_debug *d)
{
	struct soft_cpu *cpu = soft_cpu_of(v);

	cpu->debug = *d;
	soft_mode_changed(cpu);
	return 0;
}

int soft_vcpu_run(struct hv_vcpu *v, struct hv_exit *exit)
{
	struct soft_cpu *cpu = soft_cpu_of(v);
	int rc;

	soft_count(&cpu->counters.exits, 1);
	soft_fp_enter(cpu);
	rc = soft_run(cpu, exit);
	soft_fp_leave(cpu);
	return rc;
}

void soft_vcpu_kick(struct hv_vcpu *v)
{
	soft_notify(soft_cpu_of(v), SOFT_EV_KICK);
}

int soft_vcpu_translate(struct hv_vcpu *v, uint64_t va, gpa_t *out)
{
	uint64_t pa;

	if (!soft_translate(soft_cpu_of(v), va, &pa))
		return -EFAULT;
	*out = gpa(pa);
	return 0;
}

void soft_vcpu_counters(struct hv_vcpu *v, struct hv_counters *out)
{
	const struct hv_counters *c = &soft_cpu_of(v)->counters;

	*out = (struct hv_counters){
		.exits = __atomic_load_n(&c->exits, __ATOMIC_RELAXED),
		.mmio = __atomic_load_n(&c->mmio, __ATOMIC_RELAXED),
		.pio = __atomic_load_n(&c->pio, __ATOMIC_RELAXED),
		.halts = __atomic_load_n(&c->halts, __ATOMIC_RELAXED),
		.kicks = __atomic_load_n(&c->kicks, __ATOMIC_RELAXED),
		.irqs = __atomic_load_n(&c->irqs, __ATOMIC_RELAXED),
		.instructions =
			__atomic_load_n(&c->instructions, __ATOMIC_RELAXED),
	};
	/* What would have been an exit of a hardware engine is one here. */
	out->exits += out->mmio + out->pio + out->halts;
}
