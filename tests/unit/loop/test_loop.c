#include "test.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/thread.h"
#include "base/util.h"
#include "loop/loop.h"

static struct loop *new_loop(void)
{
	struct loop *l;

	assert_int_equal(loop_create(&l, NULL), 0);
	return l;
}

/* ---- watches ---- */

struct pair {
	struct loop_watch w;
	struct pair *other;
	unsigned *runs;
};

static void close_both(struct loop_watch *w, uint32_t events)
{
	struct pair *p = container_of(w, struct pair, w);

	(void)events;
	++*p->runs;
	watch_close(&p->other->w);
	watch_close(&p->w);
}

static void closed_watch_never_runs(void **state)
{
	struct loop *l = new_loop();
	unsigned runs = 0;
	struct pair a = { .runs = &runs }, b = { .other = &a, .runs = &runs };
	int fa = eventfd(1, 0), fb = eventfd(1, 0);

	(void)state;
	a.other = &b;
	/* Both ready in one turn; whichever runs first closes both. */
	assert_int_equal(watch_open(&a.w, l, fa, EPOLLIN, close_both), 0);
	assert_int_equal(watch_open(&b.w, l, fb, EPOLLIN, close_both), 0);
	loop_turn(l, 0);
	assert_int_equal(runs, 1);
	assert_int_equal(loop_turn(l, 0), 0);
	loop_destroy(l);
	close(fa);
	close(fb);
}

struct oneshot {
	struct loop_watch w;
	unsigned runs;
};

static void count_run(struct loop_watch *w, uint32_t events)
{
	assert_true(events & EPOLLIN);
	container_of(w, struct oneshot, w)->runs++;
}

static void oneshot_rearms(void **state)
{
	struct loop *l = new_loop();
	struct oneshot o = { 0 };
	int fd = eventfd(1, 0);

	(void)state;
	watch_open(&o.w, l, fd, EPOLLIN | EPOLLONESHOT, count_run);
	loop_turn(l, 0);
	loop_turn(l, 0);
	assert_int_equal(o.runs, 1);
	/* Re-arming looks at the level again: it is still readable. */
	assert_int_equal(watch_modify(&o.w, EPOLLIN | EPOLLONESHOT), 0);
	loop_turn(l, 0);
	assert_int_equal(o.runs, 2);
	watch_close(&o.w);
	watch_close(&o.w);
	assert_int_equal(watch_open(&o.w, l, -1, EPOLLIN, count_run), -EBADF);
	assert_null(o.w.loop);
	loop_destroy(l);
	close(fd);
}

static void many_watches_grow_the_table(void **state)
{
	struct loop *l = new_loop();
	struct oneshot o[100] = { 0 };
	unsigned total = 0;

	(void)state;
	for (unsigned i = 0; i < array_size(o); i++)
		assert_int_equal(watch_open(&o[i].w, l, eventfd(1, 0),
					    EPOLLIN | EPOLLONESHOT, count_run),
				 0);
	while (loop_turn(l, 0))
		;
	for (unsigned i = 0; i < array_size(o); i++) {
		total += o[i].runs;
		watch_close(&o[i].w);
		close(o[i].w.fd);
	}
	assert_int_equal(total, array_size(o));
	loop_destroy(l);
}

/* ---- timers ---- */

struct timers {
	struct loop_timer t[50];
	unsigned order[50], fired;
};

static struct timers timers; /* of this test program only */

static void note_order(struct loop_timer *t)
{
	timers.order[timers.fired++] = (unsigned)(t - timers.t);
}

static void timers_fire_in_order(void **state)
{
	struct loop *l = new_loop();
	uint64_t now = clock_ns();

	(void)state;
	for (unsigned i = 0; i < 50; i++)
		timer_set(&timers.t[i], l, now + (i * 37 % 50) * NSEC_PER_USEC,
			  note_order);
	timer_cancel(&timers.t[10]);
	timer_cancel(&timers.t[10]);
	timer_set(&timers.t[20], l, now + NSEC_PER_MSEC, note_order); /* move */
	while (timers.fired < 49)
		loop_turn(l, -1);
	for (unsigned i = 1; i < 49; i++)
		assert_true(timers.t[timers.order[i]].at_ns >=
			    timers.t[timers.order[i - 1]].at_ns);
	assert_int_equal(timers.order[48], 20);
	loop_destroy(l);
}

