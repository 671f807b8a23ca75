/*
 * Instruction trace: every instruction of every vCPU as a line in a file.
 *
 *	0 ffffffff8304ee41 e8ea841ffe rsp=ffffffff82a03f50 fl=00000046
 *
 * vCPU, address and bytes of the instruction about to run, and the registers
 * that changed since the line before. It steps by the engine's debugging, so
 * both engines can do it; at some microseconds per instruction it is for
 * finding a fault, not for whole boots: `start` waits for an address (a hardware
 * breakpoint) and `count` bounds the lines. The last line is where a guest that
 * crashed was.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/opt.h"
#include "vm/internal.h"

#define DR7_EXECUTE_0 0x402ull /* slot 0, global, instruction */

/* What one vCPU's last line said. */
struct trace_cpu {
	struct hv_x86_vcpu_state *state; /* scratch */
	uint64_t gpr[16], rflags;
};

struct trace {
	FILE *file;
	pthread_mutex_t lock; /* lines and @left */
	uint64_t left;
	struct trace_cpu cpu[BOARD_CPUS_MAX];
};

struct trace_options {
	char *path;
	char *start;
	uint64_t count;
};

static const struct opt_desc options[] = {
	OPT_STR(struct trace_options, path, "file", "FILE", "where to"),
	OPT_STR(struct trace_options, start, "start", "ADDRESS",
		"begin when this address is reached"),
	OPT_UINT(struct trace_options, count, "count", 1, UINT64_MAX,
		 "at most so many lines"),
	{ 0 },
};

static int set_stepping(struct hv_vcpu *cpu, bool on)
{
	struct hv_debug d = { .enabled = on, .single_step = on, .dr7 = 0x400 };

	return hv_vcpu_set_debug(cpu, &d);
}

static int wait_for(struct hv_vcpu *cpu, uint64_t start)
{
	struct hv_debug d = { .enabled = true,
			      .hardware = true,
			      .dr = { start },
			      .dr7 = DR7_EXECUTE_0 };

	return hv_vcpu_set_debug(cpu, &d);
}

static int trace_begin(struct vm *vm, const struct trace_options *o,
		       struct err *e)
{
	uint64_t start = 0;
	char *end = NULL;
	int rc = 0;

	if (o->start) {
		start = strtoull(o->start, &end, 16);
		if (end == o->start || *end)
			return err_set(e, -EINVAL,
				       "trace: %s is no address (hexadecimal)",
				       o->start);
	}
	for (unsigned i = 0; !rc && i < vm->ncpus; i++) {
		struct hv_vcpu *cpu = vm->cpus[i].hv;

		vm->trace->cpu[i].state =
			aligned_alloc(64, sizeof(struct hv_x86_vcpu_state));
		if (!vm->trace->cpu[i].state)
			return err_set(e, -ENOMEM, "out of memory");
		rc = o->start ? wait_for(cpu, start) : set_stepping(cpu, true);
	}
	if (rc < 0)
		err_set(e, rc, "trace: the %s engine cannot step here",
			vm_engine(vm));
	return rc;
}

int trace_open(struct vm *vm, struct err *e)
{
	struct trace_options o = { .count = 1000000 };
	int rc;

	if (!vm->config->trace)
		return 0;
	if (vm->config->gdb)
		return err_set(e, -EINVAL, "either trace or gdb, not both");
	rc = opt_parse(options, &o, vm->config->trace, e);
	if (!rc && !o.path)
		rc = err_set(e, -EINVAL, "trace: which file?");
	if (rc)
		goto out;
	vm->trace = calloc(1, sizeof(*vm->trace));
	if (!vm->trace) {
		rc = err_set(e, -ENOMEM, "out of memory");
		goto out;
	}
	pthread_mutex_init(&vm->trace->lock, NULL);
	vm->trace->left = o.count;
	vm->trace->file = fopen(o.path, "we");
	if (!vm->trace->file)
		rc = err_set(e, -errno, "trace: %s: %s", o.path,
			     strerror(errno));
	else
		rc = trace_begin(vm, &o, e);
out:
	opt_free(options, &o);
	return rc;
}

void trace_close(struct vm *vm)
{
	struct trace *t = vm->trace;

	if (!t)
		return;
	if (t->file)
		fclose(t->file);
	for (unsigned i = 0; i < array_size(t->cpu); i++)
		free(t->cpu[i].state);
	pthread_mutex_destroy(&t->lock);
	free(t);
	vm->trace = NULL;
}

/* The bytes at RIP as far as they are mapped, in @hex. */
static void code_bytes(struct vm_cpu *cpu, uint64_t at, char *hex)
{
	uint8_t b[15];
	size_t n = 0;

	while (n < sizeof(b)) {
		size_t part = min_of(sizeof(b) - n,
				     (size_t)(4096 - ((at + n) & 4095)));
		gpa_t pa;

		if (hv_vcpu_translate(cpu->hv, at + n, &pa) ||
		    gmem_read(cpu->vm->mem, pa, b + n, part))
			break;
		n += part;
	}
	for (size_t i = 0; i < n; i++)
		sprintf(hex + 2 * i, "%02x", b[i]);
	hex[2 * n] = 0;
}

static void write_line(struct vm_cpu *cpu, struct trace_cpu *tc)
{
	static const char *const names[16] = {
		"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
		"r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15",
	};
	const struct hv_x86_vcpu_state *s = tc->state;
	FILE *f = cpu->vm->trace->file;
	char hex[31];

	code_bytes(cpu, s->seg[X86_CS].base + s->rip, hex);
	fprintf(f, "%u %016" PRIx64 " %s", cpu->hv->index, s->rip, hex);
	for (unsigned r = 0; r < 16; r++)
		if (s->gpr[r] != tc->gpr[r])
			fprintf(f, " %s=%" PRIx64, names[r], s->gpr[r]);
	if (s->rflags != tc->rflags)
		fprintf(f, " fl=%08" PRIx64, s->rflags);
	fputc('\n', f);
	memcpy(tc->gpr, s->gpr, sizeof(tc->gpr));
	tc->rflags = s->rflags;
}

void trace_step(struct vm_cpu *cpu)
{
	struct trace *t = cpu->vm->trace;
	struct trace_cpu *tc = &t->cpu[cpu->hv->index];
	bool more;

	if (hv_vcpu_get_state(cpu->hv, tc->state))
		return;
	pthread_mutex_lock(&t->lock);
	if (t->left)
		write_line(cpu, tc);
	more = t->left > 1;
	t->left -= t->left > 0;
	if (!more)
		fflush(t->file);
	pthread_mutex_unlock(&t->lock);
	set_stepping(cpu->hv, more);
}
