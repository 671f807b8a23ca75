/*
 * arcvmm run: one VM in the foreground.
 *
 * The main thread owns the terminal and the signals: it polls the caller's
 * input, a signalfd, and the VM's end. Input goes through a pipe to the
 * console, because the escape key must be seen first; output is written by the
 * VM itself.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/term.h"
#include "cli/timeline.h"

/* How long a guest asked to stop may take before it is stopped. */
#define STOP_GRACE_NS 10000000000ull

struct run {
	struct arcvmm_config *cfg;
	struct arcvmm_vm *vm;
	const char *timeline;
	uint64_t timeout_ns; /* 0: none */
	bool console_stdio;
	enum arcvmm_log_level log_level;

	/* The input pipe, and what did not fit into it yet. */
	int in_pipe[2];
	char pending[8192];
	size_t npending;
	bool input_open;
	struct term_escape escape;

	uint64_t deadline_ns; /* of timeout_ns */
	uint64_t stop_ns; /* when a stopping guest is killed, 0: not stopping */
	int stop_signal;
	bool timed_out;
};

/* ---- options ---- */

static void print_log(void *ctx, enum arcvmm_log_level level, const char *text)
{
	static const char *const names[] = { "error: ", "warning: ", "", "" };

	(void)ctx;
	/* In raw mode a bare newline would leave a staircase. */
	fprintf(stderr, "arcvmm: %s%s%s", names[level], text,
		term_is_raw() ? "\r\n" : "\n");
}

struct flag {
	const char *name;
	const char *arg;
	const char *help;
};

/* What is the CLI's own; the rest are the library's keys. */
static const struct flag own_flags[] = {
	{ "boot-timeline", "FILE",
	  "write the milestones of the boot to FILE (JSON) and FILE.svg" },
	{ "timeout", "SECONDS",
	  "end the run after that time (exit status 124)" },
	{ "verbose", NULL, "say what is done and why; twice: more" },
	{ NULL, NULL, NULL },
};

static const struct arcvmm_key *find_key(const char *name)
{
	const struct arcvmm_key *k;

	for (unsigned i = 0; (k = arcvmm_config_key(i)); i++)
		if (!strcmp(k->name, name))
			return k;
	return NULL;
}

static int parse_seconds(const char *text, uint64_t *ns)
{
	char *end;
	double s = strtod(text, &end);

	if (end == text || *end || !(s > 0) || s > 1e9)
		return complain("--timeout: '%s' is not a number of seconds",
				text);
	*ns = (uint64_t)(s * 1e9);
	return 0;
}

static int set_own(struct run *r, const char *name, const char *value)
{
	if (!strcmp(name, "boot-timeline")) {
		r->timeline = value;
		return timeline_check(value);
	}
	if (!strcmp(name, "timeout"))
		return parse_seconds(value, &r->timeout_ns);
	if (r->log_level < ARCVMM_LOG_DEBUG) /* verbose */
		r->log_level++;
	return 0;
}

static const struct flag *find_own(const char *name)
{
	for (const struct flag *f = own_flags; f->name; f++)
		if (!strcmp(f->name, name))
			return f;
	return NULL;
}

static int set_key(struct run *r, const char *name, const char *value)
{
	struct arcvmm_error e;

	if (!strcmp(name, "console"))
		r->console_stdio = !strncmp(value, "stdio", 5);
	if (arcvmm_config_set(r->cfg, name, value, &e)) {
		/* The library names options without dashes. */
		if (e.code == -ENOENT)
			return complain("%s (see 'arcvmm help run')", e.text);
		return complain("--%s", e.text);
	}
	return 0;
}

/* One "--name[=value]" at argv[*i]; advances *i past its value. */
static int parse_flag(struct run *r, char **argv, int *i)
{
	char *name = argv[*i] + 2, *value = strchr(name, '=');
	const struct arcvmm_key *k;
	const struct flag *own;
	const char *arg;

	if (value)
		*value++ = 0;
	own = find_own(name);
	k = own ? NULL : find_key(name);
	if (!own && !k && !strncmp(name, "no-", 3)) {
		k = find_key(name + 3);
		if (k && (!k->arg || !strncmp(k->arg, "on|off", 6)) && !value)
			return set_key(r, k->name, "off");
		k = NULL;
	}
	if (!own && !k)
		return set_key(r, name, value ? value : "");
	arg = own ? own->arg : k->arg;
	if (arg && !value) {
		value = argv[*i + 1];
		if (!value)
			return complain("--%s needs a value: --%s %s", name,
					name, arg);
		++*i;
	}
	if (own && !arg && value)
		return complain("--%s takes no value", name);
	if (own)
		return set_own(r, name, value);
	return set_key(r, name, value ? value : "on");
}

