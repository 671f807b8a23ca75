/*
 * Inside the kernel loader: what the parsers (kernel_parse.c, kernel_elf.c)
 * hand to the cache (kernel_cache.c) and the loader (kernel.c).
 */
#ifndef ARC_MACHINE_KERNEL_IMAGE_H
#define ARC_MACHINE_KERNEL_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/sha256.h"
#include "machine/kernel.h"
#include "mem/gmem.h"

/* Bounds on what a file may ask of us. */
#define KERNEL_FILE_MAX	  (1ull << 30)
#define KERNEL_UNPACK_MAX (512ull << 20)
#define KERNEL_SPAN_MAX	  (1ull << 30) /* from its first byte to its last */
#define KERNEL_SEGS_MAX	  32
#define KERNEL_LOAD_MIN	  0x100000 /* boot data and ACPI tables lie below */
#define KERNEL_LOAD_END	  0xc0000000 /* the 32-bit hole */

/* The setup header of the boot protocol: 0x1f1 up to 0x290 of the zero page. */
#define SETUP_HEADER_START 0x1f1
#define SETUP_HEADER_MAX   (0x290 - SETUP_HEADER_START)

/* All that is known about a kernel besides its bytes; kept in the cache. */
struct kernel_meta {
	uint32_t format, entry_mode, packing; /* enums */
	uint32_t cmdline_max;
	uint64_t initrd_max;
	uint64_t base, end, entry;
	uint64_t file_size;
	uint32_t setup_len; /* 0: not a bzImage */
	uint8_t setup[SETUP_HEADER_MAX + 1];
	char version[256];
};

struct kernel_seg {
	uint64_t gpa;
	const uint8_t *data;
	uint64_t data_len, mem_len;
};

struct kernel_parsed {
	struct kernel_meta meta;
	unsigned nsegs; /* ascending, apart from each other */
	struct kernel_seg segs[KERNEL_SEGS_MAX];
	/* What data points into, when it is not the file. */
	void *unpacked;
	size_t unpacked_size;
};

/*
 * Understand a whole file. Pure: no system call but for memory. -ENOEXEC and
 * the like with a sentence that has no subject ("is a 32-bit kernel: ...").
 */
int kernel_parse(struct kernel_parsed *p, const void *file, size_t len,
		 size_t unpack_max, struct err *e);
void kernel_parsed_free(struct kernel_parsed *p);

/* The ELF half of it: fills segs, base, end, entry, entry_mode, version. */
int kernel_parse_elf(struct kernel_parsed *p, const uint8_t *elf, size_t len,
		     bool is_linux, struct err *e);

/*
 * An image as it is kept: KERNEL_HEAD_SIZE bytes of header, then the bytes from
 * meta.base (rounded down to a page) on, as a sparse file. Local to this host
 * and to the owner's directory, so in native layout.
 */
#define KERNEL_PAGE	   4096u
#define KERNEL_HEAD_SIZE   8192u
#define KERNEL_EXTENTS_MAX 256

struct kernel_head {
	char magic[8];
	uint64_t head_crc; /* of the header, this field 0 */
	uint64_t image_crc; /* of the extents' bytes in order */
	uint64_t image_len; /* bytes after the header */
	uint64_t data_bytes; /* in extents */
	uint8_t source[SHA256_SIZE]; /* of the file it was made from */
	struct kernel_meta meta;
	/* Runs of pages that are not all zero. */
	uint32_t nextents;
	struct {
		uint32_t page, count;
	} extents[KERNEL_EXTENTS_MAX];
};
#define KERNEL_MAGIC "arckrn\0\1"

/* Write @p to the empty file @fd, fill @h. 0 or -errno. */
int kernel_image_write(int fd, const struct kernel_parsed *p,
		       const uint8_t source[SHA256_SIZE],
		       struct kernel_head *h);
/* Read and check the header; with @whole, every byte. -EBADMSG: damaged. */
int kernel_image_read(int fd, struct kernel_head *h, bool whole);

struct kernel {
	struct kernel_head head;
	struct kernel_info info;
	char release[128];
	int fd; /* an image file: in the cache, or a memfd */
};

/* Copy the image into guest RAM. @fresh: RAM is known to be zero. */
int kernel_place(const struct kernel *k, struct gmem *m, bool fresh,
		 struct err *e);

#endif
