/*
 * The commands of the remote protocol.
 *
 * Stop replies name the thread and the reason. Ours is the all-stop mode: when
 * one vCPU stops, all do, and nothing runs until GDB says so. What is not known
 * gets the empty reply, which is how the protocol says "not supported".
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "gdb/server.h"

#define SIGINT_GDB  2
#define SIGTRAP_GDB 5

static void ok(struct gdb *g)
{
	rsp_text(&g->rsp, "OK");
}

static void fail(struct gdb *g, int err)
{
	rsp_text(&g->rsp, "E%02x", err & 0xff);
}

static bool starts(const char **p, const char *word)
{
	size_t n = strlen(word);

	if (strncmp(*p, word, n))
		return false;
	*p += n;
	return true;
}

/* Thread @n of the protocol; 0 and -1 are "any" and "all". False: no such. */
static bool thread_arg(struct gdb *g, const char **p, unsigned *cpu, bool *all)
{
	uint64_t v;

	*all = false;
	if (starts(p, "-1")) {
		*all = true;
		return true;
	}
	if (!rsp_number(p, &v) || v > g->ncpus)
		return false;
	*cpu = v ? (unsigned)v - 1 : *cpu;
	return true;
}

static int load_state(struct gdb *g, unsigned cpu)
{
	return hv_vcpu_get_state(g->ops->cpu(g->target, cpu), g->state);
}

static int store_state(struct gdb *g, unsigned cpu)
{
	return hv_vcpu_set_state(g->ops->cpu(g->target, cpu), g->state);
}

/* ---- registers and memory ---- */

static void read_regs(struct gdb *g)
{
	uint8_t b[2048];
	size_t n = gdb_regs_size();

	if (load_state(g, g->cpu_g)) {
		fail(g, EIO);
		return;
	}
	gdb_regs_read(g->state, b);
	rsp_hex(g->scratch, b, n);
	rsp_reply(&g->rsp, g->scratch, 2 * n);
}

static void write_regs(struct gdb *g, const char *p)
{
	uint8_t b[2048];
	size_t n = gdb_regs_size();

	if (strlen(p) < 2 * n || !rsp_unhex(b, p, n)) {
		fail(g, EINVAL);
		return;
	}
	if (load_state(g, g->cpu_g)) {
		fail(g, EIO);
		return;
	}
	gdb_regs_write(g->state, b);
	if (store_state(g, g->cpu_g))
		fail(g, EIO);
	else
		ok(g);
}

static void read_reg(struct gdb *g, const char *p)
{
	uint8_t b[16];
	uint64_t n;
	size_t size;

	if (!rsp_number(&p, &n) || n >= gdb_reg_count() ||
	    load_state(g, g->cpu_g)) {
		fail(g, EINVAL);
		return;
	}
	size = gdb_reg_read(g->state, (unsigned)n, b);
	rsp_hex(g->scratch, b, size);
	rsp_reply(&g->rsp, g->scratch, 2 * size);
}

static void write_reg(struct gdb *g, const char *p)
{
	uint8_t b[16];
	uint64_t n;
	size_t size;

	if (!rsp_number(&p, &n) || n >= gdb_reg_count() || *p++ != '=' ||
	    load_state(g, g->cpu_g)) {
		fail(g, EINVAL);
		return;
	}
	size = gdb_reg_read(g->state, (unsigned)n, b);
	if (!rsp_unhex(b, p, size)) {
		fail(g, EINVAL);
		return;
	}
	gdb_reg_write(g->state, (unsigned)n, b);
	if (store_state(g, g->cpu_g))
		fail(g, EIO);
	else
		ok(g);
}

/* "ADDR,LEN" */
static bool range_arg(const char **p, uint64_t *at, uint64_t *len)
{
	if (!rsp_number(p, at) || **p != ',')
		return false;
	(*p)++;
	return rsp_number(p, len);
}

