/* Batches of a phase: from the feeds to the plan's inputs, and what comes out. */
#include "train/phase.h"

#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "net/fillers.h"

/* ---- What feeds an input -------------------------------------------------------- */

static const struct sac_phase_feed *find_top(const struct sac_phase_net *p, const char *name,
                                             int *ret_top)
{
    for (int i = 0; i < p->feed_count; i++) {
        const Caffe__LayerParameter *layer = p->feeds[i].layer;
        for (size_t k = 0; k < layer->n_top; k++) {
            *ret_top = (int)k;
            if (strcmp(layer->top[k], name) == 0)
                return &p->feeds[i];
        }
    }
    return NULL;
}

/* What feeds input `index`, and by which top. */
static int find_input(const struct sac_phase_net *p, int index, const struct sac_phase_feed **ret,
                      int *ret_top, struct sac_error *err)
{
    const char *name = sac_net_input_name(p->net, index);

    *ret = find_top(p, name, ret_top);
    return *ret ? 0 : sac_fail(err, SAC_EINVAL, "nothing feeds \"%.64s\"", name);
}

static struct sac_filler dummy_filler(const struct sac_phase_feed *f, int top)
{
    const Caffe__DummyDataParameter *m = f->layer->dummy_data_param;
    size_t count = m ? m->n_data_filler : 0, at = count == 1 ? 0 : (size_t)top;

    return at < count ? sac_filler_of(m->data_filler[at]) : sac_filler_constant(0);
}

/* ---- Batches --------------------------------------------------------------- */

/* The first label of each item is the classes'; others are further tops. */
static int check_labels(const struct sac_phase_feed *f, struct sac_error *err)
{
    const struct sac_source *source = sac_feed_source(f->feed);
    struct sac_feed_top top = {0};
    int rc = f->classes > 0 ? sac_feed_top(f->feed, 1, &top, err) : 0;

    for (int64_t i = 0; rc == 0 && i < f->batch.count * top.count; i++) {
        int64_t item = i / top.count;
        float label = f->batch.labels[item * source->label_count + i % top.count];
        if (label >= 0 && label < (float)f->classes && label == (float)(int)label)
            continue;
        char name[SAC_ERROR_TEXT / 2];
        sac_source_item_name(source, f->batch.index[item], name, sizeof name);
        return sac_fail(err, SAC_EINVAL, "%s: label %g; the net has classes 0 to %d", name,
                        (double)label, f->classes - 1);
    }
    return rc;
}

/* As Caffe's: a constant stays, others are drawn anew each pass, here from the run's seed
 * and the pass, so that a run that goes on draws what one that did not stop would. */
static int fill_dummy(const struct sac_phase_net *p, const struct sac_phase_feed *f, int top,
                      int64_t pass, const struct sac_shape *shape, float *to, struct sac_error *err)
{
    const Caffe__DummyDataParameter *m = f->layer->dummy_data_param;
    size_t count = m ? m->n_data_filler : 0;

    if (count > 1 && count != f->layer->n_top)
        return sac_fail(err, SAC_EINVAL, "layer \"%.64s\": %zu data_filler for %zu tops",
                        f->layer->name, count, f->layer->n_top);
    struct sac_filler filler = dummy_filler(f, top);
    int rc = sac_filler_fill(&filler, f->layer->top[top], shape,
                             sac_random_key(p->seed, 0, (uint64_t)pass), to, err);
    if (rc != 0)
        sac_error_prefix(err, "layer \"%.64s\"", f->layer->name);
    return rc;
}

/* Input `index` of the batch that the feeds hold, as plain numbers. */
static int fill_input(const struct sac_phase_net *p, int index, int64_t pass, float *to,
                      struct sac_error *err)
{
    const struct sac_phase_feed *f = NULL;
    int top = 0, rc = find_input(p, index, &f, &top, err);

    if (rc != 0)
        return rc;
    if (!f->feed)
        return fill_dummy(p, f, top, pass, &sac_plan_input(p->plan, index)->shape, to, err);
    sac_feed_copy_top(f->feed, &f->batch, top, to);
    return 0;
}

