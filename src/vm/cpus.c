/*
 * vCPU threads.
 *
 * Each thread alternates between the gate and the engine. The gate is where
 * pausing happens: a thread that finds `paused` parks there, says so and sleeps
 * until it is not. Whoever pauses sets the flag, kicks every vCPU and waits for
 * all to be parked; a kick is never lost (hv.h), so a thread that passed the
 * gate just before comes back at once.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vm/internal.h"

/* False when the run is over. */
static bool gate_pass(struct vm_cpu *cpu)
{
	struct vm *vm = cpu->vm;
	bool go;

	pthread_mutex_lock(&vm->lock);
	while ((vm->paused || cpu->held) && !vm->ending) {
		if (!cpu->parked) {
			cpu->parked = true;
			pthread_cond_broadcast(&vm->changed);
		}
		pthread_cond_wait(&vm->changed, &vm->lock);
	}
	cpu->parked = false;
	go = !vm->ending;
	pthread_mutex_unlock(&vm->lock);
	return go;
}

/* What made the engine return; false ends the thread. */
static void handle_exit(struct vm_cpu *cpu, const struct hv_exit *exit)
{
	struct vm *vm = cpu->vm;

	switch (exit->reason) {
	case HV_EXIT_KICKED:
		break;
	case HV_EXIT_DEBUG:
		debug_exit(cpu, exit);
		break;
	case HV_EXIT_RESET:
		vm_end(vm, VM_END_REBOOT, "%s", "");
		break;
	case HV_EXIT_SHUTDOWN:
		hv_vcpu_report(cpu->hv, exit, &vm->log);
		vm_end(vm, VM_END_CRASH, "triple fault on vCPU %u",
		       cpu->hv->index);
		break;
	case HV_EXIT_ERROR:
		hv_vcpu_report(cpu->hv, exit, &vm->log);
		vm_end(vm, VM_END_ERROR, "vCPU %u: %s", cpu->hv->index,
		       exit->text);
		break;
	}
}

static void cpu_main(void *arg)
{
	struct vm_cpu *cpu = arg;
	struct hv_exit exit;

	if (!cpu->hv->index)
		timeline_mark(&cpu->vm->timeline, "first-instruction");
	while (gate_pass(cpu)) {
		int rc = hv_vcpu_run(cpu->hv, &exit);

		if (rc) {
			vm_end(cpu->vm, VM_END_ERROR, "vCPU %u: %s",
			       cpu->hv->index, strerror(-rc));
			break;
		}
		handle_exit(cpu, &exit);
	}
}

int cpus_create(struct vm *vm, struct err *e)
{
	const struct vm_config *c = vm->config;
	struct hv_x86_cpuid *leaves;
	struct hv_x86_vcpu_state *state;
	int rc = -ENOMEM;

	leaves = calloc(HV_X86_CPUID_MAX, sizeof(*leaves));
	state = aligned_alloc(64, sizeof(*state));
	vm->cpus = calloc(c->cpus, sizeof(*vm->cpus));
	if (!leaves || !state || !vm->cpus) {
		err_set(e, rc, "out of memory");
		goto out;
	}
	for (unsigned i = 0; i < c->cpus; i++) {
		struct vm_cpu *cpu = &vm->cpus[i];
		int n;

		cpu->vm = vm;
		rc = hv_vcpu_create(vm->hv, i, &cpu->hv, e);
		if (rc)
			goto out;
		vm->ncpus++;
		n = board_cpuid(vm->board, vm->ops, c->cpu_model, i, leaves,
				HV_X86_CPUID_MAX);
		rc = n < 0 ? n
			   : hv_vcpu_set_cpuid(cpu->hv, leaves, (unsigned)n);
		if (rc) {
			err_set(e, rc, "CPUID of vCPU %u: %s", i,
				strerror(-rc));
			goto out;
		}
		board_boot_state(vm->board, i, state);
		rc = hv_vcpu_set_state(cpu->hv, state);
		if (rc) {
			err_set(e, rc, "registers of vCPU %u: %s", i,
				strerror(-rc));
			goto out;
		}
	}
	rc = 0;
out:
	free(leaves);
	free(state);
	return rc;
}

int cpus_start(struct vm *vm, struct err *e)
{
	for (unsigned i = 0; i < vm->ncpus; i++) {
		char name[16];
		int rc;

		snprintf(name, sizeof(name), "vcpu%u", i);
		rc = thread_start(&vm->cpus[i].thread, name, cpu_main,
				  &vm->cpus[i]);
		if (rc)
			return err_set(e, rc, "thread of vCPU %u: %s", i,
				       strerror(-rc));
	}
	return 0;
}

void cpus_kick(struct vm *vm)
{
	for (unsigned i = 0; i < vm->ncpus; i++)
		hv_vcpu_kick(vm->cpus[i].hv);
}

void cpus_join(struct vm *vm)
{
	for (unsigned i = 0; i < vm->ncpus; i++)
		thread_join(&vm->cpus[i].thread);
}

void cpus_destroy(struct vm *vm)
{
	for (unsigned i = 0; i < vm->ncpus; i++)
		hv_vcpu_destroy(vm->cpus[i].hv);
	free(vm->cpus);
	vm->cpus = NULL;
	vm->ncpus = 0;
}

bool cpus_parked(const struct vm *vm)
{
	for (unsigned i = 0; i < vm->ncpus; i++)
		if (!vm->cpus[i].parked)
			return false;
	return true;
}

int vm_pause(struct vm *vm)
{
	int rc = 0;

	pthread_mutex_lock(&vm->lock);
	if (vm->state != VM_RUNNING || vm->ending) {
		pthread_mutex_unlock(&vm->lock);
		return -ESRCH;
	}
	vm->paused = true;
	cpus_kick(vm);
	while (vm->paused && !vm->ending && !cpus_parked(vm))
		pthread_cond_wait(&vm->changed, &vm->lock);
	if (vm->ending)
		rc = -ESRCH;
	pthread_mutex_unlock(&vm->lock);
	return rc;
}

int vm_resume(struct vm *vm)
{
	int rc = 0;

	pthread_mutex_lock(&vm->lock);
	if (vm->state != VM_RUNNING || vm->ending)
		rc = -ESRCH;
	else if (vm->paused)
		guest_clock_sync(vm);
	vm->paused = false;
	pthread_cond_broadcast(&vm->changed);
	pthread_mutex_unlock(&vm->lock);
	return rc;
}
