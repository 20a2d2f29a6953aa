#include "dataset/build.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "base/durable.h"
#include "base/file.h"
#include "data/random.h"
#include "dataset/pipeline.h"
#include "dataset/progress.h"

enum { COMMIT_RECORDS = 512, PATH_BYTES_MAX = 4096 };
#define COMMIT_BYTES ((size_t)32 << 20)

struct build {
    const struct sac_source *source;
    const struct sac_build_options *options;
    struct sac_order order;
    int32_t label_max;
    bool in_folder; /* `out` is a folder of ours, with what lies beside the data */
    struct sac_sink *sink;
    struct sac_progress progress;
    int turn; /* the progress file that is written next */
    FILE *skipped;
    struct sac_build_report report;
    /* since the last commit */
    int records;
    size_t bytes;
};

/* A slot of the pipeline. */
struct slot {
    struct sac_dish dish;
    int skip; /* the code, or 0 */
    struct sac_error why;
};

/* ---- What is made of what --------------------------------------------------- */

static void hash(uint64_t *at, const void *bytes, size_t size)
{
    const uint8_t *byte = bytes;

    for (size_t i = 0; i < size; i++) /* FNV-1a, 64 bits */
        *at = (*at ^ byte[i]) * UINT64_C(0x100000001b3);
}

static void hash_number(uint64_t *at, int64_t number)
{
    hash(at, &number, sizeof number);
}

/* Size and time of change: what is replaced under its name is another picture. */
static void hash_file(uint64_t *at, const char *path)
{
    struct stat info;

    if (stat(path, &info) < 0)
        info = (struct stat){.st_size = -1};
    hash_number(at, info.st_size);
    hash_number(at, info.st_mtim.tv_sec);
    hash_number(at, info.st_mtim.tv_nsec);
}

/* Items without files of their own lie in the source's: itself or, of an LMDB, inside. */
static void hash_source_file(uint64_t *at, const struct sac_source *source)
{
    char path[PATH_BYTES_MAX];

    if (sac_source_item_path(source, 0, path, sizeof path))
        return;
    if (snprintf(path, sizeof path, "%s/data.mdb", source->path) >= (int)sizeof path ||
        !sac_file_exists(path))
        snprintf(path, sizeof path, "%s", source->path);
    hash_file(at, path);
}

/* Of the options that decide bits, and of the items' names, labels and files. */
static int fingerprint(struct build *build, struct sac_error *err)
{
    const struct sac_recipe *recipe = &build->options->recipe;
    const int64_t numbers[] = {recipe->to,           recipe->fit.mode,        recipe->fit.width,
                               recipe->fit.height,   recipe->fit.channels,    recipe->fit.decode,
                               recipe->encoding,     recipe->quality,         (int64_t)recipe->seed,
                               build->options->mean, build->options->shuffle, build->source->count};
    uint64_t at = UINT64_C(0xcbf29ce484222325);
    char name[PATH_BYTES_MAX];
    int rc = 0;

    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        hash_number(&at, numbers[i]);
    hash_source_file(&at, build->source);
    if (sac_recipe_rgb(recipe, build->source))
        hash(&at, "rgb", 4);
    for (int i = 0; i < build->source->labels.count; i++)
        hash(&at, build->source->labels.text[i], strlen(build->source->labels.text[i]) + 1);
    for (int64_t i = 0; rc == 0 && i < build->source->count; i++) {
        int32_t label = 0;
        rc = sac_source_item_label(build->source, i, &label, err);
        if (sac_source_is_corrupt(rc) && err) { /* skipped in its turn */
            *err = (struct sac_error){0};
            rc = 0;
        }
        build->label_max = label > build->label_max ? label : build->label_max;
        sac_source_item_name(build->source, i, name, sizeof name);
        hash(&at, name, strlen(name) + 1);
        hash_number(&at, label);
        if (sac_source_item_path(build->source, i, name, sizeof name))
            hash_file(&at, name);
    }
    build->progress.fingerprint = at;
    return rc;
}

