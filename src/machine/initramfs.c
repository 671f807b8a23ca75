/*
 * The composition: which archives, in which order, and what our own holds.
 * The parts are in initramfs_pack.c (pieces and the cpio writer), _tree.c and
 * _tar.c (the user's root), _modules.c and _bundle.c (the kernel's modules),
 * _stream.c (decompression).
 */
#include "machine/initramfs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/log.h"
#include "base/util.h"
#include "machine/fs_probe.h"
#include "machine/initramfs_bundle.h"
#include "machine/initramfs_modules.h"
#include "machine/initramfs_pack.h"
#include "machine/initramfs_stream.h"
#include "machine/initramfs_tree.h"

/* guest/, linked in as bytes by the build. */
extern const char guest_start[] asm("_binary_arcvmm_guest_start");
extern const char guest_end[] asm("_binary_arcvmm_guest_end");

#define DEFAULT_MAX GiB(4)
#define TAR_BLOCK   512

struct initramfs {
	struct pack *pack;
	int rootfd; /* the root directory, or -1 */
	unsigned modules;
};

/* ---- the user's root ---- */

/* The first block of @fd as it is when unpacked. */
struct head_sink {
	struct stream_sink sink;
	uint8_t data[TAR_BLOCK];
	size_t len;
};

static int head_put(struct stream_sink *s, const void *data, size_t len)
{
	struct head_sink *h = container_of(s, struct head_sink, sink);
	size_t n = min_of(len, sizeof(h->data) - h->len);

	memcpy(h->data + h->len, data, n);
	h->len += n;
	return h->len == sizeof(h->data) ? -ECANCELED : 0;
}

struct head_source {
	struct stream_source source;
	int fd;
	off_t at;
};

static long head_read(struct stream_source *s, void *buf, size_t len)
{
	struct head_source *h = container_of(s, struct head_source, source);
	ssize_t n = pread(h->fd, buf, len, h->at);

	if (n > 0)
		h->at += n;
	return n < 0 ? -errno : n;
}

/* Is it a tar archive, and how is it packed? */
static bool is_tar(int fd, enum stream_kind *kind)
{
	struct head_source src = { .source.read = head_read, .fd = fd };
	struct head_sink head = { .sink.put = head_put };
	uint8_t first[STREAM_HEAD];
	ssize_t n = pread(fd, first, sizeof(first), 0);

	if (n < 0)
		return false;
	*kind = stream_detect(first, (size_t)n);
	stream_unpack(*kind, &src.source, &head.sink, UINT64_MAX / 2);
	return head.len == sizeof(head.data) && tar_detect(head.data);
}

static int open_root(const char *path, struct stat *st, struct err *e)
{
	int fd;

	if (stat(path, st) < 0)
		return err_set(e, -errno, "root %s: %s", path, strerror(errno));
	if (!S_ISDIR(st->st_mode) && !S_ISREG(st->st_mode) &&
	    !S_ISBLK(st->st_mode))
		return err_set(e, -EINVAL,
			       "root %s: neither a directory nor a tar "
			       "archive nor a disk image",
			       path);
	if (S_ISREG(st->st_mode) && !st->st_size)
		return err_set(e, -EINVAL, "root %s: the file is empty", path);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return err_set(e, -errno, "root %s: %s", path, strerror(errno));
	return fd;
}

int initramfs_root_kind(const char *path, enum initramfs_root *kind,
			struct err *e)
{
	enum stream_kind packing;
	struct stat st;
	int fd = open_root(path, &st, e);

	if (fd < 0)
		return fd;
	if (S_ISDIR(st.st_mode))
		*kind = INITRAMFS_ROOT_DIR;
	else if (S_ISREG(st.st_mode) && is_tar(fd, &packing))
		*kind = INITRAMFS_ROOT_TAR;
	else
		*kind = INITRAMFS_ROOT_IMAGE;
	close(fd);
	return 0;
}

