/*
 * Snapshot records: a versioned, tagged, checksummed byte stream.
 *
 * A snapshot is a header and records; a record has a tag (what it is), an
 * instance (which one), a version (of its layout) and a body of fields. Fields
 * are written and read in order with fixed-width little-endian encodings. A
 * reader may stop before the end of a body (a newer writer appended fields) and
 * finds zeros past it (an older writer had fewer): layouts only ever grow at
 * their end.
 *
 * File layout, all little-endian:
 *   header: "ARCSNAP\n", u32 format version (1), u32 flags (0)
 *   record: u32 tag, u32 instance, u32 version, u32 flags,
 *           u64 body bytes, u32 CRC-32C of the body, u32 CRC-32C of the
 *           28 bytes before it, body, zero padding to 8 bytes
 *   end:    a record with tag SNAP_TAG_END and no body
 */
#ifndef ARC_SNAP_SNAP_H
#define ARC_SNAP_SNAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;

#define SNAP_TAG(a, b, c, d)                                        \
	((uint32_t)(a) | (uint32_t)(b) << 8 | (uint32_t)(c) << 16 | \
	 (uint32_t)(d) << 24)
#define SNAP_TAG_END SNAP_TAG('E', 'N', 'D', ' ')

enum {
	SNAP_CRITICAL = 1 << 0, /* a reader that knows not the tag must stop */
};

/* Bodies are bounded: RAM has its own format. */
#define SNAP_BODY_MAX (16u << 20)

/*
 * Writing, into memory. The first error (-ENOMEM, -EFBIG) sticks, later calls
 * do nothing, snap_finish() returns it.
 */
struct snap_writer {
	uint8_t *buf;
	size_t len, room;
	size_t record; /* offset of the open record, 0 when none */
	int error;
};

void snap_begin(struct snap_writer *w);
void snap_record(struct snap_writer *w, uint32_t tag, uint32_t instance,
		 uint32_t version, uint32_t flags);
void snap_u8(struct snap_writer *w, uint8_t v);
void snap_u16(struct snap_writer *w, uint16_t v);
void snap_u32(struct snap_writer *w, uint32_t v);
void snap_u64(struct snap_writer *w, uint64_t v);
void snap_bytes(struct snap_writer *w, const void *p, size_t len);
/* A u32 length, then the bytes. */
void snap_blob(struct snap_writer *w, const void *p, size_t len);
/* Closes the stream: 0 and buf/len are the caller's (free(buf)), or -errno. */
int snap_finish(struct snap_writer *w);
void snap_discard(struct snap_writer *w); /* free without finishing */

/*
 * Reading, from memory that stays the caller's. snap_open() checks the whole
 * stream (structure and checksums) before anything is taken from it.
 */
struct snap_reader {
	const uint8_t *buf;
	size_t len;
};

struct snap_body {
	uint32_t tag, instance, version, flags;
	const uint8_t *p, *end;
	bool short_read; /* a field was past the end and read as zero */
};

int snap_open(struct snap_reader *r, const void *buf, size_t len,
	      struct err *e);
/* The first record of @tag and @instance, or -ENOENT. */
int snap_find(const struct snap_reader *r, uint32_t tag, uint32_t instance,
	      struct snap_body *out);
/* Iterate: *pos starts at 0; false at the end. */
bool snap_next(const struct snap_reader *r, size_t *pos, struct snap_body *out);
uint8_t snap_get_u8(struct snap_body *b);
uint16_t snap_get_u16(struct snap_body *b);
uint32_t snap_get_u32(struct snap_body *b);
uint64_t snap_get_u64(struct snap_body *b);
/* Zero-fills what is missing. */
void snap_get_bytes(struct snap_body *b, void *p, size_t len);
/* Borrowed; *len 0 and NULL when missing or longer than the body. */
const void *snap_get_blob(struct snap_body *b, size_t *len);

#endif
