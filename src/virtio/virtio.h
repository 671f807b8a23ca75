/*
 * Virtio devices: what a device implements, and what the core does for it.
 *
 * A device type is one const table, `virtio_dev_<name>`, in
 * src/virtio/dev/<name>.c; the registry is generated from the file names. The
 * core (virtio.c) owns feature negotiation, the status register, queue
 * addresses (latched when a queue is enabled), bounds of the config space,
 * interrupts, kicks and the frame of the save format. A transport (mmio.h, or
 * the vhost-user front end of a core) only translates registers.
 *
 *	create(opts) -> activate (DRIVER_OK) -> notify(queue)...
 *	quiesce -> virtio_quiet() -> reset | save | resume | destroy
 *
 * Every call of the table is made on the device's loop (or under its lock), and
 * never again after destroy; notify from the loop's own thread, but for
 * `immediate` queues. quiesce is the only asynchronous step: between
 * virtio_quiet() and the next activate or resume no I/O is in flight, no chain
 * is held and notify is not called, so reset, save and destroy are plain
 * functions. A NULL op is a no-op of the core.
 */
#ifndef ARC_VIRTIO_VIRTIO_H
#define ARC_VIRTIO_VIRTIO_H

#include <stdbool.h>
#include <stdint.h>

#include "base/log.h"
#include "base/opt.h"
#include "loop/loop.h"
#include "mem/gmem.h"
#include "virtio/queue.h"

struct err;
struct snap_writer;
struct snap_reader;
struct snap_body;
struct virtio_dev;

/* Device status (2.1). */
enum {
	VIRTIO_S_ACKNOWLEDGE = 1,
	VIRTIO_S_DRIVER = 2,
	VIRTIO_S_DRIVER_OK = 4,
	VIRTIO_S_FEATURES_OK = 8,
	VIRTIO_S_NEEDS_RESET = 64,
	VIRTIO_S_FAILED = 128,
};

/* Features the core implements (6). */
#define VIRTIO_F_INDIRECT_DESC (1ull << 28)
#define VIRTIO_F_EVENT_IDX     (1ull << 29)
#define VIRTIO_F_VERSION_1     (1ull << 32)
#define VIRTIO_F_RING_RESET    (1ull << 40)

#define VIRTIO_MAX_QUEUES 64

/* What a device is made with: all outlive it. */
struct virtio_env {
	struct gmem *mem;
	struct loop *loop; /* the device's, for life */
	const struct log *log;
	const char *name; /* for the log: "blk0"; copied */
	/* Type-specific objects of the host, or NULL: see the type's header. */
	const void *host;
};

struct virtio_dev_type {
	const char *name; /* "blk"; the file is dev/blk.c */
	const char *summary; /* one line, for help */
	/* "disk", its configuration key and flag; NULL: made in other ways */
	const char *flag;
	uint32_t id; /* virtio device ID (5) */
	const char *loop_name; /* wants a loop of its own, so named; or NULL */
	/* Options as text, parsed into a struct of the type's own. */
	const struct opt_desc *options;
	size_t options_size;
	void (*defaults)(void *options); /* fill a zeroed one; NULL: zeros do */

	/*
	 * Make a device: allocate a struct that begins with struct virtio_dev,
	 * open back ends, call virtio_dev_init(). On failure nothing is left
	 * behind and @e says why.
	 */
	int (*create)(const struct virtio_env *env, const void *options,
		      struct virtio_dev **out, struct err *e);
	/*
	 * The driver set DRIVER_OK: d->driver_features and the queues are
	 * final. Chains may be waiting already; the core calls notify for every
	 * enabled queue right after. Nonzero: the device goes to NEEDS_RESET.
	 */
	int (*activate)(struct virtio_dev *d);
	/* The driver kicked queue @q (or may have: spurious calls are legal). */
	void (*notify)(struct virtio_dev *d, unsigned q);
	/*
	 * Stop taking chains, finish or un-pop those in flight, then call
	 * virtio_quiet(d): from within or later. NULL: nothing is ever in
	 * flight between callbacks.
	 */
	void (*quiesce)(struct virtio_dev *d);
	/*
	 * The same for one queue that the driver resets; virtio_queue_quiet().
	 * Other queues go on. NULL: as above.
	 */
	void (*queue_quiesce)(struct virtio_dev *d, unsigned q);
	/* QUIET: forget what the driver made of it, as after create. */
	void (*reset)(struct virtio_dev *d);
	/* QUIET: go on as before (or as restored); notify follows. */
	void (*resume)(struct virtio_dev *d);
	/*
	 * The driver wrote [off, off + len) of the config space: in bounds, new
	 * bytes in @val, d->config unchanged so far. NULL: read-only.
	 */
	void (*config_write)(struct virtio_dev *d, unsigned off, unsigned len,
			     const uint8_t *val);
	/*
	 * QUIET: the device's own state, as fields of the record that the core
	 * has opened (of version @state_version).
	 */
	void (*save)(struct virtio_dev *d, struct snap_writer *w);
	/*
	 * On a fresh device whose features and queues are restored already.
	 * What is read is checked like guest input. resume follows.
	 */
	int (*restore)(struct virtio_dev *d, struct snap_body *b,
		       struct err *e);
	uint32_t state_version;
	/* QUIET or never activated: free everything, the struct too. */
	void (*destroy)(struct virtio_dev *d);
};