int sac_phase_net_give(struct sac_phase_net *p, struct sac_plan *plan, struct sac_error *err)
{
    int rc = 0;

    if (p->upload.device)
        return sac_upload_give(&p->upload, p->side, plan, p->stream, err);
    for (int i = 0; i < sac_plan_input_count(plan) && rc == 0; i++)
        rc = fill_input(p, i, p->pass, sac_plan_input(plan, i)->data, err);
    return rc;
}

/* The feeds' next batches, checked. */
static int fetch(struct sac_phase_net *p, struct sac_error *err)
{
    int rc = 0;

    for (int i = 0; i < p->feed_count && rc == 0; i++) {
        struct sac_phase_feed *f = &p->feeds[i];
        struct sac_batch batch = {0};
        if (!f->feed)
            continue;
        rc = sac_feed_next(f->feed, &batch, err);
        f->batch = batch;
        if (rc == 0)
            rc = check_labels(f, err);
    }
    return rc;
}

/* Of the batch that comes next. */
static int64_t next_pass(const struct sac_phase_net *p)
{
    return p->feed ? p->position / p->feeds[p->main].items : p->position;
}

static int64_t next_position(const struct sac_phase_net *p)
{
    return p->feed ? p->feeds[p->main].batch.position : p->position + 1;
}

/* ---- On a device: through the upload ------------------------------------------ */

static int describe_part(const struct sac_phase_net *p, int index, struct sac_upload_part *ret,
                         struct sac_error *err)
{
    const struct sac_shape *shape = &sac_plan_input(p->plan, index)->shape;
    const struct sac_phase_feed *f = NULL;
    int top = 0, rc = find_input(p, index, &f, &top, err);

    if (rc != 0)
        return rc;
    if (!f->feed)
        ret->constant = sac_filler_is_constant(dummy_filler(f, top));
    else if (top == 0)
        ret->crops = sac_feed_crops(f->feed, &ret->how);
    ret->bytes = sac_tensor_bytes(shape, ret->crops ? SAC_U8 : SAC_F32);
    return 0;
}

int sac_phase_net_open_upload(struct sac_phase_net *p, struct sac_error *err)
{
    int count = sac_plan_input_count(p->plan), rc = 0;
    struct sac_upload_part *parts = calloc((size_t)count + 1, sizeof *parts);
    size_t items = p->feed ? (size_t)sac_feed_batch(p->feed) : 0;

    if (!parts)
        return sac_fail(err, SAC_ENOMEM, "out of memory");
    for (int i = 0; i < count && rc == 0; i++)
        rc = describe_part(p, i, &parts[i], err);
    for (int i = 0; i < SAC_UPLOAD_SIDES && rc == 0; i++) {
        p->ready[i].items = calloc(items + 1, sizeof *p->ready[i].items);
        if (!p->ready[i].items)
            rc = sac_fail(err, SAC_ENOMEM, "out of memory");
    }
    if (rc == 0)
        rc = sac_upload_open(&p->upload, p->device, parts, count, err);
    free(parts);
    return rc;
}

static int fill_part(struct sac_phase_net *p, int side, int index, struct sac_error *err)
{
    const struct sac_upload_part *part = &p->upload.parts[index];
    void *to = sac_upload_at(&p->upload, side, index);
    const struct sac_phase_feed *f = NULL;
    int top = 0, rc = 0;

    if (!sac_upload_wants(&p->upload, side, index))
        return 0;
    if (!part->crops)
        return fill_input(p, index, p->ready[side].pass, to, err);
    rc = find_input(p, index, &f, &top, err);
    if (rc == 0) {
        memcpy(to, f->batch.crops, part->bytes);
        memcpy(sac_upload_places(&p->upload, side, index), f->batch.places, part->places_bytes);
    }
    return rc;
}

