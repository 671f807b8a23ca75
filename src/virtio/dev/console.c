/*
 * The console device (virtio 1.2, 5.3).
 *
 * Theory of operation
 *
 * Each port is a pair of queues between the guest and a stream (backend). No
 * chain is held between callbacks: output that a stream does not take is
 * un-popped, and `tx_done` remembers how much of that chain went out already;
 * the stream calls `writable` when we may go on. Input is wanted from a stream
 * only while the guest has the port open and buffers waiting, and is read
 * straight into them.
 *
 * With more than one port (feature MULTIPORT) ports are announced by control
 * messages. What is to be said is a set of bits per port, sent in their order as
 * the driver provides buffers: a guest that provides none costs nothing, and one
 * that asks again gets the newest state.
 *
 * Linux sends console output and control messages one at a time, spinning with
 * interrupts off until the device has taken it. So these queues are served by
 * the vCPU that kicks, before it can begin to spin.
 *
 * A stream's bytes are not part of a snapshot; positions and states are.
 */
#include "virtio/console.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/stream.h"
#include "base/bytes.h"
#include "base/err.h"
#include "base/opt.h"
#include "base/util.h"
#include "snap/snap.h"
#include "virtio/iov.h"
#include "virtio/virtio.h"

extern const struct virtio_dev_type virtio_dev_console;

#define F_SIZE	      (1ull << 0)
#define F_MULTIPORT   (1ull << 1)
#define F_EMERG_WRITE (1ull << 2)

#define DATA_QUEUE_SIZE 64
#define CTRL_QUEUE_SIZE 32
enum { CTRL_RX = 2, CTRL_TX = 3 };

/* Control events. */
enum {
	EV_DEVICE_READY = 0,
	EV_PORT_ADD = 1,
	EV_PORT_REMOVE = 2,
	EV_PORT_READY = 3,
	EV_CONSOLE_PORT = 4,
	EV_RESIZE = 5,
	EV_PORT_OPEN = 6,
	EV_PORT_NAME = 7,
};

/* What the driver is to be told about a port, in this order. */
enum {
	SAY_ADD = 1 << 0,
	SAY_CONSOLE = 1 << 1,
	SAY_NAME = 1 << 2,
	SAY_RESIZE = 1 << 3,
	SAY_OPEN = 1 << 4,
};

struct ctrl_msg {
	uint32_t id;
	uint16_t event, value;
};

struct console_config {
	uint16_t cols, rows;
	uint32_t max_nr_ports, emerg_wr;
} __attribute__((packed));

struct console_options {
	char *console;
	uint64_t cols, rows;
	bool old_resize;
};

struct console;

struct port {
	struct console *con;
	struct stream *stream;
	char name[VIRTIO_CONSOLE_NAME_MAX];
	bool console;
	void (*guest_open_fn)(void *ctx, bool open);
	void *ctx;
	uint16_t cols, rows;

	/* As the driver has it. */
	bool ready, guest_open;
	uint8_t say; /* SAY_* */
	uint32_t tx_done; /* bytes of the next chain that went out already */
};

struct console {
	struct virtio_dev dev;
	struct console_config config;
	bool old_resize;
	unsigned nports;
	struct port ports[VIRTIO_CONSOLE_PORTS_MAX];
};

static struct console *to_console(struct virtio_dev *d)
{
	return container_of(d, struct console, dev);
}

static unsigned index_of(const struct port *p)
{
	return (unsigned)(p - p->con->ports);
}

/* Port 0 has queues 0 and 1, then come the control queues, then the others. */
static unsigned rx_queue(unsigned port)
{
	return port ? 2 + 2 * port : 0;
}

static bool running(const struct console *c)
{
	return c->dev.run == VIRTIO_ACTIVE &&
	       !(c->dev.status & VIRTIO_S_NEEDS_RESET);
}

