/*
 * From an interrupt message to the LAPICs it means.
 *
 * Theory of operation: ICR, IOAPIC entry and MSI become one `struct irq_msg`;
 * deliver() matches it against each LAPIC's ID or LDR and posts. Posting is
 * lock-free: the trigger mode goes to TMR, then the bit to IRR, then wake(). A
 * vCPU clears its wake flag before it reads IRR, so whichever comes first it
 * sees the bit or is woken again. A bit that was already set was posted by
 * somebody who wakes, or has woken, for it.
 */
#include "irq/x86/chip.h"

static bool set_bit(uint64_t set[4], unsigned v)
{
	uint64_t bit = 1ull << (v & 63);

	return __atomic_fetch_or(&set[v >> 6], bit, __ATOMIC_SEQ_CST) & bit;
}

static void set_trigger(struct lapic *l, unsigned v, bool level)
{
	uint64_t bit = 1ull << (v & 63), *w = &l->tmr[v >> 6];

	if (!!(peek(w) & bit) == level)
		return;
	if (level)
		__atomic_fetch_or(w, bit, __ATOMIC_SEQ_CST);
	else
		__atomic_fetch_and(w, ~bit, __ATOMIC_SEQ_CST);
}

static bool post_vector(struct lapic *l, unsigned v, bool level)
{
	if (!(peek(&l->base) & APIC_BASE_ENABLE) ||
	    !(peek(&l->svr) & SVR_ENABLE))
		return false;
	set_trigger(l, v, level);
	/* Pairs with the vCPU's exchange of its wake flag: see above. */
	if (!set_bit(l->irr, v))
		lapic_wake(l);
	return true;
}

void lapic_error(struct lapic *l, unsigned bits)
{
	uint32_t lvt = peek(&l->lvt[LVT(REG_LVT_ERROR)]);

	__atomic_fetch_or(&l->esr_pending, bits, __ATOMIC_SEQ_CST);
	/* An illegal vector in LVT_ERROR itself is recorded, not reported. */
	if (!(lvt & LVT_MASKED) && (lvt & 0xff) >= 16)
		post_vector(l, lvt & 0xff, false);
}

void lapic_post_event(struct lapic *l, unsigned event)
{
	__atomic_fetch_or(&l->events, event, __ATOMIC_SEQ_CST);
	lapic_wake(l);
}

