#include "net/rig.h"

#include "support/support.h"

struct rig rig_open(void)
{
    struct rig rig = {0};
    struct sac_error err = {0};

    assert_ok(sac_device_open(&rig.device, "cpu", &err), err);
    assert_ok(rig.device->table->store_new(rig.device, &rig.store, &err), err);
    assert_ok(rig.device->table->stream_new(rig.device, &rig.stream, &err), err);
    return rig;
}

void rig_close(struct rig *rig)
{
    rig->device->table->stream_free(rig->stream);
    rig->device->table->store_free(rig->store);
    sac_device_close(rig->device);
}

struct sac_plan *rig_plan(struct rig *rig, struct sac_graph *graph,
                          const struct sac_plan_options *options)
{
    struct sac_error err = {0};
    struct sac_plan *plan = NULL;

    assert_ok(sac_plan_from_graph(&plan, graph, "toy", rig->device, rig->store, rig->stream,
                                  options, &err),
              err);
    return plan;
}

void rig_forward(struct rig *rig, struct sac_plan *plan)
{
    struct sac_error err = {0};

    assert_ok(sac_plan_forward(plan, &err), err);
    assert_ok(rig->device->table->stream_sync(rig->stream, &err), err);
}

void rig_run(struct rig *rig, struct sac_plan *plan, uint64_t seed)
{
    for (int i = 0; i < sac_plan_input_count(plan); i++) {
        const struct sac_tensor *input = sac_plan_input(plan, i);
        assert_int_equal(input->form.type, SAC_F32);
        make_floats(input->data, sac_shape_count(&input->shape), seed + (uint64_t)i);
    }
    rig_forward(rig, plan);
}

const float *rig_output(const struct sac_plan *plan, int index, int64_t *ret_count)
{
    const struct sac_tensor *output = sac_plan_output(plan, index);

    assert_int_equal(output->form.type, SAC_F32);
    assert_int_equal(output->form.layout, SAC_PLAIN);
    *ret_count = sac_shape_count(&output->shape);
    return output->data;
}
