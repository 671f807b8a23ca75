/* The IOAPIC as the 82093AA datasheet has it. */
#include "irq_fixture.h"

#include <string.h>

#define LEVEL  0x8000ull
#define REMOTE 0x4000ull
#define MASK   0x10000ull
#define TO(n)  ((uint64_t)(n) << 56)

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

static uint32_t window(unsigned sel)
{
	irqchip_ioapic_write(f.chip, 0, 4, sel);
	return (uint32_t)irqchip_ioapic_read(f.chip, 0x10, 4);
}

static void registers(void **s)
{
	(void)s;
	assert_int_equal(window(1), 0x00170011);
	assert_int_equal(window(0), 0);
	irqchip_ioapic_write(f.chip, 0x10, 4, 0xffffffff);
	assert_int_equal(window(0), 0x0f000000);
	assert_int_equal(window(2), 0x0f000000);
	irqchip_ioapic_write(f.chip, 0x10, 4, 0);
	assert_int_equal(window(2), 0x0f000000); /* read-only */
	for (unsigned i = 0; i < 24; i++)
		assert_int_equal(rte(&f, i), MASK);
	set_rte(&f, 23, UINT64_MAX & ~MASK);
	assert_int_equal(rte(&f, 23), 0xff0000000000afff);
	assert_int_equal(window(0x40), 0xffffffff);
	irqchip_ioapic_write(f.chip, 0x10, 4, 0);
	assert_int_equal(irqchip_ioapic_read(f.chip, 0, 4), 0x40);
	assert_int_equal(irqchip_ioapic_read(f.chip, 0x20, 4), 0);
	irqchip_ioapic_write(f.chip, 0x40, 4, 0x31);
}

static void edge(void **s)
{
	(void)s;
	set_rte(&f, 5, TO(1) | 0x55);
	assert_true(irqchip_line(f.chip, 5, true));
	assert_false(irqchip_line(f.chip, 5, true)); /* no edge */
	serve(f.l[1], 0x55);
	assert_false(irqchip_line(f.chip, 5, false));
	assert_int_equal(lapic_pending(f.l[1]), -1);
	assert_true(irqchip_line(f.chip, 5, true));
	irqchip_line(f.chip, 5, false);
	serve(f.l[1], 0x55);
	assert_int_equal(rte(&f, 5), TO(1) | 0x55);
	assert_false(irqchip_line(f.chip, 24, true));
	assert_false(irqchip_line(f.chip, 4000000000u, true));
}

static void masked_edge_is_lost(void **s)
{
	(void)s;
	set_rte(&f, 5, TO(1) | MASK | 0x55);
	assert_false(irqchip_line(f.chip, 5, true));
	set_rte(&f, 5, TO(1) | 0x55);
	assert_int_equal(lapic_pending(f.l[1]), -1);
}

static void level(void **s)
{
	struct lapic *l = f.l[2];

	(void)s;
	set_rte(&f, 9, TO(2) | LEVEL | 0x59);
	assert_true(irqchip_line(f.chip, 9, true));
	assert_int_equal(rte(&f, 9), TO(2) | LEVEL | REMOTE | 0x59);
	assert_int_equal(reg(l, 0x1a0), 1 << 25); /* TMR */
	assert_false(irqchip_line(f.chip, 9, true));
	assert_int_equal(lapic_accept(l), 0x59);
	assert_int_equal(lapic_pending(l), -1);
	/* Up at the EOI: at once again. */
	set_reg(l, 0xb0, 0);
	assert_int_equal(lapic_accept(l), 0x59);
	irqchip_line(f.chip, 9, false);
	set_reg(l, 0xb0, 0);
	assert_int_equal(rte(&f, 9), TO(2) | LEVEL | 0x59);
	assert_int_equal(lapic_pending(l), -1);
	/* An edge interrupt of that vector: TMR clear, no broadcast. */
	ipi(l, 2, 0x4059);
	assert_int_equal(reg(l, 0x1a0), 0);
}

static void masked_level_waits(void **s)
{
	(void)s;
	set_rte(&f, 9, TO(2) | LEVEL | MASK | 0x59);
	assert_false(irqchip_line(f.chip, 9, true));
	set_rte(&f, 9, TO(2) | LEVEL | 0x59);
	assert_int_equal(lapic_accept(f.l[2]), 0x59);
	/* Masked in service: remote IRR stays, EOI clears, nothing is sent. */
	set_rte(&f, 9, TO(2) | LEVEL | MASK | 0x59);
	assert_true(rte(&f, 9) & REMOTE);
	set_reg(f.l[2], 0xb0, 0);
	assert_false(rte(&f, 9) & REMOTE);
	assert_int_equal(lapic_pending(f.l[2]), -1);
}

