/*
 * Theory of operation
 *
 * The window is three ranges of the bus. InterruptStatus and InterruptACK, the
 * two registers of every interrupt, are one atomic word: they are a range
 * without an owner, so a guest's interrupt handler never waits for the device's
 * loop. All else is served under the lock of that loop.
 *
 * Interrupts are edges. One is signalled for every event, also when the bit in
 * InterruptStatus is set already: skipping it would save a system call, but an
 * edge that got lost (masked pin, a driver torn down and bound again) would then
 * silence the device for ever. How many there are is up to the driver, by
 * EVENT_IDX.
 *
 * A vCPU that resets an attached device sleeps until requests in flight are
 * over (see mmio.h). It holds the loop's lock on entry, gives it up to sleep,
 * and finds the state changed by nobody but settled(): all other writes are
 * refused by the core while a reset is pending. `settles` is bumped under the
 * lock, so a wake-up between unlock and sleep is not lost.
 */
#include "virtio/mmio.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/bug.h"
#include "base/err.h"
#include "base/util.h"
#include "loop/loop.h"
#include "snap/snap.h"

enum {
	REG_MAGIC = 0x000,
	REG_VERSION = 0x004,
	REG_DEVICE_ID = 0x008,
	REG_VENDOR_ID = 0x00c,
	REG_DEVICE_FEATURES = 0x010,
	REG_DEVICE_FEATURES_SEL = 0x014,
	REG_DRIVER_FEATURES = 0x020,
	REG_DRIVER_FEATURES_SEL = 0x024,
	REG_QUEUE_SEL = 0x030,
	REG_QUEUE_NUM_MAX = 0x034,
	REG_QUEUE_NUM = 0x038,
	REG_QUEUE_READY = 0x044,
	REG_QUEUE_NOTIFY = 0x050,
	REG_INTERRUPT_STATUS = 0x060,
	REG_INTERRUPT_ACK = 0x064,
	REG_STATUS = 0x070,
	REG_QUEUE_DESC_LOW = 0x080,
	REG_QUEUE_DESC_HIGH = 0x084,
	REG_QUEUE_DRIVER_LOW = 0x090,
	REG_QUEUE_DRIVER_HIGH = 0x094,
	REG_QUEUE_DEVICE_LOW = 0x0a0,
	REG_QUEUE_DEVICE_HIGH = 0x0a4,
	REG_SHM_SEL = 0x0ac,
	REG_SHM_LEN_LOW = 0x0b0,
	REG_SHM_LEN_HIGH = 0x0b4,
	REG_SHM_BASE_LOW = 0x0b8,
	REG_SHM_BASE_HIGH = 0x0bc,
	REG_QUEUE_RESET = 0x0c0,
	REG_CONFIG_GENERATION = 0x0fc,
	REG_CONFIG = 0x100,
};

#define MAGIC	  0x74726976u /* "virt" */
#define VENDOR_ID 0x43524141u /* "AARC" */

enum { ISR_QUEUE = 1, ISR_CONFIG = 2 };

/* The lock-free range: the two interrupt registers. */
#define ISR_BASE REG_INTERRUPT_STATUS
#define ISR_END	 (REG_INTERRUPT_ACK + 4)

struct virtio_mmio {
	struct virtio_irq irq;
	struct virtio_dev *dev;
	uint32_t features_sel, driver_features_sel, queue_sel;
	uint32_t isr; /* atomic */
	int irq_fd;

	struct virtio_mmio_host host; /* bus NULL: not attached */
	uint64_t base;
	unsigned gsi;

	pthread_mutex_t settle_lock;
	pthread_cond_t settle_cond;
	unsigned settles;
};

/* ---- interrupts ---- */

static void signal_irq(struct virtio_mmio *t)
{
	uint64_t one = 1;

	if (t->host.pulse)
		t->host.pulse(t->host.ctx, t->gsi);
	else if (write(t->irq_fd, &one, sizeof(one)) < 0)
		bug_on(errno != EAGAIN);
}