static void read_mem(struct gdb *g, const char *p)
{
	uint8_t *b = (uint8_t *)g->scratch + RSP_PACKET_MAX;
	uint64_t at, len;

	if (!range_arg(&p, &at, &len)) {
		fail(g, EINVAL);
		return;
	}
	len = min_of(len, (uint64_t)RSP_PACKET_MAX / 2);
	/* A shorter answer is allowed: as far as it is mapped. */
	while (len && !gdb_mem_read(g, at, b, len))
		len = len > 4096 ? len - 4096 : len / 2;
	if (!len) {
		fail(g, EFAULT);
		return;
	}
	rsp_hex(g->scratch, b, len);
	rsp_reply(&g->rsp, g->scratch, 2 * len);
}

static void write_mem(struct gdb *g, const char *p, const char *end,
		      bool binary)
{
	uint8_t *b = (uint8_t *)g->scratch;
	uint64_t at, len;

	if (!range_arg(&p, &at, &len) || *p++ != ':' || len > RSP_PACKET_MAX ||
	    (uint64_t)(end - p) < (binary ? len : 2 * len) ||
	    (!binary && !rsp_unhex(b, p, len))) {
		fail(g, EINVAL);
		return;
	}
	if (binary)
		memcpy(b, p, len);
	if (len && !gdb_mem_write(g, at, b, len))
		fail(g, EFAULT);
	else
		ok(g);
}

static void breakpoint(struct gdb *g, const char *p, bool insert)
{
	uint64_t type, at, len;
	int rc;

	if (!rsp_number(&p, &type) || *p++ != ',' ||
	    !range_arg(&p, &at, &len) || type > 4) {
		fail(g, EINVAL);
		return;
	}
	rc = insert ? gdb_break_insert(g, (unsigned)type, at, (unsigned)len)
		    : gdb_break_remove(g, (unsigned)type, at, (unsigned)len);
	if (rc == -ENOTSUP)
		rsp_text(&g->rsp, "%s", "");
	else if (rc < 0)
		fail(g, -rc);
	else
		ok(g);
}

/* ---- running ---- */

static void run_some(struct gdb *g, const bool *run)
{
	int rc = gdb_resume(g, run);

	if (rc < 0)
		fail(g, -rc);
}

/* c, s: all run; with s only the selected one, one instruction. */
static void simple_run(struct gdb *g, const char *p, bool step)
{
	bool run[GDB_MAX_CPUS];
	uint64_t at;

	if (*p && rsp_number(&p, &at)) {
		if (load_state(g, g->cpu_c)) {
			fail(g, EIO);
			return;
		}
		g->state->rip = at;
		store_state(g, g->cpu_c);
	}
	for (unsigned i = 0; i < g->ncpus; i++) {
		run[i] = !step || i == g->cpu_c;
		g->stepping[i] = step && i == g->cpu_c;
	}
	run_some(g, run);
}

/* vCont;ACTION[:THREAD]...: the leftmost action that fits a thread counts. */
static void vcont(struct gdb *g, const char *p)
{
	bool run[GDB_MAX_CPUS] = { false }, set[GDB_MAX_CPUS] = { false };
	bool any = false;

	memset(g->stepping, 0, sizeof(g->stepping));
	while (*p == ';') {
		char action = *++p;
		unsigned cpu = 0;
		bool all = true;
		uint64_t sig;

		if (!action)
			break;
		p++;
		if ((action == 'C' || action == 'S') && !rsp_number(&p, &sig))
			break;
		if (*p == ':') {
			p++;
			if (!thread_arg(g, &p, &cpu, &all)) {
				fail(g, EINVAL);
				return;
			}
		}
		for (unsigned i = 0; i < g->ncpus; i++) {
			if (set[i] || (!all && i != cpu))
				continue;
			set[i] = true;
			run[i] = strchr("cCsS", action);
			g->stepping[i] = action == 's' || action == 'S';
			any |= run[i];
		}
	}
	if (any)
		run_some(g, run);
	else
		fail(g, EINVAL);
}

/*
 * An INT3 that is not ours is the guest's: it gets its #BP, and the machine
 * runs on.
 */
static void reflect_int3(struct gdb *g, unsigned cpu)
{
	if (load_state(g, cpu))
		return;
	g->state->rip++;
	g->state->exception_injected = 1;
	g->state->exception_vector = 3;
	g->state->exception_has_error = 0;
	store_state(g, cpu);
}

