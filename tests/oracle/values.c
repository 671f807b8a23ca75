#include "values.h"

#include <string.h>

#include "layout.h"

static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	return x ^ x >> 31;
}

void rng_seed(struct rng *r, uint64_t seed, uint64_t number)
{
	r->s[0] = mix(seed ^ 0x9e3779b97f4a7c15);
	r->s[1] = mix(seed + mix(number + 1)) | 1;
	rnd(r);
}

uint64_t value(struct rng *r)
{
	static const uint64_t corner[] = {
		0,
		1,
		2,
		0x7f,
		0x80,
		0xff,
		0x7fff,
		0x8000,
		0xffff,
		0x7fffffff,
		0x80000000,
		0xffffffff,
		0x100000000,
		0x7fffffffffffffff,
		0x8000000000000000,
		0xffffffffffffffff,
		0xffffffffffffff80,
		0xffffffff80000000,
		0x5555555555555555,
		0x0123456789abcdef,
	};

	switch (below(r, 8)) {
	case 0:
	case 1:
	case 2:
		return corner[below(r, sizeof(corner) / sizeof(corner[0]))];
	case 3:
		return rnd(r) & 0xff;
	case 4:
		return corner[below(r, 20)] + below(r, 3) - 1;
	case 5:
		return 1ull << below(r, 64);
	case 6:
		return (uint32_t)rnd(r);
	default:
		return rnd(r);
	}
}

uint64_t landing(struct rng *r, bool compat)
{
	unsigned k = below(r, 16) + 1;
	uint64_t odd;

	switch (below(r, 32)) {
	case 0:
	case 1:
	case 2:
		return DATA_LA + PAGE - k;
	case 3:
	case 4:
		return DATA_LA + 2 * PAGE - k;
	case 5:
		return DATA_LA + 3 * PAGE + below(r, PAGE - 600);
	case 6:
		return DATA_LA + 5 * PAGE + 16 * below(r, 200);
	case 7:
		return DATA_LA + 3 * PAGE - k;
	case 8:
		return DATA_LA + 4 * PAGE - k;
	case 9:
		return DATA_LA + 5 * PAGE - k;
	case 10:
		return DATA_LA + 6 * PAGE + below(r, PAGE);
	case 11:
		return DATA_LA + 7 * PAGE + below(r, PAGE - 600);
	case 12:
		return CODE_LA + below(r, 2 * PAGE);
	case 13:
		if (compat)
			return 0xffffffff - k + 8;
		odd = below(r, 6);
		return odd == 0	  ? 0x0000800000000000ull - k
		       : odd == 1 ? 0x8000000000000000ull + k
		       : odd == 2 ? 0xffff800000000000ull + k - 8
		       : odd == 3 ? 0ull - k
		       : odd == 4 ? 0x100000000ull - k
				  : 0x0123456789abcdefull;
	default:
		odd = DATA_LA + below(r, PAGE - 600);
		return chance(r, 60) ? odd & ~15ull : odd;
	}
}

/* ---- floating point ---- */

static uint64_t double_value(struct rng *r)
{
	static const uint64_t corner[] = {
		0,
		0x8000000000000000,
		0x3ff0000000000000, /* 1 */
		0xbff0000000000000,
		0x4000000000000000,
		0x7ff0000000000000, /* inf */
		0xfff0000000000000,
		0x7ff8000000000000, /* QNaN */
		0xfff8000000000000,
		0x7ff0000000000001, /* SNaN */
		0xfff4000000000000,
		0x0000000000000001, /* denormal */
		0x800fffffffffffff,
		0x0010000000000000, /* smallest normal */
		0x7fefffffffffffff, /* largest */
		0x41dfffffffc00000, /* 2^31 - 1 */
		0x41e0000000000000,
		0x43e0000000000000, /* 2^63 */
		0x3fe0000000000000, /* 0.5 */
		0x4330000000000001,
	};

	return chance(r, 70) ? corner[below(r, 20)] : rnd(r);
}

static uint32_t float_value(struct rng *r)
{
	static const uint32_t corner[] = {
		0,	    0x80000000, 0x3f800000, 0xbf800000, 0x40000000,
		0x7f800000, 0xff800000, 0x7fc00000, 0xffc00000, 0x7f800001,
		0xffa00000, 0x00000001, 0x807fffff, 0x00800000, 0x7f7fffff,
		0x4effffff, 0x4f000000, 0x5f000000, 0x3f000000, 0x4b000001,
	};

	return chance(r, 70) ? corner[below(r, 20)] : (uint32_t)rnd(r);
}

