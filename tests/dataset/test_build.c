#include "makers.h"

#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "dataset/build.h"

/* 40 pictures of 4 classes; number 9 is damaged, number 21 is not there. */
static struct sac_source *pictures(void)
{
    static char text[10000];
    struct sac_source *source = NULL;
    struct sac_error err = {0};
    size_t size = 0;

    for (int i = 0; i < 40; i++) {
        char file[64];
        struct bytes png = make_png(i, 20 + i % 3, 16, 3);
        snprintf(file, sizeof file, "in%d.png", i);
        const char *path =
            i == 21 ? "/nowhere/in21.png" : sac_test_write(file, png.data, i == 9 ? 60 : png.size);
        size += (size_t)snprintf(text + size, sizeof text - size, "%s %d\n", path, i % 4);
        free(png.data);
    }
    assert_ok(sac_source_list_open(&source, sac_test_write("in.txt", text, size), NULL, &err), err);
    return source;
}

static struct sac_build_options options_of(enum sac_sink_kind kind, const char *out)
{
    return (struct sac_build_options){
        .recipe = {.to = kind,
                   .fit = {.mode = SAC_FIT_SQUASH, .width = 12, .height = 10, .channels = 3},
                   .encoding = SAC_ENCODING_PNG,
                   .seed = 3},
        .out = out,
        .mean = true,
        .threads = 2};
}

static void a_list_has_the_pictures_their_labels_and_their_mean(void **state)
{
    struct sac_source *source = pictures(), *made = NULL;
    const char *out = made_path("out_list");
    struct sac_build_options options = options_of(SAC_SINK_LIST, out);
    struct sac_build_report report;
    struct sac_caffe_blob mean = {0};
    struct sac_item item = {0};
    struct sac_error err = {0};
    struct sac_decoder *decoder = NULL;
    double sums[12 * 10 * 3] = {0};

    (void)state;
    assert_ok(sac_build(source, &options, &report, &err), err);
    assert_true(report.items == 40 && report.written == 38 && report.skipped == 2);
    assert_ok(sac_source_open(&made, out, &err), err);
    assert_ok(sac_decoder_new(&decoder, &err), err);
    for (int i = 0, j = 0; i < 40; i++) {
        struct sac_image image;
        struct sac_decode_options rgb = {.channels = 3};
        uint8_t expected[12 * 10 * 3];
        struct bytes png = make_png(i, 20 + i % 3, 16, 3);
        if (i != 9 && i != 21) {
            assert_ok(
                sac_fit_pixels(&options.recipe.fit, decoder, png.data, png.size, 0, expected, &err),
                err);
            assert_ok(sac_source_item(made, j++, &item, &err), err);
            assert_true(item.labels[0] == i % 4);
            assert_ok(sac_image_decode(decoder, item.bytes, item.size, &rgb, &image, &err), err);
            assert_memory_equal(image.pixels, expected, sizeof expected);
            for (size_t k = 0; k < sizeof expected; k++)
                sums[(2 - k % 3) * 120 + k / 3] += expected[k];
        }
        free(png.data);
    }
    assert_ok(sac_caffe_blob_load(&mean, made_path("out_list/mean.binaryproto"), &err), err);
    assert_int_equal(mean.count, 360);
    for (int i = 0; i < 360; i++)
        assert_true(mean.data[i] == (float)(sums[i] / 38));
    assert_false(sac_file_exists(made_path("out_list/.progress.0")));
    sac_caffe_blob_done(&mean);
    sac_decoder_free(decoder);
    sac_item_done(&item);
    sac_source_free(made);
    sac_source_free(source);
}

