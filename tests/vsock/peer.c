/*
 * Both ends of the vsock tests with a real guest.
 *
 *   peer guest              /init of the guest: loads /modules/N-*.ko in order,
 *                           serves port 1000, powers off when told
 *   peer host UDS JOB...    drives it through the hybrid socket UDS:
 *       up                  wait until the guest serves
 *       send BYTES          host -> guest, verified by hash
 *       recv BYTES          guest -> host, verified by hash
 *       dial BYTES          the guest connects to UDS_2000, sends, half-closes,
 *                           and gets the hash back
 *       echo COUNT          COUNT connections in flight, each echoes and closes
 *       idle COUNT SECONDS  COUNT idle connections
 *       rtt COUNT           COUNT round trips of one byte
 *       vsock_test          run /vsock_test in the guest, client and server
 *       off                 power off
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <dirent.h>
#include <sys/mount.h>
#include <sys/ioctl.h>
#include <net/if.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PORT	  1000
#define DIAL_PORT 2000
#define CHUNK	  65536

struct vm_addr { /* struct sockaddr_vm */
	uint16_t family, reserved;
	uint32_t port, cid;
	uint8_t zero[4];
};

struct job {
	uint64_t op, n, seed;
};

static void die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, ": %s\n", strerror(errno));
	exit(1);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* ---- a stream of known bytes, and its hash ---- */

struct hash {
	uint64_t h, word;
	unsigned fill;
};

static void hash_add(struct hash *s, const uint8_t *p, size_t n)
{
	for (; n && s->fill; n--) {
		s->word |= (uint64_t)*p++ << 8 * s->fill;
		s->fill = (s->fill + 1) % 8;
		if (!s->fill) {
			s->h = (s->h ^ s->word) * 0x9e3779b97f4a7c15ull;
			s->h ^= s->h >> 29;
			s->word = 0;
		}
	}
	for (; n >= 8; n -= 8, p += 8) {
		uint64_t w;

		memcpy(&w, p, 8);
		s->h = (s->h ^ w) * 0x9e3779b97f4a7c15ull;
		s->h ^= s->h >> 29;
	}
	while (n--)
		s->word |= (uint64_t)*p++ << 8 * s->fill++;
}

static uint64_t hash_end(const struct hash *s)
{
	return s->h ^ s->word ^ (uint64_t)s->fill << 56;
}

static void fill(uint8_t *p, size_t n, uint64_t *seed)
{
	for (size_t i = 0; i < n; i += 8) {
		*seed ^= *seed << 13;
		*seed ^= *seed >> 7;
		*seed ^= *seed << 17;
		memcpy(p + i, seed, n - i < 8 ? n - i : 8);
	}
}

static int write_all(int fd, const void *p, size_t n)
{
	for (size_t done = 0; done < n;) {
		ssize_t r = send(fd, (const char *)p + done, n - done,
				 MSG_NOSIGNAL);

		if (r < 0)
			return -1;
		done += (size_t)r;
	}
	return 0;
}

static int read_all(int fd, void *p, size_t n)
{
	for (size_t done = 0; done < n;) {
		ssize_t r = read(fd, (char *)p + done, n - done);

		if (r <= 0)
			return -1;
		done += (size_t)r;
	}
	return 0;
}

/* Send @n bytes; the hash of them. */
static int generate(int fd, uint64_t n, uint64_t seed, uint64_t *hash)
{
	static __thread uint8_t buf[CHUNK];
	struct hash h = { 0 };

	while (n) {
		size_t step = n < CHUNK ? (size_t)n : CHUNK;

		fill(buf, step, &seed);
		hash_add(&h, buf, step);
		if (write_all(fd, buf, step))
			return -1;
		n -= step;
	}
	*hash = hash_end(&h);
	return 0;
}

static int sink(int fd, uint64_t n, uint64_t *hash)
{
	static __thread uint8_t buf[CHUNK];
	struct hash h = { 0 };

	while (n) {
		ssize_t r = read(fd, buf, n < CHUNK ? (size_t)n : CHUNK);

		if (r <= 0)
			return -1;
		hash_add(&h, buf, (size_t)r);
		n -= (uint64_t)r;
	}
	*hash = hash_end(&h);
	return 0;
}

