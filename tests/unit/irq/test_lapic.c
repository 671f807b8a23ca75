/* LAPIC registers, priorities and IPIs as SDM vol. 3 has them. */
#include "irq_fixture.h"

#include <string.h>

static struct fixture f;

static int setup(void **s)
{
	(void)s;
	fixture_make(&f, 4);
	return 0;
}

static int teardown(void **s)
{
	(void)s;
	fixture_drop(&f);
	return 0;
}

static void power_up(void **s)
{
	struct lapic *l = f.l[1];

	(void)s;
	lapic_reset(l, false);
	assert_int_equal(lapic_base(l), 0xfee00800);
	assert_int_equal(lapic_base(f.l[0]), 0xfee00900);
	assert_int_equal(reg(l, 0x20), 1u << 24);
	assert_int_equal(reg(l, 0x30), 0x50014);
	assert_int_equal(reg(l, 0x80), 0);
	assert_int_equal(reg(l, 0xd0), 0);
	assert_int_equal(reg(l, 0xe0), 0xffffffff);
	assert_int_equal(reg(l, 0xf0), 0xff);
	for (unsigned off = 0x320; off <= 0x370; off += 0x10)
		assert_int_equal(reg(l, off), 0x10000);
	assert_int_equal(reg(l, 0x380), 0);
	assert_int_equal(reg(l, 0x3e0), 0);
	assert_int_equal(lapic_events(l), 0);
}

static void priority_classes(void **s)
{
	struct lapic *l = f.l[0];

	(void)s;
	ipi(l, 0, 0x4031);
	ipi(l, 0, 0x4045);
	ipi(l, 0, 0x4042);
	assert_int_equal(reg(l, 0x210), 0x1 << 17);
	assert_int_equal(reg(l, 0x220), 1 << 5 | 1 << 2);
	assert_int_equal(lapic_accept(l), 0x45);
	assert_int_equal(reg(l, 0xa0), 0x40);
	assert_int_equal(reg(l, 0x120), 1 << 5);
	/* Same class waits, a higher one nests. */
	assert_int_equal(lapic_pending(l), -1);
	assert_int_equal(lapic_events(l), 0);
	ipi(l, 0, 0x4050);
	assert_int_equal(lapic_accept(l), 0x50);
	assert_int_equal(reg(l, 0xa0), 0x50);
	fixture_wakes(&f, 0);
	set_reg(l, 0xb0, 0);
	assert_int_equal(reg(l, 0xa0), 0x40);
	assert_int_equal(fixture_wakes(&f, 0), 0);
	set_reg(l, 0xb0, 0);
	/* The EOI opened the way for the next. */
	assert_int_equal(fixture_wakes(&f, 0), 1);
	serve(l, 0x42);
	serve(l, 0x31);
	set_reg(l, 0xb0, 0); /* nothing in service: no effect */
	assert_int_equal(lapic_accept(l), -1);
}

static void task_priority(void **s)
{
	struct lapic *l = f.l[0];

	(void)s;
	set_reg(l, 0x80, 0x4f);
	assert_int_equal(lapic_cr8(l), 4);
	assert_int_equal(reg(l, 0xa0), 0x4f);
	ipi(l, 0, 0x404f);
	assert_int_equal(lapic_pending(l), -1);
	ipi(l, 0, 0x4050);
	assert_int_equal(lapic_accept(l), 0x50);
	assert_int_equal(reg(l, 0xa0), 0x50);
	set_reg(l, 0x80, 0x5a);
	assert_int_equal(reg(l, 0xa0), 0x5a);
	set_reg(l, 0xb0, 0);
	fixture_wakes(&f, 0);
	lapic_set_cr8(l, 3);
	assert_int_equal(reg(l, 0x80), 0x30);
	assert_int_equal(fixture_wakes(&f, 0), 1);
	serve(l, 0x4f);
}

static void one_bit_per_vector(void **s)
{
	struct lapic *l = f.l[2];

	(void)s;
	fixture_wakes(&f, 2);
	ipi(f.l[0], 2, 0x40a0);
	ipi(f.l[0], 2, 0x40a0);
	assert_int_equal(fixture_wakes(&f, 2), 1);
	assert_int_equal(lapic_accept(l), 0xa0);
	/* While in service the same vector can wait once more. */
	ipi(f.l[0], 2, 0x40a0);
	assert_int_equal(lapic_pending(l), -1);
	set_reg(l, 0xb0, 0);
	serve(l, 0xa0);
	assert_int_equal(lapic_accept(l), -1);
}

