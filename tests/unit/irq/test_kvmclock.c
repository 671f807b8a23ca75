/* kvm-clock records, read back as a guest reads them. */
#include "irq_fixture.h"

#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "irq/x86/kvmclock.h"
#include "mem/gmem.h"

static struct gmem *ram(void)
{
	struct gmem *m;

	assert_int_equal(gmem_create(&m), 0);
	assert_int_equal(gmem_add_ram(m, gpa(0), 1 << 16, NULL), 0);
	return m;
}

static void rates(void **s)
{
	static const uint64_t khz[] = { 1,	 32,	  999999,  1000000,
					1000001, 1999999, 2000000, 2450000,
					3000123, 4999999, 9000000 };

	(void)s;
	for (unsigned i = 0; i < sizeof(khz) / sizeof(khz[0]); i++) {
		struct kvmclock_rate r = kvmclock_rate(khz[i]);
		uint64_t sec = kvmclock_scale(r, khz[i] * 1000);

		/* One second of ticks is one second, to 1 in 2^28. */
		assert_in_range(sec, 1000000000 - 4, 1000000000);
		/* And an hour does not overflow. */
		assert_in_range(kvmclock_scale(r, khz[i] * 3600000),
				3600000000000 - 14400, 3600000000000);
	}
}

static void record(void **s)
{
	struct gmem *m = ram();
	uint8_t r[32];
	struct kvmclock_rate rate;

	(void)s;
	kvmclock_update(m, 0x1004, 1, 2, 2000000, 1); /* disabled: bit 0 */
	gmem_read(m, gpa(0x1004), r, 32);
	assert_int_equal(get_le32(r), 0);
	for (uint32_t n = 1; n < 4; n++) {
		kvmclock_update(m, 0x1005, 1000 * n, 77, 2450000,
				KVMCLOCK_TSC_STABLE);
		gmem_read(m, gpa(0x1004), r, 32);
		assert_int_equal(get_le32(r), 2 * n); /* even, and new */
		assert_int_equal(get_le64(r + 8), 1000 * n);
		assert_int_equal(get_le64(r + 16), 77);
		assert_int_equal(r[29], 1);
	}
	rate = kvmclock_rate(2450000);
	assert_int_equal(get_le32(r + 24), rate.mul);
	assert_int_equal((int8_t)r[28], rate.shift);
	/* Outside RAM: nothing happens. */
	kvmclock_update(m, (1 << 16) | 1, 1, 2, 2000000, 0);
	kvmclock_update(m, 0xfff1, 1, 2, 2000000, 0);
	kvmclock_update(m, UINT64_MAX, 1, 2, 2000000, 0);
	gmem_destroy(m);
}

static void wall(void **s)
{
	struct gmem *m = ram();
	uint8_t r[12];

	(void)s;
	kvmclock_wall(m, 0x2000, 1700000000123456789);
	gmem_read(m, gpa(0x2000), r, 12);
	assert_int_equal(get_le32(r), 2);
	assert_int_equal(get_le32(r + 4), 1700000000);
	assert_int_equal(get_le32(r + 8), 123456789);
	kvmclock_wall(m, UINT64_MAX, 1);
	gmem_destroy(m);
}

static void msr_values(void **s)
{
	(void)s;
	assert_true(kvmclock_msr_valid(MSR_KVM_SYSTEM_TIME, 0));
	assert_true(kvmclock_msr_valid(MSR_KVM_SYSTEM_TIME, 0x1fe1));
	assert_false(kvmclock_msr_valid(MSR_KVM_SYSTEM_TIME, 0x1fe5));
	assert_false(kvmclock_msr_valid(MSR_KVM_SYSTEM_TIME_OLD, 0xfff));
	assert_true(kvmclock_msr_valid(MSR_KVM_SYSTEM_TIME, 0xffe));
	assert_true(kvmclock_msr_valid(MSR_KVM_WALL_CLOCK, 0xfff));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rates),
		cmocka_unit_test(record),
		cmocka_unit_test(wall),
		cmocka_unit_test(msr_values),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
