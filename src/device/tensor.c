#include "device/tensor.h"

#include <stdio.h>

size_t sac_type_bytes(enum sac_type type)
{
    static const size_t bytes[] = {
        [SAC_F32] = 4,
        [SAC_BF16] = 2,
        [SAC_F16] = 2,
        [SAC_U8] = 1,
        [SAC_S8] = 1,
        [SAC_I32] = 4,
        [SAC_TOPK_PAIR] = sizeof(struct sac_topk_pair),
    };

    return (size_t)type < sizeof bytes / sizeof *bytes ? bytes[type] : 0;
}

bool sac_type_is_eight(enum sac_type type)
{
    return type == SAC_U8 || type == SAC_S8;
}

const char *sac_type_name(enum sac_type type)
{
    static const char *const names[] = {
        [SAC_F32] = "f32",
        [SAC_BF16] = "bf16",
        [SAC_F16] = "f16",
        [SAC_U8] = "u8",
        [SAC_S8] = "s8",
        [SAC_I32] = "i32",
        [SAC_TOPK_PAIR] = "top-k pair",
    };

    return (size_t)type < sizeof names / sizeof *names ? names[type] : "unknown type";
}

int64_t sac_shape_count(const struct sac_shape *shape)
{
    return sac_shape_count_between(shape, 0, shape->rank);
}

int64_t sac_shape_count_between(const struct sac_shape *shape, int first, int end)
{
    int64_t count = 1;
    bool empty = false;

    for (int i = first; i < end; i++) {
        if (shape->dim[i] < 0)
            return -1;
        if (shape->dim[i] == 0)
            empty = true;
        else if (__builtin_mul_overflow(count, shape->dim[i], &count))
            return -1;
    }
    return empty ? 0 : count;
}

bool sac_shape_equal(const struct sac_shape *a, const struct sac_shape *b)
{
    if (a->rank != b->rank)
        return false;
    for (int i = 0; i < a->rank; i++)
        if (a->dim[i] != b->dim[i])
            return false;
    return true;
}

static struct sac_shape without_leading_ones(const struct sac_shape *shape)
{
    struct sac_shape out = {0};
    int first = 0;

    while (first < shape->rank && shape->dim[first] == 1)
        first++;
    for (int i = first; i < shape->rank; i++)
        out.dim[out.rank++] = shape->dim[i];
    return out;
}

bool sac_shape_matches(const struct sac_shape *a, const struct sac_shape *b)
{
    struct sac_shape left = without_leading_ones(a), right = without_leading_ones(b);

    return sac_shape_equal(&left, &right);
}

const char *sac_shape_text(const struct sac_shape *shape, char *text, size_t size)
{
    size_t len = 0;

    if (size == 0)
        return text;
    snprintf(text, size, "%s", shape->rank == 0 ? "scalar" : "");
    for (int i = 0; i < shape->rank && len < size; i++) {
        int put =
            snprintf(text + len, size - len, "%s%lld", i ? " × " : "", (long long)shape->dim[i]);
        len += put > 0 ? (size_t)put : 0;
    }
    return text;
}

/* Axes from innermost to outermost. Below rank 3 the layouts are the same. */
static int inner_to_outer(int rank, int layout, int axis[SAC_AXES_MAX])
{
    int count = 0;
    bool last = layout == SAC_CHANNELS_LAST && rank >= 3;

    if (last)
        axis[count++] = 1;
    for (int i = rank - 1; i >= 0; i--)
        if (!(last && i == 1))
            axis[count++] = i;
    return count;
}

struct sac_tensor sac_tensor_of(const struct sac_shape *shape, struct sac_form form)
{
    struct sac_tensor out = {.shape = *shape, .form = form};
    int axis[SAC_AXES_MAX];
    int count = inner_to_outer(shape->rank, form.layout, axis);
    int64_t stride = 1;

    for (int i = 0; i < count; i++) {
        out.stride[axis[i]] = stride;
        stride *= shape->dim[axis[i]];
    }
    return out;
}

size_t sac_tensor_bytes(const struct sac_shape *shape, enum sac_type type)
{
    int64_t count = sac_shape_count(shape);
    size_t bytes;

    if (count < 0 || __builtin_mul_overflow((size_t)count, sac_type_bytes(type), &bytes))
        return SIZE_MAX;
    return bytes;
}
