/* The public face of the vsock device's host side. */
#include <errno.h>
#include <stdlib.h>

#include "lib/lib.h"
#include "virtio/vsock/vsock.h"
#include "vm/vm.h"

_Static_assert((int)ARCVMM_VSOCK_STREAM == VSOCK_STREAM &&
		       (int)ARCVMM_VSOCK_SEQPACKET == VSOCK_SEQPACKET,
	       "vsock types");

static struct vsock *core(struct arcvmm_vm *vm, struct err *e)
{
	struct vsock *v = vm_vsock(public_vm(vm));

	if (!v)
		err_set(e, -ENODEV, "this VM has no vsock device");
	return v;
}

int arcvmm_vsock_connect(struct arcvmm_vm *vm, uint32_t port,
			 enum arcvmm_vsock_type type, int timeout_ms,
			 struct arcvmm_error *error)
{
	struct err e = { 0 };
	struct vsock *v = core(vm, &e);
	int fd = v ? vsock_connect(v, port, (enum vsock_type)type, timeout_ms,
				   &e)
		   : -ENODEV;

	public_error(error, fd < 0 ? fd : 0, &e);
	return fd;
}

int arcvmm_vsock_listen(struct arcvmm_vm *vm, uint32_t port,
			enum arcvmm_vsock_type type, unsigned backlog,
			struct arcvmm_listener **out,
			struct arcvmm_error *error)
{
	struct err e = { 0 };
	struct vsock *v = core(vm, &e);
	int rc = -ENODEV;

	/* A listener is the core's own; only its name differs. */
	if (v)
		rc = vsock_listen(v, port, (enum vsock_type)type, backlog,
				  (struct vsock_listener **)(void *)out, &e);
	return public_error(error, rc, &e);
}

static struct vsock_listener *inner(const struct arcvmm_listener *l)
{
	return (struct vsock_listener *)(uintptr_t)l;
}

int arcvmm_listener_fd(const struct arcvmm_listener *l)
{
	return vsock_listener_fd(inner(l));
}

int arcvmm_listener_accept(struct arcvmm_listener *l, uint32_t *guest_port,
			   bool nonblock)
{
	return vsock_accept(inner(l), guest_port, nonblock);
}

void arcvmm_listener_close(struct arcvmm_listener *l)
{
	vsock_listener_close(inner(l));
}
