/*
 * The board without an engine: refusals, what is in guest memory after
 * board_load(), first registers, CPUID, and what the guest's last words become.
 */
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/util.h"
#include "bus/bus.h"
#include "hv/hv.h"
#include "kernel_files.h"
#include "loop/loop.h"
#include "machine/board.h"
#include "machine/kernel.h"
#include "mem/gmem.h"

struct fixture {
	struct gmem *mem;
	struct bus *bus;
	struct loop *loop;
	struct board *b;
	struct kernel *k;
	struct err e;
	unsigned events[3];
	char tx[16];
	size_t tx_len;
	struct {
		unsigned gsi;
		bool level;
	} irqs[8];
	unsigned nirqs;
};

static struct fixture *fx;
static char path[64];

static void on_event(void *ctx, enum board_event e)
{
	((struct fixture *)ctx)->events[e]++;
}

static void on_tx(void *ctx, const uint8_t *buf, size_t len)
{
	struct fixture *f = ctx;

	memcpy(f->tx + f->tx_len, buf, len);
	f->tx_len += len;
}

static int setup(void **state)
{
	fx = calloc(1, sizeof(*fx));
	*state = fx;
	return gmem_create(&fx->mem) || bus_create(&fx->bus) ||
	       loop_create(&fx->loop, NULL);
}

static int teardown(void **state)
{
	(void)state;
	kernel_close(fx->k);
	board_destroy(fx->b);
	bus_destroy(fx->bus);
	loop_destroy(fx->loop);
	gmem_destroy(fx->mem);
	free(fx);
	return 0;
}

static int create(unsigned ncpus, uint64_t mem)
{
	const struct board_config c = {
		.ncpus = ncpus,
		.mem_size = mem,
		.mem = fx->mem,
		.bus = fx->bus,
		.loop = fx->loop,
		.event = on_event,
		.uart_tx = on_tx,
		.ctx = fx,
	};

	fx->e = (struct err){ 0 };
	return board_create(&fx->b, &c, &fx->e);
}

static void open_kernel(const struct elf_spec *s, bool bzimage)
{
	const struct kernel_config c = { .path = path, .cache_dir = "" };
	struct blob elf = make_elf(s);
	struct blob f = bzimage ? make_bzimage(elf, false, 0) : elf;
	int fd;

	strcpy(path, "/tmp/arcvmm-board.XXXXXX");
	fd = mkstemp(path);
	assert_true(fd >= 0);
	close(fd);
	write_file(path, f.p, f.len);
	assert_int_equal(kernel_open(&fx->k, &c, &fx->e), 0);
	unlink(path);
	free(elf.p);
	if (bzimage)
		free(f.p);
}

static void refuse(unsigned ncpus, uint64_t mem, const char *says)
{
	assert_true(create(ncpus, mem) < 0);
	assert_null(fx->b);
	print_message("%s\n", fx->e.text);
	if (!strstr(fx->e.text, says))
		fail_msg("'%s' is not in: %s", says, fx->e.text);
}

static void refusals(void **state)
{
	(void)state;
	refuse(0, MiB(64), "1 to 255 CPUs");
	refuse(10000, MiB(64), "10000");
	refuse(1, 0, "0 was given");
	refuse(1, 1024, "not 1024 bytes");
	refuse(1, MiB(8), "not 8 MiB");
	refuse(1, 1ull << 50, "this host has");
	refuse(1, UINT64_MAX, "this host has");
	/* Nothing was left behind. */
	assert_null(gmem_region(fx->mem, 0));
	assert_int_equal(create(255, MiB(16)), 0);
}

static void memory_around_the_hole(void **state)
{
	const struct gmem_region *r;

	(void)state;
	if (create(1, GiB(5)) < 0)
		skip_because("%s", fx->e.text);
	r = gmem_region(fx->mem, 0);
	assert_int_equal(r->base.v, 0);
	assert_int_equal(r->size, GiB(3));
	r = gmem_region(fx->mem, 1);
	assert_int_equal(r->base.v, GiB(4));
	assert_int_equal(r->size, GiB(2));
	assert_null(gmem_region(fx->mem, 2));
}

static void slots(void **state)
{
	struct board_slot s;

	(void)state;
	assert_int_equal(create(1, MiB(32)), 0);
	for (unsigned i = 0; i < BOARD_SLOTS_MAX; i++) {
		assert_int_equal(board_add_slot(fx->b, &s, &fx->e), 0);
		assert_int_equal(s.base, 0xd0000000 + i * BOARD_SLOT_SIZE);
		assert_in_range(s.gsi, 6, 23);
	}
	assert_int_equal(board_add_slot(fx->b, &s, &fx->e), -ENOSPC);
	print_message("%s\n", fx->e.text);
}

