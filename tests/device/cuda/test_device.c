/* The CUDA device's table on simulated GPUs: memory, streams, errors, the cache. */
#include "support/support.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cuda_sim/sim.h"
#include "device/op_cases.h"
#include "net/rig.h"

static const char *cache;

static int use_fresh_cache(void **state)
{
    (void)state;
    cache = sac_test_tmpdir();
    setenv("XDG_CACHE_HOME", cache, 1);
    return 0;
}

static struct sac_device *open_device(const char *name)
{
    struct sac_error err = {0};
    struct sac_device *device = NULL;

    assert_ok(sac_device_open(&device, name, &err), err);
    return device;
}

static void devices_open_by_number_and_auto_takes_the_first(void **state)
{
    const char *const names[] = {"cuda", "cuda:0", "auto", "cuda:1"};
    int count = 0;
    struct sac_error err = {0};

    (void)state;
    assert_ok(sac_device_cuda_count(&count, &err), err);
    assert_int_equal(count, 2);
    for (int i = 0; i < 4; i++) {
        struct sac_device *device = open_device(names[i]);
        assert_string_equal(device->table->kind, "cuda");
        assert_string_equal(device->info.name, i < 3 ? "cuda:0" : "cuda:1");
        assert_false(device->info.host_memory);
        assert_true(device->info.memory_bytes > 0);
        assert_true(device->info.precisions & 1u << SAC_PRECISION_F16);
        assert_int_equal(device->table->health(device, &err), 0);
        sac_device_close(device);
    }
}

static void a_device_that_is_not_there_is_an_error(void **state)
{
    const char *const names[] = {"cuda:2", "cuda:", "cuda:x", "cuda:-1", "cuda:0,1"};

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct sac_error err = {0};
        struct sac_device *device = NULL;
        assert_true(sac_device_open(&device, names[i], &err) < 0);
        assert_null(device);
        assert_says(err, names[i]);
    }
}

static void several_devices_open_by_list(void **state)
{
    static const struct {
        const char *names;
        int count;
        const char *first, *last;
    } good[] = {{"cuda", 2, "cuda:0", "cuda:1"},
                {"auto", 2, "cuda:0", "cuda:1"},
                {"cuda:1,0", 2, "cuda:1", "cuda:0"},
                {"cuda:1", 1, "cuda:1", "cuda:1"},
                {"cpu", 1, "cpu", "cpu"}};
    static const char *const bad[] = {"cuda:0,0", "cuda:0,", "cuda:", "cuda:0,2", "cuda:,1", "gpu"};
    struct sac_device *devices[4];

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct sac_error err = {0};
        int count = 0;
        assert_ok(sac_devices_open(devices, 4, &count, good[i].names, &err), err);
        assert_int_equal(count, good[i].count);
        assert_string_equal(devices[0]->info.name, good[i].first);
        assert_string_equal(devices[count - 1]->info.name, good[i].last);
        while (count > 0)
            sac_device_close(devices[--count]);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct sac_error err = {0};
        int count = -1;
        assert_true(sac_devices_open(devices, 4, &count, bad[i], &err) < 0);
        assert_int_equal(count, -1);
        assert_true(err.text[0]);
    }
}

