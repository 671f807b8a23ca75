/*
 * A guest that does anything to the vsock core: packets of any content from a
 * few tuples that matter, chains of any shape on all three queues, indices that
 * jump, while host processes connect, write, read and leave, a client of the
 * hybrid socket says what the input says, and time passes. The input is a
 * program of byte codes.
 *
 * What must hold: the core's invariants after every step (vsock_check(), its
 * bug_on()s, the sanitizers), and that after a reset of the device a connection
 * works.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/bug.h"
#include "base/util.h"
#include "vsock/vguest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FDS	8
#define SCRATCH 0xc00000u /* packets and buffers; guest memory is 16 MiB */

struct input {
	const uint8_t *p, *end;
};

struct fuzz {
	struct vguest g;
	struct vsock_connect req[FDS];
	int fd[FDS]; /* -1: free, -2: connecting */
	int client;
	uint32_t host_port[FDS]; /* as the last packets told */
	uint16_t head[3];
	char uds[64];
	uint32_t first;
};

static struct fuzz f;

static uint8_t u8(struct input *in)
{
	return in->p < in->end ? *in->p++ : 0;
}

static uint16_t u16(struct input *in)
{
	return (uint16_t)(u8(in) | u8(in) << 8);
}

static uint32_t u32(struct input *in)
{
	return u16(in) | (uint32_t)u16(in) << 16;
}

static void settle(void)
{
	const char *why;

	/* Bounded: a guest that is wrong does not keep us busy for ever. */
	for (int i = 0; loop_turn(f.g.loop, 0) > 0; i++)
		bug_on(i > 10000);
	why = vsock_check(f.g.v);
	if (why) {
		fprintf(stderr, "%s\n", why);
		abort();
	}
}

static void connected(struct vsock_connect *r, int fd)
{
	f.fd[r - f.req] = fd < 0 ? -1 : fd;
}

static void kick(unsigned q)
{
	loop_lock(f.g.loop);
	vsock_notify(f.g.v, q);
	loop_unlock(f.g.loop);
}

/* Offer descriptor @head on queue @q. */
static void offer(unsigned q, uint16_t head)
{
	struct ring *r = &f.g.ring[q];

	r->avail[2 + (r->avail[1] & (r->size - 1))] = head;
	__atomic_store_n(&r->avail[1], (uint16_t)(r->avail[1] + 1),
			 __ATOMIC_RELEASE);
}

static void describe(unsigned q, uint16_t i, uint64_t addr, uint32_t len,
		     uint16_t flags, uint16_t next)
{
	struct ring *r = &f.g.ring[q];

	r->desc[i & (r->size - 1)] =
		(struct ring_desc){ addr, len, flags, next };
}

/* A packet that could be one of a connection's, but for what the input bends. */
static void packet(struct input *in)
{
	uint8_t how = u8(in), which = u8(in) % FDS;
	uint16_t i = f.head[1]++ & 0x3f;
	uint64_t at = SCRATCH + i * 0x4000u;
	struct pkt_hdr h = vg_hdr(100u + which, f.host_port[which], u8(in));
	uint32_t len = u16(in) & 0x3fff;
	uint8_t raw[PKT_HDR_LEN];

	h.type = how & 1 ? VSOCK_SEQPACKET : VSOCK_STREAM;
	h.len = len;
	h.flags = u8(in) & 3;
	h.fwd_cnt = f.first + u16(in);
	if (how & 2)
		h.buf_alloc = u32(in);
	if (how & 4)
		h.dst_port = u8(in) & 3;
	if (how & 8)
		h.len = u32(in);
	if (how & 16)
		h.src_cid = u8(in);
	if (how & 32)
		h.type = u16(in);
	if (how & 64)
		h.dst_cid = u8(in);
	pkt_put(raw, &h);
	gmem_write(f.g.mem, gpa(at), raw, sizeof(raw));
	describe(1, 2 * i, at, PKT_HDR_LEN, 1, (uint16_t)(2 * i + 1));
	describe(1, (uint16_t)(2 * i + 1), at + PKT_HDR_LEN, len, 0, 0);
	offer(1, 2 * i);
	kick(1);
}

static void host(struct input *in)
{
	static char buf[70000];
	uint8_t what = u8(in), i = what % FDS;

	switch (what >> 4) {
	case 0:
	case 1:
	case 2:
		if (f.fd[i] != -1)
			break;
		f.fd[i] = -2;
		f.req[i] = (struct vsock_connect){
			.port = 100u + i,
			.type = what & 16 ? VSOCK_SEQPACKET : VSOCK_STREAM,
			.timeout_ns = 5000000000ull,
			.done = connected,
		};
		vsock_connect_start(f.g.v, &f.req[i]);
		break;
	case 3:
		if (f.fd[i] >= 0)
			close(f.fd[i]);
		if (f.fd[i] >= 0)
			f.fd[i] = -1;
		break;
	case 4:
		if (f.fd[i] >= 0)
			shutdown(f.fd[i], u8(in) % 3);
		break;
	case 5:
	case 6:
	case 7:
		if (f.fd[i] >= 0)
			recv(f.fd[i], buf, sizeof(buf), MSG_DONTWAIT);
		break;
	default:
		if (f.fd[i] >= 0)
			send(f.fd[i], buf, u16(in),
			     MSG_DONTWAIT | MSG_NOSIGNAL);
	}
}

