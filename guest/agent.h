/*
 * The agent: serves the protocol of src/agent/proto.h, a process for each
 * connection.
 */
#ifndef ARC_GUEST_AGENT_H
#define ARC_GUEST_AGENT_H

#include <sys/types.h>

/*
 * Listen on @port of vsock and fork the agent: its pid, or -errno when there
 * is no vsock.
 */
pid_t agent_start(unsigned port);

/*
 * Serve the one connection @fd to its end, in this process: what the child of
 * the agent does, and a test over a socketpair.
 */
void agent_session(int fd);

#endif
