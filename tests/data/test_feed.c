#include "makers.h"

#include <unistd.h>

#include "base/log.h"
#include "support/crops.h"

enum { W = 9, H = 7, ITEMS = 23, VALUES = 3 * H * W };

static const char *lmdb_encoded, *lmdb_raw, *list, *folder, *hdf5;

/* Planes B, G, R, as convert_imageset makes them of a picture. */
static struct bytes make_bgr_datum(int number, int label)
{
    Caffe__Datum datum = CAFFE__DATUM__INIT;
    uint8_t planes[VALUES];
    struct bytes out;

    for (int i = 0; i < VALUES; i++)
        planes[i] = made_value(number, 2 - i / (H * W), i / W % H, i % W);
    datum.has_channels = datum.has_height = datum.has_width = datum.has_label = datum.has_data = 1;
    datum.channels = 3;
    datum.height = H;
    datum.width = W;
    datum.label = label;
    datum.data = (ProtobufCBinaryData){sizeof planes, planes};
    out.data = malloc(caffe__datum__get_packed_size(&datum));
    assert_non_null(out.data);
    out.size = caffe__datum__pack(&datum, out.data);
    return out;
}

/* Item i is made picture i, of class i · 4 / ITEMS: an order that folders keep. */
static int label_of(int item)
{
    return item * 4 / ITEMS;
}

static void make_picture_files(void)
{
    char text[ITEMS * 300];
    size_t used = 0;

    folder = made_path("tree");
    make_folder(folder);
    for (int c = 0; c < 4; c++)
        make_folder(made_path("tree/class%d", c));
    for (int i = 0; i < ITEMS; i++) {
        struct bytes png = make_png(i, W, H, 3);
        char name[64];
        snprintf(name, sizeof name, "tree/class%d/%02d.png", label_of(i), i);
        sac_test_write(name, png.data, png.size);
        used += (size_t)snprintf(text + used, sizeof text - used, "%s/%s %d\n", sac_test_tmpdir(),
                                 name, label_of(i));
        free(png.data);
    }
    list = sac_test_write("list.txt", text, used);
}

static void make_databases(void)
{
    struct bytes encoded[ITEMS], raw[ITEMS];

    for (int i = 0; i < ITEMS; i++) {
        struct bytes png = make_png(i, W, H, 3);
        encoded[i] = make_encoded_datum(png, label_of(i));
        raw[i] = make_bgr_datum(i, label_of(i));
        free(png.data);
    }
#ifdef SAC_HAVE_LMDB
    make_lmdb(lmdb_encoded = made_path("encoded"), encoded, ITEMS);
    make_lmdb(lmdb_raw = made_path("raw"), raw, ITEMS);
#else
    for (int i = 0; i < ITEMS; i++) {
        free(encoded[i].data);
        free(raw[i].data);
    }
#endif
#ifdef SAC_HAVE_HDF5
    static float data[ITEMS * VALUES], labels[ITEMS];
    for (int i = 0; i < ITEMS * VALUES; i++)
        data[i] = made_value(i / VALUES, 2 - i / (H * W) % 3, i / W % H, i % W);
    for (int i = 0; i < ITEMS; i++)
        labels[i] = (float)label_of(i);
    make_hdf5(hdf5 = made_path("set.h5"), data, (int[]){ITEMS, 3, H, W}, labels, 1);
#endif
}

static int make_sets(void **state)
{
    (void)state;
    make_picture_files();
    make_databases();
    return 0;
}

static int try_open(struct sac_feed **ret, const char *path, const struct sac_transform *transform,
                    const struct sac_feed_options *options, struct sac_error *err)
{
    static const struct sac_transform none;
    struct sac_source *source = NULL;
    int rc = sac_source_open(&source, path, err);

    if (rc == 0)
        rc = sac_feed_open(ret, source, transform ? transform : &none, options, err);
    if (rc < 0)
        sac_source_free(source);
    return rc;
}

static struct sac_feed *open_feed(const char *path, const struct sac_transform *transform,
                                  struct sac_feed_options options)
{
    struct sac_feed *feed = NULL;
    struct sac_error err = {0};

