/*
 * Theory of operation of the vsock core
 *
 * One loop owns everything here; nothing locks. All events (kicks, sockets,
 * deadlines, requests of other threads) only mark what there is to do and defer
 * one vsock_turn() to the end of the loop's turn, so a hundred events cost one
 * pass over the queues and one interrupt per batch:
 *
 *	tx.c     guest -> host: pop, check the header, act; payload goes by
 *	         writev() from guest memory to the socket
 *	rx.c     host -> guest: control packets first, then deficit round robin
 *	         over the ready connections, readv() into guest memory
 *
 * A connection (conn.c) is in one table by (type, CIDs, ports) and, for what
 * flows to the guest, in exactly one wait (I3):
 *
 *	VW_HANDSHAKE  not open yet; a deadline runs
 *	VW_READY      on v->ready: its socket may have data. (When the guest has
 *	              no descriptors the whole list waits: v->rx_stalled)
 *	VW_SOCKET     drained to EAGAIN (I4); epoll is armed (edge)
 *	VW_CREDIT     the guest has no room; one CREDIT_REQUEST is out
 *	VW_CLOSED     nothing more will go to the guest
 *
 * and what ends a wait moves it to VW_READY in the same step (I5): a socket
 * event, credit in any packet, the RESPONSE.
 *
 * Guest to host, what the socket does not take is kept in c->out (bounded by
 * the window we promised) and flushed on EPOLLOUT, which is asked for only
 * then. fwd_cnt moves when the socket took the bytes, never before.
 *
 * Control packets are bits of a connection (c->ctl), so however many are owed
 * there is no queue to overflow. Only a RST to a packet that belongs to no
 * connection needs a place: a bounded ring, and while it is full the tx queue
 * is not read.
 *
 * The end. The guest's SHUTDOWN(SEND) is passed on when c->out is empty; EOF of
 * the host becomes SHUTDOWN(SEND). A connection is over when the guest sent
 * both flags and c->out is empty: RST answers, and the socket is closed. One
 * whose guest side is gone but whose tail is not yet taken by the host lives on
 * as an orphan outside of the table until it is.
 */
#ifndef ARC_VIRTIO_VSOCK_CORE_H
#define ARC_VIRTIO_VSOCK_CORE_H

#include "base/list.h"
#include "base/log.h"
#include "virtio/vsock/credit.h"
#include "virtio/vsock/packet.h"
#include "virtio/vsock/vsock.h"

#define VSOCK_QUANTUM	   65536 /* bytes a connection may send per round */
#define VSOCK_TURN_BYTES   (1024 * 1024) /* each way, then others' turn */
#define VSOCK_TURN_PACKETS 512
#define VSOCK_BATCH	   32 /* chains filled or drained by one system call */
#define VSOCK_BATCH_IOV	   256 /* pieces in a batch, if chains are so small */
#define VSOCK_ROUND_READS  64 /* of a connection, however small */
#define VSOCK_RST_RING	   256
#define VSOCK_SEQ_MESSAGES 256 /* whole messages waiting for the host */

#define VSOCK_CONNECTIONS 10000
#define VSOCK_BUF_ALLOC	  (256u * 1024)
#define VSOCK_HOST_PORT	  0x40000000u /* first port of host-made ones */

enum vconn_state {
	VC_REQUEST, /* the host asked; REQUEST owed or sent */
	VC_ACCEPT, /* the guest asked; the host has not answered (hairpin) */
	VC_OPEN,
	VC_RESET, /* over; a RST is owed, then it is freed */
	VC_ORPHAN, /* the guest's side is over; c->out goes to the host */
};

enum vconn_wait {
	VW_HANDSHAKE,
	VW_READY,
	VW_SOCKET,
	VW_CREDIT,
	VW_CLOSED,
};

/* Control packets owed to the guest: bits of vconn.ctl, by precedence. */
enum {
	CTL_RST = 1 << 0,
	CTL_REQUEST = 1 << 1,
	CTL_RESPONSE = 1 << 2,
	CTL_SHUTDOWN = 1 << 3,
	CTL_UPDATE = 1 << 4,
	CTL_CREDIT_REQUEST = 1 << 5,
};

/* Deadlines of one kind last about the same, so each list stays sorted. */
enum deadline_kind {
	DL_NONE,
	DL_CALLER, /* a connect, as long as the caller will wait */
	DL_HANDSHAKE, /* REQUEST sent */
	DL_SHUTDOWN, /* full SHUTDOWN sent */
	DL_CREDIT, /* packets used up: ask again */
	DL_CLIENT, /* CONNECT of a client at uds_path */
	DL_ACCEPT, /* accept() failed for want of descriptors */
	DL_KINDS,
};

struct deadline {
	struct list node;
	enum deadline_kind kind; /* DL_NONE: not set */
	uint64_t at;
	void (*fn)(struct deadline *d);
};

