#include "data/augment.h"

#include <math.h>

bool sac_augment_has_color(const struct sac_augment *augment)
{
    return augment->brightness > 0 || augment->contrast > 0 || augment->saturation > 0 ||
           augment->hue > 0;
}

static float clip(float x)
{
    return x < 0 ? 0 : x > 255 ? 255 : x;
}

/* ITU-R BT.601 */
static float luma(float r, float g, float b)
{
    return .299f * r + .587f * g + .114f * b;
}

void sac_augment_brightness(float *planes, size_t count, float factor)
{
    for (size_t i = 0; i < count; i++)
        planes[i] = clip(planes[i] * factor);
}

static float mean_grey(const float *planes, int channels, size_t pixels, bool rgb)
{
    const float *red = rgb ? planes : planes + 2 * pixels;
    const float *blue = rgb ? planes + 2 * pixels : planes;
    double sum = 0;

    for (size_t i = 0; i < pixels; i++)
        sum += channels == 3 ? luma(red[i], planes[pixels + i], blue[i]) : planes[i];
    return (float)(sum / (double)pixels);
}

void sac_augment_contrast(float *planes, int channels, size_t pixels, bool rgb, float factor)
{
    float grey = mean_grey(planes, channels, pixels, rgb);

    for (size_t i = 0; i < (size_t)channels * pixels; i++)
        planes[i] = clip(grey + (planes[i] - grey) * factor);
}

void sac_augment_saturation(float *planes, size_t pixels, bool rgb, float factor)
{
    for (size_t i = 0; i < pixels; i++) {
        float *x[3] = {planes + i, planes + pixels + i, planes + 2 * pixels + i};
        float grey = luma(*x[rgb ? 0 : 2], *x[1], *x[rgb ? 2 : 0]);
        for (int c = 0; c < 3; c++)
            *x[c] = clip(grey + (*x[c] - grey) * factor);
    }
}

static float largest(float a, float b)
{
    return a > b ? a : b;
}

/* Hue in sixths of the circle, from red over green to blue. */
static float hue_of(float r, float g, float b, float most, float chroma)
{
    if (chroma <= 0)
        return 0;
    if (most == r)
        return (g - b) / chroma + (g < b ? 6.f : 0.f);
    return most == g ? (b - r) / chroma + 2.f : (r - g) / chroma + 4.f;
}

/* HSV's inverse for one channel: n is 5 for red, 3 for green, 1 for blue. */
static float channel_of(float hue, float most, float chroma, float n)
{
    float k = fmodf(n + hue, 6.f);
    float ramp = k < 4.f - k ? k : 4.f - k;

    return most - chroma * largest(0.f, ramp < 1.f ? ramp : 1.f);
}

void sac_augment_hue(float *planes, size_t pixels, bool rgb, float turn)
{
    float *red = rgb ? planes : planes + 2 * pixels, *green = planes + pixels;
    float *blue = rgb ? planes + 2 * pixels : planes;

    for (size_t i = 0; i < pixels; i++) {
        float r = red[i], g = green[i], b = blue[i];
        float most = largest(r, largest(g, b)), chroma = most + largest(-r, largest(-g, -b));
        float hue = hue_of(r, g, b, most, chroma) + 6.f * turn + 6.f;
        red[i] = channel_of(hue, most, chroma, 5.f);
        green[i] = channel_of(hue, most, chroma, 3.f);
        blue[i] = channel_of(hue, most, chroma, 1.f);
    }
}

void sac_augment_color(const struct sac_augment *augment, struct sac_random *random, float *planes,
                       int channels, size_t pixels, bool rgb)
{
    float b = augment->brightness, c = augment->contrast;
    float s = augment->saturation, h = augment->hue;

    if (b > 0)
        sac_augment_brightness(planes, (size_t)channels * pixels,
                               sac_random_between(random, largest(0, 1 - b), 1 + b));
    if (c > 0)
        sac_augment_contrast(planes, channels, pixels, rgb,
                             sac_random_between(random, largest(0, 1 - c), 1 + c));
    if (channels != 3)
        return;
    if (s > 0)
        sac_augment_saturation(planes, pixels, rgb,
                               sac_random_between(random, largest(0, 1 - s), 1 + s));
    if (h > 0)
        sac_augment_hue(planes, pixels, rgb, sac_random_between(random, -h, h));
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

void sac_augment_noise(struct sac_random *random, float *values, size_t count, float deviation)
{
    for (size_t i = 0; i < count; i++)
        values[i] += deviation * sac_random_normal(random);
}

void sac_augment_cutout(struct sac_random *random, float *planes, const int shape[3], int side)
{
    int top = (int)sac_random_below(random, (uint32_t)shape[1]) - side / 2;
    int left = (int)sac_random_below(random, (uint32_t)shape[2]) - side / 2;
    int bottom = top + side < shape[1] ? top + side : shape[1];
    int right = left + side < shape[2] ? left + side : shape[2];

    for (int c = 0; c < shape[0]; c++) {
        for (int y = top > 0 ? top : 0; y < bottom; y++) {
            for (int x = left > 0 ? left : 0; x < right; x++)
                planes[((size_t)c * (size_t)shape[1] + (size_t)y) * (size_t)shape[2] + (size_t)x] =
                    0;
        }
    }
}
