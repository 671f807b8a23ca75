/*
 * Theory of operation
 *
 * A disk is a descriptor, what we found out about it, and a way to do I/O: an
 * io_uring (disk_uring.c) or the loop's pool of threads (disk_threads.c).
 *
 * Two disks must not write one image, nor one write what another reads: a lock
 * on the open file description (shared for readers) says so, between processes
 * and within one.
 *
 * With O_DIRECT the kernel demands alignment of offsets, which the guest keeps
 * since we tell it the block size, and of buffers in memory, which a guest may
 * get wrong; such requests go through a second, buffered descriptor. The kernel
 * keeps the two coherent.
 *
 * What the page cache holds is copied where the request is queued: that is the
 * shortest way, whatever would do the I/O. After a read that it does not hold
 * whole, the next few are not tried.
 */
#include "backend/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/disk_impl.h"
#include "base/bug.h"
#include "base/err.h"
#include "base/log.h"
#include "base/util.h"

#define BLOCK_MIN 512u
#define BLOCK_MAX 4096u

/* ---- requests ---- */

static void drop_front(struct disk_request *r, uint64_t len)
{
	unsigned i = 0;

	while (i < r->niov && len >= r->iov[i].iov_len)
		len -= r->iov[i++].iov_len;
	r->iov += i;
	r->niov -= i;
	if (r->niov) {
		r->iov->iov_base = (char *)r->iov->iov_base + len;
		r->iov->iov_len -= (size_t)len;
	}
}

bool disk_advance(struct disk_request *r, int64_t moved)
{
	if (moved == -EINTR || moved == -EAGAIN)
		return false;
	if (moved < 0) {
		r->result = (int)moved;
		return true;
	}
	r->result = 0;
	if (r->op != DISK_READ && r->op != DISK_WRITE)
		return true;
	if (!moved && r->len) { /* somebody cut the file */
		r->result = -EIO;
		return true;
	}
	bug_on((uint64_t)moved > r->len);
	r->len -= (uint64_t)moved;
	r->offset += (uint64_t)moved;
	drop_front(r, (uint64_t)moved);
	/* The rest of a short transfer may be less than a block. */
	if (r->len && r->disk->buffered_fd >= 0)
		r->buffered = true;
	return !r->len;
}

void disk_complete(struct disk_request *r)
{
	r->disk->under_way--;
	/* A discard is advice: a medium that cannot has ignored it. */
	if (r->op == DISK_DISCARD && r->result == -EOPNOTSUPP)
		r->result = 0;
	r->done(r);
}

void disk_batch(struct disk *d)
{
	if (d->batch)
		d->batch(d->ctx);
}

int disk_fallocate_mode(const struct disk_request *r)
{
	if (r->op == DISK_DISCARD || r->unmap)
		return FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	return FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
}

static bool aligned(const struct disk *d, const struct disk_request *r)
{
	uint64_t bits = 0;

	if ((r->offset | r->len) % d->info.block)
		return false;
	for (unsigned i = 0; i < r->niov; i++)
		bits |= (uintptr_t)r->iov[i].iov_base | r->iov[i].iov_len;
	return !(bits % d->memory_align);
}

#define MISS_SKIPS 15

/* @r is done, by the page cache; or what is left of it is still to be done. */
static bool read_cached(struct disk *d, struct disk_request *r)
{
	ssize_t n;

	if (r->op != DISK_READ || !d->page_cache)
		return false;
	if (d->skip_cached) {
		d->skip_cached--;
		return false;
	}
	n = preadv2(d->fd, r->iov, (int)r->niov, (off_t)r->offset, RWF_NOWAIT);
	if (n > 0 && disk_advance(r, n))
		return true;
	if (n < 0 && errno == EOPNOTSUPP)
		d->page_cache = false;
	d->skip_cached = MISS_SKIPS;
	return false;
}

void disk_queue(struct disk *d, struct disk_request *r)
{
	bool transfer = r->op == DISK_READ || r->op == DISK_WRITE;

	r->disk = d;
	r->next = NULL;
	r->result = 0;
	r->buffered = transfer && d->buffered_fd >= 0 && !aligned(d, r);
	d->under_way++;
	if ((r->op == DISK_FLUSH && d->cache == DISK_UNSAFE) ||
	    read_cached(d, r)) {
		disk_complete(r);
		return;
	}
	if (d->cache == DISK_UNSAFE)
		r->fua = false;
	if (d->uring) {
		uring_queue(d, r);
	} else {
		*d->last = r;
		d->last = &r->next;
	}
}

