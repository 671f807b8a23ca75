/*
 * Theory of operation
 *
 * A version directory is described by text files that depmod writes:
 * modules.dep ("path: path path"), modules.softdep, modules.builtin. A kernel
 * package that was unpacked and never installed has no modules.dep, only
 * modules.order and modules.builtin, which the kernel's own build writes. So
 * the index (name -> path) comes from modules.dep or else modules.order, and
 * dependencies come from modules.dep where it names the module, else from the
 * module itself, whose .modinfo section carries "depends=".
 *
 * Wanting a module is a depth-first walk that appends a module after those it
 * depends on. Every module carries the release it was built for ("vermagic"),
 * which is how the directory of another kernel is recognised whatever its name.
 *
 * The files may be anyone's: sizes, counts and depth are bounded, and a module
 * is an untrusted ELF file.
 */
#include "machine/initramfs_modules.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/util.h"
#include "machine/initramfs_stream.h"

#define INDEX_LIMIT  MiB(32) /* each text file */
#define MODULE_LIMIT MiB(64) /* each module, unpacked */
#define DEPTH_MAX    32
#define NAME_LIMIT   128
#define SOFTDEP_MAX  32 /* lines of them in one module */

enum visit { VISIT_NEW, VISIT_OPEN, VISIT_DONE };

struct index_entry {
	char *name; /* with _ */
	const char *path; /* in the text; NULL: built in */
	const char *deps; /* in the text, up to the line's end; or NULL */
	enum visit visit;
};

struct modules {
	int dirfd;
	char *dir;
	char *release;
	char *text; /* modules.dep or modules.order, lines closed by 0 */
	char *builtin;
	char *softdep;
	bool has_dep;
	struct index_entry *index; /* sorted by name */
	size_t count;
	struct module *wanted;
	size_t wanted_count, wanted_room;
};

/* ---- the index ---- */

static uint64_t mix(uint64_t h, uint64_t v)
{
	h = (h ^ v) * 0x9e3779b97f4a7c15ull;
	return h ^ (h >> 29);
}

static uint64_t identity(const struct stat *st)
{
	uint64_t h = mix(0, (uint64_t)st->st_size);

	h = mix(h, (uint64_t)st->st_ino);
	h = mix(h, (uint64_t)st->st_mtim.tv_sec);
	return mix(h, (uint64_t)st->st_mtim.tv_nsec) | 1;
}

uint64_t modules_file_identity(const struct modules *m, const char *path)
{
	struct stat st;

	return fstatat(m->dirfd, path, &st, 0) < 0 ? 0 : identity(&st);
}

static const char *const index_files[] = { "modules.dep", "modules.order",
					   "modules.builtin",
					   "modules.softdep" };

uint64_t modules_identity(const struct modules *m)
{
	uint64_t h = 0;

	for (size_t i = 0; i < array_size(index_files); i++)
		h = mix(h, modules_file_identity(m, index_files[i]));
	return h;
}

/* A text file, closed by a 0; NULL when absent or too big. */
static char *read_text(const struct modules *m, const char *name)
{
	int fd = openat(m->dirfd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;
	char *text = NULL;
	size_t at = 0;

	if (fd < 0)
		return NULL;
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) ||
	    (uint64_t)st.st_size > INDEX_LIMIT)
		goto out;
	text = malloc((size_t)st.st_size + 1);
	if (!text)
		goto out;
	while (at < (size_t)st.st_size) {
		ssize_t n = pread(fd, text + at, (size_t)st.st_size - at,
				  (off_t)at);

		if (n <= 0)
			break;
		at += (size_t)n;
	}
	text[at] = 0;
out:
	close(fd);
	return text;
}

