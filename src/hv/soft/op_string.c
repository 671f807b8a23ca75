/*
 * String instructions.
 *
 * REP commits RSI, RDI, RCX after every element (or run of elements), so a
 * fault in the middle leaves a state from which the same instruction goes on.
 * Between runs it looks at cpu->events, and now and then at the time, and leaves
 * with RIP at itself. Runs of MOVS and STOS that stay within pages are one copy
 * or fill.
 */
#include <string.h>

#include "bus/bus.h"
#include "hv/soft/ops.h"
#include "hv/soft/soft.h"

static inline uint64_t amask(const struct insn *i)
{
	return i->asize == 8 ? ~0ull : i->asize == 4 ? 0xffffffff : 0xffff;
}

static inline int64_t step(const struct soft_cpu *cpu, const struct insn *i)
{
	return cpu->rflags & FL_DF ? -(int64_t)i->osize : i->osize;
}

static inline uint64_t str_la(struct soft_cpu *cpu, struct insn *i,
			      unsigned seg, uint64_t off, bool write)
{
	off &= amask(i);
	if (likely(cpu->mode & MODE_64))
		return off + cpu->ea_base[seg];
	soft_at(cpu, i);
	return soft_seg_la(cpu, seg, off, i->osize, write);
}

static inline void advance(struct soft_cpu *cpu, struct insn *i, unsigned reg,
			   int64_t by)
{
	soft_put_reg(cpu, reg, i->asize, cpu->gpr[reg] + (uint64_t)by);
}

static inline uint64_t count(struct soft_cpu *cpu, struct insn *i)
{
	return cpu->gpr[X86_RCX] & amask(i);
}

static inline uint64_t load(struct soft_cpu *cpu, struct insn *i, uint64_t la)
{
	switch (i->osize) {
	case 1:
		return soft_ld8(cpu, i, la);
	case 2:
		return soft_ld16(cpu, i, la);
	case 4:
		return soft_ld32(cpu, i, la);
	default:
		return soft_ld64(cpu, i, la);
	}
}

static inline void store(struct soft_cpu *cpu, struct insn *i, uint64_t la,
			 uint64_t v)
{
	switch (i->osize) {
	case 1:
		soft_st8(cpu, i, la, (uint8_t)v);
		break;
	case 2:
		soft_st16(cpu, i, la, (uint16_t)v);
		break;
	case 4:
		soft_st32(cpu, i, la, (uint32_t)v);
		break;
	default:
		soft_st64(cpu, i, la, v);
	}
}

static void movs1(struct soft_cpu *cpu, struct insn *i)
{
	uint64_t v =
		load(cpu, i, str_la(cpu, i, i->seg, cpu->gpr[X86_RSI], false));

	store(cpu, i, str_la(cpu, i, X86_ES, cpu->gpr[X86_RDI], true), v);
	advance(cpu, i, X86_RSI, step(cpu, i));
	advance(cpu, i, X86_RDI, step(cpu, i));
}

static void stos1(struct soft_cpu *cpu, struct insn *i)
{
	store(cpu, i, str_la(cpu, i, X86_ES, cpu->gpr[X86_RDI], true),
	      cpu->gpr[X86_RAX]);
	advance(cpu, i, X86_RDI, step(cpu, i));
}

static void lods1(struct soft_cpu *cpu, struct insn *i)
{
	uint64_t v =
		load(cpu, i, str_la(cpu, i, i->seg, cpu->gpr[X86_RSI], false));

	soft_put_reg(cpu, 0, i->osize, v);
	advance(cpu, i, X86_RSI, step(cpu, i));
}

static void compare(struct soft_cpu *cpu, unsigned size, uint64_t a, uint64_t b)
{
	unsigned up = 64 - 8 * size;
	uint64_t r = a - b, cv;

	a <<= up;
	b <<= up;
	cv = (~a & b) | (~(a ^ b) & (r << up));
	cpu->fl_res = (uint64_t)((int64_t)(r << up) >> up);
	cpu->fl_cv = cv;
	cpu->fl_ap = (uint32_t)((a ^ b) >> up ^ r) & FL_AF;
}

