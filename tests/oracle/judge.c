/*
 * Both sides, and the comparison.
 *
 * Theory of operation: memory on either side holds the same pattern before
 * every case, and is put back after it, so a case is a function of its own text
 * alone. The code lies in a sea of INT3.
 */
#include "judge.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "enc.h"
#include "gen.h"
#include "layout.h"
#include "native.h"
#include "soft.h"
#include "text.h"

static uint8_t pattern[PAGE_COUNT][PAGE];

void judge_init(void)
{
	uint64_t x = 88172645463325252ull;

	for (unsigned i = 0; i < PAGE_COUNT; i++) {
		for (unsigned k = 0; k < PAGE; k += 8) {
			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
			memcpy(&pattern[i][k], &x, 8);
		}
		if (i < CODE_COUNT)
			memset(pattern[i], 0xcc, PAGE);
		memcpy(native_page(i), pattern[i], PAGE);
		memcpy(soft_half_page(i), pattern[i], PAGE);
	}
}

/* Bytes (NULL: the pattern's) to both sides, where pages [from, to) are. */
static void put_pages(unsigned from, unsigned to, uint64_t la, const uint8_t *b,
		      unsigned n)
{
	for (unsigned i = from; i < to; i++) {
		uint64_t off = la - pages[i].la;

		if (off >= PAGE && off + n - 1 >= PAGE)
			continue;
		for (unsigned k = 0; k < n; k++, off++) {
			if (off >= PAGE)
				continue;
			native_page(i)[off] = b ? b[k] : pattern[i][off];
			soft_half_page(i)[off] = native_page(i)[off];
		}
	}
}

/* Operands never go to code pages: the instruction may be there. */
static void put_bytes(uint64_t la, const uint8_t *b, unsigned n)
{
	if (n)
		put_pages(CODE_COUNT, PAGE_COUNT, la, b, n);
}

static void put_code(uint64_t la, const uint8_t *b, unsigned n)
{
	if (!n)
		return;
	put_pages(0, CODE_COUNT, la, b, n);
	for (unsigned i = 0; i < CODE_COUNT; i++) {
		uint64_t from = la > pages[i].la ? la : pages[i].la;
		uint64_t to = la + n < pages[i].la + PAGE ? la + n
							  : pages[i].la + PAGE;

		if (from < to)
			soft_half_code_changed(i,
					       (unsigned)(from - pages[i].la),
					       (unsigned)(to - from));
	}
}

static void restore(void)
{
	for (unsigned i = CODE_COUNT; i < PAGE_COUNT; i++) {
		if (memcmp(native_page(i), pattern[i], PAGE))
			memcpy(native_page(i), pattern[i], PAGE);
		if (memcmp(soft_half_page(i), pattern[i], PAGE))
			memcpy(soft_half_page(i), pattern[i], PAGE);
	}
}

/*
 * It ran into the INT3 behind the instruction, or into an absent page
 * there: it is done. Vector 1 means that, as after a step.
 */
static void normalise(const struct ocase *c, const struct enc *e,
		      struct outcome *o)
{
	uint64_t start = c->in.rip + c->pre_len, next = start + e->len;

	o->lost = false;
	if (!c->free_run) {
		/* IRET that cleared TF runs on into an INT3. */
		if (o->vector == 3 && e->op != 0xcc && e->op != 0xcd)
			o->lost = true;
		return;
	}
	if (o->vector == 3 && o->out.rip == next + 1) {
		o->vector = 1;
		o->out.rip = next;
	} else if (o->vector == 14 && o->out.rip == next && (o->error & 0x10) &&
		   o->cr2 == next) {
		o->vector = 1;
		o->error = 0;
	} else if (o->out.rip != start && o->out.rip != c->in.rip) {
		o->lost = true;
	}
}

/* ---- comparison ---- */

