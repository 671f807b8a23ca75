/*
 * The KVM engine: architectural state in and out.
 *
 * KVM hands it out in a dozen pieces that touch each other, so order counts.
 *
 * Get: the multiprocessor state first, because KVM executes a pending INIT or
 * SIPI there, which changes everything else. The TSC last.
 *
 * Set:
 *   sregs     before all: mode, APIC base (decides what a LAPIC page means)
 *   regs, xcrs, xsave
 *   MSRs      TSC among them, before the timers that are relative to it
 *   LAPIC     restarts its timer from the current count
 *   deadline  only accepted once the LVT says TSC-deadline
 *   mp_state, events: the LAPIC must be there for them
 *   debugregs last: nothing above may consume a breakpoint
 *
 * PDPTRs are not part of the state: KVM loads them from memory when CR3 is set
 * in PAE mode, as a MOV to CR3 would.
 */
#include "hv/kvm/kvm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"

#define MSR_TSC 0x10

_Static_assert(HV_MSR_COUNT <= 64, "kvm_vm.msr_missing has a bit per MSR");

static struct hv_x86_segment seg_from_kvm(const struct kvm_segment *k)
{
	return (struct hv_x86_segment){
		.base = k->base,
		.limit = k->limit,
		.selector = k->selector,
		.attr = (uint16_t)(k->type | k->s << 4 | k->dpl << 5 |
				   k->present << 7 |
				   (k->unusable ? X86_SEG_UNUSABLE : 0) |
				   k->avl << 12 | k->l << 13 | k->db << 14 |
				   k->g << 15),
	};
}

static struct kvm_segment seg_to_kvm(const struct hv_x86_segment *s)
{
	return (struct kvm_segment){
		.base = s->base,
		.limit = s->limit,
		.selector = s->selector,
		.type = s->attr & 0xf,
		.s = s->attr >> 4 & 1,
		.dpl = s->attr >> 5 & 3,
		.present = s->attr >> 7 & 1,
		.unusable = !!(s->attr & X86_SEG_UNUSABLE),
		.avl = s->attr >> 12 & 1,
		.l = s->attr >> 13 & 1,
		.db = s->attr >> 14 & 1,
		.g = s->attr >> 15 & 1,
	};
}

/* KVM's order is RAX RBX RCX RDX RSI RDI RSP RBP R8..; ours is the encoding. */
static void regs_from_kvm(struct hv_x86_vcpu_state *s, const struct kvm_regs *r)
{
	s->gpr[X86_RAX] = r->rax;
	s->gpr[X86_RBX] = r->rbx;
	s->gpr[X86_RCX] = r->rcx;
	s->gpr[X86_RDX] = r->rdx;
	s->gpr[X86_RSI] = r->rsi;
	s->gpr[X86_RDI] = r->rdi;
	s->gpr[X86_RSP] = r->rsp;
	s->gpr[X86_RBP] = r->rbp;
	memcpy(&s->gpr[X86_R8], &r->r8, 8 * sizeof(s->gpr[0]));
	s->rip = r->rip;
	s->rflags = r->rflags;
}

static void regs_to_kvm(struct kvm_regs *r, const struct hv_x86_vcpu_state *s)
{
	r->rax = s->gpr[X86_RAX];
	r->rbx = s->gpr[X86_RBX];
	r->rcx = s->gpr[X86_RCX];
	r->rdx = s->gpr[X86_RDX];
	r->rsi = s->gpr[X86_RSI];
	r->rdi = s->gpr[X86_RDI];
	r->rsp = s->gpr[X86_RSP];
	r->rbp = s->gpr[X86_RBP];
	memcpy(&r->r8, &s->gpr[X86_R8], 8 * sizeof(s->gpr[0]));
	r->rip = s->rip;
	r->rflags = s->rflags;
}

static void sregs_from_kvm(struct hv_x86_vcpu_state *s,
			   const struct kvm_sregs *k)
{
	s->seg[X86_ES] = seg_from_kvm(&k->es);
	s->seg[X86_CS] = seg_from_kvm(&k->cs);
	s->seg[X86_SS] = seg_from_kvm(&k->ss);
	s->seg[X86_DS] = seg_from_kvm(&k->ds);
	s->seg[X86_FS] = seg_from_kvm(&k->fs);
	s->seg[X86_GS] = seg_from_kvm(&k->gs);
	s->tr = seg_from_kvm(&k->tr);
	s->ldt = seg_from_kvm(&k->ldt);
	s->gdt.base = k->gdt.base;
	s->gdt.limit = k->gdt.limit;
	s->idt.base = k->idt.base;
	s->idt.limit = k->idt.limit;
	s->cr0 = k->cr0;
	s->cr2 = k->cr2;
	s->cr3 = k->cr3;
	s->cr4 = k->cr4;
	s->cr8 = k->cr8;
	s->efer = k->efer;
	s->apic_base = k->apic_base;
}

