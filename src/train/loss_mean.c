#include "train/loss_mean.h"

#include <stdbool.h>
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

json_t *sac_loss_mean_to_json(const struct sac_loss_mean *mean)
{
    json_t *losses = json_array();
    bool good = losses != NULL;

    for (int i = 0; good && i < mean->count; i++) {
        int at = (mean->next + i) % mean->count;
        good = json_array_append_new(losses, json_real(mean->losses[at])) == 0;
    }
    if (!good) {
        json_decref(losses);
        return NULL;
    }
    return json_pack("{s:f, s:o}", "mean", mean->mean, "losses", losses);
}

static int check_losses(const json_t *json, const json_t **ret_losses, double *ret_mean,
                        struct sac_error *err)
{
    const json_t *losses = json_object_get(json, "losses"), *mean = json_object_get(json, "mean");

    if (!json_is_array(losses) || !json_is_number(mean))
        return sac_fail(err, SAC_EFORMAT, "expected \"mean\" and an array of \"losses\"");
    for (size_t i = 0; i < json_array_size(losses); i++) {
        if (!json_is_number(json_array_get(losses, i)))
            return sac_fail(err, SAC_EFORMAT, "expected loss %zu to be a number", i);
    }
    *ret_losses = losses;
    *ret_mean = json_number_value(mean);
    return 0;
}

int sac_loss_mean_from_json(struct sac_loss_mean *mean, const json_t *json, struct sac_error *err)
{
    const json_t *losses = NULL;
    double exact = 0;
    int rc = check_losses(json, &losses, &exact, err);

    if (rc < 0)
        return rc;
    size_t count = json_array_size(losses), capacity = (size_t)mean->capacity;
    size_t first = count > capacity ? count - capacity : 0;
    mean->count = mean->next = 0;
    mean->mean = 0;
    for (size_t i = first; i < count; i++)
        sac_loss_mean_add(mean, json_number_value(json_array_get(losses, i)));
    if (first == 0) /* as it was, rounding included */
        mean->mean = exact;
    return 0;
}