void fill_lane(struct rng *r, uint8_t *p, unsigned len)
{
	unsigned kind = below(r, 4);

	for (unsigned i = 0; i < len; i += 8) {
		uint64_t v = kind == 0	 ? rnd(r)
			     : kind == 1 ? double_value(r)
			     : kind == 2 ? (float_value(r) |
					    (uint64_t)float_value(r) << 32)
					 : value(r);
		memcpy(p + i, &v, 8);
	}
}

static void st_value(struct rng *r, uint8_t *p)
{
	static const struct {
		uint16_t exp;
		uint64_t man;
	} corner[] = {
		{ 0, 0 },
		{ 0x8000, 0 },
		{ 0x3fff, 0x8000000000000000 }, /* 1 */
		{ 0xbfff, 0x8000000000000000 },
		{ 0x4000, 0xc90fdaa22168c235 }, /* pi */
		{ 0x7fff, 0x8000000000000000 }, /* inf */
		{ 0xffff, 0x8000000000000000 },
		{ 0x7fff, 0xc000000000000000 }, /* QNaN */
		{ 0x7fff, 0xa000000000000000 }, /* SNaN */
		{ 0xffff, 0xc000000000000000 }, /* indefinite */
		{ 0, 1 }, /* denormal */
		{ 0, 0x8000000000000000 }, /* pseudo-denormal */
		{ 0x1234, 0x0123456789abcdef }, /* unnormal */
		{ 0x7fff, 0 }, /* pseudo-infinity */
		{ 0x7ffe, 0xffffffffffffffff }, /* largest */
		{ 0x0001, 0x8000000000000000 }, /* smallest */
		{ 0x403e, 0x8000000000000000 }, /* 2^63 */
		{ 0x3ffe, 0x8000000000000000 }, /* 0.5 */
		{ 0x401d, 0xfffffffe00000000 },
		{ 0x4005, 0xc800000000000000 }, /* 100 */
	};
	unsigned i = below(r, 24);
	uint16_t exp;
	uint64_t man;

	if (i < 20) {
		exp = corner[i].exp;
		man = corner[i].man;
	} else {
		exp = (uint16_t)(0x3fc0 + below(r, 128)) |
		      (uint16_t)(below(r, 2) << 15);
		man = rnd(r) | 0x8000000000000000;
	}
	memcpy(p, &man, 8);
	memcpy(p + 8, &exp, 2);
}

void gen_fx(struct rng *r, uint8_t *fx)
{
	uint16_t fcw = 0x37f, fsw = 0;
	uint32_t mxcsr = 0x1f80;

	memset(fx, 0, 160);
	if (chance(r, 40))
		fcw = (uint16_t)(0x340 | (rnd(r) & 0xf00) |
				 (chance(r, 80) ? 0x3f : rnd(r) & 0x3f));
	if (chance(r, 50))
		fsw |= (uint16_t)(below(r, 8) << 11);
	if (chance(r, 20))
		fsw |= (uint16_t)(rnd(r) & 0x4700);
	if (chance(r, 20))
		fsw |= (uint16_t)(rnd(r) & 0x7f);
	if (fsw & ~fcw & 0x3f)
		fsw |= 0x8080;
	memcpy(fx, &fcw, 2);
	memcpy(fx + 2, &fsw, 2);
	fx[4] = chance(r, 40) ? 0xff : chance(r, 30) ? 0 : (uint8_t)rnd(r);
	if (chance(r, 30))
		mxcsr ^= (uint32_t)rnd(r) & 0xe040;
	if (chance(r, 20))
		mxcsr |= (uint32_t)rnd(r) & 0x3f;
	if (chance(r, 12))
		mxcsr &= ~((uint32_t)rnd(r) & 0x1f80);
	memcpy(fx + 24, &mxcsr, 4);
	for (int i = 0; i < 8; i++) {
		if (fx[4] >> i & 1 || chance(r, 50))
			st_value(r, fx + 32 + 16 * i);
		else
			fill_lane(r, fx + 32 + 16 * i, 8);
	}
	for (int i = 0; i < 16; i++)
		fill_lane(r, fx + 160 + 16 * i, 16);
	memset(fx + 416, 0, 96);
}
