#include "machine/initramfs_tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/err.h"
#include "base/util.h"
#include "machine/initramfs_pack.h"

struct node {
	struct tree_node n; /* name and symlink point into strings of ours */
	struct stat st; /* when n.st */
	long link; /* number of the node this is another name of, or -1 */
	uint32_t nlink;
	long next; /* of the same hash bucket, or -1 */
};

struct tree {
	struct node *nodes;
	size_t count, room;
	long *buckets; /* newest first */
	size_t bucket_count;
};

struct tree *tree_create(void)
{
	return calloc(1, sizeof(struct tree));
}

void tree_destroy(struct tree *t)
{
	if (!t)
		return;
	for (size_t i = 0; i < t->count; i++) {
		free((char *)t->nodes[i].n.name);
		free((char *)t->nodes[i].n.symlink);
	}
	free(t->nodes);
	free(t->buckets);
	free(t);
}

static size_t hash(const char *s, size_t len)
{
	uint64_t h = 0xcbf29ce484222325ull;

	while (len--)
		h = (h ^ (uint8_t)*s++) * 0x100000001b3ull;
	return (size_t)(h ^ (h >> 32));
}

static long find(const struct tree *t, const char *name, size_t len)
{
	long i;

	if (!t->bucket_count)
		return -ENOENT;
	i = t->buckets[hash(name, len) % t->bucket_count];
	while (i >= 0) {
		const char *other = t->nodes[i].n.name;

		if (!strncmp(other, name, len) && !other[len])
			return i;
		i = t->nodes[i].next;
	}
	return -ENOENT;
}

long tree_find(const struct tree *t, const char *name)
{
	return find(t, name, strlen(name));
}

static int rehash(struct tree *t)
{
	size_t count = t->bucket_count ? 2 * t->bucket_count : 256;
	long *b = malloc(count * sizeof(*b));

	if (!b)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++)
		b[i] = -1;
	for (size_t i = 0; i < t->count; i++) {
		const char *name = t->nodes[i].n.name;
		long *head = &b[hash(name, strlen(name)) % count];

		t->nodes[i].next = *head;
		*head = (long)i;
	}
	free(t->buckets);
	t->buckets = b;
	t->bucket_count = count;
	return 0;
}

static int reserve(struct tree *t)
{
	if (t->count >= TREE_MAX_NODES)
		return -E2BIG;
	if (t->count == t->room) {
		size_t room = t->room ? 2 * t->room : 128;
		void *n = reallocarray(t->nodes, room, sizeof(*t->nodes));

		if (!n)
			return -ENOMEM;
		t->nodes = n;
		t->room = room;
	}
	return t->count >= t->bucket_count ? rehash(t) : 0;
}

long tree_add(struct tree *t, const struct tree_node *n)
{
	struct node *nd;
	long *head;
	int ret = reserve(t);

	if (ret < 0)
		return ret;
	if (strlen(n->name) > CPIO_MAX_NAME ||
	    (n->symlink && strlen(n->symlink) > CPIO_MAX_NAME))
		return -ENAMETOOLONG;
	if (n->size > CPIO_MAX_SIZE)
		return -EFBIG;
	nd = &t->nodes[t->count];
	*nd = (struct node){ .n = *n, .link = -1, .nlink = 1 };
	nd->n.name = strdup(n->name);
	nd->n.symlink = n->symlink ? strdup(n->symlink) : NULL;
	if (!nd->n.name || (n->symlink && !nd->n.symlink)) {
		free((char *)nd->n.name);
		free((char *)nd->n.symlink);
		return -ENOMEM;
	}
	if (n->st)
		nd->st = *n->st;
	head = &t->buckets[hash(n->name, strlen(n->name)) % t->bucket_count];
	nd->next = *head;
	*head = (long)t->count;
	return (long)t->count++;
}

long tree_link(struct tree *t, const char *name, long to)
{
	struct tree_node n;
	long i;

	if (t->nodes[to].link >= 0)
		to = t->nodes[to].link;
	n = t->nodes[to].n;
	n.name = name;
	n.symlink = NULL;
	n.st = NULL;
	if (!S_ISDIR(n.mode) && !S_ISLNK(n.mode)) {
		i = tree_add(t, &n);
		if (i < 0)
			return i;
		t->nodes[i].link = to;
		t->nodes[to].nlink++;
		return i;
	}
	if (S_ISDIR(n.mode))
		return -EINVAL;
	/* newc has no links to symbolic links: a second one is the same. */
	n.symlink = t->nodes[to].n.symlink;
	return tree_add(t, &n);
}

