#include "internal.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

struct CUstream_st *sim_streams;
static struct CUevent_st *events;
static struct sim_clock host_clock;       /* what the host has waited for */
static uint32_t slot_at[SIM_STREAMS_MAX]; /* a slot's count goes on when it is used again */
static bool slot_used[SIM_STREAMS_MAX];

static double now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void sleep_us(uint64_t us)
{
    struct timespec t = {(time_t)(us / 1000000), (long)(us % 1000000) * 1000};

    if (us > 0)
        nanosleep(&t, NULL);
}

/* With the lock held, and without it while the operation runs. */
static void run_item(cudaStream_t stream, struct sim_item *item)
{
    struct sim_device *device = &sim_device[stream->device];

    if (item->always) {
        item->op.run(item->op.arg); /* markers take the lock as it is */
        return;
    }
    double ms = device->slow_ms + device->cold_ms * (double)item->op.firsts;
    uint64_t delay = sim_delay_us() + (uint64_t)(ms * 1e3);
    bool lost = device->lost;

    sim_leave();
    if (!lost) {
        sleep_us(delay);
        item->op.run(item->op.arg);
    }
    sim_enter();
    device->operations += !lost;
}

/* The lock is held when an operation is freed: graphs count their users by it. */
static void free_item(struct sim_item *item)
{
    if (item->op.free)
        item->op.free(item->op.arg);
    free(item);
}

static void *stream_main(void *arg)
{
    cudaStream_t stream = arg;

    sim_enter();
    for (;;) {
        struct sim_item *item = stream->head;

        if (!item && stream->stop)
            break;
        if (!item) {
            pthread_cond_wait(&stream->wake, &sim_lock);
            continue;
        }
        run_item(stream, item);
        stream->head = item->next;
        if (!stream->head)
            stream->tail = &stream->head;
        free_item(item);
        stream->done++;
        pthread_cond_broadcast(&sim_done);
    }
    sim_leave();
    return NULL;
}

static cudaStream_t stream_new(int device, int priority)
{
    cudaStream_t stream = NULL;
    int slot = 0;

    while (slot < SIM_STREAMS_MAX && slot_used[slot])
        slot++;
    if (slot == SIM_STREAMS_MAX)
        return NULL;
    stream = calloc(1, sizeof *stream);
    stream->device = device;
    stream->priority = priority;
    stream->slot = slot;
    stream->clock.at[slot] = slot_at[slot];
    stream->tail = &stream->head;
    pthread_cond_init(&stream->wake, NULL);
    if (pthread_create(&stream->thread, NULL, stream_main, stream) != 0) {
        pthread_cond_destroy(&stream->wake);
        free(stream);
        return NULL;
    }
    slot_used[slot] = true;
    stream->next = sim_streams;
    sim_streams = stream;
    return stream;
}

/* Waits for what is queued; gives the lock away meanwhile. */
static void stream_free(cudaStream_t stream)
{
    struct CUstream_st **at = &sim_streams;

    while (*at != stream)
        at = &(*at)->next;
    *at = stream->next;
    stream->stop = true;
    pthread_cond_signal(&stream->wake);
    sim_leave();
    pthread_join(stream->thread, NULL);
    sim_enter();
    slot_used[stream->slot] = false;
    slot_at[stream->slot] = stream->clock.at[stream->slot];
    pthread_cond_destroy(&stream->wake);
    free(stream);
}

static cudaStream_t null_stream(int device)
{
    struct sim_device *d = &sim_device[device];

    if (!d->null_stream) {
        d->null_stream = stream_new(device, 0);
        if (d->null_stream)
            d->null_stream->is_null = true;
    }
    return d->null_stream;
}

cudaStream_t sim_stream_find(const char *call, cudaStream_t stream)
{
    if (!stream || stream == cudaStreamLegacy || stream == cudaStreamPerThread)
        return null_stream(sim_current());
    for (struct CUstream_st *s = sim_streams; s; s = s->next)
        if (s == stream)
            return s;
    sim_report(call, "%p is no stream, or was destroyed", (void *)stream);
    return NULL;
}

/* Appends to the queue; takes op->arg. Holds the lock. */
cudaError_t sim_stream_enqueue(cudaStream_t stream, const struct sim_op *op, bool always)
{
    struct sim_item *item = calloc(1, sizeof *item);

    item->op = *op;
    item->always = always;
    *stream->tail = item;
    stream->tail = &item->next;
    stream->queued++;
    pthread_cond_signal(&stream->wake);
    return cudaSuccess;
}

