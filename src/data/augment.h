/*
 * The parts of augmentation that work on planes of floats, channels × height ×
 * width. Private to src/data; what they draw is described in transform.h.
 */
#ifndef SAC_DATA_AUGMENT_H
#define SAC_DATA_AUGMENT_H

#include "data/transform.h"

bool sac_augment_has_color(const struct sac_augment *augment);

/* x clipped to 0 … 255; `rgb` is the planes' order where there are three. Grey
 * pictures have brightness and contrast only. */
void sac_augment_brightness(float *planes, size_t count, float factor);
void sac_augment_contrast(float *planes, int channels, size_t pixels, bool rgb, float factor);
void sac_augment_saturation(float *planes, size_t pixels, bool rgb, float factor);
void sac_augment_hue(float *planes, size_t pixels, bool rgb, float turn);
/* Draws and does all that is set. */
void sac_augment_color(const struct sac_augment *augment, struct sac_random *random, float *planes,
                       int channels, size_t pixels, bool rgb);

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

void sac_augment_noise(struct sac_random *random, float *values, size_t count, float deviation);
void sac_augment_cutout(struct sac_random *random, float *planes, const int shape[3], int side);

#endif
