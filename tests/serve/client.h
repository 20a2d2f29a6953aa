/* A small HTTP client for tests: one request, one answer, on a blocking socket. */
#ifndef SAC_TESTS_CLIENT_H
#define SAC_TESTS_CLIENT_H

#include <stddef.h>

struct answer {
    int status;
    char head[4096];
    char *body; /* NUL-terminated; client_answer_done() frees it */
    size_t size;
};

int client_connect(int port);
/* Writes the request; headers end in "\r\n" each. body may be NULL. */
void client_send(int fd, const char *method, const char *path, const char *headers,
                 const void *body, size_t size);
/* Status 0: the connection ended first. */
struct answer client_receive(int fd);
struct answer client_ask(int port, const char *method, const char *path, const char *headers,
                         const void *body, size_t size);
void client_answer_done(struct answer *answer);

#endif
