/*
 * A list of pieces that make up one byte stream, and the newc cpio writer on
 * top of it.
 *
 * A piece is memory (copied into the list's own chunks, handed over, or
 * borrowed for the life of the list) or a range of a file that is read only
 * when the stream is written out. Errors stick: the functions that append
 * return nothing, and pack_error() is asked once at the end.
 */
#ifndef ARC_MACHINE_INITRAMFS_PACK_H
#define ARC_MACHINE_INITRAMFS_PACK_H

#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

struct err;
struct pack;

struct pack *pack_create(void); /* NULL: no memory */
void pack_destroy(struct pack *p); /* NULL-safe */

/* 0, or the first -errno met. */
int pack_error(const struct pack *p);
/* Bytes so far. */
uint64_t pack_size(const struct pack *p);

void pack_bytes(struct pack *p, const void *data, size_t len); /* copied */
void pack_borrow(struct pack *p, const void *data, size_t len);
void pack_give(struct pack *p, void *heap, size_t len); /* freed with p */
/*
 * [off, off + len) of an open file. The list takes @fd over when @own, else it
 * is borrowed for the life of the list.
 */
void pack_fd(struct pack *p, int fd, int own, uint64_t off, uint64_t len);
/*
 * All of the file @path (copied) below the directory @dirfd (borrowed), which
 * had the status @st. It is opened again when the stream is written.
 */
void pack_file(struct pack *p, int dirfd, const char *path,
	       const struct stat *st);
/* Zeros up to a multiple of @align (a power of two, at most 512). */
void pack_pad(struct pack *p, unsigned align);

/* Write the stream to @dst (pack_size() bytes). 0 or -errno with a sentence. */
int pack_load(const struct pack *p, void *dst, struct err *e);

/* One member of a newc archive. */
struct cpio_entry {
	const char *name; /* relative, no leading "/" */
	uint32_t mode; /* type and permissions */
	uint32_t uid, gid;
	uint32_t nlink, ino; /* hard links share an ino > 0, nlink >= 2 */
	uint64_t mtime; /* seconds */
	uint32_t rdev_major, rdev_minor;
	uint64_t size; /* of the data that follows */
};

#define CPIO_MAX_NAME 4095
#define CPIO_MAX_SIZE 0xffffffffu
#define CPIO_TRAILER  "TRAILER!!!" /* the name of an archive's last member */

/*
 * Header and name. The caller appends entry->size bytes of data and then calls
 * pack_pad(p, 4). A name or size the format cannot express fails the list.
 */
void cpio_header(struct pack *p, const struct cpio_entry *entry);
void cpio_trailer(struct pack *p);

#endif
