/* POST /api/classify, /api/models/NAME/classify and /api. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "http/multipart.h"
#include "serve/service.h"

/* What a request asks for, beside its pictures. */
struct wish {
    struct sac_served *served;
    int topk, timeout_ms;
    enum sac_call_format format;
};

/* A browser says where the page came from: only our own may use us. */
static bool is_foreign(const struct sac_http_request *request)
{
    struct sac_http_text origin = sac_http_request_header(request, "Origin");
    struct sac_http_text host = sac_http_request_header(request, "Host");

    if (!origin.at)
        return false;
    const char *slashes = memmem(origin.at, origin.size, "://", 3);
    if (!slashes)
        return true; /* "null": a sandbox or a file */
    size_t size = origin.size - (size_t)(slashes + 3 - origin.at);
    return size != host.size || strncasecmp(slashes + 3, host.at, size) != 0;
}

static struct sac_served *find_model(struct sac_service *service, const char *name, size_t size)
{
    for (int m = 0; m < service->options.model_count; m++) {
        const char *other = sac_model_name(service->served[m].model);
        if (strlen(other) == size && memcmp(other, name, size) == 0)
            return &service->served[m];
    }
    return NULL;
}

static void reply_no_model(struct sac_service *service, struct sac_http_request *request,
                           const char *name, size_t size)
{
    struct sac_buf names = {0};

    for (int m = 0; m < service->options.model_count; m++)
        sac_buf_printf(&names, "%s%s", m ? ", " : "", sac_model_name(service->served[m].model));
    sac_buf_put(&names, "", 1);
    sac_http_reply_error(request, 404, "no model is called \"%.*s\"; there is: %s",
                         size > 64 ? 64 : (int)size, name,
                         names.failed ? "" : (const char *)names.data);
    sac_buf_done(&names);
}

/* A whole number of `least` to `most`, and nothing else. */
static bool parse_number(const char *text, size_t size, int least, int most, int *ret)
{
    int64_t number = 0;

    if (size == 0 || size > 9)
        return false;
    for (size_t i = 0; i < size; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        number = number * 10 + (text[i] - '0');
    }
    if (number < least || number > most)
        return false;
    *ret = (int)number;
    return true;
}

/* False: the request has been answered. */
static bool read_options(struct sac_http_request *request, struct wish *wish)
{
    const struct sac_served *served = wish->served;
    struct sac_http_text timeout = sac_http_request_header(request, "X-Timeout-Ms");
    char topk[16];

    wish->topk = sac_model_topk(served->model);
    wish->timeout_ms = sac_model_timeout_ms(served->model);
    if (sac_http_request_query(request, "topk", topk, sizeof topk) &&
        !parse_number(topk, strlen(topk), 1, served->topk_max, &wish->topk)) {
        sac_http_reply_error(request, 400, "topk=%s: expected 1 to %d", topk, served->topk_max);
        return false;
    }
    if (timeout.at &&
        !parse_number(timeout.at, timeout.size, 1, SAC_TIMEOUT_MS_MAX, &wish->timeout_ms)) {
        sac_http_reply_error(request, 400, "X-Timeout-Ms: expected 1 to %d milliseconds",
                             SAC_TIMEOUT_MS_MAX);
        return false;
    }
    return true;
}

static void submit(struct sac_service *service, struct sac_http_request *request,
                   const struct wish *wish, const struct sac_multipart_part *parts, int count)
{
    struct sac_call *call = sac_call_new(service, wish->served, request, count);

    if (!call) {
        sac_http_reply_error(request, 503, "out of memory for %d pictures", count);
        return;
    }
    call->format = wish->format;
    call->topk = wish->topk;
    for (int i = 0; i < count; i++) {
        call->pictures[i].bytes = parts[i].bytes;
        call->pictures[i].file = parts[i].filename;
    }
    sac_call_submit(call, wish->timeout_ms);
}

/* A picture's part: a file, or SINGA's field `image`, which need not be one. A
 * browser sends a file field where nothing was chosen without a name and bytes. */
static bool is_picture(const struct sac_multipart_part *part)
{
    bool image = part->name.size == 5 && memcmp(part->name.at, "image", 5) == 0;

    return (part->filename.at || image) && (part->filename.size > 0 || part->bytes.size > 0);
}

