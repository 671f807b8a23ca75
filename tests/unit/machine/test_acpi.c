/*
 * The tables: checksums and links, sizes at the limits, and iasl, which must
 * disassemble them and compile the result again without a complaint.
 */
#include "test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/err.h"
#include "kernel_files.h"
#include "machine/acpi.h"
#include "machine/aml.h"
#include "machine/layout.h"

#define BASE 0xe0000ull

static uint8_t mem[ACPI_SIZE];
static struct acpi_slot slots[256];

static struct acpi_config config(unsigned ncpus, unsigned nslots)
{
	for (unsigned i = 0; i < nslots; i++)
		slots[i] = (struct acpi_slot){ SLOT_BASE + 0x1000ull * i,
					       GSI_SLOT_0 + i % GSI_SLOT_N,
					       nslots > GSI_SLOT_N };
	return (struct acpi_config){ .ncpus = ncpus,
				     .uart = true,
				     .slots = slots,
				     .nslots = nslots,
				     .base = BASE };
}

static uint8_t sum(const uint8_t *p, size_t n)
{
	uint8_t s = 0;

	while (n--)
		s = (uint8_t)(s + *p++);
	return s;
}

static const uint8_t *table(uint64_t at, const char *sig)
{
	const uint8_t *t = mem + (at - BASE);
	uint32_t len = get_le32(t + 4);

	assert_true(at >= BASE && at + len <= BASE + sizeof(mem));
	assert_memory_equal(t, sig, 4);
	assert_int_equal(sum(t, len), 0);
	return t;
}

struct tables {
	const uint8_t *fadt, *madt, *dsdt;
};

static struct tables walk(void)
{
	struct tables t;
	const uint8_t *xsdt;

	assert_memory_equal(mem, "RSD PTR ", 8);
	assert_int_equal(sum(mem, 20), 0);
	assert_int_equal(sum(mem, 36), 0);
	xsdt = table(get_le64(mem + 24), "XSDT");
	t.fadt = table(get_le64(xsdt + 36), "FACP");
	t.madt = table(get_le64(xsdt + 44), "APIC");
	t.dsdt = table(get_le64(t.fadt + 140), "DSDT");
	return t;
}

static void links(void **state)
{
	struct acpi_config c = config(2, 3);
	struct err e = { 0 };
	struct tables t;

	(void)state;
	assert_true(acpi_build(&c, mem, sizeof(mem), &e) > 0);
	t = walk();
	assert_int_equal(t.fadt[8], 6);
	assert_true(get_le32(t.fadt + 112) & 1 << 20); /* hardware-reduced */
	assert_int_equal(get_le16(t.fadt + 109), 1 << 2 | 1 << 5);
	assert_int_equal(get_le32(t.madt + 36), LAPIC_BASE);
	assert_int_equal(get_le32(t.madt + 4), 36 + 8 + 2 * 8 + 12);
}

static void limits(void **state)
{
	struct acpi_config c = config(255, 256);
	struct err e = { 0 };
	long n = acpi_build(&c, mem, sizeof(mem), &e);

	(void)state;
	print_message("255 CPUs, 256 slots: %ld bytes\n", n);
	assert_true(n > 0);
	walk();
	/* To the byte, and one less. */
	assert_int_equal(acpi_build(&c, mem, (size_t)n, &e), n);
	for (size_t size = (size_t)n - 1; size > 8; size -= size / 5 + 1)
		assert_int_equal(acpi_build(&c, mem, size, &e), -ENOSPC);
	assert_non_null(strstr(e.text, "255 CPUs"));
}

static void lengths(void **state)
{
	/* Package lengths at the edges of their encodings. */
	static const size_t body[] = { 0,	61,	 62,	  63,
				       4090,	4092,	 4093,	  4094,
				       4095,	1048570, 1048571, 1048572,
				       1048573, 1048574 };
	uint8_t *buf = malloc(2 << 20);

	(void)state;
	for (unsigned i = 0; i < sizeof(body) / sizeof(body[0]); i++) {
		struct aml a = { .buf = buf, .cap = 2 << 20 };
		size_t mark = a.len, n, len;

		for (size_t j = 0; j < body[i]; j++)
			aml_byte(&a, 0xcc);
		aml_close(&a, mark);
		n = buf[0] >> 6;
		len = n ? buf[0] & 15 : buf[0];
		for (size_t j = 1; j <= n; j++)
			len |= (size_t)buf[j] << (4 + 8 * (j - 1));
		assert_int_equal(len, a.len);
		assert_int_equal(a.len, body[i] + n + 1);
		assert_int_equal(buf[a.len - 1], body[i] ? 0xcc : buf[0]);
	}
	free(buf);
}

static void sh(const char *cmd)
{
	if (system(cmd))
		fail_msg("failed: %s", cmd);
}

static void judge(unsigned ncpus, unsigned nslots)
{
	struct acpi_config c = config(ncpus, nslots);
	char dir[] = "/tmp/arcvmm-acpi.XXXXXX", cmd[512], path[64];
	struct err e = { 0 };
	struct tables t;
	const uint8_t *all[3];
	static const char *const names[3] = { "facp", "apic", "dsdt" };

	assert_true(acpi_build(&c, mem, sizeof(mem), &e) > 0);
	t = walk();
	all[0] = t.fadt;
	all[1] = t.madt;
	all[2] = t.dsdt;
	assert_non_null(mkdtemp(dir));
	for (int i = 0; i < 3; i++) {
		snprintf(path, sizeof(path), "%s/%s.dat", dir, names[i]);
		write_file(path, all[i], get_le32(all[i] + 4));
		snprintf(cmd, sizeof(cmd),
			 "cd %s && iasl -d %s.dat >log 2>&1 && "
			 "! grep -iE 'error|warning|invalid|unknown' log || "
			 "{ cat %s/log; false; }",
			 dir, names[i], dir);
		sh(cmd);
		snprintf(cmd, sizeof(cmd),
			 "cd %s && iasl -p out %s.dsl >log 2>&1 && "
			 "grep -qE '(0 Errors, 0 Warnings|Compilation "
			 "successful. 0 Errors)' log && "
			 "! grep -E '^(Error|Warning|Remark)' log || "
			 "{ cat %s/log; false; }",
			 dir, names[i], dir);
		sh(cmd);
	}
	/* What came out of the compiler is what went in. */
	snprintf(cmd, sizeof(cmd),
		 "cd %s && iasl -oa -p out dsdt.dsl >log 2>&1 && tail -c +37 "
		 "dsdt.dat >a && tail -c +37 out.aml >b && cmp a b",
		 dir);
	sh(cmd);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
	sh(cmd);
}

static void iasl(void **state)
{
	(void)state;
	if (system("command -v iasl >/dev/null"))
		skip_because("no iasl (package acpica-tools)");
	judge(1, 0);
	judge(2, 3);
	judge(64, 40);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(links),
		cmocka_unit_test(limits),
		cmocka_unit_test(lengths),
		cmocka_unit_test(iasl),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
