#include "makers.h"

enum { W = 9, H = 7, ITEMS = 6 };

static int try_layer(struct sac_feed **ret, const char *text, struct sac_feed_options options,
                     struct sac_error *err)
{
    struct sac_caffe_net net = {0};
    struct sac_error parse = {0};

    assert_ok(sac_caffe_net_parse(&net, "net", text, strlen(text), &parse), parse);
    assert_int_equal(net.net->n_layer, 1);
    int rc = sac_feed_from_layer(ret, net.net->layer[0], &options, err);
    sac_caffe_net_done(&net); /* the feed keeps nothing of it */
    return rc;
}

static struct sac_feed *open_layer(const char *text, struct sac_feed_options options)
{
    struct sac_feed *feed = NULL;
    struct sac_error err = {0};

    assert_ok(try_layer(&feed, text, options, &err), err);
    return feed;
}

static struct sac_batch next(struct sac_feed *feed)
{
    struct sac_batch batch = {0};
    struct sac_error err = {0};

    assert_ok(sac_feed_next(feed, &batch, &err), err);
    return batch;
}

static const char *make_database(const char *name)
{
    struct bytes datums[ITEMS];
    const char *path = made_path("%s", name);

    for (int i = 0; i < ITEMS; i++)
        datums[i] = make_datum(i, W, H, 3, 10 + i, false);
    make_lmdb(path, datums, ITEMS);
    return path;
}

static void a_data_layer_is_read_with_its_transform(void **state)
{
    struct sac_feed *feed;
    char text[900];

    (void)state;
    snprintf(text, sizeof text,
             "layer { name: 'd' type: 'Data' top: 'data' top: 'label' transform_param { scale: 0.5 "
             "crop_size: 5 mean_value: 100 mirror: false } data_param { source: '%s' "
             "batch_size: 4 backend: LMDB } }",
             make_database("db"));
    feed = open_layer(text, (struct sac_feed_options){0});
    assert_int_equal(sac_feed_batch(feed), 4);
    assert_memory_equal(sac_feed_shape(feed), ((int[]){3, 5, 5}), 3 * sizeof(int));
    for (int b = 0; b < 3; b++) {
        struct sac_batch batch = next(feed);
        for (int i = 0; i < 4; i++) {
            int item = (4 * b + i) % ITEMS;
            assert_true(batch.labels[i] == (float)(10 + item));
            /* channel 2, row 3, column 1 of the crop at (1, 2) */
            assert_true(batch.data[i * 75 + 2 * 25 + 3 * 5 + 1] ==
                        (made_value(item, 2, 4, 3) - 100.f) * .5f);
        }
    }
    sac_feed_free(feed);
    feed = open_layer(text, (struct sac_feed_options){.batch = 2});
    assert_int_equal(sac_feed_batch(feed), 2);
    sac_feed_free(feed);
}

/* Before transform_param there were fields of the data layers' own. */
static void an_old_data_layer_is_read_as_it_was_meant(void **state)
{
    char text[900];

    (void)state;
    snprintf(text, sizeof text,
             "layers { name: 'd' type: DATA top: 'data' top: 'label' data_param { source: '%s' "
             "batch_size: 2 backend: LMDB scale: 2 crop_size: 3 } }",
             make_database("old"));
    struct sac_feed *feed = open_layer(text, (struct sac_feed_options){0});
    struct sac_batch batch = next(feed);
    assert_true(batch.data[0] == 2.f * made_value(0, 0, 2, 3));
    sac_feed_free(feed);
}