static const uint8_t *at(uint64_t a, size_t len)
{
	const uint8_t *p = gmem_ptr(fx->mem, gpa(a), len, false);

	assert_non_null(p);
	return p;
}

/* Walk the boot page tables. */
static uint64_t translate(uint64_t cr3, uint64_t va)
{
	uint64_t e = cr3 | 1;

	for (int shift = 39; shift >= 21; shift -= 9) {
		e = get_le64(at((e & ~0xfffull) + (va >> shift & 511) * 8, 8));
		assert_true(e & 1);
	}
	assert_true(e & 0x80);
	return (e & ~0x1fffffull) | (va & 0x1fffff);
}

static int fill(const void *ctx, void *dst, struct err *e)
{
	(void)e;
	memcpy(dst, ctx, 5);
	return 0;
}

static int fill_fails(const void *ctx, void *dst, struct err *e)
{
	(void)ctx;
	(void)dst;
	return err_set(e, -EIO, "the file changed");
}

static void boot_data(void **state)
{
	struct board_part parts[] = {
		{ .data = "abc", .len = 3 },
		{ .fill = fill, .ctx = "hello", .len = 5 },
		{ .len = 4, .offset = 1, .name = "x" },
		{ .len = 0 },
	};
	struct board_boot boot = { .initrd = parts,
				   .ninitrd = 4,
				   .cmdline = "console=ttyS0 foo" };
	struct hv_x86_vcpu_state *s = aligned_alloc(64, sizeof(*s));
	uint32_t rd, n;
	const uint8_t *z;

	(void)state;
	assert_int_equal(create(2, MiB(64)), 0);
	open_kernel(&(struct elf_spec){ .banner = "Linux version 6.1 (x)" },
		    true);
	boot.kernel = fx->k;
	strcpy(path, "/tmp/arcvmm-board.XXXXXX");
	parts[2].fd = mkstemp(path);
	assert_int_equal(write(parts[2].fd, "_WXYZ", 5), 5);
	unlink(path);
	for (int round = 0; round < 2; round++) {
		assert_int_equal(board_load(fx->b, &boot, &fx->e), 0);
		z = at(0x7000, 4096);
		assert_memory_equal(z + 0x202, "HdrS", 4);
		assert_int_equal(z[0x1ef], 0); /* sentinel */
		assert_int_equal(z[0x210], 0xff);
		assert_string_equal((const char *)at(get_le32(z + 0x228), 100),
				    board_cmdline(fx->b));
		assert_non_null(
			strstr(board_cmdline(fx->b), "console=ttyS0 foo"));
		rd = get_le32(z + 0x218);
		assert_int_equal(rd % 4096, 0);
		assert_int_equal(get_le32(z + 0x21c), 16);
		assert_memory_equal(at(rd, 16), "abc\0hello\0\0\0WXYZ", 16);
		assert_memory_equal(at(get_le64(z + 0x70), 8), "RSD PTR ", 8);
		/* A seed that differs from boot to boot. */
		z = at(get_le64(z + 0x250), 48);
		assert_int_equal(get_le32(z + 8), 9);
		assert_int_equal(get_le32(z + 12), 32);
	}
	z = at(0x7000, 4096);
	n = z[0x1e8];
	assert_in_range(n, 3, 8);
	for (uint32_t i = 0; i < n; i++) {
		const uint8_t *m = z + 0x2d0 + 20 * i;

		if (get_le32(m + 16) == 1) /* usable: it must be RAM */
			at(get_le64(m), get_le64(m + 8));
	}
	board_boot_state(fx->b, 0, s);
	assert_int_equal(s->rip, 0x1000040);
	assert_int_equal(s->gpr[X86_RSI], 0x7000);
	assert_int_equal(s->mp_state, HV_X86_RUNNABLE);
	assert_int_equal(s->efer, 0x500);
	assert_int_equal(translate(s->cr3, s->rip), s->rip);
	assert_int_equal(translate(s->cr3, 0x7000), 0x7000);
	assert_int_equal(translate(s->cr3, GiB(1) - 1), GiB(1) - 1);
	assert_int_equal(get_le64(at(s->gdt.base + 0x10, 8)) >> 32 & 0x20ff00,
			 0x209b00);
	board_boot_state(fx->b, 1, s);
	assert_int_equal(s->mp_state, HV_X86_UNINITIALIZED);
	assert_int_equal(s->rip, 0xfff0);
	assert_int_equal(s->seg[X86_CS].base, 0xffff0000);
	assert_int_equal(s->efer, 0);
	assert_int_equal(get_le32(s->lapic + 0x20), 1 << 24);
	free(s);

	/* Parts that fail take the load with them. */
	parts[1].fill = fill_fails;
	assert_int_equal(board_load(fx->b, &boot, &fx->e), -EIO);
	assert_string_equal(fx->e.text, "the file changed");
	parts[1].fill = fill;
	parts[2].len = 40;
	assert_int_equal(board_load(fx->b, &boot, &fx->e), -EINVAL);
	assert_non_null(strstr(fx->e.text, "cut off"));
	close(parts[2].fd);
	assert_true(board_load(fx->b, &boot, &fx->e) < 0);
}

