/* Well-known nets on a GPU, simulated or not, against the CPU device: random weights,
 * the scores before softmax. `test_cuda_nets all` takes the large ones too. */
#include "support/support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "device/cuda/card.h"
#include "net/make_graph.h"
#include "net/random_net.h"
#include "net/plan.h"

static const struct known {
    const char *path, *scores;
    bool large;
} nets[] = {
    {"nets/lenet/lenet.prototxt", "ip2", false},
    {"squeezenet_v1.1/deploy.prototxt", "pool10", false},
    {"nets/mobilenet/mobilenet_deploy.prototxt", "fc7", false},
    {"nets/bvlc_reference_caffenet/deploy.prototxt", "fc8", true},
    {"nets/bvlc_alexnet/deploy.prototxt", "fc8", true},
    {"nets/oxford102_alexnet/deploy.prototxt", "fc8_oxford_102", true},
    {"nets/bvlc_googlenet/deploy.prototxt", "loss3/classifier", true},
    {"nets/nin_imagenet/train_val.prototxt", "pool4", true},
    {"nets/resnet50/ResNet-50-deploy.prototxt", "fc1000", true},
    {"nets/vgg_cnn_s/VGG_CNN_S_deploy.prototxt", "fc8", true},
    {"nets/vgg16/VGG_ILSVRC_16_layers_deploy.prototxt", "fc8", true},
    {"nets/vgg19/VGG_ILSVRC_19_layers_deploy.prototxt", "fc8", true},
};
enum { NETS = sizeof nets / sizeof *nets };

static struct sac_device *cuda, *cpu;
static bool all;

static int open_devices(void **state)
{
    (void)state;
    cuda = card_open();
    return sac_device_open(&cpu, "cpu", NULL);
}

static int close_devices(void **state)
{
    (void)state;
    sac_device_close(cuda);
    sac_device_close(cpu);
    return 0;
}

static struct sac_net *load(const struct known *known)
{
    const struct sac_net_options options = {.phase = SAC_PHASE_TEST};
    struct sac_net *net = NULL;
    struct sac_error err = {0};

    assert_ok(sac_net_load(&net, sac_test_data(known->path), &options, &err), err);
    sac_random_net_fill(net, 7);
    return net;
}

static void copy(struct sac_device *device, struct sac_stream *stream, enum sac_copy way, void *to,
                 const void *from, size_t bytes)
{
    struct sac_error err = {0};

    assert_ok(device->table->copy(stream, way, to, from, bytes, &err), err);
    assert_ok(device->table->stream_sync(stream, &err), err);
}

static void *staging(struct sac_device *device, size_t bytes)
{
    struct sac_error err = {0};
    void *memory = NULL;

    assert_ok(device->table->memory_new(device, SAC_MEMORY_STAGING, bytes, &memory, &err), err);
    return memory;
}

static void feed(struct sac_device *device, struct sac_stream *stream, struct sac_plan *plan)
{
    for (int i = 0; i < sac_plan_input_count(plan); i++) {
        const struct sac_tensor *input = sac_plan_input(plan, i);
        size_t bytes = sac_tensor_bytes(&input->shape, SAC_F32);
        float *numbers = staging(device, bytes);
        make_floats(numbers, sac_shape_count(&input->shape), 3 + (uint64_t)i);
        copy(device, stream, SAC_COPY_TO_DEVICE, input->data, numbers, bytes);
        device->table->memory_free(device, SAC_MEMORY_STAGING, numbers);
    }
}

/* Twice: the second run of a recorded plan is another way. The caller frees it. */
static float *scores_of(const struct known *known, const struct sac_net *net,
                        struct sac_device *device, enum sac_precision precision, int64_t *ret_count)
{
    struct sac_plan_options options = {
        .batch = 2, .ops = {.precision = precision}, .wanted = &known->scores, .wanted_count = 1};
    struct sac_error err = {0};
    struct sac_store *store = NULL;
    struct sac_stream *stream = NULL;
    struct sac_plan *plan = NULL;

    assert_ok(device->table->store_new(device, &store, &err), err);
    assert_ok(device->table->stream_new(device, &stream, &err), err);
    assert_ok(sac_plan_new(&plan, net, device, store, stream, &options, &err), err);
    feed(device, stream, plan);
    for (int run = 0; run < (device == cuda && !known->large ? 2 : 1); run++)
        assert_ok(sac_plan_forward(plan, &err), err);
    const struct sac_tensor *output = sac_plan_output(plan, 0);
    size_t bytes = sac_tensor_bytes(&output->shape, SAC_F32);
    float *out = malloc(bytes), *host = staging(device, bytes);
    assert_non_null(out);
    copy(device, stream, SAC_COPY_TO_HOST, host, output->data, bytes);
    memcpy(out, host, bytes);
    *ret_count = sac_shape_count(&output->shape);
    device->table->memory_free(device, SAC_MEMORY_STAGING, host);
    sac_plan_free(plan);
    device->table->stream_free(stream);
    device->table->store_free(store);
    return out;
}

/* ‖x − y‖ / ‖y‖ */
static double distance(const float *x, const float *y, int64_t count)
{
    double apart = 0, size = 0;

    for (int64_t i = 0; i < count; i++) {
        apart += ((double)x[i] - y[i]) * ((double)x[i] - y[i]);
        size += (double)y[i] * y[i];
    }
    return sqrt(apart / size);
}

static void agree(enum sac_precision precision, double tolerance)
{
    if (!card_does(cuda, precision))
        skip();
    for (int i = 0; i < NETS; i++) {
        int64_t count, other;
        if (nets[i].large && !all)
            continue;
        struct sac_net *net = load(&nets[i]);
        float *expected = scores_of(&nets[i], net, cpu, SAC_PRECISION_F32, &count);
        float *got = scores_of(&nets[i], net, cuda, precision, &other);
        assert_int_equal(count, other);
        double apart = distance(got, expected, count);
        print_message("# %s, %s: %.2g apart\n", nets[i].path, sac_precision_name(precision), apart);
        if (!(apart <= tolerance)) /* NaN too */
            fail_msg("%s in %s: the scores are %g apart, at most %g", nets[i].path,
                     sac_precision_name(precision), apart, tolerance);
        free(expected);
        free(got);
        sac_net_free(net);
    }
}

static void the_nets_agree_with_the_cpu_in_f32(void **state)
{
    (void)state;
    agree(SAC_PRECISION_F32, 1e-4);
}

static void the_nets_agree_with_the_cpu_in_tf32(void **state)
{
    (void)state;
    agree(SAC_PRECISION_TF32, 1e-2);
}

static void the_nets_agree_with_the_cpu_in_f16(void **state)
{
    (void)state;
    agree(SAC_PRECISION_F16, 1e-2);
}

static void the_nets_agree_with_the_cpu_in_bf16(void **state)
{
    (void)state;
    agree(SAC_PRECISION_BF16, 5e-2);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_nets_agree_with_the_cpu_in_f32),
        cmocka_unit_test(the_nets_agree_with_the_cpu_in_tf32),
        cmocka_unit_test(the_nets_agree_with_the_cpu_in_f16),
        cmocka_unit_test(the_nets_agree_with_the_cpu_in_bf16),
    };

    all = argc > 1 && strcmp(argv[1], "all") == 0;
    card_or_skip();
    return cmocka_run_group_tests(tests, open_devices, close_devices);
}
