/*
 * One table of operations with the geometry that nets have and the corners that
 * break kernels, and a rig that runs any of them on any device: the same cases
 * check a device's kernels against its plain loops, devices against each other,
 * and time them.
 */
#ifndef SAC_TESTS_OP_CASES_H
#define SAC_TESTS_OP_CASES_H

#include "device/device.h"

enum { SAC_CASE_VALUES_MAX = 4 };

/* dim[0] of sources and results is 0: the batch takes its place. */
struct sac_op_case {
    const char *name;
    enum sac_op_kind kind;
    union sac_op_param param;
    int src_count, dst_count, weight_count;
    struct sac_shape src[SAC_CASE_VALUES_MAX], dst[SAC_CASE_VALUES_MAX],
        weight[SAC_NODE_WEIGHTS_MAX];
    bool sum, relu; /* the epilogue */
    float slope;
    int labels;  /* > 0: source 1 holds whole numbers below this */
    bool spread; /* no two numbers of the sources lie near each other, or near 0 */
};

int sac_op_case_count(void);
const struct sac_op_case *sac_op_case(int index);

/* Layers as cases, for a timing of its own. Windows are square; convolutions have
 * a bias and a ReLU. */
struct sac_op_case sac_op_case_conv(const char *name, int64_t channels, int64_t height,
                                    int64_t width, int64_t out, int64_t kernel, int64_t stride,
                                    int64_t pad, int64_t dilation, int64_t group);
struct sac_op_case sac_op_case_inner(const char *name, int64_t channels, int64_t height,
                                     int64_t width, int64_t out);

struct sac_op_case sac_op_case_pool(const char *name, enum sac_pool_method method, int64_t channels,
                                    int64_t size, int64_t kernel, int64_t stride, int64_t pad);
struct sac_op_case sac_op_case_lrn(const char *name, enum sac_lrn_region region, int64_t channels,
                                   int64_t size, int n, float alpha, float beta, float k);
struct sac_op_case sac_op_case_pixels(const char *name, int64_t channels, int64_t height,
                                      int64_t width, bool swap, const float *mean_image);

struct sac_op_rig;

struct sac_op_rig_options {
    struct sac_op_options ops;
    int batch;
    /* Every picture of the batch is the same: its results must be too. */
    bool same_pictures;
    bool in_place; /* dst 0 on src 0's memory; the caps must allow it */
    /* Results are views with longer strides, as in a concatenation; likewise. */
    bool strided_dst;
    bool sum_in_place;       /* dst 0 on the memory of the sum */
    struct sac_store *store; /* NULL: the rig's own */
    size_t workspace_short;  /* so many bytes less than was asked for */
};

/* Sources and weights are the same numbers for the same case, whatever the
 * device, precision or batch, and exact in bf16. */
int sac_op_rig_new(struct sac_op_rig **ret, struct sac_device *device,
                   const struct sac_op_case *what, const struct sac_op_rig_options *options,
                   struct sac_error *err);
void sac_op_rig_free(struct sac_op_rig *rig);
const struct sac_op_caps *sac_op_rig_caps(const struct sac_op_rig *rig);
/* Puts the sources in place (again) and runs once. */
int sac_op_rig_run(struct sac_op_rig *rig, struct sac_error *err);
/* Runs only, for timing. */
int sac_op_rig_forward(struct sac_op_rig *rig, struct sac_error *err);
/* Result `index` in plain fp32 (top-k: index, value, index, …); the caller
 * frees it. *ret_count: how many floats. */
float *sac_op_rig_result(struct sac_op_rig *rig, int index, size_t *ret_count);
/* The plain source that the rig gave the operation; the caller frees it. */
float *sac_op_rig_source(const struct sac_op_rig *rig, int index);
const float *sac_op_rig_weight(const struct sac_op_rig *rig, int index);

/* Training (options.ops.training): the numbers may be changed between runs; weights
 * are masters. */
float *sac_op_rig_source_numbers(struct sac_op_rig *rig, int index);
size_t sac_op_rig_source_count(const struct sac_op_rig *rig, int index);
float *sac_op_rig_master(struct sac_op_rig *rig, int index, size_t *ret_count);
/* After masters were changed. */
void sac_op_rig_masters_changed(struct sac_op_rig *rig);
/* The gradient given to result `index`: numbers of the case, as of a sum of results
 * weighted by them. */
const float *sac_op_rig_result_gradient(const struct sac_op_rig *rig, int index);
/* Zeroes the weights' gradients, and runs backward after a run. */
int sac_op_rig_backward(struct sac_op_rig *rig, struct sac_error *err);
/* The caller frees it; NULL: the operation gives that source none. */
float *sac_op_rig_source_gradient(struct sac_op_rig *rig, int index);
const float *sac_op_rig_weight_gradient(struct sac_op_rig *rig, int index);

#endif
