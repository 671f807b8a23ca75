/*
 * The line to the guest's init: the console port INITRAMFS_STATUS_PORT.
 *
 * In: lines "event NS text", NS being the guest's CLOCK_BOOTTIME
 * (docs/agent.md). A line may have waited for the port, so the difference of
 * the two clocks is the smallest one seen so far, and milestones that came with
 * a worse one are put right. Every byte is the guest's, so a hostile one can only lie
 * about itself: unknown events, long lines and wrong numbers are dropped. Out:
 * "stop" asks init to end the command and power off; "ack" answers the line
 * after which init waits before it powers off, so that the line is not lost.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/stream.h"
#include "base/bug.h"
#include "base/clock.h"
#include "vm/internal.h"

/* Milestones it may report, so that a guest cannot invent names. */
static const char *const milestones[] = { "init",    "modules", "root",
					  "command", "exit",	"poweroff",
					  "reboot" };

static void send(struct vm *vm, const char *order)
{
	struct vm_status_port *p = &vm->status_port;
	size_t len = strlen(order);

	/* A guest that does not read loses orders, not our memory. */
	if (len > sizeof(p->out) - p->out_len)
		return;
	memcpy(p->out + p->out_len, order, len);
	p->out_len += len;
	stream_host_ready(p->stream);
}

/* Milestone @name at guest time @guest_ns. */
static void milestone(struct vm *vm, const char *name, uint64_t guest_ns)
{
	struct vm_status_port *p = &vm->status_port;
	uint64_t start = clock_ns() - guest_ns; /* of the guest's clock */

	if (guest_ns > clock_ns())
		return; /* it lies */
	if (!p->nmarks || start < p->guest_start)
		p->guest_start = start;
	if (p->nmarks < array_size(p->marks)) {
		p->marks[p->nmarks].entry = timeline_mark(&vm->timeline, name);
		p->marks[p->nmarks++].guest_ns = guest_ns;
	}
	for (unsigned i = 0; i < p->nmarks; i++)
		if (p->marks[i].entry)
			atomic_store(&p->marks[i].entry->ns,
				     p->guest_start + p->marks[i].guest_ns);
}

static void agent_is_up(struct vm *vm)
{
	uint64_t one = 1;

	pthread_mutex_lock(&vm->lock);
	if (!vm->agent_up && write(vm->agent_fd, &one, sizeof(one)) < 0)
		log_warn(&vm->log, "agent: eventfd: %s", strerror(errno));
	vm->agent_up = true;
	pthread_cond_broadcast(&vm->changed);
	pthread_mutex_unlock(&vm->lock);
}

static void status_line(struct vm *vm, char *line)
{
	char *save = NULL;
	char *event = strtok_r(line, " ", &save);
	char *ns = strtok_r(NULL, " ", &save);
	const char *text = save;
	bool last;

	if (!event || !ns)
		return;
	for (unsigned i = 0; i < array_size(milestones); i++)
		if (!strcmp(event, milestones[i]))
			milestone(vm, milestones[i], strtoull(ns, NULL, 10));
	last = !strcmp(event, "poweroff") || !strcmp(event, "reboot");
	if (!strcmp(event, "exit")) {
		char *end;
		long n = strtol(text, &end, 10);

		if (end != text && n >= 0 && n <= 255) {
			pthread_mutex_lock(&vm->lock);
			vm->status = (int)n;
			pthread_mutex_unlock(&vm->lock);
		}
	} else if (!strcmp(event, "agent")) {
		agent_is_up(vm);
	} else if (!strcmp(event, "error")) {
		pthread_mutex_lock(&vm->lock);
		snprintf(vm->guest_error, sizeof(vm->guest_error), "%s", text);
		pthread_mutex_unlock(&vm->lock);
		log_info(&vm->log, "guest init: %s", text);
	}
	if (last)
		send(vm, "ack\n");
}

static void take_byte(struct vm *vm, uint8_t byte)
{
	struct vm_status_port *p = &vm->status_port;

	if (byte == '\n') {
		if (p->len < sizeof(p->line)) {
			p->line[p->len] = 0;
			status_line(vm, p->line);
		}
		p->len = 0;
		return;
	}
	/* Anything unprintable could upset a terminal. */
	if (byte < 0x20 || byte > 0x7e)
		byte = '?';
	if (p->len < sizeof(p->line)) /* a line that fills it is dropped */
		p->line[p->len++] = (char)byte;
}

static size_t status_write(void *ctx, const struct iovec *iov, int n)
{
	size_t len = 0;

	for (int i = 0; i < n; i++) {
		for (size_t j = 0; j < iov[i].iov_len; j++)
			take_byte(ctx, ((const uint8_t *)iov[i].iov_base)[j]);
		len += iov[i].iov_len;
	}
	return len;
}

static size_t status_read(void *ctx, const struct iovec *iov, int n)
{
	struct vm *vm = ctx;
	struct vm_status_port *p = &vm->status_port;
	size_t given = 0;

	for (int i = 0; i < n && p->out_len; i++) {
		size_t step = min_of(iov[i].iov_len, p->out_len);

		memcpy(iov[i].iov_base, p->out, step);
		p->out_len -= step;
		memmove(p->out, p->out + step, p->out_len);
		given += step;
	}
	return given;
}

int status_open(struct vm *vm, struct err *e)
{
	struct stream_host host = {
		.write = status_write,
		.read = status_read,
		.ctx = vm,
	};

	return stream_open_host(&vm->status_port.stream, vm->loop, &host, e);
}

void status_stop(struct vm *vm)
{
	bug_on(!loop_owned(vm->loop));
	send(vm, "stop\n");
}
