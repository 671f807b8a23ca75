#include "agent/frame.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"

#define FIRST_ROOM 16384

/* ---- in ---- */

void frame_in_free(struct frame_in *in)
{
	free(in->buf);
	*in = (struct frame_in){ 0 };
}

/* What the frame at the front needs in the buffer; the head is there. */
static size_t front_size(const struct frame_in *in)
{
	return AGENT_FRAME_HEAD + (size_t)get_le32(in->buf + in->used);
}

/* Room for more bytes: move the rest to the front, grow for a long frame. */
static int make_room(struct frame_in *in, size_t want)
{
	size_t rest = in->have - in->used, need = rest + want;

	if (rest && in->used)
		memmove(in->buf, in->buf + in->used, rest);
	in->have = rest;
	in->used = 0;
	if (rest >= AGENT_FRAME_HEAD && need < front_size(in) &&
	    get_le32(in->buf) <= AGENT_FRAME_MAX)
		need = front_size(in);
	if (need > in->room) {
		uint8_t *b = realloc(in->buf, need);

		if (!b)
			return -ENOMEM;
		in->buf = b;
		in->room = need;
	}
	return 0;
}

long frame_in_fill(struct frame_in *in, int fd)
{
	ssize_t n;
	int ret = make_room(in, FIRST_ROOM);

	if (ret < 0)
		return ret;
	do
		n = read(fd, in->buf + in->have, in->room - in->have);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	in->have += (size_t)n;
	return n;
}

int frame_in_feed(struct frame_in *in, const void *data, size_t len)
{
	int ret = make_room(in, len);

	if (ret < 0)
		return ret;
	memcpy(in->buf + in->have, data, len);
	in->have += len;
	return 0;
}

int frame_in_next(struct frame_in *in, struct frame *f)
{
	const uint8_t *p;

	if (in->have - in->used < AGENT_FRAME_HEAD)
		return 0;
	p = in->buf + in->used;
	if (get_le32(p) > AGENT_FRAME_MAX || p[5] || p[6] || p[7])
		return -EPROTO;
	if (in->have - in->used < front_size(in))
		return 0;
	*f = (struct frame){ .type = p[4],
			     .len = get_le32(p),
			     .data = p + AGENT_FRAME_HEAD };
	in->used += front_size(in);
	return 1;
}

bool frame_in_partial(const struct frame_in *in)
{
	return in->have != in->used;
}

int frame_recv(struct frame_in *in, int fd, struct frame *f)
{
	for (;;) {
		int ret = frame_in_next(in, f);
		long n;

		if (ret)
			return ret;
		n = frame_in_fill(in, fd);
		if (n < 0)
			return (int)n;
		if (!n)
			return frame_in_partial(in) ? -EPROTO : 0;
	}
}

/* ---- out ---- */

void frame_out_free(struct frame_out *o)
{
	free(o->buf);
	*o = (struct frame_out){ 0 };
}

size_t frame_out_pending(const struct frame_out *o)
{
	return o->len - o->at;
}

int frame_put(struct frame_out *o, uint8_t type, const void *head,
	      size_t head_len, const void *data, size_t data_len)
{
	size_t need = AGENT_FRAME_HEAD + head_len + data_len;
	uint8_t *p;

	if (head_len + data_len > AGENT_FRAME_MAX)
		return -EMSGSIZE;
	if (o->at == o->len)
		o->at = o->len = 0;
	if (o->room - o->len < need && o->at) {
		memmove(o->buf, o->buf + o->at, o->len - o->at);
		o->len -= o->at;
		o->at = 0;
	}
	if (o->room - o->len < need) {
		size_t room = o->len + need;

		p = realloc(o->buf, room);
		if (!p)
			return -ENOMEM;
		o->buf = p;
		o->room = room;
	}
	p = o->buf + o->len;
	put_le32(p, (uint32_t)(head_len + data_len));
	p[4] = type;
	p[5] = p[6] = p[7] = 0;
	if (head_len)
		memcpy(p + AGENT_FRAME_HEAD, head, head_len);
	if (data_len)
		memcpy(p + AGENT_FRAME_HEAD + head_len, data, data_len);
	o->len += need;
	return 0;
}

int frame_out_flush(struct frame_out *o, int fd)
{
	ssize_t n;

	if (o->at == o->len)
		return 0;
	/* A reader that went is an error here, not a signal. */
	do
		n = send(fd, o->buf + o->at, o->len - o->at, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EAGAIN ? 1 : -errno;
	o->at += (size_t)n;
	return o->at < o->len;
}

int frame_out_send(struct frame_out *o, int fd)
{
	int ret;

	while ((ret = frame_out_flush(o, fd)) > 0) {
		struct pollfd p = { .fd = fd, .events = POLLOUT };

		poll(&p, 1, -1);
	}
	return ret;
}

/* ---- payloads ---- */

int frame_put_hello(struct frame_out *o, const char *text)
{
	uint8_t head[8];

	put_le32(head, AGENT_MAGIC);
	put_le16(head + 4, AGENT_VERSION);
	put_le16(head + 6, 0);
	return frame_put(o, AGENT_HELLO, head, sizeof(head), text,
			 strlen(text));
}

int frame_put_attr(struct frame_out *o, uint16_t tag, const void *value,
		   size_t len)
{
	uint8_t head[2];

	put_le16(head, tag);
	return frame_put(o, AGENT_ATTR, head, sizeof(head), value, len);
}

int frame_put_error(struct frame_out *o, int code, int status, const char *text)
{
	uint8_t head[8];

	put_le32(head, (uint32_t)(code < 0 ? -code : code));
	put_le32(head + 4, (uint32_t)status);
	return frame_put(o, AGENT_ERROR, head, sizeof(head), text,
			 strnlen(text, 4096));
}

int frame_check_hello(const struct frame *f)
{
	if (f->type != AGENT_HELLO || f->len < 8 ||
	    get_le32(f->data) != AGENT_MAGIC)
		return -EPROTO;
	return get_le16(f->data + 4) == AGENT_VERSION ? 0 : -EPROTONOSUPPORT;
}

void frame_printable(char *s)
{
	for (; *s; s++)
		if ((uint8_t)*s < ' ' || *s == 127)
			*s = '?';
}

int frame_get_error(const struct frame *f, int *status, char *text, size_t size)
{
	uint32_t code = EPROTO, exit = 125;
	size_t n = 0;

	if (f->len >= 8) {
		code = get_le32(f->data);
		exit = get_le32(f->data + 4);
		for (; n < size - 1 && n < f->len - 8; n++)
			text[n] = f->data[8 + n] ? (char)f->data[8 + n] : '?';
	}
	text[n] = 0;
	frame_printable(text);
	*status = exit <= 255 ? (int)exit : 125;
	return code && code < 4096 ? (int)code : EPROTO;
}
