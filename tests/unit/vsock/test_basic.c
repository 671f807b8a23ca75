/* Connections from both sides, data both ways, half-close, the end. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/util.h"
#include "vguest.h"

static struct vguest g;
static struct vg_pkt p;
static struct vsock_connect req;
static int got;

static void done(struct vsock_connect *r, int fd)
{
	(void)r;
	got = fd;
}

static int up(void **state)
{
	(void)state;
	memset(&g, 0, sizeof(g));
	got = -1000;
	return 0;
}

static int down(void **state)
{
	(void)state;
	vg_close(&g);
	return 0;
}

static void ask(uint32_t port, enum vsock_type type)
{
	req = (struct vsock_connect){ .port = port,
				      .type = type,
				      .timeout_ns = 5000000000ull,
				      .done = done };
	vsock_connect_start(g.v, &req);
	vg_settle(&g);
}

/* The host connects to @port: the REQUEST is in p, the answer is given. */
static int host_connect(uint32_t port, enum vsock_type type)
{
	struct pkt_hdr h;

	ask(port, type);
	assert_true(vg_recv(&g, &p));
	assert_int_equal(p.h.op, OP_REQUEST);
	assert_int_equal(p.h.dst_port, port);
	assert_int_equal(p.h.type, type);
	assert_int_equal(p.h.buf_alloc, 262144);
	h = vg_reply(&p.h, OP_RESPONSE);
	vg_send(&g, &h, NULL, 0);
	assert_true(got >= 0);
	return got;
}

static void expect_none(void)
{
	if (vg_recv(&g, &p))
		fail_msg("unexpected packet op %u", p.h.op);
}

static void expect(unsigned op)
{
	if (!vg_recv(&g, &p))
		fail_msg("no packet, op %u expected", op);
	assert_int_equal(p.h.op, op);
}

static void test_host_connects(void **state)
{
	char buf[16] = { 0 };
	struct pkt_hdr h;
	int fd;

	(void)state;
	vg_open(&g, NULL);
	fd = host_connect(1234, VSOCK_STREAM);
	/* There ... */
	assert_int_equal(write(fd, "hello", 5), 5);
	vg_settle(&g);
	expect(OP_RW);
	assert_int_equal(p.h.len, 5);
	assert_memory_equal(p.data, "hello", 5);
	/* ... and back. */
	h = vg_reply(&p.h, OP_RW);
	h.len = 5;
	h.fwd_cnt = 5;
	vg_send(&g, &h, "world", 5);
	assert_int_equal(read(fd, buf, sizeof(buf)), 5);
	assert_string_equal(buf, "world");
	/* Half-close by the host; the guest still speaks. */
	shutdown(fd, SHUT_WR);
	vg_settle(&g);
	expect(OP_SHUTDOWN);
	assert_int_equal(p.h.flags, SHUT_F_SEND);
	assert_int_equal(p.h.fwd_cnt, 5);
	vg_send(&g, &h, "again", 5);
	assert_int_equal(read(fd, buf, sizeof(buf)), 5);
	/* The guest closes: RST answers, EOF for the host. */
	h = vg_reply(&p.h, OP_SHUTDOWN);
	h.flags = SHUT_F_BOTH;
	h.fwd_cnt = 5;
	vg_send(&g, &h, NULL, 0);
	expect(OP_RST);
	assert_int_equal(read(fd, buf, sizeof(buf)), 0);
	assert_int_equal(vsock_connections(g.v), 0);
	close(fd);
}

/* In small writes too, a host process may be well ahead of the guest. */
static void test_host_writes_ahead(void **state)
{
	static char data[1024];
	size_t got_bytes = 0;
	int fd;

	(void)state;
	vg_open(&g, NULL);
	fd = host_connect(5, VSOCK_STREAM);
	for (int i = 0; i < 128; i++)
		assert_int_equal(send(fd, data, sizeof(data), MSG_DONTWAIT),
				 sizeof(data));
	while (vg_settle(&g), vg_recv(&g, &p))
		got_bytes += p.h.op == OP_RW ? p.h.len : 0;
	assert_int_equal(got_bytes, 128 * sizeof(data));
	close(fd);
}