/* A kernel just below the 32-bit hole is whole in the identity map. */
static void kernel_high_up(void **state)
{
	const struct elf_spec spec = { .load = GiB(2) + MiB(16) };
	struct board_boot boot = { 0 };
	static struct hv_x86_vcpu_state s;
	uint8_t b[8];

	(void)state;
	if (create(1, GiB(2) + MiB(64))) {
		skip_because("%s", fx->e.text);
	}
	open_kernel(&spec, false);
	boot.kernel = fx->k;
	assert_int_equal(board_load(fx->b, &boot, &fx->e), 0);
	board_boot_state(fx->b, 0, &s);
	for (uint64_t at = 0; at < GiB(3); at += MiB(2)) {
		uint64_t table = s.cr3;

		for (unsigned shift = 39; shift >= 30; shift -= 9) {
			table += (at >> shift & 511) * 8;
			assert_int_equal(gmem_read(fx->mem, gpa(table), b, 8),
					 0);
			table = get_le64(b) & 0xffffffffff000;
		}
		table += (at >> 21 & 511) * 8;
		assert_int_equal(gmem_read(fx->mem, gpa(table), b, 8), 0);
		assert_int_equal(get_le64(b), at | 0xe3);
	}
}

static void pvh(void **state)
{
	struct board_part part = { .data = "abcd", .len = 4 };
	struct board_boot boot = { .initrd = &part, .ninitrd = 1 };
	struct hv_x86_vcpu_state *s = aligned_alloc(64, sizeof(*s));
	const uint8_t *p;

	(void)state;
	assert_int_equal(create(1, MiB(64)), 0);
	open_kernel(&(struct elf_spec){ .pvh = true, .pvh_entry = 0x1000010 },
		    false);
	boot.kernel = fx->k;
	assert_int_equal(board_load(fx->b, &boot, &fx->e), 0);
	board_boot_state(fx->b, 0, s);
	assert_int_equal(s->rip, 0x1000010);
	assert_int_equal(s->efer, 0);
	assert_int_equal(s->cr0 & 0x80000001, 1);
	p = at(s->gpr[X86_RBX], 56);
	assert_int_equal(get_le32(p), 0x336ec578);
	assert_int_equal(get_le32(p + 12), 1);
	assert_memory_equal(at(get_le64(at(get_le64(p + 16), 16)), 4), "abcd",
			    4);
	assert_string_equal((const char *)at(get_le64(p + 24), 64),
			    board_cmdline(fx->b));
	assert_memory_equal(at(get_le64(p + 32), 8), "RSD PTR ", 8);
	free(s);
}

static void does_not_fit(void **state)
{
	struct board_part part = { .data = path, .len = MiB(20) };
	struct board_boot boot = { .initrd = &part, .ninitrd = 1 };
	char line[3000];

	(void)state;
	assert_int_equal(create(1, MiB(32)), 0);
	open_kernel(&(struct elf_spec){ .bss = MiB(8) }, true);
	boot.kernel = fx->k;
	assert_int_equal(board_load(fx->b, &boot, &fx->e), -ENOSPC);
	print_message("%s\n", fx->e.text);
	assert_non_null(strstr(fx->e.text, "kernel and initrd do not fit"));
	part.len = 5ull << 30;
	assert_int_equal(board_load(fx->b, &boot, &fx->e), -EFBIG);
	print_message("%s\n", fx->e.text);
	boot.ninitrd = 0;
	memset(line, 'x', sizeof(line));
	line[sizeof(line) - 1] = 0;
	boot.cmdline = line;
	assert_int_equal(board_load(fx->b, &boot, &fx->e), -E2BIG);
	print_message("%s\n", fx->e.text);
	boot.cmdline = NULL;
	assert_int_equal(board_load(fx->b, &boot, &fx->e), 0);
	kernel_close(fx->k);
	open_kernel(&(struct elf_spec){ .bss = MiB(80) }, true);
	boot.kernel = fx->k;
	assert_int_equal(board_load(fx->b, &boot, &fx->e), -ENOSPC);
	print_message("%s\n", fx->e.text);
	assert_non_null(strstr(fx->e.text, "kernel does not fit"));
}