static void advance(cudaStream_t stream)
{
    sim_clock_join(&stream->clock, &host_clock);
    stream->clock.at[stream->slot]++;
}

static enum sim_verdict judge(cudaStream_t stream, const struct sim_op *op)
{
    enum sim_verdict verdict = SIM_RUN;

    for (int i = 0; i < op->accesses; i++) {
        const struct sim_access *access = &op->access[i];
        struct sim_allocation *a = sim_memory_check(op->call, access, stream->device);

        if (!a)
            verdict = SIM_FAIL;
        else if (!sim_order_access(&a->history, a, op->call, access, stream->slot,
                                   &stream->clock) &&
                 verdict == SIM_RUN)
            verdict = SIM_SKIP;
    }
    return verdict;
}

enum sim_verdict sim_stream_checks(cudaStream_t stream, const struct sim_op *op, size_t count)
{
    enum sim_verdict verdict = SIM_RUN;

    advance(stream);
    for (size_t i = 0; i < count; i++) {
        enum sim_verdict one = judge(stream, &op[i]);

        verdict = one > verdict ? one : verdict;
    }
    return verdict;
}

void sim_skip(void *arg)
{
    (void)arg;
}

/* FNV-1a over a kernel's name and what it touches. */
static uint64_t kind_of(const struct sim_op *op)
{
    uint64_t hash = 0xcbf29ce484222325u;

    for (const char *c = op->call; *c; c++)
        hash = (hash ^ (uint8_t)*c) * 0x100000001b3u;
    for (int i = 0; i < op->accesses; i++)
        for (int d = 0; d < 5; d++)
            hash = (hash ^ (d < 4 ? op->access[i].dim[d] : op->access[i].run)) * 0x100000001b3u;
    return hash | 1;
}

/* Nothing of its kind was launched on the device before; copies have nothing to set up. */
static bool is_first(int device, const struct sim_op *op)
{
    enum { KINDS = 4096 };
    static uint64_t seen[SIM_DEVICES_MAX][KINDS];
    uint64_t kind = kind_of(op);

    if (sim_device[device].cold_ms <= 0 || strncmp(op->call, "cudaMem", 7) == 0)
        return false;
    for (size_t i = 0, at = kind % KINDS; i < KINDS; i++, at = (at + 1) % KINDS) {
        if (seen[device][at] == kind)
            return false;
        if (seen[device][at] == 0) {
            seen[device][at] = kind;
            return true;
        }
    }
    return false;
}

/* Takes op->arg when it succeeds. */
static cudaError_t judged_enqueue(cudaStream_t stream, const struct sim_op *op)
{
    struct sim_op queued = *op;
    enum sim_verdict verdict = sim_stream_checks(stream, op, 1);

    if (verdict == SIM_FAIL)
        return cudaErrorIllegalAddress;
    if (verdict == SIM_SKIP)
        queued.run = sim_skip;
    queued.firsts = is_first(stream->device, op);
    return sim_stream_enqueue(stream, &queued, false);
}

static cudaError_t submit(cudaStream_t stream, const struct sim_op *op)
{
    cudaStream_t s = sim_stream_find(op->call, stream);
    cudaError_t error = s ? sim_call(s->device) : cudaErrorInvalidResourceHandle;

    if (error != cudaSuccess)
        return error;
    if (s->device != sim_current()) {
        sim_report(op->call, "the stream is of device %d and the thread's device is %d", s->device,
                   sim_current());
        return cudaErrorInvalidResourceHandle;
    }
    if (s->capture)
        return sim_capture_add(s, op);
    if (s->is_null)
        error = sim_capture_forbids(op->call);
    if (error != cudaSuccess)
        return error;
    return judged_enqueue(s, op);
}

cudaError_t sim_submit(cudaStream_t stream, const struct sim_op *op)
{
    cudaError_t error;

    sim_enter();
    error = submit(stream, op);
    if (error != cudaSuccess && op->free)
        op->free(op->arg);
    sim_leave();
    return error;
}

