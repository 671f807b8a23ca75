/* Looking inside: the state as text, and the invariants as a check. */
#include <stdio.h>

#include "virtio/vsock/core.h"

static const char *const state_name[] = {
	[VC_REQUEST] = "request", [VC_ACCEPT] = "accept", [VC_OPEN] = "open",
	[VC_RESET] = "reset",	  [VC_ORPHAN] = "orphan",
};

static const char *wait_name(const struct vconn *c)
{
	switch ((enum vconn_wait)c->wait) {
	case VW_HANDSHAKE:
		return "handshake";
	case VW_READY:
		return c->v->rx_stalled ? "descriptor" : "ready";
	case VW_SOCKET:
		return "socket";
	case VW_CREDIT:
		return credit_free(&c->credit) ? "packets" : "credit";
	case VW_CLOSED:
		return "closed";
	}
	return "?";
}

void vsock_dump(const struct vsock *v,
		void (*line)(void *ctx, const char *text), void *ctx)
{
	char buf[512];

	snprintf(buf, sizeof(buf),
		 "cid %llu %s%s%s%s%s connections %u rst %u turns %llu "
		 "interrupts %llu",
		 (unsigned long long)v->config.guest_cid,
		 v->running ? "running" : "stopped", v->broken ? " broken" : "",
		 v->rx_stalled ? " rx-stalled" : "",
		 v->tx_stalled ? " tx-stalled" : "",
		 v->rx_held ? " held-for-reset-event" : "", v->nconn,
		 v->rst_count, (unsigned long long)v->n.turns,
		 (unsigned long long)v->n.interrupts);
	line(ctx, buf);
	for (struct list *it = v->all.next; it != &v->all; it = it->next) {
		const struct vconn *c = container_of(it, struct vconn, all);
		const struct credit *k = &c->credit;

		snprintf(buf, sizeof(buf),
			 "%s guest %u host %u by %s: %s wait %s fd %d%s%s "
			 "owes %#x shut us %u guest %u | to host %llu, window "
			 "%u, used %u, buffered %u+%u msgs | to guest %llu, "
			 "window %u, free %u, packets %u",
			 c->key.type == VSOCK_STREAM ? "stream" : "seqpacket",
			 c->key.guest_port, c->key.host_port,
			 c->from_host ? "host" : "guest", state_name[c->state],
			 wait_name(c), c->fd, c->hup ? " hup" : "",
			 c->want_out ? " blocked" : "", c->ctl, c->shut,
			 c->guest_shut, (unsigned long long)c->g2h_bytes,
			 k->buf_alloc, k->rx_cnt - k->fwd_cnt, c->out.len,
			 c->seq_count, (unsigned long long)c->h2g_bytes,
			 k->peer_alloc, credit_free(k), k->packets);
		line(ctx, buf);
	}
}

static const char *check_conn(const struct vconn *c)
{
	const struct credit *k = &c->credit;
	uint32_t packets = 0;

	/* I3 */
	if ((c->wait == VW_READY) == list_empty(&c->ready_node))
		return "ready list and wait disagree";
	if (c->ctl && list_empty(&c->ctl_node))
		return "control packets owed, not on the list";
	if (c->in_table == (c->state == VC_ORPHAN))
		return "table and state disagree";
	if (c->state == VC_OPEN && c->fd < 0)
		return "open without a socket";
	if (c->wait == VW_HANDSHAKE && c->state == VC_OPEN &&
	    !(c->ctl & CTL_RESPONSE))
		return "open, yet waiting for a handshake";
	if ((c->state == VC_REQUEST) && c->deadline.kind == DL_NONE)
		return "handshake without a deadline";
	if (c->wait == VW_CREDIT && !c->credit_asked)
		return "waits for credit without having asked";
	if (c->wait == VW_CREDIT && credit_free(k) && credit_packets_free(k))
		return "waits for credit it has"; /* I5 */
	if (c->wait == VW_CREDIT && credit_free(k) &&
	    c->deadline.kind != DL_CREDIT)
		return "waits for packets and will not ask again";
	if (!conn_out_empty(c) && !c->want_out)
		return "bytes for the host, and EPOLLOUT not asked for";
	if (c->want_out && conn_out_empty(c))
		return "EPOLLOUT asked for without a byte to send";
	if (k->rx_cnt - k->fwd_cnt > k->buf_alloc)
		return "more received than promised";
	if (c->state == VC_OPEN && credit_update_due(k) &&
	    !(c->ctl & CTL_UPDATE))
		return "a credit update is due and not owed"; /* I6 */
	for (unsigned i = 0; i < k->runs; i++)
		packets += k->run[(k->run_head + i) % CREDIT_RUNS].packets;
	if (packets != k->packets)
		return "packet runs do not add up";
	return NULL;
}

const char *vsock_check(struct vsock *v)
{
	unsigned n = 0;

	for (struct list *it = v->all.next; it != &v->all; it = it->next) {
		const struct vconn *c = container_of(it, struct vconn, all);
		const char *why = check_conn(c);

		if (why)
			return why;
		n++;
	}
	if (n != v->nconn)
		return "connection count is off";
	if (v->tx_conn)
		return "a tx batch outlived its turn";
	return NULL;
}
