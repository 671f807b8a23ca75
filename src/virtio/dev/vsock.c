/*
 * The socket device (virtio 1.2, 5.10): the core of src/virtio/vsock behind the
 * virtio device table. It has a loop of its own, the worker "vsock-io".
 */
#include "virtio/vsock/vsock.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/opt.h"
#include "base/util.h"
#include "snap/snap.h"
#include "virtio/virtio.h"

extern const struct virtio_dev_type virtio_dev_vsock;

/* Linux fills the rx queue with 3,776-byte buffers and keeps it so. */
#define QUEUE_SIZE	 256
#define EVENT_QUEUE_SIZE 16

struct vsock_options {
	uint64_t cid;
	char *uds;
	bool hairpin;
};

struct vsock_dev {
	struct virtio_dev dev;
	struct vsock *core;
	struct vsock_port port;
	uint64_t guest_cid; /* the config space, little-endian */
};

static struct vsock_dev *to_vsock(struct virtio_dev *d)
{
	return container_of(d, struct vsock_dev, dev);
}

struct vsock *virtio_vsock_core(struct virtio_dev *d)
{
	return d->type == &virtio_dev_vsock ? to_vsock(d)->core : NULL;
}

static void port_interrupt(struct vsock_port *p, unsigned q)
{
	virtio_interrupt(&container_of(p, struct vsock_dev, port)->dev, q);
}

static void port_fail(struct vsock_port *p, const char *why)
{
	virtio_fail(&container_of(p, struct vsock_dev, port)->dev, "%s", why);
}

static void dev_resume(struct virtio_dev *d)
{
	struct vsock_dev *s = to_vsock(d);

	vsock_start(s->core, &s->port, virtio_vq(d, VSOCK_Q_RX),
		    virtio_vq(d, VSOCK_Q_TX), virtio_vq(d, VSOCK_Q_EVENT),
		    d->driver_features);
}

static int dev_activate(struct virtio_dev *d)
{
	dev_resume(d);
	return 0;
}

static void dev_notify(struct virtio_dev *d, unsigned q)
{
	vsock_notify(to_vsock(d)->core, q);
}

static void dev_quiesce(struct virtio_dev *d)
{
	vsock_pause(to_vsock(d)->core);
	virtio_quiet(d);
}

static void dev_reset(struct virtio_dev *d)
{
	vsock_stop(to_vsock(d)->core);
}

static void dev_save(struct virtio_dev *d, struct snap_writer *w)
{
	snap_u64(w, vsock_guest_cid(to_vsock(d)->core));
}

/*
 * Connections do not travel: their other ends are processes of the host that
 * was. The guest is told so. Its CID may differ from the one it was saved with,
 * which it reads again after the event.
 */
static int dev_restore(struct virtio_dev *d, struct snap_body *b, struct err *e)
{
	(void)e;
	snap_get_u64(b);
	vsock_restored(to_vsock(d)->core);
	return 0;
}

static int dev_create(const struct virtio_env *env, const void *options,
		      struct virtio_dev **out, struct err *e)
{
	static const uint16_t sizes[] = { QUEUE_SIZE, QUEUE_SIZE,
					  EVENT_QUEUE_SIZE };
	const struct vsock_options *o = options;
	struct vsock_config c = {
		.guest_cid = o->cid,
		.uds_path = o->uds,
		.hairpin = o->hairpin,
		.log = env->log,
	};
	struct vsock_dev *s = calloc(1, sizeof(*s));
	int rc;

	if (!s)
		return err_set(e, -ENOMEM, "out of memory");
	s->port = (struct vsock_port){ .interrupt = port_interrupt,
				       .fail = port_fail };
	s->guest_cid = htole64(o->cid);
	rc = virtio_dev_init(&s->dev, &virtio_dev_vsock, env, VSOCK_FEATURES,
			     sizes, VSOCK_QUEUES, &s->guest_cid,
			     sizeof(s->guest_cid));
	if (rc) {
		err_set(e, rc, "socket device: %s", strerror(-rc));
		free(s);
		return rc;
	}
	rc = vsock_create(&s->core, env->loop, &c, e);
	if (rc) {
		virtio_dev_fini(&s->dev);
		free(s);
		return rc;
	}
	*out = &s->dev;
	return 0;
}

static void dev_destroy(struct virtio_dev *d)
{
	struct vsock_dev *s = to_vsock(d);

	vsock_destroy(s->core);
	virtio_dev_fini(d);
	free(s);
}

static void dev_defaults(void *options)
{
	((struct vsock_options *)options)->cid = 3;
}

static const struct opt_desc vsock_opts[] = {
	OPT_UINT(struct vsock_options, cid, "cid", 3, UINT32_MAX - 1,
		 "the guest's context ID"),
	OPT_STR(struct vsock_options, uds, "uds", "PATH",
		"socket for \"CONNECT port\"; the guest reaches PATH_port"),
	OPT_BOOL(struct vsock_options, hairpin, "hairpin",
		 "for tests: send the guest's connections back to it"),
	{ 0 },
};

const struct virtio_dev_type virtio_dev_vsock = {
	.name = "vsock",
	.summary = "sockets between host and guest",
	.id = 19,
	.loop_name = "vsock-io",
	.options = vsock_opts,
	.options_size = sizeof(struct vsock_options),
	.defaults = dev_defaults,
	.create = dev_create,
	.activate = dev_activate,
	.notify = dev_notify,
	.quiesce = dev_quiesce,
	.reset = dev_reset,
	.resume = dev_resume,
	.save = dev_save,
	.restore = dev_restore,
	.state_version = 1,
	.destroy = dev_destroy,
};
