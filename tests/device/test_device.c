#include "support/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/cpu/store.h"
#include "device/device.h"
#include "device/module.h"

static struct sac_device *open_device(const char *name)
{
    struct sac_error err = {0};
    struct sac_device *device;

    assert_ok(sac_device_open(&device, name, &err), err);
    return device;
}

static void the_cpu_opens_by_name_and_by_auto(void **state)
{
    const char *const names[] = {"cpu", "auto"};

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct sac_device *device = open_device(names[i]);
        assert_string_equal(device->table->kind, "cpu");
        assert_string_equal(device->info.name, "cpu");
        assert_true(device->info.host_memory);
        assert_true(device->info.streams >= 1);
        assert_true(device->info.precisions & 1u << SAC_PRECISION_F32);
        assert_true(strlen(device->info.description) > 0);
        sac_device_close(device);
    }
    sac_device_close(NULL);
}

static void a_device_that_is_not_there_is_an_error(void **state)
{
    const char *const names[] = {"", "cpus", "cpu:1", "cuda", "cuda:0,2", "CPU"};

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct sac_error err = {0};
        struct sac_device *device = NULL;
        assert_true(sac_device_open(&device, names[i], &err) < 0);
        assert_null(device);
        assert_says(err, "expected cpu");
        assert_says(err, names[i]);
    }
}

static void without_a_module_auto_is_the_cpu_and_cuda_says_why_not(void **state)
{
    struct sac_error err = {0};
    struct sac_device *devices[2];
    int count = 0;

    (void)state;
    assert_ok(sac_devices_open(devices, 2, &count, "auto", &err), err);
    assert_int_equal(count, 1);
    assert_string_equal(devices[0]->info.name, "cpu");
    sac_device_close(devices[0]);
    assert_true(sac_devices_open(devices, 2, &count, "cuda", &err) < 0);
    assert_says(err, "there is no saccade_cuda.so");
    err = (struct sac_error){0};
    assert_true(sac_device_cuda_count(&count, &err) < 0);
    assert_says(err, "there is no saccade_cuda.so");
}

static void memory_is_aligned_and_copies_copy(void **state)
{
    struct sac_error err = {0};
    struct sac_device *device = open_device("cpu");
    const struct sac_device_table *table = device->table;
    struct sac_stream *stream;
    struct sac_event *event;
    void *memory;
    char back[6];

    (void)state;
    assert_ok(table->stream_new(device, &stream, &err), err);
    assert_ok(table->event_new(device, &event, &err), err);
    assert_ok(table->memory_new(device, SAC_MEMORY_DEVICE, 100, &memory, &err), err);
    assert_int_equal((uintptr_t)memory % 64, 0);
    assert_ok(table->copy(stream, SAC_COPY_TO_DEVICE, memory, "hello", 6, &err), err);
    assert_ok(table->event_record(event, stream, &err), err);
    assert_ok(table->stream_wait(stream, event, &err), err);
    assert_ok(table->copy(stream, SAC_COPY_TO_HOST, back, memory, 6, &err), err);
    assert_ok(table->stream_sync(stream, &err), err);
    assert_string_equal(back, "hello");
    table->memory_free(device, SAC_MEMORY_DEVICE, memory);
    table->memory_free(device, SAC_MEMORY_DEVICE, NULL);
    table->event_free(event);
    table->stream_free(stream);
    table->stream_free(NULL);
    sac_device_close(device);
}

static int packs;

static int pack_text(void *data, void *context, struct sac_error *err)
{
    (void)err;
    packs++;
    strcpy(data, context);
    return 0;
}

static int pack_nothing(void *data, void *context, struct sac_error *err)
{
    (void)data;
    (void)context;
    return sac_fail(err, SAC_EFORMAT, "these weights cannot be packed");
}

