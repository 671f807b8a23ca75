/*
 * Writing handlers: what every op_*.c uses.
 *
 * A handler is `static void name(struct soft_cpu *cpu, struct insn *i)` and ends
 * in NEXT or one of the block exits of block.h; both are tail calls. So it must
 * have no local whose address escapes: the compiler could not reuse the frame,
 * and a long block would grow the stack. What needs such a local is a function
 * of its own, called by the handler. Builds that do not optimise, or sanitize,
 * cannot rely on tail calls: there a handler leaves the next instruction in
 * cpu->ip and a loop calls it.
 */
#ifndef ARC_HV_SOFT_OP_H
#define ARC_HV_SOFT_OP_H

#include "hv/soft/cpu.h"
#include "hv/soft/flags.h"
#include "hv/soft/mem.h"

#if SOFT_PLAIN
#define SOFT_GO(cpu, to) ((void)((cpu)->ip = (to)))
#else
#define SOFT_GO(cpu, to) (to)->fn((cpu), (to))
#endif
#define NEXT SOFT_GO(cpu, i + 1)

#define SOFT_OP(name)                                                  \
	static __attribute__((unused)) void name(struct soft_cpu *cpu, \
						 struct insn *i)

/*
 * The handlers of one row of the opcode map, by log2 of the operand size:
 * register form (or no ModRM), memory form, memory form under LOCK. NULL: no
 * such instruction.
 */
struct soft_opset {
	soft_handler *r[4], *m[4], *l[4];
};

/* The instruction is about to call something that may fault or look. */
static inline void soft_at(struct soft_cpu *cpu, struct insn *i)
{
	cpu->cur = i;
	cpu->rip = cpu->gpr[SOFT_RIP] + i->off;
	cpu->next_rip = cpu->rip + i->len;
	if (unlikely(!(cpu->mode & MODE_64)))
		cpu->next_rip = (uint32_t)cpu->next_rip;
}

/* Write a 16-, 32- or 64-bit register: 32 bits clear the upper half. */
static inline void soft_put_reg(struct soft_cpu *cpu, unsigned r, unsigned size,
				uint64_t v)
{
	switch (size) {
	case 1:
		*soft_reg8(cpu, r) = (uint8_t)v;
		break;
	case 2:
		*(soft_u16u *)&cpu->gpr[r] = (uint16_t)v;
		break;
	case 4:
		cpu->gpr[r] = (uint32_t)v;
		break;
	default:
		cpu->gpr[r] = v;
	}
}

/* Slow read-modify-write: begin (may fault), load, store. See mmu.c. */
void soft_rmw_begin(struct soft_cpu *cpu, struct insn *i, uint64_t la,
		    unsigned size, bool lock);
uint64_t soft_rmw_load(struct soft_cpu *cpu);
void soft_rmw_store(struct soft_cpu *cpu, uint64_t v);

/* Can a host atomic do it? Not across cache lines (a split lock). */
static inline bool soft_atomic_ok(const void *p, unsigned size)
{
	return p && ((uintptr_t)p & 63) + size <= 64;
}

#endif