static void reply_watch(struct gdb *g, unsigned cpu, const char *kind,
			uint64_t va)
{
	rsp_text(&g->rsp, "T%02xthread:%x;%s:%llx;", SIGTRAP_GDB, cpu + 1, kind,
		 (unsigned long long)va);
}

static void report_exit(struct gdb *g, unsigned cpu, const struct hv_exit *x)
{
	if (x->debug.software) {
		rsp_text(&g->rsp, "T%02xthread:%x;swbreak:;", SIGTRAP_GDB,
			 cpu + 1);
		return;
	}
	for (unsigned i = 0; i < GDB_HW_SLOTS; i++) {
		const struct gdb_hw_break *b = &g->hw[i];

		if (!b->used || !(x->debug.dr6 >> i & 1))
			continue;
		if (b->type == 0)
			rsp_text(&g->rsp, "T%02xthread:%x;hwbreak:;",
				 SIGTRAP_GDB, cpu + 1);
		else
			reply_watch(g, cpu, b->type == 1 ? "watch" : "awatch",
				    b->va);
		return;
	}
	rsp_text(&g->rsp, "T%02xthread:%x;", SIGTRAP_GDB, cpu + 1);
}

/*
 * All rest. One of the exits is reported; another that was not will come again
 * when its vCPU runs, for it did not move past its breakpoint.
 */
void gdb_report_stop(struct gdb *g)
{
	unsigned cpu = 0;
	struct hv_exit x = { 0 };
	bool found = false, run[GDB_MAX_CPUS];

	pthread_mutex_lock(&g->lock);
	for (unsigned i = 0; i < g->ncpus; i++) {
		if (g->has_exit[i] && !found) {
			cpu = i;
			x = g->exits[i];
			found = true;
		}
		g->has_exit[i] = false;
	}
	g->pending = false;
	pthread_mutex_unlock(&g->lock);
	if (g->fd < 0)
		return;
	if (found && x.debug.software && !gdb_break_soft_at(g, x.debug.rip)) {
		reflect_int3(g, cpu);
		for (unsigned i = 0; i < g->ncpus; i++)
			run[i] = true;
		if (!gdb_resume(g, run))
			return;
	}
	memset(g->stepping, 0, sizeof(g->stepping));
	if (found) {
		g->cpu_g = g->cpu_c = cpu;
		report_exit(g, cpu, &x);
	} else {
		rsp_text(&g->rsp, "T%02xthread:%x;", SIGINT_GDB, g->cpu_g + 1);
	}
}

void gdb_interrupt(struct gdb *g)
{
	if (g->stopped)
		return;
	if (gdb_stop(g) == 0)
		gdb_report_stop(g);
}

/* ---- queries ---- */

static void xfer_features(struct gdb *g, const char *p)
{
	uint64_t off, len;
	size_t size = strlen(gdb_target_xml), n;

	if (!starts(&p, "target.xml:") || !range_arg(&p, &off, &len)) {
		fail(g, 0);
		return;
	}
	if (off > size) {
		fail(g, EINVAL);
		return;
	}
	len = min_of(len, (uint64_t)RSP_PACKET_MAX / 2 - 1);
	n = min_of((size_t)len, size - (size_t)off);
	g->scratch[0] = off + n < size ? 'm' : 'l';
	memcpy(g->scratch + 1, gdb_target_xml + off, n);
	rsp_reply(&g->rsp, g->scratch, n + 1);
}

static void thread_list(struct gdb *g)
{
	size_t n = 0;

	for (unsigned i = 0; i < g->ncpus; i++)
		n += (size_t)sprintf(g->scratch + n, "%c%x", i ? ',' : 'm',
				     i + 1);
	rsp_reply(&g->rsp, g->scratch, n);
}

static void thread_info(struct gdb *g, const char *p)
{
	static const char *const what[] = {
		[HV_X86_RUNNABLE] = "running",
		[HV_X86_HALTED] = "halted",
		[HV_X86_WAIT_SIPI] = "waits for SIPI",
		[HV_X86_UNINITIALIZED] = "not started",
	};
	char text[64];
	unsigned cpu = 0;
	bool all;
	int n;

	if (!thread_arg(g, &p, &cpu, &all) || load_state(g, cpu)) {
		fail(g, EINVAL);
		return;
	}
	n = snprintf(text, sizeof(text), "vCPU %u, %s", cpu,
		     g->state->mp_state < array_size(what)
			     ? what[g->state->mp_state]
			     : "?");
	rsp_hex(g->scratch, text, (size_t)n);
	rsp_reply(&g->rsp, g->scratch, 2 * (size_t)n);
}

