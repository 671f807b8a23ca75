#include "priv_machine.h"

#include <string.h>

#include "base/err.h"
#include "hv/soft/soft.h"
#include "machine.h"

static struct machine mach;
static struct hv_x86_vcpu_state fresh;
static unsigned waiting_irq;

static void put64(uint64_t la, uint64_t v)
{
	machine_put64(&mach, la, v);
}

uint64_t priv_peek(uint64_t la)
{
	uint64_t v = 0;

	if (la + 8 <= mach.ram_size)
		memcpy(&v, mach.ram + la, 8);
	return v;
}

int priv_machine_init(struct err *e)
{
	int rc = machine_make(&mach, 2 << 20, e);

	if (rc)
		return rc;
	rc = hv_vcpu_get_state(mach.vcpu, &fresh);
	return rc ? err_set(e, rc, "the engine gives no state") : 0;
}

static void put_pages(void)
{
	put64(0x1000, 0x2000 | 0x27);
	put64(0x2000, 0x3000 | 0x27);
	put64(0x3000, 0x4000 | 0x27);
	put64(0x3008, 0x0 | 0xe7); /* 0x200000: a large page */
	for (uint64_t la = 0; la < 2 << 20; la += 0x1000)
		put64(PTE_LA(la), la | 0x63);
	for (uint64_t la = 0x20000; la < 0x30000; la += 0x1000)
		put64(PTE_LA(la), la | 0x67);
	put64(PTE_LA(0x12000), 0x12061);
	put64(PTE_LA(0x13000), 0);
	put64(PTE_LA(0x14000), 0x8000000000014063);
	put64(PTE_LA(0x22000), 0x22065);
	put64(PTE_LA(0x23000), 0);
	put64(PTE_LA(0x24000), 0x8000000000024067);
	put64(PTE_LA(0x25000), 0x0008000000025067);
	put64(PTE_LA(0x26000), 0x26007);
}

static void put_gdt(void)
{
	static const uint64_t gdt[GDT_END / 8] = {
		[KCS / 8] = 0x00af9b000000ffff,
		[KDS / 8] = 0x00cf93000000ffff,
		[UCS32 / 8] = 0x00cffb000000ffff,
		[UDS / 8] = 0x00cff3000000ffff,
		[UCS / 8] = 0x00affb000000ffff,
		[TSS / 8] = 0x00008b0080000067,
		[KCS32 / 8] = 0x00cf9b000000ffff,
		[NPDS / 8] = 0x00cf73000000ffff,
		[XOCS / 8] = 0x00cf9d000000ffff,
		[RODS / 8] = 0x00cff1000000ffff,
		[SMALL / 8] = 0x0040930110000fff,
		[DOWN / 8] = 0x0040970000000fff,
		[GATE / 8] = 0x0000ec0000089800,
		[NPCS / 8] = 0x00af1b000000ffff,
		[UNACC / 8] = 0x00cff2000000ffff,
	};

	for (unsigned i = 0; i < GDT_END / 8; i++)
		put64(GDT_LA + 8 * i, gdt[i]);
}

static void put_idt(void)
{
	for (unsigned v = 0; v < 256; v++) {
		uint64_t at = HANDLER + 16 * v;
		unsigned dpl = v == 3 || v == 4 || v == 0x80 ? 3 : 0;
		unsigned ist = v == 8 ? 1 : 0;
		uint64_t type = 0x8e | dpl << 5;

		put64(IDT_LA + 16 * v,
		      at | KCS << 16 | (uint64_t)ist << 32 | type << 40);
		put64(IDT_LA + 16 * v + 8, 0);
		put64(0xb000 + 8 * v, at | KCS32 << 16 | type << 40);
		if (v < 0x40) /* the real-mode table */
			put64(v * 4, (priv_peek(v * 4) & ~0xffffffffull) |
					     (uint32_t)at);
	}
	memset(mach.ram + HANDLER, 0xcc, 0x1000);
}

