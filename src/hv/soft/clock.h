/*
 * Guest time: one clock per VM, from the host's TSC. soft_vm holds a struct
 * soft_clock and gives it out by soft_vm_clock() (vm.c).
 *
 * Host TSC @tsc0 is guest time @ns0; all vCPUs compute from the same pair, so
 * time is monotonic across them. Changed only while vCPUs are stopped.
 */
#ifndef ARC_HV_SOFT_CLOCK_H
#define ARC_HV_SOFT_CLOCK_H

#include <stdint.h>

#include "irq/x86/kvmclock.h"

struct soft_cpu;
struct soft_vm;

struct soft_clock {
	uint64_t tsc_khz;
	struct kvmclock_rate rate;
	uint64_t tsc0, ns0;
};

struct soft_clock *soft_vm_clock(struct soft_vm *vm); /* vm.c */

/* Guest time starts at 0 now. @tsc_khz is the host's. */
void soft_clock_init(struct soft_clock *c, uint64_t tsc_khz);
uint64_t soft_clock_ns(const struct soft_clock *c, uint64_t host_tsc);
/* hv_x86_vm_state.kvmclock_ns: guest time is @ns now; then publish per vCPU. */
void soft_clock_set_ns(struct soft_clock *c, uint64_t ns);

/* Fill the vCPU's kvm-clock record (HV_MSR_KVM_SYSTEM_TIME), if it has one. */
void soft_clock_publish(struct soft_cpu *cpu);
/* Write the wall clock record at @at. */
void soft_clock_wall(struct soft_cpu *cpu, uint64_t at);

#endif
