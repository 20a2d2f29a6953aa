/* Silence takes blobs, so that they are no outputs, and does nothing with them. */
#include "net/layer.h"

static int emit(struct sac_emit *out, struct sac_error *err)
{
    (void)out;
    (void)err;
    return 0;
}

const struct sac_layer_type sac_layer_silence = {
    .name = "Silence",
    .bottom_min = 1,
    .bottom_max = SAC_ANY_COUNT,
    .emit = emit,
};
