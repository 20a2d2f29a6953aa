/* saccade dataset split */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/durable.h"
#include "cli/dataset.h"
#include "dataset/split.h"

static const char help[] =
    "Usage: saccade dataset split [options] SOURCE OUT\n\n"
    "Divides pictures in files (folders or a list) class by class, by chance from a seed,\n"
    "and writes OUT/train.txt, OUT/val.txt, OUT/test.txt and OUT/labels.txt. Pictures stay\n"
    "where they are; classes that are left out give their numbers to those behind them.\n\n"
    "  --train PART --val PART --test PART   of each class: a part such as 25%, or a number\n"
    "                    of pictures (75%, 25%, 0)\n"
    "  --min N           leave out classes of fewer pictures (2)\n"
    "  --max N           so many of larger classes\n"
    "  --recipe egi      the Portuguese flora's: classes of 30 and more, thirds\n"
    "  --seed N          (1)\n"
    "  --labels F        names of classes, one a line\n"
    "  --root DIR        what a list's paths are under\n"
    "  --json            the classes and their parts, as JSON\n\n"
    "Example: saccade dataset split --train 60 --test 20 --seed 7 flowers17 parts\n";

enum { FLAG_RECIPE = SAC_DATASET_OWN };

static const struct option long_options[] = {
    {"train", required_argument, NULL, SAC_DATASET_TRAIN},
    {"val", required_argument, NULL, SAC_DATASET_VAL},
    {"test", required_argument, NULL, SAC_DATASET_TEST},
    {"min", required_argument, NULL, SAC_DATASET_MIN},
    {"max", required_argument, NULL, SAC_DATASET_MAX},
    {"recipe", required_argument, NULL, FLAG_RECIPE},
    {"seed", required_argument, NULL, SAC_DATASET_SEED},
    {"labels", required_argument, NULL, SAC_DATASET_LABELS},
    {"root", required_argument, NULL, SAC_DATASET_ROOT},
    {"json", no_argument, NULL, SAC_DATASET_JSON},
    {"help", no_argument, NULL, SAC_FLAG_HELP},
    {0}};

struct split_command {
    struct sac_dataset_flags flags;
    struct sac_split_options options;
    bool said; /* a part, by a flag */
    const char *out;
};

static int take_recipe(struct split_command *command, const char *value, struct sac_error *err)
{
    if (strcmp(value, "egi") != 0)
        return sac_fail(err, SAC_EINVAL, "--recipe: expected egi, found \"%s\"", value);
    for (int part = 0; part < SAC_SPLIT_PARTS; part++)
        command->options.share[part] = 1. / 3;
    command->options.min = 30;
    command->said = true;
    return 1;
}

static int take(void *user, int option, const char *value, struct sac_error *err)
{
    struct split_command *command = user;

    static const char *const flags[] = {"--train", "--val", "--test"};
    int part = option - SAC_DATASET_TRAIN, number = 0, rc;

    switch (option) {
    case SAC_DATASET_TRAIN:
    case SAC_DATASET_VAL:
    case SAC_DATASET_TEST:
        rc = sac_dataset_part(flags[part], value, &command->options.share[part],
                              &command->options.count[part], err);
        command->said = true;
        return rc ? rc : 1;
    case SAC_DATASET_MIN:
    case SAC_DATASET_MAX:
        rc = sac_flag_int(option == SAC_DATASET_MIN ? "--min" : "--max", value, 1, INT32_MAX,
                          &number, err);
        *(option == SAC_DATASET_MIN ? &command->options.min : &command->options.max) = number;
        return rc ? rc : 1;
    case FLAG_RECIPE:
        return take_recipe(command, value, err);
    default:
        return sac_dataset_flags_take(&command->flags, option, value, err);
    }
}

static int settle(struct split_command *command, struct sac_error *err)
{
    struct sac_split_options *options = &command->options;
    bool shares = false, counts = false;

    if (!command->said) {
        options->share[0] = .75;
        options->share[1] = .25;
    }
    for (int part = 0; part < SAC_SPLIT_PARTS; part++) {
        shares = shares || options->share[part] > 0;
        counts = counts || options->count[part] > 0;
    }
    if (shares == counts)
        return sac_fail(err, SAC_EINVAL,
                        shares ? "--train, --val and --test are all parts or all numbers"
                               : "all of --train, --val and --test are 0");
    if (options->min == 0)
        options->min = 2;
    options->seed = command->flags.recipe.seed;
    return 0;
}

static int parse(struct split_command *command, int argc, char **argv, bool *ret_help,
                 struct sac_error *err)
{
    int rc =
        sac_flags_options(argc, argv, SAC_FLAGS_SHORT, long_options, take, command, ret_help, err);

    if (rc < 0 || *ret_help)
        return rc;
    if (argc - optind != 2)
        return sac_fail(err, SAC_EINVAL, "expected a source and a place to write to");
    command->out = argv[optind + 1];
    return settle(command, err);
}

static int write_text(const char *folder, const char *name, const struct sac_buf *text,
                      struct sac_error *err)
{
    char path[4096];

