/*
 * A 16550A serial port: 16-byte FIFOs, interrupts, loopback.
 *
 * Transmission is instant: a byte written is handed to tx() at once and the
 * transmitter is empty again. Input is pushed by uart_input(), which takes what
 * the receive FIFO has room for; rx_ready() says when there is room again.
 *
 * All calls, and all callbacks, happen with the owner loop's lock held.
 */
#ifndef ARC_CHIP_UART_H
#define ARC_CHIP_UART_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bus_ops;
struct uart;

struct uart_config {
	void (*irq)(void *ctx, bool level); /* the interrupt line changed */
	void (*tx)(void *ctx, const uint8_t *buf, size_t len); /* or NULL */
	void (*rx_ready)(void *ctx); /* or NULL */
	void *ctx;
};

int uart_create(struct uart **out, const struct uart_config *c);
void uart_destroy(struct uart *u); /* NULL-safe */
void uart_reset(struct uart *u);

/* For bus_add(): eight byte registers. */
extern const struct bus_ops uart_bus_ops;

size_t uart_input(struct uart *u, const uint8_t *buf, size_t len);

#endif
