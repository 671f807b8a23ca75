/*
 * Theory of operation: a sorted array of regions, searched linearly with the
 * last hit first (a VM has two to a handful). Pages are allocated by the host on
 * first touch, so an idle guest costs what it uses.
 *
 * RAM is private anonymous memory, aligned so that guest and host agree on what
 * a 2 MiB page is, with huge pages asked for: a boot of a stock kernel then
 * takes 1,300 page faults at the second level instead of 25,000, and loading
 * the kernel a tenth of the time. tmpfs, which a memfd is, gives huge pages on
 * few hosts, so a memfd is used only when another process has to map the guest
 * (gmem_share()); it is created with the first RAM region and grows with each.
 */
#include "mem/gmem.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bug.h"
#include "base/err.h"
#include "base/util.h"
#include "mem/racy.h"

#define HUGE_PAGE MiB(2)

struct gmem {
	struct gmem_region regions[GMEM_MAX_REGIONS];
	bool owned[GMEM_MAX_REGIONS]; /* RAM we mapped and will unmap */
	unsigned count;
	bool shared;
	int ram_fd; /* -1 unless shared */
	uint64_t ram_size;
	gmem_writer_fn *writer;
	void *writer_ctx;
};

int gmem_create(struct gmem **out)
{
	struct gmem *m = calloc(1, sizeof(*m));

	if (!m)
		return -ENOMEM;
	m->ram_fd = -1;
	*out = m;
	return 0;
}

void gmem_destroy(struct gmem *m)
{
	if (!m)
		return;
	for (unsigned i = 0; i < m->count; i++)
		if (m->owned[i])
			munmap(m->regions[i].host, m->regions[i].size);
	if (m->ram_fd >= 0)
		close(m->ram_fd);
	free(m);
}

/* Where @r belongs in the sorted table, or -errno when it cannot be added. */
static int region_slot(const struct gmem *m, const struct gmem_region *r,
		       struct err *e)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	unsigned at;

	if (!r->size || r->size % page || r->base.v % page)
		return err_set(e, -EINVAL,
			       "memory region %#llx+%#llx is not a whole "
			       "number of %llu-byte pages",
			       (unsigned long long)r->base.v,
			       (unsigned long long)r->size,
			       (unsigned long long)page);
	if (r->base.v + r->size < r->base.v)
		return err_set(e, -EINVAL,
			       "memory region %#llx+%#llx wraps around",
			       (unsigned long long)r->base.v,
			       (unsigned long long)r->size);
	if (m->count == GMEM_MAX_REGIONS)
		return err_set(e, -ENOSPC, "more than %d memory regions",
			       GMEM_MAX_REGIONS);
	for (at = 0; at < m->count; at++)
		if (m->regions[at].base.v > r->base.v)
			break;
	if ((at > 0 &&
	     m->regions[at - 1].base.v + m->regions[at - 1].size > r->base.v) ||
	    (at < m->count && r->base.v + r->size > m->regions[at].base.v))
		return err_set(e, -EEXIST,
			       "memory region %#llx+%#llx overlaps another",
			       (unsigned long long)r->base.v,
			       (unsigned long long)r->size);
	return (int)at;
}

static void region_insert(struct gmem *m, unsigned at,
			  const struct gmem_region *r, bool owned)
{
	memmove(&m->regions[at + 1], &m->regions[at],
		(m->count - at) * sizeof(*r));
	memmove(&m->owned[at + 1], &m->owned[at], m->count - at);
	m->regions[at] = *r;
	m->owned[at] = owned;
	m->count++;
}

void gmem_share(struct gmem *m)
{
	bug_on(m->ram_size);
	m->shared = true;
}