static int check(const struct build *build, struct sac_error *err)
{
    const struct sac_recipe *recipe = &build->options->recipe;
    bool files = recipe->to == SAC_SINK_LIST || recipe->to == SAC_SINK_FOLDER;

    if (build->options->mean && recipe->fit.width == 0)
        return sac_fail(err, SAC_EINVAL, "a mean image needs pictures of one size");
    if (files && recipe->encoding == SAC_ENCODING_RAW)
        return sac_fail(err, SAC_EINVAL, "pictures in files are PNG or JPEG, not raw");
    if ((recipe->to == SAC_SINK_HDF5 || recipe->to == SAC_SINK_CIFAR) &&
        recipe->encoding > SAC_ENCODING_RAW)
        return sac_fail(err, SAC_EINVAL, "%s holds plain values, neither PNG nor JPEG",
                        recipe->to == SAC_SINK_HDF5 ? "HDF5" : "CIFAR's binary version");
    if (recipe->fit.width > 0 && recipe->fit.channels == 0)
        return sac_fail(err, SAC_EINVAL, "pictures of one size have one number of channels");
    return 0;
}

/* ---- Beside the data -------------------------------------------------------- */

static int beside(const struct build *build, const char *name, char path[PATH_BYTES_MAX],
                  struct sac_error *err)
{
    if (snprintf(path, PATH_BYTES_MAX, "%s/%s", build->options->out, name) < PATH_BYTES_MAX)
        return 0;
    return sac_fail(err, SAC_EINVAL, "%.200s…: the path is too long", build->options->out);
}

static int write_text(const struct build *build, const char *name, const struct sac_buf *text,
                      struct sac_error *err)
{
    char path[PATH_BYTES_MAX];
    int rc = text->failed ? sac_fail(err, SAC_ENOMEM, "%s: out of memory", name)
                          : beside(build, name, path, err);

    return rc ? rc : sac_durable_write(path, text->data, text->len, err);
}

static int write_labels(const struct build *build, struct sac_error *err)
{
    const struct sac_labels *labels = &build->source->labels;
    struct sac_buf text = {0};

    if (labels->count == 0)
        return 0;
    for (int i = 0; i < labels->count; i++)
        sac_buf_printf(&text, "%s\n", labels->text[i]);
    int rc = write_text(build, "labels.txt", &text, err);
    sac_buf_done(&text);
    return rc;
}

/* Planes in the data's order, of sums that lie interleaved R, G, B. */
static int write_mean(const struct build *build, double ret_channels[3], struct sac_error *err)
{
    const struct sac_fit *fit = &build->options->recipe.fit;
    size_t area = (size_t)fit->width * (size_t)fit->height, channels = (size_t)fit->channels;
    double count = (double)build->progress.mark.records;
    bool rgb = sac_recipe_rgb(&build->options->recipe, build->source);
    char path[PATH_BYTES_MAX];
    struct sac_caffe_blob blob = {
        .rank = 4, .dim = {1, fit->channels, fit->height, fit->width}, .count = area * channels};
    int rc = beside(build, "mean.binaryproto", path, err);

    if (rc < 0)
        return rc;
    blob.data = malloc(blob.count * sizeof *blob.data);
    if (!blob.data)
        return sac_fail(err, SAC_ENOMEM, "%s: out of memory", path);
    for (size_t c = 0; c < channels; c++) {
        double sum = 0;
        size_t plane = rgb ? c : channels - 1 - c;
        for (size_t i = 0; i < area; i++) {
            double mean = (double)build->progress.sums[i * channels + c] / count;
            blob.data[plane * area + i] = (float)mean;
            sum += mean;
        }
        ret_channels[plane] = sum / (double)area;
    }
    rc = sac_caffe_blob_save(&blob, path, err);
    free(blob.data);
    return rc;
}