    assert_ok(try_open(&feed, path, transform, &options, &err), err);
    return feed;
}

static struct sac_batch next(struct sac_feed *feed)
{
    struct sac_batch batch = {0};
    struct sac_error err = {0};

    assert_ok(sac_feed_next(feed, &batch, &err), err);
    return batch;
}

static void assert_same(const struct sac_batch *a, const struct sac_batch *b, size_t values)
{
    size_t count = (size_t)a->count;

    assert_int_equal(a->count, b->count);
    assert_int_equal(a->end, b->end);
    assert_memory_equal(a->data, b->data, count * values * sizeof(float));
    assert_memory_equal(a->labels, b->labels, count * sizeof(float));
    assert_memory_equal(a->index, b->index, count * sizeof *a->index);
}

static void all_sources_of_the_same_pictures_give_the_same_batches(void **state)
{
    const char *others[] = {lmdb_encoded, lmdb_raw, folder, hdf5};
    const struct sac_transform transform = {.scale = .5f,
                                            .mirror = true,
                                            .crop_width = 6,
                                            .crop_height = 5,
                                            .mean_count = 3,
                                            .mean = {104, 117, 123}};
    struct sac_transform colors = transform; /* of bytes only: grey is each order's own luma */
    int compared = 0;

    (void)state;
    colors.augment = (struct sac_augment){.contrast = .6f, .saturation = .6f, .hue = .3f};
    for (int o = 0; o < 4; o++) {
        for (int random = 0; others[o] && random < (others[o] == hdf5 ? 2 : 3); random++) {
            struct sac_feed_options options = {
                .batch = 5, .train = random, .shuffle = random, .threads = 2, .seed = 11};
            const struct sac_transform *t = random == 0 ? NULL : random == 1 ? &transform : &colors;
            struct sac_feed *a = open_feed(list, t, options), *b = open_feed(others[o], t, options);
            const int *shape = sac_feed_shape(b);
            for (int i = 0; i < 12; i++) {
                struct sac_batch x = next(a), y = next(b);
                assert_same(&x, &y, (size_t)(shape[0] * shape[1] * shape[2]));
            }
            sac_feed_free(a);
            sac_feed_free(b);
            compared++;
        }
    }
    if (compared < 11)
        print_message("# skipped in part: built without LMDB or HDF5\n");
    assert_true(compared >= 2);
}

/* A transform of each kind that crops bytes as they are; below CROP_KINDS. */
enum { CROP_KINDS = 6 };

static struct sac_transform crop_transform(int kind)
{
    struct sac_transform t = {.scale = .017f, .mirror = true, .crop_width = 6, .crop_height = 5};
    bool whole = kind == 3;
    int height = whole ? H : t.crop_height, width = whole ? W : t.crop_width;

    if (kind == 0)
        return (struct sac_transform){0};
    if (kind == 1)
        t.augment = (struct sac_augment){.pad = 3, .flip = true};
    if (kind == 5)
        t.augment = (struct sac_augment){.pad = 2,
                                         .brightness = .5f,
                                         .contrast = .5f,
                                         .saturation = .5f,
                                         .hue = .2f,
                                         .noise = 3,
                                         .cutout = 3};
    if (kind < 3 || kind == 5) {
        t.mean_count = kind == 2 ? 1 : 3;
        memcpy(t.mean, (float[]){104, 117, 123}, 3 * sizeof(float));
        return t;
    }
    t.mean_image = (struct sac_caffe_blob){.rank = 3, .dim = {3, height, width}};
    t.mean_image.count = (size_t)(3 * height * width);
    t.mean_image.data = calloc((size_t)t.mean_image.count, sizeof(float));
    assert_non_null(t.mean_image.data);
    for (int i = 0; i < 3 * height * width; i++)
        t.mean_image.data[i] = (float)(i % 97) * .5f;
    if (kind == 4)
        t.rgb = true;
    return t;
}

