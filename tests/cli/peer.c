#include "cli/peer.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CLIENTS_MAX = 256, REQUEST_MAX = 64 * 1024 };

struct client {
    int fd;
    size_t size;
    char *bytes; /* REQUEST_MAX and a NUL */
};

struct peer {
    int listener;
    int stop_pipe[2];
    int port;
    int stall_ms;
    pthread_t thread;
    struct client clients[CLIENTS_MAX];
    int client_count;
    atomic_int requests, connections;
    char first_head[REQUEST_MAX + 1];
    char url[256];
};

static void send_all(int fd, const char *bytes, size_t size)
{
    while (size > 0) {
        ssize_t sent = send(fd, bytes, size, MSG_NOSIGNAL);
        if (sent <= 0)
            return;
        bytes += sent;
        size -= (size_t)sent;
    }
}

static void send_text(int fd, const char *text)
{
    send_all(fd, text, strlen(text));
}

static void send_body(int fd, const char *body, size_t size)
{
    char head[128];

    snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", size);
    send_text(fd, head);
    send_all(fd, body, size);
}

/* Answers by the path; false when the connection is to be closed. */
static bool answer(struct peer *peer, int fd, const char *path, const char *body, size_t size)
{
    int number = atomic_fetch_add(&peer->requests, 1);
    char text[32];

    if (strcmp(path, "/busy") == 0) {
        send_text(fd, "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nRetry-After: 1\r\n\r\n");
    } else if (strcmp(path, "/chunked") == 0) {
        send_text(fd, "HTTP/1.1 100 Continue\r\n\r\n");
        send_text(fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n");
        send_text(fd, "0\r\n\r\n");
    } else if (strcmp(path, "/until-close") == 0) {
        send_text(fd, "HTTP/1.1 200 OK\r\n\r\nok");
        return false;
    } else if (strcmp(path, "/close") == 0) {
        send_text(fd, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
        return false;
    } else if (strcmp(path, "/count") == 0) {
        snprintf(text, sizeof text, "%d", number);
        send_body(fd, text, strlen(text));
    } else if (strcmp(path, "/echo") == 0) {
        send_body(fd, body, size);
    } else if (strcmp(path, "/reset") == 0) {
        struct linger now = {.l_onoff = 1};
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
        return false;
    } else if (strcmp(path, "/half") == 0) {
        send_text(fd, "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nhalf");
        return false;
    } else if (strcmp(path, "/garbage") == 0) {
        send_text(fd, "220 mail.example ESMTP\r\n");
    } else if (strcmp(path, "/never") != 0) {
        if (strcmp(path, "/stall") == 0 && number == 0)
            usleep((useconds_t)peer->stall_ms * 1000);
        send_body(fd, "ok", 2);
    }
    return true;
}

/* The whole request's size, or 0 while it is not all there. */
static size_t request_size(const char *bytes, size_t size, size_t *ret_head)
{
    const char *end = strstr(bytes, "\r\n\r\n");
    const char *length = strstr(bytes, "Content-Length: ");
    size_t body = 0;

    if (!end)
        return 0;
    *ret_head = (size_t)(end + 4 - bytes);
    if (length && length < end)
        body = strtoul(length + strlen("Content-Length: "), NULL, 10);
    return *ret_head + body <= size ? *ret_head + body : 0;
}

static bool serve(struct peer *peer, struct client *client)
{
    ssize_t got = recv(client->fd, client->bytes + client->size, REQUEST_MAX - client->size, 0);
    size_t head, whole;
    char path[128];

    if (got <= 0)
        return false;
    client->size += (size_t)got;
    client->bytes[client->size] = 0;
    while ((whole = request_size(client->bytes, client->size, &head)) > 0) {
        if (peer->first_head[0] == 0)
            memcpy(peer->first_head, client->bytes, head);
        if (sscanf(client->bytes, "%*s %127s", path) != 1 ||
            !answer(peer, client->fd, path, client->bytes + head, whole - head))
            return false;
        memmove(client->bytes, client->bytes + whole, client->size - whole + 1);
        client->size -= whole;
    }
    return true;
}

static void drop(struct peer *peer, int index)
{
    close(peer->clients[index].fd);
    free(peer->clients[index].bytes);
    peer->clients[index] = peer->clients[--peer->client_count];
}

static void take_client(struct peer *peer)
{
    int fd = accept(peer->listener, NULL, NULL);
    int on = 1;

    if (fd < 0)
        return;
    if (peer->client_count == CLIENTS_MAX) {
        close(fd);
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    atomic_fetch_add(&peer->connections, 1);
    peer->clients[peer->client_count++] = (struct client){fd, 0, calloc(1, REQUEST_MAX + 1)};
}

static void *run(void *user)
{
    struct peer *peer = user;
    struct pollfd fds[CLIENTS_MAX + 2];

    for (;;) {
        int count = peer->client_count;
        fds[0] = (struct pollfd){peer->stop_pipe[0], POLLIN, 0};
        fds[1] = (struct pollfd){peer->listener, POLLIN, 0};
        for (int i = 0; i < count; i++)
            fds[i + 2] = (struct pollfd){peer->clients[i].fd, POLLIN, 0};
        poll(fds, (nfds_t)count + 2, -1);
        if (fds[0].revents)
            return NULL;
        for (int i = count - 1; i >= 0; i--)
            if (fds[i + 2].revents && !serve(peer, &peer->clients[i]))
                drop(peer, i);
        if (fds[1].revents)
            take_client(peer);
    }
}

struct peer *peer_start(int stall_ms)
{
    struct peer *peer = calloc(1, sizeof *peer);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;

    if (!peer || pipe(peer->stop_pipe) != 0)
        abort();
    peer->stall_ms = stall_ms;
    peer->listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(peer->listener, (struct sockaddr *)&address, size) != 0 ||
        listen(peer->listener, CLIENTS_MAX) != 0 ||
        getsockname(peer->listener, (struct sockaddr *)&address, &size) != 0)
        abort();
    peer->port = ntohs(address.sin_port);
    if (pthread_create(&peer->thread, NULL, run, peer) != 0)
        abort();
    return peer;
}

const char *peer_url(struct peer *peer, const char *path)
{
    snprintf(peer->url, sizeof peer->url, "http://127.0.0.1:%d%s", peer->port, path);
    return peer->url;
}

int peer_requests(const struct peer *peer)
{
    return atomic_load(&peer->requests);
}

int peer_connections(const struct peer *peer)
{
    return atomic_load(&peer->connections);
}

const char *peer_first_head(const struct peer *peer)
{
    return peer->first_head;
}

void peer_stop(struct peer *peer)
{
    if (write(peer->stop_pipe[1], "x", 1) != 1)
        abort();
    pthread_join(peer->thread, NULL);
    while (peer->client_count > 0)
        drop(peer, 0);
    close(peer->listener);
    close(peer->stop_pipe[0]);
    close(peer->stop_pipe[1]);
    free(peer);
}
