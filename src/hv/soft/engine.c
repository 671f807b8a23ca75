/*
 * The software engine is not in this build: every way to it answers so.
 */
#include <errno.h>

#include "base/err.h"
#include "hv/hv.h"

static int soft_probe(struct hv_info *info, struct err *e)
{
	(void)info;
	return err_set(e, -ENOTSUP,
		       "this build has no software CPU engine: use --engine "
		       "kvm on a host with a usable /dev/kvm");
}

static int soft_vm_create(struct hv_vm **out, const struct hv_config *c,
			  struct err *e)
{
	struct hv_info info;

	(void)out;
	(void)c;
	return soft_probe(&info, e);
}

static int soft_supported_cpuid(struct hv_x86_cpuid *leaves, unsigned max)
{
	(void)leaves;
	(void)max;
	return -ENOTSUP;
}

/* Without a VM nothing else can be called. */
const struct hv_ops hv_soft_ops = {
	.name = "soft",
	.probe = soft_probe,
	.vm_create = soft_vm_create,
	.supported_cpuid = soft_supported_cpuid,
};
