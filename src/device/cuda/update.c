/* The solver's and the feed's parts of training, enqueued. */
#include "device/cuda/cuda.h"
#include "kernels/training.h"

int sac_cuda_clear(struct sac_stream *stream, void *memory, size_t bytes, struct sac_error *err)
{
    int rc = sac_cuda_use(stream->device, err);

    return rc ? rc
              : sac_cuda_check(stream->device, cudaMemsetAsync(memory, 0, bytes, stream->stream),
                               "clearing memory", err);
}

int sac_cuda_sum_of_squares(struct sac_stream *stream, const float *values, size_t count,
                            double work[SAC_SUM_DOUBLES], struct sac_error *err)
{
    int rc = sac_cuda_use(stream->device, err);

    return rc ? rc
              : sac_cuda_check(stream->device,
                               sac_kernel_sum_of_squares(values, count, work, stream->stream),
                               "the norm of the gradients", err);
}

int sac_cuda_update(struct sac_stream *stream, const struct sac_update *update,
                    struct sac_error *err)
{
    int rc = sac_cuda_use(stream->device, err);

    return rc ? rc
              : sac_cuda_check(stream->device, sac_kernel_update(update, stream->stream),
                               "an update", err);
}

int sac_cuda_crops(struct sac_stream *stream, const struct sac_crops *crops, struct sac_error *err)
{
    int64_t count = (int64_t)crops->count * crops->channels * crops->height * crops->width;
    int rc = sac_cuda_use(stream->device, err);

    if (rc == 0 && count > INT32_MAX)
        rc = sac_fail(err, SAC_ELIMIT, "a batch of %lld values; at most %d", (long long)count,
                      INT32_MAX);
    return rc ? rc
              : sac_cuda_check(stream->device, sac_kernel_crops(crops, stream->stream),
                               "a batch's crops", err);
}