static void put_tss(enum priv_mode mode)
{
	memset(mach.ram + 0x8000, 0, 0x68);
	if (mode == P32 || mode == Q32) {
		put64(0x8004, RSP0 | (uint64_t)KDS << 32);
	} else {
		put64(0x8004, RSP0);
		put64(0x8024, IST1);
	}
	put64(0x8060, 0x00680000ull << 32); /* no I/O bitmap */
}

static struct hv_x86_segment segment(uint16_t sel, uint16_t attr)
{
	return (struct hv_x86_segment){ 0, 0xffffffff, sel, attr };
}

static void set_segments(struct hv_x86_vcpu_state *s, enum priv_mode mode)
{
	bool user = mode == U64 || mode == U32 || mode == Q32;
	struct hv_x86_segment data =
		user ? segment(UDS, 0xc0f3) : segment(KDS, 0xc093);

	if (mode == REAL) {
		data = (struct hv_x86_segment){ 0, 0xffff, 0, 0x93 };
		for (int i = 0; i < X86_SEG_COUNT; i++)
			s->seg[i] = data;
		s->seg[X86_CS].attr = 0x9b;
		s->seg[X86_CS].selector = KCODE >> 4;
		s->seg[X86_CS].base = KCODE;
		return;
	}
	for (int i = 0; i < X86_SEG_COUNT; i++)
		s->seg[i] = data;
	s->seg[X86_CS] = mode == K64   ? segment(KCS, 0xa09b)
			 : mode == U64 ? segment(UCS, 0xa0fb)
			 : mode == P32 ? segment(KCS32, 0xc09b)
				       : segment(UCS32, 0xc0fb);
}

static void standard_state(struct hv_x86_vcpu_state *s, enum priv_mode mode)
{
	bool lm = mode == K64 || mode == U64 || mode == U32;
	bool user = mode == U64 || mode == U32 || mode == Q32;

	*s = fresh;
	for (unsigned i = 0; i < 16; i++)
		s->gpr[i] = 0;
	set_segments(s, mode);
	s->rip = mode == REAL ? 0 : user ? UCODE : KCODE;
	s->gpr[X86_RSP] = mode == REAL ? 0x7000 : user ? USTACK : KSTACK;
	s->rflags = 2;
	s->cr0 = mode == REAL ? CR0_ET | CR0_NE
			      : CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP |
					CR0_AM | (lm ? CR0_PG : 0);
	s->cr2 = 0;
	s->cr3 = 0x1000;
	s->cr4 = lm ? CR4_PAE | CR4_PGE | CR4_DE | CR4_OSFXSR | CR4_OSXMMEXC |
				 CR4_FSGSBASE
		    : CR4_DE | CR4_OSFXSR;
	s->efer = lm ? EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE : 0;
	s->gdt = (struct hv_x86_table){ GDT_LA, GDT_END - 1 };
	s->idt = mode == REAL ? (struct hv_x86_table){ 0, 0x3ff }
		 : lm	      ? (struct hv_x86_table){ IDT_LA, 0xfff }
			      : (struct hv_x86_table){ 0xb000, 0x7ff };
	s->tr = (struct hv_x86_segment){ 0x8000, 0x67, TSS, 0x8b };
	s->ldt = (struct hv_x86_segment){ 0, 0, 0, X86_SEG_UNUSABLE };
	s->msr[HV_MSR_STAR] = (uint64_t)0x18 << 48 | (uint64_t)KCS << 32;
	s->msr[HV_MSR_LSTAR] = HANDLER + 0x900;
	s->msr[HV_MSR_CSTAR] = HANDLER + 0x910;
	s->msr[HV_MSR_SFMASK] = FL_IF | FL_TF | FL_DF | FL_NT;
	s->msr[HV_MSR_SYSENTER_CS] = KCS;
	s->msr[HV_MSR_SYSENTER_ESP] = 0x16000;
	s->msr[HV_MSR_SYSENTER_EIP] = HANDLER + 0x920;
	s->dr6 = 0xffff0ff0;
	s->dr7 = 0x400;
	s->mp_state = HV_X86_RUNNABLE;
}

