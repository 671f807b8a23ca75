/*
 * Disk I/O by the loop's pool: for hosts without io_uring, and for the few
 * things that only a thread can do, such as writing zeros where the file system
 * knows no faster way.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "backend/disk_impl.h"
#include "base/util.h"

#define ZEROS_BYTES 65536u

static int64_t transfer(struct disk_request *r)
{
	int fd = r->buffered ? r->disk->buffered_fd : r->disk->fd;
	ssize_t n;

	if (r->op == DISK_READ)
		n = preadv(fd, r->iov, (int)r->niov, (off_t)r->offset);
	else
		n = pwritev2(fd, r->iov, (int)r->niov, (off_t)r->offset,
			     r->fua ? RWF_DSYNC : 0);
	return n < 0 ? -errno : n;
}

static int write_zeros(struct disk_request *r)
{
	int fd = r->disk->buffered_fd >= 0 ? r->disk->buffered_fd : r->disk->fd;
	void *zeros = calloc(1, ZEROS_BYTES);
	uint64_t done = 0;
	int rc = zeros ? 0 : -ENOMEM;

	while (!rc && done < r->len) {
		size_t step =
			(size_t)min_of(r->len - done, (uint64_t)ZEROS_BYTES);
		ssize_t n = pwrite(fd, zeros, step, (off_t)(r->offset + done));

		if (n < 0 && errno != EINTR)
			rc = -errno;
		done += n > 0 ? (uint64_t)n : 0;
	}
	free(zeros);
	return rc;
}

static int zero(struct disk_request *r)
{
	int mode = disk_fallocate_mode(r);

	if (!fallocate(r->disk->fd, mode, (off_t)r->offset, (off_t)r->len))
		return 0;
	if (errno != EOPNOTSUPP || r->op == DISK_DISCARD)
		return -errno;
	return write_zeros(r);
}

static void work(struct loop_work *w)
{
	struct disk_request *r = container_of(w, struct disk_request, work);
	int64_t moved;

	do {
		if (r->op == DISK_READ || r->op == DISK_WRITE)
			moved = transfer(r);
		else if (r->op == DISK_FLUSH)
			moved = fdatasync(r->disk->fd) < 0 ? -errno : 0;
		else
			moved = zero(r);
	} while (!disk_advance(r, moved));
}

static void finished(struct loop_work *w)
{
	struct disk_request *r = container_of(w, struct disk_request, work);
	struct disk *d = r->disk;

	disk_complete(r);
	disk_batch(d);
}

void threads_start(struct disk *d, struct disk_request *r)
{
	int rc;

	r->work = (struct loop_work){ .work = work, .done = finished };
	rc = loop_work(d->loop, &r->work);
	if (rc < 0) {
		r->result = rc;
		disk_complete(r);
	}
}
