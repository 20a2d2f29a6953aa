/* Fine-tuning's pictures: which train, which validate, which test. */
#include <stdlib.h>
#include <string.h>

#include "cli/finetune.h"
#include "dataset/split.h"

static int out_of_memory(const char *path, struct sac_error *err)
{
    return sac_fail(err, SAC_ENOMEM, "%s: out of memory", path);
}

static bool has_paths(const struct sac_source *source)
{
    char path[4096];

    return sac_source_item_path(source, 0, path, sizeof path);
}

/* ---- Lists ------------------------------------------------------------------- */

/* A line of a list: the picture's absolute path and its class. */
static int put_item(struct sac_buf *text, const struct sac_source *source, int64_t index,
                    int32_t label, struct sac_error *err)
{
    char path[4096], *whole;
    int rc = 0;

    if (!sac_source_item_path(source, index, path, sizeof path))
        return sac_fail(err, SAC_EUNSUPPORTED, "%s: a path is too long for a list", source->path);
    whole = realpath(path, NULL);
    if (strchr(whole ? whole : path, '\n'))
        rc = sac_fail(err, SAC_EUNSUPPORTED, "%s: a line break in a path fits in no list", path);
    else
        sac_buf_printf(text, "%s %d\n", whole ? whole : path, label);
    free(whole);
    return rc;
}

static int list_part(struct finetune *f, const struct sac_source *source,
                     const struct sac_split *split, enum finetune_part part, struct sac_error *err)
{
    int32_t label = 0;
    int rc = 0;

    f->is_list[part] = true;
    f->items[part] = split->counts[part];
    for (int64_t i = 0; rc == 0 && i < split->counts[part]; i++) {
        int64_t index = split->indices[part][i];
        rc = sac_source_item_label(source, index, &label, err);
        if (rc == 0)
            rc = put_item(&f->lists[part], source, index, split->renumber[label], err);
    }
    return rc;
}

/* ---- The training data's classes ----------------------------------------------- */

static void tell_dropped(const struct finetune *f, const struct sac_source *source,
                         const struct sac_split *split)
{
    for (int i = 0; i < split->classes_before && i < source->labels.count; i++)
        if (split->renumber[i] < 0)
            sac_finetune_say(f, "%s: class %s has no picture and is left out", source->path,
                             source->labels.text[i]);
}

/* --labels has a line a class, of those before or after empty ones were left out. */
static int read_labels(struct finetune *f, struct sac_error *err)
{
    struct sac_labels *given = &f->given_names;
    int rc = f->labels ? sac_labels_load(given, f->labels, err) : 0;

    if (rc != 0 || !f->labels)
        return rc;
    if (given->count != f->classes_before && given->count != f->classes)
        return sac_fail(err, SAC_EINVAL, "--labels %s: %d names; the data has %d classes",
                        f->labels, given->count, f->classes);
    if (given->count == f->classes)
        return 0;
    for (int i = 0; i < f->classes_before; i++) { /* new numbers are never above old ones */
        char *name = given->text[i];
        given->text[i] = NULL;
        if (f->renumber[i] < 0)
            free(name);
        else
            given->text[f->renumber[i]] = name;
    }
    given->count = f->classes;
    return 0;
}

static int check_names(const struct finetune *f, struct sac_error *err)
{
    const struct sac_labels *names = sac_finetune_names(f);

    for (int i = 0; i < names->count; i++)
        if (strchr(names->text[i], '\n'))
            return sac_fail(err, SAC_EUNSUPPORTED,
                            "class \"%.100s\": a line break in a name fits in no labels.txt",
                            names->text[i]);
    return 0;
}