void sim_stream_drain(cudaStream_t stream)
{
    uint64_t until = stream->queued;
    struct sim_clock clock = stream->clock;

    while (stream->done < until)
        pthread_cond_wait(&sim_done, &sim_lock);
    sim_clock_join(&host_clock, &clock);
}

static bool device_works(int device)
{
    for (struct CUstream_st *s = sim_streams; s; s = s->next)
        if (s->device == device && s->done < s->queued)
            return true;
    return false;
}

/* Streams may come and go while the lock is given away: none is held on to. */
void sim_device_drain(int device)
{
    while (device_works(device))
        pthread_cond_wait(&sim_done, &sim_lock);
    for (struct CUstream_st *s = sim_streams; s; s = s->next)
        if (s->device == device)
            sim_clock_join(&host_clock, &s->clock);
}

void sim_stream_reset(int device)
{
    struct CUstream_st *s = sim_streams;

    while (s) {
        if (s->device != device) {
            s = s->next;
            continue;
        }
        sim_counts.streams -= !s->is_null;
        stream_free(s);
        s = sim_streams;
    }
    sim_device[device].null_stream = NULL;
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *ret, unsigned flags, int priority)
{
    cudaError_t error;

    (void)flags; /* no stream waits for the null stream here: stricter than CUDA */
    if (!ret)
        return sim_error(cudaErrorInvalidValue);
    sim_enter();
    error = sim_call(sim_current());
    if (error == cudaSuccess) {
        *ret = stream_new(sim_current(), priority);
        sim_counts.streams += *ret != NULL;
        error = *ret ? cudaSuccess : cudaErrorMemoryAllocation;
    }
    sim_leave();
    return sim_error(error);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *ret, unsigned flags)
{
    return cudaStreamCreateWithPriority(ret, flags, 0);
}

cudaError_t cudaStreamCreate(cudaStream_t *ret)
{
    return cudaStreamCreateWithPriority(ret, cudaStreamDefault, 0);
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    if (least)
        *least = 0;
    if (greatest)
        *greatest = -5;
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    cudaStream_t s;
    cudaError_t error;

    sim_enter();
    s = stream ? sim_stream_find("cudaStreamDestroy", stream) : NULL;
    error = s && !s->is_null ? cudaSuccess : cudaErrorInvalidResourceHandle;
    if (error == cudaSuccess && s->capture)
        error = sim_capture_refuse("cudaStreamDestroy", s);
    if (error == cudaSuccess) {
        if (s->done < s->queued && !sim_device[s->device].lost)
            sim_report("cudaStreamDestroy", "the stream still has %llu operations to do",
                       (unsigned long long)(s->queued - s->done));
        sim_counts.streams--;
        stream_free(s);
        pthread_cond_broadcast(&sim_done); /* who waits for the device may go on */
    }
    sim_leave();
    return sim_error(error);
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    cudaStream_t s;
    cudaError_t error;

    sim_enter();
    s = sim_stream_find("cudaStreamSynchronize", stream);
    error = s ? sim_call(s->device) : cudaErrorInvalidResourceHandle;
    if (s && s->capture)
        error = sim_capture_refuse("cudaStreamSynchronize", s);
    if (error == cudaSuccess) {
        int device = s->device;

        sim_stream_drain(s);
        error = sim_lost(device);
    }
    sim_leave();
    return sim_error(error);
}

cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    cudaStream_t s;
    cudaError_t error;

    sim_enter();
    s = sim_stream_find("cudaStreamQuery", stream);
    error = s ? sim_call(s->device) : cudaErrorInvalidResourceHandle;
    if (s && s->capture)
        error = sim_capture_refuse("cudaStreamQuery", s);
    if (error == cudaSuccess && s->done < s->queued)
        error = cudaErrorNotReady;
    if (error == cudaSuccess)
        sim_clock_join(&host_clock, &s->clock);
    sim_leave();
    return error == cudaErrorNotReady ? error : sim_error(error);
}

cudaError_t cudaDeviceSynchronize(void)
{
    cudaError_t error;

    sim_enter();
    error = sim_call(sim_current());
    if (error == cudaSuccess)
        error = sim_capture_forbids("cudaDeviceSynchronize");
    if (error == cudaSuccess) {
        sim_device_drain(sim_current());
        error = sim_lost(sim_current());
    }
    sim_leave();
    return sim_error(error);
}

