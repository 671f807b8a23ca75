/*
 * A named thread that blocks all signals, ends by returning, and is joined.
 * No thread is ever cancelled.
 */
#ifndef ARC_BASE_THREAD_H
#define ARC_BASE_THREAD_H

#include <pthread.h>
#include <stdbool.h>

struct thread {
	pthread_t id;
	bool running; /* between a successful start and the join */
	void (*fn)(void *arg);
	void *arg;
	char name[16];
};

/* 0 or -errno. @name is cut to 15 characters (what the kernel keeps). */
int thread_start(struct thread *t, const char *name, void (*fn)(void *arg),
		 void *arg);

/* Waits for the thread to return. Harmless when it was never started. */
void thread_join(struct thread *t);

#endif
