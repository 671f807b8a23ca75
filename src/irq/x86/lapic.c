/*
 * The local APIC's registers and priorities (SDM vol. 3, chapter "APIC").
 *
 * Theory of operation: IRR is filled by anyone (deliver.c). ISR and TPR belong
 * to the vCPU; PPR is computed when asked for. A register write that may make
 * an interrupt deliverable (TPR, EOI) wakes the vCPU itself, so that its run
 * loop needs no knowledge of registers.
 *
 * xAPIC (MMIO) and x2APIC (MSR) share reg_read() and reg_write(); what differs
 * is which registers exist and that x2APIC faults on what is reserved.
 */
#include "irq/x86/chip.h"

int lapic_highest(const uint64_t set[4])
{
	for (int i = 3; i >= 0; i--) {
		uint64_t w = peek(&set[i]);

		if (w)
			return i * 64 + 63 - __builtin_clzll(w);
	}
	return -1;
}

unsigned lapic_ppr(const struct lapic *l)
{
	unsigned tpr = peek(&l->tpr);
	int isr = lapic_highest(l->isr);
	unsigned isrv = isr < 0 ? 0 : (unsigned)isr & 0xf0;

	return (tpr & 0xf0) >= isrv ? tpr : isrv;
}

int lapic_pending(const struct lapic *l)
{
	int v = lapic_highest(l->irr);

	if (v < 0 || !(l->base & APIC_BASE_ENABLE))
		return -1;
	return ((unsigned)v & 0xf0) > (lapic_ppr(l) & 0xf0) ? v : -1;
}

int lapic_accept(struct lapic *l)
{
	int v = lapic_pending(l);
	uint64_t bit = 1ull << (v & 63);

	if (v < 0)
		return -1;
	/*
	 * ISR first: whoever arbitrates by PPR in between sees this vCPU busy
	 * rather than free.
	 */
	poke(&l->isr[v >> 6], l->isr[v >> 6] | bit);
	__atomic_fetch_and(&l->irr[v >> 6], ~bit, __ATOMIC_SEQ_CST);
	return v;
}

static void recheck(struct lapic *l)
{
	if (lapic_pending(l) >= 0)
		lapic_wake(l);
}

static void eoi(struct lapic *l)
{
	int v = lapic_highest(l->isr);
	uint64_t bit = 1ull << (v & 63);

	if (v < 0)
		return;
	poke(&l->isr[v >> 6], l->isr[v >> 6] & ~bit);
	if (peek(&l->tmr[v >> 6]) & bit)
		ioapic_eoi(l->chip, (uint8_t)v);
	recheck(l);
}

static void set_tpr(struct lapic *l, uint32_t tpr)
{
	poke(&l->tpr, tpr & 0xff);
	recheck(l);
}

unsigned lapic_cr8(const struct lapic *l)
{
	return l->tpr >> 4;
}

void lapic_set_cr8(struct lapic *l, unsigned cr8)
{
	set_tpr(l, cr8 << 4);
}

unsigned lapic_events(const struct lapic *l)
{
	unsigned ev = __atomic_load_n(&l->events, __ATOMIC_ACQUIRE) & 0xff;

	return lapic_pending(l) >= 0 ? ev | LAPIC_EV_INTR : ev;
}

bool lapic_take(struct lapic *l, unsigned event)
{
	return __atomic_fetch_and(&l->events, ~event, __ATOMIC_SEQ_CST) & event;
}

int lapic_take_sipi(struct lapic *l)
{
	uint32_t old = __atomic_fetch_and(
		&l->events, ~(LAPIC_EV_SIPI | 0xff00u), __ATOMIC_SEQ_CST);

	return old & LAPIC_EV_SIPI ? (int)(old >> 8 & 0xff) : -1;
}

/* ---- mode and reset ---- */

static uint32_t x2apic_ldr(const struct lapic *l)
{
	return l->index >> 4 << 16 | 1u << (l->index & 15);
}

static void reset_registers(struct lapic *l)
{
	lapic_timer_restore(l, 0, 0, 0, 0);
	for (int i = 0; i < LVT_COUNT; i++)
		poke(&l->lvt[i], LVT_MASKED);
	for (int i = 0; i < 4; i++) {
		__atomic_store_n(&l->irr[i], 0, __ATOMIC_SEQ_CST);
		__atomic_store_n(&l->tmr[i], 0, __ATOMIC_SEQ_CST);
		poke(&l->isr[i], 0);
	}
	poke(&l->tpr, 0);
	poke(&l->svr, 0xff);
	poke(&l->dfr, 0xffffffff);
	poke(&l->ldr, lapic_x2apic(l) ? x2apic_ldr(l) : 0);
	l->icr = 0;
	l->esr = 0;
	poke(&l->esr_pending, 0);
}

