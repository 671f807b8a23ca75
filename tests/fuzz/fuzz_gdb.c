/*
 * The GDB server's packets and commands: whatever bytes a client sends, against
 * a machine of two vCPUs that only keep state.
 */
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "gdb/server.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct hv_x86_vcpu_state state[2];

static int get_state(struct hv_vcpu *c, struct hv_x86_vcpu_state *s)
{
	*s = state[c->index];
	return 0;
}

static int set_state(struct hv_vcpu *c, const struct hv_x86_vcpu_state *s)
{
	state[c->index] = *s;
	return 0;
}

static int set_debug(struct hv_vcpu *c, const struct hv_debug *d)
{
	(void)c;
	(void)d;
	return 0;
}

static int translate(struct hv_vcpu *c, uint64_t va, gpa_t *out)
{
	(void)c;
	*out = gpa(va & 0x1ffff); /* the upper half is not there */
	return va >> 32 ? -1 : 0;
}

static const struct hv_ops hv = {
	.vcpu_get_state = get_state,
	.vcpu_set_state = set_state,
	.vcpu_set_debug = set_debug,
	.vcpu_translate = translate,
};
static struct hv_vm vm = { .ops = &hv, .caps = HV_CAP_DEBUG };
static struct hv_vcpu cpus[2] = { { &vm, 0 }, { &vm, 1 } };
static struct gmem *mem;

static unsigned t_cpus(void *t)
{
	(void)t;
	return 2;
}

static struct hv_vcpu *t_cpu(void *t, unsigned i)
{
	(void)t;
	return &cpus[i];
}

static struct gmem *t_mem(void *t)
{
	(void)t;
	return mem;
}

static int t_stop(void *t)
{
	(void)t;
	return 0;
}

static int t_resume(void *t, const bool *run)
{
	(void)t;
	(void)run;
	return 0;
}

static void t_kill(void *t)
{
	(void)t;
}

static const struct gdb_target_ops ops = {
	.cpus = t_cpus,
	.cpu = t_cpu,
	.mem = t_mem,
	.stop = t_stop,
	.resume = t_resume,
	.kill = t_kill,
};

static void packet(struct rsp *r, char *p, size_t len)
{
	struct gdb *g = container_of(r, struct gdb, rsp);

	gdb_command(g, p, len);
	g->stopped = true; /* and again */
	r->out_at = r->out_len = 0;
}

static void interrupt(struct rsp *r)
{
	gdb_interrupt(container_of(r, struct gdb, rsp));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct gdb g;

	if (!mem) {
		if (gmem_create(&mem) ||
		    gmem_add_ram(mem, gpa(0), KiB(64), NULL))
			abort();
		g.scratch = malloc(4 * RSP_PACKET_MAX);
		g.state = aligned_alloc(64, sizeof(*g.state));
		pthread_mutex_init(&g.lock, NULL);
	}
	g.ops = &ops;
	g.ncpus = 2;
	g.fd = -1;
	g.stopped = true;
	g.cpu_g = g.cpu_c = 0;
	gdb_break_remove_all(&g);
	rsp_init(&g.rsp, packet, interrupt);
	/* Bytes as they come; then as one packet whose sum is right. */
	rsp_feed(&g.rsp, data, size);
	if (size && size < RSP_PACKET_MAX) {
		static char copy[RSP_PACKET_MAX + 1];

		memcpy(copy, data, size);
		copy[size] = 0;
		gdb_command(&g, copy, strlen(copy));
		g.rsp.out_at = g.rsp.out_len = 0;
	}
	return 0;
}
