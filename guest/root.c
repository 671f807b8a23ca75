/*
 * Theory of operation
 *
 * A root is named by what stays true when disks are added: the serial number
 * of a virtio disk, the label or UUID of a filesystem, the name or UUID of a
 * partition; or plainly by its device. All block devices are looked through
 * until one fits, again whenever the kernel says that a device came, until a
 * deadline. A disk named by its serial may hold the filesystem itself or
 * partitions, of which the first that looks like a root is taken.
 *
 * The switch is that of switch_root: mount aside, move the basic mounts in,
 * empty the initramfs (it is memory), move the mount over "/", chroot.
 */
#include "root.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config.h"
#include "machine/fs_probe.h"
#include "modules.h"
#include "netlink.h"
#include "util.h"

#define NEW	 "/.arcvmm/new"
#define DEADLINE 10000000000ull

/* One block device, a disk or a partition. */
struct block {
	char name[64]; /* "vda1" */
	char disk[64]; /* "vda" */
	int partition; /* its number, 0: a disk */
	bool has_fs;
	struct fs_id fs;
};

/* ---- looking ---- */

static int open_block(const char *name)
{
	char path[80];

	snprintf(path, sizeof(path), "/dev/%s", name);
	return open(path, O_RDONLY | O_CLOEXEC);
}

static bool sysfs(const char *name, const char *file, char *buf, size_t size)
{
	char path[200];

	snprintf(path, sizeof(path), "/sys/class/block/%s/%s", name, file);
	return read_text(path, buf, size) > 0;
}

static bool block_read(const char *name, struct block *b)
{
	static uint8_t buf[FS_PROBE_SIZE];
	char text[32], link[PATH_MAX], path[200];
	int fd;
	long n;

	*b = (struct block){ 0 };
	if (strlen(name) >= sizeof(b->name))
		return false;
	strcpy(b->name, name);
	strcpy(b->disk, name);
	if (sysfs(name, "partition", text, sizeof(text))) {
		char *slash;

		b->partition = atoi(text);
		/* ".../block/vda/vda1" */
		snprintf(path, sizeof(path), "/sys/class/block/%s", name);
		n = readlink(path, link, sizeof(link) - 1);
		if (n <= 0)
			return false;
		link[n] = 0;
		slash = strrchr(link, '/');
		if (!slash)
			return false;
		*slash = 0;
		slash = strrchr(link, '/');
		if (!slash || strlen(slash + 1) >= sizeof(b->disk))
			return false;
		strcpy(b->disk, slash + 1);
	}
	fd = open_block(name);
	if (fd < 0)
		return false;
	n = read_full(fd, buf, sizeof(buf));
	close(fd);
	b->has_fs = n > 0 && fs_probe(buf, (size_t)n, &b->fs);
	return true;
}

/* The UUID of partition @b in the GPT of its disk. */
static bool part_uuid(const struct block *b, char out[37])
{
	uint8_t head[512], entry[128];
	struct fs_id id;
	uint64_t lba, at;
	int fd = open_block(b->disk);
	bool ok = false;

	if (fd < 0)
		return false;
	if (pread(fd, head, sizeof(head), 512) == sizeof(head) &&
	    !memcmp(head, "EFI PART", 8) &&
	    (uint32_t)b->partition <= get_le32(head + 80) &&
	    get_le32(head + 84) >= sizeof(entry)) {
		lba = get_le64(head + 72);
		at = lba * 512 +
		     (uint64_t)(b->partition - 1) * get_le32(head + 84);
		ok = pread(fd, entry, sizeof(entry), (off_t)at) ==
		     sizeof(entry);
	}
	close(fd);
	if (ok) {
		/* A GUID's first three fields are little-endian. */
		static const uint8_t order[16] = {
			3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15
		};
		uint8_t swapped[16];

		for (int i = 0; i < 16; i++)
			swapped[i] = entry[16 + order[i]];
		fs_probe_uuid(&id, swapped);
		strcpy(out, id.uuid);
	}
	return ok;
}

