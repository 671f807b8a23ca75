#include "test.h"

#include "kernel_files.h"

#include <bzlib.h>
#include <elf.h>
#include <fcntl.h>
#include <glob.h>
#include <lz4.h>
#include <lz4frame.h>
#include <lzma.h>
#include <lzo/lzo1x.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include "base/bytes.h"
#include "base/util.h"

struct blob make_elf(const struct elf_spec *s)
{
	uint64_t load = s->load ?: 0x1000000;
	size_t text = s->text ?: 0x5000, bss = s->bss ?: 0x3000;
	size_t off = 0x1000, note = text - 64;
	struct blob b = { calloc(1, off + text), off + text };
	Elf64_Ehdr *h = (void *)b.p;
	Elf64_Phdr *ph = (void *)(b.p + sizeof(*h));

	assert_non_null(b.p);
	memcpy(h->e_ident, ELFMAG, SELFMAG);
	h->e_ident[EI_CLASS] = s->class32 ? ELFCLASS32 : ELFCLASS64;
	h->e_ident[EI_DATA] = ELFDATA2LSB;
	h->e_ident[EI_VERSION] = EV_CURRENT;
	h->e_type = ET_EXEC;
	h->e_machine = s->machine ?: EM_X86_64;
	h->e_entry = load + s->virt + 0x40;
	h->e_phoff = sizeof(*h);
	h->e_phentsize = sizeof(*ph);
	h->e_phnum = s->pvh ? 2 : 1;
	ph[0] = (Elf64_Phdr){
		.p_type = PT_LOAD,
		.p_offset = off,
		.p_vaddr = load + s->virt,
		.p_paddr = load,
		.p_filesz = text,
		.p_memsz = text + bss,
	};
	/* Something that packs, but not to nothing. */
	for (size_t i = 0; i < text / 2; i++)
		b.p[off + i] = (uint8_t)(i * i >> 5 ^ i);
	memset(b.p + off + 0x2000, 0, 0x1000);
	if (s->banner)
		strcpy((char *)b.p + off + 0x100, s->banner);
	if (s->pvh) {
		uint8_t *n = b.p + off + note;

		ph[1] = (Elf64_Phdr){
			.p_type = PT_NOTE,
			.p_offset = off + note,
			.p_filesz = 20,
		};
		put_le32(n, 4);
		put_le32(n + 4, 4);
		put_le32(n + 8, 18);
		memcpy(n + 12, "Xen", 4);
		put_le32(n + 16, s->pvh_entry);
	}
	return b;
}

static size_t pack_lzop(uint8_t *out, const void *p, size_t len)
{
	static const uint8_t magic[9] = { 0x89, 'L',  'Z',  'O', 0,
					  '\r', '\n', 0x1a, '\n' };
	const size_t block = 256 * 1024;
	uint8_t *work = malloc(LZO1X_1_MEM_COMPRESS), *o = out;

	assert_non_null(work);
	memset(o, 0, 64);
	memcpy(o, magic, 9);
	put_be16(o + 9, 0x1030);
	put_be16(o + 11, 0x2080);
	put_be16(o + 13, 0x0940);
	o[15] = 1; /* LZO1X-1 */
	o[16] = 5;
	put_be32(o + 17, 1); /* Adler-32 of the data */
	o += 9 + 8 + 4 + 12 + 1 + 4;
	for (size_t at = 0; at < len; at += block) {
		size_t n = min_of(block, len - at);
		lzo_uint m = 0;

		put_be32(o, (uint32_t)n);
		put_be32(o + 8, (uint32_t)adler32(1, (const uint8_t *)p + at,
						  (unsigned)n));
		assert_int_equal(lzo1x_1_compress((const uint8_t *)p + at, n,
						  o + 12, &m, work),
				 LZO_E_OK);
		if (m >= n) {
			m = n;
			memcpy(o + 12, (const uint8_t *)p + at, n);
		}
		put_be32(o + 4, (uint32_t)m);
		o += 12 + m;
	}
	put_be32(o, 0);
	free(work);
	return (size_t)(o + 4 - out);
}

static size_t pack_lz4_legacy(uint8_t *out, const void *p, size_t len)
{
	const size_t block = 8 << 20;
	uint8_t *o = out + 4;

	put_le32(out, 0x184c2102);
	for (size_t at = 0; at < len; at += block) {
		int n = LZ4_compress_default((const char *)p + at,
					     (char *)o + 4,
					     (int)min_of(block, len - at),
					     LZ4_COMPRESSBOUND(8 << 20));

		assert_true(n > 0);
		put_le32(o, (uint32_t)n);
		o += 4 + n;
	}
	return (size_t)(o - out);
}

