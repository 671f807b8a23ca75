/*
 * Bytes for a host socket that would not take them: a ring that doubles as
 * needed up to the window the guest was promised, and is freed when empty.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "virtio/iov.h"
#include "virtio/vsock/core.h"

#define OBUF_MIN 4096u

static int obuf_reserve(struct obuf *b, uint32_t need, uint32_t max)
{
	uint32_t size = b->size ? b->size : OBUF_MIN;
	struct iovec iov[2];
	uint8_t *data;
	unsigned n;

	if (need <= b->size)
		return 0;
	while (size < need)
		size *= 2;
	/* A window that is no power of two: the last step is smaller. */
	if (size > max)
		size = max;
	if (size < need)
		return -ENOBUFS;
	data = malloc(size);
	if (!data)
		return -ENOMEM;
	n = obuf_iov(b, iov);
	iov_read(iov, n, 0, data, b->len);
	free(b->data);
	b->data = data;
	b->size = size;
	b->head = 0;
	return 0;
}

/* Append bytes [off, off + len) of @iov: 0, -ENOMEM, -ENOBUFS over @max. */
int obuf_put(struct obuf *b, const struct iovec *iov, unsigned n, uint64_t off,
	     uint32_t len, uint32_t max)
{
	uint32_t tail, first;
	int rc = obuf_reserve(b, b->len + len, max);

	if (rc || !len)
		return rc;
	tail = b->head + b->len;
	if (tail >= b->size)
		tail -= b->size;
	first = min_of(len, b->size - tail);
	iov_read(iov, n, off, b->data + tail, first);
	iov_read(iov, n, off + first, b->data, len - first);
	b->len += len;
	return 0;
}

/* What is in it, oldest first. */
unsigned obuf_iov(const struct obuf *b, struct iovec iov[2])
{
	uint32_t first;

	if (!b->len)
		return 0;
	first = min_of(b->len, b->size - b->head);
	iov[0] = (struct iovec){ b->data + b->head, first };
	if (first == b->len)
		return 1;
	iov[1] = (struct iovec){ b->data, b->len - first };
	return 2;
}

void obuf_drop(struct obuf *b, uint32_t n)
{
	b->len -= n;
	b->head += n;
	if (b->head >= b->size)
		b->head -= b->size;
	if (!b->len)
		obuf_free(b);
}

void obuf_free(struct obuf *b)
{
	free(b->data);
	*b = (struct obuf){ 0 };
}
