/*
 * ELF kernels: vmlinux out of a bzImage or as it is, and other 64-bit ELF
 * programs.
 *
 * How to enter: a Linux kernel at its ELF entry, which is startup_64 and takes
 * the zero page in RSI. Another program with a PVH note (Xen's
 * XEN_ELFNOTE_PHYS32_ENTRY) in 32-bit mode, as the note promises. Any other at
 * its ELF entry in 64-bit mode, like Linux: that is what small test guests are.
 */
#include <elf.h>
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/util.h"
#include "machine/kernel_image.h"

#define XEN_ELFNOTE_PHYS32_ENTRY 18

/* A vmlinux has five or so, and less than 1 KiB of notes. */
#define PROGRAM_HEADERS_MAX 256
#define NOTES_MAX	    KiB(64)

static const char *machine_name(unsigned m)
{
	switch (m) {
	case EM_386:
		return "32-bit x86";
	case EM_AARCH64:
		return "arm64";
	case EM_ARM:
		return "32-bit ARM";
	case EM_RISCV:
		return "RISC-V";
	case EM_PPC64:
		return "64-bit PowerPC";
	case EM_S390:
		return "s390";
	case EM_LOONGARCH:
		return "LoongArch";
	case EM_MIPS:
		return "MIPS";
	default:
		return "another architecture";
	}
}

static int check_header(const Elf64_Ehdr *h, const uint8_t *elf, size_t len,
			struct err *e)
{
	if (len < EI_NIDENT + 4)
		return err_set(e, -EINVAL, "is an ELF file that is cut off");
	/* The machine field is in the same place in both classes. */
	if (elf[EI_DATA] == ELFDATA2MSB)
		return err_set(e, -ENOEXEC,
			       "is a big-endian ELF file; this VM boots x86-64 "
			       "kernels");
	if (elf[EI_CLASS] != ELFCLASS64 || h->e_machine == EM_386)
		return err_set(e, -ENOEXEC,
			       "is a 32-bit ELF file for %s; this VM boots "
			       "64-bit kernels (x86-64)",
			       machine_name(h->e_machine));
	if (h->e_machine != EM_X86_64)
		return err_set(e, -ENOEXEC,
			       "is an ELF file for %s; this VM boots x86-64 "
			       "kernels",
			       machine_name(h->e_machine));
	if (len < sizeof(*h))
		return err_set(e, -EINVAL, "is an ELF file that is cut off");
	if (h->e_type == ET_REL)
		return err_set(
			e, -ENOEXEC,
			"is a relocatable ELF object (a kernel module?), "
			"not a kernel");
	if (h->e_type != ET_EXEC && h->e_type != ET_DYN)
		return err_set(e, -ENOEXEC,
			       "is an ELF file that is not executable (type "
			       "%u), not a kernel",
			       h->e_type);
	if (h->e_phnum == 0 || h->e_phentsize != sizeof(Elf64_Phdr))
		return err_set(e, -ENOEXEC,
			       "is an ELF file without program headers, not a "
			       "kernel");
	if (h->e_phnum > PROGRAM_HEADERS_MAX)
		return err_set(e, -ENOEXEC,
			       "is an ELF file with %u program headers, more "
			       "than any kernel",
			       h->e_phnum);
	if (!range_fits(h->e_phoff, (uint64_t)h->e_phnum * sizeof(Elf64_Phdr),
			len))
		return err_set(e, -EINVAL,
			       "is an ELF file that is cut off in its program "
			       "headers");
	return 0;
}

/* Keep segs[] sorted; refuse overlap. */
static int add_seg(struct kernel_parsed *p, const Elf64_Phdr *ph,
		   const uint8_t *elf, size_t len, struct err *e)
{
	struct kernel_seg s = {
		.gpa = ph->p_paddr,
		.data_len = ph->p_filesz,
		.mem_len = ph->p_memsz,
	};
	unsigned i;

	if (!range_fits(ph->p_offset, ph->p_filesz, len))
		return err_set(
			e, -EINVAL,
			"is an ELF file that is cut off: a segment ends "
			"at byte %llu, the file at %zu",
			(unsigned long long)(ph->p_offset + ph->p_filesz), len);
	if (ph->p_filesz > ph->p_memsz)
		return err_set(
			e, -EINVAL,
			"is a damaged ELF file: a segment has more bytes "
			"than memory");
	if (ph->p_paddr < KERNEL_LOAD_MIN ||
	    !range_fits(ph->p_paddr, ph->p_memsz, KERNEL_LOAD_END))
		return err_set(e, -ENOEXEC,
			       "wants to be loaded at %#llx..%#llx; a kernel "
			       "must lie between 1 MiB and 3 GiB",
			       (unsigned long long)ph->p_paddr,
			       (unsigned long long)(ph->p_paddr + ph->p_memsz));
	if (p->nsegs == KERNEL_SEGS_MAX)
		return err_set(e, -ENOEXEC,
			       "has more than %d loadable segments, too many "
			       "for a kernel",
			       KERNEL_SEGS_MAX);
	s.data = elf + ph->p_offset;
	for (i = p->nsegs; i > 0 && p->segs[i - 1].gpa > s.gpa; i--)
		p->segs[i] = p->segs[i - 1];
	p->segs[i] = s;
	p->nsegs++;
	return 0;
}

