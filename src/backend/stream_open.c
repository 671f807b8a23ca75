/* The kinds of streams, made from text, descriptors or functions. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <termios.h>
#include <unistd.h>

#include "backend/stream_impl.h"
#include "base/err.h"
#include "base/unix_socket.h"

int stream_open_host(struct stream **out, struct loop *l,
		     const struct stream_host *host, struct err *e)
{
	struct stream *s = stream_new(l, NULL);

	*out = s;
	if (!s)
		return err_set(e, -ENOMEM, "out of memory");
	s->is_host = true;
	s->host = *host;
	return 0;
}

static int open_fds(struct stream *s, int in_fd, int out_fd, struct err *e)
{
	int rc = 0;

	if (in_fd >= 0)
		rc = end_dup(&s->in, in_fd, O_RDONLY);
	if (rc < 0)
		return err_set(e, rc, "descriptor %d: %s", in_fd,
			       strerror(-rc));
	if (out_fd >= 0)
		rc = end_dup(&s->out, out_fd, O_WRONLY);
	if (rc < 0)
		return err_set(e, rc, "descriptor %d: %s", out_fd,
			       strerror(-rc));
	return 0;
}

int stream_open_fds(struct stream **out, struct loop *l, int in_fd, int out_fd,
		    struct err *e)
{
	struct stream *s = stream_new(l, NULL);
	int rc;

	*out = NULL;
	if (!s)
		return err_set(e, -ENOMEM, "out of memory");
	rc = open_fds(s, in_fd, out_fd, e);
	if (rc < 0)
		stream_free(s);
	else
		*out = s;
	return rc;
}

/* ---- pty ---- */

static int open_pty(struct stream *s, struct err *e)
{
	struct termios tio;
	char path[64];
	int fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return err_set(e, -errno, "a new terminal (pty): %s",
			       strerror(errno));
	s->in.fd = fd;
	s->in.how = s->out.how = HOW_PLAIN;
	s->out.fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (s->out.fd < 0 || grantpt(fd) < 0 || unlockpt(fd) < 0 ||
	    ptsname_r(fd, path, sizeof(path)))
		return err_set(e, -errno, "a new terminal (pty): %s",
			       strerror(errno));
	s->path = strdup(path);
	if (!s->path)
		return err_set(e, -ENOMEM, "out of memory");
	s->terminal_fd = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (s->terminal_fd < 0 || tcgetattr(s->terminal_fd, &tio) < 0)
		return err_set(e, -errno, "%s: %s", path, strerror(errno));
	cfmakeraw(&tio);
	tcsetattr(s->terminal_fd, TCSANOW, &tio);
	/* Without inotify it counts as always read: the guest may wait. */
	s->aux_fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (s->aux_fd >= 0 &&
	    inotify_add_watch(s->aux_fd, path, IN_OPEN | IN_CLOSE) >= 0)
		s->present = false;
	return 0;
}

/* ---- unix ---- */

static int open_unix(struct stream *s, const char *path, struct err *e)
{
	s->path = strdup(path);
	if (!s->path)
		return err_set(e, -ENOMEM, "out of memory");
	s->aux_fd = unix_listen(path, 4, e);
	if (s->aux_fd < 0)
		return err_prefix(e, s->aux_fd, "unix");
	s->unlink_path = true;
	s->present = false;
	return 0;
}

/* ---- from text ---- */

static int open_file(struct stream *s, const char *path, struct err *e)
{
	s->out.fd = open(path,
			 O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY |
				 O_NONBLOCK,
			 0666);
	if (s->out.fd < 0)
		return err_set(e, -errno, "file:%s: %s", path, strerror(errno));
	s->out.how = fd_is(s->out.fd, S_IFSOCK) ? HOW_SOCKET : HOW_PLAIN;
	s->out.regular = fd_is(s->out.fd, S_IFREG);
	return 0;
}

static int open_fd_spec(struct stream *s, const char *text, struct err *e)
{
	int in, out, end = 0;

	if (sscanf(text, "%d%n:%d%n", &in, &end, &out, &end) < 2)
		out = in;
	if (!end || text[end] || in < 0 || out < 0)
		return err_set(e, -EINVAL,
			       "fd:%s: must be fd:N or fd:N:M, numbers of "
			       "open descriptors",
			       text);
	return open_fds(s, in, out, e);
}

int stream_open(struct stream **out, struct loop *l, const char *spec,
		const struct log *log, struct err *e)
{
	struct stream *s = stream_new(l, log);
	int rc;

	*out = NULL;
	if (!s)
		return err_set(e, -ENOMEM, "out of memory");
	if (!strcmp(spec, "stdio"))
		rc = open_fds(s, 0, 1, e);
	else if (!strcmp(spec, "pty"))
		rc = open_pty(s, e);
	else if (!strncmp(spec, "file:", 5))
		rc = open_file(s, spec + 5, e);
	else if (!strncmp(spec, "unix:", 5))
		rc = open_unix(s, spec + 5, e);
	else if (!strncmp(spec, "fd:", 3))
		rc = open_fd_spec(s, spec + 3, e);
	else if (!strcmp(spec, "off"))
		rc = 0;
	else
		rc = err_set(e, -EINVAL, "\"%s\": must be one of %s", spec,
			     STREAM_SPECS);
	if (rc < 0)
		stream_free(s);
	else
		*out = s;
	return rc;
}