/* ---- the guest ---- */

static int vm_socket(void)
{
	int fd = socket(40 /* AF_VSOCK */, SOCK_STREAM, 0);

	if (fd < 0)
		die("AF_VSOCK");
	return fd;
}

static uint64_t guest_dial(uint64_t n, uint64_t seed)
{
	struct vm_addr a = { .family = 40, .cid = 2, .port = DIAL_PORT };
	int fd = vm_socket();
	uint64_t hash, back;
	char c;

	if (connect(fd, (void *)&a, sizeof(a)) < 0)
		return 1;
	if (generate(fd, n, seed, &hash))
		return 2;
	shutdown(fd, SHUT_WR);
	if (read_all(fd, &back, sizeof(back)))
		return 3;
	if (back != hash)
		return 4;
	if (read(fd, &c, 1) != 0)
		return 5;
	close(fd);
	return 0;
}

static uint64_t run_vsock_test(int fd)
{
	static const char *const mode[] = { "--mode=server", "--mode=client" };
	pid_t pid[2];
	int status, bad = 0;

	for (int i = 0; i < 2; i++) {
		pid[i] = fork();
		if (!pid[i]) {
			dup2(fd, 1);
			dup2(fd, 2);
			execl("/vsock_test", "vsock_test", mode[i],
			      "--control-host=127.0.0.1", "--control-port=1234",
			      "--peer-cid=2", NULL);
			_exit(127);
		}
		sleep(1);
	}
	for (int i = 0; i < 2; i++) {
		waitpid(pid[i], &status, 0);
		bad |= status;
	}
	return (uint64_t)bad;
}

static void serve(int fd)
{
	static uint8_t buf[CHUNK];
	struct job j;
	uint64_t v = 0;
	ssize_t r;

	if (read_all(fd, &j, sizeof(j)))
		return;
	switch (j.op) {
	case 'S':
		if (!sink(fd, j.n, &v))
			write_all(fd, &v, sizeof(v));
		break;
	case 'G':
		if (!generate(fd, j.n, j.seed, &v))
			write_all(fd, &v, sizeof(v));
		break;
	case 'D':
		v = guest_dial(j.n, j.seed);
		write_all(fd, &v, sizeof(v));
		break;
	case 'E':
		while ((r = read(fd, buf, sizeof(buf))) > 0)
			if (write_all(fd, buf, (size_t)r))
				break;
		break;
	case 'V':
		v = run_vsock_test(fd);
		dprintf(fd, "\nvsock_test: status %llu\n",
			(unsigned long long)v);
		break;
	case 'Q':
		sync();
		reboot(RB_POWER_OFF);
		break;
	}
}

static void load_modules(void)
{
	struct dirent **list;
	int n = scandir("/modules", &list, NULL, alphasort);

	for (int i = 0; i < n; i++) {
		char path[512];
		int fd;

		snprintf(path, sizeof(path), "/modules/%s", list[i]->d_name);
		if (list[i]->d_name[0] == '.')
			continue;
		fd = open(path, O_RDONLY);
		if (syscall(SYS_finit_module, fd, "", 0) < 0)
			fprintf(stderr, "%s: %s\n", path, strerror(errno));
		close(fd);
	}
}

static int guest(void)
{
	struct vm_addr a = { .family = 40, .cid = UINT32_MAX, .port = PORT };
	struct ifreq lo = { .ifr_name = "lo" };
	int fd, s;

	mount("proc", "/proc", "proc", 0, "");
	mount("dev", "/dev", "devtmpfs", 0, "");
	fd = open("/dev/console", O_RDWR);
	if (fd >= 0) {
		dup2(fd, 0);
		dup2(fd, 1);
		dup2(fd, 2);
	}
	load_modules();
	s = socket(AF_INET, SOCK_DGRAM, 0);
	lo.ifr_flags = IFF_UP | IFF_RUNNING;
	ioctl(s, SIOCSIFFLAGS, &lo);
	fd = vm_socket();
	if (bind(fd, (void *)&a, sizeof(a)) < 0 || listen(fd, 512) < 0)
		die("listen");
	signal(SIGCHLD, SIG_IGN);
	for (;;) {
		int c = accept(fd, NULL, NULL);

		if (c < 0)
			continue;
		if (!fork()) {
			close(fd);
			signal(SIGCHLD, SIG_DFL);
			serve(c);
			_exit(0);
		}
		close(c);
	}
}