static bool multiport(const struct console *c)
{
	return virtio_has(&c->dev, F_MULTIPORT);
}

/* A pop said @rc < 0: the driver broke a rule. */
static void give_up(struct console *c, unsigned q, int rc, struct vq_chain *ch)
{
	struct virtqueue *vq = virtio_vq(&c->dev, q);

	if (rc == -EBADMSG)
		vq_push(vq, ch, 0);
	virtio_fail(&c->dev, "queue %u: %s", q,
		    rc == -EBADMSG ? vq->bad : vq->broken);
}

/* ---- output ---- */

/* Send what the guest queued; at most a queue's worth in one go. */
static void port_output(struct port *p)
{
	unsigned q = rx_queue(index_of(p)) + 1, budget = DATA_QUEUE_SIZE;
	struct virtqueue *vq = virtio_vq(&p->con->dev, q);
	struct iovec iov[VQ_IOV_MAX];
	struct vq_chain c;
	int rc;

	vq_kicks_off(vq);
	do {
		while ((rc = vq_pop(vq, &c, iov, VQ_IOV_MAX)) > 0) {
			uint64_t left =
				c.read_len - min_of(c.read_len, p->tx_done);
			unsigned n =
				iov_slice(iov, iov, c.nread, p->tx_done, left);
			size_t sent = stream_writev(p->stream, iov, n);

			if (sent < left) { /* p->writable comes back here */
				p->tx_done += (uint32_t)sent;
				vq_unpop(vq, &c);
				goto out;
			}
			p->tx_done = 0;
			vq_push(vq, &c, 0);
			if (!--budget) {
				virtio_queue_kick(&p->con->dev, q);
				goto out;
			}
		}
		if (rc < 0)
			give_up(p->con, q, rc, &c);
	} while (rc == 0 && vq_kicks_on(vq));
out:
	virtio_publish(&p->con->dev, q);
}

static void port_writable(void *ctx)
{
	struct port *p = ctx;

	if (running(p->con))
		port_output(p);
}

/* ---- input ---- */

/* Is there any point in reading the stream now? */
static void update_want(struct port *p)
{
	struct console *c = p->con;
	struct virtqueue *vq = virtio_vq(&c->dev, rx_queue(index_of(p)));
	bool want = running(c) && p->guest_open &&
		    !c->dev.queues[rx_queue(index_of(p))].resetting;

	if (want) {
		vq_kicks_off(vq);
		/* Without buffers, sleep until a kick announces some. */
		want = vq_pending(vq) || vq_kicks_on(vq);
		if (vq->broken)
			give_up(c, rx_queue(index_of(p)), -EPROTO, NULL);
	}
	stream_want_input(p->stream, want);
}

static void port_readable(void *ctx)
{
	struct port *p = ctx;
	unsigned q = rx_queue(index_of(p)), budget = DATA_QUEUE_SIZE;
	struct virtqueue *vq = virtio_vq(&p->con->dev, q);
	struct iovec iov[VQ_IOV_MAX];
	struct vq_chain c;
	int rc = 0;

	if (!running(p->con) || !p->guest_open)
		goto out;
	while (budget-- && (rc = vq_pop(vq, &c, iov, VQ_IOV_MAX)) > 0) {
		size_t got = 0;

		if (c.write_len) {
			got = stream_readv(p->stream, vq_chain_writable(&c),
					   c.nwrite);
			if (!got) {
				vq_unpop(vq, &c);
				break;
			}
		}
		vq_push(vq, &c, (uint32_t)got);
		if (got < c.write_len)
			break; /* very likely that was all */
	}
	if (rc < 0)
		give_up(p->con, q, rc, &c);
	virtio_publish(&p->con->dev, q);
out:
	update_want(p);
}

/* ---- control messages ---- */

