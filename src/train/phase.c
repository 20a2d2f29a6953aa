#include "train/phase.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/memory.h"
#include "base/random.h"
#include "formats/message.h"
#include "net/layer.h"
#include "train/split_loss.h"

/* The state of the solver and what the options add to it. */
static int net_options(struct sac_phase_net *p, const struct sac_phase_options *options,
                       struct sac_net_options *ret, struct sac_error *err)
{
    const Caffe__NetState *state = options->state;
    size_t own = state ? state->n_stage : 0, more = (size_t)options->stage_count;

    p->stages = calloc(own + more + 1, sizeof *p->stages);
    if (!p->stages)
        return sac_fail(err, SAC_ENOMEM, "out of memory");
    for (size_t i = 0; i < own + more; i++)
        p->stages[i] = i < own ? state->stage[i] : options->stages[i - own];
    *ret = (struct sac_net_options){
        .phase = options->phase,
        .level = options->level ? options->level
                 : state        ? state->level
                                : 0,
        .stages = p->stages,
        .stage_count = (int)(own + more),
    };
    return 0;
}

/* ---- The layers of the phase ----------------------------------------------- */

static int see_input(struct sac_phase_net *p, const Caffe__LayerParameter *layer,
                     struct sac_error *err)
{
    const struct sac_layer_type *type = layer->type ? sac_layer_type_find(layer->type) : NULL;

    if (!type || !type->feeds)
        return 0;
    if (p->feed_count == SAC_PHASE_FEEDS_MAX)
        return sac_fail(err, SAC_ELIMIT, "over %d layers feed the net", SAC_PHASE_FEEDS_MAX);
    if (layer->n_top < 1)
        return sac_fail(err, SAC_EINVAL, "layer \"%.64s\" has no tops", layer->name);
    p->feeds[p->feed_count++].layer = layer;
    return 0;
}

static int find_layers(struct sac_phase_net *p, const struct sac_net_options *options,
                       struct sac_error *err)
{
    int rc = 0;

    p->layers = calloc(p->message->n_layer + 1, sizeof *p->layers);
    if (!p->layers)
        return sac_fail(err, SAC_ENOMEM, "out of memory");
    for (size_t i = 0; rc == 0 && i < p->message->n_layer; i++) {
        const Caffe__LayerParameter *layer = p->message->layer[i];
        bool included = false;
        rc = sac_layer_included(layer, p->message->state, options, &included, err);
        if (rc != 0 || !included)
            continue;
        p->layers[p->layer_count++] = layer;
        rc = see_input(p, layer, err);
    }
    if (rc == 0 && p->feed_count == 0)
        rc = sac_fail(err, SAC_EINVAL, "no layer feeds the net in its %s phase",
                      options->phase == SAC_PHASE_TRAIN ? "TRAIN" : "TEST");
    return rc;
}

static int smooth_labels(Caffe__NetParameter *net, float smoothing, struct sac_arena *arena,
                         struct sac_error *err)
{
    for (size_t i = 0; smoothing > 0 && i < net->n_layer; i++) {
        Caffe__LayerParameter *layer = net->layer[i];
        if (!layer->type || strcmp(layer->type, "SoftmaxWithLoss") != 0)
            continue;
        if (!layer->loss_param)
            layer->loss_param = (void *)sac_message_new(arena, &caffe__loss_parameter__descriptor);
        if (!layer->loss_param)
            return sac_fail(err, SAC_ENOMEM, "out of memory");
        layer->loss_param->has_label_smoothing = 1;
        layer->loss_param->label_smoothing = smoothing;
    }
    return 0;
}

static int write_message(struct sac_buf *bytes, const Caffe__NetParameter *net, const char *path,
                         struct sac_error *err)
{
    sac_buf_clear(bytes);
    int rc = sac_caffe_net_write(bytes, net);
    return rc == 0 ? 0 : sac_fail(err, rc, "%s: out of memory", path);
}

/* A message inside the solver goes through the same reader as a file. `bytes` is what
 * the net is made from. */
static int read_message(struct sac_phase_net *p, const struct sac_phase_options *options,
                        struct sac_buf *bytes, struct sac_error *err)
{
    int rc;

