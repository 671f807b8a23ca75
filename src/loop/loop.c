/*
 * Theory of operation
 *
 * One epoll set. Its user data is slot << 32 | generation: a watch takes a slot
 * in a table, and closing it bumps the slot's generation, so an event fetched
 * before the close finds a stale generation and is dropped. The watch's memory
 * is never touched after watch_close().
 *
 * Posting is a lock-free stack plus an eventfd. A poster pushes its node and
 * signals; the loop has the signal *before* it takes the stack (I1), so a push
 * that comes after the take is announced by another. The eventfd is watched by
 * edges, which every write is, and never read.
 *
 * Deferred callbacks are a list run at the end of a turn. While it is not empty
 * the wait does not block, so one that defers itself again yields to events.
 *
 * Timers are a binary heap; its head is the timeout of epoll_pwait2.
 *
 * The loop lock is a recursive ticket lock held during dispatch: first come,
 * first served. Between callbacks the loop goes to the back of the queue when
 * someone waits, so a vCPU waits for one callback at most, and a stream of
 * vCPU accesses cannot starve the loop.
 */
#include "loop/loop.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/bug.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/thread.h"
#include "base/util.h"

#define LOOP_BATCH 64 /* events fetched per turn */

struct slot {
	struct loop_watch *watch; /* NULL: free */
	uint32_t generation;
	uint32_t next_free;
};

struct loop {
	int epfd, evfd;
	const struct log *log;
	struct slot *slots;
	uint32_t nslots, free_slot;
	unsigned open_watches;

	struct loop_timer **heap;
	unsigned ntimers, heap_room;

	_Atomic(struct loop_post *) posted;
	atomic_bool stop;
	struct thread thread;

	pthread_mutex_t lock; /* guards the tickets */
	pthread_cond_t turn;
	unsigned next_ticket, serving;
	_Atomic(pthread_t) owner; /* 0 while nobody holds it */
	/* Below: only the holder touches them. */
	unsigned depth;
	bool dispatching; /* the holder is loop_turn() */
	struct loop_defer *deferred, **deferred_tail;

	/* The pool. */
	pthread_mutex_t pool_lock;
	pthread_cond_t pool_cond;
	struct loop_work *pool_head, **pool_tail;
	struct thread pool[LOOP_POOL_MAX];
	unsigned pool_threads, pool_idle, pool_queued;
	bool pool_stop;
};

#define NO_SLOT	  UINT32_MAX
#define SLOT_POST NO_SLOT /* user data of the eventfd */

static uint64_t user_data(uint32_t slot, uint32_t generation)
{
	return (uint64_t)slot << 32 | generation;
}

int loop_create(struct loop **out, const struct log *log)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLET,
				  .data.u64 = user_data(SLOT_POST, 0) };
	struct loop *l = calloc(1, sizeof(*l));
	int rc;

	if (!l)
		return -ENOMEM;
	l->log = log;
	l->free_slot = NO_SLOT;
	l->pool_tail = &l->pool_head;
	l->deferred_tail = &l->deferred;
	l->evfd = -1;
	pthread_mutex_init(&l->lock, NULL);
	pthread_cond_init(&l->turn, NULL);
	pthread_mutex_init(&l->pool_lock, NULL);
	pthread_cond_init(&l->pool_cond, NULL);
	l->epfd = epoll_create1(EPOLL_CLOEXEC);
	if (l->epfd < 0)
		goto fail;
	l->evfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (l->evfd < 0)
		goto fail;
	if (epoll_ctl(l->epfd, EPOLL_CTL_ADD, l->evfd, &ev) < 0)
		goto fail;
	*out = l;
	return 0;
fail:
	rc = -errno;
	if (l->evfd >= 0)
		close(l->evfd);
	if (l->epfd >= 0)
		close(l->epfd);
	free(l);
	return rc;
}

