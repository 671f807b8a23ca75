/*
 * The software engine behind hv.h: VM, interrupt wiring, dirty log.
 *
 * Guest RAM is what gmem has mapped; per region we keep one word per page for
 * decoded code (block.h) and, while the log is on, one bit per page. Interrupts
 * are src/irq/x86's; an ioeventfd is the bus's business.
 */
#include <errno.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include "base/clock.h"
#include "base/err.h"
#include "hv/soft/cpuid.h"
#include "hv/soft/vcpu.h"

#define MAX_CPUS 64

static struct soft_vm *soft_vm_of(struct hv_vm *vm)
{
	return (struct soft_vm *)vm;
}

struct soft_clock *soft_vm_clock(struct soft_vm *vm)
{
	return &vm->clock;
}

/* The rate of the host's TSC, against the clock over @ns. */
static uint64_t measure_tsc_khz(uint64_t ns)
{
	struct timespec pause = { .tv_nsec = (long)ns };
	uint64_t t0, c0, t1, c1;

	c0 = clock_ns();
	t0 = __rdtsc();
	nanosleep(&pause, NULL);
	c1 = clock_ns();
	t1 = __rdtsc();
	return (uint64_t)((unsigned __int128)(t1 - t0) * 1000000 / (c1 - c0));
}

static int soft_probe(struct hv_info *info, struct err *e)
{
	(void)e;
	info->name = "soft";
	info->caps = HV_CAP_DIRTY_LOG | HV_CAP_DEBUG | HV_CAP_READONLY_MEM;
	info->max_cpus = MAX_CPUS;
	info->phys_bits = SOFT_PHYS_BITS;
	return 0;
}

/* ---- interrupts ---- */

static void wake(void *ctx, unsigned index)
{
	struct soft_vm *vm = ctx;
	struct soft_cpu *cpu =
		__atomic_load_n(&vm->cpu[index], __ATOMIC_ACQUIRE);

	if (cpu)
		soft_notify(cpu, SOFT_EV_IRQ);
}

static uint64_t tsc_of(void *ctx, unsigned index)
{
	struct soft_vm *vm = ctx;
	struct soft_cpu *cpu =
		__atomic_load_n(&vm->cpu[index], __ATOMIC_ACQUIRE);

	return __rdtsc() + (cpu ? cpu->tsc_offset : 0);
}

static int soft_irqchip_create(struct hv_vm *hv, struct err *e)
{
	struct soft_vm *vm = soft_vm_of(hv);
	struct irqchip_config c = {
		.ncpus = hv->config.ncpus,
		.tsc_khz = hv->tsc_khz,
		.wake = wake,
		.tsc = tsc_of,
		.ctx = vm,
	};

	return irqchip_create(&vm->irqchip, &c, e);
}

static int soft_irq_line(struct hv_vm *hv, unsigned gsi, bool level)
{
	struct soft_vm *vm = soft_vm_of(hv);

	if (level)
		__atomic_fetch_add(&vm->epoch, 1, __ATOMIC_RELEASE);
	irqchip_line(vm->irqchip, gsi, level);
	return 0;
}

static int soft_msi(struct hv_vm *hv, uint64_t addr, uint32_t data)
{
	struct soft_vm *vm = soft_vm_of(hv);

	__atomic_fetch_add(&vm->epoch, 1, __ATOMIC_RELEASE);
	irqchip_msi(vm->irqchip, addr, data);
	return 0;
}

/* There is nothing between a device and soft_irq_line() that it could save. */
static int soft_irqfd(struct hv_vm *hv, unsigned gsi, int fd, bool add)
{
	(void)hv;
	(void)gsi;
	(void)fd;
	(void)add;
	return -ENOTSUP;
}

struct soft_ioeventfd {
	struct soft_ioeventfd *next;
	struct bus_ioeventfd io;
};

static bool same_doorbell(const struct bus_ioeventfd *a,
			  const struct bus_ioeventfd *b)
{
	return a->space == b->space && a->addr == b->addr && a->len == b->len &&
	       a->match == b->match && a->match_any == b->match_any &&
	       a->fd == b->fd;
}

