/*
 * The software x86-64 CPU: one vCPU's state, the decoded instruction, and who
 * calls whom inside the engine.
 *
 * Theory of operation. Guest code is decoded into blocks of `struct insn`,
 * each with the address of the C function that executes it (its handler); a
 * handler ends by tail-calling the next one's. A block ends at a branch, at an
 * instruction that changes the machine's mode, or at a page end, and there the
 * vCPU looks at `events`, the one word others set to get its attention.
 *
 * Faults. A fault is raised by soft_fault() (and its shorthands), which never
 * return: they jump back to the run loop, which makes the fault an exception
 * and delivers it. So a function that may fault does everything that can fault
 * before it changes guest state, and holds no resource (lock, memory) across
 * such a call. Nothing checks return codes for faults.
 *
 * RIP. While a block runs, gpr[SOFT_RIP] is the RIP of the block's first
 * instruction and insn.off the distance from there. Handlers that call into
 * the system part first store cpu->rip (this instruction, what a fault
 * pushes) and cpu->next_rip (the one after, where execution goes on). A system
 * function that transfers control changes next_rip and nothing else; the
 * handler's end takes it from there.
 *
 * Flags. The six arithmetic flags live in fl_res, fl_cv, fl_ap (see flags.h);
 * cpu->rflags holds all others. Read and write the whole by soft_get_flags()
 * and soft_set_flags().
 *
 * Threads. Everything in struct soft_cpu belongs to the vCPU's thread, except
 * what is marked "any thread".
 */
#ifndef ARC_HV_SOFT_CPU_H
#define ARC_HV_SOFT_CPU_H

#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>

#include "hv/hv.h"
#include "hv/x86_state.h"

struct soft_cpu;
struct soft_vm;
struct soft_block;
struct lapic;
struct insn;

/* gpr[] past the sixteen: */
enum {
	SOFT_ZERO = 16, /* always 0: "no base", "no index" */
	SOFT_RIP = 17, /* the running block's start */
	SOFT_GPRS = 18,
};

typedef void soft_handler(struct soft_cpu *cpu, struct insn *i);

/* insn.flags */
enum {
	INSN_LOCK = 1 << 0,
	INSN_REP = 1 << 1, /* F3 */
	INSN_REPNE = 1 << 2, /* F2 */
	INSN_OSIZE = 1 << 3, /* 66 was there */
	INSN_REX = 1 << 4, /* any REX byte */
	INSN_REXW = 1 << 5,
	INSN_MEM = 1 << 6, /* the ModRM operand is memory */
	INSN_SLOW_EA = 1 << 7, /* soft_ea() must mask, check the limit, wrap */
};

/*
 * One decoded instruction. Register numbers have REX folded in. An 8-bit
 * *general register* operand of an integer instruction is the byte's offset in
 * cpu->gpr[] instead (so AH is 1, CL is 8): see soft_reg8().
 *
 * The effective address is gpr[base] + (gpr[index] << scale) + disp, cut to
 * the address size, plus the segment base; a RIP-relative one has base
 * SOFT_RIP and a disp that already counts from there.
 */
struct insn {
	soft_handler *fn;
	int64_t disp;
	union {
		uint64_t imm; /* sign-extended to 64 bits as the opcode says */
		int64_t simm;
	};
	/* The executing part may keep something here (SSE: its thunk). */
	void *aux;
	uint16_t off; /* from the block's start */
	uint8_t len;
	uint8_t flags; /* INSN_* */
	uint8_t reg; /* ModRM.reg, or the register in the opcode */
	uint8_t rm; /* ModRM.rm when it is a register */
	uint8_t base, index, scale; /* when INSN_MEM */
	uint8_t seg; /* enum x86_seg, overrides applied */
	uint8_t osize; /* operand size in bytes: 2, 4, 8 (1: byte form) */
	uint8_t asize; /* address size in bytes: 2, 4, 8 */
	uint8_t map; /* 0: one-byte, 1: 0F, 2: 0F38, 3: 0F3A */
	uint8_t opcode;
	uint8_t modrm;
	uint8_t pfx; /* SSE mandatory prefix: 0, 0x66, 0xf2, 0xf3 */
};

