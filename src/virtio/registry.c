/* The device types, from the file names in src/virtio/dev. */
#include <stddef.h>
#include <string.h>

#include "virtio/virtio.h"

#define VIRTIO_DEV(name) extern const struct virtio_dev_type virtio_dev_##name;
#include "virtio_devices.h"
#undef VIRTIO_DEV

const struct virtio_dev_type *const virtio_dev_types[] = {
#define VIRTIO_DEV(name) &virtio_dev_##name,
#include "virtio_devices.h"
#undef VIRTIO_DEV
	NULL,
};

const struct virtio_dev_type *virtio_dev_type_by_name(const char *name)
{
	for (unsigned i = 0; virtio_dev_types[i]; i++)
		if (!strcmp(virtio_dev_types[i]->name, name))
			return virtio_dev_types[i];
	return NULL;
}

const struct virtio_dev_type *virtio_dev_type_by_flag(const char *flag)
{
	for (unsigned i = 0; virtio_dev_types[i]; i++) {
		const char *f = virtio_dev_types[i]->flag;

		if (f && !strcmp(f, flag))
			return virtio_dev_types[i];
	}
	return NULL;
}
