/* Ends that are nobody's wish: triple faults, what KVM cannot do; reports. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "hv/hvkit.h"
#include "test.h"

static char said[8192];

static void sink(void *ctx, enum log_level level, const char *text)
{
	(void)ctx;
	assert_int_equal(level, LOG_ERROR);
	assert_null(strchr(text, '\n'));
	if (strlen(said) + strlen(text) + 2 < sizeof(said)) {
		strcat(said, text);
		strcat(said, "\n");
	}
}

static const struct log test_log = { .sink = sink, .level = LOG_DEBUG };

GUEST(triple_code, "mov $0x1234567, %ebx\n"
		   "ud2\n");

static void triple(void **state)
{
	struct hv_x86_vcpu_state *s;
	struct hvkit k;

	(void)state;
	hvkit_open_or_skip(&k, 1, NULL);
	hvkit_load(&k, 0, triple_code, triple_code_end, 0);
	s = aligned_alloc(64, sizeof(*s));
	assert_int_equal(hv_vcpu_get_state(k.cpu[0], s), 0);
	s->idt.limit = 0;
	assert_int_equal(hv_vcpu_set_state(k.cpu[0], s), 0);
	assert_int_equal(hvkit_run_any(&k, 0), HV_EXIT_SHUTDOWN);
	said[0] = '\0';
	hv_vcpu_report(k.cpu[0], &k.exit[0], &test_log);
	assert_non_null(strstr(said, "triple fault"));
	/* Intel and the software CPU keep the registers, AMD does not. */
	if (!strstr(said, "keeps no registers")) {
		assert_non_null(strstr(said, "1234567"));
		assert_non_null(strstr(said, "code at rip: 0f 0b"));
	}
	free(s);
	hvkit_close(&k);
}

/* A jump to where there is no memory: KVM has nothing to execute. */
GUEST(nowhere_code, "mov $0xd0000000, %eax\n"
		    "jmp *%rax\n");

static void nowhere(void **state)
{
	struct hvkit k;
	enum hv_exit_reason r;

	(void)state;
	hvkit_open_or_skip(&k, 1, NULL);
	hvkit_load(&k, 0, nowhere_code, nowhere_code_end, 0);
	r = hvkit_run_any(&k, 0);
	if (r == HV_EXIT_SHUTDOWN) { /* the open bus reads as a bad opcode */
		hvkit_close(&k);
		skip_because("this engine executes the open bus");
	}
	assert_int_equal(r, HV_EXIT_ERROR);
	assert_non_null(strstr(k.exit[0].text, "CPU 0"));
	assert_non_null(strstr(k.exit[0].text, "0xd0000000"));
	said[0] = '\0';
	hv_vcpu_report(k.cpu[0], &k.exit[0], &test_log);
	assert_non_null(strstr(said, k.exit[0].text));
	assert_non_null(strstr(said, "64-bit mode"));
	assert_non_null(strstr(said, "0xd0000000 is not mapped"));
	hvkit_close(&k);
}

GUEST(report_code, "mov $0x7777, %r15d\n" GUEST_END);

static void report(void **state)
{
	struct hv_exit exit = { .reason = HV_EXIT_ERROR,
				.text = "something happened" };
	struct hvkit k;
	gpa_t pa;

	(void)state;
	hvkit_open_or_skip(&k, 1, NULL);
	hvkit_load(&k, 0, report_code, report_code_end, 0);
	hvkit_run(&k, 0);
	said[0] = '\0';
	hv_vcpu_report(k.cpu[0], &exit, &test_log);
	assert_non_null(strstr(said, "something happened"));
	assert_non_null(strstr(said, "r15 0000000000007777"));
	assert_non_null(strstr(said, "code at rip:"));
	hv_vcpu_report(k.cpu[0], &exit, NULL); /* silent, no crash */
	assert_int_equal(hv_vcpu_translate(k.cpu[0], HVKIT_CODE, &pa), 0);
	assert_true(pa.v == HVKIT_CODE);
	assert_int_equal(hv_vcpu_translate(k.cpu[0], 0x7fff00000000, &pa),
			 -EFAULT);
	hvkit_close(&k);
}

/* Requests that make no sense are refused and break nothing. */
static void refused(void **state)
{
	struct hv_vcpu *cpu;
	struct err e = { 0 };
	struct hvkit k;

	(void)state;
	hvkit_open_or_skip(&k, 2, NULL);
	assert_int_equal(hv_vcpu_create(k.vm, 2, &cpu, &e), -EINVAL);
	assert_null(cpu);
	assert_string_not_equal(e.text, "");
	assert_int_not_equal(hv_vcpu_create(k.vm, 0, &cpu, &e), 0);
	assert_int_equal(hv_irq_line(k.vm, 24, true), -EINVAL);
	assert_int_equal(hv_irqfd(k.vm, 99, 0, true), -EINVAL);
	assert_int_equal(hv_dirty_log(k.vm, 7, true), -EINVAL);
	assert_int_equal(hv_dirty_fetch(k.vm, 0, NULL, 0), -EINVAL);
	hv_vm_destroy(NULL);
	hv_vcpu_destroy(NULL);
	assert_null(hv_by_name("kmv"));
	assert_null(hv_by_name(NULL));
	assert_true(hv_by_name("kvm") == &hv_kvm_ops);
	assert_true(hv_by_name("soft") == &hv_soft_ops);
	hvkit_close(&k);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(triple),
		cmocka_unit_test(nowhere),
		cmocka_unit_test(report),
		cmocka_unit_test(refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
