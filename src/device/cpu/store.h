/*
 * Packed weights, shared by all plans and threads of a model. A packed copy is
 * known by its constant's name and by how it is packed; it is made once, by
 * whoever asks first, and lives until the store goes. Any thread.
 */
#ifndef SAC_DEVICE_CPU_STORE_H
#define SAC_DEVICE_CPU_STORE_H

#include "device/device.h"

struct sac_packed {
    const void *data; /* 64-byte aligned */
    size_t bytes;
    const void *note; /* what the packer said of it, such as a library's layout */
    size_t note_bytes;
    uint64_t generation; /* of the master that it was made from */
};

struct sac_packer {
    size_t bytes;
    const void *note;
    size_t note_bytes;
    int (*pack)(void *data, void *context, struct sac_error *err);
    void *context;
};

int sac_cpu_store_new(struct sac_device *device, struct sac_store **ret, struct sac_error *err);
void sac_cpu_store_free(struct sac_store *store);
size_t sac_cpu_store_bytes(const struct sac_store *store);

/* The copy, or NULL when nobody has made it yet. */
const struct sac_packed *sac_cpu_store_find(struct sac_store *store, const char *name,
                                            const char *packing);
/* The copy, made by `packer` unless it is there already: the caller looks at its
 * note, which may be another's. The store owns it. */
int sac_cpu_store_pack(struct sac_store *store, const char *name, const char *packing,
                       const struct sac_packer *packer, const struct sac_packed **ret,
                       struct sac_error *err);

#endif
