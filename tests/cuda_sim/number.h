/* Numbers as they are stored, and as tensor cores round them. */
#ifndef SIM_NUMBER_H
#define SIM_NUMBER_H

#include <stdint.h>
#include <string.h>

static inline uint32_t sim_bits(float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float sim_float(uint32_t bits)
{
    float value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline float sim_from_bf16(uint16_t bits)
{
    return sim_float((uint32_t)bits << 16);
}

/* To nearest, ties to even. */
static inline uint16_t sim_to_bf16(float value)
{
    uint32_t bits = sim_bits(value);

    if (value != value)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static inline float sim_from_f16(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = half >> 10 & 31;
    uint32_t fraction = half & 0x3ff;

    if (exponent == 31)
        return sim_float(sign | 0x7f800000 | fraction << 13);
    if (exponent == 0) {
        float value = (float)fraction * 0x1p-24f;

        return sign ? -value : value;
    }
    return sim_float(sign | (exponent + 112) << 23 | fraction << 13);
}

static inline uint16_t sim_to_f16(float value)
{
    uint32_t bits = sim_bits(value), magnitude = bits & 0x7fffffff;
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);

    if (magnitude > 0x7f800000)
        return sign | 0x7fff;
    if (magnitude >= 0x477ff000) /* 65520 and more */
        return sign | 0x7c00;
    if (magnitude < 0x38800000) /* below 2⁻¹⁴: multiples of 2⁻²⁴, rounded by the addition */
        return sign | (uint16_t)(sim_bits(sim_float(magnitude) + 0.5f) - 0x3f000000);
    return sign | (uint16_t)((magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13);
}

/* TF32 keeps ten bits of the fraction; ties away from zero, as cvt.rna does. */
static inline float sim_round_tf32(float value)
{
    uint32_t bits = sim_bits(value);

    if ((bits & 0x7f800000) == 0x7f800000)
        return value;
    return sim_float((bits + 0x1000) & 0xffffe000);
}

#endif
