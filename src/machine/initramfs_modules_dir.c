/* Where the modules of a release are. */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "machine/initramfs_modules.h"

static bool is_version_dir(const char *path)
{
	char file[PATH_MAX];

	if (snprintf(file, sizeof(file), "%s/modules.order", path) >=
	    (int)sizeof(file))
		return false;
	if (!access(file, F_OK))
		return true;
	snprintf(file, sizeof(file), "%s/modules.dep", path);
	return !access(file, F_OK);
}

/* "a, b, ..." of the version directories below @path, for a message. */
static void list_versions(const char *path, char *out, size_t size)
{
	DIR *d = opendir(path);
	struct dirent *de;
	size_t at = 0;

	out[0] = 0;
	while (d && (de = readdir(d))) {
		char sub[PATH_MAX];
		int n;

		if (de->d_name[0] == '.' ||
		    snprintf(sub, sizeof(sub), "%s/%s", path, de->d_name) >=
			    (int)sizeof(sub) ||
		    !is_version_dir(sub))
			continue;
		n = snprintf(out + at, size - at, "%s%s", at ? ", " : "",
			     de->d_name);
		if (n < 0 || (size_t)n >= size - at) {
			out[at] = 0;
			break;
		}
		at += (size_t)n;
	}
	if (d)
		closedir(d);
}

static bool try_dir(char *out, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
static bool try_dir(char *out, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(out, PATH_MAX, fmt, ap);
	va_end(ap);
	return n < PATH_MAX && is_version_dir(out);
}

static int locate_given(const char *dir, const char *release, char *out,
			struct err *e)
{
	char versions[200];
	struct stat st;

	if (stat(dir, &st) < 0)
		return err_set(e, -errno, "modules directory %s: %s", dir,
			       strerror(errno));
	if (!S_ISDIR(st.st_mode))
		return err_set(e, -ENOTDIR,
			       "modules directory %s: not a directory", dir);
	if (try_dir(out, "%s", dir) || try_dir(out, "%s/%s", dir, release) ||
	    try_dir(out, "%s/lib/modules/%s", dir, release) ||
	    try_dir(out, "%s/usr/lib/modules/%s", dir, release))
		return 0;
	list_versions(dir, versions, sizeof(versions));
	if (versions[0])
		return err_set(e, -ENOENT,
			       "modules directory %s is for other kernels "
			       "(%s), the kernel is %s",
			       dir, versions, release);
	return err_set(e, -ENOENT,
		       "%s holds no kernel modules: give the directory %s "
		       "or its parent",
		       dir, release);
}

int modules_locate(const char *dir, const char *kernel, const char *release,
		   char out[PATH_MAX], struct err *e)
{
	const char *slash = kernel ? strrchr(kernel, '/') : NULL;
	int base = slash ? (int)(slash - kernel) : 1;
	const char *at = slash ? kernel : ".";

	if (dir)
		return locate_given(dir, release, out, e);
	if (kernel &&
	    (try_dir(out, "%.*s/../lib/modules/%s", base, at, release) ||
	     try_dir(out, "%.*s/lib/modules/%s", base, at, release) ||
	     try_dir(out, "%.*s/modules/%s", base, at, release) ||
	     try_dir(out, "%.*s/%s", base, at, release)))
		return 0;
	if (try_dir(out, "/lib/modules/%s", release) ||
	    try_dir(out, "/usr/lib/modules/%s", release))
		return 0;
	return err_set(e, -ENOENT,
		       "no modules of kernel %s: looked beside the kernel and "
		       "in /lib/modules; give their directory with --modules, "
		       "or --modules none if the kernel needs none",
		       release);
}
