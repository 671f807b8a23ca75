/*
 * The kernel log reader on a guest memory in which the input overwrites what it
 * likes: pairs of a 16-bit position and eight bytes, from vmcoreinfo on.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bug.h"
#include "base/bytes.h"
#include "machine/klog.h"
#include "machine/klog_guest.h"
#include "mem/gmem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void line(void *ctx, const char *text)
{
	for (; *text; text++)
		bug_on(*text < ' ' || *text == 127);
	++*(unsigned *)ctx;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct gmem_region r = {
		.size = KLOG_GUEST_SIZE,
		.host = aligned_alloc(4096, KLOG_GUEST_SIZE),
		.fd = -1,
	};
	unsigned n = 0;
	struct gmem *m;

	klog_guest_init(r.host);
	for (int i = 0; i < 20; i++)
		klog_guest_printk(r.host, 12345, "a message of some length");
	for (; size >= 10; data += 10, size -= 10)
		memcpy((uint8_t *)r.host + KLOG_INFO + get_le16(data), data + 2,
		       8);
	bug_on(gmem_create(&m) || gmem_add_mapping(m, &r, NULL));
	bug_on(klog_read(m, 100, line, &n) != n);
	gmem_destroy(m);
	free(r.host);
	return 0;
}