static json_t *describe(const struct build *build, const double means[3])
{
    static const char *const modes[] = {"squash", "crop", "fill", "half_crop"};
    static const char *const encodings[] = {"keep", "raw", "png", "jpg"};
    const struct sac_recipe *recipe = &build->options->recipe;
    bool rgb = sac_recipe_rgb(recipe, build->source);
    char text[32];

    snprintf(text, sizeof text, "%016" PRIx64, build->progress.fingerprint);
    json_t *all = json_pack(
        "{s:s, s:I, s:I, s:i, s:s, s:I, s:b, s:s}", "kind", sac_sink_kind_name(recipe->to),
        "pictures", (json_int_t)build->progress.mark.records, "skipped",
        (json_int_t)build->progress.skipped, "classes", build->report.classes, "encoding",
        encodings[recipe->encoding], "seed", (json_int_t)recipe->seed, "shuffled",
        (int)build->options->shuffle, "fingerprint", text);
    json_object_set_new(all, "channels", json_string(rgb ? "rgb" : "bgr"));
    if (all && recipe->fit.width > 0)
        json_object_set_new(all, "size",
                            json_pack("{s:i, s:i, s:i, s:s}", "width", recipe->fit.width, "height",
                                      recipe->fit.height, "channels", recipe->fit.channels,
                                      "resize", modes[recipe->fit.mode]));
    if (all && build->options->mean) {
        json_t *mean = json_array();
        for (int c = 0; c < recipe->fit.channels; c++)
            json_array_append_new(mean, json_real(means[c]));
        json_object_set_new(all, "mean", mean); /* in the planes' order, or grey */
    }
    return all;
}

static int write_description(const struct build *build, const double means[3],
                             struct sac_error *err)
{
    json_t *all = describe(build, means);
    char *text = all ? json_dumps(all, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) : NULL;
    struct sac_buf buf = {0};

    if (text)
        sac_buf_printf(&buf, "%s\n", text);
    else
        buf.failed = true;
    int rc = write_text(build, "dataset.json", &buf, err);
    sac_buf_done(&buf);
    free(text);
    json_decref(all);
    return rc;
}

/* ---- Where it was left ------------------------------------------------------ */

/* But for what a run that was killed at its very beginning leaves. */
static bool is_empty(const char *folder)
{
    DIR *dir = opendir(folder);
    int others = 0;

    for (struct dirent *entry; dir && (entry = readdir(dir));)
        others += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
                  strncmp(entry->d_name, ".progress.", 10) != 0;
    if (dir)
        closedir(dir);
    return others == 0;
}

static int refuse_other(const struct build *build, struct sac_error *err)
{
    return sac_fail(err, SAC_EINVAL,
                    "%s: there is another data set, of other pictures or options, or pictures have "
                    "changed since; name another place or remove it",
                    build->options->out);
}

/* Whether what dataset.json tells of is there still. */
static int check_data(const struct build *build, struct sac_error *err)
{
    struct sac_source *made = NULL;
    struct sac_error why = {0};
    char path[PATH_BYTES_MAX];
    int64_t there = 0;
    bool is_list = build->options->recipe.to == SAC_SINK_LIST;

    /* without its list, it is a folder of pictures */
    if ((!is_list || (beside(build, "list.txt", path, &why) == 0 && sac_file_exists(path))) &&
        sac_source_open(&made, build->options->out, &why) == 0) {
        for (int64_t i = 0; i < made->count; i++)
            there += !sac_source_item_path(made, i, path, sizeof path) || sac_file_exists(path);
    }
    sac_source_free(made);
    if (there == build->report.written)
        return 0;
    return sac_fail(err, SAC_EFORMAT,
                    "%s: its dataset.json tells of %lld pictures, and %lld are there; remove it "
                    "and run this again",
                    build->options->out, (long long)build->report.written, (long long)there);
}

