/*
 * One local APIC, as its vCPU sees it: xAPIC registers by MMIO, x2APIC
 * registers by MSR, the timer, and what the vCPU must do next.
 *
 * Unless it says "any thread", a function is called by the thread that runs the
 * vCPU, or while the vCPU is stopped.
 *
 * A vCPU's run loop, when its wake flag is set or after an instruction that may
 * have opened a window (STI, POPF, IRET, MOV CR8, an EOI ...):
 *
 *	clear the flag (atomic exchange, before looking)
 *	ev = lapic_events(l);
 *	if (ev & LAPIC_EV_INIT)  lapic_take(l, LAPIC_EV_INIT), reset the vCPU,
 *				 lapic_reset(l, true), wait for SIPI
 *	if (ev & LAPIC_EV_SIPI)  v = lapic_take_sipi(l); start at v << 12 if the
 *				 vCPU waits for it, else drop it
 *	if (ev & LAPIC_EV_NMI)   when not blocked: lapic_take(l, LAPIC_EV_NMI)
 *	if (ev & LAPIC_EV_INTR)  when IF and no shadow: v = lapic_accept(l)
 *
 * HLT: t = lapic_sleep_begin(l); wait for the wake flag until clock_ns() is t
 * (UINT64_MAX: no limit); lapic_sleep_end(l); then as above. An event that
 * arrives between the last look and the wait has set the flag.
 */
#ifndef ARC_IRQ_X86_LAPIC_H
#define ARC_IRQ_X86_LAPIC_H

#include <stdbool.h>
#include <stdint.h>

struct lapic;

enum {
	LAPIC_EV_INIT = 1 << 0,
	LAPIC_EV_SIPI = 1 << 1,
	LAPIC_EV_NMI = 1 << 2,
	LAPIC_EV_INTR = 1 << 3, /* lapic_pending() >= 0; not for take() */
};

/* IA32_APIC_BASE */
#define APIC_BASE_BSP	 (1u << 8)
#define APIC_BASE_X2APIC (1u << 10)
#define APIC_BASE_ENABLE (1u << 11)
#define APIC_BASE_ADDR	 0x000ffffffffff000ull

/*
 * Power-up state; @init: what an INIT leaves (APIC ID and IA32_APIC_BASE stay,
 * and so does the x2APIC mode).
 */
void lapic_reset(struct lapic *l, bool init);

/* IA32_APIC_BASE; set: false when the value or the transition is #GP(0). */
uint64_t lapic_base(const struct lapic *l);
bool lapic_set_base(struct lapic *l, uint64_t val);
/* True when @gpa is in this LAPIC's register page now (xAPIC mode only). */
bool lapic_mmio_hit(const struct lapic *l, uint64_t gpa);

/* @off within the register page. */
uint64_t lapic_mmio_read(struct lapic *l, uint64_t off, unsigned len);
void lapic_mmio_write(struct lapic *l, uint64_t off, unsigned len,
		      uint64_t val);

/*
 * MSRs 0x800-0x8ff and IA32_TSC_DEADLINE (0x6e0). False: #GP(0).
 */
bool lapic_msr_read(struct lapic *l, uint32_t msr, uint64_t *val);
bool lapic_msr_write(struct lapic *l, uint32_t msr, uint64_t val);

/* CR8 is bits 7-4 of the TPR; @cr8 is 0-15. */
unsigned lapic_cr8(const struct lapic *l);
void lapic_set_cr8(struct lapic *l, unsigned cr8);

/* LAPIC_EV_*: what waits now. */
unsigned lapic_events(const struct lapic *l);
/* Consume an event; false when it was not there. */
bool lapic_take(struct lapic *l, unsigned event);
/* The vector of a waiting SIPI, consumed; -1 when there is none. */
int lapic_take_sipi(struct lapic *l);
/* Any thread: NMI or another event from the engine itself. */
void lapic_post_event(struct lapic *l, unsigned event);

/* The vector that would be delivered now (its class is above PPR), or -1. */
int lapic_pending(const struct lapic *l);
/* INTA: move it from IRR to ISR. -1 when nothing can be delivered. */
int lapic_accept(struct lapic *l);

/* When the timer fires, as clock_ns(); UINT64_MAX: not armed. Any thread. */
uint64_t lapic_timer_deadline(const struct lapic *l);
/* Fire what is due. Any thread. */
void lapic_timer_poll(struct lapic *l);
/* The guest's TSC was written or adjusted: deadlines move with it. */
void lapic_tsc_changed(struct lapic *l);

/*
 * Around a HLT sleep: the host timer is put off, because the vCPU thread times
 * out by itself. Returns the deadline; end() fires what is due.
 */
uint64_t lapic_sleep_begin(struct lapic *l);
void lapic_sleep_end(struct lapic *l);

/*
 * The register page in the format of KVM_GET_LAPIC (without x2APIC format: the
 * ID is in bits 31-24 in either mode). Set IA32_APIC_BASE and the TSC first;
 * @tsc_deadline is the MSR's value. The page's timer goes on from its current
 * count.
 */
void lapic_get_state(struct lapic *l, uint8_t page[1024],
		     uint64_t *tsc_deadline);
void lapic_set_state(struct lapic *l, const uint8_t page[1024],
		     uint64_t tsc_deadline);

#endif
