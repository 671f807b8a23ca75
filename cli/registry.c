/*
 * Theory of operation: a VM lives as long as the lock on NAME/lock is held, and
 * the kernel drops the lock with the process, however that ends. So whoever can
 * take the lock has found a dead one and may remove it. A directory appears
 * under its name by rename(), complete with its lock held, and a rename onto an
 * existing name fails: two starters cannot share a name, and nobody sees a
 * half-made directory. A VM that ends in order takes its lock file away before
 * it lets go of it; so a lock counts only while the file still has its name:
 * else it is of a VM that left, and the directory may be another's already.
 */
#include "cli/registry.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"

static const char *const files[] = { "info",  "info.new",    "ctl",
				     "vsock", "console.log", "console.log.1",
				     "lock" };

static const char died[] =
	"the process of VM '%s' died; what it left behind was removed";

/* ---- the runtime directory ---- */

static int runtime_dir(char *buf, size_t size)
{
	const char *xdg = getenv("XDG_RUNTIME_DIR");
	struct stat st;

	if (xdg && *xdg == '/')
		snprintf(buf, size, "%s/arcvmm", xdg);
	else if (!geteuid() && !access("/run", W_OK))
		snprintf(buf, size, "/run/arcvmm");
	else
		snprintf(buf, size, "/tmp/arcvmm-%u", (unsigned)geteuid());
	if (mkdir(buf, 0700) && errno != EEXIST)
		return complain("%s: %s", buf, strerror(errno));
	/* In /tmp somebody else may have been here first. */
	if (lstat(buf, &st) || !S_ISDIR(st.st_mode) || st.st_uid != geteuid() ||
	    (st.st_mode & 077))
		return complain("%s is not a directory that only you may "
				"enter: remove it",
				buf);
	return 0;
}

static bool good_name(const char *name)
{
	if (!isalnum((unsigned char)*name) || strlen(name) > REGISTRY_NAME_MAX)
		return false;
	for (; *name; name++)
		if (!isalnum((unsigned char)*name) && !strchr("-_.", *name))
			return false;
	return true;
}

const char *instance_path(const struct instance *i, const char *file, char *buf,
			  size_t size)
{
	snprintf(buf, size, "%s/%s", i->dir, file);
	return buf;
}

static void remove_dir(const char *dir)
{
	char path[256];

	for (unsigned i = 0; i < sizeof(files) / sizeof(*files); i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, files[i]);
		unlink(path);
	}
	/* Once the lock file is gone, another may take the place. */
	if (rmdir(dir) && errno != ENOENT && errno != ENOTEMPTY)
		complain("%s: %s", dir, strerror(errno));
}

enum life { ALIVE, LEFT, DIED };

/* How it is with the VM in @dir; what is left of a dead one is taken away. */
static enum life look_at(const char *dir)
{
	struct stat ours, there;
	enum life life = DIED;
	char path[160];
	int fd;

	snprintf(path, sizeof(path), "%s/lock", dir);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return LEFT;
	if (flock(fd, LOCK_EX | LOCK_NB))
		life = ALIVE;
	else if (fstat(fd, &ours) || stat(path, &there) ||
		 ours.st_ino != there.st_ino || ours.st_dev != there.st_dev)
		life = LEFT;
	else
		remove_dir(dir);
	close(fd);
	return life;
}

/* ---- our own VM ---- */

static void invent_name(char *name, size_t size)
{
	uint32_t r = 0;

	if (getrandom(&r, sizeof(r), 0) != sizeof(r))
		r = (uint32_t)now_ns();
	snprintf(name, size, "vm-%08x", r);
}

