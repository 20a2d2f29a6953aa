#include "model/settings.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

enum { JSON_BYTES_MAX = 1 << 20, SIDE_MAX = 16384 };

struct sac_settings sac_settings_default(void)
{
    return (struct sac_settings){
        .resize = SAC_RESIZE_SQUASH,
        .scale = 1,
        .precision = -1,
        .topk = 5,
        .timeout_ms = 1000,
    };
}

/* A word and what it stands for; tables end in a NULL word. */
struct word {
    const char *text;
    int value;
};

static const struct word resize_words[] = {
    {"squash", SAC_RESIZE_SQUASH}, {"short", SAC_RESIZE_SHORT}, {"none", SAC_RESIZE_NONE}, {0}};
static const struct word channel_words[] = {{"bgr", SAC_CHANNELS_BGR},
                                            {"rgb", SAC_CHANNELS_RGB},
                                            {"grey", SAC_CHANNELS_GREY},
                                            {"gray", SAC_CHANNELS_GREY},
                                            {0}};
static const struct word decode_words[] = {
    {"fast", SAC_DECODE_FAST}, {"exact", SAC_DECODE_EXACT}, {0}};
static const struct word precision_words[] = {{"auto", -1},
                                              {"f32", SAC_PRECISION_F32},
                                              {"fp32", SAC_PRECISION_F32},
                                              {"bf16", SAC_PRECISION_BF16},
                                              {"f16", SAC_PRECISION_F16},
                                              {"fp16", SAC_PRECISION_F16},
                                              {"tf32", SAC_PRECISION_TF32},
                                              {"int8", SAC_PRECISION_INT8},
                                              {0}};

static int find_word(const struct word *words, const char *what, const char *text, int *ret,
                     struct sac_error *err)
{
    char list[128] = "";

    for (const struct word *word = words; word->text; word++) {
        if (strcmp(word->text, text) == 0) {
            *ret = word->value;
            return 0;
        }
        strncat(list, word == words ? "" : ", ", sizeof list - strlen(list) - 1);
        strncat(list, word->text, sizeof list - strlen(list) - 1);
    }
    return sac_fail(err, SAC_EINVAL, "%s: expected one of %s, found \"%s\"", what, list, text);
}

static int check_range(const char *what, double value, double least, double most,
                       struct sac_error *err)
{
    if (value >= least && value <= most)
        return 0;
    return sac_fail(err, SAC_EINVAL, "%s: expected %g to %g, found %g", what, least, most, value);
}

static int take_name(struct sac_settings *settings, const char *what, const char *name,
                     struct sac_error *err)
{
    size_t size = strlen(name);

    /* A name stands in URLs and in metric labels. */
    if (size == 0 || size >= sizeof settings->name ||
        strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != size)
        return sac_fail(err, SAC_EINVAL,
                        "%s: expected 1 to %zu letters, digits, dots, dashes or underscores, "
                        "found \"%s\"",
                        what, sizeof settings->name - 1, name);
    memcpy(settings->name, name, size + 1);
    return 0;
}

/* model.json: one reader a field. */

typedef int field_reader(struct sac_settings *settings, const json_t *value, const char *what,
                         struct sac_error *err);

static int expect(const json_t *value, json_type type, const char *what, const char *expected,
                  struct sac_error *err)
{
    if (json_typeof(value) == type || (type == JSON_REAL && json_is_number(value)))
        return 0;
    return sac_fail(err, SAC_EINVAL, "%s: expected %s", what, expected);
}

static int read_word(const json_t *value, const struct word *words, const char *what, int *ret,
                     struct sac_error *err)
{
    int rc = expect(value, JSON_STRING, what, "text", err);

    return rc ? rc : find_word(words, what, json_string_value(value), ret, err);
}

static int read_int(const json_t *value, const char *what, int least, int most, int *ret,
                    struct sac_error *err)
{
    int rc = expect(value, JSON_INTEGER, what, "a whole number", err);

    if (rc == 0)
        rc = check_range(what, (double)json_integer_value(value), least, most, err);
    if (rc == 0)
        *ret = (int)json_integer_value(value);
    return rc;
}

