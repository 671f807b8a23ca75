/*
 * The block device (virtio 1.2, 5.2).
 *
 * Theory of operation
 *
 * A chain becomes a `struct request`: the header is copied and checked once, the
 * data pieces become the request's own iovec array (the disk eats it up as a
 * transfer proceeds), the status byte is written when all is done. Requests are
 * kept for reuse; there are never more than the queues have entries.
 *
 * All chains waiting in a queue are queued to the disk and submitted together;
 * completions come in batches, and each queue that got some is published once
 * per batch. What the page cache holds is complete before notify returns.
 *
 * DISCARD and WRITE_ZEROES carry a list of ranges, which are done one after the
 * other. A driver that negotiated no FLUSH expects a write to be on the medium
 * when it completes (5.2.5.2), so its writes carry `fua`, and zeroes, which are
 * writes too, end with a flush.
 */
#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/disk.h"
#include "base/bug.h"
#include "base/bytes.h"
#include "base/err.h"
#include "base/list.h"
#include "base/opt.h"
#include "base/util.h"
#include "snap/snap.h"
#include "virtio/iov.h"
#include "virtio/virtio.h"

extern const struct virtio_dev_type virtio_dev_blk;

#define F_SEG_MAX      (1ull << 2)
#define F_RO	       (1ull << 5)
#define F_BLK_SIZE     (1ull << 6)
#define F_FLUSH	       (1ull << 9)
#define F_TOPOLOGY     (1ull << 10)
#define F_CONFIG_WCE   (1ull << 11)
#define F_MQ	       (1ull << 12)
#define F_DISCARD      (1ull << 13)
#define F_WRITE_ZEROES (1ull << 14)

enum {
	T_IN = 0,
	T_OUT = 1,
	T_FLUSH = 4,
	T_GET_ID = 8,
	T_DISCARD = 11,
	T_WRITE_ZEROES = 13,
};
enum { S_OK = 0, S_IOERR = 1, S_UNSUPP = 2, STARTED = -1 };

#define SECTOR	       512u
#define QUEUE_SIZE_MAX 1024u
#define IOV_LIMIT      1024u /* what preadv() takes */
#define INLINE_IOVS    8u
#define RANGES_MAX     16u /* in a DISCARD or WRITE_ZEROES */
#define RANGE_SECTORS  (1u << 21) /* 1 GiB each at most */
#define SERIAL_LEN     20u
#define RANGE_UNMAP    1u

struct header {
	uint32_t type, reserved;
	uint64_t sector;
};

struct range {
	uint64_t sector;
	uint32_t sectors, flags;
};

struct blk_config {
	uint64_t capacity;
	uint32_t size_max, seg_max;
	uint16_t cylinders;
	uint8_t heads, sectors;
	uint32_t blk_size;
	uint8_t physical_block_exp, alignment_offset;
	uint16_t min_io_size;
	uint32_t opt_io_size;
	uint8_t writeback, unused0;
	uint16_t num_queues;
	uint32_t max_discard_sectors, max_discard_seg, discard_alignment;
	uint32_t max_zeroes_sectors, max_zeroes_seg;
	uint8_t zeroes_may_unmap, unused1[3];
} __attribute__((packed));

struct blk_options {
	char *path, *serial;
	bool readonly;
	int cache, aio;
	uint64_t queues, queue_size;
};

struct request {
	struct disk_request io;
	struct list node; /* of the free ones */
	struct blk *blk;
	struct vq_chain chain; /* its iov is gone; a name and lengths */
	unsigned queue;
	uint8_t *status; /* in guest memory */
	uint32_t type;
	unsigned range, nranges;
	struct range *ranges; /* DISCARD, WRITE_ZEROES; in the iovs' place */
	unsigned room; /* of iovs */
	struct iovec iovs[];
};

