/*
 * The routes through a real socket, on an engine that does as it is told. With the
 * word "gpus" as its argument, on devices with memory of their own: the same holds.
 */
#include "support/support.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "serve/client.h"
#include "serve/fake_engine.h"
#include "serve/server.h"

static const char *const first_labels[] = {
    "n02123045 tabby, tabby cat", "dog \"rex\"", "<img onerror=alert(1)>", "fox", "owl", "bee",
};
static const char *const second_labels[] = {"yes", "no"};

static bool on_gpus;

struct fixture {
    struct sac_model *models[2];
    struct sac_device *devices[FAKE_GPUS];
    int device_count;
    struct sac_service *service;
    pthread_t thread;
    int port;
};

static void *run(void *user)
{
    struct sac_error err = {0};

    assert_ok(sac_service_run(user, &err), err);
    return NULL;
}

static int start_with(void **state, int workers, int queue_max, int drain_ms)
{
    struct fixture *f = calloc(1, sizeof *f);
    struct sac_error err = {0};

    atomic_store(&fake_run_us, 0);
    atomic_store(&fake_failures, 0);
    atomic_store(&fake_teams, 0);
    atomic_store(&fake_team_runs, 0);
    f->models[0] = fake_model_new("first", first_labels, 6);
    f->models[1] = fake_model_new("second", second_labels, 2);
    f->device_count = on_gpus ? workers : 1; /* as many lanes */
    for (int d = 0; d < f->device_count; d++) {
        f->devices[d] = on_gpus ? &fake_gpus[d] : &fake_device;
        fake_gpu_set(d, FAKE_LOST, 0);
        fake_gpu_slow(d, 0);
    }
    struct sac_service_options options = {.models = f->models,
                                          .model_count = 2,
                                          .devices = f->devices,
                                          .device_count = f->device_count,
                                          .workers = workers,
                                          .queue_max = queue_max,
                                          .drain_ms = drain_ms};
    assert_ok(sac_service_new(&f->service, &options, &err), err);
    f->port = sac_service_port(f->service);
    assert_int_equal(pthread_create(&f->thread, NULL, run, f->service), 0);
    *state = f;
    return 0;
}

static int start(void **state, int workers, int queue_max)
{
    return start_with(state, workers, queue_max, 0);
}

static int setup(void **state)
{
    return start(state, 2, 0);
}

static int setup_one_lane(void **state)
{
    return start(state, 1, 4);
}

static int setup_impatient(void **state)
{
    return start_with(state, 1, 4, 1);
}

static int setup_differing_team(void **state)
{
    atomic_store(&fake_team_differs, true);
    return start(state, 2, 0);
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    if (f->service) {
        sac_service_stop(f->service);
        pthread_join(f->thread, NULL);
        sac_service_free(f->service);
    }
    atomic_store(&fake_team_differs, false);
    fake_model_free(f->models[0]);
    fake_model_free(f->models[1]);
    free(f);
    return 0;
}

static struct answer post(struct fixture *f, const char *path, const char *headers,
                          const char *body)
{
    return client_ask(f->port, "POST", path, headers, body, strlen(body));
}

static struct answer get(struct fixture *f, const char *path)
{
    return client_ask(f->port, "GET", path, NULL, NULL, 0);
}

static void expect(struct answer answer, int status, const char *part)
{
    if (answer.status != status || !strstr(answer.body, part))
        fail_msg("%d %s: expected %d and \"%s\"", answer.status, answer.body, status, part);
    client_answer_done(&answer);
}

static void expect_body(struct answer answer, const char *body)
{
    assert_int_equal(answer.status, 200);
    assert_string_equal(answer.body, body);
    client_answer_done(&answer);
}

#define FIVE                                                                                       \
    "[{\"confidence\":0.5000,\"label\":\"n02123045 tabby, tabby cat\"},"                           \
    "{\"confidence\":0.2500,\"label\":\"dog \\\"rex\\\"\"},"                                       \
    "{\"confidence\":0.1250,\"label\":\"\\u003cimg onerror=alert(1)\\u003e\"},"                    \
    "{\"confidence\":0.0625,\"label\":\"fox\"},{\"confidence\":0.0312,\"label\":\"owl\"}]"

