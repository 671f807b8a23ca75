/*
 * What the guest finds in its memory when it starts.
 *
 *     0x00500   GDT: flat 64-bit code, data, a TSS
 *     0x00600   PVH start info, module list, memory map
 *     0x07000   the zero page (boot_params)
 *     0x09000   page tables: identity map with 2 MiB pages
 *     0x0f000   setup_data: a random seed
 *     0x10000   the command line
 *     0xe0000   ACPI tables, RSDP first
 *     kernel    where its program headers say
 *     initrd    as high as it may be, below the 32-bit hole
 *
 * A Linux kernel is entered at startup_64 (Documentation/arch/x86/boot.rst,
 * 64-bit boot protocol), a PVH kernel in protected mode with a start info.
 * Both blocks are written for either, they are small.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/log.h"
#include "base/util.h"
#include "machine/acpi.h"
#include "machine/board_impl.h"
#include "machine/cmdline.h"
#include "machine/kernel_image.h"

/* Offsets in the zero page. */
enum {
	ZP_ACPI_RSDP = 0x070,
	ZP_EXT_RAMDISK_IMAGE = 0x0c0,
	ZP_EXT_RAMDISK_SIZE = 0x0c4,
	ZP_EXT_CMD_LINE = 0x0c8,
	ZP_E820_COUNT = 0x1e8,
	ZP_SETUP = SETUP_HEADER_START,
	ZP_VID_MODE = 0x1fa,
	ZP_BOOT_FLAG = 0x1fe,
	ZP_MAGIC = 0x202,
	ZP_VERSION = 0x206,
	ZP_LOADER_TYPE = 0x210,
	ZP_LOADFLAGS = 0x211,
	ZP_RAMDISK_IMAGE = 0x218,
	ZP_RAMDISK_SIZE = 0x21c,
	ZP_CMD_LINE = 0x228,
	ZP_KERNEL_ALIGNMENT = 0x230,
	ZP_XLOADFLAGS = 0x236,
	ZP_SETUP_DATA = 0x250,
	ZP_E820 = 0x2d0,
	ZP_SIZE = 4096,
};

enum {
	LOADER_UNDEFINED = 0xff,
	LOADED_HIGH = 1 << 0,
	KASLR_FLAG = 1 << 1, /* left by a decompressor that moved the kernel */
	XLF_ABOVE_4G = 1 << 1, /* the kernel takes 64-bit addresses */
	SETUP_RNG_SEED = 9,
	SEED_LEN = 32,
};

enum { RAM_USABLE = 1, RAM_RESERVED = 2, RAM_ACPI = 3 };

struct map_entry {
	uint64_t base, size;
	uint32_t type;
};
#define MAP_MAX 8

static unsigned memory_map(const struct board *b, struct map_entry *m)
{
	unsigned n = 0;

	m[n++] = (struct map_entry){ 0, LOW_RAM_END, RAM_USABLE };
	m[n++] = (struct map_entry){ ACPI_BASE, ACPI_SIZE, RAM_ACPI };
	m[n++] = (struct map_entry){ KERNEL_START, b->ram_low - KERNEL_START,
				     RAM_USABLE };
	/* The registers of devices: nobody may put anything else there. */
	m[n++] =
		(struct map_entry){ SLOT_BASE,
				    (uint64_t)BOARD_SLOTS_MAX * BOARD_SLOT_SIZE,
				    RAM_RESERVED };
	if (b->ram_high)
		m[n++] =
			(struct map_entry){ RAM_HIGH, b->ram_high, RAM_USABLE };
	return n;
}

/* ---- initrd ---- */

struct initrd {
	uint64_t base, size;
};

static uint64_t part_size(const struct board_part *p)
{
	return align_up(p->len, 4);
}

static int place_initrd(const struct board *b, const struct board_boot *boot,
			struct initrd *out, struct err *e)
{
	const struct kernel_info *k = kernel_info(boot->kernel);
	const struct kernel_meta *m = &boot->kernel->head.meta;
	uint64_t top = k->initrd_max + 1, size = 0;
	uint64_t floor = align_up(k->end, RAM_PAGE);