static void threads_do_not_change_a_bit_and_a_seed_changes_the_order(void **state)
{
    static const char *const outs[] = {"one", "five", "seed"};
    struct sac_source *source = pictures();
    struct bytes files[3];

    (void)state;
    for (int i = 0; i < 3; i++) {
        struct sac_build_options options = options_of(SAC_SINK_LIST, made_path("%s", outs[i]));
        struct sac_build_report report;
        struct sac_error err = {0};
        options.shuffle = true;
        options.threads = i == 1 ? 5 : 1;
        options.recipe.seed = i == 2 ? 8 : 3;
        assert_ok(sac_build(source, &options, &report, &err), err);
        files[i] = picture_read_path(made_path("%s/list.txt", outs[i]));
    }
    assert_int_equal(files[0].size, files[1].size);
    assert_memory_equal(files[0].data, files[1].data, files[0].size);
    assert_memory_not_equal(files[0].data, files[2].data, files[0].size);
    for (int i = 0; i < 3; i++)
        free(files[i].data);
    sac_source_free(source);
}

static void a_place_where_something_else_is_is_refused(void **state)
{
    struct sac_source *source = pictures();
    const char *out = made_path("taken");
    struct sac_build_options options = options_of(SAC_SINK_LIST, out);
    struct sac_build_report report;
    struct sac_error err = {0};

    (void)state;
    make_folder(out);
    sac_test_write("taken/thesis.txt", "x", 1);
    assert_int_equal(sac_build(source, &options, &report, &err), SAC_EINVAL);
    assert_says(err, "not empty, and not begun by this command");
    unlink(made_path("taken/thesis.txt"));
    sac_test_write("taken/.progress.0.tmp", "x", 1); /* killed at the very beginning */
    err = (struct sac_error){0};
    assert_ok(sac_build(source, &options, &report, &err), err);
    options.recipe.fit.width++;
    assert_int_equal(sac_build(source, &options, &report, &err), SAC_EINVAL);
    assert_says(err, "another data set");
    options.recipe.fit.width--;
    err = (struct sac_error){0};
    assert_ok(sac_build(source, &options, &report, &err), err);
    assert_true(report.complete_before && report.written == 38 && report.skipped == 2);
    sac_source_free(source);
}

static void options_that_contradict_each_other_are_sentences(void **state)
{
    struct sac_source *source = pictures();
    struct sac_build_options options[4];
    static const char *const says[] = {"one size", "not raw", "neither PNG nor JPEG",
                                       "number of channels"};

    (void)state;
    for (int i = 0; i < 4; i++)
        options[i] = options_of(SAC_SINK_LIST, made_path("never"));
    options[0].recipe.fit.width = 0;
    options[1].recipe.encoding = SAC_ENCODING_RAW;
    options[2].recipe.to = SAC_SINK_HDF5;
    options[3].recipe.fit.channels = 0;
    for (int i = 0; i < 4; i++) {
        struct sac_build_report report;
        struct sac_error err = {0};
        assert_int_equal(sac_build(source, &options[i], &report, &err), SAC_EINVAL);
        assert_says(err, says[i]);
        assert_false(sac_file_exists(made_path("never")));
    }
    sac_source_free(source);
}

static void a_set_without_one_usable_picture_is_an_error(void **state)
{
    struct sac_source *source = NULL;
    const char *text = "/nowhere/a.png 0\n/nowhere/b.png 1\n";
    struct sac_build_options options = options_of(SAC_SINK_LIST, made_path("nothing"));
    struct sac_build_report report;
    struct sac_error err = {0};

    (void)state;
    assert_ok(
        sac_source_list_open(&source, sac_test_write("n.txt", text, strlen(text)), NULL, &err),
        err);
    assert_int_equal(sac_build(source, &options, &report, &err), SAC_EFORMAT);
    assert_says(err, "none of its 2 pictures could be used");
    sac_source_free(source);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_list_has_the_pictures_their_labels_and_their_mean),
        cmocka_unit_test(threads_do_not_change_a_bit_and_a_seed_changes_the_order),
        cmocka_unit_test(a_place_where_something_else_is_is_refused),
        cmocka_unit_test(options_that_contradict_each_other_are_sentences),
        cmocka_unit_test(a_set_without_one_usable_picture_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
