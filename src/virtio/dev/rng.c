/*
 * The entropy device (virtio 1.2, 5.4): fills buffers from getrandom().
 *
 * A rate, if one is set, is a bucket of bytes that fills with time and holds a
 * second's worth. A chain that finds it empty is un-popped and waits for a timer;
 * one that finds less than it asked for gets less, which the device may.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/opt.h"
#include "base/util.h"
#include "virtio/virtio.h"

#define RNG_QUEUE_SIZE 64
/* More than this is not given at once: a turn of the loop must stay short. */
#define RNG_CHAIN_MAX	((uint64_t)64 << 10)
#define RNG_TURN_CHAINS 4
/* With less than this in the bucket a chain waits, or we would drip bytes. */
#define RNG_MIN_GRANT 64u

struct rng_options {
	uint64_t rate; /* bytes per second; 0: no limit */
};

struct rng {
	struct virtio_dev dev;
	uint64_t rate;
	uint64_t bucket; /* bytes we may give now */
	uint64_t filled_ns; /* when it was filled up to this */
	struct loop_timer refill;
};

extern const struct virtio_dev_type virtio_dev_rng;

static struct rng *to_rng(struct virtio_dev *d)
{
	return container_of(d, struct rng, dev);
}

/* The bucket holds no more than a second's worth, however small that is. */
static uint64_t least(const struct rng *r)
{
	return min_of((uint64_t)RNG_MIN_GRANT, r->rate);
}

/* Up to @want bytes may be given now. */
static uint64_t grant(struct rng *r, uint64_t want)
{
	uint64_t now, ns;

	if (!r->rate)
		return want;
	now = clock_ns();
	ns = min_of(now - r->filled_ns, (uint64_t)NSEC_PER_SEC);
	if (ns == NSEC_PER_SEC) {
		r->bucket = r->rate;
		r->filled_ns = now;
	} else {
		/* Only whole bytes' worth of time is used up. */
		uint64_t bytes = ns * r->rate / NSEC_PER_SEC;

		r->bucket = min_of(r->bucket + bytes, r->rate);
		r->filled_ns += bytes * NSEC_PER_SEC / r->rate;
	}
	want = min_of(want, r->bucket);
	return want;
}

/* Fill the first @len bytes of @c: how many came. */
static uint64_t fill(const struct vq_chain *c, uint64_t len)
{
	const struct iovec *iov = vq_chain_writable(c);
	uint64_t done = 0;

	for (unsigned i = 0; i < c->nwrite && done < len; i++) {
		size_t want =
			(size_t)min_of((uint64_t)iov[i].iov_len, len - done);
		size_t got = 0;

		while (got < want) {
			ssize_t n = getrandom((char *)iov[i].iov_base + got,
					      want - got, 0);

			if (n < 0 && errno != EINTR)
				return done + got;
			got += n > 0 ? (size_t)n : 0;
		}
		done += want;
	}
	return done;
}

static void refilled(struct loop_timer *t)
{
	struct rng *r = container_of(t, struct rng, refill);

	virtio_queue_kick(&r->dev, 0);
}

/* Wake up when the bucket will hold enough for a grant. */
static void wait_for_bucket(struct rng *r)
{
	uint64_t ns = least(r) * NSEC_PER_SEC / r->rate + 1;

	if (timer_set(&r->refill, r->dev.loop, clock_ns() + ns, refilled) < 0)
		virtio_fail(&r->dev, "out of memory for a timer");
}

static void rng_notify(struct virtio_dev *d, unsigned q)
{
	struct virtqueue *vq = virtio_vq(d, q);
	struct rng *r = to_rng(d);
	struct iovec iov[VQ_IOV_MAX];
	struct vq_chain c;
	unsigned budget = RNG_TURN_CHAINS;
	int rc;

	if (r->refill.loop)
		return; /* waiting; the timer comes back here */
	vq_kicks_off(vq);
	do {
		while ((rc = vq_pop(vq, &c, iov, VQ_IOV_MAX)) > 0 && budget) {
			uint64_t want = min_of(c.write_len, RNG_CHAIN_MAX);
			uint64_t give = grant(r, want);

			if (give < want && give < least(r)) {
				vq_unpop(vq, &c);
				wait_for_bucket(r);
				goto out;
			}
			give = fill(&c, give);
			r->bucket -= r->rate ? give : 0;
			vq_push(vq, &c, (uint32_t)give);
			budget--;
		}
		if (rc > 0) { /* the guest refills as fast as we fill */
			vq_unpop(vq, &c);
			virtio_queue_kick(d, q);
			goto out;
		}
		if (rc == -EBADMSG)
			vq_push(vq, &c, 0);
		if (rc < 0)
			virtio_fail(d, "%s",
				    rc == -EBADMSG ? vq->bad : vq->broken);
	} while (rc == 0 && vq_kicks_on(vq));
out:
	virtio_publish(d, q);
}

static void rng_quiesce(struct virtio_dev *d)
{
	timer_cancel(&to_rng(d)->refill);
	virtio_quiet(d);
}

static void rng_queue_quiesce(struct virtio_dev *d, unsigned q)
{
	timer_cancel(&to_rng(d)->refill);
	virtio_queue_quiet(d, q);
}

static int rng_create(const struct virtio_env *env, const void *options,
		      struct virtio_dev **out, struct err *e)
{
	static const uint16_t sizes[] = { RNG_QUEUE_SIZE };
	const struct rng_options *o = options;
	struct rng *r = calloc(1, sizeof(*r));
	int rc;

	if (!r)
		return err_set(e, -ENOMEM, "out of memory");
	rc = virtio_dev_init(&r->dev, &virtio_dev_rng, env, 0, sizes, 1, NULL,
			     0);
	if (rc < 0) {
		free(r);
		return err_set(e, rc, "entropy device: %s", strerror(-rc));
	}
	r->rate = o->rate;
	r->bucket = o->rate;
	r->filled_ns = clock_ns();
	*out = &r->dev;
	return 0;
}

static void rng_destroy(struct virtio_dev *d)
{
	struct rng *r = to_rng(d);

	virtio_dev_fini(d);
	free(r);
}

static const struct opt_desc rng_opts[] = {
	OPT_SIZE(struct rng_options, rate, "rate", 1, GiB(1),
		 "bytes per second at most"),
	{ 0 },
};

const struct virtio_dev_type virtio_dev_rng = {
	.name = "rng",
	.summary = "entropy for the guest from the host's getrandom()",
	.id = 4,
	.options = rng_opts,
	.options_size = sizeof(struct rng_options),
	.create = rng_create,
	.notify = rng_notify,
	.quiesce = rng_quiesce,
	.queue_quiesce = rng_queue_quiesce,
	.destroy = rng_destroy,
};
