/*
 * Theory of operation: one sorted array of ranges per space, found by binary
 * search; the table is fixed before vCPUs run, so lookups take no lock.
 * Doorbells (emulated ioeventfds) may come and go while vCPUs run, when a guest
 * resets a device: they have a lock of their own and are looked at first.
 */
#include "bus/bus.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bug.h"
#include "base/err.h"
#include "base/util.h"
#include "loop/loop.h"

struct range {
	uint64_t base, size;
	const struct bus_ops *ops;
	void *dev;
	struct loop *owner;
};

struct space {
	struct range *ranges;
	unsigned count;
};

struct bus {
	struct space spaces[2];
	pthread_rwlock_t bell_lock;
	struct bus_ioeventfd *bells;
	unsigned nbells;
};

int bus_create(struct bus **out)
{
	struct bus *b = calloc(1, sizeof(*b));

	if (!b)
		return -ENOMEM;
	pthread_rwlock_init(&b->bell_lock, NULL);
	*out = b;
	return 0;
}

void bus_destroy(struct bus *b)
{
	if (!b)
		return;
	free(b->spaces[BUS_MMIO].ranges);
	free(b->spaces[BUS_PIO].ranges);
	free(b->bells);
	pthread_rwlock_destroy(&b->bell_lock);
	free(b);
}

/* Index of the first range whose base is above @addr. */
static unsigned upper_bound(const struct space *s, uint64_t addr)
{
	unsigned lo = 0, hi = s->count;

	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;

		if (s->ranges[mid].base <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static const struct range *find(const struct space *s, uint64_t addr,
				unsigned len)
{
	unsigned i = upper_bound(s, addr);
	const struct range *r;

	if (!i)
		return NULL;
	r = &s->ranges[i - 1];
	return range_fits(addr - r->base, len, r->size) ? r : NULL;
}

int bus_add(struct bus *b, enum bus_space space, uint64_t base, uint64_t size,
	    const struct bus_ops *ops, void *dev, struct loop *owner,
	    struct err *e)
{
	struct space *s = &b->spaces[space];
	unsigned at = upper_bound(s, base);
	struct range *r;

	bug_on(!size || base + size < base);
	if ((at > 0 &&
	     s->ranges[at - 1].base + s->ranges[at - 1].size > base) ||
	    (at < s->count && base + size > s->ranges[at].base))
		return err_set(
			e, -EEXIST, "%s range %#llx+%#llx is already taken",
			space == BUS_PIO ? "port" : "MMIO",
			(unsigned long long)base, (unsigned long long)size);
	r = realloc(s->ranges, (s->count + 1) * sizeof(*r));
	if (!r)
		return err_set(e, -ENOMEM, "out of memory");
	s->ranges = r;
	memmove(&r[at + 1], &r[at], (s->count - at) * sizeof(*r));
	r[at] = (struct range){ base, size, ops, dev, owner };
	s->count++;
	return 0;
}

void bus_remove(struct bus *b, enum bus_space space, uint64_t base)
{
	struct space *s = &b->spaces[space];
	unsigned at = upper_bound(s, base);

	if (!at || s->ranges[at - 1].base != base)
		return;
	memmove(&s->ranges[at - 1], &s->ranges[at],
		(s->count - at) * sizeof(*s->ranges));
	s->count--;
}

static uint64_t low_bytes(uint64_t v, unsigned len)
{
	return len < 8 ? v & ((1ull << 8 * len) - 1) : v;
}

bool bus_read(struct bus *b, enum bus_space space, uint64_t addr, unsigned len,
	      uint64_t *val)
{
	const struct range *r = find(&b->spaces[space], addr, len);

	*val = low_bytes(~0ull, len);
	if (!r || !r->ops->read)
		return false;
	if (r->owner)
		loop_lock(r->owner);
	*val = low_bytes(r->ops->read(r->dev, addr - r->base, len), len);
	if (r->owner)
		loop_unlock(r->owner);
	return true;
}

static bool ring_bell(struct bus *b, enum bus_space space, uint64_t addr,
		      unsigned len, uint64_t val)
{
	bool rung = false;

	if (!__atomic_load_n(&b->nbells, __ATOMIC_RELAXED))
		return false;
	pthread_rwlock_rdlock(&b->bell_lock);
	for (unsigned i = 0; i < b->nbells && !rung; i++) {
		const struct bus_ioeventfd *io = &b->bells[i];
		uint64_t one = 1;

		if (io->space != space || io->addr != addr ||
		    (io->len && io->len != len) ||
		    (!io->match_any && io->len && io->match != val))
			continue;
		/* EAGAIN: the counter is full, so it is readable anyway. */
		if (write(io->fd, &one, sizeof(one)) < 0)
			bug_on(errno != EAGAIN);
		rung = true;
	}
	pthread_rwlock_unlock(&b->bell_lock);
	return rung;
}

bool bus_write(struct bus *b, enum bus_space space, uint64_t addr, unsigned len,
	       uint64_t val)
{
	const struct range *r;

	val = low_bytes(val, len);
	if (ring_bell(b, space, addr, len, val))
		return true;
	r = find(&b->spaces[space], addr, len);
	if (!r || !r->ops->write)
		return false;
	if (r->owner)
		loop_lock(r->owner);
	r->ops->write(r->dev, addr - r->base, len, val);
	if (r->owner)
		loop_unlock(r->owner);
	return true;
}

static bool same_bell(const struct bus_ioeventfd *a,
		      const struct bus_ioeventfd *b)
{
	return a->space == b->space && a->addr == b->addr && a->len == b->len &&
	       a->match_any == b->match_any &&
	       (a->match_any || a->match == b->match);
}

int bus_add_ioeventfd(struct bus *b, const struct bus_ioeventfd *io)
{
	struct bus_ioeventfd *p;
	int rc = 0;

	pthread_rwlock_wrlock(&b->bell_lock);
	for (unsigned i = 0; i < b->nbells; i++)
		if (same_bell(&b->bells[i], io))
			rc = -EEXIST;
	if (!rc) {
		p = realloc(b->bells, (b->nbells + 1) * sizeof(*p));
		if (p) {
			b->bells = p;
			p[b->nbells] = *io;
			__atomic_store_n(&b->nbells, b->nbells + 1,
					 __ATOMIC_RELAXED);
		} else {
			rc = -ENOMEM;
		}
	}
	pthread_rwlock_unlock(&b->bell_lock);
	return rc;
}

void bus_remove_ioeventfd(struct bus *b, const struct bus_ioeventfd *io)
{
	pthread_rwlock_wrlock(&b->bell_lock);
	for (unsigned i = 0; i < b->nbells; i++) {
		if (!same_bell(&b->bells[i], io))
			continue;
		b->bells[i] = b->bells[b->nbells - 1];
		__atomic_store_n(&b->nbells, b->nbells - 1, __ATOMIC_RELAXED);
		break;
	}
	pthread_rwlock_unlock(&b->bell_lock);
}
