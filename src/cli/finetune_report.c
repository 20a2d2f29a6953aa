/* Fine-tuning's end: the model as it will be served, on pictures that it has not seen. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/durable.h"
#include "base/file.h"
#include "cli/finetune.h"
#include "image/encode.h"

enum { WORST = 24, THUMBNAIL = 160, PICTURE_BYTES_MAX = 64 << 20 };

/* ---- The worst pictures -------------------------------------------------------- */

static int surer_first(const void *a, const void *b)
{
    double x = ((const struct sac_report_picture *)a)->confidence;
    double y = ((const struct sac_report_picture *)b)->confidence;

    return (x < y) - (x > y);
}

static void picture_done(struct sac_report_picture *picture)
{
    free(picture->file);
    free(picture->jpeg);
}

/* Keeps the WORST that it was surest of. */
static void keep(struct sac_report_picture *worst, int *count, struct sac_report_picture *next)
{
    worst[(*count)++] = *next;
    if (*count < 2 * WORST)
        return;
    qsort(worst, (size_t)*count, sizeof *worst, surer_first);
    for (int i = WORST; i < *count; i++)
        picture_done(&worst[i]);
    *count = WORST;
}

static bool read_line(const json_t *line, struct sac_report_picture *ret)
{
    const json_t *first = json_array_get(json_object_get(line, "predictions"), 0);

    ret->label = (int)json_integer_value(json_object_get(line, "class"));
    ret->predicted = (int)json_integer_value(json_object_get(line, "predicted"));
    ret->confidence = json_number_value(json_object_get(first, "confidence"));
    if (ret->label == ret->predicted)
        return false;
    const char *file = json_string_value(json_object_get(line, "file"));
    return (ret->file = strdup(file ? file : "")) != NULL;
}

/* Out of the lines that `saccade test` writes of each picture. */
static int read_worst(FILE *lines, struct sac_report_picture *worst)
{
    json_t *line;
    int count = 0;

    rewind(lines);
    while ((line = json_loadf(lines, JSON_DISABLE_EOF_CHECK, NULL))) {
        struct sac_report_picture picture = {0};
        if (read_line(line, &picture))
            keep(worst, &count, &picture);
        json_decref(line);
    }
    qsort(worst, (size_t)count, sizeof *worst, surer_first);
    for (int i = WORST; i < count; i++)
        picture_done(&worst[i]);
    return count < WORST ? count : WORST;
}

/* ---- Thumbnails ----------------------------------------------------------------- */

static int shrink(struct sac_decoder *decoder, const uint8_t *bytes, size_t size,
                  struct sac_report_picture *picture, struct sac_error *err)
{
    static uint8_t pixels[THUMBNAIL * THUMBNAIL * 3];
    struct sac_preprocess how = sac_preprocess_default(3, THUMBNAIL, THUMBNAIL);
    const struct sac_encode_options options = {.kind = SAC_IMAGE_JPEG, .quality = 80};
    struct sac_image image = {.width = THUMBNAIL,
                              .height = THUMBNAIL,
                              .channels = 3,
                              .stride = THUMBNAIL * 3,
                              .pixels = pixels};
    struct sac_buf out = {0};

    how.resize = SAC_RESIZE_SHORT;
    int rc = sac_preprocess_pixels(&how, decoder, bytes, size, NULL, pixels, err);
    if (rc == 0)
        rc = sac_image_encode(&image, &options, &out, err);
    if (rc == 0 && !out.failed) {
        picture->jpeg = out.data;
        picture->jpeg_size = out.len;
        return 0;
    }
    sac_buf_done(&out);
    return rc;
}

/* A picture without a thumbnail is still named. */
static void add_thumbnails(struct sac_report_picture *worst, int count)
{
    struct sac_decoder *decoder = NULL;
    struct sac_error err = {0};

    if (sac_decoder_new(&decoder, &err) != 0)
        return;
    for (int i = 0; i < count; i++) {
        uint8_t *bytes = NULL;
        size_t size = 0;
        err = (struct sac_error){0};
        if (sac_file_read(worst[i].file, PICTURE_BYTES_MAX, &bytes, &size, &err) == 0)
            shrink(decoder, bytes, size, &worst[i], &err);
        free(bytes);
    }
    sac_decoder_free(decoder);
}

