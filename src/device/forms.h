/*
 * The forms that devices usually give values: channels-last for images, plain for
 * the rest, in one type; scores that only softmax, top-k or the caller read stay
 * fp32. A device starts from them and changes what its kernels want otherwise.
 * Any thread.
 */
#ifndef SAC_DEVICE_FORMS_H
#define SAC_DEVICE_FORMS_H

#include "device/device.h"

/* Fills src, dst, in_place and alias. `type`: what the precision stores; `training`: dropout
 * drops. */
void sac_usual_forms(const struct sac_graph *graph, const struct sac_node *node, enum sac_type type,
                     bool training, struct sac_op_caps *caps);

/* A value's 8 bits, as sac_quantize_graph wants them. */
struct sac_form sac_value_eight(const struct sac_value *value, int layout);

/* Of one forward, for the report. */
double sac_op_flops(const struct sac_graph *graph, const struct sac_node *node);

/* Batch norms do the Scale and the ReLU behind them, in training too. */
void sac_fuse_norms(struct sac_graph *graph);

/* Lets convolutions, inner products and sums do the ReLU behind them, and
 * convolutions the sum: for devices whose kernels take epilogues. */
void sac_fuse_epilogues(struct sac_graph *graph);

/* Where a pool is all that reads a concatenation of channels, its sources are pooled each,
 * and the results, which are smaller, concatenated: for devices whose pools write parts of
 * the channels. The same numbers. After quantization, which goes by the blobs' names. */
int sac_pool_before_concat(struct sac_graph *graph, struct sac_error *err);

/* Marks what runs in 8 bits: convolutions and inner products whose source has a range,
 * and the values between them. Max pooling, concatenations and reshapes pass 8 bits on,
 * so their sources and result have one scale; a value that reaches below 0 is s8, others
 * are u8, the scale the largest of the ranges over 127 or 255. After the epilogues are
 * fused. */
void sac_quantize_graph(struct sac_graph *graph, const struct sac_ranges *ranges);

#endif
