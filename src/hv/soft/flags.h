/*
 * The six arithmetic flags, kept lazily.
 *
 * An operation stores what is cheap and a reader computes the flag it wants,
 * without asking which operation it was:
 *
 *   fl_res  the result, sign-extended to 64 bits     ZF SF PF
 *   fl_cv   the carries out of each bit, the operand's top bit at bit 63
 *           CF is bit 63, OF is bit 63 ^ bit 62
 *   fl_ap   bit 4 AF; bits 8-15 are xored into the byte PF is made of, bit 31
 *           into SF: so that any combination can be stored (POPF, COMISD)
 *
 * Rotates, BT, STC write fl_cv alone.
 */
#ifndef ARC_HV_SOFT_FLAGS_H
#define ARC_HV_SOFT_FLAGS_H

#include <stdbool.h>
#include <stdint.h>

#include "hv/soft/cpu.h"

#define FL_TOP	   (1ull << 63)
#define FL_BELOW   (1ull << 62)
#define FL_AP_SIGN (1u << 31)

static inline bool fl_zf(const struct soft_cpu *c)
{
	return c->fl_res == 0;
}

static inline bool fl_sf(const struct soft_cpu *c)
{
	return (c->fl_res ^ (uint64_t)c->fl_ap << 32) >> 63;
}

static inline bool fl_cf(const struct soft_cpu *c)
{
	return c->fl_cv >> 63;
}

static inline bool fl_of(const struct soft_cpu *c)
{
	return (c->fl_cv ^ c->fl_cv << 1) >> 63;
}

static inline bool fl_pf(const struct soft_cpu *c)
{
	uint8_t b = (uint8_t)(c->fl_res ^ c->fl_ap >> 8);

	b ^= b >> 4;
	return 0x9669 >> (b & 15) & 1;
}

static inline bool fl_af(const struct soft_cpu *c)
{
	return c->fl_ap >> 4 & 1;
}

/* Condition @cc of Jcc, SETcc, CMOVcc; constant when inlined. */
static inline __attribute__((always_inline)) bool
fl_cond(const struct soft_cpu *c, unsigned cc)
{
	bool r = false;

	switch (cc >> 1) {
	case 0:
		r = fl_of(c);
		break;
	case 1:
		r = fl_cf(c);
		break;
	case 2:
		r = fl_zf(c);
		break;
	case 3:
		r = (unsigned)fl_cf(c) | fl_zf(c);
		break;
	case 4:
		r = fl_sf(c);
		break;
	case 5:
		r = fl_pf(c);
		break;
	case 6:
		r = fl_sf(c) ^ fl_of(c);
		break;
	case 7:
		r = (unsigned)fl_zf(c) | (fl_sf(c) ^ fl_of(c));
		break;
	}
	return r ^ (cc & 1);
}

/* CF and OF alone. */
static inline void fl_set_co(struct soft_cpu *c, bool cf, bool of)
{
	c->fl_cv = (uint64_t)cf << 63 | (uint64_t)(cf ^ of) << 62;
}

/* CF alone; OF stays. */
static inline void fl_set_cf(struct soft_cpu *c, bool cf)
{
	fl_set_co(c, cf, fl_of(c));
}

static inline void fl_set_zf(struct soft_cpu *c, bool zf)
{
	bool sf = fl_sf(c), pf = fl_pf(c);
	uint32_t ap = c->fl_ap & FL_AF;

	c->fl_res = zf ? 0 : 0x100;
	c->fl_ap = ap | (pf ? 0 : 0x100) | (sf ? FL_AP_SIGN : 0);
}

static inline uint32_t fl_get(const struct soft_cpu *c)
{
	return (uint32_t)fl_cf(c) | (uint32_t)fl_pf(c) << 2 |
	       (uint32_t)fl_af(c) << 4 | (uint32_t)fl_zf(c) << 6 |
	       (uint32_t)fl_sf(c) << 7 | (uint32_t)fl_of(c) << 11;
}

static inline void fl_put(struct soft_cpu *c, uint64_t f)
{
	c->fl_res = f & FL_ZF ? 0 : 0x100;
	c->fl_ap = (uint32_t)(f & FL_AF) | (f & FL_PF ? 0 : 0x100) |
		   (f & FL_SF ? FL_AP_SIGN : 0);
	fl_set_co(c, f & FL_CF, f & FL_OF);
}

#endif