static void test_guest_half_close(void **state)
{
	char buf[16];
	struct pkt_hdr h;
	int fd;

	(void)state;
	vg_open(&g, NULL);
	fd = host_connect(5, VSOCK_STREAM);
	h = vg_reply(&p.h, OP_SHUTDOWN);
	h.flags = SHUT_F_SEND;
	vg_send(&g, &h, NULL, 0);
	assert_int_equal(read(fd, buf, sizeof(buf)), 0);
	assert_int_equal(write(fd, "late", 4), 4);
	vg_settle(&g);
	expect(OP_RW);
	assert_memory_equal(p.data, "late", 4);
	close(fd);
	vg_settle(&g);
	expect(OP_SHUTDOWN);
	assert_int_equal(p.h.flags, SHUT_F_BOTH);
	h = vg_reply(&p.h, OP_RST);
	vg_send(&g, &h, NULL, 0);
	expect_none();
	assert_int_equal(vsock_connections(g.v), 0);
}

static void test_refused(void **state)
{
	struct pkt_hdr h;

	(void)state;
	vg_open(&g, NULL);
	ask(9, VSOCK_STREAM);
	expect(OP_REQUEST);
	h = vg_reply(&p.h, OP_RST);
	vg_send(&g, &h, NULL, 0);
	assert_int_equal(got, -ECONNREFUSED);
	expect_none();
}

static void test_timeout(void **state)
{
	struct pkt_hdr h;

	(void)state;
	vg_open(&g, NULL);
	ask(9, VSOCK_STREAM);
	expect(OP_REQUEST);
	vg_advance(&g, 1999999999);
	assert_int_equal(got, -1000);
	h = vg_reply(&p.h, OP_RESPONSE);
	vg_advance(&g, 1);
	assert_int_equal(got, -ETIMEDOUT);
	expect(OP_RST);
	/* A late RESPONSE gets RST. */
	vg_send(&g, &h, NULL, 0);
	expect(OP_RST);
	assert_int_equal(vsock_connections(g.v), 0);
}

static void test_before_boot(void **state)
{
	struct pkt_hdr h;

	(void)state;
	vg_open(&g, NULL);
	vg_stop(&g);
	ask(77, VSOCK_STREAM);
	assert_int_equal(got, -1000);
	vg_start(&g);
	vg_settle(&g);
	expect(OP_REQUEST);
	h = vg_reply(&p.h, OP_RESPONSE);
	vg_send(&g, &h, NULL, 0);
	assert_true(got >= 0);
	close(got);
	/* And one that runs out of patience. */
	vg_stop(&g);
	got = -1000;
	ask(77, VSOCK_STREAM);
	vg_advance(&g, 5000000000ull);
	assert_int_equal(got, -ETIMEDOUT);
}

static void test_guest_connects(void **state)
{
	struct vsock_listener *l;
	struct pkt_hdr h = vg_hdr(1025, 80, OP_REQUEST);
	uint32_t port;
	char buf[8];
	int fd;

	(void)state;
	vg_open(&g, NULL);
	assert_int_equal(vsock_listen(g.v, 80, VSOCK_STREAM, 1, &l, NULL), 0);
	assert_int_equal(vsock_accept(l, NULL, true), -EAGAIN);
	vg_send(&g, &h, NULL, 0);
	expect(OP_RESPONSE);
	/* The backlog is 1. */
	h.src_port = 1026;
	vg_send(&g, &h, NULL, 0);
	expect(OP_RST);
	fd = vsock_accept(l, &port, false);
	assert_true(fd >= 0);
	assert_int_equal(port, 1025);
	h = vg_hdr(1025, 80, OP_RW);
	h.len = 3;
	vg_send(&g, &h, "abc", 3);
	assert_int_equal(read(fd, buf, sizeof(buf)), 3);
	close(fd);
	vg_settle(&g);
	expect(OP_SHUTDOWN);
	vg_advance(&g, 8000000000ull);
	expect(OP_RST); /* the guest did not answer */
	/* Nobody there. */
	h = vg_hdr(1027, 81, OP_REQUEST);
	vg_send(&g, &h, NULL, 0);
	expect(OP_RST);
	vsock_listener_close(l);
}

