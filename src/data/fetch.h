/*
 * Files and pages over HTTP and HTTPS, by libcurl.
 *
 * A file is written to PATH.part and gets its name when it is whole and has its
 * sum. A transfer that breaks goes on where it stopped (Range and If-Range; what
 * the server sends is checked against what was asked), within a run and, since
 * PATH.part.from remembers the address and the server's validator, in the next.
 * A server that sends another part than asked for is asked for the whole.
 *
 * What ends without hope (a wrong sum, a full disk, 404, too large) leaves
 * nothing behind; what another try may mend (a broken or stalled connection,
 * 5xx, a stop) leaves PATH.part. Bounded: redirects (5, and none from https to
 * http), time without a byte, tries, size. Blocks; a fetcher is for one thread at
 * a time and keeps its connections for the next file.
 */
#ifndef SAC_DATA_FETCH_H
#define SAC_DATA_FETCH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"
#include "base/sha.h"

struct sac_fetcher;

/* SAC_EUNSUPPORTED: built without libcurl. */
int sac_fetcher_new(struct sac_fetcher **ret, struct sac_error *err);
void sac_fetcher_free(struct sac_fetcher *fetcher); /* takes NULL */
/* Where the last answer came from, behind redirects. Good until the next use. */
const char *sac_fetcher_url(const struct sac_fetcher *fetcher);

/* Zero is the default, which stands behind each. Text is borrowed during the call. */
struct sac_fetch_options {
    int64_t bytes_max;  /* 2 GiB */
    const char *sha256; /* in hexadecimal, or its first digits; not compared */
    const char *sha1;
    int tries;   /* in a row without a new byte; 5. All in all at most 100 */
    int wait_ms; /* after a try without a new byte, then twice that, at most 8 s; 500 */
    int stall_s; /* without a byte, and to connect; 30 */
    /* Called a few times a second; total < 0: not known. False stops: SAC_ECANCELED. */
    bool (*progress)(void *context, int64_t have, int64_t total);
    void *context;
};

struct sac_fetch_result {
    int64_t bytes;
    int resumes;              /* how often it went on in the middle */
    char sha256[SAC_SHA_HEX]; /* of the file; empty of a page */
};

/* To a file; `ret` may be NULL. An existing file is replaced when the new one is
 * whole. SAC_EFORMAT: a wrong sum. SAC_EBUSY: another process fetches to the same
 * place. */
int sac_fetch_file(struct sac_fetcher *fetcher, const char *url, const char *path,
                   const struct sac_fetch_options *options, struct sac_fetch_result *ret,
                   struct sac_error *err);

/* To memory, after what `ret` holds already; bytes_max is 16 MiB unless said. Sums
 * are not compared. */
int sac_fetch_page(struct sac_fetcher *fetcher, const char *url,
                   const struct sac_fetch_options *options, struct sac_buf *ret,
                   struct sac_error *err);

#endif
