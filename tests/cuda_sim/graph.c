#include "internal.h"

#include <stdlib.h>

/* A graph holds its operations in the order in which they were recorded, which
 * is one that its edges allow. Graphs and what is instantiated from them share
 * the operations by a count. */
struct nodes {
    struct sim_op *op;
    size_t count, room;
    int refs;
};

struct CUgraph_st {
    struct nodes *nodes;
    int device;
};

struct CUgraphExec_st {
    struct nodes *nodes;
    int device;
    int flying; /* launches that are not done */
    uint64_t launched, done;
    struct sim_clock clock; /* of the last launch: the next comes after it */
};

static struct sim_capture *captures;
static uint64_t capture_serials;

static void nodes_unref(struct nodes *nodes)
{
    if (--nodes->refs > 0)
        return;
    for (size_t i = 0; i < nodes->count; i++)
        if (nodes->op[i].free)
            nodes->op[i].free(nodes->op[i].arg);
    free(nodes->op);
    free(nodes);
}

static void nodes_add(struct nodes *nodes, const struct sim_op *op)
{
    if (nodes->count == nodes->room) {
        nodes->room = nodes->room ? 2 * nodes->room : 64;
        nodes->op = realloc(nodes->op, nodes->room * sizeof *op);
    }
    nodes->op[nodes->count++] = *op;
}

struct sim_capture *sim_capture_find(uint64_t serial)
{
    for (struct sim_capture *c = captures; c; c = c->next)
        if (c->serial == serial)
            return c;
    return NULL;
}

cudaError_t sim_capture_forbids(const char *call)
{
    for (struct sim_capture *c = captures; c; c = c->next) {
        bool ours = pthread_equal(c->thread, pthread_self());

        if (c->mode == cudaStreamCaptureModeGlobal ||
            (c->mode == cudaStreamCaptureModeThreadLocal && ours)) {
            c->invalid = true;
            sim_report(call, "not allowed while a stream is captured");
            return cudaErrorStreamCaptureUnsupported;
        }
    }
    return cudaSuccess;
}

cudaError_t sim_capture_refuse(const char *call, cudaStream_t stream)
{
    stream->capture->invalid = true;
    sim_report(call, "not allowed on a stream that is captured");
    return cudaErrorStreamCaptureUnsupported;
}

static struct sim_history *memory_of(struct sim_capture *capture, uint64_t serial)
{
    for (size_t i = 0; i < capture->memories; i++)
        if (capture->memory[i].serial == serial)
            return &capture->memory[i].history;
    capture->memory = realloc(capture->memory, (capture->memories + 1) * sizeof *capture->memory);
    capture->memory[capture->memories] = (struct sim_memory_history){.serial = serial};
    return &capture->memory[capture->memories++].history;
}

/* Inside a capture its own streams are ordered by its own clocks. */
cudaError_t sim_capture_add(cudaStream_t stream, const struct sim_op *op)
{
    struct sim_capture *capture = stream->capture;
    struct sim_op node = *op;

    if (capture->invalid)
        return cudaErrorStreamCaptureInvalidated;
    stream->capture_clock.at[stream->slot]++;
    for (int i = 0; i < op->accesses; i++) {
        const struct sim_access *access = &op->access[i];
        struct sim_allocation *a = sim_memory_check(op->call, access, stream->device);

        if (!a) {
            capture->invalid = true;
            return cudaErrorIllegalAddress;
        }
        if (!sim_order_access(memory_of(capture, a->serial), a, op->call, access, stream->slot,
                              &stream->capture_clock))
            node.run = sim_skip;
    }
    nodes_add(capture->graph->nodes, &node);
    return cudaSuccess;
}

static void graph_free(cudaGraph_t graph)
{
    nodes_unref(graph->nodes);
    free(graph);
    sim_counts.graphs--;
}

static cudaGraph_t graph_new(int device)
{
    cudaGraph_t graph = calloc(1, sizeof *graph);

    graph->nodes = calloc(1, sizeof *graph->nodes);
    graph->nodes->refs = 1;
    graph->device = device;
    sim_counts.graphs++;
    return graph;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode)
{
    cudaStream_t s;
    cudaError_t error;

    sim_enter();
    s = sim_stream_find("cudaStreamBeginCapture", stream);
    error = s ? sim_call(s->device) : cudaErrorInvalidResourceHandle;
    if (error == cudaSuccess && s->is_null)
        error = cudaErrorStreamCaptureUnsupported;
    if (error == cudaSuccess && s->capture)
        error = cudaErrorIllegalState;
    if (error == cudaSuccess) {
        struct sim_capture *capture = calloc(1, sizeof *capture);

        capture->serial = ++capture_serials;
        capture->mode = mode;
        capture->thread = pthread_self();
        capture->origin = s;
        capture->graph = graph_new(s->device);
        capture->next = captures;
        captures = capture;
        s->capture = capture;
        s->capture_clock = (struct sim_clock){0};
    }
    sim_leave();
    return sim_error(error);
}

/* Every stream that joined must have been waited for by the first one. */
static bool is_joined(const struct sim_capture *capture)
{
    for (struct CUstream_st *s = sim_streams; s; s = s->next)
        if (s->capture == capture && s != capture->origin &&
            capture->origin->capture_clock.at[s->slot] < s->capture_clock.at[s->slot])
            return false;
    return true;
}

static void capture_end(struct sim_capture *capture)
{
    struct sim_capture **at = &captures;

    for (struct CUstream_st *s = sim_streams; s; s = s->next)
        if (s->capture == capture)
            s->capture = NULL;
    while (*at != capture)
        at = &(*at)->next;
    *at = capture->next;
    for (size_t i = 0; i < capture->memories; i++)
        sim_history_free(&capture->memory[i].history);
    free(capture->memory);
    free(capture);
}

