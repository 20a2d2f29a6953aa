#include "cuda_sim/rig.h"

#include <cudnn.h>
#include <math.h>

#include "cuda_sim/number.h"

struct shape {
    int n, c, h, w, k, r, s, pad, stride, dilation, group;
};

static const struct shape shapes[] = {
    {2, 3, 7, 6, 4, 3, 3, 1, 1, 1, 1}, {1, 4, 9, 8, 6, 5, 3, 2, 2, 1, 2},
    {2, 6, 5, 5, 6, 3, 3, 1, 1, 1, 6}, {1, 5, 8, 8, 3, 1, 1, 0, 1, 1, 1},
    {1, 2, 9, 9, 4, 3, 3, 2, 1, 2, 1},
};

static int out_h(const struct shape *p)
{
    return (p->h + 2 * p->pad - p->dilation * (p->r - 1) - 1) / p->stride + 1;
}

static int out_w(const struct shape *p)
{
    return (p->w + 2 * p->pad - p->dilation * (p->s - 1) - 1) / p->stride + 1;
}

static int x_at(const struct shape *p, int n, int c, int h, int w, bool nhwc)
{
    return nhwc ? ((n * p->h + h) * p->w + w) * p->c + c : ((n * p->c + c) * p->h + h) * p->w + w;
}

static int w_at(const struct shape *p, int k, int c, int r, int s, bool nhwc)
{
    int in = p->c / p->group;

    return nhwc ? ((k * p->r + r) * p->s + s) * in + c : ((k * in + c) * p->r + r) * p->s + s;
}

static int y_at(const struct shape *p, int n, int k, int h, int w, bool nhwc)
{
    return nhwc ? ((n * out_h(p) + h) * out_w(p) + w) * p->k + k
                : ((n * p->k + k) * out_h(p) + h) * out_w(p) + w;
}

/* Calls `each` for every product x[xi] · w[wi] that adds to y[yi]: the formula. */
static void products(const struct shape *p, bool nhwc,
                     void (*each)(void *arg, int xi, int wi, int yi), void *arg)
{
    int in = p->c / p->group, out = p->k / p->group;

    for (int n = 0; n < p->n; n++)
        for (int k = 0; k < p->k; k++)
            for (int oh = 0; oh < out_h(p); oh++)
                for (int ow = 0; ow < out_w(p); ow++)
                    for (int c = 0; c < in; c++)
                        for (int r = 0; r < p->r; r++)
                            for (int s = 0; s < p->s; s++) {
                                int ih = oh * p->stride - p->pad + r * p->dilation;
                                int iw = ow * p->stride - p->pad + s * p->dilation;

                                if (ih >= 0 && ih < p->h && iw >= 0 && iw < p->w)
                                    each(arg, x_at(p, n, k / out * in + c, ih, iw, nhwc),
                                         w_at(p, k, c, r, s, nhwc), y_at(p, n, k, oh, ow, nhwc));
                            }
}

/* One problem: three tensors on host and device, of floats or halves. */
struct problem {
    const struct shape *shape;
    bool nhwc, half;
    float *host[3]; /* x, w, y */
    int count[3];
    void *device[3];
    cudnnHandle_t handle;
    cudnnTensorDescriptor_t x, y, bias;
    cudnnFilterDescriptor_t w;
    cudnnConvolutionDescriptor_t conv;
    cudnnActivationDescriptor_t activation;
};

static void *stored(const float *from, int count, bool half)
{
    uint16_t *to = malloc((size_t)count * 4);

    if (!half)
        memcpy(to, from, (size_t)count * 4);
    for (int i = 0; half && i < count; i++)
        to[i] = sim_to_f16(from[i]);
    return to;
}

