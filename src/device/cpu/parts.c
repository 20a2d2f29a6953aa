#include "device/cpu/parts.h"

#include <string.h>

#include "base/team.h"

/* Below this, waking a thread costs as much as it saves. */
enum { ELEMENTS_MIN = 1 << 14, TENSORS_MAX = 24 };

int sac_cpu_threads_for(const struct sac_op *op, int64_t elements)
{
    int64_t worth = elements / ELEMENTS_MIN;

    return op->threads <= 1 || worth <= 1 ? 1 : (int)(worth < op->threads ? worth : op->threads);
}

struct job {
    const struct sac_op *op;
    void (*run)(const struct sac_op *part);
};

/* Pictures first … end of `count` tensors, into `out`; returns what is behind them. */
static struct sac_tensor *cut(const struct sac_tensor *from, int count, int64_t first, int64_t end,
                              struct sac_tensor *out)
{
    for (int i = 0; i < count; i++) {
        int64_t skipped = first * from[i].stride[0] * (int64_t)sac_type_bytes(from[i].form.type);
        out[i] = from[i];
        out[i].shape.dim[0] = end - first;
        if (out[i].data)
            out[i].data = (char *)out[i].data + skipped;
    }
    return out + count;
}

static void part(void *context, int64_t first, int64_t end)
{
    const struct job *job = context;
    const struct sac_op *op = job->op;
    struct sac_op some = *op;
    struct sac_tensor tensors[2 * TENSORS_MAX], *at = tensors;

    some.first = first;
    if (op->saved) /* a byte a result */
        some.saved = (char *)op->saved +
                     first * (sac_shape_count(&op->dst[0].shape) / op->dst[0].shape.dim[0]);
    some.src = at;
    at = cut(op->src, op->src_count, first, end, at);
    some.dst = at;
    at = cut(op->dst, op->dst_count, first, end, at);
    if (op->src_grad) {
        some.src_grad = at;
        at = cut(op->src_grad, op->src_count, first, end, at);
        some.dst_grad = at;
        cut(op->dst_grad, op->dst_count, first, end, at);
    }
    job->run(&some);
}

static bool has_pictures(const struct sac_tensor *t, int count, int64_t pictures)
{
    for (int i = 0; i < count; i++)
        if (t[i].shape.rank < 1 || t[i].shape.dim[0] != pictures)
            return false;
    return true;
}

/* Along axis 0, pictures are what is moved. */
static bool moves_pictures(const struct sac_op *op)
{
    return (op->kind == SAC_OP_CONCAT || op->kind == SAC_OP_SLICE || op->kind == SAC_OP_SOFTMAX) &&
           op->param.concat.axis == 0;
}

void sac_cpu_by_pictures(const struct sac_op *op, void (*run)(const struct sac_op *part))
{
    int threads = op->threads > 1 ? sac_cpu_threads_for(op, sac_shape_count(&op->src[0].shape)) : 1;
    struct job job = {op, run};

    if (threads > 1 && op->src_count + op->dst_count <= TENSORS_MAX && !moves_pictures(op) &&
        has_pictures(op->src, op->src_count, op->src[0].shape.dim[0]) &&
        has_pictures(op->dst, op->dst_count, op->src[0].shape.dim[0]))
        sac_team_run(threads, op->src[0].shape.dim[0], part, &job);
    else
        run(op);
}