/* A segment register with its cached descriptor. */
#define soft_seg hv_x86_segment

/* cpu->events: why the vCPU must leave the fast path. Any thread, atomic or. */
enum {
	SOFT_EV_KICK = 1 << 0, /* hv_vcpu_kick() */
	SOFT_EV_IRQ = 1 << 1, /* ask the LAPIC: something may be deliverable */
	SOFT_EV_CODE = 1 << 2, /* block.h's messages: pages to kill, protect */
	SOFT_EV_TLB = 1 << 3, /* drop writable TLB entries (dirty log) */
};

/* An exception or interrupt on its way into the guest. */
enum soft_event_kind {
	SOFT_NO_EVENT,
	SOFT_FAULT, /* rip is pushed */
	SOFT_TRAP, /* rip is pushed: the run loop moved it past already */
	SOFT_INTN, /* INT n: DPL of the gate is checked; #GP error has no EXT */
	SOFT_INT3, /* INT3, INTO: as INTN */
	SOFT_ICEBP, /* INT1: as a hardware exception */
	SOFT_EXTERNAL, /* from the LAPIC */
	SOFT_NMI,
};

struct soft_event {
	uint8_t kind; /* enum soft_event_kind */
	uint8_t vector;
	bool has_error;
	uint32_t error;
	uint64_t cr2; /* of a page fault: loaded when it is delivered */
	uint64_t dr6; /* of a #DB: bits to set in DR6 when delivered */
};

enum {
	X86_DE = 0,
	X86_DB = 1,
	X86_BP = 3,
	X86_OF = 4,
	X86_BR = 5,
	X86_UD = 6,
	X86_NM = 7,
	X86_DF = 8,
	X86_TS = 10,
	X86_NP = 11,
	X86_SS_FAULT = 12,
	X86_GP = 13,
	X86_PF = 14,
	X86_MF = 16,
	X86_AC = 17,
	X86_MC = 18,
	X86_XM = 19,
};

/* rflags */
#define FL_CF	 (1u << 0)
#define FL_PF	 (1u << 2)
#define FL_AF	 (1u << 4)
#define FL_ZF	 (1u << 6)
#define FL_SF	 (1u << 7)
#define FL_TF	 (1u << 8)
#define FL_IF	 (1u << 9)
#define FL_DF	 (1u << 10)
#define FL_OF	 (1u << 11)
#define FL_IOPL	 (3u << 12)
#define FL_NT	 (1u << 14)
#define FL_RF	 (1u << 16)
#define FL_VM	 (1u << 17)
#define FL_AC	 (1u << 18)
#define FL_VIF	 (1u << 19)
#define FL_VIP	 (1u << 20)
#define FL_ID	 (1u << 21)
#define FL_ARITH (FL_CF | FL_PF | FL_AF | FL_ZF | FL_SF | FL_OF)

