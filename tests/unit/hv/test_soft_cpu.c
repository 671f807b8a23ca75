/*
 * What only an interpreter can get wrong: code that changes under it, faults in
 * the middle of string instructions and of stores that cross pages, interrupts
 * of long ones, stepping, data breakpoints, what the page walker writes.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

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
 * Another process (a vhost-user back end) changes a page, which is seen when the
 * page is entered next. Here that is by a jump out of the page to its own alias,
 * 1 GiB up: the jumping block dies while its successor, as long, is made.
 */
GUEST(alias_start, "mov $0x102000, %eax\n"
		   "jmp *%rax\n");
GUEST(alias_page, "nop\n"
		  "nop\n"
		  "mov $0x600, %edx\n"
		  "out %al, %dx\n" /* the other process writes */
		  "nop\n"
		  "nop\n"
		  ".byte 0xe9\n" /* jmp to 1, in the alias */
		  ".long 0x40000000 + 1f - . - 4\n"
		  "1: mov $0x600d, %eax\n"
		  "nop\n"
		  "jmp 2f\n"
		  "ud2\n"
		  "2:" OUT_AX GUEST_END);

static void rewrite(void *dev, uint64_t off, unsigned len, uint64_t val)
{
	struct hvkit *k = dev;
	uint8_t *page = gmem_ptr(k->mem, gpa(0x102000), 1, false);

	(void)off;
	(void)len;
	(void)val;
	page[0] = 0xf4;
	hv_irq_line(k->vm, 9, true);
	hv_irq_line(k->vm, 9, false);
}

static void add_rewriter(struct hvkit *k)
{
	static const struct bus_ops ops = { .write = rewrite };
	struct err e;

	assert_int_equal(bus_add(k->bus, BUS_PIO, 0x600, 1, &ops, k, NULL, &e),
			 0);
}

static void link_outlives_block(void **state)
{
	struct hvkit k;

	(void)state;
	hvkit_open_or_skip(&k, 1, add_rewriter);
	hvkit_load(&k, 0, alias_start, alias_start_end, 0);
	hvkit_put(&k, 0x102000, alias_page, alias_page_end);
	hvkit_set64(&k, 0x4000, 0x87); /* PDE: 1 GiB is 0 again */
	hvkit_run(&k, 0);
	assert_int_equal(k.outs, 1);
	assert_int_equal(k.out[0].value, 0x600d);
	hvkit_close(&k);
}

/*
 * The timer interrupts a string instruction of some milliseconds: the handler
 * finds elements left.
 */
GUEST(rep_code, "mov $0xfee00000, %ebx\n"
		"movl $0x1ff, 0xf0(%rbx)\n"
		"movl $0x40041, 0x320(%rbx)\n" /* TSC deadline */
		"rdtsc\n"
		"add $200000, %eax\n"
		"adc $0, %edx\n"
		"mov $0x6e0, %ecx\n"
		"wrmsr\n"
		"mov $0x100000, %esi\n"
		"mov $0x2f0000, %ecx\n"
		"sti\n"
		"rep lodsb\n"
		"ud2\n");
GUEST(rep_irq, "mov %ecx, %eax\n" OUT_AX GUEST_END);

static void string_interrupted(void **state)
{
	struct hvkit k;

	(void)state;
	open_kit(&k, rep_code, rep_code_end);
	hvkit_put(&k, HVKIT_CODE + 0x800, rep_irq, rep_irq_end);
	hvkit_gate(&k, 0x41, HVKIT_CODE + 0x800);
	hvkit_run(&k, 0);
	assert_int_equal(k.outs, 1);
	assert_in_range(k.out[0].value, 1, 0x2f0000);
	hvkit_close(&k);
}

/* Accessed and dirty bits are writes, which the dirty log has. */
GUEST(walk_code, "mov 0x200000, %eax\n"
		 "movl $1, 0x40100000\n" GUEST_END);

static void walker_writes(void **state)
{
	unsigned long map[HVKIT_RAM / 4096 / 64];
	struct hvkit k;

	(void)state;
	hvkit_open_or_skip(&k, 1, NULL);
	hvkit_load(&k, 0, walk_code, walk_code_end, 0);
	hvkit_set64(&k, 0x4000, 0x87);
	assert_int_equal(hv_dirty_log(k.vm, 0, true), 0);
	hvkit_run(&k, 0);
	assert_int_equal(hv_dirty_fetch(k.vm, 0, map, sizeof(map)), 0);
	assert_int_equal(hvkit_get64(&k, 0x3008) & 0x60, 0x20);
	assert_int_equal(hvkit_get64(&k, 0x4000) & 0x60, 0x60);
	assert_true(map[0] >> 3 & 1);
	assert_true(map[0] >> 4 & 1);
	hvkit_close(&k);
}

/* In ROM they stay as they are. */
static void *rom;

static void add_rom(struct hvkit *k)
{
	struct gmem_region r = { .base = gpa(0x800000),
				 .size = 0x1000,
				 .host = rom,
				 .flags = GMEM_READONLY };
	struct err e;

	assert_int_equal(gmem_add_mapping(k->mem, &r, &e), 0);
}

static void tables_in_rom(void **state)
{
	struct hvkit k;

	(void)state;
	rom = mmap(NULL, 0x1000, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(rom != MAP_FAILED);
	*(uint64_t *)rom = 0x87;
	mprotect(rom, 0x1000, PROT_READ);
	hvkit_open_or_skip(&k, 1, add_rom);
	hvkit_load(&k, 0, walk_code, walk_code_end, 0);
	hvkit_set64(&k, 0x2008, 0x800007);
	hvkit_run(&k, 0);
	assert_int_equal(hvkit_get64(&k, 0x100000), 1);
	hvkit_close(&k);
	munmap(rom, 0x1000);
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
		cmocka_unit_test(link_outlives_block),
		cmocka_unit_test(string_interrupted),
		cmocka_unit_test(walker_writes),
		cmocka_unit_test(tables_in_rom),
		cmocka_unit_test(string_fault),
		cmocka_unit_test(crossing_store_fault),
		cmocka_unit_test(debug_traps),
	};

	setenv("ARCVMM_TEST_ENGINE", "soft", 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
