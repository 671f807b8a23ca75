/*
 * /.arcvmm/config: what the host wants of this boot. Lines "key value"; a value
 * is written with %XX for each byte that is not a printable ASCII character
 * and for '%', so that it may hold any byte but 0. docs/agent.md has the keys.
 */
#ifndef ARC_GUEST_CONFIG_H
#define ARC_GUEST_CONFIG_H

#include <stdbool.h>
#include <stddef.h>

#include "rlimits.h"

#define CONFIG_VERSION 1

struct config_module {
	char *name;
	char *deps; /* names with blanks between, or "" */
	bool loaded, tried;
};

struct config {
	const char *console, *hostname;
	const char *root, *root_type, *root_flags;
	bool root_readonly, root_overlay;
	bool serve, status;
	unsigned agent_port; /* 0: no agent */
	const char *cwd, *user;
	struct limits limits;
	char **argv, **env, **mounts, **loads; /* NULL-terminated */
	struct config_module *modules;
	size_t module_count;
	char *text; /* what all of these point into */
};

/*
 * Take @text (@len bytes and a 0 behind, malloc'ed) apart; @c owns it from now
 * on, also on failure. 0; -EINVAL with the number of the line in *@bad_line;
 * -EPROTO another version; -ENOMEM.
 */
int config_parse(struct config *c, char *text, size_t len, int *bad_line);
void config_free(struct config *c);

/* Undo the %XX of @s in place. False when it is not well-formed. */
bool config_unescape(char *s);

#endif
