#include "support/support.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "model/classifier.h"
#include "model/squeezenet.h"
#include "saccade/saccade.h"

static const char straight[] = "{\"preprocess\":{\"mean\":[104,117,123]}}";
static const char cropped[] =
    "{\"preprocess\":{\"resize\":\"squash\",\"resize_size\":256,\"mean\":[104,117,123]}}";

/* One classifier and what it needs. */
struct bench {
    struct sac_device *device;
    struct sac_model *model;
    struct sac_engine *engine;
    struct sac_classifier *classifier;
};

static void set_up(struct bench *b, const char *json, const char *precision, int batch_max)
{
    struct sac_model_files files = {.dir = sac_test_squeezenet(json)};
    struct sac_model_overrides overrides = SAC_MODEL_OVERRIDES_NONE;
    struct sac_error err = {0};

    overrides.precision = precision;
    assert_ok(sac_device_open(&b->device, "cpu", &err), err);
    assert_ok(sac_model_open(&b->model, &files, &overrides, &err), err);
    assert_ok(sac_engine_new(&b->engine, b->model, b->device, batch_max, 0, &err), err);
    assert_ok(sac_classifier_new(&b->classifier, b->engine, &err), err);
}

static void tear_down(struct bench *b)
{
    sac_classifier_free(b->classifier);
    sac_engine_free(b->engine);
    sac_model_unref(b->model);
    sac_device_close(b->device);
}

static void decode(struct bench *b, int slot, const char *path)
{
    struct sac_error err = {0};
    uint8_t *bytes;
    size_t size;

    assert_ok(sac_file_read(path, 64 << 20, &bytes, &size, &err), err);
    assert_ok(sac_classifier_decode(b->classifier, slot, bytes, size, NULL, &err), err);
    free(bytes);
}

/* OpenCV 4.6's DNN module, straight bilinear to 227, means 104, 117, 123; the
 * order of near-equal neighbours is not checked. */
static const struct {
    int index; /* in synset_words.txt */
    float value;
} cat_by_opencv[] = {{281, .2742f}, {282, .2663f}, {278, .1789f}, {285, .0831f}, {151, .0777f}};

static void assert_cat(const struct sac_topk_pair *pairs)
{
    for (int i = 0; i < 5; i++) {
        int at = 0;
        while (at < 5 && pairs[at].index != cat_by_opencv[i].index)
            at++;
        assert_in_range(at, 0, 4);
        assert_true(fabsf(pairs[at].value - cat_by_opencv[i].value) <= .02f);
    }
}

static void the_cat_is_what_opencv_says(void **state)
{
    struct sac_error err = {0};
    struct bench b;

    (void)state;
    set_up(&b, straight, "f32", 1);
    decode(&b, 0, sac_test_data("images/cat.jpg"));
    assert_ok(sac_classifier_run(b.classifier, 1, &err), err);
    assert_cat(sac_classifier_result(b.classifier, 0));
    tear_down(&b);
}

static void the_public_session_says_the_same(void **state)
{
    struct sac_session_options options = {.model = sac_test_squeezenet(straight)};
    struct sac_prediction best[5];
    struct sac_topk_pair pairs[5];
    struct sac_session *session;
    struct sac_error err = {0};
    uint8_t *bytes;
    size_t size;

    (void)state;
    assert_ok(sac_session_open(&session, &options, &err), err);
    assert_ok(sac_file_read(sac_test_data("images/cat.jpg"), 64 << 20, &bytes, &size, &err), err);
    assert_int_equal(sac_session_classify(session, bytes, size, best, 5, &err), 5);
    for (int i = 0; i < 5; i++)
        pairs[i] = (struct sac_topk_pair){best[i].index, best[i].confidence};
    assert_cat(pairs);
    assert_int_equal(sac_session_classify(session, bytes, size, best, 2, &err), 2);
    assert_int_equal(sac_session_classify(session, "no picture", 10, best, 5, &err),
                     SAC_EUNSUPPORTED);
    free(bytes);
    sac_session_close(session);
}

static int is_jpeg(const struct dirent *entry)
{
    return strstr(entry->d_name, ".JPEG") != NULL;
}

struct score {
    int top1, top5;
};

/* The WNID stands in the file's name and at the start of the right label. */
static struct score score_samples(const char *json, const char *precision)
{
    const char *folder = sac_test_data("imagenet_samples");
    struct sac_error err = {0};
    struct score score = {0};
    struct dirent **entries;
    struct bench b;
    char path[1024];

    set_up(&b, json, precision, 1);
    int count = scandir(folder, &entries, is_jpeg, alphasort);
    assert_int_equal(count, 80);
    for (int i = 0; i < count; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, entries[i]->d_name);
        decode(&b, 0, path);
        assert_ok(sac_classifier_run(b.classifier, 1, &err), err);
        const struct sac_topk_pair *pairs = sac_classifier_result(b.classifier, 0);
        for (int k = 0; k < 5; k++)
            if (strncmp(sac_model_label(b.model, pairs[k].index), entries[i]->d_name, 9) == 0) {
                score.top1 += k == 0;
                score.top5++;
            }
        free(entries[i]);
    }
    free(entries);
    tear_down(&b);
    print_message("# %s: %d top-1, %d top-5 of 80\n", precision, score.top1, score.top5);
    return score;
}

/* OpenCV 4.6's DNN module over the same pictures: 52 and 64 straight to 227, 47
 * and 66 by 256 × 256 and the centre. fp32 within 2 of it, bf16 within 1 of fp32. */
