/*
 * What of a 16550A a driver can see.
 *
 * Transmission has no duration: THR is always empty and the line is always
 * idle, so the transmit interrupt has one state bit, thre_pending, set when a
 * byte was written or when the driver enables the interrupt, and cleared by
 * reading IIR (or by writing again). Bytes leave through tx() one by one; who
 * wants lines collects them.
 *
 * Interrupt causes in their order of priority: receiver line status (overrun),
 * received data (and, with a FIFO, timeout: data is waiting below the trigger
 * level, which with no notion of character time is "any data"), transmitter
 * empty, modem status. The line is the OR of the enabled ones.
 *
 * In loopback (MCR bit 4) a byte written is received, and modem outputs show
 * as modem inputs; drivers probe with it.
 */
#include "chip/uart.h"

#include <errno.h>
#include <stdlib.h>

#include "bus/bus.h"

#define FIFO_SIZE 16

enum { /* registers */
       RBR_THR = 0, /* DLL with DLAB */
       IER = 1, /* DLM with DLAB */
       IIR_FCR = 2,
       LCR = 3,
       MCR = 4,
       LSR = 5,
       MSR = 6,
       SCR = 7,
};

enum {
	IER_RX = 1 << 0,
	IER_THRE = 1 << 1,
	IER_LINE = 1 << 2,
	IER_MODEM = 1 << 3,
	IER_MASK = 0x0f,

	IIR_NONE = 1,
	IIR_MODEM = 0x0,
	IIR_THRE = 0x2,
	IIR_RX = 0x4,
	IIR_LINE = 0x6,
	IIR_TIMEOUT = 0xc,
	IIR_FIFO = 0xc0,

	FCR_ENABLE = 1 << 0,
	FCR_CLEAR_RX = 1 << 1,
	FCR_CLEAR_TX = 1 << 2,

	LCR_DLAB = 1 << 7,

	MCR_DTR = 1 << 0,
	MCR_RTS = 1 << 1,
	MCR_OUT1 = 1 << 2,
	MCR_OUT2 = 1 << 3, /* gates the interrupt line on a PC */
	MCR_LOOP = 1 << 4,
	MCR_MASK = 0x1f,

	LSR_DR = 1 << 0,
	LSR_OE = 1 << 1,
	LSR_THRE = 1 << 5,
	LSR_TEMT = 1 << 6,

	MSR_DELTA = 0x0f,
	MSR_CTS = 1 << 4,
	MSR_DSR = 1 << 5,
	MSR_RI = 1 << 6,
	MSR_DCD = 1 << 7,
};

struct uart {
	struct uart_config config;
	uint8_t ier, lcr, mcr, scr, dll, dlm;
	uint8_t fcr; /* enable bit and trigger level */
	uint8_t lsr; /* sticky error bits only */
	uint8_t msr;
	bool thre_pending;
	bool line; /* level last told */
	bool starved; /* uart_input() was short */
	uint8_t rx[FIFO_SIZE];
	unsigned rx_head, rx_count;
};

static unsigned fifo_size(const struct uart *u)
{
	return u->fcr & FCR_ENABLE ? FIFO_SIZE : 1;
}

static unsigned trigger_level(const struct uart *u)
{
	static const uint8_t level[4] = { 1, 4, 8, 14 };

	return u->fcr & FCR_ENABLE ? level[u->fcr >> 6] : 1;
}

static uint8_t cause(const struct uart *u)
{
	if (u->ier & IER_LINE && u->lsr & LSR_OE)
		return IIR_LINE;
	if (u->ier & IER_RX && u->rx_count)
		return u->rx_count >= trigger_level(u) ? IIR_RX : IIR_TIMEOUT;
	if (u->ier & IER_THRE && u->thre_pending)
		return IIR_THRE;
	if (u->ier & IER_MODEM && u->msr & MSR_DELTA)
		return IIR_MODEM;
	return IIR_NONE;
}

static void update(struct uart *u)
{
	/* In loopback the outputs are disconnected, OUT2 with them. */
	bool gate = u->mcr & MCR_OUT2 && !(u->mcr & MCR_LOOP);
	bool line = gate && cause(u) != IIR_NONE;

	if (line == u->line)
		return;
	u->line = line;
	if (u->config.irq)
		u->config.irq(u->config.ctx, line);
}

static void receive(struct uart *u, uint8_t byte)
{
	if (u->rx_count == fifo_size(u)) {
		u->lsr |= LSR_OE;
		return;
	}
	u->rx[(u->rx_head + u->rx_count++) % FIFO_SIZE] = byte;
}

static void clear_rx(struct uart *u)
{
	u->rx_head = u->rx_count = 0;
}

/* Tell who has input waiting; it may call uart_input() from there. */
static void offer_room(struct uart *u)
{
	if (!u->starved || u->mcr & MCR_LOOP || u->rx_count == fifo_size(u))
		return;
	u->starved = false;
	if (u->config.rx_ready)
		u->config.rx_ready(u->config.ctx);
}

