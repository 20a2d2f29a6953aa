/* Archives that libarchive's own writer makes, honest ones and others. */
#include "data/unpack.h"

#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "support/support.h"

enum kind { PLAIN, FOLDER, SYMLINK, HARDLINK, PIPE };

struct file {
    const char *name, *text;
    enum kind kind;
};

static struct archive_entry *entry_of(const struct file *file)
{
    static const unsigned types[] = {AE_IFREG, AE_IFDIR, AE_IFLNK, AE_IFREG, AE_IFIFO};
    struct archive_entry *entry = archive_entry_new();

    archive_entry_set_pathname(entry, file->name);
    archive_entry_set_filetype(entry, types[file->kind]);
    archive_entry_set_perm(entry, 0644);
    archive_entry_set_size(entry, file->kind == PLAIN ? (la_int64_t)strlen(file->text) : 0);
    if (file->kind == SYMLINK)
        archive_entry_set_symlink(entry, file->text);
    if (file->kind == HARDLINK)
        archive_entry_set_hardlink(entry, file->text);
    return entry;
}

/* A .tar.gz, or a .zip. The path is good until the next call. */
static const char *pack(const struct file *files, size_t count, bool zip)
{
    static char path[300];
    struct archive *archive = archive_write_new();

    snprintf(path, sizeof path, "%s/packed", sac_test_tmpdir());
    if (zip) {
        archive_write_set_format_zip(archive);
    } else {
        archive_write_add_filter_gzip(archive);
        archive_write_set_format_pax_restricted(archive);
    }
    assert_int_equal(archive_write_open_filename(archive, path), ARCHIVE_OK);
    for (size_t i = 0; i < count; i++) {
        struct archive_entry *entry = entry_of(&files[i]);
        assert_int_equal(archive_write_header(archive, entry), ARCHIVE_OK);
        if (files[i].kind == PLAIN)
            archive_write_data(archive, files[i].text, strlen(files[i].text));
        archive_entry_free(entry);
    }
    assert_int_equal(archive_write_close(archive), ARCHIVE_OK);
    archive_write_free(archive);
    return path;
}

static const char *fresh_folder(void)
{
    static char folder[300];
    static int number;

    snprintf(folder, sizeof folder, "%s/to%d", sac_test_tmpdir(), number++);
    mkdir(folder, 0777);
    return folder;
}

static int count_in(const char *path)
{
    DIR *folder = opendir(path);
    int count = 0;

    for (struct dirent *entry; (entry = readdir(folder));)
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(folder);
    return count;
}

static void assert_holds(const char *folder, const char *name, const char *text)
{
    char path[600];
    uint8_t *bytes = NULL;
    size_t size;
    struct sac_error err = {0};

    snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_ok(sac_file_read(path, 1 << 20, &bytes, &size, &err), err);
    assert_string_equal((char *)bytes, text);
    free(bytes);
}

static void files_come_out_without_their_folders(void **state)
{
    static const struct file files[] = {
        {"job/", "", FOLDER},
        {"job/deploy.prototxt", "layer { }", PLAIN},
        {"/etc/labels.txt", "cat\ndog\n", PLAIN},
        {"../../../escaped", "inside", PLAIN},
        {"job/.hidden", "no", PLAIN},
    };

    (void)state;
    for (int zip = 0; zip < 2; zip++) {
        const char *folder = fresh_folder();
        struct sac_error err = {0};
        assert_ok(sac_unpack(pack(files, 5, zip), "it", folder, 1000, &err), err);
        assert_int_equal(count_in(folder), 3);
        assert_holds(folder, "deploy.prototxt", "layer { }");
        assert_holds(folder, "labels.txt", "cat\ndog\n");
        assert_holds(folder, "escaped", "inside");
    }
}

static void refuse(const char *path, int64_t bytes_max, int code, const char *says)
{
    struct sac_error err = {0};

    assert_int_equal(sac_unpack(path, "it", fresh_folder(), bytes_max, &err), code);
    assert_says(err, says);
}

static void what_a_model_has_no_use_for_is_refused(void **state)
{
    static const struct {
        struct file files[2];
        const char *says;
    } cases[] = {
        {{{"a", "/etc/passwd", SYMLINK}, {"a", "x", PLAIN}}, "links"},
        {{{"a", "x", PLAIN}, {"b", "a", HARDLINK}}, "links"},
        {{{"a", "", PIPE}, {"b", "x", PLAIN}}, "no file"},
        {{{"x/a", "1", PLAIN}, {"y/a", "2", PLAIN}}, "two files a"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        refuse(pack(cases[i].files, 2, false), 1000, SAC_EFORMAT, cases[i].says);
}

static void sizes_and_counts_are_bounded(void **state)
{
    static const struct file files[] = {{"a", "12345", PLAIN}, {"b", "67890", PLAIN}};
    static struct file many[SAC_UNPACK_FILES_MAX + 1];
    static char names[SAC_UNPACK_FILES_MAX + 1][8];
    struct sac_error err = {0};

    (void)state;
    for (int zip = 0; zip < 2; zip++) {
        assert_ok(sac_unpack(pack(files, 2, zip), "it", fresh_folder(), 10, &err), err);
        refuse(pack(files, 2, zip), 9, SAC_ELIMIT, "more than is allowed");
    }
    for (int i = 0; i <= SAC_UNPACK_FILES_MAX; i++) {
        snprintf(names[i], sizeof names[i], "f%d", i);
        many[i] = (struct file){names[i], "x", PLAIN};
    }
    refuse(pack(many, SAC_UNPACK_FILES_MAX + 1, false), 1000, SAC_ELIMIT, "more than is allowed");
}

static void damaged_archives_are_refused(void **state)
{
    static const struct file files[] = {{"a", "12345", PLAIN}};
    struct sac_error err = {0};
    struct stat info;
    const char *path = pack(files, 1, false);

    (void)state;
    assert_int_equal(stat(path, &info), 0);
    for (off_t size = info.st_size - 9; size > 0; size /= 2) {
        assert_int_equal(truncate(path, size), 0);
        refuse(path, 1000, SAC_EFORMAT, "cannot be unpacked");
    }
    refuse(sac_test_write("text", "no archive at all\n", 18), 1000, SAC_EFORMAT,
           "cannot be unpacked");
    assert_int_equal(sac_unpack("/none", "it", fresh_folder(), 10, &err), SAC_EFORMAT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_come_out_without_their_folders),
        cmocka_unit_test(what_a_model_has_no_use_for_is_refused),
        cmocka_unit_test(sizes_and_counts_are_bounded),
        cmocka_unit_test(damaged_archives_are_refused),
    };

    return cmocka_run_group_tests_name("data/unpack", tests, NULL, NULL);
}
