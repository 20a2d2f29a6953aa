#include "nccl_rig.h"

#include <pthread.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

struct thread {
    pthread_t thread;
    int device;
    void (*run)(struct rig_rank *rank);
    struct rig_rank rank;
};

static void *thread_main(void *arg)
{
    struct thread *t = arg;

    must(cudaSetDevice(t->device));
    t->run(&t->rank);
    return NULL;
}

void rig_threads(const ncclUniqueId *id, int first, int count, int world,
                 void (*run)(struct rig_rank *rank), const void *user)
{
    struct thread threads[RIG_RANKS_MAX];

    assert_true(count <= RIG_RANKS_MAX);
    for (int i = 0; i < count; i++) {
        threads[i] =
            (struct thread){.device = i,
                            .run = run,
                            .rank = {.rank = first + i, .world = world, .id = *id, .user = user}};
        must(pthread_create(&threads[i].thread, NULL, thread_main, &threads[i]));
    }
    for (int i = 0; i < count; i++)
        must(pthread_join(threads[i].thread, NULL));
}

void rig_ranks(int world, void (*run)(struct rig_rank *rank), const void *user)
{
    ncclUniqueId id;

    must(ncclGetUniqueId(&id));
    rig_threads(&id, 0, world, world, run, user);
}

int rig_process(const char *name, const ncclUniqueId *id, int first, int count, int world,
                const char *faults)
{
    char number[3][16], fault[80] = "SACCADE_SIM_FAULT=";
    char *argv[] = {(char *)"rank", (char *)name, (char *)id->internal, number[0], number[1],
                    number[2],      NULL};
    char *environment[64] = {fault};
    int process, at = 1;

    snprintf(fault, sizeof fault, "SACCADE_SIM_FAULT=%s", faults ? faults : "");
    snprintf(number[0], sizeof number[0], "%d", first);
    snprintf(number[1], sizeof number[1], "%d", count);
    snprintf(number[2], sizeof number[2], "%d", world);
    for (char **e = environ; *e && at < 63; e++)
        environment[at++] = *e;
    must(posix_spawn(&process, "/proc/self/exe", NULL, NULL, argv, environment));
    return process;
}

int rig_status(int process)
{
    int status = -1;

    assert_int_equal(waitpid(process, &status, 0), process);
    return status;
}

void rig_open(struct rig_rank *rank)
{
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;

    config.blocking = 0;
    must(cudaStreamCreateWithFlags(&rank->stream, cudaStreamNonBlocking));
    assert_int_equal(
        ncclCommInitRankConfig(&rank->comm, rank->world, rank->id, rank->rank, &config),
        ncclInProgress);
    must(rig_state(rank->comm));
}

void rig_close(struct rig_rank *rank)
{
    must(cudaStreamSynchronize(rank->stream));
    assert_int_equal(ncclCommFinalize(rank->comm), ncclInProgress);
    must(rig_state(rank->comm));
    must(ncclCommDestroy(rank->comm));
    must(cudaStreamDestroy(rank->stream));
}

static ncclResult_t wait_for(ncclComm_t comm, bool failure)
{
    ncclResult_t state = ncclInProgress;

    for (int i = 0; i < 20000; i++) {
        must(ncclCommGetAsyncError(comm, &state));
        if (state != ncclInProgress && (state != ncclSuccess || !failure))
            break;
        usleep(1000);
    }
    return state;
}

ncclResult_t rig_state(ncclComm_t comm)
{
    return wait_for(comm, false);
}

ncclResult_t rig_failure(ncclComm_t comm)
{
    return wait_for(comm, true);
}

ncclResult_t rig_all_reduce(struct rig_rank *rank, float *values, size_t count)
{
    ncclResult_t result =
        ncclAllReduce(values, values, count, ncclFloat32, ncclSum, rank->comm, rank->stream);

    return result == ncclInProgress ? rig_state(rank->comm) : result;
}
