/*
 * average_loss: the mean of the last few losses, as Caffe smooths what it prints.
 * One thread at a time.
 */
#ifndef SAC_TRAIN_LOSS_MEAN_H
#define SAC_TRAIN_LOSS_MEAN_H

#include <jansson.h>

#include "base/error.h"

/* Start it with init. */
struct sac_loss_mean {
    int capacity; /* average_loss */
    int count;    /* of losses seen, at most the capacity */
    int next;     /* the oldest loss, replaced next; 0 until full */
    double mean;
    double *losses; /* owned */
};

int sac_loss_mean_init(struct sac_loss_mean *ret, int average_loss, struct sac_error *err);
void sac_loss_mean_done(struct sac_loss_mean *mean);
/* Takes one more loss; returns the new mean. */
double sac_loss_mean_add(struct sac_loss_mean *mean, double loss);

/* For a snapshot's values, exact to the bit: {"mean": m, "losses": [oldest first]}. A
 * new reference; NULL when memory is out or a loss is not finite. */
json_t *sac_loss_mean_to_json(const struct sac_loss_mean *mean);
/* Back into one that has been started. More losses than its capacity (average_loss has
 * been lowered) leave the newest, and their mean. */
int sac_loss_mean_from_json(struct sac_loss_mean *mean, const json_t *json, struct sac_error *err);

#endif
