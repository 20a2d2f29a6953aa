#include "cli/flags.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SIDE_MAX = 16384 };

const char sac_model_flags_help[] =
    "Models:\n"
    "  --model DIR           a model directory: deploy.prototxt, one .caffemodel, labels.txt,\n"
    "                        optionally mean.binaryproto and model.json\n"
    "  --deploy F --weights F --labels F   single files, instead of or over the directory's\n"
    "  --mean F|B,G,R|image|none  a mean file (averaged a channel), numbers, the whole mean image\n"
    "  --name NAME           what the model is called\n"
    "  --resize squash|short|none[:SIZE]   how a picture meets the net's input (squash)\n"
    "  --crop SIZE           the net's input size, to be checked\n"
    "  --scale X             multiplies after the mean is subtracted (1)\n"
    "  --channels bgr|rgb|grey   the net's channel order (bgr)\n"
    "  --decode fast|exact   fast scales a JPEG by a power of two while decoding (fast)\n"
    "  --precision auto|f32|tf32|f16|bf16|int8   the arithmetic; int8 after saccade quantize;\n"
    "                        auto: bf16 where that has shown its answers to agree, else f32\n"
    "  --topk K              answers a picture (5)\n"
    "  --batch N             the largest batch, 1 to 256 (8; on GPUs 64)\n"
    "  --timeout-ms N        a request's deadline (1000)\n"
    "  --priority N          0 to 15: which model is served sooner where several wait (0)\n"
    "  --deterministic       the same bits for a picture in every batch and place\n"
    "  --device auto|cpu|cuda|cuda:N   where to run (auto: CUDA if it works, else the CPU)\n";

struct sac_model_flags sac_model_flags_none(void)
{
    return (struct sac_model_flags){.overrides = SAC_MODEL_OVERRIDES_NONE, .device = "auto"};
}

int sac_flag_refused(int option, char *const *argv, struct sac_error *err)
{
    const char *word = argv[optind - 1];

    if (option == ':')
        return sac_fail(err, SAC_EINVAL, "%s: expected a value behind it", word);
    if (optopt == 0)
        return sac_fail(err, SAC_EINVAL, "%s is not an option", word);
    if (optopt > 0 && optopt < 256 && !(word[0] == '-' && word[1] == '-'))
        return sac_fail(err, SAC_EINVAL, "-%c is not an option", optopt);
    return sac_fail(err, SAC_EINVAL, "%.*s takes no value", (int)strcspn(word, "="), word);
}

int sac_flag_int(const char *flag, const char *value, long least, long most, int *ret,
                 struct sac_error *err)
{
    char *end;

    errno = 0;
    long number = strtol(value, &end, 10);
    if (errno || end == value || *end || number < least || number > most)
        return sac_fail(err, SAC_EINVAL, "%s: expected a whole number of %ld to %ld, found \"%s\"",
                        flag, least, most, value);
    *ret = (int)number;
    return 0;
}

int sac_flag_number(const char *flag, const char *value, double least, double most, double *ret,
                    struct sac_error *err)
{
    char *end;
    double number = strtod(value, &end);

    if (end == value || *end || !(number >= least && number <= most))
        return sac_fail(err, SAC_EINVAL, "%s: expected a number of %g to %g, found \"%s\"", flag,
                        least, most, value);
    *ret = number;
    return 0;
}

int sac_flag_share(const char *flag, const char *value, double least, double most, double *ret,
                   struct sac_error *err)
{
    char *end;
    double share = strtod(value, &end);
    bool percent = end != value && *end == '%';

    if (percent)
        share /= 100;
    if (end == value || end[percent] || !(share >= least && share <= most))
        return sac_fail(err, SAC_EINVAL,
                        "%s: expected a share of %g to %g, or as %g%%, found \"%s\"", flag, least,
                        most, 100 * most, value);
    *ret = share;
    return 0;
}