/* Collects the parts that are pictures. An empty one has its own error later. */
static int read_parts(struct sac_multipart *multipart, const struct wish *wish,
                      struct sac_multipart_part *parts, struct sac_error *err)
{
    struct sac_multipart_part part;
    int most = wish->format == SAC_ANSWER_LINES ? 1 : SAC_PICTURES_MAX, count = 0, rc;

    while ((rc = sac_multipart_next(multipart, &part, err)) > 0) {
        if (!is_picture(&part))
            continue;
        if (count == most)
            return sac_fail(err, SAC_ELIMIT, "more than %d picture%s in one request", most,
                            most > 1 ? "s" : "");
        parts[count++] = part;
    }
    if (rc == 0 && count == 0)
        return sac_fail(err, SAC_EFORMAT, "the form has no file: expected a picture in it");
    return rc < 0 ? rc : count;
}

static void submit_form(struct sac_service *service, struct sac_http_request *request,
                        struct wish *wish, struct sac_multipart *multipart)
{
    struct sac_multipart_part parts[SAC_PICTURES_MAX];
    struct sac_error err = {0};
    int count = read_parts(multipart, wish, parts, &err);

    if (count < 0) {
        sac_http_reply_error(request, sac_status_of(count), "%s", err.text);
        return;
    }
    if (count > 1)
        wish->format = SAC_ANSWER_JSON_LIST;
    submit(service, request, wish, parts, count);
}

static void submit_raw(struct sac_service *service, struct sac_http_request *request,
                       const struct wish *wish)
{
    const struct sac_multipart_part whole = {.bytes = sac_http_request_body(request)};

    submit(service, request, wish, &whole, 1);
}

/* Everything but which model and which format. */
static void classify(struct sac_service *service, struct sac_http_request *request,
                     struct wish *wish)
{
    struct sac_http_text type = sac_http_request_header(request, "Content-Type");
    struct sac_http_text body = sac_http_request_body(request);
    struct sac_multipart multipart;
    struct sac_error err = {0};

    if (!read_options(request, wish))
        return;
    if (body.size == 0) {
        sac_http_reply_error(request, 400, "the body is empty: expected a picture");
        return;
    }
    int rc = sac_multipart_init(&multipart, type, body, SAC_PICTURES_MAX * 2, &err);
    if (rc == 0)
        submit_form(service, request, wish, &multipart);
    else if (rc == SAC_EUNSUPPORTED && wish->format != SAC_ANSWER_LINES)
        submit_raw(service, request, wish);
    else if (rc == SAC_EUNSUPPORTED)
        sac_http_reply_error(request, 415, "expected multipart/form-data with a field `image`");
    else
        sac_http_reply_error(request, sac_status_of(rc), "%s", err.text);
}

/* False: answered with 403. */
static bool admit(struct sac_http_request *request)
{
    bool foreign = is_foreign(request);

    if (foreign)
        sac_http_reply_error(request, 403, "a page of another origin may not use this server");
    return !foreign;
}

void sac_route_classify(struct sac_http_request *request, void *user)
{
    struct sac_service *service = user;
    struct wish wish = {.served = &service->served[0]};
    char name[256];

    if (!admit(request))
        return;
    if (sac_http_request_query(request, "model", name, sizeof name))
        wish.served = find_model(service, name, strlen(name));
    if (wish.served)
        classify(service, request, &wish);
    else
        reply_no_model(service, request, name, strlen(name));
}

void sac_route_classify_model(struct sac_http_request *request, void *user)
{
    static const char before[] = "/api/models/", after[] = "/classify";
    struct sac_service *service = user;
    const char *name = sac_http_request_path(request) + sizeof before - 1;
    size_t size = strlen(name);
    struct wish wish = {0};

    if (!admit(request))
        return;
    if (size < sizeof after || strcmp(name + size - (sizeof after - 1), after) != 0) {
        sac_http_reply_error(request, 404, "expected /api/models/NAME/classify");
        return;
    }
    size -= sizeof after - 1;
    wish.served = find_model(service, name, size);
    if (wish.served)
        classify(service, request, &wish);
    else
        reply_no_model(service, request, name, size);
}

void sac_route_singa(struct sac_http_request *request, void *user)
{
    struct sac_service *service = user;
    struct wish wish = {.served = &service->served[0], .format = SAC_ANSWER_LINES};

    if (admit(request))
        classify(service, request, &wish);
}
