#include "internal.h"

#include <stdlib.h>
#include <string.h>

/* Freed memory is kept for a while and not handed out again, so that an
 * operation on it is found. */
enum { QUARANTINE_MAX = 64, ALIGNMENT = 256, PATTERN = 0xff };
static const size_t quarantine_bytes_max = 64u << 20;

static struct sim_allocation *allocations; /* the live ones and the kept ones */
static size_t kept, kept_bytes;
static uint64_t serials;

struct sim_allocation *sim_memory_find(const void *data)
{
    struct sim_allocation *freed = NULL;

    for (struct sim_allocation *a = allocations; a; a = a->next)
        if ((const char *)data >= a->data && (const char *)data < a->data + a->bytes) {
            if (!a->freed)
                return a;
            freed = a;
        }
    return freed;
}

struct sim_allocation *sim_memory_check(const char *call, const struct sim_access *access,
                                        int device)
{
    struct sim_allocation *a = sim_memory_find(access->data);
    size_t left, extent = sim_access_extent(access);

    if (!a) {
        sim_report(call, "'%s' at %p is in no allocation of the device or pinned memory",
                   access->what, access->data);
        return NULL;
    }
    if (a->freed) {
        sim_report(call, "'%s' at %p is in memory that was freed", access->what, access->data);
        return NULL;
    }
    left = a->bytes - (size_t)((const char *)access->data - a->data);
    if (extent > left) {
        sim_report(call, "'%s' takes %zu bytes, of which the allocation of %zu has %zu left",
                   access->what, extent, a->bytes, left);
        return NULL;
    }
    if (a->device >= 0 && a->device != device && !access->any_device) {
        sim_report(call, "'%s' is on device %d, and the stream on device %d", access->what,
                   a->device, device);
        return NULL;
    }
    return a;
}

static struct sim_allocation *take(size_t bytes, int device)
{
    struct sim_allocation *a = calloc(1, sizeof *a);
    void *data = NULL;

    if (!a || posix_memalign(&data, ALIGNMENT, bytes) != 0) {
        free(a);
        return NULL;
    }
    /* All ones are NaN in every floating type: what is read before it is written shows. */
    memset(data, PATTERN, bytes);
    a->data = data;
    a->bytes = bytes;
    a->device = device;
    a->owner = device < 0 ? sim_current() : device;
    a->serial = ++serials;
    a->next = allocations;
    allocations = a;
    return a;
}

static void drop(struct sim_allocation **at)
{
    struct sim_allocation *a = *at;

    *at = a->next;
    if (a->freed) {
        kept--;
        kept_bytes -= a->bytes;
    }
    sim_history_free(&a->history);
    free(a->data);
    free(a);
}

static void drop_oldest_kept(void)
{
    struct sim_allocation **oldest = NULL;

    for (struct sim_allocation **at = &allocations; *at; at = &(*at)->next)
        if ((*at)->freed && (!oldest || (*at)->serial < (*oldest)->serial))
            oldest = at;
    if (oldest)
        drop(oldest);
}

static void give_back(struct sim_allocation *a)
{
    memset(a->data, PATTERN, a->bytes);
    a->freed = true;
    a->serial = ++serials; /* the order of freeing */
    sim_history_free(&a->history);
    kept++;
    kept_bytes += a->bytes;
    while (kept > QUARANTINE_MAX || (kept > 1 && kept_bytes > quarantine_bytes_max))
        drop_oldest_kept();
}

static size_t bytes_in_all(const struct sim_device *d)
{
    return d->room_kib > 0 ? (size_t)d->room_kib << 10 : d->memory_bytes;
}

static size_t bytes_left(const struct sim_device *d)
{
    size_t total = bytes_in_all(d);

    return total > d->used_bytes ? total - d->used_bytes : 0;
}

static cudaError_t allocate(void **ret, size_t bytes, int device)
{
    struct sim_device *d = &sim_device[device];
    struct sim_allocation *a;

    if ((long)d->allocations++ == d->oom_at || bytes > bytes_left(d))
        return cudaErrorMemoryAllocation;
    a = take(bytes, device);
    if (!a)
        return cudaErrorMemoryAllocation;
    d->used_bytes += bytes;
    sim_counts.allocations++;
    *ret = a->data;
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **ret, size_t bytes)
{
    cudaError_t error;

    if (!ret)
        return sim_error(cudaErrorInvalidValue);
    sim_enter();
    error = sim_call(sim_current());
    if (error == cudaSuccess)
        error = sim_capture_forbids("cudaMalloc");
    if (error == cudaSuccess) {
        *ret = NULL;
        if (bytes > 0)
            error = allocate(ret, bytes, sim_current());
    }
    sim_leave();
    return sim_error(error);
}

