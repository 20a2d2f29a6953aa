#include "dataset/split.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/random.h"

enum { CLASSES_MAX = 1 << 20 };

const char *const sac_split_names[SAC_SPLIT_PARTS] = {"train", "val", "test"};

struct members {
    int64_t *items;  /* of all classes, one class behind the other */
    int64_t *first;  /* classes + 1 places in it */
    int32_t *labels; /* of each item of the source */
};

static void members_done(struct members *members)
{
    free(members->items);
    free(members->first);
    free(members->labels);
}

void sac_split_done(struct sac_split *split)
{
    for (int part = 0; part < SAC_SPLIT_PARTS; part++)
        free(split->indices[part]);
    free(split->renumber);
    free(split->class_counts);
    sac_labels_done(&split->labels);
    *split = (struct sac_split){0};
}

static int check(const struct sac_split_options *options, struct sac_error *err)
{
    double sum = 0;

    for (int part = 0; part < SAC_SPLIT_PARTS; part++) {
        if (!(options->share[part] >= 0) || options->count[part] < 0)
            return sac_fail(err, SAC_EINVAL, "%s: a part less than nothing", sac_split_names[part]);
        sum += options->share[part];
    }
    if (sum > 1 + 1e-9)
        return sac_fail(err, SAC_EINVAL, "parts of %g %% in all; expected at most 100", sum * 100);
    if (options->max > 0 && options->max < options->min)
        return sac_fail(err, SAC_EINVAL, "at most %lld pictures a class, and at least %lld",
                        (long long)options->max, (long long)options->min);
    return 0;
}

static int read_labels(struct members *members, const struct sac_source *source, int *ret_classes,
                       struct sac_error *err)
{
    int classes = source->labels.count;

    members->labels = calloc((size_t)source->count, sizeof *members->labels);
    if (!members->labels)
        return sac_fail(err, SAC_ENOMEM, "%s: out of memory", source->path);
    for (int64_t i = 0; i < source->count; i++) {
        int rc = sac_source_item_label(source, i, &members->labels[i], err);
        if (rc < 0)
            return rc;
        if (members->labels[i] < 0 || members->labels[i] >= CLASSES_MAX)
            return sac_fail(err, SAC_EINVAL, "%s: label %d; expected 0 to %d", source->path,
                            members->labels[i], CLASSES_MAX - 1);
        if (members->labels[i] >= classes)
            classes = members->labels[i] + 1;
    }
    *ret_classes = classes;
    return 0;
}

/* Items by class, each class in the source's order. */
static int sort_members(struct members *members, const struct sac_source *source, int classes,
                        struct sac_error *err)
{
    members->items = calloc((size_t)source->count, sizeof *members->items);
    members->first = calloc((size_t)classes + 2, sizeof *members->first);
    if (!members->items || !members->first)
        return sac_fail(err, SAC_ENOMEM, "%s: out of memory", source->path);
    int64_t *place = members->first + 1; /* becomes each class's end */
    for (int64_t i = 0; i < source->count; i++)
        place[members->labels[i] + 1]++;
    for (int c = 0; c < classes; c++)
        place[c + 1] += place[c];
    for (int64_t i = 0; i < source->count; i++)
        members->items[place[members->labels[i]]++] = i;
    return 0;
}

static void shuffle(int64_t *items, int64_t count, uint64_t seed, uint64_t stream)
{
    struct sac_random random = sac_random_stream(seed, SAC_RANDOM_ORDER, 1, stream);

    for (int64_t i = count - 1; i > 0; i--) { /* Fisher and Yates */
        int64_t j = sac_random_below(&random, (uint32_t)i + 1);
        int64_t kept = items[i];
        items[i] = items[j];
        items[j] = kept;
    }
}

/* Takes one of the largest part for each that would have none. */
static void give_each_one(const struct sac_split_options *options, int64_t sizes[SAC_SPLIT_PARTS])
{
    for (int part = 0; part < SAC_SPLIT_PARTS; part++) {
        int largest = 0;
        for (int other = 1; other < SAC_SPLIT_PARTS; other++)
            largest = sizes[other] > sizes[largest] ? other : largest;
        if (options->share[part] > 0 && sizes[part] == 0 && sizes[largest] > 1) {
            sizes[largest]--;
            sizes[part]++;
        }
    }
}

/* How many of `count` go to each part: shares by rounding their running sum, so that
 * none is off by one or more. */
static int divide(const struct sac_split_options *options, int64_t count,
                  int64_t sizes[SAC_SPLIT_PARTS])
{
    int64_t asked = 0, before = 0;
    double sum = 0;

    for (int part = 0; part < SAC_SPLIT_PARTS; part++)
        asked += options->count[part];
    if (asked > count)
        return SAC_EINVAL;
    for (int part = 0; part < SAC_SPLIT_PARTS; part++) {
        sum += options->share[part];
        int64_t until = (int64_t)floor(sum * (double)count + .5 - 1e-9);
        sizes[part] = asked > 0 ? options->count[part] : until - before;
        before = until;
    }
    if (asked == 0)
        give_each_one(options, sizes);
    return 0;
}

