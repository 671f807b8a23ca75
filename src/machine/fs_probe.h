/*
 * Which filesystem the first bytes of a disk or partition hold, with its label
 * and UUID. Plain functions on a buffer: the host and the guest's init both
 * use them, so that both call a filesystem the same.
 */
#ifndef ARC_MACHINE_FS_PROBE_H
#define ARC_MACHINE_FS_PROBE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/bytes.h"

#define FS_PROBE_SIZE 69632 /* how much of the device to read */

struct fs_id {
	const char *type; /* as mount(2) wants it; also the module's name */
	char label[64]; /* "" when there is none */
	char uuid[37]; /* lower case, "" when there is none */
};

static inline void fs_probe_label(struct fs_id *id, const uint8_t *p,
				  size_t max)
{
	size_t n = 0;

	while (n < max && n < sizeof(id->label) - 1 && p[n])
		n++;
	memcpy(id->label, p, n);
	while (n && id->label[n - 1] == ' ') /* FAT and ISO pad with blanks */
		n--;
	id->label[n] = 0;
}

static inline void fs_probe_uuid(struct fs_id *id, const uint8_t *p)
{
	static const char hex[] = "0123456789abcdef";
	char *o = id->uuid;

	for (int i = 0; i < 16; i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*o++ = '-';
		*o++ = hex[p[i] >> 4];
		*o++ = hex[p[i] & 15];
	}
	*o = 0;
}

static inline void fs_probe_serial(struct fs_id *id, const uint8_t *p)
{
	static const char hex[] = "0123456789abcdef";
	char *o = id->uuid;

	for (int i = 3; i >= 0; i--) {
		*o++ = hex[p[i] >> 4];
		*o++ = hex[p[i] & 15];
		if (i == 2)
			*o++ = '-';
	}
	*o = 0;
}

/* False when it is none of those known, or @len is too short to tell. */
static inline bool fs_probe(const uint8_t *p, size_t len, struct fs_id *id)
{
	memset(id, 0, sizeof(*id));
	if (len >= 2048 && get_le16(p + 1024 + 56) == 0xef53) {
		/* The ext4 driver mounts ext2 and ext3 too. */
		id->type = "ext4";
		fs_probe_uuid(id, p + 1024 + 104);
		fs_probe_label(id, p + 1024 + 120, 16);
	} else if (len >= 512 && !memcmp(p, "XFSB", 4)) {
		id->type = "xfs";
		fs_probe_uuid(id, p + 32);
		fs_probe_label(id, p + 108, 12);
	} else if (len >= 512 && !memcmp(p, "hsqs", 4)) {
		id->type = "squashfs";
	} else if (len >= 2048 && get_le32(p + 1024) == 0xe0f5e1e2) {
		id->type = "erofs";
		fs_probe_uuid(id, p + 1024 + 48);
		fs_probe_label(id, p + 1024 + 64, 16);
	} else if (len >= 65536 + 4096 &&
		   !memcmp(p + 65536 + 64, "_BHRfS_M", 8)) {
		id->type = "btrfs";
		fs_probe_uuid(id, p + 65536 + 32);
		fs_probe_label(id, p + 65536 + 299, sizeof(id->label) - 1);
	} else if (len >= 2048 && get_le32(p + 1024) == 0xf2f52010) {
		id->type = "f2fs";
		fs_probe_uuid(id, p + 1024 + 108);
	} else if (len >= 512 && !memcmp(p + 82, "FAT32   ", 8)) {
		id->type = "vfat";
		fs_probe_serial(id, p + 67);
		fs_probe_label(id, p + 71, 11);
	} else if (len >= 512 && !memcmp(p + 54, "FAT1", 4)) {
		id->type = "vfat";
		fs_probe_serial(id, p + 39);
		fs_probe_label(id, p + 43, 11);
	} else if (len >= 32768 + 2048 && !memcmp(p + 32769, "CD001", 5)) {
		id->type = "iso9660";
		fs_probe_label(id, p + 32768 + 40, 32);
	}
	return id->type;
}

/* The name of the module that brings filesystem @type. */
static inline const char *fs_module(const char *type)
{
	return !strcmp(type, "iso9660") ? "isofs" : type;
}

#endif
