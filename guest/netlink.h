/*
 * Two things the kernel says by netlink: that a device came (so that nobody
 * sleeps and looks again), and that the power button was pressed.
 */
#ifndef ARC_GUEST_NETLINK_H
#define ARC_GUEST_NETLINK_H

#include <stdbool.h>

/* A socket that becomes readable when a device comes or goes, or -errno. */
int uevent_open(void);
/* Wait for the next such message, at most @ms; false when there was none. */
bool uevent_wait(int fd, int ms);

/* A socket that gets ACPI events, or -errno; needs the button module. */
int acpi_open(void);
/* Read one message: true when it is about the power button. */
bool acpi_power_button(int fd);

#endif
