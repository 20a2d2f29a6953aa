/* Connections: their deadlines, their opening and their end. */
#include "http/internal.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SPARE_MAX 256
/* How long bytes of a client are read away after the last answer, so that a
 * reset does not destroy the answer on its way. */
#define LINGER_NS UINT64_C(2000000000)
#define NS_PER_MS UINT64_C(1000000)

/* Deadlines. */

static bool body_is_late(const struct sac_conn *conn, uint64_t now)
{
    const struct sac_http_limits *limits = &conn->server->limits;
    const struct sac_http_request *request = conn->incoming;
    uint64_t age_ms = (now - request->body_ns) / NS_PER_MS;
    uint64_t grace_ms = (uint64_t)limits->body_deadline_ms / 3;

    return age_ms > (uint64_t)limits->body_deadline_ms ||
           (age_ms > grace_ms &&
            request->body.size < age_ms * (uint64_t)limits->body_rate_bytes_min / 1000);
}

static void check_incoming(struct sac_conn *conn, uint64_t now)
{
    uint64_t head_ns = (uint64_t)conn->server->limits.header_deadline_ms * NS_PER_MS;

    if (conn->phase == SAC_CONN_HEAD) {
        if (now - conn->incoming->started_ns <= head_ns)
            return;
        sac_conn_refuse(conn, 408, NULL, "the request's head took too long");
    } else {
        if (!body_is_late(conn, now))
            return;
        sac_conn_refuse(conn, 408, NULL, "the request's body took too long");
    }
    sac_conn_flush(conn);
}

/* Nothing moved for write_stall_ms, or all in all less than the rate that a
 * body must have. */
static bool write_is_stalled(struct sac_conn *conn, uint64_t now)
{
    const struct sac_http_limits *limits = &conn->server->limits;
    size_t queued = uv_stream_get_write_queue_size((uv_stream_t *)&conn->tcp);

    if (!conn->writing)
        return false;
    if (queued != conn->queue_size) {
        conn->queue_size = queued;
        conn->write_ns = now;
    }
    uint64_t age_ms = (now - conn->write_began_ns) / NS_PER_MS;
    uint64_t stall_ms = (uint64_t)limits->write_stall_ms;
    return now - conn->write_ns > stall_ms * NS_PER_MS ||
           (age_ms > stall_ms &&
            conn->write_size - queued < age_ms * (uint64_t)limits->body_rate_bytes_min / 1000);
}

void sac_conn_check(struct sac_conn *conn)
{
    uint64_t now = conn->server->now_ns;
    uint64_t idle_ns = (uint64_t)conn->server->limits.idle_ms * NS_PER_MS;

    if (conn->phase == SAC_CONN_LINGER) {
        if (now - conn->since_ns > LINGER_NS)
            sac_conn_close(conn);
    } else if (write_is_stalled(conn, now)) {
        sac_conn_close(conn);
    } else if (conn->incoming) {
        check_incoming(conn, now);
    } else if (!conn->first && !conn->writing && now - conn->since_ns > idle_ns) {
        sac_conn_close(conn);
    }
}

void sac_conn_drain(struct sac_conn *conn)
{
    if (conn->phase < SAC_CONN_LINGER)
        sac_conn_flush(conn); /* closes what is idle */
}

/* Opening and closing. */

static void set_peer(struct sac_conn *conn, const struct sockaddr *address)
{
    const struct in6_addr *v6 = &((const struct sockaddr_in6 *)address)->sin6_addr;

    conn->peer[0] = '\0';
    if (address->sa_family == AF_INET)
        uv_ip4_name((const struct sockaddr_in *)address, conn->peer, sizeof conn->peer);
    else if (address->sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(v6))
        uv_inet_ntop(AF_INET, v6->s6_addr + 12, conn->peer, sizeof conn->peer);
    else if (address->sa_family == AF_INET6)
        uv_ip6_name((const struct sockaddr_in6 *)address, conn->peer, sizeof conn->peer);
}

uint64_t sac_address_key(const struct sockaddr *address)
{
    uint64_t key = 0;

    if (address->sa_family == AF_INET) {
        key = ntohl(((const struct sockaddr_in *)address)->sin_addr.s_addr);
    } else if (address->sa_family == AF_INET6) {
        const struct in6_addr *v6 = &((const struct sockaddr_in6 *)address)->sin6_addr;
        const uint8_t *bytes = v6->s6_addr;
        bool mapped = IN6_IS_ADDR_V4MAPPED(v6);
        for (int i = 0; i < (mapped ? 4 : 8); i++)
            key = key << 8 | bytes[(mapped ? 12 : 0) + i];
    }
    return key;
}

