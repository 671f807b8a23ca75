#include "hv/hvkit.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "test.h"

static uint64_t port_read(void *dev, uint64_t off, unsigned len)
{
	(void)dev;
	return 0xa1b2c3d4a1b2c3d4ull >> (off * 4) & (~0ull >> (64 - 8 * len));
}

static void port_write(void *dev, uint64_t off, unsigned len, uint64_t val)
{
	struct hvkit *k = dev;

	(void)off;
	if (k->outs < array_size(k->out)) {
		k->out[k->outs].value = (uint32_t)val;
		k->out[k->outs].len = len;
	}
	k->outs++;
}

static void end_write(void *dev, uint64_t off, unsigned len, uint64_t val)
{
	struct hvkit *k = dev;

	(void)off;
	(void)len;
	(void)val;
	__atomic_add_fetch(&k->ended, 1, __ATOMIC_SEQ_CST);
	/* Which CPU wrote is not known: the others' callers expect it. */
	for (unsigned i = 0; i < k->ncpus; i++)
		hv_vcpu_kick(k->cpu[i]);
}

static const struct bus_ops port_ops = { port_read, port_write };
static const struct bus_ops end_ops = { port_read, end_write };

static const struct hv_ops *engine(void)
{
	const char *name = getenv("ARCVMM_TEST_ENGINE");

	return hv_by_name(name ? name : "kvm");
}

bool hvkit_fit(void)
{
	return engine() != &hv_kvm_ops || hv_kvm_fitness(NULL) == 0;
}

void hvkit_set64(struct hvkit *k, uint64_t at, uint64_t v)
{
	assert_int_equal(gmem_write(k->mem, gpa(at), &v, sizeof(v)), 0);
}

uint64_t hvkit_get64(struct hvkit *k, uint64_t at)
{
	uint64_t v;

	assert_int_equal(gmem_read(k->mem, gpa(at), &v, sizeof(v)), 0);
	return v;
}

/* One to one, user and supervisor; devices (the last GiB) uncached. */
static void page_tables(struct hvkit *k)
{
	hvkit_set64(k, HVKIT_PML4, 0x2007);
	for (uint64_t g = 0; g < 4; g++) {
		hvkit_set64(k, 0x2000 + 8 * g, 0x3007 + 0x1000 * g);
		for (uint64_t i = 0; i < 512; i++)
			hvkit_set64(k, 0x3000 + 0x1000 * g + 8 * i,
				    (g << 30 | i << 21) |
					    (g == 3 ? 0x9f : 0x87));
	}
}

bool hvkit_open(struct hvkit *k, unsigned ncpus, hvkit_prepare_fn *prepare)
{
	const struct hv_ops *ops = engine();

	assert_non_null(ops);
	return hvkit_open_engine(k, ops, ncpus, prepare);
}

bool hvkit_open_engine(struct hvkit *k, const struct hv_ops *ops,
		       unsigned ncpus, hvkit_prepare_fn *prepare)
{
	struct hv_config c = { .ncpus = ncpus };
	struct hv_info info;
	struct err e = { 0 };

	memset(k, 0, sizeof(*k));
	k->ops = ops;
	if (hv_probe(k->ops, &info, &e)) {
		print_message("no engine: %s\n", e.text);
		return false;
	}
	assert_in_range(ncpus, 1, HVKIT_MAX_CPUS);
	assert_int_equal(gmem_create(&k->mem), 0);
	assert_int_equal(gmem_add_ram(k->mem, gpa(0), HVKIT_RAM, &e), 0);
	assert_int_equal(bus_create(&k->bus), 0);
	assert_int_equal(bus_add(k->bus, BUS_PIO, HVKIT_PORT, 16, &port_ops, k,
				 NULL, &e),
			 0);
	assert_int_equal(bus_add(k->bus, BUS_PIO, HVKIT_PORT_END, 1, &end_ops,
				 k, NULL, &e),
			 0);
	if (prepare)
		prepare(k);
	page_tables(k);
	assert_int_equal(gmem_write(k->mem, gpa(HVKIT_GDT), x86_flat_gdt,
				    sizeof(x86_flat_gdt)),
			 0);
	c.mem = k->mem;
	c.bus = k->bus;
	if (hv_vm_create(k->ops, &k->vm, &c, &e) ||
	    hv_irqchip_create(k->vm, &e))
		fail_msg("%s", e.text);
	for (unsigned i = 0; i < ncpus; i++)
		if (hv_vcpu_create(k->vm, i, &k->cpu[i], &e))
			fail_msg("%s", e.text);
	k->ncpus = ncpus;
	return true;
}

void hvkit_close(struct hvkit *k)
{
	for (unsigned i = 0; i < k->ncpus; i++)
		hv_vcpu_destroy(k->cpu[i]);
	hv_vm_destroy(k->vm);
	bus_destroy(k->bus);
	gmem_destroy(k->mem);
}

void hvkit_put(struct hvkit *k, uint64_t at, const uint8_t *code,
	       const uint8_t *end)
{
	assert_int_equal(
		gmem_write(k->mem, gpa(at), code, (size_t)(end - code)), 0);
}

void hvkit_load(struct hvkit *k, unsigned cpu, const uint8_t *code,
		const uint8_t *end, unsigned flags)
{
	struct hv_x86_vcpu_state *s = aligned_alloc(64, sizeof(*s));

	assert_non_null(s);
	hvkit_put(k, HVKIT_CODE, code, end);
	assert_int_equal(hv_vcpu_get_state(k->cpu[cpu], s), 0);
	x86_flat_enter(s, HVKIT_PML4, HVKIT_CODE, HVKIT_STACK + cpu * 0x1000);
	s->gdt.base = HVKIT_GDT;
	s->idt = (struct hv_x86_table){ HVKIT_IDT, 0xfff };
	s->gpr[X86_RDX] = HVKIT_PORT;
	s->mp_state = HV_X86_RUNNABLE;
	if (flags & HVKIT_USER)
		x86_flat_user(s);
	assert_int_equal(hv_vcpu_set_state(k->cpu[cpu], s), 0);
	free(s);
}

void hvkit_gate(struct hvkit *k, unsigned vector, uint64_t handler)
{
	uint8_t gate[16];

	x86_flat_gate(gate, handler);
	assert_int_equal(gmem_write(k->mem, gpa(HVKIT_IDT + vector * 16), gate,
				    sizeof(gate)),
			 0);
}

enum hv_exit_reason hvkit_run_any(struct hvkit *k, unsigned cpu)
{
	alarm(60); /* by default ends the program: a hang is a failure */
	assert_int_equal(hv_vcpu_run(k->cpu[cpu], &k->exit[cpu]), 0);
	alarm(0);
	return k->exit[cpu].reason;
}

void hvkit_run(struct hvkit *k, unsigned cpu)
{
	unsigned before = k->ended;

	if (hvkit_run_any(k, cpu) != HV_EXIT_KICKED)
		fail_msg("exit %d: %s", k->exit[cpu].reason, k->exit[cpu].text);
	assert_int_equal(k->ended, before + 1);
}
