/* Whole VMs with tiny guests, through the public interface. */
#include "test.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "arcvmm/arcvmm.h"
#include "hv/hv.h"
#include "vm/tiny.h"

/* The engine to test with: these guests run on any KVM, and on soft. */
static const char *engine;

struct guest {
	char *kernel;
	struct arcvmm_config *cfg;
	struct arcvmm_vm *vm;
	char out[64];
	int pipe[2];
};

static void set(struct guest *g, const char *key, const char *value)
{
	struct arcvmm_error e;

	if (arcvmm_config_set(g->cfg, key, value, &e))
		fail_msg("%s=%s: %s", key, value, e.text);
}

static void guest_create(struct guest *g, const uint8_t *code, size_t len,
			 const char *cpus)
{
	struct arcvmm_error e;

	memset(g, 0, sizeof(*g));
	g->kernel = tiny_kernel(code, len);
	g->cfg = arcvmm_config_new();
	assert_non_null(g->cfg);
	assert_int_equal(pipe(g->pipe), 0);
	set(g, "engine", engine);
	set(g, "kernel", g->kernel);
	set(g, "kernel-cache", "");
	set(g, "init", "off");
	set(g, "uart", "on");
	set(g, "mem", "64M");
	set(g, "cpus", cpus);
	arcvmm_config_console_fds(g->cfg, -1, g->pipe[1]);
	if (arcvmm_vm_create(&g->vm, g->cfg, &e))
		fail_msg("%s", e.text);
	arcvmm_config_free(g->cfg);
	g->cfg = NULL;
}

static struct arcvmm_result guest_finish(struct guest *g)
{
	struct arcvmm_result res;
	ssize_t n;

	assert_int_equal(arcvmm_vm_wait(g->vm, &res), 0);
	close(g->pipe[1]);
	arcvmm_vm_destroy(g->vm);
	n = read(g->pipe[0], g->out, sizeof(g->out) - 1);
	assert_true(n >= 0);
	g->out[n] = 0;
	close(g->pipe[0]);
	unlink(g->kernel);
	free(g->kernel);
	return res;
}

static void guest_start(struct guest *g)
{
	struct arcvmm_error e;

	if (arcvmm_vm_start(g->vm, &e))
		fail_msg("%s", e.text);
}

static void needs_engine(const char *name)
{
	if (!engine)
		skip_because("%s: neither /dev/kvm nor the software CPU", name);
}

#define GUEST(name, ...) static const uint8_t name[] = { __VA_ARGS__ }

GUEST(hello, TINY_UART('h'), TINY_UART('i'), TINY_POWER_OFF);
GUEST(panics, TINY_UART('p'), TINY_PANIC);
GUEST(resets, TINY_RESET);
GUEST(triple, TINY_TRIPLE);
GUEST(spins, TINY_UART('s'), TINY_SPIN);

static void ends(const uint8_t *code, size_t len, enum arcvmm_end end,
		 const char *out)
{
	struct arcvmm_result res;
	struct guest g;

	guest_create(&g, code, len, "1");
	guest_start(&g);
	res = guest_finish(&g);
	assert_string_equal(arcvmm_end_name(res.end), arcvmm_end_name(end));
	assert_string_equal(g.out, out);
	assert_int_equal(res.status, -1);
}

static void power_off_reboot_panic_crash(void **state)
{
	(void)state;
	needs_engine(__func__);
	ends(hello, sizeof(hello), ARCVMM_END_POWER_OFF, "hi");
	ends(panics, sizeof(panics), ARCVMM_END_PANIC, "p");
	ends(resets, sizeof(resets), ARCVMM_END_REBOOT, "");
	ends(triple, sizeof(triple), ARCVMM_END_CRASH, "");
}

static void kill_ends_a_spinning_guest(void **state)
{
	struct arcvmm_result res;
	struct guest g;

	(void)state;
	needs_engine(__func__);
	guest_create(&g, spins, sizeof(spins), "1");
	guest_start(&g);
	arcvmm_vm_kill(g.vm);
	arcvmm_vm_kill(g.vm);
	res = guest_finish(&g);
	assert_int_equal(res.end, ARCVMM_END_KILLED);
}

