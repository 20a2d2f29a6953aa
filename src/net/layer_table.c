/* Every layer type there is: a new one adds its file and two lines here. */
#include "net/layer.h"

#include <string.h>

extern const struct sac_layer_type sac_layer_accuracy;
extern const struct sac_layer_type sac_layer_batch_norm;
extern const struct sac_layer_type sac_layer_bias;
extern const struct sac_layer_type sac_layer_concat;
extern const struct sac_layer_type sac_layer_convolution;
extern const struct sac_layer_type sac_layer_data;
extern const struct sac_layer_type sac_layer_deconvolution;
extern const struct sac_layer_type sac_layer_dropout;
extern const struct sac_layer_type sac_layer_dummy_data;
extern const struct sac_layer_type sac_layer_eltwise;
extern const struct sac_layer_type sac_layer_elu;
extern const struct sac_layer_type sac_layer_euclidean_loss;
extern const struct sac_layer_type sac_layer_flatten;
extern const struct sac_layer_type sac_layer_hdf5_data;
extern const struct sac_layer_type sac_layer_image_data;
extern const struct sac_layer_type sac_layer_inner_product;
extern const struct sac_layer_type sac_layer_input;
extern const struct sac_layer_type sac_layer_lrn;
extern const struct sac_layer_type sac_layer_memory_data;
extern const struct sac_layer_type sac_layer_pooling;
extern const struct sac_layer_type sac_layer_power;
extern const struct sac_layer_type sac_layer_prelu;
extern const struct sac_layer_type sac_layer_relu;
extern const struct sac_layer_type sac_layer_reshape;
extern const struct sac_layer_type sac_layer_scale;
extern const struct sac_layer_type sac_layer_sigmoid;
extern const struct sac_layer_type sac_layer_sigmoid_cross_entropy_loss;
extern const struct sac_layer_type sac_layer_silence;
extern const struct sac_layer_type sac_layer_slice;
extern const struct sac_layer_type sac_layer_softmax;
extern const struct sac_layer_type sac_layer_softmax_with_loss;
extern const struct sac_layer_type sac_layer_split;
extern const struct sac_layer_type sac_layer_tanh;

static const struct sac_layer_type *const table[] = {
    &sac_layer_accuracy,
    &sac_layer_batch_norm,
    &sac_layer_bias,
    &sac_layer_concat,
    &sac_layer_convolution,
    &sac_layer_data,
    &sac_layer_deconvolution,
    &sac_layer_dropout,
    &sac_layer_dummy_data,
    &sac_layer_eltwise,
    &sac_layer_elu,
    &sac_layer_euclidean_loss,
    &sac_layer_flatten,
    &sac_layer_hdf5_data,
    &sac_layer_image_data,
    &sac_layer_inner_product,
    &sac_layer_input,
    &sac_layer_lrn,
    &sac_layer_memory_data,
    &sac_layer_pooling,
    &sac_layer_power,
    &sac_layer_prelu,
    &sac_layer_relu,
    &sac_layer_reshape,
    &sac_layer_scale,
    &sac_layer_sigmoid,
    &sac_layer_sigmoid_cross_entropy_loss,
    &sac_layer_silence,
    &sac_layer_slice,
    &sac_layer_softmax,
    &sac_layer_softmax_with_loss,
    &sac_layer_split,
    &sac_layer_tanh,
};

const struct sac_layer_type *sac_layer_type_find(const char *name)
{
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (strcmp(table[i]->name, name) == 0)
            return table[i];
    }
    return NULL;
}
