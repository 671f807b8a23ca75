/* The KVM engine: vCPUs, all but running them. */
#include "hv/kvm/kvm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/err.h"
#include "base/util.h"

int kvm_vcpu_create(struct hv_vm *vm, unsigned index, struct hv_vcpu **out,
		    struct err *e)
{
	struct kvm_vm *kv = kvm_vm_of(vm);
	struct kvm_vcpu *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return err_set(e, -ENOMEM, "out of memory");
	c->cpu.vm = vm;
	c->cpu.index = index;
	c->stats_fd = -1;
	pthread_mutex_init(&c->lock, NULL);
	c->fd = kvm_ioctl(kv->fd, KVM_CREATE_VCPU, (void *)(uintptr_t)index);
	if (c->fd < 0) {
		r = c->fd;
		goto fail;
	}
	c->run = mmap(NULL, kv->run_size, PROT_READ | PROT_WRITE, MAP_SHARED,
		      c->fd, 0);
	if (c->run == MAP_FAILED) {
		r = -errno;
		c->run = NULL;
		goto fail;
	}
	/*
	 * Opened now because the ioctl waits for a running vCPU to stop; reading
	 * it does not. Absent before 5.14: then some counters stay 0.
	 */
	c->stats_fd = kvm_ioctl(c->fd, KVM_GET_STATS_FD, NULL);
	if (!vm->tsc_khz) {
		r = kvm_ioctl(c->fd, KVM_GET_TSC_KHZ, NULL);
		vm->tsc_khz = r > 0 ? (uint64_t)r : 0;
	}
	*out = &c->cpu;
	return 0;
fail:
	kvm_vcpu_destroy(&c->cpu);
	return err_set(e, r, "KVM cannot create CPU %u: %s", index,
		       strerror(-r));
}

void kvm_vcpu_destroy(struct hv_vcpu *cpu)
{
	struct kvm_vcpu *c = kvm_vcpu_of(cpu);

	if (c->run)
		munmap(c->run, kvm_vcpu_vm(c)->run_size);
	if (c->stats_fd >= 0)
		close(c->stats_fd);
	if (c->fd >= 0)
		close(c->fd);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

int kvm_vcpu_set_debug(struct hv_vcpu *cpu, const struct hv_debug *d)
{
	struct kvm_guest_debug k = { 0 };

	if (d->enabled) {
		k.control = KVM_GUESTDBG_ENABLE;
		if (d->single_step)
			k.control |= KVM_GUESTDBG_SINGLESTEP;
		if (d->software_breakpoints)
			k.control |= KVM_GUESTDBG_USE_SW_BP;
		if (d->hardware) {
			k.control |= KVM_GUESTDBG_USE_HW_BP;
			for (int i = 0; i < 4; i++)
				k.arch.debugreg[i] = d->dr[i];
			k.arch.debugreg[7] = d->dr7;
		}
	}
	return kvm_ioctl(kvm_vcpu_of(cpu)->fd, KVM_SET_GUEST_DEBUG, &k);
}

int kvm_vcpu_translate(struct hv_vcpu *cpu, uint64_t va, gpa_t *out)
{
	struct kvm_translation t = { .linear_address = va };
	int r = kvm_ioctl(kvm_vcpu_of(cpu)->fd, KVM_TRANSLATE, &t);

	if (r)
		return r;
	if (!t.valid)
		return -EFAULT;
	*out = gpa(t.physical_address);
	return 0;
}

/*
 * KVM's own counters by name, from the binary statistics file: a header, an
 * array of descriptors, then the values.
 */
static void kvm_read_stats(int fd, struct hv_counters *out)
{
	const struct {
		const char *name;
		uint64_t *value;
	} wanted[] = {
		{ "halt_exits", &out->halts },
		{ "irq_injections", &out->irqs },
	};
	union {
		struct kvm_stats_desc d;
		char room[sizeof(struct kvm_stats_desc) + 64];
	} desc;
	struct kvm_stats_header h;
	size_t stride;

	if (pread(fd, &h, sizeof(h), 0) != sizeof(h) || h.name_size > 64)
		return;
	stride = sizeof(desc.d) + h.name_size;
	for (uint32_t i = 0; i < min_of(h.num_desc, 1024u); i++) {
		off_t at = (off_t)(h.desc_offset + i * stride);

		memset(&desc, 0, sizeof(desc));
		if (pread(fd, &desc, stride, at) != (ssize_t)stride)
			return;
		for (unsigned w = 0; w < array_size(wanted); w++)
			if (!strncmp(desc.d.name, wanted[w].name, 64))
				if (pread(fd, wanted[w].value, 8,
					  h.data_offset + desc.d.offset) != 8)
					*wanted[w].value = 0;
	}
}

void kvm_vcpu_counters(struct hv_vcpu *cpu, struct hv_counters *out)
{
	struct kvm_vcpu *c = kvm_vcpu_of(cpu);

	if (c->stats_fd >= 0)
		kvm_read_stats(c->stats_fd, out);
	out->exits = atomic_load_explicit(&c->exits, memory_order_relaxed);
	out->mmio = atomic_load_explicit(&c->mmio, memory_order_relaxed);
	out->pio = atomic_load_explicit(&c->pio, memory_order_relaxed);
	out->kicks = atomic_load_explicit(&c->kicks, memory_order_relaxed);
}