/* An INIT takes back a SIPI that came before it. */
static void post_init(struct lapic *l, uint32_t clear, uint32_t set)
{
	uint32_t old = peek(&l->events);

	while (!__atomic_compare_exchange_n(&l->events, &old,
					    (old & ~clear) | set, false,
					    __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
		;
	lapic_wake(l);
}

bool deliver_to(struct lapic *l, unsigned mode, uint8_t vector, bool level)
{
	bool on = peek(&l->base) & APIC_BASE_ENABLE;

	switch (mode) {
	case DM_FIXED:
	case DM_LOWEST:
		if (vector < 16) {
			lapic_error(l, ESR_RECEIVE_ILLEGAL);
			return false;
		}
		return post_vector(l, vector, level);
	case DM_NMI:
		if (on)
			lapic_post_event(l, LAPIC_EV_NMI);
		return on;
	case DM_INIT:
		if (on)
			post_init(l, LAPIC_EV_SIPI | 0xff00, LAPIC_EV_INIT);
		return on;
	case DM_SIPI:
		if (on)
			post_init(l, 0xff00,
				  LAPIC_EV_SIPI | (uint32_t)vector << 8);
		return on;
	default: /* no SMM, no 8259 */
		return false;
	}
}

void lapic_local(struct lapic *l, unsigned reg)
{
	uint32_t lvt = peek(&l->lvt[LVT(reg)]);

	if (lvt & LVT_MASKED)
		return;
	/* The timer and error entries have no delivery mode: fixed. */
	deliver_to(l, lvt >> 8 & 7, lvt & 0xff, false);
}

static bool matches(const struct lapic *l, const struct irq_msg *m)
{
	uint32_t ldr = peek(&l->ldr);

	if (m->dest == (m->wide ? 0xffffffffu : 0xffu))
		return true;
	if (!m->logical)
		return m->dest == l->index;
	if (lapic_x2apic(l))
		return m->dest >> 16 == ldr >> 16 && (m->dest & ldr & 0xffff);
	if (m->dest > 0xff)
		return false;
	ldr >>= 24;
	if (peek(&l->dfr) >> 28 == 0xf)
		return ldr & m->dest;
	return (m->dest >> 4 == 0xf || m->dest >> 4 == ldr >> 4) &&
	       (ldr & m->dest & 0xf);
}

/* The enabled match of lowest priority; ties go round. */
static bool deliver_lowest(struct irqchip *c, const struct irq_msg *m)
{
	unsigned n = c->cfg.ncpus, best_ppr = 0x100, best = 0;
	unsigned first = __atomic_fetch_add(&c->rotate, 1, __ATOMIC_RELAXED);

	for (unsigned k = 0; k < n; k++) {
		unsigned i = (first + k) % n;
		struct lapic *l = &c->lapic[i];
		unsigned ppr;

		if (!matches(l, m) || !(peek(&l->svr) & SVR_ENABLE))
			continue;
		ppr = lapic_ppr(l);
		if (ppr < best_ppr) {
			best_ppr = ppr;
			best = i;
		}
	}
	return best_ppr < 0x100 &&
	       deliver_to(&c->lapic[best], DM_LOWEST, m->vector, m->level);
}

bool deliver(struct irqchip *c, const struct irq_msg *m)
{
	bool taken = false;

	if (m->mode == DM_LOWEST)
		return deliver_lowest(c, m);
	if (!m->logical && m->dest < c->cfg.ncpus)
		return deliver_to(&c->lapic[m->dest], m->mode, m->vector,
				  m->level);
	for (unsigned i = 0; i < c->cfg.ncpus; i++)
		if (matches(&c->lapic[i], m))
			taken |= deliver_to(&c->lapic[i], m->mode, m->vector,
					    m->level);
	return taken;
}

void deliver_icr(struct lapic *l, uint64_t icr)
{
	struct irqchip *c = l->chip;
	bool x2 = lapic_x2apic(l);
	struct irq_msg m = {
		.mode = icr >> 8 & 7,
		.vector = (uint8_t)icr,
		.logical = icr >> 11 & 1,
		.wide = x2,
		.dest = (uint32_t)(x2 ? icr >> 32 : icr >> 56),
	};

	/* The level de-assert of an INIT is a message of older buses. */
	if (m.mode == DM_INIT && (icr & 1 << 15) && !(icr & 1 << 14))
		return;
	if ((m.mode == DM_FIXED || m.mode == DM_LOWEST) && m.vector < 16) {
		lapic_error(l, ESR_SEND_ILLEGAL);
		return;
	}
	switch (icr >> 18 & 3) {
	case 0:
		deliver(c, &m);
		break;
	case 1:
		deliver_to(l, m.mode, m.vector, false);
		break;
	default:
		for (unsigned i = 0; i < c->cfg.ncpus; i++)
			if (i != l->index || (icr >> 18 & 3) == 2)
				deliver_to(&c->lapic[i], m.mode, m.vector,
					   false);
	}
}

bool irqchip_msi(struct irqchip *c, uint64_t addr, uint32_t data)
{
	struct irq_msg m = {
		.mode = data >> 8 & 7,
		.vector = (uint8_t)data,
		.level = data >> 15 & 1,
		.logical = addr >> 2 & 1,
		.dest = (uint32_t)((addr >> 12 & 0xff) |
				   (addr >> 5 & 0x7f) << 8 |
				   (addr >> 32 & 0xffffff00)),
	};

	if ((addr & 0xfff00000u) != IRQCHIP_LAPIC_BASE)
		return false;
	if (m.level && !(data & 1 << 14))
		return false; /* de-assert */
	if (m.mode == DM_SIPI)
		return false; /* reserved in MSI data */
	/* The redirection hint asks for one of the logical set. */
	if (m.mode == DM_FIXED && (addr & 8) && m.logical)
		m.mode = DM_LOWEST;
	return deliver(c, &m);
}
