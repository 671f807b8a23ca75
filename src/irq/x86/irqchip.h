/*
 * The interrupt hardware of one x86 VM for an engine that has none: a LAPIC per
 * vCPU, one IOAPIC with 24 pins, MSI.
 *
 * Call order: irqchip_create() -> (set_state) -> vCPUs run -> irqchip_destroy()
 * after the last vCPU thread has ended. LAPIC registers belong to the thread
 * that runs the vCPU (lapic.h); everything in this header may be called from
 * any thread at any time, and none of it waits for a vCPU.
 *
 * Locks: interrupts go from an IPI or MSI into a LAPIC's IRR by atomic
 * operations alone. The IOAPIC has one lock, each LAPIC one for its timer; none
 * is taken while another is held, but wake() may be called under either.
 */
#ifndef ARC_IRQ_X86_IRQCHIP_H
#define ARC_IRQ_X86_IRQCHIP_H

#include <stdbool.h>
#include <stdint.h>

#include "hv/x86_state.h"

struct irqchip;
struct lapic;
struct err;

#define IRQCHIP_MAX_CPUS    255
#define IRQCHIP_PINS	    24
#define IRQCHIP_IOAPIC_BASE 0xfec00000u
#define IRQCHIP_IOAPIC_SIZE 0x1000u
#define IRQCHIP_LAPIC_BASE  0xfee00000u
/* What one count of the APIC timer (divisor 1) takes: a 1 GHz bus. */
#define IRQCHIP_BUS_KHZ 1000000u

struct irqchip_config {
	unsigned ncpus; /* 1 .. IRQCHIP_MAX_CPUS; vCPU i has APIC ID i */
	uint64_t tsc_khz; /* rate of tsc() */
	/*
	 * Something arrived for vCPU @index: its run loop must call
	 * lapic_events() before it executes much more, and its HLT sleep must
	 * end. Any thread, the vCPU's own included; must not block, nor
	 * call back into the chip.
	 */
	void (*wake)(void *ctx, unsigned index);
	/* The TSC that vCPU @index would read now. Any thread. */
	uint64_t (*tsc)(void *ctx, unsigned index);
	void *ctx;
	/* Time in ns as clock_ns(); NULL: clock_ns(). For tests. */
	uint64_t (*now)(void *ctx);
	/*
	 * Start the host thread that fires the timers of running vCPUs. Without
	 * it the caller polls lapic_timer_poll() at lapic_timer_deadline().
	 */
	bool host_timer;
};

/* 0 or -errno; on failure nothing is left behind. */
int irqchip_create(struct irqchip **out, const struct irqchip_config *c,
		   struct err *e);
void irqchip_destroy(struct irqchip *chip); /* NULL-safe; joins its thread */

struct lapic *irqchip_lapic(struct irqchip *chip, unsigned index);

/*
 * Drive IOAPIC pin @pin. An edge is true, then false. True when a new interrupt
 * was accepted by a LAPIC (false: masked, no taker, or still in service).
 */
bool irqchip_line(struct irqchip *chip, unsigned pin, bool level);

/*
 * A write of @data to @addr in the MSI window (0xfeexxxxx); the high half of
 * @addr and address bits 5-11 extend the destination as KVM has them. False
 * when no LAPIC took it.
 */
bool irqchip_msi(struct irqchip *chip, uint64_t addr, uint32_t data);

/* IOAPIC register window: @off from its base, any length and alignment. */
uint64_t irqchip_ioapic_read(struct irqchip *chip, uint64_t off, unsigned len);
void irqchip_ioapic_write(struct irqchip *chip, uint64_t off, unsigned len,
			  uint64_t val);

/* The ioapic_* members of @s only. vCPUs stopped. */
void irqchip_get_state(struct irqchip *chip, struct hv_x86_vm_state *s);
void irqchip_set_state(struct irqchip *chip, const struct hv_x86_vm_state *s);

#endif
