/* The console device and what is behind its ports. */
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include "backend/stream.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/util.h"
#include "snap/snap.h"
#include "virtio/console.h"
#include "virtio/harness.h"

#define F_MULTIPORT (1ull << 1)

enum { RX = 0, TX = 1, CTRL_RX = 2, CTRL_TX = 3 };
enum { READY, ADD, REMOVE, PORT_READY, CONSOLE, RESIZE, OPEN, NAME };

/* A host program behind a port, that takes and gives as told. */
struct host {
	char got[200000];
	size_t len, room; /* what it takes yet */
	const char *give;
	unsigned opens, closes;
};

static size_t host_write(void *ctx, const struct iovec *iov, int n)
{
	struct host *h = ctx;
	size_t took = 0;

	for (int i = 0; i < n && h->room; i++) {
		size_t step = min_of(iov[i].iov_len, h->room);

		memcpy(h->got + h->len, iov[i].iov_base, step);
		h->len += step;
		h->room -= step;
		took += step;
	}
	return took;
}

static size_t host_read(void *ctx, const struct iovec *iov, int n)
{
	struct host *h = ctx;
	size_t step;

	(void)n;
	if (!h->give || !*h->give)
		return 0;
	step = min_of(iov[0].iov_len, strlen(h->give));
	memcpy(iov[0].iov_base, h->give, step);
	h->give += step;
	return step;
}

static void host_open(void *ctx, bool open)
{
	struct host *h = ctx;

	h->opens += open;
	h->closes += !open;
}

static struct stream *host_stream(struct harness *h, struct host *host)
{
	const struct stream_host sh = { host_write, host_read, host };
	struct stream *s;

	assert_int_equal(stream_open_host(&s, h->loop, &sh, NULL), 0);
	return s;
}

/*
 * The stream needs a loop before harness_open() makes one: open a console that
 * is off, and its parts by hand.
 */
static void open_console(struct harness *h, const char *options,
			 struct host *host, unsigned nports)
{
	struct virtio_console_port ports[3];
	struct virtio_console_host ch = { .ports = ports, .nports = nports };
	struct virtio_env env;

	assert_int_equal(harness_open(h, "console", "off", NULL, NULL, NULL),
			 0);
	virtio_mmio_destroy(h->mmio);
	virtio_dev_destroy(h->dev);
	for (unsigned i = 0; i < nports; i++)
		ports[i] = (struct virtio_console_port){
			.name = i ? "org.test.two" : "org.test.one",
			.stream = host_stream(h, &host[i + 1]),
			.guest_open = host_open,
			.ctx = &host[i + 1],
		};
	if (host)
		ch.console = host_stream(h, host);
	env = (struct virtio_env){ .mem = h->mem,
				   .loop = h->loop,
				   .host = &ch };
	assert_int_equal(virtio_dev_create(virtio_dev_type_by_name("console"),
					   &env, options, &h->dev, NULL),
			 0);
	assert_int_equal(virtio_mmio_create(h->dev, &h->mmio), 0);
}

static int say(struct harness *h, unsigned q, const char *text)
{
	struct harness_buf b = { harness_alloc(h, strlen(text)),
				 (uint32_t)strlen(text), false };
	int head;

	memcpy(harness_ptr(h, b.at, b.len), text, b.len);
	head = harness_post(h, q, &b, 1);
	harness_kick(h, q);
	return head;
}

static gpa_t listen_on(struct harness *h, unsigned q, uint32_t len)
{
	struct harness_buf b = { harness_alloc(h, len), len, true };

	assert_true(harness_post(h, q, &b, 1) >= 0);
	harness_kick(h, q);
	return b.at;
}