static void a_raw_picture_is_answered_as_gpu_rest_engine_does(void **state)
{
    struct fixture *f = *state;
    struct answer answer = post(f, "/api/classify", NULL, "picture 0");

    assert_non_null(strcasestr(answer.head, "Content-Type: application/json"));
    assert_non_null(strstr(answer.head, "Server-Timing: receive;dur="));
    assert_non_null(strstr(answer.head, ", decode;dur="));
    assert_non_null(strstr(answer.head, ", queue;dur="));
    assert_non_null(strstr(answer.head, ", compute;dur="));
    expect_body(answer, FIVE);
    /* Whatever a client says that it is, as curl -d does. */
    expect_body(post(f, "/api/classify", "Content-Type: application/x-www-form-urlencoded\r\n",
                     "picture 0"),
                FIVE);
}

static void topk_says_how_many_labels(void **state)
{
    struct fixture *f = *state;

    expect_body(post(f, "/api/classify?topk=1", NULL, "picture 3"),
                "[{\"confidence\":0.5000,\"label\":\"fox\"}]");
    expect(post(f, "/api/classify?topk=6", NULL, "picture 0"), 200, "bee");
    expect(post(f, "/api/classify?topk=7", NULL, "picture 0"), 400, "1 to 6");
    expect(post(f, "/api/classify?topk=0", NULL, "picture 0"), 400, "1 to 6");
    expect(post(f, "/api/classify?topk=", NULL, "picture 0"), 400, "1 to 6");
    expect(post(f, "/api/classify?topk=1e0", NULL, "picture 0"), 400, "1 to 6");
    expect(post(f, "/api/classify?topk=-1", NULL, "picture 0"), 400, "1 to 6");
}

static void what_is_not_a_picture_gets_a_sentence(void **state)
{
    struct fixture *f = *state;

    expect(post(f, "/api/classify", NULL, ""), 400, "body is empty");
    expect(post(f, "/api/classify", NULL, "#!/bin/sh"), 415, "neither JPEG nor PNG");
    expect(post(f, "/api/classify", NULL, "damaged"), 400, "damaged");
    expect(post(f, "/api/classify", NULL, "huge"), 413, "too large");
}

static void a_model_is_chosen_by_name(void **state)
{
    struct fixture *f = *state;
    static const char both[] =
        "[{\"confidence\":0.5000,\"label\":\"no\"},{\"confidence\":0.2500,\"label\":\"yes\"}]";

    expect_body(post(f, "/api/classify?model=second", NULL, "picture 1"), both);
    expect_body(post(f, "/api/models/second/classify", NULL, "picture 1"), both);
    expect(post(f, "/api/classify?model=third", NULL, "picture 1"), 404, "first, second");
    expect(post(f, "/api/models/third/classify", NULL, "picture 1"), 404,
           "no model is called \\\"third\\\"; there is: first, second");
    expect(post(f, "/api/models/second", NULL, "picture 1"), 404, "NAME/classify");
}

#define FORM "Content-Type: multipart/form-data; boundary=xx\r\n"
#define PART(file, bytes)                                                                          \
    "--xx\r\nContent-Disposition: form-data; name=\"f\"; filename=\"" file "\"\r\n\r\n" bytes "\r" \
    "\n"

static void one_picture_in_a_form_gets_the_raw_answer(void **state)
{
    struct fixture *f = *state;

    expect_body(post(f, "/api/classify", FORM, PART("a.jpg", "picture 0") "--xx--\r\n"), FIVE);
}

static void several_pictures_in_a_form_get_an_answer_or_an_error_each(void **state)
{
    struct fixture *f = *state;

    expect_body(post(f, "/api/classify?topk=1", FORM,
                     PART("a.jpg", "picture 3") PART("b.txt", "text") PART("", "")
                         PART("c.png", "picture 4") PART("d.png", "") "--xx--\r\n"),
                "[{\"file\":\"a.jpg\",\"predictions\":[{\"confidence\":0.5000,\"label\":\"fox\"}]},"
                "{\"file\":\"b.txt\",\"error\":\"neither JPEG nor PNG\"},"
                "{\"file\":\"c.png\",\"predictions\":[{\"confidence\":0.5000,\"label\":\"owl\"}]},"
                "{\"file\":\"d.png\",\"error\":\"no bytes\"}]");
}

