/*
 * Guests that break every rule, and host clients that misbehave: nothing hangs,
 * leaks or takes another connection down. A witness connection is open all the
 * while and must work at the end of each test.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/util.h"
#include "vguest.h"

#define WITNESS 900

static struct vguest g;
static struct vg_pkt p;
static struct vsock_connect req[2];
static int got[2];
static int witness;
static struct pkt_hdr witness_hdr;
static uint32_t witness_sent;
static char uds[64];

static void done0(struct vsock_connect *r, int fd)
{
	(void)r;
	got[0] = fd;
}

static void done1(struct vsock_connect *r, int fd)
{
	(void)r;
	got[1] = fd;
}

static void expect(unsigned op)
{
	if (!vg_recv(&g, &p))
		fail_msg("no packet, op %u expected", op);
	assert_int_equal(p.h.op, op);
}

static void expect_none(void)
{
	if (vg_recv(&g, &p))
		fail_msg("unexpected packet op %u", p.h.op);
}

static const struct vsock_counters *n(void)
{
	return vsock_counters(g.v);
}

static int connect_to(uint32_t port, enum vsock_type type, int which)
{
	struct pkt_hdr h;

	got[which] = -1000;
	req[which] = (struct vsock_connect){ .port = port,
					     .type = type,
					     .timeout_ns = 60000000000ull,
					     .done = which ? done1 : done0 };
	vsock_connect_start(g.v, &req[which]);
	vg_settle(&g);
	expect(OP_REQUEST);
	h = vg_reply(&p.h, OP_RESPONSE);
	vg_send(&g, &h, NULL, 0);
	assert_true(got[which] >= 0);
	return got[which];
}

static int up_with(const struct vg_opts *o)
{
	memset(&g, 0, sizeof(g));
	vg_open(&g, o);
	witness = connect_to(WITNESS, VSOCK_STREAM, 0);
	witness_hdr = vg_reply(&p.h, OP_RW);
	witness_sent = 0;
	return 0;
}

static int up(void **state)
{
	struct vg_opts o = { 0 };

	(void)state;
	o.config.socket_buf = 8192; /* so that the core must keep some */
	return up_with(&o);
}

static int up_uds(void **state)
{
	struct vg_opts o = { 0 };

	(void)state;
	snprintf(uds, sizeof(uds), "/tmp/vsock-test-%d", getpid());
	o.config.uds_path = uds;
	return up_with(&o);
}

static int down(void **state)
{
	char buf[8] = { 0 };

	(void)state;
	/* The witness lives. */
	if (witness >= 0) {
		struct pkt_hdr h = witness_hdr;

		vg_settle(&g);
		while (vg_recv(&g, &p))
			;
		vg_settle(&g);
		if (write(witness, "there", 5) != 5)
			return -1;
		vg_settle(&g);
		expect(OP_RW);
		assert_memory_equal(p.data, "there", 5);
		h.len = 4;
		h.fwd_cnt = 5;
		vg_send(&g, &h, "back", 4);
		assert_int_equal(recv(witness, buf, 8, MSG_DONTWAIT), 4);
		close(witness);
	}
	vg_close(&g);
	return 0;
}

/* ---- packets ---- */

