/* Any bytes as a net: layers set up, shapes inferred, the graph made. A net whose
 * shapes are refused must say why. */
#include <assert.h>

#include "net/net.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct sac_net_options options = {0};
    struct sac_error err = {0};
    struct sac_net *net = NULL;
    int rc = sac_net_parse(&net, "fuzz", bytes, size, &options, &err);

    assert(rc == err.code && (rc == 0 || err.text[0]));
    if (rc == 0) {
        assert(sac_net_layer_count(net) >= 0);
        sac_net_free(net);
    }
    return 0;
}
