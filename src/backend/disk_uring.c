/*
 * Disk I/O by io_uring.
 *
 * Theory of operation
 *
 * Completions that were not ready at once are work for the thread that
 * submitted, done when it enters the kernel the next time (COOP_TASKRUN): they
 * wake a loop that sleeps and do not interrupt one that runs. The kernel signals
 * an eventfd for them, which the loop watches. (DEFER_TASKRUN would save a system
 * call per wake-up, but binds the ring to one thread, and a VM at its end turns
 * the loop on another: what was under way would never be seen again.)
 *
 * One turn submits and reaps until nothing is left to do at once: what the page
 * cache answers is complete when the submission returns. Meanwhile the eventfd
 * is turned off, or every such completion would cost an idle wake-up. It is
 * turned on again before the last look, so nothing slips through: we store the
 * flag, fence, look; the kernel publishes, fences, looks at the flag.
 *
 * A request of which a part was done is queued again for the rest. What the
 * kernel cancels because the submitting thread has exited is done by the pool.
 */
#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "backend/disk_impl.h"
#include "base/bug.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/util.h"

#define DEPTH_MIN 64u
#define DEPTH_MAX 1024u

enum { FILE_DIRECT, FILE_BUFFERED, NFILES };

struct uring {
	struct io_uring ring;
	struct disk *disk;
	int event_fd;
	struct loop_watch watch;
	struct loop_timer retry; /* the kernel could not take a submission */
	bool turning; /* turn() is under way: it sees to all */
	/* Queued, not in the submission ring yet. */
	struct disk_request *first, **last;
};

#define RETRY_NS 1000000u

static void turn(struct disk *d);

static void signalled(struct loop_watch *w, uint32_t events)
{
	(void)events;
	turn(container_of(w, struct uring, watch)->disk);
}

static void retry(struct loop_timer *t)
{
	turn(container_of(t, struct uring, retry)->disk);
}

/* ---- submission ---- */

static void prepare(struct io_uring_sqe *sqe, struct disk_request *r)
{
	int file = r->buffered ? FILE_BUFFERED : FILE_DIRECT;

	switch (r->op) {
	case DISK_READ:
		io_uring_prep_readv(sqe, file, r->iov, r->niov, r->offset);
		break;
	case DISK_WRITE:
		io_uring_prep_writev2(sqe, file, r->iov, r->niov, r->offset,
				      r->fua ? RWF_DSYNC : 0);
		break;
	case DISK_FLUSH:
		io_uring_prep_fsync(sqe, file, IORING_FSYNC_DATASYNC);
		break;
	case DISK_DISCARD:
	case DISK_ZERO:
		io_uring_prep_fallocate(sqe, file, disk_fallocate_mode(r),
					(off_t)r->offset, (off_t)r->len);
		break;
	}
	io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
	io_uring_sqe_set_data(sqe, r);
}

void uring_queue(struct disk *d, struct disk_request *r)
{
	struct uring *u = d->uring;

	r->next = NULL;
	*u->last = r;
	u->last = &r->next;
}

static struct disk_request *next_queued(struct uring *u)
{
	struct disk_request *r = u->first;

	u->first = r->next;
	if (!u->first)
		u->last = &u->first;
	return r;
}

/* As many as there is room for. */
static void fill_ring(struct uring *u)
{
	struct io_uring_sqe *sqe;

	while (u->first && (sqe = io_uring_get_sqe(&u->ring)))
		prepare(sqe, next_queued(u));
}

/* ---- completion ---- */

static void handle(struct disk *d, struct disk_request *r, int res)
{
	/* A thread can write zeros, and do what an exiting thread left. */
	if ((r->op == DISK_ZERO && res == -EOPNOTSUPP) || res == -ECANCELED)
		threads_start(d, r);
	else if (disk_advance(r, res))
		disk_complete(r);
	else
		uring_queue(d, r);
}

