/*
 * The training loop, as Caffe's Solver::Solve runs it: tests when the iteration is a
 * multiple of test_interval and after the last, iter_size passes forward and back, an
 * update, a snapshot where one is due. What it does it tells by events; it prints
 * nothing. Parameters stand in the device's memory, and on the host for snapshots. One
 * thread.
 *
 * A run is a function of its solver, nets, data, weights and seed: what is drawn
 * depends on the seed and the iteration alone, so that a run that goes on from a
 * snapshot of this program equals, bit for bit, one that was never stopped.
 */
#ifndef SAC_TRAIN_TRAINER_H
#define SAC_TRAIN_TRAINER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "data/transform.h"
#include "device/device.h"
#include "ranks/ranks.h"

/* What a net shows, one element of an output. */
struct sac_train_value {
    const char *name;
    double value;
    double weight; /* of a loss; 0: not one */
};

enum sac_train_event_kind {
    SAC_TRAIN_START,     /* name: the net's */
    SAC_TRAIN_PARALLEL,  /* text: how many ranks, and what a batch is for them */
    SAC_TRAIN_UNHEEDED,  /* name: a field of the solver's that is not heeded; text: what is instead
                          */
    SAC_TRAIN_LOADED,    /* name: the weights' file; text: what was copied */
    SAC_TRAIN_RESTORED,  /* name: the solverstate */
    SAC_TRAIN_TESTING,   /* test: which net */
    SAC_TRAIN_TESTED,    /* test, values; loss where test_compute_loss asks for it */
    SAC_TRAIN_CUT_SHORT, /* test: which was not gone through, for a stop was asked for */
    SAC_TRAIN_STEP,      /* every iteration: loss (smoothed), rate */
    SAC_TRAIN_DISPLAY,   /* loss (smoothed), rate, values, seconds since the last */
    SAC_TRAIN_SAVING,    /* name: the prefix of the files */
    SAC_TRAIN_LAST_LOSS, /* loss, after the last iteration where display falls on it */
    SAC_TRAIN_BEST,      /* loss: the metric, name: what it is called; the best until now */
    SAC_TRAIN_WRITTEN,   /* name: the model directory; best: the iteration of its weights */
    SAC_TRAIN_STOPPED,   /* early; text: why, where nobody asked for it */
    SAC_TRAIN_DONE,
};

struct sac_train_event {
    enum sac_train_event_kind kind;
    int64_t iteration, max_iter;
    const char *name, *text;
    double loss, rate, seconds;
    double waited;   /* of DONE and STOPPED: of its seconds, those without a batch to go on with */
    int64_t corrupt; /* likewise: items that could not be used */
    int64_t iterations; /* since the last display */
    int display;        /* how many are meant to lie between */
    int64_t best;
    int test;
    bool has_loss;
    const struct sac_train_value *values;
    int value_count;
};

enum sac_train_request { SAC_TRAIN_GO_ON, SAC_TRAIN_SNAPSHOT, SAC_TRAIN_STOP };

/* All borrowed for the trainer's life; NULL and 0 are the defaults. */
enum { SAC_TRAIN_THREADS_MAX = 1024 };

struct sac_trainer_options {
    const char *solver;   /* a solver.prototxt */
    const char *net;      /* instead of the solver's */
    const char *weights;  /* "a.caffemodel,b.caffemodel": to start from */
    const char *snapshot; /* a solverstate to go on from, or "auto" (none yet: from the start) */
    const char *data, *test_data, *mean_file; /* instead of the layers' own */
    bool has_seed;                            /* else the solver's random_seed, or a new one */
    uint64_t seed;
    /* A model directory to end in; "auto": PREFIX_model beside the snapshots, if a deploy
     * net can be made of the net. NULL: none. Its labels' file; NULL: as the training data
     * names its classes, if it does. */
    const char *out, *labels;
    int keep_last;      /* snapshots; 0: all */
    bool keep_best;     /* by the tests: its snapshot stays, and `out` has its weights */
    int patience;       /* stop after so many tests in a row without a better one; 0: never */
    const char *metric; /* an output of a test net; its first accuracy, else its loss */
    int level;          /* of the training net's state, as Caffe's -level and -stage */
    const char *const *stages;
    int stage_count;
    float smoothing; /* of labels, in the training net's softmax losses; 0: as they say */
    const struct sac_augment *augment; /* of the training net's items; NULL: none */
    /* How encoded pictures are resized; width 0: as the layers say. */
    enum sac_resize resize;
    int resize_width, resize_height;
    int threads; /* that decode */
    /* That compute; 0: as many as the snapshot was made with, else one a core, and of several
     * ranks as many as rank 0 has. Results depend on it where libraries add up in parts: the
     * same number, the same bits. */
    int compute_threads;
    int cores; /* of the machine's, those that are this trainer's; 0: all that it may use */
    /* What values and their gradients are stored in, of training and test nets; weights,
     * sums and losses are fp32 in any. */
    enum sac_precision precision;
    /* Of f16, whose losses are scaled by a power of two: the first (0: 1024), and after how
     * many updates without an overflow it doubles (0: 1000). */
    float scale_first;
    int scale_steps;
    /* Only algorithms that give the same bits again: a GPU's fastest may not. */
    bool deterministic;
    struct sac_device *device;
    /* One rank of several, each with a trainer of these same options; NULL: alone. Rank 0
     * reads what the run starts from and gives it to all; it alone tests, tells and
     * writes. Of batch norm's statistics, which each rank has of its own items, rank 0's
     * are saved. Losses and accuracies are rank 0's, but for the sum of losses. */
    struct sac_comm *comm;
    struct sac_comm *neighbours; /* the ranks of this process, by the host's memory; NULL: alone */
    enum sac_batch_rule batch_rule;
    size_t bucket_bytes; /* gradients that are summed at once, at least; 0: 8 MB */
    void (*on_event)(void *user, const struct sac_train_event *event);
    /* Asked after every iteration, and before every batch of a test. */
    enum sac_train_request (*request)(void *user);
    void *user;
};

struct sac_trainer;

int sac_trainer_new(struct sac_trainer **ret, const struct sac_trainer_options *options,
                    struct sac_error *err);
void sac_trainer_free(struct sac_trainer *trainer); /* takes NULL */

/* To the end, or until it is asked to stop. A loss, gradient or parameter that is not
 * finite is SAC_EINVAL: the sentence names it, and nothing of that iteration is saved. */
int sac_trainer_run(struct sac_trainer *trainer, struct sac_error *err);

#endif
