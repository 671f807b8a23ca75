/*
 * Blocks of decoded instructions: the cache of one vCPU, entering and leaving.
 *
 * A block is found by the *physical* address of its first byte and the mode it
 * was decoded for, so aliases share it and a page-table change needs no flush.
 * It ends with a branch, before a page end, or after SOFT_BLOCK_MAX; the
 * terminator is followed by one spare insn (the slot) that carries the number
 * of instructions in .off and the fall-through successor.
 *
 * Chaining: terminator and slot keep the successor block (.aux) with the tag it
 * had (.disp). A block that dies loses its tag, so a stale link is seen by one
 * compare and nothing has to be unlinked. Links within a page need no more,
 * because the page's mapping cannot change while the block runs; a link to
 * another page also asks the execute TLB where that page is now.
 *
 * Stores. Each physical page has a word with one bit per 64 bytes that hold
 * decoded code of any vCPU. While any bit is set, no TLB entry of any vCPU is
 * writable, so stores take the slow path, and one that hits a bit kills the
 * page's blocks: here at once, on other vCPUs by a message (SOFT_EV_CODE) that
 * they take at their next block end. A block that kills itself has its next
 * instruction replaced by one that leaves.
 *
 * Devices write to RAM without the CPU seeing it. They tell the guest by an
 * interrupt, and before it can execute what they wrote the guest maps it: so
 * when a page enters the execute TLB and an interrupt came since the last time,
 * its blocks are compared with the bytes they were made from.
 *
 * An instruction that crosses a page end is a block of its own, outside all
 * this: a small cache by address whose entries are compared with memory at each
 * use.
 */
#ifndef ARC_HV_SOFT_BLOCK_H
#define ARC_HV_SOFT_BLOCK_H

#include <pthread.h>

#include "hv/soft/op.h"

#define SOFT_BLOCK_MAX 48 /* instructions */
#define SOFT_HASH_BITS 16
#define SOFT_TAG_MODE  56
#define SOFT_TAG_DEAD  (~0ull)

struct soft_block {
	uint64_t tag; /* physical address | mode << SOFT_TAG_MODE */
	struct soft_block *hash_next, *page_next;
	uint16_t bytes, ninsn; /* ninsn without the slot */
	struct insn insn[]; /* then the bytes they were made from */
};

/* A physical page with blocks. */
struct soft_code_page {
	struct soft_code_page *next;
	uint64_t pa;
	uint64_t epoch; /* soft_vm.epoch when last compared */
	struct soft_block *blocks;
};

#define SOFT_PAGE_HASH 12
#define SOFT_CROSSERS  256
#define SOFT_MESSAGES  64

struct soft_code {
	struct soft_block **hash; /* 1 << SOFT_HASH_BITS buckets */
	struct soft_code_page *pages[1 << SOFT_PAGE_HASH];
	uint8_t *arena; /* mapped once, used from the start */
	size_t used;
	unsigned deaths; /* of blocks, singly or all */
	uint32_t acks; /* any thread: messages taken so often */
	struct soft_block *free[SOFT_BLOCK_MAX + 2]; /* by insns */
	struct soft_block *crosser[SOFT_CROSSERS];
	struct soft_block *scratch; /* where a block is decoded */

	/* From other vCPUs: pages to kill (bit 0 set) or protect. Any thread. */
	pthread_mutex_t lock;
	uint64_t message[SOFT_MESSAGES];
	unsigned nmessages;
	bool overflow;
};

/* Not linked to anything: has no valid tag. */
extern const struct soft_block soft_no_block_;
#define soft_no_block (*(struct soft_block *)&soft_no_block_)

