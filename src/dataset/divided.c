#include "dataset/divided.h"

#include <stdlib.h>
#include <string.h>

void sac_divided_done(struct sac_divided *divided)
{
    for (int part = 0; part < SAC_DATA_PARTS; part++) {
        sac_source_free(divided->part[part]);
        sac_source_free(divided->opened[part]);
    }
    *divided = (struct sac_divided){0};
}

static bool are_same(const struct sac_labels *a, const struct sac_labels *b)
{
    bool same = a->count == b->count;

    for (int i = 0; same && i < a->count; i++)
        same = strcmp(a->text[i], b->text[i]) == 0;
    return same;
}

static int32_t number_of(const struct sac_labels *labels, const char *name)
{
    for (int i = 0; i < labels->count; i++) {
        if (strcmp(labels->text[i], name) == 0)
            return i;
    }
    return -1;
}

/* Classes of one's own that `labels` does not have may have no pictures. */
static int check_numbers(const struct sac_source *source, const int32_t *renumber,
                         const struct sac_source *train, struct sac_error *err)
{
    for (int64_t i = 0; i < source->count; i++) {
        int32_t label = 0;
        int rc = sac_source_item_label(source, i, &label, err);
        if (rc < 0)
            return rc;
        if (label < 0 || label >= source->labels.count || renumber[label] < 0)
            return sac_fail(
                err, SAC_EINVAL, "%s has the class \"%.80s\", which %s has not", source->path,
                label >= 0 && label < source->labels.count ? source->labels.text[label] : "?",
                train->path);
    }
    return 0;
}

/* The same items, with classes numbered as train numbers those of the same names. */
static int renumber_part(struct sac_divided *divided, int part, struct sac_error *err)
{
    const struct sac_source *train = divided->part[SAC_DATA_TRAIN];
    struct sac_source *source = divided->part[part];
    int count = source->labels.count;
    int32_t *renumber = calloc((size_t)count, sizeof *renumber);
    int64_t *indices = calloc((size_t)source->count, sizeof *indices);
    int rc = renumber && indices ? 0 : sac_fail(err, SAC_ENOMEM, "%s: out of memory", source->path);

    for (int i = 0; rc == 0 && i < count; i++)
        renumber[i] = number_of(&train->labels, source->labels.text[i]);
    for (int64_t i = 0; rc == 0 && i < source->count; i++)
        indices[i] = i;
    if (rc == 0)
        rc = check_numbers(source, renumber, train, err);
    if (rc == 0) {
        divided->opened[part] = source;
        divided->part[part] = NULL;
        rc = sac_source_view_open(&divided->part[part], source, indices, source->count, renumber,
                                  count, &train->labels, err);
    }
    if (rc == 0) { /* they are named by the view */
        divided->part[part]->unread = source->unread;
        divided->part[part]->unread_count = source->unread_count;
        source->unread = NULL;
        source->unread_count = 0;
    }
    free(renumber);
    free(indices);
    return rc;
}

static int open_part(struct sac_divided *divided, const struct sac_data_parts *parts, int part,
                     struct sac_error *err)
{
    if (!parts->path[part])
        return 0;
    int rc = sac_source_open(&divided->part[part], parts->path[part], err);
    if (rc < 0 || part == SAC_DATA_TRAIN)
        return rc;
    const struct sac_labels *labels = &divided->part[part]->labels;
    const struct sac_labels *train = &divided->part[SAC_DATA_TRAIN]->labels;
    if (labels->count == 0 || train->count == 0 || are_same(labels, train))
        return 0;
    return renumber_part(divided, part, err);
}

int sac_divided_open(struct sac_divided *ret, const char *path, struct sac_error *err)
{
    struct sac_data_parts parts = {0};
    struct sac_divided divided = {0};
    int rc = sac_data_parts_find(&parts, path, err);

    if (rc <= 0)
        return rc;
    rc = 0;
    for (int part = 0; rc == 0 && part < SAC_DATA_PARTS; part++)
        rc = open_part(&divided, &parts, part, err);
    sac_data_parts_done(&parts);
    if (rc < 0) {
        sac_divided_done(&divided);
        return rc;
    }
    *ret = divided;
    return 1;
}

int sac_divided_refuse(const char *path, struct sac_error *err)
{
    struct sac_data_parts parts = {0};
    int rc = sac_data_parts_find(&parts, path, err);

    if (rc == 1)
        rc = sac_fail(err, SAC_EINVAL, "%s is divided already: name one of its parts, such as %s",
                      path, parts.path[SAC_DATA_TRAIN]);
    sac_data_parts_done(&parts);
    return rc;
}
