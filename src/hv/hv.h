/*
 * The engine interface: what runs guest code. No KVM types here.
 *
 * Call order: hv_open() -> hv_vm_create() -> hv_map() for *all* memory ->
 * hv_irqchip_create() -> ioeventfds, irqfds, hv_vcpu_create() for 0..n-1 ->
 * set_cpuid, set_state -> hv_vcpu_run() on one thread per vCPU. (On current
 * kernels a memslot added after irqchip and ioeventfds costs 6-8 ms.)
 *
 * I/O never leaves run(): the engine calls the bus for every MMIO and port
 * access that is not RAM and goes on. run() returns only for what the VM must
 * decide about.
 *
 * Threads: a vCPU is run, and its state got and set, by the thread that owns
 * it, or by another while it is not running and the caller made sure it stays
 * so. hv_vcpu_kick(), hv_irq_line(), hv_msi() are safe from any thread at any
 * time.
 */
#ifndef ARC_HV_HV_H
#define ARC_HV_HV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bus/bus.h"
#include "hv/x86_state.h"
#include "mem/gmem.h"

struct err;
struct log;

/* Counted events of one vCPU since its creation. */
struct hv_counters {
	uint64_t exits, mmio, pio, halts, kicks, irqs, instructions;
};

enum {
	HV_CAP_IOEVENTFD = 1 << 0, /* doorbells without an exit */
	HV_CAP_IRQFD = 1 << 1, /* an eventfd is an interrupt, in kernel */
	HV_CAP_DIRTY_LOG = 1 << 2,
	HV_CAP_DEBUG = 1 << 3, /* breakpoints and single step */
	HV_CAP_READONLY_MEM = 1 << 4,
};

struct hv_config {
	unsigned ncpus; /* 1 .. hv_info.max_cpus */
	struct gmem *mem; /* all regions, added before hv_vm_create() */
	struct bus *bus;
	const struct log *log;
};

/* What an engine can do on this host. */
struct hv_info {
	const char *name; /* "kvm", "soft" */
	unsigned caps; /* HV_CAP_* */
	unsigned max_cpus;
	unsigned phys_bits; /* guest physical address width */
	uint64_t tsc_khz; /* 0: only a VM knows, see hv_vm.tsc_khz */
};

enum hv_exit_reason {
	HV_EXIT_KICKED, /* hv_vcpu_kick() */
	HV_EXIT_SHUTDOWN, /* triple fault */
	HV_EXIT_DEBUG, /* breakpoint or step: see debug */
	HV_EXIT_ERROR, /* the engine cannot go on: see text */
	HV_EXIT_RESET, /* the guest asked for a CPU reset (KVM system event) */
};

struct hv_exit {
	enum hv_exit_reason reason;
	/* HV_EXIT_ERROR: one sentence with what was met and where. */
	char text[256];
	/* HV_EXIT_DEBUG */
	struct {
		uint64_t rip, dr6, dr7;
		bool software; /* INT3 rather than #DB */
	} debug;
};

/* HV_EXIT_DEBUG is wanted for ... (HV_CAP_DEBUG). */
struct hv_debug {
	bool enabled;
	bool single_step;
	bool software_breakpoints; /* INT3 exits instead of #BP */
	bool hardware; /* dr[] and dr7 are used instead of the guest's */
	uint64_t dr[4], dr7;
};

#define HV_GSI_COUNT 24 /* IOAPIC pins */

struct hv_vm; /* one per VM; engines embed these two structs first */
struct hv_vcpu;

/*
 * An engine: every pointer is set. Contracts are those of the hv_*() functions
 * below, which are thin wrappers and the only callers.
 */
struct hv_ops {
	const char *name;
	int (*probe)(struct hv_info *info, struct err *e);
	int (*vm_create)(struct hv_vm **out, const struct hv_config *c,
			 struct err *e);
	void (*vm_destroy)(struct hv_vm *vm);
	int (*irqchip_create)(struct hv_vm *vm, struct err *e);
	int (*irq_line)(struct hv_vm *vm, unsigned gsi, bool level);
	int (*msi)(struct hv_vm *vm, uint64_t addr, uint32_t data);
	int (*irqfd)(struct hv_vm *vm, unsigned gsi, int fd, bool add);
	int (*ioeventfd)(struct hv_vm *vm, const struct bus_ioeventfd *io,
			 bool add);
	int (*dirty_log)(struct hv_vm *vm, unsigned region, bool enable);
	int (*dirty_fetch)(struct hv_vm *vm, unsigned region,
			   unsigned long *bitmap, size_t bytes);
	int (*vm_get_state)(struct hv_vm *vm, struct hv_x86_vm_state *s);
	int (*vm_set_state)(struct hv_vm *vm, const struct hv_x86_vm_state *s);
	/* Fills at most @max leaves; the number, or -errno. */
	int (*supported_cpuid)(struct hv_x86_cpuid *leaves, unsigned max);
	int (*vcpu_create)(struct hv_vm *vm, unsigned index,
			   struct hv_vcpu **out, struct err *e);
	void (*vcpu_destroy)(struct hv_vcpu *cpu);
	int (*vcpu_set_cpuid)(struct hv_vcpu *cpu,
			      const struct hv_x86_cpuid *leaves, unsigned n);
	int (*vcpu_get_state)(struct hv_vcpu *cpu, struct hv_x86_vcpu_state *s);
	int (*vcpu_set_state)(struct hv_vcpu *cpu,
			      const struct hv_x86_vcpu_state *s);
	int (*vcpu_set_debug)(struct hv_vcpu *cpu, const struct hv_debug *d);
	int (*vcpu_run)(struct hv_vcpu *cpu, struct hv_exit *exit);
	void (*vcpu_kick)(struct hv_vcpu *cpu);
	/* Guest virtual to physical, by the vCPU's current tables; -EFAULT. */
	int (*vcpu_translate)(struct hv_vcpu *cpu, uint64_t va, gpa_t *out);
	/* Counted events since creation: exits by kind; for stats and bench. */
	void (*vcpu_counters)(struct hv_vcpu *cpu, struct hv_counters *out);
};

