/*
 * Times the convolutions and inner products of well-known nets, and all op
 * cases, on one thread of the CPU device: what runs them, and how fast.
 *
 *   time_ops [BATCH [f32|bf16]]     main shapes, GF/s
 *   time_ops cases                  every op case at batch 8, both precisions
 *   time_ops equal                  bits of equal pictures, batches 1 … 32
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "device/op_cases.h"

struct shape_row {
    const char *name;
    int64_t channels, height, out, kernel, stride, pad, group;
};

static const struct shape_row rows[] = {
    {"squeezenet conv1", 3, 227, 64, 3, 2, 0, 1},
    {"squeezenet fire2 squeeze", 64, 56, 16, 1, 1, 0, 1},
    {"squeezenet fire2 expand3", 16, 56, 64, 3, 1, 1, 1},
    {"squeezenet fire6 expand3", 48, 14, 192, 3, 1, 1, 1},
    {"squeezenet fire9 expand1", 64, 14, 256, 1, 1, 0, 1},
    {"squeezenet conv10", 512, 14, 1000, 1, 1, 0, 1},
    {"caffenet conv1", 3, 227, 96, 11, 4, 0, 1},
    {"caffenet conv2", 96, 27, 256, 5, 1, 2, 2},
    {"caffenet conv3", 256, 13, 384, 3, 1, 1, 1},
    {"caffenet conv4", 384, 13, 384, 3, 1, 1, 2},
    {"googlenet conv1", 3, 224, 64, 7, 2, 3, 1},
    {"googlenet conv2 3x3", 64, 56, 192, 3, 1, 1, 1},
    {"googlenet 3a 3x3", 96, 28, 128, 3, 1, 1, 1},
    {"googlenet 3a 5x5", 16, 28, 32, 5, 1, 2, 1},
    {"googlenet 4e 1x1", 528, 14, 256, 1, 1, 0, 1},
    {"googlenet 5b 3x3", 192, 7, 384, 3, 1, 1, 1},
    {"resnet50 2a 1x1", 64, 56, 256, 1, 1, 0, 1},
    {"resnet50 2b 3x3", 64, 56, 64, 3, 1, 1, 1},
    {"resnet50 3a 1x1/2", 256, 56, 512, 1, 2, 0, 1},
    {"resnet50 4b 3x3", 256, 14, 256, 3, 1, 1, 1},
    {"resnet50 5c 1x1", 512, 7, 2048, 1, 1, 0, 1},
    {"mobilenet conv1", 3, 224, 32, 3, 2, 1, 1},
    {"mobilenet dw 112", 64, 112, 64, 3, 2, 1, 64},
    {"mobilenet dw 14", 512, 14, 512, 3, 1, 1, 512},
    {"mobilenet pw 14", 512, 14, 512, 1, 1, 0, 1},
    {"vgg conv5", 512, 14, 512, 3, 1, 1, 1},
};
enum { ROWS = sizeof rows / sizeof *rows };

static const struct shape_row inners[] = {
    {"caffenet fc6", 256, 6, 4096, 0, 0, 0, 0},
    {"caffenet fc7", 4096, 1, 4096, 0, 0, 0, 0},
    {"caffenet fc8", 4096, 1, 1000, 0, 0, 0, 0},
    {"googlenet classifier", 1024, 1, 1000, 0, 0, 0, 0},
    {"resnet50 fc1000", 2048, 1, 1000, 0, 0, 0, 0},
    {"lenet ip1", 50, 4, 500, 0, 0, 0, 0},
};
enum { INNERS = sizeof inners / sizeof *inners };

/* kernel 0: LRN across 5; kernel 1: pixels; otherwise pooling, group its method. */
static const struct shape_row windows[] = {
    {"squeezenet pool1", 64, 113, 0, 3, 2, 0, SAC_POOL_MAX},
    {"squeezenet pool10", 1000, 14, 0, 14, 1, 0, SAC_POOL_AVE},
    {"googlenet 4 pool 3x3/1", 512, 14, 0, 3, 1, 1, SAC_POOL_MAX},
    {"resnet50 pool5", 2048, 7, 0, 7, 1, 0, SAC_POOL_AVE},
    {"googlenet norm2", 192, 56, 0, 0, 0, 0, 0},
    {"caffenet norm1", 96, 27, 0, 0, 0, 0, 0},
    {"pixels 227", 3, 227, 0, 1, 0, 0, 0},
};
enum { WINDOWS = sizeof windows / sizeof *windows };

static struct sac_op_case window_case(const struct shape_row *r)
{
    if (r->kernel == 0)
        return sac_op_case_lrn(r->name, SAC_LRN_ACROSS_CHANNELS, r->channels, r->height, 5, 1e-4f,
                               .75f, 1);
    if (r->kernel == 1)
        return sac_op_case_pixels(r->name, r->channels, r->height, r->height, true, NULL);
    return sac_op_case_pool(r->name, (enum sac_pool_method)r->group, r->channels, r->height,
                            r->kernel, r->stride, r->pad);
}

