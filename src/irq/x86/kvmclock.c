/* kvm-clock: the pvclock records (see kvmclock.h). */
#include "irq/x86/kvmclock.h"

#include <stddef.h>

#include "base/bytes.h"
#include "mem/gmem.h"

/* The layouts are the guest's ABI. */
struct pvclock_time {
	uint32_t version;
	uint32_t pad0;
	uint64_t tsc;
	uint64_t ns;
	uint32_t mul;
	int8_t shift;
	uint8_t flags;
	uint8_t pad[2];
};
_Static_assert(sizeof(struct pvclock_time) == 32, "pvclock ABI");

struct pvclock_wall {
	uint32_t version, sec, nsec;
};
_Static_assert(sizeof(struct pvclock_wall) == 12, "pvclock ABI");

#define NSEC 1000000000ull

struct kvmclock_rate kvmclock_rate(uint64_t khz)
{
	uint64_t hz = khz * 1000;
	int8_t shift = 0;

	/* Bring the rate into (1 GHz, 2 GHz]: then mul is 32 bits, top set. */
	while (hz > 2 * NSEC) {
		hz >>= 1;
		shift--;
	}
	while (hz <= NSEC) {
		hz <<= 1;
		shift++;
	}
	return (struct kvmclock_rate){ (uint32_t)((NSEC << 32) / hz), shift };
}

uint64_t kvmclock_scale(struct kvmclock_rate r, uint64_t ticks)
{
	ticks = r.shift < 0 ? ticks >> -r.shift : ticks << r.shift;
	return (uint64_t)((unsigned __int128)ticks * r.mul >> 32);
}

bool kvmclock_msr_valid(uint32_t msr, uint64_t val)
{
	if (msr != MSR_KVM_SYSTEM_TIME && msr != MSR_KVM_SYSTEM_TIME_OLD)
		return true;
	return !(val & 1) ||
	       (val & 0xffe) + sizeof(struct pvclock_time) <= 4096;
}

/*
 * The version is odd while we write, so that a guest reading now tries again.
 * Both barriers pair with those of the guest between version and contents. The
 * record is only 4-byte aligned, hence bytes.
 */
static uint32_t begin(void *record)
{
	uint32_t *version = record;
	uint32_t v = __atomic_load_n(version, __ATOMIC_RELAXED) | 1;

	/* A full barrier, unlike a store: nothing below gets above it. */
	__atomic_exchange_n(version, v, __ATOMIC_SEQ_CST);
	return v;
}

static void end(void *record, uint32_t v)
{
	__atomic_store_n((uint32_t *)record, v + 1, __ATOMIC_RELEASE);
}

void kvmclock_update(struct gmem *m, uint64_t system_time, uint64_t tsc,
		     uint64_t ns, uint64_t khz, uint32_t flags)
{
	struct kvmclock_rate r = kvmclock_rate(khz);
	uint64_t at = system_time & ~3ull;
	uint8_t *t;
	uint32_t v;

	if (!(system_time & 1))
		return;
	t = gmem_ptr(m, gpa(at), sizeof(struct pvclock_time), true);
	if (!t)
		return;
	v = begin(t);
	put_le64(t + offsetof(struct pvclock_time, tsc), tsc);
	put_le64(t + offsetof(struct pvclock_time, ns), ns);
	put_le32(t + offsetof(struct pvclock_time, mul), r.mul);
	t[offsetof(struct pvclock_time, shift)] = (uint8_t)r.shift;
	t[offsetof(struct pvclock_time, flags)] = (uint8_t)flags;
	end(t, v);
}

void kvmclock_wall(struct gmem *m, uint64_t at, uint64_t boot_real_ns)
{
	uint8_t *w;
	uint32_t v;

	w = gmem_ptr(m, gpa(at & ~3ull), sizeof(struct pvclock_wall), true);
	if (!w)
		return;
	v = begin(w);
	put_le32(w + offsetof(struct pvclock_wall, sec),
		 (uint32_t)(boot_real_ns / NSEC));
	put_le32(w + offsetof(struct pvclock_wall, nsec),
		 (uint32_t)(boot_real_ns % NSEC));
	end(w, v);
}
