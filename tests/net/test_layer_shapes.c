/*
 * Each layer's shapes and fields, by table. Expected shapes follow from the formula
 * in the layer's file, which are Caffe's; worked out by hand.
 */
#include "net_support.h"

struct shape_case {
    const char *in;    /* prototxt dims of "x", and of "y" behind a | */
    const char *layer; /* without name and bottoms */
    const char *out;   /* of the tops a, b, c */
    const char *weights;
};

static void add_input(char *text, size_t size, const char *name, const char *dims, size_t length)
{
    size_t at = strlen(text);

    at += (size_t)snprintf(text + at, size - at,
                           "layer { name: \"%s\" type: \"Input\" top: \"%s\" "
                           "input_param { shape { ",
                           name, name);
    while (length > 0) {
        size_t digits = strcspn(dims, "x|");
        digits = digits < length ? digits : length;
        at += (size_t)snprintf(text + at, size - at, "dim: %.*s ", (int)digits, dims);
        dims += digits < length ? digits + 1 : digits;
        length -= digits < length ? digits + 1 : digits;
    }
    snprintf(text + at, size - at, "} } }\n");
}

/* Inputs x and y, and one layer "it" over those that there are. */
static void write_net(char *text, size_t size, const struct shape_case *one)
{
    const char *bar = strchr(one->in, '|');
    size_t at;

    text[0] = 0;
    add_input(text, size, "x", one->in, bar ? (size_t)(bar - one->in) : strlen(one->in));
    if (bar)
        add_input(text, size, "y", bar + 1, strlen(bar + 1));
    at = strlen(text);
    snprintf(text + at, size - at, "layer { name: \"it\" bottom: \"x\" %s%s }\n",
             bar ? "bottom: \"y\" " : "", one->layer);
}

static void append_shape(char *text, size_t size, const struct sac_shape *shape)
{
    for (int i = 0; i < shape->rank; i++) {
        size_t at = strlen(text);
        snprintf(text + at, size - at, "%s%lld", i ? "x" : "", (long long)shape->dim[i]);
    }
}

static const struct sac_layer *layer_it(const struct sac_net *net)
{
    return sac_net_layer(net, sac_net_layer_count(net) - 1);
}

static void check_tops(const struct sac_net *net, const struct shape_case *one)
{
    static const char *const names[] = {"a", "b", "c"};
    struct sac_shape shape;
    char text[256] = "";

    for (int i = 0; i < 3 && sac_net_blob_shape(net, names[i], &shape); i++) {
        if (i > 0)
            strcat(text, " ");
        append_shape(text, sizeof text, &shape);
    }
    if (strcmp(text, one->out) != 0)
        fail_msg("%s over %s gives \"%s\" and not \"%s\"", one->layer, one->in, text, one->out);
}

static void check_weights(const struct sac_net *net, const struct shape_case *one)
{
    const struct sac_layer *layer = layer_it(net);
    struct sac_shape shape;
    char text[256] = "";

    for (int i = 0; i < sac_layer_weight_count(layer); i++) {
        if (i > 0)
            strcat(text, " ");
        sac_layer_weight(layer, i, &shape);
        append_shape(text, sizeof text, &shape);
    }
    if (strcmp(text, one->weights ? one->weights : "") != 0)
        fail_msg("%s over %s has weights \"%s\" and not \"%s\"", one->layer, one->in, text,
                 one->weights ? one->weights : "");
}

static void check_case(const struct shape_case *one)
{
    char text[2048];
    struct sac_net *net = NULL;
    struct sac_error err = {0};

    write_net(text, sizeof text, one);
    if (parse_net(&net, text, &err) != 0)
        fail_msg("%s over %s: %s", one->layer, one->in, err.text);
    check_tops(net, one);
    check_weights(net, one);
    sac_net_free(net);
}

static void check_cases(const struct shape_case *cases, size_t count)
{
    for (size_t i = 0; i < count; i++)
        check_case(&cases[i]);
}
#define CHECK_CASES(cases) check_cases(cases, sizeof(cases) / sizeof *(cases))

struct refusal {
    const char *in, *layer;
    int code;
    const char *says;
};

static void check_refusals(const struct refusal *cases, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct shape_case one = {cases[i].in, cases[i].layer};
        char text[2048];
        write_net(text, sizeof text, &one);
        assert_refused(text, cases[i].code, "test.prototxt: layer \"it\" (", cases[i].says);
    }
}
#define CHECK_REFUSALS(cases) check_refusals(cases, sizeof(cases) / sizeof *(cases))

