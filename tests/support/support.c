#include "support/support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"

/*
 * Takes the place of cmocka's own: cmocka 1.1.5 writes a skipped case as
 * "not ok 3 # SKIP name", which TAP (and meson) read as a failure.
 */
__attribute__((visibility("default"))) void print_message(const char *const format, ...)
{
    va_list values;

    va_start(values, format);
    if (strncmp(format, "not ok %u # SKIP", 16) == 0) {
        unsigned number = va_arg(values, unsigned);
        printf("ok %u - %s # SKIP\n", number, va_arg(values, const char *));
    } else {
        vprintf(format, values);
    }
    va_end(values);
    fflush(stdout);
}

/* Paths handed out live until exit; tests make few of them. */
static struct path {
    struct path *next;
    char *text;
} * paths;

static const char *join(const char *folder, const char *name)
{
    struct path *path = malloc(sizeof *path);

    if (!path || asprintf(&path->text, "%s/%s", folder, name) < 0)
        abort();
    path->next = paths;
    paths = path;
    return path->text;
}

const char *sac_test_source(const char *name)
{
    const char *root = getenv("SACCADE_SOURCE_ROOT");

    return join(root ? root : ".", name);
}

const char *sac_test_data(const char *name)
{
    const char *set = getenv("SACCADE_TEST_DATA");
    const char *path = join(set ? set : sac_test_source("../shared/data"), name);

    if (!sac_file_exists(path)) {
        print_message("# skipped: no %s\n", path);
        skip();
    }
    return path;
}

static char tmpdir[256];

static void remove_tmpdir(void)
{
    char command[300];

    snprintf(command, sizeof command, "rm -rf '%s'", tmpdir);
    if (system(command) != 0)
        fprintf(stderr, "%s could not be removed\n", tmpdir);
}

const char *sac_test_tmpdir(void)
{
    const char *base = getenv("TMPDIR");

    if (!tmpdir[0]) {
        snprintf(tmpdir, sizeof tmpdir, "%s/saccade-test-XXXXXX", base ? base : "/tmp");
        if (!mkdtemp(tmpdir))
            abort();
        atexit(remove_tmpdir);
    }
    return tmpdir;
}

const char *sac_test_write(const char *name, const void *bytes, size_t size)
{
    const char *path = join(sac_test_tmpdir(), name);
    FILE *file = fopen(path, "wb");

    if (!file || fwrite(bytes, 1, size, file) != size || fclose(file) != 0)
        fail_msg("%s could not be written", path);
    return path;
}

/* "'shape': (2, 3, 4), " → 2, 3, 4. */
static int parse_npy_shape(const char *header, int64_t dim[8])
{
    const char *at = strstr(header, "'shape': (");
    int rank = 0;

    assert_non_null(at);
    at += strlen("'shape': (");
    while (*at != ')' && rank < 8) {
        char *end;
        dim[rank++] = strtoll(at, &end, 10);
        at = end;
        while (*at == ',' || *at == ' ')
            at++;
    }
    return rank;
}

float *sac_test_load_npy(const char *path, int64_t dim[8], int *ret_rank)
{
    struct sac_error err = {0};
    uint8_t *bytes;
    size_t size;

    assert_ok(sac_file_read(path, 256u << 20, &bytes, &size, &err), err);
    assert_true(size > 10 && memcmp(bytes, "\x93NUMPY\x01\x00", 8) == 0);
    size_t header = 10 + bytes[8] + 256u * bytes[9];
    assert_true(size > header);
    bytes[header - 1] = 0;
    assert_non_null(strstr((char *)bytes + 10, "'<f4'"));
    assert_non_null(strstr((char *)bytes + 10, "'fortran_order': False"));
    *ret_rank = parse_npy_shape((char *)bytes + 10, dim);
    size_t count = 1;
    for (int i = 0; i < *ret_rank; i++)
        count *= (size_t)dim[i];
    assert_int_equal(size - header, count * sizeof(float));
    float *values = malloc(count * sizeof *values);
    assert_non_null(values);
    memcpy(values, bytes + header, count * sizeof *values);
    free(bytes);
    return values;
}

double sac_test_max_difference(const float *a, const float *b, size_t count)
{
    double most = 0;

    for (size_t i = 0; i < count; i++) {
        double d = fabs((double)a[i] - (double)b[i]);
        if (isnan(d))
            return INFINITY;
        most = d > most ? d : most;
    }
    return most;
}