static void test_addresses(void **state)
{
	struct pkt_hdr h;

	(void)state;
	/* Someone else's source: dropped without a word. */
	h = vg_hdr(1, 2, OP_REQUEST);
	h.src_cid = 99;
	vg_send(&g, &h, NULL, 0);
	expect_none();
	assert_int_equal(n()->bad_source, 1);
	/* Not the host: RST. */
	h = vg_hdr(1, 2, OP_REQUEST);
	h.dst_cid = 5;
	vg_send(&g, &h, NULL, 0);
	expect(OP_RST);
	assert_int_equal(p.h.src_cid, 5);
	/* A connection is not found by a tuple that differs in the CID. */
	h = witness_hdr;
	h.dst_cid = 1ull << 32 | 2;
	h.len = 1;
	vg_send(&g, &h, "x", 1);
	expect(OP_RST);
	/* Unknown type: RST, of that type. */
	h = vg_hdr(1, 2, OP_REQUEST);
	h.type = 3;
	vg_send(&g, &h, NULL, 0);
	expect(OP_RST);
	assert_int_equal(p.h.type, 3);
	/* RST is never answered with RST, whatever else is wrong. */
	h.op = OP_RST;
	vg_send(&g, &h, NULL, 0);
	h = vg_hdr(1, 2, OP_RST);
	vg_send(&g, &h, NULL, 0);
	h.dst_cid = 77;
	vg_send(&g, &h, NULL, 0);
	expect_none();
	/* Every op to nobody. */
	for (unsigned op = 0; op < 70000; op += op < 16 ? 1 : 9999) {
		h = vg_hdr(1, 2, (uint16_t)op);
		vg_send(&g, &h, NULL, 0);
		if (op == OP_RST)
			expect_none();
		else
			expect(OP_RST);
	}
}

static void test_states(void **state)
{
	(void)state;
	/* Each op that an open connection must not see ends it, only it. */
	static const uint16_t ops[] = { 0,	  OP_REQUEST, OP_RESPONSE,
					OP_COUNT, 100,	      65535 };

	for (unsigned i = 0; i < array_size(ops); i++) {
		int fd = connect_to(10, VSOCK_STREAM, 1);
		struct pkt_hdr h = vg_reply(&p.h, ops[i]);
		char c;

		vg_send(&g, &h, NULL, 0);
		expect(OP_RST);
		expect_none();
		assert_int_equal(read(fd, &c, 1), 0);
		close(fd);
	}
	/* And before it is open. */
	for (unsigned op = 0; op < OP_COUNT; op++) {
		struct pkt_hdr h;

		if (op == OP_RESPONSE)
			continue;
		got[1] = -1000;
		req[1] = (struct vsock_connect){ .port = 11,
						 .type = VSOCK_STREAM,
						 .timeout_ns = 1,
						 .done = done1 };
		vsock_connect_start(g.v, &req[1]);
		vg_settle(&g);
		expect(OP_REQUEST);
		h = vg_reply(&p.h, (uint16_t)op);
		vg_send(&g, &h, NULL, 0);
		assert_true(got[1] < 0 && got[1] != -1000);
		if (op != OP_RST)
			expect(OP_RST);
		expect_none();
	}
	assert_int_equal(vsock_connections(g.v), 1);
}

static void test_lengths(void **state)
{
	static uint8_t data[65600];
	struct pkt_hdr h;
	int fd;

	(void)state;
	/* len beyond the payload; beyond 64 KiB; both with a real payload. */
	for (unsigned i = 0; i < 3; i++) {
		fd = connect_to(20, VSOCK_STREAM, 1);
		h = vg_reply(&p.h, OP_RW);
		h.len = i == 0 ? 101 : i == 1 ? 65537 : UINT32_MAX;
		vg_send(&g, &h, data, i == 1 ? 65536 : 100);
		expect(OP_RST);
		close(fd);
	}
	assert_int_equal(n()->bad_length, 3);
	/* Less than the payload: the rest is nobody's. Zero is nothing. */
	fd = connect_to(21, VSOCK_STREAM, 1);
	h = vg_reply(&p.h, OP_RW);
	h.len = 2;
	vg_send(&g, &h, "abcd", 4);
	assert_int_equal(read(fd, data, 10), 2);
	h.len = 0;
	vg_send(&g, &h, NULL, 0);
	expect_none();
	close(fd);
}

