/*
 * Files that may be compressed, read as what is in them: gzip, xz, zstd,
 * bzip2, told apart by their first bytes. Output is bounded by the caller.
 */
#ifndef ARC_MACHINE_INITRAMFS_STREAM_H
#define ARC_MACHINE_INITRAMFS_STREAM_H

#include <stddef.h>
#include <stdint.h>

struct err;

enum stream_kind {
	STREAM_NONE, /* not compressed, or nothing we know */
	STREAM_GZIP,
	STREAM_XZ,
	STREAM_ZSTD,
	STREAM_BZIP2,
};

#define STREAM_HEAD 6 /* bytes stream_detect() looks at */
enum stream_kind stream_detect(const void *head, size_t len);

/* Where the input comes from: bytes read, 0 at its end, -errno. */
struct stream_source {
	long (*read)(struct stream_source *s, void *buf, size_t len);
};
/* Where the output goes: 0 or -errno, which ends the unpacking. */
struct stream_sink {
	int (*put)(struct stream_sink *s, const void *data, size_t len);
};

/*
 * Unpack all of @src (STREAM_NONE copies). 0; -EBADMSG damaged or cut short;
 * -EFBIG more than @limit bytes come out; -ENOMEM; what source or sink said.
 */
int stream_unpack(enum stream_kind kind, struct stream_source *src,
		  struct stream_sink *sink, uint64_t limit);

/*
 * The whole of the file @path below @dirfd, unpacked, at most @limit bytes, as
 * a buffer to free(). 0 or -errno with a sentence.
 */
int stream_read_file(int dirfd, const char *path, uint64_t limit, void **data,
		     size_t *len, struct err *e);

/*
 * All of @fd (named @name in messages) unpacked into a new memfd, its size in
 * @size. The memfd or -errno with a sentence.
 */
int stream_to_memfd(int fd, const char *name, enum stream_kind kind,
		    uint64_t limit, uint64_t *size, struct err *e);

#endif
