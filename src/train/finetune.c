#include "train/finetune.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/durable.h"
#include "base/file.h"
#include "formats/message.h"
#include "train/adapt.h"

enum { DISPLAYS = 200, SNAPSHOTS = 5 };

struct work {
    const struct sac_finetune *run;
    struct sac_arena *arena;
    const char *folder; /* absolute */
    bool failed;
};

static void *message(struct work *w, const ProtobufCMessageDescriptor *descriptor)
{
    void *out = sac_message_new(w->arena, descriptor);

    w->failed |= !out;
    return out;
}

static char *text(struct work *w, const char *from)
{
    char *out = sac_arena_strdup(w->arena, from);

    w->failed |= !out;
    return out;
}

static char *in_folder(struct work *w, const char *name)
{
    char *path = NULL;

    if (asprintf(&path, "%s/%s", w->folder, name) < 0)
        path = NULL;
    char *out = path ? text(w, path) : NULL;
    w->failed |= !out;
    free(path);
    return out;
}

#define SET(message, field, value) ((message)->has_##field = 1, (message)->field = (value))

/* ---- What feeds the net ------------------------------------------------------ */

static void set_augment(struct work *w, Caffe__TransformationParameter *transform)
{
    const struct sac_tuning *r = w->run->recipe;
    Caffe__AugmentParameter *a = message(w, &caffe__augment_parameter__descriptor);

    if (!a)
        return;
    if (r->area_min > 0)
        SET(a, area_min, (float)r->area_min);
    if (r->flip > 0)
        SET(a, flip, 1);
    if (r->color > 0) {
        SET(a, brightness, (float)r->color);
        SET(a, contrast, (float)r->color);
        SET(a, saturation, (float)r->color);
    }
    transform->augment = a;
}

static Caffe__TransformationParameter *transform_of(struct work *w, bool train)
{
    const struct sac_preprocess *how = w->run->how;
    Caffe__TransformationParameter *t = message(w, &caffe__transformation_parameter__descriptor);
    float *mean = sac_arena_alloc(w->arena, 3 * sizeof *mean);

    w->failed |= !mean;
    if (!t || !mean)
        return t;
    memcpy(mean, how->mean, sizeof how->mean);
    t->mean_value = mean;
    t->n_mean_value = (size_t)how->channels;
    if (how->scale != 1)
        SET(t, scale, how->scale);
    SET(t, crop_size, (uint32_t)how->crop_width);
    if (how->channels == 1)
        SET(t, force_gray, 1);
    else if (!how->bgr)
        SET(t, rgb, 1);
    if (train)
        set_augment(w, t);
    return t;
}

static void set_list(struct work *w, Caffe__LayerParameter *layer, const char *list, bool train)
{
    const struct sac_tuning *r = w->run->recipe;
    Caffe__ImageDataParameter *p = message(w, &caffe__image_data_parameter__descriptor);

    if (!p)
        return;
    layer->type = text(w, "ImageData");
    layer->image_data_param = p;
    p->source = text(w, list);
    SET(p, batch_size, (uint32_t)(train ? r->batch : r->test_batch));
    if (train)
        SET(p, shuffle, 1);
    SET(p, new_height, (uint32_t)r->resize);
    SET(p, new_width, (uint32_t)r->resize);
    if (w->run->how->channels == 1)
        SET(p, is_color, 0);
}

static void set_database(struct work *w, Caffe__LayerParameter *layer, const char *path, bool train)
{
    const struct sac_tuning *r = w->run->recipe;
    Caffe__DataParameter *p = message(w, &caffe__data_parameter__descriptor);

    if (!p)
        return;
    layer->type = text(w, "Data");
    layer->data_param = p;
    p->source = text(w, path);
    SET(p, batch_size, (uint32_t)(train ? r->batch : r->test_batch));
    SET(p, backend, CAFFE__DATA_PARAMETER__DB__LMDB);
}

static void set_phase(struct work *w, Caffe__LayerParameter *layer, bool train)
{
    Caffe__NetStateRule *rule = message(w, &caffe__net_state_rule__descriptor);

    layer->include = sac_arena_zalloc(w->arena, 1, sizeof *layer->include);
    w->failed |= !layer->include;
    if (!rule || !layer->include)
        return;
    SET(rule, phase, train ? CAFFE__PHASE__TRAIN : CAFFE__PHASE__TEST);
    layer->include[0] = rule;
    layer->n_include = 1;
}

static Caffe__LayerParameter *data_layer(struct work *w, const char *source, bool train)
{
    Caffe__LayerParameter *layer = message(w, &caffe__layer_parameter__descriptor);

    if (!layer)
        return NULL;
    layer->name = text(w, "data");
    layer->top = sac_arena_zalloc(w->arena, 2, sizeof *layer->top);
    w->failed |= !layer->top;
    if (!layer->top)
        return layer;
    layer->n_top = 2;
    layer->top[0] = text(w, "data");
    layer->top[1] = text(w, "label");
    layer->transform_param = transform_of(w, train);
    set_phase(w, layer, train);
    if (sac_file_is_folder(source))
        set_database(w, layer, source, train);
    else
        set_list(w, layer, source, train);
    return layer;
}

/* ---- The solver --------------------------------------------------------------- */

