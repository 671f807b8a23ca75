/*
 * The GDB server against a scripted client and a machine of two vCPUs that do
 * nothing: what a command reads, writes and runs.
 */
#include "test.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/err.h"
#include "base/util.h"
#include "gdb/gdb.h"
#include "gdb/rsp.h"

/* Virtual addresses are physical ones above this. */
#define VA 0xffffffff80000000ull

struct machine {
	struct hv_vm vm;
	struct hv_vcpu cpu[2];
	struct hv_x86_vcpu_state *state[2];
	struct hv_debug debug[2];
	struct gmem *mem;
	struct gdb *gdb;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool running[2], killed;
	unsigned resumes;
	int fd;
	char path[64];
};

static struct machine *of(struct hv_vcpu *c)
{
	return container_of(c->vm, struct machine, vm);
}

static int get_state(struct hv_vcpu *c, struct hv_x86_vcpu_state *s)
{
	*s = *of(c)->state[c->index];
	return 0;
}

static int set_state(struct hv_vcpu *c, const struct hv_x86_vcpu_state *s)
{
	*of(c)->state[c->index] = *s;
	return 0;
}

static int set_debug(struct hv_vcpu *c, const struct hv_debug *d)
{
	of(c)->debug[c->index] = *d;
	return 0;
}

static int translate(struct hv_vcpu *c, uint64_t va, gpa_t *out)
{
	(void)c;
	if (va < VA || va >= VA + KiB(64))
		return -EFAULT;
	*out = gpa(va - VA);
	return 0;
}

static const struct hv_ops ops = {
	.name = "fake",
	.vcpu_get_state = get_state,
	.vcpu_set_state = set_state,
	.vcpu_set_debug = set_debug,
	.vcpu_translate = translate,
};

static unsigned t_cpus(void *t)
{
	(void)t;
	return 2;
}

static struct hv_vcpu *t_cpu(void *t, unsigned i)
{
	return &((struct machine *)t)->cpu[i];
}

static struct gmem *t_mem(void *t)
{
	return ((struct machine *)t)->mem;
}

static int t_stop(void *t)
{
	struct machine *m = t;

	pthread_mutex_lock(&m->lock);
	m->running[0] = m->running[1] = false;
	pthread_mutex_unlock(&m->lock);
	return 0;
}

static int t_resume(void *t, const bool *run)
{
	struct machine *m = t;

	pthread_mutex_lock(&m->lock);
	m->running[0] = run[0];
	m->running[1] = run[1];
	m->resumes++;
	pthread_cond_broadcast(&m->changed);
	pthread_mutex_unlock(&m->lock);
	return 0;
}

static void t_kill(void *t)
{
	struct machine *m = t;

	pthread_mutex_lock(&m->lock);
	m->killed = true;
	pthread_cond_broadcast(&m->changed);
	pthread_mutex_unlock(&m->lock);
}

static const struct gdb_target_ops target = {
	.cpus = t_cpus,
	.cpu = t_cpu,
	.mem = t_mem,
	.stop = t_stop,
	.resume = t_resume,
	.kill = t_kill,
};

static void wait_resumes(struct machine *m, unsigned n)
{
	pthread_mutex_lock(&m->lock);
	while (m->resumes < n)
		pthread_cond_wait(&m->changed, &m->lock);
	pthread_mutex_unlock(&m->lock);
}

/* ---- a client ---- */

static void client_connect(struct machine *m)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };

	strcpy(a.sun_path, m->path);
	m->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(m->fd, (struct sockaddr *)&a, sizeof(a)), 0);
}

static char read_byte(struct machine *m)
{
	struct pollfd p = { .fd = m->fd, .events = POLLIN };
	char c;

	assert_int_equal(poll(&p, 1, 10000), 1);
	assert_int_equal(read(m->fd, &c, 1), 1);
	return c;
}

/* The next packet, unescaped. */
static void receive(struct machine *m, char *buf, size_t size)
{
	size_t n = 0;
	char c;

	do {
		c = read_byte(m);
	} while (c != '$');
	while ((c = read_byte(m)) != '#') {
		if (c == '}')
			c = (char)(read_byte(m) ^ 0x20);
		assert_true(n + 1 < size);
		buf[n++] = c;
	}
	buf[n] = 0;
	read_byte(m);
	read_byte(m);
	/* (the peer may be gone after D) */
	send(m->fd, "+", 1, MSG_NOSIGNAL);
}

