/* Whole nets in training: gradients against central differences of the loss, and which
 * gradients there are. */
#include "net/net_support.h"
#include "net/make_graph.h"

#include <math.h>

#include "device/device.h"
#include "net/net.h"
#include "net/plan.h"

enum { PARAMS_MAX = 64 };

struct trainer {
    struct sac_device *device;
    struct sac_store *store;
    struct sac_stream *stream;
    struct sac_net *net;
    struct sac_plan *plan;
    float *weights[PARAMS_MAX], *grads[PARAMS_MAX];
    int64_t count[PARAMS_MAX];
    int param_count;
};

#define INPUT                                                                                      \
    "layer { name: 'in' type: 'Input' top: 'data' top: 'label' input_param { "                     \
    "shape { dim: 4 dim: 3 dim: 8 dim: 8 } shape { dim: 4 } } }\n"
#define CONV(name, bottom, top, more)                                                              \
    "layer { name: '" name "' type: 'Convolution' bottom: '" bottom "' top: '" top "' " more       \
    " convolution_param { num_output: 4 kernel_size: 3 pad: 1 } }\n"
#define INNER(name, bottom, top, more)                                                             \
    "layer { name: '" name "' type: 'InnerProduct' bottom: '" bottom "' top: '" top "' " more      \
    " inner_product_param { num_output: 5 } }\n"
#define LAYER(name, type, bottom, top, more)                                                       \
    "layer { name: '" name "' type: '" type "' bottom: '" bottom "' top: '" top "' " more " }\n"
#define LOSS(name, bottom, more)                                                                   \
    "layer { name: '" name "' type: 'SoftmaxWithLoss' bottom: '" bottom                            \
    "' bottom: 'label' top: '" name "' " more " }\n"

/* Numbers of [-scale, scale), the same in every run. */
static void fill(float *to, int64_t count, uint64_t seed, float scale)
{
    make_floats(to, count, seed);
    for (int64_t i = 0; i < count; i++)
        to[i] *= scale;
}

static void fill_inputs(struct trainer *t)
{
    for (int i = 0; i < sac_plan_input_count(t->plan); i++) {
        const struct sac_tensor *input = sac_plan_input(t->plan, i);
        int64_t count = sac_shape_count(&input->shape);
        if (input->shape.rank > 1)
            fill(input->data, count, 100 + (uint64_t)i, 1);
        for (int64_t k = 0; input->shape.rank <= 1 && k < count; k++)
            ((float *)input->data)[k] = (float)(k * 3 % 5);
    }
}

/* A net of the text, with weights of its own and room for gradients of all that train. */
static struct trainer train_with(const char *text, const struct sac_op_options *ops)
{
    struct trainer t = {0};
    struct sac_error err = {0};

    assert_ok(sac_device_open(&t.device, "cpu", &err), err);
    assert_ok(t.device->table->store_new(t.device, &t.store, &err), err);
    assert_ok(t.device->table->stream_new(t.device, &t.stream, &err), err);
    assert_ok(sac_net_parse(&t.net, "train.prototxt", text, strlen(text),
                            &(struct sac_net_options){.phase = SAC_PHASE_TRAIN}, &err),
              err);
    t.param_count = sac_net_param_count(t.net);
    assert_true(t.param_count <= PARAMS_MAX);
    for (int i = 0; i < t.param_count; i++) {
        struct sac_net_param param;
        sac_net_param(t.net, i, &param);
        t.count[i] = param.count;
        t.weights[i] = param.data;
        fill(param.data, param.count, 7 + (uint64_t)i, .5f);
        if (param.lr_mult != 0)
            t.grads[i] = calloc((size_t)param.count, sizeof(float));
    }
    struct sac_plan_options options = {.ops = *ops, .weights = t.weights, .weight_grads = t.grads};
    assert_ok(sac_plan_new(&t.plan, t.net, t.device, t.store, t.stream, &options, &err), err);
    sac_plan_set_random(t.plan, 42, 3);
    fill_inputs(&t);
    return t;
}

static struct trainer train(const char *text, bool reference)
{
    return train_with(text, &(struct sac_op_options){.training = true, .reference = reference});
}

static void done(struct trainer *t)
{
    for (int i = 0; i < t->param_count; i++)
        free(t->grads[i]);
    sac_plan_free(t->plan);
    sac_net_free(t->net);
    t->device->table->stream_free(t->stream);
    t->device->table->store_free(t->store);
    sac_device_close(t->device);
}

