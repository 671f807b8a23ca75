/*
 * Opening kernels: every bad file has its sentence, every packing its kernel,
 * and the cache gives the same bytes back.
 */
#include "test.h"

#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/util.h"
#include "kernel_files.h"
#include "machine/kernel.h"
#include "machine/kernel_image.h"
#include "mem/gmem.h"

static char dir[64], cache[80], file[80];

static int setup(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/arcvmm-kernel.XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(cache, sizeof(cache), "%s/cache", dir);
	snprintf(file, sizeof(file), "%s/vmlinuz", dir);
	return 0;
}

static int teardown(void **state)
{
	char cmd[128];

	(void)state;
	snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
	return system(cmd);
}

/* Past the time in which a changed file's identity is not trusted. */
static void settle(void)
{
	const struct timespec t = { .tv_nsec = 40 * 1000 * 1000 };

	nanosleep(&t, NULL);
}

static int try_open(const char *path, const char *cache_dir, struct kernel **k,
		    struct err *e)
{
	const struct kernel_config c = { .path = path, .cache_dir = cache_dir };

	*e = (struct err){ 0 };
	return kernel_open(k, &c, e);
}

/* The file is refused, and the sentence has all of @says (by '|'). */
static void refuse_path(const char *path, const char *says)
{
	char words[256];
	struct kernel *k = NULL;
	struct err e;
	int r = try_open(path, "", &k, &e);

	assert_true(r < 0);
	assert_null(k);
	print_message("%d: %s\n", r, e.text);
	snprintf(words, sizeof(words), "%s", says);
	for (char *w = strtok(words, "|"); w; w = strtok(NULL, "|"))
		if (!strstr(e.text, w))
			fail_msg("'%s' is not in: %s", w, e.text);
}

static void refuse(struct blob b, const char *says)
{
	write_file(file, b.p, b.len);
	refuse_path(file, says);
}

static struct blob simple_elf(void)
{
	return make_elf(&(struct elf_spec){
		.banner = "Linux version 6.1.2-test (x) #1" });
}

static struct blob simple_bzimage(enum unpack_format f)
{
	struct blob elf = simple_elf(), pay = make_packed(f, elf.p, elf.len);
	struct blob b = make_bzimage(pay, f != UNPACK_GZIP, (uint32_t)elf.len);

	free(elf.p);
	free(pay.p);
	return b;
}

static void no_file(void **state)
{
	(void)state;
	refuse_path("", "no kernel");
	refuse_path(NULL, "no kernel");
	refuse_path("/nonexistent/vmlinuz", "/nonexistent/vmlinuz|No such");
	refuse_path(dir, "is a directory");
	refuse_path("/dev/null", "not a regular file");
	assert_int_equal(mkfifo(file, 0600), 0);
	refuse_path(file, "not a regular file");
	unlink(file);
	write_file(file, "", 0);
	refuse_path(file, "is empty");
	unlink(file);
}

static void unreadable(void **state)
{
	const bool root = geteuid() == 0;

	(void)state;
	write_file(file, "x", 1);
	chmod(file, 0);
	/* Root reads every file: be somebody else meanwhile. */
	if (root)
		assert_int_equal(seteuid(65534), 0);
	refuse_path(file, "Permission denied");
	if (root)
		assert_int_equal(seteuid(0), 0);
	unlink(file);
}

