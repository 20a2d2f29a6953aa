/*
 * Small messages over a TCP connection that does not block: a kind, a length, bytes. For
 * src/ranks/meet.c. What does not fit into the socket's buffer ends the connection: who
 * reads nothing for so long is lost anyway.
 */
#ifndef SAC_RANKS_FRAMES_H
#define SAC_RANKS_FRAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum { SAC_FRAME_MOST = 1024, SAC_FRAME_HEAD = 4 };

enum sac_frame_kind {
    SAC_FRAME_HELLO = 1,
    SAC_FRAME_ID, /* all are there */
    SAC_FRAME_BEAT,
    SAC_FRAME_FAIL, /* a code of enum sac_code, positive, in one byte; a sentence */
    SAC_FRAME_BYE,
};

struct sac_frames {
    int fd; /* −1: closed */
    size_t used, taken;
    unsigned char bytes[2 * (SAC_FRAME_HEAD + SAC_FRAME_MOST)];
};

void sac_frames_open(struct sac_frames *frames, int fd); /* takes the descriptor */
void sac_frames_close(struct sac_frames *frames);
/* False: the connection cannot be used any more. */
bool sac_frames_send(struct sac_frames *frames, enum sac_frame_kind kind, const void *bytes,
                     size_t size);
/* Reads what is there; false: the connection ended, or what it said is no frame. */
bool sac_frames_fill(struct sac_frames *frames);
/* The next whole frame, good until the next fill; false: none. */
bool sac_frames_next(struct sac_frames *frames, enum sac_frame_kind *ret_kind,
                     const unsigned char **ret_bytes, size_t *ret_size);

/* A socket that listens (port 0: at any that is free), or one that is connected within `ms`; they
 * do not block. */
int sac_frames_listen(int *ret_fd, int port, struct sac_error *err);
int sac_frames_port(int fd); /* of one that listens; 0: it cannot be told */
int sac_frames_connect(int *ret_fd, const char *host, int port, int ms, struct sac_error *err);

#endif