#define CONV "type: \"Convolution\" top: \"a\" convolution_param "
#define DECONV "type: \"Deconvolution\" top: \"a\" convolution_param "
#define POOL "type: \"Pooling\" top: \"a\" pooling_param "

static void convolution_rounds_down(void **state)
{
    static const struct shape_case cases[] = {
        {"2x3x227x227", CONV "{ num_output: 96 kernel_size: 11 stride: 4 }", "2x96x55x55",
         "96x3x11x11 96"},
        {"1x3x224x224", CONV "{ num_output: 96 kernel_size: 7 stride: 2 }", "1x96x109x109",
         "96x3x7x7 96"},
        {"1x4x9x9", CONV "{ num_output: 6 kernel_size: 3 pad: 1 group: 2 bias_term: false }",
         "1x6x9x9", "6x2x3x3"},
        {"1x8x9x9", CONV "{ num_output: 8 kernel_size: 3 group: 8 }", "1x8x7x7", "8x1x3x3 8"},
        /* extent 2·(3−1)+1 = 5 */
        {"1x1x9x9", CONV "{ num_output: 1 kernel_size: 3 dilation: 2 }", "1x1x5x5", "1x1x3x3 1"},
        {"2x6x75x113",
         CONV "{ num_output: 12 group: 3 pad_h: 0 pad_w: 1 kernel_h: 4 kernel_w: 5 "
              "stride_h: 2 stride_w: 3 }",
         "2x12x36x37", "12x2x4x5 12"},
        {"1x1x9x7",
         CONV "{ num_output: 1 kernel_size: 3 kernel_size: 5 stride: 2 stride: 1 pad: 0 "
              "pad: 2 dilation: 1 dilation: 1 }",
         "1x1x4x7", "1x1x3x5 1"},
        {"1x1x9x7", CONV "{ num_output: 1 kernel_size: 1 axis: -3 }", "1x1x9x7", "1x1x1x1 1"},
        {"1x2x5x5|1x2x5x5", CONV "{ num_output: 3 kernel_size: 3 } top: \"b\"", "1x3x3x3 1x3x3x3",
         "3x2x3x3 3"},
        /* 2·(4−1) + 3 − 2·1 = 7 */
        {"1x4x4x4", DECONV "{ num_output: 6 kernel_size: 3 stride: 2 pad: 1 group: 2 }", "1x6x7x7",
         "4x3x3x3 6"},
        {"1x21x10x10", DECONV "{ num_output: 21 kernel_size: 64 stride: 32 bias_term: false }",
         "1x21x352x352", "21x21x64x64"},
    };

    (void)state;
    CHECK_CASES(cases);
}

