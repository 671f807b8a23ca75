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

#include "base/err.h"
#include "base/opt.h"
#include "base/util.h"
#include "lib/lib.h"
#include "machine/initramfs.h"
#include "virtio/virtio.h"

enum field_type { F_STR, F_STRV, F_BOOL, F_UINT, F_SIZE, F_ENUM };

struct field {
	struct arcvmm_key key;
	enum field_type type;
	size_t offset; /* in struct vm_config */
	uint64_t min, max;
	const char *const *names; /* F_ENUM, stored as an int */
	bool as_string; /* F_ENUM: stored as the word */
};

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

#define AT(f) offsetof(struct vm_config, f)

static const struct field fields[] = {
	/* boot */
	{ { "kernel", "FILE",
	    "Linux kernel: bzImage or ELF, as a distribution "
	    "ships it",
	    NULL, false, "boot" },
	  F_STR,
	  AT(kernel),
	  0,
	  0,
	  NULL,
	  false },
	{ { "modules", "DIR", "modules of that kernel",
	    "found beside the kernel, or in /lib/modules", false, "boot" },
	  F_STR,
	  AT(modules),
	  0,
	  0,
	  NULL,
	  false },
	{ { "initrd", "FILE", "an initramfs to unpack before ours", NULL, true,
	    "boot" },
	  F_STRV,
	  AT(initrds),
	  0,
	  0,
	  NULL,
	  false },
	{ { "cmdline", "TEXT",
	    "words for the kernel command line; they win "
	    "over the built-in ones",
	    NULL, false, "boot" },
	  F_STR,
	  AT(cmdline),
	  0,
	  0,
	  NULL,
	  false },
	{ { "cmdline-defaults", NULL, "add the built-in command line words",
	    "on", false, "boot" },
	  F_BOOL,
	  AT(cmdline_defaults),
	  0,
	  0,
	  NULL,
	  false },
	{ { "boot-messages", NULL, "let the kernel print what it does", "off",
	    false, "boot" },
	  F_BOOL,
	  AT(boot_messages),
	  0,
	  0,
	  NULL,
	  false },
	{ { "init", NULL,
	    "add our init to the initramfs and let it start the "
	    "guest; off: the kernel gets your initrd only",
	    "on", false, "boot" },
	  F_BOOL,
	  AT(init),
	  0,
	  0,
	  NULL,
	  false },
	{ { "module", "NAME", "load this kernel module too", NULL, true,
	    "boot" },
	  F_STRV,
	  AT(extra_modules),
	  0,
	  0,
	  NULL,
	  false },
	{ { "kernel-cache", "DIR",
	    "where unpacked kernels are kept; \"\" for "
	    "no cache",
	    "~/.cache/arcvmm", false, "boot" },
	  F_STR,
	  AT(cache),
	  0,
	  0,
	  NULL,
	  false },
	/* root */
	{ { "root", "PATH",
	    "root file system: a directory, a tar archive or a "
	    "disk image",
	    NULL, false, "root" },
	  F_STR,
	  AT(root),
	  0,
	  0,
	  NULL,
	  false },
	{ { "root-disk", "SPEC",
	    "root on a disk: label=L, uuid=U, partuuid=U, "
	    "partlabel=L or /dev/NAME",
	    NULL, false, "root" },
	  F_STR,
	  AT(root_disk),
	  0,
	  0,
	  NULL,
	  false },
	{ { "root-fstype", "TYPE", "file system of the root disk",
	    "by its superblock", false, "root" },
	  F_STR,
	  AT(root_fstype),
	  0,
	  0,
	  NULL,
	  false },
	{ { "root-flags", "OPTIONS", "mount options of the root disk", NULL,
	    false, "root" },
	  F_STR,
	  AT(root_flags),
	  0,
	  0,
	  NULL,
	  false },
	{ { "root-readonly", NULL, "mount the root disk read-only", "off",
	    false, "root" },
	  F_BOOL,
	  AT(root_readonly),
	  0,
	  0,
	  NULL,
	  false },
	{ { "root-overlay", NULL,
	    "leave the root disk untouched: what the "
	    "guest writes stays in its memory",
	    "off", false, "root" },
	  F_BOOL,
	  AT(root_overlay),
	  0,
	  0,
	  NULL,
	  false },
	{ { "root-owner", "WHO",
	    "owners of a packed directory's files: as on "
	    "the host (keep) or the caller's become root",
	    "auto: root unless started by root", false, "root" },
	  F_ENUM,
	  AT(root_owner),
	  0,
	  0,
	  owners,
	  false },
	/* machine */
	{ { "engine", "NAME", "auto, kvm or soft", "auto", false, "machine" },
	  F_ENUM,
	  AT(engine),
	  0,
	  0,
	  engines,
	  true },
	{ { "cpus", "N", "virtual CPUs", "1", false, "machine" },
	  F_UINT,
	  AT(cpus),
	  1,
	  BOARD_CPUS_MAX,
	  NULL,
	  false },
	{ { "mem", "SIZE", "memory", "256M", false, "machine" },
	  F_SIZE,
	  AT(mem),
	  MiB(16),
	  1ull << 46,
	  NULL,
	  false },
	{ { "cpu-model", "MODEL",
	    "host: all the host has; base: x86-64-v2, "
	    "the same everywhere",
	    "host", false, "machine" },
	  F_ENUM,
	  AT(cpu_model),
	  0,
	  0,
	  cpu_models,
	  false },
	/* devices */
	{ { "console", "WHERE", "stdio, pty, file:PATH, unix:PATH or off",
	    "stdio", false, "devices" },
	  F_STR,
	  AT(console),
	  0,
	  0,
	  NULL,
	  false },
	{ { "uart", NULL,
	    "a 16550 UART (ttyS0) beside the virtio console; its "
	    "output goes there too",
	    "off", false, "devices" },
	  F_BOOL,
	  AT(uart),
	  0,
	  0,
	  NULL,
	  false },
	{ { "rng", NULL, "a random number source for the guest", "on", false,
	    "devices" },
	  F_BOOL,
	  AT(rng),
	  0,
	  0,
	  NULL,
	  false },
	/* guest */
	{ { "env", "NAME=VALUE", "environment of the command", NULL, true,
	    "guest" },
	  F_STRV,
	  AT(env),
	  0,
	  0,
	  NULL,
	  false },
	{ { "workdir", "DIR", "working directory of the command", "/", false,
	    "guest" },
	  F_STR,
	  AT(cwd),
	  0,
	  0,
	  NULL,
	  false },
	{ { "user", "USER[:GROUP]", "who runs the command", "root", false,
	    "guest" },
	  F_STR,
	  AT(user),
	  0,
	  0,
	  NULL,
	  false },
	{ { "hostname", "NAME", "the guest's host name", "arcvmm", false,
	    "guest" },
	  F_STR,
	  AT(hostname),
	  0,
	  0,
	  NULL,
	  false },
	{ { "mount", "'TYPE SOURCE TARGET [OPTIONS]'", "mount this too", NULL,
	    true, "guest" },
	  F_STRV,
	  AT(mounts),
	  0,
	  0,
	  NULL,
	  false },
};

