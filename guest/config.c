#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

bool config_unescape(char *s)
{
	char *out = s;

	for (; *s; s++) {
		if (*s == '%') {
			int hi = hex(s[1]), lo = hi < 0 ? -1 : hex(s[2]);

			if (lo < 0 || !(hi << 4 | lo))
				return false;
			*out++ = (char)(hi << 4 | lo);
			s += 2;
		} else {
			*out++ = *s;
		}
	}
	*out = 0;
	return true;
}

/* Append to a NULL-terminated list, grown by doubling at powers of two. */
static int add(char ***list, char *value)
{
	size_t n = 0;

	while (*list && (*list)[n])
		n++;
	if (!*list || (n & (n + 1)) == 0) {
		char **l = realloc(*list, (2 * n + 2) * sizeof(*l));

		if (!l)
			return -ENOMEM;
		*list = l;
	}
	(*list)[n] = value;
	(*list)[n + 1] = NULL;
	return 0;
}

static int add_module(struct config *c, char *value)
{
	size_t n = c->module_count;
	char *deps = strchr(value, ' ');

	if ((n & (n - 1)) == 0) {
		struct config_module *m;

		m = realloc(c->modules, (n ? 2 * n : 1) * sizeof(*m));
		if (!m)
			return -ENOMEM;
		c->modules = m;
	}
	if (deps)
		*deps++ = 0;
	if (!*value || strchr(value, '/'))
		return -EINVAL;
	c->modules[n] = (struct config_module){ .name = value,
						.deps = deps ? deps : "" };
	c->module_count++;
	return 0;
}

static int set_number(unsigned *to, const char *value)
{
	unsigned long v = 0;

	if (!*value)
		return -EINVAL;
	for (; *value; value++) {
		if (*value < '0' || *value > '9' || v > 0xfffffff)
			return -EINVAL;
		v = v * 10 + (unsigned long)(*value - '0');
	}
	*to = (unsigned)v;
	return v > 0xffffffff ? -EINVAL : 0;
}

static bool take_number(const char **at, uint64_t *out)
{
	char *end;

	errno = 0;
	*out = strtoull(*at, &end, 10);
	if (**at < '0' || **at > '9' || errno)
		return false;
	*at = end + (*end == ' ');
	return true;
}

/* "RESOURCE SOFT HARD" */
static int add_limit(struct config *c, const char *value)
{
	uint64_t resource, soft, hard;

	if (!take_number(&value, &resource) || !take_number(&value, &soft) ||
	    !take_number(&value, &hard) || *value || resource >= LIMITS_MAX)
		return -EINVAL;
	return limits_add(&c->limits, (int)resource, soft, hard);
}

static int set_line(struct config *c, const char *key, char *value)
{
	static const struct {
		const char *key;
		size_t at;
	} texts[] = {
		{ "console", offsetof(struct config, console) },
		{ "hostname", offsetof(struct config, hostname) },
		{ "root", offsetof(struct config, root) },
		{ "root-type", offsetof(struct config, root_type) },
		{ "root-flags", offsetof(struct config, root_flags) },
		{ "cwd", offsetof(struct config, cwd) },
		{ "user", offsetof(struct config, user) },
	}, flags[] = {
		{ "root-readonly", offsetof(struct config, root_readonly) },
		{ "root-overlay", offsetof(struct config, root_overlay) },
		{ "serve", offsetof(struct config, serve) },
		{ "status", offsetof(struct config, status) },
	}, lists[] = {
		{ "arg", offsetof(struct config, argv) },
		{ "env", offsetof(struct config, env) },
		{ "load", offsetof(struct config, loads) },
		{ "mount", offsetof(struct config, mounts) },
	};

	/* Several words, each escaped by itself. */
	if (!strcmp(key, "module"))
		return add_module(c, value);
	if (!config_unescape(value))
		return -EINVAL;
	if (!strcmp(key, "limit"))
		return add_limit(c, value);
	if (!strcmp(key, "agent"))
		return set_number(&c->agent_port, value);
	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++)
		if (!strcmp(key, texts[i].key)) {
			*(const char **)((char *)c + texts[i].at) = value;
			return 0;
		}
	for (size_t i = 0; i < sizeof(lists) / sizeof(*lists); i++)
		if (!strcmp(key, lists[i].key))
			return add((char ***)((char *)c + lists[i].at), value);
	for (size_t i = 0; i < sizeof(flags) / sizeof(*flags); i++)
		if (!strcmp(key, flags[i].key)) {
			*(bool *)((char *)c + flags[i].at) = true;
			return 0;
		}
	/* A newer host says something we do not know: not an order we may
	 * leave out. */
	return -EINVAL;
}

int config_parse(struct config *c, char *text, size_t len, int *bad_line)
{
	char *line = text, *next;
	int number = 0, ret;

	*c = (struct config){ .text = text };
	*bad_line = 1;
	if (strlen(text) != len)
		return -EINVAL;
	for (; *line; line = next) {
		char *value;

		*bad_line = ++number;
		next = strchr(line, '\n');
		if (!next)
			return -EINVAL;
		*next++ = 0;
		value = strchr(line, ' ');
		if (value)
			*value++ = 0;
		if (number == 1) {
			if (strcmp(line, "arcvmm"))
				return -EINVAL;
			if (!value || strcmp(value, "1"))
				return -EPROTO;
			continue;
		}
		ret = set_line(c, line, value ? value : line + strlen(line));
		if (ret < 0)
			return ret;
	}
	return number ? 0 : -EINVAL;
}

void config_free(struct config *c)
{
	free(c->argv);
	free(c->env);
	free(c->mounts);
	free(c->loads);
	free(c->modules);
	free(c->text);
	*c = (struct config){ 0 };
}
