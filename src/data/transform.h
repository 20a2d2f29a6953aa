/*
 * From an item to a net's input: Caffe's transform_param, and augmentation.
 *
 *     y = (x − mean) · scale, of a crop that may be mirrored
 *
 * Training crops at random and testing at the centre, floor((size − crop) / 2);
 * the mirror tosses its coin in both, as Caffe's does. Encoded pictures become
 * planes B, G, R of whole pixels; planes from a file keep their order. What is
 * drawn depends on the given stream alone. Any thread, a scratch on one at a time.
 */
#ifndef SAC_DATA_TRANSFORM_H
#define SAC_DATA_TRANSFORM_H

#include "data/random.h"
#include "data/source.h"
#include "device/crops.h"
#include "image/preprocess.h"

#define SAC_TRANSFORM_MEANS_MAX 64

/*
 * What only training does, and only where it is set. The order: colour, then
 * geometry (one bilinear sampling of float values, edges repeated), then crop and
 * flip, mean and scale, noise, cutout.
 */
struct sac_augment {
    /* Pixels around the picture that a random crop may take in; they are 0 in
     * the result, as if they were the mean. Without a crop size the crop is as
     * large as the picture was. */
    int pad;
    /* A part of the picture, [area_min, 1] of it with sides' ratio in [3/4, 4/3],
     * becomes the crop. 0: off. */
    float area_min;
    bool flip;      /* left to right, by a coin; with `mirror` a second coin */
    float rotation; /* degrees, either way */
    /* Of 8-bit items, clipped to 0 … 255 after each. Factors 1 ± this; contrast
     * is about the picture's mean grey (BT.601 luma), saturation about each
     * pixel's. Hue turns by ± this part of the circle (HSV), at most 0.5. */
    float brightness, contrast, saturation, hue;
    float noise; /* standard deviation, in units of x; independent values */
    int cutout;  /* side of a square that becomes 0, centre anywhere, clipped */
};

/* Start it as `= {0}`: nothing is done. */
struct sac_transform {
    float scale; /* 0: 1 */
    bool mirror;
    int crop_width, crop_height; /* 0: no crop */
    int mean_count;              /* 0, 1 or one a channel */
    float mean[SAC_TRANSFORM_MEANS_MAX];
    /* Owned; channels × height × width, of the picture before the crop (as
     * Caffe), or of the crop. Not beside `mean`. */
    struct sac_caffe_blob mean_image;
    char mean_path[SAC_ERROR_TEXT / 4]; /* the file it is from, as far as it fits; for sentences */
    /* Of encoded pictures. Neither: as many channels as the file has, 1 or 3. */
    bool force_color, force_gray;
    bool rgb; /* R, G, B instead of B, G, R */
    /* How they are resized first; width 0: not. Sizes and `resize` are as in
     * struct sac_preprocess, and so are the pixels. */
    enum sac_resize resize;
    int resize_width, resize_height;
    bool decode_fast; /* SAC_DECODE_FAST: as serving does by default */
    uint8_t background[3];
    struct sac_image_limits limits;
    struct sac_augment augment;
};

void sac_transform_done(struct sac_transform *transform);

/* Whether encoded pictures are resized. */
bool sac_transform_resizes(const struct sac_transform *transform);

/* Sets what the message sets (NULL: nothing), loads its mean file. */
int sac_transform_read(struct sac_transform *transform,
                       const Caffe__TransformationParameter *message, struct sac_error *err);
/* Replaces means by a .binaryproto's blob of channels × height × width. */
int sac_transform_load_mean(struct sac_transform *transform, const char *path,
                            struct sac_error *err);
/* SAC_EINVAL for fields that contradict each other or make no sense. */
int sac_transform_check(const struct sac_transform *transform, struct sac_error *err);

/* A thread's memory: grows to the largest item. */
struct sac_transform_scratch;
int sac_transform_scratch_new(struct sac_transform_scratch **ret, struct sac_error *err);
void sac_transform_scratch_free(struct sac_transform_scratch *scratch);

/* channels, height, width of the item as it is cropped from: decoded and resized. Of an
 * encoded item only the head is read. */
int sac_transform_picture_shape(const struct sac_transform *transform, const struct sac_item *item,
                                struct sac_transform_scratch *scratch, int ret[3],
                                struct sac_error *err);
/* What the item would become, likewise. */
int sac_transform_shape(const struct sac_transform *transform, const struct sac_item *item,
                        struct sac_transform_scratch *scratch, int ret[3], struct sac_error *err);

/* Writes out[channels × height × width]. Codes of corrupt items are those of
 * sac_source_item(); SAC_EINVAL: the item has another shape than `shape`, or is
 * smaller than the crop. */
int sac_transform_apply(const struct sac_transform *transform, bool train,
                        const struct sac_item *item, struct sac_random *random,
                        struct sac_transform_scratch *scratch, const int shape[3], float *out,
                        struct sac_error *err);

/* Whether 8-bit items are cropped as they are, without geometry: a device may do the rest
 * (struct sac_crops). */
bool sac_transform_keeps_bytes(const struct sac_transform *transform, bool train);
/* The rest, for items of that shape: all but count, layout and what is the device's; `mean`
 * is the transform's. */
void sac_transform_crops(const struct sac_transform *transform, bool train, const int shape[3],
                         struct sac_crops *ret);
/* How an item's crop of channels, height, width lies in bytes: encoded items as they are
 * decoded, others as planes. */
struct sac_crop_layout sac_transform_layout(const struct sac_transform *transform, bool encoded,
                                            const int shape[3]);
/* Draws as sac_transform_apply() does: writes the part of the crop that is inside the
 * picture, unmirrored and unchanged, where it is from, and how it is to be changed. SAC_EINVAL also
 * where the item is of floats. */
int sac_transform_crop(const struct sac_transform *transform, bool train,
                       const struct sac_item *item, struct sac_random *random,
                       struct sac_transform_scratch *scratch, const int shape[3],
                       const struct sac_crop_layout *layout, uint8_t *out,
                       struct sac_crop_place *ret, struct sac_error *err);

#endif
