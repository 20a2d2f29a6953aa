/* Any bytes as a net: refused with a sentence, or read, every blob too, and then
 * written and read again. */
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "formats/caffe.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void read_blobs(const Caffe__NetParameter *net)
{
    for (size_t i = 0; i < net->n_layer; i++) {
        for (size_t j = 0; j < net->layer[i]->n_blobs; j++) {
            struct sac_error err = {0};
            struct sac_caffe_blob blob;
            int rc = sac_caffe_blob_read(&blob, net->layer[i]->blobs[j], &err);
            if (rc != err.code)
                abort();
            if (rc == 0)
                sac_caffe_blob_done(&blob);
        }
    }
}

static void write_and_read(const Caffe__NetParameter *net)
{
    struct sac_buf out = {0};
    struct sac_error err = {0};
    struct sac_caffe_net again;

    if (sac_caffe_net_write(&out, net) != 0)
        abort();
    /* A written net may be empty, look like text, or stand at a limit. */
    if (sac_caffe_net_parse(&again, "written", out.data, out.len, &err) == 0)
        sac_caffe_net_done(&again);
    else if (err.code == SAC_EFORMAT && out.len > 0 && memchr(out.data, 0xa2, out.len) == out.data)
        abort();
    sac_buf_done(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct sac_error err = {0};
    struct sac_caffe_net net;
    int rc = sac_caffe_net_parse(&net, "fuzz", bytes, size, &err);

    if (rc != err.code || (rc != 0 && strncmp(err.text, "fuzz:", 5) != 0))
        abort();
    if (rc == 0) {
        read_blobs(net.net);
        write_and_read(net.net);
        sac_caffe_net_done(&net);
    }
    return 0;
}
