#include "agent/limit.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/opt.h"
#include "base/util.h"

static const struct {
	const char *name;
	enum agent_limit_unit unit;
} table[AGENT_LIMITS_MAX] = {
#define X(resource, name, unit) [resource] = { name, AGENT_LIMIT_##unit },
	AGENT_LIMITS(X)
#undef X
};

_Static_assert(RLIM_NLIMITS == AGENT_LIMITS_MAX, "resource limits");
_Static_assert(RLIM_INFINITY == AGENT_LIMIT_NONE, "no limit");

const char *agent_limit_name(unsigned resource)
{
	return resource < array_size(table) ? table[resource].name : NULL;
}

enum agent_limit_unit agent_limit_unit(unsigned resource)
{
	return table[resource].unit;
}

static const char *name_at(const void *ctx, size_t i)
{
	(void)ctx;
	return agent_limit_name((unsigned)i);
}

static int find(const char *name, struct err *e)
{
	const char *near;

	for (unsigned i = 0; i < array_size(table); i++)
		if (!strcmp(table[i].name, name))
			return (int)i;
	near = opt_nearest(name, name_at, NULL);
	return err_set(e, -EINVAL, "limit: there is no '%s'%s%s%s", name,
		       near ? "; did you mean '" : "", near ? near : "",
		       near ? "'?" : "");
}

static int parse_value(unsigned resource, const char *what, const char *text,
		       uint64_t *out, struct err *e)
{
	if (!strcmp(text, "unlimited")) {
		*out = AGENT_LIMIT_NONE;
		return 0;
	}
	/* The greatest number would mean no limit. */
	if (table[resource].unit == AGENT_LIMIT_BYTES)
		return opt_size(what, text, 0, INT64_MAX, out, e);
	return opt_uint(what, text, 0, INT64_MAX, out, e);
}

int agent_limit_check(const struct agent_limit *l, struct err *e)
{
	if (l->resource < 0 || l->resource >= AGENT_LIMITS_MAX)
		return err_set(e, -EINVAL, "limit: there is no resource %d",
			       l->resource);
	if (l->soft > l->hard)
		return err_set(e, -EINVAL,
			       "limit %s: the soft limit is above the hard one",
			       table[l->resource].name);
	return 0;
}

int agent_limit_parse(struct agent_limit *l, const char *text, struct err *e)
{
	char name[16], what[32], soft[32];
	const char *value = strchr(text, '='), *hard;
	size_t len = value ? strcspn(value + 1, ":") : 0;
	int resource, rc;

	if (!value || value == text || len >= sizeof(soft))
		return err_set(e, -EINVAL,
			       "limit: '%s' is not NAME=SOFT[:HARD]", text);
	snprintf(name, sizeof(name), "%.*s", (int)(value - text), text);
	resource = find(name, e);
	if (resource < 0)
		return resource;
	snprintf(what, sizeof(what), "limit %s", name);
	snprintf(soft, sizeof(soft), "%.*s", (int)len, value + 1);
	hard = strchr(value, ':');
	l->resource = resource;
	rc = parse_value((unsigned)resource, what, soft, &l->soft, e);
	l->hard = l->soft;
	if (!rc && hard)
		rc = parse_value((unsigned)resource, what, hard + 1, &l->hard,
				 e);
	return rc ? rc : agent_limit_check(l, e);
}
