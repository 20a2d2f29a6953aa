/*
 * A server on a thread of its own, with routes that the tests need, and a
 * client that writes and reads raw bytes. Every read gives up after 10 s.
 *
 * Routes: GET /null answers at once; GET /canary likewise, and counts; POST
 * /echo sends the body back; GET /hold waits for fixture_release(); GET
 * /reverse waits for four of its kind and answers them last first from another
 * thread; GET /race is answered by a thread of its own, which then frees what
 * on_gone touches; GET /large sends 4 MiB (as /large-static does, without a copy); GET
 * /prefix/x, whatever x is; GET /tell answers what the request holds.
 */
#ifndef SAC_TESTS_HTTP_FIXTURE_H
#define SAC_TESTS_HTTP_FIXTURE_H

#include "support/support.h"

#include <stdatomic.h>
#include <stdbool.h>

#include "http/server.h"

#define FIXTURE_LARGE (4 << 20)

struct fixture {
    struct sac_http_server *server;
    int port;
    _Atomic int canaries, echoes, gone, held, racing;
};

/* Only limits, host and hosts_allowed are read from options; NULL: defaults. */
void fixture_start(struct fixture *fixture, const struct sac_http_options *options);
/* Stops, joins and frees; true when run returned 0. */
void fixture_stop(struct fixture *fixture);
/* Answers everything held so far, from the calling thread. */
void fixture_release(struct fixture *fixture);
/* Waits (5 s at most) until `*value` is `wanted`. */
bool fixture_await(_Atomic int *value, int wanted);
/* Waits (5 s at most) until no connection is open and nothing in flight. */
bool fixture_await_quiet(struct fixture *fixture);

int client_connect(const struct fixture *fixture);
void client_send(int fd, const void *bytes, size_t size);
void client_puts(int fd, const char *text);
/* One byte a write. */
void client_drip(int fd, const void *bytes, size_t size);

struct answer {
    int status;      /* 0: the connection ended first */
    char head[4096]; /* NUL-terminated */
    char *body;      /* NUL-terminated, malloc */
    size_t body_size;
};
/* One answer, by its Content-Length; head_only for HEAD. 100 is an answer too. */
struct answer client_read(int fd, bool head_only);
void answer_done(struct answer *answer);
/* Everything until the server closes; NUL-terminated, malloc; NULL on time-out. */
char *client_read_all(int fd, size_t *ret_size);
/* How many answers begin in the text. */
int count_answers(const char *text);

#endif