const struct sac_labels *sac_finetune_names(const struct finetune *f)
{
    return f->given_names.count > 0 ? &f->given_names : &f->names;
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

    o.share[PART_VALIDATION] = f->from[PART_VALIDATION] ? 0 : f->shares[PART_VALIDATION];
    o.share[PART_TEST] = f->from[PART_TEST] ? 0 : f->shares[PART_TEST];
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
    tell_dropped(f, source, &split);
    f->classes = split.classes;
    f->classes_before = split.classes_before;
    f->least = least_class(&split);
    for (int part = 0; rc == 0 && part < PARTS; part++)
        if (options.share[part] > 0)
            rc = list_part(f, source, &split, part, err);
    f->names = split.labels;
    f->renumber = split.renumber;
    split.labels = (struct sac_labels){0};
    split.renumber = NULL;
    sac_split_done(&split);
    return rc;
}

static int copy_names(struct finetune *f, const struct sac_labels *names, struct sac_error *err)
{
    f->names.text = calloc((size_t)names->count + 1, sizeof *f->names.text);
    if (!f->names.text)
        return out_of_memory(f->data, err);
    for (int i = 0; i < names->count; i++) {
        if (!(f->names.text[i] = strdup(names->text[i])))
            return out_of_memory(f->data, err);
        f->names.count++;
    }
    return 0;
}

static int count_classes(struct finetune *f, const struct sac_source *source, struct sac_error *err)
{
    int32_t label = 0;
    int rc = 0;

    f->classes = source->labels.count;
    for (int64_t i = 0; rc == 0 && i < source->count; i++) {
        rc = sac_source_item_label(source, i, &label, err);
        if (rc == 0 && (label < 0 || label >= 1 << 20))
            rc = sac_fail(err, SAC_EINVAL, "%s: label %d; expected 0 to %d", source->path, label,
                          (1 << 20) - 1);
        if (rc == 0 && label >= f->classes)
            f->classes = label + 1;
    }
    f->classes_before = f->classes;
    return rc;
}

/* Databases are not divided: they are used as they are. */
static int use_whole(struct finetune *f, const struct sac_source *source, struct sac_error *err)
{
    int32_t label = 0;
    int64_t *counts;

    if (!f->from[PART_VALIDATION])
        return sac_fail(err, SAC_EINVAL, "%s: its items are no files; give --val-data as well",
                        f->data);
    int rc = count_classes(f, source, err);
    if (rc)
        return rc;
    counts = calloc((size_t)f->classes + 1, sizeof *counts);
    f->renumber = calloc((size_t)f->classes + 1, sizeof *f->renumber);
    rc = counts && f->renumber ? copy_names(f, &source->labels, err) : out_of_memory(f->data, err);
    for (int64_t i = 0; rc == 0 && i < source->count; i++) {
        rc = sac_source_item_label(source, i, &label, err);
        if (rc == 0)
            counts[label]++;
    }
    f->least = INT64_MAX;
    for (int i = 0; rc == 0 && i < f->classes; i++) {
        f->renumber[i] = i;
        f->least = counts[i] < f->least ? counts[i] : f->least;
    }
    free(counts);
    if (rc == 0 && !(f->paths[PART_TRAIN] = realpath(source->path, NULL)))
        rc = sac_fail(err, SAC_ENOENT, "%s: cannot be resolved", f->data);
    f->items[PART_TRAIN] = source->count;
    return rc;
}

/* ---- Parts with data of their own ------------------------------------------------ */

static int32_t class_called(const struct finetune *f, const char *name)
{
    for (int i = 0; i < f->names.count; i++)
        if (strcmp(f->names.text[i], name) == 0)
            return i;
    return -1;
}

/* The training data's class of each of a part's: by name where both have names, else by
 * number; -1: it has none. */
static int map_classes(const struct finetune *f, const struct sac_source *source, int32_t **ret,
                       int *ret_count, struct sac_error *err)
{
    bool by_name = f->names.count > 0 && source->labels.count > 0;
    int count = by_name ? source->labels.count : f->classes_before;
    int32_t *map = calloc((size_t)count + 1, sizeof *map);

    if (!map)
        return out_of_memory(source->path, err);
    for (int i = 0; i < count; i++)
        map[i] = by_name ? class_called(f, source->labels.text[i]) : f->renumber[i];
    *ret = map;
    *ret_count = count;
    return 0;
}

