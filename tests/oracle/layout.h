/*
 * Where things are for the instruction under test, in linear addresses, the
 * same for the host process and for the guest page tables. All are below 2 GiB
 * so that 32-bit code reaches them.
 *
 *	CODE	3 pages: RX RX --		(RX: no writes)
 *	DATA	8 pages: RW RW -- RO RW RO -- RW (no execution)
 *	STACK	4 pages: -- RW RW --		(no execution)
 */
#ifndef ARC_ORACLE_LAYOUT_H
#define ARC_ORACLE_LAYOUT_H

#include <stdint.h>

#define PAGE 4096u

#define CODE_LA	   0x10000000u
#define CODE_PAGES 2u
#define DATA_LA	   0x20000000u
#define DATA_PAGES 8u
#define STACK_LA   0x30000000u
#define STACK_SLOT 4u

enum page_kind { PAGE_NONE, PAGE_RW, PAGE_RO, PAGE_RX };

struct page_def {
	uint32_t la;
	enum page_kind kind;
};

/* Pages that exist, in order; page i is at offset i * PAGE of the backing. */
static const struct page_def pages[] = {
	{ CODE_LA, PAGE_RX },
	{ CODE_LA + PAGE, PAGE_RX },
	{ DATA_LA, PAGE_RW },
	{ DATA_LA + PAGE, PAGE_RW },
	{ DATA_LA + 3 * PAGE, PAGE_RO },
	{ DATA_LA + 4 * PAGE, PAGE_RW },
	{ DATA_LA + 5 * PAGE, PAGE_RO },
	{ DATA_LA + 7 * PAGE, PAGE_RW },
	{ STACK_LA + PAGE, PAGE_RW },
	{ STACK_LA + 2 * PAGE, PAGE_RW },
};
#define PAGE_COUNT 10u
#define CODE_COUNT 2u /* pages[] that hold code */

#endif
