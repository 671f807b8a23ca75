/*
 * Decompression of one whole buffer into another of bounded size: every format
 * a Linux kernel image may be packed with.
 */
#ifndef ARC_MACHINE_UNPACK_H
#define ARC_MACHINE_UNPACK_H

#include <stddef.h>

struct err;

enum unpack_format {
	UNPACK_NONE, /* no packing known by its first bytes */
	UNPACK_GZIP,
	UNPACK_XZ,
	UNPACK_LZMA,
	UNPACK_BZIP2,
	UNPACK_LZO, /* lzop files */
	UNPACK_LZ4_LEGACY, /* "lz4 -l", what kernels use */
	UNPACK_LZ4, /* LZ4 frames */
	UNPACK_ZSTD,
	UNPACK_COUNT,
};

/* By the first bytes. */
enum unpack_format unpack_detect(const void *data, size_t len);

const char *unpack_name(enum unpack_format f);

/*
 * Unpack the first stream in @src to @dst; bytes after its end are ignored.
 * 0 and *@out, the bytes made. -EINVAL: damaged, or cut off; -EFBIG: more than
 * @cap; -ENOMEM. The sentence in @e has no subject: "is damaged (...)".
 */
int unpack(enum unpack_format f, const void *src, size_t len, void *dst,
	   size_t cap, size_t *out, struct err *e);

#endif
