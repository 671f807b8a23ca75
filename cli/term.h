/*
 * The caller's terminal in raw mode while a guest owns it, and back again on
 * every way out: return, exit, fatal signal.
 */
#ifndef CLI_TERM_H
#define CLI_TERM_H

#include <stdbool.h>
#include <stddef.h>

/* Put @fd into raw mode when it is a terminal; false when it is not. */
bool term_raw(int fd);
/* Raw again after the process was stopped and continued. */
void term_again(void);
void term_restore(void); /* harmless when not raw */
bool term_is_raw(void);

/* Size of the terminal @fd; false when it has none. */
bool term_size(int fd, unsigned *cols, unsigned *rows);

/*
 * The escape key, Ctrl-], takes the next key as an order to arcvmm. Feed what
 * was typed through term_filter(): it copies what is for the guest to @out
 * (room for 2 * @len bytes) and returns how much; *order gets the last order.
 */
enum term_order { TERM_NONE, TERM_KILL, TERM_POWER, TERM_HELP };
#define TERM_ESCAPE 0x1d

struct term_escape {
	bool pending; /* the escape key was the last */
};
size_t term_filter(struct term_escape *t, const char *in, size_t len, char *out,
		   enum term_order *order);

#endif
