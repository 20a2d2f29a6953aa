/*
 * Flags that several commands share, and how a command line says no. One thread.
 *
 * Every command parses with getopt_long; the long options of models come from
 * here, so that `serve`, `classify` and `time` read them alike.
 */
#ifndef SAC_CLI_FLAGS_H
#define SAC_CLI_FLAGS_H

#include <getopt.h>

#include "data/transform.h"
#include "model/model.h"

enum { EXIT_USAGE = 2 };

/* Short codes of the shared options; a command's own start at SAC_FLAG_OWN. */
enum sac_flag {
    SAC_FLAG_MODEL = 256,
    SAC_FLAG_NAME,
    SAC_FLAG_DEPLOY,
    SAC_FLAG_WEIGHTS,
    SAC_FLAG_LABELS,
    SAC_FLAG_MEAN,
    SAC_FLAG_RESIZE,
    SAC_FLAG_CROP,
    SAC_FLAG_SCALE,
    SAC_FLAG_CHANNELS,
    SAC_FLAG_DECODE,
    SAC_FLAG_PRECISION,
    SAC_FLAG_TOPK,
    SAC_FLAG_BATCH,
    SAC_FLAG_TIMEOUT,
    SAC_FLAG_PRIORITY,
    SAC_FLAG_DETERMINISTIC,
    SAC_FLAG_DEVICE,
    SAC_FLAG_HELP,
    SAC_FLAG_OWN
};

/* clang-format off */
#define SAC_MODEL_FLAGS                                                                            \
    {"model", required_argument, NULL, SAC_FLAG_MODEL},                                            \
    {"name", required_argument, NULL, SAC_FLAG_NAME},                                              \
    {"deploy", required_argument, NULL, SAC_FLAG_DEPLOY},                                          \
    {"weights", required_argument, NULL, SAC_FLAG_WEIGHTS},                                        \
    {"labels", required_argument, NULL, SAC_FLAG_LABELS},                                          \
    {"mean", required_argument, NULL, SAC_FLAG_MEAN},                                              \
    {"resize", required_argument, NULL, SAC_FLAG_RESIZE},                                          \
    {"crop", required_argument, NULL, SAC_FLAG_CROP},                                              \
    {"scale", required_argument, NULL, SAC_FLAG_SCALE},                                            \
    {"channels", required_argument, NULL, SAC_FLAG_CHANNELS},                                      \
    {"decode", required_argument, NULL, SAC_FLAG_DECODE},                                          \
    {"precision", required_argument, NULL, SAC_FLAG_PRECISION},                                    \
    {"topk", required_argument, NULL, SAC_FLAG_TOPK},                                              \
    {"batch", required_argument, NULL, SAC_FLAG_BATCH},                                            \
    {"timeout-ms", required_argument, NULL, SAC_FLAG_TIMEOUT},                                     \
    {"priority", required_argument, NULL, SAC_FLAG_PRIORITY},                                      \
    {"deterministic", no_argument, NULL, SAC_FLAG_DETERMINISTIC},                                  \
    {"device", required_argument, NULL, SAC_FLAG_DEVICE},                                          \
    {"help", no_argument, NULL, SAC_FLAG_HELP}
/* clang-format on */

/* The lines of --help that describe SAC_MODEL_FLAGS. */
extern const char sac_model_flags_help[];

struct sac_model_flags {
    const char *dirs[64]; /* --model, in order */
    int dir_count;
    struct sac_model_files files; /* what --deploy, --weights, --labels and --mean FILE say */
    struct sac_model_overrides overrides;
    const char *device; /* "auto" unless said */
};

struct sac_model_flags sac_model_flags_none(void);
/* Takes one option that getopt_long returned. 1: taken; 0: not one of the shared
 * ones; SAC_EINVAL: said, and what is wrong with it. */
int sac_model_flags_take(struct sac_model_flags *flags, int option, const char *value,
                         struct sac_error *err);

/* Opens what the flags name: each --model, or the four files. Fills `ret` (room
 * for 64) and returns how many, or an error; on error nothing stays open. */
int sac_model_flags_open(const struct sac_model_flags *flags, struct sac_model **ret,
                         struct sac_error *err);

/* The start of getopt_long's short options: it prints nothing itself and tells a
 * value that is missing (':') from an option that is not known ('?'). */
#define SAC_FLAGS_SHORT ":"
/* The sentence for either; SAC_EINVAL. */
int sac_flag_refused(int option, char *const *argv, struct sac_error *err);

/* A whole number of least … most; the sentence names the flag. */
int sac_flag_int(const char *flag, const char *value, long least, long most, int *ret,
                 struct sac_error *err);
int sac_flag_number(const char *flag, const char *value, double least, double most, double *ret,
                    struct sac_error *err);

/* "0.25" or "25%", of `least` to `most`. */
int sac_flag_share(const char *flag, const char *value, double least, double most, double *ret,
                   struct sac_error *err);

/* "squash:256", "squash:320x240", "short:256". */
int sac_flag_resize(const char *flag, const char *value, enum sac_resize *ret, int *ret_width,
                    int *ret_height, struct sac_error *err);
/* "flip,pad=4,rotation=10": fields of struct sac_augment, `area` for area_min. */
int sac_flag_augment(const char *flag, const char *value, struct sac_augment *ret,
                     struct sac_error *err);
/* "a,b" of the command line, cut into texts in ret[0 … room) where it lies. */
int sac_flag_list(const char *flag, const char *value, const char **ret, size_t room,
                  int *ret_count, struct sac_error *err);

/* Goes through a command line's options: `take` gets each, and is negative where that is
 * wrong; *ret_help: help was asked for, and the rest does not matter. Words stand from
 * `optind` on. `shorts`: SAC_FLAGS_SHORT, and behind it the command's own. */
typedef int sac_flag_take(void *user, int option, const char *value, struct sac_error *err);
int sac_flags_options(int argc, char **argv, const char *shorts, const struct option *options,
                      sac_flag_take *take, void *user, bool *ret_help, struct sac_error *err);
/* The same of a command that takes no words. */
int sac_flags_parse(int argc, char **argv, const struct option *options, sac_flag_take *take,
                    void *user, bool *ret_help, struct sac_error *err);

/* --precision of a net without a model: NULL and "auto" are f32; SAC_EUNSUPPORTED:
 * the device does not do it. */
int sac_flag_precision(const char *value, const struct sac_device *device, enum sac_precision *ret,
                       struct sac_error *err);

/* "saccade serve: sentence" and where help is, to standard error; EXIT_USAGE. */
int sac_usage_error(const char *command, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* "saccade: sentence" to standard error; returns 1, the exit status. */
int sac_command_failed(const struct sac_error *err);

#endif
