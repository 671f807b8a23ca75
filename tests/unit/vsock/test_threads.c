/*
 * The real thing's threads: the worker on its own loop, a guest on another,
 * host threads that connect, listen and accept at once. And numbers: 10,000
 * connections.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/util.h"
#include "vguest.h"

#define HOSTS  6
#define ROUNDS 40

static struct vguest g;
static struct vg_pkt p;
static int irq, kick[2];
static struct loop_watch watch[2];
static struct vsock_port port;
static atomic_bool stop;
static pthread_t guest;

/* ---- a guest that echoes, and dials port 80 when port 7 is connected to ---- */

static void on_irq(struct vsock_port *vp, unsigned q)
{
	uint64_t one = 1;

	(void)vp;
	(void)q;
	if (write(irq, &one, 8) != 8)
		abort();
}

static void on_fail(struct vsock_port *vp, const char *why)
{
	(void)vp;
	fprintf(stderr, "%s\n", why);
	abort();
}

static void on_kick(struct loop_watch *w, uint32_t events)
{
	uint64_t n;

	(void)events;
	if (read(kick[w - watch], &n, 8) == 8)
		vsock_notify(g.v, (unsigned)(w - watch));
}

static void signal_kick(unsigned q)
{
	uint64_t one = 1;

	if (ring_publish(&g.ring[q]) && write(kick[q], &one, 8) != 8)
		abort();
}

static void guest_send(const struct pkt_hdr *h, const void *data, uint32_t len)
{
	while (!vg_post(&g, h, data, len))
		sched_yield();
	signal_kick(1);
}

static void guest_packet(void)
{
	static uint32_t next_port = 30000;
	struct pkt_hdr h;

	switch (p.h.op) {
	case OP_REQUEST:
		if (p.h.dst_port == 9) {
			h = vg_reply(&p.h, OP_RST);
			guest_send(&h, NULL, 0);
			break;
		}
		h = vg_reply(&p.h, OP_RESPONSE);
		guest_send(&h, NULL, 0);
		if (p.h.dst_port == 7) {
			h = vg_hdr(next_port++, 80, OP_REQUEST);
			guest_send(&h, NULL, 0);
		}
		break;
	case OP_RW:
		h = vg_reply(&p.h, OP_RW);
		h.len = p.h.len;
		h.fwd_cnt = p.h.len; /* one message per connection */
		guest_send(&h, p.data, p.h.len);
		break;
	case OP_SHUTDOWN:
		if (p.h.flags == SHUT_F_BOTH) {
			h = vg_reply(&p.h, OP_RST);
			guest_send(&h, NULL, 0);
		}
		break;
	}
}

static void *guest_main(void *arg)
{
	(void)arg;
	while (!stop) {
		uint64_t n;

		g.no_refill = true;
		while (vg_recv(&g, &p)) {
			guest_packet();
			/* vg_refill() would kick from this thread. */
			while (g.rx_spare) {
				struct ring_buf b = {
					0x100000 + g.spare[--g.rx_spare] *
							   0x12000ull,
					VG_RX_BUF, true
				};

				ring_add(
					&g.ring[0], &b, 1,
					(void *)(uintptr_t)(g.spare[g.rx_spare] +
							    1));
			}
			signal_kick(0);
		}
		/* vg_recv() has asked for an interrupt and looked again. */
		poll(&(struct pollfd){ .fd = irq, .events = POLLIN }, 1, -1);
		if (read(irq, &n, 8) != 8)
			abort();
	}
	return NULL;
}

static int up(void **state)
{
	struct vg_opts o = { .real_clock = true };

	(void)state;
	memset(&g, 0, sizeof(g));
	stop = false;
	vg_open(&g, &o);
	vg_stop(&g);
	irq = eventfd(0, 0);
	port = (struct vsock_port){ on_irq, on_fail };
	for (unsigned q = 0; q < 2; q++) {
		kick[q] = eventfd(0, EFD_NONBLOCK);
		watch_open(&watch[q], g.loop, kick[q], EPOLLIN, on_kick);
	}
	loop_lock(g.loop);
	vsock_start(g.v, &port, &g.vq[0], &g.vq[1], NULL, VSOCK_FEATURES);
	loop_unlock(g.loop);
	loop_start_thread(g.loop, "vsock-io");
	pthread_create(&guest, NULL, guest_main, NULL);
	return 0;
}