static void loop_signal(struct loop *l)
{
	uint64_t one = 1;

	/* Fails only when the counter is full, and then it is readable. */
	if (write(l->evfd, &one, sizeof(one)) < 0)
		bug_on(errno != EAGAIN);
}

/* ---- the lock ---- */

bool loop_owned(const struct loop *l)
{
	return pthread_equal(atomic_load_explicit(&((struct loop *)l)->owner,
						  memory_order_relaxed),
			     pthread_self());
}

void loop_lock(struct loop *l)
{
	if (loop_owned(l)) {
		l->depth++;
		return;
	}
	pthread_mutex_lock(&l->lock);
	for (unsigned mine = l->next_ticket++; mine != l->serving;)
		pthread_cond_wait(&l->turn, &l->lock);
	pthread_mutex_unlock(&l->lock);
	atomic_store_explicit(&l->owner, pthread_self(), memory_order_relaxed);
	l->depth = 1;
}

void loop_unlock(struct loop *l)
{
	bug_on(!loop_owned(l));
	if (--l->depth)
		return;
	atomic_store_explicit(&l->owner, (pthread_t)0, memory_order_relaxed);
	pthread_mutex_lock(&l->lock);
	if (++l->serving != l->next_ticket)
		pthread_cond_broadcast(&l->turn);
	pthread_mutex_unlock(&l->lock);
}

/* loop_turn() takes the lock, and lets others in between its callbacks. */
static void dispatch_begin(struct loop *l)
{
	loop_lock(l);
	l->dispatching = true;
}

static void dispatch_end(struct loop *l)
{
	l->dispatching = false;
	loop_unlock(l);
}

static void dispatch_yield(struct loop *l)
{
	bool wanted;

	pthread_mutex_lock(&l->lock);
	wanted = l->next_ticket - l->serving > 1;
	pthread_mutex_unlock(&l->lock);
	if (!wanted)
		return;
	dispatch_end(l);
	dispatch_begin(l);
}

/* ---- watches ---- */

static int slot_take(struct loop *l, uint32_t *out)
{
	if (l->free_slot == NO_SLOT) {
		uint32_t n = l->nslots ? l->nslots * 2 : 16;
		struct slot *s = realloc(l->slots, n * sizeof(*s));

		if (!s)
			return -ENOMEM;
		l->slots = s;
		for (uint32_t i = n; i-- > l->nslots;) {
			s[i] = (struct slot){ .next_free = l->free_slot };
			l->free_slot = i;
		}
		l->nslots = n;
	}
	*out = l->free_slot;
	l->free_slot = l->slots[*out].next_free;
	return 0;
}

static void slot_release(struct loop *l, uint32_t slot)
{
	l->slots[slot].watch = NULL;
	l->slots[slot].generation++;
	l->slots[slot].next_free = l->free_slot;
	l->free_slot = slot;
}

int watch_open(struct loop_watch *w, struct loop *l, int fd, uint32_t events,
	       void (*fn)(struct loop_watch *w, uint32_t events))
{
	struct epoll_event ev = { .events = events };
	uint32_t slot;
	int rc;

	loop_lock(l);
	rc = slot_take(l, &slot);
	if (rc)
		goto out;
	*w = (struct loop_watch){
		.loop = l,
		.fd = fd,
		.slot = slot,
		.generation = l->slots[slot].generation,
		.fn = fn,
	};
	l->slots[slot].watch = w;
	ev.data.u64 = user_data(slot, w->generation);
	if (epoll_ctl(l->epfd, EPOLL_CTL_ADD, fd, &ev) < 0) {
		rc = -errno;
		slot_release(l, slot);
		w->loop = NULL;
		goto out;
	}
	l->open_watches++;
out:
	loop_unlock(l);
	return rc;
}

int watch_modify(struct loop_watch *w, uint32_t events)
{
	struct epoll_event ev = {
		.events = events,
		.data.u64 = user_data(w->slot, w->generation),
	};

	if (epoll_ctl(w->loop->epfd, EPOLL_CTL_MOD, w->fd, &ev) < 0)
		return -errno;
	return 0;
}

