/*
 * Calibration: pictures go through a net in f32, and what each blob holds becomes its
 * range (device/ranges.h). One thread.
 *
 * A blob's numbers are counted by size. Its range ends where cutting it off and
 * rounding to 8 bits together cost least: the least sum, over all numbers, of
 * step² / 12 within it and of (|x| − end)² beyond. SAC_CALIBRATE_MAX takes the largest
 * number that was seen instead.
 */
#ifndef SAC_MODEL_CALIBRATE_H
#define SAC_MODEL_CALIBRATE_H

#include "device/device.h"
#include "device/ranges.h"
#include "net/net.h"

enum sac_calibration_rule { SAC_CALIBRATE_MSE, SAC_CALIBRATE_MAX };

struct sac_calibration;

/* For pictures one at a time; `pixels` as in net/plan.h. Borrows net and device. */
int sac_calibration_new(struct sac_calibration **ret, const struct sac_net *net,
                        struct sac_device *device, const union sac_op_param *pixels,
                        struct sac_error *err);
void sac_calibration_free(struct sac_calibration *calibration); /* takes NULL */
/* Bytes of one input, of the type that the plan's input 0 has. */
int sac_calibration_add(struct sac_calibration *calibration, const void *input,
                        struct sac_error *err);
/* The ranges so far; the caller's, to be given to sac_ranges_done(). Blobs in which
 * nothing or no number was seen have none. */
int sac_calibration_ranges(const struct sac_calibration *calibration,
                           enum sac_calibration_rule rule, struct sac_ranges *ret,
                           struct sac_error *err);

/* How many of a blob's |x| lie in each of the bins of [0, top); for the tests. */
enum { SAC_CALIBRATION_BINS = 2048 };
struct sac_histogram_of_sizes {
    uint64_t bins[SAC_CALIBRATION_BINS];
    float top; /* 0: nothing but zeros so far; doubles when more is seen */
    float most;
    bool negative;
};
void sac_sizes_add(struct sac_histogram_of_sizes *sizes, const float *x, int64_t count);
/* Where the range ends. */
float sac_sizes_end(const struct sac_histogram_of_sizes *sizes, enum sac_calibration_rule rule);

#endif