static int parse(struct run *r, int argc, char **argv)
{
	int i;

	for (i = 1; i < argc; i++) {
		int rc = 0;

		if (!strcmp(argv[i], "--")) {
			i++;
			break;
		}
		if (!strcmp(argv[i], "-v"))
			rc = set_own(r, "verbose", NULL);
		else if (!strncmp(argv[i], "--", 2))
			rc = parse_flag(r, argv, &i);
		else if (*argv[i] == '-' && argv[i][1])
			rc = complain("unknown option '%s' (see 'arcvmm help "
				      "run')",
				      argv[i]);
		else
			break; /* the command, without "--" */
		if (rc)
			return rc;
	}
	if (i < argc &&
	    arcvmm_config_command(r->cfg, (const char *const *)&argv[i]))
		return complain("the command is empty");
	return 0;
}

static void print_keys(const char *group, const char *title)
{
	const struct arcvmm_key *k;

	printf("\n%s:\n", title);
	for (unsigned i = 0; (k = arcvmm_config_key(i)); i++) {
		char left[64];
		char *more;

		if (strcmp(k->group, group))
			continue;
		snprintf(left, sizeof(left), "--%s%s%s", k->name,
			 k->arg ? " " : "", k->arg ? k->arg : "");
		printf("  %-28s %s", left, k->help);
		if (k->def)
			printf(" [%s]", k->def);
		puts(k->repeat ? " (may be repeated)" : "");
		more = arcvmm_config_key_help(k->name);
		if (more)
			fputs(more, stdout);
		free(more);
	}
}

static void help_run(void)
{
	const char *word, *why;

	puts("\nBoots the kernel and runs CMD in the guest, on its console; "
	     "without CMD, the\nroot's own init. A switch is turned off by "
	     "--no-NAME.");
	print_keys("boot", "Kernel");
	print_keys("root", "Root file system");
	print_keys("machine", "Machine");
	print_keys("devices", "Devices");
	print_keys("guest", "In the guest");
	puts("\nThis run:");
	for (const struct flag *f = own_flags; f->name; f++) {
		char left[64];

		snprintf(left, sizeof(left), "--%s%s%s", f->name,
			 f->arg ? " " : "", f->arg ? f->arg : "");
		printf("  %-28s %s\n", left, f->help);
	}
	puts("\nBuilt-in command line words (one of yours displaces them):");
	for (unsigned i = 0; (word = arcvmm_cmdline_word(i, &why)); i++)
		printf("  %-28s %s\n", word, why);
	puts("\nKeys, when the console is a terminal: Ctrl-] then p presses "
	     "the power button,\nx ends the run, ? lists the keys, Ctrl-] "
	     "sends itself.\n\n"
	     "Exit status: that of CMD (127 not found, 126 not executable, 128 "
	     "+ n killed by\nsignal n). Without one: 0 power-off, 120 reboot, "
	     "121 panic, 122 crash.\n124 --timeout, 125 arcvmm could not do "
	     "it, 128 + n ended by signal n.");
}

/* ---- running ---- */

static void flush_input(struct run *r)
{
	ssize_t n;

	if (!r->npending)
		return;
	n = write(r->in_pipe[1], r->pending, r->npending);
	if (n <= 0)
		return;
	r->npending -= (size_t)n;
	memmove(r->pending, r->pending + n, r->npending);
}

static void stop_guest(struct run *r, int sig)
{
	if (r->stop_ns || arcvmm_vm_shutdown(r->vm)) {
		arcvmm_vm_kill(r->vm); /* asked twice */
		return;
	}
	r->stop_ns = now_ns() + STOP_GRACE_NS;
	r->stop_signal = sig;
}

static void take_input(struct run *r)
{
	char in[2048];
	enum term_order order;
	ssize_t n = read(STDIN_FILENO, in, sizeof(in));

	if (n <= 0) {
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		r->input_open = false;
		return;
	}
	r->npending += term_filter(&r->escape, in, (size_t)n,
				   r->pending + r->npending, &order);
	flush_input(r);
	switch (order) {
	case TERM_NONE:
		break;
	case TERM_KILL:
		arcvmm_vm_kill(r->vm);
		break;
	case TERM_POWER:
		arcvmm_vm_shutdown(r->vm);
		break;
	case TERM_HELP:
		fputs("\r\n[Ctrl-] then: p power button, x end the run, "
		      "Ctrl-] itself]\r\n",
		      stderr);
		break;
	}
}

static void take_signal(struct run *r, int sigfd)
{
	struct signalfd_siginfo si;
	unsigned cols, rows;

	if (read(sigfd, &si, sizeof(si)) != sizeof(si))
		return;
	switch (si.ssi_signo) {
	case SIGWINCH:
		if (term_size(STDIN_FILENO, &cols, &rows))
			arcvmm_vm_console_resize(r->vm, cols, rows);
		break;
	case SIGCONT:
		term_again();
		break;
	default:
		stop_guest(r, (int)si.ssi_signo);
	}
}

/* Milliseconds until the next deadline, -1 when there is none. */
static int next_timeout(const struct run *r)
{
	uint64_t at = r->deadline_ns, now = now_ns();

	if (r->stop_ns && (!at || r->stop_ns < at))
		at = r->stop_ns;
	if (!at)
		return -1;
	return at <= now ? 0 : (int)((at - now + 999999) / 1000000 % INT32_MAX);
}