struct vsock_key {
	uint64_t guest_cid, host_cid;
	uint32_t guest_port, host_port;
	uint16_t type;
};

/* A message of a SOCK_SEQPACKET connection, host-bound or guest-bound. */
struct seq_msg {
	struct seq_msg *next;
	uint32_t len, room, off;
	uint8_t flags; /* SEQ_F_* */
	uint8_t data[];
};

/* Bytes the host socket has not taken yet: a ring that grows to buf_alloc. */
struct obuf {
	uint8_t *data;
	uint32_t size, head, len;
};

struct vconn;

/* Who waits for the outcome of a handshake; called once, then forgotten. */
struct vconn_end {
	void (*open)(struct vconn *c); /* c->fd may be set in here */
	void (*failed)(struct vconn *c, int rc);
};

struct vconn {
	struct vsock *v;
	struct vconn *next; /* in its bucket */
	struct list all, ctl_node, ready_node;
	struct vsock_key key;
	uint8_t state, wait, ctl;
	uint8_t shut; /* SHUT_F_* owed in CTL_SHUTDOWN */
	uint8_t guest_shut; /* SHUT_F_* the guest sent */
	bool from_host, request_sent;
	bool trailer; /* hairpin: a flags byte ends each message */
	bool in_table, want_out;
	bool hup; /* the host's end is gone both ways */
	bool eof; /* the host sends no more, and the guest was told */
	bool wr_shut; /* shutdown(SHUT_WR) done */
	bool credit_asked; /* a CREDIT_REQUEST is out or owed */
	uint8_t retries;
	int fd; /* -1: none */
	uint32_t deficit;
	uint32_t read_hint; /* bytes the last read gave */
	struct loop_watch watch;
	struct credit credit;
	struct obuf out;
	struct seq_msg *seq_out, **seq_out_tail; /* whole messages */
	struct seq_msg *seq_part; /* being assembled */
	struct seq_msg *seq_in; /* being sent to the guest */
	unsigned seq_count;
	struct deadline deadline;
	const struct vconn_end *end; /* NULL: nobody waits */
	void *end_ctx;
	struct vconn *twin; /* hairpin: the other end, while both live */
	uint64_t h2g_bytes, g2h_bytes;
};

struct rx_slot {
	struct vq_chain chain;
	struct iovec head; /* where the header goes */
	uint32_t room; /* payload bytes */
};

struct tx_slot {
	struct vq_chain chain;
};

struct rst {
	struct vsock_key key;
};

struct vsock {
	struct loop *loop;
	const struct log *log;
	struct vsock_config config;
	struct loop_defer turn;
	struct loop_timer timer;
	struct list deadlines[DL_KINDS];
	struct log_limit complaints;

	/* Between start and pause or stop. */
	bool running, broken;
	struct vsock_port *port;
	struct virtqueue *rx, *tx, *event;
	uint64_t features;
	bool rx_stalled; /* work for the guest, no descriptor for it */
	bool tx_stalled; /* the RST ring is full */
	bool rx_held; /* TRANSPORT_RESET not acknowledged yet */
	bool event_owed, event_sent;
	uint16_t event_mark; /* the driver's index when it was sent */
	bool kicked[VSOCK_QUEUES]; /* look at the queue this turn */

	/* Connections. */
	struct vconn **buckets;
	uint32_t nbuckets; /* a power of two */
	uint64_t hash_seed;
	unsigned nconn; /* all, orphans too */
	struct list all, ctl, ready;
	uint32_t next_host_port;

	struct rst rst[VSOCK_RST_RING];
	unsigned rst_head, rst_count;

	/* Listeners and the hybrid socket. */
	struct list listeners;
	struct uds *uds;
	bool dying;

	struct vsock_counters n;

	/* A turn's working space. */
	struct rx_slot rx_slot[VSOCK_BATCH];
	struct tx_slot tx_slot[VSOCK_BATCH];
	struct vconn *tx_conn; /* whose payloads wait in tx_slot */
	unsigned tx_n, tx_iovs;
	uint32_t tx_bytes;
	struct iovec iov[VSOCK_BATCH_IOV + VQ_IOV_MAX];
	struct iovec scratch[VQ_IOV_MAX];
	unsigned scratch_n;
};

/* ---- core.c ---- */
uint64_t vsock_now(const struct vsock *v);
/* Something is to do: a turn at the end of the loop's turn. */
void vsock_wake(struct vsock *v);
/* The guest broke a ring. */
void vsock_break(struct vsock *v, const char *why);
bool vsock_type_allowed(const struct vsock *v, unsigned type);
/* @seq_size of a message must fit; -errno. */
int vsock_socketpair(enum vsock_type type, int fd[2]);