void watch_close(struct loop_watch *w)
{
	struct loop *l = w->loop;

	if (!l)
		return;
	loop_lock(l);
	epoll_ctl(l->epfd, EPOLL_CTL_DEL, w->fd, NULL);
	slot_release(l, w->slot);
	l->open_watches--;
	w->loop = NULL;
	loop_unlock(l);
}

/* ---- timers: a binary heap by time ---- */

static void heap_put(struct loop *l, unsigned i, struct loop_timer *t)
{
	l->heap[i] = t;
	t->heap_index = i;
}

static void heap_up(struct loop *l, unsigned i)
{
	struct loop_timer *t = l->heap[i];

	for (unsigned up; i && l->heap[up = (i - 1) / 2]->at_ns > t->at_ns;
	     i = up)
		heap_put(l, i, l->heap[up]);
	heap_put(l, i, t);
}

static void heap_down(struct loop *l, unsigned i)
{
	struct loop_timer *t = l->heap[i];

	for (unsigned kid; (kid = 2 * i + 1) < l->ntimers; i = kid) {
		if (kid + 1 < l->ntimers &&
		    l->heap[kid + 1]->at_ns < l->heap[kid]->at_ns)
			kid++;
		if (t->at_ns <= l->heap[kid]->at_ns)
			break;
		heap_put(l, i, l->heap[kid]);
	}
	heap_put(l, i, t);
}

int timer_set(struct loop_timer *t, struct loop *l, uint64_t at_ns,
	      void (*fn)(struct loop_timer *t))
{
	int rc = 0;

	loop_lock(l);
	if (t->loop) {
		uint64_t old = t->at_ns;

		t->at_ns = at_ns;
		if (at_ns < old)
			heap_up(l, t->heap_index);
		else
			heap_down(l, t->heap_index);
	} else {
		if (l->ntimers == l->heap_room) {
			unsigned n = l->heap_room ? l->heap_room * 2 : 16;
			void *h = realloc(l->heap, n * sizeof(*l->heap));

			if (!h) {
				rc = -ENOMEM;
				goto out;
			}
			l->heap = h;
			l->heap_room = n;
		}
		t->loop = l;
		t->at_ns = at_ns;
		heap_put(l, l->ntimers++, t);
		heap_up(l, t->heap_index);
	}
	t->fn = fn;
	/* A sleeping loop must hear of a new earliest deadline. */
	if (l->heap[0] == t && !l->dispatching)
		loop_signal(l);
out:
	loop_unlock(l);
	return rc;
}

void timer_cancel(struct loop_timer *t)
{
	struct loop *l = t->loop;
	struct loop_timer *last;

	if (!l)
		return;
	loop_lock(l);
	last = l->heap[--l->ntimers];
	if (last != t) {
		heap_put(l, t->heap_index, last);
		heap_up(l, last->heap_index);
		heap_down(l, last->heap_index);
	}
	t->loop = NULL;
	loop_unlock(l);
}

static int run_timers(struct loop *l)
{
	uint64_t now;
	int n = 0;

	if (!l->ntimers)
		return 0;
	now = clock_ns();
	while (l->ntimers && l->heap[0]->at_ns <= now) {
		struct loop_timer *t = l->heap[0];

		timer_cancel(t);
		t->fn(t);
		n++;
		dispatch_yield(l);
	}
	return n;
}

/* ---- posts ---- */

void loop_post(struct loop *l, struct loop_post *p)
{
	struct loop_post *head;

	if (__atomic_exchange_n(&p->queued, 1, __ATOMIC_ACQ_REL))
		return;
	head = atomic_load_explicit(&l->posted, memory_order_relaxed);
	do
		p->next = head;
	while (!atomic_compare_exchange_weak_explicit(&l->posted, &head, p,
						      memory_order_release,
						      memory_order_relaxed));
	if (!head) /* else the poster that made it non-empty has signalled */
		loop_signal(l);
}

