/*
 * Seeded random schedules: a guest that keeps honest books, host processes that
 * write, read and close when they like, the worker run one turn at a time, in
 * any order. Content is checked byte by byte, each packet against the window and
 * the packet count Linux would enforce, the core's invariants at every step.
 *
 * Every so often everybody does what is left to do, and then nothing may be
 * left: a byte that is quiescent but undelivered is a failure.
 *
 *	VSOCK_SEEDS=n     seeds to run (default 150)
 *	VSOCK_SEED=s      the first
 *	VSOCK_SECONDS=t   run for that long instead
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/util.h"
#include "vguest.h"

#define CONNS	   12
#define STEPS	   1500
#define MSGS	   2048
#define SKB	   576 /* what a queued packet costs Linux */
#define GUEST_PORT 5000

struct msgs {
	uint32_t len[MSGS];
	unsigned head, n;
};

struct mconn {
	bool used, asked, open, seq;
	bool guest_gone; /* RST went one way or the other */
	bool host_wr_shut, host_closed, guest_send_shut, guest_closed;
	bool host_eof, guest_eof; /* seen by */
	bool aborted; /* ended by force: bytes may be missing */
	int id, fd;
	uint32_t guest_port, host_port;
	struct vsock_connect req;
	int result;
	/* Host to guest. */
	uint64_t h_sent, g_got, g_taken;
	struct msgs h2g;
	uint32_t part; /* of the message being received */
	/* Guest to host. */
	uint64_t g_sent, h_got;
	struct msgs g2h;
	uint32_t g_left; /* of the message being sent */
	/* The guest's books. */
	uint32_t first, alloc, told, peer_alloc, peer_fwd;
	uint32_t queued_end[4096];
	unsigned q_head, q_n;
	bool shrunk;
	bool owes_update; /* the tx ring was full */
};

static struct vguest g;
static struct mconn conn[CONNS];
static uint64_t rng, seed_now;
static bool old_kernel;
static uint64_t moved_total, schedules, posts;
static struct vg_pkt pkt;
static int next_id;

static uint64_t rnd(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng;
}

static uint32_t below(uint32_t n)
{
	return (uint32_t)((rnd() >> 20) % n);
}

static void dump_line(void *ctx, const char *text)
{
	(void)ctx;
	fprintf(stderr, "  %s\n", text);
}

#define check(cond, ...)                                                      \
	do {                                                                  \
		if (!(cond)) {                                                \
			fprintf(stderr,                                       \
				"seed %llu: ", (unsigned long long)seed_now); \
			fprintf(stderr, __VA_ARGS__);                         \
			fprintf(stderr, "\n");                                \
			vsock_dump(g.v, dump_line, NULL);                     \
			fail();                                               \
		}                                                             \
	} while (0)

static uint8_t byte_of(const struct mconn *m, int dir, uint64_t at)
{
	return (uint8_t)(at * 131 + (at >> 8) + (uint64_t)m->id * 17 +
			 (uint64_t)dir * 91);
}

static void put_msg(struct msgs *q, uint32_t len)
{
	q->len[(q->head + q->n++) % MSGS] = len;
}

static uint32_t size_of_something(void)
{
	switch (below(5)) {
	case 0:
		return 1;
	case 1:
		return 1 + below(200);
	case 2:
		return 1 + below(4000);
	default:
		return 1 + below(65536);
	}
}

/* ---- the guest ---- */

static uint32_t fwd_of(const struct mconn *m)
{
	return m->first + (uint32_t)m->g_taken;
}

static bool guest_send(struct mconn *m, uint16_t op, uint32_t flags,
		       const void *data, uint32_t len)
{
	struct pkt_hdr h = vg_hdr(m->guest_port, m->host_port, op);

	h.type = m->seq ? VSOCK_SEQPACKET : VSOCK_STREAM;
	h.flags = flags;
	h.len = len;
	h.buf_alloc = m->alloc;
	h.fwd_cnt = fwd_of(m);
	if (!vg_post(&g, &h, data, len))
		return false;
	posts++;
	m->told = h.fwd_cnt;
	if (below(4)) /* else with a later one: drivers batch */
		vg_kick(&g, 1);
	return true;
}

static void guest_update(struct mconn *m)
{
	m->owes_update = !guest_send(m, OP_CREDIT_UPDATE, 0, NULL, 0);
}

