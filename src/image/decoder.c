#include "image/decoder.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { KEPT_BYTES_MAX = 16 << 20 }; /* 5 million pixels: every usual picture */

static size_t memory_max = 512u << 20;
static atomic_size_t memory_used;

void sac_image_set_memory_max(size_t bytes)
{
    memory_max = bytes ? bytes : 512u << 20;
}

int sac_decoder_new(struct sac_decoder **ret, struct sac_error *err)
{
    struct sac_decoder *decoder = calloc(1, sizeof *decoder);

    if (!decoder)
        return sac_fail(err, SAC_ENOMEM, "decoder: out of memory");
    *ret = decoder;
    return 0;
}

int sac_image_memory_take(size_t bytes, const char *what, struct sac_error *err)
{
    size_t others = atomic_fetch_add(&memory_used, bytes);

    if (bytes <= memory_max && others <= memory_max - bytes)
        return 0;
    atomic_fetch_sub(&memory_used, bytes);
    return sac_fail(err, bytes > memory_max ? SAC_ELIMIT : SAC_EBUSY,
                    "picture: its %s take %zu bytes, and what is held besides %zu, of at most %zu "
                    "for all",
                    what, bytes, others, memory_max);
}

void sac_image_memory_give(size_t bytes)
{
    atomic_fetch_sub(&memory_used, bytes);
}

static void release(struct sac_image_bytes *bytes)
{
    sac_image_memory_give(bytes->size);
    free(bytes->data);
    *bytes = (struct sac_image_bytes){0};
}

void sac_decoder_free(struct sac_decoder *decoder)
{
    if (!decoder)
        return;
    sac_jpeg_free(decoder->jpeg);
    release(&decoder->pixels);
    release(&decoder->work);
    free(decoder->resize.memory);
    free(decoder);
}

/* Decoders that rest keep half of the memory at most between them: the one that
 * has a picture finds the other half, however many there are. */
static void trim(struct sac_image_bytes *bytes)
{
    if (bytes->size > KEPT_BYTES_MAX || atomic_load(&memory_used) > memory_max / 2)
        release(bytes);
}

void sac_decoder_trim(struct sac_decoder *decoder)
{
    trim(&decoder->pixels);
    trim(&decoder->work);
}

int sac_image_bytes_reserve(struct sac_image_bytes *bytes, size_t rows, size_t width,
                            size_t channels, struct sac_error *err)
{
    size_t need;

    if (__builtin_mul_overflow(rows, width, &need) || __builtin_mul_overflow(need, channels, &need))
        return sac_fail(err, SAC_ELIMIT, "picture: %zu × %zu is larger than memory can be", width,
                        rows);
    if (need <= bytes->size)
        return 0;
    release(bytes); /* before the larger one: both never stand side by side */
    int rc = sac_image_memory_take(need, "pixels", err);
    if (rc < 0)
        return rc;
    bytes->data = malloc(need);
    bytes->size = need;
    if (bytes->data)
        return 0;
    release(bytes);
    return sac_fail(err, SAC_ENOMEM, "picture: no memory for %zu bytes", need);
}

struct sac_image_limits sac_image_limits_resolve(const struct sac_image_limits *limits)
{
    struct sac_image_limits all = limits ? *limits : (struct sac_image_limits){0};

    if (all.pixels_max == 0)
        all.pixels_max = 40000000;
    if (all.side_max <= 0)
        all.side_max = 16384;
    if (all.progressive_pixels_max == 0)
        all.progressive_pixels_max = 16000000;
    if (all.scans_max <= 0)
        all.scans_max = 100;
    if (all.png_chunk_bytes_max == 0)
        all.png_chunk_bytes_max = 1000000;
    if (all.png_chunks_max <= 0)
        all.png_chunks_max = 64;
    return all;
}

int sac_image_size_check(const struct sac_image_limits *limits, const char *name, uint64_t width,
                         uint64_t height, struct sac_error *err)
{
    uint64_t side_max = (uint64_t)limits->side_max, pixels;

    if (width == 0 || height == 0)
        return sac_fail(err, SAC_EFORMAT, "%s: an empty picture, %llu × %llu", name,
                        (unsigned long long)width, (unsigned long long)height);
    if (width > side_max || height > side_max)
        return sac_fail(err, SAC_ELIMIT, "%s: %llu × %llu, a side may have at most %d pixels", name,
                        (unsigned long long)width, (unsigned long long)height, limits->side_max);
    if (__builtin_mul_overflow(width, height, &pixels) || pixels > limits->pixels_max)
        return sac_fail(err, SAC_ELIMIT, "%s: %llu × %llu, a picture may have at most %llu pixels",
                        name, (unsigned long long)width, (unsigned long long)height,
                        (unsigned long long)limits->pixels_max);
    return 0;
}

int sac_image_canceled_check(const struct sac_decode_options *options, struct sac_error *err)
{
    if (options->canceled && atomic_load_explicit(options->canceled, memory_order_relaxed))
        return sac_fail(err, SAC_ECANCELED, "picture: decoding was canceled");
    return 0;
}

static int kind_of(const uint8_t *bytes, size_t size, enum sac_image_kind *ret,
                   struct sac_error *err)
{
    if (size >= 3 && memcmp(bytes, "\xff\xd8\xff", 3) == 0)
        *ret = SAC_IMAGE_JPEG;
    else if (size >= 8 && memcmp(bytes, "\x89PNG\r\n\x1a\n", 8) == 0)
        *ret = SAC_IMAGE_PNG;
    else if (size == 0)
        return sac_fail(err, SAC_EFORMAT, "picture: there are no bytes");
    else
        return sac_fail(err, SAC_EUNSUPPORTED, "picture: neither JPEG nor PNG (%zu bytes)", size);
    return 0;
}

int sac_image_probe(struct sac_decoder *decoder, const uint8_t *bytes, size_t size,
                    const struct sac_image_limits *limits, struct sac_image_info *ret,
                    struct sac_error *err)
{
    struct sac_image_limits all = sac_image_limits_resolve(limits);
    enum sac_image_kind kind = SAC_IMAGE_JPEG;
    int rc = kind_of(bytes, size, &kind, err);

    if (rc < 0)
        return rc;
    return kind == SAC_IMAGE_JPEG ? sac_jpeg_probe(decoder, bytes, size, &all, ret, err)
                                  : sac_png_probe(bytes, size, &all, ret, err);
}

int sac_image_decode(struct sac_decoder *decoder, const uint8_t *bytes, size_t size,
                     const struct sac_decode_options *options, struct sac_image *ret,
                     struct sac_error *err)
{
    struct sac_image_limits all = sac_image_limits_resolve(&options->limits);
    enum sac_image_kind kind = SAC_IMAGE_JPEG;
    int rc = kind_of(bytes, size, &kind, err);

    if (rc == 0 && options->channels != 1 && options->channels != 3)
        rc = sac_fail(err, SAC_EINVAL, "picture: channels must be 1 or 3, not %d",
                      options->channels);
    if (rc < 0)
        return rc;
    return kind == SAC_IMAGE_JPEG ? sac_jpeg_decode(decoder, bytes, size, &all, options, ret, err)
                                  : sac_png_decode(decoder, bytes, size, &all, options, ret, err);
}
