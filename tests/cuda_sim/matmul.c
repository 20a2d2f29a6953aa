#include "matmul.h"

#include "number.h"

#include <stdlib.h>
#include <string.h>

void sim_matrix_transpose(struct sim_matrix *matrix)
{
    struct sim_matrix old = *matrix;

    matrix->rows = old.columns;
    matrix->columns = old.rows;
    matrix->row = old.column;
    matrix->column = old.row;
}

bool sim_matrix_type(cudaDataType_t type, enum sim_type *ret)
{
    if (type == CUDA_R_32F)
        *ret = SIM_F32;
    else if (type == CUDA_R_16F)
        *ret = SIM_F16;
    else if (type == CUDA_R_16BF && sim_arch >= 80)
        *ret = SIM_BF16;
    else
        return false;
    return true;
}

static long place(const struct sim_matrix *m, uint64_t row, uint64_t column)
{
    return (long)row * m->row + (long)column * m->column;
}

static const void *batch_of(const struct sim_matrix *m, const void *data, int batch)
{
    return (const char *)data + (long)batch * m->batch * (long)sim_type_bytes(m->type);
}

/* Floats [column][row]: the sum runs down whole columns of A. */
static float *unpack(const struct sim_matrix *m, const void *data, bool tf32)
{
    float *out = malloc((m->rows * m->columns + 1) * sizeof *out), *at = out;

    for (uint64_t j = 0; j < m->columns; j++)
        for (uint64_t i = 0; i < m->rows; i++) {
            float value = sim_load(data, m->type, place(m, i, j));

            *at++ = tf32 ? sim_round_tf32(value) : value;
        }
    return out;
}

static void store(const struct sim_matmul *p, const float *sums, int batch)
{
    void *d = (void *)batch_of(&p->d, p->data_d, batch);
    const void *c = batch_of(&p->c, p->data_c, batch);

    for (uint64_t j = 0; j < p->d.columns; j++)
        for (uint64_t i = 0; i < p->d.rows; i++) {
            float value = p->alpha * sums[j * p->d.rows + i];

            if (p->beta != 0)
                value += p->beta * sim_load(c, p->c.type, place(&p->c, i, j));
            if (p->bias)
                value += sim_load(p->bias, p->bias_type, (long)i + batch * p->bias_batch);
            if (p->relu && value < 0)
                value = 0;
            sim_store(d, p->d.type, place(&p->d, i, j), value);
        }
}

static void run_batch(const struct sim_matmul *p, int batch)
{
    uint64_t m = p->d.rows, n = p->d.columns, k = p->a.columns;
    float *a = unpack(&p->a, batch_of(&p->a, p->data_a, batch), p->tf32);
    float *b = unpack(&p->b, batch_of(&p->b, p->data_b, batch), p->tf32);
    float *sums = calloc(m * n + 1, sizeof *sums);

    for (uint64_t l = 0; l < k; l++)
        for (uint64_t j = 0; j < n; j++)
            sim_axpy(sums + j * m, b[j * k + l], a + l * m, (int)m);
    store(p, sums, batch);
    free(a);
    free(b);
    free(sums);
}

static void run_matmul(void *arg)
{
    const struct sim_matmul *p = arg;

    if (p->workspace_bytes > 0)
        memset(p->workspace, 0xff, p->workspace_bytes);
    for (int i = 0; i < p->d.batches; i++)
        run_batch(p, i);
}

static void touch(struct sim_op *op, const char *what, const struct sim_matrix *m, const void *data,
                  bool write)
{
    size_t bytes = sim_type_bytes(m->type);
    bool down = m->row <= m->column; /* the shorter step first */
    size_t line = down ? m->rows : m->columns, lines = down ? m->columns : m->rows;
    size_t step = (size_t)(down ? m->row : m->column) * bytes;
    size_t far = (size_t)(down ? m->column : m->row) * bytes;
    struct sim_access access = {.what = what, .data = data, .write = write, .run = line * bytes};

    if (step != bytes && line > 1) { /* no order of the API does this, but for one line */
        access.run = (line - 1) * step + bytes;
    }
    access.dim[0] = (size_t)m->batches;
    access.stride[0] = (size_t)m->batch * bytes;
    if (lines > 1 && far == access.run) {
        access.run *= lines;
    } else {
        access.dim[1] = lines;
        access.stride[1] = far;
    }
    op->access[op->accesses++] = access;
}

cudaError_t sim_matmul_submit(const char *call, const struct sim_handle *handle,
                              const struct sim_matmul *p)
{
    struct sim_op op = {.call = call, .run = run_matmul, .free = free};

    op.arg = malloc(sizeof *p);
    memcpy(op.arg, p, sizeof *p);
    touch(&op, "A", &p->a, p->data_a, false);
    touch(&op, "B", &p->b, p->data_b, false);
    if (p->beta != 0)
        touch(&op, "C", &p->c, p->data_c, false);
    if (p->bias)
        op.access[op.accesses++] = (struct sim_access){
            .what = "bias", .data = p->bias, .run = p->d.rows * sim_type_bytes(p->bias_type)};
    touch(&op, "D", &p->d, p->data_d, true);
    if (p->workspace_bytes > 0)
        op.access[op.accesses++] = (struct sim_access){
            .what = "workspace", .data = p->workspace, .run = p->workspace_bytes, .write = true};
    return sim_submit_for(handle, &op);
}
