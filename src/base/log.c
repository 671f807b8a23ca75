#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/clock.h"

static void log_va(const struct log *log, enum log_level level, const char *fmt,
		   va_list ap)
{
	char text[1024];

	vsnprintf(text, sizeof(text), fmt, ap);
	log->sink(log->ctx, level, text);
}

static int log_wants(const struct log *log, enum log_level level)
{
	return log && log->sink && level <= log->level;
}

void log_at(const struct log *log, enum log_level level, const char *fmt, ...)
{
	va_list ap;

	if (!log_wants(log, level))
		return;
	va_start(ap, fmt);
	log_va(log, level, fmt, ap);
	va_end(ap);
}

void log_limited(const struct log *log, struct log_limit *limit,
		 enum log_level level, const char *fmt, ...)
{
	uint64_t now;
	va_list ap;

	if (!log_wants(log, level))
		return;
	now = clock_ns();
	if (!limit->window_ns || now - limit->window_ns >= LOG_LIMIT_NS) {
		if (limit->dropped)
			log_at(log, level, "(%u similar lines left out)",
			       limit->dropped);
		*limit = (struct log_limit){ .window_ns = now };
	}
	if (limit->said >= LOG_LIMIT_BURST) {
		limit->dropped++;
		return;
	}
	limit->said++;
	va_start(ap, fmt);
	log_va(log, level, fmt, ap);
	va_end(ap);
}
