#include "device/device.h"

const char *sac_precision_name(enum sac_precision precision)
{
    static const char *const names[] = {
        [SAC_PRECISION_F32] = "f32",   [SAC_PRECISION_BF16] = "bf16", [SAC_PRECISION_F16] = "f16",
        [SAC_PRECISION_TF32] = "tf32", [SAC_PRECISION_INT8] = "int8",
    };

    return (size_t)precision < sizeof names / sizeof *names ? names[precision] : "unknown";
}