	for (unsigned i = 0; i < boot->ninitrd; i++) {
		size += part_size(&boot->initrd[i]);
		if (boot->initrd[i].len > UINT32_MAX || size > UINT32_MAX)
			return err_set(e, -EFBIG,
				       "the initrd is larger than 4 GiB");
	}
	*out = (struct initrd){ 0 };
	if (!size)
		return 0;
	if (!m->setup_len || m->setup[ZP_XLOADFLAGS - ZP_SETUP] & XLF_ABOVE_4G)
		top = RAM_LOW_END;
	top = min_of(top, b->ram_low);
	if (floor > top || align_up(size, RAM_PAGE) > top - floor)
		return err_set(e, -ENOSPC,
			       "kernel and initrd do not fit into memory: the "
			       "kernel takes up to %llu MiB, the initrd %llu "
			       "MiB, of %llu MiB of RAM%s",
			       (unsigned long long)(floor + MiB(1) - 1) >> 20,
			       (unsigned long long)(size + MiB(1) - 1) >> 20,
			       (unsigned long long)(b->ram_low + b->ram_high) >>
				       20,
			       top < b->ram_low ? " (this kernel wants it low)"
						: "; give the VM more");
	out->base = align_down(top - size, RAM_PAGE);
	out->size = size;
	return 0;
}

