/* What the files of the trainer share: trainer.c is the loop. */
#ifndef SAC_TRAIN_TRAINER_PRIVATE_H
#define SAC_TRAIN_TRAINER_PRIVATE_H

#include "ranks/reducer.h"
#include "train/loss_mean.h"
#include "train/phase.h"
#include "train/snapshot.h"
#include "train/solver.h"
#include "train/trainer.h"
#include "train/transfer.h"

enum { SAC_TRAIN_TESTS_MAX = 16 };

/* What ranks tell each other stands before the gradients and is summed with them. */
enum {
    SAC_HEAD_LOSS,     /* of all passes */
    SAC_HEAD_STOP,     /* who wants to stop behind this iteration, */
    SAC_HEAD_SNAPSHOT, /* and who wants a snapshot there */
    SAC_HEAD_VOID,     /* who stopped before it: it does not count */
    SAC_HEAD = 16,     /* floats: whole lines */
};

/* What the best iteration is judged by. */
struct sac_trainer_metric {
    bool known, lower; /* the lower the better */
    int test;
    int64_t value; /* among the test net's values; −1: the sum of its losses */
    const char *name;
};

struct sac_trainer_best {
    bool known;
    double value, loss; /* that of the test net; of two as good, the lower is better */
    int64_t iteration;
    int since;  /* tests that were no better */
    bool extra; /* its snapshot was saved for it alone */
};

struct sac_trainer {
    struct sac_trainer_options options;
    struct sac_caffe_solver file;
    const Caffe__SolverParameter *message;
    char *prefix;
    uint64_t seed;
    struct sac_stream *stream;
    struct sac_store *store;
    struct sac_transfer transfer;
    struct sac_phase_net train, tests[SAC_TRAIN_TESTS_MAX];
    int test_count;

    /* All parameters that the solver knows, in Caffe's order, in one array each. */
    float *params, *grads; /* behind grads_memory's head */
    float *grads_memory;
    size_t total;
    float **weight_at, **grad_at; /* one a parameter of the training net */
    float **test_weight_at[SAC_TRAIN_TESTS_MAX];
    struct sac_solver *solver;
    struct sac_weights_view weights;
    struct sac_blob_view *blobs;

    int rank, world;
    struct sac_reducer *reducer; /* NULL: alone */
    float head[SAC_HEAD];        /* what was heard last */
    int64_t first_position;      /* where the training net's feed begins */

    struct sac_trainer_remote *remote; /* the arrays on a device of its own memory; or NULL */
    struct {
        float factor; /* of fp16's losses; 0: not chosen yet */
        int good;     /* updates since it overflowed */
        bool set;     /* the plan has it */
    } scale;
    int threads; /* that compute */
    int64_t iteration;
    struct sac_loss_mean loss;
    struct sac_snapshot_files from; /* where it goes on, or empty */
    json_t *restored;               /* its values, or NULL */
    int64_t saved_at;               /* the iteration of the last snapshot; −1: none */
    double *values;                 /* room for any net's outputs */
    struct sac_train_value *shown;
    uint64_t start_ns, display_ns;
    int64_t display_iteration;
    bool stopped;

    struct sac_trainer_metric metric;
    struct sac_trainer_best best;
    int64_t tested_at; /* the iteration of the last test; −1: none */

    char *out; /* the model directory, or NULL */
    struct sac_caffe_net deploy;
    struct sac_labels labels; /* the options' */
};

int sac_trainer_no_memory(struct sac_error *err);
/* Fills in where the run stands. */
void sac_trainer_tell(const struct sac_trainer *t, struct sac_train_event event);

/* In this order, by sac_trainer_new(). */
int sac_trainer_open_device(struct sac_trainer *t, struct sac_error *err);
int sac_trainer_find_snapshot(struct sac_trainer *t, struct sac_error *err);
int sac_trainer_choose_seed(struct sac_trainer *t, struct sac_error *err);
void sac_trainer_choose_threads(struct sac_trainer *t);
int sac_trainer_share_seed(struct sac_trainer *t, struct sac_error *err);
int sac_trainer_open_train(struct sac_trainer *t, struct sac_error *err);
int sac_trainer_open_tests(struct sac_trainer *t, struct sac_error *err);
int sac_trainer_take_arrays(struct sac_trainer *t, struct sac_error *err);
int sac_trainer_make_solver(struct sac_trainer *t, struct sac_error *err);
int sac_trainer_make_view(struct sac_trainer *t, struct sac_error *err);
int sac_trainer_load_start(struct sac_trainer *t, struct sac_error *err);
int sac_trainer_make_plans(struct sac_trainer *t, struct sac_error *err);
int sac_trainer_share_start(struct sac_trainer *t, struct sac_error *err);
int sac_trainer_find_metric(struct sac_trainer *t, struct sac_error *err);
int sac_trainer_prepare_out(struct sac_trainer *t, struct sac_error *err);

