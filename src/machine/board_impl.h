/* Inside the board: its struct, shared by board.c, boot.c, state.c, cpuid.c. */
#ifndef ARC_MACHINE_BOARD_IMPL_H
#define ARC_MACHINE_BOARD_IMPL_H

#include "machine/board.h"
#include "machine/kernel.h"
#include "machine/layout.h"

struct power;
struct uart;

struct board {
	struct board_config config;
	uint64_t ram_low, ram_high; /* bytes below and above the hole */
	unsigned nslots;
	struct uart *uart; /* NULL with no_uart */
	struct power *power;
	struct hv_vm *vm; /* NULL until attached */

	/* Of the last board_load(). */
	bool loaded;
	enum kernel_entry entry_mode;
	uint64_t entry;
	char *cmdline;

	/* What the engine can give, asked once. */
	struct hv_x86_cpuid *host_cpuid;
	unsigned nhost_cpuid;
	uint64_t tsc_khz;
};

/* Slot @i as board_add_slot() gave it, and whether another has its GSI. */
struct board_slot board_slot_at(unsigned i);
bool board_slot_shared(const struct board *b, unsigned i);

#endif
