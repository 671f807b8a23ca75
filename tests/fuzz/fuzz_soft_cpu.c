/*
 * The software CPU on random code in random modes: real, 16- and 32-bit
 * protected, long; CPL 0 and 3; with page tables that are half right, or made
 * of the input. Whatever the guest does, run() ends by a kick.
 *
 * Input: byte 0 the mode, bytes 1-16 seed registers, the rest is code; it is
 * also what lies in memory around it.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bug.h"
#include "bus/bus.h"
#include "hv/hv.h"
#include "hv/x86_flat.h"
#include "mem/gmem.h"

#define RAM    0x40000u
#define CODE   0x10000u
#define TABLES 0x20000u
#define PAGE   0x1000u

enum {
	CPL3 = 1 << 2,
	RANDOM_TABLES = 1 << 3,
	STEP = 1 << 4,
	BREAKPOINTS = 1 << 5,
};

static struct {
	struct gmem *mem;
	struct bus *bus;
	struct hv_vm *vm;
	struct hv_vcpu *cpu;
	struct hv_x86_vcpu_state reset;
	pthread_t kicker;
} z;

static void *kicker(void *arg)
{
	(void)arg;
	for (;;) {
		usleep(500);
		hv_vcpu_kick(z.cpu);
	}
	return NULL;
}

static void init(void)
{
	struct hv_x86_cpuid leaves[HV_X86_CPUID_MAX];
	struct hv_config c = { .ncpus = 1 };
	int n;

	bug_on(gmem_create(&z.mem));
	bug_on(gmem_add_ram(z.mem, gpa(0), RAM, NULL));
	bug_on(bus_create(&z.bus));
	c.mem = z.mem;
	c.bus = z.bus;
	bug_on(hv_vm_create(&hv_soft_ops, &z.vm, &c, NULL));
	bug_on(hv_irqchip_create(z.vm, NULL));
	bug_on(hv_vcpu_create(z.vm, 0, &z.cpu, NULL));
	n = hv_supported_cpuid(&hv_soft_ops, leaves, HV_X86_CPUID_MAX);
	bug_on(n < 0);
	bug_on(hv_vcpu_set_cpuid(z.cpu, leaves, (unsigned)n));
	bug_on(hv_vcpu_get_state(z.cpu, &z.reset));
	bug_on(pthread_create(&z.kicker, NULL, kicker, NULL));
}

static void fill(const uint8_t *data, size_t size)
{
	uint8_t *ram = gmem_ptr(z.mem, gpa(0), RAM, true);

	memset(ram, 0, RAM);
	for (size_t at = 0; size && at < RAM; at += size)
		memcpy(ram + at, data, size < RAM - at ? size : RAM - at);
	memcpy(ram + CODE, data, size < PAGE ? size : PAGE);
}

static void put64(uint64_t at, uint64_t v)
{
	bug_on(gmem_write(z.mem, gpa(at), &v, sizeof(v)));
}

/* One to one, 2 MiB pages; some entries come from the input instead. */
static void tables(uint64_t seed)
{
	put64(TABLES, (TABLES + PAGE) | 7);
	put64(TABLES + PAGE, (TABLES + 2 * PAGE) | 7);
	put64(TABLES + 2 * PAGE, 0x87 | (seed & 1 ? (TABLES + 3 * PAGE) : 0));
	if (!(seed & 1))
		return;
	put64(TABLES + 2 * PAGE, (TABLES + 3 * PAGE) | 7);
	for (unsigned n = 0; n < RAM / PAGE; n++)
		if (n != 5 && n != 7)
			put64(TABLES + 3 * PAGE + 8 * n, n * PAGE | 7);
}

static void protect(struct hv_x86_vcpu_state *s, bool big, unsigned cpl)
{
	uint16_t db = big ? 1u << 14 : 0;

	s->cr0 = 0x31;
	for (unsigned n = 0; n < X86_SEG_COUNT; n++) {
		s->seg[n].base = 0;
		s->seg[n].limit = big ? 0xffffffff : 0x3ffff;
		s->seg[n].selector = (uint16_t)(8 * n + 8 + cpl);
		s->seg[n].attr = (uint16_t)(0x8093 | cpl << 5 | db);
	}
	s->seg[X86_CS].attr = (uint16_t)(0x809b | cpl << 5 | db);
}

static void enter(struct hv_x86_vcpu_state *s, unsigned how, uint64_t seed)
{
	unsigned cpl = how & CPL3 ? 3 : 0;

	switch (how & 3) {
	case 0: /* real mode */
		s->seg[X86_CS].base = 0;
		s->seg[X86_CS].selector = 0;
		s->rip = CODE - 0x8000;
		s->seg[X86_CS].base = 0x8000;
		break;
	case 1:
		protect(s, false, cpl);
		s->rip = CODE;
		break;
	case 2:
		protect(s, true, cpl);
		s->rip = CODE;
		break;
	case 3:
		x86_flat_enter(s, TABLES, CODE, 0x18000);
		if (cpl) {
			s->seg[X86_CS].attr |= 3 << 5;
			s->seg[X86_SS].attr |= 3 << 5;
			s->seg[X86_CS].selector |= 3;
			s->seg[X86_SS].selector |= 3;
		}
		if (how & RANDOM_TABLES)
			s->cr3 = (seed & 0x3f) << 12;
		else
			tables(seed);
		break;
	}
	s->gdt = (struct hv_x86_table){ 0x3000, 0xff };
	s->idt = (struct hv_x86_table){ 0x4000, 0xfff };
	s->tr.base = 0x6000;
	s->tr.limit = 0x200;
	s->tr.attr = 0x8b;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct hv_x86_vcpu_state s;
	struct hv_debug d = { 0 };
	struct hv_exit exit;
	uint64_t seed[2];

	if (size < 18)
		return 0;
	if (!z.cpu)
		init();
	memcpy(seed, data + 1, sizeof(seed));
	fill(data + 17, size - 17);
	s = z.reset;
	for (unsigned n = 0; n < 16; n++) {
		seed[0] =
			seed[0] * 6364136223846793005ull + 1442695040888963407;
		s.gpr[n] = n & 3 ? seed[0] >> 46 : seed[0];
	}
	s.gpr[X86_RSP] = 0x18000;
	enter(&s, data[0], seed[1]);
	s.rflags = 2 | (seed[1] >> 8 & 0x200cd5);
	if (data[0] & BREAKPOINTS) {
		s.dr[0] = CODE + (seed[1] >> 16 & 15);
		s.dr[1] = seed[1] >> 20 & 0x3ffff;
		s.dr7 = 0x40f | (seed[1] >> 40 & 0xff) << 16;
	}
	d.enabled = data[0] & STEP;
	d.single_step = d.enabled;
	bug_on(hv_vcpu_set_debug(z.cpu, &d));
	bug_on(hv_vcpu_set_state(z.cpu, &s));
	for (unsigned n = 0; n < 64; n++) {
		bug_on(hv_vcpu_run(z.cpu, &exit));
		if (exit.reason != HV_EXIT_DEBUG)
			break;
	}
	bug_on(hv_vcpu_get_state(z.cpu, &s));
	return 0;
}