static struct mconn *find(const struct pkt_hdr *h)
{
	for (int i = 0; i < CONNS; i++) {
		struct mconn *m = &conn[i];

		if (m->used && m->asked && m->guest_port == h->dst_port &&
		    m->host_port == h->src_port &&
		    m->seq == (h->type == VSOCK_SEQPACKET))
			return m;
	}
	return NULL;
}

static void guest_data(struct mconn *m)
{
	uint64_t at = m->g_got;

	check(m->open && !m->guest_eof, "data after SHUTDOWN(SEND)");
	for (uint32_t i = 0; i < pkt.h.len; i++)
		check(pkt.data[i] == byte_of(m, 0, at + i),
		      "host to guest: byte %llu of connection %d differs",
		      (unsigned long long)(at + i), m->id);
	m->g_got += pkt.h.len;
	moved_total += pkt.h.len;
	check(m->shrunk || m->g_got - m->g_taken <= m->alloc,
	      "the guest's window overflowed");
	if (m->seq) {
		m->part += pkt.h.len;
		check(m->h2g.n, "a message nobody sent");
		if (pkt.h.flags & SEQ_F_EOM) {
			check(m->part == m->h2g.len[m->h2g.head],
			      "message of %u bytes arrives as %u",
			      m->h2g.len[m->h2g.head], m->part);
			m->h2g.head = (m->h2g.head + 1) % MSGS;
			m->h2g.n--;
			m->part = 0;
		}
		check(m->part <= m->h2g.len[m->h2g.head] || !m->part,
		      "a message without end");
	}
	if (!pkt.h.len)
		return;
	m->queued_end[(m->q_head + m->q_n++) % 4096] = (uint32_t)m->g_got;
	check(m->shrunk || m->alloc < 2 * SKB ||
		      (uint64_t)(m->q_n + 1) * SKB <= m->alloc + SKB,
	      "%u packets queued in a window of %u", m->q_n, m->alloc);
}

static void guest_packet(void)
{
	struct mconn *m;

	if (pkt.h.op == OP_REQUEST) {
		for (int i = 0; i < CONNS; i++) {
			m = &conn[i];
			if (m->used && !m->asked &&
			    m->guest_port == pkt.h.dst_port) {
				m->asked = true;
				m->host_port = pkt.h.src_port;
				break;
			}
			m = NULL;
		}
		check(m, "a REQUEST nobody made");
		m->peer_alloc = pkt.h.buf_alloc;
		m->peer_fwd = pkt.h.fwd_cnt;
		if (guest_send(m, OP_RESPONSE, 0, NULL, 0))
			m->open = true;
		else
			m->asked = false; /* times out */
		return;
	}
	m = find(&pkt.h);
	if (!m || m->guest_gone)
		return;
	m->peer_alloc = pkt.h.buf_alloc;
	m->peer_fwd = pkt.h.fwd_cnt;
	switch (pkt.h.op) {
	case OP_RESPONSE:
		m->open = true;
		break;
	case OP_RW:
		guest_data(m);
		break;
	case OP_CREDIT_REQUEST:
		guest_update(m);
		break;
	case OP_SHUTDOWN:
		if (pkt.h.flags & SHUT_F_SEND)
			m->guest_eof = true;
		if (pkt.h.flags & SHUT_F_RCV)
			m->guest_closed = true; /* no point in sending */
		break;
	case OP_RST:
		check(m->aborted || m->host_closed ||
			      (m->guest_closed && m->guest_send_shut),
		      "RST out of the blue on connection %d", m->id);
		m->guest_gone = true;
		break;
	case OP_CREDIT_UPDATE:
		break;
	default:
		check(false, "op %u", pkt.h.op);
	}
}

static void guest_receive(unsigned max)
{
	while (max-- && vg_recv(&g, &pkt))
		guest_packet();
}

/* The reader takes bytes; Linux then tells, or not. */
static void guest_take(struct mconn *m, uint64_t n)
{
	uint32_t delta;
	uint64_t queued = m->g_got - m->g_taken;

	n = min_of(n, queued);
	if (!n)
		return;
	m->g_taken += n;
	while (m->q_n && (int32_t)((uint32_t)m->g_taken -
				   m->queued_end[m->q_head]) >= 0) {
		m->q_head = (m->q_head + 1) % 4096;
		m->q_n--;
	}
	delta = fwd_of(m) - m->told;
	if (m->guest_gone || !m->open)
		return;
	if (m->alloc - min_of(delta, m->alloc) < 65536 ||
	    (!old_kernel && m->g_got == m->g_taken))
		guest_update(m);
}

