#include "data/augment.h"

#include <math.h>
#include <string.h>

#include "device/changes.h"

unsigned sac_augment_changes(const struct sac_augment *augment, int channels)
{
    unsigned changes = 0;

    changes |= augment->brightness > 0 ? SAC_CROP_BRIGHTNESS : 0;
    changes |= augment->contrast > 0 ? SAC_CROP_CONTRAST : 0;
    changes |= channels == 3 && augment->saturation > 0 ? SAC_CROP_SATURATION : 0;
    changes |= channels == 3 && augment->hue > 0 ? SAC_CROP_HUE : 0;
    changes |= augment->noise > 0 ? SAC_CROP_NOISE : 0;
    changes |= augment->cutout > 0 ? SAC_CROP_CUTOUT : 0;
    return changes;
}

static float draw_factor(struct sac_random *random, float most)
{
    return sac_random_between(random, most < 1 ? 1 - most : 0, 1 + most);
}

void sac_augment_draw_color(const struct sac_augment *augment, unsigned changes,
                            struct sac_random *random, struct sac_crop_change *ret)
{
    if (changes & SAC_CROP_BRIGHTNESS)
        ret->brightness = draw_factor(random, augment->brightness);
    if (changes & SAC_CROP_CONTRAST)
        ret->contrast = draw_factor(random, augment->contrast);
    if (changes & SAC_CROP_SATURATION)
        ret->saturation = draw_factor(random, augment->saturation);
    if (changes & SAC_CROP_HUE)
        ret->hue = sac_random_between(random, -augment->hue, augment->hue);
}

/* Luma is linear: the mean of it is that of the channels' means. */
float sac_augment_grey(const struct sac_augment_histogram *histogram, float brightness)
{
    float means[3] = {0};

    for (int c = 0; c < histogram->channels; c++) {
        double sum = 0, pixels = 0;
        for (int i = 0; i < 256; i++) {
            sum += (double)sac_clip_255((float)i * brightness) * histogram->counts[c][i];
            pixels += histogram->counts[c][i];
        }
        means[c] = (float)(sum / pixels);
    }
    if (histogram->channels < 3)
        return means[0];
    return sac_luma(means[histogram->rgb ? 0 : 2], means[1], means[histogram->rgb ? 2 : 0]);
}

void sac_augment_brightness(float *planes, size_t count, float factor)
{
    for (size_t i = 0; i < count; i++)
        planes[i] = sac_clip_255(planes[i] * factor);
}

void sac_augment_contrast(float *planes, size_t count, float grey, float factor)
{
    for (size_t i = 0; i < count; i++)
        planes[i] = sac_from_grey(grey, planes[i], factor);
}

void sac_augment_saturation(float *planes, size_t pixels, bool rgb, float factor)
{
    for (size_t i = 0; i < pixels; i++) {
        float *x[3] = {planes + i, planes + pixels + i, planes + 2 * pixels + i};
        float grey = sac_luma(*x[rgb ? 0 : 2], *x[1], *x[rgb ? 2 : 0]);
        for (int c = 0; c < 3; c++)
            *x[c] = sac_from_grey(grey, *x[c], factor);
    }
}

void sac_augment_hue(float *planes, size_t pixels, bool rgb, float turn)
{
    float *red = rgb ? planes : planes + 2 * pixels, *green = planes + pixels;
    float *blue = rgb ? planes + 2 * pixels : planes;

    for (size_t i = 0; i < pixels; i++)
        sac_turn_hue(&red[i], &green[i], &blue[i], turn);
}

void sac_augment_color(unsigned changes, const struct sac_crop_change *change, float *planes,
                       int channels, size_t pixels)
{
    if (changes & SAC_CROP_BRIGHTNESS)
        sac_augment_brightness(planes, (size_t)channels * pixels, change->brightness);
    if (changes & SAC_CROP_CONTRAST)
        sac_augment_contrast(planes, (size_t)channels * pixels, change->grey, change->contrast);
    if (changes & SAC_CROP_SATURATION)
        sac_augment_saturation(planes, pixels, change->rgb, change->saturation);
    if (changes & SAC_CROP_HUE)
        sac_augment_hue(planes, pixels, change->rgb, change->hue);
}

/* Ten tries for a window that fits, else the largest of the result's ratio. */
static void draw_part(float area_min, struct sac_random *random, int width, int height,
                      int to_width, int to_height, struct sac_augment_window *window)
{
    float area = (float)width * (float)height, ratio = (float)to_width / (float)to_height;

    for (int i = 0; i < 10; i++) {
        float part = area * sac_random_between(random, area_min, 1.f);
        float sides = expf(sac_random_between(random, logf(3.f / 4), logf(4.f / 3)));
        float w = sqrtf(part * sides), h = sqrtf(part / sides);
        if (w > (float)width || h > (float)height)
            continue;
        window->center_x = w / 2 + ((float)width - w) * sac_random_uniform(random);
        window->center_y = h / 2 + ((float)height - h) * sac_random_uniform(random);
        window->width = w;
        window->height = h;
        return;
    }
    if (window->width > window->height * ratio)
        window->width = window->height * ratio;
    else
        window->height = window->width / ratio;
}

