/* What the parts of `saccade dataset` share. One thread. */
#ifndef SAC_CLI_DATASET_H
#define SAC_CLI_DATASET_H

#include "cli/flags.h"
#include "data/sink.h"
#include "dataset/cook.h"
#include "dataset/divided.h"

/* One part: parses argv behind its name, prints, and returns the exit status. */
int sac_dataset_create(int argc, char **argv);
int sac_dataset_split(int argc, char **argv);
int sac_dataset_check(int argc, char **argv);
int sac_dataset_mean(int argc, char **argv);
int sac_dataset_convert(int argc, char **argv);

/* Codes of the options that several parts have; a part's own start at the last. */
enum sac_dataset_flag {
    SAC_DATASET_TO = SAC_FLAG_OWN,
    SAC_DATASET_SIZE,
    SAC_DATASET_RESIZE,
    SAC_DATASET_ENCODING,
    SAC_DATASET_CHANNELS,
    SAC_DATASET_QUALITY,
    SAC_DATASET_GREY,
    SAC_DATASET_COLOR,
    SAC_DATASET_DECODE,
    SAC_DATASET_SEED,
    SAC_DATASET_THREADS,
    SAC_DATASET_LABELS,
    SAC_DATASET_ROOT,
    SAC_DATASET_JSON,
    SAC_DATASET_TRAIN,
    SAC_DATASET_VAL,
    SAC_DATASET_TEST,
    SAC_DATASET_MIN,
    SAC_DATASET_MAX,
    SAC_DATASET_OWN,
};

struct sac_dataset_flags {
    enum sac_sink_kind to; /* 0: not said */
    struct sac_recipe recipe;
    int threads;
    const char *labels, *root;
    bool json;
};
/* 1: taken; 0: not one of these; SAC_EINVAL. */
int sac_dataset_flags_take(struct sac_dataset_flags *flags, int option, const char *value,
                           struct sac_error *err);

/* The source that one word names, or several CIFAR files, with what --labels and
 * --root say. SAC_EINVAL: the word names a set that is divided. */
int sac_dataset_open(struct sac_source **ret, const struct sac_dataset_flags *flags,
                     char *const *paths, int count, struct sac_error *err);

/* 1: `path` is divided, and opened; 0: it is not. */
int sac_dataset_open_divided(struct sac_divided *ret, const struct sac_dataset_flags *flags,
                             const char *path, struct sac_error *err);

/* "25%" and "0.25" as a share, "20" as a count; the other is 0. */
int sac_dataset_part(const char *flag, const char *value, double *ret_share, int64_t *ret_count,
                     struct sac_error *err);

#endif
