/* The parameters of a training run, in flat arrays, and views of them. */
#include "train/trainer_private.h"

#include <stdlib.h>
#include <string.h>

int sac_trainer_take_arrays(struct sac_trainer *t, struct sac_error *err)
{
    size_t count = (size_t)sac_net_param_count(t->train.net), most = 0;

    for (size_t i = 0; i < count; i++) {
        struct sac_net_param param;
        sac_net_param(t->train.net, (int)i, &param);
        /* Each on a line of its own. */
        most += ((size_t)param.count + 15) & ~(size_t)15;
    }
    t->total = most;
    t->params = aligned_alloc(64, (most + 16) * sizeof *t->params);
    t->grads_memory = aligned_alloc(64, (SAC_HEAD + most + 16) * sizeof *t->grads);
    t->weight_at = calloc(count + 1, sizeof *t->weight_at);
    t->grad_at = calloc(count + 1, sizeof *t->grad_at);
    if (!t->params || !t->grads_memory || !t->weight_at || !t->grad_at)
        return sac_fail(err, SAC_ENOMEM, "out of memory for %zu parameters", most);
    memset(t->params, 0, (most + 16) * sizeof *t->params);
    memset(t->grads_memory, 0, (SAC_HEAD + most + 16) * sizeof *t->grads);
    t->grads = t->grads_memory + SAC_HEAD;
    return 0;
}

int sac_trainer_make_solver(struct sac_trainer *t, struct sac_error *err)
{
    int count = sac_net_param_count(t->train.net), rc;
    struct sac_solver_segment *segments = calloc((size_t)count + 1, sizeof *segments);
    size_t at = 0;

    if (!segments)
        return sac_trainer_no_memory(err);
    for (int i = 0; i < count; i++) {
        struct sac_net_param param;
        sac_net_param(t->train.net, i, &param);
        segments[i] = (struct sac_solver_segment){.name = param.name,
                                                  .shape = param.shape,
                                                  .offset = at,
                                                  .lr_mult = param.lr_mult,
                                                  .decay_mult = param.decay_mult};
        memcpy(t->params + at, param.data, (size_t)param.count * sizeof *param.data);
        t->weight_at[i] = t->params + at;
        t->grad_at[i] = param.lr_mult != 0 ? t->grads + at : NULL;
        at += ((size_t)param.count + 15) & ~(size_t)15;
    }
    rc = sac_solver_new(&t->solver, t->message, segments, count, t->total, err);
    if (rc == 0)
        sac_solver_set_threads(t->solver, t->threads);
    if (rc == 0)
        sac_solver_set_ranks(t->solver, t->world);
    free(segments);
    return rc;
}

/* Where the solver keeps what the net holds at `data`. */
static float *master_of(const struct sac_trainer *t, const float *data)
{
    for (int i = 0; i < sac_net_param_count(t->train.net); i++) {
        struct sac_net_param param;
        sac_net_param(t->train.net, i, &param);
        if (param.data == data)
            return t->weight_at[i];
    }
    return NULL;
}

/* What a snapshot holds: every layer, with its message and its blobs. */
int sac_trainer_make_view(struct sac_trainer *t, struct sac_error *err)
{
    int layers = sac_net_layer_count(t->train.net), blobs = 0;

    for (int i = 0; i < layers; i++)
        blobs += sac_layer_weight_count(sac_net_layer(t->train.net, i));
    t->weights.layers = calloc((size_t)layers + 1, sizeof *t->weights.layers);
    t->blobs = calloc((size_t)blobs + 1, sizeof *t->blobs);
    if (!t->weights.layers || !t->blobs)
        return sac_trainer_no_memory(err);
    t->weights.name = sac_net_name(t->train.net);
    t->weights.layer_count = layers;
    blobs = 0;
    for (int i = 0; i < layers; i++) {
        const struct sac_layer *layer = sac_net_layer(t->train.net, i);
        t->weights.layers[i] = (struct sac_weights_layer){
            .name = sac_layer_name(layer),
            .type = sac_layer_type_name(layer),
            .message = layers == t->train.layer_count ? t->train.layers[i] : NULL,
            .blob_count = sac_layer_weight_count(layer),
            .blobs = t->blobs + blobs,
        };
        for (int k = 0; k < sac_layer_weight_count(layer); k++) {
            struct sac_blob_view *blob = &t->blobs[blobs++];
            const float *data = sac_layer_weight(layer, k, &blob->shape);
            blob->data = master_of(t, data);
        }
    }
    return 0;
}
