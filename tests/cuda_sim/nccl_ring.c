#include "nccl_ring.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { SLICE_MS = 10 }; /* how soon a stop is noticed */

static double now_s(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

__attribute__((format(printf, 3, 4))) static enum sim_ring_result
fail(struct sim_ring *ring, enum sim_ring_result result, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(ring->why, sizeof ring->why, format, args);
    va_end(args);
    return result;
}

static int next_of(const struct sim_ring *ring)
{
    return (ring->rank + 1) % ring->world;
}

static int previous_of(const struct sim_ring *ring)
{
    return (ring->rank + ring->world - 1) % ring->world;
}

/* 0 while there is time and nobody stops it. */
static enum sim_ring_result may_wait(struct sim_ring *ring, double since, const char *what)
{
    if (atomic_load(&ring->stop))
        return SIM_RING_STOPPED;
    if (now_s() - since > ring->wait_s)
        return fail(ring, SIM_RING_LATE, "rank %d of %d waited %.0f s for %s", ring->rank,
                    ring->world, ring->wait_s, what);
    return SIM_RING_OK;
}

static enum sim_ring_result system_failure(struct sim_ring *ring, const char *what)
{
    return fail(ring, SIM_RING_SYSTEM, "%s: %s", what, strerror(errno));
}

/* An address of Linux's abstract kind is gone with the process, and unknown on other hosts:
 * theirs are files. */
static socklen_t address_of(struct sockaddr_un *address, const char id[SIM_RING_ID], int rank)
{
    const char *folder = getenv("SACCADE_SIM_RINGS");

    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (folder) {
        snprintf(address->sun_path, sizeof address->sun_path, "%s/%.*s-%d", folder, SIM_RING_ID, id,
                 rank);
        return sizeof *address;
    }
    int length = snprintf(address->sun_path + 1, sizeof address->sun_path - 1,
                          "saccade-sim-nccl-%.*s-%d", SIM_RING_ID, id, rank);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length);
}