/* "kernel/a/virtio-rng.ko.xz" -> "virtio_rng"; false when it is no module. */
static bool name_of(const char *path, size_t len, char out[NAME_LIMIT])
{
	const char *end = path + len;
	const char *base = memrchr(path, '/', len);
	const char *ko;

	base = base ? base + 1 : path;
	ko = memmem(base, (size_t)(end - base), ".ko", 3);
	if (!ko || ko == base || ko - base >= NAME_LIMIT)
		return false;
	for (; base < ko; base++)
		*out++ = *base == '-' ? '_' : *base;
	*out = 0;
	return true;
}

static bool plain_name(const char *name, char out[NAME_LIMIT])
{
	size_t n = 0;

	for (; name[n] && n < NAME_LIMIT - 1; n++)
		out[n] = name[n] == '-' ? '_' : name[n];
	out[n] = 0;
	return n && !name[n];
}

/* A path from a text file must stay below the directory. */
static bool path_is_safe(const char *path)
{
	return path[0] != '/' && strncmp(path, "../", 3) &&
	       !strstr(path, "/../");
}

static int add_line(struct modules *m, size_t *room, char *line, bool builtin)
{
	struct index_entry en = { .path = builtin ? NULL : line };
	char name[NAME_LIMIT];
	char *colon = strchr(line, ':');

	if (colon) {
		*colon = 0;
		en.deps = colon + 1;
	}
	if (!name_of(line, strlen(line), name) || !path_is_safe(line))
		return 0;
	if (m->count == *room) {
		size_t n = *room ? 2 * *room : 4096;
		void *p = reallocarray(m->index, n, sizeof(*m->index));

		if (!p)
			return -ENOMEM;
		m->index = p;
		*room = n;
	}
	en.name = strdup(name);
	if (!en.name)
		return -ENOMEM;
	m->index[m->count++] = en;
	return 0;
}

static int add_lines(struct modules *m, size_t *room, char *text, bool builtin)
{
	char *save = NULL;

	for (char *l = strtok_r(text, "\n", &save); l;
	     l = strtok_r(NULL, "\n", &save)) {
		int ret = add_line(m, room, l, builtin);

		if (ret < 0)
			return ret;
	}
	return 0;
}

static int by_name(const void *a, const void *b)
{
	const struct index_entry *x = a, *y = b;
	int c = strcmp(x->name, y->name);

	/* A module that is also a file (should not be) counts as the file. */
	return c ? c : !x->path - !y->path;
}

int modules_read(struct modules *m, struct err *e)
{
	size_t room = 0;
	int ret;

	if (m->text)
		return 0;
	m->text = read_text(m, "modules.dep");
	m->has_dep = m->text;
	if (!m->text)
		m->text = read_text(m, "modules.order");
	m->builtin = read_text(m, "modules.builtin");
	m->softdep = read_text(m, "modules.softdep");
	if (!m->text)
		return err_set(e, -ENOENT,
			       "%s has neither modules.dep nor modules.order: "
			       "run depmod for it, or give the directory of "
			       "the kernel's package with --modules",
			       m->dir);
	ret = add_lines(m, &room, m->text, false);
	if (!ret && m->builtin)
		ret = add_lines(m, &room, m->builtin, true);
	if (ret < 0)
		return err_set(e, ret, "%s: %s", m->dir, strerror(-ret));
	if (m->count)
		qsort(m->index, m->count, sizeof(*m->index), by_name);
	return 0;
}

static struct index_entry *find(const struct modules *m, const char *any)
{
	char name[NAME_LIMIT];
	size_t lo = 0, hi = m->count;

