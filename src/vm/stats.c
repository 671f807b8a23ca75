/* Counters as JSON, for `stats` and for whoever watches a fleet. */
#include <jansson.h>

#include "virtio/vsock/vsock.h"
#include "vm/internal.h"

static json_t *cpu_stats(struct vm_cpu *cpu)
{
	struct hv_counters c = { 0 };

	hv_vcpu_counters(cpu->hv, &c);
	return json_pack(
		"{s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "exits", (json_int_t)c.exits,
		"mmio", (json_int_t)c.mmio, "pio", (json_int_t)c.pio, "halts",
		(json_int_t)c.halts, "kicks", (json_int_t)c.kicks, "irqs",
		(json_int_t)c.irqs, "instructions", (json_int_t)c.instructions);
}

static json_t *queue_stats(const struct vq_stats *q)
{
	return json_pack("{s:I,s:I,s:I,s:I}", "chains", (json_int_t)q->chains,
			 "bad_chains", (json_int_t)q->bad_chains, "publishes",
			 (json_int_t)q->publishes, "signals",
			 (json_int_t)q->signals);
}

static void dump_line(void *ctx, const char *text)
{
	json_array_append_new(ctx, json_string(text));
}

/* Counters of the worker, and each connection's state in a line. */
static json_t *vsock_stats(const struct vsock *v)
{
	const struct vsock_counters *n = vsock_counters(v);
	json_t *counters = json_object(), *lines = json_array();

#define X(name) \
	json_object_set_new(counters, #name, json_integer((json_int_t)n->name));
	VSOCK_COUNTERS(X)
#undef X
	vsock_dump(v, dump_line, lines);
	return json_pack("{s:I,s:o,s:o}", "connections",
			 (json_int_t)vsock_connections(v), "counters", counters,
			 "state", lines);
}

static json_t *device_stats(struct vm *vm, struct vm_device *d)
{
	struct loop *l = d->own_loop ? d->own_loop : vm->loop;
	json_t *queues = json_array();
	json_t *out;

	loop_lock(l);
	for (unsigned q = 0; q < d->dev->nqueues; q++)
		json_array_append_new(
			queues, queue_stats(&virtio_vq(d->dev, q)->stats));
	out = json_pack("{s:s,s:I,s:o}", "name", d->dev->name, "misbehaviours",
			(json_int_t)d->dev->misbehaviours, "queues", queues);
	if (d->dev == vm->vsock)
		json_object_set_new(out, "vsock",
				    vsock_stats(virtio_vsock_core(d->dev)));
	loop_unlock(l);
	return out;
}

char *vm_stats(struct vm *vm)
{
	json_t *cpus = json_array(), *devices = json_array();
	json_t *all;
	char *text;

	for (unsigned i = 0; i < vm->ncpus; i++)
		json_array_append_new(cpus, cpu_stats(&vm->cpus[i]));
	for (unsigned i = 0; i < vm->ndevices; i++)
		json_array_append_new(devices,
				      device_stats(vm, &vm->devices[i]));
	all = json_pack("{s:s,s:I,s:o,s:o}", "engine", vm->ops->name, "memory",
			(json_int_t)gmem_ram_size(vm->mem), "cpus", cpus,
			"devices", devices);
	text = all ? json_dumps(all, JSON_INDENT(2)) : NULL;
	json_decref(all);
	return text;
}
