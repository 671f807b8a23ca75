/*
 * Theory of operation
 *
 * A tar archive is 512-byte headers, each followed by its data rounded up to
 * 512. Some members only describe the next one: pax records ("23 path=x\n",
 * type x for one member, g for all that follow) and GNU's long names (L, K). The
 * reader keeps those as overrides and drops them once used.
 *
 * Only headers are read here; file data stays in the archive and is named by
 * its offset. Nothing is extracted on the host, so the paths are safe by being
 * made relative: leading "/" and "./" go, ".." is refused.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/util.h"
#include "machine/initramfs_pack.h"
#include "machine/initramfs_tree.h"

#define BLOCK	     512
#define EXT_MAX	     KiB(1024) /* a pax header or long name */
#define SIZE_MAX_TAR (UINT64_MAX / 2)

/* Offsets of the fields of a header. */
enum {
	H_NAME = 0,
	H_MODE = 100,
	H_UID = 108,
	H_GID = 116,
	H_SIZE = 124,
	H_MTIME = 136,
	H_CHKSUM = 148,
	H_TYPE = 156,
	H_LINK = 157,
	H_MAGIC = 257,
	H_DEVMAJOR = 329,
	H_DEVMINOR = 337,
	H_PREFIX = 345,
};

/* What a member is said to be by records before it. */
struct overrides {
	char *path, *link; /* NULL: as in the header */
	bool has_size, has_uid, has_gid, has_mtime;
	uint64_t size, uid, gid, mtime;
	bool sparse;
};

struct tar {
	struct tree *t;
	struct err *e;
	const char *name;
	int fd;
	uint64_t size, at;
	struct overrides global, next;
};

static int bad(const struct tar *r, const char *what)
{
	return err_set(r->e, -EBADMSG, "%s: %s at byte %llu", r->name, what,
		       (unsigned long long)r->at);
}

