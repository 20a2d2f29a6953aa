/*
 * The service on simulated GPUs, over HTTP: answers are the CPU's, whatever number
 * of devices, whatever is lost meanwhile.
 */
#include "support/support.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "cuda_sim/sim.h"
#include "model/answer.h"
#include "model/tiny.h"
#include "serve/client.h"
#include "serve/server.h"

enum { DEVICES = 8, PICTURES = 3, ASKERS = 8 };

static const char *const picture_names[PICTURES] = {"images/cat.jpg", "images/cat_gray.jpg",
                                                    "images/fish-bike.jpg"};
static uint8_t *pictures[PICTURES];
static size_t picture_sizes[PICTURES];
static char *expected[PICTURES];
static struct sac_model *models[2];

struct fixture {
    struct sac_device *devices[DEVICES];
    int device_count;
    struct sac_service *service;
    pthread_t thread;
    int port;
};

/* The reference: the CPU device, one picture at a time. */
static void expect_from_cpu(void)
{
    struct sac_error err = {0};
    struct sac_device *cpu;
    struct sac_engine *engine;
    struct sac_classifier *classifier;

    assert_ok(sac_device_open(&cpu, "cpu", &err), err);
    assert_ok(sac_engine_new(&engine, models[0], cpu, 1, 0, &err), err);
    assert_ok(sac_classifier_new(&classifier, engine, &err), err);
    for (int p = 0; p < PICTURES; p++) {
        struct sac_buf text = {0};
        assert_ok(sac_classifier_decode(classifier, 0, pictures[p], picture_sizes[p], NULL, &err),
                  err);
        assert_ok(sac_classifier_run(classifier, 1, &err), err);
        sac_answer_put_json(&text, models[0], sac_classifier_result(classifier, 0), 5);
        sac_buf_put(&text, "", 1);
        expected[p] = strdup((char *)text.data);
        sac_buf_done(&text);
    }
    sac_classifier_free(classifier);
    sac_engine_free(engine);
    sac_device_close(cpu);
}

static int open_models(void **state)
{
    struct sac_error err = {0};

    (void)state;
    setenv("XDG_CACHE_HOME", sac_test_tmpdir(), 1);
    for (int m = 0; m < 2; m++) {
        char name[16];
        snprintf(name, sizeof name, "tiny%d", m);
        struct sac_model_files files = {
            .dir = sac_test_tiny(name, (uint64_t)m + 1,
                                 m ? "{\"batch_max\":4,\"timeout_ms\":600000,\"priority\":7}"
                                   : "{\"batch_max\":4,\"timeout_ms\":600000}")};
        assert_ok(sac_model_open(&models[m], &files, NULL, &err), err);
    }
    for (int p = 0; p < PICTURES; p++)
        assert_ok(sac_file_read(sac_test_data(picture_names[p]), 1 << 24, &pictures[p],
                                &picture_sizes[p], &err),
                  err);
    expect_from_cpu();
    for (int p = 1; p < PICTURES; p++) /* or a mix-up would not show */
        assert_string_not_equal(expected[p], expected[p - 1]);
    return 0;
}

static int close_models(void **state)
{
    (void)state;
    for (int m = 0; m < 2; m++)
        sac_model_unref(models[m]);
    for (int p = 0; p < PICTURES; p++) {
        free(pictures[p]);
        free(expected[p]);
    }
    return 0;
}

static void *run(void *user)
{
    struct sac_error err = {0};

    assert_ok(sac_service_run(user, &err), err);
    return NULL;
}

static void start(struct fixture *f, int devices)
{
    struct sac_error err = {0};

    *f = (struct fixture){.device_count = devices};
    for (int d = 0; d < devices; d++) {
        char name[16];
        snprintf(name, sizeof name, "cuda:%d", d);
        assert_ok(sac_device_open(&f->devices[d], name, &err), err);
    }
    struct sac_service_options options = {.models = models,
                                          .model_count = 2,
                                          .devices = f->devices,
                                          .device_count = devices,
                                          .workers = 3,
                                          .queue_max = 512};
    assert_ok(sac_service_new(&f->service, &options, &err), err);
    f->port = sac_service_port(f->service);
    assert_int_equal(pthread_create(&f->thread, NULL, run, f->service), 0);
}

