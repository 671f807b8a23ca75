#include "test.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/err.h"
#include "bus/bus.h"

struct regs {
	uint8_t bytes[16];
	unsigned writes;
};

static uint64_t regs_read(void *dev, uint64_t off, unsigned len)
{
	struct regs *r = dev;
	uint64_t v = ~0ull; /* the bus cuts it to @len */

	memcpy(&v, r->bytes + off, len);
	return v;
}

static void regs_write(void *dev, uint64_t off, unsigned len, uint64_t val)
{
	struct regs *r = dev;

	r->writes++;
	memcpy(r->bytes + off, &val, len);
}

static const struct bus_ops regs_ops = { regs_read, regs_write };

static void dispatch(void **state)
{
	struct regs a = { 0 }, b = { 0 };
	struct bus *bus;
	uint64_t v;

	(void)state;
	assert_int_equal(bus_create(&bus), 0);
	assert_int_equal(
		bus_add(bus, BUS_MMIO, 0x2000, 16, &regs_ops, &b, NULL, NULL),
		0);
	assert_int_equal(
		bus_add(bus, BUS_MMIO, 0x1000, 16, &regs_ops, &a, NULL, NULL),
		0);
	assert_true(bus_write(bus, BUS_MMIO, 0x1004, 4, 0x1122334455667788));
	assert_true(bus_read(bus, BUS_MMIO, 0x1004, 2, &v));
	assert_int_equal(v, 0x7788);
	assert_int_equal(b.writes, 0);
	/* Past the end, across it, between ranges, other space: open bus. */
	assert_false(bus_read(bus, BUS_MMIO, 0x1010, 1, &v));
	assert_int_equal(v, 0xff);
	assert_false(bus_read(bus, BUS_MMIO, 0x100c, 8, &v));
	assert_true(v == ~0ull);
	assert_false(bus_write(bus, BUS_PIO, 0x1000, 1, 0));
	assert_false(bus_read(bus, BUS_MMIO, 0, 4, &v));
	assert_int_equal(v, 0xffffffff);
	bus_remove(bus, BUS_MMIO, 0x1000);
	assert_false(bus_read(bus, BUS_MMIO, 0x1004, 4, &v));
	assert_true(bus_read(bus, BUS_MMIO, 0x2000, 4, &v));
	bus_destroy(bus);
}

static void overlap_is_refused(void **state)
{
	struct regs a;
	struct bus *bus;
	struct err e = { 0 };

	(void)state;
	bus_create(&bus);
	bus_add(bus, BUS_PIO, 0x60, 5, &regs_ops, &a, NULL, NULL);
	assert_int_equal(
		bus_add(bus, BUS_PIO, 0x64, 1, &regs_ops, &a, NULL, &e),
		-EEXIST);
	assert_non_null(strstr(e.text, "already taken"));
	assert_int_equal(
		bus_add(bus, BUS_PIO, 0x5f, 2, &regs_ops, &a, NULL, &e),
		-EEXIST);
	assert_int_equal(
		bus_add(bus, BUS_PIO, 0x65, 1, &regs_ops, &a, NULL, &e), 0);
	bus_destroy(bus);
}

static uint64_t rings(int fd)
{
	uint64_t n = 0;

	return read(fd, &n, sizeof(n)) < 0 ? 0 : n;
}

static void doorbells(void **state)
{
	struct regs a = { 0 };
	struct bus *bus;
	int fd = eventfd(0, EFD_NONBLOCK);
	struct bus_ioeventfd io = { .space = BUS_MMIO,
				    .addr = 0x1008,
				    .len = 4,
				    .match = 2,
				    .fd = fd };

	(void)state;
	bus_create(&bus);
	bus_add(bus, BUS_MMIO, 0x1000, 16, &regs_ops, &a, NULL, NULL);
	assert_int_equal(bus_add_ioeventfd(bus, &io), 0);
	assert_int_equal(bus_add_ioeventfd(bus, &io), -EEXIST);
	bus_write(bus, BUS_MMIO, 0x1008, 4, 2);
	bus_write(bus, BUS_MMIO, 0x1008, 4, 0xff00000002); /* cut to 4 bytes */
	assert_int_equal(rings(fd), 2);
	assert_int_equal(a.writes, 0);
	/* Another value, length or address goes to the registers. */
	bus_write(bus, BUS_MMIO, 0x1008, 4, 3);
	bus_write(bus, BUS_MMIO, 0x1008, 2, 2);
	bus_write(bus, BUS_MMIO, 0x100c, 4, 2);
	assert_int_equal(a.writes, 3);
	assert_int_equal(rings(fd), 0);
	bus_remove_ioeventfd(bus, &io);
	bus_write(bus, BUS_MMIO, 0x1008, 4, 2);
	assert_int_equal(a.writes, 4);
	bus_destroy(bus);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(dispatch),
		cmocka_unit_test(overlap_is_refused),
		cmocka_unit_test(doorbells),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