struct stopper {
	struct loop_timer t;
	struct loop *l;
};

static void stop_loop(struct loop_timer *t)
{
	loop_stop(container_of(t, struct stopper, t)->l);
}

/* A sleeping loop hears of a timer set by another thread holding its lock. */
static void timer_wakes_sleeping_loop(void **state)
{
	struct loop *l = new_loop();
	struct stopper s = { .l = l };

	(void)state;
	assert_int_equal(loop_start_thread(l, "test"), 0);
	usleep(1000); /* let it fall asleep; correct without, too */
	loop_lock(l);
	timer_set(&s.t, l, clock_ns() + NSEC_PER_MSEC, stop_loop);
	loop_unlock(l);
	loop_stop_thread(l); /* its own stop is sticky either way */
	timer_cancel(&s.t);
	loop_destroy(l);
}

/* ---- posts and locks ---- */

#define POSTERS 3
#define POSTS	20000

struct poster {
	struct thread t;
	struct loop *l;
	struct loop_post post;
	atomic_uint wanted, seen;
};

static void saw(struct loop_post *p)
{
	struct poster *po = container_of(p, struct poster, post);

	atomic_store(&po->seen, atomic_load(&po->wanted));
}

static void post_many(void *arg)
{
	struct poster *p = arg;

	for (unsigned i = 1; i <= POSTS; i++) {
		atomic_store(&p->wanted, i);
		loop_post(p->l, &p->post);
		if (i % 64 == 0) {
			loop_lock(p->l);
			assert_true(loop_owned(p->l));
			loop_unlock(p->l);
		}
	}
}

/* No announcement is lost: each poster's last value is seen. */
static void no_post_is_lost(void **state)
{
	struct loop *l = new_loop();
	struct poster p[POSTERS];

	(void)state;
	memset(p, 0, sizeof(p));
	loop_start_thread(l, "test");
	for (unsigned i = 0; i < POSTERS; i++) {
		p[i].l = l;
		p[i].post.fn = saw;
		thread_start(&p[i].t, "poster", post_many, &p[i]);
	}
	for (unsigned i = 0; i < POSTERS; i++) {
		thread_join(&p[i].t);
		while (atomic_load(&p[i].seen) != POSTS)
			usleep(100); /* hangs, and so fails, when lost */
	}
	loop_stop_thread(l);
	loop_destroy(l);
}

/* ---- the pool ---- */

struct job {
	struct loop_work w;
	unsigned *done;
	unsigned result;
};

static void job_work(struct loop_work *w)
{
	container_of(w, struct job, w)->result = 7;
}

static void job_done(struct loop_work *w)
{
	struct job *j = container_of(w, struct job, w);

	assert_true(loop_owned(w->loop));
	assert_int_equal(j->result, 7);
	++*j->done;
}

static void work_comes_back(void **state)
{
	struct loop *l = new_loop();
	struct job jobs[200];
	unsigned done = 0;

	(void)state;
	memset(jobs, 0, sizeof(jobs));
	for (unsigned i = 0; i < array_size(jobs); i++) {
		jobs[i].w.work = job_work;
		jobs[i].w.done = job_done;
		jobs[i].done = &done;
		assert_int_equal(loop_work(l, &jobs[i].w), 0);
	}
	while (done < array_size(jobs))
		loop_turn(l, -1);
	loop_destroy(l);
}

/* Destroying the loop finishes what was asked for. */
static void destroy_finishes_work(void **state)
{
	struct loop *l = new_loop();
	unsigned done = 0;
	struct job j = { .w = { .work = job_work, .done = job_done },
			 .done = &done };

	(void)state;
	loop_work(l, &j.w);
	loop_destroy(l);
	assert_int_equal(done, 1);
}

static void stop_is_sticky(void **state)
{
	struct loop *l = new_loop();

	(void)state;
	loop_stop(l);
	assert_int_equal(loop_run(l), 0);
	loop_destroy(l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(closed_watch_never_runs),
		cmocka_unit_test(oneshot_rearms),
		cmocka_unit_test(many_watches_grow_the_table),
		cmocka_unit_test(timers_fire_in_order),
		cmocka_unit_test(timer_wakes_sleeping_loop),
		cmocka_unit_test(no_post_is_lost),
		cmocka_unit_test(work_comes_back),
		cmocka_unit_test(destroy_finishes_work),
		cmocka_unit_test(stop_is_sticky),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
