/*
 * Theory of operation
 *
 * One pump: a codec is asked to turn the input window into the output window
 * and tells how far it got. The pump refills one and empties the other, counts
 * what came out against the limit, and decides what the end of the input means.
 * The codecs are thin: start, step, end.
 */
#include "machine/initramfs_stream.h"

#include <bzlib.h>
#include <errno.h>
#include <fcntl.h>
#include <lzma.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include "base/err.h"
#include "base/util.h"

#define WINDOW	     65536
#define XZ_MEMLIMIT  MiB(256) /* xz -9 needs 65 MiB */
#define ZSTD_LOG_MAX 27 /* 128 MiB, zstd --long */

/* The windows a step works on; it advances both. */
struct span {
	const uint8_t *in;
	size_t in_len;
	uint8_t *out;
	size_t out_len;
	bool last; /* no input comes after this */
};

enum step { STEP_MORE, STEP_FRAME_END };

struct codec {
	union {
		z_stream gz;
		lzma_stream xz;
		bz_stream bz;
		ZSTD_DStream *zstd;
	};
	bool open;
	bool fresh; /* at a frame's end: the input may end here */
};

/* ---- gzip: members may follow each other ---- */

static int gz_start(struct codec *c)
{
	memset(&c->gz, 0, sizeof(c->gz));
	/* 16: gzip framing only. */
	return inflateInit2(&c->gz, 16 + MAX_WBITS) == Z_OK ? 0 : -ENOMEM;
}

static int gz_step(struct codec *c, struct span *s)
{
	int ret;

	if (c->fresh && inflateReset(&c->gz) != Z_OK)
		return -EBADMSG;
	c->gz.next_in = (uint8_t *)s->in;
	c->gz.avail_in = (unsigned)s->in_len;
	c->gz.next_out = s->out;
	c->gz.avail_out = (unsigned)s->out_len;
	ret = inflate(&c->gz, Z_NO_FLUSH);
	s->in = c->gz.next_in;
	s->in_len = c->gz.avail_in;
	s->out = c->gz.next_out;
	s->out_len = c->gz.avail_out;
	if (ret == Z_STREAM_END)
		return STEP_FRAME_END;
	if (ret == Z_OK || ret == Z_BUF_ERROR)
		return STEP_MORE;
	return ret == Z_MEM_ERROR ? -ENOMEM : -EBADMSG;
}

static void gz_end(struct codec *c)
{
	inflateEnd(&c->gz);
}

/* ---- xz ---- */

static int xz_start(struct codec *c)
{
	c->xz = (lzma_stream)LZMA_STREAM_INIT;
	return lzma_stream_decoder(&c->xz, XZ_MEMLIMIT, LZMA_CONCATENATED) ==
			       LZMA_OK
		       ? 0
		       : -ENOMEM;
}

static int xz_step(struct codec *c, struct span *s)
{
	lzma_ret ret;

	c->xz.next_in = s->in;
	c->xz.avail_in = s->in_len;
	c->xz.next_out = s->out;
	c->xz.avail_out = s->out_len;
	ret = lzma_code(&c->xz, s->last ? LZMA_FINISH : LZMA_RUN);
	s->in = c->xz.next_in;
	s->in_len = c->xz.avail_in;
	s->out = c->xz.next_out;
	s->out_len = c->xz.avail_out;
	if (ret == LZMA_STREAM_END)
		return STEP_FRAME_END;
	if (ret == LZMA_OK || ret == LZMA_BUF_ERROR)
		return STEP_MORE;
	return ret == LZMA_MEM_ERROR || ret == LZMA_MEMLIMIT_ERROR ? -ENOMEM
								   : -EBADMSG;
}

static void xz_end(struct codec *c)
{
	lzma_end(&c->xz);
}

/* ---- bzip2: streams may follow each other ---- */

static int bz_start(struct codec *c)
{
	memset(&c->bz, 0, sizeof(c->bz));
	return BZ2_bzDecompressInit(&c->bz, 0, 0) == BZ_OK ? 0 : -ENOMEM;
}

static void bz_end(struct codec *c)
{
	BZ2_bzDecompressEnd(&c->bz);
}

