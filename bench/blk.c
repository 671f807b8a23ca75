/*
 * How much of io_uring's speed is left behind the block device: the same random
 * and sequential I/O, once by a plain io_uring program, once through the device
 * with the test harness as its driver. Both keep a number of requests in flight
 * and run in one thread (so the device's figure includes the work of a driver:
 * rings, descriptors, used entries).
 *
 *	blk [-d] [-q DEPTH] [-s MIB] [-t SECONDS] [-r ROUNDS] [FILE]
 *
 * FILE is made (MIB big, written once) if it is not there; -d: O_DIRECT. The two
 * alternate, ROUNDS times each; the table has medians and (max - min) / median,
 * and the median CPU time of the process per request, which other load on the
 * machine disturbs less.
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bug.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/util.h"
#include "virtio/harness.h"

#define DEPTH_MAX 256u

struct setup {
	const char *path;
	bool direct;
	unsigned depth, seconds_x10, rounds;
	uint64_t bytes;
};

struct pattern {
	const char *name;
	uint32_t len;
	bool write, sequential;
};

static const struct pattern patterns[] = {
	{ "4 KiB random read", 4096, false, false },
	{ "4 KiB random write", 4096, true, false },
	{ "128 KiB sequential read", 131072, false, true },
	{ "128 KiB sequential write", 131072, true, true },
};

static uint64_t next_offset(const struct setup *s, const struct pattern *p,
			    uint64_t *state)
{
	uint64_t blocks = s->bytes / p->len;

	if (p->sequential)
		return (*state)++ % blocks * p->len;
	*state = *state * 6364136223846793005ull + 1442695040888963407ull;
	return (*state >> 33) % blocks * p->len;
}

struct result {
	double rate, cpu_us; /* requests per second; CPU per request */
};

/* Microseconds of CPU, all threads (the kernel's for our I/O too). */
static double cpu_us(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e6 +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

/* ---- plain io_uring ---- */

static struct result plain(const struct setup *s, const struct pattern *p)
{
	uint64_t state = 1, done = 0, start, end, now;
	double cpu;
	int fd = open(s->path, O_RDWR | (s->direct ? O_DIRECT : 0));
	struct io_uring_cqe *cqe;
	struct io_uring ring;
	uint8_t *buffers;

	bug_on(fd < 0);
	bug_on(posix_memalign((void **)&buffers, 4096, s->depth * p->len));
	memset(buffers, 1, s->depth * p->len);
	bug_on(io_uring_queue_init(s->depth, &ring, 0));
	bug_on(io_uring_register_files(&ring, &fd, 1));
	cpu = cpu_us();
	start = clock_ns();
	end = start + s->seconds_x10 * 100 * NSEC_PER_MSEC;
	for (unsigned i = 0; i < s->depth; i++) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
		void *buf = buffers + i * p->len;
		uint64_t off = next_offset(s, p, &state);

		if (p->write)
			io_uring_prep_write(sqe, 0, buf, p->len, off);
		else
			io_uring_prep_read(sqe, 0, buf, p->len, off);
		io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
		io_uring_sqe_set_data(sqe, buf);
	}
	do {
		unsigned head, n = 0;

		bug_on(io_uring_submit_and_wait(&ring, 1) < 0);
		now = clock_ns();
		io_uring_for_each_cqe(&ring, head, cqe)
		{
			void *buf = io_uring_cqe_get_data(cqe);
			struct io_uring_sqe *sqe;
			uint64_t off;

			bug_on(cqe->res != (int)p->len);
			n++;
			if (now >= end)
				continue;
			sqe = io_uring_get_sqe(&ring);
			off = next_offset(s, p, &state);
			if (p->write)
				io_uring_prep_write(sqe, 0, buf, p->len, off);
			else
				io_uring_prep_read(sqe, 0, buf, p->len, off);
			io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
			io_uring_sqe_set_data(sqe, buf);
		}
		io_uring_cq_advance(&ring, n);
		done += n;
	} while (now < end);
	cpu = cpu_us() - cpu;
	io_uring_queue_exit(&ring);
	free(buffers);
	close(fd);
	return (struct result){ (double)done * 1e9 / (double)(now - start),
				cpu / (double)done };
}

/* ---- through the device ---- */

struct slot {
	struct harness_buf bufs[3];
	uint8_t *header;
};

static void post(struct harness *h, const struct setup *s,
		 const struct pattern *p, struct slot *slots, unsigned i,
		 uint64_t *state, uint16_t *by_head)
{
	int head;

	put_le64(slots[i].header + 8, next_offset(s, p, state) / 512);
	head = harness_post(h, 0, slots[i].bufs, 3);
	bug_on(head < 0);
	by_head[head] = (uint16_t)i;
}

static struct result device(const struct setup *s, const struct pattern *p)
{
	uint64_t state = 1, done = 0, start, end, now;
	double cpu;
	struct slot slots[DEPTH_MAX];
	uint16_t by_head[1024];
	struct err e = { 0 };
	struct harness h;
	char options[512];
	void *data;

