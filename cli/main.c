/* The command line: verbs, and what they share. */
#include "cli/cli.h"

#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

const struct verb *const verbs[] = {
	&verb_run,	  &verb_exec,	 &verb_cp,     &verb_ps,
	&verb_logs,	  &verb_stop,	 &verb_kill,   &verb_pause,
	&verb_resume,	  &verb_stats,	 &verb_doctor, &verb_vhost_user_vsock,
	&verb_completion, &verb_version, &verb_help,   NULL,
};

static uint64_t started_ns;

uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t process_start_ns(void)
{
	return started_ns;
}

int complain(const char *fmt, ...)
{
	va_list ap;

	fputs("arcvmm: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	return EXIT_USAGE;
}

int parse_seconds(const char *what, const char *text, uint64_t *ns)
{
	char *end;
	double s = strtod(text, &end);

	if (end == text || *end || !(s > 0) || s > 1e9)
		return complain("%s: '%s' is not a number of seconds", what,
				text);
	*ns = (uint64_t)(s * 1e9);
	return 0;
}

int limits_add(struct limits *l, const char *text)
{
	struct arcvmm_limit limit;
	struct arcvmm_error e;
	size_t i = 0;

	if (arcvmm_limit_parse(&limit, text, &e))
		return complain("--%s", e.text);
	while (i < l->n && l->v[i].resource != limit.resource)
		i++;
	l->v[i] = limit; /* there are no more resources than places */
	l->n += i == l->n;
	return 0;
}

int signals_open(void)
{
	static const int numbers[] = { SIGINT,	SIGTERM,  SIGHUP,
				       SIGQUIT, SIGWINCH, SIGCONT };
	sigset_t set;

	sigemptyset(&set);
	for (unsigned i = 0; i < sizeof(numbers) / sizeof(*numbers); i++)
		sigaddset(&set, numbers[i]);
	sigprocmask(SIG_BLOCK, &set, NULL);
	/* Output to a closed pipe is an error of write(), not our death. */
	signal(SIGPIPE, SIG_IGN);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

void descriptors_raise(void)
{
	struct rlimit rl;

	if (getrlimit(RLIMIT_NOFILE, &rl) == 0) {
		rl.rlim_cur = rl.rlim_max;
		setrlimit(RLIMIT_NOFILE, &rl);
	}
}

/* ---- help and version ---- */

static int run_version(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	printf("arcvmm %s\n", arcvmm_version());
	return 0;
}

const struct verb verb_version = {
	.name = "version",
	.args = "",
	.summary = "print the version",
	.run = run_version,
};

void print_help(const struct verb *v)
{
	printf("usage: arcvmm %s %s\n\n%s\n", v->name, v->args, v->summary);
	if (v->help)
		v->help();
}

static const struct verb *find_verb(const char *name)
{
	for (unsigned i = 0; verbs[i]; i++)
		if (!strcmp(verbs[i]->name, name))
			return verbs[i];
	return NULL;
}

/* The verb that shares the longest start with @name, for a hint. */
static const char *similar_verb(const char *name)
{
	const char *best = NULL;
	size_t best_n = 0;

	for (unsigned i = 0; verbs[i]; i++) {
		size_t n = 0;

		while (name[n] && name[n] == verbs[i]->name[n])
			n++;
		if (n > best_n) {
			best_n = n;
			best = verbs[i]->name;
		}
	}
	return best;
}

static void print_overview(void)
{
	puts("arcvmm - boot a Linux kernel in a microVM\n\n"
	     "usage: arcvmm VERB [OPTION]...\n");
	for (unsigned i = 0; verbs[i]; i++)
		printf("  %-18s %s\n", verbs[i]->name, verbs[i]->summary);
	puts("\n'arcvmm help VERB' tells more.");
}

static int unknown_verb(const char *name)
{
	const char *near = similar_verb(name);

	if (near)
		return complain("there is no verb '%s'; did you mean '%s'?",
				name, near);
	return complain("there is no verb '%s'; see 'arcvmm help'", name);
}

static int run_help(int argc, char **argv)
{
	const struct verb *v;

	if (argc < 2) {
		print_overview();
		return 0;
	}
	v = find_verb(argv[1]);
	if (!v)
		return unknown_verb(argv[1]);
	print_help(v);
	return 0;
}

const struct verb verb_help = {
	.name = "help",
	.args = "[VERB]",
	.summary = "explain a verb",
	.run = run_help,
};

/* Whoever started us without them: nothing else may get these numbers. */
static void reserve_stdio(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

int main(int argc, char **argv)
{
	struct timespec cpu;
	const struct verb *v;

	reserve_stdio();
	/* What the process has used so far went into its own start. */
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
	started_ns = now_ns() - ((uint64_t)cpu.tv_sec * 1000000000u +
				 (uint64_t)cpu.tv_nsec);
	if (argc < 2) {
		print_overview();
		return EXIT_USAGE;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))
		return run_help(argc - 1, argv + 1);
	if (!strcmp(argv[1], "--version"))
		return run_version(argc - 1, argv + 1);
	v = find_verb(argv[1]);
	if (!v)
		return unknown_verb(argv[1]);
	if (argc > 2 &&
	    (!strcmp(argv[2], "--help") || !strcmp(argv[2], "-h"))) {
		print_help(v);
		return 0;
	}
	return v->run(argc - 1, argv + 1);
}