static int add_dir(const struct initramfs_config *cfg, struct initramfs *in,
		   struct tree *t, struct err *e)
{
	bool squash = cfg->owner == INITRAMFS_OWNER_ROOT ||
		      (cfg->owner == INITRAMFS_OWNER_AUTO && geteuid());
	int ret =
		tree_from_dir(t, in->rootfd, squash ? geteuid() : (uint32_t)-1,
			      squash ? getegid() : (uint32_t)-1, e);

	if (!ret)
		ret = tree_write(t, in->pack, in->rootfd, -1);
	return ret;
}

static int add_tar(const struct initramfs_config *cfg, struct initramfs *in,
		   struct tree *t, int fd, uint64_t size, uint64_t max,
		   struct err *e)
{
	enum stream_kind kind;
	int ret;

	if (!is_tar(fd, &kind)) {
		close(fd);
		return err_set(e, -EINVAL,
			       "root %s: neither a directory nor a tar archive",
			       cfg->root);
	}
	if (kind != STREAM_NONE) {
		int mem = stream_to_memfd(fd, cfg->root, kind, max, &size, e);

		close(fd);
		if (mem < 0)
			return mem;
		fd = mem;
	}
	ret = tree_from_tar(t, fd, size, cfg->root, e);
	if (!ret)
		ret = tree_write(t, in->pack, -1, fd);
	/* The pieces name it: it lives as long as they do. */
	pack_fd(in->pack, fd, 1, 0, 0);
	return ret;
}

static int add_root(const struct initramfs_config *cfg, struct initramfs *in,
		    uint64_t max, struct err *e)
{
	struct err inner = { 0 };
	struct stat st;
	struct tree *t;
	int fd, ret;

	if (!cfg->root)
		return 0;
	fd = open_root(cfg->root, &st, e);
	if (fd < 0)
		return fd;
	t = tree_create();
	if (!t) {
		close(fd);
		return err_set(e, -ENOMEM, "out of memory");
	}
	if (S_ISDIR(st.st_mode)) {
		in->rootfd = fd;
		ret = add_dir(cfg, in, t, &inner);
	} else {
		ret = add_tar(cfg, in, t, fd, (uint64_t)st.st_size, max,
			      &inner);
	}
	tree_destroy(t);
	if (ret < 0 && inner.code)
		return S_ISDIR(st.st_mode) ? err_set(e, ret, "root %s: %s",
						     cfg->root, inner.text)
					   : err_set(e, ret, "%s", inner.text);
	if (ret < 0)
		return err_set(e, ret, "root %s: %s", cfg->root,
			       strerror(-ret));
	return 0;
}

static int add_initrd(struct initramfs *in, const char *path, struct err *e)
{
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0 || fstat(fd, &st) < 0) {
		int ret = err_set(e, -errno, "initrd %s: %s", path,
				  strerror(errno));

		if (fd >= 0)
			close(fd);
		return ret;
	}
	if (!S_ISREG(st.st_mode) || !st.st_size) {
		close(fd);
		return err_set(e, -EINVAL, "initrd %s: %s", path,
			       S_ISREG(st.st_mode) ? "the file is empty"
						   : "not a file");
	}
	pack_fd(in->pack, fd, 1, 0, (uint64_t)st.st_size);
	pack_pad(in->pack, 4);
	return 0;
}

/* ---- the configuration the guest's init reads ---- */

/*
 * @text with every byte that is not a printable ASCII character, and '%',
 * written as %XX: how words stand in /.arcvmm/config. At most @size bytes
 * with the closing 0; false when it does not fit.
 */
static bool escape(const char *text, char *out, size_t size)
{
	static const char hex[] = "0123456789ABCDEF";
	size_t n = 0;

	for (; *text; text++) {
		uint8_t c = (uint8_t)*text;
		bool plain = c > ' ' && c < 127 && c != '%';

		if (n + (plain ? 1 : 3) >= size)
			return false;
		if (plain) {
			out[n++] = (char)c;
		} else {
			out[n++] = '%';
			out[n++] = hex[c >> 4];
			out[n++] = hex[c & 15];
		}
	}
	if (n >= size)
		return false;
	out[n] = 0;
	return true;
}