static void copies_go_there_and_back_in_the_stream_and_events_order_streams(void **state)
{
    struct sac_error err = {0};
    struct sac_device *device = open_device("cuda:0");
    const struct sac_device_table *table = device->table;
    struct sac_stream *one, *two;
    struct sac_event *event;
    void *memory, *other;
    void *staging = NULL;

    (void)state;
    sim_seed_set(7);
    assert_ok(table->stream_new(device, &one, &err), err);
    assert_ok(table->stream_new_at(device, -1, &two, &err), err);
    assert_ok(table->event_new(device, &event, &err), err);
    assert_ok(table->memory_new(device, SAC_MEMORY_DEVICE, 100, &memory, &err), err);
    assert_ok(table->memory_new(device, SAC_MEMORY_DEVICE, 0, &other, &err), err);
    assert_ok(table->memory_new(device, SAC_MEMORY_STAGING, 100, &staging, &err), err);
    assert_int_equal((uintptr_t)memory % 64, 0);
    strcpy(staging, "hello");
    assert_ok(table->copy(one, SAC_COPY_TO_DEVICE, memory, staging, 6, &err), err);
    assert_ok(table->copy(one, SAC_COPY_ON_DEVICE, other, memory, 6, &err), err);
    assert_ok(table->event_record(event, one, &err), err);
    assert_ok(table->stream_wait(two, event, &err), err);
    assert_ok(table->copy(two, SAC_COPY_TO_HOST, (char *)staging + 50, other, 6, &err), err);
    assert_ok(table->stream_sync(two, &err), err);
    assert_string_equal((char *)staging + 50, "hello");
    sim_seed_set(0);
    table->memory_free(device, SAC_MEMORY_DEVICE, memory);
    table->memory_free(device, SAC_MEMORY_DEVICE, other);
    table->memory_free(device, SAC_MEMORY_STAGING, staging);
    table->memory_free(device, SAC_MEMORY_DEVICE, NULL);
    table->event_free(event);
    table->event_free(NULL);
    table->stream_free(one);
    table->stream_free(two);
    table->stream_free(NULL);
    sac_device_close(device);
}

static void what_does_not_fit_is_refused_with_the_numbers(void **state)
{
    struct sac_error err = {0};
    struct sac_device *device = open_device("cuda:0");
    void *memory = NULL;

    (void)state;
    assert_int_equal(
        device->table->memory_new(device, SAC_MEMORY_DEVICE, (size_t)1 << 40, &memory, &err),
        SAC_ENOMEM);
    assert_null(memory);
    assert_says(err, "1048576.0 MiB are needed");
    assert_says(err, "free");
    assert_int_equal(device->table->health(device, NULL), 0);
    sac_device_close(device);
}

static void memory_that_runs_out_all_the_same_is_no_lost_device(void **state)
{
    struct sac_error err = {0};
    struct sac_device *device = open_device("cuda:0");
    void *memory = NULL;

    (void)state;
    assert_true(sim_fault_set("oom:0:0"));
    assert_int_equal(device->table->memory_new(device, SAC_MEMORY_DEVICE, 64, &memory, &err),
                     SAC_ENOMEM);
    assert_null(memory);
    assert_true(sim_fault_set(NULL));
    assert_int_equal(device->table->health(device, NULL), 0);
    assert_ok(device->table->memory_new(device, SAC_MEMORY_DEVICE, 64, &memory, &err), err);
    device->table->memory_free(device, SAC_MEMORY_DEVICE, memory);
    sac_device_close(device);
}

static void a_lost_device_says_to_what_and_the_others_live(void **state)
{
    struct sac_error err = {0}, first = {0}, later = {0};
    struct sac_device *lost = open_device("cuda:1"), *other = open_device("cuda:0");
    struct sac_stream *stream;
    void *memory = NULL;

    (void)state;
    assert_ok(lost->table->stream_new(lost, &stream, &err), err);
    assert_true(sim_fault_set("lost:1:0"));
    assert_int_equal(lost->table->stream_sync(stream, &first), SAC_EDEVICE);
    assert_says(first, "cuda:1");
    assert_says(first, "cudaErrorLaunchFailure");
    assert_int_equal(lost->table->health(lost, &later), SAC_EDEVICE);
    assert_says(later, "cuda:1 is lost: ");
    assert_true(lost->table->memory_new(lost, SAC_MEMORY_DEVICE, 64, &memory, NULL) < 0);
    assert_int_equal(other->table->health(other, NULL), 0);
    assert_ok(other->table->memory_new(other, SAC_MEMORY_DEVICE, 64, &memory, &err), err);
    other->table->memory_free(other, SAC_MEMORY_DEVICE, memory);
    assert_true(sim_fault_set(NULL));
    sim_device_restore(1);
    lost->table->stream_free(stream);
    sac_device_close(lost);
    sac_device_close(other);
}

