/*
 * The vsock device, driven natively: this program's threads play the host's
 * process, the worker is the real one on its own loop, and a thread plays the
 * guest's driver over plain memory, woken by an eventfd where a vCPU would get
 * its interrupt, kicking by an eventfd where KVM's ioeventfd would.
 *
 * Beside each figure stands its floor, measured in the same run, in turns with
 * it: the same payload through AF_UNIX sockets and the same number of threads.
 *
 *	bench/vsock [REPEATS [MIB]]
 *
 * Device CPU is the worker thread's only. Each line is the median of REPEATS
 * (5; of 512 MIB each), with the least and the most. The last line is what 1,000
 * idle connections cost in VSOCK_IDLE seconds (10). bench/vsock-guest.sh makes
 * the same table with a stock guest.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/thread.h"
#include "base/util.h"
#include "vsock/ring.h"
#include "vsock_floor.h"

#include "virtio/vsock/packet.h"
#include "virtio/vsock/vsock.h"

#define CID	  3
#define RX_RING	  256
#define TX_RING	  256
#define RX_BUF	  3776
#define RX_AREA	  0x100000u
#define TX_AREA	  0x400000u
#define TX_SLOT	  0x11000u
#define TX_SLOTS  120
#define WINDOW	  262144u
#define RAM	  (32u << 20)
#define ECHO_PORT 1
#define SINK_PORT 2
#define SEND_PORT 3

struct bench {
	struct gmem *mem;
	struct loop *loop;
	struct vsock *v;
	struct vsock_port port;
	struct virtqueue vq[2];
	struct ring rx, tx;
	int kick[2], irq;
	struct loop_watch watch[2];
	clockid_t worker_clock;
	struct thread guest;
	atomic_bool stop;
	/* The guest's. */
	uint32_t tx_free[TX_SLOTS], tx_nfree;
	uint64_t send_left; /* SEND_PORT: bytes still to send */
	uint32_t send_size;
	struct pkt_hdr send_hdr;
	uint32_t sent, peer_fwd, peer_alloc;
};

static struct bench b;

static void signal_fd(int fd)
{
	uint64_t one = 1;

	if (write(fd, &one, 8) != 8)
		die("eventfd");
}

static void drain_fd(int fd)
{
	uint64_t n;

	if (read(fd, &n, 8) != 8 && errno != EAGAIN)
		die("eventfd");
}

/* ---- the device's surroundings ---- */

static void on_irq(struct vsock_port *p, unsigned q)
{
	(void)p;
	(void)q; /* of tx it asks to hear only when the ring is full */
	signal_fd(b.irq);
}

static void on_fail(struct vsock_port *p, const char *why)
{
	(void)p;
	fprintf(stderr, "device: %s\n", why);
	exit(1);
}

static void on_kick(struct loop_watch *w, uint32_t events)
{
	unsigned q = (unsigned)(w - b.watch);

	(void)events;
	drain_fd(b.kick[q]); /* I1 */
	vsock_notify(b.v, q);
}

static void read_clock(struct loop_post *p)
{
	(void)p;
	pthread_getcpuclockid(pthread_self(), &b.worker_clock);
	signal_fd(b.irq);
}

/* ---- the guest ---- */

static void rx_give(uint32_t i)
{
	struct ring_buf buf = { RX_AREA + i * 4096u, RX_BUF, true };

	ring_add(&b.rx, &buf, 1, (void *)(uintptr_t)(i + 1));
}

static void tx_reap(void)
{
	uint32_t len;
	void *c;

	while ((c = ring_get(&b.tx, &len)))
		b.tx_free[b.tx_nfree++] = (uint32_t)(uintptr_t)c - 1;
}

static bool guest_tx(const struct pkt_hdr *h)
{
	struct ring_buf buf[2];
	uint32_t slot;
	uint64_t at;

	if (b.tx_nfree < TX_SLOTS / 4)
		tx_reap();
	if (!b.tx_nfree)
		return false;
	slot = b.tx_free[--b.tx_nfree];
	at = TX_AREA + (uint64_t)slot * TX_SLOT;
	pkt_put(gmem_ptr(b.mem, gpa(at), PKT_HDR_LEN, true), h);
	buf[0] = (struct ring_buf){ at, PKT_HDR_LEN, false };
	buf[1] = (struct ring_buf){ at + PKT_HDR_LEN, h->len, false };
	ring_add(&b.tx, buf, h->len ? 2 : 1, (void *)(uintptr_t)(slot + 1));
	return true;
}

