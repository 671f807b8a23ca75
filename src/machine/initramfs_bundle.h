/*
 * The bundle of modules one boot needs, as cpio members, from a cache when
 * nothing changed.
 */
#ifndef ARC_MACHINE_INITRAMFS_BUNDLE_H
#define ARC_MACHINE_INITRAMFS_BUNDLE_H

#include <stdbool.h>
#include <stddef.h>

struct err;
struct log;
struct modules;
struct pack;

struct bundle_want {
	const char *name;
	/* What cannot work without it, for the sentence; NULL: do without. */
	const char *needed_for;
};

struct bundle {
	/*
	 * A line "module NAME DEPENDENCY..." for each, dependencies before
	 * those that need them; free() it.
	 */
	char *text;
	unsigned count;
	bool cached;
};

/* Where the modules are in the guest, as NAME.ko. */
#define BUNDLE_DIR ".arcvmm/modules"

/*
 * Append to @p the members of @want and of all they depend on. @cache_dir
 * as kernel_config.cache_dir. On failure @out is untouched.
 */
int bundle_write(struct modules *m, const struct bundle_want *want, size_t n,
		 const char *cache_dir, const struct log *log, struct pack *p,
		 struct bundle *out, struct err *e);

#endif
