/* The counts of src/train/evaluate.h against numbers worked out by hand (in the
 * comments) and against sums by another route. */
#include "support/support.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "train/evaluate.h"

static const struct sac_class_names no_names;

/* Four items of three classes, as probabilities. */
static const float probs[] = {.7f, .2f, .1f, .1f, .6f, .3f, .3f, .3f, .4f, .5f, .25f, .25f};
static const float prob_labels[] = {0, 2, 2, 1};

static struct sac_scores four(void)
{
    return (struct sac_scores){.values = probs,
                               .labels = prob_labels,
                               .outer = 4,
                               .inner = 1,
                               .classes = 3,
                               .probabilities = true};
}

static struct sac_evaluation *evaluation_of(const struct sac_scores *scores)
{
    struct sac_evaluation *e = NULL;
    struct sac_error err = {0};

    assert_ok(sac_evaluation_new(&e, scores->classes, &err), err);
    assert_ok(sac_evaluation_add(e, scores, &err), err);
    return e;
}

static struct sac_evaluation_summary summary_of(const struct sac_scores *scores)
{
    struct sac_evaluation *e = evaluation_of(scores);
    struct sac_evaluation_summary s = sac_evaluation_summary(e);

    sac_evaluation_free(e);
    return s;
}

/* The first item's label is fifth; the second's would be, but for an equal one. */
static void accuracy_counts_ties_against(void **state)
{
    const float values[] = {9, 8, 7, 6, 5, 4, 9, 8, 7, 6, 5, 5}, labels[] = {4, 4};
    const float first[] = {7, 7, 1, 7.5f, 7, 1}, top[] = {1, 0};
    struct sac_scores scores = {
        .values = values, .labels = labels, .outer = 2, .inner = 1, .classes = 6};

    (void)state;
    assert_float_equal(summary_of(&scores).top1, 0, 0);
    assert_float_equal(summary_of(&scores).topk, .5, 0);
    scores =
        (struct sac_scores){.values = first, .labels = top, .outer = 2, .inner = 1, .classes = 3};
    assert_float_equal(summary_of(&scores).top1, .5, 0); /* 7.5 is alone, 7 is not */
}

static void accuracy_of_all_equal_scores_is_nothing(void **state)
{
    const float values[10] = {0}, label[] = {3};
    struct sac_scores scores = {
        .values = values, .labels = label, .outer = 1, .inner = 1, .classes = 10};

    (void)state;
    assert_float_equal(summary_of(&scores).top1, 0, 0);
    assert_float_equal(summary_of(&scores).topk, 0, 0);
    scores.classes = SAC_EVALUATION_TOP_K; /* the label is one of them in any order */
    assert_float_equal(summary_of(&scores).topk, 1, 0);
}

/* Scores (0, ln 3): the softmax is (1/4, 3/4). */
static void loss_is_the_softmax_and_the_logarithm(void **state)
{
    const float values[] = {0, logf(3), 0, logf(3)}, labels[] = {0, 1};
    struct sac_scores scores = {
        .values = values, .labels = labels, .outer = 2, .inner = 1, .classes = 2};
    float p[2];

    (void)state;
    assert_float_equal(summary_of(&scores).loss, (log(4) + log(4 / 3.)) / 2, 1e-7);
    sac_scores_softmax(&scores, 1, p);
    assert_float_equal(p[0], .25, 1e-7);
    assert_float_equal(p[1], .75, 1e-7);
}

/* e^−200 is below FLT_MIN; −log(FLT_MIN) = 126 ln 2 = 87.3365. */
static void loss_of_an_impossible_label_is_bounded(void **state)
{
    const float values[] = {0, 200, 0, 1e30f}, labels[] = {0, 0};
    struct sac_scores scores = {
        .values = values, .labels = labels, .outer = 2, .inner = 1, .classes = 2};

    (void)state;
    assert_float_equal(summary_of(&scores).loss, 126 * log(2), 1e-9);
}

/* −(ln .7 + ln .4) = 1.272966 over items 0 and 2; items 1 and 3 are ignored. */
static void ignored_labels_count_for_nothing(void **state)
{
    const float labels[] = {0, 255, 2, 255};
    struct sac_scores scores = four();
    double sum = -log((double).7f) - log((double).4f);

    (void)state;
    scores.labels = labels;
    scores.ignores = true;
    scores.ignore_label = 255;
    struct sac_evaluation_summary s = summary_of(&scores);
    assert_int_equal(s.items, 2);
    assert_int_equal(s.ignored, 2);
    assert_float_equal(s.top1, 1, 0);
    assert_float_equal(s.loss, sum / 2, 1e-12);
}

