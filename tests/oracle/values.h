/*
 * Random numbers, and values at which instructions have their corners: integers,
 * addresses, floating point.
 */
#ifndef ARC_ORACLE_VALUES_H
#define ARC_ORACLE_VALUES_H

#include <stdbool.h>
#include <stdint.h>

struct rng {
	uint64_t s[2];
};

static inline uint64_t rnd(struct rng *r)
{
	uint64_t a = r->s[0], b = r->s[1], v = a + b;

	b ^= a;
	r->s[0] = (a << 24 | a >> 40) ^ b ^ b << 16;
	r->s[1] = b << 37 | b >> 27;
	return v ^ v >> 29;
}

static inline unsigned below(struct rng *r, unsigned n)
{
	return (unsigned)((rnd(r) >> 32) * n >> 32);
}

/* True in @pct of 100. */
static inline bool chance(struct rng *r, unsigned pct)
{
	return below(r, 100) < pct;
}

void rng_seed(struct rng *r, uint64_t seed, uint64_t number);

uint64_t value(struct rng *r);
/* An address for a memory operand. */
uint64_t landing(struct rng *r, bool compat);
/* @len bytes, a multiple of 8, for an SSE register or memory. */
void fill_lane(struct rng *r, uint8_t *p, unsigned len);
/* An FXSAVE image. */
void gen_fx(struct rng *r, uint8_t *fx);

#endif
