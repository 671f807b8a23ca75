/*
 * Milestones of a boot: a short list of names and times, written by several
 * threads, read by whoever asks.
 */
#ifndef ARC_VM_TIMELINE_H
#define ARC_VM_TIMELINE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define TIMELINE_MAX	  64
#define TIMELINE_NAME_MAX 32

struct timeline_entry {
	atomic_bool ready; /* name and ns are written */
	char name[TIMELINE_NAME_MAX];
	atomic_ullong ns;
};

struct timeline {
	atomic_uint count; /* taken slots; may exceed TIMELINE_MAX */
	struct timeline_entry entries[TIMELINE_MAX];
};

/*
 * Note @name now, or at @ns; after TIMELINE_MAX marks nothing more is kept. The
 * entry is the timeline's; NULL when it was not kept.
 */
struct timeline_entry *timeline_mark(struct timeline *t, const char *name);
struct timeline_entry *timeline_mark_at(struct timeline *t, const char *name,
					uint64_t ns);
/* NULL past the last. */
const struct timeline_entry *timeline_get(const struct timeline *t, unsigned i);

#endif
