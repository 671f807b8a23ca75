/*
 * Copies to and from the scattered pieces of a chain. All are bounded by the
 * iovecs: the result is how many bytes there were.
 */
#ifndef ARC_VIRTIO_IOV_H
#define ARC_VIRTIO_IOV_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

uint64_t iov_size(const struct iovec *iov, unsigned n);

/* Copy up to @len bytes from byte @off of @iov into @buf. */
size_t iov_read(const struct iovec *iov, unsigned n, uint64_t off, void *buf,
		size_t len);
/* Copy up to @len bytes from @buf to byte @off of @iov. */
size_t iov_write(const struct iovec *iov, unsigned n, uint64_t off,
		 const void *buf, size_t len);

/*
 * Describe bytes [@off, @off + @len) of @src in @dst, which has room for @n
 * pieces (that is always enough; @dst may be @src): the number of pieces.
 */
unsigned iov_slice(struct iovec *dst, const struct iovec *src, unsigned n,
		   uint64_t off, uint64_t len);

#endif
