/*
 * A guest driver over plain memory: negotiates, posts chains, kicks, reads used
 * entries, through the registers of the mmio transport, with no vCPU. For unit
 * tests, fuzzers and benches. It also misbehaves on request.
 *
 *	harness_open() -> harness_start()            up to DRIVER_OK
 *	harness_post() -> harness_kick() -> harness_wait_used()
 *	harness_close()
 *
 * Guest memory: RAM regions that touch at HARNESS_SEAM, and one above 4 GiB.
 */
#ifndef ARC_TESTS_VIRTIO_HARNESS_H
#define ARC_TESTS_VIRTIO_HARNESS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "loop/loop.h"
#include "mem/gmem.h"
#include "virtio/mmio.h"
#include "virtio/virtio.h"

#define HARNESS_RAM    0x100000ull /* per region */
#define HARNESS_SEAM   HARNESS_RAM
#define HARNESS_HIGH   0x100000000ull
#define HARNESS_QUEUES 64

#define REG_DEVICE_FEATURES	0x010
#define REG_DEVICE_FEATURES_SEL 0x014
#define REG_DRIVER_FEATURES	0x020
#define REG_DRIVER_FEATURES_SEL 0x024
#define REG_QUEUE_SEL		0x030
#define REG_QUEUE_NUM_MAX	0x034
#define REG_QUEUE_NUM		0x038
#define REG_QUEUE_READY		0x044
#define REG_QUEUE_NOTIFY	0x050
#define REG_INTERRUPT_STATUS	0x060
#define REG_INTERRUPT_ACK	0x064
#define REG_STATUS		0x070
#define REG_QUEUE_DESC		0x080
#define REG_QUEUE_DRIVER	0x090
#define REG_QUEUE_DEVICE	0x0a0
#define REG_QUEUE_RESET		0x0c0
#define REG_CONFIG_GENERATION	0x0fc
#define REG_CONFIG		0x100

enum { DESC_NEXT = 1, DESC_WRITE = 2, DESC_INDIRECT = 4 };

struct harness_desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};

/* A queue as the driver has it. */
struct harness_queue {
	uint16_t size;
	gpa_t desc, avail, used;
	struct harness_desc *d; /* host addresses */
	uint16_t *a, *u;
	uint16_t avail_idx, used_seen;
	uint16_t kick_seen; /* avail_idx at the last look */
	uint16_t free_head; /* free descriptors, linked by next[] */
	unsigned free; /* how many */
	uint16_t *next, *chain_len; /* by head: how many to free */
	uint64_t kicks;
};

struct harness {
	struct gmem *mem;
	struct loop *loop;
	struct virtio_dev *dev;
	struct virtio_mmio *mmio;
	uint64_t features; /* negotiated */
	uint64_t bump; /* allocator of guest memory, below the seam */
	uint64_t interrupts; /* signals of the irq eventfd so far */
	struct harness_queue q[HARNESS_QUEUES];
};

struct harness_buf {
	gpa_t at;
	uint32_t len;
	bool write; /* the device may write */
};

/*
 * @log, @host may be NULL. 0 or -errno, with a sentence in @e; harness_close()
 * either way.
 */
int harness_open(struct harness *h, const char *type, const char *options,
		 const void *host, const struct log *log, struct err *e);
int harness_open_type(struct harness *h, const struct virtio_dev_type *type,
		      const char *options, const void *host,
		      const struct log *log, struct err *e);
void harness_close(struct harness *h);

uint32_t harness_reg(struct harness *h, unsigned off);
void harness_set_reg(struct harness *h, unsigned off, uint32_t val);

/* Up to FEATURES_OK with @want of what is offered: the status. */
uint8_t harness_negotiate(struct harness *h, uint64_t want);
/* Make queue @q with @size entries (0: what is offered) and enable it. */
void harness_queue(struct harness *h, unsigned q, uint16_t size);
void harness_driver_ok(struct harness *h);
/* All of it, every queue, with all features but those in @without. */
void harness_start(struct harness *h, uint64_t without);

/* Write 0 to Status and turn the loop until it reads 0; false on timeout. */
bool harness_reset(struct harness *h);

/* Guest memory: @len bytes aligned to 16. NULL-gpa (0) when it is used up. */
gpa_t harness_alloc(struct harness *h, uint64_t len);
void *harness_ptr(struct harness *h, gpa_t at, uint64_t len);

/* Make a chain available (no kick): its head, or -1 without descriptors. */
int harness_post(struct harness *h, unsigned q, const struct harness_buf *bufs,
		 unsigned n);
/* The same through an indirect table. */
int harness_post_indirect(struct harness *h, unsigned q,
			  const struct harness_buf *bufs, unsigned n);
/* Put @head into the available ring, whatever it is. */
void harness_avail(struct harness *h, unsigned q, uint16_t head);

/* Kick if the device wants it (EVENT_IDX or flag): did it? */
bool harness_kick(struct harness *h, unsigned q);
void harness_force_kick(struct harness *h, unsigned q);

struct harness_used {
	uint32_t id, len;
};
/* Take a used entry if there is one. */
bool harness_used(struct harness *h, unsigned q, struct harness_used *out);
/* Turn the loop until there is one; false after @ms milliseconds. */
bool harness_wait_used(struct harness *h, unsigned q, struct harness_used *out,
		       int ms);
/* Turn the loop until nothing is ready. */
void harness_settle(struct harness *h);
/* Interrupts since the last call. */
uint64_t harness_irqs(struct harness *h);

/* Post, kick and wait for one chain: used length, or -1. */
int64_t harness_do(struct harness *h, unsigned q,
		   const struct harness_buf *bufs, unsigned n);

/* Bring the device to quiet as the VM does; false on timeout. */
bool harness_quiesce(struct harness *h);

#endif
