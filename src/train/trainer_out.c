/* The model directory that a training run ends in. */
#include "train/trainer_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/log.h"
#include "net/layer.h"
#include "train/deploy.h"
#include "train/model_dir.h"

/* What is tested is what is served; without a test net, what trains. */
static const struct sac_phase_net *served(const struct sac_trainer *t)
{
    return t->test_count > 0 ? &t->tests[0] : &t->train;
}

static struct sac_model_dir model_dir(const struct sac_trainer *t)
{
    const struct sac_labels *own = &sac_feed_source(t->train.feed)->labels;

    return (struct sac_model_dir){
        .path = t->out,
        .deploy = t->deploy.net,
        .weights = &t->weights,
        .feed = served(t)->feed,
        .labels = t->labels.count > 0 ? &t->labels
                  : own->count > 0    ? own
                                      : &sac_feed_source(served(t)->feed)->labels,
    };
}

static bool has_weights(const struct sac_trainer *t, const char *layer)
{
    for (int i = 0; i < t->weights.layer_count; i++)
        if (t->weights.layers[i].blob_count > 0 && strcmp(t->weights.layers[i].name, layer) == 0)
            return true;
    return false;
}

/* The deploy net opens, and training has what it needs. */
static int check_net(const struct sac_trainer *t, const struct sac_net *net, struct sac_error *err)
{
    struct sac_model_dir dir = model_dir(t);
    struct sac_shape shape = {0};

    for (int i = 0; i < sac_net_layer_count(net); i++) {
        const struct sac_layer *layer = sac_net_layer(net, i);
        if (sac_layer_weight_count(layer) > 0 && !has_weights(t, sac_layer_name(layer)))
            return sac_fail(err, SAC_EUNSUPPORTED,
                            "layer \"%.64s\" is in the test net and not in the training net, so "
                            "nothing trains its weights",
                            sac_layer_name(layer));
    }
    if (sac_net_output_count(net) > 0)
        sac_net_blob_shape(net, sac_net_output_name(net, sac_net_output_count(net) - 1), &shape);
    if (shape.rank >= 2 && dir.labels->count > shape.dim[1])
        return sac_fail(err, SAC_EINVAL, "%d labels, but the net has %lld classes",
                        dir.labels->count, (long long)shape.dim[1]);
    return 0;
}

static int check_deploy(const struct sac_trainer *t, struct sac_error *err)
{
    const struct sac_net_options options = {.phase = SAC_PHASE_TEST};
    struct sac_net *net = NULL;
    struct sac_buf bytes = {0};
    int rc = sac_caffe_net_write(&bytes, t->deploy.net);

    if (rc != 0)
        rc = sac_trainer_no_memory(err);
    else
        rc = sac_net_parse(&net, "the deploy net", bytes.data, bytes.len, &options, err);
    if (rc == 0)
        rc = check_net(t, net, err);
    sac_net_free(net);
    sac_buf_done(&bytes);
    return rc;
}

static int make_deploy(struct sac_trainer *t, struct sac_error *err)
{
    const struct sac_phase_net *net = served(t);

    if (!net->feed || !t->train.feed)
        return sac_fail(err, SAC_EUNSUPPORTED,
                        "layer \"%.64s\" makes the data up: no deploy net can be made of it",
                        net->input->name);
    struct sac_deploy_source source = {
        .name = net->message->name,
        .layers = net->layers,
        .layer_count = net->layer_count,
        .input = net->input,
        .shape = sac_feed_shape(net->feed),
    };
    int rc = sac_deploy_make(&t->deploy, &source, err);

    return rc == 0 ? check_deploy(t, err) : rc;
}

static int check_dir(const struct sac_trainer *t, struct sac_error *err)
{
    struct sac_model_dir dir = model_dir(t);

    return sac_model_dir_check(&dir, err);
}

/* Where nobody asked for a directory, one that cannot be is no failure. */
static int prepare_auto(struct sac_trainer *t, struct sac_error *err)
{
    struct sac_error why = {0};

    if (asprintf(&t->out, "%s_model", t->prefix) < 0) {
        t->out = NULL;
        return sac_trainer_no_memory(err);
    }
    int rc = make_deploy(t, &why);
    if (rc == 0)
        rc = check_dir(t, &why);
    if (rc == SAC_ENOMEM)
        return sac_fail(err, rc, "%s", why.text);
    if (rc == 0)
        return 0;
    sac_log(SAC_LOG_WARNING, "no model directory will be written: %s", why.text);
    free(t->out);
    t->out = NULL;
    return 0;
}

int sac_trainer_prepare_out(struct sac_trainer *t, struct sac_error *err)
{
    int rc = 0;

    if (!t->options.out)
        return 0;
    if (t->options.labels)
        rc = sac_labels_load(&t->labels, t->options.labels, err);
    if (rc != 0 || strcmp(t->options.out, "auto") == 0)
        return rc ? rc : prepare_auto(t, err);
    t->out = strdup(t->options.out);
    if (!t->out)
        return sac_trainer_no_memory(err);
    rc = make_deploy(t, err);
    return rc == 0 ? check_dir(t, err) : rc;
}

/* The best weights take the place of the last; training is over. */
static int take_best(struct sac_trainer *t, struct sac_error *err)
{
    bool hdf5 = t->message->snapshot_format == CAFFE__SOLVER_PARAMETER__SNAPSHOT_FORMAT__HDF5;
    char *path = NULL;
    int rc;

    if (asprintf(&path, "%s_iter_%lld.caffemodel%s", t->prefix, (long long)t->best.iteration,
                 hdf5 ? ".h5" : "") < 0)
        return sac_trainer_no_memory(err);
    rc = sac_weights_load(&t->weights, path, NULL, err);
    if (rc != 0)
        sac_error_prefix(err, "the best weights, of iteration %lld", (long long)t->best.iteration);
    free(path);
    return rc;
}

int sac_trainer_write_out(struct sac_trainer *t, struct sac_error *err)
{
    int64_t of = t->iteration;
    int rc = 0;

    if (!t->out)
        return 0;
    rc = sac_trainer_remote_fetch(t, err);
    if (rc == 0 && t->options.keep_best && t->best.known) {
        of = t->best.iteration;
        rc = of != t->iteration ? take_best(t, err) : 0;
    }
    struct sac_model_dir dir = model_dir(t);
    if (rc == 0)
        rc = sac_model_dir_check(&dir, err);
    if (rc == 0)
        rc = sac_model_dir_write(&dir, err);
    if (rc == 0)
        sac_trainer_tell(
            t, (struct sac_train_event){.kind = SAC_TRAIN_WRITTEN, .name = t->out, .best = of});
    return rc;
}