static void say(struct judgement *j, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

static void say(struct judgement *j, const char *fmt, ...)
{
	size_t n = strlen(j->text);
	va_list ap;

	j->verdict = DIFFERENT;
	va_start(ap, fmt);
	vsnprintf(j->text + n, sizeof(j->text) - n, fmt, ap);
	va_end(ap);
}

static void compare_fx(const struct enc *e, struct judgement *j)
{
	const uint8_t *a = j->host.out.fx, *b = j->soft.out.fx;
	static const struct {
		const char *name;
		unsigned at, n;
	} f[] = { { "fcw", 0, 2 },
		  { "fsw", 2, 2 },
		  { "ftw", 4, 1 },
		  { "mxcsr", 24, 4 } };

	/* What leaves x87 for MMX may have done so before it faults. */
	bool mmx_fault =
		j->host.vector != 1 && j->host.vector != 3 &&
		(j->host.vector == 19 || (e->map == 1 && e->op == 0xf7));

	for (int i = 0; i < 4; i++) {
		uint32_t x = 0, y = 0;

		memcpy(&x, a + f[i].at, f[i].n);
		memcpy(&y, b + f[i].at, f[i].n);
		if (x != y && (!mmx_fault || i == 0 || i == 3))
			say(j, " %s %x/%x", f[i].name, x, y);
	}
	for (int i = mmx_fault ? 8 : 0; i < 24; i++) {
		unsigned at = 32 + 16 * (unsigned)i, n = i < 8 ? 10 : 16;
		uint64_t x[2] = { 0 }, y[2] = { 0 };

		if (!memcmp(a + at, b + at, n))
			continue;
		memcpy(x, a + at, n);
		memcpy(y, b + at, n);
		say(j,
		    " %s%d %" PRIx64 ":%016" PRIx64 "/%" PRIx64 ":%016" PRIx64,
		    i < 8 ? "st" : "xmm", i < 8 ? i : i - 8, x[1], x[0], y[1],
		    y[0]);
	}
}

/* Pointers to the last x87 instruction are not kept alike: cut them. */
static void cut_pointers(const struct ocase *c, const struct enc *e)
{
	unsigned reg = ENC_REG(e), from, to;
	bool fx = e->map == 1 && e->op == 0xae && reg == 0;
	bool env =
		e->map == 0 && ((e->op == 0xd9 || e->op == 0xdd) && reg == 6);

	uint64_t la;

	if (!ENC_MEM(e) || !(fx || env))
		return;
	la = enc_address(e, c);
	if (fx) {
		put_bytes(la + 6, NULL, 18);
		put_bytes(la + 28, NULL, 4);
		return;
	}
	from = e->p66 ? 6 : 12;
	to = e->p66 ? 14 : 28;
	put_bytes(la + from, NULL, to - from);
}

static void compare_memory(struct judgement *j)
{
	for (unsigned i = CODE_COUNT; i < PAGE_COUNT; i++) {
		const uint8_t *a = native_page(i), *b = soft_half_page(i);
		unsigned k = 0;

		if (!memcmp(a, b, PAGE))
			continue;
		while (a[k] == b[k])
			k++;
		say(j, " [%x] %02x/%02x", pages[i].la + k, a[k], b[k]);
	}
}

/* A context switch makes the null selectors 1 to 3 a plain 0. */
static bool same_sel(uint16_t a, uint16_t b)
{
	return a == b || (a < 4 && b < 4);
}

#define RF (1u << 16)
#define TF (1u << 8)

static void compare_regs(const struct ocase *c, const struct enc *e,
			 struct judgement *j)
{
	static const char *const name[16] = {
		"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
		"r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15",
	};
	const struct regs *a = &j->host.out, *b = &j->soft.out;
	uint64_t mask = ~(uint64_t)RF;

	if (j->host.vector == 1)
		mask &= ~enc_undefined_flags(e, c);
	if (c->free_run)
		mask &= ~(uint64_t)TF;
	for (int i = 0; i < 16; i++)
		/* From 32-bit code the kernel does not get all of RSP. */
		if (a->gpr[i] != b->gpr[i] &&
		    (i != 4 || !enc_is_far(e) ||
		     (uint32_t)a->gpr[i] != (uint32_t)b->gpr[i]))
			say(j, " %s %" PRIx64 "/%" PRIx64, name[i], a->gpr[i],
			    b->gpr[i]);
	if (a->rip != b->rip)
		say(j, " rip %" PRIx64 "/%" PRIx64, a->rip, b->rip);
	if ((a->rflags ^ b->rflags) & mask)
		say(j, " flags %" PRIx64 "/%" PRIx64 " (%" PRIx64 ")",
		    a->rflags & mask, b->rflags & mask,
		    (a->rflags ^ b->rflags) & mask);
	if (!same_sel(a->ds, b->ds) || !same_sel(a->es, b->es) ||
	    !same_sel(a->fs, b->fs) || !same_sel(a->gs, b->gs))
		say(j, " ds,es,fs,gs %x,%x,%x,%x/%x,%x,%x,%x", a->ds, a->es,
		    a->fs, a->gs, b->ds, b->es, b->fs, b->gs);
	if (a->fs_base != b->fs_base || a->gs_base != b->gs_base)
		say(j, " bases %" PRIx64 ",%" PRIx64 "/%" PRIx64 ",%" PRIx64,
		    a->fs_base, a->gs_base, b->fs_base, b->gs_base);
}

static bool loads_descriptor(const struct enc *e)
{
	if (e->map == 1)
		return e->op == 0xa1 || e->op == 0xa9 || e->op == 0xb2 ||
		       e->op == 0xb4 || e->op == 0xb5 || e->op < 4;
	return e->op == 0x8e || e->op == 0xca || e->op == 0xcb ||
	       e->op == 0xcf || e->op == 0x07 || e->op == 0x17 ||
	       e->op == 0x1f || e->op == 0xc4 || e->op == 0xc5 ||
	       e->op == 0x9a || e->op == 0xea || e->op == 0xff;
}

/* DPPS, DPPD: two steps, of which the first may end it. */
static bool only_precision_differs(const struct judgement *j,
				   const struct enc *e)
{
	bool dot = e->map == 3 && (e->op == 0x40 || e->op == 0x41);
	uint32_t x, y;

	memcpy(&x, j->host.out.fx + 24, 4);
	memcpy(&y, j->soft.out.fx + 24, 4);
	return !((x ^ y) & ~(dot ? 0x3fu : 0x20u)) &&
	       strncmp(j->text, " mxcsr", 6) == 0 && !strchr(j->text + 7, ' ');
}

/*
 * Faults that differ where the manuals leave it to the CPU, or where this host
 * is not bare hardware. Only which fault, never whether there is one.
 */
static bool tolerated(const struct ocase *c, const struct enc *e,
		      const struct judgement *j)
{
	const struct outcome *h = &j->host, *s = &j->soft;
	bool far = enc_is_far(e);

	/* An undefined opcode at a page's end: does the rest get fetched? */
	if ((h->vector == 6 && s->vector == 14 && s->error & 0x10) ||
	    (s->vector == 6 && h->vector == 14 && h->error & 0x10))
		return true;
	/* A hypervisor's descriptor tables are larger than Linux's. */
	if (h->vector == 14 && s->vector == 13 && s->error &&
	    loads_descriptor(e))
		return true;
	/* Several words at the end of the address space. */
	if (enc_many_words(e) && (h->vector == 13 || h->vector == 12) &&
	    s->vector == 14)
		return true;
	if (enc_many_words(e) && h->vector == 14 &&
	    (s->vector == 13 || s->vector == 12 ||
	     (s->vector == 14 && h->cr2 != s->cr2)))
		return true;
#if defined(__SANITIZE_ADDRESS__)
	/* The sanitizer's shadow is memory that the guest does not have. */
	if (h->vector != s->vector && s->vector == 14)
		return true;
#endif
	/* #GP of several causes at once. */
	if (far && h->vector == 13 && s->vector == 13)
		return true;
	/* AMD also wants the sum without the segment's base canonical. */
	if (h->vector == 13 && s->vector == 14 &&
	    (c->in.fs_base || c->in.gs_base) &&
	    (e->seg == 0x64 || e->seg == 0x65))
		return true;
	/* INS, OUTS with a count of 0: AMD checks the port all the same. */
	if (e->map == 0 && (e->op & 0xfc) == 0x6c && h->vector == 13 &&
	    s->vector == 1 && !(uint16_t)c->in.gpr[1])
		return true;
	/* MASKMOVQ may look at all of its memory, whatever the mask. */
	if (e->map == 1 && e->op == 0xf7 && h->vector != 1)
		return true;
	/* LSL of the segment in which Linux keeps the CPU's number. */
	if (e->map == 1 && e->op == 0x03 && h->vector == 1 && s->vector == 1 &&
	    (uint16_t)h->out.gpr[ENC_REG(e) | (e->rex & 4) << 1] < 0x1000)
		return true;
	/* Too long, and an undefined opcode: which is it? */
	if (e->len > 15 && ((h->vector == 13 && s->vector == 6) ||
			    (h->vector == 6 && s->vector == 13)))
		return true;
	/* CALL: the push or the target first. */
	if (e->map == 0 &&
	    (e->op == 0xe8 || (e->op == 0xff && ENC_REG(e) == 2)) &&
	    (h->vector == 14 || h->vector == 12) && s->vector == 13)
		return true;
	/* Alignment of an SSE operand, or the limit of SS. */
	if (e->map && c->compat && h->vector == 13 && s->vector == 12)
		return true;
	/*
	 * Underflow and overflow unmasked: whether the result that is not
	 * stored was inexact depends on a range of exponents without end.
	 */
	if (h->vector == 19 && s->vector == 19 && only_precision_differs(j, e))
		return true;
	/* AMD has a bit 17 in MXCSR, the misaligned exception mask. */
	if (e->map == 1 && e->op == 0xae && ENC_MEM(e) &&
	    (ENC_REG(e) == 1 || ENC_REG(e) == 2) && h->vector == 1 &&
	    s->vector == 13 && h->out.fx[26] & 2)
		return true;
	/* POPA may have loaded some, PUSHA and a far CALL stored some. */
	if (e->map == 0 &&
	    (e->op == 0x61 || e->op == 0x60 || e->op == 0x9a ||
	     (e->op == 0xff && ENC_REG(e) == 3)) &&
	    h->vector != 1 && h->vector == s->vector)
		return true;
	/* ARPL to a code segment: the read comes first. */
	return e->map == 0 && e->op == 0x63 && c->compat && h->vector == 14 &&
	       s->vector == 13;
}

static void compare(const struct ocase *c, const struct enc *e,
		    struct judgement *j)
{
	const struct outcome *h = &j->host, *s = &j->soft;
	uint32_t eh = h->error, es = s->error;

	if (h->vector != s->vector)
		say(j, " vector %u/%u", h->vector, s->vector);
	if (h->vector == 14 && s->vector == 14 && h->cr2 != s->cr2 &&
	    !enc_many_words(e) && !(e->map == 1 && e->op == 0xf7))
		say(j, " cr2 %" PRIx64 "/%" PRIx64, h->cr2, s->cr2);
	/* Linux hides whether an address of its own is mapped. */
	if (h->vector == 14 && h->cr2 >= 0x7ffffffff000)
		eh |= 1, es |= 1;
	if (h->vector != 1 && h->vector != 3 && eh != es)
		say(j, " error %x/%x", eh, es);
	compare_regs(c, e, j);
	compare_fx(e, j);
	if (!enc_undefined_result(e, c)) {
		cut_pointers(c, e);
		compare_memory(j);
	}
}

void judge_case(const struct ocase *c, struct judgement *j)
{
	struct enc e;

	memset(j, 0, offsetof(struct judgement, text));
	j->text[0] = 0;
	if (case_excluded(c)) {
		j->verdict = EXCLUDED;
		return;
	}
	enc_parse(&e, c->code, CODE_MAX, c->compat);
	put_code(c->in.rip, c->pre, c->pre_len);
	put_code(c->in.rip + c->pre_len, c->code, c->len);
	for (int i = 0; i < 2; i++)
		put_bytes(c->patch[i].la, c->patch[i].bytes, c->patch[i].len);
	native_run(c, &j->host);
	soft_half_run(c, &j->soft);
	normalise(c, &e, &j->host);
	normalise(c, &e, &j->soft);
	if (j->host.lost)
		j->verdict = LOST;
	else if (j->soft.vector == 6 && j->host.vector != 6 &&
		 enc_hidden(&e, c->compat))
		j->verdict = HIDDEN;
	else if (enc_undefined_result(&e, c) && j->host.vector == 1 &&
		 j->soft.vector == 1)
		j->verdict = SAME;
	else
		compare(c, &e, j);
	if (j->verdict == DIFFERENT && tolerated(c, &e, j))
		j->verdict = TOLERATED;
	put_code(c->in.rip, NULL, c->pre_len + c->len);
	restore();
}

/* ---- the minimiser ---- */

/* Still differs, and in the same thing first. */
static bool differs(const struct ocase *c, const struct judgement *as)
{
	struct judgement j;

	judge_case(c, &j);
	return j.verdict == DIFFERENT && j.host.vector == as->host.vector &&
	       !strncmp(j.text, as->text, strcspn(as->text + 1, " ") + 1);
}

static void try_bytes(struct ocase *c, const struct judgement *as, void *at,
		      const void *with, size_t n)
{
	uint8_t old[512];

	if (!memcmp(at, with, n))
		return;
	memcpy(old, at, n);
	memcpy(at, with, n);
	if (!differs(c, as))
		memcpy(at, old, n);
}

/* Drop byte @i of the code: a prefix that does not matter. */
static void try_drop(struct ocase *c, const struct judgement *as, unsigned i)
{
	struct ocase d = *c;
	struct enc e;

	memmove(d.code + i, d.code + i + 1, CODE_MAX - 1 - i);
	d.code[CODE_MAX - 1] = 0xcc;
	enc_parse(&e, d.code, CODE_MAX, d.compat);
	if (!e.ok || e.len + 1 != c->len || case_excluded(&d))
		return;
	d.len = e.len;
	if (differs(&d, as))
		*c = d;
}

void judge_minimise(struct ocase *c, const struct judgement *as)
{
	static const uint64_t zero;
	struct ocase d;
	uint64_t rip = CODE_LA;

	text_default(&d);
	for (int round = 0; round < 2; round++) {
		try_bytes(c, as, &c->pre_len, &zero, 1);
		for (unsigned i = 0; i + 1 < c->len; i++)
			try_drop(c, as, i);
		try_bytes(c, as, &c->in.rip, &rip, 8);
		for (int i = 0; i < 2; i++) {
			try_bytes(c, as, &c->patch[i].len, "", 1);
			for (int k = 0; k < PATCH_MAX; k += 8)
				if (c->patch[i].len)
					try_bytes(c, as, c->patch[i].bytes + k,
						  "\0\0\0\0\0\0\0", 8);
		}
		try_bytes(c, as, c->in.fx, d.in.fx, 416);
		for (int i = 0; i < 416; i += 16)
			try_bytes(c, as, c->in.fx + i, d.in.fx + i, 16);
		for (int i = 0; i < 16; i++)
			if (c->in.gpr[i] != d.in.gpr[i])
				try_bytes(c, as, &c->in.gpr[i],
					  i == 4 ? &d.in.gpr[4] : &zero, 8);
		try_bytes(c, as, &c->in.rflags, &d.in.rflags, 8);
		try_bytes(c, as, &c->in.fs_base, &zero, 8);
		try_bytes(c, as, &c->in.gs_base, &zero, 8);
		if (!c->compat) {
			try_bytes(c, as, &c->in.fs, &zero, 2);
			try_bytes(c, as, &c->in.gs, &zero, 2);
		}
		try_bytes(c, as, &c->in.ds, &d.in.ds, 2);
		try_bytes(c, as, &c->in.es, &d.in.es, 2);
	}
}