/* Every type, NULL-terminated, by name. */
extern const struct virtio_dev_type *const virtio_dev_types[];
const struct virtio_dev_type *virtio_dev_type_by_name(const char *name);
const struct virtio_dev_type *virtio_dev_type_by_flag(const char *flag);

enum virtio_run {
	VIRTIO_IDLE, /* no DRIVER_OK since create or reset */
	VIRTIO_ACTIVE,
	VIRTIO_QUIESCING,
	VIRTIO_QUIET,
};

struct virtio_queue {
	struct virtqueue vq;
	struct virtio_dev *dev;
	struct loop_watch kick; /* on an eventfd, while ACTIVE and enabled */
	int kick_fd;
	uint16_t size_max; /* what the device offers; 0: not present */
	/*
	 * Set by create for a queue whose driver spins until it is served: no
	 * doorbell then, notify is called within the guest's register write.
	 */
	bool immediate;
	bool resetting; /* the driver resets this queue */
	bool was_stopped; /* after DRIVER_OK: may be enabled again */
	struct vq_config next; /* being written by the driver */
};

/* The common part of a device: the first member of the device's struct. */
struct virtio_dev {
	const struct virtio_dev_type *type;
	struct gmem *mem;
	struct loop *loop;
	const struct log *log;
	char name[24];

	/* Set by the device before or in virtio_dev_init(). */
	uint64_t features; /* offered, the core's bits included */
	void *config; /* the config space, kept current by the device */
	unsigned config_size;
	unsigned nqueues;

	/* The core's; a device reads them. */
	uint64_t driver_features; /* final once FEATURES_OK */
	uint32_t config_generation;
	uint8_t status;
	enum virtio_run run;
	bool activated; /* activate succeeded, reset not called since */
	bool reset_pending; /* the driver wrote 0, not quiet yet */
	bool features_beyond; /* the driver set bits past 63 */
	bool config_late; /* changed before DRIVER_OK: tell then */
	struct virtio_irq *irq; /* the transport's; NULL before it attaches */
	void (*quiet_fn)(void *ctx); /* virtio_dev_quiesce() */
	void *quiet_ctx;
	void (*settled_fn)(void *ctx); /* virtio_dev_on_settled() */
	void *settled_ctx;
	struct log_limit complaints;
	uint64_t misbehaviours; /* virtio_fail() calls */
	struct virtio_queue *queues;
};

/* ---- for devices ---- */

/*
 * From create: @size_max[i] is the size of queue @i offered (0: absent but
 * numbered). @features are the device's own bits; the core adds its own. -errno
 * leaves nothing to undo.
 */
int virtio_dev_init(struct virtio_dev *d, const struct virtio_dev_type *type,
		    const struct virtio_env *env, uint64_t features,
		    const uint16_t *size_max, unsigned nqueues, void *config,
		    unsigned config_size);
/* From destroy, before freeing. */
void virtio_dev_fini(struct virtio_dev *d);

static inline struct virtqueue *virtio_vq(struct virtio_dev *d, unsigned q)
{
	return &d->queues[q].vq;
}

/* Was @feature (one bit) negotiated? */
static inline bool virtio_has(const struct virtio_dev *d, uint64_t feature)
{
	return d->driver_features & feature;
}

