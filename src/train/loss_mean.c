#include "train/loss_mean.h"

#include <stdlib.h>

int sac_loss_mean_init(struct sac_loss_mean *ret, int average_loss, struct sac_error *err)
{
    enum { AVERAGE_MAX = 1000000 };

    if (average_loss < 1 || average_loss > AVERAGE_MAX)
        return sac_fail(err, SAC_EINVAL, "average_loss is %d; expected 1 to %d", average_loss,
                        AVERAGE_MAX);
    double *losses = calloc((size_t)average_loss, sizeof *losses);
    if (!losses)
        return sac_fail(err, SAC_ENOMEM, "no memory for %d losses", average_loss);
    *ret = (struct sac_loss_mean){.capacity = average_loss, .losses = losses};
    return 0;
}

void sac_loss_mean_done(struct sac_loss_mean *mean)
{
    free(mean->losses);
    *mean = (struct sac_loss_mean){0};
}

double sac_loss_mean_add(struct sac_loss_mean *mean, double loss)
{
    if (mean->count < mean->capacity) {
        mean->mean = (mean->mean * mean->count + loss) / (mean->count + 1);
        mean->losses[mean->count++] = loss;
    } else {
        mean->mean += (loss - mean->losses[mean->next]) / mean->capacity;
        mean->losses[mean->next] = loss;
        mean->next = (mean->next + 1) % mean->capacity;
    }
    return mean->mean;
}
