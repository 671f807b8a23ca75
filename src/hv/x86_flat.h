/*
 * A vCPU in 64-bit mode with flat segments, for the small programs of the probe
 * and of tests. (How a kernel is entered is src/machine's.)
 */
#ifndef ARC_HV_X86_FLAT_H
#define ARC_HV_X86_FLAT_H

#include <stdint.h>

#include "hv/x86_state.h"

/* Selectors in the GDT below: Linux's, which a paravirtual KVM insists on. */
#define X86_FLAT_CODE	     0x10
#define X86_FLAT_DATA	     0x18
#define X86_FLAT_USER_DATA   0x2b
#define X86_FLAT_USER_CODE   0x33
#define X86_FLAT_GDT_ENTRIES 7

/* What guest memory must hold at s->gdt.base for interrupts and IRET. */
extern const uint64_t x86_flat_gdt[X86_FLAT_GDT_ENTRIES];

/*
 * Turn the reset state @s (from hv_vcpu_get_state()) into supervisor mode with
 * paging on, interrupts off. gdt.base and idt are the caller's to set.
 */
void x86_flat_enter(struct hv_x86_vcpu_state *s, uint64_t cr3, uint64_t rip,
		    uint64_t rsp);

/*
 * After x86_flat_enter(): the same at CPL 3, port access allowed by IOPL, and,
 * for a paravirtual KVM that looks no further, by the permission bitmap of a
 * TSS at address 0, where 8 KiB of memory must be zero. There is no
 * stack for CPL 0 in it, so the program may not be interrupted.
 */
void x86_flat_user(struct hv_x86_vcpu_state *s);

/* An interrupt gate to @handler (16 bytes at @gate), present, DPL 0. */
void x86_flat_gate(void *gate, uint64_t handler);

#endif
