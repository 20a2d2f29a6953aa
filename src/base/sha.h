/*
 * SHA-1 and SHA-256 (FIPS 180-4), to compare a file with its published sum. SHA-1
 * proves that nothing broke on the way, not that nobody meddled. Any thread.
 */
#ifndef SAC_BASE_SHA_H
#define SAC_BASE_SHA_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum sac_sha_kind { SAC_SHA1, SAC_SHA256 };

#define SAC_SHA_HEX 65 /* room for either sum in small hexadecimal, and a NUL */

struct sac_sha {
    enum sac_sha_kind kind;
    uint32_t state[8];
    uint64_t size; /* bytes so far */
    uint8_t block[64];
};

void sac_sha_init(struct sac_sha *sha, enum sac_sha_kind kind);
void sac_sha_put(struct sac_sha *sha, const void *bytes, size_t size);
/* Ends it. */
void sac_sha_hex(struct sac_sha *sha, char ret[SAC_SHA_HEX]);

/* Of a file from where `fd` stands to its end. */
int sac_sha_of_fd(int fd, enum sac_sha_kind kind, char ret[SAC_SHA_HEX], struct sac_error *err);

#endif
