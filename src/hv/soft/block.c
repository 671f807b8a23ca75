/* The block cache: see block.h for how it works. */
#include <sched.h>
#include <string.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/bug.h"
#include "hv/soft/decode.h"
#include "hv/soft/ops.h"
#include "hv/soft/soft.h"

#define ARENA_BYTES (64ull << 20)

/* Never written: no lookup finds it, so nothing can kill it. */
const struct soft_block soft_no_block_ = { .tag = SOFT_TAG_DEAD };

static uint8_t *raw_bytes(struct soft_block *b)
{
	return (uint8_t *)(b->insn + b->ninsn + 1);
}

/* ---- pseudo instructions ---- */

void soft_h_ud(struct soft_cpu *cpu, struct insn *i)
{
	soft_at(cpu, i);
	soft_fault0(cpu, X86_UD);
}

void soft_h_too_long(struct soft_cpu *cpu, struct insn *i)
{
	soft_at(cpu, i);
	soft_fault(cpu, X86_GP, 0);
}

/* The block ended without a branch: go on behind it. */
static void h_fall(struct soft_cpu *cpu, struct insn *i)
{
	uint64_t to = cpu->gpr[SOFT_RIP] + i->off;

	if (cpu->mode & MODE_64)
		soft_chain(cpu, i, i, to);
	else
		soft_jump(cpu, i, (uint32_t)to);
}
static void h_fall_far(struct soft_cpu *cpu, struct insn *i)
{
	uint64_t to = cpu->gpr[SOFT_RIP] + i->off;

	if (cpu->mode & MODE_64)
		soft_chain_far(cpu, i, i, to);
	else
		soft_jump(cpu, i, (uint32_t)to);
}

/* In the place of an instruction whose block was killed while it ran; and the
 * end of a one-instruction block of MODE_STEP. */
static void h_leave(struct soft_cpu *cpu, struct insn *i)
{
	cpu->budget -= i - cpu->block->insn;
	soft_leave(cpu, cpu->gpr[SOFT_RIP] + i->off);
	if (!(cpu->mode & MODE_64))
		cpu->rip = (uint32_t)cpu->rip;
}

/* ---- memory ---- */

static size_t block_bytes(unsigned ninsn)
{
	/* Bytes for the worst case, so that blocks of one length share a list.
	 * (Instructions average 4 bytes; the arena is only touched as used.) */
	return sizeof(struct soft_block) + (ninsn + 1) * sizeof(struct insn) +
	       ((ninsn * 15 + 15) & ~15u);
}

