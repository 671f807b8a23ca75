#include "cli/term.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

/* The terminal is the process's, so is its state. */
static struct {
	int fd;
	bool raw;
	struct termios before, during;
} term = { .fd = -1 };

static const int fatal[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT };

void term_restore(void)
{
	if (!term.raw)
		return;
	term.raw = false;
	tcsetattr(term.fd, TCSADRAIN, &term.before);
}

bool term_is_raw(void)
{
	return term.raw;
}

/* tcsetattr is async-signal-safe. SA_RESETHAND: raising again kills. */
static void die_restored(int sig)
{
	term_restore();
	raise(sig);
}

bool term_raw(int fd)
{
	struct sigaction sa = { .sa_handler = die_restored,
				.sa_flags = (int)SA_RESETHAND };

	if (tcgetattr(fd, &term.before))
		return false;
	term.fd = fd;
	term.during = term.before;
	cfmakeraw(&term.during);
	atexit(term_restore);
	for (unsigned i = 0; i < sizeof(fatal) / sizeof(*fatal); i++)
		sigaction(fatal[i], &sa, NULL);
	term.raw = true;
	return !tcsetattr(fd, TCSADRAIN, &term.during);
}

void term_again(void)
{
	if (term.raw)
		tcsetattr(term.fd, TCSADRAIN, &term.during);
}

bool term_size(int fd, unsigned *cols, unsigned *rows)
{
	struct winsize w;

	if (ioctl(fd, TIOCGWINSZ, &w) || !w.ws_col || !w.ws_row)
		return false;
	*cols = w.ws_col;
	*rows = w.ws_row;
	return true;
}

size_t term_filter(struct term_escape *t, const char *in, size_t len, char *out,
		   enum term_order *order)
{
	size_t n = 0;

	*order = TERM_NONE;
	for (size_t i = 0; i < len; i++) {
		if (!t->pending) {
			t->pending = in[i] == TERM_ESCAPE;
			if (!t->pending)
				out[n++] = in[i];
			continue;
		}
		t->pending = false;
		switch (in[i]) {
		case 'x':
		case 'q':
			*order = TERM_KILL;
			break;
		case 'p':
			*order = TERM_POWER;
			break;
		case '?':
		case 'h':
			*order = TERM_HELP;
			break;
		case TERM_ESCAPE:
			out[n++] = TERM_ESCAPE;
			break;
		default: /* not an order: the guest gets both keys */
			out[n++] = TERM_ESCAPE;
			out[n++] = in[i];
		}
	}
	return n;
}
