/*
 * The device core and the mmio transport: status, features, queues, resets,
 * snapshots; on a device made for the purpose, whose answers the test gives.
 */
#include "test.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "snap/snap.h"
#include "virtio/harness.h"

#define TOY_F (1ull << 3)

/* A device that holds what it pops until the test lets go. */
struct toy {
	struct virtio_dev dev;
	uint8_t config[8];
	struct vq_chain held[16];
	unsigned nheld, queue_of[16];
	unsigned activations, resets, notifies, resumes;
	bool waiting, waiting_queue[2];
	int activate_rc;
	uint32_t secret;
};

static struct toy *to_toy(struct virtio_dev *d)
{
	return container_of(d, struct toy, dev);
}

static int toy_activate(struct virtio_dev *d)
{
	to_toy(d)->activations++;
	return to_toy(d)->activate_rc;
}

static void toy_notify(struct virtio_dev *d, unsigned q)
{
	struct toy *t = to_toy(d);
	struct iovec iov[VQ_IOV_MAX];

	t->notifies++;
	vq_kicks_off(virtio_vq(d, q));
	for (;;) {
		struct vq_chain *c = &t->held[t->nheld];
		int rc = t->nheld == 16
				 ? 0
				 : vq_pop(virtio_vq(d, q), c, iov, VQ_IOV_MAX);

		if (rc < 0) {
			if (rc == -EBADMSG)
				vq_push(virtio_vq(d, q), c, 0);
			virtio_fail(d, "test");
		}
		if (rc <= 0 && !vq_kicks_on(virtio_vq(d, q)))
			return;
		t->queue_of[t->nheld] = q;
		t->nheld += rc > 0;
		if (t->nheld == 16)
			return;
	}
}

static void toy_release(struct toy *t)
{
	for (unsigned i = 0; i < t->nheld; i++)
		vq_push(virtio_vq(&t->dev, t->queue_of[i]), &t->held[i], 7);
	t->nheld = 0;
	virtio_publish(&t->dev, 0);
	virtio_publish(&t->dev, 1);
	for (unsigned q = 0; q < 2; q++) {
		if (t->waiting_queue[q])
			virtio_queue_quiet(&t->dev, q);
		t->waiting_queue[q] = false;
	}
	if (t->waiting)
		virtio_quiet(&t->dev);
	t->waiting = false;
}

static void toy_quiesce(struct virtio_dev *d)
{
	to_toy(d)->waiting = true;
	if (!to_toy(d)->nheld)
		toy_release(to_toy(d));
}

static void toy_queue_quiesce(struct virtio_dev *d, unsigned q)
{
	to_toy(d)->waiting_queue[q] = true;
	if (!to_toy(d)->nheld)
		toy_release(to_toy(d));
}

static void toy_reset(struct virtio_dev *d)
{
	to_toy(d)->resets++;
}

static void toy_resume(struct virtio_dev *d)
{
	to_toy(d)->resumes++;
}

static void toy_config_write(struct virtio_dev *d, unsigned off, unsigned len,
			     const uint8_t *val)
{
	memcpy(to_toy(d)->config + off, val, len);
}

static void toy_save(struct virtio_dev *d, struct snap_writer *w)
{
	snap_u32(w, to_toy(d)->secret);
}

static int toy_restore(struct virtio_dev *d, struct snap_body *b, struct err *e)
{
	(void)e;
	to_toy(d)->secret = snap_get_u32(b);
	return 0;
}

static void toy_destroy(struct virtio_dev *d)
{
	virtio_dev_fini(d);
	free(to_toy(d));
}

static const struct virtio_dev_type toy_type;

static int toy_create(const struct virtio_env *env, const void *options,
		      struct virtio_dev **out, struct err *e)
{
	static const uint16_t sizes[] = { 16, 16, 0 };
	struct toy *t = calloc(1, sizeof(*t));

	(void)options;
	(void)e;
	if (virtio_dev_init(&t->dev, &toy_type, env, TOY_F, sizes, 3, t->config,
			    sizeof(t->config)))
		abort();
	*out = &t->dev;
	return 0;
}

