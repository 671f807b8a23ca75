/*
 * One thread per VM that fires the APIC timers of running vCPUs.
 *
 * Theory of operation: each LAPIC has a timerfd, armed by whoever moves its
 * deadline with one system call and no wake-up of the thread; the thread sleeps
 * in epoll_wait() on all of them until one expires. A halted vCPU disarms its
 * own and sleeps to the deadline itself, so an idle guest never runs this
 * thread.
 */
#include "irq/x86/chip.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/bug.h"
#include "base/clock.h"
#include "base/thread.h"

struct host_timer {
	struct irqchip *chip;
	struct thread thread;
	int epfd, stopfd;
	int fd[];
};

#define STOP UINT64_MAX

static void expired(struct host_timer *t, unsigned i)
{
	uint64_t n;

	/* EAGAIN: it was moved since; the arm that moved it stands. */
	if (read(t->fd[i], &n, sizeof(n)) < 0)
		return;
	lapic_timer_poll(&t->chip->lapic[i]);
}

static void host_timer_main(void *arg)
{
	struct host_timer *t = arg;
	struct epoll_event ev[16];

	for (;;) {
		int n = epoll_wait(t->epfd, ev, 16, -1);

		for (int i = 0; i < n; i++) {
			if (ev[i].data.u64 == STOP)
				return;
			expired(t, (unsigned)ev[i].data.u64);
		}
	}
}

void host_timer_arm(struct host_timer *t, unsigned index, uint64_t at)
{
	struct itimerspec its = { 0 };

	if (at != UINT64_MAX) {
		/* All zero would disarm. */
		at = at ? at : 1;
		its.it_value.tv_sec = (time_t)(at / NSEC_PER_SEC);
		its.it_value.tv_nsec = (long)(at % NSEC_PER_SEC);
	}
	bug_on(timerfd_settime(t->fd[index], TFD_TIMER_ABSTIME, &its, NULL));
}

static int watch(struct host_timer *t, int fd, uint64_t tag)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.u64 = tag };

	if (fd < 0)
		return -errno;
	return epoll_ctl(t->epfd, EPOLL_CTL_ADD, fd, &ev) ? -errno : 0;
}

int host_timer_create(struct host_timer **out, struct irqchip *c)
{
	unsigned n = c->cfg.ncpus;
	struct host_timer *t = calloc(1, sizeof(*t) + n * sizeof(t->fd[0]));
	int rc;

	if (!t)
		return -ENOMEM;
	t->chip = c;
	t->stopfd = -1;
	for (unsigned i = 0; i < n; i++)
		t->fd[i] = -1;
	t->epfd = epoll_create1(EPOLL_CLOEXEC);
	rc = t->epfd < 0 ? -errno : 0;
	if (!rc) {
		t->stopfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		rc = watch(t, t->stopfd, STOP);
	}
	for (unsigned i = 0; !rc && i < n; i++) {
		t->fd[i] = timerfd_create(CLOCK_MONOTONIC,
					  TFD_CLOEXEC | TFD_NONBLOCK);
		rc = watch(t, t->fd[i], i);
	}
	if (!rc)
		rc = thread_start(&t->thread, "apic-timer", host_timer_main, t);
	if (rc) {
		host_timer_destroy(t);
		return rc;
	}
	*out = t;
	return 0;
}

void host_timer_destroy(struct host_timer *t)
{
	uint64_t one = 1;

	if (!t)
		return;
	if (t->thread.running)
		bug_on(write(t->stopfd, &one, sizeof(one)) != sizeof(one));
	thread_join(&t->thread);
	for (unsigned i = 0; i < t->chip->cfg.ncpus; i++)
		if (t->fd[i] >= 0)
			close(t->fd[i]);
	if (t->stopfd >= 0)
		close(t->stopfd);
	if (t->epfd >= 0)
		close(t->epfd);
	free(t);
}
