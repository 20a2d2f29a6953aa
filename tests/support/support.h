/*
 * What the tests share: cmocka with its own prerequisites, and the test data.
 *
 * A test that needs the shared data takes its path from sac_test_data(), which
 * skips the test, by name, where the data is not there: the environment
 * variable SACCADE_TEST_DATA, else ../shared/data beside the source tree.
 */
#ifndef SAC_TESTS_SUPPORT_H
#define SAC_TESTS_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/error.h"

/* The path of `name` under the test data; lives until the program ends.
 * Skips the running test when it is not there. */
const char *sac_test_data(const char *name);

/* A path in the source tree, for fixtures under tests/. */
const char *sac_test_source(const char *name);

/* A fresh folder under $TMPDIR; removed, with what it holds, at exit. */
const char *sac_test_tmpdir(void);

/* Writes a file for a test to read; returns its path (as sac_test_data's). */
const char *sac_test_write(const char *name, const void *bytes, size_t size);

/* Reads a little-endian float32 C-order .npy file (NumPy's format 1.0). The
 * caller frees the values. Shape goes to dim[0..*ret_rank), at most 8. */
float *sac_test_load_npy(const char *path, int64_t dim[8], int *ret_rank);

/* The largest |a - b| over `count` elements. NaN on either side is infinite. */
double sac_test_max_difference(const float *a, const float *b, size_t count);

/* Fails the test, with the sentence, unless rc is 0. */
#define assert_ok(rc, err)                                                                         \
    do {                                                                                           \
        if ((rc) != 0)                                                                             \
            fail_msg("failed with %d: %s", (err).code, (err).text);                                \
    } while (0)

/* The sentence in `err` contains `part`. */
#define assert_says(err, part)                                                                     \
    do {                                                                                           \
        if (!strstr((err).text, (part)))                                                           \
            fail_msg("\"%s\" does not contain \"%s\"", (err).text, (part));                        \
    } while (0)

#endif