static void set_schedule(Caffe__SolverParameter *s, const struct sac_tuning *r, int32_t *test_iter)
{
    int64_t most = INT32_MAX;

    SET(s, base_lr, (float)r->rate);
    SET(s, max_iter, (int32_t)(r->iterations < most ? r->iterations : most));
    if (r->warm_up > 0) {
        SET(s, rampup_interval, (int32_t)r->warm_up);
        SET(s, rampup_lr, (float)r->rate / 10);
    }
    SET(s, momentum, 0.9F);
    SET(s, weight_decay, (float)r->decay);
    *test_iter = (int32_t)r->test_batches;
    s->test_iter = test_iter;
    s->n_test_iter = 1;
    SET(s, test_interval, (int32_t)r->test_interval);
    SET(s, test_initialization, 0);
    SET(s, display, (int32_t)(r->iterations > DISPLAYS ? r->iterations / DISPLAYS : 1));
    SET(s, average_loss, s->display);
    SET(s, snapshot, (int32_t)(r->iterations > SNAPSHOTS ? r->iterations / SNAPSHOTS : 1));
}

static Caffe__SolverParameter *solver_of(struct work *w)
{
    Caffe__SolverParameter *s = message(w, &caffe__solver_parameter__descriptor);
    int32_t *test_iter = sac_arena_alloc(w->arena, sizeof *test_iter);

    w->failed |= !test_iter;
    if (!s || !test_iter)
        return s;
    s->net = in_folder(w, "train_val.prototxt");
    s->lr_policy = text(w, "cosine");
    set_schedule(s, w->run->recipe, test_iter);
    s->snapshot_prefix = in_folder(w, "snapshots/finetune");
    SET(s, random_seed, (int64_t)(w->run->seed & INT32_MAX));
    return s;
}

/* ---- Files --------------------------------------------------------------------- */

static int put_file(struct sac_durable **ret, const char *path, const char *head,
                    const ProtobufCMessage *message, struct sac_error *err)
{
    struct sac_buf out = {0};
    int rc = 0;

    sac_buf_puts(&out, head);
    if (sac_prototxt_print(&out, message) < 0 || out.failed)
        rc = sac_fail(err, SAC_ENOMEM, "%s: out of memory", path);
    if (rc == 0)
        rc = sac_durable_open(ret, path, err);
    if (rc == 0)
        rc = sac_durable_put(*ret, out.data, out.len, err);
    if (rc == 0)
        rc = sac_durable_sync(*ret, err);
    sac_buf_done(&out);
    return rc;
}

static int put_files(const struct sac_adapted *nets, const Caffe__SolverParameter *solver,
                     const char *net_path, const char *solver_path, struct sac_error *err)
{
    struct sac_durable *net_file = NULL, *solver_file = NULL;
    int rc = put_file(&net_file, net_path,
                      "# Made for fine-tuning; edit it, and run it again with the solver beside "
                      "it.\n",
                      &nets->train_val->base, err);

    if (rc == 0)
        rc = put_file(&solver_file, solver_path,
                      "# saccade train --solver THIS --weights MODEL.caffemodel\n", &solver->base,
                      err);
    if (rc == 0)
        rc = sac_durable_commit(net_file, err);
    if (rc == 0)
        rc = sac_durable_commit(solver_file, err);
    if (rc == 0)
        rc = sac_durable_sync_folder(solver_path, err);
    sac_durable_free(net_file);
    sac_durable_free(solver_file);
    return rc;
}

static int check_sides(const struct sac_finetune *run, struct sac_error *err)
{
    if (run->how->crop_width == run->how->crop_height)
        return 0;
    return sac_fail(err, SAC_EUNSUPPORTED,
                    "the model takes %d × %d; pictures with sides of one length were expected",
                    run->how->crop_width, run->how->crop_height);
}

/* ret_solver NULL: no file is made. */
static int make(struct work *w, char **ret_solver, struct sac_error *err)
{
    const struct sac_finetune *run = w->run;
    const struct sac_adapt_options options = {
        .classes = run->classes,
        .suffix = "_new",
        .frozen = run->recipe->frozen,
        .early_mult = (float)run->recipe->early_mult,
        .last_mult = (float)run->recipe->last_mult,
        .smoothing = (float)run->recipe->smoothing,
        .train_data = data_layer(w, run->train, true),
        .test_data = data_layer(w, run->validation, false),
    };
    Caffe__SolverParameter *solver = solver_of(w);
    char *path = in_folder(w, "solver.prototxt");
    struct sac_adapted nets;

    if (w->failed)
        return sac_fail(err, SAC_ENOMEM, "out of memory");
    int rc = sac_adapt(&nets, run->deploy, &options, w->arena, err);
    if (rc != 0 || !ret_solver)
        return rc;
    if (rc == 0)
        rc = put_files(&nets, solver, solver->net, path, err);
    if (rc == 0 && !(*ret_solver = strdup(path)))
        rc = sac_fail(err, SAC_ENOMEM, "%s: out of memory", run->folder);
    return rc;
}

int sac_finetune_check(const struct sac_finetune *run, struct sac_error *err)
{
    struct work w = {.run = run, .folder = ""};
    int rc = check_sides(run, err);

    if (rc == 0 && !(w.arena = sac_arena_new(0)))
        rc = sac_fail(err, SAC_ENOMEM, "out of memory");
    if (rc == 0)
        rc = make(&w, NULL, err);
    sac_arena_free(w.arena);
    return rc;
}

int sac_finetune_write(const struct sac_finetune *run, char **ret_solver, struct sac_error *err)
{
    struct work w = {.run = run};
    char *folder = realpath(run->folder, NULL);
    int rc = folder ? check_sides(run, err) : sac_fail_errno(err, errno, "%s", run->folder);

    w.folder = folder;
    if (rc == 0 && !(w.arena = sac_arena_new(0)))
        rc = sac_fail(err, SAC_ENOMEM, "%s: out of memory", run->folder);
    if (rc == 0)
        rc = make(&w, ret_solver, err);
    sac_arena_free(w.arena);
    free(folder);
    return rc;
}