static const struct virtio_dev_type toy_type = {
	.name = "toy",
	.id = 42,
	.create = toy_create,
	.activate = toy_activate,
	.notify = toy_notify,
	.quiesce = toy_quiesce,
	.queue_quiesce = toy_queue_quiesce,
	.reset = toy_reset,
	.resume = toy_resume,
	.config_write = toy_config_write,
	.save = toy_save,
	.restore = toy_restore,
	.state_version = 1,
	.destroy = toy_destroy,
};

static struct toy *toy_open(struct harness *h)
{
	assert_int_equal(
		harness_open_type(h, &toy_type, NULL, NULL, NULL, NULL), 0);
	return to_toy(h->dev);
}

static struct harness_buf some_buf(struct harness *h)
{
	return (struct harness_buf){ harness_alloc(h, 16), 16, true };
}

/* ---- the cases ---- */

static void identity(void **state)
{
	struct harness h;

	(void)state;
	toy_open(&h);
	assert_int_equal(harness_reg(&h, 0), 0x74726976);
	assert_int_equal(harness_reg(&h, 4), 2);
	assert_int_equal(harness_reg(&h, 8), 42);
	assert_int_equal(harness_reg(&h, 0xb0), 0xffffffff); /* no SHM */
	assert_int_equal(harness_reg(&h, 0xb4), 0xffffffff);
	harness_set_reg(&h, REG_QUEUE_SEL, 1);
	assert_int_equal(harness_reg(&h, REG_QUEUE_NUM_MAX), 16);
	harness_set_reg(&h, REG_QUEUE_SEL, 2);
	assert_int_equal(harness_reg(&h, REG_QUEUE_NUM_MAX), 0);
	harness_set_reg(&h, REG_QUEUE_SEL, 0xffffffff);
	assert_int_equal(harness_reg(&h, REG_QUEUE_NUM_MAX), 0);
	harness_set_reg(&h, REG_QUEUE_NUM, 4);
	harness_set_reg(&h, REG_QUEUE_READY, 1);
	/* Registers are 32 bits wide, aligned; else nothing happens. */
	assert_int_equal(virtio_mmio_read(h.mmio, 0, 1), 0);
	assert_int_equal(virtio_mmio_read(h.mmio, 2, 4), 0);
	virtio_mmio_write(h.mmio, REG_STATUS, 1, 1);
	assert_int_equal(harness_reg(&h, REG_STATUS), 0);
	harness_close(&h);
}

static void negotiation(void **state)
{
	struct harness h;
	uint64_t ok = VIRTIO_F_VERSION_1 | TOY_F;

	(void)state;
	toy_open(&h);
	assert_int_equal(harness_negotiate(&h, ok), 11);
	assert_true(h.dev->driver_features == ok);
	/* After FEATURES_OK they are what they are. */
	harness_set_reg(&h, REG_DRIVER_FEATURES_SEL, 0);
	harness_set_reg(&h, REG_DRIVER_FEATURES, 0);
	assert_true(h.dev->driver_features == ok);
	/* A driver of before virtio 1.0, or one that wants what is not. */
	assert_true(harness_reset(&h));
	assert_int_equal(harness_negotiate(&h, TOY_F), 3);
	harness_set_reg(&h, REG_DRIVER_FEATURES_SEL, 1);
	harness_set_reg(&h, REG_DRIVER_FEATURES, 1);
	harness_set_reg(&h, REG_STATUS, 11);
	assert_int_equal(harness_reg(&h, REG_STATUS), 11);
	assert_true(harness_reset(&h));
	harness_set_reg(&h, REG_STATUS, 3);
	harness_set_reg(&h, REG_DRIVER_FEATURES_SEL, 1);
	harness_set_reg(&h, REG_DRIVER_FEATURES, 0x80000001);
	/* All at once does not go round the refusal. */
	harness_set_reg(&h, REG_STATUS, 15);
	assert_int_equal(harness_reg(&h, REG_STATUS), 3);
	assert_int_equal(to_toy(h.dev)->activations, 0);
	/* Bits 64 and up exist and are zero; setting one is refused. */
	harness_set_reg(&h, REG_DEVICE_FEATURES_SEL, 2);
	assert_int_equal(harness_reg(&h, REG_DEVICE_FEATURES), 0);
	harness_set_reg(&h, REG_DRIVER_FEATURES, 1);
	harness_set_reg(&h, REG_DRIVER_FEATURES_SEL, 5);
	harness_set_reg(&h, REG_DRIVER_FEATURES, 1);
	harness_set_reg(&h, REG_STATUS, 11);
	assert_int_equal(harness_reg(&h, REG_STATUS), 3);
	/* Status bits go by reset only; NEEDS_RESET is not the driver's. */
	assert_true(harness_reset(&h));
	harness_negotiate(&h, ok);
	harness_set_reg(&h, REG_STATUS, 1 | 64);
	assert_int_equal(harness_reg(&h, REG_STATUS), 11);
	harness_set_reg(&h, REG_STATUS, 128 | 11);
	assert_int_equal(harness_reg(&h, REG_STATUS), 128 | 11);
	harness_close(&h);
}

