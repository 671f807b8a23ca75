/* SHA-256 (FIPS 180-4): names for contents, not a secret in sight. */
#ifndef ARC_BASE_SHA256_H
#define ARC_BASE_SHA256_H

#include <stddef.h>
#include <stdint.h>

#define SHA256_SIZE 32

struct sha256 {
	uint32_t h[8];
	uint64_t len; /* bytes so far */
	uint8_t block[64];
};

void sha256_init(struct sha256 *s);
void sha256_add(struct sha256 *s, const void *data, size_t len);
void sha256_end(struct sha256 *s, uint8_t out[SHA256_SIZE]);

/* Lower-case hexadecimal with a final NUL. */
void sha256_hex(const uint8_t sum[SHA256_SIZE], char out[2 * SHA256_SIZE + 1]);

#endif
