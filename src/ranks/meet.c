#include "ranks/meet.h"

#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "ranks/frames.h"
#include "ranks/thread.h"

enum {
    TICK_MS = 250,
    BEAT_MS = 1000,
    HELLO_MS = 5000, /* for a stranger to say who it is */
    GRACE_MS = 3000, /* for rank 0 to say why ranks did not meet, and for goodbyes */
    HOST = 64,
    MISSING = 8, /* ranks that a sentence names */
};

static const char magic[8] = "SACMEE2"; /* as the frames are now */

struct hello {
    char magic[8];
    char rank[12], world[12], local[12], pid[12]; /* decimal: the same on every machine */
    char host[HOST];
};

/* On rank 0 any other, elsewhere rank 0. */
struct peer {
    struct sac_frames frames;
    int rank; /* −1: it did not say */
    bool left;
    uint64_t heard_ns;
    char name[HOST + 64]; /* "rank 3 (node1, process 1234)" */
};

struct sac_meet {
    struct sac_ranks ranks;
    int local, wait_s;
    int listener; /* −1: to be made, or done with */
    void (*on_lost)(void *user, const struct sac_error *why);
    void *user;
    struct peer *peers;
    int peer_count, peer_most;
    unsigned char *id;

    bool started;
    pthread_t thread;
    pthread_mutex_t lock; /* guards the peers once the thread runs, and what follows */
    pthread_cond_t moved;
    bool stop, lost;
    struct sac_error why;
    uint64_t beat_ns;
};

static uint64_t ms_since(uint64_t ns)
{
    return (sac_clock_ns() - ns) / 1000000;
}

/* ---- Names ------------------------------------------------------------------- */

static struct hello hello_of(const struct sac_meet *m)
{
    struct hello hello = {0};

    memcpy(hello.magic, magic, sizeof magic);
    snprintf(hello.rank, sizeof hello.rank, "%d", m->ranks.rank);
    snprintf(hello.world, sizeof hello.world, "%d", m->ranks.world);
    snprintf(hello.local, sizeof hello.local, "%d", m->local);
    snprintf(hello.pid, sizeof hello.pid, "%d", (int)getpid());
    gethostname(hello.host, sizeof hello.host - 1);
    return hello;
}

static void name_peer(const struct sac_meet *m, struct peer *p, const char *where)
{
    char place[HOST + 24];
    int first = p->rank * m->local;

    snprintf(place, sizeof place, "%.*s", (int)sizeof place - 1, where);
    if (m->local == 1)
        snprintf(p->name, sizeof p->name, "rank %d (%.86s)", first, place);
    else
        snprintf(p->name, sizeof p->name, "ranks %d to %d (%.80s)", first, first + m->local - 1,
                 place);
}

/* ---- Rank 0 waits ------------------------------------------------------------ */

static void drop(struct sac_meet *m, int index)
{
    sac_frames_close(&m->peers[index].frames);
    m->peers[index] = m->peers[--m->peer_count];
}

static bool has_come(const struct sac_meet *m, int rank)
{
    for (int i = 0; i < m->peer_count; i++)
        if (m->peers[i].rank == rank)
            return true;
    return false;
}

static int come_count(const struct sac_meet *m)
{
    int count = 0;

    for (int i = 0; i < m->peer_count; i++)
        count += m->peers[i].rank >= 0;
    return count;
}

/* Whether the process fits in; one that does not is no stranger, but a mistake. */
static int check_hello(const struct sac_meet *m, const struct hello *h, struct sac_error *err)
{
    int rank = atoi(h->rank), world = atoi(h->world), local = atoi(h->local);

    if (world != m->ranks.world || local != m->local)
        return sac_fail(err, SAC_EINVAL,
                        "process %d (%.60s) is one of %d with %d ranks each, and process 0 one of "
                        "%d with %d",
                        rank, h->host, world, local, m->ranks.world, m->local);
    if (rank < 1 || rank >= world || has_come(m, rank))
        return sac_fail(err, SAC_EINVAL, "there are two processes %d, the second on %.60s", rank,
                        h->host);
    return 0;
}