int soft_code_init(struct soft_cpu *cpu);
void soft_code_fini(struct soft_cpu *cpu);
/* Forget everything (also when the arena is full). Not while a block runs. */
void soft_code_flush(struct soft_cpu *cpu);
/* The block at @rip: found or decoded. May fault (#PF, #GP on fetch). */
struct soft_block *soft_block_at(struct soft_cpu *cpu, uint64_t rip);
/* A store of [pa, pa + len) was made: kill what it hit, everywhere. */
void soft_code_stored(struct soft_cpu *cpu, uint64_t pa, unsigned len);
/* The same for a writer that is no vCPU, before it writes. Any thread. */
void soft_code_foreign(struct soft_vm *vm, uint64_t pa);
/* The word of @pa's page, or NULL outside RAM. */
uint64_t *soft_code_bits(struct soft_vm *vm, uint64_t pa);
/* Page @pa enters the execute TLB: are its blocks still what it holds? */
void soft_code_entered(struct soft_cpu *cpu, uint64_t pa);
/* Take what other vCPUs asked for. Between blocks. */
void soft_code_messages(struct soft_cpu *cpu);

static inline unsigned soft_hash(uint64_t tag)
{
	return (unsigned)(tag ^ tag >> 13 ^ tag >> 50) &
	       ((1u << SOFT_HASH_BITS) - 1);
}

/* ---- ways out of a block; all of them end a handler ---- */

/* Link @slot to the block at @target and go there. */
void soft_link(struct soft_cpu *cpu, struct insn *slot, uint64_t target);
/* Go to @target without a link. */
void soft_enter(struct soft_cpu *cpu, uint64_t target);

/* Back to the run loop, to go on at @rip. */
#define soft_leave(cpu, to) ((void)((cpu)->rip = (to)))

static inline __attribute__((always_inline)) bool
soft_must_leave(struct soft_cpu *cpu, struct insn *i)
{
	cpu->budget -= i[1].off;
	return unlikely(cpu->budget < 0) ||
	       unlikely(__atomic_load_n(&cpu->events, __ATOMIC_RELAXED));
}

/* To @target, in this page, through @slot (i or i + 1). */
static inline __attribute__((always_inline)) void
soft_chain(struct soft_cpu *cpu, struct insn *i, struct insn *slot,
	   uint64_t target)
{
	struct soft_block *b = slot->aux;

	if (soft_must_leave(cpu, i)) {
		soft_leave(cpu, target);
	} else if (likely(b->tag == (uint64_t)slot->disp)) {
		cpu->gpr[SOFT_RIP] = target;
		cpu->block = b;
		SOFT_GO(cpu, b->insn);
	} else {
		soft_link(cpu, slot, target);
	}
}

/* The same to anywhere. 64-bit mode. */
static inline __attribute__((always_inline)) void
soft_chain_far(struct soft_cpu *cpu, struct insn *i, struct insn *slot,
	       uint64_t target)
{
	struct soft_block *b = slot->aux;
	struct soft_xtlb *x = &cpu->xtlb[(target >> 12) & (SOFT_XTLB_SIZE - 1)];

	if (soft_must_leave(cpu, i)) {
		soft_leave(cpu, target);
	} else if (likely(b->tag == (uint64_t)slot->disp &&
			  x->tag ==
				  ((target & SOFT_PAGE_MASK) | cpu->tlb_ctx) &&
			  !(((uint64_t)slot->disp ^ x->paddr) &
			    0x00fffffffffff000))) {
		cpu->gpr[SOFT_RIP] = target;
		cpu->block = b;
		SOFT_GO(cpu, b->insn);
	} else {
		soft_link(cpu, slot, target);
	}
}

/* An indirect branch. */
static inline __attribute__((always_inline)) void
soft_jump(struct soft_cpu *cpu, struct insn *i, uint64_t target)
{
	uint64_t la = target + cpu->ea_base[X86_CS];
	struct soft_xtlb *x = &cpu->xtlb[(la >> 12) & (SOFT_XTLB_SIZE - 1)];
	uint64_t tag;
	struct soft_block *b;

	if (soft_must_leave(cpu, i)) {
		soft_leave(cpu, target);
		return;
	}
	tag = x->paddr | (la & 0xfff) | (uint64_t)cpu->mode << SOFT_TAG_MODE;
	b = cpu->code->hash[soft_hash(tag)];
	if (likely(x->tag == ((la & SOFT_PAGE_MASK) | cpu->tlb_ctx) &&
		   b->tag == tag)) {
		cpu->gpr[SOFT_RIP] = target;
		cpu->block = b;
		SOFT_GO(cpu, b->insn);
	} else {
		soft_enter(cpu, target);
	}
}

#endif