static void put_word(FILE *f, const char *text)
{
	size_t size = 3 * strlen(text) + 1;
	char *word = malloc(size);

	if (word && escape(text, word, size))
		fputs(word, f);
	else
		fputs("%", f); /* not a word: the guest refuses the file */
	free(word);
}

static void put_line(FILE *f, const char *key, const char *value)
{
	if (!value)
		return;
	fprintf(f, "%s ", key);
	put_word(f, value);
	fputc('\n', f);
}

static void put_lines(FILE *f, const char *key, const char *const *values)
{
	for (; values && *values; values++)
		put_line(f, key, *values);
}

static void put_config(FILE *f, const struct initramfs_config *cfg)
{
	fputs("arcvmm 1\n", f);
	put_line(f, "console", cfg->console);
	put_line(f, "hostname", cfg->hostname);
	if (cfg->root_disk) {
		put_line(f, "root", cfg->root_disk);
		put_line(f, "root-type", cfg->root_fstype);
		put_line(f, "root-flags", cfg->root_flags);
	}
	if (cfg->root_readonly)
		fputs("root-readonly\n", f);
	if (cfg->root_overlay)
		fputs("root-overlay\n", f);
	put_lines(f, "mount", cfg->mounts);
	put_lines(f, "env", cfg->env);
	put_line(f, "cwd", cfg->cwd);
	put_line(f, "user", cfg->user);
	put_lines(f, "limit", cfg->limits);
	put_lines(f, "arg", cfg->argv);
	if (cfg->serve)
		fputs("serve\n", f);
	if (cfg->status_port)
		fputs("status\n", f);
	if (cfg->agent_port)
		fprintf(f, "agent %u\n", cfg->agent_port);
}

/* ---- modules ---- */

static const struct {
	unsigned want;
	struct bundle_want module;
} wants[] = {
	/* clang-format off */
	{ ~0u,                    { "virtio_mmio",    "every virtio device" } },
	{ INITRAMFS_WANT_CONSOLE, { "virtio_console", "the virtio console" } },
	{ INITRAMFS_WANT_BLK,     { "virtio_blk",     "a disk" } },
	{ INITRAMFS_WANT_VSOCK,   { "vmw_vsock_virtio_transport",
						      "vsock" } },
	{ INITRAMFS_WANT_NET,     { "virtio_net",     "a network card" } },
	{ INITRAMFS_WANT_FS,      { "virtiofs",       "a shared directory" } },
	{ INITRAMFS_WANT_BALLOON, { "virtio_balloon", "the balloon" } },
	{ INITRAMFS_WANT_MEM,     { "virtio_mem",     "memory hotplug" } },
	{ INITRAMFS_WANT_RNG,     { "virtio_rng",     NULL } },
	{ INITRAMFS_WANT_PVPANIC, { "pvpanic_mmio",   NULL } },
	{ ~0u,                    { "button",         NULL } },
	/* clang-format on */
};

#define WANT_MAX 64

struct want_list {
	struct bundle_want all[WANT_MAX];
	size_t count;
	unsigned eager; /* the first so many are loaded at once */
};

/* The filesystem of the root: told by its image, named, or any we know. */
static void want_filesystem(const struct initramfs_config *cfg,
			    struct want_list *w)
{
	static const char *const known[] = { "ext4", "xfs", "btrfs", "squashfs",
					     "erofs" };
	uint8_t *buf = cfg->root_image && !cfg->root_fstype
			       ? malloc(FS_PROBE_SIZE)
			       : NULL;
	const char *type = cfg->root_fstype;
	struct fs_id id;