static void assert_crops_are(struct sac_feed *crops, struct sac_feed *numbers)
{
    struct sac_batch x = next(numbers), y = next(crops);
    struct sac_crops how;
    float values[10 * VALUES];

    assert_true(sac_feed_crops(crops, &how));
    assert_null(y.data);
    how.from = y.crops;
    how.places = y.places;
    how.count = y.count;
    assert_true(how.channels * how.height * how.width * y.count <= 10 * VALUES);
    crop_values(&how, values);
    y.data = values;
    assert_same(&x, &y, (size_t)(how.channels * how.height * how.width));
}

/* device/crops.h's formula in plain loops gives the numbers of the feed without crops. */
static void crops_and_where_they_are_from_are_the_same_numbers(void **state)
{
    const char *paths[] = {list, lmdb_encoded, lmdb_raw};

    (void)state;
    for (int i = 0; i < 3 * CROP_KINDS; i++) {
        struct sac_feed_options options = {
            .batch = 5, .train = true, .shuffle = true, .threads = 2, .seed = 11};
        struct sac_transform mine = crop_transform(i % CROP_KINDS),
                             theirs = crop_transform(i % CROP_KINDS);
        const char *path = paths[i / CROP_KINDS];
        if (!path) {
            sac_transform_done(&mine);
            sac_transform_done(&theirs);
            continue;
        }
        struct sac_feed *numbers = open_feed(path, &theirs, options);
        options.crops = true;
        struct sac_feed *crops = open_feed(path, &mine, options);
        for (int b = 0; b < 12; b++)
            assert_crops_are(crops, numbers);
        sac_feed_free(numbers);
        sac_feed_free(crops);
    }
}

static void what_moves_pixels_or_has_none_but_floats_is_no_crops(void **state)
{
    const struct sac_augment changes[] = {{.area_min = .5f}, {.rotation = 10}};
    struct sac_crops how;

    (void)state;
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        struct sac_transform transform = {.augment = changes[i]};
        for (int train = 0; train < 2; train++) {
            struct sac_feed *feed =
                open_feed(list, &transform,
                          (struct sac_feed_options){.batch = 2, .train = train, .crops = true});
            assert_int_equal(sac_feed_crops(feed, &how), !train);
            assert_int_equal(next(feed).data == NULL, !train);
            sac_feed_free(feed);
        }
    }
    if (!hdf5)
        return;
    struct sac_feed *feed =
        open_feed(hdf5, NULL, (struct sac_feed_options){.batch = 2, .crops = true});
    assert_false(sac_feed_crops(feed, &how));
    assert_non_null(next(feed).data);
    sac_feed_free(feed);
}

static void items_come_in_order_with_their_labels_and_wrap_around(void **state)
{
    struct sac_feed *feed = open_feed(list, NULL, (struct sac_feed_options){.batch = 10});

    (void)state;
    assert_memory_equal(sac_feed_shape(feed), ((int[]){3, H, W}), 3 * sizeof(int));
    for (int b = 0; b < 7; b++) {
        struct sac_batch batch = next(feed);
        assert_int_equal(batch.count, 10);
        assert_int_equal(batch.position, 10 * (b + 1));
        for (int i = 0; i < 10; i++) {
            int item = (b * 10 + i) % ITEMS;
            assert_int_equal(batch.index[i], item);
            assert_true(batch.labels[i] == (float)label_of(item));
            assert_true(batch.data[i * VALUES + H * W + W + 2] == made_value(item, 1, 1, 2));
        }
    }
    sac_feed_free(feed);
}

static void each_epoch_has_each_item_once_in_an_order_of_its_own(void **state)
{
    struct sac_feed *feed = open_feed(
        list, NULL, (struct sac_feed_options){.batch = 5, .shuffle = true, .train = true});
    int64_t order[5 * ITEMS];
    int same = 0;

    (void)state;
    for (int b = 0; b < ITEMS; b++) {
        struct sac_batch batch = next(feed);
        memcpy(order + 5 * b, batch.index, sizeof *order * 5);
    }
    for (int epoch = 0; epoch < 5; epoch++) {
        int seen[ITEMS] = {0};
        for (int i = 0; i < ITEMS; i++) {
            seen[order[epoch * ITEMS + i]]++;
            same += epoch > 0 && order[epoch * ITEMS + i] == order[i];
        }
        for (int i = 0; i < ITEMS; i++)
            assert_int_equal(seen[i], 1);
    }
    assert_true(same < 20); /* 4 are expected of 92 */
    sac_feed_free(feed);
}

