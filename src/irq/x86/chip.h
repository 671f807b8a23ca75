/*
 * Inside the interrupt hardware: the structs, and the calls between its files.
 *
 * Who may touch what:
 *  - irr, tmr, events, esr_pending: anyone, by atomic operations.
 *  - base, tpr, ldr, dfr, svr, isr, lvt: written by the owner (the vCPU's
 *    thread, or a stopped vCPU's caller), read by anyone (destination match,
 *    arbitration, the host timer), so each access is a relaxed atomic.
 *  - timer: under timer.lock; timer.deadline may be read without.
 *  - the rest: the owner only.
 */
#ifndef ARC_IRQ_X86_CHIP_H
#define ARC_IRQ_X86_CHIP_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "irq/x86/irqchip.h"
#include "irq/x86/lapic.h"

#define peek(p)	   __atomic_load_n((p), __ATOMIC_RELAXED)
#define poke(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)

/* Register numbers: MMIO offset >> 4, MSR - 0x800. */
enum {
	REG_ID = 0x02,
	REG_VERSION = 0x03,
	REG_TPR = 0x08,
	REG_APR = 0x09,
	REG_PPR = 0x0a,
	REG_EOI = 0x0b,
	REG_RRD = 0x0c,
	REG_LDR = 0x0d,
	REG_DFR = 0x0e,
	REG_SVR = 0x0f,
	REG_ISR = 0x10, /* .. 0x17 */
	REG_TMR = 0x18,
	REG_IRR = 0x20,
	REG_ESR = 0x28,
	REG_ICR = 0x30,
	REG_ICR2 = 0x31,
	REG_LVT_TIMER = 0x32,
	REG_LVT_THERMAL,
	REG_LVT_PERF,
	REG_LVT_LINT0,
	REG_LVT_LINT1,
	REG_LVT_ERROR, /* 0x37 */
	REG_TMICT = 0x38,
	REG_TMCCT = 0x39,
	REG_TDCR = 0x3e,
	REG_SELF_IPI = 0x3f, /* x2APIC only */
};
#define LVT_COUNT     (REG_LVT_ERROR - REG_LVT_TIMER + 1)
#define LVT(reg)      ((reg)-REG_LVT_TIMER)
#define LVT_MASKED    (1u << 16)
#define SVR_ENABLE    (1u << 8)
#define LAPIC_VERSION (0x14u | (LVT_COUNT - 1) << 16)

/* Timer modes, LVT_TIMER bits 18-17. */
enum { TIMER_ONESHOT, TIMER_PERIODIC, TIMER_TSC_DEADLINE, TIMER_RESERVED };

/* Delivery modes of ICR, RTE and MSI data, bits 10-8. */
enum {
	DM_FIXED,
	DM_LOWEST,
	DM_SMI,
	DM_RESERVED,
	DM_NMI,
	DM_INIT,
	DM_SIPI, /* ICR only */
	DM_EXTINT, /* there is no 8259: refused */
};

enum {
	ESR_SEND_ILLEGAL = 1 << 5,
	ESR_RECEIVE_ILLEGAL = 1 << 6,
	ESR_REGISTER = 1 << 7,
};

struct lapic_timer {
	pthread_mutex_t lock;
	uint64_t deadline; /* clock ns, UINT64_MAX: not armed */
	uint64_t tsc_deadline; /* the MSR; 0: not armed */
	uint64_t period; /* ns, of TIMER_PERIODIC */
	uint32_t initial; /* TMICT */
	uint32_t divide; /* TDCR */
	bool asleep; /* the vCPU times out by itself */
};

struct lapic {
	struct irqchip *chip;
	unsigned index; /* also the APIC ID */
	uint64_t base;
	uint32_t tpr, ldr, dfr, svr;
	uint32_t esr, esr_pending;
	uint64_t icr; /* high half: ICR2, as written */
	uint32_t lvt[LVT_COUNT];
	uint64_t irr[4], isr[4], tmr[4];
	uint32_t events; /* LAPIC_EV_*; SIPI vector in bits 15-8 */
	struct lapic_timer timer;
};

struct ioapic {
	pthread_mutex_t lock;
	uint64_t redir[IRQCHIP_PINS];
	uint32_t level; /* the lines */
	uint32_t id, select;
};

struct host_timer;

struct irqchip {
	struct irqchip_config cfg;
	struct ioapic ioapic;
	struct host_timer *timer;
	uint32_t rotate; /* lowest-priority ties */
	struct lapic lapic[];
};

/* An interrupt message: what RTE, MSI and ICR all come down to. */
struct irq_msg {
	unsigned mode; /* DM_* */
	uint8_t vector;
	bool level; /* trigger mode */
	bool logical;
	bool wide; /* 32-bit destination of an x2APIC */
	uint32_t dest;
};

static inline bool lapic_x2apic(const struct lapic *l)
{
	return peek(&l->base) & APIC_BASE_X2APIC;
}

static inline uint64_t chip_now(const struct irqchip *c)
{
	return c->cfg.now(c->cfg.ctx);
}

static inline void lapic_wake(struct lapic *l)
{
	l->chip->cfg.wake(l->chip->cfg.ctx, l->index);
}

/* deliver.c; each returns whether a LAPIC took it. */
bool deliver_to(struct lapic *l, unsigned mode, uint8_t vector, bool level);
bool deliver(struct irqchip *c, const struct irq_msg *m);
void deliver_icr(struct lapic *l, uint64_t icr);
/* Raise LVT entry @reg; an error of ours goes to ESR and LVT_ERROR. */
void lapic_local(struct lapic *l, unsigned reg);
void lapic_error(struct lapic *l, unsigned bits);

/* lapic.c */
unsigned lapic_ppr(const struct lapic *l);
int lapic_highest(const uint64_t set[4]);

/* lapic_timer.c */
uint32_t lapic_timer_count(struct lapic *l);
void lapic_timer_set_initial(struct lapic *l, uint32_t count);
void lapic_timer_set_divide(struct lapic *l, uint32_t divide);
void lapic_timer_set_lvt(struct lapic *l, uint32_t lvt);
void lapic_timer_set_deadline(struct lapic *l, uint64_t tsc);
uint64_t lapic_timer_get_deadline(struct lapic *l);
/* Go on with @left counts before the next shot. */
void lapic_timer_restore(struct lapic *l, uint32_t initial, uint32_t left,
			 uint32_t divide, uint64_t tsc_deadline);

/* ioapic.c */
void ioapic_init(struct ioapic *io);
void ioapic_eoi(struct irqchip *c, uint8_t vector);
/* A LAPIC that refused interrupts takes them now: offer level ones again. */
void ioapic_resample(struct irqchip *c);

/* host_timer.c */
int host_timer_create(struct host_timer **out, struct irqchip *c);
void host_timer_destroy(struct host_timer *t);
/* lapic_timer_poll(@index) at @at (UINT64_MAX: never). Any thread. */
void host_timer_arm(struct host_timer *t, unsigned index, uint64_t at);

#endif