static void queues_latched(void **state)
{
	struct harness_used u;
	struct harness h;
	struct harness_buf b;

	(void)state;
	toy_open(&h);
	/* Before FEATURES_OK nothing can be enabled. */
	harness_queue(&h, 0, 4);
	assert_int_equal(harness_reg(&h, REG_QUEUE_READY), 0);
	harness_negotiate(&h, ~0ull);
	harness_queue(&h, 0, 4);
	assert_int_equal(harness_reg(&h, REG_QUEUE_READY), 1);
	harness_driver_ok(&h);
	/* Other addresses now come to nothing. */
	harness_set_reg(&h, REG_QUEUE_DESC, 0x7fff0000);
	harness_set_reg(&h, REG_QUEUE_NUM, 16);
	harness_set_reg(&h, REG_QUEUE_READY, 1);
	b = some_buf(&h);
	harness_post(&h, 0, &b, 1);
	harness_kick(&h, 0);
	harness_settle(&h);
	assert_int_equal(to_toy(h.dev)->nheld, 1);
	toy_release(to_toy(h.dev));
	assert_true(harness_used(&h, 0, &u));
	assert_int_equal(u.len, 7);
	assert_int_equal(harness_irqs(&h), 1);
	assert_int_equal(harness_reg(&h, REG_INTERRUPT_STATUS), 1);
	harness_set_reg(&h, REG_INTERRUPT_ACK, 1);
	assert_int_equal(harness_reg(&h, REG_INTERRUPT_STATUS), 0);
	/* A queue that was not there at DRIVER_OK does not come later. */
	harness_queue(&h, 1, 4);
	assert_int_equal(harness_reg(&h, REG_QUEUE_READY), 0);
	harness_close(&h);
}

static void enabling_rubbish(void **state)
{
	struct harness h;

	(void)state;
	toy_open(&h);
	harness_negotiate(&h, ~0ull);
	harness_set_reg(&h, REG_QUEUE_SEL, 0);
	harness_set_reg(&h, REG_QUEUE_NUM, 0x10010);
	harness_set_reg(&h, REG_QUEUE_READY, 1);
	assert_int_equal(harness_reg(&h, REG_QUEUE_READY), 0);
	assert_int_equal(harness_reg(&h, REG_STATUS), 11 | 64);
	harness_driver_ok(&h);
	/* The interrupt had to wait for DRIVER_OK. */
	assert_int_equal(harness_reg(&h, REG_INTERRUPT_STATUS), 2);
	assert_true(harness_reset(&h));
	assert_int_equal(harness_reg(&h, REG_INTERRUPT_STATUS), 0);
	harness_negotiate(&h, ~0ull);
	harness_set_reg(&h, REG_QUEUE_SEL, 0);
	harness_set_reg(&h, REG_QUEUE_NUM, 16);
	harness_set_reg(&h, REG_QUEUE_DESC + 4, 0xffffffff);
	harness_set_reg(&h, REG_QUEUE_READY, 1);
	assert_int_equal(harness_reg(&h, REG_STATUS), 11 | 64);
	harness_close(&h);
}

static void kicks_before_driver_ok(void **state)
{
	struct harness_buf b;
	struct harness h;

	(void)state;
	toy_open(&h);
	harness_negotiate(&h, ~0ull);
	harness_queue(&h, 0, 0);
	b = some_buf(&h);
	harness_post(&h, 0, &b, 1);
	harness_force_kick(&h, 0);
	harness_force_kick(&h, 1);
	harness_force_kick(&h, 77);
	harness_settle(&h);
	assert_int_equal(to_toy(h.dev)->notifies, 0);
	harness_driver_ok(&h);
	harness_settle(&h);
	assert_int_equal(to_toy(h.dev)->activations, 1);
	assert_int_equal(to_toy(h.dev)->nheld, 1);
	toy_release(to_toy(h.dev));
	harness_close(&h);
}