/* 1: it is a stranger, or went away. */
static int greet(struct sac_meet *m, struct peer *p, struct sac_error *err)
{
    enum sac_frame_kind kind;
    const unsigned char *bytes;
    struct hello h;
    size_t size;
    char where[sizeof h.host + sizeof h.pid + 16];
    bool open = sac_frames_fill(&p->frames);

    if (p->rank >= 0 || !sac_frames_next(&p->frames, &kind, &bytes, &size))
        return !open;
    if (kind != SAC_FRAME_HELLO || size != sizeof h)
        return 1;
    memcpy(&h, bytes, sizeof h);
    if (memcmp(h.magic, magic, sizeof magic) != 0)
        return 1;
    h.rank[11] = h.world[11] = h.local[11] = h.pid[11] = h.host[HOST - 1] = 0;
    int rc = check_hello(m, &h, err);
    if (rc != 0)
        return rc;
    p->rank = atoi(h.rank);
    snprintf(where, sizeof where, "%s, process %d", h.host, atoi(h.pid));
    name_peer(m, p, where);
    return 0;
}

static void accept_one(struct sac_meet *m)
{
    int fd = accept4(m->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd < 0)
        return;
    if (m->peer_count == m->peer_most) {
        close(fd);
        return;
    }
    struct peer *p = &m->peers[m->peer_count++];
    *p = (struct peer){.rank = -1, .heard_ns = sac_clock_ns()};
    sac_frames_open(&p->frames, fd);
}

static int wait_turn(struct sac_meet *m, struct pollfd *polls, struct sac_error *err)
{
    int count = m->peer_count;

    polls[0] = (struct pollfd){.fd = m->listener, .events = POLLIN};
    for (int i = 0; i < count; i++)
        polls[i + 1] = (struct pollfd){.fd = m->peers[i].frames.fd, .events = POLLIN};
    poll(polls, (nfds_t)count + 1, TICK_MS);
    for (int i = count - 1; i >= 0; i--) {
        struct peer *p = &m->peers[i];
        int rc = polls[i + 1].revents ? greet(m, p, err) : 0;
        if (rc < 0)
            return rc;
        if (rc > 0 || (p->rank < 0 && ms_since(p->heard_ns) > HELLO_MS))
            drop(m, i);
    }
    if (polls[0].revents)
        accept_one(m);
    return 0;
}

static int tell_missing(const struct sac_meet *m, struct sac_error *err)
{
    char names[MISSING * 8] = "";
    int missing = 0;

    for (int i = 1; i < m->ranks.world; i++) {
        size_t used = strlen(names);
        if (!has_come(m, i) && missing++ < MISSING)
            snprintf(names + used, sizeof names - used, "%s%d", used ? ", " : "", i);
    }
    return sac_fail(err, SAC_EDEVICE, "%d of %d processes did not come to %s:%d within %d s: %s%s",
                    missing, m->ranks.world, m->ranks.master, m->ranks.port, m->wait_s, names,
                    missing > MISSING ? ", …" : "");
}

static void send_all(struct sac_meet *m, enum sac_frame_kind kind, const void *bytes, size_t size)
{
    for (int i = 0; i < m->peer_count; i++)
        sac_frames_send(&m->peers[i].frames, kind, bytes, size);
}

static void send_failure(struct sac_meet *m, const struct sac_error *why)
{
    unsigned char bytes[1 + SAC_ERROR_TEXT];
    size_t size = strlen(why->text);

    bytes[0] = (unsigned char)-why->code;
    memcpy(bytes + 1, why->text, size);
    send_all(m, SAC_FRAME_FAIL, bytes, 1 + size);
}

/* A code that this program does not know is that of a process that is gone. */
static struct sac_error read_failure(const unsigned char *bytes, size_t size)
{
    struct sac_error why = {0};
    bool known = size > 0 && bytes[0] >= 1 && bytes[0] <= -SAC_EDEVICE;

    sac_fail(&why, known ? -(int)bytes[0] : SAC_EDEVICE, "%.*s", size > 0 ? (int)size - 1 : 0,
             size > 0 ? (const char *)bytes + 1 : "");
    return why;
}

static void shut(struct sac_meet *m)
{
    if (m->listener >= 0)
        close(m->listener);
    m->listener = -1;
}