void disk_submit(struct disk *d)
{
	struct disk_request *r;

	if (d->uring) {
		uring_submit(d);
		return;
	}
	while ((r = d->first)) {
		d->first = r->next;
		if (!d->first)
			d->last = &d->first;
		threads_start(d, r);
	}
}

/* ---- opening ---- */

/* @type is F_RDLCK, F_WRLCK or F_UNLCK. */
static int lock(int fd, short type)
{
	struct flock fl = { .l_type = type, .l_whence = SEEK_SET };

	return fcntl(fd, F_OFD_SETLK, &fl) < 0 ? -errno : 0;
}

/* Find out about a block device. */
static int inspect_device(struct disk *d, const char *path, struct err *e)
{
	int block = 512, physical_ro = 0;
	unsigned physical = 0, optimal = 0;

	if (ioctl(d->fd, BLKGETSIZE64, &d->info.size) < 0 ||
	    ioctl(d->fd, BLKSSZGET, &block) < 0)
		return err_set(e, -errno, "disk %s: %s", path, strerror(errno));
	if (!d->info.readonly && !ioctl(d->fd, BLKROGET, &physical_ro) &&
	    physical_ro)
		return err_set(e, -EROFS,
			       "disk %s: the device is read-only; add "
			       "\"readonly\"",
			       path);
	ioctl(d->fd, BLKPBSZGET, &physical);
	ioctl(d->fd, BLKIOOPT, &optimal);
	d->info.block = (uint32_t)block;
	d->memory_align = (uint32_t)block;
	d->info.physical_block = physical;
	d->info.optimal_io = optimal;
	d->info.discard = d->info.write_zeroes = !d->info.readonly;
	d->info.discard_unit = max_of(physical, (unsigned)block);
	return 0;
}

static int inspect_file(struct disk *d, const struct stat *st)
{
	int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

	d->info.size = (uint64_t)st->st_size;
	d->info.block = d->memory_align = BLOCK_MIN;
	d->info.physical_block =
		(uint32_t)min_of((uint64_t)st->st_blksize, (uint64_t)65536);
	d->info.discard_unit = d->info.physical_block;
	d->info.write_zeroes = !d->info.readonly;
	/* Past the end, to see whether the file system can. */
	d->info.discard = !d->info.readonly &&
			  !fallocate(d->fd, mode, st->st_size, BLOCK_MAX);
#ifdef STATX_DIOALIGN
	if (d->cache == DISK_NONE) {
		struct statx sx;

		if (!statx(d->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &sx) &&
		    sx.stx_mask & STATX_DIOALIGN && sx.stx_dio_offset_align) {
			d->info.block =
				max_of(sx.stx_dio_offset_align, BLOCK_MIN);
			d->memory_align = max_of(sx.stx_dio_mem_align, 1u);
		}
	}
#endif
	return 0;
}

static int check_type(const char *path, const struct stat *st, struct err *e)
{
	if (S_ISREG(st->st_mode) || S_ISBLK(st->st_mode))
		return 0;
	if (S_ISDIR(st->st_mode))
		return err_set(e, -EISDIR,
			       "disk %s: is a directory; a disk is an image "
			       "file or a block device",
			       path);
	return err_set(e, -EINVAL, "disk %s: neither a file nor a block device",
		       path);
}

static int inspect(struct disk *d, const char *path, struct err *e)
{
	struct stat st;
	int rc;

	if (fstat(d->fd, &st) < 0)
		return err_set(e, -errno, "disk %s: %s", path, strerror(errno));
	rc = check_type(path, &st, e);
	if (!rc)
		rc = S_ISBLK(st.st_mode) ? inspect_device(d, path, e)
					 : inspect_file(d, &st);
	if (rc)
		return rc;
	if (!d->info.size)
		return err_set(e, -EINVAL, "disk %s: is empty", path);
	if (d->info.size % BLOCK_MIN)
		return err_set(e, -EINVAL,
			       "disk %s: its %llu bytes are not whole 512-byte "
			       "sectors; is it a raw image?",
			       path, (unsigned long long)d->info.size);
	if (d->info.block > BLOCK_MAX || d->info.size % d->info.block)
		return err_set(e, -EINVAL,
			       "disk %s: cache=none needs whole blocks of %u "
			       "bytes here, and its %llu bytes are not; use "
			       "cache=writeback",
			       path, d->info.block,
			       (unsigned long long)d->info.size);
	return 0;
}