/* 227 or [width, height]. */
static int read_size(const json_t *value, const char *what, int *ret_width, int *ret_height,
                     struct sac_error *err)
{
    if (json_is_integer(value)) {
        int rc = read_int(value, what, 1, SIDE_MAX, ret_width, err);
        *ret_height = *ret_width;
        return rc;
    }
    if (!json_is_array(value) || json_array_size(value) != 2)
        return sac_fail(err, SAC_EINVAL, "%s: expected a number or [width, height]", what);
    int rc = read_int(json_array_get(value, 0), what, 1, SIDE_MAX, ret_width, err);
    return rc ? rc : read_int(json_array_get(value, 1), what, 1, SIDE_MAX, ret_height, err);
}

static int read_numbers(const json_t *value, const char *what, int count_max, double *ret,
                        int *ret_count, struct sac_error *err)
{
    int count = json_is_array(value) ? (int)json_array_size(value) : 0;

    if (count < 1 || count > count_max)
        return sac_fail(err, SAC_EINVAL, "%s: expected a list of 1 to %d numbers", what, count_max);
    for (int i = 0; i < count; i++) {
        int rc = expect(json_array_get(value, (size_t)i), JSON_REAL, what, "numbers", err);
        if (rc)
            return rc;
        ret[i] = json_number_value(json_array_get(value, (size_t)i));
    }
    *ret_count = count;
    return 0;
}

static int read_resize(struct sac_settings *s, const json_t *value, const char *what,
                       struct sac_error *err)
{
    int word = 0, rc = read_word(value, resize_words, what, &word, err);

    if (rc == 0)
        s->resize = (enum sac_resize)word;
    return rc;
}

static int read_resize_size(struct sac_settings *s, const json_t *value, const char *what,
                            struct sac_error *err)
{
    return read_size(value, what, &s->resize_width, &s->resize_height, err);
}

static int read_crop(struct sac_settings *s, const json_t *value, const char *what,
                     struct sac_error *err)
{
    return read_size(value, what, &s->crop_width, &s->crop_height, err);
}

static int take_mean_word(struct sac_settings *s, const char *what, const char *text,
                          struct sac_error *err)
{
    static const struct word words[] = {
        {"image", SAC_MEAN_IMAGE}, {"average", SAC_MEAN_AVERAGE}, {"none", SAC_MEAN_NONE}, {0}};
    int word = 0, rc = find_word(words, what, text, &word, err);

    if (rc == 0)
        s->mean_kind = (enum sac_mean_kind)word;
    return rc;
}

static int read_mean(struct sac_settings *s, const json_t *value, const char *what,
                     struct sac_error *err)
{
    double numbers[3];

    if (json_is_string(value))
        return take_mean_word(s, what, json_string_value(value), err);
    int rc = read_numbers(value, what, 3, numbers, &s->mean_count, err);
    for (int i = 0; rc == 0 && i < s->mean_count; i++)
        s->mean[i] = (float)numbers[i];
    if (rc == 0)
        s->mean_kind = SAC_MEAN_VALUES;
    return rc;
}

static int read_scale(struct sac_settings *s, const json_t *value, const char *what,
                      struct sac_error *err)
{
    int rc = expect(value, JSON_REAL, what, "a number", err);

    if (rc == 0)
        s->scale = (float)json_number_value(value);
    return rc;
}

static int read_channels(struct sac_settings *s, const json_t *value, const char *what,
                         struct sac_error *err)
{
    int word = 0, rc = read_word(value, channel_words, what, &word, err);

    s->channels = word;
    return rc;
}

static int read_decode(struct sac_settings *s, const json_t *value, const char *what,
                       struct sac_error *err)
{
    int word = 0, rc = read_word(value, decode_words, what, &word, err);

    s->decode = (enum sac_decode_mode)word;
    return rc;
}

static int read_background(struct sac_settings *s, const json_t *value, const char *what,
                           struct sac_error *err)
{
    double numbers[3];
    int count, rc = read_numbers(value, what, 3, numbers, &count, err);

    for (int i = 0; rc == 0 && i < 3; i++) {
        rc = check_range(what, numbers[count == 3 ? i : 0], 0, 255, err);
        if (rc == 0)
            s->background[i] = (uint8_t)numbers[count == 3 ? i : 0];
    }
    return rc;
}

static int read_name(struct sac_settings *s, const json_t *value, const char *what,
                     struct sac_error *err)
{
    int rc = expect(value, JSON_STRING, what, "text", err);