static void convolutions_that_cannot_be_are_refused(void **state)
{
    static const struct refusal cases[] = {
        {"1x3x9x9", CONV "{ kernel_size: 3 }", SAC_EFORMAT, "num_output has to be at least 1"},
        {"1x3x9x9", CONV "{ num_output: 2 }", SAC_EFORMAT, "kernel_size has to be at least 1"},
        {"1x3x9x9", CONV "{ num_output: 2 kernel_size: 0 }", SAC_EFORMAT, "kernel_size"},
        {"1x3x9x9", CONV "{ num_output: 2 kernel_size: 3 stride: 0 }", SAC_EFORMAT,
         "stride has to be at least 1, and is 0"},
        {"1x3x9x9", CONV "{ num_output: 2 kernel_size: 3 dilation: 0 }", SAC_EFORMAT,
         "dilation has to be at least 1"},
        {"1x3x9x9", CONV "{ num_output: 2 kernel_size: 3 group: 0 }", SAC_EFORMAT,
         "group has to be at least 1"},
        {"1x3x9x9", CONV "{ num_output: 3 kernel_size: 3 group: 2 }", SAC_EFORMAT,
         "num_output 3 is not a multiple of group 2"},
        {"1x3x9x9", CONV "{ num_output: 2 kernel_size: 3 group: 2 }", SAC_EFORMAT,
         "3 channels are no multiple of group 2"},
        {"1x3x9x9", CONV "{ num_output: 2 kernel_size: 11 }", SAC_EFORMAT,
         "does not fit a bottom of 9 × 9"},
        {"1x3x9x9", CONV "{ num_output: 2 kernel_size: 4294967295 }", SAC_ELIMIT, "the most is"},
        {"1x3x9x9", CONV "{ num_output: 2 kernel_size: 3 kernel_h: 3 kernel_w: 3 }", SAC_EFORMAT,
         "both once and as kernel_size_h"},
        {"1x3x9x9", CONV "{ num_output: 2 kernel_h: 3 }", SAC_EFORMAT, "kernel_size"},
        {"1x3x9x9x9", CONV "{ num_output: 2 kernel_size: 3 }", SAC_EUNSUPPORTED,
         "only two-dimensional"},
        {"1x3x9", CONV "{ num_output: 2 kernel_size: 3 }", SAC_EUNSUPPORTED,
         "only two-dimensional"},
        {"1x3x9x9", CONV "{ num_output: 2 kernel_size: 3 kernel_size: 3 kernel_size: 3 }",
         SAC_EUNSUPPORTED, "only two axes"},
        {"1x3x9x9", CONV "{ num_output: 2 kernel_size: 3 axis: 0 }", SAC_EUNSUPPORTED,
         "the channels are axis 0"},
        {"1x3x9x9", CONV "{ num_output: 2 kernel_size: 3 axis: 9 }", SAC_EFORMAT,
         "axis 9 is outside"},
        {"1x3x9x9|1x3x9x8", CONV "{ num_output: 2 kernel_size: 3 } top: \"b\"", SAC_EFORMAT,
         "differ in shape"},
        {"1x3x9x9|1x3x9x9", CONV "{ num_output: 2 kernel_size: 3 }", SAC_EFORMAT,
         "as many tops as bottoms, and has 1 and 2"},
        {"1x1000000x1x1", CONV "{ num_output: 1000000 kernel_size: 1 }", SAC_ELIMIT,
         "weight 0 is 1000000 × 1000000 × 1 × 1"},
        {"1x1x40000x40000", CONV "{ num_output: 2 kernel_size: 1 }", SAC_ELIMIT,
         "top a is 1 × 2 × 40000 × 40000"},
        {"1x1x1x1", DECONV "{ num_output: 1 kernel_size: 1 pad: 1 }", SAC_EFORMAT, "does not fit"},
    };

    (void)state;
    CHECK_REFUSALS(cases);
}

static void pooling_rounds_up(void **state)
{
    static const struct shape_case cases[] = {
        {"1x2x112x112", POOL "{ kernel_size: 3 stride: 2 }", "1x2x56x56"},
        {"1x2x113x113", POOL "{ kernel_size: 3 stride: 2 }", "1x2x56x56"},
        {"1x2x112x112", POOL "{ kernel_size: 3 stride: 2 round_mode: FLOOR }", "1x2x55x55"},
        {"1x2x32x32", POOL "{ pool: AVE kernel_size: 3 stride: 2 }", "1x2x16x16"},
        {"1x2x109x17", POOL "{ kernel_size: 3 stride: 3 }", "1x2x37x6"},
        /* ⌈(7+2−2)/2⌉+1 = 5, and window 5 would start at 8 = 7 + 1: one less */
        {"1x2x7x7", POOL "{ kernel_size: 2 stride: 2 pad: 1 }", "1x2x4x4"},
        {"2x6x75x113", POOL "{ pad_h: 2 pad_w: 1 kernel_h: 3 kernel_w: 5 stride_h: 2 stride_w: 1 }",
         "2x6x39x111"},
        {"1x2x7x9", POOL "{ pool: AVE global_pooling: true }", "1x2x1x1"},
        {"1x2x6x6", POOL "{ kernel_size: 6 }", "1x2x1x1"},
        /* Overhangs: ⌈(6−7)/7⌉+1 = 1 */
        {"1x2x6x6", POOL "{ kernel_size: 7 stride: 7 }", "1x2x1x1"},
    };

    (void)state;
    CHECK_CASES(cases);
}