static void test_credit_lies(void **state)
{
	struct pkt_hdr h;
	int fd;

	(void)state;
	/* fwd_cnt ahead of what was sent. */
	fd = connect_to(30, VSOCK_STREAM, 1);
	h = vg_reply(&p.h, OP_CREDIT_UPDATE);
	h.fwd_cnt = 1;
	vg_send(&g, &h, NULL, 0);
	expect(OP_RST);
	assert_int_equal(n()->bad_credit, 1);
	close(fd);
	/* CVE-2026-23069: a window that shrinks below what is in flight. */
	fd = connect_to(31, VSOCK_STREAM, 1);
	assert_int_equal(write(fd, "0123456789", 10), 10);
	vg_settle(&g);
	expect(OP_RW);
	h = vg_reply(&p.h, OP_CREDIT_UPDATE);
	h.buf_alloc = 4;
	vg_send(&g, &h, NULL, 0);
	assert_int_equal(write(fd, "ab", 2), 2);
	vg_settle(&g);
	expect(OP_CREDIT_REQUEST);
	expect_none();
	/* Asked once, however often it says that it has nothing. */
	for (int i = 0; i < 20; i++)
		vg_send(&g, &h, NULL, 0);
	expect_none();
	h.fwd_cnt = 10;
	vg_send(&g, &h, NULL, 0);
	expect(OP_RW);
	assert_int_equal(p.h.len, 2);
	expect(OP_CREDIT_REQUEST); /* a window of one packet */
	/* Old news is not a lie: two CPUs may pass each other. */
	h.fwd_cnt = 3;
	vg_send(&g, &h, NULL, 0);
	expect_none();
	close(fd);
}

static void test_overflow(void **state)
{
	static uint8_t data[65536];
	struct pkt_hdr h;
	int fd = connect_to(40, VSOCK_STREAM, 1);
	unsigned sent = 0;

	(void)state;
	h = vg_reply(&p.h, OP_RW);
	h.len = sizeof(data);
	/* The host does not read. In the end the guest exceeds our window. */
	while (!n()->overflow) {
		vg_send(&g, &h, data, sizeof(data));
		assert_true(++sent < 20);
	}
	while (vg_recv(&g, &p) && p.h.op == OP_CREDIT_UPDATE)
		;
	assert_int_equal(p.h.op, OP_RST);
	close(fd);
}

static void test_credit_flood(void **state)
{
	struct pkt_hdr h = witness_hdr;

	(void)state;
	/* Answers are owed once, however often they are asked for. */
	g.no_refill = true;
	h.op = OP_CREDIT_REQUEST;
	for (int i = 0; i < 1000; i++) {
		while (!vg_post(&g, &h, NULL, 0)) {
			vg_kick(&g, 1);
			loop_turn(g.loop, 0);
		}
	}
	vg_kick(&g, 1);
	vg_settle(&g);
	while (vg_recv(&g, &p))
		assert_int_equal(p.h.op, OP_CREDIT_UPDATE);
	g.no_refill = false;
	vg_refill(&g, 64);
	vg_settle(&g);
}

static void test_rst_flood(void **state)
{
	struct pkt_hdr h = vg_hdr(1, 1, OP_RW);
	unsigned posted = 0, rst = 0;

	(void)state;
	/* No rx buffers: the answers fill the ring, then tx stalls. */
	g.no_refill = true;
	for (unsigned i = 0; i < 2000; i++) {
		h.src_port = i;
		if (!vg_post(&g, &h, NULL, 0)) {
			vg_kick(&g, 1);
			vg_settle(&g);
			if (!vg_post(&g, &h, NULL, 0))
				break;
		}
		posted++;
	}
	vg_kick(&g, 1);
	vg_settle(&g);
	assert_true(n()->stall_rst > 0);
	/* With buffers everything goes on: one RST per packet. */
	for (int i = 0; i < 200 && rst < posted; i++) {
		while (vg_recv(&g, &p)) {
			assert_int_equal(p.h.op, OP_RST);
			assert_int_equal(p.h.dst_port, rst);
			rst++;
		}
		vg_refill(&g, 64);
		vg_settle(&g);
	}
	assert_int_equal(rst, posted);
	g.no_refill = false;
	vg_refill(&g, 64);
}