static void plain(void **state)
{
	struct host host = { .room = 1000, .give = "hello" };
	struct harness_used u;
	struct harness h;
	gpa_t at;

	(void)state;
	open_console(&h, "", &host, 0);
	harness_start(&h, 0);
	assert_false(h.features & F_MULTIPORT);
	say(&h, TX, "boot ");
	say(&h, TX, "message");
	assert_true(harness_wait_used(&h, TX, &u, 1000));
	assert_true(harness_wait_used(&h, TX, &u, 1000));
	assert_string_equal(host.got, "boot message");
	/* Input comes when there are buffers, as much as there is. */
	at = listen_on(&h, RX, 100);
	assert_true(harness_wait_used(&h, RX, &u, 1000));
	assert_int_equal(u.len, 5);
	assert_memory_equal(harness_ptr(&h, at, 5), "hello", 5);
	at = listen_on(&h, RX, 100);
	harness_settle(&h);
	assert_false(harness_used(&h, RX, &u));
	host.give = "x";
	stream_host_ready(virtio_console_stream(h.dev, 0));
	assert_true(harness_wait_used(&h, RX, &u, 1000));
	assert_int_equal(u.len, 1);
	harness_close(&h);
}

/* Offering buffers that cannot be is noticed with no input to put into them. */
static void broken_input(void **state)
{
	struct host host = { .room = 1000 };
	struct harness h;

	(void)state;
	open_console(&h, "", &host, 0);
	harness_start(&h, 0);
	harness_settle(&h);
	h.q[RX].a[1] = 1000;
	harness_force_kick(&h, RX);
	harness_settle(&h);
	assert_true(harness_reg(&h, REG_STATUS) & VIRTIO_S_NEEDS_RESET);
	assert_true(harness_reset(&h));
	harness_start(&h, 0);
	say(&h, TX, "again");
	harness_settle(&h);
	assert_string_equal(host.got, "again");
	harness_close(&h);
}

/* A host that reads slowly: no byte is lost, memory is bounded. */
static void back_pressure(void **state)
{
	static char text[5000], all[200000];
	struct host *host = calloc(1, sizeof(*host));
	unsigned posted = 0, used = 0, stuck = 0, n = 33;
	struct harness_used u;
	struct harness h;

	(void)state;
	open_console(&h, "", host, 0);
	harness_start(&h, 0);
	for (unsigned i = 0; i < sizeof(text) - 1; i++)
		text[i] = (char)('a' + i % 23);
	for (unsigned i = 0; i < n; i++) {
		char stamp[16];

		sprintf(stamp, "<%u>", i);
		memcpy(text, stamp, strlen(stamp));
		strcat(all, text);
		say(&h, TX, text);
		posted++;
		harness_settle(&h);
		while (harness_used(&h, TX, &u))
			used++;
	}
	/* The stream's tail is full, the rest waits with the guest. */
	assert_in_range(used, STREAM_BACKLOG / 5000 - 1,
			STREAM_BACKLOG / 5000 + 1);
	assert_int_equal(host->len, 0);
	while (used < n && stuck < 100000) {
		host->room += 777;
		stream_host_ready(virtio_console_stream(h.dev, 0));
		harness_settle(&h);
		while (harness_used(&h, TX, &u))
			used++;
		stuck++;
	}
	assert_int_equal(used, n);
	host->room = sizeof(host->got);
	stream_host_ready(virtio_console_stream(h.dev, 0));
	harness_settle(&h);
	assert_int_equal(host->len, strlen(all));
	assert_memory_equal(host->got, all, host->len);
	harness_close(&h);
	free(host);
}

static void send_ctrl(struct harness *h, uint32_t id, uint16_t event,
		      uint16_t value)
{
	struct harness_buf b = { harness_alloc(h, 8), 8, false };
	uint8_t *p = harness_ptr(h, b.at, 8);
	struct harness_used u;

	put_le32(p, id);
	put_le16(p + 4, event);
	put_le16(p + 6, value);
	harness_post(h, CTRL_TX, &b, 1);
	harness_kick(h, CTRL_TX);
	assert_true(harness_wait_used(h, CTRL_TX, &u, 1000));
}

/* The next control message, as "id event value text". */
static char *get_ctrl(struct harness *h)
{
	static char text[100];
	struct harness_used u;
	struct harness_buf b = { harness_alloc(h, 64), 64, true };
	uint8_t *p = harness_ptr(h, b.at, 64);

	harness_post(h, CTRL_RX, &b, 1);
	harness_kick(h, CTRL_RX);
	if (!harness_wait_used(h, CTRL_RX, &u, 1000))
		return "nothing";
	assert_true(u.len >= 8);
	if (get_le16(p + 4) == RESIZE)
		sprintf(text, "%u %u %u %ux%u", get_le32(p), get_le16(p + 4),
			get_le16(p + 6), get_le16(p + 8), get_le16(p + 10));
	else
		sprintf(text, "%u %u %u %.*s", get_le32(p), get_le16(p + 4),
			get_le16(p + 6), (int)u.len - 8, p + 8);
	return text;
}