static void image_data_is_resized_when_both_sides_are_given(void **state)
{
    char list[3000], text[900];
    size_t used = 0;

    (void)state;
    for (int i = 0; i < ITEMS; i++) {
        struct bytes png = make_png(i, W, H, 3);
        char name[40];
        snprintf(name, sizeof name, "%d.png", i);
        sac_test_write(name, png.data, png.size);
        used += (size_t)snprintf(list + used, sizeof list - used, "%s %d\n", name, i);
        free(png.data);
    }
    const char *path = sac_test_write("list.txt", list, used);
    static const struct {
        const char *fields;
        int shape[3];
    } cases[] = {
        {"new_height: 4 new_width: 6", {3, 4, 6}},
        {"new_height: 4", {3, H, W}},
        {"is_color: false", {1, H, W}},
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        snprintf(text, sizeof text,
                 "layer { name: 'd' type: 'ImageData' top: 'data' top: 'label' image_data_param { "
                 "source: '%s' root_folder: '%s/' %s shuffle: true } }",
                 path, sac_test_tmpdir(), cases[c].fields);
        struct sac_feed *feed = open_layer(text, (struct sac_feed_options){0});
        assert_memory_equal(sac_feed_shape(feed), cases[c].shape, sizeof cases[c].shape);
        assert_int_equal(sac_feed_batch(feed), 1);
        int seen = 0;
        for (int i = 0; i < ITEMS; i++) {
            struct sac_batch batch = next(feed);
            seen |= 1 << (int)batch.labels[0];
        }
        assert_int_equal(seen, (1 << ITEMS) - 1);
        sac_feed_free(feed);
    }
}

/* Every field by its own value, so that none can stand for another. */
static void augment_in_transform_param_sets_each_field(void **state)
{
    static const char text[] =
        "layer { type: 'Data' top: 'data' transform_param { augment { pad: 4 area_min: 0.25 flip: "
        "true rotation: 15 brightness: 0.1 contrast: 0.2 saturation: 0.3 hue: 0.05 noise: 2 "
        "cutout: 8 } } }";
    struct sac_caffe_net net = {0};
    struct sac_transform transform = {0};
    struct sac_error err = {0};

    (void)state;
    assert_ok(sac_caffe_net_parse(&net, "net", text, strlen(text), &err), err);
    assert_ok(sac_transform_read(&transform, net.net->layer[0]->transform_param, &err), err);
    const struct sac_augment *a = &transform.augment;
    assert_true(a->pad == 4 && a->area_min == .25f && a->flip && a->rotation == 15);
    assert_true(a->brightness == .1f && a->contrast == .2f && a->saturation == .3f);
    assert_true(a->hue == .05f && a->noise == 2 && a->cutout == 8);
    assert_false(transform.mirror);
    sac_caffe_net_done(&net);
}

/* A square of twice the picture's side, wherever its centre is, leaves nothing. */
static void augment_is_for_training_only(void **state)
{
    char text[900];

    (void)state;
    snprintf(text, sizeof text,
             "layer { type: 'Data' top: 'data' transform_param { augment { cutout: %d } } "
             "data_param { source: '%s' batch_size: 1 backend: LMDB } }",
             2 * W, make_database("cutout"));
    for (int train = 0; train < 2; train++) {
        struct sac_feed *feed = open_layer(text, (struct sac_feed_options){.train = train});
        struct sac_batch batch = next(feed);
        float sum = 0;
        for (int i = 0; i < 3 * W * H; i++)
            sum += batch.data[i];
        assert_true(train ? sum == 0 : sum > 0);
        sac_feed_free(feed);
    }
}

static void rand_skip_starts_within_its_bound(void **state)
{
    char text[900];
    bool seen[5] = {false};

    (void)state;
    snprintf(text, sizeof text,
             "layer { type: 'Data' top: 'data' data_param { source: '%s' batch_size: 1 backend: "
             "LMDB rand_skip: 4 } }",
             make_database("skip"));
    for (uint64_t seed = 0; seed < 60; seed++) {
        struct sac_feed *feed =
            open_layer(text, (struct sac_feed_options){.seed = seed, .threads = 1});
        int64_t first = next(feed).index[0];
        assert_in_range(first, 0, 3);
        seen[first] = true;
        sac_feed_free(feed);
    }
    assert_true(seen[0] && seen[1] && seen[2] && seen[3]);
}

