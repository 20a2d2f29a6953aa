#include "net/random_net.h"

#include <math.h>
#include <string.h>

#include "net/make_graph.h"

/* Of the layer that owns the parameter "conv1/0". */
static const char *type_of(const struct sac_net *net, const char *param)
{
    size_t len = (size_t)(strrchr(param, '/') - param);

    for (int i = 0; i < sac_net_layer_count(net); i++) {
        const char *name = sac_layer_name(sac_net_layer(net, i));
        if (strlen(name) == len && strncmp(name, param, len) == 0)
            return sac_layer_type_name(sac_net_layer(net, i));
    }
    return "";
}

static void spread(const struct sac_net_param *p, uint64_t seed, float middle, float width)
{
    make_floats(p->data, p->count, seed);
    for (int64_t i = 0; i < p->count; i++)
        p->data[i] = middle + width * p->data[i];
}

/* BatchNorm: means, variances, and the factor that both were summed with. */
static void fill_norm(const struct sac_net_param *p, uint64_t seed, int index)
{
    spread(p, seed, index == 0 ? 0 : 1, index == 0 ? .1f : index == 1 ? .4f : 0);
}

static void fill(const struct sac_net *net, const struct sac_net_param *p, uint64_t seed)
{
    const char *type = type_of(net, p->name);
    int index = strrchr(p->name, '/')[1] - '0';
    int64_t fan_in = p->shape.rank > 1 && p->shape.dim[0] > 0 ? p->count / p->shape.dim[0] : 1;

    if (strcmp(type, "BatchNorm") == 0)
        fill_norm(p, seed, index);
    else if (strcmp(type, "Scale") == 0)
        spread(p, seed, index == 0 ? 1 : 0, .2f);
    else if (strcmp(type, "PReLU") == 0)
        spread(p, seed, .25f, .1f);
    else if (index == 0)
        spread(p, seed, 0, sqrtf(6 / (float)fan_in));
    else
        spread(p, seed, 0, .1f);
}

void sac_random_net_fill(struct sac_net *net, uint64_t seed)
{
    for (int i = 0; i < sac_net_param_count(net); i++) {
        struct sac_net_param p;
        sac_net_param(net, i, &p);
        fill(net, &p, seed + (uint64_t)i);
    }
}
