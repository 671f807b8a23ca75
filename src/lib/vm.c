/* The public VM: a vm with the configuration it was made from. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arcvmm/arcvmm.h"
#include "lib/config.h"
#include "lib/lib.h"
#include "machine/board.h"
#include "vm/doctor.h"
#include "vm/vm.h"

struct arcvmm_vm {
	struct vm_config config;
	struct vm *vm;
	arcvmm_log_fn *log_fn;
	void *log_ctx;
};

/* The public enums are the internal ones, by value. */
_Static_assert((int)ARCVMM_LOG_DEBUG == LOG_DEBUG, "log levels");
_Static_assert((int)ARCVMM_END_ERROR == VM_END_ERROR, "ends");
_Static_assert((int)ARCVMM_FINDING_PROBLEM == DOCTOR_PROBLEM, "findings");

const char *arcvmm_version(void)
{
	return ARCVMM_VERSION;
}

int public_error(struct arcvmm_error *to, int rc, const struct err *from)
{
	if (!to)
		return rc;
	to->code = rc;
	snprintf(to->text, sizeof(to->text), "%s",
		 rc ? *from->text ? from->text : strerror(-rc) : "");
	return rc;
}

struct vm *public_vm(struct arcvmm_vm *vm)
{
	return vm->vm;
}

static void forward_log(void *ctx, enum log_level level, const char *text)
{
	struct arcvmm_vm *vm = ctx;

	vm->log_fn(vm->log_ctx, (enum arcvmm_log_level)level, text);
}

int arcvmm_vm_create(struct arcvmm_vm **out, const struct arcvmm_config *c,
		     struct arcvmm_error *error)
{
	struct arcvmm_vm *vm = calloc(1, sizeof(*vm));
	struct err e = { 0 };
	int rc;

	if (!vm)
		return public_error(error, -ENOMEM, &e);
	rc = config_copy(&vm->config, c, &e);
	if (rc)
		goto fail;
	if (c->log_fn) {
		vm->log_fn = c->log_fn;
		vm->log_ctx = c->log_ctx;
		vm->config.log = (struct log){
			.sink = forward_log,
			.ctx = vm,
			.level = (enum log_level)c->log_level,
		};
	}
	rc = vm_create(&vm->vm, &vm->config, &e);
	if (rc)
		goto fail_config;
	*out = vm;
	return public_error(error, 0, &e);
fail_config:
	vm_config_free(&vm->config);
fail:
	free(vm);
	return public_error(error, rc, &e);
}

void arcvmm_vm_destroy(struct arcvmm_vm *vm)
{
	if (!vm)
		return;
	vm_destroy(vm->vm);
	vm_config_free(&vm->config);
	free(vm);
}

int arcvmm_vm_start(struct arcvmm_vm *vm, struct arcvmm_error *error)
{
	struct err e = { 0 };

	return public_error(error, vm_start(vm->vm, &e), &e);
}

const char *arcvmm_end_name(enum arcvmm_end end)
{
	static const char *const names[] = {
		[ARCVMM_END_POWER_OFF] = "power-off",
		[ARCVMM_END_REBOOT] = "reboot",
		[ARCVMM_END_PANIC] = "panic",
		[ARCVMM_END_CRASH] = "crash",
		[ARCVMM_END_KILLED] = "killed",
		[ARCVMM_END_ERROR] = "error",
	};

	return (unsigned)end < sizeof(names) / sizeof(*names) ? names[end]
							      : "unknown";
}

int arcvmm_vm_wait(struct arcvmm_vm *vm, struct arcvmm_result *res)
{
	struct vm_result r;
	int rc = vm_wait(vm->vm, &r);

	if (rc)
		return rc;
	res->end = (enum arcvmm_end)r.end;
	res->status = r.status;
	memcpy(res->text, r.text, sizeof(res->text));
	return 0;
}

int arcvmm_vm_fd(struct arcvmm_vm *vm)
{
	return vm_fd(vm->vm);
}

int arcvmm_vm_shutdown(struct arcvmm_vm *vm)
{
	return vm_shutdown(vm->vm);
}

void arcvmm_vm_kill(struct arcvmm_vm *vm)
{
	vm_kill(vm->vm);
}

int arcvmm_vm_pause(struct arcvmm_vm *vm)
{
	return vm_pause(vm->vm);
}

int arcvmm_vm_resume(struct arcvmm_vm *vm)
{
	return vm_resume(vm->vm);
}

const char *arcvmm_vm_engine(const struct arcvmm_vm *vm)
{
	return vm_engine(vm->vm);
}

const char *arcvmm_vm_engine_reason(const struct arcvmm_vm *vm)
{
	return vm_engine_reason(vm->vm);
}

const char *arcvmm_vm_cmdline(const struct arcvmm_vm *vm)
{
	return vm_cmdline(vm->vm);
}

void arcvmm_vm_console_resize(struct arcvmm_vm *vm, unsigned cols,
			      unsigned rows)
{
	vm_console_resize(vm->vm, cols, rows);
}

const char *arcvmm_vm_console_pty(const struct arcvmm_vm *vm)
{
	return vm_console_pty(vm->vm);
}

int arcvmm_vm_milestone(struct arcvmm_vm *vm, unsigned i,
			struct arcvmm_milestone *out)
{
	return vm_milestone(vm->vm, i, &out->name, &out->ns);
}

char *arcvmm_vm_stats(struct arcvmm_vm *vm)
{
	return vm_stats(vm->vm);
}

struct finding_forward {
	arcvmm_finding_fn *fn;
	void *ctx;
	int problems;
};

static void forward_finding(void *ctx, const struct doctor_finding *f)
{
	struct finding_forward *fw = ctx;

	fw->problems += f->level == DOCTOR_PROBLEM;
	fw->fn(fw->ctx, (enum arcvmm_finding_kind)f->level, f->subject, f->text,
	       f->advice);
}

int arcvmm_doctor(arcvmm_finding_fn *fn, void *ctx)
{
	struct finding_forward fw = { fn, ctx, 0 };

	doctor_run(forward_finding, &fw);
	return fw.problems;
}

const char *arcvmm_cmdline_word(unsigned i, const char **why)
{
	const struct board_word *w = board_default_word(i);

	if (!w)
		return NULL;
	*why = w->why;
	return w->word;
}