static void weights_are_packed_once_by_name_and_packing(void **state)
{
    struct sac_error err = {0};
    struct sac_device *device = open_device("cpu");
    struct sac_store *store;
    struct sac_packer packer = {8, "note", 5, pack_text, (char[]){"first"}};
    const struct sac_packed *one, *two, *other;

    (void)state;
    assert_ok(device->table->store_new(device, &store, &err), err);
    assert_null(sac_cpu_store_find(store, "w", "plain"));
    assert_ok(sac_cpu_store_pack(store, "w", "plain", &packer, &one, &err), err);
    packer.context = (char[]){"second"};
    assert_ok(sac_cpu_store_pack(store, "w", "plain", &packer, &two, &err), err);
    assert_ptr_equal(one, two);
    assert_string_equal(two->data, "first");
    assert_string_equal(two->note, "note");
    assert_ptr_equal(sac_cpu_store_find(store, "w", "plain"), one);
    assert_ok(sac_cpu_store_pack(store, "w", "other", &packer, &other, &err), err);
    assert_string_equal(other->data, "second");
    assert_int_equal(packs, 2);
    assert_int_equal(device->table->store_bytes(store), 16);
    packer.pack = pack_nothing;
    assert_int_equal(sac_cpu_store_pack(store, "v", "plain", &packer, &other, &err), SAC_EFORMAT);
    assert_null(sac_cpu_store_find(store, "v", "plain"));
    assert_int_equal(device->table->store_bytes(store), 16);
    device->table->store_free(store);
    device->table->store_free(NULL);
    sac_device_close(device);
}

/* Of bf16 a multiply-add takes two pairs, of 8 bits four: never less than of floats. A core
 * does a few operations and a few hundred a cycle, at one to six GHz. */
static void a_cores_peak_is_that_of_a_core(void **state)
{
    struct sac_device *device = open_device("cpu");
    const char *how = NULL;
    double f32 = device->table->peak_flops(device, SAC_PRECISION_F32, &how);

    (void)state;
    assert_true(f32 > 1e8 && f32 < 6e9 * 64 * 4);
    assert_non_null(strstr(how, "multipl"));
    for (int p = SAC_PRECISION_BF16; p <= SAC_PRECISION_INT8; p++) {
        double peak = device->table->peak_flops(device, (enum sac_precision)p, &how);
        assert_true(peak == 0 || peak > f32 / 2);
    }
    sac_device_close(device);
}

static bool is_mapped(const char *name)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[4096];
    bool found = false;

    assert_non_null(maps);
    while (fgets(line, sizeof line, maps))
        found |= strstr(line, name) != NULL;
    fclose(maps);
    return found;
}

/* CUDA's libraries take 150 MB before they find that there is no driver. */
static void a_module_is_not_loaded_without_its_driver(void **state)
{
    struct sac_error err = {0};
    const void *found = NULL;
    int rc;

    (void)state;
    unsetenv("SACCADE_MODULE_DIR");
    rc = sac_module_load("saccade_cuda.so", "sac_cuda_module", SAC_MODULE_VERSION,
                         "src/device/cuda", "libno-such-driver.so.1", &found, &err);
    if (rc == SAC_ENOENT) {
        print_message("# skipped: built without CUDA\n");
        skip();
    }
    assert_int_equal(rc, SAC_EDEVICE);
    assert_says(err, "there is no driver: libno-such-driver.so.1");
    assert_null(found);
    assert_false(is_mapped("saccade_cuda.so"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_cpu_opens_by_name_and_by_auto),
        cmocka_unit_test(a_device_that_is_not_there_is_an_error),
        cmocka_unit_test(without_a_module_auto_is_the_cpu_and_cuda_says_why_not),
        cmocka_unit_test(memory_is_aligned_and_copies_copy),
        cmocka_unit_test(weights_are_packed_once_by_name_and_packing),
        cmocka_unit_test(a_cores_peak_is_that_of_a_core),
        cmocka_unit_test(a_module_is_not_loaded_without_its_driver),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
