#include "report.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "util.h"

#define OPEN_WAIT_MS 2000
#define ACK_WAIT_MS  500

void report_init(struct report *r, bool wanted)
{
	*r = (struct report){ .wanted = wanted, .fd = -1 };
}

bool report_open(struct report *r)
{
	DIR *d;
	struct dirent *de;

	if (!r->wanted || r->fd >= 0)
		return r->fd >= 0;
	d = opendir("/sys/class/virtio-ports");
	while (d && r->fd < 0 && (de = readdir(d))) {
		char path[600], name[64];

		snprintf(path, sizeof(path), "/sys/class/virtio-ports/%s/name",
			 de->d_name);
		if (read_text(path, name, sizeof(name)) <= 0 ||
		    strcmp(chomp(name), REPORT_PORT))
			continue;
		snprintf(path, sizeof(path), "/dev/%s", de->d_name);
		r->fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	}
	if (d)
		closedir(d);
	if (r->fd < 0)
		return false;
	write_all(r->fd, r->held, r->held_len);
	r->held_len = 0;
	return true;
}

static void put(struct report *r, const char *line, size_t len)
{
	if (report_open(r)) {
		write_all(r->fd, line, len);
	} else if (len <= sizeof(r->held) - r->held_len) {
		memcpy(r->held + r->held_len, line, len);
		r->held_len += (unsigned)len;
	}
}

void report(struct report *r, const char *event, uint64_t ns, const char *fmt,
	    ...)
{
	char line[512];
	va_list ap;
	int n;

	if (!r->wanted)
		return;
	n = snprintf(line, sizeof(line), "%s %llu ", event,
		     (unsigned long long)ns);
	va_start(ap, fmt);
	n += vsnprintf(line + n, sizeof(line) - (size_t)n, fmt, ap);
	va_end(ap);
	if (n > (int)sizeof(line) - 1)
		n = sizeof(line) - 1;
	for (int i = 0; i < n; i++) /* one line, whatever the text */
		if (line[i] == '\n' || line[i] == '\r')
			line[i] = ' ';
	if (line[n - 1] == ' ')
		n--;
	line[n++] = '\n';
	put(r, line, (size_t)n);
}

static bool wait_input(struct report *r, int ms)
{
	struct pollfd p = { .fd = r->fd, .events = POLLIN };

	return poll(&p, 1, ms) > 0 && (p.revents & POLLIN);
}

void report_last(struct report *r, const char *event)
{
	uint64_t end = boot_ns() + OPEN_WAIT_MS * 1000000ull;
	char buf[64];

	if (!r->wanted)
		return;
	/* A command may end before the console's ports are announced. */
	while (!report_open(r) && boot_ns() < end)
		usleep(1000);
	report(r, event, boot_ns(), "%s", "");
	if (r->fd < 0)
		return;
	end = boot_ns() + ACK_WAIT_MS * 1000000ull;
	while (boot_ns() < end && wait_input(r, ACK_WAIT_MS)) {
		ssize_t n = read(r->fd, buf, sizeof(buf));

		if (n <= 0 || memmem(buf, (size_t)n, "ack", 3))
			break;
	}
}

bool report_stop_asked(struct report *r)
{
	char buf[64];
	ssize_t n;

	if (r->fd < 0 || !wait_input(r, 0))
		return false;
	n = read(r->fd, buf, sizeof(buf));
	return n > 0 && memmem(buf, (size_t)n, "stop", 4);
}
