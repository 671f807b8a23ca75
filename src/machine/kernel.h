/*
 * A kernel image, ready to be put into guest memory.
 *
 * kernel_open() identifies the file, unpacks it on the host (or finds it
 * unpacked in the cache) and checks every number in it; what it returns is
 * safe to load. See kernel.c for the formats and kernel_cache.c for the cache.
 *
 *     kernel_open() -> kernel_release(), kernel_info() -> board_load()
 *     -> kernel_close() (any time after board_load(); the guest keeps its copy)
 */
#ifndef ARC_MACHINE_KERNEL_H
#define ARC_MACHINE_KERNEL_H

#include <stdbool.h>
#include <stdint.h>

struct err;
struct kernel;
struct log;

struct kernel_config {
	const char *path;
	/*
	 * Where unpacked kernels are kept: NULL for $XDG_CACHE_HOME/arcvmm or
	 * ~/.cache/arcvmm, "" for no cache. A cache that cannot be used is a
	 * warning in the log, never an error.
	 */
	const char *cache_dir;
	uint64_t cache_max; /* bytes, 0: KERNEL_CACHE_MAX */
	const struct log *log;
};

#define KERNEL_CACHE_MAX (1ull << 30)

enum kernel_format {
	KERNEL_BZIMAGE, /* Linux x86 boot protocol image, payload unpacked */
	KERNEL_ELF64, /* vmlinux, or a compressed vmlinux */
	KERNEL_PVH, /* ELF without a Linux 64-bit entry, with a PVH note */
};

enum kernel_entry {
	KERNEL_ENTRY_64, /* long mode, RSI = zero page */
	KERNEL_ENTRY_PVH, /* 32-bit protected mode, EBX = start info */
};

struct kernel_info {
	enum kernel_format format;
	enum kernel_entry entry_mode;
	const char *packing; /* "lz4", "zstd", ... ; "none" */
	/* First word of the version ("6.1.0-56-cloud-amd64"), "" when the
	 * image does not say. Names the directory its modules are in. */
	const char *release;
	const char *version; /* the whole version text, or "" */
	bool cached; /* came out of the cache, nothing was unpacked */
	uint64_t file_size; /* bytes of the file */
	uint64_t image_size; /* bytes to load */
	uint64_t base, end; /* guest physical range it occupies, bss too */
	uint64_t entry; /* guest physical address of the entry point */
	uint32_t cmdline_max; /* bytes without the final NUL */
	uint64_t initrd_max; /* highest address the initrd may use */
};

int kernel_open(struct kernel **out, const struct kernel_config *c,
		struct err *e);
void kernel_close(struct kernel *k); /* NULL-safe */

const struct kernel_info *kernel_info(const struct kernel *k);

/* The same as kernel_info(k)->release. */
const char *kernel_release(const struct kernel *k);

#endif
