/* What the files of the KVM engine share. Nobody else includes this. */
#ifndef ARC_HV_KVM_KVM_H
#define ARC_HV_KVM_KVM_H

#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "hv/hv.h"

struct kvm_vm {
	struct hv_vm vm;
	int fd;
	size_t run_size; /* of the page(s) shared with KVM_RUN */
	bool has_xsave, has_xcrs, has_debugregs, has_payload;
	bool has_any_length; /* ioeventfds of any length */
	/* Bit i: this host refuses MSR i. Found out on the first get. */
	_Atomic uint64_t msr_missing;
	uint32_t logged; /* bit i: region i has a dirty log */
};

/*
 * The counters have one writer, the thread that runs the vCPU, and any reader.
 */
struct kvm_vcpu {
	struct hv_vcpu cpu;
	int fd, stats_fd;
	struct kvm_run *run;
	bool debug_sw; /* INT3 exits are wanted */

	/* Kick protocol: see run.c. */
	pthread_mutex_t lock;
	bool running; /* a thread is inside vcpu_run() ... */
	pthread_t thread; /* ... this one */
	bool signalled; /* it was sent KVM_KICK_SIGNAL */
	atomic_bool kicked;
	sigset_t mask; /* what KVM_RUN was told to block */
	bool mask_set;

	_Atomic uint64_t exits, mmio, pio, kicks;
};

static inline struct kvm_vm *kvm_vm_of(struct hv_vm *vm)
{
	return (struct kvm_vm *)vm;
}

static inline struct kvm_vcpu *kvm_vcpu_of(struct hv_vcpu *cpu)
{
	return (struct kvm_vcpu *)cpu;
}

static inline struct kvm_vm *kvm_vcpu_vm(struct kvm_vcpu *c)
{
	return (struct kvm_vm *)c->cpu.vm;
}

static inline void kvm_count(_Atomic uint64_t *counter)
{
	atomic_store_explicit(
		counter,
		atomic_load_explicit(counter, memory_order_relaxed) + 1,
		memory_order_relaxed);
}

/* ioctl() that retries EINTR and returns -errno. */
int kvm_ioctl(int fd, unsigned long request, void *arg);

/* vm.c */
int kvm_open(struct err *e);

/* cpuid.c */
int kvm_supported_cpuid(struct hv_x86_cpuid *leaves, unsigned max);
int kvm_vcpu_set_cpuid(struct hv_vcpu *cpu, const struct hv_x86_cpuid *leaves,
		       unsigned n);

/* vcpu.c */
int kvm_vcpu_create(struct hv_vm *vm, unsigned index, struct hv_vcpu **out,
		    struct err *e);
void kvm_vcpu_destroy(struct hv_vcpu *cpu);
int kvm_vcpu_set_debug(struct hv_vcpu *cpu, const struct hv_debug *d);
int kvm_vcpu_translate(struct hv_vcpu *cpu, uint64_t va, gpa_t *out);
void kvm_vcpu_counters(struct hv_vcpu *cpu, struct hv_counters *out);

/* run.c */
int kvm_vcpu_run(struct hv_vcpu *cpu, struct hv_exit *exit);
void kvm_vcpu_kick(struct hv_vcpu *cpu);

/* exit.c: a KVM_RUN that ended in something no guest should provoke. */
void kvm_describe_exit(struct kvm_vcpu *c, int error, struct hv_exit *exit);

/* state.c */
int kvm_vcpu_get_state(struct hv_vcpu *cpu, struct hv_x86_vcpu_state *s);
int kvm_vcpu_set_state(struct hv_vcpu *cpu, const struct hv_x86_vcpu_state *s);
int kvm_vm_get_state(struct hv_vm *vm, struct hv_x86_vm_state *s);
int kvm_vm_set_state(struct hv_vm *vm, const struct hv_x86_vm_state *s);

#endif