/*
 * The bit is set after what it announces was written to memory, and before the
 * edge that makes the driver look; the driver acknowledges before it looks at
 * the rings (vm_interrupt), so it misses nothing.
 */
static void raise_irq(struct virtio_mmio *t, uint32_t bit)
{
	__atomic_fetch_or(&t->isr, bit, __ATOMIC_SEQ_CST);
	signal_irq(t);
}

static void raise_queue(struct virtio_irq *irq, unsigned index)
{
	(void)index;
	raise_irq(container_of(irq, struct virtio_mmio, irq), ISR_QUEUE);
}

static void raise_config(struct virtio_irq *irq)
{
	raise_irq(container_of(irq, struct virtio_mmio, irq), ISR_CONFIG);
}

int virtio_mmio_irq_fd(struct virtio_mmio *t)
{
	return t->irq_fd;
}

/* ---- registers ---- */

static uint32_t queue_read(struct virtio_mmio *t, uint64_t off)
{
	struct virtio_queue *vq = virtio_queue(t->dev, t->queue_sel);

	if (!vq)
		return 0;
	switch (off) {
	case REG_QUEUE_NUM_MAX:
		return vq->size_max;
	case REG_QUEUE_READY:
		return vq_enabled(&vq->vq);
	case REG_QUEUE_RESET:
		return vq->resetting;
	}
	return 0;
}

static uint32_t reg_read(struct virtio_mmio *t, uint64_t off)
{
	struct virtio_dev *d = t->dev;

	switch (off) {
	case REG_MAGIC:
		return MAGIC;
	case REG_VERSION:
		return 2;
	case REG_DEVICE_ID:
		return d->type->id;
	case REG_VENDOR_ID:
		return VENDOR_ID;
	case REG_DEVICE_FEATURES:
		return virtio_get_features(d, t->features_sel);
	case REG_QUEUE_NUM_MAX:
	case REG_QUEUE_READY:
	case REG_QUEUE_RESET:
		return queue_read(t, off);
	case REG_INTERRUPT_STATUS:
		return __atomic_load_n(&t->isr, __ATOMIC_SEQ_CST);
	case REG_STATUS:
		return virtio_get_status(d);
	case REG_SHM_LEN_LOW:
	case REG_SHM_LEN_HIGH:
	case REG_SHM_BASE_LOW:
	case REG_SHM_BASE_HIGH:
		return ~0u; /* no region of any number */
	case REG_CONFIG_GENERATION:
		return d->config_generation;
	}
	return 0;
}

static uint64_t with_low(uint64_t v, uint32_t low)
{
	return (v & 0xffffffff00000000ull) | low;
}

static uint64_t with_high(uint64_t v, uint32_t high)
{
	return (v & 0xffffffffull) | (uint64_t)high << 32;
}

static void queue_write(struct virtio_mmio *t, uint64_t off, uint32_t val)
{
	struct virtio_queue *vq = virtio_queue(t->dev, t->queue_sel);
	struct vq_config *c;

	if (!vq)
		return;
	if (off == REG_QUEUE_READY && val == 1) {
		virtio_queue_enable(t->dev, t->queue_sel);
		return;
	}
	if (off == REG_QUEUE_READY && val == 0) {
		virtio_queue_stop(t->dev, t->queue_sel);
		return;
	}
	if (off == REG_QUEUE_RESET) {
		if (val == 1 && virtio_has(t->dev, VIRTIO_F_RING_RESET))
			virtio_queue_stop(t->dev, t->queue_sel);
		return;
	}
	if (vq_enabled(&vq->vq)) /* latched: changes come to nothing */
		return;
	c = &vq->next;
	switch (off) {
	case REG_QUEUE_NUM:
		c->size = val > UINT16_MAX ? UINT16_MAX : (uint16_t)val;
		break;
	case REG_QUEUE_DESC_LOW:
		c->desc = gpa(with_low(c->desc.v, val));
		break;
	case REG_QUEUE_DESC_HIGH:
		c->desc = gpa(with_high(c->desc.v, val));
		break;
	case REG_QUEUE_DRIVER_LOW:
		c->avail = gpa(with_low(c->avail.v, val));
		break;
	case REG_QUEUE_DRIVER_HIGH:
		c->avail = gpa(with_high(c->avail.v, val));
		break;
	case REG_QUEUE_DEVICE_LOW:
		c->used = gpa(with_low(c->used.v, val));
		break;
	case REG_QUEUE_DEVICE_HIGH:
		c->used = gpa(with_high(c->used.v, val));
		break;
	}
}

