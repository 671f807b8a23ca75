/* arcvmm ps, logs, stop, kill, pause, resume, stats: the VMs that run. */
#include <errno.h>
#include <jansson.h>
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

/* How long stats wait for the guest's. */
#define GUEST_WAIT_MS 2000

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

struct listing {
	json_t *json; /* an array to fill, or NULL to print */
	bool headed;
};

static void print_json(json_t *v)
{
	json_dumpf(v, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(v);
}

/* A string of JSON; what is not UTF-8 loses all but its ASCII. */
static json_t *text(char *s)
{
	json_t *v = json_string(s);

	for (char *c = s; !v && *c; c++)
		if (*c & 0x80)
			*c = '?';
	return v ? v : json_string(s);
}

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
		json_array_append_new(
			l->json,
			json_pack("{s:s, s:o, s:s, s:I, s:o}", "name", i->name,
				  "pid",
				  *pid ? json_integer(atoll(pid)) : json_null(),
				  "engine", engine, "up_seconds",
				  (json_int_t)up, "command", text(command)));
		return;
	}
	if (!l->headed)
		printf("%-24s %8s %-6s %9s  %s\n", "NAME", "PID", "ENGINE",
		       "UP", "COMMAND");
	l->headed = true;
	printf("%-24s %8s %-6s %8lds  %s\n", i->name, pid,
	       *engine ? engine : "-", up, command);
}

static int run_ps(int argc, char **argv)
{
	struct listing l = { 0 };
	bool json = argc == 2 && !strcmp(argv[1], "--json");

	if (argc > 1 && !json)
		return complain("ps: unexpected '%s'", argv[1]);
	if (json)
		l.json = json_array();
	registry_each(list_one, &l);
	if (json)
		print_json(l.json);
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
	struct arcvmm_error e;
	char pid[24], *text;
	struct pollfd p = { .events = POLLIN };
	int rc = one_name(argc, argv, NULL, NULL, NULL, &i);

	if (rc)
		return rc;
	instance_info(&i, "pid", pid, sizeof(pid));
	p.fd = ends ? (int)syscall(SYS_pidfd_open, atoi(pid), 0) : -1;
	text = control_ask(&i, word, CONTROL_WAIT_MS, &e);
	if (!text) {
		complain("%s: %s", i.name, e.text);
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
	uint64_t ns = STOP_GRACE_NS;
	char word[32];

	/* The options come first; what is left is VERB NAME. */
	while (argc > 1 &&
	       (!strcmp(argv[1], "-t") || !strcmp(argv[1], "--timeout"))) {
		int rc = argc > 2 ? parse_seconds(argv[1], argv[2], &ns)
				  : complain("%s needs a value", argv[1]);

		if (rc)
			return rc;
		argv[2] = argv[0];
		argv += 2;
		argc -= 2;
	}
	snprintf(word, sizeof(word), "stop %llu", (unsigned long long)ns);
	return give_order(argc, argv, word, true);
}

static void help_stop(void)
{
	puts("\n  -t, --timeout SECONDS    how long it has before it is ended "
	     "like by 'kill' [10]");
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
	.args = "[-t SECONDS] NAME",
	.summary = "ask a VM to power off, and wait until it has",
	.run = run_stop,
	.help = help_stop,
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

/* The guest's lines "name value" as an object. */
static json_t *guest_json(char *text)
{
	json_t *o = json_object();
	char *save = NULL;

	for (char *line = strtok_r(text, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save)) {
		char *value = strchr(line, ' ');

		if (!value)
			continue;
		*value++ = 0;
		json_object_set_new(o, line,
				    strchr(value, '.')
					    ? json_real(atof(value))
					    : json_integer(atoll(value)));
	}
	return o;
}

/*
 * What counts above zero, a line each, by its path: "rng0.queues.0.chains 3".
 * An element of an array goes by its "name", else by its index.
 */
static void print_counters(const char *path, json_t *v)
{
	const char *dot = *path ? "." : "";
	const char *key;
	char name[160];
	json_t *sub;
	size_t k;

	json_array_foreach(v, k, sub)
	{
		const char *own =
			json_string_value(json_object_get(sub, "name"));

		if (own)
			print_counters(own, sub);
		else if (snprintf(name, sizeof(name), "%s.%zu", path, k) <
			 (int)sizeof(name))
			print_counters(name, sub);
	}
	json_object_foreach(v, key, sub)
	{
		if (strcmp(key, "name") &&
		    snprintf(name, sizeof(name), "%s%s%s", path, dot, key) <
			    (int)sizeof(name))
			print_counters(name, sub);
	}
	if (json_is_real(v))
		printf("%-36s %g\n", path, json_real_value(v));
	else if (json_integer_value(v))
		printf("%-36s %" JSON_INTEGER_FORMAT "\n", path,
		       json_integer_value(v));
	else if (json_is_string(v))
		printf("%-36s %s\n", path, json_string_value(v));
}

static int run_stats(int argc, char **argv)
{
	struct instance i;
	struct arcvmm_error e;
	json_t *vmm, *guest = NULL;
	char *answer;
	bool json = false;
	int rc = one_name(argc, argv, &json, "--json", NULL, &i);
	int fd;

	if (rc)
		return rc;
	answer = control_ask(&i, "stats", CONTROL_WAIT_MS, &e);
	if (!answer)
		return complain("%s: %s", i.name, e.text);
	vmm = json_loads(answer, 0, NULL);
	free(answer);
	/* The VM's own counters are of use above all when its guest hangs. */
	fd = agent_of(&i, GUEST_WAIT_MS);
	if (fd >= 0 && arcvmm_agent_stats(fd, &answer, &e)) {
		complain("%s: %s", i.name, e.text);
	} else if (fd >= 0) {
		guest = guest_json(answer);
		free(answer);
	}
	if (json) {
		print_json(
			json_pack("{s:o?, s:o?}", "vmm", vmm, "guest", guest));
		return 0;
	}
	print_counters("guest", guest);
	print_counters("", vmm);
	json_decref(guest);
	json_decref(vmm);
	return 0;
}

const struct verb verb_stats = {
	.name = "stats",
	.args = "[--json] NAME",
	.summary =
		"print the counters of a VM and of its guest; --json has those "
		"that are zero too",
	.run = run_stats,
};
