/*
 * The registers a vCPU starts with.
 *
 * The boot processor starts where firmware would have left it for the kernel;
 * the others as after RESET, waiting for INIT and SIPI, which Linux sends. The
 * whole struct is filled, from nothing, so the same call serves a reboot.
 */
#include <string.h>

#include "base/bytes.h"
#include "base/bug.h"
#include "machine/board_impl.h"

#define CR0_PE	    (1u << 0)
#define CR0_ET	    (1u << 4)
#define CR0_NE	    (1u << 5)
#define CR0_WP	    (1u << 16)
#define CR0_NW	    (1u << 29)
#define CR0_CD	    (1u << 30)
#define CR0_PG	    (1u << 31)
#define CR4_PAE	    (1u << 5)
#define EFER_LME    (1u << 8)
#define EFER_LMA    (1u << 10)
#define APIC_BSP    (1u << 8)
#define APIC_ENABLE (1u << 11)

#define DR6_RESET    0xffff0ff0
#define DR7_RESET    0x400
#define PAT_RESET    0x0007040600070406
#define FCW_RESET    0x37f
#define MXCSR_RESET  0x1f80
#define FAST_STRINGS 1 /* MISC_ENABLE */
/* MTRRs on, everything write-back: with them off, Linux turns PAT off too. */
#define MTRR_ALL_WB 0x806

/* Access rights, as in the VMCS. */
enum {
	CODE64 = 0xa09b,
	CODE32 = 0xc09b,
	CODE16 = 0x009b,
	DATA32 = 0xc093,
	DATA16 = 0x0093,
	TSS_BUSY = 0x008b, /* 64-bit in long mode, else 32-bit */
	LDT = 0x0082,
};

/* LAPIC registers, by offset. */
enum {
	APIC_ID = 0x20,
	APIC_VERSION = 0x30,
	APIC_DFR = 0xe0,
	APIC_SVR = 0xf0,
	APIC_LVT_TIMER = 0x320,
	APIC_LVT_ERROR = 0x370,
	APIC_LVT_MASKED = 1 << 16,
};

static struct hv_x86_segment segment(uint16_t selector, uint64_t base,
				     uint32_t limit, uint16_t attr)
{
	return (struct hv_x86_segment){ base, limit, selector, attr };
}

static void set_data(struct hv_x86_vcpu_state *s, struct hv_x86_segment data)
{
	s->seg[X86_DS] = s->seg[X86_ES] = s->seg[X86_SS] = data;
	s->seg[X86_FS] = s->seg[X86_GS] = data;
}

/* What RESET leaves (SDM vol. 3, 9.1.1), and a sane memory type. */
static void reset_state(unsigned index, struct hv_x86_vcpu_state *s)
{
	memset(s, 0, sizeof(*s));
	s->rip = 0xfff0;
	s->rflags = 2;
	s->cr0 = CR0_CD | CR0_NW | CR0_ET;
	s->dr6 = DR6_RESET;
	s->dr7 = DR7_RESET;
	s->xcr0 = 1;
	s->seg[X86_CS] = segment(0xf000, 0xffff0000, 0xffff, CODE16);
	set_data(s, segment(0, 0, 0xffff, DATA16));
	s->tr = segment(0, 0, 0xffff, TSS_BUSY);
	s->ldt = segment(0, 0, 0xffff, LDT);
	s->gdt.limit = s->idt.limit = 0xffff;
	s->apic_base = LAPIC_BASE | APIC_ENABLE | (index ? 0 : APIC_BSP);
	s->mp_state = index ? HV_X86_UNINITIALIZED : HV_X86_RUNNABLE;

	s->msr[HV_MSR_PAT] = PAT_RESET;
	s->msr[HV_MSR_MISC_ENABLE] = FAST_STRINGS;
	s->msr[HV_MSR_MTRR_DEF_TYPE] = MTRR_ALL_WB;

	s->xsave_size = 576; /* FXSAVE image and XSAVE header */
	put_le16(s->xsave, FCW_RESET);
	put_le32(s->xsave + 24, MXCSR_RESET);
	put_le32(s->xsave + 28, 0xffff); /* MXCSR mask */
	put_le64(s->xsave + 512, 3); /* x87 and SSE are in the image */

	put_le32(s->lapic + APIC_ID, index << 24);
	put_le32(s->lapic + APIC_VERSION, 0x50014);
	put_le32(s->lapic + APIC_DFR, UINT32_MAX);
	put_le32(s->lapic + APIC_SVR, 0xff);
	for (unsigned r = APIC_LVT_TIMER; r <= APIC_LVT_ERROR; r += 0x10)
		put_le32(s->lapic + r, APIC_LVT_MASKED);
}

static void enter_64(const struct board *b, struct hv_x86_vcpu_state *s)
{
	s->cr0 = CR0_PE | CR0_ET | CR0_NE | CR0_WP | CR0_PG;
	s->cr3 = BOOT_PAGES;
	s->cr4 = CR4_PAE;
	s->efer = EFER_LME | EFER_LMA;
	s->gdt = (struct hv_x86_table){ BOOT_GDT, 5 * 8 - 1 };
	s->idt = (struct hv_x86_table){ 0, 0 };
	s->seg[X86_CS] = segment(0x10, 0, UINT32_MAX, CODE64);
	set_data(s, segment(0x18, 0, UINT32_MAX, DATA32));
	s->tr = segment(0x20, 0, 0x67, TSS_BUSY);
	s->rip = b->entry;
	s->gpr[X86_RSI] = BOOT_ZERO_PAGE;
	s->gpr[X86_RSP] = BOOT_ZERO_PAGE; /* downwards; Linux sets its own */
}

/* Xen's PVH start: protected mode without paging. */
static void enter_pvh(const struct board *b, struct hv_x86_vcpu_state *s)
{
	s->cr0 = CR0_PE | CR0_ET;
	s->gdt = (struct hv_x86_table){ BOOT_GDT, 5 * 8 - 1 };
	s->idt = (struct hv_x86_table){ 0, 0 };
	s->seg[X86_CS] = segment(0x10, 0, UINT32_MAX, CODE32);
	set_data(s, segment(0x18, 0, UINT32_MAX, DATA32));
	s->tr = segment(0x20, 0, 0x67, TSS_BUSY);
	s->rip = b->entry;
	s->gpr[X86_RBX] = BOOT_PVH_INFO;
}

void board_boot_state(const struct board *b, unsigned index,
		      struct hv_x86_vcpu_state *s)
{
	bug_on(!b->loaded || index >= b->config.ncpus);
	reset_state(index, s);
	if (index)
		return;
	if (b->entry_mode == KERNEL_ENTRY_PVH)
		enter_pvh(b, s);
	else
		enter_64(b, s);
}
