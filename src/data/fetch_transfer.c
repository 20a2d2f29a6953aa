/* One HTTP transfer by libcurl, its answer checked against what was asked. */
#include <curl/curl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "data/fetch_private.h"

enum { REDIRECTS_MAX = 5, HEADERS_MAX = 200 };

struct transfer {
    const char *url;
    const struct sac_fetch_options *options;
    struct sac_sink *sink;
    struct sac_transfer_state *state;
    struct sac_error *err; /* of the callbacks: these are final */
    int rc;
    int64_t asked;  /* the first byte that was asked for */
    int64_t status; /* of the answer whose headers are being read */
    int headers;
    int64_t length, range_first, range_total; /* -1: not said */
    char etag[SAC_VALIDATOR_MAX], date[SAC_VALIDATOR_MAX];
    bool begun, again;
};

/* ---- Headers --------------------------------------------------------------- */

static void start_answer(struct transfer *t, const char *line)
{
    const char *space = strchr(line, ' ');

    t->status = space ? strtol(space, NULL, 10) : 0;
    t->length = t->range_first = t->range_total = -1;
    t->etag[0] = t->date[0] = 0;
    t->headers = 0;
}

static int64_t number_or_none(const char *text)
{
    char *end;
    long long n = strtoll(text, &end, 10);

    return end == text || n < 0 ? -1 : n;
}

/* "bytes 200-1000/67589", "bytes 200-1000/\*" */
static void read_range(struct transfer *t, const char *value)
{
    int64_t first, last, total = -1;
    int used = 0;

    if (sscanf(value, "bytes %" SCNd64 "-%" SCNd64 "/%n", &first, &last, &used) < 2 || used == 0)
        return;
    if (value[used] != '*')
        total = number_or_none(value + used);
    if (first < 0 || last < first || (total >= 0 && last >= total))
        return;
    t->range_first = first;
    t->range_total = total;
}

static void keep_text(char to[SAC_VALIDATOR_MAX], const char *value)
{
    if (strlen(value) < SAC_VALIDATOR_MAX)
        strcpy(to, value);
}

static void read_header(struct transfer *t, const char *name, const char *value)
{
    if (strcasecmp(name, "Content-Length") == 0)
        t->length = number_or_none(value);
    else if (strcasecmp(name, "Content-Range") == 0)
        read_range(t, value);
    else if (strcasecmp(name, "ETag") == 0 && strncmp(value, "W/", 2) != 0)
        keep_text(t->etag, value); /* a weak one is no good for ranges */
    else if (strcasecmp(name, "Last-Modified") == 0)
        keep_text(t->date, value);
}

static int check_size(struct transfer *t, int64_t size)
{
    if (size <= t->options->bytes_max)
        return 0;
    return sac_fail(t->err, SAC_ELIMIT, "%s: more than the %" PRId64 " bytes that are allowed",
                    t->url, t->options->bytes_max);
}

static size_t on_header(char *bytes, size_t one, size_t size, void *context)
{
    struct transfer *t = context;
    char line[1024];

    size *= one;
    if (++t->headers > HEADERS_MAX)
        return 0;
    if (size >= sizeof line)
        return size; /* none that matters is so long */
    memcpy(line, bytes, size);
    line[size] = 0;
    line[strcspn(line, "\r\n")] = 0;
    char *colon = strchr(line, ':');
    if (strncmp(line, "HTTP/", 5) == 0) {
        start_answer(t, line);
    } else if (!line[0] && t->status == 200) {
        t->rc = check_size(t, t->length);
    } else if (colon) {
        *colon = 0;
        read_header(t, line, colon + 1 + strspn(colon + 1, " \t"));
    }
    return t->rc == 0 ? size : 0;
}

/* ---- The body -------------------------------------------------------------- */

/* The answer goes on where the sink stands, of the same whole? */
static bool continues(const struct transfer *t)
{
    return t->status == 206 && t->range_first == t->sink->have && t->asked > 0 &&
           (t->state->total < 0 || t->range_total < 0 || t->range_total == t->state->total);
}

