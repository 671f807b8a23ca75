/* A small machine for one soft vCPU: RAM, page tables, descriptor tables. */
#ifndef ARC_ORACLE_MACHINE_H
#define ARC_ORACLE_MACHINE_H

#include <stdint.h>

#include "hv/hv.h"

struct err;
struct soft_cpu;

struct machine {
	struct gmem *mem;
	struct bus *bus;
	struct hv_vm *vm;
	struct hv_vcpu *vcpu;
	struct soft_cpu *cpu;
	uint8_t *ram; /* of @ram_size bytes at physical 0 */
	uint64_t ram_size;
};

int machine_make(struct machine *m, uint64_t ram_size, struct err *e);
void machine_drop(struct machine *m);

/* 8 bytes into RAM. */
void machine_put64(struct machine *m, uint64_t pa, uint64_t v);

#endif
