/*
 * What the files of `saccade train --finetune` share: finetune.c reads the command line
 * and goes through the steps, finetune_data.c divides the pictures, finetune_run.c keeps
 * the run's folder, finetune_curve.c what training tells, finetune_report.c tests and
 * reports.
 */
#ifndef SAC_CLI_FINETUNE_H
#define SAC_CLI_FINETUNE_H

#include <jansson.h>

#include "base/buf.h"
#include "cli/test.h"
#include "data/parts.h"
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
    double seconds;    /* that training took before this process */
    uint64_t start_ns; /* of this one */
    FILE *file;
};

struct finetune {
    /* As on the command line, or NULL. */
    const char *model_dir, *data, *validation_data, *test_data, *out, *labels;
    const char *device_name;
    struct sac_tuning tuning;
    uint64_t given; /* which settings were given (sac_finetune_given) */
    bool scratch;   /* the net, without its weights */
    bool json;
    double shares[PARTS];
    uint64_t seed;
    int workers;

    struct sac_device *device;
    struct sac_model *model;
    struct sac_caffe_net deploy;
    struct sac_data_parts parts; /* of --data, where it was divided */
    const char *from[PARTS];     /* where each part has data of its own; borrowed */
    bool is_list[PARTS];
    struct sac_buf lists[PARTS]; /* a new run's, not yet written */
    char *paths[PARTS];          /* lists or databases; owned */
    int64_t items[PARTS];        /* of each */
    int64_t least;               /* training items of the smallest class */
    bool no_test;                /* nothing was kept to test with: validation's items serve */
    int classes, classes_before; /* before those without pictures were left out */
    int32_t *renumber;           /* of each of those its class, or -1; owned */
    struct sac_labels names, given_names; /* as the data has them; of --labels */
    char *labels_path;                    /* classes.txt, or NULL */

    char *folder; /* `out`, whole, once it is there */
    int lock;     /* its descriptor, held while the run lasts; -1: not yet */
    json_t *run;  /* what run.json says; NULL: a new run */
    struct sac_tuning_choices choices;
    struct finetune_curve curve;
    char *solver;
    int64_t best, iterations, max_iter; /* what was kept, and how far it went */
    bool trained;                       /* to its end, or to where patience ended */
    double seconds;
};

/* OUT/NAME; NULL and the sentence when memory is out. */
char *sac_finetune_path(const struct finetune *f, const char *name, struct sac_error *err);

/* Divides --data, as far as --val-data, --test-data and parts in it leave that open: a
 * function of the data and the seed. In memory; classes of the parts are told by their
 * names, where they have names. */
int sac_finetune_plan(struct finetune *f, struct sac_error *err);
/* The classes' names as they are shown: --labels' or the data's; perhaps none. */
const struct sac_labels *sac_finetune_names(const struct finetune *f);

/* A flag that decides the result was on the command line; other flags are ignored. */
void sac_finetune_given(struct finetune *f, const char *flag);
/* Whether --out may be used, and what is there: f->run stays NULL where nothing is. Takes
 * the folder's lock. SAC_EINVAL: it is somebody else's, or another process's. */
int sac_finetune_look(struct finetune *f, struct sac_error *err);
/* A planned run gets its folder. What is refused is refused before it is made. */
int sac_finetune_begin(struct finetune *f, struct sac_error *err);
/* A run that is there goes on as it was begun. SAC_EINVAL: a flag says otherwise; the
 * sentence has both values. */
int sac_finetune_resume(struct finetune *f, struct sac_error *err);
/* Remembers that nothing is left to train, so that only the report is made again. */
int sac_finetune_trained(struct finetune *f, struct sac_error *err);
void sac_finetune_run_done(struct finetune *f);
/* `json` may be NULL: out of memory. */
int sac_finetune_put_json(const char *path, const json_t *json, int digits, struct sac_error *err);

/* A line for people on standard error; with --log-json an event "note". */
void sac_finetune_say(const struct finetune *f, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Iterations of an epoch. */
double sac_finetune_epoch(const struct finetune *f);

/* Opens the curve's file and reads what an earlier run left in it. */
int sac_finetune_curve_open(struct finetune *f, struct sac_error *err);
void sac_finetune_curve_done(struct finetune_curve *curve);
/* What training has taken, in all processes. */
double sac_finetune_curve_seconds(const struct finetune_curve *curve);
/* The run goes on from here: later points are another future's. */
void sac_finetune_curve_cut(struct finetune_curve *curve, int64_t iteration);
void sac_finetune_curve_event(struct finetune_curve *curve, const struct sac_train_event *event);

/* Tests the model that was written and leaves report.html and report.json beside it. */
int sac_finetune_report(struct finetune *f, struct sac_error *err);

#endif
