/* A guest memory with a kernel log in it, for tests and the fuzzer. */
#ifndef TEST_KLOG_GUEST_H
#define TEST_KLOG_GUEST_H

#include <stdint.h>

struct gmem;

#define KLOG_GUEST_SIZE 0x20000
/* Where things are in it (guest physical). */
#define KLOG_INFO	0x3000
#define KLOG_PGD	0x4000
#define KLOG_PRB	0x8000 /* the pointer; the struct is at + 0x100 */
#define KLOG_DESCS	0x9000
#define KLOG_INFOS	0xa000
#define KLOG_TEXT	0xc000
#define KLOG_COUNT_BITS 4
#define KLOG_TEXT_BITS	9

/* vmcoreinfo, page tables, empty rings; @mem has KLOG_GUEST_SIZE bytes. */
void klog_guest_init(uint8_t *mem);
/* Append a message as the kernel would. */
void klog_guest_printk(uint8_t *mem, uint64_t ts_ns, const char *text);

#endif
