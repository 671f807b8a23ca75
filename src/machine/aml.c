#include "machine/aml.h"

#include <string.h>

#include "base/bytes.h"
#include "base/util.h"

/* Opcodes (ACPI 6.4, 20.3). */
enum {
	OP_ZERO = 0x00,
	OP_ONE = 0x01,
	OP_NAME = 0x08,
	OP_BYTE = 0x0a,
	OP_WORD = 0x0b,
	OP_DWORD = 0x0c,
	OP_STRING = 0x0d,
	OP_QWORD = 0x0e,
	OP_SCOPE = 0x10,
	OP_BUFFER = 0x11,
	OP_PACKAGE = 0x12,
	OP_METHOD = 0x14,
	OP_DUAL_NAME = 0x2e,
	OP_MULTI_NAME = 0x2f,
	OP_EXT = 0x5b,
	OP_ARG0 = 0x68,
	OP_NOTIFY = 0x86,
	OP_EQUAL = 0x93,
	OP_IF = 0xa0,
	EXT_DEVICE = 0x82,
};

/* Resource descriptors (ACPI 6.4, 6.4). */
enum {
	RES_IO = 0x47, /* small, 7 bytes */
	RES_END = 0x79, /* small, 1 byte: checksum */
	RES_MEMORY32_FIXED = 0x86,
	RES_INTERRUPT = 0x89,
};

void aml_bytes(struct aml *a, const void *p, size_t n)
{
	if (a->overflow || n > a->cap - a->len) {
		a->overflow = true;
		return;
	}
	memcpy(a->buf + a->len, p, n);
	a->len += n;
}

void aml_byte(struct aml *a, uint8_t b)
{
	aml_bytes(a, &b, 1);
}

static void aml_le16(struct aml *a, uint16_t v)
{
	uint8_t b[2];

	put_le16(b, v);
	aml_bytes(a, b, sizeof(b));
}

static void aml_le32(struct aml *a, uint32_t v)
{
	uint8_t b[4];

	put_le32(b, v);
	aml_bytes(a, b, sizeof(b));
}

/* One segment, padded with '_' to four characters. Returns what is left. */
static const char *name_seg(struct aml *a, const char *s)
{
	char seg[4] = { '_', '_', '_', '_' };
	size_t n = strcspn(s, ".");

	memcpy(seg, s, min_of(n, sizeof(seg)));
	aml_bytes(a, seg, sizeof(seg));
	return s[n] ? s + n + 1 : s + n;
}

static void aml_path(struct aml *a, const char *path)
{
	unsigned segs = 1;

	if (*path == '\\')
		aml_byte(a, (uint8_t)*path++);
	for (const char *p = path; *p; p++)
		segs += *p == '.';
	if (segs == 2) {
		aml_byte(a, OP_DUAL_NAME);
	} else if (segs > 2) {
		aml_byte(a, OP_MULTI_NAME);
		aml_byte(a, (uint8_t)segs);
	}
	while (*path)
		path = name_seg(a, path);
}

/*
 * PkgLength counts itself and takes 1 to 4 bytes; it is inserted on closing,
 * when the length is known, by moving what follows.
 */
void aml_close(struct aml *a, size_t mark)
{
	uint8_t b[4];
	size_t len, n;

	if (a->overflow)
		return;
	len = a->len - mark;
	n = len + 1 < 0x40	 ? 1
	    : len + 2 < 0x1000	 ? 2
	    : len + 3 < 0x100000 ? 3
				 : 4;
	if (n > a->cap - a->len) {
		a->overflow = true;
		return;
	}
	memmove(a->buf + mark + n, a->buf + mark, len);
	len += n;
	a->len += n;
	if (n == 1) {
		b[0] = (uint8_t)len;
	} else {
		b[0] = (uint8_t)((n - 1) << 6 | (len & 15));
		for (size_t i = 1; i < n; i++)
			b[i] = (uint8_t)(len >> (4 + 8 * (i - 1)));
	}
	memcpy(a->buf + mark, b, n);
}

size_t aml_scope(struct aml *a, const char *path)
{
	size_t mark;

	aml_byte(a, OP_SCOPE);
	mark = a->len;
	aml_path(a, path);
	return mark;
}

size_t aml_device(struct aml *a, const char *name)
{
	size_t mark;

	aml_byte(a, OP_EXT);
	aml_byte(a, EXT_DEVICE);
	mark = a->len;
	aml_path(a, name);
	return mark;
}

size_t aml_method(struct aml *a, const char *name, unsigned nargs)
{
	size_t mark;

	aml_byte(a, OP_METHOD);
	mark = a->len;
	aml_path(a, name);
	aml_byte(a, (uint8_t)(nargs | 8)); /* serialized */
	return mark;
}

