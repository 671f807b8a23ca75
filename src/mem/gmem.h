/*
 * Guest physical memory.
 *
 * A guest physical address is a `gpa_t`, a one-member struct: it cannot be
 * dereferenced or mixed up with a host pointer. The ways to bytes are checked
 * copies, and borrowed iovecs or pointers that stay valid until the gmem is
 * destroyed (RAM is never unmapped while a VM lives). The guest may change the
 * bytes at any time: read once, check the copy, use the copy.
 *
 * RAM is private memory, or one memfd mapped MAP_SHARED (gmem_share()), carved
 * into regions: on x86 one below the 32-bit hole and one above 4 GiB. A region
 * may also be backed by a caller's mapping (a DAX window).
 *
 * Threads: the region table is fixed once the VM runs; all reads are lock-free.
 */
#ifndef ARC_MEM_GMEM_H
#define ARC_MEM_GMEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct err;

typedef struct {
	uint64_t v;
} gpa_t;

static inline gpa_t gpa(uint64_t v)
{
	return (gpa_t){ v };
}

#define GMEM_MAX_REGIONS 32

enum {
	GMEM_READONLY = 1 << 0, /* the guest may not write */
};

struct gmem_region {
	gpa_t base;
	uint64_t size; /* bytes, a multiple of the host page size */
	void *host; /* where [base, base + size) is mapped here */
	int fd; /* memfd for sharing with another process, or -1 */
	uint64_t fd_offset;
	unsigned flags;
};

struct gmem;

/*
 * An address space with no RAM in it. 0, -ENOMEM.
 */
int gmem_create(struct gmem **out);
void gmem_destroy(struct gmem *m); /* NULL-safe */

/*
 * Let other processes map the RAM (a vhost-user back end, a clone): it comes
 * from a memfd, mapped MAP_SHARED, rather than from private memory. Costs huge
 * pages on most hosts. Before the first gmem_add_ram().
 */
void gmem_share(struct gmem *m);

/*
 * Add @size bytes of zeroed RAM at @base. Fails with a sentence when the range
 * overlaps, is not page-aligned, is 0, or when the host has not that much.
 */
int gmem_add_ram(struct gmem *m, gpa_t base, uint64_t size, struct err *e);

/*
 * Add a mapping the caller made and keeps alive (and unmaps after
 * gmem_destroy()).
 */
int gmem_add_mapping(struct gmem *m, const struct gmem_region *r,
		     struct err *e);

/* Regions in ascending address order; NULL at @i >= count. */
const struct gmem_region *gmem_region(const struct gmem *m, unsigned i);

/* Bytes of RAM, all regions. */
uint64_t gmem_ram_size(const struct gmem *m);

/*
 * Checked copies; a range may cross regions that touch. 0, or -EFAULT when any
 * byte is outside RAM (or read-only, for a write): nothing is copied then.
 */
int gmem_read(const struct gmem *m, gpa_t at, void *buf, size_t len);
int gmem_write(const struct gmem *m, gpa_t at, const void *buf, size_t len);
int gmem_fill(const struct gmem *m, gpa_t at, int byte, size_t len);

/*
 * The host address of @len bytes at @at, or NULL when they are not contiguous
 * in one region or (@writable) read-only. @len 0 gives NULL.
 */
void *gmem_ptr(const struct gmem *m, gpa_t at, size_t len, bool writable);

/*
 * Describe [at, at + len) as iovecs: the count, 1 unless regions are crossed.
 * -EFAULT outside RAM, -E2BIG when more than @max pieces are needed.
 */
int gmem_iov(const struct gmem *m, gpa_t at, size_t len, bool writable,
	     struct iovec *iov, int max);

/*
 * Be told of every range that someone other than a vCPU is about to write:
 * called by gmem_iov() and gmem_ptr() with @writable, gmem_write(), gmem_fill(),
 * before they return or copy. An engine that keeps decoded guest code forgets
 * what it has of the range: a guest that hands a buffer to a device does not
 * run code in it until the device gave it back. Any thread that reaches memory
 * may call @fn; it must not block. One per gmem, set before vCPUs run; NULL
 * takes it away.
 */
typedef void gmem_writer_fn(void *ctx, gpa_t at, size_t len);
void gmem_set_writer(struct gmem *m, gmem_writer_fn *fn, void *ctx);

#endif