/* ---- the host ---- */

static const char *uds;

static int unix_socket(const char *path, struct sockaddr_un *sun)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memset(sun, 0, sizeof(*sun));
	sun->sun_family = AF_UNIX;
	snprintf(sun->sun_path, sizeof(sun->sun_path), "%s", path);
	return fd;
}

/* A connection to the guest's port, or -1. */
static int try_connect(void)
{
	struct sockaddr_un sun;
	int fd = unix_socket(uds, &sun);
	char line[32];
	size_t n = 0;

	if (connect(fd, (void *)&sun, sizeof(sun)) < 0)
		die("%s", uds);
	dprintf(fd, "CONNECT %u\n", PORT);
	do
		if (n == sizeof(line) || read(fd, line + n, 1) != 1) {
			close(fd);
			return -1;
		}
	while (line[n++] != '\n');
	if (strncmp(line, "OK ", 3)) {
		close(fd);
		return -1;
	}
	return fd;
}

static int start(char op, uint64_t n, uint64_t seed)
{
	struct job j = { (uint64_t)op, n, seed };
	int fd = try_connect();

	if (fd < 0)
		die("CONNECT");
	if (write_all(fd, &j, sizeof(j)))
		die("write");
	return fd;
}

static void host_up(void)
{
	double t = now();
	int fd;

	while ((fd = try_connect()) < 0) {
		if (now() - t > 120)
			die("the guest does not come up");
		usleep(100000);
	}
	close(fd);
	printf("up after %.1f s\n", now() - t);
}

static void host_stream(char op, uint64_t n)
{
	double t = now();
	int fd = start(op, n, 88172645463325252ull);
	uint64_t mine, theirs;

	if (op == 'S' ? generate(fd, n, 88172645463325252ull, &mine)
		      : sink(fd, n, &mine))
		die("stream");
	if (read_all(fd, &theirs, sizeof(theirs)))
		die("hash");
	t = now() - t;
	printf("%s %llu bytes in %.2f s, %.1f MiB/s, hash %016llx %s\n",
	       op == 'S' ? "host->guest" : "guest->host", (unsigned long long)n,
	       t, (double)n / t / 1048576, (unsigned long long)mine,
	       mine == theirs ? "equal" : "DIFFERS");
	if (mine != theirs)
		exit(1);
	close(fd);
}

static void host_dial(uint64_t n)
{
	struct sockaddr_un sun;
	char path[100];
	uint64_t status, h;
	int l, fd, c;

	snprintf(path, sizeof(path), "%s_%u", uds, DIAL_PORT);
	l = unix_socket(path, &sun);
	unlink(path);
	if (bind(l, (void *)&sun, sizeof(sun)) < 0 || listen(l, 8) < 0)
		die("%s", path);
	fd = start('D', n, 7);
	c = accept(l, NULL, NULL);
	if (sink(c, n, &h))
		die("sink");
	if (read(c, path, 1) != 0)
		die("half-close did not arrive");
	write_all(c, &h, sizeof(h));
	close(c);
	if (read_all(fd, &status, sizeof(status)))
		die("status");
	close(fd);
	close(l);
	unlink(sun.sun_path);
	printf("guest dials, %llu bytes, half-close: status %llu\n",
	       (unsigned long long)n, (unsigned long long)status);
	if (status)
		exit(1);
}

static void *echo_one(void *arg)
{
	uint64_t seed = (uint64_t)(uintptr_t)arg + 1, mine, got;
	int fd = start('E', 0, 0);
	uint8_t buf[3000];
	struct hash h = { 0 };

	fill(buf, sizeof(buf), &seed);
	hash_add(&h, buf, sizeof(buf));
	mine = hash_end(&h);
	if (write_all(fd, buf, sizeof(buf)))
		die("echo write");
	shutdown(fd, SHUT_WR);
	if (sink(fd, sizeof(buf), &got) || got != mine)
		die("echo differs");
	if (read(fd, buf, 1) != 0)
		die("echo: no EOF");
	close(fd);
	return NULL;
}

