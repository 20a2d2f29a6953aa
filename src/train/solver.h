/*
 * Caffe's solvers: from summed gradients to new parameters.
 *
 * Parameters, gradients and history are flat fp32 arrays cut into segments, one a
 * parameter. Order as in Caffe: clip_gradients by the L2 norm of all gradients,
 * still summed over iter_size → divide by iter_size → decay → the rule. With g
 * the gradient so far, r = rate · lr_mult, h and k history, δ delta, t = iteration + 1:
 *     SGD       h ← μh + rg;  w −= h
 *     Nesterov  h' = μh + rg;  w −= (1+μ)h' − μh;  h ← h'
 *     AdaGrad   h ← h + g²;  w −= rg/(√h + δ)
 *     RMSProp   h ← dh + (1−d)g², d = rms_decay;  w −= rg/(√h + δ)
 *     AdaDelta  h ← μh + (1−μ)g²;  u = g·√((k+δ)/(h+δ));  k ← μk + (1−μ)u²;  w −= ru
 *     Adam      h ← βh + (1−β)g, β = momentum;  k ← γk + (1−γ)g², γ = momentum2;
 *               w −= r·√(1−γ^t)/(1−β^t) · h/(√k + δ)
 * A segment of lr_mult 0 is frozen: nothing of it is read or written.
 *
 * Every element is computed by itself, and the norm in a fixed order, so that a
 * step is the same bit for bit however it is cut among threads. A solver may be
 * used by several threads in sac_solver_apply, else by one.
 */
#ifndef SAC_TRAIN_SOLVER_H
#define SAC_TRAIN_SOLVER_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "device/device.h"
#include "formats/caffe.h"
#include "train/rate.h"
#include "train/weights.h"

/* One parameter. Segments stand in the order of Caffe's learnable parameters,
 * since a solverstate lists history so; offsets ascend and do not overlap. */
struct sac_solver_segment {
    const char *name; /* for sentences; copied */
    struct sac_shape shape;
    size_t offset; /* in the flat arrays, in floats */
    float lr_mult;
    float decay_mult;
};

struct sac_solver;

/* Whether a solver can be made of the message, before anything else is opened. */
int sac_solver_check(const Caffe__SolverParameter *message, struct sac_error *err);

/* `total`: floats in each flat array. `message` is borrowed for the solver's life. */
int sac_solver_new(struct sac_solver **ret, const Caffe__SolverParameter *message,
                   const struct sac_solver_segment *segments, int segment_count, size_t total,
                   struct sac_error *err);
void sac_solver_free(struct sac_solver *solver); /* takes NULL */

const struct sac_rate *sac_solver_rate(const struct sac_solver *solver);
int sac_solver_iter_size(const struct sac_solver *solver);

/* What one iteration's update has in common for all segments. */
struct sac_solver_step {
    double rate;
    double norm; /* of the gradients' mean over ranks, before clipping; 0 unless clip_gradients is
                    set */
    float clip;  /* they are multiplied by this, 1 when they were not too long */
    float correction; /* Adam's */
};

/* How many threads of the caller's team updates and checks may use; 1 unless set. */
void sac_solver_set_threads(struct sac_solver *solver, int threads);

/* Gradients are the sums of so many ranks', of which each has the mean of its own items;
 * 1 unless set. */
void sac_solver_set_ranks(struct sac_solver *solver, int ranks);

/* One update, in one call. grads[total] is read only. */
void sac_solver_update(struct sac_solver *solver, float *params, const float *grads,
                       int64_t iteration);

/* The same in two: first once, then, from any threads, pieces [first, end) that
 * together cover [0, total). */
struct sac_solver_step sac_solver_begin(const struct sac_solver *solver, const float *grads,
                                        int64_t iteration);
/* The first where the gradients are elsewhere: by their norm, which counts only with
 * sac_solver_clips(). */
struct sac_solver_step sac_solver_begin_norm(const struct sac_solver *solver, double norm,
                                             int64_t iteration);
bool sac_solver_clips(const struct sac_solver *solver);
/* The second on a device: all but the pointers, with `share` for one pass of many; and the
 * pieces, of which chunks[0 .. return value) are filled where it is not NULL. */
struct sac_update sac_solver_device_update(const struct sac_solver *solver,
                                           const struct sac_solver_step *step);
size_t sac_solver_device_chunks(const struct sac_solver *solver, struct sac_update_chunk *chunks);
int sac_solver_histories(const struct sac_solver *solver); /* flat arrays: 1 or 2 */
/* Flat array `index` of history on the host; what snapshots show and read. */
float *sac_solver_history_flat(struct sac_solver *solver, int index);
void sac_solver_apply(struct sac_solver *solver, const struct sac_solver_step *step, float *params,
                      const float *grads, size_t first, size_t end);

/* The first NaN or infinity among the segments that train: SAC_EINVAL and a
 * sentence with the parameter's name and place. `what`: "gradient", "parameter". */
int sac_solver_check_finite(const struct sac_solver *solver, const float *values, const char *what,
                            struct sac_error *err);

/* History as a solverstate lists it: all segments' first, then, for AdaDelta and
 * Adam, all their second. */
int sac_solver_history_count(const struct sac_solver *solver);
struct sac_blob_view sac_solver_history(const struct sac_solver *solver, int index);
/* Copies history in, all or nothing; a count or shape that does not fit is
 * SAC_EFORMAT (shapes may differ by leading ones). */
int sac_solver_history_load(struct sac_solver *solver, const struct sac_blob_view *history,
                            int count, struct sac_error *err);

#endif