static void start_ports(struct harness *h, unsigned n)
{
	harness_start(h, 0);
	assert_true(h->features & F_MULTIPORT);
	assert_int_equal(virtio_mmio_read(h->mmio, REG_CONFIG + 4, 4), n);
	send_ctrl(h, 0xffffffff, READY, 1);
	assert_string_equal(get_ctrl(h), "0 1 1 ");
	assert_string_equal(get_ctrl(h), "1 1 1 ");
	assert_string_equal(get_ctrl(h), "2 1 1 ");
	send_ctrl(h, 0, PORT_READY, 1);
	assert_string_equal(get_ctrl(h), "0 4 1 ");
	assert_string_equal(get_ctrl(h), "0 5 0 90x30");
	assert_string_equal(get_ctrl(h), "0 6 1 ");
	send_ctrl(h, 1, PORT_READY, 1);
	assert_string_equal(get_ctrl(h), "1 7 1 org.test.one");
	assert_string_equal(get_ctrl(h), "1 6 1 ");
	send_ctrl(h, 2, PORT_READY, 1);
	assert_string_equal(get_ctrl(h), "2 7 1 org.test.two");
	assert_string_equal(get_ctrl(h), "2 6 1 ");
}

static void ports(void **state)
{
	struct host *host = calloc(3, sizeof(*host));
	struct harness_used u;
	struct harness h;
	gpa_t at;

	(void)state;
	for (unsigned i = 0; i < 3; i++)
		host[i].room = 1000;
	open_console(&h, "cols=90,rows=30", host, 2);
	start_ports(&h, 3);
	/* Data of port 1 is in queues 4 and 5. */
	say(&h, 5, "status");
	assert_true(harness_wait_used(&h, 5, &u, 1000));
	assert_string_equal(host[1].got, "status");
	say(&h, 7, "two");
	assert_true(harness_wait_used(&h, 7, &u, 1000));
	assert_string_equal(host[2].got, "two");
	/* Nothing is given to a port the guest has not open. */
	host[1].give = "input";
	stream_host_ready(virtio_console_stream(h.dev, 1));
	at = listen_on(&h, 4, 10);
	harness_settle(&h);
	assert_false(harness_used(&h, 4, &u));
	send_ctrl(&h, 1, OPEN, 1);
	assert_true(harness_wait_used(&h, 4, &u, 1000));
	assert_memory_equal(harness_ptr(&h, at, 5), "input", 5);
	assert_int_equal(host[1].opens, 1);
	send_ctrl(&h, 1, OPEN, 0);
	send_ctrl(&h, 77, OPEN, 1); /* no such port, no such event */
	send_ctrl(&h, 1, 999, 1);
	assert_int_equal(host[1].closes, 1);
	/* Sizes: the newest only, however many there were. */
	virtio_console_resize(h.dev, 0, 100, 40);
	virtio_console_resize(h.dev, 0, 132, 43);
	virtio_console_resize(h.dev, 9, 1, 1);
	assert_string_equal(get_ctrl(&h), "0 5 0 132x43");
	assert_int_equal(virtio_mmio_read(h.mmio, REG_CONFIG, 4),
			 43 << 16 | 132);
	/* Reset forgets; a second driver finds all as the first. */
	send_ctrl(&h, 1, OPEN, 1);
	assert_true(harness_reset(&h));
	assert_int_equal(host[1].closes, 2);
	h.bump = 0x1000;
	virtio_console_resize(h.dev, 0, 90, 30);
	start_ports(&h, 3);
	harness_close(&h);
	free(host);
}

static void bad_control(void **state)
{
	struct host *host = calloc(3, sizeof(*host));
	struct harness_buf b;
	struct harness h;

	(void)state;
	open_console(&h, "cols=90,rows=30", host, 2);
	harness_start(&h, 0);
	/* Short messages are no messages. */
	b = (struct harness_buf){ harness_alloc(&h, 8), 7, false };
	assert_int_equal(harness_do(&h, CTRL_TX, &b, 1), 0);
	/* A buffer that can hold none is a mistake. */
	listen_on(&h, CTRL_RX, 7);
	send_ctrl(&h, 0, READY, 1);
	harness_settle(&h);
	assert_true(harness_reg(&h, REG_STATUS) & VIRTIO_S_NEEDS_RESET);
	harness_close(&h);
	free(host);
}

