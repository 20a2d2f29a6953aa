#include "model/model.h"

#include <dirent.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "model/precision_file.h"
#include "model/settings.h"

/* The files of a model directory, found by name; owned. */
struct paths {
    char *deploy, *weights, *mean, *labels, *json, *precision;
};

struct sac_model {
    atomic_int references;
    struct paths paths;
    struct sac_settings settings;
    struct sac_net *net;
    struct sac_labels labels;
    int class_count;
    char (*spare_labels)[24]; /* for classes that the file has no line for */
    float *mean_image;        /* the net's input shape, or NULL */
    struct sac_preprocess preprocess;
    struct sac_precision_report report; /* checked 0 and no ranges: there is none */
    bool has_report;
};

static void paths_done(struct paths *paths)
{
    free(paths->deploy);
    free(paths->weights);
    free(paths->mean);
    free(paths->labels);
    free(paths->json);
    free(paths->precision);
}

static char *join(const char *folder, const char *name)
{
    char *path;

    return asprintf(&path, "%s/%s", folder, name) < 0 ? NULL : path;
}

static char *join_if_there(const char *folder, const char *name)
{
    char *path = join(folder, name);

    if (path && !sac_file_exists(path)) {
        free(path);
        path = NULL;
    }
    return path;
}

static bool has_suffix(const char *name, const char *suffix)
{
    size_t size = strlen(name), tail = strlen(suffix);

    return size > tail && strcmp(name + size - tail, suffix) == 0;
}

/* The one *.caffemodel of the folder, binary or (.h5) HDF5. */
static int find_weights(const char *dir, char **ret, struct sac_error *err)
{
    char *found = NULL;
    struct dirent *entry;
    int rc = 0;
    DIR *folder = opendir(dir);

    if (!folder)
        return sac_fail_errno(err, errno, "%s", dir);
    while (rc == 0 && (entry = readdir(folder))) {
        if (!has_suffix(entry->d_name, ".caffemodel") &&
            !has_suffix(entry->d_name, ".caffemodel.h5"))
            continue;
        if (found)
            rc =
                sac_fail(err, SAC_EINVAL,
                         "%s: expected one .caffemodel, found several; name one by --weights", dir);
        else if (!(found = join(dir, entry->d_name)))
            rc = sac_fail(err, SAC_ENOMEM, "%s: out of memory", dir);
    }
    closedir(folder);
    if (rc == 0 && !found)
        rc = sac_fail(err, SAC_ENOENT, "%s: no .caffemodel in this folder", dir);
    if (rc == 0)
        *ret = found;
    else
        free(found);
    return rc;
}

/* False when memory is out; nothing is copied where nothing is named. */
static bool copy_path(char **ret, const char *path)
{
    *ret = path ? strdup(path) : NULL;
    return *ret || !path;
}

/* A file that was named goes before one that is found. */
static int find_files(struct paths *paths, const struct sac_model_files *files,
                      struct sac_error *err)
{
    const char *dir = files->dir;

    if (dir && !sac_file_is_folder(dir))
        return sac_fail(err, SAC_ENOENT, "%s: no such folder; a model directory was expected", dir);
    if (!dir && (!files->deploy || !files->weights || !files->labels))
        return sac_fail(err, SAC_EINVAL,
                        "a model directory, or a deploy prototxt, a caffemodel "
                        "and a label file were expected");
    paths->deploy = files->deploy ? strdup(files->deploy) : join(dir, "deploy.prototxt");
    if (!paths->deploy || !copy_path(&paths->mean, files->mean) ||
        !copy_path(&paths->labels, files->labels) || !copy_path(&paths->weights, files->weights))
        return sac_fail(err, SAC_ENOMEM, "out of memory");
    if (!paths->mean && dir)
        paths->mean = join_if_there(dir, "mean.binaryproto");
    if (!paths->labels && !(paths->labels = join_if_there(dir, "labels.txt")))
        paths->labels = join_if_there(dir, "synset_words.txt");
    if (dir)
        paths->json = join_if_there(dir, "model.json");
    if (dir)
        paths->precision = join_if_there(dir, SAC_PRECISION_FILE);
    return paths->weights ? 0 : find_weights(dir, &paths->weights, err);
}

/* The net's one input, 1 × C × H × W with 1 or 3 channels. */
static int picture_shape(const struct sac_net *net, const char *deploy, struct sac_shape *ret,
                         struct sac_error *err)
{
    char text[SAC_SHAPE_TEXT];

