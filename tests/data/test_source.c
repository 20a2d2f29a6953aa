#include "makers.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"

static struct sac_source *open_ok(int rc, struct sac_source *source, struct sac_error err)
{
    assert_ok(rc, err);
    return source;
}

/* The source that `call` opens into &opened, saying why not into &failed. */
#define OPEN(call)                                                                                 \
    ({                                                                                             \
        struct sac_source *opened = NULL;                                                          \
        struct sac_error failed = {0};                                                             \
        int opened_rc = (call);                                                                    \
        open_ok(opened_rc, opened, failed);                                                        \
    })

static float label_of(const struct sac_source *source, int64_t index)
{
    struct sac_item item = {0};
    struct sac_error err = {0};

    assert_ok(sac_source_item(source, index, &item, &err), err);
    float label = item.labels[0];
    sac_item_done(&item);
    return label;
}

static void an_lmdb_gives_its_records_in_the_order_of_keys(void **state)
{
    struct bytes datums[300];
    const char *path = made_path("records");
    struct sac_item item = {0};
    struct sac_error err = {0};

    (void)state;
    for (int i = 0; i < 300; i++)
        datums[i] = make_datum(i, 8, 6, 3, i % 7, i % 3 == 0);
    make_lmdb(path, datums, 300);
    struct sac_source *source = OPEN(sac_source_open(&opened, path, &failed));
    assert_int_equal(source->count, 300);
    for (int i = 299; i >= 0; i--) {
        assert_ok(sac_source_item(source, i, &item, &err), err);
        assert_int_equal(item.kind, i % 3 == 0 ? SAC_ITEM_FLOATS : SAC_ITEM_BYTES);
        assert_int_equal(item.channels * 100 + item.height * 10 + item.width, 368);
        float value = i % 3 == 0 ? item.floats[48 + 8 + 2] - .5f : item.bytes[48 + 8 + 2];
        assert_true(value == made_value(i, 1, 1, 2) && item.labels[0] == (float)(i % 7));
    }
    char name[100];
    sac_source_item_name(source, 12, name, sizeof name);
    assert_non_null(strstr(name, "key 00000012"));
    sac_item_done(&item);
    sac_source_free(source);
}

static void an_lmdb_is_read_from_a_folder_that_cannot_be_written(void **state)
{
    struct bytes datum = make_datum(0, 2, 2, 1, 3, false);
    const char *path = made_path("readonly");

    (void)state;
    make_lmdb(path, &datum, 1);
    char lock_file[400];
    snprintf(lock_file, sizeof lock_file, "%s/lock.mdb", path);
    unlink(lock_file);
    assert_int_equal(chmod(path, 0555), 0);
    struct sac_source *source = OPEN(sac_source_lmdb_open(&opened, path, &failed));
    assert_true(label_of(source, 0) == 3);
    assert_false(sac_file_exists(lock_file));
    sac_source_free(source);
    chmod(path, 0755);
}

/* Reads all there is; a page beyond the file's end would end this program. */
static int read_all(const char *path, struct sac_error *err)
{
    struct sac_source *source = NULL;
    struct sac_item item = {0};
    int rc = sac_source_lmdb_open(&source, path, err);

    for (int64_t i = 0; rc == 0 && i < source->count; i++)
        rc = sac_source_item(source, i, &item, err);
    sac_item_done(&item);
    sac_source_free(source);
    return rc;
}

static void a_truncated_lmdb_is_a_sentence_at_every_length(void **state)
{
    struct bytes datums[60], whole;
    const char *path = made_path("whole"), *cut = made_path("cut");
    char file[400], cut_file[400];
    int refused = 0;

    (void)state;
    for (int i = 0; i < 60; i++)
        datums[i] = make_datum(i, 40, 40, 3, i, false); /* 4.8 KB: pages of their own */
    make_lmdb(path, datums, 60);
    make_folder(cut);
    snprintf(file, sizeof file, "%s/data.mdb", path);
    snprintf(cut_file, sizeof cut_file, "%s/data.mdb", cut);
    whole = picture_read_path(file);
    FILE *out = fopen(cut_file, "wb");
    assert_true(out && fwrite(whole.data, 1, whole.size, out) == whole.size && fclose(out) == 0);
    struct sac_error fine = {0};
    assert_ok(read_all(cut, &fine), fine);
    for (size_t size = whole.size - 1;; size = size > 1 << 14 ? size - 1021 : size - 37) {
        struct sac_error err = {0};
        assert_int_equal(truncate(cut_file, (off_t)size), 0);
        assert_int_equal(read_all(cut, &err), SAC_EFORMAT);
        assert_non_null(strstr(err.text, size > 8192 ? "a truncated LMDB" : "LMDB"));
        refused++;
        if (size < 37)
            break;
    }
    assert_true(refused > 500);
    free(whole.data);
}