static double loss_of(struct trainer *t)
{
    struct sac_error err = {0};
    double loss = 0;

    sac_plan_weights_changed(t->plan);
    assert_ok(sac_plan_forward(t->plan, &err), err);
    assert_ok(sac_plan_loss_sum(t->plan, &loss, &err), err);
    return loss;
}

static double go_back(struct trainer *t)
{
    struct sac_error err = {0};
    double loss = loss_of(t);

    for (int i = 0; i < t->param_count; i++)
        if (t->grads[i])
            memset(t->grads[i], 0, (size_t)t->count[i] * sizeof(float));
    assert_ok(sac_plan_backward(t->plan, &err), err);
    assert_ok(t->device->table->stream_sync(t->stream, &err), err);
    return loss;
}

static void check_param(struct trainer *t, int index)
{
    float *w = t->weights[index], *g = t->grads[index];
    int64_t count = t->count[index];
    const float step = 1.f / 512;
    double norm = 0;

    for (int64_t i = 0; i < count; i++)
        norm += (double)g[i] * g[i];
    norm = sqrt(norm);
    float *kept = malloc((size_t)count * sizeof *kept);
    memcpy(kept, w, (size_t)count * sizeof *kept);
    /* Along the gradient itself, where the loss says most, and across. */
    for (int k = 0; k < 3; k++) {
        double value[2], along = 0;
        for (int side = 0; side < 2; side++) {
            double sign = side ? -1 : 1;
            for (int64_t i = 0; i < count; i++) {
                double toward = k == 0 ? g[i] / norm : ((i * 2654435761 >> (7 + k)) % 2 ? 1 : -1);
                w[i] = (float)(kept[i] + sign * step * toward / (k ? sqrt((double)count) : 1));
            }
            value[side] = loss_of(t);
        }
        for (int64_t i = 0; i < count; i++) {
            double toward = k == 0 ? g[i] / norm : ((i * 2654435761 >> (7 + k)) % 2 ? 1 : -1);
            along += g[i] * toward / (k ? sqrt((double)count) : 1);
        }
        double found = (value[0] - value[1]) / (2 * (double)step);
        /* A loss between 1 and 2 is exact to 1.2e-7: over two steps, 3e-5 for each. */
        if (!(fabs(found - along) <= 1e-3 * norm + 2e-4))
            fail_msg("parameter %d, direction %d: backward says %g, differences %g (norm %g)",
                     index, k, along, found, norm);
    }
    memcpy(w, kept, (size_t)count * sizeof *kept);
    free(kept);
}

/* By loops and by fast kernels; every parameter that trains has a gradient. */
static void check_net(const char *text, int trained)
{
    for (int reference = 0; reference < 2; reference++) {
        struct trainer t = train(text, reference);
        int checked = 0;
        go_back(&t);
        for (int i = 0; i < t.param_count; i++) {
            if (!t.grads[i])
                continue;
            check_param(&t, i);
            checked++;
        }
        assert_int_equal(checked, trained);
        done(&t);
    }
}

static void a_plain_net_learns_as_differences_say(void **state)
{
    (void)state;
    check_net(INPUT CONV("c1", "data", "c1", "")
                  LAYER("p1", "Pooling", "c1", "p1",
                        "pooling_param { pool: MAX kernel_size: 3 stride: 2 }")
                      LAYER("n1", "LRN", "p1", "n1", "lrn_param { local_size: 3 alpha: .5 }")
                          CONV("c2", "n1", "c2", "") LAYER("r2", "TanH", "c2", "c2", "")
                              LAYER("p2", "Pooling", "c2", "p2",
                                    "pooling_param { pool: AVE kernel_size: 3 stride: 2 }")
                                  INNER("fc", "p2", "fc", "") LOSS("loss", "fc", ""),
              6);
}

/* The block's input goes two ways, and the sum of both goes on. */
static const char residual_net[] =
    INPUT CONV("c1", "data", "c1", "") LAYER("b1", "BatchNorm", "c1", "b1", "")
        LAYER("s1", "Scale", "b1", "s1", "scale_param { bias_term: true }")
            LAYER("r1", "Sigmoid", "s1", "s1", "") CONV("c2", "s1", "c2",
                                                        "") LAYER("b2", "BatchNorm", "c2", "c2", "")
                LAYER("s2", "Scale", "c2", "c2",
                      "scale_param { bias_term: true }") "layer { name: 'sum' type: 'Eltwise' "
                                                         "bottom: 's1' bottom: 'c2' top: 'sum' "
                                                         "}\n" LAYER("r2", "ReLU", "sum", "sum",
                                                                     "relu_param { negative_slope: "
                                                                     ".5 }")
                                                             LAYER("drop", "Dropout", "sum", "sum",
                                                                   "dropout_param { dropout_ratio: "
                                                                   ".3 }")
                                                                 INNER("fc", "sum", "fc", "")
                                                                     LOSS("loss", "fc", "");

