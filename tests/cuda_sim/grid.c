/*
 * Kernels on the host. A stream's thread runs a launch's blocks one after
 * another. A block's threads start on one fiber, one after the other; only a
 * thread that stops at a barrier keeps its fiber, and the next starts on another.
 * So a kernel without barriers never changes fibers.
 */
#include "grid.h"

#include "internal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__)
void *__tsan_get_current_fiber(void);
void *__tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void *fiber);
void __tsan_switch_to_fiber(void *fiber, unsigned flags);
#endif

enum { STACK_BYTES = 256 << 10, THREADS_MAX = 1024, SHARED_MAX = 48 << 10, ADDRESSES_MAX = 16 };

struct fiber {
    struct fiber *next; /* in the list of idle ones */
    ucontext_t context;
    char *stack;
    size_t stack_bytes;
    void *sanitizer; /* its fake stack (ASan) or its fiber (TSan) */
};

struct waiting {
    struct fiber *fiber;
    const char *file;
    int line;
};

/* One for each thread that runs kernels. */
struct runner {
    struct fiber home, *idle, *current;
    struct waiting waiting[THREADS_MAX];
    unsigned threads, started, stopped; /* of the block; stopped at a barrier */
    unsigned thread;                    /* the one that runs */
    void (*body)(void *arg);
    void *arg;
    const char *name;
    char *shared;
    bool diverged;
};

__thread uint3 sim_thread_index, sim_block_index, sim_block_size, sim_grid_size;
static __thread struct runner *runner;
static pthread_key_t runner_key;
static pthread_once_t runner_once = PTHREAD_ONCE_INIT;

static void switch_fiber(struct fiber *from, struct fiber *to)
{
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&from->sanitizer, to->stack, to->stack_bytes);
#endif
#if defined(__SANITIZE_THREAD__)
    __tsan_switch_to_fiber(to->sanitizer, 0);
#endif
    runner->current = to;
    swapcontext(&from->context, &to->context);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(from->sanitizer, NULL, NULL);
#endif
}

static void set_thread(unsigned thread)
{
    uint3 size = sim_block_size;

    runner->thread = thread;
    sim_thread_index.x = thread % size.x;
    sim_thread_index.y = thread / size.x % size.y;
    sim_thread_index.z = thread / size.x / size.y;
}

/* Threads are started here as long as there are any; then the fiber is idle. */
static void fiber_main(void)
{
#if defined(__SANITIZE_ADDRESS__)
    const void *bottom;

    __sanitizer_finish_switch_fiber(NULL, &bottom, &runner->home.stack_bytes);
    runner->home.stack = (char *)bottom;
#endif
    for (;;) {
        struct fiber *self = runner->current;

        while (runner->started < runner->threads) {
            set_thread(runner->started++);
            runner->body(runner->arg);
        }
        self->next = runner->idle;
        runner->idle = self;
        switch_fiber(self, &runner->home);
    }
}

static void fiber_init(struct fiber *fiber)
{
    fiber->stack_bytes = STACK_BYTES;
    fiber->stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (fiber->stack == MAP_FAILED)
        abort();
    getcontext(&fiber->context);
    fiber->context.uc_stack.ss_sp = fiber->stack;
    fiber->context.uc_stack.ss_size = fiber->stack_bytes;
    makecontext(&fiber->context, fiber_main, 0);
#if defined(__SANITIZE_THREAD__)
    fiber->sanitizer = __tsan_create_fiber(0);
#endif
}

static struct fiber *fiber_take(void)
{
    struct fiber *fiber = runner->idle;

    if (fiber) {
        runner->idle = fiber->next;
        return fiber;
    }
    fiber = calloc(1, sizeof *fiber);
    fiber_init(fiber);
    return fiber;
}

static void runner_free(void *arg)
{
    struct runner *r = arg;

    while (r->idle) {
        struct fiber *fiber = r->idle;

        r->idle = fiber->next;
#if defined(__SANITIZE_THREAD__)
        __tsan_destroy_fiber(fiber->sanitizer);
#endif
        munmap(fiber->stack, fiber->stack_bytes);
        free(fiber);
    }
    free(r->shared);
    free(r);
}

static void make_key(void)
{
    pthread_key_create(&runner_key, runner_free);
}

static void runner_take(void)
{
    if (runner)
        return;
    pthread_once(&runner_once, make_key);
    runner = calloc(1, sizeof *runner);
    runner->shared = malloc(SHARED_MAX);
    pthread_setspecific(runner_key, runner);
#if defined(__SANITIZE_THREAD__)
    runner->home.sanitizer = __tsan_get_current_fiber();
#endif
}

void sim_sync(const char *file, int line)
{
    unsigned thread = runner->thread;
    struct fiber *self = runner->current;

    runner->waiting[thread] = (struct waiting){self, file, line};
    runner->stopped++;
    switch_fiber(self, &runner->home);
    set_thread(thread);
}

void *sim_shared(void)
{
    return runner->shared;
}

