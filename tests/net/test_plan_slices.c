/* Batches in slices: when, and that nobody sees it but the clock. */
#include "net/net_support.h"
#include "net/rig.h"

static struct rig rig;

static int open_rig(void **state)
{
    (void)state;
    rig = rig_open();
    return 0;
}

static int close_rig(void **state)
{
    (void)state;
    rig_close(&rig);
    return 0;
}

static struct sac_plan *plan_of(const struct sac_net *net, struct sac_plan_options options)
{
    struct sac_plan *plan = NULL;
    struct sac_error err = {0};

    assert_ok(sac_plan_new(&plan, net, rig.device, rig.store, rig.stream, &options, &err), err);
    return plan;
}

static int slices_of(const char *text, struct sac_plan_options options)
{
    struct sac_net *net = net_of(text);
    struct sac_plan *plan = plan_of(net, options);
    int slices = sac_plan_slices(plan);

    assert_int_equal(sac_plan_batch(plan), options.batch);
    assert_int_equal(sac_plan_input(plan, 0)->shape.dim[0], options.batch);
    assert_int_equal(sac_plan_output(plan, 0)->shape.dim[0], options.batch);
    sac_plan_free(plan);
    sac_net_free(net);
    return slices;
}

#define DATA "name: 'n' input: 'data' input_shape { dim: 6 dim: 4 dim: 12 dim: 12 }"
#define CONV                                                                                       \
    "layer { name: 'c' type: 'Convolution' bottom: 'data' top: 'c' convolution_param {"            \
    "  num_output: 8 kernel_size: 3 pad: 1 weight_filler { type: 'xavier' } } }"
#define POOL                                                                                       \
    "layer { name: 'p' type: 'Pooling' bottom: 'c' top: 'p' pooling_param {"                       \
    "  kernel_size: 3 stride: 2 } }"
#define INNER(n)                                                                                   \
    "layer { name: 'i' type: 'InnerProduct' bottom: 'p' top: 'i' inner_product_param {"            \
    "  num_output: " #n " weight_filler { type: 'xavier' } } }"

/* Numbers written for a picture: 8 · 12 · 12 by the convolution, 8 · 6 · 6 by the pool,
 * n by the inner product: 1,440 + n. Weights: 8 · 4 · 9 + 8, and 288 · n + n: 296 + 289 n. */
static void a_slice_reads_no_more_weights_than_it_writes(void **state)
{
    struct sac_plan_options six = {.batch = 6}, seven = {.batch = 7}, one = {.batch = 1};

    (void)state;
    assert_int_equal(slices_of(DATA CONV POOL, six), 6);
    assert_int_equal(slices_of(DATA CONV POOL INNER(3), six), 6);   /* 1,163 of 1,443 */
    assert_int_equal(slices_of(DATA CONV POOL INNER(5), six), 3);   /* 1,741 of 1,445: two */
    assert_int_equal(slices_of(DATA CONV POOL INNER(12), six), 2);  /* 3,764 of 1,452: three */
    assert_int_equal(slices_of(DATA CONV POOL INNER(18), six), 1);  /* 5,498: four, but six */
    assert_int_equal(slices_of(DATA CONV POOL INNER(100), six), 1); /* 29,196 of 1,540 */
    assert_int_equal(slices_of(DATA CONV POOL INNER(5), seven), 1); /* two do not divide it */
    assert_int_equal(slices_of(DATA CONV POOL, one), 1);
}

/* The same net as above, with a made-up cache: a slice of two writes and reads 4 · (576 +
 * 1,152) · 2 = 13,824 bytes in the convolution and 4 · (1,152 + 288) · 2 = 11,520 in the
 * pool, one of half as many. Two spare 4 · 1,741 / 2 = 3,482 bytes of weights a picture. */
static void a_slice_stays_in_the_cache(void **state)
{
    size_t cache = rig.device->info.cache_bytes;
    struct sac_plan_options six = {.batch = 6};

    (void)state;
    assert_true(cache > 0);
    rig.device->info.cache_bytes = 3 * 13824; /* all of a third: nothing spills */
    assert_int_equal(slices_of(DATA CONV POOL INNER(5), six), 3);
    rig.device->info.cache_bytes = 3 * 10000; /* 1,912 and 760 spill: 2.5 · 2,672 is more */
    assert_int_equal(slices_of(DATA CONV POOL INNER(5), six), 6);
    rig.device->info.cache_bytes = cache;
}

