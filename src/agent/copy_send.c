#include "agent/copy.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/bytes.h"

/* Files with several names that are remembered; more are sent as copies. */
#define LINKS_MAX 65536u

struct link {
	dev_t dev;
	ino_t ino;
	char *path; /* from the first entry on */
};

struct sender {
	int fd;
	struct frame_in *in;
	struct frame_out out;
	struct copy_result *r;
	uint8_t *chunk;
	struct link *links;
	size_t link_count, link_room; /* open addressing, power of two */
	char path[PATH_MAX]; /* from the first entry on */
};

static int fail(struct sender *s, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
static int fail(struct sender *s, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(s->r->why, sizeof(s->r->why), fmt, ap);
	va_end(ap);
	frame_printable(s->r->why);
	return code;
}

static int lost(struct sender *s, int code)
{
	return fail(s, code, "the connection broke: %s", strerror(-code));
}

/* What the receiver says: its error, or its result. */
static int verdict(struct sender *s, const struct frame *f)
{
	int status;

	if (f->type == AGENT_ERROR)
		return -frame_get_error(f, &status, s->r->why,
					sizeof(s->r->why));
	if (f->type == AGENT_HELLO) {
		int ret = frame_check_hello(f);

		return ret < 0 ? fail(s, ret,
				      "the other side speaks another "
				      "protocol")
			       : 0;
	}
	if (f->type != AGENT_TREE_RESULT || f->len < 16)
		return fail(s, -EPROTO, "unexpected answer (%u)", f->type);
	s->r->entries = get_le64(f->data);
	s->r->bytes = get_le64(f->data + 8);
	return 1;
}

/* Send what is queued, after a look whether the receiver gave up. */
static int push(struct sender *s)
{
	struct pollfd p = { .fd = s->fd, .events = POLLIN };
	struct frame f;
	int ret;

	while (poll(&p, 1, 0) > 0) {
		ret = frame_recv(s->in, s->fd, &f);
		if (ret <= 0)
			return lost(s, ret ? ret : -EPIPE);
		ret = verdict(s, &f);
		if (ret)
			return ret < 0 ? ret
				       : fail(s, -EPROTO, "answered too early");
	}
	ret = frame_out_send(&s->out, s->fd);
	if (ret == -EPIPE || ret == -ECONNRESET) {
		/* It may have said why before it went. */
		while (frame_recv(s->in, s->fd, &f) > 0)
			if (f.type == AGENT_ERROR)
				return verdict(s, &f);
	}
	return ret < 0 ? lost(s, ret) : 0;
}

static int queue(struct sender *s, uint8_t type, const void *head,
		 size_t head_len, const void *data, size_t len)
{
	int ret = frame_put(&s->out, type, head, head_len, data, len);

	if (ret < 0)
		return fail(s, ret, "%s: %s", s->path, strerror(-ret));
	return push(s);
}

static int send_entry(struct sender *s, char kind, const struct stat *st,
		      const char *name, const char *target)
{
	uint8_t h[COPY_ENTRY_HEAD + NAME_MAX] = { (uint8_t)kind };
	size_t n = strlen(name);

	put_le32(h + 4, st->st_mode & 07777);
	put_le32(h + 8, st->st_uid);
	put_le32(h + 12, st->st_gid);
	put_le64(h + 16, (uint64_t)st->st_mtim.tv_sec);
	put_le32(h + 24, (uint32_t)st->st_mtim.tv_nsec);
	put_le64(h + 28, (uint64_t)st->st_atim.tv_sec);
	put_le32(h + 36, (uint32_t)st->st_atim.tv_nsec);
	put_le32(h + 40, major(st->st_rdev));
	put_le32(h + 44, minor(st->st_rdev));
	if (n > NAME_MAX)
		return fail(s, -ENAMETOOLONG, "%s: name too long", name);
	put_le16(h + 52, (uint16_t)n);
	memcpy(h + COPY_ENTRY_HEAD, name, n);
	s->r->entries++;
	return queue(s, AGENT_TREE_ENTRY, h, COPY_ENTRY_HEAD + n, target,
		     strlen(target));
}

/* ---- files ---- */

static int send_range(struct sender *s, int fd, uint64_t at, uint64_t end,
		      uint64_t *got)
{
	while (at < end) {
		uint64_t left = end - at;
		uint8_t head[8];
		ssize_t n;
		int ret;

		n = pread(fd, s->chunk, left < AGENT_CHUNK ? left : AGENT_CHUNK,
			  (off_t)at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return fail(s, -errno, "%s: %s", s->path,
				    strerror(errno));
		if (!n)
			break;
		put_le64(head, at);
		ret = queue(s, AGENT_TREE_DATA, head, sizeof(head), s->chunk,
			    (size_t)n);
		if (ret < 0)
			return ret;
		s->r->bytes += (uint64_t)n;
		at += (uint64_t)n;
		*got = at;
	}
	return 0;
}

static int send_file(struct sender *s, int fd, const struct stat *st)
{
	uint64_t size = (uint64_t)st->st_size, at = 0, got = 0;
	uint8_t end[8];
	int ret = 0;

	/* Files of /proc and the like say 0 and have something. */
	if (!size) {
		ret = send_range(s, fd, 0, INT64_MAX, &size);
		at = size;
	}
	while (!ret && at < size) {
		off_t data = lseek(fd, (off_t)at, SEEK_DATA), hole;

		if (data < 0 && errno == ENXIO) /* a hole to the end */
			break;
		if (data < 0)
			data = (off_t)at;
		hole = lseek(fd, data, SEEK_HOLE);
		if (hole <= data || (uint64_t)hole > size)
			hole = (off_t)size;
		ret = send_range(s, fd, (uint64_t)data, (uint64_t)hole, &got);
		at = (uint64_t)hole;
	}
	if (ret < 0)
		return ret;
	put_le64(end, size);
	return queue(s, AGENT_TREE_END, end, sizeof(end), NULL, 0);
}

/* ---- hard links ---- */

static struct link *link_slot(struct link *tab, size_t room, dev_t dev,
			      ino_t ino)
{
	size_t i = (size_t)((ino * 0x9e3779b97f4a7c15ull ^ dev) >> 20);

	while (tab[i & (room - 1)].path && (tab[i & (room - 1)].ino != ino ||
					    tab[i & (room - 1)].dev != dev))
		i++;
	return &tab[i & (room - 1)];
}

/* Where the file was sent already, or NULL; it is remembered then. */
static const char *link_seen(struct sender *s, const struct stat *st)
{
	struct link *l;

	if (2 * s->link_count >= s->link_room) {
		size_t room = s->link_room ? 2 * s->link_room : 64;
		struct link *tab = calloc(room, sizeof(*tab));

		if (!tab)
			return NULL;
		for (size_t i = 0; i < s->link_room; i++)
			if (s->links[i].path)
				*link_slot(tab, room, s->links[i].dev,
					   s->links[i].ino) = s->links[i];
		free(s->links);
		s->links = tab;
		s->link_room = room;
	}
	l = link_slot(s->links, s->link_room, st->st_dev, st->st_ino);
	if (l->path)
		return l->path;
	if (s->link_count < LINKS_MAX) {
		*l = (struct link){ st->st_dev, st->st_ino, strdup(s->path) };
		s->link_count += l->path != NULL;
	}
	return NULL;
}

/* ---- the walk ---- */

static int send_any(struct sender *s, int dirfd, const char *base,
		    const char *name, size_t at, int depth, bool follow);

/* The entries of @fd, which is taken over; @at is where their names go. */
static int send_dir(struct sender *s, int fd, size_t at, int depth)
{
	DIR *d = fdopendir(fd);
	struct dirent *de;
	int ret = 0;

	if (!d) {
		close(fd);
		return fail(s, -ENOMEM, "out of memory");
	}
	for (errno = 0; !ret && (de = readdir(d)); errno = 0) {
		size_t n = strlen(de->d_name);

		if (!strcmp(de->d_name, ".") || !strcmp(de->d_name, ".."))
			continue;
		if (at + n + 2 > sizeof(s->path)) {
			ret = fail(s, -ENAMETOOLONG, "%s: path too long",
				   s->path);
			break;
		}
		memcpy(s->path + at, de->d_name, n + 1);
		ret = send_any(s, fd, de->d_name, de->d_name, at + n, depth,
			       false);
		/* What went while we looked was not meant. */
		if (ret == -ENOENT)
			ret = 0;
		s->path[at] = 0;
	}
	if (!ret && errno)
		ret = fail(s, -errno, "%s: %s", s->path, strerror(errno));
	closedir(d);
	return ret ? ret : queue(s, AGENT_TREE_END, NULL, 0, NULL, 0);
}

static int open_entry(struct sender *s, int dirfd, const char *base, int flags,
		      bool follow)
{
	int fd = openat(dirfd, base,
			O_RDONLY | O_CLOEXEC | O_NONBLOCK | flags |
				(follow ? 0 : O_NOFOLLOW));

	return fd < 0 ? fail(s, -errno, "%s: %s", *s->path ? s->path : base,
			     strerror(errno))
		      : fd;
}

static int send_any(struct sender *s, int dirfd, const char *base,
		    const char *name, size_t at, int depth, bool follow)
{
	char target[PATH_MAX];
	const char *seen;
	struct stat st;
	int fd, ret;
	ssize_t n;

	if (fstatat(dirfd, base, &st, follow ? 0 : AT_SYMLINK_NOFOLLOW) < 0)
		return fail(s, -errno, "%s: %s", *s->path ? s->path : base,
			    strerror(errno));
	if (!S_ISDIR(st.st_mode) && st.st_nlink > 1 && depth &&
	    (seen = link_seen(s, &st)))
		return send_entry(s, 'h', &st, name, seen);
	switch (st.st_mode & S_IFMT) {
	case S_IFREG:
		fd = open_entry(s, dirfd, base, 0, follow);
		if (fd < 0)
			return fd;
		ret = fstat(fd, &st) < 0 ? -errno
					 : send_entry(s, 'f', &st, name, "");
		if (!ret)
			ret = send_file(s, fd, &st);
		close(fd);
		return ret;
	case S_IFDIR:
		if (depth >= COPY_DEPTH_MAX)
			return fail(s, -ELOOP, "%s: nested too deeply",
				    s->path);
		fd = open_entry(s, dirfd, base, O_DIRECTORY, follow);
		if (fd < 0)
			return fd;
		ret = send_entry(s, 'd', &st, name, "");
		if (ret < 0) {
			close(fd);
			return ret;
		}
		if (depth && at + 2 < sizeof(s->path))
			s->path[at++] = '/';
		s->path[at] = 0;
		return send_dir(s, fd, at, depth + 1);
	case S_IFLNK:
		n = readlinkat(dirfd, base, target, sizeof(target) - 1);
		if (n < 0)
			return fail(s, -errno, "%s: %s", s->path,
				    strerror(errno));
		target[n] = 0;
		return send_entry(s, 'l', &st, name, target);
	case S_IFIFO:
		return send_entry(s, 'p', &st, name, "");
	case S_IFCHR:
		return send_entry(s, 'c', &st, name, "");
	case S_IFBLK:
		return send_entry(s, 'b', &st, name, "");
	default: /* sockets mean nothing elsewhere */
		return 0;
	}
}

/* The last component of @path, without slashes behind. */
static void last_component(const char *path, char out[NAME_MAX + 1])
{
	size_t end = strlen(path), at;

	while (end && path[end - 1] == '/')
		end--;
	for (at = end; at && path[at - 1] != '/'; at--)
		;
	snprintf(out, NAME_MAX + 1, "%.*s", (int)(end - at), path + at);
	if (!*out || !strcmp(out, "..")) /* "/", "..": what is in it */
		strcpy(out, ".");
}

int copy_send(int fd, struct frame_in *in, const char *path, const char *name,
	      unsigned flags, struct copy_result *r)
{
	struct sender *s = calloc(1, sizeof(*s));
	char last[NAME_MAX + 1];
	struct frame f;
	int ret;

	*r = (struct copy_result){ 0 };
	if (s)
		s->chunk = malloc(AGENT_CHUNK);
	if (!s || !s->chunk) {
		free(s);
		snprintf(r->why, sizeof(r->why), "out of memory");
		return -ENOMEM;
	}
	s->fd = fd;
	s->in = in;
	s->r = r;
	last_component(path, last);
	ret = send_any(s, AT_FDCWD, path, name ? name : last, 0, 0,
		       flags & AGENT_FLAG_FOLLOW);
	if (!ret) {
		ret = queue(s, AGENT_TREE_DONE, NULL, 0, NULL, 0);
		while (!ret && (ret = frame_recv(in, fd, &f)) > 0)
			ret = verdict(s, &f);
		if (!ret)
			ret = lost(s, -EPIPE);
		else if (ret < 0 && !*r->why)
			lost(s, ret);
	} else {
		/* Tell the receiver, if it is still there. */
		frame_out_free(&s->out);
		frame_put_error(&s->out, ret, 1, r->why);
		frame_out_send(&s->out, fd);
	}
	for (size_t i = 0; i < s->link_room; i++)
		free(s->links[i].path);
	free(s->links);
	frame_out_free(&s->out);
	free(s->chunk);
	free(s);
	return ret < 0 ? ret : 0;
}
