/* Any bytes as a connection's: what the framing makes of them must not depend
 * on how they were cut. Each input is read whole and byte by byte; where it is
 * refused for several reasons, which of them is found first may differ. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "http/framing.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static const struct sac_http_limits limits = {.body_bytes_max = 4096,
                                              .header_bytes_max = 1024,
                                              .header_count_max = 10,
                                              .line_bytes_max = 256,
                                              .chunk_count_max = 20,
                                              .chunk_extension_bytes_max = 64};

struct outcome {
    enum sac_framing_result head, chunks;
    bool has_body;
    uint64_t length;
    size_t used;
    size_t body_size;
    uint8_t body[4096];
};

/* One message from the bytes, `step` of them at a time. */
static void read_message(struct outcome *ret, const char *bytes, size_t size, size_t step)
{
    char room[64];
    struct sac_framing framing = {0};
    struct sac_framing_head head;
    struct sac_framing_body body = {.size_max = limits.body_bytes_max};
    enum sac_framing_result rc = SAC_FRAMING_MORE;
    size_t at = 0;

    memset(ret, 0, sizeof *ret);
    sac_framing_head_init(&head, room, sizeof room);
    sac_framing_start(&framing, &limits);
    while (at < size && rc == SAC_FRAMING_MORE) {
        size_t used = 0;
        rc = sac_framing_read_head(&framing, &head, bytes + at, size - at < step ? size - at : step,
                                   &used);
        at += used;
    }
    ret->head = rc;
    if (rc == SAC_FRAMING_DONE && head.chunked) {
        rc = SAC_FRAMING_MORE;
        while (at < size && rc == SAC_FRAMING_MORE) {
            size_t used = 0;
            rc = sac_framing_read_chunks(&framing, &body, bytes + at,
                                         size - at < step ? size - at : step, &used);
            at += used;
        }
        ret->chunks = rc;
    }
    assert(body.size <= sizeof ret->body && at <= size);
    if (body.size > 0)
        memcpy(ret->body, body.data, body.size);
    ret->body_size = body.size;
    if (ret->head == SAC_FRAMING_DONE) {
        ret->has_body = head.chunked;
        ret->length = head.content_length;
    }
    if (rc == SAC_FRAMING_DONE)
        ret->used = at;
    free(body.data);
    sac_framing_head_done(&head);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static struct outcome whole, cut;

    read_message(&whole, (const char *)bytes, size, size ? size : 1);
    read_message(&cut, (const char *)bytes, size, 1);
    assert(whole.head == cut.head);
    assert(whole.chunks == cut.chunks);
    assert(whole.has_body == cut.has_body && whole.length == cut.length);
    assert(whole.used == cut.used);
    if (whole.chunks == SAC_FRAMING_DONE) {
        assert(whole.body_size == cut.body_size);
        assert(memcmp(whole.body, cut.body, whole.body_size) == 0);
    }
    return 0;
}
