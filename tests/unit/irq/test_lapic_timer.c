/* The APIC timer on a fake clock, then on the host's. */
#include "irq_fixture.h"

#include <pthread.h>
#include <string.h>

#include "base/clock.h"

#define NEVER UINT64_MAX

static struct fixture f;

static int setup(void **s)
{
	(void)s;
	fixture_make(&f, 2);
	return 0;
}

static int teardown(void **s)
{
	(void)s;
	fixture_drop(&f);
	return 0;
}

static void one_shot(void **s)
{
	struct lapic *l = f.l[0];
	uint64_t t0 = f.now;

	(void)s;
	set_reg(l, 0x320, 0x30);
	set_reg(l, 0x3e0, 0x3); /* divide by 16 */
	set_reg(l, 0x380, 1000);
	assert_int_equal(lapic_timer_deadline(l), t0 + 16000);
	assert_int_equal(reg(l, 0x390), 1000);
	f.now = t0 + 8008;
	assert_int_equal(reg(l, 0x390), 499);
	lapic_timer_poll(l);
	assert_int_equal(lapic_pending(l), -1);
	f.now = t0 + 16000;
	assert_int_equal(reg(l, 0x390), 0);
	fixture_wakes(&f, 0);
	lapic_timer_poll(l);
	assert_int_equal(fixture_wakes(&f, 0), 1);
	serve(l, 0x30);
	assert_int_equal(lapic_timer_deadline(l), NEVER);
	f.now += 100000;
	lapic_timer_poll(l);
	assert_int_equal(lapic_pending(l), -1);
	set_reg(l, 0x380, 1000);
	set_reg(l, 0x380, 0); /* stops it */
	assert_int_equal(lapic_timer_deadline(l), NEVER);
}

/* A write to the timer does not take back an interrupt that was due before. */
static void due_before_write(void **s)
{
	struct lapic *l = f.l[0];

	(void)s;
	set_reg(l, 0x320, 0x30);
	set_reg(l, 0x3e0, 0xb); /* divide by 1 */
	set_reg(l, 0x380, 1);
	f.now += 10;
	set_reg(l, 0x320, 0x20031); /* periodic, another vector */
	serve(l, 0x30);
	assert_int_equal(lapic_timer_deadline(l), NEVER);
	set_reg(l, 0x320, 0x30);
	set_reg(l, 0x380, 1);
	f.now += 10;
	set_reg(l, 0x320, 0x10030); /* masked */
	serve(l, 0x30);
	set_reg(l, 0x320, 0x30);
	set_reg(l, 0x380, 1);
	f.now += 10;
	set_reg(l, 0x380, 1000);
	serve(l, 0x30);
	assert_int_equal(lapic_timer_deadline(l), f.now + 1000);
}

static void divisors(void **s)
{
	static const struct {
		uint32_t tdcr;
		unsigned div;
	} t[] = { { 0, 2 },  { 1, 4 },	{ 2, 8 },    { 3, 16 },
		  { 8, 32 }, { 9, 64 }, { 10, 128 }, { 11, 1 } };

	(void)s;
	for (int i = 0; i < 8; i++) {
		set_reg(f.l[0], 0x3e0, t[i].tdcr);
		set_reg(f.l[0], 0x380, 100);
		assert_int_equal(lapic_timer_deadline(f.l[0]),
				 f.now + 100 * t[i].div);
	}
	/* While it runs, the counts left stay. */
	set_reg(f.l[0], 0x380, 1000);
	f.now += 400;
	set_reg(f.l[0], 0x3e0, 8);
	assert_int_equal(reg(f.l[0], 0x390), 600);
	assert_int_equal(lapic_timer_deadline(f.l[0]), f.now + 600 * 32);
}