static void reg_write(struct virtio_mmio *t, uint64_t off, uint32_t val)
{
	switch (off) {
	case REG_DEVICE_FEATURES_SEL:
		t->features_sel = val;
		break;
	case REG_DRIVER_FEATURES_SEL:
		t->driver_features_sel = val;
		break;
	case REG_DRIVER_FEATURES:
		virtio_set_features(t->dev, t->driver_features_sel, val);
		break;
	case REG_QUEUE_SEL:
		t->queue_sel = val;
		break;
	case REG_QUEUE_NUM:
	case REG_QUEUE_READY:
	case REG_QUEUE_DESC_LOW:
	case REG_QUEUE_DESC_HIGH:
	case REG_QUEUE_DRIVER_LOW:
	case REG_QUEUE_DRIVER_HIGH:
	case REG_QUEUE_DEVICE_LOW:
	case REG_QUEUE_DEVICE_HIGH:
	case REG_QUEUE_RESET:
		queue_write(t, off, val);
		break;
	case REG_QUEUE_NOTIFY:
		virtio_queue_kicked(t->dev, val);
		break;
	case REG_INTERRUPT_ACK:
		__atomic_fetch_and(&t->isr, ~val, __ATOMIC_SEQ_CST);
		break;
	case REG_STATUS:
		virtio_set_status(t->dev, (uint8_t)val);
		break;
	}
}

/* Registers are 32 bits wide and accessed so; the config space as it pleases. */
uint64_t virtio_mmio_read(struct virtio_mmio *t, uint64_t off, unsigned len)
{
	uint64_t val = 0;

	if (off >= REG_CONFIG) {
		uint8_t buf[8];

		virtio_config_read(t->dev, (unsigned)(off - REG_CONFIG), len,
				   buf);
		memcpy(&val, buf, len);
		return le64toh(val);
	}
	return len == 4 && off % 4 == 0 ? reg_read(t, off) : 0;
}

void virtio_mmio_write(struct virtio_mmio *t, uint64_t off, unsigned len,
		       uint64_t val)
{
	if (off >= REG_CONFIG) {
		uint8_t buf[8];

		val = htole64(val);
		memcpy(buf, &val, sizeof(buf));
		virtio_config_write(t->dev, (unsigned)(off - REG_CONFIG), len,
				    buf);
	} else if (len == 4 && off % 4 == 0) {
		reg_write(t, off, (uint32_t)val);
	}
}

/* ---- resets that take time ---- */

static void on_settled(void *ctx)
{
	struct virtio_mmio *t = ctx;

	if (!t->dev->status) {
		/* 4.2.2.1: a reset clears InterruptStatus. */
		__atomic_store_n(&t->isr, 0, __ATOMIC_SEQ_CST);
		t->features_sel = t->driver_features_sel = t->queue_sel = 0;
	}
	pthread_mutex_lock(&t->settle_lock);
	t->settles++;
	pthread_cond_broadcast(&t->settle_cond);
	pthread_mutex_unlock(&t->settle_lock);
}

static void wait_settled(struct virtio_mmio *t)
{
	while (virtio_settling(t->dev)) {
		unsigned seen = t->settles;

		loop_unlock(t->dev->loop);
		pthread_mutex_lock(&t->settle_lock);
		while (t->settles == seen)
			pthread_cond_wait(&t->settle_cond, &t->settle_lock);
		pthread_mutex_unlock(&t->settle_lock);
		loop_lock(t->dev->loop);
	}
}

/* ---- on the bus ---- */

static uint64_t low_read(void *dev, uint64_t off, unsigned len)
{
	return virtio_mmio_read(dev, off, len);
}

