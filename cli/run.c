/*
 * arcvmm run: one VM.
 *
 * The main thread owns the terminal and the signals. It polls the VM's end, a
 * signalfd, the control socket, and what the way of running adds:
 *
 *   by the agent   (a command) the guest waits for orders ("serve"); a session
 *                  thread runs the command over vsock and streams its output;
 *                  then the guest is asked to power off. The console goes to
 *                  the log.
 *   on the console (--console, no command, no agent) input goes through a pipe,
 *                  because the escape key must be seen first; output is written
 *                  by the VM itself.
 *   detached       the console goes to the log; the command, if any, runs on
 *                  it.
 */
#include "cli/run.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/consolelog.h"
#include "cli/control.h"
#include "cli/registry.h"
#include "cli/session.h"
#include "cli/term.h"
#include "cli/timeline.h"

/* How long a guest may take until its agent answers. */
#define BOOT_WAIT_MS 300000
/* How far the command's end may be behind the guest's. */
#define LAST_WORD_MS 100

struct run {
	struct run_options o;
	struct arcvmm_vm *vm;
	struct instance instance;
	bool registered;
	struct control control;
	struct console_log log;
	int log_out; /* the console's end of it */
	int sigfd;
	int ready; /* detached: tells the parent, -1 otherwise */

	/* On the console: the input pipe, and what did not fit into it yet. */
	int in_pipe[2];
	char pending[8192];
	size_t npending;
	bool input_open;
	struct term_escape escape;

	/* By the agent. */
	bool by_agent;
	struct session session;
	bool session_over;
	bool agent_up;

	uint64_t deadline_ns; /* of --timeout */
	uint64_t stop_ns; /* when a stopping guest is killed, 0: not stopping */
	int stop_signal;
	bool timed_out;
};

static void print_log(void *ctx, enum arcvmm_log_level level, const char *text)
{
	static const char *const names[] = { "error: ", "warning: ", "", "" };

	(void)ctx;
	/* In raw mode a bare newline would leave a staircase. */
	fprintf(stderr, "arcvmm: %s%s%s", names[level], text,
		term_is_raw() ? "\r\n" : "\n");
}

/* ---- stopping ---- */

/* In order, and by force when that takes too long or is asked for twice. */
static void stop_guest(struct run *r, uint64_t grace_ns)
{
	if (r->stop_ns || arcvmm_vm_shutdown(r->vm))
		arcvmm_vm_kill(r->vm);
	else
		r->stop_ns = now_ns() + grace_ns;
}

