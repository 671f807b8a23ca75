#include "user.h"

#include <errno.h>
#include <grp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool number(const char *s, unsigned *out)
{
	char *end;
	unsigned long v;

	if (*s < '0' || *s > '9')
		return false;
	v = strtoul(s, &end, 10);
	*out = (unsigned)v;
	return !*end && v < 0xffffffff;
}

/* The fields of a line "a:b:c"; how many there are, at most @max. */
static int split(char *line, char **field, int max)
{
	int n = 0;

	line[strcspn(line, "\n")] = 0;
	while (n < max) {
		field[n++] = line;
		line = strchr(line, ':');
		if (!line)
			break;
		*line++ = 0;
	}
	return n;
}

static bool find_passwd(const char *who, struct user *u)
{
	FILE *f = fopen("/etc/passwd", "re");
	bool found = false, is_number;
	char line[1024], *field[7];
	unsigned uid, want;

	is_number = number(who, &want);
	while (f && !found && fgets(line, sizeof(line), f)) {
		if (split(line, field, 7) < 7 || !number(field[2], &uid) ||
		    (strcmp(field[0], who) && !(is_number && uid == want)))
			continue;
		found = true;
		u->uid = uid;
		u->gid = (gid_t)atoi(field[3]);
		snprintf(u->name, sizeof(u->name), "%s", field[0]);
		snprintf(u->home, sizeof(u->home), "%s", field[5]);
		snprintf(u->shell, sizeof(u->shell), "%s", field[6]);
	}
	if (f)
		fclose(f);
	return found;
}

static bool member(const char *list, const char *name)
{
	size_t n = strlen(name);

	while (*list) {
		size_t len = strcspn(list, ",");

		if (len == n && !memcmp(list, name, n))
			return true;
		list += len + (list[len] == ',');
	}
	return false;
}

/* The group called @group, or the groups @u is a member of when it is NULL. */
static bool find_groups(const char *group, struct user *u)
{
	FILE *f = fopen("/etc/group", "re");
	char line[8192], *field[4];
	bool found = false;
	unsigned gid;

	while (f && fgets(line, sizeof(line), f)) {
		if (split(line, field, 4) < 4 || !number(field[2], &gid))
			continue;
		if (group && !strcmp(field[0], group)) {
			u->gid = gid;
			found = true;
			break;
		}
		if (!group && u->name[0] && member(field[3], u->name) &&
		    u->ngroups < USER_MAX_GROUPS)
			u->groups[u->ngroups++] = gid;
	}
	if (f)
		fclose(f);
	return found;
}

int user_find(const char *spec, struct user *u)
{
	char who[128];
	const char *colon;
	unsigned id;

	*u = (struct user){ .home = "/", .shell = "/bin/sh" };
	if (!spec || !*spec)
		spec = "0";
	colon = strchr(spec, ':');
	snprintf(who, sizeof(who), "%.*s",
		 colon ? (int)(colon - spec) : (int)sizeof(who), spec);
	if (!find_passwd(who, u)) {
		if (!strcmp(who, "root") || (number(who, &id) && !id)) {
			strcpy(u->name, "root");
			strcpy(u->home, "/root");
			if (access(u->home, X_OK))
				strcpy(u->home, "/");
		} else if (number(who, &id)) {
			u->uid = u->gid = id;
		} else {
			return -ENOENT;
		}
	}
	if (colon && !find_groups(colon + 1, u)) {
		if (!number(colon + 1, &id))
			return -ENOENT;
		u->gid = id;
	}
	u->groups[u->ngroups++] = u->gid;
	if (!colon)
		find_groups(NULL, u);
	return 0;
}

int user_become(const struct user *u)
{
	if (setgroups((size_t)u->ngroups, u->groups) < 0 ||
	    setgid(u->gid) < 0 || setuid(u->uid) < 0)
		return -errno;
	return 0;
}