static struct sac_op_case shape_case(int index)
{
    if (index >= ROWS + INNERS)
        return window_case(&windows[index - ROWS - INNERS]);

    const struct shape_row *r = index < ROWS ? &rows[index] : &inners[index - ROWS];

    if (index < ROWS)
        return sac_op_case_conv(r->name, r->channels, r->height, r->height, r->out, r->kernel,
                                r->stride, r->pad, 1, r->group);
    return sac_op_case_inner(r->name, r->channels, r->height, r->height, r->out);
}

static struct sac_op_rig *rig_of(struct sac_device *device, const struct sac_op_case *what,
                                 int batch, enum sac_precision precision, bool same)
{
    struct sac_op_rig_options options = {
        .ops = {.precision = precision, .deterministic = true},
        .batch = batch,
        .same_pictures = same,
    };
    struct sac_error err = {0};
    struct sac_op_rig *rig;

    if (sac_op_rig_new(&rig, device, what, &options, &err) == 0 && sac_op_rig_run(rig, &err) == 0)
        return rig;
    printf("%s: %s\n", what->name, err.text);
    exit(1);
}

static double seconds_of(struct sac_op_rig *rig)
{
    uint64_t start = sac_clock_thread_cpu_ns(), spent;
    int runs = 0;

    do {
        if (sac_op_rig_forward(rig, NULL) != 0)
            exit(1);
        runs++;
        spent = sac_clock_thread_cpu_ns() - start;
    } while (spent < 30 * 1000 * 1000);
    return (double)spent / 1e9 / runs;
}

static void time_case(struct sac_device *device, const struct sac_op_case *what, int batch,
                      enum sac_precision precision)
{
    struct sac_op_rig *rig = rig_of(device, what, batch, precision, false);
    const struct sac_op_caps *caps = sac_op_rig_caps(rig);
    double s = seconds_of(rig);

    printf("%-36s %-4s batch %-2d %9.1f us %8.1f GF/s  %s\n", what->name,
           sac_precision_name(precision), batch, s * 1e6, caps->flops / s / 1e9, caps->kernel);
    sac_op_rig_free(rig);
}

/* FNV-1a of picture n's results. */
static uint64_t hash_of(struct sac_op_rig *rig, int n, int batch)
{
    size_t count;
    float *y = sac_op_rig_result(rig, 0, &count);
    size_t bytes = count / (size_t)batch * sizeof *y;
    const unsigned char *at = (const unsigned char *)y + (size_t)n * bytes;
    uint64_t hash = 0xcbf29ce484222325u;

    for (size_t i = 0; i < bytes; i++)
        hash = (hash ^ at[i]) * 0x100000001b3u;
    free(y);
    return hash;
}

static void check_equal(struct sac_device *device, const struct sac_op_case *what,
                        enum sac_precision precision)
{
    const int batches[] = {1, 2, 3, 4, 5, 8, 16, 31, 32};
    uint64_t first = 0;
    int broken = 0;

    for (size_t b = 0; b < sizeof batches / sizeof *batches; b++) {
        struct sac_op_rig *rig = rig_of(device, what, batches[b], precision, true);
        first = b == 0 ? hash_of(rig, 0, 1) : first;
        const int places[] = {0, batches[b] / 2, batches[b] - 1};
        for (int i = 0; i < 3; i++) {
            if (hash_of(rig, places[i], batches[b]) == first)
                continue;
            printf("%-28s %-4s batch %-2d place %-2d differs  %s\n", what->name,
                   sac_precision_name(precision), batches[b], places[i],
                   sac_op_rig_caps(rig)->kernel);
            broken++;
            break;
        }
        sac_op_rig_free(rig);
    }
    if (broken == 0)
        printf("%-28s %-4s equal in every batch\n", what->name, sac_precision_name(precision));
}

int main(int argc, char **argv)
{
    const enum sac_precision both[] = {SAC_PRECISION_F32, SAC_PRECISION_BF16};
    bool cases = argc > 1 && strcmp(argv[1], "cases") == 0;
    bool equal = argc > 1 && strcmp(argv[1], "equal") == 0;
    int batch = argc > 1 && atoi(argv[1]) > 0 ? atoi(argv[1]) : 8;
    struct sac_device *device;

    if (sac_device_open(&device, "cpu", NULL) != 0)
        return 1;
    printf("%s\n", device->info.description);
    for (int i = 0; i < (cases ? sac_op_case_count() : ROWS + INNERS + WINDOWS); i++) {
        struct sac_op_case what = cases ? *sac_op_case(i) : shape_case(i);
        for (int p = 0; p < 2; p++) {
            if (argc > 2 && strcmp(argv[2], sac_precision_name(both[p])) != 0)
                continue;
            if (equal)
                check_equal(device, &what, both[p]);
            else
                time_case(device, &what, batch, both[p]);
        }
    }
    sac_device_close(device);
    return 0;
}