static void send_raw(struct machine *m, const char *p)
{
	uint8_t sum = 0;
	char buf[9000];
	int n;

	for (const char *c = p; *c; c++)
		sum += (uint8_t)*c;
	n = snprintf(buf, sizeof(buf), "$%s#%02x", p, sum);
	assert_int_equal(write(m->fd, buf, (size_t)n), n);
}

static const char *ask(struct machine *m, const char *p)
{
	static char buf[2 * RSP_PACKET_MAX];

	send_raw(m, p);
	receive(m, buf, sizeof(buf));
	return buf;
}
#define assert_reply(m, p, want) assert_string_equal(ask(m, p), want)

static int setup(void **state)
{
	struct machine *m = calloc(1, sizeof(*m));

	m->vm.ops = &ops;
	m->vm.caps = HV_CAP_DEBUG;
	pthread_mutex_init(&m->lock, NULL);
	pthread_cond_init(&m->changed, NULL);
	for (unsigned i = 0; i < 2; i++) {
		m->cpu[i].vm = &m->vm;
		m->cpu[i].index = i;
		m->state[i] = aligned_alloc(64, sizeof(*m->state[i]));
		memset(m->state[i], 0, sizeof(*m->state[i]));
		m->state[i]->rip = VA + 0x100 * i;
		m->state[i]->gpr[X86_RAX] = 0x1122334455667788 + i;
		m->running[i] = true;
	}
	assert_int_equal(gmem_create(&m->mem), 0);
	assert_int_equal(gmem_add_ram(m->mem, gpa(0), KiB(64), NULL), 0);
	snprintf(m->path, sizeof(m->path), "/tmp/gdb-test-%d", getpid());
	{
		char where[80];
		struct err e = { 0 };

		snprintf(where, sizeof(where), "unix:%s", m->path);
		if (gdb_create(&m->gdb, where, &target, m, NULL, &e))
			fail_msg("%s", e.text);
	}
	client_connect(m);
	*state = m;
	return 0;
}

static int teardown(void **state)
{
	struct machine *m = *state;

	close(m->fd);
	gdb_destroy(m->gdb);
	gmem_destroy(m->mem);
	free(m->state[0]);
	free(m->state[1]);
	free(m);
	return 0;
}

static void registers(void **state)
{
	struct machine *m = *state;
	const char *r;

	assert_true(strstr(ask(m, "qSupported"), "qXfer:features:read+"));
	assert_reply(m, "?", "T05thread:1;");
	r = ask(m, "g");
	assert_memory_equal(r, "8877665544332211", 16);
	assert_reply(m, "p0", "8877665544332211");
	assert_reply(m, "Hg2", "OK");
	assert_reply(m, "p0", "8977665544332211");
	assert_reply(m, "p10", "00010080ffffffff"); /* rip */
	assert_reply(m, "P0=0100000000000000", "OK");
	assert_int_equal(m->state[1]->gpr[X86_RAX], 1);
	assert_int_equal(m->state[0]->gpr[X86_RAX], 0x1122334455667788);
	/* a whole g packet goes back unchanged */
	{
		char cmd[8192];

		cmd[0] = 'G';
		r = ask(m, "g");
		assert_true(strlen(r) < sizeof(cmd) - 1);
		memcpy(cmd + 1, r, strlen(r) + 1);
		cmd[1] = '7';
		assert_reply(m, cmd, "OK");
	}
	assert_int_equal(m->state[1]->gpr[X86_RAX], 0x71);
	assert_reply(m, "pfff", "E16");
	assert_reply(m, "P0=01", "E16");
}

static void target_xml(void **state)
{
	struct machine *m = *state;
	char cmd[64];
	unsigned at = 0;
	const char *r;

	do {
		snprintf(cmd, sizeof(cmd),
			 "qXfer:features:read:target.xml:%x,400", at);
		r = ask(m, cmd);
		at += (unsigned)strlen(r) - 1;
	} while (*r == 'm');
	assert_int_equal(*r, 'l');
	assert_true(strstr(r, "</target>"));
}