static void pause_and_resume(void **state)
{
	struct guest g;

	(void)state;
	needs_engine(__func__);
	guest_create(&g, spins, sizeof(spins), "2");
	assert_int_equal(arcvmm_vm_pause(g.vm), -ESRCH); /* not started */
	guest_start(&g);
	for (int i = 0; i < 200; i++) {
		assert_int_equal(arcvmm_vm_pause(g.vm), 0);
		assert_int_equal(arcvmm_vm_pause(g.vm), 0);
		assert_int_equal(arcvmm_vm_resume(g.vm), 0);
	}
	assert_int_equal(arcvmm_vm_pause(g.vm), 0);
	arcvmm_vm_kill(g.vm); /* ends a paused guest too */
	assert_int_equal(guest_finish(&g).end, ARCVMM_END_KILLED);
}

static void several_at_once(void **state)
{
	struct guest g[4];

	(void)state;
	needs_engine(__func__);
	for (int i = 0; i < 4; i++)
		guest_create(&g[i], i & 1 ? hello : panics,
			     i & 1 ? sizeof(hello) : sizeof(panics), "2");
	for (int i = 0; i < 4; i++)
		guest_start(&g[i]);
	for (int i = 0; i < 4; i++) {
		struct arcvmm_result res = guest_finish(&g[i]);

		assert_int_equal(res.end, i & 1 ? ARCVMM_END_POWER_OFF
						: ARCVMM_END_PANIC);
		assert_string_equal(g[i].out, i & 1 ? "hi" : "p");
	}
}

static void destroy_without_start(void **state)
{
	struct arcvmm_result res;
	struct guest g;

	(void)state;
	needs_engine(__func__);
	guest_create(&g, hello, sizeof(hello), "1");
	assert_int_equal(arcvmm_vm_wait(g.vm, &res), -ESRCH);
	arcvmm_vm_destroy(g.vm);
	close(g.pipe[0]);
	close(g.pipe[1]);
	unlink(g.kernel);
	free(g.kernel);
	arcvmm_vm_destroy(NULL);
}

static void stats_and_milestones(void **state)
{
	struct arcvmm_milestone m;
	struct guest g;
	bool first = false;
	char *stats;

	(void)state;
	needs_engine(__func__);
	guest_create(&g, hello, sizeof(hello), "1");
	guest_start(&g);
	stats = arcvmm_vm_stats(g.vm);
	assert_non_null(strstr(stats, "\"cpus\""));
	assert_non_null(strstr(stats, "console0"));
	free(stats);
	while (!arcvmm_vm_milestone(g.vm, 0, &m) && !first)
		for (unsigned i = 0; !arcvmm_vm_milestone(g.vm, i, &m); i++)
			first |= !strcmp(m.name, "first-instruction");
	assert_string_equal(arcvmm_vm_engine(g.vm), engine);
	assert_non_null(arcvmm_vm_cmdline(g.vm));
	guest_finish(&g);
}

static void no_init_refuses_commands(void **state)
{
	const char *argv[] = { "true", NULL };
	struct arcvmm_config *c = arcvmm_config_new();
	char *kernel = tiny_kernel(hello, sizeof(hello));
	struct arcvmm_error e;
	struct arcvmm_vm *vm;

	(void)state;
	arcvmm_config_set(c, "kernel", kernel, NULL);
	arcvmm_config_set(c, "kernel-cache", "", NULL);
	arcvmm_config_set(c, "init", "off", NULL);
	arcvmm_config_command(c, argv);
	assert_int_equal(arcvmm_vm_create(&vm, c, &e), -EINVAL);
	assert_non_null(strstr(e.text, "--no-init"));
	arcvmm_config_free(c);
	unlink(kernel);
	free(kernel);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(power_off_reboot_panic_crash),
		cmocka_unit_test(kill_ends_a_spinning_guest),
		cmocka_unit_test(pause_and_resume),
		cmocka_unit_test(several_at_once),
		cmocka_unit_test(destroy_without_start),
		cmocka_unit_test(stats_and_milestones),
		cmocka_unit_test(no_init_refuses_commands),
	};
	struct hv_info info;

	if (getenv("TEST_ENGINE"))
		engine = getenv("TEST_ENGINE");
	else if (!hv_probe(&hv_kvm_ops, &info, NULL))
		engine = "kvm";
	else if (!hv_probe(&hv_soft_ops, &info, NULL))
		engine = "soft";
	return cmocka_run_group_tests(tests, NULL, NULL);
}
