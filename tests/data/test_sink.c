/* What a sink writes, the source of its kind reads. */
#include "makers.h"

#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "data/sink.h"

static struct sac_sink *open_sink(enum sac_sink_kind kind, const char *path,
                                  const struct sac_labels *labels, struct sac_sink_mark mark)
{
    struct sac_sink_options options = {.kind = kind, .path = path, .labels = labels, .classes = 3};
    struct sac_sink *sink = NULL;
    struct sac_error err = {0};

    assert_ok(sac_sink_open(&sink, &options, &mark, &err), err);
    return sink;
}

static void put(struct sac_sink *sink, struct sac_record record)
{
    struct sac_error err = {0};

    assert_ok(sac_sink_put(sink, &record, &err), err);
}

static void finish(struct sac_sink *sink)
{
    struct sac_error err = {0};

    assert_ok(sac_sink_finish(sink, &err), err);
    sac_sink_free(sink);
}

static struct sac_source *open_source(const char *path)
{
    struct sac_source *source = NULL;
    struct sac_error err = {0};

    assert_ok(sac_source_open(&source, path, &err), err);
    return source;
}

static void an_lmdb_holds_bytes_floats_and_files(void **state)
{
    uint8_t bytes[24], file[] = "\x89PNG, or so it begins";
    float floats[6] = {1.5f, -2, 3, 4, 5, 1e30f};
    const char *path = made_path("lmdb");
    struct sac_item item = {0};
    struct sac_error err = {0};

    (void)state;
#ifndef SAC_HAVE_LMDB
    skip();
#endif
    for (int i = 0; i < 24; i++)
        bytes[i] = (uint8_t)(250 + i);
    struct sac_sink *sink = open_sink(SAC_SINK_LMDB, path, NULL, (struct sac_sink_mark){0});
    put(sink, (struct sac_record){SAC_ITEM_BYTES, 3, 2, 4, bytes, 24, NULL, 7, "dir/a b.c.jpg"});
    put(sink, (struct sac_record){SAC_ITEM_FLOATS, 1, 2, 3, NULL, 0, floats, -5, ""});
    put(sink, (struct sac_record){SAC_ITEM_ENCODED, 0, 0, 0, file, sizeof file, NULL, 0, "x/y/\n"});
    finish(sink);
    struct sac_source *source = open_source(path);
    assert_int_equal(source->count, 3);
    assert_ok(sac_source_item(source, 0, &item, &err), err);
    assert_true(item.kind == SAC_ITEM_BYTES && item.channels == 3 && item.height == 2 &&
                item.width == 4 && item.labels[0] == 7 && !item.rgb);
    assert_memory_equal(item.bytes, bytes, 24);
    assert_ok(sac_source_item(source, 1, &item, &err), err);
    assert_true(item.kind == SAC_ITEM_FLOATS && item.height == 2 && item.labels[0] == -5);
    assert_memory_equal(item.floats, floats, sizeof floats);
    assert_ok(sac_source_item(source, 2, &item, &err), err);
    assert_true(item.kind == SAC_ITEM_ENCODED && item.size == sizeof file);
    assert_memory_equal(item.bytes, file, sizeof file);
    char name[400];
    sac_source_item_name(source, 0, name, sizeof name);
    assert_non_null(strstr(name, "key 00000000_a b_c"));
    sac_item_done(&item);
    sac_source_free(source);
}

/* protobuf-c reads what datum.c writes: another implementation. */
static void caffes_own_message_reads_the_records(void **state)
{
    uint8_t bytes[6] = {1, 2, 3, 4, 5, 255};
    struct sac_sink *sink;
    (void)state;
#ifndef SAC_HAVE_LMDB
    skip();
#endif
    sink = open_sink(SAC_SINK_LMDB, made_path("proto"), NULL, (struct sac_sink_mark){0});
    put(sink, (struct sac_record){SAC_ITEM_BYTES, 1, 2, 3, bytes, 6, NULL, 300, ""});
    finish(sink);
    struct bytes file = picture_read_path(made_path("proto/data.mdb"));
    const uint8_t head[] = {0x08, 1, 0x10, 2, 0x18, 3, 0x22, 6, 1, 2, 3, 4, 5, 255, 0x28, 0xac, 2};
    const uint8_t *at = memmem(file.data, file.size, head, sizeof head);
    assert_non_null(at);
    Caffe__Datum *datum = caffe__datum__unpack(NULL, sizeof head, at);
    assert_non_null(datum);
    assert_int_equal(datum->label, 300);
    assert_int_equal(datum->data.len, 6);
    caffe__datum__free_unpacked(datum, NULL);
    free(file.data);
}

static struct bytes numbered(int number)
{
    return make_png(number, 6, 5, 3);
}

static void put_pictures(struct sac_sink *sink, int from, int to)
{
    for (int i = from; i < to; i++) {
        struct bytes file = numbered(i);
        char name[16];
        snprintf(name, sizeof name, "p%d.png", i);
        put(sink, (struct sac_record){SAC_ITEM_ENCODED, 0, 0, 0, file.data, file.size, NULL, i % 3,
                                      name});
        free(file.data);
    }
}