static void sregs_to_kvm(struct kvm_sregs *k, const struct hv_x86_vcpu_state *s)
{
	memset(k, 0, sizeof(*k));
	k->es = seg_to_kvm(&s->seg[X86_ES]);
	k->cs = seg_to_kvm(&s->seg[X86_CS]);
	k->ss = seg_to_kvm(&s->seg[X86_SS]);
	k->ds = seg_to_kvm(&s->seg[X86_DS]);
	k->fs = seg_to_kvm(&s->seg[X86_FS]);
	k->gs = seg_to_kvm(&s->seg[X86_GS]);
	k->tr = seg_to_kvm(&s->tr);
	k->ldt = seg_to_kvm(&s->ldt);
	k->gdt.base = s->gdt.base;
	k->gdt.limit = s->gdt.limit;
	k->idt.base = s->idt.base;
	k->idt.limit = s->idt.limit;
	k->cr0 = s->cr0;
	k->cr2 = s->cr2;
	k->cr3 = s->cr3;
	k->cr4 = s->cr4;
	k->cr8 = s->cr8;
	k->efer = s->efer;
	k->apic_base = s->apic_base;
	/* An interrupt on its way is set with the events. */
}

static int mp_state_from_kvm(uint32_t k, uint32_t *out)
{
	switch (k) {
	case KVM_MP_STATE_RUNNABLE:
		*out = HV_X86_RUNNABLE;
		return 0;
	case KVM_MP_STATE_HALTED:
		*out = HV_X86_HALTED;
		return 0;
	case KVM_MP_STATE_INIT_RECEIVED:
		*out = HV_X86_WAIT_SIPI;
		return 0;
	case KVM_MP_STATE_UNINITIALIZED:
		*out = HV_X86_UNINITIALIZED;
		return 0;
	}
	return -EINVAL;
}

static int mp_state_to_kvm(uint32_t s, uint32_t *out)
{
	static const uint32_t map[] = {
		[HV_X86_RUNNABLE] = KVM_MP_STATE_RUNNABLE,
		[HV_X86_HALTED] = KVM_MP_STATE_HALTED,
		[HV_X86_WAIT_SIPI] = KVM_MP_STATE_INIT_RECEIVED,
		[HV_X86_UNINITIALIZED] = KVM_MP_STATE_UNINITIALIZED,
	};

	if (s >= array_size(map))
		return -EINVAL;
	*out = map[s];
	return 0;
}

/*
 * The extended state. Without XSAVE on the host, KVM_GET_FPU has the same 512
 * bytes in fields of its own.
 */
static int get_xsave(struct kvm_vcpu *c, struct hv_x86_vcpu_state *s)
{
	struct kvm_fpu f;
	struct kvm_xsave x;
	int r;

	if (kvm_vcpu_vm(c)->has_xsave) {
		r = kvm_ioctl(c->fd, KVM_GET_XSAVE, &x);
		memcpy(s->xsave, x.region, sizeof(s->xsave));
		s->xsave_size = sizeof(s->xsave);
		return r;
	}
	r = kvm_ioctl(c->fd, KVM_GET_FPU, &f);
	memcpy(s->xsave + 0, &f.fcw, 2);
	memcpy(s->xsave + 2, &f.fsw, 2);
	s->xsave[4] = f.ftwx;
	memcpy(s->xsave + 6, &f.last_opcode, 2);
	memcpy(s->xsave + 8, &f.last_ip, 8);
	memcpy(s->xsave + 16, &f.last_dp, 8);
	memcpy(s->xsave + 24, &f.mxcsr, 4);
	memcpy(s->xsave + 32, f.fpr, 128);
	memcpy(s->xsave + 160, f.xmm, 256);
	s->xsave_size = 512;
	return r;
}