/* The bus does the work; we remember what there is to remove. */
static int soft_ioeventfd(struct hv_vm *hv, const struct bus_ioeventfd *io,
			  bool add)
{
	struct soft_vm *vm = soft_vm_of(hv);
	struct soft_ioeventfd **p = &vm->ioeventfds, *f;
	int r;

	if (!add) {
		while (*p && !same_doorbell(&(*p)->io, io))
			p = &(*p)->next;
		f = *p;
		if (!f)
			return -ENOENT;
		bus_remove_ioeventfd(hv->config.bus, io);
		*p = f->next;
		free(f);
		return 0;
	}
	f = calloc(1, sizeof(*f));
	if (!f)
		return -ENOMEM;
	r = bus_add_ioeventfd(hv->config.bus, io);
	if (r) {
		free(f);
		return r;
	}
	f->io = *io;
	f->next = vm->ioeventfds;
	vm->ioeventfds = f;
	return 0;
}

/* ---- dirty log ---- */

static size_t log_bytes(const struct soft_ram *r)
{
	return ((r->size >> 12) + 63) / 64 * 8;
}

/*
 * Every vCPU gives up its write permissions. Pairs with take_events(): a vCPU
 * that runs acknowledges; one that does not run will take the event before its
 * next block.
 */
static void sync_writers(struct soft_vm *vm)
{
	for (unsigned n = 0; n < vm->ncpus; n++) {
		struct soft_cpu *cpu =
			__atomic_load_n(&vm->cpu[n], __ATOMIC_ACQUIRE);
		struct timespec brief = { .tv_nsec = 1000000 };
		uint32_t seen;

		if (!cpu)
			continue;
		seen = __atomic_load_n(&cpu->acks, __ATOMIC_SEQ_CST);
		soft_notify(cpu, SOFT_EV_TLB);
		while (__atomic_load_n(&cpu->running, __ATOMIC_SEQ_CST) &&
		       __atomic_load_n(&cpu->acks, __ATOMIC_SEQ_CST) == seen)
			syscall(SYS_futex, &cpu->acks, FUTEX_WAIT_PRIVATE, seen,
				&brief, NULL, 0);
	}
}

static int soft_dirty_log(struct hv_vm *hv, unsigned region, bool enable)
{
	struct soft_vm *vm = soft_vm_of(hv);
	struct soft_ram *r;

	if (region >= vm->nram)
		return -EINVAL;
	r = &vm->ram[region];
	if (!enable) {
		/* A vCPU may be about to set a bit: the memory stays. */
		__atomic_store_n(&r->dirty, NULL, __ATOMIC_RELEASE);
		return 0;
	}
	if (!r->log) {
		r->log = calloc(1, log_bytes(r));
		if (!r->log)
			return -ENOMEM;
	} else if (!r->dirty) {
		memset(r->log, 0, log_bytes(r));
	}
	__atomic_store_n(&r->dirty, r->log, __ATOMIC_RELEASE);
	sync_writers(vm);
	return 0;
}

static int soft_dirty_fetch(struct hv_vm *hv, unsigned region,
			    unsigned long *bitmap, size_t bytes)
{
	struct soft_vm *vm = soft_vm_of(hv);
	struct soft_ram *r;
	size_t words;

	if (region >= vm->nram || !vm->ram[region].dirty)
		return -EINVAL;
	r = &vm->ram[region];
	words = log_bytes(r) / 8;
	if (bytes < words * 8)
		return -EINVAL;
	for (size_t n = 0; n < words; n++)
		bitmap[n] =
			__atomic_exchange_n(&r->dirty[n], 0, __ATOMIC_SEQ_CST);
	/* A write through an entry made before the exchange is still before
	 * our return: its page is in @bitmap. From here on it is logged anew. */
	sync_writers(vm);
	return 0;
}

/* ---- the VM ---- */

/* Someone else is about to write there: see gmem_set_writer(). */
static void writer(void *ctx, gpa_t at, size_t len)
{
	struct soft_vm *vm = ctx;
	uint64_t pa = at.v & ~0xfffull, end = at.v + len;

	for (; pa < end; pa += 0x1000) {
		uint64_t *bits = soft_code_bits(vm, pa);

		if (!bits)
			return;
		if (__atomic_load_n(bits, __ATOMIC_SEQ_CST))
			soft_code_foreign(vm, pa);
	}
}

static void vm_free(struct soft_vm *vm)
{
	gmem_set_writer(vm->hv.config.mem, NULL, NULL);
	while (vm->ioeventfds) {
		struct soft_ioeventfd *f = vm->ioeventfds;

		vm->ioeventfds = f->next;
		bus_remove_ioeventfd(vm->hv.config.bus, &f->io);
		free(f);
	}
	irqchip_destroy(vm->irqchip);
	while (vm->grave) {
		struct soft_cpu *cpu = vm->grave;

		vm->grave = cpu->grave_next;
		soft_vcpu_free(cpu);
	}
	for (unsigned n = 0; n < vm->nram; n++) {
		struct soft_ram *r = &vm->ram[n];

		if (r->code)
			munmap(r->code, (r->size >> 12) * 8);
		free(r->log);
	}
	pthread_mutex_destroy(&vm->split);
	free(vm);
}

