/*
 * The descriptors of streams, read and written without ever blocking.
 *
 * They may be shared with a shell or with other processes, and O_NONBLOCK
 * belongs to what is shared, so it is never set on them: a terminal or pipe is
 * opened anew through /proc/self/fd, a socket is used with MSG_DONTWAIT, and
 * where opening anew is forbidden we write in small pieces behind a poll().
 */
#include "backend/stream_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"

/* A descriptor we may not make non-blocking takes this much after POLLOUT. */
#define CAREFUL_BYTES 512u

bool fd_is(int fd, mode_t type)
{
	struct stat st;

	return !fstat(fd, &st) && (st.st_mode & S_IFMT) == type;
}

/* Our own way to the file behind @fd (not for sockets); or a duplicate. */
int end_dup(struct end *end, int fd, int access)
{
	char path[32];

	if (fcntl(fd, F_GETFL) < 0)
		return -errno;
	if (fd_is(fd, S_IFSOCK)) {
		end->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
		end->how = HOW_SOCKET;
		return end->fd < 0 ? -errno : 0;
	}
	end->regular = fd_is(fd, S_IFREG);
	end->how = HOW_PLAIN;
	if (!end->regular) { /* a file's position is to be shared */
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		end->fd =
			open(path, access | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
		if (end->fd >= 0)
			return 0;
		end->how = HOW_CAREFUL;
	}
	end->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	return end->fd < 0 ? -errno : 0;
}

void end_close(struct end *end)
{
	watch_close(&end->watch);
	if (end->fd >= 0)
		close(end->fd);
	*end = (struct end){ .fd = -1 };
}

static bool ready_for(int fd, short events)
{
	struct pollfd p = { .fd = fd, .events = events };

	return poll(&p, 1, 0) > 0;
}

ssize_t end_readv(struct end *end, const struct iovec *iov, unsigned n)
{
	struct msghdr msg = {
		.msg_iov = (struct iovec *)iov,
		.msg_iovlen = min_of(n, (unsigned)STREAM_IOV_BATCH),
	};
	ssize_t got;

	if (end->how == HOW_CAREFUL && !ready_for(end->fd, POLLIN))
		return -EAGAIN;
	do
		got = end->how == HOW_SOCKET
			      ? recvmsg(end->fd, &msg, MSG_DONTWAIT)
			      : readv(end->fd, iov, (int)msg.msg_iovlen);
	while (got < 0 && errno == EINTR);
	return got < 0 ? -errno : got;
}

/*
 * A pipe that nobody reads is an error to us, not the end of the program we are
 * part of: at the end of a VM its threads, which are not ours and block no
 * signals, write the last of the output.
 */
static ssize_t write_quietly(int fd, const struct iovec *iov, int n)
{
	const struct timespec now = { 0 };
	sigset_t pipe, pending, old;
	ssize_t put;
	int code;

	sigemptyset(&pipe);
	sigaddset(&pipe, SIGPIPE);
	pthread_sigmask(SIG_BLOCK, &pipe, &old);
	sigpending(&pending);
	put = writev(fd, iov, n);
	code = errno;
	if (put < 0 && code == EPIPE && !sigismember(&pending, SIGPIPE))
		sigtimedwait(&pipe, NULL, &now);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	errno = code;
	return put;
}

ssize_t end_writev(struct end *end, const struct iovec *iov, unsigned n)
{
	struct msghdr msg = {
		.msg_iov = (struct iovec *)iov,
		.msg_iovlen = min_of(n, (unsigned)STREAM_IOV_BATCH),
	};
	struct iovec little = {
		.iov_base = iov->iov_base,
		.iov_len = min_of(iov->iov_len, (size_t)CAREFUL_BYTES),
	};
	ssize_t put;

	if (end->how == HOW_CAREFUL && !ready_for(end->fd, POLLOUT))
		return -EAGAIN;
	do {
		if (end->how == HOW_SOCKET)
			put = sendmsg(end->fd, &msg,
				      MSG_DONTWAIT | MSG_NOSIGNAL);
		else if (end->how == HOW_CAREFUL)
			put = write_quietly(end->fd, &little, 1);
		else
			put = write_quietly(end->fd, iov, (int)msg.msg_iovlen);
	} while (put < 0 && errno == EINTR);
	return put < 0 ? -errno : put;
}
