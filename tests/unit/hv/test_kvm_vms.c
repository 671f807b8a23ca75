/* Several VMs in one process; dirty log; debugging; the probe. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/thread.h"
#include "hv/hvkit.h"
#include "test.h"

/* Writes its number a hundred times, then ends. */
GUEST(many_code, "mov $100, %ecx\n"
		 "1: mov 0x100000, %eax\n"
		 "out %eax, %dx\n"
		 "loop 1b\n" GUEST_END);

struct one {
	struct hvkit k;
	struct thread t;
	int result;
	struct hv_exit exit;
};

static void run_one(void *arg)
{
	struct one *o = arg;

	o->result = hv_vcpu_run(o->k.cpu[0], &o->exit);
}

static void several(void **state)
{
	enum { N = 6 };
	struct one *o = calloc(N, sizeof(*o));

	(void)state;
	assert_non_null(o);
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < N; i++) {
			if (!hvkit_open(&o[i].k, 1, NULL)) {
				free(o);
				skip_because("no usable engine");
			}
			hvkit_load(&o[i].k, 0, many_code, many_code_end,
				   HVKIT_USER);
			hvkit_set64(&o[i].k, 0x100000, 1000 + (uint64_t)i);
		}
		for (int i = 0; i < N; i++)
			assert_int_equal(
				thread_start(&o[i].t, "vm", run_one, &o[i]), 0);
		for (int i = 0; i < N; i++) {
			thread_join(&o[i].t);
			assert_int_equal(o[i].result, 0);
			assert_int_equal(o[i].exit.reason, HV_EXIT_KICKED);
			assert_int_equal(o[i].k.outs, 100);
			for (int w = 0; w < 100; w++)
				assert_int_equal(o[i].k.out[w].value, 1000 + i);
			hvkit_close(&o[i].k);
		}
	}
	free(o);
}

GUEST(dirty_code, "mov 0x100000, %rcx\n"
		  "1: mov 0x100010(,%rcx,8), %rbx\n"
		  "movb $1, (%rbx)\n"
		  "dec %rcx\n"
		  "jns 1b\n" GUEST_END);

static bool is_dirty(const unsigned long *map, uint64_t at)
{
	return map[at / 4096 / 64] >> (at / 4096 % 64) & 1;
}

static void dirty(void **state)
{
	const uint64_t pages[] = { 0x200000, 0x23f123, 0x3fffff, 0x280000 };
	unsigned long map[HVKIT_RAM / 4096 / 64];
	struct hvkit k;

	(void)state;
	hvkit_open_or_skip(&k, 1, NULL);
	if (!(k.vm->caps & HV_CAP_DIRTY_LOG)) {
		hvkit_close(&k);
		skip_because("this engine has no dirty log");
	}
	assert_int_not_equal(hv_dirty_fetch(k.vm, 0, map, sizeof(map)), 0);
	assert_int_equal(hv_dirty_log(k.vm, 0, true), 0);
	for (int round = 0; round < 3; round++) {
		hvkit_load(&k, 0, dirty_code, dirty_code_end, HVKIT_USER);
		hvkit_set64(&k, 0x100000, 3);
		for (int i = 0; i < 4; i++)
			hvkit_set64(&k, 0x100010 + 8 * (uint64_t)i, pages[i]);
		hvkit_run(&k, 0);
		memset(map, 0xff, sizeof(map));
		assert_int_equal(hv_dirty_fetch(k.vm, 0, map, sizeof(map)), 0);
		for (int i = 0; i < 4; i++)
			assert_true(is_dirty(map, pages[i]));
		assert_false(is_dirty(map, 0x201000));
		assert_false(is_dirty(map, 0x300000));
		/* Fetched is cleared. */
		assert_int_equal(hv_dirty_fetch(k.vm, 0, map, sizeof(map)), 0);
		for (int i = 0; i < 4; i++)
			assert_false(is_dirty(map, pages[i]));
	}
	assert_int_equal(hv_dirty_log(k.vm, 0, false), 0);
	assert_int_equal(hv_dirty_log(k.vm, 0, false), 0);
	hvkit_close(&k);
}

GUEST(debug_code, "xor %eax, %eax\n" /* 0: two bytes */
		  "inc %eax\n" /* 2 */
		  "inc %eax\n" /* 4 */
		  "int3\n" /* 6 */
		  "inc %eax\n" /* 7 */
		  "mov %rax, 0x100000\n" GUEST_END);

