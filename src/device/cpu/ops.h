/* The operation entries of the CPU device's table (device/device.h). */
#ifndef SAC_DEVICE_CPU_OPS_H
#define SAC_DEVICE_CPU_OPS_H

#include "device/device.h"

int sac_cpu_op_query(struct sac_device *device, const struct sac_graph *graph,
                     const struct sac_node *node, const struct sac_op_options *options,
                     struct sac_op_caps *ret, struct sac_error *err);
int sac_cpu_op_prepare(struct sac_device *device, struct sac_store *store,
                       const struct sac_graph *graph, const struct sac_node *node,
                       const struct sac_op_options *options, const struct sac_binding *binding,
                       struct sac_op **ret, struct sac_error *err);
void sac_cpu_op_free(struct sac_op *op);
int sac_cpu_op_forward(struct sac_op *op, struct sac_stream *stream, struct sac_error *err);
int sac_cpu_op_backward_data(struct sac_op *op, struct sac_stream *stream, struct sac_error *err);
int sac_cpu_op_backward_weights(struct sac_op *op, struct sac_stream *stream,
                                struct sac_error *err);
int sac_cpu_lower(struct sac_device *device, struct sac_graph *graph,
                  const struct sac_op_options *options, struct sac_error *err);

#endif