static int check_layout(struct kernel_parsed *p, struct err *e)
{
	for (unsigned i = 1; i < p->nsegs; i++)
		if (p->segs[i - 1].gpa + p->segs[i - 1].mem_len >
		    p->segs[i].gpa)
			return err_set(e, -EINVAL,
				       "is a damaged ELF file: segments at "
				       "%#llx and %#llx overlap",
				       (unsigned long long)p->segs[i - 1].gpa,
				       (unsigned long long)p->segs[i].gpa);
	p->meta.base = p->segs[0].gpa;
	p->meta.end = p->segs[p->nsegs - 1].gpa + p->segs[p->nsegs - 1].mem_len;
	if (p->meta.end - p->meta.base > KERNEL_SPAN_MAX)
		return err_set(
			e, -EFBIG,
			"takes %llu MiB of memory, more than any kernel",
			(unsigned long long)(p->meta.end - p->meta.base) >> 20);
	return 0;
}

/* True when the note segment names a 32-bit entry point. */
static bool find_pvh(const uint8_t *notes, size_t len, uint64_t *entry)
{
	size_t at = 0;

	while (range_fits(at, sizeof(Elf64_Nhdr), len)) {
		Elf64_Nhdr n;
		size_t name, desc;

		memcpy(&n, notes + at, sizeof(n));
		name = at + sizeof(n);
		desc = name + align_up(n.n_namesz, 4);
		at = desc + align_up(n.n_descsz, 4);
		if (!range_fits(desc, n.n_descsz, len))
			return false;
		if (n.n_type != XEN_ELFNOTE_PHYS32_ENTRY || n.n_namesz != 4 ||
		    memcmp(notes + name, "Xen", 4) != 0 || n.n_descsz < 4)
			continue;
		*entry = 0;
		memcpy(entry, notes + desc, min_of(n.n_descsz, 8u));
		return true;
	}
	return false;
}

/* The banner "Linux version 6.1.0 ..." anywhere in the loaded bytes. */
static bool find_banner(struct kernel_parsed *p)
{
	static const char banner[] = "Linux version ";
	const size_t skip = sizeof(banner) - 1;

	for (unsigned i = 0; i < p->nsegs; i++) {
		const struct kernel_seg *s = &p->segs[i];
		const uint8_t *at = s->data, *end = s->data + s->data_len;

		while (at < end &&
		       (at = memmem(at, (size_t)(end - at), banner, skip))) {
			size_t n = 0;

			at += skip;
			/* Not the format string "Linux version %s". */
			if (at == end || *at < '0' || *at > '9')
				continue;
			while (at + n < end && at[n] >= ' ' && at[n] < 127 &&
			       n + 1 < sizeof(p->meta.version))
				n++;
			if (!p->meta.version[0]) {
				memcpy(p->meta.version, at, n);
				p->meta.version[n] = 0;
			}
			return true;
		}
	}
	return false;
}

static bool in_segment(const struct kernel_parsed *p, uint64_t at)
{
	for (unsigned i = 0; i < p->nsegs; i++)
		if (at >= p->segs[i].gpa &&
		    at - p->segs[i].gpa < p->segs[i].mem_len)
			return true;
	return false;
}

int kernel_parse_elf(struct kernel_parsed *p, const uint8_t *elf, size_t len,
		     bool is_linux, struct err *e)
{
	struct kernel_meta *m = &p->meta;
	uint64_t pvh = 0, entry_pa = 0;
	bool has_pvh = false;
	Elf64_Ehdr h = { 0 };
	int r;

	memcpy(&h, elf, min_of(len, sizeof(h)));
	r = check_header(&h, elf, len, e);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < h.e_phnum; i++) {
		Elf64_Phdr ph;

		memcpy(&ph, elf + h.e_phoff + i * sizeof(ph), sizeof(ph));
		if (ph.p_type == PT_NOTE && ph.p_filesz <= NOTES_MAX &&
		    range_fits(ph.p_offset, ph.p_filesz, len))
			has_pvh |=
				find_pvh(elf + ph.p_offset, ph.p_filesz, &pvh);
		if (ph.p_type == PT_INTERP)
			return err_set(e, -ENOEXEC,
				       "is a program for an operating system, "
				       "not a kernel");
		if (ph.p_type != PT_LOAD || !ph.p_memsz)
			continue;
		r = add_seg(p, &ph, elf, len, e);
		if (r < 0)
			return r;
		if (h.e_entry >= ph.p_vaddr &&
		    h.e_entry - ph.p_vaddr < ph.p_memsz)
			entry_pa = ph.p_paddr + (h.e_entry - ph.p_vaddr);
	}
	if (!p->nsegs)
		return err_set(e, -ENOEXEC,
			       "is an ELF file with nothing to load, not a "
			       "kernel");
	r = check_layout(p, e);
	if (r < 0)
		return r;

	is_linux |= find_banner(p);
	m->entry_mode = KERNEL_ENTRY_64;
	/* Linux gives a physical address, others a virtual one. */
	m->entry = in_segment(p, h.e_entry) ? h.e_entry : entry_pa;
	if (has_pvh && !is_linux) {
		m->format = KERNEL_PVH;
		m->entry_mode = KERNEL_ENTRY_PVH;
		m->entry = pvh;
	}
	if (!in_segment(p, m->entry))
		return err_set(
			e, -ENOEXEC,
			"is an ELF file whose entry point %#llx is in "
			"none of its segments",
			(unsigned long long)(m->entry ? m->entry : h.e_entry));
	return 0;
}