    if (sac_net_input_count(net) != 1)
        return sac_fail(err, SAC_EUNSUPPORTED, "%s: expected one input for pictures, found %d",
                        deploy, sac_net_input_count(net));
    sac_net_blob_shape(net, sac_net_input_name(net, 0), ret);
    if (ret->rank != 4 || (ret->dim[1] != 1 && ret->dim[1] != 3) || ret->dim[2] > 16384 ||
        ret->dim[3] > 16384)
        return sac_fail(err, SAC_EUNSUPPORTED,
                        "%s: expected an input of N × 1 or 3 × H × W for pictures, found %s",
                        deploy, sac_shape_text(ret, text, sizeof text));
    return 0;
}

static int count_classes(struct sac_model *model, const char *deploy, struct sac_error *err)
{
    int outputs = sac_net_output_count(model->net);
    struct sac_shape shape = {0};
    char text[SAC_SHAPE_TEXT];

    if (outputs > 0)
        sac_net_blob_shape(model->net, sac_net_output_name(model->net, outputs - 1), &shape);
    if (shape.rank < 2 || sac_shape_count_between(&shape, 2, shape.rank) != 1)
        return sac_fail(err, SAC_EUNSUPPORTED,
                        "%s: expected the last output to be one value a class (N × C), found %s",
                        deploy, sac_shape_text(&shape, text, sizeof text));
    model->class_count = (int)shape.dim[1];
    if (model->settings.topk > model->class_count)
        model->settings.topk = model->class_count;
    return 0;
}

/* Names for classes without a line; more lines than classes is a mix-up. */
static int complete_labels(struct sac_model *model, const char *dir, const char *labels,
                           struct sac_error *err)
{
    int spare = model->class_count - model->labels.count;

    if (spare < 0)
        return sac_fail(err, SAC_EINVAL, "%s: %d labels, but the net has %d classes", labels,
                        model->labels.count, model->class_count);
    if (spare == 0)
        return 0;
    if (labels)
        sac_log(SAC_LOG_WARNING, "%s: %d label%s for %d classes; the others are called by number",
                labels, model->labels.count, model->labels.count == 1 ? "" : "s",
                model->class_count);
    else
        sac_log(SAC_LOG_WARNING,
                "%s: no labels.txt or synset_words.txt; its %d classes are called by number", dir,
                model->class_count);
    model->spare_labels = calloc((size_t)spare, sizeof *model->spare_labels);
    if (!model->spare_labels)
        return sac_fail(err, SAC_ENOMEM, "out of memory for %d labels", spare);
    for (int i = 0; i < spare; i++)
        snprintf(model->spare_labels[i], sizeof *model->spare_labels, "class %d",
                 model->labels.count + i);
    return 0;
}

static int set_crop(struct sac_preprocess *how, const struct sac_settings *settings,
                    struct sac_error *err)
{
    if (settings->crop_width &&
        (settings->crop_width != how->crop_width || settings->crop_height != how->crop_height))
        return sac_fail(
            err, SAC_EINVAL, "crop %d × %d does not agree with the net's input, %d × %d",
            settings->crop_width, settings->crop_height, how->crop_width, how->crop_height);
    if (settings->resize_width &&
        (settings->resize_width < how->crop_width || settings->resize_height < how->crop_height))
        return sac_fail(
            err, SAC_EINVAL, "resize_size %d × %d is smaller than the net's input, %d × %d",
            settings->resize_width, settings->resize_height, how->crop_width, how->crop_height);
    how->resize_width = settings->resize_width;
    how->resize_height = settings->resize_height;
    return 0;
}

static int set_channels(struct sac_preprocess *how, const struct sac_settings *settings,
                        struct sac_error *err)
{
    bool grey = settings->channels == SAC_CHANNELS_GREY;

    if (settings->channels != SAC_CHANNELS_AUTO && grey != (how->channels == 1))
        return sac_fail(err, SAC_EINVAL,
                        "channels \"%s\" does not agree with the net's %d channels",
                        grey                                     ? "grey"
                        : settings->channels == SAC_CHANNELS_RGB ? "rgb"
                                                                 : "bgr",
                        how->channels);
    how->bgr = how->channels == 3 && settings->channels != SAC_CHANNELS_RGB;
    return 0;
}

static int read_mean_blob(struct sac_caffe_blob *blob, const char *path, int channels,
                          struct sac_error *err)
{
    int rc = sac_caffe_blob_load(blob, path, err);

