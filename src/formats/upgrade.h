/*
 * Old nets and solvers made current, by the rules that Caffe's own upgrade
 * follows. New parts come from `arena`; old ones are shared, not copied.
 * Sentences name the layer, not the file. Any thread.
 */
#ifndef SAC_FORMATS_UPGRADE_H
#define SAC_FORMATS_UPGRADE_H

#include "base/arena.h"
#include "base/error.h"
#include "caffe.pb-c.h"

#define SAC_CAFFE_LAYERS_MAX 16384

int sac_caffe_upgrade_net(Caffe__NetParameter *net, struct sac_arena *arena, struct sac_error *err);
/* Nets that are written inside the solver as well. */
int sac_caffe_upgrade_solver(Caffe__SolverParameter *solver, struct sac_arena *arena,
                             struct sac_error *err);

#endif
