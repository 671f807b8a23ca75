/*
 * The guest's wall clock after a pause.
 *
 * The guest's own clock may have stood still meanwhile, or this host's was set
 * (it slept, the guest was moved): so after a resume the agent is told what
 * time it is. That is a conversation with a guest, which may take its time or
 * never answer, so it is work for the loop's pool, and resuming does not wait
 * for it. There is one at a time: of two that overlap, the guest might heed the
 * older one last. A resume during one makes another follow.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/proto.h"
#include "agent/request.h"
#include "base/clock.h"
#include "virtio/vsock/vsock.h"
#include "vm/internal.h"

/* A guest that does not answer by then is left alone until the next resume. */
#define PATIENCE_MS 2000
/*
 * Less than this is as likely to be the message's way as the clock: setting it
 * would do harm.
 */
#define TOLERANCE_NS (50 * NSEC_PER_MSEC)

/* The connection, unless the run is over: then -ENODEV. */
static int begin(struct vm *vm, struct err *e)
{
	int fd = vsock_connect(vm_vsock(vm), AGENT_PORT, VSOCK_STREAM,
			       PATIENCE_MS, e);

	if (fd < 0)
		return fd;
	pthread_mutex_lock(&vm->lock);
	if (vm->ending) {
		close(fd);
		fd = err_set(e, -ENODEV, "the run has ended");
	} else {
		vm->guest_clock.fd = fd; /* for guest_clock_stop() */
	}
	pthread_mutex_unlock(&vm->lock);
	return fd;
}

static void end(struct vm *vm, int fd)
{
	pthread_mutex_lock(&vm->lock);
	vm->guest_clock.fd = -1;
	pthread_mutex_unlock(&vm->lock);
	close(fd);
}

static void sync_clock(struct vm *vm)
{
	struct err e = { 0 };
	int64_t behind_ns;
	bool set;
	int fd = begin(vm, &e), rc = fd;

	if (fd >= 0) {
		rc = agent_time_sync(fd, PATIENCE_MS, TOLERANCE_NS, &behind_ns,
				     &set, &e);
		end(vm, fd);
	}
	if (rc < 0)
		log_debug(&vm->log, "guest's clock not compared: %s", e.text);
	else if (set)
		log_info(&vm->log, "guest's clock was %.3f s behind: set",
			 (double)behind_ns / 1e9);
}

/* On a thread of the pool. */
static void work(struct loop_work *w)
{
	struct vm *vm = container_of(w, struct vm, guest_clock.work);

	sync_clock(vm);
	pthread_mutex_lock(&vm->lock);
	vm->guest_clock.working = false;
	pthread_cond_broadcast(&vm->changed);
	pthread_mutex_unlock(&vm->lock);
}

static void start(struct vm *vm);

/* On the loop: the work may be given again. */
static void done(struct loop_work *w)
{
	struct vm *vm = container_of(w, struct vm, guest_clock.work);

	pthread_mutex_lock(&vm->lock);
	vm->guest_clock.queued = false;
	if (vm->guest_clock.again && !vm->ending)
		start(vm);
	pthread_mutex_unlock(&vm->lock);
}

/* vm->lock held. */
static void start(struct vm *vm)
{
	struct vm_guest_clock *c = &vm->guest_clock;

	c->again = false;
	c->work = (struct loop_work){ .work = work, .done = done };
	c->queued = c->working = !loop_work(vm->loop, &c->work);
}

void guest_clock_sync(struct vm *vm)
{
	if (!vm->agent_up || !vm->vsock)
		return;
	if (vm->guest_clock.queued)
		vm->guest_clock.again = true;
	else
		start(vm);
}

void guest_clock_stop(struct vm *vm)
{
	pthread_mutex_lock(&vm->lock);
	if (vm->guest_clock.fd >= 0)
		shutdown(vm->guest_clock.fd, SHUT_RDWR);
	while (vm->guest_clock.working)
		pthread_cond_wait(&vm->changed, &vm->lock);
	pthread_mutex_unlock(&vm->lock);
}