#define CR0_PE	     (1u << 0)
#define CR0_MP	     (1u << 1)
#define CR0_EM	     (1u << 2)
#define CR0_TS	     (1u << 3)
#define CR0_ET	     (1u << 4)
#define CR0_NE	     (1u << 5)
#define CR0_WP	     (1u << 16)
#define CR0_AM	     (1u << 18)
#define CR0_NW	     (1u << 29)
#define CR0_CD	     (1u << 30)
#define CR0_PG	     (1u << 31)
#define CR4_VME	     (1u << 0)
#define CR4_PVI	     (1u << 1)
#define CR4_TSD	     (1u << 2)
#define CR4_DE	     (1u << 3)
#define CR4_PSE	     (1u << 4)
#define CR4_PAE	     (1u << 5)
#define CR4_MCE	     (1u << 6)
#define CR4_PGE	     (1u << 7)
#define CR4_PCE	     (1u << 8)
#define CR4_OSFXSR   (1u << 9)
#define CR4_OSXMMEXC (1u << 10)
#define CR4_UMIP     (1u << 11)
#define CR4_FSGSBASE (1u << 16)
#define CR4_PCIDE    (1u << 17)
#define CR4_OSXSAVE  (1u << 18)
#define CR4_SMEP     (1u << 20)
#define CR4_SMAP     (1u << 21)
#define EFER_SCE     (1u << 0)
#define EFER_LME     (1u << 8)
#define EFER_LMA     (1u << 10)
#define EFER_NXE     (1u << 11)
#define EFER_FFXSR   (1u << 14)

/* attr bits of struct hv_x86_segment */
#define SEG_TYPE    0xfu
#define SEG_S	    (1u << 4)
#define SEG_DPL(a)  (((a) >> 5) & 3)
#define SEG_P	    (1u << 7)
#define SEG_AVL	    (1u << 12)
#define SEG_L	    (1u << 13)
#define SEG_DB	    (1u << 14)
#define SEG_G	    (1u << 15)
#define SEG_CODE    8u /* with SEG_S: type bit 3 */
#define SEG_WRITE   2u /* data: writable; code: readable */
#define SEG_EXPDOWN 4u /* data: expand down; code: conforming */

/*
 * cpu->mode: what the decoder and the block key depend on. MODE_STEP blocks
 * hold one instruction (TF, debug registers, HV debugging).
 */
enum {
	MODE_64 = 1 << 0, /* long mode with CS.L */
	MODE_32 = 1 << 1, /* CS.D (not with MODE_64) */
	MODE_STEP = 1 << 2,
};

/*
 * First-level TLB: see mmu.c. Tags are page | context. Other vCPUs look at wtag
 * and paddr (soft_mmu_writes()), so these two are stored atomically.
 */
#define SOFT_TLB_BITS  9
#define SOFT_TLB_SIZE  (1u << SOFT_TLB_BITS)
#define SOFT_XTLB_BITS 8
#define SOFT_XTLB_SIZE (1u << SOFT_XTLB_BITS)
struct soft_tlb {
	uint64_t rtag, wtag;
	uint64_t addend; /* host address = linear address + addend */
	uint64_t paddr; /* of the page */
};
struct soft_xtlb {
	uint64_t tag;
	uint64_t paddr;
};
#define SOFT_TLB_NONE (~0ull) /* a tag that no access has */

/* Not writable any more. */
static inline void soft_tlb_protect(struct soft_tlb *t)
{
	__atomic_store_n(&t->wtag, SOFT_TLB_NONE, __ATOMIC_RELAXED);
}

static inline void soft_tlb_drop(struct soft_tlb *t)
{
	t->rtag = SOFT_TLB_NONE;
	soft_tlb_protect(t);
}

struct soft_mmu;
struct soft_code;

struct soft_cpu {
	struct hv_vcpu hv; /* first */

	/* What every handler touches. */
	uint64_t gpr[SOFT_GPRS];
	uint64_t fl_res, fl_cv;
	uint32_t fl_ap;
	uint32_t mode; /* MODE_*: soft_mode_changed() computes it */
	int64_t budget; /* instructions until time is looked at again */
	uint32_t events; /* any thread */
	uint32_t sleeping; /* any thread: in a futex on events */
	uint32_t tlb_ctx; /* low bits of matching tags: space and CPL */
	uint64_t ea_base[8]; /* segment bases as this mode applies them */
	struct soft_tlb tlb[SOFT_TLB_SIZE];
	struct soft_xtlb xtlb[SOFT_XTLB_SIZE];

