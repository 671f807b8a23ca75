/*
 * A kernel built with CRASH_CORE (every distribution's is) keeps a page of text
 * for crash dump tools, "vmcoreinfo": where its log buffer is, and the layout
 * of the structs in it (Documentation/admin-guide/kdump/vmcoreinfo.rst). The
 * page is found by its first word on some page boundary of RAM; it exists from
 * the subsystem initcalls on, a few hundredths of a second after the start.
 *
 * The log (kernel/printk/printk_ringbuffer.h, since 5.10) is a ring of
 * descriptors; each has a state, an info struct (time, length) and the position
 * of its text in a ring of bytes. Pointers are guest virtual addresses and go
 * through the kernel's own page tables.
 *
 * All of it is the guest's word: every number is checked or masked, every read
 * goes through gmem, and the work is bounded by the message count asked for.
 */
#include "machine/klog.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/util.h"
#include "mem/gmem.h"

#define PAGE	    4096u
#define KERNEL_BASE 0xffffffff80000000ull /* the kernel's own mapping */
#define TEXT_MAX    1024
#define PAGES_MAX   256 /* that begin like vmcoreinfo: two do, really */

enum { DESC_COMMITTED = 1, DESC_FINALIZED = 2 };
#define DESC_STATE(v) ((unsigned)((v) >> 62))
#define DESC_ID(v)    ((v) & ~(3ull << 62))

struct layout {
	/* struct printk_ringbuffer */
	uint64_t prb_desc_ring, prb_text_ring;
	/* struct prb_desc_ring */
	uint64_t count_bits, descs, infos, head_id;
	/* struct prb_desc, prb_data_blk_lpos */
	uint64_t desc_size, state_var, lpos, lpos_begin, lpos_next;
	/* struct printk_info */
	uint64_t info_size, ts_nsec, text_len;
	/* struct prb_data_ring */
	uint64_t size_bits, data;
};

struct klog {
	const struct gmem *mem;
	uint64_t phys_base;
	uint64_t pgd; /* guest physical */
	unsigned levels;
	struct layout l;
};

/* ---- guest virtual memory ---- */

static bool read_phys(const struct klog *k, uint64_t at, void *buf, size_t len)
{
	return gmem_read(k->mem, gpa(at), buf, len) == 0;
}

static bool translate(const struct klog *k, uint64_t va, uint64_t *pa)
{
	const uint64_t frame = 0x000ffffffffff000ull;
	uint64_t table = k->pgd;

	for (unsigned level = k->levels; level > 0; level--) {
		unsigned shift = 12 + 9 * (level - 1);
		uint64_t mask = (1ull << shift) - 1;
		uint8_t b[8];
		uint64_t e;

		if (!read_phys(k, table + (va >> shift & 511) * 8, b, 8))
			return false;
		e = get_le64(b);
		if (!(e & 1))
			return false;
		if (level == 1 || (e & 0x80 && level <= 3)) {
			*pa = (e & frame & ~mask) | (va & mask);
			return true;
		}
		table = e & frame;
	}
	return false;
}

static bool read_virt(const struct klog *k, uint64_t va, void *buf, size_t len)
{
	uint8_t *p = buf;

	while (len) {
		size_t n = min_of(len, (size_t)(PAGE - va % PAGE));
		uint64_t pa;

		if (!translate(k, va, &pa) || !read_phys(k, pa, p, n))
			return false;
		p += n;
		va += n;
		len -= n;
	}
	return true;
}

static bool read_u64(const struct klog *k, uint64_t va, uint64_t *out)
{
	uint8_t b[8];

	if (!read_virt(k, va, b, sizeof(b)))
		return false;
	*out = get_le64(b);
	return true;
}

static bool read_u32(const struct klog *k, uint64_t va, uint32_t *out)
{
	uint8_t b[4];

	if (!read_virt(k, va, b, sizeof(b)))
		return false;
	*out = get_le32(b);
	return true;
}

