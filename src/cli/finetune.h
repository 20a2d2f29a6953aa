/*
 * What the files of `saccade train --finetune` share: finetune.c reads the command line
 * and goes through the steps, finetune_data.c divides the pictures, finetune_curve.c keeps
 * what training tells, finetune_report.c tests and reports.
 */
#ifndef SAC_CLI_FINETUNE_H
#define SAC_CLI_FINETUNE_H

#include "cli/test.h"
#include "train/report.h"
#include "train/trainer.h"
#include "train/tuning.h"

enum finetune_part { PART_TRAIN, PART_VALIDATION, PART_TEST, PARTS };

/* The points of the curves, kept in a file beside the run so that one that goes on has
 * them all. */
struct finetune_curve {
    struct sac_report_point *points; /* owned */
    int count, room;
    double loss, rate; /* of the training, as last displayed */
    FILE *file;
};

struct finetune {
    /* As on the command line, or NULL. */
    const char *model_dir, *data, *validation_data, *test_data, *out, *labels;
    const char *device_name;
    struct sac_tuning tuning;
    bool tuned;   /* a choice was given */
    bool scratch; /* the net, without its weights */
    bool json;
    double shares[PARTS];
    uint64_t seed;
    int workers;

    struct sac_device *device;
    struct sac_model *model;
    struct sac_caffe_net deploy;
    char *paths[PARTS];   /* lists or databases; owned */
    int64_t items[PARTS]; /* of each */
    int64_t least;        /* training items of the smallest class */
    int classes;
    char *labels_path;
    struct sac_tuning_choices choices;
    struct finetune_curve curve;
    char *solver;
    int64_t best, iterations; /* what was kept, and how far it went */
    double seconds;
};

/* OUT/NAME; NULL and the sentence when memory is out. */
char *sac_finetune_path(const struct finetune *f, const char *name, struct sac_error *err);

/* Divides --data, as far as --val-data and --test-data leave that open, into lists in
 * the run's folder: a function of the data and the seed, so that a run that goes on has
 * the same. */
int sac_finetune_divide(struct finetune *f, struct sac_error *err);

/* Opens the curve's file and reads what an earlier run left in it. */
int sac_finetune_curve_open(struct finetune *f, struct sac_error *err);
void sac_finetune_curve_done(struct finetune_curve *curve);
/* The run goes on from here: later points are another future's. */
void sac_finetune_curve_cut(struct finetune_curve *curve, int64_t iteration);
void sac_finetune_curve_event(struct finetune_curve *curve, const struct sac_train_event *event);

/* Tests the model that was written and leaves report.html and report.json beside it. */
int sac_finetune_report(struct finetune *f, struct sac_error *err);

#endif