    if (rc)
        return rc;
    /* 1 × C × H × W as Caffe writes it, or C × H × W. */
    if (blob->rank == 4 && blob->dim[0] == 1) {
        memmove(blob->dim, blob->dim + 1, 3 * sizeof *blob->dim);
        blob->rank = 3;
    }
    if (blob->rank == 3 && blob->dim[0] == channels && blob->count > 0)
        return 0;
    rc = sac_fail(err, SAC_EINVAL, "%s: expected a mean of %d channels, found %lld", path, channels,
                  blob->rank == 3 ? (long long)blob->dim[0] : 0LL);
    sac_caffe_blob_done(blob);
    return rc;
}

/* GPU REST Engine's way: one mean a channel. */
static void average_mean(struct sac_preprocess *how, const struct sac_caffe_blob *blob)
{
    size_t plane = blob->count / (size_t)how->channels;

    for (int c = 0; c < how->channels; c++) {
        double sum = 0;
        for (size_t i = 0; i < plane; i++)
            sum += blob->data[(size_t)c * plane + i];
        how->mean[c] = (float)(sum / (double)plane);
    }
}

/* Caffe's way: the centre of the mean image, where the crop is taken. */
static int crop_mean(struct sac_model *model, const struct sac_caffe_blob *blob, const char *path,
                     struct sac_error *err)
{
    struct sac_preprocess *how = &model->preprocess;
    int64_t height = how->crop_height, width = how->crop_width;
    int64_t top = (blob->dim[1] - height) / 2, left = (blob->dim[2] - width) / 2;

    if (blob->dim[1] < height || blob->dim[2] < width)
        return sac_fail(err, SAC_EINVAL,
                        "%s: the mean image, %lld × %lld, is smaller than the "
                        "net's input, %lld × %lld",
                        path, (long long)blob->dim[2], (long long)blob->dim[1], (long long)width,
                        (long long)height);
    model->mean_image = malloc((size_t)(how->channels * height * width) * sizeof(float));
    if (!model->mean_image)
        return sac_fail(err, SAC_ENOMEM, "%s: out of memory", path);
    for (int64_t row = 0; row < how->channels * height; row++) {
        int64_t c = row / height, y = row % height + top;
        memcpy(model->mean_image + row * width,
               blob->data + (c * blob->dim[1] + y) * blob->dim[2] + left,
               (size_t)width * sizeof(float));
    }
    how->mean_image = model->mean_image;
    return 0;
}

static int set_mean_from_file(struct sac_model *model, const char *path, struct sac_error *err)
{
    struct sac_caffe_blob blob = {0};
    int rc = read_mean_blob(&blob, path, model->preprocess.channels, err);

    if (rc)
        return rc;
    if (model->settings.mean_kind == SAC_MEAN_IMAGE)
        rc = crop_mean(model, &blob, path, err);
    else
        average_mean(&model->preprocess, &blob);
    sac_caffe_blob_done(&blob);
    return rc;
}

static int set_mean(struct sac_model *model, const char *path, struct sac_error *err)
{
    const struct sac_settings *settings = &model->settings;
    struct sac_preprocess *how = &model->preprocess;

    if (settings->mean_kind == SAC_MEAN_NONE)
        return 0;
    if (settings->mean_kind == SAC_MEAN_VALUES) {
        if (settings->mean_count != 1 && settings->mean_count != how->channels)
            return sac_fail(err, SAC_EINVAL, "mean: expected 1 or %d numbers, found %d",
                            how->channels, settings->mean_count);
        for (int c = 0; c < how->channels; c++)
            how->mean[c] = settings->mean[settings->mean_count == 1 ? 0 : c];
        return 0;
    }
    if (path)
        return set_mean_from_file(model, path, err);
    if (settings->mean_kind == SAC_MEAN_IMAGE)
        return sac_fail(err, SAC_EINVAL, "mean \"image\" needs a mean.binaryproto");
    return 0;
}

static int set_preprocess(struct sac_model *model, const struct paths *paths, struct sac_error *err)
{
    const struct sac_settings *settings = &model->settings;
    struct sac_shape input;
    int rc = picture_shape(model->net, paths->deploy, &input, err);

    if (rc)
        return rc;
    struct sac_preprocess *how = &model->preprocess;
    *how = sac_preprocess_default((int)input.dim[1], (int)input.dim[3], (int)input.dim[2]);
    how->resize = settings->resize;
    how->decode = settings->decode;
    how->scale = settings->scale;
    memcpy(how->background, settings->background, sizeof how->background);
    rc = set_crop(how, settings, err);
    if (rc == 0)
        rc = set_channels(how, settings, err);
    if (rc == 0)
        rc = set_mean(model, paths->mean, err);
    return rc;
}

