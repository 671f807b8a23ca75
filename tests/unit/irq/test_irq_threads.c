/*
 * Interrupts posted by several threads at once: none is lost, none is doubled
 * beyond what one IRR bit allows. Run it under SAN=thread too.
 */
#include "irq_fixture.h"

#include <pthread.h>
#include <semaphore.h>
#include <string.h>

#include "base/clock.h"

#define POSTERS 3
#define ROUNDS	20000

static struct vm {
	struct irqchip *chip;
	sem_t wake;
	unsigned acked[POSTERS]; /* atomic: rounds seen by the vCPU */
	int done; /* atomic */
} vm;

static void wake(void *ctx, unsigned i)
{
	(void)ctx;
	if (i == 0)
		sem_post(&vm.wake);
}

static uint64_t tsc(void *ctx, unsigned i)
{
	(void)ctx;
	(void)i;
	return clock_ns();
}

/*
 * Each poster waits for the acknowledgement of its round before the next, so a
 * lost interrupt is a hang (and the runner's timeout), a doubled one a count
 * that is too high.
 */
static void *poster(void *arg)
{
	unsigned id = (unsigned)(uintptr_t)arg;

	for (unsigned n = 0; n < ROUNDS; n++) {
		if (id == 2) {
			irqchip_line(vm.chip, 9, true);
		} else {
			irqchip_msi(vm.chip, 0xfee00000, 0x40 + id * 0x20);
		}
		while (__atomic_load_n(&vm.acked[id], __ATOMIC_ACQUIRE) <= n)
			sched_yield();
	}
	return NULL;
}

static void *vcpu(void *arg)
{
	struct lapic *l = irqchip_lapic(vm.chip, 0);

	(void)arg;
	while (!__atomic_load_n(&vm.done, __ATOMIC_ACQUIRE)) {
		int v;

		sem_wait(&vm.wake);
		while ((v = lapic_accept(l)) >= 0) {
			unsigned id = v == 0xee ? POSTERS
						: (unsigned)(v - 0x40) / 0x20;

			if (id == 2)
				irqchip_line(vm.chip, 9, false);
			set_reg(l, 0xb0, 0);
			if (id < POSTERS)
				__atomic_fetch_add(&vm.acked[id], 1,
						   __ATOMIC_RELEASE);
		}
	}
	return NULL;
}

static void posters(void **s)
{
	struct irqchip_config c = {
		.ncpus = 2,
		.tsc_khz = 1000000,
		.wake = wake,
		.tsc = tsc,
		.host_timer = true,
	};
	pthread_t t[POSTERS], cpu;

	(void)s;
	sem_init(&vm.wake, 0, 0);
	assert_int_equal(irqchip_create(&vm.chip, &c, NULL), 0);
	set_reg(irqchip_lapic(vm.chip, 0), 0xf0, 0x1ff);
	/* A periodic timer from the host thread on top. */
	set_reg(irqchip_lapic(vm.chip, 0), 0x3e0, 0xb);
	set_reg(irqchip_lapic(vm.chip, 0), 0x320, 0x200ee);
	set_reg(irqchip_lapic(vm.chip, 0), 0x380, 100000);
	irqchip_ioapic_write(vm.chip, 0, 4, 0x22);
	irqchip_ioapic_write(vm.chip, 0x10, 4, 0x8080);
	pthread_create(&cpu, NULL, vcpu, NULL);
	for (uintptr_t i = 0; i < POSTERS; i++)
		pthread_create(&t[i], NULL, poster, (void *)i);
	for (int i = 0; i < POSTERS; i++)
		pthread_join(t[i], NULL);
	__atomic_store_n(&vm.done, 1, __ATOMIC_RELEASE);
	sem_post(&vm.wake);
	pthread_join(cpu, NULL);
	for (int i = 0; i < POSTERS; i++)
		assert_int_equal(vm.acked[i], ROUNDS);
	irqchip_destroy(vm.chip);
	sem_destroy(&vm.wake);
}

/* Two vCPUs that answer each other's IPIs, each owning its own LAPIC. */
static sem_t bell[2];
static struct irqchip *pair;

static void ring(void *ctx, unsigned i)
{
	(void)ctx;
	sem_post(&bell[i]);
}

static void *player(void *arg)
{
	unsigned me = (unsigned)(uintptr_t)arg;
	struct lapic *l = irqchip_lapic(pair, me);

	set_reg(l, 0xf0, 0x1ff);
	for (int n = 0; n < ROUNDS; n++) {
		int v;

		if (me == 0)
			ipi(l, 1, 0x4050);
		while ((v = lapic_accept(l)) < 0)
			sem_wait(&bell[me]);
		assert_int_equal(v, 0x50);
		set_reg(l, 0xb0, 0);
		if (me == 1)
			ipi(l, 0, 0x4050);
	}
	return NULL;
}

static void ping_pong(void **s)
{
	struct irqchip_config c = {
		.ncpus = 2,
		.tsc_khz = 1000000,
		.wake = ring,
		.tsc = tsc,
	};
	pthread_t t[2];

	(void)s;
	sem_init(&bell[0], 0, 0);
	sem_init(&bell[1], 0, 0);
	assert_int_equal(irqchip_create(&pair, &c, NULL), 0);
	set_reg(irqchip_lapic(pair, 1), 0xf0, 0x1ff);
	for (uintptr_t i = 0; i < 2; i++)
		pthread_create(&t[i], NULL, player, (void *)i);
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	irqchip_destroy(pair);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(posters),
		cmocka_unit_test(ping_pong),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