void lapic_reset(struct lapic *l, bool init)
{
	if (!init) {
		poke(&l->base, IRQCHIP_LAPIC_BASE | APIC_BASE_ENABLE |
				       (l->index ? 0 : APIC_BASE_BSP));
		__atomic_store_n(&l->events, 0, __ATOMIC_SEQ_CST);
	}
	reset_registers(l);
}

uint64_t lapic_base(const struct lapic *l)
{
	return l->base;
}

bool lapic_set_base(struct lapic *l, uint64_t val)
{
	const uint64_t mode = APIC_BASE_ENABLE | APIC_BASE_X2APIC;
	uint64_t old = l->base & mode, new = val &mode;

	if (val & ~(APIC_BASE_ADDR | mode | APIC_BASE_BSP))
		return false;
	if (new == APIC_BASE_X2APIC)
		return false;
	if (old == mode && new == APIC_BASE_ENABLE)
		return false;
	if (!old && new == mode)
		return false;
	poke(&l->base, val);
	if (old && !new)
		reset_registers(l);
	else if (old != new)
		poke(&l->ldr, new == mode ? x2apic_ldr(l) : 0);
	return true;
}

bool lapic_mmio_hit(const struct lapic *l, uint64_t gpa)
{
	const uint64_t mode = APIC_BASE_ENABLE | APIC_BASE_X2APIC;

	return (l->base & mode) == APIC_BASE_ENABLE &&
	       ((gpa ^ l->base) & APIC_BASE_ADDR) == 0;
}

/* ---- registers ---- */

static uint32_t word_of(const uint64_t set[4], unsigned i)
{
	return (uint32_t)(peek(&set[i >> 1]) >> (i & 1) * 32);
}

/* False: no such register. */
static bool reg_read(struct lapic *l, unsigned reg, uint64_t *out)
{
	bool x2 = lapic_x2apic(l);

	switch (reg) {
	case REG_ID:
		*out = x2 ? l->index : l->index << 24;
		return true;
	case REG_VERSION:
		*out = LAPIC_VERSION;
		return true;
	case REG_TPR:
		*out = l->tpr;
		return true;
	case REG_APR:
	case REG_RRD:
	case REG_EOI:
		*out = 0;
		return !x2;
	case REG_PPR:
		*out = lapic_ppr(l);
		return true;
	case REG_LDR:
		*out = l->ldr;
		return true;
	case REG_DFR:
		*out = l->dfr;
		return !x2;
	case REG_SVR:
		*out = l->svr;
		return true;
	case REG_ISR ... REG_ISR + 7:
		*out = word_of(l->isr, reg - REG_ISR);
		return true;
	case REG_TMR ... REG_TMR + 7:
		*out = word_of(l->tmr, reg - REG_TMR);
		return true;
	case REG_IRR ... REG_IRR + 7:
		*out = word_of(l->irr, reg - REG_IRR);
		return true;
	case REG_ESR:
		*out = l->esr;
		return true;
	case REG_ICR:
		*out = x2 ? l->icr : (uint32_t)l->icr;
		return true;
	case REG_ICR2:
		*out = l->icr >> 32;
		return !x2;
	case REG_LVT_TIMER ... REG_LVT_ERROR:
		*out = l->lvt[LVT(reg)];
		return true;
	case REG_TMICT:
		*out = peek(&l->timer.initial);
		return true;
	case REG_TMCCT:
		*out = lapic_timer_count(l);
		return true;
	case REG_TDCR:
		*out = peek(&l->timer.divide);
		return true;
	default:
		return false;
	}
}

static uint32_t lvt_bits(unsigned reg)
{
	switch (reg) {
	case REG_LVT_TIMER:
		return 0x700ff;
	case REG_LVT_ERROR:
		return 0x100ff;
	case REG_LVT_LINT0:
	case REG_LVT_LINT1:
		return 0x1a7ff;
	default:
		return 0x107ff;
	}
}

static void write_lvt(struct lapic *l, unsigned reg, uint32_t val)
{
	val &= lvt_bits(reg);
	if (!(l->svr & SVR_ENABLE))
		val |= LVT_MASKED;
	if (reg == REG_LVT_TIMER)
		lapic_timer_set_lvt(l, val);
	else
		poke(&l->lvt[LVT(reg)], val);
}

static void write_svr(struct lapic *l, uint32_t val)
{
	uint32_t old = l->svr;

	poke(&l->svr, val & 0x3ff);
	if (!(val & SVR_ENABLE)) {
		for (int i = 0; i < LVT_COUNT; i++)
			poke(&l->lvt[i], l->lvt[i] | LVT_MASKED);
	} else if (!(old & SVR_ENABLE)) {
		ioapic_resample(l->chip);
	}
}