static void misbehaviour(void **state)
{
	struct harness_buf b;
	struct harness h;
	struct toy *t;

	(void)state;
	t = toy_open(&h);
	harness_start(&h, 0);
	harness_settle(&h);
	harness_irqs(&h);
	h.q[0].a[1] = 1000; /* index jump */
	harness_force_kick(&h, 0);
	harness_settle(&h);
	assert_int_equal(harness_reg(&h, REG_STATUS), 15 | 64);
	assert_int_equal(harness_reg(&h, REG_INTERRUPT_STATUS), 2);
	assert_int_equal(harness_irqs(&h), 1);
	assert_int_equal(t->dev.misbehaviours, 1);
	/* Deaf until reset, and then as new. */
	t->notifies = 0;
	b = some_buf(&h);
	harness_post(&h, 1, &b, 1);
	harness_force_kick(&h, 1);
	harness_settle(&h);
	assert_int_equal(t->notifies, 0);
	assert_true(harness_reset(&h));
	assert_int_equal(t->resets, 1);
	h.bump = 0x1000;
	harness_start(&h, 0);
	b = some_buf(&h);
	harness_post(&h, 0, &b, 1);
	harness_kick(&h, 0);
	harness_settle(&h);
	assert_int_equal(t->nheld, 1);
	toy_release(t);
	/* A device that cannot start. */
	assert_true(harness_reset(&h));
	t->activate_rc = -ENOMEM;
	harness_start(&h, 0);
	assert_int_equal(harness_reg(&h, REG_STATUS), 15 | 64);
	harness_close(&h);
}

static void reset_in_flight(void **state)
{
	struct harness_buf b;
	struct harness h;
	struct toy *t;

	(void)state;
	t = toy_open(&h);
	harness_start(&h, 0);
	b = some_buf(&h);
	harness_post(&h, 0, &b, 1);
	harness_kick(&h, 0);
	harness_settle(&h);
	assert_int_equal(t->nheld, 1);
	harness_set_reg(&h, REG_STATUS, 0);
	/* Not done: the device still has a chain of the driver's. */
	assert_int_equal(harness_reg(&h, REG_STATUS), 15);
	harness_set_reg(&h, REG_STATUS, 1); /* and nothing else is heard */
	harness_set_reg(&h, REG_STATUS, 0);
	assert_int_equal(harness_reg(&h, REG_STATUS), 15);
	assert_int_equal(t->resets, 0);
	toy_release(t);
	assert_int_equal(harness_reg(&h, REG_STATUS), 0);
	assert_int_equal(t->resets, 1);
	harness_set_reg(&h, REG_QUEUE_SEL, 0);
	assert_int_equal(harness_reg(&h, REG_QUEUE_READY), 0);
	assert_int_equal(h.dev->run, VIRTIO_IDLE);
	harness_close(&h);
}

static void count(void *ctx)
{
	++*(unsigned *)ctx;
}

/* The VM wants quiet while the driver resets; and the other way round. */
static void quiesce_and_reset(void **state)
{
	struct harness_buf b;
	struct harness h;
	unsigned quiet = 0;
	struct toy *t;

	(void)state;
	for (unsigned order = 0; order < 2; order++) {
		t = toy_open(&h);
		harness_start(&h, 0);
		b = some_buf(&h);
		harness_post(&h, 0, &b, 1);
		harness_kick(&h, 0);
		harness_settle(&h);
		if (order)
			harness_set_reg(&h, REG_STATUS, 0);
		virtio_dev_quiesce(h.dev, count, &quiet);
		if (!order)
			harness_set_reg(&h, REG_STATUS, 0);
		assert_int_equal(quiet, order);
		toy_release(t);
		assert_int_equal(quiet, order + 1);
		assert_int_equal(h.dev->run, VIRTIO_QUIET);
		assert_int_equal(harness_reg(&h, REG_STATUS), 0);
		virtio_dev_resume(h.dev);
		assert_int_equal(h.dev->run, VIRTIO_IDLE);
		h.bump = 0x1000;
		harness_start(&h, 0);
		assert_int_equal(t->activations, 2);
		harness_close(&h);
	}
}

