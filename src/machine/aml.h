/*
 * A writer of AML, the byte code of ACPI tables (ACPI 6.4, chapter 20).
 *
 * Terms are appended to a buffer. Those with a length (scope, device, method,
 * buffers, packages) are opened and closed; closing puts the length in, so
 * nesting is nesting of calls:
 *
 *     size_t dev = aml_device(a, "COM1");
 *     aml_name_eisaid(a, "_HID", "PNP0501");
 *     aml_close(a, dev);
 *
 * A buffer that ran out stays at its size and a->overflow is set: the caller
 * looks once, at the end.
 */
#ifndef ARC_MACHINE_AML_H
#define ARC_MACHINE_AML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct aml {
	uint8_t *buf;
	size_t len, cap;
	bool overflow;
};

void aml_bytes(struct aml *a, const void *p, size_t n);
void aml_byte(struct aml *a, uint8_t b);

/*
 * Opened terms; the result is for aml_close(). A name is "_HID", or a path of
 * 4-character segments: "\\_SB_.PWRB".
 */
size_t aml_scope(struct aml *a, const char *path);
size_t aml_device(struct aml *a, const char *name);
size_t aml_method(struct aml *a, const char *name, unsigned nargs);
size_t aml_package(struct aml *a, unsigned count);
size_t aml_if_arg0_equals(struct aml *a, uint64_t value);
void aml_close(struct aml *a, size_t mark);

/* Data objects. */
void aml_int(struct aml *a, uint64_t v);

/* Name (@name, value) */
void aml_name(struct aml *a, const char *name); /* the value follows */
void aml_name_int(struct aml *a, const char *name, uint64_t v);
void aml_name_string(struct aml *a, const char *name, const char *s);
/* Three letters and four hexadecimal digits: EisaId ("PNP0501"). */
void aml_name_eisaid(struct aml *a, const char *name, const char *id);

/* Notify (@path, @value) */
void aml_notify(struct aml *a, const char *path, uint64_t value);

/*
 * Name (_CRS, ResourceTemplate () { ... }): open, descriptors, close.
 */
size_t aml_resources(struct aml *a);
void aml_res_memory32(struct aml *a, uint32_t base, uint32_t len);
void aml_res_io(struct aml *a, uint16_t base, uint8_t len);
/* Edge-triggered, active high. */
void aml_res_interrupt(struct aml *a, uint32_t gsi, bool shared);
void aml_resources_close(struct aml *a, size_t mark);

#endif
