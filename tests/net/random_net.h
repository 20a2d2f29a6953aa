/* Weights for nets that come without: numbers of a seed, such that activations keep their
 * size from layer to layer and every layer counts. */
#ifndef SAC_TESTS_RANDOM_NET_H
#define SAC_TESTS_RANDOM_NET_H

#include "net/net.h"

/* Convolutions and inner products U(±√(6/fan-in)), He's; normalisation near the identity. */
void sac_random_net_fill(struct sac_net *net, uint64_t seed);

#endif
