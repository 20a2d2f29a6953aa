#include "dataset/check.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dataset/cook.h"
#include "dataset/likeness.h"
#include "dataset/opinion.h"
#include "dataset/pipeline.h"

enum { CLASSES_MAX = 1 << 20, COVER = 96 };

const char *const sac_fault_names[SAC_FAULTS] = {
    "corrupt", "tiny", "aspect", "duplicate", "near_duplicate", "mislabelled", "unread"};

/* What is kept of an item. */
struct note {
    uint64_t bytes[2], look;
    int64_t index;
    int32_t label;
    int part;
    bool fine;   /* it could be decoded */
    bool copied; /* a copy of an earlier one, and told of */
};

struct run {
    const struct sac_source *const *parts;
    int part_count;
    struct sac_check_options options;
    struct note *notes;
    int64_t count, capacity; /* of findings */
    struct sac_check check;
    struct sac_kitchen *kitchen; /* for second looks */
    struct sac_dish dish;
    int64_t *fine; /* notes that may be near copies */
};

struct slot {
    struct sac_dish dish;
    struct sac_error why;
    int rc, width, height;
};

void sac_check_done(struct sac_check *check)
{
    for (int64_t i = 0; i < check->finding_count; i++)
        free(check->findings[i].why);
    free(check->findings);
    free(check->class_counts);
    *check = (struct sac_check){0};
}

static int add(struct run *run, enum sac_fault fault, int64_t at, int64_t other,
               struct sac_error *err, const char *format, ...)
    __attribute__((format(printf, 6, 7)));

/* Takes `why`, or NULL for what could not be made. */
static int keep(struct run *run, struct sac_finding finding, struct sac_error *err)
{
    struct sac_check *check = &run->check;

    if (finding.why && check->finding_count == run->capacity) {
        int64_t capacity = run->capacity ? 2 * run->capacity : 64;
        struct sac_finding *all = reallocarray(check->findings, (size_t)capacity, sizeof *all);
        if (all) {
            check->findings = all;
            run->capacity = capacity;
        }
    }
    if (!finding.why || check->finding_count == run->capacity) {
        free(finding.why);
        return sac_fail(err, SAC_ENOMEM, "out of memory");
    }
    check->findings[check->finding_count++] = finding;
    check->counts[finding.fault]++;
    return 0;
}

static int add(struct run *run, enum sac_fault fault, int64_t at, int64_t other,
               struct sac_error *err, const char *format, ...)
{
    struct sac_finding finding = {fault, run->notes[at].part, run->notes[at].index, -1, -1, NULL};
    va_list args;

    va_start(args, format);
    if (vasprintf(&finding.why, format, args) < 0)
        finding.why = NULL;
    va_end(args);
    if (other >= 0) {
        finding.other_part = run->notes[other].part;
        finding.other_index = run->notes[other].index;
    }
    return keep(run, finding, err);
}

static int name_unread(struct run *run, struct sac_error *err)
{
    int rc = 0;

    for (int part = 0; rc == 0 && part < run->part_count; part++) {
        for (int64_t i = 0; rc == 0 && i < run->parts[part]->unread_count; i++)
            rc = keep(run,
                      (struct sac_finding){SAC_FAULT_UNREAD, part, i, -1, -1,
                                           strdup("of a kind that is not read; expected JPEG or "
                                                  "PNG")},
                      err);
    }
    return rc;
}

/* ---- The first look --------------------------------------------------------- */

static int worker_new(void *user, void **ret, struct sac_error *err)
{
    (void)user;
    return sac_kitchen_new((struct sac_kitchen **)ret, err);
}

static void worker_free(void *worker)
{
    sac_kitchen_free(worker);
}

/* The pixels of an item; a JPEG is scaled down while it is decoded, which reads all of
 * its data no less. */
static int decode(struct sac_kitchen *kitchen, int64_t index, struct sac_dish *dish, int *ret_width,
                  int *ret_height, struct sac_error *err)
{
    struct sac_recipe recipe = {.fit = {.channels = 3}};
    const struct sac_item *item = &kitchen->item;
    struct sac_decode_options options = {
        .channels = 3, .cover_width = COVER, .cover_height = COVER};
    struct sac_image_info info;
    int rc;

    *ret_width = item->width;
    *ret_height = item->height;
    if (item->kind == SAC_ITEM_FLOATS && item->channels != 1 && item->channels != 3)
        return sac_fail(err, SAC_EUNSUPPORTED, "%d channels; pictures have 1 or 3", item->channels);
    if (item->kind != SAC_ITEM_ENCODED)
        return sac_cook_pixels(&recipe, kitchen, item, index, dish, err);
    rc = sac_image_probe(kitchen->decoder, item->bytes, item->size, NULL, &info, err);
    if (rc < 0)
        return rc;
    *ret_width = info.width;
    *ret_height = info.height;
    return sac_image_decode(kitchen->decoder, item->bytes, item->size, &options, &dish->image, err);
}

