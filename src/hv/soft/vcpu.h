/* A vCPU's life and state, as hv_soft_ops has them. */
#ifndef ARC_HV_SOFT_VCPU_H
#define ARC_HV_SOFT_VCPU_H

#include "hv/soft/soft.h"

int soft_vcpu_create(struct hv_vm *hv, unsigned index, struct hv_vcpu **out,
		     struct err *e);
void soft_vcpu_destroy(struct hv_vcpu *v);
/* Once no other thread can know it. */
void soft_vcpu_free(struct soft_cpu *cpu);
int soft_vcpu_set_cpuid(struct hv_vcpu *v, const struct hv_x86_cpuid *leaves,
			unsigned n);
int soft_vcpu_get_state(struct hv_vcpu *v, struct hv_x86_vcpu_state *s);
int soft_vcpu_set_state(struct hv_vcpu *v, const struct hv_x86_vcpu_state *s);
int soft_vcpu_set_debug(struct hv_vcpu *v, const struct hv_debug *d);
int soft_vcpu_run(struct hv_vcpu *v, struct hv_exit *exit);
void soft_vcpu_kick(struct hv_vcpu *v);
int soft_vcpu_translate(struct hv_vcpu *v, uint64_t va, gpa_t *out);
void soft_vcpu_counters(struct hv_vcpu *v, struct hv_counters *out);

#endif