static const struct sac_transform busy = {
    .crop_width = 6,
    .crop_height = 6,
    .mirror = true,
    .augment = {.pad = 1, .rotation = 10, .brightness = .3f, .hue = .1f, .noise = 2, .cutout = 2}};

/* 20 batches of 7, made by one thread: more than six epochs of 23. */
static void neither_threads_nor_the_start_change_what_stands_at_a_position(void **state)
{
    static const struct {
        int threads, ahead, from; /* a batch of the first feed */
    } others[] = {{2, 1, 0}, {5, 3, 0}, {3, 8, 1}, {4, 2, 7}, {1, 1, 19}};
    struct sac_feed_options options = {
        .batch = 7, .train = true, .shuffle = true, .seed = 5, .threads = 1, .skip = 3};

    (void)state;
    for (size_t o = 0; o < sizeof others / sizeof *others; o++) {
        struct sac_feed_options other = options;
        other.threads = others[o].threads;
        other.ahead = others[o].ahead;
        other.position = 7 * others[o].from;
        struct sac_feed *a = open_feed(list, &busy, options), *b = open_feed(list, &busy, other);
        for (int i = 0; i < 20; i++) {
            struct sac_batch x = next(a);
            if (i < others[o].from)
                continue;
            struct sac_batch y = next(b);
            assert_same(&x, &y, 3 * 6 * 6);
            assert_int_equal(x.position, y.position);
        }
        sac_feed_free(a);
        sac_feed_free(b);
    }
}

static void a_position_within_a_batch_shifts_the_batches(void **state)
{
    struct sac_feed_options options = {.batch = 1, .train = true, .shuffle = true, .threads = 2};
    struct sac_feed_options other = {
        .batch = 4, .train = true, .shuffle = true, .threads = 2, .position = 13};
    struct sac_feed *a = open_feed(list, &busy, options), *b = open_feed(list, &busy, other);

    (void)state;
    for (int i = 0; i < 13; i++)
        next(a);
    for (int b_count = 0; b_count < 10; b_count++) {
        struct sac_batch y = next(b);
        for (int i = 0; i < 4; i++) {
            struct sac_batch x = next(a);
            assert_memory_equal(x.data, y.data + i * 3 * 6 * 6, 3 * 6 * 6 * sizeof(float));
        }
    }
    sac_feed_free(a);
    sac_feed_free(b);
}

static void another_seed_gives_other_data(void **state)
{
    struct sac_feed_options options = {.batch = ITEMS, .train = true};
    struct sac_feed *a = open_feed(list, &busy, options);
    options.seed = 1;
    struct sac_feed *b = open_feed(list, &busy, options);
    struct sac_batch x = next(a), y = next(b);
    int same = 0;

    (void)state;
    for (int i = 0; i < ITEMS; i++)
        same += memcmp(x.data + i * 108, y.data + i * 108, 108 * sizeof(float)) == 0;
    assert_int_equal(same, 0);
    sac_feed_free(a);
    sac_feed_free(b);
}

static void skip_begins_the_first_epoch_later(void **state)
{
    struct sac_feed *feed =
        open_feed(list, NULL, (struct sac_feed_options){.batch = 4, .skip = ITEMS - 2});
    struct sac_batch batch = next(feed);

    (void)state;
    assert_memory_equal(batch.index, ((int64_t[]){ITEMS - 2, ITEMS - 1, 0, 1}),
                        4 * sizeof(int64_t));
    assert_int_equal(batch.position, 4);
    sac_feed_free(feed);
}

static void gone_through_once_the_last_batch_is_partial(void **state)
{
    struct sac_feed *feed =
        open_feed(list, NULL, (struct sac_feed_options){.batch = 10, .once = true, .threads = 2});
    int64_t item = 0;

    (void)state;
    for (int b = 0; b < 3; b++) {
        struct sac_batch batch = next(feed);
        assert_int_equal(batch.count, b < 2 ? 10 : 3);
        assert_false(batch.end);
        for (int i = 0; i < batch.count; i++)
            assert_int_equal(batch.index[i], item++);
        assert_int_equal(batch.position, item);
    }
    for (int i = 0; i < 3; i++) {
        struct sac_batch batch = next(feed);
        assert_true(batch.end && batch.count == 0 && batch.position == ITEMS);
    }
    sac_feed_free(feed);
    feed =
        open_feed(list, NULL, (struct sac_feed_options){.batch = 10, .once = true, .position = 20});
    assert_int_equal(next(feed).count, 3);
    assert_true(next(feed).end);
    sac_feed_free(feed);
}

