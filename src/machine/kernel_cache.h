/*
 * The cache of unpacked kernels: a directory of the user's. Every failure is
 * survivable; the caller then works without.
 */
#ifndef ARC_MACHINE_KERNEL_CACHE_H
#define ARC_MACHINE_KERNEL_CACHE_H

#include <stdint.h>
#include <sys/stat.h>

#include "base/sha256.h"

struct err;
struct kernel_head;
struct kernel_parsed;
struct log;

struct kernel_cache {
	int dir; /* -1: no cache */
	uint64_t max;
	const struct log *log;
};

/*
 * Open, creating what is missing. @path as kernel_config.cache_dir. On failure
 * c->dir is -1 and the reason is in the log.
 */
void kernel_cache_open(struct kernel_cache *c, const char *path, uint64_t max,
		       const struct log *log);
void kernel_cache_close(struct kernel_cache *c);

/* The image file made from the file @st describes, or -1. Fills @h. */
int kernel_cache_find(struct kernel_cache *c, const struct stat *st,
		      struct kernel_head *h);

/* The same by content; remembers that @st is that content. */
int kernel_cache_find_content(struct kernel_cache *c, const struct stat *st,
			      const uint8_t sum[SHA256_SIZE],
			      struct kernel_head *h);

/* Add an image; its file, or -errno. Old entries go when it gets too big. */
int kernel_cache_add(struct kernel_cache *c, const struct stat *st,
		     const uint8_t sum[SHA256_SIZE],
		     const struct kernel_parsed *p, struct kernel_head *h);

#endif