static int look(const struct sac_source *source, struct sac_kitchen *kitchen, int64_t index,
                struct slot *slot, struct note *note, struct sac_look *ret, struct sac_error *err)
{
    struct sac_item *item = &kitchen->item;
    int rc = sac_source_item(source, index, item, err);

    if (rc < 0)
        return rc;
    sac_likeness_of_bytes(item->bytes ? item->bytes : (const uint8_t *)item->floats,
                          item->kind == SAC_ITEM_FLOATS
                              ? (size_t)item->channels * (size_t)item->height *
                                    (size_t)item->width * sizeof(float)
                              : item->size,
                          note->bytes);
    rc = decode(kitchen, index, &slot->dish, &slot->width, &slot->height, err);
    if (rc == 0)
        sac_look_at(ret, &slot->dish.image);
    return rc;
}

static int work(void *user, void *worker, int64_t index, void *memory, struct sac_error *err)
{
    struct run *run = user;
    struct note *note = &run->notes[index];
    struct slot *slot = memory;
    struct sac_look seen;

    slot->why = (struct sac_error){0};
    do {
        slot->why = (struct sac_error){0};
        slot->rc = look(run->parts[note->part], worker, note->index, slot, note, &seen, &slot->why);
    } while (slot->rc == SAC_EBUSY);
    note->fine = slot->rc == 0;
    if (slot->rc == 0)
        note->look = sac_look_hash(&seen);
    else if (!sac_source_is_corrupt(slot->rc) && slot->rc != SAC_ENOENT)
        return sac_fail(err, slot->rc, "%s", slot->why.text);
    return 0;
}

static int judge_shape(struct run *run, int64_t at, const struct slot *slot, struct sac_error *err)
{
    int less = slot->width < slot->height ? slot->width : slot->height;
    int more = slot->width + slot->height - less;
    int rc = 0;

    if (less < run->options.tiny)
        rc = add(run, SAC_FAULT_TINY, at, -1, err, "%d × %d pixels", slot->width, slot->height);
    if (rc == 0 && more > run->options.aspect * less)
        rc = add(run, SAC_FAULT_ASPECT, at, -1, err, "%d × %d pixels: %.1f to 1", slot->width,
                 slot->height, (double)more / less);
    return rc;
}

static int take(void *user, int64_t index, void *memory, struct sac_error *err)
{
    struct run *run = user;
    const struct slot *slot = memory;
    int rc;

    if (slot->rc < 0)
        rc = add(run, SAC_FAULT_CORRUPT, index, -1, err, "%s", slot->why.text);
    else
        rc = judge_shape(run, index, slot, err);
    if (run->options.on_progress && (index % 16 == 0 || index + 1 == run->count))
        run->options.on_progress(run->options.user, "pictures", index + 1, run->count,
                                 run->check.finding_count);
    return rc;
}

static void slot_done(void *memory)
{
    sac_dish_done(&((struct slot *)memory)->dish);
}

static int look_at_all(struct run *run, struct sac_error *err)
{
    struct sac_pipeline pipeline = {.end = run->count,
                                    .threads = run->options.threads,
                                    .slot_size = sizeof(struct slot),
                                    .worker_new = worker_new,
                                    .worker_free = worker_free,
                                    .work = work,
                                    .take = take,
                                    .slot_done = slot_done};

    return sac_pipeline_run(&pipeline, run, err);
}

/* ---- Copies ----------------------------------------------------------------- */

static const char *relation(const struct run *run, int64_t a, int64_t b)
{
    const struct note *x = &run->notes[a], *y = &run->notes[b];

    if (x->label != y->label)
        return x->part != y->part ? "in another class and another part" : "in another class";
    return x->part != y->part ? "in another part" : "in the same class";
}

static int by_bytes(const void *a, const void *b, void *user)
{
    const struct run *run = user;
    int64_t i = *(const int64_t *)a, j = *(const int64_t *)b;
    const struct note *x = &run->notes[i], *y = &run->notes[j];
    int order = memcmp(x->bytes, y->bytes, sizeof x->bytes);

    return order ? order : (i > j) - (i < j);
}

