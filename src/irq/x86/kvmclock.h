/*
 * kvm-clock: the guest reads time from a page, without an exit.
 *
 * A vCPU names a 32-byte record by MSR 0x4b564d01; we fill it once with a TSC
 * value, the guest time at that TSC and the TSC's rate, and the guest computes
 * the rest. The TSC is invariant and the same on all vCPUs, so the record stays
 * right until the TSC or the guest time is changed from outside (a restored
 * snapshot): then kvmclock_update() again.
 */
#ifndef ARC_IRQ_X86_KVMCLOCK_H
#define ARC_IRQ_X86_KVMCLOCK_H

#include <stdbool.h>
#include <stdint.h>

struct gmem;

#define MSR_KVM_WALL_CLOCK	0x4b564d00u
#define MSR_KVM_SYSTEM_TIME	0x4b564d01u
#define MSR_KVM_WALL_CLOCK_OLD	0x11u
#define MSR_KVM_SYSTEM_TIME_OLD 0x12u

#define KVMCLOCK_TSC_STABLE 1u /* flag: monotonic across vCPUs */
#define KVMCLOCK_STOPPED    2u /* flag: the guest was paused by its host */

/*
 * The rate as the guest applies it: ns = ((tsc shifted by @shift) * @mul) >> 32.
 * @khz is not 0.
 */
struct kvmclock_rate {
	uint32_t mul;
	int8_t shift;
};
struct kvmclock_rate kvmclock_rate(uint64_t khz);
uint64_t kvmclock_scale(struct kvmclock_rate r, uint64_t ticks);

/*
 * What the MSR holds is legal: for SYSTEM_TIME the record must not cross a
 * page. False: #GP(0).
 */
bool kvmclock_msr_valid(uint32_t msr, uint64_t val);

/*
 * Fill the record that MSR value @system_time names (nothing when its enable
 * bit is 0 or it is not in RAM): at @tsc the guest time is @ns. The version is
 * odd while the rest changes.
 */
void kvmclock_update(struct gmem *m, uint64_t system_time, uint64_t tsc,
		     uint64_t ns, uint64_t khz, uint32_t flags);

/* The wall clock record at @at: @boot_real_ns is guest time 0 since 1970. */
void kvmclock_wall(struct gmem *m, uint64_t at, uint64_t boot_real_ns);

#endif