/* All that wait must wait at the same line. */
static void check_barrier(void)
{
    const struct waiting *first = NULL;

    for (unsigned t = 0; t < runner->threads && !runner->diverged; t++) {
        const struct waiting *w = &runner->waiting[t];

        if (w->fiber && !first)
            first = w;
        if (!w->fiber || (w->line == first->line && strcmp(w->file, first->file) == 0))
            continue;
        runner->diverged = true;
        sim_enter();
        sim_report(runner->name, "threads of a block wait at different barriers, %s:%d and %s:%d",
                   first->file, first->line, w->file, w->line);
        sim_leave();
    }
}

/* NaN in shared memory, as in device memory: it holds nothing at first. */
static void run_block(size_t shared_bytes)
{
    memset(runner->shared, 0xff, shared_bytes);
    runner->started = runner->stopped = 0;
    while (runner->started < runner->threads)
        switch_fiber(&runner->home, fiber_take());
    while (runner->stopped > 0) {
        check_barrier();
        runner->stopped = 0;
        for (unsigned t = 0; t < runner->threads; t++) {
            struct fiber *fiber = runner->waiting[t].fiber;

            runner->waiting[t].fiber = NULL;
            if (fiber)
                switch_fiber(&runner->home, fiber);
        }
    }
}

struct launch {
    const char *name;
    uint3 grid, block;
    size_t shared_bytes;
    void (*thread)(void *closure);
    uint64_t closure[]; /* aligned as any argument may be */
};

static void run_launch(void *arg)
{
    struct launch *launch = arg;

    runner_take();
    sim_grid_size = launch->grid;
    sim_block_size = launch->block;
    runner->name = launch->name;
    runner->body = launch->thread;
    runner->arg = launch->closure;
    runner->threads = launch->block.x * launch->block.y * launch->block.z;
    runner->diverged = false;
    for (unsigned z = 0; z < launch->grid.z; z++)
        for (unsigned y = 0; y < launch->grid.y; y++)
            for (unsigned x = 0; x < launch->grid.x; x++) {
                sim_block_index = (uint3){x, y, z};
                run_block(launch->shared_bytes);
            }
}

static __thread struct sim_access touched[SIM_ACCESS_MAX];
static __thread int touches;

static void touch(const struct sim_access *access)
{
    if (access->data && access->run > 0 && touches < SIM_ACCESS_MAX)
        touched[touches++] = *access;
}

void sim_launch_touches(const char *what, const void *data, size_t bytes, int write)
{
    touch(&(struct sim_access){.what = what, .data = data, .run = bytes, .write = write != 0});
}

void sim_launch_touches_tensor(const char *what, const void *data, size_t number_bytes, int rank,
                               const size_t *dim, const size_t *stride, int write)
{
    struct sim_access access =
        sim_access_of(what, data, number_bytes, rank, dim, stride, write != 0);

    touch(&access);
}

void sim_launch_forget(void)
{
    touches = 0;
}

static __thread const void *addressed[ADDRESSES_MAX];
static __thread int addresses;

void sim_launch_address(const void *address)
{
    if (addresses < ADDRESSES_MAX)
        addressed[addresses++] = address;
}

/* An address of device memory must be good. */
static bool check_address(const char *name, const void *data)
{
    struct sim_access access = {.what = "an argument", .data = data};
    struct sim_allocation *a = sim_memory_find(data);

    return !a || (!a->freed && (a->device < 0 || a->device == sim_current())) ||
           sim_memory_check(name, &access, sim_current());
}

static bool check_addresses(const char *name)
{
    bool good = true;

    sim_enter();
    for (int i = 0; i < addresses; i++)
        good = check_address(name, addressed[i]) && good;
    sim_leave();
    addresses = 0;
    return good;
}

static cudaError_t check_shape(const unsigned grid[3], const unsigned block[3], size_t shared_bytes)
{
    uint64_t threads = (uint64_t)block[0] * block[1] * block[2];
    bool blocks = grid[0] > 0 && grid[0] <= INT32_MAX && grid[1] > 0 && grid[1] <= 65535 &&
                  grid[2] > 0 && grid[2] <= 65535;

    if (!blocks || threads < 1 || threads > THREADS_MAX || block[2] > 64)
        return cudaErrorInvalidConfiguration;
    return shared_bytes <= SHARED_MAX ? cudaSuccess : cudaErrorInvalidValue;
}

void sim_launch(const char *name, const unsigned grid[3], const unsigned block[3],
                size_t shared_bytes, cudaStream_t stream, void (*thread)(void *closure),
                const void *closure, size_t closure_bytes)
{
    struct sim_op op = {.call = name, .run = run_launch, .free = free};
    struct launch *launch = calloc(1, sizeof *launch + closure_bytes + sizeof(uint64_t));
    bool good;

    memcpy(op.access, touched, sizeof touched);
    op.accesses = touches;
    touches = 0;
    if (sim_error(check_shape(grid, block, shared_bytes)) != cudaSuccess) {
        addresses = 0;
        free(launch);
        return;
    }
    *launch = (struct launch){.name = name,
                              .grid = {grid[0], grid[1], grid[2]},
                              .block = {block[0], block[1], block[2]},
                              .shared_bytes = shared_bytes,
                              .thread = thread};
    memcpy(launch->closure, closure, closure_bytes);
    good = check_addresses(name);
    op.arg = launch;
    sim_error(good ? sim_submit(stream, &op) : cudaErrorIllegalAddress);
    if (!good)
        free(launch);
}
