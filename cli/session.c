#include "cli/session.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/term.h"

static void *session_main(void *arg)
{
	struct session *s = arg;
	uint64_t one = 1;
	int fd = s->connect(s->ctx, &s->error);

	if (fd < 0) {
		s->rc = fd;
		s->exit.code = EXIT_USAGE;
	} else {
		s->connected_ns = now_ns();
		s->rc = arcvmm_exec_run(fd, &s->exec, s->in, STDOUT_FILENO,
					STDERR_FILENO, s->control[0], &s->exit,
					&s->error);
	}
	if (write(s->done, &one, sizeof(one)) < 0)
		complain("eventfd: %s", strerror(errno));
	return NULL;
}

int session_start(struct session *s)
{
	unsigned cols, rows;
	int rc;

	s->control[0] = s->control[1] = -1;
	s->done = eventfd(0, EFD_CLOEXEC);
	if (s->done < 0 || pipe2(s->control, O_CLOEXEC | O_NONBLOCK))
		return complain("pipe: %s", strerror(errno));
	if (s->exec.tty && term_size(STDIN_FILENO, &cols, &rows)) {
		s->exec.cols = (uint16_t)cols;
		s->exec.rows = (uint16_t)rows;
	}
	rc = pthread_create(&s->thread, NULL, session_main, s);
	if (rc)
		return complain("thread: %s", strerror(rc));
	s->started = true;
	return 0;
}

int session_fd(const struct session *s)
{
	return s->done;
}

static void order(struct session *s, enum arcvmm_exec_order kind, unsigned a,
		  unsigned b)
{
	struct arcvmm_exec_control c = { .kind = (uint8_t)kind,
					 .a = (uint16_t)a,
					 .b = (uint16_t)b };

	/* Smaller than PIPE_BUF: whole or, when the pipe is full, not at all. */
	if (write(s->control[1], &c, sizeof(c)) < 0 && errno != EAGAIN)
		complain("order to the command: %s", strerror(errno));
}

void session_signal(struct session *s, int number)
{
	order(s, ARCVMM_EXEC_SIGNAL, (unsigned)number, 0);
}

void session_resize(struct session *s)
{
	unsigned cols, rows;

	if (s->exec.tty && term_size(STDIN_FILENO, &cols, &rows))
		order(s, ARCVMM_EXEC_RESIZE, rows, cols);
}

void session_join(struct session *s, bool hangup)
{
	if (s->started && hangup)
		order(s, ARCVMM_EXEC_HANGUP, 0, 0);
	if (s->started)
		pthread_join(s->thread, NULL);
	s->started = false;
	close(s->done);
	close(s->control[0]);
	close(s->control[1]);
}