static int set_xsave(struct kvm_vcpu *c, const struct hv_x86_vcpu_state *s)
{
	struct kvm_fpu f = { 0 };
	struct kvm_xsave x = { 0 };

	if (kvm_vcpu_vm(c)->has_xsave) {
		size_t used = min_of((size_t)s->xsave_size, sizeof(s->xsave));

		memcpy(x.region, s->xsave, max_of(used, (size_t)512));
		/* From a CPU without XSAVE: x87 and SSE are in the image. */
		if (used <= 512)
			x.region[512 / 4] = 3; /* XSTATE_BV */
		return kvm_ioctl(c->fd, KVM_SET_XSAVE, &x);
	}
	memcpy(&f.fcw, s->xsave + 0, 2);
	memcpy(&f.fsw, s->xsave + 2, 2);
	f.ftwx = s->xsave[4];
	memcpy(&f.last_opcode, s->xsave + 6, 2);
	memcpy(&f.last_ip, s->xsave + 8, 8);
	memcpy(&f.last_dp, s->xsave + 16, 8);
	memcpy(&f.mxcsr, s->xsave + 24, 4);
	memcpy(f.fpr, s->xsave + 32, 128);
	memcpy(f.xmm, s->xsave + 160, 256);
	return kvm_ioctl(c->fd, KVM_SET_FPU, &f);
}

/* KVM's struct ends in an array of any length: give it room. */
union msr_buffer {
	struct kvm_msrs k;
	uint8_t room[sizeof(struct kvm_msrs) +
		     (HV_MSR_COUNT + 1) * sizeof(struct kvm_msr_entry)];
};

/*
 * KVM stops at the first MSR it refuses; that one is remembered, and the rest
 * asked for again.
 */
static int get_msrs(struct kvm_vcpu *c, struct hv_x86_vcpu_state *s)
{
	struct kvm_vm *kv = kvm_vcpu_vm(c);
	union msr_buffer b = { .room = { 0 } };
	unsigned index[HV_MSR_COUNT];
	unsigned n, first;
	uint64_t missing;

again:
	missing = atomic_load(&kv->msr_missing);
	n = 0;
	for (unsigned i = 0; i < HV_MSR_COUNT; i++) {
		if (missing & 1ull << i)
			continue;
		index[n] = i;
		b.k.entries[n++].index = hv_x86_msr_number(i);
	}
	/* The TSC last: it runs. */
	b.k.entries[n].index = MSR_TSC;
	b.k.nmsrs = n + 1;
	first = (unsigned)kvm_ioctl(c->fd, KVM_GET_MSRS, &b);
	if ((int)first < 0)
		return (int)first;
	if (first < n) {
		atomic_fetch_or(&kv->msr_missing, 1ull << index[first]);
		goto again;
	}
	if (first == n)
		return -EIO; /* no TSC */
	for (unsigned i = 0; i < n; i++)
		s->msr[index[i]] = b.k.entries[i].data;
	s->tsc = b.k.entries[n].data;
	return 0;
}

static int set_one_msr(struct kvm_vcpu *c, uint32_t number, uint64_t value)
{
	union msr_buffer b = { .room = { 0 } };
	int r;

	b.k.nmsrs = 1;
	b.k.entries[0].index = number;
	b.k.entries[0].data = value;
	r = kvm_ioctl(c->fd, KVM_SET_MSRS, &b);
	if (r == 1)
		return 0;
	if (r < 0)
		return r;
	/* A feature neither host nor guest has: nothing to restore. */
	if (!value)
		return 0;
	log_error(c->cpu.vm->config.log,
		  "CPU %u: KVM refuses 0x%llx for MSR 0x%x", c->cpu.index,
		  (unsigned long long)value, number);
	return -EINVAL;
}

static int set_msrs(struct kvm_vcpu *c, const struct hv_x86_vcpu_state *s)
{
	union msr_buffer b = { .room = { 0 } };
	unsigned done = 0, n = 0;

	/*
	 * TSC before TSC_ADJUST: a guest would change one by the other, but
	 * what the VMM writes stands for itself.
	 */
	b.k.entries[n].index = MSR_TSC;
	b.k.entries[n++].data = s->tsc;
	for (unsigned i = 0; i < HV_MSR_COUNT; i++) {
		if (i == HV_MSR_TSC_DEADLINE)
			continue;
		b.k.entries[n].index = hv_x86_msr_number(i);
		b.k.entries[n++].data = s->msr[i];
	}
	while (done < n) {
		union msr_buffer part = { .room = { 0 } };
		int r;

		part.k.nmsrs = n - done;
		memcpy(part.k.entries, b.k.entries + done,
		       (n - done) * sizeof(b.k.entries[0]));
		r = kvm_ioctl(c->fd, KVM_SET_MSRS, &part);
		if (r < 0)
			return r;
		done += (unsigned)r;
		if (done < n) {
			r = set_one_msr(c, b.k.entries[done].index,
					b.k.entries[done].data);
			if (r)
				return r;
			done++;
		}
	}
	return 0;
}

