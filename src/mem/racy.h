/*
 * Accesses to memory that the guest may be writing at this very moment.
 *
 * Races in guest memory, between vCPUs or between a vCPU and a device, are the
 * guest's own: it gets what the host's CPU gives, which is that an access of up
 * to eight bytes is made once and, if aligned, whole. ThreadSanitizer would
 * report them as ours; it is not shown these accesses, and only these. All that
 * the host's threads share besides is checked.
 */
#ifndef ARC_MEM_RACY_H
#define ARC_MEM_RACY_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__SANITIZE_THREAD__)
#define RACY_HIDDEN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define RACY_HIDDEN 1
#endif
#endif

#ifdef RACY_HIDDEN
/* Out of line, or the attribute would be that of the caller. */
#define RACY static __attribute__((noinline, unused, no_sanitize("thread")))
#else
#define RACY static inline __attribute__((always_inline))
#endif

typedef uint8_t racy_u8 __attribute__((may_alias));
typedef uint16_t racy_u16 __attribute__((aligned(1), may_alias));
typedef uint32_t racy_u32 __attribute__((aligned(1), may_alias));
typedef uint64_t racy_u64 __attribute__((aligned(1), may_alias));
typedef long long racy_u128
	__attribute__((vector_size(16), aligned(1), may_alias));

/* One access each, whatever the alignment. */
#define RACY_ACCESS(bits)                                  \
	RACY uint##bits##_t racy_ld##bits(const void *p)   \
	{                                                  \
		return *(const volatile racy_u##bits *)p;  \
	}                                                  \
	RACY void racy_st##bits(void *p, uint##bits##_t v) \
	{                                                  \
		*(volatile racy_u##bits *)p = v;           \
	}
RACY_ACCESS(8)
RACY_ACCESS(16)
RACY_ACCESS(32)
RACY_ACCESS(64)
#undef RACY_ACCESS

/* Sixteen bytes by one load. */
RACY void racy_ld128(void *to, const void *p)
{
	racy_u128 v = *(const volatile racy_u128 *)p;

	memcpy(to, &v, sizeof(v));
}

#ifdef RACY_HIDDEN
/* The C library's would be watched. */
RACY void racy_copy(void *to, const void *from, size_t len)
{
	const volatile uint8_t *s = from;
	volatile uint8_t *d = to;

	for (size_t i = 0; i < len; i++)
		d[i] = s[i];
}
RACY void racy_fill(void *to, int byte, size_t len)
{
	volatile uint8_t *d = to;

	for (size_t i = 0; i < len; i++)
		d[i] = (uint8_t)byte;
}
RACY int racy_compare(const void *a, const void *b, size_t len)
{
	const volatile uint8_t *p = a, *q = b;

	for (size_t i = 0; i < len; i++)
		if (p[i] != q[i])
			return 1;
	return 0;
}
#else
#define racy_copy    memmove
#define racy_fill    memset
#define racy_compare memcmp
#endif

#endif