static void client(struct input *in)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	char text[16];
	size_t n = u8(in) & 15;

	if (f.client < 0) {
		f.client = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
		snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", f.uds);
		if (connect(f.client, (void *)&sun, sizeof(sun)) < 0) {
			close(f.client);
			f.client = -1;
			return;
		}
	}
	if (!n) {
		close(f.client);
		f.client = -1;
		return;
	}
	if (n == 15) {
		n = (size_t)snprintf(text, sizeof(text), "CONNECT %u\n", 101);
	} else {
		for (size_t i = 0; i < n; i++)
			text[i] = (char)u8(in);
	}
	send(f.client, text, n, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* What the device wrote last tells the guest the host's ports. */
static void learn(void)
{
	struct ring *r = &f.g.ring[0];
	uint8_t raw[PKT_HDR_LEN];
	struct pkt_hdr h;

	for (unsigned i = 0; i < r->size; i++) {
		if (gmem_read(f.g.mem, gpa(r->desc[i].addr), raw, sizeof(raw)))
			continue;
		pkt_get(&h, raw);
		if (h.src_cid == VSOCK_CID_HOST && h.dst_port >= 100 &&
		    h.dst_port < 100 + FDS)
			f.host_port[h.dst_port - 100] = h.src_port;
	}
}

static void restart(void)
{
	f.g.failed = NULL;
	vg_stop(&f.g);
	vg_start(&f.g);
	memset(f.head, 0, sizeof(f.head));
}

static void step(struct input *in)
{
	uint8_t op = u8(in), q = op % 3;
	struct ring *r = &f.g.ring[q];
	uint16_t i;

	switch (op >> 4) {
	case 0:
	case 1:
	case 2:
	case 3:
		packet(in);
		break;
	case 4:
	case 5:
	case 6:
		host(in);
		break;
	case 7:
		client(in);
		break;
	case 8: /* rx buffers, of a size */
		for (i = 0; i < (op & 15); i++) {
			uint16_t d = f.head[0]++ & (f.g.ring[0].size - 1);

			describe(0, d, SCRATCH + 0x200000u + d * 0x1000u,
				 op & 1 ? 3776 : 64, 2, 0);
			offer(0, d);
		}
		kick(0);
		break;
	case 9: /* any descriptor */
		i = u8(in);
		describe(q, i, SCRATCH + u32(in), u32(in) & 0x1ffff, u8(in) & 7,
			 u8(in));
		break;
	case 10: /* any chain */
		offer(q, u8(in));
		kick(q);
		break;
	case 11:
		if (u8(in) == 0)
			r->avail[1] = u16(in);
		kick(q);
		break;
	case 12:
		vg_advance(&f.g, (uint64_t)u8(in) << 26);
		break;
	case 13:
		if (u8(in) < 16)
			restart();
		break;
	case 14:
		if (u8(in) < 32) {
			vg_stop(&f.g);
			vsock_restored(f.g.v);
			vg_start(&f.g);
			memset(f.head, 0, sizeof(f.head));
		}
		break;
	default:
		loop_turn(f.g.loop, 0);
	}
	if (f.g.failed)
		restart();
	learn();
}

/* Whatever happened: a reset, and a connection works. */
static void witness(void)
{
	static struct vg_pkt p;
	struct pkt_hdr h;
	int i = 0;

	if (f.fd[0] >= 0)
		close(f.fd[0]);
	f.fd[0] = -1;
	vg_advance(&f.g, 100000000000ull);
	restart();
	f.fd[0] = -2;
	f.req[0] = (struct vsock_connect){ .port = 777,
					   .type = VSOCK_STREAM,
					   .timeout_ns = 5000000000ull,
					   .done = connected };
	vsock_connect_start(f.g.v, &f.req[0]);
	settle();
	do
		bug_on(!vg_recv(&f.g, &p) || ++i > 500);
	while (p.h.dst_port != 777);
	bug_on(p.h.op != OP_REQUEST);
	h = vg_reply(&p.h, OP_RESPONSE);
	h.fwd_cnt = f.first;
	vg_send(&f.g, &h, NULL, 0);
	bug_on(f.fd[0] < 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, data + size };
	struct vg_opts o = { 0 };

	memset(&f, 0, sizeof(f));
	for (int i = 0; i < FDS; i++)
		f.fd[i] = -1;
	f.client = -1;
	snprintf(f.uds, sizeof(f.uds), "/tmp/fuzz-vsock-%d", getpid());
	o.config.uds_path = f.uds;
	o.config.first_count = f.first = u8(&in) & 1 ? 0xfffff000u : 0;
	o.config.max_connections = 24;
	o.no_event_idx = u8(&in) & 1;
	o.config.hairpin = u8(&in) & 1;
	vg_open(&f.g, &o);
	for (int i = 0; i < 400 && in.p < in.end; i++)
		step(&in);
	settle();
	witness();
	for (int i = 0; i < FDS; i++)
		if (f.fd[i] >= 0)
			close(f.fd[i]);
	if (f.client >= 0)
		close(f.client);
	vg_close(&f.g);
	return 0;
}