static void not_a_kernel(void **state)
{
	static const struct {
		const char *bytes;
		size_t off;
		const char *says;
	} t[] = {
		{ "#!/bin/sh\n", 0, "is a script" },
		{ "hello, world\n", 0, "is a text file" },
		{ "070701", 0, "cpio archive" },
		{ "!<arch>\ndebian", 0, "ar archive|Debian" },
		{ "QFI\xfb", 0, "qcow2" },
		{ "PK\x03\x04", 0, "zip" },
		{ "hsqs", 0, "squashfs" },
		{ "ARMd", 0x38, "arm64 Linux kernel" },
		{ "RSC\x05", 0x38, "RISC-V" },
		{ "MZ\x90", 0, "PE" },
		{ "\x01\x02\x03", 0, "data of a kind not known" },
	};
	uint8_t buf[1024];
	struct blob packed;

	(void)state;
	for (unsigned i = 0; i < array_size(t); i++) {
		memset(buf, 0, sizeof(buf));
		memcpy(buf + t[i].off, t[i].bytes, strlen(t[i].bytes));
		refuse((struct blob){ buf, i == 1 ? strlen(t[i].bytes)
						  : sizeof(buf) },
		       t[i].says);
	}
	packed = make_packed(UNPACK_GZIP, "just text, long enough\n", 23);
	refuse(packed, "is gzip data|inside is a text file");
	free(packed.p);
	memset(buf, 0, sizeof(buf));
	memcpy(buf + 0x38, "ARMd", 4);
	packed = make_packed(UNPACK_XZ, buf, sizeof(buf));
	refuse(packed, "is xz data|inside is an arm64");
	packed.len -= 5;
	refuse(packed, "is xz data that is cut off");
	free(packed.p);
}

static void bad_elf(void **state)
{
	struct blob b;
	Elf64_Ehdr *h;
	Elf64_Phdr *ph;

	(void)state;
	b = make_elf(&(struct elf_spec){ .machine = EM_AARCH64 });
	refuse(b, "is an ELF file for arm64|x86-64");
	free(b.p);
	b = make_elf(&(struct elf_spec){ .machine = EM_386, .class32 = true });
	refuse(b, "32-bit ELF|64-bit kernels");
	free(b.p);
	b = simple_elf();
	h = (void *)b.p;
	ph = (void *)(b.p + sizeof(*h));
	for (size_t n = 4; n < b.len; n += n / 2 + 1)
		refuse((struct blob){ b.p, n }, "cut off");
	h->e_type = ET_REL;
	refuse(b, "relocatable|module");
	h->e_type = ET_CORE;
	refuse(b, "not executable");
	h->e_type = ET_EXEC;
	h->e_phnum = 0;
	refuse(b, "without program headers");
	h->e_phnum = 1;
	ph->p_filesz = UINT64_MAX - 4;
	refuse(b, "cut off");
	ph->p_filesz = 0x5000;
	ph->p_memsz = 0x4000;
	refuse(b, "more bytes than memory");
	ph->p_memsz = UINT64_MAX - 0x1000;
	refuse(b, "between 1 MiB and 3 GiB");
	ph->p_memsz = 2u << 30;
	refuse(b, "more than any kernel");
	ph->p_memsz = 0x8000;
	ph->p_paddr = 0x1000;
	refuse(b, "between 1 MiB and 3 GiB");
	ph->p_paddr = 0x1000000;
	h->e_entry = 0x5000000;
	refuse(b, "entry point 0x5000000");
	h->e_entry = 0x1000000;
	ph->p_type = PT_NULL;
	refuse(b, "nothing to load");
	ph->p_type = PT_INTERP;
	refuse(b, "program for an operating system");
	ph->p_type = PT_LOAD;
	h->e_phnum = 2;
	ph[1] = ph[0];
	ph[1].p_paddr += 0x4000;
	refuse(b, "overlap");
	free(b.p);
}

/* Headers that would have one look at the same notes again and again. */
static void endless_notes(void **state)
{
	const size_t n = 65535, len = 64 + n * sizeof(Elf64_Phdr);
	struct blob elf = simple_elf(), b = { calloc(1, len), len };
	Elf64_Phdr *ph = (void *)(b.p + 64);

	(void)state;
	memcpy(b.p, elf.p, 64 + sizeof(*ph));
	((Elf64_Ehdr *)(void *)b.p)->e_phnum = (uint16_t)n;
	for (size_t i = 1; i < n; i++)
		ph[i] = (Elf64_Phdr){ .p_type = PT_NOTE, .p_filesz = len };
	alarm(20);
	refuse(b, "65535 program headers");
	alarm(0);
	free(elf.p);
	free(b.p);
}