static void pause_and_resume(void **state)
{
	struct harness_buf b;
	struct harness h;
	struct toy *t;

	(void)state;
	t = toy_open(&h);
	harness_start(&h, 0);
	harness_settle(&h);
	assert_true(harness_quiesce(&h));
	t->notifies = 0;
	b = some_buf(&h);
	harness_post(&h, 0, &b, 1);
	harness_force_kick(&h, 0);
	harness_settle(&h);
	assert_int_equal(t->notifies, 0);
	virtio_dev_resume(h.dev);
	harness_settle(&h);
	assert_int_equal(t->resumes, 1);
	assert_int_equal(t->nheld, 1);
	toy_release(t);
	harness_close(&h);
}

static void queue_reset(void **state)
{
	struct harness_buf b;
	struct harness_used u;
	struct harness h;
	struct toy *t;

	(void)state;
	for (unsigned by_ready = 0; by_ready < 2; by_ready++) {
		t = toy_open(&h);
		harness_start(&h, by_ready ? VIRTIO_F_RING_RESET : 0);
		b = some_buf(&h);
		harness_post(&h, 0, &b, 1);
		harness_kick(&h, 0);
		harness_settle(&h);
		harness_set_reg(&h, REG_QUEUE_SEL, 0);
		if (by_ready) {
			/* Not negotiated: no effect. */
			harness_set_reg(&h, REG_QUEUE_RESET, 1);
			assert_int_equal(harness_reg(&h, REG_QUEUE_RESET), 0);
			harness_set_reg(&h, REG_QUEUE_READY, 0);
		} else {
			harness_set_reg(&h, REG_QUEUE_RESET, 1);
		}
		assert_int_equal(harness_reg(&h, REG_QUEUE_RESET), 1);
		assert_int_equal(harness_reg(&h, REG_QUEUE_READY), 1);
		/* Queue 1 goes on meanwhile. */
		b = some_buf(&h);
		harness_post(&h, 1, &b, 1);
		harness_kick(&h, 1);
		harness_settle(&h);
		assert_int_equal(t->nheld, 2);
		toy_release(t);
		assert_int_equal(harness_reg(&h, REG_QUEUE_RESET), 0);
		assert_int_equal(harness_reg(&h, REG_QUEUE_READY), 0);
		assert_true(harness_used(&h, 1, &u));
		/* And again, elsewhere and smaller. */
		harness_queue(&h, 0, 4);
		assert_int_equal(harness_reg(&h, REG_QUEUE_READY), 1);
		b = some_buf(&h);
		harness_post(&h, 0, &b, 1);
		harness_kick(&h, 0);
		harness_settle(&h);
		assert_int_equal(t->nheld, 1);
		/* A whole reset completes a queue's. */
		harness_set_reg(&h, REG_QUEUE_READY, 0);
		harness_set_reg(&h, REG_STATUS, 0);
		toy_release(t);
		assert_int_equal(harness_reg(&h, REG_STATUS), 0);
		assert_int_equal(harness_reg(&h, REG_QUEUE_RESET), 0);
		harness_close(&h);
	}
}

static void config_space(void **state)
{
	struct harness h;
	struct toy *t;

	(void)state;
	t = toy_open(&h);
	memcpy(t->config, "\1\2\3\4\5\6\7\10", 8);
	assert_int_equal(virtio_mmio_read(h.mmio, 0x100, 1), 1);
	assert_int_equal(virtio_mmio_read(h.mmio, 0x102, 2), 0x0403);
	assert_true(virtio_mmio_read(h.mmio, 0x100, 8) == 0x0807060504030201);
	/* Not a byte outside. */
	assert_int_equal(virtio_mmio_read(h.mmio, 0x108, 1), 0xff);
	assert_int_equal(virtio_mmio_read(h.mmio, 0x106, 4), 0xffffffff);
	virtio_mmio_write(h.mmio, 0x107, 1, 0x55);
	assert_int_equal(t->config[7], 0x55);
	virtio_mmio_write(h.mmio, 0x107, 2, 0x66);
	assert_int_equal(t->config[7], 0x55);
	virtio_mmio_write(h.mmio, 0xfff, 1, 0x66);
	harness_start(&h, 0);
	assert_int_equal(harness_reg(&h, REG_CONFIG_GENERATION), 0);
	virtio_config_changed(h.dev);
	assert_int_equal(harness_reg(&h, REG_CONFIG_GENERATION), 1);
	assert_int_equal(harness_reg(&h, REG_INTERRUPT_STATUS), 2);
	harness_close(&h);
}