static int open_failed(const struct disk_config *c, struct err *e)
{
	int code = -errno;

	if (!c->readonly &&
	    (code == -EACCES || code == -EROFS || code == -EPERM) &&
	    !access(c->path, R_OK))
		return err_set(e, code,
			       "disk %s: may be read but not written; add "
			       "\"readonly\"",
			       c->path);
	if (code == -EINVAL && c->cache == DISK_NONE)
		return err_set(e, code,
			       "disk %s: its file system has no direct I/O; "
			       "use cache=writeback",
			       c->path);
	return err_set(e, code, "disk %s: %s", c->path, strerror(-code));
}

static int open_image(struct disk *d, const struct disk_config *c,
		      struct err *e)
{
	int flags = (c->readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY;
	struct stat st;
	int rc;

	/* Before open(), which would wait for a FIFO's other side. */
	if (!stat(c->path, &st)) {
		rc = check_type(c->path, &st, e);
		if (rc)
			return rc;
	}
	d->fd = open(c->path, flags | (c->cache == DISK_NONE ? O_DIRECT : 0));
	if (d->fd < 0)
		return open_failed(c, e);
	rc = inspect(d, c->path, e);
	if (rc)
		return rc;
	rc = lock(d->fd, c->readonly ? F_RDLCK : F_WRLCK);
	if (rc == -EAGAIN || rc == -EACCES)
		return err_set(e, -EBUSY,
			       "disk %s: is in use by another disk%s", c->path,
			       c->readonly ? " that writes it" : "");
	if (c->cache != DISK_NONE)
		return 0;
	d->buffered_fd = open(c->path, flags);
	return d->buffered_fd < 0 ? open_failed(c, e) : 0;
}

static int start_aio(struct disk *d, const struct disk_config *c, struct err *e)
{
	int rc;

	d->info.aio = "threads";
	if (c->aio == DISK_AIO_THREADS)
		return 0;
	rc = uring_create(d, c->depth);
	if (!rc) {
		d->info.aio = "io_uring";
		return 0;
	}
	if (c->aio == DISK_AIO_URING)
		return err_set(e, rc,
			       "disk %s: this host gives us no io_uring (%s); "
			       "use aio=threads",
			       c->path, strerror(-rc));
	log_info(c->log, "disk %s: no io_uring (%s), using threads", c->path,
		 strerror(-rc));
	return 0;
}

int disk_open(struct disk **out, struct loop *l, const struct disk_config *c,
	      struct err *e)
{
	struct disk *d = calloc(1, sizeof(*d));
	int rc;

	*out = NULL;
	if (!d)
		return err_set(e, -ENOMEM, "out of memory");
	d->loop = l;
	d->log = c->log;
	d->cache = c->cache;
	d->batch = c->batch;
	d->ctx = c->ctx;
	d->fd = d->buffered_fd = -1;
	d->last = &d->first;
	d->info.readonly = c->readonly;
	d->page_cache = c->cache != DISK_NONE;
	rc = open_image(d, c, e);
	if (!rc)
		rc = start_aio(d, c, e);
	if (rc < 0)
		disk_close(d);
	else
		*out = d;
	return rc;
}

void disk_close(struct disk *d)
{
	if (!d)
		return;
	bug_on(d->under_way);
	uring_destroy(d);
	if (d->fd >= 0) {
		/* The kernel may keep a ring, and its files, for a while. */
		lock(d->fd, F_UNLCK);
		close(d->fd);
	}
	if (d->buffered_fd >= 0)
		close(d->buffered_fd);
	free(d);
}

const struct disk_info *disk_info(const struct disk *d)
{
	return &d->info;
}