static void assert_same_file(const char *a, const char *b)
{
    struct bytes first = picture_read_path(a), second = picture_read_path(b);

    assert_int_equal(first.size, second.size);
    assert_memory_equal(first.data, second.data, first.size);
    free(first.data);
    free(second.data);
}

/* 30 with commits at 10 and 20, and the same with a run that dies after 17 and one
 * after 25. */
static void goes_on_to_the_same_bits(enum sac_sink_kind kind, const char *name, const char *file)
{
    struct sac_sink_mark marks[3] = {{0}};
    struct sac_error err = {0};
    const char *whole = made_path("whole_%s", name), *part = made_path("part_%s", name);
    struct sac_sink *sink = open_sink(kind, whole, NULL, marks[0]);

    for (int i = 0; i < 3; i++) {
        put_pictures(sink, 10 * i, 10 * i + 10);
        if (i < 2)
            marks[i + 1] = sac_sink_mark(sink);
        assert_ok(sac_sink_commit(sink, &err), err);
    }
    finish(sink);
    for (int i = 0; i < 3; i++) {
        sink = open_sink(kind, part, NULL, marks[i]);
        put_pictures(sink, 10 * i, 10 * i + 10);
        assert_int_equal(sac_sink_mark(sink).records, 10 * i + 10);
        assert_ok(sac_sink_commit(sink, &err), err);
        if (i < 2)
            put_pictures(sink, 10 * i + 10, 10 * i + 15); /* of which nothing stays */
        sac_sink_free(sink);
    }
    assert_same_file(made_path("whole_%s/%s", name, file), made_path("part_%s/%s", name, file));
}

static void an_lmdb_goes_on_at_its_mark_to_the_same_bits(void **state)
{
    (void)state;
#ifndef SAC_HAVE_LMDB
    skip();
#endif
    goes_on_to_the_same_bits(SAC_SINK_LMDB, "mdb", "data.mdb");
}

static void a_list_goes_on_at_its_mark_to_the_same_bits(void **state)
{
    (void)state;
    goes_on_to_the_same_bits(SAC_SINK_LIST, "list", "list.txt");
    struct sac_source *source = open_source(made_path("part_list"));
    struct sac_item item = {0};
    struct sac_error err = {0};
    assert_int_equal(source->count, 30);
    for (int i = 0; i < 30; i++) {
        struct bytes file = numbered(i);
        assert_ok(sac_source_item(source, i, &item, &err), err);
        assert_true(item.size == file.size && item.labels[0] == i % 3);
        assert_memory_equal(item.bytes, file.data, file.size);
        free(file.data);
    }
    sac_item_done(&item);
    sac_source_free(source);
}

static void a_mark_that_the_data_do_not_reach_is_refused(void **state)
{
    static const enum sac_sink_kind kinds[] = {SAC_SINK_LIST, SAC_SINK_LMDB};

    (void)state;
    for (int i = 0; i < 2; i++) {
        const char *path = made_path("short%d", i);
        struct sac_sink_options options = {.kind = kinds[i], .path = path};
        struct sac_sink_mark beyond = {5, 500};
        struct sac_error err = {0};
        struct sac_sink *sink = open_sink(kinds[i], path, NULL, (struct sac_sink_mark){0});
        put_pictures(sink, 0, 3);
        finish(sink);
        assert_int_equal(sac_sink_open(&sink, &options, &beyond, &err), SAC_EFORMAT);
        assert_says(err, i == 0 ? "fewer than the 500" : "3 records; expected 5");
    }
}

/* A folder source numbers classes by their names' order. */
static void a_folder_keeps_the_classes_numbers(void **state)
{
    char *sorted[] = {(char *)"ant", (char *)"bee", (char *)"cat"};
    char *mixed[] = {(char *)"zebra", (char *)"a/b", (char *)".ox"};

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct sac_labels labels = {3, i ? mixed : sorted};
        const char *path = made_path("folders%d", i);
        struct sac_sink *sink =
            open_sink(SAC_SINK_FOLDER, path, &labels, (struct sac_sink_mark){0});
        put_pictures(sink, 1, 3); /* classes 1 and 2; of class 0 there is none */
        finish(sink);
        struct sac_source *source = open_source(path);
        assert_int_equal(source->labels.count, 3);
        assert_string_equal(source->labels.text[0], i ? "0000_zebra" : "ant");
        assert_string_equal(source->labels.text[1], i ? "0001_a_b" : "bee");
        for (int32_t j = 0; j < 2; j++) {
            struct sac_error err = {0};
            int32_t label = -1;
            assert_ok(sac_source_item_label(source, j, &label, &err), err);
            assert_int_equal(label, j + 1);
        }
        sac_source_free(source);
    }
}