static void memory(void **state)
{
	struct machine *m = *state;
	uint8_t b[4] = { 1, 2, 3, 4 };

	gmem_write(m->mem, gpa(0xffe), b, 4);
	assert_reply(m, "mffffffff80000ffe,4", "01020304");
	assert_reply(m, "m1000,4", "E0e");
	assert_reply(m, "Mffffffff80000fff,2:aabb", "OK");
	gmem_read(m->mem, gpa(0xffe), b, 4);
	assert_memory_equal(b, "\x01\xaa\xbb\x04", 4);
	/* the end of what is mapped cuts a read short */
	assert_true(strlen(ask(m, "mffffffff8000fffc,20")) <= 8);
	/* a write that does not fit changes nothing */
	assert_reply(m, "Mffffffff8000ffff,2:0101", "E0e");
	gmem_read(m->mem, gpa(0xffff), b, 1);
	assert_int_equal(b[0], 0);
	assert_reply(m, "Mffffffff80000fff,2:aa", "E16");
}

static void threads(void **state)
{
	struct machine *m = *state;

	assert_reply(m, "qfThreadInfo", "m1,2");
	assert_reply(m, "qsThreadInfo", "l");
	assert_reply(m, "T2", "OK");
	assert_reply(m, "T3", "E03");
	assert_reply(m, "qC", "QC1");
	assert_reply(m, "Hg3", "E16");
	assert_true(strlen(ask(m, "qThreadExtraInfo,2")) > 8);
	assert_reply(m, "vMustReplyEmpty", "");
}

static void breakpoint_in_memory(void **state)
{
	struct machine *m = *state;
	struct hv_exit x = { .reason = HV_EXIT_DEBUG,
			     .debug = { .rip = VA + 0x10, .software = true } };
	char buf[256];
	uint8_t b = 0x90;

	gmem_write(m->mem, gpa(0x10), &b, 1);
	assert_reply(m, "Z0,ffffffff80000010,1", "OK");
	gmem_read(m->mem, gpa(0x10), &b, 1);
	assert_int_equal(b, 0xcc);
	assert_reply(m, "mffffffff80000010,1", "90"); /* hidden */
	send_raw(m, "vCont;c");
	wait_resumes(m, 1);
	assert_true(m->running[0] && m->running[1]);
	assert_true(m->debug[0].enabled && m->debug[1].software_breakpoints);

	gdb_debug_exit(m->gdb, 1, &x);
	receive(m, buf, sizeof(buf));
	assert_string_equal(buf, "T05thread:2;swbreak:;");
	assert_false(m->running[0] || m->running[1]);
	/* a write under it is kept for later */
	assert_reply(m, "Mffffffff80000010,1:55", "OK");
	gmem_read(m->mem, gpa(0x10), &b, 1);
	assert_int_equal(b, 0xcc);
	assert_reply(m, "z0,ffffffff80000010,1", "OK");
	gmem_read(m->mem, gpa(0x10), &b, 1);
	assert_int_equal(b, 0x55);
}

/* The guest's own INT3 is the guest's. */
static void foreign_int3(void **state)
{
	struct machine *m = *state;
	struct hv_exit x = { .reason = HV_EXIT_DEBUG,
			     .debug = { .rip = VA, .software = true } };

	assert_reply(m, "Z0,ffffffff80000010,1", "OK");
	send_raw(m, "c");
	wait_resumes(m, 1);
	gdb_debug_exit(m->gdb, 0, &x);
	wait_resumes(m, 2);
	assert_int_equal(m->state[0]->exception_injected, 1);
	assert_int_equal(m->state[0]->exception_vector, 3);
	assert_true(m->state[0]->rip == VA + 1);
}

static void hardware(void **state)
{
	struct machine *m = *state;
	struct hv_exit x = { .reason = HV_EXIT_DEBUG,
			     .debug = { .rip = VA, .dr6 = 2 } };
	char buf[256];

	assert_reply(m, "Z1,ffffffff80000010,1", "OK");
	assert_reply(m, "Z2,ffffffff80000020,8", "OK");
	assert_reply(m, "Z3,ffffffff80000020,8", ""); /* no such thing */
	assert_reply(m, "Z4,ffffffff80000021,8", "E16"); /* unaligned */
	assert_reply(m, "Z4,ffffffff80000030,4", "OK");
	assert_reply(m, "Z4,ffffffff80000040,4", "OK");
	assert_reply(m, "Z4,ffffffff80000050,4", "E1c"); /* all in use */
	send_raw(m, "c");
	wait_resumes(m, 1);
	assert_true(m->debug[0].hardware);
	assert_true(m->debug[0].dr[1] == VA + 0x20);
	assert_true(m->debug[0].dr7 == (0x400 | 0xaa | 0x9ull << 20 |
					0xfull << 24 | 0xfull << 28));
	gdb_debug_exit(m->gdb, 0, &x);
	receive(m, buf, sizeof(buf));
	assert_string_equal(buf, "T05thread:1;watch:ffffffff80000020;");
	assert_reply(m, "z2,ffffffff80000020,8", "OK");
	assert_reply(m, "z2,ffffffff80000020,8", "E02");
}

