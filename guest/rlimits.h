/* The resource limits a command shall have. */
#ifndef ARC_GUEST_RLIMITS_H
#define ARC_GUEST_RLIMITS_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>

#define LIMITS_MAX 16 /* as many as there are resources */

struct limits {
	struct {
		int resource; /* RLIMIT_* */
		struct rlimit value;
	} v[LIMITS_MAX];
	size_t n;
};

/* Of one resource given twice, the last. -E2BIG: some of them do not exist. */
static inline int limits_add(struct limits *l, int resource, uint64_t soft,
			     uint64_t hard)
{
	size_t i = 0;

	while (i < l->n && l->v[i].resource != resource)
		i++;
	if (i == LIMITS_MAX)
		return -E2BIG;
	l->v[i].resource = resource;
	l->v[i].value = (struct rlimit){ soft, hard };
	l->n += i == l->n;
	return 0;
}

#endif
