/*
 * The vsock device of a whole VMM: this program is the host's process and, in
 * the guest, its peer. bench/vsock-guest.sh builds, boots and runs it.
 *
 *	peer guest                       in the guest: serve port 1000
 *	peer host UDS [SECONDS [REPEATS]]
 *
 * Each figure of the device stands between two floors measured in the same run,
 * in turns with it: the payload through AF_UNIX sockets inside the guest (what
 * the guest's own kernel and CPU cost, without a device) and on the host (with
 * the device's thread hops). What each figure takes is fitted to SECONDS, so
 * that one program does for a native and an emulated CPU.
 *
 * Device CPU is that of the VMM's thread "vsock-io" alone. A connect goes
 * through the hybrid socket: CONNECT and OK are in its time.
 */
#include <dirent.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>

#include "../vsock_floor.h"

#define PORT	  1000
#define AF_VSOCK_ 40 /* linux/ headers are not musl's */
#define FIRST_TRY 262144u /* bytes, to see how fast it is */
#define MOST	  (512ull << 20)

struct vm_addr { /* struct sockaddr_vm */
	uint16_t family, reserved;
	uint32_t port, cid;
	uint8_t zero[4];
};

enum op {
	ECHO, /* until the end */
	SINK,
	SOURCE,
	ACCEPT, /* the next @n connections, a byte each */
	FLOOR_RTT,
	FLOOR_TO_GUEST,
	FLOOR_TO_HOST,
	FLOOR_CONNECTS,
};

struct job {
	uint32_t op, size;
	uint64_t n;
};

/* What a job answers with: a figure and its companion. */
struct result {
	double a, b;
};

static void read_all(int fd, void *p, size_t n)
{
	for (size_t done = 0; done < n;) {
		ssize_t r = read(fd, (char *)p + done, n - done);

		if (r <= 0)
			die("read");
		done += (size_t)r;
	}
}

/* ---- the guest ---- */

static void serve(int l, int fd)
{
	struct result r = { 0 };
	struct job j;
	char c;

	read_all(fd, &j, sizeof(j));
	switch ((enum op)j.op) {
	case ECHO:
		while (read(fd, &c, 1) == 1 && write(fd, &c, 1) == 1)
			;
		return;
	case SINK:
		take_stream(fd, j.n);
		break;
	case SOURCE:
		send_stream(fd, j.size, j.n);
		return;
	case ACCEPT:
		if (write(fd, &r, sizeof(r)) != sizeof(r))
			die("write");
		take_connects(l, (unsigned)j.n);
		return;
	case FLOOR_RTT:
		rtt_floor(false, (unsigned)j.n, &r.a, &r.b);
		break;
	case FLOOR_TO_GUEST:
	case FLOOR_TO_HOST:
		stream_floor(j.op == FLOOR_TO_GUEST, j.size, j.n, &r.a, &r.b);
		break;
	case FLOOR_CONNECTS:
		r.a = connects_floor((unsigned)j.n);
		break;
	}
	if (write(fd, &r, sizeof(r)) != sizeof(r))
		die("write");
}

static int guest(void)
{
	struct vm_addr a = { .family = AF_VSOCK_,
			     .cid = UINT32_MAX,
			     .port = PORT };
	int l = socket(AF_VSOCK_, SOCK_STREAM, 0);

	if (l < 0 || bind(l, (void *)&a, sizeof(a)) || listen(l, 64))
		die("vsock");
	for (;;) {
		int fd = accept(l, NULL, NULL);

		if (fd < 0)
			die("accept");
		serve(l, fd);
		close(fd);
	}
}

/* ---- the host ---- */

static const char *uds;
static double span = 1;
static unsigned repeats = 3;

/* A connection to the guest, or -1. */
static int try_dial(void)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	char line[32] = "";

	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", uds);
	if (connect(fd, (void *)&sun, sizeof(sun)))
		die(uds);
	dprintf(fd, "CONNECT %u\n", PORT);
	for (size_t n = 0; n < sizeof(line) - 1; n++) {
		if (read(fd, line + n, 1) != 1)
			break;
		if (line[n] == '\n')
			return fd;
	}
	close(fd);
	return -1;
}

static int dial(void)
{
	int fd = try_dial();

	if (fd < 0)
		die("CONNECT");
	return fd;
}

