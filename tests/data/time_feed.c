/* How fast a feed is: time_feed PATH [THREADS [SECONDS [SIDE]]]. Encoded pictures
 * are resized to SIDE + 29 (256 of 227) and cropped to SIDE at random. */
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "data/feed.h"

int main(int argc, char **argv)
{
    int side = argc > 4 ? atoi(argv[4]) : 0;
    double seconds = argc > 3 ? atof(argv[3]) : 3;
    struct sac_feed_options options = {
        .batch = 64, .train = true, .shuffle = true, .threads = argc > 2 ? atoi(argv[2]) : 2};
    struct sac_transform transform = {
        .crop_width = side, .crop_height = side, .mirror = true, .force_color = true};
    struct sac_source *source = NULL;
    struct sac_feed *feed = NULL;
    struct sac_batch batch;
    struct sac_error err = {0};

    if (argc < 2)
        return 2;
    transform.resize_width = transform.resize_height = side ? side + 29 : 0;
    int rc = sac_source_open(&source, argv[1], &err);
    if (rc == 0)
        rc = sac_feed_open(&feed, source, &transform, &options, &err);
    if (rc < 0)
        sac_source_free(source);
    uint64_t start = sac_clock_ns(), items = 0;
    while (rc == 0 && (double)(sac_clock_ns() - start) < seconds * 1e9) {
        rc = sac_feed_next(feed, &batch, &err);
        items += rc == 0 ? (uint64_t)batch.count : 0;
    }
    if (rc < 0)
        fprintf(stderr, "%s\n", err.text);
    else
        printf("%.0f items/s, %d threads\n",
               (double)items / ((double)(sac_clock_ns() - start) / 1e9), options.threads);
    sac_feed_free(feed);
    return rc < 0;
}
