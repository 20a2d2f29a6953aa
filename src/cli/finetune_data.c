/* Fine-tuning's pictures: which train, which validate, which test. */
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/durable.h"
#include "base/file.h"
#include "cli/finetune.h"
#include "dataset/split.h"

static const char *const part_names[PARTS] = {"train.txt", "val.txt", "test.txt"};

char *sac_finetune_path(const struct finetune *f, const char *name, struct sac_error *err)
{
    char *path = NULL;

    if (asprintf(&path, "%s/%s", f->out, name) >= 0)
        return path;
    sac_fail(err, SAC_ENOMEM, "%s/%s: out of memory", f->out, name);
    return NULL;
}

static int put_whole(const char *path, const struct sac_buf *text, struct sac_error *err)
{
    return text->failed ? sac_fail(err, SAC_ENOMEM, "%s: out of memory", path)
                        : sac_durable_write(path, text->data, text->len, err);
}

/* ---- Lists ------------------------------------------------------------------- */

/* A line of a list: the picture's absolute path and its class. */
static int put_item(struct sac_buf *text, const struct sac_source *source, int64_t index,
                    int32_t label, struct sac_error *err)
{
    char path[4096], *whole;

    if (!sac_source_item_path(source, index, path, sizeof path))
        return sac_fail(err, SAC_EUNSUPPORTED,
                        "%s: its items are no files, so they cannot be divided into lists; give "
                        "--val-data and --test-data",
                        source->path);
    whole = realpath(path, NULL);
    sac_buf_printf(text, "%s %d\n", whole ? whole : path, label);
    free(whole);
    return 0;
}

static int write_list(struct finetune *f, const struct sac_source *source,
                      const struct sac_split *split, enum finetune_part list,
                      enum finetune_part from, struct sac_error *err)
{
    struct sac_buf text = {0};
    int32_t label = 0;
    int rc = 0;

    if (!(f->paths[list] = sac_finetune_path(f, part_names[list], err)))
        return err->code;
    f->items[list] = split->counts[from];
    for (int64_t i = 0; rc == 0 && i < split->counts[from]; i++) {
        int64_t index = split->indices[from][i];
        rc = sac_source_item_label(source, index, &label, err);
        if (rc == 0)
            rc = put_item(&text, source, index, split->renumber[label], err);
    }
    if (rc == 0)
        rc = put_whole(f->paths[list], &text, err);
    sac_buf_done(&text);
    return rc;
}

static int write_labels(struct finetune *f, const struct sac_labels *labels, struct sac_error *err)
{
    struct sac_buf text = {0};

    if (labels->count == 0)
        return 0;
    if (!(f->labels_path = sac_finetune_path(f, "labels.txt", err)))
        return err->code;
    for (int i = 0; i < labels->count; i++)
        sac_buf_printf(&text, "%s\n", labels->text[i]);
    int rc = put_whole(f->labels_path, &text, err);
    sac_buf_done(&text);
    return rc;
}

/* ---- Dividing ---------------------------------------------------------------- */

static int64_t least_class(const struct sac_split *split)
{
    int64_t least = INT64_MAX;

    for (int i = 0; i < split->classes; i++)
        if (split->class_counts[i][PART_TRAIN] < least)
            least = split->class_counts[i][PART_TRAIN];
    return least;
}

/* What is not given by a path of its own comes out of --data. */
static struct sac_split_options split_options(const struct finetune *f)
{
    struct sac_split_options o = {.seed = f->seed};

    o.share[PART_VALIDATION] = f->validation_data ? 0 : f->shares[PART_VALIDATION];
    o.share[PART_TEST] = f->test_data ? 0 : f->shares[PART_TEST];
    o.share[PART_TRAIN] = 1 - o.share[PART_VALIDATION] - o.share[PART_TEST];
    return o;
}

static int divide(struct finetune *f, const struct sac_source *source, struct sac_error *err)
{
    const struct sac_split_options options = split_options(f);
    struct sac_split split = {0};
    int rc = sac_split_plan(&split, source, &options, err);

    if (rc)
        return rc;
    f->classes = split.classes;
    f->least = least_class(&split);
    for (int part = 0; rc == 0 && part < PARTS; part++)
        if (options.share[part] > 0)
            rc = write_list(f, source, &split, part, part, err);
    if (rc == 0)
        rc = write_labels(f, &split.labels, err);
    sac_split_done(&split);
    return rc;
}