static int wait_for_all(struct sac_meet *m, struct sac_error *err)
{
    struct pollfd *polls = calloc((size_t)m->peer_most + 1, sizeof *polls);
    uint64_t began = sac_clock_ns();
    int rc = polls ? 0 : sac_fail(err, SAC_ENOMEM, "out of memory");

    if (rc == 0 && m->listener < 0)
        rc = sac_frames_listen(&m->listener, m->ranks.port, err);
    while (rc == 0 && come_count(m) < m->ranks.world - 1) {
        rc = wait_turn(m, polls, err);
        if (rc == 0 && ms_since(began) > (uint64_t)m->wait_s * 1000 &&
            come_count(m) < m->ranks.world - 1)
            rc = tell_missing(m, err);
    }
    for (int i = m->peer_count - 1; rc == 0 && i >= 0; i--)
        if (m->peers[i].rank < 0)
            drop(m, i);
    if (rc == 0)
        send_all(m, SAC_FRAME_ID, m->id, SAC_COMM_ID);
    else
        send_failure(m, err);
    shut(m);
    free(polls);
    return rc;
}

/* ---- The others come --------------------------------------------------------- */

/* 1: rank 0 went away, and may come again. */
static int hear_id(struct sac_meet *m, uint64_t began, struct sac_error *err)
{
    struct peer *p = &m->peers[0];
    enum sac_frame_kind kind;
    const unsigned char *bytes;
    size_t size;

    while (ms_since(began) < (uint64_t)m->wait_s * 1000 + GRACE_MS) {
        struct pollfd wait = {.fd = p->frames.fd, .events = POLLIN};
        if (poll(&wait, 1, TICK_MS) <= 0)
            continue;
        bool open = sac_frames_fill(&p->frames);
        while (sac_frames_next(&p->frames, &kind, &bytes, &size)) {
            if (kind == SAC_FRAME_FAIL) {
                struct sac_error why = read_failure(bytes, size);
                return sac_fail(err, why.code, "%s", why.text);
            }
            if (kind != SAC_FRAME_ID || size != SAC_COMM_ID)
                return sac_fail(err, SAC_EFORMAT, "%s:%d is not rank 0 of this run",
                                m->ranks.master, m->ranks.port);
            memcpy(m->id, bytes, size);
            return 0;
        }
        if (!open)
            return 1;
    }
    return sac_fail(err, SAC_EDEVICE, "rank 0 at %s:%d waits for others for more than %d s",
                    m->ranks.master, m->ranks.port, m->wait_s);
}

/* Each of its names once; on its own machine there is a way that needs none. */
static int reach_rank_0(const struct sac_meet *m, int *ret_fd, struct sac_error *err)
{
    char names[sizeof m->ranks.master], own[HOST] = "", *rest = NULL;
    int rc = SAC_EIO;

    memcpy(names, m->ranks.master, sizeof names);
    gethostname(own, sizeof own - 1);
    for (char *name = strtok_r(names, ",", &rest); rc != 0 && name;
         name = strtok_r(NULL, ",", &rest)) {
        struct sac_error none = {0};
        if (strcmp(name, own) == 0)
            rc = sac_frames_connect(ret_fd, "localhost", m->ranks.port, HELLO_MS, &none);
        *err = (struct sac_error){0};
        if (rc != 0)
            rc = sac_frames_connect(ret_fd, name, m->ranks.port, HELLO_MS, err);
    }
    return rc;
}

static int come(struct sac_meet *m, struct sac_error *err)
{
    struct hello hello = hello_of(m);
    uint64_t began = sac_clock_ns();
    struct sac_error why = {0};
    char host[sizeof m->ranks.master];
    int rc = 1, fd;

    m->peers[0] = (struct peer){.frames.fd = -1};
    m->peer_count = 1;
    snprintf(host, sizeof host, "%.*s", (int)strcspn(m->ranks.master, ","), m->ranks.master);
    name_peer(m, &m->peers[0], host);
    while (rc == 1 && ms_since(began) < (uint64_t)m->wait_s * 1000) {
        why = (struct sac_error){0};
        if (reach_rank_0(m, &fd, &why) == 0) {
            sac_frames_open(&m->peers[0].frames, fd);
            sac_frames_send(&m->peers[0].frames, SAC_FRAME_HELLO, &hello, sizeof hello);
            rc = hear_id(m, began, err);
        }
        if (rc == 1) {
            sac_frames_close(&m->peers[0].frames);
            poll(NULL, 0, TICK_MS);
        }
    }
    return rc == 1 ? sac_fail(err, SAC_EDEVICE, "rank 0 was not met at %s:%d within %d s: %s",
                              m->ranks.master, m->ranks.port, m->wait_s,
                              why.text[0] ? why.text : "it went away")
                   : rc;
}