static struct sac_conn **bucket(struct sac_http_server *server, uint64_t address)
{
    return &server->buckets[(address * UINT64_C(0x9e3779b97f4a7c15) >> 32) & server->bucket_mask];
}

static size_t charged(const struct sac_http_request *request)
{
    return request ? atomic_load_explicit(&request->charged, memory_order_relaxed) : 0;
}

size_t sac_conn_address_bytes(const struct sac_conn *conn)
{
    size_t bytes = 0;

    for (const struct sac_conn *other = *bucket(conn->server, conn->address); other;
         other = other->bucket_next) {
        if (other->address != conn->address)
            continue;
        bytes += charged(other->incoming) + charged(other->sending);
        for (const struct sac_http_request *r = other->first; r; r = r->next)
            bytes += charged(r);
    }
    return bytes;
}

static void link_conn(struct sac_conn *conn)
{
    struct sac_http_server *server = conn->server;
    struct sac_conn **head = bucket(server, conn->address);

    conn->next = server->conns;
    if (conn->next)
        conn->next->prev = conn;
    server->conns = conn;
    conn->bucket_next = *head;
    if (conn->bucket_next)
        conn->bucket_next->bucket_prev = conn;
    *head = conn;
    server->conn_count++;
    sac_count(server->counters.open, 1);
}

static void unlink_conn(struct sac_conn *conn)
{
    struct sac_http_server *server = conn->server;

    if (conn->prev)
        conn->prev->next = conn->next;
    else
        server->conns = conn->next;
    if (conn->next)
        conn->next->prev = conn->prev;
    if (conn->bucket_prev)
        conn->bucket_prev->bucket_next = conn->bucket_next;
    else
        *bucket(server, conn->address) = conn->bucket_next;
    if (conn->bucket_next)
        conn->bucket_next->bucket_prev = conn->bucket_prev;
}

static void on_closed(uv_handle_t *handle)
{
    struct sac_conn *conn = handle->data;
    struct sac_http_server *server = conn->server;

    sac_conn_sent(conn);
    if (server->spare_conn_count < SPARE_MAX) {
        conn->next = server->spare_conns;
        server->spare_conns = conn;
        server->spare_conn_count++;
    } else {
        free(conn);
    }
    sac_server_conn_closed(server);
}

static void abandon_requests(struct sac_conn *conn)
{
    struct sac_http_server *server = conn->server;

    if (conn->incoming) {
        sac_count(server->counters.gone, conn->incoming->head.size > 0);
        sac_request_recycle(conn->incoming);
        conn->incoming = NULL;
    }
    while (conn->first) {
        struct sac_http_request *request = sac_conn_dequeue(conn);
        sac_count(server->counters.gone, 1);
        if (request->ready)
            sac_request_recycle(request);
        else
            sac_request_tell_gone(request);
    }
}

void sac_conn_close(struct sac_conn *conn)
{
    if (conn->phase == SAC_CONN_CLOSED)
        return;
    conn->phase = SAC_CONN_CLOSED;
    unlink_conn(conn);
    uv_close((uv_handle_t *)&conn->tcp, on_closed);
    abandon_requests(conn);
    free(conn->stash);
    conn->stash = NULL;
}

static struct sac_conn *conn_new(struct sac_http_server *server)
{
    struct sac_conn *conn = server->spare_conns;

    if (conn) {
        server->spare_conns = conn->next;
        server->spare_conn_count--;
    } else {
        conn = malloc(sizeof *conn);
    }
    if (conn)
        memset(conn, 0, sizeof *conn);
    return conn;
}

void sac_conn_open(struct sac_http_server *server, int fd, const struct sockaddr *address)
{
    struct sac_conn *conn = conn_new(server);

    if (!conn) {
        close(fd);
        return;
    }
    conn->server = server;
    conn->fd = fd;
    conn->since_ns = server->now_ns;
    conn->address = sac_address_key(address);
    set_peer(conn, address);
    uv_tcp_init(&server->loop, &conn->tcp);
    conn->tcp.data = conn;
    link_conn(conn);
    if (uv_tcp_open(&conn->tcp, fd) != 0) {
        close(fd);
        sac_conn_close(conn);
        return;
    }
    uv_tcp_nodelay(&conn->tcp, 1);
    sac_conn_start_reading(conn);
    if (!conn->reading)
        sac_conn_close(conn);
}