static void events_from_kvm(struct hv_x86_vcpu_state *s,
			    const struct kvm_vcpu_events *k)
{
	s->exception_injected = k->exception.injected;
	s->exception_vector = k->exception.nr;
	s->exception_has_error = k->exception.has_error_code;
	s->exception_error = k->exception.error_code;
	s->interrupt_injected = k->interrupt.injected;
	s->interrupt_vector = k->interrupt.nr;
	s->interrupt_soft = k->interrupt.soft;
	s->shadow = (k->interrupt.shadow & KVM_X86_SHADOW_INT_STI ? 1 : 0) |
		    (k->interrupt.shadow & KVM_X86_SHADOW_INT_MOV_SS ? 2 : 0);
	s->nmi_injected = k->nmi.injected;
	s->nmi_pending = k->nmi.pending;
	s->nmi_masked = k->nmi.masked;
}

static void events_to_kvm(struct kvm_vcpu_events *k,
			  const struct hv_x86_vcpu_state *s)
{
	memset(k, 0, sizeof(*k));
	k->exception.injected = s->exception_injected;
	k->exception.nr = s->exception_vector;
	k->exception.has_error_code = s->exception_has_error;
	k->exception.error_code = s->exception_error;
	k->interrupt.injected = s->interrupt_injected;
	k->interrupt.nr = s->interrupt_vector;
	k->interrupt.soft = s->interrupt_soft;
	k->interrupt.shadow =
		(uint8_t)((s->shadow & 1 ? KVM_X86_SHADOW_INT_STI : 0) |
			  (s->shadow & 2 ? KVM_X86_SHADOW_INT_MOV_SS : 0));
	k->nmi.injected = s->nmi_injected;
	k->nmi.pending = s->nmi_pending;
	k->nmi.masked = s->nmi_masked;
	k->flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
}

int kvm_vcpu_get_state(struct hv_vcpu *cpu, struct hv_x86_vcpu_state *s)
{
	struct kvm_vcpu *c = kvm_vcpu_of(cpu);
	struct kvm_vm *kv = kvm_vcpu_vm(c);
	struct kvm_mp_state mp;
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_lapic_state lapic;
	struct kvm_vcpu_events events;
	struct kvm_debugregs dr = { 0 };
	struct kvm_xcrs xcrs = { 0 };
	int r;

	/* clang-format off */
	if ((r = kvm_ioctl(c->fd, KVM_GET_MP_STATE, &mp)) ||
	    (r = mp_state_from_kvm(mp.mp_state, &s->mp_state)) ||
	    (r = kvm_ioctl(c->fd, KVM_GET_REGS, &regs)) ||
	    (r = kvm_ioctl(c->fd, KVM_GET_SREGS, &sregs)) ||
	    (r = get_xsave(c, s)) ||
	    (kv->has_xcrs &&
	     (r = kvm_ioctl(c->fd, KVM_GET_XCRS, &xcrs))) ||
	    (kv->has_debugregs &&
	     (r = kvm_ioctl(c->fd, KVM_GET_DEBUGREGS, &dr))) ||
	    (r = kvm_ioctl(c->fd, KVM_GET_LAPIC, &lapic)) ||
	    (r = kvm_ioctl(c->fd, KVM_GET_VCPU_EVENTS, &events)) ||
	    (r = get_msrs(c, s)))
		return r;
	/* clang-format on */
	regs_from_kvm(s, &regs);
	sregs_from_kvm(s, &sregs);
	events_from_kvm(s, &events);
	for (int i = 0; i < 4; i++)
		s->dr[i] = dr.db[i];
	s->dr6 = dr.dr6;
	s->dr7 = dr.dr7;
	s->xcr0 = 1;
	for (unsigned i = 0; i < min_of(xcrs.nr_xcrs, 16u); i++)
		if (xcrs.xcrs[i].xcr == 0)
			s->xcr0 = xcrs.xcrs[i].value;
	memcpy(s->lapic, lapic.regs, sizeof(s->lapic));
	return 0;
}

