/* The VM of the software engine: what its vCPUs share. */
#ifndef ARC_HV_SOFT_SOFT_H
#define ARC_HV_SOFT_SOFT_H

#include <pthread.h>

#include "hv/soft/block.h"
#include "hv/soft/clock.h"
#include "irq/x86/irqchip.h"
#include "irq/x86/lapic.h"

/* A region of RAM as the engine sees it. */
struct soft_ram {
	uint64_t base, size;
	uint8_t *host;
	bool readonly;
	uint64_t *code; /* one word per page: see block.h */
	unsigned long *dirty; /* any thread; NULL: not logged */
	unsigned long *log; /* its memory, kept when the log goes off */
};

struct soft_ioeventfd;

struct soft_vm {
	struct hv_vm hv; /* first */
	struct soft_ram ram[GMEM_MAX_REGIONS];
	unsigned nram;
	unsigned ncpus;
	struct soft_cpu *cpu[64]; /* NULL until created */
	struct soft_cpu *grave; /* destroyed ones */
	struct irqchip *irqchip;
	uint64_t epoch; /* any thread: counts interrupts from devices */
	pthread_mutex_t split; /* split locks, atomics on MMIO */
	struct soft_clock clock;
	struct soft_ioeventfd *ioeventfds;
};

static inline struct soft_ram *soft_ram_at(struct soft_vm *vm, uint64_t pa)
{
	for (unsigned n = 0; n < vm->nram; n++)
		if (pa - vm->ram[n].base < vm->ram[n].size)
			return &vm->ram[n];
	return NULL;
}

/* The host address of the page at @pa, or NULL when it is not RAM. */
static inline uint8_t *soft_ram_page(struct soft_vm *vm, uint64_t pa)
{
	struct soft_ram *r = soft_ram_at(vm, pa);

	return r ? r->host + ((pa & ~0xfffull) - r->base) : NULL;
}

/* mmu.c */
int soft_mmu_init(struct soft_cpu *cpu);
void soft_mmu_fini(struct soft_cpu *cpu);
/* The CPL, RFLAGS.AC or the space changed. */
void soft_mmu_context(struct soft_cpu *cpu);
/* The physical address of a fetch from @la; faults. Fills the execute TLB. */
uint64_t soft_fetch_pa(struct soft_cpu *cpu, uint64_t la);
/*
 * Around a wait for others: meanwhile sync_writers() (vm.c) and
 * wait_for_writers() (block.c) do not wait for this vCPU.
 */
void soft_wait_begin(struct soft_cpu *cpu);
void soft_wait_end(struct soft_cpu *cpu);
/* The bus, from a vCPU: may wait, for a loop's lock. */
uint64_t soft_bus_read(struct soft_cpu *cpu, enum bus_space space,
		       uint64_t addr, unsigned len);
void soft_bus_write(struct soft_cpu *cpu, enum bus_space space, uint64_t addr,
		    unsigned len, uint64_t val);
/* As a debugger sees it: no fault, no A/D update. */
bool soft_translate(struct soft_cpu *cpu, uint64_t la, uint64_t *pa);
/* No TLB entry of this vCPU may write to physical page @pa any more. */
void soft_mmu_protect(struct soft_cpu *cpu, uint64_t pa);
/* Has @cpu an entry that can write to page @pa? From another's thread. */
bool soft_mmu_writes(const struct soft_cpu *cpu, uint64_t pa);
/* Drop all first-level write permission (dirty log). */
void soft_mmu_protect_all(struct soft_cpu *cpu);

/* run.c */
int soft_run(struct soft_cpu *cpu, struct hv_exit *exit);

#endif
