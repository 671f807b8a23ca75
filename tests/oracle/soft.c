/*
 * One instruction on the software CPU.
 *
 * Theory of operation: the machine is made once, in 64-bit mode with paging and
 * a GDT that has Linux's user segments at Linux's selectors. A case writes the
 * vCPU's registers in place and enters the block at RIP as the run loop would.
 * With TF set the block holds one instruction; without, the INT3 behind it ends
 * it, as it does on the host. A fault does not reach the IDT: it ends here, as
 * the event that would be delivered.
 */
#include "soft.h"

#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "hv/soft/cpu.h"
#include "hv/soft/soft.h"
#include "hv/soft/sse.h"
#include "layout.h"
#include "machine.h"

#define GDT_PA	   0x0ull
#define PML4_PA	   0x1000ull
#define PDPT_PA	   0x2000ull
#define PD_PA	   0x3000ull
#define PT_PA	   0x4000ull /* three of them */
#define TSS_PA	   0x8000ull
#define LDT_PA	   0x9000ull
#define KTABLES_PA 0xa000ull /* three, for: */
#define KERNEL_LA  0xffff800000000000ull /* physical 0 to 64 KiB */
#define PAGES_PA   0x10000ull

#define PTE_P  1ull
#define PTE_W  2ull
#define PTE_U  4ull
#define PTE_A  0x20ull
#define PTE_D  0x40ull
#define PTE_NX (1ull << 63)

#define CS64 0x33
#define CS32 0x23
#define CS16 0x07
#define DS32 0x2b

static struct machine mach;

static const struct hv_x86_segment seg_cs64 = { 0, 0xffffffff, CS64, 0xa0fb };
static const struct hv_x86_segment seg_cs32 = { 0, 0xffffffff, CS32, 0xc0fb };
static const struct hv_x86_segment seg_cs16 = { CODE_LA, 0xffff, CS16, 0x00fb };
static const struct hv_x86_segment seg_data = { 0, 0xffffffff, DS32, 0xc0f3 };

static void map_pages(void)
{
	const uint64_t table = PTE_P | PTE_W | PTE_U | PTE_A;
	uint32_t last = 0;
	uint64_t pt = PT_PA - PAGE;

	machine_put64(&mach, PML4_PA, PDPT_PA | table);
	machine_put64(&mach, PDPT_PA, PD_PA | table);
	for (unsigned i = 0; i < PAGE_COUNT; i++) {
		uint32_t la = pages[i].la;
		uint64_t e = (PAGES_PA + i * PAGE) | PTE_P | PTE_U | PTE_A;

		if (la >> 21 != last) {
			last = la >> 21;
			pt += PAGE;
			machine_put64(&mach, PD_PA + last * 8, pt | table);
		}
		if (pages[i].kind != PAGE_RX)
			e |= PTE_NX;
		if (pages[i].kind == PAGE_RW)
			e |= PTE_W | PTE_D;
		machine_put64(&mach, pt + (la >> 12 & 511) * 8, e);
	}
	/* The descriptor tables, where Linux has its own. */
	machine_put64(&mach, PML4_PA + 256 * 8, KTABLES_PA | table);
	machine_put64(&mach, KTABLES_PA, (KTABLES_PA + PAGE) | table);
	machine_put64(&mach, KTABLES_PA + PAGE,
		      (KTABLES_PA + 2 * PAGE) | table);
	for (uint64_t i = 0; i < 16; i++)
		machine_put64(&mach, KTABLES_PA + 2 * PAGE + 8 * i,
			      i * PAGE | PTE_P | PTE_W | PTE_A | PTE_D);
}

static void set_tables(struct hv_x86_vcpu_state *s)
{
	static const uint64_t gdt[16] = {
		[1] = 0x00cf9b000000ffff,  [2] = 0x00af9b000000ffff,
		[3] = 0x00cf93000000ffff,  [4] = 0x00cffb000000ffff,
		[5] = 0x00cff3000000ffff,  [6] = 0x00affb000000ffff,
		[8] = 0x00008b0080000067,  [9] = 0xffff8000,
		[15] = 0x0040f50000000000,
	};

	for (unsigned i = 0; i < 16; i++)
		machine_put64(&mach, GDT_PA + 8 * i, gdt[i]);
	s->gdt.base = KERNEL_LA + GDT_PA;
	s->gdt.limit = 127;
	/* No I/O bitmap within the limit. */
	machine_put64(&mach, TSS_PA + 0x60, 0x68ull << 48);
	s->tr = (struct hv_x86_segment){ KERNEL_LA + TSS_PA, 0x67, 0x40, 0x8b };
	/* One entry, as native.c makes it. */
	machine_put64(&mach, LDT_PA, 0x1000fb000000ffff);
	s->ldt = (struct hv_x86_segment){ KERNEL_LA + LDT_PA, 7, 0x50, 0x82 };
}

int soft_half_init(struct err *e)
{
	static struct hv_x86_vcpu_state s;
	int rc = machine_make(&mach, 2 << 20, e);

	if (rc)
		return rc;
	rc = hv_vcpu_get_state(mach.vcpu, &s);
	if (rc)
		return err_set(e, rc, "the engine gives no state");
	map_pages();
	set_tables(&s);
	s.cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_PG;
	s.cr3 = PML4_PA;
	s.cr4 = CR4_PAE | CR4_PGE | CR4_OSFXSR | CR4_OSXMMEXC | CR4_FSGSBASE;
	s.efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
	for (int i = 0; i < X86_SEG_COUNT; i++)
		s.seg[i] = seg_data;
	s.seg[X86_CS] = seg_cs64;
	s.rflags = 0x202;
	s.rip = CODE_LA;
	s.mp_state = HV_X86_RUNNABLE;
	rc = hv_vcpu_set_state(mach.vcpu, &s);
	return rc ? err_set(e, rc, "the engine refuses the state") : 0;
}

