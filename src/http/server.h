/*
 * An HTTP/1.1 server: connections, framing, limits, routing. It knows nothing
 * of models. One loop thread runs it; handlers are called on that thread and
 * must not block. A request may be answered later, from any thread.
 *
 * The life of a request: the head is framed within the limits, the route is
 * found, the body is read whole into one buffer, then the handler is called
 * once. The handler owns the right to answer: exactly one sac_http_reply()
 * follows, at once or later, on any thread. If the client goes away first,
 * `on_gone` is called once on the loop thread; the reply is still owed and is
 * then dropped. A client that closes its writing half while an answer is owed
 * counts as gone, as with nginx: nobody can tell it from one that left.
 *
 * Requests of one connection are answered in order, whatever the order of the
 * replies. After a refusal for bad framing, a limit or a deadline, nothing more
 * of that connection is parsed or answered. Paths are decoded but not
 * normalised: a handler that maps one to a file must look for "..". SIGPIPE is
 * blocked on the loop thread while it runs.
 */
#ifndef SAC_HTTP_SERVER_H
#define SAC_HTTP_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct sac_http_server;
struct sac_http_request;

/* Bytes that somebody else owns; not NUL-terminated unless said. */
struct sac_http_text {
    const char *at;
    size_t size;
};

/* Zero means the default, which stands behind each. */
struct sac_http_limits {
    size_t body_bytes_max;            /* 16 MiB: 413 */
    size_t bodies_bytes_max;          /* 1 GiB held at once, half of it by one address: 503 */
    size_t header_bytes_max;          /* 16 KiB in all: 431 */
    int header_count_max;             /* 100: 431 */
    size_t line_bytes_max;            /* 8 KiB a line: 431 */
    int chunk_count_max;              /* 65,536: 400 */
    size_t chunk_extension_bytes_max; /* 16 KiB in all: 400 */
    int header_deadline_ms;           /* 10,000 from the first byte: 408 */
    int body_deadline_ms;             /* 30,000: 408 */
    int body_rate_bytes_min;          /* 1,000 a second, after a third of that time: 408 */
    int write_stall_ms;               /* 30,000 without a byte, or below that rate since: closed */
    int idle_ms;                      /* 15,000 between requests: closed */
    int connections_max;              /* 1,024, and below the descriptor limit less 64 */
    int connections_per_address_max;  /* 128; an address of the loopback range too */
    int pipelined_max;                /* 16 requests of one connection in flight */
};

/* Called on the loop thread with a whole request. */
typedef void sac_http_handler(struct sac_http_request *request, void *user);
/* Called on the loop thread when the client has gone before the answer. */
typedef void sac_http_gone(struct sac_http_request *request, void *user);

struct sac_http_route {
    const char *method; /* "GET" answers HEAD as well */
    const char *path;   /* exact, or ending in "/" + "*" for a prefix */
    sac_http_handler *handler;
    void *user;            /* borrowed */
    size_t body_bytes_max; /* 0: the server's */
};

struct sac_http_options {
    const char *host; /* an address or name: "127.0.0.1", "::1", "0.0.0.0" */
    int port;         /* 0: any free one */
    struct sac_http_limits limits;
    const struct sac_http_route *routes; /* borrowed as long as the server lives */
    int route_count;
    /* More Host names that a server bound to loopback answers to, beside
     * localhost and the loopback addresses; others get 421. */
    const char *const *hosts_allowed;
    int hosts_allowed_count;
};

/* What the server counts; read on any thread. */
struct sac_http_counters {
    uint64_t connections_accepted, connections_refused;
    int64_t connections_open, requests_in_flight;
    uint64_t requests, responses_2xx, responses_4xx, responses_5xx, clients_gone;
};

/* Binds and listens; nothing is served until sac_http_server_run. */
int sac_http_server_new(struct sac_http_server **ret, const struct sac_http_options *options,
                        struct sac_error *err);
int sac_http_server_port(const struct sac_http_server *server);
/* Runs the loop on this thread until it has stopped. */
int sac_http_server_run(struct sac_http_server *server, struct sac_error *err);
/* Any thread, or a signal handler's thread: stop accepting, answer what was
 * accepted (each answer closes its connection), return from run after
 * drain_ms at the latest. A second call changes nothing. */
void sac_http_server_stop(struct sac_http_server *server, int drain_ms);
void sac_http_server_counters(const struct sac_http_server *server, struct sac_http_counters *ret);
/* After run has returned and every request has its reply (stop the workers
 * first); takes NULL. With a reply still owed, the memory is left to it. */
void sac_http_server_free(struct sac_http_server *server);

/* Work that another thread hands to the loop; embedded in the sender's own. */
struct sac_http_mail {
    struct sac_http_mail *next; /* the server's */
    void (*deliver)(struct sac_http_mail *mail);
};

/* Any thread, never blocks and cannot fail: deliver(mail) is called once on the loop
 * thread, and may free the mail or send it again, which nobody may do before. What is
 * sent after the loop has ended is delivered by sac_http_server_free. */
void sac_http_server_mail(struct sac_http_server *server, struct sac_http_mail *mail);

/* What came. Valid until the reply; the loop thread only until the handler
 * returns, then whichever thread answers. */
const char *sac_http_request_method(const struct sac_http_request *request);
/* Percent-decoded, without the query. */
const char *sac_http_request_path(const struct sac_http_request *request);
/* The value of `name` in the query, percent-decoded into `value` (NUL-terminated,
 * cut to size); false when absent. */
bool sac_http_request_query(const struct sac_http_request *request, const char *name, char *value,
                            size_t size);
/* The header's value (name compared without case), or {NULL, 0}. */
struct sac_http_text sac_http_request_header(const struct sac_http_request *request,
                                             const char *name);
struct sac_http_text sac_http_request_body(const struct sac_http_request *request);
/* Takes the body's buffer over: the caller frees it with free(). */
uint8_t *sac_http_request_take_body(struct sac_http_request *request, size_t *ret_size);
/* sac_clock_ns() of the first byte of the head, and of the body's last byte. */
uint64_t sac_http_request_started_ns(const struct sac_http_request *request);
uint64_t sac_http_request_complete_ns(const struct sac_http_request *request);
/* The client's address as text, for the log. */
const char *sac_http_request_peer(const struct sac_http_request *request);

/* A word of the handler's own, kept with the request. */
void sac_http_request_set_user(struct sac_http_request *request, void *user);
void *sac_http_request_user(const struct sac_http_request *request);
/* Asks to be told when the client goes away; loop thread, within the handler.
 * on_gone never runs after sac_http_reply has returned: a reply on another
 * thread waits for one that is running, so hold no lock there that it takes. */
void sac_http_request_on_gone(struct sac_http_request *request, sac_http_gone *gone, void *user);

struct sac_http_response {
    int status;               /* 200 or more */
    const char *content_type; /* static storage */
    const void *body;         /* copied before the call returns, unless body_static */
    size_t body_size;         /* below 2 GiB, else a 500 is sent */
    bool body_static;         /* body lives as long as the server: written without a copy */
    const char *headers; /* further header lines, each ended by "\r\n", or NULL; copied. Above 4 KiB
                            a 500 is sent */
};

/* Answers, once; any thread. From the loop thread the bytes leave in this turn;
 * from another they are handed over by one mailbox wake-up. `request` is gone
 * when this returns. */
void sac_http_reply(struct sac_http_request *request, const struct sac_http_response *response);

/* {"error":"<sentence>"} with the status; "Retry-After: 1" is added to a 503. */
void sac_http_reply_error(struct sac_http_request *request, int status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
