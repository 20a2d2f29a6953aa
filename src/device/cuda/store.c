/* Weights on the GPU: once a constant and packing, whoever asks first. */
#include "device/cuda/cuda.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bf16.h"
#include "base/f16.h"

struct entry {
    struct entry *next;
    char *name, *packing;
    void *data;
    size_t bytes;
};

struct sac_store {
    struct sac_cuda_device *device;
    pthread_mutex_t lock; /* guards the list and bytes; entries do not change */
    struct entry *entries;
    size_t bytes;
};

int sac_cuda_store_new(struct sac_device *device, struct sac_store **ret, struct sac_error *err)
{
    struct sac_store *store = calloc(1, sizeof *store);

    if (!store)
        return sac_fail(err, SAC_ENOMEM, "a weight store: out of memory");
    store->device = (struct sac_cuda_device *)device;
    pthread_mutex_init(&store->lock, NULL);
    *ret = store;
    return 0;
}

static void entry_free(struct sac_store *store, struct entry *entry)
{
    if (!entry)
        return;
    sac_cuda_memory_free(&store->device->base, SAC_MEMORY_DEVICE, entry->data);
    free(entry->name);
    free(entry->packing);
    free(entry);
}

void sac_cuda_store_free(struct sac_store *store)
{
    if (!store)
        return;
    while (store->entries) {
        struct entry *next = store->entries->next;
        entry_free(store, store->entries);
        store->entries = next;
    }
    pthread_mutex_destroy(&store->lock);
    free(store);
}

size_t sac_cuda_store_bytes(const struct sac_store *store)
{
    struct sac_store *own = (struct sac_store *)store; /* for its lock only */

    pthread_mutex_lock(&own->lock);
    size_t bytes = own->bytes;
    pthread_mutex_unlock(&own->lock);
    return bytes;
}

static void put(void *to, enum sac_type type, int64_t at, float value)
{
    if (type == SAC_F32)
        ((float *)to)[at] = value;
    else
        ((uint16_t *)to)[at] =
            type == SAC_F16 ? sac_f16_from_float(value) : sac_bf16_from_float(value);
}

static void pack(const float *from, const struct sac_cuda_packing *p, void *to)
{
    const int64_t *dim = p->dim, *stride = p->stride;
    int64_t at = 0;

    for (int64_t a = 0; a < dim[0]; a++)
        for (int64_t b = 0; b < dim[1]; b++)
            for (int64_t c = 0; c < dim[2]; c++)
                for (int64_t d = 0; d < dim[3]; d++)
                    put(to, p->type, at++,
                        from ? from[a * stride[0] + b * stride[1] + c * stride[2] + d * stride[3]]
                             : 0);
}

static size_t packed_bytes(const struct sac_cuda_packing *p)
{
    struct sac_shape shape = {4, {p->dim[0], p->dim[1], p->dim[2], p->dim[3]}};

    return sac_tensor_bytes(&shape, p->type);
}

static int fill(struct sac_store *store, struct entry *entry, const struct sac_constant *constant,
                const struct sac_cuda_packing *packing, struct sac_error *err)
{
    void *host = malloc(entry->bytes ? entry->bytes : 1);
    int rc = host ? 0 : sac_fail(err, SAC_ENOMEM, "no memory for %zu bytes", entry->bytes);

    if (rc == 0)
        rc = sac_cuda_memory_new(&store->device->base, SAC_MEMORY_DEVICE, entry->bytes,
                                 &entry->data, err);
    if (rc == 0) {
        pack(constant->data, packing, host);
        rc = sac_cuda_upload(store->device, entry->data, host, entry->bytes, err);
    }
    free(host);
    return rc;
}

static int add(struct sac_store *store, const struct sac_constant *constant, const char *key,
               const struct sac_cuda_packing *packing, struct entry **ret, struct sac_error *err)
{
    struct entry *entry = calloc(1, sizeof *entry);
    int rc = 0;

    if (entry) {
        entry->name = strdup(constant->name);
        entry->packing = strdup(key);
        entry->bytes = packed_bytes(packing);
    }
    if (!entry || !entry->name || !entry->packing || entry->bytes == SIZE_MAX)
        rc = sac_fail(err, SAC_ENOMEM, "out of memory");
    if (rc == 0)
        rc = fill(store, entry, constant, packing, err);
    if (rc != 0) {
        sac_error_prefix(err, "weights %s", constant->name);
        entry_free(store, entry);
        return rc;
    }
    entry->next = store->entries;
    store->entries = entry;
    store->bytes += entry->bytes;
    *ret = entry;
    return 0;
}

static struct entry *find(struct sac_store *store, const char *name, const char *key)
{
    for (struct entry *entry = store->entries; entry; entry = entry->next)
        if (strcmp(entry->name, name) == 0 && strcmp(entry->packing, key) == 0)
            return entry;
    return NULL;
}

int sac_cuda_store_get(struct sac_store *store, const struct sac_constant *constant,
                       const struct sac_cuda_packing *packing, const void **ret,
                       struct sac_error *err)
{
    char key[256];
    int len = snprintf(key, sizeof key, "%s", sac_type_name(packing->type)), rc = 0;

    for (int i = 0; i < 4; i++)
        len += snprintf(key + len, sizeof key - (size_t)len, " %" PRId64 "/%" PRId64,
                        packing->dim[i], packing->stride[i]);
    pthread_mutex_lock(&store->lock);
    struct entry *entry = find(store, constant->name, key);
    if (!entry)
        rc = add(store, constant, key, packing, &entry, err);
    if (rc == 0)
        *ret = entry->data;
    pthread_mutex_unlock(&store->lock);
    return rc;
}

int sac_cuda_weight_plain(struct sac_op *op, const struct sac_cuda_ask *ask, int index,
                          struct sac_store *store, struct sac_error *err)
{
    const struct sac_constant *constant = &ask->graph->constants[ask->node->weight[index]];
    struct sac_cuda_packing packing = {
        .type = SAC_F32,
        .dim = {1, 1, 1, sac_shape_count(&constant->shape)},
        .stride = {0, 0, 0, 1},
    };

    return sac_cuda_weight_get(op, ask, index, &packing, store, &op->weight[index], err);
}

int sac_cuda_weight_filter(struct sac_op *op, const struct sac_cuda_ask *ask, const int order[4],
                           struct sac_store *store, struct sac_error *err)
{
    const struct sac_constant *constant = &ask->graph->constants[ask->node->weight[0]];
    struct sac_tensor plain =
        sac_tensor_of(&constant->shape, (struct sac_form){SAC_F32, SAC_PLAIN});
    struct sac_cuda_packing packing = {.type = ask->type};

    for (int i = 0; i < 4; i++) {
        packing.dim[i] = constant->shape.dim[order[i]];
        packing.stride[i] = plain.stride[order[i]];
    }
    return sac_cuda_weight_get(op, ask, 0, &packing, store, &op->weight[0], err);
}
