#include "agent/copy.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/bytes.h"

struct entry {
	char kind;
	uint32_t mode, uid, gid;
	struct timespec times[2]; /* access, modification */
	dev_t rdev;
	char name[NAME_MAX + 1];
	char target[PATH_MAX];
};

/* A directory being filled. */
struct level {
	int fd;
	bool keep; /* it was there: leave its mode and times alone */
	uint32_t mode, uid, gid;
	struct timespec times[2];
};

struct receiver {
	struct copy_result *r;
	unsigned flags;
	int topfd; /* where the first entry goes */
	char top[NAME_MAX + 1]; /* its name there; "": as it is called */
	struct level levels[COPY_DEPTH_MAX + 1];
	int depth;
	bool begun; /* the first entry came */
	int file; /* being written, or -1 */
	char temp[32]; /* its name until it is whole */
	struct entry cur; /* the file's */
};

static int fail(struct receiver *r, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
static int fail(struct receiver *r, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(r->r->why, sizeof(r->r->why), fmt, ap);
	va_end(ap);
	frame_printable(r->r->why);
	return code;
}

static int fail_errno(struct receiver *r, const char *name)
{
	int code = errno;

	return fail(r, -code, "%.255s: %s", name, strerror(code));
}

static int here(const struct receiver *r)
{
	return r->depth ? r->levels[r->depth - 1].fd : r->topfd;
}

static void temp_name(char out[32])
{
	uint64_t v = 0;

	getrandom(&v, sizeof(v), 0);
	snprintf(out, 32, ".arcvmm-%016llx", (unsigned long long)v);
}

/* ---- entries ---- */

static bool bad_time(uint32_t nsec)
{
	return nsec >= 1000000000;
}

static int decode(struct receiver *r, const struct frame *f, struct entry *en)
{
	const uint8_t *p = f->data;
	size_t n, t;

	if (f->len < COPY_ENTRY_HEAD)
		return fail(r, -EPROTO, "an entry was cut short");
	n = get_le16(p + 52);
	if (n > NAME_MAX || n > f->len - COPY_ENTRY_HEAD || !n ||
	    f->len - COPY_ENTRY_HEAD - n >= PATH_MAX ||
	    bad_time(get_le32(p + 24)) || bad_time(get_le32(p + 36)))
		return fail(r, -EPROTO, "a damaged entry");
	t = f->len - COPY_ENTRY_HEAD - n;
	*en = (struct entry){
		.kind = (char)p[0],
		.mode = get_le32(p + 4) & 07777,
		.uid = get_le32(p + 8),
		.gid = get_le32(p + 12),
		.times = { { (time_t)get_le64(p + 28), get_le32(p + 36) },
			   { (time_t)get_le64(p + 16), get_le32(p + 24) } },
		.rdev = makedev(get_le32(p + 40), get_le32(p + 44)),
	};
	memcpy(en->name, p + COPY_ENTRY_HEAD, n);
	memcpy(en->target, p + COPY_ENTRY_HEAD + n, t);
	if (memchr(en->name, '/', n) || memchr(en->name, 0, n) ||
	    memchr(en->target, 0, t) || !strcmp(en->name, ".."))
		return fail(r, -EPROTO, "an entry with a name it may not have");
	if (!strcmp(en->name, ".") && (r->begun || en->kind != 'd'))
		return fail(r, -EPROTO, "an entry with a name it may not have");
	/* Without its owner a file gets no rights of that owner. */
	if (!(r->flags & COPY_OWNER) && en->kind != 'd')
		en->mode &= 01777;
	if (!r->begun && *r->top && strcmp(en->name, "."))
		strcpy(en->name, r->top);
	return 0;
}

/* Put @temp, which is finished, in the place of @name. */
static int settle(struct receiver *r, const char *temp, const char *name)
{
	int dir = here(r), ret = 0;

	if (renameat(dir, temp, dir, name) < 0)
		ret = fail_errno(r, name);
	/* Renaming a link over another of the same file does nothing. */
	unlinkat(dir, temp, 0);
	return ret;
}

static int begin_file(struct receiver *r, const struct entry *en)
{
	temp_name(r->temp);
	r->file = openat(here(r), r->temp,
			 O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
			 0600);
	if (r->file < 0)
		return fail_errno(r, en->name);
	r->cur = *en;
	return 0;
}

static void drop_file(struct receiver *r)
{
	if (r->file < 0)
		return;
	close(r->file);
	r->file = -1;
	unlinkat(here(r), r->temp, 0);
}

static int end_file(struct receiver *r, const struct frame *f)
{
	const struct entry *en = &r->cur;
	uint64_t size;
	int ret = 0;

	if (f->len < 8 || (size = get_le64(f->data)) > INT64_MAX)
		return fail(r, -EPROTO, "a damaged end of file");
	if (ftruncate(r->file, (off_t)size) < 0 ||
	    ((r->flags & COPY_OWNER) &&
	     fchown(r->file, en->uid, en->gid) < 0) ||
	    fchmod(r->file, en->mode) < 0 || futimens(r->file, en->times) < 0)
		ret = fail_errno(r, en->name);
	/* A full disk may only say so here. */
	if (close(r->file) < 0 && !ret)
		ret = fail_errno(r, en->name);
	r->file = -1;
	if (ret < 0) {
		unlinkat(here(r), r->temp, 0);
		return ret;
	}
	return settle(r, r->temp, en->name);
}

static int file_data(struct receiver *r, const struct frame *f)
{
	const uint8_t *p = f->data + 8;
	uint64_t at;
	size_t len;

	if (f->len < 8)
		return fail(r, -EPROTO, "data without a place");
	at = get_le64(f->data);
	len = f->len - 8;
	if (at > INT64_MAX - len)
		return fail(r, -EFBIG, "%.255s: data beyond any file",
			    r->cur.name);
	while (len) {
		ssize_t n = pwrite(r->file, p, len, (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return fail_errno(r, r->cur.name);
		p += n;
		at += (uint64_t)n;
		len -= (size_t)n;
		r->r->bytes += (uint64_t)n;
	}
	return 0;
}

static int begin_dir(struct receiver *r, const struct entry *en)
{
	struct level *l = &r->levels[r->depth];
	int fd;

	if (r->depth >= COPY_DEPTH_MAX)
		return fail(r, -ELOOP, "directories nested too deeply");
	*l = (struct level){ .mode = en->mode, .uid = en->uid, .gid = en->gid };
	memcpy(l->times, en->times, sizeof(l->times));
	if (!strcmp(en->name, ".")) {
		l->keep = true;
		/* Under a name of its own, "." makes that directory. */
		if (*r->top && mkdirat(r->topfd, r->top, 0777) < 0 &&
		    errno != EEXIST)
			return fail_errno(r, r->top);
		fd = openat(r->topfd, *r->top ? r->top : ".",
			    O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	} else {
		if (mkdirat(here(r), en->name, 0700) < 0) {
			if (errno != EEXIST)
				return fail_errno(r, en->name);
		}
		fd = openat(here(r), en->name,
			    O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	}
	if (fd < 0)
		return fail_errno(r, en->name);
	l->fd = fd;
	r->depth++;
	return 0;
}

static int end_dir(struct receiver *r)
{
	struct level *l = &r->levels[--r->depth];
	int ret = 0;

	if (!l->keep &&
	    (((r->flags & COPY_OWNER) && fchown(l->fd, l->uid, l->gid) < 0) ||
	     fchmod(l->fd, l->mode) < 0 || futimens(l->fd, l->times) < 0))
		ret = fail_errno(r, "a directory");
	close(l->fd);
	return ret;
}

/*
 * The directory of @path (components from the first entry on) as a descriptor
 * and its last component, never through a symbolic link.
 */
static int walk(struct receiver *r, char *path, char **last)
{
	int fd = dup(r->levels[0].fd);
	char *slash;

	while (fd >= 0 && (slash = strchr(path, '/'))) {
		int next;

		*slash = 0;
		if (!*path || !strcmp(path, ".") || !strcmp(path, "..")) {
			close(fd);
			errno = EINVAL;
			return -1;
		}
		next = openat(fd, path,
			      O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		close(fd);
		fd = next;
		path = slash + 1;
	}
	*last = path;
	if (fd >= 0 && (!*path || !strcmp(path, ".") || !strcmp(path, ".."))) {
		close(fd);
		errno = EINVAL;
		return -1;
	}
	return fd;
}

static int make_hard(struct receiver *r, struct entry *en)
{
	char temp[32], *last;
	int from, ret;

	if (!r->depth)
		return fail(r, -EPROTO, "a hard link to nothing");
	from = walk(r, en->target, &last);
	if (from < 0)
		return fail_errno(r, en->name);
	temp_name(temp);
	ret = linkat(from, last, here(r), temp, 0) < 0
		      ? fail_errno(r, en->name)
		      : settle(r, temp, en->name);
	close(from);
	return ret;
}

/* Everything that is made by one call. */
static int make_node(struct receiver *r, struct entry *en)
{
	int dir = here(r), ret;
	char temp[32];

	temp_name(temp);
	switch (en->kind) {
	case 'l':
		ret = symlinkat(en->target, dir, temp);
		break;
	case 'p':
		ret = mkfifoat(dir, temp, 0600);
		break;
	default:
		if (!(r->flags & COPY_DEVICES))
			return fail(r, -EPERM,
				    "%.255s: device nodes are not copied",
				    en->name);
		ret = mknodat(dir, temp,
			      0600 | (en->kind == 'c' ? S_IFCHR : S_IFBLK),
			      en->rdev);
		break;
	}
	if (ret < 0)
		return fail_errno(r, en->name);
	if (((r->flags & COPY_OWNER) &&
	     fchownat(dir, temp, en->uid, en->gid, AT_SYMLINK_NOFOLLOW) < 0) ||
	    (en->kind != 'l' && fchmodat(dir, temp, en->mode, 0) < 0) ||
	    utimensat(dir, temp, en->times, AT_SYMLINK_NOFOLLOW) < 0) {
		ret = fail_errno(r, en->name);
		unlinkat(dir, temp, 0);
		return ret;
	}
	return settle(r, temp, en->name);
}

static int take_entry(struct receiver *r, const struct frame *f)
{
	struct entry *en = malloc(sizeof(*en));
	int ret;

	if (!en)
		return fail(r, -ENOMEM, "out of memory");
	if (r->file >= 0 || (r->begun && !r->depth))
		ret = fail(r, -EPROTO, "an entry out of place");
	else
		ret = decode(r, f, en);
	if (!ret) {
		switch (en->kind) {
		case 'f':
			ret = begin_file(r, en);
			break;
		case 'd':
			ret = begin_dir(r, en);
			break;
		case 'h':
			ret = make_hard(r, en);
			break;
		case 'l':
		case 'p':
		case 'c':
		case 'b':
			ret = make_node(r, en);
			break;
		default:
			ret = fail(r, -EPROTO, "an entry of unknown kind");
		}
		r->begun = true;
		r->r->entries++;
	}
	free(en);
	return ret;
}

/* 1: the sender is done. */
static int take_frame(struct receiver *r, const struct frame *f)
{
	int status, ret;

	switch (f->type) {
	case AGENT_HELLO:
		ret = frame_check_hello(f);
		return ret < 0 ? fail(r, ret,
				      "the other side speaks another "
				      "protocol")
			       : 0;
	case AGENT_ERROR:
		return -frame_get_error(f, &status, r->r->why,
					sizeof(r->r->why));
	case AGENT_TREE_ENTRY:
		return take_entry(r, f);
	case AGENT_TREE_DATA:
		return r->file < 0 ? fail(r, -EPROTO, "data out of place")
				   : file_data(r, f);
	case AGENT_TREE_END:
		if (r->file >= 0)
			return end_file(r, f);
		return r->depth ? end_dir(r)
				: fail(r, -EPROTO, "an end out of place");
	case AGENT_TREE_DONE:
		if (r->file >= 0 || r->depth || !r->begun)
			return fail(r, -EPROTO, "the end came too early");
		return 1;
	default:
		return fail(r, -EPROTO, "unexpected message (%u)", f->type);
	}
}

/* ---- the whole ---- */

/* Where the first entry goes. */
static int open_top(struct receiver *r, const char *dest)
{
	size_t end = strlen(dest), at;
	char dir[PATH_MAX];

	r->topfd = open(dest, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (r->topfd >= 0)
		return 0;
	if ((errno != ENOENT && errno != ENOTDIR) || !end || end >= PATH_MAX)
		return fail_errno(r, dest);
	if (errno == ENOTDIR && dest[end - 1] == '/')
		return fail_errno(r, dest);
	while (end && dest[end - 1] == '/')
		end--;
	for (at = end; at && dest[at - 1] != '/'; at--)
		;
	if (end - at > NAME_MAX)
		return fail(r, -ENAMETOOLONG, "%.255s: name too long", dest);
	memcpy(r->top, dest + at, end - at);
	snprintf(dir, sizeof(dir), "%.*s", (int)at, dest);
	r->topfd = open(at ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (!strcmp(r->top, ".") || !strcmp(r->top, ".."))
		return fail(r, -ENOENT, "%.255s: no such directory", dest);
	return r->topfd < 0 ? fail_errno(r, dir) : 0;
}

static void answer(struct receiver *r, int fd, int ret)
{
	struct frame_out out = { 0 };
	uint8_t counts[16];

	put_le64(counts, r->r->entries);
	put_le64(counts + 8, r->r->bytes);
	if (ret < 0)
		frame_put_error(&out, ret, 1, r->r->why);
	else
		frame_put(&out, AGENT_TREE_RESULT, counts, sizeof(counts), NULL,
			  0);
	frame_out_send(&out, fd);
	frame_out_free(&out);
}

int copy_recv(int fd, struct frame_in *in, const char *dest, unsigned flags,
	      struct copy_result *result)
{
	struct receiver *r = calloc(1, sizeof(*r));
	struct frame f;
	bool gone = false; /* nobody to tell */
	int ret, got;

	*result = (struct copy_result){ 0 };
	if (!r) {
		snprintf(result->why, sizeof(result->why), "out of memory");
		return -ENOMEM;
	}
	r->r = result;
	r->flags = flags;
	r->file = r->topfd = -1;
	ret = open_top(r, dest);
	while (!ret) {
		got = frame_recv(in, fd, &f);
		if (got <= 0) {
			gone = true;
			ret = fail(r, got ? got : -EPIPE,
				   "the connection broke: %s",
				   strerror(got ? -got : EPIPE));
			break;
		}
		gone = f.type == AGENT_ERROR;
		ret = take_frame(r, &f);
	}
	drop_file(r);
	while (r->depth)
		close(r->levels[--r->depth].fd);
	if (!gone)
		answer(r, fd, ret);
	/* Let the sender come to its next look before the line goes dead. */
	while (ret < 0 && !gone && frame_recv(in, fd, &f) > 0 &&
	       f.type != AGENT_TREE_DONE && f.type != AGENT_ERROR)
		;
	if (r->topfd >= 0)
		close(r->topfd);
	free(r);
	return ret < 0 ? ret : 0;
}