static int bz_step(struct codec *c, struct span *s)
{
	int ret;

	if (c->fresh) {
		bz_end(c);
		ret = bz_start(c);
		if (ret < 0) {
			c->open = false;
			return ret;
		}
	}
	c->bz.next_in = (char *)s->in;
	c->bz.avail_in = (unsigned)s->in_len;
	c->bz.next_out = (char *)s->out;
	c->bz.avail_out = (unsigned)s->out_len;
	ret = BZ2_bzDecompress(&c->bz);
	s->in = (uint8_t *)c->bz.next_in;
	s->in_len = c->bz.avail_in;
	s->out = (uint8_t *)c->bz.next_out;
	s->out_len = c->bz.avail_out;
	if (ret == BZ_STREAM_END)
		return STEP_FRAME_END;
	if (ret == BZ_OK)
		return STEP_MORE;
	return ret == BZ_MEM_ERROR ? -ENOMEM : -EBADMSG;
}

/* ---- zstd: starts the next frame by itself ---- */

static int zstd_start(struct codec *c)
{
	c->zstd = ZSTD_createDStream();
	if (!c->zstd)
		return -ENOMEM;
	ZSTD_DCtx_setParameter(c->zstd, ZSTD_d_windowLogMax, ZSTD_LOG_MAX);
	return 0;
}

static int zstd_step(struct codec *c, struct span *s)
{
	ZSTD_inBuffer in = { s->in, s->in_len, 0 };
	ZSTD_outBuffer out = { s->out, s->out_len, 0 };
	size_t ret = ZSTD_decompressStream(c->zstd, &out, &in);

	if (ZSTD_isError(ret))
		return -EBADMSG;
	s->in += in.pos;
	s->in_len -= in.pos;
	s->out += out.pos;
	s->out_len -= out.pos;
	return ret == 0 ? STEP_FRAME_END : STEP_MORE;
}

static void zstd_end(struct codec *c)
{
	ZSTD_freeDStream(c->zstd);
}

/* ---- none ---- */

static int none_start(struct codec *c)
{
	(void)c;
	return 0;
}

static int none_step(struct codec *c, struct span *s)
{
	size_t n = min_of(s->in_len, s->out_len);

	(void)c;
	memcpy(s->out, s->in, n);
	s->in += n;
	s->in_len -= n;
	s->out += n;
	s->out_len -= n;
	return STEP_FRAME_END;
}

static void none_end(struct codec *c)
{
	(void)c;
}

static const struct codec_ops {
	int (*start)(struct codec *c);
	int (*step)(struct codec *c, struct span *s);
	void (*end)(struct codec *c);
} codecs[] = {
	[STREAM_NONE] = { none_start, none_step, none_end },
	[STREAM_GZIP] = { gz_start, gz_step, gz_end },
	[STREAM_XZ] = { xz_start, xz_step, xz_end },
	[STREAM_ZSTD] = { zstd_start, zstd_step, zstd_end },
	[STREAM_BZIP2] = { bz_start, bz_step, bz_end },
};

enum stream_kind stream_detect(const void *head, size_t len)
{
	if (len >= 3 && !memcmp(head, "\x1f\x8b\x08", 3))
		return STREAM_GZIP;
	if (len >= 6 && !memcmp(head,
				"\xfd"
				"7zXZ",
				6))
		return STREAM_XZ;
	if (len >= 4 && !memcmp(head, "\x28\xb5\x2f\xfd", 4))
		return STREAM_ZSTD;
	if (len >= 3 && !memcmp(head, "BZh", 3))
		return STREAM_BZIP2;
	return STREAM_NONE;
}

static int pump(const struct codec_ops *ops, struct codec *c, uint8_t *buf,
		struct stream_source *src, struct stream_sink *sink,
		uint64_t limit)
{
	bool pad = ops != &codecs[STREAM_NONE];
	uint8_t *out = buf + WINDOW;
	struct span s = { .in = buf };
	uint64_t total = 0;

	c->fresh = false;
	for (;;) {
		size_t in_before, made;
		int ret;

		if (!s.in_len && !s.last) {
			long n = src->read(src, buf, WINDOW);

			if (n < 0)
				return (int)n;
			s.in = buf;
			s.in_len = (size_t)n;
			s.last = n == 0;
		}
		/* Ended where a frame ended; zeros after it are padding. */
		if (c->fresh && (s.in_len ? pad && !*s.in : s.last))
			return 0;
		s.out = out;
		s.out_len = WINDOW;
		in_before = s.in_len;
		ret = ops->step(c, &s);
		if (ret < 0)
			return ret;
		made = WINDOW - s.out_len;
		c->fresh = ret == STEP_FRAME_END;
		if (made > limit - total)
			return -EFBIG;
		total += made;
		if (made) {
			int put = sink->put(sink, out, made);

			if (put < 0)
				return put;
		}
		/* No way forward: the input was cut short. */
		if (s.last && !made && in_before == s.in_len && !c->fresh)
			return -EBADMSG;
	}
}

