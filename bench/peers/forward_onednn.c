/*
 * LIST BATCH f32|bf16: passes of a net's convolutions and inner products, and of nothing
 * else, by oneDNN alone on one thread, each in the layouts and by the algorithm that the
 * library likes best, with the bias and the ReLU behind it. LIST has a line a layer:
 *
 *   IN HEIGHT WIDTH OUT KERNEL_H KERNEL_W STRIDE_H STRIDE_W PAD_H PAD_W GROUP RELU
 *
 * (an inner product is a convolution of a 1 × 1 picture). Says "ready", then answers each
 * line N with "WALL CPU", milliseconds a pass of N.
 */
#include <oneapi/dnnl/dnnl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { LAYERS_MAX = 256, NUMBERS = 12, ARGS = 4 };

struct shape {
    long in, size[2], out, kernel[2], stride[2], pad[2], group, relu;
};

struct layer {
    dnnl_primitive_t primitive;
    dnnl_exec_arg_t args[ARGS];
};

struct bench {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_data_type_t type;
    long batch;
    struct layer layers[LAYERS_MAX];
    int count;
};

static void need(dnnl_status_t status, const char *what)
{
    if (status == dnnl_success)
        return;
    fprintf(stderr, "forward_onednn: %s: status %d\n", what, (int)status);
    exit(1);
}

/* Small numbers, which are neither 0 nor near the smallest. */
static void fill(void *data, size_t bytes, dnnl_data_type_t type)
{
    for (size_t i = 0; type == dnnl_f32 && i < bytes / sizeof(float); i++)
        ((float *)data)[i] = (float)(i % 251) / 251 / 16;
    for (size_t i = 0; type == dnnl_bf16 && i < bytes / sizeof(uint16_t); i++)
        ((uint16_t *)data)[i] = (uint16_t)(0x3c00 + i % 64); /* 2⁻⁷ … */
}

static dnnl_exec_arg_t arg_of(const struct bench *bench, int arg, const dnnl_memory_desc_t *md)
{
    dnnl_exec_arg_t out = {.arg = arg};
    void *data;

    need(dnnl_memory_create(&out.memory, md, bench->engine, DNNL_MEMORY_ALLOCATE), "memory");
    need(dnnl_memory_get_data_handle(out.memory, &data), "memory");
    fill(data, dnnl_memory_desc_get_size(md), md->data_type);
    return out;
}

static dnnl_primitive_attr_t attr_of(bool relu)
{
    dnnl_primitive_attr_t attr;
    dnnl_post_ops_t ops;

    need(dnnl_primitive_attr_create(&attr), "attributes");
    need(dnnl_post_ops_create(&ops), "post-ops");
    if (relu)
        need(dnnl_post_ops_append_eltwise(ops, 1, dnnl_eltwise_relu, 0, 0), "ReLU");
    need(dnnl_primitive_attr_set_post_ops(attr, ops), "post-ops");
    dnnl_post_ops_destroy(ops);
    return attr;
}

static dnnl_memory_desc_t any_of(int rank, const dnnl_dims_t dims, dnnl_data_type_t type)
{
    dnnl_memory_desc_t md;

    need(dnnl_memory_desc_init_by_tag(&md, rank, dims, type, dnnl_format_tag_any), "a layout");
    return md;
}

static dnnl_primitive_desc_t describe_conv(const struct bench *bench, const struct shape *s)
{
    dnnl_dims_t src = {bench->batch, s->in, s->size[0], s->size[1]}, dst, bias = {s->out};
    dnnl_dims_t filter = {s->out, s->in, s->kernel[0], s->kernel[1]};
    dnnl_dims_t grouped = {s->group, s->out / s->group, s->in / s->group, s->kernel[0],
                           s->kernel[1]};
    dnnl_dims_t stride = {s->stride[0], s->stride[1]}, pad = {s->pad[0], s->pad[1]};
    dnnl_convolution_desc_t desc;
    dnnl_primitive_desc_t pd;

    dst[0] = bench->batch;
    dst[1] = s->out;
    for (int i = 0; i < 2; i++)
        dst[2 + i] = (s->size[i] + 2 * s->pad[i] - s->kernel[i]) / s->stride[i] + 1;
    dnnl_memory_desc_t x = any_of(4, src, bench->type), y = any_of(4, dst, bench->type);
    dnnl_memory_desc_t w =
        s->group > 1 ? any_of(5, grouped, bench->type) : any_of(4, filter, bench->type);
    dnnl_memory_desc_t b = any_of(1, bias, dnnl_f32);
    need(dnnl_convolution_forward_desc_init(&desc, dnnl_forward_inference, dnnl_convolution_auto,
                                            &x, &w, &b, &y, stride, pad, pad),
         "a convolution");
    dnnl_primitive_attr_t attr = attr_of(s->relu);
    need(dnnl_primitive_desc_create(&pd, &desc, attr, bench->engine, NULL), "a convolution");
    dnnl_primitive_attr_destroy(attr);
    return pd;
}