static void to_edge_clears_remote(void **s)
{
	(void)s;
	set_rte(&f, 9, TO(2) | LEVEL | 0x59);
	irqchip_line(f.chip, 9, true);
	set_rte(&f, 9, TO(2) | MASK | 0x59);
	assert_false(rte(&f, 9) & REMOTE);
	set_rte(&f, 9, TO(2) | LEVEL | 0x59);
	assert_true(rte(&f, 9) & REMOTE);
}

static void shared_vector(void **s)
{
	(void)s;
	set_rte(&f, 9, TO(2) | LEVEL | 0x59);
	set_rte(&f, 10, TO(2) | LEVEL | 0x59);
	irqchip_line(f.chip, 9, true);
	irqchip_line(f.chip, 10, true);
	irqchip_line(f.chip, 9, false);
	assert_int_equal(lapic_accept(f.l[2]), 0x59);
	set_reg(f.l[2], 0xb0, 0); /* 10 is still up */
	assert_int_equal(lapic_accept(f.l[2]), 0x59);
	irqchip_line(f.chip, 10, false);
	set_reg(f.l[2], 0xb0, 0);
	assert_int_equal(lapic_accept(f.l[2]), -1);
}

static void no_taker(void **s)
{
	(void)s;
	set_reg(f.l[3], 0xf0, 0xff);
	set_rte(&f, 9, TO(3) | LEVEL | 0x59);
	assert_false(irqchip_line(f.chip, 9, true));
	assert_false(rte(&f, 9) & REMOTE);
	/* The message is offered until somebody takes it. */
	set_reg(f.l[3], 0xf0, 0x1ff);
	serve(f.l[3], 0x59);
}

static void modes(void **s)
{
	(void)s;
	for (unsigned i = 0; i < 4; i++)
		set_reg(f.l[i], 0xd0, 1u << (24 + i));
	set_reg(f.l[0], 0x80, 0x10);
	set_reg(f.l[1], 0x80, 0x20);
	set_rte(&f, 1, TO(3) | 0x900 | 0x61); /* lowest of 0 and 1 */
	assert_true(irqchip_line(f.chip, 1, true));
	assert_int_equal(lapic_pending(f.l[0]), 0x61);
	assert_int_equal(lapic_pending(f.l[1]), -1);
	set_rte(&f, 2, TO(2) | 0x400);
	assert_true(irqchip_line(f.chip, 2, true));
	assert_int_equal(lapic_events(f.l[2]), LAPIC_EV_NMI);
	set_rte(&f, 3, TO(2) | 0x500);
	assert_true(irqchip_line(f.chip, 3, true));
	assert_true(lapic_events(f.l[2]) & LAPIC_EV_INIT);
	set_rte(&f, 4, TO(1) | 0x700); /* ExtINT: no 8259 */
	assert_false(irqchip_line(f.chip, 4, true));
	set_rte(&f, 6, TO(1) | 0x600); /* reserved */
	assert_false(irqchip_line(f.chip, 6, true));
	assert_int_equal(lapic_events(f.l[1]), 0);
	/* Polarity is how a board is wired, not what a device means. */
	set_rte(&f, 7, TO(3) | 0x2000 | 0x71);
	set_reg(f.l[3], 0xd0, 0);
	assert_true(irqchip_line(f.chip, 7, true));
	serve(f.l[3], 0x71);
}

static void state(void **s)
{
	struct hv_x86_vm_state a = { 0 }, b = { 0 };

	(void)s;
	set_rte(&f, 9, TO(2) | LEVEL | 0x59);
	set_rte(&f, 4, TO(1) | 0x44);
	irqchip_line(f.chip, 9, true);
	irqchip_line(f.chip, 4, true);
	irqchip_get_state(f.chip, &a);
	assert_int_equal(a.ioapic_irr, 1 << 9 | 1 << 4);
	assert_int_equal(a.ioapic_redir[9], TO(2) | LEVEL | REMOTE | 0x59);
	fixture_drop(&f);
	fixture_make(&f, 4);
	irqchip_set_state(f.chip, &a);
	irqchip_get_state(f.chip, &b);
	assert_memory_equal(&a, &b, sizeof(a));
	assert_false(irqchip_line(f.chip, 4, true)); /* was up: no edge */
	memset(&a, 0xff, sizeof(a));
	irqchip_set_state(f.chip, &a);
	for (unsigned i = 0; i < 24; i++)
		irqchip_line(f.chip, i, i & 1);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(registers),	  T(edge),
		T(level),	  T(masked_edge_is_lost),
		T(shared_vector), T(masked_level_waits),
		T(no_taker),	  T(to_edge_clears_remote),
		T(modes),	  T(state),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