static void a_form_with_too_many_pictures_or_none_is_refused(void **state)
{
    struct fixture *f = *state;
    char body[65 * 128] = "";

    for (int i = 0; i < 65; i++)
        strcat(body, PART("a", "picture 0"));
    strcat(body, "--xx--\r\n");
    expect(post(f, "/api/classify", FORM, body), 413, "more than 64");
    expect(post(f, "/api/classify", FORM,
                "--xx\r\nContent-Disposition: form-data; name=\"q\"\r\n\r\n1\r\n--xx--\r\n"),
           400, "no file");
    /* What a browser sends where no file was chosen. */
    expect(post(f, "/api/classify", FORM, PART("", "") "--xx--\r\n"), 400, "no file");
    expect(post(f, "/api/classify", FORM, PART("a", "") "--xx--\r\n"), 400, "no bytes");
    expect(post(f, "/api/classify", "Content-Type: multipart/form-data\r\n", "x"), 400, "boundary");
}

static void singa_gets_lines(void **state)
{
    struct fixture *f = *state;
    static const char body[] =
        "--xx\r\nContent-Disposition: form-data; name=\"image\"; filename=\"x.jpg\"\r\n\r\n"
        "picture 2\r\n--xx--\r\n";
    struct answer answer = post(f, "/api", FORM, body);

    assert_non_null(strcasestr(answer.head, "Content-Type: text/html"));
    expect_body(answer, "&lt;img onerror=alert(1)&gt;:0.5000<br/>\nfox:0.2500<br/>\n"
                        "owl:0.1250<br/>\nbee:0.0625<br/>\n"
                        "n02123045 tabby, tabby cat:0.0312<br/>\n");
    expect(post(f, "/api", NULL, "picture 2"), 415, "field `image`");
}

static void a_timeout_is_a_number_of_milliseconds(void **state)
{
    struct fixture *f = *state;

    expect(post(f, "/api/classify", "X-Timeout-Ms: 0\r\n", "picture 0"), 400, "1 to 600000");
    expect(post(f, "/api/classify", "X-Timeout-Ms: 600001\r\n", "picture 0"), 400, "1 to 600000");
    expect(post(f, "/api/classify", "X-Timeout-Ms: soon\r\n", "picture 0"), 400, "1 to 600000");
    expect(post(f, "/api/classify", "X-Timeout-Ms: 600000\r\n", "picture 0"), 200, "tabby");
}

static void pages_of_other_origins_are_refused(void **state)
{
    struct fixture *f = *state;

    expect(post(f, "/api/classify", "Origin: http://evil.example\r\n", "picture 0"), 403, "origin");
    expect(post(f, "/api/classify", "Origin: null\r\n", "picture 0"), 403, "origin");
    expect(post(f, "/api/classify?model=third", "Origin: http://evil.example\r\n", "x"), 403,
           "origin");
    expect(post(f, "/api", "Origin: http://localhost.evil.example\r\n" FORM, "x"), 403, "origin");
    expect(post(f, "/api/classify", "Origin: http://localhost\r\n", "picture 0"), 200, "tabby");
}

static void the_service_says_how_it_is(void **state)
{
    struct fixture *f = *state;

    expect_body(get(f, "/api/null"), "{}");
    expect(get(f, "/healthz"), 200, "ok");
    expect(get(f, "/readyz"), 200, "ready");
    expect(get(f, "/api/models"), 200,
           "{\"models\":[{\"name\":\"first\",\"default\":true,\"classes\":6,"
           "\"input\":{\"channels\":3,\"height\":4,\"width\":4},\"topk\":5,\"topk_max\":6,"
           "\"timeout_ms\":5000,\"batch_max\":8,\"priority\":0,\"devices\":[{\"device\":\"");
    expect(get(f, "/api/nothing"), 404, "error");
    expect(get(f, "/api/classify"), 405, "error");
}