static int refuse_class(const struct sac_source *source, int class, int64_t count,
                        struct sac_error *err)
{
    const char *name = class < source->labels.count ? source->labels.text[class] : "";

    return sac_fail(err, SAC_EINVAL,
                    "%s: class %d %.100s has %lld pictures, fewer than are asked for; --min drops "
                    "such classes",
                    source->path, class, name, (long long)count);
}

static int add_label(struct sac_split *split, const struct sac_source *source, int class,
                     struct sac_error *err)
{
    struct sac_labels *labels = &split->labels;

    if (class >= source->labels.count)
        return 0;
    labels->text[labels->count] = strdup(source->labels.text[class]);
    if (!labels->text[labels->count])
        return sac_fail(err, SAC_ENOMEM, "%s: out of memory", source->path);
    labels->count++;
    return 0;
}

static int plan_class(struct sac_split *split, const struct sac_source *source,
                      const struct sac_split_options *options, const struct members *members,
                      int class, struct sac_error *err)
{
    int64_t *items = members->items + members->first[class];
    int64_t count = members->first[class + 1] - members->first[class], sizes[SAC_SPLIT_PARTS];

    split->renumber[class] = -1;
    if (count < 1 || count < options->min)
        return 0;
    if (count > UINT32_MAX)
        return sac_fail(err, SAC_ELIMIT, "%s: class %d has %lld pictures", source->path, class,
                        (long long)count);
    shuffle(items, count, options->seed, (uint64_t) class);
    count = options->max > 0 && count > options->max ? options->max : count;
    if (divide(options, count, sizes) < 0)
        return refuse_class(source, class, count, err);
    for (int part = 0; part < SAC_SPLIT_PARTS; part++) {
        memcpy(split->indices[part] + split->counts[part], items,
               (size_t)sizes[part] * sizeof *items);
        items += sizes[part];
        split->counts[part] += sizes[part];
        split->class_counts[split->classes][part] = sizes[part];
    }
    split->renumber[class] = split->classes++;
    return add_label(split, source, class, err);
}

static int reserve(struct sac_split *split, const struct sac_source *source, struct sac_error *err)
{
    size_t classes = (size_t)split->classes_before;
    bool fine = true;

    for (int part = 0; part < SAC_SPLIT_PARTS; part++) {
        split->indices[part] = calloc((size_t)source->count, sizeof *split->indices[part]);
        fine = fine && split->indices[part];
    }
    split->renumber = calloc(classes, sizeof *split->renumber);
    split->class_counts = calloc(classes, sizeof *split->class_counts);
    split->labels.text = calloc(classes + 1, sizeof *split->labels.text);
    if (fine && split->renumber && split->class_counts && split->labels.text)
        return 0;
    return sac_fail(err, SAC_ENOMEM, "%s: out of memory", source->path);
}

static int plan(struct sac_split *split, const struct sac_source *source,
                const struct sac_split_options *options, struct members *members,
                struct sac_error *err)
{
    int rc = read_labels(members, source, &split->classes_before, err);

    if (rc == 0)
        rc = sort_members(members, source, split->classes_before, err);
    if (rc == 0)
        rc = reserve(split, source, err);
    for (int class = 0; rc == 0 && class < split->classes_before; class ++)
        rc = plan_class(split, source, options, members, class, err);
    if (rc == 0 && split->classes == 0)
        rc = sac_fail(err, SAC_EINVAL, "%s: no class has %lld pictures", source->path,
                      (long long)options->min);
    for (int part = 0; rc == 0 && part < SAC_SPLIT_PARTS; part++)
        shuffle(split->indices[part], split->counts[part], options->seed,
                (UINT64_C(1) << 32) + (uint64_t)part);
    return rc;
}

int sac_split_plan(struct sac_split *ret, const struct sac_source *source,
                   const struct sac_split_options *options, struct sac_error *err)
{
    struct sac_split split = {0};
    struct members members = {0};
    int rc = check(options, err);

    if (rc == 0 && source->count > UINT32_MAX)
        rc = sac_fail(err, SAC_ELIMIT, "%s: %lld items are too many to split", source->path,
                      (long long)source->count);
    if (rc == 0)
        rc = plan(&split, source, options, &members, err);
    members_done(&members);
    if (rc == 0)
        *ret = split;
    else
        sac_split_done(&split);
    return rc;
}

int sac_split_open(struct sac_source **ret, const struct sac_split *split,
                   const struct sac_source *source, int part, struct sac_error *err)
{
    return sac_source_view_open(ret, source, split->indices[part], split->counts[part],
                                split->renumber, split->classes_before, &split->labels, err);
}