static void stop_by_signal(struct run *r, int sig)
{
	if (r->by_agent && !r->session_over && !r->stop_signal) {
		/* It is the command's first. */
		session_signal(&r->session, sig);
		r->stop_signal = sig;
		if (sig != SIGINT && sig != SIGQUIT)
			r->stop_ns = now_ns() + STOP_GRACE_NS;
		return;
	}
	r->stop_signal = sig;
	stop_guest(r, STOP_GRACE_NS);
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

/* ---- input on the console ---- */

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

/* ---- what the main thread attends to ---- */

static char *obey(void *ctx, const char *word)
{
	struct run *r = ctx;

	if (!strncmp(word, "stop ", 5)) { /* and nanoseconds */
		stop_guest(r, strtoull(word + 5, NULL, 10));
	} else if (!strcmp(word, "kill")) {
		arcvmm_vm_kill(r->vm);
	} else if (!strcmp(word, "pause") || !strcmp(word, "resume")) {
		if (*word == 'p' ? arcvmm_vm_pause(r->vm)
				 : arcvmm_vm_resume(r->vm))
			return strdup("error: the run has ended");
	} else if (!strcmp(word, "agent")) {
		if (r->o.no_agent)
			return strdup("error: it has no agent (--no-vsock or "
				      "--no-init)");
		return r->agent_up ? NULL : CONTROL_LATER;
	} else if (!strcmp(word, "stats")) {
		return arcvmm_vm_stats(r->vm);
	} else {
		return strdup("error: unknown order");
	}
	return NULL;
}

static void take_signal(struct run *r)
{
	struct signalfd_siginfo si;
	unsigned cols, rows;

	if (read(r->sigfd, &si, sizeof(si)) != sizeof(si))
		return;
	switch (si.ssi_signo) {
	case SIGWINCH:
		if (r->by_agent)
			session_resize(&r->session);
		else if (term_size(STDIN_FILENO, &cols, &rows))
			arcvmm_vm_console_resize(r->vm, cols, rows);
		break;
	case SIGCONT:
		term_again();
		break;
	default:
		stop_by_signal(r, (int)si.ssi_signo);
	}
}

static void command_ended(struct run *r)
{
	r->session_over = true;
	term_restore();
	r->stop_ns = 0;
	stop_guest(r, STOP_GRACE_NS);
}

static void attend(struct run *r)
{
	enum { END, SIGNALS, INPUT, PIPE, LOG, SESSION, AGENT, CONTROL };
	struct pollfd p[CONTROL + 1 + CONTROL_CLIENTS] = {
		[END] = { .fd = arcvmm_vm_fd(r->vm), .events = POLLIN },
		[SIGNALS] = { .fd = r->sigfd, .events = POLLIN },
		[INPUT] = { .events = POLLIN },
		[PIPE] = { .events = POLLOUT },
		[LOG] = { .fd = r->log.in, .events = POLLIN },
		[SESSION] = { .events = POLLIN },
		[AGENT] = { .fd = arcvmm_vm_agent_fd(r->vm), .events = POLLIN },
	};
	unsigned n = 0;

	for (;;) {
		/* Room for what one read may turn into. */
		bool room = r->npending <= sizeof(r->pending) / 2;

		p[INPUT].fd = r->input_open && room ? STDIN_FILENO : -1;
		p[PIPE].fd = r->npending ? r->in_pipe[1] : -1;
		p[SESSION].fd = r->by_agent && !r->session_over
					? session_fd(&r->session)
					: -1;
		if (r->registered)
			n = control_poll(&r->control, p + CONTROL);
		if (poll(p, CONTROL + n, next_timeout(r)) < 0 && errno != EINTR)
			break;
		if (p[LOG].fd >= 0 && p[LOG].revents)
			console_log_pump(&r->log);
		if (p[SESSION].fd >= 0 && p[SESSION].revents)
			command_ended(r);
		if (p[END].revents)
			break;
		if (p[SIGNALS].revents)
			take_signal(r);
		if (p[AGENT].fd >= 0 && p[AGENT].revents) {
			r->agent_up = true;
			p[AGENT].fd = -1;
			if (r->registered)
				control_retry(&r->control);
		}
		if (p[PIPE].fd >= 0 && p[PIPE].revents)
			flush_input(r);
		if (p[INPUT].fd >= 0 && p[INPUT].revents)
			take_input(r);
		if (n)
			control_run(&r->control, p + CONTROL, n);
		check_deadlines(r);
	}
}

/* ---- setting up ---- */

static int set(struct run *r, const char *key, const char *value)
{
	struct arcvmm_error e;

	if (!arcvmm_config_set(r->o.cfg, key, value, &e))
		return 0;
	return complain("%s", e.text);
}

/* Where the console goes and how the command runs. */
static int set_up_console(struct run *r)
{
	const struct run_options *o = &r->o;
	bool logged = !o->console_given && (o->detach || r->by_agent);
	int rc = 0;

	if (logged) {
		rc = console_log_open(&r->log,
				      r->registered ? &r->instance : NULL,
				      &r->log_out);
		if (!rc)
			arcvmm_config_console_fds(o->cfg, -1, r->log_out);
	} else if (o->console_stdio && !o->detach) {
		if (pipe2(r->in_pipe, O_CLOEXEC | O_NONBLOCK))
			return complain("pipe: %s", strerror(errno));
		r->input_open = true;
		arcvmm_config_console_fds(o->cfg, r->in_pipe[0], STDOUT_FILENO);
	}
	if (!rc && r->by_agent)
		return set(r, "serve", "on");
	if (!rc && o->argv)
		arcvmm_config_command(o->cfg, (const char *const *)o->argv);
	return rc;
}

/*
 * The socket by which other processes reach the guest: in our directory, or
 * where the user wants it, with a link in our directory.
 */
static int set_up_socket(struct run *r)
{
	const char *own = r->o.vsock_uds;
	char path[192], *full;
	int rc = 0;

	instance_path(&r->instance, "vsock", path, sizeof(path));
	if (!own)
		return set(r, "vsock-uds", path);
	full = *own == '/' ? strdup(own) : NULL;
	if (!full) {
		char *cwd = getcwd(NULL, 0);

		if (!cwd || asprintf(&full, "%s/%s", cwd, own) < 0)
			full = NULL;
		free(cwd);
	}
	if (!full || symlink(full, path))
		rc = complain("%s: %s", path, strerror(errno));
	free(full);
	return rc;
}

/* A directory among the running VMs; one without a name may do without. */
static int set_up_registry(struct run *r)
{
	int rc = registry_claim(&r->instance, r->o.name);

	if (rc)
		return r->o.name || r->o.detach ? rc : 0;
	r->registered = true;
	rc = control_open(&r->control, &r->instance, obey, r);
	return rc || r->o.no_agent ? rc : set_up_socket(r);
}

static void publish_info(const struct run *r)
{
	char pid[24], started[24], command[512] = "";
	size_t len = 0;

	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	snprintf(started, sizeof(started), "%lld", (long long)time(NULL));
	for (char *const *a = r->o.argv; a && *a && len < sizeof(command); a++)
		len += (size_t)snprintf(command + len, sizeof(command) - len,
					"%s%s", len ? " " : "", *a);
	instance_set_info(&r->instance, "pid", pid, "started", started,
			  "engine", arcvmm_vm_engine(r->vm), "command", command,
			  NULL);
}

static int connect_agent(void *ctx, struct arcvmm_error *e)
{
	struct run *r = ctx;

	return arcvmm_agent_connect(r->vm, BOOT_WAIT_MS, e);
}

static int start_session(struct run *r)
{
	const struct run_options *o = &r->o;
	struct session *s = &r->session;

	*s = (struct session){
		.exec = {
			.argv = (const char *const *)o->argv,
			.env = o->nenv ? o->env : NULL,
			.cwd = o->cwd,
			.user = o->user,
			.tty = o->tty,
			.limits = o->limits.v,
			.nlimits = o->limits.n,
		},
		.connect = connect_agent,
		.ctx = r,
		.in = o->input ? STDIN_FILENO : -1,
	};
	return session_start(s);
}

/* ---- the end ---- */

static int command_status(struct run *r)
{
	const struct session *s = &r->session;

	if (s->rc)
		complain("%s", s->error.text);
	return s->exit.code;
}

static int exit_status(struct run *r, const struct arcvmm_result *res)
{
	if (r->timed_out) {
		complain("the run did not end within --timeout");
		return EXIT_TIMEOUT;
	}
	if (res->end == ARCVMM_END_PANIC || res->end == ARCVMM_END_CRASH ||
	    res->end == ARCVMM_END_ERROR) {
		complain("%s", res->text);
		if (r->log.in >= 0 && r->registered)
			console_log_tail(&r->instance, 40);
		return res->end == ARCVMM_END_PANIC ? EXIT_PANIC : EXIT_CRASH;
	}
	/* A command that ended because the guest rebooted did not do so by
	 * itself. */
	if (r->session_over && !(res->end == ARCVMM_END_REBOOT &&
				 (r->session.rc || r->session.exit.shutdown)))
		return command_status(r);
	if (res->status >= 0 && res->end != ARCVMM_END_REBOOT)
		return res->status;
	if (r->stop_signal)
		return 128 + r->stop_signal;
	switch (res->end) {
	case ARCVMM_END_REBOOT:
		return EXIT_REBOOT;
	case ARCVMM_END_KILLED:
		return 128 + SIGKILL;
	default:
		return 0;
	}
}

/* Detached: the parent may go. */
static void tell_parent(struct run *r)
{
	int null;

	if (r->ready < 0)
		return;
	printf("%s\n", r->instance.name);
	fflush(stdout);
	if (write(r->ready, "", 1) < 0)
		complain("telling the parent: %s", strerror(errno));
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int fd = 0; fd < 3; fd++)
		dup2(null, fd);
	close(null);
	close(r->ready);
}

