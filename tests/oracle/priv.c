/*
 * The privileged part.
 *
 * Theory of operation: a case is a start mode, a few changes to a standard
 * machine (priv_machine.c), some bytes of code, and what must hold when the
 * vCPU meets an INT3: each handler of the IDT is one, and so is the byte after
 * the code. So the place where it stops says which exception came, or that
 * none did, and the frame on the stack says the rest. Everything goes through
 * hv.h: the tables would judge any engine.
 */
#include "priv.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "hv/soft/cpu.h"
#include "priv_machine.h"
#include "rows.h"

extern const struct hv_ops hv_soft_ops;

struct run {
	const struct priv_case *c;
	struct hv_x86_vcpu_state *s;
	struct hv_exit exit;
	int vector; /* handler it stopped in, -1: none */
	char text[600];
};

static void say(struct run *r, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

static void say(struct run *r, const char *fmt, ...)
{
	size_t n = strlen(r->text);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(r->text + n, sizeof(r->text) - n, fmt, ap);
	va_end(ap);
}

static void want(struct run *r, const char *what, uint64_t got, uint64_t exp)
{
	if (got != exp)
		say(r, " %s is %" PRIx64 ", not %" PRIx64 ";", what, got, exp);
}

static void check_item(struct run *r, const struct priv_item *i)
{
	const struct hv_x86_vcpu_state *s = r->s;
	char name[40];

	switch (i->key) {
	case P_GPR:
		snprintf(name, sizeof(name), "gpr[%u]", (unsigned)i->a);
		want(r, name, s->gpr[i->a], i->v);
		break;
	case P_RIP:
		want(r, "rip", s->rip, i->v);
		break;
	case P_FLAGS: /* under mask a */
		want(r, "rflags", s->rflags & i->a, i->v & i->a);
		break;
	case P_CR2:
		want(r, "cr2", s->cr2, i->v);
		break;
	case P_CR0:
		want(r, "cr0", s->cr0 & i->a, i->v & i->a);
		break;
	case P_CR4:
		want(r, "cr4", s->cr4 & i->a, i->v & i->a);
		break;
	case P_DR6:
		want(r, "dr6", s->dr6, i->v);
		break;
	case P_SEL:
		snprintf(name, sizeof(name), "selector %u", (unsigned)i->a);
		want(r, name, s->seg[i->a].selector, i->v);
		break;
	case P_BASE:
		snprintf(name, sizeof(name), "base %u", (unsigned)i->a);
		want(r, name, s->seg[i->a].base, i->v);
		break;
	case P_KGS:
		want(r, "kernel gs base", s->msr[HV_MSR_KERNEL_GS_BASE], i->v);
		break;
	case P_MEM:
		snprintf(name, sizeof(name), "[%" PRIx64 "]", i->a);
		want(r, name, priv_peek(i->a), i->v);
		break;
	case P_MEM_BITS: { /* bits of the byte at a: low byte wanted, next mask */
		uint64_t mask = i->v >> 8 & 0xff;

		snprintf(name, sizeof(name), "bits of [%" PRIx64 "]", i->a);
		want(r, name, priv_peek(i->a) & mask, i->v & mask);
		break;
	}
	case P_FRAME: /* item a of the frame, from the top of the stack */
		snprintf(name, sizeof(name), "frame[%u]", (unsigned)i->a);
		want(r, name, priv_stack(s, (unsigned)i->a), i->v);
		break;
	case P_FRAME_FLAGS: {
		unsigned mask = (unsigned)(i->v >> 32);

		snprintf(name, sizeof(name), "flags in frame[%u]",
			 (unsigned)i->a);
		want(r, name, priv_stack(s, (unsigned)i->a) & mask,
		     i->v & mask);
		break;
	}
	case P_VECTOR:
		if (r->vector != (int)i->v)
			say(r, " vector %d, not %d;", r->vector, (int)i->v);
		break;
	case P_SHUTDOWN:
		if (r->exit.reason != HV_EXIT_SHUTDOWN)
			say(r, " no shutdown;");
		break;
	default:
		say(r, " (bad item %d)", i->key);
	}
}

static bool expects(const struct priv_case *c, int key)
{
	for (const struct priv_item *i = c->out; i->key; i++)
		if (i->key == key)
			return true;
	return false;
}

/*
 * The rows that a good case took to their end: its code runs straight on, so
 * all of it when it stopped behind it, the first when it went elsewhere.
 */
static void note_rows(struct rows *rows, const struct priv_case *c, bool at_end)
{
	unsigned mode = c->mode == REAL			   ? 0
			: c->mode == K64 || c->mode == U64 ? MODE_64
							   : MODE_32;
	bool excepted = expects(c, P_VECTOR) || expects(c, P_SHUTDOWN);
	unsigned n = excepted ? c->ends : at_end ? sizeof(c->code) : 1;
	unsigned len;

	for (unsigned at = 0; n && at < c->len; n--, at += len) {
		int row = rows_find(c->code + at, sizeof(c->code) - at, mode,
				    &len);

		if (!len)
			return;
		if (row >= 0 && !rows->by[row])
			rows->by[row] = c->name;
	}
}

static bool run_case(const struct priv_case *c, struct rows *rows)
{
	static struct hv_x86_vcpu_state s;
	struct run r = { .c = c, .s = &s, .vector = -1 };
	uint64_t end = priv_setup(c, &s);

	if (priv_go(&s, &r.exit))
		say(&r, " the engine refused;");
	if (r.exit.reason == HV_EXIT_DEBUG) {
		uint64_t at = s.rip + s.seg[X86_CS].base;

		r.vector = priv_vector_at(at);
		if (r.vector < 0 && at != end && !expects(c, P_RIP))
			say(&r, " stopped at %" PRIx64 ";", at);
		if (r.vector >= 0 && !expects(c, P_VECTOR) &&
		    !expects(c, P_RIP))
			say(&r, " vector %d (error or rip %" PRIx64 ");",
			    r.vector, priv_stack(&s, 0));
	} else if (r.exit.reason != HV_EXIT_SHUTDOWN ||
		   !expects(c, P_SHUTDOWN)) {
		say(&r, " exit %d %s;", r.exit.reason, r.exit.text);
	}
	if (r.exit.reason == HV_EXIT_DEBUG || expects(c, P_SHUTDOWN))
		for (const struct priv_item *i = c->out; i->key; i++)
			check_item(&r, i);
	if (r.text[0])
		printf("FAILED %s:%s\n", c->name, r.text);
	else
		note_rows(rows, c, s.rip + s.seg[X86_CS].base == end);
	return !r.text[0];
}

/* CPUID says what the engine's table of leaves does, all others the last. */
static unsigned run_cpuid(struct rows *rows, unsigned *n)
{
	static struct hv_x86_cpuid leaf[HV_X86_CPUID_MAX + 1];
	int count = hv_supported_cpuid(&hv_soft_ops, leaf, HV_X86_CPUID_MAX);
	const struct hv_x86_cpuid *top = NULL;
	unsigned bad = count <= 0;

	for (int k = 0; k < count; k++)
		if (leaf[k].leaf == leaf[0].eax && !leaf[k].subleaf)
			top = &leaf[k];
	if (top) {
		leaf[count] = *top;
		leaf[count++].leaf = 0x7fffffff;
	}
	for (int k = 0; k < count; k++) {
		const struct hv_x86_cpuid *l = &leaf[k];
		struct priv_case c = {
			.name = "CPUID: the table's leaves",
			.mode = K64,
			.code = { 0x0f, 0xa2 },
			.len = 2,
			.in = { { P_GPR, X86_RAX, l->leaf },
				{ P_GPR, X86_RCX, l->subleaf } },
			.out = { { P_GPR, X86_RAX, l->eax },
				 { P_GPR, X86_RBX, l->ebx },
				 { P_GPR, X86_RCX, l->ecx },
				 { P_GPR, X86_RDX, l->edx } },
		};

		if (l->leaf == 0x40000010) /* measured frequencies */
			continue;
		++*n;
		bad += !run_case(&c, rows);
	}
	return bad;
}

/* What no form of 0F 01 is, among registers, is #UD whoever asks. */
static unsigned run_group7(struct rows *rows, unsigned *n)
{
	static const uint8_t is[] = { 0xc1, 0xca, 0xcb, 0xd9, 0xf8, 0xf9 };
	unsigned bad = 0;

	for (unsigned m = 0xc0; m < 0x100; m++) {
		struct priv_case c = {
			.name = "a form of 0F 01 that is hidden or none",
			.mode = K64,
			.code = { 0x0f, 0x01, (uint8_t)m },
			.len = 3,
			.ends = 1,
			.out = { { P_VECTOR, 0, X86_UD },
				 { P_FRAME, 0, KCODE } },
		};

		if (memchr(is, (int)m, sizeof(is)) || (m >> 3 & 7) == 4 ||
		    (m >> 3 & 7) == 6)
			continue;
		++*n;
		bad += !run_case(&c, rows);
	}
	return bad;
}

int priv_run(struct rows *rows)
{
	struct err e = { 0 };
	unsigned n = 0, bad = 0;

	if (priv_machine_init(&e)) {
		fprintf(stderr, "oracle: %s\n", e.text);
		return 3;
	}
	/* A vCPU that never stops ends the program. */
	alarm(60);
	for (const struct priv_table *const *t = priv_tables; *t; t++)
		for (unsigned i = 0; i < (*t)->count; i++, n++)
			bad += !run_case(&(*t)->cases[i], rows);
	bad += run_cpuid(rows, &n);
	bad += run_group7(rows, &n);
	alarm(0);
	printf("privileged: %u cases, %u failed\n", n, bad);
	return bad ? 1 : 0;
}