static void assert_scores(const char *json, int top1, int top5)
{
    struct score f32 = score_samples(json, "f32"), bf16 = score_samples(json, "bf16");

    assert_true(abs(f32.top1 - top1) <= 2 && abs(f32.top5 - top5) <= 2);
    assert_true(abs(bf16.top1 - f32.top1) <= 1 && abs(bf16.top5 - f32.top5) <= 1);
}

static void the_samples_score_as_with_opencv_straight(void **state)
{
    (void)state;
    assert_scores(straight, 52, 64);
}

static void the_samples_score_as_with_opencv_cropped(void **state)
{
    (void)state;
    assert_scores(cropped, 47, 66);
}

/* Seven pictures at once (4 + 2 + 1) and each alone: the same bits. */
static void assert_batches_change_nothing(const char *precision)
{
    static const char *const names[7] = {
        "images/cat.jpg",           "images/fish-bike.jpg", "images/space_shuttle.jpg",
        "images/cat_gray.jpg",      "images/cat.jpg",       "images/jpeg/Landscape_3.jpg",
        "images/jpeg/testorig.jpg",
    };
    struct sac_topk_pair together[7 * 5];
    struct sac_error err = {0};
    struct bench b;

    set_up(&b, "{\"deterministic\":true,\"preprocess\":{\"mean\":[104,117,123]}}", precision, 8);
    for (int i = 0; i < 7; i++)
        decode(&b, i, sac_test_data(names[i]));
    assert_ok(sac_classifier_run(b.classifier, 7, &err), err);
    memcpy(together, sac_classifier_result(b.classifier, 0), sizeof together);
    for (int i = 0; i < 7; i++) {
        decode(&b, 0, sac_test_data(names[i]));
        assert_ok(sac_classifier_run(b.classifier, 1, &err), err);
        assert_memory_equal(sac_classifier_result(b.classifier, 0), together + 5 * i,
                            5 * sizeof *together);
    }
    tear_down(&b);
}

static void a_picture_gets_the_same_bits_in_every_batch(void **state)
{
    (void)state;
    assert_batches_change_nothing("f32");
    assert_batches_change_nothing("bf16");
}

/* One thread is the reference. */
static void assert_team_changes_nothing(const char *precision)
{
    struct sac_topk_pair alone[5];
    struct sac_error err = {0};
    struct bench b;
    bool same = false;

    set_up(&b, straight, precision, 2);
    decode(&b, 0, sac_test_data("images/fish-bike.jpg"));
    assert_ok(sac_classifier_add_team(b.classifier, 2, &same, &err), err);
    assert_true(same);
    decode(&b, 0, sac_test_data("images/cat.jpg"));
    assert_ok(sac_classifier_run(b.classifier, 1, &err), err);
    memcpy(alone, sac_classifier_result(b.classifier, 0), sizeof alone);
    assert_cat(alone);
    decode(&b, 0, sac_test_data("images/fish-bike.jpg"));
    assert_ok(sac_classifier_run_team(b.classifier, &err), err);
    assert_memory_not_equal(sac_classifier_result(b.classifier, 0), alone, sizeof alone);
    decode(&b, 0, sac_test_data("images/cat.jpg"));
    assert_ok(sac_classifier_run_team(b.classifier, &err), err);
    assert_memory_equal(sac_classifier_result(b.classifier, 0), alone, sizeof alone);
    tear_down(&b);
}

static void a_team_of_two_says_the_same_bits_as_one_thread(void **state)
{
    (void)state;
    assert_team_changes_nothing("f32");
}

/* SqueezeNet's blobs are larger than its weights: a picture after another stays in the caches. */
static void no_batch_is_made_that_would_be_computed_a_picture_at_a_time(void **state)
{
    struct bench b;

    (void)state;
    set_up(&b, straight, "f32", 8);
    assert_int_equal(sac_engine_batch_max(b.engine), 8);
    assert_int_equal(sac_classifier_batch_best(b.classifier), 1);
    tear_down(&b);
}

static void a_moved_slot_takes_its_picture_along(void **state)
{
    struct sac_error err = {0};
    struct bench b;

    (void)state;
    set_up(&b, straight, "f32", 2);
    decode(&b, 0, sac_test_data("images/fish-bike.jpg"));
    decode(&b, 1, sac_test_data("images/cat.jpg"));
    assert_int_equal(sac_classifier_decode(b.classifier, 0, (const uint8_t *)"x", 1, NULL, &err),
                     SAC_EUNSUPPORTED);
    sac_classifier_move(b.classifier, 0, 1);
    err.code = 0;
    assert_ok(sac_classifier_run(b.classifier, 1, &err), err);
    assert_cat(sac_classifier_result(b.classifier, 0));
    tear_down(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_cat_is_what_opencv_says),
        cmocka_unit_test(the_public_session_says_the_same),
        cmocka_unit_test(the_samples_score_as_with_opencv_straight),
        cmocka_unit_test(the_samples_score_as_with_opencv_cropped),
        cmocka_unit_test(a_picture_gets_the_same_bits_in_every_batch),
        cmocka_unit_test(a_team_of_two_says_the_same_bits_as_one_thread),
        cmocka_unit_test(no_batch_is_made_that_would_be_computed_a_picture_at_a_time),
        cmocka_unit_test(a_moved_slot_takes_its_picture_along),
    };
    return cmocka_run_group_tests_name("classifier", tests, NULL, NULL);
}
