/*
 * The least that a server of one thread does: epoll_wait, read, write. It looks for the
 * end of each head and answers all that it read with one write; nothing is parsed, no limit
 * is kept. What bench/http takes as the floor. Built and run by it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS_MAX = 1024, ROOM = 16384, ANSWERS_MAX = 64 };

static const char answer[] =
    "HTTP/1.1 200 OK\r\nServer: epoll\r\nContent-Type: application/json\r\n"
    "Content-Length: 3\r\nConnection: keep-alive\r\n\r\n{}\n";

static int listen_on(int port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((unsigned short)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 1024)) {
        perror("null_epoll");
        exit(1);
    }
    return fd;
}

static void accept_one(int listener, int loop)
{
    int on = 1, fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};

    if (fd < 0)
        return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    epoll_ctl(loop, EPOLL_CTL_ADD, fd, &event);
}

/* Heads that are cut between two reads do not happen on loopback with such small ones. */
static void serve(int fd)
{
    static char in[ROOM], out[ANSWERS_MAX * sizeof answer];
    ssize_t size = read(fd, in, sizeof in);
    size_t used = 0;

    if (size <= 0) {
        close(fd);
        return;
    }
    for (char *at = in, *end = in + size;
         used + sizeof answer <= sizeof out && (at = memmem(at, (size_t)(end - at), "\r\n\r\n", 4));
         at += 4) {
        memcpy(out + used, answer, sizeof answer - 1);
        used += sizeof answer - 1;
    }
    if (write(fd, out, used) < 0)
        close(fd);
}

int main(int argc, char **argv)
{
    struct epoll_event events[EVENTS_MAX];
    int listener = listen_on(argc > 1 ? atoi(argv[1]) : 8000), loop = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener};

    epoll_ctl(loop, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int count = epoll_wait(loop, events, EVENTS_MAX, -1);
        for (int i = 0; i < count; i++)
            events[i].data.fd == listener ? accept_one(listener, loop) : serve(events[i].data.fd);
    }
}