static void apply(struct hv_x86_vcpu_state *s, const struct priv_item *i)
{
	switch (i->key) {
	case P_GPR:
		s->gpr[i->a] = i->v;
		break;
	case P_RIP:
		s->rip = i->v;
		break;
	case P_FLAGS:
		s->rflags = i->v | 2;
		break;
	case P_CR0:
		s->cr0 = (s->cr0 & ~i->a) | i->v;
		break;
	case P_CR3:
		s->cr3 = i->v;
		break;
	case P_CR4:
		s->cr4 = (s->cr4 & ~i->a) | i->v;
		break;
	case P_EFER:
		s->efer = (s->efer & ~i->a) | i->v;
		break;
	case P_DR:
		s->dr[i->a] = i->v;
		break;
	case P_DR7:
		s->dr7 = i->v;
		break;
	case P_SEL:
		s->seg[i->a].selector = (uint16_t)i->v;
		break;
	case P_BASE:
		s->seg[i->a].base = i->v;
		break;
	case P_LIMIT:
		s->seg[i->a].limit = (uint32_t)i->v;
		break;
	case P_ATTR:
		s->seg[i->a].attr = (uint16_t)i->v;
		break;
	case P_MSR:
		s->msr[i->a] = i->v;
		break;
	case P_MEM:
		put64(i->a, i->v);
		break;
	case P_IDT_LIMIT:
		s->idt.limit = (uint16_t)i->v;
		break;
	case P_IRQ:
		waiting_irq = (unsigned)i->v;
		break;
	}
}

uint64_t priv_setup(const struct priv_case *c, struct hv_x86_vcpu_state *s)
{
	bool user = c->mode == U64 || c->mode == U32 || c->mode == Q32;
	uint64_t at = user ? UCODE : KCODE;

	memset(mach.ram, 0, 0x40000);
	memset(mach.ram + 0x10000, 0xcc, 0x1000);
	memset(mach.ram + 0x20000, 0xcc, 0x1000);
	memset(mach.ram + 0x24000, 0xcc, 0x1000);
	put_pages();
	put_gdt();
	put_idt();
	put_tss(c->mode);
	memcpy(mach.ram + at, c->code, c->len);
	standard_state(s, c->mode);
	waiting_irq = 0;
	for (const struct priv_item *i = c->in; i->key; i++)
		apply(s, i);
	/* The engine did not see RAM change. */
	for (uint64_t pa = 0; pa < 0x40000; pa += 0x1000)
		soft_code_stored(mach.cpu, pa, 0x1000);
	return at + c->len;
}

int priv_go(struct hv_x86_vcpu_state *s, struct hv_exit *exit)
{
	static const struct hv_debug stop = { .enabled = true,
					      .software_breakpoints = true };
	int rc;

	memset(s->lapic, 0, sizeof(s->lapic));
	s->lapic[0xf0] = 0xff;
	s->lapic[0xf1] = 1; /* software-enabled */
	if (waiting_irq)
		s->lapic[0x200 + waiting_irq / 32 * 16 + waiting_irq % 32 / 8] =
			(uint8_t)(1u << (waiting_irq & 7));
	rc = hv_vcpu_set_state(mach.vcpu, s);
	if (!rc)
		rc = hv_vcpu_set_debug(mach.vcpu, &stop);
	if (!rc)
		rc = hv_vcpu_run(mach.vcpu, exit);
	if (!rc)
		rc = hv_vcpu_get_state(mach.vcpu, s);
	return rc;
}

int priv_vector_at(uint64_t la)
{
	if (la - HANDLER >= 0x1000 || (la & 15))
		return -1;
	return (int)((la - HANDLER) / 16);
}

uint64_t priv_stack(const struct hv_x86_vcpu_state *s, unsigned i)
{
	unsigned size = s->seg[X86_CS].attr & SEG_L    ? 8
			: s->seg[X86_CS].attr & SEG_DB ? 4
						       : 2;
	uint64_t at = s->gpr[X86_RSP] + s->seg[X86_SS].base, v = 0;

	at += i * size;
	if (at + size <= mach.ram_size)
		memcpy(&v, mach.ram + at, size);
	return v;
}
