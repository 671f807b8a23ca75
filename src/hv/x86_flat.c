#include "hv/x86_flat.h"

#include "base/bytes.h"

#define ATTR_CODE64 0xa09b /* G L P S, execute/read, accessed */
#define ATTR_DATA   0xc093 /* G B P S, read/write, accessed */
#define ATTR_TSS64  0x008b /* P, busy TSS */

const uint64_t x86_flat_gdt[X86_FLAT_GDT_ENTRIES] = {
	[X86_FLAT_CODE / 8] = 0x00af9b000000ffff,
	[X86_FLAT_DATA / 8] = 0x00cf93000000ffff,
	[X86_FLAT_USER_DATA / 8] = 0x00cff3000000ffff,
	[X86_FLAT_USER_CODE / 8] = 0x00affb000000ffff,
};

void x86_flat_enter(struct hv_x86_vcpu_state *s, uint64_t cr3, uint64_t rip,
		    uint64_t rsp)
{
	const struct hv_x86_segment data = { .limit = 0xffffffff,
					     .selector = X86_FLAT_DATA,
					     .attr = ATTR_DATA };

	for (int i = 0; i < X86_SEG_COUNT; i++)
		s->seg[i] = data;
	s->seg[X86_CS].selector = X86_FLAT_CODE;
	s->seg[X86_CS].attr = ATTR_CODE64;
	s->tr = (struct hv_x86_segment){ .limit = 0xffff, .attr = ATTR_TSS64 };
	s->ldt = (struct hv_x86_segment){ .attr = X86_SEG_UNUSABLE };
	s->gdt.limit = sizeof(x86_flat_gdt) - 1;
	s->cr0 = 0x80010033; /* PG WP NE ET MP PE */
	s->cr3 = cr3;
	s->cr4 = 0x620; /* PAE OSFXSR OSXMMEXCPT */
	s->efer = 0x500; /* LME LMA */
	s->rip = rip;
	s->gpr[X86_RSP] = rsp;
	s->rflags = 2;
}

void x86_flat_user(struct hv_x86_vcpu_state *s)
{
	for (int i = 0; i < X86_SEG_COUNT; i++) {
		s->seg[i].attr |= 3 << 5;
		s->seg[i].selector = X86_FLAT_USER_DATA;
	}
	s->seg[X86_CS].selector = X86_FLAT_USER_CODE;
	s->rflags |= 3 << 12; /* IOPL */
}

void x86_flat_gate(void *gate, uint64_t handler)
{
	uint8_t *g = gate;

	put_le16(g, (uint16_t)handler);
	put_le16(g + 2, X86_FLAT_CODE);
	put_le16(g + 4, 0x8e00);
	put_le16(g + 6, (uint16_t)(handler >> 16));
	put_le32(g + 8, (uint32_t)(handler >> 32));
	put_le32(g + 12, 0);
}