/* driver_types.h says of these that the process must be relaunched; of 400 it does not. */
static void what_no_call_recovers_from_marks_the_device_as_lost(void **state)
{
    static const int codes[] = {226, 700, 702, 710, 714, 715, 716, 717, 718, 719, 721, 810, 400};

    (void)state;
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        struct sac_error err = {0};
        struct sac_device *device = open_device("cuda:1");
        char fault[32];
        void *memory;
        snprintf(fault, sizeof fault, "code:1:%d,lost:1:0", codes[i]);
        assert_true(sim_fault_set(fault));
        assert_int_equal(device->table->memory_new(device, SAC_MEMORY_DEVICE, 64, &memory, &err),
                         SAC_EDEVICE);
        assert_int_equal(device->table->health(device, NULL), codes[i] == 400 ? 0 : SAC_EDEVICE);
        sim_device_restore(1);
        assert_true(sim_fault_set(NULL));
        sac_device_close(device);
    }
}

/* ---- The cache of algorithms ---------------------------------------------- */

static unsigned long operations_of(struct sac_op_options ops)
{
    struct sac_op_case what = sac_op_case_conv("cached", 16, 9, 9, 24, 3, 1, 1, 1, 1);
    struct sac_op_rig_options options = {.ops = ops, .batch = 2};
    struct sac_error err = {0};
    struct sac_device *device = open_device("cuda:0");
    struct sac_op_rig *rig;
    unsigned long before = sim_device_operations(0);

    assert_ok(sac_op_rig_new(&rig, device, &what, &options, &err), err);
    unsigned long out = sim_device_operations(0) - before;
    sac_op_rig_free(rig);
    sac_device_close(device);
    return out;
}

static unsigned long operations_of_a_convolution(void)
{
    return operations_of((struct sac_op_options){0});
}

/* The one file in the cache's folder. */
static void cache_file(char *path, size_t size)
{
    char folder[512];
    int files = 0;

    snprintf(folder, sizeof folder, "%s/saccade", cache);
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    for (struct dirent *entry = readdir(dir); entry; entry = readdir(dir)) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, size, "%s/%.200s", folder, entry->d_name);
        files++;
    }
    closedir(dir);
    assert_int_equal(files, 1);
}

static void read_file(const char *path, char *text, size_t size)
{
    FILE *file = fopen(path, "r");

    assert_non_null(file);
    size_t length = fread(text, 1, size - 1, file);
    fclose(file);
    assert_true(length > 0);
    text[length] = 0;
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");

    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void algorithms_are_measured_once_and_kept_on_disk(void **state)
{
    unsigned long measured = operations_of_a_convolution();
    unsigned long kept = operations_of_a_convolution();
    char path[1024], text[512] = {0};

    (void)state;
    assert_true(kept < measured); /* opening a device again forgets all but the disk */
    cache_file(path, sizeof path);
    assert_non_null(strstr(path, "/cudnn-"));
    assert_non_null(strstr(path, "-cublas-")); /* proposals are counted by its version */
    read_file(path, text, sizeof text);
    assert_non_null(
        strstr(text, "conv f32 x 2 16 9 9 out 24 k 3 3 s 1 1 p 1 1 d 1 1 g 1 bias relu\n"));
}

static void the_way_back_is_measured_once_too(void **state)
{
    const struct sac_op_options training = {.training = true};
    const char *const ways[] = {" back data\n", " back filter\n"};
    unsigned long measured = operations_of(training), kept = operations_of(training);
    char path[1024], text[4096] = {0};

    (void)state;
    assert_true(kept < measured);
    cache_file(path, sizeof path);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_true(fread(text, 1, sizeof text - 1, file) > 0);
    fclose(file);
    for (int i = 0; i < 2; i++)
        assert_non_null(strstr(text, ways[i]));
}

static void a_bad_cache_costs_time_only(void **state)
{
    static const char *const bad[] = {
        "",
        "something else\n1 1 conv\n",
        "saccade algorithms 1\nnot a line\n99 1 conv f32 x 2 16 9 9 out 24 k 3 3 s 1 1 p 1 1 d 1 1 "
        "g 1 bias relu\n",
        "saccade algorithms 1\n-1 -1 conv f32 x 2 16 9 9 out 24 k 3 3 s 1 1 p 1 1 d 1 1 g 1 bias "
        "relu\n",
        "saccade algorithms 1\n1",
    };
    unsigned long kept = operations_of_a_convolution();
    char path[1024];

    (void)state;
    cache_file(path, sizeof path);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_file(path, bad[i]);
        assert_true(operations_of_a_convolution() > kept);
        assert_int_equal(operations_of_a_convolution(), kept);
    }
}