uint8_t *soft_half_page(unsigned i)
{
	return mach.ram + PAGES_PA + i * PAGE;
}

void soft_half_code_changed(unsigned page, unsigned off, unsigned len)
{
	soft_code_stored(mach.cpu, PAGES_PA + page * PAGE + off, len);
}

static void load_seg(struct soft_cpu *cpu, enum x86_seg seg, uint16_t sel,
		     uint64_t base)
{
	struct hv_x86_segment *s = &cpu->seg[seg];

	*s = seg_data;
	s->selector = sel;
	s->base = base;
	if (!(sel & ~3)) {
		s->attr = X86_SEG_UNUSABLE;
		s->limit = 0;
	}
}

/* Cases have linear addresses; 16-bit code has a base. */
static uint64_t code_base(const struct ocase *c)
{
	return c->compat == 2 ? CODE_LA : 0;
}

static void load(struct soft_cpu *cpu, const struct ocase *c)
{
	memcpy(cpu->gpr, c->in.gpr, sizeof(c->in.gpr));
	cpu->rip = c->in.rip - code_base(c);
	memcpy(cpu->fx, c->in.fx, 416);
	cpu->seg[X86_CS] = c->compat == 2 ? seg_cs16
			   : c->compat	  ? seg_cs32
					  : seg_cs64;
	cpu->seg[X86_SS] = seg_data;
	load_seg(cpu, X86_DS, c->in.ds, 0);
	load_seg(cpu, X86_ES, c->in.es, 0);
	load_seg(cpu, X86_FS, c->in.fs, c->in.fs_base);
	load_seg(cpu, X86_GS, c->in.gs, c->in.gs_base);
	cpu->cpl = 3;
	cpu->shadow = 0;
	cpu->cr2 = 0;
	soft_set_flags(cpu, c->in.rflags | (c->free_run ? 0 : FL_TF));
	soft_mode_changed(cpu);
}

static void store(struct soft_cpu *cpu, const struct ocase *c, struct regs *r)
{
	memcpy(r->gpr, cpu->gpr, sizeof(r->gpr));
	r->rip = cpu->rip + code_base(c);
	r->rflags = soft_get_flags(cpu);
	memcpy(r->fx, cpu->fx, 512);
	r->ds = cpu->seg[X86_DS].selector;
	r->es = cpu->seg[X86_ES].selector;
	r->fs = cpu->seg[X86_FS].selector;
	r->gs = cpu->seg[X86_GS].selector;
	r->fs_base = cpu->seg[X86_FS].base;
	r->gs_base = cpu->seg[X86_GS].base;
}

/*
 * What the run loop does with the block at RIP, until a fault or the block's
 * end. In a free run the block goes on behind the instruction, into an INT3.
 */
static void enter(struct soft_cpu *cpu, bool free_run)
{
	cpu->watch_hits = 0;
	/* Without a budget no handler goes on to another block. */
	cpu->budget = free_run ? 1 << 20 : 0;
	__atomic_store_n(&cpu->events, 0, __ATOMIC_RELAXED);
	cpu->block = soft_block_at(cpu, cpu->rip);
	cpu->gpr[SOFT_RIP] = cpu->rip;
	SOFT_GO(cpu, cpu->block->insn);
#if SOFT_PLAIN
	while (cpu->ip) {
		struct insn *i = cpu->ip;

		cpu->ip = NULL;
		i->fn(cpu, i);
	}
#endif
}

static void run(struct soft_cpu *cpu, const struct ocase *c,
		struct soft_event *ev)
{
	uint64_t at = c->in.rip + c->pre_len - code_base(c);

	if (_setjmp(cpu->catch_fault) == 0) {
		/* A block ends where a page does; a REP looks at the clock. */
		do
			enter(cpu, c->free_run);
		while (c->free_run && cpu->rip == at);
	} else {
		*ev = cpu->fault;
		if (ev->kind == SOFT_INTN || ev->kind == SOFT_INT3)
			cpu->rip = cpu->next_rip;
	}
	cpu->cur = NULL;
	cpu->block = &soft_no_block;
}

/* INT n meets the host's gates: 3 and 4 are for users, others are not. */
static void software_int(const struct ocase *c, struct outcome *o)
{
	if (o->vector == 3 || o->vector == 4)
		return;
	o->error = o->vector * 8u + 2;
	o->vector = X86_GP;
	o->out.rip = c->in.rip;
}

void soft_half_run(const struct ocase *c, struct outcome *o)
{
	struct soft_cpu *cpu = mach.cpu;
	struct soft_event ev;
	bool lean;

	memset(&ev, 0, sizeof(ev));
	load(cpu, c);
	/* SSE and x87 in their lean way and in the general one */
	lean = c->in.gpr[1] & 1;
	if (lean) {
		soft_fp_enter(cpu);
		soft_x87_load(cpu);
	}
	run(cpu, c, &ev);
	if (lean)
		soft_fp_leave(cpu);
	store(cpu, c, &o->out);
	o->vector = ev.kind ? ev.vector : 1;
	o->error = ev.kind && ev.has_error ? ev.error : 0;
	o->cr2 = ev.cr2;
	o->lost = false;
	if (ev.kind == SOFT_INTN)
		software_int(c, o);
}
