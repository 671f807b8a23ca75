/*
 * Theory of operation
 *
 * The driver and we share three arrays: descriptors and the available ring,
 * which we only read, and the used ring, which we only write.
 *
 * Popping: `avail_seen` is the driver's index when last read, with acquire
 * order, so the ring entries and descriptors behind it are there. The driver's
 * ring is read again only when `next_avail` has caught up with it. A jump of the
 * index by more than the ring's size cannot come from a sane driver.
 *
 * A driver has at most `size` chains outstanding, since each takes a
 * descriptor. One that offers more (the same head again and again) is lying;
 * `in_flight <= size` is thus a bound on what a device must remember.
 *
 * Pushing writes the element, vq_publish() the index: the only place where the
 * driver gets to see anything. `used_published` is what it saw last, the "old"
 * of the event-index arithmetic.
 *
 * The two sleep-against-wake races, each closed by a full fence on both sides:
 *   us: write avail_event, fence, read avail->idx     (vq_kicks_on)
 *   driver: write avail->idx, fence, read avail_event (virtqueue_kick_prepare)
 * and
 *   us: write used->idx, fence, read used_event       (vq_publish)
 *   driver: write used_event, fence, read used->idx   (virtqueue_enable_cb)
 * Whoever comes second sees the other's store.
 */
#include "virtio/queue.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "base/bug.h"
#include "base/util.h"

enum {
	DESC_NEXT = 1,
	DESC_WRITE = 2,
	DESC_INDIRECT = 4,
};

/* avail and used are arrays of le16: flags, idx, then the entries. */
enum { RING_FLAGS, RING_IDX, RING_ENTRIES };
#define AVAIL_NO_INTERRUPT 1
#define USED_NO_NOTIFY	   1

struct vq_desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};
static_assert(sizeof(struct vq_desc) == 16, "virtio 1.2, 2.7.5");

/* ThreadSanitizer knows no fences and gcc refuses them under it. */
static inline void full_fence(void)
{
#if defined(__SANITIZE_THREAD__) && defined(__x86_64__)
	__asm__ volatile("lock orq $0, (%%rsp)" ::: "memory");
#elif defined(__SANITIZE_THREAD__)
	__sync_synchronize();
#else
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
}

static inline uint16_t load16(const uint16_t *p)
{
	return le16toh(__atomic_load_n(p, __ATOMIC_RELAXED));
}

static inline void store16(uint16_t *p, uint16_t v)
{
	__atomic_store_n(p, htole16(v), __ATOMIC_RELAXED);
}

/*
 * One copy of a descriptor the guest may be rewriting: the empty asm makes the
 * compiler forget where the copy came from. (Indirect tables may have any
 * alignment, so these are not atomics.)
 */
__attribute__((no_sanitize("thread"))) static inline struct vq_desc
desc_load(const void *table, unsigned i)
{
	struct vq_desc d;

	__builtin_memcpy(&d, (const char *)table + i * sizeof(d), sizeof(d));
	__asm__ volatile("" : "+m"(d));
	return (struct vq_desc){
		.addr = le64toh(d.addr),
		.len = le32toh(d.len),
		.flags = le16toh(d.flags),
		.next = le16toh(d.next),
	};
}

/* After the entries: where each side says what it wants to be told about. */
static inline uint16_t *used_event(const struct virtqueue *vq)
{
	return &vq->avail[RING_ENTRIES + vq->config.size];
}

static inline uint16_t *avail_event(const struct virtqueue *vq)
{
	return &vq->used[RING_ENTRIES + 4 * vq->config.size];
}

void vq_init(struct virtqueue *vq)
{
	*vq = (struct virtqueue){ .iov_limit = VQ_IOV_MAX };
}

static int refuse(const char **why, const char *reason)
{
	if (why)
		*why = reason;
	return -EINVAL;
}

int vq_enable(struct virtqueue *vq, const struct gmem *mem,
	      const struct vq_config *c, const char **why)
{
	uint16_t size = c->size, limit = vq->iov_limit;
	void *desc, *avail, *used;

	bug_on(vq_enabled(vq));
	if (!size || size > VQ_SIZE_MAX || (size & (size - 1)))
		return refuse(why, "its size is not a power of two");
	if (c->desc.v % 16 || c->avail.v % 2 || c->used.v % 4)
		return refuse(why, "a ring is not aligned");
	desc = gmem_ptr(mem, c->desc, sizeof(struct vq_desc) * size, false);
	avail = gmem_ptr(mem, c->avail, 6u + 2u * size, false);
	used = gmem_ptr(mem, c->used, 6u + 8u * size, true);
	if (!desc || !avail || !used)
		return refuse(why, "a ring is outside of memory");
	*vq = (struct virtqueue){
		.config = *c,
		.mem = mem,
		.desc = desc,
		.avail = avail,
		.used = used,
		.next_avail = c->avail_start,
		.avail_seen = c->avail_start,
		.next_used = c->used_start,
		.used_published = c->used_start,
		.iov_limit = limit,
		.stats = vq->stats,
	};
	return 0;
}

