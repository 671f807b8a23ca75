/*
 * Theory of operation
 *
 * The driver's view is the status register; ours is `run`:
 *
 *	IDLE --DRIVER_OK--> ACTIVE --quiesce--> QUIESCING --quiet--> QUIET
 *	  ^                   ^                     |                  |
 *	  +---- reset --------|---------------------+                  |
 *	                      +-------------- resume ------------------+
 *
 * Both the driver (Status = 0) and the VM (to save, to end) may ask for quiet,
 * even at the same time: `reset_pending` and `quiet_fn` say who waits, and
 * virtio_quiet() serves both, the driver first.
 *
 * A kick is an eventfd that is watched only while the queue may be served:
 * kicks before DRIVER_OK, or while quiet, stay in the eventfd. Whenever serving
 * starts, we kick the queues ourselves, since the driver's kick may have been
 * spent before. So `notify` runs as a callback of the loop, on its thread,
 * whoever wrote the register that caused it; but for `immediate` queues.
 *
 * The watch is edge-triggered and the eventfd never read: every write is an
 * edge, whatever the count. The edge is spent before notify looks at the ring
 * (I1), so a kick that comes after the look is another.
 */
#include "virtio/virtio.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/bug.h"
#include "base/err.h"
#include "base/opt.h"
#include "base/util.h"

#define CORE_FEATURES                                                       \
	(VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX | VIRTIO_F_VERSION_1 | \
	 VIRTIO_F_RING_RESET)

/* ---- making and ending ---- */

int virtio_dev_init(struct virtio_dev *d, const struct virtio_dev_type *type,
		    const struct virtio_env *env, uint64_t features,
		    const uint16_t *size_max, unsigned nqueues, void *config,
		    unsigned config_size)
{
	bug_on(nqueues > VIRTIO_MAX_QUEUES);
	*d = (struct virtio_dev){
		.type = type,
		.mem = env->mem,
		.loop = env->loop,
		.log = env->log,
		.features = features | CORE_FEATURES,
		.config = config,
		.config_size = config_size,
	};
	snprintf(d->name, sizeof(d->name), "%s",
		 env->name ? env->name : type->name);
	d->queues = calloc(nqueues ? nqueues : 1, sizeof(*d->queues));
	if (!d->queues)
		return -ENOMEM;
	for (; d->nqueues < nqueues; d->nqueues++) {
		struct virtio_queue *vq = &d->queues[d->nqueues];
		int rc;

		vq->dev = d;
		vq->size_max = size_max[d->nqueues];
		vq_init(&vq->vq);
		vq->kick_fd = -1;
		if (!vq->size_max)
			continue;
		vq->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (vq->kick_fd >= 0)
			continue;
		rc = -errno;
		virtio_dev_fini(d);
		return rc;
	}
	return 0;
}

void virtio_dev_fini(struct virtio_dev *d)
{
	for (unsigned i = 0; i < d->nqueues; i++) {
		watch_close(&d->queues[i].kick);
		if (d->queues[i].kick_fd >= 0)
			close(d->queues[i].kick_fd);
	}
	free(d->queues);
	d->queues = NULL;
	d->nqueues = 0;
}

int virtio_dev_create(const struct virtio_dev_type *type,
		      const struct virtio_env *env, const char *text,
		      struct virtio_dev **out, struct err *e)
{
	void *options = calloc(1, type->options_size ? type->options_size : 1);
	int rc = 0;

	*out = NULL;
	if (!options)
		return err_set(e, -ENOMEM, "out of memory");
	if (type->defaults)
		type->defaults(options);
	if (type->options)
		rc = opt_parse(type->options, options, text, e);
	else if (text && *text)
		rc = err_set(e, -EINVAL, "%s takes no options", type->name);
	if (!rc)
		rc = type->create(env, options, out, e);
	if (type->options)
		opt_free(type->options, options);
	free(options);
	return rc;
}

void virtio_dev_destroy(struct virtio_dev *d)
{
	struct loop *l;

	if (!d)
		return;
	bug_on(d->run != VIRTIO_IDLE && d->run != VIRTIO_QUIET);
	l = d->loop;
	loop_lock(l);
	d->type->destroy(d);
	loop_unlock(l);
}