struct blk {
	struct virtio_dev dev;
	struct blk_config config;
	struct disk *disk;
	char serial[SERIAL_LEN + 1];
	struct list free; /* requests with INLINE_IOVS */
	unsigned in_flight;
	uint64_t dirty; /* queues with something to publish */
	uint64_t quiescing; /* queues whose end virtio_queue_quiet() wants */
	struct iovec scratch[IOV_LIMIT];
};
static_assert(VIRTIO_MAX_QUEUES <= 64, "queues are bits of dirty");
static_assert(sizeof(struct range) == sizeof(struct iovec) &&
		      RANGES_MAX * sizeof(struct range) >
			      INLINE_IOVS * sizeof(struct iovec),
	      "ranges are put where iovecs would be");

static struct blk *to_blk(struct virtio_dev *d)
{
	return container_of(d, struct blk, dev);
}

/* ---- requests ---- */

static struct request *request_get(struct blk *b, unsigned room)
{
	struct list *node = room <= INLINE_IOVS ? list_pop(&b->free) : NULL;
	struct request *r;

	if (node)
		return list_entry(node, struct request, node);
	room = max_of(room, INLINE_IOVS);
	r = malloc(sizeof(*r) + room * sizeof(r->iovs[0]));
	if (r) {
		r->blk = b;
		r->room = room;
	}
	return r;
}

static void request_put(struct request *r)
{
	if (r->room == INLINE_IOVS)
		list_push(&r->blk->free, &r->node);
	else
		free(r);
}

/* Return @c with @status at @at. */
static void finish(struct blk *b, unsigned q, const struct vq_chain *c,
		   uint8_t *at, uint8_t status)
{
	*(volatile uint8_t *)at = status;
	vq_push(virtio_vq(&b->dev, q), c, (uint32_t)c->write_len);
	b->dirty |= 1ull << q;
}

static void publish(struct blk *b)
{
	while (b->dirty) {
		unsigned q = (unsigned)__builtin_ctzll(b->dirty);

		b->dirty &= b->dirty - 1;
		virtio_publish(&b->dev, q);
	}
}

static uint8_t status_of(const struct request *r)
{
	if (!r->io.result)
		return S_OK;
	return r->io.result == -EOPNOTSUPP ? S_UNSUPP : S_IOERR;
}

static void complain(struct request *r)
{
	static const char *const names[] = { "read", "write", "flush",
					     "discard", "zeroing" };

	log_limited(r->blk->dev.log, &r->blk->dev.complaints, LOG_WARN,
		    "%s: %s at byte %llu failed: %s", r->blk->dev.name,
		    names[r->io.op], (unsigned long long)r->io.offset,
		    strerror(-r->io.result));
}

static void next_range(struct request *r);

static bool volatile_zeroes(const struct request *r)
{
	return r->type == T_WRITE_ZEROES && r->io.op != DISK_FLUSH &&
	       !r->blk->config.writeback;
}

static void io_done(struct disk_request *io)
{
	struct request *r = container_of(io, struct request, io);
	struct blk *b = r->blk;

	if (io->result < 0 && io->result != -EOPNOTSUPP)
		complain(r);
	if (!io->result && r->range < r->nranges) {
		next_range(r);
		return;
	}
	if (!io->result && volatile_zeroes(r)) {
		r->io.op = DISK_FLUSH;
		disk_queue(b->disk, &r->io);
		disk_submit(b->disk);
		return;
	}
	finish(b, r->queue, &r->chain, r->status, status_of(r));
	b->in_flight--;
	request_put(r);
}

static void next_range(struct request *r)
{
	const struct range *g = &r->ranges[r->range++];
	struct disk *disk = r->blk->disk;

	r->io.offset = g->sector * SECTOR;
	r->io.len = (uint64_t)g->sectors * SECTOR;
	r->io.unmap = g->flags & RANGE_UNMAP;
	disk_queue(disk, &r->io); /* which may end @r */
	disk_submit(disk);
}

/* ---- quiet ---- */

static void check_quiet(struct blk *b)
{
	for (uint64_t left = b->quiescing; left; left &= left - 1) {
		unsigned q = (unsigned)__builtin_ctzll(left);

		if (virtio_vq(&b->dev, q)->in_flight)
			continue;
		b->quiescing &= ~(1ull << q);
		virtio_queue_quiet(&b->dev, q);
	}
	if (b->dev.run == VIRTIO_QUIESCING && !b->in_flight)
		virtio_quiet(&b->dev);
}

