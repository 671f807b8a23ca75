/*
 * Locked instructions and store ordering between CPUs: atomics [ROUNDS]
 *
 * Each check runs threads that start together. Counters that several increase
 * must end at the sum; values handed out must be handed out once; pairs that
 * are exchanged as one must never be seen half. The same at addresses that
 * cross a cache line and a page. Then litmus tests: a few loads and stores of
 * two or four threads, many instances of them in a row, and the outcomes that
 * the x86 memory model (SDM vol. 3, 9.2) forbids must not be among the results.
 */
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

#define MAX_THREADS 8
#define PAGE	    4096

static unsigned threads, rounds = 20;

/* ---- starting together ---- */

struct team {
	unsigned size, arrived, turn;
};

/*
 * Another turn of waiting. A CPU of a guest may itself be waiting for a CPU of
 * the host, which spinning ones keep: sleeping gives it up.
 */
static void spin_or_sleep(unsigned *n)
{
	static const struct timespec moment = { 0, 1000 };

	if (++*n % 1024)
		__builtin_ia32_pause();
	else
		nanosleep(&moment, NULL);
}

static void meet(struct team *t)
{
	unsigned turn = __atomic_load_n(&t->turn, __ATOMIC_ACQUIRE), n = 0;

	if (__atomic_add_fetch(&t->arrived, 1, __ATOMIC_ACQ_REL) == t->size) {
		t->arrived = 0;
		__atomic_store_n(&t->turn, turn + 1, __ATOMIC_RELEASE);
		return;
	}
	while (__atomic_load_n(&t->turn, __ATOMIC_ACQUIRE) == turn)
		spin_or_sleep(&n);
}

struct worker {
	pthread_t thread;
	unsigned id;
	void (*run)(struct worker *w);
	uint64_t bad, seen;
	unsigned pace; /* of litmus tests: the instance it is at */
} __attribute__((aligned(64)));

static struct worker worker[MAX_THREADS];
static struct team team;

static void *enter(void *p)
{
	struct worker *w = p;

	meet(&team);
	w->run(w);
	return NULL;
}

/* What the workers counted, summed. */
static struct worker run(unsigned n, void (*fn)(struct worker *w))
{
	struct worker sum = { 0 };

	team = (struct team){ .size = n };
	for (unsigned i = 0; i < n; i++) {
		worker[i] = (struct worker){ .id = i, .run = fn };
		must(!pthread_create(&worker[i].thread, NULL, enter,
				     &worker[i]),
		     "pthread_create");
	}
	for (unsigned i = 0; i < n; i++) {
		pthread_join(worker[i].thread, NULL);
		sum.bad += worker[i].bad;
		sum.seen += worker[i].seen;
	}
	return sum;
}

/* ---- counters ---- */

static char *at; /* the operand of the check under way */
static uint64_t turns;

/* The value before. */
#define XADD(type)                                           \
	static uint64_t xadd_##type(void *p, uint64_t by)    \
	{                                                    \
		type v = (type)by;                           \
                                                             \
		__asm__ volatile("lock xadd %0, %1"          \
				 : "+q"(v), "+m"(*(type *)p) \
				 :                           \
				 : "cc", "memory");          \
		return v;                                    \
	}
#define CMPXCHG(type)                                                   \
	static uint64_t cmpxchg_##type(void *p, uint64_t by)            \
	{                                                               \
		type old = *(volatile type *)p;                         \
		bool done;                                              \
                                                                        \
		do {                                                    \
			type new = (type)(old + by);                    \
                                                                        \
			__asm__ volatile("lock cmpxchg %3, %1"          \
					 : "+a"(old), "+m"(*(type *)p), \
					   "=@ccz"(done)                \
					 : "q"(new)                     \
					 : "memory");                   \
		} while (!done);                                        \
		return old;                                             \
	}
XADD(uint8_t)
XADD(uint16_t)
XADD(uint32_t)
XADD(uint64_t)
CMPXCHG(uint8_t)
CMPXCHG(uint16_t)
CMPXCHG(uint32_t)
CMPXCHG(uint64_t)

