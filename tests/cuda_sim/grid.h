/* What host_launch.h is made of, for C: a launch is a closure that is run for
 * each thread of a grid. */
#ifndef SIM_GRID_H
#define SIM_GRID_H

#include <cuda_runtime_api.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Of the kernel's thread that runs. */
extern __thread uint3 sim_thread_index, sim_block_index, sim_block_size, sim_grid_size;

/* The thread stops here until all of its block that have not returned are here. */
void sim_sync(const char *file, int line);

void *sim_shared(void); /* the launch's dynamic shared memory */

/* What the calling thread's next launch reads or writes: bytes, or a strided tensor of
 * numbers. Beyond ten a launch, it is not checked. NULL is nothing. */
void sim_launch_touches(const char *what, const void *data, size_t bytes, int write);
void sim_launch_touches_tensor(const char *what, const void *data, size_t number_bytes, int rank,
                               const size_t *dim, const size_t *stride, int write);
void sim_launch_address(const void *address); /* one that it gets */
void sim_launch_forget(void);                 /* when there was no launch after all */

/* Copies the closure; `thread` runs it for each thread. What goes wrong is the
 * calling thread's last error. `name` is a constant. */
void sim_launch(const char *name, const unsigned grid[3], const unsigned block[3],
                size_t shared_bytes, cudaStream_t stream, void (*thread)(void *closure),
                const void *closure, size_t closure_bytes);

#ifdef __cplusplus
}
#endif
#endif