static void a_batch_that_is_all_ignored_gives_zeros(void **state)
{
    const float labels[] = {9, 9, 9, 9};
    struct sac_scores scores = four();

    (void)state;
    scores.labels = labels;
    scores.ignores = true;
    scores.ignore_label = 9;
    struct sac_evaluation_summary s = summary_of(&scores);
    assert_int_equal(s.items, 0);
    assert_float_equal(s.top1 + s.loss + s.ece + s.f1, 0, 0);
}

/* 1 × 2 classes × 3 places: class 0's three values, then class 1's. */
static void places_of_a_map_are_items(void **state)
{
    const float values[] = {5, 0, 1, 0, 5, 2}, labels[] = {0, 1, 0};
    struct sac_scores scores = {
        .values = values, .labels = labels, .outer = 1, .inner = 3, .classes = 2};
    double loss = (2 * log1p(exp(-5)) + log1p(exp(1))) / 3;

    (void)state;
    assert_float_equal(summary_of(&scores).top1, 2 / 3., 1e-15);
    assert_float_equal(summary_of(&scores).loss, loss, 1e-7);
    struct sac_evaluation *e = evaluation_of(&scores);
    assert_int_equal(sac_evaluation_confused(e, 0, 1), 1);
    assert_int_equal(sac_evaluation_confused(e, 0, 0), 1);
    assert_int_equal(sac_evaluation_confused(e, 1, 1), 1);
    sac_evaluation_free(e);
}

static void a_wrong_label_or_value_is_named(void **state)
{
    const float wrong[] = {0, 3, 2, 1}, half[] = {0, 2, 1.5f, 1}, below[] = {0, 2, 2, -1};
    const float *const labels[] = {wrong, half, below};
    struct sac_scores scores = four();
    float values[12];

    (void)state;
    for (int i = 0; i < 3; i++) {
        struct sac_error err = {0};
        int64_t item = -1;
        scores.labels = labels[i];
        assert_int_equal(sac_scores_check(&scores, &item, &err), SAC_EINVAL);
        assert_int_equal(item, i + 1);
        assert_says(err, "expected 0 to 2");
    }
    struct sac_error err = {0};
    int64_t item = -1;
    memcpy(values, probs, sizeof values);
    values[7] = NAN;
    scores = four();
    scores.values = values;
    assert_int_equal(sac_scores_check(&scores, &item, &err), SAC_EINVAL);
    assert_int_equal(item, 2);
    assert_says(err, "class 1 is nan");
}

static void scores_of_other_classes_are_refused(void **state)
{
    struct sac_evaluation *e = NULL;
    struct sac_scores scores = four();
    struct sac_error err = {0};

    (void)state;
    assert_ok(sac_evaluation_new(&e, 4, &err), err);
    assert_int_equal(sac_evaluation_add(e, &scores, &err), SAC_EINVAL);
    assert_says(err, "3 classes; expected 4");
    sac_evaluation_free(e);
}

/*
 * Predicted: 0, 1, 2, 0; labels 0, 2, 2, 1.
 *           items predicted correct  precision recall  F1
 * class 0       1         2       1        1/2      1  2/3
 * class 1       1         1       0          0      0    0
 * class 2       2         1       1          1    1/2  2/3
 */
static void classes_have_precision_recall_and_f1(void **state)
{
    struct sac_scores scores = four();
    struct sac_evaluation *e = evaluation_of(&scores);
    struct sac_class_result a = sac_evaluation_class(e, 0), b = sac_evaluation_class(e, 1),
                            c = sac_evaluation_class(e, 2);
    struct sac_evaluation_summary s = sac_evaluation_summary(e);

    (void)state;
    assert_int_equal(a.predicted, 2);
    assert_float_equal(a.precision, .5, 0);
    assert_float_equal(a.recall, 1, 0);
    assert_float_equal(a.f1, 2 / 3., 1e-15);
    assert_float_equal(b.precision + b.recall + b.f1, 0, 0);
    assert_float_equal(c.precision, 1, 0);
    assert_float_equal(c.recall, .5, 0);
    assert_int_equal(sac_evaluation_confused(e, 2, 1), 1);
    assert_int_equal(sac_evaluation_confused(e, 1, 0), 1);
    assert_int_equal(sac_evaluation_confused(e, 0, 1), 0);
    assert_float_equal(s.precision, .5, 1e-15);
    assert_float_equal(s.recall, .5, 1e-15);
    assert_float_equal(s.f1, 4 / 9., 1e-15);
    assert_float_equal(s.top1, .5, 0);
    assert_int_equal(s.top_k, 3);
    assert_float_equal(s.topk, 1, 0);
    sac_evaluation_free(e);
}

/* Confidences .7 right, .6 wrong, .4 right, .5 wrong. In 15 bins of 1/15 each: .7
 * is in (.667, .733], .6 in (.533, .6] (as float it is just above, so in the
 * next), .4 in (.333, .4] (likewise the next), .5 in (.467, .533]: each its own.
 * So the expected error is (.3 + .6 + .6 + .5)/4 = .5, the largest .6. */
