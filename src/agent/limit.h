/* Resource limits of a command: their names, and how they are written. */
#ifndef ARC_AGENT_LIMIT_H
#define ARC_AGENT_LIMIT_H

#include <stdint.h>
#include <sys/resource.h>

struct err;

/* What a limit counts. */
enum agent_limit_unit {
	AGENT_LIMIT_BYTES,
	AGENT_LIMIT_SECONDS,
	AGENT_LIMIT_MICROSECONDS,
	AGENT_LIMIT_COUNT,
};

/* X(resource, name, unit), by resource. The guest names them too. */
/* clang-format off */
#define AGENT_LIMITS(X)                                 \
	X(RLIMIT_CPU, "cpu", SECONDS)                   \
	X(RLIMIT_FSIZE, "fsize", BYTES)                 \
	X(RLIMIT_DATA, "data", BYTES)                   \
	X(RLIMIT_STACK, "stack", BYTES)                 \
	X(RLIMIT_CORE, "core", BYTES)                   \
	X(RLIMIT_RSS, "rss", BYTES)                     \
	X(RLIMIT_NPROC, "nproc", COUNT)                 \
	X(RLIMIT_NOFILE, "nofile", COUNT)               \
	X(RLIMIT_MEMLOCK, "memlock", BYTES)             \
	X(RLIMIT_AS, "as", BYTES)                       \
	X(RLIMIT_LOCKS, "locks", COUNT)                 \
	X(RLIMIT_SIGPENDING, "sigpending", COUNT)       \
	X(RLIMIT_MSGQUEUE, "msgqueue", BYTES)           \
	X(RLIMIT_NICE, "nice", COUNT)                   \
	X(RLIMIT_RTPRIO, "rtprio", COUNT)               \
	X(RLIMIT_RTTIME, "rttime", MICROSECONDS)
/* clang-format on */
#define AGENT_LIMITS_MAX 16

#define AGENT_LIMIT_NONE UINT64_MAX

struct agent_limit {
	int resource; /* RLIMIT_* */
	uint64_t soft, hard; /* or AGENT_LIMIT_NONE */
};

/*
 * "NAME=SOFT[:HARD]", each a number or "unlimited", bytes with K, M, G, T if
 * one likes; without HARD both are SOFT. 0; -EINVAL, -ERANGE with a sentence.
 */
int agent_limit_parse(struct agent_limit *l, const char *text, struct err *e);
/* 0, or -EINVAL with a sentence: no such resource, soft above hard. */
int agent_limit_check(const struct agent_limit *l, struct err *e);
/* NULL when there is no such resource. */
const char *agent_limit_name(unsigned resource);
enum agent_limit_unit agent_limit_unit(unsigned resource);

#endif