static void test_connect_flood(void **state)
{
	struct pkt_hdr h = vg_hdr(0, 80, OP_REQUEST);
	struct vsock_listener *l;
	unsigned refused = 0, accepted = 0;

	(void)state;
	assert_int_equal(vsock_listen(g.v, 80, VSOCK_STREAM, 4, &l, NULL), 0);
	for (unsigned i = 0; i < 12000; i++) {
		h.src_port = 10000 + i;
		vg_send(&g, &h, NULL, 0);
		while (vg_recv(&g, &p)) {
			refused += p.h.op == OP_RST;
			accepted += p.h.op == OP_RESPONSE;
		}
	}
	assert_int_equal(accepted, 4);
	assert_int_equal(refused, 12000 - 4);
	vsock_listener_close(l);
}

static void test_seq_floods(void **state)
{
	struct pkt_hdr h;
	int fd;

	(void)state;
	/* Empty messages cost no credit, and end the connection at a bound. */
	fd = connect_to(50, VSOCK_SEQPACKET, 1);
	h = vg_reply(&p.h, OP_RW);
	h.flags = SEQ_F_EOM;
	for (unsigned i = 0; i < 3000 && !n()->overflow; i++)
		vg_send(&g, &h, NULL, 0);
	assert_int_equal(n()->overflow, 1);
	expect(OP_RST);
	close(fd);
	/* A stream packet for a seqpacket connection is for nobody. */
	fd = connect_to(51, VSOCK_SEQPACKET, 1);
	h = vg_reply(&p.h, OP_RW);
	h.type = VSOCK_STREAM;
	h.len = 1;
	vg_send(&g, &h, "x", 1);
	expect(OP_RST);
	assert_int_equal(p.h.type, VSOCK_STREAM);
	/* A message larger than the guest's window is refused. */
	h = vg_reply(&p.h, OP_CREDIT_UPDATE);
	h.type = VSOCK_SEQPACKET;
	h.src_port = 51;
	h.buf_alloc = 100;
	vg_send(&g, &h, NULL, 0);
	assert_int_equal(write(fd, g.ring, 64), 64);
	vg_settle(&g);
	expect(OP_RW);
	assert_int_equal(send(fd, g.ring, 101, 0), 101);
	vg_settle(&g);
	expect(OP_RST);
	close(fd);
}

static void test_shutdown_then_data(void **state)
{
	int fd = connect_to(60, VSOCK_STREAM, 1);
	struct pkt_hdr h = vg_reply(&p.h, OP_SHUTDOWN);

	(void)state;
	h.flags = SHUT_F_SEND;
	vg_send(&g, &h, NULL, 0);
	h.op = OP_RW;
	h.len = 1;
	vg_send(&g, &h, "x", 1);
	expect(OP_RST);
	close(fd);
}

static void test_slow_host_tail(void **state)
{
	static uint8_t data[65536];
	int fd = connect_to(61, VSOCK_STREAM, 1);
	struct pkt_hdr h = vg_reply(&p.h, OP_RW);
	uint64_t total = 0;
	ssize_t r;

	(void)state;
	/* ArcBox lost the tail: the guest fills the window, closes, and is gone
	 * (RST) before a slow reader has taken it. */
	h.len = sizeof(data);
	for (int i = 0; i < 4; i++)
		vg_send(&g, &h, data, sizeof(data));
	h.op = OP_SHUTDOWN;
	h.flags = SHUT_F_BOTH;
	h.len = 0;
	vg_send(&g, &h, NULL, 0);
	h.op = OP_RST;
	vg_send(&g, &h, NULL, 0);
	do {
		r = recv(fd, data, 4096, MSG_DONTWAIT);
		total += r > 0 ? (uint64_t)r : 0;
		vg_settle(&g);
	} while (r > 0);
	assert_int_equal(r, 0);
	assert_int_equal(total, 4 * sizeof(data));
	assert_int_equal(vsock_connections(g.v), 1);
	close(fd);
}