static void shards_together_see_what_one_feed_sees(void **state)
{
    (void)state;
    for (int once = 0; once < 2; once++) {
        struct sac_feed_options options = {
            .batch = 8, .train = true, .shuffle = true, .threads = 2, .once = once};
        struct sac_feed *whole = open_feed(list, &busy, options), *parts[3];
        for (int s = 0; s < 3; s++) {
            options.shard = s;
            options.shards = 3;
            parts[s] = open_feed(list, &busy, options);
            assert_int_equal(sac_feed_batch(parts[s]), s == 0 ? 2 : 3); /* floor(8·s/3) */
        }
        for (int b = 0; b < (once ? 4 : 9); b++) {
            struct sac_batch all = next(whole);
            int at = 0;
            for (int s = 0; s < 3; s++) {
                struct sac_batch part = next(parts[s]);
                assert_true(at + part.count <= all.count && part.position == all.position);
                assert_int_equal(part.end, all.end);
                if (part.count)
                    assert_memory_equal(part.data, all.data + at * 108,
                                        (size_t)part.count * 108 * sizeof(float));
                at += part.count;
            }
            assert_int_equal(at, all.count);
        }
        sac_feed_free(whole);
        for (int s = 0; s < 3; s++)
            sac_feed_free(parts[s]);
    }
}

static char logged[4096];
static int logged_lines;

static void keep_line(enum sac_log_level level, const char *line)
{
    assert_int_equal(level, SAC_LOG_WARNING);
    strncat(logged, line, sizeof logged - strlen(logged) - 2);
    logged_lines++;
}

/* Ten items, of which 0, 3, 4 and 9 are damaged; NULL as the name of a missing one. */
static const char *make_damaged_list(bool missing)
{
    char text[8192];
    size_t used = 0;

    for (int i = 0; i < 10; i++) {
        bool damaged = i == 0 || i == 3 || i == 4 || i == 9;
        struct bytes png = make_png(i, W, H, 3);
        char name[64];
        snprintf(name, sizeof name, "damaged%d.png", i);
        const char *path = sac_test_write(name, png.data, damaged ? png.size / 2 : png.size);
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%s %d\n", path,
                                 missing && i >= 6 ? ".gone" : "", i);
        free(png.data);
    }
    return sac_test_write(missing ? "missing.txt" : "damaged.txt", text, used);
}

static void a_corrupt_picture_is_counted_named_and_skipped(void **state)
{
    static const int64_t stand[10] = {1, 1, 2, 5, 5, 5, 6, 7, 8, 1};
    struct sac_feed *feed = open_feed(make_damaged_list(false), NULL,
                                      (struct sac_feed_options){.batch = 5, .threads = 3});

    (void)state;
    logged[0] = 0;
    logged_lines = 0;
    sac_log_set_sink(keep_line, SAC_LOG_WARNING);
    for (int b = 0; b < 6; b++) {
        struct sac_batch batch = next(feed);
        assert_memory_equal(batch.index, stand + b % 2 * 5, 5 * sizeof *stand);
        for (int i = 0; i < 5; i++)
            assert_true(batch.labels[i] == (float)batch.index[i]);
        assert_int_equal(sac_feed_stats(feed).corrupt, b == 0 ? 3 : 4);
    }
    sac_log_set_sink(NULL, SAC_LOG_ERROR);
    assert_int_equal(logged_lines, 4); /* each once, whatever the epochs */
    assert_non_null(strstr(logged, "damaged.txt:4: "));
    assert_non_null(strstr(logged, "damaged3.png"));
    sac_feed_free(feed);
}