static int down(void **state)
{
	uint64_t one = 1;

	(void)state;
	stop = true;
	if (write(irq, &one, 8) != 8)
		return -1;
	pthread_join(guest, NULL);
	loop_stop_thread(g.loop);
	loop_lock(g.loop);
	for (unsigned q = 0; q < 2; q++)
		watch_close(&watch[q]);
	loop_unlock(g.loop);
	for (unsigned q = 0; q < 2; q++)
		close(kick[q]);
	vg_close(&g);
	close(irq);
	return 0;
}

static void *echo_client(void *arg)
{
	char out[64], in[64];

	for (int i = 0; i < ROUNDS; i++) {
		struct err e = { 0 };
		int fd = vsock_connect(g.v, 100 + (uint32_t)(uintptr_t)arg,
				       VSOCK_STREAM, 20000, &e);
		int n = snprintf(out, sizeof(out), "%p %d", arg, i);

		if (fd < 0) {
			fprintf(stderr, "%s\n", e.text);
			return (void *)1;
		}
		if (write(fd, out, (size_t)n) != n || read(fd, in, 64) != n ||
		    memcmp(in, out, (size_t)n))
			return (void *)2;
		close(fd);
		if (vsock_connect(g.v, 9, VSOCK_STREAM, 20000, &e) !=
		    -ECONNREFUSED)
			return (void *)3;
	}
	return NULL;
}

static void *acceptor(void *arg)
{
	struct vsock_listener *l = arg;

	for (int i = 0; i < ROUNDS; i++) {
		uint32_t from;
		int fd = vsock_accept(l, &from, false);

		if (fd < 0 || from < 30000)
			return (void *)1;
		close(fd);
	}
	return NULL;
}

static void *summoner(void *arg)
{
	(void)arg;
	for (int i = 0; i < ROUNDS; i++) {
		int fd = vsock_connect(g.v, 7, VSOCK_STREAM, 20000, NULL);

		if (fd < 0)
			return (void *)1;
		close(fd);
	}
	return NULL;
}

static void test_threads(void **state)
{
	struct vsock_listener *l;
	pthread_t t[HOSTS + 2];
	void *rc;

	(void)state;
	assert_int_equal(vsock_listen(g.v, 80, VSOCK_STREAM, 100, &l, NULL), 0);
	assert_int_equal(vsock_listen(g.v, 80, VSOCK_STREAM, 1, &l, NULL),
			 -EADDRINUSE);
	for (uintptr_t i = 0; i < HOSTS; i++)
		pthread_create(&t[i], NULL, echo_client, (void *)i);
	pthread_create(&t[HOSTS], NULL, acceptor, l);
	pthread_create(&t[HOSTS + 1], NULL, summoner, NULL);
	for (unsigned i = 0; i < array_size(t); i++) {
		pthread_join(t[i], &rc);
		assert_null(rc);
	}
	vsock_listener_close(l);
}

/* The VM goes while others wait in a call: they hear of it. */
static void *waiting_connect(void *arg)
{
	(void)arg;
	return (void *)(intptr_t)vsock_connect(g.v, 5, VSOCK_STREAM, -1, NULL);
}

static void *waiting_accept(void *arg)
{
	return (void *)(intptr_t)vsock_accept(arg, NULL, false);
}

static unsigned connections(void)
{
	unsigned n;

	loop_lock(g.loop);
	n = vsock_connections(g.v);
	loop_unlock(g.loop);
	return n;
}

