/*
 * What the files of src/http share: the server, its connections and requests.
 * All fields belong to the loop thread unless said.
 */
#ifndef SAC_HTTP_INTERNAL_H
#define SAC_HTTP_INTERNAL_H

#include <stdatomic.h>
#include <sys/socket.h>
#include <uv.h>

#include "http/framing.h"
#include "http/server.h"

#define SAC_READ_BYTES 65536
/* Answers up to this size are gathered into one write; larger bodies leave from
 * where they are. */
#define SAC_SMALL_ANSWER 8192
#define SAC_SCRATCH_BYTES 65536
/* A body of known length is counted in such steps, as it comes. */
#define SAC_BODY_STEP ((size_t)65536)
#define SAC_EXTRA_HEADERS_MAX 4096
#define SAC_PEER_TEXT 48
#define SAC_DATE_TEXT 40 /* a whole line, with its end */

enum sac_request_phase {
    SAC_REQUEST_OPEN,
    SAC_REQUEST_TELLING, /* on_gone is running */
    SAC_REQUEST_GONE,
    SAC_REQUEST_ANSWERED,
};

struct sac_answer {
    int status;
    const char *content_type;
    size_t content_length;
    /* Further headers and a copied body, an empty line between: in room, or
     * memory of its own. */
    char *data;
    size_t data_size;
    size_t headers_size; /* the empty line included */
    const void *body;    /* static, or NULL */
    char room[1024];
};

struct sac_http_request {
    struct sac_http_mail mail; /* any thread: the answer's way to the loop */
    struct sac_http_server *server;
    struct sac_conn *conn; /* NULL when the client has gone */
    struct sac_http_request *next;
    _Atomic int phase; /* any thread */
    bool ready;        /* the answer is complete */
    bool close;        /* the connection ends with this answer */
    bool no_body;      /* HEAD */
    char *path;        /* in head.bytes, decoded */
    const char *query; /* NUL-terminated; "" without one */
    const struct sac_http_route *route;
    struct sac_framing_body body;
    /* Bytes of the body that the server has counted; read by the loop thread while
     * whoever answers takes the body. */
    _Atomic size_t charged;
    uint64_t started_ns, complete_ns, body_ns;
    sac_http_gone *gone;
    void *gone_user, *user;
    struct sac_answer answer; /* written by whoever replies */
    struct sac_framing_head head;
    char peer[SAC_PEER_TEXT];
    char room[2048]; /* heads that fit */
};

enum sac_conn_phase {
    SAC_CONN_HEAD,   /* between requests, or within a head */
    SAC_CONN_LENGTH, /* within a body of known length */
    SAC_CONN_CHUNKS,
    SAC_CONN_DEAF,   /* nothing more is parsed; what is owed is answered */
    SAC_CONN_LINGER, /* all is sent; reading away what the client still sends */
    SAC_CONN_CLOSED,
};

struct sac_conn {
    uv_tcp_t tcp;
    uv_write_t write;
    struct sac_http_server *server;
    int fd;                                     /* tcp's */
    struct sac_conn *next, *prev;               /* all open ones */
    struct sac_conn *bucket_next, *bucket_prev; /* those of one address bucket */
    struct sac_conn *dirty_next;
    bool dirty, corked, reading, writing, eof;
    bool continue_owed; /* 100 Continue, once the earlier answers have left */
    enum sac_conn_phase phase;
    struct sac_framing framing;
    struct sac_http_request *incoming;     /* not whole yet */
    struct sac_http_request *first, *last; /* in flight, in order */
    struct sac_http_request *sending;      /* its body is being written */
    int in_flight;
    /* Bytes that came while the pipeline was full. */
    char *stash;
    size_t stash_size;
    char *spill;       /* what a write could not send at once */
    size_t queue_size; /* of libuv, when the write last moved */
    uint64_t since_ns; /* when it became idle, or began to linger */
    uint64_t write_ns; /* when the write last moved */
    uint64_t write_began_ns;
    size_t write_size;
    uint64_t address; /* an IPv4 address, or the first 64 bits of an IPv6 one */
    char peer[SAC_PEER_TEXT];
};

