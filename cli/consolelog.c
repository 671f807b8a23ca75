#include "cli/consolelog.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "cli/cli.h"

static int open_log(const struct instance *i)
{
	char path[192];

	return open(instance_path(i, "console.log", path, sizeof(path)),
		    O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
}

int console_log_open(struct console_log *l, const struct instance *i, int *out)
{
	int p[2];

	*l = (struct console_log){ .instance = i, .in = -1, .file = -1 };
	if (pipe2(p, O_CLOEXEC | O_NONBLOCK))
		return complain("pipe: %s", strerror(errno));
	l->in = p[0];
	*out = p[1];
	if (i)
		l->file = open_log(i);
	return 0;
}

static void rotate(struct console_log *l)
{
	char now[192], before[192];

	instance_path(l->instance, "console.log", now, sizeof(now));
	instance_path(l->instance, "console.log.1", before, sizeof(before));
	if (l->file >= 0)
		close(l->file);
	rename(now, before);
	l->file = open_log(l->instance);
	l->size = 0;
}

bool console_log_pump(struct console_log *l)
{
	char buf[16384];
	ssize_t n;

	while ((n = read(l->in, buf, sizeof(buf))) > 0) {
		if (!l->instance)
			continue;
		if (l->size + (size_t)n > CONSOLE_LOG_MAX)
			rotate(l);
		/* A full disk loses the log, not the run. */
		if (l->file >= 0 && write(l->file, buf, (size_t)n) == n)
			l->size += (size_t)n;
	}
	return n < 0 && errno == EAGAIN;
}

void console_log_close(struct console_log *l)
{
	if (l->in >= 0)
		close(l->in);
	if (l->file >= 0)
		close(l->file);
	l->in = l->file = -1;
}

/* ---- reading it ---- */

/* From @fd's position to its end; the bytes copied, or -1. */
static long copy_out(int fd, int out)
{
	char buf[16384];
	long all = 0;
	ssize_t n;

	while ((n = read(fd, buf, sizeof(buf))) > 0) {
		for (ssize_t at = 0; at < n;) {
			ssize_t w = write(out, buf + at, (size_t)(n - at));

			if (w < 0)
				return -1;
			at += w;
		}
		all += n;
	}
	return n < 0 ? -1 : all;
}

static int open_for_reading(const struct instance *i, const char *file)
{
	char path[192];

	return open(instance_path(i, file, path, sizeof(path)),
		    O_RDONLY | O_CLOEXEC);
}

/*
 * Follow: inotify tells of writes, of the rotation (the file is created anew)
 * and of the end (the directory goes). No polling.
 */
static int follow_log(const struct instance *i, int fd)
{
	char events[4096];
	int in = inotify_init1(IN_CLOEXEC), rc = 0;
	int watch = in < 0 ? -1
			   : inotify_add_watch(in, i->dir,
					       IN_MODIFY | IN_CREATE |
						       IN_DELETE_SELF);

	if (watch < 0)
		return complain("inotify: %s", strerror(errno));
	while (!rc && copy_out(fd, STDOUT_FILENO) >= 0) {
		ssize_t n = read(in, events, sizeof(events));

		for (char *p = events; n > 0 && p < events + n;) {
			struct inotify_event *e = (void *)p;

			p += sizeof(*e) + e->len;
			if (e->mask & (IN_DELETE_SELF | IN_IGNORED))
				rc = 1;
			if (!(e->mask & IN_CREATE) || !e->len ||
			    strcmp(e->name, "console.log"))
				continue;
			copy_out(fd, STDOUT_FILENO);
			close(fd);
			fd = open_for_reading(i, "console.log");
		}
		if (n <= 0)
			break;
	}
	copy_out(fd, STDOUT_FILENO);
	close(in);
	close(fd);
	return 0;
}

int console_log_print(const struct instance *i, bool follow)
{
	int before = open_for_reading(i, "console.log.1");
	int fd = open_for_reading(i, "console.log");

	if (before >= 0) {
		copy_out(before, STDOUT_FILENO);
		close(before);
	}
	if (fd < 0)
		return complain("VM '%s' keeps no console log: its console is "
				"connected elsewhere",
				i->name);
	if (follow)
		return follow_log(i, fd);
	copy_out(fd, STDOUT_FILENO);
	close(fd);
	return 0;
}

void console_log_tail(const struct instance *i, unsigned lines)
{
	char buf[8192];
	int fd = open_for_reading(i, "console.log");
	off_t size = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
	off_t from = size > (off_t)sizeof(buf) ? size - (off_t)sizeof(buf) : 0;
	ssize_t n = fd < 0 ? 0 : pread(fd, buf, sizeof(buf), from);
	ssize_t at = n;

	if (fd >= 0)
		close(fd);
	if (n <= 0)
		return;
	for (unsigned seen = 0; at > 0; at--)
		if (buf[at - 1] == '\n' && at != n && ++seen == lines)
			break;
	fprintf(stderr, "arcvmm: the console's last lines:\n%.*s",
		(int)(n - at), buf + at);
}