/* Take the first thing to say about @p: the message, and what follows it. */
static size_t next_message(struct port *p, struct ctrl_msg *m, uint8_t *extra)
{
	uint8_t bit = (uint8_t)(p->say & -p->say);
	uint16_t first = p->con->old_resize ? p->rows : p->cols;
	uint16_t second = p->con->old_resize ? p->cols : p->rows;

	p->say &= (uint8_t)~bit;
	*m = (struct ctrl_msg){ .id = htole32(index_of(p)),
				.value = htole16(1) };
	switch (bit) {
	case SAY_ADD:
		m->event = htole16(EV_PORT_ADD);
		return 0;
	case SAY_CONSOLE:
		m->event = htole16(EV_CONSOLE_PORT);
		return 0;
	case SAY_NAME:
		m->event = htole16(EV_PORT_NAME);
		memcpy(extra, p->name, strlen(p->name));
		return strlen(p->name);
	case SAY_RESIZE:
		m->event = htole16(EV_RESIZE);
		m->value = 0;
		put_le16(extra, first);
		put_le16(extra + 2, second);
		return 4;
	default:
		m->event = htole16(EV_PORT_OPEN);
		m->value = htole16(p->console || stream_present(p->stream));
		return 0;
	}
}

static struct port *port_with_news(struct console *c)
{
	for (unsigned i = 0; i < c->nports; i++)
		/* What follows ADD waits until the driver made the port. */
		if (c->ports[i].say & (c->ports[i].ready ? ~0u : SAY_ADD))
			return &c->ports[i];
	return NULL;
}

static void ctrl_send(struct console *c)
{
	struct virtqueue *vq = virtio_vq(&c->dev, CTRL_RX);
	struct iovec iov[VQ_IOV_MAX];
	struct port *p;
	struct vq_chain ch;
	int rc = 0;

	if (!running(c) || !multiport(c))
		return;
	while ((p = port_with_news(c))) {
		uint8_t extra[VIRTIO_CONSOLE_NAME_MAX];
		struct ctrl_msg m;
		size_t more;

		rc = vq_pop(vq, &ch, iov, VQ_IOV_MAX);
		if (!rc && vq_kicks_on(vq))
			continue;
		if (rc <= 0)
			break; /* a kick brings us back */
		more = next_message(p, &m, extra);
		if (ch.write_len < sizeof(m) + more) {
			vq_push(vq, &ch, 0);
			virtio_fail(&c->dev, "a control buffer of %llu bytes",
				    (unsigned long long)ch.write_len);
			break;
		}
		iov_write(vq_chain_writable(&ch), ch.nwrite, 0, &m, sizeof(m));
		iov_write(vq_chain_writable(&ch), ch.nwrite, sizeof(m), extra,
			  more);
		vq_push(vq, &ch, (uint32_t)(sizeof(m) + more));
	}
	if (rc < 0)
		give_up(c, CTRL_RX, rc, &ch);
	virtio_publish(&c->dev, CTRL_RX);
}

static void say(struct port *p, uint8_t what)
{
	p->say |= what;
	ctrl_send(p->con);
}

static void set_guest_open(struct port *p, bool open)
{
	if (p->guest_open == open)
		return;
	p->guest_open = open;
	if (p->guest_open_fn)
		p->guest_open_fn(p->ctx, open);
	update_want(p);
}

static void ctrl_receive(struct console *c, const struct ctrl_msg *m)
{
	uint32_t id = le32toh(m->id);
	uint16_t event = le16toh(m->event), value = le16toh(m->value);
	struct port *p;

	if (event == EV_DEVICE_READY) {
		for (unsigned i = 0; value && i < c->nports; i++)
			c->ports[i].say |= SAY_ADD;
		return;
	}
	if (id >= c->nports)
		return;
	p = &c->ports[id];
	if (event == EV_PORT_READY) {
		p->ready = value;
		if (!value) /* the driver failed to make it */
			return;
		if (p->console)
			p->say |= SAY_CONSOLE | (p->cols ? SAY_RESIZE : 0);
		if (*p->name)
			p->say |= SAY_NAME;
		p->say |= SAY_OPEN;
	} else if (event == EV_PORT_OPEN) {
		set_guest_open(p, value);
	}
}

