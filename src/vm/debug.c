/*
 * The VM as a GDB server's target.
 *
 * A vCPU that GDB stopped is held at the gate (cpus.c) by its own flag, apart
 * from the VM's pause, so both can be asked for at once.
 */
#include <errno.h>

#include "gdb/gdb.h"
#include "vm/internal.h"

static unsigned target_cpus(void *t)
{
	return ((struct vm *)t)->ncpus;
}

static struct hv_vcpu *target_cpu(void *t, unsigned i)
{
	return ((struct vm *)t)->cpus[i].hv;
}

static struct gmem *target_mem(void *t)
{
	return ((struct vm *)t)->mem;
}

static int target_stop(void *t)
{
	struct vm *vm = t;
	int rc;

	pthread_mutex_lock(&vm->lock);
	for (unsigned i = 0; i < vm->ncpus; i++)
		vm->cpus[i].held = true;
	if (vm->state == VM_RUNNING && !vm->ending) {
		cpus_kick(vm);
		while (!vm->ending && !cpus_parked(vm))
			pthread_cond_wait(&vm->changed, &vm->lock);
	}
	rc = vm->ending || vm->state == VM_ENDED ? -ESRCH : 0;
	pthread_mutex_unlock(&vm->lock);
	return rc;
}

static int target_resume(void *t, const bool *run)
{
	struct vm *vm = t;
	int rc;

	pthread_mutex_lock(&vm->lock);
	for (unsigned i = 0; i < vm->ncpus; i++)
		vm->cpus[i].held = !run[i];
	rc = vm->ending ? -ESRCH : 0;
	pthread_cond_broadcast(&vm->changed);
	pthread_mutex_unlock(&vm->lock);
	return rc;
}

static void target_kill(void *t)
{
	vm_kill(t);
}

static const struct gdb_target_ops target_ops = {
	.cpus = target_cpus,
	.cpu = target_cpu,
	.mem = target_mem,
	.stop = target_stop,
	.resume = target_resume,
	.kill = target_kill,
};

int debug_open(struct vm *vm, struct err *e)
{
	const struct vm_config *c = vm->config;

	if (!c->gdb) {
		if (c->gdb_wait)
			return err_set(e, -EINVAL, "gdb-wait needs gdb=WHERE");
		return 0;
	}
	for (unsigned i = 0; c->gdb_wait && i < vm->ncpus; i++)
		vm->cpus[i].held = true;
	return gdb_create(&vm->gdb, c->gdb, &target_ops, vm, &vm->log, e);
}

void debug_close(struct vm *vm)
{
	gdb_destroy(vm->gdb);
	vm->gdb = NULL;
}

void debug_exit(struct vm_cpu *cpu, const struct hv_exit *exit)
{
	struct vm *vm = cpu->vm;

	if (vm->trace)
		trace_step(cpu);
	if (!vm->gdb)
		return;
	pthread_mutex_lock(&vm->lock);
	cpu->held = true;
	pthread_mutex_unlock(&vm->lock);
	gdb_debug_exit(vm->gdb, cpu->hv->index, exit);
}

void debug_ended(struct vm *vm)
{
	gdb_run_ended(vm->gdb, 0);
}