cudaError_t cudaHostAlloc(void **ret, size_t bytes, unsigned flags)
{
    struct sim_allocation *a = NULL;
    cudaError_t error;

    (void)flags;
    if (!ret)
        return sim_error(cudaErrorInvalidValue);
    sim_enter();
    error = sim_call(sim_current());
    if (error == cudaSuccess)
        error = sim_capture_forbids("cudaHostAlloc");
    if (error == cudaSuccess) {
        *ret = NULL;
        if (bytes > 0 && !(a = take(bytes, -1)))
            error = cudaErrorMemoryAllocation;
    }
    if (a) {
        *ret = a->data;
        sim_counts.pinned++;
    }
    sim_leave();
    return sim_error(error);
}

/* The allocation that starts at `data`, for its end. Holds the lock. */
static struct sim_allocation *allocation_to_free(const char *call, const void *data, bool pinned)
{
    struct sim_allocation *a = sim_memory_find(data);

    if (!a)
        sim_report(call, "%p is no allocation", data);
    else if (a->freed)
        sim_report(call, "%p was freed before", data);
    else if (a->data != (const char *)data)
        sim_report(call, "%p is inside an allocation, not its start", data);
    else if ((a->device < 0) != pinned)
        sim_report(call, "%p is %s memory", data, pinned ? "device" : "pinned host");
    else
        return a;
    return NULL;
}

/* As CUDA's, it waits for all that the device has to do. */
cudaError_t cudaFree(void *data)
{
    struct sim_allocation *a;
    cudaError_t error;

    if (!data)
        return cudaSuccess;
    sim_enter();
    a = allocation_to_free("cudaFree", data, false);
    error = a ? sim_call(a->device) : cudaErrorInvalidValue;
    if (a && error == cudaSuccess)
        error = sim_capture_forbids("cudaFree");
    if (a && error != cudaErrorStreamCaptureUnsupported) {
        sim_device_drain(a->device);
        sim_device[a->device].used_bytes -= a->bytes;
        sim_counts.allocations--;
        give_back(a);
    }
    sim_leave();
    return sim_error(error);
}

cudaError_t cudaFreeHost(void *data)
{
    struct sim_allocation *a;
    cudaError_t error = cudaErrorInvalidValue;

    if (!data)
        return cudaSuccess;
    sim_enter();
    a = allocation_to_free("cudaFreeHost", data, true);
    if (a)
        error = sim_capture_forbids("cudaFreeHost");
    if (a && error == cudaSuccess) {
        for (int i = 0; i < sim_devices; i++)
            sim_device_drain(i);
        sim_counts.pinned--;
        give_back(a);
    }
    sim_leave();
    return sim_error(error);
}

/* All of a device's memory at once, and what its context pinned, as cudaDeviceReset
 * takes it. */
void sim_memory_reset(int device)
{
    for (struct sim_allocation **at = &allocations; *at;) {
        struct sim_allocation *a = *at;

        if (a->owner != device || a->freed) {
            at = &a->next;
            continue;
        }
        if (a->device < 0)
            sim_counts.pinned--;
        else
            sim_counts.allocations--;
        drop(at);
    }
    sim_device[device].used_bytes = 0;
}

cudaError_t cudaMemGetInfo(size_t *ret_free, size_t *ret_total)
{
    struct sim_device *d;
    cudaError_t error;

    sim_enter();
    d = &sim_device[sim_current()];
    error = sim_call(sim_current());
    *ret_free = bytes_left(d);
    *ret_total = bytes_in_all(d);
    sim_leave();
    return sim_error(error);
}

struct copy {
    void *dst;
    const void *src;
    void *staged; /* a pageable source, as it was at the call */
    size_t bytes;
};

static void run_copy(void *arg)
{
    const struct copy *c = arg;

    memmove(c->dst, c->staged ? c->staged : c->src, c->bytes);
}

static void free_copy(void *arg)
{
    struct copy *c = arg;

    free(c->staged);
    free(c);
}

