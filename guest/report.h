/*
 * The line to the host before there is anything else: a named port of the
 * virtio console. Lines go out ("exit NS 0"), orders come in ("stop"); see
 * docs/agent.md. Until the port is there, lines are kept.
 */
#ifndef ARC_GUEST_REPORT_H
#define ARC_GUEST_REPORT_H

#include <stdbool.h>
#include <stdint.h>

#define REPORT_PORT "org.arcvmm.init"

struct report {
	bool wanted; /* the host listens */
	int fd; /* of the port, or -1 */
	char held[2048]; /* lines from before the port */
	unsigned held_len;
};

void report_init(struct report *r, bool wanted);
/* Try to find the port; true when it is open. */
bool report_open(struct report *r);
/* One line: @event, the time @ns, and text. */
void report(struct report *r, const char *event, uint64_t ns, const char *fmt,
	    ...) __attribute__((format(printf, 4, 5)));
/* Say the line that nothing follows, and wait shortly for the host's "ack". */
void report_last(struct report *r, const char *event);
/* What the host said: reads what there is, true when it was "stop". */
bool report_stop_asked(struct report *r);

#endif