static const struct {
	const char *name;
	uint64_t (*step)(void *p, uint64_t by);
	unsigned size;
} counters[] = {
	{ "lock xadd 8", xadd_uint8_t, 1 },
	{ "lock xadd 16", xadd_uint16_t, 2 },
	{ "lock xadd 32", xadd_uint32_t, 4 },
	{ "lock xadd 64", xadd_uint64_t, 8 },
	{ "lock cmpxchg 8", cmpxchg_uint8_t, 1 },
	{ "lock cmpxchg 16", cmpxchg_uint16_t, 2 },
	{ "lock cmpxchg 32", cmpxchg_uint32_t, 4 },
	{ "lock cmpxchg 64", cmpxchg_uint64_t, 8 },
};
static unsigned counter;

/* One's own old values rise; a neighbour's bytes stay. */
static void count(struct worker *w)
{
	uint64_t last = 0;

	for (uint64_t i = 0; i < turns; i++) {
		uint64_t old = counters[counter].step(at, 1);

		if (counters[counter].size == 8 && i && old <= last)
			w->bad++;
		last = old;
	}
}

static void check_counter(unsigned which, char *where, const char *place)
{
	unsigned size = counters[which].size;
	uint64_t mask = size == 8 ? ~0ull : (1ull << 8 * size) - 1;
	uint64_t got = 0, want = turns * threads & mask;
	struct worker sum;
	char name[64];

	counter = which;
	at = where;
	memset(where - 8, 0x5a, 24);
	memset(where, 0, size);
	sum = run(threads, count);
	memcpy(&got, where, size);
	for (int i = -8; i < 16; i++)
		if ((i < 0 || i >= (int)size) && where[i] != 0x5a)
			sum.bad++;
	snprintf(name, sizeof(name), "%s%s", counters[which].name, place);
	check(got == want && !sum.bad, name, "%llu of %llu, %llu odd",
	      (unsigned long long)got, (unsigned long long)want,
	      (unsigned long long)sum.bad);
}

/* ---- pairs ---- */

static bool cmpxchg16b(void *p, uint64_t old[2], uint64_t a, uint64_t b)
{
	bool done;

	__asm__ volatile("lock cmpxchg16b %1"
			 : "=@ccz"(done), "+m"(*(__int128 *)p), "+a"(old[0]),
			   "+d"(old[1])
			 : "b"(a), "c"(b)
			 : "memory");
	return done;
}

static bool cmpxchg8b(void *p, uint64_t old[2], uint64_t a, uint64_t b)
{
	uint32_t lo = (uint32_t)old[0], hi = (uint32_t)old[1];
	bool done;

	__asm__ volatile("lock cmpxchg8b %1"
			 : "=@ccz"(done), "+m"(*(uint64_t *)p), "+a"(lo),
			   "+d"(hi)
			 : "b"((uint32_t)a), "c"((uint32_t)b)
			 : "memory");
	old[0] = lo;
	old[1] = hi;
	return done;
}

static bool (*pair_op)(void *p, uint64_t old[2], uint64_t a, uint64_t b);
static uint64_t pair_mask;

/* The second word is a function of the first. */
static uint64_t twin(uint64_t a)
{
	return ~(a * 0x9e3779b97f4a7c15) & pair_mask;
}

static void exchange_pairs(struct worker *w)
{
	uint64_t old[2] = { 0, twin(0) };

	for (uint64_t i = 0; i < turns; i++)
		while (!pair_op(at, old, (old[0] + 1) & pair_mask,
				twin((old[0] + 1) & pair_mask)))
			if (old[1] != twin(old[0]))
				w->bad++;
}

static void check_pair(const char *name, void *where, bool wide)
{
	uint64_t old[2] = { 0 };
	struct worker sum;

	pair_op = wide ? cmpxchg16b : cmpxchg8b;
	pair_mask = wide ? ~0ull : 0xffffffff;
	old[1] = twin(0);
	at = where;
	memcpy(at, old, 8);
	if (wide)
		memcpy(at + 8, old + 1, 8);
	else
		memcpy(at + 4, old + 1, 4);
	sum = run(threads, exchange_pairs);
	while (!pair_op(at, old, old[0], old[1]))
		;
	check(old[0] == turns * threads && old[1] == twin(old[0]) && !sum.bad,
	      name, "%llu of %llu, %llu halves", (unsigned long long)old[0],
	      (unsigned long long)(turns * threads),
	      (unsigned long long)sum.bad);
}

