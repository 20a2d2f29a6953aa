#include "support/support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "dataset/opinion.h"

enum { COUNT = 24, WIDTH = 5, CLASSES = 3, N = WIDTH + 1 };
#define RIDGE 0.3 /* as opinion.c has it */

static void make(float *x, int32_t *labels)
{
    unsigned random = 12345;

    for (int i = 0; i < COUNT; i++) {
        labels[i] = i % CLASSES;
        for (int j = 0; j < WIDTH; j++) {
            random = random * 1103515245u + 12345u;
            x[i * WIDTH + j] = (float)(random >> 16 & 1023) / 512 + (float)(labels[i] == j);
        }
    }
}

/* Gauss's elimination, another way than the factorisation under test. */
static void solve(double a[N][N + 1], double *ret)
{
    for (int i = 0; i < N; i++) {
        for (int r = i + 1; r < N; r++) {
            double f = a[r][i] / a[i][i];
            for (int c = i; c <= N; c++)
                a[r][c] -= f * a[i][c];
        }
    }
    for (int i = N - 1; i >= 0; i--) {
        ret[i] = a[i][N];
        for (int c = i + 1; c < N; c++)
            ret[i] -= a[i][c] * ret[c];
        ret[i] /= a[i][i];
    }
}

/* The ridge regression without item `left`, with all items' ridge, asked about it. */
static double without(const float *x, const int32_t *labels, int left, int class)
{
    double a[N][N + 1] = {{0}}, w[N], sum = 0;

    for (int i = 0; i < COUNT; i++) {
        for (int j = 0; i != left && j < N; j++) {
            double v = j < WIDTH ? (double)x[i * WIDTH + j] : 1;
            for (int k = 0; k < N; k++)
                a[j][k] += v * (k < WIDTH ? (double)x[i * WIDTH + k] : 1);
            a[j][N] += v * (labels[i] == class);
        }
    }
    for (int j = 0; j < N; j++)
        a[j][j] += RIDGE * COUNT;
    solve(a, w);
    for (int j = 0; j < N; j++)
        sum += w[j] * (j < WIDTH ? (double)x[left * WIDTH + j] : 1);
    return sum;
}

static void the_closed_form_is_what_leaving_each_out_gives(void **state)
{
    float x[COUNT * WIDTH], scores[COUNT * CLASSES];
    int32_t labels[COUNT];
    struct sac_error err = {0};

    (void)state;
    make(x, labels);
    assert_ok(sac_opinion_leave_one_out(x, COUNT, WIDTH, labels, CLASSES, scores, &err), err);
    for (int i = 0; i < COUNT; i++) { /* x is standardised now */
        for (int c = 0; c < CLASSES; c++)
            assert_true(fabs((double)scores[i * CLASSES + c] - without(x, labels, i, c)) < 1e-5);
    }
}

static void descriptions_are_standardised_as_a_whole(void **state)
{
    float x[COUNT * WIDTH], scores[COUNT * CLASSES];
    int32_t labels[COUNT];
    struct sac_error err = {0};
    double square = 0;

    (void)state;
    make(x, labels);
    assert_ok(sac_opinion_leave_one_out(x, COUNT, WIDTH, labels, CLASSES, scores, &err), err);
    for (int j = 0; j < WIDTH; j++) {
        double sum = 0;
        for (int i = 0; i < COUNT; i++) {
            sum += (double)x[i * WIDTH + j];
            square += (double)x[i * WIDTH + j] * (double)x[i * WIDTH + j];
        }
        assert_true(fabs(sum) < 1e-4);
    }
    assert_true(fabs(square / (COUNT * WIDTH) - 1) < 1e-4);
}

static void numbers_that_are_none_are_a_sentence(void **state)
{
    float x[COUNT * WIDTH], scores[COUNT * CLASSES];
    int32_t labels[COUNT];
    struct sac_error err = {0};

    (void)state;
    make(x, labels);
    x[7] = NAN;
    assert_int_equal(sac_opinion_leave_one_out(x, COUNT, WIDTH, labels, CLASSES, scores, &err),
                     SAC_EINVAL);
    assert_says(err, "no number");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_closed_form_is_what_leaving_each_out_gives),
        cmocka_unit_test(descriptions_are_standardised_as_a_whole),
        cmocka_unit_test(numbers_that_are_none_are_a_sentence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
