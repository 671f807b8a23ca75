/*
 * The connection table: a chained hash. The guest chooses the ports, so the
 * hash is seeded; the table doubles with its contents.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#include "base/bug.h"
#include "virtio/vsock/core.h"

static uint64_t mix(uint64_t x)
{
	x ^= x >> 32;
	x *= 0xd6e8feb86659fd93ull;
	x ^= x >> 32;
	x *= 0xd6e8feb86659fd93ull;
	return x ^ x >> 32;
}

static struct vconn **bucket(const struct vsock *v, const struct vsock_key *k)
{
	uint64_t h = v->hash_seed;

	h = mix(h ^ ((uint64_t)k->guest_port << 32 | k->host_port));
	h = mix(h ^ k->guest_cid ^ k->host_cid << 16 ^ (uint64_t)k->type << 48);
	return &v->buckets[h & (v->nbuckets - 1)];
}

bool key_equal(const struct vsock_key *a, const struct vsock_key *b)
{
	return a->guest_port == b->guest_port && a->host_port == b->host_port &&
	       a->type == b->type && a->guest_cid == b->guest_cid &&
	       a->host_cid == b->host_cid;
}

int table_init(struct vsock *v)
{
	v->nbuckets = 64;
	v->buckets = calloc(v->nbuckets, sizeof(*v->buckets));
	if (!v->buckets)
		return -ENOMEM;
	if (getrandom(&v->hash_seed, sizeof(v->hash_seed), GRND_NONBLOCK) < 0)
		v->hash_seed = (uintptr_t)v; /* at early boot of the host */
	return 0;
}

void table_fini(struct vsock *v)
{
	free(v->buckets);
	v->buckets = NULL;
}

struct vconn *table_find(const struct vsock *v, const struct vsock_key *k)
{
	struct vconn *c = *bucket(v, k);

	while (c && !key_equal(&c->key, k))
		c = c->next;
	return c;
}

/* Without memory it stays as it is: chains get longer, nothing breaks. */
static void table_grow(struct vsock *v)
{
	struct vconn **old = v->buckets;
	uint32_t n = v->nbuckets;
	struct vconn **fresh = calloc(n * 2ul, sizeof(*fresh));

	if (!fresh)
		return;
	v->buckets = fresh;
	v->nbuckets = n * 2;
	for (uint32_t i = 0; i < n; i++) {
		for (struct vconn *c = old[i], *next; c; c = next) {
			struct vconn **b = bucket(v, &c->key);

			next = c->next;
			c->next = *b;
			*b = c;
		}
	}
	free(old);
}

void table_add(struct vsock *v, struct vconn *c)
{
	struct vconn **b;

	bug_on(c->in_table);
	if (v->nconn > v->nbuckets)
		table_grow(v);
	b = bucket(v, &c->key);
	c->next = *b;
	*b = c;
	c->in_table = true;
}

void table_remove(struct vsock *v, struct vconn *c)
{
	struct vconn **p;

	if (!c->in_table)
		return;
	for (p = bucket(v, &c->key); *p != c; p = &(*p)->next)
		bug_on(!*p);
	*p = c->next;
	c->in_table = false;
}