static void low_write(void *dev, uint64_t off, unsigned len, uint64_t val)
{
	virtio_mmio_write(dev, off, len, val);
	if (off == REG_QUEUE_READY)
		wait_settled(dev);
}

static uint64_t isr_read(void *dev, uint64_t off, unsigned len)
{
	return virtio_mmio_read(dev, ISR_BASE + off, len);
}

static void isr_write(void *dev, uint64_t off, unsigned len, uint64_t val)
{
	virtio_mmio_write(dev, ISR_BASE + off, len, val);
}

static uint64_t high_read(void *dev, uint64_t off, unsigned len)
{
	return virtio_mmio_read(dev, ISR_END + off, len);
}

static void high_write(void *dev, uint64_t off, unsigned len, uint64_t val)
{
	virtio_mmio_write(dev, ISR_END + off, len, val);
	if (ISR_END + off == REG_STATUS || ISR_END + off == REG_QUEUE_RESET)
		wait_settled(dev);
}

static const struct bus_ops low_ops = { .read = low_read, .write = low_write };
static const struct bus_ops isr_ops = { .read = isr_read, .write = isr_write };
static const struct bus_ops high_ops = { .read = high_read,
					 .write = high_write };

static int add_ranges(struct virtio_mmio *t, struct err *e)
{
	const struct {
		uint64_t start, end;
		const struct bus_ops *ops;
		struct loop *owner;
	} ranges[] = {
		{ 0, ISR_BASE, &low_ops, t->dev->loop },
		{ ISR_BASE, ISR_END, &isr_ops, NULL },
		{ ISR_END, VIRTIO_MMIO_SIZE, &high_ops, t->dev->loop },
	};

	for (unsigned i = 0; i < array_size(ranges); i++) {
		int rc = bus_add(t->host.bus, BUS_MMIO,
				 t->base + ranges[i].start,
				 ranges[i].end - ranges[i].start, ranges[i].ops,
				 t, ranges[i].owner, e);

		if (!rc)
			continue;
		while (i--)
			bus_remove(t->host.bus, BUS_MMIO,
				   t->base + ranges[i].start);
		return rc;
	}
	return 0;
}

static void remove_ranges(struct virtio_mmio *t)
{
	bus_remove(t->host.bus, BUS_MMIO, t->base);
	bus_remove(t->host.bus, BUS_MMIO, t->base + ISR_BASE);
	bus_remove(t->host.bus, BUS_MMIO, t->base + ISR_END);
}

static struct bus_ioeventfd doorbell(struct virtio_mmio *t, unsigned q)
{
	return (struct bus_ioeventfd){
		.space = BUS_MMIO,
		.addr = t->base + REG_QUEUE_NOTIFY,
		.len = 4,
		.match = q,
		.fd = t->dev->queues[q].kick_fd,
	};
}

/* Without a doorbell kicks are register writes. */
static bool has_doorbell(struct virtio_mmio *t, unsigned q)
{
	struct virtio_queue *vq = virtio_queue(t->dev, q);

	return t->host.ioeventfd && vq && !vq->immediate;
}

/* The first @n of them. */
static void remove_doorbells(struct virtio_mmio *t, unsigned n)
{
	for (unsigned q = 0; q < n; q++) {
		struct bus_ioeventfd io = doorbell(t, q);

		if (has_doorbell(t, q))
			t->host.ioeventfd(t->host.ctx, &io, false);
	}
}

static int add_doorbells(struct virtio_mmio *t, struct err *e)
{
	for (unsigned q = 0; q < t->dev->nqueues; q++) {
		struct bus_ioeventfd io = doorbell(t, q);
		int rc;

		if (!has_doorbell(t, q))
			continue;
		rc = t->host.ioeventfd(t->host.ctx, &io, true);
		if (!rc)
			continue;
		remove_doorbells(t, q);
		return err_set(e, rc, "%s: doorbell of queue %u: %s",
			       t->dev->name, q, strerror(-rc));
	}
	return 0;
}

