/*
 * Theory of operation
 *
 * Unpacking a dozen modules takes tens of milliseconds where starting a VM
 * takes one, so the composed members are kept in a file of the cache:
 *
 *     arcvmm-modules 1 <directory> <index identity> <wanted names>
 *     file <identity> <path>        one for each module that is in
 *     text <bytes>                  the lines of struct bundle
 *     cpio <bytes>                  and zeros up to a multiple of 512
 *     <text><zeros><members>
 *
 * It is taken when the first line is what this boot would write and every
 * module file still has the size, time and inode it had. The file is written
 * aside, synced and renamed, so a reader sees all of it or none. A cache that
 * cannot be used is a line in the log.
 */
#include "machine/initramfs_bundle.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/log.h"
#include "base/util.h"
#include "machine/initramfs_modules.h"
#include "machine/initramfs_pack.h"
#include "machine/kernel_cache.h"

#define HEAD_MAX  65536
#define ALIGN	  512
#define PREFIX	  "modules-"
#define NAME_SIZE 48
#define KEEP	  16 /* files in the cache */

/* ---- the key ---- */

static char *make_key(const struct modules *m, const struct bundle_want *want,
		      size_t n)
{
	char *key = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&key, &len);

	if (!f)
		return NULL;
	fprintf(f, "arcvmm-modules 1 %s %016" PRIx64, modules_dir(m),
		modules_identity(m));
	for (size_t i = 0; i < n; i++)
		fprintf(f, " %s", want[i].name);
	fputc('\n', f);
	if (fclose(f)) {
		free(key);
		return NULL;
	}
	/* A directory with a newline in its name is not worth a cache. */
	if (len >= HEAD_MAX || strchr(key, '\n') != key + len - 1) {
		free(key);
		return NULL;
	}
	return key;
}

static void cache_name(const char *key, char out[NAME_SIZE])
{
	uint64_t h = 0xcbf29ce484222325ull;

	for (; *key; key++)
		h = (h ^ (uint8_t)*key) * 0x100000001b3ull;
	snprintf(out, NAME_SIZE, PREFIX "%016" PRIx64 ".cpio", h);
}

/* ---- reading ---- */

/* The head of a cache file, checked; true when it is good for this boot. */
static bool check_head(struct modules *m, const char *key, char *head,
		       unsigned *count, size_t *text, uint64_t *cpio,
		       size_t *head_len)
{
	size_t keylen = strlen(key);
	char *line = head + keylen, *next;

	if (strncmp(head, key, keylen))
		return false;
	for (*count = 0; !strncmp(line, "file ", 5); line = next, ++*count) {
		uint64_t identity;
		int at = 0;

		next = strchr(line, '\n');
		if (!next)
			return false;
		*next++ = 0;
		if (sscanf(line, "file %16" SCNx64 " %n", &identity, &at) !=
			    1 ||
		    !at || modules_file_identity(m, line + at) != identity)
			return false;
	}
	if (sscanf(line, "text %zu\ncpio %" SCNu64 "\n", text, cpio) != 2)
		return false;
	next = strchr(line, '\n');
	next = next ? strchr(next + 1, '\n') : NULL;
	if (!next)
		return false;
	*head_len = (size_t)(next + 1 - head);
	return true;
}

static bool cache_read(struct modules *m, const char *key, int dir,
		       struct pack *p, struct bundle *out)
{
	char name[NAME_SIZE];
	int fd;
	char *head = NULL, *text = NULL;
	size_t text_len, head_len;
	uint64_t cpio, at;
	struct stat st;
	ssize_t n;

	cache_name(key, name);
	fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return false;
	head = malloc(HEAD_MAX + 1);
	if (!head || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) ||
	    st.st_uid != geteuid())
		goto no;
	n = pread(fd, head, HEAD_MAX, 0);
	if (n < 0)
		goto no;
	head[n] = 0;
	if (!check_head(m, key, head, &out->count, &text_len, &cpio,
			&head_len) ||
	    text_len > HEAD_MAX)
		goto no;
	at = align_up(head_len + text_len, ALIGN);
	if (!range_fits(at, cpio, (uint64_t)st.st_size))
		goto no;
	text = malloc(text_len + 1);
	if (!text ||
	    pread(fd, text, text_len, (off_t)head_len) != (ssize_t)text_len)
		goto no;
	text[text_len] = 0;
	out->text = text;
	out->cached = true;
	pack_pad(p, 4);
	pack_fd(p, fd, 1, at, cpio);
	free(head);
	return true;
no:
	free(head);
	free(text);
	close(fd);
	return false;
}

/* ---- making ---- */

static int want_all(struct modules *m, const struct bundle_want *want, size_t n,
		    const struct log *log, struct err *e)
{
	for (size_t i = 0; i < n; i++) {
		int ret;

		if (modules_lookup(m, want[i].name) == MODULE_ABSENT) {
			if (want[i].needed_for)
				return err_set(
					e, -ENOENT,
					"the kernel has no driver %s, which "
					"%s needs: neither built in nor in %s",
					want[i].name, want[i].needed_for,
					modules_dir(m));
			log_debug(log, "no module %s in %s: left out",
				  want[i].name, modules_dir(m));
			continue;
		}
		ret = modules_want(m, want[i].name, e);
		if (ret < 0)
			return ret;
	}
	return 0;
}

