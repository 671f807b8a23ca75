/*
 * The agent's client against a hostile guest: a command, a copy from it and to
 * it, questions. Oracles: one end of the command, copies stay in their place,
 * text is printable.
 */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/exec.h"
#include "agent/frame.h"
#include "agent/request.h"
#include "agent_frames.h"
#include "base/bug.h"
#include "base/err.h"
#include "base/util.h"
#include "loop/loop.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* ---- a command ---- */

struct run {
	struct agent_exec *x;
	unsigned mood; /* how much of the output is taken, and more */
	unsigned ended;
	bool destroyed, destroy_early;
};

static void started(void *ctx, uint32_t pid)
{
	struct run *r = ctx;

	(void)pid;
	if (r->mood & 1)
		agent_exec_signal(r->x, 15);
}

static size_t output(void *ctx, int stream, const void *data, size_t len)
{
	struct run *r = ctx;
	volatile uint8_t sum = 0;

	bug_on(stream != 1 && stream != 2);
	for (size_t i = 0; i < len; i++) /* read it all: is it ours? */
		sum = (uint8_t)(sum + ((const uint8_t *)data)[i]);
	r->mood = r->mood * 1103515245 + 12345;
	if (r->mood & 0x10000)
		agent_exec_resize(r->x, 1, 2);
	return r->mood & 0x20000 ? len / 2 : len;
}

static void input_room(void *ctx, size_t room)
{
	struct run *r = ctx;
	static const char some[100];

	bug_on(!room || room > AGENT_STDIN_WINDOW);
	agent_exec_input(r->x, some, sizeof(some));
}

static void ended(void *ctx, int ret, const struct agent_exit *exit,
		  const char *why)
{
	struct run *r = ctx;

	bug_on(r->ended++);
	bug_on(exit->code < 0 || exit->code > 255);
	bug_on(exit->signal < 0 || exit->signal > 64);
	bug_on(ret > 0 || (ret < 0 && !why));
	if (r->destroy_early) {
		agent_exec_destroy(r->x);
		r->destroyed = true;
	}
}

static void fuzz_exec(int fd, uint8_t mood)
{
	static const struct agent_exec_ops ops = { started, output, input_room,
						   ended };
	static const char *const argv[] = { "c", NULL };
	struct agent_exec_config c = { .argv = argv,
				       .input = mood & 2,
				       .detach = (mood & 0x70) == 0x70 };
	struct run r = { .mood = mood, .destroy_early = mood & 4 };
	struct loop *l;

	bug_on(loop_create(&l, NULL));
	bug_on(agent_exec_start(&r.x, l, fd, &c, &ops, &r, NULL));
	if (mood & 2)
		agent_exec_input(r.x, "abc", 3);
	for (int i = 0; i < 100000 && !r.ended; i++) {
		loop_turn(l, 0);
		if (!r.ended)
			agent_exec_resume(r.x);
	}
	bug_on(!r.ended);
	if (!r.destroyed)
		agent_exec_destroy(r.x);
	loop_destroy(l);
}

/* ---- the rest ---- */

static void printable(const char *s)
{
	for (; *s; s++)
		bug_on((uint8_t)*s < ' ' || *s == 127);
}

static void fuzz_requests(int fd, uint8_t mood)
{
	struct copy_result r;
	struct err e = { 0 };
	char *text = NULL;
	uint64_t v;

	switch (mood % 4) {
	case 0:
		agent_get(fd, 100, "x", agent_target_dir(), mood & 4, &r, &e);
		break;
	case 1:
		agent_put(fd, 100, agent_source_tree(), "x", 0, &r, &e);
		break;
	case 2:
		if (!agent_stats(fd, 100, &text, &e))
			agent_stat(text, "a", &v);
		free(text);
		break;
	case 3:
		agent_log(fd, 100, false, 1 << 20, &e);
		break;
	}
	printable(e.text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct frame_out o = { 0 };
	uint8_t *rest;
	size_t n;
	int sv[2];

	if (len < 3 || len > 8192)
		return 0;
	if (data[0] & 7)
		frame_put_hello(&o, "");
	rest = agent_frames(data + 2, len - 2, &n);
	o.buf = realloc(o.buf, o.len + n + 1);
	bug_on(!o.buf);
	if (n)
		memcpy(o.buf + o.len, rest, n);
	agent_line(o.buf, o.len + n, sv);
	if (data[0] & 8) {
		fuzz_exec(sv[0], data[1]);
	} else {
		fuzz_requests(sv[0], data[1]);
		close(sv[0]);
	}
	close(sv[1]);
	free(rest);
	frame_out_free(&o);
	if (!(data[0] & 8) && data[1] % 4 == 0)
		agent_target_check();
	return 0;
}