static int run_posts(struct loop *l)
{
	struct loop_post *p, *fifo = NULL;
	int n = 0;

	p = atomic_exchange_explicit(&l->posted, NULL, memory_order_acquire);
	while (p) { /* a stack: reverse it */
		struct loop_post *next = p->next;

		p->next = fifo;
		fifo = p;
		p = next;
	}
	while ((p = fifo)) {
		fifo = p->next;
		/*
		 * From here it may be posted again, or freed by fn. An exchange,
		 * not a store: who still found it queued (loop_post()) has
		 * written what fn is about to read, and a store could pass
		 * those reads.
		 */
		__atomic_exchange_n(&p->queued, 0, __ATOMIC_ACQ_REL);
		p->fn(p);
		n++;
		dispatch_yield(l);
	}
	return n;
}

/* ---- deferred to the end of the turn ---- */

void loop_defer(struct loop *l, struct loop_defer *d)
{
	if (d->loop)
		return;
	bug_on(!loop_owned(l));
	d->loop = l;
	d->next = NULL;
	d->at = l->deferred_tail;
	*l->deferred_tail = d;
	l->deferred_tail = &d->next;
	if (!l->dispatching)
		loop_signal(l); /* it sleeps, or is about to */
}

void loop_defer_cancel(struct loop_defer *d)
{
	if (!d->loop)
		return;
	bug_on(!loop_owned(d->loop));
	*d->at = d->next;
	if (d->next)
		d->next->at = d->at;
	else
		d->loop->deferred_tail = d->at;
	d->loop = NULL;
}

/* Those there are now; what they defer waits for the next turn. */
static int run_deferred(struct loop *l)
{
	struct loop_defer *d, mark = { .loop = l };
	int n = 0;

	if (!l->deferred)
		return 0;
	mark.at = l->deferred_tail;
	*l->deferred_tail = &mark;
	l->deferred_tail = &mark.next;
	while ((d = l->deferred) != &mark) {
		loop_defer_cancel(d);
		d->fn(d);
		n++;
		dispatch_yield(l);
	}
	loop_defer_cancel(&mark);
	return n;
}

/* ---- turning ---- */

static int loop_wait(struct loop *l, struct epoll_event *ev, int timeout_ms)
{
	struct timespec ts, *tsp = NULL;
	uint64_t ns = 0;
	bool bounded = false;

	if (timeout_ms >= 0) {
		ns = (uint64_t)timeout_ms * NSEC_PER_MSEC;
		bounded = true;
	}
	loop_lock(l);
	if (l->ntimers) {
		uint64_t now = clock_ns(), at = l->heap[0]->at_ns;
		uint64_t left = at > now ? at - now : 0;

		if (!bounded || left < ns)
			ns = left;
		bounded = true;
	}
	if (l->deferred) {
		ns = 0;
		bounded = true;
	}
	loop_unlock(l);
	if (bounded) {
		ts.tv_sec = (time_t)(ns / NSEC_PER_SEC);
		ts.tv_nsec = (long)(ns % NSEC_PER_SEC);
		tsp = &ts;
	}
	return epoll_pwait2(l->epfd, ev, LOOP_BATCH, tsp, NULL);
}

int loop_turn(struct loop *l, int timeout_ms)
{
	struct epoll_event ev[LOOP_BATCH];
	int n = loop_wait(l, ev, timeout_ms);
	int ran = 0;

	if (n < 0) {
		if (errno != EINTR)
			return -errno;
		n = 0;
	}
	dispatch_begin(l);
	for (int i = 0; i < n; i++) {
		uint32_t slot = (uint32_t)(ev[i].data.u64 >> 32);
		struct loop_watch *w;

		if (slot == SLOT_POST)
			continue; /* run_posts() looks */
		w = l->slots[slot].watch;
		if (!w || w->generation != (uint32_t)ev[i].data.u64)
			continue; /* closed since the event was fetched */
		w->fn(w, ev[i].events);
		ran++;
		dispatch_yield(l);
	}
	ran += run_posts(l);
	ran += run_timers(l);
	ran += run_deferred(l);
	dispatch_end(l);
	return ran;
}