	if (!plain_name(any, name))
		return NULL;
	while (lo < hi) { /* the first of equals */
		size_t mid = lo + (hi - lo) / 2;

		if (strcmp(m->index[mid].name, name) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < m->count && !strcmp(m->index[lo].name, name) ? &m->index[lo]
								 : NULL;
}

enum module_state modules_lookup(const struct modules *m, const char *name)
{
	const struct index_entry *en = find(m, name);

	return !en ? MODULE_ABSENT : en->path ? MODULE_FILE : MODULE_BUILTIN;
}

/* ---- opening ---- */

int modules_open(const char *dir, const char *kernel, const char *release,
		 struct modules **out, struct err *e)
{
	struct modules *m = calloc(1, sizeof(*m));
	char path[PATH_MAX];
	int ret;

	if (!m)
		return err_set(e, -ENOMEM, "out of memory");
	m->dirfd = -1;
	ret = modules_locate(dir, kernel, release, path, e);
	if (ret < 0)
		goto fail;
	m->dir = strdup(path);
	m->release = strdup(release);
	if (!m->dir || !m->release) {
		ret = err_set(e, -ENOMEM, "out of memory");
		goto fail;
	}
	m->dirfd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (m->dirfd < 0) {
		ret = err_set(e, -errno, "%s: %s", path, strerror(errno));
		goto fail;
	}
	*out = m;
	return 0;
fail:
	modules_close(m);
	return ret;
}

static void module_free(struct module *mod)
{
	free(mod->name);
	free(mod->path);
	free(mod->deps);
	free(mod->data);
}

void modules_close(struct modules *m)
{
	if (!m)
		return;
	for (size_t i = 0; i < m->count; i++)
		free(m->index[i].name);
	for (size_t i = 0; i < m->wanted_count; i++)
		module_free(&m->wanted[i]);
	free(m->index);
	free(m->wanted);
	free(m->text);
	free(m->builtin);
	free(m->softdep);
	free(m->release);
	free(m->dir);
	if (m->dirfd >= 0)
		close(m->dirfd);
	free(m);
}

const char *modules_dir(const struct modules *m)
{
	return m->dir;
}

/* ---- modules ---- */

const char *modinfo(const void *elf, size_t len, const char *key, unsigned i)
{
	const uint8_t *p = elf;
	size_t keylen = strlen(key);
	uint64_t shoff, names, names_len;
	unsigned num, strndx;
	Elf64_Shdr sh;

	if (len < sizeof(Elf64_Ehdr) || memcmp(p, ELFMAG, 4) ||
	    p[EI_CLASS] != ELFCLASS64 || p[EI_DATA] != ELFDATA2LSB)
		return NULL;
	shoff = get_le64(p + offsetof(Elf64_Ehdr, e_shoff));
	num = get_le16(p + offsetof(Elf64_Ehdr, e_shnum));
	strndx = get_le16(p + offsetof(Elf64_Ehdr, e_shstrndx));
	if (get_le16(p + offsetof(Elf64_Ehdr, e_shentsize)) != sizeof(sh) ||
	    !range_fits(shoff, (uint64_t)num * sizeof(sh), len) ||
	    strndx >= num)
		return NULL;
	memcpy(&sh, p + shoff + strndx * sizeof(sh), sizeof(sh));
	names = le64toh(sh.sh_offset);
	names_len = le64toh(sh.sh_size);
	if (!range_fits(names, names_len, len))
		return NULL;
	for (unsigned s = 0; s < num; s++) {
		static const char section[] = ".modinfo";
		const char *at, *end;
		uint64_t off, size;

		memcpy(&sh, p + shoff + s * sizeof(sh), sizeof(sh));
		if (!range_fits(le32toh(sh.sh_name), sizeof(section),
				names_len) ||
		    memcmp(p + names + le32toh(sh.sh_name), section,
			   sizeof(section)))
			continue;
		off = le64toh(sh.sh_offset);
		size = le64toh(sh.sh_size);
		if (!range_fits(off, size, len))
			return NULL;
		at = (const char *)p + off;
		end = at + size;
		while (at < end) {
			const char *nul = memchr(at, 0, (size_t)(end - at));

			if (!nul)
				return NULL;
			if ((size_t)(nul - at) > keylen && at[keylen] == '=' &&
			    !memcmp(at, key, keylen) && !i--)
				return at + keylen + 1;
			at = nul + 1;
		}
		return NULL;
	}
	return NULL;
}

static int load(struct modules *m, const char *path, struct module *mod,
		struct err *e)
{
	static const char *const suffix[] = { "", ".xz", ".zst", ".gz" };
	char file[PATH_MAX];
	const char *magic;
	size_t release = strlen(m->release);
	int ret = -ENOENT;

	/* modules.order names what was built, not how it was packed. */
	for (size_t i = 0; i < array_size(suffix) && ret == -ENOENT; i++) {
		snprintf(file, sizeof(file), "%s%s", path, suffix[i]);
		ret = stream_read_file(m->dirfd, file, MODULE_LIMIT, &mod->data,
				       &mod->len, e);
	}
	if (ret == -ENOENT)
		return err_set(e, ret, "%s: module %s is listed but missing",
			       m->dir, path);
	if (ret < 0)
		return err_prefix(e, ret, "%s", m->dir);
	magic = modinfo(mod->data, mod->len, "vermagic", 0);
	mod->path = strdup(file);
	if (!mod->path) {
		free(mod->data);
		return err_set(e, -ENOMEM, "out of memory");
	}
	if (!magic) {
		free(mod->path);
		free(mod->data);
		return err_set(e, -EBADMSG, "%s/%s is not a kernel module",
			       m->dir, file);
	}
	if (strncmp(magic, m->release, release) ||
	    (magic[release] && magic[release] != ' ')) {
		ret = err_set(e, -EXDEV,
			      "modules directory %s is of another kernel "
			      "(%.*s), the kernel is %s",
			      m->dir, (int)min_of(strcspn(magic, " "), 64ul),
			      magic, m->release);
		free(mod->path);
		free(mod->data);
		return ret;
	}
	return 0;
}

/* What a walk is at: the module whose dependencies are looked at. */
struct frame {
	struct module *mod;
	int depth;
};

static int want(struct modules *m, const char *name, int depth, bool soft,
		const char **found, struct err *e);

/* @name is needed by the module of @f. */
static int need(struct modules *m, struct frame *f, const char *name, bool soft,
		struct err *e)
{
	const char *found = NULL;
	char *deps;
	int ret = want(m, name, f->depth + 1, soft, &found, e);

	if (ret < 0 || !found)
		return ret;
	if (asprintf(&deps, "%s %s", f->mod->deps ? f->mod->deps : "", found) <
	    0)
		return err_set(e, -ENOMEM, "out of memory");
	free(f->mod->deps);
	f->mod->deps = deps;
	return 0;
}

/* Each word of @list (separated by any of @sep), up to its 0. */
static int need_each(struct modules *m, struct frame *f, const char *list,
		     const char *sep, bool soft, struct err *e)
{
	while (*(list += strspn(list, sep))) {
		size_t n = strcspn(list, sep);
		char name[NAME_LIMIT];
		int ret = 0;

		if (memmem(list, n, ".ko", 3)) { /* a path of modules.dep */
			if (name_of(list, n, name))
				ret = need(m, f, name, soft, e);
		} else if (n < sizeof(name)) {
			memcpy(name, list, n);
			name[n] = 0;
			ret = need(m, f, name, soft, e);
		}
		if (ret < 0)
			return ret;
		list += n;
	}
	return 0;
}

/* "pre: a b post: c": what stands after pre. */
static int need_pre(struct modules *m, struct frame *f, const char *deps,
		    struct err *e)
{
	const char *pre = strstr(deps, "pre:");
	char list[512];
	char *post;

	if (!pre || strlen(pre + 4) >= sizeof(list))
		return 0;
	strcpy(list, pre + 4);
	post = strstr(list, "post:");
	if (post)
		*post = 0;
	return need_each(m, f, list, " \t\n", true, e);
}

/* Soft dependencies: the module's own, and those of modules.softdep. */
static int need_soft(struct modules *m, struct frame *f, const char *name,
		     struct err *e)
{
	const char *value;
	int ret;

	for (unsigned i = 0;
	     i < SOFTDEP_MAX &&
	     (value = modinfo(f->mod->data, f->mod->len, "softdep", i));
	     i++) {
		ret = need_pre(m, f, value, e);
		if (ret < 0)
			return ret;
	}
	for (const char *l = m->softdep; l && *l; l += strcspn(l, "\n")) {
		char line[512], who[NAME_LIMIT], plain[NAME_LIMIT];
		size_t n;

		l += strspn(l, "\n");
		n = strcspn(l, "\n");
		if (n >= sizeof(line))
			continue;
		memcpy(line, l, n);
		line[n] = 0;
		if (sscanf(line, "softdep %127s", who) != 1 ||
		    !plain_name(who, plain) || strcmp(plain, name))
			continue;
		ret = need_pre(m, f, line, e);
		if (ret < 0)
			return ret;
	}
	return 0;
}

static int append(struct modules *m, struct module *mod)
{
	if (m->wanted_count == m->wanted_room) {
		size_t room = m->wanted_room ? 2 * m->wanted_room : 32;
		void *n = reallocarray(m->wanted, room, sizeof(*m->wanted));

		if (!n)
			return -ENOMEM;
		m->wanted = n;
		m->wanted_room = room;
	}
	m->wanted[m->wanted_count++] = *mod;
	return 0;
}

static int visit(struct modules *m, struct index_entry *en, int depth,
		 struct err *e)
{
	struct module mod = { 0 };
	struct frame f = { &mod, depth };
	const char *deps;
	int ret;

	ret = load(m, en->path, &mod, e);
	if (ret < 0)
		return ret;
	en->visit = VISIT_OPEN;
	ret = need_soft(m, &f, en->name, e);
	deps = modinfo(mod.data, mod.len, "depends", 0);
	if (!ret && m->has_dep && en->deps)
		ret = need_each(m, &f, en->deps, " \t", false, e);
	else if (!ret && deps)
		ret = need_each(m, &f, deps, ", ", false, e);
	if (!ret) {
		mod.name = strdup(en->name);
		ret = mod.name ? append(m, &mod) : -ENOMEM;
		if (ret < 0)
			err_set(e, ret, "out of memory");
	}
	if (ret < 0) {
		module_free(&mod);
		en->visit = VISIT_NEW;
		return ret;
	}
	en->visit = VISIT_DONE;
	return 0;
}

/* *@found is the module's own name, or unchanged when none is to load. */
static int want(struct modules *m, const char *name, int depth, bool soft,
		const char **found, struct err *e)
{
	struct index_entry *en = find(m, name);
	int ret = 0;

	if (!en && soft) {
		/* The name may be an algorithm: its plain C module will do. */
		char generic[NAME_LIMIT + 8];

		snprintf(generic, sizeof(generic), "%s_generic", name);
		en = find(m, generic);
		if (!en)
			return 0;
	}
	if (!en)
		return err_set(e, -ENOENT, "kernel %s has no module %s (in %s)",
			       m->release, name, m->dir);
	if (!en->path)
		return 0;
	/* Soft dependencies may run in circles: it is on its way already. */
	if (en->visit == VISIT_OPEN && soft)
		return 0;
	if (en->visit == VISIT_OPEN || depth > DEPTH_MAX)
		return err_set(e, -ELOOP, "%s: module %s depends on itself",
			       m->dir, name);
	if (en->visit == VISIT_NEW)
		ret = visit(m, en, depth, e);
	if (!ret)
		*found = en->name;
	return ret;
}

int modules_want(struct modules *m, const char *name, struct err *e)
{
	const char *found;

	return want(m, name, 0, false, &found, e);
}

struct module *modules_wanted(struct modules *m, unsigned i)
{
	return i < m->wanted_count ? &m->wanted[i] : NULL;
}