static int refuse_class(const struct finetune *f, const struct sac_source *source, int32_t label,
                        struct sac_error *err)
{
    if (label >= 0 && label < source->labels.count)
        return sac_fail(err, SAC_EINVAL, "%s: class %.200s; %s has no such class", source->path,
                        source->labels.text[label], f->data);
    return sac_fail(err, SAC_EINVAL, "%s: class %d; %s has no pictures of such a class",
                    source->path, label, f->data);
}

static int take_item(struct finetune *f, enum finetune_part part, const struct sac_source *source,
                     int64_t index, const int32_t *map, int count, struct sac_error *err)
{
    int32_t label = 0;
    int rc = sac_source_item_label(source, index, &label, err);

    if (rc)
        return rc;
    if (label < 0 || label >= count || map[label] < 0)
        return refuse_class(f, source, label, err);
    if (f->is_list[part])
        return put_item(&f->lists[part], source, index, map[label], err);
    if (map[label] == label)
        return 0;
    return sac_fail(err, SAC_EINVAL,
                    "%s: class %d is the training data's class %d; a database cannot be "
                    "numbered anew, make it once more from the same classes",
                    source->path, label, map[label]);
}

static int open_part(struct finetune *f, enum finetune_part part, struct sac_error *err)
{
    struct sac_source *source = NULL;
    int32_t *map = NULL;
    int count = 0, rc = sac_source_open(&source, f->from[part], err);

    if (rc == 0)
        rc = map_classes(f, source, &map, &count, err);
    f->is_list[part] = rc == 0 && has_paths(source);
    for (int64_t i = 0; rc == 0 && i < source->count; i++)
        rc = take_item(f, part, source, i, map, count, err);
    if (rc == 0 && !f->is_list[part] && !(f->paths[part] = realpath(f->from[part], NULL)))
        rc = sac_fail(err, SAC_ENOENT, "%s: cannot be resolved", f->from[part]);
    if (rc == 0)
        f->items[part] = source->count;
    free(map);
    sac_source_free(source);
    return rc;
}

/* A folder that was divided is --data, --val-data and --test-data in one. */
static int find_parts(struct finetune *f, struct sac_error *err)
{
    int found = sac_data_parts_find(&f->parts, f->data, err);

    f->from[PART_TRAIN] = f->data;
    f->from[PART_VALIDATION] = f->validation_data;
    f->from[PART_TEST] = f->test_data;
    if (found <= 0)
        return found;
    f->from[PART_TRAIN] = f->parts.path[SAC_DATA_TRAIN];
    if (!f->validation_data)
        f->from[PART_VALIDATION] = f->parts.path[SAC_DATA_VAL];
    if (!f->test_data)
        f->from[PART_TEST] = f->parts.path[SAC_DATA_TEST];
    sac_finetune_say(f, "%s was divided before: its parts are used as they are", f->data);
    return 0;
}

int sac_finetune_plan(struct finetune *f, struct sac_error *err)
{
    struct sac_source *source = NULL;
    int rc = find_parts(f, err);

    if (rc == 0)
        rc = sac_source_open(&source, f->from[PART_TRAIN], err);
    if (rc == 0)
        rc = has_paths(source) ? divide(f, source, err) : use_whole(f, source, err);
    if (rc == 0)
        rc = read_labels(f, err);
    if (rc == 0)
        rc = check_names(f, err);
    for (int part = PART_VALIDATION; rc == 0 && part < PARTS; part++)
        if (f->from[part])
            rc = open_part(f, part, err);
    f->no_test = rc == 0 && f->items[PART_TEST] == 0;
    sac_source_free(source);
    return rc;
}
