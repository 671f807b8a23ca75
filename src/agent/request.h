/*
 * What can be asked of an agent with one question and one answer, and copies:
 * blocking calls on a connected socket, which stays the caller's and carries
 * nothing after.
 *
 * @patience_ms bounds the wait for the agent's first word (0: 10 s), so that a
 * guest without an agent is told from one that takes its time; then, where there
 * is one answer, the wait for that.
 */
#ifndef ARC_AGENT_REQUEST_H
#define ARC_AGENT_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/copy.h"

struct err;

/* 0 when an agent of our version answers. */
int agent_ping(int fd, int patience_ms, struct err *e);

/*
 * Numbers of the guest: lines "name value" (docs/agent.md), in *@text, which
 * is to be freed.
 */
int agent_stats(int fd, int patience_ms, char **text, struct err *e);
/* The value of @name in that text; false when it is not in it. */
bool agent_stat(const char *text, const char *name, uint64_t *value);

/*
 * Power the guest off, or reboot it, in order: its process 1 does it; after
 * @grace_ms the agent does. Returns when the agent has begun.
 */
int agent_power(int fd, int patience_ms, bool reboot, unsigned grace_ms,
		struct err *e);

/*
 * Set the guest's clock to ours if it is off by more than @tolerance_ns; by how
 * much it was behind (negative: ahead), and whether it was set.
 */
int agent_time_sync(int fd, int patience_ms, uint64_t tolerance_ns,
		    int64_t *behind_ns, bool *set, struct err *e);

/*
 * The guest kernel's log to @out, lines; with @follow until the connection or
 * @out breaks.
 */
int agent_log(int fd, int patience_ms, bool follow, int out, struct err *e);

/*
 * Copy @from of the host to @to in the guest (relative to its root), or back:
 * with mode, times, links, holes; @flags AGENT_FLAG_OWNER, AGENT_FLAG_FOLLOW of
 * proto.h. Into @to when that is a directory, else under that name. A @from
 * that ends in "/." means what is in that directory. Device nodes come to the
 * host never.
 */
int agent_put(int fd, int patience_ms, const char *from, const char *to,
	      unsigned flags, struct copy_result *r, struct err *e);
int agent_get(int fd, int patience_ms, const char *from, const char *to,
	      unsigned flags, struct copy_result *r, struct err *e);

#endif