/* The disk completed some requests. */
static void batch_done(void *ctx)
{
	struct blk *b = ctx;

	publish(b);
	check_quiet(b);
}

static void blk_quiesce(struct virtio_dev *d)
{
	check_quiet(to_blk(d));
}

static void blk_queue_quiesce(struct virtio_dev *d, unsigned q)
{
	struct blk *b = to_blk(d);

	b->quiescing |= 1ull << q;
	check_quiet(b);
}

/* ---- from chain to request ---- */

static bool in_capacity(const struct blk *b, uint64_t sector, uint64_t sectors)
{
	return range_fits(sector, sectors, disk_info(b->disk)->size / SECTOR);
}

/* S_OK, or why the ranges of @r cannot be. Those of no sectors are dropped. */
static uint8_t check_ranges(struct blk *b, struct request *r)
{
	unsigned n = 0;

	for (unsigned i = 0; i < r->nranges; i++) {
		struct range *g = &r->ranges[i];

		g->sector = le64toh(g->sector);
		g->sectors = le32toh(g->sectors);
		g->flags = le32toh(g->flags);
		if (g->flags & ~(r->type == T_DISCARD ? 0u : RANGE_UNMAP))
			return S_UNSUPP;
		if (g->sectors > RANGE_SECTORS ||
		    !in_capacity(b, g->sector, g->sectors))
			return S_IOERR;
		if (g->sectors)
			r->ranges[n++] = *g;
	}
	r->nranges = n;
	return S_OK;
}

/*
 * What the guest asked for, read and checked once. @iov is the data, of @len
 * bytes: readable for requests that give, writable for those that take.
 */
struct parsed {
	struct header h;
	const struct iovec *iov;
	unsigned niov;
	uint64_t skip, len; /* bytes of the iovecs before the data; data */
	uint8_t *status;
};

/*
 * Framing is the driver's business (2.7.4.3): the header is the first 16
 * readable bytes, the status the last writable one, however they are cut up.
 */
static bool parse(const struct vq_chain *c, struct parsed *p)
{
	const struct iovec *writable = vq_chain_writable(c);
	const struct iovec *last = writable + c->nwrite - 1;

	if (!c->write_len)
		return false;
	if (iov_read(c->iov, c->nread, 0, &p->h, sizeof(p->h)) < sizeof(p->h))
		return false;
	p->h.type = le32toh(p->h.type);
	p->h.sector = le64toh(p->h.sector);
	p->status = (uint8_t *)last->iov_base + last->iov_len - 1;
	if (p->h.type == T_IN || p->h.type == T_GET_ID) {
		p->iov = writable;
		p->niov = c->nwrite;
		p->skip = 0;
		p->len = c->write_len - 1;
	} else {
		p->iov = c->iov;
		p->niov = c->nread;
		p->skip = sizeof(p->h);
		p->len = c->read_len - sizeof(p->h);
	}
	return true;
}

static uint8_t check_transfer(const struct blk *b, const struct parsed *p)
{
	if (p->len % SECTOR || !in_capacity(b, p->h.sector, p->len / SECTOR))
		return S_IOERR;
	if (p->h.type == T_OUT && disk_info(b->disk)->readonly)
		return S_IOERR;
	return S_OK;
}

static void start_transfer(struct blk *b, struct request *r,
			   const struct parsed *p)
{
	bool write = p->h.type == T_OUT;

	r->io.op = write ? DISK_WRITE : DISK_READ;
	r->io.offset = p->h.sector * SECTOR;
	r->io.len = p->len;
	r->io.iov = r->iovs;
	r->io.niov = iov_slice(r->iovs, p->iov, p->niov, p->skip, p->len);
	r->io.fua = write && !b->config.writeback;
	disk_queue(b->disk, &r->io);
}

/* STARTED, or the status that ends the request. */
static int start_ranges(struct blk *b, struct request *r,
			const struct parsed *p)
{
	uint8_t status;

	r->ranges = (struct range *)r->iovs;
	r->nranges = (unsigned)(p->len / sizeof(struct range));
	iov_read(p->iov, p->niov, p->skip, r->ranges, (size_t)p->len);
	status = check_ranges(b, r);
	if (status != S_OK || !r->nranges)
		return status;
	r->io.op = p->h.type == T_DISCARD ? DISK_DISCARD : DISK_ZERO;
	next_range(r);
	return STARTED;
}

