#include "irq_fixture.h"

#include <string.h>

static void wake(void *ctx, unsigned i)
{
	struct fixture *f = ctx;

	__atomic_fetch_add(&f->wakes[i], 1, __ATOMIC_SEQ_CST);
}

static uint64_t now(void *ctx)
{
	return ((struct fixture *)ctx)->now;
}

static uint64_t tsc(void *ctx, unsigned i)
{
	struct fixture *f = ctx;

	(void)i;
	return f->now * 2 + (uint64_t)f->tsc_offset;
}

void fixture_make(struct fixture *f, unsigned ncpus)
{
	struct irqchip_config c = {
		.ncpus = ncpus,
		.tsc_khz = 2000000,
		.wake = wake,
		.tsc = tsc,
		.ctx = f,
		.now = now,
	};

	memset(f, 0, sizeof(*f));
	f->now = 1000000;
	assert_int_equal(irqchip_create(&f->chip, &c, NULL), 0);
	for (unsigned i = 0; i < ncpus; i++) {
		f->l[i] = irqchip_lapic(f->chip, i);
		set_reg(f->l[i], 0xf0, 0x1ff);
	}
}

void fixture_drop(struct fixture *f)
{
	irqchip_destroy(f->chip);
}

unsigned fixture_wakes(struct fixture *f, unsigned cpu)
{
	return __atomic_exchange_n(&f->wakes[cpu], 0, __ATOMIC_SEQ_CST);
}

void serve(struct lapic *l, int vector)
{
	assert_int_equal(lapic_accept(l), vector);
	if (lapic_base(l) & APIC_BASE_X2APIC)
		wrmsr(l, 0x80b, 0);
	else
		set_reg(l, 0xb0, 0);
}

void to_x2apic(struct lapic *l)
{
	assert_true(lapic_set_base(l, lapic_base(l) | APIC_BASE_X2APIC));
}

uint64_t rdmsr(struct lapic *l, uint32_t msr)
{
	uint64_t v = 0;

	assert_true(lapic_msr_read(l, msr, &v));
	return v;
}

void wrmsr(struct lapic *l, uint32_t msr, uint64_t val)
{
	assert_true(lapic_msr_write(l, msr, val));
}

void rdmsr_gp(struct lapic *l, uint32_t msr)
{
	uint64_t v;

	assert_false(lapic_msr_read(l, msr, &v));
}

void wrmsr_gp(struct lapic *l, uint32_t msr, uint64_t val)
{
	assert_false(lapic_msr_write(l, msr, val));
}

void set_rte(struct fixture *f, unsigned pin, uint64_t v)
{
	irqchip_ioapic_write(f->chip, 0, 4, 0x11 + 2 * pin);
	irqchip_ioapic_write(f->chip, 0x10, 4, v >> 32);
	irqchip_ioapic_write(f->chip, 0, 4, 0x10 + 2 * pin);
	irqchip_ioapic_write(f->chip, 0x10, 4, (uint32_t)v);
}

uint64_t rte(struct fixture *f, unsigned pin)
{
	uint64_t v;

	irqchip_ioapic_write(f->chip, 0, 4, 0x11 + 2 * pin);
	v = irqchip_ioapic_read(f->chip, 0x10, 4) << 32;
	irqchip_ioapic_write(f->chip, 0, 4, 0x10 + 2 * pin);
	return v | irqchip_ioapic_read(f->chip, 0x10, 4);
}
