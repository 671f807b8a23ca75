/* The UART as a driver sees it: probing, FIFOs, interrupts, loopback. */
#include "test.h"

#include <stdlib.h>
#include <string.h>

#include "bus/bus.h"
#include "chip/uart.h"

struct fixture {
	struct uart *u;
	bool line;
	unsigned edges;
	char out[64];
	size_t out_len;
	unsigned ready;
};

static void on_irq(void *ctx, bool level)
{
	struct fixture *f = ctx;

	assert_int_not_equal(level, f->line);
	f->edges += level;
	f->line = level;
}

static void on_tx(void *ctx, const uint8_t *buf, size_t len)
{
	struct fixture *f = ctx;

	assert_true(f->out_len + len <= sizeof(f->out));
	memcpy(f->out + f->out_len, buf, len);
	f->out_len += len;
}

static void on_ready(void *ctx)
{
	((struct fixture *)ctx)->ready++;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct uart_config c = { on_irq, on_tx, on_ready, f };

	*state = f;
	return uart_create(&f->u, &c);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	uart_destroy(f->u);
	free(f);
	return 0;
}

static uint8_t in(struct fixture *f, unsigned reg)
{
	return (uint8_t)uart_bus_ops.read(f->u, reg, 1);
}

static void out(struct fixture *f, unsigned reg, uint8_t v)
{
	uart_bus_ops.write(f->u, reg, 1, v);
}

/* The steps by which Linux's 8250 driver tells a 16550A. */
static void autoconfig(void **state)
{
	struct fixture *f = *state;

	out(f, 1, 0);
	assert_int_equal(in(f, 1) & 0x0f, 0);
	out(f, 1, 0x0f);
	assert_int_equal(in(f, 1) & 0x0f, 0x0f);
	out(f, 1, 0);
	/* Loopback: modem outputs come back as inputs. */
	out(f, 4, 0x10 | 0x0a);
	assert_int_equal(in(f, 6) & 0xf0, 0x90);
	out(f, 4, 0);
	/* An EFR behind LCR 0xbf would make it a 16650 or better. */
	out(f, 3, 0xbf);
	out(f, 2, 0);
	out(f, 3, 0);
	out(f, 2, 1);
	assert_int_equal(in(f, 2) >> 6, 3);
	/* No 64-byte FIFO. */
	out(f, 3, 0x80);
	out(f, 2, 0x21);
	assert_int_equal(in(f, 2) & 0x20, 0);
	out(f, 3, 0);
	out(f, 7, 0x5a);
	assert_int_equal(in(f, 7), 0x5a);
}

static void divisor(void **state)
{
	struct fixture *f = *state;

	out(f, 3, 0x83);
	out(f, 0, 0x0c);
	out(f, 1, 0x01);
	assert_int_equal(in(f, 0), 0x0c);
	assert_int_equal(in(f, 1), 0x01);
	out(f, 3, 0x03);
	assert_int_equal(in(f, 1), 0);
	assert_int_equal(f->out_len, 0);
}

static void transmit(void **state)
{
	struct fixture *f = *state;

	out(f, 4, 0x08);
	assert_int_equal(in(f, 5), 0x60);
	for (const char *s = "hello"; *s; s++)
		out(f, 0, (uint8_t)*s);
	assert_int_equal(f->out_len, 5);
	assert_memory_equal(f->out, "hello", 5);
	assert_false(f->line);
	/* Enabling the interrupt while empty raises it; reading IIR ends it. */
	in(f, 2);
	out(f, 1, 2);
	assert_true(f->line);
	assert_int_equal(in(f, 2) & 0x0f, 2);
	assert_false(f->line);
	assert_int_equal(in(f, 2) & 0x0f, 1);
	out(f, 0, 'x');
	assert_true(f->line);
	/* Without OUT2 the line is cut. */
	out(f, 4, 0);
	assert_false(f->line);
}

static void receive_fifo(void **state)
{
	struct fixture *f = *state;
	uint8_t data[20];

	for (unsigned i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)('a' + i);
	out(f, 4, 0x08);
	out(f, 2, 0x81); /* FIFO, trigger level 8 */
	out(f, 1, 1);
	assert_int_equal(uart_input(f->u, data, 3), 3);
	assert_true(f->line);
	assert_int_equal(in(f, 2), 0xcc); /* timeout: below the level */
	assert_int_equal(uart_input(f->u, data + 3, 17), 13);
	assert_int_equal(in(f, 2), 0xc4);
	assert_int_equal(f->ready, 0);
	for (unsigned i = 0; i < 16; i++) {
		assert_int_equal(in(f, 5) & 1, 1);
		assert_int_equal(in(f, 0), data[i]);
	}
	assert_int_equal(f->ready, 1); /* once, at the first room */
	assert_false(f->line);
	assert_int_equal(in(f, 5) & 1, 0);
	assert_int_equal(in(f, 0), 0);
}

static void receive_without_fifo(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(uart_input(f->u, (const uint8_t *)"ab", 2), 1);
	assert_int_equal(in(f, 0), 'a');
	assert_int_equal(f->ready, 1);
	assert_int_equal(uart_input(f->u, (const uint8_t *)"b", 1), 1);
	/* Turning the FIFO on clears it. */
	out(f, 2, 1);
	assert_int_equal(in(f, 5) & 1, 0);
}

static void loopback(void **state)
{
	struct fixture *f = *state;

	out(f, 2, 1);
	out(f, 4, 0x18);
	out(f, 0, 0x42);
	assert_int_equal(f->out_len, 0);
	assert_int_equal(in(f, 0), 0x42);
	/* Input waits until the loop is opened. */
	assert_int_equal(uart_input(f->u, (const uint8_t *)"x", 1), 0);
	assert_int_equal(f->ready, 0);
	/* 17 bytes into 16: an overrun, told once. */
	for (int i = 0; i < 17; i++)
		out(f, 0, (uint8_t)i);
	assert_int_equal(in(f, 5) & 2, 2);
	assert_int_equal(in(f, 5) & 2, 0);
	out(f, 4, 0x08);
	assert_int_equal(f->ready, 0);
	in(f, 0);
	assert_int_equal(f->ready, 1);
}

static void modem_interrupt(void **state)
{
	struct fixture *f = *state;

	out(f, 4, 0x08);
	in(f, 6);
	out(f, 1, 8);
	assert_false(f->line);
	out(f, 4, 0x18 | 3); /* DCD stays, CTS and DSR by RTS and DTR */
	out(f, 4, 0x18);
	out(f, 4, 0x08);
	assert_true(f->line);
	assert_int_equal(in(f, 2) & 0x0f, 0);
	assert_true(in(f, 6) & 0x0f);
	assert_false(f->line);
}

static void odd_accesses(void **state)
{
	struct fixture *f = *state;

	assert_true(uart_bus_ops.read(f->u, 0, 4) == UINT64_MAX);
	uart_bus_ops.write(f->u, 0, 2, 0x4142);
	assert_int_equal(f->out_len, 0);
	out(f, 1, 2);
	out(f, 4, 8);
	uart_reset(f->u);
	assert_false(f->line);
	assert_int_equal(in(f, 1), 0);
	assert_int_equal(in(f, 2), 1);
}

#define T(x) cmocka_unit_test_setup_teardown(x, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(autoconfig),	 T(divisor),	     T(transmit),
		T(receive_fifo), T(loopback),	     T(receive_without_fifo),
		T(odd_accesses), T(modem_interrupt),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
