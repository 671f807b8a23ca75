/*
 * The KVM engine: running a vCPU, and kicking it.
 *
 * Theory of operation
 *
 * run() enters KVM_RUN again and again, answers MMIO and port accesses from the
 * bus, and returns for what hv.h names. KVM completes an access (writes a
 * loaded value to its register, moves RIP on) at the *next* KVM_RUN; so a kick
 * is looked at only after a KVM_RUN that returned EINTR, which has completed
 * whatever was open. State read after run() is therefore always between two
 * instructions.
 *
 * A kick must get a vCPU out wherever it is: in guest mode, asleep in HLT,
 * about to enter KVM_RUN, or in a device handler. Two means together do it:
 *
 *   immediate_exit, a byte of the shared page that KVM_RUN looks at on entry,
 *   ends a run that has not begun; a signal ends one that has.
 *
 *   kick                                 run
 *   kicked = true                        KVM_RUN:
 *   immediate_exit = 1                     unblocks the signal
 *   signal (only while running)            immediate_exit? -> EINTR
 *                                          ... guest ... signal? -> EINTR
 *                                        EINTR and kicked: return KICKED
 *
 * The signal is sent after immediate_exit is set. If KVM_RUN read it as 0, the
 * signal arrives later than that read, and KVM looks for signals once more
 * with interrupts off before it enters the guest. If the thread is not inside
 * KVM_RUN, the signal stays pending (it is blocked there) and immediate_exit
 * is what counts. No order loses a kick.
 *
 * The library must not take a signal handler from the program it lives in, so
 * it installs none. The thread blocks the signal; KVM_SET_SIGNAL_MASK makes
 * KVM_RUN, and nothing else, unblock it. A signal that ends KVM_RUN is blocked
 * again before the system call returns, so it is never delivered: no handler
 * runs, no default action is taken, and run() removes it with sigtimedwait()
 * on its way out. The signal is SIGURG, which by default does nothing, should
 * another program send one; being a classic signal it cannot fail to queue, as
 * a realtime signal can. Other signals stay as the calling thread has them:
 * one it does not block runs the program's handler and KVM_RUN is resumed.
 *
 * The lock is taken when run() begins and ends, not at each exit. It makes sure
 * that a kicker signals a thread that is still there, and that `kicked` is
 * cleared exactly when KICKED is reported.
 */
#include "hv/kvm/kvm.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

#include "base/bug.h"
#include "base/bytes.h"

#define KVM_KICK_SIGNAL SIGURG

static void kick_set(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, KVM_KICK_SIGNAL);
}

/* Take the kick signal off the calling thread, if it is pending. */
static void drain_signal(void)
{
	const struct timespec zero = { 0 };
	sigset_t set;

	kick_set(&set);
	while (sigtimedwait(&set, NULL, &zero) > 0)
		;
}

void kvm_vcpu_kick(struct hv_vcpu *cpu)
{
	struct kvm_vcpu *c = kvm_vcpu_of(cpu);

	pthread_mutex_lock(&c->lock);
	if (!atomic_load_explicit(&c->kicked, memory_order_relaxed)) {
		/* Pairs with the load in kvm_vcpu_run() after EINTR. */
		atomic_store_explicit(&c->kicked, true, memory_order_release);
		/* Read by KVM; the signal below orders it for a vCPU inside. */
		__atomic_store_n(&c->run->immediate_exit, 1, __ATOMIC_RELEASE);
		if (c->running) {
			c->signalled = true;
			pthread_kill(c->thread, KVM_KICK_SIGNAL);
		}
	}
	pthread_mutex_unlock(&c->lock);
}

/*
 * KVM_RUN shall block what the thread blocks, without our signal. The struct
 * is the kernel's: a length of 8 for its 64 signals, then the set.
 */
static int set_mask(struct kvm_vcpu *c, const sigset_t *thread)
{
	struct {
		uint32_t len;
		uint8_t sigset[8];
	} __attribute__((packed)) m = { .len = 8 };
	sigset_t want = *thread;
	int r;

	sigdelset(&want, KVM_KICK_SIGNAL);
	if (c->mask_set && !memcmp(&want, &c->mask, sizeof(want)))
		return 0;
	memcpy(m.sigset, &want, sizeof(m.sigset));
	r = kvm_ioctl(c->fd, KVM_SET_SIGNAL_MASK, &m);
	if (!r) {
		c->mask = want;
		c->mask_set = true;
	}
	return r;
}

static int run_begin(struct kvm_vcpu *c, sigset_t *saved)
{
	sigset_t block;
	int r;

	kick_set(&block);
	pthread_sigmask(SIG_BLOCK, &block, saved);
	r = set_mask(c, saved);
	if (r) {
		pthread_sigmask(SIG_SETMASK, saved, NULL);
		return r;
	}
	pthread_mutex_lock(&c->lock);
	bug_on(c->running); /* two threads run one vCPU */
	c->running = true;
	c->thread = pthread_self();
	pthread_mutex_unlock(&c->lock);
	return 0;
}