/* Does node @i lie below a name that is a symbolic link by then? */
static bool through_link(const struct tree *t, size_t i, size_t len)
{
	long at = find(t, t->nodes[i].n.name, len);

	return at >= 0 && (size_t)at < i && S_ISLNK(t->nodes[at].n.mode);
}

/*
 * The directories above node @i that no node made. One that is a symbolic link
 * stays that, and leads to where the node goes, as it does for tar(1).
 */
static int write_parents(const struct tree *t, size_t i, struct tree *made,
			 struct pack *p)
{
	const char *name = t->nodes[i].n.name;

	for (const char *s = strchr(name, '/'); s; s = strchr(s + 1, '/')) {
		size_t len = (size_t)(s - name);
		char dir[CPIO_MAX_NAME + 1];
		long ret;

		if (find(made, name, len) >= 0 || through_link(t, i, len))
			continue;
		memcpy(dir, name, len);
		dir[len] = 0;
		ret = tree_add(made, &(struct tree_node){ .name = dir });
		if (ret < 0)
			return (int)ret;
		/* If it comes later, it gets its mode and owner then. */
		cpio_header(p, &(struct cpio_entry){ .name = dir,
						     .mode = S_IFDIR | 0755,
						     .nlink = 2 });
	}
	return 0;
}

/* A file may have the name that ends an archive. */
static const char *member_name(const char *name)
{
	return strcmp(name, CPIO_TRAILER) ? name : "./" CPIO_TRAILER;
}

int tree_write(const struct tree *t, struct pack *p, int dirfd, int archive)
{
	struct tree *made = tree_create(); /* directories written so far */
	int ret = made ? 0 : -ENOMEM;

	for (size_t i = 0; !ret && i < t->count; i++) {
		const struct node *nd = &t->nodes[i];
		const struct node *data =
			nd->link >= 0 ? &t->nodes[nd->link] : nd;
		struct cpio_entry en = {
			.name = member_name(nd->n.name),
			.mode = data->n.mode,
			.uid = data->n.uid,
			.gid = data->n.gid,
			.mtime = data->n.mtime,
			.nlink = S_ISDIR(data->n.mode) ? 2 : data->nlink,
			/* Other nodes need no number of their own. */
			.ino = data->nlink > 1 ? (uint32_t)(data - t->nodes) + 1
					       : 0,
			.rdev_major = data->n.rdev_major,
			.rdev_minor = data->n.rdev_minor,
		};

		ret = write_parents(t, i, made, p);
		if (ret < 0)
			break;
		if (S_ISLNK(data->n.mode)) {
			en.size = strlen(data->n.symlink);
			cpio_header(p, &en);
			pack_bytes(p, data->n.symlink, en.size);
		} else if (S_ISREG(data->n.mode) && nd->link < 0) {
			en.size = data->n.size;
			cpio_header(p, &en);
			if (data->n.st)
				pack_file(p, dirfd, nd->n.name, &nd->st);
			else
				pack_fd(p, archive, 0, data->n.offset, en.size);
		} else {
			cpio_header(p, &en);
			if (S_ISDIR(data->n.mode) &&
			    tree_find(made, nd->n.name) < 0 &&
			    tree_add(made, &(struct tree_node){
						   .name = nd->n.name }) < 0)
				ret = -ENOMEM;
		}
		pack_pad(p, 4);
	}
	tree_destroy(made);
	cpio_trailer(p);
	pack_pad(p, 4);
	return ret ? ret : pack_error(p);
}

/* ---- from a directory ---- */

/* Which node a file with several names already is. */
struct inode_key {
	dev_t dev;
	ino_t ino;
	long node;
};

struct walk {
	struct tree *t;
	struct err *e;
	uint32_t squash_uid, squash_gid;
	struct inode_key *inodes;
	size_t inode_count, inode_room; /* open addressing, power of two */
	char path[CPIO_MAX_NAME + 1];
};

static struct inode_key *inode_slot(struct inode_key *tab, size_t room,
				    dev_t dev, ino_t ino)
{
	size_t i = (size_t)((ino * 0x9e3779b97f4a7c15ull ^ dev) >> 20);

	while (tab[i & (room - 1)].node >= 0 &&
	       (tab[i & (room - 1)].ino != ino ||
		tab[i & (room - 1)].dev != dev))
		i++;
	return &tab[i & (room - 1)];
}

