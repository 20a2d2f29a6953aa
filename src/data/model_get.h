/*
 * A known model becomes a model directory: our deploy.prototxt and model.json, the
 * published weights and labels, and SOURCE.txt, which says where they came from.
 * Everything is made in OUT.part, and gets its name when it is whole and checked.
 * What a broken connection leaves there, the next run goes on with; a refusal
 * leaves nothing. An OUT.part that this command did not begin is refused and left as
 * it is; one that another process works in is SAC_EBUSY. Blocks; one thread.
 */
#ifndef SAC_DATA_MODEL_GET_H
#define SAC_DATA_MODEL_GET_H

#include "data/fetch.h"
#include "data/known_models.h"

/* Text is borrowed during the call. */
struct sac_model_get_options {
    const char *out;    /* the folder to be; must not be there yet */
    const char *from;   /* the weights' address or file instead of the published; NULL */
    const char *sha256; /* of those, instead of the published sums; NULL */
    const char *labels; /* a file of labels instead of ImageNet's; NULL */
    struct sac_fetch_options fetch; /* its progress and patience; sums and sizes are set here */
    /* Before a file is fetched. NULL: not told. */
    void (*begins)(void *context, const char *file, const char *from);
    /* Whether the folder is a model: called before it gets its name. NULL: not asked. */
    int (*check)(void *context, const char *folder, struct sac_error *err);
    void *context; /* of both */
};

struct sac_model_get_result {
    int64_t bytes;
    int resumes;
    char sha256[SAC_SHA_HEX]; /* of the weights */
};

int sac_model_get(const struct sac_known_model *model, const struct sac_model_get_options *options,
                  struct sac_model_get_result *ret, struct sac_error *err);

/* A model that lies packed (.tar.gz, .tar, .zip; DIGITS' download archive) at an
 * address or in a file: `from` and, where it is said, `sha256` of the options count.
 * It must have a deploy.prototxt and one caffemodel in it. */
int sac_model_get_archive(const struct sac_model_get_options *options,
                          struct sac_model_get_result *ret, struct sac_error *err);

#endif
