/*
 * The x86-64 board: memory map, chips, ACPI tables, kernel and boot state.
 *
 * Call order, all before the vCPUs run:
 *
 *     board_create()      RAM into the gmem, chips onto the bus
 *     board_add_slot()    for each virtio-mmio device: an address and a GSI
 *     hv_vm_create(), hv_irqchip_create()
 *     board_attach()      from now on chips can interrupt
 *     board_load()        kernel, initrd, command line, ACPI tables
 *     board_cpuid(), board_boot_state()   for each vCPU
 *
 * board_load() and hv_vm_create() do not depend on each other: they may come in
 * either order.
 *
 * After that the board acts by itself: chips answer on the bus under the
 * loop's lock, and the guest's wishes arrive as events.
 *
 * Memory map (docs/board.md has the reasons):
 *
 *     0          .. 3 GiB      RAM (the first 1 MiB: boot data, ACPI tables)
 *     0xd0000000 .. 0xd00fffff virtio-mmio, 4 KiB a slot
 *     0xfec00000               IOAPIC
 *     0xfee00000               local APICs
 *     4 GiB      ..            the rest of RAM
 *     port 0x3f8 .. 0x3ff      COM1
 *     port 0x505               panic notification (pvpanic)
 *     port 0x600 .. 0x60f      ACPI: sleep control and status, reset, events
 */
#ifndef ARC_MACHINE_BOARD_H
#define ARC_MACHINE_BOARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hv/hv.h"
#include "mem/gmem.h"

struct board;
struct bus;
struct err;
struct kernel;
struct log;
struct loop;

#define BOARD_CPUS_MAX	255
#define BOARD_SLOTS_MAX 256
#define BOARD_SLOT_SIZE 0x1000

/* What the guest asked for, or came to. */
enum board_event {
	BOARD_POWER_OFF, /* ACPI S5 */
	BOARD_RESET, /* reboot, by whichever reset register */
	BOARD_PANIC, /* the guest kernel panicked, by pvpanic or by rebooting
			out of a panic; may be followed by one of the others */
};
/* Called on a vCPU thread, with the loop's lock held. */
typedef void board_event_fn(void *ctx, enum board_event event);

struct board_config {
	unsigned ncpus; /* 1 .. BOARD_CPUS_MAX */
	uint64_t mem_size; /* bytes, rounded up to a page */
	bool no_uart; /* leave COM1 out */
	struct gmem *mem;
	struct bus *bus;
	struct loop *loop; /* the chips' */
	const struct log *log;
	board_event_fn *event;
	/* Bytes the guest wrote to COM1; same context as event. NULL: drop. */
	void (*uart_tx)(void *ctx, const uint8_t *buf, size_t len);
	/* The guest made room for input after board_uart_input() was short. */
	void (*uart_rx_ready)(void *ctx);
	void *ctx;
};

/*
 * Refuses with a sentence: 0 or too many CPUs; memory that is 0, less than
 * 16 MiB, or more than the host has.
 */
int board_create(struct board **out, const struct board_config *c,
		 struct err *e);
/* After the VM is destroyed and before the bus and the gmem. NULL-safe. */
void board_destroy(struct board *b);

/* Where a virtio-mmio device lives: BOARD_SLOT_SIZE bytes and an edge GSI. */
struct board_slot {
	uint64_t base;
	unsigned gsi;
};
/* -ENOSPC with a sentence when all are taken. Several slots may share a GSI. */
int board_add_slot(struct board *b, struct board_slot *out, struct err *e);

/* The VM whose interrupt lines the chips drive; NULL detaches. */
void board_attach(struct board *b, struct hv_vm *vm);

/*
 * A piece of the initrd: bytes, or when @data is NULL, a range of a file, or
 * when @fill is set, what @fill writes (all @len bytes, or -errno with a
 * sentence; initramfs_load() is one).
 */
struct board_part {
	const void *data;
	int (*fill)(const void *ctx, void *dst, struct err *e);
	const void *ctx;
	int fd;
	uint64_t offset;
	uint64_t len;
	const char *name; /* for messages: the file's path, or NULL */
};

struct board_boot {
	struct kernel *kernel;
	/* Concatenated, each padded with zeros to 4 bytes as cpio wants. */
	const struct board_part *initrd;
	unsigned ninitrd;
	/*
	 * The user's words, NULL for none. They follow the board's own, and the
	 * board leaves out any of its own that the user mentions.
	 */
	const char *cmdline;
	/* Words of other parts of the VM ("root=/dev/vda"); treated as ours. */
	const char *extra;
	bool no_defaults; /* only the user's words */
	bool quiet; /* add "quiet" unless the user set a log level */
};
/* May be called again for a reboot of the same board. */
int board_load(struct board *b, const struct board_boot *boot, struct err *e);

/* The command line board_load() composed. */
const char *board_cmdline(const struct board *b);

/* vCPU @index as the boot protocol wants it: entry point, or awaiting INIT. */
void board_boot_state(const struct board *b, unsigned index,
		      struct hv_x86_vcpu_state *s);

/* Which CPU a guest sees. */
enum board_cpu {
	BOARD_CPU_HOST, /* all that engine and host can give */
	/* x86-64-v2 without XSAVE, the same under every engine and host of one
	 * vendor: for snapshots that travel. */
	BOARD_CPU_BASE,
};
/*
 * CPUID of vCPU @index for engine @ops: fills at most @max leaves, returns the
 * number or -errno. After board_attach() and hv_vcpu_create() of the first, so
 * that the frequency of the TSC is known.
 */
int board_cpuid(struct board *b, const struct hv_ops *ops, enum board_cpu cpu,
		unsigned index, struct hv_x86_cpuid *leaves, unsigned max);

/* Reset the chips (a reboot); RAM is left to board_load(). */
void board_reset(struct board *b);

/* Press the power button. With the loop's lock. */
void board_power_button(struct board *b);

/* Input for COM1: how many bytes were taken. With the loop's lock. */
size_t board_uart_input(struct board *b, const uint8_t *buf, size_t len);

/*
 * The board's own command line words with the reason for each, for the manual
 * and `arcvmm help`: NULL after the last.
 */
struct board_word {
	const char *word; /* "cryptomgr.notests" */
	const char *unless; /* user words (prefixes) that displace it, "a|b" */
	const char *why;
};
const struct board_word *board_default_word(unsigned i);

#endif
