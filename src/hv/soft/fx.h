/*
 * The FXSAVE image: where the guest's x87, MMX and SSE registers live.
 *
 * SDM vol. 1, 10.5.1 (table 10-2). The layout is the 64-bit one; FCS and FDS
 * are not kept (the CPU model reports them as deprecated: CPUID.7.EBX[13]).
 */
#ifndef ARC_HV_SOFT_FX_H
#define ARC_HV_SOFT_FX_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct fx_image {
	uint16_t fcw, fsw;
	uint8_t ftw; /* abridged: bit n set = physical register n in use */
	uint8_t reserved;
	uint16_t fop; /* 11 bits */
	uint64_t fip, fdp;
	uint32_t mxcsr, mxcsr_mask;
	uint8_t st[8][16]; /* ST(0)..ST(7), so relative to TOP */
	uint8_t xmm[16][16];
	uint8_t unused[96];
} __attribute__((aligned(64)));

_Static_assert(offsetof(struct fx_image, st) == 32, "FXSAVE layout");
_Static_assert(offsetof(struct fx_image, xmm) == 160, "FXSAVE layout");
_Static_assert(sizeof(struct fx_image) == 512, "FXSAVE layout");

enum {
	FSW_IE = 1 << 0,
	FSW_DE = 1 << 1,
	FSW_ZE = 1 << 2,
	FSW_OE = 1 << 3,
	FSW_UE = 1 << 4,
	FSW_PE = 1 << 5,
	FSW_SF = 1 << 6,
	FSW_ES = 1 << 7, /* an unmasked exception is pending */
	FSW_B = 1 << 15,

	MXCSR_FLAGS = 0x3f, /* IE DE ZE OE UE PE, the same bits as in FSW */
	MXCSR_DAZ = 1 << 6,
	MXCSR_MASKS = 0x1f80,
	MXCSR_MASK_SHIFT = 7,
	MXCSR_FZ = 1 << 15,
	MXCSR_VALID = 0xffff,
	MXCSR_RESET = 0x1f80,
	FCW_RESET = 0x40, /* after RESET; FNINIT gives 0x37f */
};

static inline unsigned fx_top(const struct fx_image *fx)
{
	return fx->fsw >> 11 & 7;
}

/*
 * ES and B follow from flags and masks; an image from outside (FXRSTOR, FLDENV,
 * a snapshot) need not say so.
 */
static inline void fx_fix_es(struct fx_image *fx)
{
	fx->fsw &= (uint16_t) ~(FSW_ES | FSW_B);
	if (fx->fsw & ~fx->fcw & 0x3f)
		fx->fsw |= FSW_ES | FSW_B;
}

/*
 * Move TOP, keeping each value in its physical register: the image is ordered
 * by distance from TOP.
 */
static inline void fx_set_top(struct fx_image *fx, unsigned top)
{
	unsigned turn = (top - fx_top(fx)) & 7;
	uint8_t old[8][16];

	if (turn) {
		memcpy(old, fx->st, sizeof(old));
		for (unsigned i = 0; i < 8; i++)
			memcpy(fx->st[i], old[(i + turn) & 7], 16);
	}
	fx->fsw = (uint16_t)((fx->fsw & ~(7u << 11)) | top << 11);
}

/*
 * Make an image that came from outside one that this CPU could have saved:
 * reserved bits as hardware keeps them. MXCSR must be valid already or is cut.
 */
static inline void fx_sanitize(struct fx_image *fx)
{
	fx->fcw = (uint16_t)((fx->fcw & 0x1f3f) | 0x40);
	fx->fop &= 0x7ff;
	fx->reserved = 0;
	fx->mxcsr &= MXCSR_VALID;
	fx->mxcsr_mask = MXCSR_VALID;
	for (unsigned i = 0; i < 8; i++)
		memset(fx->st[i] + 10, 0, 6);
	fx_fix_es(fx);
}

#endif