/* What is told of the batch when it is in use, after the feed has gone on. */
static void note_batch(struct sac_phase_net *p, int side)
{
    struct sac_phase_ready *ready = &p->ready[side];

    ready->position = next_position(p);
    ready->batch = p->feeds[p->main].batch;
    ready->batch.data = NULL;
    ready->batch.crops = NULL;
    if (!p->feed)
        return;
    memcpy(ready->items, ready->batch.index, (size_t)ready->batch.count * sizeof *ready->items);
    ready->batch.index = ready->items;
    for (int i = 0; i < p->upload.part_count; i++) {
        int top = 0;
        if (find_top(p, sac_net_input_name(p->net, i), &top) == &p->feeds[p->main] && top == 0 &&
            !p->upload.parts[i].crops)
            ready->batch.data = sac_upload_at(&p->upload, side, i);
    }
}

static int make_ready(struct sac_phase_net *p, int side, struct sac_error *err)
{
    int rc = fetch(p, err);

    p->ready[side].pass = next_pass(p);
    if (rc == 0)
        rc = sac_upload_begin(&p->upload, side, err);
    for (int i = 0; i < p->upload.part_count && rc == 0; i++)
        rc = fill_part(p, side, i, err);
    if (rc == 0)
        rc = sac_upload_send(&p->upload, side, err);
    if (rc == 0)
        note_batch(p, side);
    return rc;
}

void sac_phase_net_ahead(struct sac_phase_net *p)
{
    int side = (p->side + 1) % SAC_UPLOAD_SIDES;
    struct sac_phase_ready *ready = &p->ready[side];

    if (!p->upload.device || ready->there)
        return;
    ready->why = (struct sac_error){0};
    ready->rc = make_ready(p, side, &ready->why);
    ready->there = true;
}

static int use_ready(struct sac_phase_net *p, struct sac_error *err)
{
    sac_phase_net_ahead(p);
    p->side = (p->side + 1) % SAC_UPLOAD_SIDES;
    struct sac_phase_ready *ready = &p->ready[p->side];
    ready->there = false;
    if (ready->rc != 0)
        return sac_fail(err, ready->rc, "%s", ready->why.text);
    p->pass = ready->pass;
    p->batch = ready->batch;
    p->position = ready->position;
    return sac_phase_net_give(p, p->plan, err);
}

int sac_phase_net_take(struct sac_phase_net *p, struct sac_error *err)
{
    int rc = p->upload.device ? use_ready(p, err) : fetch(p, err);

    if (rc != 0 || p->upload.device)
        return rc;
    p->pass = next_pass(p);
    p->batch = p->feeds[p->main].batch;
    rc = sac_phase_net_give(p, p->plan, err);
    if (rc == 0)
        p->position = next_position(p);
    return rc;
}

int sac_phase_net_forward(struct sac_phase_net *p, struct sac_error *err)
{
    int rc = sac_phase_net_take(p, err);

    return rc == 0 ? sac_plan_forward(p->plan, err) : rc;
}

static int fetch_outputs(const struct sac_phase_net *p, struct sac_error *err)
{
    int rc = 0;

    for (int i = 0; i < p->output_count && rc == 0; i++) {
        const struct sac_phase_output *o = &p->outputs[i];
        rc = p->device->table->copy(
            p->stream, SAC_COPY_TO_HOST, p->staging + (size_t)o->first * sizeof(float),
            sac_plan_output(p->plan, o->at)->data, (size_t)o->count * sizeof(float), err);
    }
    return rc;
}

int sac_phase_net_add_outputs(const struct sac_phase_net *p, double *values, struct sac_error *err)
{
    int rc = p->staging ? fetch_outputs(p, err) : 0;

    if (rc == 0)
        rc = p->device->table->stream_sync(p->stream, err);
    for (int i = 0; i < p->output_count && rc == 0; i++) {
        const struct sac_phase_output *o = &p->outputs[i];
        const float *data = p->staging ? (const float *)p->staging + o->first
                                       : sac_plan_output(p->plan, o->at)->data;
        for (int64_t k = 0; k < o->count; k++)
            values[o->first + k] += (double)data[k];
    }
    return rc;
}
