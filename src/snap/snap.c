#include "snap/snap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/err.h"
#include "base/util.h"

#define HEADER_SIZE 16
#define RECORD_SIZE 32
#define FORMAT	    1

static const char magic[8] = { 'A', 'R', 'C', 'S', 'N', 'A', 'P', '\n' };

/* ---- writing ---- */

static uint8_t *grow(struct snap_writer *w, size_t len)
{
	uint8_t *p;

	if (w->error)
		return NULL;
	if (len > w->room - w->len) {
		size_t room = max_of(w->room * 2, w->len + len + 4096);

		p = realloc(w->buf, room);
		if (!p) {
			w->error = -ENOMEM;
			return NULL;
		}
		w->buf = p;
		w->room = room;
	}
	p = w->buf + w->len;
	w->len += len;
	return p;
}

void snap_begin(struct snap_writer *w)
{
	uint8_t *p;

	*w = (struct snap_writer){ 0 };
	p = grow(w, HEADER_SIZE);
	if (!p)
		return;
	memcpy(p, magic, sizeof(magic));
	put_le32(p + 8, FORMAT);
	put_le32(p + 12, 0);
}

static void record_close(struct snap_writer *w)
{
	uint8_t *rec;
	size_t body, pad;

	if (!w->record || w->error)
		return;
	body = w->len - w->record - RECORD_SIZE;
	if (body > SNAP_BODY_MAX) {
		w->error = -EFBIG;
		return;
	}
	rec = w->buf + w->record;
	put_le64(rec + 16, body);
	put_le32(rec + 24, crc32c(0, rec + RECORD_SIZE, body));
	put_le32(rec + 28, crc32c(0, rec, 28));
	w->record = 0;
	pad = -body & 7;
	rec = grow(w, pad);
	if (rec)
		memset(rec, 0, pad);
}

void snap_record(struct snap_writer *w, uint32_t tag, uint32_t instance,
		 uint32_t version, uint32_t flags)
{
	uint8_t *p;

	record_close(w);
	p = grow(w, RECORD_SIZE);
	if (!p)
		return;
	w->record = w->len - RECORD_SIZE;
	put_le32(p, tag);
	put_le32(p + 4, instance);
	put_le32(p + 8, version);
	put_le32(p + 12, flags);
}

void snap_bytes(struct snap_writer *w, const void *src, size_t len)
{
	uint8_t *p = grow(w, len);

	if (p && len)
		memcpy(p, src, len);
}

void snap_u8(struct snap_writer *w, uint8_t v)
{
	snap_bytes(w, &v, 1);
}

void snap_u16(struct snap_writer *w, uint16_t v)
{
	v = htole16(v);
	snap_bytes(w, &v, sizeof(v));
}

void snap_u32(struct snap_writer *w, uint32_t v)
{
	v = htole32(v);
	snap_bytes(w, &v, sizeof(v));
}

void snap_u64(struct snap_writer *w, uint64_t v)
{
	v = htole64(v);
	snap_bytes(w, &v, sizeof(v));
}

void snap_blob(struct snap_writer *w, const void *p, size_t len)
{
	if (len > SNAP_BODY_MAX) {
		w->error = w->error ? w->error : -EFBIG;
		return;
	}
	snap_u32(w, (uint32_t)len);
	snap_bytes(w, p, len);
}

int snap_finish(struct snap_writer *w)
{
	snap_record(w, SNAP_TAG_END, 0, 0, 0);
	record_close(w);
	if (w->error)
		snap_discard(w);
	return w->error;
}

void snap_discard(struct snap_writer *w)
{
	free(w->buf);
	w->buf = NULL;
	w->len = w->room = 0;
}

/* ---- reading ---- */

/* The record at *pos, checked; moves *pos past it. */
static int record_at(const struct snap_reader *r, size_t *pos,
		     struct snap_body *out, struct err *e)
{
	const uint8_t *rec = r->buf + *pos;
	uint64_t body;

