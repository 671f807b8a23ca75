/*
 * Kernel files of any content through the whole path: identify, unpack (all
 * formats, 1 MiB at most), parse, write as an image, read back, place in guest
 * memory, compose the boot data.
 *
 * The mutator of libFuzzer meets checksums and lengths it cannot guess, so the
 * first byte may ask for a wrapping: the rest is then the payload of a good
 * bzImage, or an ELF program inside a packing.
 */
#include <elf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zstd.h>

#include "base/bug.h"
#include "base/bytes.h"
#include "base/err.h"
#include "machine/kernel_image.h"
#include "mem/gmem.h"

#define UNPACK_MAX (1u << 20)
#define PAYLOAD_AT (5 * 512)

enum { AS_IT_IS, IN_BZIMAGE, IN_ZSTD, IN_BOTH };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t *wrap(unsigned how, const uint8_t *data, size_t *size)
{
	size_t room = PAYLOAD_AT + ZSTD_compressBound(*size) + 4, n = *size;
	uint8_t *p = calloc(1, room), *at = p;
	uint32_t unpacked = (uint32_t)*size;

	if (how & IN_BZIMAGE)
		at += PAYLOAD_AT;
	if (how & IN_ZSTD)
		n = ZSTD_compress(at, room - (size_t)(at - p), data, n, 1);
	else
		memcpy(at, data, n);
	*size = (size_t)(at - p) + n;
	if (how & IN_BZIMAGE) {
		p[0x1f1] = 4;
		put_le16(p + 0x1fe, 0xaa55);
		p[0x201] = 0x6a;
		memcpy(p + 0x202, "HdrS", 4);
		put_le16(p + 0x206, 0x20f);
		put_le16(p + 0x20e, 0x40);
		p[0x211] = 1;
		put_le16(p + 0x236, 1);
		if (how & IN_ZSTD) {
			put_le32(at + n, unpacked);
			n += 4;
			*size += 4;
		}
		put_le32(p + 0x24c, (uint32_t)n);
	}
	return p;
}

static void place(const struct kernel_parsed *p)
{
	uint8_t sum[SHA256_SIZE] = { 0 };
	struct kernel k = { .fd = memfd_create("fuzz", MFD_CLOEXEC) };
	struct kernel_head again;
	struct gmem *m;

	bug_on(k.fd < 0);
	bug_on(kernel_image_write(k.fd, p, sum, &k.head) < 0);
	bug_on(kernel_image_read(k.fd, &again, true) < 0);
	bug_on(memcmp(&again, &k.head, sizeof(again)) != 0);
	bug_on(gmem_create(&m) < 0);
	if (gmem_add_ram(m, gpa(0), 64 << 20, NULL) == 0) {
		kernel_place(&k, m, true, NULL);
		kernel_place(&k, m, false, NULL);
	}
	gmem_destroy(m);
	close(k.fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct kernel_parsed p;
	struct err e = { 0 };
	uint8_t *file;
	unsigned how;

	if (size < 1 || size > UNPACK_MAX)
		return 0;
	how = data[0] & 3;
	size--;
	file = wrap(how, data + 1, &size);
	if (kernel_parse(&p, file, size, UNPACK_MAX, &e) == 0) {
		/* Bounded memory: writing what a lying header spans is not
		 * what is looked for here. */
		if (p.meta.end - p.meta.base < 48u << 20)
			place(&p);
		kernel_parsed_free(&p);
	} else {
		bug_on(!e.text[0]);
	}
	free(file);
	return 0;
}
