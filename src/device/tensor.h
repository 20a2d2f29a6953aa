/*
 * Shapes, element types, layouts and tensors, as nets and devices speak of them.
 * A shape is always logical and in Caffe's order (N × C × H × W); the layout says
 * where the elements stand. Any thread.
 */
#ifndef SAC_DEVICE_TENSOR_H
#define SAC_DEVICE_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SAC_AXES_MAX = 8 };

struct sac_shape {
    int rank; /* 0: a scalar */
    int64_t dim[SAC_AXES_MAX];
};

enum sac_type { SAC_F32, SAC_BF16, SAC_F16, SAC_U8, SAC_S8, SAC_I32, SAC_TOPK_PAIR };

/* One entry of a top-k answer. */
struct sac_topk_pair {
    int32_t index;
    float value;
};

enum sac_layout {
    SAC_PLAIN,           /* row-major in the shape's order */
    SAC_CHANNELS_LAST,   /* axis 1 innermost: N × H × W × C; rank 3 and above */
    SAC_LAYOUT_OWN = 16, /* this and above: a device's own, opaque to others */
};

struct sac_form {
    enum sac_type type;
    int layout;
    float scale; /* U8, S8: a number is scale × what is stored; 0: it is what is stored */
};

/* A value somewhere in memory. stride[i]: elements from one index of axis i to
 * the next; it tells a view (a channel slice of a concatenation) from a whole. */
struct sac_tensor {
    struct sac_shape shape;
    struct sac_form form;
    int64_t stride[SAC_AXES_MAX];
    void *data; /* on the device */
};

size_t sac_type_bytes(enum sac_type type);
bool sac_type_is_eight(enum sac_type type); /* U8 or S8 */
const char *sac_type_name(enum sac_type type);

/* The number of elements; -1 when it does not fit or a dimension is negative. */
int64_t sac_shape_count(const struct sac_shape *shape);
/* The product of dim[first..end). */
int64_t sac_shape_count_between(const struct sac_shape *shape, int first, int end);
bool sac_shape_equal(const struct sac_shape *a, const struct sac_shape *b);
/* Equal but for leading ones: Caffe's old files say 1 × 1 × 1 × 64 for 64. */
bool sac_shape_matches(const struct sac_shape *a, const struct sac_shape *b);
/* "1 × 3 × 227 × 227"; returns `text`. */
const char *sac_shape_text(const struct sac_shape *shape, char *text, size_t size);
enum { SAC_SHAPE_TEXT = 96 };

/* A whole tensor of that shape and form (SAC_PLAIN or SAC_CHANNELS_LAST): fills
 * the strides; data stays NULL. */
struct sac_tensor sac_tensor_of(const struct sac_shape *shape, struct sac_form form);
/* The bytes that a whole tensor of the shape and type takes. */
size_t sac_tensor_bytes(const struct sac_shape *shape, enum sac_type type);

#endif