static void hdf5_data_takes_its_datasets_by_the_tops_names(void **state)
{
    float data[ITEMS * 4], labels[ITEMS];
    char text[900];
    const char *path = made_path("set.h5");

    (void)state;
    for (int i = 0; i < ITEMS * 4; i++)
        data[i] = (float)i * .75f;
    for (int i = 0; i < ITEMS; i++)
        labels[i] = (float)-i;
    make_hdf5(path, data, (int[]){ITEMS, 1, 2, 2}, labels, 1);
    const char *list = sac_test_write("h5.txt", path, strlen(path));
    snprintf(text, sizeof text,
             "layer { type: 'HDF5Data' top: 'data' top: 'label' hdf5_data_param { source: '%s' "
             "batch_size: 4 } }",
             list);
    struct sac_feed *feed = open_layer(text, (struct sac_feed_options){0});
    next(feed);
    struct sac_batch batch = next(feed);
    assert_memory_equal(batch.data, data + 16, 8 * sizeof(float));
    assert_memory_equal(batch.data + 8, data, 8 * sizeof(float));
    assert_true(batch.labels[1] == -5 && batch.labels[2] == 0);
    sac_feed_free(feed);
}

/* Any number of them, each of its own shape; other sources give four axes. */
static void hdf5_data_keeps_the_shape_of_each_top(void **state)
{
    float data[ITEMS * 4], labels[ITEMS * 2], got[4 * 4];
    const char *path = made_path("tops.h5");
    struct sac_feed_top top;
    struct sac_error err = {0};
    char text[900];

    (void)state;
    for (int i = 0; i < ITEMS * 4; i++)
        data[i] = (float)i;
    for (int i = 0; i < ITEMS * 2; i++)
        labels[i] = (float)-i;
    make_hdf5(path, data, (int[]){ITEMS, 1, 2, 2}, labels, 2);
    snprintf(text, sizeof text,
             "layer { type: 'HDF5Data' top: 'label' top: 'data' top: 'label' hdf5_data_param {"
             " source: '%s' batch_size: 4 } }",
             path);
    struct sac_feed *feed = open_layer(text, (struct sac_feed_options){0});
    struct sac_batch batch = next(feed);
    for (int i = 0; i < 3; i += 2) {
        assert_ok(sac_feed_top(feed, i, &top, &err), err);
        assert_true(top.rank == 2 && top.dim[0] == 4 && top.dim[1] == 2 && top.count == 2);
        sac_feed_copy_top(feed, &batch, i, got);
        assert_memory_equal(got, labels, 8 * sizeof *got);
    }
    assert_ok(sac_feed_top(feed, 1, &top, &err), err);
    assert_true(top.rank == 4 && top.dim[1] == 1 && top.dim[2] == 2 && top.dim[3] == 2);
    sac_feed_copy_top(feed, &batch, 1, got);
    assert_memory_equal(got, data, sizeof got);
    assert_int_equal(sac_feed_top(feed, 3, &top, &err), SAC_EUNSUPPORTED);
    assert_says(err, "gives 3 tops");
    sac_feed_free(feed);
    snprintf(text, sizeof text,
             "layer { type: 'Data' top: 'data' top: 'label' data_param { batch_size: 4 } }");
    feed = open_layer(text, (struct sac_feed_options){.source = path});
    assert_ok(sac_feed_top(feed, 0, &top, &err), err);
    assert_true(top.rank == 4 && top.count == 4);
    sac_feed_free(feed);
}

/* --data and --mean of `saccade test`: Caffe's own net, whose LMDB and mean file
 * are not there. cifar10_mean.binaryproto is Caffe's; y = x − mean. */
static void another_source_and_mean_take_the_place_of_the_layers(void **state)
{
    const char *mean_path = sac_test_data("cifar10_models/cifar10_mean.binaryproto");
    const char *net_path = sac_test_data("cifar10_models/cifar10_full_train_test.prototxt");
    static uint8_t records[5][3073];
    struct sac_caffe_net net = {0};
    struct sac_caffe_blob mean = {0};
    struct sac_feed *feed = NULL;
    struct sac_error err = {0};

    (void)state;
    for (int i = 0; i < 5 * 3073; i++)
        records[i / 3073][i % 3073] = (uint8_t)(i % 3073 ? i * 7 : i / 3073);
    struct sac_feed_options options = {.once = true,
                                       .source =
                                           sac_test_write("five.bin", records, sizeof records),
                                       .mean_file = mean_path};
    assert_ok(sac_caffe_net_load(&net, net_path, &err), err);
    assert_ok(sac_caffe_blob_load(&mean, mean_path, &err), err);
    assert_ok(sac_feed_from_layer(&feed, net.net->layer[1], &options, &err), err);
    struct sac_batch batch = next(feed);
    assert_int_equal(batch.count, 5); /* of 100 */
    assert_int_equal(mean.count, 3072);
    for (int i = 0; i < 5 * 3072; i++)
        assert_true(batch.data[i] == (float)records[i / 3072][i % 3072 + 1] - mean.data[i % 3072]);
    assert_true(batch.labels[4] == 4);
    sac_caffe_blob_done(&mean);
    sac_caffe_net_done(&net);
    sac_feed_free(feed);
}

