/* The public face of the agent's client. Each call takes its connection over. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent/exec.h"
#include "agent/proto.h"
#include "agent/request.h"
#include "base/clock.h"
#include "base/util.h"
#include "lib/lib.h"
#include "vm/vm.h"

_Static_assert(ARCVMM_AGENT_PORT == AGENT_PORT, "agent port");
_Static_assert(ARCVMM_LIMITS_MAX == AGENT_LIMITS_MAX &&
		       ARCVMM_LIMIT_NONE == AGENT_LIMIT_NONE,
	       "resource limits");
_Static_assert(sizeof(struct arcvmm_exec_control) ==
			       sizeof(struct agent_control) &&
		       (int)ARCVMM_EXEC_SIGNAL == AGENT_CONTROL_SIGNAL &&
		       (int)ARCVMM_EXEC_RESIZE == AGENT_CONTROL_RESIZE &&
		       (int)ARCVMM_EXEC_HANGUP == AGENT_CONTROL_HANGUP,
	       "orders for a command");

/* The agent is up: its first word comes at once, or something is wrong. */
#define PATIENCE_MS 10000

int arcvmm_vm_agent_fd(struct arcvmm_vm *vm)
{
	return vm_agent_fd(public_vm(vm));
}

int arcvmm_agent_connect(struct arcvmm_vm *vm, int timeout_ms,
			 struct arcvmm_error *error)
{
	struct err e = { 0 };
	int rc = vm_wait_agent(public_vm(vm), timeout_ms, &e);

	if (rc)
		return public_error(error, rc, &e);
	return arcvmm_vsock_connect(vm, ARCVMM_AGENT_PORT, ARCVMM_VSOCK_STREAM,
				    PATIENCE_MS, error);
}

/* ---- through the hybrid socket of another process ---- */

static int wait_readable(int fd, uint64_t deadline_ns)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	for (;;) {
		uint64_t now = clock_ns();
		int ms = -1, n;

		if (deadline_ns) {
			if (now >= deadline_ns)
				return -ETIMEDOUT;
			ms = (int)((deadline_ns - now) / NSEC_PER_MSEC) + 1;
		}
		n = poll(&p, 1, ms);
		if (n > 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return -errno;
	}
}

/*
 * "CONNECT port\n" is answered by "OK n\n" or a hang-up. What follows the
 * newline is the guest's: look first, then take no more than the line.
 */
static int shake_hands(int fd, uint32_t port, uint64_t deadline_ns)
{
	char line[32], *end = NULL;
	int n = snprintf(line, sizeof(line), "CONNECT %u\n", port);
	size_t len = 0;

	if (send(fd, line, (size_t)n, MSG_NOSIGNAL) != n)
		return errno == EPIPE ? -ECONNREFUSED : -errno;
	while (!end) {
		int rc = wait_readable(fd, deadline_ns);
		ssize_t got;

		if (rc)
			return rc;
		if (len == sizeof(line))
			return -EPROTO;
		got = recv(fd, line + len, sizeof(line) - len, MSG_PEEK);
		if (got > 0) {
			end = memchr(line + len, '\n', (size_t)got);
			if (end)
				got = end + 1 - (line + len);
			got = read(fd, line + len, (size_t)got);
		}
		if (got <= 0)
			return got && errno != ECONNRESET ? -errno
							  : -ECONNREFUSED;
		len += (size_t)got;
	}
	return strncmp(line, "OK ", 3) ? -EPROTO : 0;
}

int arcvmm_uds_connect(const char *path, uint32_t port, int timeout_ms,
		       struct arcvmm_error *error)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	uint64_t deadline = timeout_ms < 0 ? 0
					   : clock_ns() + (uint64_t)timeout_ms *
								  NSEC_PER_MSEC;
	struct err e = { 0 };
	int fd, rc = 0;

	if (strlen(path) >= sizeof(sa.sun_path)) {
		rc = err_set(&e, -ENAMETOOLONG, "socket %s: name too long",
			     path);
		public_error(error, rc, &e);
		return rc;
	}
	strcpy(sa.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&sa, sizeof(sa))) {
		rc = -errno;
		err_set(&e, rc, "socket %s: %s", path, strerror(-rc));
	} else {
		rc = shake_hands(fd, port, deadline);
		if (rc)
			err_set(&e, rc, "port %u of the guest: %s", port,
				rc == -ECONNREFUSED ? "nobody listens there"
						    : strerror(-rc));
	}
	if (rc && fd >= 0) {
		close(fd);
		fd = -1;
	}
	public_error(error, rc, &e);
	return rc ? rc : fd;
}

/* ---- requests ---- */

int arcvmm_limit_parse(struct arcvmm_limit *l, const char *text,
		       struct arcvmm_error *error)
{
	struct agent_limit limit = { 0 };
	struct err e = { 0 };
	int rc = agent_limit_parse(&limit, text, &e);