static unsigned reap(struct disk *d)
{
	struct uring *u = d->uring;
	struct io_uring_cqe *cqe;
	unsigned head, n = 0;

	io_uring_for_each_cqe(&u->ring, head, cqe)
	{
		handle(d, io_uring_cqe_get_data(cqe), cqe->res);
		n++;
	}
	io_uring_cq_advance(&u->ring, n);
	return n;
}

static bool kernel_waits(struct uring *u)
{
	unsigned flags = __atomic_load_n(u->ring.sq.kflags, __ATOMIC_ACQUIRE);

	return flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW);
}

static void turn(struct disk *d)
{
	struct uring *u = d->uring;
	unsigned n = 0, more, looked = 0;
	int rc;

	if (u->turning)
		return;
	u->turning = true;
	io_uring_cq_eventfd_toggle(&u->ring, false);
	for (;;) {
		rc = 0;
		fill_ring(u);
		if (io_uring_sq_ready(&u->ring))
			rc = io_uring_submit(&u->ring);
		if (kernel_waits(u))
			io_uring_get_events(&u->ring);
		more = reap(d);
		n += more;
		if (more || (rc >= 0 && io_uring_sq_ready(&u->ring)))
			continue;
		/* Pairs with the kernel's between publishing and the flag. */
		io_uring_cq_eventfd_toggle(&u->ring, true);
		__sync_synchronize();
		/* (Work that waits for another thread will signal.) */
		if (!io_uring_cq_ready(&u->ring) &&
		    (!kernel_waits(u) || looked++))
			break;
		io_uring_cq_eventfd_toggle(&u->ring, false);
	}
	/* Out of memory in the kernel, or the like: not our last try. */
	if (io_uring_sq_ready(&u->ring))
		timer_set(&u->retry, d->loop, clock_ns() + RETRY_NS, retry);
	u->turning = false;
	if (n)
		disk_batch(d);
}

void uring_submit(struct disk *d)
{
	if (d->uring->first)
		turn(d);
}

/* ---- life ---- */

static int ring_init(struct uring *u, unsigned depth)
{
	struct io_uring_params p = {
		.flags = IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
			 IORING_SETUP_CLAMP,
	};
	int rc = io_uring_queue_init_params(depth, &u->ring, &p);

	if (rc == -EINVAL) { /* a kernel before 5.19 */
		p = (struct io_uring_params){ .flags = IORING_SETUP_CLAMP };
		rc = io_uring_queue_init_params(depth, &u->ring, &p);
	}
	return rc;
}

int uring_create(struct disk *d, unsigned depth)
{
	int files[NFILES] = { d->fd, d->buffered_fd };
	struct uring *u = calloc(1, sizeof(*u));
	int rc;

	if (!u)
		return -ENOMEM;
	u->disk = d;
	u->last = &u->first;
	u->event_fd = -1;
	depth = max_of(depth, DEPTH_MIN);
	rc = ring_init(u, min_of(depth, DEPTH_MAX));
	if (rc < 0) {
		free(u);
		return rc;
	}
	rc = io_uring_register_files(&u->ring, files,
				     d->buffered_fd >= 0 ? NFILES : 1);
	if (rc < 0)
		goto fail;
	u->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (u->event_fd < 0) {
		rc = -errno;
		goto fail;
	}
	rc = io_uring_register_eventfd(&u->ring, u->event_fd);
	if (rc < 0)
		goto fail;
	/* By edges, which every signal is: the eventfd need not be read. */
	rc = watch_open(&u->watch, d->loop, u->event_fd, EPOLLIN | EPOLLET,
			signalled);
	if (rc < 0)
		goto fail;
	d->uring = u;
	return 0;
fail:
	if (u->event_fd >= 0)
		close(u->event_fd);
	io_uring_queue_exit(&u->ring);
	free(u);
	return rc;
}

void uring_destroy(struct disk *d)
{
	struct uring *u = d->uring;

	if (!u)
		return;
	timer_cancel(&u->retry);
	watch_close(&u->watch);
	io_uring_queue_exit(&u->ring);
	close(u->event_fd);
	free(u);
	d->uring = NULL;
}
