/*
 * The cache of unpacked kernels: a directory of the user's. Every failure is
 * survivable; the caller then works without.
 */
#ifndef ARC_MACHINE_KERNEL_CACHE_H
#define ARC_MACHINE_KERNEL_CACHE_H

#include <stdbool.h>
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

/*
 * A new file under a name nobody else uses (other threads and processes share
 * the directory), and its end: it becomes @name, whole and on the medium (@sync)
 * or is gone. 0 or -errno; the descriptor stays the caller's.
 */
#define KERNEL_CACHE_TEMP 40
int kernel_cache_temp(struct kernel_cache *c, char temp[KERNEL_CACHE_TEMP]);
int kernel_cache_commit(struct kernel_cache *c, int fd, const char *temp,
			const char *name, bool sync);

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
