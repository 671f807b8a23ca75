/* The register page of KVM_GET_LAPIC, in and out. */
#include "irq/x86/chip.h"

#include <string.h>

#include "base/bytes.h"

static void put(uint8_t *page, unsigned reg, uint64_t val)
{
	put_le32(page + reg * 16, (uint32_t)val);
}

static uint32_t get(const uint8_t *page, unsigned reg)
{
	return get_le32(page + reg * 16);
}

static void put_set(uint8_t *page, unsigned reg, const uint64_t set[4])
{
	for (unsigned i = 0; i < 8; i++)
		put(page, reg + i, peek(&set[i / 2]) >> (i & 1) * 32);
}

static void get_set(const uint8_t *page, unsigned reg, uint64_t set[4])
{
	for (unsigned i = 0; i < 4; i++)
		__atomic_store_n(&set[i],
				 get(page, reg + 2 * i) |
					 (uint64_t)get(page, reg + 2 * i + 1)
						 << 32,
				 __ATOMIC_SEQ_CST);
}

void lapic_get_state(struct lapic *l, uint8_t page[1024],
		     uint64_t *tsc_deadline)
{
	memset(page, 0, 1024);
	put(page, REG_ID, (uint64_t)l->index << 24);
	put(page, REG_VERSION, LAPIC_VERSION);
	put(page, REG_TPR, l->tpr);
	put(page, REG_PPR, lapic_ppr(l));
	put(page, REG_LDR, l->ldr);
	put(page, REG_DFR, l->dfr);
	put(page, REG_SVR, l->svr);
	put_set(page, REG_ISR, l->isr);
	put_set(page, REG_TMR, l->tmr);
	put_set(page, REG_IRR, l->irr);
	put(page, REG_ESR, l->esr);
	put(page, REG_ICR, l->icr);
	put(page, REG_ICR2, l->icr >> 32);
	for (unsigned i = 0; i < LVT_COUNT; i++)
		put(page, REG_LVT_TIMER + i, l->lvt[i]);
	put(page, REG_TMICT, l->timer.initial);
	put(page, REG_TMCCT, lapic_timer_count(l));
	put(page, REG_TDCR, l->timer.divide);
	*tsc_deadline = lapic_timer_get_deadline(l);
}

void lapic_set_state(struct lapic *l, const uint8_t page[1024],
		     uint64_t tsc_deadline)
{
	/* The LDR of an x2APIC follows from its ID. */
	if (!lapic_x2apic(l))
		poke(&l->ldr, get(page, REG_LDR) & 0xff000000);
	poke(&l->tpr, get(page, REG_TPR) & 0xff);
	poke(&l->dfr, get(page, REG_DFR) | 0x0fffffff);
	poke(&l->svr, get(page, REG_SVR) & 0x3ff);
	get_set(page, REG_ISR, l->isr);
	get_set(page, REG_TMR, l->tmr);
	get_set(page, REG_IRR, l->irr);
	l->esr = get(page, REG_ESR);
	poke(&l->esr_pending, 0);
	l->icr = get(page, REG_ICR) | (uint64_t)get(page, REG_ICR2) << 32;
	for (unsigned i = 1; i < LVT_COUNT; i++)
		poke(&l->lvt[i], get(page, REG_LVT_TIMER + i) & 0x1b7ff);
	pthread_mutex_lock(&l->timer.lock);
	poke(&l->lvt[0], get(page, REG_LVT_TIMER) & 0x700ff);
	pthread_mutex_unlock(&l->timer.lock);
	lapic_timer_restore(l, get(page, REG_TMICT), get(page, REG_TMCCT),
			    get(page, REG_TDCR), tsc_deadline);
	lapic_wake(l);
}
