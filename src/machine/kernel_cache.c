/*
 * The cache of unpacked kernels: two kinds of files in one directory.
 *
 *   <sha256 of the source>.kernel   an image (kernel_image.c), read-only
 *   id-<dev>-<ino>-<size>-<mtime>-<ctime>
 *                                   which content a file with that identity
 *                                   had, and the identity of the image file
 *                                   when it was last verified
 *
 * A hit by identity reads the small file and the header of the image. The
 * image's bytes were checked when they were written; they are checked again
 * (CRC-64) only if the image file's own inode, size or mtime is no longer what
 * was noted, that is, when somebody wrote to it. A damaged one is removed and
 * made anew.
 *
 * Files are written under a temporary name, synced, and renamed, so that a
 * reader sees a whole file or none, also after a crash. An image in use is
 * mapped by its owner, so it is only ever unlinked, never truncated.
 *
 * The directory must be the user's own and writable by nobody else: what is in
 * it runs as the guest's kernel.
 */
#include "machine/kernel_cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <lzma.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "base/util.h"
#include "machine/kernel_image.h"

#define ENTRY_SUFFIX ".kernel"
#define TEMP_PREFIX  ".tmp-"

/* A file that changed this recently may change again without a new mtime
 * (timestamps are as coarse as the kernel's tick): its identity says nothing. */
#define FRESH_NS (20 * NSEC_PER_MSEC)

/* How long an unfinished temporary file is left alone, and how often the time
 * of last use is written. */
#define STALE_NS (3600 * NSEC_PER_SEC)

typedef char entry_name[2 * SHA256_SIZE + sizeof(ENTRY_SUFFIX)];
typedef char id_name[96];

/* The content of an id file. */
struct note {
	char magic[8];
	uint8_t sum[SHA256_SIZE];
	uint64_t ino, size, mtime_ns; /* of the image, when verified */
	uint64_t crc; /* of this struct, this field 0 */
};
#define NOTE_MAGIC "arcnote\1"

static uint64_t stamp(const struct timespec *t)
{
	return (uint64_t)t->tv_sec * NSEC_PER_SEC + (uint64_t)t->tv_nsec;
}

static void make_entry_name(entry_name out, const uint8_t sum[SHA256_SIZE])
{
	sha256_hex(sum, out);
	strcpy(out + 2 * SHA256_SIZE, ENTRY_SUFFIX);
}

static void make_id_name(id_name out, const struct stat *st)
{
	snprintf(out, sizeof(id_name),
		 "id-%" PRIx64 "-%" PRIx64 "-%" PRIx64 "-%" PRIx64 "-%" PRIx64,
		 (uint64_t)st->st_dev, (uint64_t)st->st_ino,
		 (uint64_t)st->st_size, stamp(&st->st_mtim),
		 stamp(&st->st_ctim));
}

static uint64_t note_crc(const struct note *n)
{
	struct note copy = *n;

	copy.crc = 0;
	return lzma_crc64((const uint8_t *)&copy, sizeof(copy), 0);
}