static char *make_text(struct modules *m, unsigned *count)
{
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);
	struct module *mod;

	if (!f)
		return NULL;
	for (*count = 0; (mod = modules_wanted(m, *count)); ++*count)
		fprintf(f, "module %s%s\n", mod->name,
			mod->deps ? mod->deps : "");
	if (fclose(f)) {
		free(text);
		return NULL;
	}
	return text;
}

static void write_members(struct modules *m, struct pack *p)
{
	struct module *mod;

	for (unsigned i = 0; (mod = modules_wanted(m, i)); i++) {
		char name[PATH_MAX];

		snprintf(name, sizeof(name), BUNDLE_DIR "/%s.ko", mod->name);
		cpio_header(p, &(struct cpio_entry){ .name = name,
						     .mode = S_IFREG | 0644,
						     .nlink = 1,
						     .size = mod->len });
		pack_give(p, mod->data, mod->len);
		mod->data = NULL;
		pack_pad(p, 4);
	}
}

static bool write_all(int fd, const void *data, size_t len)
{
	while (len) {
		ssize_t n = write(fd, data, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		data = (const char *)data + n;
		len -= (size_t)n;
	}
	return true;
}

/* The head and text as they stand in the file, padded. */
static char *make_head(struct modules *m, const char *key, const char *text,
		       uint64_t cpio, size_t *len)
{
	char *head = NULL;
	FILE *f = open_memstream(&head, len);
	struct module *mod;

	if (!f)
		return NULL;
	fputs(key, f);
	for (unsigned i = 0; (mod = modules_wanted(m, i)); i++)
		fprintf(f, "file %016" PRIx64 " %s\n",
			modules_file_identity(m, mod->path), mod->path);
	fprintf(f, "text %zu\ncpio %" PRIu64 "\n%s", strlen(text), cpio, text);
	fflush(f);
	for (size_t pad = align_up(*len, ALIGN) - *len; pad; pad--)
		fputc(0, f);
	if (fclose(f)) {
		free(head);
		return NULL;
	}
	return head;
}

/* The oldest file goes when there are too many. */
static void prune(int dir)
{
	int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	char oldest[NAME_SIZE] = "";
	time_t age = 0;
	unsigned count = 0;
	struct dirent *de;

	if (!d && fd >= 0)
		close(fd);
	while (d && (de = readdir(d))) {
		struct stat st;

		if (strncmp(de->d_name, PREFIX, sizeof(PREFIX) - 1) ||
		    strlen(de->d_name) >= NAME_SIZE ||
		    fstatat(dir, de->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		if (!count++ || st.st_mtime < age) {
			age = st.st_mtime;
			strcpy(oldest, de->d_name);
		}
	}
	if (d)
		closedir(d);
	if (count > KEEP)
		unlinkat(dir, oldest, 0);
}

static void cache_write(struct modules *m, const char *key,
			struct kernel_cache *c, const char *text,
			const char *cpio, uint64_t size, const struct log *log)
{
	char name[NAME_SIZE], temp[KERNEL_CACHE_TEMP];
	size_t head_len = 0;
	char *head = make_head(m, key, text, size, &head_len);
	int fd = head ? kernel_cache_temp(c, temp) : -ENOMEM;
	int rc = fd < 0 ? fd : 0;

	cache_name(key, name);
	if (!rc &&
	    (!write_all(fd, head, head_len) || !write_all(fd, cpio, size))) {
		rc = -errno;
		unlinkat(c->dir, temp, 0);
	}
	if (!rc)
		rc = kernel_cache_commit(c, fd, temp, name, true);
	if (rc)
		log_debug(log, "module cache: %s", strerror(-rc));
	if (fd >= 0)
		close(fd);
	free(head);
	prune(c->dir);
}

/* Made flat, so that the cache can have a copy. */
static int make(struct modules *m, const struct bundle_want *want, size_t n,
		const char *key, struct kernel_cache *c, const struct log *log,
		struct pack *p, struct bundle *out, struct err *e)
{
	struct pack *members;
	char *text, *flat;
	unsigned count;
	int ret = modules_read(m, e);

	if (!ret)
		ret = want_all(m, want, n, log, e);
	if (ret < 0)
		return ret;
	members = pack_create();
	text = make_text(m, &count);
	if (!members || !text) {
		ret = err_set(e, -ENOMEM, "out of memory");
		goto out;
	}
	write_members(m, members);
	ret = pack_error(members);
	flat = ret ? NULL : malloc(pack_size(members) + 1);
	if (flat)
		ret = pack_load(members, flat, e);
	else if (!ret)
		ret = -ENOMEM;
	if (ret < 0) {
		free(flat);
		err_set(e, ret, "kernel modules: %s", strerror(-ret));
		goto out;
	}
	if (key && c->dir >= 0)
		cache_write(m, key, c, text, flat, pack_size(members), log);
	pack_pad(p, 4);
	pack_give(p, flat, pack_size(members));
	*out = (struct bundle){ .text = text, .count = count };
	text = NULL;
out:
	pack_destroy(members);
	free(text);
	return ret;
}

int bundle_write(struct modules *m, const struct bundle_want *want, size_t n,
		 const char *cache_dir, const struct log *log, struct pack *p,
		 struct bundle *out, struct err *e)
{
	char *key = make_key(m, want, n);
	struct kernel_cache cache;
	struct bundle b = { 0 };
	int ret = 0;

	kernel_cache_open(&cache, cache_dir, 0, log);
	if (key && cache.dir >= 0 && cache_read(m, key, cache.dir, p, &b))
		*out = b;
	else
		ret = make(m, want, n, key, &cache, log, p, out, e);
	kernel_cache_close(&cache);
	free(key);
	return ret;
}
