/*
 * Random numbers that are a function of where they are used: Philox-4x32-10
 * (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3",
 * SC 2011). There is no state to save: a stream is named by (seed, use, epoch,
 * index), so that what an item gets does not depend on threads or on what came
 * before. Any thread, a stream on one at a time.
 */
#ifndef SAC_DATA_RANDOM_H
#define SAC_DATA_RANDOM_H

#include <stdint.h>

/* What a stream is for: streams of two uses never meet. */
enum sac_random_use { SAC_RANDOM_ITEM = 1, SAC_RANDOM_ORDER, SAC_RANDOM_SKIP };

struct sac_random {
    uint32_t key[2], counter[4];
    uint32_t block[4];
    int left; /* of the block */
};

/* index: up to 2^56. 2^34 numbers before it repeats. */
struct sac_random sac_random_stream(uint64_t seed, enum sac_random_use use, uint32_t epoch,
                                    uint64_t index);

uint32_t sac_random_u32(struct sac_random *random);
/* [0, 1): a multiple of 2^-24, exact in float. */
float sac_random_uniform(struct sac_random *random);
/* [low, high) but for rounding. */
float sac_random_between(struct sac_random *random, float low, float high);
/* 0 … bound − 1, all equally likely (Lemire, "Fast random integer generation in
 * an interval", 2019); bound ≥ 1. */
uint32_t sac_random_below(struct sac_random *random, uint32_t bound);
/* Mean 0, deviation 1 (Box and Muller), of the next two numbers. */
float sac_random_normal(struct sac_random *random);
/* As if so many numbers had been taken. */
void sac_random_skip(struct sac_random *random, uint64_t count);

/*
 * An epoch's order: a bijection of 0 … count − 1, a Feistel network of eight
 * rounds over the next power of four that is walked until it falls inside. No
 * table: any position is answered alone.
 */
struct sac_order {
    uint64_t count;
    int half_bits;
    uint32_t keys[8];
};
/* count: 1 to 2^48. */
struct sac_order sac_order_of(uint64_t seed, uint32_t epoch, uint64_t count);
uint64_t sac_order_at(const struct sac_order *order, uint64_t position);

#endif
