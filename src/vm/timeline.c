#include "vm/timeline.h"

#include <stdio.h>

#include "base/clock.h"

void timeline_mark(struct timeline *t, const char *name)
{
	unsigned i = atomic_fetch_add(&t->count, 1);
	struct timeline_entry *e;

	if (i >= TIMELINE_MAX)
		return;
	e = &t->entries[i];
	snprintf(e->name, sizeof(e->name), "%s", name);
	e->ns = clock_ns();
	atomic_store(&e->ready, true);
}

const struct timeline_entry *timeline_get(const struct timeline *t, unsigned i)
{
	if (i >= TIMELINE_MAX || !atomic_load(&t->entries[i].ready))
		return NULL;
	return &t->entries[i];
}
