/* Creation and destruction of the interrupt hardware of a VM. */
#include "irq/x86/irqchip.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bug.h"
#include "base/clock.h"
#include "base/err.h"
#include "irq/x86/chip.h"

static uint64_t host_now(void *ctx)
{
	(void)ctx;
	return clock_ns();
}

int irqchip_create(struct irqchip **out, const struct irqchip_config *cfg,
		   struct err *e)
{
	struct irqchip *c;
	int rc;

	bug_on(!cfg->wake || !cfg->tsc || !cfg->tsc_khz);
	if (cfg->ncpus < 1 || cfg->ncpus > IRQCHIP_MAX_CPUS)
		return err_set(e, -EINVAL,
			       "%u CPUs: the interrupt controller has 1 to %u",
			       cfg->ncpus, IRQCHIP_MAX_CPUS);
	c = calloc(1, sizeof(*c) + cfg->ncpus * sizeof(c->lapic[0]));
	if (!c)
		return err_set(e, -ENOMEM, "no memory for %u local APICs",
			       cfg->ncpus);
	c->cfg = *cfg;
	if (!c->cfg.now)
		c->cfg.now = host_now;
	pthread_mutex_init(&c->ioapic.lock, NULL);
	ioapic_init(&c->ioapic);
	for (unsigned i = 0; i < cfg->ncpus; i++) {
		struct lapic *l = &c->lapic[i];

		l->chip = c;
		l->index = i;
		l->timer.deadline = UINT64_MAX;
		pthread_mutex_init(&l->timer.lock, NULL);
		lapic_reset(l, false);
	}
	if (cfg->host_timer) {
		rc = host_timer_create(&c->timer, c);
		if (rc) {
			irqchip_destroy(c);
			return err_set(e, rc,
				       "cannot start the APIC timer thread: %s",
				       strerror(-rc));
		}
	}
	*out = c;
	return 0;
}

void irqchip_destroy(struct irqchip *c)
{
	if (!c)
		return;
	host_timer_destroy(c->timer);
	for (unsigned i = 0; i < c->cfg.ncpus; i++)
		pthread_mutex_destroy(&c->lapic[i].timer.lock);
	pthread_mutex_destroy(&c->ioapic.lock);
	free(c);
}

struct lapic *irqchip_lapic(struct irqchip *c, unsigned index)
{
	bug_on(index >= c->cfg.ncpus);
	return &c->lapic[index];
}
