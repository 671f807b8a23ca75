/*
 * The run loop of a vCPU: blocks, events, faults, sleep.
 *
 * Theory of operation. soft_run() enters blocks until something wants it to
 * return. Handlers chain from block to block by themselves; they come back here
 * when `events` is not 0, when `budget` (a number of instructions) is used up so
 * that it is time to look at the LAPIC's timer, or after an instruction that
 * changed what the decoder depends on.
 *
 * A fault jumps here out of any depth of handlers: soft_fault() leaves what it
 * is in cpu->fault; it becomes cpu->inject and is delivered. A fault during
 * delivery is combined with the first (double fault, shutdown).
 *
 * Events are one word that other threads `or` into. The loop takes it by an
 * atomic exchange and then looks at the state the bits stand for; a bit set
 * after the exchange makes the next block come back. A halted vCPU sleeps in a
 * futex on that word: the kernel compares it with 0, so a bit set before the
 * sleep is not slept over.
 */
#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include "base/clock.h"
#include "hv/soft/soft.h"

/* Instructions between two looks at the clock: some 40 us. */
#define BUDGET 4096

/* ---- faults ---- */

static void raise_fault(struct soft_cpu *cpu) __attribute__((noreturn));
static void raise_fault(struct soft_cpu *cpu)
{
	if (cpu->cur) {
		cpu->rip = cpu->gpr[SOFT_RIP] + cpu->cur->off;
		if (!(cpu->mode & MODE_64))
			cpu->rip = (uint32_t)cpu->rip;
		cpu->budget -= cpu->cur - cpu->block->insn;
		cpu->cur = NULL;
	}
	longjmp(cpu->catch_fault, 1);
}

void soft_fault(struct soft_cpu *cpu, unsigned vector, uint32_t error)
{
	cpu->fault = (struct soft_event){
		.kind = SOFT_FAULT,
		.vector = (uint8_t)vector,
		.has_error = true,
		.error = error,
	};
	raise_fault(cpu);
}

void soft_fault0(struct soft_cpu *cpu, unsigned vector)
{
	cpu->fault = (struct soft_event){
		.kind = SOFT_FAULT,
		.vector = (uint8_t)vector,
	};
	raise_fault(cpu);
}

void soft_page_fault(struct soft_cpu *cpu, uint64_t la, uint32_t error)
{
	cpu->fault = (struct soft_event){
		.kind = SOFT_FAULT,
		.vector = X86_PF,
		.has_error = true,
		.error = error,
		.cr2 = la,
	};
	raise_fault(cpu);
}

void soft_software_int(struct soft_cpu *cpu, enum soft_event_kind kind,
		       unsigned vector)
{
	cpu->fault = (struct soft_event){
		.kind = (uint8_t)kind,
		.vector = (uint8_t)vector,
	};
	raise_fault(cpu); /* next_rip stays what soft_at() made it */
}

/* After the jump: what is to be delivered now? False: shutdown. */
static bool caught(struct soft_cpu *cpu)
{
	struct soft_event out = cpu->fault;

	cpu->cur = NULL;
	cpu->block = &soft_no_block;
	if (cpu->delivering.kind != SOFT_NO_EVENT) {
		/* Lost or not, a page fault has left its address. */
		if (cpu->fault.kind == SOFT_FAULT &&
		    cpu->fault.vector == X86_PF)
			cpu->cr2 = cpu->fault.cr2;
		if (cpu->was_soft)
			cpu->rip = cpu->int_rip;
		if (!soft_event_combine(&cpu->delivering, &cpu->fault, &out))
			return false;
		cpu->delivering.kind = SOFT_NO_EVENT;
	}
	cpu->inject = out;
	return true;
}

static bool is_software(const struct soft_event *ev)
{
	return ev->kind == SOFT_INTN || ev->kind == SOFT_INT3 ||
	       ev->kind == SOFT_ICEBP;
}

static void deliver(struct soft_cpu *cpu)
{
	cpu->delivering = cpu->inject;
	cpu->inject.kind = SOFT_NO_EVENT;
	cpu->was_soft = is_software(&cpu->delivering);
	if (cpu->was_soft) {
		cpu->int_rip = cpu->rip;
		cpu->rip = cpu->next_rip;
	}
	cpu->shadow = 0;
	soft_event_deliver(cpu, &cpu->delivering);
	cpu->delivering.kind = SOFT_NO_EVENT;
}

/* ---- state that follows from other state ---- */

static bool stepping(const struct soft_cpu *cpu)
{
	return cpu->rflags & FL_TF || cpu->dr7 & 0xff ||
	       (cpu->debug.enabled &&
		(cpu->debug.single_step || cpu->debug.hardware));
}