/* ---- vmcoreinfo ---- */

/* The value of "KEY=" at the start of a line; @text ends in NUL. */
static bool value(const char *text, const char *key, int base, uint64_t *out)
{
	size_t n = strlen(key);

	for (const char *p = text; p; p = strchr(p, '\n')) {
		char *end;

		if (*p == '\n')
			p++;
		if (strncmp(p, key, n) != 0 || p[n] != '=')
			continue;
		*out = strtoull(p + n + 1, &end, base);
		return end != p + n + 1;
	}
	return false;
}

/* Offsets and sizes are small; a page bounds what they can do. */
static bool small(const char *text, const char *key, uint64_t *out)
{
	return value(text, key, 10, out) && *out < PAGE;
}

static bool read_layout(struct layout *l, const char *t)
{
	return small(t, "OFFSET(printk_ringbuffer.desc_ring)",
		     &l->prb_desc_ring) &&
	       small(t, "OFFSET(printk_ringbuffer.text_data_ring)",
		     &l->prb_text_ring) &&
	       small(t, "OFFSET(prb_desc_ring.count_bits)", &l->count_bits) &&
	       small(t, "OFFSET(prb_desc_ring.descs)", &l->descs) &&
	       small(t, "OFFSET(prb_desc_ring.infos)", &l->infos) &&
	       small(t, "OFFSET(prb_desc_ring.head_id)", &l->head_id) &&
	       small(t, "SIZE(prb_desc)", &l->desc_size) &&
	       small(t, "OFFSET(prb_desc.state_var)", &l->state_var) &&
	       small(t, "OFFSET(prb_desc.text_blk_lpos)", &l->lpos) &&
	       small(t, "OFFSET(prb_data_blk_lpos.begin)", &l->lpos_begin) &&
	       small(t, "OFFSET(prb_data_blk_lpos.next)", &l->lpos_next) &&
	       small(t, "SIZE(printk_info)", &l->info_size) &&
	       small(t, "OFFSET(printk_info.ts_nsec)", &l->ts_nsec) &&
	       small(t, "OFFSET(printk_info.text_len)", &l->text_len) &&
	       small(t, "OFFSET(prb_data_ring.size_bits)", &l->size_bits) &&
	       small(t, "OFFSET(prb_data_ring.data)", &l->data);
}

/* Everything from one page of text; false when it is not what it looks like. */
static bool open_log(struct klog *k, const char *text, uint64_t *prb)
{
	uint64_t symbol, pgd, l5 = 0;

	if (!read_layout(&k->l, text) ||
	    !value(text, "SYMBOL(prb)", 16, &symbol) ||
	    !value(text, "NUMBER(phys_base)", 10, &k->phys_base) ||
	    !(value(text, "SYMBOL(init_top_pgt)", 16, &pgd) ||
	      value(text, "SYMBOL(swapper_pg_dir)", 16, &pgd)))
		return false;
	value(text, "NUMBER(pgtable_l5_enabled)", 10, &l5);
	k->levels = l5 == 1 ? 5 : 4;
	k->pgd = pgd - KERNEL_BASE + k->phys_base;
	/* prb is a pointer variable. */
	return read_u64(k, symbol, prb);
}

static bool find_log(struct klog *k, uint64_t *prb)
{
	static const char first[] = "OSRELEASE=";
	const struct gmem_region *r;
	unsigned tries = PAGES_MAX;

	for (unsigned i = 0; (r = gmem_region(k->mem, i)); i++) {
		for (uint64_t at = 0; at + PAGE <= r->size; at += PAGE) {
			char text[PAGE + 1];

			if (memcmp((const char *)r->host + at, first,
				   sizeof(first) - 1) != 0)
				continue;
			memcpy(text, (const char *)r->host + at, PAGE);
			text[PAGE] = 0;
			if (open_log(k, text, prb))
				return true;
			if (!--tries)
				return false;
		}
	}
	return false;
}

