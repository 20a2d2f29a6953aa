#include "model/precision_file.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32.h"
#include "base/durable.h"
#include "base/file.h"

enum { FILE_BYTES_MAX = 16 << 20, PICTURES_MAX = 1 << 24 };
#define WEIGHTS_BYTES_MAX ((size_t)4 << 30)

static const char *const rules[] = {[SAC_CALIBRATE_MSE] = "mse", [SAC_CALIBRATE_MAX] = "max"};

int sac_precision_identify(struct sac_precision_report *report, const char *weights_path,
                           struct sac_error *err)
{
    uint8_t *bytes = NULL;
    size_t size = 0;
    int rc = sac_file_read(weights_path, WEIGHTS_BYTES_MAX, &bytes, &size, err);

    if (rc != 0)
        return rc;
    report->weights_bytes = size;
    report->weights_crc32 = sac_crc32(0, bytes, size);
    free(bytes);
    return 0;
}

bool sac_precision_bf16_agrees(const struct sac_precision_report *report)
{
    const struct sac_precision_score *bf16 = &report->bf16;

    return bf16->measured && report->checked >= SAC_PRECISION_CHECKED &&
           bf16->agree >= report->checked - report->checked / 50 &&
           bf16->top1 >= report->f32.top1 - report->labelled / 50;
}

/* ---- Writing ---- */

static json_t *score_json(const struct sac_precision_report *report,
                          const struct sac_precision_score *score, bool agrees)
{
    json_t *out = json_object();

    if (agrees)
        json_object_set_new(out, "agree", json_integer(score->agree));
    if (report->labelled > 0) {
        json_object_set_new(out, "top1", json_integer(score->top1));
        json_object_set_new(out, "top5", json_integer(score->top5));
    }
    return out;
}

static json_t *int8_json(const struct sac_precision_report *report)
{
    json_t *out = score_json(report, &report->int8, true), *keep = json_array();
    json_t *ranges = json_object();

    for (int i = 0; i < report->ranges.keep_count; i++)
        json_array_append_new(keep, json_string(report->ranges.keep[i]));
    for (int i = 0; i < report->ranges.blob_count; i++) {
        const struct sac_range *range = &report->ranges.blobs[i];
        json_object_set_new(ranges, range->name,
                            json_pack("[ff]", (double)range->low, (double)range->high));
    }
    json_object_set_new(out, "calibrated", json_integer(report->calibrated));
    json_object_set_new(out, "rule", json_string(rules[report->rule]));
    json_object_set_new(out, "keep", keep);
    json_object_set_new(out, "ranges", ranges);
    return out;
}

int sac_precision_write(const struct sac_precision_report *report, const char *path,
                        struct sac_error *err)
{
    json_t *root = json_pack("{s:{s:I,s:I},s:s,s:i,s:i}", "weights", "bytes",
                             (json_int_t)report->weights_bytes, "crc32",
                             (json_int_t)report->weights_crc32, "device", report->device, "checked",
                             report->checked, "labelled", report->labelled);
    char *text = NULL;

    if (root && report->labelled > 0)
        json_object_set_new(root, "f32", score_json(report, &report->f32, false));
    if (root && report->bf16.measured)
        json_object_set_new(root, "bf16", score_json(report, &report->bf16, true));
    if (root && report->int8.measured)
        json_object_set_new(root, "int8", int8_json(report));
    if (root)
        text = json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
    int rc = text ? sac_durable_write(path, text, strlen(text), err)
                  : sac_fail(err, SAC_ENOMEM, "%s: out of memory", path);
    free(text);
    json_decref(root);
    return rc;
}

/* ---- Reading ---- */

static int refuse(const char *path, const char *field, const char *expected, struct sac_error *err)
{
    return sac_fail(err, SAC_EINVAL, "%s: \"%s\": expected %s", path, field, expected);
}

static int read_count(const json_t *object, const char *field, const char *path, int *ret,
                      struct sac_error *err)
{
    const json_t *value = json_object_get(object, field);

    if (!json_is_integer(value) || json_integer_value(value) < 0 ||
        json_integer_value(value) > PICTURES_MAX)
        return refuse(path, field, "a number of pictures", err);
    *ret = (int)json_integer_value(value);
    return 0;
}

static int read_score(const struct sac_precision_report *report, const json_t *object, bool agrees,
                      const char *path, struct sac_precision_score *ret, struct sac_error *err)
{
    int rc = 0;

    if (!object)
        return 0;
    ret->measured = true;
    if (agrees)
        rc = read_count(object, "agree", path, &ret->agree, err);
    if (rc == 0 && report->labelled > 0)
        rc = read_count(object, "top1", path, &ret->top1, err);
    if (rc == 0 && report->labelled > 0)
        rc = read_count(object, "top5", path, &ret->top5, err);
    return rc;
}

static int read_keep(struct sac_ranges *ranges, const json_t *list, const char *path,
                     struct sac_error *err)
{
    size_t count = json_array_size(list);

