/* Kernel files made to order, for the tests of the loader. */
#ifndef TEST_KERNEL_FILES_H
#define TEST_KERNEL_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "machine/unpack.h"

struct blob {
	uint8_t *p;
	size_t len;
};

struct elf_spec {
	uint64_t load; /* physical address; 0: 16 MiB */
	uint64_t virt; /* virtual - physical */
	size_t text, bss; /* bytes; 0: defaults */
	const char *banner; /* "Linux version 1.2.3 ..." put into it, or NULL */
	bool pvh;
	uint32_t pvh_entry;
	uint16_t machine; /* 0: EM_X86_64 */
	bool class32;
};

/* All results are malloced; the caller frees .p. */
struct blob make_elf(const struct elf_spec *s);
struct blob make_packed(enum unpack_format f, const void *p, size_t len);
/* A bzImage around @payload; @tail appends its unpacked size as the kernel's
 * build does. */
struct blob make_bzimage(struct blob payload, bool tail, uint32_t unpacked);

void write_file(const char *path, const void *p, size_t len);

/* The vmlinuz of a stock kernel ("6.1"), or false when there is none here:
 * looked for in $ARCVMM_KERNELS/VERSION and the cache of fetch-kernel.sh. */
bool stock_kernel(const char *version, char *path, size_t size);

#endif