static void the_page_may_load_from_its_own_server_only(void **state)
{
    struct fixture *f = *state;
    static const char *const paths[] = {"/", "/app.js", "/app.css"};

    for (int i = 0; i < 3; i++) {
        struct answer answer = get(f, paths[i]);
        assert_int_equal(answer.status, 200);
        assert_non_null(strstr(answer.head, "Content-Security-Policy: default-src 'none'"));
        assert_null(strstr(answer.head, "unsafe"));
        assert_true(answer.size > 500);
        client_answer_done(&answer);
    }
    struct answer icon = get(f, "/favicon.ico");
    assert_int_equal(icon.status, 204);
    client_answer_done(&icon);
}

static double metric(struct fixture *f, const char *line)
{
    struct answer answer = get(f, "/metrics");
    const char *at = answer.body;
    double value = -1;

    while ((at = strstr(at, line)) && at > answer.body && at[-1] != '\n')
        at++;
    if (at)
        value = strtod(at + strlen(line), NULL);
    else
        fail_msg("no metric %s", line);
    client_answer_done(&answer);
    return value;
}

static void metrics_count_what_happened(void **state)
{
    struct fixture *f = *state;
    static const char first[] = "{model=\"first\",version=\"1\"";
    char line[128];

    for (int i = 0; i < 3; i++)
        expect(post(f, "/api/classify", NULL, "picture 1"), 200, "rex");
    expect(post(f, "/api/classify", NULL, "damaged"), 400, "damaged");
#define METRIC(name, rest) (snprintf(line, sizeof line, name "%s" rest, first), metric(f, line))
    assert_true(METRIC("nv_inference_request_success", "}") == 3);
    assert_true(METRIC("nv_inference_count", "}") == 3);
    assert_true(METRIC("nv_inference_exec_count", "}") == 3);
    assert_true(METRIC("nv_inference_pending_request_count", "}") == 0);
    assert_true(METRIC("nv_inference_request_failure", ",reason=\"OTHER\"}") == 1);
    assert_true(METRIC("nv_inference_request_failure", ",reason=\"REJECTED\"}") == 0);
    assert_true(METRIC("saccade_batch_size_bucket", ",le=\"1\"}") == 3);
    assert_true(METRIC("saccade_queue_seconds_bucket", ",le=\"+Inf\"}") == 3);
    assert_true(METRIC("saccade_compute_seconds_count", "}") == 3);
    assert_true(METRIC("nv_inference_request_duration_us", "}") > 0);
#undef METRIC
    assert_true(metric(f, "saccade_lanes_up") == 2);
    assert_true(metric(f, "saccade_http_responses_total{class=\"4xx\"}") == 1);
}

struct asker {
    pthread_t thread;
    struct fixture *f;
    int class, bad;
};

static void *ask_many(void *user)
{
    struct asker *me = user;
    int fd = client_connect(me->f->port);
    char body[16], want[64];

    snprintf(body, sizeof body, "picture %d", me->class);
    snprintf(want, sizeof want, "[{\"confidence\":0.5000,\"label\":\"%s\"}]",
             first_labels[me->class]);
    for (int i = 0; i < 40; i++) {
        client_send(fd, "POST", "/api/classify?topk=1", NULL, body, strlen(body));
        struct answer answer = client_receive(fd);
        me->bad += answer.status != 200 || strcmp(answer.body, want) != 0;
        client_answer_done(&answer);
    }
    close(fd);
    return NULL;
}

static void each_gets_its_own_answer_whatever_batches_form(void **state)
{
    struct fixture *f = *state;
    static const int classes[] = {0, 3, 4, 5};
    struct asker askers[16];

    atomic_store(&fake_run_us, 300);
    for (int i = 0; i < 16; i++) {
        askers[i] = (struct asker){.f = f, .class = classes[i % 4]};
        pthread_create(&askers[i].thread, NULL, ask_many, &askers[i]);
    }
    for (int i = 0; i < 16; i++) {
        pthread_join(askers[i].thread, NULL);
        assert_int_equal(askers[i].bad, 0);
    }
    assert_true(metric(f, "nv_inference_count{model=\"first\",version=\"1\"}") == 640);
    assert_true(metric(f, "nv_inference_exec_count{model=\"first\",version=\"1\"}") <= 640);
}