int soft_code_init(struct soft_cpu *cpu)
{
	struct soft_code *c = calloc(1, sizeof(*c));

	if (!c)
		return -1;
	cpu->code = c;
	pthread_mutex_init(&c->lock, NULL);
	c->hash = malloc(sizeof(*c->hash) << SOFT_HASH_BITS);
	c->scratch = malloc(block_bytes(SOFT_BLOCK_MAX + 1));
	c->arena = mmap(NULL, ARENA_BYTES, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (c->arena == MAP_FAILED)
		c->arena = NULL;
	for (unsigned n = 0; n < SOFT_CROSSERS; n++) {
		c->crosser[n] = calloc(1, block_bytes(1));
		if (!c->crosser[n])
			goto fail;
		c->crosser[n]->tag = SOFT_TAG_DEAD;
	}
	if (!c->hash || !c->scratch || !c->arena)
		goto fail;
	madvise(c->arena, ARENA_BYTES, MADV_HUGEPAGE);
	soft_code_flush(cpu);
	return 0;
fail:
	soft_code_fini(cpu);
	return -1;
}

static void free_pages(struct soft_code *c)
{
	for (unsigned n = 0; n < array_size(c->pages); n++) {
		struct soft_code_page *p = c->pages[n], *next;

		for (; p; p = next) {
			next = p->next;
			free(p);
		}
		c->pages[n] = NULL;
	}
}

void soft_code_fini(struct soft_cpu *cpu)
{
	struct soft_code *c = cpu->code;

	if (!c)
		return;
	free_pages(c);
	for (unsigned n = 0; n < SOFT_CROSSERS; n++)
		free(c->crosser[n]);
	if (c->arena)
		munmap(c->arena, ARENA_BYTES);
	free(c->hash);
	free(c->scratch);
	pthread_mutex_destroy(&c->lock);
	free(c);
	cpu->code = NULL;
}

void soft_code_flush(struct soft_cpu *cpu)
{
	struct soft_code *c = cpu->code;

	for (unsigned n = 0; n < 1u << SOFT_HASH_BITS; n++)
		c->hash[n] = &soft_no_block;
	free_pages(c);
	memset(c->free, 0, sizeof(c->free));
	c->used = 0;
	c->deaths++;
	cpu->block = &soft_no_block;
}

static struct soft_block *block_alloc(struct soft_cpu *cpu, unsigned ninsn)
{
	struct soft_code *c = cpu->code;
	struct soft_block *b = c->free[ninsn];
	size_t want = block_bytes(ninsn);

	if (b) {
		c->free[ninsn] = b->page_next;
		return b;
	}
	if (c->used + want > ARENA_BYTES)
		soft_code_flush(cpu);
	b = (struct soft_block *)(c->arena + c->used);
	c->used += (want + 15) & ~15ull;
	return b;
}

/* ---- pages ---- */

uint64_t *soft_code_bits(struct soft_vm *vm, uint64_t pa)
{
	struct soft_ram *r = soft_ram_at(vm, pa);

	return r ? &r->code[(pa - r->base) >> 12] : NULL;
}

static struct soft_code_page **page_slot(struct soft_code *c, uint64_t pa)
{
	struct soft_code_page **p;

	p = &c->pages[(pa >> 12 ^ pa >> 24) & ((1u << SOFT_PAGE_HASH) - 1)];
	while (*p && (*p)->pa != pa)
		p = &(*p)->next;
	return p;
}

static void kill_block(struct soft_cpu *cpu, struct soft_block *b)
{
	struct soft_code *c = cpu->code;
	struct soft_block **h = &c->hash[soft_hash(b->tag)];

	while (*h != b)
		h = &(*h)->hash_next;
	*h = b->hash_next;
	if (!c->hash[soft_hash(b->tag)])
		c->hash[soft_hash(b->tag)] = &soft_no_block;
	b->tag = SOFT_TAG_DEAD;
	c->deaths++;
	/* If it is the one that runs: stop after this instruction. */
	if (b == cpu->block && cpu->cur >= b->insn &&
	    cpu->cur < b->insn + b->ninsn)
		cpu->cur[1].fn = h_leave;
	b->page_next = c->free[b->ninsn];
	c->free[b->ninsn] = b;
}

static void kill_page(struct soft_cpu *cpu, uint64_t pa)
{
	struct soft_code_page **slot = page_slot(cpu->code, pa), *p = *slot;
	struct soft_block *b, *next;

	if (!p)
		return;
	*slot = p->next;
	for (b = p->blocks; b; b = next) {
		next = b->page_next;
		kill_block(cpu, b);
	}
	free(p);
}

static void send(struct soft_cpu *to, uint64_t message)
{
	struct soft_code *c = to->code;

	pthread_mutex_lock(&c->lock);
	if (c->nmessages == SOFT_MESSAGES)
		c->overflow = true;
	else
		c->message[c->nmessages++] = message;
	pthread_mutex_unlock(&c->lock);
	soft_notify(to, SOFT_EV_CODE);
}

/* @from: the sender, or NULL. */
static void broadcast(struct soft_vm *vm, struct soft_cpu *from,
		      uint64_t message)
{
	for (unsigned n = 0; n < vm->ncpus; n++) {
		struct soft_cpu *to =
			__atomic_load_n(&vm->cpu[n], __ATOMIC_ACQUIRE);

		if (to && to != from)
			send(to, message);
	}
}

void soft_code_foreign(struct soft_vm *vm, uint64_t pa)
{
	__atomic_store_n(soft_code_bits(vm, pa), 0, __ATOMIC_SEQ_CST);
	broadcast(vm, NULL, (pa & SOFT_PAGE_MASK) | 1);
}

static uint64_t chunk_mask(uint64_t pa, unsigned len)
{
	unsigned first = (unsigned)(pa & 0xfff) / 64;
	unsigned last = (unsigned)((pa & 0xfff) + len - 1) / 64;

	if (last > 63)
		last = 63;
	return (~0ull << first) & (~0ull >> (63 - last));
}

void soft_code_stored(struct soft_cpu *cpu, uint64_t pa, unsigned len)
{
	uint64_t *bits = soft_code_bits(cpu->vm, pa);

	if (!bits ||
	    !(__atomic_load_n(bits, __ATOMIC_SEQ_CST) & chunk_mask(pa, len)))
		return;
	pa &= SOFT_PAGE_MASK;
	__atomic_store_n(bits, 0, __ATOMIC_SEQ_CST);
	kill_page(cpu, pa);
	broadcast(cpu->vm, cpu, pa | 1);
}

void soft_code_messages(struct soft_cpu *cpu)
{
	struct soft_code *c = cpu->code;
	uint64_t message[SOFT_MESSAGES];
	unsigned count;
	bool all;

	pthread_mutex_lock(&c->lock);
	count = c->nmessages;
	memcpy(message, c->message, count * sizeof(*message));
	all = c->overflow;
	c->nmessages = 0;
	c->overflow = false;
	pthread_mutex_unlock(&c->lock);
	if (all) {
		soft_mmu_protect_all(cpu);
		soft_code_flush(cpu);
		count = 0;
	}
	for (unsigned n = 0; n < count; n++) {
		uint64_t pa = message[n] & SOFT_PAGE_MASK;

		if (message[n] & 1) {
			kill_page(cpu, pa);
		} else {
			soft_mmu_protect(cpu, pa);
		}
	}
	__atomic_fetch_add(&c->acks, 1, __ATOMIC_SEQ_CST);
}

void soft_code_entered(struct soft_cpu *cpu, uint64_t pa)
{
	struct soft_code_page *p = *page_slot(cpu->code, pa);
	uint64_t epoch = __atomic_load_n(&cpu->vm->epoch, __ATOMIC_ACQUIRE);
	const uint8_t *mem;

	if (!p || p->epoch == epoch)
		return;
	p->epoch = epoch;
	mem = soft_ram_page(cpu->vm, pa);
	for (struct soft_block *b = p->blocks; b; b = b->page_next) {
		if (racy_compare(raw_bytes(b), mem + (b->tag & 0xfff),
				 b->bytes)) {
			kill_page(cpu, pa);
			return;
		}
	}
}

/* ---- making blocks ---- */

/*
 * Wait until no other vCPU can store to page @pa without seeing its mark. Those
 * that have a writable TLB entry for it get a message and take it at their next
 * block end; until then we must not read what they may be about to write. We
 * are between blocks ourselves, so others need not wait for us.
 */
static void wait_for_writers(struct soft_cpu *cpu, uint64_t pa)
{
	struct soft_vm *vm = cpu->vm;
	bool waited = false;

	for (unsigned n = 0; n < vm->ncpus; n++) {
		struct soft_cpu *to =
			__atomic_load_n(&vm->cpu[n], __ATOMIC_ACQUIRE);
		uint32_t seen;

		/* Pairs with fill() in mmu.c: it stores the entry, then looks
		 * at the marks; we have marked, and look at the entries. */
		if (!to || to == cpu || !soft_mmu_writes(to, pa))
			continue;
		waited = true;
		soft_wait_begin(cpu);
		seen = __atomic_load_n(&to->code->acks, __ATOMIC_SEQ_CST);
		send(to, pa);
		for (unsigned k = 0;
		     __atomic_load_n(&to->running, __ATOMIC_SEQ_CST) &&
		     __atomic_load_n(&to->code->acks, __ATOMIC_SEQ_CST) == seen;
		     k++) {
			if (k & 63)
				__builtin_ia32_pause();
			else
				sched_yield();
		}
	}
	if (waited) {
		soft_wait_end(cpu);
		soft_code_messages(cpu); /* what was asked of us meanwhile */
	}
}

/*
 * Mark before reading: pairs with the fence in mmu.c's phys_store(). @fresh: we
 * have no blocks in the page. If there are marks then, they are another vCPU's,
 * and it may still be waiting for the writers.
 */
static void mark(struct soft_cpu *cpu, uint64_t *bits, uint64_t pa, bool fresh)
{
	uint64_t mask = chunk_mask(pa, 15), old;

	if (!fresh && (__atomic_load_n(bits, __ATOMIC_RELAXED) & mask) == mask)
		return;
	old = __atomic_fetch_or(bits, mask, __ATOMIC_SEQ_CST);
	if (!old || fresh) {
		pa &= SOFT_PAGE_MASK;
		soft_mmu_protect(cpu, pa);
		wait_for_writers(cpu, pa);
	}
}

static void slot_init(struct insn *slot, unsigned n)
{
	slot->aux = &soft_no_block;
	slot->disp = 0;
	slot->off = (uint16_t)n;
	slot->fn = h_leave;
}

/* Choose between the in-page and the other form of a branch. */
static void place_branch(struct insn *i, const struct soft_row *row,
			 unsigned page_off)
{
	int64_t next = (int64_t)page_off + i->len, to = next + i->simm;
	bool far = to < 0 || to > 0xfff || next > 0xfff;
	unsigned size = i->osize == 2 ? 1 : i->osize == 4 ? 2 : 3;

	if (far)
		i->fn = row->set->m[size];
	i->aux = &soft_no_block;
	i->disp = 0;
}

/*
 * A block of one instruction that is not in one page, or not in RAM: decoded
 * from @buf, kept in the crosser cache for the life of these bytes.
 */
static struct soft_block *crosser(struct soft_cpu *cpu, uint64_t la,
				  const uint8_t *buf, unsigned avail)
{
	struct soft_block *b;
	uint64_t tag = (la << 8) | cpu->mode;
	const struct soft_row *row;
	unsigned len;

	b = cpu->code->crosser[(la >> 12) % SOFT_CROSSERS];
	/* page_next is not used here: it keeps the key. */
	if ((uint64_t)b->page_next == tag && b->bytes <= avail && b->bytes &&
	    !memcmp(raw_bytes(b), buf, b->bytes)) {
		return b;
	}
	b->ninsn = 1;
	b->insn[0].off = 0;
	len = soft_decode(&b->insn[0], buf, avail, cpu->mode, &row);
	if (!len) {
		b->bytes = 0;
		return NULL;
	}
	b->bytes = (uint16_t)len;
	b->page_next = (struct soft_block *)tag;
	memcpy(raw_bytes(b), buf, len);
	slot_init(&b->insn[1], 1);
	b->insn[1].off = (uint16_t)len;
	if (row && row->attr & RA_REL) {
		place_branch(&b->insn[0], row, (unsigned)(la & 0xfff));
		b->insn[1].off = 1;
	} else if (row && row->attr & RA_END) {
		b->insn[1].off = 1;
	}
	return b;
}

static struct soft_block *decode_cross(struct soft_cpu *cpu, uint64_t la,
				       uint64_t pa)
{
	unsigned first = 0x1000 - (unsigned)(pa & 0xfff);
	struct soft_block *b;
	uint8_t buf[16];
	uint64_t pa2;

	if (first > 15)
		first = 15;
	for (unsigned n = 0; n < first; n++)
		buf[n] = (uint8_t)soft_phys_read(cpu, pa + n, 1);
	b = crosser(cpu, la, buf, first);
	if (b)
		return b;
	pa2 = soft_fetch_pa(cpu, la + first);
	for (unsigned n = first; n < 15; n++)
		buf[n] = (uint8_t)soft_phys_read(cpu, pa2 + n - first, 1);
	return crosser(cpu, la, buf, 15);
}

/*
 * Decode from a copy made by one load: another CPU may be patching the bytes,
 * and we shall see an immediate before or after, not half of each. What was
 * decoded goes to @raw.
 */
static unsigned decode_at(struct insn *i, const uint8_t *page, unsigned at,
			  unsigned mode, const struct soft_row **row,
			  uint8_t *raw)
{
	unsigned avail = 16, len;
	uint8_t copy[16];

	if (at > 0x1000 - 16) {
		avail = 0x1000 - at;
		racy_copy(copy, page + at, avail);
	} else {
		racy_ld128(copy, page + at);
	}
	len = soft_decode(i, copy, avail, mode, row);
	memcpy(raw, copy, len);
	return len;
}

/* Of the scratch block when it is full. */
static uint8_t *scratch_raw(struct soft_code *c)
{
	return (uint8_t *)(c->scratch->insn + SOFT_BLOCK_MAX + 2);
}

/* Instructions from page offset *at into the scratch block: how many. */
static unsigned decode_run(struct soft_cpu *cpu, const uint8_t *page,
			   uint64_t pa, unsigned *at, bool *ended)
{
	uint64_t *bits = soft_code_bits(cpu->vm, pa);
	unsigned start = (unsigned)(pa & 0xfff), n = 0;
	unsigned max = cpu->mode & MODE_STEP ? 1 : SOFT_BLOCK_MAX;
	struct insn *insn = cpu->code->scratch->insn;
	bool fresh = !*page_slot(cpu->code, pa & SOFT_PAGE_MASK);
	const struct soft_row *row;

	*at = start;
	*ended = false;
	while (n < max && !*ended && *at < 0x1000) {
		unsigned len;

		insn[n].off = (uint16_t)(*at - start);
		mark(cpu, bits, (pa & SOFT_PAGE_MASK) | *at, fresh);
		fresh = false;
		len = decode_at(&insn[n], page, *at, cpu->mode, &row,
				scratch_raw(cpu->code) + (*at - start));
		if (!len)
			break;
		if (row && row->attr & RA_REL && !(cpu->mode & MODE_STEP))
			place_branch(&insn[n], row, *at);
		else if (row && row->attr & RA_REL)
			insn[n].aux = &soft_no_block;
		*ended = !row || row->attr & RA_END;
		*at += len;
		n++;
	}
	return n;
}

static struct soft_block *decode_block(struct soft_cpu *cpu, uint64_t la,
				       uint64_t pa, uint64_t tag)
{
	struct soft_code *c = cpu->code;
	uint8_t *page = soft_ram_page(cpu->vm, pa);
	unsigned start = (unsigned)(pa & 0xfff), at, n = 0, tries = 0;
	struct insn *insn = c->scratch->insn;
	struct soft_code_page **slot;
	struct soft_block *b, **h;
	uint32_t acks;
	bool ended;

	if (!page)
		return decode_cross(cpu, la, pa);
	do {
		/* Someone writes here all the time: do without a block. */
		if (tries++ == 8)
			return decode_cross(cpu, la, pa);
		acks = c->acks;
		n = decode_run(cpu, page, pa, &at, &ended);
		/* A message taken while we waited may have been about this
		 * page, and have taken our marks away. */
	} while (c->acks != acks);
	if (!n)
		return decode_cross(cpu, la, pa);
	if (!ended) {
		/* The pseudo instruction that goes on behind the block. */
		memset(&insn[n], 0, sizeof(insn[n]));
		slot_init(&insn[n], n);
		insn[n].off = (uint16_t)(at - start);
		insn[n].fn = cpu->mode & MODE_STEP ? h_leave
			     : at > 0xfff	   ? h_fall_far
						   : h_fall;
		slot_init(&insn[n + 1], n);
	} else {
		memset(&insn[n], 0, sizeof(insn[n]));
		slot_init(&insn[n], n);
	}
	b = block_alloc(cpu, n + !ended);
	b->ninsn = (uint16_t)(n + !ended);
	b->bytes = (uint16_t)(at - start);
	b->tag = tag;
	memcpy(b->insn, insn, (b->ninsn + 1u) * sizeof(*insn));
	memcpy(raw_bytes(b), scratch_raw(c), b->bytes);
	h = &c->hash[soft_hash(tag)];
	b->hash_next = *h == &soft_no_block ? NULL : *h;
	*h = b;
	slot = page_slot(c, pa & SOFT_PAGE_MASK);
	if (!*slot) {
		struct soft_code_page *p = calloc(1, sizeof(*p));

		bug_on(!p);
		p->pa = pa & SOFT_PAGE_MASK;
		p->epoch = __atomic_load_n(&cpu->vm->epoch, __ATOMIC_ACQUIRE);
		*slot = p;
	}
	b->page_next = (*slot)->blocks;
	(*slot)->blocks = b;
	return b;
}

struct soft_block *soft_block_at(struct soft_cpu *cpu, uint64_t rip)
{
	uint64_t la = rip + cpu->ea_base[X86_CS], pa, tag;
	struct soft_block *b;

	if (!(cpu->mode & MODE_64)) {
		la = (uint32_t)la;
		if (rip > cpu->seg[X86_CS].limit) {
			cpu->cur = NULL;
			cpu->rip = rip;
			soft_fault(cpu, X86_GP, 0);
		}
	}
	cpu->cur = NULL;
	cpu->rip = rip;
	pa = soft_fetch_pa(cpu, la);
	tag = pa | (uint64_t)cpu->mode << SOFT_TAG_MODE;
	for (b = cpu->code->hash[soft_hash(tag)]; b; b = b->hash_next)
		if (b->tag == tag)
			return b;
	return decode_block(cpu, la, pa, tag);
}

void soft_enter(struct soft_cpu *cpu, uint64_t target)
{
	struct soft_block *b = soft_block_at(cpu, target);

	cpu->gpr[SOFT_RIP] = target;
	cpu->block = b;
	SOFT_GO(cpu, b->insn);
}

void soft_link(struct soft_cpu *cpu, struct insn *slot, uint64_t target)
{
	bool alive = cpu->block->tag != SOFT_TAG_DEAD;
	unsigned deaths = cpu->code->deaths;
	struct soft_block *b = soft_block_at(cpu, target);

	/* If blocks died meanwhile, @slot's may be another's now: even @b's. */
	if (alive && deaths == cpu->code->deaths && b->tag != SOFT_TAG_DEAD) {
		slot->aux = b;
		slot->disp = (int64_t)b->tag;
	}
	cpu->gpr[SOFT_RIP] = target;
	cpu->block = b;
	SOFT_GO(cpu, b->insn);
}
