/*
 * Hairpin, for tests: what the guest connects to on the host comes back to it
 * as a host connection to the same port, so that a client and a server in one
 * guest meet through the whole device. Two ordinary connections, joined by a
 * socketpair; the guest's REQUEST is answered when its own answer has come.
 *
 * Until then each end is the other's `end`: whichever dies first takes the
 * other along.
 */

#include "virtio/vsock/core.h"

/* The server side answered: join the two. */
static void joined(struct vconn *server)
{
	struct vconn *client = server->end_ctx;
	int fd = conn_set_pair(client);
	int rc = fd;

	client->end = NULL;
	if (fd >= 0)
		rc = conn_set_fd(server, fd);
	if (rc < 0) {
		conn_reset(client, rc);
		conn_reset(server, rc);
		return;
	}
	client->trailer = server->trailer = client->key.type == VSOCK_SEQPACKET;
	client->twin = server;
	server->twin = client;
	conn_opened(client);
}

static void other_failed(struct vconn *c, int rc)
{
	struct vconn *other = c->end_ctx;

	other->end = NULL;
	conn_reset(other, rc);
}

static const struct vconn_end hairpin_end = {
	.open = joined,
	.failed = other_failed,
};

int hairpin_open(struct vconn *client)
{
	struct vsock *v = client->v;
	struct vconn *server;
	int rc = conn_request(v, client->key.host_port, client->key.type,
			      vsock_now(v) + v->config.handshake_ns,
			      &hairpin_end, client, &server);

	if (rc)
		return rc;
	client->end = &hairpin_end;
	client->end_ctx = server;
	return 0;
}