/* ---- Files ---------------------------------------------------------------------- */

static int put_html(const char *path, const struct sac_report *report, struct sac_error *err)
{
    struct sac_buf out = {0};

    sac_report_html(&out, report);
    int rc = out.failed ? sac_fail(err, SAC_ENOMEM, "%s: out of memory", path)
                        : sac_durable_write(path, out.data, out.len, err);
    sac_buf_done(&out);
    return rc;
}

static int put_report_json(const char *path, const struct sac_report *report, struct sac_error *err)
{
    json_t *json = sac_report_json(report);
    int rc = sac_finetune_put_json(path, json, 9, err);

    json_decref(json);
    return rc;
}

static int put_both(const struct finetune *f, const struct sac_report *report,
                    struct sac_error *err)
{
    char *html = sac_finetune_path(f, "report.html", err);
    char *json = sac_finetune_path(f, "report.json", err);
    int rc = html && json ? put_html(html, report, err) : SAC_ENOMEM;

    if (rc == 0)
        rc = put_report_json(json, report, err);
    free(html);
    free(json);
    return rc;
}

/* ---- The whole ------------------------------------------------------------------ */

static const char *name_of(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash && slash[1] ? slash + 1 : path;
}

static int write_report(struct finetune *f, const struct sac_test *test, FILE *lines,
                        struct sac_error *err)
{
    struct sac_report_picture worst[2 * WORST] = {0};
    int count = read_worst(lines, worst);
    char summary[512];

    add_thumbnails(worst, count);
    snprintf(summary, sizeof summary,
             "%s%s, %s, on %d classes of %s; %lld iterations in %.0f s on %s.",
             sac_model_name(f->model), f->scratch ? "'s net" : "",
             f->scratch ? "from scratch" : "fine-tuned", f->classes, name_of(f->data),
             (long long)f->iterations, f->seconds, f->device_name);
    const struct sac_report report = {
        .title = name_of(f->out),
        .summary = summary,
        .choices = &f->choices,
        .points = f->curve.points,
        .point_count = f->curve.count,
        .epoch_iterations = sac_finetune_epoch(f),
        .best_iteration = f->best,
        .test = test->evaluation,
        .names = &test->names,
        .worst = worst,
        .worst_count = count,
        .train_items = f->items[PART_TRAIN],
        .validation_items = f->items[PART_VALIDATION],
        .test_items = f->items[PART_TEST],
        .on_validation = f->no_test,
    };
    int rc = put_both(f, &report, err);
    for (int i = 0; i < count; i++)
        picture_done(&worst[i]);
    return rc;
}

static void say(const struct finetune *f, const struct sac_test *test)
{
    struct sac_evaluation_summary s = sac_evaluation_summary(test->evaluation);
    char room[32];

    if (f->no_test)
        printf("%.2f %% of %lld validation pictures right, by which the model was chosen: none "
               "was kept to test with; see %s/report.html\n",
               100 * s.top1, (long long)s.items, f->out);
    else
        printf("%.2f %% of %lld test pictures right; see %s/report.html\n", 100 * s.top1,
               (long long)s.items, f->out);
    for (int i = 0; i < s.classes && !f->no_test; i++)
        if (sac_evaluation_class(test->evaluation, i).items == 0)
            printf("no picture of %s among them\n",
                   sac_class_name(&test->names, i, room, sizeof room));
    fflush(stdout);
}

int sac_finetune_report(struct finetune *f, struct sac_error *err)
{
    struct sac_test test = {.flags = sac_model_flags_none(),
                            .data = f->paths[PART_TEST],
                            .workers = f->workers,
                            .device = f->device};
    struct sac_test_model *model = NULL;

    test.flags.dirs[0] = f->out;
    test.flags.dir_count = 1;
    test.lines = tmpfile();
    int rc = test.lines ? 0 : sac_fail_errno(err, errno, "a temporary file");
    if (rc == 0)
        rc = sac_test_model_run(&model, &test, err);
    if (rc == 0)
        rc = write_report(f, &test, test.lines, err);
    if (rc == 0)
        say(f, &test);
    if (test.lines)
        fclose(test.lines);
    sac_evaluation_free(test.evaluation);
    sac_test_model_free(model);
    sac_buf_done(&test.line);
    return rc;
}
