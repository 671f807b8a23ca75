/* Inside of disks: what disk.c shares with its two ways to do I/O. */
#ifndef ARC_BACKEND_DISK_IMPL_H
#define ARC_BACKEND_DISK_IMPL_H

#include "backend/disk.h"

struct uring;

struct disk {
	struct loop *loop;
	struct disk_info info;
	enum disk_cache cache;
	const struct log *log;
	void (*batch)(void *ctx);
	void *ctx;
	int fd;
	int buffered_fd; /* cache=none: for what is not aligned; else -1 */
	uint32_t memory_align; /* cache=none: of buffers */
	unsigned under_way;
	bool page_cache; /* it can be asked without waiting */
	unsigned skip_cached; /* reads not to ask it for */
	struct uring *uring; /* NULL: threads */
	struct disk_request *first,
		**last; /* queued, not submitted (threads) */
};

/*
 * @moved >= 0 bytes of @r are done, or it failed. True when @r is complete
 * (r->result set); else the rest is to be done again.
 */
bool disk_advance(struct disk_request *r, int64_t moved);
void disk_complete(struct disk_request *r);
void disk_batch(struct disk *d);

/* fallocate() mode of a DISCARD or ZERO. */
int disk_fallocate_mode(const struct disk_request *r);

/* -errno when the host has no io_uring for us. */
int uring_create(struct disk *d, unsigned depth);
void uring_destroy(struct disk *d);
void uring_queue(struct disk *d, struct disk_request *r);
void uring_submit(struct disk *d);

/* By the pool: the whole of @r, blocking; for uring also what it cannot do. */
void threads_start(struct disk *d, struct disk_request *r);

#endif