static unsigned who(void)
{
	unsigned set = 0;

	for (unsigned i = 0; i < 4; i++)
		while (lapic_pending(f.l[i]) >= 0) {
			serve(f.l[i], lapic_pending(f.l[i]));
			set |= 1u << i;
		}
	return set;
}

static void physical(void **s)
{
	(void)s;
	ipi(f.l[0], 3, 0x4080);
	assert_int_equal(who(), 8);
	ipi(f.l[0], 0xff, 0x4080);
	assert_int_equal(who(), 15);
	ipi(f.l[0], 9, 0x4080);
	assert_int_equal(who(), 0);
}

static void shorthands(void **s)
{
	(void)s;
	ipi(f.l[1], 0, 0x44080);
	assert_int_equal(who(), 2);
	ipi(f.l[1], 0, 0x84080);
	assert_int_equal(who(), 15);
	ipi(f.l[1], 0, 0xc4080);
	assert_int_equal(who(), 13);
}

static void logical_flat(void **s)
{
	(void)s;
	for (unsigned i = 0; i < 4; i++)
		set_reg(f.l[i], 0xd0, 1u << (24 + i) | 0x1234);
	assert_int_equal(reg(f.l[2], 0xd0), 4 << 24);
	ipi(f.l[0], 5, 0x4880);
	assert_int_equal(who(), 5);
	ipi(f.l[0], 0xff, 0x4880);
	assert_int_equal(who(), 15);
	ipi(f.l[0], 0xf0, 0x4880);
	assert_int_equal(who(), 0);
}

static void logical_cluster(void **s)
{
	(void)s;
	for (unsigned i = 0; i < 4; i++) {
		set_reg(f.l[i], 0xe0, 0);
		assert_int_equal(reg(f.l[i], 0xe0), 0x0fffffff);
		set_reg(f.l[i], 0xd0, (i / 2) << 28 | 1u << (24 + i % 2));
	}
	ipi(f.l[0], 0x01, 0x4880);
	assert_int_equal(who(), 1);
	ipi(f.l[0], 0x13, 0x4880);
	assert_int_equal(who(), 12);
	ipi(f.l[0], 0xf2, 0x4880); /* second of every cluster */
	assert_int_equal(who(), 10);
}

static void lowest_priority(void **s)
{
	unsigned seen = 0;

	(void)s;
	for (unsigned i = 0; i < 4; i++)
		set_reg(f.l[i], 0xd0, 1u << (24 + i));
	set_reg(f.l[0], 0x80, 0x20);
	set_reg(f.l[1], 0x80, 0x10);
	set_reg(f.l[2], 0x80, 0x30);
	set_reg(f.l[3], 0xf0, 0xff); /* disabled: out of the contest */
	ipi(f.l[0], 0xf, 0x4980);
	assert_int_equal(who(), 2);
	set_reg(f.l[1], 0x80, 0x20);
	/* Two equals take turns. */
	for (int i = 0; i < 8; i++) {
		unsigned w;

		ipi(f.l[0], 3, 0x4980);
		w = who();
		assert_true(w == 1 || w == 2);
		seen |= w;
	}
	assert_int_equal(seen, 3);
}

static void startup(void **s)
{
	struct lapic *l = f.l[1];

	(void)s;
	fixture_wakes(&f, 1);
	ipi(f.l[0], 1, 0xc500); /* INIT, level assert */
	assert_int_equal(lapic_events(l), LAPIC_EV_INIT);
	ipi(f.l[0], 1, 0x8500); /* de-assert: nothing */
	assert_int_equal(fixture_wakes(&f, 1), 1);
	ipi(f.l[0], 1, 0x469a);
	assert_int_equal(lapic_events(l), LAPIC_EV_INIT | LAPIC_EV_SIPI);
	assert_true(lapic_take(l, LAPIC_EV_INIT));
	assert_false(lapic_take(l, LAPIC_EV_INIT));
	assert_int_equal(lapic_take_sipi(l), 0x9a);
	assert_int_equal(lapic_take_sipi(l), -1);
	/* A SIPI before the INIT is gone. */
	ipi(f.l[0], 1, 0x4612);
	ipi(f.l[0], 1, 0x4500);
	assert_int_equal(lapic_events(l), LAPIC_EV_INIT);
	/* To all others. */
	ipi(f.l[0], 0, 0xc4500);
	assert_int_equal(lapic_events(f.l[0]), 0);
	assert_int_equal(lapic_events(f.l[3]), LAPIC_EV_INIT);
}

