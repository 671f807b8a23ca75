/*
 * What the vsock benches measure against: the same payloads through AF_UNIX
 * sockets and as many threads. The same code is the floor on the host and, in a
 * static program, the floor inside a guest.
 */
#ifndef BENCH_VSOCK_FLOOR_H
#define BENCH_VSOCK_FLOOR_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"

static const uint32_t stream_sizes[] = { 1024, 65536, 1048576 };
static char payload[1048576];

static inline void die(const char *what)
{
	perror(what);
	exit(1);
}

static inline double seconds(clockid_t c)
{
	struct timespec ts;

	clock_gettime(c, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* ---- figures: the median of the repeats, the least and the most ---- */

#define MAX_REPEATS 99u

struct figure {
	double v[MAX_REPEATS];
	unsigned n;
};

static inline int by_value(const void *x, const void *y)
{
	double p = *(const double *)x, q = *(const double *)y;

	return p < q ? -1 : p > q;
}

static inline void add(struct figure *f, double v)
{
	f->v[f->n++] = v;
}

static inline void show(const char *what, struct figure *f, const char *unit)
{
	qsort(f->v, f->n, sizeof(f->v[0]), by_value);
	printf("  %-34s %10.3f %-12s (%.3f .. %.3f)\n", what, f->v[f->n / 2],
	       unit, f->v[0], f->v[f->n - 1]);
	fflush(stdout);
}

/* ---- round trips of one byte, in microseconds ---- */

static inline void rtt(int fd, unsigned n, double *p50, double *p99)
{
	unsigned warm = min_of(n / 10, 200u);
	double *t = calloc(n, sizeof(*t));
	char c = 1;

	for (unsigned i = 0; i < n + warm; i++) {
		double s = seconds(CLOCK_MONOTONIC);

		if (write(fd, &c, 1) != 1 || read(fd, &c, 1) != 1)
			die("rtt");
		if (i >= warm)
			t[i - warm] = (seconds(CLOCK_MONOTONIC) - s) * 1e6;
	}
	qsort(t, n, sizeof(*t), by_value);
	*p50 = t[n / 2];
	*p99 = t[n * 99 / 100];
	free(t);
}

static inline void *relay(void *arg)
{
	int *fd = arg; /* from, to, until the end */
	char c;

	while (read(fd[0], &c, 1) == 1)
		if (write(fd[1], &c, 1) != 1)
			break;
	return NULL;
}

/*
 * With @relayed the hops of the device: host -> relay -> guest -> relay -> host
 * (the relay's two directions are two threads, which is no hop more). Without,
 * two threads and nothing between.
 */
static inline void rtt_floor(bool relayed, unsigned n, double *p50, double *p99)
{
	int a[2], g[2];
	pthread_t t[3];
	int forth[2], back[2], echo[2];

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, a) ||
	    socketpair(AF_UNIX, SOCK_STREAM, 0, g))
		die("socketpair");
	forth[0] = a[1], forth[1] = g[0];
	back[0] = g[0], back[1] = a[1];
	echo[0] = echo[1] = relayed ? g[1] : a[1];
	pthread_create(&t[2], NULL, relay, echo);
	if (relayed) {
		pthread_create(&t[0], NULL, relay, forth);
		pthread_create(&t[1], NULL, relay, back);
	}
	rtt(a[0], n, p50, p99);
	shutdown(a[0], SHUT_RDWR);
	shutdown(g[0], SHUT_RDWR);
	for (int i = relayed ? 0 : 2; i < 3; i++)
		pthread_join(t[i], NULL);
	close(a[0]), close(a[1]), close(g[0]), close(g[1]);
}

/* ---- streams: MiB/s, and CPU-s/GiB of the device's side ---- */

static inline void send_stream(int fd, uint32_t size, uint64_t n)
{
	while (n) {
		ssize_t r = write(fd, payload, min_of((uint64_t)size, n));

		if (r <= 0)
			die("write");
		n -= (uint64_t)r;
	}
}

