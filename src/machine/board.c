/*
 * The board's parts and their wiring. What goes into guest memory is in boot.c,
 * the state of the vCPUs in state.c and cpuid.c.
 */
#include "machine/board.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>

#include "base/err.h"
#include "base/log.h"
#include "base/util.h"
#include "bus/bus.h"
#include "chip/power.h"
#include "chip/uart.h"
#include "machine/board_impl.h"

/* A reboot out of a panic is a warm one ("reboot=panic_warm", cmdline.c): the
 * kernel leaves the BIOS's mark for that at a fixed address. */
#define REBOOT_MODE_ADDR 0x472
#define REBOOT_MODE_WARM 0x1234

static void uart_irq(void *ctx, bool level)
{
	struct board *b = ctx;

	if (b->vm)
		hv_irq_line(b->vm, GSI_COM1, level);
}

static void uart_tx(void *ctx, const uint8_t *buf, size_t len)
{
	struct board *b = ctx;

	if (b->config.uart_tx)
		b->config.uart_tx(b->config.ctx, buf, len);
}

static void uart_rx_ready(void *ctx)
{
	struct board *b = ctx;

	if (b->config.uart_rx_ready)
		b->config.uart_rx_ready(b->config.ctx);
}

static void button_irq(void *ctx)
{
	struct board *b = ctx;

	if (!b->vm)
		return;
	hv_irq_line(b->vm, GSI_EVENT, true);
	hv_irq_line(b->vm, GSI_EVENT, false);
}

static bool reboot_is_panic(const struct board *b)
{
	uint16_t mode = 0;

	gmem_read(b->config.mem, gpa(REBOOT_MODE_ADDR), &mode, sizeof(mode));
	return mode == REBOOT_MODE_WARM;
}

static void power_event(void *ctx, enum power_event event)
{
	struct board *b = ctx;
	enum board_event e = BOARD_POWER_OFF;

	if (event == POWER_PANIC)
		e = BOARD_PANIC;
	else if (event == POWER_RESET)
		e = reboot_is_panic(b) ? BOARD_PANIC : BOARD_RESET;
	if (b->config.event)
		b->config.event(b->config.ctx, e);
}

/* ---- memory ---- */

static int check_config(const struct board_config *c, struct err *e)
{
	struct sysinfo si;
	uint64_t have;

	if (c->ncpus < 1 || c->ncpus > BOARD_CPUS_MAX)
		return err_set(e, -EINVAL, "a VM has 1 to %d CPUs, not %u",
			       BOARD_CPUS_MAX, c->ncpus);
	if (c->mem_size == 0)
		return err_set(e, -EINVAL, "a VM needs memory: 0 was given");
	if (c->mem_size < RAM_MIN && c->mem_size < MiB(1))
		return err_set(e, -EINVAL,
			       "a VM needs at least %llu MiB of memory, not "
			       "%llu bytes",
			       RAM_MIN >> 20, (unsigned long long)c->mem_size);
	if (c->mem_size < RAM_MIN)
		return err_set(e, -EINVAL,
			       "a VM needs at least %llu MiB of memory, not "
			       "%llu MiB",
			       RAM_MIN >> 20,
			       (unsigned long long)c->mem_size >> 20);
	if (sysinfo(&si) < 0)
		return 0;
	have = ((uint64_t)si.totalram + si.totalswap) * si.mem_unit;
	if (c->mem_size > have)
		return err_set(e, -ENOMEM,
			       "%llu MiB of memory are more than this host "
			       "has (%llu MiB)",
			       (unsigned long long)c->mem_size >> 20,
			       (unsigned long long)have >> 20);
	return 0;
}

static int add_memory(struct board *b, struct err *e)
{
	uint64_t size = align_up(b->config.mem_size, RAM_PAGE);
	int r;

	b->ram_low = min_of(size, (uint64_t)RAM_LOW_END);
	b->ram_high = size - b->ram_low;
	r = gmem_add_ram(b->config.mem, gpa(0), b->ram_low, e);
	if (r == 0 && b->ram_high)
		r = gmem_add_ram(b->config.mem, gpa(RAM_HIGH), b->ram_high, e);
	return r;
}

