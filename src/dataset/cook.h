/*
 * One item of a source made into what a sink takes: decoded, fitted, encoded.
 * Private to src/dataset.
 */
#ifndef SAC_DATASET_COOK_H
#define SAC_DATASET_COOK_H

#include "base/buf.h"
#include "data/sink.h"
#include "image/encode.h"
#include "image/fit.h"

enum sac_encoding {
    SAC_ENCODING_KEEP, /* as it came; what must be encoded becomes a PNG */
    SAC_ENCODING_RAW,  /* planes of bytes, of LMDBs */
    SAC_ENCODING_PNG,
    SAC_ENCODING_JPEG,
};

/* The order of three planes of bytes or floats, where the sink leaves a choice. */
enum sac_planes {
    SAC_PLANES_KEEP, /* as the source's; B, G, R of encoded pictures */
    SAC_PLANES_BGR,
    SAC_PLANES_RGB,
};

struct sac_recipe {
    enum sac_sink_kind to;
    /* width 0: pictures keep their size. channels 0 (only then): as they have. */
    struct sac_fit fit;
    enum sac_encoding encoding;
    int quality; /* of JPEGs; 0: 90 */
    enum sac_planes planes;
    uint64_t seed;
};

/* Whether what is made holds planes R, G, B; false where it holds pictures. */
bool sac_recipe_rgb(const struct sac_recipe *recipe, const struct sac_source *source);
/* Whether three planes of R, G, B become pictures, which all who read them take as B, G,
 * R: a net that learned from the one is not to be tested on the other. */
bool sac_recipe_turns(const struct sac_recipe *recipe, const struct sac_source *source);

/* A worker's. Start it by sac_kitchen_new(). */
struct sac_kitchen {
    struct sac_decoder *decoder;
    struct sac_resize_scratch scratch;
    struct sac_item item;
};
int sac_kitchen_new(struct sac_kitchen **ret, struct sac_error *err);
void sac_kitchen_free(struct sac_kitchen *kitchen); /* takes NULL */

/* An item that is done; memory grows to the largest. Start it as `= {0}`. */
struct sac_dish {
    struct sac_record record; /* points into what follows */
    /* R, G, B interleaved, where there are 8-bit pixels. */
    struct sac_image image;
    struct sac_buf pixels, planes, file;
    char name[256];
};
void sac_dish_done(struct sac_dish *dish);

/* `channels` of R, G, B or grey interleaved pixels: from the item, fitted where the
 * recipe says so. SAC_EUNSUPPORTED: floats that are no 8-bit pixels, other numbers of
 * channels than 1 and 3; else sac_fit_pixels()'s. */
int sac_cook_pixels(const struct sac_recipe *recipe, struct sac_kitchen *kitchen,
                    const struct sac_item *item, int64_t index, struct sac_dish *dish,
                    struct sac_error *err);

/* The whole way. Codes are sac_source_item()'s and sac_cook_pixels()'s; sentences name
 * the item. */
int sac_cook(const struct sac_recipe *recipe, struct sac_kitchen *kitchen,
             const struct sac_source *source, int64_t index, struct sac_dish *dish,
             struct sac_error *err);

#endif
