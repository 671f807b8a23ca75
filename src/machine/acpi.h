/*
 * The ACPI tables of the board.
 */
#ifndef ARC_MACHINE_ACPI_H
#define ARC_MACHINE_ACPI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;

struct acpi_slot {
	uint64_t base;
	unsigned gsi;
	bool shared; /* another slot has the same GSI */
};

struct acpi_config {
	unsigned ncpus;
	bool uart;
	const struct acpi_slot *slots;
	unsigned nslots;
	uint64_t base; /* guest physical address of the first byte */
};

/*
 * Write all tables to @buf; the RSDP is at its start. The bytes used, or
 * -ENOSPC with a sentence.
 */
long acpi_build(const struct acpi_config *c, void *buf, size_t size,
		struct err *e);

#endif