static int start(enum op op, uint32_t size, uint64_t n)
{
	struct job j = { op, size, n };
	int fd = dial();

	if (write(fd, &j, sizeof(j)) != sizeof(j))
		die("write");
	return fd;
}

static struct result ask(enum op op, uint32_t size, uint64_t n)
{
	int fd = start(op, size, n);
	struct result r;

	read_all(fd, &r, sizeof(r));
	close(fd);
	return r;
}

/* The VMM's worker, by its name: the file with its CPU time in ns. */
static char worker[300];

static void find_worker(int fd)
{
	struct {
		int pid, uid, gid;
	} peer;
	socklen_t len = sizeof(peer);
	char path[300], comm[32];
	struct dirent *e;
	DIR *d;

	/* Who listens at UDS is the VMM. */
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len))
		die("SO_PEERCRED");
	snprintf(path, sizeof(path), "/proc/%d/task", peer.pid);
	d = opendir(path);
	while (d && (e = readdir(d))) {
		FILE *f;

		snprintf(path, sizeof(path), "/proc/%d/task/%.16s/comm",
			 peer.pid, e->d_name);
		f = fopen(path, "r");
		if (!f)
			continue;
		if (fgets(comm, sizeof(comm), f) && !strcmp(comm, "vsock-io\n"))
			snprintf(worker, sizeof(worker),
				 "/proc/%d/task/%.16s/schedstat", peer.pid,
				 e->d_name);
		fclose(f);
	}
	if (d)
		closedir(d);
	if (!worker[0])
		die("the VMM's thread vsock-io");
}

static double cpu_of_worker(void)
{
	FILE *f = fopen(worker, "r");
	unsigned long long ns;

	if (!f || fscanf(f, "%llu", &ns) != 1)
		die(worker);
	fclose(f);
	return (double)ns / 1e9;
}

/* How many units take a span, if @n of them took @t seconds. */
static uint64_t fit(uint64_t n, double t, uint64_t most)
{
	double want = (double)n * span / t;

	return want > (double)most ? most : max_of((uint64_t)want, n);
}

static void device_rtt(unsigned n, struct result *r)
{
	int fd = start(ECHO, 0, 0);

	rtt(fd, n, &r->a, &r->b);
	close(fd);
}

static void bench_rtt(void)
{
	struct figure f[6] = { 0 };
	struct result r;
	unsigned dn, gn, hn;

	device_rtt(20, &r);
	dn = (unsigned)fit(100, r.a / 1e4, 10000);
	r = ask(FLOOR_RTT, 0, 20);
	gn = (unsigned)fit(100, r.a / 1e4, 10000);
	rtt_floor(true, 20, &r.a, &r.b);
	hn = (unsigned)fit(100, r.a / 1e4, 10000);
	for (unsigned i = 0; i < repeats; i++) {
		device_rtt(dn, &r);
		add(&f[0], r.a), add(&f[3], r.b);
		r = ask(FLOOR_RTT, 0, gn);
		add(&f[1], r.a), add(&f[4], r.b);
		rtt_floor(true, hn, &r.a, &r.b);
		add(&f[2], r.a), add(&f[5], r.b);
	}
	printf("round trip of 1 byte\n");
	show("device p50", &f[0], "us");
	show("floor in the guest p50", &f[1], "us");
	show("floor on the host p50", &f[2], "us");
	show("device p99", &f[3], "us");
	show("floor in the guest p99", &f[4], "us");
	show("floor on the host p99", &f[5], "us");
}

/* MiB/s, and the worker's CPU-s/GiB. */
static struct result device_stream(bool to_guest, uint32_t size, uint64_t n)
{
	double c = cpu_of_worker(), t = seconds(CLOCK_MONOTONIC);
	int fd = start(to_guest ? SINK : SOURCE, size, n);
	struct result r;

	if (to_guest) {
		send_stream(fd, size, n);
		read_all(fd, &r, sizeof(r));
	} else {
		take_stream(fd, n);
	}
	t = seconds(CLOCK_MONOTONIC) - t;
	c = cpu_of_worker() - c;
	close(fd);
	return (struct result){ mib_per_s(n, t), per_gib(c, n) };
}

