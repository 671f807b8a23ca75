/*
 * Each format is one function with the same contract: bytes in, at most @cap
 * bytes out, never more memory than the library's fixed window. The caller
 * gives the output buffer, so a "bomb" ends as -EFBIG when it is full.
 *
 * A stream that ends early and one that is damaged are told apart where the
 * library can tell, because the cure differs (fetch again, or not at all).
 */
#include "machine/unpack.h"

#include <bzlib.h>
#include <errno.h>
#include <stdbool.h>
#include <lz4.h>
#include <lz4frame.h>
#include <lzma.h>
#include <lzo/lzo1x.h>
#include <stdint.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/util.h"

/* What one stream may cost in memory besides the output: windows of 128 MiB
 * are the largest the kernel's own decompressors accept. */
#define WINDOW_MAX MiB(160)

static int cut_off(struct err *e)
{
	return err_set(e, -EINVAL, "is cut off");
}

static int damaged(struct err *e, const char *how)
{
	return err_set(e, -EINVAL, "is damaged (%s)", how);
}

static int too_big(struct err *e, size_t cap)
{
	return err_set(e, -EFBIG, "unpacks to more than %zu MiB", cap >> 20);
}

/* zlib and bzip2 count in unsigned int. */
static unsigned chunk(size_t left)
{
	return (unsigned)min_of(left, (size_t)1 << 30);
}

static int unpack_gzip(const uint8_t *src, size_t len, uint8_t *dst, size_t cap,
		       size_t *out, struct err *e)
{
	z_stream z = { .next_in = (uint8_t *)(uintptr_t)src, .next_out = dst };
	int r, ret;

	if (inflateInit2(&z, 15 + 16) != Z_OK)
		return err_set(e, -ENOMEM, "cannot be unpacked: no memory");
	do {
		size_t used = (size_t)(z.next_in - src);
		size_t made = (size_t)(z.next_out - dst);

		z.avail_in = chunk(len - used);
		z.avail_out = chunk(cap - made);
		r = inflate(&z, Z_NO_FLUSH);
		if (r == Z_OK && z.next_in == src + used &&
		    z.next_out == dst + made)
			r = Z_BUF_ERROR;
	} while (r == Z_OK);
	*out = (size_t)(z.next_out - dst);
	if (r == Z_STREAM_END)
		ret = 0;
	else if (r == Z_BUF_ERROR && *out == cap)
		ret = too_big(e, cap);
	else if (r == Z_BUF_ERROR)
		ret = cut_off(e);
	else
		ret = damaged(e, z.msg ? z.msg : "gzip");
	inflateEnd(&z);
	return ret;
}

static int unpack_lzma(const uint8_t *src, size_t len, uint8_t *dst, size_t cap,
		       size_t *out, struct err *e, bool xz)
{
	lzma_stream s = LZMA_STREAM_INIT;
	lzma_ret r;
	int ret;

	r = xz ? lzma_stream_decoder(&s, WINDOW_MAX, 0)
	       : lzma_alone_decoder(&s, WINDOW_MAX);
	if (r != LZMA_OK)
		return err_set(e, -ENOMEM, "cannot be unpacked: no memory");
	s.next_in = src;
	s.avail_in = len;
	s.next_out = dst;
	s.avail_out = cap;
	/*
	 * A .lzma stream with a known size and no end mark is only known to be
	 * over by one more call, hence not LZMA_FINISH at once.
	 */
	do {
		r = lzma_code(&s, LZMA_RUN);
	} while (r == LZMA_OK && s.avail_in && s.avail_out);
	if (r == LZMA_OK || r == LZMA_BUF_ERROR)
		r = lzma_code(&s, LZMA_FINISH);
	*out = cap - s.avail_out;
	if (r == LZMA_STREAM_END)
		ret = 0;
	else if (r == LZMA_OK || r == LZMA_BUF_ERROR)
		ret = s.avail_out ? cut_off(e) : too_big(e, cap);
	else if (r == LZMA_MEM_ERROR)
		ret = err_set(e, -ENOMEM, "cannot be unpacked: no memory");
	else if (r == LZMA_MEMLIMIT_ERROR)
		ret = err_set(e, -EFBIG, "needs more than %llu MiB to unpack",
			      (unsigned long long)(WINDOW_MAX >> 20));
	else
		ret = damaged(e, xz ? "xz" : "lzma");
	lzma_end(&s);
	return ret;
}

