/* What is said when a guest ends in a triple fault or an engine gives up. */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "hv/hv.h"

#define BYTES 16 /* at RIP */

static const char *mode_of(const struct hv_x86_vcpu_state *s)
{
	if (s->efer & 1u << 10) /* LMA */
		return s->seg[X86_CS].attr & 1u << 13 ? "64-bit"
						      : "compatibility";
	if (!(s->cr0 & 1))
		return "real";
	if (s->rflags & 1u << 17)
		return "virtual-8086";
	return s->seg[X86_CS].attr & 1u << 14 ? "32-bit" : "16-bit protected";
}

static void say_code(struct hv_vcpu *cpu, const struct hv_x86_vcpu_state *s,
		     const struct log *log)
{
	bool flat = s->efer & 1u << 10 && s->seg[X86_CS].attr & 1u << 13;
	uint64_t at = s->rip + (flat ? 0 : s->seg[X86_CS].base);
	char hex[3 * BYTES + 1] = "";
	unsigned n = 0;
	gpa_t pa;

	/* Byte by byte: the page after may not be mapped. */
	for (; n < BYTES; n++) {
		uint8_t b;

		if (hv_vcpu_translate(cpu, at + n, &pa) ||
		    gmem_read(cpu->vm->config.mem, pa, &b, 1))
			break;
		snprintf(hex + 3 * n, 4, " %02x", b);
	}
	if (n)
		log_error(log, "code at rip:%s", hex);
	else
		log_error(log, "code at rip: 0x%llx is not mapped to memory",
			  (unsigned long long)at);
}

void hv_vcpu_report(struct hv_vcpu *cpu, const struct hv_exit *exit,
		    const struct log *log)
{
	static const char *const names[16] = {
		"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
		"r8 ", "r9 ", "r10", "r11", "r12", "r13", "r14", "r15",
	};
	static const char *const segs[X86_SEG_COUNT] = { "es", "cs", "ss",
							 "ds", "fs", "gs" };
	struct hv_x86_vcpu_state s;

	if (exit->reason == HV_EXIT_SHUTDOWN)
		log_error(log,
			  "CPU %u: triple fault: an exception met two more "
			  "while it was delivered (no usable IDT, stack or "
			  "page tables?)",
			  cpu->index);
	else if (exit->text[0])
		log_error(log, "%s", exit->text);
	if (hv_vcpu_get_state(cpu, &s)) {
		log_error(log, "CPU %u: its registers cannot be read",
			  cpu->index);
		return;
	}
	/* AMD leaves no state behind after a shutdown: KVM resets the CPU. */
	if (exit->reason == HV_EXIT_SHUTDOWN && s.rip == 0xfff0 &&
	    !(s.cr0 & 1)) {
		log_error(log,
			  "CPU %u: the processor keeps no registers of a "
			  "triple fault; use a debugger or --engine soft to "
			  "see where it happened",
			  cpu->index);
		return;
	}
	log_error(log, "CPU %u in %s mode, rip %016llx rflags %08llx",
		  cpu->index, mode_of(&s), (unsigned long long)s.rip,
		  (unsigned long long)s.rflags);
	for (int i = 0; i < 16; i += 4)
		log_error(log, "%s %016llx %s %016llx %s %016llx %s %016llx",
			  names[i], (unsigned long long)s.gpr[i], names[i + 1],
			  (unsigned long long)s.gpr[i + 1], names[i + 2],
			  (unsigned long long)s.gpr[i + 2], names[i + 3],
			  (unsigned long long)s.gpr[i + 3]);
	log_error(log, "cr0 %llx cr2 %llx cr3 %llx cr4 %llx efer %llx cr8 %llx",
		  (unsigned long long)s.cr0, (unsigned long long)s.cr2,
		  (unsigned long long)s.cr3, (unsigned long long)s.cr4,
		  (unsigned long long)s.efer, (unsigned long long)s.cr8);
	for (int i = 0; i < X86_SEG_COUNT; i++)
		log_error(log, "%s %04x base %016llx limit %08x attr %04x",
			  segs[i], s.seg[i].selector,
			  (unsigned long long)s.seg[i].base, s.seg[i].limit,
			  s.seg[i].attr);
	log_error(log, "gdt %llx+%x idt %llx+%x tr %04x ldt %04x apic %llx",
		  (unsigned long long)s.gdt.base, s.gdt.limit,
		  (unsigned long long)s.idt.base, s.idt.limit, s.tr.selector,
		  s.ldt.selector, (unsigned long long)s.apic_base);
	if (s.exception_injected)
		log_error(log, "exception %u was being delivered, error %x",
			  s.exception_vector, s.exception_error);
	say_code(cpu, &s, log);
}
