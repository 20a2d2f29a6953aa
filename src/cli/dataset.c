/* saccade dataset: finds the part, and what the parts share */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "cli/command.h"
#include "cli/dataset.h"
#include "dataset/divided.h"

static const char help[] =
    "Usage: saccade dataset create | split | check | mean | convert …\n\n"
    "  create    pictures brought to one size: a list, folders or an LMDB\n"
    "  split     parts for training, validation and test, class by class\n"
    "  check     damaged, doubled, tiny, oddly shaped and perhaps mislabelled pictures\n"
    "  mean      the mean image, as mean.binaryproto, and the mean of each channel\n"
    "  convert   between lists, folders, LMDB, HDF5 and CIFAR's binary files\n\n"
    "A data set is a folder with a folder a class; a list file (a path, a blank and a\n"
    "label a line); an LMDB of Caffe's Datums; a .h5 file; CIFAR-10's .bin files; or a\n"
    "folder that create wrote.\n\n"
    "Example: saccade dataset create --size 256x256 --val 25% photographs flowers\n"
    "\"saccade dataset PART --help\" tells more.\n";

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
} parts[] = {
    {"create", sac_dataset_create}, {"split", sac_dataset_split},     {"check", sac_dataset_check},
    {"mean", sac_dataset_mean},     {"convert", sac_dataset_convert},
};

int sac_command_dataset(int argc, char **argv)
{
    if (argc < 2)
        return sac_usage_error("dataset", "expected create, split, check, mean or convert");
    if (strcmp(argv[1], "--help") == 0) {
        fputs(help, stdout);
        return 0;
    }
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (strcmp(argv[1], parts[i].name) == 0)
            return parts[i].run(argc - 1, argv + 1);
    }
    return sac_usage_error("dataset",
                           "expected create, split, check, mean or convert, found \"%s\"", argv[1]);
}

/* "256x192", or "256" for both. */
static int take_size(struct sac_fit *fit, const char *value, struct sac_error *err)
{
    char *end;
    long width = strtol(value, &end, 10), height = width;

    if (end != value && *end == 'x') {
        value = end + 1;
        height = strtol(value, &end, 10);
    }
    if (end == value || *end || width < 1 || height < 1 || width > 16384 || height > 16384)
        return sac_fail(err, SAC_EINVAL,
                        "--size: expected WIDTHxHEIGHT of 1 to 16384, found \"%s\"", value);
    fit->width = (int)width;
    fit->height = (int)height;
    return 1;
}

/* The place of a word among several. */
static int take_word(const char *flag, const char *value, const char *const *words, int count,
                     struct sac_error *err)
{
    char list[128] = "";

    for (int i = 0; i < count; i++) {
        if (strcmp(value, words[i]) == 0)
            return i;
        snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", i ? ", " : "", words[i]);
    }
    return sac_fail(err, SAC_EINVAL, "%s: expected one of %s, found \"%s\"", flag, list, value);
}

static int take_encoding(struct sac_recipe *recipe, const char *value, struct sac_error *err)
{
    static const char *const words[] = {"keep", "none", "png", "jpg", "jpeg"};
    int word = take_word("--encoding", value, words, 5, err);

    if (word < 0)
        return word;
    recipe->encoding = word == 4 ? SAC_ENCODING_JPEG : (enum sac_encoding)word;
    return 1;
}

static int take_channels(struct sac_recipe *recipe, const char *value, struct sac_error *err)
{
    static const char *const words[] = {"bgr", "rgb"};
    int word = take_word("--channels", value, words, 2, err);

    recipe->planes = word == 1 ? SAC_PLANES_RGB : SAC_PLANES_BGR;
    return word < 0 ? word : 1;
}

static int take_resize(struct sac_fit *fit, const char *value, struct sac_error *err)
{
    static const char *const words[] = {"squash", "crop", "fill", "half_crop"};
    int word = take_word("--resize", value, words, 4, err);

    fit->mode = (enum sac_fit_mode)(word < 0 ? 0 : word);
    return word < 0 ? word : 1;
}

static int take_decode(struct sac_fit *fit, const char *value, struct sac_error *err)
{
    static const char *const words[] = {"fast", "exact"};
    int word = take_word("--decode", value, words, 2, err);

    fit->decode = word == 1 ? SAC_DECODE_EXACT : SAC_DECODE_FAST;
    return word < 0 ? word : 1;
}

static int take_seed(struct sac_recipe *recipe, const char *value, struct sac_error *err)
{
    int seed = 0, rc = sac_flag_int("--seed", value, 0, INT32_MAX, &seed, err);

    recipe->seed = (uint64_t)seed;
    return rc ? rc : 1;
}

