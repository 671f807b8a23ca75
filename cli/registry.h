/*
 * The running VMs of this user: one directory each below the runtime
 * directory ($XDG_RUNTIME_DIR/arcvmm; for root /run/arcvmm where there is
 * a /run; else /tmp/arcvmm-UID), which only its owner may enter.
 *
 *	NAME/lock          locked by the VM's process as long as it lives
 *	NAME/info          lines "key value": pid, engine, kernel, ...
 *	NAME/ctl           socket: orders to the VM's process (control.h)
 *	NAME/vsock         socket: "CONNECT port" (arcvmm_uds_connect())
 *	NAME/console.log   the console's last output; console.log.1 before it
 */
#ifndef CLI_REGISTRY_H
#define CLI_REGISTRY_H

#include <stdbool.h>
#include <stddef.h>

#define REGISTRY_NAME_MAX 40

struct instance {
	char name[REGISTRY_NAME_MAX + 1];
	char dir[128];
	int lock; /* our lock when it is our VM, else -1 */
};

/*
 * Make a directory for a new VM. @name NULL: one is made up. 0, or a status
 * with a message said (name taken or not a name).
 */
int registry_claim(struct instance *i, const char *name);
/* Remove it. */
void registry_release(struct instance *i);

/*
 * The running VM @name; a status with a message said when there is none. A VM
 * whose process died is cleaned up and reported.
 */
int registry_find(struct instance *i, const char *name);
/* Call @fn for each that runs, by name; cleans up after dead ones. */
void registry_each(void (*fn)(void *ctx, const struct instance *i), void *ctx);

/* "DIR/FILE" into @buf. */
const char *instance_path(const struct instance *i, const char *file, char *buf,
			  size_t size);

/* One value of the info file, "" when it has none. */
void instance_info(const struct instance *i, const char *key, char *buf,
		   size_t size);
/* Write the info file anew: key, value, ..., NULL. */
void instance_set_info(const struct instance *i, ...) __attribute__((sentinel));

#endif
