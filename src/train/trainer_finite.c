/* Where a number that is not finite came from. */
#include "train/trainer_private.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/layer.h"
#include "train/transfer.h"

/* The first that is not finite; -1: all are. */
static int64_t find_wild(const float *values, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        if (!isfinite(values[i]))
            return i;
    return -1;
}

static const char *word(float value)
{
    return isnan(value) ? "NaN" : "infinite";
}

static int check_batch(const struct sac_trainer *t, struct sac_error *err)
{
    const struct sac_phase_net *net = &t->train;
    if (!net->feed || !net->batch.data) /* fillers make no such numbers, nor do bytes */
        return 0;
    const int *shape = sac_feed_shape(net->feed);
    int64_t item = (int64_t)shape[0] * shape[1] * shape[2];
    int64_t at = find_wild(net->batch.data, item * net->batch.count);
    char name[SAC_ERROR_TEXT / 2];

    if (at < 0)
        return 0;
    sac_source_item_name(sac_feed_source(net->feed), net->batch.index[at / item], name,
                         sizeof name);
    return sac_fail(err, SAC_EINVAL, "the data is %s in %s", word(net->batch.data[at]), name);
}

/* ---- Activations ----------------------------------------------------------- */

struct trace {
    const char **blobs, **layers;
    int count;
};

static void trace_add(struct trace *trace, const char *blob, const char *layer)
{
    for (int i = 0; i < trace->count; i++) {
        if (strcmp(trace->blobs[i], blob) != 0)
            continue;
        trace->layers[i] = layer; /* in place: what is seen is the last layer's */
        return;
    }
    trace->blobs[trace->count] = blob;
    trace->layers[trace->count++] = layer;
}

static bool trace_init(struct trace *trace, const struct sac_net *net)
{
    int layers = sac_net_layer_count(net);
    size_t most = 1;

    for (int i = 0; i < layers; i++)
        most += (size_t)sac_net_layer(net, i)->top_count;
    trace->blobs = calloc(most, sizeof *trace->blobs);
    trace->layers = calloc(most, sizeof *trace->layers);
    if (!trace->blobs || !trace->layers)
        return false;
    for (int i = 0; i < layers; i++) {
        const struct sac_layer *layer = sac_net_layer(net, i);
        for (int k = 0; k < layer->top_count && !layer->type->judges && !layer->type->feeds; k++)
            trace_add(trace, layer->top_names[k], sac_layer_name(layer));
    }
    return trace->count > 0;
}

/* The batch once more, through a plan that keeps every blob. */
static int run_again(struct sac_trainer *t, struct sac_plan *plan, struct sac_error *err)
{
    int rc = sac_phase_net_give(&t->train, plan, err);

    if (rc == 0)
        rc = sac_plan_forward(plan, err);
    return rc == 0 ? t->options.device->table->stream_sync(t->stream, err) : rc;
}

/* A tensor's first number that is not finite, and that number; −1: none, or it cannot be
 * read. */
static int64_t find_in_tensor(const struct sac_trainer *t, const struct sac_tensor *tensor,
                              float *ret_value)
{
    int64_t count = sac_shape_count(&tensor->shape), at = -1;
    float *values = calloc((size_t)count + 1, sizeof *values);

    if (values && sac_transfer_out(&t->transfer, values, tensor->data,
                                   (size_t)count * sizeof *values, NULL) == 0)
        at = find_wild(values, count);
    if (at >= 0)
        *ret_value = values[at];
    free(values);
    return at;
}

static int judge_trace(const struct sac_trainer *t, const struct trace *trace,
                       const struct sac_plan *plan, struct sac_error *err)
{
    for (int i = 0; i < trace->count; i++) {
        const struct sac_tensor *out = sac_plan_output(plan, i);
        int64_t count = sac_shape_count(&out->shape);
        float value = 0;
        int64_t at = find_in_tensor(t, out, &value);
        if (at >= 0)
            return sac_fail(err, SAC_EINVAL,
                            "blob \"%.64s\" of layer \"%.64s\" is the first that is %s, at index "
                            "%lld of %lld, though all parameters are finite",
                            trace->blobs[i], trace->layers[i], word(value), (long long)at,
                            (long long)count);
    }
    return 0;
}

