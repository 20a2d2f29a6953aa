/* Some items of another source, in an order of their own. */
#include "data/source_private.h"

#include <stdlib.h>
#include <string.h>

struct view {
    struct sac_source source;
    const struct sac_source *of;
    int64_t *indices;
    int32_t *renumber; /* or NULL */
    int renumber_count;
};

static int renumbered(const struct view *view, int64_t index, int32_t label, int32_t *ret,
                      struct sac_error *err)
{
    if (view->renumber && (label < 0 || label >= view->renumber_count || view->renumber[label] < 0))
        return sac_fail(err, SAC_EINVAL, "item %lld has label %d, which has no new number",
                        (long long)index, label);
    *ret = view->renumber ? view->renumber[label] : label;
    return 0;
}

static int view_item(const struct sac_source *source, int64_t index, struct sac_item *ret,
                     struct sac_error *err)
{
    const struct view *view = (const struct view *)source;
    const struct sac_source *of = view->of;
    int32_t label = 0; /* set where rc is 0 */
    int rc = of->type->item(of, view->indices[index], ret, err);

    if (rc < 0 || !view->renumber)
        return rc;
    rc = renumbered(view, index, (int32_t)ret->labels[0], &label, err);
    return rc ? rc : sac_item_set_label(ret, label, err);
}

static void view_name(const struct sac_source *source, int64_t index, char *text, size_t size)
{
    const struct view *view = (const struct view *)source;

    sac_source_item_name(view->of, view->indices[index], text, size);
}

static int view_label(const struct sac_source *source, int64_t index, int32_t *ret,
                      struct sac_error *err)
{
    const struct view *view = (const struct view *)source;
    int32_t label;
    int rc = sac_source_item_label(view->of, view->indices[index], &label, err);

    return rc ? rc : renumbered(view, index, label, ret, err);
}

static bool view_path(const struct sac_source *source, int64_t index, char *text, size_t size)
{
    const struct view *view = (const struct view *)source;

    return sac_source_item_path(view->of, view->indices[index], text, size);
}

static void view_free(struct sac_source *source)
{
    struct view *view = (struct view *)source;

    free(view->indices);
    free(view->renumber);
    free(view);
}

static const struct sac_source_type view_type = {"view",    view_item,  view_name,
                                                 view_free, view_label, view_path};

static void *copied(const void *from, size_t count, size_t size)
{
    size_t bytes;

    if (__builtin_mul_overflow(count, size, &bytes))
        return NULL;
    void *copy = malloc(bytes ? bytes : 1);
    return copy ? memcpy(copy, from, bytes) : NULL;
}

static int copy_labels(struct sac_labels *to, const struct sac_labels *from)
{
    to->text = calloc((size_t)from->count + 1, sizeof *to->text);
    if (!to->text)
        return SAC_ENOMEM;
    for (; to->count < from->count; to->count++) {
        to->text[to->count] = strdup(from->text[to->count]);
        if (!to->text[to->count])
            return SAC_ENOMEM;
    }
    return 0;
}

int sac_source_view_open(struct sac_source **ret, const struct sac_source *of,
                         const int64_t *indices, int64_t count, const int32_t *renumber,
                         int renumber_count, const struct sac_labels *labels, struct sac_error *err)
{
    if (count < 1)
        return sac_fail(err, SAC_EINVAL, "%s: no items are left", of->path);
    struct view *view = sac_source_new(sizeof *view, &view_type, of->path, err);
    if (!view)
        return SAC_ENOMEM;
    view->of = of;
    view->source.count = count;
    view->source.label_count = of->label_count;
    view->source.rgb = of->rgb;
    view->indices = copied(indices, (size_t)count, sizeof *indices);
    view->renumber_count = renumber_count;
    int rc = view->indices ? copy_labels(&view->source.labels, labels ? labels : &of->labels)
                           : SAC_ENOMEM;
    if (rc == 0 && renumber &&
        !(view->renumber = copied(renumber, (size_t)renumber_count, sizeof *renumber)))
        rc = SAC_ENOMEM;
    if (rc == 0) {
        *ret = &view->source;
        return 0;
    }
    sac_source_free(&view->source);
    return sac_fail(err, rc, "%s: out of memory", of->path);
}