int sac_flag_resize(const char *flag, const char *value, enum sac_resize *ret, int *ret_width,
                    int *ret_height, struct sac_error *err)
{
    static const char *const words[] = {"squash:", "short:"};
    static const enum sac_resize ways[] = {SAC_RESIZE_SQUASH, SAC_RESIZE_SHORT};

    for (int i = 0; i < 2; i++) {
        size_t size = strlen(words[i]);
        char rest;
        int width = 0, height = 0;
        if (strncmp(value, words[i], size) != 0)
            continue;
        int found = sscanf(value + size, "%5dx%5d%c", &width, &height, &rest);
        if (found == 1 && sscanf(value + size, "%5d%c", &width, &rest) == 1)
            height = width;
        else if (found != 2)
            break;
        if (width < 1 || width > SIDE_MAX || height < 1 || height > SIDE_MAX ||
            (width != height && ways[i] == SAC_RESIZE_SHORT))
            break;
        *ret = ways[i];
        *ret_width = width;
        *ret_height = height;
        return 0;
    }
    return sac_fail(err, SAC_EINVAL,
                    "%s: expected squash:256, squash:320x240 or short:256, found \"%.40s\"", flag,
                    value);
}

int sac_flag_list(const char *flag, const char *value, const char **ret, size_t room,
                  int *ret_count, struct sac_error *err)
{
    char *list = (char *)value, *rest; /* of argv, which is the program's to change */
    size_t count = 0;

    for (char *at = strtok_r(list, ",", &rest); at; at = strtok_r(NULL, ",", &rest)) {
        if (count == room)
            return sac_fail(err, SAC_ELIMIT, "%s: at most %zu", flag, room);
        ret[count++] = at;
    }
    *ret_count = (int)count;
    return 0;
}

/* What --augment may name. */
struct augment_field {
    const char *name;
    size_t offset;
    enum { FIELD_FLOAT, FIELD_INT, FIELD_BOOL } type;
    double most;
};
#define FIELD(field, type, most)                                                                   \
    {                                                                                              \
#field, offsetof(struct sac_augment, field), type, most                                    \
    }
static const struct augment_field augment_fields[] = {
    FIELD(pad, FIELD_INT, SIDE_MAX),
    {"area", offsetof(struct sac_augment, area_min), FIELD_FLOAT, 1},
    FIELD(flip, FIELD_BOOL, 0),
    FIELD(rotation, FIELD_FLOAT, 180),
    FIELD(brightness, FIELD_FLOAT, 10),
    FIELD(contrast, FIELD_FLOAT, 10),
    FIELD(saturation, FIELD_FLOAT, 10),
    FIELD(hue, FIELD_FLOAT, .5),
    FIELD(noise, FIELD_FLOAT, 1e6),
    FIELD(cutout, FIELD_INT, SIDE_MAX),
};
#undef FIELD

static int set_augment(const char *flag, const char *word, struct sac_augment *to,
                       struct sac_error *err)
{
    size_t size = strcspn(word, "=");
    char what[64];
    double value = 0;

    for (size_t i = 0; i < sizeof augment_fields / sizeof augment_fields[0]; i++) {
        const struct augment_field *field = &augment_fields[i];
        if (strlen(field->name) != size || strncmp(field->name, word, size) != 0)
            continue;
        if ((field->type == FIELD_BOOL) != (word[size] == 0))
            break;
        snprintf(what, sizeof what, "%s %s", flag, field->name);
        int rc = field->type == FIELD_BOOL
                     ? 0
                     : sac_flag_number(what, word + size + 1, 0, field->most, &value, err);
        if (field->type == FIELD_BOOL)
            *(bool *)((char *)to + field->offset) = true;
        else if (field->type == FIELD_INT)
            *(int *)((char *)to + field->offset) = (int)value;
        else
            *(float *)((char *)to + field->offset) = (float)value;
        return rc;
    }
    return sac_fail(err, SAC_EINVAL,
                    "%s: expected flip, or one of pad, area, rotation, brightness, contrast, "
                    "saturation, hue, noise and cutout with =NUMBER, found \"%.40s\"",
                    flag, word);
}

