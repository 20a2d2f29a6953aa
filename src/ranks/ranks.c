#include "ranks/ranks.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- Who ------------------------------------------------------------------- */

typedef const char *get_fn(const char *name);

/* Leaves *ret where the variable is not set. */
static int read_number(get_fn *get, const char *name, long least, long most, int *ret,
                       struct sac_error *err)
{
    const char *text = get(name);
    char *end;

    if (!text)
        return 0;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno != 0 || end == text || *end != 0 || value < least || value > most)
        return sac_fail(err, SAC_EINVAL, "%s is \"%.40s\"; expected a whole number of %ld to %ld",
                        name, text, least, most);
    *ret = (int)value;
    return 0;
}

static int need(get_fn *get, const char *name, const char *because, struct sac_error *err)
{
    const char *text = get(name);

    if (text && *text)
        return 0;
    return sac_fail(err, SAC_EINVAL, "%s is set, and %s is not", because, name);
}

static int read_master(struct sac_ranks *r, get_fn *get, struct sac_error *err)
{
    int rc = need(get, "MASTER_ADDR", "WORLD_SIZE above 1", err);

    if (rc == 0)
        rc = need(get, "MASTER_PORT", "WORLD_SIZE above 1", err);
    if (rc == 0)
        rc = read_number(get, "MASTER_PORT", 1, 65535, &r->port, err);
    if (rc == 0 && strlen(get("MASTER_ADDR")) >= sizeof r->master)
        rc = sac_fail(err, SAC_EINVAL, "MASTER_ADDR is longer than %d characters",
                      SAC_RANK_HOST - 1);
    if (rc == 0)
        memcpy(r->master, get("MASTER_ADDR"), strlen(get("MASTER_ADDR")) + 1);
    return rc;
}

/* torchrun's agent listens at MASTER_PORT itself, and says so to everybody. */
static void step_aside(struct sac_ranks *r, get_fn *get)
{
    const char *taken = get("TORCHELASTIC_USE_AGENT_STORE");

    if (taken && strcmp(taken, "True") == 0)
        r->port = r->port < 65535 ? r->port + 1 : r->port - 1;
}

static int read_place(struct sac_ranks *r, get_fn *get, const char *rank, const char *world,
                      const char *local, const char *locals, struct sac_error *err)
{
    int rc = need(get, world, rank, err);

    if (rc == 0)
        rc = need(get, rank, world, err);
    if (rc == 0)
        rc = read_number(get, world, 1, SAC_RANKS_MAX, &r->world, err);
    if (rc == 0)
        rc = read_number(get, rank, 0, r->world - 1, &r->rank, err);
    if (rc == 0)
        rc = read_number(get, local, 0, SAC_RANKS_MAX - 1, &r->local, err);
    if (rc == 0)
        rc = read_number(get, locals, 1, SAC_RANKS_MAX, &r->locals, err);
    return rc;
}

int sac_ranks_read(struct sac_ranks *ret, get_fn *get, struct sac_error *err)
{
    struct sac_ranks r = {.world = 1};
    int tasks = 1, rc = 0;

    if (get("RANK") || get("WORLD_SIZE")) {
        rc = read_place(&r, get, "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", err);
    } else if (get("OMPI_COMM_WORLD_SIZE")) {
        r.mpi = true;
        rc = read_place(&r, get, "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE",
                        "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE", err);
    } else {
        rc = read_number(get, "SLURM_NTASKS", 1, SAC_RANKS_MAX, &tasks, err);
        if (rc == 0 && tasks > 1)
            rc = read_place(&r, get, "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID",
                            "SLURM_NTASKS_PER_NODE", err);
    }
    if (rc == 0 && r.world > 1 && !r.mpi)
        rc = read_master(&r, get, err);
    if (rc == 0 && r.world > 1 && !r.mpi)
        step_aside(&r, get);
    if (rc == 0)
        *ret = r;
    return rc;
}

/* ---- What ------------------------------------------------------------------ */

int sac_ranks_cores(int usable, int online, int processes, int count)
{
    int shared = online / (processes > 0 ? processes : 1);
    int own = (usable < shared ? usable : shared) / count;

    return own > 0 ? own : 1;
}

int sac_ranks_batch(int batch, enum sac_batch_rule rule, int devices, int *ret_whole,
                    struct sac_error *err)
{
    int whole = batch;

    if (batch < 1 || devices < 1)
        return sac_fail(err, SAC_EINVAL, "a batch of %d for %d devices", batch, devices);
    if (rule == SAC_BATCH_PER_DEVICE && __builtin_mul_overflow(batch, devices, &whole))
        return sac_fail(err, SAC_ELIMIT, "a batch of %d for each of %d devices is too large", batch,
                        devices);
    if (rule == SAC_BATCH_SPLIT && batch % devices != 0)
        return sac_fail(err, SAC_EINVAL, "a batch of %d cannot be split evenly over %d devices",
                        batch, devices);
    *ret_whole = whole;
    return 0;
}

/* ---- Together --------------------------------------------------------------- */

/* The part that is there next after `last`; of those that are there together, the last in
 * the array comes first, as the way back has it. */
static int next_part(const int *ready, int parts, int last)
{
    int best = -1;

    for (int i = 0; i < parts; i++) {
        bool behind = last < 0 || ready[i] > ready[last] || (ready[i] == ready[last] && i < last);
        if (ready[i] >= 0 && behind && (best < 0 || ready[i] <= ready[best]))
            best = i;
    }
    return best;
}

int sac_ranks_buckets(struct sac_bucket *ret, const size_t *at, const int *ready, int parts,
                      size_t least)
{
    int count = 0;
    bool open = false; /* the last bucket may grow */

    for (int i = next_part(ready, parts, -1); i >= 0; i = next_part(ready, parts, i)) {
        struct sac_bucket *b = count > 0 ? &ret[count - 1] : NULL;
        if (open && at[i + 1] == b->first)
            b->first = at[i];
        else if (open && at[i] == b->end)
            b->end = at[i + 1];
        else
            ret[count++] = (struct sac_bucket){at[i], at[i + 1], 0};
        b = &ret[count - 1];
        b->ready_after = ready[i];
        open = b->end - b->first < least;
    }
    return count;
}
