/*
 * Is KVM fit for a stock kernel?
 *
 * That /dev/kvm opens proves little. A paravirtual KVM (kvm_pvm, inside a
 * virtual machine without nested virtualisation) passes every API test and
 * runs user code in the low half of the address space at full speed; but
 * supervisor code, and the high half, where kernels live, it interprets at one
 * or two million instructions a second, cannot do all of it, and interrupts go
 * astray. So the probe runs code and looks.
 *
 * A throw-away VM of 64 KiB and one CPU runs a program that tells how far it is
 * by writing letters to a port:
 *   'l' 'L'  a loop at a low address begins, ends; three times
 *   'h' 'H'  the same loop at its high-half alias; three times
 *   'I'      a software interrupt came back from its handler
 *   'T'      the LAPIC timer interrupted a spinning CPU
 *   'P'      an interprocessor interrupt to itself did
 *   'W'      the timer woke it from HLT
 * The best of three times counts, so that one preemption does not decide; the
 * high loop may take HIGH_RATIO times the low one plus HIGH_SLACK_NS. An
 * interpreter needs five times that. The CPU runs on a thread of its own and
 * is kicked when the whole takes longer than DEADLINE_MS.
 *
 * Nothing is cached: a few milliseconds are cheap against a wrong answer from
 * before the last kernel update.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/thread.h"
#include "base/util.h"
#include "hv/hv.h"
#include "hv/x86_flat.h"

#define DEADLINE_MS   500
#define PASSES	      3
#define HIGH_RATIO    8
#define HIGH_SLACK_NS (300 * NSEC_PER_USEC)

/* The program's memory: page tables, descriptor tables, code, stack. */
enum {
	AT_PML4 = 0x1000,
	AT_PDPT_LOW = 0x2000,
	AT_PD_LOW = 0x3000,
	AT_PDPT_HIGH = 0x4000,
	AT_PD_HIGH = 0x5000,
	AT_GDT = 0x6000,
	AT_IDT = 0x7000,
	AT_CODE = 0x8000,
	AT_STACK = 0xf000,
	RAM_SIZE = 0x10000,
};
#define HIGH	   0xffffffff80000000ull /* -> 0 */
#define LAPIC_PAGE 0xfee00000ull /* at HIGH + 2 MiB */
#define PORT	   0x510

/*
 * Entered twice: at probe_user with CPL 3 and IOPL 3, then at probe_kernel's
 * high alias. %edx is PORT, %r12 the LAPIC. The handlers set bits in %r13.
 */
/* clang-format off */
__asm__(
	".pushsection .rodata\n"
	"probe_code:\n"
	"probe_user:\n"
	"	mov	$0x4c6c, %r14d\n"		/* 'l', 'L' */
	"	call	probe_passes\n"
	"0:	xor	%eax, %eax\n"
	"	out	%al, %dx\n"
	"	jmp	0b\n"
	"probe_kernel:\n"
	"	mov	$0x4868, %r14d\n"		/* 'h', 'H' */
	"	call	probe_passes\n"
	"	xor	%r13d, %r13d\n"
	"	int	$0x20\n"
	"	test	$1, %r13d\n"
	"	jz	probe_end\n"
	"	mov	$0x49, %al\n"			/* 'I' */
	"	out	%al, %dx\n"
	/* LAPIC on; timer one-shot, vector 0x21, divide by 1. */
	"	movl	$0x1ff, 0xf0(%r12)\n"
	"	movl	$0x0b, 0x3e0(%r12)\n"
	"	movl	$0x21, 0x320(%r12)\n"
	"	sti\n"
	"	movl	$20000, 0x380(%r12)\n"
	"2:	pause\n"
	"	test	$2, %r13d\n"
	"	jz	2b\n"
	"	mov	$0x54, %al\n"			/* 'T' */
	"	out	%al, %dx\n"
	"	movl	$0x44022, 0x300(%r12)\n"	/* ICR: self, fixed */
	"3:	pause\n"
	"	test	$4, %r13d\n"
	"	jz	3b\n"
	"	mov	$0x50, %al\n"			/* 'P' */
	"	out	%al, %dx\n"
	"	xor	%r13d, %r13d\n"
	"	cli\n"
	"	movl	$20000, 0x380(%r12)\n"
	"4:	sti\n"
	"	hlt\n"
	"	cli\n"
	"	test	$2, %r13d\n"
	"	jz	4b\n"
	"	mov	$0x57, %al\n"			/* 'W' */
	"	out	%al, %dx\n"
	"probe_end:\n"
	"	xor	%eax, %eax\n"
	"	out	%al, %dx\n"
	"	jmp	probe_end\n"
	"probe_passes:\n"
	"	mov	$3, %ecx\n"
	"6:	push	%rcx\n"
	"	call	probe_spin\n"
	"	pop	%rcx\n"
	"	loop	6b\n"
	"	ret\n"
	"probe_spin:\n"
	"	mov	%r14d, %eax\n"
	"	out	%al, %dx\n"
	"	mov	$2000, %ecx\n"
	"7:	dec	%ecx\n"
	"	jnz	7b\n"
	"	mov	%ah, %al\n"
	"	out	%al, %dx\n"
	"	ret\n"
	"probe_soft:\n"
	"	or	$1, %r13d\n"
	"	iretq\n"
	"probe_timer:\n"
	"	or	$2, %r13d\n"
	"	movl	$0, 0xb0(%r12)\n"		/* EOI */
	"	iretq\n"
	"probe_ipi:\n"
	"	or	$4, %r13d\n"
	"	movl	$0, 0xb0(%r12)\n"
	"	iretq\n"
	"probe_code_end:\n"
	".popsection\n");
