/*
 * Address translation: page walks, two levels of TLB, and the slow half of
 * memory access.
 *
 * First level (struct soft_cpu.tlb, .xtlb): direct-mapped by page number, looked
 * up inline. A tag is the page with a context in the low 12 bits: the space
 * number (one per live PCID) and whether CPL is 3. Entries exist only for RAM
 * and only with rights that need no further check: a write tag means writable,
 * dirty in the page table, no code in the page, logged dirty. So a context
 * switch is a new number, not a flush.
 *
 * Second level (struct soft_mmu.l2): what the walker found, with the rights of
 * all levels combined, tagged by space; global pages have space 0. Rights are
 * checked against the access at every use.
 *
 * Space numbers are handed out upwards; when they run out everything is
 * flushed. INVLPG clears the page in both levels for all spaces, which is
 * allowed to invalidate too much. Fragments of large pages are remembered by a
 * small filter; INVLPG that hits it flushes all.
 *
 * SMAP: supervisor access to user pages is entered in the first level only
 * while AC is set, and those entries are dropped when it is cleared.
 */
#include <stdlib.h>
#include <string.h>

#include "bus/bus.h"
#include "hv/soft/cpuid.h"
#include "hv/soft/soft.h"

#define L2_BITS	   11
#define L2_SIZE	   (1u << L2_BITS)
#define SPACES	   2046
#define SMAP_OPEN  16
#define LARGE_BITS 4096

/* Rights in the low bits of l2.pa. */
enum {
	PG_W = 1 << 0,
	PG_U = 1 << 1,
	PG_NX = 1 << 2,
	PG_G = 1 << 3,
	PG_D = 1 << 4,
	PG_LARGE = 1 << 5,
};

#define PTE_P	 (1ull << 0)
#define PTE_RW	 (1ull << 1)
#define PTE_US	 (1ull << 2)
#define PTE_A	 (1ull << 5)
#define PTE_D	 (1ull << 6)
#define PTE_PS	 (1ull << 7)
#define PTE_G	 (1ull << 8)
#define PTE_NX	 (1ull << 63)
#define PTE_ADDR 0x000ffffffffff000ull

/* #PF error code */
#define PF_P	1u
#define PF_W	2u
#define PF_U	4u
#define PF_RSVD 8u
#define PF_I	16u
/* Not in the code: a fault there is (a code may be 0). */
#define PF_FAULT (1u << 31)

enum access { ACC_READ, ACC_WRITE, ACC_FETCH };

struct soft_mmu {
	struct {
		uint64_t tag; /* page | space */
		uint64_t pa; /* page | PG_* */
	} l2[L2_SIZE];
	uint16_t space_of[4096]; /* by PCID; 0: none yet */
	unsigned next_space, space;
	uint64_t rsvd; /* address bits a PTE must not have */
	struct soft_tlb *smap[SMAP_OPEN];
	unsigned nsmap;
	uint64_t large[LARGE_BITS / 64];
};

/* ---- contexts ---- */

static void drop_all(struct soft_cpu *cpu)
{
	struct soft_mmu *m = cpu->mmu;

	for (unsigned n = 0; n < SOFT_TLB_SIZE; n++)
		soft_tlb_drop(&cpu->tlb[n]);
	for (unsigned n = 0; n < SOFT_XTLB_SIZE; n++)
		cpu->xtlb[n].tag = SOFT_TLB_NONE;
	for (unsigned n = 0; n < L2_SIZE; n++)
		m->l2[n].tag = SOFT_TLB_NONE;
	memset(m->space_of, 0, sizeof(m->space_of));
	memset(m->large, 0, sizeof(m->large));
	m->next_space = 1;
	m->nsmap = 0;
}

static unsigned current_pcid(const struct soft_cpu *cpu)
{
	return cpu->cr4 & CR4_PCIDE ? cpu->cr3 & 0xfff : 0;
}

static void set_context(struct soft_cpu *cpu)
{
	struct soft_mmu *m = cpu->mmu;
	unsigned pcid = current_pcid(cpu);

	if (!m->space_of[pcid]) {
		if (m->next_space > SPACES)
			drop_all(cpu);
		m->space_of[pcid] = (uint16_t)m->next_space++;
	}
	m->space = m->space_of[pcid];
	cpu->tlb_ctx = m->space << 1 | (cpu->cpl == 3);
}

static void close_smap(struct soft_cpu *cpu)
{
	struct soft_mmu *m = cpu->mmu;

	while (m->nsmap)
		soft_tlb_drop(m->smap[--m->nsmap]);
}

void soft_mmu_context(struct soft_cpu *cpu)
{
	struct soft_mmu *m = cpu->mmu;

	if (unlikely(m->nsmap) && !(cpu->rflags & FL_AC))
		close_smap(cpu);
	cpu->tlb_ctx = m->space << 1 | (cpu->cpl == 3);
}

void soft_paging_changed(struct soft_cpu *cpu)
{
	struct soft_mmu *m = cpu->mmu;
	unsigned bits = soft_phys_bits(cpu);

	m->rsvd = PTE_ADDR & ~((1ull << bits) - 1);
	if (cpu->cr0 & CR0_PG && cpu->cr4 & CR4_PAE &&
	    !(cpu->efer & EFER_LMA)) {
		for (unsigned n = 0; n < 4; n++)
			cpu->pdpte[n] = soft_phys_read(
				cpu, (cpu->cr3 & 0xffffffe0) + 8 * n, 8);
	}
	set_context(cpu);
}

