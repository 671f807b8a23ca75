#include "machine.h"

#include <string.h>

#include "base/err.h"
#include "hv/soft/cpu.h"

extern const struct hv_ops hv_soft_ops;

int machine_make(struct machine *m, uint64_t ram_size, struct err *e)
{
	struct hv_config cfg = { .ncpus = 1 };
	static struct hv_x86_cpuid leaves[HV_X86_CPUID_MAX];
	int rc;

	memset(m, 0, sizeof(*m));
	m->ram_size = ram_size;
	rc = gmem_create(&m->mem);
	if (!rc)
		rc = gmem_add_ram(m->mem, gpa(0), ram_size, e);
	if (!rc)
		rc = bus_create(&m->bus);
	if (rc)
		return err_set(e, rc, "no memory for a test machine");
	m->ram = gmem_ptr(m->mem, gpa(0), ram_size, true);
	cfg.mem = m->mem;
	cfg.bus = m->bus;
	rc = hv_vm_create(&hv_soft_ops, &m->vm, &cfg, e);
	if (!rc)
		rc = hv_irqchip_create(m->vm, e);
	if (!rc)
		rc = hv_vcpu_create(m->vm, 0, &m->vcpu, e);
	if (rc)
		return rc;
	rc = hv_supported_cpuid(&hv_soft_ops, leaves, HV_X86_CPUID_MAX);
	if (rc < 0)
		return err_set(e, rc, "the engine has no CPUID leaves");
	rc = hv_vcpu_set_cpuid(m->vcpu, leaves, (unsigned)rc);
	if (rc)
		return err_set(e, rc, "the engine refuses its CPUID leaves");
	m->cpu = soft_cpu_of(m->vcpu);
	return 0;
}

void machine_drop(struct machine *m)
{
	if (m->vcpu)
		hv_vcpu_destroy(m->vcpu);
	if (m->vm)
		hv_vm_destroy(m->vm);
	if (m->bus)
		bus_destroy(m->bus);
	gmem_destroy(m->mem);
	memset(m, 0, sizeof(*m));
}

void machine_put64(struct machine *m, uint64_t pa, uint64_t v)
{
	memcpy(m->ram + pa, &v, 8);
}
