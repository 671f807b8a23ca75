/*
 * The device: its life, its turn, its deadlines. How it all fits together is in
 * core.h.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bug.h"
#include "base/clock.h"
#include "base/err.h"
#include "virtio/iov.h"
#include "virtio/vsock/core.h"

#define EVENT_TRANSPORT_RESET 0
#define EVENT_LEN	      4

uint64_t vsock_now(const struct vsock *v)
{
	return v->config.now ? v->config.now(v->config.now_ctx) : clock_ns();
}

bool vsock_type_allowed(const struct vsock *v, unsigned type)
{
	if (type == VSOCK_SEQPACKET)
		return v->features & VSOCK_F_SEQPACKET;
	/* A driver that accepts nothing means streams (5.10.3). */
	return type == VSOCK_STREAM &&
	       (v->features & VSOCK_F_STREAM ||
		!(v->features & VSOCK_F_NO_IMPLIED_STREAM));
}

int vsock_socketpair(enum vsock_type type, int fd[2])
{
	int kind = type == VSOCK_SEQPACKET ? SOCK_SEQPACKET : SOCK_STREAM;

	if (socketpair(AF_UNIX, kind | SOCK_CLOEXEC, 0, fd) < 0)
		return -errno;
	return 0;
}

/* ---- deadlines ---- */

static void on_timer(struct loop_timer *t)
{
	vsock_expire(container_of(t, struct vsock, timer));
}

/* The loop's timer runs only while a deadline exists. */
static void timer_follow(struct vsock *v)
{
	uint64_t at = UINT64_MAX;

	if (v->config.now)
		return; /* a test's clock */
	for (int k = DL_NONE + 1; k < DL_KINDS; k++) {
		struct list *first = v->deadlines[k].next;

		if (first != &v->deadlines[k])
			at = min_of(
				at,
				container_of(first, struct deadline, node)->at);
	}
	if (at == UINT64_MAX)
		timer_cancel(&v->timer);
	else if (!v->timer.loop || at < v->timer.at_ns)
		timer_set(&v->timer, v->loop, at, on_timer);
}

void deadline_set(struct vsock *v, struct deadline *d, enum deadline_kind kind,
		  uint64_t at, void (*fn)(struct deadline *d))
{
	struct list *pos;

	deadline_clear(d);
	d->kind = kind;
	d->at = at;
	d->fn = fn;
	/* Nearly always the last. */
	for (pos = v->deadlines[kind].prev; pos != &v->deadlines[kind];
	     pos = pos->prev)
		if (container_of(pos, struct deadline, node)->at <= at)
			break;
	list_insert(pos, &d->node);
	timer_follow(v);
}

/* The timer stays: it fires once for nothing, instead of moving each time. */
void deadline_clear(struct deadline *d)
{
	if (d->kind == DL_NONE)
		return;
	list_remove(&d->node);
	d->kind = DL_NONE;
}

void vsock_expire(struct vsock *v)
{
	uint64_t now = vsock_now(v);

	for (int k = DL_NONE + 1; k < DL_KINDS; k++) {
		while (!list_empty(&v->deadlines[k])) {
			struct deadline *d = container_of(
				v->deadlines[k].next, struct deadline, node);

			if (d->at > now)
				break;
			deadline_clear(d);
			d->fn(d);
		}
	}
	timer_follow(v);
}

/* ---- the turn ---- */

void vsock_wake(struct vsock *v)
{
	if (v->running && !v->broken)
		loop_defer(v->loop, &v->turn);
}

void vsock_break(struct vsock *v, const char *why)
{
	v->broken = true;
	v->port->fail(v->port, why);
}

static uint16_t avail_index(struct virtqueue *vq)
{
	return (uint16_t)(vq->next_avail + vq_pending(vq));
}

/* Write the event if the driver has a buffer for it. */
static void event_send(struct vsock *v)
{
	uint8_t id[EVENT_LEN] = { EVENT_TRANSPORT_RESET };
	struct vq_chain c;

	while (v->event_owed) {
		int r = vq_pop(v->event, &c, v->iov, VQ_IOV_MAX);

		if (r == 0) { /* I2 */
			if (vq_kicks_on(v->event))
				continue;
			return; /* it stays owed */
		}
		if (r == -EPROTO) {
			vsock_break(v, v->event->broken);
			return;
		}
		if (r < 0 || c.nread || c.write_len < EVENT_LEN) {
			v->n.bad_chain++;
			vq_push(v->event, &c, 0);
			continue;
		}
		iov_write(vq_chain_writable(&c), c.nwrite, 0, id, sizeof(id));
		vq_push(v->event, &c, sizeof(id));
		v->event_owed = false;
		v->event_sent = true;
		v->event_mark = avail_index(v->event);
		v->n.events_sent++;
	}
}

/*
 * TRANSPORT_RESET. The driver acknowledges by offering a fresh buffer; until
 * then the rx queue is not touched, for the driver would take what comes for
 * one of its lost connections.
 */
static void event_run(struct vsock *v)
{
	v->kicked[VSOCK_Q_EVENT] = false;
	event_send(v);
	if (vq_publish(v->event)) {
		v->n.interrupts++;
		v->port->interrupt(v->port, VSOCK_Q_EVENT);
	}
	if (!v->event_sent)
		return;
	vq_kicks_next(v->event);
	if (avail_index(v->event) != v->event_mark) {
		v->event_sent = false;
		v->rx_held = false;
	}
}

