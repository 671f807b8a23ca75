/* The short requests: numbers, power, the clock, the kernel's log. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "session.h"
#include "util.h"

static void reply(struct session *s, const void *data, size_t len)
{
	if (!frame_put(&s->out, AGENT_REPLY, NULL, 0, data, len))
		frame_out_send(&s->out, s->fd);
}

/* ---- numbers ---- */

/* "MemTotal:  123 kB" and so on, as "mem_total 125952". */
static void put_memory(FILE *f)
{
	static const struct {
		const char *theirs, *ours;
	} fields[] = {
		{ "MemTotal:", "mem_total" },
		{ "MemFree:", "mem_free" },
		{ "MemAvailable:", "mem_available" },
		{ "Cached:", "mem_cached" },
		{ "SwapTotal:", "swap_total" },
		{ "SwapFree:", "swap_free" },
	};
	FILE *in = fopen("/proc/meminfo", "re");
	char line[128];

	while (in && fgets(line, sizeof(line), in))
		for (size_t i = 0; i < sizeof(fields) / sizeof(*fields); i++) {
			size_t n = strlen(fields[i].theirs);

			if (!strncmp(line, fields[i].theirs, n))
				fprintf(f, "%s %llu\n", fields[i].ours,
					strtoull(line + n, NULL, 10) * 1024);
		}
	if (in)
		fclose(in);
}

/* CPU time in milliseconds, of all CPUs: busy, idle, stolen. */
static void put_cpu(FILE *f)
{
	unsigned long long v[8] = { 0 };
	long hz = sysconf(_SC_CLK_TCK);
	char text[512];

	if (read_text("/proc/stat", text, sizeof(text)) > 0 &&
	    sscanf(text, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &v[0],
		   &v[1], &v[2], &v[3], &v[4], &v[5], &v[6], &v[7]) >= 4 &&
	    hz > 0) {
		unsigned long long ms = 1000 / (unsigned long)hz;

		fprintf(f, "cpu_user_ms %llu\ncpu_system_ms %llu\n",
			(v[0] + v[1]) * ms, (v[2] + v[5] + v[6]) * ms);
		fprintf(f, "cpu_idle_ms %llu\ncpu_iowait_ms %llu\n", v[3] * ms,
			v[4] * ms);
		fprintf(f, "cpu_steal_ms %llu\n", v[7] * ms);
	}
	fprintf(f, "cpus %ld\n", sysconf(_SC_NPROCESSORS_ONLN));
}

static void put_load(FILE *f)
{
	unsigned running = 0, all = 0;
	char text[128], load[3][16];

	if (read_text("/proc/loadavg", text, sizeof(text)) > 0 &&
	    sscanf(text, "%15s %15s %15s %u/%u", load[0], load[1], load[2],
		   &running, &all) == 5)
		fprintf(f, "load1 %s\nload5 %s\nload15 %s\ntasks %u\n", load[0],
			load[1], load[2], all);
}

static void put_root(FILE *f)
{
	struct statvfs v;

	if (!statvfs("/", &v))
		fprintf(f, "root_total %llu\nroot_available %llu\n",
			(unsigned long long)v.f_blocks * v.f_frsize,
			(unsigned long long)v.f_bavail * v.f_frsize);
}

/* Bytes of all network cards but the loopback. */
static void put_net(FILE *f)
{
	FILE *in = fopen("/proc/net/dev", "re");
	unsigned long long rx = 0, tx = 0;
	char line[512];

	while (in && fgets(line, sizeof(line), in)) {
		unsigned long long r, t;
		char *colon = strchr(line, ':');

		if (!colon || strstr(line, " lo:") ||
		    sscanf(colon + 1, "%llu %*u %*u %*u %*u %*u %*u %*u %llu",
			   &r, &t) != 2)
			continue;
		rx += r;
		tx += t;
	}
	if (in)
		fclose(in);
	fprintf(f, "net_rx_bytes %llu\nnet_tx_bytes %llu\n", rx, tx);
}

void session_stats(struct session *s)
{
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);

	if (!f) {
		session_error(s, ENOMEM, 1, "out of memory");
		return;
	}
	fprintf(f, "uptime_ms %llu\n",
		(unsigned long long)(boot_ns() / 1000000));
	put_cpu(f);
	put_memory(f);
	put_load(f);
	put_root(f);
	put_net(f);
	fclose(f);
	reply(s, text, len);
	free(text);
}

