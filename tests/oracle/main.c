/*
 * oracle: the host CPU judges the software CPU, one instruction at a time.
 *
 *	oracle [--seed N] [--cases N] [--seconds N] [--from K]
 *	       [--map 0-3] [--op XX] [--mode 16|32|64]
 *	       [--corpus FILE] [--save FILE] [--show N]
 *	oracle --seed N --case K	one case, in this process, in full
 *	oracle --line 'mode=.. ..'	the same for a line of text
 *	oracle --privileged		the tables of priv.c
 *	oracle --coverage [--corpus..]	those, many cases, and more for the
 *					opcodes that are left; each must end
 *
 * Theory of operation: the work is done in a child, because an instruction
 * under test may take its process along. The child keeps the number of the case
 * it is at in shared memory; when it dies or stands still, the parent counts
 * that as a finding and starts another behind it. The corpus runs first. What
 * differs is grouped by opcode; the first of each group is minimised and shown.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "enc.h"
#include "gen.h"
#include "judge.h"
#include "native.h"
#include "priv.h"
#include "rows.h"
#include "soft.h"
#include "text.h"

/* Rows: map, opcode, ModRM.reg, mandatory prefix, memory or register. */
#define ROWS (4 * 256 * 8 * 4 * 2)

/* Draws for an opcode that has a row left. */
#define PER_OPCODE 30000

struct group {
	uint32_t key;
	uint64_t count;
};

struct shared {
	uint64_t at; /* case under way */
	uint64_t count[EXCLUDED + 1]; /* by verdict */
	uint64_t died;
	uint64_t corpus_bad;
	struct group group[4096];
	unsigned groups;
	uint8_t row[2][ROWS]; /* 64-bit or not: 1 host executed it, 2 same */
	uint64_t vectors[32];
	struct rows rows;
};

struct options {
	uint64_t seed, from, cases, single;
	unsigned seconds, show;
	bool has_single, coverage;
	struct gen_only only;
	const char *corpus, *save, *line;
};

static unsigned row_of(const struct enc *e)
{
	unsigned pfx = e->f3 ? 3 : e->f2 ? 2 : e->p66 ? 1 : 0;
	unsigned mem = ENC_MEM(e), reg = e->has_modrm ? ENC_REG(e) : 0;

	return (((e->map * 256u + e->op) * 8 + reg) * 4 + pfx) * 2 + mem;
}

/* What counts as one finding: an opcode, or one of a group's. */
static uint32_t group_key(const struct enc *e)
{
	static const uint8_t one[] = { 0x80, 0x81, 0x82, 0x83, 0xc0, 0xc1,
				       0xd0, 0xd1, 0xd2, 0xd3, 0xd8, 0xd9,
				       0xda, 0xdb, 0xdc, 0xdd, 0xde, 0xdf,
				       0xf6, 0xf7, 0xfe, 0xff, 0x8e };
	static const uint8_t two[] = { 0x00, 0x01, 0x71, 0x72,
				       0x73, 0xae, 0xba, 0xc7 };
	bool group = (e->map == 0 && memchr(one, e->op, sizeof(one))) ||
		     (e->map == 1 && memchr(two, e->op, sizeof(two)));

	return e->map << 12 | (uint32_t)e->op << 4 |
	       (group ? 8 | ENC_REG(e) : 0u);
}

static void print_outcome(const char *who, const struct outcome *o)
{
	printf("  %s: vector %u error %x cr2 %" PRIx64 " rip %" PRIx64
	       " flags %" PRIx64 "\n   ",
	       who, o->vector, o->error, o->cr2, o->out.rip, o->out.rflags);
	for (int i = 0; i < 16; i++)
		printf(" %" PRIx64, o->out.gpr[i]);
	putchar('\n');
}

static void print_case(const struct ocase *c, const struct judgement *j)
{
	printf("%s\n  host/soft:%s\n", "--", j->text);
	text_write(stdout, c);
	print_outcome("host", &j->host);
	print_outcome("soft", &j->soft);
	fflush(stdout);
}