static void check_deadlines(struct run *r)
{
	uint64_t now = now_ns();

	if (r->stop_ns && now >= r->stop_ns)
		arcvmm_vm_kill(r->vm);
	if (r->deadline_ns && now >= r->deadline_ns) {
		r->timed_out = true;
		arcvmm_vm_kill(r->vm);
	}
}

static void attend(struct run *r, int sigfd)
{
	enum { END, SIGNALS, INPUT, PIPE };
	struct pollfd p[] = {
		[END] = { .fd = arcvmm_vm_fd(r->vm), .events = POLLIN },
		[SIGNALS] = { .fd = sigfd, .events = POLLIN },
		[INPUT] = { .events = POLLIN },
		[PIPE] = { .events = POLLOUT },
	};

	for (;;) {
		/* Room for what one read may turn into. */
		bool room = r->npending <= sizeof(r->pending) / 2;

		p[INPUT].fd = r->input_open && room ? STDIN_FILENO : -1;
		p[PIPE].fd = r->npending ? r->in_pipe[1] : -1;
		if (poll(p, sizeof(p) / sizeof(*p), next_timeout(r)) < 0 &&
		    errno != EINTR)
			break;
		if (p[END].revents)
			break;
		if (p[SIGNALS].revents)
			take_signal(r, sigfd);
		if (p[PIPE].fd >= 0 && p[PIPE].revents)
			flush_input(r);
		if (p[INPUT].fd >= 0 && p[INPUT].revents)
			take_input(r);
		check_deadlines(r);
	}
}

static int open_input(struct run *r)
{
	if (!r->console_stdio)
		return 0;
	if (pipe2(r->in_pipe, O_CLOEXEC | O_NONBLOCK))
		return complain("pipe: %s", strerror(errno));
	r->input_open = true;
	arcvmm_config_console_fds(r->cfg, r->in_pipe[0], STDOUT_FILENO);
	return 0;
}

static int open_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGQUIT);
	sigaddset(&set, SIGWINCH);
	sigaddset(&set, SIGCONT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	/* Output to a closed pipe is an error of write(), not our death. */
	signal(SIGPIPE, SIG_IGN);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static int exit_status(const struct run *r, const struct arcvmm_result *res)
{
	if (r->timed_out)
		return complain("the run did not end within --timeout"),
		       EXIT_TIMEOUT;
	if (res->status >= 0 &&
	    (res->end == ARCVMM_END_POWER_OFF || res->end == ARCVMM_END_KILLED))
		return res->status;
	if (r->stop_signal)
		return 128 + r->stop_signal;
	switch (res->end) {
	case ARCVMM_END_POWER_OFF:
		return 0;
	case ARCVMM_END_REBOOT:
		return EXIT_REBOOT;
	case ARCVMM_END_KILLED:
		return 128 + SIGKILL;
	case ARCVMM_END_PANIC:
		complain("%s", res->text);
		return EXIT_PANIC;
	case ARCVMM_END_CRASH:
	case ARCVMM_END_ERROR:
		break;
	}
	complain("%s", res->text);
	return EXIT_CRASH;
}

static int run_vm(struct run *r)
{
	struct arcvmm_result res;
	struct arcvmm_error e;
	unsigned cols, rows;
	int sigfd, status;

	if (arcvmm_vm_create(&r->vm, r->cfg, &e))
		return complain("%s", e.text);
	if (arcvmm_vm_console_pty(r->vm))
		fprintf(stderr, "arcvmm: console on %s\n",
			arcvmm_vm_console_pty(r->vm));
	sigfd = open_signals();
	if (r->input_open && term_raw(STDIN_FILENO) &&
	    term_size(STDIN_FILENO, &cols, &rows))
		arcvmm_vm_console_resize(r->vm, cols, rows);
	if (r->timeout_ns)
		r->deadline_ns = now_ns() + r->timeout_ns;
	if (arcvmm_vm_start(r->vm, &e)) {
		term_restore();
		return complain("%s", e.text);
	}
	attend(r, sigfd);
	arcvmm_vm_wait(r->vm, &res);
	term_restore();
	status = exit_status(r, &res);
	if (r->timeline && timeline_write(r->timeline, r->vm))
		status = status ? status : EXIT_USAGE;
	close(sigfd);
	return status;
}

static int run_run(int argc, char **argv)
{
	struct run r = {
		.console_stdio = true,
		.in_pipe = { -1, -1 },
		.log_level = ARCVMM_LOG_WARN,
	};
	int rc;

	r.cfg = arcvmm_config_new();
	if (!r.cfg)
		return complain("out of memory");
	rc = parse(&r, argc, argv);
	if (!rc)
		rc = open_input(&r);
	if (!rc) {
		arcvmm_config_log(r.cfg, print_log, NULL, r.log_level);
		rc = run_vm(&r);
	}
	arcvmm_vm_destroy(r.vm);
	arcvmm_config_free(r.cfg);
	if (r.in_pipe[0] >= 0) {
		close(r.in_pipe[0]);
		close(r.in_pipe[1]);
	}
	return rc;
}

const struct verb verb_run = {
	.name = "run",
	.args = "--kernel FILE [OPTION]... [-- CMD ARG...]",
	.summary = "boot a kernel and run a command in the guest",
	.run = run_run,
	.help = help_run,
};