int sac_flag_augment(const char *flag, const char *value, struct sac_augment *ret,
                     struct sac_error *err)
{
    char *list = strdup(value), *rest;
    int rc = list ? 0 : sac_fail(err, SAC_ENOMEM, "out of memory");

    for (char *word = list ? strtok_r(list, ",", &rest) : NULL; rc == 0 && word;
         word = strtok_r(NULL, ",", &rest))
        rc = set_augment(flag, word, ret, err);
    free(list);
    return rc;
}

int sac_flags_options(int argc, char **argv, const char *shorts, const struct option *options,
                      sac_flag_take *take, void *user, bool *ret_help, struct sac_error *err)
{
    int option, rc = 0;

    *ret_help = false;
    while (rc >= 0 && (option = getopt_long(argc, argv, shorts, options, NULL)) != -1) {
        *ret_help = option == SAC_FLAG_HELP;
        if (*ret_help)
            return 0;
        rc = option == '?' || option == ':' ? sac_flag_refused(option, argv, err)
                                            : take(user, option, optarg, err);
    }
    return rc < 0 ? rc : 0;
}

int sac_flags_parse(int argc, char **argv, const struct option *options, sac_flag_take *take,
                    void *user, bool *ret_help, struct sac_error *err)
{
    int rc = sac_flags_options(argc, argv, SAC_FLAGS_SHORT, options, take, user, ret_help, err);

    if (rc == 0 && !*ret_help && optind < argc)
        return sac_fail(err, SAC_EINVAL, "\"%s\" is not understood", argv[optind]);
    return rc;
}

static int take_dir(struct sac_model_flags *flags, const char *value, struct sac_error *err)
{
    int room = (int)(sizeof flags->dirs / sizeof flags->dirs[0]);

    if (flags->dir_count == room)
        return sac_fail(err, SAC_ELIMIT, "--model: at most %d models", room);
    flags->dirs[flags->dir_count++] = value;
    return 1;
}

/* Numbers and words go to the overrides, anything else is a file. */
static void take_mean(struct sac_model_flags *flags, const char *value)
{
    bool numbers = value[0] && strspn(value, "0123456789.,-+eE") == strlen(value);

    if (numbers || strcmp(value, "image") == 0 || strcmp(value, "none") == 0 ||
        strcmp(value, "average") == 0)
        flags->overrides.mean = value;
    else
        flags->files.mean = value;
}

static int take_number(struct sac_model_flags *flags, int option, const char *value,
                       struct sac_error *err)
{
    struct sac_model_overrides *over = &flags->overrides;
    int rc;

    if (option == SAC_FLAG_SCALE)
        rc = sac_flag_number("--scale", value, -1e9, 1e9, &over->scale, err);
    else if (option == SAC_FLAG_TOPK)
        rc = sac_flag_int("--topk", value, 1, 1000, &over->topk, err);
    else if (option == SAC_FLAG_BATCH)
        rc = sac_flag_int("--batch", value, 1, SAC_MODEL_BATCH_MAX, &over->batch_max, err);
    else if (option == SAC_FLAG_PRIORITY)
        rc = sac_flag_int("--priority", value, 0, 15, &over->priority, err);
    else
        rc = sac_flag_int("--timeout-ms", value, 1, 600000, &over->timeout_ms, err);
    return rc ? rc : 1;
}

int sac_model_flags_take(struct sac_model_flags *flags, int option, const char *value,
                         struct sac_error *err)
{
    struct sac_model_overrides *over = &flags->overrides;

