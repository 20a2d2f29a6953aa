/* IEEE half precision. Rounded to nearest even; NaN stays NaN. Any thread. */
#ifndef SAC_BASE_F16_H
#define SAC_BASE_F16_H

#include <stdint.h>
#include <string.h>

static inline float sac_f16_to_float(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16, exponent = half >> 10 & 31u;
    uint32_t bits = sign | (exponent + 112u) << 23 | (uint32_t)(half & 0x3ffu) << 13;
    float out;

    if (exponent == 31)
        bits |= 0x7f800000u;
    memcpy(&out, &bits, sizeof out);
    if (exponent == 0) /* subnormal: m · 2⁻²⁴ */
        out = (float)(half & 0x3ffu) * (sign ? -0x1p-24f : 0x1p-24f);
    return out;
}

static inline uint16_t sac_f16_from_float(float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof bits);
    uint32_t sign = bits >> 16 & 0x8000u, most = bits & 0x7fffffffu;
    if (most > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u);
    if (most >= 0x477ff000u) /* 65520 and above round to infinity */
        return (uint16_t)(sign | 0x7c00u);
    if (most < 0x38800000u) { /* below 2⁻¹⁴: adding 0.5 leaves m · 2⁻²⁴, rounded */
        float wide;
        memcpy(&wide, &most, sizeof wide);
        wide += 0.5f;
        memcpy(&most, &wide, sizeof most);
        return (uint16_t)(sign | (most - 0x3f000000u));
    }
    most += 0xfffu + (most >> 13 & 1u);
    return (uint16_t)(sign | ((most - 0x38000000u) >> 13));
}

#endif