/* clang-format on */
extern const uint8_t probe_code[], probe_user[], probe_kernel[], probe_soft[],
	probe_timer[], probe_ipi[], probe_code_end[];

struct probe {
	struct gmem *mem;
	struct bus *bus;
	struct hv_vm *vm;
	struct hv_vcpu *cpu;
	struct thread thread;
	int done; /* eventfd: the CPU has stopped */

	/* Written by the CPU's thread, read after it was joined. */
	char last; /* the last letter */
	bool ended;
	uint64_t begun_ns, low_ns, high_ns; /* best of PASSES */
	unsigned high_passes;
	struct hv_exit exit;
	int run_error;
};

static uint64_t probe_bound(const struct probe *p)
{
	return p->low_ns * HIGH_RATIO + HIGH_SLACK_NS;
}

static uint64_t probe_port_read(void *dev, uint64_t off, unsigned len)
{
	(void)dev;
	(void)off;
	(void)len;
	return 0;
}

static void probe_port_write(void *dev, uint64_t off, unsigned len,
			     uint64_t val)
{
	struct probe *p = dev;
	uint64_t now = clock_ns();

	(void)off;
	(void)len;
	switch (val) {
	case 0:
		p->ended = true;
		hv_vcpu_kick(p->cpu);
		return;
	case 'l':
	case 'h':
		p->begun_ns = now;
		break;
	case 'L':
		p->low_ns = min_of(p->low_ns, now - p->begun_ns);
		break;
	case 'H':
		p->high_ns = min_of(p->high_ns, now - p->begun_ns);
		/* Three slow passes are an answer. */
		if (++p->high_passes == PASSES && p->high_ns > probe_bound(p)) {
			hv_vcpu_kick(p->cpu);
			return;
		}
		break;
	}
	p->last = (char)val;
}

static const struct bus_ops probe_port = { probe_port_read, probe_port_write };

/* Where the CPU goes on: the user's loop, or the kernel's part. */
static int probe_enter(struct probe *p, bool kernel)
{
	uint64_t base = kernel ? HIGH : 0;
	const uint8_t *entry = kernel ? probe_kernel : probe_user;
	struct hv_x86_vcpu_state s;
	int r = hv_vcpu_get_state(p->cpu, &s);

	if (!r) {
		x86_flat_enter(&s, AT_PML4,
			       base + AT_CODE + (uint64_t)(entry - probe_code),
			       base + AT_STACK);
		s.gdt.base = HIGH + AT_GDT;
		s.idt = (struct hv_x86_table){ HIGH + AT_IDT, 0xfff };
		s.gpr[X86_RDX] = PORT;
		s.gpr[X86_R12] = HIGH + MiB(2);
		if (!kernel)
			x86_flat_user(&s);
		r = hv_vcpu_set_state(p->cpu, &s);
	}
	return r;
}

static void probe_run(void *arg)
{
	struct probe *p = arg;
	uint64_t one = 1;

	p->run_error = hv_vcpu_run(p->cpu, &p->exit);
	if (!p->run_error && p->exit.reason == HV_EXIT_KICKED && p->ended &&
	    p->last == 'L') {
		p->ended = false;
		p->run_error = probe_enter(p, true);
		if (!p->run_error)
			p->run_error = hv_vcpu_run(p->cpu, &p->exit);
	}
	if (write(p->done, &one, sizeof(one)) != sizeof(one))
		p->run_error = -EIO; /* poll() then waits for the deadline */
}

static int probe_put64(struct probe *p, uint64_t at, uint64_t v)
{
	return gmem_write(p->mem, gpa(at), &v, sizeof(v));
}

static int probe_load(struct probe *p)
{
	const struct {
		unsigned vector;
		const uint8_t *handler;
	} gates[] = { { 0x20, probe_soft },
		      { 0x21, probe_timer },
		      { 0x22, probe_ipi } };
	int r = 0;

	/* Present, writable; 2 MiB pages; the LAPIC uncached. */
	r |= probe_put64(p, AT_PML4, AT_PDPT_LOW | 7);
	r |= probe_put64(p, AT_PML4 + 511 * 8, AT_PDPT_HIGH | 3);
	r |= probe_put64(p, AT_PDPT_LOW, AT_PD_LOW | 7);
	r |= probe_put64(p, AT_PD_LOW, 0x87);
	r |= probe_put64(p, AT_PDPT_HIGH + 510 * 8, AT_PD_HIGH | 3);
	r |= probe_put64(p, AT_PD_HIGH, 0x83);
	r |= probe_put64(p, AT_PD_HIGH + 8, LAPIC_PAGE | 0x9b);
	r |= gmem_write(p->mem, gpa(AT_GDT), x86_flat_gdt,
			sizeof(x86_flat_gdt));
	r |= gmem_write(p->mem, gpa(AT_CODE), probe_code,
			(size_t)(probe_code_end - probe_code));
	for (unsigned i = 0; i < array_size(gates); i++) {
		uint8_t gate[16];
		uint64_t at = HIGH + AT_CODE +
			      (uint64_t)(gates[i].handler - probe_code);

		x86_flat_gate(gate, at);
		r |= gmem_write(p->mem, gpa(AT_IDT + gates[i].vector * 16),
				gate, sizeof(gate));
	}
	return r;
}