    switch (option) {
    case SAC_FLAG_MODEL:
        return take_dir(flags, value, err);
    case SAC_FLAG_NAME:
        over->name = value;
        return 1;
    case SAC_FLAG_DEPLOY:
        flags->files.deploy = value;
        return 1;
    case SAC_FLAG_WEIGHTS:
        flags->files.weights = value;
        return 1;
    case SAC_FLAG_LABELS:
        flags->files.labels = value;
        return 1;
    case SAC_FLAG_MEAN:
        take_mean(flags, value);
        return 1;
    case SAC_FLAG_RESIZE:
        over->resize = value;
        return 1;
    case SAC_FLAG_CROP:
        over->crop = value;
        return 1;
    case SAC_FLAG_CHANNELS:
        over->channels = value;
        return 1;
    case SAC_FLAG_DECODE:
        over->decode = value;
        return 1;
    case SAC_FLAG_PRECISION:
        over->precision = value;
        return 1;
    case SAC_FLAG_SCALE:
    case SAC_FLAG_TOPK:
    case SAC_FLAG_BATCH:
    case SAC_FLAG_TIMEOUT:
    case SAC_FLAG_PRIORITY:
        return take_number(flags, option, value, err);
    case SAC_FLAG_DETERMINISTIC:
        over->deterministic = 1;
        return 1;
    case SAC_FLAG_DEVICE:
        flags->device = value;
        return 1;
    default:
        return 0;
    }
}

static int check_names_differ(struct sac_model *const *models, int count, struct sac_error *err)
{
    for (int i = 0; i < count; i++)
        for (int j = 0; j < i; j++)
            if (strcmp(sac_model_name(models[i]), sac_model_name(models[j])) == 0)
                return sac_fail(err, SAC_EINVAL,
                                "two models are called \"%s\"; give each model.json a \"name\"",
                                sac_model_name(models[i]));
    return 0;
}

int sac_model_flags_open(const struct sac_model_flags *flags, struct sac_model **ret,
                         struct sac_error *err)
{
    int count = flags->dir_count ? flags->dir_count : 1, opened = 0, rc = 0;

    if (count > 1 && (flags->overrides.name || flags->files.deploy || flags->files.weights ||
                      flags->files.labels || flags->files.mean))
        return sac_fail(err, SAC_EINVAL,
                        "--name, --deploy, --weights, --labels and a mean file go "
                        "with one model, not with several");
    for (; rc == 0 && opened < count; opened += rc == 0) {
        struct sac_model_files files = flags->files;
        files.dir = flags->dirs[opened];
        rc = sac_model_open(&ret[opened], &files, &flags->overrides, err);
    }
    if (rc == 0)
        rc = check_names_differ(ret, opened, err);
    while (rc && opened > 0)
        sac_model_unref(ret[--opened]);
    return rc ? rc : opened;
}

int sac_flag_precision(const char *value, const struct sac_device *device, enum sac_precision *ret,
                       struct sac_error *err)
{
    static const enum sac_precision all[] = {SAC_PRECISION_F32, SAC_PRECISION_TF32,
                                             SAC_PRECISION_F16, SAC_PRECISION_BF16};

    *ret = SAC_PRECISION_F32;
    if (!value || strcmp(value, "auto") == 0)
        return 0;
    if (strcmp(value, sac_precision_name(SAC_PRECISION_INT8)) == 0)
        return sac_fail(err, SAC_EUNSUPPORTED,
                        "--precision int8 goes with a model directory, beside which \"saccade "
                        "quantize\" has put its ranges");
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (strcmp(value, sac_precision_name(all[i])) != 0)
            continue;
        if (!(device->info.precisions & 1u << all[i]))
            return sac_fail(err, SAC_EUNSUPPORTED, "--precision: device %s does not do %s",
                            device->info.name, value);
        *ret = all[i];
        return 0;
    }
    return sac_fail(err, SAC_EINVAL,
                    "--precision: expected auto, f32, tf32, f16 or bf16, found \"%s\"", value);
}

int sac_usage_error(const char *command, const char *format, ...)
{
    char sentence[SAC_ERROR_TEXT];
    va_list args;

    va_start(args, format);
    vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    fprintf(stderr, "saccade %s: %s\nTry \"saccade %s --help\".\n", command, sentence, command);
    return EXIT_USAGE;
}

int sac_command_failed(const struct sac_error *err)
{
    fprintf(stderr, "saccade: %s\n", err->text);
    return 1;
}