static void io(uint16_t port, uint8_t v)
{
	bus_write(fx->bus, BUS_PIO, port, 1, v);
}

static void events(void **state)
{
	const uint16_t warm = 0x1234;
	uint64_t v;

	(void)state;
	assert_int_equal(create(1, MiB(32)), 0);
	io(0x600, 3 << 2 | 0x20); /* S3 is nothing */
	io(0x600, 5 << 2); /* the type without "now" */
	assert_int_equal(fx->events[BOARD_POWER_OFF], 0);
	io(0x600, 5 << 2 | 0x20);
	assert_int_equal(fx->events[BOARD_POWER_OFF], 1);
	io(0x602, 0);
	assert_int_equal(fx->events[BOARD_RESET], 0);
	io(0x602, 1);
	io(0x64, 0xfe);
	io(0xcf9, 0x06);
	assert_int_equal(fx->events[BOARD_RESET], 3);
	io(0x64, 0xd1);
	io(0x60, 0xfe);
	io(0xcf9, 0x02);
	assert_int_equal(fx->events[BOARD_RESET], 3);
	bus_read(fx->bus, BUS_PIO, 0x64, 1, &v);
	assert_int_equal(v, 0xff);
	bus_read(fx->bus, BUS_PIO, 0x505, 1, &v);
	assert_int_equal(v, 1);
	io(0x505, 2);
	assert_int_equal(fx->events[BOARD_PANIC], 0);
	io(0x505, 1);
	assert_int_equal(fx->events[BOARD_PANIC], 1);
	/* A reboot out of a panic, by the mark that Linux leaves. */
	gmem_write(fx->mem, gpa(0x472), &warm, 2);
	io(0x602, 1);
	assert_int_equal(fx->events[BOARD_PANIC], 2);
	assert_int_equal(fx->events[BOARD_RESET], 3);
	board_reset(fx->b);
	io(0x602, 1);
	assert_int_equal(fx->events[BOARD_RESET], 4);
}

static int fake_irq_line(struct hv_vm *vm, unsigned gsi, bool level)
{
	(void)vm;
	fx->irqs[fx->nirqs].gsi = gsi;
	fx->irqs[fx->nirqs++].level = level;
	return 0;
}

static void interrupts(void **state)
{
	const struct hv_ops ops = { .irq_line = fake_irq_line };
	struct hv_vm vm = { .ops = &ops };

	(void)state;
	assert_int_equal(create(1, MiB(32)), 0);
	board_power_button(fx->b); /* nobody there: nothing */
	board_attach(fx->b, &vm);
	board_power_button(fx->b);
	assert_int_equal(fx->nirqs, 2);
	assert_int_equal(fx->irqs[0].gsi, 5);
	assert_true(fx->irqs[0].level);
	assert_false(fx->irqs[1].level);
	io(0x3fc, 8);
	io(0x3f9, 1);
	assert_int_equal(board_uart_input(fx->b, (const uint8_t *)"a", 1), 1);
	assert_int_equal(fx->nirqs, 3);
	assert_int_equal(fx->irqs[2].gsi, 4);
	io(0x3f8, 'Z');
	assert_int_equal(fx->tx_len, 1);
	assert_int_equal(fx->tx[0], 'Z');
	board_reset(fx->b);
	assert_int_equal(fx->nirqs, 4);
	assert_false(fx->irqs[3].level);
}

static int fake_cpuid(struct hv_x86_cpuid *l, unsigned max)
{
	const struct hv_x86_cpuid all[] = {
		{ 0, 0, 0, 0x20, 'a', 'b', 'c' },
		{ 1, 0, 0, 0x800f12, 0xffff0000, ~0u, ~0u },
		{ 4, 0, 1, 0x1c004121, 1, 2, 3 },
		{ 4, 3, 1, 0x1c004163, 1, 2, 3 },
		{ 5, 0, 0, 1, 1, 1, 1 },
		{ 7, 0, 1, 2, ~0u, ~0u, ~0u },
		{ 7, 1, 1, ~0u, 0, 0, 0 },
		{ 0xa, 0, 0, 1, 1, 1, 1 },
		{ 0xb, 0, 1, 9, 9, 9, 9 },
		{ 0xd, 0, 1, 0x600e7, 1, 1, 1 },
		{ 0x1f, 0, 1, 9, 9, 9, 9 },
		{ 0x40000000, 0, 0, 0x40000001, 1, 2, 3 },
		{ 0x40000001, 0, 0, ~0u, 0, 0, 1 },
		{ 0x80000001, 0, 0, 0, 0, ~0u, ~0u },
		{ 0x80000008, 0, 0, 0x3030, ~0u, 0, 0 },
		{ 0x8000001d, 3, 1, 0x4163, 1, 2, 3 },
		{ 0x8000001e, 0, 0, 77, 0x103, 5, 0 },
	};

	if (array_size(all) > max)
		return -E2BIG;
	memcpy(l, all, sizeof(all));
	return (int)array_size(all);
}