static void a_cache_that_cannot_be_written_is_no_error(void **state)
{
    (void)state;
    setenv("XDG_CACHE_HOME", "/proc/no/such/folder", 1);
    unsigned long operations = operations_of_a_convolution();
    setenv("XDG_CACHE_HOME", cache, 1);
    assert_true(operations > 0);
}

/* Which kernel does it; it is made and freed. */
static const char *kernel_of(struct sac_device *device, const struct sac_op_case *what)
{
    struct sac_op_rig_options options = {.batch = 2};
    struct sac_error err = {0};
    struct sac_op_rig *rig;

    assert_ok(sac_op_rig_new(&rig, device, what, &options, &err), err);
    const char *kernel = sac_op_rig_caps(rig)->kernel;
    sac_op_rig_free(rig);
    return kernel;
}

static void what_two_devices_and_another_process_find_is_all_kept(void **state)
{
    const struct sac_op_case first = sac_op_case_conv("first", 5, 9, 9, 6, 3, 1, 1, 1, 1),
                             second = sac_op_case_conv("second", 7, 9, 9, 8, 3, 1, 1, 1, 1);
    char path[1024], text[4096];

    (void)state;
    use_fresh_cache(NULL);
    operations_of_a_convolution(); /* so that the file is there */
    cache_file(path, sizeof path);
    struct sac_device *zero = open_device("cuda:0"), *one = open_device("cuda:1");
    kernel_of(zero, &first);
    read_file(path, text, sizeof text);
    strcat(text, "0 0 what another process found\n");
    write_file(path, text);
    kernel_of(one, &second);
    read_file(path, text, sizeof text); /* a process that is killed now loses nothing */
    assert_non_null(strstr(text, "x 2 16 9 9 "));
    assert_non_null(strstr(text, "x 2 5 9 9 "));
    assert_non_null(strstr(text, "what another process found\n"));
    sac_device_close(zero);
    sac_device_close(one);
    read_file(path, text, sizeof text);
    assert_non_null(strstr(text, "x 2 7 9 9 "));
}

static void devices_of_one_card_share_what_was_measured(void **state)
{
    const struct sac_op_case what = sac_op_case_conv("shared", 9, 9, 9, 6, 3, 1, 1, 1, 1);

    (void)state;
    struct sac_device *zero = open_device("cuda:0"), *one = open_device("cuda:1");
    unsigned long before[2] = {sim_device_operations(0), sim_device_operations(1)};
    kernel_of(zero, &what);
    kernel_of(one, &what);
    assert_true(sim_device_operations(1) - before[1] < sim_device_operations(0) - before[0]);
    sac_device_close(zero);
    sac_device_close(one);
}

/* By the tuner's answer: ours, or cuDNN's grouped convolution. */
static void depthwise_convolutions_are_done_by_whatever_is_faster(void **state)
{
    static const char question[] = "depthwise conv f32 x 2 16 9 9 out 16 k 3 3 s 1 1 p 1 1 d 1 1 g "
                                   "16 bias relu\n";
    const struct sac_op_case what = sac_op_case_conv("deep", 16, 9, 9, 16, 3, 1, 1, 1, 16);
    char path[1024], text[4096];

    (void)state;
    struct sac_device *device = open_device("cuda:0");
    kernel_of(device, &what);
    sac_device_close(device);
    cache_file(path, sizeof path);
    read_file(path, text, sizeof text);
    assert_non_null(strstr(text, question)); /* it was measured */
    for (int ours = 0; ours < 2; ours++) {
        snprintf(text, sizeof text, "saccade algorithms 1\n%d 0 %s", ours, question);
        write_file(path, text);
        device = open_device("cuda:0");
        assert_string_equal(kernel_of(device, &what), ours ? "depthwise" : "cuDNN");
        sac_device_close(device);
    }
}