	*l = (struct arcvmm_limit){ limit.resource, limit.soft, limit.hard };
	return public_error(error, rc, &e);
}

const char *arcvmm_limit_name(unsigned resource, const char **unit)
{
	static const char *const units[] = {
		[AGENT_LIMIT_BYTES] = "bytes",
		[AGENT_LIMIT_SECONDS] = "seconds",
		[AGENT_LIMIT_MICROSECONDS] = "microseconds",
		[AGENT_LIMIT_COUNT] = "number",
	};
	const char *name = agent_limit_name(resource);

	if (name && unit)
		*unit = units[agent_limit_unit(resource)];
	return name;
}

int arcvmm_exec_run(int fd, const struct arcvmm_exec *x, int in, int out,
		    int err, int control, struct arcvmm_exit *exit,
		    struct arcvmm_error *error)
{
	struct agent_limit limits[AGENT_LIMITS_MAX];
	struct agent_exec_config c = {
		.argv = x->argv,
		.env = x->env,
		.clean_env = x->clean_env,
		.cwd = x->cwd,
		.user = x->user,
		.timeout_ns = x->timeout_ns,
		.input = in >= 0,
		.tty = x->tty,
		.rows = x->rows,
		.columns = x->cols,
		.detach = x->detach,
		.limits = limits,
		.limit_count = x->nlimits, /* too many are refused unread */
	};
	struct agent_exit end = { .code = 125 };
	struct err e = { 0 };
	int rc;

	for (size_t i = 0; i < min_of(x->nlimits, array_size(limits)); i++)
		limits[i] = (struct agent_limit){ x->limits[i].resource,
						  x->limits[i].soft,
						  x->limits[i].hard };
	rc = agent_exec_run(fd, &c, in, out, err, control, &end, &e);
	*exit = (struct arcvmm_exit){
		.code = end.code,
		.signal = end.signal,
		.timed_out = end.timed_out,
		.shutdown = end.shutdown,
		.command_ns = end.command_ns,
		.agent_ns = end.agent_ns,
	};
	return public_error(error, rc, &e);
}

static int copied(int fd, int rc, const struct copy_result *r, uint64_t *bytes,
		  const struct err *e, struct arcvmm_error *error)
{
	close(fd);
	if (bytes)
		*bytes = r->bytes;
	return public_error(error, rc, e);
}

static unsigned copy_flags(unsigned flags)
{
	return (flags & ARCVMM_COPY_OWNER ? AGENT_FLAG_OWNER : 0) |
	       (flags & ARCVMM_COPY_FOLLOW ? AGENT_FLAG_FOLLOW : 0);
}

int arcvmm_copy_to(int fd, const char *from, const char *to, unsigned flags,
		   uint64_t *bytes, struct arcvmm_error *error)
{
	struct copy_result r = { 0 };
	struct err e = { 0 };
	int rc =
		agent_put(fd, PATIENCE_MS, from, to, copy_flags(flags), &r, &e);

	return copied(fd, rc, &r, bytes, &e, error);
}

int arcvmm_copy_from(int fd, const char *from, const char *to, unsigned flags,
		     uint64_t *bytes, struct arcvmm_error *error)
{
	struct copy_result r = { 0 };
	struct err e = { 0 };
	int rc =
		agent_get(fd, PATIENCE_MS, from, to, copy_flags(flags), &r, &e);

	return copied(fd, rc, &r, bytes, &e, error);
}

static int answered(int fd, int rc, const struct err *e,
		    struct arcvmm_error *error)
{
	close(fd);
	return public_error(error, rc, e);
}

int arcvmm_agent_ping(int fd, struct arcvmm_error *error)
{
	struct err e = { 0 };

	return answered(fd, agent_ping(fd, PATIENCE_MS, &e), &e, error);
}

int arcvmm_agent_stats(int fd, char **text, struct arcvmm_error *error)
{
	struct err e = { 0 };

	return answered(fd, agent_stats(fd, PATIENCE_MS, text, &e), &e, error);
}

int arcvmm_agent_power(int fd, bool reboot, unsigned grace_ms,
		       struct arcvmm_error *error)
{
	struct err e = { 0 };

	return answered(fd, agent_power(fd, PATIENCE_MS, reboot, grace_ms, &e),
			&e, error);
}

int arcvmm_agent_sync_time(int fd, struct arcvmm_error *error)
{
	struct err e = { 0 };
	int64_t behind;
	bool set;

	return answered(fd,
			agent_time_sync(fd, PATIENCE_MS, NSEC_PER_MSEC, &behind,
					&set, &e),
			&e, error);
}

int arcvmm_agent_log(int fd, bool follow, int out, struct arcvmm_error *error)
{
	struct err e = { 0 };

	return answered(fd, agent_log(fd, PATIENCE_MS, follow, out, &e), &e,
			error);
}