static uint8_t read_rbr(struct uart *u)
{
	uint8_t v = 0;

	if (u->rx_count) {
		v = u->rx[u->rx_head];
		u->rx_head = (u->rx_head + 1) % FIFO_SIZE;
		u->rx_count--;
	}
	return v;
}

static uint8_t read_iir(struct uart *u)
{
	uint8_t v = cause(u);

	if (v == IIR_THRE)
		u->thre_pending = false;
	if (u->fcr & FCR_ENABLE)
		v |= IIR_FIFO;
	return v;
}

/* Modem inputs: another side that is always there; in loopback, the outputs. */
static void update_modem(struct uart *u)
{
	uint8_t lines = MSR_CTS | MSR_DSR | MSR_DCD, changed;

	if (u->mcr & MCR_LOOP)
		lines = (uint8_t)((u->mcr & MCR_RTS ? MSR_CTS : 0) |
				  (u->mcr & MCR_DTR ? MSR_DSR : 0) |
				  (u->mcr & MCR_OUT1 ? MSR_RI : 0) |
				  (u->mcr & MCR_OUT2 ? MSR_DCD : 0));
	changed = (lines ^ u->msr) >> 4;
	if (changed & MSR_RI >> 4 && lines & MSR_RI)
		changed &= (uint8_t) ~(MSR_RI >> 4); /* trailing edge only */
	u->msr = (uint8_t)(lines | (u->msr & MSR_DELTA) | changed);
}

static uint64_t uart_read(void *dev, uint64_t off, unsigned len)
{
	struct uart *u = dev;
	uint8_t v = 0;

	if (len != 1)
		return UINT64_MAX;
	switch (off) {
	case RBR_THR:
		v = u->lcr & LCR_DLAB ? u->dll : read_rbr(u);
		break;
	case IER:
		v = u->lcr & LCR_DLAB ? u->dlm : u->ier;
		break;
	case IIR_FCR:
		v = read_iir(u);
		break;
	case LCR:
		v = u->lcr;
		break;
	case MCR:
		v = u->mcr;
		break;
	case LSR:
		v = (uint8_t)(u->lsr | LSR_THRE | LSR_TEMT |
			      (u->rx_count ? LSR_DR : 0));
		u->lsr = 0;
		break;
	case MSR:
		v = u->msr;
		u->msr &= (uint8_t)~MSR_DELTA;
		break;
	case SCR:
		v = u->scr;
		break;
	}
	update(u);
	offer_room(u);
	return v;
}

static void write_thr(struct uart *u, uint8_t v)
{
	if (u->mcr & MCR_LOOP)
		receive(u, v);
	else if (u->config.tx)
		u->config.tx(u->config.ctx, &v, 1);
	u->thre_pending = true;
}

static void write_fcr(struct uart *u, uint8_t v)
{
	/* Turning FIFOs on or off clears them; other bits count only if on. */
	if ((v ^ u->fcr) & FCR_ENABLE || v & FCR_CLEAR_RX)
		clear_rx(u);
	u->fcr = v & FCR_ENABLE ? v & (FCR_ENABLE | 0xc0) : 0;
}

static void uart_write(void *dev, uint64_t off, unsigned len, uint64_t val)
{
	struct uart *u = dev;
	uint8_t v = (uint8_t)val;

	if (len != 1)
		return;
	switch (off) {
	case RBR_THR:
		if (u->lcr & LCR_DLAB)
			u->dll = v;
		else
			write_thr(u, v);
		break;
	case IER:
		if (u->lcr & LCR_DLAB) {
			u->dlm = v;
			break;
		}
		/* Enabling it while the transmitter is empty interrupts. */
		if (v & ~u->ier & IER_THRE)
			u->thre_pending = true;
		u->ier = v & IER_MASK;
		break;
	case IIR_FCR:
		write_fcr(u, v);
		break;
	case LCR:
		u->lcr = v;
		break;
	case MCR:
		u->mcr = v & MCR_MASK;
		update_modem(u);
		break;
	case SCR:
		u->scr = v;
		break;
	}
	update(u);
	offer_room(u);
}

const struct bus_ops uart_bus_ops = {
	.read = uart_read,
	.write = uart_write,
};

size_t uart_input(struct uart *u, const uint8_t *buf, size_t len)
{
	size_t n = 0;

	/* In loopback the input pin is disconnected: keep it for later. */
	if (!(u->mcr & MCR_LOOP))
		while (n < len && u->rx_count < fifo_size(u))
			receive(u, buf[n++]);
	u->starved = n < len;
	update(u);
	return n;
}

void uart_reset(struct uart *u)
{
	u->ier = u->lcr = u->mcr = u->scr = u->dll = u->dlm = 0;
	u->fcr = u->lsr = 0;
	u->msr = MSR_CTS | MSR_DSR | MSR_DCD;
	u->thre_pending = false;
	clear_rx(u);
	update(u);
	offer_room(u);
}

int uart_create(struct uart **out, const struct uart_config *c)
{
	struct uart *u = calloc(1, sizeof(*u));

	if (!u)
		return -ENOMEM;
	u->config = *c;
	uart_reset(u);
	*out = u;
	return 0;
}

void uart_destroy(struct uart *u)
{
	free(u);
}