static void query(struct gdb *g, const char *p)
{
	if (starts(&p, "Supported"))
		rsp_text(&g->rsp,
			 "PacketSize=%x;qXfer:features:read+;swbreak+;"
			 "hwbreak+;vContSupported+;QStartNoAckMode+",
			 RSP_PACKET_MAX - 1);
	else if (starts(&p, "Xfer:features:read:"))
		xfer_features(g, p);
	else if (starts(&p, "fThreadInfo"))
		thread_list(g);
	else if (starts(&p, "sThreadInfo"))
		rsp_text(&g->rsp, "l");
	else if (starts(&p, "ThreadExtraInfo,"))
		thread_info(g, p);
	else if (!strcmp(p, "C"))
		rsp_text(&g->rsp, "QC%x", g->cpu_g + 1);
	else if (starts(&p, "Attached"))
		rsp_text(&g->rsp, "1");
	else
		rsp_text(&g->rsp, "%s", "");
}

static void select_thread(struct gdb *g, const char *p)
{
	unsigned *sel = *p == 'c' ? &g->cpu_c : &g->cpu_g, cpu = *sel;
	bool all;

	if (!*p++ || !thread_arg(g, &p, &cpu, &all)) {
		fail(g, EINVAL);
		return;
	}
	*sel = cpu;
	ok(g);
}

static void thread_alive(struct gdb *g, const char *p)
{
	uint64_t v;

	if (rsp_number(&p, &v) && v && v <= g->ncpus)
		ok(g);
	else
		fail(g, ESRCH);
}

static void detach(struct gdb *g)
{
	ok(g);
	gdb_drop_client(g);
}

static void v_packet(struct gdb *g, const char *p)
{
	if (starts(&p, "Cont?")) {
		rsp_text(&g->rsp, "vCont;c;C;s;S");
	} else if (starts(&p, "Cont")) {
		vcont(g, p);
	} else if (starts(&p, "Kill")) {
		ok(g);
		g->ops->kill(g->target);
	} else {
		rsp_text(&g->rsp, "%s", "");
	}
}

void gdb_command(struct gdb *g, char *p, size_t len)
{
	const char *end = p + len, *arg = p + 1;

	if (!len) {
		rsp_text(&g->rsp, "%s", "");
		return;
	}
	/* While it runs, only what needs no vCPU. */
	if (!g->stopped && !strchr("qQHT?", *p)) {
		fail(g, EBUSY);
		return;
	}
	switch (*p) {
	case '?':
		rsp_text(&g->rsp, "T%02xthread:%x;", SIGTRAP_GDB, g->cpu_g + 1);
		break;
	case 'g':
		read_regs(g);
		break;
	case 'G':
		write_regs(g, arg);
		break;
	case 'p':
		read_reg(g, arg);
		break;
	case 'P':
		write_reg(g, arg);
		break;
	case 'm':
		read_mem(g, arg);
		break;
	case 'M':
		write_mem(g, arg, end, false);
		break;
	case 'X':
		write_mem(g, arg, end, true);
		break;
	case 'Z':
		breakpoint(g, arg, true);
		break;
	case 'z':
		breakpoint(g, arg, false);
		break;
	case 'c':
		simple_run(g, arg, false);
		break;
	case 's':
		simple_run(g, arg, true);
		break;
	case 'v':
		v_packet(g, arg);
		break;
	case 'H':
		select_thread(g, arg);
		break;
	case 'T':
		thread_alive(g, arg);
		break;
	case 'q':
		query(g, arg);
		break;
	case 'Q':
		if (!strcmp(arg, "StartNoAckMode")) {
			ok(g);
			g->rsp.no_ack = true;
		} else {
			rsp_text(&g->rsp, "%s", "");
		}
		break;
	case 'D':
		detach(g);
		break;
	case 'k':
		g->ops->kill(g->target);
		break;
	default:
		rsp_text(&g->rsp, "%s", "");
	}
}