static void poolings_that_cannot_be_are_refused(void **state)
{
    static const struct refusal cases[] = {
        {"1x2x9x9", POOL "{ }", SAC_EFORMAT, "kernel_size, or as kernel_h and kernel_w"},
        {"1x2x9x9", POOL "{ kernel_h: 2 }", SAC_EFORMAT, "kernel_h and kernel_w"},
        {"1x2x9x9", POOL "{ kernel_size: 2 kernel_h: 2 }", SAC_EFORMAT, "beside kernel_h"},
        {"1x2x9x9", POOL "{ kernel_size: 0 }", SAC_EFORMAT, "the kernel has to be 1 to"},
        {"1x2x9x9", POOL "{ kernel_size: 2 stride: 0 }", SAC_EFORMAT, "the stride has to be 1"},
        {"1x2x9x9", POOL "{ kernel_size: 2 pad: 2 }", SAC_EFORMAT, "less than the kernel"},
        {"1x2x9x9", POOL "{ kernel_size: 2 pad_h: 1 }", SAC_EFORMAT, "pad_h and pad_w"},
        {"1x2x9x9", POOL "{ kernel_size: 2 stride: 1 stride_h: 1 stride_w: 1 }", SAC_EFORMAT,
         "stride_h and stride_w"},
        {"1x2x9x9", POOL "{ global_pooling: true kernel_size: 2 }", SAC_EFORMAT,
         "takes no kernel size"},
        {"1x2x9x9", POOL "{ global_pooling: true stride: 2 }", SAC_EFORMAT, "stride 1 only"},
        {"1x2x9x9", POOL "{ kernel_size: 11 }", SAC_EFORMAT, "kernel of 11 does not fit"},
        {"1x2x6x6", POOL "{ kernel_size: 1 stride: 2 }", SAC_EUNSUPPORTED, "outside a bottom of 6"},
        {"1x2x9", POOL "{ kernel_size: 2 }", SAC_EUNSUPPORTED, "4 axes"},
        {"1x2x9x9", POOL "{ pool: STOCHASTIC kernel_size: 2 }", SAC_EUNSUPPORTED, "STOCHASTIC"},
        {"1x2x9x9", POOL "{ kernel_size: 2 } top: \"b\"", SAC_EUNSUPPORTED, "mask"},
    };

    (void)state;
    CHECK_REFUSALS(cases);
}

static void layers_that_keep_shapes(void **state)
{
    static const struct shape_case cases[] = {
        {"1x2x3x4", "type: \"ReLU\" top: \"a\"", "1x2x3x4"},
        {"1x2", "type: \"PReLU\" top: \"a\"", "1x2", "2"},
        {"1x2x3x4", "type: \"PReLU\" top: \"a\" prelu_param { channel_shared: true }", "1x2x3x4"},
        {"5", "type: \"Sigmoid\" top: \"a\"", "5"},
        {"1x2x3", "type: \"TanH\" top: \"a\"", "1x2x3"},
        {"1x2x3", "type: \"ELU\" top: \"a\"", "1x2x3"},
        {"1x2x3", "type: \"Power\" top: \"a\" power_param { power: 2 }", "1x2x3"},
        {"1x2x3", "type: \"Dropout\" top: \"a\" dropout_param { dropout_ratio: .4 }", "1x2x3"},
        {"1x2x3x4", "type: \"LRN\" top: \"a\"", "1x2x3x4"},
        {"1x2x3x4", "type: \"Softmax\" top: \"a\" softmax_param { axis: -1 }", "1x2x3x4"},
        {"1x2x3x4", "type: \"Split\" top: \"a\" top: \"b\" top: \"c\"", "1x2x3x4 1x2x3x4 1x2x3x4"},
        {"1x6x3", "type: \"BatchNorm\" top: \"a\"", "1x6x3", "6 6 1"},
        {"2x3|2x3", "type: \"Eltwise\" top: \"a\" eltwise_param { coeff: 1 coeff: -1 }", "2x3"},
        {"2x3|2x3", "type: \"Eltwise\" top: \"a\" eltwise_param { operation: PROD }", "2x3"},
    };
    static const struct refusal refusals[] = {
        {"7", "type: \"PReLU\" top: \"a\"", SAC_EFORMAT, "at least 2 axes, and has 1"},
        {"7", "type: \"BatchNorm\" top: \"a\"", SAC_EUNSUPPORTED, "at least 2 axes, and has 1"},
        {"1x2", "type: \"BatchNorm\" top: \"a\" batch_norm_param { scale_bias: true }",
         SAC_EUNSUPPORTED, "scale_bias"},
        {"1x2x3x4", "type: \"LRN\" top: \"a\" lrn_param { local_size: 4 }", SAC_EFORMAT, "odd"},
        {"1x2", "type: \"LRN\" top: \"a\"", SAC_EUNSUPPORTED, "4 axes, and is 1 × 2"},
        {"1x2", "type: \"Dropout\" top: \"a\" dropout_param { dropout_ratio: 1 }", SAC_EFORMAT,
         "dropout_ratio"},
        {"1x2", "type: \"Softmax\" top: \"a\" softmax_param { axis: 2 }", SAC_EFORMAT,
         "axis 2 is outside -2 to 1"},
        {"2x3|2x4", "type: \"Eltwise\" top: \"a\"", SAC_EFORMAT, "bottom 1 is 2 × 4"},
        {"2x3|2x3", "type: \"Eltwise\" top: \"a\" eltwise_param { coeff: 1 }", SAC_EFORMAT,
         "2 bottoms need 2 coefficients, and there are 1"},
        {"2x3|2x3",
         "type: \"Eltwise\" top: \"a\" eltwise_param { operation: PROD coeff: 1 coeff: 1 }",
         SAC_EFORMAT, "only a sum"},
        {"2x3", "type: \"Eltwise\" top: \"a\"", SAC_EFORMAT, "2 to 1024 bottoms, and has 1"},
        {"2x3|2x3", "type: \"ReLU\" top: \"a\"", SAC_EFORMAT, "takes 1 bottom, and has 2"},
        {"2x3", "type: \"ReLU\"", SAC_EFORMAT, "takes 1 top, and has 0"},
    };

    (void)state;
    CHECK_CASES(cases);
    CHECK_REFUSALS(refusals);
}

