#include "support/support.h"

#include <math.h>
#include <string.h>

#include "model/answer.h"
#include "model/squeezenet.h"

static struct sac_model *open_with_labels(const char *labels)
{
    struct sac_model_files files = {.dir = sac_test_squeezenet("{}"),
                                    .labels = sac_test_write("labels.txt", labels, strlen(labels))};
    struct sac_error err = {0};
    struct sac_model *model;

    assert_ok(sac_model_open(&model, &files, NULL, &err), err);
    return model;
}

static void assert_answer(const struct sac_model *model, const struct sac_topk_pair *pairs,
                          int count, const char *expected)
{
    struct sac_buf out = {0};

    sac_answer_put_json(&out, model, pairs, count);
    sac_buf_put(&out, "", 1);
    assert_false(out.failed);
    assert_string_equal(out.data, expected);
    sac_buf_done(&out);
}

/* GPU REST Engine's answer, as its README shows it: compact, four decimals. */
static void an_answer_looks_as_gpu_rest_engines(void **state)
{
    struct sac_model *model = open_with_labels("n02123045 tabby, tabby cat\na\"<b>\n");
    struct sac_topk_pair pairs[] = {{0, .99984f}, {1, .00006f}};

    (void)state;
    assert_answer(model, pairs, 2,
                  "[{\"confidence\":0.9998,\"label\":\"n02123045 tabby, tabby cat\"},"
                  "{\"confidence\":0.0001,\"label\":\"a\\\"\\u003cb\\u003e\"}]");
    assert_answer(model, pairs, 0, "[]");
    sac_model_unref(model);
}

/* RFC 8259 has no NaN and no infinity. */
static void what_is_no_number_is_null(void **state)
{
    struct sac_model *model = open_with_labels("a\nb\n");
    struct sac_topk_pair pairs[] = {{0, NAN}, {1, INFINITY}};

    (void)state;
    assert_answer(model, pairs, 2,
                  "[{\"confidence\":null,\"label\":\"a\"},{\"confidence\":null,\"label\":\"b\"}]");
    sac_model_unref(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_answer_looks_as_gpu_rest_engines),
        cmocka_unit_test(what_is_no_number_is_null),
    };
    return cmocka_run_group_tests_name("answer", tests, NULL, NULL);
}