static void tx_kick(void)
{
	if (ring_publish(&b.tx))
		signal_fd(b.kick[1]);
}

static struct pkt_hdr answer(const struct pkt_hdr *p, uint16_t op, uint32_t fwd)
{
	return (struct pkt_hdr){
		.src_cid = CID,
		.dst_cid = VSOCK_CID_HOST,
		.src_port = p->dst_port,
		.dst_port = p->src_port,
		.type = p->type,
		.op = op,
		.buf_alloc = WINDOW,
		.fwd_cnt = fwd,
	};
}

/* One active data connection at a time: its books are these. */
static uint32_t got, told;

static void guest_packet(const uint8_t *raw)
{
	struct pkt_hdr p, h;

	pkt_get(&p, raw);
	switch (p.op) {
	case OP_REQUEST:
		got = told = 0;
		h = answer(&p, OP_RESPONSE, 0);
		guest_tx(&h);
		if (p.dst_port == SEND_PORT) {
			b.sent = 0;
			b.send_hdr = answer(&p, OP_RW, 0);
			b.peer_alloc = p.buf_alloc;
			b.peer_fwd = p.fwd_cnt;
		}
		break;
	case OP_RW:
		got += p.len;
		if (p.dst_port == ECHO_PORT) {
			h = answer(&p, OP_RW, got);
			h.len = p.len;
			guest_tx(&h);
			told = got;
		} else if (p.dst_port == SINK_PORT &&
			   got - told > WINDOW - 65536) {
			h = answer(&p, OP_CREDIT_UPDATE, got);
			guest_tx(&h);
			told = got;
		} else if (p.dst_port == SEND_PORT && p.len == 16) {
			/* The host says how much it wants. */
			b.send_left = get_le64(raw + PKT_HDR_LEN);
			b.send_size = get_le32(raw + PKT_HDR_LEN + 8);
		}
		break;
	case OP_CREDIT_REQUEST:
		h = answer(&p, OP_CREDIT_UPDATE, got);
		guest_tx(&h);
		told = got;
		break;
	case OP_SHUTDOWN:
		if (p.flags == SHUT_F_BOTH) {
			h = answer(&p, OP_RST, got);
			guest_tx(&h);
		}
		break;
	default:
		break;
	}
	if (p.dst_port == SEND_PORT) {
		b.peer_fwd = p.fwd_cnt;
		b.peer_alloc = p.buf_alloc;
	}
}

/* As much of SEND_PORT's bytes as credit and ring allow. */
static void guest_stream(void)
{
	while (b.send_left) {
		uint32_t room = b.peer_alloc - (b.sent - b.peer_fwd);
		uint32_t n =
			(uint32_t)min_of(b.send_left, (uint64_t)b.send_size);

		n = min_of(n, 65536u);
		if (room < n)
			return;
		b.send_hdr.len = n;
		b.send_hdr.fwd_cnt = got;
		if (!guest_tx(&b.send_hdr))
			return;
		b.sent += n;
		b.send_left -= n;
		tx_kick();
	}
}

static void guest_main(void *arg)
{
	(void)arg;
	while (!b.stop) {
		unsigned n = 0;
		uint32_t len;
		void *c;

		while ((c = ring_get(&b.rx, &len))) {
			uint32_t i = (uint32_t)(uintptr_t)c - 1;

			guest_packet(gmem_ptr(b.mem, gpa(RX_AREA + i * 4096u),
					      RX_BUF, false));
			rx_give(i);
			if (++n % 32 == 0 && ring_publish(&b.rx))
				signal_fd(b.kick[0]);
		}
		if (ring_publish(&b.rx))
			signal_fd(b.kick[0]);
		tx_kick();
		guest_stream();
		if (ring_irq_on(&b.rx))
			continue;
		if (b.send_left && !b.tx_nfree) {
			bool more = ring_irq_on(&b.tx);

			tx_reap();
			if (more || b.tx_nfree)
				continue;
		} else {
			ring_irq_off(&b.tx);
		}
		poll(&(struct pollfd){ .fd = b.irq, .events = POLLIN }, 1, -1);
		drain_fd(b.irq);
	}
}