static void a_residual_net_learns_as_differences_say(void **state)
{
    (void)state;
    check_net(residual_net, 10);
}

/* ‖g₁₆ − g‖ ≤ 3e-2 · ‖g‖ over all parameters, and 8e-2 for each but those whose gradient
 * is nothing but rounding (a bias before a batch norm): ‖g‖ < 1e-4. */
static void bf16_gives_the_gradients_of_f32(void **state)
{
    struct sac_op_options bf16 = {.precision = SAC_PRECISION_BF16, .training = true};
    struct trainer a = train(residual_net, false), b = train_with(residual_net, &bf16);
    double loss = go_back(&a), all = 0, all_apart = 0;

    (void)state;
    assert_float_equal(go_back(&b), loss, 2e-2 * loss);
    for (int i = 0; i < a.param_count; i++) {
        double norm = 0, apart = 0;
        for (int64_t k = 0; a.grads[i] && k < a.count[i]; k++) {
            double d = (double)a.grads[i][k] - b.grads[i][k];
            norm += (double)a.grads[i][k] * a.grads[i][k];
            apart += d * d;
        }
        all += norm;
        all_apart += apart;
        if (norm >= 1e-8 && !(sqrt(apart) <= 8e-2 * sqrt(norm)))
            fail_msg("parameter %d: %g of %g apart", i, sqrt(apart), sqrt(norm));
    }
    if (!(sqrt(all_apart) <= 3e-2 * sqrt(all)))
        fail_msg("%g of %g apart", sqrt(all_apart), sqrt(all));
    done(&a);
    done(&b);
}

/* The same numbers in the same order for any number of threads, but for oneDNN's sums. */
static void threads_change_gradients_by_rounding_alone(void **state)
{
    struct sac_op_options three = {.training = true, .threads = 3};
    struct trainer a = train(residual_net, false), b = train_with(residual_net, &three);
    double loss = go_back(&a);

    (void)state;
    assert_float_equal(go_back(&b), loss, 1e-6);
    for (int i = 0; i < a.param_count; i++)
        for (int64_t k = 0; a.grads[i] && k < a.count[i]; k++)
            assert_float_equal(a.grads[i][k], b.grads[i][k], 1e-5);
    done(&a);
    done(&b);
}

/* One filter and one bias for two layers, one after the other. */
static void shared_parameters_add_their_gradients_up(void **state)
{
    const char *shared = "param { name: 'w' } param { name: 'b' }";
    char text[2048];

    (void)state;
    snprintf(text, sizeof text,
             INPUT CONV("c0", "data", "c0", "") CONV("c1", "c0", "c1", "%s")
                 LAYER("t1", "TanH", "c1", "c1", "") CONV("c2", "c1", "c2", "%s")
                     INNER("fc", "c2", "fc", "") LOSS("loss", "fc", ""),
             shared, shared);
    check_net(text, 6);
}

static void several_losses_add_up_by_their_weights(void **state)
{
    (void)state;
    check_net(INPUT CONV("c1", "data", "c1", "") LAYER("t1", "TanH", "c1", "t1", "")
                  INNER("aux", "t1", "aux", "") LOSS("loss1", "aux", "loss_weight: .3")
                      CONV("c2", "t1", "c2", "") INNER("fc", "c2", "fc", "")
                          LOSS("loss2", "fc",
                               "") "layer { name: 'l3' type: 'EuclideanLoss' bottom: 'aux' bottom: "
                                   "'fc' loss_weight: .1 }\n"
                                   "layer { name: 'acc' type: 'Accuracy' bottom: 'fc' bottom: "
                                   "'label' top: 'acc' }\n"
                                   "layer { name: 'quiet' type: 'Silence' bottom: 'acc' }\n",
              8);
}