/* What needs no disk. @p->len is as the driver has it. */
static uint8_t get_id(struct blk *b, const struct parsed *p)
{
	char id[SERIAL_LEN] = { 0 };

	memcpy(id, b->serial, strlen(b->serial));
	iov_write(p->iov, p->niov, 0, id,
		  (size_t)min_of(p->len, (uint64_t)SERIAL_LEN));
	return S_OK;
}

static bool has_ranges(const struct blk *b, uint32_t type)
{
	return (type == T_DISCARD && b->dev.features & F_DISCARD) ||
	       (type == T_WRITE_ZEROES && b->dev.features & F_WRITE_ZEROES);
}

/* Room for iovecs that the request of @p takes; or *@status is its end. */
static unsigned room_for(struct blk *b, const struct parsed *p, uint8_t *status)
{
	*status = S_OK;
	switch (p->h.type) {
	case T_IN:
	case T_OUT:
		*status = check_transfer(b, p);
		return p->niov;
	case T_FLUSH:
		return 1;
	case T_DISCARD:
	case T_WRITE_ZEROES:
		if (!has_ranges(b, p->h.type))
			break;
		if (!p->len || p->len % sizeof(struct range) ||
		    p->len / sizeof(struct range) > RANGES_MAX)
			*status = S_IOERR;
		return RANGES_MAX;
	}
	*status = S_UNSUPP;
	return 0;
}

static int start_request(struct blk *b, struct request *r,
			 const struct parsed *p)
{
	switch (p->h.type) {
	case T_FLUSH:
		r->io.op = DISK_FLUSH;
		disk_queue(b->disk, &r->io);
		return STARTED;
	case T_IN:
	case T_OUT:
		start_transfer(b, r, p);
		return STARTED;
	}
	return start_ranges(b, r, p);
}

/* Start what chain @c asks for. False: the driver broke the rules. */
static bool start(struct blk *b, unsigned q, const struct vq_chain *c)
{
	struct request *r = NULL;
	struct parsed p;
	uint8_t early;
	unsigned room;
	int status;

	if (!parse(c, &p)) {
		vq_push(virtio_vq(&b->dev, q), c, 0);
		b->dirty |= 1ull << q;
		return false;
	}
	if (p.h.type == T_GET_ID) {
		finish(b, q, c, p.status, get_id(b, &p));
		return true;
	}
	room = room_for(b, &p, &early);
	status = early;
	if (status != S_OK || (!p.len && p.h.type != T_FLUSH))
		goto end;
	status = S_IOERR;
	r = request_get(b, room);
	if (!r)
		goto end;
	r->io = (struct disk_request){ .done = io_done };
	r->chain = *c;
	r->chain.iov = NULL;
	r->queue = q;
	r->status = p.status;
	r->type = p.h.type;
	r->range = r->nranges = 0;
	b->in_flight++;
	status = start_request(b, r, &p);
	if (status == STARTED)
		return true;
	b->in_flight--;
	request_put(r);
end:
	finish(b, q, c, p.status, (uint8_t)status);
	return true;
}

static void blk_notify(struct virtio_dev *d, unsigned q)
{
	struct virtqueue *vq = virtio_vq(d, q);
	struct blk *b = to_blk(d);
	unsigned budget = vq->config.size;
	struct vq_chain c;
	int rc = 0;

	vq_kicks_off(vq);
	do {
		while (budget &&
		       (rc = vq_pop(vq, &c, b->scratch, IOV_LIMIT)) > 0) {
			budget--;
			if (!start(b, q, &c)) {
				virtio_fail(d, "a request without header or "
					       "room for its status");
				budget = 0;
			}
		}
		disk_submit(b->disk);
		publish(b);
		if (!budget) {
			virtio_queue_kick(d, q);
			return;
		}
		if (rc == -EBADMSG)
			vq_push(vq, &c, 0);
		if (rc < 0)
			virtio_fail(d, "queue %u: %s", q,
				    rc == -EBADMSG ? vq->bad : vq->broken);
	} while (rc == 0 && vq_kicks_on(vq));
}

