/*
 * Disks: a raw file or a block device, read and written without blocking.
 *
 *	disk_open() -> { disk_queue()... disk_submit() }... -> disk_close()
 *
 * Requests are queued, submitted together, and complete on the loop, in any
 * order; after a batch of completions `batch` is called once.
 */
#ifndef ARC_BACKEND_DISK_H
#define ARC_BACKEND_DISK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "loop/loop.h"

struct disk;
struct err;
struct log;

enum disk_cache {
	DISK_WRITEBACK, /* the host's page cache; a flush reaches the medium */
	DISK_NONE, /* O_DIRECT; a flush reaches the medium */
	DISK_UNSAFE, /* the page cache, and flushes do nothing */
};

enum disk_aio {
	DISK_AIO_AUTO, /* io_uring if the host lets us, else threads */
	DISK_AIO_URING,
	DISK_AIO_THREADS,
};

struct disk_config {
	const char *path;
	bool readonly;
	enum disk_cache cache;
	enum disk_aio aio;
	unsigned depth; /* most requests at a time, about */
	const struct log *log;
	void (*batch)(void *ctx); /* after completions; may be NULL */
	void *ctx;
};

struct disk_info {
	uint64_t size; /* bytes, a multiple of block */
	uint32_t block; /* smallest aligned I/O: 512 .. 4096 */
	uint32_t physical_block, optimal_io; /* bytes; 0: unknown */
	uint32_t discard_unit; /* bytes */
	bool readonly, discard, write_zeroes;
	const char *aio; /* "io_uring", "threads" */
};

enum disk_op {
	DISK_READ,
	DISK_WRITE,
	DISK_FLUSH,
	DISK_DISCARD,
	DISK_ZERO, /* @unmap: by punching a hole, if that can be */
};

struct disk_request {
	enum disk_op op;
	bool unmap;
	bool fua; /* WRITE: on the medium when done */
	uint64_t offset, len; /* bytes, inside the disk */
	struct iovec *iov; /* READ, WRITE: @len bytes; changed by the disk */
	unsigned niov; /* <= 1024 */
	void (*done)(struct disk_request *r);
	int result; /* 0, -errno */

	/* The disk's. */
	struct disk *disk;
	struct disk_request *next;
	struct loop_work work;
	bool buffered; /* not by the O_DIRECT descriptor */
};

/*
 * Fails with a sentence for what is missing, a directory, not readable (or
 * writable), empty, not whole in blocks, or in use (locked) by another disk.
 */
int disk_open(struct disk **out, struct loop *l, const struct disk_config *c,
	      struct err *e);
/* No request is under way. NULL-safe. */
void disk_close(struct disk *d);

const struct disk_info *disk_info(const struct disk *d);

/*
 * @r is the disk's until done(), which may come from within either call.
 */
void disk_queue(struct disk *d, struct disk_request *r);
void disk_submit(struct disk *d);

#endif
