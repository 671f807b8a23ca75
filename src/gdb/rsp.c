/* RSP framing (rsp.h). */
#include "gdb/rsp.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void rsp_init(struct rsp *r, void (*packet)(struct rsp *, char *, size_t),
	      void (*interrupt)(struct rsp *))
{
	memset(r, 0, sizeof(*r));
	r->packet = packet;
	r->interrupt = interrupt;
}

int rsp_nibble(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

bool rsp_number(const char **p, uint64_t *out)
{
	uint64_t v = 0;
	int digits = 0, n;

	for (; (n = rsp_nibble(**p)) >= 0; (*p)++) {
		if (v >> 60)
			return false;
		v = v << 4 | (unsigned)n;
		digits++;
	}
	*out = v;
	return digits > 0;
}

void rsp_hex(char *to, const void *data, size_t len)
{
	static const char digit[] = "0123456789abcdef";
	const uint8_t *b = data;

	for (size_t i = 0; i < len; i++) {
		to[2 * i] = digit[b[i] >> 4];
		to[2 * i + 1] = digit[b[i] & 15];
	}
}

bool rsp_unhex(void *to, const char *from, size_t len)
{
	uint8_t *b = to;

	for (size_t i = 0; i < len; i++) {
		int hi = rsp_nibble(from[2 * i]), lo;

		lo = hi < 0 ? -1 : rsp_nibble(from[2 * i + 1]);
		if (lo < 0)
			return false;
		b[i] = (uint8_t)(hi << 4 | lo);
	}
	return true;
}

static void put(struct rsp *r, char c)
{
	if (r->out_len == sizeof(r->out) && r->out_at) {
		memmove(r->out, r->out + r->out_at, r->out_len - r->out_at);
		r->out_len -= r->out_at;
		r->out_at = 0;
	}
	if (r->out_len == sizeof(r->out))
		r->overflow = true;
	else
		r->out[r->out_len++] = c;
}

void rsp_reply(struct rsp *r, const void *data, size_t len)
{
	const char *p = data;
	uint8_t sum = 0;
	char hex[2];

	put(r, '$');
	for (size_t i = 0; i < len; i++) {
		char c = p[i];

		if (c == '#' || c == '$' || c == '}' || c == '*') {
			put(r, '}');
			sum += '}';
			c ^= 0x20;
		}
		put(r, c);
		sum += (uint8_t)c;
	}
	rsp_hex(hex, &sum, 1);
	put(r, '#');
	put(r, hex[0]);
	put(r, hex[1]);
}

void rsp_text(struct rsp *r, const char *fmt, ...)
{
	char buf[1024];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(buf, sizeof(buf), fmt, ap);
	va_end(ap);
	if (n > 0)
		rsp_reply(r, buf,
			  (size_t)n < sizeof(buf) ? (size_t)n
						  : sizeof(buf) - 1);
	else
		rsp_reply(r, "", 0);
}

static void data_byte(struct rsp *r, char c)
{
	if (c == '$') { /* the last one was cut off */
		r->in_len = 0;
		r->sum = 0;
		r->escaped = r->overlong = false;
		return;
	}
	if (c == '#') {
		r->state = RSP_SUM1;
		return;
	}
	r->sum += (uint8_t)c;
	if (c == '}' && !r->escaped) {
		r->escaped = true;
		return;
	}
	if (r->escaped)
		c ^= 0x20;
	r->escaped = false;
	if (r->in_len < RSP_PACKET_MAX)
		r->in[r->in_len++] = c;
	else
		r->overlong = true;
}

static void packet_end(struct rsp *r)
{
	r->state = RSP_IDLE;
	if (r->given != r->sum || r->overlong) {
		if (!r->no_ack)
			put(r, '-');
		return;
	}
	if (!r->no_ack)
		put(r, '+');
	r->in[r->in_len] = 0;
	r->packet(r, r->in, r->in_len);
}

void rsp_feed(struct rsp *r, const void *data, size_t len)
{
	const char *p = data;

	for (size_t i = 0; i < len; i++) {
		int n = rsp_nibble(p[i]);

		switch (r->state) {
		case RSP_IDLE: /* acknowledgements mean nothing on a stream */
			if (p[i] == '$') {
				r->state = RSP_DATA;
				data_byte(r, '$');
			} else if (p[i] == 3) {
				r->interrupt(r);
			}
			break;
		case RSP_DATA:
			data_byte(r, p[i]);
			break;
		case RSP_SUM1:
			/* A bad digit makes a sum that cannot match. */
			r->given = (uint8_t)((n < 0 ? 0 : n) << 4);
			r->state = RSP_SUM2;
			break;
		case RSP_SUM2:
			r->given |= (uint8_t)(n < 0 ? 0 : n);
			packet_end(r);
			break;
		}
	}
}
