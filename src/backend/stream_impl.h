/* Inside of streams: what stream.c shares with their openers. */
#ifndef ARC_BACKEND_STREAM_IMPL_H
#define ARC_BACKEND_STREAM_IMPL_H

#include <sys/stat.h>

#include "backend/stream.h"
#include "loop/loop.h"

#define STREAM_IOV_BATCH 64 /* pieces per system call */

/* How a descriptor is read or written without ever blocking. */
enum how {
	HOW_NONE, /* no descriptor */
	HOW_PLAIN, /* non-blocking, or a regular file */
	HOW_SOCKET, /* MSG_DONTWAIT */
	HOW_CAREFUL, /* blocking: poll, then little at a time */
};

struct end {
	int fd; /* ours to close; -1: none */
	enum how how;
	bool regular; /* always ready, not for epoll */
	struct loop_watch watch;
	uint32_t armed; /* its events */
};

struct stream {
	struct loop *loop;
	const struct log *log;
	const struct stream_events *events; /* NULL before stream_start() */
	void *ctx;
	struct end in, out;
	bool want_input;
	bool want_output; /* a write was short */
	bool present;

	struct loop_defer again; /* input from a regular file, or the host's */

	struct stream_host host;
	bool is_host;
	struct loop_post ready;
	bool closed;

	/* unix: the listener; pty: inotify. */
	int aux_fd;
	struct loop_watch aux;
	struct loop_timer retry; /* no client could be taken: later */
	char *path;
	bool unlink_path;
	int terminal_fd; /* pty: its other side, kept open; else -1 */
	unsigned opens; /* pty: by others */

	/* Made when first needed, freed when empty. */
	uint8_t *ring;
	size_t ring_start, ring_len;
};

/* Descriptors (stream_end.c). */
bool fd_is(int fd, mode_t type);
int end_dup(struct end *end, int fd, int access);
void end_close(struct end *end);
/* Bytes, 0 at the end of input, -errno (-EAGAIN: not now). */
ssize_t end_readv(struct end *end, const struct iovec *iov, unsigned n);
ssize_t end_writev(struct end *end, const struct iovec *iov, unsigned n);

/* Life (stream.c): all of it empty, or NULL. */
struct stream *stream_new(struct loop *l, const struct log *log);
void stream_free(struct stream *s);

#endif
