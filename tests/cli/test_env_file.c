#include "support/support.h"

#include <stdlib.h>
#include <string.h>

#include "cli/env_file.h"

static const char deploy[] = "caffe/models/bvlc_reference_caffenet/deploy.prototxt";
static const char weights[] =
    "caffe/models/bvlc_reference_caffenet/bvlc_reference_caffenet.caffemodel";
static const char mean[] = "caffe/data/ilsvrc12/imagenet_mean.binaryproto";
static const char labels[] = "caffe/data/ilsvrc12/synset_words.txt";

static void assert_all_four(const struct sac_env *env)
{
    assert_string_equal(env->deploy, deploy);
    assert_string_equal(env->weights, weights);
    assert_string_equal(env->mean, mean);
    assert_string_equal(env->labels, labels);
}

/* What `. file; env` prints of it with dash 0.5.12. */
static void the_amis_file_reads_as_in_a_shell(void **state)
{
    struct sac_error err = {0};
    struct sac_env env;

    (void)state;
    assert_ok(sac_env_load(&env, sac_test_data("ami/gpurestengine.default"), &err), err);
    assert_all_four(&env);
    sac_env_done(&env);
}

/* systemd.exec(5), EnvironmentFile=: a backslash at a line's end goes on with the
 * next line, and quotes count only at a value's start; so CAFFE_MODEL gets all. */
static void what_systemd_makes_of_it_is_taken_apart(void **state)
{
    static const char folded[] =
        "caffe/models/bvlc_reference_caffenet/bvlc_reference_caffenet.caffemodel"
        "MEAN=\"caffe/data/ilsvrc12/imagenet_mean.binaryproto\" "
        "SYNSET_WORDS=\"caffe/data/ilsvrc12/synset_words.txt\"";
    struct sac_error err = {0};
    struct sac_env env;

    (void)state;
    setenv("DEPLOY_PROTEXT", deploy, 1);
    setenv("CAFFE_MODEL", folded, 1);
    unsetenv("MEAN");
    unsetenv("SYNSET_WORDS");
    assert_ok(sac_env_from_environment(&env, &err), err);
    assert_all_four(&env);
    sac_env_done(&env);
}

static void plain_values_in_the_environment_are_kept(void **state)
{
    struct sac_error err = {0};
    struct sac_env env = {0};

    (void)state;
    assert_ok(sac_env_unfold(&env, "MEAN", "/a b/MEAN=x.binaryproto", &err), err);
    assert_string_equal(env.mean, "/a b/MEAN=x.binaryproto");
    sac_env_done(&env);
}

/* POSIX.1-2017, 2.2 Quoting and 2.9.1 Simple Commands. */
static void quotes_escapes_comments_and_export_count(void **state)
{
    struct sac_error err = {0};
    struct sac_env env;

    (void)state;
    assert_ok(sac_env_parse(&env, "f",
                            "# MEAN=no\nexport DEPLOY_PROTEXT='a b'\"c\\\"d\" CAFFE_MODEL=e\\ f; "
                            "MEAN=\"g\\\nh\" # end\nOTHER=1\nSYNSET_WORDS=#i\nSYNSET_WORDS=\n",
                            &err),
              err);
    assert_string_equal(env.deploy, "a bc\"d");
    assert_string_equal(env.weights, "e f");
    assert_string_equal(env.mean, "gh");
    assert_string_equal(env.labels, "");
    sac_env_done(&env);
}

static void assert_refused(const char *text, const char *sentence)
{
    struct sac_error err = {0};
    struct sac_env env = {0};

    assert_int_equal(sac_env_parse(&env, "f", text, &err), SAC_EFORMAT);
    assert_string_equal(err.text, sentence);
    assert_null(env.deploy);
}

static void what_a_shell_would_do_differently_is_refused_by_line(void **state)
{
    (void)state;
    assert_refused("MEAN=a\n\nDEPLOY_PROTEXT=\"b\n", "f: line 3: a quote that is opened here is "
                                                     "not closed");
    assert_refused("MEAN=\"b\\", "f: line 1: a quote that is opened here is not closed");
    assert_refused("A=1\\\n2\nMEAN=$HOME/m\n", "f: line 3: $ and ` are not expanded here: write "
                                               "the value out");
    assert_refused("serve it\n", "f: line 1: expected NAME=value");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_amis_file_reads_as_in_a_shell),
        cmocka_unit_test(what_systemd_makes_of_it_is_taken_apart),
        cmocka_unit_test(plain_values_in_the_environment_are_kept),
        cmocka_unit_test(quotes_escapes_comments_and_export_count),
        cmocka_unit_test(what_a_shell_would_do_differently_is_refused_by_line),
    };
    return cmocka_run_group_tests_name("env_file", tests, NULL, NULL);
}
