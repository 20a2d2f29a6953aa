#include "ranks/frames.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BACKLOG = 128 };

void sac_frames_open(struct sac_frames *f, int fd)
{
    int on = 1;

    *f = (struct sac_frames){.fd = fd};
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

void sac_frames_close(struct sac_frames *f)
{
    if (f->fd >= 0)
        close(f->fd);
    f->fd = -1;
}

bool sac_frames_send(struct sac_frames *f, enum sac_frame_kind kind, const void *bytes, size_t size)
{
    unsigned char frame[SAC_FRAME_HEAD + SAC_FRAME_MOST];

    size = size < SAC_FRAME_MOST ? size : SAC_FRAME_MOST;
    frame[0] = (unsigned char)kind;
    frame[1] = 0;
    frame[2] = (unsigned char)(size >> 8);
    frame[3] = (unsigned char)size;
    if (size > 0)
        memcpy(frame + SAC_FRAME_HEAD, bytes, size);
    size += SAC_FRAME_HEAD;
    return f->fd >= 0 && send(f->fd, frame, size, MSG_NOSIGNAL) == (ssize_t)size;
}

static size_t size_of(const unsigned char *head)
{
    return (size_t)head[2] << 8 | head[3];
}

bool sac_frames_fill(struct sac_frames *f)
{
    memmove(f->bytes, f->bytes + f->taken, f->used - f->taken);
    f->used -= f->taken;
    f->taken = 0;
    ssize_t got = recv(f->fd, f->bytes + f->used, sizeof f->bytes - f->used, 0);
    if (got > 0)
        f->used += (size_t)got;
    if (f->used >= SAC_FRAME_HEAD && size_of(f->bytes) > SAC_FRAME_MOST)
        return false;
    return got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR));
}

bool sac_frames_next(struct sac_frames *f, enum sac_frame_kind *ret_kind,
                     const unsigned char **ret_bytes, size_t *ret_size)
{
    const unsigned char *head = f->bytes + f->taken;
    size_t there = f->used - f->taken;

    if (there < SAC_FRAME_HEAD || size_of(head) > SAC_FRAME_MOST ||
        there < SAC_FRAME_HEAD + size_of(head))
        return false;
    *ret_kind = head[0];
    *ret_bytes = head + SAC_FRAME_HEAD;
    *ret_size = size_of(head);
    f->taken += SAC_FRAME_HEAD + *ret_size;
    return true;
}

/* ---- Sockets ----------------------------------------------------------------- */

int sac_frames_listen(int *ret_fd, int port, struct sac_error *err)
{
    struct sockaddr_in6 address = {
        .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port), .sin6_addr = in6addr_any};
    struct sockaddr_in old = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int on = 1, off = 0, fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool six = fd >= 0;

    if (!six)
        fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return sac_fail_errno(err, errno, "no socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (six)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    int rc = six ? bind(fd, (struct sockaddr *)&address, sizeof address)
                 : bind(fd, (struct sockaddr *)&old, sizeof old);
    if (rc == 0)
        rc = listen(fd, BACKLOG);
    if (rc != 0) {
        rc = sac_fail_errno(err, errno, "port %d, where ranks meet, cannot be had", port);
        close(fd);
        return rc;
    }
    *ret_fd = fd;
    return 0;
}

int sac_frames_port(int fd)
{
    struct sockaddr_storage at;
    socklen_t size = sizeof at;

    if (getsockname(fd, (struct sockaddr *)&at, &size) != 0)
        return 0;
    return ntohs(at.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&at)->sin6_port
                                          : ((struct sockaddr_in *)&at)->sin_port);
}

/* 0, or errno's number. */
static int connect_one(const struct addrinfo *to, int ms, int *ret_fd)
{
    int fd = socket(to->ai_family, to->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, to->ai_protocol);
    int number = 0;
    socklen_t size = sizeof number;

    if (fd < 0)
        return errno;
    if (connect(fd, to->ai_addr, to->ai_addrlen) != 0)
        number = errno;
    if (number == EINPROGRESS) {
        struct pollfd wait = {.fd = fd, .events = POLLOUT};
        number = poll(&wait, 1, ms) == 1 ? 0 : ETIMEDOUT;
        if (number == 0)
            getsockopt(fd, SOL_SOCKET, SO_ERROR, &number, &size);
    }
    if (number == 0)
        *ret_fd = fd;
    else
        close(fd);
    return number;
}

int sac_frames_connect(int *ret_fd, const char *host, int port, int ms, struct sac_error *err)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    char service[16];
    int number = EHOSTUNREACH;

    snprintf(service, sizeof service, "%d", port);
    int rc = getaddrinfo(host, service, &hints, &found);
    if (rc != 0)
        return sac_fail(err, SAC_ENOENT, "%s: %s", host, gai_strerror(rc));
    for (const struct addrinfo *a = found; a && number != 0; a = a->ai_next)
        number = connect_one(a, ms, ret_fd);
    freeaddrinfo(found);
    return number == 0 ? 0 : sac_fail(err, SAC_EIO, "%s", strerror(number));
}
