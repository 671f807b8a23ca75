#include "session.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "agent.h"
#include "agent/copy.h"
#include "base/bytes.h"
#include "util.h"

void session_error(struct session *s, int code, int status, const char *text)
{
	if (!frame_put_error(&s->out, code, status, text))
		frame_out_send(&s->out, s->fd);
}

/* Append a copy of @len bytes as a word. */
static int add_word(char ***list, size_t *count, const void *data, size_t len)
{
	char *word;

	if ((*count & (*count + 1)) == 0) { /* 0, 1, 3, 7: full */
		char **l = realloc(*list, (2 * *count + 2) * sizeof(*l));

		if (!l)
			return -ENOMEM;
		*list = l;
	}
	word = strndup(data, len);
	if (!word)
		return -ENOMEM;
	(*list)[(*count)++] = word;
	(*list)[*count] = NULL;
	return 0;
}

static int set_word(char **to, const void *data, size_t len)
{
	free(*to);
	*to = strndup(data, len);
	return *to ? 0 : -ENOMEM;
}

static int take_attr(struct session *s, const struct frame *f)
{
	const uint8_t *p = f->data + 2;
	size_t len = f->len - 2;
	unsigned tag;

	if (f->len < 2)
		return -EPROTO;
	s->attr_bytes += f->len + sizeof(char *);
	if (s->attr_bytes > AGENT_ATTR_MAX)
		return -E2BIG;
	tag = get_le16(f->data);
	if (tag != AGENT_ATTR_LIMIT && tag != AGENT_ATTR_TIMEOUT &&
	    tag != AGENT_ATTR_TTY && tag != AGENT_ATTR_FLAGS &&
	    memchr(p, 0, len))
		return -EINVAL; /* text has no 0 in it */
	switch (tag) {
	case AGENT_ATTR_ARG:
		return add_word(&s->argv, &s->argc, p, len);
	case AGENT_ATTR_ENV:
		if (!memchr(p, '=', len))
			return -EINVAL;
		return add_word(&s->env, &s->envc, p, len);
	case AGENT_ATTR_CWD:
		return set_word(&s->cwd, p, len);
	case AGENT_ATTR_USER:
		return set_word(&s->user, p, len);
	case AGENT_ATTR_PATH:
		return set_word(&s->path, p, len);
	case AGENT_ATTR_LIMIT:
		if (len < 20)
			return -EPROTO;
		return limits_add(&s->limits, (int)get_le32(p), get_le64(p + 4),
				  get_le64(p + 12));
	case AGENT_ATTR_TIMEOUT:
		if (len < 8)
			return -EPROTO;
		s->timeout_ns = get_le64(p);
		return 0;
	case AGENT_ATTR_TTY:
		if (len < 4)
			return -EPROTO;
		s->tty = true;
		s->rows = get_le16(p);
		s->columns = get_le16(p + 2);
		return 0;
	case AGENT_ATTR_FLAGS:
		if (len < 4)
			return -EPROTO;
		s->flags = get_le32(p);
		return 0;
	default: /* of a newer host: it must not be left out */
		return -EOPNOTSUPP;
	}
}

static void session_copy(struct session *s, bool put)
{
	struct copy_result r;
	struct frame_out *o = &s->out;

	if (!s->path || !*s->path) {
		session_error(s, EINVAL, 1, "no path given");
		return;
	}
	/* Relative paths are the root's, and modes are as they are sent. */
	if (chdir("/") < 0) {
		session_error(s, errno, 1, "the root directory is closed");
		return;
	}
	umask(0);
	frame_out_send(o, s->fd); /* our HELLO */
	if (put)
		copy_recv(
			s->fd, &s->in, s->path,
			COPY_DEVICES |
				(s->flags & AGENT_FLAG_OWNER ? COPY_OWNER : 0),
			&r);
	else
		copy_send(s->fd, &s->in, s->path, NULL, s->flags, &r);
}

/* True when @f was the request, and has been served. */
static bool request(struct session *s, const struct frame *f)
{
	switch (f->type) {
	case AGENT_EXEC:
		s->asked_ns = now_ns();
		session_exec(s);
		return true;
	case AGENT_PUT:
	case AGENT_GET:
		session_copy(s, f->type == AGENT_PUT);
		return true;
	case AGENT_STATS:
		session_stats(s);
		return true;
	case AGENT_POWER:
		session_power(s, f);
		return true;
	case AGENT_TIME:
		session_time(s, f);
		return true;
	case AGENT_LOG:
		session_log(s, f);
		return true;
	case AGENT_PING:
		if (!frame_put(&s->out, AGENT_REPLY, NULL, 0, f->data, f->len))
			frame_out_send(&s->out, s->fd);
		return true;
	}
	return false;
}

static void free_words(char **list)
{
	for (char **w = list; w && *w; w++)
		free(*w);
	free(list);
}

static void serve(struct session *s)
{
	struct frame f;
	char text[80];
	int ret = frame_recv(&s->in, s->fd, &f);

	if (ret <= 0)
		return;
	ret = frame_check_hello(&f);
	frame_put_hello(&s->out, "arcvmm-agent " ARCVMM_VERSION);
	if (ret < 0) {
		snprintf(text, sizeof(text),
			 "the agent speaks version %d of the protocol",
			 AGENT_VERSION);
		session_error(s, ret, 125,
			      ret == -EPROTONOSUPPORT ? text
						      : "no hello came first");
		return;
	}
	while (frame_recv(&s->in, s->fd, &f) > 0) {
		if (f.type == AGENT_ATTR) {
			ret = take_attr(s, &f);
			if (ret < 0) {
				snprintf(text, sizeof(text),
					 "attribute %u of the request: %s",
					 f.len < 2 ? 0 : get_le16(f.data),
					 strerror(-ret));
				session_error(s, ret, 125, text);
				return;
			}
		} else if (request(s, &f)) {
			return;
		} else {
			snprintf(text, sizeof(text), "unknown request %u",
				 f.type);
			session_error(s, EOPNOTSUPP, 125, text);
			return;
		}
	}
}

void agent_session(int fd)
{
	static const struct timeval patience = { .tv_sec = 10 };
	struct session s = { .fd = fd };

	signal(SIGPIPE, SIG_IGN);
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	serve(&s);
	/*
	 * What we said last must arrive: end our side, then wait a while for
	 * the host to end its own.
	 */
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	shutdown(fd, SHUT_WR);
	while (frame_in_fill(&s.in, fd) > 0)
		s.in.used = s.in.have;
	close(fd);
	frame_in_free(&s.in);
	frame_out_free(&s.out);
	free_words(s.argv);
	free_words(s.env);
	free(s.cwd);
	free(s.user);
	free(s.path);
}
