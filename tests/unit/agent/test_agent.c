/*
 * The agent's client against the real guest program, run here on one half of a
 * socketpair.
 */
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/exec.h"
#include "agent/request.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/util.h"
#include "loop/loop.h"

extern const char guest_start[] asm("_binary_arcvmm_guest_start");
extern const char guest_end[] asm("_binary_arcvmm_guest_end");

static int program; /* the guest program, in a memfd */
static pid_t guest; /* the last session's process */
static char dir[64];

static int group_setup(void **state)
{
	size_t len = (size_t)(guest_end - guest_start);

	(void)state;
	signal(SIGPIPE, SIG_IGN);
	program = memfd_create("guest", MFD_CLOEXEC);
	if (program < 0 || write(program, guest_start, len) != (ssize_t)len)
		return -1;
	/* Out of the way of what a session is given. */
	program = fcntl(program, F_DUPFD_CLOEXEC, 200);
	return program < 0;
}

static int setup(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/arcvmm-agent.XXXXXX");
	return mkdtemp(dir) && !chdir(dir) ? 0 : -1;
}

static int teardown(void **state)
{
	char cmd[128];

	(void)state;
	snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
	return chdir("/") || system(cmd);
}

/* A connection to a session of its own. */
static int session(void)
{
	static char *argv[] = { "guest", "session", NULL };
	static char *envp[] = { NULL };
	int sv[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	guest = fork();
	if (!guest) {
		if (sv[1] != 3) {
			dup2(sv[1], 3);
			close(sv[1]);
		}
		for (int i = 4; i < 200; i++)
			close(i);
		fexecve(program, argv, envp);
		_exit(99);
	}
	close(sv[1]);
	return sv[0];
}

static void session_over(void)
{
	int status;

	assert_int_equal(waitpid(guest, &status, 0), guest);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void sh(const char *cmd)
{
	if (system(cmd))
		fail_msg("failed: %s", cmd);
}

/* ---- commands, by the blocking call ---- */

struct outcome {
	int ret;
	struct agent_exit exit;
	struct err err;
	char out[4096], errout[4096];
};

static void slurp(const char *path, char *buf, size_t size)
{
	FILE *f = fopen(path, "r");
	size_t n = fread(buf, 1, size - 1, f);

	buf[n] = 0;
	fclose(f);
}

static void run_conf(struct outcome *o, const struct agent_exec_config *c,
		     const char *input)
{
	int out = open("out", O_RDWR | O_CREAT | O_TRUNC, 0600);
	int err = open("err", O_RDWR | O_CREAT | O_TRUNC, 0600);
	int in = -1;

	memset(o, 0, sizeof(*o));
	if (input) {
		in = memfd_create("in", 0);
		assert_int_equal(write(in, input, strlen(input)),
				 strlen(input));
		lseek(in, 0, SEEK_SET);
	}
	o->ret = agent_exec_run(session(), c, in, out, err, -1, &o->exit,
				&o->err);
	session_over();
	close(out);
	close(err);
	if (in >= 0)
		close(in);
	slurp("out", o->out, sizeof(o->out));
	slurp("err", o->errout, sizeof(o->errout));
}

static void run_sh(struct outcome *o, const char *script, const char *input)
{
	const char *argv[] = { "sh", "-c", script, NULL };
	struct agent_exec_config c = { .argv = argv };

	run_conf(o, &c, input);
}

static void test_exec(void **state)
{
	struct outcome o;

	(void)state;
	run_sh(&o, "echo out; echo err >&2; exit 7", NULL);
	assert_int_equal(o.ret, 0);
	assert_int_equal(o.exit.code, 7);
	assert_int_equal(o.exit.signal, 0);
	assert_string_equal(o.out, "out\n");
	assert_string_equal(o.errout, "err\n");
	run_sh(&o, "kill -9 $$", NULL);
	assert_int_equal(o.exit.code, 137);
	assert_int_equal(o.exit.signal, 9);
	run_sh(&o, "cat; echo end", "some\ninput");
	assert_string_equal(o.out, "some\ninputend\n");
	/* No input: end of file at once. */
	run_sh(&o, "cat; echo end", NULL);
	assert_string_equal(o.out, "end\n");
	/* A child that stays does not keep us. */
	run_sh(&o, "sleep 30 & echo gone; exit 3", NULL);
	assert_int_equal(o.exit.code, 3);
	assert_string_equal(o.out, "gone\n");
}

static void test_exec_settings(void **state)
{
	static const char *const argv[] = { "sh",
					    "-c",
					    "pwd; echo $A; echo $HOME; "
					    "ulimit -n; echo \"$1\"",
					    "x",
					    "b\n c\"",
					    NULL };
	static const char *const env[] = { "A=x y", "HOME=/h", NULL };
	struct agent_limit limit = { 7 /* NOFILE */, 99, 99 };
	struct agent_exec_config c = { .argv = argv,
				       .env = env,
				       .cwd = "/usr",
				       .limits = &limit,
				       .limit_count = 1 };
	static const char *const envonly[] = { "/usr/bin/env", NULL };
	struct outcome o;

	(void)state;
	run_conf(&o, &c, NULL);
	assert_string_equal(o.out, "/usr\nx y\n/h\n99\nb\n c\"\n");
	c = (struct agent_exec_config){ .argv = envonly,
					.env = env,
					.clean_env = true };
	run_conf(&o, &c, NULL);
	assert_string_equal(o.out, "A=x y\nHOME=/h\n");
	if (geteuid())
		return;
	c.argv = (const char *const[]){ "/usr/bin/id", NULL };
	c.user = "12:34";
	run_conf(&o, &c, NULL);
	assert_non_null(strstr(o.out, "uid=12"));
	assert_non_null(strstr(o.out, "gid=34"));
}

static void test_limits(void **state)
{
	static const struct {
		const char *text, *says;
	} wrong[] = {
		{ "", "NAME=SOFT" },
		{ "nofile", "NAME=SOFT" },
		{ "=5", "NAME=SOFT" },
		{ "nofiles=5", "did you mean 'nofile'" },
		{ "NOFILE=5", "there is no 'NOFILE'" },
		{ "an-endless-name-that-nobody-knows=1", "there is no" },
		{ "nofile=", "not a number" },
		{ "nofile=-1", "not a number" },
		{ "nofile=1K", "not a number" },
		{ "nofile=5:", "not a number" },
		{ "nofile=5:6:7", "not a number" },
		{ "nofile=18446744073709551615", "not within" },
		{ "as=1Q", "not a size" },
		{ "as=8E", "not a size" },
		{ "cpu=5:4", "soft limit is above" },
		{ "cpu=unlimited:4", "soft limit is above" },
		{ "cpu=0000000000000000000000000000000000000000005", "SOFT" },
	};
	struct agent_limit l, many[AGENT_LIMITS_MAX + 1] = { 0 };
	struct agent_exec_config c = { .limits = many };
	struct outcome o;

	(void)state;
	for (size_t i = 0; i < array_size(wrong); i++) {
		struct err e = { 0 };

		assert_true(agent_limit_parse(&l, wrong[i].text, &e) < 0);
		if (!strstr(e.text, wrong[i].says))
			fail_msg("%s: %s", wrong[i].text, e.text);
	}
	assert_int_equal(agent_limit_parse(&l, "as=1.5G:unlimited", NULL), 0);
	assert_int_equal(l.resource, RLIMIT_AS);
	assert_int_equal(l.soft, 3ull << 29);
	assert_int_equal(l.hard, AGENT_LIMIT_NONE);
	assert_int_equal(agent_limit_parse(&l, "nice=20", NULL), 0);
	assert_int_equal(l.soft, 20);
	assert_int_equal(l.hard, 20);

	/* What the program is given by code is looked at as well. */
	c.argv = (const char *const[]){ "true", NULL };
	c.limit_count = array_size(many);
	run_conf(&o, &c, NULL);
	assert_int_equal(o.ret, -E2BIG);
	c.limit_count = 1;
	many[0].resource = 16;
	run_conf(&o, &c, NULL);
	assert_int_equal(o.ret, -EINVAL);
	many[0] = (struct agent_limit){ RLIMIT_NOFILE, 2, 1 };
	run_conf(&o, &c, NULL);
	assert_int_equal(o.ret, -EINVAL);
	/* The last of one resource counts, and what fails has a name. */
	many[0] = (struct agent_limit){ RLIMIT_NOFILE, 1ull << 40, 1ull << 40 };
	many[1] = (struct agent_limit){ RLIMIT_NOFILE, 77, 88 };
	c.limit_count = 2;
	c.argv = (const char *const[]){ "sh", "-c", "ulimit -Sn; ulimit -Hn",
					NULL };
	run_conf(&o, &c, NULL);
	assert_string_equal(o.out, "77\n88\n");
	c.limit_count = 1;
	run_conf(&o, &c, NULL);
	assert_int_equal(o.exit.code, 125);
	assert_non_null(strstr(o.err.text, "limit nofile"));
}

static void test_exec_errors(void **state)
{
	struct agent_exec_config c = { 0 };
	struct outcome o;

	(void)state;
	c.argv = (const char *const[]){ "no such", NULL };
	run_conf(&o, &c, NULL);
	assert_int_equal(o.ret, -ENOENT);
	assert_int_equal(o.exit.code, 127);
	assert_non_null(strstr(o.err.text, "no such"));
	c.argv = (const char *const[]){ "/etc/passwd", NULL };
	run_conf(&o, &c, NULL);
	assert_int_equal(o.exit.code, 126);
	c.argv = (const char *const[]){ "/tmp", NULL };
	run_conf(&o, &c, NULL);
	assert_int_equal(o.exit.code, 126);
	c.argv = (const char *const[]){ "true", NULL };
	c.cwd = "/nowhere";
	run_conf(&o, &c, NULL);
	assert_int_equal(o.exit.code, 125);
	assert_non_null(strstr(o.err.text, "/nowhere"));
	c.cwd = NULL;
	c.user = "nobody-like-that";
	run_conf(&o, &c, NULL);
	assert_int_equal(o.exit.code, 125);
	assert_non_null(strstr(o.err.text, "nobody-like-that"));
	c.user = NULL;
	c.env = (const char *const[]){ "no equals sign", NULL };
	run_conf(&o, &c, NULL);
	assert_int_equal(o.ret, -EINVAL);
}

static void test_exec_timeout(void **state)
{
	static const char *const argv[] = { "sleep", "60", NULL };
	static const char *const deaf[] = { "sh", "-c",
					    "trap '' TERM; sleep 60 & wait; "
					    "wait",
					    NULL };
	struct agent_exec_config c = { .argv = argv,
				       .timeout_ns = 100 * NSEC_PER_MSEC };
	struct outcome o;

	(void)state;
	run_conf(&o, &c, NULL);
	assert_true(o.exit.timed_out);
	assert_int_equal(o.exit.code, 143);
	c.argv = deaf;
	run_conf(&o, &c, NULL);
	assert_true(o.exit.timed_out);
	assert_int_equal(o.exit.signal, 9);
}

static void test_exec_tty(void **state)
{
	static const char *const argv[] = {
		"sh", "-c", "stty size; tty; test -t 0 -a -t 2 && echo yes",
		NULL
	};
	struct agent_exec_config c = {
		.argv = argv, .tty = true, .rows = 33, .columns = 111
	};
	struct outcome o;

	(void)state;
	run_conf(&o, &c, NULL);
	assert_int_equal(o.exit.code, 0);
	assert_non_null(strstr(o.out, "33 111"));
	assert_non_null(strstr(o.out, "/dev/pts/"));
	assert_non_null(strstr(o.out, "yes"));
	/* The end of input is ^D there. */
	c.argv = (const char *const[]){ "cat", NULL };
	run_conf(&o, &c, "typed\n");
	assert_int_equal(o.exit.code, 0);
	assert_non_null(strstr(o.out, "typed"));
	/* ^C is a signal there. */
	c.argv = (const char *const[]){ "sleep", "60", NULL };
	run_conf(&o, &c, "\3");
	assert_int_equal(o.exit.code, 130);
}

/* ---- on a loop ---- */

struct watcher {
	struct loop *loop;
	struct agent_exec *x;
	struct loop_timer timer;
	uint64_t out_bytes;
	uint8_t sum;
	size_t take; /* at most so much per call */
	bool held; /* took not all */
	bool hold; /* take nothing */
	uint64_t to_send;
	uint32_t pid;
	bool ended;
	int ret;
	struct agent_exit exit;
	char why[512];
};

static void w_started(void *ctx, uint32_t pid)
{
	((struct watcher *)ctx)->pid = pid;
}

static size_t w_output(void *ctx, int stream, const void *data, size_t len)
{
	struct watcher *w = ctx;

	(void)stream;
	if (w->hold)
		return 0;
	w->held = w->take && len > w->take;
	if (w->held)
		len = w->take;
	for (size_t i = 0; i < len; i++)
		w->sum = (uint8_t)(w->sum * 3 + ((const uint8_t *)data)[i]);
	w->out_bytes += len;
	return len;
}

static void w_send(struct watcher *w)
{
	uint8_t buf[5000];

	while (w->to_send) {
		size_t n = min_of(w->to_send, (uint64_t)sizeof(buf));

		memset(buf, 'x', n);
		n = agent_exec_input(w->x, buf, n);
		w->to_send -= n;
		if (!n)
			return;
	}
	agent_exec_input_end(w->x);
}

static void w_room(void *ctx, size_t room)
{
	assert_true(room > 0);
	w_send(ctx);
}

static void w_ended(void *ctx, int ret, const struct agent_exit *exit,
		    const char *why)
{
	struct watcher *w = ctx;

	assert_false(w->ended);
	w->ended = true;
	w->ret = ret;
	w->exit = *exit;
	snprintf(w->why, sizeof(w->why), "%s", why);
}

static const struct agent_exec_ops w_ops = { .started = w_started,
					     .output = w_output,
					     .input_room = w_room,
					     .ended = w_ended };

static void w_start_fd(struct watcher *w, struct agent_exec_config c, int fd)
{
	struct err e = { 0 };

	if (!w->loop)
		assert_int_equal(loop_create(&w->loop, NULL), 0);
	if (agent_exec_start(&w->x, w->loop, fd, &c, &w_ops, w, &e))
		fail_msg("%s", e.text);
}

static void w_start(struct watcher *w, const char *script)
{
	const char *argv[] = { "sh", "-c", script, NULL };

	w_start_fd(w,
		   (struct agent_exec_config){ .argv = argv,
					       .input = w->to_send > 0 },
		   session());
}

static void w_until(struct watcher *w, bool (*cond)(struct watcher *w))
{
	uint64_t end = clock_ns() + 20 * NSEC_PER_SEC;

	while (!cond(w)) {
		assert_true(clock_ns() < end);
		loop_turn(w->loop, 100);
	}
}

static bool has_ended(struct watcher *w)
{
	return w->ended;
}

static bool has_started(struct watcher *w)
{
	return w->pid;
}

static void w_close(struct watcher *w)
{
	agent_exec_destroy(w->x);
	loop_destroy(w->loop);
	session_over();
}

static void test_stream(void **state)
{
	struct watcher w = { .to_send = 20 << 20, .take = 3000 };

	(void)state;
	w_start(&w, "cat");
	w_send(&w);
	while (!w.ended) {
		loop_turn(w.loop, w.held ? 0 : 1000);
		agent_exec_resume(w.x);
	}
	assert_int_equal(w.ret, 0);
	assert_int_equal(w.exit.code, 0);
	assert_int_equal(w.out_bytes, 20 << 20);
	w_close(&w);
}

/* Peak memory of a process in KiB. */
static long peak_kib(pid_t pid)
{
	char path[64], line[256];
	long kib = -1;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	f = fopen(path, "r");
	while (f && fgets(line, sizeof(line), f))
		sscanf(line, "VmHWM: %ld", &kib);
	if (f)
		fclose(f);
	return kib;
}

static bool out_256m(struct watcher *w)
{
	return w->out_bytes >= 256 << 20;
}

static void test_constant_memory(void **state)
{
	struct watcher w = { 0 };
	long before, after;

	(void)state;
	w_start(&w, "head -c 270000000 /dev/zero; sleep 0.2");
	w_until(&w, has_started);
	before = peak_kib(guest);
	w_until(&w, out_256m);
	after = peak_kib(guest);
	assert_true(before > 0);
	print_message("guest session: %ld KiB at its start, %ld KiB after "
		      "256 MiB\n",
		      before, after);
	assert_true(after < 2048);
	w_until(&w, has_ended);
	assert_int_equal(w.out_bytes, 270000000);
	w_close(&w);
}

/* A host that does not read holds the command up, and a signal gets through. */
static void test_backpressure(void **state)
{
	struct watcher w = { .hold = true };

	(void)state;
	w_start(&w, "yes");
	w_until(&w, has_started);
	for (int i = 0; i < 20; i++)
		loop_turn(w.loop, 10);
	assert_int_equal(w.out_bytes, 0);
	assert_true(peak_kib(guest) < 2048);
	agent_exec_signal(w.x, SIGTERM);
	w.hold = false;
	agent_exec_resume(w.x);
	w_until(&w, has_ended);
	assert_int_equal(w.exit.signal, SIGTERM);
	w_close(&w);
}

/* A command that reads nothing cannot block what is not its input. */
static void test_signal_past_input(void **state)
{
	struct watcher w = { .to_send = 10 << 20 };

	(void)state;
	w_start(&w, "exec sleep 60");
	w_send(&w);
	w_until(&w, has_started);
	for (int i = 0; i < 10; i++)
		loop_turn(w.loop, 10);
	assert_true(w.to_send > 9 << 20);
	agent_exec_signal(w.x, SIGUSR1);
	w_until(&w, has_ended);
	assert_int_equal(w.exit.signal, SIGUSR1);
	w_close(&w);
}

/* A command that closes its input takes the rest unread. */
static void test_input_closed(void **state)
{
	struct watcher w = { .to_send = 5 << 20 };

	(void)state;
	w_start(&w, "exec <&-; sleep 0.2; echo done");
	w_send(&w);
	w_until(&w, has_ended);
	assert_int_equal(w.exit.code, 0);
	assert_int_equal(w.out_bytes, 5);
	assert_int_equal(w.to_send, 0);
	w_close(&w);
}

static bool is_gone(struct watcher *w)
{
	return kill((pid_t)w->pid, 0) < 0 && errno == ESRCH;
}

static void test_host_goes(void **state)
{
	struct watcher w = { 0 };

	(void)state;
	w_start(&w, "exec sleep 600");
	w_until(&w, has_started);
	assert_false(is_gone(&w));
	agent_exec_destroy(w.x);
	session_over();
	w_until(&w, is_gone);
	loop_destroy(w.loop);
}

static void test_detach(void **state)
{
	static const char *const argv[] = { "sh", "-c",
					    "sleep 0.3; echo ran >ran", NULL };
	struct watcher w = { 0 };

	(void)state;
	w_start_fd(&w,
		   (struct agent_exec_config){
			   .argv = argv, .cwd = dir, .detach = true },
		   session());
	w_until(&w, has_ended);
	assert_int_equal(w.ret, 0);
	w_close(&w);
	for (int i = 0; i < 300 && access("ran", F_OK); i++)
		usleep(10000);
	assert_int_equal(access("ran", F_OK), 0);
}

static void test_guest_dies(void **state)
{
	struct watcher w = { 0 };
	int status;

	(void)state;
	w_start(&w, "sleep 60");
	w_until(&w, has_started);
	kill(guest, SIGKILL);
	w_until(&w, has_ended);
	assert_true(w.ret < 0);
	assert_int_equal(w.exit.code, 125);
	assert_non_null(strstr(w.why, "broke"));
	agent_exec_destroy(w.x);
	loop_destroy(w.loop);
	waitpid(guest, &status, 0);
	kill((pid_t)w.pid, SIGKILL);
}

/* The guest's process 1 asks all to end: the host hears how it went. */
static void test_exec_shutdown(void **state)
{
	static const char *const scripts[] = {
		"exec sleep 60", "trap '' TERM; sleep 60 & wait; wait",
		"trap 'echo bye; exit 3' TERM; sleep 60 & wait"
	};
	static const int codes[] = { 143, 137, 3 };

	(void)state;
	for (int i = 0; i < 3; i++) {
		struct watcher w = { 0 };

		w_start(&w, scripts[i]);
		w_until(&w, has_started);
		usleep(50000);
		kill(guest, SIGTERM);
		w_until(&w, has_ended);
		assert_int_equal(w.ret, 0);
		assert_int_equal(w.exit.code, codes[i]);
		assert_int_equal(w.exit.signal,
				 codes[i] > 128 ? codes[i] - 128 : 0);
		assert_true(w.exit.shutdown);
		assert_int_equal(w.out_bytes, i == 2 ? 4 : 0);
		w_close(&w);
	}
}

/* What cannot be written is not lost in silence. */
static void test_exec_full(void **state)
{
	struct agent_exec_config c = { .argv = (const char *const[]){
					       "echo", "x", NULL } };
	int full = open("/dev/full", O_WRONLY), p[2];
	struct agent_exit exit;
	struct err e = { 0 };

	(void)state;
	assert_int_equal(
		agent_exec_run(session(), &c, -1, full, full, -1, &exit, &e),
		-ENOSPC);
	session_over();
	assert_int_equal(exit.code, 125);
	assert_non_null(strstr(e.text, "output was lost"));
	close(full);
	/* A reader that has enough is none of that. */
	assert_int_equal(pipe(p), 0);
	close(p[0]);
	assert_int_equal(
		agent_exec_run(session(), &c, -1, p[1], 2, -1, &exit, &e), 0);
	session_over();
	close(p[1]);
}

static void test_exec_times(void **state)
{
	struct outcome o;

	(void)state;
	run_sh(&o, "sleep 0.1", NULL);
	assert_false(o.exit.shutdown);
	assert_true(o.exit.command_ns >= 100 * NSEC_PER_MSEC);
	assert_true(o.exit.agent_ns >= o.exit.command_ns);
	assert_true(o.exit.agent_ns < 20 * NSEC_PER_SEC);
}

/* What an agent of before says of an end, and one of later. */
static void test_exit_frames(void **state)
{
	static const char *const argv[] = { "true", NULL };
	uint8_t e[AGENT_EXIT_TIMES_LEN + 9] = { 0 };
	static const struct {
		size_t len;
		int ret;
		uint64_t command_ns;
	} cases[] = {
		{ AGENT_EXIT_LEN - 1, -EPROTO, 0 },
		{ AGENT_EXIT_LEN, 0, 0 },
		{ AGENT_EXIT_TIMES_LEN - 1, 0, 0 },
		{ AGENT_EXIT_TIMES_LEN, 0, 1234567890123 },
		{ sizeof(e), 0, 1234567890123 },
	};

	(void)state;
	put_le32(e, 9);
	put_le32(e + 8, 0x80000000); /* of later */
	put_le64(e + 12, 1234567890123);
	for (size_t i = 0; i < array_size(cases); i++) {
		struct frame_out o = { 0 };
		struct watcher w = { 0 };
		int sv[2];

		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
		frame_put_hello(&o, "x");
		frame_put(&o, AGENT_EXIT, e, cases[i].len, NULL, 0);
		assert_int_equal(frame_out_send(&o, sv[1]), 0);
		w_start_fd(&w, (struct agent_exec_config){ .argv = argv },
			   sv[0]);
		w_until(&w, has_ended);
		assert_int_equal(w.ret, cases[i].ret);
		assert_int_equal(w.exit.code, w.ret ? 125 : 9);
		assert_int_equal(w.exit.command_ns, cases[i].command_ns);
		assert_false(w.exit.timed_out || w.exit.shutdown);
		agent_exec_destroy(w.x);
		loop_destroy(w.loop);
		close(sv[1]);
		frame_out_free(&o);
	}
}

static void test_many(void **state)
{
	enum { N = 40 };
	struct watcher w[N] = { 0 };
	pid_t pids[N];
	bool all;

	(void)state;
	for (int i = 0; i < N; i++) {
		char script[64];

		if (i)
			w[i].loop = w[0].loop;
		snprintf(script, sizeof(script),
			 "head -c %d /dev/zero; exit %d", i * 10000, i);
		w_start(&w[i], script);
		pids[i] = guest;
	}
	do {
		loop_turn(w[0].loop, 1000);
		all = true;
		for (int i = 0; i < N; i++)
			all &= w[i].ended;
	} while (!all);
	for (int i = 0; i < N; i++) {
		assert_int_equal(w[i].exit.code, i);
		assert_int_equal(w[i].out_bytes, i * 10000);
		agent_exec_destroy(w[i].x);
		assert_int_equal(waitpid(pids[i], NULL, 0), pids[i]);
	}
	loop_destroy(w[0].loop);
}

/* ---- agents that are not ---- */

/* What the client makes of a peer that says @text (or nothing) and stays. */
static void bad_agent(struct watcher *w, const void *text, size_t len,
		      bool hang_up)
{
	static const char *const argv[] = { "true", NULL };
	struct agent_exec_config c = { .argv = argv,
				       .patience_ns = 200 * NSEC_PER_MSEC };
	int sv[2];

	memset(w, 0, sizeof(*w));
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	assert_int_equal(write(sv[1], text, len), len);
	if (hang_up)
		shutdown(sv[1], SHUT_RDWR);
	w_start_fd(w, c, sv[0]);
	w_until(w, has_ended);
	assert_true(w->ret < 0);
	assert_int_equal(w->exit.code, 125);
	agent_exec_destroy(w->x);
	loop_destroy(w->loop);
	close(sv[1]);
}

static void test_bad_agents(void **state)
{
	struct frame_out o = { 0 };
	struct watcher w;

	(void)state;
	bad_agent(&w, "", 0, false);
	assert_int_equal(w.ret, -ETIMEDOUT);
	bad_agent(&w, "", 0, true);
	assert_non_null(strstr(w.why, "nobody answers"));
	bad_agent(&w, "HTTP/1.1 400 Bad Request\r\n\r\n", 28, false);
	assert_int_equal(w.ret, -EPROTO);
	bad_agent(&w, "\0\0\0\0\x2b\0\0\0", 8, false); /* EXIT first */
	assert_int_equal(w.ret, -EPROTO);
	frame_put_hello(&o, "old");
	o.buf[AGENT_FRAME_HEAD + 4] = 9; /* its version */
	frame_put_error(&o, EPROTONOSUPPORT, 125, "I speak version 9");
	bad_agent(&w, o.buf, o.len, false);
	assert_int_equal(w.ret, -EPROTONOSUPPORT);
	assert_string_equal(w.why, "I speak version 9");
	frame_out_free(&o);
	frame_put_hello(&o, "x");
	frame_put(&o, AGENT_STDIN_ACK, "\xff\xff\xff\xff", 4, NULL, 0);
	bad_agent(&w, o.buf, o.len, false);
	assert_int_equal(w.ret, -EPROTO);
	frame_out_free(&o);
}

/* One that greets and then says no more must not hold up who asks. */
static void test_silent_agent(void **state)
{
	struct frame_out o = { 0 };
	struct err e = { 0 };
	int64_t behind;
	char *text;
	bool set;
	int sv[2];

	(void)state;
	for (int i = 0; i < 3; i++) {
		int ret;

		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
		frame_put_hello(&o, "x");
		assert_int_equal(frame_out_send(&o, sv[1]), 0);
		ret = i == 0   ? agent_ping(sv[0], 100, &e)
		      : i == 1 ? agent_stats(sv[0], 100, &text, &e)
			       : agent_time_sync(sv[0], 100, 0, &behind, &set,
						 &e);
		assert_int_equal(ret, -ETIMEDOUT);
		assert_non_null(strstr(e.text, "does not answer"));
		close(sv[0]);
		close(sv[1]);
	}
	frame_out_free(&o);
}

/* A host that is not: the session must end, whatever it was told. */
static void bad_host(const void *data, size_t len, const char *expect)
{
	char buf[65536];
	size_t got = 0;
	ssize_t n;
	int fd = session();

	assert_int_equal(write(fd, data, len), len);
	shutdown(fd, SHUT_WR);
	while ((n = read(fd, buf + got, sizeof(buf) - got)) > 0)
		got += (size_t)n;
	if (expect && !memmem(buf, got, expect, strlen(expect)))
		fail_msg("\"%s\" was not said", expect);
	close(fd);
	session_over();
}

static void test_bad_hosts(void **state)
{
	struct frame_out o = { 0 };

	(void)state;
	bad_host("", 0, NULL);
	bad_host("\1", 1, NULL);
	bad_host("GET / HTTP/1.0\r\n\r\n", 18, NULL);
	bad_host("\0\0\0\0\x10\0\0\0", 8, "no hello");
	frame_put_hello(&o, "new");
	o.buf[AGENT_FRAME_HEAD + 4] = 9;
	bad_host(o.buf, o.len, "version 1");
	o.buf[AGENT_FRAME_HEAD + 4] = 1;
	frame_put(&o, 99, NULL, 0, NULL, 0);
	bad_host(o.buf, o.len, "unknown request 99");
	frame_out_free(&o);
	frame_put_hello(&o, "");
	frame_put_attr(&o, 77, "", 0);
	bad_host(o.buf, o.len, "attribute 77");
	frame_out_free(&o);
	frame_put_hello(&o, "");
	frame_put(&o, AGENT_EXEC, NULL, 0, NULL, 0);
	bad_host(o.buf, o.len, "no command");
	frame_out_free(&o);
	frame_put_hello(&o, "");
	frame_put(&o, AGENT_PUT, NULL, 0, NULL, 0);
	bad_host(o.buf, o.len, "no path");
	frame_out_free(&o);
	/* More attributes than any command may have. */
	frame_put_hello(&o, "");
	for (int i = 0; i < 80; i++) {
		static char word[65536];

		memset(word, 'a', sizeof(word));
		frame_put_attr(&o, AGENT_ATTR_ARG, word, sizeof(word));
	}
	{
		/* It may stop reading before we stop writing. */
		int fd = session();
		struct frame_in in = { 0 };
		struct frame f;
		char why[100];
		int status;

		fcntl(fd, F_SETFL, O_NONBLOCK);
		while (frame_out_flush(&o, fd) > 0 && frame_out_pending(&o)) {
			struct pollfd {
				int fd;
				short events, revents;
			};
			usleep(1000);
			if (frame_in_fill(&in, fd) > 0)
				break;
		}
		fcntl(fd, F_SETFL, 0);
		assert_int_equal(frame_recv(&in, fd, &f), 1);
		assert_int_equal(frame_recv(&in, fd, &f), 1);
		assert_int_equal(frame_get_error(&f, &status, why, 100), E2BIG);
		frame_in_free(&in);
		close(fd);
		session_over();
	}
	frame_out_free(&o);
}

/* ---- copies ---- */

static void make_tree(void)
{
	sh("mkdir -p t/sub/deep t/empty && echo hello >t/file && "
	   "ln -s file t/link && ln t/file t/sub/hard && mkfifo t/fifo && "
	   "head -c 300000 /dev/urandom >t/sub/big && chmod 640 t/sub/big && "
	   "truncate -s 50M t/sparse && "
	   "printf x | dd of=t/sparse bs=1 seek=20000000 conv=notrunc "
	   "status=none && touch -d @1000000000.123456789 t/sub/big && "
	   "touch -h -d @900000000 t/link && "
	   "chmod 751 t/sub && touch -d @1100000000 t/sub t/empty && "
	   "echo >'t/with space\nand newline' && chmod 1777 t/sub/deep");
}

static void same_tree(const char *other)
{
	static const char list[] =
		"(cd %s && find . -printf '%%p %%y %%m %%l %%T@ ' -a \\( "
		"-type d -printf '\\n' -o -printf '%%s %%n %%b\\n' \\) | sort)";
	char cmd[512];

	snprintf(cmd, sizeof(cmd), list, "t");
	strcat(cmd, " >l1");
	sh(cmd);
	snprintf(cmd, sizeof(cmd), list, other);
	strcat(cmd, " >l2");
	sh(cmd);
	sh("diff l1 l2");
	snprintf(cmd, sizeof(cmd),
		 "cmp t/sub/big %s/sub/big && cmp t/sparse %s/sparse && "
		 "test $(stat -c %%b %s/sparse) -lt 200",
		 other, other, other);
	sh(cmd);
}

static const char *in_dir(const char *name)
{
	static char path[4][256];
	static unsigned i;

	i = (i + 1) % 4;
	snprintf(path[i], sizeof(path[i]), "%s/%s", dir, name);
	return path[i];
}

static int put(const char *from, const char *to, struct copy_result *r,
	       struct err *e)
{
	int fd = session(), ret;

	*e = (struct err){ 0 };
	ret = agent_put(fd, 0, from, in_dir(to), 0, r, e);
	close(fd);
	session_over();
	return ret;
}

static int get(const char *from, const char *to, struct copy_result *r,
	       struct err *e)
{
	int fd = session(), ret;

	*e = (struct err){ 0 };
	ret = agent_get(fd, 0, in_dir(from), to, 0, r, e);
	close(fd);
	session_over();
	return ret;
}

static void test_copy(void **state)
{
	struct copy_result r;
	struct err e;

	(void)state;
	make_tree();
	/* Under a new name, into a directory, and its contents. */
	assert_int_equal(put("t", "new", &r, &e), 0);
	same_tree("new");
	assert_true(r.entries > 9 && r.bytes > 300000);
	sh("mkdir into");
	assert_int_equal(put("t", "into", &r, &e), 0);
	same_tree("into/t");
	sh("mkdir flat");
	assert_int_equal(put("t/.", "flat", &r, &e), 0);
	sh("chmod --reference=t flat; touch -r t flat");
	same_tree("flat");
	/* Once more over what is there. */
	assert_int_equal(put("t", "into", &r, &e), 0);
	same_tree("into/t");
	/* And back. */
	assert_int_equal(get("t", "back", &r, &e), 0);
	same_tree("back");
	assert_int_equal(get("t/file", "one", &r, &e), 0);
	sh("cmp t/file one");
	assert_int_equal(get("t/with space\nand newline", "two", &r, &e), 0);
	sh("cmp 't/with space\nand newline' two");
	assert_int_equal(put("t/file", "a\nb c", &r, &e), 0);
	sh("cmp t/file 'a\nb c'");
	/* The files of /proc have no size. */
	{
		int fd = session();

		assert_int_equal(
			agent_get(fd, 0, "/proc/version", "version", 0, &r, &e),
			0);
		close(fd);
		session_over();
		sh("cmp version /proc/version");
	}
}

static void test_copy_errors(void **state)
{
	struct copy_result r;
	struct err e;

	(void)state;
	make_tree();
	sh("echo old >old; mkdir d");
	assert_int_equal(put("nope", "x", &r, &e), -ENOENT);
	assert_non_null(strstr(e.text, "nope"));
	assert_int_equal(get("nope", "x", &r, &e), -ENOENT);
	assert_non_null(strstr(e.text, "nope"));
	assert_int_equal(put("t/file", "no/where", &r, &e), -ENOENT);
	assert_int_equal(get("t/file", "no/where", &r, &e), -ENOENT);
	assert_int_equal(put("t", "old", &r, &e), -ENOTDIR);
	assert_int_equal(put("t/file", "old/x", &r, &e), -ENOTDIR);
	assert_int_equal(put("t/file", "nodir/", &r, &e), 0);
	sh("mkdir -p d/file; touch d/file/x");
	assert_int_equal(put("t/file", "d", &r, &e), -EISDIR);
	sh("test -z \"$(find . -name '.arcvmm*')\"");
	if (!geteuid()) {
		struct stat st;

		assert_int_equal(get("../../dev/null", "null", &r, &e), -EPERM);
		assert_non_null(strstr(e.text, "device"));
		assert_true(stat("null", &st) < 0);
	}
}

static void test_copy_full_disk(void **state)
{
	struct copy_result r;
	struct err e;
	int ret;

	(void)state;
	sh("mkdir small; head -c 40000000 /dev/urandom >big; "
	   "echo old >keep");
	if (mount("t", "small", "tmpfs", 0, "size=1m") < 0)
		skip_because("cannot mount a small tmpfs");
	sh("cp keep small/big");
	ret = put("big", "small", &r, &e);
	sh("cmp keep small/big && test $(ls -A small | wc -l) = 1");
	umount("small");
	assert_int_equal(ret, -ENOSPC);
	assert_non_null(strstr(e.text, "space"));
}

/* ---- questions ---- */

static void test_questions(void **state)
{
	struct err e = { 0 };
	int64_t behind;
	uint64_t v;
	char *text;
	bool set;
	int fd;

	(void)state;
	fd = session();
	assert_int_equal(agent_ping(fd, 0, &e), 0);
	close(fd);
	session_over();
	fd = session();
	assert_int_equal(agent_stats(fd, 0, &text, &e), 0);
	close(fd);
	session_over();
	assert_true(agent_stat(text, "mem_total", &v) && v > 1 << 20);
	assert_true(agent_stat(text, "cpus", &v) && v >= 1);
	assert_true(agent_stat(text, "uptime_ms", &v));
	assert_false(agent_stat(text, "mem", &v));
	free(text);
	fd = session();
	assert_int_equal(
		agent_time_sync(fd, 0, NSEC_PER_SEC, &behind, &set, &e), 0);
	close(fd);
	session_over();
	assert_false(set);
	assert_true(behind > -(int64_t)NSEC_PER_SEC &&
		    behind < (int64_t)NSEC_PER_SEC);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	/* clang-format off */
	const struct CMUnitTest tests[] = {
		T(test_exec),
		T(test_exec_settings),
		T(test_limits),
		T(test_exec_errors),
		T(test_exec_timeout),
		T(test_exec_tty),
		T(test_stream),
		T(test_constant_memory),
		T(test_backpressure),
		T(test_signal_past_input),
		T(test_input_closed),
		T(test_host_goes),
		T(test_detach),
		T(test_guest_dies),
		T(test_exec_shutdown),
		T(test_exec_full),
		T(test_exec_times),
		T(test_exit_frames),
		T(test_many),
		T(test_bad_agents),
		T(test_silent_agent),
		T(test_bad_hosts),
		T(test_copy),
		T(test_copy_errors),
		T(test_copy_full_disk),
		T(test_questions),
	};
	/* clang-format on */

	return cmocka_run_group_tests(tests, group_setup, NULL);
}
