/*
 * The APIC timer: one-shot, periodic, TSC-deadline.
 *
 * Theory of operation: whatever the mode, an armed timer is one absolute time
 * on the host's monotonic clock, `deadline`. Nothing counts. Whoever notices
 * first that it has passed fires it under the lock: the host timer's thread
 * while the vCPU runs, the vCPU itself when it comes back from a HLT sleep
 * (which ends exactly then, so the host timer is disarmed meanwhile). Firing
 * twice is impossible because firing moves the deadline.
 *
 * In TSC-deadline mode the MSR is what counts: when the host clock says it is
 * time and the guest's TSC does not yet, the timer is armed again for the rest.
 */
#include "irq/x86/chip.h"

#include "base/clock.h"
#include "base/util.h"

#define NEVER UINT64_MAX
/* A period shorter than this would only keep the host busy. */
#define PERIOD_MIN_NS 50000ull
/* Deadlines further off than this are looked at again then. */
#define HORIZON_NS (3600 * NSEC_PER_SEC)

static unsigned mode_of(uint32_t lvt)
{
	return lvt >> 17 & 3;
}

/* Count length in ns: the divide value's bits 3, 1, 0 are n of 2^(n + 1). */
static uint64_t tick_ns(uint32_t divide)
{
	unsigned n = ((divide & 3) | (divide >> 1 & 4)) + 1;

	return 1ull << (n & 7);
}

static void arm(struct lapic *l, uint64_t deadline)
{
	struct lapic_timer *t = &l->timer;

	if (peek(&t->deadline) == deadline)
		return;
	__atomic_store_n(&t->deadline, deadline, __ATOMIC_RELEASE);
	if (l->chip->timer && !t->asleep)
		host_timer_arm(l->chip->timer, l->index, deadline);
}

static void arm_count(struct lapic *l, uint32_t left)
{
	struct lapic_timer *t = &l->timer;
	uint64_t tick = tick_ns(t->divide);
	bool periodic = mode_of(l->lvt[0]) == TIMER_PERIODIC;

	t->period = t->initial * tick;
	if (periodic)
		t->period = max_of(t->period, PERIOD_MIN_NS);
	if (!left)
		arm(l, NEVER);
	else if (periodic && left == t->initial)
		arm(l, chip_now(l->chip) + t->period);
	else
		arm(l, chip_now(l->chip) + left * tick);
}

/* Host time at which the TSC reaches tsc_deadline; at once when it has. */
static bool arm_tsc(struct lapic *l)
{
	struct lapic_timer *t = &l->timer;
	struct irqchip *c = l->chip;
	uint64_t now = chip_now(c);
	uint64_t tsc = c->cfg.tsc(c->cfg.ctx, l->index);
	unsigned __int128 ns;

	if (t->tsc_deadline <= tsc)
		return false;
	ns = (unsigned __int128)(t->tsc_deadline - tsc) * 1000000;
	ns = (ns + c->cfg.tsc_khz - 1) / c->cfg.tsc_khz;
	arm(l, now + (ns > HORIZON_NS ? HORIZON_NS : (uint64_t)ns));
	return true;
}

static void fire(struct lapic *l)
{
	struct lapic_timer *t = &l->timer;
	uint64_t now = chip_now(l->chip);

	switch (mode_of(peek(&l->lvt[0]))) {
	case TIMER_TSC_DEADLINE:
		if (t->tsc_deadline && arm_tsc(l))
			return;
		t->tsc_deadline = 0;
		arm(l, NEVER);
		break;
	case TIMER_PERIODIC:
		/* Shots missed meanwhile are one: IRR has one bit for them. */
		arm(l, t->deadline + ((now - t->deadline) / t->period + 1) *
					     t->period);
		break;
	default:
		arm(l, NEVER);
	}
	lapic_local(l, REG_LVT_TIMER);
}

uint64_t lapic_timer_deadline(const struct lapic *l)
{
	return __atomic_load_n(&l->timer.deadline, __ATOMIC_ACQUIRE);
}

/* Lock held. */
static void fire_due(struct lapic *l)
{
	uint64_t at = l->timer.deadline;

	if (at != NEVER && chip_now(l->chip) >= at)
		fire(l);
}

void lapic_timer_poll(struct lapic *l)
{
	uint64_t at = lapic_timer_deadline(l);

	if (at == NEVER || chip_now(l->chip) < at)
		return;
	pthread_mutex_lock(&l->timer.lock);
	fire_due(l);
	pthread_mutex_unlock(&l->timer.lock);
}

/* Lock for a register write: what was due before comes first. */
static void begin_write(struct lapic *l)
{
	pthread_mutex_lock(&l->timer.lock);
	fire_due(l);
}

