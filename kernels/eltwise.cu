/* Sums, products and maxima of several tensors. */
#include "kernels/element.h"
#include "kernels/kernels.h"

enum { SOURCES = 8 }; /* a launch; more take another that goes on from y */

struct sources {
    const void *x[SOURCES];
    float coeff[SOURCES];
    int count;
};

template <int V>
SAC_KERNEL eltwise(struct sources s, int method, void *y, int type, uint32_t count, bool relu,
                   float slope)
{
    SAC_EACH(unit, count / V)
    {
        uint32_t i = unit * V;
        sac_vector<V> out = sac_load_vector<V>(s.x[0], type, i);
        for (int k = 0; k < V && method == SAC_ELTWISE_SUM; k++)
            out.v[k] *= s.coeff[0];
        for (int n = 1; n < s.count; n++) {
            sac_vector<V> x = sac_load_vector<V>(s.x[n], type, i);
            for (int k = 0; k < V; k++) {
                if (method == SAC_ELTWISE_SUM)
                    out.v[k] += x.v[k] * s.coeff[n];
                else if (method == SAC_ELTWISE_PROD)
                    out.v[k] *= x.v[k];
                else
                    out.v[k] = x.v[k] > out.v[k] ? x.v[k] : out.v[k];
            }
        }
        for (int k = 0; k < V; k++)
            if (relu && out.v[k] < 0)
                out.v[k] *= slope;
        sac_store_vector<V>(y, type, i, out);
    }
}

static bool by_eights(const struct sac_kernel_eltwise *p, const struct sources *s)
{
    for (int i = 0; i < s->count; i++)
        if (!sac_takes_eights(s->x[i], p->type))
            return false;
    return p->count % 8 == 0 && sac_takes_eights(p->y, p->type);
}

static void launch(const struct sac_kernel_eltwise *p, const struct sources *s, bool last,
                   cudaStream_t stream)
{
    bool relu = p->relu && last;
    int method = p->method;

    if (by_eights(p, s))
        SAC_LAUNCH(eltwise<8>, sac_blocks(p->count / 8), SAC_BLOCK, 0, stream, *s, method, p->y,
                   p->type, p->count, relu, p->slope);
    else
        SAC_LAUNCH(eltwise<1>, sac_blocks(p->count), SAC_BLOCK, 0, stream, *s, method, p->y,
                   p->type, p->count, relu, p->slope);
}

cudaError_t sac_kernel_eltwise(const struct sac_kernel_eltwise *p, cudaStream_t stream)
{
    struct sources s = {};

    for (int i = 0; i < p->sources && p->count > 0; i++) {
        s.x[s.count] = p->x[i];
        s.coeff[s.count++] = p->coeff ? p->coeff[i] : 1;
        if (s.count < SOURCES && i + 1 < p->sources)
            continue;
        launch(p, &s, i + 1 == p->sources, stream);
        s.x[0] = p->y;
        s.coeff[0] = 1;
        s.count = 1;
    }
    return cudaGetLastError();
}