static void ctrl_input(struct console *c)
{
	struct virtqueue *vq = virtio_vq(&c->dev, CTRL_TX);
	unsigned budget = CTRL_QUEUE_SIZE;
	struct iovec iov[VQ_IOV_MAX];
	struct vq_chain ch;
	int rc;

	vq_kicks_off(vq);
	do {
		while ((rc = vq_pop(vq, &ch, iov, VQ_IOV_MAX)) > 0) {
			struct ctrl_msg m;

			if (iov_read(iov, ch.nread, 0, &m, sizeof(m)) ==
			    sizeof(m))
				ctrl_receive(c, &m);
			vq_push(vq, &ch, 0);
			if (!--budget) {
				virtio_queue_kick(&c->dev, CTRL_TX);
				goto out;
			}
		}
		if (rc < 0)
			give_up(c, CTRL_TX, rc, &ch);
	} while (rc == 0 && vq_kicks_on(vq));
out:
	virtio_publish(&c->dev, CTRL_TX);
	ctrl_send(c);
}

/* ---- the device ---- */

static void port_peer(void *ctx, bool present)
{
	(void)present;
	say(ctx, SAY_OPEN);
}

static const struct stream_events port_events = {
	.readable = port_readable,
	.writable = port_writable,
	.peer = port_peer,
};

static void console_notify(struct virtio_dev *d, unsigned q)
{
	struct console *c = to_console(d);
	struct port *p;

	if (q == CTRL_RX) {
		ctrl_send(c);
		return;
	}
	if (q == CTRL_TX) {
		if (multiport(c))
			ctrl_input(c);
		return;
	}
	p = &c->ports[q < 2 ? 0 : q / 2 - 1];
	if (q & 1)
		port_output(p);
	else
		update_want(p);
}

static int console_activate(struct virtio_dev *d)
{
	struct console *c = to_console(d);

	/* Without control messages there is one port, and it is open. */
	if (!multiport(c))
		set_guest_open(&c->ports[0], true);
	return 0;
}

static void console_quiesce(struct virtio_dev *d)
{
	struct console *c = to_console(d);

	/* A guest that is about to end may have spoken without being heard. */
	for (unsigned i = 0; i < c->nports; i++)
		if (!(d->status & VIRTIO_S_NEEDS_RESET))
			port_output(&c->ports[i]);
	for (unsigned i = 0; i < c->nports; i++)
		update_want(&c->ports[i]);
	virtio_quiet(d);
}

static void console_queue_quiesce(struct virtio_dev *d, unsigned q)
{
	struct console *c = to_console(d);

	if (q != CTRL_RX && q != CTRL_TX) {
		struct port *p = &c->ports[q < 2 ? 0 : q / 2 - 1];

		if (q & 1)
			p->tx_done = 0;
		else
			update_want(p);
	}
	virtio_queue_quiet(d, q);
}

static void console_resume(struct virtio_dev *d)
{
	struct console *c = to_console(d);

	for (unsigned i = 0; i < c->nports; i++)
		update_want(&c->ports[i]);
	ctrl_send(c);
}

static void console_reset(struct virtio_dev *d)
{
	struct console *c = to_console(d);

	for (unsigned i = 0; i < c->nports; i++) {
		struct port *p = &c->ports[i];

		p->ready = false;
		p->say = 0;
		p->tx_done = 0;
		set_guest_open(p, false);
	}
}

/* emerg_wr: a byte from a guest that has no queues, or no more. */
static void console_config_write(struct virtio_dev *d, unsigned off,
				 unsigned len, const uint8_t *val)
{
	struct console *c = to_console(d);
	struct iovec iov = { .iov_base = (void *)val, .iov_len = 1 };

	if (off == offsetof(struct console_config, emerg_wr) && len <= 4)
		stream_writev(c->ports[0].stream, &iov, 1);
}