int kvm_vcpu_set_state(struct hv_vcpu *cpu, const struct hv_x86_vcpu_state *s)
{
	struct kvm_vcpu *c = kvm_vcpu_of(cpu);
	struct kvm_vm *kv = kvm_vcpu_vm(c);
	struct kvm_mp_state mp;
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_lapic_state lapic;
	struct kvm_vcpu_events events;
	struct kvm_debugregs dr = { .dr6 = s->dr6, .dr7 = s->dr7 };
	struct kvm_xcrs xcrs = { .nr_xcrs = 1,
				 .xcrs[0].value = s->xcr0 ? s->xcr0 : 1 };
	int r = mp_state_to_kvm(s->mp_state, &mp.mp_state);

	if (r)
		return r;
	regs_to_kvm(&regs, s);
	sregs_to_kvm(&sregs, s);
	events_to_kvm(&events, s);
	for (int i = 0; i < 4; i++)
		dr.db[i] = s->dr[i];
	memcpy(lapic.regs, s->lapic, sizeof(lapic.regs));
	/* clang-format off */
	if ((r = kvm_ioctl(c->fd, KVM_SET_SREGS, &sregs)) ||
	    (r = kvm_ioctl(c->fd, KVM_SET_REGS, &regs)) ||
	    (kv->has_xcrs &&
	     (r = kvm_ioctl(c->fd, KVM_SET_XCRS, &xcrs))) ||
	    (r = set_xsave(c, s)) ||
	    (r = set_msrs(c, s)) ||
	    (r = kvm_ioctl(c->fd, KVM_SET_LAPIC, &lapic)) ||
	    (r = set_one_msr(c, hv_x86_msr_number(HV_MSR_TSC_DEADLINE),
			     s->msr[HV_MSR_TSC_DEADLINE])) ||
	    (r = kvm_ioctl(c->fd, KVM_SET_MP_STATE, &mp)) ||
	    (r = kvm_ioctl(c->fd, KVM_SET_VCPU_EVENTS, &events)) ||
	    (kv->has_debugregs &&
	     (r = kvm_ioctl(c->fd, KVM_SET_DEBUGREGS, &dr))))
		return r;
	/* clang-format on */
	return 0;
}

int kvm_vm_get_state(struct hv_vm *vm, struct hv_x86_vm_state *s)
{
	struct kvm_irqchip chip = { .chip_id = KVM_IRQCHIP_IOAPIC };
	struct kvm_clock_data clock = { 0 };
	int fd = kvm_vm_of(vm)->fd;
	int r;

	if ((r = kvm_ioctl(fd, KVM_GET_IRQCHIP, &chip)) ||
	    (r = kvm_ioctl(fd, KVM_GET_CLOCK, &clock)))
		return r;
	for (int i = 0; i < HV_GSI_COUNT; i++)
		s->ioapic_redir[i] = chip.chip.ioapic.redirtbl[i].bits;
	s->ioapic_id = chip.chip.ioapic.id;
	s->ioapic_select = chip.chip.ioapic.ioregsel;
	s->ioapic_irr = chip.chip.ioapic.irr;
	s->kvmclock_ns = clock.clock;
	s->kvmclock_flags = clock.flags;
	return 0;
}

int kvm_vm_set_state(struct hv_vm *vm, const struct hv_x86_vm_state *s)
{
	struct kvm_irqchip chip = { .chip_id = KVM_IRQCHIP_IOAPIC };
	struct kvm_clock_data clock = { .clock = s->kvmclock_ns };
	int fd = kvm_vm_of(vm)->fd;
	int r;

	chip.chip.ioapic.base_address = 0xfec00000;
	chip.chip.ioapic.id = s->ioapic_id;
	chip.chip.ioapic.ioregsel = s->ioapic_select;
	chip.chip.ioapic.irr = s->ioapic_irr;
	for (int i = 0; i < HV_GSI_COUNT; i++)
		chip.chip.ioapic.redirtbl[i].bits = s->ioapic_redir[i];
	r = kvm_ioctl(fd, KVM_SET_IRQCHIP, &chip);
	return r ? r : kvm_ioctl(fd, KVM_SET_CLOCK, &clock);
}
_Static_assert(HV_GSI_COUNT ==
		       sizeof(((struct hv_x86_vm_state *)0)->ioapic_redir) / 8,
	       "a redirection entry per pin");
