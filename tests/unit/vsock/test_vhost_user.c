/*
 * The vhost-user back end against front ends of all kinds: one that follows the
 * protocol and gets a working device, and those that do not.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/util.h"
#include "ring.h"
#include "virtio/vsock/packet.h"
#include "virtio/vsock/vsock.h"

#define CID 42
#define RAM (1u << 20)
#define UVA 0x7f0000000000ull

static struct loop *loop;
static struct vsock_vhost_user *back;
static char path[64];
static int fd = -1, memory = -1;
static int got;

static void settle(void)
{
	for (int i = 0; loop_turn(loop, 0) > 0; i++)
		assert_true(i < 100000);
}

static void dial(void)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };

	if (fd >= 0)
		close(fd);
	settle();
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", path);
	assert_int_equal(connect(fd, (void *)&sun, sizeof(sun)), 0);
	settle();
}

static int up(void **state)
{
	struct vsock_config c = { .guest_cid = CID };
	struct err e = { 0 };

	(void)state;
	snprintf(path, sizeof(path), "/tmp/vhost-user-test-%d", getpid());
	if (loop_create(&loop, NULL) ||
	    vsock_vhost_user_create(&back, loop, path, &c, &e))
		return -1;
	memory = memfd_create("ram", MFD_CLOEXEC);
	if (ftruncate(memory, RAM))
		return -1;
	dial();
	return 0;
}

static int down(void **state)
{
	(void)state;
	if (fd >= 0)
		close(fd);
	fd = -1;
	settle();
	vsock_vhost_user_destroy(back);
	loop_destroy(loop);
	close(memory);
	return 0;
}

static void send_raw(const void *buf, size_t n, const int *fds, unsigned nfds)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int) * 8)];
	} u = { 0 };
	struct iovec iov = { (void *)buf, n };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (nfds) {
		struct cmsghdr *c;

		m.msg_control = u.space;
		m.msg_controllen = CMSG_SPACE(sizeof(int) * nfds);
		c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * nfds);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * nfds);
	}
	sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
	settle();
}

static void request(uint32_t what, const void *body, uint32_t n, int pass)
{
	uint8_t raw[12 + 256];

	put_le32(raw, what);
	put_le32(raw + 4, 1);
	put_le32(raw + 8, n);
	memcpy(raw + 12, body, n);
	send_raw(raw, 12 + n, &pass, pass >= 0);
}

static uint64_t ask_u64(uint32_t what)
{
	uint8_t raw[64];

	request(what, "", 0, -1);
	assert_int_equal(recv(fd, raw, sizeof(raw), 0), 20);
	assert_int_equal(get_le32(raw), what);
	return get_le64(raw + 12);
}

static bool hung_up(void)
{
	char c[512];
	ssize_t r;

	settle();
	do
		r = recv(fd, c, sizeof(c), MSG_DONTWAIT);
	while (r > 0);
	return r == 0 || errno == ECONNRESET;
}

static void set_u64(uint32_t what, uint64_t v, int pass)
{
	uint8_t b[8];

	put_le64(b, v);
	request(what, b, 8, pass);
}

static void set_ring(uint32_t what, uint32_t q, uint32_t v)
{
	uint8_t b[8];

	put_le32(b, q);
	put_le32(b + 4, v);
	request(what, b, 8, -1);
}

static void set_memory(uint64_t size, uint64_t offset)
{
	uint8_t b[40] = { 1 };

	put_le64(b + 8, 0);
	put_le64(b + 16, size);
	put_le64(b + 24, UVA);
	put_le64(b + 32, offset);
	request(5, b, sizeof(b), memory);
}

static void set_addr(uint32_t q, const struct vq_config *c, uint64_t base)
{
	uint8_t b[40] = { 0 };

	put_le32(b, q);
	put_le64(b + 8, base + c->desc.v);
	put_le64(b + 16, base + c->used.v);
	put_le64(b + 24, base + c->avail.v);
	request(9, b, sizeof(b), -1);
}

static void done(struct vsock_connect *r, int rc)
{
	(void)r;
	got = rc;
}

static void test_works(void **state)
{
	static struct vsock_connect req;
	struct gmem_region region = { .size = RAM, .fd = -1 };
	int kick[2], call[2];
	struct ring ring[2];
	struct gmem *m;
	uint8_t raw[64], *ram;
	struct pkt_hdr h;
	uint32_t len;
	uint64_t n;

	(void)state;
	assert_true(ask_u64(1) & 1ull << 32);
	assert_true(ask_u64(15) & 1 << 9);
	assert_int_equal(ask_u64(17), 2);
	/* The config space: 8 bytes of CID. */
	memset(raw, 0, sizeof(raw));
	put_le32(raw + 4, 8);
	request(24, raw, 20, -1);
	assert_int_equal(recv(fd, raw, sizeof(raw), 0), 32);
	assert_int_equal(get_le64(raw + 24), CID);

	ram = mmap(NULL, RAM, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
	region.host = ram;
	assert_int_equal(gmem_create(&m), 0);
	assert_int_equal(gmem_add_mapping(m, &region, NULL), 0);
	set_u64(2, 1ull << 32 | 1ull << 29 | 1, -1);
	set_memory(RAM, 0);
	for (uint32_t q = 0; q < 2; q++) {
		ring_init(&ring[q], m, 0x10000 * (q + 1), 16, true);
		kick[q] = eventfd(0, EFD_NONBLOCK);
		call[q] = eventfd(0, EFD_NONBLOCK);
		set_ring(8, q, 16);
		set_ring(10, q, 0);
		set_addr(q, &ring[q].config, UVA);
		set_u64(13, q, call[q]);
		if (q)
			continue;
		set_u64(12, q, kick[q]);
	}
	for (uint32_t i = 0; i < 8; i++) {
		struct ring_buf b = { 0x40000 + i * 4096, 4096, true };

		ring_add(&ring[0], &b, 1, ram + b.addr);
	}
	ring_publish(&ring[0]);
	req = (struct vsock_connect){ .port = 5,
				      .type = VSOCK_STREAM,
				      .timeout_ns = 60000000000ull,
				      .done = done };
	vsock_connect_start(vsock_vhost_user_core(back), &req);
	settle();
	assert_null(ring_get(&ring[0], &len)); /* queue 1 has no kick yet */
	set_u64(12, 1, kick[1]);
	{
		const uint8_t *pkt = ring_get(&ring[0], &len);

		assert_non_null(pkt);
		pkt_get(&h, pkt);
	}
	assert_int_equal(h.op, OP_REQUEST);
	assert_int_equal(h.dst_port, 5);
	assert_int_equal(read(call[0], &n, 8), 8);
	/* GET_VRING_BASE stops the ring and says where it was. */
	set_ring(11, 0, 0);
	assert_int_equal(recv(fd, raw, sizeof(raw), 0), 20);
	assert_int_equal(get_le32(raw + 16), 1);
	/* Hang up, and the next front end is welcome. */
	for (unsigned q = 0; q < 2; q++) {
		ring_fini(&ring[q]);
		close(kick[q]);
		close(call[q]);
	}
	gmem_destroy(m);
	munmap(ram, RAM);
	dial();
	assert_int_equal(got, -ECONNRESET);
	assert_true(ask_u64(1) & 1);
}