	uint64_t rip, next_rip; /* see the top */
	uint64_t rflags; /* without FL_ARITH; bit 1 set */
	uint8_t cpl;
	struct soft_seg seg[X86_SEG_COUNT], tr, ldt;
	struct hv_x86_table gdt, idt;
	uint64_t cr0, cr2, cr3, cr4, efer, apic_base;
	uint64_t dr[4], dr6, dr7;
	uint64_t xcr0;
	uint64_t msr[HV_MSR_COUNT]; /* kept as written; see msr.c */
	uint64_t pdpte[4]; /* PAE paging: loaded with CR3 */

	/* FXSAVE image: x87, MMX, XMM, MXCSR. */
	uint8_t fx[512] __attribute__((aligned(64)));

	/* Events. */
	jmp_buf catch_fault; /* where soft_fault() goes */
	struct soft_event fault; /* what it raised */
	struct soft_event delivering; /* kind != 0: in soft_event_deliver() */
	struct soft_event inject; /* deliver before running on */
	uint64_t int_rip; /* of the INT n being delivered */
	bool was_soft; /* delivering is one of those */
	uint32_t watch_hits; /* data breakpoints this instruction hit */
	uint8_t shadow; /* 1 STI, 2 MOV SS: until the next instruction ends */
	bool nmi_masked; /* until IRET */
	uint32_t mp_state; /* enum hv_x86_mp_state */
	bool shutdown; /* triple fault */

	struct soft_vm *vm;
	struct soft_cpu *grave_next; /* destroyed, freed with the VM */
	struct lapic *lapic;
	struct soft_mmu *mmu; /* second-level TLB, paging mode */
	struct soft_code *code; /* block cache */
	struct soft_sse *sse; /* thunks: sse.c's */
	/* What lets op_fpu.c's handlers run: see fpstate.c. */
	bool sse_ok; /* CR0 and CR4 allow XMM instructions */
	bool sse_fp; /* and MXCSR is the default: it is in the host's */
	bool x87_live; /* the guest's x87 registers are in the host's */
	struct hv_x86_cpuid cpuid[HV_X86_CPUID_MAX];
	unsigned ncpuid;

	uint64_t tsc_offset; /* guest TSC = host TSC + this */
	struct hv_counters counters; /* read by any thread: soft_count() */
	int64_t budget_start; /* what budget was when last counted from */
	uint32_t acks; /* any thread: SOFT_EV_TLB taken so often */
	bool running; /* any thread: between start and end of soft_run() */
	struct hv_debug debug;
	struct hv_exit *exit; /* where a handler leaves the reason */
	struct soft_block *block; /* last one entered */
	struct insn *cur; /* the instruction in a slow path; NULL: none */
	struct insn *ip; /* op.h: next, in builds without tail calls */
	bool one_shot; /* mode has MODE_STEP for one instruction only */
	unsigned pauses; /* PAUSE executed */
	bool irq_wait; /* the LAPIC has something that IF forbade */
	/* A read-modify-write under way on the slow path: one or two pieces. */
	struct {
		uint64_t pa[2];
		unsigned len[2];
		bool locked;
	} rmw;
};

/* A counter has one writer and any reader. */
static inline void soft_count(uint64_t *n, uint64_t by)
{
	__atomic_store_n(n, *n + by, __ATOMIC_RELAXED);
}

static inline struct soft_cpu *soft_cpu_of(struct hv_vcpu *v)
{
	return (struct soft_cpu *)v;
}

static inline uint8_t *soft_reg8(struct soft_cpu *cpu, unsigned off)
{
	return (uint8_t *)cpu->gpr + off;
}

static inline bool soft_long_mode(const struct soft_cpu *cpu)
{
	return cpu->efer & EFER_LMA;
}

static inline bool soft_protected(const struct soft_cpu *cpu)
{
	return (cpu->cr0 & CR0_PE) && !(cpu->rflags & FL_VM);
}

static inline bool soft_canonical(uint64_t a)
{
	return (uint64_t)((int64_t)(a << 16) >> 16) == a;
}

