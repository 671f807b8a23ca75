/*
 * The I/O APIC (82093AA, version 0x11): 24 lines to messages.
 *
 * Theory of operation: `level` holds the lines as devices drive them. A rising
 * line on an edge entry is one message; masked, it is lost. A level entry sends
 * when its line is up, it is not masked and its remote IRR is clear; acceptance
 * sets remote IRR, the EOI of its vector clears it, and a line still up then
 * sends again. Lines are active-high whatever the polarity bit says.
 */
#include "irq/x86/chip.h"

#include <string.h>

#define RTE_STATUS (1ull << 12)
#define RTE_REMOTE (1ull << 14)
#define RTE_LEVEL  (1ull << 15)
#define RTE_MASK   (1ull << 16)
#define RTE_RO	   (RTE_STATUS | RTE_REMOTE)
#define RTE_BITS   0xff0000000001ffffull

enum { SEL_ID, SEL_VERSION, SEL_ARB, SEL_REDIR = 0x10 };

void ioapic_init(struct ioapic *io)
{
	for (unsigned i = 0; i < IRQCHIP_PINS; i++)
		io->redir[i] = RTE_MASK;
	io->level = io->id = io->select = 0;
}

/* Lock held. Send entry @pin now. */
static bool send(struct irqchip *c, unsigned pin)
{
	uint64_t *e = &c->ioapic.redir[pin];
	struct irq_msg m = {
		.mode = *e >> 8 & 7,
		.vector = (uint8_t)*e,
		.level = *e & RTE_LEVEL,
		.logical = *e >> 11 & 1,
		.dest = (uint32_t)(*e >> 56),
	};
	bool taken;

	if (*e & RTE_MASK || m.mode == DM_SIPI)
		return false;
	/* The EOI takes our lock, so it finds remote IRR set. */
	taken = deliver(c, &m);
	if (taken && m.level && m.mode <= DM_LOWEST)
		*e |= RTE_REMOTE;
	return taken;
}

/* Lock held. A level entry whose line is up and that nobody serves. */
static bool service_level(struct irqchip *c, unsigned pin)
{
	uint64_t e = c->ioapic.redir[pin];

	return (e & RTE_LEVEL) && !(e & RTE_REMOTE) &&
	       (c->ioapic.level >> pin & 1) && send(c, pin);
}

bool irqchip_line(struct irqchip *c, unsigned pin, bool level)
{
	struct ioapic *io = &c->ioapic;
	uint32_t bit;
	bool rose, taken = false;

	if (pin >= IRQCHIP_PINS)
		return false;
	bit = 1u << pin;
	pthread_mutex_lock(&io->lock);
	rose = level && !(io->level & bit);
	io->level = level ? io->level | bit : io->level & ~bit;
	if (io->redir[pin] & RTE_LEVEL)
		taken = service_level(c, pin);
	else if (rose)
		taken = send(c, pin);
	pthread_mutex_unlock(&io->lock);
	return taken;
}

void ioapic_eoi(struct irqchip *c, uint8_t vector)
{
	struct ioapic *io = &c->ioapic;

	pthread_mutex_lock(&io->lock);
	for (unsigned i = 0; i < IRQCHIP_PINS; i++) {
		uint64_t *e = &io->redir[i];

		if ((uint8_t)*e != vector || !(*e & RTE_REMOTE))
			continue;
		*e &= ~RTE_REMOTE;
		service_level(c, i);
	}
	pthread_mutex_unlock(&io->lock);
}

void ioapic_resample(struct irqchip *c)
{
	pthread_mutex_lock(&c->ioapic.lock);
	for (unsigned i = 0; i < IRQCHIP_PINS; i++)
		service_level(c, i);
	pthread_mutex_unlock(&c->ioapic.lock);
}

static uint32_t read_window(struct ioapic *io)
{
	unsigned i = io->select - SEL_REDIR;

	switch (io->select) {
	case SEL_ID:
	case SEL_ARB:
		return io->id << 24;
	case SEL_VERSION:
		return 0x11 | (IRQCHIP_PINS - 1) << 16;
	default:
		if (io->select < SEL_REDIR || i / 2 >= IRQCHIP_PINS)
			return 0xffffffff;
		return (uint32_t)(io->redir[i / 2] >> (i & 1) * 32);
	}
}

static void write_redir(struct irqchip *c, unsigned i, uint32_t val)
{
	uint64_t *e = &c->ioapic.redir[i / 2];
	unsigned shift = (i & 1) * 32;
	uint64_t new = (*e & ~(0xffffffffull << shift)) | (uint64_t)val
								  << shift;

	*e = (new &RTE_BITS & ~RTE_RO) | (*e & RTE_RO);
	/* An edge entry has no remote IRR; guests clear a stuck one this way. */
	if (!(*e & RTE_LEVEL))
		*e &= ~RTE_REMOTE;
	service_level(c, i / 2);
}

static void write_window(struct irqchip *c, uint32_t val)
{
	struct ioapic *io = &c->ioapic;
	unsigned i = io->select - SEL_REDIR;

	if (io->select == SEL_ID)
		io->id = val >> 24 & 0xf;
	else if (io->select >= SEL_REDIR && i / 2 < IRQCHIP_PINS)
		write_redir(c, i, val);
}

uint64_t irqchip_ioapic_read(struct irqchip *c, uint64_t off, unsigned len)
{
	struct ioapic *io = &c->ioapic;
	uint32_t val = 0;

	pthread_mutex_lock(&io->lock);
	if ((off & ~3ull) == 0)
		val = io->select;
	else if ((off & ~3ull) == 0x10)
		val = read_window(io);
	pthread_mutex_unlock(&io->lock);
	val >>= (off & 3) * 8;
	return len < 4 ? val & ((1u << len * 8) - 1) : val;
}

void irqchip_ioapic_write(struct irqchip *c, uint64_t off, unsigned len,
			  uint64_t val)
{
	struct ioapic *io = &c->ioapic;

	pthread_mutex_lock(&io->lock);
	if (off == 0)
		io->select = (uint8_t)val;
	else if (off == 0x10 && len >= 4)
		write_window(c, (uint32_t)val);
	pthread_mutex_unlock(&io->lock);
}

void irqchip_get_state(struct irqchip *c, struct hv_x86_vm_state *s)
{
	struct ioapic *io = &c->ioapic;

	pthread_mutex_lock(&io->lock);
	memcpy(s->ioapic_redir, io->redir, sizeof(io->redir));
	s->ioapic_id = io->id;
	s->ioapic_select = io->select;
	s->ioapic_irr = io->level;
	pthread_mutex_unlock(&io->lock);
}

void irqchip_set_state(struct irqchip *c, const struct hv_x86_vm_state *s)
{
	struct ioapic *io = &c->ioapic;

	pthread_mutex_lock(&io->lock);
	for (unsigned i = 0; i < IRQCHIP_PINS; i++)
		io->redir[i] = s->ioapic_redir[i] & RTE_BITS;
	io->id = s->ioapic_id & 0xf;
	io->select = s->ioapic_select & 0xff;
	io->level = s->ioapic_irr & ((1u << IRQCHIP_PINS) - 1);
	pthread_mutex_unlock(&io->lock);
}
