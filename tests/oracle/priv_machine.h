/*
 * The standard machine of the privileged tables, and their vocabulary.
 *
 * 2 MiB of RAM, identity-mapped in 4 KiB pages; linear addresses:
 *
 *	0x06000 GDT, 0x07000 IDT (long), 0x0b000 IDT (32-bit), 0x08000 TSS
 *	0x09000 handlers: vector n at + 16 n
 *	0x10000 kernel code    0x20000 user code
 *	0x11000 kernel RW      0x21000 user RW
 *	0x12000 kernel RO      0x22000 user RO
 *	0x13000 absent         0x23000 absent
 *	0x14000 kernel NX      0x24000 user NX
 *	0x25000 user, reserved bit set
 *	0x26000 user RW, A and D clear
 *	0x17ff0 kernel stack   0x27ff0 user stack (both grow down)
 *	0x19000 stack of IST1, top 0x1a000; of RSP0/ESP0: top 0x19000
 *	0x200000 a 2 MiB page, to physical 0, user RW
 */
#ifndef ARC_ORACLE_PRIV_MACHINE_H
#define ARC_ORACLE_PRIV_MACHINE_H

#include <stdbool.h>
#include <stdint.h>

#include "hv/hv.h"

struct err;

enum priv_mode {
	K64, /* 64-bit, CPL 0 */
	U64, /* 64-bit, CPL 3 */
	U32, /* compatibility mode, CPL 3 */
	P32, /* protected mode, 32-bit, no paging, CPL 0 */
	Q32, /* the same, CPL 3 */
	REAL,
};

enum priv_key {
	P_END,
	P_GPR,
	P_RIP,
	P_FLAGS,
	P_CR0,
	P_CR2,
	P_CR3,
	P_CR4,
	P_EFER,
	P_DR, /* a: number */
	P_DR6,
	P_DR7,
	P_SEL,
	P_BASE,
	P_LIMIT,
	P_ATTR,
	P_MSR,
	P_KGS,
	P_MEM, /* 64 bits at linear = physical a */
	P_MEM_BITS,
	P_IDT_LIMIT,
	P_IRQ, /* vector v waits in the LAPIC */
	/* only expected: */
	P_FRAME,
	P_FRAME_FLAGS,
	P_VECTOR,
	P_SHUTDOWN,
};

struct priv_item {
	int key;
	uint64_t a, v;
};

struct priv_case {
	const char *name;
	enum priv_mode mode;
	uint8_t code[24];
	uint8_t len;
	/* Instructions at the start that end although an exception comes. */
	uint8_t ends;
	struct priv_item in[10], out[10];
};

struct priv_table {
	const struct priv_case *cases;
	unsigned count;
};
extern const struct priv_table *const priv_tables[]; /* NULL-terminated */

/* Selectors. */
enum {
	KCS = 0x08,
	KDS = 0x10,
	UCS32 = 0x1b,
	UDS = 0x23,
	UCS = 0x2b,
	TSS = 0x30, /* two slots */
	KCS32 = 0x40,
	NPDS = 0x4b, /* data, DPL 3, not present */
	XOCS = 0x50, /* code, execute only, conforming, DPL 0 */
	RODS = 0x5b, /* data, read-only, DPL 3 */
	SMALL = 0x60, /* data, RW, DPL 0, limit 0xfff, base 0x11000 */
	DOWN = 0x68, /* data, RW, expand down, limit 0xfff, 32-bit */
	GATE = 0x73, /* call gate, DPL 3, to KCS:0x9800 (two slots) */
	NPCS = 0x80, /* code 64, DPL 0, not present */
	UNACC = 0x8b, /* data, RW, DPL 3, accessed bit clear */
	GDT_END = 0x90,
};

#define KCODE	   0x10000ull
#define UCODE	   0x20000ull
#define KSTACK	   0x17ff0ull
#define USTACK	   0x27ff0ull
#define RSP0	   0x19000ull
#define IST1	   0x1a000ull
#define HANDLER	   0x9000ull
#define GDT_LA	   0x6000ull
#define IDT_LA	   0x7000ull
#define PTE_LA(la) (0x4000ull + ((la) >> 12) * 8)

int priv_machine_init(struct err *e);
/* Memory and *s for @c; the linear address after its code. */
uint64_t priv_setup(const struct priv_case *c, struct hv_x86_vcpu_state *s);
/* Load *s, run to an INT3, read *s. 0 or -errno. */
int priv_go(struct hv_x86_vcpu_state *s, struct hv_exit *exit);
int priv_vector_at(uint64_t la); /* -1 */
uint64_t priv_peek(uint64_t la);
/* Item @i of the stack, of the size the mode pushes. */
uint64_t priv_stack(const struct hv_x86_vcpu_state *s, unsigned i);

#endif
