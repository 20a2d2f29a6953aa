/*
 * precision.json of a model directory: what lower precisions cost this model, measured
 * by `saccade quantize` on pictures that decided nothing else, and the ranges of its
 * blobs for int8. It names the weights that it was measured with. One thread.
 *
 *   { "weights": {"bytes": 4950000, "crc32": 123456789}, "device": "cpu",
 *     "checked": 60, "labelled": 60,
 *     "f32": {"top1": 41, "top5": 52},
 *     "bf16": {"agree": 60, "top1": 41, "top5": 52},
 *     "int8": {"agree": 58, "top1": 41, "top5": 52, "calibrated": 20, "rule": "mse",
 *              "keep": ["conv1"], "ranges": {"conv1": [0, 12.5], "res2a": [-3.1, 3.1]}} }
 * Counts are of pictures; top1 and top5 are there where there were labels.
 */
#ifndef SAC_MODEL_PRECISION_FILE_H
#define SAC_MODEL_PRECISION_FILE_H

#include "base/error.h"
#include "device/ranges.h"
#include "model/calibrate.h"

#define SAC_PRECISION_FILE "precision.json"

/* Of the checked pictures: how many have the first label that f32 gives, and how many
 * have the right one first, or among five. */
struct sac_precision_score {
    bool measured;
    int agree, top1, top5;
};

struct sac_precision_report {
    uint64_t weights_bytes;
    uint32_t weights_crc32;
    char device[16];
    int checked, labelled, calibrated;
    struct sac_precision_score f32, bf16, int8;
    enum sac_calibration_rule rule;
    struct sac_ranges ranges; /* none: int8 cannot be had */
};

/* Fills the bytes and the crc32 of a file of weights. */
int sac_precision_identify(struct sac_precision_report *report, const char *weights_path,
                           struct sac_error *err);
/* The file, whole or not at all. */
int sac_precision_write(const struct sac_precision_report *report, const char *path,
                        struct sac_error *err);
/* SAC_EINVAL: not such a file. The report is the caller's, for sac_ranges_done(). */
int sac_precision_read(struct sac_precision_report *ret, const char *path, struct sac_error *err);

/* Whether bf16's answers are f32's: at least SAC_PRECISION_CHECKED pictures, 98 of 100
 * with the same first label, and of those that are labelled no more than 2 of 100 fewer
 * right. */
enum { SAC_PRECISION_CHECKED = 50 };
bool sac_precision_bf16_agrees(const struct sac_precision_report *report);

#endif
