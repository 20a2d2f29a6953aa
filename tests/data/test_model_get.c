/* Model directories from a server that breaks and lies (fetch_server.py). The model
 * is made up; whether its files are a model is the check's to say. */
#include "data/model_get.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "fetch_rig.h"
#include "support/support.h"

struct watch {
    int begun, checked;
    bool refuse;
    int64_t stop_at; /* 0: never */
};

static void begins(void *context, const char *file, const char *from)
{
    struct watch *watch = context;

    assert_non_null(file);
    assert_non_null(from);
    watch->begun++;
}

static int check(void *context, const char *folder, struct sac_error *err)
{
    struct watch *watch = context;

    watch->checked++;
    assert_true(sac_file_is_folder(folder));
    return watch->refuse ? sac_fail(err, SAC_EFORMAT, "it is no model") : 0;
}

static bool progress(void *context, int64_t have, int64_t total)
{
    const struct watch *watch = context;

    (void)total;
    return watch->stop_at == 0 || have < watch->stop_at;
}

/* Gets "squeezenet", with weights from the server's `path`, as the folder `out`. */
static int get(const char *out, const char *path, struct watch *watch, const char *mean,
               struct sac_model_get_result *ret, struct sac_error *err)
{
    struct sac_known_model model = {.name = "squeezenet",
                                    .title = "Somebody's net",
                                    .weights = SERVED_SIZE / 4,
                                    .file = "net.caffemodel",
                                    .page = "https://somewhere",
                                    .sha1 = SERVED_SHA1,
                                    .sum_from = "nobody",
                                    .license = "none"};
    struct sac_model_get_options options = {
        .fetch = impatient(), .begins = begins, .check = check, .context = watch};
    char *url = strdup(server_url(path)), *mean_url = mean ? strdup(server_url(mean)) : NULL;

    model.url = url;
    model.mean_url = mean_url;
    options.fetch.progress = progress;
    options.fetch.context = watch;
    options.labels = sac_test_write("some_labels", "cat\n", 4);
    options.out = strdup(path_in_tmp(out));
    *err = (struct sac_error){0};
    int rc = sac_model_get(&model, &options, ret, err);
    free((char *)options.out);
    free(url);
    free(mean_url);
    return rc;
}

static void assert_holds(const char *path, const char *part)
{
    uint8_t *bytes = NULL;
    size_t size;
    struct sac_error err = {0};

    assert_ok(sac_file_read(path_in_tmp(path), 1 << 20, &bytes, &size, &err), err);
    if (!strstr((char *)bytes, part))
        fail_msg("%s does not have \"%s\" in it", path, part);
    free(bytes);
}

static void assert_nothing(const char *out)
{
    char part[200];

    snprintf(part, sizeof part, "%s.part", out);
    assert_int_equal(files_in_tmp(out), -1);
    assert_int_equal(files_in_tmp(part), -1);
}

static void a_model_directory_has_its_files_and_says_where_they_are_from(void **state)
{
    struct watch watch = {0};
    struct sac_model_get_result result = {0};
    struct sac_error err;

    (void)state;
    assert_ok(get("whole", "/breaks", &watch, "/whole", &result, &err), err);
    assert_int_equal(watch.begun, 2); /* the mean, the weights */
    assert_int_equal(watch.checked, 1);
    assert_int_equal(result.bytes, SERVED_SIZE);
    assert_int_equal(result.resumes, 3);
    assert_string_equal(result.sha256, SERVED_SHA256);
    assert_int_equal(files_in_tmp("whole"), 6);
    assert_int_equal(files_in_tmp("whole.part"), -1);
    assert_holds("whole/labels.txt", "cat");
    assert_holds("whole/deploy.prototxt", "\"fire2/squeeze1x1\"");
    assert_holds("whole/model.json", "\"squeezenet\"");
    assert_holds("whole/SOURCE.txt", SERVED_SHA256);
    assert_holds("whole/SOURCE.txt", "https://somewhere");
}

static void a_folder_that_is_there_is_not_touched(void **state)
{
    struct watch watch = {0};
    struct sac_error err;

    (void)state;
    mkdir(path_in_tmp("there"), 0777);
    assert_int_equal(get("there", "/whole", &watch, NULL, NULL, &err), SAC_EINVAL);
    assert_says(err, "is there already");
    assert_int_equal(files_in_tmp("there"), 0);
    assert_int_equal(watch.begun, 0);
}

static void what_is_refused_leaves_nothing(void **state)
{
    struct watch honest = {0}, strict = {.refuse = true};
    struct sac_error err;

    (void)state;
    assert_int_equal(get("sum", "/wrong", &honest, NULL, NULL, &err), SAC_EFORMAT);
    assert_says(err, "SHA-1");
    assert_nothing("sum");
    assert_int_equal(honest.checked, 0);
    assert_int_equal(get("model", "/whole", &strict, NULL, NULL, &err), SAC_EFORMAT);
    assert_says(err, "it is no model");
    assert_nothing("model");
    assert_int_equal(get("gone", "/none", &honest, NULL, NULL, &err), SAC_ENOENT);
    assert_nothing("gone");
    assert_int_equal(get("large", "/endless", &honest, NULL, NULL, &err), SAC_ELIMIT);
    assert_nothing("large");
}

static void what_is_stopped_goes_on_in_the_next_run(void **state)
{
    struct watch hasty = {.stop_at = 20000}, patient = {0};
    struct sac_model_get_result result = {0};
    struct sac_error err;

    (void)state;
    assert_int_equal(get("later", "/breaks-once", &hasty, NULL, NULL, &err), SAC_ECANCELED);
    assert_int_equal(files_in_tmp("later"), -1);
    assert_true(files_in_tmp("later.part") > 0);
    assert_ok(get("later", "/breaks-once", &patient, NULL, &result, &err), err);
    assert_int_equal(result.resumes, 1);
    assert_int_equal(files_in_tmp("later"), 5);
    assert_int_equal(files_in_tmp("later.part"), -1);
}

/* As `list` shows them, and as models/ has them. */
static void every_known_model_has_a_definition(void **state)
{
    int count = 0;

    (void)state;
    for (const struct sac_known_model *model = sac_known_models; model->name; model++, count++) {
        const struct sac_model_definition *own = sac_model_definition_of(model->name);
        assert_non_null(own);
        assert_non_null(strstr(own->deploy, "type: \"Softmax\""));
        assert_true(model->sha1 || model->sha256);
        assert_true(model->page && model->license && model->sum_from && model->weights > 0);
        assert_ptr_equal(sac_known_model_find(model->name), model);
    }
    assert_int_equal(count, 10);
    assert_null(sac_known_model_find("nonsense"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_model_directory_has_its_files_and_says_where_they_are_from),
        cmocka_unit_test(a_folder_that_is_there_is_not_touched),
        cmocka_unit_test(what_is_refused_leaves_nothing),
        cmocka_unit_test(what_is_stopped_goes_on_in_the_next_run),
        cmocka_unit_test(every_known_model_has_a_definition),
    };

    return cmocka_run_group_tests_name("data/model_get", tests, server_start, server_stop);
}
