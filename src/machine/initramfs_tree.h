/*
 * The files of a root that is packed into the initramfs: a list filled from a
 * directory or a tar archive, then written as one newc archive.
 *
 * The list exists because newc needs to know of a file's hard links and parent
 * directories before its first byte, and both sources tell later.
 */
#ifndef ARC_MACHINE_INITRAMFS_TREE_H
#define ARC_MACHINE_INITRAMFS_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

struct err;
struct pack;
struct tree;

#define TREE_MAX_NODES 4000000u /* a root of more is a mistake */

struct tree *tree_create(void); /* NULL: no memory */
void tree_destroy(struct tree *t); /* NULL-safe */

struct tree_node {
	const char *name; /* relative: no "/" in front, no ".", no ".." */
	uint32_t mode, uid, gid;
	uint64_t mtime;
	uint32_t rdev_major, rdev_minor;
	uint64_t size;
	const char *symlink; /* target, for S_ISLNK */
	/* Where the bytes of a regular file are: exactly one of these. */
	const struct stat *st; /* the file named so below dirfd */
	uint64_t offset; /* in the archive fd */
};

/*
 * Append a copy of @n; its number (>= 0), or -errno: -E2BIG too many,
 * -ENAMETOOLONG, -EFBIG a file newc cannot hold (4 GiB), -ENOMEM.
 */
long tree_add(struct tree *t, const struct tree_node *n);
/* @name is one more name of node @to (a regular file or a device). */
long tree_link(struct tree *t, const char *name, long to);
/* The newest node called @name, or -ENOENT. */
long tree_find(const struct tree *t, const char *name);

/*
 * Write all as a newc archive with its trailer; missing parent directories are
 * made (0755, root). File data comes from below @dirfd for nodes that had a
 * status, else from @archive. Both are borrowed for the pack's life. The tree
 * may be destroyed afterwards.
 */
int tree_write(const struct tree *t, struct pack *p, int dirfd, int archive);

/*
 * Fill @t from the directory @dirfd (one filesystem or several; sockets are
 * left out). @squash_uid/@squash_gid become 0 unless they are (uint32_t)-1.
 */
int tree_from_dir(struct tree *t, int dirfd, uint32_t squash_uid,
		  uint32_t squash_gid, struct err *e);

/*
 * Fill @t from the tar archive @fd (ustar, pax, GNU long names and numbers),
 * uncompressed, @size bytes. @name is for messages.
 */
int tree_from_tar(struct tree *t, int fd, uint64_t size, const char *name,
		  struct err *e);
/* True when these 512 bytes are a tar header (its checksum is right). */
bool tar_detect(const uint8_t block[512]);

#endif