static void test_zero_credit_is_quiet(void **state)
{
	static uint8_t data[300000];
	int fd = connect_to(62, VSOCK_STREAM, 1);
	uint64_t turns;

	(void)state;
	while (send(fd, data, sizeof(data), MSG_DONTWAIT) > 0)
		vg_settle(&g);
	while (vg_recv(&g, &p) || (vg_settle(&g), vg_recv(&g, &p)))
		;
	vg_settle(&g);
	turns = n()->turns;
	assert_int_equal(n()->requests_sent, 1);
	for (int i = 0; i < 100; i++)
		vg_advance(&g, 1000000000);
	expect_none();
	assert_int_equal(n()->turns, turns);
	close(fd);
	vg_settle(&g);
}

static void test_small_packets(void **state)
{
	int fd = connect_to(63, VSOCK_STREAM, 1);
	unsigned queued = 0;
	struct pkt_hdr h;

	(void)state;
	h = vg_reply(&p.h, OP_CREDIT_UPDATE);
	/* iperf3 -l 129: Linux gives up at 455 packets in 256 KiB. */
	for (int i = 0; i < 600; i++) {
		assert_int_equal(write(fd, "x", 1), 1);
		vg_settle(&g);
		while (vg_recv(&g, &p))
			queued += p.h.op == OP_RW;
	}
	assert_true(queued > 300 && queued <= 410);
	/* The reader takes them, an old kernel does not say: we ask. */
	h.fwd_cnt = queued;
	vg_advance(&g, 20000000);
	expect(OP_CREDIT_REQUEST);
	vg_send(&g, &h, NULL, 0);
	expect(OP_RW);
	assert_int_equal(p.h.len, 600 - queued); /* coalesced */
	close(fd);
	vg_settle(&g);
}

/*
 * Bytes and packets run out together, and the guest's answer frees some bytes
 * but no packet: it need not say more by itself, so we ask on.
 */
static void test_both_windows_full(void **state)
{
	static uint8_t data[2000];
	int fd = connect_to(64, VSOCK_STREAM, 1);
	uint32_t packets = 0, bytes = 0;
	struct pkt_hdr h;

	(void)state;
	h = vg_reply(&p.h, OP_CREDIT_UPDATE);
	for (int i = 0; i < 409; i++) {
		size_t len = i < 408 ? 640 : sizeof(data);

		assert_int_equal(write(fd, data, len), len);
		vg_settle(&g);
		while (packets <= (uint32_t)i && vg_recv(&g, &p)) {
			assert_int_equal(p.h.op, OP_RW);
			packets++;
			bytes += p.h.len;
		}
	}
	assert_int_equal(packets, 409);
	assert_int_equal(bytes, 262144);
	expect(OP_CREDIT_REQUEST);
	h.fwd_cnt = 640;
	vg_send(&g, &h, NULL, 0);
	expect_none();
	vg_advance(&g, 20000000);
	expect(OP_CREDIT_REQUEST);
	h.fwd_cnt = bytes;
	vg_send(&g, &h, NULL, 0);
	expect(OP_RW);
	assert_int_equal(p.h.len, 408 * 640 + sizeof(data) - bytes);
	close(fd);
	vg_settle(&g);
}

/* ---- chains ---- */

static void test_bad_chains(void **state)
{
	struct ring_buf short_hdr = { 0x80000, 43, false };
	struct ring_buf outside = { 1ull << 40, 100, false };
	struct ring_buf wraps = { UINT64_MAX - 10, 100, false };
	struct ring_buf writable = { 0x80000, 100, true };
	uint64_t bad = n()->bad_chain;

	(void)state;
	vg_chain(&g, 1, &short_hdr, 1);
	vg_chain(&g, 1, &outside, 1);
	vg_chain(&g, 1, &wraps, 1);
	vg_chain(&g, 1, &writable, 1);
	vg_kick(&g, 1);
	vg_settle(&g);
	assert_int_equal(n()->bad_chain, bad + 4);
	assert_null(g.failed);
}