static void snapshot(void **state)
{
	struct harness a, b;
	struct harness_buf buf;
	struct harness_used u;
	struct snap_writer w;
	struct snap_reader r;
	struct err e = { 0 };
	struct toy *t;

	(void)state;
	t = toy_open(&a);
	harness_start(&a, VIRTIO_F_EVENT_IDX);
	buf = some_buf(&a);
	harness_post(&a, 0, &buf, 1);
	harness_kick(&a, 0);
	harness_settle(&a);
	toy_release(t); /* leaves an interrupt that nobody saw */
	t->secret = 77;
	harness_post(&a, 0, &buf, 1); /* and a chain not yet taken */
	assert_true(harness_quiesce(&a));
	snap_begin(&w);
	virtio_dev_save(a.dev, &w, 3);
	virtio_mmio_save(a.mmio, &w, 3);
	assert_int_equal(snap_finish(&w), 0);
	assert_int_equal(snap_open(&r, w.buf, w.len, &e), 0);

	t = toy_open(&b);
	memcpy(harness_ptr(&b, gpa(0), HARNESS_RAM),
	       harness_ptr(&a, gpa(0), HARNESS_RAM), HARNESS_RAM);
	assert_int_equal(virtio_dev_restore(b.dev, &r, 4, &e), -ENOENT);
	b.dev->run = VIRTIO_IDLE;
	assert_int_equal(virtio_dev_restore(b.dev, &r, 3, &e), 0);
	assert_int_equal(virtio_mmio_restore(b.mmio, &r, 3, &e), 0);
	assert_int_equal(t->secret, 77);
	assert_int_equal(harness_reg(&b, REG_STATUS), 15);
	virtio_dev_resume(b.dev);
	virtio_mmio_resume(b.mmio);
	assert_int_equal(harness_irqs(&b), 1);
	assert_int_equal(harness_reg(&b, REG_INTERRUPT_STATUS), 1);
	harness_settle(&b);
	assert_int_equal(t->activations, 0);
	assert_int_equal(t->nheld, 1);
	toy_release(t);
	b.q[0] = a.q[0]; /* the driver is in memory too */
	a.q[0].chain_len = a.q[0].next = NULL;
	b.q[0].u = harness_ptr(&b, b.q[0].used, 1);
	b.q[0].a = harness_ptr(&b, b.q[0].avail, 1);
	assert_true(harness_used(&b, 0, &u));
	assert_true(harness_used(&b, 0, &u));
	assert_false(harness_used(&b, 0, &u));
	harness_close(&a);
	harness_close(&b);

	/* A device that cannot be the same refuses. */
	assert_int_equal(harness_open(&b, "rng", "", NULL, NULL, &e), 0);
	assert_int_equal(virtio_dev_restore(b.dev, &r, 3, &e), -EINVAL);
	assert_non_null(strstr(e.text, "type 42"));
	harness_close(&b);
	free(w.buf);
}

/* The stream @r with its record @which too short, or too new. */
static void spoil(struct snap_writer *w, const struct snap_reader *r,
		  unsigned which, bool cut)
{
	struct snap_body b;
	size_t pos = 0;

	snap_begin(w);
	for (unsigned i = 0; snap_next(r, &pos, &b); i++) {
		size_t len = (size_t)(b.end - b.p);
		bool now = i == which;

		snap_record(w, b.tag, b.instance,
			    b.version + (now && !cut ? 1 : 0), b.flags);
		snap_bytes(w, b.p, len - (now && cut ? 1 : 0));
	}
	assert_int_equal(snap_finish(w), 0);
}

