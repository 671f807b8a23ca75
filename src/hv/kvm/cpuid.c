/* The KVM engine: CPUID. */
#include "hv/kvm/kvm.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* KVM's struct ends in an array of any length: give it room. */
union kvm_cpuid_buffer {
	struct kvm_cpuid2 k;
	uint8_t room[sizeof(struct kvm_cpuid2) +
		     HV_X86_CPUID_MAX * sizeof(struct kvm_cpuid_entry2)];
};

#define CPUID1_ECX_TSC_DEADLINE (1u << 24)
#define CPUID1_ECX_HYPERVISOR	(1u << 31)

int kvm_supported_cpuid(struct hv_x86_cpuid *leaves, unsigned max)
{
	union kvm_cpuid_buffer *b;
	bool deadline;
	unsigned n = 0;
	int fd = kvm_open(NULL);
	int r;

	if (fd < 0)
		return fd;
	b = calloc(1, sizeof(*b));
	if (!b) {
		close(fd);
		return -ENOMEM;
	}
	b->k.nent = HV_X86_CPUID_MAX;
	r = kvm_ioctl(fd, KVM_GET_SUPPORTED_CPUID, b);
	deadline =
		ioctl(fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER) > 0;
	close(fd);
	if (r < 0)
		goto out;
	for (unsigned i = 0; i < b->k.nent; i++) {
		const struct kvm_cpuid_entry2 *k = &b->k.entries[i];
		struct hv_x86_cpuid *l;

		if (n == max) {
			r = -E2BIG;
			goto out;
		}
		l = &leaves[n++];
		*l = (struct hv_x86_cpuid){
			.leaf = k->function,
			.subleaf = k->index,
			.subleaf_matters =
				!!(k->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX),
			.eax = k->eax,
			.ebx = k->ebx,
			.ecx = k->ecx,
			.edx = k->edx,
		};
		/* KVM emulates both but leaves saying so to us. */
		if (l->leaf == 1)
			l->ecx |= CPUID1_ECX_HYPERVISOR |
				  (deadline ? CPUID1_ECX_TSC_DEADLINE : 0);
	}
	r = (int)n;
out:
	free(b);
	return r;
}

int kvm_vcpu_set_cpuid(struct hv_vcpu *cpu, const struct hv_x86_cpuid *leaves,
		       unsigned n)
{
	union kvm_cpuid_buffer *b = calloc(1, sizeof(*b));
	int r;

	if (!b)
		return -ENOMEM;
	b->k.nent = n;
	for (unsigned i = 0; i < n; i++)
		b->k.entries[i] = (struct kvm_cpuid_entry2){
			.function = leaves[i].leaf,
			.index = leaves[i].subleaf,
			.flags = leaves[i].subleaf_matters
					 ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX
					 : 0,
			.eax = leaves[i].eax,
			.ebx = leaves[i].ebx,
			.ecx = leaves[i].ecx,
			.edx = leaves[i].edx,
		};
	r = kvm_ioctl(kvm_vcpu_of(cpu)->fd, KVM_SET_CPUID2, b);
	free(b);
	return r;
}
