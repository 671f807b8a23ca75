/*
 * The back-end process's side of vhost-user: another VMM owns the guest, its
 * memory and the virtio transport, and lends us memory and rings over a Unix
 * socket. One front end at a time; when it hangs up the next may come.
 *
 * The device below sees what it sees under virtio-mmio: a gmem, virtqueues, and
 * somewhere to send interrupts. All callbacks run on the loop.
 */
#ifndef ARC_VIRTIO_VHOST_USER_VHOST_USER_H
#define ARC_VIRTIO_VHOST_USER_VHOST_USER_H

#include <stdbool.h>
#include <stdint.h>

#include "virtio/queue.h"

struct err;
struct log;
struct loop;
struct vhost_user;

#define VHOST_USER_QUEUES 8

struct vhost_user_config {
	const char *path; /* socket to listen on; a stale one is replaced */
	struct loop *loop;
	const struct log *log;
	uint64_t features; /* the device's; ring features are added */
	unsigned nqueues; /* 1 .. VHOST_USER_QUEUES */
	const void *config; /* the device's config space, read-only */
	unsigned config_size;
	void *ctx; /* for the callbacks */

	/*
	 * All queues are there and enabled. @fresh: by a driver that starts
	 * anew, else they go on where stop() left them.
	 */
	void (*start)(void *ctx, struct virtqueue *vq, uint64_t features,
		      bool fresh);
	/* Let go of the queues before returning; hold no chain. */
	void (*stop)(void *ctx);
	/* The front end hung up, and its guest is gone. After stop(). */
	void (*lost)(void *ctx);
	void (*kick)(void *ctx, unsigned q);
};

int vhost_user_create(struct vhost_user **out,
		      const struct vhost_user_config *c, struct err *e);
void vhost_user_destroy(struct vhost_user *u); /* NULL-safe */

/* Interrupt queue @q. */
void vhost_user_interrupt(struct vhost_user *u, unsigned q);
/* A ring is broken: tell the front end. The device leaves its rings alone. */
void vhost_user_fail(struct vhost_user *u, const char *why);

#endif