static void emergency(void **state)
{
	struct host host = { .room = 10 };
	struct harness h;

	(void)state;
	open_console(&h, "", &host, 0);
	/* Works without a driver. */
	virtio_mmio_write(h.mmio, REG_CONFIG + 8, 4, 'A');
	virtio_mmio_write(h.mmio, REG_CONFIG + 8, 1, 'B');
	assert_string_equal(host.got, "AB");
	harness_close(&h);
}

/* A chain of which a part went out is not sent twice after a snapshot. */
static void snapshot_mid_chain(void **state)
{
	static char text[STREAM_BACKLOG + 1000];
	struct host *host = calloc(1, sizeof(*host));
	struct harness_used u;
	struct snap_writer w;
	struct snap_reader r;
	struct harness h;

	(void)state;
	memset(text, 'x', sizeof(text) - 1);
	memcpy(text + sizeof(text) - 5, "tail", 4);
	open_console(&h, "", host, 0);
	harness_start(&h, 0);
	say(&h, TX, text);
	harness_settle(&h);
	assert_false(harness_used(&h, TX, &u));
	assert_true(harness_quiesce(&h));
	snap_begin(&w);
	virtio_dev_save(h.dev, &w, 0);
	virtio_mmio_save(h.mmio, &w, 0);
	assert_int_equal(snap_finish(&w), 0);
	assert_int_equal(snap_open(&r, w.buf, w.len, NULL), 0);

	/* A new device over the same memory; its stream takes what is left. */
	virtio_mmio_destroy(h.mmio);
	virtio_dev_destroy(h.dev);
	host->room = 10000;
	{
		struct virtio_console_host ch = { .console = host_stream(
							  &h, host) };
		struct virtio_env env = { .mem = h.mem,
					  .loop = h.loop,
					  .host = &ch };

		assert_int_equal(
			virtio_dev_create(virtio_dev_type_by_name("console"),
					  &env, "", &h.dev, NULL),
			0);
	}
	assert_int_equal(virtio_mmio_create(h.dev, &h.mmio), 0);
	assert_int_equal(virtio_dev_restore(h.dev, &r, 0, NULL), 0);
	virtio_dev_resume(h.dev);
	assert_true(harness_wait_used(&h, TX, &u, 1000));
	assert_int_equal(host->len, 999);
	assert_memory_equal(host->got + 995, "tail", 4);
	harness_close(&h);
	free(host);
	free(w.buf);
}

/* ---- streams ---- */

static void file_and_pipe(void **state)
{
	char path[] = "/tmp/arcvmm-con-XXXXXX", options[100], buf[100];
	struct harness_used u;
	struct harness h;
	int fd = mkstemp(path), in[2], out[2];
	gpa_t at;

	(void)state;
	snprintf(options, sizeof(options), "file:%s", path);
	assert_int_equal(harness_open(&h, "console", options, NULL, NULL, NULL),
			 0);
	harness_start(&h, 0);
	say(&h, TX, "to a file");
	assert_true(harness_wait_used(&h, TX, &u, 1000));
	harness_close(&h);
	assert_int_equal(read(fd, buf, sizeof(buf)), 9);

	assert_int_equal(pipe(in) | pipe(out), 0);
	snprintf(options, sizeof(options), "fd:%d:%d", in[0], out[1]);
	assert_int_equal(harness_open(&h, "console", options, NULL, NULL, NULL),
			 0);
	harness_start(&h, 0);
	assert_int_equal(fcntl(in[0], F_GETFL) & O_NONBLOCK, 0);
	say(&h, TX, "to a pipe");
	assert_true(harness_wait_used(&h, TX, &u, 1000));
	assert_int_equal(read(out[0], buf, sizeof(buf)), 9);
	at = listen_on(&h, RX, 50);
	harness_settle(&h);
	assert_int_equal(write(in[1], "typed", 5), 5);
	assert_true(harness_wait_used(&h, RX, &u, 1000));
	assert_memory_equal(harness_ptr(&h, at, 5), "typed", 5);
	/* The end of input: silence, and output still works. */
	close(in[1]);
	listen_on(&h, RX, 50);
	harness_settle(&h);
	assert_int_equal(loop_turn(h.loop, 0), 0);
	say(&h, TX, "still");
	assert_true(harness_wait_used(&h, TX, &u, 1000));
	/* Nobody reads any more: the guest goes on, and we live. */
	close(out[0]);
	say(&h, TX, "lost");
	assert_true(harness_wait_used(&h, TX, &u, 1000));
	harness_close(&h);
	close(in[0]);
	close(out[1]);
	close(fd);
	unlink(path);
}

