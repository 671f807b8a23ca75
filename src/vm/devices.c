/*
 * The virtio devices of a VM: made from the configuration, given a slot on the
 * board, attached to the engine, drained and torn down.
 *
 * Every device belongs to the VM's loop, but for types that ask for a loop of
 * their own (virtio_dev_type.loop_name). Teardown happens with no vCPU and no
 * loop thread running: loops are turned by hand until each device is quiet.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/stream.h"
#include "base/bug.h"
#include "base/clock.h"
#include "machine/initramfs.h"
#include "virtio/console.h"
#include "virtio/vsock/vsock.h"
#include "vm/internal.h"

/* What makes the disk given by --root known to the guest's init. */
#define ROOT_SERIAL "arcvmm-root"

/* A console whose reader has gone to sleep may hold up the end this long. */
#define DRAIN_STALL_NS (5 * NSEC_PER_SEC)
#define CONSOLE_TX     1 /* queue of port 0's output (virtio 1.2, 5.3.2) */

static struct loop *device_loop(const struct vm *vm, const struct vm_device *d)
{
	return d->own_loop ? d->own_loop : vm->loop;
}

/* ---- create ---- */

/* How many there are of @type already: the number in "blk0". */
static unsigned count_type(const struct vm *vm,
			   const struct virtio_dev_type *type)
{
	unsigned n = 0;

	for (unsigned i = 0; i < vm->ndevices; i++)
		n += vm->devices[i].type == type;
	return n;
}

static int add_device(struct vm *vm, const char *type_name, const char *options,
		      const void *host, struct virtio_dev **out, struct err *e)
{
	const struct virtio_dev_type *t = virtio_dev_type_by_name(type_name);
	struct vm_device *d = &vm->devices[vm->ndevices];
	char name[32];
	struct virtio_env env = {
		.mem = vm->mem,
		.log = &vm->log,
		.name = name,
		.host = host,
	};
	int rc;

	bug_on(!t);
	if (vm->ndevices == VM_DEVICES_MAX)
		return err_set(e, -ENOSPC, "more than %d devices",
			       VM_DEVICES_MAX);
	snprintf(name, sizeof(name), "%s%u", t->name, count_type(vm, t));
	*d = (struct vm_device){ .type = t };
	if (t->loop_name) {
		rc = loop_create(&d->own_loop, &vm->log);
		if (rc)
			return err_set(e, rc, "%s: event loop: %s", name,
				       strerror(-rc));
	}
	env.loop = device_loop(vm, d);
	vm->ndevices++; /* from here devices_destroy() undoes */
	rc = virtio_dev_create(t, &env, options, &d->dev, e);
	if (rc)
		return rc;
	rc = virtio_mmio_create(d->dev, &d->mmio);
	if (rc)
		return err_set(e, rc, "%s: %s", name, strerror(-rc));
	if (out)
		*out = d->dev;
	return board_add_slot(vm->board, &d->slot, e);
}

/* Does the console's option string begin with the word @where? */
static bool console_is(const char *options, const char *where)
{
	size_t n = strlen(where);

	return !strncmp(options, where, n) && strchr(",", options[n]);
}

static int add_console(struct vm *vm, struct err *e)
{
	const struct vm_config *c = vm->config;
	const char *options = c->console ? c->console : "stdio";
	struct virtio_console_port port = { .name = INITRAMFS_STATUS_PORT };
	struct virtio_console_host host = { .ports = &port, .nports = 1 };
	int rc = 0;

	if (console_is(options, "stdio")) {
		options += strcspn(options, ",");
		options += *options == ',';
		rc = stream_open_fds(&host.console, vm->loop, c->console_in,
				     c->console_out, e);
	}
	if (rc)
		return err_prefix(e, rc, "console");
	rc = status_open(vm, e);
	if (rc) {
		stream_close(host.console);
		return rc;
	}
	port.stream = vm->status_port.stream;
	/* From here the streams are the device's, success or not. */
	rc = add_device(vm, "console", options, &host, &vm->console, e);
	return rc ? err_prefix(e, rc, "console") : 0;
}

/* "path" with the commas of an option value doubled. */
static char *escape_commas(const char *path)
{
	char *out = malloc(2 * strlen(path) + 1), *p = out;

	if (!out)
		return NULL;
	for (; *path; path++) {
		if (*path == ',')
			*p++ = ',';
		*p++ = *path;
	}
	*p = 0;
	return out;
}

