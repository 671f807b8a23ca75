#include "agent_frames.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/copy.h"
#include "agent/frame.h"
#include "base/bug.h"
#include "base/bytes.h"
#include "base/util.h"

#define STREAM_MAX (150u << 10) /* what a socket holds */

/* A tree entry: u8 kind, u8 mode bits, u8 length of the name, name, target. */
static int put_entry(struct frame_out *o, const uint8_t *p, size_t len)
{
	uint8_t h[COPY_ENTRY_HEAD] = { 0 };
	static const char kinds[] = "fdlhpcb?";
	size_t name;

	if (len < 3)
		return frame_put(o, AGENT_TREE_ENTRY, p, len, NULL, 0);
	h[0] = (uint8_t)kinds[p[0] % 8];
	put_le32(h + 4, p[1] * 16u);
	put_le32(h + 8, p[1]);
	put_le64(h + 16, 1000000000);
	name = min_of((size_t)p[2], len - 3);
	put_le16(h + 52, (uint16_t)name);
	return frame_put(o, AGENT_TREE_ENTRY, h, sizeof(h), p + 3, len - 3);
}

uint8_t *agent_frames(const uint8_t *data, size_t len, size_t *out_len)
{
	struct frame_out o = { 0 };

	while (len >= 2 && o.len < STREAM_MAX / 2) {
		uint8_t type = data[0];
		size_t n = data[1];

		data += 2;
		len -= 2;
		if (n > 240) /* long ones, of zeros */
			n = (n - 240) * 4096;
		if (type == 255) { /* raw */
			n = min_of(n, len);
			frame_put(&o, 0, NULL, 0, data, n);
			memmove(o.buf + o.len - n - AGENT_FRAME_HEAD,
				o.buf + o.len - n, n);
			o.len -= AGENT_FRAME_HEAD;
		} else if (n > 255) {
			uint8_t *zero = calloc(1, n);

			frame_put(&o, type, NULL, 0, zero, n);
			free(zero);
			n = 0;
		} else if (type == AGENT_HELLO) {
			frame_put_hello(&o, "fuzz");
			n = 0;
		} else {
			n = min_of(n, len);
			if (type == AGENT_TREE_ENTRY)
				put_entry(&o, data, n);
			else
				frame_put(&o, type, NULL, 0, data, n);
		}
		data += n;
		len -= n;
	}
	*out_len = min_of(o.len, (size_t)STREAM_MAX);
	return o.buf;
}

void agent_line(const uint8_t *stream, size_t len, int sv[2])
{
	int size = 1 << 20;

	bug_on(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv));
	setsockopt(sv[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	setsockopt(sv[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	while (len) {
		ssize_t n =
			send(sv[1], stream, len, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n <= 0)
			break;
		stream += n;
		len -= (size_t)n;
	}
	shutdown(sv[1], SHUT_WR);
}

/* ---- directories ---- */

static char top[] = "/tmp/fuzz-agent.XXXXXX";
static char target[64], outside[64], source[64];

static int remove_one(const char *path, const struct stat *st, int flag,
		      struct FTW *ftw)
{
	(void)st;
	(void)flag;
	(void)ftw;
	remove(path);
	return 0;
}

static void remove_tree(const char *path)
{
	chmod(path, 0700);
	nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void remove_top(void)
{
	remove_tree(top);
}

static void make_target(void)
{
	char path[80];

	bug_on(mkdir(target, 0700));
	snprintf(path, sizeof(path), "%s/out", target);
	bug_on(symlink("../outside", path));
}

static void make_dirs(void)
{
	static bool made;
	char cmd[256];

	if (made)
		return;
	made = true;
	bug_on(!mkdtemp(top));
	atexit(remove_top);
	snprintf(target, sizeof(target), "%s/target", top);
	snprintf(outside, sizeof(outside), "%s/outside", top);
	snprintf(source, sizeof(source), "%s/source", top);
	bug_on(mkdir(outside, 0700));
	make_target();
	snprintf(cmd, sizeof(cmd),
		 "mkdir -p %s/d/e && cd %s && echo x >f && ln -s f l && "
		 "ln f d/h && mkfifo p && truncate -s 1M s",
		 source, source);
	bug_on(system(cmd));
}

const char *agent_source_tree(void)
{
	make_dirs();
	return source;
}

const char *agent_target_dir(void)
{
	make_dirs();
	return target;
}

/* Is there more in the target than was put there? */
static bool touched(void)
{
	DIR *d = opendir(target);
	unsigned n = 0;

	if (!d)
		return true;
	while (readdir(d))
		n++;
	closedir(d);
	return n != 3; /* ".", "..", "out" */
}

void agent_target_check(void)
{
	/* Only an empty directory goes that way. */
	bug_on(rmdir(outside));
	bug_on(mkdir(outside, 0700));
	if (!touched())
		return;
	remove_tree(target);
	make_target();
}