void vq_disable(struct virtqueue *vq)
{
	struct vq_stats stats = vq->stats;
	uint16_t limit = vq->iov_limit;

	bug_on(vq->in_flight);
	vq_init(vq);
	vq->iov_limit = limit;
	vq->stats = stats;
}

static int ring_broken(struct virtqueue *vq, const char *why)
{
	vq->broken = why;
	return -EPROTO;
}

/* Look at the driver's index: 1 something to pop, 0 nothing, -EPROTO. */
static int look(struct virtqueue *vq)
{
	uint16_t idx;

	/*
	 * Acquire: with the driver's write barrier between filling an entry and
	 * moving the index (virtqueue_add_split).
	 */
	idx = le16toh(__atomic_load_n(&vq->avail[RING_IDX], __ATOMIC_ACQUIRE));
	if ((uint16_t)(idx - vq->next_avail) > vq->config.size)
		return ring_broken(vq, "the available index jumped");
	vq->avail_seen = idx;
	return idx != vq->next_avail;
}

static int bad_chain(struct virtqueue *vq, const char *why)
{
	vq->bad = why;
	return -EBADMSG;
}

/* Where a walk along a chain is. */
struct walk {
	const void *table; /* the ring's descriptors, or an indirect table */
	unsigned entries; /* in it */
	unsigned budget; /* descriptors the chain may still have */
	bool indirect;
	unsigned pieces; /* iovecs filled */
};

static int enter_indirect(struct virtqueue *vq, struct walk *w,
			  const struct vq_desc *d)
{
	if (!vq->config.indirect)
		return bad_chain(vq, "indirect without the feature");
	if (w->indirect)
		return bad_chain(vq, "an indirect table in an indirect table");
	if (d->flags & DESC_NEXT)
		return bad_chain(vq, "a descriptor after an indirect table");
	if (!d->len || d->len % sizeof(*d))
		return bad_chain(vq, "an indirect table of odd length");
	w->table = gmem_ptr(vq->mem, gpa(d->addr), d->len, false);
	if (!w->table)
		return bad_chain(vq, "an indirect table outside of memory");
	w->entries = d->len / (unsigned)sizeof(*d);
	/* Linux may fill more of a table than the ring has entries. */
	w->budget = min_of(w->entries, (unsigned)VQ_CHAIN_MAX);
	w->indirect = true;
	return 0;
}

/* Resolve one descriptor into pieces behind those in @c->iov. */
static int add_pieces(struct virtqueue *vq, struct walk *w,
		      const struct vq_desc *d, struct vq_chain *c, unsigned max)
{
	unsigned limit = vq->iov_limit ? vq->iov_limit : VQ_IOV_MAX;
	bool write = d->flags & DESC_WRITE;
	unsigned room = min_of(max, limit);
	int n;

	if (!write && c->nwrite)
		return bad_chain(vq, "readable after writable descriptors");
	if (!d->len)
		return 0; /* pointless, not forbidden */
	n = gmem_iov(vq->mem, gpa(d->addr), d->len, write, c->iov + w->pieces,
		     (int)(room - w->pieces));
	if (n == -E2BIG && room < limit)
		return -ENOBUFS;
	if (n == -E2BIG)
		return bad_chain(vq, "too many pieces");
	if (n < 0)
		return bad_chain(vq, "a buffer outside of memory");
	w->pieces += (unsigned)n;
	if (write) {
		c->nwrite = (uint16_t)(c->nwrite + n);
		c->write_len += d->len;
	} else {
		c->nread = (uint16_t)(c->nread + n);
		c->read_len += d->len;
	}
	if (c->read_len + c->write_len > UINT32_MAX)
		return bad_chain(vq, "more than 4 GiB"); /* 2.7.5.2 */
	return 0;
}

static int walk_chain(struct virtqueue *vq, struct vq_chain *c, unsigned max)
{
	struct walk w = {
		.table = vq->desc,
		.entries = vq->config.size,
		.budget = vq->config.size,
	};
	unsigned i = c->head;

	for (;;) {
		struct vq_desc d = desc_load(w.table, i);
		int r;

		if (d.flags & DESC_INDIRECT) {
			r = enter_indirect(vq, &w, &d);
			if (r < 0)
				return r;
			i = 0;
			continue;
		}
		r = add_pieces(vq, &w, &d, c, max);
		if (r < 0)
			return r;
		w.budget--;
		if (!(d.flags & DESC_NEXT))
			return 0;
		if (!w.budget)
			return bad_chain(vq, "a loop, or too many descriptors");
		i = d.next;
		if (i >= w.entries)
			return bad_chain(vq, "a descriptor out of range");
	}
}

