/* Shapes: from the inputs through all layers, each time anew. */
#include "net/net_private.h"

#include <stdlib.h>
#include <string.h>

int sac_layer_blame(const struct sac_layer *layer, int rc, struct sac_error *err)
{
    if (rc != 0)
        sac_error_prefix(err, "layer \"%.64s\" (%s)", layer->name, layer->type->name);
    return rc;
}

/* Every dimension at least 1, and at most SAC_BLOB_COUNT_MAX numbers. */
static int check_shape(const struct sac_shape *shape, const char *what, const char *name,
                       struct sac_error *err)
{
    char text[SAC_SHAPE_TEXT];

    if (shape->rank < 0 || shape->rank > SAC_AXES_MAX)
        return sac_fail(err, SAC_ELIMIT, "%s %.64s has %d axes; the most is %d", what, name,
                        shape->rank, SAC_AXES_MAX);
    for (int i = 0; i < shape->rank; i++) {
        if (shape->dim[i] < 1)
            return sac_fail(err, SAC_EFORMAT,
                            "%s %.64s is %s, and every dimension has to be at least 1", what, name,
                            sac_shape_text(shape, text, sizeof text));
    }
    int64_t count = sac_shape_count(shape);
    if (count < 0 || count > SAC_BLOB_COUNT_MAX)
        return sac_fail(err, SAC_ELIMIT, "%s %.64s is %s; the most is 2147483647 numbers", what,
                        name, sac_shape_text(shape, text, sizeof text));
    return 0;
}

static int check_weights(const struct sac_layer *layer, const struct sac_layer_shapes *shapes,
                         struct sac_weight_shapes *weights, struct sac_error *err)
{
    char a[SAC_SHAPE_TEXT], b[SAC_SHAPE_TEXT];

    for (int i = 0; i < shapes->weight_count; i++) {
        const char *number[SAC_LAYER_WEIGHTS_MAX] = {"0", "1", "2", "3"};
        int rc = check_shape(&shapes->weights[i], "weight", number[i], err);
        if (rc != 0)
            return rc;
        if (!weights && !sac_shape_equal(&shapes->weights[i], &layer->weight_shapes[i]))
            return sac_fail(err, SAC_EINVAL,
                            "this input shape needs weight %d to be %s, and it is %s", i,
                            sac_shape_text(&shapes->weights[i], a, sizeof a),
                            sac_shape_text(&layer->weight_shapes[i], b, sizeof b));
    }
    if (weights) {
        memcpy(weights->shape, shapes->weights, sizeof weights->shape);
        weights->count = shapes->weight_count;
    }
    return 0;
}

static int check_tops(const struct sac_layer *layer, const struct sac_shape *out,
                      struct sac_error *err)
{
    int rc = 0;

    for (int i = 0; rc == 0 && i < layer->top_count; i++)
        rc = check_shape(&out[i], "top", layer->top_names[i], err);
    return rc;
}

static int infer_layer(const struct sac_layer *layer, struct sac_layer_shapes *shapes,
                       struct sac_weight_shapes *weights, struct sac_error *err)
{
    int rc = 0;

    if (layer->type->shape)
        rc = layer->type->shape(layer, shapes, err);
    else
        for (int i = 0; i < layer->top_count; i++)
            shapes->out[i] = shapes->in[0];
    if (rc == 0)
        rc = check_tops(layer, shapes->out, err);
    if (rc == 0)
        rc = check_weights(layer, shapes, weights, err);
    return sac_layer_blame(layer, rc, err);
}

/* `room` holds one layer's bottoms, then its tops. */
static int infer_all(const struct sac_net *net, const struct sac_shape *inputs,
                     struct sac_shape *all, struct sac_weight_shapes *weights,
                     struct sac_shape *room, struct sac_error *err)
{
    int input = 0;

    for (int i = 0; i < net->layer_count; i++) {
        const struct sac_layer *layer = &net->layers[i];
        struct sac_layer_shapes shapes = {.in = room, .out = room + net->bottoms_most};
        int rc;
        for (int k = 0; k < layer->bottom_count; k++)
            room[k] = all[layer->bottoms[k]];
        memset(shapes.out, 0, (size_t)layer->top_count * sizeof *shapes.out);
        if (layer->type->feeds && inputs) {
            for (int k = 0; k < layer->top_count; k++)
                shapes.out[k] = inputs[input++];
            rc = sac_layer_blame(layer, check_tops(layer, shapes.out, err), err);
        } else {
            rc = infer_layer(layer, &shapes, weights ? &weights[i] : NULL, err);
        }
        if (rc != 0)
            return rc;
        for (int k = 0; k < layer->top_count; k++)
            all[layer->tops[k]] = shapes.out[k];
    }
    return 0;
}

int sac_net_infer(const struct sac_net *net, const struct sac_shape *inputs,
                  struct sac_shape *shapes, struct sac_weight_shapes *weights,
                  struct sac_error *err)
{
    size_t most = (size_t)net->bottoms_most + (size_t)net->tops_most + 1;
    struct sac_shape *room = calloc(most, sizeof *room);

    if (!room)
        return sac_fail(err, SAC_ENOMEM, "out of memory");
    int rc = infer_all(net, inputs, shapes, weights, room, err);
    free(room);
    return rc;
}

/* Labels follow the batch of their data layer. */
static void set_input(const struct sac_net *net, int index, const struct sac_shape *shape,
                      struct sac_shape *inputs)
{
    const struct sac_layer *layer = &net->layers[net->values[net->inputs[index]].layer];

    inputs[index] = *shape;
    if (!layer->type->labels || shape->rank == 0)
        return;
    for (int i = 0; i < net->input_count; i++) {
        if (&net->layers[net->values[net->inputs[i]].layer] == layer && inputs[i].rank > 0)
            inputs[i].dim[0] = shape->dim[0];
    }
}

int sac_net_reshape(struct sac_net *net, int index, const struct sac_shape *shape,
                    struct sac_error *err)
{
    if (index < 0 || index >= net->input_count)
        return sac_fail(err, SAC_EINVAL, "there is no input %d; the net has %d", index,
                        net->input_count);
    size_t bytes = (size_t)net->value_count * sizeof(struct sac_shape);
    struct sac_shape *inputs = calloc((size_t)net->input_count, sizeof *inputs);
    struct sac_shape *shapes = malloc(bytes);
    int rc = inputs && shapes ? 0 : sac_fail(err, SAC_ENOMEM, "out of memory");

    if (rc == 0) {
        for (int i = 0; i < net->input_count; i++)
            inputs[i] = net->shapes[net->inputs[i]];
        set_input(net, index, shape, inputs);
        rc = sac_net_infer(net, inputs, shapes, NULL, err);
    }
    if (rc == 0)
        memcpy(net->shapes, shapes, bytes);
    free(inputs);
    free(shapes);
    return rc;
}