static int load_net(struct sac_model *model, const struct paths *paths, struct sac_error *err)
{
    const struct sac_net_options options = {.phase = SAC_PHASE_TEST};
    struct sac_weights_report report = {0};
    int rc = sac_net_load(&model->net, paths->deploy, &options, err);

    if (rc == 0)
        rc = sac_net_load_weights(model->net, paths->weights, &report, err);
    if (rc == 0 && report.layers_missing > 0)
        rc = sac_fail(err, SAC_EINVAL,
                      "%s: no weights for layer \"%s\" of %s%s: not this net's weights?",
                      paths->weights, report.first_missing, paths->deploy,
                      report.layers_missing > 1 ? " and others" : "");
    return rc;
}

static int load_settings(struct sac_model *model, const struct paths *paths,
                         const struct sac_model_overrides *overrides, struct sac_error *err)
{
    int rc = 0;

    model->settings = sac_settings_default();
    if (paths->json)
        rc = sac_settings_read_json(&model->settings, paths->json, err);
    if (rc == 0 && overrides)
        rc = sac_settings_override(&model->settings, overrides, err);
    return rc;
}

/* Ranges and agreements hold for the weights that they were measured with. */
static int read_report(struct sac_precision_report *ret, const struct paths *paths,
                       struct sac_error *err)
{
    struct sac_precision_report report = {0}, own = {0};
    int rc = sac_precision_read(&report, paths->precision, err);

    if (rc == 0)
        rc = sac_precision_identify(&own, paths->weights, err);
    if (rc == 0 &&
        (report.weights_bytes != own.weights_bytes || report.weights_crc32 != own.weights_crc32))
        rc = sac_fail(err, SAC_EINVAL,
                      "%s: it was measured with other weights than %s; run \"saccade quantize\" "
                      "again",
                      paths->precision, paths->weights);
    if (rc == 0)
        *ret = report;
    else
        sac_ranges_done(&report.ranges);
    return rc;
}

/* int8 cannot do without it; "auto" can. */
static int load_report(struct sac_model *model, struct sac_error *err)
{
    const struct paths *paths = &model->paths;
    int precision = model->settings.precision;
    struct sac_error why = {0};
    int rc = 0;

    if (precision >= 0 && precision != SAC_PRECISION_INT8)
        return 0;
    if (paths->precision)
        rc = read_report(&model->report, paths, &why);
    model->has_report = paths->precision && rc == 0;
    if (rc != 0 && precision < 0) {
        sac_log(SAC_LOG_WARNING, "%s", why.text);
        return 0;
    }
    if (rc != 0)
        *err = why;
    else if (precision == SAC_PRECISION_INT8 && !model->report.int8.measured)
        rc = sac_fail(err, SAC_EINVAL,
                      "%s: int8 needs the ranges of its blobs in " SAC_PRECISION_FILE
                      ", which \"saccade quantize MODEL_DIR --data PICTURES\" finds",
                      paths->weights);
    return rc;
}

/* A folder's own name, else the net's, as far as it can stand in a URL. */
static void choose_name(struct sac_model *model, const char *dir)
{
    char *name = model->settings.name, *real = dir ? realpath(dir, NULL) : NULL;
    const char *from = real ? strrchr(real, '/') + 1 : sac_net_name(model->net);
    size_t used = 0;

    if (name[0]) {
        free(real);
        return;
    }
    for (; *from && used + 1 < sizeof model->settings.name; from++) {
        bool plain = (*from >= 'a' && *from <= 'z') || (*from >= 'A' && *from <= 'Z') ||
                     (*from >= '0' && *from <= '9') || strchr("._-", *from);
        name[used++] = plain ? *from : '_';
    }
    snprintf(name + used, sizeof model->settings.name - used, "%s", used ? "" : "default");
    free(real);
}

int sac_model_open(struct sac_model **ret, const struct sac_model_files *files,
                   const struct sac_model_overrides *overrides, struct sac_error *err)
{
    struct sac_model *model = calloc(1, sizeof *model);
    struct paths *paths = model ? &model->paths : NULL;
    int rc = model ? 0 : sac_fail(err, SAC_ENOMEM, "out of memory");

    if (rc == 0)
        rc = find_files(paths, files, err);
    if (rc == 0)
        rc = load_settings(model, paths, overrides, err);
    if (rc == 0)
        rc = load_net(model, paths, err);
    if (rc == 0)
        rc = load_report(model, err);
    if (rc == 0)
        rc = count_classes(model, paths->deploy, err);
    if (rc == 0 && paths->labels)
        rc = sac_labels_load(&model->labels, paths->labels, err);
    if (rc == 0)
        rc = complete_labels(model, files->dir, paths->labels, err);
    if (rc == 0)
        rc = set_preprocess(model, paths, err);
    if (rc == 0) {
        choose_name(model, files->dir);
        atomic_init(&model->references, 1);
        *ret = model;
        model = NULL;
    }
    if (model) {
        atomic_init(&model->references, 1);
        sac_model_unref(model);
    }
    return rc;
}