uint64_t lapic_sleep_begin(struct lapic *l)
{
	struct lapic_timer *t = &l->timer;

	pthread_mutex_lock(&t->lock);
	t->asleep = true;
	if (l->chip->timer && t->deadline != NEVER)
		host_timer_arm(l->chip->timer, l->index, NEVER);
	pthread_mutex_unlock(&t->lock);
	return lapic_timer_deadline(l);
}

void lapic_sleep_end(struct lapic *l)
{
	struct lapic_timer *t = &l->timer;

	lapic_timer_poll(l);
	pthread_mutex_lock(&t->lock);
	t->asleep = false;
	if (l->chip->timer && t->deadline != NEVER)
		host_timer_arm(l->chip->timer, l->index, t->deadline);
	pthread_mutex_unlock(&t->lock);
}

static uint32_t count_left(struct lapic *l)
{
	struct lapic_timer *t = &l->timer;
	uint64_t now = chip_now(l->chip), left, tick = tick_ns(t->divide);

	if (t->deadline == NEVER || mode_of(l->lvt[0]) == TIMER_TSC_DEADLINE)
		return 0;
	if (now < t->deadline)
		left = t->deadline - now;
	else if (mode_of(l->lvt[0]) == TIMER_PERIODIC)
		left = t->period - (now - t->deadline) % t->period;
	else
		left = 0;
	return (uint32_t)min_of(left / tick, (uint64_t)t->initial);
}

uint32_t lapic_timer_count(struct lapic *l)
{
	uint32_t left;

	pthread_mutex_lock(&l->timer.lock);
	left = count_left(l);
	pthread_mutex_unlock(&l->timer.lock);
	return left;
}

void lapic_timer_set_initial(struct lapic *l, uint32_t count)
{
	struct lapic_timer *t = &l->timer;

	begin_write(l);
	if (mode_of(l->lvt[0]) != TIMER_TSC_DEADLINE) {
		poke(&t->initial, count);
		arm_count(l, count);
	}
	pthread_mutex_unlock(&t->lock);
}

/* The counts still to go stay; each now takes another time. */
void lapic_timer_set_divide(struct lapic *l, uint32_t divide)
{
	struct lapic_timer *t = &l->timer;
	uint32_t left;

	begin_write(l);
	left = count_left(l);
	poke(&t->divide, divide);
	if (left)
		arm_count(l, left);
	pthread_mutex_unlock(&t->lock);
}

void lapic_timer_set_lvt(struct lapic *l, uint32_t lvt)
{
	struct lapic_timer *t = &l->timer;
	unsigned old = mode_of(l->lvt[0]), new = mode_of(lvt);
	uint32_t left;

	begin_write(l);
	left = count_left(l);
	poke(&l->lvt[0], lvt);
	if (old != new &&
	    (old == TIMER_TSC_DEADLINE || new == TIMER_TSC_DEADLINE)) {
		/* Into or out of TSC-deadline mode: disarmed. */
		poke(&t->initial, 0);
		t->tsc_deadline = 0;
		arm(l, NEVER);
	} else if (old != new &&left) {
		arm_count(l, left);
	}
	pthread_mutex_unlock(&t->lock);
}

void lapic_timer_set_deadline(struct lapic *l, uint64_t tsc)
{
	struct lapic_timer *t = &l->timer;

	begin_write(l);
	if (mode_of(l->lvt[0]) == TIMER_TSC_DEADLINE) {
		t->tsc_deadline = tsc;
		if (!tsc)
			arm(l, NEVER);
		else if (!arm_tsc(l))
			fire(l);
	}
	pthread_mutex_unlock(&t->lock);
}

uint64_t lapic_timer_get_deadline(struct lapic *l)
{
	uint64_t tsc;

	pthread_mutex_lock(&l->timer.lock);
	tsc = l->timer.tsc_deadline;
	pthread_mutex_unlock(&l->timer.lock);
	return tsc;
}

void lapic_tsc_changed(struct lapic *l)
{
	struct lapic_timer *t = &l->timer;

	pthread_mutex_lock(&t->lock);
	if (t->tsc_deadline && !arm_tsc(l))
		fire(l);
	pthread_mutex_unlock(&t->lock);
}

void lapic_timer_restore(struct lapic *l, uint32_t initial, uint32_t left,
			 uint32_t divide, uint64_t tsc_deadline)
{
	struct lapic_timer *t = &l->timer;

	pthread_mutex_lock(&t->lock);
	poke(&t->initial, initial);
	poke(&t->divide, divide & 0xb);
	t->tsc_deadline = 0;
	if (mode_of(l->lvt[0]) == TIMER_TSC_DEADLINE) {
		t->tsc_deadline = tsc_deadline;
		if (!tsc_deadline)
			arm(l, NEVER);
		else if (!arm_tsc(l))
			fire(l);
	} else {
		arm_count(l, min_of(left, initial));
	}
	pthread_mutex_unlock(&t->lock);
}