static void setup(void)
{
	struct vsock_config c = { .guest_cid = CID };
	struct loop_post post = { .fn = read_clock };
	struct err e = { 0 };

	if (gmem_create(&b.mem) || gmem_add_ram(b.mem, gpa(0), RAM, &e) ||
	    loop_create(&b.loop, NULL) || vsock_create(&b.v, b.loop, &c, &e))
		die(e.text);
	b.port = (struct vsock_port){ on_irq, on_fail };
	ring_init(&b.rx, b.mem, 0x10000, RX_RING, true);
	ring_init(&b.tx, b.mem, 0x20000, TX_RING, true);
	vq_init(&b.vq[0]);
	vq_init(&b.vq[1]);
	if (vq_enable(&b.vq[0], b.mem, &b.rx.config, NULL) ||
	    vq_enable(&b.vq[1], b.mem, &b.tx.config, NULL))
		die("vq_enable");
	for (uint32_t i = 0; i < RX_RING; i++)
		rx_give(i);
	ring_publish(&b.rx);
	for (uint32_t i = 0; i < TX_SLOTS; i++)
		b.tx_free[b.tx_nfree++] = i;
	b.irq = eventfd(0, EFD_NONBLOCK);
	for (unsigned q = 0; q < 2; q++) {
		b.kick[q] = eventfd(0, EFD_NONBLOCK);
		watch_open(&b.watch[q], b.loop, b.kick[q], EPOLLIN, on_kick);
	}
	loop_lock(b.loop);
	vsock_start(b.v, &b.port, &b.vq[0], &b.vq[1], NULL, VSOCK_FEATURES);
	loop_unlock(b.loop);
	loop_start_thread(b.loop, "vsock-io");
	loop_post(b.loop, &post);
	poll(&(struct pollfd){ .fd = b.irq, .events = POLLIN }, 1, -1);
	drain_fd(b.irq);
	thread_start(&b.guest, "guest", guest_main, NULL);
}

static void teardown(void)
{
	b.stop = true;
	signal_fd(b.irq);
	thread_join(&b.guest);
	loop_stop_thread(b.loop);
	loop_lock(b.loop);
	vsock_stop(b.v);
	for (unsigned q = 0; q < 2; q++)
		watch_close(&b.watch[q]);
	loop_unlock(b.loop);
	vsock_destroy(b.v);
	loop_destroy(b.loop);
	gmem_destroy(b.mem);
	ring_fini(&b.rx);
	ring_fini(&b.tx);
}

/* ---- figures ---- */

static unsigned repeats = 5;
static uint64_t volume = 512ull << 20;

static int dial(uint32_t port)
{
	struct err e = { 0 };
	int fd = vsock_connect(b.v, port, VSOCK_STREAM, 5000, &e);

	if (fd < 0) {
		fprintf(stderr, "%s\n", e.text);
		exit(1);
	}
	return fd;
}

/* ---- round trips ---- */

/*
 * In short blocks, so that what else the machine does hits both alike. Where the
 * scheduler puts the threads matters more than all else (one CPU or two: 20 or
 * 100 us); "taskset -c 0" takes that out.
 */
static void bench_rtt(void)
{
	static struct figure d50, d99, f50, f99;

	for (unsigned i = 0; i < min_of(repeats * 10, MAX_REPEATS); i++) {
		double p50, p99;
		int fd = dial(ECHO_PORT);

		rtt(fd, 1000, &p50, &p99);
		close(fd);
		add(&d50, p50);
		add(&d99, p99);
		rtt_floor(true, 1000, &p50, &p99);
		add(&f50, p50);
		add(&f99, p99);
	}
	printf("round trip of 1 byte\n");
	show("device p50", &d50, "us");
	show("floor p50", &f50, "us");
	show("device p99", &d99, "us");
	show("floor p99", &f99, "us");
}

/* ---- streams ---- */

static double cpu_of_worker(void)
{
	return seconds(b.worker_clock);
}

