#include "support/support.h"

#include <string.h>

#include "serve/metrics.h"

static void expect_line(const struct sac_buf *buf, const char *line)
{
    if (!strstr((const char *)buf->data, line))
        fail_msg("no line \"%s\" in:\n%s", line, (const char *)buf->data);
}

static void a_histogram_counts_what_is_no_larger_than_its_bound(void **state)
{
    (void)state;
    struct sac_metrics_histogram histogram = {0};

    sac_metrics_histogram_add(&histogram, 1, 1);
    sac_metrics_histogram_add(&histogram, 1, 2);
    sac_metrics_histogram_add(&histogram, 1, 2.5);
    sac_metrics_histogram_add(&histogram, 1, 1e9);
    assert_int_equal(histogram.counts[0], 1);
    assert_int_equal(histogram.counts[1], 1);
    assert_int_equal(histogram.counts[2], 1);
    assert_int_equal(histogram.counts[SAC_BUCKETS - 1], 1);
    assert_int_equal(histogram.count, 4);
    assert_true(histogram.sum == 1e9 + 5.5);
}

/* Prometheus' text format 0.0.4: values of labels escape backslash, quote and
 * newline; buckets are cumulative and end at +Inf. */
static void the_text_is_prometheus_own(void **state)
{
    (void)state;
    struct sac_model_metrics metrics = {.success = 7, .pending = 2};
    const struct sac_model_metrics *models[] = {&metrics};
    const char *names[] = {"a\"b\\c\nd"};
    struct sac_buf buf = {0};

    metrics.failures[SAC_FAILURE_CANCELED] = 3;
    sac_metrics_histogram_add(&metrics.batch, 1, 2);
    sac_metrics_histogram_add(&metrics.batch, 1, 8);
    sac_metrics_put_models(&buf, models, names, 1);
    sac_buf_put(&buf, "", 1);
#define LABELS "{model=\"a\\\"b\\\\c\\nd\",version=\"1\""
    expect_line(&buf, "# TYPE nv_inference_request_success counter\n"
                      "nv_inference_request_success" LABELS "} 7\n");
    expect_line(&buf, "\nnv_inference_pending_request_count" LABELS "} 2\n");
    expect_line(&buf, "\nnv_inference_request_failure" LABELS ",reason=\"CANCELED\"} 3\n");
    expect_line(&buf, "# TYPE saccade_batch_size histogram\n"
                      "saccade_batch_size_bucket" LABELS ",le=\"1\"} 0\n"
                      "saccade_batch_size_bucket" LABELS ",le=\"2\"} 1\n"
                      "saccade_batch_size_bucket" LABELS ",le=\"4\"} 1\n"
                      "saccade_batch_size_bucket" LABELS ",le=\"8\"} 2\n"
                      "saccade_batch_size_bucket" LABELS ",le=\"16\"} 2\n"
                      "saccade_batch_size_bucket" LABELS ",le=\"32\"} 2\n"
                      "saccade_batch_size_bucket" LABELS ",le=\"64\"} 2\n"
                      "saccade_batch_size_bucket" LABELS ",le=\"128\"} 2\n"
                      "saccade_batch_size_bucket" LABELS ",le=\"256\"} 2\n"
                      "saccade_batch_size_bucket" LABELS ",le=\"+Inf\"} 2\n"
                      "saccade_batch_size_sum" LABELS "} 10\n"
                      "saccade_batch_size_count" LABELS "} 2\n");
    sac_buf_done(&buf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_histogram_counts_what_is_no_larger_than_its_bound),
        cmocka_unit_test(the_text_is_prometheus_own),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
