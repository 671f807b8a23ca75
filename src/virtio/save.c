/*
 * Saving and restoring what the core knows of a device: one record for the
 * negotiated state and the queues, then one that the device fills.
 *
 * The device is QUIET: no chain is in flight, so a queue is its addresses and
 * two positions. What is restored comes from a file and is checked like what a
 * guest writes; a device that cannot have been offered these features or queues
 * refuses.
 */
#include <errno.h>
#include <string.h>

#include "base/bug.h"
#include "base/err.h"
#include "snap/snap.h"
#include "virtio/virtio.h"

#define TAG_CORE     SNAP_TAG('V', 'D', 'E', 'V')
#define TAG_STATE    SNAP_TAG('V', 'S', 'T', 'A')
#define CORE_VERSION 1

enum { QUEUE_ENABLED = 1, QUEUE_WAS_STOPPED = 2, QUEUE_BROKEN = 4 };

static void save_queue(const struct virtio_queue *vq, struct snap_writer *w)
{
	bool enabled = vq_enabled(&vq->vq);
	const struct vq_config *c = enabled ? &vq->vq.config : &vq->next;

	snap_u8(w, (uint8_t)((enabled ? QUEUE_ENABLED : 0) |
			     (vq->was_stopped ? QUEUE_WAS_STOPPED : 0) |
			     (vq->vq.broken ? QUEUE_BROKEN : 0)));
	snap_u16(w, c->size);
	snap_u64(w, c->desc.v);
	snap_u64(w, c->avail.v);
	snap_u64(w, c->used.v);
	snap_u16(w, vq->vq.next_avail);
	snap_u16(w, vq->vq.next_used);
}

void virtio_dev_save(struct virtio_dev *d, struct snap_writer *w,
		     uint32_t instance)
{
	bug_on(d->run != VIRTIO_QUIET);
	snap_record(w, TAG_CORE, instance, CORE_VERSION, SNAP_CRITICAL);
	snap_u32(w, d->type->id);
	snap_u8(w, d->status);
	snap_u8(w, d->features_beyond);
	snap_u8(w, d->config_late);
	snap_u8(w, d->activated);
	snap_u64(w, d->features);
	snap_u64(w, d->driver_features);
	snap_u32(w, d->config_generation);
	snap_u16(w, (uint16_t)d->nqueues);
	for (unsigned i = 0; i < d->nqueues; i++)
		save_queue(&d->queues[i], w);
	snap_record(w, TAG_STATE, instance, d->type->state_version,
		    SNAP_CRITICAL);
	if (d->type->save)
		d->type->save(d, w);
}

int virtio_record_find(const struct virtio_dev *d, const struct snap_reader *r,
		       uint32_t tag, uint32_t instance, uint32_t version,
		       struct snap_body *b, struct err *e)
{
	int rc = snap_find(r, tag, instance, b);

	if (rc < 0)
		return err_set(e, rc, "%s: the snapshot lacks a record of it",
			       d->name);
	if (b->version > version)
		return err_set(e, -ENOTSUP,
			       "%s: the snapshot was made by a newer version",
			       d->name);
	return 0;
}

int virtio_record_read(const struct virtio_dev *d, const struct snap_body *b,
		       struct err *e)
{
	return b->short_read ? err_set(e, -EINVAL,
				       "%s: the snapshot's record is cut short",
				       d->name)
			     : 0;
}

static int restore_queue(struct virtio_dev *d, unsigned q, struct snap_body *b,
			 struct err *e)
{
	struct virtio_queue *vq = &d->queues[q];
	uint8_t flags = snap_get_u8(b);
	const char *why = "its size is not offered";
	struct vq_config c = { 0 };
	int rc = -EINVAL;

	c.size = snap_get_u16(b);
	c.desc = gpa(snap_get_u64(b));
	c.avail = gpa(snap_get_u64(b));
	c.used = gpa(snap_get_u64(b));
	c.avail_start = snap_get_u16(b);
	c.used_start = snap_get_u16(b);
	vq->was_stopped = flags & QUEUE_WAS_STOPPED;
	if (!(flags & QUEUE_ENABLED)) {
		c.avail_start = c.used_start = 0;
		vq->next = c;
		return 0;
	}
	c.event_idx = virtio_has(d, VIRTIO_F_EVENT_IDX);
	c.indirect = virtio_has(d, VIRTIO_F_INDIRECT_DESC);
	if (c.size && c.size <= vq->size_max)
		rc = vq_enable(&vq->vq, d->mem, &c, &why);
	if (rc < 0)
		return err_set(e, rc, "%s: queue %u of the snapshot: %s",
			       d->name, q, why);
	vq->next = c;
	if (flags & QUEUE_BROKEN)
		vq->vq.broken = "it was broken when saved";
	return 0;
}

static int restore_core(struct virtio_dev *d, struct snap_body *b,
			struct err *e)
{
	uint32_t id = snap_get_u32(b);
	uint64_t features;
	unsigned nqueues;

	if (id != d->type->id)
		return err_set(e, -EINVAL,
			       "%s: the snapshot has a device of type %u here, "
			       "not %u",
			       d->name, id, d->type->id);
	d->status = snap_get_u8(b);
	d->features_beyond = snap_get_u8(b);
	d->config_late = snap_get_u8(b);
	d->activated = snap_get_u8(b);
	features = snap_get_u64(b);
	d->driver_features = snap_get_u64(b);
	d->config_generation = snap_get_u32(b);
	nqueues = snap_get_u16(b);
	if (d->driver_features & ~features || features & ~d->features)
		return err_set(
			e, -EINVAL,
			"%s: the snapshot's device had features %#llx "
			"that this one lacks",
			d->name,
			(unsigned long long)((d->driver_features | features) &
					     ~d->features));
	if (d->activated && !(d->status & VIRTIO_S_DRIVER_OK))
		return err_set(e, -EINVAL, "%s: the snapshot is inconsistent",
			       d->name);
	/* What the driver has seen stays what is offered. */
	d->features = features;
	if (nqueues != d->nqueues)
		return err_set(e, -EINVAL,
			       "%s: the snapshot's device had %u queues, this "
			       "one has %u",
			       d->name, nqueues, d->nqueues);
	for (unsigned i = 0; i < nqueues; i++) {
		int rc = restore_queue(d, i, b, e);

		if (rc < 0)
			return rc;
	}
	return virtio_record_read(d, b, e);
}

int virtio_dev_restore(struct virtio_dev *d, const struct snap_reader *r,
		       uint32_t instance, struct err *e)
{
	struct snap_body b;
	int rc;

	bug_on(d->run != VIRTIO_IDLE || d->status);
	d->run = VIRTIO_QUIET; /* for good: a failure leaves it to destroy */
	rc = virtio_record_find(d, r, TAG_CORE, instance, CORE_VERSION, &b, e);
	if (!rc)
		rc = restore_core(d, &b, e);
	if (!rc)
		rc = virtio_record_find(d, r, TAG_STATE, instance,
					d->type->state_version, &b, e);
	if (!rc && d->type->restore)
		rc = d->type->restore(d, &b, e);
	return rc ? rc : virtio_record_read(d, &b, e);
}
