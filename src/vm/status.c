/*
 * What the guest's init reports, on the console port INITRAMFS_STATUS_PORT:
 * lines of text, "word" or "word value" (docs/agent.md). Every byte is the
 * guest's, so a hostile one can only lie about itself: unknown words, long
 * lines and wrong numbers are dropped.
 */
#include <stdlib.h>
#include <string.h>

#include "vm/internal.h"

/* Milestones it may report, so that a guest cannot invent names. */
static const char *const milestones[] = { "init",    "modules", "root",
					  "command", "exit",	"power-off" };

static void status_line(struct vm *vm, char *line)
{
	char *value = strchr(line, ' ');

	if (value)
		*value++ = 0;
	for (unsigned i = 0; i < array_size(milestones); i++)
		if (!strcmp(line, milestones[i]))
			timeline_mark(&vm->timeline, milestones[i]);
	if (!strcmp(line, "exit") && value) {
		char *end;
		long n = strtol(value, &end, 10);

		if (end == value || n < 0 || n > 255)
			return;
		pthread_mutex_lock(&vm->lock);
		vm->status = (int)n;
		pthread_mutex_unlock(&vm->lock);
	} else if (!strcmp(line, "error") && value) {
		log_warn(&vm->log, "guest init: %s", value);
	}
}

void status_input(struct vm *vm, const uint8_t *buf, size_t len)
{
	struct vm_status_port *p = &vm->status_port;

	for (size_t i = 0; i < len; i++) {
		if (buf[i] != '\n') {
			/* Anything unprintable could upset a terminal. */
			if (p->len < sizeof(p->line))
				p->line[p->len] = buf[i] < 0x20 || buf[i] > 0x7e
							  ? '?'
							  : (char)buf[i];
			if (p->len <= sizeof(p->line))
				p->len++;
			continue;
		}
		if (p->len < sizeof(p->line)) {
			p->line[p->len] = 0;
			status_line(vm, p->line);
		}
		p->len = 0;
	}
}