static void bad_snapshot(void **state)
{
	struct snap_writer good, w;
	struct snap_reader r, bad;
	struct err e = { 0 };
	struct harness a, b;

	(void)state;
	toy_open(&a);
	harness_start(&a, 0);
	assert_true(harness_quiesce(&a));
	snap_begin(&good);
	virtio_dev_save(a.dev, &good, 3);
	virtio_mmio_save(a.mmio, &good, 3);
	assert_int_equal(snap_finish(&good), 0);
	assert_int_equal(snap_open(&r, good.buf, good.len, &e), 0);
	for (unsigned i = 0; i < 6; i++) {
		int rc;

		spoil(&w, &r, i / 2, i % 2);
		assert_int_equal(snap_open(&bad, w.buf, w.len, &e), 0);
		toy_open(&b);
		rc = virtio_dev_restore(b.dev, &bad, 3, &e);
		if (!rc)
			rc = virtio_mmio_restore(b.mmio, &bad, 3, &e);
		assert_int_equal(rc, i % 2 ? -EINVAL : -ENOTSUP);
		assert_non_null(strstr(e.text, i % 2 ? "cut short" : "newer"));
		harness_close(&b);
		free(w.buf);
	}
	harness_close(&a);
	free(good.buf);
}

/* ---- on the bus, with threads ---- */

struct engine {
	unsigned doorbells, irqfds, pulses;
	int fail_after; /* doorbells; -1: never */
};

static int count_ioeventfd(void *ctx, const struct bus_ioeventfd *io, bool add)
{
	struct engine *g = ctx;

	assert_int_equal(io->addr, 0xd0000050);
	assert_int_equal(io->len, 4);
	if (add && g->fail_after >= 0 && (int)g->doorbells >= g->fail_after)
		return -ENOSPC;
	g->doorbells += add ? 1u : -1u;
	return 0;
}

static int count_irqfd(void *ctx, unsigned gsi, int fd, bool add)
{
	struct engine *g = ctx;

	assert_int_equal(gsi, 5);
	assert_true(fd >= 0);
	g->irqfds += add ? 1u : -1u;
	return 0;
}

static void count_pulse(void *ctx, unsigned gsi)
{
	struct engine *g = ctx;

	assert_int_equal(gsi, 5);
	g->pulses++;
}

static void open_attached(struct harness *h, struct virtio_mmio_host *host)
{
	struct err e = { 0 };

	toy_open(h);
	assert_int_equal(bus_create(&host->bus), 0);
	assert_int_equal(virtio_mmio_attach(h->mmio, host, 0xd0000000, 5, &e),
			 0);
}

static void attaching(void **state)
{
	struct engine g = { .fail_after = -1 };
	struct virtio_mmio_host host = { .ioeventfd = count_ioeventfd,
					 .irqfd = count_irqfd,
					 .ctx = &g };
	struct err e = { 0 };
	struct harness h;
	uint64_t v;

	(void)state;
	open_attached(&h, &host);
	assert_int_equal(g.doorbells, 2);
	assert_int_equal(g.irqfds, 1);
	assert_true(bus_read(host.bus, BUS_MMIO, 0xd0000000, 4, &v));
	assert_int_equal(v, 0x74726976);
	assert_true(bus_read(host.bus, BUS_MMIO, 0xd0000060, 4, &v));
	assert_true(bus_read(host.bus, BUS_MMIO, 0xd0000070, 4, &v));
	assert_true(bus_read(host.bus, BUS_MMIO, 0xd0000fff, 1, &v));
	virtio_mmio_detach(h.mmio);
	assert_int_equal(g.doorbells + g.irqfds, 0);
	assert_false(bus_read(host.bus, BUS_MMIO, 0xd0000000, 4, &v));
	g.fail_after = 1;
	assert_int_equal(virtio_mmio_attach(h.mmio, &host, 0xd0000000, 5, &e),
			 -ENOSPC);
	assert_int_equal(g.doorbells + g.irqfds, 0);
	assert_false(bus_read(host.bus, BUS_MMIO, 0xd0000060, 4, &v));
	virtio_mmio_detach(h.mmio);
	bus_destroy(host.bus);
	harness_close(&h);
}