	snprintf(options, sizeof(options),
		 "%s,aio=io_uring,queue-size=1024,cache=%s", s->path,
		 s->direct ? "none" : "writeback");
	if (harness_open(&h, "blk", options, NULL, NULL, &e)) {
		fprintf(stderr, "%s\n", e.text);
		exit(1);
	}
	/* Data is in a region of its own, like in a guest with some RAM. */
	data = aligned_alloc(4096, s->depth * p->len);
	bug_on(!data);
	memset(data, 1, s->depth * p->len);
	bug_on(gmem_add_mapping(h.mem,
				&(struct gmem_region){
					.base = gpa(2 * HARNESS_HIGH),
					.size = s->depth * p->len,
					.host = data,
					.fd = -1,
				},
				NULL));
	harness_start(&h, 0);
	for (unsigned i = 0; i < s->depth; i++) {
		gpa_t head = harness_alloc(&h, 16);

		slots[i].header = harness_ptr(&h, head, 16);
		memset(slots[i].header, 0, 16);
		slots[i].header[0] = p->write;
		slots[i].bufs[0] = (struct harness_buf){ head, 16, false };
		slots[i].bufs[1] = (struct harness_buf){
			gpa(2 * HARNESS_HIGH + (uint64_t)i * p->len), p->len,
			!p->write
		};
		slots[i].bufs[2] =
			(struct harness_buf){ harness_alloc(&h, 1), 1, true };
	}
	cpu = cpu_us();
	start = clock_ns();
	end = start + s->seconds_x10 * 100 * NSEC_PER_MSEC;
	for (unsigned i = 0; i < s->depth; i++)
		post(&h, s, p, slots, i, &state, by_head);
	harness_kick(&h, 0);
	do {
		struct harness_used u;

		loop_turn(h.loop, -1);
		now = clock_ns();
		while (harness_used(&h, 0, &u)) {
			unsigned i = by_head[u.id];

			bug_on(*(uint8_t *)harness_ptr(&h, slots[i].bufs[2].at,
						       1));
			done++;
			if (now < end)
				post(&h, s, p, slots, i, &state, by_head);
		}
		harness_kick(&h, 0);
	} while (now < end);
	cpu = cpu_us() - cpu;
	harness_close(&h);
	free(data);
	return (struct result){ (double)done * 1e9 / (double)(now - start),
				cpu / (double)done };
}

/* ---- figures ---- */

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void measure(const struct setup *s, const struct pattern *p)
{
	double a[64], b[64], ca[64], cb[64], ma, mb, unit = p->len / 1048576.0;
	unsigned n = min_of(s->rounds, 64u);

	for (unsigned i = 0; i < n; i++) {
		struct result r = plain(s, p), d = device(s, p);

		a[i] = r.rate;
		b[i] = d.rate;
		ca[i] = r.cpu_us;
		cb[i] = d.cpu_us;
	}
	qsort(a, n, sizeof(a[0]), ascending);
	qsort(b, n, sizeof(b[0]), ascending);
	qsort(ca, n, sizeof(ca[0]), ascending);
	qsort(cb, n, sizeof(cb[0]), ascending);
	ma = a[n / 2];
	mb = b[n / 2];
	printf("%-25s %3u %8.0f/s %6.0f MiB/s (%2.0f%%) %8.0f/s %6.0f MiB/s "
	       "(%2.0f%%) %5.2f  %6.1f %6.1f %5.2f\n",
	       p->name, s->depth, ma, ma * unit, 100 * (a[n - 1] - a[0]) / ma,
	       mb, mb * unit, 100 * (b[n - 1] - b[0]) / mb, mb / ma, ca[n / 2],
	       cb[n / 2], cb[n / 2] / ca[n / 2]);
	fflush(stdout);
}

static void make_file(const struct setup *s)
{
	static uint8_t block[1 << 20];
	struct stat st;
	int fd = open(s->path, O_RDWR | O_CREAT, 0600);

	bug_on(fd < 0 || fstat(fd, &st) < 0);
	memset(block, 0x5a, sizeof(block));
	if ((uint64_t)st.st_size < s->bytes)
		for (uint64_t at = 0; at < s->bytes; at += sizeof(block))
			bug_on(pwrite(fd, block, sizeof(block), (off_t)at) !=
			       (ssize_t)sizeof(block));
	fsync(fd);
	close(fd);
}

int main(int argc, char **argv)
{
	struct setup s = { .path = "/tmp/arcvmm-bench.img",
			   .depth = 32,
			   .seconds_x10 = 10,
			   .rounds = 5,
			   .bytes = MiB(512) };
	unsigned depths[] = { 1, 0 };
	int opt;

	while ((opt = getopt(argc, argv, "dq:s:t:r:")) != -1) {
		switch (opt) {
		case 'd':
			s.direct = true;
			break;
		case 'q':
			s.depth = (unsigned)atoi(optarg);
			break;
		case 's':
			s.bytes = MiB((unsigned)atoi(optarg));
			break;
		case 't':
			s.seconds_x10 = (unsigned)(atof(optarg) * 10);
			break;
		case 'r':
			s.rounds = (unsigned)atoi(optarg);
			break;
		default:
			fprintf(stderr, "blk [-d] [-q DEPTH] [-s MIB] "
					"[-t SECONDS] [-r ROUNDS] [FILE]\n");
			return 2;
		}
	}
	if (argv[optind])
		s.path = argv[optind];
	if (!s.depth || s.depth > DEPTH_MAX || !s.rounds || !s.seconds_x10 ||
	    !s.bytes) {
		fprintf(stderr, "blk: depth 1 .. %u, the rest not 0\n",
			DEPTH_MAX);
		return 2;
	}
	make_file(&s);
	depths[1] = s.depth;
	printf("%s, %s\n%-25s %3s %29s %29s ratio  CPU us: plain, device, "
	       "ratio\n",
	       s.path, s.direct ? "O_DIRECT" : "page cache", "", "QD",
	       "plain io_uring (spread)", "device (spread)");
	for (unsigned i = 0; i < array_size(patterns); i++)
		for (unsigned j = depths[0] == depths[1]; j < 2; j++) {
			s.depth = depths[j];
			measure(&s, &patterns[i]);
		}
	return 0;
}