static void parts_of_a_concatenation_and_a_slice_learn(void **state)
{
    (void)state;
    check_net(INPUT CONV("c1", "data", "c1", "") CONV(
                  "c2", "data", "c2",
                  "") "layer { name: 'cat' type: 'Concat' bottom: 'c1' bottom: 'c2' bottom: 'data' "
                      "top: 'cat' }\n"
                      "layer { name: 'cut' type: 'Slice' bottom: 'cat' top: 'a' top: 'b' top: 'c' "
                      "slice_param { slice_point: 3 slice_point: 7 } }\n"
                      "layer { name: 'quiet' type: 'Silence' bottom: 'c' }\n"
                      "layer { name: 'flat' type: 'Flatten' bottom: 'b' top: 'flat' }\n" INNER(
                          "f1", "a", "f1", "")
                          INNER("f2", "flat", "f2",
                                "") "layer { name: 'mul' type: 'Eltwise' bottom: 'f1' bottom: 'f2' "
                                    "top: 'mul' "
                                    "eltwise_param { operation: PROD } }\n" LOSS("loss", "mul", ""),
              8);
}

/* What a plan's steps do on the way back shows in time, not in a table: here the
 * gradients that nobody asked for have no memory, and are not there. */
static void frozen_layers_get_no_gradients(void **state)
{
    const char *frozen = "param { lr_mult: 0 } param { lr_mult: 0 }";
    char text[2][2048];
    size_t bytes[2];

    (void)state;
    for (int i = 0; i < 2; i++) {
        snprintf(text[i], sizeof text[i],
                 INPUT CONV("c1", "data", "c1", "%s") LAYER("t1", "TanH", "c1", "c1", "")
                     CONV("c2", "c1", "c2", "%s") INNER("fc", "c2", "fc", "")
                         LOSS("loss", "fc", ""),
                 i ? frozen : "", i ? frozen : "");
        check_net(text[i], i ? 2 : 6);
        struct trainer t = train(text[i], false);
        bytes[i] = sac_plan_memory_bytes(t.plan);
        done(&t);
    }
    assert_true(bytes[1] < bytes[0]);
}

/* lr_mult 0 in the middle: the gradient goes through, none is made for the layer. */
static void gradients_pass_through_a_frozen_layer(void **state)
{
    (void)state;
    check_net(INPUT CONV("c1", "data", "c1", "") LAYER("t1", "TanH", "c1", "c1", "")
                  CONV("c2", "c1", "c2", "param { lr_mult: 0 } param { lr_mult: 1 }")
                      INNER("fc", "c2", "fc", "") LOSS("loss", "fc", ""),
              5);
}

static void propagate_down_cuts_a_gradient_off(void **state)
{
    struct trainer t =
        train(INPUT CONV("c1", "data", "c1", "") INNER("fc", "c1", "fc", "propagate_down: false")
                  LOSS("loss", "fc", ""),
              false);

    (void)state;
    go_back(&t);
    for (int64_t i = 0; i < t.count[0]; i++)
        assert_true(t.grads[0][i] == 0);
    double sum = 0;
    for (int64_t i = 0; i < t.count[2]; i++)
        sum += fabs(t.grads[2][i]);
    assert_true(sum > 0);
    check_param(&t, 2);
    done(&t);
}

static void gradients_are_added_to_what_is_there(void **state)
{
    struct trainer t = train(INPUT INNER("fc", "data", "fc", "") LOSS("loss", "fc", ""), false);
    struct sac_error err = {0};

    (void)state;
    go_back(&t);
    float once = t.grads[0][3];
    assert_ok(sac_plan_backward(t.plan, &err), err);
    assert_float_equal(t.grads[0][3], 2 * once, 1e-6);
    done(&t);
}

/* A new iteration draws another mask; the same one the same. */
static void dropout_draws_by_iteration(void **state)
{
    struct trainer t = train(INPUT LAYER("d", "Dropout", "data", "d", "") INNER("fc", "d", "fc", "")
                                 LOSS("loss", "fc", ""),
                             false);

    (void)state;
    double first = loss_of(&t), again = loss_of(&t);
    assert_true(first == again);
    sac_plan_set_random(t.plan, 42, 4);
    assert_true(loss_of(&t) != first);
    sac_plan_set_random(t.plan, 42, 3);
    assert_true(loss_of(&t) == first);
    done(&t);
}