static void run_end(struct kvm_vcpu *c, const sigset_t *saved, bool was_kicked)
{
	bool drain;

	pthread_mutex_lock(&c->lock);
	c->running = false;
	drain = c->signalled;
	c->signalled = false;
	if (was_kicked) {
		atomic_store_explicit(&c->kicked, false, memory_order_relaxed);
		c->run->immediate_exit = 0;
	}
	pthread_mutex_unlock(&c->lock);
	if (drain)
		drain_signal();
	pthread_sigmask(SIG_SETMASK, saved, NULL);
}

/* One item of a port access, string instructions included. */
static void do_pio(struct kvm_vcpu *c)
{
	struct bus *bus = c->cpu.vm->config.bus;
	struct kvm_run *run = c->run;
	size_t room = kvm_vcpu_vm(c)->run_size;
	unsigned size = run->io.size;
	uint8_t *data = (uint8_t *)run + run->io.data_offset;

	bug_on(run->io.data_offset > room ||
	       (uint64_t)size * run->io.count > room - run->io.data_offset);
	for (uint32_t i = 0; i < run->io.count; i++, data += size) {
		uint64_t v = 0;

		kvm_count(&c->pio);
		if (run->io.direction == KVM_EXIT_IO_OUT) {
			memcpy(&v, data, size);
			bus_write(bus, BUS_PIO, run->io.port, size, v);
		} else {
			bus_read(bus, BUS_PIO, run->io.port, size, &v);
			memcpy(data, &v, size);
		}
	}
}

/*
 * An access that crosses a page comes in two parts of any length: hand them
 * on in pieces a bus has.
 */
static void do_mmio(struct kvm_vcpu *c)
{
	struct bus *bus = c->cpu.vm->config.bus;
	struct kvm_run *run = c->run;
	uint64_t at = run->mmio.phys_addr;
	unsigned left = run->mmio.len;
	uint8_t *data = run->mmio.data;

	bug_on(left > sizeof(run->mmio.data));
	kvm_count(&c->mmio);
	while (left) {
		unsigned n = left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
		uint64_t v = 0;

		if (run->mmio.is_write) {
			memcpy(&v, data, n);
			bus_write(bus, BUS_MMIO, at, n, v);
		} else {
			bus_read(bus, BUS_MMIO, at, n, &v);
			memcpy(data, &v, n);
		}
		at += n;
		data += n;
		left -= n;
	}
}

static void do_debug(struct kvm_vcpu *c, struct hv_exit *exit)
{
	exit->reason = HV_EXIT_DEBUG;
	exit->debug.rip = c->run->debug.arch.pc;
	exit->debug.dr6 = c->run->debug.arch.dr6;
	exit->debug.dr7 = c->run->debug.arch.dr7;
	exit->debug.software = c->run->debug.arch.exception == 3; /* #BP */
}

int kvm_vcpu_run(struct hv_vcpu *cpu, struct hv_exit *exit)
{
	struct kvm_vcpu *c = kvm_vcpu_of(cpu);
	bool kicked = false;
	sigset_t saved;
	int r = run_begin(c, &saved);

	if (r)
		return r;
	for (;;) {
		r = ioctl(c->fd, KVM_RUN, 0);
		kvm_count(&c->exits);
		if (r < 0 && (errno == EINTR || errno == EAGAIN)) {
			/* EAGAIN: an AP that waits for SIPI was woken. Pairs
			 * with the store in kvm_vcpu_kick(). */
			if (atomic_load_explicit(&c->kicked,
						 memory_order_acquire)) {
				kvm_count(&c->kicks);
				exit->reason = HV_EXIT_KICKED;
				kicked = true;
				break;
			}
			/* A stranger's signal must not keep us out of guest
			 * mode for ever. */
			drain_signal();
			continue;
		}
		if (r < 0) {
			kvm_describe_exit(c, errno, exit);
			break;
		}
		switch (c->run->exit_reason) {
		case KVM_EXIT_IO:
			do_pio(c);
			continue;
		case KVM_EXIT_MMIO:
			do_mmio(c);
			continue;
		case KVM_EXIT_INTR:
		case KVM_EXIT_IRQ_WINDOW_OPEN:
			continue;
		case KVM_EXIT_DEBUG:
			do_debug(c, exit);
			break;
		case KVM_EXIT_SHUTDOWN:
			exit->reason = HV_EXIT_SHUTDOWN;
			break;
		case KVM_EXIT_SYSTEM_EVENT:
			if (c->run->system_event.type ==
			    KVM_SYSTEM_EVENT_RESET) {
				exit->reason = HV_EXIT_RESET;
				break;
			}
			/* fall through */
		default:
			kvm_describe_exit(c, 0, exit);
			break;
		}
		break;
	}
	run_end(c, &saved, kicked);
	return 0;
}