struct sac_augment_window sac_augment_draw_window(const struct sac_augment *augment,
                                                  struct sac_random *random, int width, int height,
                                                  int to_width, int to_height)
{
    struct sac_augment_window window = {(float)width / 2, (float)height / 2, (float)width,
                                        (float)height, 0};

    if (augment->area_min > 0)
        draw_part(augment->area_min, random, width, height, to_width, to_height, &window);
    if (augment->rotation > 0)
        window.angle =
            sac_random_between(random, -augment->rotation, augment->rotation) * (float)(M_PI / 180);
    return window;
}

/* The two pixels that a place lies between, inside the picture. */
static void neighbours(float place, int size, int ret[2], float *ret_fraction)
{
    float last = (float)(size - 1);

    place = place < 0 ? 0 : place > last ? last : place;
    ret[0] = (int)place;
    ret[1] = ret[0] + 1 < size ? ret[0] + 1 : ret[0];
    *ret_fraction = place - (float)ret[0];
}

/* Places to sample along one row of the result: the first, and the step. */
struct line {
    float x, y, step_x, step_y;
};

static void sample_row(const struct line *line, const float *from, int channels, int width,
                       int height, float *to, int to_width, size_t to_plane)
{
    size_t plane = (size_t)width * (size_t)height;

    for (int i = 0; i < to_width; i++) {
        float fx, fy;
        int x[2], y[2];
        neighbours(line->x + (float)i * line->step_x, width, x, &fx);
        neighbours(line->y + (float)i * line->step_y, height, y, &fy);
        for (int c = 0; c < channels; c++) {
            const float *above = from + (size_t)c * plane + (size_t)y[0] * (size_t)width;
            const float *below = from + (size_t)c * plane + (size_t)y[1] * (size_t)width;
            float a = above[x[0]] + (above[x[1]] - above[x[0]]) * fx;
            float b = below[x[0]] + (below[x[1]] - below[x[0]]) * fx;
            to[(size_t)c * to_plane + (size_t)i] = a + (b - a) * fy;
        }
    }
}

void sac_augment_sample(const struct sac_augment_window *window, const float *from, int channels,
                        int width, int height, float *to, int to_width, int to_height)
{
    float cosine = cosf(window->angle), sine = sinf(window->angle);
    float step_x = window->width / (float)to_width, step_y = window->height / (float)to_height;
    float u = .5f * step_x - window->width / 2; /* of the first column, from the centre */

    for (int i = 0; i < to_height; i++) {
        float v = ((float)i + .5f) * step_y - window->height / 2;
        struct line line = {
            .x = window->center_x + cosine * u - sine * v - .5f,
            .y = window->center_y + sine * u + cosine * v - .5f,
            .step_x = cosine * step_x,
            .step_y = sine * step_x,
        };
        sample_row(&line, from, channels, width, height, to + (size_t)i * (size_t)to_width,
                   to_width, (size_t)to_width * (size_t)to_height);
    }
}

void sac_augment_draw_noise(struct sac_random *random, size_t count, struct sac_crop_change *ret)
{
    memcpy(ret->noise_key, random->key, sizeof ret->noise_key);
    memcpy(ret->noise_counter, random->counter, sizeof ret->noise_counter);
    ret->noise_first = 0;
    if (random->left > 0) { /* of the block before */
        ret->noise_counter[0]--;
        ret->noise_first = (uint32_t)(4 - random->left);
    }
    sac_random_skip(random, 2 * (uint64_t)count);
}

void sac_augment_noise(const struct sac_crop_change *change, float *values, size_t count,
                       float deviation)
{
    struct sac_random random = {.left = 0};

    memcpy(random.key, change->noise_key, sizeof random.key);
    memcpy(random.counter, change->noise_counter, sizeof random.counter);
    sac_random_skip(&random, change->noise_first);
    for (size_t i = 0; i < count; i++)
        values[i] += deviation * sac_random_normal(&random);
}

static int32_t clamp(int x, int most)
{
    return x < 0 ? 0 : x < most ? x : most;
}

void sac_augment_draw_cutout(struct sac_random *random, const int shape[3], int side,
                             struct sac_crop_change *ret)
{
    int top = (int)sac_random_below(random, (uint32_t)shape[1]) - side / 2;
    int left = (int)sac_random_below(random, (uint32_t)shape[2]) - side / 2;

    ret->cut_top = clamp(top, shape[1]);
    ret->cut_left = clamp(left, shape[2]);
    ret->cut_bottom = clamp(top + side, shape[1]);
    ret->cut_right = clamp(left + side, shape[2]);
}

void sac_augment_cutout(const struct sac_crop_change *change, float *planes, const int shape[3])
{
    size_t width = (size_t)(change->cut_right - change->cut_left);

    for (int c = 0; c < shape[0]; c++)
        for (int y = change->cut_top; y < change->cut_bottom; y++)
            memset(planes + ((ptrdiff_t)c * shape[1] + y) * shape[2] + change->cut_left, 0,
                   width * sizeof *planes);
}