static void test_seqpacket(void **state)
{
	char buf[16];
	struct pkt_hdr h;
	int fd;

	(void)state;
	vg_open(&g, NULL);
	fd = host_connect(6, VSOCK_SEQPACKET);
	assert_int_equal(send(fd, "one", 3, 0), 3);
	assert_int_equal(send(fd, "", 0, 0), 0);
	assert_int_equal(send(fd, "three", 5, 0), 5);
	vg_settle(&g);
	expect(OP_RW);
	assert_int_equal(p.h.len, 3);
	assert_int_equal(p.h.flags, SEQ_F_EOM);
	expect(OP_RW);
	assert_int_equal(p.h.len, 0);
	assert_int_equal(p.h.flags, SEQ_F_EOM);
	expect(OP_RW);
	assert_int_equal(p.h.len, 5);
	/* Fragments make a message. */
	h = vg_reply(&p.h, OP_RW);
	h.len = 2;
	vg_send(&g, &h, "ab", 2);
	assert_int_equal(recv(fd, buf, sizeof(buf), MSG_DONTWAIT), -1);
	h.flags = SEQ_F_EOM;
	vg_send(&g, &h, "cd", 2);
	assert_int_equal(recv(fd, buf, sizeof(buf), MSG_DONTWAIT), 4);
	assert_memory_equal(buf, "abcd", 4);
	close(fd);
	vg_settle(&g);
	expect(OP_SHUTDOWN);
}

static void test_pieces(void **state)
{
	static uint8_t big[5000];
	char buf[8];
	struct pkt_hdr h;
	int fd;

	(void)state;
	for (size_t i = 0; i < sizeof(big); i++)
		big[i] = (uint8_t)(i * 7);
	g.rx_pieces = 47; /* a header of 44 one-byte descriptors */
	g.tx_pieces = 45;
	vg_open(&g, NULL);
	fd = host_connect(6, VSOCK_STREAM);
	assert_int_equal(write(fd, big, sizeof(big)), sizeof(big));
	vg_settle(&g);
	expect(OP_RW);
	assert_int_equal(p.h.len, 3732);
	assert_memory_equal(p.data, big, 3732);
	expect(OP_RW);
	assert_memory_equal(p.data, big + 3732, sizeof(big) - 3732);
	h = vg_reply(&p.h, OP_RW);
	h.len = 6;
	vg_send(&g, &h, "abcdef", 6);
	assert_int_equal(read(fd, buf, sizeof(buf)), 6);
	assert_memory_equal(buf, "abcdef", 6);
	close(fd);
}

static void test_restored(void **state)
{
	(void)state;
	vg_open(&g, NULL);
	vg_stop(&g);
	vsock_restored(g.v);
	vg_start(&g);
	ask(5, VSOCK_STREAM);
	expect_none(); /* held */
	assert_int_equal(vg_events(&g, false), 1);
	vg_settle(&g);
	expect_none();
	vg_events(&g, false);
	vg_chain(&g, 2, &(struct ring_buf){ 0x70000, 8, true }, 1);
	vg_kick(&g, 2);
	vg_settle(&g);
	expect(OP_REQUEST);
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, up, down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_host_connects),	  T(test_host_writes_ahead),
		T(test_guest_half_close), T(test_refused),
		T(test_timeout),	  T(test_before_boot),
		T(test_guest_connects),	  T(test_seqpacket),
		T(test_pieces),		  T(test_restored),
	};

	return cmocka_run_group_tests_name("vsock-basic", tests, NULL, NULL);
}