static int same_bytes(struct run *run, int64_t a, int64_t b, bool *ret, struct sac_error *err)
{
    struct sac_item first = {0}, second = {0};
    const struct note *x = &run->notes[a], *y = &run->notes[b];
    int rc = sac_source_item(run->parts[x->part], x->index, &first, err);

    if (rc == 0)
        rc = sac_source_item(run->parts[y->part], y->index, &second, err);
    *ret = rc == 0 && first.size == second.size && first.kind == second.kind &&
           (first.kind == SAC_ITEM_FLOATS || memcmp(first.bytes, second.bytes, first.size) == 0);
    sac_item_done(&first);
    sac_item_done(&second);
    return rc;
}

static int find_copies(struct run *run, struct sac_error *err)
{
    int64_t *order = calloc((size_t)run->count + 1, sizeof *order), count = 0, first = 0;
    int rc = order ? 0 : sac_fail(err, SAC_ENOMEM, "out of memory");

    for (int64_t i = 0; rc == 0 && i < run->count; i++) {
        if (run->notes[i].fine)
            order[count++] = i;
    }
    if (rc == 0)
        qsort_r(order, (size_t)count, sizeof *order, by_bytes, run);
    for (int64_t i = 1; rc == 0 && i < count; i++) {
        bool same = memcmp(run->notes[order[i]].bytes, run->notes[order[first]].bytes,
                           sizeof run->notes->bytes) == 0;
        if (same)
            rc = same_bytes(run, order[first], order[i], &same, err);
        if (!same) {
            first = i;
            continue;
        }
        run->notes[order[i]].copied = true;
        if (rc == 0)
            rc = add(run, SAC_FAULT_DUPLICATE, order[i], order[first], err,
                     "the same bytes are there %s", relation(run, order[i], order[first]));
    }
    free(order);
    return rc;
}

static int second_look(struct run *run, int64_t at, struct sac_look *ret, struct sac_error *err)
{
    struct slot slot = {0};
    struct note *note = &run->notes[at], unused = *note;
    int rc = look(run->parts[note->part], run->kitchen, note->index, &slot, &unused, ret, err);

    sac_dish_done(&slot.dish);
    return rc;
}

static int judge_pair(void *user, int64_t i, int64_t j, struct sac_error *err)
{
    struct run *run = user;
    int64_t a = run->fine[i], b = run->fine[j];
    struct note *first = &run->notes[a < b ? a : b], *later = &run->notes[a < b ? b : a];
    struct sac_look looks[2];
    bool counts = run->part_count == 1 || run->options.all_pairs || first->part != later->part ||
                  first->label != later->label;

    if (!counts || later->copied)
        return 0;
    int rc = second_look(run, a, &looks[0], err);
    if (rc == 0)
        rc = second_look(run, b, &looks[1], err);
    double difference = rc == 0 ? sac_look_difference(&looks[0], &looks[1]) : 0;
    if (rc < 0 || difference >= SAC_LOOK_SAME)
        return rc;
    later->copied = true;
    return add(run, SAC_FAULT_NEAR_DUPLICATE, later - run->notes, first - run->notes, err,
               "looks like one %s, by %.1f of 255 in the mean",
               relation(run, later - run->notes, first - run->notes), difference);
}

static int find_near_copies(struct run *run, struct sac_error *err)
{
    uint64_t *hashes = calloc((size_t)run->count + 1, sizeof *hashes);
    int64_t count = 0;
    int rc;

    run->fine = calloc((size_t)run->count + 1, sizeof *run->fine);
    rc = hashes && run->fine ? sac_kitchen_new(&run->kitchen, err)
                             : sac_fail(err, SAC_ENOMEM, "out of memory");
    for (int64_t i = 0; rc == 0 && i < run->count; i++) {
        if (!run->notes[i].fine || run->notes[i].copied)
            continue;
        hashes[count] = run->notes[i].look;
        run->fine[count++] = i;
    }
    if (rc == 0)
        rc = sac_likeness_pairs(hashes, count, judge_pair, run, err);
    free(hashes);
    return rc;
}

/* ---- Labels ----------------------------------------------------------------- */

static const char *class_name(const struct run *run, int label, char text[24])
{
    if (label < run->parts[0]->labels.count)
        return run->parts[0]->labels.text[label];
    snprintf(text, 24, "class %d", label);
    return text;
}

static void on_opinion(void *user, int64_t done, int64_t total)
{
    const struct run *run = user;

    if (run->options.on_progress)
        run->options.on_progress(run->options.user, "asked of the model", done, total,
                                 run->check.finding_count);
}

