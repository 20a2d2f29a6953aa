/*
 * What training changes in pictures, number by number: for the host and for kernels
 * alike, so that a device finishes a crop as the host would have.
 */
#ifndef SAC_DEVICE_CHANGES_H
#define SAC_DEVICE_CHANGES_H

#include <math.h>
#include <stdint.h>

#ifdef __CUDACC__
#define SAC_BOTH static __host__ __device__ __forceinline__
#else
#define SAC_BOTH static inline
#endif

/* Ten rounds of Philox-4x32 over the counter (data/random.h); ret may be the counter. */
SAC_BOTH void sac_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t ret[4])
{
    uint32_t c[4] = {counter[0], counter[1], counter[2], counter[3]};
    uint32_t k[2] = {key[0], key[1]};

    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53u * c[0];
        uint64_t b = (uint64_t)0xCD9E8D57u * c[2];
        uint32_t next0 = (uint32_t)(b >> 32) ^ c[1] ^ k[0];
        uint32_t next2 = (uint32_t)(a >> 32) ^ c[3] ^ k[1];
        c[1] = (uint32_t)b;
        c[3] = (uint32_t)a;
        c[0] = next0;
        c[2] = next2;
        k[0] += 0x9E3779B9u;
        k[1] += 0xBB67AE85u;
    }
    for (int i = 0; i < 4; i++)
        ret[i] = c[i];
}

/* Mean 0, deviation 1, of two random numbers (Box and Muller). */
SAC_BOTH float sac_normal_of(uint32_t first, uint32_t second)
{
    double radius = ((double)first + 1.0) * 0x1p-32; /* (0, 1] */
    double angle = (double)second * 0x1p-32;

    return (float)(sqrt(-2.0 * log(radius)) * cos(2.0 * 3.14159265358979323846 * angle));
}

SAC_BOTH float sac_clip_255(float x)
{
    return x < 0 ? 0 : x > 255 ? 255 : x;
}

/* ITU-R BT.601 */
SAC_BOTH float sac_luma(float r, float g, float b)
{
    return .299f * r + .587f * g + .114f * b;
}

/* 1 leaves x, 0 makes it grey. */
SAC_BOTH float sac_from_grey(float grey, float x, float factor)
{
    return sac_clip_255(grey + (x - grey) * factor);
}

/* Hue in sixths of the circle, from red over green to blue. */
SAC_BOTH float sac_hue_of(float r, float g, float b, float most, float chroma)
{
    if (chroma <= 0)
        return 0;
    if (most == r)
        return (g - b) / chroma + (g < b ? 6.f : 0.f);
    return most == g ? (b - r) / chroma + 2.f : (r - g) / chroma + 4.f;
}

/* HSV's inverse for one channel: n is 5 for red, 3 for green, 1 for blue. */
SAC_BOTH float sac_hue_channel(float hue, float most, float chroma, float n)
{
    float k = fmodf(n + hue, 6.f);
    float ramp = k < 4.f - k ? k : 4.f - k;

    ramp = ramp < 1.f ? ramp : 1.f;
    return most - chroma * (ramp > 0.f ? ramp : 0.f);
}

/* By this part of the circle. */
SAC_BOTH void sac_turn_hue(float *red, float *green, float *blue, float turn)
{
    float r = *red, g = *green, b = *blue;
    float most = g > b ? g : b, least = g < b ? g : b;

    most = r > most ? r : most;
    least = r < least ? r : least;
    float chroma = most - least;
    float hue = sac_hue_of(r, g, b, most, chroma) + 6.f * turn + 6.f;
    *red = sac_hue_channel(hue, most, chroma, 5.f);
    *green = sac_hue_channel(hue, most, chroma, 3.f);
    *blue = sac_hue_channel(hue, most, chroma, 1.f);
}

#endif