static void a_full_queue_refuses_at_once_and_says_when_to_come_back(void **state)
{
    struct fixture *f = *state;
    int fds[6];

    for (int i = 0; i < 5; i++) { /* one runs, four wait */
        fds[i] = client_connect(f->port);
        client_send(fds[i], "POST", "/api/classify", NULL, "slow 300 picture 0", 18);
        usleep(20000);
    }
    uint64_t from = sac_clock_ns();
    struct answer answer = post(f, "/api/classify", NULL, "picture 0");
    assert_true(sac_clock_ns() - from < 200000000);
    assert_non_null(strstr(answer.head, "Retry-After: "));
    expect(answer, 503, "queue is full");
    for (int i = 0; i < 5; i++) {
        expect(client_receive(fds[i]), 200, "tabby");
        close(fds[i]);
    }
}

static void a_deadline_that_passes_in_the_queue_is_a_503(void **state)
{
    struct fixture *f = *state;
    int first = client_connect(f->port);

    client_send(first, "POST", "/api/classify", NULL, "slow 200 picture 0", 18);
    usleep(30000);
    struct answer answer = post(f, "/api/classify", "X-Timeout-Ms: 50\r\n", "picture 0");
    assert_non_null(strstr(answer.head, "Retry-After: 1"));
    expect(answer, 503, "deadline");
    expect(client_receive(first), 200, "tabby");
    close(first);
}

static void wait_until(struct fixture *f, const char *line, double value)
{
    for (int i = 0; i < 300 && metric(f, line) != value; i++)
        usleep(20000);
    assert_true(metric(f, line) == value);
}

static void a_client_that_leaves_costs_nothing_more(void **state)
{
    struct fixture *f = *state;
    int running = client_connect(f->port), waiting = client_connect(f->port);
    int before = atomic_load(&fake_decoded);

    client_send(running, "POST", "/api/classify", NULL, "slow 20000 picture 0", 20);
    for (int i = 0; i < 500 && atomic_load(&fake_decoded) == before; i++)
        usleep(10000);
    client_send(waiting, "POST", "/api/classify", NULL, "picture 0", 9);
    wait_until(f, "nv_inference_pending_request_count{model=\"first\",version=\"1\"}", 2);
    uint64_t from = sac_clock_ns();
    close(waiting);
    close(running); /* noticed while it is decoded */
    wait_until(f, "nv_inference_pending_request_count{model=\"first\",version=\"1\"}", 0);
    assert_true(sac_clock_ns() - from < 5000000000);
    assert_int_equal(atomic_load(&fake_decoded), before + 1);
    assert_true(
        metric(f,
               "nv_inference_request_failure{model=\"first\",version=\"1\",reason=\"CANCELED\"}") ==
        2);
    assert_true(metric(f, "saccade_http_requests_in_flight") <= 1); /* /metrics itself */
}

static void a_thousand_clients_that_leave_leave_nothing_behind(void **state)
{
    struct fixture *f = *state;

    atomic_store(&fake_run_us, 200);
    for (int i = 0; i < 1000; i++) {
        int fd = client_connect(f->port);
        client_send(fd, "POST", "/api/classify", NULL, "slow 2 picture 0", i % 3 ? 16 : 5);
        if (i % 2)
            usleep(500);
        if (i % 5 == 0)
            shutdown(fd, SHUT_WR);
        close(fd);
    }
    wait_until(f, "nv_inference_pending_request_count{model=\"first\",version=\"1\"}", 0);
    wait_until(f, "saccade_http_connections_open", 1);
    wait_until(f, "saccade_running_pictures", 0);
}

static void a_failing_device_loses_no_request(void **state)
{
    struct fixture *f = *state;

    atomic_store(&fake_failures, 1);
    expect(post(f, "/api/classify", NULL, "picture 0"), 200, "tabby");
    assert_int_equal(atomic_load(&fake_failures), 0);
    wait_until(f, "saccade_lanes_up", 2);
}