/* ---- Watching ---------------------------------------------------------------- */

/* Under the lock, which it leaves: rank 0 tells the others. */
static void lose(struct sac_meet *m, const struct sac_error *why)
{
    if (m->lost)
        return;
    m->lost = true;
    m->why = *why;
    if (m->ranks.rank == 0)
        send_failure(m, why);
    pthread_cond_broadcast(&m->moved);
    pthread_mutex_unlock(&m->lock);
    m->on_lost(m->user, &m->why);
    pthread_mutex_lock(&m->lock);
}

static void lose_peer(struct sac_meet *m, struct peer *p, const char *how)
{
    struct sac_error why = {0};

    sac_fail(&why, SAC_EDEVICE, "%s is gone: %s", p->name, how);
    sac_frames_close(&p->frames);
    if (!p->left)
        lose(m, &why);
    pthread_cond_broadcast(&m->moved);
}

static void hear(struct sac_meet *m, struct peer *p)
{
    struct sac_error why;
    enum sac_frame_kind kind;
    const unsigned char *bytes;
    size_t size;
    bool open = sac_frames_fill(&p->frames);

    p->heard_ns = sac_clock_ns();
    while (p->frames.fd >= 0 && sac_frames_next(&p->frames, &kind, &bytes, &size)) {
        if (kind == SAC_FRAME_BYE)
            p->left = true;
        if (kind == SAC_FRAME_FAIL) {
            why = read_failure(bytes, size);
            lose(m, &why);
        }
    }
    if (!open)
        lose_peer(m, p, "its connection ended");
    if (p->left)
        pthread_cond_broadcast(&m->moved);
}

static void beat(struct sac_meet *m)
{
    char how[64];

    if (ms_since(m->beat_ns) < BEAT_MS)
        return;
    m->beat_ns = sac_clock_ns();
    snprintf(how, sizeof how, "nothing was heard of it for %d s", SAC_MEET_SILENCE_S);
    for (int i = 0; i < m->peer_count; i++) {
        struct peer *p = &m->peers[i];
        if (p->frames.fd < 0)
            continue;
        sac_frames_send(&p->frames, SAC_FRAME_BEAT, NULL, 0);
        if (!p->left && ms_since(p->heard_ns) > SAC_MEET_SILENCE_S * 1000)
            lose_peer(m, p, how);
    }
}

static void watch_turn(struct sac_meet *m, struct pollfd *polls)
{
    int count = m->peer_count; /* stays as it is */

    for (int i = 0; i < count; i++)
        polls[i] = (struct pollfd){.fd = m->peers[i].frames.fd, .events = POLLIN};
    pthread_mutex_unlock(&m->lock);
    poll(polls, (nfds_t)count, TICK_MS);
    pthread_mutex_lock(&m->lock);
    for (int i = 0; i < count; i++)
        if (polls[i].revents && m->peers[i].frames.fd >= 0)
            hear(m, &m->peers[i]);
    beat(m);
}

static void *watch(void *argument)
{
    struct sac_meet *m = argument;
    struct pollfd *polls = calloc((size_t)m->peer_most + 1, sizeof *polls);
    const struct sac_error none = {SAC_ENOMEM, "out of memory for watching the other ranks"};

    pthread_mutex_lock(&m->lock);
    for (int i = 0; i < m->peer_count; i++)
        m->peers[i].heard_ns = sac_clock_ns();
    if (!polls)
        lose(m, &none);
    while (!m->stop && polls)
        watch_turn(m, polls);
    pthread_mutex_unlock(&m->lock);
    free(polls);
    return NULL;
}

/* ---- What others call -------------------------------------------------------- */

static void add_name(char *names, size_t size, const char *name)
{
    size_t used = strlen(names);

    if (used + strlen(name) + 2 <= size)
        snprintf(names + used, size - used, "%s%s", used ? "," : "", name);
}

/* Its name, then its addresses: not every network knows names. */
static void add_addresses(char *names, size_t size)
{
    struct ifaddrs *all = NULL;
    char text[NI_MAXHOST];

    if (getifaddrs(&all) != 0)
        return;
    for (const struct ifaddrs *a = all; a; a = a->ifa_next)
        if (a->ifa_addr && a->ifa_addr->sa_family == AF_INET && (a->ifa_flags & IFF_UP) &&
            !(a->ifa_flags & IFF_LOOPBACK) &&
            getnameinfo(a->ifa_addr, sizeof(struct sockaddr_in), text, sizeof text, NULL, 0,
                        NI_NUMERICHOST) == 0)
            add_name(names, size, text);
    freeifaddrs(all);
}

