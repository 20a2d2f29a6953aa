/* Packed copies of weights that change: an operation's own, made from the masters on the
 * device by the forward that finds them changed. */
#include <stdlib.h>
#include <string.h>

#include "device/cuda/cuda.h"
#include "kernels/kernels.h"

struct sac_cuda_follow {
    struct sac_cuda_follow *next;
    int index;
    struct sac_cuda_packing packing;
    void *data;
};

/* The master itself will do. */
static bool is_plain(const struct sac_cuda_packing *p, const struct sac_shape *shape)
{
    int64_t at = 1;

    if (p->type != SAC_F32)
        return false;
    for (int i = 3; i >= 0; i--) {
        if (p->dim[i] != 1 && p->stride[i] != at)
            return false;
        at *= p->dim[i];
    }
    return at == sac_shape_count(shape);
}

static bool same(const struct sac_cuda_packing *a, const struct sac_cuda_packing *b)
{
    return a->type == b->type && memcmp(a->dim, b->dim, sizeof a->dim) == 0 &&
           memcmp(a->stride, b->stride, sizeof a->stride) == 0;
}

static struct sac_cuda_follow *find(const struct sac_op *op, int index,
                                    const struct sac_cuda_packing *packing)
{
    struct sac_cuda_follow *f = op->follows;

    while (f && !(f->index == index && same(&f->packing, packing)))
        f = f->next;
    return f;
}

static int add(struct sac_op *op, int index, const struct sac_cuda_packing *packing,
               struct sac_cuda_follow **ret, struct sac_error *err)
{
    struct sac_shape shape = {.rank = 4};
    struct sac_cuda_follow *f = calloc(1, sizeof *f);
    int rc = f ? 0 : sac_fail(err, SAC_ENOMEM, "%s: out of memory", op->name);

    memcpy(shape.dim, packing->dim, sizeof packing->dim);
    if (rc == 0)
        rc = sac_cuda_memory_new(&op->device->base, SAC_MEMORY_DEVICE,
                                 sac_tensor_bytes(&shape, packing->type), &f->data, err);
    if (rc != 0) {
        free(f);
        return rc;
    }
    f->index = index;
    f->packing = *packing;
    f->next = op->follows;
    op->follows = f;
    op->followed = *op->generation - 1; /* not made yet */
    *ret = f;
    return 0;
}

int sac_cuda_weight_get(struct sac_op *op, const struct sac_cuda_ask *ask, int index,
                        const struct sac_cuda_packing *packing, struct sac_store *store,
                        const void **ret, struct sac_error *err)
{
    const struct sac_constant *constant = &ask->graph->constants[ask->node->weight[index]];
    struct sac_cuda_follow *f;
    int rc = 0;

    if (!op->master[index])
        return sac_cuda_store_get(store, constant, packing, ret, err);
    if (is_plain(packing, &constant->shape)) {
        *ret = op->master[index];
        return 0;
    }
    f = find(op, index, packing);
    if (!f)
        rc = add(op, index, packing, &f, err);
    if (rc == 0)
        *ret = f->data;
    return rc;
}

static int make(const struct sac_op *op, const struct sac_cuda_follow *f, struct sac_stream *stream,
                struct sac_error *err)
{
    struct sac_kernel_copy copy = {
        .from = op->master[f->index],
        .to = f->data,
        .from_type = SAC_F32,
        .to_type = (int)f->packing.type,
        .rank = 4,
    };
    int64_t at = 1;

    for (int i = 3; i >= 0; i--) {
        copy.dim[i] = f->packing.dim[i];
        copy.from_stride[i] = f->packing.stride[i];
        copy.to_stride[i] = at;
        at *= f->packing.dim[i];
    }
    return sac_cuda_check(op->device, sac_kernel_copy(&copy, stream->stream), op->name, err);
}

int sac_cuda_follow_masters(struct sac_op *op, struct sac_stream *stream, struct sac_error *err)
{
    int rc = 0;

    if (!op->follows || op->followed == *op->generation)
        return 0;
    for (const struct sac_cuda_follow *f = op->follows; rc == 0 && f; f = f->next)
        rc = make(op, f, stream, err);
    op->followed = *op->generation;
    return rc;
}

void sac_cuda_follows_free(struct sac_op *op)
{
    while (op->follows) {
        struct sac_cuda_follow *next = op->follows->next;
        sac_cuda_memory_free(&op->device->base, SAC_MEMORY_DEVICE, op->follows->data);
        free(op->follows);
        op->follows = next;
    }
}
