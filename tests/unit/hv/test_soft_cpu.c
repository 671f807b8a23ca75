/*
 * What only an interpreter can get wrong: code that changes under it, faults in
 * the middle of string instructions and of stores that cross pages, stepping,
 * data breakpoints, and the sleep of HLT.
 */
#include <stdlib.h>
#include <string.h>

#include "hv/hvkit.h"
#include "test.h"

#define OUT_AX "mov $0x500, %dx\n out %eax, %dx\n"

static void open_kit(struct hvkit *k, const uint8_t *code, const uint8_t *end)
{
	hvkit_open_or_skip(k, 1, NULL);
	hvkit_load(k, 0, code, end, 0);
}

/* A store into the very next instruction, and through an alias' block. */
GUEST(patch_code, "xor %ecx, %ecx\n"
		  "1: mov %cl, 2f+1(%rip)\n"
		  "2: mov $0, %al\n"
		  "cmp %cl, %al\n"
		  "jne 8f\n"
		  "inc %ecx\n"
		  "cmp $200, %ecx\n"
		  "jb 1b\n"
		  /* a function elsewhere, patched between calls */
		  "mov $0x102000, %ebx\n"
		  "movb $0xb8, (%rbx)\n" /* mov $imm, %eax; ret */
		  "movb $0xc3, 5(%rbx)\n"
		  "xor %ecx, %ecx\n"
		  "3: mov %ecx, 1(%rbx)\n"
		  "call *%rbx\n"
		  "cmp %ecx, %eax\n"
		  "jne 8f\n"
		  "inc %ecx\n"
		  "cmp $200, %ecx\n"
		  "jb 3b\n"
		  "mov $0x600d, %eax\n"
		  "jmp 7f\n"
		  "8: mov $0xbad, %eax\n"
		  "7:" OUT_AX GUEST_END);

static void patches_itself(void **state)
{
	struct hvkit k;

	(void)state;
	open_kit(&k, patch_code, patch_code_end);
	hvkit_run(&k, 0);
	assert_int_equal(k.out[0].value, 0x600d);
	hvkit_close(&k);
}

/* What a device writes over code that ran is what runs next. */
GUEST(device_code, "mov $0x102000, %ebx\n"
		   "call *%rbx\n" OUT_AX "mov $0x5f0, %dx\n"
		   "out %al, %dx\n"
		   "call *%rbx\n" OUT_AX GUEST_END);

static void device_writes_code(void **state)
{
	static const uint8_t one[] = { 0xb8, 1, 0, 0, 0, 0xc3 };
	static const uint8_t two[] = { 0xb8, 2, 0, 0, 0, 0xc3 };
	struct hvkit k;

	(void)state;
	open_kit(&k, device_code, device_code_end);
	hvkit_put(&k, 0x102000, one, one + sizeof(one));
	hvkit_run(&k, 0);
	hvkit_put(&k, 0x102000, two, two + sizeof(two));
	hvkit_run(&k, 0);
	assert_int_equal(k.outs, 2);
	assert_int_equal(k.out[0].value, 1);
	assert_int_equal(k.out[1].value, 2);
	hvkit_close(&k);
}

/*
 * Page 0x1ff000 is there, 0x200000.. is not: faults in the middle of REP MOVS
 * and of a crossing store leave what the manual says. The #PF handler reports
 * CR2 and RCX and ends.
 */
GUEST(fault_code, "mov $0x100000, %esi\n"
		  "mov $0x200000 - 24, %edi\n"
		  "mov $8, %ecx\n"
		  "movq $0x1122334455667788, %rax\n"
		  "mov %rax, 0x100000\n"
		  "rep movsq\n"
		  "ud2\n");
GUEST(fault_handler, "mov %cr2, %rax\n" OUT_AX "mov %ecx, %eax\n" OUT_AX
		     "mov %edi, %eax\n" OUT_AX "pop %rax\n" OUT_AX GUEST_END);