bool soft_pdpte_check(struct soft_cpu *cpu, uint64_t cr3)
{
	uint64_t bad = ~((1ull << soft_phys_bits(cpu)) - 1) | 0x1e6;

	for (unsigned n = 0; n < 4; n++) {
		uint64_t e = soft_phys_read(cpu, (cr3 & 0xffffffe0) + 8 * n, 8);

		if (e & PTE_P && e & bad)
			return false;
	}
	return true;
}

/* ---- invalidation ---- */

void soft_tlb_flush_all(struct soft_cpu *cpu)
{
	drop_all(cpu);
	set_context(cpu);
}

void soft_tlb_flush_pcid(struct soft_cpu *cpu, unsigned pcid)
{
	cpu->mmu->space_of[pcid & 0xfff] = 0;
	set_context(cpu);
}

void soft_tlb_flush_nonglobal(struct soft_cpu *cpu)
{
	soft_tlb_flush_pcid(cpu, current_pcid(cpu));
}

void soft_tlb_flush_all_nonglobal(struct soft_cpu *cpu)
{
	memset(cpu->mmu->space_of, 0, sizeof(cpu->mmu->space_of));
	set_context(cpu);
}

static unsigned large_hash(uint64_t la)
{
	return (unsigned)(la >> 21 ^ la >> 33) % LARGE_BITS;
}

static unsigned l2_index(uint64_t la)
{
	return (unsigned)(la >> 12 ^ la >> (12 + L2_BITS)) & (L2_SIZE - 1);
}

void soft_tlb_flush_page(struct soft_cpu *cpu, uint64_t la)
{
	struct soft_mmu *m = cpu->mmu;
	unsigned h = large_hash(la);

	if (m->large[h / 64] >> h % 64 & 1) {
		soft_tlb_flush_all(cpu);
		return;
	}
	soft_tlb_drop(&cpu->tlb[(la >> 12) & (SOFT_TLB_SIZE - 1)]);
	cpu->xtlb[(la >> 12) & (SOFT_XTLB_SIZE - 1)].tag = SOFT_TLB_NONE;
	m->l2[l2_index(la)].tag = SOFT_TLB_NONE;
}

void soft_tlb_flush_page_pcid(struct soft_cpu *cpu, uint64_t la, unsigned pcid)
{
	(void)pcid; /* all of them */
	soft_tlb_flush_page(cpu, la);
}

void soft_mmu_protect(struct soft_cpu *cpu, uint64_t pa)
{
	pa &= SOFT_PAGE_MASK;
	for (unsigned n = 0; n < SOFT_TLB_SIZE; n++)
		if (cpu->tlb[n].paddr == pa)
			soft_tlb_protect(&cpu->tlb[n]);
}

bool soft_mmu_writes(const struct soft_cpu *cpu, uint64_t pa)
{
	for (unsigned n = 0; n < SOFT_TLB_SIZE; n++) {
		const struct soft_tlb *t = &cpu->tlb[n];

		if (__atomic_load_n(&t->wtag, __ATOMIC_SEQ_CST) !=
			    SOFT_TLB_NONE &&
		    __atomic_load_n(&t->paddr, __ATOMIC_RELAXED) == pa)
			return true;
	}
	return false;
}

void soft_mmu_protect_all(struct soft_cpu *cpu)
{
	for (unsigned n = 0; n < SOFT_TLB_SIZE; n++)
		soft_tlb_protect(&cpu->tlb[n]);
}

/* ---- writes that others must hear of ---- */

static void mark_dirty(struct soft_ram *r, uint64_t pa)
{
	uint64_t page = (pa - r->base) >> 12;
	unsigned long *log = __atomic_load_n(&r->dirty, __ATOMIC_ACQUIRE);

	if (log)
		__atomic_fetch_or(&log[page / 64], 1ul << page % 64,
				  __ATOMIC_RELAXED);
}

