/* Guest memory as the selected thread sees it, page by page. */
#include "base/util.h"
#include "gdb/server.h"

static bool each_page(struct gdb *g, uint64_t va, uint8_t *buf, size_t len,
		      bool write)
{
	struct gmem *m = g->ops->mem(g->target);
	struct hv_vcpu *cpu = g->ops->cpu(g->target, g->cpu_g);

	while (len) {
		size_t n = min_of(len, (size_t)(4096 - (va & 4095)));
		gpa_t pa;

		if (hv_vcpu_translate(cpu, va, &pa) < 0)
			return false;
		if (write ? gmem_write(m, pa, buf, n)
			  : gmem_read(m, pa, buf, n))
			return false;
		va += n;
		buf += n;
		len -= n;
	}
	return true;
}

bool gdb_mem_read(struct gdb *g, uint64_t va, void *to, size_t len)
{
	if (!each_page(g, va, to, len, false))
		return false;
	gdb_break_hide(g, va, to, len);
	return true;
}

/* @from is scratch: breakpoints under it stay in. */
bool gdb_mem_write(struct gdb *g, uint64_t va, const void *from, size_t len)
{
	uint8_t *b = (uint8_t *)(uintptr_t)from;
	uint8_t probe;

	/* All or nothing, as far as mapping goes. */
	for (uint64_t at = va; len && at - va < len; at = (at | 4095) + 1)
		if (!each_page(g, at, &probe, 1, false))
			return false;
	gdb_break_keep(g, va, b, len);
	return each_page(g, va, b, len, true);
}
