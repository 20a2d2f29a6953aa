/*
 * The parts of augmentation: what is drawn for an item (transform.h describes it), and
 * doing it on planes of floats, channels × height × width. A device does the same to
 * crops of bytes (device/crops.h). Private to src/data.
 */
#ifndef SAC_DATA_AUGMENT_H
#define SAC_DATA_AUGMENT_H

#include "data/transform.h"

/* The changes that are set, of enum sac_crop_changes; of pictures with so many channels. */
unsigned sac_augment_changes(const struct sac_augment *augment, int channels);

/* Draws those of the changes that are of colours into `ret`, all but the grey. */
void sac_augment_draw_color(const struct sac_augment *augment, unsigned changes,
                            struct sac_random *random, struct sac_crop_change *ret);

/* How often each byte stands in a picture's channels: the first, or the three in the
 * planes' order. */
struct sac_augment_histogram {
    uint32_t counts[3][256];
    int channels; /* 1 or 3 */
    bool rgb;
};
/* The mean grey of a picture whose bytes were made brighter by that factor (1: as they are). */
float sac_augment_grey(const struct sac_augment_histogram *histogram, float brightness);

/* x clipped to 0 … 255; `rgb` is the planes' order where there are three. Grey
 * pictures have brightness and contrast only. */
void sac_augment_brightness(float *planes, size_t count, float factor);
void sac_augment_contrast(float *planes, size_t count, float grey, float factor);
void sac_augment_saturation(float *planes, size_t pixels, bool rgb, float factor);
void sac_augment_hue(float *planes, size_t pixels, bool rgb, float turn);
/* All that is among the changes. */
void sac_augment_color(unsigned changes, const struct sac_crop_change *change, float *planes,
                       int channels, size_t pixels);

/* Where a result's pixel comes from: a window of the source, turned about its
 * centre. In pixels, edges at whole numbers. */
struct sac_augment_window {
    float center_x, center_y, width, height;
    float angle; /* radians */
};
/* The window that `augment` draws from a picture of these sides, for a result of
 * the given ones. */
struct sac_augment_window sac_augment_draw_window(const struct sac_augment *augment,
                                                  struct sac_random *random, int width, int height,
                                                  int to_width, int to_height);
void sac_augment_sample(const struct sac_augment_window *window, const float *from, int channels,
                        int width, int height, float *to, int to_width, int to_height);

/* Notes where the noise's numbers are, and takes them. */
void sac_augment_draw_noise(struct sac_random *random, size_t count, struct sac_crop_change *ret);
void sac_augment_noise(const struct sac_crop_change *change, float *values, size_t count,
                       float deviation);
void sac_augment_draw_cutout(struct sac_random *random, const int shape[3], int side,
                             struct sac_crop_change *ret);
void sac_augment_cutout(const struct sac_crop_change *change, float *planes, const int shape[3]);

#endif
