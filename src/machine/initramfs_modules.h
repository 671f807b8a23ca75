/*
 * The modules of one kernel: where they are, which ones a guest needs, in what
 * order they load.
 */
#ifndef ARC_MACHINE_INITRAMFS_MODULES_H
#define ARC_MACHINE_INITRAMFS_MODULES_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct modules;

/*
 * Find the modules of @release. @dir is what the user gave: the version
 * directory or a parent of it; NULL: beside @kernel (../lib/modules,
 * lib/modules, .), then /lib/modules. 0; -ENOENT with a sentence that says
 * what to give.
 */
int modules_open(const char *dir, const char *kernel, const char *release,
		 struct modules **out, struct err *e);
void modules_close(struct modules *m); /* NULL-safe */
/* The first half of that: only find the directory. */
int modules_locate(const char *dir, const char *kernel, const char *release,
		   char out[PATH_MAX], struct err *e);

const char *modules_dir(const struct modules *m);
/* Identifies the index for a cache: sizes, times, inodes of its files. */
uint64_t modules_identity(const struct modules *m);
/* The same of one module file, @path as in struct module; 0: not there. */
uint64_t modules_file_identity(const struct modules *m, const char *path);

/*
 * Read the index; before lookup and want. 0; -ENOENT when the directory has
 * none.
 */
int modules_read(struct modules *m, struct err *e);

enum module_state { MODULE_ABSENT, MODULE_BUILTIN, MODULE_FILE };
/* @name with - or _. */
enum module_state modules_lookup(const struct modules *m, const char *name);

/*
 * Want @name and all it depends on; built-in ones are skipped. 0; -ENOENT when a
 * dependency is missing, -EBADMSG for a damaged module, -EXDEV for one built for
 * another kernel.
 */
int modules_want(struct modules *m, const char *name, struct err *e);

/* What is wanted, in load order. NULL at @i >= count. */
struct module {
	char *name; /* with _ */
	char *path; /* of the file, below the directory */
	char *deps; /* names, each with a space before it */
	void *data; /* unpacked, may be taken: set it to NULL */
	size_t len;
};
struct module *modules_wanted(struct modules *m, unsigned i);

/*
 * One value of the .modinfo section of the module @elf, the @i-th with the key
 * @key; NULL when there is none. Points into @elf, closed by a 0 in it.
 */
const char *modinfo(const void *elf, size_t len, const char *key, unsigned i);

#endif