/* ---- kicks ---- */

static void kick(struct virtio_queue *vq)
{
	uint64_t one = 1;

	/* EAGAIN: the counter is full, so it is readable anyway. */
	if (write(vq->kick_fd, &one, sizeof(one)) < 0)
		bug_on(errno != EAGAIN);
}

static void kicked(struct loop_watch *w, uint32_t events)
{
	struct virtio_queue *vq = container_of(w, struct virtio_queue, kick);
	struct virtio_dev *d = vq->dev;

	(void)events;
	if (d->type->notify)
		d->type->notify(d, (unsigned)(vq - d->queues));
}

/* May queue @vq be served now? */
static bool servable(const struct virtio_queue *vq)
{
	const struct virtio_dev *d = vq->dev;

	return d->run == VIRTIO_ACTIVE && vq_enabled(&vq->vq) &&
	       !vq->resetting && !(d->status & VIRTIO_S_NEEDS_RESET);
}

static void serve(struct virtio_queue *vq)
{
	int rc;

	if (!servable(vq) || vq->kick.loop)
		return;
	rc = watch_open(&vq->kick, vq->dev->loop, vq->kick_fd,
			EPOLLIN | EPOLLET, kicked);
	if (rc)
		virtio_fail(vq->dev, "watching queue %u: %s",
			    (unsigned)(vq - vq->dev->queues), strerror(-rc));
	else
		kick(vq);
}

static void serve_all(struct virtio_dev *d)
{
	for (unsigned i = 0; i < d->nqueues; i++)
		serve(&d->queues[i]);
}

static void stop_serving(struct virtio_dev *d)
{
	for (unsigned i = 0; i < d->nqueues; i++)
		watch_close(&d->queues[i].kick);
}

void virtio_queue_kick(struct virtio_dev *d, unsigned q)
{
	if (q < d->nqueues && d->queues[q].kick_fd >= 0)
		kick(&d->queues[q]);
}

void virtio_queue_kicked(struct virtio_dev *d, unsigned q)
{
	if (q < d->nqueues && d->queues[q].immediate &&
	    servable(&d->queues[q]) && d->type->notify)
		d->type->notify(d, q);
	else
		virtio_queue_kick(d, q);
}

/* ---- interrupts ---- */

void virtio_interrupt(struct virtio_dev *d, unsigned q)
{
	if (d->irq)
		d->irq->queue(d->irq, q);
}

void virtio_publish(struct virtio_dev *d, unsigned q)
{
	if (vq_publish(virtio_vq(d, q)))
		virtio_interrupt(d, q);
}

static void config_interrupt(struct virtio_dev *d)
{
	if (!(d->status & VIRTIO_S_DRIVER_OK))
		d->config_late = d->status & VIRTIO_S_DRIVER;
	else if (d->irq)
		d->irq->config(d->irq);
}

void virtio_config_changed(struct virtio_dev *d)
{
	d->config_generation++;
	config_interrupt(d);
}

void virtio_fail(struct virtio_dev *d, const char *fmt, ...)
{
	char text[160];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	d->misbehaviours++;
	log_limited(d->log, &d->complaints, LOG_WARN,
		    "%s: %s; waiting for the driver to reset the device",
		    d->name, text);
	if (d->status & VIRTIO_S_NEEDS_RESET)
		return;
	d->status |= VIRTIO_S_NEEDS_RESET;
	stop_serving(d);
	config_interrupt(d);
}

/* ---- quiet ---- */

/* A stop of queue @vq is complete. */
static void queue_stopped(struct virtio_queue *vq)
{
	vq_disable(&vq->vq);
	vq->next = (struct vq_config){ 0 };
	vq->resetting = false;
	vq->was_stopped = true;
}

static void settled(struct virtio_dev *d)
{
	if (d->settled_fn)
		d->settled_fn(d->settled_ctx);
}

static void reset_now(struct virtio_dev *d)
{
	if (d->activated && d->type->reset)
		d->type->reset(d);
	d->activated = false;
	for (unsigned i = 0; i < d->nqueues; i++) {
		queue_stopped(&d->queues[i]);
		d->queues[i].was_stopped = false;
	}
	d->driver_features = 0;
	d->features_beyond = false;
	d->reset_pending = false;
	d->config_late = false;
	d->status = 0;
	settled(d);
}

