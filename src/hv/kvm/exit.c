/*
 * The KVM engine: exits that end a run, in words. What is known about each of
 * KVM's reasons goes into one sentence; hv_vcpu_report() adds the registers.
 */
#include "hv/kvm/kvm.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"

#ifndef KVM_EXIT_MEMORY_FAULT
#define KVM_EXIT_MEMORY_FAULT 39
#endif
#ifndef KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON
#define KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON 4
#endif

static const char *const exit_names[] = {
	[KVM_EXIT_UNKNOWN] = "UNKNOWN",
	[KVM_EXIT_EXCEPTION] = "EXCEPTION",
	[KVM_EXIT_IO] = "IO",
	[KVM_EXIT_HYPERCALL] = "HYPERCALL",
	[KVM_EXIT_DEBUG] = "DEBUG",
	[KVM_EXIT_HLT] = "HLT",
	[KVM_EXIT_MMIO] = "MMIO",
	[KVM_EXIT_IRQ_WINDOW_OPEN] = "IRQ_WINDOW_OPEN",
	[KVM_EXIT_SHUTDOWN] = "SHUTDOWN",
	[KVM_EXIT_FAIL_ENTRY] = "FAIL_ENTRY",
	[KVM_EXIT_INTR] = "INTR",
	[KVM_EXIT_SET_TPR] = "SET_TPR",
	[KVM_EXIT_TPR_ACCESS] = "TPR_ACCESS",
	[KVM_EXIT_NMI] = "NMI",
	[KVM_EXIT_INTERNAL_ERROR] = "INTERNAL_ERROR",
	[KVM_EXIT_SYSTEM_EVENT] = "SYSTEM_EVENT",
	[KVM_EXIT_IOAPIC_EOI] = "IOAPIC_EOI",
	[KVM_EXIT_HYPERV] = "HYPERV",
	[KVM_EXIT_X86_RDMSR] = "X86_RDMSR",
	[KVM_EXIT_X86_WRMSR] = "X86_WRMSR",
	[KVM_EXIT_DIRTY_RING_FULL] = "DIRTY_RING_FULL",
	[KVM_EXIT_AP_RESET_HOLD] = "AP_RESET_HOLD",
	[KVM_EXIT_X86_BUS_LOCK] = "X86_BUS_LOCK",
	[KVM_EXIT_XEN] = "XEN",
	[KVM_EXIT_NOTIFY] = "NOTIFY",
	[KVM_EXIT_MEMORY_FAULT] = "MEMORY_FAULT",
};

static const char *exit_name(uint32_t reason)
{
	if (reason < array_size(exit_names) && exit_names[reason])
		return exit_names[reason];
	return "unnamed";
}

/* Append to a fixed buffer; cut, never overrun. */
static void add(struct hv_exit *exit, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
static void add(struct hv_exit *exit, const char *fmt, ...)
{
	size_t used = strlen(exit->text);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(exit->text + used, sizeof(exit->text) - used, fmt, ap);
	va_end(ap);
}

static void internal_error(const struct kvm_run *run, struct hv_exit *exit)
{
	unsigned n = min_of(run->internal.ndata, 16u);

	switch (run->internal.suberror) {
	case KVM_INTERNAL_ERROR_EMULATION:
		add(exit, "KVM cannot emulate an instruction");
		if (run->emulation_failure.ndata >= 1 &&
		    run->emulation_failure.flags &
			    KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES) {
			unsigned len = min_of(
				run->emulation_failure.insn_size,
				(uint8_t)sizeof(
					run->emulation_failure.insn_bytes));

			add(exit, ":");
			for (unsigned i = 0; i < len; i++)
				add(exit, " %02x",
				    run->emulation_failure.insn_bytes[i]);
		}
		return;
	case KVM_INTERNAL_ERROR_SIMUL_EX:
		add(exit, "KVM met two exceptions at once");
		break;
	case KVM_INTERNAL_ERROR_DELIVERY_EV:
		add(exit, "KVM met an exit while delivering an event");
		break;
	case KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON:
		add(exit, "KVM met a hardware exit it does not know");
		break;
	default:
		add(exit, "KVM internal error %u", run->internal.suberror);
	}
	for (unsigned i = 0; i < n; i++)
		add(exit, "%s%llx", i ? " " : ", data ",
		    (unsigned long long)run->internal.data[i]);
}

void kvm_describe_exit(struct kvm_vcpu *c, int error, struct hv_exit *exit)
{
	const struct kvm_run *run = c->run;
	struct kvm_regs regs;

	exit->reason = HV_EXIT_ERROR;
	exit->text[0] = '\0';
	add(exit, "CPU %u: ", c->cpu.index);
	if (error && run->exit_reason == KVM_EXIT_MEMORY_FAULT) {
		/* flags, gpa, size follow; not in older kernel headers. */
		const struct {
			uint64_t flags, gpa, size;
		} *f = (const void *)&run->hw;

		add(exit, "KVM cannot reach guest memory at 0x%llx, %llu bytes",
		    (unsigned long long)f->gpa, (unsigned long long)f->size);
	} else if (error) {
		add(exit, "KVM_RUN: %s (errno %d)", strerror(error), error);
	} else {
		switch (run->exit_reason) {
		case KVM_EXIT_INTERNAL_ERROR:
			internal_error(run, exit);
			break;
		case KVM_EXIT_FAIL_ENTRY:
			add(exit,
			    "the processor refused to enter the guest, "
			    "hardware reason 0x%llx",
			    (unsigned long long)run->fail_entry
				    .hardware_entry_failure_reason);
			break;
		case KVM_EXIT_UNKNOWN:
			add(exit, "KVM does not know hardware exit 0x%llx",
			    (unsigned long long)run->hw.hardware_exit_reason);
			break;
		case KVM_EXIT_EXCEPTION:
			add(exit, "KVM gave up on exception %u, error code %x",
			    run->ex.exception, run->ex.error_code);
			break;
		case KVM_EXIT_SYSTEM_EVENT:
			add(exit, "KVM system event %u",
			    run->system_event.type);
			break;
		case KVM_EXIT_HLT:
			add(exit, "halted without interrupt controllers");
			break;
		case KVM_EXIT_HYPERCALL:
			add(exit, "hypercall %llu, which nobody asked for",
			    (unsigned long long)run->hypercall.nr);
			break;
		default:
			add(exit, "unexpected KVM exit %u (%s)",
			    run->exit_reason, exit_name(run->exit_reason));
		}
	}
	if (!kvm_ioctl(c->fd, KVM_GET_REGS, &regs))
		add(exit, " at rip 0x%llx", (unsigned long long)regs.rip);
}