static void vsock_turn(struct loop_defer *d)
{
	struct vsock *v = container_of(d, struct vsock, turn);
	bool done;

	if (!v->running || v->broken)
		return;
	v->n.turns++;
	if (v->event && (v->event_owed || v->kicked[VSOCK_Q_EVENT]))
		event_run(v);
	done = tx_run(v);
	if (!v->broken)
		done &= rx_run(v);
	if (!done || (v->tx_stalled && v->rst_count < VSOCK_RST_RING))
		vsock_wake(v);
}

void vsock_notify(struct vsock *v, unsigned q)
{
	static const size_t counter[] = {
		offsetof(struct vsock_counters, kicks_rx),
		offsetof(struct vsock_counters, kicks_tx),
		offsetof(struct vsock_counters, kicks_event),
	};

	if (q >= VSOCK_QUEUES || !v->running)
		return;
	++*(uint64_t *)((char *)&v->n + counter[q]);
	v->kicked[q] = true;
	vsock_wake(v);
}

/* ---- life ---- */

int vsock_create(struct vsock **out, struct loop *l,
		 const struct vsock_config *c, struct err *e)
{
	struct vsock *v;
	int rc;

	if (c->guest_cid <= VSOCK_CID_HOST || c->guest_cid >= UINT32_MAX)
		return err_set(e, -EINVAL,
			       "vsock: CID %llu is reserved; choose one from 3 "
			       "to 4294967294",
			       (unsigned long long)c->guest_cid);
	v = calloc(1, sizeof(*v));
	if (!v)
		return err_set(e, -ENOMEM, "vsock: out of memory");
	v->loop = l;
	v->log = c->log;
	v->config = *c;
	if (!v->config.max_connections)
		v->config.max_connections = VSOCK_CONNECTIONS;
	if (!v->config.buf_alloc)
		v->config.buf_alloc = VSOCK_BUF_ALLOC;
	if (!v->config.handshake_ns)
		v->config.handshake_ns = 2 * NSEC_PER_SEC;
	if (!v->config.shutdown_ns)
		v->config.shutdown_ns = 8 * NSEC_PER_SEC;
	if (!v->config.client_ns)
		v->config.client_ns = 10 * NSEC_PER_SEC;
	if (!v->config.boot_ns)
		v->config.boot_ns = 60 * NSEC_PER_SEC;
	v->next_host_port = VSOCK_HOST_PORT;
	v->turn.fn = vsock_turn;
	list_init(&v->all);
	list_init(&v->ctl);
	list_init(&v->ready);
	list_init(&v->listeners);
	for (int k = 0; k < DL_KINDS; k++)
		list_init(&v->deadlines[k]);
	rc = table_init(v);
	if (rc) {
		err_set(e, rc, "vsock: out of memory");
		goto fail;
	}
	if (c->uds_path) {
		rc = uds_create(v, e);
		if (rc)
			goto fail_table;
	}
	*out = v;
	return 0;
fail_table:
	table_fini(v);
fail:
	free(v);
	return rc;
}

void vsock_close_host(struct vsock *v)
{
	v->dying = true;
	uds_destroy(v);
	host_fini(v);
	list_for_each_safe (it, &v->all)
		conn_fail(container_of(it, struct vconn, all), -ENODEV);
}

void vsock_destroy(struct vsock *v)
{
	if (!v)
		return;
	loop_lock(v->loop);
	v->running = false;
	vsock_close_host(v);
	while (!list_empty(&v->all)) {
		struct vconn *c = container_of(v->all.next, struct vconn, all);

		conn_free(c);
	}
	loop_defer_cancel(&v->turn);
	timer_cancel(&v->timer);
	loop_unlock(v->loop);
	table_fini(v);
	free(v);
}

uint64_t vsock_guest_cid(const struct vsock *v)
{
	return v->config.guest_cid;
}

void vsock_start(struct vsock *v, struct vsock_port *port, struct virtqueue *rx,
		 struct virtqueue *tx, struct virtqueue *event,
		 uint64_t features)
{
	bug_on(v->running);
	v->port = port;
	v->rx = rx;
	v->tx = tx;
	v->event = event;
	v->features = features;
	v->broken = false;
	v->running = true;
	v->rx_stalled = false;
	if (!event)
		v->event_owed = v->rx_held = v->event_sent = false;
	vq_kicks_off(rx);
	/* Chains may have been made available before anyone looked. */
	for (unsigned q = 0; q < VSOCK_QUEUES; q++)
		v->kicked[q] = true;
	vsock_wake(v);
}

void vsock_pause(struct vsock *v)
{
	v->running = false;
	loop_defer_cancel(&v->turn);
}

void vsock_stop(struct vsock *v)
{
	struct list gone;

	vsock_pause(v);
	v->rst_count = v->rst_head = 0;
	v->tx_stalled = v->rx_stalled = false;
	v->rx_held = v->event_owed = v->event_sent = false;
	list_init(&gone);
	list_for_each_safe (it, &v->all) {
		struct vconn *c = container_of(it, struct vconn, all);

		/* What the guest never heard of waits for the next start. */
		if (c->state == VC_ORPHAN || (c->from_host && !c->request_sent))
			continue;
		list_remove(it);
		list_append(&gone, it);
	}
	/* (One end of a hairpin may take the other along.) */
	while (!list_empty(&gone)) {
		struct vconn *c = container_of(gone.next, struct vconn, all);

		list_remove(&c->all);
		list_append(&v->all, &c->all);
		if (c->state == VC_RESET)
			conn_free(c);
		else
			conn_drop(c, -ECONNRESET);
	}
}

void vsock_restored(struct vsock *v)
{
	v->event_owed = true;
	v->rx_held = true;
}

const struct vsock_counters *vsock_counters(const struct vsock *v)
{
	return &v->n;
}

unsigned vsock_connections(const struct vsock *v)
{
	return v->nconn;
}
