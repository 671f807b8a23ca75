#include "agent/request.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/util.h"

#define PATIENCE_MS 10000

struct talk {
	int fd;
	struct frame_in in;
	struct frame_out out;
	struct err *err;
};

static void end(struct talk *t)
{
	frame_in_free(&t->in);
	frame_out_free(&t->out);
}

static int broke(struct talk *t, int ret)
{
	if (!ret || ret == -EPIPE || ret == -ECONNRESET)
		return err_set(t->err, ret ? ret : -EPIPE,
			       "the connection to the agent broke");
	if (ret == -EPROTO)
		return err_set(t->err, ret, "the agent broke the protocol");
	return err_set(t->err, ret, "the connection to the agent: %s",
		       strerror(-ret));
}

/* A frame that is the last word: an error of the agent's. */
static int refused(struct talk *t, const struct frame *f)
{
	char why[400];
	int status, code = frame_get_error(f, &status, why, sizeof(why));

	return err_set(t->err, -code, "%s", why);
}

/* The next frame: 1; 0 at the end of the stream; -ETIMEDOUT, -errno. */
static int await(struct talk *t, int patience_ms, struct frame *f)
{
	uint64_t end_ns =
		clock_ns() +
		(uint64_t)(patience_ms > 0 ? patience_ms : PATIENCE_MS) *
			NSEC_PER_MSEC;
	int ret;

	while (!(ret = frame_in_next(&t->in, f))) {
		struct pollfd p = { .fd = t->fd, .events = POLLIN };
		uint64_t now = clock_ns();
		long n;

		if (now >= end_ns ||
		    !poll(&p, 1, (int)((end_ns - now) / NSEC_PER_MSEC) + 1))
			return -ETIMEDOUT;
		n = p.revents ? frame_in_fill(&t->in, t->fd) : -EAGAIN;
		if (n == -EAGAIN || n == -EINTR)
			continue;
		if (n <= 0)
			return (int)n;
	}
	return ret;
}

static int silent(struct talk *t)
{
	return err_set(t->err, -ETIMEDOUT, "the agent does not answer");
}

/* Send what is queued, then wait for the agent's first word. */
static int greet(struct talk *t, int patience_ms)
{
	struct frame f;
	int ret;

	fcntl(t->fd, F_SETFL, fcntl(t->fd, F_GETFL) & ~O_NONBLOCK);
	ret = frame_out_send(&t->out, t->fd);
	if (ret < 0)
		return broke(t, ret);
	ret = await(t, patience_ms, &f);
	if (ret == -ETIMEDOUT)
		return silent(t);
	if (ret == -EPROTO || (ret > 0 && frame_check_hello(&f) == -EPROTO))
		return err_set(t->err, -EPROTO, "what answers is not an agent");
	if (ret <= 0)
		return err_set(t->err, ret ? ret : -EPIPE,
			       "nobody answers: the guest has no agent, or it "
			       "is not up yet");
	/* One of another version says so in the error that follows. */
	return 0;
}

static void begin(struct talk *t, int fd, struct err *e)
{
	*t = (struct talk){ .fd = fd, .err = e };
	frame_put_hello(&t->out, "arcvmm " ARCVMM_VERSION);
}

/* The reply, good until the next fill. */
static int answer(struct talk *t, int patience_ms, struct frame *f)
{
	int ret = greet(t, patience_ms);

	if (ret < 0)
		return ret;
	ret = await(t, patience_ms, f);
	if (ret == -ETIMEDOUT)
		return silent(t);
	if (ret <= 0)
		return broke(t, ret);
	if (f->type == AGENT_ERROR)
		return refused(t, f);
	return f->type == AGENT_REPLY ? 0 : broke(t, -EPROTO);
}

int agent_ping(int fd, int patience_ms, struct err *e)
{
	struct frame f;
	struct talk t;
	int ret;

	begin(&t, fd, e);
	frame_put(&t.out, AGENT_PING, "ping", 4, NULL, 0);
	ret = answer(&t, patience_ms, &f);
	if (!ret && (f.len != 4 || memcmp(f.data, "ping", 4)))
		ret = broke(&t, -EPROTO);
	end(&t);
	return ret;
}

int agent_stats(int fd, int patience_ms, char **text, struct err *e)
{
	struct frame f;
	struct talk t;
	int ret;

	begin(&t, fd, e);
	frame_put(&t.out, AGENT_STATS, NULL, 0, NULL, 0);
	ret = answer(&t, patience_ms, &f);
	if (!ret) {
		*text = malloc(f.len + 1);
		if (!*text)
			ret = err_set(e, -ENOMEM, "out of memory");
	}
	if (!ret) {
		/* Every byte is the guest's. */
		for (uint32_t i = 0; i < f.len; i++) {
			uint8_t c = f.data[i];

			(*text)[i] = (c >= ' ' && c < 127) || c == '\n'
					     ? (char)c
					     : '?';
		}
		(*text)[f.len] = 0;
	}
	end(&t);
	return ret;
}

