#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "vm/vm.h"

void vm_config_init(struct vm_config *c)
{
	*c = (struct vm_config){
		.cpus = 1,
		.mem = MiB(256),
		.cmdline_defaults = true,
		.init = true,
		.rng = true,
		.vsock = true,
		.cid = 3,
		.console_in = 0,
		.console_out = 1,
	};
}

int vm_config_add_device(struct vm_config *c, const char *type,
			 const char *options)
{
	struct vm_device_config *d;

	d = realloc(c->devices, (c->ndevices + 1) * sizeof(*d));
	if (!d)
		return -ENOMEM;
	c->devices = d;
	d += c->ndevices;
	d->type = strdup(type);
	d->options = strdup(options);
	if (!d->type || !d->options) {
		free(d->type);
		free(d->options);
		return -ENOMEM;
	}
	c->ndevices++;
	return 0;
}

void vm_config_free(struct vm_config *c)
{
	char **strings[] = { &c->engine,    &c->kernel,	     &c->modules,
			     &c->cmdline,   &c->cache,	     &c->root,
			     &c->root_disk, &c->root_fstype, &c->root_flags,
			     &c->console,   &c->cwd,	     &c->user,
			     &c->hostname,  &c->vsock_uds,   &c->gdb,
			     &c->trace,	    &c->rng_options };

	for (unsigned i = 0; i < array_size(strings); i++) {
		free(*strings[i]);
		*strings[i] = NULL;
	}
	for (size_t i = 0; i < c->ndevices; i++) {
		free(c->devices[i].type);
		free(c->devices[i].options);
	}
	free(c->devices);
	c->devices = NULL;
	c->ndevices = 0;
	strv_free(&c->initrds);
	strv_free(&c->extra_modules);
	strv_free(&c->argv);
	strv_free(&c->env);
	strv_free(&c->mounts);
	strv_free(&c->limits);
}
