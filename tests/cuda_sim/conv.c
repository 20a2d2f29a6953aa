#include "conv.h"

#include "number.h"

#include <stdlib.h>
#include <string.h>

size_t sim_type_bytes(enum sim_type type)
{
    return type == SIM_F32 ? 4 : 2;
}

float sim_load(const void *data, enum sim_type type, long at)
{
    if (type == SIM_F32)
        return ((const float *)data)[at];
    if (type == SIM_F16)
        return sim_from_f16(((const uint16_t *)data)[at]);
    return sim_from_bf16(((const uint16_t *)data)[at]);
}

void sim_store(void *data, enum sim_type type, long at, float value)
{
    if (type == SIM_F32)
        ((float *)data)[at] = value;
    else if (type == SIM_F16)
        ((uint16_t *)data)[at] = sim_to_f16(value);
    else
        ((uint16_t *)data)[at] = sim_to_bf16(value);
}

__attribute__((no_sanitize("address", "undefined", "thread"))) void
sim_axpy(float *y, float a, const float *x, int count)
{
    for (int i = 0; i < count; i++)
        y[i] += a * x[i];
}

static size_t count_of(const struct sim_tensor *t)
{
    return (size_t)t->dim[0] * (size_t)t->dim[1] * (size_t)t->dim[2] * (size_t)t->dim[3];
}

static long place(const struct sim_tensor *t, int n, int c, int h, int w)
{
    return n * t->stride[0] + c * t->stride[1] + h * t->stride[2] + w * t->stride[3];
}

/* A tensor as floats [n][h][w][c]. */
static float *unpack_tensor(const struct sim_tensor *t, const void *data, bool tf32)
{
    float *out = malloc(count_of(t) * sizeof *out), *at = out;

    for (int n = 0; n < t->dim[0]; n++)
        for (int h = 0; h < t->dim[2]; h++)
            for (int w = 0; w < t->dim[3]; w++)
                for (int c = 0; c < t->dim[1]; c++) {
                    float value = sim_load(data, t->type, place(t, n, c, h, w));

                    *at++ = tf32 ? sim_round_tf32(value) : value;
                }
    return out;
}

/* Where a filter's number stands in [group][r][s][inner][outer]: the outer is the
 * output's channel, or the input's for backward data. */
static size_t packed(const struct sim_conv *p, int k, int c, int r, int s)
{
    int group_k = p->w.dim[0] / p->group, group_c = p->w.dim[1];
    size_t tap =
        ((size_t)(k / group_k) * (size_t)p->w.dim[2] + (size_t)r) * (size_t)p->w.dim[3] + (size_t)s;

    if (p->pass == SIM_BACKWARD_DATA)
        return (tap * (size_t)group_k + (size_t)(k % group_k)) * (size_t)group_c + (size_t)c;
    return (tap * (size_t)group_c + (size_t)c) * (size_t)group_k + (size_t)(k % group_k);
}

/* The filter to or from its packed form. */
static void pack_filter(const struct sim_conv *p, float *packed_w, void *store)
{
    const struct sim_tensor *w = &p->w;

    for (int k = 0; k < w->dim[0]; k++)
        for (int c = 0; c < w->dim[1]; c++)
            for (int r = 0; r < w->dim[2]; r++)
                for (int s = 0; s < w->dim[3]; s++) {
                    float *value = &packed_w[packed(p, k, c, p->flip ? w->dim[2] - 1 - r : r,
                                                    p->flip ? w->dim[3] - 1 - s : s)];
                    long at = place(w, k, c, r, s);

                    if (!store) {
                        *value = sim_load(p->in_w, w->type, at);
                        *value = p->tf32 ? sim_round_tf32(*value) : *value;
                        continue;
                    }
                    float old = p->beta != 0 ? p->beta * sim_load(store, w->type, at) : 0;
                    sim_store(store, w->type, at, p->alpha * *value + old);
                }
}

/* What one tap of the filter adds at one place of the output. */
static void add_tap(const struct sim_conv *p, float *x, float *w, float *y)
{
    int group_k = p->w.dim[0] / p->group, group_c = p->w.dim[1];

    if (p->pass == SIM_FORWARD)
        for (int c = 0; c < group_c; c++)
            sim_axpy(y, x[c], w + (size_t)c * (size_t)group_k, group_k);
    else if (p->pass == SIM_BACKWARD_DATA)
        for (int k = 0; k < group_k; k++)
            sim_axpy(x, y[k], w + (size_t)k * (size_t)group_c, group_c);
    else
        for (int c = 0; c < group_c; c++)
            sim_axpy(w + (size_t)c * (size_t)group_k, x[c], y, group_k);
}