    if (!options->message) {
        rc = sac_caffe_net_load(&p->file, options->path, err);
    } else {
        rc = write_message(bytes, options->message, options->path, err);
        if (rc == 0)
            rc = sac_caffe_net_parse(&p->file, options->path, bytes->data, bytes->len, err);
    }
    if (rc != 0)
        return rc;
    p->message = p->file.net;
    rc = sac_caffe_net_find_means(&p->file, options->path, err);
    if (rc == 0)
        rc = smooth_labels(p->file.net, options->smoothing, p->file.arena, err);
    return rc == 0 ? write_message(bytes, p->message, options->path, err) : rc;
}

/* Of the phase's layers, in the file's order. The bytes are written anew: the net is made
 * from them. */
static int split_losses(struct sac_phase_net *p, const struct sac_phase_options *options,
                        struct sac_buf *bytes, struct sac_error *err)
{
    const Caffe__NetParameter *file = p->file.net;
    int rc = 0, next = 0;

    if (options->world <= 1 || options->batch_rule != SAC_BATCH_SPLIT)
        return 0;
    for (size_t i = 0; rc == 0 && i < file->n_layer && next < p->layer_count; i++)
        if (file->layer[i] == p->layers[next] && ++next)
            rc = sac_split_loss(file->layer[i], options->world, p->file.arena, err);
    return rc == 0 ? write_message(bytes, p->message, options->path, err) : rc;
}

/* ---- The net --------------------------------------------------------------- */

enum { INPUTS_MAX = SAC_PHASE_FEEDS_MAX * SAC_SOURCE_SETS_MAX };

static int add_inputs(const struct sac_phase_feed *f, struct sac_net_input *inputs, int *count,
                      struct sac_error *err)
{
    int rc = 0;

    for (size_t i = 0; f->feed && i < f->layer->n_top; i++) {
        struct sac_feed_top top = {0};
        rc = sac_feed_top(f->feed, (int)i, &top, err);
        if (rc != 0) {
            sac_error_prefix(err, "layer \"%.64s\"", f->layer->name);
            return rc;
        }
        struct sac_net_input *input = &inputs[(*count)++];
        *input = (struct sac_net_input){f->layer->top[i], {.rank = top.rank}};
        memcpy(input->shape.dim, top.dim, sizeof top.dim);
    }
    return rc;
}

/* DummyData's shapes the net reads itself. */
static int load_net(struct sac_phase_net *p, const struct sac_phase_options *options,
                    const struct sac_net_options *state, const struct sac_buf *bytes,
                    struct sac_error *err)
{
    struct sac_net_options how = *state;
    struct sac_net_input *inputs = calloc(INPUTS_MAX, sizeof *inputs);
    int rc = inputs ? 0 : sac_fail(err, SAC_ENOMEM, "out of memory");

    how.inputs = inputs;
    for (int i = 0; rc == 0 && i < p->feed_count; i++)
        rc = add_inputs(&p->feeds[i], inputs, &how.input_count, err);
    if (rc == 0)
        rc = sac_net_parse(&p->net, options->path, bytes->data, bytes->len, &how, err);
    free(inputs);
    return rc;
}

/* Labels that a softmax loss takes as they come are classes of its scores. */
static void find_classes(const struct sac_phase_net *p, struct sac_phase_feed *f)
{
    for (int i = 0; i < p->layer_count && f->feed && f->layer->n_top > 1; i++) {
        const Caffe__LayerParameter *layer = p->layers[i];
        struct sac_shape shape;
        if (!layer->type || strcmp(layer->type, "SoftmaxWithLoss") != 0 || layer->n_bottom < 2 ||
            strcmp(layer->bottom[1], f->layer->top[1]) != 0 ||
            (layer->loss_param && layer->loss_param->has_ignore_label) ||
            !sac_net_blob_shape(p->net, layer->bottom[0], &shape))
            continue;
        int axis = layer->softmax_param ? layer->softmax_param->axis : 1;
        axis += axis < 0 ? shape.rank : 0;
        if (axis < 0 || axis >= shape.rank || shape.dim[axis] > 1 << 24)
            continue;
        int classes = (int)shape.dim[axis];
        f->classes = f->classes == 0 || classes < f->classes ? classes : f->classes;
    }
}