static void console_save(struct virtio_dev *d, struct snap_writer *w)
{
	struct console *c = to_console(d);

	snap_u32(w, c->nports);
	for (unsigned i = 0; i < c->nports; i++) {
		struct port *p = &c->ports[i];

		snap_u8(w, p->ready);
		snap_u8(w, p->guest_open);
		snap_u8(w, p->say);
		snap_u32(w, p->tx_done);
		snap_u16(w, p->cols);
		snap_u16(w, p->rows);
	}
}

static int console_restore(struct virtio_dev *d, struct snap_body *b,
			   struct err *e)
{
	struct console *c = to_console(d);
	uint32_t n = snap_get_u32(b);

	if (n != c->nports)
		return err_set(e, -EINVAL,
			       "%s: the snapshot's console has %u ports, this "
			       "one has %u",
			       d->name, n, c->nports);
	for (unsigned i = 0; i < n; i++) {
		struct port *p = &c->ports[i];
		uint16_t cols = p->cols, rows = p->rows;

		p->ready = snap_get_u8(b);
		p->guest_open = snap_get_u8(b);
		p->say = snap_get_u8(b);
		p->tx_done = snap_get_u32(b);
		/* The terminal here may differ from the one there. */
		if (cols != snap_get_u16(b) || rows != snap_get_u16(b))
			p->say |= p->console && cols ? SAY_RESIZE : 0;
		p->say |= SAY_OPEN; /* the peer may have changed as well */
	}
	return 0;
}

static void console_destroy(struct virtio_dev *d)
{
	struct console *c = to_console(d);

	for (unsigned i = 0; i < c->nports; i++)
		stream_close(c->ports[i].stream);
	virtio_dev_fini(d);
	free(c);
}

void virtio_console_resize(struct virtio_dev *d, unsigned port, unsigned cols,
			   unsigned rows)
{
	struct console *c = to_console(d);
	struct port *p = &c->ports[port];

	if (port >= c->nports || cols > UINT16_MAX || rows > UINT16_MAX ||
	    (p->cols == cols && p->rows == rows))
		return;
	p->cols = (uint16_t)cols;
	p->rows = (uint16_t)rows;
	if (port == 0) {
		c->config.cols = htole16(p->cols);
		c->config.rows = htole16(p->rows);
		virtio_config_changed(d);
	}
	if (p->console && p->ready)
		say(p, SAY_RESIZE);
}

struct stream *virtio_console_stream(struct virtio_dev *d, unsigned port)
{
	struct console *c = to_console(d);

	return port < c->nports ? c->ports[port].stream : NULL;
}

static void add_port(struct console *c, const struct virtio_console_port *from)
{
	struct port *p = &c->ports[c->nports++];

	p->con = c;
	p->stream = from->stream;
	p->console = from->console;
	p->guest_open_fn = from->guest_open;
	p->ctx = from->ctx;
	snprintf(p->name, sizeof(p->name), "%s", from->name ? from->name : "");
}

/* Close the streams that @host handed us. */
static void drop_streams(const struct virtio_console_host *host)
{
	for (unsigned i = 0; host && i < host->nports; i++)
		stream_close(host->ports[i].stream);
	stream_close(host ? host->console : NULL);
}

/* Collect the streams: after success they are in @c, and closed with it. */
static int add_ports(struct console *c, const struct virtio_env *env,
		     const struct console_options *o, struct err *e)
{
	const struct virtio_console_host *host = env->host;
	struct virtio_console_port first = { .console = true };
	int rc = 0;

	if (host && host->nports >= VIRTIO_CONSOLE_PORTS_MAX)
		rc = err_set(e, -EINVAL, "a console has at most %d ports",
			     VIRTIO_CONSOLE_PORTS_MAX);
	else if (host && host->console)
		first.stream = host->console;
	else
		rc = stream_open(&first.stream, env->loop,
				 o->console ? o->console : "off", env->log, e);
	if (rc < 0) {
		drop_streams(host);
		return rc;
	}
	add_port(c, &first);
	for (unsigned i = 0; host && i < host->nports; i++)
		add_port(c, &host->ports[i]);
	return 0;
}