/*
 * A guest that ends in order ends the command first, and says so; its word may
 * be just behind the end itself.
 */
static void last_word(struct run *r, const struct arcvmm_result *res)
{
	struct pollfd p = { .fd = session_fd(&r->session), .events = POLLIN };

	if (!r->session_over &&
	    (res->end == ARCVMM_END_POWER_OFF || res->end == ARCVMM_END_REBOOT))
		r->session_over = poll(&p, 1, LAST_WORD_MS) > 0;
}

static int run_vm(struct run *r)
{
	struct arcvmm_result res;
	struct arcvmm_error e;
	unsigned cols, rows;
	int status;

	arcvmm_config_log(r->o.cfg, print_log, NULL, r->o.log_level);
	if (arcvmm_vm_create(&r->vm, r->o.cfg, &e))
		return complain("%s", e.text);
	if (r->registered)
		publish_info(r);
	if (arcvmm_vm_console_pty(r->vm))
		fprintf(stderr, "arcvmm: console on %s\n",
			arcvmm_vm_console_pty(r->vm));
	r->sigfd = signals_open();
	if (r->input_open && term_raw(STDIN_FILENO) &&
	    term_size(STDIN_FILENO, &cols, &rows))
		arcvmm_vm_console_resize(r->vm, cols, rows);
	if (r->o.timeout_ns)
		r->deadline_ns = now_ns() + r->o.timeout_ns;
	if (arcvmm_vm_start(r->vm, &e)) {
		term_restore();
		return complain("%s", e.text);
	}
	if (r->by_agent) {
		if (r->o.tty && r->o.input)
			term_raw(STDIN_FILENO);
		status = start_session(r);
		if (status)
			return status;
	}
	tell_parent(r);
	attend(r);
	arcvmm_vm_wait(r->vm, &res);
	if (r->by_agent) {
		last_word(r, &res);
		session_join(&r->session, true);
	}
	term_restore();
	if (r->log.in >= 0)
		console_log_pump(&r->log);
	status = exit_status(r, &res);
	if (r->o.timeline && timeline_write(r->o.timeline, r->vm))
		status = status ? status : EXIT_USAGE;
	return status;
}