static void test_gone(void **state)
{
	struct vsock_listener *l;
	pthread_t t[2];
	void *rc;

	(void)state;
	loop_lock(g.loop);
	vsock_stop(g.v); /* the guest is not up any more */
	loop_unlock(g.loop);
	assert_int_equal(vsock_listen(g.v, 1, VSOCK_STREAM, 1, &l, NULL), 0);
	pthread_create(&t[0], NULL, waiting_connect, NULL);
	pthread_create(&t[1], NULL, waiting_accept, l);
	while (!connections())
		usleep(1000);
	loop_lock(g.loop);
	vsock_close_host(g.v);
	loop_unlock(g.loop);
	pthread_join(t[0], &rc);
	assert_int_equal((intptr_t)rc, -ENODEV);
	pthread_join(t[1], &rc);
	assert_int_equal((intptr_t)rc, -ESHUTDOWN);
	assert_int_equal(vsock_connect(g.v, 5, VSOCK_STREAM, -1, NULL),
			 -ENODEV);
	vsock_listener_close(l);
}

/* ---- 10,000 connections, on the test's own thread ---- */

#define MANY 10000

static struct vsock_connect req[MANY + 1];
static int fds[MANY + 1];

static void done(struct vsock_connect *r, int fd)
{
	fds[r - req] = fd;
}

static void test_many(void **state)
{
	struct vg_opts o = { 0 };
	unsigned many = MANY;
	struct rlimit rl;
	struct pkt_hdr h;

	(void)state;
	/* Two descriptors each: as many as this process may have. */
	getrlimit(RLIMIT_NOFILE, &rl);
	rl.rlim_cur = rl.rlim_max;
	setrlimit(RLIMIT_NOFILE, &rl);
	if (rl.rlim_cur < 2 * MANY + 100)
		many = (unsigned)(rl.rlim_cur - 100) / 2;
	o.config.max_connections = many;
	memset(&g, 0, sizeof(g));
	vg_open(&g, &o);
	for (unsigned i = 0; i <= many; i++) {
		req[i] = (struct vsock_connect){ .port = i,
						 .type = VSOCK_STREAM,
						 .timeout_ns = 60000000000ull,
						 .done = done };
		fds[i] = -1;
		vsock_connect_start(g.v, &req[i]);
		loop_turn(g.loop, 0);
		while (vg_recv(&g, &p)) {
			assert_int_equal(p.h.op, OP_REQUEST);
			h = vg_reply(&p.h, OP_RESPONSE);
			while (!vg_post(&g, &h, NULL, 0))
				loop_turn(g.loop, 0);
			vg_kick(&g, 1);
		}
		for (int k = 0; k < 4; k++)
			loop_turn(g.loop, 0);
	}
	assert_int_equal(fds[many], -EMFILE); /* one too many */
	vg_settle(&g);
	assert_int_equal(vsock_connections(g.v), many);
	print_message("%u connections\n", many);
	/* Each is itself. */
	for (unsigned i = 0; i < many; i += 97) {
		assert_int_equal(write(fds[i], &i, sizeof(i)), sizeof(i));
		vg_settle(&g);
		assert_true(vg_recv(&g, &p));
		assert_int_equal(p.h.op, OP_RW);
		assert_int_equal(p.h.dst_port, i);
		assert_memory_equal(p.data, &i, sizeof(i));
	}
	for (unsigned i = 0; i < many; i++)
		close(fds[i]);
	for (int i = 0; i < 10000 && vsock_connections(g.v); i++) {
		while (vg_recv(&g, &p)) {
			if (p.h.op != OP_SHUTDOWN)
				continue;
			h = vg_reply(&p.h, OP_RST);
			while (!vg_post(&g, &h, NULL, 0))
				loop_turn(g.loop, 0);
			vg_kick(&g, 1);
		}
		loop_turn(g.loop, 0);
	}
	assert_int_equal(vsock_connections(g.v), 0);
	vg_close(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_threads, up, down),
		cmocka_unit_test_setup_teardown(test_gone, up, down),
		cmocka_unit_test(test_many),
	};

	return cmocka_run_group_tests_name("vsock-threads", tests, NULL, NULL);
}