/* Have notify called for queue @q, soon and from the loop. */
void virtio_queue_kick(struct virtio_dev *d, unsigned q);

/* vq_publish() and the interrupt it asks for. */
void virtio_publish(struct virtio_dev *d, unsigned q);

/* Raise queue @q's interrupt; d->config changed: generation and interrupt. */
void virtio_interrupt(struct virtio_dev *d, unsigned q);
void virtio_config_changed(struct virtio_dev *d);

/*
 * The guest broke the rules: log (rate-limited), count, set NEEDS_RESET with a
 * config interrupt. notify is not called until the driver resets. @what is a
 * short sentence. Callable from any of the device's callbacks.
 */
void virtio_fail(struct virtio_dev *d, const char *fmt, ...)
	__attribute__((format(printf, 2, 3), cold));

/* Answers to quiesce and queue_quiesce. */
void virtio_quiet(struct virtio_dev *d);
void virtio_queue_quiet(struct virtio_dev *d, unsigned q);

/* ---- for the VM ---- */

/* Parse @text by the type's options table and make the device. */
int virtio_dev_create(const struct virtio_dev_type *type,
		      const struct virtio_env *env, const char *text,
		      struct virtio_dev **out, struct err *e);
/*
 * Bring @d to QUIET and call @fn, under the loop's lock (perhaps before
 * returning). The guest is paused or gone: a register access meanwhile is
 * answered as if by an idle device. Then save, resume or destroy. [any thread,
 * as are resume and destroy]
 */
void virtio_dev_quiesce(struct virtio_dev *d, void (*fn)(void *ctx), void *ctx);
void virtio_dev_resume(struct virtio_dev *d);
/* Two records, told apart from other devices' by @instance. */
void virtio_dev_save(struct virtio_dev *d, struct snap_writer *w,
		     uint32_t instance);
/* On a fresh device, which is QUIET then: virtio_dev_resume() starts it. */
int virtio_dev_restore(struct virtio_dev *d, const struct snap_reader *r,
		       uint32_t instance, struct err *e);
/* QUIET, or never activated. NULL-safe. */
void virtio_dev_destroy(struct virtio_dev *d);

/*
 * A record of @d no newer than @version; and whether all that was taken from it
 * was there. 0 or -errno with a sentence.
 */
int virtio_record_find(const struct virtio_dev *d, const struct snap_reader *r,
		       uint32_t tag, uint32_t instance, uint32_t version,
		       struct snap_body *b, struct err *e);
int virtio_record_read(const struct virtio_dev *d, const struct snap_body *b,
		       struct err *e);

/* ---- for transports ---- */

uint32_t virtio_get_features(const struct virtio_dev *d, unsigned sel);
void virtio_set_features(struct virtio_dev *d, unsigned sel, uint32_t val);
uint8_t virtio_get_status(const struct virtio_dev *d);
/* Writing 0 starts a reset; get_status() reads 0 when it is complete. */
void virtio_set_status(struct virtio_dev *d, uint8_t status);
/* Is a reset, of the device or of a queue, under way? */
bool virtio_settling(const struct virtio_dev *d);
/*
 * @fn is called, under the loop's lock, when a reset of the device or of a queue
 * is complete; perhaps before the call that asked for it returns.
 */
void virtio_dev_on_settled(struct virtio_dev *d, void (*fn)(void *ctx),
			   void *ctx);

/* Out of bounds reads 0xff bytes, and writes nothing. */
void virtio_config_read(struct virtio_dev *d, unsigned off, unsigned len,
			uint8_t *val);
void virtio_config_write(struct virtio_dev *d, unsigned off, unsigned len,
			 const uint8_t *val);

/* NULL when there is no queue @q. */
struct virtio_queue *virtio_queue(struct virtio_dev *d, unsigned q);
/*
 * The driver enables queue @q with what it wrote to ->next: checked and
 * latched. Bad values put the device to NEEDS_RESET.
 */
void virtio_queue_enable(struct virtio_dev *d, unsigned q);
/*
 * Stop using queue @q (QueueReady = 0, or QueueReset): complete when
 * ->resetting is false again, and then the driver may enable it anew.
 */
void virtio_queue_stop(struct virtio_dev *d, unsigned q);
/* The driver kicked queue @q by a register write, not by the eventfd. */
void virtio_queue_kicked(struct virtio_dev *d, unsigned q);

#endif