/* ---- the device ---- */

static int blk_activate(struct virtio_dev *d)
{
	struct blk *b = to_blk(d);

	/* Without FLUSH the driver relies on write-through (5.2.5.2). */
	if (!virtio_has(d, F_FLUSH))
		b->config.writeback = 0;
	else if (!virtio_has(d, F_CONFIG_WCE))
		b->config.writeback = 1;
	return 0;
}

static void blk_reset(struct virtio_dev *d)
{
	to_blk(d)->config.writeback = 1;
}

static void blk_config_write(struct virtio_dev *d, unsigned off, unsigned len,
			     const uint8_t *val)
{
	struct blk *b = to_blk(d);

	if (off == offsetof(struct blk_config, writeback) && len == 1 &&
	    virtio_has(d, F_CONFIG_WCE))
		b->config.writeback = *val & 1;
}

static void blk_save(struct virtio_dev *d, struct snap_writer *w)
{
	struct blk *b = to_blk(d);

	snap_u64(w, disk_info(b->disk)->size);
	snap_u8(w, b->config.writeback);
}

static int blk_restore(struct virtio_dev *d, struct snap_body *body,
		       struct err *e)
{
	uint64_t size = snap_get_u64(body);
	struct blk *b = to_blk(d);

	if (size != disk_info(b->disk)->size)
		return err_set(e, -EINVAL,
			       "%s: the disk had %llu bytes when the snapshot "
			       "was made and has %llu now",
			       d->name, (unsigned long long)size,
			       (unsigned long long)disk_info(b->disk)->size);
	b->config.writeback = snap_get_u8(body) & 1;
	return 0;
}

static void blk_destroy(struct virtio_dev *d)
{
	struct blk *b = to_blk(d);
	struct list *node;

	while ((node = list_pop(&b->free)))
		free(list_entry(node, struct request, node));
	disk_close(b->disk);
	virtio_dev_fini(d);
	free(b);
}

static uint8_t log2_of(uint32_t n)
{
	return n ? (uint8_t)(31 - __builtin_clz(n)) : 0;
}

/* Fill the config space from what the disk is; the features that go with it. */
static uint64_t describe(struct blk *b, const struct blk_options *o)
{
	const struct disk_info *i = disk_info(b->disk);
	uint32_t physical = max_of(i->physical_block, i->block);
	uint64_t features =
		F_SEG_MAX | F_BLK_SIZE | F_FLUSH | F_TOPOLOGY | F_CONFIG_WCE;
	uint32_t optimal = max_of(i->optimal_io, physical);
	struct blk_config *c = &b->config;

	c->capacity = htole64(i->size / SECTOR);
	/* Header and status take two descriptors of a chain. */
	c->seg_max =
		htole32((uint32_t)min_of(o->queue_size, (uint64_t)256) - 2);
	c->blk_size = htole32(i->block);
	c->physical_block_exp = log2_of(physical / i->block);
	c->min_io_size = htole16((uint16_t)(physical / i->block));
	c->opt_io_size = htole32(optimal / i->block);
	c->writeback = 1;
	c->num_queues = htole16((uint16_t)o->queues);
	if (o->queues > 1)
		features |= F_MQ;
	if (i->readonly)
		features |= F_RO;
	if (i->discard) {
		features |= F_DISCARD;
		c->max_discard_sectors = htole32(RANGE_SECTORS);
		c->max_discard_seg = htole32(RANGES_MAX);
		c->discard_alignment =
			htole32(max_of(i->discard_unit, SECTOR) / SECTOR);
	}
	if (i->write_zeroes) {
		features |= F_WRITE_ZEROES;
		c->max_zeroes_sectors = htole32(RANGE_SECTORS);
		c->max_zeroes_seg = htole32(RANGES_MAX);
		c->zeroes_may_unmap = i->discard;
	}
	return features;
}

