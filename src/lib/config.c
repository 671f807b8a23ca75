/*
 * Theory of operation: an arcvmm_config is the list of settings as they were
 * given, plus a vm_config they have been applied to, which is how a wrong
 * value is found at once. vm_create gets a vm_config of its own by applying
 * the list again, so the caller's config can be freed or changed meanwhile.
 *
 * The table `keys` is the whole vocabulary; each key knows the field it sets.
 * Device types that are made by a flag (virtio_dev_type.flag) add theirs.
 */
#include "lib/config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/limit.h"
#include "base/err.h"
#include "base/opt.h"
#include "base/util.h"
#include "lib/lib.h"
#include "machine/initramfs.h"
#include "virtio/virtio.h"

enum field_type {
	F_STR,
	F_STRV,
	F_BOOL,
	F_UINT,
	F_SIZE,
	F_ENUM,
	F_RNG,
	F_LIMIT,
};

struct field {
	struct arcvmm_key key;
	enum field_type type;
	size_t offset; /* in struct vm_config */
	uint64_t min, max;
	const char *const *names; /* F_ENUM: stored as an int */
	/* A further check of the text, or NULL. */
	int (*check)(const char *value, struct err *e);
};

static int check_console(const char *value, struct err *e);
static int check_engine(const char *value, struct err *e);
static int check_env(const char *value, struct err *e);
static int check_mount(const char *value, struct err *e);

static const char *const engines[] = { "auto", "kvm", "soft", NULL };
static const char *const cpu_models[] = {
	[BOARD_CPU_HOST] = "host",
	[BOARD_CPU_BASE] = "base",
	NULL,
};
static const char *const owners[] = {
	[INITRAMFS_OWNER_AUTO] = "auto",
	[INITRAMFS_OWNER_KEEP] = "keep",
	[INITRAMFS_OWNER_ROOT] = "root",
	NULL,
};

/* clang-format off */
#define FIELD(group, name, arg, type, field, min, max, names, check, rep, def, \
	      help)                                                          \
	{ { name, arg, help, def, rep, group }, type,                        \
	  offsetof(struct vm_config, field), min, max, names, check }
#define TEXT(group, name, arg, field, check, def, help) \
	FIELD(group, name, arg, F_STR, field, 0, 0, NULL, check, false, def, help)
#define LIST(group, name, arg, field, check, help) \
	FIELD(group, name, arg, F_STRV, field, 0, 0, NULL, check, true, NULL, help)
#define SWITCH(group, name, field, def, help) \
	FIELD(group, name, NULL, F_BOOL, field, 0, 0, NULL, NULL, false, def, help)
#define NUMBER(group, name, arg, type, field, min, max, def, help) \
	FIELD(group, name, arg, type, field, min, max, NULL, NULL, false, def, help)
#define CHOICE(group, name, arg, field, names, def, help) \
	FIELD(group, name, arg, F_ENUM, field, 0, 0, names, NULL, false, def, help)