static void fill(struct problem *p)
{
    const struct shape *s = p->shape;

    p->count[0] = s->n * s->c * s->h * s->w;
    p->count[1] = s->k * (s->c / s->group) * s->r * s->s;
    p->count[2] = s->n * s->k * out_h(s) * out_w(s);
    for (int i = 0; i < 3; i++) {
        void *bytes;

        p->host[i] = malloc((size_t)p->count[i] * sizeof(float));
        for (int j = 0; j < p->count[i]; j++)
            p->host[i][j] = rig_value((unsigned)(j + 1000 * i));
        bytes = stored(p->host[i], p->count[i], p->half);
        p->device[i] = rig_upload(bytes, (size_t)p->count[i] * (p->half ? 2 : 4));
        free(bytes);
    }
}

static void describe(struct problem *p)
{
    const struct shape *s = p->shape;
    cudnnDataType_t type = p->half ? CUDNN_DATA_HALF : CUDNN_DATA_FLOAT;
    cudnnTensorFormat_t format = p->nhwc ? CUDNN_TENSOR_NHWC : CUDNN_TENSOR_NCHW;

    must(cudnnCreate(&p->handle));
    must(cudnnCreateTensorDescriptor(&p->x));
    must(cudnnCreateTensorDescriptor(&p->y));
    must(cudnnCreateTensorDescriptor(&p->bias));
    must(cudnnCreateFilterDescriptor(&p->w));
    must(cudnnCreateConvolutionDescriptor(&p->conv));
    must(cudnnCreateActivationDescriptor(&p->activation));
    must(cudnnSetTensor4dDescriptor(p->x, format, type, s->n, s->c, s->h, s->w));
    must(cudnnSetTensor4dDescriptor(p->y, format, type, s->n, s->k, out_h(s), out_w(s)));
    must(cudnnSetTensor4dDescriptor(p->bias, format, type, 1, s->k, 1, 1));
    must(cudnnSetFilter4dDescriptor(p->w, type, format, s->k, s->c / s->group, s->r, s->s));
    must(cudnnSetConvolution2dDescriptor(p->conv, s->pad, s->pad, s->stride, s->stride, s->dilation,
                                         s->dilation, CUDNN_CROSS_CORRELATION, CUDNN_DATA_FLOAT));
    must(cudnnSetConvolutionGroupCount(p->conv, s->group));
    must(cudnnSetConvolutionMathType(p->conv, CUDNN_FMA_MATH));
}

static void open_problem(struct problem *p, const struct shape *shape, bool nhwc, bool half)
{
    *p = (struct problem){.shape = shape, .nhwc = nhwc, .half = half};
    fill(p);
    describe(p);
}

static void close_problem(struct problem *p)
{
    for (int i = 0; i < 3; i++) {
        must(cudaFree(p->device[i]));
        free(p->host[i]);
    }
    must(cudnnDestroyTensorDescriptor(p->x));
    must(cudnnDestroyTensorDescriptor(p->y));
    must(cudnnDestroyTensorDescriptor(p->bias));
    must(cudnnDestroyFilterDescriptor(p->w));
    must(cudnnDestroyConvolutionDescriptor(p->conv));
    must(cudnnDestroyActivationDescriptor(p->activation));
    must(cudnnDestroy(p->handle));
}

static void add_product(void *arg, int xi, int wi, int yi)
{
    double **v = arg; /* the two that are multiplied and the sum, in the order x, w, y */

    if (v[3] == v[2])
        v[2][yi] += v[0][xi] * v[1][wi];
    else if (v[3] == v[0])
        v[0][xi] += v[1][wi] * v[2][yi];
    else
        v[1][wi] += v[0][xi] * v[2][yi];
}

/* One of x, w, y from the other two, by the formula, in double. */
static double *expected(const struct problem *p, int which)
{
    double *v[4];

    for (int i = 0; i < 3; i++) {
        v[i] = calloc((size_t)p->count[i], sizeof(double));
        for (int j = 0; j < p->count[i] && i != which; j++)
            v[i][j] = p->host[i][j];
    }
    v[3] = v[which];
    products(p->shape, p->nhwc, add_product, v);
    for (int i = 0; i < 3; i++)
        if (i != which)
            free(v[i]);
    return v[3];
}

