/*
 * The event loop: epoll, timers, posted work.
 *
 * A loop is run by one thread. Every object (device, connection, server)
 * belongs to one loop for life and is touched only
 *   - from that loop's callbacks, or
 *   - between loop_lock() and loop_unlock(), which is how a vCPU thread makes
 *     a trapped register access.
 * The loop holds the same lock while it dispatches and drops it to sleep, so
 * devices need no mutex of their own. Callbacks never block: blocking work goes
 * to loop_work() and comes back as a callback on the loop.
 *
 * The loop sleeps until something happens: no polling, no periodic tick.
 */
#ifndef ARC_LOOP_LOOP_H
#define ARC_LOOP_LOOP_H

#include <stdbool.h>
#include <stdint.h>

struct loop;
struct log;

/* 0 or -errno. */
int loop_create(struct loop **out, const struct log *log);
/*
 * Not while it runs. All watches and timers must have been closed (a leak is a
 * bug_on); posted callbacks not yet run are run.
 */
void loop_destroy(struct loop *l);

/* Dispatch until loop_stop(). Returns 0, or -errno when epoll fails. */
int loop_run(struct loop *l);
/*
 * One turn: dispatch what is ready, waiting at most @timeout_ms (-1: until
 * something is). The number of callbacks run. For tests and embedding.
 */
int loop_turn(struct loop *l, int timeout_ms);
/* From any thread: loop_run() returns after the current turn. Sticky. */
void loop_stop(struct loop *l);

/* Run the loop on a thread of its own; loop_stop_thread() stops and joins. */
int loop_start_thread(struct loop *l, const char *name);
void loop_stop_thread(struct loop *l);

/* Recursive for the loop's own thread (which holds it while dispatching). */
void loop_lock(struct loop *l);
void loop_unlock(struct loop *l);
/* True on the thread that now holds the lock. For bug_on(). */
bool loop_owned(const struct loop *l);

/*
 * Watch a file descriptor (which stays the caller's). @events are EPOLL* bits;
 * level-triggered unless EPOLLET or EPOLLONESHOT says otherwise. The callback
 * gets the ready bits. After watch_close() the callback never runs again, even
 * for events already fetched in this turn; the struct may be freed at once.
 */
struct loop_watch {
	struct loop *loop; /* NULL when not registered */
	int fd;
	uint32_t slot, generation; /* the loop's */
	void (*fn)(struct loop_watch *w, uint32_t events);
};

int watch_open(struct loop_watch *w, struct loop *l, int fd, uint32_t events,
	       void (*fn)(struct loop_watch *w, uint32_t events));
/* Change the events, or re-arm EPOLLONESHOT. */
int watch_modify(struct loop_watch *w, uint32_t events);
void watch_close(struct loop_watch *w); /* harmless when not open */

/* One-shot timer at an absolute clock_ns() time. */
struct loop_timer {
	struct loop *loop; /* NULL when not armed */
	uint64_t at_ns;
	unsigned heap_index; /* the loop's */
	void (*fn)(struct loop_timer *t);
};

/* Arm, or move, @t; 0 or -ENOMEM. */
int timer_set(struct loop_timer *t, struct loop *l, uint64_t at_ns,
	      void (*fn)(struct loop_timer *t));
void timer_cancel(struct loop_timer *t); /* harmless when not armed */

/*
 * Run @fn on the loop, from any thread, without allocating: the node is the
 * caller's and must live until @fn is called. Posting a node that is already
 * queued does nothing. Order is kept per poster.
 */
struct loop_post {
	struct loop_post *next;
	int queued; /* atomic */
	void (*fn)(struct loop_post *p);
};
void loop_post(struct loop *l, struct loop_post *p);

/*
 * Run @fn once at the end of this turn, after all its events: how a device does
 * in one pass what several events of a turn asked for. On the loop, or under
 * its lock. Deferred from within a deferred @fn, it runs at the end of the next
 * turn, which looks for events but does not wait for any. Deferring what is
 * deferred does nothing. A zeroed node is idle.
 */
struct loop_defer {
	struct loop *loop; /* NULL when idle */
	struct loop_defer *next, **at;
	void (*fn)(struct loop_defer *d);
};
void loop_defer(struct loop *l, struct loop_defer *d);
void loop_defer_cancel(struct loop_defer *d); /* harmless when idle */

/*
 * Blocking work on the loop's pool (threads are started on demand, at most
 * LOOP_POOL_MAX, and end with the loop). @work runs on a pool thread, then
 * @done on the loop. The struct is the caller's until @done.
 */
#define LOOP_POOL_MAX 4
struct loop_work {
	struct loop_post post;
	struct loop_work *next;
	struct loop *loop;
	void (*work)(struct loop_work *w);
	void (*done)(struct loop_work *w);
};
int loop_work(struct loop *l, struct loop_work *w);

#endif