static int doubt_labels(struct run *run, struct sac_error *err)
{
    struct sac_opinion_item *items = calloc((size_t)run->count + 1, sizeof *items);
    struct sac_opinion_options options = {.model = run->options.model,
                                          .device = run->options.device,
                                          .classes = run->check.classes,
                                          .labels = &run->parts[0]->labels,
                                          .threads = run->options.threads,
                                          .on_progress = on_opinion,
                                          .user = run};
    struct sac_doubt *doubts = NULL;
    int64_t count = 0;
    int rc = items ? 0 : sac_fail(err, SAC_ENOMEM, "out of memory");
    char own[24], other[24];

    for (int64_t i = 0; rc == 0 && i < run->count; i++)
        items[i] = (struct sac_opinion_item){run->parts[run->notes[i].part], run->notes[i].index,
                                             run->notes[i].label};
    if (rc == 0)
        rc = sac_opinion_of(&doubts, &count, items, run->count, &options, err);
    for (int64_t i = 0; rc == 0 && i < count; i++)
        rc = add(run, SAC_FAULT_MISLABELLED, doubts[i].item, -1, err,
                 "labelled %.80s, looks like %.80s (%.2f against %.2f)",
                 class_name(run, run->notes[doubts[i].item].label, own),
                 class_name(run, doubts[i].other, other), (double)doubts[i].other_score,
                 (double)doubts[i].own_score);
    free(doubts);
    free(items);
    return rc;
}

/* ---- Put together ----------------------------------------------------------- */

static int note_part(struct run *run, int part, int64_t first, struct sac_error *err)
{
    const struct sac_source *source = run->parts[part];

    for (int64_t i = 0; i < source->count; i++) {
        struct note *note = &run->notes[first + i];
        struct sac_error failed = {0};
        *note = (struct note){.index = i, .part = part};
        int rc = sac_source_item_label(source, i, &note->label, &failed);
        if (rc < 0 && !sac_source_is_corrupt(rc))
            return sac_fail(err, rc, "%s", failed.text);
        if (note->label < 0 || note->label >= CLASSES_MAX)
            return sac_fail(err, SAC_EINVAL, "%s: label %d; expected 0 to %d", source->path,
                            note->label, CLASSES_MAX - 1);
        if (note->label >= run->check.classes)
            run->check.classes = note->label + 1;
    }
    return 0;
}

static int note_all(struct run *run, struct sac_error *err)
{
    int64_t first = 0;
    int rc = 0;

    for (int part = 0; part < run->part_count; part++) {
        run->count += run->parts[part]->count;
        if (run->parts[part]->labels.count > run->check.classes)
            run->check.classes = run->parts[part]->labels.count;
    }
    run->notes = calloc((size_t)run->count, sizeof *run->notes);
    if (!run->notes)
        return sac_fail(err, SAC_ENOMEM, "no memory for %lld pictures", (long long)run->count);
    for (int part = 0; rc == 0 && part < run->part_count; part++) {
        rc = note_part(run, part, first, err);
        first += run->parts[part]->count;
    }
    if (rc < 0)
        return rc;
    run->check.items = run->count;
    run->check.class_counts = calloc((size_t)run->part_count * (size_t)run->check.classes,
                                     sizeof *run->check.class_counts);
    if (!run->check.class_counts)
        return sac_fail(err, SAC_ENOMEM, "out of memory");
    for (int64_t i = 0; i < run->count; i++)
        run->check
            .class_counts[(int64_t)run->notes[i].part * run->check.classes + run->notes[i].label]++;
    return 0;
}

static int by_fault(const void *a, const void *b)
{
    const struct sac_finding *x = a, *y = b;

    if (x->fault != y->fault)
        return x->fault > y->fault ? 1 : -1;
    if (x->part != y->part)
        return x->part - y->part;
    return (x->index > y->index) - (x->index < y->index);
}

int sac_check_of(struct sac_check *ret, const struct sac_source *const *parts, int part_count,
                 const struct sac_check_options *options, struct sac_error *err)
{
    struct run run = {.parts = parts, .part_count = part_count, .options = *options};

    if (run.options.tiny == 0)
        run.options.tiny = 32;
    if (run.options.aspect == 0)
        run.options.aspect = 3;
    int rc = note_all(&run, err);
    if (rc == 0)
        rc = look_at_all(&run, err);
    if (rc == 0)
        rc = find_copies(&run, err);
    if (rc == 0)
        rc = find_near_copies(&run, err);
    if (rc == 0 && options->model)
        rc = doubt_labels(&run, err);
    if (rc == 0)
        rc = name_unread(&run, err);
    if (rc == 0 && run.check.finding_count > 0)
        qsort(run.check.findings, (size_t)run.check.finding_count, sizeof *run.check.findings,
              by_fault);
    sac_kitchen_free(run.kitchen);
    free(run.fine);
    free(run.notes);
    if (rc == 0)
        *ret = run.check;
    else
        sac_check_done(&run.check);
    return rc;
}