/* Whether dataset.json tells of the same. */
static int check_complete(struct build *build, const char *path, struct sac_error *err)
{
    json_error_t why;
    json_t *all = json_load_file(path, 0, &why);
    const char *text = json_string_value(json_object_get(all, "fingerprint"));
    uint64_t print = text ? strtoull(text, NULL, 16) : 0;
    int rc = 0;

    if (!all || print != build->progress.fingerprint)
        rc = refuse_other(build, err);
    build->report.complete_before = rc == 0;
    build->report.written = json_integer_value(json_object_get(all, "pictures"));
    build->report.skipped = json_integer_value(json_object_get(all, "skipped"));
    build->report.resumed = build->report.items;
    json_decref(all);
    if (rc == 0)
        rc = check_data(build, err);
    if (rc == 0)
        sac_progress_remove(build->options->out);
    return rc;
}

static int open_sink(struct build *build, const struct sac_sink_mark *mark, struct sac_error *err)
{
    struct sac_sink_options options = {.kind = build->options->recipe.to,
                                       .path = build->options->out,
                                       .labels = &build->source->labels,
                                       .classes = build->report.classes,
                                       .rgb =
                                           sac_recipe_rgb(&build->options->recipe, build->source)};

    return sac_sink_open(&build->sink, &options, mark, err);
}

/* Goes on where one of the two files says, if the data are there as far. */
static bool resume_at(struct build *build, const struct sac_progress *at)
{
    char path[PATH_BYTES_MAX];
    struct stat info;

    if (beside(build, "skipped.txt", path, NULL) < 0 ||
        (at->skipped > 0 && (stat(path, &info) < 0 || (uint64_t)info.st_size < at->skipped_bytes)))
        return false;
    return open_sink(build, &at->mark, NULL) == 0;
}

/* 1: gone on with; 0: there is nothing to go on with. */
static int resume(struct build *build, struct sac_error *err)
{
    struct sac_progress found[SAC_PROGRESS_FILES] = {0};
    bool there[SAC_PROGRESS_FILES] = {false};
    int rc = 0, newest;

    for (int i = 0; i < SAC_PROGRESS_FILES; i++)
        there[i] = sac_progress_load(&found[i], build->options->out, i, NULL) == 0;
    for (int i = 0; rc == 0 && i < SAC_PROGRESS_FILES; i++) {
        if (there[i] && (found[i].fingerprint != build->progress.fingerprint ||
                         found[i].sum_count != build->progress.sum_count))
            rc = refuse_other(build, err);
    }
    newest = there[1] && (!there[0] || found[1].position > found[0].position);
    for (int i = 0; rc == 0 && i < SAC_PROGRESS_FILES; i++) {
        int number = i == 0 ? newest : !newest;
        if (!there[number] || !resume_at(build, &found[number]))
            continue;
        free(build->progress.sums);
        build->progress = found[number];
        found[number].sums = NULL;
        build->turn = !number;
        rc = 1;
    }
    if (rc == 0 && (there[0] || there[1]))
        rc = sac_fail(err, SAC_EFORMAT,
                      "%s: what an earlier run left cannot be gone on with; remove it",
                      build->options->out);
    for (int i = 0; i < SAC_PROGRESS_FILES; i++)
        sac_progress_done(&found[i]);
    return rc;
}

static int open_skipped(struct build *build, struct sac_error *err)
{
    char path[PATH_BYTES_MAX];
    int rc = beside(build, "skipped.txt", path, err);

    if (rc < 0)
        return rc;
    if (build->progress.skipped == 0 && unlink(path) < 0 && errno != ENOENT)
        return sac_fail_errno(err, errno, "%s", path);
    if (build->progress.skipped == 0)
        return 0; /* made when it is needed */
    if (truncate(path, (off_t)build->progress.skipped_bytes) < 0 ||
        !(build->skipped = fopen(path, "ae")))
        return sac_fail_errno(err, errno, "%s", path);
    return 0;
}

