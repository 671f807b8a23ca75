/*
 * What is this file? A bzImage (Linux's x86 boot protocol), whose payload is
 * a packed vmlinux; a vmlinux; or a packed vmlinux. The real-mode code and the
 * decompressor of a bzImage are never run: the payload is unpacked here and
 * entered at its own 64-bit entry point.
 *
 * Without KASLR the payload needs no relocation: it runs where its program
 * headers say. (The relocation table behind the ELF in the payload is ignored.)
 *
 * Every number comes from the file and is believed only after a check.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/util.h"
#include "machine/kernel_image.h"
#include "machine/unpack.h"

/* Offsets in a bzImage: Documentation/arch/x86/boot.rst. */
enum {
	SETUP_SECTS = 0x1f1,
	BOOT_FLAG = 0x1fe,
	JUMP_LEN = 0x201,
	MAGIC = 0x202,
	VERSION = 0x206,
	KERNEL_VERSION = 0x20e,
	LOADFLAGS = 0x211,
	INITRD_ADDR_MAX = 0x22c,
	XLOADFLAGS = 0x236,
	CMDLINE_SIZE = 0x238,
	PAYLOAD_OFFSET = 0x248,
	PAYLOAD_LENGTH = 0x24c,
};

static bool is_elf(const uint8_t *p, size_t len)
{
	return len >= 4 && !memcmp(p, "\177ELF", 4);
}

static bool is_bzimage(const uint8_t *p, size_t len)
{
	return len >= MAGIC + 4 && get_le16(p + BOOT_FLAG) == 0xaa55 &&
	       !memcmp(p + MAGIC, "HdrS", 4);
}

/* clang-format off */
static const struct {
	unsigned off, len;
	const char *magic, *what;
} looks[] = {
	{ 0x38, 4, "ARM\x64",       "an arm64 Linux kernel (Image)" },
	{ 0x24, 4, "\x18\x28\x6f\x01", "a 32-bit ARM Linux kernel (zImage)" },
	{ 0x38, 4, "RSC\x05",       "a RISC-V Linux kernel (Image)" },
	{ 4,    4, "zimg",          "a compressed EFI kernel of another "
				    "architecture (vmlinuz.efi)" },
	{ 0,    4, "\x27\x05\x19\x56", "a U-Boot image (uImage)" },
	{ 0,    2, "#!",            "a script" },
	{ 0,    6, "070701",        "a cpio archive (an initrd?)" },
	{ 0,    6, "070702",        "a cpio archive (an initrd?)" },
	{ 0,    8, "!<arch>\n",     "an ar archive (a Debian package?)" },
	{ 257,  5, "ustar",         "a tar archive" },
	{ 0,    4, "PK\x03\x04",    "a zip archive" },
	{ 0,    4, "hsqs",          "a squashfs image" },
	{ 0,    4, "QFI\xfb",       "a qcow2 disk image" },
	{ 0x8001, 5, "CD001",       "an ISO 9660 image" },
	{ 0x438, 2, "\x53\xef",     "an ext4 file system" },
	{ 0,    2, "MZ",            "an EFI or Windows program (PE)" },
	{ 0x1fe, 2, "\x55\xaa",     "a boot sector or disk image" },
};
/* clang-format on */

/* What a file that is no x86 kernel looks like: "an arm64 Linux kernel". */
static const char *describe(const void *file, size_t len)
{
	const uint8_t *p = file;

	if (is_elf(p, len))
		return "an ELF file";
	if (is_bzimage(p, len))
		return "a bzImage";
	for (unsigned i = 0; i < array_size(looks); i++)
		if (range_fits(looks[i].off, looks[i].len, len) &&
		    !memcmp(p + looks[i].off, looks[i].magic, looks[i].len))
			return looks[i].what;
	for (size_t i = 0; i < min_of(len, (size_t)512); i++)
		if (p[i] == 0 || p[i] >= 127)
			return "data of a kind not known here";
	return "a text file";
}

/* Into a fresh mapping of at most @max bytes; what is not used costs nothing. */
static int unpack_into(struct kernel_parsed *p, enum unpack_format f,
		       const uint8_t *src, size_t len, size_t max, size_t *out,
		       struct err *e)
{
	p->meta.packing = f;
	p->unpacked_size = max;
	p->unpacked = mmap(NULL, max, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p->unpacked == MAP_FAILED) {
		p->unpacked = NULL;
		return err_set(e, -ENOMEM, "cannot be unpacked: no memory");
	}
	return unpack(f, src, len, p->unpacked, max, out, e);
}

static void take_version(struct kernel_meta *m, const uint8_t *file, size_t len)
{
	size_t at = get_le16(file + KERNEL_VERSION), n = 0;

	if (!at)
		return;
	for (at += 0x200; at + n < len && n + 1 < sizeof(m->version); n++) {
		if (file[at + n] < ' ' || file[at + n] >= 127)
			break;
		m->version[n] = (char)file[at + n];
	}
	m->version[n] = 0;
}

/* The setup header of a bzImage of @len bytes: can we boot what it says? */
static int check_setup(const uint8_t *file, size_t len, struct err *e)
{
	unsigned version;

	if (len < PAYLOAD_LENGTH + 4)
		return err_set(e, -EINVAL,
			       "is a Linux kernel that is cut off in its setup "
			       "header");
	version = get_le16(file + VERSION);
	if (version < 0x208)
		return err_set(e, -ENOEXEC,
			       "is a Linux kernel older than 2.6.26 (boot "
			       "protocol %u.%02u), too old for this VM",
			       version >> 8, version & 255);
	if (!(file[LOADFLAGS] & 1))
		return err_set(
			e, -ENOEXEC,
			"is a zImage, a kind of Linux kernel too old for "
			"this VM");
	if (version >= 0x20c && !(get_le16(file + XLOADFLAGS) & 1))
		return err_set(e, -ENOEXEC,
			       "is a 32-bit Linux kernel; this VM boots 64-bit "
			       "kernels (x86-64)");
	return 0;
}

