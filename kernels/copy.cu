/* Strided copies: concatenation, slices, other layouts and types. */
#include "kernels/element.h"
#include "kernels/kernels.h"

/* Dimensions from the innermost; in units of V along the first. */
struct walk {
    const void *from;
    void *to;
    int from_type, to_type, rank;
    bool add;
    uint32_t count, dim[SAC_AXES_MAX];
    int64_t from_stride[SAC_AXES_MAX], to_stride[SAC_AXES_MAX];
};

template <int V> SAC_KERNEL copy(struct walk w)
{
    SAC_EACH(unit, w.count)
    {
        uint32_t rest = unit;
        int64_t from = 0, to = 0;
        for (int axis = 0; axis < w.rank; axis++) {
            uint32_t index = rest % w.dim[axis];
            rest /= w.dim[axis];
            from += index * w.from_stride[axis];
            to += index * w.to_stride[axis];
        }
        sac_vector<V> value = sac_load_vector<V>(w.from, w.from_type, from), old = {};
        if (w.add)
            old = sac_load_vector<V>(w.to, w.to_type, to);
        for (int k = 0; k < V && w.add; k++)
            value.v[k] += old.v[k];
        sac_store_vector<V>(w.to, w.to_type, to, value);
    }
}

/* Axes by their stride in the target, smallest first, so that neighbouring
 * threads write side by side; those of one element left out. */
static void order_axes(const struct sac_kernel_copy *p, struct walk *w)
{
    for (int axis = p->rank - 1; axis >= 0; axis--) {
        int at = w->rank;
        if (p->dim[axis] == 1)
            continue;
        for (; at > 0 && w->to_stride[at - 1] > p->to_stride[axis]; at--) {
            w->dim[at] = w->dim[at - 1];
            w->from_stride[at] = w->from_stride[at - 1];
            w->to_stride[at] = w->to_stride[at - 1];
        }
        w->dim[at] = (uint32_t)p->dim[axis];
        w->from_stride[at] = p->from_stride[axis];
        w->to_stride[at] = p->to_stride[axis];
        w->rank++;
    }
}

/* Neighbouring axes that are one run in both tensors become one. */
static void join_axes(struct walk *w)
{
    int last = 0;

    for (int axis = 1; axis < w->rank; axis++) {
        if (w->to_stride[axis] == w->to_stride[last] * w->dim[last] &&
            w->from_stride[axis] == w->from_stride[last] * w->dim[last]) {
            w->dim[last] *= w->dim[axis];
            continue;
        }
        last++;
        w->dim[last] = w->dim[axis];
        w->from_stride[last] = w->from_stride[axis];
        w->to_stride[last] = w->to_stride[axis];
    }
    w->rank = w->rank > 0 ? last + 1 : 0;
}

static bool by_eights(const struct walk *w)
{
    if (w->rank == 0 || w->dim[0] % 8 != 0 || w->from_stride[0] != 1 || w->to_stride[0] != 1)
        return false;
    for (int axis = 1; axis < w->rank; axis++)
        if (w->from_stride[axis] % 8 != 0 || w->to_stride[axis] % 8 != 0)
            return false;
    return sac_takes_eights(w->from, w->from_type) && sac_takes_eights(w->to, w->to_type);
}

cudaError_t sac_kernel_copy(const struct sac_kernel_copy *p, cudaStream_t stream)
{
    struct walk w = {};

    w.from = p->from;
    w.to = p->to;
    w.from_type = p->from_type;
    w.to_type = p->to_type;
    w.add = p->add;
    w.count = 1;
    for (int axis = 0; axis < p->rank; axis++)
        w.count *= (uint32_t)p->dim[axis];
    if (w.count == 0)
        return cudaSuccess;
    order_axes(p, &w);
    join_axes(&w);
    if (by_eights(&w)) {
        w.count /= 8;
        w.dim[0] /= 8;
        w.from_stride[0] = w.to_stride[0] = 8;
        SAC_LAUNCH(copy<8>, sac_blocks(w.count), SAC_BLOCK, 0, stream, w);
    } else {
        SAC_LAUNCH(copy<1>, sac_blocks(w.count), SAC_BLOCK, 0, stream, w);
    }
    return cudaGetLastError();
}