static int start_halves(void)
{
	struct err e = { 0 };
	int rc = native_init();

	if (rc) {
		fprintf(stderr, "oracle: cannot map the pages: %s\n",
			strerror(-rc));
		return rc;
	}
	rc = soft_half_init(&e);
	if (rc) {
		fprintf(stderr, "oracle: %s\n", e.text);
		return rc;
	}
	judge_init();
	return 0;
}

static struct group *group_of(struct shared *s, uint32_t key)
{
	for (unsigned i = 0; i < s->groups; i++)
		if (s->group[i].key == key)
			return &s->group[i];
	if (s->groups == 4096)
		return &s->group[4095];
	s->group[s->groups].key = key;
	return &s->group[s->groups++];
}

static void save_case(const struct options *o, const struct ocase *c)
{
	FILE *f = o->save ? fopen(o->save, "a") : NULL;

	if (!f)
		return;
	text_write(f, c);
	fclose(f);
}

static void found(struct shared *s, const struct options *o,
		  const struct ocase *c, const struct judgement *j, uint64_t k,
		  const struct enc *e)
{
	struct group *g = group_of(s, group_key(e));
	struct ocase small = *c;
	struct judgement js;

	if (g->count++ || s->groups > o->show)
		return;
	printf("case %" PRIu64 "\n", k);
	print_case(c, j);
	judge_minimise(&small, j);
	judge_case(&small, &js);
	printf("  minimised:%s\n", js.text);
	text_write(stdout, &small);
	fflush(stdout);
	save_case(o, &small);
}

static void tally(struct shared *s, const struct options *o,
		  const struct ocase *c, const struct judgement *j, uint64_t k)
{
	struct enc e;

	s->count[j->verdict]++;
	if (j->verdict == EXCLUDED)
		return;
	enc_parse(&e, c->code, CODE_MAX, c->compat);
	if (j->host.vector != 6)
		s->row[!!c->compat][row_of(&e)] |= 1;
	s->vectors[j->host.vector & 31]++;
	/* INT3 ends with its own exception. */
	rows_mark(&s->rows, c,
		  j->soft.vector == 6 ? ROW_UD
		  : j->verdict == SAME &&
				  (j->soft.vector == 1 || j->soft.vector == 3)
			  ? ROW_RUN | ROW_DONE
			  : ROW_RUN);
	if (j->verdict == DIFFERENT)
		found(s, o, c, j, k, &e);
	else if (j->verdict == SAME && j->soft.vector != 6)
		s->row[!!c->compat][row_of(&e)] |= 2;
}

/* Lines of the corpus that differ. */
static void run_corpus(struct shared *s, const struct options *o)
{
	FILE *f = fopen(o->corpus, "r");
	char line[4096];
	unsigned n = 0, bad = 0, at = 0;

	if (!f) {
		fprintf(stderr, "oracle: %s: %s\n", o->corpus, strerror(errno));
		exit(2);
	}
	while (fgets(line, sizeof(line), f)) {
		struct ocase c;
		struct judgement j;
		const char *where;

		at++;
		if (*line == '#' || *line == '\n')
			continue;
		if (!text_read(&c, line, &where)) {
			fprintf(stderr, "oracle: %s:%u: not a case at '%s'\n",
				o->corpus, at, where);
			exit(2);
		}
		n++;
		judge_case(&c, &j);
		if (j.verdict != DIFFERENT)
			continue;
		bad++;
		printf("%s:%u: differs\n", o->corpus, at);
		print_case(&c, &j);
	}
	fclose(f);
	s->corpus_bad = bad;
	printf("corpus: %u cases, %u differ\n", n, bad);
	fflush(stdout);
}

/* Cases of the opcodes that none of those before ended. */
static void run_left(struct shared *s, const struct options *o)
{
	static struct ocase c;
	static struct judgement j;
	int n = 0, last = -1;
	struct options only = { .only = { .compat = -1 }, .show = o->show };

	for (; n >= 0; n++) {
		n = rows_left(&s->rows, n, &only.only.map, &only.only.op);
		if (n < 0)
			break;
		if (last == (only.only.map << 8 | only.only.op))
			continue; /* tried, for the row before it */
		last = only.only.map << 8 | only.only.op;
		for (unsigned k = 0; k < PER_OPCODE; k++) {
			int map = -1, op = -1;

			s->at++;
			gen_case(&c, o->seed, s->at, &only.only);
			judge_case(&c, &j);
			tally(s, &only, &c, &j, s->at);
			rows_left(&s->rows, n, &map, &op);
			if (last != (map << 8 | op))
				break;
		}
	}
}