    return rc ? rc : take_name(s, what, json_string_value(value), err);
}

static int read_precision(struct sac_settings *s, const json_t *value, const char *what,
                          struct sac_error *err)
{
    return read_word(value, precision_words, what, &s->precision, err);
}

static int read_topk(struct sac_settings *s, const json_t *value, const char *what,
                     struct sac_error *err)
{
    return read_int(value, what, 1, 1000, &s->topk, err);
}

static int read_batch_max(struct sac_settings *s, const json_t *value, const char *what,
                          struct sac_error *err)
{
    return read_int(value, what, 1, SAC_MODEL_BATCH_MAX, &s->batch_max, err);
}

static int read_timeout(struct sac_settings *s, const json_t *value, const char *what,
                        struct sac_error *err)
{
    return read_int(value, what, 1, 600000, &s->timeout_ms, err);
}

static int read_priority(struct sac_settings *s, const json_t *value, const char *what,
                         struct sac_error *err)
{
    return read_int(value, what, 0, 15, &s->priority, err);
}

static int read_deterministic(struct sac_settings *s, const json_t *value, const char *what,
                              struct sac_error *err)
{
    if (!json_is_boolean(value))
        return sac_fail(err, SAC_EINVAL, "%s: expected true or false", what);
    s->deterministic = json_is_true(value);
    return 0;
}

struct field {
    const char *name;
    field_reader *read;
};

static const struct field preprocess_fields[] = {{"resize", read_resize},
                                                 {"resize_size", read_resize_size},
                                                 {"crop", read_crop},
                                                 {"mean", read_mean},
                                                 {"scale", read_scale},
                                                 {"channels", read_channels},
                                                 {"decode", read_decode},
                                                 {"background", read_background},
                                                 {0}};

static int read_preprocess(struct sac_settings *s, const json_t *value, const char *what,
                           struct sac_error *err);

static const struct field model_fields[] = {{"name", read_name},
                                            {"preprocess", read_preprocess},
                                            {"precision", read_precision},
                                            {"topk", read_topk},
                                            {"batch_max", read_batch_max},
                                            {"timeout_ms", read_timeout},
                                            {"priority", read_priority},
                                            {"deterministic", read_deterministic},
                                            {0}};

static int read_fields(struct sac_settings *settings, const json_t *object,
                       const struct field *fields, const char *what, struct sac_error *err)
{
    const char *key;
    json_t *value;

    if (!json_is_object(object))
        return sac_fail(err, SAC_EINVAL, "%s: expected an object", what[0] ? what : "the file");
    json_object_foreach((json_t *)object, key, value)
    {
        const struct field *field = fields;
        char path[128];
        while (field->name && strcmp(field->name, key) != 0)
            field++;
        snprintf(path, sizeof path, "%s%s\"%s\"", what, what[0] ? " " : "", key);
        if (!field->name)
            return sac_fail(err, SAC_EINVAL, "%s: no such field", path);
        int rc = field->read(settings, value, path, err);
        if (rc)
            return rc;
    }
    return 0;
}

static int read_preprocess(struct sac_settings *s, const json_t *value, const char *what,
                           struct sac_error *err)
{
    return read_fields(s, value, preprocess_fields, what, err);
}

int sac_settings_read_json(struct sac_settings *settings, const char *path, struct sac_error *err)
{
    struct sac_settings read = *settings;
    json_error_t where;
    json_t *root = NULL;
    uint8_t *bytes = NULL;
    size_t size;

    int rc = sac_file_read(path, JSON_BYTES_MAX, &bytes, &size, err);
    if (rc)
        return rc;
    root = json_loadb((const char *)bytes, size, JSON_REJECT_DUPLICATES, &where);
    if (!root)
        rc = sac_fail(err, SAC_EFORMAT, "line %d: %s", where.line, where.text);
    if (rc == 0)
        rc = read_fields(&read, root, model_fields, "", err);
    if (rc == 0)
        *settings = read;
    else
        sac_error_prefix(err, "%s", path);
    json_decref(root);
    free(bytes);
    return rc;
}

/* Flags. */

/* "227" or "227x300". */
static int parse_size(const char *what, const char *text, int *ret_width, int *ret_height,
                      struct sac_error *err)
{
    char *end;
    long width = strtol(text, &end, 10), height = width;