static void regular_input(void **state)
{
	char path[] = "/tmp/arcvmm-con-XXXXXX", options[100];
	int fd = mkstemp(path), sink = open("/dev/null", O_WRONLY);
	struct harness_used u;
	struct harness h;
	gpa_t at;

	(void)state;
	assert_int_equal(write(fd, "script", 6), 6);
	lseek(fd, 0, SEEK_SET);
	snprintf(options, sizeof(options), "fd:%d:%d", fd, sink);
	assert_int_equal(harness_open(&h, "console", options, NULL, NULL, NULL),
			 0);
	harness_start(&h, 0);
	at = listen_on(&h, RX, 4);
	assert_true(harness_wait_used(&h, RX, &u, 1000));
	assert_memory_equal(harness_ptr(&h, at, 4), "scri", 4);
	at = listen_on(&h, RX, 4);
	assert_true(harness_wait_used(&h, RX, &u, 1000));
	assert_int_equal(u.len, 2);
	listen_on(&h, RX, 4);
	harness_settle(&h);
	assert_false(harness_used(&h, RX, &u));
	assert_int_equal(loop_turn(h.loop, 0), 0);
	harness_close(&h);
	close(fd);
	close(sink);
	unlink(path);
}

static int dial(const char *path)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

	strcpy(sa.sun_path, path);
	assert_int_equal(connect(fd, (void *)&sa, sizeof(sa)), 0);
	return fd;
}

/* Read from @fd while turning the loop until @want is there. */
static void expect(struct harness *h, int fd, const char *want)
{
	uint64_t end = clock_ns() + 2 * NSEC_PER_SEC;
	char buf[200] = "";
	size_t len = 0;

	while (len < strlen(want) && clock_ns() < end) {
		ssize_t n;

		loop_turn(h->loop, 10);
		n = read(fd, buf + len, strlen(want) - len);
		len += n > 0 ? (size_t)n : 0;
	}
	assert_string_equal(buf, want);
}

/* A console that listens at a new path, which @path gets. */
static void open_unix(struct harness *h, char path[32])
{
	char options[100];

	strcpy(path, "/tmp/arcvmm-sock-XXXXXX");
	close(mkstemp(path));
	unlink(path);
	snprintf(options, sizeof(options), "unix:%s", path);
	assert_int_equal(harness_open(h, "console", options, NULL, NULL, NULL),
			 0);
	harness_start(h, 0);
}