bool agent_stat(const char *text, const char *name, uint64_t *value)
{
	size_t n = strlen(name);

	for (; *text; text += strcspn(text, "\n"), text += *text == '\n') {
		if (strncmp(text, name, n) || text[n] != ' ' ||
		    text[n + 1] < '0' || text[n + 1] > '9')
			continue;
		errno = 0;
		*value = strtoull(text + n + 1, NULL, 10);
		return !errno;
	}
	return false;
}

int agent_power(int fd, int patience_ms, bool reboot, unsigned grace_ms,
		struct err *e)
{
	uint8_t b[8];
	struct frame f;
	struct talk t;
	int ret;

	begin(&t, fd, e);
	put_le32(b, reboot ? AGENT_POWER_REBOOT : AGENT_POWER_OFF);
	put_le32(b + 4, grace_ms);
	frame_put(&t.out, AGENT_POWER, b, sizeof(b), NULL, 0);
	ret = answer(&t, patience_ms, &f);
	end(&t);
	return ret;
}

int agent_time_sync(int fd, int patience_ms, uint64_t tolerance_ns,
		    int64_t *behind_ns, bool *set, struct err *e)
{
	uint8_t b[16];
	struct frame f;
	struct talk t;
	int ret;

	begin(&t, fd, e);
	put_le64(b, clock_real_ns());
	put_le64(b + 8, tolerance_ns);
	frame_put(&t.out, AGENT_TIME, b, sizeof(b), NULL, 0);
	ret = answer(&t, patience_ms, &f);
	if (!ret && f.len < 9)
		ret = broke(&t, -EPROTO);
	if (!ret) {
		*behind_ns = (int64_t)get_le64(f.data);
		*set = f.data[8];
	}
	end(&t);
	return ret;
}

static int write_all(int fd, const uint8_t *data, size_t len)
{
	while (len) {
		ssize_t n = write(fd, data, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		data += n;
		len -= (size_t)n;
	}
	return 0;
}

int agent_log(int fd, int patience_ms, bool follow, int out, struct err *e)
{
	uint8_t go_on = follow;
	struct frame f;
	struct talk t;
	int ret;

	begin(&t, fd, e);
	frame_put(&t.out, AGENT_LOG, &go_on, 1, NULL, 0);
	ret = greet(&t, patience_ms);
	while (!ret) {
		ret = frame_recv(&t.in, fd, &f);
		if (ret <= 0) {
			ret = broke(&t, ret);
			break;
		}
		ret = 0;
		if (f.type == AGENT_REPLY)
			break;
		if (f.type == AGENT_ERROR)
			ret = refused(&t, &f);
		else if (f.type != AGENT_STDOUT)
			ret = broke(&t, -EPROTO);
		else if ((ret = write_all(out, f.data, f.len)) < 0)
			err_set(e, ret, "writing the log: %s", strerror(-ret));
	}
	end(&t);
	return ret;
}

/* ---- copies ---- */

static int copy(int fd, int patience_ms, uint8_t type, const char *guest,
		const char *host, unsigned flags, struct copy_result *r,
		struct err *e)
{
	uint8_t b[4];
	struct talk t;
	int ret;

	*r = (struct copy_result){ 0 };
	if (!*guest)
		return err_set(e, -EINVAL, "no path in the guest given");
	begin(&t, fd, e);
	put_le32(b, flags & (AGENT_FLAG_OWNER | AGENT_FLAG_FOLLOW));
	ret = frame_put_attr(&t.out, AGENT_ATTR_PATH, guest, strlen(guest));
	if (!ret)
		ret = frame_put_attr(&t.out, AGENT_ATTR_FLAGS, b, sizeof(b));
	if (!ret)
		ret = frame_put(&t.out, type, NULL, 0, NULL, 0);
	if (ret < 0)
		err_set(e, ret, "%s", strerror(-ret));
	else
		ret = greet(&t, patience_ms);
	if (!ret) {
		if (type == AGENT_PUT)
			ret = copy_send(fd, &t.in, host, NULL, flags, r);
		else
			ret = copy_recv(
				fd, &t.in, host,
				flags & AGENT_FLAG_OWNER ? COPY_OWNER : 0, r);
		if (ret < 0)
			err_set(e, ret, "%s", r->why);
	}
	end(&t);
	return ret;
}

int agent_put(int fd, int patience_ms, const char *from, const char *to,
	      unsigned flags, struct copy_result *r, struct err *e)
{
	return copy(fd, patience_ms, AGENT_PUT, to, from, flags, r, e);
}

int agent_get(int fd, int patience_ms, const char *from, const char *to,
	      unsigned flags, struct copy_result *r, struct err *e)
{
	return copy(fd, patience_ms, AGENT_GET, from, to, flags, r, e);
}
