/*
 * The unpacked image as a file: a header, then guest memory from meta.base on.
 *
 * The file is sparse: pages of zeros (nearly half of a stock kernel: bss, brk,
 * padding between segments) are holes, and zeros at the end are cut; the extents
 * say which pages are worth copying.
 */
#include "machine/kernel_image.h"

#include <assert.h>
#include <errno.h>
#include <lzma.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/thread.h"
#include "base/util.h"

/* Zero pages between two extents that are not worth a new one. */
#define GAP_PAGES 16

static_assert(sizeof(struct kernel_head) <= KERNEL_HEAD_SIZE, "header size");

static int write_all(int fd, const void *buf, size_t len, uint64_t off)
{
	const uint8_t *p = buf;

	while (len) {
		ssize_t n = pwrite(fd, p, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		p += n;
		off += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

static int read_all(int fd, void *buf, size_t len, uint64_t off)
{
	uint8_t *p = buf;

	while (len) {
		ssize_t n = pread(fd, p, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EBADMSG;
		p += n;
		off += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

static bool all_zero(const uint8_t *p, size_t len)
{
	return !len || (p[0] == 0 && !memcmp(p, p + 1, len - 1));
}

static void mark(uint8_t *map, uint64_t page)
{
	map[page / 8] |= (uint8_t)(1u << page % 8);
}

static bool marked(const uint8_t *map, uint64_t page)
{
	return map[page / 8] >> page % 8 & 1;
}

/* Write what is not zero of one segment; mark its pages in @map. */
static int write_seg(int fd, const struct kernel_seg *s, uint64_t base,
		     uint8_t *map)
{
	uint64_t start = s->gpa - base; /* in the image */
	uint64_t at = 0, run = 0; /* in the segment; run: not yet written */
	int r;

	while (at < s->data_len) {
		uint64_t page = (start + at) / KERNEL_PAGE;
		uint64_t next =
			min_of((page + 1) * KERNEL_PAGE - start, s->data_len);

		if (all_zero(s->data + at, next - at)) {
			r = write_all(fd, s->data + run, at - run,
				      KERNEL_HEAD_SIZE + start + run);
			if (r < 0)
				return r;
			run = next;
		} else {
			mark(map, page);
		}
		at = next;
	}
	return write_all(fd, s->data + run, at - run,
			 KERNEL_HEAD_SIZE + start + run);
}

static void find_extents(struct kernel_head *h, const uint8_t *map,
			 uint64_t pages)
{
	uint32_t gap = GAP_PAGES;
	uint32_t n;

again: /* with larger gaps, when there are too many */
	n = 0;
	for (uint64_t i = 0; i < pages; i++) {
		if (!marked(map, i))
			continue;
		if (n &&
		    i - (h->extents[n - 1].page + h->extents[n - 1].count) <=
			    gap) {
			h->extents[n - 1].count =
				(uint32_t)i + 1 - h->extents[n - 1].page;
			continue;
		}
		if (n == KERNEL_EXTENTS_MAX) {
			gap *= 4;
			goto again;
		}
		h->extents[n].page = (uint32_t)i;
		h->extents[n].count = 1;
		n++;
	}
	h->nextents = n;
	h->data_bytes = 0;
	for (uint32_t i = 0; i < n; i++)
		h->data_bytes += (uint64_t)h->extents[i].count * KERNEL_PAGE;
	h->image_len = n ? (uint64_t)(h->extents[n - 1].page +
				      h->extents[n - 1].count) *
				       KERNEL_PAGE
			 : 0;
}

static int image_crc(int fd, const struct kernel_head *h, uint64_t *crc)
{
	size_t len = KERNEL_HEAD_SIZE + h->image_len;
	uint8_t *p = mmap(NULL, len, PROT_READ, MAP_PRIVATE, fd, 0);

	if (p == MAP_FAILED)
		return -errno;
	*crc = 0;
	for (uint32_t i = 0; i < h->nextents; i++)
		*crc = lzma_crc64(
			p + KERNEL_HEAD_SIZE +
				(uint64_t)h->extents[i].page * KERNEL_PAGE,
			(uint64_t)h->extents[i].count * KERNEL_PAGE, *crc);
	munmap(p, len);
	return 0;
}

static uint64_t head_crc(const struct kernel_head *h)
{
	struct kernel_head copy = *h;

	copy.head_crc = 0;
	return lzma_crc64((const uint8_t *)&copy, sizeof(copy), 0);
}

int kernel_image_write(int fd, const struct kernel_parsed *p,
		       const uint8_t source[SHA256_SIZE], struct kernel_head *h)
{
	uint64_t base = align_down(p->meta.base, KERNEL_PAGE);
	uint64_t pages =
		(align_up(p->meta.end, KERNEL_PAGE) - base) / KERNEL_PAGE;
	uint8_t *map = calloc(1, pages / 8 + 1);
	int r = 0;

	if (!map)
		return -ENOMEM;
	memset(h, 0, sizeof(*h));
	memcpy(h->magic, KERNEL_MAGIC, sizeof(h->magic));
	memcpy(h->source, source, sizeof(h->source));
	h->meta = p->meta;
	for (unsigned i = 0; i < p->nsegs && r == 0; i++)
		r = write_seg(fd, &p->segs[i], base, map);
	if (r == 0) {
		find_extents(h, map, pages);
		if (ftruncate(fd, (off_t)(KERNEL_HEAD_SIZE + h->image_len)) < 0)
			r = -errno;
	}
	free(map);
	if (r == 0)
		r = image_crc(fd, h, &h->image_crc);
	if (r < 0)
		return r;
	h->head_crc = head_crc(h);
	return write_all(fd, h, sizeof(*h), 0);
}

/* A header whose checksum fits was written by this code, but perhaps by an
 * older or newer one: nothing in it may lead out of bounds. */
static bool head_sane(const struct kernel_head *h, uint64_t file_size)
{
	const struct kernel_meta *m = &h->meta;
	uint64_t base = align_down(m->base, KERNEL_PAGE), page = 0;

	if (memcmp(h->magic, KERNEL_MAGIC, sizeof(h->magic)) != 0 ||
	    h->head_crc != head_crc(h) ||
	    file_size != KERNEL_HEAD_SIZE + h->image_len ||
	    m->base < KERNEL_LOAD_MIN || m->end > KERNEL_LOAD_END ||
	    m->end <= m->base || m->entry < m->base || m->entry >= m->end ||
	    h->image_len > align_up(m->end, KERNEL_PAGE) - base ||
	    m->setup_len > SETUP_HEADER_MAX ||
	    m->version[sizeof(m->version) - 1] ||
	    h->nextents > KERNEL_EXTENTS_MAX)
		return false;
	for (uint32_t i = 0; i < h->nextents; i++) {
		if (h->extents[i].page < page)
			return false;
		page = (uint64_t)h->extents[i].page + h->extents[i].count;
	}
	return page * KERNEL_PAGE <= h->image_len;
}

int kernel_image_read(int fd, struct kernel_head *h, bool whole)
{
	struct stat st;
	uint64_t crc;
	int r;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EBADMSG;
	r = read_all(fd, h, sizeof(*h), 0);
	if (r < 0)
		return r;
	if (!head_sane(h, (uint64_t)st.st_size))
		return -EBADMSG;
	if (!whole)
		return 0;
	r = image_crc(fd, h, &crc);
	if (r < 0)
		return r;
	return crc == h->image_crc ? 0 : -EBADMSG;
}

/*
 * Copying: two threads share the extents in steps of COPY_STEP. With huge pages
 * behind guest memory most of the time is the copy itself, and a second CPU
 * takes a third of it off (30 MiB: 2.3 instead of 3.5 ms).
 */
#define COPY_STEP  MiB(2)
#define COPY_ALONE MiB(4) /* not worth a thread below */

struct copy {
	const struct kernel *k;
	uint8_t *host; /* of the image's first byte */
	uint64_t next; /* atomic: bytes handed out */
	int result; /* atomic: the first failure */
};

/* Read data bytes [at, at + len), counted over the extents, into place. */
static int copy_range(const struct copy *c, uint64_t at, uint64_t len)
{
	const struct kernel_head *h = &c->k->head;

	for (uint32_t i = 0; i < h->nextents && len; i++) {
		uint64_t size = (uint64_t)h->extents[i].count * KERNEL_PAGE;
		uint64_t off = (uint64_t)h->extents[i].page * KERNEL_PAGE;
		uint64_t n;
		int r;

		if (at >= size) {
			at -= size;
			continue;
		}
		n = min_of(size - at, len);
		r = read_all(c->k->fd, c->host + off + at, n,
			     KERNEL_HEAD_SIZE + off + at);
		if (r < 0)
			return r;
		at = 0;
		len -= n;
	}
	return 0;
}

static void copy_work(void *arg)
{
	struct copy *c = arg;

	for (;;) {
		uint64_t at = __atomic_fetch_add(&c->next, COPY_STEP,
						 __ATOMIC_RELAXED);
		int r;

		if (at >= c->k->head.data_bytes)
			return;
		r = copy_range(c, at,
			       min_of(COPY_STEP, c->k->head.data_bytes - at));
		if (r < 0)
			__atomic_store_n(&c->result, r, __ATOMIC_RELAXED);
	}
}

static int place_copy(const struct kernel *k, struct gmem *m, gpa_t base,
		      bool fresh)
{
	const struct kernel_head *h = &k->head;
	struct copy c = { .k = k };
	struct thread helper = { 0 };

	if (!h->image_len)
		return 0;
	c.host = gmem_ptr(m, base, h->image_len, true);
	if (!c.host)
		return -EFAULT;
	if (!fresh)
		memset(c.host, 0, h->image_len);
	if (h->data_bytes >= COPY_ALONE)
		thread_start(&helper, "load-kernel", copy_work, &c);
	copy_work(&c);
	thread_join(&helper);
	return c.result;
}

int kernel_place(const struct kernel *k, struct gmem *m, bool fresh,
		 struct err *e)
{
	const struct kernel_head *h = &k->head;
	gpa_t base = gpa(align_down(h->meta.base, KERNEL_PAGE));
	gpa_t tail = gpa(base.v + h->image_len);
	int r = place_copy(k, m, base, fresh);

	if (r == 0 && !fresh && tail.v < h->meta.end)
		r = gmem_fill(m, tail, 0, h->meta.end - tail.v);
	if (r == -EBADMSG)
		return err_set(e, r,
			       "the unpacked kernel was cut off while it "
			       "was being read");
	return r < 0 ? err_set(e, r, "cannot load the kernel: %s", strerror(-r))
		     : 0;
}