/* How often the cache's file speaks of products: they were measured. */
static int products_measured(bool deterministic)
{
    const struct sac_op_case cases[] = {
        sac_op_case_conv("one tap", 16, 5, 5, 24, 1, 1, 0, 1, 1),
        sac_op_case_inner("inner", 8, 3, 3, 40),
    };
    struct sac_op_rig_options options = {.ops = {.training = true, .deterministic = deterministic},
                                         .batch = 2};
    struct sac_device *device = open_device("cuda:0");
    struct sac_error err = {0};
    char path[1024], text[4096] = {0};
    int found = 0;

    for (int i = 0; i < 2; i++) {
        struct sac_op_rig *rig;
        assert_ok(sac_op_rig_new(&rig, device, &cases[i], &options, &err), err);
        sac_op_rig_free(rig);
    }
    sac_device_close(device);
    cache_file(path, sizeof path);
    read_file(path, text, sizeof text);
    for (const char *at = text; (at = strstr(at, "matmul ")) != NULL; at++)
        found++;
    return found;
}

static void what_must_be_the_same_again_is_not_measured(void **state)
{
    (void)state;
    int before = products_measured(true);
    assert_int_equal(before, 0);
    assert_int_equal(products_measured(false), 2); /* the check can fail */
}

static void a_precision_that_the_card_lacks_is_refused(void **state)
{
    struct sac_op_case what = sac_op_case_inner("inner", 8, 1, 1, 4);
    struct sac_op_rig_options options = {.ops = {.precision = (enum sac_precision)9}, .batch = 1};
    struct sac_error err = {0};
    struct sac_device *device = open_device("cuda:0");
    struct sac_op_rig *rig;

    (void)state;
    assert_int_equal(sac_op_rig_new(&rig, device, &what, &options, &err), SAC_EUNSUPPORTED);
    assert_says(err, "cuda:0 does not compute in");
    sac_device_close(device);
}

/* ---- Recordings ----------------------------------------------------------- */

static void from_the_second_run_on_a_plan_is_one_recording(void **state)
{
    struct rig rig = {.device = open_device("cuda:0")};
    const struct sac_device_table *table = rig.device->table;
    struct sac_graph *graph = make_graph();
    struct sac_error err = {0};
    int data = make_input(graph, "data", make_shape(4, 2, 3, 9, 9));

    (void)state;
    make_outputs(graph, 1,
                 make_inner(graph, "fc", make_conv(graph, "c", data, 8, 3, 1, 1, 1, 1), 4));
    assert_ok(table->store_new(rig.device, &rig.store, &err), err);
    assert_ok(table->stream_new(rig.device, &rig.stream, &err), err);
    struct sac_plan *plan = rig_plan(&rig, graph, &(struct sac_plan_options){0});
    rig_forward(&rig, plan);
    assert_int_equal(sim_live().graphs, 0);
    for (int i = 0; i < 3; i++) {
        rig_forward(&rig, plan);
        assert_int_equal(sim_live().graphs, 1);
    }
    sac_plan_free(plan);
    assert_int_equal(sim_live().graphs, 0);
    rig_close(&rig);
}

