/*
 * Breakpoints and watchpoints.
 *
 * A software breakpoint is known by the virtual address GDB gave and the
 * physical one it had then: the byte is put back there, even when the mapping
 * is gone by then, unless the guest has changed it meanwhile.
 */
#include <errno.h>

#include "base/util.h"
#include "gdb/server.h"

#define INT3 0xcc

bool gdb_break_soft_at(const struct gdb *g, uint64_t va)
{
	for (unsigned i = 0; i < g->nsoft; i++)
		if (g->soft[i].va == va)
			return true;
	return false;
}

void gdb_break_hide(const struct gdb *g, uint64_t va, uint8_t *b, size_t len)
{
	for (unsigned i = 0; i < g->nsoft; i++)
		if (g->soft[i].va - va < len && b[g->soft[i].va - va] == INT3)
			b[g->soft[i].va - va] = g->soft[i].saved;
}

void gdb_break_keep(struct gdb *g, uint64_t va, uint8_t *b, size_t len)
{
	for (unsigned i = 0; i < g->nsoft; i++) {
		if (g->soft[i].va - va >= len)
			continue;
		g->soft[i].saved = b[g->soft[i].va - va];
		b[g->soft[i].va - va] = INT3;
	}
}

static int soft_insert(struct gdb *g, uint64_t va)
{
	struct gmem *m = g->ops->mem(g->target);
	struct gdb_soft_break b = { .va = va };
	uint8_t int3 = INT3;
	gpa_t pa;

	if (gdb_break_soft_at(g, va))
		return 0;
	if (g->nsoft == GDB_BREAKPOINTS)
		return -ENOSPC;
	if (hv_vcpu_translate(g->ops->cpu(g->target, g->cpu_g), va, &pa) < 0)
		return -EFAULT;
	b.pa = pa.v;
	if (gmem_read(m, pa, &b.saved, 1) || gmem_write(m, pa, &int3, 1))
		return -EFAULT;
	g->soft[g->nsoft++] = b;
	return 0;
}

static void soft_take_out(struct gdb *g, unsigned i)
{
	struct gmem *m = g->ops->mem(g->target);
	gpa_t pa = gpa(g->soft[i].pa);
	uint8_t now;

	if (!gmem_read(m, pa, &now, 1) && now == INT3)
		gmem_write(m, pa, &g->soft[i].saved, 1);
	g->soft[i] = g->soft[--g->nsoft];
}

static int soft_remove(struct gdb *g, uint64_t va)
{
	for (unsigned i = 0; i < g->nsoft; i++) {
		if (g->soft[i].va != va)
			continue;
		soft_take_out(g, i);
		return 0;
	}
	return -ENOENT;
}

/* DR7's type for a Z packet's; -1: the processor has no such thing. */
static int hw_type(unsigned type)
{
	switch (type) {
	case 1:
		return 0;
	case 2:
		return 1;
	case 4:
		return 3;
	}
	return -1;
}

static int hw_insert(struct gdb *g, unsigned type, uint64_t va, unsigned len)
{
	int t = hw_type(type);

	if (t < 0)
		return -ENOTSUP;
	if (t == 0)
		len = 1;
	if (len != 1 && len != 2 && len != 4 && len != 8)
		return -EINVAL;
	if (va & (len - 1))
		return -EINVAL;
	for (unsigned i = 0; i < GDB_HW_SLOTS; i++) {
		if (g->hw[i].used)
			continue;
		g->hw[i] = (struct gdb_hw_break){ true, (uint8_t)t,
						  (uint8_t)len, va };
		return 0;
	}
	return -ENOSPC;
}

static int hw_remove(struct gdb *g, unsigned type, uint64_t va)
{
	int t = hw_type(type);

	for (unsigned i = 0; i < GDB_HW_SLOTS; i++) {
		struct gdb_hw_break *b = &g->hw[i];

		if (!b->used || b->type != t || b->va != va)
			continue;
		b->used = false;
		return 0;
	}
	return -ENOENT;
}

int gdb_break_insert(struct gdb *g, unsigned type, uint64_t va, unsigned len)
{
	return type ? hw_insert(g, type, va, len) : soft_insert(g, va);
}

int gdb_break_remove(struct gdb *g, unsigned type, uint64_t va, unsigned len)
{
	(void)len;
	return type ? hw_remove(g, type, va) : soft_remove(g, va);
}

void gdb_break_remove_all(struct gdb *g)
{
	while (g->nsoft)
		soft_take_out(g, g->nsoft - 1);
	for (unsigned i = 0; i < GDB_HW_SLOTS; i++)
		g->hw[i].used = false;
}

int gdb_break_apply(struct gdb *g)
{
	static const uint8_t len_bits[9] = {
		[1] = 0, [2] = 1, [4] = 3, [8] = 2
	};
	struct hv_debug d = { .dr7 = 0x400 };
	int rc;

	for (unsigned i = 0; i < GDB_HW_SLOTS; i++) {
		const struct gdb_hw_break *b = &g->hw[i];

		if (!b->used)
			continue;
		d.hardware = true;
		d.dr[i] = b->va;
		d.dr7 |= 2ull << 2 * i; /* global enable */
		d.dr7 |= (uint64_t)(b->type | len_bits[b->len] << 2)
			 << (16 + 4 * i);
	}
	d.software_breakpoints = g->nsoft > 0;
	for (unsigned i = 0; i < g->ncpus; i++) {
		d.single_step = g->stepping[i];
		d.enabled =
			d.single_step || d.hardware || d.software_breakpoints;
		rc = hv_vcpu_set_debug(g->ops->cpu(g->target, i), &d);
		if (rc < 0 && (d.enabled || rc != -ENOTSUP))
			return rc;
	}
	return 0;
}