static struct inode_key *inode_find(struct walk *w, const struct stat *st)
{
	if (2 * w->inode_count >= w->inode_room) {
		size_t room = w->inode_room ? 2 * w->inode_room : 256;
		struct inode_key *tab = malloc(room * sizeof(*tab));

		if (!tab)
			return NULL;
		for (size_t i = 0; i < room; i++)
			tab[i].node = -1;
		for (size_t i = 0; i < w->inode_room; i++)
			if (w->inodes[i].node >= 0)
				*inode_slot(tab, room, w->inodes[i].dev,
					    w->inodes[i].ino) = w->inodes[i];
		free(w->inodes);
		w->inodes = tab;
		w->inode_room = room;
	}
	return inode_slot(w->inodes, w->inode_room, st->st_dev, st->st_ino);
}

static long add_file(struct walk *w, int dirfd, const char *base,
		     const struct stat *st)
{
	char target[CPIO_MAX_NAME + 1];
	struct tree_node n = {
		.name = w->path,
		.mode = st->st_mode,
		.uid = st->st_uid == w->squash_uid ? 0 : st->st_uid,
		.gid = st->st_gid == w->squash_gid ? 0 : st->st_gid,
		.mtime = st->st_mtim.tv_sec > 0 ? (uint64_t)st->st_mtim.tv_sec
						: 0,
	};
	struct inode_key *key = NULL;
	long ret;

	if (S_ISSOCK(st->st_mode))
		return 0;
	if (st->st_nlink > 1 && !S_ISDIR(st->st_mode)) {
		key = inode_find(w, st);
		if (!key)
			return -ENOMEM;
		if (key->node >= 0)
			return tree_link(w->t, w->path, key->node);
	}
	if (S_ISREG(st->st_mode)) {
		n.size = (uint64_t)st->st_size;
		n.st = st;
	} else if (S_ISLNK(st->st_mode)) {
		ssize_t len = readlinkat(dirfd, base, target, sizeof(target));

		if (len < 0)
			return -errno;
		if (len == sizeof(target))
			return -ENAMETOOLONG;
		target[len] = 0;
		n.symlink = target;
	} else if (S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode)) {
		n.rdev_major = major(st->st_rdev);
		n.rdev_minor = minor(st->st_rdev);
	}
	ret = tree_add(w->t, &n);
	if (ret >= 0 && key) {
		*key = (struct inode_key){ st->st_dev, st->st_ino, ret };
		w->inode_count++;
	}
	return ret;
}

static int fail(struct walk *w, int code)
{
	if (code == -EFBIG)
		return err_set(w->e, code,
			       "%s: files of 4 GiB and more do not fit an "
			       "initramfs: give the root as a disk image",
			       w->path);
	return err_set(w->e, code, "%s: %s", w->path[0] ? w->path : ".",
		       strerror(-code));
}

/* The depth is bounded by the length of a path. Takes @fd over. */
static int walk_dir(struct walk *w, int fd, size_t at)
{
	DIR *d = fdopendir(fd);
	struct dirent *de;
	int ret = 0;

	if (!d) {
		ret = fail(w, -errno);
		close(fd);
		return ret;
	}
	for (errno = 0; !ret && (de = readdir(d)); errno = 0) {
		size_t len = strlen(de->d_name);
		struct stat st;
		long n;

		if (!strcmp(de->d_name, ".") || !strcmp(de->d_name, ".."))
			continue;
		if (at + len + 1 > CPIO_MAX_NAME) {
			ret = fail(w, -ENAMETOOLONG);
			break;
		}
		memcpy(w->path + at, de->d_name, len + 1);
		if (fstatat(fd, de->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
			if (errno == ENOENT) /* it went since */
				continue;
			ret = fail(w, -errno);
			break;
		}
		n = add_file(w, fd, de->d_name, &st);
		if (n < 0) {
			ret = fail(w, (int)n);
			break;
		}
		if (S_ISDIR(st.st_mode)) {
			int sub = openat(fd, de->d_name,
					 O_RDONLY | O_DIRECTORY | O_NOFOLLOW |
						 O_CLOEXEC);

			if (sub < 0) {
				ret = fail(w, -errno);
				break;
			}
			w->path[at + len] = '/';
			ret = walk_dir(w, sub, at + len + 1);
		}
	}
	if (!ret && errno) {
		w->path[at] = 0;
		ret = fail(w, -errno);
	}
	closedir(d);
	return ret;
}

int tree_from_dir(struct tree *t, int dirfd, uint32_t squash_uid,
		  uint32_t squash_gid, struct err *e)
{
	struct walk w = { .t = t,
			  .e = e,
			  .squash_uid = squash_uid,
			  .squash_gid = squash_gid };
	int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int ret;

	ret = fd < 0 ? fail(&w, -errno) : walk_dir(&w, fd, 0);
	free(w.inodes);
	return ret;
}