/* Scores of zero: log 5 whatever the label, weighted .3. */
static void losses_can_be_read_by_name(void **state)
{
    struct trainer t =
        train(INPUT INNER("fc", "data", "fc", "") LOSS("loss", "fc", "loss_weight: .3"), false);
    struct sac_plan_loss loss;

    (void)state;
    memset(t.weights[0], 0, (size_t)t.count[0] * sizeof(float));
    memset(t.weights[1], 0, (size_t)t.count[1] * sizeof(float));
    assert_float_equal(loss_of(&t), .3 * log(5), 1e-6);
    assert_int_equal(sac_plan_loss_count(t.plan), 1);
    sac_plan_loss(t.plan, 0, &loss);
    assert_string_equal(loss.name, "loss");
    assert_float_equal(loss.weight, .3, 1e-6);
    assert_float_equal(*(float *)loss.value.data, log(5), 1e-6);
    assert_int_equal(sac_plan_output_count(t.plan), 1);
    done(&t);
}

/* Statistics are positive, then others. */
static void fill_statistics(struct trainer *t, float first, float step)
{
    for (int i = 2; i < 5 && t->param_count > 4; i++)
        for (int64_t k = 0; k < t->count[i]; k++)
            t->weights[i][k] = first + step * (float)k;
}

static double judged_loss(struct sac_plan *plan)
{
    struct sac_error err = {0};
    double loss = 0;

    sac_plan_weights_changed(plan);
    assert_ok(sac_plan_forward(plan, &err), err);
    assert_ok(sac_plan_loss_sum(plan, &loss, &err), err);
    return loss;
}

static void judge_as_masters_change(const char *text)
{
    struct trainer t = train(text, false);
    struct sac_plan_options options = {.judged = true, .weights = t.weights};
    struct sac_error err = {0};
    struct sac_plan *plan;

    fill_statistics(&t, 1, .25f);
    assert_ok(sac_plan_new(&plan, t.net, t.device, t.store, t.stream, &options, &err), err);
    for (int i = 0; i < 2; i++)
        memcpy(sac_plan_input(plan, i)->data, sac_plan_input(t.plan, i)->data,
               sac_tensor_bytes(&sac_plan_input(plan, i)->shape, SAC_F32));
    double before = judged_loss(plan);
    assert_float_equal(before, loss_of(&t), 1e-4);
    for (int i = 0; i < t.param_count; i++)
        fill(t.weights[i], t.count[i], 55 + (uint64_t)i, .25f);
    fill_statistics(&t, 2, -.25f);
    double after = judged_loss(plan);
    assert_true(fabs(after - before) > 1e-3);
    assert_float_equal(after, loss_of(&t), 1e-4);
    sac_plan_free(plan);
    done(&t);
}

/* The plan of the test phase follows the masters too, also where a plan whose weights stay
 * would have another kernel (Winograd's, of 64 channels). */
static void a_judged_plan_follows_the_masters(void **state)
{
    (void)state;
    judge_as_masters_change(INPUT CONV("c1", "data", "c1", "") LAYER(
        "b1", "BatchNorm", "c1", "b1", "batch_norm_param { use_global_stats: true }")
                                INNER("fc", "b1", "fc", "") LOSS("loss", "fc", ""));
    judge_as_masters_change(
        "layer { name: 'in' type: 'Input' top: 'data' top: 'label' input_param { "
        "shape { dim: 2 dim: 32 dim: 14 dim: 14 } shape { dim: 2 } } }\n"
        "layer { name: 'c1' type: 'Convolution' bottom: 'data' top: 'c1' "
        "convolution_param { num_output: 64 kernel_size: 3 pad: 1 } }\n" LAYER(
            "pool", "Pooling", "c1", "pool", "pooling_param { pool: MAX global_pooling: true }")
            INNER("fc", "pool", "fc", "") LOSS("loss", "fc", ""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_plain_net_learns_as_differences_say),
        cmocka_unit_test(a_residual_net_learns_as_differences_say),
        cmocka_unit_test(bf16_gives_the_gradients_of_f32),
        cmocka_unit_test(threads_change_gradients_by_rounding_alone),
        cmocka_unit_test(shared_parameters_add_their_gradients_up),
        cmocka_unit_test(several_losses_add_up_by_their_weights),
        cmocka_unit_test(parts_of_a_concatenation_and_a_slice_learn),
        cmocka_unit_test(frozen_layers_get_no_gradients),
        cmocka_unit_test(gradients_pass_through_a_frozen_layer),
        cmocka_unit_test(propagate_down_cuts_a_gradient_off),
        cmocka_unit_test(gradients_are_added_to_what_is_there),
        cmocka_unit_test(dropout_draws_by_iteration),
        cmocka_unit_test(losses_can_be_read_by_name),
        cmocka_unit_test(a_judged_plan_follows_the_masters),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
