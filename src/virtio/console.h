/*
 * The console device, beyond what its option string can say: ports made by the
 * VM, and the size of the terminal.
 *
 * Port 0 is the system console (hvc0); the others are named character devices
 * (/dev/virtio-ports/<name>).
 */
#ifndef ARC_VIRTIO_CONSOLE_H
#define ARC_VIRTIO_CONSOLE_H

#include <stdbool.h>

#include "virtio/virtio.h"

struct stream;

#define VIRTIO_CONSOLE_PORTS_MAX 16
#define VIRTIO_CONSOLE_NAME_MAX	 64

struct virtio_console_port {
	const char *name; /* NULL: none; copied */
	bool console; /* an hvc terminal too, not only a character device */
	struct stream
		*stream; /* the device's from create() on, success or not */
	/*
	 * The guest opened (closed) the port. May be NULL. Under the loop's
	 * lock.
	 */
	void (*guest_open)(void *ctx, bool open);
	void *ctx;
};

/*
 * virtio_env.host of the console: ports after port 0, and port 0's stream when
 * the option string does not say it. All NULL or 0: port 0 alone, "off".
 */
struct virtio_console_host {
	struct stream *console;
	const struct virtio_console_port *ports;
	unsigned nports; /* < VIRTIO_CONSOLE_PORTS_MAX */
};

/* Port @port's terminal has this size now. Under the loop's lock. */
void virtio_console_resize(struct virtio_dev *d, unsigned port, unsigned cols,
			   unsigned rows);

/* Port @port's stream; NULL when there is none. */
struct stream *virtio_console_stream(struct virtio_dev *d, unsigned port);

#endif
