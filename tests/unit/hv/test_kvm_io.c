/* Port and memory-mapped accesses, doorbells, counters. */
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hv/hvkit.h"
#include "test.h"

/* Ports: three widths out, in, a string. */
GUEST(ports, "mov $0x11223344, %eax\n"
	     "out %al, %dx\n"
	     "out %ax, %dx\n"
	     "out %eax, %dx\n"
	     "xor %eax, %eax\n"
	     "in %dx, %al\n"
	     "mov %rax, 0x100000\n"
	     "in %dx, %ax\n"
	     "mov %rax, 0x100008\n"
	     "in %dx, %eax\n"
	     "mov %rax, 0x100010\n"
	     "lea 1f(%rip), %rsi\n"
	     "mov $5, %ecx\n"
	     "cld\n"
	     "rep outsw\n"
	     "mov $0x9999, %dx\n" /* nobody there */
	     "in %dx, %eax\n"
	     "mov %rax, 0x100018\n"
	     "out %eax, %dx\n" GUEST_END "1: .short 1, 2, 3, 4, 5\n");

static void pio(void **state)
{
	struct hv_counters n;
	struct hvkit k;

	(void)state;
	for (unsigned user = 0; user < 2; user++) {
		hvkit_open_or_skip(&k, 1, NULL);
		hvkit_load(&k, 0, ports, ports_end, user ? HVKIT_USER : 0);
		/* The paravirtual KVM's bitmap check reads up to 0x9999/8. */
		if (user)
			hvkit_set64(&k, 0x1330, 0);
		hvkit_run(&k, 0);
		assert_int_equal(k.outs, 8);
		assert_int_equal(k.out[0].value, 0x44);
		assert_int_equal(k.out[0].len, 1);
		assert_int_equal(k.out[1].value, 0x3344);
		assert_int_equal(k.out[1].len, 2);
		assert_int_equal(k.out[2].value, 0x11223344);
		assert_int_equal(k.out[2].len, 4);
		for (unsigned i = 0; i < 5; i++) {
			assert_int_equal(k.out[3 + i].value, i + 1);
			assert_int_equal(k.out[3 + i].len, 2);
		}
		assert_int_equal(hvkit_get64(&k, 0x100000), 0xd4);
		assert_int_equal(hvkit_get64(&k, 0x100008), 0xc3d4);
		assert_int_equal(hvkit_get64(&k, 0x100010), 0xa1b2c3d4);
		assert_int_equal(hvkit_get64(&k, 0x100018), 0xffffffff);
		hv_vcpu_counters(k.cpu[0], &n);
		assert_int_equal(n.pio, 14);
		assert_int_equal(n.kicks, 1);
		assert_true(n.exits >= 4);
		hvkit_close(&k);
	}
}

/* A device of 16 KiB at 0xd0000000 that remembers. */
static uint8_t regs[0x4000];
static struct {
	uint64_t off;
	unsigned len;
} seen[64];
static unsigned nseen;

static void note(uint64_t off, unsigned len)
{
	if (nseen < 64) {
		seen[nseen].off = off;
		seen[nseen].len = len;
	}
	nseen++;
}

static uint64_t regs_read(void *dev, uint64_t off, unsigned len)
{
	uint64_t v = 0;

	(void)dev;
	note(off, len);
	memcpy(&v, regs + off, len);
	return v;
}

static void regs_write(void *dev, uint64_t off, unsigned len, uint64_t val)
{
	(void)dev;
	note(off, len);
	memcpy(regs + off, &val, len);
}

static const struct bus_ops regs_ops = { regs_read, regs_write };

static void add_regs(struct hvkit *k)
{
	memset(regs, 0, sizeof(regs));
	nseen = 0;
	assert_int_equal(bus_add(k->bus, BUS_MMIO, 0xd0000000, sizeof(regs),
				 &regs_ops, k, NULL, NULL),
			 0);
}

GUEST(mmio_code, "mov $0xd0000000, %ebx\n"
		 "movabs $0x1122334455667788, %rax\n"
		 "mov %al, (%rbx)\n"
		 "mov %ax, 2(%rbx)\n"
		 "mov %eax, 4(%rbx)\n"
		 "mov %rax, 8(%rbx)\n"
		 "mov (%rbx), %rcx\n"
		 "mov %rcx, 0x100000\n"
		 "movzbl 8(%rbx), %ecx\n"
		 "mov %rcx, 0x100008\n"
		 "movl $7, 0x10(%rbx)\n"
		 "addl $5, 0x10(%rbx)\n"
		 "mov %rax, 0xffd(%rbx)\n" /* crosses a page: 3 + 5 bytes */
		 "mov 0xffd(%rbx), %rcx\n"
		 "mov %rcx, 0x100010\n"
		 "mov $0xc0000000, %ebx\n" /* nobody there */
		 "mov %eax, (%rbx)\n"
		 "mov (%rbx), %rcx\n"
		 "mov %rcx, 0x100018\n" GUEST_END);

