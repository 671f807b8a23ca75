#include "modules.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "config.h"
#include "util.h"

#define DIR "/.arcvmm/modules/"

/* @name up to its first blank, - and _ alike. */
static struct config_module *find(struct config *c, const char *name,
				  size_t len)
{
	for (size_t i = 0; i < c->module_count; i++) {
		const char *n = c->modules[i].name;
		size_t k = 0;

		while (k < len && n[k] &&
		       (n[k] == name[k] || (n[k] == '_' && name[k] == '-')))
			k++;
		if (k == len && !n[k])
			return &c->modules[i];
	}
	return NULL;
}

static int insert(const char *name)
{
	char path[sizeof(DIR) + 256];
	int fd, ret = 0;

	if (snprintf(path, sizeof(path), DIR "%s.ko", name) >=
	    (int)sizeof(path))
		return -ENAMETOOLONG;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST)
		ret = -errno;
	close(fd);
	return ret;
}

static int load(struct config *c, const char *name, size_t len)
{
	struct config_module *m = find(c, name, len);
	int ret;

	if (!m)
		return -ENOENT;
	if (m->tried) /* also ends a circle of dependencies */
		return m->loaded ? 0 : -ELOOP;
	m->tried = true;
	for (const char *d = m->deps; *d;) {
		size_t n = strcspn(d, " ");

		/* What a missing one is good for, the kernel will tell. */
		if (n)
			load(c, d, n);
		d += n + (d[n] == ' ');
	}
	ret = insert(m->name);
	if (ret < 0)
		say("kernel module %s: %s", m->name, strerror(-ret));
	m->loaded = !ret;
	return ret;
}

int module_load(struct config *c, const char *name)
{
	return load(c, name, strlen(name));
}

int modules_load_all(struct config *c)
{
	int n = 0;

	for (char **l = c->loads; l && *l; l++)
		n += !module_load(c, *l);
	return n;
}