/* ---- power ---- */

/* The signal that makes process 1 do it. */
static int power_signal(uint32_t how)
{
	char name[32];

	read_text("/proc/1/comm", name, sizeof(name));
	if (!strncmp(name, "systemd", 7)) /* SIGRTMIN + 4, + 5 as it counts */
		return how == AGENT_POWER_REBOOT ? 34 + 5 : 34 + 4;
	return how == AGENT_POWER_REBOOT ? SIGTERM : SIGUSR2;
}

void session_power(struct session *s, const struct frame *f)
{
	uint32_t how, patience;

	if (f->len < 8) {
		session_error(s, EPROTO, 1, "a damaged request");
		return;
	}
	how = get_le32(f->data);
	patience = get_le32(f->data + 4);
	if (how > AGENT_POWER_REBOOT) {
		session_error(s, EINVAL, 1, "unknown way to end");
		return;
	}
	reply(s, NULL, 0);
	kill(1, power_signal(how));
	/*
	 * Whoever is process 1 gets so long; then it is done without it. Its
	 * SIGTERM to everyone ends this here: it is at work.
	 */
	poll(NULL, 0, patience > 600000 ? 600000 : (int)patience);
	sync();
	reboot(how == AGENT_POWER_REBOOT ? RB_AUTOBOOT : RB_POWER_OFF);
}

/* ---- the clock ---- */

void session_time(struct session *s, const struct frame *f)
{
	struct timespec ts;
	uint64_t want, now, tolerance, diff;
	uint8_t out[16] = { 0 };

	if (f->len < 16) {
		session_error(s, EPROTO, 1, "a damaged request");
		return;
	}
	want = get_le64(f->data);
	tolerance = get_le64(f->data + 8);
	clock_gettime(CLOCK_REALTIME, &ts);
	now = (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
	diff = want - now;
	put_le64(out, diff); /* signed, to whom reads it */
	if ((want < now ? -diff : diff) > tolerance) {
		ts.tv_sec = (time_t)(want / 1000000000u);
		ts.tv_nsec = (long)(want % 1000000000u);
		if (clock_settime(CLOCK_REALTIME, &ts) < 0) {
			session_error(s, errno, 1, "the clock cannot be set");
			return;
		}
		out[8] = 1; /* it was set */
	}
	reply(s, out, sizeof(out));
}

/* ---- the kernel's log ---- */

/* "6,339,5140900,-;text\n more" -> "[    5.140900] text\n" */
static size_t log_line(const char *record, char *out, size_t size)
{
	const char *text = strchr(record, ';');
	unsigned long long us = 0;
	size_t len;

	sscanf(record, "%*u,%*u,%llu", &us);
	text = text ? text + 1 : record;
	len = strcspn(text, "\n");
	return (size_t)snprintf(out, size, "[%5llu.%06llu] %.*s\n",
				us / 1000000, us % 1000000, (int)len, text);
}

void session_log(struct session *s, const struct frame *f)
{
	bool follow = f->len && f->data[0];
	int fd = open("/dev/kmsg", O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	char record[8192], line[8300];

	if (fd < 0) {
		session_error(s, errno, 1, "no kernel log");
		return;
	}
	for (;;) {
		struct pollfd p[] = { { .fd = fd, .events = POLLIN },
				      { .fd = s->fd, .events = POLLIN } };
		ssize_t n = read(fd, record, sizeof(record) - 1);

		if (n < 0 && errno == EPIPE) /* it was overwritten: go on */
			continue;
		if (n < 0 && errno == EAGAIN) {
			if (frame_out_send(&s->out, s->fd) < 0 || !follow)
				break;
			poll(p, 2, -1);
			if (p[1].revents) /* the host has enough */
				break;
			continue;
		}
		if (n <= 0)
			break;
		record[n] = 0;
		n = (ssize_t)log_line(record, line, sizeof(line));
		frame_put(&s->out, AGENT_STDOUT, NULL, 0, line, (size_t)n);
		if (frame_out_pending(&s->out) > AGENT_CHUNK &&
		    frame_out_send(&s->out, s->fd) < 0)
			break;
	}
	close(fd);
	reply(s, NULL, 0);
}
