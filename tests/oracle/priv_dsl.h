/* Short words for the tables of priv_*.c. */
#ifndef ARC_ORACLE_PRIV_DSL_H
#define ARC_ORACLE_PRIV_DSL_H

#include "hv/soft/cpu.h"
#include "priv_machine.h"

#define CASE(n, m, bytes, ...)                                          \
	{                                                               \
		.name = n, .mode = m, .code = { UNPACK bytes },         \
		.len = sizeof((uint8_t[]){ UNPACK bytes }), __VA_ARGS__ \
	}
#define UNPACK(...) __VA_ARGS__
#define IN(...)	    .in = { __VA_ARGS__ }
#define OUT(...)    .out = { __VA_ARGS__ }
#define ENDS(n)	    .ends = n
#define TABLE(name)                             \
	const struct priv_table name = { cases, \
					 sizeof(cases) / sizeof(cases[0]) }

#define REG(r, val)                 \
	{                           \
		P_GPR, X86_##r, val \
	}
#define MEM(la, val)           \
	{                      \
		P_MEM, la, val \
	}
#define BITS(la, mask, val)                         \
	{                                           \
		P_MEM_BITS, la, (mask) << 8 | (val) \
	}
#define FLAGS(val)                       \
	{                                \
		P_FLAGS, 0xffffffff, val \
	}
#define FLAG_BITS(mask, val)       \
	{                          \
		P_FLAGS, mask, val \
	}
#define SEL(s, val)                 \
	{                           \
		P_SEL, X86_##s, val \
	}
#define BASE(s, val)                 \
	{                            \
		P_BASE, X86_##s, val \
	}
#define CR0(clear, set)           \
	{                         \
		P_CR0, clear, set \
	}
#define CR4(clear, set)           \
	{                         \
		P_CR4, clear, set \
	}
#define EFER(clear, set)           \
	{                          \
		P_EFER, clear, set \
	}
#define MSR(m, val)                    \
	{                              \
		P_MSR, HV_MSR_##m, val \
	}
#define RIP(val)              \
	{                     \
		P_RIP, 0, val \
	}
#define FRAME(i, val)           \
	{                       \
		P_FRAME, i, val \
	}
#define FRAME_FLAGS(i, mask, val)                                \
	{                                                        \
		P_FRAME_FLAGS, i, (uint64_t)(mask) << 32 | (val) \
	}
#define PTE(la, val)                   \
	{                              \
		P_MEM, PTE_LA(la), val \
	}

/* What came: without and with an error code, and where from. */
#define VEC(v, rip)             \
	{ P_VECTOR, 0, v },     \
	{                       \
		P_FRAME, 0, rip \
	}
#define ERR(v, err, rip)                         \
	{ P_VECTOR, 0, v }, { P_FRAME, 0, err }, \
	{                                        \
		P_FRAME, 1, rip                  \
	}
#define PF(err, la, rip)     \
	ERR(14, err, rip),   \
	{                    \
		P_CR2, 0, la \
	}
#define SHUTDOWN                 \
	{                        \
		P_SHUTDOWN, 0, 0 \
	}

#endif