static void calibration_is_the_distance_of_confidence_and_accuracy(void **state)
{
    struct sac_scores scores = four();
    struct sac_evaluation *e = evaluation_of(&scores);
    struct sac_evaluation_summary s = sac_evaluation_summary(e);
    int filled = 0;

    (void)state;
    for (int i = 0; i < SAC_EVALUATION_BINS; i++)
        filled += sac_evaluation_bin(e, i).items == 1;
    assert_int_equal(filled, 4);
    assert_float_equal(sac_evaluation_bin(e, 10).confidence, .7, 1e-7);
    assert_float_equal(sac_evaluation_bin(e, 10).accuracy, 1, 0);
    assert_float_equal(s.ece, .5, 1e-7);
    assert_float_equal(s.mce, .6, 1e-7);
    sac_evaluation_free(e);
}

/* A net that is always sure and always right, and one that is never right. */
static void certainty_is_in_the_last_bin(void **state)
{
    const float values[] = {1, 0, 0, 1}, right[] = {0, 1}, wrong[] = {1, 0};
    struct sac_scores scores = {.values = values,
                                .labels = right,
                                .outer = 2,
                                .inner = 1,
                                .classes = 2,
                                .probabilities = true};
    struct sac_evaluation *e = evaluation_of(&scores);

    (void)state;
    assert_float_equal(sac_evaluation_summary(e).ece, 0, 0);
    assert_int_equal(sac_evaluation_bin(e, SAC_EVALUATION_BINS - 1).items, 2);
    sac_evaluation_free(e);
    scores.labels = wrong;
    e = evaluation_of(&scores);
    assert_float_equal(sac_evaluation_summary(e).ece, 1, 0);
    sac_evaluation_free(e);
}

/* log Σ eˣ − the label's x, its mean; small numbers only. */
static double plain_loss(const struct sac_scores *scores)
{
    double loss = 0;

    for (int64_t i = 0; i < scores->outer; i++) {
        const float *values = scores->values + i * scores->classes;
        double sum = 0;
        for (int c = 0; c < scores->classes; c++)
            sum += exp((double)values[c]);
        loss += log(sum) - (double)values[(int)scores->labels[i]];
    }
    return loss / (double)scores->outer;
}

/* A batch whole, and in two parts: the same counts; and the losses of the parts, weighted by
 * items, are the whole's. */
static void batches_add_up(void **state)
{
    enum { ITEMS = 60, CLASSES = 7, FIRST = 24 };
    float values[ITEMS * CLASSES], labels[ITEMS];
    unsigned seed = 1;

    (void)state;
    for (int i = 0; i < ITEMS * CLASSES; i++)
        values[i] = (float)((seed = seed * 1103515245 + 12345) >> 16 & 1023) / 128;
    for (int i = 0; i < ITEMS; i++)
        labels[i] = (float)(i % CLASSES);
    struct sac_scores whole = {
        .values = values, .labels = labels, .outer = ITEMS, .inner = 1, .classes = CLASSES};
    struct sac_scores a = whole, b = whole;
    a.outer = FIRST;
    b.values += FIRST * CLASSES;
    b.labels += FIRST;
    b.outer = ITEMS - FIRST;
    struct sac_evaluation *one = evaluation_of(&whole), *two = evaluation_of(&a);
    struct sac_error err = {0};
    assert_ok(sac_evaluation_add(two, &b, &err), err);
    struct sac_evaluation_summary s = sac_evaluation_summary(one), t = sac_evaluation_summary(two);
    assert_memory_equal(&s, &t, sizeof s);
    struct sac_evaluation_summary first = summary_of(&a), rest = summary_of(&b);
    assert_float_equal(s.loss, plain_loss(&whole), 1e-12);
    assert_float_equal(s.loss, (FIRST * first.loss + (ITEMS - FIRST) * rest.loss) / ITEMS, 1e-12);
    assert_float_equal(s.top1, (FIRST * first.top1 + (ITEMS - FIRST) * rest.top1) / ITEMS, 1e-15);
    assert_float_equal(s.topk, (FIRST * first.topk + (ITEMS - FIRST) * rest.topk) / ITEMS, 1e-15);
    sac_evaluation_free(one);
    sac_evaluation_free(two);
}