static int begin_whole(struct transfer *t)
{
    int rc = t->sink->have > 0 ? t->sink->restart(t->sink, t->err) : 0;

    t->state->total = t->length;
    strcpy(t->state->validator, t->etag[0] ? t->etag : t->date);
    return rc == 0 ? t->sink->began(t->sink, t->state->validator, t->err) : rc;
}

/* What the status means, before the first byte. A negative rc ends the transfer. */
static int begin(struct transfer *t)
{
    t->begun = true;
    if (t->status == 200)
        return begin_whole(t);
    if (continues(t)) {
        t->state->resumes++;
        if (t->range_total >= 0)
            t->state->total = t->range_total;
        return check_size(t, t->state->total);
    }
    if (t->asked > 0 && (t->status == 206 || t->status == 416)) {
        t->state->lied = t->again = true;
        return SAC_EIO;
    }
    if (t->status >= 500 || t->status == 408 || t->status == 429) {
        t->again = true;
        return SAC_EIO;
    }
    bool none = t->status == 403 || t->status == 404 || t->status == 410;
    return sac_fail(t->err, none ? SAC_ENOENT : SAC_EIO, "%s: the server answers %" PRId64, t->url,
                    t->status);
}

static size_t on_body(char *bytes, size_t one, size_t size, void *context)
{
    struct transfer *t = context;

    size *= one;
    if (!t->begun)
        t->rc = begin(t);
    if (t->rc == 0)
        t->rc = check_size(t, t->sink->have + (int64_t)size);
    if (t->rc == 0)
        t->rc = t->sink->put(t->sink, bytes, size, t->err);
    return t->rc == 0 ? size : CURL_WRITEFUNC_ERROR;
}

static int on_progress(void *context, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    struct transfer *t = context;

    (void)a, (void)b, (void)c, (void)d;
    if (!t->options->progress ||
        t->options->progress(t->options->context, t->sink->have, t->state->total))
        return 0;
    t->rc = sac_fail(t->err, SAC_ECANCELED, "%s: stopped", t->url);
    return 1;
}

/* ---- Setting it up --------------------------------------------------------- */

/* The part that is missing, if there is a way to know that it fits. */
static int ask_for_rest(struct transfer *t, CURL *curl, struct curl_slist **headers)
{
    char text[SAC_VALIDATOR_MAX + 20];
    const struct sac_transfer_state *state = t->state;

    if (t->sink->have == 0)
        return 0;
    if (state->lied || (!state->validator[0] && !state->sums))
        return t->sink->restart(t->sink, t->err);
    t->asked = t->sink->have;
    snprintf(text, sizeof text, "%" PRId64 "-", t->asked);
    CURLcode code = curl_easy_setopt(curl, CURLOPT_RANGE, text);
    if (code == CURLE_OK && state->validator[0]) {
        snprintf(text, sizeof text, "If-Range: %s", state->validator);
        *headers = curl_slist_append(NULL, text);
        if (!*headers)
            code = CURLE_OUT_OF_MEMORY;
    }
    return code == CURLE_OK ? 0 : sac_fail(t->err, SAC_ENOMEM, "out of memory");
}

