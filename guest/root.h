/* Finds the root filesystem the configuration names, and moves into it. */
#ifndef ARC_GUEST_ROOT_H
#define ARC_GUEST_ROOT_H

#include <stddef.h>

struct config;

/*
 * Mount the root of @c (which names a disk) and make it "/": our init stays
 * reachable as /run/arcvmm/init, the initramfs is emptied. @uevents: a socket
 * of uevent_open(). 0; or -errno with a sentence in @why.
 */
int root_switch(struct config *c, int uevents, char *why, size_t size);

/* proc, sys, dev, devpts, shm, run, cgroup2 on the first root. */
void root_mount_basics(void);
/* Load the modules of the configuration's mounts, while they are there. */
void root_load_filesystems(struct config *c);
/*
 * What the root shall have besides: the configuration's mounts, /tmp. 0; or
 * -errno with a sentence in @why.
 */
int root_mount_more(struct config *c, char *why, size_t size);
/* Flush everything and leave no filesystem on a disk writable. */
void root_quiesce(void);

#endif
