/* The report: self-contained, escaped, and telling what it was given. */
#include "support/support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/report.h"

enum { CLASSES = 3 };

static char rose[] = "rose", tulip[] = "<b>tulip</b>", daisy[] = "daisy & co", file[] = "c/a&b.jpg";
static char *name_text[CLASSES] = {rose, tulip, daisy};
static const struct sac_class_names names = {name_text, CLASSES};

static struct sac_evaluation *evaluate(void)
{
    /* Four pictures: three right, one daisy taken for a tulip. */
    static const float values[] = {.9F, .05F, .05F, .1F, .8F, .1F, .1F, .6F, .3F, .2F, .2F, .6F};
    static const float labels[] = {0, 1, 2, 2};
    const struct sac_scores scores = {.values = values,
                                      .labels = labels,
                                      .outer = 4,
                                      .inner = 1,
                                      .classes = CLASSES,
                                      .probabilities = true};
    struct sac_evaluation *out = NULL;
    struct sac_error err = {0};

    assert_ok(sac_evaluation_new(&out, CLASSES, &err), err);
    assert_ok(sac_evaluation_add(out, &scores, &err), err);
    return out;
}

static struct sac_report report_of(struct sac_evaluation *evaluation)
{
    static const struct sac_report_point points[] = {
        {10, .1, 2.0, NAN, NAN}, {20, .05, 1.0, 1.2, .5}, {30, 0, .5, .9, .75}};
    /* RFC 4648's own example: "foob" is Zm9vYg== */
    static uint8_t jpeg[] = "foob";
    static const struct sac_report_picture worst[] = {{file, 2, 1, .6, jpeg, 4}};

    return (struct sac_report){.title = "Flowers <17>",
                               .summary = "A summary.",
                               .points = points,
                               .point_count = 3,
                               .best_iteration = 30,
                               .test = evaluation,
                               .names = &names,
                               .worst = worst,
                               .worst_count = 1,
                               .train_items = 30,
                               .validation_items = 4,
                               .test_items = 4};
}

static char *html_of(const struct sac_report *report)
{
    struct sac_buf out = {0};

    sac_report_html(&out, report);
    sac_buf_put(&out, "", 1);
    assert_false(out.failed);
    return (char *)out.data;
}

static void the_page_needs_nothing_else_and_runs_nothing(void **state)
{
    struct sac_evaluation *evaluation = evaluate();
    struct sac_report report = report_of(evaluation);
    char *html = html_of(&report);

    (void)state;
    assert_null(strstr(html, "http:"));
    assert_null(strstr(html, "https:"));
    assert_null(strstr(html, "<script"));
    assert_null(strstr(html, "<b>tulip"));
    assert_non_null(strstr(html, "&lt;b&gt;tulip&lt;/b&gt;"));
    assert_non_null(strstr(html, "Flowers &lt;17&gt;"));
    assert_non_null(strstr(html, "c/a&amp;b.jpg"));
    free(html);
    sac_evaluation_free(evaluation);
}

static void the_page_tells_accuracy_confusion_and_the_worst(void **state)
{
    struct sac_evaluation *evaluation = evaluate();
    struct sac_report report = report_of(evaluation);
    char *html = html_of(&report);

    (void)state;
    assert_non_null(strstr(html, "75.00&nbsp;%")); /* 3 of 4 */
    assert_non_null(strstr(html, "daisy &amp; co taken for &lt;b&gt;tulip&lt;/b&gt;: 1 of 2"));
    assert_non_null(strstr(html, "base64,Zm9vYg=="));
    assert_null(strstr(html, "nan"));
    assert_null(strstr(html, "inf\""));
    free(html);
    sac_evaluation_free(evaluation);
}

static int count_of(const char *text, const char *part)
{
    int count = 0;

    while ((text = strstr(text, part))) {
        count++;
        text += strlen(part);
    }
    return count;
}

static void the_confusion_has_names_on_both_axes_and_numbers_at_any_size(void **state)
{
    enum { MANY = 60 };
    static float values[MANY * MANY], labels[MANY];
    struct sac_evaluation *evaluation = NULL;
    struct sac_error err = {0};

    (void)state;
    for (int i = 0; i < MANY; i++) { /* each picture is right, but class 7's: taken for 8 */
        labels[i] = (float)i;
        values[i * MANY + (i == 7 ? 8 : i)] = 1;
    }
    const struct sac_scores scores = {.values = values,
                                      .labels = labels,
                                      .outer = MANY - 1, /* none of the last class */
                                      .inner = 1,
                                      .classes = MANY,
                                      .probabilities = true};
    assert_ok(sac_evaluation_new(&evaluation, MANY, &err), err);
    assert_ok(sac_evaluation_add(evaluation, &scores, &err), err);
    struct sac_report report = report_of(evaluation);
    report.worst_count = 0;
    char *html = html_of(&report);
    assert_int_equal(count_of(html, "class=\"row\""), MANY);
    assert_int_equal(count_of(html, "class=\"column\""), MANY);
    assert_int_equal(count_of(html, "</rect>\n<text "), MANY - 1);
    assert_non_null(strstr(html, "class 7 taken for class 8: 1 of 1"));
    assert_non_null(strstr(html, "No picture to judge by: class 59."));
    free(html);
    sac_evaluation_free(evaluation);
}

static void what_was_not_tested_is_called_validation(void **state)
{
    struct sac_evaluation *evaluation = evaluate();
    struct sac_report report = report_of(evaluation);

    (void)state;
    report.on_validation = true;
    char *html = html_of(&report);
    json_t *json = sac_report_json(&report);
    assert_null(strstr(html, "right on the test pictures"));
    assert_non_null(strstr(html, "right on the validation pictures"));
    assert_string_equal(json_string_value(json_object_get(json, "tested_on")), "validation");
    json_decref(json);
    free(html);
    sac_evaluation_free(evaluation);
}

static void programs_read_the_same(void **state)
{
    struct sac_evaluation *evaluation = evaluate();
    struct sac_report report = report_of(evaluation);
    json_t *json = sac_report_json(&report);

    (void)state;
    assert_non_null(json);
    json_t *curve = json_object_get(json, "curve");
    assert_int_equal(json_array_size(curve), 3);
    assert_true(json_is_null(json_object_get(json_array_get(curve, 0), "accuracy")));
    assert_float_equal(json_real_value(json_object_get(json_array_get(curve, 2), "accuracy")), .75,
                       0);
    assert_string_equal(json_string_value(json_object_get(
                            json_array_get(json_object_get(json, "worst"), 0), "label")),
                        "daisy & co");
    json_decref(json);
    sac_evaluation_free(evaluation);
}

static void a_training_without_a_point_still_has_a_page(void **state)
{
    struct sac_evaluation *evaluation = evaluate();
    struct sac_report report = report_of(evaluation);

    (void)state;
    report.point_count = 0;
    report.worst_count = 0;
    report.best_iteration = -1;
    char *html = html_of(&report);
    assert_non_null(strstr(html, "</html>"));
    free(html);
    sac_evaluation_free(evaluation);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_page_needs_nothing_else_and_runs_nothing),
        cmocka_unit_test(the_page_tells_accuracy_confusion_and_the_worst),
        cmocka_unit_test(the_confusion_has_names_on_both_axes_and_numbers_at_any_size),
        cmocka_unit_test(what_was_not_tested_is_called_validation),
        cmocka_unit_test(programs_read_the_same),
        cmocka_unit_test(a_training_without_a_point_still_has_a_page),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