static const struct field fields[] = {
	TEXT("boot", "kernel", "FILE", kernel, NULL, NULL,
	     "Linux kernel: bzImage or ELF, as a distribution ships it"),
	TEXT("boot", "modules", "DIR", modules, NULL,
	     "found beside the kernel, or in /lib/modules",
	     "modules of that kernel; \"none\" for one that needs none"),
	LIST("boot", "initrd", "FILE", initrds, NULL,
	     "an initramfs to unpack before ours"),
	TEXT("boot", "cmdline", "TEXT", cmdline, NULL, NULL,
	     "words for the kernel command line; they displace built-in ones"),
	SWITCH("boot", "cmdline-defaults", cmdline_defaults, "on",
	       "add the built-in command line words"),
	SWITCH("boot", "boot-messages", boot_messages, "off",
	       "let the kernel print what it does"),
	LIST("boot", "module", "NAME", extra_modules, NULL,
	     "load this kernel module too"),
	SWITCH("boot", "init", init, "on",
	       "our init starts the guest; off: your initrd does"),
	TEXT("boot", "kernel-cache", "DIR", cache, NULL, "~/.cache/arcvmm",
	     "where unpacked kernels are kept; \"\" for no cache"),

	TEXT("root", "root", "PATH", root, NULL, NULL,
	     "root file system: a directory, tar archive or disk image"),
	TEXT("root", "root-disk", "SPEC", root_disk, NULL, NULL,
	     "label=L, uuid=U, partuuid=U, partlabel=L or /dev/NAME"),
	TEXT("root", "root-fstype", "TYPE", root_fstype, NULL,
	     "by its superblock", "file system of the root disk"),
	TEXT("root", "root-flags", "OPTIONS", root_flags, NULL, NULL,
	     "mount options of the root disk"),
	SWITCH("root", "root-readonly", root_readonly, "off",
	       "mount the root disk read-only"),
	SWITCH("root", "root-overlay", root_overlay, "off",
	       "keep what the guest writes in its memory, not on the disk"),
	CHOICE("root", "root-owner", "WHO", root_owner, owners, "auto",
	       "owners of a packed directory: keep, root (yours become root)"),

	TEXT("machine", "engine", "NAME", engine, check_engine, "auto",
	     "auto, kvm or soft"),
	NUMBER("machine", "cpus", "N", F_UINT, cpus, 1, BOARD_CPUS_MAX, "1",
	       "virtual CPUs"),
	NUMBER("machine", "mem", "SIZE", F_SIZE, mem, MiB(16), 1ull << 46,
	       "256M", "memory"),
	CHOICE("machine", "cpu-model", "MODEL", cpu_model, cpu_models, "host",
	       "host: all the host has; base: x86-64-v2, the same everywhere"),

	TEXT("devices", "console", "WHERE", console, check_console, "stdio",
	     "stdio, pty, file:PATH, unix:PATH or off; then ,OPTIONS"),
	SWITCH("devices", "uart", uart, "off",
	       "a 16550 (ttyS0), whose output goes to the console's too"),
	FIELD("devices", "rng", "on|off|rate=SIZE", F_RNG, rng, 0, 0, NULL,
	      NULL, false, "on",
	      "entropy for the guest, at most rate bytes a second"),
	SWITCH("devices", "vsock", vsock, "on",
	       "sockets between host and guest"),
	NUMBER("devices", "cid", "N", F_UINT, cid, 3, UINT32_MAX - 1, "3",
	       "the guest's vsock context ID"),
	TEXT("devices", "vsock-uds", "PATH", vsock_uds, NULL, NULL,
	     "a Unix socket for \"CONNECT port\"; the guest reaches PATH_port"),
	TEXT("machine", "gdb", "WHERE", gdb, NULL, NULL,
	     "GDB server at tcp:PORT, tcp:ADDRESS:PORT or unix:PATH"),
	TEXT("machine", "trace", "FILE[,start=ADDR][,count=N]", trace, NULL,
	     NULL, "write every instruction to a file (slow)"),
	SWITCH("machine", "gdb-wait", gdb_wait, "off",
	       "start when the debugger says so"),
	SWITCH("devices", "vsock-hairpin", vsock_hairpin, "off",
	       "for tests: the guest's connections come back to it"),

	SWITCH("guest", "serve", serve, "off",
	       "run nothing by itself: wait for commands by the agent"),
	LIST("guest", "env", "NAME=VALUE", env, check_env,
	     "environment of the command"),
	TEXT("guest", "workdir", "DIR", cwd, NULL, "/",
	     "working directory of the command"),
	TEXT("guest", "user", "USER[:GROUP]", user, NULL, "root",
	     "who runs the command"),
	FIELD("guest", "limit", "NAME=SOFT[:HARD]", F_LIMIT, limits, 0, 0,
	      NULL, NULL, true, NULL, "resource limit of the command"),
	TEXT("guest", "hostname", "NAME", hostname, NULL, "arcvmm",
	     "the guest's host name"),
	LIST("guest", "mount", "'TYPE SOURCE TARGET [OPTIONS]'", mounts,
	     check_mount, "mount this too; a space in a word is %20"),
};
/* clang-format on */

/* ---- the vocabulary ---- */

/* Key @i of those that device types bring. */
static const struct virtio_dev_type *flag_at(unsigned i)
{
	for (unsigned t = 0; virtio_dev_types[t]; t++)
		if (virtio_dev_types[t]->flag && !i--)
			return virtio_dev_types[t];
	return NULL;
}

const struct arcvmm_key *arcvmm_config_key(unsigned i)
{
	static _Thread_local struct arcvmm_key key;
	const struct virtio_dev_type *t;

	if (i < array_size(fields))
		return &fields[i].key;
	t = flag_at(i - (unsigned)array_size(fields));
	if (!t)
		return NULL;
	key = (struct arcvmm_key){
		.name = t->flag,
		.arg = "OPTIONS",
		.help = t->summary,
		.repeat = true,
		.group = "devices",
	};
	return &key;
}

static char *limit_help(void)
{
	char *text = NULL;
	const char *name, *unit;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	if (!f)
		return NULL;
	for (unsigned i = 0; (name = arcvmm_limit_name(i, &unit)); i++)
		fprintf(f, "      %-24s  %s\n", name, unit);
	fclose(f);
	return text;
}