/* A root that is an image becomes the first disk. */
static int add_root_disk(struct vm *vm, struct err *e)
{
	const struct vm_config *c = vm->config;
	enum initramfs_root kind;
	char *path, *options;
	int rc;

	if (!c->root)
		return 0;
	rc = initramfs_root_kind(c->root, &kind, e);
	if (rc || kind != INITRAMFS_ROOT_IMAGE)
		return rc;
	path = escape_commas(c->root);
	if (!path ||
	    asprintf(&options, "path=%s,serial=%s%s", path, ROOT_SERIAL,
		     c->root_readonly || c->root_overlay ? ",readonly" : "") <
		    0) {
		free(path);
		return err_set(e, -ENOMEM, "out of memory");
	}
	snprintf(vm->root_serial, sizeof(vm->root_serial), "%s", ROOT_SERIAL);
	rc = add_device(vm, "blk", options, NULL, NULL, e);
	free(options);
	free(path);
	return rc ? err_prefix(e, rc, "root") : 0;
}

static int add_vsock(struct vm *vm, struct err *e)
{
	const struct vm_config *c = vm->config;
	char *uds = escape_commas(c->vsock_uds ? c->vsock_uds : "");
	char *options = NULL;
	int rc;

	if (!uds || asprintf(&options, "cid=%llu,hairpin=%s%s%s",
			     (unsigned long long)c->cid,
			     c->vsock_hairpin ? "on" : "off",
			     *uds ? ",uds=" : "", uds) < 0) {
		free(uds);
		return err_set(e, -ENOMEM, "out of memory");
	}
	rc = add_device(vm, "vsock", options, NULL, &vm->vsock, e);
	free(options);
	free(uds);
	return rc;
}

int devices_create(struct vm *vm, struct err *e)
{
	const struct vm_config *c = vm->config;
	int rc = add_console(vm, e);

	if (!rc)
		rc = add_root_disk(vm, e);
	if (!rc && c->rng)
		rc = add_device(vm, "rng", c->rng_options, NULL, NULL, e);
	if (!rc && c->vsock)
		rc = add_vsock(vm, e);
	for (size_t i = 0; !rc && i < c->ndevices; i++)
		rc = add_device(vm, c->devices[i].type, c->devices[i].options,
				NULL, NULL, e);
	return rc;
}

/* ---- attach and start ---- */

/*
 * Once the run is over, what the kernel keeps goes with the VM. Taken away one
 * by one, each doorbell waits for a grace period of some milliseconds, so that
 * the end of a VM would take longer than its start.
 */
static bool left_to_destroy(const struct vm *vm, unsigned cap)
{
	return vm->reaped && vm->hv->caps & cap;
}

static int engine_ioeventfd(void *ctx, const struct bus_ioeventfd *io, bool add)
{
	struct vm *vm = ctx;

	if (!add && left_to_destroy(vm, HV_CAP_IOEVENTFD))
		return 0;
	return hv_ioeventfd(vm->hv, io, add);
}

static int engine_irqfd(void *ctx, unsigned gsi, int fd, bool add)
{
	struct vm *vm = ctx;

	if (!add && left_to_destroy(vm, HV_CAP_IRQFD))
		return 0;
	return hv_irqfd(vm->hv, gsi, fd, add);
}

/* Edges on a line do not meet: see virtio/mmio.h. */
static void engine_pulse(void *ctx, unsigned gsi)
{
	struct vm *vm = ctx;

	hv_irq_line(vm->hv, gsi, true);
	hv_irq_line(vm->hv, gsi, false);
}

int devices_attach(struct vm *vm, struct err *e)
{
	bool irqfd = vm->hv->caps & HV_CAP_IRQFD;
	struct virtio_mmio_host host = {
		.bus = vm->bus,
		.ctx = vm,
		.ioeventfd = engine_ioeventfd,
		.irqfd = engine_irqfd,
		.pulse = irqfd ? NULL : engine_pulse,
	};

	for (unsigned i = 0; i < vm->ndevices; i++) {
		struct vm_device *d = &vm->devices[i];
		int rc = virtio_mmio_attach(d->mmio, &host, d->slot.base,
					    d->slot.gsi, e);

		if (rc)
			return rc;
	}
	return 0;
}

