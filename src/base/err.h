/*
 * Errors that reach a person.
 *
 * Functions return 0 or -errno. Those on a configuration path also take a
 * `struct err *` and leave a sentence in it: what was wrong, where, and what to
 * do. The CLI and the API show that same sentence. A NULL `struct err *` is
 * allowed everywhere and drops the text.
 */
#ifndef ARC_BASE_ERR_H
#define ARC_BASE_ERR_H

struct err {
	int code; /* -errno, 0 while nothing went wrong */
	char text[480]; /* one sentence, no newline, "" when code is 0 */
};

/* Set @e (when not NULL) and return @code, which is -errno. */
int err_set(struct err *e, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4), cold));

/*
 * Put "context: " before the text @e already has, for a caller who knows which
 * file or option it was about. Returns e->code, or @code when @e is NULL.
 */
int err_prefix(struct err *e, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4), cold));

#endif