struct sac_model *sac_model_ref(struct sac_model *model)
{
    atomic_fetch_add(&model->references, 1);
    return model;
}

void sac_model_unref(struct sac_model *model)
{
    if (!model || atomic_fetch_sub(&model->references, 1) != 1)
        return;
    sac_net_free(model->net);
    sac_labels_done(&model->labels);
    sac_ranges_done(&model->report.ranges);
    free(model->spare_labels);
    free(model->mean_image);
    paths_done(&model->paths);
    free(model);
}

const char *sac_model_name(const struct sac_model *model)
{
    return model->settings.name;
}

const char *sac_model_deploy_path(const struct sac_model *model)
{
    return model->paths.deploy;
}

const char *sac_model_weights_path(const struct sac_model *model)
{
    return model->paths.weights;
}

const struct sac_net *sac_model_net(const struct sac_model *model)
{
    return model->net;
}

const struct sac_preprocess *sac_model_preprocess(const struct sac_model *model)
{
    return &model->preprocess;
}

union sac_op_param sac_model_pixels(const struct sac_model *model)
{
    const struct sac_preprocess *how = &model->preprocess;
    union sac_op_param param = {
        .pixels = {.scale = how->scale, .swap = how->bgr, .mean_image = how->mean_image}};

    memcpy(param.pixels.mean, how->mean, sizeof how->mean);
    return param;
}

int sac_model_class_count(const struct sac_model *model)
{
    return model->class_count;
}

const char *sac_model_label(const struct sac_model *model, int index)
{
    if (index < model->labels.count)
        return model->labels.text[index];
    return model->spare_labels[index - model->labels.count];
}

int sac_model_topk(const struct sac_model *model)
{
    return model->settings.topk;
}

int sac_model_batch_max(const struct sac_model *model, const struct sac_device *device)
{
    enum { ON_CORES = 8, ON_A_GPU = 64 };
    int said = model->settings.batch_max;

    return said > 0 ? said : device->info.host_memory ? ON_CORES : ON_A_GPU;
}

bool sac_model_says_batch_max(const struct sac_model *model)
{
    return model->settings.batch_max > 0;
}

int sac_model_timeout_ms(const struct sac_model *model)
{
    return model->settings.timeout_ms;
}

int sac_model_priority(const struct sac_model *model)
{
    return model->settings.priority;
}

bool sac_model_deterministic(const struct sac_model *model)
{
    return model->settings.deterministic;
}

const struct sac_precision_report *sac_model_precision_report(const struct sac_model *model)
{
    return model->has_report ? &model->report : NULL;
}

const struct sac_ranges *sac_model_ranges(const struct sac_model *model)
{
    return model->has_report && model->report.int8.measured ? &model->report.ranges : NULL;
}

enum sac_precision sac_model_precision_why(const struct sac_model *model,
                                           const struct sac_device *device, char *why, size_t size)
{
    const struct sac_precision_report *report = sac_model_precision_report(model);
    const char *name = device->info.name;

    if (model->settings.precision >= 0) {
        snprintf(why, size, "as it was asked for");
        return (enum sac_precision)model->settings.precision;
    }
    if (!(device->info.precisions & 1u << SAC_PRECISION_BF16))
        snprintf(why, size, "device %s has no fast bf16", name);
    else if (!report)
        snprintf(why, size,
                 "whether bf16's answers agree is not known: no " SAC_PRECISION_FILE
                 " by \"saccade quantize\"");
    else if (strcmp(report->device, device->table->kind) != 0)
        snprintf(why, size, "bf16's answers were compared on a %s device only", report->device);
    else if (report->checked < SAC_PRECISION_CHECKED)
        snprintf(why, size, "bf16's answers were compared on %d pictures, fewer than %d",
                 report->checked, SAC_PRECISION_CHECKED);
    else
        snprintf(why, size, "bf16's first label is f32's for %d of %d pictures", report->bf16.agree,
                 report->checked);
    bool agrees = report && strcmp(report->device, device->table->kind) == 0 &&
                  (device->info.precisions & 1u << SAC_PRECISION_BF16) &&
                  sac_precision_bf16_agrees(report);
    return agrees ? SAC_PRECISION_BF16 : SAC_PRECISION_F32;
}

enum sac_precision sac_model_precision(const struct sac_model *model,
                                       const struct sac_device *device)
{
    return sac_model_precision_why(model, device, NULL, 0);
}