void deadline_set(struct vsock *v, struct deadline *d, enum deadline_kind kind,
		  uint64_t at, void (*fn)(struct deadline *d));
void deadline_clear(struct deadline *d);

/* ---- table.c ---- */
bool key_equal(const struct vsock_key *a, const struct vsock_key *b);
int table_init(struct vsock *v);
void table_fini(struct vsock *v);
struct vconn *table_find(const struct vsock *v, const struct vsock_key *k);
void table_add(struct vsock *v, struct vconn *c); /* the key is not there */
void table_remove(struct vsock *v, struct vconn *c);

/* ---- conn.c ---- */
/* In the table, state and wait as for a handshake; NULL at the limits. */
struct vconn *conn_new(struct vsock *v, const struct vsock_key *k,
		       bool from_host);
/* Both ends: the fd is closed, the memory freed, nothing is said to anyone. */
void conn_free(struct vconn *c);
/* A host connection to guest @port: REQUEST is owed. -errno. */
int conn_request(struct vsock *v, uint32_t port, unsigned type,
		 uint64_t deadline, const struct vconn_end *end, void *ctx,
		 struct vconn **out);
/* Use @fd (made non-blocking, the connection's from now on, even on failure). */
int conn_set_fd(struct vconn *c, int fd);
/* Use one end of a new pair; the other end, the caller's, or -errno. */
int conn_set_pair(struct vconn *c);
/* The handshake is done: data may flow. */
void conn_opened(struct vconn *c);
/* Tell the guest RST, and the host's side that it is over. */
void conn_reset(struct vconn *c, int rc);
/* The same without a packet: the guest knows. c->out is still delivered. */
void conn_drop(struct vconn *c, int rc);
void conn_owe(struct vconn *c, unsigned ctl);
void conn_wait(struct vconn *c, enum vconn_wait wait);
/* c->end->failed(), once. */
void conn_fail(struct vconn *c, int rc);
/* The host's end reads no more. */
void conn_host_deaf(struct vconn *c);
/* EOF of the host was read. */
void conn_host_eof(struct vconn *c);
/* @n bytes of the guest reached the host: credit. */
void conn_forwarded(struct vconn *c, uint32_t n);
/* Write what waits; false when the connection is gone (freed). */
bool conn_flush(struct vconn *c);
/* The guest sent SHUTDOWN flags, or c->out got empty: what follows. */
void conn_shut_step(struct vconn *c);
void conn_credit_step(struct vconn *c);
bool conn_out_empty(const struct vconn *c);

/* ---- obuf.c ---- */
int obuf_put(struct obuf *b, const struct iovec *iov, unsigned n, uint64_t off,
	     uint32_t len, uint32_t max);
unsigned obuf_iov(const struct obuf *b, struct iovec iov[2]);
void obuf_drop(struct obuf *b, uint32_t n);
void obuf_free(struct obuf *b);

/* ---- seq.c ---- */
/* A fragment of the guest's; false when the connection is gone. */
bool seq_from_guest(struct vconn *c, const struct pkt_hdr *h,
		    const struct iovec *iov, unsigned n);
bool seq_flush(struct vconn *c);
void seq_free(struct vconn *c);

/* ---- rx.c ---- */
enum rx_result {
	RX_MORE, /* quantum used up, or may have more */
	RX_WAIT, /* it has moved to another wait, or is gone */
	RX_STALL, /* no descriptor */
};
/* False: there is more to do. */
bool rx_run(struct vsock *v);
void rst_queue(struct vsock *v, const struct vsock_key *k);
/*
 * Pop chains for up to @bytes of payload and @packets packets into v->rx_slot;
 * payload pieces are v->iov[0 .. *iovs). The number of slots.
 */
unsigned rx_gather(struct vsock *v, uint32_t bytes, unsigned packets,
		   unsigned *iovs, uint64_t *room);
void rx_return(struct vsock *v, unsigned from, unsigned n);
/* Write the header of slot @i for @len bytes of payload, and push it. */
void rx_commit(struct vconn *c, unsigned i, uint32_t len, uint32_t flags);
enum rx_result rx_starved(struct vconn *c);
enum rx_result seq_to_guest(struct vconn *c);

/* ---- tx.c ---- */
bool tx_run(struct vsock *v);

/* ---- host.c ---- */
/* The guest asked for @k; @c is in the table. Answers it, now or later. */
void host_open(struct vconn *c);
void host_fini(struct vsock *v);

/* ---- hairpin.c ---- */
int hairpin_open(struct vconn *c);

/* ---- uds.c ---- */
int uds_create(struct vsock *v, struct err *e);
void uds_destroy(struct vsock *v);
/* Connect to <path>_<port>: the fd or -errno, at once. */
int uds_dial(struct vsock *v, uint32_t port, unsigned type);

#endif