static void a_plan_on_a_lost_device_fails_with_the_reason(void **state)
{
    struct rig rig = {.device = open_device("cuda:1")};
    const struct sac_device_table *table = rig.device->table;
    struct sac_graph *graph = make_graph();
    struct sac_error err = {0};
    int data = make_input(graph, "data", make_shape(4, 2, 3, 9, 9));

    (void)state;
    make_outputs(graph, 1, make_relu(graph, "relu", data));
    assert_ok(table->store_new(rig.device, &rig.store, &err), err);
    assert_ok(table->stream_new(rig.device, &rig.stream, &err), err);
    struct sac_plan *plan = rig_plan(&rig, graph, &(struct sac_plan_options){0});
    for (int run = 0; run < 3; run++)
        rig_forward(&rig, plan);
    assert_true(sim_fault_set("lost:1:0"));
    assert_int_equal(sac_plan_forward(plan, &err), SAC_EDEVICE);
    assert_says(err, "cuda:1");
    assert_int_equal(table->health(rig.device, NULL), SAC_EDEVICE);
    assert_true(sim_fault_set(NULL));
    sim_device_restore(1);
    sac_plan_free(plan);
    rig_close(&rig);
}

static void a_net_that_does_not_fit_is_refused_with_the_numbers(void **state)
{
    struct rig rig = {.device = open_device("cuda:0")};
    const struct sac_device_table *table = rig.device->table;
    struct sac_graph *graph = make_graph();
    struct sac_plan *plan = NULL;
    struct sac_error err = {0};
    int data = make_input(graph, "data", make_shape(4, 256, 3, 1100, 1100));

    (void)state;
    make_outputs(graph, 1, make_relu(graph, "relu", data));
    assert_ok(table->store_new(rig.device, &rig.store, &err), err);
    assert_ok(table->stream_new(rig.device, &rig.stream, &err), err);
    int rc = sac_plan_from_graph(&plan, graph, "huge", rig.device, rig.store, rig.stream,
                                 &(struct sac_plan_options){0}, &err);
    assert_int_equal(rc, SAC_ENOMEM);
    assert_null(plan);
    assert_says(err, "net huge: batch 256 needs");
    assert_says(err, "MiB are needed");
    assert_says(err, "MiB are free");
    rig_close(&rig);
}

static int nothing_is_left(void **state)
{
    struct sim_live live = sim_live(), none = {0};

    (void)state;
    if (sim_checks_failed() == 0 && memcmp(&live, &none, sizeof live) == 0)
        return 0;
    print_message("left: %d allocations, %d pinned, %d streams, %d events, %d graphs, %d handles, "
                  "%d descriptors; %d checks failed: %s\n",
                  live.allocations, live.pinned, live.streams, live.events, live.graphs,
                  live.handles, live.descriptors, sim_checks_failed(), sim_checks_last());
    return -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(devices_open_by_number_and_auto_takes_the_first),
        cmocka_unit_test(a_device_that_is_not_there_is_an_error),
        cmocka_unit_test(several_devices_open_by_list),
        cmocka_unit_test(copies_go_there_and_back_in_the_stream_and_events_order_streams),
        cmocka_unit_test(what_does_not_fit_is_refused_with_the_numbers),
        cmocka_unit_test(memory_that_runs_out_all_the_same_is_no_lost_device),
        cmocka_unit_test(what_no_call_recovers_from_marks_the_device_as_lost),
        cmocka_unit_test(algorithms_are_measured_once_and_kept_on_disk),
        cmocka_unit_test(the_way_back_is_measured_once_too),
        cmocka_unit_test(a_bad_cache_costs_time_only),
        cmocka_unit_test(a_cache_that_cannot_be_written_is_no_error),
        cmocka_unit_test(what_must_be_the_same_again_is_not_measured),
        cmocka_unit_test(what_two_devices_and_another_process_find_is_all_kept),
        cmocka_unit_test(devices_of_one_card_share_what_was_measured),
        cmocka_unit_test(depthwise_convolutions_are_done_by_whatever_is_faster),
        cmocka_unit_test(a_precision_that_the_card_lacks_is_refused),
        cmocka_unit_test(a_net_that_does_not_fit_is_refused_with_the_numbers),
        cmocka_unit_test(from_the_second_run_on_a_plan_is_one_recording),
        cmocka_unit_test(a_plan_on_a_lost_device_fails_with_the_reason),
        cmocka_unit_test(a_lost_device_says_to_what_and_the_others_live),
    };

    setenv("SACCADE_SIM_DEVICES", "2", 1);
    return cmocka_run_group_tests(tests, use_fresh_cache, nothing_is_left);
}