static void test_nonsense(void **state)
{
	static const struct vq_config far = { .desc = { 1ull << 40 },
					      .avail = { 1ull << 40 },
					      .used = { 1ull << 40 } };
	uint8_t raw[16] = { 1 };

	(void)state;
	/* A body larger than any; a reply; a wrong version. */
	put_le32(raw + 4, 1);
	put_le32(raw + 8, 1 << 20);
	send_raw(raw, 12, NULL, 0);
	assert_true(hung_up());
	dial();
	put_le32(raw + 8, 0);
	put_le32(raw + 4, 1 | 4);
	send_raw(raw, 12, NULL, 0);
	assert_true(hung_up());
	dial();
	put_le32(raw + 4, 2);
	send_raw(raw, 12, NULL, 0);
	assert_true(hung_up());
	/* In pieces it is fine. */
	dial();
	put_le32(raw + 4, 1);
	for (int i = 0; i < 12; i++)
		send_raw(raw + i, 1, NULL, 0);
	assert_int_equal(recv(fd, raw, 16, 0), 16);
	/* Bad index, size, descriptor, features, memory. */
	dial();
	set_ring(8, 7, 16);
	assert_true(hung_up());
	dial();
	set_ring(8, 0, 17);
	assert_true(hung_up());
	dial();
	set_u64(12, 0, -1);
	assert_true(hung_up());
	dial();
	set_u64(2, 1ull << 60, -1);
	assert_true(hung_up());
	dial();
	set_memory(RAM, 4096);
	assert_true(hung_up());
	dial();
	set_memory(UINT64_MAX - 10, 4096);
	assert_true(hung_up());
	dial();
	request(5, "\377\377\377\377....", 8, memory);
	assert_true(hung_up());
	dial();
	request(99, "", 0, -1);
	assert_true(hung_up());
	/* Rings that are nowhere do not start, and harm nobody. */
	dial();
	set_u64(2, 1ull << 32, -1);
	set_memory(RAM, 0);
	for (uint32_t q = 0; q < 2; q++) {
		int k = eventfd(0, EFD_NONBLOCK);

		set_ring(8, q, 16);
		set_addr(q, &far, 0);
		set_u64(12, q, k);
		close(k);
	}
	assert_true(ask_u64(1) & 1);
}

/* Random messages that look like some. */
static void test_noise(void **state)
{
	uint64_t s = 12345;
	uint8_t raw[128];

	(void)state;
	for (int i = 0; i < 20000; i++) {
		uint32_t n;

		for (unsigned k = 0; k < sizeof(raw); k += 8) {
			s ^= s << 13;
			s ^= s >> 7;
			s ^= s << 17;
			put_le64(raw + k, s);
		}
		n = raw[100] % 60;
		put_le32(raw, raw[0] % 45);
		put_le32(raw + 4, raw[4] & 8 ? 9 : 1);
		put_le32(raw + 8, n);
		if (raw[101] & 1)
			put_le32(raw + 12, raw[12] & 3);
		if (raw[101] & 2)
			put_le32(raw + 16, 1u << (raw[16] % 12));
		send_raw(raw, 12 + n, &memory, raw[102] & 1);
		if (hung_up())
			dial();
	}
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, up, down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_works),
		T(test_nonsense),
		T(test_noise),
	};

	return cmocka_run_group_tests_name("vhost-user", tests, NULL, NULL);
}