static int console_init(struct console *c, const struct virtio_env *env,
			const struct console_options *o)
{
	uint16_t sizes[2 * VIRTIO_CONSOLE_PORTS_MAX + 2];
	unsigned cols = (unsigned)o->cols, rows = (unsigned)o->rows;
	uint64_t features = F_SIZE | F_EMERG_WRITE;
	unsigned nqueues = 2;
	int rc;

	if (!cols)
		stream_terminal_size(c->ports[0].stream, &cols, &rows);
	c->ports[0].cols = (uint16_t)cols;
	c->ports[0].rows = (uint16_t)rows;
	c->config.cols = htole16((uint16_t)cols);
	c->config.rows = htole16((uint16_t)rows);
	c->config.max_nr_ports = htole32(c->nports);
	c->old_resize = o->old_resize;
	if (c->nports > 1) {
		features |= F_MULTIPORT;
		nqueues = 2 * c->nports + 2;
	}
	for (unsigned q = 0; q < nqueues; q++)
		sizes[q] = q / 2 == 1 ? CTRL_QUEUE_SIZE : DATA_QUEUE_SIZE;
	rc = virtio_dev_init(&c->dev, &virtio_dev_console, env, features, sizes,
			     nqueues, &c->config, sizeof(c->config));
	for (unsigned q = 1; !rc && q < nqueues; q += 2)
		c->dev.queues[q].immediate = true;
	return rc;
}

static int console_create(const struct virtio_env *env, const void *options,
			  struct virtio_dev **out, struct err *e)
{
	const struct console_options *o = options;
	struct console *c = calloc(1, sizeof(*c));
	int rc;

	if (!c) {
		drop_streams(env->host);
		return err_set(e, -ENOMEM, "out of memory");
	}
	rc = add_ports(c, env, o, e);
	if (rc < 0)
		goto fail;
	rc = console_init(c, env, o);
	if (rc < 0) {
		err_set(e, rc, "console device: %s", strerror(-rc));
		goto fail;
	}
	for (unsigned i = 0; i < c->nports; i++)
		stream_start(c->ports[i].stream, &port_events, &c->ports[i]);
	*out = &c->dev;
	return 0;
fail:
	for (unsigned i = 0; i < c->nports; i++)
		stream_close(c->ports[i].stream);
	free(c);
	return rc;
}

static const struct opt_desc console_opts[] = {
	OPT_STR(struct console_options, console, "console", STREAM_SPECS,
		"what the system console is connected to"),
	OPT_UINT(struct console_options, cols, "cols", 1, 65535,
		 "width (default: that of the terminal)"),
	OPT_UINT(struct console_options, rows, "rows", 1, 65535, "height"),
	OPT_BOOL(struct console_options, old_resize, "old-resize",
		 "for guests whose Linux swaps width and height (before 6.15, "
		 "without the fix in stable kernels)"),
	{ 0 },
};

const struct virtio_dev_type virtio_dev_console = {
	.name = "console",
	.summary = "the guest's console, and named ports",
	.id = 3,
	.options = console_opts,
	.options_size = sizeof(struct console_options),
	.create = console_create,
	.activate = console_activate,
	.notify = console_notify,
	.quiesce = console_quiesce,
	.queue_quiesce = console_queue_quiesce,
	.reset = console_reset,
	.resume = console_resume,
	.config_write = console_config_write,
	.save = console_save,
	.restore = console_restore,
	.state_version = 1,
	.destroy = console_destroy,
};
