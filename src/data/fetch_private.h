/*
 * The parts of fetching: one HTTP transfer (fetch_transfer.c), the file that is
 * not whole yet (fetch_part.c), and the tries (fetch.c). Private to src/data.
 */
#ifndef SAC_DATA_FETCH_PRIVATE_H
#define SAC_DATA_FETCH_PRIVATE_H

#include "data/fetch.h"

#define SAC_VALIDATOR_MAX 256

/* Where bytes go. */
struct sac_sink {
    /* Forgets all bytes. */
    int (*restart)(struct sac_sink *sink, struct sac_error *err);
    int (*put)(struct sac_sink *sink, const void *bytes, size_t size, struct sac_error *err);
    /* The whole's validator (ETag or date, may be empty) is known; before its bytes. */
    int (*began)(struct sac_sink *sink, const char *validator, struct sac_error *err);
    int64_t have; /* bytes */
};

/* What is known of the whole from one try to the next. Start it as `= {.total = -1}`. */
struct sac_transfer_state {
    int64_t total; /* -1: not known */
    char validator[SAC_VALIDATOR_MAX];
    bool sums;     /* a part may be continued without a validator: the sum will tell */
    bool lied;     /* the server sent another part than it was asked for */
    bool whole;    /* all bytes are in the sink */
    bool hopeless; /* trying again is of no use */
    int resumes;
};

struct sac_fetcher {
    void *curl;
};

/* One try: from sink->have on where that is possible. Fails with the reason. */
int sac_transfer_run(struct sac_fetcher *fetcher, const char *url,
                     const struct sac_fetch_options *options, struct sac_sink *sink,
                     struct sac_transfer_state *state, struct sac_error *err);

/* PATH.part, locked, with its PATH.part.from. */
struct sac_part {
    struct sac_sink sink; /* first */
    int fd;
    char *path, *part, *from;
    const char *url;
    bool keep; /* when it is closed without having got its name */
};

/* Takes up what lies there from `url`, with its validator; else starts empty. */
int sac_part_open(struct sac_part *part, const char *path, const char *url,
                  struct sac_transfer_state *state, struct sac_error *err);
/* Compares sums, syncs, renames. */
int sac_part_check(struct sac_part *part, const char *sha256, const char *sha1,
                   char ret_sha256[SAC_SHA_HEX], struct sac_error *err);
int sac_part_commit(struct sac_part *part, struct sac_error *err);
void sac_part_close(struct sac_part *part);

#endif