static void stop(struct fixture *f)
{
    struct sim_live none = {0};

    sac_service_stop(f->service);
    pthread_join(f->thread, NULL);
    sac_service_free(f->service);
    for (int d = 0; d < f->device_count; d++) {
        sim_device_restore(d);
        sac_device_close(f->devices[d]);
    }
    assert_true(sim_fault_set(NULL));
    struct sim_live live = sim_live();
    assert_memory_equal(&live, &none, sizeof live);
    assert_int_equal(sim_checks_failed(), 0);
}

/* ---- Asking --------------------------------------------------------------- */

struct asker {
    pthread_t thread;
    int port, first, times;
    const char *path;
    atomic_int *answered; /* of all askers */
    int wrong;
    char sample[512]; /* the first wrong answer */
};

static void ask_one(struct asker *me, int fd, int p)
{
    client_send(fd, "POST", me->path, NULL, pictures[p], picture_sizes[p]);
    struct answer answer = client_receive(fd);
    bool is_other = strstr(me->path, "tiny1") != NULL; /* the other model: answered, that is all */
    bool right =
        answer.status == 200 && (is_other || (answer.body && !strcmp(answer.body, expected[p])));

    if (!right && me->wrong++ == 0)
        snprintf(me->sample, sizeof me->sample, "%d %.300s", answer.status,
                 answer.body ? answer.body : "");
    client_answer_done(&answer);
    atomic_fetch_add(me->answered, 1);
}

static void *ask(void *user)
{
    struct asker *me = user;
    int fd = client_connect(me->port);

    for (int i = 0; i < me->times; i++)
        ask_one(me, fd, (me->first + i) % PICTURES);
    close(fd);
    return NULL;
}

/* Every answer must be right; `faults` are set when a third has been answered. */
static void load(struct fixture *f, int times, bool both_models, const char *faults)
{
    struct asker askers[ASKERS];
    atomic_int answered = 0;

    for (int i = 0; i < ASKERS; i++) {
        askers[i] = (struct asker){.port = f->port,
                                   .first = i,
                                   .times = times,
                                   .path = both_models && i % 2 ? "/api/models/tiny1/classify"
                                                                : "/api/classify",
                                   .answered = &answered};
        assert_int_equal(pthread_create(&askers[i].thread, NULL, ask, &askers[i]), 0);
    }
    while (faults && atomic_load(&answered) < ASKERS * times / 3)
        usleep(1000);
    if (faults)
        assert_true(sim_fault_set(faults));
    for (int i = 0; i < ASKERS; i++)
        pthread_join(askers[i].thread, NULL);
    for (int i = 0; i < ASKERS; i++)
        if (askers[i].wrong)
            fail_msg("%d wrong, such as %s", askers[i].wrong, askers[i].sample);
    assert_int_equal(atomic_load(&answered), ASKERS * times);
}

static double metric(struct fixture *f, const char *line)
{
    struct answer answer = client_ask(f->port, "GET", "/metrics", NULL, NULL, 0);
    const char *at = strstr(answer.body, line);
    double value = at ? strtod(at + strlen(line), NULL) : -1;

    client_answer_done(&answer);
    return value;
}

static void wait_for(struct fixture *f, const char *line, double value)
{
    for (int i = 0; i < 1500 && metric(f, line) != value; i++)
        usleep(20000);
    if (metric(f, line) != value)
        fail_msg("%s is %g, expected %g", line, metric(f, line), value);
}

static int status_of(struct fixture *f, const char *path)
{
    struct answer answer = client_ask(f->port, "GET", path, NULL, NULL, 0);
    int status = answer.status;

    client_answer_done(&answer);
    return status;
}

static void wait_until(struct fixture *f, const char *path, int status)
{
    for (int i = 0; i < 1500 && status_of(f, path) != status; i++)
        usleep(20000);
    assert_int_equal(status_of(f, path), status);
}

/* ---- The cases ------------------------------------------------------------ */