int sac_meet_listen(int *ret_listener, int *ret_port, char *ret_hosts, size_t size,
                    struct sac_error *err)
{
    char own[HOST] = "";
    int rc = sac_frames_listen(ret_listener, 0, err);

    if (rc != 0)
        return rc;
    gethostname(own, sizeof own - 1);
    ret_hosts[0] = 0;
    add_name(ret_hosts, size, own);
    add_addresses(ret_hosts, size);
    *ret_port = sac_frames_port(*ret_listener);
    return 0;
}

int sac_meet_new(struct sac_meet **ret, const struct sac_meet_options *options,
                 unsigned char id[SAC_COMM_ID], struct sac_error *err)
{
    const struct sac_ranks *ranks = options->ranks;
    struct sac_meet *m;
    int rc;

    m = ranks->world <= SAC_MEET_MOST ? calloc(1, sizeof *m) : NULL;
    if (!m && options->listens)
        close(options->listener);
    if (ranks->world > SAC_MEET_MOST)
        return sac_fail(err, SAC_ELIMIT, "%d processes; at most %d can meet", ranks->world,
                        SAC_MEET_MOST);
    if (!m)
        return sac_fail(err, SAC_ENOMEM, "out of memory");
    *m = (struct sac_meet){.ranks = *ranks,
                           .local = options->local,
                           .wait_s = options->wait_s > 0 ? options->wait_s : SAC_COMM_JOIN_S,
                           .listener = options->listens ? options->listener : -1,
                           .on_lost = options->on_lost,
                           .user = options->user,
                           .id = id};
    pthread_mutex_init(&m->lock, NULL);
    pthread_cond_init(&m->moved, NULL);
    m->peer_most = ranks->rank == 0 ? 2 * ranks->world : 1; /* strangers come, too */
    m->peers = calloc((size_t)m->peer_most, sizeof *m->peers);
    rc = m->peers ? 0 : sac_fail(err, SAC_ENOMEM, "out of memory");
    if (rc == 0)
        rc = ranks->rank == 0 ? wait_for_all(m, err) : come(m, err);
    if (rc == 0)
        rc = sac_thread_start(&m->thread, watch, m, err);
    m->started = rc == 0;
    if (rc == 0)
        *ret = m;
    else
        sac_meet_free(m);
    return rc;
}

void sac_meet_free(struct sac_meet *m)
{
    if (!m)
        return;
    if (m->started) {
        pthread_mutex_lock(&m->lock);
        m->stop = true;
        pthread_mutex_unlock(&m->lock);
        pthread_join(m->thread, NULL);
    }
    shut(m);
    for (int i = 0; i < m->peer_count; i++)
        sac_frames_close(&m->peers[i].frames);
    pthread_cond_destroy(&m->moved);
    pthread_mutex_destroy(&m->lock);
    free(m->peers);
    free(m);
}

void sac_meet_tell(struct sac_meet *m, const struct sac_error *why)
{
    pthread_mutex_lock(&m->lock);
    if (!m->lost) {
        m->lost = true;
        m->why = *why;
        send_failure(m, why);
    }
    pthread_mutex_unlock(&m->lock);
}

/* Rank 0 waits for nobody but the last words; the others for rank 0. */
static bool may_leave(const struct sac_meet *m, uint64_t began)
{
    if (m->lost)
        return true;
    for (int i = 0; i < m->peer_count; i++)
        if (!m->peers[i].left && m->peers[i].frames.fd >= 0)
            return m->ranks.rank == 0 && ms_since(began) > GRACE_MS;
    return true;
}

int sac_meet_leave(struct sac_meet *m, struct sac_error *err)
{
    uint64_t began = sac_clock_ns();
    struct timespec until;
    int rc = 0;

    pthread_mutex_lock(&m->lock);
    send_all(m, SAC_FRAME_BYE, NULL, 0);
    while (!may_leave(m, began)) {
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec++;
        pthread_cond_timedwait(&m->moved, &m->lock, &until);
    }
    if (m->lost && m->ranks.rank != 0)
        rc = sac_fail(err, m->why.code, "%s", m->why.text);
    pthread_mutex_unlock(&m->lock);
    return rc;
}