/* Sums of exact products are exact in floats; halves round the result. */
static void check(const struct problem *p, int which, const double *want)
{
    size_t bytes = (size_t)p->count[which] * (p->half ? 2 : 4);
    void *got = malloc(bytes);

    rig_download(got, p->device[which], bytes);
    for (int i = 0; i < p->count[which]; i++) {
        double value = p->half ? sim_from_f16(((uint16_t *)got)[i]) : ((float *)got)[i];

        if (!(fabs(value - want[i]) <= (p->half ? fabs(want[i]) * 0x1p-11 : 0)))
            fail_msg("number %d: %.9g, not %.9g", i, value, want[i]);
    }
    free(got);
}

static void forward(struct problem *p, float alpha, float beta)
{
    cudnnConvolutionFwdAlgo_t algo = CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM;
    void *workspace;
    size_t bytes;

    must(cudnnGetConvolutionForwardWorkspaceSize(p->handle, p->x, p->w, p->conv, p->y, algo,
                                                 &bytes));
    must(cudaMalloc(&workspace, bytes));
    must(cudnnConvolutionForward(p->handle, &alpha, p->x, p->device[0], p->w, p->device[1], p->conv,
                                 algo, workspace, bytes, &beta, p->y, p->device[2]));
    must(cudaFree(workspace));
}

static void forward_is_the_formula(void **state)
{
    (void)state;
    for (size_t i = 0; i < 4 * sizeof shapes / sizeof shapes[0]; i++) {
        struct problem p;
        double *want;

        open_problem(&p, &shapes[i / 4], i & 1, i & 2);
        want = expected(&p, 2);
        forward(&p, 1, 0);
        check(&p, 2, want);
        free(want);
        close_problem(&p);
    }
}

static void scales_mix_the_result_with_what_was_there(void **state)
{
    struct problem p;
    double *want;

    (void)state;
    open_problem(&p, &shapes[0], true, false);
    want = expected(&p, 2);
    for (int i = 0; i < p.count[2]; i++)
        want[i] = 2 * want[i] + 0.5 * p.host[2][i];
    forward(&p, 2, 0.5f);
    check(&p, 2, want);
    free(want);
    close_problem(&p);
}

static void fuse(struct problem *p, cudnnActivationMode_t mode, const void *bias,
                 cudnnConvolutionFwdAlgo_t algo, cudnnStatus_t status)
{
    const float one = 1, half = 0.5f;
    void *workspace;

    must(cudaMalloc(&workspace, 1 << 20));
    must(cudnnSetActivationDescriptor(p->activation, mode, CUDNN_NOT_PROPAGATE_NAN, 0));
    assert_int_equal(cudnnConvolutionBiasActivationForward(
                         p->handle, &one, p->x, p->device[0], p->w, p->device[1], p->conv, algo,
                         workspace, 1 << 20, &half, p->y, p->device[2], p->bias, bias,
                         p->activation, p->y, p->device[2]),
                     status);
    must(cudaFree(workspace));
}

static void bias_sum_and_relu_are_fused(void **state)
{
    float bias[8];
    void *device_bias;

    (void)state;
    for (int i = 0; i < 8; i++)
        bias[i] = rig_value((unsigned)i + 77);
    device_bias = rig_upload(bias, sizeof bias);
    for (int relu = 0; relu < 2; relu++) {
        struct problem p;
        double *want;

        open_problem(&p, &shapes[0], relu, false);
        want = expected(&p, 2);
        for (int i = 0; i < p.count[2]; i++) {
            int k = p.nhwc ? i % p.shape->k : i / (out_h(p.shape) * out_w(p.shape)) % p.shape->k;

            want[i] += 0.5 * p.host[2][i] + bias[k];
            want[i] = relu && want[i] < 0 ? 0 : want[i];
        }
        fuse(&p, relu ? CUDNN_ACTIVATION_RELU : CUDNN_ACTIVATION_IDENTITY, device_bias,
             CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM, CUDNN_STATUS_SUCCESS);
        check(&p, 2, want);
        free(want);
        close_problem(&p);
    }
    must(cudaFree(device_bias));
}