size_t aml_package(struct aml *a, unsigned count)
{
	size_t mark;

	aml_byte(a, OP_PACKAGE);
	mark = a->len;
	aml_byte(a, (uint8_t)count);
	return mark;
}

size_t aml_if_arg0_equals(struct aml *a, uint64_t value)
{
	size_t mark;

	aml_byte(a, OP_IF);
	mark = a->len;
	aml_byte(a, OP_EQUAL);
	aml_byte(a, OP_ARG0);
	aml_int(a, value);
	return mark;
}

void aml_int(struct aml *a, uint64_t v)
{
	if (v == 0) {
		aml_byte(a, OP_ZERO);
	} else if (v == 1) {
		aml_byte(a, OP_ONE);
	} else if (v <= UINT8_MAX) {
		aml_byte(a, OP_BYTE);
		aml_byte(a, (uint8_t)v);
	} else if (v <= UINT16_MAX) {
		aml_byte(a, OP_WORD);
		aml_le16(a, (uint16_t)v);
	} else if (v <= UINT32_MAX) {
		aml_byte(a, OP_DWORD);
		aml_le32(a, (uint32_t)v);
	} else {
		aml_byte(a, OP_QWORD);
		aml_le32(a, (uint32_t)v);
		aml_le32(a, (uint32_t)(v >> 32));
	}
}

static void aml_string(struct aml *a, const char *s)
{
	aml_byte(a, OP_STRING);
	aml_bytes(a, s, strlen(s) + 1);
}

void aml_name(struct aml *a, const char *name)
{
	aml_byte(a, OP_NAME);
	aml_path(a, name);
}

void aml_name_int(struct aml *a, const char *name, uint64_t v)
{
	aml_name(a, name);
	aml_int(a, v);
}

void aml_name_string(struct aml *a, const char *name, const char *s)
{
	aml_name(a, name);
	aml_string(a, s);
}

static unsigned hex_digit(char c)
{
	return c <= '9' ? (unsigned)(c - '0') : (unsigned)(c - 'A' + 10);
}

void aml_name_eisaid(struct aml *a, const char *name, const char *id)
{
	/* Three letters of five bits, then four digits, big-endian. */
	uint32_t v = ((uint32_t)(id[0] - '@') & 31) << 26 |
		     ((uint32_t)(id[1] - '@') & 31) << 21 |
		     ((uint32_t)(id[2] - '@') & 31) << 16 |
		     hex_digit(id[3]) << 12 | hex_digit(id[4]) << 8 |
		     hex_digit(id[5]) << 4 | hex_digit(id[6]);
	uint8_t b[4];

	put_be32(b, v);
	aml_name(a, name);
	aml_byte(a, OP_DWORD);
	aml_bytes(a, b, sizeof(b));
}

void aml_notify(struct aml *a, const char *path, uint64_t value)
{
	aml_byte(a, OP_NOTIFY);
	aml_path(a, path);
	aml_int(a, value);
}

/*
 * A buffer: PkgLength, size, bytes. The size is one byte, filled in on closing:
 * no device here has more than a few descriptors.
 */
size_t aml_resources(struct aml *a)
{
	size_t mark;

	aml_name(a, "_CRS");
	aml_byte(a, OP_BUFFER);
	mark = a->len;
	aml_byte(a, OP_BYTE);
	aml_byte(a, 0);
	return mark;
}

void aml_res_memory32(struct aml *a, uint32_t base, uint32_t len)
{
	aml_byte(a, RES_MEMORY32_FIXED);
	aml_le16(a, 9);
	aml_byte(a, 1); /* read and write */
	aml_le32(a, base);
	aml_le32(a, len);
}

void aml_res_io(struct aml *a, uint16_t base, uint8_t len)
{
	aml_byte(a, RES_IO);
	aml_byte(a, 1); /* decodes 16 bits */
	aml_le16(a, base); /* lowest */
	aml_le16(a, base); /* highest */
	aml_byte(a, 1); /* alignment */
	aml_byte(a, len);
}

void aml_res_interrupt(struct aml *a, uint32_t gsi, bool shared)
{
	aml_byte(a, RES_INTERRUPT);
	aml_le16(a, 6);
	/* consumer, edge, active high */
	aml_byte(a, (uint8_t)(1 | 1 << 1 | (shared ? 1 << 3 : 0)));
	aml_byte(a, 1);
	aml_le32(a, gsi);
}

void aml_resources_close(struct aml *a, size_t mark)
{
	aml_byte(a, RES_END);
	aml_byte(a, 0); /* no checksum */
	if (a->len - mark - 2 > UINT8_MAX)
		a->overflow = true;
	if (!a->overflow)
		a->buf[mark + 1] = (uint8_t)(a->len - mark - 2);
	aml_close(a, mark);
}