char *arcvmm_config_key_help(const char *name)
{
	bool by_name = !strcmp(name, "console") || !strcmp(name, "rng");
	const struct virtio_dev_type *t =
		by_name ? virtio_dev_type_by_name(name)
			: virtio_dev_type_by_flag(name);
	char *text;
	int n;

	if (!strcmp(name, "limit"))
		return limit_help();
	if (!t || !t->options)
		return NULL;
	n = opt_help(t->options, NULL, 0);
	text = malloc((size_t)n + 1);
	if (text)
		opt_help(t->options, text, (size_t)n + 1);
	return text;
}

static const char *key_name_at(const void *ctx, size_t i)
{
	const struct arcvmm_key *k = arcvmm_config_key((unsigned)i);

	(void)ctx;
	return k ? k->name : NULL;
}

/* ---- applying a setting ---- */

static const char *enum_name_at(const void *ctx, size_t i)
{
	return ((const char *const *)ctx)[i];
}

static int set_string(char **s, const char *value, struct err *e)
{
	char *copy = strdup(value);

	if (!copy)
		return err_set(e, -ENOMEM, "out of memory");
	free(*s);
	*s = copy;
	return 0;
}

static int unknown_word(const char *what, const char *value,
			const char *const *names, struct err *e)
{
	const char *near = opt_nearest(value, enum_name_at, names);

	return err_set(e, -EINVAL, "%s: '%s' is not known; did you mean %s?",
		       what, value, near ? near : names[0]);
}

static int check_engine(const char *value, struct err *e)
{
	for (int i = 0; engines[i]; i++)
		if (!strcmp(engines[i], value))
			return 0;
	return unknown_word("engine", value, engines, e);
}

/* Parse @text as options of device type @t, to find mistakes. */
static int check_options(const struct virtio_dev_type *t, const char *key,
			 const char *text, struct err *e)
{
	void *options = calloc(1, t->options_size + 1);
	int rc;

	if (!options)
		return err_set(e, -ENOMEM, "out of memory");
	if (t->defaults)
		t->defaults(options);
	rc = opt_parse(t->options, options, text, e);
	if (rc)
		err_prefix(e, rc, "%s '%s'", key, text);
	opt_free(t->options, options);
	free(options);
	return rc;
}

static int check_console(const char *value, struct err *e)
{
	static const char *const plain[] = { "stdio", "pty", "off", NULL };
	size_t len = strcspn(value, ",");
	bool known = !strncmp(value, "file:", 5) || !strncmp(value, "unix:", 5);
	char word[32];
	const char *near;

	known = known && len > 5;
	for (int i = 0; plain[i]; i++)
		known |= len == strlen(plain[i]) &&
			 !strncmp(value, plain[i], len);
	if (known)
		return check_options(virtio_dev_type_by_name("console"),
				     "console", value, e);
	snprintf(word, sizeof(word), "%.*s", (int)len, value);
	near = opt_nearest(word, enum_name_at, plain);
	return err_set(e, -EINVAL,
		       "console: '%s' is not stdio, pty, file:PATH, unix:PATH "
		       "or off%s%s%s",
		       value, near ? "; did you mean " : "", near ? near : "",
		       near ? "?" : "");
}

static int check_env(const char *value, struct err *e)
{
	const char *eq = strchr(value, '=');

	if (!eq || eq == value)
		return err_set(e, -EINVAL, "env: '%s' is not NAME=VALUE",
			       value);
	return 0;
}

static int check_mount(const char *value, struct err *e)
{
	unsigned words = 0;

	for (const char *p = value; *(p += strspn(p, " ")); words++)
		p += strcspn(p, " ");
	if (words < 3 || words > 4)
		return err_set(
			e, -EINVAL,
			"mount: '%s' is not TYPE SOURCE TARGET [OPTIONS]",
			value);
	return 0;
}

static int set_enum(const struct field *f, int *at, const char *value,
		    struct err *e)
{
	for (int i = 0; f->names[i]; i++) {
		if (!strcmp(f->names[i], value)) {
			*at = i;
			return 0;
		}
	}
	return unknown_word(f->key.name, value, f->names, e);
}

/* -EINVAL without a sentence when @value is no switch word. */
static int parse_switch(const char *value, bool *at)
{
	if (!strcmp(value, "on") || !strcmp(value, "yes"))
		*at = true;
	else if (!strcmp(value, "off") || !strcmp(value, "no"))
		*at = false;
	else
		return -EINVAL;
	return 0;
}

static int set_rng(struct vm_config *c, const char *value, struct err *e)
{
	int rc;

	if (!parse_switch(value, &c->rng))
		return 0;
	rc = check_options(virtio_dev_type_by_name("rng"), "rng", value, e);
	c->rng |= !rc;
	return rc ? rc : set_string(&c->rng_options, value, e);
}

