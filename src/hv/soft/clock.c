/* Guest time (clock.h). */
#include <x86intrin.h>

#include "base/clock.h"
#include "hv/soft/clock.h"
#include "hv/soft/cpu.h"

void soft_clock_init(struct soft_clock *c, uint64_t tsc_khz)
{
	c->tsc_khz = tsc_khz;
	c->rate = kvmclock_rate(tsc_khz);
	soft_clock_set_ns(c, 0);
}

uint64_t soft_clock_ns(const struct soft_clock *c, uint64_t host_tsc)
{
	return c->ns0 + kvmclock_scale(c->rate, host_tsc - c->tsc0);
}

void soft_clock_set_ns(struct soft_clock *c, uint64_t ns)
{
	c->tsc0 = __rdtsc();
	c->ns0 = ns;
}

void soft_clock_publish(struct soft_cpu *cpu)
{
	const struct soft_clock *c = soft_vm_clock(cpu->vm);
	uint64_t tsc = soft_tsc(cpu);

	if (!(cpu->msr[HV_MSR_KVM_SYSTEM_TIME] & 1))
		return;
	kvmclock_update(cpu->hv.vm->config.mem,
			cpu->msr[HV_MSR_KVM_SYSTEM_TIME], tsc,
			soft_clock_ns(c, tsc - cpu->tsc_offset), c->tsc_khz,
			KVMCLOCK_TSC_STABLE);
}

void soft_clock_wall(struct soft_cpu *cpu, uint64_t at)
{
	const struct soft_clock *c = soft_vm_clock(cpu->vm);
	uint64_t now = soft_clock_ns(c, soft_tsc(cpu) - cpu->tsc_offset);

	kvmclock_wall(cpu->hv.vm->config.mem, at, clock_real_ns() - now);
}