struct hv_vm {
	const struct hv_ops *ops;
	struct hv_config config;
	unsigned caps;
	/* Of the guest's TSC; set by hv_vm_create(), by KVM before 5.17 only by
	 * hv_vcpu_create(). */
	uint64_t tsc_khz;
};

struct hv_vcpu {
	struct hv_vm *vm;
	unsigned index;
};

extern const struct hv_ops hv_kvm_ops, hv_soft_ops;

/* "kvm", "soft"; NULL for any other name. */
const struct hv_ops *hv_by_name(const char *name);

/*
 * Can @ops run here? Fills @info. -ENOENT, -EACCES, -ENOTSUP ... with a
 * sentence that says what to do.
 */
int hv_probe(const struct hv_ops *ops, struct hv_info *info, struct err *e);

/* The VM maps every region @c->mem has now; no region may be added later. */
int hv_vm_create(const struct hv_ops *ops, struct hv_vm **out,
		 const struct hv_config *c, struct err *e);
/* All vCPUs are destroyed before. NULL-safe. */
void hv_vm_destroy(struct hv_vm *vm);

/* LAPICs, one IOAPIC at 0xfec00000 with 24 pins, no PIC, no PIT. */
int hv_irqchip_create(struct hv_vm *vm, struct err *e);

/* Drive IOAPIC pin @gsi. An edge interrupt is true, then false. */
int hv_irq_line(struct hv_vm *vm, unsigned gsi, bool level);
int hv_msi(struct hv_vm *vm, uint64_t addr, uint32_t data);
/* HV_CAP_IRQFD, else -ENOTSUP: each signal of @fd is an edge on @gsi. */
int hv_irqfd(struct hv_vm *vm, unsigned gsi, int fd, bool add);
/* (Emulated by the bus if need be.) */
int hv_ioeventfd(struct hv_vm *vm, const struct bus_ioeventfd *io, bool add);

/*
 * HV_CAP_DIRTY_LOG. fetch: one bit per 4 KiB page of region @region written
 * since the last fetch (or enable); clears it.
 */
int hv_dirty_log(struct hv_vm *vm, unsigned region, bool enable);
int hv_dirty_fetch(struct hv_vm *vm, unsigned region, unsigned long *bitmap,
		   size_t bytes);

/* vCPUs stopped. */
int hv_vm_get_state(struct hv_vm *vm, struct hv_x86_vm_state *s);
int hv_vm_set_state(struct hv_vm *vm, const struct hv_x86_vm_state *s);

/* The CPUID leaves an engine can give on this host. */
int hv_supported_cpuid(const struct hv_ops *ops, struct hv_x86_cpuid *leaves,
		       unsigned max);

/*
 * vCPU @index has APIC ID @index; 0 is the boot processor, in the state after
 * RESET; others wait for INIT-SIPI.
 */
int hv_vcpu_create(struct hv_vm *vm, unsigned index, struct hv_vcpu **out,
		   struct err *e);
void hv_vcpu_destroy(struct hv_vcpu *cpu);
int hv_vcpu_set_cpuid(struct hv_vcpu *cpu, const struct hv_x86_cpuid *leaves,
		      unsigned n);
int hv_vcpu_get_state(struct hv_vcpu *cpu, struct hv_x86_vcpu_state *s);
int hv_vcpu_set_state(struct hv_vcpu *cpu, const struct hv_x86_vcpu_state *s);
int hv_vcpu_set_debug(struct hv_vcpu *cpu, const struct hv_debug *d);

/*
 * Run until one of enum hv_exit_reason; 0, with *exit filled. A halted vCPU
 * sleeps inside, at no cost.
 */
int hv_vcpu_run(struct hv_vcpu *cpu, struct hv_exit *exit);

/*
 * Make run() return HV_EXIT_KICKED soon: the current run, or the next one when
 * none is under way. No kick is lost; several may become one.
 */
void hv_vcpu_kick(struct hv_vcpu *cpu);
int hv_vcpu_translate(struct hv_vcpu *cpu, uint64_t va, gpa_t *out);

void hv_vcpu_counters(struct hv_vcpu *cpu, struct hv_counters *out);

/*
 * A report a person can act on, for HV_EXIT_SHUTDOWN and HV_EXIT_ERROR:
 * registers, control registers, bytes at RIP, each line through @log.
 */
void hv_vcpu_report(struct hv_vcpu *cpu, const struct hv_exit *exit,
		    const struct log *log);

/*
 * --engine auto: KVM if a throw-away VM proves that it runs kernel code at
 * speed (high-half supervisor code, IDT delivery, an interrupt, a timer, within
 * a deadline), else the software CPU. @why gets one sentence for the log.
 */
const struct hv_ops *hv_choose(char *why, size_t why_size);
/* The same findings for `arcvmm doctor`: 0 when KVM is fit for stock kernels. */
int hv_kvm_fitness(struct err *why);

#endif