    if (!json_is_array(list))
        return refuse(path, "keep", "a list of layers", err);
    ranges->keep = calloc(count + 1, sizeof *ranges->keep);
    if (!ranges->keep)
        return sac_fail(err, SAC_ENOMEM, "%s: out of memory", path);
    for (size_t i = 0; i < count; i++) {
        const char *name = json_string_value(json_array_get(list, i));
        if (!name)
            return refuse(path, "keep", "a list of layers", err);
        ranges->keep[i] = strdup(name);
        if (!ranges->keep[i])
            return sac_fail(err, SAC_ENOMEM, "%s: out of memory", path);
        ranges->keep_count++;
    }
    return 0;
}

static bool is_range(const json_t *value, struct sac_range *ret)
{
    double low = json_number_value(json_array_get(value, 0));
    double high = json_number_value(json_array_get(value, 1));

    ret->low = (float)low;
    ret->high = (float)high;
    return json_is_array(value) && json_array_size(value) == 2 &&
           json_is_number(json_array_get(value, 0)) && json_is_number(json_array_get(value, 1)) &&
           low <= 0 && high >= 0 && high - low > 0 && high < 3e38 && low > -3e38;
}

static int read_ranges(struct sac_ranges *ranges, json_t *object, const char *path,
                       struct sac_error *err)
{
    const char *name;
    json_t *value;

    if (!json_is_object(object))
        return refuse(path, "ranges", "an object", err);
    ranges->blobs = calloc(json_object_size(object) + 1, sizeof *ranges->blobs);
    if (!ranges->blobs)
        return sac_fail(err, SAC_ENOMEM, "%s: out of memory", path);
    json_object_foreach(object, name, value)
    {
        struct sac_range *range = &ranges->blobs[ranges->blob_count];
        if (!is_range(value, range))
            return refuse(path, name, "two numbers, the first at most 0, the second at least", err);
        range->name = strdup(name);
        if (!range->name)
            return sac_fail(err, SAC_ENOMEM, "%s: out of memory", path);
        ranges->blob_count++;
    }
    return 0;
}

static int read_int8(struct sac_precision_report *report, json_t *object, const char *path,
                     struct sac_error *err)
{
    const char *rule = json_string_value(json_object_get(object, "rule"));
    int rc = read_score(report, object, true, path, &report->int8, err);

    if (rc != 0 || !object)
        return rc;
    rc = read_count(object, "calibrated", path, &report->calibrated, err);
    if (rc == 0 && (!rule || (strcmp(rule, "mse") != 0 && strcmp(rule, "max") != 0)))
        rc = refuse(path, "rule", "mse or max", err);
    if (rc == 0)
        report->rule = strcmp(rule, "max") == 0 ? SAC_CALIBRATE_MAX : SAC_CALIBRATE_MSE;
    if (rc == 0)
        rc = read_keep(&report->ranges, json_object_get(object, "keep"), path, err);
    if (rc == 0)
        rc = read_ranges(&report->ranges, json_object_get(object, "ranges"), path, err);
    return rc;
}

static int read_root(struct sac_precision_report *report, json_t *root, const char *path,
                     struct sac_error *err)
{
    const json_t *weights = json_object_get(root, "weights");
    const json_t *bytes = json_object_get(weights, "bytes");
    const json_t *crc = json_object_get(weights, "crc32");
    const char *device = json_string_value(json_object_get(root, "device"));
    int rc;

    if (!json_is_integer(bytes) || !json_is_integer(crc))
        return refuse(path, "weights", "the bytes and the crc32 of the file of weights", err);
    if (!device || strlen(device) >= sizeof report->device)
        return refuse(path, "device", "the kind of a device", err);
    report->weights_bytes = (uint64_t)json_integer_value(bytes);
    report->weights_crc32 = (uint32_t)json_integer_value(crc);
    memcpy(report->device, device, strlen(device) + 1);
    rc = read_count(root, "checked", path, &report->checked, err);
    if (rc == 0)
        rc = read_count(root, "labelled", path, &report->labelled, err);
    if (rc == 0)
        rc = read_score(report, json_object_get(root, "f32"), false, path, &report->f32, err);
    if (rc == 0)
        rc = read_score(report, json_object_get(root, "bf16"), true, path, &report->bf16, err);
    if (rc == 0)
        rc = read_int8(report, json_object_get(root, "int8"), path, err);
    return rc;
}

int sac_precision_read(struct sac_precision_report *ret, const char *path, struct sac_error *err)
{
    struct sac_precision_report report = {0};
    uint8_t *bytes = NULL;
    json_error_t why;
    json_t *root = NULL;
    size_t size = 0;
    int rc = sac_file_read(path, FILE_BYTES_MAX, &bytes, &size, err);

    if (rc == 0)
        root = json_loadb((const char *)bytes, size, JSON_REJECT_DUPLICATES, &why);
    free(bytes);
    if (rc == 0 && !root)
        rc = sac_fail(err, SAC_EINVAL, "%s:%d: %s", path, why.line, why.text);
    if (rc == 0)
        rc = read_root(&report, root, path, err);
    json_decref(root);
    if (rc == 0)
        *ret = report;
    else
        sac_ranges_done(&report.ranges);
    return rc;
}