static void answers_are_the_cpus_on_one_and_on_eight_devices(void **state)
{
    (void)state;
    for (int devices = 1; devices <= DEVICES; devices += DEVICES - 1) {
        struct fixture f;
        start(&f, devices);
        load(&f, 12, true, NULL);
        assert_true(metric(&f, "\nsaccade_lanes ") == devices);
        assert_true(metric(&f, "\nsaccade_lost_total ") == 0);
        stop(&f);
    }
}

static void a_device_lost_under_load_loses_no_request_and_comes_back(void **state)
{
    struct fixture f;

    (void)state;
    start(&f, 3);
    for (int k = 0; k < 24; k += 6) { /* within a few batches' calls */
        char fault[32], line[64];
        double before = metric(&f, "\nsaccade_device_failures_total{device=\"cuda:1\"} ");
        snprintf(fault, sizeof fault, "lost:1:%d", k);
        load(&f, 8, false, fault);
        for (int more = 0; more < 50 && metric(&f, "\nsaccade_device_failures_total{device="
                                                   "\"cuda:1\"} ") == before;
             more++)
            load(&f, 2, false, NULL); /* the lost one gets work at last */
        snprintf(line, sizeof line, "\nsaccade_device_recoveries_total{device=\"cuda:1\"} ");
        wait_for(&f, line, before + 1);
        wait_for(&f, "\nsaccade_lanes_up ", 3);
        assert_true(sim_fault_set(NULL));
    }
    assert_true(metric(&f, "\nsaccade_lost_total ") == 0);
    assert_true(metric(&f, "\nsaccade_device_failures_total{device=\"cuda:0\"} ") == 0);
    stop(&f);
}

static void readiness_ends_with_the_last_device_and_returns_with_the_first(void **state)
{
    struct fixture f;
    struct answer answer;

    (void)state;
    start(&f, 2);
    assert_true(sim_fault_set("gone:0:0"));
    load(&f, 6, false, NULL);
    wait_for(&f, "\nsaccade_lanes_up ", 1);
    assert_int_equal(status_of(&f, "/readyz"), 200);
    assert_true(sim_fault_set("gone:0:0,gone:1:0"));
    answer = client_ask(f.port, "POST", "/api/classify", NULL, pictures[0], picture_sizes[0]);
    assert_int_equal(answer.status, 503);
    assert_non_null(strstr(answer.body, "no device"));
    client_answer_done(&answer);
    wait_for(&f, "\nsaccade_lanes_up ", 0);
    assert_int_equal(status_of(&f, "/readyz"), 503);
    assert_int_equal(status_of(&f, "/healthz"), 200);
    uint64_t from = sac_clock_ns();
    answer = client_ask(f.port, "POST", "/api/classify", NULL, pictures[0], picture_sizes[0]);
    assert_int_equal(answer.status, 503); /* at the door */
    assert_non_null(strstr(answer.head, "Retry-After: "));
    client_answer_done(&answer);
    assert_true(sac_clock_ns() - from < 2000000000);
    wait_until(&f, "/healthz", 503); /* a new process may do better */
    assert_true(sim_fault_set(NULL));
    sim_device_restore(1);
    wait_for(&f, "\nsaccade_lanes_up ", 2); /* a fault taken away lets a reset help */
    assert_int_equal(status_of(&f, "/readyz"), 200);
    assert_int_equal(status_of(&f, "/healthz"), 200);
    load(&f, 4, false, NULL);
    stop(&f);
}

/* 400 is cudaErrorInvalidResourceHandle, of which CUDA says nothing of the kind. */
static void a_device_is_made_new_that_fails_with_what_is_on_no_list(void **state)
{
    struct fixture f;

    (void)state;
    start(&f, 2);
    assert_true(sim_fault_set("code:1:400,lost:1:0"));
    for (int more = 0;
         more < 50 && metric(&f, "\nsaccade_device_failures_total{device=\"cuda:1\"} ") == 0;
         more++)
        load(&f, 2, false, NULL);
    assert_int_equal(f.devices[1]->table->health(f.devices[1], NULL), 0);
    wait_for(&f, "\nsaccade_lanes_up ", 2);
    load(&f, 4, true, NULL);
    stop(&f);
}