int virtio_mmio_attach(struct virtio_mmio *t,
		       const struct virtio_mmio_host *host, uint64_t base,
		       unsigned gsi, struct err *e)
{
	int rc;

	bug_on(t->host.bus);
	t->host = *host;
	t->base = base;
	t->gsi = gsi;
	rc = add_ranges(t, e);
	if (rc)
		goto out;
	rc = add_doorbells(t, e);
	if (rc)
		goto ranges;
	if (!host->pulse) {
		rc = host->irqfd(host->ctx, gsi, t->irq_fd, true);
		if (rc) {
			err_set(e, rc, "%s: interrupt %u: %s", t->dev->name,
				gsi, strerror(-rc));
			goto doorbells;
		}
	}
	return 0;
doorbells:
	remove_doorbells(t, t->dev->nqueues);
ranges:
	remove_ranges(t);
out:
	t->host = (struct virtio_mmio_host){ 0 };
	t->base = 0;
	return rc;
}

void virtio_mmio_detach(struct virtio_mmio *t)
{
	if (!t->host.bus)
		return;
	if (!t->host.pulse)
		t->host.irqfd(t->host.ctx, t->gsi, t->irq_fd, false);
	remove_doorbells(t, t->dev->nqueues);
	remove_ranges(t);
	t->host = (struct virtio_mmio_host){ 0 };
	t->base = 0;
}

/* ---- life ---- */

int virtio_mmio_create(struct virtio_dev *d, struct virtio_mmio **out)
{
	struct virtio_mmio *t = calloc(1, sizeof(*t));
	int rc;

	if (!t)
		return -ENOMEM;
	t->irq_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (t->irq_fd < 0) {
		rc = -errno;
		free(t);
		return rc;
	}
	pthread_mutex_init(&t->settle_lock, NULL);
	pthread_cond_init(&t->settle_cond, NULL);
	t->irq.queue = raise_queue;
	t->irq.config = raise_config;
	t->dev = d;
	d->irq = &t->irq;
	virtio_dev_on_settled(d, on_settled, t);
	*out = t;
	return 0;
}

void virtio_mmio_destroy(struct virtio_mmio *t)
{
	if (!t)
		return;
	bug_on(t->host.bus);
	t->dev->irq = NULL;
	virtio_dev_on_settled(t->dev, NULL, NULL);
	pthread_mutex_destroy(&t->settle_lock);
	pthread_cond_destroy(&t->settle_cond);
	close(t->irq_fd);
	free(t);
}

uint64_t virtio_mmio_base(const struct virtio_mmio *t)
{
	return t->base;
}

/* ---- snapshots ---- */

#define TAG_MMIO     SNAP_TAG('V', 'M', 'M', 'I')
#define MMIO_VERSION 1

void virtio_mmio_save(struct virtio_mmio *t, struct snap_writer *w,
		      uint32_t instance)
{
	snap_record(w, TAG_MMIO, instance, MMIO_VERSION, SNAP_CRITICAL);
	snap_u32(w, t->features_sel);
	snap_u32(w, t->driver_features_sel);
	snap_u32(w, t->queue_sel);
	snap_u32(w, __atomic_load_n(&t->isr, __ATOMIC_SEQ_CST));
}

int virtio_mmio_restore(struct virtio_mmio *t, const struct snap_reader *r,
			uint32_t instance, struct err *e)
{
	struct snap_body b;
	int rc = virtio_record_find(t->dev, r, TAG_MMIO, instance, MMIO_VERSION,
				    &b, e);

	if (rc < 0)
		return rc;
	t->features_sel = snap_get_u32(&b);
	t->driver_features_sel = snap_get_u32(&b);
	t->queue_sel = snap_get_u32(&b);
	__atomic_store_n(&t->isr, snap_get_u32(&b) & (ISR_QUEUE | ISR_CONFIG),
			 __ATOMIC_SEQ_CST);
	return virtio_record_read(t->dev, &b, e);
}

void virtio_mmio_resume(struct virtio_mmio *t)
{
	if (__atomic_load_n(&t->isr, __ATOMIC_SEQ_CST))
		signal_irq(t);
}