#define INNER "type: \"InnerProduct\" top: \"a\" inner_product_param "

static void inner_products_flatten_from_their_axis(void **state)
{
    static const struct shape_case cases[] = {
        {"2x3x4x5", INNER "{ num_output: 7 }", "2x7", "7x60 7"},
        {"2x3x4x5", INNER "{ num_output: 7 axis: 3 }", "2x3x4x7", "7x5 7"},
        {"2x3x4x5", INNER "{ num_output: 7 axis: -2 bias_term: false }", "2x3x7", "7x20"},
        {"2x3x4x5", INNER "{ num_output: 7 transpose: true }", "2x7", "60x7 7"},
        {"2x3", INNER "{ num_output: 7 axis: 0 }", "7", "7x6 7"},
    };
    static const struct refusal refusals[] = {
        {"2x3", INNER "{ }", SAC_EFORMAT, "num_output has to be at least 1"},
        {"2x3", INNER "{ num_output: 7 axis: 2 }", SAC_EFORMAT, "axis 2 is outside -2 to 1"},
        {"1x60000x1", INNER "{ num_output: 60000 }", SAC_ELIMIT, "weight 0 is 60000 × 60000"},
    };

    (void)state;
    CHECK_CASES(cases);
    CHECK_REFUSALS(refusals);
}

#define CONCAT "type: \"Concat\" top: \"a\" concat_param "
#define SLICE "type: \"Slice\" top: \"a\" top: \"b\" top: \"c\" slice_param "

