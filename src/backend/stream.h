/*
 * A stream of bytes with the world outside: what is behind a console port.
 *
 *	stream_open()           from text, or stream_open_fds(), ..._host()
 *	stream_start()          from now on events are called
 *	stream_readv(), stream_writev(), stream_want_input()
 *	stream_close()
 *
 * While somebody is there to read, up to STREAM_BACKLOG bytes wait for a slow
 * reader, and what does not fit is left to the caller, who waits for `writable`:
 * output is never lost, memory is bounded, and a reader that stops reading stops
 * the guest. While nobody is there (a pty nobody opened, a socket without a
 * client) the last STREAM_BACKLOG bytes are kept for whoever comes.
 *
 * All calls and events are on the loop, or under its lock.
 */
#ifndef ARC_BACKEND_STREAM_H
#define ARC_BACKEND_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

struct err;
struct log;
struct loop;
struct stream;

#define STREAM_BACKLOG 65536

struct stream_events {
	/* stream_readv() has something. Only while input is wanted. */
	void (*readable)(void *ctx);
	/* Room again, after a short stream_writev(). */
	void (*writable)(void *ctx);
	/* Somebody came, or left. Not called for what is there at the start. */
	void (*peer)(void *ctx, bool present);
};

/* What --help says about @spec of stream_open(). */
#define STREAM_SPECS "stdio|pty|file:PATH|unix:PATH|fd:N[:M]|off"

/*
 *	stdio      standard input and output
 *	pty        a new terminal: stream_path() says where
 *	file:PATH  output only, to a file (cut to nothing first)
 *	unix:PATH  a listening socket, one client at a time
 *	fd:N[:M]   descriptors we were started with: read N, write M (or N)
 *	off        output goes nowhere, no input comes
 * -errno with a sentence.
 */
int stream_open(struct stream **out, struct loop *l, const char *spec,
		const struct log *log, struct err *e);

/*
 * Descriptors of the caller's (-1: none), duplicated here; their flags and the
 * flags of those who share them are left alone.
 */
int stream_open_fds(struct stream **out, struct loop *l, int in_fd, int out_fd,
		    struct err *e);

/* The program we are part of. Called under the loop's lock; never block. */
struct stream_host {
	/* Bytes taken, 0 or fewer than all: stream_host_ready() says go on. */
	size_t (*write)(void *ctx, const struct iovec *iov, int n);
	/* Bytes given, 0: stream_host_ready() will say when. NULL: none ever */
	size_t (*read)(void *ctx, const struct iovec *iov, int n);
	void *ctx;
};
int stream_open_host(struct stream **out, struct loop *l,
		     const struct stream_host *host, struct err *e);
/* [any thread] There is input, or room for output. Until stream_close(). */
void stream_host_ready(struct stream *s);

void stream_start(struct stream *s, const struct stream_events *events,
		  void *ctx);
/*
 * No event is called again. What still waits for a slow reader is written, for
 * as long as it goes on reading (at most STREAM_LINGER_MS between two reads):
 * this may block. NULL-safe.
 */
#define STREAM_LINGER_MS 500
void stream_close(struct stream *s);

/* Bytes read; 0 when there are none now (or none will ever come). */
size_t stream_readv(struct stream *s, const struct iovec *iov, unsigned n);
/*
 * Bytes taken. Less than all: `writable` is called when there is room. Where the
 * other side is gone for good, everything is taken and dropped.
 */
size_t stream_writev(struct stream *s, const struct iovec *iov, unsigned n);

/* Call `readable` while there is input; at the start it is not wanted. */
void stream_want_input(struct stream *s, bool want);

bool stream_present(const struct stream *s);
/* The path of the pty or socket, else NULL. */
const char *stream_path(const struct stream *s);
/* Is the input a terminal, and how big? False when not. */
bool stream_terminal_size(const struct stream *s, unsigned *cols,
			  unsigned *rows);

#endif