static int open_folder(struct build *build, struct sac_error *err)
{
    const char *out = build->options->out;
    char path[PATH_BYTES_MAX];
    int rc = beside(build, "dataset.json", path, err);

    if (rc < 0)
        return rc;
    if (sac_file_exists(path))
        return check_complete(build, path, err);
    if (mkdir(out, 0777) < 0 && errno != EEXIST)
        return sac_fail_errno(err, errno, "the folder %s cannot be made", out);
    rc = resume(build, err);
    if (rc < 0)
        return rc;
    if (rc == 0) {
        if (!is_empty(out))
            return sac_fail(err, SAC_EINVAL,
                            "%s: not empty, and not begun by this command; name another place",
                            out);
        rc = sac_progress_save(&build->progress, out, 0, err);
        build->turn = 1;
        if (rc == 0)
            rc = open_sink(build, &build->progress.mark, err);
    }
    return rc < 0 ? rc : open_skipped(build, err);
}

static int open_file(struct build *build, struct sac_error *err)
{
    const char *out = build->options->out;

    if (sac_file_exists(out))
        return sac_fail(err, SAC_EINVAL, "%s: is there already; name another place", out);
    return open_sink(build, &build->progress.mark, err);
}

/* ---- The run ---------------------------------------------------------------- */

static int worker_new(void *user, void **ret, struct sac_error *err)
{
    (void)user;
    return sac_kitchen_new((struct sac_kitchen **)ret, err);
}

static void worker_free(void *worker)
{
    sac_kitchen_free(worker);
}

/* Corrupt pictures are skipped, and so are those that are not there. */
static int work(void *user, void *worker, int64_t position, void *memory, struct sac_error *err)
{
    const struct build *build = user;
    struct slot *slot = memory;
    int64_t index = build->options->shuffle
                        ? (int64_t)sac_order_at(&build->order, (uint64_t)position)
                        : position;

    slot->why = (struct sac_error){0};
    slot->skip =
        sac_cook(&build->options->recipe, worker, build->source, index, &slot->dish, &slot->why);
    if (slot->skip < 0 && !sac_source_is_corrupt(slot->skip) && slot->skip != SAC_ENOENT)
        return sac_fail(err, slot->skip, "%s", slot->why.text);
    return 0;
}

static int note_skipped(struct build *build, const struct slot *slot, struct sac_error *err)
{
    char path[PATH_BYTES_MAX];

    build->progress.skipped++;
    if (build->options->on_skip)
        build->options->on_skip(build->options->user, slot->why.text);
    if (!build->in_folder)
        return 0;
    int rc = beside(build, "skipped.txt", path, err);
    if (rc == 0 && !build->skipped && !(build->skipped = fopen(path, "we")))
        rc = sac_fail_errno(err, errno, "%s", path);
    if (rc == 0 && fprintf(build->skipped, "%s\n", slot->why.text) < 0)
        rc = sac_fail_errno(err, errno, "%s", path);
    build->progress.skipped_bytes += strlen(slot->why.text) + 1;
    return rc;
}

static void add_to_sums(struct build *build, const struct sac_image *image)
{
    for (size_t i = 0; i < build->progress.sum_count; i++)
        build->progress.sums[i] += image->pixels[i];
}

/* First how far the data will be, then the data: whichever is written when the program
 * is killed, one of the two progress files fits. */
static int commit(struct build *build, struct sac_error *err)
{
    int rc = 0;

    build->records = 0;
    build->bytes = 0;
    build->progress.mark = sac_sink_mark(build->sink);
    if (build->in_folder) {
        if (build->skipped && fflush(build->skipped) != 0)
            rc = sac_fail_errno(err, errno, "%s/skipped.txt", build->options->out);
        if (rc == 0)
            rc = sac_progress_save(&build->progress, build->options->out, build->turn, err);
        build->turn = !build->turn;
    }
    return rc ? rc : sac_sink_commit(build->sink, err);
}

static void tell(const struct build *build)
{
    if (build->options->on_progress)
        build->options->on_progress(build->options->user, build->progress.position,
                                    build->report.items, build->progress.skipped);
}