static void child(struct shared *s, const struct options *o, uint64_t from)
{
	static struct ocase c;
	static struct judgement j;

	if (start_halves())
		_exit(3);
	if (from == o->from && o->corpus)
		run_corpus(s, o);
	for (uint64_t k = from; k < o->from + o->cases; k++) {
		__atomic_store_n(&s->at, k, __ATOMIC_RELAXED);
		gen_case(&c, o->seed, k, &o->only);
		judge_case(&c, &j);
		tally(s, o, &c, &j, k);
	}
	__atomic_store_n(&s->at, o->from + o->cases, __ATOMIC_RELAXED);
	if (o->coverage)
		run_left(s, o);
	_exit(0);
}

/* Wait for @pid; kill it when it stands still or the time is up. */
static bool attend(struct shared *s, pid_t pid, uint64_t until, int *status)
{
	uint64_t last = UINT64_MAX, since = clock_ns();

	while (waitpid(pid, status, WNOHANG) == 0) {
		struct timespec ts = { 0, 20000000 };
		uint64_t at = __atomic_load_n(&s->at, __ATOMIC_RELAXED);
		uint64_t now = clock_ns();

		nanosleep(&ts, NULL);
		if (at != last) {
			last = at;
			since = now;
		}
		if (now > until || now - since > 20 * NSEC_PER_SEC) {
			kill(pid, SIGKILL);
			waitpid(pid, status, 0);
			return now > until;
		}
	}
	return false;
}

static void summary(const struct shared *s, uint64_t ns)
{
	uint64_t n = 0;
	unsigned rows[2] = { 0 }, same[2] = { 0 };

	for (int i = 0; i <= EXCLUDED; i++)
		n += s->count[i];
	for (int m = 0; m < 2; m++)
		for (unsigned i = 0; i < ROWS; i++) {
			rows[m] += s->row[m][i] & 1;
			same[m] += s->row[m][i] >> 1 & 1;
		}
	for (unsigned i = 0; i < s->groups; i++) {
		uint32_t k = s->group[i].key;

		printf("differs: map %u op %02x", k >> 12, k >> 4 & 0xff);
		if (k & 8)
			printf(" /%u", k & 7);
		printf(": %" PRIu64 "\n", s->group[i].count);
	}
	printf("%" PRIu64 " cases in %.1f s (%.0f /s): %" PRIu64
	       " same, %" PRIu64 " may differ, %" PRIu64
	       " hidden features, %" PRIu64 " lost, %" PRIu64
	       " excluded, %" PRIu64 " DIFFER, %" PRIu64 " died\n",
	       n, (double)ns / 1e9, (double)n * 1e9 / (double)ns,
	       s->count[SAME], s->count[TOLERATED], s->count[HIDDEN],
	       s->count[LOST], s->count[EXCLUDED], s->count[DIFFERENT],
	       s->died);
	printf("encodings (map, opcode, /reg, prefix, mem or reg) the host "
	       "executed: %u in 64-bit, %u in other code; "
	       "the engine did the same: %u, %u\n",
	       rows[0], rows[1], same[0], same[1]);
	printf("host vectors:");
	for (int i = 0; i < 32; i++)
		if (s->vectors[i])
			printf(" %d:%" PRIu64, i, s->vectors[i]);
	putchar('\n');
}