static int run_all(struct run *r)
{
	int rc = set_up_registry(r);

	if (!rc)
		rc = set_up_console(r);
	if (!rc)
		rc = run_vm(r);
	arcvmm_vm_destroy(r->vm);
	if (r->registered) {
		control_close(&r->control);
		registry_release(&r->instance);
	}
	console_log_close(&r->log);
	return rc;
}

/*
 * The child runs the VM. What it says until it is ready is ours to pass on: its
 * name on stdout, complaints on stderr, and a 0 byte that means ready.
 */
static int run_detached(struct run *r)
{
	char said;
	int p[2], null;
	bool ready;

	if (pipe2(p, O_CLOEXEC))
		return complain("pipe: %s", strerror(errno));
	fflush(NULL);
	switch (fork()) {
	case -1:
		return complain("fork: %s", strerror(errno));
	case 0:
		close(p[0]);
		r->ready = p[1];
		setsid();
		null = open("/dev/null", O_RDONLY | O_CLOEXEC);
		dup2(null, STDIN_FILENO);
		close(null);
		exit(run_all(r));
	}
	close(p[1]);
	ready = read(p[0], &said, 1) == 1;
	close(p[0]);
	return ready ? 0 : EXIT_USAGE;
}

static int run_run(int argc, char **argv)
{
	struct run r = {
		.o = {
			.console_stdio = true,
			.log_level = ARCVMM_LOG_WARN,
		},
		.in_pipe = { -1, -1 },
		.log = { .in = -1, .file = -1 },
		.log_out = -1,
		.ready = -1,
	};
	int rc;

	r.o.cfg = arcvmm_config_new();
	if (!r.o.cfg)
		return complain("out of memory");
	rc = run_parse(&r.o, argc, argv);
	r.by_agent =
		r.o.argv && !r.o.detach && !r.o.console_given && !r.o.no_agent;
	descriptors_raise();
	if (!rc)
		rc = r.o.detach ? run_detached(&r) : run_all(&r);
	arcvmm_config_free(r.o.cfg);
	return rc;
}

const struct verb verb_run = {
	.name = "run",
	.args = "--kernel FILE [OPTION]... [-- CMD ARG...]",
	.summary = "boot a kernel and run a command in the guest",
	.run = run_run,
	.help = run_help,
};