static void cmps1(struct soft_cpu *cpu, struct insn *i)
{
	uint64_t a =
		load(cpu, i, str_la(cpu, i, i->seg, cpu->gpr[X86_RSI], false));
	uint64_t b =
		load(cpu, i, str_la(cpu, i, X86_ES, cpu->gpr[X86_RDI], false));

	compare(cpu, i->osize, a, b);
	advance(cpu, i, X86_RSI, step(cpu, i));
	advance(cpu, i, X86_RDI, step(cpu, i));
}

static void scas1(struct soft_cpu *cpu, struct insn *i)
{
	uint64_t b =
		load(cpu, i, str_la(cpu, i, X86_ES, cpu->gpr[X86_RDI], false));

	compare(cpu, i->osize, cpu->gpr[X86_RAX], b);
	advance(cpu, i, X86_RDI, step(cpu, i));
}

static void ins1(struct soft_cpu *cpu, struct insn *i)
{
	uint64_t la;
	unsigned size = i->osize, port = (uint16_t)cpu->gpr[X86_RDX];

	soft_at(cpu, i);
	soft_io_check(cpu, port, size);
	la = str_la(cpu, i, X86_ES, cpu->gpr[X86_RDI], true);
	/* The device is read once: the store must not fault after that. */
	soft_probe_write(cpu, la, size, SOFT_DATA);
	soft_count(&cpu->counters.pio, 1);
	soft_write(cpu, la, size, soft_bus_read(cpu, BUS_PIO, port, size),
		   SOFT_DATA);
	advance(cpu, i, X86_RDI, step(cpu, i));
}

static void outs1(struct soft_cpu *cpu, struct insn *i)
{
	unsigned size = i->osize, port = (uint16_t)cpu->gpr[X86_RDX];
	uint64_t v;

	soft_at(cpu, i);
	soft_io_check(cpu, port, size);
	v = load(cpu, i, str_la(cpu, i, i->seg, cpu->gpr[X86_RSI], false));
	soft_count(&cpu->counters.pio, 1);
	soft_bus_write(cpu, BUS_PIO, port, size, v);
	advance(cpu, i, X86_RSI, step(cpu, i));
}

/*
 * Elements that one host operation can do: all in one page each, upwards, both
 * in the TLB. 0: do one the slow way.
 */
static uint64_t run_length(uint64_t n, uint64_t la, unsigned size)
{
	uint64_t room = (0x1000 - (la & 0xfff)) / size;

	return n < room ? n : room;
}

static uint64_t movs_run(struct soft_cpu *cpu, struct insn *i, uint64_t n)
{
	uint64_t src, dst, len;
	struct soft_tlb *t;
	uint8_t *d, *s;

	if (!(cpu->mode & MODE_64) || i->asize != 8 || cpu->rflags & FL_DF)
		return 0;
	src = cpu->gpr[X86_RSI] + cpu->ea_base[i->seg];
	dst = cpu->gpr[X86_RDI];
	n = run_length(run_length(n, src, i->osize), dst, i->osize);
	if (!n)
		return 0;
	len = n * i->osize;
	d = soft_wptr(cpu, dst, 1);
	t = &cpu->tlb[(src >> 12) & (SOFT_TLB_SIZE - 1)];
	if (!d || t->rtag != ((src & SOFT_PAGE_MASK) | cpu->tlb_ctx))
		return 0;
	s = (uint8_t *)(src + t->addend);
	/* Forward overlap repeats what was just written: not memcpy's. */
	if ((uintptr_t)d - (uintptr_t)s < len) {
		if (i->osize != 1)
			return 0;
		for (uint64_t k = 0; k < len; k++)
			racy_st8(d + k, racy_ld8(s + k));
	} else {
		racy_copy(d, s, len);
	}
	cpu->gpr[X86_RSI] += len;
	cpu->gpr[X86_RDI] += len;
	return n;
}