/* An engine without irqfds: each interrupt is an edge made at once. */
static void pulses(void **state)
{
	struct engine g = { .fail_after = -1 };
	struct virtio_mmio_host host = { .pulse = count_pulse, .ctx = &g };
	struct harness h;
	uint64_t v;

	(void)state;
	open_attached(&h, &host);
	h.dev->irq->queue(h.dev->irq, 0);
	assert_int_equal(g.pulses, 1);
	h.dev->irq->config(h.dev->irq);
	assert_int_equal(g.pulses, 2);
	assert_true(bus_read(host.bus, BUS_MMIO, 0xd0000060, 4, &v));
	assert_int_equal(v, 3);
	virtio_mmio_resume(h.mmio); /* what is pending is signalled again */
	assert_int_equal(g.pulses, 3);
	assert_true(bus_write(host.bus, BUS_MMIO, 0xd0000064, 4, 3));
	virtio_mmio_resume(h.mmio);
	assert_int_equal(g.pulses, 3);
	assert_int_equal(read(virtio_mmio_irq_fd(h.mmio), &v, 8), -1);
	virtio_mmio_detach(h.mmio);
	assert_int_equal(g.irqfds, 0);
	bus_destroy(host.bus);
	harness_close(&h);
}

struct vcpu {
	struct bus *bus;
	bool done; /* atomic */
};

static void *reset_by_vcpu(void *arg)
{
	struct vcpu *v = arg;

	bus_write(v->bus, BUS_MMIO, 0xd0000070, 4, 0);
	__atomic_store_n(&v->done, true, __ATOMIC_RELEASE);
	return NULL;
}

/* Linux frees its rings when the write returns: it must not before. */
static void reset_blocks_vcpu(void **state)
{
	struct engine g = { .fail_after = -1 };
	struct virtio_mmio_host host = { .irqfd = count_irqfd, .ctx = &g };
	struct vcpu v[2] = { 0 };
	struct harness_buf b;
	struct err e = { 0 };
	pthread_t thread[2];
	struct harness h;
	struct toy *t;

	(void)state;
	t = toy_open(&h);
	assert_int_equal(bus_create(&host.bus), 0);
	assert_int_equal(virtio_mmio_attach(h.mmio, &host, 0xd0000000, 5, &e),
			 0);
	harness_start(&h, 0);
	b = some_buf(&h);
	harness_post(&h, 0, &b, 1);
	harness_kick(&h, 0);
	harness_settle(&h);
	for (unsigned i = 0; i < 2; i++) {
		v[i].bus = host.bus;
		pthread_create(&thread[i], NULL, reset_by_vcpu, &v[i]);
	}
	while (!h.dev->reset_pending) {
		loop_lock(h.loop);
		loop_unlock(h.loop);
	}
	usleep(20000);
	/* The loop is free while the vCPUs wait. */
	loop_lock(h.loop);
	assert_false(__atomic_load_n(&v[0].done, __ATOMIC_ACQUIRE));
	assert_false(__atomic_load_n(&v[1].done, __ATOMIC_ACQUIRE));
	toy_release(t);
	loop_unlock(h.loop);
	for (unsigned i = 0; i < 2; i++)
		pthread_join(thread[i], NULL);
	assert_int_equal(harness_reg(&h, REG_STATUS), 0);
	virtio_mmio_detach(h.mmio);
	bus_destroy(host.bus);
	harness_close(&h);
}

static void registry(void **state)
{
	(void)state;
	for (unsigned i = 0; virtio_dev_types[i]; i++) {
		const struct virtio_dev_type *t = virtio_dev_types[i];

		assert_ptr_equal(virtio_dev_type_by_name(t->name), t);
		assert_non_null(t->create);
		assert_non_null(t->destroy);
		assert_non_null(t->summary);
	}
	assert_null(virtio_dev_type_by_name("nonesuch"));
	assert_ptr_equal(virtio_dev_type_by_flag("disk"),
			 virtio_dev_type_by_name("blk"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(identity),
		cmocka_unit_test(negotiation),
		cmocka_unit_test(queues_latched),
		cmocka_unit_test(enabling_rubbish),
		cmocka_unit_test(kicks_before_driver_ok),
		cmocka_unit_test(misbehaviour),
		cmocka_unit_test(reset_in_flight),
		cmocka_unit_test(quiesce_and_reset),
		cmocka_unit_test(pause_and_resume),
		cmocka_unit_test(queue_reset),
		cmocka_unit_test(config_space),
		cmocka_unit_test(snapshot),
		cmocka_unit_test(bad_snapshot),
		cmocka_unit_test(attaching),
		cmocka_unit_test(pulses),
		cmocka_unit_test(reset_blocks_vcpu),
		cmocka_unit_test(registry),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