static bool part_label(const struct block *b, const char *want)
{
	char text[1024], *line;

	if (!sysfs(b->name, "uevent", text, sizeof(text)))
		return false;
	line = strstr(text, "PARTNAME=");
	return line && !strcmp(chomp(line + 9), want);
}

static bool fits(const struct block *b, const char *spec)
{
	char text[64];

	if (!strncmp(spec, "label=", 6))
		return b->has_fs && !strcmp(b->fs.label, spec + 6);
	if (!strncmp(spec, "uuid=", 5))
		return b->has_fs && !strcasecmp(b->fs.uuid, spec + 5);
	if (!strncmp(spec, "partuuid=", 9))
		return b->partition && part_uuid(b, text) &&
		       !strcasecmp(text, spec + 9);
	if (!strncmp(spec, "partlabel=", 10))
		return b->partition && part_label(b, spec + 10);
	if (!strncmp(spec, "serial=", 7))
		return sysfs(b->disk, "serial", text, sizeof(text)) &&
		       !strcmp(chomp(text), spec + 7) && b->has_fs;
	if (!strncmp(spec, "/dev/", 5))
		spec += 5;
	return !strcmp(b->name, spec);
}

static int by_name(const void *a, const void *b)
{
	const char *x = a, *y = b;
	size_t n = strlen(x), m = strlen(y);

	/* vdb before vdaa, vda2 before vda10 */
	return n != m ? (n > m) - (n < m) : strcmp(x, y);
}

#define MAX_BLOCKS 256

/* Names of all block devices, in order; how many. */
static int list_blocks(char (*names)[64])
{
	DIR *d = opendir("/sys/class/block");
	struct dirent *de;
	int n = 0;

	while (d && n < MAX_BLOCKS && (de = readdir(d)))
		if (de->d_name[0] != '.' && strlen(de->d_name) < 64)
			strcpy(names[n++], de->d_name);
	if (d)
		closedir(d);
	qsort(names, (size_t)n, sizeof(*names), by_name);
	return n;
}

/* ---- mounting ---- */

static int mount_fs(struct config *c, const char *dev, const char *type,
		    const char *at, bool readonly)
{
	unsigned long flags = readonly ? MS_RDONLY : 0;

	module_load(c, fs_module(type));
	if (!mount(dev, at, type, flags, c->root_flags))
		return 0;
	/* A read-only disk, or a filesystem that is always so. */
	if ((errno == EROFS || errno == EACCES) && !readonly &&
	    !mount(dev, at, type, flags | MS_RDONLY, c->root_flags))
		return 0;
	return -errno;
}

static bool looks_like_root(const char *at)
{
	static const char *const signs[] = { "sbin/init", "bin/sh", "etc",
					     "usr/bin" };

	for (size_t i = 0; i < sizeof(signs) / sizeof(*signs); i++) {
		char path[128];
		struct stat st;

		snprintf(path, sizeof(path), "%s/%s", at, signs[i]);
		if (!lstat(path, &st))
			return true;
	}
	return false;
}

/* One look through all devices. 0: mounted at @at; -EAGAIN: none fits. */
static int try_mount(struct config *c, const char *at, bool readonly, char *why,
		     size_t size)
{
	static char names[MAX_BLOCKS][64];
	int n = list_blocks(names), ret = -EAGAIN;
	bool choose = !strncmp(c->root, "serial=", 7);

	for (int i = 0; i < n; i++) {
		const char *type;
		struct block b;
		char dev[80];

		if (!block_read(names[i], &b) || !fits(&b, c->root))
			continue;
		type = c->root_type ? c->root_type
		       : b.has_fs   ? b.fs.type
				    : NULL;
		snprintf(dev, sizeof(dev), "/dev/%s", b.name);
		if (!type) {
			snprintf(why, size,
				 "%s: no filesystem known on it (give its "
				 "type)",
				 dev);
			ret = -EINVAL;
			continue;
		}
		ret = mount_fs(c, dev, type, at, readonly);
		if (ret < 0) {
			snprintf(why, size, "%s as %s: %s", dev, type,
				 strerror(-ret));
			if (!choose)
				return ret;
			continue;
		}
		if (!choose || looks_like_root(at))
			return 0;
		umount2(at, MNT_DETACH);
		snprintf(why, size, "%s: does not look like a root", dev);
		ret = -ENOENT;
	}
	return ret;
}