static void test_bad_rx_chains(void **state)
{
	struct ring_buf bad[] = {
		{ 0x80000, 4096, false }, /* not writable */
		{ 0x80000, 20, true }, /* no room for a header */
		{ 1ull << 40, 4096, true }, /* nowhere */
	};
	uint32_t len;
	void *c;

	(void)state;
	close(witness);
	witness = -1;
	vg_stop(&g);
	vg_start(&g);
	/* Bad ones between the good ones of a fresh ring: skip to them. */
	g.no_refill = true;
	for (unsigned i = 0; i < 64; i++) {
		got[1] = -1000;
		req[1] = (struct vsock_connect){ .port = i,
						 .type = VSOCK_STREAM,
						 .timeout_ns = 60000000000ull,
						 .done = done1 };
		vsock_connect_start(g.v, &req[1]);
		vg_settle(&g);
		expect(OP_REQUEST);
	}
	for (unsigned i = 0; i < array_size(bad); i++)
		vg_chain(&g, 0, &bad[i], 1);
	vg_refill(&g, 1);
	vsock_connect_start(g.v, &req[1]);
	vg_settle(&g);
	for (unsigned i = 0; i < array_size(bad); i++) {
		c = ring_get(&g.ring[0], &len);
		assert_non_null(c);
		assert_int_equal((uintptr_t)c, 1000);
		assert_int_equal(len, 0);
	}
	expect(OP_REQUEST);
	assert_int_equal(n()->bad_chain, array_size(bad));
	vg_advance(&g, 60000000000ull);
}

static void test_broken_ring(void **state)
{
	(void)state;
	close(witness);
	witness = -1;
	g.ring[1].avail[1] = 5000; /* the index jumps */
	loop_lock(g.loop);
	vsock_notify(g.v, 1);
	loop_unlock(g.loop);
	vg_settle(&g);
	assert_non_null(g.failed);
	/* Reset, and all is well. */
	g.failed = NULL;
	vg_stop(&g);
	vg_start(&g);
	close(connect_to(1, VSOCK_STREAM, 1));
	vg_settle(&g);
}

static void test_reset_mid_flight(void **state)
{
	static uint8_t data[100000];
	char c;
	int fd;

	(void)state;
	fd = connect_to(70, VSOCK_STREAM, 1);
	assert_true(write(fd, data, sizeof(data)) > 0);
	loop_turn(g.loop, 0);
	vg_stop(&g);
	vg_start(&g);
	vg_settle(&g);
	assert_true(recv(fd, &c, 1, MSG_DONTWAIT) <= 0);
	close(fd);
	close(witness);
	witness = -1;
	assert_int_equal(vsock_connections(g.v), 0);
}

/* ---- clients of the hybrid socket ---- */

static int dial(void)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", uds);
	assert_int_equal(connect(fd, (void *)&sun, sizeof(sun)), 0);
	return fd;
}

static void say(int fd, const char *s)
{
	assert_int_equal(write(fd, s, strlen(s)), strlen(s));
	vg_settle(&g);
}

static bool hung_up(int fd)
{
	char c;
	ssize_t r = recv(fd, &c, 1, MSG_DONTWAIT);

	return r == 0 || (r < 0 && errno == ECONNRESET);
}