/* Fills `shown` with the values of a net times `share`; how many. */
int sac_trainer_show(struct sac_trainer *t, const struct sac_phase_net *net, double share);
enum sac_train_request sac_trainer_asked(const struct sac_trainer *t);
/* All test nets, and what follows from them; or `stopped`, when that is asked for. */
int sac_trainer_test(struct sac_trainer *t, struct sac_error *err);
json_t *sac_trainer_best_json(const struct sac_trainer *t);
void sac_trainer_restore_best(struct sac_trainer *t);
/* A number that is not finite: SAC_EINVAL, and the sentence says where it came from. */
int sac_trainer_check_loss(struct sac_trainer *t, double loss, struct sac_error *err);
int sac_trainer_check_gradients(struct sac_trainer *t, struct sac_error *err);
int sac_trainer_check_params(struct sac_trainer *t, struct sac_error *err);
int sac_trainer_write_out(struct sac_trainer *t, struct sac_error *err);

/* Where the feeds of the training net (test < 0) and the test nets go on; without a record
 * (another program's snapshot) they start again, as Caffe's do. */
int64_t sac_trainer_restored_position(const struct sac_trainer *t, int test);

int sac_trainer_save(struct sac_trainer *t, struct sac_error *err);
/* No gradient yet. */
int sac_trainer_begin(struct sac_trainer *t, struct sac_error *err);
/* The last pass again, forth and back, by itself: its gradients are then this rank's own. */
int sac_trainer_again(struct sac_trainer *t, struct sac_error *err);

/* ---- trainer_ranks.c: only with t->reducer ---- */

/* Before the last way back of an iteration, whose losses' sum is given. */
int sac_trainer_offer(struct sac_trainer *t, double loss, struct sac_error *err);
/* Instead of an iteration: the others, which wait in it, stop too, and it does not count. */
int sac_trainer_leave(struct sac_trainer *t, struct sac_error *err);
/* The gradients' sums are not finite. Waits until the rank that has such ones of its own,
 * of the last pass, ends all with its name; 0: it is this one, or nobody is found. */
int sac_trainer_leave_blame(struct sac_trainer *t, struct sac_error *err);
/* Once the stream was waited for: whether all are still there. */
int sac_trainer_hear(struct sac_trainer *t, struct sac_error *err);
/* What ranks asked for, all alike. */
enum sac_train_request sac_trainer_agreed(const struct sac_trainer *t);
void sac_trainer_tell_ranks(const struct sac_trainer *t);

/* ---- trainer_device.c: nothing to do where the device's memory is the host's ---- */

/* Behind the solver and the start; the stream is there. */
int sac_trainer_remote_open(struct sac_trainer *t, struct sac_error *err);
void sac_trainer_remote_free(struct sac_trainer *t);
/* Where plans find parameters and gradients, one pointer a parameter. */
float *const *sac_trainer_plan_weights(const struct sac_trainer *t);
float *const *sac_trainer_plan_grads(const struct sac_trainer *t);
/* A test net's own parameter, *weight, to the device. */
int sac_trainer_remote_own(struct sac_trainer *t, float **weight, int64_t count,
                           struct sac_error *err);
/* The head to the device, behind what is enqueued. */
int sac_trainer_remote_offer(struct sac_trainer *t, struct sac_error *err);
/* The flat arrays on the device: the gradients' from its head on. */
float *sac_trainer_remote_params(const struct sac_trainer *t);
float *sac_trainer_remote_history(const struct sac_trainer *t, int index);
float *sac_trainer_remote_head(const struct sac_trainer *t);
/* Parameters and history to the host, where they are behind. */
int sac_trainer_remote_fetch(struct sac_trainer *t, struct sac_error *err);
/* Of an iteration, only with t->remote: before its passes, behind them, and the update. */
int sac_trainer_remote_begin(struct sac_trainer *t, struct sac_error *err);
int sac_trainer_remote_check(struct sac_trainer *t, struct sac_error *err);
int sac_trainer_remote_update(struct sac_trainer *t, struct sac_error *err);

#endif
