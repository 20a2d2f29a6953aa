#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "model/answer.h"
#include "serve/service.h"

int sac_status_of(int code)
{
    switch (code) {
    case 0:
        return 200;
    case SAC_EUNSUPPORTED:
        return 415;
    case SAC_EFORMAT:
    case SAC_EINVAL:
        return 400;
    case SAC_ELIMIT:
        return 413;
    case SAC_ENOENT:
        return 404;
    case SAC_EBUSY:
    case SAC_ETIMEDOUT:
    case SAC_ECANCELED:
    case SAC_EDEVICE:
    case SAC_ENOMEM:
        return 503;
    default:
        return 500;
    }
}

/* Sums over the pictures that ran; their batches ran at the same time, so the
 * longest of those counts. */
static void put_timing(const struct sac_call *call, char *headers, size_t size)
{
    uint64_t receive =
        sac_http_request_complete_ns(call->request) - sac_http_request_started_ns(call->request);
    uint64_t decode = 0, queue = 0, compute = 0;

    for (int i = 0; i < call->count; i++) {
        const struct sac_picture *picture = &call->pictures[i];
        /* One that never started has waited until now. */
        uint64_t until = picture->job.started_ns ? picture->job.started_ns : sac_clock_ns();
        uint64_t arrived = picture->job.arrived_ns ? picture->job.arrived_ns : until;
        uint64_t waited = picture->waited_ns + (until > arrived ? until - arrived : 0);
        decode += picture->decode_ns;
        queue = waited > queue ? waited : queue;
        compute = picture->compute_ns > compute ? picture->compute_ns : compute;
    }
    snprintf(headers, size,
             "Server-Timing: receive;dur=%.3f, decode;dur=%.3f, queue;dur=%.3f, "
             "compute;dur=%.3f\r\n",
             (double)receive / 1e6, (double)decode / 1e6, (double)queue / 1e6,
             (double)compute / 1e6);
}

/* label:prob<br/> a line: SINGA's. */
static void put_lines(struct sac_buf *buf, const struct sac_model *model,
                      const struct sac_topk_pair *pairs, int count)
{
    for (int i = 0; i < count; i++) {
        sac_buf_put_html(buf, sac_model_label(model, pairs[i].index));
        sac_buf_printf(buf, ":%.4f<br/>\n", (double)pairs[i].value);
    }
}

static void put_text(struct sac_buf *buf, struct sac_http_text text)
{
    sac_buf_put_json(buf, text.at ? text.at : "", text.size);
}

static void put_list(struct sac_buf *buf, const struct sac_call *call)
{
    sac_buf_puts(buf, "[");
    for (int i = 0; i < call->count; i++) {
        const struct sac_picture *picture = &call->pictures[i];
        sac_buf_puts(buf, i ? ",{\"file\":" : "{\"file\":");
        put_text(buf, picture->file);
        if (picture->code == 0) {
            sac_buf_puts(buf, ",\"predictions\":");
            sac_answer_put_json(buf, call->served->model, picture->pairs, call->topk);
        } else {
            sac_buf_puts(buf, ",\"error\":");
            sac_buf_put_json(buf, picture->error, strlen(picture->error));
        }
        sac_buf_puts(buf, "}");
    }
    sac_buf_puts(buf, "]");
}

static int retry_ms_of(const struct sac_call *call)
{
    int most = 0;

    for (int i = 0; i < call->count; i++)
        most = call->pictures[i].retry_ms > most ? call->pictures[i].retry_ms : most;
    return most;
}

/* One picture that failed, or several of which each was refused for want of
 * time or room: the status says it. */
static int failure(const struct sac_call *call)
{
    for (int i = 0; i < call->count; i++) {
        int status = sac_status_of(call->pictures[i].code);
        if (call->count > 1 && status != 503)
            return 200;
        if (status == 200)
            return 200;
    }
    return sac_status_of(call->pictures[0].code);
}

static void put_headers(const struct sac_call *call, int status, char *headers, size_t size)
{
    put_timing(call, headers, size);
    size_t used = strlen(headers);
    if (status == 503)
        snprintf(headers + used, size - used, "Retry-After: %d\r\n",
                 (retry_ms_of(call) + 999) / 1000 > 1 ? (retry_ms_of(call) + 999) / 1000 : 1);
}

static void put_body(struct sac_buf *buf, const struct sac_call *call, int status)
{
    const struct sac_picture *first = &call->pictures[0];

    if (status != 200) {
        sac_buf_puts(buf, "{\"error\":");
        sac_buf_put_json(buf, first->error, strlen(first->error));
        sac_buf_puts(buf, "}\n");
    } else if (call->format == SAC_ANSWER_LINES) {
        put_lines(buf, call->served->model, first->pairs, call->topk);
    } else if (call->format == SAC_ANSWER_JSON_LIST) {
        put_list(buf, call);
    } else {
        sac_answer_put_json(buf, call->served->model, first->pairs, call->topk);
    }
}

void sac_call_reply(struct sac_call *call)
{
    struct sac_buf *buf = &call->service->scratch;
    char headers[256];
    int status = failure(call);

    sac_buf_clear(buf);
    put_headers(call, status, headers, sizeof headers);
    put_body(buf, call, status);
    if (buf->failed) {
        sac_http_reply_error(call->request, 503, "out of memory for the answer");
        return;
    }
    const struct sac_http_response response = {
        .status = status,
        .content_type = status == 200 && call->format == SAC_ANSWER_LINES
                            ? "text/html; charset=utf-8"
                            : "application/json",
        .body = buf->data,
        .body_size = buf->len,
        .headers = headers,
    };
    sac_http_reply(call->request, &response);
}