static int new_socket(void)
{
    return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

static enum sim_ring_result listen_for_previous(struct sim_ring *ring, const char *id)
{
    struct sockaddr_un address;
    socklen_t length = address_of(&address, id, ring->rank);

    ring->listening = new_socket();
    if (ring->listening < 0)
        return system_failure(ring, "a socket");
    if (bind(ring->listening, (struct sockaddr *)&address, length) != 0)
        return errno == EADDRINUSE ? fail(ring, SIM_RING_MISFIT, "there are two of rank %d of %d",
                                          ring->rank, ring->world)
                                   : system_failure(ring, "binding a socket");
    return listen(ring->listening, 1) == 0 ? SIM_RING_OK : system_failure(ring, "listening");
}

static bool would_wait(void)
{
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

static enum sim_ring_result closed(struct sim_ring *ring, int who)
{
    return fail(ring, SIM_RING_CLOSED, "rank %d closed its connection to rank %d", who, ring->rank);
}

static enum sim_ring_result some_out(struct sim_ring *ring, const char **out, size_t *left)
{
    ssize_t done = *left ? send(ring->next, *out, *left, MSG_NOSIGNAL) : 0;

    if (done < 0)
        return would_wait() ? SIM_RING_OK : closed(ring, next_of(ring));
    *out += done;
    *left -= (size_t)done;
    return SIM_RING_OK;
}

static enum sim_ring_result some_in(struct sim_ring *ring, char **in, size_t *left)
{
    ssize_t done = *left ? recv(ring->previous, *in, *left, 0) : 0;

    if (done < 0 && would_wait())
        return SIM_RING_OK;
    if (done < 0 || (done == 0 && *left))
        return closed(ring, previous_of(ring));
    *in += done;
    *left -= (size_t)done;
    return SIM_RING_OK;
}

/* Until one of the two may go on, or a while. */
static void wait_for_either(const struct sim_ring *ring, bool out, bool in)
{
    struct pollfd ready[2] = {{.fd = out ? ring->next : -1, .events = POLLOUT},
                              {.fd = in ? ring->previous : -1, .events = POLLIN}};

    poll(ready, 2, SLICE_MS);
}

enum sim_ring_result sim_ring_exchange(struct sim_ring *ring, const void *out, size_t out_bytes,
                                       void *in, size_t in_bytes)
{
    const char *from = out;
    char *to = in;
    double since = now_s();
    enum sim_ring_result result = SIM_RING_OK;

    while (result == SIM_RING_OK && (out_bytes || in_bytes)) {
        size_t before = out_bytes + in_bytes;

        result = some_out(ring, &from, &out_bytes);
        if (result == SIM_RING_OK)
            result = some_in(ring, &to, &in_bytes);
        if (result != SIM_RING_OK || out_bytes + in_bytes < before)
            continue;
        result = may_wait(ring, since, "its neighbours");
        if (result == SIM_RING_OK)
            wait_for_either(ring, out_bytes > 0, in_bytes > 0);
    }
    return result;
}

enum sim_ring_result sim_ring_stand(struct sim_ring *ring)
{
    double since = now_s();
    enum sim_ring_result result;

    while ((result = may_wait(ring, since, "somebody to abort")) == SIM_RING_OK)
        sleep_ms(SLICE_MS);
    return result;
}

static enum sim_ring_result check_pair(struct sim_ring *ring, const struct sim_ring_rank *a,
                                       const struct sim_ring_rank *b)
{
    if (a->world != b->world)
        return fail(ring, SIM_RING_MISFIT, "rank %d says that there are %d ranks, rank %d says %d",
                    a->rank, a->world, b->rank, b->world);
    if (a->rank != b->rank && a->device == b->device && strcmp(a->host, b->host) == 0)
        return fail(ring, SIM_RING_MISFIT, "ranks %d and %d of %s have the one device %d", a->rank,
                    b->rank, a->host, a->device);
    return SIM_RING_OK;
}

/* Says who it is as soon as it is there: who misjudges the number of ranks waits for one
 * that never comes, and is told by this. */
static enum sim_ring_result try_connect(struct sim_ring *ring, const char *id,
                                        const struct sim_ring_rank *me)
{
    struct sockaddr_un address;
    socklen_t length = address_of(&address, id, next_of(ring));
    int fd = new_socket();

    if (fd < 0)
        return system_failure(ring, "a socket");
    if (connect(fd, (struct sockaddr *)&address, length) == 0) {
        ring->next = fd;
        return sim_ring_exchange(ring, me, sizeof *me, NULL, 0);
    }
    int why = errno;
    close(fd);
    errno = why;
    bool not_yet = why == ECONNREFUSED || why == ENOENT || why == EAGAIN;
    return not_yet ? SIM_RING_OK : system_failure(ring, "connecting");
}

static enum sim_ring_result try_accept(struct sim_ring *ring, const struct sim_ring_rank *me)
{
    struct sim_ring_rank other;

    ring->previous = accept4(ring->listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (ring->previous < 0)
        return would_wait() ? SIM_RING_OK : system_failure(ring, "accepting");
    enum sim_ring_result result = sim_ring_exchange(ring, NULL, 0, &other, sizeof other);
    return result == SIM_RING_OK ? check_pair(ring, me, &other) : result;
}

/* Nothing ever comes from the next rank but the end. */
static enum sim_ring_result check_next(struct sim_ring *ring)
{
    char byte;

    if (ring->next >= 0 && recv(ring->next, &byte, 1, MSG_PEEK) == 0)
        return closed(ring, next_of(ring));
    return SIM_RING_OK;
}

static enum sim_ring_result meet_neighbours(struct sim_ring *ring, const char *id,
                                            const struct sim_ring_rank *me)
{
    double since = now_s();
    enum sim_ring_result result = SIM_RING_OK;

    while (result == SIM_RING_OK && (ring->next < 0 || ring->previous < 0)) {
        if (ring->next < 0)
            result = try_connect(ring, id, me);
        if (result == SIM_RING_OK && ring->previous < 0)
            result = try_accept(ring, me);
        if (result != SIM_RING_OK || (ring->next >= 0 && ring->previous >= 0))
            continue;
        result = check_next(ring);
        if (result == SIM_RING_OK)
            result = may_wait(ring, since, "the others to join");
        sleep_ms(2);
    }
    return result;
}

/* Everybody's word goes around once. */
static enum sim_ring_result tell_all(struct sim_ring *ring, const struct sim_ring_rank *me)
{
    struct sim_ring_rank out = *me, in;
    enum sim_ring_result result = SIM_RING_OK;

    for (int step = 1; result == SIM_RING_OK && step < ring->world; step++) {
        result = sim_ring_exchange(ring, &out, sizeof out, &in, sizeof in);
        if (result == SIM_RING_OK)
            result = check_pair(ring, me, &in);
        out = in;
    }
    return result;
}

enum sim_ring_result sim_ring_join(struct sim_ring *ring, const char id[SIM_RING_ID],
                                   const struct sim_ring_rank *me)
{
    enum sim_ring_result result = SIM_RING_OK;

    if (ring->world == 1)
        return SIM_RING_OK;
    result = listen_for_previous(ring, id);
    if (result == SIM_RING_OK)
        result = meet_neighbours(ring, id, me);
    if (result == SIM_RING_OK)
        result = tell_all(ring, me);
    return result;
}

void sim_ring_stop(struct sim_ring *ring)
{
    atomic_store(&ring->stop, true);
}

static void close_socket(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void sim_ring_close(struct sim_ring *ring)
{
    close_socket(&ring->listening);
    close_socket(&ring->next);
    close_socket(&ring->previous);
}

/* ---- The passes ---------------------------------------------------------------- */

static size_t type_bytes(enum sim_ring_type type)
{
    return type == SIM_RING_F32 ? sizeof(float) : sizeof(double);
}

/* to = from + other, in this order. */
static void add(void *to, const void *from, const void *other, size_t count,
                enum sim_ring_type type)
{
    if (type == SIM_RING_F32)
        for (size_t i = 0; i < count; i++)
            ((float *)to)[i] = ((const float *)from)[i] + ((const float *)other)[i];
    else
        for (size_t i = 0; i < count; i++)
            ((double *)to)[i] = ((const double *)from)[i] + ((const double *)other)[i];
}

/* A stretch of the numbers, one part a rank. */
struct stretch {
    const char *from;
    char *to;
    size_t count, part, bytes; /* numbers in all and of a part; bytes of one */
    enum sim_ring_type type;
};

static size_t part_start(const struct stretch *s, int part)
{
    size_t at = (size_t)part * s->part;

    return at < s->count ? at : s->count;
}

static size_t part_count(const struct stretch *s, int part)
{
    return part_start(s, part + 1) - part_start(s, part);
}

static int turned(const struct sim_ring *ring, int by)
{
    return (ring->rank - by + 2 * ring->world) % ring->world;
}

/* Part c is whole at rank c after the others have added theirs, c + 1 first. What is on its
 * way lies in `to`: nobody reads `from` there again. */
static enum sim_ring_result reduce_parts(struct sim_ring *ring, const struct stretch *s,
                                         void *scratch)
{
    enum sim_ring_result result = SIM_RING_OK;

    for (int step = 1; result == SIM_RING_OK && step < ring->world; step++) {
        int sent = turned(ring, step), got = turned(ring, step + 1);
        size_t at = part_start(s, got) * s->bytes, out = part_start(s, sent) * s->bytes;

        result = sim_ring_exchange(ring, (step == 1 ? s->from : s->to) + out,
                                   part_count(s, sent) * s->bytes, scratch,
                                   part_count(s, got) * s->bytes);
        if (result == SIM_RING_OK)
            add(s->to + at, scratch, s->from + at, part_count(s, got), s->type);
    }
    return result;
}

static enum sim_ring_result gather_parts(struct sim_ring *ring, const struct stretch *s)
{
    enum sim_ring_result result = SIM_RING_OK;

    for (int step = 0; result == SIM_RING_OK && step < ring->world - 1; step++) {
        int sent = turned(ring, step), got = turned(ring, step + 1);

        result = sim_ring_exchange(
            ring, s->to + part_start(s, sent) * s->bytes, part_count(s, sent) * s->bytes,
            s->to + part_start(s, got) * s->bytes, part_count(s, got) * s->bytes);
    }
    return result;
}

static size_t part_of(size_t left, int world, size_t chunk)
{
    size_t part = (left + (size_t)world - 1) / (size_t)world;

    part = (part + 3) / 4 * 4; /* 16 bytes of floats */
    return part < chunk ? part : chunk;
}

enum sim_ring_result sim_ring_all_reduce(struct sim_ring *ring, const void *from, void *to,
                                         size_t count, enum sim_ring_type type, size_t chunk)
{
    size_t bytes = type_bytes(type), at = 0;
    char *scratch = malloc(chunk * bytes);
    enum sim_ring_result result = SIM_RING_OK;

    if (!scratch)
        result = fail(ring, SIM_RING_SYSTEM, "out of memory");
    while (result == SIM_RING_OK && at < count) {
        size_t part = part_of(count - at, ring->world, chunk);
        size_t taken =
            part * (size_t)ring->world < count - at ? part * (size_t)ring->world : count - at;
        struct stretch s = {
            (const char *)from + at * bytes, (char *)to + at * bytes, taken, part, bytes, type};

        result = reduce_parts(ring, &s, scratch);
        if (result == SIM_RING_OK)
            result = gather_parts(ring, &s);
        at += taken;
    }
    free(scratch);
    return result;
}

enum sim_ring_result sim_ring_broadcast(struct sim_ring *ring, const void *from, void *to,
                                        size_t bytes, int root, size_t chunk_bytes)
{
    bool first = ring->rank == root, last = next_of(ring) == root;
    enum sim_ring_result result = SIM_RING_OK;

    for (size_t at = 0; result == SIM_RING_OK && at < bytes; at += chunk_bytes) {
        size_t count = bytes - at < chunk_bytes ? bytes - at : chunk_bytes;
        const char *out = first ? (const char *)from + at : (char *)to + at;

        if (!first)
            result = sim_ring_exchange(ring, NULL, 0, (char *)to + at, count);
        if (result == SIM_RING_OK && !last)
            result = sim_ring_exchange(ring, out, count, NULL, 0);
    }
    return result;
}
