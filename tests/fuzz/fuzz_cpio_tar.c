/*
 * Everything the initramfs is made of that comes from files: tar archives,
 * compressed streams, module files, modules.dep and modules.softdep; and the
 * configuration as the guest's init reads it. The first byte chooses.
 *
 * Oracles besides the sanitizers: what tree_write() says it wrote is what
 * pack_load() writes; output limits hold.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <bzlib.h>
#include <elf.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include "base/bug.h"
#include "base/err.h"
#include "base/util.h"
#include "machine/fs_probe.h"
#include "machine/initramfs_modules.h"
#include "machine/initramfs_pack.h"
#include "machine/initramfs_stream.h"
#include "machine/initramfs_tree.h"

#include "guest/config.c" /* the guest's, compiled in */

#define LIMIT 65536

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
size_t LLVMFuzzerMutate(uint8_t *data, size_t len, size_t max);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t len, size_t max,
			       unsigned seed);

/* ---- tar ---- */

/* Header checksums made right, so that the fuzzer gets behind them. */
static void fix_sums(uint8_t *tar, size_t len)
{
	for (size_t at = 0; at + 512 <= len; at += 512) {
		unsigned sum = 0;

		memset(tar + at + 148, ' ', 8);
		for (int i = 0; i < 512; i++)
			sum += tar[at + i];
		if (tar[at])
			snprintf((char *)tar + at + 148, 8, "%06o", sum);
	}
}

static void fuzz_tar(const uint8_t *data, size_t len, bool fix)
{
	int fd = memfd_create("fuzz", 0);
	struct tree *t = tree_create();
	struct pack *p = pack_create();
	uint8_t *copy = malloc(len + 1), *out;
	struct err e;

	memcpy(copy, data, len);
	if (fix)
		fix_sums(copy, len);
	if (write(fd, copy, len) == (ssize_t)len &&
	    !tree_from_tar(t, fd, len, "fuzz", &e) &&
	    !tree_write(t, p, -1, fd)) {
		bug_on(pack_size(p) % 4);
		/* Data stays in the archive: the sum is bounded by it, but
		 * members may share no bytes. */
		bug_on(pack_size(p) > 64 * len + 4096 + (1 << 20));
		out = malloc(pack_size(p));
		bug_on(!out);
		bug_on(pack_load(p, out, &e));
		free(out);
	}
	pack_destroy(p);
	tree_destroy(t);
	close(fd);
	free(copy);
}

/* ---- streams ---- */

struct mem_source {
	struct stream_source source;
	const uint8_t *data;
	size_t len, step;
};

static long mem_read(struct stream_source *s, void *buf, size_t len)
{
	struct mem_source *m = container_of(s, struct mem_source, source);
	size_t n = min_of(len, m->step);

	n = min_of(n, m->len);
	memcpy(buf, m->data, n);
	m->data += n;
	m->len -= n;
	return (long)n;
}

struct count_sink {
	struct stream_sink sink;
	uint64_t total;
};

static int count_put(struct stream_sink *s, const void *data, size_t len)
{
	(void)data;
	container_of(s, struct count_sink, sink)->total += len;
	return 0;
}

static void fuzz_stream(const uint8_t *data, size_t len)
{
	struct mem_source src = { .source.read = mem_read };
	struct count_sink sink = { .sink.put = count_put };

	if (!len)
		return;
	src.step = data[0] ? data[0] : LIMIT;
	src.data = data + 1;
	src.len = len - 1;
	stream_unpack(stream_detect(src.data, src.len), &src.source, &sink.sink,
		      LIMIT);
	bug_on(sink.total > LIMIT);
}

/* ---- modules ---- */

static void fuzz_modinfo(const uint8_t *data, size_t len)
{
	static const char *const keys[] = { "depends", "softdep", "vermagic" };
	uint8_t *exact = malloc(len ? len : 1);
	const char *v;

	memcpy(exact, data, len);
	for (size_t k = 0; k < array_size(keys); k++)
		for (unsigned i = 0;
		     i < 64 && (v = modinfo(exact, len, keys[k], i)); i++)
			bug_on(v < (char *)exact ||
			       v + strlen(v) >= (char *)exact + len);
	free(exact);
}

