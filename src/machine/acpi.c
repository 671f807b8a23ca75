/*
 * ACPI 6.4 tables for a hardware-reduced board: RSDP -> XSDT -> FADT (-> DSDT),
 * MADT.
 *
 * Hardware-reduced means there is no PM timer, no SCI, no fixed registers: just
 * sleep control and status, a reset register, and a Generic Event Device whose
 * interrupt means "power button". The boot-architecture flags say there is no
 * 8042, no CMOS clock and no VGA, which saves a stock kernel tens of thousands
 * of reads of absent ports.
 *
 * virtio-mmio devices have the _HID "LNRO0005", to which Linux's virtio_mmio
 * binds: memory range and interrupt come from _CRS.
 */
#include "machine/acpi.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/util.h"
#include "machine/aml.h"
#include "machine/layout.h"

#define OEM_ID	     "ARCVMM"
#define OEM_TABLE_ID "ARCBOARD"
#define OEM_REVISION 1
#define CREATOR_ID   "ARCV"

#define HEADER_SIZE 36
#define RSDP_SIZE   36
#define FADT_SIZE   276
#define TABLE_ALIGN 16

enum {
	FADT_WBINVD = 1 << 0,
	FADT_PWR_BUTTON = 1 << 4, /* no fixed power button */
	FADT_SLP_BUTTON = 1 << 5, /* no fixed sleep button */
	FADT_RESET_REG = 1 << 10,
	FADT_HW_REDUCED = 1 << 20,
	/* IAPC_BOOT_ARCH; legacy devices and the 8042 by absence of a bit */
	ARCH_NO_VGA = 1 << 2,
	ARCH_NO_CMOS_RTC = 1 << 5,
	/* MADT structures */
	MADT_LAPIC = 0,
	MADT_IOAPIC = 1,
};

static uint8_t checksum(const uint8_t *p, size_t len)
{
	uint8_t sum = 0;

	for (size_t i = 0; i < len; i++)
		sum = (uint8_t)(sum + p[i]);
	return (uint8_t)-sum;
}

/* A table begins at t; its header is completed by table_end(). */
static void table_end(uint8_t *t, size_t len, const char *sig, uint8_t revision)
{
	memcpy(t, sig, 4);
	put_le32(t + 4, (uint32_t)len);
	t[8] = revision;
	t[9] = 0;
	memcpy(t + 10, OEM_ID, 6);
	memcpy(t + 16, OEM_TABLE_ID, 8);
	put_le32(t + 24, OEM_REVISION);
	memcpy(t + 28, CREATOR_ID, 4);
	put_le32(t + 32, 1);
	t[9] = checksum(t, len);
}

/* A Generic Address Structure for a byte-wide port. */
static void put_port(uint8_t *p, uint64_t port)
{
	p[0] = 1; /* system I/O */
	p[1] = 8; /* bits */
	p[2] = 0;
	p[3] = 1; /* byte access */
	put_le64(p + 4, port);
}

static void build_fadt(uint8_t *t, uint64_t dsdt)
{
	memset(t, 0, FADT_SIZE);
	t[45] = 0; /* preferred profile: unspecified */
	put_le16(t + 109, ARCH_NO_VGA | ARCH_NO_CMOS_RTC);
	put_le32(t + 112, FADT_WBINVD | FADT_PWR_BUTTON | FADT_SLP_BUTTON |
				  FADT_RESET_REG | FADT_HW_REDUCED);
	put_port(t + 116, PORT_ACPI + ACPI_RESET);
	t[128] = ACPI_RESET_VALUE;
	t[131] = 4; /* minor revision: 6.4 */
	put_le64(t + 140, dsdt);
	put_port(t + 244, PORT_ACPI + ACPI_SLEEP_CONTROL);
	put_port(t + 256, PORT_ACPI + ACPI_SLEEP_STATUS);
	memcpy(t + 268, "ARCVMM\0\0", 8); /* hypervisor vendor identity */
	table_end(t, FADT_SIZE, "FACP", 6);
}

static size_t build_madt(uint8_t *t, const struct acpi_config *c)
{
	uint8_t *p = t + HEADER_SIZE;

	put_le32(p, LAPIC_BASE);
	put_le32(p + 4, 0); /* no pair of 8259s */
	p += 8;
	for (unsigned i = 0; i < c->ncpus; i++, p += 8) {
		p[0] = MADT_LAPIC;
		p[1] = 8;
		p[2] = (uint8_t)i; /* processor UID */
		p[3] = (uint8_t)i; /* APIC ID */
		put_le32(p + 4, 1); /* enabled */
	}
	p[0] = MADT_IOAPIC;
	p[1] = 12;
	p[2] = 0; /* ID */
	p[3] = 0;
	put_le32(p + 4, IOAPIC_BASE);
	put_le32(p + 8, 0); /* first GSI */
	p += 12;
	table_end(t, (size_t)(p - t), "APIC", 5);
	return (size_t)(p - t);
}

static size_t madt_size(const struct acpi_config *c)
{
	return HEADER_SIZE + 8 + 8 * (size_t)c->ncpus + 12;
}

static void dsdt_cpus(struct aml *a, unsigned ncpus)
{
	char name[5];

	for (unsigned i = 0; i < ncpus; i++) {
		size_t d;

		snprintf(name, sizeof(name), "C%03X", i & 0xfff);
		d = aml_device(a, name);
		aml_name_string(a, "_HID", "ACPI0007");
		aml_name_int(a, "_UID", i);
		aml_close(a, d);
	}
}

