/*
 * Opening a kernel: cheap when it is known, careful when it is new.
 *
 * 1. The file is opened and identified by (device, inode, size, mtime, ctime).
 *    The cache remembers which content that was: a hit costs a few system
 *    calls, and nothing of the kernel is read.
 * 2. Else the whole file is read and hashed. The cache may hold that content,
 *    made from another copy of the file.
 * 3. Else it is parsed and unpacked (kernel_parse.c) and written as an image
 *    (kernel_image.c) into the cache, or into a memfd when there is none.
 *
 * Either way the kernel is then an image file, mapped or copied into the guest
 * by kernel_place().
 */
#include "machine/kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "base/util.h"
#include "machine/kernel_cache.h"
#include "machine/kernel_image.h"
#include "machine/unpack.h"

struct source {
	int fd;
	struct stat st;
	void *bytes; /* a copy: the file may change under a mapping */
	size_t len;
	uint8_t sum[SHA256_SIZE];
};

static int source_open(struct source *s, const char *path, struct err *e)
{
	if (!path || !*path)
		return err_set(e, -EINVAL, "no kernel was given");
	/* A FIFO must not hang here. */
	s->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (s->fd < 0)
		return err_set(e, -errno, "kernel %s: %s", path,
			       strerror(errno));
	if (fstat(s->fd, &s->st) < 0)
		return err_set(e, -errno, "kernel %s: %s", path,
			       strerror(errno));
	if (S_ISDIR(s->st.st_mode))
		return err_set(e, -EISDIR,
			       "kernel %s: is a directory, not a kernel file",
			       path);
	if (!S_ISREG(s->st.st_mode))
		return err_set(e, -EINVAL, "kernel %s: is not a regular file",
			       path);
	if (s->st.st_size == 0)
		return err_set(e, -EINVAL, "kernel %s: is empty", path);
	if ((uint64_t)s->st.st_size > KERNEL_FILE_MAX)
		return err_set(e, -EFBIG,
			       "kernel %s: is %llu MiB, more than any kernel",
			       path, (unsigned long long)s->st.st_size >> 20);
	s->len = (size_t)s->st.st_size;
	return 0;
}

static int source_read(struct source *s, const char *path, struct err *e)
{
	struct sha256 sha;
	size_t at = 0;

	s->bytes = mmap(NULL, s->len, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (s->bytes == MAP_FAILED) {
		s->bytes = NULL;
		return err_set(e, -ENOMEM, "kernel %s: no memory to read it",
			       path);
	}
	while (at < s->len) {
		ssize_t n = pread(s->fd, (uint8_t *)s->bytes + at, s->len - at,
				  (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_set(e, -errno, "kernel %s: %s", path,
				       strerror(errno));
		if (n == 0)
			return err_set(e, -EINVAL,
				       "kernel %s: was cut off while it was "
				       "being read",
				       path);
		at += (size_t)n;
	}
	sha256_init(&sha);
	sha256_add(&sha, s->bytes, s->len);
	sha256_end(&sha, s->sum);
	return 0;
}

static void source_close(struct source *s)
{
	if (s->bytes)
		munmap(s->bytes, s->len);
	if (s->fd >= 0)
		close(s->fd);
}

/* The image outside any cache. */
static int image_in_memory(const struct kernel_parsed *p,
			   const uint8_t sum[SHA256_SIZE],
			   struct kernel_head *h)
{
	int fd = memfd_create("arcvmm-kernel", MFD_CLOEXEC), r;

	if (fd < 0)
		return -errno;
	r = kernel_image_write(fd, p, sum, h);
	if (r < 0) {
		close(fd);
		return r;
	}
	return fd;
}

static int build(struct kernel *k, struct kernel_cache *cache,
		 const struct source *s, const char *path, struct err *e)
{
	struct kernel_parsed p;
	struct err why = { 0 };
	int r;

	r = kernel_parse(&p, s->bytes, s->len, KERNEL_UNPACK_MAX, &why);
	if (r < 0)
		return err_set(e, r, "kernel %s: %s", path, why.text);
	k->fd = -1;
	if (cache->dir >= 0)
		k->fd = kernel_cache_add(cache, &s->st, s->sum, &p, &k->head);
	if (k->fd < 0)
		k->fd = image_in_memory(&p, s->sum, &k->head);
	kernel_parsed_free(&p);
	if (k->fd < 0)
		return err_set(e, k->fd, "kernel %s: cannot be unpacked: %s",
			       path, strerror(-k->fd));
	return 0;
}

static void fill_info(struct kernel *k, bool cached)
{
	const struct kernel_meta *m = &k->head.meta;
	size_t n = strcspn(m->version, " ");

	n = min_of(n, sizeof(k->release) - 1);
	memcpy(k->release, m->version, n);
	k->release[n] = 0;
	/* It names a directory: nothing that leads out of one. */
	if (strchr(k->release, '/') || k->release[0] == '.')
		k->release[0] = 0;
	k->info = (struct kernel_info){
		.format = m->format,
		.entry_mode = m->entry_mode,
		.packing = unpack_name(m->packing),
		.release = k->release,
		.version = m->version,
		.cached = cached,
		.file_size = m->file_size,
		.image_size = k->head.data_bytes,
		.base = m->base,
		.end = m->end,
		.entry = m->entry,
		.cmdline_max = m->cmdline_max,
		.initrd_max = m->initrd_max,
	};
}

int kernel_open(struct kernel **out, const struct kernel_config *c,
		struct err *e)
{
	struct source s = { .fd = -1 };
	struct kernel_cache cache = { .dir = -1 };
	uint64_t start = clock_ns();
	struct kernel *k;
	bool cached = true;
	int r;

	*out = NULL;
	k = calloc(1, sizeof(*k));
	if (!k)
		return err_set(e, -ENOMEM, "no memory for a kernel");
	k->fd = -1;
	r = source_open(&s, c->path, e);
	if (r < 0)
		goto out;
	kernel_cache_open(&cache, c->cache_dir,
			  c->cache_max ? c->cache_max : KERNEL_CACHE_MAX,
			  c->log);
	k->fd = kernel_cache_find(&cache, &s.st, &k->head);
	if (k->fd < 0) {
		r = source_read(&s, c->path, e);
		if (r < 0)
			goto out;
		k->fd = kernel_cache_find_content(&cache, &s.st, s.sum,
						  &k->head);
	}
	if (k->fd < 0) {
		cached = false;
		r = build(k, &cache, &s, c->path, e);
	}
	if (r == 0)
		fill_info(k, cached);
out:
	source_close(&s);
	kernel_cache_close(&cache);
	if (r < 0) {
		kernel_close(k);
		return r;
	}
	log_info(c->log, "kernel %s: %s %s, %s, %llu KiB %s in %llu us",
		 c->path, k->info.packing,
		 k->release[0] ? k->release : "(no version)",
		 k->info.entry_mode == KERNEL_ENTRY_PVH ? "PVH entry"
							: "64-bit entry",
		 (unsigned long long)k->info.image_size >> 10,
		 cached ? "from the cache" : "unpacked",
		 (unsigned long long)(clock_ns() - start) / 1000);
	*out = k;
	return 0;
}

void kernel_close(struct kernel *k)
{
	if (!k)
		return;
	if (k->fd >= 0)
		close(k->fd);
	free(k);
}

const struct kernel_info *kernel_info(const struct kernel *k)
{
	return &k->info;
}

const char *kernel_release(const struct kernel *k)
{
	return k->release;
}