    if (text->failed)
        return sac_fail(err, SAC_ENOMEM, "%s: out of memory", name);
    if (snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path)
        return sac_fail(err, SAC_EINVAL, "%.200s…: the path is too long", folder);
    return sac_durable_write(path, text->data, text->len, err);
}

/* A list is read from anywhere: its paths are whole. */
static int put_line(struct sac_buf *text, const struct sac_source *part, int64_t index,
                    struct sac_error *err)
{
    char path[4096];
    int32_t label;
    int rc = sac_source_item_label(part, index, &label, err);

    if (rc < 0)
        return rc;
    if (!sac_source_item_path(part, index, path, sizeof path))
        return sac_fail(err, SAC_EUNSUPPORTED,
                        "%s: its pictures are in no files of their own; convert it to a list, or "
                        "see saccade dataset create --val",
                        part->path);
    char *whole = realpath(path, NULL);
    if (strchr(whole ? whole : path, '\n')) {
        free(whole);
        return sac_fail(err, SAC_EUNSUPPORTED, "%s: a line break in a path fits in no list", path);
    }
    sac_buf_printf(text, "%s %d\n", whole ? whole : path, label);
    free(whole);
    return 0;
}

static int write_part(const struct split_command *command, const struct sac_source *source,
                      const struct sac_split *split, int part, struct sac_error *err)
{
    struct sac_source *view = NULL;
    struct sac_buf text = {0};
    char name[16];

    if (split->counts[part] == 0)
        return 0;
    snprintf(name, sizeof name, "%s.txt", sac_split_names[part]);
    int rc = sac_split_open(&view, split, source, part, err);
    for (int64_t i = 0; rc == 0 && i < split->counts[part]; i++)
        rc = put_line(&text, view, i, err);
    if (rc == 0)
        rc = write_text(command->out, name, &text, err);
    sac_buf_done(&text);
    sac_source_free(view);
    return rc;
}

static int write_labels(const struct split_command *command, const struct sac_split *split,
                        struct sac_error *err)
{
    struct sac_buf text = {0};

    if (split->labels.count == 0)
        return 0;
    for (int i = 0; i < split->labels.count; i++)
        sac_buf_printf(&text, "%s\n", split->labels.text[i]);
    int rc = write_text(command->out, "labels.txt", &text, err);
    sac_buf_done(&text);
    return rc;
}

static void print_json(const struct sac_split *split)
{
    struct sac_buf text = {0};

    sac_buf_printf(&text,
                   "{\"train\":%" PRId64 ",\"val\":%" PRId64 ",\"test\":%" PRId64
                   ",\"dropped\":%d,\"classes\":[",
                   split->counts[0], split->counts[1], split->counts[2],
                   split->classes_before - split->classes);
    for (int i = 0; i < split->classes; i++) {
        const char *name = i < split->labels.count ? split->labels.text[i] : "";
        sac_buf_printf(&text, "%s{\"label\":%d,\"name\":", i ? "," : "", i);
        sac_buf_put_json(&text, name, strlen(name));
        sac_buf_printf(&text, ",\"train\":%" PRId64 ",\"val\":%" PRId64 ",\"test\":%" PRId64 "}",
                       split->class_counts[i][0], split->class_counts[i][1],
                       split->class_counts[i][2]);
    }
    sac_buf_puts(&text, "]}\n");
    if (!text.failed)
        fwrite(text.data, 1, text.len, stdout);
    sac_buf_done(&text);
}

static void print_report(const struct split_command *command, const struct sac_split *split)
{
    if (command->flags.json) {
        print_json(split);
        return;
    }
    printf("%s: %d classes", command->out, split->classes);
    if (split->classes < split->classes_before)
        printf(" (%d left out: fewer than %" PRId64 " pictures)",
               split->classes_before - split->classes, command->options.min);
    for (int part = 0; part < SAC_SPLIT_PARTS; part++)
        printf("%s %" PRId64 " %s", part ? "," : ":", split->counts[part], sac_split_names[part]);
    printf("\n");
}

static int run(struct split_command *command, char **argv, struct sac_error *err)
{
    struct sac_source *source = NULL;
    struct sac_split split = {0};
    int rc = sac_dataset_open(&source, &command->flags, argv + optind, 1, err);

    if (rc == 0)
        rc = sac_split_plan(&split, source, &command->options, err);
    if (rc == 0 && mkdir(command->out, 0777) < 0 && errno != EEXIST)
        rc = sac_fail_errno(err, errno, "the folder %s cannot be made", command->out);
    for (int part = 0; rc == 0 && part < SAC_SPLIT_PARTS; part++)
        rc = write_part(command, source, &split, part, err);
    if (rc == 0)
        rc = write_labels(command, &split, err);
    if (rc == 0)
        print_report(command, &split);
    sac_split_done(&split);
    sac_source_free(source);
    return rc;
}

int sac_dataset_split(int argc, char **argv)
{
    struct split_command command = {.flags.recipe.seed = 1};
    struct sac_error err = {0};
    bool wants_help;

    if (parse(&command, argc, argv, &wants_help, &err) < 0)
        return sac_usage_error("dataset split", "%s", err.text);
    if (wants_help) {
        fputs(help, stdout);
        return 0;
    }
    return run(&command, argv, &err) < 0 ? sac_command_failed(&err) : 0;
}