static void init_keeps(void **s)
{
	struct lapic *l = f.l[1];

	(void)s;
	to_x2apic(l);
	wrmsr(l, 0x808, 0x55);
	ipi(f.l[0], 1, 0x4099);
	lapic_reset(l, true);
	assert_int_equal(lapic_base(l), 0xfee00c00);
	assert_int_equal(rdmsr(l, 0x802), 1);
	assert_int_equal(rdmsr(l, 0x80d), 2);
	assert_int_equal(rdmsr(l, 0x808), 0);
	assert_int_equal(rdmsr(l, 0x80f), 0xff);
	assert_int_equal(lapic_pending(l), -1);
}

static void nmi_smi_extint(void **s)
{
	(void)s;
	set_reg(f.l[1], 0xf0, 0xff); /* software-disabled takes NMIs */
	ipi(f.l[0], 1, 0x4402);
	assert_int_equal(lapic_events(f.l[1]), LAPIC_EV_NMI);
	assert_true(lapic_take(f.l[1], LAPIC_EV_NMI));
	ipi(f.l[0], 1, 0x4200);
	ipi(f.l[0], 1, 0x4730);
	assert_int_equal(lapic_events(f.l[1]), 0);
	assert_false(irqchip_msi(f.chip, 0xfee01000, 0x730));
}

static void software_disable(void **s)
{
	struct lapic *l = f.l[0];

	(void)s;
	set_reg(l, 0x320, 0x40);
	set_reg(l, 0x350, 0x8750);
	assert_int_equal(reg(l, 0x350), 0x8750);
	ipi(l, 0, 0x4060);
	set_reg(l, 0xf0, 0xff);
	/* All entries masked and stuck so; new interrupts are refused. */
	assert_int_equal(reg(l, 0x320), 0x10040);
	assert_int_equal(reg(l, 0x350), 0x18750);
	set_reg(l, 0x320, 0x40);
	assert_int_equal(reg(l, 0x320), 0x10040);
	assert_false(irqchip_msi(f.chip, 0xfee00000, 0x61));
	/* What waited still waits. */
	serve(l, 0x60);
	set_reg(l, 0xf0, 0x1ff);
	assert_int_equal(reg(l, 0x320), 0x10040);
	set_reg(l, 0x320, 0x40);
	assert_int_equal(reg(l, 0x320), 0x40);
}

static void errors(void **s)
{
	struct lapic *l = f.l[0];

	(void)s;
	set_reg(l, 0x370, 0xe0);
	ipi(l, 0, 0x400f);
	assert_int_equal(reg(l, 0x280), 0); /* latched by a write only */
	serve(l, 0xe0);
	set_reg(l, 0x280, 0);
	assert_int_equal(reg(l, 0x280), 0x20);
	set_reg(l, 0x280, 0);
	assert_int_equal(reg(l, 0x280), 0);
	assert_false(irqchip_msi(f.chip, 0xfee00000, 0x0005));
	serve(l, 0xe0);
	(void)reg(l, 0x40);
	set_reg(l, 0x280, 0);
	assert_int_equal(reg(l, 0x280), 0xc0);
	serve(l, 0xe0);
	set_reg(l, 0x370, 0x10005); /* masked, then illegal itself */
	ipi(l, 0, 0x4003);
	set_reg(l, 0x370, 5);
	ipi(l, 0, 0x4003);
	assert_int_equal(lapic_pending(l), -1);
}

static void odd_accesses(void **s)
{
	struct lapic *l = f.l[2];

	(void)s;
	assert_int_equal(lapic_mmio_read(l, 0x23, 1), 2);
	assert_int_equal(lapic_mmio_read(l, 0x32, 2), 5);
	assert_int_equal(lapic_mmio_read(l, 0x24, 4), 0);
	assert_int_equal(lapic_mmio_read(l, 0x30, 8), 0);
	lapic_mmio_write(l, 0x80, 1, 0x50);
	lapic_mmio_write(l, 0x84, 4, 0x50);
	assert_int_equal(reg(l, 0x80), 0);
	set_reg(l, 0x20, 0x77000000);
	assert_int_equal(reg(l, 0x20), 2 << 24);
}