static void test_uds_good(void **state)
{
	static const char *const spelling[] = {
		"CONNECT 52\n",
		"connect 52\n",
		"CoNnEcT\t 52 extra\n",
		"  CONNECT  +52  \n",
	};
	char buf[64] = { 0 }, want[64];
	struct pkt_hdr h;

	(void)state;
	for (unsigned i = 0; i < array_size(spelling); i++) {
		int fd = dial();

		/* In pieces, with data right behind the newline. */
		for (const char *s = spelling[i]; *s; s++) {
			assert_int_equal(write(fd, s, 1), 1);
			if (s[1])
				vg_settle(&g);
		}
		say(fd, "early");
		expect(OP_REQUEST);
		assert_int_equal(p.h.dst_port, 52);
		assert_true(recv(fd, buf, 64, MSG_DONTWAIT) < 0);
		/* OK precedes data. */
		h = vg_reply(&p.h, OP_RESPONSE);
		vg_post(&g, &h, NULL, 0);
		h.op = OP_RW;
		h.len = 3;
		vg_send(&g, &h, "hey", 3);
		snprintf(want, sizeof(want), "OK %u\nhey", p.h.src_port);
		memset(buf, 0, sizeof(buf));
		assert_true(recv(fd, buf, 63, MSG_DONTWAIT) > 0);
		assert_string_equal(buf, want);
		assert_int_equal(p.h.src_port, 1073741825 + i);
		expect(OP_RW);
		assert_int_equal(p.h.len, 5);
		assert_memory_equal(p.data, "early", 5);
		close(fd);
		vg_settle(&g);
		expect(OP_SHUTDOWN);
		h.op = OP_RST;
		h.len = 0;
		vg_send(&g, &h, NULL, 0);
	}
}

static void test_uds_bad(void **state)
{
	static const char *const line[] = {
		"\n",
		"CONNECT\n",
		"CONNECT \n",
		"CONNECT x\n",
		"CONNECT -1\n",
		"CONNECT 4294967296\n",
		"CONNECT 99999999999999999\n",
		"CONNECT 52x\n",
		"CONNECT52\n",
		"HELLO 52\n",
		"CONNECT 00000000000000000000000052\n", /* 33 bytes */
		"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", /* 32, no newline */
	};
	struct pkt_hdr h;
	int fd;

	(void)state;
	for (unsigned i = 0; i < array_size(line); i++) {
		fd = dial();
		say(fd, line[i]);
		if (!hung_up(fd))
			fail_msg("'%s' was accepted", line[i]);
		close(fd);
		expect_none();
	}
	/* 32 bytes with the newline are fine. */
	fd = dial();
	say(fd, "CONNECT 0000000000000000000052\n");
	expect(OP_REQUEST);
	/* The client leaves before the answer. */
	h = vg_reply(&p.h, OP_RESPONSE);
	close(fd);
	vg_settle(&g);
	expect(OP_RST);
	vg_send(&g, &h, NULL, 0);
	expect(OP_RST);
	/* Refused: closed without a word. */
	fd = dial();
	say(fd, "CONNECT 53\n");
	expect(OP_REQUEST);
	h = vg_reply(&p.h, OP_RST);
	vg_send(&g, &h, NULL, 0);
	assert_true(hung_up(fd));
	close(fd);
	/* No answer. */
	fd = dial();
	say(fd, "CONNECT 53\n");
	expect(OP_REQUEST);
	vg_advance(&g, 2000000000);
	assert_true(hung_up(fd));
	close(fd);
	expect(OP_RST);
	/* Says nothing; says half. */
	fd = dial();
	vg_settle(&g);
	vg_advance(&g, 9999999999ull);
	assert_false(hung_up(fd));
	vg_advance(&g, 1);
	assert_true(hung_up(fd));
	close(fd);
	fd = dial();
	say(fd, "CONN");
	vg_advance(&g, 10000000000ull);
	assert_true(hung_up(fd));
	close(fd);
	/* Leaves at each step. */
	for (unsigned i = 0; i < 12; i++) {
		fd = dial();
		assert_int_equal(write(fd, "CONNECT 52\n", i), i);
		vg_settle(&g);
		close(fd);
		vg_settle(&g);
	}
	while (vg_recv(&g, &p))
		;
	vg_advance(&g, 100000000000ull);
	while (vg_recv(&g, &p))
		;
	assert_int_equal(vsock_connections(g.v), 1);
}

