/* saccade dataset mean */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "cli/dataset.h"
#include "dataset/mean.h"

static const char help[] =
    "Usage: saccade dataset mean [options] SOURCE [MEAN.binaryproto]\n\n"
    "The mean of each channel and, where all pictures have one size, the mean image as\n"
    "Caffe's compute_image_mean writes it: B, G, R of pictures, planes as they are in an\n"
    "LMDB or an HDF5 file, R, G, B of CIFAR-10's. Sums are kept in double precision.\n\n"
    "  --size WIDTHxHEIGHT     bring pictures to a size first\n"
    "  --resize squash|crop|fill|half_crop   how (squash)\n"
    "  --grey | --color        one channel, or three (encoded pictures: three)\n"
    "  --decode fast|exact     (exact)\n"
    "  --root DIR              what a list's paths are under\n"
    "  --threads N             (one a core)\n"
    "  --json                  the numbers as JSON\n\n"
    "Example: saccade dataset mean --size 227x227 train.txt mean.binaryproto\n";

static const struct option long_options[] = {
    {"size", required_argument, NULL, SAC_DATASET_SIZE},
    {"resize", required_argument, NULL, SAC_DATASET_RESIZE},
    {"grey", no_argument, NULL, SAC_DATASET_GREY},
    {"color", no_argument, NULL, SAC_DATASET_COLOR},
    {"decode", required_argument, NULL, SAC_DATASET_DECODE},
    {"root", required_argument, NULL, SAC_DATASET_ROOT},
    {"threads", required_argument, NULL, SAC_DATASET_THREADS},
    {"json", no_argument, NULL, SAC_DATASET_JSON},
    {"help", no_argument, NULL, SAC_FLAG_HELP},
    {0}};

static void on_skip(void *user, const char *sentence)
{
    (void)user;
    fprintf(stderr, "saccade: skipped: %s\n", sentence);
}

static void print_json(const struct sac_mean *mean)
{
    printf("{\"pictures\":%" PRId64 ",\"skipped\":%" PRId64
           ",\"channels\":%d,\"height\":%d,\"width\":%d,\"mean\":[",
           mean->count, mean->skipped, mean->channels, mean->height, mean->width);
    for (int c = 0; c < mean->channels; c++)
        printf("%s%.9g", c ? "," : "", mean->channel[c]);
    printf("]}\n");
}

static void print_text(const struct sac_mean *mean)
{
    printf("%" PRId64 " pictures, %d channels", mean->count, mean->channels);
    if (mean->image)
        printf(" of %d × %d", mean->width, mean->height);
    if (mean->skipped)
        printf(", %" PRId64 " skipped", mean->skipped);
    printf("\nmean");
    for (int c = 0; c < mean->channels; c++)
        printf("%s%.4f", c ? "," : " ", mean->channel[c]);
    printf("\n");
}

static int run(const struct sac_dataset_flags *flags, char *source_path, const char *out,
               struct sac_error *err)
{
    struct sac_mean_options options = {
        .recipe = flags->recipe, .threads = flags->threads, .on_skip = on_skip};
    struct sac_source *source = NULL;
    struct sac_mean mean = {0};
    int rc;

    if (options.recipe.fit.width > 0 && options.recipe.fit.channels == 0)
        options.recipe.fit.channels = 3;
    rc = sac_dataset_open(&source, flags, &source_path, 1, err);
    if (rc == 0)
        rc = sac_mean_of(&mean, source, &options, err);
    if (rc == 0 && out)
        rc = sac_mean_save(&mean, out, err);
    if (rc == 0 && flags->json)
        print_json(&mean);
    else if (rc == 0)
        print_text(&mean);
    sac_mean_done(&mean);
    sac_source_free(source);
    return rc;
}

static int take(void *user, int option, const char *value, struct sac_error *err)
{
    return sac_dataset_flags_take(user, option, value, err);
}

int sac_dataset_mean(int argc, char **argv)
{
    struct sac_dataset_flags flags = {.recipe = {.fit = {.decode = SAC_DECODE_EXACT}}};
    struct sac_error err = {0};
    bool wants_help;
    int rc = sac_flags_options(argc, argv, SAC_FLAGS_SHORT, long_options, take, &flags, &wants_help,
                               &err);

    if (wants_help) {
        fputs(help, stdout);
        return 0;
    }
    if (rc == 0 && argc - optind != 1 && argc - optind != 2)
        rc = sac_fail(&err, SAC_EINVAL, "expected a source and perhaps a file to write");
    if (rc < 0)
        return sac_usage_error("dataset mean", "%s", err.text);
    rc = run(&flags, argv[optind], argc - optind == 2 ? argv[optind + 1] : NULL, &err);
    return rc < 0 ? sac_command_failed(&err) : 0;
}