	if (buf) {
		int fd = open(cfg->root_image,
			      O_RDONLY | O_CLOEXEC | O_NONBLOCK);
		ssize_t n = fd < 0 ? -1 : pread(fd, buf, FS_PROBE_SIZE, 0);

		if (n > 0 && fs_probe(buf, (size_t)n, &id))
			type = id.type;
		if (fd >= 0)
			close(fd);
		free(buf);
	}
	if (type) {
		w->all[w->count++] =
			(struct bundle_want){ fs_module(type),
					      "the filesystem of the root" };
		return;
	}
	for (size_t i = 0; i < array_size(known); i++)
		w->all[w->count++] = (struct bundle_want){ known[i], NULL };
}

static int list_wants(const struct initramfs_config *cfg, struct want_list *w,
		      struct err *e)
{
	for (size_t i = 0; i < array_size(wants); i++)
		if (cfg->want & wants[i].want || wants[i].want == ~0u)
			w->all[w->count++] = wants[i].module;
	/* An init of the root's own reads the power button as a key. */
	if (!cfg->argv && !cfg->serve)
		w->all[w->count++] = (struct bundle_want){ "evdev", NULL };
	for (const char *const *x = cfg->extra_modules; x && *x; x++) {
		if (w->count > WANT_MAX - 16)
			return err_set(e, -E2BIG, "too many extra modules");
		w->all[w->count++] =
			(struct bundle_want){ *x, "the configuration" };
	}
	w->eager = (unsigned)w->count;
	if (cfg->root_overlay)
		w->all[w->count++] =
			(struct bundle_want){ "overlay", "the root's overlay" };
	if (cfg->root_disk)
		want_filesystem(cfg, w);
	return 0;
}

/*
 * A kernel without a modules directory may have all drivers built in. Debian
 * and many others keep its configuration beside it, which says so.
 */
static bool config_has_all(const char *kernel, const char *release)
{
	static const char *const need[] = { "CONFIG_VIRTIO_MMIO=y",
					    "CONFIG_VIRTIO_BLK=y",
					    "CONFIG_VIRTIO_CONSOLE=y" };
	const char *slash = strrchr(kernel, '/');
	unsigned found = 0;
	char line[512];
	char *path;
	FILE *f;

	if (asprintf(&path, "%.*sconfig-%s",
		     slash ? (int)(slash + 1 - kernel) : 0, kernel,
		     release) < 0)
		return false;
	f = fopen(path, "re");
	free(path);
	if (!f)
		return false;
	while (fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = 0;
		for (size_t i = 0; i < array_size(need); i++)
			found |= !strcmp(line, need[i]) ? 1u << i : 0;
	}
	fclose(f);
	return found == (1u << array_size(need)) - 1;
}

/* Append the modules to ours, and their lines to the configuration. */
static int add_modules(const struct initramfs_config *cfg, struct initramfs *in,
		       FILE *config, struct err *e)
{
	struct want_list w = { .count = 0 };
	struct modules *m = NULL;
	struct bundle b;
	int ret;

	if (cfg->modules && !strcmp(cfg->modules, "none"))
		return 0;
	if (!cfg->release || !*cfg->release)
		return err_set(e, -ENOEXEC,
			       "kernel %s does not say which release it is, so "
			       "its modules cannot be found: if it needs none, "
			       "give --modules none",
			       cfg->kernel ? cfg->kernel : "image");
	ret = list_wants(cfg, &w, e);
	if (ret < 0)
		return ret;
	ret = modules_open(cfg->modules, cfg->kernel, cfg->release, &m, e);
	if (ret == -ENOENT && !cfg->modules && cfg->kernel &&
	    config_has_all(cfg->kernel, cfg->release)) {
		log_info(cfg->log,
			 "kernel %s: no modules directory, virtio is built in",
			 cfg->release);
		if (e)
			*e = (struct err){ 0 };
		return 0;
	}
	if (ret < 0)
		return ret;
	ret = bundle_write(m, w.all, w.count, cfg->cache_dir, cfg->log,
			   in->pack, &b, e);
	if (!ret) {
		log_debug(cfg->log, "%u kernel modules from %s%s", b.count,
			  modules_dir(m), b.cached ? " (cached)" : "");
		in->modules = b.count;
		fputs(b.text, config);
		for (unsigned i = 0; i < w.eager; i++)
			fprintf(config, "load %s\n", w.all[i].name);
		free(b.text);
	}
	modules_close(m);
	return ret;
}

