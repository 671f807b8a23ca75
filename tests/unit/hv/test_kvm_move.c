/*
 * A stock kernel that changes engines while it runs.
 *
 * Two VMs, one under KVM and one under the software CPU, share guest memory,
 * bus and board. The kernel boots under one; at random moments its CPU is
 * stopped, the whole state moved, and it goes on under the other. Its program
 * (the initramfs) has to print "hello" and then reboot.
 *
 * Needs a KVM fit for kernels, so it runs in the L1 host, and
 * ARCVMM_TEST_KERNEL, ARCVMM_TEST_INITRD; ARCVMM_TEST_SEED changes the moments.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/thread.h"
#include "hv/hvkit.h"
#include "loop/loop.h"
#include "machine/board.h"
#include "machine/kernel.h"
#include "test.h"

struct mover {
	struct gmem *mem;
	struct bus *bus;
	struct loop *loop;
	struct board *board;
	struct hv_vm *vm[2];
	struct hv_vcpu *cpu[2];
	atomic_uint at; /* which of them runs */
	atomic_bool ended;
	char out[65536];
	size_t len;
	/* The kicker. */
	struct thread thread;
	useconds_t delay;
};

static const struct hv_ops *const engines[2] = { &hv_kvm_ops, &hv_soft_ops };

static void on_event(void *ctx, enum board_event event)
{
	struct mover *m = ctx;

	(void)event;
	atomic_store(&m->ended, true);
	hv_vcpu_kick(m->cpu[atomic_load(&m->at)]);
}

static void on_uart(void *ctx, const uint8_t *buf, size_t len)
{
	struct mover *m = ctx;

	for (size_t i = 0; i < len && m->len < sizeof(m->out) - 1; i++)
		m->out[m->len++] = (char)buf[i];
}

static void load(struct mover *m, const char *kernel, const char *initrd)
{
	struct kernel_config kc = { .path = kernel, .cache_dir = "" };
	struct board_part part = { .fd = open(initrd, O_RDONLY | O_CLOEXEC),
				   .name = initrd };
	struct board_boot boot = { .initrd = &part,
				   .ninitrd = 1,
				   .cmdline = "console=ttyS0" };
	struct err e = { 0 };
	struct stat st;

	assert_true(part.fd >= 0);
	assert_int_equal(fstat(part.fd, &st), 0);
	part.len = (uint64_t)st.st_size;
	if (kernel_open(&boot.kernel, &kc, &e) ||
	    board_load(m->board, &boot, &e))
		fail_msg("%s", e.text);
	kernel_close(boot.kernel);
	close(part.fd);
}

static void create(struct mover *m)
{
	struct board_config bc = {
		.ncpus = 1,
		.mem_size = 256 << 20,
		.event = on_event,
		.uart_tx = on_uart,
		.ctx = m,
	};
	struct hv_config c = { .ncpus = 1 };
	struct err e = { 0 };

	assert_int_equal(gmem_create(&m->mem), 0);
	assert_int_equal(bus_create(&m->bus), 0);
	assert_int_equal(loop_create(&m->loop, NULL), 0);
	bc.mem = c.mem = m->mem;
	bc.bus = c.bus = m->bus;
	bc.loop = m->loop;
	if (board_create(&m->board, &bc, &e))
		fail_msg("%s", e.text);
	for (int i = 0; i < 2; i++)
		if (hv_vm_create(engines[i], &m->vm[i], &c, &e) ||
		    hv_irqchip_create(m->vm[i], &e) ||
		    hv_vcpu_create(m->vm[i], 0, &m->cpu[i], &e))
			fail_msg("%s", e.text);
	assert_int_equal(loop_start_thread(m->loop, "loop"), 0);
}

static void destroy(struct mover *m)
{
	loop_stop_thread(m->loop);
	board_attach(m->board, NULL);
	for (int i = 0; i < 2; i++) {
		hv_vcpu_destroy(m->cpu[i]);
		hv_vm_destroy(m->vm[i]);
	}
	board_destroy(m->board);
	loop_destroy(m->loop);
	bus_destroy(m->bus);
	gmem_destroy(m->mem);
}