/* As cuDNN's documentation says of the call. */
static void fused_identity_takes_one_algorithm_only(void **state)
{
    struct problem p;
    float bias[8] = {0};
    void *device_bias = rig_upload(bias, sizeof bias);

    (void)state;
    open_problem(&p, &shapes[0], false, false);
    fuse(&p, CUDNN_ACTIVATION_IDENTITY, device_bias, CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM,
         CUDNN_STATUS_NOT_SUPPORTED);
    fuse(&p, CUDNN_ACTIVATION_TANH, device_bias, CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM,
         CUDNN_STATUS_NOT_SUPPORTED);
    close_problem(&p);
    must(cudaFree(device_bias));
}

static void backward_passes_are_the_formula(void **state)
{
    const float one = 1, zero = 0;

    (void)state;
    for (size_t i = 0; i < 2 * sizeof shapes / sizeof shapes[0]; i++) {
        struct problem p;
        double *want_x, *want_w;

        open_problem(&p, &shapes[i / 2], i & 1, false);
        want_x = expected(&p, 0);
        want_w = expected(&p, 1);
        must(cudnnConvolutionBackwardFilter(p.handle, &one, p.x, p.device[0], p.y, p.device[2],
                                            p.conv, CUDNN_CONVOLUTION_BWD_FILTER_ALGO_0, NULL, 0,
                                            &zero, p.w, p.device[1]));
        check(&p, 1, want_w);
        must(cudaMemcpy(p.device[1], p.host[1], (size_t)p.count[1] * 4, cudaMemcpyHostToDevice));
        must(cudnnConvolutionBackwardData(p.handle, &one, p.w, p.device[1], p.y, p.device[2],
                                          p.conv, CUDNN_CONVOLUTION_BWD_DATA_ALGO_0, NULL, 0, &zero,
                                          p.x, p.device[0]));
        check(&p, 0, want_x);
        free(want_x);
        free(want_w);
        close_problem(&p);
    }
}

static void algorithms_come_best_first_with_their_needs(void **state)
{
    cudnnConvolutionFwdAlgoPerf_t perf[CUDNN_CONVOLUTION_FWD_ALGO_COUNT];
    struct problem p;
    int count;
    size_t bytes;

    (void)state;
    open_problem(&p, &shapes[0], false, false);
    must(cudnnGetConvolutionForwardAlgorithm_v7(p.handle, p.x, p.w, p.conv, p.y,
                                                CUDNN_CONVOLUTION_FWD_ALGO_COUNT, &count, perf));
    assert_int_equal(count, CUDNN_CONVOLUTION_FWD_ALGO_COUNT);
    assert_int_equal(perf[0].status, CUDNN_STATUS_SUCCESS);
    for (int i = 0; i < count; i++) {
        cudnnStatus_t status = cudnnGetConvolutionForwardWorkspaceSize(p.handle, p.x, p.w, p.conv,
                                                                       p.y, perf[i].algo, &bytes);

        assert_int_equal(status, perf[i].status);
        assert_true(status != CUDNN_STATUS_SUCCESS || bytes == perf[i].memory);
        assert_true(i == 0 || perf[i].status != CUDNN_STATUS_SUCCESS ||
                    perf[i - 1].time < perf[i].time);
    }
    close_problem(&p);
}

static void finding_stays_within_the_workspace(void **state)
{
    cudnnConvolutionFwdAlgoPerf_t perf[CUDNN_CONVOLUTION_FWD_ALGO_COUNT];
    struct problem p;
    int count;

    (void)state;
    open_problem(&p, &shapes[0], false, false);
    must(cudnnFindConvolutionForwardAlgorithmEx(
        p.handle, p.x, p.device[0], p.w, p.device[1], p.conv, p.y, p.device[2],
        CUDNN_CONVOLUTION_FWD_ALGO_COUNT, &count, perf, NULL, 0));
    assert_int_equal(perf[0].status, CUDNN_STATUS_SUCCESS);
    assert_int_equal(perf[0].memory, 0);
    close_problem(&p);
}

