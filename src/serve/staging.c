#include "serve/staging.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>

struct share {
    struct sac_device *device;
    void *memory; /* NULL: no such share */
    bool open;
    int count, free_count;
    uint8_t **free_slots; /* a stack: what was used last is warm */
};

struct sac_staging {
    size_t stride;
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t changed;
    int next; /* share to look at first: all get their turn */
    struct share shares[SAC_STAGING_SHARES_MAX];
};

int sac_staging_new(struct sac_staging **ret, size_t bytes, struct sac_error *err)
{
    struct sac_staging *staging = calloc(1, sizeof *staging);

    if (!staging || bytes > SIZE_MAX / 2) {
        free(staging);
        return sac_fail(err, SAC_ENOMEM, "pictures' buffers: out of memory");
    }
    staging->stride = (bytes + 255) / 256 * 256;
    pthread_mutex_init(&staging->lock, NULL);
    pthread_cond_init(&staging->changed, NULL);
    *ret = staging;
    return 0;
}

void sac_staging_free(struct sac_staging *staging)
{
    if (!staging)
        return;
    for (int i = 0; i < SAC_STAGING_SHARES_MAX; i++)
        assert(!staging->shares[i].memory);
    pthread_cond_destroy(&staging->changed);
    pthread_mutex_destroy(&staging->lock);
    free(staging);
}

static int share_init(struct share *share, struct sac_device *device, size_t stride, int count,
                      struct sac_error *err)
{
    size_t bytes;

    *share = (struct share){.device = device, .open = true, .count = count};
    share->free_slots = calloc((size_t)count, sizeof *share->free_slots);
    if (!share->free_slots || __builtin_mul_overflow(stride, (size_t)count, &bytes))
        return sac_fail(err, SAC_ENOMEM, "pictures' buffers: out of memory");
    int rc = device->table->memory_new(device, SAC_MEMORY_STAGING, bytes, &share->memory, err);
    for (; rc == 0 && share->free_count < count; share->free_count++)
        share->free_slots[share->free_count] =
            (uint8_t *)share->memory + (size_t)share->free_count * stride;
    return rc;
}

int sac_staging_add(struct sac_staging *staging, int index, struct sac_device *device, int count,
                    struct sac_error *err)
{
    struct share share;
    int rc = share_init(&share, device, staging->stride, count, err);

    if (rc != 0) {
        free(share.free_slots);
        return rc;
    }
    pthread_mutex_lock(&staging->lock);
    assert(!staging->shares[index].memory);
    staging->shares[index] = share;
    pthread_cond_broadcast(&staging->changed);
    pthread_mutex_unlock(&staging->lock);
    return 0;
}

void sac_staging_retire(struct sac_staging *staging, int index)
{
    struct share *share = &staging->shares[index], old;

    pthread_mutex_lock(&staging->lock);
    share->open = false;
    pthread_cond_broadcast(&staging->changed); /* those that wait may have no share left */
    while (share->memory && share->free_count < share->count)
        pthread_cond_wait(&staging->changed, &staging->lock);
    old = *share;
    *share = (struct share){0};
    pthread_mutex_unlock(&staging->lock);
    if (old.memory)
        old.device->table->memory_free(old.device, SAC_MEMORY_STAGING, old.memory);
    free(old.free_slots);
}

/* With the lock. A share with a free slot, −1: all are in use, −2: none is open. */
static int find_share(struct sac_staging *staging)
{
    int found = -2;

    for (int i = 0; i < SAC_STAGING_SHARES_MAX; i++) {
        int at = (staging->next + i) % SAC_STAGING_SHARES_MAX;
        const struct share *share = &staging->shares[at];
        if (!share->open)
            continue;
        if (share->free_count > 0)
            return at;
        found = -1;
    }
    return found;
}

bool sac_staging_take(struct sac_staging *staging, struct sac_slot *ret)
{
    int found;

    pthread_mutex_lock(&staging->lock);
    while ((found = find_share(staging)) == -1)
        pthread_cond_wait(&staging->changed, &staging->lock);
    if (found >= 0) {
        struct share *share = &staging->shares[found];
        *ret = (struct sac_slot){share->free_slots[--share->free_count], found};
        staging->next = found + 1;
    }
    pthread_mutex_unlock(&staging->lock);
    return found >= 0;
}

void sac_staging_give(struct sac_staging *staging, struct sac_slot *slot)
{
    struct share *share = &staging->shares[slot->share];

    pthread_mutex_lock(&staging->lock);
    share->free_slots[share->free_count++] = slot->pixels;
    if (share->free_count == 1 || !share->open) /* somebody may wait for one, or for all */
        pthread_cond_broadcast(&staging->changed);
    pthread_mutex_unlock(&staging->lock);
    slot->pixels = NULL;
}
