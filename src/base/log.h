/*
 * Logging to the sink the caller of the library gave; there is no global log.
 *
 * A `struct log` is owned by the VM (or test) and handed down. Every function
 * accepts NULL and is then silent. Safe from any thread: a line is formatted
 * on the caller's stack and passed to the sink in one call.
 */
#ifndef ARC_BASE_LOG_H
#define ARC_BASE_LOG_H

#include <stdint.h>

enum log_level {
	LOG_ERROR, /* the run cannot go on */
	LOG_WARN, /* something is wrong, the run goes on */
	LOG_INFO, /* once per run: choices made, with their reason */
	LOG_DEBUG, /* for whoever looks for a fault */
};

/* @text has no newline. May be called from several threads at once. */
typedef void log_sink_fn(void *ctx, enum log_level level, const char *text);

struct log {
	log_sink_fn *sink;
	void *ctx;
	enum log_level level; /* lines above this are not formatted */
};

void log_at(const struct log *log, enum log_level level, const char *fmt, ...)
	__attribute__((format(printf, 3, 4), cold));

#define log_error(log, ...) log_at((log), LOG_ERROR, __VA_ARGS__)
#define log_warn(log, ...)  log_at((log), LOG_WARN, __VA_ARGS__)
#define log_info(log, ...)  log_at((log), LOG_INFO, __VA_ARGS__)
#define log_debug(log, ...) log_at((log), LOG_DEBUG, __VA_ARGS__)

/*
 * What a guest can provoke is said at most LOG_LIMIT_BURST times per
 * LOG_LIMIT_NS by one `struct log_limit` (zero-initialised, one per object);
 * the next line that passes tells how many were left out.
 */
#define LOG_LIMIT_BURST 8
#define LOG_LIMIT_NS	5000000000ull

struct log_limit {
	uint64_t window_ns; /* start of the current window */
	unsigned said, dropped;
};

void log_limited(const struct log *log, struct log_limit *limit,
		 enum log_level level, const char *fmt, ...)
	__attribute__((format(printf, 4, 5), cold));

#endif
