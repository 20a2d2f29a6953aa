#include "data/random.h"

#include <assert.h>

#include "device/changes.h"

struct sac_random sac_random_stream(uint64_t seed, enum sac_random_use use, uint32_t epoch,
                                    uint64_t index)
{
    return (struct sac_random){
        .key = {(uint32_t)seed, (uint32_t)(seed >> 32)},
        .counter = {0, (uint32_t)index, epoch, (uint32_t)use << 24 | (uint32_t)(index >> 32)},
    };
}

uint32_t sac_random_u32(struct sac_random *random)
{
    if (random->left == 0) {
        sac_philox(random->counter, random->key, random->block);
        random->counter[0]++;
        random->left = 4;
    }
    return random->block[4 - random->left--];
}

float sac_random_uniform(struct sac_random *random)
{
    return (float)(sac_random_u32(random) >> 8) * 0x1p-24f;
}

float sac_random_between(struct sac_random *random, float low, float high)
{
    return low + (high - low) * sac_random_uniform(random);
}

uint32_t sac_random_below(struct sac_random *random, uint32_t bound)
{
    assert(bound > 0);
    uint64_t product = (uint64_t)sac_random_u32(random) * bound;
    uint32_t refused = -bound % bound; /* 2^32 mod bound values would be too many */

    while ((uint32_t)product < refused)
        product = (uint64_t)sac_random_u32(random) * bound;
    return (uint32_t)(product >> 32);
}

float sac_random_normal(struct sac_random *random)
{
    uint32_t first = sac_random_u32(random);

    return sac_normal_of(first, sac_random_u32(random));
}

void sac_random_skip(struct sac_random *random, uint64_t count)
{
    uint64_t left = (uint64_t)random->left;

    if (count > left) {
        count -= left;
        random->counter[0] += (uint32_t)(count / 4);
        random->left = 0;
        count %= 4;
    }
    for (; count > 0; count--)
        sac_random_u32(random);
}

struct sac_order sac_order_of(uint64_t seed, uint32_t epoch, uint64_t count)
{
    struct sac_random random = sac_random_stream(seed, SAC_RANDOM_ORDER, epoch, 0);
    struct sac_order order = {.count = count, .half_bits = 1};

    assert(count > 0 && count <= UINT64_C(1) << 48);
    while (UINT64_C(1) << (2 * order.half_bits) < count)
        order.half_bits++;
    for (int i = 0; i < 8; i++)
        order.keys[i] = sac_random_u32(&random);
    return order;
}

/* Any function does; this one spreads every input bit (a finaliser of 32 bits,
 * after Steele and Vigna). */
static uint32_t mix(uint32_t half, uint32_t key)
{
    uint32_t x = half * 0x9E3779B9u + key;

    x = (x ^ x >> 16) * 0x21F0AAADu;
    x = (x ^ x >> 15) * 0x735A2D97u;
    return x ^ x >> 15;
}

static uint64_t shuffle_once(const struct sac_order *order, uint64_t at)
{
    uint32_t mask = (uint32_t)((UINT64_C(1) << order->half_bits) - 1);
    uint32_t left = (uint32_t)(at >> order->half_bits), right = (uint32_t)at & mask;

    for (int i = 0; i < 8; i++) {
        uint32_t next = left ^ (mix(right, order->keys[i]) & mask);
        left = right;
        right = next;
    }
    return (uint64_t)left << order->half_bits | right;
}

uint64_t sac_order_at(const struct sac_order *order, uint64_t position)
{
    assert(position < order->count);
    do
        position = shuffle_once(order, position);
    while (position >= order->count); /* ends: the cycle comes back to its start */
    return position;
}
