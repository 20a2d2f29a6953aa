#include "device/cuda/comm_rig.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int comm_world(void)
{
    struct sac_error err = {0};
    int count = 0;

    assert_ok(sac_device_cuda_count(&count, &err), err);
    return count < COMM_RANKS_MAX ? count : COMM_RANKS_MAX;
}

static void *rank_main(void *arg)
{
    struct comm_rank *rank = arg;
    struct sac_error err = {0};
    char name[16];

    snprintf(name, sizeof name, "cuda:%d", rank->rank);
    assert_ok(sac_device_open(&rank->device, name, &err), err);
    assert_ok(rank->device->table->stream_new_at(rank->device, -5, &rank->stream, &err), err);
    assert_ok(rank->device->table->memory_new(rank->device, SAC_MEMORY_STAGING,
                                              COMM_NUMBERS_MAX * sizeof(float), &rank->staging,
                                              &err),
              err);
    rank->run(rank);
    rank->device->table->memory_free(rank->device, SAC_MEMORY_STAGING, rank->staging);
    rank->device->table->stream_free(rank->stream);
    sac_device_close(rank->device);
    return NULL;
}

static void make_id(unsigned char id[SAC_COMM_ID])
{
    struct sac_error err = {0};
    struct sac_device *device;

    assert_ok(sac_device_open(&device, "cuda:0", &err), err);
    assert_ok(device->table->comm_id(device, id, &err), err);
    sac_device_close(device);
}

void comm_run(int world, void (*run)(struct comm_rank *rank), const void *user)
{
    struct comm_rank rank[COMM_RANKS_MAX];
    unsigned char id[SAC_COMM_ID];

    make_id(id);
    for (int r = 0; r < world; r++) {
        rank[r] = (struct comm_rank){.rank = r, .world = world, .id = id, .user = user, .run = run};
        assert_int_equal(pthread_create(&rank[r].thread, NULL, rank_main, &rank[r]), 0);
    }
    for (int r = 0; r < world; r++)
        pthread_join(rank[r].thread, NULL);
}

void comm_join(struct comm_rank *rank)
{
    struct sac_error err = {0};

    const struct sac_comm_place place = {.id = rank->id, .rank = rank->rank, .world = rank->world};
    assert_ok(rank->device->table->comm_new(rank->device, &place, &rank->comm, &err), err);
}

void comm_leave(struct comm_rank *rank)
{
    sac_comm_free(rank->comm);
    rank->comm = NULL;
}

float comm_number(int rank, size_t i)
{
    return (float)((i * 7 + (size_t)rank * 13) % 61) / 8 - 3;
}

static void copy(struct comm_rank *rank, enum sac_copy way, void *to, const void *from,
                 size_t bytes)
{
    const struct sac_device_table *table = rank->device->table;
    bool there = way == SAC_COPY_TO_DEVICE;
    struct sac_error err = {0};

    if (there)
        memcpy(rank->staging, from, bytes);
    assert_ok(table->copy(rank->stream, way, there ? to : rank->staging,
                          there ? rank->staging : from, bytes, &err),
              err);
    assert_ok(table->stream_sync(rank->stream, &err), err);
    if (!there)
        memcpy(to, rank->staging, bytes);
}

float *comm_numbers(struct comm_rank *rank, size_t count)
{
    struct sac_error err = {0};
    float *host = malloc(count * sizeof *host);
    void *values = NULL;

    for (size_t i = 0; i < count; i++)
        host[i] = comm_number(rank->rank, i);
    assert_ok(rank->device->table->memory_new(rank->device, SAC_MEMORY_DEVICE, count * sizeof *host,
                                              &values, &err),
              err);
    copy(rank, SAC_COPY_TO_DEVICE, values, host, count * sizeof *host);
    free(host);
    return values;
}

void comm_read(struct comm_rank *rank, float *to, const float *from, size_t count)
{
    copy(rank, SAC_COPY_TO_HOST, to, from, count * sizeof *to);
}

void comm_drop(struct comm_rank *rank, float *values)
{
    rank->device->table->memory_free(rank->device, SAC_MEMORY_DEVICE, values);
}

/* Multiples of 1/8 below 2²⁰: any order is exact. */
void comm_check_sums(struct comm_rank *rank, const float *values, size_t count)
{
    float *host = malloc(count * sizeof *host);

    comm_read(rank, host, values, count);
    for (size_t i = 0; i < count; i++) {
        float sum = 0;

        for (int r = 0; r < rank->world; r++)
            sum += comm_number(r, i);
        if (host[i] != sum)
            fail_msg("number %zu of %zu on rank %d: %g, expected %g", i, count, rank->rank,
                     (double)host[i], (double)sum);
    }
    free(host);
}
