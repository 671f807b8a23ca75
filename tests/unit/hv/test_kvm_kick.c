/*
 * A kick is never lost.
 *
 * One thread runs a vCPU, another kicks it at random moments: in guest mode,
 * asleep in HLT, in a device handler, on the way in and out of KVM_RUN, and
 * between runs. After each burst of kicks the kicker waits until a run() that
 * returned later than its last kick has been seen; if one is lost, that wait
 * never ends, and the watchdog says so. ARCVMM_KICKS sets the number.
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/thread.h"
#include "hv/hvkit.h"
#include "test.h"

GUEST(spin_code, "1: incl 0x100000\n"
		 "jmp 1b\n" GUEST_END);
/* Ends up in a device handler all the time. */
GUEST(busy_code, "1: out %al, %dx\n"
		 "incl 0x100000\n"
		 "jmp 1b\n" GUEST_END);
GUEST(halt_code, "1: incl 0x100000\n"
		 "cli\n"
		 "hlt\n"
		 "jmp 1b\n" GUEST_END);

GUEST(end_code, GUEST_END);

struct race {
	struct hvkit k;
	struct thread runner;
	atomic_uint asked, seen;
	atomic_bool stop, failed;
};

static void run_and_tell(void *arg)
{
	struct race *r = arg;

	while (!atomic_load(&r->stop)) {
		struct hv_exit exit;

		if (hv_vcpu_run(r->k.cpu[0], &exit) ||
		    exit.reason != HV_EXIT_KICKED) {
			atomic_store(&r->failed, true);
			return;
		}
		/* `asked` is written before the kick that led here. */
		atomic_store(&r->seen, atomic_load(&r->asked));
	}
}

static void wait_seen(struct race *r, unsigned want)
{
	uint64_t deadline = clock_ns() + 20 * NSEC_PER_SEC;

	while (atomic_load(&r->seen) != want) {
		if (atomic_load(&r->failed))
			fail_msg("run() returned something else");
		if (clock_ns() > deadline)
			fail_msg("kick %u was lost", want);
		sched_yield();
	}
}

static unsigned kicks_wanted(void)
{
	const char *s = getenv("ARCVMM_KICKS");

	return s ? (unsigned)strtoul(s, NULL, 0) : 50000;
}

static void race(const uint8_t *code, const uint8_t *end, unsigned flags)
{
	unsigned total = kicks_wanted(), n = 0;
	uint64_t seed = 88172645463325252ull, begun;
	struct race r = { 0 };
	struct hv_counters count;

	if (!hvkit_open(&r.k, 1, NULL))
		skip_because("no usable engine");
	hvkit_load(&r.k, 0, code, end, flags);
	assert_int_equal(thread_start(&r.runner, "runner", run_and_tell, &r),
			 0);
	begun = clock_ns();
	while (n < total) {
		unsigned burst;

		seed ^= seed << 13;
		seed ^= seed >> 7;
		seed ^= seed << 17;
		burst = 1 + (seed & 15);
		for (unsigned i = 0; i < burst; i++, n++) {
			/* Nanoseconds to 0.1 ms, to hit every stage. */
			unsigned d = (seed >> 16 & 0xffff) >>
				     ((seed >> (i + 32)) & 15);

			for (volatile unsigned w = d; w; w--)
				;
			atomic_fetch_add(&r.asked, 1);
			hv_vcpu_kick(r.k.cpu[0]);
		}
		wait_seen(&r, n);
	}
	begun = clock_ns() - begun;
	atomic_store(&r.stop, true);
	hv_vcpu_kick(r.k.cpu[0]);
	thread_join(&r.runner);
	assert_false(atomic_load(&r.failed));
	hv_vcpu_counters(r.k.cpu[0], &count);
	print_message("%u kicks in %llu ms, %llu runs ended by them\n", n,
		      (unsigned long long)(begun / NSEC_PER_MSEC),
		      (unsigned long long)count.kicks);
	assert_int_not_equal(hvkit_get64(&r.k, 0x100000), 0);
	hvkit_close(&r.k);
}

static void race_guest(void **state)
{
	(void)state;
	race(spin_code, spin_code_end, HVKIT_USER);
}

static void race_exits(void **state)
{
	(void)state;
	race(busy_code, busy_code_end, HVKIT_USER);
}

static void race_halt(void **state)
{
	(void)state;
	race(halt_code, halt_code_end, 0);
}

/* Kicks before a run end that run, once. */
static void before(void **state)
{
	struct hvkit k;

	(void)state;
	hvkit_open_or_skip(&k, 1, NULL);
	hvkit_load(&k, 0, spin_code, spin_code_end, HVKIT_USER);
	hv_vcpu_kick(k.cpu[0]);
	hv_vcpu_kick(k.cpu[0]);
	assert_int_equal(hvkit_run_any(&k, 0), HV_EXIT_KICKED);
	/* The two were one: the program now runs to its end. */
	hvkit_load(&k, 0, end_code, end_code_end, HVKIT_USER);
	hvkit_run(&k, 0);
	hvkit_close(&k);
}

/*
 * The library installs no handler and leaves the mask and the pending signals
 * of its caller alone; a signal the caller takes does not end the run.
 */
static volatile sig_atomic_t usr1;

static void on_usr1(int sig)
{
	(void)sig;
	usr1++;
}

struct nudge {
	struct hvkit *k;
	pthread_t target;
	struct thread t;
};

static void nudge(void *arg)
{
	struct nudge *n = arg;

	for (int i = 0; i < 50; i++) {
		usleep(1000);
		pthread_kill(n->target, SIGUSR1);
	}
	usleep(1000);
	hv_vcpu_kick(n->k->cpu[0]);
}

static void signals(void **state)
{
	struct sigaction act = { .sa_handler = on_usr1 }, old, urg;
	sigset_t mask_before, mask_after, pending;
	struct nudge n = { 0 };
	struct hvkit k;

	(void)state;
	hvkit_open_or_skip(&k, 1, NULL);
	hvkit_load(&k, 0, spin_code, spin_code_end, HVKIT_USER);
	sigaction(SIGUSR1, &act, &old);
	pthread_sigmask(SIG_SETMASK, NULL, &mask_before);
	n.k = &k;
	n.target = pthread_self();
	usr1 = 0;
	assert_int_equal(thread_start(&n.t, "nudge", nudge, &n), 0);
	assert_int_equal(hvkit_run_any(&k, 0), HV_EXIT_KICKED);
	thread_join(&n.t);
	assert_true(usr1 > 0);
	pthread_sigmask(SIG_SETMASK, NULL, &mask_after);
	for (int s = 1; s < 32; s++)
		assert_int_equal(sigismember(&mask_before, s),
				 sigismember(&mask_after, s));
	sigpending(&pending);
	assert_false(sigismember(&pending, SIGURG));
	sigaction(SIGURG, NULL, &urg);
	assert_true(urg.sa_handler == SIG_DFL);
	sigaction(SIGUSR1, &old, NULL);
	hvkit_close(&k);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(before),     cmocka_unit_test(signals),
		cmocka_unit_test(race_guest), cmocka_unit_test(race_exits),
		cmocka_unit_test(race_halt),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
