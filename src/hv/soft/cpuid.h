/* What the vCPU's CPUID says, for the parts of the CPU that depend on it. */
#ifndef ARC_HV_SOFT_CPUID_H
#define ARC_HV_SOFT_CPUID_H

#include <stdint.h>

struct soft_cpu;
struct hv_x86_cpuid;

#define SOFT_PHYS_BITS 40

/* The leaf, or NULL. */
const struct hv_x86_cpuid *soft_cpuid_leaf(const struct soft_cpu *cpu,
					   uint32_t leaf, uint32_t subleaf);
/* Physical address width. */
unsigned soft_phys_bits(const struct soft_cpu *cpu);
/* CR4 bits the guest may set. */
uint64_t soft_cr4_allowed(const struct soft_cpu *cpu);

#endif