static void refusals_of_an_lmdb_say_why(void **state)
{
    const char *path = made_path("empty_lmdb");
    struct sac_source *source;
    struct sac_error err = {0};
    char prose[400];

    (void)state;
    make_lmdb(path, NULL, 0);
    assert_true(sac_source_lmdb_open(&source, path, &err) < 0);
    assert_says(err, "without records");
    err = (struct sac_error){0};
    assert_int_equal(sac_source_lmdb_open(&source, made_path("nowhere"), &err), SAC_ENOENT);
    err = (struct sac_error){0};
    memset(prose, 'x', sizeof prose); /* long enough to have a head */
    const char *text = sac_test_write("text.mdb", prose, sizeof prose);
    assert_int_equal(sac_source_open(&source, text, &err), SAC_EFORMAT);
    assert_says(err, "not an LMDB");
}

static void a_leveldb_is_told_by_its_files(void **state)
{
    const char *path = made_path("level");
    struct sac_source *source;
    struct sac_error err = {0};

    (void)state;
    make_folder(path);
    sac_test_write("level/CURRENT", "MANIFEST-000004\n", 16);
    assert_int_equal(sac_source_open(&source, path, &err), SAC_EUNSUPPORTED);
    assert_says(err, "level: a LEVELDB, which is not read here");
}

static void a_list_has_labels_after_the_last_blank(void **state)
{
    struct bytes png = make_png(1, 4, 4, 3);
    const char *a = sac_test_write("a picture.png", png.data, png.size);
    char text[300];
    int size =
        snprintf(text, sizeof text, "a picture.png 3\r\n\n\na picture.png -12\na picture.png  7");
    const char *list = sac_test_write("list.txt", text, (size_t)size);
    char root[300];

    (void)state;
    snprintf(root, sizeof root, "%.*s", (int)(strrchr(a, '/') + 1 - a), a);
    struct sac_source *source = OPEN(sac_source_list_open(&opened, list, root, &failed));
    assert_int_equal(source->count, 3);
    assert_true(label_of(source, 0) == 3 && label_of(source, 1) == -12);
    struct sac_item item = {0};
    struct sac_error err = {0};
    assert_ok(sac_source_item(source, 0, &item, &err), err);
    assert_true(item.kind == SAC_ITEM_ENCODED && item.size == png.size &&
                memcmp(item.bytes, png.data, png.size) == 0);
    /* of two blanks the first belongs to the path */
    assert_int_equal(sac_source_item(source, 2, &item, &err), SAC_ENOENT);
    assert_says(err, "list.txt:5: ");
    assert_says(err, "No such file");
    sac_item_done(&item);
    sac_source_free(source);
    free(png.data);
}

static void a_line_that_is_none_is_named(void **state)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"a.png 1\nb.png\n", ":2: expected a path, a blank and a label"},
        {"a.png 1\nb.png one\n", ":2: expected a whole number as label after the last blank"},
        {"a.png 1.5\n", "found \"1.5\""},
        {"a.png 99999999999999999999\n", "label 99999999999999999999"},
        {"\n\n", "a list without pictures"},
        {"", "a list without pictures"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sac_source *source;
        struct sac_error err = {0};
        const char *list = sac_test_write("bad.txt", cases[i].text, strlen(cases[i].text));
        assert_true(sac_source_open(&source, list, &err) < 0);
        assert_says(err, cases[i].says);
    }
}

static void a_folder_has_its_classes_in_the_order_of_names(void **state)
{
    static const char *const folders[] = {"tree/b dog", "tree/a cat", "tree/a cat/more",
                                          "tree/.git", "tree/c none"};
    static const char *const files[] = {"tree/b dog/1.png",       "tree/a cat/2.JPG",
                                        "tree/a cat/more/3.jpeg", "tree/a cat/notes.txt",
                                        "tree/.git/4.png",        "tree/5.png"};

    (void)state;
    make_folder(made_path("tree"));
    for (size_t i = 0; i < 5; i++)
        make_folder(made_path("%s", folders[i]));
    for (size_t i = 0; i < 6; i++)
        sac_test_write(files[i], "x", 1);
    struct sac_source *source = OPEN(sac_source_open(&opened, made_path("tree"), &failed));
    assert_int_equal(source->count, 3);
    assert_int_equal(source->labels.count, 3);
    assert_string_equal(source->labels.text[0], "a cat");
    assert_string_equal(source->labels.text[2], "c none");
    assert_true(label_of(source, 0) == 0 && label_of(source, 1) == 0 && label_of(source, 2) == 1);
    char name[400];
    sac_source_item_name(source, 1, name, sizeof name);
    assert_non_null(strstr(name, "tree/a cat/more/3.jpeg"));
    sac_source_free(source);
    struct sac_error err = {0};
    assert_int_equal(sac_source_open(&source, made_path("tree/b dog"), &err), SAC_EFORMAT);
    assert_says(err, "no pictures");
}

