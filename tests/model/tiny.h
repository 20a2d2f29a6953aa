/*
 * A net of few operations (convolution, ReLU, pooling, inner product, softmax) as a
 * model directory: 3 × 16 × 16 in, 6 classes. Its weights follow from a seed.
 */
#ifndef SAC_TESTS_TINY_H
#define SAC_TESTS_TINY_H

#include <stdint.h>

/* A fresh folder, that lives until the program ends. */
const char *sac_test_tiny(const char *name, uint64_t seed, const char *model_json);

enum { SAC_TINY_PIXELS = 16 * 16 * 3, SAC_TINY_CLASSES = 6 };

#endif