static int probe_build(struct probe *p, const struct hv_ops *ops, struct err *e)
{
	struct hv_config c = { .ncpus = 1 };
	int r;

	r = gmem_create(&p->mem);
	if (r)
		return err_set(e, r, "out of memory");
	r = gmem_add_ram(p->mem, gpa(0), RAM_SIZE, e);
	if (r)
		return r;
	r = bus_create(&p->bus);
	if (r)
		return err_set(e, r, "out of memory");
	r = bus_add(p->bus, BUS_PIO, PORT, 1, &probe_port, p, NULL, e);
	if (r)
		return r;
	c.mem = p->mem;
	c.bus = p->bus;
	r = hv_vm_create(ops, &p->vm, &c, e);
	if (r)
		return r;
	r = hv_irqchip_create(p->vm, e);
	if (r)
		return r;
	r = hv_vcpu_create(p->vm, 0, &p->cpu, e);
	if (r)
		return r;
	r = probe_load(p);
	if (!r)
		r = probe_enter(p, false);
	return r ? err_set(e, r, "the state of a CPU cannot be set: %s",
			   strerror(-r))
		 : 0;
}

static int probe_verdict(const struct probe *p, struct err *e)
{
	const char *missing;

	if (p->ended && p->last == 'W')
		return 0;
	if (p->high_passes == PASSES && p->high_ns > probe_bound(p))
		return err_set(
			e, -ENOTSUP,
			"it is a paravirtual KVM that only interprets "
			"kernel code: a loop that takes %llu us in the "
			"low half of the address space takes %llu us in "
			"the kernel's half",
			(unsigned long long)(p->low_ns / NSEC_PER_USEC),
			(unsigned long long)(p->high_ns / NSEC_PER_USEC));
	switch (p->last) {
	case '\0':
	case 'l':
	case 'L':
		missing = "did not run 64-bit code";
		break;
	case 'h':
		missing = "did not run kernel code at its high address in time";
		break;
	case 'H':
		missing = "did not deliver a software interrupt";
		break;
	case 'I':
		missing = "did not deliver a timer interrupt to a busy CPU";
		break;
	case 'T':
		missing = "did not deliver an interprocessor interrupt";
		break;
	default:
		missing = "did not wake a halted CPU by its timer";
	}
	if (p->exit.reason == HV_EXIT_SHUTDOWN)
		return err_set(e, -ENOTSUP, "KVM %s: triple fault", missing);
	if (p->exit.reason == HV_EXIT_ERROR)
		return err_set(e, -ENOTSUP, "KVM %s: %s", missing,
			       p->exit.text);
	return err_set(e, -ENOTSUP, "KVM %s", missing);
}

int hv_kvm_fitness(struct err *why)
{
	struct probe p = { .done = -1, .low_ns = ~0ull, .high_ns = ~0ull };
	struct pollfd wait;
	int r;

	r = probe_build(&p, &hv_kvm_ops, why);
	if (r)
		goto out;
	p.done = eventfd(0, EFD_CLOEXEC);
	if (p.done < 0) {
		r = -errno;
		err_set(why, r, "eventfd: %s", strerror(-r));
		goto out;
	}
	r = thread_start(&p.thread, "hv-probe", probe_run, &p);
	if (r) {
		err_set(why, r, "cannot start a thread: %s", strerror(-r));
		goto out;
	}
	wait = (struct pollfd){ .fd = p.done, .events = POLLIN };
	do {
		r = poll(&wait, 1, DEADLINE_MS);
	} while (r < 0 && errno == EINTR);
	if (r <= 0)
		hv_vcpu_kick(p.cpu);
	thread_join(&p.thread);
	r = p.run_error ? err_set(why, p.run_error, "KVM_RUN: %s",
				  strerror(-p.run_error))
			: probe_verdict(&p, why);
out:
	if (p.done >= 0)
		close(p.done);
	hv_vcpu_destroy(p.cpu);
	hv_vm_destroy(p.vm);
	bus_destroy(p.bus);
	gmem_destroy(p.mem);
	return r;
}

const struct hv_ops *hv_choose(char *why, size_t why_size)
{
	struct err e = { 0 };

	if (!hv_kvm_fitness(&e)) {
		snprintf(why, why_size,
			 "engine kvm: a probe ran kernel code at speed and its "
			 "interrupts arrived");
		return &hv_kvm_ops;
	}
	snprintf(why, why_size, "engine soft: %s", e.text);
	return &hv_soft_ops;
}
