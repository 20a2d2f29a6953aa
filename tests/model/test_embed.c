/* As another program would use it: the public header and the shared library. */
#include "support/support.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "model/squeezenet.h"
#include "saccade/saccade.h"

/* OpenCV 4.6's DNN module gives .2742 for the tabby. */
static void a_program_that_embeds_it_gets_the_labels(void **state)
{
    struct sac_session_options options = {
        .model = sac_test_squeezenet("{\"preprocess\":{\"mean\":[104,117,123]}}")};
    struct sac_prediction best[5];
    struct sac_session *session;
    struct sac_error err = {0};
    uint8_t *bytes;
    size_t size;

    (void)state;
    assert_ok(sac_file_read(sac_test_data("images/cat.jpg"), 64 << 20, &bytes, &size, &err), err);
    assert_ok(sac_session_open(&session, &options, &err), err);
    assert_int_equal(sac_session_classify(session, bytes, size, best, 5, &err), 5);
    assert_string_equal(best[0].label, "n02123045 tabby, tabby cat");
    assert_float_equal(best[0].confidence, .2742, .02);
    sac_session_close(session);
    free(bytes);
}

static void what_cannot_be_opened_is_said(void **state)
{
    struct sac_session_options options = {.model = "/nowhere"};
    struct sac_session *session = NULL;
    struct sac_error err = {0};

    (void)state;
    assert_int_equal(sac_session_open(&session, &options, &err), SAC_ENOENT);
    assert_string_equal(err.text, "/nowhere: no such folder; a model directory was expected");
    assert_null(session);
    sac_session_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_program_that_embeds_it_gets_the_labels),
        cmocka_unit_test(what_cannot_be_opened_is_said),
    };
    return cmocka_run_group_tests_name("embed", tests, NULL, NULL);
}
