#include "virtio/iov.h"

#include <stdbool.h>
#include <string.h>

#include "base/util.h"

uint64_t iov_size(const struct iovec *iov, unsigned n)
{
	uint64_t size = 0;

	for (unsigned i = 0; i < n; i++)
		size += iov[i].iov_len;
	return size;
}

static size_t iov_copy(bool in, const struct iovec *iov, unsigned n,
		       uint64_t off, void *buf, size_t len)
{
	size_t done = 0;

	for (unsigned i = 0; i < n && done < len; i++) {
		char *at = iov[i].iov_base;
		size_t step;

		if (off >= iov[i].iov_len) {
			off -= iov[i].iov_len;
			continue;
		}
		at += off;
		step = min_of(iov[i].iov_len - (size_t)off, len - done);
		if (in)
			memcpy(at, (char *)buf + done, step);
		else
			memcpy((char *)buf + done, at, step);
		done += step;
		off = 0;
	}
	return done;
}

size_t iov_read(const struct iovec *iov, unsigned n, uint64_t off, void *buf,
		size_t len)
{
	return iov_copy(false, iov, n, off, buf, len);
}

size_t iov_write(const struct iovec *iov, unsigned n, uint64_t off,
		 const void *buf, size_t len)
{
	return iov_copy(true, iov, n, off, (void *)buf, len);
}

unsigned iov_slice(struct iovec *dst, const struct iovec *src, unsigned n,
		   uint64_t off, uint64_t len)
{
	unsigned k = 0;

	for (unsigned i = 0; i < n && len; i++) {
		size_t have = src[i].iov_len;
		size_t step;

		if (off >= have) {
			off -= have;
			continue;
		}
		step = (size_t)min_of((uint64_t)have - off, len);
		/* k <= i, so dst may be src. */
		dst[k++] = (struct iovec){
			.iov_base = (char *)src[i].iov_base + off,
			.iov_len = step,
		};
		len -= step;
		off = 0;
	}
	return k;
}