/* A module with no code: its .modinfo and the names of the sections. */
static void write_module(const char *path, const char *info, size_t len)
{
	static const char names[] = "\0.modinfo";
	struct {
		Elf64_Ehdr eh;
		Elf64_Shdr sh[3];
		char names[16];
	} f = { 0 };
	FILE *o = fopen(path, "w");

	memcpy(f.eh.e_ident, ELFMAG, 4);
	f.eh.e_ident[EI_CLASS] = ELFCLASS64;
	f.eh.e_ident[EI_DATA] = ELFDATA2LSB;
	f.eh.e_shoff = offsetof(typeof(f), sh);
	f.eh.e_shentsize = sizeof(Elf64_Shdr);
	f.eh.e_shnum = 3;
	f.eh.e_shstrndx = 1;
	f.sh[1].sh_offset = offsetof(typeof(f), names);
	f.sh[1].sh_size = sizeof(f.names);
	f.sh[2].sh_name = 1;
	f.sh[2].sh_offset = sizeof(f);
	f.sh[2].sh_size = len;
	memcpy(f.names, names, sizeof(names));
	bug_on(!o || fwrite(&f, sizeof(f), 1, o) != 1 ||
	       fwrite(info, 1, len, o) != len);
	fclose(o);
}

static void write_file(const char *path, const uint8_t *data, size_t len)
{
	FILE *o = fopen(path, "w");

	bug_on(!o || fwrite(data, 1, len, o) != len);
	fclose(o);
}

static char dir[] = "/tmp/fuzz-modules.XXXXXX";

static void remove_dir(void)
{
	static const char *const files[] = { "modules.dep", "modules.softdep",
					     "a.ko",	    "b.ko",
					     "c.ko",	    "." };

	for (size_t i = 0; i + 1 < array_size(files); i++) {
		char path[64];

		snprintf(path, sizeof(path), "%s/%s", dir, files[i]);
		unlink(path);
	}
	rmdir(dir);
}

/* The input is modules.dep, modules.softdep and more, split by 0 bytes. */
static void fuzz_index(const uint8_t *data, size_t len)
{
	static const char magic[] = "vermagic=1.0 x";
	static bool made;
	const uint8_t *soft = len ? memchr(data, 0, len) : NULL;
	struct modules *m;
	char path[64];

	if (!made) {
		bug_on(!mkdtemp(dir));
		made = true;
		atexit(remove_dir);
		for (char c = 'a'; c <= 'c'; c++) {
			snprintf(path, sizeof(path), "%s/%c.ko", dir, c);
			write_module(path, magic, sizeof(magic));
		}
	}
	snprintf(path, sizeof(path), "%s/modules.dep", dir);
	write_file(path, data, soft ? (size_t)(soft - data) : len);
	snprintf(path, sizeof(path), "%s/modules.softdep", dir);
	write_file(path, soft ? soft + 1 : data,
		   soft ? (size_t)(data + len - soft - 1) : 0);
	if (modules_open(dir, NULL, "1.0", &m, NULL))
		return;
	if (!modules_read(m, NULL)) {
		const struct module *mod;

		modules_want(m, "a", NULL);
		modules_want(m, "b", NULL);
		for (unsigned i = 0; (mod = modules_wanted(m, i)); i++)
			bug_on(i > 3 || !mod->name || !mod->data);
	}
	modules_close(m);
}

/* ---- the guest's configuration ---- */

static void fuzz_config(const uint8_t *data, size_t len)
{
	char *text = malloc(len + 1);
	struct config c;
	int line;

	memcpy(text, data, len);
	text[len] = 0;
	config_parse(&c, text, len, &line);
	for (char **a = c.argv; a && *a; a++)
		bug_on(*a < text || *a > text + len);
	config_free(&c);
}

/* ---- good inputs to start from, made here rather than kept in files ---- */

