/* The inside of an arcvmm_config. */
#ifndef ARC_LIB_CONFIG_H
#define ARC_LIB_CONFIG_H

#include "arcvmm/arcvmm.h"
#include "base/strv.h"
#include "vm/vm.h"

struct arcvmm_config {
	struct vm_config vm; /* the settings applied, to check them */
	struct strv keys, values; /* the settings as given, in step */
	struct strv argv;
	arcvmm_log_fn *log_fn;
	void *log_ctx;
	enum arcvmm_log_level log_level;
	int console_in, console_out;
};

int config_apply(struct vm_config *c, const char *key, const char *value,
		 struct err *e);
/* A vm_config of its own from all settings; on failure nothing is left. */
int config_copy(struct vm_config *to, const struct arcvmm_config *c,
		struct err *e);

#endif