static void bad_bzimage(void **state)
{
	struct blob b = simple_bzimage(UNPACK_XZ), c, zeros;
	const uint32_t pay = 512 * 5 + 0x200;

	(void)state;
	for (size_t n = 0x210; n < b.len; n += n / 3)
		refuse((struct blob){ b.p, n }, "is a Linux kernel|cut off");
	put_le16(b.p + 0x236, 0x7e);
	refuse(b, "32-bit Linux kernel");
	put_le16(b.p + 0x236, 0x7f);
	put_le16(b.p + 0x206, 0x203);
	refuse(b, "too old");
	put_le16(b.p + 0x206, 0x20f);
	b.p[0x211] = 0;
	refuse(b, "zImage");
	b.p[0x211] = 1;
	b.p[0x201] = 0x10;
	refuse(b, "damaged setup header");
	b.p[0x201] = 0x6a;
	b.p[pay] = 0;
	refuse(b, "packed in a way not known");
	b.p[pay] = 0xfd;
	b.p[pay + 200] ^= 1;
	refuse(b, "xz payload is damaged");
	b.p[pay + 200] ^= 1;
	b.p[b.len - 4] ^= 1;
	refuse(b, "damaged (24576 bytes"); /* and its size field disagrees */
	free(b.p);

	zeros = (struct blob){ calloc(1, 100), 100 };
	c = make_packed(UNPACK_GZIP, zeros.p, zeros.len);
	b = make_bzimage(c, false, 0);
	refuse(b, "payload is no ELF");
	free(b.p);
	free(c.p);
	free(zeros.p);

	zeros = make_elf(
		&(struct elf_spec){ .machine = EM_386, .class32 = true });
	c = make_packed(UNPACK_GZIP, zeros.p, zeros.len);
	b = make_bzimage(c, false, 0);
	refuse(b, "payload is a 32-bit ELF");
	free(b.p);
	free(c.p);
	free(zeros.p);
}

/* A payload that unpacks to more than the bound is refused, not swallowed. */
static void bomb(void **state)
{
	size_t size = KERNEL_UNPACK_MAX + 1;
	uint8_t *zeros = calloc(1, size);
	struct blob c, b;

	(void)state;
	assert_non_null(zeros);
	c = make_packed(UNPACK_ZSTD, zeros, size);
	free(zeros);
	b = make_bzimage(c, true, (uint32_t)size);
	refuse(b, "zstd payload unpacks to more than 512 MiB");
	refuse(c, "zstd data that unpacks to more than 512 MiB");
	free(b.p);
	free(c.p);
}

/* Place @k in RAM that may be dirty; compare with what the ELF says. */
static void check_placed(const struct kernel *k, const struct blob *elf)
{
	const Elf64_Phdr *ph = (void *)(elf->p + sizeof(Elf64_Ehdr));
	struct gmem *m;
	const uint8_t *p;
	struct err e = { 0 };

	assert_int_equal(gmem_create(&m), 0);
	assert_int_equal(gmem_add_ram(m, gpa(0), 32 << 20, &e), 0);
	for (int round = 0; round < 2; round++) {
		assert_int_equal(kernel_place(k, m, !round, &e), 0);
		p = gmem_ptr(m, gpa(ph->p_paddr), ph->p_memsz, true);
		assert_non_null(p);
		assert_memory_equal(p, elf->p + ph->p_offset, ph->p_filesz);
		for (size_t i = ph->p_filesz; i < ph->p_memsz; i++)
			assert_int_equal(p[i], 0);
		/* What the guest writes is the guest's alone. */
		memset((uint8_t *)(uintptr_t)p, 0xa5, ph->p_memsz);
	}
	gmem_destroy(m);
}