static void hdf5_files_give_rows_across_files(void **state)
{
    float data[2][3 * 12], labels[2][3 * 2];
    char list[900];
    const char *paths[2] = {made_path("one.h5"), made_path("two.h5")};
    struct sac_item item = {0};
    struct sac_error err = {0};

    (void)state;
    for (int f = 0; f < 2; f++) {
        for (int i = 0; i < 36; i++)
            data[f][i] = (float)(100 * f + i) + .25f;
        for (int i = 0; i < 6; i++)
            labels[f][i] = (float)(10 * f + i) / 4;
        make_hdf5(paths[f], data[f], (int[]){3, 2, 3, 2}, labels[f], 2);
    }
    int size = snprintf(list, sizeof list, "%s\n\n%s\n", paths[0], paths[1]);
    const char *list_path = sac_test_write("h5.txt", list, (size_t)size);
    struct sac_source *source =
        OPEN(sac_source_hdf5_open(&opened, list_path, "data", "label", &failed));
    assert_int_equal(source->count, 6);
    assert_int_equal(source->label_count, 2);
    for (int i = 0; i < 6; i++) {
        assert_ok(sac_source_item(source, i, &item, &err), err);
        assert_int_equal(item.channels * 100 + item.height * 10 + item.width, 232);
        assert_memory_equal(item.floats, &data[i / 3][12 * (i % 3)], 12 * sizeof(float));
        assert_memory_equal(item.labels, &labels[i / 3][2 * (i % 3)], 2 * sizeof(float));
    }
    sac_item_done(&item);
    sac_source_free(source);
    assert_int_equal(sac_source_hdf5_open(&source, list_path, "pictures", NULL, &err), SAC_EINVAL);
    assert_says(err, "no dataset \"pictures\"");
}

/* More files than stay open at a time, in an order that reopens them. */
static void many_hdf5_files_take_turns(void **state)
{
    static char list[50 * 300];
    struct sac_item item = {0};
    struct sac_error err = {0};
    size_t used = 0;

    (void)state;
    for (int f = 0; f < 50; f++) {
        float data[2] = {(float)f, (float)f + .5f}, labels[2] = {(float)f, (float)f};
        const char *path = made_path("many%d.h5", f);
        make_hdf5(path, data, (int[]){2, 1, 1, 1}, labels, 1);
        used += (size_t)snprintf(list + used, sizeof list - used, "%s\n", path);
    }
    struct sac_source *source = OPEN(sac_source_hdf5_open(
        &opened, sac_test_write("many.txt", list, used), "data", "label", &failed));
    for (int i = 0; i < 300; i++) {
        int index = i * 37 % 100;
        assert_ok(sac_source_item(source, index, &item, &err), err);
        assert_true(item.floats[0] == (float)index / 2 && item.labels[0] == (float)(index / 2));
    }
    sac_item_done(&item);
    sac_source_free(source);
}

static void a_damaged_or_missing_hdf5_is_a_sentence(void **state)
{
    float data[12] = {0}, label[1] = {0};
    const char *path = made_path("short.h5"), *other = made_path("other.h5");
    struct sac_source *source;
    struct sac_error err = {0};
    char text[900];

    (void)state;
    make_hdf5(path, data, (int[]){1, 3, 2, 2}, label, 1);
    make_hdf5(other, data, (int[]){1, 1, 2, 2}, label, 1);
    int size = snprintf(text, sizeof text, "%s\n%s\n", path, other);
    assert_true(sac_source_hdf5_open(&source, sac_test_write("l", text, (size_t)size), "data",
                                     "label", &err) < 0);
    assert_says(err, "other.h5: items of 1 × 2 × 2");
    struct bytes whole = picture_read_path(path);
    for (size_t cut = 9; cut < whole.size; cut += 131) {
        err = (struct sac_error){0};
        assert_int_equal(truncate(path, (off_t)(whole.size - cut)), 0);
        assert_true(sac_source_open(&source, path, &err) < 0);
        assert_non_null(strstr(err.text, "short.h5"));
    }
    err = (struct sac_error){0};
    size = snprintf(text, sizeof text, "%s.gone\n", path);
    assert_int_equal(
        sac_source_hdf5_open(&source, sac_test_write("l", text, (size_t)size), "data", NULL, &err),
        SAC_ENOENT);
    assert_says(err, "short.h5.gone: no such file");
    free(whole.data);
}

