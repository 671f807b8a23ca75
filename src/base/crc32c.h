/* CRC-32C (Castagnoli, reflected 0x82f63b78), as iSCSI and ext4 use it. */
#ifndef ARC_BASE_CRC32C_H
#define ARC_BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* @crc is 0 to start, or the result so far. */
uint32_t crc32c(uint32_t crc, const void *p, size_t len);

#endif