static int mount_root(struct config *c, const char *at, bool readonly,
		      int uevents, char *why, size_t size)
{
	uint64_t end = boot_ns() + DEADLINE;
	int ret;

	for (;;) {
		uint64_t now = boot_ns();

		ret = try_mount(c, at, readonly, why, size);
		if (!ret)
			return 0;
		if (ret != -EAGAIN && ret != -ENOENT)
			return ret;
		if (now >= end)
			break;
		uevent_wait(uevents, (int)((end - now) / 1000000) + 1);
	}
	if (ret == -EAGAIN)
		snprintf(why, size, "no disk fits %s", c->root);
	return -ENOENT;
}

static int mount_overlay(struct config *c, int uevents, char *why, size_t size)
{
	int ret;

	mkdir("/.arcvmm/lower", 0755);
	mkdir("/.arcvmm/upper", 0755);
	ret = mount_root(c, "/.arcvmm/lower", true, uevents, why, size);
	if (ret < 0)
		return ret;
	module_load(c, "overlay");
	if (mount("arcvmm", "/.arcvmm/upper", "tmpfs", 0, "mode=755") < 0 ||
	    mkdir("/.arcvmm/upper/data", 0755) < 0 ||
	    mkdir("/.arcvmm/upper/work", 0755) < 0 ||
	    mount("arcvmm", NEW, "overlay", 0,
		  "lowerdir=/.arcvmm/lower,upperdir=/.arcvmm/upper/data,"
		  "workdir=/.arcvmm/upper/work") < 0) {
		ret = -errno;
		snprintf(why, size, "overlay: %s", strerror(errno));
		return ret;
	}
	/* The overlay keeps both; their names are not needed. */
	umount2("/.arcvmm/lower", MNT_DETACH);
	umount2("/.arcvmm/upper", MNT_DETACH);
	return 0;
}

/* ---- the basic mounts ---- */

static const struct basic {
	const char *at, *type, *options;
	unsigned long flags;
	unsigned mode;
} basics[] = {
	/* clang-format off */
	{ "/proc",	    "proc",	NULL,	     MS_NOSUID | MS_NODEV | MS_NOEXEC, 0555 },
	{ "/sys",	    "sysfs",	NULL,	     MS_NOSUID | MS_NODEV | MS_NOEXEC, 0555 },
	{ "/dev",	    "devtmpfs", "mode=755",  MS_NOSUID, 0755 },
	{ "/dev/pts",	    "devpts",	"mode=620,gid=5,ptmxmode=666",
						     MS_NOSUID | MS_NOEXEC, 0755 },
	{ "/dev/shm",	    "tmpfs",	"mode=1777", MS_NOSUID | MS_NODEV, 01777 },
	{ "/run",	    "tmpfs",	"mode=755",  MS_NOSUID | MS_NODEV, 0755 },
	{ "/sys/fs/cgroup", "cgroup2",	NULL,	     MS_NOSUID | MS_NODEV | MS_NOEXEC, 0 },
	/* clang-format on */
};

void root_mount_basics(void)
{
	for (size_t i = 0; i < sizeof(basics) / sizeof(*basics); i++) {
		const struct basic *b = &basics[i];

		if (b->mode)
			mkdir(b->at, b->mode);
		mount(b->type, b->at, b->type, b->flags, b->options);
	}
	symlink("/proc/self/fd", "/dev/fd");
	symlink("/proc/self/fd/0", "/dev/stdin");
	symlink("/proc/self/fd/1", "/dev/stdout");
	symlink("/proc/self/fd/2", "/dev/stderr");
}

/* Up to @max blank-separated words of @line, unescaped in place. */
static int words(char *line, char **word, int max)
{
	char *save = NULL;
	int n = 0;

	for (char *w = strtok_r(line, " ", &save); w && n < max;
	     w = strtok_r(NULL, " ", &save))
		if (config_unescape(w))
			word[n++] = w;
	return n;
}

