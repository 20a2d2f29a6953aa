/* One element of a tensor of any type, as a float. Any thread. */
#ifndef SAC_DEVICE_CPU_ELEMENT_H
#define SAC_DEVICE_CPU_ELEMENT_H

#include <math.h>

#include "base/bf16.h"
#include "device/tensor.h"

/* To the nearest whole number, halves to even; not a number: the least. */
static inline int sac_element_round(float value, int least, int most)
{
    if (!(value > (float)least))
        return least;
    return value < (float)most ? (int)lrintf(value) : most;
}

static inline float sac_element_load(const struct sac_tensor *t, int64_t at)
{
    float scale = t->form.scale != 0 ? t->form.scale : 1;

    switch (t->form.type) {
    case SAC_F32:
        return ((const float *)t->data)[at];
    case SAC_BF16:
        return sac_bf16_to_float(((const uint16_t *)t->data)[at]);
    case SAC_U8:
        return scale * ((const uint8_t *)t->data)[at];
    case SAC_S8:
        return scale * ((const int8_t *)t->data)[at];
    case SAC_I32:
        return (float)((const int32_t *)t->data)[at];
    default:
        return 0;
    }
}

static inline void sac_element_store(const struct sac_tensor *t, int64_t at, float value)
{
    float scale = t->form.scale != 0 ? t->form.scale : 1;

    if (t->form.type == SAC_F32)
        ((float *)t->data)[at] = value;
    else if (t->form.type == SAC_BF16)
        ((uint16_t *)t->data)[at] = sac_bf16_from_float(value);
    else if (t->form.type == SAC_U8)
        ((uint8_t *)t->data)[at] = (uint8_t)sac_element_round(value / scale, 0, 255);
    else if (t->form.type == SAC_S8)
        ((int8_t *)t->data)[at] = (int8_t)sac_element_round(value / scale, -128, 127);
}

#endif