static int unpack_bzip2(const uint8_t *src, size_t len, uint8_t *dst,
			size_t cap, size_t *out, struct err *e)
{
	bz_stream z = { .next_in = (char *)(uintptr_t)src,
			.next_out = (char *)dst };
	size_t used, made;
	int r, ret;

	if (BZ2_bzDecompressInit(&z, 0, 0) != BZ_OK)
		return err_set(e, -ENOMEM, "cannot be unpacked: no memory");
	do {
		used = (size_t)(z.next_in - (const char *)src);
		made = (size_t)(z.next_out - (char *)dst);
		z.avail_in = chunk(len - used);
		z.avail_out = chunk(cap - made);
		r = BZ2_bzDecompress(&z);
	} while (r == BZ_OK && (z.next_in != (const char *)src + used ||
				z.next_out != (char *)dst + made));
	*out = (size_t)(z.next_out - (char *)dst);
	if (r == BZ_STREAM_END)
		ret = 0;
	else if (r == BZ_OK)
		ret = *out == cap ? too_big(e, cap) : cut_off(e);
	else if (r == BZ_MEM_ERROR)
		ret = err_set(e, -ENOMEM, "cannot be unpacked: no memory");
	else
		ret = damaged(e, "bzip2");
	BZ2_bzDecompressEnd(&z);
	return ret;
}

/* Flag bits of an lzop header. */
enum {
	LZOP_ADLER_D = 0x1,
	LZOP_ADLER_C = 0x2,
	LZOP_CRC_D = 0x100,
	LZOP_CRC_C = 0x200,
	LZOP_EXTRA = 0x40,
	LZOP_FILTER = 0x800,
};

/* The length of an lzop header and its flags; 0 when it does not fit. */
static size_t lzop_header(const uint8_t *src, size_t len, uint32_t *flags)
{
	size_t at = 9; /* the magic */
	unsigned version;

	if (len < 64)
		return 0;
	version = get_be16(src + at);
	at += 7; /* three versions and the method */
	if (version >= 0x0940)
		at++; /* level */
	*flags = get_be32(src + at);
	at += 4;
	if (*flags & LZOP_FILTER)
		at += 4;
	at += version >= 0x0940 ? 12 : 8; /* mode, mtime */
	at += 1 + (size_t)src[at]; /* name */
	at += 4; /* checksum */
	if (*flags & LZOP_EXTRA) {
		if (!range_fits(at, 4, len))
			return 0;
		at += 8 + (size_t)get_be32(src + at);
	}
	return at <= len ? at : 0;
}

static int unpack_lzo(const uint8_t *src, size_t len, uint8_t *dst, size_t cap,
		      size_t *out, struct err *e)
{
	uint32_t flags = 0;
	size_t at = lzop_header(src, len, &flags);
	size_t made = 0;

	if (!at)
		return cut_off(e);
	for (;;) {
		uint32_t dst_len, src_len, sum = 1;
		lzo_uint n;

		if (!range_fits(at, 4, len))
			return cut_off(e);
		dst_len = get_be32(src + at);
		at += 4;
		if (!dst_len)
			break;
		if (!range_fits(at, 4, len))
			return cut_off(e);
		src_len = get_be32(src + at);
		at += 4;
		if (!src_len || src_len > dst_len)
			return damaged(e, "lzo block");
		if (flags & LZOP_ADLER_D) {
			if (!range_fits(at, 4, len))
				return cut_off(e);
			sum = get_be32(src + at);
			at += 4;
		}
		if (flags & LZOP_CRC_D)
			at += 4;
		if (src_len < dst_len)
			at += (flags & LZOP_ADLER_C ? 4u : 0u) +
			      (flags & LZOP_CRC_C ? 4u : 0u);
		if (!range_fits(at, src_len, len))
			return cut_off(e);
		if (dst_len > cap - made)
			return too_big(e, cap);
		n = dst_len;
		if (src_len == dst_len)
			memcpy(dst + made, src + at, dst_len);
		else if (lzo1x_decompress_safe(src + at, src_len, dst + made,
					       &n, NULL) != LZO_E_OK ||
			 n != dst_len)
			return damaged(e, "lzo data");
		if (flags & LZOP_ADLER_D &&
		    (uint32_t)adler32(1, dst + made, dst_len) != sum)
			return damaged(e, "lzo checksum");
		at += src_len;
		made += dst_len;
	}
	*out = made;
	return 0;
}

/*
 * Blocks of at most 8 MiB, each with its packed length before it, up to the
 * end of the buffer: there is no end mark. A length that does not fit ends the
 * stream too, because kernel images have four bytes more behind it; the caller
 * compares the size made with what those bytes say.
 */
#define LZ4_LEGACY_BLOCK MiB(8)

static int unpack_lz4_legacy(const uint8_t *src, size_t len, uint8_t *dst,
			     size_t cap, size_t *out, struct err *e)
{
	size_t at = 4, made = 0;

	while (range_fits(at, 4, len)) {
		uint32_t n = get_le32(src + at);
		size_t room = min_of(cap - made, (size_t)LZ4_LEGACY_BLOCK);
		int r;

		if (n == 0x184c2102) { /* another stream follows at once */
			at += 4;
			continue;
		}
		if (!n || !range_fits(at + 4, n, len))
			break;
		if (n > LZ4_COMPRESSBOUND(LZ4_LEGACY_BLOCK))
			return damaged(e, "lz4 block length");
		r = LZ4_decompress_safe((const char *)src + at + 4,
					(char *)dst + made, (int)n, (int)room);
		if (r < 0)
			return room < LZ4_LEGACY_BLOCK ? too_big(e, cap)
						       : damaged(e, "lz4 data");
		at += 4 + (size_t)n;
		made += (size_t)r;
	}
	*out = made;
	return made ? 0 : cut_off(e);
}