static int read_at(const struct tar *r, uint64_t at, void *buf, size_t len)
{
	while (len) {
		ssize_t n = pread(r->fd, buf, len, (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return err_set(r->e, n ? -errno : -EBADMSG, "%s: %s",
				       r->name,
				       n ? strerror(errno) : "cut short");
		buf = (char *)buf + n;
		at += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

/* Octal with blanks around, or GNU's base 256 (top bit set). */
static bool number(const uint8_t *p, size_t len, uint64_t *out)
{
	uint64_t v = 0;
	size_t i = 0;

	if (p[0] & 0x80) {
		if (p[0] != 0x80) /* negative, or beyond any size */
			return false;
		for (i = 1; i < len; i++) {
			if (v >> 56)
				return false;
			v = v << 8 | p[i];
		}
		*out = v;
		return true;
	}
	while (i < len && p[i] == ' ')
		i++;
	for (; i < len && p[i] >= '0' && p[i] <= '7'; i++)
		v = v << 3 | (uint64_t)(p[i] - '0');
	for (; i < len; i++)
		if (p[i] && p[i] != ' ')
			return false;
	*out = v;
	return true;
}

bool tar_detect(const uint8_t b[BLOCK])
{
	uint64_t want;
	unsigned sum = 0;

	for (int i = 0; i < BLOCK; i++)
		sum += i >= H_CHKSUM && i < H_CHKSUM + 8 ? ' ' : b[i];
	return b[0] && number(b + H_CHKSUM, 8, &want) && want == sum;
}

static bool all_zero(const uint8_t *b)
{
	for (int i = 0; i < BLOCK; i++)
		if (b[i])
			return false;
	return true;
}

static void drop(struct overrides *o)
{
	free(o->path);
	free(o->link);
	*o = (struct overrides){ 0 };
}

/* ---- the records that describe ---- */

static int set_text(char **to, const char *value, size_t len)
{
	char *s = strndup(value, len);

	if (!s)
		return -ENOMEM;
	free(*to);
	*to = s;
	return 0;
}

/* A decimal number; a fraction, as times have, is cut off. */
static bool decimal(const char *s, size_t len, uint64_t *out)
{
	uint64_t v = 0;
	size_t i = 0;

	if (len && s[0] == '-') {
		*out = 0;
		return true;
	}
	for (; i < len && s[i] >= '0' && s[i] <= '9'; i++) {
		if (v > SIZE_MAX_TAR / 10)
			return false;
		v = v * 10 + (uint64_t)(s[i] - '0');
	}
	*out = v;
	return i && (i == len || s[i] == '.');
}

static int pax_record(struct tar *r, struct overrides *o, const char *key,
		      size_t keylen, const char *value, size_t len)
{
	static const char sparse[] = "GNU.sparse.";
	bool ok = true;

#define KEY(k) (keylen == sizeof(k) - 1 && !memcmp(key, k, keylen))
	if (KEY("path"))
		return set_text(&o->path, value, len);
	if (KEY("linkpath"))
		return set_text(&o->link, value, len);
	if (KEY("size"))
		ok = o->has_size = decimal(value, len, &o->size);
	else if (KEY("uid"))
		ok = o->has_uid = decimal(value, len, &o->uid);
	else if (KEY("gid"))
		ok = o->has_gid = decimal(value, len, &o->gid);
	else if (KEY("mtime"))
		ok = o->has_mtime = decimal(value, len, &o->mtime);
	else if (keylen > sizeof(sparse) - 1 &&
		 !memcmp(key, sparse, sizeof(sparse) - 1))
		o->sparse = true;
#undef KEY
	return ok ? 0 : bad(r, "damaged pax record");
}

static int pax(struct tar *r, struct overrides *o, const char *text, size_t len)
{
	while (len) {
		size_t record = 0, i = 0;
		const char *eq;
		int ret;

		for (; i < len && text[i] >= '0' && text[i] <= '9'; i++) {
			record = record * 10 + (size_t)(text[i] - '0');
			if (record > len)
				return bad(r, "damaged pax header");
		}
		if (!i || i == len || text[i] != ' ' || record < i + 3 ||
		    text[record - 1] != '\n')
			return bad(r, "damaged pax header");
		i++;
		eq = memchr(text + i, '=', record - 1 - i);
		if (!eq)
			return bad(r, "damaged pax header");
		ret = pax_record(r, o, text + i, (size_t)(eq - text) - i,
				 eq + 1,
				 (size_t)(text + record - 1 - (eq + 1)));
		if (ret < 0)
			return ret;
		text += record;
		len -= record;
	}
	return 0;
}

static int describe(struct tar *r, char type, uint64_t size)
{
	char *text;
	int ret;

	if (size > EXT_MAX)
		return bad(r, "a header of more than 1 MiB");
	text = malloc((size_t)size + 1);
	if (!text)
		return err_set(r->e, -ENOMEM, "out of memory");
	ret = read_at(r, r->at + BLOCK, text, (size_t)size);
	text[size] = 0;
	if (!ret && type == 'x')
		ret = pax(r, &r->next, text, (size_t)size);
	else if (!ret && type == 'g')
		ret = pax(r, &r->global, text, (size_t)size);
	else if (!ret)
		ret = set_text(type == 'L' ? &r->next.path : &r->next.link,
			       text, (size_t)size);
	free(text);
	return ret == -ENOMEM ? err_set(r->e, ret, "out of memory") : ret;
}

/* ---- members ---- */

/*
 * @path made relative in place: no empty, "." or trailing parts. False when it
 * has a ".." in it; "" is the archive's own top.
 */
static bool clean_path(char *path)
{
	char *out = path, *in = path;

	while (*in) {
		size_t n;

		in += strspn(in, "/");
		n = strcspn(in, "/");
		if (n == 2 && in[0] == '.' && in[1] == '.')
			return false;
		if (n && !(n == 1 && in[0] == '.')) {
			if (out != path)
				*out++ = '/';
			memmove(out, in, n);
			out += n;
		}
		in += n;
	}
	*out = 0;
	return true;
}

/* A field of a header that needs no closing 0. */
static char *field(const uint8_t *p, size_t len)
{
	return strndup((const char *)p, len);
}

static char *member_name(const uint8_t *h)
{
	char *name = NULL;

	if (!memcmp(h + H_MAGIC, "ustar\0", 6) && h[H_PREFIX]) {
		if (asprintf(&name, "%.155s/%.100s", (char *)h + H_PREFIX,
			     (char *)h + H_NAME) < 0)
			return NULL;
		return name;
	}
	return field(h + H_NAME, 100);
}

static const char *first_of(const char *a, const char *b, const char *c)
{
	return a ? a : b ? b : c;
}

static uint32_t type_mode(char type)
{
	switch (type) {
	case '2':
		return S_IFLNK;
	case '3':
		return S_IFCHR;
	case '4':
		return S_IFBLK;
	case '5':
	case 'D': /* GNU: a directory with the list of its files */
		return S_IFDIR;
	case '6':
		return S_IFIFO;
	default: /* '0', '7', 0, and what POSIX says to take for a file */
		return S_IFREG;
	}
}

static int add_member(struct tar *r, const uint8_t *h, struct tree_node *n,
		      char *path, char *link)
{
	char type = (char)h[H_TYPE];
	long ret;

	if (!clean_path(path))
		return err_set(r->e, -EINVAL,
			       "%s: the member \"%.200s\" leaves the archive",
			       r->name, path);
	if (!*path)
		return 0;
	n->name = path;
	if (type == '1') {
		long to;

		if (!clean_path(link) || (to = tree_find(r->t, link)) < 0)
			return err_set(r->e, -EBADMSG,
				       "%s: \"%.100s\" is a link to "
				       "\"%.100s\", which is not there",
				       r->name, path, link);
		ret = tree_link(r->t, path, to);
	} else {
		if (S_ISLNK(n->mode))
			n->symlink = link;
		ret = tree_add(r->t, n);
	}
	if (ret == -EFBIG)
		return err_set(r->e, -EFBIG,
			       "%s: \"%.200s\" has 4 GiB or more, which does "
			       "not fit an initramfs: use a disk image",
			       r->name, path);
	if (ret < 0)
		return err_set(r->e, (int)ret, "%s: \"%.200s\": %s", r->name,
			       path, strerror((int)-ret));
	return 0;
}

static int member(struct tar *r, const uint8_t *h, uint64_t size)
{
	const struct overrides *o = &r->next, *g = &r->global;
	char type = (char)h[H_TYPE];
	uint64_t mode, uid, gid, mtime, maj, min;
	struct tree_node n;
	char *path, *link;
	int ret;

	if (type == 'S' || o->sparse || g->sparse)
		return err_set(r->e, -EOPNOTSUPP,
			       "%s: \"%.100s\" is stored sparse: pack the "
			       "archive without --sparse",
			       r->name, first_of(o->path, g->path, (char *)h));
	if (type == 'V' || type == 'M' || type == 'N')
		return 0; /* volume label, continuation, old long names */
	if (!number(h + H_MODE, 8, &mode) || !number(h + H_UID, 8, &uid) ||
	    !number(h + H_GID, 8, &gid) || !number(h + H_MTIME, 12, &mtime) ||
	    !number(h + H_DEVMAJOR, 8, &maj) ||
	    !number(h + H_DEVMINOR, 8, &min))
		return bad(r, "damaged header");
	uid = o->has_uid ? o->uid : g->has_uid ? g->uid : uid;
	gid = o->has_gid ? o->gid : g->has_gid ? g->gid : gid;
	mtime = o->has_mtime ? o->mtime : g->has_mtime ? g->mtime : mtime;
	n = (struct tree_node){
		.mode = (uint32_t)(mode & 07777) | type_mode(type),
		.uid = (uint32_t)uid,
		.gid = (uint32_t)gid,
		.mtime = mtime,
		.rdev_major = (uint32_t)maj,
		.rdev_minor = (uint32_t)min,
		.offset = r->at + BLOCK,
	};
	path = o->path || g->path ? strdup(first_of(o->path, g->path, NULL))
				  : member_name(h);
	link = o->link || g->link ? strdup(first_of(o->link, g->link, NULL))
				  : field(h + H_LINK, 100);
	if (path && link) {
		size_t len = strlen(path);

		/* Before POSIX a directory was a file with a "/" behind. */
		if (S_ISREG(n.mode) && len && path[len - 1] == '/')
			n.mode = (n.mode & 07777) | S_IFDIR;
		if (S_ISREG(n.mode))
			n.size = size;
		ret = add_member(r, h, &n, path, link);
	} else {
		ret = err_set(r->e, -ENOMEM, "out of memory");
	}
	free(path);
	free(link);
	return ret;
}

/* Types that carry data behind the header, whatever their size field says. */
static bool has_data(char type)
{
	return !(type >= '1' && type <= '6');
}

static int read_members(struct tar *r)
{
	while (range_fits(r->at, BLOCK, r->size)) {
		uint8_t h[BLOCK];
		uint64_t size;
		char type;
		int ret = read_at(r, r->at, h, BLOCK);

		if (ret < 0)
			return ret;
		if (all_zero(h))
			return 0;
		if (!tar_detect(h))
			return bad(r, "no tar header");
		type = (char)h[H_TYPE];
		if (!number(h + H_SIZE, 12, &size))
			return bad(r, "damaged size");
		if (!strchr("xgLK", type) || !type) {
			if (r->next.has_size)
				size = r->next.size;
			else if (r->global.has_size)
				size = r->global.size;
		}
		if (!has_data(type))
			size = 0;
		if (!range_fits(r->at + BLOCK, size, r->size))
			return bad(r, "cut short");
		if (type == 'x' || type == 'g' || type == 'L' || type == 'K') {
			ret = describe(r, type, size);
		} else {
			ret = member(r, h, size);
			drop(&r->next);
		}
		if (ret < 0)
			return ret;
		r->at += BLOCK + align_up(size, BLOCK);
	}
	/* tar(1) ends with two empty blocks; others just stop. */
	return r->at >= r->size ? 0 : bad(r, "cut short");
}

int tree_from_tar(struct tree *t, int fd, uint64_t size, const char *name,
		  struct err *e)
{
	struct tar r = { .t = t, .e = e, .name = name, .fd = fd, .size = size };
	int ret = read_members(&r);

	drop(&r.next);
	drop(&r.global);
	return ret;
}
