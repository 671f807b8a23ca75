/*
 * The vsock device core: streams and messages between the guest and the host
 * over three virtqueues (virtio 1.2, 5.10). It knows no transport: virtio-mmio,
 * a vhost-user front end and the test harness drive the same code.
 *
 * Everything lives on one loop, the worker "vsock-io". vsock_connect*() and
 * vsock_listen*() may be called from any thread (not from the loop itself where
 * they block); all else is called on the loop, or under its lock.
 *
 * Order: vsock_create() -> [vsock_attach()] -> vsock_start() at DRIVER_OK ->
 * vsock_notify()... -> vsock_stop() -> start again, or vsock_destroy().
 */
#ifndef ARC_VIRTIO_VSOCK_VSOCK_H
#define ARC_VIRTIO_VSOCK_VSOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "loop/loop.h"
#include "virtio/queue.h"

struct err;
struct log;
struct virtio_dev;
struct vsock;

/* Queues, in the device's order. */
enum { VSOCK_Q_RX, VSOCK_Q_TX, VSOCK_Q_EVENT, VSOCK_QUEUES };

/* Device features (5.10.3). */
#define VSOCK_F_STREAM		  (1ull << 0)
#define VSOCK_F_SEQPACKET	  (1ull << 1)
#define VSOCK_F_NO_IMPLIED_STREAM (1ull << 2)
#define VSOCK_FEATURES \
	(VSOCK_F_STREAM | VSOCK_F_SEQPACKET | VSOCK_F_NO_IMPLIED_STREAM)

#define VSOCK_CID_HOST 2ull

enum vsock_type { VSOCK_STREAM = 1, VSOCK_SEQPACKET = 2 };

struct vsock_config {
	uint64_t guest_cid; /* 3 .. 0xfffffffe */
	const char *uds_path; /* hybrid AF_UNIX socket, or NULL; copied */
	/* For tests: what the guest connects to on the host and nobody listens
	 * to comes back as a host request to the same port of the guest. */
	bool hairpin;
	const struct log *log;

	/* 0 takes the default. */
	unsigned max_connections; /* 10,000 */
	uint32_t buf_alloc; /* receive window of a connection: 256 KiB */
	uint64_t handshake_ns; /* a REQUEST of ours: 2 s */
	uint64_t shutdown_ns; /* a full SHUTDOWN of ours: 8 s */
	uint64_t client_ns; /* a silent client at uds_path: 10 s */
	uint64_t boot_ns; /* its CONNECT before the guest is up: 60 s */
	/* A test's clock; deadlines then pass in vsock_expire() only. */
	uint64_t (*now)(void *ctx);
	void *now_ctx;
	/* A test's start of all byte counters (credit wraps at 2^32). */
	uint32_t first_count;
	/* A test's buffer for what the guest sends; 0: the window. */
	uint32_t socket_buf;
};

/* How the core reaches its transport: filled in by whoever drives it. */
struct vsock_port {
	/* Queue @q has used buffers the driver wants to hear of. */
	void (*interrupt)(struct vsock_port *p, unsigned q);
	/* The guest broke a ring: the device must ask for a reset. */
	void (*fail)(struct vsock_port *p, const char *why);
};

/*
 * -EINVAL for a bad CID, -errno with a sentence when uds_path cannot be bound
 * (a stale socket there is replaced, anything else is left alone).
 */
int vsock_create(struct vsock **out, struct loop *l,
		 const struct vsock_config *c, struct err *e);
/*
 * The host's side ends: the hybrid socket is gone, waiting connects and accepts
 * fail with -ENODEV and -ESHUTDOWN, as do later ones.
 */
void vsock_close_host(struct vsock *v);
/*
 * Paused, stopped, or never started. Every connection is closed. No thread may
 * be in a call: vsock_close_host() makes those in one return. NULL-safe.
 */
void vsock_destroy(struct vsock *v);

uint64_t vsock_guest_cid(const struct vsock *v);

/* The core of a virtio device of type "vsock", else NULL (dev/vsock.c). */
struct vsock *virtio_vsock_core(struct virtio_dev *d);

/*
 * DRIVER_OK: the queues are enabled and final; @event may be NULL (vhost-user).
 * They stay the caller's. Connections asked for earlier are made now.
 */
void vsock_start(struct vsock *v, struct vsock_port *port, struct virtqueue *rx,
		 struct virtqueue *tx, struct virtqueue *event,
		 uint64_t features);
/* The driver kicked queue @q. */
void vsock_notify(struct vsock *v, unsigned q);
/*
 * Leave the queues alone, keep every connection (pause): no chain is held
 * when it returns. vsock_start() goes on.
 */