/* [pa, pa + len) of @r, in one page, was written. */
static void ram_written(struct soft_cpu *cpu, struct soft_ram *r, uint64_t pa,
			unsigned len)
{
	mark_dirty(r, pa);
	/* Pairs with the fence in block.c's decoder: it marks, then reads; we
	 * have written, and look for marks. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (__atomic_load_n(&r->code[(pa - r->base) >> 12], __ATOMIC_RELAXED))
		soft_code_stored(cpu, pa, len);
}

/* ---- the walk ---- */

struct found {
	uint64_t pa; /* of the 4 KiB page */
	unsigned rights; /* PG_* */
};

/* The entry at @pa of a paging structure, or NULL. */
static void *pte_host(struct soft_cpu *cpu, uint64_t pa, struct soft_ram **r)
{
	*r = soft_ram_at(cpu->vm, pa);
	return *r ? (*r)->host + (pa - (*r)->base) : NULL;
}

static uint32_t check(struct soft_cpu *cpu, unsigned rights, enum access acc,
		      enum soft_access how)
{
	bool user = how == SOFT_USER || (how == SOFT_DATA && cpu->cpl == 3);
	uint32_t err = PF_FAULT | PF_P | (acc == ACC_WRITE ? PF_W : 0) |
		       (user ? PF_U : 0);
	bool nx = rights & PG_NX && cpu->efer & EFER_NXE;

	if (acc == ACC_FETCH && ((cpu->efer & EFER_NXE && cpu->cr4 & CR4_PAE) ||
				 cpu->cr4 & CR4_SMEP))
		err |= PF_I;
	if (user) {
		if (!(rights & PG_U) ||
		    (acc == ACC_WRITE && !(rights & PG_W)) ||
		    (acc == ACC_FETCH && nx))
			return err;
		return 0;
	}
	if (acc == ACC_FETCH)
		return nx || (rights & PG_U && cpu->cr4 & CR4_SMEP) ? err : 0;
	if (acc == ACC_WRITE && !(rights & PG_W) && cpu->cr0 & CR0_WP)
		return err;
	if (rights & PG_U && cpu->cr4 & CR4_SMAP &&
	    (how == SOFT_SYSTEM || !(cpu->rflags & FL_AC)))
		return err;
	return 0;
}

/* The error code when nothing is present, or reserved bits are set. */
static uint32_t miss(struct soft_cpu *cpu, enum access acc,
		     enum soft_access how, uint32_t extra)
{
	bool user = how == SOFT_USER || (how == SOFT_DATA && cpu->cpl == 3);
	bool i = acc == ACC_FETCH &&
		 ((cpu->efer & EFER_NXE && cpu->cr4 & CR4_PAE) ||
		  cpu->cr4 & CR4_SMEP);

	return PF_FAULT | extra | (acc == ACC_WRITE ? PF_W : 0) |
	       (user ? PF_U : 0) | (i ? PF_I : 0);
}

/* One level's entry and where it was read from. */
struct level {
	struct soft_ram *ram;
	uint64_t pa;
	uint64_t *host;
	uint64_t val;
};

/*
 * Walk the tables of long mode and PAE. 0, or PF_FAULT and the #PF error code.
 * @debug: no rights, no A/D.
 */
static uint32_t walk_pae(struct soft_cpu *cpu, uint64_t la, enum access acc,
			 enum soft_access how, bool debug, struct found *f)
{
	struct level lv[4];
	bool lma = cpu->efer & EFER_LMA;
	uint64_t rsvd = cpu->mmu->rsvd, at, size_mask;
	unsigned rights, n, depth, shift, leaf;
	uint32_t err;

	if (!(cpu->efer & EFER_NXE))
		rsvd |= PTE_NX;
again:
	rights = PG_W | PG_U;
	depth = lma ? 4 : 2;
	shift = lma ? 39 : 21;
	if (lma) {
		at = cpu->cr3 & PTE_ADDR;
	} else {
		at = cpu->pdpte[la >> 30 & 3];
		if (!(at & PTE_P))
			return miss(cpu, acc, how, 0);
		at &= PTE_ADDR;
	}
	for (n = 0;; n++, shift -= 9) {
		lv[n].pa = at + (la >> shift & 511) * 8;
		lv[n].host = pte_host(cpu, lv[n].pa, &lv[n].ram);
		lv[n].val = lv[n].host ? __atomic_load_n(lv[n].host,
							 __ATOMIC_RELAXED)
				       : ~0ull;
		if (!(lv[n].val & PTE_P))
			return miss(cpu, acc, how, 0);
		if (lv[n].val & rsvd)
			return miss(cpu, acc, how, PF_P | PF_RSVD);
		if (!(lv[n].val & PTE_RW))
			rights &= ~(unsigned)PG_W;
		if (!(lv[n].val & PTE_US))
			rights &= ~(unsigned)PG_U;
		if (lv[n].val & PTE_NX)
			rights |= PG_NX;
		if (n == depth - 1)
			break;
		if (lv[n].val & PTE_PS) {
			if (shift > 30)
				return miss(cpu, acc, how, PF_P | PF_RSVD);
			break;
		}
		at = lv[n].val & PTE_ADDR;
	}
	leaf = n;
	size_mask = (1ull << shift) - 1;
	if (shift > 12) {
		/* Bit 12 is PAT; the rest below the frame must be 0. */
		if (lv[leaf].val & size_mask & PTE_ADDR & ~(1ull << 12))
			return miss(cpu, acc, how, PF_P | PF_RSVD);
		rights |= PG_LARGE;
	}
	f->pa = ((lv[leaf].val & PTE_ADDR & ~size_mask) | (la & size_mask)) &
		SOFT_PAGE_MASK;
	if (lv[leaf].val & PTE_G && cpu->cr4 & CR4_PGE)
		rights |= PG_G;
	f->rights = rights;
	if (debug)
		return 0;
	err = check(cpu, rights, acc, how);
	if (err)
		return err;
	for (n = 0; n <= leaf; n++) {
		uint64_t want =
			PTE_A | (n == leaf && acc == ACC_WRITE ? PTE_D : 0);

		/* In ROM they stay as they are. */
		if ((lv[n].val & want) == want || lv[n].ram->readonly)
			continue;
		if (!__atomic_compare_exchange_n(
			    lv[n].host, &lv[n].val, lv[n].val | want, false,
			    __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
			goto again;
		lv[n].val |= want;
		ram_written(cpu, lv[n].ram, lv[n].pa, 8);
	}
	if (lv[leaf].val & PTE_D)
		f->rights |= PG_D;
	return 0;
}

/* 32-bit paging without PAE: two levels, 4 MiB pages by CR4.PSE. */
static uint32_t walk_32(struct soft_cpu *cpu, uint64_t la, enum access acc,
			enum soft_access how, bool debug, struct found *f)
{
	uint32_t *host[2], val[2] = { 0, 0 }, err;
	struct soft_ram *ram[2];
	uint64_t pa[2], at;
	unsigned rights, n, leaf;

again:
	rights = PG_W | PG_U;
	at = cpu->cr3 & 0xfffff000;
	for (n = 0;; n++) {
		pa[n] = at + (la >> (n ? 12 : 22) & 1023) * 4;
		host[n] = pte_host(cpu, pa[n], &ram[n]);
		val[n] = host[n] ? __atomic_load_n(host[n], __ATOMIC_RELAXED)
				 : 0;
		if (!(val[n] & PTE_P))
			return miss(cpu, acc, how, 0);
		if (!(val[n] & PTE_RW))
			rights &= ~(unsigned)PG_W;
		if (!(val[n] & PTE_US))
			rights &= ~(unsigned)PG_U;
		if (n == 1 || (val[n] & PTE_PS && cpu->cr4 & CR4_PSE))
			break;
		at = val[n] & 0xfffff000;
	}
	leaf = n;
	if (leaf == 0) {
		/* PSE-36: bits 20-13 are address bits 39-32; 21 is reserved. */
		if (val[0] & 1u << 21)
			return miss(cpu, acc, how, PF_P | PF_RSVD);
		f->pa = ((uint64_t)(val[0] >> 13 & 0xff) << 32) |
			(val[0] & 0xffc00000) | (la & 0x3ff000);
		rights |= PG_LARGE;
	} else {
		f->pa = val[1] & 0xfffff000;
	}
	if (val[leaf] & PTE_G && cpu->cr4 & CR4_PGE)
		rights |= PG_G;
	f->rights = rights;
	if (debug)
		return 0;
	err = check(cpu, rights, acc, how);
	if (err)
		return err;
	for (n = 0; n <= leaf; n++) {
		uint32_t want =
			(uint32_t)(PTE_A |
				   (n == leaf && acc == ACC_WRITE ? PTE_D : 0));

		if ((val[n] & want) == want || ram[n]->readonly)
			continue;
		if (!__atomic_compare_exchange_n(
			    host[n], &val[n], val[n] | want, false,
			    __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
			goto again;
		val[n] |= want;
		ram_written(cpu, ram[n], pa[n], 4);
	}
	if (val[leaf] & PTE_D)
		f->rights |= PG_D;
	return 0;
}

/* PUSH, POP, CALL of an operand: is @la that operand, or the stack? */
static bool is_stack(struct soft_cpu *cpu, const struct insn *i, uint64_t la)
{
	if (i->map || (i->opcode != 0xff && i->opcode != 0x8f) ||
	    i->seg == X86_SS)
		return i->seg == X86_SS;
	if (!(i->flags & INSN_MEM))
		return true;
	return la - cpu->ea_base[i->seg] - soft_lea(cpu, i) > 8;
}

static void noncanonical(struct soft_cpu *cpu, uint64_t la)
	__attribute__((noreturn, cold));
static void noncanonical(struct soft_cpu *cpu, uint64_t la)
{
	const struct insn *i = cpu->cur;

	soft_fault(cpu, i && is_stack(cpu, i, la) ? X86_SS_FAULT : X86_GP, 0);
}

/* An access that leaves the canonical addresses: #GP before any #PF. */
static inline void check_end(struct soft_cpu *cpu, uint64_t la, unsigned size)
{
	if (unlikely(!soft_canonical(la + size - 1)) && soft_canonical(la) &&
	    cpu->efer & EFER_LMA)
		noncanonical(cpu, la);
}

/* The physical page of @la, with rights checked, or a fault. */
static struct found translate(struct soft_cpu *cpu, uint64_t la,
			      enum access acc, enum soft_access how)
{
	struct soft_mmu *m = cpu->mmu;
	uint64_t page = la & SOFT_PAGE_MASK;
	struct found f;
	unsigned x;
	uint32_t err;

	if (!(cpu->cr0 & CR0_PG))
		return (struct found){ page, PG_W | PG_U | PG_D };
	if (cpu->efer & EFER_LMA) {
		if (unlikely(!soft_canonical(la)))
			noncanonical(cpu, la);
	} else {
		la = (uint32_t)la;
		page = (uint32_t)page;
	}
	x = l2_index(la);
	if (m->l2[x].tag == (page | m->space) || m->l2[x].tag == page) {
		f.pa = m->l2[x].pa & SOFT_PAGE_MASK;
		f.rights = m->l2[x].pa & 0xfff;
		if (!check(cpu, f.rights, acc, how) &&
		    (acc != ACC_WRITE || f.rights & PG_D))
			return f;
	}
	if (cpu->cr4 & CR4_PAE)
		err = walk_pae(cpu, la, acc, how, false, &f);
	else
		err = walk_32(cpu, la, acc, how, false, &f);
	if (unlikely(err)) {
		/* A fault invalidates what the TLB had for the page. */
		m->l2[x].tag = SOFT_TLB_NONE;
		soft_page_fault(cpu, la, err & ~PF_FAULT);
	}
	m->l2[x].tag = page | (f.rights & PG_G ? 0 : m->space);
	m->l2[x].pa = f.pa | f.rights;
	if (f.rights & PG_LARGE) {
		unsigned h = large_hash(la);

		m->large[h / 64] |= 1ull << h % 64;
	}
	return f;
}

bool soft_translate(struct soft_cpu *cpu, uint64_t la, uint64_t *pa)
{
	struct found f;
	uint32_t err;

	if (!(cpu->cr0 & CR0_PG)) {
		*pa = la;
		return true;
	}
	if (cpu->efer & EFER_LMA && !soft_canonical(la))
		return false;
	if (cpu->cr4 & CR4_PAE)
		err = walk_pae(cpu, la, ACC_READ, SOFT_SYSTEM, true, &f);
	else
		err = walk_32(cpu, (uint32_t)la, ACC_READ, SOFT_SYSTEM, true,
			      &f);
	*pa = f.pa | (la & 0xfff);
	return !err;
}

uint64_t soft_fetch_pa(struct soft_cpu *cpu, uint64_t la)
{
	struct soft_xtlb *x = &cpu->xtlb[(la >> 12) & (SOFT_XTLB_SIZE - 1)];
	uint64_t tag = (la & SOFT_PAGE_MASK) | cpu->tlb_ctx;
	struct found f;

	if (x->tag != tag) {
		f = translate(cpu, la, ACC_FETCH, SOFT_DATA);
		soft_code_entered(cpu, f.pa);
		x->tag = tag;
		x->paddr = f.pa;
	}
	return x->paddr | (la & 0xfff);
}

/* ---- physical access ---- */

/* Any size; 1, 2, 4, 8 by one access. */
static inline uint64_t ram_load(const void *p, unsigned size)
{
	uint64_t v = 0;

	switch (size) {
	case 1:
		return racy_ld8(p);
	case 2:
		return racy_ld16(p);
	case 4:
		return racy_ld32(p);
	case 8:
		return racy_ld64(p);
	}
	racy_copy(&v, p, size);
	return v;
}

static inline void ram_store(void *p, unsigned size, uint64_t v)
{
	switch (size) {
	case 1:
		racy_st8(p, (uint8_t)v);
		break;
	case 2:
		racy_st16(p, (uint16_t)v);
		break;
	case 4:
		racy_st32(p, (uint32_t)v);
		break;
	case 8:
		racy_st64(p, v);
		break;
	default:
		racy_copy(p, &v, size);
	}
}

void soft_wait_begin(struct soft_cpu *cpu)
{
	__atomic_store_n(&cpu->running, false, __ATOMIC_SEQ_CST);
}

/*
 * Who did not wait for us counts on our looking now, before we write again: the
 * store of `running` here and the load of `events` pair with the `or` into
 * `events` and the load of `running` there, all seq_cst.
 */
void soft_wait_end(struct soft_cpu *cpu)
{
	__atomic_store_n(&cpu->running, true, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&cpu->events, __ATOMIC_SEQ_CST) &
	    (SOFT_EV_TLB | SOFT_EV_CODE))
		soft_mmu_protect_all(cpu);
}

uint64_t soft_bus_read(struct soft_cpu *cpu, enum bus_space space,
		       uint64_t addr, unsigned len)
{
	uint64_t v;

	soft_wait_begin(cpu);
	bus_read(cpu->hv.vm->config.bus, space, addr, len, &v);
	soft_wait_end(cpu);
	return len < 8 ? v & ((1ull << 8 * len) - 1) : v;
}

void soft_bus_write(struct soft_cpu *cpu, enum bus_space space, uint64_t addr,
		    unsigned len, uint64_t val)
{
	if (len < 8)
		val &= (1ull << 8 * len) - 1;
	soft_wait_begin(cpu);
	bus_write(cpu->hv.vm->config.bus, space, addr, len, val);
	soft_wait_end(cpu);
}

/* [pa, pa + len) is in one page. */
static uint64_t phys_load(struct soft_cpu *cpu, uint64_t pa, unsigned len)
{
	struct soft_ram *r = soft_ram_at(cpu->vm, pa);
	uint64_t v = 0;

	if (likely(r))
		return ram_load(r->host + (pa - r->base), len);
	soft_count(&cpu->counters.mmio, 1);
	if (lapic_mmio_hit(cpu->lapic, pa))
		return lapic_mmio_read(cpu->lapic, pa & 0xfff, len);
	if (pa - IRQCHIP_IOAPIC_BASE < IRQCHIP_IOAPIC_SIZE)
		return irqchip_ioapic_read(cpu->vm->irqchip,
					   pa - IRQCHIP_IOAPIC_BASE, len);
	if (len & (len - 1)) { /* a piece of a crossing access */
		for (unsigned n = 0; n < len; n++)
			v |= phys_load(cpu, pa + n, 1) << 8 * n;
		return v;
	}
	return soft_bus_read(cpu, BUS_MMIO, pa, len);
}

static void phys_store(struct soft_cpu *cpu, uint64_t pa, unsigned len,
		       uint64_t v)
{
	struct soft_ram *r = soft_ram_at(cpu->vm, pa);

	if (likely(r)) {
		if (r->readonly)
			return;
		ram_store(r->host + (pa - r->base), len, v);
		ram_written(cpu, r, pa, len);
		return;
	}
	soft_count(&cpu->counters.mmio, 1);
	if (lapic_mmio_hit(cpu->lapic, pa)) {
		lapic_mmio_write(cpu->lapic, pa & 0xfff, len, v);
		/* EOI, TPR: something may be deliverable now. */
		__atomic_fetch_or(&cpu->events, SOFT_EV_IRQ, __ATOMIC_RELAXED);
	} else if (pa - IRQCHIP_IOAPIC_BASE < IRQCHIP_IOAPIC_SIZE) {
		irqchip_ioapic_write(cpu->vm->irqchip, pa - IRQCHIP_IOAPIC_BASE,
				     len, v);
	} else if (len & (len - 1)) {
		for (unsigned n = 0; n < len; n++)
			phys_store(cpu, pa + n, 1, v >> 8 * n & 0xff);
	} else {
		soft_bus_write(cpu, BUS_MMIO, pa, len, v);
	}
}

uint64_t soft_phys_read(struct soft_cpu *cpu, uint64_t pa, unsigned size)
{
	unsigned first = 0x1000 - (unsigned)(pa & 0xfff);

	if (first >= size)
		return phys_load(cpu, pa, size);
	return phys_load(cpu, pa, first) |
	       phys_load(cpu, pa + first, size - first) << 8 * first;
}

void soft_phys_write(struct soft_cpu *cpu, uint64_t pa, unsigned size,
		     uint64_t val)
{
	unsigned first = 0x1000 - (unsigned)(pa & 0xfff);

	if (first >= size) {
		phys_store(cpu, pa, size, val);
		return;
	}
	phys_store(cpu, pa, first, val);
	phys_store(cpu, pa + first, size - first, val >> 8 * first);
}

/* ---- filling the first level ---- */

static void fill(struct soft_cpu *cpu, uint64_t la, const struct found *f,
		 enum access acc)
{
	struct soft_tlb *t = &cpu->tlb[(la >> 12) & (SOFT_TLB_SIZE - 1)];
	struct soft_ram *r = soft_ram_at(cpu->vm, f->pa);
	uint64_t tag = (la & SOFT_PAGE_MASK) | cpu->tlb_ctx;

	if (!r || cpu->mode & MODE_STEP)
		return;
	if (cpu->cpl != 3 && f->rights & PG_U && cpu->cr0 & CR0_PG &&
	    cpu->cr4 & CR4_SMAP) {
		struct soft_mmu *m = cpu->mmu;

		if (m->nsmap == SMAP_OPEN)
			close_smap(cpu);
		m->smap[m->nsmap++] = t;
	}
	/* Never a write tag with another page's address: soft_mmu_writes(). */
	if (t->rtag != tag || t->paddr != f->pa)
		soft_tlb_protect(t);
	t->rtag = tag;
	t->addend =
		(uint64_t)(r->host + (f->pa - r->base)) - (la & SOFT_PAGE_MASK);
	__atomic_store_n(&t->paddr, f->pa, __ATOMIC_RELAXED);
	if (acc == ACC_WRITE && !r->readonly) {
		mark_dirty(r, f->pa);
		/* As in phys_store(): the entry first, then the marks. */
		__atomic_store_n(&t->wtag, tag, __ATOMIC_SEQ_CST);
		if (__atomic_load_n(&r->code[(f->pa - r->base) >> 12],
				    __ATOMIC_SEQ_CST))
			soft_tlb_protect(t);
	}
}

/* Debug registers: note a data breakpoint that [la, la + len) hits. */
static void watch(struct soft_cpu *cpu, uint64_t la, unsigned len,
		  enum access acc)
{
	uint64_t dr7 = cpu->debug.hardware ? cpu->debug.dr7 : cpu->dr7;
	const uint64_t *dr = cpu->debug.hardware ? cpu->debug.dr : cpu->dr;

	for (unsigned n = 0; n < 4; n++) {
		static const uint8_t size_of[4] = { 1, 2, 8, 4 };
		unsigned rw = dr7 >> (16 + 4 * n) & 3;
		unsigned size = size_of[dr7 >> (18 + 4 * n) & 3];
		uint64_t at = dr[n] & ~(uint64_t)(size - 1);

		if (!(dr7 >> 2 * n & 3) || rw == 0 || rw == 2)
			continue;
		if (rw == 1 && acc != ACC_WRITE)
			continue;
		if (la < at + size && at < la + len)
			cpu->watch_hits |= 1u << n;
	}
}

static uint64_t read_any(struct soft_cpu *cpu, uint64_t la, unsigned size,
			 enum soft_access how)
{
	unsigned first = 0x1000 - (unsigned)(la & 0xfff);
	struct found f;
	uint64_t pa, pa2;

	if (unlikely(cpu->mode & MODE_STEP))
		watch(cpu, la, size, ACC_READ);
	check_end(cpu, la, size);
	f = translate(cpu, la, ACC_READ, how);
	pa = f.pa | (la & 0xfff);
	if (how == SOFT_DATA)
		fill(cpu, la, &f, ACC_READ);
	if (likely(first >= size))
		return phys_load(cpu, pa, size);
	pa2 = translate(cpu, la + first, ACC_READ, how).pa;
	return phys_load(cpu, pa, first) | phys_load(cpu, pa2, size - first)
						   << 8 * first;
}

static void write_any(struct soft_cpu *cpu, uint64_t la, unsigned size,
		      uint64_t v, enum soft_access how)
{
	unsigned first = 0x1000 - (unsigned)(la & 0xfff);
	struct found f;
	uint64_t pa, pa2;

	if (unlikely(cpu->mode & MODE_STEP))
		watch(cpu, la, size, ACC_WRITE);
	check_end(cpu, la, size);
	f = translate(cpu, la, ACC_WRITE, how);
	pa = f.pa | (la & 0xfff);
	if (how == SOFT_DATA)
		fill(cpu, la, &f, ACC_WRITE);
	if (likely(first >= size)) {
		phys_store(cpu, pa, size, v);
		return;
	}
	pa2 = translate(cpu, la + first, ACC_WRITE, how).pa;
	phys_store(cpu, pa, first, v);
	phys_store(cpu, pa2, size - first, v >> 8 * first);
}

uint64_t soft_read(struct soft_cpu *cpu, uint64_t la, unsigned size,
		   enum soft_access how)
{
	struct soft_tlb *t = &cpu->tlb[(la >> 12) & (SOFT_TLB_SIZE - 1)];

	if (how == SOFT_DATA &&
	    t->rtag == (((la + size - 1) & SOFT_PAGE_MASK) | cpu->tlb_ctx))
		return ram_load((const void *)(la + t->addend), size);
	return read_any(cpu, la, size, how);
}

void soft_write(struct soft_cpu *cpu, uint64_t la, unsigned size, uint64_t val,
		enum soft_access how)
{
	void *p = how == SOFT_DATA ? soft_wptr(cpu, la, size) : NULL;

	if (p)
		ram_store(p, size, val);
	else
		write_any(cpu, la, size, val, how);
}

void soft_read_bytes(struct soft_cpu *cpu, uint64_t la, void *buf, unsigned len,
		     enum soft_access how)
{
	struct soft_tlb *t = &cpu->tlb[(la >> 12) & (SOFT_TLB_SIZE - 1)];
	uint8_t *out = buf;

	check_end(cpu, la, len);
	if (how == SOFT_DATA &&
	    t->rtag == (((la + len - 1) & SOFT_PAGE_MASK) | cpu->tlb_ctx)) {
		racy_copy(buf, (const void *)(la + t->addend), len);
		return;
	}
	while (len) {
		unsigned n = len >= 8 ? 8 : len >= 4 ? 4 : len >= 2 ? 2 : 1;
		uint64_t v = soft_read(cpu, la, n, how);

		memcpy(out, &v, n);
		out += n;
		la += n;
		len -= n;
	}
}

void soft_write_bytes(struct soft_cpu *cpu, uint64_t la, const void *buf,
		      unsigned len, enum soft_access how)
{
	const uint8_t *in = buf;
	void *p = how == SOFT_DATA ? soft_wptr(cpu, la, len) : NULL;

	if (p) {
		racy_copy(p, buf, len);
		return;
	}
	soft_probe_write(cpu, la, len, how);
	while (len) {
		unsigned n = len >= 8 ? 8 : len >= 4 ? 4 : len >= 2 ? 2 : 1;
		uint64_t v = 0;

		memcpy(&v, in, n);
		soft_write(cpu, la, n, v, how);
		in += n;
		la += n;
		len -= n;
	}
}

void soft_probe_write(struct soft_cpu *cpu, uint64_t la, unsigned len,
		      enum soft_access how)
{
	check_end(cpu, la, len);
	translate(cpu, la, ACC_WRITE, how);
	if (((la + len - 1) ^ la) & SOFT_PAGE_MASK)
		translate(cpu, (la + len - 1) & SOFT_PAGE_MASK, ACC_WRITE, how);
}

/* ---- what handlers call on a miss ---- */

uint64_t soft_ld_slow(struct soft_cpu *cpu, struct insn *i, uint64_t la,
		      unsigned size)
{
	soft_at(cpu, i);
	return read_any(cpu, la, size, SOFT_DATA);
}

void soft_st_slow(struct soft_cpu *cpu, struct insn *i, uint64_t la,
		  uint64_t val, unsigned size)
{
	soft_at(cpu, i);
	write_any(cpu, la, size, val, SOFT_DATA);
}

void *soft_fill_write(struct soft_cpu *cpu, struct insn *i, uint64_t la,
		      unsigned size)
{
	struct soft_ram *r;
	struct found f;

	if (((la + size - 1) ^ la) & SOFT_PAGE_MASK)
		return NULL;
	soft_at(cpu, i);
	if (unlikely(cpu->mode & MODE_STEP))
		watch(cpu, la, size, ACC_WRITE);
	f = translate(cpu, la, ACC_WRITE, SOFT_DATA);
	fill(cpu, la, &f, ACC_WRITE);
	/* With the entry in place nobody decodes the page before our block's
	 * end; without it there is code, or it is not RAM. */
	if (likely(!(cpu->mode & MODE_STEP)))
		return soft_wptr(cpu, la, size);
	r = soft_ram_at(cpu->vm, f.pa);
	if (!r || r->readonly ||
	    __atomic_load_n(&r->code[(f.pa - r->base) >> 12], __ATOMIC_RELAXED))
		return NULL;
	mark_dirty(r, f.pa);
	return r->host + (f.pa - r->base) + (la & 0xfff);
}

void soft_rmw_begin(struct soft_cpu *cpu, struct insn *i, uint64_t la,
		    unsigned size, bool lock)
{
	unsigned first = 0x1000 - (unsigned)(la & 0xfff);
	struct found f;

	soft_at(cpu, i);
	if (unlikely(cpu->mode & MODE_STEP))
		watch(cpu, la, size, ACC_WRITE);
	check_end(cpu, la, size);
	f = translate(cpu, la, ACC_WRITE, SOFT_DATA);
	fill(cpu, la, &f, ACC_WRITE);
	cpu->rmw.pa[0] = f.pa | (la & 0xfff);
	cpu->rmw.len[0] = first < size ? first : size;
	cpu->rmw.len[1] = size - cpu->rmw.len[0];
	if (cpu->rmw.len[1])
		cpu->rmw.pa[1] =
			translate(cpu, la + first, ACC_WRITE, SOFT_DATA).pa;
	cpu->rmw.locked = lock;
	if (lock && pthread_mutex_trylock(&cpu->vm->split)) {
		/* Its owner may be in a device. */
		soft_wait_begin(cpu);
		pthread_mutex_lock(&cpu->vm->split);
		soft_wait_end(cpu);
	}
}

uint64_t soft_rmw_load(struct soft_cpu *cpu)
{
	uint64_t v = phys_load(cpu, cpu->rmw.pa[0], cpu->rmw.len[0]);

	if (cpu->rmw.len[1])
		v |= phys_load(cpu, cpu->rmw.pa[1], cpu->rmw.len[1])
		     << 8 * cpu->rmw.len[0];
	return v;
}

void soft_rmw_store(struct soft_cpu *cpu, uint64_t v)
{
	phys_store(cpu, cpu->rmw.pa[0], cpu->rmw.len[0], v);
	if (cpu->rmw.len[1])
		phys_store(cpu, cpu->rmw.pa[1], cpu->rmw.len[1],
			   v >> 8 * cpu->rmw.len[0]);
	if (cpu->rmw.locked)
		pthread_mutex_unlock(&cpu->vm->split);
	cpu->rmw.locked = false;
}

/* ---- segmentation ---- */

uint64_t soft_seg_la(struct soft_cpu *cpu, unsigned seg, uint64_t off,
		     unsigned len, bool write)
{
	const struct soft_seg *s = &cpu->seg[seg];
	unsigned vec = seg == X86_SS ? X86_SS_FAULT : X86_GP;
	uint64_t last = off + len - 1;

	if (cpu->mode & MODE_64)
		return off + cpu->ea_base[seg];
	if (cpu->cr0 & CR0_PE) {
		unsigned type = s->attr & SEG_TYPE;

		if (s->attr & X86_SEG_UNUSABLE)
			soft_fault(cpu, vec, 0);
		if (!(cpu->rflags & FL_VM)) {
			bool code = type & SEG_CODE;

			if (write ? code || !(type & SEG_WRITE)
				  : code && !(type & SEG_WRITE))
				soft_fault(cpu, vec, 0);
		}
		if ((type & (SEG_CODE | SEG_EXPDOWN)) == SEG_EXPDOWN) {
			uint64_t top = s->attr & SEG_DB ? 0xffffffff : 0xffff;

			if (off <= s->limit || last > top)
				soft_fault(cpu, vec, 0);
			return (uint32_t)(off + s->base);
		}
	}
	if (unlikely(last > s->limit))
		soft_fault(cpu, vec, 0);
	return (uint32_t)(off + s->base);
}

uint64_t soft_lea(const struct soft_cpu *cpu, const struct insn *i)
{
	uint64_t a = cpu->gpr[i->base] + (cpu->gpr[i->index] << i->scale) +
		     (uint64_t)i->disp;

	return i->asize == 8 ? a : i->asize == 4 ? (uint32_t)a : (uint16_t)a;
}

uint64_t soft_ea(struct soft_cpu *cpu, const struct insn *i, unsigned len,
		 bool write)
{
	return soft_seg_la(cpu, i->seg, soft_lea(cpu, i), len, write);
}

/* For INSN_SLOW_EA: mask, then segment. */
uint64_t soft_ea_slow(struct soft_cpu *cpu, struct insn *i, uint64_t a,
		      unsigned size)
{
	bool write = size & SOFT_EA_W;

	a = i->asize == 8 ? a : i->asize == 4 ? (uint32_t)a : (uint16_t)a;
	if (cpu->mode & MODE_64)
		return a + cpu->ea_base[i->seg];
	soft_at(cpu, i);
	return soft_seg_la(cpu, i->seg, a, size & ~SOFT_EA_W, write);
}

#if !SOFT_PLAIN
/*
 * The stubs of mem.h: all registers but RAX are the handler's, and the stack
 * may be aligned as it likes.
 */
#define STUB(fn)                                                             \
	__asm__(".text\n.type " #fn "_stub, @function\n"                     \
		".globl " #fn "_stub\n.hidden " #fn "_stub\n" #fn "_stub:\n" \
		"	push %rbp\n	mov %rsp, %rbp\n"                              \
		"	push %rdi\n	push %rsi\n	push %rdx\n"                       \
		"	push %rcx\n	push %r8\n	push %r9\n"                         \
		"	push %r10\n	push %r11\n"                                   \
		"	and $-16, %rsp\n	call " #fn "\n"              \
		"	lea -64(%rbp), %rsp\n"                                     \
		"	pop %r11\n	pop %r10\n	pop %r9\n"                           \
		"	pop %r8\n	pop %rcx\n	pop %rdx\n"                           \
		"	pop %rsi\n	pop %rdi\n	pop %rbp\n	ret\n"                    \
		".size " #fn "_stub, . - " #fn "_stub\n")
STUB(soft_ld_slow);
STUB(soft_st_slow);
STUB(soft_ea_slow);
#endif

int soft_mmu_init(struct soft_cpu *cpu)
{
	cpu->mmu = calloc(1, sizeof(*cpu->mmu));
	if (!cpu->mmu)
		return -1;
	drop_all(cpu);
	set_context(cpu);
	return 0;
}

void soft_mmu_fini(struct soft_cpu *cpu)
{
	free(cpu->mmu);
	cpu->mmu = NULL;
}