/* mkdir -p; the parents are the user's business, as with any program. */
static int make_dirs(char *path)
{
	for (char *p = path + 1; *p; p++) {
		if (*p != '/')
			continue;
		*p = 0;
		if (mkdir(path, 0700) < 0 && errno != EEXIST) {
			*p = '/';
			return -errno;
		}
		*p = '/';
	}
	return mkdir(path, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

static int cache_path(const char *given, char *out, size_t size)
{
	const char *base = getenv("XDG_CACHE_HOME"), *mid = "";
	int n;

	if (given) {
		n = snprintf(out, size, "%s", given);
	} else {
		/* The specification: a relative one is to be ignored. */
		if (!base || base[0] != '/') {
			base = getenv("HOME");
			mid = "/.cache";
		}
		if (!base || base[0] != '/')
			return -ENOENT;
		n = snprintf(out, size, "%s%s/arcvmm/kernels", base, mid);
	}
	return n < 0 || (size_t)n >= size ? -ENAMETOOLONG : 0;
}

void kernel_cache_open(struct kernel_cache *c, const char *given, uint64_t max,
		       const struct log *log)
{
	char path[1024];
	struct stat st;
	int r;

	*c = (struct kernel_cache){ .dir = -1, .max = max, .log = log };
	if (given && !*given)
		return;
	r = cache_path(given, path, sizeof(path));
	if (r < 0) {
		log_warn(log, "no kernel cache: neither XDG_CACHE_HOME nor "
			      "HOME names a directory");
		return;
	}
	c->dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (c->dir < 0 && errno == ENOENT) {
		r = make_dirs(path);
		if (r == 0)
			c->dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC |
						    O_NOFOLLOW);
	}
	if (c->dir < 0) {
		log_warn(log, "no kernel cache: %s: %s", path,
			 strerror(r < 0 ? -r : errno));
		return;
	}
	if (fstat(c->dir, &st) < 0 || st.st_uid != geteuid() ||
	    st.st_mode & 022) {
		log_warn(log,
			 "no kernel cache: %s is not yours alone (owner %u, "
			 "mode %o); make it so or remove it",
			 path, (unsigned)st.st_uid, st.st_mode & 07777);
		kernel_cache_close(c);
	}
}

void kernel_cache_close(struct kernel_cache *c)
{
	if (c->dir >= 0)
		close(c->dir);
	c->dir = -1;
}

int kernel_cache_temp(struct kernel_cache *c, char name[KERNEL_CACHE_TEMP])
{
	uint64_t r = 0;
	int fd;

	if (getrandom(&r, sizeof(r), GRND_NONBLOCK) != sizeof(r))
		r = clock_ns();
	snprintf(name, KERNEL_CACHE_TEMP, TEMP_PREFIX "%u-%" PRIx64,
		 (unsigned)getpid(), r);
	fd = openat(c->dir, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	return fd < 0 ? -errno : fd;
}

int kernel_cache_commit(struct kernel_cache *c, int fd, const char *temp,
			const char *name, bool sync)
{
	if ((sync && fsync(fd) < 0) ||
	    renameat(c->dir, temp, c->dir, name) < 0) {
		int r = -errno;

		unlinkat(c->dir, temp, 0);
		return r;
	}
	return 0;
}

/* Remember that the file @st has content @sum, kept in the image file @fd. */
static void note_write(struct kernel_cache *c, const struct stat *st,
		       const uint8_t sum[SHA256_SIZE], int image)
{
	struct note n = { .magic = NOTE_MAGIC };
	struct stat img;
	char temp[KERNEL_CACHE_TEMP];
	id_name id;
	int fd;

	if (clock_real_ns() - stamp(&st->st_ctim) < FRESH_NS ||
	    fstat(image, &img) < 0)
		return;
	memcpy(n.sum, sum, sizeof(n.sum));
	n.ino = img.st_ino;
	n.size = (uint64_t)img.st_size;
	n.mtime_ns = stamp(&img.st_mtim);
	n.crc = note_crc(&n);
	make_id_name(id, st);
	fd = kernel_cache_temp(c, temp);
	if (fd < 0)
		return;
	/* No sync: a note lost or torn by a crash is one more hash to make. */
	if (write(fd, &n, sizeof(n)) == (ssize_t)sizeof(n))
		kernel_cache_commit(c, fd, temp, id, false);
	else
		unlinkat(c->dir, temp, 0);
	close(fd);
}

static bool note_read(struct kernel_cache *c, const char *id, struct note *n)
{
	int fd = openat(c->dir, id, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	ssize_t len;

	if (fd < 0)
		return false;
	len = read(fd, n, sizeof(*n));
	close(fd);
	return len == (ssize_t)sizeof(*n) &&
	       !memcmp(n->magic, NOTE_MAGIC, sizeof(n->magic)) &&
	       n->crc == note_crc(n);
}

/* For "oldest first": the access time is ours to keep, mounts have relatime. */
static void touch(int fd, const struct stat *st)
{
	const struct timespec t[2] = { { .tv_nsec = UTIME_NOW },
				       { .tv_nsec = UTIME_OMIT } };

	if (clock_real_ns() - stamp(&st->st_atim) > STALE_NS)
		futimens(fd, t);
}

/* Open the image of content @sum; @n: trusted if it is still as noted. */
static int entry_open(struct kernel_cache *c, const uint8_t sum[SHA256_SIZE],
		      const struct note *n, struct kernel_head *h)
{
	entry_name name;
	struct stat st;
	bool as_noted;
	int fd, r;

	make_entry_name(name, sum);
	fd = openat(c->dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return -errno;
	r = fstat(fd, &st) < 0 ? -errno : 0;
	if (r == 0) {
		as_noted = n && n->ino == st.st_ino &&
			   n->size == (uint64_t)st.st_size &&
			   n->mtime_ns == stamp(&st.st_mtim);
		r = kernel_image_read(fd, h, !as_noted);
	}
	if (r == 0 && memcmp(h->source, sum, SHA256_SIZE) != 0)
		r = -EBADMSG;
	if (r < 0) {
		log_warn(c->log, "kernel cache: %s is damaged, removed", name);
		unlinkat(c->dir, name, 0);
		close(fd);
		return r;
	}
	touch(fd, &st);
	return fd;
}

int kernel_cache_find(struct kernel_cache *c, const struct stat *st,
		      struct kernel_head *h)
{
	struct note n;
	id_name id;
	int fd;

	if (c->dir < 0)
		return -1;
	make_id_name(id, st);
	if (!note_read(c, id, &n))
		return -1;
	fd = entry_open(c, n.sum, &n, h);
	if (fd < 0) {
		unlinkat(c->dir, id, 0);
		return -1;
	}
	return fd;
}

int kernel_cache_find_content(struct kernel_cache *c, const struct stat *st,
			      const uint8_t sum[SHA256_SIZE],
			      struct kernel_head *h)
{
	int fd;

	if (c->dir < 0)
		return -1;
	fd = entry_open(c, sum, NULL, h);
	if (fd < 0)
		return -1;
	note_write(c, st, sum, fd);
	return fd;
}

static bool ends_with(const char *s, const char *end)
{
	size_t n = strlen(s), m = strlen(end);

	return n > m && !strcmp(s + n - m, end);
}

struct sweep {
	uint64_t bytes; /* in images */
	uint64_t oldest_ns;
	entry_name oldest;
};

/* One pass over the directory: what is there, less what is of no use. */
static int sweep(struct kernel_cache *c, const char *keep, struct sweep *s)
{
	int fd = openat(c->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *de;

	*s = (struct sweep){ .oldest_ns = UINT64_MAX };
	if (!d) {
		if (fd >= 0)
			close(fd);
		return -errno;
	}
	while ((de = readdir(d))) {
		struct stat st;
		struct note n;
		entry_name name;

		if (fstatat(c->dir, de->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
		    !S_ISREG(st.st_mode))
			continue;
		if (!strncmp(de->d_name, TEMP_PREFIX, strlen(TEMP_PREFIX))) {
			if (clock_real_ns() - stamp(&st.st_mtim) > STALE_NS)
				unlinkat(c->dir, de->d_name, 0);
		} else if (!strncmp(de->d_name, "id-", 3)) {
			if (!note_read(c, de->d_name, &n)) {
				unlinkat(c->dir, de->d_name, 0);
				continue;
			}
			make_entry_name(name, n.sum);
			if (faccessat(c->dir, name, F_OK, 0) < 0)
				unlinkat(c->dir, de->d_name, 0);
		} else if (ends_with(de->d_name, ENTRY_SUFFIX) &&
			   strlen(de->d_name) < sizeof(entry_name)) {
			s->bytes += (uint64_t)st.st_blocks * 512;
			if (strcmp(de->d_name, keep) != 0 &&
			    stamp(&st.st_atim) < s->oldest_ns) {
				s->oldest_ns = stamp(&st.st_atim);
				strcpy(s->oldest, de->d_name);
			}
		}
	}
	closedir(d);
	return 0;
}

/* Remove the images not used for longest until the rest fits. */
static void evict(struct kernel_cache *c, const char *keep)
{
	struct sweep s;

	for (;;) {
		if (sweep(c, keep, &s) < 0 || s.bytes <= c->max || !s.oldest[0])
			return;
		log_info(c->log, "kernel cache: %s removed to make room",
			 s.oldest);
		if (unlinkat(c->dir, s.oldest, 0) < 0)
			return;
	}
}

int kernel_cache_add(struct kernel_cache *c, const struct stat *st,
		     const uint8_t sum[SHA256_SIZE],
		     const struct kernel_parsed *p, struct kernel_head *h)
{
	entry_name name;
	char temp[KERNEL_CACHE_TEMP];
	int fd, r;

	make_entry_name(name, sum);
	fd = kernel_cache_temp(c, temp);
	if (fd < 0) {
		r = fd;
		goto fail;
	}
	r = kernel_image_write(fd, p, sum, h);
	if (r == 0 && fchmod(fd, 0400) < 0)
		r = -errno;
	if (r < 0)
		unlinkat(c->dir, temp, 0);
	else
		r = kernel_cache_commit(c, fd, temp, name, true);
	if (r < 0) {
		close(fd);
		goto fail;
	}
	note_write(c, st, sum, fd);
	evict(c, name);
	return fd;
fail:
	log_warn(c->log, "kernel cache: cannot add to it: %s", strerror(-r));
	return r;
}