static void mmio(void **state)
{
	struct hvkit k;

	(void)state;
	for (unsigned user = 0; user < 2; user++) {
		uint64_t v;

		hvkit_open_or_skip(&k, 1, add_regs);
		hvkit_load(&k, 0, mmio_code, mmio_code_end,
			   user ? HVKIT_USER : 0);
		hvkit_run(&k, 0);
		assert_true(hvkit_get64(&k, 0x100000) == 0x5566778877880088);
		assert_true(hvkit_get64(&k, 0x100008) == 0x88);
		assert_true(hvkit_get64(&k, 0x100010) == 0x1122334455667788);
		assert_true(hvkit_get64(&k, 0x100018) == ~0ull);
		memcpy(&v, regs + 8, 8);
		assert_true(v == 0x1122334455667788);
		assert_int_equal(regs[0x10], 12);
		for (unsigned i = 0; i < nseen; i++) {
			unsigned n = seen[i].len;

			assert_true(n == 1 || n == 2 || n == 4 || n == 8);
			assert_true(seen[i].off + n <= sizeof(regs));
		}
		hvkit_close(&k);
	}
}

/* Memory a guest may only read: its writes go to the bus, and nowhere. */
static void *rom;

static void add_rom(struct hvkit *k)
{
	struct gmem_region r = { .base = gpa(0x800000),
				 .size = 0x1000,
				 .fd = -1,
				 .flags = GMEM_READONLY };

	r.host = rom = mmap(NULL, 0x1000, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(rom != MAP_FAILED);
	memset(rom, 0x5a, 0x1000);
	assert_int_equal(gmem_add_mapping(k->mem, &r, NULL), 0);
}

GUEST(rom_code, "mov $0x800000, %ebx\n"
		"movl $1, (%rbx)\n"
		"mov (%rbx), %rcx\n"
		"mov %rcx, 0x100000\n" GUEST_END);

static void readonly(void **state)
{
	struct hvkit k;

	(void)state;
	hvkit_open_or_skip(&k, 1, add_rom);
	hvkit_load(&k, 0, rom_code, rom_code_end, 0);
	hvkit_run(&k, 0);
	assert_true(hvkit_get64(&k, 0x100000) == 0x5a5a5a5a5a5a5a5a);
	assert_int_equal(*(uint8_t *)rom, 0x5a);
	hvkit_close(&k);
	munmap(rom, 0x1000);
}

static uint64_t drained(int fd)
{
	uint64_t n = 0;

	if (read(fd, &n, sizeof(n)) != sizeof(n))
		return 0;
	return n;
}

GUEST(bell_code, "mov $0xd0000050, %ebx\n"
		 "movl $0, (%rbx)\n" /* match any, 4 bytes */
		 "movl $9, (%rbx)\n"
		 "movw $9, (%rbx)\n" /* wrong length: to the device */
		 "movl $3, 0x10(%rbx)\n" /* match 3 */
		 "movl $4, 0x10(%rbx)\n" /* to the device */
		 "movb $1, 0x20(%rbx)\n" /* any length */
		 "movl $2, 0x20(%rbx)\n"
		 "mov $0x700, %dx\n"
		 "mov $6, %eax\n"
		 "out %ax, %dx\n" GUEST_END);

static void doorbells(void **state)
{
	struct bus_ioeventfd io[] = {
		{ BUS_MMIO, 0xd0000050, 4, 0, true, -1 },
		{ BUS_MMIO, 0xd0000060, 4, 3, false, -1 },
		{ BUS_MMIO, 0xd0000070, 0, 0, true, -1 },
		{ BUS_PIO, 0x700, 2, 6, false, -1 },
	};
	const uint64_t rings[] = { 2, 1, 2, 1 };
	struct hvkit k;

	(void)state;
	hvkit_open_or_skip(&k, 1, add_regs);
	for (unsigned i = 0; i < 4; i++) {
		io[i].fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		assert_true(io[i].fd >= 0);
		assert_int_equal(hv_ioeventfd(k.vm, &io[i], true), 0);
	}
	assert_int_not_equal(hv_ioeventfd(k.vm, &io[0], true), 0);
	hvkit_load(&k, 0, bell_code, bell_code_end, 0);
	hvkit_run(&k, 0);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(drained(io[i].fd), rings[i]);
	assert_int_equal(nseen, 2);
	assert_int_equal(seen[0].off, 0x50);
	assert_int_equal(seen[0].len, 2);
	assert_int_equal(seen[1].off, 0x60);
	/* Taken away, the same writes all reach the device. */
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(hv_ioeventfd(k.vm, &io[i], false), 0);
		assert_int_not_equal(hv_ioeventfd(k.vm, &io[i], false), 0);
	}
	nseen = 0;
	hvkit_load(&k, 0, bell_code, bell_code_end, 0);
	hvkit_run(&k, 0);
	assert_int_equal(nseen, 7);
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(drained(io[i].fd), 0);
		close(io[i].fd);
	}
	hvkit_close(&k);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pio),
		cmocka_unit_test(mmio),
		cmocka_unit_test(readonly),
		cmocka_unit_test(doorbells),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
