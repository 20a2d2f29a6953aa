#include "serve/client.h"

#include "support/support.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

int client_connect(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval patience = {.tv_sec = 30};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
        fail_msg("cannot connect to port %d", port);
    return fd;
}

static void send_all(int fd, const void *bytes, size_t size)
{
    const char *at = bytes;

    while (size > 0) {
        ssize_t sent = send(fd, at, size, MSG_NOSIGNAL);
        if (sent <= 0)
            return; /* the answer, or its absence, says why */
        at += sent;
        size -= (size_t)sent;
    }
}

void client_send(int fd, const char *method, const char *path, const char *headers,
                 const void *body, size_t size)
{
    char head[4096];
    int length = snprintf(head, sizeof head,
                          "%s %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %zu\r\n%s\r\n",
                          method, path, size, headers ? headers : "");

    assert_in_range(length, 1, sizeof head - 1);
    send_all(fd, head, (size_t)length);
    send_all(fd, body, size);
}

static bool read_head(int fd, struct answer *answer)
{
    size_t have = 0;

    while (have < sizeof answer->head - 1) {
        if (recv(fd, answer->head + have, 1, 0) != 1)
            return false;
        answer->head[++have] = '\0';
        if (have >= 4 && memcmp(answer->head + have - 4, "\r\n\r\n", 4) == 0)
            return sscanf(answer->head, "HTTP/1.1 %d", &answer->status) == 1;
    }
    return false;
}

struct answer client_receive(int fd)
{
    struct answer answer = {0};

    answer.body = calloc(1, 1);
    if (!read_head(fd, &answer)) {
        answer.status = 0;
        return answer;
    }
    const char *length = strcasestr(answer.head, "\r\nContent-Length: ");
    answer.size = length ? strtoul(length + 18, NULL, 10) : 0;
    answer.body = realloc(answer.body, answer.size + 1);
    assert_non_null(answer.body);
    for (size_t have = 0; have < answer.size;) {
        ssize_t got = recv(fd, answer.body + have, answer.size - have, 0);
        assert_true(got > 0);
        have += (size_t)got;
    }
    answer.body[answer.size] = '\0';
    return answer;
}

struct answer client_ask(int port, const char *method, const char *path, const char *headers,
                         const void *body, size_t size)
{
    int fd = client_connect(port);

    client_send(fd, method, path, headers, body, size);
    struct answer answer = client_receive(fd);
    close(fd);
    return answer;
}

void client_answer_done(struct answer *answer)
{
    free(answer->body);
    answer->body = NULL;
}