static int add_region(struct soft_vm *vm, const struct gmem_region *r,
		      struct err *e)
{
	struct soft_ram *ram = &vm->ram[vm->nram];

	*ram = (struct soft_ram){
		.base = r->base.v,
		.size = r->size,
		.host = r->host,
		.readonly = r->flags & GMEM_READONLY,
	};
	/* Touched only where there is code. */
	ram->code = mmap(NULL, (r->size >> 12) * 8, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (ram->code == MAP_FAILED) {
		ram->code = NULL;
		return err_set(e, -ENOMEM,
			       "no memory for the software CPU's page table");
	}
	vm->nram++;
	return 0;
}

static int soft_vm_create(struct hv_vm **out, const struct hv_config *c,
			  struct err *e)
{
	struct soft_vm *vm = calloc(1, sizeof(*vm));
	const struct gmem_region *r;
	int rc;

	if (!vm)
		return err_set(e, -ENOMEM, "no memory for a VM");
	vm->hv.ops = &hv_soft_ops;
	vm->hv.config = *c;
	vm->hv.caps = HV_CAP_DIRTY_LOG | HV_CAP_DEBUG | HV_CAP_READONLY_MEM;
	vm->hv.tsc_khz = measure_tsc_khz(10 * NSEC_PER_MSEC);
	vm->ncpus = c->ncpus;
	pthread_mutex_init(&vm->split, NULL);
	soft_clock_init(&vm->clock, vm->hv.tsc_khz);
	if (c->ncpus > MAX_CPUS) {
		rc = err_set(e, -EINVAL,
			     "the software CPU runs at most %d CPUs", MAX_CPUS);
		goto fail;
	}
	for (unsigned n = 0; (r = gmem_region(c->mem, n)); n++) {
		rc = add_region(vm, r, e);
		if (rc)
			goto fail;
	}
	gmem_set_writer(c->mem, writer, vm);
	*out = &vm->hv;
	return 0;
fail:
	vm_free(vm);
	return rc;
}

static void soft_vm_destroy(struct hv_vm *vm)
{
	vm_free(soft_vm_of(vm));
}

static int soft_vm_get_state(struct hv_vm *hv, struct hv_x86_vm_state *s)
{
	struct soft_vm *vm = soft_vm_of(hv);

	memset(s, 0, sizeof(*s));
	if (vm->irqchip)
		irqchip_get_state(vm->irqchip, s);
	s->kvmclock_ns = soft_clock_ns(&vm->clock, __rdtsc());
	return 0;
}

static int soft_vm_set_state(struct hv_vm *hv, const struct hv_x86_vm_state *s)
{
	struct soft_vm *vm = soft_vm_of(hv);

	if (vm->irqchip)
		irqchip_set_state(vm->irqchip, s);
	soft_clock_set_ns(&vm->clock, s->kvmclock_ns);
	for (unsigned n = 0; n < vm->ncpus; n++)
		if (vm->cpu[n])
			soft_clock_publish(vm->cpu[n]);
	return 0;
}

const struct hv_ops hv_soft_ops = {
	.name = "soft",
	.probe = soft_probe,
	.vm_create = soft_vm_create,
	.vm_destroy = soft_vm_destroy,
	.irqchip_create = soft_irqchip_create,
	.irq_line = soft_irq_line,
	.msi = soft_msi,
	.irqfd = soft_irqfd,
	.ioeventfd = soft_ioeventfd,
	.dirty_log = soft_dirty_log,
	.dirty_fetch = soft_dirty_fetch,
	.vm_get_state = soft_vm_get_state,
	.vm_set_state = soft_vm_set_state,
	.supported_cpuid = soft_supported_cpuid,
	.vcpu_create = soft_vcpu_create,
	.vcpu_destroy = soft_vcpu_destroy,
	.vcpu_set_cpuid = soft_vcpu_set_cpuid,
	.vcpu_get_state = soft_vcpu_get_state,
	.vcpu_set_state = soft_vcpu_set_state,
	.vcpu_set_debug = soft_vcpu_set_debug,
	.vcpu_run = soft_vcpu_run,
	.vcpu_kick = soft_vcpu_kick,
	.vcpu_translate = soft_vcpu_translate,
	.vcpu_counters = soft_vcpu_counters,
};
