/*
 * The engine interface: thin wrappers over the ops of an engine, which check
 * what every engine would have to check.
 */
#include "hv/hv.h"

#include <errno.h>
#include <string.h>

#include "base/bug.h"
#include "base/err.h"

const struct hv_ops *hv_by_name(const char *name)
{
	if (!name)
		return NULL;
	if (!strcmp(name, hv_kvm_ops.name))
		return &hv_kvm_ops;
	if (!strcmp(name, hv_soft_ops.name))
		return &hv_soft_ops;
	return NULL;
}

int hv_probe(const struct hv_ops *ops, struct hv_info *info, struct err *e)
{
	memset(info, 0, sizeof(*info));
	return ops->probe(info, e);
}

int hv_vm_create(const struct hv_ops *ops, struct hv_vm **out,
		 const struct hv_config *c, struct err *e)
{
	*out = NULL;
	if (c->ncpus == 0)
		return err_set(e, -EINVAL, "a VM needs at least one CPU");
	if (!gmem_region(c->mem, 0))
		return err_set(e, -EINVAL, "a VM needs memory");
	return ops->vm_create(out, c, e);
}

void hv_vm_destroy(struct hv_vm *vm)
{
	if (vm)
		vm->ops->vm_destroy(vm);
}

int hv_irqchip_create(struct hv_vm *vm, struct err *e)
{
	return vm->ops->irqchip_create(vm, e);
}

int hv_irq_line(struct hv_vm *vm, unsigned gsi, bool level)
{
	if (gsi >= HV_GSI_COUNT)
		return -EINVAL;
	return vm->ops->irq_line(vm, gsi, level);
}

int hv_msi(struct hv_vm *vm, uint64_t addr, uint32_t data)
{
	return vm->ops->msi(vm, addr, data);
}

int hv_irqfd(struct hv_vm *vm, unsigned gsi, int fd, bool add)
{
	if (gsi >= HV_GSI_COUNT)
		return -EINVAL;
	return vm->ops->irqfd(vm, gsi, fd, add);
}

int hv_ioeventfd(struct hv_vm *vm, const struct bus_ioeventfd *io, bool add)
{
	return vm->ops->ioeventfd(vm, io, add);
}

int hv_dirty_log(struct hv_vm *vm, unsigned region, bool enable)
{
	if (!(vm->caps & HV_CAP_DIRTY_LOG))
		return -ENOTSUP;
	if (!gmem_region(vm->config.mem, region))
		return -EINVAL;
	return vm->ops->dirty_log(vm, region, enable);
}

int hv_dirty_fetch(struct hv_vm *vm, unsigned region, unsigned long *bitmap,
		   size_t bytes)
{
	const struct gmem_region *r = gmem_region(vm->config.mem, region);

	if (!(vm->caps & HV_CAP_DIRTY_LOG))
		return -ENOTSUP;
	/* Whole 64-bit words, as KVM fills them. */
	if (!r || bytes < (r->size / 4096 + 63) / 64 * 8)
		return -EINVAL;
	return vm->ops->dirty_fetch(vm, region, bitmap, bytes);
}

int hv_vm_get_state(struct hv_vm *vm, struct hv_x86_vm_state *s)
{
	memset(s, 0, sizeof(*s));
	return vm->ops->vm_get_state(vm, s);
}

int hv_vm_set_state(struct hv_vm *vm, const struct hv_x86_vm_state *s)
{
	return vm->ops->vm_set_state(vm, s);
}

int hv_supported_cpuid(const struct hv_ops *ops, struct hv_x86_cpuid *leaves,
		       unsigned max)
{
	return ops->supported_cpuid(leaves, max);
}

int hv_vcpu_create(struct hv_vm *vm, unsigned index, struct hv_vcpu **out,
		   struct err *e)
{
	*out = NULL;
	if (index >= vm->config.ncpus)
		return err_set(e, -EINVAL, "no CPU %u in a VM of %u", index,
			       vm->config.ncpus);
	return vm->ops->vcpu_create(vm, index, out, e);
}

void hv_vcpu_destroy(struct hv_vcpu *cpu)
{
	if (cpu)
		cpu->vm->ops->vcpu_destroy(cpu);
}

int hv_vcpu_set_cpuid(struct hv_vcpu *cpu, const struct hv_x86_cpuid *leaves,
		      unsigned n)
{
	if (n > HV_X86_CPUID_MAX)
		return -E2BIG;
	return cpu->vm->ops->vcpu_set_cpuid(cpu, leaves, n);
}

