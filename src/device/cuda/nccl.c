/* Finds NCCL and its functions. */
#include "device/cuda/nccl.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>

static struct sac_nccl nccl;
static struct sac_error why_not;
static int found; /* 0, or SAC_E… */

/* `since`: the version code from which on it must be there. */
static const struct {
    const char *name;
    size_t at;
    int since;
} calls[] = {
    {"ncclGetVersion", offsetof(struct sac_nccl, get_version), 0},
    {"ncclGetUniqueId", offsetof(struct sac_nccl, get_unique_id), 0},
    {"ncclCommInitRank", offsetof(struct sac_nccl, comm_init_rank), 0},
    {"ncclCommInitRankConfig", offsetof(struct sac_nccl, comm_init_rank_config),
     SAC_NCCL_NONBLOCKING},
    {"ncclCommGetAsyncError", offsetof(struct sac_nccl, comm_get_async_error), 0},
    {"ncclCommAbort", offsetof(struct sac_nccl, comm_abort), 0},
    {"ncclCommFinalize", offsetof(struct sac_nccl, comm_finalize), SAC_NCCL_NONBLOCKING},
    {"ncclCommDestroy", offsetof(struct sac_nccl, comm_destroy), 0},
    {"ncclAllReduce", offsetof(struct sac_nccl, all_reduce), 0},
    {"ncclBroadcast", offsetof(struct sac_nccl, broadcast), 0},
    {"ncclGetErrorString", offsetof(struct sac_nccl, get_error_string), 0},
    {"ncclGetLastError", offsetof(struct sac_nccl, get_last_error), 21300},
};

/* A function that the version does not have is not taken, even if it is there. */
static int take(void *library, struct sac_error *err)
{
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        void *at = nccl.version >= calls[i].since ? dlsym(library, calls[i].name) : NULL;

        if (!at && nccl.version >= calls[i].since)
            return sac_fail(err, SAC_EUNSUPPORTED, "libnccl.so.2 has no %s", calls[i].name);
        *(void **)((char *)&nccl + calls[i].at) = at;
        /* The first is the version, which the others are judged by. */
        if (i == 0 && nccl.get_version(&nccl.version) != SAC_NCCL_SUCCESS)
            return sac_fail(err, SAC_EUNSUPPORTED, "libnccl.so.2 does not tell its version");
    }
    return 0;
}

/* It stays loaded: its threads may be in it at any time. */
static void load(void)
{
    char text[32];
    void *library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);

    if (!library) {
        found = sac_fail(&why_not, SAC_EUNSUPPORTED, "there is no NCCL: %s", dlerror());
        return;
    }
    found = take(library, &why_not);
    if (found == 0 && nccl.version < SAC_NCCL_OLDEST) {
        sac_nccl_describe(&nccl, text, sizeof text);
        found = sac_fail(&why_not, SAC_EUNSUPPORTED, "%s is too old: 2.4.3 is the oldest", text);
    }
}

int sac_nccl_get(const struct sac_nccl **ret, struct sac_error *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, load);
    if (found != 0)
        return sac_fail(err, found, "%s", why_not.text);
    *ret = &nccl;
    return 0;
}

void sac_nccl_describe(const struct sac_nccl *n, char *ret, size_t size)
{
    int unit = n->version < 10000 ? 1000 : 10000;

    snprintf(ret, size, "NCCL %d.%d.%d", n->version / unit, n->version % unit / 100,
             n->version % 100);
}