static uint32_t guest_room(const struct mconn *m)
{
	uint32_t win = min_of(m->peer_alloc, m->alloc);
	uint32_t used = (uint32_t)m->g_sent + m->first - m->peer_fwd;

	return used < win ? win - used : 0;
}

static void guest_write(struct mconn *m)
{
	static uint8_t buf[65536];
	uint32_t room = guest_room(m), n = size_of_something(), flags = 0;

	if (!m->open || m->guest_gone || m->guest_send_shut || m->guest_closed)
		return;
	if (m->seq) {
		if (!m->g_left) {
			uint32_t most = min_of(m->peer_alloc, m->alloc);

			if (m->g2h.n == MSGS)
				return;
			n = below(8) ? min_of(n, most) : 0;
			if (n == 0 && m->g2h.n > 50)
				return; /* floods of nothing are refused */
			put_msg(&m->g2h, n);
			m->g_left = n;
			if (!n) {
				if (!guest_send(m, OP_RW, SEQ_F_EOM, NULL, 0))
					m->g2h.n--;
				return;
			}
		}
		n = min_of(n, m->g_left);
	}
	n = min_of(n, room);
	if (!n)
		return;
	for (uint32_t i = 0; i < n; i++)
		buf[i] = byte_of(m, 1, m->g_sent + i);
	if (m->seq && n == m->g_left)
		flags = SEQ_F_EOM;
	if (!guest_send(m, OP_RW, flags, buf, n))
		return;
	m->g_sent += n;
	if (m->seq)
		m->g_left -= n;
}

static void guest_shutdown(struct mconn *m, uint32_t flags)
{
	if (!m->open || m->guest_gone || m->g_left)
		return;
	if (!guest_send(m, OP_SHUTDOWN, flags, NULL, 0))
		return;
	if (flags & SHUT_F_SEND)
		m->guest_send_shut = true;
	if (flags & SHUT_F_RCV) {
		m->guest_closed = true;
		m->aborted = true; /* it takes no more */
	}
}

/* ---- the host ---- */

static void connected(struct vsock_connect *r, int fd)
{
	struct mconn *m = container_of(r, struct mconn, req);

	m->result = fd;
	m->fd = fd;
}

static void host_connect(struct mconn *m)
{
	*m = (struct mconn){ .used = true,
			     .id = next_id++,
			     .fd = -1,
			     .result = -1000,
			     .seq = !below(3),
			     .first = m->first };
	m->first = conn[0].first;
	m->guest_port = GUEST_PORT + (uint32_t)m->id;
	switch (below(4)) {
	case 0:
		m->alloc = 1 + below(3000);
		break;
	case 1:
		m->alloc = 65536;
		break;
	default:
		m->alloc = 262144;
	}
	m->told = m->first;
	m->req = (struct vsock_connect){
		.port = m->guest_port,
		.type = m->seq ? VSOCK_SEQPACKET : VSOCK_STREAM,
		.timeout_ns = 60000000000ull,
		.done = connected,
	};
	vsock_connect_start(g.v, &m->req);
}