static int check_options(const struct blk_options *o, struct err *e)
{
	if (!o->path || !*o->path)
		return err_set(e, -EINVAL,
			       "a disk needs an image file or a block device: "
			       "path=FILE");
	if (o->queue_size & (o->queue_size - 1))
		return err_set(e, -EINVAL,
			       "queue-size=%llu: must be a power of two",
			       (unsigned long long)o->queue_size);
	if (o->serial && strlen(o->serial) > SERIAL_LEN)
		return err_set(e, -EINVAL, "serial=%s: at most %u characters",
			       o->serial, SERIAL_LEN);
	return 0;
}

static int blk_create(const struct virtio_env *env, const void *options,
		      struct virtio_dev **out, struct err *e)
{
	const struct blk_options *o = options;
	uint16_t sizes[VIRTIO_MAX_QUEUES];
	struct blk *b;
	struct disk_config dc = {
		.path = o->path,
		.readonly = o->readonly,
		.cache = (enum disk_cache)o->cache,
		.aio = (enum disk_aio)o->aio,
		.depth = (unsigned)(o->queues * o->queue_size),
		.log = env->log,
		.batch = batch_done,
	};
	uint64_t features;
	int rc = check_options(o, e);

	if (rc < 0)
		return rc;
	b = calloc(1, sizeof(*b));
	if (!b)
		return err_set(e, -ENOMEM, "out of memory");
	list_init(&b->free);
	dc.ctx = b;
	rc = disk_open(&b->disk, env->loop, &dc, e);
	if (rc < 0)
		goto fail;
	features = describe(b, o);
	for (unsigned q = 0; q < o->queues; q++)
		sizes[q] = (uint16_t)o->queue_size;
	rc = virtio_dev_init(&b->dev, &virtio_dev_blk, env, features, sizes,
			     (unsigned)o->queues, &b->config,
			     sizeof(b->config));
	if (rc < 0) {
		err_set(e, rc, "disk device: %s", strerror(-rc));
		goto fail;
	}
	for (unsigned q = 0; q < o->queues; q++)
		virtio_vq(&b->dev, q)->iov_limit = IOV_LIMIT;
	snprintf(b->serial, sizeof(b->serial), "%.*s", (int)SERIAL_LEN,
		 o->serial ? o->serial : b->dev.name);
	*out = &b->dev;
	return 0;
fail:
	disk_close(b->disk);
	free(b);
	return rc;
}

static const char *const cache_names[] = { "writeback", "none", "unsafe",
					   NULL };
static const char *const aio_names[] = { "auto", "io_uring", "threads", NULL };

static const struct opt_desc blk_opts[] = {
	OPT_STR(struct blk_options, path, "path", "FILE",
		"raw image or block device"),
	OPT_BOOL(struct blk_options, readonly, "readonly",
		 "the guest may not write"),
	OPT_STR(struct blk_options, serial, "serial", "TEXT",
		"what the guest sees as its serial number (20 characters)"),
	OPT_ENUM(struct blk_options, cache, "cache", "MODE", cache_names,
		 "host caching: writeback (default), none (direct), unsafe "
		 "(flushes are ignored)"),
	OPT_ENUM(struct blk_options, aio, "aio", "HOW", aio_names,
		 "auto (default), io_uring, threads"),
	OPT_UINT(struct blk_options, queues, "queues", 1, 16,
		 "request queues (default 1)"),
	OPT_UINT(struct blk_options, queue_size, "queue-size", 4,
		 QUEUE_SIZE_MAX, "entries in a queue (default 256)"),
	{ 0 },
};

static void blk_defaults(void *options)
{
	struct blk_options *o = options;

	o->queues = 1;
	o->queue_size = 256;
}

const struct virtio_dev_type virtio_dev_blk = {
	.name = "blk",
	.summary = "a disk: raw image file or block device",
	.flag = "disk",
	.id = 2,
	.options = blk_opts,
	.options_size = sizeof(struct blk_options),
	.defaults = blk_defaults,
	.create = blk_create,
	.activate = blk_activate,
	.notify = blk_notify,
	.quiesce = blk_quiesce,
	.queue_quiesce = blk_queue_quiesce,
	.reset = blk_reset,
	.config_write = blk_config_write,
	.save = blk_save,
	.restore = blk_restore,
	.state_version = 1,
	.destroy = blk_destroy,
};