/* What is inside of a bzImage: packed, or rarely as it is. */
static int parse_payload(struct kernel_parsed *p, const uint8_t *payload,
			 size_t n, size_t unpack_max, struct err *e)
{
	enum unpack_format f = unpack_detect(payload, n);
	struct err why = { 0 };
	size_t made;
	int r;

	if (f == UNPACK_NONE && is_elf(payload, n))
		return kernel_parse_elf(p, payload, n, true, e);
	if (f == UNPACK_NONE)
		return err_set(e, -EINVAL,
			       "is a Linux kernel packed in a way not known "
			       "here (payload starts %02x %02x %02x %02x)",
			       n > 0 ? payload[0] : 0, n > 1 ? payload[1] : 0,
			       n > 2 ? payload[2] : 0, n > 3 ? payload[3] : 0);
	r = unpack_into(p, f, payload, n, unpack_max, &made, &why);
	if (r < 0)
		return err_set(e, r, "is a Linux kernel whose %s payload %s",
			       unpack_name(f), why.text);
	/* The build appends the unpacked size to each payload. */
	if (n >= 4 && get_le32(payload + n - 4) != (uint32_t)made)
		return err_set(e, -EINVAL,
			       "is a Linux kernel whose %s payload is damaged "
			       "(%zu bytes came out of it, it says %u)",
			       unpack_name(f), made, get_le32(payload + n - 4));
	if (!is_elf(p->unpacked, made))
		return err_set(
			e, -EINVAL,
			"is a Linux kernel whose payload is no ELF file");
	r = kernel_parse_elf(p, p->unpacked, made, true, &why);
	return r < 0 ? err_set(e, r, "is a Linux kernel whose payload %s",
			       why.text)
		     : 0;
}

static int parse_bzimage(struct kernel_parsed *p, const uint8_t *file,
			 size_t len, size_t unpack_max, struct err *e)
{
	struct kernel_meta *m = &p->meta;
	size_t setup, off, n;
	unsigned end;
	int r = check_setup(file, len, e);

	if (r < 0)
		return r;
	end = min_of(MAGIC + (unsigned)file[JUMP_LEN],
		     SETUP_HEADER_START + (unsigned)SETUP_HEADER_MAX);
	if (end > len || end < PAYLOAD_LENGTH + 4)
		return err_set(e, -EINVAL,
			       "is a Linux kernel with a damaged setup header");
	setup = 512 * (1 + (size_t)(file[SETUP_SECTS] ?: 4));
	off = setup + (size_t)get_le32(file + PAYLOAD_OFFSET);
	n = get_le32(file + PAYLOAD_LENGTH);
	if (!range_fits(off, n, len))
		return err_set(e, -EINVAL,
			       "is a Linux kernel that is cut off: %zu bytes, "
			       "its header says at least %zu",
			       len, off + n);
	m->format = KERNEL_BZIMAGE;
	m->setup_len = end - SETUP_HEADER_START;
	memcpy(m->setup, file + SETUP_HEADER_START, m->setup_len);
	m->cmdline_max = get_le32(file + CMDLINE_SIZE);
	m->initrd_max = get_le32(file + INITRD_ADDR_MAX);
	take_version(m, file, len);
	return parse_payload(p, file + off, n, unpack_max, e);
}

static int parse_packed(struct kernel_parsed *p, enum unpack_format f,
			const uint8_t *file, size_t len, size_t unpack_max,
			struct err *e)
{
	struct err why = { 0 };
	size_t made;
	int r = unpack_into(p, f, file, len, unpack_max, &made, &why);

	if (r < 0)
		return err_set(e, r, "is %s data that %s", unpack_name(f),
			       why.text);
	if (!is_elf(p->unpacked, made))
		return err_set(e, -ENOEXEC,
			       "is %s data, and inside is %s, not an x86-64 "
			       "kernel",
			       unpack_name(f), describe(p->unpacked, made));
	p->meta.format = KERNEL_ELF64;
	r = kernel_parse_elf(p, p->unpacked, made, false, &why);
	return r < 0 ? err_set(e, r, "is %s data whose content %s",
			       unpack_name(f), why.text)
		     : 0;
}

int kernel_parse(struct kernel_parsed *p, const void *file, size_t len,
		 size_t unpack_max, struct err *e)
{
	enum unpack_format f = unpack_detect(file, len);
	int r;

	memset(p, 0, sizeof(*p));
	p->meta.packing = UNPACK_NONE;
	p->meta.file_size = len;
	p->meta.cmdline_max = 2047; /* COMMAND_LINE_SIZE on x86 */
	p->meta.initrd_max = 0x7fffffff;
	if (is_bzimage(file, len)) {
		r = parse_bzimage(p, file, len, unpack_max, e);
	} else if (is_elf(file, len)) {
		p->meta.format = KERNEL_ELF64;
		r = kernel_parse_elf(p, file, len, false, e);
	} else if (f != UNPACK_NONE) {
		r = parse_packed(p, f, file, len, unpack_max, e);
	} else {
		r = err_set(e, -ENOEXEC, "is %s, not an x86-64 kernel",
			    describe(file, len));
	}
	if (r < 0)
		kernel_parsed_free(p);
	return r;
}

void kernel_parsed_free(struct kernel_parsed *p)
{
	if (p->unpacked)
		munmap(p->unpacked, p->unpacked_size);
	p->unpacked = NULL;
	p->nsegs = 0;
}
