/* Any bytes as a multipart body: the parts lie within the body, in order, and
 * there are no more of them than allowed. The first byte chooses the boundary. */
#include <assert.h>
#include <string.h>

#include "http/multipart.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void check_inside(struct sac_http_text body, struct sac_http_text text)
{
    if (text.at == NULL)
        return;
    assert(text.at >= body.at && text.at + text.size <= body.at + body.size);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static const char *const types[] = {
        "multipart/form-data; boundary=x",
        "multipart/form-data; boundary=\"--\"",
        "multipart/form-data; boundary=----WebKitFormBoundary7MA4YWxkTrZu0gW",
    };
    enum { PARTS_MAX = 8 };
    struct sac_multipart multipart = {0};
    struct sac_multipart_part part;
    struct sac_error err = {0};
    const char *last = NULL;
    int parts = 0;

    if (size == 0)
        return 0;
    const char *type = types[bytes[0] % 3];
    struct sac_http_text body = {(const char *)bytes + 1, size - 1};
    if (sac_multipart_init(&multipart, (struct sac_http_text){type, strlen(type)}, body, PARTS_MAX,
                           &err) != 0)
        return 0;
    while (sac_multipart_next(&multipart, &part, &err) == 1) {
        check_inside(body, part.name);
        check_inside(body, part.filename);
        check_inside(body, part.content_type);
        check_inside(body, part.bytes);
        assert(!last || part.bytes.at >= last);
        last = part.bytes.at;
        assert(++parts <= PARTS_MAX);
    }
    return 0;
}