static void without_a_device_the_service_is_not_ready_until_one_works(void **state)
{
    struct fixture *f = *state;

    atomic_store(&fake_failures, 1);
    struct answer answer = post(f, "/api/classify", NULL, "picture 0");
    assert_non_null(strstr(answer.head, "Retry-After: "));
    expect(answer, 503, "no device");
    expect(get(f, "/readyz"), 503, "no device");
    expect(get(f, "/healthz"), 200, "ok");
    wait_until(f, "saccade_lanes_up", 1);
    expect(get(f, "/readyz"), 200, "ready");
    expect(post(f, "/api/classify", NULL, "picture 0"), 200, "tabby");
}

static void stopping_answers_what_was_accepted(void **state)
{
    struct fixture *f = *state;
    int fd = client_connect(f->port), early = client_connect(f->port);

    client_send(early, "GET", "/healthz", NULL, NULL, 0);
    struct answer answer = client_receive(early);
    client_answer_done(&answer);
    client_send(fd, "POST", "/api/classify", NULL, "slow 200 picture 0", 18);
    usleep(50000);
    sac_service_stop(f->service);
    expect(client_receive(fd), 200, "tabby");
    close(fd);
    close(early);
    pthread_join(f->thread, NULL);
    sac_service_free(f->service);
    f->service = NULL;
}

/* What runs then ends behind the loop, what waits is given up; both are let go. */
static void stopping_does_not_wait_beyond_the_drain(void **state)
{
    struct fixture *f = *state;
    int fds[3];

    for (int i = 0; i < 3; i++) {
        fds[i] = client_connect(f->port);
        client_send(fds[i], "POST", "/api/classify", NULL, "slow 1000 picture 0", 19);
    }
    usleep(50000);
    sac_service_stop(f->service);
    pthread_join(f->thread, NULL);
    sac_service_free(f->service);
    f->service = NULL;
    for (int i = 0; i < 3; i++) {
        char byte;
        assert_true(recv(fds[i], &byte, 1, 0) <= 0); /* no answer in time */
        close(fds[i]);
    }
}

static void two_models_of_one_name_are_refused(void **state)
{
    struct fixture *f = *state;
    struct sac_model *models[2] = {f->models[0], f->models[0]};
    struct sac_service_options options = {
        .models = models, .model_count = 2, .devices = f->devices, .device_count = f->device_count};
    struct sac_service *service;
    struct sac_error err = {0};

    assert_int_equal(sac_service_new(&service, &options, &err), SAC_EINVAL);
    assert_says(err, "two models are called \"first\"");
}

static void a_device_that_fails_at_the_start_is_told(void **state)
{
    struct fixture *f = *state;
    struct sac_service_options options = {.models = f->models,
                                          .model_count = 2,
                                          .devices = f->devices,
                                          .device_count = f->device_count,
                                          .workers = 3};
    struct sac_service *service;
    struct sac_error err = {0};

    atomic_store(&fake_failures, 1);
    assert_int_equal(sac_service_new(&service, &options, &err), SAC_EDEVICE);
    assert_says(err, "told to fail");
}

/* ---- Devices with memory of their own only --------------------------------- */

static void a_slow_decode_holds_no_other_picture_up(void **state)
{
    struct fixture *f = *state;
    int slow = client_connect(f->port);
    char byte;

    client_send(slow, "POST", "/api/classify", "X-Timeout-Ms: 60000\r\n", "slow 1000 picture 3",
                19);
    usleep(30000);
    for (int i = 0; i < 10; i++) /* its worker is not theirs, and it has no slot in a batch */
        expect(post(f, "/api/classify?topk=1", NULL, "picture 4"), 200, "owl");
    assert_int_equal(recv(slow, &byte, 1, MSG_PEEK | MSG_DONTWAIT), -1);
    expect(client_receive(slow), 200, "fox");
    close(slow);
}

