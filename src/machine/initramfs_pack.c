#include "machine/initramfs_pack.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/util.h"

enum piece_kind { PIECE_MEM, PIECE_FD, PIECE_FILE };

struct piece {
	enum piece_kind kind;
	int fd; /* PIECE_FD; the directory for PIECE_FILE */
	uint64_t len, off;
	union {
		const void *mem;
		const struct piece_file *file;
	};
};

/* What a file was when it was listed; it must still be that when read. */
struct piece_file {
	dev_t dev;
	ino_t ino;
	struct timespec mtime;
	char path[];
};

#define CHUNK_SIZE 65536

/* What the list owns, newest first: chunks of copied bytes, buffers, fds. */
struct owned {
	struct owned *next;
	void *heap; /* handed over, or NULL */
	int fd; /* or -1 */
	size_t used, size;
	char data[];
};

struct pack {
	int error;
	uint64_t size;
	struct piece *pieces;
	size_t count, room;
	struct owned *owned;
	struct owned *chunk; /* where copies go, one of owned */
};

struct pack *pack_create(void)
{
	return calloc(1, sizeof(struct pack));
}

void pack_destroy(struct pack *p)
{
	if (!p)
		return;
	for (struct owned *o = p->owned, *next; o; o = next) {
		next = o->next;
		if (o->fd >= 0)
			close(o->fd);
		free(o->heap);
		free(o);
	}
	free(p->pieces);
	free(p);
}

int pack_error(const struct pack *p)
{
	return p->error;
}

static void pack_fail(struct pack *p, int code)
{
	if (!p->error)
		p->error = code;
}

uint64_t pack_size(const struct pack *p)
{
	return p->size;
}

static struct owned *own(struct pack *p, size_t size)
{
	struct owned *o = malloc(sizeof(*o) + size);

	if (!o) {
		pack_fail(p, -ENOMEM);
		return NULL;
	}
	*o = (struct owned){ .next = p->owned, .fd = -1, .size = size };
	p->owned = o;
	return o;
}

static struct piece *piece_add(struct pack *p)
{
	if (p->error)
		return NULL;
	if (p->count == p->room) {
		size_t room = p->room ? 2 * p->room : 64;
		struct piece *n;

		n = reallocarray(p->pieces, room, sizeof(*n));
		if (!n) {
			pack_fail(p, -ENOMEM);
			return NULL;
		}
		p->pieces = n;
		p->room = room;
	}
	return &p->pieces[p->count++];
}

/* @len bytes of the list's own memory, or NULL when it failed. */
static char *chunk_take(struct pack *p, size_t len)
{
	struct owned *c = p->chunk;

	if (p->error)
		return NULL;
	if (!c || c->size - c->used < len) {
		c = own(p, max_of(len, (size_t)CHUNK_SIZE));
		if (!c)
			return NULL;
		p->chunk = c;
	}
	c->used += len;
	return c->data + c->used - len;
}

void pack_borrow(struct pack *p, const void *data, size_t len)
{
	struct piece *last = p->count ? &p->pieces[p->count - 1] : NULL;

	if (!len)
		return;
	/* Copies that follow each other in a chunk are one piece. */
	if (last && last->kind == PIECE_MEM && !p->error &&
	    (const char *)last->mem + last->len == data) {
		last->len += len;
	} else {
		last = piece_add(p);
		if (!last)
			return;
		*last = (struct piece){
			.kind = PIECE_MEM, .fd = -1, .len = len, .mem = data
		};
	}
	p->size += len;
}

void pack_bytes(struct pack *p, const void *data, size_t len)
{
	char *to = chunk_take(p, len);

	if (!to)
		return;
	memcpy(to, data, len);
	pack_borrow(p, to, len);
}

void pack_give(struct pack *p, void *heap, size_t len)
{
	struct owned *o = own(p, 0);

	if (!o) {
		free(heap);
		return;
	}
	o->heap = heap;
	pack_borrow(p, heap, len);
}

void pack_fd(struct pack *p, int fd, int take, uint64_t off, uint64_t len)
{
	struct piece *piece;

	if (take) {
		struct owned *o = own(p, 0);

		if (!o) {
			close(fd);
			return;
		}
		o->fd = fd;
	}
	if (!len)
		return;
	piece = piece_add(p);
	if (!piece)
		return;
	*piece = (struct piece){
		.kind = PIECE_FD, .fd = fd, .off = off, .len = len
	};
	p->size += len;
}