/* A route, and what is asked of its path at each request. */
struct sac_route {
    const struct sac_http_route *route;
    size_t size; /* of the path; of a prefix without its star */
    bool is_prefix;
};

/* Heads up to this size are remembered. */
#define SAC_KNOWN_HEAD_BYTES 1024

/* The last head without a body that a handler got. The same bytes, read at once
 * with nothing before them, are the same request: it is copied, not parsed. */
struct sac_known_head {
    size_t size;                  /* 0: none */
    struct sac_framing_head head; /* but for where its bytes are */
    const struct sac_http_route *route;
    size_t path_at, query_at; /* in bytes; query_at 0: no query */
    char raw[SAC_KNOWN_HEAD_BYTES];
    char bytes[SAC_KNOWN_HEAD_BYTES]; /* the target decoded in place */
};

struct sac_http_server {
    uv_loop_t loop;
    uv_poll_t listener;
    uv_poll_t wake;
    uv_timer_t tick;
    uv_prepare_t turn;
    uv_check_t turned;
    int listen_fd; /* -1 once closed */
    int wake_fd;   /* an event counter: any thread adds, the loop empties it */
    int port;
    bool loopback, ticking, accept_paused;
    int handles; /* initialised ones of the five above */
    bool loop_made;
    struct sac_http_options options; /* limits without zeroes */
    struct sac_http_limits limits;
    struct sac_route *routes; /* options.route_count */
    struct sac_known_head known;
    uint64_t tick_ms, drain_until_ns;
    uint64_t now_ns;   /* see sac_server_look_at_clock */
    bool now_is_stale; /* the loop has waited since */
    bool draining;
    _Atomic int stop_requested, drain_ms;    /* any thread */
    _Atomic(struct sac_http_mail *) mailbox; /* any thread, newest first */
    _Atomic size_t body_bytes;               /* any thread: taken bodies leave the count */
    struct sac_conn *conns, *spare_conns;
    struct sac_conn *dirty, *dirty_last; /* may have answers to send, in order */
    struct sac_http_request *spare_requests;
    int spare_conn_count, spare_request_count;
    int conn_count;
    int64_t unanswered; /* requests that a handler owes an answer */
    struct sac_conn **buckets;
    uint32_t bucket_mask;
    struct {
        _Atomic uint64_t accepted, refused, requests, ok, client_errors, server_errors, gone;
        _Atomic int64_t open, in_flight;
    } counters;             /* written by the loop thread */
    uint64_t date_until_ns; /* `date` says the second that ends then */
    char date[SAC_DATE_TEXT];
    char host[64]; /* the last Host that was valid and allowed: most say the same */
    size_t host_size;
    char read_buffer[SAC_READ_BYTES];
    char scratch[SAC_SCRATCH_BYTES];
};

/* One writer: no locked instruction is needed. */
#define sac_count(counter, by)                                                                     \
    atomic_store_explicit(&(counter),                                                              \
                          atomic_load_explicit(&(counter), memory_order_relaxed) + (by),           \
                          memory_order_relaxed)

/* request.c */
struct sac_http_request *sac_request_new(struct sac_http_server *server);
void sac_request_recycle(struct sac_http_request *request);
/* Changes what the body is counted for; false when the server holds too much. */
bool sac_request_charge(struct sac_http_request *request, size_t bytes);
/* The connection has gone: tells the handler, once, unless it has answered. */
void sac_request_tell_gone(struct sac_http_request *request);
/* Finds path and query in the target, decoded; false when malformed. */
bool sac_request_split_target(struct sac_http_request *request, struct sac_span target);

/* reply.c */
/* Fills the answer; for refusals that the server makes itself. */
void sac_answer_error(struct sac_http_request *request, int status, const char *headers,
                      const char *text);
