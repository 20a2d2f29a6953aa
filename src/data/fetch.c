/* The tries of a fetch, and what they leave. */
#include "data/fetch.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "data/fetch_private.h"

enum { TRIES_ALL = 100, WAIT_MS_MAX = 8000, SLICE_MS = 100 };
#define FILE_BYTES_MAX ((int64_t)2 << 30)
#define PAGE_BYTES_MAX ((int64_t)16 << 20)

static struct sac_fetch_options settle(const struct sac_fetch_options *given, int64_t bytes_max)
{
    struct sac_fetch_options options = given ? *given : (struct sac_fetch_options){0};

    if (options.bytes_max <= 0)
        options.bytes_max = bytes_max;
    if (options.tries <= 0)
        options.tries = 5;
    if (options.wait_ms <= 0)
        options.wait_ms = 500;
    if (options.stall_s <= 0)
        options.stall_s = 30;
    return options;
}

/* False: stopped meanwhile. */
static bool wait_a_while(const struct sac_fetch_options *options, int failures,
                         const struct sac_sink *sink, int64_t total)
{
    int64_t left = failures == 0 && options->wait_ms > SLICE_MS ? SLICE_MS : options->wait_ms;

    for (int i = 1; i < failures && left < WAIT_MS_MAX; i++)
        left *= 2;
    for (left = left < WAIT_MS_MAX ? left : WAIT_MS_MAX; left > 0; left -= SLICE_MS) {
        long ms = left < SLICE_MS ? (long)left : SLICE_MS;
        if (options->progress && !options->progress(options->context, sink->have, total))
            return false;
        nanosleep(&(struct timespec){.tv_nsec = ms * 1000000}, NULL);
    }
    return true;
}

/* Until the sink holds the whole, or there is no use in trying on. */
static int try_on(struct sac_fetcher *fetcher, const char *url,
                  const struct sac_fetch_options *options, struct sac_sink *sink,
                  struct sac_transfer_state *state, struct sac_error *err)
{
    int failures = 0;

    for (int i = 1;; i++) {
        struct sac_error failed = {0};
        int64_t had = sink->have;
        int rc = sac_transfer_run(fetcher, url, options, sink, state, &failed);

        if (rc == 0)
            return 0;
        failures = sink->have > had ? 0 : failures + 1;
        if (rc == SAC_ECANCELED || state->hopeless)
            return sac_fail(err, rc, "%s", failed.text);
        if (failures >= options->tries || i >= TRIES_ALL)
            return sac_fail(err, rc, "%s; given up after %d tries", failed.text, i);
        if (!wait_a_while(options, failures, sink, state->total))
            return sac_fail(err, SAC_ECANCELED, "%s: stopped", url);
    }
}

/* What was put together in pieces and has a wrong sum, of two versions perhaps, is
 * fetched once more from its start. */
static int fetch_checked(struct sac_fetcher *fetcher, struct sac_part *part,
                         const struct sac_fetch_options *options, struct sac_transfer_state *state,
                         char sha256[SAC_SHA_HEX], struct sac_error *err)
{
    for (bool last = false;; last = true) {
        struct sac_error wrong = {0};
        int rc = try_on(fetcher, part->url, options, &part->sink, state, err);

        if (rc < 0)
            return rc;
        rc = sac_part_check(part, options->sha256, options->sha1, sha256, &wrong);
        if (rc == 0)
            return 0;
        if (rc != SAC_EFORMAT || state->resumes == 0 || last)
            return sac_fail(err, rc, "%s", wrong.text);
        *state = (struct sac_transfer_state){.total = -1};
        rc = part->sink.restart(&part->sink, err);
        if (rc < 0)
            return rc;
    }
}

int sac_fetch_file(struct sac_fetcher *fetcher, const char *url, const char *path,
                   const struct sac_fetch_options *given, struct sac_fetch_result *ret,
                   struct sac_error *err)
{
    struct sac_fetch_options options = settle(given, FILE_BYTES_MAX);
    struct sac_transfer_state state = {.total = -1, .sums = options.sha256 || options.sha1};
    struct sac_fetch_result result = {0};
    struct sac_part part;
    int rc = sac_part_open(&part, path, url, &state, err);

    if (rc < 0)
        return rc;
    rc = fetch_checked(fetcher, &part, &options, &state, result.sha256, err);
    result.bytes = part.sink.have;
    result.resumes = state.resumes;
    if (rc == 0)
        rc = sac_part_commit(&part, err);
    part.keep = (rc == SAC_EIO || rc == SAC_ETIMEDOUT || rc == SAC_ECANCELED) && !state.hopeless;
    sac_part_close(&part);
    if (rc == 0 && ret)
        *ret = result;
    return rc;
}

/* ---- Pages ----------------------------------------------------------------- */

struct page {
    struct sac_sink sink; /* first */
    struct sac_buf *buf;
    size_t first;
};

static int page_restart(struct sac_sink *sink, struct sac_error *err)
{
    struct page *page = (struct page *)sink;

    (void)err;
    page->buf->len = page->first;
    sink->have = 0;
    return 0;
}

static int page_began(struct sac_sink *sink, const char *validator, struct sac_error *err)
{
    (void)sink, (void)validator, (void)err;
    return 0;
}

static int page_put(struct sac_sink *sink, const void *bytes, size_t size, struct sac_error *err)
{
    struct page *page = (struct page *)sink;

    sac_buf_put(page->buf, bytes, size);
    if (page->buf->failed)
        return sac_fail(err, SAC_ENOMEM, "out of memory");
    sink->have += (int64_t)size;
    return 0;
}

int sac_fetch_page(struct sac_fetcher *fetcher, const char *url,
                   const struct sac_fetch_options *given, struct sac_buf *ret,
                   struct sac_error *err)
{
    struct sac_fetch_options options = settle(given, PAGE_BYTES_MAX);
    struct sac_transfer_state state = {.total = -1};
    struct page page = {
        .sink = {.restart = page_restart, .put = page_put, .began = page_began},
        .buf = ret,
        .first = ret->len,
    };

    return try_on(fetcher, url, &options, &page.sink, &state, err);
}