static void concat_joins_and_slice_cuts(void **state)
{
    static const struct shape_case cases[] = {
        {"2x3x4|2x5x4", "type: \"Concat\" top: \"a\"", "2x8x4"},
        {"2x3x4|7x3x4", CONCAT "{ axis: 0 }", "9x3x4"},
        {"2x3x4|2x3x1", CONCAT "{ axis: -1 }", "2x3x5"},
        {"2x3x4|2x3x1", CONCAT "{ concat_dim: 2 }", "2x3x5"},
        {"2x3x4", CONCAT "{ axis: 1 }", "2x3x4"},
        {"2x6", "type: \"Slice\" top: \"a\" top: \"b\"", "2x3 2x3"},
        {"2x6", SLICE "{ slice_point: 1 slice_point: 5 }", "2x1 2x4 2x1"},
        {"6x2", SLICE "{ axis: -2 }", "2x2 2x2 2x2"},
        {"6x2", SLICE "{ slice_dim: 0 slice_point: 3 slice_point: 4 }", "3x2 1x2 2x2"},
    };
    static const struct refusal refusals[] = {
        {"2x3x4|2x5x5", "type: \"Concat\" top: \"a\"", SAC_EFORMAT, "bottom 1 is 2 × 5 × 5"},
        {"2x3x4|2x5", "type: \"Concat\" top: \"a\"", SAC_EFORMAT, "cannot be joined"},
        {"2x3|2x3", CONCAT "{ axis: 1 concat_dim: 1 }", SAC_EFORMAT, "both given"},
        {"2x3|2x3", CONCAT "{ concat_dim: 4000000000 }", SAC_EFORMAT, "concat_dim"},
        {"2x3|2x3", CONCAT "{ axis: -3 }", SAC_EFORMAT, "axis -3 is outside"},
        {"2x7", SLICE "{ }", SAC_EFORMAT, "axis 1 has 7, which 3 tops do not divide"},
        {"2x7", SLICE "{ slice_point: 3 }", SAC_EFORMAT, "3 tops need 2 slice points"},
        {"2x7", SLICE "{ slice_point: 3 slice_point: 3 }", SAC_EFORMAT, "3 follows 3"},
        {"2x7", SLICE "{ slice_point: 3 slice_point: 7 }", SAC_EFORMAT, "7 follows 7"},
        {"2x7", SLICE "{ slice_point: 3 slice_point: 4294967295 }", SAC_EFORMAT, "rise"},
        {"2x7", SLICE "{ slice_point: 0 slice_point: 3 }", SAC_EFORMAT, "rise"},
        {"2x2", SLICE "{ axis: 0 }", SAC_EFORMAT, "do not divide"},
    };

    (void)state;
    CHECK_CASES(cases);
    CHECK_REFUSALS(refusals);
}

#define RESHAPE "type: \"Reshape\" top: \"a\" reshape_param "
#define FLATTEN "type: \"Flatten\" top: \"a\" flatten_param "

static void reshape_and_flatten(void **state)
{
    static const struct shape_case cases[] = {
        /* The examples of Caffe's documentation. */
        {"2x8", RESHAPE "{ shape { dim: 2 dim: 2 dim: 4 } }", "2x2x4"},
        {"2x8", RESHAPE "{ shape { dim: 0 dim: 2 dim: 4 } }", "2x2x4"},
        {"2x8", RESHAPE "{ shape { dim: 0 dim: 2 dim: -1 } }", "2x2x4"},
        {"2x8", RESHAPE "{ shape { dim: 0 dim: -1 dim: 4 } }", "2x2x4"},
        {"2x8", RESHAPE "{ shape { dim: 2 dim: 4 } axis: 1 }", "2x2x4"},
        {"2x8", RESHAPE "{ shape { dim: 2 dim: 4 } axis: -2 }", "2x2x4"},
        {"3x2x8", RESHAPE "{ shape { dim: 4 dim: 4 } axis: 1 num_axes: 2 }", "3x4x4"},
        {"3x2x8", RESHAPE "{ shape { dim: 1 } axis: 1 num_axes: 0 }", "3x1x2x8"},
        {"3x2x8", RESHAPE "{ shape { dim: 1 } axis: -1 num_axes: 0 }", "3x2x8x1"},
        {"1", RESHAPE "{ shape { } }", ""},
        {"2x3x4x5", "type: \"Flatten\" top: \"a\"", "2x60"},
        {"2x3x4x5", FLATTEN "{ axis: 2 }", "2x3x20"},
        {"2x3x4x5", FLATTEN "{ axis: 0 end_axis: -3 }", "6x4x5"},
    };
    static const struct refusal refusals[] = {
        {"2x8", RESHAPE "{ shape { dim: 3 dim: -1 } }", SAC_EFORMAT, "the counts differ"},
        {"2x8", RESHAPE "{ shape { dim: 5 } }", SAC_EFORMAT, "2 × 8 cannot become 5"},
        {"2x8", RESHAPE "{ shape { dim: -1 dim: -1 } }", SAC_EFORMAT, "only one dimension"},
        {"2x8", RESHAPE "{ shape { dim: -2 } }", SAC_EFORMAT, "dimension -2"},
        {"2x8", RESHAPE "{ shape { dim: 2 dim: 8 dim: 0 } }", SAC_EFORMAT, "copies axis 2"},
        {"2x8", RESHAPE "{ shape { dim: 2 dim: 8 } axis: 4 }", SAC_EFORMAT, "axis 4"},
        {"2x8", RESHAPE "{ shape { dim: 2 } num_axes: 3 }", SAC_EFORMAT, "3 axes from axis 0"},
        {"2x8", RESHAPE "{ num_axes: -2 }", SAC_EFORMAT, "num_axes"},
        {"2x8", RESHAPE "{ shape { dim: 9223372036854775807 dim: 9223372036854775807 dim: -1 } }",
         SAC_EFORMAT, "dimension 9223372036854775807"},
        {"2x8", RESHAPE "{ shape { dim: 2000000000 dim: 2000000000 dim: 2000000000 dim: -1 } }",
         SAC_EFORMAT, "cannot become"},
        {"2x8",
         RESHAPE "{ shape { dim: 1 dim: 1 dim: 1 dim: 1 dim: 1 dim: 1 dim: 1 dim: 16 dim: 1 } }",
         SAC_ELIMIT, "9 axes"},
        {"2x8",
         RESHAPE "{ axis: 1 num_axes: 0 shape { dim: 1 dim: 1 dim: 1 dim: 1 dim: 1 dim: 1 "
                 "dim: 1 } }",
         SAC_ELIMIT, "over 8 axes"},
        {"2x8", FLATTEN "{ axis: 1 end_axis: 0 }", SAC_EFORMAT, "end_axis 0 is before axis 1"},
        {"2x8", FLATTEN "{ axis: 2 }", SAC_EFORMAT, "axis 2 is outside"},
    };

    (void)state;
    CHECK_CASES(cases);
    CHECK_REFUSALS(refusals);
}