static void gone_through_once_a_corrupt_picture_leaves_no_gap(void **state)
{
    static const int64_t left[2][3] = {{1, 2, -1}, {5, 6, 7}};
    struct sac_feed *feed =
        open_feed(make_damaged_list(false), NULL,
                  (struct sac_feed_options){.batch = 5, .threads = 3, .once = true});

    (void)state;
    for (int b = 0; b < 2; b++) {
        struct sac_batch batch = next(feed);
        assert_int_equal(batch.count, b == 0 ? 2 : 4);
        assert_memory_equal(batch.index, left[b], (b == 0 ? 2 : 3) * sizeof **left);
        for (int i = 0; i < batch.count; i++) {
            int item = (int)batch.index[i];
            assert_true(batch.labels[i] == (float)item);
            assert_true(batch.data[i * VALUES + W + 1] == made_value(item, 2, 1, 1));
        }
    }
    assert_int_equal(sac_feed_stats(feed).corrupt, 4);
    assert_int_equal(sac_feed_stats(feed).items, 6);
    assert_true(next(feed).end);
    sac_feed_free(feed);
}

static void corrupt_pictures_leave_no_gap_between_crops_either(void **state)
{
    struct sac_feed_options options = {.batch = 5, .threads = 3, .once = true};
    const char *damaged = make_damaged_list(false);
    struct sac_feed *numbers = open_feed(damaged, NULL, options);

    (void)state;
    options.crops = true;
    struct sac_feed *crops = open_feed(damaged, NULL, options);
    assert_crops_are(crops, numbers);
    assert_crops_are(crops, numbers);
    sac_feed_free(numbers);
    sac_feed_free(crops);
}

static void a_missing_picture_ends_the_feed_where_it_stands(void **state)
{
    const char *path = make_damaged_list(true);

    (void)state;
    for (int threads = 1; threads < 5; threads++) {
        struct sac_feed *feed =
            open_feed(path, NULL, (struct sac_feed_options){.batch = 2, .threads = threads});
        struct sac_batch batch;
        for (int b = 0; b < 3; b++)
            next(feed);
        for (int again = 0; again < 2; again++) {
            struct sac_error err = {0};
            assert_int_equal(sac_feed_next(feed, &batch, &err), SAC_ENOENT);
            assert_says(err, "missing.txt:7: ");
            assert_says(err, "damaged6.png.gone");
        }
        sac_feed_free(feed);
    }
}

static void nothing_but_corrupt_pictures_is_an_error(void **state)
{
    char text[600];
    const char *bad = sac_test_write("bad.png", "no picture", 10);
    int size = snprintf(text, sizeof text, "%s 0\n%s 1\n", bad, bad);
    struct sac_feed *feed;
    struct sac_error err = {0};
    struct sac_feed_options options = {.batch = 2};

    (void)state;
    assert_int_equal(
        try_open(&feed, sac_test_write("bad.txt", text, (size_t)size), NULL, &options, &err),
        SAC_EUNSUPPORTED);
    assert_says(err, "none of the first items can be used");
    assert_says(err, "bad.txt:2");
}

static void a_label_outside_the_classes_is_an_error(void **state)
{
    struct sac_feed *feed =
        open_feed(list, NULL, (struct sac_feed_options){.batch = ITEMS, .classes = 3});
    struct sac_batch batch;
    struct sac_error err = {0};

    (void)state;
    assert_int_equal(sac_feed_next(feed, &batch, &err), SAC_EINVAL);
    assert_says(err, "list.txt:19: "); /* the first of class 3: 4 · 18 / 23 */
    assert_says(err, "label 3; expected 0 to 2");
    sac_feed_free(feed);
}

