/* Two-dimensional convolutions on host memory: floats inside, whatever is stored
 * outside. cuDNN's descriptors become these; any thread. */
#ifndef SIM_CONV_H
#define SIM_CONV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum sim_type { SIM_F32, SIM_F16, SIM_BF16 };

/* Strides are in numbers: n, c, h, w; for filters k, c, r, s. */
struct sim_tensor {
    enum sim_type type;
    int dim[4];
    long stride[4];
};

enum sim_pass { SIM_FORWARD, SIM_BACKWARD_DATA, SIM_BACKWARD_FILTER };

struct sim_conv {
    enum sim_pass pass;
    struct sim_tensor x, w, y, z;
    int group, pad[2], stride[2], dilation[2];
    bool flip; /* a convolution as mathematics means it */
    bool tf32; /* operands are rounded */
    bool relu;
    float alpha, beta; /* out = alpha · what is computed + beta · out (z when it is there) */
    const void *in_x, *in_w, *in_y; /* two of them */
    void *out;                      /* the third */
    const void *bias, *data_z;      /* NULL: none; bias is of y's type */
    void *workspace;
    size_t workspace_bytes;
};

/* Also leaves nonsense in the workspace, as an algorithm would. */
void sim_conv_run(const struct sim_conv *conv);

size_t sim_type_bytes(enum sim_type type);
float sim_load(const void *data, enum sim_type type, long at);
void sim_store(void *data, enum sim_type type, long at, float value);

/* y[i] += a · x[i]; the loop that takes the time, free of the sanitizers. */
void sim_axpy(float *y, float a, const float *x, int count);

#endif