/* What makes a picture's result depend on others, or on how many there are. */
static void nets_that_mix_pictures_run_whole(void **state)
{
    static const char *const mixing[] = {
        "layer { name: 's' type: 'Softmax' bottom: 'c' top: 's' softmax_param { axis: 0 } }",
        "layer { name: 'b' type: 'BatchNorm' bottom: 'c' top: 'b'"
        "  batch_norm_param { use_global_stats: false } }",
    };
    static const char reshape[] =
        DATA CONV "layer { name: 'r' type: 'Reshape' bottom: 'c' top: 'r' reshape_param {"
                  "  shape { dim: 6 dim: -1 } } }";
    char text[2000];

    (void)state;
    for (size_t i = 0; i < sizeof mixing / sizeof *mixing; i++) {
        snprintf(text, sizeof text, "%s%s%s", DATA, CONV, mixing[i]);
        assert_int_equal(slices_of(text, (struct sac_plan_options){.batch = 6}), 1);
    }
    assert_int_equal(slices_of(reshape, (struct sac_plan_options){.batch = 6}), 1);
}

static void the_reference_and_several_threads_run_whole(void **state)
{
    (void)state;
    assert_int_equal(
        slices_of(DATA CONV, (struct sac_plan_options){.batch = 6, .ops.reference = true}), 1);
    assert_int_equal(slices_of(DATA CONV, (struct sac_plan_options){.batch = 6, .ops.threads = 2}),
                     1);
}

/* Picture by picture as a batch of one, to the bit; and twice on what was written once. */
static void each_picture_gets_what_it_gets_alone(void **state)
{
    static const char *const wanted[] = {"p", "i"};
    struct sac_net *net = net_of(DATA CONV POOL INNER(5));
    struct sac_plan_options options = {.batch = 6, .wanted = wanted, .wanted_count = 2};
    struct sac_plan *whole = plan_of(net, options), *one;
    int64_t count;

    (void)state;
    options.batch = 1;
    one = plan_of(net, options);
    assert_int_equal(sac_plan_slices(whole), 3);
    rig_run(&rig, whole, 7);
    rig_forward(&rig, whole);
    const float *input = sac_plan_input(whole, 0)->data;
    for (int picture = 0; picture < 6; picture++) {
        memcpy(sac_plan_input(one, 0)->data, input + (size_t)picture * 576, 576 * sizeof *input);
        rig_forward(&rig, one);
        for (int i = 0; i < 2; i++) {
            const float *expected = rig_output(one, i, &count);
            const float *got = (const float *)sac_plan_output(whole, i)->data + picture * count;
            assert_memory_equal(got, expected, (size_t)count * sizeof *got);
        }
    }
    sac_plan_free(one);
    sac_plan_free(whole);
    sac_net_free(net);
}

static void pixels_and_topk_are_those_of_the_batch(void **state)
{
    union sac_op_param pixels = {.pixels = {.scale = 0.01f, .swap = false}};
    struct sac_net *net = net_of("name: 'n' input: 'data' input_shape { dim: 6 dim: 3 dim: 12 "
                                 "dim: 12 }" CONV POOL INNER(5));
    struct sac_plan_options options = {.batch = 6, .pixels = &pixels, .topk = 2};
    struct sac_plan *whole = plan_of(net, options), *one;
    const size_t bytes = 12 * 12 * 3;

    (void)state;
    options.batch = 1;
    one = plan_of(net, options);
    assert_true(sac_plan_slices(whole) > 1);
    uint8_t *input = sac_plan_input(whole, 0)->data;
    for (size_t i = 0; i < 6 * bytes; i++)
        input[i] = (uint8_t)(i * i + 7 * i);
    rig_forward(&rig, whole);
    for (int picture = 0; picture < 6; picture++) {
        memcpy(sac_plan_input(one, 0)->data, input + (size_t)picture * bytes, bytes);
        rig_forward(&rig, one);
        assert_memory_equal((struct sac_topk_pair *)sac_plan_output(whole, 0)->data + 2 * picture,
                            sac_plan_output(one, 0)->data, 2 * sizeof(struct sac_topk_pair));
    }
    sac_plan_free(one);
    sac_plan_free(whole);
    sac_net_free(net);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_slice_reads_no_more_weights_than_it_writes),
        cmocka_unit_test(a_slice_stays_in_the_cache),
        cmocka_unit_test(nets_that_mix_pictures_run_whole),
        cmocka_unit_test(the_reference_and_several_threads_run_whole),
        cmocka_unit_test(each_picture_gets_what_it_gets_alone),
        cmocka_unit_test(pixels_and_topk_are_those_of_the_batch),
    };
    return cmocka_run_group_tests_name("plan_slices", tests, open_rig, close_rig);
}
