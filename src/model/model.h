/*
 * A model: a net with its weights, its labels, and how pictures become its input.
 * Read from a model directory (deploy.prototxt, one *.caffemodel, labels.txt or
 * synset_words.txt, optionally mean.binaryproto and model.json) or from GPU REST
 * Engine's four files. Immutable once open: any thread.
 *
 * model.json, every field optional:
 *   { "name": "squeezenet",
 *     "preprocess": { "resize": "squash" | "short" | "none", "resize_size": 256 | [w, h],
 *                     "crop": 227 | [w, h], "mean": [104, 117, 123] | "image" | "none",
 *                     "scale": 1, "channels": "bgr" | "rgb" | "grey",
 *                     "decode": "fast" | "exact", "background": [0, 0, 0] },
 *     "precision": "auto" | "f32" | "bf16" | "int8", "topk": 5,
 *     "batch_max": 8, "timeout_ms": 1000, "priority": 0, "deterministic": false }
 * `mean` is in the net's channel order; "image" subtracts mean.binaryproto whole
 * (centre-cropped to the input), by default its average per channel is subtracted.
 */
#ifndef SAC_MODEL_MODEL_H
#define SAC_MODEL_MODEL_H

#include "base/error.h"
#include "device/device.h"
#include "formats/caffe.h"
#include "image/preprocess.h"
#include "net/net.h"

struct sac_model;

/* Where the files are: `dir`, or the four. Text is borrowed during the call. */
struct sac_model_files {
    const char *dir;
    const char *deploy, *weights, *mean, *labels; /* mean may be NULL */
};

/* What flags say over model.json; NULL or negative: not said. Start it from
 * SAC_MODEL_OVERRIDES_NONE. */
struct sac_model_overrides {
    const char *name;
    const char *resize, *crop, *mean, *channels, *decode, *precision; /* as in model.json */
    double scale;                                                     /* 0: not said */
    int topk, batch_max, timeout_ms, priority;
    int deterministic;
};
#define SAC_MODEL_OVERRIDES_NONE                                                                   \
    (struct sac_model_overrides)                                                                   \
    {                                                                                              \
        .topk = -1, .batch_max = -1, .timeout_ms = -1, .priority = -1, .deterministic = -1         \
    }

int sac_model_open(struct sac_model **ret, const struct sac_model_files *files,
                   const struct sac_model_overrides *overrides, struct sac_error *err);
struct sac_model *sac_model_ref(struct sac_model *model);
void sac_model_unref(struct sac_model *model); /* takes NULL */

const char *sac_model_name(const struct sac_model *model);
/* The files that it was read from; they live as long as the model. */
const char *sac_model_deploy_path(const struct sac_model *model);
const char *sac_model_weights_path(const struct sac_model *model);
const struct sac_net *sac_model_net(const struct sac_model *model);
const struct sac_preprocess *sac_model_preprocess(const struct sac_model *model);
/* What the device's first operation does to the pixels (SAC_OP_PIXELS); its mean image is
 * the model's. */
union sac_op_param sac_model_pixels(const struct sac_model *model);
int sac_model_class_count(const struct sac_model *model);
/* The label, or "class 17" where the file has fewer lines than the net classes. */
const char *sac_model_label(const struct sac_model *model, int index);
int sac_model_topk(const struct sac_model *model); /* 5 unless said; ≤ classes */
/* 1 to SAC_MODEL_BATCH_MAX. Unless said: 8 where the device's memory is the host's, else 64,
 * or as many as there is memory for (sac_engine_batch_max). */
enum { SAC_MODEL_BATCH_MAX = 256 };
int sac_model_batch_max(const struct sac_model *model, const struct sac_device *device);
bool sac_model_says_batch_max(const struct sac_model *model);
int sac_model_timeout_ms(const struct sac_model *model); /* 1,000 unless said */
/* 0 to 15, 0 unless said: served sooner than lower ones (serve/scheduler.h). */
int sac_model_priority(const struct sac_model *model);
bool sac_model_deterministic(const struct sac_model *model);
/* Of its precision.json (model/precision_file.h), for int8 and "auto"; NULL: there is
 * none, or it is not of these weights. */
struct sac_precision_report;
const struct sac_precision_report *sac_model_precision_report(const struct sac_model *model);
/* Those of the report, or NULL. */
const struct sac_ranges *sac_model_ranges(const struct sac_model *model);
/* What the model asks for. "auto": bf16 where the device is fast at it and the model's
 * answers were found to agree with f32's on a device of that kind; else f32. `why`
 * gets a sentence; NULL: not wanted. */
enum sac_precision sac_model_precision_why(const struct sac_model *model,
                                           const struct sac_device *device, char *why, size_t size);
enum sac_precision sac_model_precision(const struct sac_model *model,
                                       const struct sac_device *device);

#endif