static size_t pack_lzma(uint8_t *out, size_t room, const void *p, size_t len,
			bool xz)
{
	lzma_stream s = LZMA_STREAM_INIT;
	lzma_options_lzma opt;

	lzma_lzma_preset(&opt, 1);
	assert_int_equal(xz ? lzma_easy_encoder(&s, 1, LZMA_CHECK_CRC32)
			    : lzma_alone_encoder(&s, &opt),
			 LZMA_OK);
	s.next_in = p;
	s.avail_in = len;
	s.next_out = out;
	s.avail_out = room;
	assert_int_equal(lzma_code(&s, LZMA_FINISH), LZMA_STREAM_END);
	lzma_end(&s);
	return room - s.avail_out;
}

static size_t pack_gzip(uint8_t *out, size_t room, const void *p, size_t len)
{
	z_stream z = { 0 };

	assert_int_equal(
		deflateInit2(&z, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY),
		Z_OK);
	z.next_in = (uint8_t *)(uintptr_t)p;
	z.avail_in = (unsigned)len;
	z.next_out = out;
	z.avail_out = (unsigned)room;
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	deflateEnd(&z);
	return room - z.avail_out;
}

struct blob make_packed(enum unpack_format f, const void *p, size_t len)
{
	size_t room = len + len / 8 + (16 << 20);
	struct blob b = { malloc(room), 0 };
	unsigned bz = (unsigned)room;

	assert_non_null(b.p);
	switch (f) {
	case UNPACK_GZIP:
		b.len = pack_gzip(b.p, room, p, len);
		break;
	case UNPACK_XZ:
	case UNPACK_LZMA:
		b.len = pack_lzma(b.p, room, p, len, f == UNPACK_XZ);
		break;
	case UNPACK_BZIP2:
		assert_int_equal(BZ2_bzBuffToBuffCompress(
					 (char *)b.p, &bz, (char *)(uintptr_t)p,
					 (unsigned)len, 1, 0, 0),
				 BZ_OK);
		b.len = bz;
		break;
	case UNPACK_LZO:
		b.len = pack_lzop(b.p, p, len);
		break;
	case UNPACK_LZ4_LEGACY:
		b.len = pack_lz4_legacy(b.p, p, len);
		break;
	case UNPACK_LZ4:
		b.len = LZ4F_compressFrame(b.p, room, p, len, NULL);
		break;
	case UNPACK_ZSTD:
		b.len = ZSTD_compress(b.p, room, p, len, 1);
		break;
	default:
		memcpy(b.p, p, len);
		b.len = len;
	}
	return b;
}

struct blob make_bzimage(struct blob payload, bool tail, uint32_t unpacked)
{
	const size_t setup = 512 * 5, off = 0x200;
	static const char version[] = "6.1.2-test (me@here) #1";
	struct blob b = { .len = setup + off + payload.len + (tail ? 4 : 0) };

	b.p = calloc(1, b.len);
	assert_non_null(b.p);
	b.p[0] = 'M';
	b.p[1] = 'Z';
	b.p[0x1f1] = 4;
	put_le16(b.p + 0x1fe, 0xaa55);
	b.p[0x200] = 0xeb;
	b.p[0x201] = 0x6a;
	memcpy(b.p + 0x202, "HdrS", 4);
	put_le16(b.p + 0x206, 0x20f);
	put_le16(b.p + 0x20e, 0x600 - 0x200);
	memcpy(b.p + 0x600, version, sizeof(version));
	b.p[0x211] = 1;
	put_le32(b.p + 0x22c, 0x7fffffff);
	put_le16(b.p + 0x236, 0x7f);
	put_le32(b.p + 0x238, 2047);
	put_le32(b.p + 0x248, off);
	put_le32(b.p + 0x24c, (uint32_t)(payload.len + (tail ? 4 : 0)));
	memcpy(b.p + setup + off, payload.p, payload.len);
	if (tail)
		put_le32(b.p + setup + off + payload.len, unpacked);
	return b;
}

void write_file(const char *path, const void *p, size_t len)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, p, len), len);
	close(fd);
}

bool stock_kernel(const char *version, char *path, size_t size)
{
	const char *dir = getenv("ARCVMM_KERNELS"), *home = getenv("HOME");
	const char *cache = getenv("ARCVMM_CACHE");
	char pattern[512];
	glob_t g;
	bool ok;

	if (dir)
		snprintf(pattern, sizeof(pattern), "%s/%s/boot/vmlinuz-*", dir,
			 version);
	else if (cache)
		snprintf(pattern, sizeof(pattern),
			 "%s/kernel-%s/boot/vmlinuz-*", cache, version);
	else
		snprintf(pattern, sizeof(pattern),
			 "%s/.cache/arcvmm-test/kernel-%s/boot/vmlinuz-*",
			 home ?: "", version);
	ok = glob(pattern, 0, NULL, &g) == 0;
	if (ok)
		snprintf(path, size, "%s", g.gl_pathv[0]);
	globfree(&g);
	return ok;
}
