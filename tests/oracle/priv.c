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
#include "priv_machine.h"

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

static bool run_case(const struct priv_case *c)
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
	return !r.text[0];
}

int priv_run(void)
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
			bad += !run_case(&(*t)->cases[i]);
	printf("privileged: %u cases, %u failed\n", n, bad);
	return bad ? 1 : 0;
}
