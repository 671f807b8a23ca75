/* An interrupt chip with a fake clock, for its unit tests. */
#ifndef ARC_TEST_IRQ_FIXTURE_H
#define ARC_TEST_IRQ_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "irq/x86/irqchip.h"
#include "irq/x86/lapic.h"

struct fixture {
	struct irqchip *chip;
	struct lapic *l[IRQCHIP_MAX_CPUS];
	unsigned wakes[IRQCHIP_MAX_CPUS]; /* atomic */
	uint64_t now; /* ns */
	int64_t tsc_offset; /* TSC is 2 per ns plus this */
};

/* @ncpus LAPICs, software-enabled, spurious vector 0xff. */
void fixture_make(struct fixture *f, unsigned ncpus);
void fixture_drop(struct fixture *f);

/* All wakes of @cpu since the last call. */
unsigned fixture_wakes(struct fixture *f, unsigned cpu);

static inline uint32_t reg(struct lapic *l, unsigned off)
{
	return (uint32_t)lapic_mmio_read(l, off, 4);
}

static inline void set_reg(struct lapic *l, unsigned off, uint32_t val)
{
	lapic_mmio_write(l, off, 4, val);
}

static inline void ipi(struct lapic *l, uint32_t dest, uint32_t icr)
{
	set_reg(l, 0x310, dest << 24);
	set_reg(l, 0x300, icr);
}

/* Accept @vector (it must be what comes) and end it. */
void serve(struct lapic *l, int vector);
void to_x2apic(struct lapic *l);
uint64_t rdmsr(struct lapic *l, uint32_t msr);
void wrmsr(struct lapic *l, uint32_t msr, uint64_t val);
/* The access must fault. */
void rdmsr_gp(struct lapic *l, uint32_t msr);
void wrmsr_gp(struct lapic *l, uint32_t msr, uint64_t val);

/* An IOAPIC entry, by its registers. */
void set_rte(struct fixture *f, unsigned pin, uint64_t rte);
uint64_t rte(struct fixture *f, unsigned pin);

#endif