static void unix_socket(void **state)
{
	char path[32], options[100];
	struct harness_used u;
	struct harness h, h2;
	struct err e = { 0 };
	int fd, fd2, i;
	gpa_t at;

	(void)state;
	open_unix(&h, path);
	snprintf(options, sizeof(options), "unix:%s", path);
	/* Output before anybody listens is kept. */
	say(&h, TX, "early ");
	assert_true(harness_wait_used(&h, TX, &u, 1000));
	fd = dial(path);
	expect(&h, fd, "early ");
	say(&h, TX, "late");
	expect(&h, fd, "late");
	at = listen_on(&h, RX, 50);
	assert_int_equal(write(fd, "ls\n", 3), 3);
	assert_true(harness_wait_used(&h, RX, &u, 1000));
	assert_memory_equal(harness_ptr(&h, at, 3), "ls\n", 3);
	while (harness_used(&h, TX, &u))
		;
	/* A second one waits its turn. */
	fd2 = dial(path);
	harness_settle(&h);
	/* The first stops sending, and still hears. */
	shutdown(fd, SHUT_WR);
	listen_on(&h, RX, 50);
	harness_settle(&h);
	say(&h, TX, "half");
	expect(&h, fd, "half");
	close(fd);
	say(&h, TX, "next");
	expect(&h, fd2, "next");
	/* Who leaves with words unread by the guest: they arrive. */
	assert_int_equal(write(fd2, "bye", 3), 3);
	close(fd2);
	assert_true(harness_wait_used(&h, RX, &u, 1000));
	assert_int_equal(u.len, 3);
	harness_settle(&h);
	for (i = 0; i < 3; i++) {
		fd = dial(path);
		harness_settle(&h);
		close(fd);
		harness_settle(&h);
	}
	assert_int_equal(loop_turn(h.loop, 0), 0);
	/* The path is taken; and free when we are gone, or died. */
	assert_int_equal(harness_open(&h2, "console", options, NULL, NULL, &e),
			 -EADDRINUSE);
	assert_non_null(strstr(e.text, "listens there already"));
	harness_close(&h2);
	harness_close(&h);
	assert_int_equal(access(path, F_OK), -1);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	{
		struct sockaddr_un sa = { .sun_family = AF_UNIX };

		strcpy(sa.sun_path, path);
		assert_int_equal(bind(fd, (void *)&sa, sizeof(sa)), 0);
	}
	close(fd);
	assert_int_equal(harness_open(&h2, "console", options, NULL, NULL, &e),
			 0);
	harness_close(&h2);
	/* A file of the user's is no socket that somebody left behind. */
	close(open(path, O_WRONLY | O_CREAT | O_EXCL, 0600));
	assert_int_equal(harness_open(&h2, "console", options, NULL, NULL, &e),
			 -EEXIST);
	assert_non_null(strstr(e.text, "is not a socket"));
	harness_close(&h2);
	assert_int_equal(unlink(path), 0);
}

/* A client that does not read holds up the guest, and then leaves. */
static void unix_stuck_client(void **state)
{
	char path[32];
	static char text[20000];
	struct harness_used u;
	struct harness h;
	unsigned posted = 0, used = 0;
	int fd;

	(void)state;
	open_unix(&h, path);
	fd = dial(path);
	harness_settle(&h);
	memset(text, 'x', sizeof(text) - 1);
	while (posted - used < 4 && posted < 200) {
		uint64_t bump = h.bump;

		assert_true(say(&h, TX, text) >= 0);
		h.bump = bump; /* all the same bytes */
		posted++;
		harness_settle(&h);
		while (harness_used(&h, TX, &u))
			used++;
	}
	assert_int_equal(posted - used, 4);
	assert_int_equal(loop_turn(h.loop, 0), 0); /* and sleeps */
	close(fd);
	while (used < posted) {
		assert_true(harness_wait_used(&h, TX, &u, 1000));
		used++;
	}
	harness_close(&h);
}

/* Without descriptors a client waits, and the loop sleeps. */
static void unix_no_descriptors(void **state)
{
	char path[32];
	struct rlimit old, none;
	struct harness h;
	int fd;

	(void)state;
	open_unix(&h, path);
	harness_settle(&h);
	fd = dial(path);
	getrlimit(RLIMIT_NOFILE, &old);
	none = old;
	none.rlim_cur = 3;
	setrlimit(RLIMIT_NOFILE, &none);
	loop_turn(h.loop, 100);
	assert_int_equal(loop_turn(h.loop, 0), 0);
	setrlimit(RLIMIT_NOFILE, &old);
	say(&h, TX, "there");
	expect(&h, fd, "there");
	close(fd);
	harness_close(&h);
}

