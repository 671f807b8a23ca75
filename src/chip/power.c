/*
 * Sleep control is ACPI's (4.8.3.7): bit 5 says "now", bits 4-2 the type. Only
 * soft-off exists; other types are noted in the register and do nothing, as
 * on hardware that lacks the state.
 *
 * pvpanic is the device of QEMU's docs/specs/pvpanic: reading says which events
 * can be told, writing tells. Bit 0 is a panic, bit 1 a panic that a crash
 * kernel takes care of, which is no end and so not offered.
 *
 * The keyboard controller is only its reset pulse. Its status reads all ones,
 * which tells a driver that nobody is there.
 */
#include "chip/power.h"

#include <errno.h>
#include <stdlib.h>

#include "bus/bus.h"

enum {
	ACPI_CONTROL = 0,
	ACPI_STATUS = 1,
	ACPI_RESET = 2,

	SLP_EN = 1 << 5,
	SLP_TYP_SHIFT = 2,
	SLP_TYP_MASK = 7,

	PANICKED = 1 << 0,

	KBD_COMMAND = 4, /* port 0x64 */
	KBD_PULSE_RESET = 0xfe,

	CF9_RESET_CPU = 1 << 2,
};

struct power {
	struct power_config config;
	uint8_t control, cf9;
};

static void tell(struct power *p, enum power_event e)
{
	p->config.event(p->config.ctx, e);
}

static uint64_t acpi_read(void *dev, uint64_t off, unsigned len)
{
	struct power *p = dev;

	(void)len;
	return off == ACPI_CONTROL ? p->control : 0;
}

static void acpi_write(void *dev, uint64_t off, unsigned len, uint64_t val)
{
	struct power *p = dev;

	if (len != 1)
		return;
	if (off == ACPI_CONTROL) {
		p->control = (uint8_t)val & (uint8_t)~SLP_EN;
		if (val & SLP_EN &&
		    (val >> SLP_TYP_SHIFT & SLP_TYP_MASK) == p->config.s5_type)
			tell(p, POWER_OFF);
	} else if (off == ACPI_RESET && (uint8_t)val == p->config.reset_value) {
		tell(p, POWER_RESET);
	}
}

const struct bus_ops power_acpi_ops = {
	.read = acpi_read,
	.write = acpi_write,
};

static uint64_t pvpanic_read(void *dev, uint64_t off, unsigned len)
{
	(void)dev;
	(void)off;
	(void)len;
	return PANICKED;
}

static void pvpanic_write(void *dev, uint64_t off, unsigned len, uint64_t val)
{
	(void)off;
	(void)len;
	if (val & PANICKED)
		tell(dev, POWER_PANIC);
}

const struct bus_ops power_pvpanic_ops = {
	.read = pvpanic_read,
	.write = pvpanic_write,
};

static uint64_t kbd_read(void *dev, uint64_t off, unsigned len)
{
	(void)dev;
	(void)off;
	(void)len;
	return UINT64_MAX;
}

static void kbd_write(void *dev, uint64_t off, unsigned len, uint64_t val)
{
	if (off == KBD_COMMAND && len == 1 && val == KBD_PULSE_RESET)
		tell(dev, POWER_RESET);
}

const struct bus_ops power_kbd_ops = {
	.read = kbd_read,
	.write = kbd_write,
};

static uint64_t cf9_read(void *dev, uint64_t off, unsigned len)
{
	struct power *p = dev;

	(void)off;
	(void)len;
	return p->cf9;
}

static void cf9_write(void *dev, uint64_t off, unsigned len, uint64_t val)
{
	struct power *p = dev;

	(void)off;
	(void)len;
	p->cf9 = (uint8_t)val & (uint8_t)~CF9_RESET_CPU;
	if (val & CF9_RESET_CPU)
		tell(p, POWER_RESET);
}

const struct bus_ops power_cf9_ops = {
	.read = cf9_read,
	.write = cf9_write,
};

void power_press_button(struct power *p)
{
	p->config.button_irq(p->config.ctx);
}

void power_reset(struct power *p)
{
	p->control = p->cf9 = 0;
}

int power_create(struct power **out, const struct power_config *c)
{
	struct power *p = calloc(1, sizeof(*p));

	if (!p)
		return -ENOMEM;
	p->config = *c;
	*out = p;
	return 0;
}

void power_destroy(struct power *p)
{
	free(p);
}