static void add_row(const struct sim_conv *p, float *x, float *w, float *y, int ih, int oh, int s,
                    int g)
{
    int group_k = p->w.dim[0] / p->group, group_c = p->w.dim[1];

    for (int ow = 0; ow < p->y.dim[3]; ow++) {
        int iw = ow * p->stride[1] - p->pad[1] + s * p->dilation[1];
        size_t from = ((size_t)ih * (size_t)p->x.dim[3] + (size_t)iw) * (size_t)p->x.dim[1];
        size_t to = ((size_t)oh * (size_t)p->y.dim[3] + (size_t)ow) * (size_t)p->y.dim[1];

        if (iw >= 0 && iw < p->x.dim[3])
            add_tap(p, x + from + (size_t)g * (size_t)group_c, w,
                    y + to + (size_t)g * (size_t)group_k);
    }
}

/* x and y [n][h][w][c], w packed; the pass's own one is added to. */
static void add_all(const struct sim_conv *p, float *x, float *w, float *y)
{
    size_t x_picture = (size_t)p->x.dim[1] * (size_t)p->x.dim[2] * (size_t)p->x.dim[3];
    size_t y_picture = (size_t)p->y.dim[1] * (size_t)p->y.dim[2] * (size_t)p->y.dim[3];
    size_t tap = (size_t)(p->w.dim[0] / p->group) * (size_t)p->w.dim[1];
    int taps = p->w.dim[2] * p->w.dim[3];

    for (int n = 0; n < p->x.dim[0]; n++)
        for (int g = 0; g < p->group; g++)
            for (int oh = 0; oh < p->y.dim[2]; oh++)
                for (int t = 0; t < taps; t++) {
                    int r = t / p->w.dim[3], s = t % p->w.dim[3];
                    int ih = oh * p->stride[0] - p->pad[0] + r * p->dilation[0];

                    if (ih >= 0 && ih < p->x.dim[2])
                        add_row(p, x + (size_t)n * x_picture,
                                w + ((size_t)g * (size_t)taps + (size_t)t) * tap,
                                y + (size_t)n * y_picture, ih, oh, s, g);
                }
}

static float finish(const struct sim_conv *p, const struct sim_tensor *t, float value, int n, int c,
                    int h, int w)
{
    const void *old = p->data_z ? p->data_z : p->out;
    const struct sim_tensor *old_tensor = p->data_z ? &p->z : t;

    value *= p->alpha;
    if (p->beta != 0)
        value += p->beta * sim_load(old, old_tensor->type, place(old_tensor, n, c, h, w));
    if (p->bias)
        value += sim_load(p->bias, t->type, c);
    return p->relu && !(value > 0) && value == value ? 0 : value;
}

static void store_tensor(const struct sim_conv *p, const struct sim_tensor *t, const float *from)
{
    for (int n = 0; n < t->dim[0]; n++)
        for (int h = 0; h < t->dim[2]; h++)
            for (int w = 0; w < t->dim[3]; w++)
                for (int c = 0; c < t->dim[1]; c++)
                    sim_store(p->out, t->type, place(t, n, c, h, w),
                              finish(p, t, *from++, n, c, h, w));
}

void sim_conv_run(const struct sim_conv *p)
{
    float *x = p->pass == SIM_BACKWARD_DATA ? calloc(count_of(&p->x), sizeof *x)
                                            : unpack_tensor(&p->x, p->in_x, p->tf32);
    float *y = p->pass == SIM_FORWARD ? calloc(count_of(&p->y), sizeof *y)
                                      : unpack_tensor(&p->y, p->in_y, p->tf32);
    float *w = calloc(count_of(&p->w), sizeof *w);

    if (p->workspace_bytes > 0)
        memset(p->workspace, 0xff, p->workspace_bytes);
    if (p->pass != SIM_BACKWARD_FILTER)
        pack_filter(p, w, NULL);
    add_all(p, x, w, y);
    if (p->pass == SIM_FORWARD)
        store_tensor(p, &p->y, y);
    else if (p->pass == SIM_BACKWARD_DATA)
        store_tensor(p, &p->x, x);
    else
        pack_filter(p, w, p->out);
    free(x);
    free(y);
    free(w);
}