static void boot_state(struct mover *m)
{
	struct hv_x86_cpuid leaf[HV_X86_CPUID_MAX];
	struct hv_x86_vcpu_state s;

	for (int i = 0; i < 2; i++) {
		/* The same CPU in both: the one that travels. */
		int n;

		board_attach(m->board, m->vm[i]);
		n = board_cpuid(m->board, engines[i], BOARD_CPU_BASE, 0, leaf,
				HV_X86_CPUID_MAX);
		assert_true(n > 0);
		assert_int_equal(
			hv_vcpu_set_cpuid(m->cpu[i], leaf, (unsigned)n), 0);
	}
	board_attach(m->board, m->vm[0]);
	board_boot_state(m->board, 0, &s);
	assert_int_equal(hv_vcpu_set_state(m->cpu[0], &s), 0);
}

static void kick_later(void *arg)
{
	struct mover *m = arg;

	usleep(m->delay);
	hv_vcpu_kick(m->cpu[atomic_load(&m->at)]);
}

static void move(struct mover *m)
{
	unsigned from = atomic_load(&m->at), to = !from;
	struct hv_x86_vm_state vm;
	struct hv_x86_vcpu_state s;

	assert_int_equal(hv_vcpu_get_state(m->cpu[from], &s), 0);
	assert_int_equal(hv_vm_get_state(m->vm[from], &vm), 0);
	assert_int_equal(hv_vm_set_state(m->vm[to], &vm), 0);
	assert_int_equal(hv_vcpu_set_state(m->cpu[to], &s), 0);
	loop_lock(m->loop);
	board_attach(m->board, m->vm[to]);
	atomic_store(&m->at, to);
	loop_unlock(m->loop);
}

static void stock_kernel(void **state)
{
	const char *kernel = getenv("ARCVMM_TEST_KERNEL");
	const char *initrd = getenv("ARCVMM_TEST_INITRD");
	const char *seed_text = getenv("ARCVMM_TEST_SEED");
	unsigned seed = seed_text ? (unsigned)atoi(seed_text) : 1;
	uint64_t deadline = clock_ns() + 200 * NSEC_PER_SEC;
	struct mover *m = calloc(1, sizeof(*m));
	unsigned moves = 0;

	(void)state;
	assert_non_null(m);
	if (!kernel || !initrd || hv_kvm_fitness(NULL)) {
		free(m);
		skip_because("needs a real KVM, a kernel and an initrd: the "
			     "L1 host has them");
	}
	create(m);
	load(m, kernel, initrd);
	boot_state(m);
	while (!atomic_load(&m->ended)) {
		unsigned at = atomic_load(&m->at);
		struct hv_exit exit;

		/* Up to 0.2 s under KVM, a tenth of that interpreted. */
		m->delay = (useconds_t)rand_r(&seed) % (at ? 20000 : 200000);
		assert_int_equal(
			thread_start(&m->thread, "kick", kick_later, m), 0);
		assert_int_equal(hv_vcpu_run(m->cpu[at], &exit), 0);
		thread_join(&m->thread);
		if (exit.reason != HV_EXIT_KICKED || clock_ns() > deadline) {
			print_message("%s\n", m->out);
			fail_msg("%s after %u moves: exit %d %s",
				 engines[at]->name, moves, exit.reason,
				 exit.text);
		}
		if (!atomic_load(&m->ended)) {
			move(m);
			moves++;
		}
	}
	loop_lock(m->loop);
	m->out[m->len] = '\0';
	loop_unlock(m->loop);
	if (!strstr(m->out, "hello ") || strstr(m->out, "Kernel panic"))
		fail_msg("the guest said: %s", m->out);
	print_message("%u moves between the engines\n%s", moves,
		      strstr(m->out, "hello "));
	assert_true(moves > 4);
	destroy(m);
	free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(stock_kernel) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