static void test_uds_many(void **state)
{
	int fd[300];

	(void)state;
	/* More silent clients than are kept waiting: the last are served when
	 * the first have run out of time. */
	for (unsigned i = 0; i < array_size(fd); i++) {
		fd[i] = dial();
		vg_settle(&g);
	}
	say(fd[299], "CONNECT 9\n");
	expect_none();
	vg_advance(&g, 10000000000ull);
	expect(OP_REQUEST);
	assert_int_equal(p.h.dst_port, 9);
	for (unsigned i = 0; i < array_size(fd); i++)
		close(fd[i]);
	vg_settle(&g);
}

static void test_uds_guest_dials(void **state)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	struct pkt_hdr h = vg_hdr(33, 700, OP_REQUEST);
	int l = socket(AF_UNIX, SOCK_STREAM, 0), fd, i;

	(void)state;
	/* Nobody there. */
	vg_send(&g, &h, NULL, 0);
	expect(OP_RST);
	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s_700", uds);
	assert_int_equal(bind(l, (void *)&sun, sizeof(sun)), 0);
	assert_int_equal(listen(l, 0), 0);
	/* A full backlog is refused at once. */
	for (i = 0; i < 8; i++) {
		h.src_port = 40 + (uint32_t)i;
		vg_send(&g, &h, NULL, 0);
		assert_true(vg_recv(&g, &p));
		if (p.h.op == OP_RST)
			break;
		assert_int_equal(p.h.op, OP_RESPONSE);
	}
	assert_true(i > 0 && i < 8);
	fd = accept(l, NULL, NULL);
	assert_true(fd >= 0);
	close(fd);
	close(l);
	unlink(sun.sun_path);
	vg_settle(&g);
	while (vg_recv(&g, &p))
		;
}

/* ---- configuration ---- */

static void test_config(void **state)
{
	static const uint64_t bad[] = { 0, 1, 2, 0xffffffff, UINT64_MAX };
	struct vsock_config c = { 0 };
	struct vsock *v = NULL;
	struct loop *l;
	struct err e;

	(void)state;
	assert_int_equal(loop_create(&l, NULL), 0);
	for (unsigned i = 0; i < array_size(bad); i++) {
		c.guest_cid = bad[i];
		assert_int_equal(vsock_create(&v, l, &c, &e), -EINVAL);
	}
	c.guest_cid = 3;
	c.uds_path = "/nonexistent/dir/sock";
	assert_true(vsock_create(&v, l, &c, &e) < 0);
	c.uds_path = "/dev/null";
	assert_int_equal(vsock_create(&v, l, &c, &e), -EEXIST);
	c.uds_path = "";
	assert_int_equal(vsock_create(&v, l, &c, &e), -ENAMETOOLONG);
	assert_null(v);
	loop_destroy(l);
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, up, down)
#define U(fn) cmocka_unit_test_setup_teardown(fn, up_uds, down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_addresses),
		T(test_states),
		T(test_lengths),
		T(test_credit_lies),
		T(test_overflow),
		T(test_credit_flood),
		T(test_rst_flood),
		T(test_connect_flood),
		T(test_seq_floods),
		T(test_shutdown_then_data),
		T(test_slow_host_tail),
		T(test_zero_credit_is_quiet),
		T(test_small_packets),
		T(test_both_windows_full),
		T(test_bad_chains),
		T(test_bad_rx_chains),
		T(test_broken_ring),
		T(test_reset_mid_flight),
		U(test_uds_good),
		U(test_uds_bad),
		U(test_uds_many),
		U(test_uds_guest_dials),
		cmocka_unit_test(test_config),
	};

	return cmocka_run_group_tests_name("vsock-hostile", tests, NULL, NULL);
}