static dnnl_primitive_desc_t describe_inner(const struct bench *bench, const struct shape *s)
{
    dnnl_dims_t src = {bench->batch, s->in}, dst = {bench->batch, s->out};
    dnnl_dims_t weights = {s->out, s->in}, bias = {s->out};
    dnnl_memory_desc_t x = any_of(2, src, bench->type), y = any_of(2, dst, bench->type);
    dnnl_memory_desc_t w = any_of(2, weights, bench->type), b = any_of(1, bias, dnnl_f32);
    dnnl_inner_product_desc_t desc;
    dnnl_primitive_desc_t pd;

    need(dnnl_inner_product_forward_desc_init(&desc, dnnl_forward_inference, &x, &w, &b, &y),
         "an inner product");
    dnnl_primitive_attr_t attr = attr_of(s->relu);
    need(dnnl_primitive_desc_create(&pd, &desc, attr, bench->engine, NULL), "an inner product");
    dnnl_primitive_attr_destroy(attr);
    return pd;
}

static void add_layer(struct bench *bench, const struct shape *s)
{
    struct layer *layer = &bench->layers[bench->count++];
    bool is_inner = s->size[0] == 1 && s->size[1] == 1;
    dnnl_primitive_desc_t pd = is_inner ? describe_inner(bench, s) : describe_conv(bench, s);
    static const struct {
        dnnl_query_t what;
        int index, arg;
    } ends[ARGS] = {{dnnl_query_src_md, 0, DNNL_ARG_SRC},
                    {dnnl_query_dst_md, 0, DNNL_ARG_DST},
                    {dnnl_query_weights_md, 0, DNNL_ARG_WEIGHTS},
                    {dnnl_query_weights_md, 1, DNNL_ARG_BIAS}};

    need(dnnl_primitive_create(&layer->primitive, pd), "a primitive");
    for (int i = 0; i < ARGS; i++)
        layer->args[i] = arg_of(bench, ends[i].arg,
                                dnnl_primitive_desc_query_md(pd, ends[i].what, ends[i].index));
    dnnl_primitive_desc_destroy(pd);
}

static void read_list(struct bench *bench, const char *path)
{
    FILE *file = fopen(path, "re");
    struct shape s;

    if (!file) {
        perror(path);
        exit(1);
    }
    while (bench->count < LAYERS_MAX &&
           fscanf(file, "%ld %ld %ld %ld %ld %ld %ld %ld %ld %ld %ld %ld", &s.in, &s.size[0],
                  &s.size[1], &s.out, &s.kernel[0], &s.kernel[1], &s.stride[0], &s.stride[1],
                  &s.pad[0], &s.pad[1], &s.group, &s.relu) == NUMBERS)
        add_layer(bench, &s);
    fclose(file);
}

static void pass(const struct bench *bench)
{
    for (int i = 0; i < bench->count; i++)
        need(dnnl_primitive_execute(bench->layers[i].primitive, bench->stream, ARGS,
                                    bench->layers[i].args),
             "running");
    need(dnnl_stream_wait(bench->stream), "running");
}

static double milliseconds(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

int main(int argc, char **argv)
{
    static struct bench bench;
    int passes;

    if (argc != 4) {
        fputs("forward_onednn LIST BATCH f32|bf16\n", stderr);
        return 2;
    }
    bench.batch = strtol(argv[2], NULL, 10);
    bench.type = strcmp(argv[3], "bf16") == 0 ? dnnl_bf16 : dnnl_f32;
    need(dnnl_engine_create(&bench.engine, dnnl_cpu, 0), "the engine");
    need(dnnl_stream_create(&bench.stream, bench.engine, dnnl_stream_default_flags), "a stream");
    read_list(&bench, argv[1]);
    pass(&bench);
    puts("ready");
    fflush(stdout);
    while (scanf("%d", &passes) == 1 && passes > 0) {
        double wall = milliseconds(CLOCK_MONOTONIC), cpu = milliseconds(CLOCK_PROCESS_CPUTIME_ID);
        for (int i = 0; i < passes; i++)
            pass(&bench);
        printf("%.6f %.6f\n", (milliseconds(CLOCK_MONOTONIC) - wall) / passes,
               (milliseconds(CLOCK_PROCESS_CPUTIME_ID) - cpu) / passes);
        fflush(stdout);
    }
    return 0;
}