int hv_vcpu_get_state(struct hv_vcpu *cpu, struct hv_x86_vcpu_state *s)
{
	memset(s, 0, sizeof(*s));
	return cpu->vm->ops->vcpu_get_state(cpu, s);
}

int hv_vcpu_set_state(struct hv_vcpu *cpu, const struct hv_x86_vcpu_state *s)
{
	return cpu->vm->ops->vcpu_set_state(cpu, s);
}

int hv_vcpu_set_debug(struct hv_vcpu *cpu, const struct hv_debug *d)
{
	if (!(cpu->vm->caps & HV_CAP_DEBUG))
		return -ENOTSUP;
	return cpu->vm->ops->vcpu_set_debug(cpu, d);
}

int hv_vcpu_run(struct hv_vcpu *cpu, struct hv_exit *exit)
{
	memset(exit, 0, sizeof(*exit));
	return cpu->vm->ops->vcpu_run(cpu, exit);
}

void hv_vcpu_kick(struct hv_vcpu *cpu)
{
	cpu->vm->ops->vcpu_kick(cpu);
}

int hv_vcpu_translate(struct hv_vcpu *cpu, uint64_t va, gpa_t *out)
{
	return cpu->vm->ops->vcpu_translate(cpu, va, out);
}

void hv_vcpu_counters(struct hv_vcpu *cpu, struct hv_counters *out)
{
	memset(out, 0, sizeof(*out));
	cpu->vm->ops->vcpu_counters(cpu, out);
}

uint32_t hv_x86_msr_number(enum hv_x86_msr i)
{
	/* clang-format off */
	static const uint32_t number[HV_MSR_COUNT] = {
		[HV_MSR_STAR] = 0xc0000081,
		[HV_MSR_LSTAR] = 0xc0000082,
		[HV_MSR_CSTAR] = 0xc0000083,
		[HV_MSR_SFMASK] = 0xc0000084,
		[HV_MSR_KERNEL_GS_BASE] = 0xc0000102,
		[HV_MSR_TSC_AUX] = 0xc0000103,
		[HV_MSR_SYSENTER_CS] = 0x174,
		[HV_MSR_SYSENTER_ESP] = 0x175,
		[HV_MSR_SYSENTER_EIP] = 0x176,
		[HV_MSR_PAT] = 0x277,
		[HV_MSR_MISC_ENABLE] = 0x1a0,
		[HV_MSR_MTRR_DEF_TYPE] = 0x2ff,
		[HV_MSR_TSC_DEADLINE] = 0x6e0,
		[HV_MSR_TSC_ADJUST] = 0x3b,
		[HV_MSR_KVM_WALL_CLOCK] = 0x4b564d00,
		[HV_MSR_KVM_SYSTEM_TIME] = 0x4b564d01,
		[HV_MSR_KVM_ASYNC_PF] = 0x4b564d02,
		[HV_MSR_KVM_STEAL_TIME] = 0x4b564d03,
		[HV_MSR_KVM_PV_EOI] = 0x4b564d04,
		[HV_MSR_MTRR_FIX64K] = 0x250,
		[HV_MSR_MTRR_FIX16K_0] = 0x258,
		[HV_MSR_MTRR_FIX16K_1] = 0x259,
		[HV_MSR_SPEC_CTRL] = 0x48,
		[HV_MSR_XSS] = 0xda0,
		[HV_MSR_KVM_POLL_CONTROL] = 0x4b564d05,
		[HV_MSR_KVM_ASYNC_PF_INT] = 0x4b564d06,
		[HV_MSR_HWCR] = 0xc0010015,
	};
	/* clang-format on */

	bug_on((unsigned)i >= HV_MSR_COUNT);
	if (i >= HV_MSR_MTRR_FIX4K_0 && i <= HV_MSR_MTRR_FIX4K_7)
		return 0x268 + (i - HV_MSR_MTRR_FIX4K_0);
	if (i >= HV_MSR_MTRR_PHYSBASE_0 && i < HV_MSR_MTRR_PHYSMASK_0)
		return 0x200 + 2 * (i - HV_MSR_MTRR_PHYSBASE_0);
	if (i >= HV_MSR_MTRR_PHYSMASK_0 && i < HV_MSR_SPEC_CTRL)
		return 0x201 + 2 * (i - HV_MSR_MTRR_PHYSMASK_0);
	return number[i];
}