/* A batch that cannot be is for the feed to tell. */
static int share_batch(struct sac_phase_feed *f, const struct sac_phase_options *options,
                       struct sac_feed_options *how, struct sac_error *err)
{
    int batch = options->batch ? options->batch : sac_feed_layer_batch(f->layer), rc = 0;

    if (options->world > 1 && batch > 0) {
        how->shard = options->rank;
        how->shards = options->world;
        rc = sac_ranks_batch(batch, options->batch_rule, options->world, &how->batch, err);
        batch = how->batch;
    }
    f->items = batch > 0 ? batch : 1;
    return rc;
}

static bool is_dummy(const struct sac_phase_feed *f)
{
    return strcmp(f->layer->type, "DummyData") == 0;
}

/* Where a feed stands when the main one has given `position` items: after as many batches,
 * and parts of one where it was of another size once. */
static int follow(const struct sac_phase_feed *f, const struct sac_phase_feed *first,
                  int64_t position, int64_t *ret, struct sac_error *err)
{
    int64_t product = 0;

    if (f == first)
        *ret = position;
    else if (__builtin_mul_overflow(position, f->items, &product))
        return sac_fail(err, SAC_ELIMIT, "layer \"%.64s\": %lld items of \"%.64s\" are too many",
                        f->layer->name, (long long)position, first->layer->name);
    else if (product % first->items != 0)
        return sac_fail(err, SAC_EINVAL,
                        "layer \"%.64s\": %lld items of \"%.64s\" were used, beside which this "
                        "one cannot stand at a whole item: its batches are of %lld where those "
                        "are of %lld; expected the batch and the ranks of before",
                        f->layer->name, (long long)position, first->layer->name,
                        (long long)f->items, (long long)first->items);
    else
        *ret = product / first->items;
    return 0;
}

/* Another source and its mean take the place of the main one's. */
static int open_feed(struct sac_phase_net *p, struct sac_phase_feed *f,
                     const struct sac_phase_options *options, struct sac_error *err)
{
    const struct sac_phase_feed *first = &p->feeds[p->main];
    struct sac_feed_options how = {
        .train = options->phase == SAC_PHASE_TRAIN,
        .seed = options->seed,
        .threads = options->threads,
        .batch = options->batch,
        .source = f == first ? options->source : NULL,
        .mean_file = f == first ? options->mean_file : NULL,
        .augment = f == first ? options->augment : NULL,
        .resize = options->resize,
        .resize_width = options->resize_width,
        .resize_height = options->resize_height,
        .crops = options->crops,
    };
    int rc = share_batch(f, options, &how, err);

    if (rc == 0)
        rc = follow(f, first, options->position, &how.position, err);
    return rc == 0 ? sac_feed_from_layer(&f->feed, f->layer, &how, err) : rc;
}

/* The main one first: the others' positions follow from its. */
static int open_feeds(struct sac_phase_net *p, const struct sac_phase_options *options,
                      struct sac_error *err)
{
    int rc = 0;

    p->seed = sac_random_key(options->seed, 0xD, (uint64_t)options->rank);
    p->position = options->position;
    while (p->main + 1 < p->feed_count && is_dummy(&p->feeds[p->main]))
        p->main++;
    if (is_dummy(&p->feeds[p->main]))
        p->main = 0;
    p->input = p->feeds[p->main].layer;
    for (int i = 0; rc == 0 && i < p->feed_count; i++) {
        int at = i == 0 ? p->main : i <= p->main ? i - 1 : i;
        if (!is_dummy(&p->feeds[at]))
            rc = open_feed(p, &p->feeds[at], options, err);
    }
    p->feed = p->feeds[p->main].feed;
    return rc;
}

int sac_phase_net_open(struct sac_phase_net *ret, const struct sac_phase_options *options,
                       struct sac_error *err)
{
    struct sac_net_options how = {0};
    struct sac_buf bytes = {0};
    int rc = net_options(ret, options, &how, err);

