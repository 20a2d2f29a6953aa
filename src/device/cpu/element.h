/* One element of a tensor of any type, as a float. Any thread. */
#ifndef SAC_DEVICE_CPU_ELEMENT_H
#define SAC_DEVICE_CPU_ELEMENT_H

#include "base/bf16.h"
#include "device/tensor.h"

static inline float sac_element_load(const struct sac_tensor *t, int64_t at)
{
    switch (t->form.type) {
    case SAC_F32:
        return ((const float *)t->data)[at];
    case SAC_BF16:
        return sac_bf16_to_float(((const uint16_t *)t->data)[at]);
    case SAC_U8:
        return ((const uint8_t *)t->data)[at];
    case SAC_I32:
        return (float)((const int32_t *)t->data)[at];
    default:
        return 0;
    }
}

static inline void sac_element_store(const struct sac_tensor *t, int64_t at, float value)
{
    if (t->form.type == SAC_F32)
        ((float *)t->data)[at] = value;
    else if (t->form.type == SAC_BF16)
        ((uint16_t *)t->data)[at] = sac_bf16_from_float(value);
}

#endif