static bool is_device(const struct sim_allocation *a)
{
    return a && a->device >= 0;
}

/* Whether the direction says what the two addresses are. */
static cudaError_t check_kind(enum cudaMemcpyKind kind, const struct sim_allocation *dst,
                              const struct sim_allocation *src)
{
    bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;

    if (kind == cudaMemcpyDefault)
        return cudaSuccess;
    if (kind != cudaMemcpyHostToHost && !to_device && !from_device)
        return cudaErrorInvalidMemcpyDirection;
    return to_device == is_device(dst) && from_device == is_device(src) ? cudaSuccess
                                                                        : cudaErrorInvalidValue;
}

static void add_access(struct sim_op *op, const struct sim_allocation *a, const char *what,
                       const void *data, size_t bytes, bool write)
{
    if (a)
        op->access[op->accesses++] = (struct sim_access){
            .what = what, .data = data, .run = bytes, .write = write, .any_device = true};
}

/* Pageable sources are staged at the call, as CUDA does; `*ret_wait` tells that
 * the destination is pageable, for which CUDA waits. */
static cudaError_t prepare_copy(const char *call, struct copy *copy, struct sim_op *op,
                                enum cudaMemcpyKind kind, bool async, bool *ret_wait)
{
    const struct sim_allocation *dst, *src;
    cudaError_t error;

    sim_enter();
    dst = sim_memory_find(copy->dst);
    src = sim_memory_find(copy->src);
    error = check_kind(kind, dst, src);
    if (error != cudaSuccess)
        sim_report(call,
                   "the direction (%d) does not fit: the destination is %s memory and the "
                   "source %s",
                   (int)kind, is_device(dst) ? "device" : "host",
                   is_device(src) ? "device" : "host");
    if (async && !sim_pageable && !dst)
        sim_report(call, "the destination is pageable memory: the copy would not be asynchronous");
    if (async && !sim_pageable && !src)
        sim_report(call, "the source is pageable memory: the copy would not be asynchronous");
    add_access(op, src, "source", copy->src, copy->bytes, false);
    add_access(op, dst, "destination", copy->dst, copy->bytes, true);
    *ret_wait = !dst || !async;
    sim_leave();
    if (error == cudaSuccess && !src) {
        copy->staged = malloc(copy->bytes);
        memcpy(copy->staged, copy->src, copy->bytes);
    }
    return error;
}

static cudaError_t copy_memory(const char *call, void *dst, const void *src, size_t bytes,
                               enum cudaMemcpyKind kind, cudaStream_t stream, bool async)
{
    struct copy *copy;
    struct sim_op op = {.call = call, .run = run_copy, .free = free_copy};
    cudaError_t error;
    bool wait;

    if (bytes == 0)
        return cudaSuccess;
    if (!dst || !src)
        return sim_error(cudaErrorInvalidValue);
    copy = calloc(1, sizeof *copy);
    *copy = (struct copy){dst, src, NULL, bytes};
    op.arg = copy;
    error = prepare_copy(call, copy, &op, kind, async, &wait);
    if (error != cudaSuccess) {
        free_copy(copy);
        return sim_error(error);
    }
    error = sim_submit(stream, &op);
    if (error == cudaSuccess && wait)
        error = cudaStreamSynchronize(stream);
    return sim_error(error);
}

cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    return copy_memory("cudaMemcpyAsync", dst, src, bytes, kind, stream, true);
}

cudaError_t cudaMemcpy(void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind)
{
    return copy_memory("cudaMemcpy", dst, src, bytes, kind, NULL, false);
}

struct fill {
    void *dst;
    int value;
    size_t bytes;
};

static void run_fill(void *arg)
{
    const struct fill *f = arg;

    memset(f->dst, f->value, f->bytes);
}

cudaError_t cudaMemsetAsync(void *dst, int value, size_t bytes, cudaStream_t stream)
{
    struct fill *fill;
    struct sim_op op = {.call = "cudaMemsetAsync", .run = run_fill, .free = free, .accesses = 1};

    if (bytes == 0)
        return cudaSuccess;
    fill = malloc(sizeof *fill);
    *fill = (struct fill){dst, value, bytes};
    op.arg = fill;
    op.access[0] =
        (struct sim_access){.what = "destination", .data = dst, .run = bytes, .write = true};
    return sim_error(sim_submit(stream, &op));
}