int vq_pop(struct virtqueue *vq, struct vq_chain *c, struct iovec *iov,
	   unsigned max)
{
	unsigned mask = vq->config.size - 1u;
	int r;

	if (vq->broken)
		return -EPROTO;
	if (!vq_enabled(vq))
		return 0;
	if (vq->next_avail == vq->avail_seen) {
		r = look(vq);
		if (r <= 0)
			return r;
	}
	if (vq->in_flight == vq->config.size)
		return ring_broken(vq, "more chains than descriptors");
	*c = (struct vq_chain){
		.iov = iov,
		.head = load16(
			&vq->avail[RING_ENTRIES + (vq->next_avail & mask)]),
	};
	if (c->head >= vq->config.size)
		return ring_broken(vq, "a chain's head is out of range");
	r = walk_chain(vq, c, max);
	if (r == -ENOBUFS)
		return r;
	vq->next_avail++;
	vq->in_flight++;
	vq->stats.chains++;
	if (r < 0) {
		c->nread = c->nwrite = 0;
		c->read_len = c->write_len = 0;
		vq->stats.bad_chains++;
		return r;
	}
	return 1;
}

void vq_unpop(struct virtqueue *vq, const struct vq_chain *c)
{
	bug_on(!vq->in_flight || c->head >= vq->config.size);
	vq->next_avail--;
	vq->in_flight--;
	vq->stats.chains--;
}

void vq_push(struct virtqueue *vq, const struct vq_chain *c, uint32_t len)
{
	unsigned slot = vq->next_used & (vq->config.size - 1u);
	/* Elements are pairs of le32, 4-aligned as the ring is. */
	uint32_t *elem = (void *)&vq->used[RING_ENTRIES + 4 * slot];

	bug_on(!vq->in_flight);
	__atomic_store_n(&elem[0], htole32(c->head), __ATOMIC_RELAXED);
	__atomic_store_n(&elem[1], htole32(len), __ATOMIC_RELAXED);
	vq->next_used++;
	vq->in_flight--;
}

bool vq_publish(struct virtqueue *vq)
{
	uint16_t old = vq->used_published, now = vq->next_used;
	bool signal;

	if (old == now)
		return false;
	/*
	 * Release: with the driver's read barrier between reading the index and
	 * the elements (virtqueue_get_buf_ctx_split).
	 */
	__atomic_store_n(&vq->used[RING_IDX], htole16(now), __ATOMIC_RELEASE);
	vq->used_published = now;
	/*
	 * Full: with the driver's between writing used_event (or flags) and
	 * reading the index again (virtqueue_enable_cb).
	 */
	full_fence();
	if (vq->config.event_idx) {
		uint16_t event = load16(used_event(vq));

		/* Did we step over @event, going from @old to @now? */
		signal = (uint16_t)(now - event - 1) < (uint16_t)(now - old);
	} else {
		signal = !(load16(&vq->avail[RING_FLAGS]) & AVAIL_NO_INTERRUPT);
	}
	vq->stats.publishes++;
	vq->stats.signals += signal;
	return signal;
}

void vq_kicks_off(struct virtqueue *vq)
{
	/* With EVENT_IDX, an avail_event left behind does it. */
	if (vq_enabled(vq) && !vq->config.event_idx)
		store16(&vq->used[RING_FLAGS], USED_NO_NOTIFY);
}

bool vq_kicks_on(struct virtqueue *vq)
{
	if (!vq_enabled(vq) || vq->broken)
		return false;
	if (vq->config.event_idx)
		store16(avail_event(vq), vq->next_avail);
	else
		store16(&vq->used[RING_FLAGS], 0);
	/*
	 * Full: with the driver's between moving its index and reading
	 * avail_event (or flags) (virtqueue_kick_prepare).
	 */
	full_fence();
	/* A broken ring is work too: the next vq_pop() tells. */
	return look(vq) != 0;
}

bool vq_kicks_next(struct virtqueue *vq)
{
	uint16_t seen;

	if (!vq_enabled(vq) || vq->broken || look(vq) < 0)
		return false;
	seen = vq->avail_seen;
	if (vq->config.event_idx)
		store16(avail_event(vq), seen);
	else
		store16(&vq->used[RING_FLAGS], 0);
	full_fence(); /* as above */
	return look(vq) >= 0 && vq->avail_seen != seen;
}

unsigned vq_pending(struct virtqueue *vq)
{
	if (!vq_enabled(vq) || vq->broken || look(vq) < 0)
		return 0;
	return (uint16_t)(vq->avail_seen - vq->next_avail);
}
