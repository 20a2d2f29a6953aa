/*
 * What the files of `saccade quantize` share: quantize.c reads the command line,
 * decides and prints; quantize_shots.c has the pictures, as pixels in memory, and what
 * a net answers to them. One thread.
 */
#ifndef SAC_CLI_QUANTIZE_H
#define SAC_CLI_QUANTIZE_H

#include "model/classifier.h"
#include "model/precision_file.h"

/* Pictures of a data set in an order that a seed has shuffled. */
struct sac_shots {
    uint8_t *pixels; /* count pictures of picture_bytes, as the net takes them */
    int *labels;     /* −1: none */
    size_t picture_bytes;
    int count, labelled;
};

/* `data`: a labelled source (data/source.h), else pictures without labels: a folder, a
 * list. At most `most`; one that cannot be decoded is left out, with a line in the log. */
int sac_shots_load(struct sac_shots *ret, struct sac_model *model, struct sac_device *device,
                   const char *data, int most, struct sac_error *err);
void sac_shots_done(struct sac_shots *shots);

/* The likeliest `topk` of shots [first, first + count), into ret[count × topk]. */
int sac_shots_answer(const struct sac_shots *shots, int first, int count, struct sac_model *model,
                     struct sac_device *device, enum sac_precision precision,
                     const struct sac_ranges *ranges, int topk, struct sac_topk_pair *ret,
                     struct sac_error *err);

#endif