static void text_and_json_say_the_same(void **state)
{
    char *text[] = {(char *)"cat", (char *)"dog \"x\""};
    const struct sac_class_names names = {text, 2};
    struct sac_scores scores = four();
    struct sac_evaluation *e = evaluation_of(&scores);
    struct sac_buf out = {0};

    (void)state;
    sac_evaluation_put_text(&out, e, &names);
    sac_buf_put(&out, "", 1);
    assert_false(out.failed);
    assert_non_null(strstr((char *)out.data, "4 items, 3 classes"));
    assert_non_null(strstr((char *)out.data, "top-1 0.5000, top-3 1.0000"));
    assert_non_null(strstr((char *)out.data, "   0.5000  1.0000  0.6667        1  cat\n"));
    assert_non_null(strstr((char *)out.data, "     1  dog \"x\" -> cat\n"));
    json_t *root = sac_evaluation_json(e, &names);
    assert_non_null(root);
    assert_int_equal(json_integer_value(json_object_get(root, "items")), 4);
    assert_float_equal(json_real_value(json_object_get(root, "top1")), .5, 0);
    json_t *classes = json_object_get(root, "classes"), *rows = json_object_get(root, "confusion");
    assert_string_equal(json_string_value(json_object_get(json_array_get(classes, 1), "name")),
                        "dog \"x\"");
    assert_string_equal(json_string_value(json_object_get(json_array_get(classes, 2), "name")),
                        "class 2");
    assert_int_equal(json_integer_value(json_array_get(json_array_get(rows, 2), 1)), 1);
    assert_int_equal(json_array_size(json_object_get(root, "most_confused")), 2);
    json_decref(root);
    sac_buf_done(&out);
    sac_evaluation_free(e);
}

/* 50 classes, class c taken for c + 1 exactly c times: the ten largest, in order. */
static void most_confused_pairs_come_first(void **state)
{
    enum { CLASSES = 50 };
    struct sac_evaluation *e = NULL;
    struct sac_error err = {0};

    (void)state;
    assert_ok(sac_evaluation_new(&e, CLASSES, &err), err);
    for (int c = 0; c + 1 < CLASSES; c++) {
        float values[CLASSES] = {0}, label = (float)c;
        struct sac_scores scores = {
            .values = values, .labels = &label, .outer = 1, .inner = 1, .classes = CLASSES};
        values[c + 1] = 1;
        for (int i = 0; i < c; i++)
            assert_ok(sac_evaluation_add(e, &scores, &err), err);
    }
    json_t *root = sac_evaluation_json(e, &no_names),
           *list = json_object_get(root, "most_confused");
    assert_int_equal(json_array_size(list), 10);
    for (int i = 0; i < 10; i++) {
        json_t *pair = json_array_get(list, (size_t)i);
        assert_int_equal(json_integer_value(json_object_get(pair, "class")), 48 - i);
        assert_int_equal(json_integer_value(json_object_get(pair, "predicted")), 49 - i);
        assert_int_equal(json_integer_value(json_object_get(pair, "items")), 48 - i);
    }
    json_decref(root);
    sac_evaluation_free(e);
}

static void many_classes_do_without_a_matrix(void **state)
{
    enum { CLASSES = SAC_EVALUATION_CONFUSION_MAX + 1 };
    float *values = calloc(CLASSES, sizeof *values), label = CLASSES - 1;
    struct sac_scores scores = {
        .values = values, .labels = &label, .outer = 1, .inner = 1, .classes = CLASSES};

    (void)state;
    assert_non_null(values);
    values[CLASSES - 1] = 1;
    struct sac_evaluation *e = evaluation_of(&scores);
    assert_int_equal(sac_evaluation_confused(e, 0, 0), -1);
    assert_float_equal(sac_evaluation_summary(e).top1, 1, 0);
    json_t *root = sac_evaluation_json(e, &no_names);
    assert_true(json_is_null(json_object_get(root, "confusion")));
    assert_int_equal(json_array_size(json_object_get(root, "classes")), CLASSES);
    json_decref(root);
    sac_evaluation_free(e);
    free(values);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accuracy_counts_ties_against),
        cmocka_unit_test(accuracy_of_all_equal_scores_is_nothing),
        cmocka_unit_test(loss_is_the_softmax_and_the_logarithm),
        cmocka_unit_test(loss_of_an_impossible_label_is_bounded),
        cmocka_unit_test(ignored_labels_count_for_nothing),
        cmocka_unit_test(a_batch_that_is_all_ignored_gives_zeros),
        cmocka_unit_test(places_of_a_map_are_items),
        cmocka_unit_test(a_wrong_label_or_value_is_named),
        cmocka_unit_test(scores_of_other_classes_are_refused),
        cmocka_unit_test(classes_have_precision_recall_and_f1),
        cmocka_unit_test(calibration_is_the_distance_of_confidence_and_accuracy),
        cmocka_unit_test(certainty_is_in_the_last_bin),
        cmocka_unit_test(batches_add_up),
        cmocka_unit_test(text_and_json_say_the_same),
        cmocka_unit_test(most_confused_pairs_come_first),
        cmocka_unit_test(many_classes_do_without_a_matrix),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