static void descriptors_that_do_not_fit_are_refused(void **state)
{
    struct problem p;
    size_t bytes;

    (void)state;
    open_problem(&p, &shapes[0], false, false);
    must(cudnnSetTensor4dDescriptor(p.y, CUDNN_TENSOR_NCHW, CUDNN_DATA_FLOAT, 2, 4, 7, 7));
    assert_int_equal(
        cudnnGetConvolutionForwardWorkspaceSize(p.handle, p.x, p.w, p.conv, p.y,
                                                CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM, &bytes),
        CUDNN_STATUS_BAD_PARAM);
    must(cudnnSetTensor4dDescriptor(p.y, CUDNN_TENSOR_NCHW, CUDNN_DATA_HALF, 2, 4, 7, 6));
    assert_int_equal(
        cudnnGetConvolutionForwardWorkspaceSize(p.handle, p.x, p.w, p.conv, p.y,
                                                CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM, &bytes),
        CUDNN_STATUS_BAD_PARAM);
    close_problem(&p);
}

/* 1 + 2⁻¹¹ needs eleven bits of the fraction; TF32 keeps ten, ties away from zero. */
static void default_math_on_floats_rounds_to_tf32(void **state)
{
    static const struct shape one_number = {1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1};
    const double exact = 1 + 0x1p-11, rounded = 1 + 0x1p-10;
    const float x = (float)exact, w = 1;
    struct problem p;

    (void)state;
    open_problem(&p, &one_number, false, false);
    must(cudaMemcpy(p.device[0], &x, 4, cudaMemcpyHostToDevice));
    must(cudaMemcpy(p.device[1], &w, 4, cudaMemcpyHostToDevice));
    forward(&p, 1, 0);
    check(&p, 2, &exact);
    must(cudnnSetConvolutionMathType(p.conv, CUDNN_DEFAULT_MATH));
    forward(&p, 1, 0);
    check(&p, 2, &rounded);
    close_problem(&p);
}

static void halves_are_stored_to_nearest_even(void **state)
{
    (void)state;
    for (uint32_t bits = 0; bits < 0x10000; bits++) {
        float value = sim_from_f16((uint16_t)bits);

        if (value == value)
            assert_int_equal(sim_to_f16(value), bits);
    }
    assert_int_equal(sim_to_f16(1 + 0x1p-11f), 0x3c00);     /* a tie: down to even */
    assert_int_equal(sim_to_f16(1 + 3 * 0x1p-11f), 0x3c02); /* a tie: up to even */
    assert_int_equal(sim_to_f16(65519.0f), 0x7bff);
    assert_int_equal(sim_to_f16(65520.0f), 0x7c00);
    assert_int_equal(sim_to_f16(0x1p-25f), 0);
    assert_int_equal(sim_to_f16(3 * 0x1p-25f), 2);
    assert_int_equal(sim_to_bf16(1 + 0x1p-8f), 0x3f80);
    assert_int_equal(sim_to_bf16(1 + 3 * 0x1p-8f), 0x3f82);
}

#define CASE(name) cmocka_unit_test_teardown(name, rig_nothing_left)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(forward_is_the_formula),
        CASE(scales_mix_the_result_with_what_was_there),
        CASE(bias_sum_and_relu_are_fused),
        CASE(fused_identity_takes_one_algorithm_only),
        CASE(backward_passes_are_the_formula),
        CASE(algorithms_come_best_first_with_their_needs),
        CASE(finding_stays_within_the_workspace),
        CASE(descriptors_that_do_not_fit_are_refused),
        CASE(default_math_on_floats_rounds_to_tf32),
        CASE(halves_are_stored_to_nearest_even),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