static void host_echo(unsigned n)
{
	pthread_t *t = calloc(n, sizeof(*t));
	pthread_attr_t a;
	double s = now();

	pthread_attr_init(&a);
	pthread_attr_setstacksize(&a, 256 * 1024);
	for (unsigned i = 0; i < n; i++)
		if (pthread_create(&t[i], &a, echo_one, (void *)(uintptr_t)i))
			die("thread");
	for (unsigned i = 0; i < n; i++)
		pthread_join(t[i], NULL);
	free(t);
	printf("%u connects in flight: all echoed, %.2f s\n", n, now() - s);
}

static void host_idle(unsigned n, unsigned seconds)
{
	int *fd = calloc(n, sizeof(*fd));

	for (unsigned i = 0; i < n; i++)
		fd[i] = start('E', 0, 0);
	printf("%u idle connections for %u s\n", n, seconds);
	fflush(stdout);
	sleep(seconds);
	for (unsigned i = 0; i < n; i++)
		close(fd[i]);
	free(fd);
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static void host_rtt(unsigned n)
{
	double *t = calloc(n, sizeof(*t));
	int fd = start('E', 0, 0);
	char c = 'x';

	for (unsigned i = 0; i < n; i++) {
		double s = now();

		if (write_all(fd, &c, 1) || read_all(fd, &c, 1))
			die("rtt");
		t[i] = now() - s;
	}
	qsort(t, n, sizeof(*t), by_value);
	printf("rtt of 1 byte: p50 %.1f us, p99 %.1f us\n", t[n / 2] * 1e6,
	       t[n * 99 / 100] * 1e6);
	free(t);
	close(fd);
}

static void host_vsock_test(void)
{
	int fd = start('V', 0, 0);
	char buf[4096], tail[64] = "";
	ssize_t r;

	while ((r = read(fd, buf, sizeof(buf) - 1)) > 0) {
		buf[r] = 0;
		fputs(buf, stdout);
		memmove(tail, tail + (r < 32 ? r : 32), 32);
		snprintf(tail + strlen(tail) * 0, sizeof(tail), "%s",
			 r > 60 ? buf + r - 60 : buf);
	}
	if (!strstr(tail, "status 0\n")) {
		printf("vsock_test failed\n");
		exit(1);
	}
}

static uint64_t number(const char *s)
{
	char *end;
	uint64_t n = strtoull(s ? s : "", &end, 10);

	if (*end == 'K')
		n <<= 10;
	else if (*end == 'M')
		n <<= 20;
	else if (*end == 'G')
		n <<= 30;
	return n;
}

int main(int argc, char **argv)
{
	if (getpid() == 1 || (argc > 1 && !strcmp(argv[1], "guest")))
		return guest();
	if (argc < 4)
		die("usage: peer host UDS JOB...");
	uds = argv[2];
	signal(SIGPIPE, SIG_IGN);
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (int i = 3; i < argc; i++) {
		const char *job = argv[i];

		if (!strcmp(job, "up"))
			host_up();
		else if (!strcmp(job, "send"))
			host_stream('S', number(argv[++i]));
		else if (!strcmp(job, "recv"))
			host_stream('G', number(argv[++i]));
		else if (!strcmp(job, "dial"))
			host_dial(number(argv[++i]));
		else if (!strcmp(job, "echo"))
			host_echo((unsigned)number(argv[++i]));
		else if (!strcmp(job, "rtt"))
			host_rtt((unsigned)number(argv[++i]));
		else if (!strcmp(job, "idle"))
			host_idle((unsigned)number(argv[i + 1]),
				  (unsigned)number(argv[i + 2])),
				i += 2;
		else if (!strcmp(job, "vsock_test"))
			host_vsock_test();
		else if (!strcmp(job, "off"))
			start('Q', 0, 0);
		else
			die("unknown job %s", job);
	}
	return 0;
}