static void base_transitions(void **s)
{
	struct lapic *l = f.l[1];

	(void)s;
	assert_true(lapic_mmio_hit(l, 0xfee00abc));
	assert_false(lapic_mmio_hit(l, 0xfee01000));
	assert_false(lapic_set_base(l, 0xfee00400));
	assert_false(lapic_set_base(l, 0xfee00801));
	assert_false(lapic_set_base(l, 1ull << 52 | 0xfee00800));
	assert_true(lapic_set_base(l, 0xfed00800));
	assert_true(lapic_mmio_hit(l, 0xfed00020));
	assert_true(lapic_set_base(l, 0xfee00c00));
	assert_false(lapic_mmio_hit(l, 0xfee00020));
	assert_false(lapic_set_base(l, 0xfee00800)); /* x2APIC -> xAPIC */
	assert_true(lapic_set_base(l, 0xfee00000));
	assert_false(lapic_mmio_hit(l, 0xfee00020));
	assert_false(lapic_set_base(l, 0xfee00c00)); /* off -> x2APIC */
	/* Off: takes nothing, and has forgotten all when on again. */
	ipi(f.l[0], 1, 0x4402);
	ipi(f.l[0], 1, 0x4500);
	assert_int_equal(lapic_events(l), 0);
	assert_true(lapic_set_base(l, 0xfee00800));
	assert_int_equal(reg(l, 0xf0), 0xff);
}

static void x2apic_registers(void **s)
{
	struct lapic *l = f.l[3];
	uint64_t v;

	(void)s;
	assert_false(lapic_msr_read(l, 0x802, &v)); /* still xAPIC */
	to_x2apic(l);
	assert_int_equal(rdmsr(l, 0x802), 3);
	assert_int_equal(rdmsr(l, 0x803), 0x50014);
	assert_int_equal(rdmsr(l, 0x80d), 8);
	rdmsr_gp(l, 0x809);
	rdmsr_gp(l, 0x80b);
	rdmsr_gp(l, 0x80e);
	rdmsr_gp(l, 0x831);
	rdmsr_gp(l, 0x83f);
	rdmsr_gp(l, 0x840);
	rdmsr_gp(l, 0x8ff);
	wrmsr_gp(l, 0x802, 0);
	wrmsr_gp(l, 0x803, 0);
	wrmsr_gp(l, 0x80a, 0);
	wrmsr_gp(l, 0x80d, 0);
	wrmsr_gp(l, 0x80e, 0);
	wrmsr_gp(l, 0x810, 0);
	wrmsr_gp(l, 0x839, 0);
	wrmsr_gp(l, 0x808, 0x100);
	wrmsr_gp(l, 0x80b, 1);
	wrmsr_gp(l, 0x80f, 0x1000);
	wrmsr_gp(l, 0x828, 1);
	wrmsr_gp(l, 0x832, 1 << 20);
	wrmsr_gp(l, 0x838, 1ull << 32);
	wrmsr_gp(l, 0x83e, 4);
	wrmsr_gp(l, 0x830, 1 << 20);
	wrmsr(l, 0x808, 0x30);
	assert_int_equal(lapic_cr8(l), 3);
	wrmsr(l, 0x808, 0);
	wrmsr(l, 0x828, 0);
	wrmsr(l, 0x83f, 0x71);
	serve(l, 0x71);
	wrmsr(l, 0x830, 0x40091ull | 1ull << 14 | 7ull << 32);
	assert_int_equal(rdmsr(l, 0x830), 0x44091ull | 7ull << 32);
	serve(l, 0x91);
}

static void x2apic_destinations(void **s)
{
	(void)s;
	for (unsigned i = 0; i < 4; i++)
		to_x2apic(f.l[i]);
	wrmsr(f.l[0], 0x830, 2ull << 32 | 0x80);
	assert_int_equal(who(), 4);
	wrmsr(f.l[0], 0x830, 0xffffffffull << 32 | 0x80);
	assert_int_equal(who(), 15);
	wrmsr(f.l[0], 0x830, 0xffull << 32 | 0x80); /* no broadcast here */
	assert_int_equal(who(), 0);
	wrmsr(f.l[0], 0x830, 0x5ull << 32 | 0x880);
	assert_int_equal(who(), 5);
	wrmsr(f.l[0], 0x830, 0x10005ull << 32 | 0x880); /* cluster 1 */
	assert_int_equal(who(), 0);
	/* An MSI still reaches them, by ID and by logical set. */
	assert_true(irqchip_msi(f.chip, 0xfee02000, 0x80));
	assert_int_equal(who(), 4);
	assert_true(irqchip_msi(f.chip, 0xfee0a004, 0x80));
	assert_int_equal(who(), 10);
}