void virtio_quiet(struct virtio_dev *d)
{
	void (*fn)(void *ctx) = d->quiet_fn;
	bool stopped = false;

	bug_on(d->run != VIRTIO_QUIESCING);
	for (unsigned i = 0; i < d->nqueues; i++) {
		bug_on(d->queues[i].vq.in_flight);
		if (!d->queues[i].resetting)
			continue;
		queue_stopped(&d->queues[i]);
		stopped = true;
	}
	d->run = fn ? VIRTIO_QUIET : VIRTIO_IDLE;
	if (d->reset_pending)
		reset_now(d);
	else if (stopped)
		settled(d);
	d->quiet_fn = NULL;
	if (fn)
		fn(d->quiet_ctx);
}

static void start_quiesce(struct virtio_dev *d)
{
	d->run = VIRTIO_QUIESCING;
	stop_serving(d);
	if (d->activated && d->type->quiesce)
		d->type->quiesce(d);
	else
		virtio_quiet(d);
}

void virtio_dev_quiesce(struct virtio_dev *d, void (*fn)(void *ctx), void *ctx)
{
	struct loop *l = d->loop; /* @fn may destroy @d */

	loop_lock(l);
	bug_on(d->quiet_fn || d->run == VIRTIO_QUIET);
	d->quiet_fn = fn;
	d->quiet_ctx = ctx;
	if (d->run != VIRTIO_QUIESCING)
		start_quiesce(d);
	loop_unlock(l);
}

static void activate(struct virtio_dev *d)
{
	int rc = 0;

	d->run = VIRTIO_ACTIVE;
	d->activated = true;
	if (d->type->activate)
		rc = d->type->activate(d);
	if (rc < 0)
		virtio_fail(d, "cannot start: %s", strerror(-rc));
	if (d->config_late)
		config_interrupt(d);
	d->config_late = false;
	serve_all(d);
}

void virtio_dev_resume(struct virtio_dev *d)
{
	loop_lock(d->loop);
	bug_on(d->run != VIRTIO_QUIET);
	if (!(d->status & VIRTIO_S_DRIVER_OK)) {
		d->run = VIRTIO_IDLE;
	} else if (!d->activated) {
		activate(d);
	} else {
		d->run = VIRTIO_ACTIVE;
		if (d->type->resume)
			d->type->resume(d);
		serve_all(d);
	}
	loop_unlock(d->loop);
}

/* ---- features and status ---- */

uint32_t virtio_get_features(const struct virtio_dev *d, unsigned sel)
{
	return sel < 2 ? (uint32_t)(d->features >> 32 * sel) : 0;
}

void virtio_set_features(struct virtio_dev *d, unsigned sel, uint32_t val)
{
	uint64_t mask = 0xffffffffull << 32 * (sel & 1);

	if (d->status & VIRTIO_S_FEATURES_OK || d->reset_pending)
		return;
	if (sel < 2)
		d->driver_features = (d->driver_features & ~mask) |
				     (uint64_t)val << 32 * sel;
	else if (val) /* bits nobody offers: FEATURES_OK must fail */
		d->features_beyond = true;
}

static bool features_acceptable(struct virtio_dev *d)
{
	uint64_t extra = d->driver_features & ~d->features;

	if (extra || d->features_beyond)
		log_limited(d->log, &d->complaints, LOG_WARN,
			    "%s: the driver wants features %#llx, which are "
			    "not offered",
			    d->name, (unsigned long long)extra);
	else if (!virtio_has(d, VIRTIO_F_VERSION_1))
		log_limited(d->log, &d->complaints, LOG_WARN,
			    "%s: the driver knows no virtio 1.0", d->name);
	else
		return true;
	return false;
}

uint8_t virtio_get_status(const struct virtio_dev *d)
{
	return d->status;
}

bool virtio_settling(const struct virtio_dev *d)
{
	if (d->reset_pending)
		return true;
	for (unsigned i = 0; i < d->nqueues; i++)
		if (d->queues[i].resetting)
			return true;
	return false;
}