static void every_packing(void **state)
{
	struct blob elf = simple_elf();

	(void)state;
	for (unsigned f = 0; f < UNPACK_COUNT; f++) {
		struct blob b = simple_bzimage(f);
		struct kernel *k;
		struct err e;

		write_file(file, b.p, b.len);
		if (try_open(file, "", &k, &e) < 0)
			fail_msg("%s: %s", unpack_name(f), e.text);
		assert_int_equal(kernel_info(k)->format, KERNEL_BZIMAGE);
		assert_int_equal(kernel_info(k)->entry, 0x1000040);
		assert_int_equal(kernel_info(k)->entry_mode, KERNEL_ENTRY_64);
		assert_string_equal(kernel_info(k)->packing, unpack_name(f));
		assert_string_equal(kernel_release(k), "6.1.2-test");
		assert_false(kernel_info(k)->cached);
		check_placed(k, &elf);
		kernel_close(k);
		free(b.p);
		if (f == UNPACK_NONE)
			continue;

		/* And a vmlinux packed by hand. */
		b = make_packed(f, elf.p, elf.len);
		write_file(file, b.p, b.len);
		if (try_open(file, "", &k, &e) < 0)
			fail_msg("%s: %s", unpack_name(f), e.text);
		assert_int_equal(kernel_info(k)->format, KERNEL_ELF64);
		assert_string_equal(kernel_release(k), "6.1.2-test");
		check_placed(k, &elf);
		kernel_close(k);
		free(b.p);
	}
	free(elf.p);
}

static void elf_entries(void **state)
{
	struct kernel *k;
	struct blob b;
	struct err e;

	(void)state;
	/* Not Linux, with a PVH note: by the note. */
	b = make_elf(&(struct elf_spec){ .pvh = true, .pvh_entry = 0x1000123 });
	write_file(file, b.p, b.len);
	assert_int_equal(try_open(file, "", &k, &e), 0);
	assert_int_equal(kernel_info(k)->format, KERNEL_PVH);
	assert_int_equal(kernel_info(k)->entry_mode, KERNEL_ENTRY_PVH);
	assert_int_equal(kernel_info(k)->entry, 0x1000123);
	kernel_close(k);
	free(b.p);
	/* A note that leads nowhere. */
	b = make_elf(&(struct elf_spec){ .pvh = true, .pvh_entry = 0x123 });
	refuse(b, "entry point 0x123");
	free(b.p);
	/* Linux with one: in 64-bit mode all the same. */
	b = make_elf(&(struct elf_spec){ .pvh = true,
					 .pvh_entry = 0x1000123,
					 .banner = "Linux version 5.1 (x)" });
	write_file(file, b.p, b.len);
	assert_int_equal(try_open(file, "", &k, &e), 0);
	assert_int_equal(kernel_info(k)->entry_mode, KERNEL_ENTRY_64);
	assert_string_equal(kernel_release(k), "5.1");
	kernel_close(k);
	free(b.p);
	/* A virtual entry point becomes a physical one. */
	b = make_elf(&(struct elf_spec){ .virt = 0xffffffff80000000 });
	write_file(file, b.p, b.len);
	assert_int_equal(try_open(file, "", &k, &e), 0);
	assert_int_equal(kernel_info(k)->entry, 0x1000040);
	assert_string_equal(kernel_release(k), "");
	kernel_close(k);
	free(b.p);
	/* A version that would lead out of /lib/modules is none. */
	b = make_elf(&(struct elf_spec){
		.banner = "Linux version 1/../../etc (x)" });
	write_file(file, b.p, b.len);
	assert_int_equal(try_open(file, "", &k, &e), 0);
	assert_string_equal(kernel_release(k), "");
	kernel_close(k);
	free(b.p);
}

static unsigned count_entries(const char *suffix)
{
	DIR *d = opendir(cache);
	struct dirent *de;
	unsigned n = 0;

	assert_non_null(d);
	while ((de = readdir(d)))
		n += strstr(de->d_name, suffix) != NULL;
	closedir(d);
	return n;
}