int devices_start(struct vm *vm, struct err *e)
{
	for (unsigned i = 0; i < vm->ndevices; i++) {
		struct vm_device *d = &vm->devices[i];
		int rc;

		if (!d->own_loop)
			continue;
		rc = loop_start_thread(d->own_loop, d->type->loop_name);
		if (rc)
			return err_set(e, rc, "thread of %s: %s",
				       d->type->loop_name, strerror(-rc));
	}
	return 0;
}

/* ---- the end ---- */

static void stop_loops(struct vm *vm)
{
	for (unsigned i = 0; i < vm->ndevices; i++)
		if (vm->devices[i].own_loop)
			loop_stop_thread(vm->devices[i].own_loop);
	loop_stop_thread(vm->loop);
}

/* Output the guest has handed over and the host has not taken yet. */
static unsigned console_backlog(struct vm *vm)
{
	struct virtqueue *vq;

	if (!vm->console || vm->console->run != VIRTIO_ACTIVE)
		return 0;
	vq = virtio_vq(vm->console, CONSOLE_TX);
	return vq_pending(vq) + vq->in_flight;
}

/* Who waits for the guest hears that it is gone. */
static void close_vsock(struct vm *vm)
{
	if (!vm->vsock)
		return;
	loop_lock(vm->vsock->loop);
	vsock_close_host(virtio_vsock_core(vm->vsock));
	loop_unlock(vm->vsock->loop);
}

void devices_drain(struct vm *vm)
{
	uint64_t progress = clock_ns();
	unsigned left, before = 0;

	close_vsock(vm);
	stop_loops(vm);
	while (loop_turn(vm->loop, 0) > 0)
		;
	while ((left = console_backlog(vm))) {
		if (left != before)
			progress = clock_ns();
		else if (clock_ns() - progress > DRAIN_STALL_NS)
			break;
		before = left;
		loop_turn(vm->loop, 100);
	}
	if (left)
		log_warn(&vm->log, "console: nobody reads the output; the end "
				   "of it is lost");
}

static void note_quiet(void *ctx)
{
	*(bool *)ctx = true;
}

/* In-flight I/O of the host completes by itself, so this ends. */
static void quiesce(struct vm *vm, struct vm_device *d)
{
	struct loop *l = device_loop(vm, d);
	bool quiet = false;

	loop_lock(l);
	virtio_dev_quiesce(d->dev, note_quiet, &quiet);
	loop_unlock(l);
	while (!quiet)
		loop_turn(l, -1);
}

void devices_destroy(struct vm *vm)
{
	if (vm->loop)
		stop_loops(vm);
	while (vm->ndevices) {
		struct vm_device *d = &vm->devices[--vm->ndevices];

		if (d->dev)
			quiesce(vm, d);
		if (d->mmio && virtio_mmio_base(d->mmio))
			virtio_mmio_detach(d->mmio);
		virtio_mmio_destroy(d->mmio);
		virtio_dev_destroy(d->dev);
		loop_destroy(d->own_loop);
	}
	vm->console = vm->vsock = NULL;
}

/* ---- the console from outside ---- */

void devices_uart_tx(void *ctx, const uint8_t *buf, size_t len)
{
	struct vm *vm = ctx;
	struct stream *s =
		vm->console ? virtio_console_stream(vm->console, 0) : NULL;
	struct iovec iov = { .iov_base = (void *)(uintptr_t)buf,
			     .iov_len = len };

	/* The UART has no way to wait: what does not fit is lost. */
	if (s)
		stream_writev(s, &iov, 1);
}

void vm_console_resize(struct vm *vm, unsigned cols, unsigned rows)
{
	if (!vm->console)
		return;
	loop_lock(vm->loop);
	virtio_console_resize(vm->console, 0, cols, rows);
	loop_unlock(vm->loop);
}

const char *vm_console_pty(const struct vm *vm)
{
	const char *options = vm->config->console;

	if (!options || !console_is(options, "pty"))
		return NULL;
	return stream_path(virtio_console_stream(vm->console, 0));
}

struct vsock *vm_vsock(const struct vm *vm)
{
	return vm->vsock ? virtio_vsock_core(vm->vsock) : NULL;
}