static void x2apic_many(void **s)
{
	(void)s;
	fixture_drop(&f);
	fixture_make(&f, 200);
	for (unsigned i = 0; i < 200; i++)
		to_x2apic(f.l[i]);
	assert_int_equal(rdmsr(f.l[100], 0x80d), 6 << 16 | 1 << 4);
	wrmsr(f.l[0], 0x830, (6ull << 16 | 1 << 4) << 32 | 0x890);
	serve(f.l[100], 0x90);
	assert_int_equal(lapic_pending(f.l[4]), -1);
}

static void msi(void **s)
{
	(void)s;
	assert_true(irqchip_msi(f.chip, 0xfee03000, 0x4055));
	assert_int_equal(who(), 8);
	assert_false(irqchip_msi(f.chip, 0xfec03000, 0x4055));
	assert_false(irqchip_msi(f.chip, 0xfee03000, 0x8055));
	assert_true(irqchip_msi(f.chip, 0xfee03000, 0x400));
	assert_int_equal(lapic_events(f.l[3]), LAPIC_EV_NMI);
	for (unsigned i = 0; i < 4; i++)
		set_reg(f.l[i], 0xd0, 1u << (24 + i));
	set_reg(f.l[2], 0x80, 0x10);
	/* Redirection hint: one of the logical set, of lowest priority. */
	assert_true(irqchip_msi(f.chip, 0xfee0c00c, 0x55));
	assert_int_equal(who(), 8);
	/* Extended destination bits name CPUs that are not there. */
	assert_false(irqchip_msi(f.chip, 0xfee00020, 0x55));
	assert_false(irqchip_msi(f.chip, 0x100fee00000, 0x55));
}

static void state_round_trip(void **s)
{
	uint8_t a[1024], b[1024];
	uint64_t dl;
	struct lapic *l = f.l[1];

	(void)s;
	set_reg(l, 0x80, 0x20);
	set_reg(l, 0xd0, 0x02000000);
	set_reg(l, 0x320, 0x200ec);
	set_reg(l, 0x3e0, 0xb);
	set_reg(l, 0x350, 0x8400);
	set_reg(l, 0x380, 1000000);
	irqchip_msi(f.chip, 0xfee01000, 0xc0a1);
	assert_int_equal(lapic_accept(l), 0xa1);
	ipi(f.l[0], 1, 0x40b2);
	f.now += 250000;
	lapic_get_state(l, a, &dl);
	assert_int_equal(dl, 0);
	assert_int_equal(a[0x23], 1);
	assert_int_equal(a[0x154], 0);
	assert_int_equal(a[0x150], 2);
	assert_int_equal(a[0x1d0], 2);
	assert_int_equal(a[0x250], 0);
	assert_int_equal(*(uint32_t *)(a + 0x390), 750000);
	lapic_reset(l, false);
	lapic_set_state(l, a, 0);
	lapic_get_state(l, b, &dl);
	assert_memory_equal(a, b, sizeof(a));
	assert_int_equal(lapic_timer_deadline(l), f.now + 750000);
	assert_int_equal(lapic_pending(l), 0xb2);
}

static void hostile_state(void **s)
{
	uint8_t a[1024];
	uint64_t dl;

	(void)s;
	for (int fill = 0; fill < 256; fill += 51) {
		memset(a, fill, sizeof(a));
		lapic_set_state(f.l[0], a, 0x1234);
		lapic_timer_poll(f.l[0]);
		while (lapic_accept(f.l[0]) >= 0)
			;
		for (int i = 0; i < 256; i++)
			set_reg(f.l[0], 0xb0, 0);
		lapic_get_state(f.l[0], a, &dl);
	}
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(power_up),	     T(priority_classes),
		T(task_priority),    T(one_bit_per_vector),
		T(physical),	     T(shorthands),
		T(logical_flat),     T(logical_cluster),
		T(lowest_priority),  T(startup),
		T(init_keeps),	     T(nmi_smi_extint),
		T(software_disable), T(errors),
		T(odd_accesses),     T(base_transitions),
		T(x2apic_registers), T(x2apic_destinations),
		T(x2apic_many),	     T(msi),
		T(state_round_trip), T(hostile_state),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