static size_t tar_member(uint8_t *at, char type, const char *name,
			 const char *link, const char *text)
{
	size_t len = strlen(text);

	memset(at, 0, 1024);
	strcpy((char *)at, name);
	memcpy(at + 100, "0000644", 7);
	memcpy(at + 108, "0000000", 7);
	memcpy(at + 116, "0000000", 7);
	snprintf((char *)at + 124, 12, "%011zo", len);
	memcpy(at + 136, "00000000000", 11);
	at[156] = (uint8_t)type;
	strcpy((char *)at + 157, link);
	memcpy(at + 257,
	       "ustar\0"
	       "00",
	       8);
	memcpy(at + 512, text, len);
	return len ? 1024 : 512;
}

static size_t make_tar(uint8_t *out)
{
	size_t n = 0;

	n += tar_member(out + n, '5', "d/", "", "");
	n += tar_member(out + n, 'x', "h", "",
			"18 path=d/a/b/cd\n21 mtime=1234.500000\n");
	n += tar_member(out + n, '0', "x", "", "some data");
	n += tar_member(out + n, '1', "d/hard", "d/a/b/cd", "");
	n += tar_member(out + n, 'L', "././@LongLink", "", "d/long/name");
	n += tar_member(out + n, '2', "y", "target", "");
	n += tar_member(out + n, '3', "d/null", "", "");
	fix_sums(out, n);
	return n;
}

static size_t make_stream(uint8_t *out, unsigned kind)
{
	static const uint8_t text[2000] = "text that is packed";
	z_stream z = { 0 };
	unsigned bz = 4096;
	size_t at = 0;

	switch (kind % 4) {
	case 0:
		deflateInit2(&z, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, 0);
		z.next_in = (uint8_t *)text;
		z.avail_in = sizeof(text);
		z.next_out = out;
		z.avail_out = 4096;
		deflate(&z, Z_FINISH);
		at = z.total_out;
		deflateEnd(&z);
		break;
	case 1:
		lzma_easy_buffer_encode(0, LZMA_CHECK_CRC32, NULL, text,
					sizeof(text), out, &at, 4096);
		break;
	case 2:
		at = ZSTD_compress(out, 4096, text, sizeof(text), 1);
		break;
	case 3:
		BZ2_bzBuffToBuffCompress((char *)out, &bz, (char *)text,
					 sizeof(text), 1, 0, 0);
		at = bz;
		break;
	}
	return at;
}

static size_t make_seed(uint8_t *out, unsigned seed)
{
	static const char index[] = "a.ko: b.ko c.ko\nb.ko: c.ko\nc.ko:\n"
				    "\0softdep a pre: b c post: d\n";
	static const char config[] = "arcvmm 1\narg a%20b\nenv X=\n"
				     "module a b c\nload a\nagent 1024\n"
				     "serve\n";

	out[0] = (uint8_t)seed & 7;
	switch (out[0]) {
	case 0:
	case 1:
	case 2:
		return 1 + make_tar(out + 1);
	case 3:
		out[1] = 0;
		return 2 + make_stream(out + 2, seed >> 8);
	case 5:
		memcpy(out + 1, index, sizeof(index));
		return 1 + sizeof(index);
	case 6:
		memcpy(out + 1, config, sizeof(config) - 1);
		return sizeof(config);
	}
	return 1;
}

/* Now and then from a good input, else as usual; tar sums are made right. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t len, size_t max,
			       unsigned seed)
{
	if (max > 8192 && seed % 64 == 0)
		len = make_seed(data, seed >> 6);
	len = LLVMFuzzerMutate(data, len, max);
	if (len > 513 && data[0] % 8 < 2 && seed & 1024)
		fix_sums(data + 1, len - 1);
	return len;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct fs_id id;

	if (!len || len > LIMIT)
		return 0;
	switch (data[0] % 8) {
	case 0:
	case 1:
		fuzz_tar(data + 1, len - 1, false);
		break;
	case 2:
		fuzz_tar(data + 1, len - 1, true);
		break;
	case 3:
		fuzz_stream(data + 1, len - 1);
		break;
	case 4:
		fuzz_modinfo(data + 1, len - 1);
		break;
	case 5:
		fuzz_index(data + 1, len - 1);
		break;
	case 6:
		fuzz_config(data + 1, len - 1);
		break;
	case 7:
		fs_probe(data + 1, len - 1, &id);
		break;
	}
	return 0;
}
