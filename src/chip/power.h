/*
 * The ports through which a guest ends itself: ACPI sleep control and reset,
 * panic notification, and the two resets every PC kernel tries when others
 * fail. And the power button, which is an interrupt.
 *
 * All calls and callbacks happen with the owner loop's lock held.
 */
#ifndef ARC_CHIP_POWER_H
#define ARC_CHIP_POWER_H

#include <stdbool.h>
#include <stdint.h>

struct bus_ops;
struct power;

enum power_event {
	POWER_OFF, /* sleep state @s5_type was entered */
	POWER_RESET,
	POWER_PANIC, /* the guest says that its kernel panicked */
};

struct power_config {
	uint8_t s5_type; /* SLP_TYP of soft-off */
	uint8_t reset_value;
	void (*event)(void *ctx, enum power_event e);
	void (*button_irq)(void *ctx); /* an edge */
	void *ctx;
};

int power_create(struct power **out, const struct power_config *c);
void power_destroy(struct power *p); /* NULL-safe */
void power_reset(struct power *p);
void power_press_button(struct power *p);

/*
 * For bus_add(); all take the struct power.
 *   acpi:    byte 0 sleep control, byte 1 sleep status, byte 2 reset
 *   pvpanic: one byte
 *   kbd:     five bytes from port 0x60: only the reset command of 0x64
 *   reset:   one byte, port 0xcf9
 */
extern const struct bus_ops power_acpi_ops, power_pvpanic_ops, power_kbd_ops,
	power_cf9_ops;

#endif