static int unpack_lz4(const uint8_t *src, size_t len, uint8_t *dst, size_t cap,
		      size_t *out, struct err *e)
{
	size_t at = 0, made = 0, hint;
	LZ4F_dctx *d;
	int ret;

	if (LZ4F_isError(LZ4F_createDecompressionContext(&d, LZ4F_VERSION)))
		return err_set(e, -ENOMEM, "cannot be unpacked: no memory");
	for (;;) {
		size_t in = len - at, n = cap - made;

		hint = LZ4F_decompress(d, dst + made, &n, src + at, &in, NULL);
		at += in;
		made += n;
		if (LZ4F_isError(hint)) {
			ret = damaged(e, LZ4F_getErrorName(hint));
			break;
		}
		if (!hint) {
			ret = 0;
			break;
		}
		if (!in && !n) {
			ret = made == cap ? too_big(e, cap) : cut_off(e);
			break;
		}
	}
	LZ4F_freeDecompressionContext(d);
	*out = made;
	return ret;
}

/* In one call: the output buffer is the window, nothing else is allocated. */
static int unpack_zstd(const uint8_t *src, size_t len, uint8_t *dst, size_t cap,
		       size_t *out, struct err *e)
{
	size_t frame = ZSTD_findFrameCompressedSize(src, len);
	size_t r;

	if (ZSTD_getErrorCode(frame) == ZSTD_error_srcSize_wrong)
		return cut_off(e);
	if (ZSTD_isError(frame))
		return damaged(e, ZSTD_getErrorName(frame));
	r = ZSTD_decompress(dst, cap, src, frame);
	if (ZSTD_getErrorCode(r) == ZSTD_error_dstSize_tooSmall)
		return too_big(e, cap);
	if (ZSTD_getErrorCode(r) == ZSTD_error_memory_allocation)
		return err_set(e, -ENOMEM, "cannot be unpacked: no memory");
	if (ZSTD_isError(r))
		return damaged(e, ZSTD_getErrorName(r));
	*out = r;
	return 0;
}

static const struct {
	const char *name;
	uint8_t magic[9];
	uint8_t len;
} formats[UNPACK_COUNT] = {
	[UNPACK_NONE] = { "none", { 0 }, 0 },
	[UNPACK_GZIP] = { "gzip", { 0x1f, 0x8b, 8 }, 3 },
	[UNPACK_XZ] = { "xz", { 0xfd, '7', 'z', 'X', 'Z', 0 }, 6 },
	[UNPACK_LZMA] = { "lzma", { 0x5d, 0, 0 }, 3 },
	[UNPACK_BZIP2] = { "bzip2", { 'B', 'Z', 'h' }, 3 },
	[UNPACK_LZO] = { "lzo",
			 { 0x89, 'L', 'Z', 'O', 0, '\r', '\n', 0x1a, '\n' },
			 9 },
	[UNPACK_LZ4_LEGACY] = { "lz4", { 0x02, 0x21, 0x4c, 0x18 }, 4 },
	[UNPACK_LZ4] = { "lz4", { 0x04, 0x22, 0x4d, 0x18 }, 4 },
	[UNPACK_ZSTD] = { "zstd", { 0x28, 0xb5, 0x2f, 0xfd }, 4 },
};

enum unpack_format unpack_detect(const void *data, size_t len)
{
	for (unsigned f = 1; f < UNPACK_COUNT; f++)
		if (len >= formats[f].len &&
		    !memcmp(data, formats[f].magic, formats[f].len))
			return f;
	return UNPACK_NONE;
}

const char *unpack_name(enum unpack_format f)
{
	return (unsigned)f < UNPACK_COUNT ? formats[f].name : "?";
}

int unpack(enum unpack_format f, const void *src, size_t len, void *dst,
	   size_t cap, size_t *out, struct err *e)
{
	*out = 0;
	switch (f) {
	case UNPACK_GZIP:
		return unpack_gzip(src, len, dst, cap, out, e);
	case UNPACK_XZ:
		return unpack_lzma(src, len, dst, cap, out, e, true);
	case UNPACK_LZMA:
		return unpack_lzma(src, len, dst, cap, out, e, false);
	case UNPACK_BZIP2:
		return unpack_bzip2(src, len, dst, cap, out, e);
	case UNPACK_LZO:
		return unpack_lzo(src, len, dst, cap, out, e);
	case UNPACK_LZ4_LEGACY:
		return unpack_lz4_legacy(src, len, dst, cap, out, e);
	case UNPACK_LZ4:
		return unpack_lz4(src, len, dst, cap, out, e);
	case UNPACK_ZSTD:
		return unpack_zstd(src, len, dst, cap, out, e);
	default:
		return err_set(e, -EINVAL, "is packed in an unknown way");
	}
}
