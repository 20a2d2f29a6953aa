#include "makers.h"

#include <math.h>

#include "dataset/mean.h"

static struct sac_source *written(const char *name, const int (*sizes)[2], int count, int channels)
{
    struct sac_source *source = NULL;
    struct sac_error err = {0};
    char text[4000];
    size_t size = 0;

    for (int i = 0; i < count; i++) {
        char file[64];
        struct bytes png = make_png(i, sizes[i][0], sizes[i][1], channels);
        snprintf(file, sizeof file, "%s%d.png", name, i);
        size += (size_t)snprintf(text + size, sizeof text - size, "%s %d\n",
                                 sac_test_write(file, png.data, png.size), i);
        free(png.data);
    }
    assert_ok(sac_source_list_open(&source, sac_test_write(name, text, size), NULL, &err), err);
    return source;
}

/* From the formula that made the pixels; planes are B, G, R. */
static void the_mean_image_is_the_mean_of_the_pixels(void **state)
{
    static const int sizes[5][2] = {{6, 4}, {6, 4}, {6, 4}, {6, 4}, {6, 4}};
    struct sac_source *source = written("same", sizes, 5, 3);
    struct sac_mean_options options = {.threads = 2};
    struct sac_caffe_blob blob = {0};
    struct sac_mean mean = {0};
    struct sac_error err = {0};
    const char *path = made_path("mean.binaryproto");

    (void)state;
    assert_ok(sac_mean_of(&mean, source, &options, &err), err);
    assert_true(mean.count == 5 && mean.channels == 3 && mean.height == 4 && mean.width == 6);
    assert_ok(sac_mean_save(&mean, path, &err), err);
    assert_ok(sac_caffe_blob_load(&blob, path, &err), err);
    assert_true(blob.rank == 4 && blob.dim[0] == 1 && blob.dim[1] == 3 && blob.dim[2] == 4 &&
                blob.dim[3] == 6);
    for (int c = 0; c < 3; c++) {
        double all = 0;
        for (int y = 0; y < 4; y++) {
            for (int x = 0; x < 6; x++) {
                double sum = 0;
                for (int i = 0; i < 5; i++)
                    sum += made_value(i, 2 - c, y, x);
                all += sum / 5;
                assert_true(fabs(mean.image[(c * 4 + y) * 6 + x] - sum / 5) < 1e-12);
                assert_true(blob.data[(c * 4 + y) * 6 + x] == (float)(sum / 5));
            }
        }
        assert_true(fabs(mean.channel[c] - all / 24) < 1e-12);
    }
    sac_caffe_blob_done(&blob);
    sac_mean_done(&mean);
    sac_source_free(source);
}

static void pictures_of_several_sizes_have_means_of_channels_alone(void **state)
{
    static const int sizes[2][2] = {{2, 2}, {4, 1}};
    struct sac_source *source = written("mixed", sizes, 2, 1);
    struct sac_mean_options options = {.recipe.fit.channels = 1};
    struct sac_mean mean = {0};
    struct sac_error err = {0};
    double sum = 0;

    (void)state;
    for (int i = 0; i < 2; i++) {
        for (int y = 0; y < sizes[i][1]; y++) {
            for (int x = 0; x < sizes[i][0]; x++)
                sum += made_value(i, 0, y, x);
        }
    }
    assert_ok(sac_mean_of(&mean, source, &options, &err), err);
    assert_true(mean.channels == 1 && mean.width == 0 && !mean.image);
    assert_true(fabs(mean.channel[0] - sum / 8) < 1e-12);
    assert_int_equal(sac_mean_save(&mean, made_path("none"), &err), SAC_EINVAL);
    assert_says(err, "--size");
    sac_mean_done(&mean);
    sac_source_free(source);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_mean_image_is_the_mean_of_the_pixels),
        cmocka_unit_test(pictures_of_several_sizes_have_means_of_channels_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