static void dsdt_uart(struct aml *a)
{
	size_t d = aml_device(a, "COM1"), r;

	aml_name_eisaid(a, "_HID", "PNP0501");
	aml_name_int(a, "_UID", 0);
	r = aml_resources(a);
	aml_res_io(a, PORT_COM1, 8);
	aml_res_interrupt(a, GSI_COM1, false);
	aml_resources_close(a, r);
	aml_close(a, d);
}

static void dsdt_power(struct aml *a)
{
	size_t d, r, m, i;

	d = aml_device(a, "PWRB");
	aml_name_eisaid(a, "_HID", "PNP0C0C");
	aml_name_int(a, "_UID", 0);
	aml_close(a, d);

	d = aml_device(a, "GED_");
	aml_name_string(a, "_HID", "ACPI0013");
	aml_name_int(a, "_UID", 0);
	r = aml_resources(a);
	aml_res_interrupt(a, GSI_EVENT, false);
	aml_resources_close(a, r);
	m = aml_method(a, "_EVT", 1);
	i = aml_if_arg0_equals(a, GSI_EVENT);
	aml_notify(a, "\\_SB_.PWRB", 0x80); /* pressed */
	aml_close(a, i);
	aml_close(a, m);
	aml_close(a, d);
}

/* pvpanic: the driver writes 1 to the port when the kernel panics. */
static void dsdt_panic(struct aml *a)
{
	size_t d = aml_device(a, "PANC"), r;

	aml_name_string(a, "_HID", "QEMU0001");
	aml_name_int(a, "_UID", 0);
	aml_name_int(a, "_STA", 0xf);
	r = aml_resources(a);
	aml_res_io(a, PORT_PVPANIC, 1);
	aml_resources_close(a, r);
	aml_close(a, d);
}

static void dsdt_slots(struct aml *a, const struct acpi_config *c)
{
	char name[5];

	for (unsigned i = 0; i < c->nslots; i++) {
		size_t d, r;

		snprintf(name, sizeof(name), "V%03X", i & 0xfff);
		d = aml_device(a, name);
		aml_name_string(a, "_HID", "LNRO0005");
		aml_name_int(a, "_UID", i);
		r = aml_resources(a);
		aml_res_memory32(a, (uint32_t)c->slots[i].base, 0x1000);
		aml_res_interrupt(a, c->slots[i].gsi, c->slots[i].shared);
		aml_resources_close(a, r);
		aml_close(a, d);
	}
}

static void build_dsdt(struct aml *a, const struct acpi_config *c)
{
	size_t t = a->len, s;

	aml_bytes(a, (const uint8_t[HEADER_SIZE]){ 0 }, HEADER_SIZE);
	s = aml_scope(a, "\\_SB_");
	dsdt_cpus(a, c->ncpus);
	if (c->uart)
		dsdt_uart(a);
	dsdt_power(a);
	dsdt_panic(a);
	dsdt_slots(a, c);
	aml_close(a, s);
	aml_name(a, "_S5_");
	s = aml_package(a, 4);
	aml_int(a, ACPI_S5_TYPE);
	aml_int(a, 0);
	aml_int(a, 0);
	aml_int(a, 0);
	aml_close(a, s);
	if (!a->overflow)
		table_end(a->buf + t, a->len - t, "DSDT", 2);
}

/* Room for a table of @len bytes, aligned; its offset. */
static size_t reserve(struct aml *a, size_t len)
{
	size_t at = align_up(a->len, TABLE_ALIGN);

	if (!range_fits(at, len, a->cap)) {
		a->overflow = true;
		return 0;
	}
	memset(a->buf + a->len, 0, at + len - a->len);
	a->len = at + len;
	return at;
}

static void build_rsdp(uint8_t *p, uint64_t xsdt)
{
	memset(p, 0, RSDP_SIZE);
	memcpy(p, "RSD PTR ", 8);
	memcpy(p + 9, OEM_ID, 6);
	p[15] = 2; /* ACPI 2.0 or later */
	put_le32(p + 20, RSDP_SIZE);
	put_le64(p + 24, xsdt);
	p[8] = checksum(p, 20);
	p[32] = checksum(p, RSDP_SIZE);
}

long acpi_build(const struct acpi_config *c, void *buf, size_t size,
		struct err *e)
{
	struct aml a = { .buf = buf, .cap = size };
	size_t rsdp, xsdt, fadt, madt, dsdt;
	const size_t xsdt_len = HEADER_SIZE + 2 * 8;

	rsdp = reserve(&a, RSDP_SIZE);
	xsdt = reserve(&a, xsdt_len);
	fadt = reserve(&a, FADT_SIZE);
	madt = reserve(&a, madt_size(c));
	dsdt = reserve(&a, 0);
	build_dsdt(&a, c);
	if (a.overflow)
		return err_set(e, -ENOSPC,
			       "the ACPI tables of %u CPUs and %u devices need "
			       "more than %zu KiB",
			       c->ncpus, c->nslots, size >> 10);
	build_fadt(a.buf + fadt, c->base + dsdt);
	build_madt(a.buf + madt, c);
	put_le64(a.buf + xsdt + HEADER_SIZE, c->base + fadt);
	put_le64(a.buf + xsdt + HEADER_SIZE + 8, c->base + madt);
	table_end(a.buf + xsdt, xsdt_len, "XSDT", 1);
	build_rsdp(a.buf + rsdp, c->base + xsdt);
	return (long)a.len;
}