/* ---- ports ---- */

static const struct {
	uint16_t base, len;
	const struct bus_ops *ops;
} ports[] = {
	{ PORT_ACPI, PORT_ACPI_LEN, &power_acpi_ops },
	{ PORT_PVPANIC, 1, &power_pvpanic_ops },
	{ PORT_KBD, 5, &power_kbd_ops },
	{ PORT_RESET, 1, &power_cf9_ops },
};

static int add_chips(struct board *b, struct err *e)
{
	const struct power_config pc = {
		.s5_type = ACPI_S5_TYPE,
		.reset_value = ACPI_RESET_VALUE,
		.event = power_event,
		.button_irq = button_irq,
		.ctx = b,
	};
	const struct uart_config uc = {
		.irq = uart_irq,
		.tx = uart_tx,
		.rx_ready = uart_rx_ready,
		.ctx = b,
	};
	int r = power_create(&b->power, &pc);

	if (r == 0 && !b->config.no_uart)
		r = uart_create(&b->uart, &uc);
	if (r < 0)
		return err_set(e, r, "no memory for the board");
	for (unsigned i = 0; i < array_size(ports) && r == 0; i++)
		r = bus_add(b->config.bus, BUS_PIO, ports[i].base, ports[i].len,
			    ports[i].ops, b->power, b->config.loop, e);
	if (r == 0 && b->uart)
		r = bus_add(b->config.bus, BUS_PIO, PORT_COM1, 8, &uart_bus_ops,
			    b->uart, b->config.loop, e);
	return r;
}

static void remove_chips(struct board *b)
{
	for (unsigned i = 0; i < array_size(ports); i++)
		bus_remove(b->config.bus, BUS_PIO, ports[i].base);
	if (b->uart)
		bus_remove(b->config.bus, BUS_PIO, PORT_COM1);
}

/* ---- slots ---- */

struct board_slot board_slot_at(unsigned i)
{
	return (struct board_slot){
		.base = SLOT_BASE + (uint64_t)i * BOARD_SLOT_SIZE,
		.gsi = GSI_SLOT_0 + i % GSI_SLOT_N,
	};
}

bool board_slot_shared(const struct board *b, unsigned i)
{
	return i >= GSI_SLOT_N || i + GSI_SLOT_N < b->nslots;
}

int board_add_slot(struct board *b, struct board_slot *out, struct err *e)
{
	if (b->nslots == BOARD_SLOTS_MAX)
		return err_set(e, -ENOSPC,
			       "the board has no room for more than %d devices",
			       BOARD_SLOTS_MAX);
	*out = board_slot_at(b->nslots++);
	return 0;
}

/* ---- life ---- */

int board_create(struct board **out, const struct board_config *c,
		 struct err *e)
{
	struct board *b;
	int r = check_config(c, e);

	*out = NULL;
	if (r < 0)
		return r;
	b = calloc(1, sizeof(*b));
	if (!b)
		return err_set(e, -ENOMEM, "no memory for the board");
	b->config = *c;
	r = add_memory(b, e);
	if (r == 0)
		r = add_chips(b, e);
	if (r < 0) {
		board_destroy(b);
		return r;
	}
	*out = b;
	return 0;
}

void board_destroy(struct board *b)
{
	if (!b)
		return;
	remove_chips(b);
	uart_destroy(b->uart);
	power_destroy(b->power);
	free(b->host_cpuid);
	free(b->cmdline);
	free(b);
}

void board_attach(struct board *b, struct hv_vm *vm)
{
	b->vm = vm;
}

void board_reset(struct board *b)
{
	const uint16_t cold = 0;

	power_reset(b->power);
	if (b->uart)
		uart_reset(b->uart);
	gmem_write(b->config.mem, gpa(REBOOT_MODE_ADDR), &cold, sizeof(cold));
}

void board_power_button(struct board *b)
{
	power_press_button(b->power);
}

size_t board_uart_input(struct board *b, const uint8_t *buf, size_t len)
{
	return b->uart ? uart_input(b->uart, buf, len) : 0;
}

const char *board_cmdline(const struct board *b)
{
	return b->cmdline ?: "";
}
