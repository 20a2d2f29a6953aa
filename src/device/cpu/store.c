#include "device/cpu/store.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct entry {
    struct entry *next;
    char *name, *packing;
    void *data, *note;
    struct sac_packed packed;
};

struct sac_store {
    pthread_mutex_t lock; /* guards the list; entries do not change */
    struct entry *entries;
    size_t bytes;
};

int sac_cpu_store_new(struct sac_device *device, struct sac_store **ret, struct sac_error *err)
{
    struct sac_store *store = calloc(1, sizeof *store);

    (void)device;
    if (!store)
        return sac_fail(err, SAC_ENOMEM, "a weight store: out of memory");
    pthread_mutex_init(&store->lock, NULL);
    *ret = store;
    return 0;
}

static void entry_free(struct entry *entry)
{
    if (!entry)
        return;
    free(entry->name);
    free(entry->packing);
    free(entry->data);
    free(entry->note);
    free(entry);
}

void sac_cpu_store_free(struct sac_store *store)
{
    if (!store)
        return;
    while (store->entries) {
        struct entry *next = store->entries->next;
        entry_free(store->entries);
        store->entries = next;
    }
    pthread_mutex_destroy(&store->lock);
    free(store);
}

size_t sac_cpu_store_bytes(const struct sac_store *store)
{
    struct sac_store *own = (struct sac_store *)store; /* for its lock only */

    pthread_mutex_lock(&own->lock);
    size_t bytes = own->bytes;
    pthread_mutex_unlock(&own->lock);
    return bytes;
}

static struct entry *find(struct sac_store *store, const char *name, const char *packing)
{
    for (struct entry *entry = store->entries; entry; entry = entry->next)
        if (strcmp(entry->name, name) == 0 && strcmp(entry->packing, packing) == 0)
            return entry;
    return NULL;
}

const struct sac_packed *sac_cpu_store_find(struct sac_store *store, const char *name,
                                            const char *packing)
{
    pthread_mutex_lock(&store->lock);
    struct entry *entry = find(store, name, packing);
    pthread_mutex_unlock(&store->lock);
    return entry ? &entry->packed : NULL;
}

static struct entry *entry_new(const char *name, const char *packing,
                               const struct sac_packer *packer)
{
    struct entry *entry = calloc(1, sizeof *entry);

    if (!entry)
        return NULL;
    entry->name = strdup(name);
    entry->packing = strdup(packing);
    entry->note = packer->note_bytes ? malloc(packer->note_bytes) : NULL;
    if (posix_memalign(&entry->data, 64, packer->bytes ? packer->bytes : 64) != 0)
        entry->data = NULL;
    if (!entry->name || !entry->packing || !entry->data || (packer->note_bytes && !entry->note)) {
        entry_free(entry);
        return NULL;
    }
    if (packer->note_bytes)
        memcpy(entry->note, packer->note, packer->note_bytes);
    entry->packed = (struct sac_packed){
        .data = entry->data,
        .bytes = packer->bytes,
        .note = entry->note,
        .note_bytes = packer->note_bytes,
    };
    return entry;
}

/* Packs under the lock: the same weights are not packed twice, and a model's
 * first plan is the only one that waits for it. */
int sac_cpu_store_pack(struct sac_store *store, const char *name, const char *packing,
                       const struct sac_packer *packer, const struct sac_packed **ret,
                       struct sac_error *err)
{
    int rc = 0;

    pthread_mutex_lock(&store->lock);
    struct entry *entry = find(store, name, packing);
    if (!entry) {
        entry = entry_new(name, packing, packer);
        rc = entry ? packer->pack(entry->data, packer->context, err)
                   : sac_fail(err, SAC_ENOMEM, "%s: no memory for %zu bytes of packed weights",
                              name, packer->bytes);
        if (rc == 0) {
            entry->next = store->entries;
            store->entries = entry;
            store->bytes += packer->bytes;
        } else {
            entry_free(entry);
        }
    }
    if (rc == 0)
        *ret = &entry->packed;
    pthread_mutex_unlock(&store->lock);
    return rc;
}
