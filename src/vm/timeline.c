#include "vm/timeline.h"

#include <stdio.h>

#include "base/clock.h"

struct timeline_entry *timeline_mark_at(struct timeline *t, const char *name,
					uint64_t ns)
{
	unsigned i = atomic_fetch_add(&t->count, 1);
	struct timeline_entry *e;

	if (i >= TIMELINE_MAX)
		return NULL;
	e = &t->entries[i];
	snprintf(e->name, sizeof(e->name), "%s", name);
	atomic_store(&e->ns, ns);
	atomic_store(&e->ready, true);
	return e;
}

struct timeline_entry *timeline_mark(struct timeline *t, const char *name)
{
	return timeline_mark_at(t, name, clock_ns());
}

const struct timeline_entry *timeline_get(const struct timeline *t, unsigned i)
{
	if (i >= TIMELINE_MAX || !atomic_load(&t->entries[i].ready))
		return NULL;
	return &t->entries[i];
}
