#include "base/thread.h"

#include <signal.h>
#include <stdio.h>

#include "base/bug.h"

static void *thread_main(void *arg)
{
	struct thread *t = arg;

	pthread_setname_np(pthread_self(), t->name);
	t->fn(t->arg);
	return NULL;
}

int thread_start(struct thread *t, const char *name, void (*fn)(void *arg),
		 void *arg)
{
	sigset_t all, old;
	int rc;

	bug_on(t->running);
	t->fn = fn;
	t->arg = arg;
	snprintf(t->name, sizeof(t->name), "%s", name);
	/* The child inherits the mask, so no signal can slip in at its start. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	rc = pthread_create(&t->id, NULL, thread_main, t);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	t->running = rc == 0;
	return -rc;
}

void thread_join(struct thread *t)
{
	if (!t->running)
		return;
	pthread_join(t->id, NULL);
	t->running = false;
}