static void write_esr(struct lapic *l)
{
	l->esr = __atomic_exchange_n(&l->esr_pending, 0, __ATOMIC_SEQ_CST);
}

/* Which bits an x2APIC accepts; false: the register cannot be written. */
static bool x2apic_writable(unsigned reg, uint64_t *mask)
{
	switch (reg) {
	case REG_TPR:
	case REG_SELF_IPI:
		*mask = 0xff;
		return true;
	case REG_EOI:
	case REG_ESR:
		*mask = 0;
		return true;
	case REG_SVR:
		*mask = 0x3ff;
		return true;
	case REG_ICR:
		*mask = 0xffffffff000cdfff;
		return true;
	case REG_LVT_TIMER ... REG_LVT_ERROR:
		/* Delivery status and remote IRR are read-only, not reserved. */
		*mask = lvt_bits(reg) | 1u << 12;
		if (reg == REG_LVT_LINT0 || reg == REG_LVT_LINT1)
			*mask |= 1u << 14;
		return true;
	case REG_TMICT:
		*mask = 0xffffffff;
		return true;
	case REG_TDCR:
		*mask = 0xb;
		return true;
	default:
		return false;
	}
}

/* False: no such register, or one that cannot be written. */
static bool reg_write(struct lapic *l, unsigned reg, uint64_t val)
{
	switch (reg) {
	case REG_ID:
	case REG_VERSION:
	case REG_APR:
	case REG_PPR:
	case REG_RRD:
	case REG_ISR ... REG_IRR + 7:
	case REG_TMCCT:
		return true; /* read-only: no effect */
	case REG_TPR:
		set_tpr(l, (uint32_t)val);
		return true;
	case REG_EOI:
		eoi(l);
		return true;
	case REG_LDR:
		poke(&l->ldr, (uint32_t)val & 0xff000000);
		return true;
	case REG_DFR:
		poke(&l->dfr, (uint32_t)val | 0x0fffffff);
		return true;
	case REG_SVR:
		write_svr(l, (uint32_t)val);
		return true;
	case REG_ESR:
		write_esr(l);
		return true;
	case REG_ICR:
		if (!lapic_x2apic(l))
			val = (l->icr & 0xffffffff00000000) | (uint32_t)val;
		l->icr = val & ~(1ull << 12); /* sent at once: never pending */
		deliver_icr(l, l->icr);
		return true;
	case REG_ICR2:
		l->icr = (uint32_t)l->icr | (val & 0xff000000) << 32;
		return true;
	case REG_LVT_TIMER ... REG_LVT_ERROR:
		write_lvt(l, reg, (uint32_t)val);
		return true;
	case REG_TMICT:
		lapic_timer_set_initial(l, (uint32_t)val);
		return true;
	case REG_TDCR:
		lapic_timer_set_divide(l, (uint32_t)val & 0xb);
		return true;
	default:
		return false;
	}
}

uint64_t lapic_mmio_read(struct lapic *l, uint64_t off, unsigned len)
{
	unsigned at = off & 15;
	uint64_t val;

	/* Registers are the first four bytes of each sixteen. */
	if (at + len > 4)
		return 0;
	if (!reg_read(l, (unsigned)off >> 4 & 0xff, &val)) {
		lapic_error(l, ESR_REGISTER);
		return 0;
	}
	return val >> at * 8 & (0xffffffffu >> (4 - len) * 8);
}

void lapic_mmio_write(struct lapic *l, uint64_t off, unsigned len, uint64_t val)
{
	/* Any other access is undefined; hardware of today drops it. */
	if (len != 4 || off & 15)
		return;
	if (!reg_write(l, (unsigned)off >> 4 & 0xff, (uint32_t)val))
		lapic_error(l, ESR_REGISTER);
}

#define MSR_TSC_DEADLINE 0x6e0

bool lapic_msr_read(struct lapic *l, uint32_t msr, uint64_t *val)
{
	if (msr == MSR_TSC_DEADLINE) {
		*val = lapic_timer_get_deadline(l);
		return true;
	}
	return lapic_x2apic(l) && reg_read(l, msr - 0x800, val);
}

bool lapic_msr_write(struct lapic *l, uint32_t msr, uint64_t val)
{
	unsigned reg = msr - 0x800;
	uint64_t mask;

	if (msr == MSR_TSC_DEADLINE) {
		lapic_timer_set_deadline(l, val);
		return true;
	}
	if (!lapic_x2apic(l) || !x2apic_writable(reg, &mask) || val & ~mask)
		return false;
	if (reg == REG_SELF_IPI) {
		if (val < 16)
			lapic_error(l, ESR_SEND_ILLEGAL);
		else
			deliver_to(l, DM_FIXED, (uint8_t)val, false);
		return true;
	}
	return reg_write(l, reg, val);
}