/* Six operations: a net's first run takes more than 1.2 s here, and its recording's too. */
static void a_short_deadline_is_met_from_the_first_request_on(void **state)
{
    struct fixture f;
    int status = 0;

    (void)state;
    assert_true(sim_fault_set("cold:0:200"));
    start(&f, 1);
    for (int i = 0; i < 50 && status != 200; i++) { /* one may be late on a busy machine */
        struct answer answer = client_ask(f.port, "POST", "/api/classify", "X-Timeout-Ms: 800\r\n",
                                          pictures[0], picture_sizes[0]);
        status = answer.status;
        client_answer_done(&answer);
    }
    assert_int_equal(status, 200);
    stop(&f);
}

static void memory_that_runs_out_in_recovery_is_tried_again(void **state)
{
    struct fixture f;

    (void)state;
    start(&f, 2);
    assert_true(sim_fault_set("lost:1:0,oom:1:2")); /* the third allocation of the way back */
    for (int more = 0;
         more < 50 && metric(&f, "\nsaccade_device_failures_total{device=\"cuda:1\"} ") == 0;
         more++)
        load(&f, 2, false, NULL);
    wait_for(&f, "\nsaccade_lanes_up ", 2);
    load(&f, 4, true, NULL);
    assert_true(metric(&f, "\nsaccade_lost_total ") == 0);
    stop(&f);
}

static void a_slow_device_does_less_and_loses_nothing(void **state)
{
    struct fixture f;

    (void)state;
    assert_true(sim_fault_set("slow:1:60"));
    start(&f, 2);
    unsigned long before[2] = {sim_device_operations(0), sim_device_operations(1)};
    load(&f, 24, false, NULL);
    unsigned long fast = sim_device_operations(0) - before[0];
    unsigned long slow = sim_device_operations(1) - before[1];
    print_message("# operations: %lu on the fast device, %lu on the slow one\n", fast, slow);
    assert_true(fast > slow);
    stop(&f);
}

static void a_model_that_does_not_fit_is_refused_with_the_numbers(void **state)
{
    struct sac_error err = {0};
    struct sac_device *device;
    struct sac_service *service = NULL;

    (void)state;
    assert_ok(sac_device_open(&device, "cuda:0", &err), err);
    struct sac_service_options options = {
        .models = models, .model_count = 2, .devices = &device, .device_count = 1};
    assert_true(sim_fault_set("oom:0:1"));
    assert_int_equal(sac_service_new(&service, &options, &err), SAC_ENOMEM);
    assert_null(service);
    assert_says(err, "bytes");
    assert_true(sim_fault_set(NULL));
    sac_device_close(device);
}

static void the_gauges_of_each_device_are_shown(void **state)
{
    struct fixture f;

    (void)state; /* what tests/cuda_sim/nvml.c says of card d */
    start(&f, 3);
    wait_for(&f, "\nsaccade_gpu_temperature_celsius{device=\"cuda:2\"} ", 42);
    assert_true(metric(&f, "\nnv_gpu_utilization{device=\"cuda:1\"} ") == 0.11);
    assert_true(metric(&f, "\nnv_gpu_power_usage{device=\"cuda:1\"} ") == 71.5);
    assert_true(metric(&f, "\nnv_gpu_memory_total_bytes{device=\"cuda:0\"} ") == 8589934592.0);
    assert_true(metric(&f, "\nnv_gpu_memory_used_bytes{device=\"cuda:2\"} ") == 3145728);
    stop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_the_cpus_on_one_and_on_eight_devices),
        cmocka_unit_test(a_device_lost_under_load_loses_no_request_and_comes_back),
        cmocka_unit_test(readiness_ends_with_the_last_device_and_returns_with_the_first),
        cmocka_unit_test(a_device_is_made_new_that_fails_with_what_is_on_no_list),
        cmocka_unit_test(a_short_deadline_is_met_from_the_first_request_on),
        cmocka_unit_test(memory_that_runs_out_in_recovery_is_tried_again),
        cmocka_unit_test(a_slow_device_does_less_and_loses_nothing),
        cmocka_unit_test(a_model_that_does_not_fit_is_refused_with_the_numbers),
        cmocka_unit_test(the_gauges_of_each_device_are_shown),
    };

    setenv("SACCADE_SIM_DEVICES", "8", 1);
    return cmocka_run_group_tests(tests, open_models, close_models);
}
