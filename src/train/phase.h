/*
 * A net of one phase with what feeds it and the plan that runs it: the training net,
 * and each test net. Private to the trainer. One thread.
 */
#ifndef SAC_TRAIN_PHASE_H
#define SAC_TRAIN_PHASE_H

#include "data/feed.h"
#include "net/net.h"
#include "net/plan.h"
#include "ranks/ranks.h"
#include "train/upload.h"

/* All borrowed, `state` and `message` for the phase's life. */
struct sac_phase_options {
    enum sac_phase phase;
    const char *path;                   /* the net's file, or what `message` is called */
    const Caffe__NetParameter *message; /* NULL: it is in the file */
    const Caffe__NetState *state;       /* level and stages; NULL: none */
    const char *source, *mean_file;     /* instead of the layer's own; NULL: as it says */
    uint64_t seed;
    int64_t position; /* of the feed */
    int threads;
    int batch; /* 0: as the layer says */
    /* Of `world` ranks, which one takes its part of each batch; 0: alone. */
    int rank, world;
    enum sac_batch_rule batch_rule;
    int level; /* added to the state, with the stages */
    const char *const *stages;
    int stage_count;
    float smoothing;                   /* of softmax losses' labels; 0: as they say */
    const struct sac_augment *augment; /* NULL: none */
    enum sac_resize resize;            /* width 0: as the layer says */
    int resize_width, resize_height;
    bool crops; /* the device that the plan will be on makes numbers of 8-bit crops */
};

/* A value that the net shows: a loss (weight other than 0) or an accuracy. */
struct sac_phase_output {
    const char *name;
    double weight;
    int at;               /* among the plan's outputs */
    int64_t first, count; /* among all outputs' elements */
};

enum { SAC_PHASE_FEEDS_MAX = 16 };

/* A layer that feeds the net. */
struct sac_phase_feed {
    const Caffe__LayerParameter *layer;
    struct sac_feed *feed;  /* NULL: DummyData, which its fillers make */
    struct sac_batch batch; /* the last that came; the feed's */
    int64_t items;          /* of a whole batch, over all ranks; of a feed */
    int classes;            /* of the labels; 0: any */
};

struct sac_phase_net {
    struct sac_caffe_net file;
    const Caffe__NetParameter *message;
    const Caffe__LayerParameter **layers; /* those of the phase; as the net's */
    int layer_count;
    /* All begin with the same batch and go on together; with one seed they shuffle, crop
     * and mirror alike, so that what belongs together stays so. */
    struct sac_phase_feed feeds[SAC_PHASE_FEEDS_MAX];
    int feed_count;
    int main;                           /* the first of them with a feed, or 0 */
    const Caffe__LayerParameter *input; /* the main one's */
    struct sac_feed *feed;              /* the main one's; NULL: there is none */
    struct sac_net *net;
    struct sac_plan *plan;
    struct sac_device *device;
    struct sac_stream *stream;
    /* Of a device with memory of its own: outputs pass through the one, inputs through the
     * other, whose sides hold the batch that is used and the one that comes next. */
    char *staging;
    struct sac_upload upload;
    struct sac_phase_ready {
        bool there; /* fetched, or failed: with the sentence */
        int rc;
        struct sac_error why;
        int64_t position, pass;
        struct sac_batch batch; /* the main one's; `index` is `items` */
        int64_t *items;
    } ready[SAC_UPLOAD_SIDES];
    int side;               /* the one in use */
    struct sac_batch batch; /* the main one's, in use; with an upload its data in the staging */
    /* Of the main feed, after the batches that were used; without one, passes. The others'
     * positions follow from it. */
    int64_t position;
    int64_t pass;                     /* the number of the last */
    uint64_t seed;                    /* of DummyData's fillers: a rank's own */
    struct sac_phase_output *outputs; /* by name, as Caffe numbers them */
    int output_count;
    int64_t value_count; /* elements of all outputs */
    const char **stages; /* the state's and those added */
};

/* Reads the net and opens its feed; the plan is made afterwards, once it is known
 * where the weights are. `ret` is zero or half-built after a failure. */
int sac_phase_net_open(struct sac_phase_net *ret, const struct sac_phase_options *options,
                       struct sac_error *err);
int sac_phase_net_plan(struct sac_phase_net *p, struct sac_device *device, struct sac_store *store,
                       struct sac_stream *stream, const struct sac_plan_options *options,
                       struct sac_error *err);
void sac_phase_net_done(struct sac_phase_net *p);
/* For the plan of a device with memory of its own: the way of the inputs to it. */
int sac_phase_net_open_upload(struct sac_phase_net *p, struct sac_error *err);

/* The batch that was taken last, to the inputs of a plan of the same net. */
int sac_phase_net_give(struct sac_phase_net *p, struct sac_plan *plan, struct sac_error *err);
/* The next batch into the plan's inputs, and through the net. */
int sac_phase_net_take(struct sac_phase_net *p, struct sac_error *err);
/* Fetches the batch after that and begins its copy to the device, while what was enqueued
 * runs. What fails is told when that batch is taken. Nothing where memory is the host's. */
void sac_phase_net_ahead(struct sac_phase_net *p);
int sac_phase_net_forward(struct sac_phase_net *p, struct sac_error *err);
/* Adds what the outputs hold to values[value_count]; waits for the stream. */
int sac_phase_net_add_outputs(const struct sac_phase_net *p, double *values, struct sac_error *err);

#endif
