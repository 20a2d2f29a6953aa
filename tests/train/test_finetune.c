/* A fine-tuning run's files say what the recipe says, and can be read back. */
#include "support/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/finetune.h"

static const struct sac_tuning recipe = {.batch = 16,
                                         .epochs = 4,
                                         .rate = 0.002,
                                         .last_mult = 10,
                                         .early_mult = 0.5,
                                         .frozen = 4,
                                         .decay = 0.0005,
                                         .smoothing = 0.1,
                                         .area_min = 0.5,
                                         .color = 0.2,
                                         .flip = 1,
                                         .resize = 256,
                                         .patience = 5,
                                         .iterations = 400,
                                         .warm_up = 40,
                                         .test_interval = 100,
                                         .test_batch = 25,
                                         .test_batches = 7};

static struct sac_preprocess squeezenet(void)
{
    struct sac_preprocess how = sac_preprocess_default(3, 227, 227);

    how.mean[0] = 104;
    how.mean[1] = 117;
    how.mean[2] = 123;
    return how;
}

static int write_run(const struct sac_preprocess *how, const char *train, char **ret_solver,
                     struct sac_error *err)
{
    struct sac_caffe_net deploy;
    char path[4096];

    snprintf(path, sizeof path, "%s/deploy.prototxt", sac_test_data("squeezenet_v1.1"));
    assert_ok(sac_caffe_net_load(&deploy, path, err), *err);
    struct sac_finetune run = {.folder = sac_test_tmpdir(),
                               .deploy = deploy.net,
                               .how = how,
                               .recipe = &recipe,
                               .train = train,
                               .validation = "/data/val.txt",
                               .classes = 17,
                               .seed = 7};
    int rc = sac_finetune_write(&run, ret_solver, err);
    sac_caffe_net_done(&deploy);
    return rc;
}

static void the_solver_says_what_the_recipe_says(void **state)
{
    struct sac_preprocess how = squeezenet();
    struct sac_caffe_solver solver;
    struct sac_error err = {0};
    char *path = NULL;

    (void)state;
    assert_ok(write_run(&how, "/data/train.txt", &path, &err), err);
    assert_ok(sac_caffe_solver_load(&solver, path, &err), err);
    const Caffe__SolverParameter *s = solver.solver;
    assert_float_equal(s->base_lr, 0.002F, 0);
    assert_string_equal(s->lr_policy, "cosine");
    assert_int_equal(s->max_iter, 400);
    assert_int_equal(s->rampup_interval, 40);
    assert_int_equal(s->test_interval, 100);
    assert_int_equal(s->test_iter[0], 7);
    assert_int_equal(s->random_seed, 7);
    assert_int_equal(s->net[0], '/');
    sac_caffe_solver_done(&solver);
    free(path);
}

static void the_net_is_fed_as_the_model_takes_pictures(void **state)
{
    struct sac_preprocess how = squeezenet();
    struct sac_caffe_net net;
    struct sac_error err = {0};
    char *path = NULL, file[4200];

    (void)state;
    assert_ok(write_run(&how, "/data/train.txt", &path, &err), err);
    snprintf(file, sizeof file, "%s/train_val.prototxt", sac_test_tmpdir());
    assert_ok(sac_caffe_net_load(&net, file, &err), err);
    const Caffe__LayerParameter *train = net.net->layer[0], *test = net.net->layer[1];
    assert_string_equal(train->type, "ImageData");
    assert_string_equal(train->image_data_param->source, "/data/train.txt");
    assert_int_equal(train->image_data_param->batch_size, 16);
    assert_int_equal(test->image_data_param->batch_size, 25);
    assert_int_equal(train->image_data_param->new_width, 256);
    assert_int_equal(train->transform_param->crop_size, 227);
    assert_int_equal(train->transform_param->n_mean_value, 3);
    assert_float_equal(train->transform_param->mean_value[2], 123, 0);
    assert_true(train->transform_param->augment->flip);
    assert_null(test->transform_param->augment);
    assert_false(train->transform_param->rgb);
    sac_caffe_net_done(&net);
    free(path);
}

static void a_database_is_read_by_a_data_layer_and_rgb_models_stay_rgb(void **state)
{
    struct sac_preprocess how = squeezenet();
    struct sac_caffe_net net;
    struct sac_error err = {0};
    char *path = NULL, file[4200];

    (void)state;
    how.bgr = false;
    assert_ok(write_run(&how, sac_test_tmpdir(), &path, &err), err);
    snprintf(file, sizeof file, "%s/train_val.prototxt", sac_test_tmpdir());
    assert_ok(sac_caffe_net_load(&net, file, &err), err);
    assert_string_equal(net.net->layer[0]->type, "Data");
    assert_true(net.net->layer[0]->transform_param->rgb);
    sac_caffe_net_done(&net);
    free(path);
}

static void an_oblong_input_is_refused(void **state)
{
    struct sac_preprocess how = squeezenet();
    struct sac_error err = {0};
    char *path = NULL;

    (void)state;
    how.crop_width = 300;
    assert_true(write_run(&how, "/data/train.txt", &path, &err) < 0);
    assert_says(err, "300 × 227");
    assert_null(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_solver_says_what_the_recipe_says),
        cmocka_unit_test(the_net_is_fed_as_the_model_takes_pictures),
        cmocka_unit_test(a_database_is_read_by_a_data_layer_and_rgb_models_stay_rgb),
        cmocka_unit_test(an_oblong_input_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