static void periodic(void **s)
{
	struct lapic *l = f.l[0];
	uint64_t t0 = f.now;

	(void)s;
	set_reg(l, 0x3e0, 0xb);
	set_reg(l, 0x320, 0x20031);
	set_reg(l, 0x380, 1000000);
	for (int i = 1; i < 5; i++) {
		f.now = t0 + (uint64_t)i * 1000000;
		lapic_timer_poll(l);
		serve(l, 0x31);
		assert_int_equal(lapic_timer_deadline(l), f.now + 1000000);
	}
	/* Late by three and a half: one interrupt, and in phase again. */
	f.now += 3500000;
	assert_int_equal(reg(l, 0x390), 500000);
	lapic_timer_poll(l);
	serve(l, 0x31);
	assert_int_equal(lapic_timer_deadline(l), f.now + 500000);
	/* To one-shot: the shot under way is the last. */
	set_reg(l, 0x320, 0x31);
	f.now += 500000;
	lapic_timer_poll(l);
	serve(l, 0x31);
	assert_int_equal(lapic_timer_deadline(l), NEVER);
}

static void absurd_period(void **s)
{
	(void)s;
	set_reg(f.l[0], 0x3e0, 0xb);
	set_reg(f.l[0], 0x320, 0x20031);
	set_reg(f.l[0], 0x380, 1);
	assert_true(lapic_timer_deadline(f.l[0]) >= f.now + 50000);
}

static void masked(void **s)
{
	struct lapic *l = f.l[0];

	(void)s;
	set_reg(l, 0x320, 0x10032);
	set_reg(l, 0x380, 10);
	f.now += 20;
	lapic_timer_poll(l);
	set_reg(l, 0x320, 0x32);
	assert_int_equal(lapic_pending(l), -1);
	assert_int_equal(lapic_timer_deadline(l), NEVER);
}

static void illegal_vector(void **s)
{
	(void)s;
	set_reg(f.l[0], 0x320, 0x0f);
	set_reg(f.l[0], 0x380, 10);
	f.now += 20;
	lapic_timer_poll(f.l[0]);
	set_reg(f.l[0], 0x280, 0);
	assert_int_equal(reg(f.l[0], 0x280), 0x40);
}

static void tsc_deadline(void **s)
{
	struct lapic *l = f.l[1];
	uint64_t tsc = f.now * 2;

	(void)s;
	wrmsr(l, 0x6e0, tsc + 10); /* not in this mode: ignored */
	assert_int_equal(rdmsr(l, 0x6e0), 0);
	assert_int_equal(lapic_timer_deadline(l), NEVER);
	set_reg(l, 0x320, 0x400ec);
	wrmsr(l, 0x6e0, tsc + 20001);
	assert_int_equal(rdmsr(l, 0x6e0), tsc + 20001);
	assert_int_equal(lapic_timer_deadline(l), f.now + 10001); /* up */
	assert_int_equal(reg(l, 0x390), 0);
	set_reg(l, 0x380, 5); /* no initial count in this mode */
	assert_int_equal(reg(l, 0x380), 0);
	f.now += 10000;
	lapic_timer_poll(l);
	assert_int_equal(lapic_pending(l), -1);
	f.now += 1;
	lapic_timer_poll(l);
	serve(l, 0xec);
	assert_int_equal(rdmsr(l, 0x6e0), 0);
	wrmsr(l, 0x6e0, 1); /* in the past: now */
	serve(l, 0xec);
	assert_int_equal(rdmsr(l, 0x6e0), 0);
	wrmsr(l, 0x6e0, f.now * 2 + 100);
	wrmsr(l, 0x6e0, 0); /* disarmed */
	assert_int_equal(lapic_timer_deadline(l), NEVER);
	/* Leaving the mode disarms, and coming back finds nothing. */
	wrmsr(l, 0x6e0, f.now * 2 + 100);
	set_reg(l, 0x320, 0xec);
	assert_int_equal(lapic_timer_deadline(l), NEVER);
	set_reg(l, 0x320, 0x400ec);
	assert_int_equal(rdmsr(l, 0x6e0), 0);
	/* The far end of time does not wrap. */
	wrmsr(l, 0x6e0, UINT64_MAX);
	assert_true(lapic_timer_deadline(l) > f.now + NSEC_PER_SEC);
	f.now = lapic_timer_deadline(l);
	lapic_timer_poll(l);
	assert_int_equal(lapic_pending(l), -1);
	assert_true(lapic_timer_deadline(l) > f.now);
}