/* Best effort: what cannot be run again, for lack of memory say, is not blamed. Nor among
 * ranks on GPUs: memory is not to be had while others wait there for this one. */
static int check_blobs(struct sac_trainer *t, struct sac_error *err)
{
    struct sac_error why = {0};
    struct sac_plan *plan = NULL;
    struct trace trace = {0};

    if (t->remote && t->reducer)
        return 0;
    int rc = trace_init(&trace, t->train.net) ? 0 : SAC_ENOMEM;
    struct sac_plan_options how = {
        .weights = sac_trainer_plan_weights(t), .wanted = trace.blobs, .wanted_count = trace.count};

    if (rc == 0)
        rc = sac_plan_new(&plan, t->train.net, t->options.device, t->store, t->stream, &how, &why);
    if (rc == 0)
        rc = run_again(t, plan, &why);
    rc = rc == 0 ? judge_trace(t, &trace, plan, err) : 0;
    sac_plan_free(plan);
    free(trace.blobs);
    free(trace.layers);
    return rc;
}

static int blame_loss(const struct sac_trainer *t, double loss, struct sac_error *err)
{
    for (int i = 0; i < sac_plan_loss_count(t->train.plan); i++) {
        struct sac_plan_loss part;
        sac_plan_loss(t->train.plan, i, &part);
        float value = 0;
        if (find_in_tensor(t, &part.value, &value) >= 0)
            return sac_fail(err, SAC_EINVAL, "loss \"%.64s\" is %g; all parameters are finite",
                            part.name, (double)value);
    }
    return sac_fail(err, SAC_EINVAL, "the sum of losses is %g", loss);
}

/* ---- What the loop asks ---------------------------------------------------- */

static int with_snapshot(const struct sac_trainer *t, int rc, struct sac_error *err)
{
    size_t used = strlen(err->text);

    if (rc != SAC_EINVAL || t->rank > 0)
        return rc;
    if (t->saved_at >= 0)
        snprintf(err->text + used, sizeof err->text - used,
                 "; the last snapshot is %s_iter_%lld, from which a lower base_lr may go on",
                 t->prefix, (long long)t->saved_at);
    else
        snprintf(err->text + used, sizeof err->text - used,
                 "; no snapshot was saved before; a lower base_lr may help");
    return rc;
}

/* What comes before losses and gradients, in its order. */
static int check_causes(struct sac_trainer *t, struct sac_error *err)
{
    int rc = check_batch(t, err);

    if (rc == 0)
        rc = sac_solver_check_finite(t->solver, t->params, "parameter", err);
    return rc == 0 ? check_blobs(t, err) : rc;
}

int sac_trainer_check_loss(struct sac_trainer *t, double loss, struct sac_error *err)
{
    if (isfinite(loss))
        return 0;
    int rc = sac_trainer_remote_fetch(t, err);
    if (rc == 0)
        rc = check_causes(t, err);
    return with_snapshot(t, rc ? rc : blame_loss(t, loss, err), err);
}

int sac_trainer_check_gradients(struct sac_trainer *t, struct sac_error *err)
{
    struct sac_error own = {0};
    int rc = sac_solver_check_finite(t->solver, t->grads, "gradient", &own);
    int blamed = rc != 0 && t->reducer ? sac_trainer_leave_blame(t, err) : 0;

    if (rc == 0 || blamed != 0)
        return blamed;
    if (check_causes(t, err) == 0)
        sac_fail(err, rc, "%s, though what went forward is finite", own.text);
    return with_snapshot(t, rc, err);
}

int sac_trainer_check_params(struct sac_trainer *t, struct sac_error *err)
{
    int rc = sac_solver_check_finite(t->solver, t->params, "parameter", err);

    return rc == 0 ? 0 : with_snapshot(t, rc, err);
}