static void pty(void **state)
{
	char buf[10] = "";
	struct harness_used u;
	struct harness h;
	const char *path;
	struct termios t;
	int fd;
	gpa_t at;

	(void)state;
	assert_int_equal(harness_open(&h, "console", "pty", NULL, NULL, NULL),
			 0);
	harness_start(&h, 0);
	path = stream_path(virtio_console_stream(h.dev, 0));
	assert_non_null(path);
	/* With nobody there the guest is not held up, and the end is kept. */
	for (unsigned i = 0; i < 2000; i++) {
		uint64_t bump = h.bump;

		say(&h, TX,
		    "0123456789012345678901234567890123456789"
		    "0123456789012345678901234567890123456789\r\n");
		h.bump = bump;
		if (!harness_wait_used(&h, TX, &u, 1000))
			fail_msg("stuck at %u", i);
	}
	fd = open(path, O_RDWR | O_NOCTTY | O_NONBLOCK);
	assert_true(fd >= 0);
	assert_int_equal(tcgetattr(fd, &t), 0);
	assert_int_equal(t.c_lflag & (ECHO | ICANON), 0);
	for (unsigned i = 0; i < 1000 && read(fd, buf, 1) <= 0; i++)
		loop_turn(h.loop, 10);
	assert_in_range(buf[0], '\n', '9');
	at = listen_on(&h, RX, 50);
	assert_int_equal(write(fd, "ls\r", 3), 3);
	assert_true(harness_wait_used(&h, RX, &u, 1000));
	assert_memory_equal(harness_ptr(&h, at, 3), "ls\r", 3);
	close(fd);
	harness_settle(&h);
	assert_false(stream_present(virtio_console_stream(h.dev, 0)));
	harness_close(&h);
}

static void bad_specs(void **state)
{
	static const char *const bad[][2] = {
		{ "stdoi", "must be one of" },
		{ "file:/nonexistent/x", "No such file" },
		{ "unix:/nonexistent/x", "No such file" },
		{ "unix:", "1 to 107 characters" },
		{ "fd:x", "numbers of open descriptors" },
		{ "fd:3:", "numbers of open descriptors" },
		{ "fd:999", "descriptor 999" },
		{ "off,cols=0", "cols" },
		{ "off,roes=3", "rows" },
	};

	(void)state;
	for (unsigned i = 0; i < array_size(bad); i++) {
		struct err e = { 0 };
		struct harness h;

		assert_true(harness_open(&h, "console", bad[i][0], NULL, NULL,
					 &e) < 0);
		harness_close(&h);
		if (!strstr(e.text, bad[i][1]))
			fail_msg("%s: said \"%s\"", bad[i][0], e.text);
	}
}

/* ---- rng ---- */

static void entropy(void **state)
{
	struct harness_used u;
	struct harness h;
	uint8_t *p, sum = 0;
	uint64_t start;
	gpa_t at;

	(void)state;
	assert_int_equal(harness_open(&h, "rng", "", NULL, NULL, NULL), 0);
	harness_start(&h, 0);
	at = listen_on(&h, 0, 64);
	assert_true(harness_wait_used(&h, 0, &u, 1000));
	assert_int_equal(u.len, 64);
	p = harness_ptr(&h, at, 64);
	for (unsigned i = 0; i < 64; i++)
		sum |= p[i];
	assert_true(sum);
	listen_on(&h, 0, 200000);
	assert_true(harness_wait_used(&h, 0, &u, 1000));
	assert_int_equal(u.len, 65536);
	harness_close(&h);
	/* 2 KiB a second: the first second's worth at once, then slowly. */
	assert_int_equal(harness_open(&h, "rng", "rate=2048", NULL, NULL, NULL),
			 0);
	harness_start(&h, 0);
	start = clock_ns();
	for (unsigned got = 0; got < 2048 + 512; got += u.len) {
		listen_on(&h, 0, 512);
		assert_true(harness_wait_used(&h, 0, &u, 1000));
		assert_in_range(u.len, 1, 512);
	}
	assert_in_range((clock_ns() - start) / NSEC_PER_MSEC, 150, 900);
	listen_on(&h, 0, 512);
	harness_settle(&h);
	assert_true(harness_reset(&h)); /* while it waits */
	harness_close(&h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(plain),
		cmocka_unit_test(broken_input),
		cmocka_unit_test(back_pressure),
		cmocka_unit_test(ports),
		cmocka_unit_test(bad_control),
		cmocka_unit_test(emergency),
		cmocka_unit_test(snapshot_mid_chain),
		cmocka_unit_test(file_and_pipe),
		cmocka_unit_test(regular_input),
		cmocka_unit_test(unix_socket),
		cmocka_unit_test(unix_stuck_client),
		cmocka_unit_test(unix_no_descriptors),
		cmocka_unit_test(pty),
		cmocka_unit_test(bad_specs),
		cmocka_unit_test(entropy),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
