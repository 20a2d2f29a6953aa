/*
 * What came of a training, for people and for programs: one HTML file that needs nothing
 * else (curves and confusion as SVG, pictures inside), and the same as JSON. Pure; any
 * thread, a report on one at a time.
 */
#ifndef SAC_TRAIN_REPORT_H
#define SAC_TRAIN_REPORT_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "base/buf.h"
#include "base/error.h"
#include "train/evaluate.h"
#include "train/tuning.h"

/* A point of a curve; what was not measured there is NaN. */
struct sac_report_point {
    int64_t iteration;
    double rate, train_loss, loss, accuracy; /* the last two of the validation */
    double seconds;                          /* since the run began, training alone */
};

/* A picture that the model got wrong, with what it was sure of. */
struct sac_report_picture {
    char *file; /* owned by who fills it */
    int label, predicted;
    double confidence;
    uint8_t *jpeg; /* a thumbnail; NULL: none */
    size_t jpeg_size;
};

/* All borrowed. */
struct sac_report {
    const char *title;
    const char *summary; /* a sentence or two: what, from what, how long */
    const struct sac_tuning_choices *choices;
    const struct sac_report_point *points;
    int point_count;
    double epoch_iterations; /* an epoch; for the axis; 0: iterations are shown */
    int64_t best_iteration;  /* whose weights were kept; −1: unknown */
    const struct sac_evaluation *test;
    const struct sac_class_names *names;
    const struct sac_report_picture *worst;
    int worst_count;
    int64_t train_items, validation_items, test_items;
    bool on_validation; /* nothing was kept to test with: `test` is of the validation's */
};

/* A failed allocation is in out->failed. */
void sac_report_html(struct sac_buf *out, const struct sac_report *report);
/* A new reference; NULL: out of memory. */
json_t *sac_report_json(const struct sac_report *report);

#endif