/* Takes back a lost device; the caller's handles of it are invalid after. */
cudaError_t cudaDeviceReset(void)
{
    int device = sim_current();

    sim_enter();
    sim_stream_reset(device);
    sim_memory_reset(device);
    if (!sim_device[device].gone && sim_device[device].lost) {
        sim_device[device].lost = false;
        sim_device[device].lost_at = -1;
    }
    cudaError_t error = sim_lost(device);
    sim_leave();
    return sim_error(error);
}

static void event_unref(cudaEvent_t event)
{
    if (--event->refs == 0)
        free(event);
}

static cudaEvent_t event_find(const char *call, cudaEvent_t event)
{
    for (struct CUevent_st *e = events; e; e = e->next)
        if (e == event)
            return e;
    sim_report(call, "%p is no event, or was destroyed", (void *)event);
    return NULL;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *ret, unsigned flags)
{
    cudaError_t error;

    if (!ret)
        return sim_error(cudaErrorInvalidValue);
    sim_enter();
    error = sim_call(sim_current());
    if (error == cudaSuccess) {
        struct CUevent_st *event = calloc(1, sizeof *event);

        event->flags = flags;
        event->device = sim_current();
        event->refs = 1;
        event->next = events;
        events = event;
        sim_counts.events++;
        *ret = event;
    }
    sim_leave();
    return sim_error(error);
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    struct CUevent_st **at = &events;
    cudaEvent_t e;

    sim_enter();
    e = event_find("cudaEventDestroy", event);
    if (e) {
        if (e->done < e->recorded && !sim_device[e->device].lost)
            sim_report("cudaEventDestroy", "the event is recorded and has not happened yet");
        while (*at != e)
            at = &(*at)->next;
        *at = e->next;
        sim_counts.events--;
        event_unref(e);
    }
    sim_leave();
    return sim_error(e ? cudaSuccess : cudaErrorInvalidResourceHandle);
}

struct mark {
    cudaEvent_t event;
    uint64_t count;
};

/* Markers run and are freed with the lock held. */
static void run_record(void *arg)
{
    const struct mark *mark = arg;

    mark->event->done = mark->count;
    mark->event->time_ms = now_ms();
    pthread_cond_broadcast(&sim_done);
}

static void run_wait(void *arg)
{
    const struct mark *mark = arg;

    while (mark->event->done < mark->count)
        pthread_cond_wait(&sim_done, &sim_lock);
}

static void free_mark(void *arg)
{
    struct mark *mark = arg;

    event_unref(mark->event);
    free(mark);
}

static void enqueue_mark(cudaStream_t stream, cudaEvent_t event, const char *call,
                         void (*run)(void *))
{
    struct mark *mark = malloc(sizeof *mark);
    struct sim_op op = {.call = call, .run = run, .free = free_mark, .arg = mark};

    *mark = (struct mark){event, event->recorded};
    event->refs++;
    sim_stream_enqueue(stream, &op, true);
}

static cudaError_t record(cudaStream_t stream, cudaEvent_t event)
{
    cudaError_t error = sim_call(stream->device);

    if (error != cudaSuccess)
        return error;
    if (event->device != stream->device) {
        sim_report("cudaEventRecord", "the event is of device %d and the stream of device %d",
                   event->device, stream->device);
        return cudaErrorInvalidResourceHandle;
    }
    if (stream->capture) {
        event->capture_serial = stream->capture->serial;
        event->capture_clock = stream->capture_clock;
        return cudaSuccess;
    }
    advance(stream);
    event->capture_serial = 0;
    event->clock = stream->clock;
    event->recorded++;
    enqueue_mark(stream, event, "cudaEventRecord", run_record);
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    cudaStream_t s;
    cudaEvent_t e;
    cudaError_t error = cudaErrorInvalidResourceHandle;

    sim_enter();
    s = sim_stream_find("cudaEventRecord", stream);
    e = event_find("cudaEventRecord", event);
    if (s && e)
        error = record(s, e);
    sim_leave();
    return sim_error(error);
}

