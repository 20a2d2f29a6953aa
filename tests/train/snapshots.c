#include "snapshots.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "support/support.h"

enum { FLOATS = 48 + 4 + 32 + 8, BLOBS = 4 };

/* conv1 has two blobs, a layer with a slash in its name two, relu none. */
struct made {
    float weights[FLOATS];
    float history[FLOATS];
    struct sac_blob_view weight_views[BLOBS];
    struct sac_blob_view history_views[BLOBS];
    struct sac_weights_layer layers[3];
    struct sac_weights_view view;
};

/* Any bits but signalling NaN, which copies through floating-point registers may
 * change: denormals, infinities and quiet NaN among them. */
static void fill(float *to, uint64_t seed)
{
    for (uint64_t i = 0; i < FLOATS; i++) {
        uint64_t x = (seed * 1000003 + i + 1) * 0x9e3779b97f4a7c15u;
        uint32_t bits = (uint32_t)(x >> 32);
        if ((bits & 0x7f800000u) == 0x7f800000u)
            bits |= 0x00400000u;
        memcpy(&to[i], &bits, sizeof bits);
    }
}

static void view_blobs(struct sac_blob_view *views, float *data)
{
    static const struct sac_shape shapes[BLOBS] = {
        {4, {4, 3, 2, 2}}, {1, {4}}, {2, {8, 4}}, {1, {8}}};

    for (int i = 0; i < BLOBS; i++) {
        views[i] = (struct sac_blob_view){shapes[i], data};
        data += sac_shape_count(&shapes[i]);
    }
}

static void make(struct made *made, int64_t iteration)
{
    fill(made->weights, (uint64_t)iteration * 2);
    fill(made->history, (uint64_t)iteration * 2 + 1);
    view_blobs(made->weight_views, made->weights);
    view_blobs(made->history_views, made->history);
    made->layers[0] =
        (struct sac_weights_layer){"conv1", "Convolution", NULL, 2, made->weight_views};
    made->layers[1] = (struct sac_weights_layer){"relu", "ReLU", NULL, 0, NULL};
    made->layers[2] =
        (struct sac_weights_layer){"block/1x1", "InnerProduct", NULL, 2, made->weight_views + 2};
    made->view = (struct sac_weights_view){"made", 3, made->layers};
}

int made_save(const char *prefix, enum sac_snapshot_format format, int64_t iteration,
              struct sac_snapshot_files *ret, struct sac_error *err)
{
    struct made made;
    json_t *values = json_pack("{s:I, s:f, s:s}", "position", (json_int_t)(iteration * 7), "third",
                               (double)iteration / 3, "text", "a\"ü");

    make(&made, iteration);
    int rc = sac_snapshot_save(&(struct sac_snapshot){.prefix = prefix,
                                                      .format = format,
                                                      .iteration = iteration,
                                                      .current_step = (int)(iteration % 5),
                                                      .weights = &made.view,
                                                      .history = made.history_views,
                                                      .history_count = BLOBS,
                                                      .values = values},
                               ret, err);
    json_decref(values);
    return rc;
}

static void assert_weights(const struct sac_snapshot_files *files, const struct made *expected)
{
    struct sac_weights_loaded loaded;
    struct sac_error err = {0};
    struct made found;

    make(&found, 0);
    assert_ok(sac_weights_load(&found.view, files->weights, &loaded, &err), err);
    assert_int_equal(loaded.copied, 2);
    assert_int_equal(loaded.missing, 0);
    assert_int_equal(loaded.ignored, 0);
    assert_memory_equal(found.weights, expected->weights, sizeof found.weights);
}

static void assert_state(const struct sac_snapshot_files *files, const struct made *expected)
{
    struct sac_solver_state state;
    struct sac_error err = {0};

    assert_ok(sac_solver_state_load(&state, files->state, &err), err);
    assert_int_equal(state.iteration, files->iteration);
    assert_int_equal(state.current_step, files->iteration % 5);
    assert_string_equal(state.learned_net, files->weights);
    assert_int_equal(state.history_count, BLOBS);
    for (int i = 0; i < BLOBS; i++) {
        const struct sac_blob_view *view = &expected->history_views[i];
        assert_true(sac_shape_equal(&state.history[i].shape, &view->shape));
        assert_memory_equal(state.history[i].data, view->data,
                            (size_t)sac_shape_count(&view->shape) * sizeof(float));
    }
    sac_solver_state_done(&state);
}

void assert_made(const struct sac_snapshot_files *files)
{
    struct sac_error err = {0};
    struct made expected;
    json_t *values;

    make(&expected, files->iteration);
    assert_weights(files, &expected);
    assert_state(files, &expected);
    assert_ok(sac_snapshot_values(files, &values, &err), err);
    assert_int_equal(json_integer_value(json_object_get(values, "position")), files->iteration * 7);
    assert_true(json_real_value(json_object_get(values, "third")) == (double)files->iteration / 3);
    assert_string_equal(json_string_value(json_object_get(values, "text")), "a\"ü");
    json_decref(values);
}

const char *made_prefix(const char *folder, const char *name)
{
    static char path[1024];

    snprintf(path, sizeof path, "%s/%s", sac_test_tmpdir(), folder);
    mkdir(path, 0777);
    snprintf(path, sizeof path, "%s/%s/%s", sac_test_tmpdir(), folder, name);
    return path;
}