/* ---- bits and bytes of one word ---- */

/* Each worker owns a bit; nobody else changes it. */
static void own_bit(struct worker *w)
{
	uint64_t *p = (uint64_t *)(void *)at, bit = 9 * w->id + 1;
	bool c, set = false;

	for (uint64_t i = 0; i < turns; i++) {
		switch (i % 3) {
		case 0:
			__asm__ volatile("lock bts %2, %1"
					 : "=@ccc"(c), "+m"(*p)
					 : "r"(bit)
					 : "memory");
			w->bad += c != set;
			set = true;
			break;
		case 1:
			__asm__ volatile("lock btr %2, %1"
					 : "=@ccc"(c), "+m"(*p)
					 : "r"(bit)
					 : "memory");
			w->bad += c != set;
			set = false;
			break;
		default:
			__asm__ volatile("lock btc %2, %1"
					 : "=@ccc"(c), "+m"(*p)
					 : "r"(bit)
					 : "memory");
			w->bad += c != set;
			set = !set;
		}
	}
	if (set)
		__asm__ volatile("lock btr %1, %0"
				 : "+m"(*p)
				 : "r"(bit)
				 : "cc", "memory");
}

/* Each owns a byte, by OR, AND, XOR, ADD, SUB, NOT, NEG of the whole word. */
static void own_byte(struct worker *w)
{
	uint64_t *p = (uint64_t *)(void *)at;
	unsigned shift = 8 * w->id;
	uint8_t mine = 0;

#define LOCKED(op, v)                         \
	__asm__ volatile("lock " op " %1, %0" \
			 : "+m"(*p)           \
			 : "r"(v)             \
			 : "cc", "memory")
	for (uint64_t i = 0; i < turns; i++) {
		uint64_t bits = (i * 0x35 + 1) & 0x7f;

		switch (i % 3) {
		case 0:
			LOCKED("or", bits << shift);
			mine |= (uint8_t)bits;
			break;
		case 1:
			LOCKED("and", ~(bits << shift));
			mine &= (uint8_t)~bits;
			break;
		default:
			LOCKED("xor", bits << shift);
			mine ^= (uint8_t)bits;
		}
		if ((uint8_t)(__atomic_load_n(p, __ATOMIC_RELAXED) >> shift) !=
		    mine)
			w->bad++;
	}
	LOCKED("sub", (uint64_t)mine << shift);
}

/* A plain byte store beside locked ones of the neighbours. */
static void plain_byte(struct worker *w)
{
	volatile uint8_t *p = (uint8_t *)at + w->id;

	for (uint64_t i = 0; i < turns; i++) {
		*p = (uint8_t)i;
		if (*p != (uint8_t)i)
			w->bad++;
		__asm__ volatile("lock incb %0\n\tlock decb %0"
				 : "+m"(*p)
				 :
				 : "cc", "memory");
		__asm__ volatile("lock notb %0\n\tlock notb %0\n\tlock negb %0"
				 "\n\tlock negb %0"
				 : "+m"(*p)
				 :
				 : "cc", "memory");
		if (*p != (uint8_t)i)
			w->bad++;
	}
	*p = 0;
}

static uint32_t spin;
static uint64_t guarded[2];

static void under_lock(struct worker *w)
{
	for (uint64_t i = 0; i < turns; i++) {
		uint32_t v = 1;
		unsigned n = 0;

		for (;;) {
			v = 1;
			__asm__ volatile("xchg %0, %1"
					 : "+r"(v), "+m"(spin)
					 :
					 : "memory");
			if (!v)
				break;
			spin_or_sleep(&n);
		}
		if (guarded[0] != guarded[1])
			w->bad++;
		guarded[0]++;
		guarded[1]++;
		__asm__ volatile("movl $0, %0" : "=m"(spin) : : "memory");
	}
}