static void stream(bool to_guest, uint32_t size, uint64_t n, double *rate,
		   double *cpu)
{
	int fd = dial(to_guest ? SINK_PORT : SEND_PORT);
	double c = cpu_of_worker(), t = seconds(CLOCK_MONOTONIC);
	uint64_t before = vsock_counters(b.v)->h2g_bytes;
	uint8_t want[16];

	if (to_guest) {
		send_stream(fd, size, n);
		while (__atomic_load_n(&vsock_counters(b.v)->h2g_bytes,
				       __ATOMIC_RELAXED) < before + n)
			usleep(100);
	} else {
		put_le64(want, n);
		put_le32(want + 8, size);
		put_le32(want + 12, 0);
		if (write(fd, want, 16) != 16)
			die("write");
		take_stream(fd, n);
	}
	t = seconds(CLOCK_MONOTONIC) - t;
	c = cpu_of_worker() - c;
	close(fd);
	*rate = mib_per_s(n, t);
	*cpu = per_gib(c, n);
}

static void bench_stream(bool to_guest, uint32_t size)
{
	struct figure dr = { 0 }, dc = { 0 }, fr = { 0 }, fc = { 0 };
	uint64_t n = size < 4096 ? volume / 8 : volume;

	for (unsigned i = 0; i < repeats; i++) {
		double rate, cpu;

		stream(to_guest, size, n, &rate, &cpu);
		add(&dr, rate);
		add(&dc, cpu);
		stream_floor(to_guest, size, n, &rate, &cpu);
		add(&fr, rate);
		add(&fc, cpu);
	}
	printf("%s, %u KiB writes\n",
	       to_guest ? "host to guest" : "guest to host", size >> 10);
	show("device", &dr, "MiB/s");
	show("floor", &fr, "MiB/s");
	show("device CPU", &dc, "CPU-s/GiB");
	show("floor CPU", &fc, "CPU-s/GiB");
}

/* ---- connects ---- */

static void bench_connects(void)
{
	struct figure d = { 0 }, f = { 0 };

	for (unsigned i = 0; i < repeats; i++) {
		double s = seconds(CLOCK_MONOTONIC);

		for (int k = 0; k < 5000; k++)
			close(dial(ECHO_PORT));
		add(&d, 5000 / (seconds(CLOCK_MONOTONIC) - s));
		add(&f, connects_floor(5000));
	}
	printf("connects, one after the other\n");
	show("device", &d, "1/s");
	show("floor (connect, accept, 1 byte)", &f, "1/s");
}

/* ---- idle ---- */

static void bench_idle(unsigned n, unsigned secs)
{
	int *fd = calloc(n, sizeof(*fd));
	uint64_t turns, events;
	double cpu, all;

	for (unsigned i = 0; i < n; i++)
		fd[i] = dial(ECHO_PORT);
	/* (The deadlines of the handshakes leave one timer behind.) */
	sleep(3);
	turns = vsock_counters(b.v)->turns;
	events = vsock_counters(b.v)->socket_events;
	cpu = cpu_of_worker();
	all = seconds(CLOCK_PROCESS_CPUTIME_ID);
	sleep(secs);
	printf("%u idle connections for %u s: %llu turns, %llu socket events, "
	       "worker %.6f CPU-s, process %.6f CPU-s\n",
	       n, secs,
	       (unsigned long long)(vsock_counters(b.v)->turns - turns),
	       (unsigned long long)(vsock_counters(b.v)->socket_events -
				    events),
	       cpu_of_worker() - cpu, seconds(CLOCK_PROCESS_CPUTIME_ID) - all);
	for (unsigned i = 0; i < n; i++)
		close(fd[i]);
	free(fd);
}

int main(int argc, char **argv)
{
	if (argc > 1)
		repeats = (unsigned)strtoul(argv[1], NULL, 10);
	if (argc > 2)
		volume = strtoull(argv[2], NULL, 10) << 20;
	if (!repeats || repeats > MAX_REPEATS || !volume) {
		fprintf(stderr, "usage: vsock [REPEATS [MIB]]\n");
		return 2;
	}
	setup();
	bench_rtt();
	for (unsigned i = 0; i < array_size(stream_sizes); i++)
		bench_stream(true, stream_sizes[i]);
	for (unsigned i = 0; i < array_size(stream_sizes); i++)
		bench_stream(false, stream_sizes[i]);
	bench_connects();
	bench_idle(1000,
		   getenv("VSOCK_IDLE") ? atoi(getenv("VSOCK_IDLE")) : 10);
	teardown();
	return 0;
}