static void tsc_moves(void **s)
{
	struct lapic *l = f.l[1];

	(void)s;
	set_reg(l, 0x320, 0x400ec);
	wrmsr(l, 0x6e0, f.now * 2 + 2000);
	/* A TSC that slows down: the host's clock is early, the guest's not. */
	f.tsc_offset = -1000;
	f.now += 1000;
	lapic_timer_poll(l);
	assert_int_equal(lapic_pending(l), -1);
	assert_int_equal(lapic_timer_deadline(l), f.now + 500);
	/* The guest turns it forward. */
	f.tsc_offset = 0;
	lapic_tsc_changed(l);
	serve(l, 0xec);
}

static void sleeping(void **s)
{
	struct lapic *l = f.l[0];

	(void)s;
	assert_int_equal(lapic_sleep_begin(l), NEVER);
	lapic_sleep_end(l);
	set_reg(l, 0x320, 0x30);
	set_reg(l, 0x380, 50);
	assert_int_equal(lapic_sleep_begin(l), f.now + 100);
	f.now += 100;
	lapic_sleep_end(l);
	serve(l, 0x30);
}

/* ---- with the host timer ---- */

struct real {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	uint64_t woken_ns;
};

static void real_wake(void *ctx, unsigned i)
{
	struct real *r = ctx;

	(void)i;
	pthread_mutex_lock(&r->lock);
	r->woken_ns = clock_ns();
	pthread_cond_signal(&r->cond);
	pthread_mutex_unlock(&r->lock);
}

static uint64_t real_tsc(void *ctx, unsigned i)
{
	(void)ctx;
	(void)i;
	return clock_ns();
}

static void host_timer(void **s)
{
	struct real r = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER,
			  0 };
	struct irqchip_config c = {
		.ncpus = 3,
		.tsc_khz = 1000000,
		.wake = real_wake,
		.tsc = real_tsc,
		.ctx = &r,
		.host_timer = true,
	};
	struct irqchip *chip;
	struct lapic *l;
	uint64_t at;

	(void)s;
	assert_int_equal(irqchip_create(&chip, &c, NULL), 0);
	l = irqchip_lapic(chip, 2);
	set_reg(l, 0xf0, 0x1ff);
	set_reg(l, 0x320, 0x400ec);
	for (int i = 0; i < 20; i++) {
		at = clock_ns() + 300000;
		pthread_mutex_lock(&r.lock);
		r.woken_ns = 0;
		pthread_mutex_unlock(&r.lock);
		wrmsr(l, 0x6e0, at);
		pthread_mutex_lock(&r.lock);
		while (!r.woken_ns)
			pthread_cond_wait(&r.cond, &r.lock);
		assert_true(r.woken_ns >= at);
		pthread_mutex_unlock(&r.lock);
		serve(l, 0xec);
	}
	/* Put off while asleep, taken up again after. */
	wrmsr(l, 0x6e0, clock_ns() + NSEC_PER_SEC * 1000);
	lapic_sleep_begin(l);
	lapic_sleep_end(l);
	irqchip_destroy(chip);
}

static void bad_config(void **s)
{
	struct irqchip_config c = { .tsc_khz = 1,
				    .wake = real_wake,
				    .tsc = real_tsc };
	struct irqchip *chip;

	(void)s;
	assert_int_not_equal(irqchip_create(&chip, &c, NULL), 0);
	c.ncpus = 256;
	assert_int_not_equal(irqchip_create(&chip, &c, NULL), 0);
	irqchip_destroy(NULL);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(one_shot),
		T(due_before_write),
		T(divisors),
		T(periodic),
		T(absurd_period),
		T(masked),
		T(illegal_vector),
		T(tsc_deadline),
		T(tsc_moves),
		T(sleeping),
		cmocka_unit_test(host_timer),
		cmocka_unit_test(bad_config),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