#define SCALE "type: \"Scale\" top: \"a\" scale_param "
#define BIAS "type: \"Bias\" top: \"a\" bias_param "

static void scale_and_bias_cover_some_axes(void **state)
{
    static const struct shape_case cases[] = {
        {"2x3x4x5", "type: \"Scale\" top: \"a\"", "2x3x4x5", "3"},
        {"2x3x4x5", SCALE "{ bias_term: true }", "2x3x4x5", "3 3"},
        {"2x3x4x5", SCALE "{ axis: 1 num_axes: -1 }", "2x3x4x5", "3x4x5"},
        {"2x3x4x5", SCALE "{ axis: -2 num_axes: 2 }", "2x3x4x5", "4x5"},
        {"2x3x4x5", SCALE "{ num_axes: 0 }", "2x3x4x5", ""},
        {"2x3x4x5|3x4", "type: \"Scale\" top: \"a\"", "2x3x4x5"},
        {"2x3x4x5|3", SCALE "{ bias_term: true }", "2x3x4x5", "3"},
        {"2x3x4x5|2x3", SCALE "{ axis: 0 }", "2x3x4x5"},
        {"2x3x4x5", "type: \"Bias\" top: \"a\"", "2x3x4x5", "3"},
        {"2x3x4x5|5", BIAS "{ axis: -1 }", "2x3x4x5"},
    };
    static const struct refusal refusals[] = {
        {"2x3", SCALE "{ num_axes: 2 }", SAC_EFORMAT, "2 axes from axis 1 is more than"},
        {"2x3", SCALE "{ num_axes: -2 }", SAC_EFORMAT, "num_axes has to be at least -1"},
        {"2x3", SCALE "{ axis: 2 }", SAC_EFORMAT, "axis 2 is outside"},
        {"2x3x4|4", "type: \"Scale\" top: \"a\"", SAC_EFORMAT, "bottom 1 is 4, and has to be 3"},
        {"2x3x4|3x4x5", "type: \"Bias\" top: \"a\"", SAC_EFORMAT, "more than the bottom's 3 axes"},
    };

    (void)state;
    CHECK_CASES(cases);
    CHECK_REFUSALS(refusals);
}

static void losses_have_shapes(void **state)
{
    static const struct shape_case cases[] = {
        {"4x10|4", "type: \"SoftmaxWithLoss\" top: \"a\" top: \"b\"", " 4x10"},
        {"4x10x2x2|4x2x2", "type: \"SoftmaxWithLoss\" top: \"a\"", ""},
        {"4x10|4", "type: \"SoftmaxWithLoss\"", ""},
        {"4x10|4x1x1x1", "type: \"Accuracy\" top: \"a\" top: \"b\"", " 10"},
        {"4x10|4x10", "type: \"EuclideanLoss\" top: \"a\"", ""},
        {"4x10|4x10", "type: \"SigmoidCrossEntropyLoss\" top: \"a\"", ""},
        {"4x10|4x10", "type: \"Silence\"", ""},
    };
    static const struct refusal refusals[] = {
        {"4x10|5", "type: \"SoftmaxWithLoss\" top: \"a\"", SAC_EFORMAT, "the labels are 5"},
        {"4x10|4", "type: \"Accuracy\" top: \"a\" accuracy_param { top_k: 11 }", SAC_EFORMAT,
         "top_k has to be 1 to 10"},
        {"4x10|4", "type: \"EuclideanLoss\" top: \"a\"", SAC_EFORMAT, "4 × 10 and 4"},
        {"4x10", "type: \"SoftmaxWithLoss\" top: \"a\"", SAC_EFORMAT, "2 bottoms, and has 1"},
    };

    (void)state;
    CHECK_CASES(cases);
    CHECK_REFUSALS(refusals);
}

