/*
 * How long a sum over the ranks of NCCL takes with one rank on one GPU: what it costs at
 * least. JSON: for each size the microseconds until the call returns, and from call to call
 * with many enqueued, medians.
 *
 *   time_comm [DEVICE]           cuda:0
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "device/device.h"

enum { ROUNDS = 9, CALLS = 20 };

static int later(const void *a, const void *b)
{
    double l = *(const double *)a, r = *(const double *)b;

    return l < r ? -1 : l > r;
}

static int time_size(struct sac_device *device, struct sac_comm *comm, struct sac_stream *stream,
                     size_t bytes, struct sac_error *err)
{
    const struct sac_device_table *table = device->table;
    double call_us[ROUNDS], each_us[ROUNDS];
    void *values = NULL;
    int rc = table->memory_new(device, SAC_MEMORY_DEVICE, bytes, &values, err);

    for (int round = -1; rc == 0 && round < ROUNDS; round++) { /* the first is not counted */
        uint64_t begun = sac_clock_ns(), returned = 0;

        for (int i = 0; rc == 0 && i < CALLS; i++) {
            rc = sac_comm_all_reduce(comm, stream, values, bytes / sizeof(float), err);
            returned = i == 0 ? sac_clock_ns() : returned;
        }
        if (rc == 0)
            rc = table->stream_sync(stream, err);
        if (round >= 0) {
            call_us[round] = (double)(returned - begun) / 1e3;
            each_us[round] = (double)(sac_clock_ns() - begun) / 1e3 / CALLS;
        }
    }
    table->memory_free(device, SAC_MEMORY_DEVICE, values);
    if (rc != 0)
        return rc;
    qsort(call_us, ROUNDS, sizeof *call_us, later);
    qsort(each_us, ROUNDS, sizeof *each_us, later);
    printf("{\"bytes\": %zu, \"call_us\": %.2f, \"each_us\": %.2f}", bytes, call_us[ROUNDS / 2],
           each_us[ROUNDS / 2]);
    return 0;
}

static int time_all(struct sac_device *device, struct sac_error *err)
{
    static const size_t sizes[] = {4 << 10, 1 << 20, 25 << 20, 100 << 20};
    const struct sac_device_table *table = device->table;
    unsigned char id[SAC_COMM_ID];
    struct sac_comm *comm = NULL;
    struct sac_stream *stream = NULL;
    char library[64] = "";
    int rc = table->comm_library(library, sizeof library, err);

    if (rc == 0)
        rc = table->comm_id(device, id, err);
    if (rc == 0)
        rc = table->comm_new(device, &(struct sac_comm_place){.id = id, .world = 1}, &comm, err);
    if (rc == 0)
        rc = table->stream_new_at(device, -1, &stream, err);
    printf("{\"library\": \"%s\", \"ranks\": 1, \"sizes\": [", library);
    for (size_t i = 0; rc == 0 && i < sizeof sizes / sizeof sizes[0]; i++) {
        printf("%s", i ? ", " : "");
        rc = time_size(device, comm, stream, sizes[i], err);
    }
    printf("]}\n");
    sac_comm_free(comm);
    if (stream)
        table->stream_free(stream);
    return rc;
}

int main(int argc, char **argv)
{
    struct sac_error err = {0};
    struct sac_device *device = NULL;
    int rc = sac_device_open(&device, argc > 1 ? argv[1] : "cuda:0", &err);

    if (rc == 0 && !device->table->comm_library)
        rc = sac_fail(&err, SAC_EUNSUPPORTED, "%s has no communicator", device->info.name);
    if (rc == 0)
        rc = time_all(device, &err);
    if (rc != 0)
        fprintf(stderr, "time_comm: %s\n", err.text);
    sac_device_close(device);
    return rc != 0;
}