/* Bytes that take a span at @mibs, a whole number of writes. */
static uint64_t volume(double mibs, uint32_t size, uint64_t first)
{
	uint64_t n = fit(first, (double)first / (mibs * 1048576), MOST);

	return n - n % size;
}

static void bench_stream(bool to_guest, uint32_t size)
{
	enum op op = to_guest ? FLOOR_TO_GUEST : FLOOR_TO_HOST;
	uint64_t first = max_of(size, FIRST_TRY), dn, gn, hn;
	struct figure f[5] = { 0 };
	struct result r;

	r = device_stream(to_guest, size, first);
	dn = volume(r.a, size, first);
	r = ask(op, size, first);
	gn = volume(r.a, size, first);
	stream_floor(to_guest, size, first, &r.a, &r.b);
	hn = volume(r.a, size, first);
	for (unsigned i = 0; i < repeats; i++) {
		r = device_stream(to_guest, size, dn);
		add(&f[0], r.a), add(&f[3], r.b);
		r = ask(op, size, gn);
		add(&f[1], r.a);
		stream_floor(to_guest, size, hn, &r.a, &r.b);
		add(&f[2], r.a), add(&f[4], r.b);
	}
	printf("%s, %u KiB writes\n",
	       to_guest ? "host to guest" : "guest to host", size >> 10);
	show("device", &f[0], "MiB/s");
	show("floor in the guest", &f[1], "MiB/s");
	show("floor on the host", &f[2], "MiB/s");
	show("device CPU", &f[3], "CPU-s/GiB");
	show("floor CPU on the host", &f[4], "CPU-s/GiB");
}

static double device_connects(unsigned n)
{
	int control = start(ACCEPT, 0, n);
	struct result r;
	double t;

	read_all(control, &r, sizeof(r));
	t = seconds(CLOCK_MONOTONIC);
	for (unsigned i = 0; i < n; i++) {
		int fd = dial();
		char c;

		read_all(fd, &c, 1);
		close(fd);
	}
	t = seconds(CLOCK_MONOTONIC) - t;
	close(control);
	return n / t;
}

static void bench_connects(void)
{
	unsigned dn = (unsigned)fit(20, 20 / device_connects(20), 5000);
	unsigned gn =
		(unsigned)fit(20, 20 / ask(FLOOR_CONNECTS, 0, 20).a, 5000);
	unsigned hn = (unsigned)fit(20, 20 / connects_floor(20), 5000);
	struct figure f[3] = { 0 };

	for (unsigned i = 0; i < repeats; i++) {
		add(&f[0], device_connects(dn));
		add(&f[1], ask(FLOOR_CONNECTS, 0, gn).a);
		add(&f[2], connects_floor(hn));
	}
	printf("connects, one after the other\n");
	show("device", &f[0], "1/s");
	show("floor in the guest", &f[1], "1/s");
	show("floor on the host", &f[2], "1/s");
}

/* It may still boot: the first that answers gets a job that does nothing. */
static void wait_for_guest(void)
{
	double t = seconds(CLOCK_MONOTONIC);
	struct job nothing = { SOURCE, 1, 0 };
	int fd;

	while ((fd = try_dial()) < 0) {
		if (seconds(CLOCK_MONOTONIC) - t > 120)
			die("the guest does not come up");
		usleep(100000);
	}
	find_worker(fd);
	if (write(fd, &nothing, sizeof(nothing)) != sizeof(nothing))
		die("write");
	close(fd);
}

int main(int argc, char **argv)
{
	signal(SIGPIPE, SIG_IGN);
	if (argc == 2 && !strcmp(argv[1], "guest"))
		return guest();
	if (argc > 3)
		span = strtod(argv[3], NULL);
	if (argc > 4)
		repeats = (unsigned)strtoul(argv[4], NULL, 10);
	if (argc < 3 || strcmp(argv[1], "host") || span <= 0 || !repeats ||
	    repeats > MAX_REPEATS) {
		fprintf(stderr, "usage: peer host UDS [SECONDS [REPEATS]]\n");
		return 2;
	}
	uds = argv[2];
	wait_for_guest();
	bench_rtt();
	for (unsigned i = 0; i < array_size(stream_sizes); i++)
		bench_stream(true, stream_sizes[i]);
	for (unsigned i = 0; i < array_size(stream_sizes); i++)
		bench_stream(false, stream_sizes[i]);
	bench_connects();
	return 0;
}
