/* What the simulator's own tests share: must() stops at the first CUDA error. */
#ifndef SIM_RIG_H
#define SIM_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <cuda_runtime_api.h>

#include "cuda_sim/sim.h"

#define must(call) assert_int_equal((int)(call), 0)

/* Numbers that are exact in every type: multiples of 1/8 in [-2, 2). */
static inline float rig_value(unsigned i)
{
    return (float)((int)(i * 2654435761u >> 27) - 16) / 8;
}

/* Device memory with these bytes in it. */
static inline void *rig_upload(const void *from, size_t bytes)
{
    void *to = NULL;

    must(cudaMalloc(&to, bytes));
    must(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice));
    return to;
}

static inline void rig_download(void *to, const void *from, size_t bytes)
{
    must(cudaDeviceSynchronize());
    must(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost));
}

/* Nothing of the test is left, and no check failed that it did not ask for. */
static inline int rig_nothing_left(void **state)
{
    struct sim_live live = sim_live(), none = {0};

    (void)state;
    assert_int_equal(sim_checks_failed(), 0);
    assert_memory_equal(&live, &none, sizeof live);
    return 0;
}

#endif
