/*
 * Where things are on the board. Fixed: a snapshot of one run must fit the
 * next, and guests see these numbers only through ACPI and the memory map.
 */
#ifndef ARC_MACHINE_LAYOUT_H
#define ARC_MACHINE_LAYOUT_H

#include <stdint.h>

/* RAM below 4 GiB ends here; what is above is registers. */
#define RAM_LOW_END  0xc0000000ull
#define RAM_HIGH     0x100000000ull
#define RAM_MIN	     (16ull << 20) /* the usual load address of a kernel */
#define RAM_PAGE     4096ull
#define LOW_RAM_END  0xa0000ull /* 640 KiB: where PCs have a frame buffer */
#define KERNEL_START 0x100000ull

/* Boot data, read once by the kernel. Page 0 is left to the kernel, which
 * writes the reboot mode to 0x472 (board.c looks there). */
#define BOOT_GDT	 0x500
#define BOOT_PVH_INFO	 0x600 /* start info, then its memory map */
#define BOOT_ZERO_PAGE	 0x7000
#define BOOT_PAGES	 0x9000 /* identity map: 3 to 5 pages */
#define BOOT_SETUP_DATA	 0xf000 /* the random seed */
#define BOOT_CMDLINE	 0x10000 /* up to 64 KiB */
#define BOOT_CMDLINE_MAX 0xffff

/* Where a PC's kernel looks for firmware tables; ours may be anywhere, but
 * there every kernel and tool finds them. */
#define ACPI_BASE 0xe0000ull
#define ACPI_SIZE 0x20000ull

#define SLOT_BASE   0xd0000000ull
#define IOAPIC_BASE 0xfec00000u
#define LAPIC_BASE  0xfee00000u

#define PORT_COM1     0x3f8
#define PORT_KBD      0x60 /* .. 0x64: only "pulse reset" is there */
#define PORT_PVPANIC  0x505
#define PORT_ACPI     0x600
#define PORT_ACPI_LEN 16
#define PORT_RESET    0xcf9

/* In the ACPI register block. */
#define ACPI_SLEEP_CONTROL 0
#define ACPI_SLEEP_STATUS  1
#define ACPI_RESET	   2
#define ACPI_RESET_VALUE   1
#define ACPI_S5_TYPE	   5

/* Pins of the IOAPIC. */
#define GSI_COM1   4
#define GSI_EVENT  5 /* the power button */
#define GSI_SLOT_0 6
#define GSI_SLOT_N 18 /* 6 .. 23, then shared */
#define GSI_COUNT  24

#endif