/* A part that has data of its own; classes are as the training data's, by number. */
static int open_part(struct finetune *f, enum finetune_part part, const char *path,
                     struct sac_error *err)
{
    struct sac_source *source = NULL;
    int rc = sac_source_open(&source, path, err);
    char *whole = rc == 0 ? realpath(path, NULL) : NULL;

    if (rc == 0 && !whole)
        rc = sac_fail(err, SAC_ENOENT, "%s: cannot be resolved", path);
    if (rc == 0 && sac_file_is_folder(whole) && source->labels.count > 0) {
        /* A folder of folders: ImageData takes lists. */
        struct sac_split_options all = {.share = {1}};
        struct sac_split split = {0};
        free(whole);
        rc = sac_split_plan(&split, source, &all, err);
        if (rc == 0 && split.classes != f->classes)
            rc = sac_fail(err, SAC_EINVAL, "%s: %d classes; the training data has %d", path,
                          split.classes, f->classes);
        if (rc == 0)
            rc = write_list(f, source, &split, part, PART_TRAIN, err);
        sac_split_done(&split);
    } else if (rc == 0) {
        f->paths[part] = whole;
        f->items[part] = source->count;
    }
    sac_source_free(source);
    return rc;
}

static bool has_paths(const struct sac_source *source)
{
    char path[4096];

    return sac_source_item_path(source, 0, path, sizeof path);
}

/* Databases are not divided: they are used as they are. */
static int use_whole(struct finetune *f, const struct sac_source *source, struct sac_error *err)
{
    int32_t label = 0;
    int64_t *counts;
    int rc = 0;

    if (!f->validation_data)
        return sac_fail(err, SAC_EINVAL, "%s: its items are no files; give --val-data as well",
                        f->data);
    for (int64_t i = 0; rc == 0 && i < source->count; i++) {
        rc = sac_source_item_label(source, i, &label, err);
        if (rc == 0 && label >= f->classes)
            f->classes = label + 1;
    }
    counts = rc == 0 ? calloc((size_t)f->classes, sizeof *counts) : NULL;
    if (rc == 0 && !counts)
        rc = sac_fail(err, SAC_ENOMEM, "out of memory for %d classes", f->classes);
    for (int64_t i = 0; rc == 0 && i < source->count; i++) {
        rc = sac_source_item_label(source, i, &label, err);
        if (rc == 0 && label >= 0)
            counts[label]++;
    }
    f->least = INT64_MAX;
    for (int i = 0; rc == 0 && i < f->classes; i++)
        f->least = counts[i] < f->least ? counts[i] : f->least;
    free(counts);
    if (rc == 0 && !(f->paths[PART_TRAIN] = realpath(f->data, NULL)))
        rc = sac_fail(err, SAC_ENOENT, "%s: cannot be resolved", f->data);
    f->items[PART_TRAIN] = source->count;
    return rc;
}

static int copy_validation(struct finetune *f, struct sac_error *err)
{
    if (!(f->paths[PART_TEST] = strdup(f->paths[PART_VALIDATION])))
        return sac_fail(err, SAC_ENOMEM, "out of memory");
    f->items[PART_TEST] = f->items[PART_VALIDATION];
    return 0;
}

int sac_finetune_divide(struct finetune *f, struct sac_error *err)
{
    struct sac_source *source = NULL;
    int rc = sac_source_open(&source, f->data, err);

    if (rc == 0)
        rc = has_paths(source) ? divide(f, source, err) : use_whole(f, source, err);
    if (rc == 0 && f->validation_data)
        rc = open_part(f, PART_VALIDATION, f->validation_data, err);
    if (rc == 0 && f->test_data)
        rc = open_part(f, PART_TEST, f->test_data, err);
    if (rc == 0 && !f->paths[PART_TEST])
        rc = copy_validation(f, err);
    sac_source_free(source);
    return rc;
}
