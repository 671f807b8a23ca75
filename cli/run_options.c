#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/run.h"
#include "cli/timeline.h"

struct flag {
	const char *name;
	const char *arg;
	const char *help;
};

/* What is the CLI's own; the rest are the library's keys. */
static const struct flag own_flags[] = {
	{ "tty", NULL, "-t: give the command a terminal" },
	{ "interactive", NULL, "-i: pass our input to the command" },
	{ "detach", NULL, "-d: run in the background; print the name" },
	{ "name", "NAME", "what other verbs call this VM [made up]" },
	{ "timeout", "SECONDS", "end the run after that time (status 124)" },
	{ "boot-timeline", "FILE",
	  "write the milestones to FILE (JSON) and a picture beside it" },
	{ "verbose", NULL, "-v: say what is done and why; twice: more" },
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

static int set_own(struct run_options *o, const char *name, const char *value)
{
	if (!strcmp(name, "boot-timeline")) {
		o->timeline = value;
		return timeline_check(value);
	}
	if (!strcmp(name, "timeout"))
		return parse_seconds("--timeout", value, &o->timeout_ns);
	if (!strcmp(name, "name"))
		o->name = value;
	else if (!strcmp(name, "detach"))
		o->detach = true;
	else if (!strcmp(name, "tty"))
		o->tty = true;
	else if (!strcmp(name, "interactive"))
		o->input = true;
	else if (o->log_level < ARCVMM_LOG_DEBUG) /* verbose */
		o->log_level++;
	return 0;
}

static const struct flag *find_own(const char *name)
{
	for (const struct flag *f = own_flags; f->name; f++)
		if (!strcmp(f->name, name))
			return f;
	return NULL;
}

/* What we must know of the library's keys. */
static int note_key(struct run_options *o, const char *name, const char *value)
{
	const unsigned max = sizeof(o->env) / sizeof(*o->env) - 1;

	if (!strcmp(name, "console")) {
		o->console_given = true;
		o->console_stdio = !strncmp(value, "stdio", 5);
	} else if (!strcmp(name, "vsock") || !strcmp(name, "init")) {
		o->no_agent |= !strcmp(value, "off");
	} else if (!strcmp(name, "vsock-uds")) {
		o->vsock_uds = value;
	} else if (!strcmp(name, "workdir")) {
		o->cwd = value;
	} else if (!strcmp(name, "user")) {
		o->user = value;
	} else if (!strcmp(name, "limit")) {
		return limits_add(&o->limits, value);
	} else if (!strcmp(name, "env")) {
		if (o->nenv == max)
			return complain("more than %u --env", max);
		o->env[o->nenv++] = value;
	}
	return 0;
}

static int set_key(struct run_options *o, const char *name, const char *value)
{
	struct arcvmm_error e;

	if (arcvmm_config_set(o->cfg, name, value, &e)) {
		/* The library names options without dashes. */
		if (e.code == -ENOENT)
			return complain("%s (see 'arcvmm help run')", e.text);
		return complain("--%s", e.text);
	}
	return note_key(o, name, value);
}

/* One "--name[=value]" at argv[*i]; advances *i past its value. */
static int parse_flag(struct run_options *o, char **argv, int *i)
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
			return set_key(o, k->name, "off");
		k = NULL;
	}
	if (!own && !k)
		return set_key(o, name, value ? value : "");
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
		return set_own(o, name, value);
	return set_key(o, name, value ? value : "on");
}

/* "-it" and the like. */
static int parse_letters(struct run_options *o, const char *letters)
{
	for (const char *c = letters + 1; *c; c++) {
		switch (*c) {
		case 't':
			o->tty = true;
			break;
		case 'i':
			o->input = true;
			break;
		case 'd':
			o->detach = true;
			break;
		case 'v':
			set_own(o, "verbose", NULL);
			break;
		default:
			return complain("unknown option '-%c' in '%s' (see "
					"'arcvmm help run')",
					*c, letters);
		}
	}
	return 0;
}