/* @size bytes at an address that is a multiple of a huge page; NULL: errno. */
static void *map_aligned(uint64_t size, int prot, int flags, int fd, off_t off)
{
	uint64_t room = size + HUGE_PAGE;
	uint8_t *p, *at;

	if (room < size) {
		errno = ENOMEM;
		return NULL;
	}
	p = mmap(NULL, room, PROT_NONE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return NULL;
	at = (uint8_t *)align_up((uintptr_t)p, HUGE_PAGE);
	if (at > p)
		munmap(p, (size_t)(at - p));
	if (p + room > at + size)
		munmap(at + size, (size_t)(p + room - (at + size)));
	if (mmap(at, size, prot, flags | MAP_FIXED, fd, off) == MAP_FAILED) {
		munmap(at, size);
		return NULL;
	}
	return at;
}

static int grow_memfd(struct gmem *m, uint64_t size, struct err *e)
{
	if (m->ram_fd < 0)
		m->ram_fd = memfd_create("guest-ram", MFD_CLOEXEC);
	if (m->ram_fd < 0)
		return err_set(e, -errno, "memfd for guest memory: %s",
			       strerror(errno));
	if (ftruncate(m->ram_fd, (off_t)(m->ram_size + size)) < 0)
		return err_set(e, -errno, "guest memory of %llu bytes: %s",
			       (unsigned long long)size, strerror(errno));
	return 0;
}

int gmem_add_ram(struct gmem *m, gpa_t base, uint64_t size, struct err *e)
{
	struct gmem_region r = { .base = base, .size = size, .fd = -1 };
	int at = region_slot(m, &r, e), rc;

	if (at < 0)
		return at;
	if (m->shared) {
		rc = grow_memfd(m, size, e);
		if (rc < 0)
			return rc;
		r.fd = m->ram_fd;
		r.fd_offset = m->ram_size;
	}
	r.host = map_aligned(
		size, PROT_READ | PROT_WRITE,
		MAP_NORESERVE |
			(m->shared ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS),
		r.fd, (off_t)r.fd_offset);
	if (!r.host)
		return err_set(e, -errno, "mapping %llu bytes of memory: %s",
			       (unsigned long long)size, strerror(errno));
	/* Guest pages in a core dump would leak secrets and fill disks. */
	madvise(r.host, size, MADV_DONTDUMP);
	madvise(r.host, size, MADV_HUGEPAGE); /* no matter if it cannot be */
	m->ram_size += size;
	region_insert(m, (unsigned)at, &r, true);
	return 0;
}

int gmem_add_mapping(struct gmem *m, const struct gmem_region *r, struct err *e)
{
	int at = region_slot(m, r, e);

	if (at < 0)
		return at;
	region_insert(m, (unsigned)at, r, false);
	return 0;
}

const struct gmem_region *gmem_region(const struct gmem *m, unsigned i)
{
	return i < m->count ? &m->regions[i] : NULL;
}

uint64_t gmem_ram_size(const struct gmem *m)
{
	return m->ram_size;
}

/* The region that holds @at, or NULL; *left is the bytes from @at to its end. */
static const struct gmem_region *region_at(const struct gmem *m, gpa_t at,
					   uint64_t *left)
{
	for (unsigned i = 0; i < m->count; i++) {
		const struct gmem_region *r = &m->regions[i];

		if (at.v - r->base.v < r->size) {
			*left = r->size - (at.v - r->base.v);
			return r;
		}
	}
	return NULL;
}

int gmem_iov(const struct gmem *m, gpa_t at, size_t len, bool writable,
	     struct iovec *iov, int max)
{
	gpa_t start = at;
	size_t all = len;
	int n = 0;

	while (len) {
		uint64_t left;
		const struct gmem_region *r = region_at(m, at, &left);
		size_t step;

		if (!r || (writable && (r->flags & GMEM_READONLY)))
			return -EFAULT;
		if (n == max)
			return -E2BIG;
		step = min_of(len, (size_t)left);
		iov[n++] = (struct iovec){
			.iov_base = (char *)r->host + (at.v - r->base.v),
			.iov_len = step,
		};
		len -= step;
		at.v += step;
		if (len && !at.v) /* wrapped past 2^64 */
			return -EFAULT;
	}
	if (writable && m->writer && all)
		m->writer(m->writer_ctx, start, all);
	return n;
}

void gmem_set_writer(struct gmem *m, gmem_writer_fn *fn, void *ctx)
{
	m->writer = fn;
	m->writer_ctx = ctx;
}

void *gmem_ptr(const struct gmem *m, gpa_t at, size_t len, bool writable)
{
	struct iovec iov;

	if (!len || gmem_iov(m, at, len, writable, &iov, 1) != 1)
		return NULL;
	return iov.iov_base;
}

int gmem_read(const struct gmem *m, gpa_t at, void *buf, size_t len)
{
	struct iovec iov[GMEM_MAX_REGIONS];
	int n = gmem_iov(m, at, len, false, iov, GMEM_MAX_REGIONS);

	if (n < 0)
		return n;
	for (int i = 0; i < n; i++) {
		racy_copy(buf, iov[i].iov_base, iov[i].iov_len);
		buf = (char *)buf + iov[i].iov_len;
	}
	return 0;
}

int gmem_write(const struct gmem *m, gpa_t at, const void *buf, size_t len)
{
	struct iovec iov[GMEM_MAX_REGIONS];
	int n = gmem_iov(m, at, len, true, iov, GMEM_MAX_REGIONS);

	if (n < 0)
		return n;
	for (int i = 0; i < n; i++) {
		racy_copy(iov[i].iov_base, buf, iov[i].iov_len);
		buf = (const char *)buf + iov[i].iov_len;
	}
	return 0;
}

int gmem_fill(const struct gmem *m, gpa_t at, int byte, size_t len)
{
	struct iovec iov[GMEM_MAX_REGIONS];
	int n = gmem_iov(m, at, len, true, iov, GMEM_MAX_REGIONS);

	if (n < 0)
		return n;
	for (int i = 0; i < n; i++)
		racy_fill(iov[i].iov_base, byte, iov[i].iov_len);
	return 0;
}
