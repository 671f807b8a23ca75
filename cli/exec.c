/* arcvmm exec and cp: commands and files in a running guest, by its agent. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/control.h"
#include "cli/registry.h"
#include "cli/session.h"
#include "cli/term.h"

/* The agent is up: it takes connections at once, or something is wrong. */
#define CONNECT_WAIT_MS 10000

static int connect_within(const struct instance *i, int wait_ms,
			  struct arcvmm_error *e)
{
	char path[192];
	char *up =
		control_ask(i, "agent", wait_ms, e); /* waits for the guest */

	if (!up && e->code == -ETIMEDOUT)
		strcpy(e->text, "the guest's agent is not up");
	if (!up)
		return e->code;
	free(up);
	return arcvmm_uds_connect(
		instance_path(i, "vsock", path, sizeof(path)),
		ARCVMM_AGENT_PORT,
		wait_ms < CONNECT_WAIT_MS ? wait_ms : CONNECT_WAIT_MS, e);
}

static int connect_instance(void *ctx, struct arcvmm_error *e)
{
	return connect_within(ctx, AGENT_WAIT_MS, e);
}

int agent_of(const struct instance *i, int wait_ms)
{
	struct arcvmm_error e;
	int fd = connect_within(i, wait_ms, &e);

	if (fd < 0)
		complain("%s: %s", i->name, e.text);
	return fd;
}

/* ---- exec ---- */

struct exec_options {
	const char *env[256];
	unsigned nenv;
	const char *cwd, *user;
	struct limits limits;
	uint64_t timeout_ns;
	bool tty, input, detach;
	bool time;
};

static void help_exec(void)
{
	puts("\n  -i, --interactive        pass our input to the command\n"
	     "  -t, --tty                give it a terminal\n"
	     "  -d, --detach             do not wait for it\n"
	     "  --env NAME=VALUE         environment (may be repeated)\n"
	     "  --workdir DIR            working directory [/]\n"
	     "  --user USER[:GROUP]      who runs it [root]\n"
	     "  --timeout SECONDS        end it after that time (status 124)\n"
	     "  --limit NAME=SOFT[:HARD] resource limit (may be repeated): "
	     "numbers or \"unlimited\";\n"
	     "                           names and units: 'arcvmm help run'\n"
	     "  --time                   say where the time went, on stderr\n"
	     "\nExit status: that of CMD (127 not found, 126 not executable, "
	     "128 + n killed by\nsignal n); 125: arcvmm could not do it.");
}

static int set_value(struct exec_options *o, const char *name, const char *v)
{
	if (!strcmp(name, "--timeout"))
		return parse_seconds("--timeout", v, &o->timeout_ns);
	if (!strcmp(name, "--limit"))
		return limits_add(&o->limits, v);
	if (!strcmp(name, "--workdir")) {
		o->cwd = v;
	} else if (!strcmp(name, "--user")) {
		o->user = v;
	} else { /* --env */
		if (!strchr(v, '=') || *v == '=')
			return complain("--env: '%s' is not NAME=VALUE", v);
		if (o->nenv == sizeof(o->env) / sizeof(*o->env) - 1)
			return complain("too many --env");
		o->env[o->nenv++] = v;
	}
	return 0;
}

static int parse_exec_option(struct exec_options *o, char **argv, int *i)
{
	static const char *const valued[] = { "--env", "--workdir", "--user",
					      "--timeout", "--limit" };
	const char *arg = argv[*i];
	size_t n = strcspn(arg, "=");

	/* "--name VALUE" or "--name=VALUE" */
	for (unsigned k = 0; k < sizeof(valued) / sizeof(*valued); k++) {
		if (strlen(valued[k]) != n || strncmp(valued[k], arg, n))
			continue;
		if (arg[n])
			return set_value(o, valued[k], arg + n + 1);
		if (!argv[*i + 1])
			return complain("%s needs a value", arg);
		return set_value(o, valued[k], argv[++*i]);
	}
	if (!strcmp(arg, "--tty")) {
		o->tty = true;
	} else if (!strcmp(arg, "--interactive")) {
		o->input = true;
	} else if (!strcmp(arg, "--time")) {
		o->time = true;
	} else if (!strcmp(arg, "--detach")) {
		o->detach = true;
	} else if (arg[1] && arg[1] != '-' &&
		   strspn(arg + 1, "itd") == strlen(arg + 1)) {
		o->input |= strchr(arg, 'i') != NULL;
		o->tty |= strchr(arg, 't') != NULL;
		o->detach |= strchr(arg, 'd') != NULL;
	} else {
		return complain("unknown option '%s' (see 'arcvmm help exec')",
				arg);
	}
	return 0;
}

/*
 * Signals go to the command until it has ended. The third time, or while there
 * is no command yet, they end us: then their number, else 0.
 */
static int attend_session(struct session *s, int sigfd)
{
	struct pollfd p[] = {
		{ .fd = session_fd(s), .events = POLLIN },
		{ .fd = sigfd, .events = POLLIN },
	};
	unsigned asked = 0;

	for (;;) {
		struct signalfd_siginfo si;

		if (poll(p, 2, -1) < 0)
			continue;
		if (p[0].revents)
			return 0;
		if (read(sigfd, &si, sizeof(si)) != sizeof(si))
			continue;
		if (si.ssi_signo == SIGWINCH)
			session_resize(s);
		else if (si.ssi_signo == SIGCONT)
			term_again();
		else if (++asked > 2 || !s->connected_ns)
			return (int)si.ssi_signo;
		else
			session_signal(s, (int)si.ssi_signo);
	}
}