static int read_part(const struct board_part *p, uint8_t *dst, struct err *e)
{
	const char *name = p->name ?: "initrd";
	uint64_t done = 0;

	while (done < p->len) {
		ssize_t n = pread(p->fd, dst + done, p->len - done,
				  (off_t)(p->offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_set(e, -errno, "%s: %s", name,
				       strerror(errno));
		if (n == 0)
			return err_set(e, -EINVAL,
				       "%s: was cut off while it was being "
				       "read",
				       name);
		done += (uint64_t)n;
	}
	return 0;
}

static int load_initrd(const struct board *b, const struct board_boot *boot,
		       const struct initrd *ird, struct err *e)
{
	uint64_t at = ird->base;
	int r;

	for (unsigned i = 0; i < boot->ninitrd; i++) {
		const struct board_part *p = &boot->initrd[i];
		uint8_t *dst;

		if (!p->len)
			continue;
		dst = gmem_ptr(b->config.mem, gpa(at), part_size(p), true);
		if (!dst)
			return err_set(e, -EFAULT,
				       "the initrd lies outside of memory");
		r = 0;
		if (p->fill)
			r = p->fill(p->ctx, dst, e);
		else if (p->data)
			memcpy(dst, p->data, p->len);
		else
			r = read_part(p, dst, e);
		if (r < 0)
			return r;
		memset(dst + p->len, 0, part_size(p) - p->len);
		at += part_size(p);
	}
	return 0;
}

/* ---- tables ---- */

static int write_acpi(const struct board *b, struct err *e)
{
	struct acpi_slot slots[BOARD_SLOTS_MAX];
	struct acpi_config c = {
		.ncpus = b->config.ncpus,
		.uart = b->uart != NULL,
		.slots = slots,
		.nslots = b->nslots,
		.base = ACPI_BASE,
	};
	uint8_t *dst = gmem_ptr(b->config.mem, gpa(ACPI_BASE), ACPI_SIZE, true);
	long n;

	for (unsigned i = 0; i < b->nslots; i++) {
		struct board_slot s = board_slot_at(i);

		slots[i] = (struct acpi_slot){ s.base, s.gsi,
					       board_slot_shared(b, i) };
	}
	if (!dst)
		return err_set(e, -EFAULT, "no memory for ACPI tables");
	n = acpi_build(&c, dst, ACPI_SIZE, e);
	return n < 0 ? (int)n : 0;
}

static void write_zero_page(const struct board *b, uint8_t *low,
			    const struct kernel *k, const struct initrd *ird)
{
	const struct kernel_meta *m = &k->head.meta;
	uint8_t *z = low + BOOT_ZERO_PAGE;
	struct map_entry map[MAP_MAX];
	unsigned n = memory_map(b, map);

	memset(z, 0, ZP_SIZE);
	if (m->setup_len) {
		memcpy(z + ZP_SETUP, m->setup, m->setup_len);
	} else {
		put_le16(z + ZP_BOOT_FLAG, 0xaa55);
		memcpy(z + ZP_MAGIC, "HdrS", 4);
		put_le16(z + ZP_VERSION, 0x20f);
		put_le32(z + ZP_KERNEL_ALIGNMENT, 0x200000);
	}
	z[ZP_LOADER_TYPE] = LOADER_UNDEFINED;
	z[ZP_LOADFLAGS] |= LOADED_HIGH;
	z[ZP_LOADFLAGS] &= (uint8_t)~KASLR_FLAG;
	put_le16(z + ZP_VID_MODE, 0xffff);
	put_le32(z + ZP_CMD_LINE, BOOT_CMDLINE);
	put_le32(z + ZP_EXT_CMD_LINE, 0);
	put_le32(z + ZP_RAMDISK_IMAGE, (uint32_t)ird->base);
	put_le32(z + ZP_RAMDISK_SIZE, (uint32_t)ird->size);
	put_le32(z + ZP_EXT_RAMDISK_IMAGE, (uint32_t)(ird->base >> 32));
	put_le32(z + ZP_EXT_RAMDISK_SIZE, (uint32_t)(ird->size >> 32));
	put_le64(z + ZP_SETUP_DATA, BOOT_SETUP_DATA);
	put_le64(z + ZP_ACPI_RSDP, ACPI_BASE);
	z[ZP_E820_COUNT] = (uint8_t)n;
	for (unsigned i = 0; i < n; i++) {
		uint8_t *p = z + ZP_E820 + 20 * i;

		put_le64(p, map[i].base);
		put_le64(p + 8, map[i].size);
		put_le32(p + 16, map[i].type);
	}
}

/*
 * Random bytes for the guest's pool, so that it need not wait for interrupts
 * (or trust RDRAND alone) to make its first keys. Linux takes them since 6.0
 * and wipes them; older kernels skip what they do not know.
 */
static void write_seed(uint8_t *low)
{
	uint8_t *s = low + BOOT_SETUP_DATA;

	put_le64(s, 0); /* the last in the list */
	put_le32(s + 8, SETUP_RNG_SEED);
	put_le32(s + 12, SEED_LEN);
	if (getrandom(s + 16, SEED_LEN, GRND_NONBLOCK) != SEED_LEN)
		put_le32(s + 12, 0);
}

static void write_pvh(const struct board *b, uint8_t *low,
		      const struct initrd *ird)
{
	uint8_t *s = low + BOOT_PVH_INFO, *mod = s + 64, *map = s + 96;
	struct map_entry m[MAP_MAX];
	unsigned n = memory_map(b, m);

	memset(s, 0, 96);
	put_le32(s, 0x336ec578);
	put_le32(s + 4, 1); /* version */
	put_le32(s + 12, ird->size ? 1 : 0);
	put_le64(s + 16, BOOT_PVH_INFO + 64);
	put_le64(s + 24, BOOT_CMDLINE);
	put_le64(s + 32, ACPI_BASE);
	put_le64(s + 40, BOOT_PVH_INFO + 96);
	put_le32(s + 48, n);
	put_le64(mod, ird->base);
	put_le64(mod + 8, ird->size);
	for (unsigned i = 0; i < n; i++) {
		put_le64(map + 24 * i, m[i].base);
		put_le64(map + 24 * i + 8, m[i].size);
		put_le32(map + 24 * i + 16, m[i].type);
		put_le32(map + 24 * i + 20, 0);
	}
}

/* Selectors 0x10 and 0x18 are the boot protocol's. */
static void write_gdt(uint8_t *low)
{
	static const uint64_t gdt[5] = {
		0,
		0,
		0x00af9b000000ffff, /* code: 64-bit, flat */
		0x00cf93000000ffff, /* data: flat */
		0x00008b0000000067, /* TSS, busy */
	};

	for (unsigned i = 0; i < array_size(gdt); i++)
		put_le64(low + BOOT_GDT + 8 * i, gdt[i]);
}

/* Identity map of the first 1 to 3 GiB: what the kernel and its blocks need.
 * Accessed and dirty are set, so that the CPU has nothing to write. */
static void write_page_tables(uint8_t *low, uint64_t end)
{
	const uint64_t table = 0x63, large = 0xe3; /* P RW A D (PS) */
	uint64_t gib = align_up(end, GiB(1)) >> 30;
	uint8_t *pml4 = low + BOOT_PAGES, *pdpt = pml4 + 4096;

	memset(pml4, 0, 2 * 4096);
	put_le64(pml4, (BOOT_PAGES + 4096) | table);
	for (uint64_t i = 0; i < gib; i++) {
		uint64_t pd = BOOT_PAGES + (2 + i) * 4096;

		put_le64(pdpt + 8 * i, pd | table);
		for (uint64_t j = 0; j < 512; j++)
			put_le64(low + pd + 8 * j, i << 30 | j << 21 | large);
	}
}

/* ---- all of it ---- */

static int check_kernel(const struct board *b, const struct kernel_info *k,
			struct err *e)
{
	if (k->end <= b->ram_low)
		return 0;
	return err_set(e, -ENOSPC,
		       "the kernel does not fit into memory: it takes up to "
		       "%llu MiB, the VM has %llu MiB",
		       (unsigned long long)(k->end + MiB(1) - 1) >> 20,
		       (unsigned long long)(b->ram_low + b->ram_high) >> 20);
}

static int make_cmdline(struct board *b, const struct board_boot *boot,
			struct err *e)
{
	const struct kernel_info *k = kernel_info(boot->kernel);
	const struct cmdline_config c = {
		.user = boot->cmdline,
		.extra = boot->extra,
		.no_defaults = boot->no_defaults,
		.quiet = boot->quiet,
		.max = min_of(k->cmdline_max, (uint32_t)BOOT_CMDLINE_MAX),
	};
	char *line;
	int r = cmdline_build(&line, &c, e);

	if (r < 0)
		return r;
	free(b->cmdline);
	b->cmdline = line;
	return 0;
}

int board_load(struct board *b, const struct board_boot *boot, struct err *e)
{
	const struct kernel_info *k = kernel_info(boot->kernel);
	struct initrd ird;
	uint8_t *low;
	int r;

	/* Everything that can be refused is, before memory is touched. */
	r = check_kernel(b, k, e);
	if (r == 0)
		r = place_initrd(b, boot, &ird, e);
	if (r == 0)
		r = make_cmdline(b, boot, e);
	if (r < 0)
		return r;
	low = gmem_ptr(b->config.mem, gpa(0), LOW_RAM_END, true);
	if (!low)
		return err_set(e, -EFAULT, "no memory below 640 KiB");

	r = kernel_place(boot->kernel, b->config.mem, !b->loaded, e);
	if (r == 0)
		r = load_initrd(b, boot, &ird, e);
	if (r == 0)
		r = write_acpi(b, e);
	if (r < 0)
		return r;
	memcpy(low + BOOT_CMDLINE, b->cmdline, strlen(b->cmdline) + 1);
	write_gdt(low);
	write_page_tables(low, k->end);
	write_seed(low);
	write_pvh(b, low, &ird);
	write_zero_page(b, low, boot->kernel, &ird);
	b->entry = k->entry;
	b->entry_mode = k->entry_mode;
	b->loaded = true;
	log_debug(b->config.log,
		  "kernel at %#llx..%#llx, entry %#llx, initrd at %#llx (%llu "
		  "KiB), command line: %s",
		  (unsigned long long)k->base, (unsigned long long)k->end,
		  (unsigned long long)k->entry, (unsigned long long)ird.base,
		  (unsigned long long)ird.size >> 10, b->cmdline);
	return 0;
}
