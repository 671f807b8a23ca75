/*
 * Frames in and out of a byte stream, with bounded memory. Host and guest use
 * the same code. Nothing here blocks unless the descriptor does.
 */
#ifndef ARC_AGENT_FRAME_H
#define ARC_AGENT_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/proto.h"

struct frame {
	uint8_t type;
	uint32_t len;
	const uint8_t *data;
};

/* ---- in ---- */

struct frame_in {
	uint8_t *buf; /* grows up to one frame of the greatest length */
	size_t room, have, used;
};

void frame_in_free(struct frame_in *in);
/*
 * One read() of @fd. The number of bytes, 0 at the end of the stream, -errno
 * (-EAGAIN among them). Take all frames out before filling again.
 */
long frame_in_fill(struct frame_in *in, int fd);
/* The same from memory; -ENOMEM. */
int frame_in_feed(struct frame_in *in, const void *data, size_t len);
/*
 * The next whole frame: 1, and @f is good until the next fill; 0 when more
 * bytes are needed; -EPROTO.
 */
int frame_in_next(struct frame_in *in, struct frame *f);
/* True when a frame has begun and not ended. */
bool frame_in_partial(const struct frame_in *in);
/*
 * The next frame of a blocking @fd: 1; 0 at a clean end; -EPROTO, also when the
 * stream ends within a frame; -errno.
 */
int frame_recv(struct frame_in *in, int fd, struct frame *f);

/* ---- out ---- */

struct frame_out {
	uint8_t *buf;
	size_t room, at, len; /* bytes [at, len) are to be sent */
};

void frame_out_free(struct frame_out *o);
/* Bytes not yet sent. */
size_t frame_out_pending(const struct frame_out *o);
/*
 * Queue a frame whose payload is two parts (a fixed head, then data; either may
 * be empty). 0, -ENOMEM, -EMSGSIZE. The caller bounds what it queues.
 */
int frame_put(struct frame_out *o, uint8_t type, const void *head,
	      size_t head_len, const void *data, size_t data_len);
/* Send what one write() takes: 0 when all is sent, 1 when some is left, -errno. */
int frame_out_flush(struct frame_out *o, int fd);
/* Send everything on a blocking @fd. 0 or -errno. */
int frame_out_send(struct frame_out *o, int fd);

/* ---- payloads ---- */

/* A HELLO, an ATTR, an ERROR. */
int frame_put_hello(struct frame_out *o, const char *text);
int frame_put_attr(struct frame_out *o, uint16_t tag, const void *value,
		   size_t len);
int frame_put_error(struct frame_out *o, int code, int status,
		    const char *text);
/* 0; -EPROTO when it is no HELLO; -EPROTONOSUPPORT another version. */
int frame_check_hello(const struct frame *f);
/*
 * An ERROR taken apart: the errno (positive, bounded) and exit status, and the
 * text made printable, cut to @size.
 */
int frame_get_error(const struct frame *f, int *status, char *text,
		    size_t size);
/* Text with others' words in it is one line and harmless to a terminal. */
void frame_printable(char *s);

#endif