/* The path of the only image in the cache. */
static void entry_path(char *out, size_t size)
{
	DIR *d = opendir(cache);
	struct dirent *de;

	assert_non_null(d);
	out[0] = 0;
	while ((de = readdir(d)))
		if (strstr(de->d_name, ".kernel"))
			snprintf(out, size, "%s/%s", cache, de->d_name);
	closedir(d);
	assert_true(out[0]);
}

static void empty_cache(void)
{
	char cmd[128];

	snprintf(cmd, sizeof(cmd), "rm -rf %s", cache);
	assert_int_equal(system(cmd), 0);
}

static void expect_cached(const char *path, const struct blob *elf, bool cached)
{
	struct kernel *k;
	struct err e;

	if (try_open(path, cache, &k, &e) < 0)
		fail_msg("%s", e.text);
	assert_int_equal(kernel_info(k)->cached, cached);
	assert_string_equal(kernel_release(k), "6.1.2-test");
	check_placed(k, elf);
	kernel_close(k);
}

static void cache_hits(void **state)
{
	struct blob elf = simple_elf(), b = simple_bzimage(UNPACK_ZSTD);
	char other[96];

	(void)state;
	empty_cache();
	write_file(file, b.p, b.len);
	settle();
	expect_cached(file, &elf, false);
	assert_int_equal(count_entries(".kernel"), 1);
	assert_int_equal(count_entries("id-"), 1);
	expect_cached(file, &elf, true);
	/* The same content under another name: unpacked once. */
	snprintf(other, sizeof(other), "%s/other", dir);
	write_file(other, b.p, b.len);
	settle();
	expect_cached(other, &elf, true);
	assert_int_equal(count_entries(".kernel"), 1);
	assert_int_equal(count_entries("id-"), 2);
	/* New content under the old name. */
	b.p[0x610] = 'X';
	write_file(file, b.p, b.len);
	settle();
	expect_cached(file, &elf, false);
	assert_int_equal(count_entries(".kernel"), 2);
	assert_int_equal(count_entries(".tmp-"), 0);
	unlink(other);
	free(elf.p);
	free(b.p);
}

static void cache_damage(void **state)
{
	struct blob elf = simple_elf(), b = simple_bzimage(UNPACK_ZSTD);
	char entry[512];
	uint8_t byte = 0xee;
	int fd;

	(void)state;
	empty_cache();
	write_file(file, b.p, b.len);
	settle();
	expect_cached(file, &elf, false);
	entry_path(entry, sizeof(entry));
	for (int i = 0; i < 4; i++) {
		chmod(entry, 0600);
		fd = open(entry, O_RDWR);
		assert_true(fd >= 0);
		switch (i) {
		case 0: /* a byte of the kernel */
			assert_int_equal(
				pwrite(fd, &byte, 1, KERNEL_HEAD_SIZE + 100),
				1);
			break;
		case 1: /* a byte of the header */
			assert_int_equal(pwrite(fd, &byte, 1, 70), 1);
			break;
		case 2:
			assert_int_equal(ftruncate(fd, KERNEL_HEAD_SIZE), 0);
			break;
		case 3:
			assert_int_equal(ftruncate(fd, 0), 0);
			break;
		}
		close(fd);
		expect_cached(file, &elf, false);
		expect_cached(file, &elf, true);
	}
	/* Touched, but whole: verified, and trusted again. */
	assert_int_equal(utimensat(AT_FDCWD, entry, NULL, 0), 0);
	expect_cached(file, &elf, true);
	expect_cached(file, &elf, true);
	assert_int_equal(count_entries(".kernel"), 1);
	free(elf.p);
	free(b.p);
}