static void stepping(void **state)
{
	struct machine *m = *state;
	struct hv_exit x = { .reason = HV_EXIT_DEBUG,
			     .debug = { .rip = VA + 1, .dr6 = 1 << 14 } };
	char buf[256];

	send_raw(m, "vCont;s:2");
	wait_resumes(m, 1);
	assert_true(!m->running[0] && m->running[1]);
	assert_true(m->debug[1].single_step && !m->debug[0].single_step);
	gdb_debug_exit(m->gdb, 1, &x);
	receive(m, buf, sizeof(buf));
	assert_string_equal(buf, "T05thread:2;");
	send_raw(m, "vCont;s:1;c");
	wait_resumes(m, 2);
	assert_true(m->running[0] && m->running[1]);
	assert_true(m->debug[0].single_step && !m->debug[1].single_step);
	/* Ctrl-C */
	assert_int_equal(write(m->fd, "\003", 1), 1);
	receive(m, buf, sizeof(buf));
	assert_memory_equal(buf, "T02", 3);
	assert_reply(m, "vCont;s:9", "E16");
	assert_reply(m, "Hg-", "E16");
	assert_reply(m, "vCont;c:-", "E16");
}

/* A client that goes takes its breakpoints with it. */
static void client_leaves(void **state)
{
	struct machine *m = *state;
	uint8_t b;

	assert_reply(m, "Z0,ffffffff80000010,1", "OK");
	close(m->fd);
	wait_resumes(m, 1);
	gmem_read(m->mem, gpa(0x10), &b, 1);
	assert_int_equal(b, 0);
	assert_false(m->debug[0].enabled);
	client_connect(m);
	assert_reply(m, "?", "T05thread:1;");
	assert_false(m->running[0]);
	assert_reply(m, "D", "OK");
	wait_resumes(m, 2);
}

static void ends(void **state)
{
	struct machine *m = *state;
	char buf[64];

	send_raw(m, "c");
	wait_resumes(m, 1);
	assert_reply(m, "m0,1", "E10"); /* it runs */
	gdb_run_ended(m->gdb, 3);
	receive(m, buf, sizeof(buf));
	assert_string_equal(buf, "W03");
}

static void no_acks_and_bad_sums(void **state)
{
	struct machine *m = *state;

	assert_int_equal(write(m->fd, "$?#00", 5), 5);
	assert_int_equal(read_byte(m), '-');
	assert_reply(m, "QStartNoAckMode", "OK");
	assert_reply(m, "", "");
	assert_reply(m, "zzz", "E16");
	send_raw(m, "k");
	pthread_mutex_lock(&m->lock);
	while (!m->killed)
		pthread_cond_wait(&m->changed, &m->lock);
	pthread_mutex_unlock(&m->lock);
}

static void bad_addresses(void **state)
{
	static const char *const bad[] = {
		"x",	 "tcp:",   "tcp:70000",		 "tcp:a:1",
		"unix:", "tcp:1x", "unix:/nonexistent/s"
	};
	struct err e;
	struct gdb *g;

	for (unsigned i = 0; i < array_size(bad); i++) {
		e = (struct err){ 0 };
		assert_true(gdb_create(&g, bad[i], &target, *state, NULL, &e) <
			    0);
		assert_true(e.text[0]);
	}
	assert_int_equal(gdb_create(&g, "tcp:0", &target, *state, NULL, &e), 0);
	assert_true(gdb_port(g) > 0);
	gdb_destroy(g);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(registers),	  T(target_xml),    T(memory),
		T(threads),	  T(hardware),	    T(breakpoint_in_memory),
		T(foreign_int3),  T(stepping),	    T(ends),
		T(client_leaves), T(bad_addresses), T(no_acks_and_bad_sums),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