struct feed_case {
    const char *text, *data, *label;
};

static void data_layers_are_inputs(void **state)
{
    static const struct feed_case cases[] = {
        {"type: \"MemoryData\" memory_data_param { batch_size: 4 channels: 3 height: 5 width: 6 }",
         "4x3x5x6", "4"},
        {"type: \"DummyData\" dummy_data_param { shape { dim: 4 dim: 2 } shape { dim: 4 } }", "4x2",
         "4"},
        {"type: \"DummyData\" dummy_data_param { num: 4 channels: 3 channels: 1 height: 5 height: "
         "1 "
         "width: 6 width: 1 }",
         "4x3x5x6", "4x1x1x1"},
        {"type: \"Data\" data_param { batch_size: 4 } transform_param { crop_size: 5 }", "4x3x5x5",
         "4"},
        {"type: \"Data\" data_param { batch_size: 4 } "
         "transform_param { crop_size: 5 force_gray: true }",
         "4x1x5x5", "4"},
        {"type: \"ImageData\" image_data_param { batch_size: 4 new_height: 5 new_width: 6 }",
         "4x3x5x6", "4"},
        {"type: \"ImageData\" image_data_param { batch_size: 4 new_height: 9 new_width: 9 "
         "is_color: "
         "false } transform_param { crop_size: 7 }",
         "4x1x7x7", "4"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[512];
        snprintf(text, sizeof text, "layer { name: \"d\" top: \"data\" top: \"label\" %s }",
                 cases[i].text);
        struct sac_net *net = net_of(text);
        assert_int_equal(sac_net_input_count(net), 2);
        assert_string_equal(sac_net_input_name(net, 1), "label");
        assert_int_equal(sac_net_output_count(net), 0);
        assert_blob_is(net, "data", cases[i].data);
        assert_blob_is(net, "label", cases[i].label);
        sac_net_free(net);
    }
}

static void data_layers_without_sizes_ask_for_a_shape(void **state)
{
    static const char *const layers[] = {
        "type: \"Data\" data_param { batch_size: 4 }",
        "type: \"ImageData\" image_data_param { batch_size: 4 new_height: 5 }",
        "type: \"HDF5Data\" hdf5_data_param { batch_size: 4 }",
        "type: \"Input\"",
        "type: \"DummyData\"",
    };

    (void)state;
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++) {
        char text[512];
        snprintf(text, sizeof text, "layer { name: \"d\" top: \"data\" %s }", layers[i]);
        assert_refused(text, SAC_EINVAL, "layer \"d\" (", "has to be given an input shape");
    }
    assert_refused("layer { name: \"d\" top: \"a\" type: \"Data\" data_param { batch_size: 0 } "
                   "transform_param { crop_size: 5 } }",
                   SAC_EFORMAT, "layer \"d\" (Data)", "0 × 3 × 5 × 5");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(convolution_rounds_down),
        cmocka_unit_test(convolutions_that_cannot_be_are_refused),
        cmocka_unit_test(pooling_rounds_up),
        cmocka_unit_test(poolings_that_cannot_be_are_refused),
        cmocka_unit_test(layers_that_keep_shapes),
        cmocka_unit_test(inner_products_flatten_from_their_axis),
        cmocka_unit_test(concat_joins_and_slice_cuts),
        cmocka_unit_test(reshape_and_flatten),
        cmocka_unit_test(scale_and_bias_cover_some_axes),
        cmocka_unit_test(losses_have_shapes),
        cmocka_unit_test(data_layers_are_inputs),
        cmocka_unit_test(data_layers_without_sizes_ask_for_a_shape),
    };
    return cmocka_run_group_tests_name("layer shapes", tests, NULL, NULL);
}
