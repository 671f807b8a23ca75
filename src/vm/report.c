/*
 * Last words for a guest that never got as far as its console: the end of its
 * kernel log, out of its memory.
 */
#include "vm/internal.h"

#include "machine/klog.h"
#include "virtio/virtio.h"

#define LAST_WORDS 40

static void say(void *ctx, const char *text)
{
	struct vm *vm = ctx;

	log_warn(&vm->log, "guest: %s", text);
}

/* The guest's console driver is at work: what there was to say is said. */
static bool console_up(const struct vm *vm)
{
	return vm->console && vm->console->run == VIRTIO_ACTIVE;
}

void vm_report_silent_end(struct vm *vm)
{
	bool died = vm->result.end == VM_END_PANIC ||
		    vm->result.end == VM_END_CRASH;
	/* Somebody lost patience with a guest that should have a console. */
	bool hung = vm->result.end == VM_END_KILLED && vm->console;

	if (!(died || hung) || console_up(vm) || vm->config->uart)
		return;
	if (!klog_read(vm->mem, LAST_WORDS, say, vm))
		log_warn(&vm->log,
			 "the guest had no console yet and left no kernel log; "
			 "--uart --cmdline console=ttyS0 --boot-messages shows "
			 "its first words");
}