static const char *make_cifar(const char *name, int count, int bad_label_at)
{
    uint8_t *bytes = calloc((size_t)count, 3073);

    assert_non_null(bytes);
    for (int i = 0; i < count; i++) {
        bytes[3073 * i] = (uint8_t)(i == bad_label_at ? 10 : i % 10);
        for (int j = 0; j < 3072; j++)
            bytes[3073 * i + 1 + j] = made_value(i, j / 1024, j / 32 % 32, j % 32);
    }
    const char *path = sac_test_write(name, bytes, (size_t)count * 3073);
    free(bytes);
    return path;
}

static void cifar_batches_follow_each_other(void **state)
{
    const char *paths[2] = {make_cifar("data_batch_1.bin", 7, -1),
                            make_cifar("data_batch_2.bin", 5, -1)};
    struct sac_item item = {0};
    struct sac_error err = {0};

    (void)state;
    struct sac_source *source = OPEN(sac_source_cifar_open(&opened, paths, 2, &failed));
    assert_int_equal(source->count, 12);
    for (int i = 0; i < 12; i++) {
        int number = i < 7 ? i : i - 7;
        assert_ok(sac_source_item(source, i, &item, &err), err);
        assert_true(item.rgb && item.labels[0] == (float)(number % 10));
        assert_int_equal(item.bytes[1024 + 5 * 32 + 9], made_value(number, 1, 5, 9));
    }
    sac_item_done(&item);
    sac_source_free(source);
}

static void a_cifar_label_or_length_out_of_range_is_refused(void **state)
{
    struct sac_item item = {0};
    struct sac_error err = {0};
    struct sac_source *source =
        OPEN(sac_source_open(&opened, make_cifar("bad.bin", 3, 1), &failed));

    (void)state;
    assert_ok(sac_source_item(source, 0, &item, &err), err);
    assert_int_equal(sac_source_item(source, 1, &item, &err), SAC_EINVAL);
    assert_says(err, "bad.bin: record 1: label 10; CIFAR-10 has 0 to 9");
    sac_item_done(&item);
    sac_source_free(source);
    err = (struct sac_error){0};
    assert_int_equal(sac_source_open(&source, sac_test_write("odd.bin", "abc", 3), &err),
                     SAC_EFORMAT);
    assert_says(err, "odd.bin: 3 bytes; expected CIFAR-10's binary version");
    err = (struct sac_error){0};
    assert_int_equal(sac_source_open(&source, sac_test_write("none.bin", "", 0), &err),
                     SAC_EFORMAT);
}

/* CIFAR-10's test set has 1,000 pictures of each class (its page says so). */
static void the_cifar_test_set_has_a_thousand_of_each_class(void **state)
{
    const char *packed = sac_test_data("cifar10/test.bin.xz");
    const char *path = made_path("test.bin");
    char command[1200];
    int seen[10] = {0};

    (void)state;
    snprintf(command, sizeof command, "xz -dc '%s' > '%s' 2>/dev/null", packed, path);
    if (system(command) != 0) {
        print_message("# skipped: no xz\n");
        skip();
    }
    struct sac_source *source = OPEN(sac_source_open(&opened, path, &failed));
    assert_int_equal(source->count, 10000);
    for (int64_t i = 0; i < source->count; i++)
        seen[(int)label_of(source, i)]++;
    for (int i = 0; i < 10; i++)
        assert_int_equal(seen[i], 1000);
    sac_source_free(source);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_lmdb_gives_its_records_in_the_order_of_keys),
        cmocka_unit_test(an_lmdb_is_read_from_a_folder_that_cannot_be_written),
        cmocka_unit_test(a_truncated_lmdb_is_a_sentence_at_every_length),
        cmocka_unit_test(refusals_of_an_lmdb_say_why),
        cmocka_unit_test(a_leveldb_is_told_by_its_files),
        cmocka_unit_test(a_list_has_labels_after_the_last_blank),
        cmocka_unit_test(a_line_that_is_none_is_named),
        cmocka_unit_test(a_folder_has_its_classes_in_the_order_of_names),
        cmocka_unit_test(hdf5_files_give_rows_across_files),
        cmocka_unit_test(many_hdf5_files_take_turns),
        cmocka_unit_test(a_damaged_or_missing_hdf5_is_a_sentence),
        cmocka_unit_test(cifar_batches_follow_each_other),
        cmocka_unit_test(a_cifar_label_or_length_out_of_range_is_refused),
        cmocka_unit_test(the_cifar_test_set_has_a_thousand_of_each_class),
    };

    return cmocka_run_group_tests_name("data/source", tests, NULL, NULL);
}