/* ---- the ring ---- */

struct rings {
	unsigned count_bits, size_bits;
	uint64_t descs, infos, data, head;
};

static bool read_rings(const struct klog *k, uint64_t prb, struct rings *r)
{
	uint64_t desc = prb + k->l.prb_desc_ring;
	uint64_t text = prb + k->l.prb_text_ring;
	uint32_t count_bits, size_bits;

	if (!read_u32(k, desc + k->l.count_bits, &count_bits) ||
	    !read_u64(k, desc + k->l.descs, &r->descs) ||
	    !read_u64(k, desc + k->l.infos, &r->infos) ||
	    !read_u64(k, desc + k->l.head_id, &r->head) ||
	    !read_u32(k, text + k->l.size_bits, &size_bits) ||
	    !read_u64(k, text + k->l.data, &r->data))
		return false;
	r->count_bits = count_bits;
	r->size_bits = size_bits;
	r->head = DESC_ID(r->head);
	return count_bits >= 1 && count_bits <= 30 && size_bits >= 8 &&
	       size_bits <= 31;
}

/* The text of message @id into @out; false when it is not there any more. */
static bool read_message(const struct klog *k, const struct rings *r,
			 uint64_t id, char out[TEXT_MAX])
{
	uint64_t slot = id & ((1ull << r->count_bits) - 1);
	uint64_t desc = r->descs + slot * k->l.desc_size;
	uint64_t info = r->infos + slot * k->l.info_size;
	uint64_t size = 1ull << r->size_bits;
	uint64_t state, begin, next, ts, pos;
	uint8_t b[2];
	size_t len;
	int n;

	if (!read_u64(k, desc + k->l.state_var, &state) ||
	    DESC_ID(state) != id ||
	    (DESC_STATE(state) != DESC_COMMITTED &&
	     DESC_STATE(state) != DESC_FINALIZED) ||
	    !read_u64(k, desc + k->l.lpos + k->l.lpos_begin, &begin) ||
	    !read_u64(k, desc + k->l.lpos + k->l.lpos_next, &next) ||
	    !read_u64(k, info + k->l.ts_nsec, &ts) ||
	    !read_virt(k, info + k->l.text_len, b, sizeof(b)))
		return false;
	n = snprintf(out, TEXT_MAX, "[%5llu.%06llu] ",
		     (unsigned long long)(ts / 1000000000),
		     (unsigned long long)(ts % 1000000000 / 1000));
	if (begin & 1) /* a message without text */
		return true;
	/* A block that would cross the end lies at the start instead. Before
	 * the text is the descriptor's ID. */
	pos = begin >> r->size_bits == (next - 1) >> r->size_bits
		      ? begin & (size - 1)
		      : 0;
	len = min_of((size_t)get_le16(b), (size_t)(TEXT_MAX - n - 1));
	if (!range_fits(pos + 8, len, size) ||
	    !read_virt(k, r->data + pos + 8, out + n, len))
		return false;
	for (size_t i = 0; i < len; i++)
		if (out[n + (int)i] < ' ' || out[n + (int)i] == 127)
			out[n + (int)i] = '?';
	out[n + (int)len] = 0;
	return true;
}

unsigned klog_read(const struct gmem *m, unsigned max, klog_line_fn *fn,
		   void *ctx)
{
	struct klog k = { .mem = m };
	char text[TEXT_MAX];
	struct rings r;
	unsigned n = 0;
	uint64_t prb;

	if (!find_log(&k, &prb) || !read_rings(&k, prb, &r))
		return 0;
	max = min_of(max, 1u << r.count_bits);
	for (unsigned i = max; i-- > 0;) {
		if (!read_message(&k, &r, DESC_ID(r.head - i), text))
			continue;
		fn(ctx, text);
		n++;
	}
	return n;
}
