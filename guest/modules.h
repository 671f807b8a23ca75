/* Loads the kernel modules the host put beside us, with what they need. */
#ifndef ARC_GUEST_MODULES_H
#define ARC_GUEST_MODULES_H

struct config;

/*
 * Load @name and its dependencies. 0 when it is loaded, built in or loaded
 * already; -ENOENT when the host gave no such module; -errno of the kernel,
 * after a line on the console.
 */
int module_load(struct config *c, const char *name);
/* All the configuration orders, and how many that is. */
int modules_load_all(struct config *c);

#endif
