/* bfloat16: the upper half of a float. Rounded to nearest even; NaN stays NaN. */
#ifndef SAC_BASE_BF16_H
#define SAC_BASE_BF16_H

#include <stdint.h>
#include <string.h>

static inline float sac_bf16_to_float(uint16_t half)
{
    uint32_t bits = (uint32_t)half << 16;
    float out;

    memcpy(&out, &bits, sizeof out);
    return out;
}

static inline uint16_t sac_bf16_from_float(float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)((bits >> 16) | 0x40u);
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

#endif
