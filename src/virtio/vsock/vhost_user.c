/* The core behind a vhost-user socket: another VMM's guest drives it. */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>

#include "base/err.h"
#include "base/util.h"
#include "virtio/vhost_user/vhost_user.h"
#include "virtio/vsock/vsock.h"

struct vsock_vhost_user {
	struct vsock *core;
	struct vhost_user *front;
	struct vsock_port port;
	uint64_t guest_cid; /* config space, little-endian */
};

static void port_interrupt(struct vsock_port *p, unsigned q)
{
	vhost_user_interrupt(
		container_of(p, struct vsock_vhost_user, port)->front, q);
}

static void port_fail(struct vsock_port *p, const char *why)
{
	vhost_user_fail(container_of(p, struct vsock_vhost_user, port)->front,
			why);
}

/* The front end keeps the event queue to itself. */
static void front_start(void *ctx, struct virtqueue *vq, uint64_t features,
			bool fresh)
{
	struct vsock_vhost_user *s = ctx;

	if (fresh)
		vsock_stop(s->core);
	vsock_start(s->core, &s->port, &vq[VSOCK_Q_RX], &vq[VSOCK_Q_TX], NULL,
		    features);
}

static void front_stop(void *ctx)
{
	vsock_pause(((struct vsock_vhost_user *)ctx)->core);
}

static void front_lost(void *ctx)
{
	vsock_stop(((struct vsock_vhost_user *)ctx)->core);
}

static void front_kick(void *ctx, unsigned q)
{
	vsock_notify(((struct vsock_vhost_user *)ctx)->core, q);
}

int vsock_vhost_user_create(struct vsock_vhost_user **out, struct loop *l,
			    const char *path, const struct vsock_config *c,
			    struct err *e)
{
	struct vsock_vhost_user *s = calloc(1, sizeof(*s));
	struct vhost_user_config f = {
		.path = path,
		.loop = l,
		.log = c->log,
		.features = VSOCK_FEATURES,
		.nqueues = VSOCK_Q_EVENT,
		.config_size = sizeof(s->guest_cid),
		.ctx = s,
		.start = front_start,
		.stop = front_stop,
		.lost = front_lost,
		.kick = front_kick,
	};
	int rc;

	if (!s)
		return err_set(e, -ENOMEM, "vsock: out of memory");
	s->port = (struct vsock_port){ .interrupt = port_interrupt,
				       .fail = port_fail };
	s->guest_cid = htole64(c->guest_cid);
	f.config = &s->guest_cid;
	rc = vsock_create(&s->core, l, c, e);
	if (!rc)
		rc = vhost_user_create(&s->front, &f, e);
	if (rc) {
		vsock_destroy(s->core);
		free(s);
		return rc;
	}
	*out = s;
	return 0;
}

struct vsock *vsock_vhost_user_core(struct vsock_vhost_user *s)
{
	return s->core;
}

void vsock_vhost_user_destroy(struct vsock_vhost_user *s)
{
	if (!s)
		return;
	vhost_user_destroy(s->front);
	vsock_destroy(s->core);
	free(s);
}