/* ---- raising faults (run.c) ---- */

/* #vec with an error code. cpu->rip need not be set: see soft_at(). */
void soft_fault(struct soft_cpu *cpu, unsigned vector, uint32_t error)
	__attribute__((noreturn, cold));
/* ... without one (UD, NM, DB, DE, ...). */
void soft_fault0(struct soft_cpu *cpu, unsigned vector)
	__attribute__((noreturn, cold));
void soft_page_fault(struct soft_cpu *cpu, uint64_t la, uint32_t error)
	__attribute__((noreturn, cold));
/* INT n, INT3, INTO, INT1 from their handlers: leaves with the event. */
void soft_software_int(struct soft_cpu *cpu, enum soft_event_kind kind,
		       unsigned vector) __attribute__((noreturn));

/*
 * CS, CR0, EFER, RFLAGS.TF/VM, DR7, debug or a segment base changed: recompute
 * cpu->mode, cpl-dependent TLB context and ea_base[]. Cheap. Whoever changes
 * cpu->cpl, seg[], cr0, efer calls it once, afterwards.
 */
void soft_mode_changed(struct soft_cpu *cpu);

/* The whole RFLAGS. set: bit 1 forced, arithmetic flags unpacked; the caller
 * has masked what may not change and calls soft_mode_changed() for TF, VM. */
uint64_t soft_get_flags(const struct soft_cpu *cpu);
void soft_set_flags(struct soft_cpu *cpu, uint64_t rflags);

/* Guest TSC now: monotonic across vCPUs. */
uint64_t soft_tsc(struct soft_cpu *cpu);

/* Any thread: or @ev into cpu->events and wake the vCPU if it sleeps. */
void soft_notify(struct soft_cpu *cpu, uint32_t ev);

/* ---- memory (mmu.c), all by *linear* address ---- */

enum soft_access {
	SOFT_DATA, /* with the current CPL (and SMAP/AC) */
	SOFT_SYSTEM, /* implicit supervisor: GDT, IDT, TSS; SMAP applies */
	SOFT_USER, /* as if CPL were 3 */
};

/* @size 1, 2, 4, 8. Any alignment, page crossings included; a write that
 * crosses faults before any byte is written. Non-canonical: #GP(0), #SS(0)
 * when cpu->cur says that the operand is on the stack. */
uint64_t soft_read(struct soft_cpu *cpu, uint64_t la, unsigned size,
		   enum soft_access how);
void soft_write(struct soft_cpu *cpu, uint64_t la, unsigned size, uint64_t val,
		enum soft_access how);
/* Any length up to 4096 (FXSAVE, descriptors, 16-byte operands). */
void soft_read_bytes(struct soft_cpu *cpu, uint64_t la, void *buf, unsigned len,
		     enum soft_access how);
void soft_write_bytes(struct soft_cpu *cpu, uint64_t la, const void *buf,
		      unsigned len, enum soft_access how);
/* Fault now if a write of [la, la + len) would. */
void soft_probe_write(struct soft_cpu *cpu, uint64_t la, unsigned len,
		      enum soft_access how);

/* The linear address of the memory operand, limit-checked for @len bytes. */
uint64_t soft_ea(struct soft_cpu *cpu, const struct insn *i, unsigned len,
		 bool write);
/* The bare effective address (LEA, INVLPG's before the segment). */
uint64_t soft_lea(const struct soft_cpu *cpu, const struct insn *i);
/* Offset in segment -> linear, with limit and type checks (string, stack). */
uint64_t soft_seg_la(struct soft_cpu *cpu, unsigned seg, uint64_t off,
		     unsigned len, bool write);

/* Physical: RAM or bus. No faults. */
uint64_t soft_phys_read(struct soft_cpu *cpu, uint64_t pa, unsigned size);
void soft_phys_write(struct soft_cpu *cpu, uint64_t pa, unsigned size,
		     uint64_t val);

