/*
 * SqueezeNet v1.1 over HTTP: what the engine says of a picture, the service
 * says. The probabilities of cat.jpg are OpenCV DNN's (straight bilinear to 227,
 * means 104, 117, 123), each to be met within 0.02.
 */
#include "support/support.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "model/answer.h"
#include "model/squeezenet.h"
#include "serve/client.h"
#include "serve/server.h"

struct fixture {
    struct sac_model *model;
    struct sac_device *device;
    struct sac_service *service;
    pthread_t thread;
    int port;
    uint8_t *cat;
    size_t cat_size;
};

static void *run(void *user)
{
    struct sac_error err = {0};

    assert_ok(sac_service_run(user, &err), err);
    return NULL;
}

static void start(struct fixture *f)
{
    struct sac_error err = {0};
    const char *dir = sac_test_squeezenet(
        "{\"preprocess\":{\"mean\":[104,117,123]},\"timeout_ms\":600000}"); /* none is late */
    struct sac_model_files files = {.dir = dir};
    struct sac_model_overrides overrides = SAC_MODEL_OVERRIDES_NONE;

    assert_ok(sac_file_read(sac_test_data("images/cat.jpg"), 1 << 24, &f->cat, &f->cat_size, &err),
              err);
    assert_ok(sac_model_open(&f->model, &files, &overrides, &err), err);
    assert_ok(sac_device_open(&f->device, "cpu", &err), err);
    struct sac_service_options options = {
        .models = &f->model, .model_count = 1, .devices = &f->device, .device_count = 1};
    assert_ok(sac_service_new(&f->service, &options, &err), err);
    f->port = sac_service_port(f->service);
    assert_int_equal(pthread_create(&f->thread, NULL, run, f->service), 0);
}

static void stop(struct fixture *f)
{
    sac_service_stop(f->service);
    pthread_join(f->thread, NULL);
    sac_service_free(f->service);
    sac_model_unref(f->model);
    sac_device_close(f->device);
    free(f->cat);
}

static void classify_alone(struct fixture *f, struct sac_buf *out)
{
    struct sac_engine *engine;
    struct sac_classifier *classifier;
    struct sac_error err = {0};

    assert_ok(sac_engine_new(&engine, f->model, f->device, 1, 0, &err), err);
    assert_ok(sac_classifier_new(&classifier, engine, &err), err);
    assert_ok(sac_classifier_decode(classifier, 0, f->cat, f->cat_size, NULL, &err), err);
    assert_ok(sac_classifier_run(classifier, 1, &err), err);
    sac_answer_put_json(out, f->model, sac_classifier_result(classifier, 0), 5);
    sac_classifier_free(classifier);
    sac_engine_free(engine);
}

static void check_probabilities(const char *body)
{
    static const struct {
        const char *label;
        double probability;
    } known[] = {{"n02123045 tabby, tabby cat", .2742},
                 {"n02123159 tiger cat", .2663},
                 {"n02119789 kit fox, Vulpes macrotis", .1789},
                 {"n02124075 Egyptian cat", .0831},
                 {"n02085620 Chihuahua", .0777}};

    for (int i = 0; i < 5; i++) {
        const char *label = strstr(body, known[i].label);
        assert_non_null(label);
        while (label > body && *label != '{')
            label--;
        double got = strtod(label + strlen("{\"confidence\":"), NULL);
        assert_true(got > known[i].probability - .02 && got < known[i].probability + .02);
    }
}

static struct answer post_form(struct fixture *f)
{
    static const char head[] = "--xx\r\nContent-Disposition: form-data; name=\"image\"; "
                               "filename=\"cat.jpg\"\r\nContent-Type: image/jpeg\r\n\r\n";
    static const char tail[] = "\r\n--xx--\r\n";
    size_t size = sizeof head - 1 + f->cat_size + sizeof tail - 1;
    char *body = malloc(size);

    assert_non_null(body);
    memcpy(body, head, sizeof head - 1);
    memcpy(body + sizeof head - 1, f->cat, f->cat_size);
    memcpy(body + size - (sizeof tail - 1), tail, sizeof tail - 1);
    struct answer answer =
        client_ask(f->port, "POST", "/api/classify",
                   "Content-Type: multipart/form-data; boundary=xx\r\n", body, size);
    free(body);
    return answer;
}

enum { ASKERS = 8, TIMES = 12 };

struct asker {
    pthread_t thread;
    struct fixture *f;
    const char *want;
    int different;
};

static void *ask(void *user)
{
    struct asker *me = user;

    for (int i = 0; i < TIMES; i++) {
        struct answer answer =
            client_ask(me->f->port, "POST", "/api/classify", NULL, me->f->cat, me->f->cat_size);
        me->different += strcmp(answer.body, me->want) != 0;
        client_answer_done(&answer);
    }
    return NULL;
}

static void check_under_load(struct fixture *f, const char *want)
{
    struct asker askers[ASKERS];
    int different = 0;

    for (int i = 0; i < ASKERS; i++) {
        askers[i] = (struct asker){.f = f, .want = want};
        assert_int_equal(pthread_create(&askers[i].thread, NULL, ask, &askers[i]), 0);
    }
    for (int i = 0; i < ASKERS; i++) {
        pthread_join(askers[i].thread, NULL);
        different += askers[i].different;
    }
    assert_int_equal(different, 0);
}

static void a_picture_gets_one_answer_raw_in_a_form_and_under_load(void **state)
{
    (void)state;
    struct fixture f = {0};
    struct sac_buf alone = {0};

    start(&f);
    classify_alone(&f, &alone);
    sac_buf_put(&alone, "", 1);
    struct answer raw = client_ask(f.port, "POST", "/api/classify", NULL, f.cat, f.cat_size);
    assert_int_equal(raw.status, 200);
    assert_string_equal(raw.body, (char *)alone.data);
    check_probabilities(raw.body);
    struct answer form = post_form(&f);
    assert_int_equal(form.status, 200);
    assert_string_equal(form.body, raw.body);
    check_under_load(&f, raw.body);
    client_answer_done(&raw);
    client_answer_done(&form);
    sac_buf_done(&alone);
    stop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_picture_gets_one_answer_raw_in_a_form_and_under_load),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