static uint64_t stos_run(struct soft_cpu *cpu, struct insn *i, uint64_t n)
{
	uint64_t dst = cpu->gpr[X86_RDI], v = cpu->gpr[X86_RAX];
	uint8_t *d;

	if (!(cpu->mode & MODE_64) || i->asize != 8 || cpu->rflags & FL_DF)
		return 0;
	n = run_length(n, dst, i->osize);
	d = soft_wptr(cpu, dst, 1);
	if (!n || !d)
		return 0;
	switch (i->osize) {
	case 1:
		racy_fill(d, (uint8_t)v, n);
		break;
	case 2:
		for (uint64_t k = 0; k < n; k++)
			racy_st16(d + 2 * k, (uint16_t)v);
		break;
	case 4:
		for (uint64_t k = 0; k < n; k++)
			racy_st32(d + 4 * k, (uint32_t)v);
		break;
	default:
		if (v) {
			for (uint64_t k = 0; k < n; k++)
				racy_st64(d + 8 * k, v);
		} else {
			racy_fill(d, 0, n * 8);
		}
	}
	cpu->gpr[X86_RDI] += n * i->osize;
	return n;
}

/* Elements, or runs of up to a page, between two looks at the clock. */
#define ROUNDS 1024

/* The run loop shall look at the clock: use the budget up, uncounted. */
static void look_at_clock(struct soft_cpu *cpu)
{
	cpu->budget_start -= cpu->budget + 1;
	cpu->budget = -1;
}

/*
 * REP: false when it must be gone on with later (an event, time, or single
 * step): the handler then leaves with RIP at this instruction.
 */
static inline __attribute__((always_inline)) bool
repeat(struct soft_cpu *cpu, struct insn *i,
       void (*one)(struct soft_cpu *, struct insn *),
       uint64_t (*run)(struct soft_cpu *, struct insn *, uint64_t), bool cond)
{
	for (uint64_t k = 0;; k++) {
		uint64_t n = count(cpu, i), did = 0;

		if (!n)
			return true;
		if (k && (cpu->mode & MODE_STEP ||
			  __atomic_load_n(&cpu->events, __ATOMIC_RELAXED)))
			return false;
		if (unlikely(k == ROUNDS)) {
			look_at_clock(cpu);
			return false;
		}
		if (run && !(cpu->mode & MODE_STEP))
			did = run(cpu, i, n);
		if (!did) {
			one(cpu, i);
			did = 1;
		}
		soft_put_reg(cpu, X86_RCX, i->asize, n - did);
		if (cond && fl_zf(cpu) != !!(i->flags & INSN_REP))
			return true;
		if (n == did)
			return true;
	}
}

static void leave_here(struct soft_cpu *cpu, struct insn *i)
{
	cpu->budget -= i - cpu->block->insn;
	soft_leave(cpu, cpu->gpr[SOFT_RIP] + i->off);
}

#define STRING(name, run, cond)                                              \
	static bool rep_##name(struct soft_cpu *cpu, struct insn *i)         \
	{                                                                    \
		return repeat(cpu, i, name##1, run, cond);                   \
	}                                                                    \
	SOFT_OP(name)                                                        \
	{                                                                    \
		if (i->flags & (INSN_REP | INSN_REPNE)) {                    \
			if (!rep_##name(cpu, i)) {                           \
				leave_here(cpu, i);                          \
				return;                                      \
			}                                                    \
		} else {                                                     \
			name##1(cpu, i);                                     \
		}                                                            \
		NEXT;                                                        \
	}                                                                    \
	const struct soft_opset soft_set_##name = { .r = { name, name, name, \
							   name } };

STRING(movs, movs_run, false)
STRING(stos, stos_run, false)
STRING(lods, NULL, false)
STRING(cmps, NULL, true)
STRING(scas, NULL, true)
STRING(ins, NULL, false)
STRING(outs, NULL, false)