/* ---- the vocabulary ---- */

static const struct virtio_dev_type *flag_type(const char *name)
{
	for (unsigned i = 0; virtio_dev_types[i]; i++) {
		const struct virtio_dev_type *t = virtio_dev_types[i];

		if (t->flag && !strcmp(t->flag + 2, name))
			return t;
	}
	return NULL;
}

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
		.name = t->flag + 2,
		.arg = "OPTIONS",
		.help = t->summary,
		.repeat = true,
		.group = "devices",
	};
	return &key;
}

char *arcvmm_config_key_help(const char *name)
{
	const struct virtio_dev_type *t = flag_type(name);
	char *text;
	int n;

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

static int set_enum(const struct field *f, void *at, const char *value,
		    struct err *e)
{
	const char *near;

	for (int i = 0; f->names[i]; i++) {
		if (strcmp(f->names[i], value))
			continue;
		if (f->as_string)
			return set_string(at, value, e);
		*(int *)at = i;
		return 0;
	}
	near = opt_nearest(value, enum_name_at, f->names);
	return err_set(e, -EINVAL, "%s: '%s' is not known; did you mean %s?",
		       f->key.name, value, near ? near : f->names[0]);
}

static int set_bool(const char *name, bool *at, const char *value,
		    struct err *e)
{
	if (!strcmp(value, "on") || !strcmp(value, "yes"))
		*at = true;
	else if (!strcmp(value, "off") || !strcmp(value, "no"))
		*at = false;
	else
		return err_set(e, -EINVAL, "%s: '%s' is neither on nor off",
			       name, value);
	return 0;
}

static int check_console(const char *value, struct err *e)
{
	static const char *const plain[] = { "stdio", "pty", "off", NULL };
	const char *near;

	for (int i = 0; plain[i]; i++)
		if (!strcmp(value, plain[i]))
			return 0;
	if ((!strncmp(value, "file:", 5) || !strncmp(value, "unix:", 5)) &&
	    value[5])
		return 0;
	near = opt_nearest(value, enum_name_at, plain);
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

static int set_field(const struct field *f, struct vm_config *c,
		     const char *value, struct err *e)
{
	void *at = (char *)c + f->offset;
	int rc = 0;

	if (f->offset == AT(console))
		rc = check_console(value, e);
	else if (f->offset == AT(env))
		rc = check_env(value, e);
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
		return set_bool(f->key.name, at, value, e);
	case F_UINT:
		return opt_uint(f->key.name, value, f->min, f->max, at, e);
	case F_SIZE:
		return opt_size(f->key.name, value, f->min, f->max, at, e);
	case F_ENUM:
		return set_enum(f, at, value, e);
	}
	return 0;
}

/* Device options are checked by parsing them into a throw-away struct. */
static int set_device(const struct virtio_dev_type *t, struct vm_config *c,
		      const char *value, struct err *e)
{
	void *options = calloc(1, t->options_size + 1);
	int rc;

	if (!options)
		return err_set(e, -ENOMEM, "out of memory");
	if (t->defaults)
		t->defaults(options);
	rc = t->options ? opt_parse(t->options, options, value, e) : 0;
	if (rc)
		err_prefix(e, rc, "%s '%s'", t->flag, value);
	if (t->options)
		opt_free(t->options, options);
	free(options);
	if (rc)
		return rc;
	if (vm_config_add_device(c, t->name, value))
		return err_set(e, -ENOMEM, "out of memory");
	return 0;
}

int config_apply(struct vm_config *c, const char *key, const char *value,
		 struct err *e)
{
	const struct virtio_dev_type *t = flag_type(key);
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