/* Eight clients at once, so that no device is idle, however fast it was found to be. */
static void eight_ask(struct fixture *f)
{
    struct asker askers[8];

    for (int i = 0; i < 8; i++) {
        askers[i] = (struct asker){.f = f, .class = 3 + i % 3};
        pthread_create(&askers[i].thread, NULL, ask_many, &askers[i]);
    }
    for (int i = 0; i < 8; i++) {
        pthread_join(askers[i].thread, NULL);
        assert_int_equal(askers[i].bad, 0);
    }
}

static void whichever_batch_takes_a_device_down_no_request_is_lost(void **state)
{
    struct fixture *f = *state;

    atomic_store(&fake_run_us, 300);
    for (int turn = 0; turn < 5; turn++) {
        static const int batches[] = {1, 2, 3, 5, 8};
        fake_gpu_set(turn % 2, FAKE_LOST, batches[turn]);
        eight_ask(f);
        wait_until(f, "saccade_lanes_up", 2);
        assert_true(metric(f, "saccade_device_recoveries_total{device=\"fake:0\"}") +
                        metric(f, "saccade_device_recoveries_total{device=\"fake:1\"}") ==
                    turn + 1);
    }
    assert_true(metric(f, "saccade_lost_total") == 0);
}

static void a_device_that_is_gone_is_tried_again_and_the_other_serves(void **state)
{
    struct fixture *f = *state;

    fake_gpu_set(1, FAKE_GONE, -1);
    for (int i = 0; i < 20 && metric(f, "saccade_lanes_up") == 2; i++)
        eight_ask(f);
    usleep(1000000); /* a few attempts */
    assert_true(metric(f, "saccade_device_lanes_up{device=\"fake:1\"}") == 0);
    expect(get(f, "/readyz"), 200, "ready");
    expect(post(f, "/api/classify?topk=1", NULL, "picture 4"), 200, "owl");
    fake_gpu_set(1, FAKE_LOST, 0);
    wait_until(f, "saccade_device_lanes_up{device=\"fake:1\"}", 1);
}

static void what_gpus_cannot_meet_is_refused_before_it_is_decoded(void **state)
{
    struct fixture *f = *state;

    fake_gpu_slow(0, 100000);
    expect(post(f, "/api/classify", NULL, "picture 0"), 200, "tabby"); /* learns that it is slow */
    int running = client_connect(f->port);
    client_send(running, "POST", "/api/classify", NULL, "picture 0", 9);
    usleep(30000);
    int before = atomic_load(&fake_decoded);
    expect(post(f, "/api/classify", "X-Timeout-Ms: 20\r\n", "picture 0"), 503, "deadline");
    assert_int_equal(atomic_load(&fake_decoded), before);
    expect(client_receive(running), 200, "tabby");
    close(running);
}

static void devices_of_both_kinds_are_refused(void **state)
{
    struct fixture *f = *state;
    struct sac_device *devices[2] = {&fake_device, &fake_gpus[0]};
    struct sac_service_options options = {
        .models = f->models, .model_count = 2, .devices = devices, .device_count = 2};
    struct sac_service *service;
    struct sac_error err = {0};

    assert_int_equal(sac_service_new(&service, &options, &err), SAC_EUNSUPPORTED);
    assert_says(err, "devices cpu and fake:0 cannot serve together");
}

static void gauges_are_shown_where_they_are_known(void **state)
{
    struct fixture *f = *state;

    static const char line[] = "saccade_gpu_temperature_celsius{device=\"fake:1\"} 41\n";
    bool shown = false;

    for (int i = 0; i < 300 && !shown; i++) { /* none is, until a thread has looked */
        struct answer seen = get(f, "/metrics");
        shown = strstr(seen.body, line) != NULL;
        client_answer_done(&seen);
        if (!shown)
            usleep(20000);
    }
    assert_true(shown);
    assert_true(metric(f, "nv_gpu_utilization{device=\"fake:0\"}") == 0.25);
    struct answer answer = get(f, "/metrics");
    assert_null(strstr(answer.body, "nv_gpu_power_usage")); /* these know none */
    client_answer_done(&answer);
}

enum { GPUS_ONLY = 5 };