/* Writes the answer's head but for the further headers; at most
 * SAC_ANSWER_HEAD bytes and the content type. */
#define SAC_ANSWER_HEAD 256
size_t sac_answer_head(const struct sac_http_request *request, bool close, char *out);
void sac_answer_done(struct sac_answer *answer);

/* route.c */
enum sac_route_result { SAC_ROUTE_FOUND, SAC_ROUTE_NO_PATH, SAC_ROUTE_NO_METHOD };
enum sac_route_result sac_route_find(const struct sac_http_server *server, const char *method,
                                     const char *path, const struct sac_http_route **ret);
/* "Allow: GET, HEAD, OPTIONS\r\n" for the path, or for all paths when NULL. */
void sac_route_allow(const struct sac_http_server *server, const char *path, char *out,
                     size_t size);
/* Whether Host (or a target's authority) is well formed, and one of ours. */
bool sac_host_is_valid(struct sac_http_text host);
bool sac_host_is_allowed(const struct sac_http_server *server, struct sac_http_text host);

int sac_routes_make(struct sac_http_server *server, struct sac_error *err);

/* admit.c: the incoming request's head is complete. Answers it at once, or
 * prepares for its body, or hands it to its handler. `raw`: its bytes as they
 * came, if they came in one piece with nothing before them, else empty. */
void sac_conn_admit(struct sac_conn *conn, struct sac_http_text raw);
/* Hands the incoming request to its handler if the bytes begin with the head that is
 * known; the size of that head, or 0. */
size_t sac_conn_admit_known(struct sac_conn *conn, const char *data, size_t size);
/* Counts the incoming request's body for so many bytes; refuses the request, and false,
 * when all bodies together, or those of one address, are too much. */
bool sac_conn_charge(struct sac_conn *conn, size_t bytes);
/* The incoming request is whole: its handler's turn. */
void sac_conn_dispatch(struct sac_conn *conn);
/* Answers the incoming request; nothing more of the connection is parsed.
 * Status 0 closes without a word. */
void sac_conn_refuse(struct sac_conn *conn, int status, const char *headers, const char *text);
struct sac_http_request *sac_conn_dequeue(struct sac_conn *conn);

/* input.c */
void sac_conn_start_reading(struct sac_conn *conn);
/* Goes on with bytes that had to wait for room in the pipeline. */
void sac_conn_resume(struct sac_conn *conn);

/* output.c: sends what is ready and next; may close the connection. */
void sac_conn_flush(struct sac_conn *conn);
void sac_conn_flush_dirty(struct sac_http_server *server);
/* Sends later in this turn of the loop. */
void sac_conn_mark_dirty(struct sac_conn *conn);
void sac_conn_answered(struct sac_http_request *request);
/* Frees what a write held. */
void sac_conn_sent(struct sac_conn *conn);

/* conn.c */
void sac_conn_open(struct sac_http_server *server, int fd, const struct sockaddr *address);
/* Deadlines; once a tick. */
void sac_conn_check(struct sac_conn *conn);
/* Nothing new is taken; closed at once when nothing is owed. */
void sac_conn_drain(struct sac_conn *conn);
void sac_conn_close(struct sac_conn *conn);
uint64_t sac_address_key(const struct sockaddr *address);
/* What the bodies are counted for of all connections of this one's address. */
size_t sac_conn_address_bytes(const struct sac_conn *conn);

static inline bool sac_conn_is_listening(const struct sac_conn *conn)
{
    return conn->phase <= SAC_CONN_CHUNKS;
}

/* server.c */
bool sac_server_is_running_here(const struct sac_http_server *server);
/* Sets now_ns, once a turn of the loop; what takes long itself sets it anew. */
void sac_server_look_at_clock(struct sac_http_server *server);
void sac_server_set_clock(struct sac_http_server *server);
void sac_server_conn_closed(struct sac_http_server *server);
/* Turns the coarse timer on or off, as there are connections or not. */
void sac_server_set_tick(struct sac_http_server *server);

#endif
