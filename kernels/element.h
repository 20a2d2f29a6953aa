/* Numbers of any type in device memory, as floats: one, or eight that stand side
 * by side on a 16-byte boundary. For kernels' own sources only. */
#ifndef SAC_KERNELS_ELEMENT_H
#define SAC_KERNELS_ELEMENT_H

#include "kernels/launch.h"

#include "device/tensor.h"

SAC_DEVICE float sac_half_value(unsigned short bits)
{
    __half_raw raw;

    raw.x = bits;
    return __half2float(__half(raw));
}

SAC_DEVICE unsigned short sac_half_bits(float value)
{
    return static_cast<__half_raw>(__float2half_rn(value)).x;
}

SAC_DEVICE float sac_bf16_value(unsigned short bits)
{
    __nv_bfloat16_raw raw;

    raw.x = bits;
    return __bfloat162float(__nv_bfloat16(raw));
}

SAC_DEVICE unsigned short sac_bf16_bits(float value)
{
    return static_cast<__nv_bfloat16_raw>(__float2bfloat16_rn(value)).x;
}

SAC_DEVICE float sac_16_value(int type, unsigned short bits)
{
    return type == SAC_F16 ? sac_half_value(bits) : sac_bf16_value(bits);
}

SAC_DEVICE unsigned short sac_16_bits(int type, float value)
{
    return type == SAC_F16 ? sac_half_bits(value) : sac_bf16_bits(value);
}

SAC_DEVICE float sac_load(const void *data, int type, int64_t at)
{
    if (type == SAC_F32)
        return static_cast<const float *>(data)[at];
    if (type == SAC_U8)
        return static_cast<const uint8_t *>(data)[at];
    return sac_16_value(type, static_cast<const unsigned short *>(data)[at]);
}

SAC_DEVICE void sac_store(void *data, int type, int64_t at, float value)
{
    if (type == SAC_F32)
        static_cast<float *>(data)[at] = value;
    else
        static_cast<unsigned short *>(data)[at] = sac_16_bits(type, value);
}

template <int V> struct sac_vector {
    float v[V];
};

/* Eight 16-bit numbers, moved at once. */
struct alignas(16) sac_eight {
    unsigned short bits[8];
};

struct alignas(16) sac_four {
    float v[4];
};

/* V = 1 or 8; `at` is a multiple of V. No u8. */
template <int V> SAC_DEVICE sac_vector<V> sac_load_vector(const void *data, int type, int64_t at)
{
    sac_vector<V> out;

    if (V == 1) {
        out.v[0] = sac_load(data, type, at);
    } else if (type == SAC_F32) {
        for (int k = 0; k < V; k += 4) {
            sac_four four =
                *reinterpret_cast<const sac_four *>(static_cast<const float *>(data) + at + k);
            for (int i = 0; i < 4 && i < V; i++)
                out.v[k + i] = four.v[i];
        }
    } else {
        sac_eight eight =
            *reinterpret_cast<const sac_eight *>(static_cast<const unsigned short *>(data) + at);
        for (int i = 0; i < V; i++)
            out.v[i] = sac_16_value(type, eight.bits[i]);
    }
    return out;
}

template <int V>
SAC_DEVICE void sac_store_vector(void *data, int type, int64_t at, const sac_vector<V> &value)
{
    if (V == 1) {
        sac_store(data, type, at, value.v[0]);
    } else if (type == SAC_F32) {
        for (int k = 0; k < V; k += 4) {
            sac_four four;
            for (int i = 0; i < 4 && i < V; i++)
                four.v[i] = value.v[k + i];
            *reinterpret_cast<sac_four *>(static_cast<float *>(data) + at + k) = four;
        }
    } else {
        sac_eight eight;
        for (int i = 0; i < V; i++)
            eight.bits[i] = sac_16_bits(type, value.v[i]);
        *reinterpret_cast<sac_eight *>(static_cast<unsigned short *>(data) + at) = eight;
    }
}

/* Whether eights can be moved from there: aligned, a type that has them. */
static inline bool sac_takes_eights(const void *data, int type)
{
    return reinterpret_cast<uintptr_t>(data) % 16 == 0 &&
           (type == SAC_F32 || type == SAC_F16 || type == SAC_BF16);
}

#endif