static CURLcode set_up(struct transfer *t, CURL *curl, const struct curl_slist *headers,
                       char *reason)
{
    bool https = strncasecmp(t->url, "https:", 6) == 0;
    long stall = t->options->stall_s;
    CURLcode code = curl_easy_setopt(curl, CURLOPT_URL, t->url);

#define SET(option, value)                                                                         \
    if (code == CURLE_OK)                                                                          \
    code = curl_easy_setopt(curl, CURLOPT_##option, value)
    SET(PROTOCOLS_STR, "http,https");
    SET(REDIR_PROTOCOLS_STR, https ? "https" : "http,https");
    SET(FOLLOWLOCATION, 1L);
    SET(MAXREDIRS, (long)REDIRECTS_MAX);
    SET(CONNECTTIMEOUT, stall);
    SET(LOW_SPEED_LIMIT, 1L);
    SET(LOW_SPEED_TIME, stall);
    SET(NOSIGNAL, 1L);
    SET(USERAGENT, "saccade/" SACCADE_VERSION);
    SET(ERRORBUFFER, reason);
    SET(HTTPHEADER, headers);
    SET(HEADERFUNCTION, on_header);
    SET(HEADERDATA, t);
    SET(WRITEFUNCTION, on_body);
    SET(WRITEDATA, t);
    SET(NOPROGRESS, 0L);
    SET(XFERINFOFUNCTION, on_progress);
    SET(XFERINFODATA, t);
#undef SET
    return code;
}

static bool is_hopeless(CURLcode code)
{
    return code == CURLE_UNSUPPORTED_PROTOCOL || code == CURLE_URL_MALFORMAT ||
           code == CURLE_TOO_MANY_REDIRECTS || code == CURLE_PEER_FAILED_VERIFICATION ||
           code == CURLE_OUT_OF_MEMORY || code == CURLE_FAILED_INIT;
}

/* What became of it, once curl is done. */
static int conclude(struct transfer *t, CURLcode code, const char *reason, struct sac_error *err)
{
    struct sac_transfer_state *state = t->state;

    if (code == CURLE_OK && !t->begun)
        t->rc = begin(t); /* no body */
    if (t->rc < 0 && !t->again) {
        state->hopeless = t->rc != SAC_ECANCELED;
        return t->rc;
    }
    if (t->again && state->lied)
        return sac_fail(err, SAC_EIO, "%s: the server sent another part than it was asked for",
                        t->url);
    if (t->again)
        return sac_fail(err, SAC_EIO, "%s: the server answers %" PRId64, t->url, t->status);
    if (code != CURLE_OK) {
        state->hopeless = is_hopeless(code);
        return sac_fail(err, code == CURLE_OPERATION_TIMEDOUT ? SAC_ETIMEDOUT : SAC_EIO, "%s: %s",
                        t->url, reason[0] ? reason : curl_easy_strerror(code));
    }
    if (state->total >= 0 && t->sink->have != state->total) {
        state->lied |= t->sink->have > state->total;
        return sac_fail(err, SAC_EIO, "%s: %" PRId64 " of %" PRId64 " bytes came", t->url,
                        t->sink->have, state->total);
    }
    state->whole = true;
    return 0;
}

int sac_transfer_run(struct sac_fetcher *fetcher, const char *url,
                     const struct sac_fetch_options *options, struct sac_sink *sink,
                     struct sac_transfer_state *state, struct sac_error *err)
{
    char reason[CURL_ERROR_SIZE] = "";
    struct curl_slist *headers = NULL;
    struct transfer t = {
        .url = url, .options = options, .sink = sink, .state = state, .err = err, .length = -1};
    CURL *curl = fetcher->curl;

    curl_easy_reset(curl); /* the connections stay */
    int rc = ask_for_rest(&t, curl, &headers);
    if (rc == 0) {
        state->lied = false;
        CURLcode code = set_up(&t, curl, headers, reason);
        if (code == CURLE_OK)
            code = curl_easy_perform(curl);
        rc = conclude(&t, code, reason, err);
    }
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, NULL);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, NULL);
    curl_slist_free_all(headers);
    return rc;
}

int sac_fetcher_new(struct sac_fetcher **ret, struct sac_error *err)
{
    struct sac_fetcher *fetcher = calloc(1, sizeof *fetcher);

    if (fetcher && curl_global_init(CURL_GLOBAL_DEFAULT) == 0)
        fetcher->curl = curl_easy_init();
    if (!fetcher || !fetcher->curl) {
        free(fetcher);
        return sac_fail(err, SAC_ENOMEM, "libcurl could not be started");
    }
    *ret = fetcher;
    return 0;
}

void sac_fetcher_free(struct sac_fetcher *fetcher)
{
    if (!fetcher)
        return;
    curl_easy_cleanup(fetcher->curl);
    free(fetcher);
    curl_global_cleanup();
}
