/*
 * What bench/decode runs of ours: from a JPEG's bytes to a net's input, as a worker
 * does it. Reads lines "FILE MODE SIDE TIMES" from standard input (MODE: fast or
 * exact; the picture is squashed to SIDE × SIDE), decodes FILE that often with one
 * decoder that is kept from line to line, and answers each with a line "WALL CPU":
 * nanoseconds a picture, CPU being this thread's.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "image/preprocess.h"

struct order {
    char path[4096], mode[8];
    int side, times;
};

static int decode_all(const struct order *order, struct sac_decoder *decoder, const uint8_t *bytes,
                      size_t size, uint8_t *pixels, struct sac_error *err)
{
    struct sac_preprocess how = sac_preprocess_default(3, order->side, order->side);
    int rc = 0;

    how.decode = strcmp(order->mode, "fast") == 0 ? SAC_DECODE_FAST : SAC_DECODE_EXACT;
    for (int i = 0; i < order->times && rc == 0; i++)
        rc = sac_preprocess_pixels(&how, decoder, bytes, size, NULL, pixels, err);
    return rc;
}

static int obey(const struct order *order, struct sac_decoder *decoder, struct sac_error *err)
{
    uint8_t *bytes = NULL, *pixels = malloc((size_t)order->side * (size_t)order->side * 3);
    size_t size = 0;
    int rc = pixels ? 0 : sac_fail(err, SAC_ENOMEM, "out of memory");

    if (rc == 0)
        rc = sac_file_read(order->path, 64 << 20, &bytes, &size, err);
    if (rc == 0) {
        uint64_t wall = sac_clock_ns(), cpu = sac_clock_thread_cpu_ns();
        rc = decode_all(order, decoder, bytes, size, pixels, err);
        wall = sac_clock_ns() - wall;
        cpu = sac_clock_thread_cpu_ns() - cpu;
        printf("%.0f %.0f\n", (double)wall / order->times, (double)cpu / order->times);
        fflush(stdout);
    }
    free(bytes);
    free(pixels);
    return rc;
}

int main(void)
{
    struct sac_decoder *decoder = NULL;
    struct sac_error err = {0};
    struct order order;
    int rc = sac_decoder_new(&decoder, &err);

    while (rc == 0 &&
           scanf("%4095s %7s %d %d", order.path, order.mode, &order.side, &order.times) == 4 &&
           order.side > 0 && order.side <= 4096 && order.times > 0)
        rc = obey(&order, decoder, &err);
    if (rc < 0)
        fprintf(stderr, "decode_ours: %s\n", err.text);
    sac_decoder_free(decoder);
    return rc < 0;
}
