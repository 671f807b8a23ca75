/* Who a program runs as, by /etc/passwd and /etc/group of the guest's root. */
#ifndef ARC_GUEST_USER_H
#define ARC_GUEST_USER_H

#include <sys/types.h>

#define USER_MAX_GROUPS 64

struct user {
	uid_t uid;
	gid_t gid;
	gid_t groups[USER_MAX_GROUPS];
	int ngroups;
	char name[64], home[256], shell[256];
};

/*
 * "name", "uid", "name:group", "uid:gid"; NULL or "": root. A number that is
 * in no file is taken as it is. 0, or -ENOENT for an unknown name.
 */
int user_find(const char *spec, struct user *u);
/* Become @u, for good. 0 or -errno. */
int user_become(const struct user *u);

#endif