/* The team of the first lane is made when the service runs already, a model at a time. */
static void wait_for_teams(int count)
{
    for (int i = 0; i < 5000 && atomic_load(&fake_teams) < count; i++)
        usleep(1000);
    assert_int_equal(atomic_load(&fake_teams), count);
}

static void all_cores_join_on_a_picture_that_comes_alone(void **state)
{
    struct fixture *f = *state;

    if (on_gpus)
        skip();
    wait_for_teams(2);
    for (int i = 0; i < 200 && atomic_load(&fake_team_runs) == 0; i++) {
        expect(post(f, "/api/classify", NULL, "picture 3"), 200, "fox");
        usleep(5000);
    }
    assert_true(atomic_load(&fake_team_runs) > 0);
    expect(get(f, "/metrics"), 200, "\nsaccade_together_total ");
    expect(post(f, "/api/classify", NULL, "picture 4"), 200, "owl");
}

static void a_net_whose_answers_change_by_joining_is_never_joined_on(void **state)
{
    struct fixture *f = *state;

    if (on_gpus)
        skip();
    wait_for_teams(2);
    for (int i = 0; i < 5; i++) {
        expect(post(f, "/api/classify", NULL, "picture 3"), 200, "fox");
        usleep(5000);
    }
    assert_int_equal(atomic_load(&fake_team_runs), 0);
    wait_until(f, "saccade_together_total", 0);
}

int main(int argc, char **argv)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define ONE_LANE(name) cmocka_unit_test_setup_teardown(name, setup_one_lane, teardown)
    const struct CMUnitTest tests[] = {
        CASE(a_raw_picture_is_answered_as_gpu_rest_engine_does),
        CASE(topk_says_how_many_labels),
        CASE(what_is_not_a_picture_gets_a_sentence),
        CASE(a_model_is_chosen_by_name),
        CASE(one_picture_in_a_form_gets_the_raw_answer),
        CASE(several_pictures_in_a_form_get_an_answer_or_an_error_each),
        CASE(a_form_with_too_many_pictures_or_none_is_refused),
        CASE(singa_gets_lines),
        CASE(a_timeout_is_a_number_of_milliseconds),
        CASE(pages_of_other_origins_are_refused),
        CASE(the_service_says_how_it_is),
        CASE(the_page_may_load_from_its_own_server_only),
        CASE(metrics_count_what_happened),
        CASE(each_gets_its_own_answer_whatever_batches_form),
        ONE_LANE(a_full_queue_refuses_at_once_and_says_when_to_come_back),
        ONE_LANE(a_deadline_that_passes_in_the_queue_is_a_503),
        ONE_LANE(a_client_that_leaves_costs_nothing_more),
        CASE(a_thousand_clients_that_leave_leave_nothing_behind),
        CASE(a_failing_device_loses_no_request),
        ONE_LANE(without_a_device_the_service_is_not_ready_until_one_works),
        CASE(stopping_answers_what_was_accepted),
        cmocka_unit_test_setup_teardown(stopping_does_not_wait_beyond_the_drain, setup_impatient,
                                        teardown),
        CASE(a_device_that_fails_at_the_start_is_told),
        CASE(two_models_of_one_name_are_refused),
        CASE(devices_of_both_kinds_are_refused),
        CASE(all_cores_join_on_a_picture_that_comes_alone), /* skipped on GPUs */
        cmocka_unit_test_setup_teardown(a_net_whose_answers_change_by_joining_is_never_joined_on,
                                        setup_differing_team, teardown),
        CASE(a_slow_decode_holds_no_other_picture_up), /* from here on GPUs' only */
        CASE(whichever_batch_takes_a_device_down_no_request_is_lost),
        CASE(a_device_that_is_gone_is_tried_again_and_the_other_serves),
        ONE_LANE(what_gpus_cannot_meet_is_refused_before_it_is_decoded),
        CASE(gauges_are_shown_where_they_are_known),
    };

    on_gpus = argc > 1 && strcmp(argv[1], "gpus") == 0;

    return _cmocka_run_group_tests(
        "service", tests, sizeof tests / sizeof *tests - (on_gpus ? 0 : GPUS_ONLY), NULL, NULL);
}