/* Where the time went: the parts contain each other, from the left. */
static void print_time(const struct session *s)
{
	fprintf(stderr,
		"arcvmm: ms: command %.3f, agent %.3f, session %.3f, in all "
		"%.3f\n",
		(double)s->exit.command_ns / 1e6,
		(double)s->exit.agent_ns / 1e6,
		(double)(now_ns() - s->connected_ns) / 1e6,
		(double)(now_ns() - process_start_ns()) / 1e6);
}

static int run_exec(int argc, char **argv)
{
	struct exec_options o = { 0 };
	struct instance inst;
	struct session s;
	int i, rc, sigfd, sig;

	for (i = 1; i < argc && *argv[i] == '-'; i++) {
		rc = parse_exec_option(&o, argv, &i);
		if (rc)
			return rc;
	}
	if (i >= argc)
		return complain("exec: which VM? (arcvmm exec NAME -- CMD)");
	rc = registry_find(&inst, argv[i++]);
	if (rc)
		return rc;
	/* Options may follow the name, up to "--" or the command. */
	for (; i < argc && *argv[i] == '-'; i++) {
		if (!strcmp(argv[i], "--")) {
			i++;
			break;
		}
		rc = parse_exec_option(&o, argv, &i);
		if (rc)
			return rc;
	}
	if (i >= argc || !*argv[i])
		return complain("exec: which command? (arcvmm exec %s -- CMD)",
				inst.name);
	s = (struct session){
		.exec = {
			.argv = (const char *const *)&argv[i],
			.env = o.nenv ? o.env : NULL,
			.cwd = o.cwd,
			.user = o.user,
			.timeout_ns = o.timeout_ns,
			.tty = o.tty,
			.detach = o.detach,
			.limits = o.limits.v,
			.nlimits = o.limits.n,
		},
		.connect = connect_instance,
		.ctx = &inst,
		.in = o.input ? STDIN_FILENO : -1,
	};
	sigfd = signals_open();
	if (o.tty && o.input)
		term_raw(STDIN_FILENO);
	rc = session_start(&s);
	if (rc)
		return rc;
	sig = attend_session(&s, sigfd);
	if (sig && !s.connected_ns) {
		/* Its thread still waits for the guest; it ends with us. */
		term_restore();
		return 128 + sig;
	}
	session_join(&s, true);
	term_restore();
	if (s.rc) {
		complain("%s", s.error.text);
		return s.exit.code ? s.exit.code : EXIT_USAGE;
	}
	if (o.time)
		print_time(&s);
	return s.exit.timed_out ? EXIT_TIMEOUT : s.exit.code;
}

const struct verb verb_exec = {
	.name = "exec",
	.args = "[OPTION]... NAME -- CMD ARG...",
	.summary = "run a command in a running VM",
	.run = run_exec,
	.help = help_exec,
};

/* ---- cp ---- */

/*
 * "NAME:path" names a file in a VM, as long as what is before the colon is no
 * path: "./a:b" is a file here.
 */
static const char *guest_path(const char *arg, char *name, size_t size)
{
	const char *colon = strchr(arg, ':'), *slash = strchr(arg, '/');

	if (!colon || (slash && slash < colon) || (size_t)(colon - arg) >= size)
		return NULL;
	snprintf(name, size, "%.*s", (int)(colon - arg), arg);
	return colon + 1;
}

static void help_cp(void)
{
	puts("\n  -L, --follow             copy what symbolic links point to\n"
	     "  -o, --owner              keep user and group ids\n"
	     "\nOne of FROM and TO is NAME:PATH. Modes, times, links and holes "
	     "are kept. Into TO\nwhen that is a directory, else under that "
	     "name; FROM/. means what is in FROM.");
}

static int run_cp(int argc, char **argv)
{
	char name[2][REGISTRY_NAME_MAX + 2];
	const char *in_guest[2];
	struct arcvmm_error e;
	struct instance inst;
	unsigned flags = 0;
	int i, fd, rc;

	for (i = 1; i < argc && *argv[i] == '-' && argv[i][1]; i++) {
		if (!strcmp(argv[i], "-L") || !strcmp(argv[i], "--follow"))
			flags |= ARCVMM_COPY_FOLLOW;
		else if (!strcmp(argv[i], "-o") || !strcmp(argv[i], "--owner"))
			flags |= ARCVMM_COPY_OWNER;
		else if (!strcmp(argv[i], "--")) {
			i++;
			break;
		} else
			return complain("unknown option '%s' (see 'arcvmm help "
					"cp')",
					argv[i]);
	}
	if (argc - i != 2)
		return complain("cp takes FROM and TO (see 'arcvmm help cp')");
	for (int k = 0; k < 2; k++)
		in_guest[k] = guest_path(argv[i + k], name[k], sizeof(name[k]));
	if (!in_guest[0] == !in_guest[1])
		return complain("cp: one of FROM and TO must be NAME:PATH");
	rc = registry_find(&inst, in_guest[0] ? name[0] : name[1]);
	if (rc)
		return rc;
	signal(SIGPIPE, SIG_IGN);
	fd = agent_of(&inst, AGENT_WAIT_MS);
	if (fd < 0)
		return EXIT_USAGE;
	if (in_guest[0])
		rc = arcvmm_copy_from(fd, in_guest[0], argv[i + 1], flags, NULL,
				      &e);
	else
		rc = arcvmm_copy_to(fd, argv[i], in_guest[1], flags, NULL, &e);
	return rc ? complain("%s", e.text) : 0;
}

const struct verb verb_cp = {
	.name = "cp",
	.args = "[-L] [-o] FROM TO",
	.summary = "copy files into a running VM (NAME:PATH) or out of it",
	.run = run_cp,
	.help = help_cp,
};
