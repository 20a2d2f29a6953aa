/*
 * What the files of `saccade test` share: test.c reads the command line and prints,
 * test_net.c goes through a prototxt's data with its net, test_model.c through
 * pictures with a model directory, as `classify` does.
 */
#ifndef SAC_CLI_TEST_H
#define SAC_CLI_TEST_H

#include <stdio.h>

#include "cli/flags.h"
#include "data/feed.h"
#include "model/classifier.h"
#include "train/evaluate.h"

/* One element of a net's outputs, averaged over the batches by their items. */
struct sac_test_output {
    const char *name; /* borrowed; elements of one output follow each other */
    double weight;    /* of a loss; 0: none */
    double sum, count;
};
enum { SAC_TEST_STAGES_MAX = 16 };

struct sac_test {
    struct sac_model_flags flags;
    const char *net, *data, *predictions; /* as on the command line, or NULL */
    int iterations, batch, workers;       /* 0: not said */
    bool json;
    int level; /* the net's state */
    const char *stages[SAC_TEST_STAGES_MAX];
    int stage_count;

    struct sac_device *device;
    FILE *lines; /* where predictions go, or NULL */
    struct sac_buf line;
    struct sac_labels labels;     /* of --labels */
    struct sac_class_names names; /* of the classes, once they are known */

    /* The result. */
    struct sac_evaluation *evaluation; /* NULL: no classes are judged */
    bool scored;                       /* by the net's own outputs and losses */
    struct sac_test_output *outputs;   /* the run's */
    int64_t output_count;
    double loss; /* all losses by their weights, summed over the items */
    int64_t batches, items, corrupt;
};

/* Both fill the result. *ret is set whatever they return, and holds what `names`
 * and the outputs borrow. */
struct sac_test_net;
int sac_test_net_run(struct sac_test_net **ret, struct sac_test *test, struct sac_error *err);
void sac_test_net_free(struct sac_test_net *run); /* takes NULL */

struct sac_test_model;
int sac_test_model_run(struct sac_test_model **ret, struct sac_test *test, struct sac_error *err);
void sac_test_model_free(struct sac_test_model *run); /* takes NULL */

/* Where a source names its classes itself (by folders), the class of `names` that
 * each is: one called alike, or whose first word is. *ret stays NULL where the
 * source's own numbers count: it has no names, or there are none to compare with,
 * or as many of which none fits. The caller frees it. */
int sac_test_map_classes(const struct sac_source *source, const struct sac_class_names *names,
                         int **ret, struct sac_error *err);
/* The label by such a map (NULL: as it is); −1, which no net has, where the
 * source has a label beyond its names. */
float sac_test_map_label(const struct sac_source *source, const int *map, float label);

/* An item of a source becomes a slot's pixels. */
int sac_test_decode(struct sac_classifier *classifier, const struct sac_model *model, int slot,
                    const struct sac_item *item, struct sac_error *err);

/* What feeds the net: the data layer's own source or --data, its transform_param
 * with the flags over it; of Input and MemoryData, --data with what the flags say. */
int sac_test_feed_open(struct sac_feed **ret, const struct sac_test *test,
                       const Caffe__LayerParameter *layer, struct sac_error *err);

/* A line of --predictions, if it was asked for. */
void sac_test_put_prediction(struct sac_test *test, const struct sac_source *source, int64_t index,
                             int label, const struct sac_topk_pair *pairs, int count);

#endif