GUEST(cross_code, "mov $0x200000 - 3, %edi\n"
		  "movq $-1, %rax\n"
		  "mov %rax, (%rdi)\n"
		  "ud2\n");

static void unmap_second_large_page(struct hvkit *k)
{
	/* PDE 1 of the first GiB: see hvkit.c. */
	hvkit_set64(k, 0x3008, 0);
	hvkit_put(k, HVKIT_CODE + 0x800, fault_handler, fault_handler_end);
	hvkit_gate(k, 14, HVKIT_CODE + 0x800);
}

static void string_fault(void **state)
{
	struct hvkit k;

	(void)state;
	open_kit(&k, fault_code, fault_code_end);
	unmap_second_large_page(&k);
	hvkit_run(&k, 0);
	assert_int_equal(k.out[0].value, 0x200000);
	assert_int_equal(k.out[1].value, 5);
	assert_int_equal(k.out[2].value, 0x200000);
	assert_int_equal(k.out[3].value, 2); /* a write, not present */
	assert_true(hvkit_get64(&k, 0x200000 - 24) == 0x1122334455667788);
	hvkit_close(&k);
}

static void crossing_store_fault(void **state)
{
	struct hvkit k;

	(void)state;
	open_kit(&k, cross_code, cross_code_end);
	unmap_second_large_page(&k);
	hvkit_set64(&k, 0x200000 - 8, 0x0102030405060708);
	hvkit_run(&k, 0);
	assert_int_equal(k.out[0].value, 0x200000);
	assert_true(hvkit_get64(&k, 0x200000 - 8) == 0x0102030405060708);
	hvkit_close(&k);
}

/* TF and a data breakpoint, both handled by the guest's own #DB. */
GUEST(debug_code, "mov $0x100100, %eax\n"
		  "mov %rax, %dr0\n"
		  "mov $0xd0401, %eax\n" /* L0: write, 4 bytes */
		  "mov %rax, %dr7\n"
		  "incl 0x100200\n" /* not watched */
		  "incl 0x100100\n" /* watched */
		  "nop\n"
		  "xor %eax, %eax\n"
		  "mov %rax, %dr7\n"
		  "pushfq\n"
		  "orl $0x100, (%rsp)\n"
		  "popfq\n"
		  "nop\n" /* trap after this */
		  "xor %ebx, %ebx\n" /* and this */
		  "pushfq\n" /* and this */
		  "andl $~0x100, (%rsp)\n"
		  "popfq\n" /* and this, for TF was set before it */
		  "nop\n" GUEST_END);
GUEST(debug_handler, "push %rax\n"
		     "push %rdx\n"
		     "mov %dr6, %rax\n"
		     "mov $0x500, %dx\n"
		     "out %eax, %dx\n"
		     "mov $0xffff0ff0, %eax\n"
		     "mov %rax, %dr6\n"
		     "pop %rdx\n"
		     "pop %rax\n"
		     "iretq\n");

static void debug_traps(void **state)
{
	struct hvkit k;

	(void)state;
	open_kit(&k, debug_code, debug_code_end);
	hvkit_put(&k, HVKIT_CODE + 0x800, debug_handler, debug_handler_end);
	hvkit_gate(&k, 1, HVKIT_CODE + 0x800);
	hvkit_run(&k, 0);
	assert_int_equal(k.outs, 6);
	assert_int_equal(k.out[0].value, 0xffff0ff1);
	for (unsigned n = 1; n < 6; n++)
		assert_int_equal(k.out[n].value, 0xffff4ff0);
	hvkit_close(&k);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(patches_itself),
		cmocka_unit_test(device_writes_code),
		cmocka_unit_test(string_fault),
		cmocka_unit_test(crossing_store_fault),
		cmocka_unit_test(debug_traps),
	};

	setenv("ARCVMM_TEST_ENGINE", "soft", 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