void root_load_filesystems(struct config *c)
{
	for (char **m = c->mounts; m && *m; m++) {
		char type[32];

		snprintf(type, sizeof(type), "%.*s", (int)strcspn(*m, " "), *m);
		module_load(c, fs_module(type));
	}
}

int root_mount_more(struct config *c, char *why, size_t size)
{
	if (!mkdir("/tmp", 01777))
		chmod("/tmp", 01777); /* whatever the umask */
	else if (access("/tmp", W_OK) < 0 && errno == EROFS)
		mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV,
		      "mode=1777");
	for (char **m = c->mounts; m && *m; m++) {
		char *w[4];
		int n = words(*m, w, 4);

		if (n < 3) {
			snprintf(why, size,
				 "mount: no type, source and target");
			return -EINVAL;
		}
		make_dirs(w[2], 0755);
		if (mount(w[1], w[2], w[0], 0, n > 3 ? w[3] : NULL) < 0) {
			int ret = -errno;

			snprintf(why, size, "mount %s on %s: %s", w[1], w[2],
				 strerror(-ret));
			return ret;
		}
	}
	return 0;
}

/* ---- the switch ---- */

/* Remove everything on the filesystem @dev below @fd, which is taken over. */
static void empty(int fd, dev_t dev)
{
	DIR *d = fdopendir(fd);
	struct dirent *de;

	if (!d) {
		close(fd);
		return;
	}
	while ((de = readdir(d))) {
		struct stat st;

		if (!strcmp(de->d_name, ".") || !strcmp(de->d_name, "..") ||
		    fstatat(fd, de->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
		    st.st_dev != dev)
			continue;
		if (S_ISDIR(st.st_mode)) {
			int sub = openat(fd, de->d_name,
					 O_RDONLY | O_DIRECTORY | O_NOFOLLOW |
						 O_CLOEXEC);

			if (sub >= 0)
				empty(sub, dev);
			unlinkat(fd, de->d_name, AT_REMOVEDIR);
		} else {
			unlinkat(fd, de->d_name, 0);
		}
	}
	closedir(d);
}

/* Our own program, where it can be found after the switch. */
static void keep_init(void)
{
	int fd;

	mkdir("/run/arcvmm", 0755);
	fd = open("/run/arcvmm/init", O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
	if (fd >= 0)
		close(fd);
	mount("/.arcvmm/init", "/run/arcvmm/init", NULL, MS_BIND, NULL);
}

int root_switch(struct config *c, int uevents, char *why, size_t size)
{
	static const char *const moved[] = { "/proc", "/sys", "/dev", "/run" };
	struct stat st;
	int ret, old;

	mkdir(NEW, 0755);
	if (c->root_overlay)
		ret = mount_overlay(c, uevents, why, size);
	else
		ret = mount_root(c, NEW, c->root_readonly, uevents, why, size);
	if (ret < 0)
		return ret;
	keep_init();
	for (size_t i = 0; i < sizeof(moved) / sizeof(*moved); i++) {
		char to[64];

		snprintf(to, sizeof(to), NEW "%s", moved[i]);
		mkdir(to, 0755); /* a read-only root must have it */
		if (mount(moved[i], to, NULL, MS_MOVE, NULL) < 0)
			umount2(moved[i], MNT_DETACH);
	}
	old = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (chdir(NEW) < 0 || old < 0 || fstat(old, &st) < 0 ||
	    mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 ||
	    chdir("/") < 0) {
		ret = -errno;
		snprintf(why, size, "switching the root: %s", strerror(errno));
		if (old >= 0)
			close(old);
		return ret;
	}
	empty(old, st.st_dev);
	return 0;
}

void root_quiesce(void)
{
	static char line[PATH_MAX];
	FILE *f;

	sync();
	f = fopen("/proc/self/mounts", "re");
	while (f && fgets(line, sizeof(line), f)) {
		char *at = strchr(line, ' '), *end;

		if (strncmp(line, "/dev/", 5) || !at)
			continue;
		end = strchr(++at, ' ');
		if (!end)
			continue;
		*end = 0;
		mount(NULL, at, NULL, MS_REMOUNT | MS_RDONLY, NULL);
	}
	if (f)
		fclose(f);
}
