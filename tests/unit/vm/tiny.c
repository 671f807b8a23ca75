#include "vm/tiny.h"

#include <elf.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LOAD_AT 0x1000000 /* 16 MiB, where Linux is too */

char *tiny_kernel(const uint8_t *code, size_t len)
{
	struct {
		Elf64_Ehdr eh;
		Elf64_Phdr ph;
		uint8_t code[256];
	} f = {
		.eh = {
			.e_ident = { ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3,
				     ELFCLASS64, ELFDATA2LSB, EV_CURRENT },
			.e_type = ET_EXEC,
			.e_machine = EM_X86_64,
			.e_version = EV_CURRENT,
			.e_entry = LOAD_AT,
			.e_phoff = sizeof(Elf64_Ehdr),
			.e_ehsize = sizeof(Elf64_Ehdr),
			.e_phentsize = sizeof(Elf64_Phdr),
			.e_phnum = 1,
		},
		.ph = {
			.p_type = PT_LOAD,
			.p_flags = PF_R | PF_X,
			.p_offset = sizeof(Elf64_Ehdr) + sizeof(Elf64_Phdr),
			.p_vaddr = LOAD_AT,
			.p_paddr = LOAD_AT,
			.p_filesz = len,
			.p_memsz = len,
			.p_align = 1,
		},
	};
	char *path = strdup("/tmp/tiny-XXXXXX");
	int fd = path ? mkstemp(path) : -1;
	size_t size = sizeof(f.eh) + sizeof(f.ph) + len;

	if (fd < 0 || len > sizeof(f.code))
		abort();
	memcpy(f.code, code, len);
	if (write(fd, &f, size) != (ssize_t)size)
		abort();
	close(fd);
	return path;
}
