#include "klog_guest.h"

#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/util.h"

#define KERNEL	0xffffffff80000000ull
#define DIRECT	0xffff888000000000ull
#define PRB	(KLOG_PRB + 0x100)
#define SEQ	0x7ff0 /* next sequence number and position, ours */
#define DESC_AT 24
#define INFO_AT 88

static const char vmcoreinfo[] =
	"OSRELEASE=6.1.2-test\nPAGESIZE=4096\n"
	"SYMBOL(prb)=ffffffff80008000\n"
	"SYMBOL(init_top_pgt)=ffffffff80004000\n"
	"NUMBER(phys_base)=0\nNUMBER(pgtable_l5_enabled)=0\n"
	"OFFSET(printk_ringbuffer.desc_ring)=0\n"
	"OFFSET(printk_ringbuffer.text_data_ring)=48\n"
	"OFFSET(prb_desc_ring.count_bits)=0\n"
	"OFFSET(prb_desc_ring.descs)=8\n"
	"OFFSET(prb_desc_ring.infos)=16\n"
	"OFFSET(prb_desc_ring.head_id)=24\n"
	"OFFSET(prb_desc_ring.tail_id)=32\n"
	"SIZE(prb_desc)=24\nOFFSET(prb_desc.state_var)=0\n"
	"OFFSET(prb_desc.text_blk_lpos)=8\n"
	"OFFSET(prb_data_blk_lpos.begin)=0\n"
	"OFFSET(prb_data_blk_lpos.next)=8\n"
	"SIZE(printk_info)=88\nOFFSET(printk_info.ts_nsec)=8\n"
	"OFFSET(printk_info.text_len)=16\n"
	"OFFSET(prb_data_ring.size_bits)=0\nOFFSET(prb_data_ring.data)=8\n";

void klog_guest_init(uint8_t *mem)
{
	uint8_t *pt = mem + KLOG_PGD;

	memset(mem, 0, KLOG_GUEST_SIZE);
	memcpy(mem + KLOG_INFO, vmcoreinfo, sizeof(vmcoreinfo) - 1);
	/* The kernel's mapping with 4 KiB pages, the direct one with 2 MiB. */
	put_le64(pt + 511 * 8, (KLOG_PGD + 0x1000) | 0x63);
	put_le64(pt + 0x1000 + 510 * 8, (KLOG_PGD + 0x2000) | 0x63);
	put_le64(pt + 0x2000, (KLOG_PGD + 0x3000) | 0x63);
	for (uint64_t i = 0; i < 256; i++)
		put_le64(pt + 0x3000 + 8 * i, i << 12 | 0x63);
	put_le64(pt + 273 * 8, 0x10000 | 0x63);
	put_le64(mem + 0x10000, 0x11000 | 0x63);
	put_le64(mem + 0x11000, 0xe3);

	put_le64(mem + KLOG_PRB, KERNEL + PRB);
	put_le32(mem + PRB, KLOG_COUNT_BITS);
	put_le64(mem + PRB + 8, DIRECT + KLOG_DESCS);
	put_le64(mem + PRB + 16, DIRECT + KLOG_INFOS);
	put_le32(mem + PRB + 48, KLOG_TEXT_BITS);
	put_le64(mem + PRB + 56, KERNEL + KLOG_TEXT);
	put_le64(mem + PRB + 24, 0xffffff00); /* as Linux: IDs wrap early */
	put_le64(mem + SEQ, 0x100); /* position: not 0 either */
}

void klog_guest_printk(uint8_t *mem, uint64_t ts_ns, const char *text)
{
	const uint64_t size = 1 << KLOG_TEXT_BITS;
	uint64_t id = get_le64(mem + PRB + 24) + 1, pos = get_le64(mem + SEQ);
	uint64_t slot = id % (1 << KLOG_COUNT_BITS), at = pos % size;
	uint64_t len = strlen(text), block = align_up(8 + len, 8);
	uint8_t *desc = mem + KLOG_DESCS + slot * DESC_AT;
	uint8_t *info = mem + KLOG_INFOS + slot * INFO_AT;
	uint64_t next = pos + block;

	if (!len) {
		put_le64(desc + 8, 3);
		put_le64(desc + 16, 3);
		next = pos;
	} else {
		if (at + block > size) { /* does not wrap: from the start */
			at = 0;
			next = align_up(pos, size) + block;
		}
		put_le64(mem + KLOG_TEXT + at, id);
		memcpy(mem + KLOG_TEXT + at + 8, text, len);
		put_le64(desc + 8, pos);
		put_le64(desc + 16, next);
	}
	put_le64(desc, id | 2ull << 62);
	put_le64(info + 8, ts_ns);
	put_le16(info + 16, (uint16_t)len);
	put_le64(mem + SEQ, next);
	put_le64(mem + PRB + 24, id);
}