	if (!range_fits(*pos, RECORD_SIZE, r->len))
		return err_set(e, -EBADMSG,
			       "snapshot ends in the middle of a record at "
			       "byte %zu",
			       *pos);
	if (crc32c(0, rec, 28) != get_le32(rec + 28))
		return err_set(e, -EBADMSG,
			       "snapshot record header at byte %zu is damaged",
			       *pos);
	body = get_le64(rec + 16);
	if (body > SNAP_BODY_MAX ||
	    !range_fits(*pos + RECORD_SIZE, align_up(body, 8), r->len))
		return err_set(e, -EBADMSG,
			       "snapshot record at byte %zu claims %llu bytes, "
			       "more than there are",
			       *pos, (unsigned long long)body);
	*out = (struct snap_body){
		.tag = get_le32(rec),
		.instance = get_le32(rec + 4),
		.version = get_le32(rec + 8),
		.flags = get_le32(rec + 12),
		.p = rec + RECORD_SIZE,
		.end = rec + RECORD_SIZE + body,
	};
	*pos += RECORD_SIZE + align_up(body, 8);
	return 0;
}

int snap_open(struct snap_reader *r, const void *buf, size_t len, struct err *e)
{
	struct snap_body b;
	size_t pos = HEADER_SIZE;

	*r = (struct snap_reader){ buf, len };
	if (len < HEADER_SIZE || memcmp(buf, magic, sizeof(magic)))
		return err_set(e, -EINVAL, "not an arcvmm snapshot");
	if (get_le32(r->buf + 8) != FORMAT)
		return err_set(e, -ENOTSUP,
			       "snapshot format %u is not the one this version "
			       "reads (%u)",
			       get_le32(r->buf + 8), FORMAT);
	do {
		size_t at = pos;
		int rc = record_at(r, &pos, &b, e);

		if (rc)
			return rc;
		if (crc32c(0, b.p, (size_t)(b.end - b.p)) !=
		    get_le32(r->buf + at + 24))
			return err_set(e, -EBADMSG,
				       "snapshot record at byte %zu is damaged",
				       at);
	} while (b.tag != SNAP_TAG_END);
	r->len = pos;
	return 0;
}

bool snap_next(const struct snap_reader *r, size_t *pos, struct snap_body *out)
{
	if (!*pos)
		*pos = HEADER_SIZE;
	/* snap_open() checked the structure: this cannot fail. */
	return !record_at(r, pos, out, NULL) && out->tag != SNAP_TAG_END;
}

int snap_find(const struct snap_reader *r, uint32_t tag, uint32_t instance,
	      struct snap_body *out)
{
	size_t pos = 0;

	while (snap_next(r, &pos, out))
		if (out->tag == tag && out->instance == instance)
			return 0;
	return -ENOENT;
}

void snap_get_bytes(struct snap_body *b, void *p, size_t len)
{
	size_t have = (size_t)(b->end - b->p);
	size_t take = min_of(len, have);

	memcpy(p, b->p, take);
	memset((char *)p + take, 0, len - take);
	b->p += take;
	if (take < len)
		b->short_read = true;
}

uint8_t snap_get_u8(struct snap_body *b)
{
	uint8_t v;

	snap_get_bytes(b, &v, sizeof(v));
	return v;
}

uint16_t snap_get_u16(struct snap_body *b)
{
	uint8_t v[2];

	snap_get_bytes(b, v, sizeof(v));
	return get_le16(v);
}

uint32_t snap_get_u32(struct snap_body *b)
{
	uint8_t v[4];

	snap_get_bytes(b, v, sizeof(v));
	return get_le32(v);
}

uint64_t snap_get_u64(struct snap_body *b)
{
	uint8_t v[8];

	snap_get_bytes(b, v, sizeof(v));
	return get_le64(v);
}

const void *snap_get_blob(struct snap_body *b, size_t *len)
{
	uint32_t n = snap_get_u32(b);
	const void *p = b->p;

	if (b->short_read || n > (size_t)(b->end - b->p)) {
		b->short_read = true;
		b->p = b->end;
		*len = 0;
		return NULL;
	}
	b->p += n;
	*len = n;
	return p;
}