int run_parse(struct run_options *o, int argc, char **argv)
{
	int i;

	for (i = 1; i < argc; i++) {
		int rc;

		if (!strcmp(argv[i], "--")) {
			i++;
			break;
		}
		if (*argv[i] != '-' || !argv[i][1])
			break; /* the command, without "--" */
		rc = argv[i][1] == '-' ? parse_flag(o, argv, &i)
				       : parse_letters(o, argv[i]);
		if (rc)
			return rc;
	}
	if (i < argc && !*argv[i])
		return complain("the command is empty");
	if (i < argc)
		o->argv = &argv[i];
	if (o->detach && (o->tty || o->input))
		return complain("-d goes with neither -t nor -i: use 'arcvmm "
				"exec -it NAME' later");
	if ((o->tty || o->input) && (o->console_given || o->no_agent))
		return complain("-t and -i are for a command that runs by the "
				"agent: leave out --console, --no-vsock and "
				"--no-init");
	return 0;
}

/* ---- help ---- */

#define HELP_COLUMN 32
#define HELP_WIDTH  80

/* @text from HELP_COLUMN on, in lines; @left stands before the first of them. */
static void print_entry(const char *left, const char *text)
{
	int at = printf("  %-*s", HELP_COLUMN - 2, left);
	bool fits = (int)strlen(left) <= HELP_COLUMN - 4;

	while (*text) {
		int word = (int)strcspn(text, " ");

		if (!fits || (at > HELP_COLUMN && at + 1 + word >= HELP_WIDTH))
			at = printf("\n%*s", HELP_COLUMN, "") - 1;
		else if (at > HELP_COLUMN)
			at += printf(" ");
		fits = true;
		at += printf("%.*s", word, text);
		text += word + strspn(text + word, " ");
	}
	putchar('\n');
}

static void print_option(const char *name, const char *arg, const char *help,
			 const char *def, bool repeat)
{
	char left[80], text[400];

	snprintf(left, sizeof(left), "--%s%s%s", name, arg ? " " : "",
		 arg ? arg : "");
	snprintf(text, sizeof(text), "%s%s%s%s%s", help, def ? " [" : "",
		 def ? def : "", def ? "]" : "",
		 repeat ? " (may be repeated)" : "");
	print_entry(left, text);
}

static void print_keys(const char *group, const char *title)
{
	const struct arcvmm_key *k;

	printf("\n%s:\n", title);
	for (unsigned i = 0; (k = arcvmm_config_key(i)); i++) {
		char *more;

		if (strcmp(k->group, group))
			continue;
		print_option(k->name, k->arg, k->help, k->def, k->repeat);
		more = arcvmm_config_key_help(k->name);
		if (more)
			fputs(more, stdout);
		free(more);
	}
}

void run_help(void)
{
	const char *word, *why;

	puts("\nBoots the kernel and runs CMD in the guest; without CMD, the "
	     "root's own init.\nCMD's output is streamed apart from the "
	     "console, whose boot messages are kept\nfor 'arcvmm logs'. With "
	     "--console it runs on the console instead. A switch is\nturned "
	     "off by --no-NAME.");
	print_keys("boot", "Kernel");
	print_keys("root", "Root file system");
	print_keys("machine", "Machine");
	print_keys("devices", "Devices");
	print_keys("guest", "In the guest");
	puts("\nThis run:");
	for (const struct flag *f = own_flags; f->name; f++)
		print_option(f->name, f->arg, f->help, NULL, false);
	puts("\nBuilt-in command line words (one of yours displaces them):");
	for (unsigned i = 0; (word = arcvmm_cmdline_word(i, &why)); i++)
		print_entry(word, why);
	puts("\nKeys, when the console is a terminal: Ctrl-] then p presses "
	     "the power button,\nx ends the run, ? lists the keys, Ctrl-] "
	     "sends itself.\n\n"
	     "Exit status: that of CMD (127 not found, 126 not executable, 128 "
	     "+ n killed by\nsignal n). Without one: 0 power-off, 120 reboot, "
	     "121 panic, 122 crash.\n124 --timeout, 125 arcvmm could not do "
	     "it, 128 + n ended by signal n.");
}