static void hdf5_and_cifar_files_appear_when_they_are_whole(void **state)
{
    static uint8_t pixels[3072];
    static float floats[600][6];
    const char *h5 = made_path("new.h5"), *bin = made_path("new.bin");
    struct sac_item item = {0};
    struct sac_error err = {0};

    (void)state;
    struct sac_sink *sink = open_sink(SAC_SINK_CIFAR, bin, NULL, (struct sac_sink_mark){0});
    for (int i = 0; i < 3072; i++)
        pixels[i] = (uint8_t)(i * 7);
    put(sink, (struct sac_record){SAC_ITEM_BYTES, 3, 32, 32, pixels, 3072, NULL, 9, ""});
    struct sac_record wrong = {SAC_ITEM_BYTES, 3, 32, 31, pixels, 2976, NULL, 9, "w.png"};
    assert_int_equal(sac_sink_put(sink, &wrong, &err), SAC_EINVAL);
    assert_says(err, "w.png is 3 × 32 × 31");
    assert_false(sac_file_exists(bin));
    finish(sink);
    struct sac_source *source = open_source(bin);
    err = (struct sac_error){0};
    assert_ok(sac_source_item(source, 0, &item, &err), err);
    assert_true(item.rgb && item.labels[0] == 9);
    assert_memory_equal(item.bytes, pixels, 3072);
    sac_source_free(source);
#ifdef SAC_HAVE_HDF5
    sink = open_sink(SAC_SINK_HDF5, h5, NULL, (struct sac_sink_mark){0});
    for (int i = 0; i < 600; i++) { /* over two blocks of 256 */
        for (int j = 0; j < 6; j++)
            floats[i][j] = (float)(i * 6 + j) / 3;
        put(sink, (struct sac_record){SAC_ITEM_FLOATS, 1, 2, 3, NULL, 0, floats[i], i % 11, ""});
    }
    assert_false(sac_file_exists(h5));
    finish(sink);
    source = open_source(h5);
    assert_int_equal(source->count, 600);
    for (int i = 0; i < 600; i += 37) {
        assert_ok(sac_source_item(source, i, &item, &err), err);
        assert_memory_equal(item.floats, floats[i], sizeof floats[i]);
        assert_true(item.labels[0] == i % 11);
    }
    sac_source_free(source);
#endif
    sac_item_done(&item);
}

static void an_unfinished_file_leaves_nothing(void **state)
{
    static uint8_t pixels[3072];
    const char *bin = made_path("dropped.bin");

    (void)state;
    struct sac_sink *sink = open_sink(SAC_SINK_CIFAR, bin, NULL, (struct sac_sink_mark){0});
    put(sink, (struct sac_record){SAC_ITEM_BYTES, 3, 32, 32, pixels, 3072, NULL, 9, ""});
    sac_sink_free(sink);
    assert_false(sac_file_exists(bin));
    assert_false(sac_file_exists(made_path("dropped.bin.tmp")));
}

static void a_view_shows_items_under_new_numbers(void **state)
{
    char *names[] = {(char *)"two", (char *)"zero"};
    struct sac_labels labels = {2, names};
    int64_t indices[] = {5, 0, 2, 0};
    int32_t renumber[] = {1, -1, 0};
    struct sac_source *view = NULL;
    struct sac_item item = {0};
    struct sac_error err = {0};

    (void)state;
    struct sac_sink *sink =
        open_sink(SAC_SINK_LIST, made_path("viewed"), NULL, (struct sac_sink_mark){0});
    put_pictures(sink, 0, 6); /* labels 0, 1, 2, 0, 1, 2 */
    finish(sink);
    struct sac_source *source = open_source(made_path("viewed"));
    assert_ok(sac_source_view_open(&view, source, indices, 4, renumber, 3, &labels, &err), err);
    static const int32_t expected[] = {0, 1, 0, 1};
    for (int i = 0; i < 4; i++) {
        char path[400], number[16];
        int32_t label;
        assert_ok(sac_source_item_label(view, i, &label, &err), err);
        assert_int_equal(label, expected[i]);
        assert_ok(sac_source_item(view, i, &item, &err), err);
        assert_true(item.labels[0] == (float)expected[i]);
        assert_true(sac_source_item_path(view, i, path, sizeof path));
        snprintf(number, sizeof number, "p%d.png", (int)indices[i]);
        assert_non_null(strstr(path, number));
    }
    assert_string_equal(view->labels.text[1], "zero");
    sac_source_free(view);
    indices[0] = 1; /* of class 1, which has no number */
    assert_ok(sac_source_view_open(&view, source, indices, 1, renumber, 3, NULL, &err), err);
    assert_int_equal(sac_source_item(view, 0, &item, &err), SAC_EINVAL);
    sac_item_done(&item);
    sac_source_free(view);
    sac_source_free(source);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_lmdb_holds_bytes_floats_and_files),
        cmocka_unit_test(caffes_own_message_reads_the_records),
        cmocka_unit_test(an_lmdb_goes_on_at_its_mark_to_the_same_bits),
        cmocka_unit_test(a_list_goes_on_at_its_mark_to_the_same_bits),
        cmocka_unit_test(a_mark_that_the_data_do_not_reach_is_refused),
        cmocka_unit_test(a_folder_keeps_the_classes_numbers),
        cmocka_unit_test(hdf5_and_cifar_files_appear_when_they_are_whole),
        cmocka_unit_test(an_unfinished_file_leaves_nothing),
        cmocka_unit_test(a_view_shows_items_under_new_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