void soft_mode_changed(struct soft_cpu *cpu)
{
	bool is64 = cpu->efer & EFER_LMA && cpu->seg[X86_CS].attr & SEG_L;
	uint32_t mode = is64				 ? MODE_64
			: cpu->seg[X86_CS].attr & SEG_DB ? MODE_32
							 : 0;

	for (unsigned s = 0; s < X86_SEG_COUNT; s++)
		cpu->ea_base[s] = is64 && s < X86_FS ? 0 : cpu->seg[s].base;
	if (unlikely(stepping(cpu))) {
		mode |= MODE_STEP;
		/* Every access must come to watch() in mmu.c. */
		for (unsigned n = 0; n < SOFT_TLB_SIZE; n++)
			soft_tlb_drop(&cpu->tlb[n]);
	}
	cpu->mode = mode;
	soft_mmu_context(cpu);
}

uint64_t soft_get_flags(const struct soft_cpu *cpu)
{
	return cpu->rflags | fl_get(cpu);
}

void soft_set_flags(struct soft_cpu *cpu, uint64_t rflags)
{
	cpu->rflags = (rflags & ~(uint64_t)FL_ARITH) | 2;
	fl_put(cpu, rflags);
}

uint64_t soft_tsc(struct soft_cpu *cpu)
{
	return __rdtsc() + cpu->tsc_offset;
}

/* ---- events and sleep ---- */

void soft_notify(struct soft_cpu *cpu, uint32_t ev)
{
	__atomic_fetch_or(&cpu->events, ev, __ATOMIC_SEQ_CST);
	/* Pairs with the store in nap(): either we see it sleep, or the futex
	 * sees the bit. */
	if (__atomic_load_n(&cpu->sleeping, __ATOMIC_SEQ_CST))
		syscall(SYS_futex, &cpu->events, FUTEX_WAKE_PRIVATE, 1, NULL,
			NULL, 0);
}

/* Sleep until `events` is not 0, or it is @until (clock_ns()). */
static void nap(struct soft_cpu *cpu, uint64_t until)
{
	struct timespec ts = {
		.tv_sec = (time_t)(until / NSEC_PER_SEC),
		.tv_nsec = (long)(until % NSEC_PER_SEC),
	};

	__atomic_store_n(&cpu->running, false, __ATOMIC_SEQ_CST);
	__atomic_store_n(&cpu->sleeping, 1, __ATOMIC_SEQ_CST);
	if (!__atomic_load_n(&cpu->events, __ATOMIC_SEQ_CST))
		syscall(SYS_futex, &cpu->events,
			FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, 0,
			until == UINT64_MAX ? NULL : &ts, NULL,
			FUTEX_BITSET_MATCH_ANY);
	__atomic_store_n(&cpu->sleeping, 0, __ATOMIC_SEQ_CST);
	__atomic_store_n(&cpu->running, true, __ATOMIC_SEQ_CST);
}

static void take_init(struct soft_cpu *cpu)
{
	lapic_take(cpu->lapic, LAPIC_EV_INIT);
	soft_reset(cpu, true);
	lapic_reset(cpu->lapic, true);
	cpu->irq_wait = false;
	/* The boot processor starts over at the reset vector. */
	cpu->mp_state = cpu->apic_base & APIC_BASE_BSP ? HV_X86_RUNNABLE
						       : HV_X86_WAIT_SIPI;
}

static bool waits_for_sipi(const struct soft_cpu *cpu)
{
	return cpu->mp_state == HV_X86_WAIT_SIPI ||
	       cpu->mp_state == HV_X86_UNINITIALIZED;
}

/*
 * What the LAPIC has for us. True when something is to be delivered (in
 * cpu->inject); irq_wait remembers what IF or the shadow forbade.
 */