static int take(void *user, int64_t position, void *memory, struct sac_error *err)
{
    struct build *build = user;
    struct slot *slot = memory;
    int rc;

    build->progress.position = position + 1;
    if (slot->skip) {
        rc = note_skipped(build, slot, err);
    } else {
        rc = sac_sink_put(build->sink, &slot->dish.record, err);
        if (build->options->mean)
            add_to_sums(build, &slot->dish.image);
        build->bytes += slot->dish.record.size;
    }
    if (rc == 0 && (++build->records >= COMMIT_RECORDS || build->bytes >= COMMIT_BYTES))
        rc = commit(build, err);
    if (position % 16 == 0)
        tell(build);
    return rc;
}

static void slot_done(void *memory)
{
    struct slot *slot = memory;

    sac_dish_done(&slot->dish);
}

static int finish(struct build *build, struct sac_error *err)
{
    double means[3] = {0};
    int rc;

    if (sac_sink_mark(build->sink).records == 0)
        return sac_fail(err, SAC_EFORMAT, "%s: none of its %lld pictures could be used",
                        build->source->path, (long long)build->report.items);
    rc = commit(build, err);
    if (rc == 0)
        rc = sac_sink_finish(build->sink, err);
    if (rc < 0 || !build->in_folder)
        return rc;
    rc = write_labels(build, err);
    if (rc == 0 && build->options->mean)
        rc = write_mean(build, means, err);
    if (rc == 0)
        rc = write_description(build, means, err);
    if (rc == 0)
        sac_progress_remove(build->options->out);
    return rc;
}

static int run(struct build *build, struct sac_error *err)
{
    struct sac_pipeline pipeline = {.begin = build->progress.position,
                                    .end = build->source->count,
                                    .threads = build->options->threads,
                                    .slot_size = sizeof(struct slot),
                                    .worker_new = worker_new,
                                    .worker_free = worker_free,
                                    .work = work,
                                    .take = take,
                                    .slot_done = slot_done};

    build->report.resumed = build->progress.position;
    int rc = sac_pipeline_run(&pipeline, build, err);
    if (rc == 0)
        rc = finish(build, err);
    if (rc == 0)
        tell(build);
    build->report.written = build->progress.mark.records;
    build->report.skipped = build->progress.skipped;
    return rc;
}

static int begin(struct build *build, struct sac_error *err)
{
    const struct sac_fit *fit = &build->options->recipe.fit;
    int rc = check(build, err);

    if (rc == 0)
        rc = fingerprint(build, err);
    if (rc < 0)
        return rc;
    build->report.classes = build->label_max + 1;
    if (build->source->labels.count > build->report.classes)
        build->report.classes = build->source->labels.count;
    if (build->options->mean) {
        build->progress.sum_count =
            (size_t)fit->width * (size_t)fit->height * (size_t)fit->channels;
        build->progress.sums = calloc(build->progress.sum_count, sizeof *build->progress.sums);
        if (!build->progress.sums)
            return sac_fail(err, SAC_ENOMEM, "no memory for a mean of %d × %d", fit->width,
                            fit->height);
    }
    return build->in_folder ? open_folder(build, err) : open_file(build, err);
}

int sac_build(const struct sac_source *source, const struct sac_build_options *options,
              struct sac_build_report *ret, struct sac_error *err)
{
    struct build build = {
        .source = source,
        .options = options,
        .order = sac_order_of(options->recipe.seed, 0, (uint64_t)source->count),
        .in_folder = sac_sink_resumes(options->recipe.to),
        .report = {.items = source->count},
    };
    int rc = begin(&build, err);

    if (rc == 0 && !build.report.complete_before)
        rc = run(&build, err);
    if (build.skipped)
        fclose(build.skipped);
    sac_sink_free(build.sink);
    sac_progress_done(&build.progress);
    *ret = build.report;
    return rc;
}