static void check_words(char *where)
{
	struct worker sum;
	uint64_t left;

	at = where;
	memset(where, 0, 64);
	sum = run(threads, own_bit);
	memcpy(&left, where, 8);
	check(!left && !sum.bad, "lock bts, btr, btc", "%llu odd",
	      (unsigned long long)sum.bad);
	memset(where, 0, 8);
	sum = run(threads, own_byte);
	memcpy(&left, where, 8);
	check(!left && !sum.bad, "lock or, and, xor, sub", "%llu odd",
	      (unsigned long long)sum.bad);
	memset(where, 0, 8);
	sum = run(threads, plain_byte);
	memcpy(&left, where, 8);
	check(!left && !sum.bad, "lock inc, dec, not, neg; plain stores",
	      "%llu odd", (unsigned long long)sum.bad);
	guarded[0] = guarded[1] = 0;
	sum = run(threads, under_lock);
	check(guarded[0] == turns * threads && !sum.bad, "xchg as a lock",
	      "%llu of %llu, %llu odd", (unsigned long long)guarded[0],
	      (unsigned long long)(turns * threads),
	      (unsigned long long)sum.bad);
}

/* ---- litmus tests ---- */

#define CELLS 2048

/* x and y of one instance, in lines of their own; what was read. */
static struct cell {
	uint32_t x __attribute__((aligned(64)));
	uint32_t y __attribute__((aligned(64)));
	uint32_t r[4] __attribute__((aligned(64)));
} * cells;

static const struct litmus *test;

#define LOAD(from, to) \
	__asm__ volatile("movl %1, %0" : "=r"(to) : "m"(from) : "memory")
#define STORE(to) __asm__ volatile("movl $1, %0" : "=m"(to) : : "memory")
#define FENCE()	  __asm__ volatile("mfence" : : : "memory")

static void sb(struct cell *c, unsigned id)
{
	if (id) {
		STORE(c->y);
		LOAD(c->x, c->r[1]);
	} else {
		STORE(c->x);
		LOAD(c->y, c->r[0]);
	}
}
static void sb_mfence(struct cell *c, unsigned id)
{
	if (id) {
		STORE(c->y);
		FENCE();
		LOAD(c->x, c->r[1]);
	} else {
		STORE(c->x);
		FENCE();
		LOAD(c->y, c->r[0]);
	}
}
static void sb_locked(struct cell *c, unsigned id)
{
	uint32_t one = 1, other = 0;

	if (id) {
		__asm__ volatile("xchg %0, %1"
				 : "+r"(one), "+m"(c->y)::"memory");
		LOAD(c->x, c->r[1]);
	} else {
		STORE(c->x);
		__asm__ volatile("lock orl $0, %0"
				 : "+m"(other)::"cc", "memory");
		LOAD(c->y, c->r[0]);
	}
}
static bool both_zero(const uint32_t *r)
{
	return !r[0] && !r[1];
}

static void mp(struct cell *c, unsigned id)
{
	if (id) {
		LOAD(c->y, c->r[0]);
		LOAD(c->x, c->r[1]);
	} else {
		STORE(c->x);
		STORE(c->y);
	}
}
static void mp_nt(struct cell *c, unsigned id)
{
	if (id) {
		mp(c, id);
		return;
	}
	__asm__ volatile("movnti %1, %0\n\tsfence"
			 : "=m"(c->x)
			 : "r"(1)
			 : "memory");
	STORE(c->y);
}
static void mp_string(struct cell *c, unsigned id)
{
	void *to = &c->x;
	uint64_t n = 1;

	if (id) {
		mp(c, id);
		return;
	}
	__asm__ volatile("rep stosl" : "+D"(to), "+c"(n) : "a"(1) : "memory");
	STORE(c->y);
}
static bool one_zero(const uint32_t *r)
{
	return r[0] && !r[1];
}

static void lb(struct cell *c, unsigned id)
{
	if (id) {
		LOAD(c->y, c->r[1]);
		STORE(c->x);
	} else {
		LOAD(c->x, c->r[0]);
		STORE(c->y);
	}
}
static bool both_one(const uint32_t *r)
{
	return r[0] && r[1];
}

static void iriw(struct cell *c, unsigned id)
{
	switch (id) {
	case 0:
		STORE(c->x);
		break;
	case 1:
		STORE(c->y);
		break;
	case 2:
		LOAD(c->x, c->r[0]);
		LOAD(c->y, c->r[1]);
		break;
	default:
		LOAD(c->y, c->r[2]);
		LOAD(c->x, c->r[3]);
	}
}
static bool opposite(const uint32_t *r)
{
	return r[0] && !r[1] && r[2] && !r[3];
}

