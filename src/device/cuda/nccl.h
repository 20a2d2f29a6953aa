/*
 * NCCL, found at run time: who trains on one GPU needs none. CUDA's toolkit comes without
 * its header, so what is used of it stands here (tests/device/cuda/nccl_abi.c holds it
 * against the header where there is one). NCCL 2.4 and later; what came after that may be
 * NULL. Any thread.
 */
#ifndef SAC_DEVICE_CUDA_NCCL_H
#define SAC_DEVICE_CUDA_NCCL_H

#include <cuda_runtime_api.h>
#include <limits.h>
#include <stddef.h>

#include "base/error.h"

/* ncclResult_t, ncclDataType_t and ncclRedOp_t, of which these are used. */
enum {
    SAC_NCCL_SUCCESS = 0,
    SAC_NCCL_CUDA_ERROR = 1,
    SAC_NCCL_REMOTE_ERROR = 6, /* 2.12 */
    SAC_NCCL_IN_PROGRESS = 7,  /* 2.14 */
    SAC_NCCL_FLOAT32 = 7,
    SAC_NCCL_SUM = 0,
};

enum { SAC_NCCL_NOT_SET = INT_MIN };

enum {
    SAC_NCCL_OLDEST = 2403,       /* 2.4.3; to 2.8 the code is 2xyy, later 2xxyy */
    SAC_NCCL_RECORDS = 20900,     /* collectives may be captured */
    SAC_NCCL_NONBLOCKING = 21400, /* ncclConfig_t begins */
    SAC_NCCL_MAGIC = (int)0xcafebeef,
};

struct sac_nccl_id { /* ncclUniqueId, which is passed by value */
    char bytes[128];
};

/* The fields that ncclConfig_t began with; NCCL takes the rest for not set. */
struct sac_nccl_config {
    size_t size;
    unsigned magic, version;
    int blocking;
    int not_set; /* SAC_NCCL_NOT_SET: 2.17 put a field where there was padding */
};

struct ncclComm;

struct sac_nccl {
    int version; /* NCCL_VERSION_CODE */
    int (*get_version)(int *ret);
    int (*get_unique_id)(struct sac_nccl_id *ret);
    int (*comm_init_rank)(struct ncclComm **ret, int world, struct sac_nccl_id id, int rank);
    int (*comm_init_rank_config)(struct ncclComm **ret, int world, struct sac_nccl_id id, int rank,
                                 struct sac_nccl_config *config);
    int (*comm_get_async_error)(struct ncclComm *comm, int *ret);
    int (*comm_abort)(struct ncclComm *comm);
    int (*comm_finalize)(struct ncclComm *comm);
    int (*comm_destroy)(struct ncclComm *comm);
    int (*all_reduce)(const void *from, void *to, size_t count, int type, int op,
                      struct ncclComm *comm, cudaStream_t stream);
    int (*broadcast)(const void *from, void *to, size_t count, int type, int root,
                     struct ncclComm *comm, cudaStream_t stream);
    const char *(*get_error_string)(int result);
    const char *(*get_last_error)(struct ncclComm *comm); /* may be NULL */
};

/* SAC_EUNSUPPORTED where there is none that can be used, with why. It stays loaded. */
int sac_nccl_get(const struct sac_nccl **ret, struct sac_error *err);

/* "NCCL 2.28.9" */
void sac_nccl_describe(const struct sac_nccl *nccl, char *ret, size_t size);

#endif
