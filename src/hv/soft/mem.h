/*
 * The fast path to guest memory, inlined into handlers.
 *
 * An access looks into the direct-mapped first-level TLB: the tag is the page
 * of the access's *last* byte with the current context in the low bits, the
 * index is from the first byte, so an access that crosses a page misses. A miss
 * calls soft_ld_slow() or soft_st_slow(), which walk, check, fill, do MMIO and
 * crossings, or fault.
 *
 * The call is made so that the handler around it stays a leaf: an assembly stub
 * keeps every register but the result, so no handler saves registers for a path
 * it hardly ever takes.
 */
#ifndef ARC_HV_SOFT_MEM_H
#define ARC_HV_SOFT_MEM_H

#include <stdint.h>

#include "base/util.h"
#include "hv/soft/cpu.h"
#include "mem/racy.h"

#define SOFT_PAGE_MASK (~0xfffull)
/* In the size given to soft_ea_fast(): the operand is written. */
#define SOFT_EA_W 0x100u

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SOFT_PLAIN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || \
	__has_feature(undefined_behavior_sanitizer)
#define SOFT_PLAIN 1
#endif
#endif
#if !defined(__OPTIMIZE__) || !defined(__x86_64__)
#undef SOFT_PLAIN
#define SOFT_PLAIN 1
#endif
#ifndef SOFT_PLAIN
#define SOFT_PLAIN 0
#endif

/* The low half word of a register. */
typedef uint16_t soft_u16u __attribute__((aligned(1), may_alias));

/* Out of line; @size 1, 2, 4, 8. */
uint64_t soft_ld_slow(struct soft_cpu *cpu, struct insn *i, uint64_t la,
		      unsigned size);
void soft_st_slow(struct soft_cpu *cpu, struct insn *i, uint64_t la,
		  uint64_t val, unsigned size);
/* The host address for an atomic at @la after a miss; NULL: not in one page,
 * not RAM, or a page with code. */
void *soft_fill_write(struct soft_cpu *cpu, struct insn *i, uint64_t la,
		      unsigned size);
/* EA for 16/32-bit addressing and legacy segments: @a is not yet masked. */
uint64_t soft_ea_slow(struct soft_cpu *cpu, struct insn *i, uint64_t a,
		      unsigned size);

#if SOFT_PLAIN
#define SOFT_CALL_LD(fn, cpu, i, la, size)  fn(cpu, i, la, size)
#define SOFT_CALL_ST(cpu, i, la, val, size) soft_st_slow(cpu, i, la, val, size)
#else
#define SOFT_XMM                                                             \
	"xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",      \
		"xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", \
		"xmm15"
/* The red zone belongs to the handler: step over it. */
#define SOFT_CALL_LD(fn, cpu, i, la, size)                    \
	({                                                    \
		uint64_t v_;                                  \
		__asm__ volatile("lea -128(%%rsp), %%rsp\n\t" \
				 "call " #fn "_stub\n\t"      \
				 "lea 128(%%rsp), %%rsp"      \
				 : "=a"(v_)                   \
				 : "D"(cpu), "S"(i), "d"(la), \
				   "c"((uint64_t)(size))      \
				 : "memory", "cc", SOFT_XMM); \
		v_;                                           \
	})
#define SOFT_CALL_ST(cpu, i, la, val, size)                          \
	do {                                                         \
		register uint64_t r8_ __asm__("r8") = (size);        \
		__asm__ volatile("lea -128(%%rsp), %%rsp\n\t"        \
				 "call soft_st_slow_stub\n\t"        \
				 "lea 128(%%rsp), %%rsp"             \
				 :                                   \
				 : "D"(cpu), "S"(i), "d"(la),        \
				   "c"((uint64_t)(val)), "r"(r8_)    \
				 : "memory", "cc", "rax", SOFT_XMM); \
	} while (0)
#endif

#define SOFT_ACCESSORS(bits)                                                   \
	static inline __attribute__((always_inline))                           \
	uint##bits##_t soft_ld##bits(struct soft_cpu *cpu, struct insn *i,     \
				     uint64_t la)                              \
	{                                                                      \
		struct soft_tlb *t =                                           \
			&cpu->tlb[(la >> 12) & (SOFT_TLB_SIZE - 1)];           \
		uint64_t tag =                                                 \
			((la + bits / 8 - 1) & SOFT_PAGE_MASK) | cpu->tlb_ctx; \
                                                                               \
		if (likely(tag == t->rtag))                                    \
			return racy_ld##bits((void *)(la + t->addend));        \
		return (uint##bits##_t)SOFT_CALL_LD(soft_ld_slow, cpu, i, la,  \
						    bits / 8);                 \
	}                                                                      \
	static inline __attribute__((always_inline)) void soft_st##bits(       \
		struct soft_cpu *cpu, struct insn *i, uint64_t la,             \
		uint##bits##_t v)                                              \
	{                                                                      \
		struct soft_tlb *t =                                           \
			&cpu->tlb[(la >> 12) & (SOFT_TLB_SIZE - 1)];           \
		uint64_t tag =                                                 \
			((la + bits / 8 - 1) & SOFT_PAGE_MASK) | cpu->tlb_ctx; \
                                                                               \
		if (likely(tag == t->wtag))                                    \
			racy_st##bits((void *)(la + t->addend), v);            \
		else                                                           \
			SOFT_CALL_ST(cpu, i, la, v, bits / 8);                 \
	}
SOFT_ACCESSORS(8)
SOFT_ACCESSORS(16)
SOFT_ACCESSORS(32)
SOFT_ACCESSORS(64)
#undef SOFT_ACCESSORS

/* The host address for a write of @size at @la, or NULL: take the slow way. */
static inline __attribute__((always_inline)) void *
soft_wptr(struct soft_cpu *cpu, uint64_t la, unsigned size)
{
	struct soft_tlb *t = &cpu->tlb[(la >> 12) & (SOFT_TLB_SIZE - 1)];
	uint64_t tag = ((la + size - 1) & SOFT_PAGE_MASK) | cpu->tlb_ctx;

	return likely(tag == t->wtag) ? (void *)(la + t->addend) : NULL;
}

/* The same for an atomic: a miss that can be filled is. */
static inline __attribute__((always_inline)) void *
soft_wptr_lock(struct soft_cpu *cpu, struct insn *i, uint64_t la, unsigned size)
{
	void *p = soft_wptr(cpu, la, size);

	return likely(p != NULL) ? p : soft_fill_write(cpu, i, la, size);
}

static inline __attribute__((always_inline)) uint64_t
soft_ea_fast(struct soft_cpu *cpu, struct insn *i, unsigned size)
{
	uint64_t a = cpu->gpr[i->base] + (cpu->gpr[i->index] << i->scale) +
		     (uint64_t)i->disp;

	if (unlikely(i->flags & INSN_SLOW_EA)) {
#if SOFT_PLAIN
		return soft_ea_slow(cpu, i, a, size);
#else
		return SOFT_CALL_LD(soft_ea_slow, cpu, i, a, size);
#endif
	}
	return a + cpu->ea_base[i->seg];
}

#endif
