/* D = f(alpha · op(A) op(B) + beta · C + bias), any strides, on host memory. Any thread. */
#ifndef SIM_MATMUL_H
#define SIM_MATMUL_H

#include "conv.h"
#include "internal.h"

#include <library_types.h>

/* row and column are how far apart neighbours are, in numbers. */
struct sim_matrix {
    enum sim_type type;
    uint64_t rows, columns;
    long row, column;
    int batches;
    long batch;
};

struct sim_matmul {
    struct sim_matrix a, b, c, d; /* a is m × k and b is k × n: transposed already */
    const void *data_a, *data_b, *data_c;
    void *data_d;
    const void *bias; /* one number for each row of d, or NULL */
    enum sim_type bias_type;
    long bias_batch;
    bool relu, tf32;
    float alpha, beta;
    void *workspace;
    size_t workspace_bytes;
};

/* Enqueues it on the handle's stream with what it touches. */
cudaError_t sim_matmul_submit(const char *call, const struct sim_handle *handle,
                              const struct sim_matmul *matmul);
void sim_matrix_transpose(struct sim_matrix *matrix);
bool sim_matrix_type(cudaDataType_t type, enum sim_type *ret);

#endif