int registry_claim(struct instance *i, const char *name)
{
	char base[96], path[192], tmp[128];
	int rc = runtime_dir(base, sizeof(base));

	if (rc)
		return rc;
	i->lock = -1;
	if (name)
		snprintf(i->name, sizeof(i->name), "%s", name);
	else
		invent_name(i->name, sizeof(i->name));
	if (name && !good_name(name))
		return complain("'%s' is no name for a VM: letters, digits, "
				"'-', '_' and '.', at most %d",
				name, REGISTRY_NAME_MAX);
	if (snprintf(i->dir, sizeof(i->dir), "%s/%s", base, i->name) >= 90)
		return complain("%s: the name of the runtime directory is too "
				"long for a socket",
				i->dir);
	look_at(i->dir); /* takes a dead one out of the way */
	snprintf(tmp, sizeof(tmp), "%s/.new-%d", base, (int)getpid());
	remove_dir(tmp);
	if (mkdir(tmp, 0700))
		return complain("%s: %s", tmp, strerror(errno));
	snprintf(path, sizeof(path), "%s/lock", tmp);
	i->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (i->lock < 0 || flock(i->lock, LOCK_EX | LOCK_NB) ||
	    rename(tmp, i->dir)) {
		rc = errno == EEXIST || errno == ENOTEMPTY
			     ? complain("a VM named '%s' is running already",
					i->name)
			     : complain("%s: %s", i->dir, strerror(errno));
		remove_dir(tmp);
		if (i->lock >= 0)
			close(i->lock);
		i->lock = -1;
		return rc;
	}
	return 0;
}

void registry_release(struct instance *i)
{
	if (i->lock < 0)
		return;
	remove_dir(i->dir);
	close(i->lock);
	i->lock = -1;
}

void instance_set_info(const struct instance *i, ...)
{
	char path[192], tmp[192];
	const char *key;
	va_list ap;
	FILE *f;

	f = fopen(instance_path(i, "info.new", tmp, sizeof(tmp)), "we");
	if (!f)
		return;
	va_start(ap, i);
	while ((key = va_arg(ap, const char *))) {
		const char *value = va_arg(ap, const char *);

		fprintf(f, "%s ", key);
		for (; *value; value++) /* one line, whatever it is */
			fputc((unsigned char)*value < 0x20 ? ' ' : *value, f);
		fputc('\n', f);
	}
	va_end(ap);
	if (!fclose(f))
		rename(tmp, instance_path(i, "info", path, sizeof(path)));
}

/* ---- others ---- */

void instance_info(const struct instance *i, const char *key, char *buf,
		   size_t size)
{
	char path[192], line[4096];
	size_t n = strlen(key);
	FILE *f = fopen(instance_path(i, "info", path, sizeof(path)), "re");

	*buf = 0;
	while (f && fgets(line, sizeof(line), f)) {
		if (strncmp(line, key, n) || line[n] != ' ')
			continue;
		line[strcspn(line, "\n")] = 0;
		snprintf(buf, size, "%s", line + n + 1);
	}
	if (f)
		fclose(f);
}

int registry_find(struct instance *i, const char *name)
{
	char base[96];
	int rc = runtime_dir(base, sizeof(base));

	if (rc)
		return rc;
	i->lock = -1;
	if (!good_name(name))
		return complain("'%s' is no name for a VM", name);
	snprintf(i->name, sizeof(i->name), "%s", name);
	snprintf(i->dir, sizeof(i->dir), "%s/%s", base, name);
	switch (look_at(i->dir)) {
	case ALIVE:
		return 0;
	case DIED:
		return complain(died, name);
	default:
		return complain("no VM named '%s' is running (see 'arcvmm "
				"ps')",
				name);
	}
}

static int visible(const struct dirent *d)
{
	return *d->d_name != '.';
}

void registry_each(void (*fn)(void *ctx, const struct instance *i), void *ctx)
{
	struct dirent **list;
	char base[96];
	int n;

	if (runtime_dir(base, sizeof(base)))
		return;
	n = scandir(base, &list, visible, alphasort);
	for (int k = 0; k < n; k++) {
		struct instance i = { .lock = -1 };

		if (good_name(list[k]->d_name)) {
			snprintf(i.name, sizeof(i.name), "%.*s",
				 REGISTRY_NAME_MAX, list[k]->d_name);
			snprintf(i.dir, sizeof(i.dir), "%s/%s", base, i.name);
			switch (look_at(i.dir)) {
			case ALIVE:
				fn(ctx, &i);
				break;
			case DIED:
				complain(died, i.name);
				break;
			case LEFT:
				break;
			}
		}
		free(list[k]);
	}
	if (n >= 0)
		free(list);
}