int loop_run(struct loop *l)
{
	int rc = 0;

	while (rc >= 0 && !atomic_exchange(&l->stop, false))
		rc = loop_turn(l, -1);
	return rc < 0 ? rc : 0;
}

void loop_stop(struct loop *l)
{
	atomic_store(&l->stop, true);
	loop_signal(l);
}

static void loop_thread(void *arg)
{
	struct loop *l = arg;
	int rc = loop_run(l);

	if (rc)
		log_error(l->log, "event loop %s: %s", l->thread.name,
			  strerror(-rc));
}

int loop_start_thread(struct loop *l, const char *name)
{
	return thread_start(&l->thread, name, loop_thread, l);
}

void loop_stop_thread(struct loop *l)
{
	if (!l->thread.running)
		return;
	loop_stop(l);
	thread_join(&l->thread);
}

/* ---- the pool ---- */

static void work_finished(struct loop_post *p)
{
	struct loop_work *w = container_of(p, struct loop_work, post);

	w->done(w);
}

static void pool_main(void *arg)
{
	struct loop *l = arg;

	pthread_mutex_lock(&l->pool_lock);
	for (;;) {
		struct loop_work *w;

		while (!l->pool_head && !l->pool_stop) {
			l->pool_idle++;
			pthread_cond_wait(&l->pool_cond, &l->pool_lock);
			l->pool_idle--;
		}
		w = l->pool_head;
		if (!w)
			break; /* stopped, and nothing left to do */
		l->pool_head = w->next;
		if (!l->pool_head)
			l->pool_tail = &l->pool_head;
		l->pool_queued--;
		pthread_mutex_unlock(&l->pool_lock);
		w->work(w);
		loop_post(l, &w->post);
		pthread_mutex_lock(&l->pool_lock);
	}
	pthread_mutex_unlock(&l->pool_lock);
}

int loop_work(struct loop *l, struct loop_work *w)
{
	int rc = 0;

	w->post = (struct loop_post){ .fn = work_finished };
	w->loop = l;
	w->next = NULL;
	pthread_mutex_lock(&l->pool_lock);
	if (l->pool_queued >= l->pool_idle && l->pool_threads < LOOP_POOL_MAX) {
		rc = thread_start(&l->pool[l->pool_threads], "arcvmm-work",
				  pool_main, l);
		if (!rc)
			l->pool_threads++;
		else if (l->pool_threads)
			rc = 0; /* the ones there will get to it */
	}
	if (!rc) {
		*l->pool_tail = w;
		l->pool_tail = &w->next;
		l->pool_queued++;
		pthread_cond_signal(&l->pool_cond);
	}
	pthread_mutex_unlock(&l->pool_lock);
	return rc;
}

void loop_destroy(struct loop *l)
{
	if (!l)
		return;
	loop_stop_thread(l);
	pthread_mutex_lock(&l->pool_lock);
	l->pool_stop = true;
	pthread_cond_broadcast(&l->pool_cond);
	pthread_mutex_unlock(&l->pool_lock);
	for (unsigned i = 0; i < l->pool_threads; i++)
		thread_join(&l->pool[i]);
	dispatch_begin(l);
	while (run_posts(l))
		;
	dispatch_end(l);
	bug_on(l->open_watches || l->ntimers || l->deferred);
	close(l->evfd);
	close(l->epfd);
	pthread_mutex_destroy(&l->lock);
	pthread_cond_destroy(&l->turn);
	pthread_mutex_destroy(&l->pool_lock);
	pthread_cond_destroy(&l->pool_cond);
	free(l->slots);
	free(l->heap);
	free(l);
}