/* One location read twice: never the old value after the new. */
static void corr(struct cell *c, unsigned id)
{
	if (id) {
		LOAD(c->x, c->r[0]);
		LOAD(c->x, c->r[1]);
	} else {
		STORE(c->x);
	}
}

static const struct litmus {
	const char *name;
	void (*step)(struct cell *c, unsigned id);
	bool (*outcome)(const uint32_t *r);
	unsigned threads;
	bool allowed;
} litmus[] = {
	{ "SB", sb, both_zero, 2, true },
	{ "SB with mfence", sb_mfence, both_zero, 2, false },
	{ "SB with xchg, lock or", sb_locked, both_zero, 2, false },
	{ "MP", mp, one_zero, 2, false },
	{ "MP with movnti, sfence", mp_nt, one_zero, 2, false },
	{ "MP with rep stos", mp_string, one_zero, 2, false },
	{ "LB", lb, both_one, 2, false },
	{ "IRIW", iriw, opposite, 4, false },
	{ "CoRR", corr, one_zero, 2, false },
};

/* Side by side with the others, or a little before or after them. */
static void keep_pace(struct worker *w, unsigned pace)
{
	unsigned spins = 0;

	__atomic_store_n(&w->pace, pace, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < test->threads; i++)
		while ((int)(__atomic_load_n(&worker[i].pace,
					     __ATOMIC_ACQUIRE) -
			     pace) < 0)
			spin_or_sleep(&spins);
	for (unsigned i = pace >> 2 * w->id & 3; i; i--)
		__builtin_ia32_pause();
}

static void litmus_worker(struct worker *w)
{
	for (unsigned n = 0; n < rounds; n++) {
		if (!w->id)
			memset(cells, 0, CELLS * sizeof(*cells));
		meet(&team);
		for (unsigned i = 0; i < CELLS; i++) {
			keep_pace(w, n * CELLS + i + 1);
			test->step(&cells[i], w->id);
		}
		meet(&team);
		if (w->id)
			continue;
		for (unsigned i = 0; i < CELLS; i++) {
			w->bad += test->outcome(cells[i].r);
			w->seen += cells[i].r[0] != cells[i].r[1];
		}
	}
}

static void check_litmus(const struct litmus *t)
{
	struct worker sum;

	test = t;
	sum = run(t->threads, litmus_worker);
	check(t->allowed || !sum.bad, t->name,
	      "%u instances, %llu times the %s outcome, %llu overlapped",
	      rounds * CELLS, (unsigned long long)sum.bad,
	      t->allowed ? "allowed" : "forbidden",
	      (unsigned long long)sum.seen);
}

int main(int argc, char **argv)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	char *mem = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	const unsigned n = sizeof(counters) / sizeof(counters[0]);

	must(mem != MAP_FAILED, "mmap");
	must(!posix_memalign((void **)&cells, 64, CELLS * sizeof(*cells)),
	     "memory");
	if (argc > 1)
		rounds = (unsigned)atoi(argv[1]);
	turns = rounds * 1000;
	threads = cpus < 2	       ? 2
		  : cpus > MAX_THREADS ? MAX_THREADS
				       : (unsigned)cpus;
	printf("atomics: %ld CPUs, %u threads, %u rounds\n", cpus, threads,
	       rounds);
	for (unsigned i = 0; i < n; i++)
		check_counter(i, mem + 64, "");
	/* A page end is a line end: the split ones are rarer, and slower. */
	turns = rounds * 100;
	for (unsigned i = 0; i < n; i++) {
		if (counters[i].size == 1)
			continue;
		check_counter(i, mem + 1024 - counters[i].size / 2,
			      " across a line");
		check_counter(i, mem + PAGE - counters[i].size / 2,
			      " across a page");
	}
	check_pair("lock cmpxchg8b across a line", mem + 1020, false);
	check_pair("lock cmpxchg8b across a page", mem + PAGE - 4, false);
	turns = rounds * 1000;
	check_pair("lock cmpxchg8b", mem + 64, false);
	check_pair("lock cmpxchg16b", mem + 64, true);
	check_words(mem + 128);
	for (unsigned i = 0; i < sizeof(litmus) / sizeof(litmus[0]); i++)
		check_litmus(&litmus[i]);
	return check_end("atomics");
}