static void a_batch_larger_than_memory_is_refused_with_numbers(void **state)
{
    struct sac_feed *feed;
    struct sac_error err = {0};
    struct sac_feed_options options = {.batch = 1 << 30};
    size_t batch_bytes = 10 * (VALUES * 4 + 4 + 8);

    (void)state;
    assert_int_equal(try_open(&feed, list, NULL, &options, &err), SAC_ELIMIT);
    /* (189 · 4 + 4 + 8) · 2^30 bytes */
    assert_says(err, "a batch of 1073741824 items of 3 × 7 × 9 takes 824634 MB");
    err = (struct sac_error){0};
    options = (struct sac_feed_options){.batch = 10, .bytes_max = 2 * batch_bytes - 1};
    assert_int_equal(try_open(&feed, list, NULL, &options, &err), SAC_ELIMIT);
    options.bytes_max = 2 * batch_bytes; /* fewer are made ahead */
    options.ahead = 8;
    feed = open_feed(list, NULL, options);
    for (int i = 0; i < 10; i++)
        assert_int_equal(next(feed).count, 10);
    sac_feed_free(feed);
}

static void options_that_make_no_sense_are_refused(void **state)
{
    static const struct sac_feed_options bad[] = {
        {.batch = 0},
        {.batch = 4, .threads = 65},
        {.batch = 4, .ahead = -1},
        {.batch = 4, .shards = 5},
        {.batch = 4, .shards = 2, .shard = 2},
        {.batch = 4, .position = -1},
        {.batch = 4, .once = true, .position = ITEMS + 1},
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct sac_feed *feed;
        struct sac_error err = {0};
        assert_int_equal(try_open(&feed, list, NULL, &bad[i], &err), SAC_EINVAL);
        assert_non_null(strstr(err.text, "feed: "));
    }
}

static void a_slow_consumer_never_waits(void **state)
{
    struct sac_feed *feed =
        open_feed(list, NULL, (struct sac_feed_options){.batch = 2, .threads = 2});

    (void)state;
    for (int i = 0; i < 10; i++) {
        next(feed);
        usleep(i == 0 ? 200000 : 20000);
    }
    struct sac_feed_stats stats = sac_feed_stats(feed);
    assert_int_equal(stats.batches, 10);
    assert_int_equal(stats.items, 20);
    /* a made batch takes tens of microseconds; a busy machine may delay one */
    assert_true(stats.waits <= 3);
    sac_feed_free(feed);
}

static void a_feed_closes_at_any_moment(void **state)
{
    (void)state;
    for (int taken = 0; taken < 12; taken++) {
        struct sac_feed *feed = open_feed(
            list, &busy,
            (struct sac_feed_options){.batch = 3, .train = true, .threads = 1 + taken % 5});
        for (int i = 0; i < taken; i++)
            next(feed);
        sac_feed_free(feed);
    }
    sac_feed_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_sources_of_the_same_pictures_give_the_same_batches),
        cmocka_unit_test(crops_and_where_they_are_from_are_the_same_numbers),
        cmocka_unit_test(what_moves_pixels_or_has_none_but_floats_is_no_crops),
        cmocka_unit_test(items_come_in_order_with_their_labels_and_wrap_around),
        cmocka_unit_test(each_epoch_has_each_item_once_in_an_order_of_its_own),
        cmocka_unit_test(neither_threads_nor_the_start_change_what_stands_at_a_position),
        cmocka_unit_test(a_position_within_a_batch_shifts_the_batches),
        cmocka_unit_test(another_seed_gives_other_data),
        cmocka_unit_test(skip_begins_the_first_epoch_later),
        cmocka_unit_test(gone_through_once_the_last_batch_is_partial),
        cmocka_unit_test(shards_together_see_what_one_feed_sees),
        cmocka_unit_test(a_corrupt_picture_is_counted_named_and_skipped),
        cmocka_unit_test(gone_through_once_a_corrupt_picture_leaves_no_gap),
        cmocka_unit_test(corrupt_pictures_leave_no_gap_between_crops_either),
        cmocka_unit_test(a_missing_picture_ends_the_feed_where_it_stands),
        cmocka_unit_test(nothing_but_corrupt_pictures_is_an_error),
        cmocka_unit_test(a_label_outside_the_classes_is_an_error),
        cmocka_unit_test(a_batch_larger_than_memory_is_refused_with_numbers),
        cmocka_unit_test(options_that_make_no_sense_are_refused),
        cmocka_unit_test(a_slow_consumer_never_waits),
        cmocka_unit_test(a_feed_closes_at_any_moment),
    };

    return cmocka_run_group_tests_name("data/feed", tests, make_sets, NULL);
}
