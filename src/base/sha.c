#include "base/sha.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BLOCK = 64, READ_BYTES = 1 << 18 };

static uint32_t left(uint32_t x, int n)
{
    return x << n | x >> (32 - n);
}

static uint32_t right(uint32_t x, int n)
{
    return x >> n | x << (32 - n);
}

static uint32_t word_at(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

/* FIPS 180-4, section 6.1.2. */
static void sha1_block(uint32_t state[5], const uint8_t *block)
{
    static const uint32_t k[4] = {0x5a827999, 0x6ed9eba1, 0x8f1bbcdc, 0xca62c1d6};
    uint32_t w[80], a = state[0], b = state[1], c = state[2], d = state[3], e = state[4];

    for (int t = 0; t < 16; t++)
        w[t] = word_at(block + 4 * t);
    for (int t = 16; t < 80; t++)
        w[t] = left(w[t - 3] ^ w[t - 8] ^ w[t - 14] ^ w[t - 16], 1);
    for (int t = 0; t < 80; t++) {
        uint32_t f = t < 20   ? (b & c) | (~b & d)
                     : t < 40 ? b ^ c ^ d
                     : t < 60 ? (b & c) | (b & d) | (c & d)
                              : b ^ c ^ d;
        uint32_t next = left(a, 5) + f + e + k[t / 20] + w[t];
        e = d;
        d = c;
        c = left(b, 30);
        b = a;
        a = next;
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
    state[4] += e;
}

/* The first 32 bits of the fractions of the first 64 primes' cube roots. */
static const uint32_t k256[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

/* FIPS 180-4, section 6.2.2. */
static void sha256_block(uint32_t state[8], const uint8_t *block)
{
    uint32_t w[64], s[8];

    for (int t = 0; t < 16; t++)
        w[t] = word_at(block + 4 * t);
    for (int t = 16; t < 64; t++) {
        uint32_t x = w[t - 15], y = w[t - 2];
        w[t] = w[t - 16] + (right(x, 7) ^ right(x, 18) ^ x >> 3) + w[t - 7] +
               (right(y, 17) ^ right(y, 19) ^ y >> 10);
    }
    memcpy(s, state, sizeof s);
    for (int t = 0; t < 64; t++) {
        uint32_t a = s[0], e = s[4];
        uint32_t choice = (e & s[5]) ^ (~e & s[6]);
        uint32_t majority = (a & s[1]) ^ (a & s[2]) ^ (s[1] & s[2]);
        uint32_t first =
            s[7] + (right(e, 6) ^ right(e, 11) ^ right(e, 25)) + choice + k256[t] + w[t];
        uint32_t second = (right(a, 2) ^ right(a, 13) ^ right(a, 22)) + majority;
        memmove(s + 1, s, 7 * sizeof *s);
        s[4] += first;
        s[0] = first + second;
    }
    for (int i = 0; i < 8; i++)
        state[i] += s[i];
}

static void take_block(struct sac_sha *sha, const uint8_t *block)
{
    if (sha->kind == SAC_SHA1)
        sha1_block(sha->state, block);
    else
        sha256_block(sha->state, block);
}

void sac_sha_init(struct sac_sha *sha, enum sac_sha_kind kind)
{
    static const uint32_t start[2][8] = {
        {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0},
        {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab,
         0x5be0cd19},
    };

    *sha = (struct sac_sha){.kind = kind};
    memcpy(sha->state, start[kind], sizeof sha->state);
}

void sac_sha_put(struct sac_sha *sha, const void *bytes, size_t size)
{
    const uint8_t *at = bytes;
    size_t used = sha->size % BLOCK;

    sha->size += size;
    while (used + size >= BLOCK) {
        if (used == 0) {
            take_block(sha, at);
        } else {
            memcpy(sha->block + used, at, BLOCK - used);
            take_block(sha, sha->block);
        }
        at += BLOCK - used;
        size -= BLOCK - used;
        used = 0;
    }
    if (size > 0)
        memcpy(sha->block + used, at, size);
}

void sac_sha_hex(struct sac_sha *sha, char ret[SAC_SHA_HEX])
{
    static const uint8_t padding[BLOCK] = {0x80};
    size_t used = sha->size % BLOCK;
    uint64_t bits = sha->size * 8;
    uint8_t length[8];

    for (int i = 0; i < 8; i++)
        length[i] = (uint8_t)(bits >> (56 - 8 * i));
    sac_sha_put(sha, padding, used < 56 ? 56 - used : 120 - used);
    sac_sha_put(sha, length, sizeof length);
    for (int i = 0; i < (sha->kind == SAC_SHA1 ? 5 : 8); i++)
        snprintf(ret + (ptrdiff_t)i * 8, 9, "%08x", sha->state[i]);
}

int sac_sha_of_fd(int fd, enum sac_sha_kind kind, char ret[SAC_SHA_HEX], struct sac_error *err)
{
    uint8_t *buffer = malloc(READ_BYTES);
    struct sac_sha sha;
    ssize_t got;

    if (!buffer)
        return sac_fail(err, SAC_ENOMEM, "out of memory");
    sac_sha_init(&sha, kind);
    while ((got = read(fd, buffer, READ_BYTES)) != 0) {
        if (got < 0 && errno != EINTR)
            break;
        if (got > 0)
            sac_sha_put(&sha, buffer, (size_t)got);
    }
    int rc = got < 0 ? sac_fail_errno(err, errno, "cannot be read") : 0;
    if (rc == 0)
        sac_sha_hex(&sha, ret);
    free(buffer);
    return rc;
}