    if (end != text && *end == 'x') {
        const char *second = end + 1;
        height = strtol(second, &end, 10);
        if (end == second)
            end = (char *)text;
    }
    if (end == text || *end || width < 1 || width > SIDE_MAX || height < 1 || height > SIDE_MAX)
        return sac_fail(err, SAC_EINVAL,
                        "%s: expected a size such as 227 or 320x240, found "
                        "\"%s\"",
                        what, text);
    *ret_width = (int)width;
    *ret_height = (int)height;
    return 0;
}

/* "squash", "short", "none", or with a size: "short:256", "squash:256x256". */
static int override_resize(struct sac_settings *s, const char *text, struct sac_error *err)
{
    char way[16];
    const char *colon = strchr(text, ':');
    size_t size = colon ? (size_t)(colon - text) : strlen(text);
    int word = 0;

    snprintf(way, sizeof way, "%.*s", (int)size, text);
    int rc = find_word(resize_words, "--resize", way, &word, err);
    if (rc == 0 && colon)
        rc = parse_size("--resize", colon + 1, &s->resize_width, &s->resize_height, err);
    if (rc == 0)
        s->resize = (enum sac_resize)word;
    return rc;
}

/* "104,117,123", "127.5", or a word of model.json's. */
static int override_mean(struct sac_settings *s, const char *text, struct sac_error *err)
{
    const char *at = text;
    char *end;

    if (!strchr("0123456789.-+", text[0]))
        return take_mean_word(s, "--mean", text, err);
    for (s->mean_count = 0; s->mean_count < 3; at = end + 1) {
        s->mean[s->mean_count] = strtof(at, &end);
        if (end == at || (*end && *end != ','))
            break;
        s->mean_count++;
        if (!*end) {
            s->mean_kind = SAC_MEAN_VALUES;
            return 0;
        }
    }
    return sac_fail(err, SAC_EINVAL,
                    "--mean: expected 1 to 3 numbers such as 104,117,123, found "
                    "\"%s\"",
                    text);
}

static int override_number(const char *what, int value, int least, int most, int *field,
                           struct sac_error *err)
{
    if (value < 0)
        return 0;
    int rc = check_range(what, value, least, most, err);
    if (rc == 0)
        *field = value;
    return rc;
}

static int override_words(struct sac_settings *s, const struct sac_model_overrides *flags,
                          struct sac_error *err)
{
    int word = 0, rc = 0;

    if (flags->channels) {
        rc = find_word(channel_words, "--channels", flags->channels, &word, err);
        s->channels = word;
    }
    if (rc == 0 && flags->decode) {
        rc = find_word(decode_words, "--decode", flags->decode, &word, err);
        s->decode = (enum sac_decode_mode)word;
    }
    if (rc == 0 && flags->precision)
        rc = find_word(precision_words, "--precision", flags->precision, &s->precision, err);
    return rc;
}

int sac_settings_override(struct sac_settings *s, const struct sac_model_overrides *flags,
                          struct sac_error *err)
{
    int rc = override_words(s, flags, err);

    if (rc == 0 && flags->name)
        rc = take_name(s, "--name", flags->name, err);
    if (rc == 0 && flags->resize)
        rc = override_resize(s, flags->resize, err);
    if (rc == 0 && flags->crop)
        rc = parse_size("--crop", flags->crop, &s->crop_width, &s->crop_height, err);
    if (rc == 0 && flags->mean)
        rc = override_mean(s, flags->mean, err);
    if (rc == 0 && flags->scale != 0)
        s->scale = (float)flags->scale;
    if (rc == 0)
        rc = override_number("--topk", flags->topk, 1, 1000, &s->topk, err);
    if (rc == 0)
        rc = override_number("--batch", flags->batch_max, 1, SAC_MODEL_BATCH_MAX, &s->batch_max,
                             err);
    if (rc == 0)
        rc = override_number("--timeout-ms", flags->timeout_ms, 1, 600000, &s->timeout_ms, err);
    if (rc == 0)
        rc = override_number("--priority", flags->priority, 0, 15, &s->priority, err);
    if (rc == 0 && flags->deterministic >= 0)
        s->deterministic = flags->deterministic;
    return rc;
}