static int take_number(struct sac_dataset_flags *flags, int option, const char *value,
                       struct sac_error *err)
{
    int rc;

    if (option == SAC_DATASET_SEED)
        return take_seed(&flags->recipe, value, err);
    if (option == SAC_DATASET_QUALITY)
        rc = sac_flag_int("--quality", value, 1, 100, &flags->recipe.quality, err);
    else
        rc = sac_flag_int("--threads", value, 1, 256, &flags->threads, err);
    return rc ? rc : 1;
}

int sac_dataset_flags_take(struct sac_dataset_flags *flags, int option, const char *value,
                           struct sac_error *err)
{
    int rc;

    switch (option) {
    case SAC_DATASET_TO:
        rc = sac_sink_kind_of(value, &flags->to, err);
        sac_error_prefix(err, "--to");
        return rc ? rc : 1;
    case SAC_DATASET_SIZE:
        return take_size(&flags->recipe.fit, value, err);
    case SAC_DATASET_RESIZE:
        return take_resize(&flags->recipe.fit, value, err);
    case SAC_DATASET_ENCODING:
        return take_encoding(&flags->recipe, value, err);
    case SAC_DATASET_CHANNELS:
        return take_channels(&flags->recipe, value, err);
    case SAC_DATASET_DECODE:
        return take_decode(&flags->recipe.fit, value, err);
    case SAC_DATASET_GREY:
    case SAC_DATASET_COLOR:
        flags->recipe.fit.channels = option == SAC_DATASET_GREY ? 1 : 3;
        return 1;
    case SAC_DATASET_SEED:
    case SAC_DATASET_QUALITY:
    case SAC_DATASET_THREADS:
        return take_number(flags, option, value, err);
    case SAC_DATASET_LABELS:
        flags->labels = value;
        return 1;
    case SAC_DATASET_ROOT:
        flags->root = value;
        return 1;
    case SAC_DATASET_JSON:
        flags->json = true;
        return 1;
    default:
        return 0;
    }
}

/* A folder's name with a slash behind it, as list files want it. */
static int open_under(struct sac_source **ret, const char *path, const char *root,
                      struct sac_error *err)
{
    size_t size = strlen(root);
    char *folder = NULL;

    if (asprintf(&folder, "%s%s", root, size > 0 && root[size - 1] != '/' ? "/" : "") < 0)
        return sac_fail(err, SAC_ENOMEM, "%s: out of memory", path);
    int rc = sac_source_list_open(ret, path, folder, err);
    free(folder);
    return rc;
}

int sac_dataset_open(struct sac_source **ret, const struct sac_dataset_flags *flags,
                     char *const *paths, int count, struct sac_error *err)
{
    struct sac_source *source = NULL;
    struct sac_labels labels = {0};
    int rc = count == 1 && !flags->root ? sac_divided_refuse(paths[0], err) : 0;

    if (rc == 0 && flags->labels)
        rc = sac_labels_load(&labels, flags->labels, err);
    if (rc == 0 && count > 1)
        rc = sac_source_cifar_open(&source, (const char *const *)paths, count, err);
    else if (rc == 0 && flags->root)
        rc = open_under(&source, paths[0], flags->root, err);
    else if (rc == 0)
        rc = sac_source_open(&source, paths[0], err);
    if (rc == 0 && flags->labels) {
        sac_labels_done(&source->labels);
        source->labels = labels;
        labels = (struct sac_labels){0};
    }
    sac_labels_done(&labels);
    if (rc == 0)
        *ret = source;
    return rc;
}

int sac_dataset_open_divided(struct sac_divided *ret, const struct sac_dataset_flags *flags,
                             const char *path, struct sac_error *err)
{
    int rc = flags->root ? 0 : sac_divided_open(ret, path, err);

    if (rc == 1 && flags->labels) {
        sac_divided_done(ret);
        return sac_fail(err, SAC_EINVAL, "--labels goes with one set; %s is divided", path);
    }
    return rc;
}

int sac_dataset_part(const char *flag, const char *value, double *ret_share, int64_t *ret_count,
                     struct sac_error *err)
{
    double count = 0;

    *ret_share = 0;
    *ret_count = 0;
    if (strpbrk(value, ".%") && sac_flag_share(flag, value, 0, 1, ret_share, NULL) == 0)
        return 0;
    if (sac_flag_number(flag, value, 0, 1e9, &count, NULL) != 0 || count != (double)(int64_t)count)
        return sac_fail(
            err, SAC_EINVAL,
            "%s: expected a part such as 25%% or 0.25, or a number of pictures a class, "
            "found \"%s\"",
            flag, value);
    *ret_count = (int64_t)count;
    return 0;
}
