/* arcvmm ps, logs, stop, kill, pause, resume, stats: the VMs that run. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/consolelog.h"
#include "cli/control.h"
#include "cli/registry.h"

/* argv is VERB [--json] NAME; *json may be NULL. */
static int one_name(int argc, char **argv, bool *flag, const char *flag_name,
		    const char *flag_short, struct instance *i)
{
	const char *name = NULL;

	for (int k = 1; k < argc; k++) {
		if (flag && (!strcmp(argv[k], flag_name) ||
			     (flag_short && !strcmp(argv[k], flag_short))))
			*flag = true;
		else if (*argv[k] == '-')
			return complain("unknown option '%s' (see 'arcvmm help "
					"%s')",
					argv[k], argv[0]);
		else if (name)
			return complain("%s takes one name", argv[0]);
		else
			name = argv[k];
	}
	if (!name)
		return complain("%s: which VM? (see 'arcvmm ps')", argv[0]);
	return registry_find(i, name);
}

/* ---- ps ---- */

static void json_string(const char *s)
{
	putchar('"');
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			putchar('\\');
		putchar(*s);
	}
	putchar('"');
}

struct listing {
	bool json;
	unsigned n;
};

static void list_one(void *ctx, const struct instance *i)
{
	struct listing *l = ctx;
	char pid[24], engine[16], started[24], command[512];
	long up;

	instance_info(i, "pid", pid, sizeof(pid));
	instance_info(i, "engine", engine, sizeof(engine));
	instance_info(i, "started", started, sizeof(started));
	instance_info(i, "command", command, sizeof(command));
	up = *started ? (long)(time(NULL) - atoll(started)) : 0;
	if (l->json) {
		printf("%s\n  { \"name\": \"%s\", \"pid\": %s, \"engine\": "
		       "\"%s\", \"up_seconds\": %ld, \"command\": ",
		       l->n ? "," : "", i->name, *pid ? pid : "null", engine,
		       up);
		json_string(command);
		printf(" }");
	} else {
		if (!l->n)
			printf("%-24s %8s %-6s %9s  %s\n", "NAME", "PID",
			       "ENGINE", "UP", "COMMAND");
		printf("%-24s %8s %-6s %8lds  %s\n", i->name, pid,
		       *engine ? engine : "-", up, command);
	}
	l->n++;
}

static int run_ps(int argc, char **argv)
{
	struct listing l = { .json = argc == 2 && !strcmp(argv[1], "--json") };

	if (argc > 1 && !l.json)
		return complain("ps: unexpected '%s'", argv[1]);
	if (l.json)
		putchar('[');
	registry_each(list_one, &l);
	if (l.json)
		puts(l.n ? "\n]" : "]");
	return 0;
}

const struct verb verb_ps = {
	.name = "ps",
	.args = "[--json]",
	.summary = "list the running VMs",
	.run = run_ps,
};

/* ---- logs ---- */

static int run_logs(int argc, char **argv)
{
	struct instance i;
	bool follow = false;
	int rc = one_name(argc, argv, &follow, "--follow", "-f", &i);

	return rc ? rc : console_log_print(&i, follow);
}

const struct verb verb_logs = {
	.name = "logs",
	.args = "[-f] NAME",
	.summary = "print what the console of a VM said (-f: and will say)",
	.run = run_logs,
};

/* ---- stop, kill, pause, resume ---- */

/* Give the order; then, when the VM is to end, sleep until it has. */
static int give_order(int argc, char **argv, const char *word, bool ends)
{
	struct instance i;
	char pid[24], *text;
	struct pollfd p = { .events = POLLIN };
	int rc = one_name(argc, argv, NULL, NULL, NULL, &i);

	if (rc)
		return rc;
	instance_info(&i, "pid", pid, sizeof(pid));
	p.fd = ends ? (int)syscall(SYS_pidfd_open, atoi(pid), 0) : -1;
	text = control_ask(&i, word);
	if (!text) {
		if (p.fd >= 0)
			close(p.fd);
		return EXIT_USAGE;
	}
	free(text);
	if (p.fd >= 0) {
		while (poll(&p, 1, -1) < 0 && errno == EINTR)
			;
		close(p.fd);
	}
	return 0;
}

static int run_stop(int argc, char **argv)
{
	return give_order(argc, argv, "stop", true);
}

static int run_kill(int argc, char **argv)
{
	return give_order(argc, argv, "kill", true);
}

static int run_pause(int argc, char **argv)
{
	return give_order(argc, argv, "pause", false);
}

static int run_resume(int argc, char **argv)
{
	return give_order(argc, argv, "resume", false);
}

const struct verb verb_stop = {
	.name = "stop",
	.args = "NAME",
	.summary = "ask a VM to power off, and wait (after 10 s: kill)",
	.run = run_stop,
};

const struct verb verb_kill = {
	.name = "kill",
	.args = "NAME",
	.summary = "end a VM now",
	.run = run_kill,
};

const struct verb verb_pause = {
	.name = "pause",
	.args = "NAME",
	.summary = "stop the virtual CPUs of a VM",
	.run = run_pause,
};

const struct verb verb_resume = {
	.name = "resume",
	.args = "NAME",
	.summary = "let them go on",
	.run = run_resume,
};

/* ---- stats ---- */

/* Lines "name value" as members of a JSON object, or as they are. */
static void print_guest(char *text, bool json)
{
	char *save = NULL;
	bool first = true;

	for (char *line = strtok_r(text, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save)) {
		char *value = strchr(line, ' ');

		if (!value)
			continue;
		*value++ = 0;
		if (json) {
			printf("%s\n    ", first ? "" : ",");
			json_string(line);
			printf(": %s", value);
		} else {
			printf("%-28s %s\n", line, value);
		}
		first = false;
	}
}

static int run_stats(int argc, char **argv)
{
	struct instance i;
	struct arcvmm_error e;
	char *vmm, *guest = NULL;
	bool json = false;
	int rc = one_name(argc, argv, &json, "--json", NULL, &i);
	int fd;

	if (rc)
		return rc;
	vmm = control_ask(&i, "stats");
	if (!vmm)
		return EXIT_USAGE;
	fd = agent_of(&i);
	if (fd >= 0 && arcvmm_agent_stats(fd, &guest, &e)) {
		complain("%s: %s", i.name, e.text);
		guest = NULL;
	}
	if (json) {
		printf("{\n  \"vmm\": %s,\n  \"guest\": {", vmm);
		if (guest)
			print_guest(guest, true);
		puts("\n  }\n}");
	} else {
		if (guest)
			print_guest(guest, false);
		puts(vmm);
	}
	free(vmm);
	free(guest);
	return 0;
}

const struct verb verb_stats = {
	.name = "stats",
	.args = "[--json] NAME",
	.summary = "print the counters of a VM and of its guest",
	.run = run_stats,
};
