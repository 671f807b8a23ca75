/*
 * The virtio-mmio transport, version 2 (virtio 1.2, 4.2).
 *
 *	virtio_dev_create() -> virtio_mmio_create() -> virtio_mmio_attach()
 *	... virtio_dev_quiesce() ... virtio_mmio_detach() ->
 *	virtio_mmio_destroy() -> virtio_dev_destroy()
 *
 * The window is VIRTIO_MMIO_SIZE bytes: 0x100 of registers, then the config
 * space. Kicks are eventfds that the machine connects by ioeventfd; interrupts
 * are edges on one line, an irqfd where the engine has it.
 *
 * Linux does not wait for a reset to be over before it frees its rings, so on
 * an attached transport the write of 0 to Status does not return to the guest
 * while requests are in flight: the vCPU sleeps, with the loop unlocked, until
 * the device is quiet.
 */
#ifndef ARC_VIRTIO_MMIO_H
#define ARC_VIRTIO_MMIO_H

#include <stdint.h>

#include "bus/bus.h"
#include "virtio/virtio.h"

#define VIRTIO_MMIO_SIZE 0x1000

struct err;
struct virtio_mmio;

/* What the machine gives: the engine, through functions. */
struct virtio_mmio_host {
	struct bus *bus;
	void *ctx;
	/* Add or remove a doorbell; -errno. */
	int (*ioeventfd)(void *ctx, const struct bus_ioeventfd *io, bool add);
	/*
	 * One of: each signal of @fd is an edge on @gsi; or, for an engine
	 * without irqfds, drive an edge on @gsi now. pulse is called by loop
	 * threads and vCPUs, always with the lock of the device's loop, so that
	 * two edges on a line never meet (the second would be lost).
	 */
	int (*irqfd)(void *ctx, unsigned gsi, int fd, bool add);
	void (*pulse)(void *ctx, unsigned gsi);
};

/* @d becomes this transport's: its irq is ours now. 0, -errno. */
int virtio_mmio_create(struct virtio_dev *d, struct virtio_mmio **out);
/* Detached. The device stays. NULL-safe. */
void virtio_mmio_destroy(struct virtio_mmio *t);

/*
 * Put the registers at @base, the doorbells, and the interrupt on @gsi. On
 * failure nothing is left behind.
 */
int virtio_mmio_attach(struct virtio_mmio *t,
		       const struct virtio_mmio_host *host, uint64_t base,
		       unsigned gsi, struct err *e);
/* No vCPU runs any more. Harmless when not attached. */
void virtio_mmio_detach(struct virtio_mmio *t);

uint64_t virtio_mmio_base(const struct virtio_mmio *t); /* 0: not attached */

/*
 * Registers, for the bus and for tests that play the driver (who then poll
 * Status after a reset). Under the lock of the device's loop.
 */
uint64_t virtio_mmio_read(struct virtio_mmio *t, uint64_t off, unsigned len);
void virtio_mmio_write(struct virtio_mmio *t, uint64_t off, unsigned len,
		       uint64_t val);

/* Signalled for each interrupt, unless pulse is used: what irqfd gets. */
int virtio_mmio_irq_fd(struct virtio_mmio *t);

/*
 * Selected registers and pending interrupts, beside virtio_dev_save(). When the
 * device is resumed, virtio_mmio_resume() signals what is still pending.
 */
void virtio_mmio_save(struct virtio_mmio *t, struct snap_writer *w,
		      uint32_t instance);
int virtio_mmio_restore(struct virtio_mmio *t, const struct snap_reader *r,
			uint32_t instance, struct err *e);
void virtio_mmio_resume(struct virtio_mmio *t);

#endif
