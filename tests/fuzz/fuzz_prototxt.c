/* Any text: refused with a sentence, or read, printed, and then read and printed
 * again to the same text. */
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/buf.h"
#include "formats/caffe.h"
#include "formats/prototxt.h"
#include "formats/upgrade.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void print(struct sac_buf *out, const ProtobufCMessage *message)
{
    if (sac_prototxt_print(out, message) != 0)
        abort();
}

static void read_again(const struct sac_buf *text, const ProtobufCMessageDescriptor *descriptor)
{
    struct sac_arena *arena = sac_arena_new(0);
    struct sac_error err = {0};
    struct sac_buf again = {0};
    ProtobufCMessage *message = NULL;

    if (sac_prototxt_parse(&message, descriptor, "printed", (const char *)text->data, text->len,
                           arena, &err) != 0)
        abort();
    print(&again, message);
    if (again.len != text->len || (text->len && memcmp(again.data, text->data, text->len) != 0))
        abort();
    sac_buf_done(&again);
    sac_arena_free(arena);
}

static void read(const uint8_t *bytes, size_t size, const ProtobufCMessageDescriptor *descriptor)
{
    struct sac_arena *arena = sac_arena_new(2 * size + (1 << 20));
    struct sac_error err = {0};
    struct sac_buf text = {0};
    ProtobufCMessage *message = NULL;
    int rc =
        sac_prototxt_parse(&message, descriptor, "fuzz", (const char *)bytes, size, arena, &err);

    if (rc != err.code || (rc != 0 && strncmp(err.text, "fuzz:", 5) != 0))
        abort();
    if (rc == 0) {
        print(&text, message);
        read_again(&text, descriptor);
        if (descriptor == &caffe__net_parameter__descriptor)
            sac_caffe_upgrade_net((Caffe__NetParameter *)message, arena, &err);
        else
            sac_caffe_upgrade_solver((Caffe__SolverParameter *)message, arena, &err);
        sac_buf_clear(&text);
        print(&text, message);
    }
    sac_buf_done(&text);
    sac_arena_free(arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    read(bytes, size, &caffe__net_parameter__descriptor);
    read(bytes, size, &caffe__solver_parameter__descriptor);
    return 0;
}
