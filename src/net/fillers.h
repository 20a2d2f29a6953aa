/*
 * What weights are before training: Caffe's fillers, with n the fan-in (numbers / dim 0)
 * unless variance_norm asks for the fan-out (numbers / dim 1) or the mean of both:
 *     constant, uniform [min, max), gaussian N(mean, std), of which `sparse` > 0 keeps
 *     that many an output on average; xavier U(±√(3/n)); msra N(0, √(2/n));
 *     positive_unitball: each output's weights are positive and add up to 1;
 *     bilinear: upsampling by interpolation.
 * A number depends on the seed, the parameter's name and its place: not on threads,
 * nor on what else there is. Any thread.
 */
#ifndef SAC_NET_FILLERS_H
#define SAC_NET_FILLERS_H

#include "base/error.h"
#include "device/tensor.h"
#include "formats/caffe.h"

struct sac_filler {
    const char *type;
    float value, min, max, mean, std;
    int sparse;
    Caffe__FillerParameter__VarianceNorm norm;
};

/* `type` is borrowed; NULL: zeros. */
struct sac_filler sac_filler_of(const Caffe__FillerParameter *message);
struct sac_filler sac_filler_constant(float value);
bool sac_filler_is_constant(struct sac_filler filler);

int sac_filler_fill(const struct sac_filler *filler, const char *name,
                    const struct sac_shape *shape, uint64_t seed, float *to, struct sac_error *err);

#endif