/* ---- our own archive ---- */

static void put_dir(struct pack *p, const char *name)
{
	cpio_header(p, &(struct cpio_entry){ .name = name,
					     .mode = S_IFDIR | 0755,
					     .nlink = 2 });
}

static void put_file(struct pack *p, const char *name, uint32_t mode,
		     const void *data, size_t len, bool copy)
{
	cpio_header(p, &(struct cpio_entry){ .name = name,
					     .mode = S_IFREG | mode,
					     .nlink = 1,
					     .size = len });
	if (copy)
		pack_bytes(p, data, len);
	else
		pack_borrow(p, data, len);
	pack_pad(p, 4);
}

static int add_ours(const struct initramfs_config *cfg, struct initramfs *in,
		    struct err *e)
{
	char *config = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&config, &len);
	int ret;

	if (!f)
		return err_set(e, -ENOMEM, "out of memory");
	put_config(f, cfg);
	put_dir(in->pack, ".arcvmm");
	put_dir(in->pack, BUNDLE_DIR);
	put_file(in->pack, ".arcvmm/init", 0755, guest_start,
		 (size_t)(guest_end - guest_start), false);
	ret = add_modules(cfg, in, f, e);
	if (fclose(f) && !ret)
		ret = err_set(e, -ENOMEM, "out of memory");
	if (!ret) {
		put_file(in->pack, ".arcvmm/config", 0600, config, len, true);
		cpio_trailer(in->pack);
		pack_pad(in->pack, 4);
	}
	free(config);
	return ret;
}

static int compose(const struct initramfs_config *cfg, struct initramfs *in,
		   struct err *e)
{
	uint64_t max = cfg->max_size ? cfg->max_size : DEFAULT_MAX;
	int ret = add_root(cfg, in, max, e);

	for (const char *const *i = cfg->initrds; !ret && i && *i; i++)
		ret = add_initrd(in, *i, e);
	if (!ret)
		ret = add_ours(cfg, in, e);
	if (ret < 0)
		return ret;
	ret = pack_error(in->pack);
	if (ret < 0)
		return err_set(e, ret, "composing the initramfs: %s",
			       strerror(-ret));
	if (pack_size(in->pack) > max)
		return err_set(e, -EFBIG,
			       "the initramfs has %llu MiB, at most %llu MiB "
			       "fit: give the guest more memory, or a disk "
			       "image as its root",
			       (unsigned long long)(pack_size(in->pack) >> 20),
			       (unsigned long long)(max >> 20));
	return 0;
}

int initramfs_build(const struct initramfs_config *cfg, struct initramfs **out,
		    struct err *e)
{
	struct initramfs *in = calloc(1, sizeof(*in));
	int ret;

	if (!in)
		return err_set(e, -ENOMEM, "out of memory");
	in->rootfd = -1;
	in->pack = pack_create();
	ret = in->pack ? compose(cfg, in, e)
		       : err_set(e, -ENOMEM, "out of memory");
	if (ret < 0) {
		initramfs_destroy(in);
		return ret;
	}
	*out = in;
	return 0;
}

void initramfs_destroy(struct initramfs *in)
{
	if (!in)
		return;
	pack_destroy(in->pack);
	if (in->rootfd >= 0)
		close(in->rootfd);
	free(in);
}

uint64_t initramfs_size(const struct initramfs *in)
{
	return pack_size(in->pack);
}

int initramfs_load(const void *in, void *dst, struct err *e)
{
	return pack_load(((const struct initramfs *)in)->pack, dst, e);
}

unsigned initramfs_modules(const struct initramfs *in)
{
	return in->modules;
}