void virtio_dev_on_settled(struct virtio_dev *d, void (*fn)(void *ctx),
			   void *ctx)
{
	d->settled_fn = fn;
	d->settled_ctx = ctx;
}

static void start_reset(struct virtio_dev *d)
{
	if (d->reset_pending)
		return;
	d->reset_pending = true;
	if (d->run == VIRTIO_ACTIVE)
		start_quiesce(d);
	else if (d->run != VIRTIO_QUIESCING)
		reset_now(d);
}

/*
 * Bits are only ever added (the driver clears them by a reset). FEATURES_OK
 * stays off when we cannot agree, and DRIVER_OK means nothing without it.
 */
void virtio_set_status(struct virtio_dev *d, uint8_t status)
{
	uint8_t added = (uint8_t)(status & ~d->status & ~VIRTIO_S_NEEDS_RESET);

	if (!status) {
		start_reset(d);
		return;
	}
	if (d->reset_pending)
		return;
	if (added & VIRTIO_S_FEATURES_OK) {
		if (!features_acceptable(d))
			added &= (uint8_t) ~(VIRTIO_S_FEATURES_OK |
					     VIRTIO_S_DRIVER_OK);
	}
	if (!((d->status | added) & VIRTIO_S_FEATURES_OK))
		added &= (uint8_t)~VIRTIO_S_DRIVER_OK;
	d->status |= added;
	if (added & VIRTIO_S_DRIVER_OK && d->run == VIRTIO_IDLE)
		activate(d);
}

/* ---- config space ---- */

void virtio_config_read(struct virtio_dev *d, unsigned off, unsigned len,
			uint8_t *val)
{
	memset(val, 0xff, len);
	if (range_fits(off, len, d->config_size))
		memcpy(val, (const uint8_t *)d->config + off, len);
}

void virtio_config_write(struct virtio_dev *d, unsigned off, unsigned len,
			 const uint8_t *val)
{
	if (d->type->config_write && range_fits(off, len, d->config_size))
		d->type->config_write(d, off, len, val);
}

/* ---- queues ---- */

struct virtio_queue *virtio_queue(struct virtio_dev *d, unsigned q)
{
	return q < d->nqueues && d->queues[q].size_max ? &d->queues[q] : NULL;
}

void virtio_queue_enable(struct virtio_dev *d, unsigned q)
{
	struct virtio_queue *vq = virtio_queue(d, q);
	struct vq_config c;
	const char *why = "the driver chose a size that is not offered";
	int rc = -EINVAL;

	if (!vq || vq_enabled(&vq->vq) || d->reset_pending ||
	    !(d->status & VIRTIO_S_FEATURES_OK))
		return;
	if (d->status & VIRTIO_S_DRIVER_OK && !vq->was_stopped)
		return;
	c = vq->next;
	c.event_idx = virtio_has(d, VIRTIO_F_EVENT_IDX);
	c.indirect = virtio_has(d, VIRTIO_F_INDIRECT_DESC);
	c.avail_start = c.used_start = 0;
	if (c.size && c.size <= vq->size_max)
		rc = vq_enable(&vq->vq, d->mem, &c, &why);
	if (rc < 0) {
		virtio_fail(d, "queue %u cannot be enabled: %s", q, why);
		return;
	}
	vq->was_stopped = false;
	serve(vq);
}

void virtio_queue_quiet(struct virtio_dev *d, unsigned q)
{
	struct virtio_queue *vq = &d->queues[q];

	/* The whole device may have become quiet or reset meanwhile. */
	if (!vq->resetting)
		return;
	queue_stopped(vq);
	settled(d);
}

void virtio_queue_stop(struct virtio_dev *d, unsigned q)
{
	struct virtio_queue *vq = virtio_queue(d, q);

	if (!vq || vq->resetting || d->reset_pending || !vq_enabled(&vq->vq))
		return;
	watch_close(&vq->kick);
	vq->resetting = true;
	if (d->run == VIRTIO_QUIESCING)
		return; /* virtio_quiet() completes it */
	if (d->run == VIRTIO_ACTIVE && d->type->queue_quiesce)
		d->type->queue_quiesce(d, q);
	else
		virtio_queue_quiet(d, q);
}