    if (rc == 0)
        rc = read_message(ret, options, &bytes, err);

    if (rc == 0) {
        rc = find_layers(ret, &how, err);
        if (rc == 0)
            rc = split_losses(ret, options, &bytes, err);
        if (rc == 0)
            rc = open_feeds(ret, options, err);
        if (rc != 0)
            sac_error_prefix(err, "%s", options->path);
    }
    if (rc == 0)
        rc = load_net(ret, options, &how, &bytes, err);
    for (int i = 0; rc == 0 && i < ret->feed_count; i++)
        find_classes(ret, &ret->feeds[i]);
    sac_buf_done(&bytes);
    return rc;
}

void sac_phase_net_done(struct sac_phase_net *p)
{
    sac_plan_free(p->plan);
    if (p->staging)
        p->device->table->memory_free(p->device, SAC_MEMORY_STAGING, p->staging);
    sac_upload_done(&p->upload);
    for (int i = 0; i < SAC_UPLOAD_SIDES; i++)
        free(p->ready[i].items);
    sac_net_free(p->net);
    for (int i = 0; i < p->feed_count; i++)
        sac_feed_free(p->feeds[i].feed);
    sac_caffe_net_done(&p->file);
    free(p->layers);
    free(p->outputs);
    free(p->stages);
    *p = (struct sac_phase_net){0};
}

/* ---- The plan -------------------------------------------------------------- */

static double weight_of(const struct sac_plan *plan, const void *data)
{
    for (int i = 0; i < sac_plan_loss_count(plan); i++) {
        struct sac_plan_loss loss;
        sac_plan_loss(plan, i, &loss);
        if (loss.value.data == data)
            return (double)loss.weight;
    }
    return 0;
}

static int by_name(const void *a, const void *b)
{
    const struct sac_phase_output *left = a, *right = b;
    int order = strcmp(left->name, right->name);

    return order ? order : left->at - right->at;
}

static int find_outputs(struct sac_phase_net *p, struct sac_error *err)
{
    int count = sac_plan_output_count(p->plan);
    bool named = count == sac_net_output_count(p->net);

    p->outputs = calloc((size_t)count + 1, sizeof *p->outputs);
    if (!p->outputs)
        return sac_fail(err, SAC_ENOMEM, "out of memory");
    for (int i = 0; i < count; i++) {
        const struct sac_tensor *value = sac_plan_output(p->plan, i);
        p->outputs[p->output_count++] = (struct sac_phase_output){
            .name = named ? sac_net_output_name(p->net, i) : "output",
            .weight = weight_of(p->plan, value->data),
            .at = i,
            .count = sac_shape_count(&value->shape),
        };
    }
    if (count > 0)
        qsort(p->outputs, (size_t)count, sizeof *p->outputs, by_name);
    for (int i = 0; i < count; i++) {
        p->outputs[i].first = p->value_count;
        p->value_count += p->outputs[i].count;
    }
    return 0;
}

int sac_phase_net_plan(struct sac_phase_net *p, struct sac_device *device, struct sac_store *store,
                       struct sac_stream *stream, const struct sac_plan_options *options,
                       struct sac_error *err)
{
    uint64_t room = sac_memory_available();
    int rc = sac_plan_new(&p->plan, p->net, device, store, stream, options, err);

    if (rc == 0 && device->info.host_memory && sac_plan_memory_bytes(p->plan) > room)
        rc = sac_fail(err, SAC_ELIMIT,
                      "net %s takes %.0f MB for a batch of %d; there is room for %.0f MB",
                      sac_net_name(p->net), (double)sac_plan_memory_bytes(p->plan) / 1e6,
                      sac_plan_batch(p->plan), (double)room / 1e6);
    p->device = device;
    p->stream = stream;
    if (rc == 0)
        rc = find_outputs(p, err);
    if (rc == 0 && !device->info.host_memory)
        rc = device->table->memory_new(device, SAC_MEMORY_STAGING,
                                       (size_t)p->value_count * sizeof(float) + 1,
                                       (void **)&p->staging, err);
    return rc == 0 && p->staging ? sac_phase_net_open_upload(p, err) : rc;
}