void pack_file(struct pack *p, int dirfd, const char *path,
	       const struct stat *st)
{
	size_t n = strlen(path) + 1;
	/* Chunks are byte-granular; the struct needs its alignment. */
	char *raw = chunk_take(p, sizeof(struct piece_file) + n + 7);
	struct piece_file *f;
	struct piece *piece;

	if (!raw || !st->st_size)
		return;
	f = (void *)align_up((uintptr_t)raw, 8);
	f->dev = st->st_dev;
	f->ino = st->st_ino;
	f->mtime = st->st_mtim;
	memcpy(f->path, path, n);
	piece = piece_add(p);
	if (!piece)
		return;
	*piece = (struct piece){ .kind = PIECE_FILE,
				 .fd = dirfd,
				 .len = (uint64_t)st->st_size,
				 .file = f };
	p->size += piece->len;
}

void pack_pad(struct pack *p, unsigned align)
{
	static const char zeros[512];

	pack_bytes(p, zeros, align_up(p->size, align) - p->size);
}

static int read_range(int fd, uint64_t off, void *dst, uint64_t len)
{
	while (len) {
		ssize_t n = pread(fd, dst, min_of(len, MiB(256)), (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -ESTALE;
		dst = (char *)dst + n;
		off += (uint64_t)n;
		len -= (uint64_t)n;
	}
	return 0;
}

static int load_file(const struct piece *piece, void *dst, struct err *e)
{
	const struct piece_file *f = piece->file;
	int fd = openat(piece->fd, f->path,
			O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	struct stat st;
	int ret;

	if (fd < 0)
		return err_set(e, -errno, "%s: %s", f->path, strerror(errno));
	if (fstat(fd, &st) < 0)
		ret = -errno;
	else if (st.st_dev != f->dev || st.st_ino != f->ino ||
		 (uint64_t)st.st_size != piece->len ||
		 st.st_mtim.tv_sec != f->mtime.tv_sec ||
		 st.st_mtim.tv_nsec != f->mtime.tv_nsec)
		ret = -ESTALE;
	else
		ret = read_range(fd, 0, dst, piece->len);
	close(fd);
	if (ret == -ESTALE)
		return err_set(e, ret, "%s: changed while it was being packed",
			       f->path);
	if (ret < 0)
		return err_set(e, ret, "%s: %s", f->path, strerror(-ret));
	return 0;
}

int pack_load(const struct pack *p, void *dst, struct err *e)
{
	char *to = dst;

	for (size_t i = 0; i < p->count; i++) {
		const struct piece *piece = &p->pieces[i];
		int ret = 0;

		switch (piece->kind) {
		case PIECE_MEM:
			memcpy(to, piece->mem, piece->len);
			break;
		case PIECE_FD:
			ret = read_range(piece->fd, piece->off, to, piece->len);
			if (ret < 0)
				err_set(e, ret, "reading the initramfs: %s",
					ret == -ESTALE
						? "a file got shorter while it "
						  "was being packed"
						: strerror(-ret));
			break;
		case PIECE_FILE:
			ret = load_file(piece, to, e);
			break;
		}
		if (ret < 0)
			return ret;
		to += piece->len;
	}
	return 0;
}

/*
 * newc: a header of "070701" and 13 numbers as 8 hex digits, the name with its
 * closing 0 padded so that the data starts at a multiple of 4, and the data
 * padded likewise.
 */
void cpio_header(struct pack *p, const struct cpio_entry *en)
{
	size_t name = strlen(en->name);
	char head[6 + 13 * 8 + 1];

	if (name > CPIO_MAX_NAME) {
		pack_fail(p, -ENAMETOOLONG);
		return;
	}
	if (en->size > CPIO_MAX_SIZE) {
		pack_fail(p, -EFBIG);
		return;
	}
	snprintf(head, sizeof(head),
		 "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
		 en->ino, en->mode, en->uid, en->gid, en->nlink,
		 (uint32_t)min_of(en->mtime, (uint64_t)UINT32_MAX),
		 (uint32_t)en->size, 0, 0, en->rdev_major, en->rdev_minor,
		 (uint32_t)(name + 1), 0);
	pack_bytes(p, head, sizeof(head) - 1);
	pack_bytes(p, en->name, name + 1);
	pack_pad(p, 4);
}

void cpio_trailer(struct pack *p)
{
	cpio_header(p,
		    &(struct cpio_entry){ .name = CPIO_TRAILER, .nlink = 1 });
}
