/*
 * Simplifications that need no device. Each keeps what the graph computes (up to
 * rounding) and its inputs and outputs. One thread a graph.
 */
#ifndef SAC_NET_PASSES_H
#define SAC_NET_PASSES_H

#include "device/graph.h"

/* Nodes whose results nobody uses, dropout (test phase), reshapes to the same
 * shape, concatenations and slices of one. */
void sac_pass_remove_dead(struct sac_graph *graph);

/* BatchNorm with stored statistics, and Scale and Bias by weights along the
 * channel axis, become AFFINE; neighbouring ones become one:
 * a = s/√(v + eps), b = t − m·a. */
int sac_pass_to_affine(struct sac_graph *graph, struct sac_error *err);

/* AFFINE behind a convolution, deconvolution or inner product whose result
 * nobody else uses goes into its weights: w' = w·a[out], bias' = bias·a + b. The
 * new constants' names say what was folded, so that packed copies are shared
 * across batch sizes. */
int sac_pass_fold_affine(struct sac_graph *graph, struct sac_error *err);

#endif