/* A stream that waits for an event of a capture joins it. */
static cudaError_t wait_captured(cudaStream_t stream, cudaEvent_t event)
{
    struct sim_capture *capture = sim_capture_find(event->capture_serial);

    if (!capture || (stream->capture && stream->capture != capture)) {
        sim_report("cudaStreamWaitEvent", "the event belongs to another capture");
        if (stream->capture)
            stream->capture->invalid = true;
        return cudaErrorStreamCaptureIsolation;
    }
    if (!stream->capture) {
        stream->capture = capture;
        stream->capture_clock = (struct sim_clock){0};
    }
    sim_clock_join(&stream->capture_clock, &event->capture_clock);
    return cudaSuccess;
}

static cudaError_t wait_event(cudaStream_t stream, cudaEvent_t event)
{
    cudaError_t error = sim_call(stream->device);

    if (error != cudaSuccess)
        return error;
    if (event->capture_serial)
        return wait_captured(stream, event);
    if (event->recorded == 0)
        return cudaSuccess; /* an event that was never recorded has happened */
    if (stream->capture) {
        sim_report("cudaStreamWaitEvent", "a capturing stream waits for an event of outside");
        stream->capture->invalid = true;
        return cudaErrorStreamCaptureIsolation;
    }
    advance(stream);
    sim_clock_join(&stream->clock, &event->clock);
    enqueue_mark(stream, event, "cudaStreamWaitEvent", run_wait);
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags)
{
    cudaStream_t s;
    cudaEvent_t e;
    cudaError_t error = cudaErrorInvalidResourceHandle;

    (void)flags;
    sim_enter();
    s = sim_stream_find("cudaStreamWaitEvent", stream);
    e = event_find("cudaStreamWaitEvent", event);
    if (s && e)
        error = wait_event(s, e);
    sim_leave();
    return sim_error(error);
}

/* What query and synchronize have in common. */
static cudaError_t event_done(const char *call, cudaEvent_t event, bool wait)
{
    cudaEvent_t e = event_find(call, event);
    struct sim_clock clock;
    cudaError_t error = e ? sim_call(e->device) : cudaErrorInvalidResourceHandle;
    uint64_t until;

    if (error == cudaSuccess && e->capture_serial) {
        sim_report(call, "the event was recorded in a capture");
        if (sim_capture_find(e->capture_serial))
            sim_capture_find(e->capture_serial)->invalid = true;
        return cudaErrorCapturedEvent;
    }
    if (error == cudaSuccess)
        error = sim_capture_forbids(call);
    if (error != cudaSuccess)
        return error;
    until = e->recorded;
    clock = e->clock;
    e->refs++;
    while (wait && e->done < until)
        pthread_cond_wait(&sim_done, &sim_lock);
    if (e->done < until)
        error = cudaErrorNotReady;
    else if (sim_device[e->device].lost)
        error = sim_lost(e->device);
    else
        sim_clock_join(&host_clock, &clock);
    event_unref(e);
    return error;
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    cudaError_t error;

    sim_enter();
    error = event_done("cudaEventQuery", event, false);
    sim_leave();
    return error == cudaErrorNotReady ? error : sim_error(error);
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    cudaError_t error;

    sim_enter();
    error = event_done("cudaEventSynchronize", event, true);
    sim_leave();
    return sim_error(error);
}

static bool has_time(const struct CUevent_st *event)
{
    return event && event->recorded > 0 && !(event->flags & cudaEventDisableTiming);
}

cudaError_t cudaEventElapsedTime(float *ret_ms, cudaEvent_t start, cudaEvent_t end)
{
    cudaEvent_t s, e;
    cudaError_t error = cudaSuccess;

    sim_enter();
    s = event_find("cudaEventElapsedTime", start);
    e = event_find("cudaEventElapsedTime", end);
    if (!has_time(s) || !has_time(e))
        error = cudaErrorInvalidResourceHandle;
    else if (s->done < s->recorded || e->done < e->recorded)
        error = cudaErrorNotReady;
    else
        *ret_ms = (float)(e->time_ms - s->time_ms);
    sim_leave();
    return error == cudaErrorNotReady ? error : sim_error(error);
}

struct host_call {
    cudaHostFn_t function;
    void *data;
};

static void run_host_call(void *arg)
{
    const struct host_call *call = arg;

    call->function(call->data);
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void *data)
{
    struct host_call *call = malloc(sizeof *call);
    struct sim_op op = {
        .call = "cudaLaunchHostFunc", .run = run_host_call, .free = free, .arg = call};

    *call = (struct host_call){function, data};
    return sim_error(sim_submit(stream, &op));
}