static bool take_interrupt(struct soft_cpu *cpu)
{
	unsigned ev = lapic_events(cpu->lapic);
	int vector;

	cpu->irq_wait = false;
	if (likely(!ev))
		return false;
	if (ev & LAPIC_EV_INIT) {
		take_init(cpu);
		ev = lapic_events(cpu->lapic);
	}
	if (ev & LAPIC_EV_SIPI) {
		vector = lapic_take_sipi(cpu->lapic);
		if (vector >= 0 && waits_for_sipi(cpu)) {
			soft_sipi(cpu, (unsigned)vector);
			cpu->mp_state = HV_X86_RUNNABLE;
		}
	}
	if (waits_for_sipi(cpu))
		return false;
	if (ev & LAPIC_EV_NMI) {
		if (!cpu->nmi_masked && !cpu->shadow) {
			lapic_take(cpu->lapic, LAPIC_EV_NMI);
			cpu->nmi_masked = true;
			cpu->mp_state = HV_X86_RUNNABLE;
			cpu->inject = (struct soft_event){ .kind = SOFT_NMI,
							   .vector = 2 };
			cpu->irq_wait = true;
			return true;
		}
		cpu->irq_wait = true;
	}
	if (!(ev & LAPIC_EV_INTR))
		return false;
	cpu->irq_wait = true;
	if (!(cpu->rflags & FL_IF) || cpu->shadow)
		return false;
	vector = lapic_accept(cpu->lapic);
	if (vector < 0)
		return false;
	soft_count(&cpu->counters.irqs, 1);
	cpu->mp_state = HV_X86_RUNNABLE;
	cpu->inject = (struct soft_event){ .kind = SOFT_EXTERNAL,
					   .vector = (uint8_t)vector };
	return true;
}

/* Asynchronous requests; true: leave soft_run(). */
static bool take_events(struct soft_cpu *cpu)
{
	uint32_t ev = __atomic_exchange_n(&cpu->events, 0, __ATOMIC_SEQ_CST);

	if (ev & SOFT_EV_CODE)
		soft_code_messages(cpu);
	if (ev & SOFT_EV_TLB) {
		soft_mmu_protect_all(cpu);
		__atomic_fetch_add(&cpu->acks, 1, __ATOMIC_SEQ_CST);
		syscall(SYS_futex, &cpu->acks, FUTEX_WAKE_PRIVATE, INT32_MAX,
			NULL, NULL, 0);
	}
	if (ev & SOFT_EV_IRQ)
		cpu->irq_wait = true;
	if (ev & SOFT_EV_KICK) {
		soft_count(&cpu->counters.kicks, 1);
		cpu->exit->reason = HV_EXIT_KICKED;
		return true;
	}
	return false;
}

/* What the budget says, to where others may read it. */
static void count_instructions(struct soft_cpu *cpu)
{
	soft_count(&cpu->counters.instructions,
		   (uint64_t)(cpu->budget_start - cpu->budget));
	cpu->budget_start = cpu->budget;
}

/* mp_state is not RUNNABLE and nothing woke it: sleep once. */
static void halt(struct soft_cpu *cpu)
{
	uint64_t until = lapic_sleep_begin(cpu->lapic);

	soft_count(&cpu->counters.halts, 1);
	count_instructions(cpu);
	nap(cpu, waits_for_sipi(cpu) ? UINT64_MAX : until);
	lapic_sleep_end(cpu->lapic);
	cpu->irq_wait = true;
}

static void refill(struct soft_cpu *cpu)
{
	count_instructions(cpu);
	cpu->budget = cpu->budget_start = BUDGET;
	if (lapic_timer_deadline(cpu->lapic) <= clock_ns()) {
		lapic_timer_poll(cpu->lapic);
		cpu->irq_wait = true;
	}
}

/* ---- execution ---- */

static inline void go(struct soft_cpu *cpu, struct soft_block *b)
{
	cpu->gpr[SOFT_RIP] = cpu->rip;
	cpu->block = b;
	SOFT_GO(cpu, b->insn);
#if SOFT_PLAIN
	while (cpu->ip) {
		struct insn *i = cpu->ip;

		cpu->ip = NULL;
		i->fn(cpu, i);
	}
#endif
	cpu->cur = NULL;
}

/* Does an execution breakpoint match here? DR6 bits. */
static uint32_t code_breakpoint(struct soft_cpu *cpu, uint64_t dr7,
				const uint64_t *dr)
{
	uint64_t la = cpu->rip + cpu->ea_base[X86_CS];
	uint32_t hits = 0;

	for (unsigned n = 0; n < 4; n++)
		if (dr7 >> 2 * n & 3 && !(dr7 >> (16 + 4 * n) & 3) &&
		    dr[n] == la)
			hits |= 1u << n;
	return hits;
}

static bool debug_exit(struct soft_cpu *cpu, uint64_t dr6)
{
	cpu->exit->reason = HV_EXIT_DEBUG;
	cpu->exit->debug.rip = cpu->rip;
	cpu->exit->debug.dr6 = dr6;
	cpu->exit->debug.dr7 = cpu->debug.hardware ? cpu->debug.dr7 : cpu->dr7;
	cpu->exit->debug.software = false;
	return true;
}

#define DR6_BS (1u << 14)