static inline void take_stream(int fd, uint64_t n)
{
	static char buf[262144];

	while (n) {
		ssize_t r = read(fd, buf, sizeof(buf));

		if (r <= 0)
			die("read");
		n -= (uint64_t)r;
	}
}

static inline double mib_per_s(uint64_t bytes, double s)
{
	return (double)bytes / s / 1048576;
}

static inline double per_gib(double cpu, uint64_t bytes)
{
	return cpu / ((double)bytes / (1ull << 30));
}

struct floor_side {
	int fd;
	uint32_t size;
	uint64_t n;
	double cpu;
};

/* The device's work in host to guest, bare: readv into 18 buffers. */
static inline void *floor_reader(void *arg)
{
	static char area[18][4096];
	struct floor_side *s = arg;
	struct iovec iov[18];
	uint64_t n = s->n;

	for (int i = 0; i < 18; i++)
		iov[i] = (struct iovec){ area[i], 3732 };
	while (n) {
		ssize_t r = readv(s->fd, iov, 18);

		if (r <= 0)
			break;
		n -= min_of((uint64_t)r, n);
	}
	s->cpu = seconds(CLOCK_THREAD_CPUTIME_ID);
	return NULL;
}

/* And in guest to host: write of a packet's payload. */
static inline void *floor_writer(void *arg)
{
	struct floor_side *s = arg;

	send_stream(s->fd, min_of(s->size, 65536u), s->n);
	s->cpu = seconds(CLOCK_THREAD_CPUTIME_ID);
	return NULL;
}

static inline void stream_floor(bool to_guest, uint32_t size, uint64_t n,
				double *rate, double *cpu)
{
	struct floor_side s = { .size = size, .n = n };
	double t = seconds(CLOCK_MONOTONIC);
	pthread_t th;
	int p[2];

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, p))
		die("socketpair");
	s.fd = p[1];
	pthread_create(&th, NULL, to_guest ? floor_reader : floor_writer, &s);
	if (to_guest)
		send_stream(p[0], size, n);
	else
		take_stream(p[0], n);
	pthread_join(th, NULL);
	t = seconds(CLOCK_MONOTONIC) - t;
	close(p[0]), close(p[1]);
	*rate = mib_per_s(n, t);
	*cpu = per_gib(s.cpu, n);
}

/* ---- connects a second: connect, accept, one byte, close ---- */

/* Take connections from a listener, @n of them or until it is shut down. */
static inline void take_connects(int l, unsigned n)
{
	while (n--) {
		int fd = accept(l, NULL, NULL);
		char c = 1;

		if (fd < 0)
			break;
		if (write(fd, &c, 1) != 1)
			die("write");
		close(fd);
	}
}

static inline void *acceptor(void *arg)
{
	take_connects(*(int *)arg, UINT32_MAX);
	return NULL;
}

static inline double connects_floor(unsigned n)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	socklen_t len = sizeof(sa_family_t);
	int l = socket(AF_UNIX, SOCK_STREAM, 0);
	pthread_t t;
	double s;

	if (bind(l, (void *)&sun, len) || listen(l, 64))
		die("listen");
	len = sizeof(sun);
	getsockname(l, (void *)&sun, &len);
	pthread_create(&t, NULL, acceptor, &l);
	s = seconds(CLOCK_MONOTONIC);
	for (unsigned i = 0; i < n; i++) {
		int fd = socket(AF_UNIX, SOCK_STREAM, 0);
		char c;

		if (connect(fd, (void *)&sun, len) || read(fd, &c, 1) != 1)
			die("connect");
		close(fd);
	}
	s = seconds(CLOCK_MONOTONIC) - s;
	shutdown(l, SHUT_RDWR);
	pthread_join(t, NULL);
	close(l);
	return n / s;
}

#endif
