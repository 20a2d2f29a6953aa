/* Any bytes as a net, text or binary: what is read can be written as a binary
 * file, and that file reads to the same net again. */
#include <assert.h>
#include <string.h>

#include "base/buf.h"
#include "formats/caffe.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void write_again(const struct sac_caffe_net *net)
{
    struct sac_error err = {0};
    struct sac_caffe_net again;
    struct sac_buf first = {0}, second = {0};

    if (sac_caffe_net_write(&first, net->net) == 0 && !first.failed &&
        sac_caffe_net_parse(&again, "again", first.data, first.len, &err) == 0) {
        int rc = sac_caffe_net_write(&second, again.net);
        assert(rc == 0 && first.len == second.len);
        assert(memcmp(first.data, second.data, first.len) == 0);
        sac_caffe_net_done(&again);
    }
    sac_buf_done(&first);
    sac_buf_done(&second);
}

static void read_blobs(const struct sac_caffe_net *net)
{
    for (size_t i = 0; i < net->net->n_layer; i++) {
        const Caffe__LayerParameter *layer = net->net->layer[i];
        for (size_t b = 0; b < layer->n_blobs; b++) {
            struct sac_error err = {0};
            struct sac_caffe_blob blob;
            if (sac_caffe_blob_read(&blob, layer->blobs[b], &err) == 0)
                sac_caffe_blob_done(&blob);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct sac_error err = {0};
    struct sac_caffe_net net;
    int rc = sac_caffe_net_parse(&net, "fuzz", bytes, size, &err);

    assert(rc == err.code && (rc == 0 || err.text[0]));
    if (rc == 0) {
        read_blobs(&net);
        write_again(&net);
        sac_caffe_net_done(&net);
    }
    return 0;
}