int stream_unpack(enum stream_kind kind, struct stream_source *src,
		  struct stream_sink *sink, uint64_t limit)
{
	const struct codec_ops *ops = &codecs[kind];
	uint8_t *buf = malloc(2 * WINDOW);
	struct codec c;
	int ret;

	if (!buf)
		return -ENOMEM;
	ret = ops->start(&c);
	if (!ret) {
		c.open = true;
		ret = pump(ops, &c, buf, src, sink, limit);
		if (c.open)
			ops->end(&c);
	}
	free(buf);
	return ret;
}

/* ---- files ---- */

struct fd_source {
	struct stream_source source;
	int fd;
	uint64_t at;
};

static long fd_read(struct stream_source *s, void *buf, size_t len)
{
	struct fd_source *f = container_of(s, struct fd_source, source);
	ssize_t n;

	do
		n = pread(f->fd, buf, len, (off_t)f->at);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	f->at += (uint64_t)n;
	return n;
}

struct heap_sink {
	struct stream_sink sink;
	uint8_t *data;
	size_t len, room;
};

static int heap_put(struct stream_sink *s, const void *data, size_t len)
{
	struct heap_sink *h = container_of(s, struct heap_sink, sink);

	if (h->room - h->len < len) {
		size_t room = max_of(h->len + len, 2 * h->room);
		uint8_t *n = realloc(h->data, room);

		if (!n)
			return -ENOMEM;
		h->data = n;
		h->room = room;
	}
	memcpy(h->data + h->len, data, len);
	h->len += len;
	return 0;
}

struct fd_sink {
	struct stream_sink sink;
	int fd;
	uint64_t len;
};

static int fd_put(struct stream_sink *s, const void *data, size_t len)
{
	struct fd_sink *f = container_of(s, struct fd_sink, sink);

	f->len += len;
	while (len) {
		ssize_t n = write(f->fd, data, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		data = (const char *)data + n;
		len -= (size_t)n;
	}
	return 0;
}

static int explain(int ret, const char *name, uint64_t limit, struct err *e)
{
	switch (ret) {
	case 0:
		return 0;
	case -EBADMSG:
		return err_set(
			e, ret,
			"%s: its compressed data is damaged or cut short",
			name);
	case -EFBIG:
		return err_set(e, ret, "%s: unpacks to more than %llu MiB",
			       name, (unsigned long long)(limit >> 20));
	default:
		return err_set(e, ret, "%s: %s", name, strerror(-ret));
	}
}

int stream_read_file(int dirfd, const char *path, uint64_t limit, void **data,
		     size_t *len, struct err *e)
{
	struct fd_source src = { .source.read = fd_read };
	struct heap_sink out = { .sink.put = heap_put };
	uint8_t head[STREAM_HEAD];
	ssize_t n;
	int ret;

	src.fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (src.fd < 0)
		return err_set(e, -errno, "%s: %s", path, strerror(errno));
	n = pread(src.fd, head, sizeof(head), 0);
	if (n < 0)
		ret = -errno;
	else
		ret = stream_unpack(stream_detect(head, (size_t)n), &src.source,
				    &out.sink, limit);
	close(src.fd);
	if (ret < 0) {
		free(out.data);
		return explain(ret, path, limit, e);
	}
	*data = out.data;
	*len = out.len;
	return 0;
}

int stream_to_memfd(int fd, const char *name, enum stream_kind kind,
		    uint64_t limit, uint64_t *size, struct err *e)
{
	struct fd_source src = { .source.read = fd_read, .fd = fd };
	struct fd_sink out = { .sink.put = fd_put };
	int ret;

	out.fd = memfd_create("arcvmm-unpacked", MFD_CLOEXEC);
	if (out.fd < 0)
		return err_set(e, -errno, "memfd: %s", strerror(errno));
	ret = stream_unpack(kind, &src.source, &out.sink, limit);
	if (ret < 0) {
		close(out.fd);
		return explain(ret, name, limit, e);
	}
	*size = out.len;
	return out.fd;
}
