/*
 * Tiny guests: an ELF "kernel" of a few instructions, 64-bit code in the low
 * half of the address space, written to a temporary file.
 */
#ifndef ARC_TESTS_TINY_H
#define ARC_TESTS_TINY_H

#include <stddef.h>
#include <stdint.h>

/* The path of an ELF whose entry is @code; the caller unlinks and frees it. */
char *tiny_kernel(const uint8_t *code, size_t len);

/* mov edx,0x3f8; mov al,C; out dx,al */
#define TINY_UART(c) 0xba, 0xf8, 0x03, 0, 0, 0xb0, (c), 0xee
/* ACPI S5: mov edx,0x600; mov al,5<<2|1<<5; out dx,al; hlt; jmp . */
#define TINY_POWER_OFF \
	0xba, 0x00, 0x06, 0, 0, 0xb0, 0x34, 0xee, 0xf4, 0xeb, 0xfe
/* mov edx,0x505; mov al,1; out dx,al; hlt */
#define TINY_PANIC 0xba, 0x05, 0x05, 0, 0, 0xb0, 0x01, 0xee, 0xf4, 0xeb, 0xfe
/* mov edx,0xcf9; mov al,6; out dx,al; hlt */
#define TINY_RESET 0xba, 0xf9, 0x0c, 0, 0, 0xb0, 0x06, 0xee, 0xf4, 0xeb, 0xfe
/* lidt [rip+x] of nothing, then a fault: triple fault. xor eax,eax; push rax;
 * push rax; lidt [rsp]; ud2 */
#define TINY_TRIPLE 0x31, 0xc0, 0x50, 0x50, 0x0f, 0x01, 0x1c, 0x24, 0x0f, 0x0b
/* jmp . */
#define TINY_SPIN 0xeb, 0xfe

#endif
