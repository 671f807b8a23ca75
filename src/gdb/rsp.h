/*
 * The framing of GDB's remote serial protocol ("Debugging with GDB", appendix
 * E): $packet#checksum, acknowledgements, escapes, the interrupt byte. Bytes in,
 * packets out; knows no socket and no command.
 */
#ifndef ARC_GDB_RSP_H
#define ARC_GDB_RSP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RSP_PACKET_MAX 16384 /* of either side, unescaped */

struct rsp {
	/* A whole packet, unescaped, with a 0 after its @len bytes. */
	void (*packet)(struct rsp *r, char *data, size_t len);
	void (*interrupt)(struct rsp *r); /* Ctrl-C */

	bool no_ack;
	enum { RSP_IDLE, RSP_DATA, RSP_SUM1, RSP_SUM2 } state;
	bool escaped, overlong;
	uint8_t sum, given;
	size_t in_len;
	char in[RSP_PACKET_MAX + 1];
	/* What is to be sent: [out_at, out_len) of out. */
	size_t out_at, out_len;
	bool overflow; /* the peer does not read: drop it */
	char out[4 * RSP_PACKET_MAX];
};

void rsp_init(struct rsp *r, void (*packet)(struct rsp *, char *, size_t),
	      void (*interrupt)(struct rsp *));

/* Bytes from the peer. Calls back for each packet that is whole. */
void rsp_feed(struct rsp *r, const void *data, size_t len);

/* Queue a packet. */
void rsp_reply(struct rsp *r, const void *data, size_t len);
void rsp_text(struct rsp *r, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* -1: not a hexadecimal digit. */
int rsp_nibble(char c);
/*
 * A number at *@p, which moves past its digits; false without one, or past 64
 * bits.
 */
bool rsp_number(const char **p, uint64_t *out);
/* 2 x @len digits and no 0 at the end. */
void rsp_hex(char *to, const void *data, size_t len);
/* @len bytes from 2 x @len digits; false when there are not that many. */
bool rsp_unhex(void *to, const char *from, size_t len);

#endif