/* A grey picture between colour ones, which a net of Datums never met. */
static void a_list_in_a_data_layers_place_is_read_in_colour(void **state)
{
    struct bytes color = make_png(0, W, H, 3), grey = make_png(1, W, H, 1);
    char list[900];
    const char *paths[2] = {sac_test_write("c.png", color.data, color.size),
                            sac_test_write("g.png", grey.data, grey.size)};

    (void)state;
    int size = snprintf(list, sizeof list, "%s 0\n%s 1\n", paths[1], paths[0]);
    struct sac_feed *feed = open_layer(
        "layer { type: 'Data' top: 'data' data_param { source: 'gone' batch_size: 2 } }",
        (struct sac_feed_options){.source = sac_test_write("mixed.txt", list, (size_t)size)});
    assert_int_equal(sac_feed_shape(feed)[0], 3);
    assert_int_equal(next(feed).count, 2);
    sac_feed_free(feed);
    free(color.data);
    free(grey.data);
}

static void refusals_name_the_layer(void **state)
{
    static const struct {
        const char *fields, *says;
    } cases[] = {
        {"type: 'Data' data_param { source: 'x' batch_size: 1 }", "a LEVELDB"},
        {"type: 'Data' data_param { source: 'x' backend: LMDB }", "batch_size 0"},
        {"type: 'Data' data_param { batch_size: 1 backend: LMDB }", "no source is set"},
        {"type: 'Data'", "no data_param"},
#ifdef SAC_HAVE_LMDB
        {"type: 'Data' data_param { source: '/none' batch_size: 1 backend: LMDB }",
         "/none: No such file"},
#endif
        {"type: 'ImageData' image_data_param { source: '/none.txt' }", "/none.txt"},
        {"type: 'ImageData' transform_param { mean_file: '/m' mean_value: 1 }",
         "mean_file and mean_value"},
        {"type: 'ImageData' transform_param { mean_file: '/none.mean' } image_data_param { source: "
         "'x' }",
         "/none.mean"},
        {"type: 'Data' transform_param { augment { cutout: 99999 } }", "cutout 99999"},
        {"type: 'HDF5Data' transform_param { } hdf5_data_param { source: 'x' batch_size: 1 }",
         "does not transform"},
        {"type: 'WindowData'", "type WindowData"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sac_feed *feed;
        struct sac_error err = {0};
        char text[600];
        snprintf(text, sizeof text, "layer { name: 'mine' top: 'data' %s }", cases[i].fields);
        assert_true(try_layer(&feed, text, (struct sac_feed_options){0}, &err) < 0);
        assert_says(err, "layer \"mine\": ");
        assert_says(err, cases[i].says);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_data_layer_is_read_with_its_transform),
        cmocka_unit_test(an_old_data_layer_is_read_as_it_was_meant),
        cmocka_unit_test(image_data_is_resized_when_both_sides_are_given),
        cmocka_unit_test(augment_in_transform_param_sets_each_field),
        cmocka_unit_test(augment_is_for_training_only),
        cmocka_unit_test(rand_skip_starts_within_its_bound),
        cmocka_unit_test(hdf5_data_takes_its_datasets_by_the_tops_names),
        cmocka_unit_test(hdf5_data_keeps_the_shape_of_each_top),
        cmocka_unit_test(another_source_and_mean_take_the_place_of_the_layers),
        cmocka_unit_test(a_list_in_a_data_layers_place_is_read_in_colour),
        cmocka_unit_test(refusals_name_the_layer),
    };

    return cmocka_run_group_tests_name("data/feed_layer", tests, NULL, NULL);
}