/* One instruction with all debugging looked at; true: leave soft_run(). */
static bool step(struct soft_cpu *cpu)
{
	bool tf = cpu->rflags & FL_TF;
	bool mine = cpu->debug.enabled && cpu->debug.hardware;
	uint64_t dr7 = mine ? cpu->debug.dr7 : cpu->dr7;
	const uint64_t *dr = mine ? cpu->debug.dr : cpu->dr;
	uint32_t hits = 0;
	int64_t budget;

	if (!(cpu->rflags & FL_RF))
		hits = code_breakpoint(cpu, dr7, dr);
	if (hits && mine) {
		/* The one who looks must be able to go on from here. */
		cpu->rflags |= FL_RF;
		return debug_exit(cpu, hits);
	}
	if (hits) {
		cpu->inject = (struct soft_event){ .kind = SOFT_FAULT,
						   .vector = X86_DB,
						   .dr6 = hits };
		return false;
	}
	cpu->watch_hits = 0;
	cpu->rflags &= ~(uint64_t)FL_RF;
	budget = cpu->budget;
	cpu->budget = 0; /* so that no handler chains on */
	go(cpu, soft_block_at(cpu, cpu->rip));
	cpu->budget = budget - 1;
	if (cpu->shadow == 2) /* MOV SS holds everything off once */
		return false;
	hits = cpu->watch_hits;
	if (mine && hits)
		return debug_exit(cpu, hits);
	if (tf)
		hits |= DR6_BS;
	if (hits)
		cpu->inject = (struct soft_event){ .kind = SOFT_TRAP,
						   .vector = X86_DB,
						   .dr6 = hits };
	if (cpu->debug.enabled && cpu->debug.single_step)
		return debug_exit(cpu, DR6_BS);
	return false;
}

/* Let exactly one instruction pass the shadow of STI or MOV SS. */
static void pass_shadow(struct soft_cpu *cpu)
{
	uint32_t mode = cpu->mode;
	int64_t budget = cpu->budget;

	cpu->shadow = 0;
	cpu->mode = mode | MODE_STEP;
	cpu->one_shot = true;
	cpu->budget = 0;
	go(cpu, soft_block_at(cpu, cpu->rip));
	cpu->budget = budget - 1;
	if (cpu->one_shot && cpu->mode == (mode | MODE_STEP))
		cpu->mode = mode;
	cpu->one_shot = false;
}

static bool guest_breakpoint(struct soft_cpu *cpu)
{
	if (!cpu->debug.enabled || !cpu->debug.software_breakpoints ||
	    cpu->inject.kind != SOFT_INT3 || cpu->inject.vector != X86_BP)
		return false;
	cpu->inject.kind = SOFT_NO_EVENT;
	debug_exit(cpu, 0);
	cpu->exit->debug.software = true;
	return true;
}

int soft_run(struct soft_cpu *cpu, struct hv_exit *exit)
{
	cpu->exit = exit;
	__atomic_store_n(&cpu->running, true, __ATOMIC_SEQ_CST);
	if (cpu->shutdown)
		goto shutdown;
	if (_setjmp(cpu->catch_fault)) {
		if (cpu->one_shot) {
			cpu->one_shot = false;
			soft_mode_changed(cpu);
		}
		if (!caught(cpu))
			goto shutdown;
	}
	for (;;) {
		/* First: others may count on it before we store anything. */
		if (__atomic_load_n(&cpu->events, __ATOMIC_ACQUIRE) &&
		    take_events(cpu))
			break;
		if (cpu->inject.kind != SOFT_NO_EVENT) {
			if (guest_breakpoint(cpu))
				break;
			deliver(cpu);
		}
		if (unlikely(cpu->budget < 0))
			refill(cpu);
		if (cpu->irq_wait && take_interrupt(cpu))
			continue;
		if (unlikely(cpu->mp_state != HV_X86_RUNNABLE)) {
			halt(cpu);
			continue;
		}
		if (unlikely(cpu->mode & MODE_STEP)) {
			cpu->shadow = 0;
			if (step(cpu))
				break;
			continue;
		}
		if (cpu->shadow) {
			if (cpu->irq_wait) {
				pass_shadow(cpu);
				continue;
			}
			cpu->shadow = 0;
		}
		go(cpu, soft_block_at(cpu, cpu->rip));
	}
	goto out;
shutdown:
	cpu->shutdown = true;
	exit->reason = HV_EXIT_SHUTDOWN;
out:
	cpu->cur = NULL;
	count_instructions(cpu);
	__atomic_store_n(&cpu->running, false, __ATOMIC_SEQ_CST);
	return 0;
}