/* TLB maintenance: what MOV CRn, INVLPG, INVPCID, WRMSR EFER end in. */
void soft_tlb_flush_all(struct soft_cpu *cpu); /* global ones too */
void soft_tlb_flush_nonglobal(struct soft_cpu *cpu); /* current PCID */
void soft_tlb_flush_pcid(struct soft_cpu *cpu, unsigned pcid); /* nonglobal */
void soft_tlb_flush_page(struct soft_cpu *cpu, uint64_t la); /* current, + G */
void soft_tlb_flush_page_pcid(struct soft_cpu *cpu, uint64_t la, unsigned pcid);
void soft_tlb_flush_all_nonglobal(struct soft_cpu *cpu); /* every PCID */
/*
 * CR0/CR3/CR4/EFER were checked and stored: paging mode and current space are
 * taken from them anew. After MOV CR3 call soft_tlb_flush_nonglobal() too,
 * unless bit 63 forbade it. Loads PDPTEs under PAE: #GP(0) when they are bad
 * (call soft_pdpte_check() before storing CR3).
 */
void soft_paging_changed(struct soft_cpu *cpu);
/* PAE: would CR3 = @cr3 load? */
bool soft_pdpte_check(struct soft_cpu *cpu, uint64_t cr3);

/* ---- the system part: called by handlers with rip and next_rip set ---- */

/*
 * Deliver @ev: push, switch stack, load CS:RIP; cpu->rip is what to push on
 * entry and the handler's first instruction on return. May fault (the run loop
 * combines the two) and then has changed nothing. Clears shadow, and HLT state.
 */
void soft_event_deliver(struct soft_cpu *cpu, const struct soft_event *ev);
/*
 * A fault @second met while delivering @first: what to deliver instead, in
 * *out (the second, or #DF). False: triple fault.
 */
bool soft_event_combine(const struct soft_event *first,
			const struct soft_event *second,
			struct soft_event *out);

/* MOV/POP/LxS to a segment register other than CS: checks and cached part. */
void soft_load_seg(struct soft_cpu *cpu, enum x86_seg seg, uint16_t sel);
void soft_lldt(struct soft_cpu *cpu, uint16_t sel);
void soft_ltr(struct soft_cpu *cpu, uint16_t sel);
/* LAR, LSL, VERR, VERW: false (ZF = 0) when not accessible. */
bool soft_lar(struct soft_cpu *cpu, uint16_t sel, uint32_t *out);
bool soft_lsl(struct soft_cpu *cpu, uint16_t sel, uint32_t *out);
bool soft_verr(struct soft_cpu *cpu, uint16_t sel, bool write);

/* @osize 2, 4, 8: size of the offset, of what is pushed and popped. */
void soft_far_jmp(struct soft_cpu *cpu, uint16_t sel, uint64_t off,
		  unsigned osize);
void soft_far_call(struct soft_cpu *cpu, uint16_t sel, uint64_t off,
		   unsigned osize);
void soft_far_ret(struct soft_cpu *cpu, unsigned osize, unsigned drop);
void soft_iret(struct soft_cpu *cpu, unsigned osize);
void soft_syscall(struct soft_cpu *cpu);
void soft_sysret(struct soft_cpu *cpu, unsigned osize);
void soft_sysenter(struct soft_cpu *cpu);
void soft_sysexit(struct soft_cpu *cpu, unsigned osize);
void soft_swapgs(struct soft_cpu *cpu);

/* PUSHF, POPF, CLI, STI with IOPL, VM86 and VIF rules. */
uint64_t soft_pushf_value(struct soft_cpu *cpu, unsigned osize);
void soft_popf(struct soft_cpu *cpu, uint64_t val, unsigned osize);
void soft_cli(struct soft_cpu *cpu);
void soft_sti(struct soft_cpu *cpu); /* sets shadow = 1 if IF was 0 */

