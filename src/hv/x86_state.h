/*
 * The architectural state of an x86-64 vCPU as one plain struct, the same for
 * every engine: what hv_vcpu_get_state() returns under KVM, hv_vcpu_set_state()
 * accepts under the software CPU, and a snapshot keeps.
 *
 * Encodings are the SDM's: segment attributes as in the VMCS access rights
 * (vol. 3, 25.4.1), FXSAVE image (vol. 1, 10.5.1), LAPIC register page
 * (vol. 3, 11.4.1) with 16-byte spacing.
 */
#ifndef ARC_HV_X86_STATE_H
#define ARC_HV_X86_STATE_H

#include <stdint.h>

/* Index of gpr[]: the ModRM/REX encoding. */
enum x86_gpr {
	X86_RAX,
	X86_RCX,
	X86_RDX,
	X86_RBX,
	X86_RSP,
	X86_RBP,
	X86_RSI,
	X86_RDI,
	X86_R8,
	X86_R9,
	X86_R10,
	X86_R11,
	X86_R12,
	X86_R13,
	X86_R14,
	X86_R15,
};

/* Index of seg[]: the encoding of MOV Sreg. */
enum x86_seg {
	X86_ES,
	X86_CS,
	X86_SS,
	X86_DS,
	X86_FS,
	X86_GS,
	X86_SEG_COUNT,
};

struct hv_x86_segment {
	uint64_t base;
	uint32_t limit; /* in bytes, granularity applied */
	uint16_t selector;
	uint16_t attr; /* bits 0-3 type, 4 S, 5-6 DPL, 7 P, 12 AVL, 13 L,
			  14 D/B, 15 G, as VMX; bit X86_SEG_UNUSABLE */
};
#define X86_SEG_UNUSABLE (1u << 8) /* null selector loaded */

struct hv_x86_table {
	uint64_t base;
	uint16_t limit;
};

/* Multiprocessor state: what an AP waits for. */
enum hv_x86_mp_state {
	HV_X86_RUNNABLE,
	HV_X86_HALTED, /* HLT, woken by an interrupt */
	HV_X86_WAIT_SIPI, /* after INIT, woken by SIPI */
	HV_X86_UNINITIALIZED, /* an AP before its first INIT */
};

/*
 * MSRs that are state and have no field of their own. The order is the
 * snapshot's: append only.
 */
enum hv_x86_msr {
	HV_MSR_STAR, /* c0000081 */
	HV_MSR_LSTAR, /* c0000082 */
	HV_MSR_CSTAR, /* c0000083 */
	HV_MSR_SFMASK, /* c0000084 */
	HV_MSR_KERNEL_GS_BASE, /* c0000102 */
	HV_MSR_TSC_AUX, /* c0000103 */
	HV_MSR_SYSENTER_CS, /* 174 */
	HV_MSR_SYSENTER_ESP, /* 175 */
	HV_MSR_SYSENTER_EIP, /* 176 */
	HV_MSR_PAT, /* 277 */
	HV_MSR_MISC_ENABLE, /* 1a0 */
	HV_MSR_MTRR_DEF_TYPE, /* 2ff */
	HV_MSR_TSC_DEADLINE, /* 6e0 */
	HV_MSR_TSC_ADJUST, /* 3b */
	HV_MSR_KVM_WALL_CLOCK, /* 4b564d00 */
	HV_MSR_KVM_SYSTEM_TIME, /* 4b564d01 */
	HV_MSR_KVM_ASYNC_PF, /* 4b564d02 */
	HV_MSR_KVM_STEAL_TIME, /* 4b564d03 */
	HV_MSR_KVM_PV_EOI, /* 4b564d04 */
	HV_MSR_MTRR_FIX64K, /* 250 */
	HV_MSR_MTRR_FIX16K_0, /* 258 */
	HV_MSR_MTRR_FIX16K_1, /* 259 */
	HV_MSR_MTRR_FIX4K_0, /* 268..26f */
	HV_MSR_MTRR_FIX4K_7 = HV_MSR_MTRR_FIX4K_0 + 7,
	HV_MSR_MTRR_PHYSBASE_0, /* 200, 202, .. 20e */
	HV_MSR_MTRR_PHYSMASK_0 = HV_MSR_MTRR_PHYSBASE_0 + 8, /* 201, .. 20f */
	HV_MSR_SPEC_CTRL = HV_MSR_MTRR_PHYSMASK_0 + 8, /* 48 */
	HV_MSR_XSS, /* da0 */
	HV_MSR_KVM_POLL_CONTROL, /* 4b564d05 */
	HV_MSR_KVM_ASYNC_PF_INT, /* 4b564d06 */
	HV_MSR_HWCR, /* c0010015 */
	HV_MSR_COUNT,
};
/* The MSR number of @i. */
uint32_t hv_x86_msr_number(enum hv_x86_msr i);

struct hv_x86_vcpu_state {
	uint64_t gpr[16];
	uint64_t rip, rflags;
	struct hv_x86_segment seg[X86_SEG_COUNT], tr, ldt;
	struct hv_x86_table gdt, idt;
	uint64_t cr0, cr2, cr3, cr4, cr8, efer, apic_base;
	uint64_t dr[4], dr6, dr7;
	uint64_t xcr0;
	uint64_t tsc; /* value at the moment of the get */
	uint64_t msr[HV_MSR_COUNT];

	/* Events on their way; vectors are valid where the flag is set. */
	uint8_t exception_injected, exception_has_error, exception_vector;
	uint8_t interrupt_injected, interrupt_vector, interrupt_soft;
	uint8_t nmi_injected, nmi_pending, nmi_masked;
	uint8_t shadow; /* interrupt shadow: 1 STI, 2 MOV SS */
	uint32_t exception_error;
	uint32_t mp_state; /* enum hv_x86_mp_state */

	/* XSAVE area in the standard format; the first 512 bytes are FXSAVE's.
	 * xsave_size says how much of it the engine uses (512 without XSAVE). */
	uint32_t xsave_size;
	uint8_t xsave[4096] __attribute__((aligned(64)));
	uint8_t lapic[1024]; /* register page: ID at 0x20, TPR 0x80, ... */
};

/* One IOAPIC (24 redirection entries) and the clock, per VM. */
struct hv_x86_vm_state {
	uint64_t ioapic_redir[24];
	uint32_t ioapic_id, ioapic_select, ioapic_irr;
	uint64_t kvmclock_ns; /* guest time, nanoseconds since boot */
	uint64_t kvmclock_flags;
};

/* A CPUID leaf, as the guest shall see it. */
struct hv_x86_cpuid {
	uint32_t leaf, subleaf;
	uint32_t subleaf_matters; /* else the leaf answers any ECX */
	uint32_t eax, ebx, ecx, edx;
};
#define HV_X86_CPUID_MAX 128

#endif