static const struct hv_x86_cpuid *find(const struct hv_x86_cpuid *l, int n,
				       uint32_t leaf, uint32_t sub)
{
	const struct hv_x86_cpuid *hit = NULL;

	for (int i = 0; i < n; i++)
		if (l[i].leaf == leaf && l[i].subleaf == sub) {
			assert_null(hit); /* each once */
			hit = &l[i];
		}
	return hit;
}

static void cpuid(void **state)
{
	const struct hv_ops ops = { .supported_cpuid = fake_cpuid };
	struct hv_vm vm = { .ops = &ops, .tsc_khz = 2500000 };
	struct hv_x86_cpuid l[HV_X86_CPUID_MAX];
	const struct hv_x86_cpuid *c;
	int n;

	(void)state;
	assert_int_equal(create(3, MiB(32)), 0);
	board_attach(fx->b, &vm);
	n = board_cpuid(fx->b, &ops, BOARD_CPU_HOST, 2, l, array_size(l));
	assert_true(n > 0);
	c = find(l, n, 1, 0);
	assert_int_equal(c->ebx >> 16, 2 << 8 | 3);
	assert_true(c->ecx >> 31);
	assert_false(c->ecx & 1 << 5); /* VMX */
	assert_true(c->edx & 1 << 28);
	c = find(l, n, 4, 0);
	assert_int_equal(c->eax >> 26, 3);
	assert_int_equal(c->eax >> 14 & 0xfff, 0);
	c = find(l, n, 4, 3);
	assert_int_equal(c->eax >> 14 & 0xfff, 3);
	assert_null(find(l, n, 5, 0));
	assert_null(find(l, n, 0xa, 0));
	assert_null(find(l, n, 0x1f, 0));
	c = find(l, n, 0xb, 1);
	assert_int_equal(c->eax, 2);
	assert_int_equal(c->ebx, 3);
	assert_int_equal(c->edx, 2);
	c = find(l, n, 0xd, 0);
	assert_int_equal(c->eax, 0xe7);
	c = find(l, n, 0x40000000, 0);
	assert_memory_equal(&c->ebx, "KVMK", 4);
	c = find(l, n, 0x40000001, 0);
	assert_true(c->eax & 1 << 24);
	assert_false(c->eax & 1 << 4);
	assert_int_equal(c->edx, 0);
	c = find(l, n, 0x40000010, 0);
	assert_int_equal(c->eax, 2500000);
	c = find(l, n, 0x80000008, 0);
	assert_int_equal(c->ecx, 2 << 12 | 2);
	c = find(l, n, 0x8000001e, 0);
	assert_int_equal(c->eax, 2);

	n = board_cpuid(fx->b, &ops, BOARD_CPU_BASE, 0, l, array_size(l));
	assert_true(n > 0);
	assert_int_equal(find(l, n, 0, 0)->eax, 0xb);
	c = find(l, n, 1, 0);
	assert_false(c->ecx & 1 << 26); /* XSAVE */
	assert_false(c->ecx & 1 << 28); /* AVX */
	assert_true(c->ecx & 1 << 20);
	assert_null(find(l, n, 0xd, 0));
	assert_null(find(l, n, 7, 1));
	c = find(l, n, 7, 0);
	assert_int_equal(c->eax | c->ecx | c->edx, 0);
	for (unsigned max = 0; max < (unsigned)n; max++)
		assert_int_equal(
			board_cpuid(fx->b, &ops, BOARD_CPU_BASE, 0, l, max),
			-E2BIG);
}

#define T(x) cmocka_unit_test_setup_teardown(x, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(refusals),
		T(memory_around_the_hole),
		T(slots),
		T(boot_data),
		T(pvh),
		T(does_not_fit),
		T(kernel_high_up),
		T(events),
		T(interrupts),
		T(cpuid),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