/* RDMSR, WRMSR: CPL is checked inside; #GP(0) for what is not there. */
uint64_t soft_rdmsr(struct soft_cpu *cpu, uint32_t msr);
void soft_wrmsr(struct soft_cpu *cpu, uint32_t msr, uint64_t val);
/* The instruction: EAX..EDX from EAX, ECX. */
void soft_cpuid(struct soft_cpu *cpu);
int soft_supported_cpuid(struct hv_x86_cpuid *leaves, unsigned max);

/* MOV CRn, MOV DRn: CPL, reserved bits, transitions, TLB consequences. */
uint64_t soft_mov_from_cr(struct soft_cpu *cpu, unsigned n);
void soft_mov_to_cr(struct soft_cpu *cpu, unsigned n, uint64_t val);
uint64_t soft_mov_from_dr(struct soft_cpu *cpu, unsigned n);
void soft_mov_to_dr(struct soft_cpu *cpu, unsigned n, uint64_t val);
/*
 * 0F 00, 0F 01 groups and their relatives as whole instructions (they read
 * @i): SLDT STR LLDT LTR VERR VERW, SGDT SIDT LGDT LIDT SMSW LMSW INVLPG
 * SWAPGS RDTSCP, CLAC STAC, MONITOR/MWAIT (#UD), VMCALL (KVM hypercalls);
 * INVPCID; CLTS; RDFSBASE..WRGSBASE; RDTSC; RDPMC.
 */
void soft_group6(struct soft_cpu *cpu, struct insn *i);
void soft_group7(struct soft_cpu *cpu, struct insn *i);
void soft_invpcid(struct soft_cpu *cpu, struct insn *i);
void soft_clts(struct soft_cpu *cpu);
void soft_fsgsbase(struct soft_cpu *cpu, struct insn *i);
void soft_rdtsc(struct soft_cpu *cpu);
void soft_rdpmc(struct soft_cpu *cpu);
/* I/O permission for IN, OUT, INS, OUTS (CPL, IOPL, TSS bitmap): faults. */
void soft_io_check(struct soft_cpu *cpu, unsigned port, unsigned size);

/* RESET (@init false) or INIT: the SDM's table 9-1. SIPI: CS:IP. */
void soft_reset(struct soft_cpu *cpu, bool init);
void soft_sipi(struct soft_cpu *cpu, unsigned vector);

/* ---- SSE, MMX, x87 (sse.c, x87.c) ---- */

/*
 * Execute any instruction of the maps 0F, 0F38, 0F3A that names XMM or MMX
 * registers, plus FXSAVE/FXRSTOR/LDMXCSR/STMXCSR (0F AE memory forms),
 * CRC32/POPCNT are integer and not here. Checks CR0.EM/TS, CR4.OSFXSR (#UD,
 * #NM), alignment (#GP), unmasked SIMD exceptions (#XM). #UD for an encoding
 * that is not there. The memory operand is read and written by
 * soft_read_bytes()/soft_write_bytes() at soft_ea().
 */
void soft_sse_exec(struct soft_cpu *cpu, struct insn *i);
/* D8..DF and 9B (FWAIT). */
void soft_x87_exec(struct soft_cpu *cpu, struct insn *i);
/* op_fpu.c: give @i a lean handler for good; false: it has none. */
bool soft_sse_specialise(struct soft_cpu *cpu, struct insn *i);
bool soft_x87_specialise(struct soft_cpu *cpu, struct insn *i);
int soft_sse_init(struct soft_cpu *cpu); /* 0 or -errno */
/* Around soft_run(): see fpstate.c. */
void soft_fp_enter(struct soft_cpu *cpu);
void soft_fp_leave(struct soft_cpu *cpu);
/* CR0, CR4 or MXCSR changed. */
void soft_fp_changed(struct soft_cpu *cpu);
void soft_sse_fini(struct soft_cpu *cpu);

#endif