static void cache_eviction(void **state)
{
	struct blob b = simple_bzimage(UNPACK_ZSTD);
	struct kernel_config c = { .path = file, .cache_dir = cache };

	(void)state;
	empty_cache();
	c.cache_max = 40 * 1024; /* three images of 12 KiB */
	for (int i = 0; i < 8; i++) {
		struct kernel *k;
		struct err e = { 0 };

		b.p[0x610] = (uint8_t)('A' + i);
		write_file(file, b.p, b.len);
		settle();
		assert_int_equal(kernel_open(&k, &c, &e), 0);
		kernel_close(k);
	}
	assert_true(count_entries(".kernel") >= 1);
	assert_true(count_entries(".kernel") <= 4);
	/* Notes about what is gone go too (all but those of the last sweep). */
	assert_true(count_entries("id-") <= count_entries(".kernel") + 1);
	free(b.p);
}

/* A directory others may write to is not used; the kernel boots without. */
static void cache_foreign(void **state)
{
	struct blob elf = simple_elf(), b = simple_bzimage(UNPACK_NONE);

	(void)state;
	empty_cache();
	assert_int_equal(mkdir(cache, 0700), 0);
	assert_int_equal(chmod(cache, 0777), 0);
	write_file(file, b.p, b.len);
	settle();
	expect_cached(file, &elf, false);
	expect_cached(file, &elf, false);
	assert_int_equal(count_entries(".kernel"), 0);
	empty_cache();
	write_file(cache, "a file", 6);
	expect_cached(file, &elf, false);
	unlink(cache);
	free(elf.p);
	free(b.p);
}

static void stock(const char *version, const char *path)
{
	struct kernel_config c = { .path = path, .cache_dir = cache };
	struct err e = { 0 };

	empty_cache();
	for (int i = 0; i < 2; i++) {
		uint64_t start = clock_ns();
		struct gmem *m;
		struct kernel *k;

		assert_int_equal(kernel_open(&k, &c, &e), 0);
		assert_int_equal(kernel_info(k)->cached, i > 0);
		assert_int_equal(
			strncmp(kernel_release(k), version, strlen(version)),
			0);
		assert_int_equal(gmem_create(&m), 0);
		assert_int_equal(gmem_add_ram(m, gpa(0), 128 << 20, &e), 0);
		assert_int_equal(kernel_place(k, m, true, &e), 0);
		print_message(
			"%s: %s, %s, %llu KiB of %llu: %llu us %s\n", version,
			kernel_release(k), kernel_info(k)->packing,
			(unsigned long long)kernel_info(k)->image_size / 1024,
			(unsigned long long)(kernel_info(k)->end -
					     kernel_info(k)->base) /
				1024,
			(unsigned long long)(clock_ns() - start) / 1000,
			i ? "warm" : "cold");
		gmem_destroy(m);
		kernel_close(k);
	}
}

static void stock_6_1(void **state)
{
	char path[512];

	(void)state;
	if (!stock_kernel("6.1", path, sizeof(path)))
		skip_because("no kernel: tools/fetch-kernel.sh 6.1");
	stock("6.1", path);
}

static void stock_6_12(void **state)
{
	char path[512];

	(void)state;
	if (!stock_kernel("6.12", path, sizeof(path)))
		skip_because("no kernel: tools/fetch-kernel.sh 6.12");
	stock("6.12", path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_file),
		cmocka_unit_test(unreadable),
		cmocka_unit_test(not_a_kernel),
		cmocka_unit_test(bad_elf),
		cmocka_unit_test(endless_notes),
		cmocka_unit_test(bad_bzimage),
		cmocka_unit_test(bomb),
		cmocka_unit_test(every_packing),
		cmocka_unit_test(elf_entries),
		cmocka_unit_test(cache_hits),
		cmocka_unit_test(cache_damage),
		cmocka_unit_test(cache_eviction),
		cmocka_unit_test(cache_foreign),
		cmocka_unit_test(stock_6_1),
		cmocka_unit_test(stock_6_12),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
