/*
 * A split virtqueue, seen from the device (virtio 1.2, 2.7).
 *
 * Works on plain guest memory and knows no transport: virtio-mmio, a vhost-user
 * front end and the test harness drive the same code. A queue belongs to one
 * loop; nothing here locks.
 *
 * One turn of a device, with the wake-up protocol in it:
 *
 *	vq_kicks_off(vq);
 *	do {
 *		while ((r = vq_pop(vq, &c, iov, VQ_IOV_MAX)) > 0) {
 *			... use c.iov ...
 *			vq_push(vq, &c, written);
 *		}
 *		if (vq_publish(vq))
 *			irq->queue(irq, index);
 *	} while (r == 0 && vq_kicks_on(vq));
 *
 * A chain is handed out with its descriptors copied and every piece resolved
 * and bounds-checked. Descriptors, indices and flags are read from the guest
 * exactly once. The *bytes* behind the iovecs stay the guest's: it may change
 * them at any time, so headers are copied out, checked, then used.
 */
#ifndef ARC_VIRTIO_QUEUE_H
#define ARC_VIRTIO_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "mem/gmem.h"

#define VQ_SIZE_MAX  1024 /* largest queue a device may offer */
#define VQ_CHAIN_MAX 1024 /* most descriptors in a chain, indirect included */
/* An iovec array of this many takes any chain: some may cross regions. */
#define VQ_IOV_MAX (VQ_CHAIN_MAX + GMEM_MAX_REGIONS)

/* What the driver configured; checked and latched by vq_enable(). */
struct vq_config {
	uint16_t size; /* a power of two, 1 .. VQ_SIZE_MAX */
	gpa_t desc, avail, used;
	bool event_idx; /* VIRTIO_F_EVENT_IDX was negotiated */
	bool indirect; /* VIRTIO_F_INDIRECT_DESC was negotiated */
	uint16_t avail_start, used_start; /* 0, but for a restored queue */
};

struct vq_stats {
	uint64_t chains; /* handed out and not un-popped */
	uint64_t bad_chains;
	uint64_t publishes; /* of the used index */
	uint64_t signals; /* publishes that asked for an interrupt */
};

struct virtqueue {
	struct vq_config config; /* size 0: not enabled */
	const struct gmem *mem;
	/* Host addresses of the rings, checked for their whole length. */
	struct vq_desc *desc;
	uint16_t *avail, *used;
	uint16_t next_avail; /* the next entry to pop */
	uint16_t avail_seen; /* the driver's index, when last read */
	uint16_t next_used; /* the next entry to fill */
	uint16_t used_published; /* used->idx, as the driver sees it */
	uint16_t in_flight; /* popped and not pushed, <= size */
	uint16_t iov_limit; /* a chain of more pieces is bad; VQ_IOV_MAX */
	const char *broken; /* why; NULL while all is well. Sticky */
	const char *bad; /* why vq_pop() last said -EBADMSG */
	struct vq_stats stats;
};

/* A popped chain. Keep it (by value) until vq_push(): it names the chain. */
struct vq_chain {
	struct iovec *iov; /* in the caller's array: readable, then writable */
	uint16_t nread, nwrite; /* pieces the device may read; may write */
	uint16_t head; /* the driver's name for it */
	uint64_t read_len, write_len; /* bytes */
};

static inline struct iovec *vq_chain_writable(const struct vq_chain *c)
{
	return c->iov + c->nread;
}

/* Not enabled, nothing owned; a zeroed struct is the same. */
void vq_init(struct virtqueue *vq);

/*
 * Check @c and start using it: -EINVAL with a reason in @why (when not NULL)
 * for a bad size, an unaligned ring, or one that is not whole in one region of
 * RAM (the used ring writable). Nothing is allocated, so disabling is free.
 */
int vq_enable(struct virtqueue *vq, const struct gmem *mem,
	      const struct vq_config *c, const char **why);
/* No chain may be in flight. */
void vq_disable(struct virtqueue *vq);

static inline bool vq_enabled(const struct virtqueue *vq)
{
	return vq->config.size != 0;
}

/*
 * Take the next available chain, its pieces into @iov.
 *   1         *@c is filled; vq_push() or vq_unpop() it later
 *   0         the ring is empty (or the queue is not enabled)
 *   -ENOBUFS  the next chain has more than @max pieces; nothing was taken.
 *             Never when @max >= vq->iov_limit
 *   -EBADMSG  the chain is malformed (loop, bad address, nested or odd
 *             indirect table, readable after writable ...). It was taken, as a
 *             chain of no bytes: push it with 0 to go on, or give up on the
 *             driver; vq->bad says what was wrong
 *   -EPROTO   the ring itself is broken (index jump, head out of range, more in
 *             flight than it has entries): vq->broken, sticky. The device must
 *             ask for a reset
 */
int vq_pop(struct virtqueue *vq, struct vq_chain *c, struct iovec *iov,
	   unsigned max);

/*
 * Give back a popped chain: the next vq_pop() finds it again. Only in reverse
 * order of popping, and only when none popped later is still out or was pushed.
 */
void vq_unpop(struct virtqueue *vq, const struct vq_chain *c);

/*
 * Return a chain, @len bytes of which were written from the start of its
 * writable part. In any order. The driver sees nothing until vq_publish().
 */
void vq_push(struct virtqueue *vq, const struct vq_chain *c, uint32_t len);

/*
 * Make all pushed chains visible in one step. True when the driver wants an
 * interrupt for them (I7: publish, full fence, then look).
 */
bool vq_publish(struct virtqueue *vq);

/* Tell the driver that kicks are not needed now. Advice: some may still come. */
void vq_kicks_off(struct virtqueue *vq);
/*
 * Ask for kicks again, full fence, and look (I2): true when chains came in
 * meanwhile, for which no kick may come. Sleep only on false.
 */
bool vq_kicks_on(struct virtqueue *vq);

/*
 * The same for the next chain the driver adds, however many wait now and are
 * left alone: true when one was added meanwhile.
 */
bool vq_kicks_next(struct virtqueue *vq);

/* Chains waiting now (reads the driver's index); 0 when broken. */
unsigned vq_pending(struct virtqueue *vq);

/*
 * Where an interrupt goes: filled in by whoever drives the queues. Callable
 * from the queue's loop; both are cheap and never block.
 */
struct virtio_irq {
	void (*queue)(struct virtio_irq *irq, unsigned index);
	void (*config)(struct virtio_irq *irq);
};

#endif
