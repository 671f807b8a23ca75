/*
 * The kernel log of a Linux guest, read out of its memory: for a guest that died
 * or hangs before it had a console.
 */
#ifndef ARC_MACHINE_KLOG_H
#define ARC_MACHINE_KLOG_H

#include <stdint.h>

struct gmem;

/* One message, with its time, without a newline; only printable bytes. */
typedef void klog_line_fn(void *ctx, const char *text);

/*
 * The last @max messages, oldest first. The number of them, 0 when there is no
 * log to be found (not Linux, too early, or without vmcoreinfo). The guest
 * should be stopped; a running one gives what it gives.
 */
unsigned klog_read(const struct gmem *m, unsigned max, klog_line_fn *fn,
		   void *ctx);

#endif