/* What a debugger does at a breakpoint it takes away: go on behind it. */
static void step_over_int3(struct hvkit *k)
{
	const struct hv_debug off = { 0 };
	struct hv_x86_vcpu_state *s = aligned_alloc(64, sizeof(*s));

	assert_true(k->exit[0].debug.software);
	assert_true(k->exit[0].debug.rip == HVKIT_CODE + 6);
	assert_int_equal(hv_vcpu_get_state(k->cpu[0], s), 0);
	assert_true(s->rip == HVKIT_CODE + 6);
	s->rip++;
	assert_int_equal(hv_vcpu_set_state(k->cpu[0], s), 0);
	assert_int_equal(hv_vcpu_set_debug(k->cpu[0], &off), 0);
	hvkit_run(k, 0);
	assert_int_equal(hvkit_get64(k, 0x100000), 3);
	free(s);
}

static void debug(void **state)
{
	struct hv_debug step = { .enabled = true, .single_step = true };
	struct hv_debug soft = { .enabled = true,
				 .software_breakpoints = true };
	struct hv_debug hard = { .enabled = true,
				 .hardware = true,
				 .dr = { HVKIT_CODE + 4 },
				 .dr7 = 0x402 };
	struct hvkit k;

	(void)state;
	hvkit_need_fit();
	hvkit_open_or_skip(&k, 1, NULL);
	if (!(k.vm->caps & HV_CAP_DEBUG)) {
		hvkit_close(&k);
		skip_because("this engine cannot debug");
	}
	hvkit_load(&k, 0, debug_code, debug_code_end, 0);
	assert_int_equal(hv_vcpu_set_debug(k.cpu[0], &step), 0);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(hvkit_run_any(&k, 0), HV_EXIT_DEBUG);
		assert_false(k.exit[0].debug.software);
		assert_true(k.exit[0].debug.rip == HVKIT_CODE + 2 + 2 * i);
		assert_true(k.exit[0].debug.dr6 & 1 << 14); /* BS */
	}
	/* A hardware breakpoint. */
	hvkit_load(&k, 0, debug_code, debug_code_end, 0);
	assert_int_equal(hv_vcpu_set_debug(k.cpu[0], &hard), 0);
	/*
	 * QEMU's emulated SVM neither loads the breakpoints of DR7 on VMRUN nor
	 * intercepts INT3: there the program dies of its INT3. Hardware does.
	 */
	if (hvkit_run_any(&k, 0) == HV_EXIT_SHUTDOWN) {
		hvkit_close(&k);
		print_message("stepping works; breakpoints are not emulated\n");
		return;
	}
	assert_int_equal(k.exit[0].reason, HV_EXIT_DEBUG);
	assert_true(k.exit[0].debug.rip == HVKIT_CODE + 4);
	assert_true(k.exit[0].debug.dr6 & 1);
	assert_int_equal(hv_vcpu_set_debug(k.cpu[0], &soft), 0);
	assert_int_equal(hvkit_run_any(&k, 0), HV_EXIT_DEBUG);
	step_over_int3(&k);
	hvkit_close(&k);
}

/* The probe answers, quickly, and the choice agrees with it. */
static void choice(void **state)
{
	char why[512] = "";
	struct err e = { 0 };
	uint64_t begun = clock_ns();
	int r = hv_kvm_fitness(&e);
	const struct hv_ops *ops;

	(void)state;
	begun = clock_ns() - begun;
	print_message("%s, probed in %llu us\n", r ? e.text : "KVM is fit",
		      (unsigned long long)(begun / NSEC_PER_USEC));
	assert_true(begun < 3 * NSEC_PER_SEC);
	assert_int_equal(!r, !e.text[0]);
	assert_int_equal(r, e.code);
	ops = hv_choose(why, sizeof(why));
	assert_true(ops == (r ? &hv_soft_ops : &hv_kvm_ops));
	assert_string_not_equal(why, "");
	hv_choose(why, 10); /* a short buffer is enough */
	assert_true(strlen(why) < 10);
	assert_int_equal(hv_kvm_fitness(NULL), r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(several),
		cmocka_unit_test(dirty),
		cmocka_unit_test(debug),
		cmocka_unit_test(choice),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