/* Kept as the guest's configuration has it: numbers. */
static int set_limit(struct strv *limits, const char *value, struct err *e)
{
	struct agent_limit l;
	char line[64];
	int rc = agent_limit_parse(&l, value, e);

	if (rc)
		return rc;
	snprintf(line, sizeof(line), "%d %llu %llu", l.resource,
		 (unsigned long long)l.soft, (unsigned long long)l.hard);
	return strv_add(limits, line) ? err_set(e, -ENOMEM, "out of memory")
				      : 0;
}

static int set_field(const struct field *f, struct vm_config *c,
		     const char *value, struct err *e)
{
	void *at = (char *)c + f->offset;
	int rc = f->check ? f->check(value, e) : 0;

	if (rc)
		return rc;
	switch (f->type) {
	case F_STR:
		return set_string(at, value, e);
	case F_STRV:
		if (strv_add(at, value))
			return err_set(e, -ENOMEM, "out of memory");
		return 0;
	case F_BOOL:
		rc = parse_switch(value, at);
		return rc ? err_set(e, rc, "%s: '%s' is neither on nor off",
				    f->key.name, value)
			  : 0;
	case F_UINT:
		return opt_uint(f->key.name, value, f->min, f->max, at, e);
	case F_SIZE:
		return opt_size(f->key.name, value, f->min, f->max, at, e);
	case F_ENUM:
		return set_enum(f, at, value, e);
	case F_RNG:
		return set_rng(c, value, e);
	case F_LIMIT:
		return set_limit(at, value, e);
	}
	return 0;
}

static int set_device(const struct virtio_dev_type *t, struct vm_config *c,
		      const char *value, struct err *e)
{
	int rc = check_options(t, t->flag, value, e);

	if (rc)
		return rc;
	if (vm_config_add_device(c, t->name, value))
		return err_set(e, -ENOMEM, "out of memory");
	return 0;
}

int config_apply(struct vm_config *c, const char *key, const char *value,
		 struct err *e)
{
	const struct virtio_dev_type *t = virtio_dev_type_by_flag(key);
	const char *near;

	for (unsigned i = 0; i < array_size(fields); i++)
		if (!strcmp(fields[i].key.name, key))
			return set_field(&fields[i], c, value, e);
	if (t)
		return set_device(t, c, value, e);
	near = opt_nearest(key, key_name_at, NULL);
	if (near)
		return err_set(e, -ENOENT,
			       "unknown option '%s'; did you mean "
			       "'%s'?",
			       key, near);
	return err_set(e, -ENOENT, "unknown option '%s'", key);
}

/* ---- the public object ---- */

struct arcvmm_config *arcvmm_config_new(void)
{
	struct arcvmm_config *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	vm_config_init(&c->vm);
	c->console_in = c->vm.console_in;
	c->console_out = c->vm.console_out;
	return c;
}

void arcvmm_config_free(struct arcvmm_config *c)
{
	if (!c)
		return;
	vm_config_free(&c->vm);
	strv_free(&c->keys);
	strv_free(&c->values);
	strv_free(&c->argv);
	free(c);
}

int arcvmm_config_set(struct arcvmm_config *c, const char *key,
		      const char *value, struct arcvmm_error *error)
{
	struct err e = { 0 };
	int rc = config_apply(&c->vm, key, value, &e);

	if (!rc && (strv_add(&c->keys, key) || strv_add(&c->values, value))) {
		/* Keep the lists in step: forget the key without a value. */
		if (c->keys.n > c->values.n) {
			free(c->keys.v[--c->keys.n]);
			c->keys.v[c->keys.n] = NULL;
		}
		rc = err_set(&e, -ENOMEM, "out of memory");
	}
	return public_error(error, rc, &e);
}

int arcvmm_config_command(struct arcvmm_config *c, const char *const *argv)
{
	if (!argv) {
		strv_free(&c->argv);
		return 0;
	}
	if (!argv[0] || !*argv[0])
		return -EINVAL;
	return strv_copy(&c->argv, argv);
}

void arcvmm_config_log(struct arcvmm_config *c, arcvmm_log_fn *fn, void *ctx,
		       enum arcvmm_log_level level)
{
	c->log_fn = fn;
	c->log_ctx = ctx;
	c->log_level = level;
}

void arcvmm_config_console_fds(struct arcvmm_config *c, int in_fd, int out_fd)
{
	c->console_in = in_fd;
	c->console_out = out_fd;
}

int config_copy(struct vm_config *to, const struct arcvmm_config *c,
		struct err *e)
{
	int rc = 0;

	vm_config_init(to);
	for (size_t i = 0; !rc && i < c->keys.n; i++)
		rc = config_apply(to, c->keys.v[i], c->values.v[i], e);
	if (!rc && c->argv.n && strv_copy(&to->argv, strv_get(&c->argv)))
		rc = err_set(e, -ENOMEM, "out of memory");
	to->console_in = c->console_in;
	to->console_out = c->console_out;
	if (rc)
		vm_config_free(to);
	return rc;
}
