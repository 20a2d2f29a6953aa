#include "model/tiny.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "support/support.h"

static const char deploy[] =
    "name: \"tiny\"\n"
    "input: \"data\" input_shape { dim: 1 dim: 3 dim: 16 dim: 16 }\n"
    "layer { name: \"conv\" type: \"Convolution\" bottom: \"data\" top: \"conv\"\n"
    "  convolution_param { num_output: 8 kernel_size: 3 pad: 1 } }\n"
    "layer { name: \"relu\" type: \"ReLU\" bottom: \"conv\" top: \"conv\" }\n"
    "layer { name: \"pool\" type: \"Pooling\" bottom: \"conv\" top: \"pool\"\n"
    "  pooling_param { pool: MAX kernel_size: 4 stride: 4 } }\n"
    "layer { name: \"fc\" type: \"InnerProduct\" bottom: \"pool\" top: \"fc\"\n"
    "  inner_product_param { num_output: 6 } }\n"
    "layer { name: \"prob\" type: \"Softmax\" bottom: \"fc\" top: \"prob\" }\n";

/* Protobuf's wire format: a length-delimited field. */
static void put_varint(struct sac_buf *to, uint64_t value)
{
    for (; value >= 128; value >>= 7)
        sac_buf_put(to, &(uint8_t){(uint8_t)(value | 128)}, 1);
    sac_buf_put(to, &(uint8_t){(uint8_t)value}, 1);
}

static void put_field(struct sac_buf *to, int number, const void *bytes, size_t size)
{
    put_varint(to, (uint64_t)number << 3 | 2);
    put_varint(to, size);
    sac_buf_put(to, bytes, size);
}

/* BlobProto: shape = 7 { dim = 1 }, data = 5. */
static void put_blob(struct sac_buf *layer, const int *dim, int rank, double most, uint64_t *seed)
{
    struct sac_buf blob = {0}, shape = {0}, packed = {0};
    size_t count = 1;

    for (int i = 0; i < rank; i++) {
        put_varint(&packed, (uint64_t)dim[i]);
        count *= (size_t)dim[i];
    }
    put_field(&shape, 1, packed.data, packed.len);
    put_field(&blob, 7, shape.data, shape.len);
    packed.len = 0;
    for (size_t i = 0; i < count; i++) {
        *seed = *seed * 6364136223846793005ull + 1442695040888963407ull;
        float value = (float)(((double)(*seed >> 40) / (1 << 23) - 1) * most);
        sac_buf_put(&packed, &value, sizeof value);
    }
    put_field(&blob, 5, packed.data, packed.len);
    put_field(layer, 7, blob.data, blob.len);
    sac_buf_done(&blob);
    sac_buf_done(&shape);
    sac_buf_done(&packed);
}

/* NetParameter.layer = 100: LayerParameter name = 1, type = 2, blobs = 7. */
static void put_layer(struct sac_buf *net, const char *name, const char *type, const int *dim,
                      int rank, double most, uint64_t *seed)
{
    struct sac_buf layer = {0};

    put_field(&layer, 1, name, strlen(name));
    put_field(&layer, 2, type, strlen(type));
    put_blob(&layer, dim, rank, most, seed);
    put_blob(&layer, dim, 1, most, seed);
    put_field(net, 100, layer.data, layer.len);
    sac_buf_done(&layer);
}

static void write_in(const char *name, const char *file, const void *bytes, size_t size)
{
    char path[256];

    snprintf(path, sizeof path, "%s/%s", name, file);
    sac_test_write(path, bytes, size);
}

const char *sac_test_tiny(const char *name, uint64_t seed, const char *model_json)
{
    static char dirs[8][512];
    static int made;
    static const char labels[] = "ant\nbee\ncat\ndog\nemu\nfox\n";
    const int conv[] = {8, 3, 3, 3}, fc[] = {6, 128};
    struct sac_buf net = {0};
    char *dir = dirs[made++ % 8];

    snprintf(dir, sizeof dirs[0], "%s/%s", sac_test_tmpdir(), name);
    assert_int_equal(mkdir(dir, 0700), 0);
    put_layer(&net, "conv", "Convolution", conv, 4, 0.02, &seed);
    put_layer(&net, "fc", "InnerProduct", fc, 2, 0.2, &seed);
    write_in(name, "deploy.prototxt", deploy, sizeof deploy - 1);
    write_in(name, "tiny.caffemodel", net.data, net.len);
    write_in(name, "labels.txt", labels, sizeof labels - 1);
    write_in(name, "model.json", model_json, strlen(model_json));
    sac_buf_done(&net);
    return dir;
}
