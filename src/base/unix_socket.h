/* Sockets that listen at a path. */
#ifndef ARC_BASE_UNIX_SOCKET_H
#define ARC_BASE_UNIX_SOCKET_H

struct err;

/*
 * A non-blocking stream socket that listens at @path, for its owner alone (mode
 * 0600). A socket that nobody serves any more is replaced; whatever else is at
 * @path is left alone. The descriptor, or -errno with a sentence that begins
 * with the path. Whoever closes it unlinks the path.
 */
int unix_listen(const char *path, int backlog, struct err *e);

#endif
