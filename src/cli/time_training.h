/* `saccade time --net N --backward`: what an iteration of training is made of. */
#ifndef SAC_CLI_TIME_TRAINING_H
#define SAC_CLI_TIME_TRAINING_H

#include "device/device.h"

/* All borrowed. */
struct sac_time_training {
    struct sac_device *device;
    const char *net;  /* a train_val prototxt; its TRAIN phase counts */
    const char *data; /* instead of its data layer's source; NULL: that, or zeros for a net
                       * without one */
    const char *mean; /* instead of the layer's mean file; with data */
    int batch;        /* 0: the net's own */
    int iterations;
    struct sac_op_options ops;
    bool json;
};

/* Prints the report. */
int sac_time_training(const struct sac_time_training *options, struct sac_error *err);

#endif