static cudaError_t end_capture(cudaStream_t stream, cudaGraph_t *ret)
{
    struct sim_capture *capture = stream->capture;
    cudaGraph_t graph;
    cudaError_t error = cudaSuccess;

    *ret = NULL;
    if (!capture)
        return cudaErrorIllegalState;
    if (capture->origin != stream)
        return cudaErrorStreamCaptureUnmatched;
    if (capture->mode != cudaStreamCaptureModeRelaxed &&
        !pthread_equal(capture->thread, pthread_self()))
        return cudaErrorStreamCaptureWrongThread;
    if (capture->invalid)
        error = cudaErrorStreamCaptureInvalidated;
    else if (!is_joined(capture)) {
        sim_report("cudaStreamEndCapture", "a stream that joined the capture was not waited for");
        error = cudaErrorStreamCaptureUnjoined;
    }
    graph = capture->graph;
    capture_end(capture);
    if (error == cudaSuccess)
        *ret = graph;
    else
        graph_free(graph);
    return error;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *ret)
{
    cudaStream_t s;
    cudaError_t error;

    sim_enter();
    s = sim_stream_find("cudaStreamEndCapture", stream);
    error = s ? end_capture(s, ret) : cudaErrorInvalidResourceHandle;
    if (error == cudaSuccess) {
        error = sim_call(s->device);
        if (error != cudaSuccess) {
            graph_free(*ret);
            *ret = NULL;
        }
    }
    sim_leave();
    return sim_error(error);
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *ret)
{
    cudaStream_t s;

    sim_enter();
    s = sim_stream_find("cudaStreamIsCapturing", stream);
    if (s)
        *ret = !s->capture           ? cudaStreamCaptureStatusNone
               : s->capture->invalid ? cudaStreamCaptureStatusInvalidated
                                     : cudaStreamCaptureStatusActive;
    sim_leave();
    return sim_error(s ? cudaSuccess : cudaErrorInvalidResourceHandle);
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *ret, cudaGraph_t graph, unsigned long long flags)
{
    cudaError_t error;

    (void)flags;
    if (!ret || !graph)
        return sim_error(cudaErrorInvalidValue);
    sim_enter();
    error = sim_call(graph->device);
    if (error == cudaSuccess) {
        cudaGraphExec_t exec = calloc(1, sizeof *exec);

        exec->nodes = graph->nodes;
        exec->nodes->refs++;
        exec->device = graph->device;
        sim_counts.graphs++;
        *ret = exec;
    }
    sim_leave();
    return sim_error(error);
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *count)
{
    if (!graph || !count || nodes)
        return sim_error(cudaErrorInvalidValue); /* only the count is told */
    sim_enter();
    *count = graph->nodes->count;
    sim_leave();
    return cudaSuccess;
}

struct flight {
    cudaGraphExec_t exec;
    struct nodes *nodes;
    uint64_t turn;
};

static void run_flight(void *arg)
{
    const struct flight *flight = arg;

    sim_enter();
    while (flight->exec->done < flight->turn)
        pthread_cond_wait(&sim_done, &sim_lock);
    sim_leave();
    for (size_t i = 0; i < flight->nodes->count; i++)
        flight->nodes->op[i].run(flight->nodes->op[i].arg);
}

/* Freed by the stream's thread, which holds the lock. */
static void free_flight(void *arg)
{
    struct flight *flight = arg;

    flight->exec->flying--;
    flight->exec->done++;
    nodes_unref(flight->nodes);
    free(flight);
}

/* Each node's memory is checked again at each launch: it may be gone by now. */
static cudaError_t launch(cudaGraphExec_t exec, cudaStream_t stream)
{
    struct flight *flight;
    struct sim_op op = {.call = "cudaGraphLaunch", .run = run_flight, .free = free_flight};
    enum sim_verdict verdict;
    cudaError_t error;

    if (exec->device != stream->device) {
        sim_report("cudaGraphLaunch", "the graph is of device %d and the stream of device %d",
                   exec->device, stream->device);
        return cudaErrorInvalidValue;
    }
    error = sim_call(stream->device);
    if (error != cudaSuccess)
        return error;
    if (stream->capture)
        return sim_capture_refuse("cudaGraphLaunch", stream);
    sim_clock_join(&stream->clock, &exec->clock);
    verdict = sim_stream_checks(stream, exec->nodes->op, exec->nodes->count);
    if (verdict == SIM_FAIL)
        return cudaErrorIllegalAddress;
    if (verdict == SIM_SKIP)
        op.run = sim_skip;
    op.firsts = exec->launched == 0 ? exec->nodes->count : 0;
    flight = malloc(sizeof *flight);
    *flight = (struct flight){exec, exec->nodes, exec->launched++};
    exec->clock = stream->clock;
    exec->flying++;
    exec->nodes->refs++;
    op.arg = flight;
    return sim_stream_enqueue(stream, &op, false);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
    cudaStream_t s;
    cudaError_t error = cudaErrorInvalidValue;

    sim_enter();
    s = sim_stream_find("cudaGraphLaunch", stream);
    if (s && exec)
        error = launch(exec, s);
    sim_leave();
    return sim_error(error);
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    if (!exec)
        return sim_error(cudaErrorInvalidValue);
    sim_enter();
    if (exec->flying > 0)
        sim_report("cudaGraphExecDestroy", "%d launches of the graph are not done", exec->flying);
    while (exec->flying > 0)
        pthread_cond_wait(&sim_done, &sim_lock);
    nodes_unref(exec->nodes);
    free(exec);
    sim_counts.graphs--;
    sim_leave();
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    if (!graph)
        return sim_error(cudaErrorInvalidValue);
    sim_enter();
    graph_free(graph);
    sim_leave();
    return cudaSuccess;
}
