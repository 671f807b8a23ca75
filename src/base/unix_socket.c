#include "base/unix_socket.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/err.h"

static int new_socket(void)
{
	return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

/*
 * Is @sa a socket left behind by a process that is gone? connect() alone does
 * not tell: it is refused by a plain file as well.
 */
static bool is_stale(const struct sockaddr_un *sa)
{
	struct stat st;
	bool refused;
	int fd;

	if (lstat(sa->sun_path, &st) < 0 || !S_ISSOCK(st.st_mode))
		return false;
	fd = new_socket();
	if (fd < 0)
		return false;
	refused = connect(fd, (const void *)sa, sizeof(*sa)) < 0 &&
		  errno == ECONNREFUSED;
	close(fd);
	return refused;
}

static int bind_path(int fd, const struct sockaddr_un *sa)
{
	fchmod(fd, 0600); /* what the new file gets */
	if (!bind(fd, (const void *)sa, sizeof(*sa)))
		return 0;
	if (errno != EADDRINUSE || !is_stale(sa))
		return -errno;
	unlink(sa->sun_path);
	return bind(fd, (const void *)sa, sizeof(*sa)) < 0 ? -errno : 0;
}

static int explain(const char *path, int code, struct err *e)
{
	struct stat st;

	if (code == -EADDRINUSE && !lstat(path, &st) && !S_ISSOCK(st.st_mode))
		return err_set(e, -EEXIST, "%s: exists and is not a socket",
			       path);
	if (code == -EADDRINUSE)
		return err_set(e, code, "%s: somebody listens there already",
			       path);
	return err_set(e, code, "%s: %s", path, strerror(-code));
}

int unix_listen(const char *path, int backlog, struct err *e)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd, rc;

	if (!*path || strlen(path) >= sizeof(sa.sun_path))
		return err_set(e, -ENAMETOOLONG,
			       "%s: the path of a socket has 1 to %zu "
			       "characters",
			       path, sizeof(sa.sun_path) - 1);
	strcpy(sa.sun_path, path);
	fd = new_socket();
	rc = fd < 0 ? -errno : bind_path(fd, &sa);
	if (!rc && listen(fd, backlog) < 0) {
		rc = -errno;
		unlink(path);
	}
	if (!rc)
		return fd;
	if (fd >= 0)
		close(fd);
	return explain(path, rc, e);
}
