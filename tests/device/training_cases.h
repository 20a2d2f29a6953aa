/* The op cases as training runs them, and training's own: losses, and what differs from
 * the test phase. */
#ifndef SAC_TESTS_TRAINING_CASES_H
#define SAC_TESTS_TRAINING_CASES_H

#include "device/op_cases.h"

enum { SAC_TRAINING_OWN_MAX = 32 };

bool sac_training_goes_back(const struct sac_op_case *what);
/* Places where a difference means nothing, so that sources must keep off them. */
bool sac_training_has_kinks(const struct sac_op_case *what);
/* Without what is fused only for inference. */
struct sac_op_case sac_training_case(const struct sac_op_case *from);
struct sac_op_case sac_training_loss(const char *name, enum sac_op_kind kind,
                                     struct sac_shape scores, struct sac_shape labels);
/* A batch norm with what stands behind it, as a device may fuse them. */
struct sac_op_case sac_training_norm(const char *name, struct sac_shape shape, int weights,
                                     bool relu, bool stored);
/* Fills the list, and returns how many there are. */
int sac_training_own_cases(struct sac_op_case *list);

#endif