static int run_many(const struct options *o)
{
	struct shared *s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE,
				MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	uint64_t start = clock_ns(), from = o->from;
	uint64_t until =
		o->seconds ? start + o->seconds * NSEC_PER_SEC : UINT64_MAX;

	if (s == MAP_FAILED)
		return 2;
	s->at = from;
	if (o->coverage && priv_run(&s->rows))
		return 1;
	while (from < o->from + o->cases) {
		pid_t pid;
		int status = 0;

		fflush(NULL);
		pid = fork();
		if (pid < 0)
			return 2;
		if (!pid)
			child(s, o, from);
		if (attend(s, pid, until, &status))
			break;
		if (WIFEXITED(status) &&
		    (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 2 ||
		     WEXITSTATUS(status) == 3)) {
			if (WEXITSTATUS(status))
				return WEXITSTATUS(status);
			break;
		}
		printf("case %" PRIu64 " of seed %" PRIu64
		       ": the process died (%s %d)\n",
		       s->at, o->seed, WIFSIGNALED(status) ? "signal" : "exit",
		       WIFSIGNALED(status) ? WTERMSIG(status)
					   : WEXITSTATUS(status));
		if (++s->died > 50)
			break;
		from = s->at + 1;
	}
	summary(s, clock_ns() - start);
	if (rows_report(&s->rows, o->coverage) && o->coverage)
		return 1;
	return s->count[DIFFERENT] || s->died || s->corpus_bad ? 1 : 0;
}

static int run_one(const struct options *o)
{
	static struct ocase c;
	struct judgement j;
	const char *why, *at;

	if (start_halves())
		return 3;
	if (o->line) {
		if (!text_read(&c, o->line, &at)) {
			fprintf(stderr, "oracle: not a case at '%s'\n", at);
			return 2;
		}
	} else {
		gen_case(&c, o->seed, o->single, &o->only);
	}
	text_write(stdout, &c);
	fflush(stdout);
	why = case_excluded(&c);
	if (why) {
		printf("excluded: %s\n", why);
		return 0;
	}
	judge_case(&c, &j);
	print_case(&c, &j);
	printf("%s\n", j.verdict == SAME	? "same"
		       : j.verdict == TOLERATED ? "may differ"
		       : j.verdict == HIDDEN	? "hidden feature"
		       : j.verdict == LOST	? "lost"
						: "DIFFERENT");
	return j.verdict == DIFFERENT;
}

static const struct option longopts[] = {
	{ "seed", 1, NULL, 's' },	{ "case", 1, NULL, 'k' },
	{ "cases", 1, NULL, 'n' },	{ "seconds", 1, NULL, 't' },
	{ "from", 1, NULL, 'f' },	{ "map", 1, NULL, 'm' },
	{ "op", 1, NULL, 'o' },		{ "mode", 1, NULL, 'b' },
	{ "corpus", 1, NULL, 'c' },	{ "save", 1, NULL, 'w' },
	{ "show", 1, NULL, 'v' },	{ "line", 1, NULL, 'l' },
	{ "privileged", 0, NULL, 'p' }, { "coverage", 0, NULL, 'r' },
	{ NULL, 0, NULL, 0 },
};

int main(int argc, char **argv)
{
	struct options o = {
		.cases = 200000,
		.seed = 1,
		.show = 40,
		.only = { -1, -1, -1 },
	};
	static struct rows rows;
	int ch;

	rows_init();
	while ((ch = getopt_long(argc, argv, "", longopts, NULL)) != -1) {
		uint64_t n = optarg ? strtoull(optarg, NULL, 0) : 0;

		switch (ch) {
		case 's':
			o.seed = n;
			break;
		case 'k':
			o.single = n;
			o.has_single = true;
			break;
		case 'n':
			o.cases = n;
			break;
		case 't':
			o.seconds = (unsigned)n;
			o.cases = UINT64_MAX >> 1;
			break;
		case 'f':
			o.from = n;
			break;
		case 'm':
			o.only.map = (int)n;
			break;
		case 'o':
			o.only.op = (int)strtoul(optarg, NULL, 16);
			break;
		case 'b':
			o.only.compat = n == 64 ? 0 : n == 32 ? 1 : 2;
			break;
		case 'c':
			o.corpus = optarg;
			break;
		case 'w':
			o.save = optarg;
			break;
		case 'v':
			o.show = (unsigned)n;
			break;
		case 'l':
			o.line = optarg;
			break;
		case 'p':
			return priv_run(&rows);
		case 'r':
			o.coverage = true;
			break;
		default:
			return 2;
		}
	}
	return o.has_single || o.line ? run_one(&o) : run_many(&o);
}