static void host_write(struct mconn *m)
{
	static uint8_t buf[65536];
	uint32_t n = size_of_something();
	ssize_t r;

	if (m->fd < 0 || m->host_wr_shut)
		return;
	if (m->seq) {
		if (m->h2g.n == MSGS)
			return;
		n = below(8) ? min_of(n, m->alloc) : 0;
	}
	for (uint32_t i = 0; i < n; i++)
		buf[i] = byte_of(m, 0, m->h_sent + i);
	r = send(m->fd, buf, n, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (r < 0) {
		check(errno == EAGAIN || m->guest_closed || m->guest_gone,
		      "host write: %s", strerror(errno));
		return;
	}
	m->h_sent += (uint64_t)r;
	if (m->seq)
		put_msg(&m->h2g, (uint32_t)r);
}

/* True when something came. */
static bool host_read(struct mconn *m, uint32_t max)
{
	static uint8_t buf[262144];
	ssize_t r;

	if (m->fd < 0 || m->host_eof)
		return false;
	r = recv(m->fd, buf, m->seq ? sizeof(buf) : max, MSG_DONTWAIT);
	if (r < 0) {
		if (errno != EAGAIN)
			m->host_eof = true; /* ECONNRESET: the end as well */
		return false;
	}
	if (m->seq && m->g2h.n && m->g2h.len[m->g2h.head] == (uint32_t)r) {
		m->g2h.head = (m->g2h.head + 1) % MSGS;
		m->g2h.n--;
	} else if (r == 0) {
		m->host_eof = true;
		return false;
	} else {
		check(!m->seq, "guest's message arrives as %zd bytes, not %u",
		      r, m->g2h.n ? m->g2h.len[m->g2h.head] : 0);
	}
	for (ssize_t i = 0; i < r; i++)
		check(buf[i] == byte_of(m, 1, m->h_got + (uint64_t)i),
		      "guest to host: byte %llu of connection %d differs",
		      (unsigned long long)(m->h_got + (uint64_t)i), m->id);
	m->h_got += (uint64_t)r;
	moved_total += (uint64_t)r;
	return true;
}

static void host_close(struct mconn *m)
{
	if (m->fd < 0)
		return;
	/* Unread bytes are lost by the host's own choice. */
	m->aborted = true;
	m->host_closed = true;
	close(m->fd);
	m->fd = -1;
}

/* ---- schedules ---- */

static void one_turn(void)
{
	const char *why;

	loop_turn(g.loop, 0);
	why = vsock_check(g.v);
	check(!why, "%s", why);
	check(!g.failed, "the device asked for a reset: %s", g.failed);
}

static void step(void)
{
	struct mconn *m = &conn[below(CONNS)];

	switch (below(22)) {
	case 0:
		if (!m->used && below(2))
			host_connect(m);
		break;
	case 1:
	case 2:
	case 3:
	case 4:
		if (m->used)
			host_write(m);
		break;
	case 5:
	case 6:
	case 7:
		if (m->used)
			host_read(m, size_of_something());
		break;
	case 8:
	case 9:
	case 10:
		if (m->used)
			guest_write(m);
		break;
	case 11:
	case 12:
		guest_receive(1 + below(40));
		break;
	case 13:
	case 14:
		if (m->used)
			guest_take(m, size_of_something());
		break;
	case 15:
		vg_refill(&g, 1 + below(VG_RX_RING));
		break;
	case 16:
		vg_kick(&g, 1);
		break;
	case 17:
		if (m->used && !below(12) && m->fd >= 0 && !m->host_wr_shut) {
			m->host_wr_shut = true;
			shutdown(m->fd, SHUT_WR);
		} else if (m->used && !below(20)) {
			guest_shutdown(m, SHUT_F_SEND);
		} else if (m->used && !below(40)) {
			guest_shutdown(m, SHUT_F_BOTH);
		} else if (m->used && !below(60)) {
			host_close(m);
		} else if (m->used && m->open && !below(10)) {
			guest_send(m, OP_CREDIT_REQUEST, 0, NULL, 0);
		} else if (m->used && m->open && !m->seq && !below(10)) {
			m->alloc = 1 + below(262144);
			m->shrunk = true;
			guest_update(m);
		}
		break;
	default:
		one_turn();
	}
}

static uint64_t state_sum(void)
{
	/* (posts: one that waited for the tx ring is progress too.) */
	uint64_t s = posts + vsock_counters(g.v)->control_sent +
		     vsock_counters(g.v)->h2g_packets;

	for (int i = 0; i < CONNS; i++)
		s += conn[i].g_got + conn[i].g_taken + conn[i].h_got +
		     conn[i].g_sent + conn[i].guest_eof + conn[i].host_eof;
	return s;
}

static void everybody(void)
{
	vg_kick(&g, 1);
	one_turn();
	vg_refill(&g, VG_RX_RING);
	one_turn();
	guest_receive(1000);
	for (int i = 0; i < CONNS; i++) {
		struct mconn *m = &conn[i];

		if (!m->used)
			continue;
		guest_take(m, UINT64_MAX);
		if (m->owes_update && !m->guest_gone)
			guest_update(m);
		if (m->g_left) /* finish the message */
			guest_write(m);
		while (host_read(m, 65536))
			;
	}
	vg_kick(&g, 1);
	one_turn();
}

static void oracle(void)
{
	for (int i = 0; i < CONNS; i++) {
		struct mconn *m = &conn[i];

		if (!m->used || m->aborted || !m->open || m->guest_gone)
			continue;
		check(m->g_got == m->h_sent,
		      "connection %d%s: %llu bytes of the host's %llu reached "
		      "the guest",
		      m->id, m->seq ? " (seq)" : "",
		      (unsigned long long)m->g_got,
		      (unsigned long long)m->h_sent);
		check(m->h_got == m->g_sent || m->host_closed,
		      "connection %d%s: %llu bytes of the guest's %llu reached "
		      "the host",
		      m->id, m->seq ? " (seq)" : "",
		      (unsigned long long)m->h_got,
		      (unsigned long long)m->g_sent);
		check(!m->h2g.n && (!m->g2h.n || m->g_left),
		      "messages are missing");
		check(!m->host_wr_shut || m->guest_eof, "no EOF for the guest");
		check(!m->guest_send_shut || m->host_eof,
		      "no EOF for the host");
	}
}

static void drain(void)
{
	uint64_t before, rounds = 0;

	do {
		before = state_sum();
		everybody();
		if (old_kernel && state_sum() == before)
			vg_advance(&g, 3000000000ull);
		/* (A window may be 2 bytes, and a host half a MiB ahead.) */
		check(++rounds < 1000000, "no rest");
	} while (state_sum() != before);
	everybody();
	oracle();
}

static void recycle(void)
{
	for (int i = 0; i < CONNS; i++) {
		struct mconn *m = &conn[i];

		if (!m->used || !m->asked || below(2))
			continue;
		if (m->fd >= 0)
			host_close(m);
		if (m->open && !m->guest_gone)
			guest_shutdown(m, SHUT_F_BOTH);
	}
	for (int i = 0; i < 4; i++)
		everybody();
	vg_advance(&g, 10000000000ull);
	for (int i = 0; i < 4; i++)
		everybody();
	for (int i = 0; i < CONNS; i++)
		if (conn[i].guest_gone && conn[i].fd < 0)
			conn[i].used = conn[i].asked = false;
}

static void run_seed(uint64_t seed)
{
	struct vg_opts o = { 0 };
	uint32_t first;

	seed_now = seed;
	rng = seed * 0x9e3779b97f4a7c15ull + 1;
	memset(&g, 0, sizeof(g));
	memset(conn, 0, sizeof(conn));
	for (int i = 0; i < 4; i++)
		rnd();
	first = below(2) ? 0 : 0u - below(300000);
	old_kernel = !below(3);
	o.config.first_count = first;
	o.no_event_idx = !below(4);
	if (below(2))
		o.config.socket_buf = 4096 + below(60000);
	g.no_refill = true;
	g.rx_pieces = below(5) ? 1 : 2 + below(50);
	g.tx_pieces = below(4) ? 0 : 1 + below(50);
	if (!below(6))
		g.rx_buf = 128 + below(8000);
	vg_open(&g, &o);
	for (int i = 0; i < CONNS; i++)
		conn[i].first = first;
	for (int i = 0; i < STEPS; i++) {
		step();
		if (!below(400))
			drain();
		if (!below(700))
			recycle();
		conn[0].first = first;
	}
	drain();
	for (int i = 0; i < CONNS; i++)
		if (conn[i].fd > 0)
			close(conn[i].fd);
	vg_close(&g);
	schedules++;
}

static uint64_t env(const char *name, uint64_t otherwise)
{
	const char *s = getenv(name);

	return s ? strtoull(s, NULL, 0) : otherwise;
}

static void test_schedules(void **state)
{
	uint64_t seed = env("VSOCK_SEED", 1), n = env("VSOCK_SEEDS", 150);
	uint64_t seconds = env("VSOCK_SECONDS", 0);
	uint64_t until = clock_ns() + seconds * NSEC_PER_SEC;

	(void)state;
	for (uint64_t i = 0; seconds ? clock_ns() < until : i < n; i++)
		run_seed(seed + i);
	print_message("%llu schedules, %llu MiB moved\n",
		      (unsigned long long)schedules,
		      (unsigned long long)(moved_total >> 20));
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_schedules) };

	return cmocka_run_group_tests_name("vsock-stress", tests, NULL, NULL);
}
