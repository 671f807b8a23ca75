#include "cli/control.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "cli/cli.h"

static int address(struct sockaddr_un *sa, const struct instance *i)
{
	*sa = (struct sockaddr_un){ .sun_family = AF_UNIX };
	return snprintf(sa->sun_path, sizeof(sa->sun_path), "%s/ctl", i->dir) <
			       (int)sizeof(sa->sun_path)
		       ? 0
		       : -1;
}

int control_open(struct control *c, const struct instance *i,
		 char *(*order)(void *ctx, const char *word), void *ctx)
{
	struct sockaddr_un sa;

	*c = (struct control){ .order = order, .ctx = ctx };
	for (unsigned k = 0; k < CONTROL_CLIENTS; k++)
		c->clients[k].fd = -1;
	c->listener =
		socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (c->listener < 0 || address(&sa, i) ||
	    bind(c->listener, (struct sockaddr *)&sa, sizeof(sa)) ||
	    listen(c->listener, CONTROL_CLIENTS))
		return complain("control socket in %s: %s", i->dir,
				strerror(errno));
	return 0;
}

void control_close(struct control *c)
{
	for (unsigned k = 0; k < CONTROL_CLIENTS; k++)
		if (c->clients[k].fd >= 0)
			close(c->clients[k].fd);
	if (c->listener >= 0)
		close(c->listener);
	c->listener = -1;
}

unsigned control_poll(struct control *c, struct pollfd *p)
{
	bool room = false;

	for (unsigned k = 0; k < CONTROL_CLIENTS; k++) {
		p[1 + k] = (struct pollfd){ .fd = c->clients[k].fd,
					    .events = POLLIN };
		room |= c->clients[k].fd < 0;
	}
	p[0] = (struct pollfd){ .fd = room ? c->listener : -1,
				.events = POLLIN };
	return 1 + CONTROL_CLIENTS;
}

static void hang_up(struct control *c, unsigned k)
{
	close(c->clients[k].fd);
	c->clients[k].fd = -1;
	c->clients[k].later = false;
	c->clients[k].len = 0;
}

static void answer(struct control *c, unsigned k)
{
	char *text = c->order(c->ctx, c->clients[k].word);
	const char *out = text ? text : "ok";

	c->clients[k].later = text == CONTROL_LATER;
	if (c->clients[k].later)
		return;
	/* A client that takes no answer waits in vain, not we: the socket's
	 * buffer holds it, or the rest is dropped. */
	if (send(c->clients[k].fd, out, strlen(out),
		 MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		complain("control socket: %s", strerror(errno));
	free(text);
	hang_up(c, k);
}

void control_retry(struct control *c)
{
	for (unsigned k = 0; k < CONTROL_CLIENTS; k++)
		if (c->clients[k].fd >= 0 && c->clients[k].later)
			answer(c, k);
}

static void take(struct control *c, unsigned k)
{
	size_t room = sizeof(c->clients[k].word) - 1 - c->clients[k].len;
	char *at = c->clients[k].word + c->clients[k].len;
	ssize_t n = read(c->clients[k].fd, at, room);
	char *end;

	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0 || c->clients[k].later) { /* gone, or talks out of turn */
		hang_up(c, k);
		return;
	}
	c->clients[k].len += (size_t)n;
	at[n] = 0;
	end = strchr(c->clients[k].word, '\n');
	if (end) {
		*end = 0;
		answer(c, k);
	} else if ((size_t)n == room) {
		hang_up(c, k);
	}
}

void control_run(struct control *c, const struct pollfd *p, unsigned n)
{
	for (unsigned k = 0; k + 1 < n; k++)
		if (p[1 + k].fd >= 0 && p[1 + k].revents)
			take(c, k);
	if (p[0].fd < 0 || !p[0].revents)
		return;
	for (unsigned k = 0; k < CONTROL_CLIENTS; k++) {
		if (c->clients[k].fd >= 0)
			continue;
		c->clients[k].fd = accept4(c->listener, NULL, NULL,
					   SOCK_CLOEXEC | SOCK_NONBLOCK);
		break;
	}
}

char *control_ask(const struct instance *i, const char *word, int wait_ms,
		  struct arcvmm_error *e)
{
	struct timeval wait = { .tv_sec = wait_ms / 1000,
				.tv_usec = wait_ms % 1000 * 1000 };
	struct sockaddr_un sa;
	char line[40];
	char *text = NULL;
	size_t len = 0;
	ssize_t n = -1;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(line, sizeof(line), "%s\n", word);
	if (fd < 0 || address(&sa, i) ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)) ||
	    connect(fd, (struct sockaddr *)&sa, sizeof(sa)) ||
	    send(fd, line, strlen(line), MSG_NOSIGNAL) < 0)
		goto fail;
	do {
		char *more = realloc(text, len + 4097);

		if (!more)
			goto fail;
		text = more;
		n = read(fd, text + len, 4096);
		if (n > 0)
			len += (size_t)n;
	} while (n > 0);
	if (n < 0)
		goto fail;
	text[len] = 0;
	close(fd);
	if (!strncmp(text, "error: ", 7)) {
		e->code = -ENODEV;
		snprintf(e->text, sizeof(e->text), "%s", text + 7);
		free(text);
		return NULL;
	}
	return text;
fail:
	e->code = errno == EAGAIN ? -ETIMEDOUT : -errno;
	snprintf(e->text, sizeof(e->text), "the VM does not answer: %s",
		 strerror(-e->code));
	free(text);
	if (fd >= 0)
		close(fd);
	return NULL;
}