void vsock_pause(struct vsock *v);
/* The device is reset: every connection the guest knew of is closed. */
void vsock_stop(struct vsock *v);
/*
 * The guest was restored from a snapshot, its connections are gone: send it
 * TRANSPORT_RESET, and nothing else until it took that and refilled the event
 * queue. Before vsock_start().
 */
void vsock_restored(struct vsock *v);

/* ---- the host's side ---- */

/*
 * Connect to @port in the guest. The file descriptor (close-on-exec, blocking,
 * the caller's) comes once the guest has accepted. -errno with a sentence:
 *   -ECONNREFUSED     nobody listens there
 *   -ETIMEDOUT        no answer within @timeout_ms (-1: 60 s); the guest may
 *                     not be up yet, which is waited for
 *   -ENODEV           the VM is gone
 *   -EPROTONOSUPPORT  the guest's driver cannot do @type
 *   -EMFILE, -ENOMEM
 */
int vsock_connect(struct vsock *v, uint32_t port, enum vsock_type type,
		  int timeout_ms, struct err *e);

/* The same without waiting: @done is called once, on the loop. */
struct vsock_connect {
	/* the caller's: */
	uint32_t port;
	enum vsock_type type;
	uint64_t timeout_ns;
	void (*done)(struct vsock_connect *r, int fd); /* or -errno */
	/* the core's: */
	struct vsock *v;
	struct loop_post post;
};
void vsock_connect_start(struct vsock *v, struct vsock_connect *r);

/*
 * Take connections the guest makes to CID 2, @port. -EADDRINUSE. Beyond
 * @backlog not yet accepted, the guest is refused.
 */
struct vsock_listener;
int vsock_listen(struct vsock *v, uint32_t port, enum vsock_type type,
		 unsigned backlog, struct vsock_listener **out, struct err *e);
/* Readable when a connection waits. */
int vsock_listener_fd(const struct vsock_listener *l);
/*
 * The next connection, waiting for it unless @nonblock (-EAGAIN); @guest_port
 * (when not NULL) says from where. -ESHUTDOWN when the VM is gone.
 */
int vsock_accept(struct vsock_listener *l, uint32_t *guest_port, bool nonblock);
/* Not while another thread is in vsock_accept(). NULL-safe. */
void vsock_listener_close(struct vsock_listener *l);

/* ---- for a guest of another VMM, over vhost-user ---- */

/*
 * A core with a vhost-user front end that listens at @path. It is started and
 * stopped by the other VMM. -errno with a sentence.
 */
struct vsock_vhost_user;
int vsock_vhost_user_create(struct vsock_vhost_user **out, struct loop *l,
			    const char *path, const struct vsock_config *c,
			    struct err *e);
struct vsock *vsock_vhost_user_core(struct vsock_vhost_user *s);
void vsock_vhost_user_destroy(struct vsock_vhost_user *s); /* NULL-safe */

/* ---- looking inside ---- */

/* Counted since creation; "turns" are runs of the worker. X(name). */
/* clang-format off */
#define VSOCK_COUNTERS(X)                                               \
	X(turns) X(kicks_rx) X(kicks_tx) X(kicks_event)                 \
	X(socket_events) X(interrupts) X(h2g_bytes) X(h2g_packets)      \
	X(h2g_reads) X(g2h_bytes) X(g2h_packets) X(g2h_writes)          \
	X(g2h_buffered) X(control_sent) X(updates_sent)                 \
	X(requests_sent) X(opened_host) X(opened_guest) X(refused)      \
	X(timed_out) X(closed) X(stall_descriptors) X(stall_credit)     \
	X(stall_packets) X(stall_socket) X(stall_rst) X(stall_budget)   \
	X(rst_sent) X(rst_received) X(bad_chain) X(bad_header)          \
	X(bad_source) X(bad_destination) X(bad_type) X(bad_op)          \
	X(bad_length) X(bad_credit) X(bad_state)                        \
	X(unknown_connection) X(overflow) X(limit) X(host_gone)         \
	X(no_memory) X(events_sent)
/* clang-format on */

struct vsock_counters {
#define X(name) uint64_t name;
	VSOCK_COUNTERS(X)
#undef X
};
const struct vsock_counters *vsock_counters(const struct vsock *v);
unsigned vsock_connections(const struct vsock *v);

/* The state of the device and of every connection, one line each. */
void vsock_dump(const struct vsock *v,
		void (*line)(void *ctx, const char *text), void *ctx);

/* Tests: run what is due by the config's clock; then the turns it asks for. */
void vsock_expire(struct vsock *v);
/* Tests: broken invariant as text, or NULL: each connection in one wait, ... */
const char *vsock_check(struct vsock *v);

#endif
